/* ATTENTION: every tier against a computation in double, one sequence at a time. */
#include "opcheck.h"

static const int32_t shapes[][9] = {/* lengths, closed by 0 */
                                    {0}, {1}, {7, 1, 16}, {64, 17}, {48, 49, 5, 96}, {130, 1, 33}, {512}, {513, 3}, {1100}};
static const int head_sizes[] = {64, 32, 80, 1, 3, 8, 16, 17, 31, 33, 65, 96, 100, 128, 256};
enum { SHAPES = 9, HEAD_SIZES = 15 };

static int case_number;
static float case_score; /* size of the scores of the case */

typedef struct sequences {
    int32_t offsets[9];
    int64_t B, R, longest;
} sequences;

static sequences sequences_of(const int32_t *lengths)
{
    sequences s = {.B = 0};
    for (; lengths[s.B] > 0; s.B++) {
        s.offsets[s.B + 1] = s.offsets[s.B] + lengths[s.B];
        if (lengths[s.B] > s.longest) s.longest = lengths[s.B];
    }
    s.R = s.offsets[s.B];
    return s;
}

static int64_t scratch_of(const tfi_attention_args *a, int64_t longest)
{
    return tfi_host_scratch(NULL, &(tfi_op){.kind = TFI_OP_ATTENTION, .heads = a->H, .head_size = a->D}, longest, longest);
}

/* Row r of y for all heads; x is qkv in double. */
static void row_expected(const tfi_attention_args *a, const double *x, int64_t begin, int64_t end, int64_t r, double *p,
                         double *y)
{
    const int64_t width = (int64_t)a->H * a->D;

    for (int64_t h = 0; h < a->H; h++) {
        double max = -1e300, sum = 0;
        for (int64_t j = begin; j < end; j++) {
            p[j - begin] = 0;
            for (int64_t d = h * a->D; d < (h + 1) * a->D; d++)
                p[j - begin] += x[r * 3 * width + d] * x[(j * 3 + 1) * width + d];
            p[j - begin] *= (double)a->scale;
            max = fmax(max, p[j - begin]);
        }
        for (int64_t j = 0; j < end - begin; j++) sum += p[j] = exp(p[j] - max);
        for (int64_t d = h * a->D; d < (h + 1) * a->D; d++) y[d] = 0;
        for (int64_t j = begin; j < end; j++) {
            for (int64_t d = h * a->D; d < (h + 1) * a->D; d++) y[d] += p[j - begin] / sum * x[(j * 3 + 2) * width + d];
        }
    }
}

static double *expect(const tfi_attention_args *a, tfi_dtype t)
{
    const int64_t n = a->R * a->H * a->D;
    double *x = op_zeros(3 * n * (int64_t)sizeof *x), *y = op_zeros(n * (int64_t)sizeof *y);

    for (int64_t i = 0; i < 3 * n; i++) x[i] = op_get(a->x, t, i);
    for (int64_t b = 0; b < a->B; b++) {
        double *p = op_zeros((a->offsets[b + 1] - a->offsets[b]) * (int64_t)sizeof *p);
        for (int64_t r = a->offsets[b]; r < a->offsets[b + 1]; r++)
            row_expected(a, x, a->offsets[b], a->offsets[b + 1], r, p, y + r * a->H * a->D);
    }
    return y;
}

/* All tiers, 1 to 3 workers: right, and the same bits for any number of workers. */
static void check_tiers(tfi_attention_args a, tfi_op_types t, const double *expected, int64_t longest)
{
    const int64_t n = a.R * a.H * a.D;

    for (int tier = 0; tier < tier_count; tier++) {
        const tfi_host_fn fn = op_fn(TFI_OP_ATTENTION, t, tier);
        /* a score of size s has an error of s 2^-24 times a few, the more the larger D is, and so, relative to 1, have the
         * probabilities; twice the worst seen. With bf16 products the probabilities are rounded to bf16 */
        const double tolerance = 4e-6 + (double)case_score * 1e-6 +
                                 (t.x == TFI_BF16 && (tier_features[tier] & TFI_CPU_AVX512_BF16) ? 0x1p-8 : 0);
        void *first = NULL;
        for (int workers = 1; workers <= (tier == 0 && a.R > 300 ? 1 : 3); workers++) { /* the reference is slow */
            a.y = op_out(t.y, n);
            op_call(fn, &a, workers, scratch_of(&a, longest));
            op_check_rows(a.y, t.y, expected, a.R, (int64_t)a.H * a.D, tolerance);
            if (workers == 1) first = a.y;
            op_check_same(first, a.y, t.y, n);
        }
    }
}

static void attention_case(void)
{
    const sequences s = sequences_of(shapes[case_number % SHAPES]);
    const int D = head_sizes[case_number / SHAPES], H = s.R > 300 ? 1 : 3;
    const float m = op_magnitude(case_number + case_number / SHAPES);

    for (int i = 0; i < 2; i++) {
        const tfi_dtype x = i ? TFI_BF16 : TFI_F32;
        tfi_attention_args a = {.offsets = s.offsets, .x_stride = 3 * H * D, .R = s.R, .B = s.B, .H = H, .D = D};
        a.x = op_values(x, s.R * 3 * H * D, -m, 1.5f * m); /* no output near 0: errors are relative */
        a.scale = case_score / (m * m * sqrtf((float)D));
        const double *expected = expect(&a, x);
        check_tiers(a, (tfi_op_types){x, TFI_F32, TFI_F32}, expected, s.longest);
        check_tiers(a, (tfi_op_types){x, TFI_F32, TFI_BF16}, expected, s.longest);
    }
}

/* A sequence alone and among others, with rows full of NaN next to it: the same bits. */
static void attention_alone(void)
{
    static const int32_t lengths[] = {70, 600, 13, 129, 0};
    const sequences s = sequences_of(lengths);
    enum { H = 2, D = 64, W = H * D };

    for (int tier = 0; tier < tier_count; tier++) {
        const tfi_host_fn fn = op_fn(TFI_OP_ATTENTION, (tfi_op_types){TFI_F32, TFI_F32, TFI_F32}, tier);
        for (int b = 0; b < s.B; b++) {
            const int64_t T = lengths[b];
            float *qkv = op_values(TFI_F32, s.R * 3 * W, -1, 1), *alone = op_values(TFI_F32, T * 3 * W, -1, 1);
            float *y = op_out(TFI_F32, s.R * W), *y_alone = op_out(TFI_F32, T * W);
            for (int64_t i = 0; i < s.R * 3 * W; i++) qkv[i] = NAN;
            memcpy(qkv + s.offsets[b] * 3 * W, alone, (size_t)T * 3 * W * sizeof(float));
            tfi_attention_args a = {
                .x = qkv, .x_stride = 3 * W, .offsets = s.offsets, .y = y, .R = s.R, .B = s.B, .H = H, .D = D, .scale = 0.5f};
            op_call(fn, &a, 2, scratch_of(&a, s.longest));
            a = (tfi_attention_args){.x = alone,
                                     .x_stride = 3 * W,
                                     .offsets = (int32_t[]){0, (int32_t)T},
                                     .y = y_alone,
                                     .R = T,
                                     .B = 1,
                                     .H = H,
                                     .D = D,
                                     .scale = 0.5f};
            op_call(fn, &a, 1, scratch_of(&a, T));
            op_check_same(y_alone, y + s.offsets[b] * W, TFI_F32, T * W);
            for (int64_t i = 0; i < s.R * W; i++) CHECK(isnan(y[i]) == (i < s.offsets[b] * W || i >= s.offsets[b + 1] * W));
        }
    }
    op_end();
}

/* Scores that grow from chunk to chunk and scores that fall: the running maximum moves, or does not. */
static void attention_moving_maximum(void)
{
    enum { T = 1300, D = 16 };
    static const int32_t offsets[] = {0, T};

    for (int i = 0; i < 2 * tier_count; i++) {
        float *qkv = op_values(TFI_F32, T * 3 * D, -1, 1);
        tfi_attention_args a = {.x = qkv, .x_stride = 3 * D, .offsets = offsets, .R = T, .B = 1, .H = 1, .D = D, .scale = 1};
        for (int64_t r = 0; r < T; r++) {
            for (int d = 0; d < D; d++) {
                qkv[r * 3 * D + d] = 1;
                qkv[r * 3 * D + D + d] = (float)(i % 2 ? r : T - r) * 0.001f * (float)(1 + r % 2);
            }
        }
        const double *expected = expect(&a, TFI_F32);
        a.y = op_out(TFI_F32, T * D);
        op_call(op_fn(TFI_OP_ATTENTION, (tfi_op_types){TFI_F32, TFI_F32, TFI_F32}, i / 2), &a, 1, scratch_of(&a, T));
        op_check_rows(a.y, TFI_F32, expected, T, D, 1e-5);
    }
    op_end();
}

static void run_cases(int argc, char **argv, float score, int stride)
{
    char name[64];
    case_score = score;
    for (case_number = 0; case_number < SHAPES * HEAD_SIZES; case_number += stride) {
        if (case_number % SHAPES >= 6 && case_number / SHAPES >= 3 && case_number % 4)
            continue; /* long ones: not all head sizes */
        snprintf(name, sizeof name, "attention_%d_D%d_score%g", case_number % SHAPES, head_sizes[case_number / SHAPES],
                 (double)score);
        check_run(argc, argv, name, attention_case);
        op_end();
    }
}

void check_attention(int argc, char **argv)
{
    run_cases(argc, argv, 3, 1);
    run_cases(argc, argv, 1e4f, 5);
    check_run(argc, argv, "attention_alone", attention_alone);
    check_run(argc, argv, "attention_moving_maximum", attention_moving_maximum);
    check_attention_store(argc, argv);
}

void bench_attention(void)
{
    static const int32_t benches[][9] = {{16, 0},  {128, 0},  {128, 128, 128, 128, 128, 128, 128, 128, 0},
                                         {512, 0}, {2048, 0}, {16, 32, 64, 96, 128, 192, 256, 512, 0}};
    static const char *const names[] = {"1 x 16", "1 x 128", "8 x 128", "1 x 512", "1 x 2048", "16..512 mixed"};

    for (int i = 0; i < 24; i++) {
        const sequences s = sequences_of(benches[i / 4]);
        const int D = i & 2 ? 32 : 64, H = 12;
        const tfi_dtype d = i & 1 ? TFI_BF16 : TFI_F32;
        tfi_attention_args a = {.offsets = s.offsets, .R = s.R, .B = s.B, .H = H, .D = D, .scale = 0.125f};
        double flop = 0;
        for (int64_t b = 0; b < s.B; b++) flop += 4.0 * benches[i / 4][b] * benches[i / 4][b] * H * D;
        a.x = op_values(d, s.R * 3 * H * D, -1, 1);
        a.y = op_zeros(s.R * H * D * 4);
        for (int tier = 1; tier < tier_count; tier++) {
            if (d == TFI_F32 && (tier_features[tier] & TFI_CPU_AVX512_BF16)) continue; /* the tier below serves these */
            const double seconds =
                op_seconds(op_fn(TFI_OP_ATTENTION, (tfi_op_types){d, TFI_F32, d}, tier), &a, scratch_of(&a, s.longest), 0, 1);
            printf("attention %-14s H=12 D=%d %s  %-9s %9.1f us %7.1f GFLOP/s\n", names[i / 4], D, tfi_dtype_name(d),
                   tier_names[tier], seconds * 1e6, flop / seconds * 1e-9);
            for (int w = 0; w < 2 && s.B == 8; w++)
                printf("    worker %d of 2: %.1f us\n", w,
                       op_seconds(op_fn(TFI_OP_ATTENTION, (tfi_op_types){d, TFI_F32, d}, tier), &a, scratch_of(&a, s.longest),
                                  w, 2) *
                           1e6);
        }
        op_end();
    }
    bench_attention_store();
}
