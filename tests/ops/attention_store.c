/* ATTENTION of all kinds on random sequences, and KV_APPEND: every tier and dtype against a computation in double. The store is
 * full of NaN but for the tokens that may be read, its blocks are in random order, and so are columns of x that are nobody's.
 */
#include "opcheck.h"

enum { SEQUENCES_MAX = 8, LAYERS = 3, LAYER = 1 };
#define TOLERANCE 7e-6 /* as in attention.c, for scores of size 3 */

/* What each sequence has, and the store that has it. Keys and values also as doubles, [len, H*D] a sequence. */
typedef struct problem {
    tfi_attention_args args;
    tfi_store store;
    tfi_dtype x, stored;
    int32_t offsets[SEQUENCES_MAX + 1], rows[SEQUENCES_MAX], lens[SEQUENCES_MAX];
    int32_t longest; /* of lens */
    double *keys[SEQUENCES_MAX], *values[SEQUENCES_MAX];
} problem;

static int32_t pick(int32_t low, int32_t high)
{
    return low + (int32_t)(check_random() % (uint64_t)(high - low + 1));
}

static int is_stored(tfi_attend attend)
{
    return attend == TFI_ATTEND_CACHE || attend == TFI_ATTEND_SOURCE;
}

static void put(void *p, tfi_dtype t, int64_t i, double v)
{
    if (t == TFI_BF16) {
        ((uint16_t *)p)[i] = tfi_f32_to_bf16((float)v);
    } else {
        ((float *)p)[i] = (float)v;
    }
}

static int64_t store_bytes(const problem *p)
{
    return p->store.shape.blocks * tfi_kv_block_bytes(&p->store.shape);
}

/* An empty store with room for each sequence's lens and some more; tables in random order, their unused ends out of range. */
static void make_store(problem *p)
{
    const int32_t used = (p->longest + TFI_KV_BLOCK - 1) / TFI_KV_BLOCK, stride = used + pick(0, 3);
    const int64_t B = p->args.B;
    int32_t *tables = op_zeros(B * stride * (int64_t)sizeof *tables + 4), next = 0;

    p->store.shape = (tfi_store_shape){LAYERS, p->args.H, p->args.D, p->stored, B * used + 3, 0};
    p->store.blocks = op_zeros(store_bytes(p));
    memset(p->store.blocks, 0xff, (size_t)store_bytes(p)); /* NaN in both types */
    int32_t *order = op_zeros(p->store.shape.blocks * (int64_t)sizeof *order);
    for (int32_t i = 0; i < (int32_t)p->store.shape.blocks; i++) {
        const int32_t k = pick(0, i);
        order[i] = order[k];
        order[k] = i;
    }
    for (int64_t i = 0; i < B * stride; i++)
        tables[i] = i % stride * TFI_KV_BLOCK < p->lens[i / stride] ? order[next++] : -100000000;
    p->args.kv = (tfi_kv_view){.store = &p->store, .lens = p->lens, .tables = tables, .stride = stride, .layer = LAYER};
}

/* Where element d of a head's token is in a block, by hand; part 0 keys, 1 values. */
static int64_t stored_at(const problem *p, int64_t b, int64_t token, int64_t part, int64_t head, int64_t d)
{
    const int64_t H = p->args.H, D = p->args.D, block = p->args.kv.tables[b * p->args.kv.stride + token / 16],
                  slot = token % 16;
    return (((block * LAYERS + LAYER) * 2 + part) * H + head) * 16 * D + (part ? slot * D + d : d * 16 + slot);
}

/* Tokens [from, to) of a sequence as the store should have them. */
static void fill(const problem *p, void *blocks, int64_t b, int64_t from, int64_t to)
{
    const int64_t D = p->args.D, width = p->args.H * D;
    for (int64_t i = from * width; i < to * width; i++) {
        const int64_t token = i / width, head = i % width / D, d = i % D;
        put(blocks, p->stored, stored_at(p, b, token, 0, head, d), p->keys[b][i]);
        put(blocks, p->stored, stored_at(p, b, token, 1, head, d), p->values[b][i]);
    }
}

static double *doubles(const void *p, tfi_dtype t, int64_t n)
{
    double *v = op_zeros(n * (int64_t)sizeof *v);
    for (int64_t i = 0; i < n; i++) v[i] = op_get(p, t, i);
    return v;
}

/* x with random values in columns [0, used), NaN behind. */
static void make_x(problem *p, int64_t used, float m)
{
    const int64_t n = p->args.R * p->args.x_stride;
    char *x = op_values(p->x, n, -m, 1.5f * m); /* no output near 0: errors are relative */
    for (int64_t i = 0; i < n; i++) {
        if (i % p->args.x_stride >= used) put(x, p->x, i, NAN);
    }
    p->args.x = x;
}

/* A length: mostly short, sometimes over a chunk of keys. */
static int32_t random_length(int32_t most)
{
    switch (pick(0, 9)) {
    case 0:
        return 0;
    case 1:
        return pick(0, most);
    case 2:
    case 3:
        return pick(1, 4);
    default:
        return pick(0, most < 70 ? most : 70);
    }
}

static void random_sequences(problem *p, int32_t most)
{
    tfi_attention_args *a = &p->args;

    a->B = pick(1, SEQUENCES_MAX);
    a->offsets = p->offsets;
    for (int64_t b = 0; b < a->B; b++) {
        p->rows[b] = random_length(is_stored(a->attend) ? most / 4 : most);
        p->lens[b] = a->attend == TFI_ATTEND_SOURCE ? random_length(most) : p->rows[b];
        if (a->attend == TFI_ATTEND_CACHE) p->lens[b] += random_length(most);
        if (p->lens[b] > p->longest) p->longest = p->lens[b];
        p->offsets[b + 1] = p->offsets[b] + p->rows[b];
    }
    a->R = p->offsets[a->B];
}

static void make_problem(problem *p, tfi_attend attend, tfi_dtype x, tfi_dtype stored, int biased)
{
    static const int32_t sizes[] = {64, 64, 64, 128, 32, 16, 80};
    const float m = op_magnitude(pick(0, 2));
    tfi_attention_args *a = &p->args;

    *p = (problem){.x = x, .stored = stored};
    a->attend = attend;
    a->H = pick(1, 3);
    a->D = pick(0, 2) ? sizes[pick(0, 6)] : pick(0, 3) ? pick(1, 100) : pick(1, 256);
    random_sequences(p, a->D > 64 || x != stored ? 100 : 640);
    a->x_stride = (is_stored(attend) ? 1 : 3) * a->H * a->D + pick(0, 40);
    a->scale = 3 / (m * m * sqrtf((float)a->D));
    if (biased) {
        a->max_distance = pick(1, 200);
        a->bias = op_values(TFI_F32, a->H * (2 * a->max_distance + 1), -3, 3);
    }
    make_x(p, (is_stored(attend) ? 1 : 3) * a->H * a->D, m);
    if (is_stored(attend)) make_store(p);
    for (int64_t b = 0; b < a->B; b++) {
        const int64_t width = a->H * a->D, n = p->lens[b] * width;
        if (is_stored(attend)) {
            p->keys[b] = doubles(op_values(stored, n, -m, 1.5f * m), stored, n);
            p->values[b] = doubles(op_values(stored, n, -m, 1.5f * m), stored, n);
            fill(p, p->store.blocks, b, 0, p->lens[b]);
        } else {
            p->keys[b] = op_zeros(n * (int64_t)sizeof(double));
            p->values[b] = op_zeros(n * (int64_t)sizeof(double));
            for (int64_t i = 0; i < n; i++) {
                const int64_t at = (p->offsets[b] + i / width) * a->x_stride + width + i % width;
                p->keys[b][i] = op_get(a->x, x, at);
                p->values[b][i] = op_get(a->x, x, at + width);
            }
        }
    }
}

/* Output of one head of row `row` (of the run) of sequence b, which is its token `number` and sees `keys` keys. */
static void head_expected(const problem *p, int64_t b, int64_t row, int64_t number, int64_t keys, int64_t h, double *y)
{
    const tfi_attention_args *a = &p->args;
    const int64_t width = a->H * a->D, max = a->max_distance;
    double score[2000], highest = -1e300, sum = 0;

    for (int64_t j = 0; j < keys; j++) {
        double dot = 0;
        for (int64_t d = h * a->D; d < (h + 1) * a->D; d++)
            dot += op_get(a->x, p->x, row * a->x_stride + d) * p->keys[b][j * width + d];
        score[j] = dot * (double)a->scale;
        if (a->bias) {
            const int64_t distance = j - number > max ? max : j - number < -max ? -max : j - number;
            score[j] += (double)a->bias[h * (2 * max + 1) + max + distance];
        }
        highest = fmax(highest, score[j]);
    }
    for (int64_t j = 0; j < keys; j++) sum += score[j] = exp(score[j] - highest);
    for (int64_t d = h * a->D; d < (h + 1) * a->D; d++) {
        y[d] = 0;
        for (int64_t j = 0; j < keys; j++) y[d] += score[j] / sum * p->values[b][j * width + d];
    }
}

static double *expected_of(const problem *p)
{
    const tfi_attention_args *a = &p->args;
    double *y = op_zeros(a->R * a->H * a->D * (int64_t)sizeof *y + 8);

    for (int64_t b = 0; b < a->B; b++) {
        for (int64_t i = 0; i < p->rows[b]; i++) {
            const int causal = a->attend == TFI_ATTEND_CAUSAL || a->attend == TFI_ATTEND_CACHE;
            const int64_t row = p->offsets[b] + i, number = a->attend == TFI_ATTEND_CACHE ? p->lens[b] - p->rows[b] + i : i;
            for (int64_t h = 0; h < a->H; h++)
                head_expected(p, b, row, number, causal ? number + 1 : p->lens[b], h, y + row * a->H * a->D);
        }
    }
    return y;
}

static int64_t attention_scratch(const tfi_attention_args *a, int64_t longest)
{
    const tfi_op op = {.kind = TFI_OP_ATTENTION, .attend = a->attend, .heads = a->H, .head_size = a->D};
    return is_stored(a->attend) ? tfi_host_scratch(NULL, &op, 0, longest) : tfi_host_scratch(NULL, &op, longest, 0);
}

/* Sequence b by itself gives the bits it has in y. */
static void check_alone(const problem *p, tfi_host_fn fn, tfi_dtype t, const void *y, int64_t b)
{
    const int64_t width = (int64_t)p->args.H * p->args.D, from = p->offsets[b];
    tfi_attention_args a = p->args;

    a.x = (const char *)a.x + from * a.x_stride * (int64_t)tfi_dtype_size(p->x);
    a.offsets = (int32_t[]){0, p->rows[b]};
    a.R = p->rows[b];
    a.B = 1;
    a.kv.lens += b;
    if (a.kv.tables) a.kv.tables += b * a.kv.stride;
    a.y = op_out(t, a.R * width);
    op_call(fn, &a, 2, attention_scratch(&a, p->lens[b]));
    op_check_same(a.y, (const char *)y + from * width * (int64_t)tfi_dtype_size(t), t, a.R * width);
}

/* Relative error of a tier: with bf16 products the probabilities are rounded to bf16, and what an F32 store has. */
static double tolerance_of(const problem *p, int tier)
{
    if (p->x != TFI_BF16 || !(tier_features[tier] & TFI_CPU_AVX512_BF16)) return TOLERANCE;
    return TOLERANCE + (p->stored == TFI_BF16 || !is_stored(p->args.attend) ? 0x1p-8 : 0x1p-6);
}

/* All tiers, 1 to 3 workers: right, the same bits for any number of workers, the store as it was. */
static void check_problem(problem *p, tfi_dtype y)
{
    const int64_t n = p->args.R * p->args.H * p->args.D, bytes = p->args.kv.store ? store_bytes(p) : 0;
    const double *expected = expected_of(p);
    void *before = op_zeros(bytes);

    if (bytes) memcpy(before, p->store.blocks, (size_t)bytes);
    for (int tier = 0; tier < tier_count; tier++) {
        const tfi_host_fn fn = op_fn(TFI_OP_ATTENTION, (tfi_op_types){p->x, TFI_F32, y}, tier);
        void *first = NULL;
        for (int workers = 1; workers <= (tier == 0 ? 2 : 3); workers++) {
            p->args.y = op_out(y, n);
            op_call(fn, &p->args, workers, attention_scratch(&p->args, p->longest));
            op_check_rows(p->args.y, y, expected, p->args.R, p->args.H * p->args.D, tolerance_of(p, tier));
            if (workers == 1) first = p->args.y;
            op_check_same(first, p->args.y, y, n);
        }
        check_alone(p, fn, y, first, pick(0, (int32_t)p->args.B - 1));
    }
    CHECK(!bytes || memcmp(before, p->store.blocks, (size_t)bytes) == 0);
}

/* ---- the cases ---- */

static tfi_attend case_attend;

/* Every combination of operand types, with and without bias. */
static void attention_kind(void)
{
    for (int i = 0; i < 64; i++) {
        problem p;
        make_problem(&p, case_attend, i & 1 ? TFI_BF16 : TFI_F32, i & 2 ? TFI_BF16 : TFI_F32, i & 4);
        check_problem(&p, i & 8 ? TFI_BF16 : TFI_F32);
        op_end();
    }
}

/* Rows [from, from + p->rows[b]) of each sequence's part of `all`, one behind the other, as the x of a run. */
static void take_rows(problem *p, const char *all, const int32_t *starts, const int32_t *done)
{
    const int64_t row_bytes = p->args.x_stride * (int64_t)tfi_dtype_size(p->x);
    char *x;

    for (int64_t b = 0; b < p->args.B; b++) p->offsets[b + 1] = p->offsets[b] + p->rows[b];
    p->args.R = p->offsets[p->args.B];
    x = op_zeros(p->args.R * row_bytes);
    for (int64_t b = 0; b < p->args.B; b++) {
        p->lens[b] = done[b] + p->rows[b];
        memcpy(x + p->offsets[b] * row_bytes, all + (starts[b] + done[b]) * row_bytes, (size_t)(p->rows[b] * row_bytes));
    }
    p->args.x = x;
}

static tfi_kv_append_args append_args(const problem *p, int64_t column)
{
    const tfi_attention_args *a = &p->args;
    return (tfi_kv_append_args){.x = a->x,
                                .x_stride = a->x_stride,
                                .offsets = a->offsets,
                                .kv = a->kv,
                                .R = a->R,
                                .B = a->B,
                                .H = a->H,
                                .D = a->D,
                                .column = (int32_t)column};
}

/* Keys and values of every sequence as the store rounds them, from x. */
static void keys_of_x(problem *p, int64_t column)
{
    const int64_t width = p->args.H * p->args.D;
    for (int64_t b = 0; b < p->args.B; b++) {
        const int64_t n = p->lens[b] * width, old = (p->lens[b] - p->rows[b]) * width;
        p->keys[b] = op_zeros(n * (int64_t)sizeof(double));
        p->values[b] = op_zeros(n * (int64_t)sizeof(double));
        for (int64_t i = old; i < n; i++) {
            const int64_t at = (p->offsets[b] + (i - old) / width) * p->args.x_stride + column + i % width;
            float rounded[2];
            put(rounded, p->stored, 0, op_get(p->args.x, p->x, at));
            put(rounded, p->stored, 1, op_get(p->args.x, p->x, at + width));
            p->keys[b][i] = op_get(rounded, p->stored, 0);
            p->values[b][i] = op_get(rounded, p->stored, 1);
        }
    }
}

/* Tokens go to where they belong, to the bit, and nothing else changes. */
static void kv_append(void)
{
    for (int i = 0; i < 32; i++) {
        problem p = {.x = i & 1 ? TFI_BF16 : TFI_F32, .stored = i & 2 ? TFI_BF16 : TFI_F32};
        tfi_attention_args *a = &p.args;
        a->attend = i & 4 ? TFI_ATTEND_SOURCE : TFI_ATTEND_CACHE;
        a->H = pick(1, 4);
        a->D = pick(0, 1) ? 64 : pick(1, 100);
        random_sequences(&p, 100);
        for (int64_t b = 0; b < a->B; b++) { /* a source that is not kept has rows and length 0 */
            if (a->attend == TFI_ATTEND_SOURCE) p.lens[b] = pick(0, 3) ? p.rows[b] : 0;
            if (p.lens[b] > p.longest) p.longest = p.lens[b];
        }
        const int64_t column = pick(0, 70), width = a->H * a->D;
        a->x_stride = column + 2 * width + pick(0, 20);
        make_store(&p);
        make_x(&p, a->x_stride, 1);
        for (int64_t b = 0; b < a->B; b++) {
            if (p.lens[b] == 0) p.rows[b] = 0; /* for keys_of_x; offsets keep them */
        }
        keys_of_x(&p, column);

        const int64_t bytes = store_bytes(&p);
        char *before = op_zeros(bytes), *expected = op_zeros(bytes);
        memcpy(before, p.store.blocks, (size_t)bytes);
        memcpy(expected, before, (size_t)bytes);
        for (int64_t b = 0; b < a->B; b++) fill(&p, expected, b, p.lens[b] - p.rows[b], p.lens[b]);
        for (int tier = 0; tier < tier_count; tier++) {
            const tfi_kv_append_args append = append_args(&p, column);
            memcpy(p.store.blocks, before, (size_t)bytes);
            op_call(op_fn(TFI_OP_KV_APPEND, (tfi_op_types){p.x, TFI_F32, TFI_F32}, tier), &append, pick(1, 3), 0);
            CHECK(memcmp(p.store.blocks, expected, (size_t)bytes) == 0);
        }
        op_end();
    }
}

/* Sequences that grow by some tokens a step, appended and attended from: what all of it in one go gives. */
static void grow(problem *p, int tier, const char *all, const int32_t *starts, const int32_t *whole, void *y)
{
    const int64_t width = p->args.H * p->args.D, y_bytes = width * (int64_t)sizeof(float);
    int32_t done[SEQUENCES_MAX] = {0};

    for (int left = 1; left;) {
        for (int64_t b = 0; b < p->args.B; b++) {
            const int32_t rest = whole[b] - done[b], n = pick(0, 2) ? pick(0, 2) : pick(5, 60);
            p->rows[b] = n < rest ? n : rest;
        }
        take_rows(p, all, starts, done);
        const tfi_kv_append_args append = append_args(p, width);
        op_call(op_fn(TFI_OP_KV_APPEND, (tfi_op_types){p->x, TFI_F32, TFI_F32}, tier), &append, pick(1, 3), 0);
        p->args.y = op_out(TFI_F32, p->args.R * width);
        op_call(op_fn(TFI_OP_ATTENTION, (tfi_op_types){p->x, TFI_F32, TFI_F32}, tier), &p->args, pick(1, 3),
                attention_scratch(&p->args, p->longest));
        left = 0;
        for (int64_t b = 0; b < p->args.B; b++) {
            memcpy((char *)y + (starts[b] + done[b]) * y_bytes, (char *)p->args.y + p->offsets[b] * y_bytes,
                   (size_t)(p->rows[b] * y_bytes));
            done[b] += p->rows[b];
            left |= done[b] < whole[b];
        }
    }
}

static void attention_grows(void)
{
    for (int i = 0; i < 8; i++) {
        problem p = {.x = i & 1 ? TFI_BF16 : TFI_F32, .stored = i & 2 ? TFI_BF16 : TFI_F32};
        tfi_attention_args *a = &p.args;
        int32_t starts[SEQUENCES_MAX + 1], whole[SEQUENCES_MAX];
        a->attend = TFI_ATTEND_CACHE;
        a->H = pick(1, 3);
        a->D = pick(0, 1) ? 64 : pick(1, 80);
        a->max_distance = 20;
        a->bias = op_values(TFI_F32, a->H * 41, -3, 3);
        a->scale = 3 / sqrtf((float)a->D);
        random_sequences(&p, 200);
        for (int64_t b = 0; b < a->B; b++) p.lens[b] = p.rows[b]; /* all of them new */
        memcpy(starts, p.offsets, sizeof starts);
        memcpy(whole, p.rows, sizeof whole);
        a->x_stride = 3 * a->H * a->D;
        make_store(&p);
        make_x(&p, a->x_stride, 1);
        keys_of_x(&p, a->H * a->D);
        const double *expected = expected_of(&p);
        const void *all = a->x;
        const int64_t R = a->R;
        for (int tier = 0; tier < tier_count; tier++) {
            void *y = op_zeros(R * a->H * a->D * (int64_t)sizeof(float));
            memset(p.store.blocks, 0xff, (size_t)store_bytes(&p));
            grow(&p, tier, all, starts, whole, y);
            op_check_rows(y, TFI_F32, expected, R, a->H * a->D, tolerance_of(&p, tier));
        }
        op_end();
    }
}

void check_attention_store(int argc, char **argv)
{
    static const char *const names[] = {"attention_all", "attention_causal", "attention_cache", "attention_source"};

    for (int i = 0; i < 4; i++) {
        case_attend = (tfi_attend)i;
        check_run(argc, argv, names[i], attention_kind);
    }
    check_run(argc, argv, "kv_append", kv_append);
    check_run(argc, argv, "attention_grows", attention_grows);
}

/* ---- times ---- */

static void bench_one(const char *name, tfi_attend attend, tfi_dtype t, int64_t B, int32_t rows, int32_t len)
{
    problem p = {.x = t, .stored = t, .longest = len};
    tfi_attention_args *a = &p.args;
    const double keys = attend == TFI_ATTEND_SOURCE || rows == 1 ? len : len - (rows - 1) * 0.5;

    *a = (tfi_attention_args){.B = B, .R = B * rows, .H = 12, .D = 64, .scale = 0.125f, .offsets = p.offsets, .attend = attend};
    for (int64_t b = 0; b < B; b++) {
        p.offsets[b + 1] = p.offsets[b] + rows;
        p.lens[b] = len;
    }
    a->x_stride = 3 * a->H * a->D;
    make_x(&p, a->x_stride, 1);
    make_store(&p);
    for (int64_t i = 0; i < store_bytes(&p) / (int64_t)tfi_dtype_size(t); i++)
        put(p.store.blocks, t, i, 0.5 - (double)(i % 7) / 7);
    a->y = op_zeros(a->R * a->H * a->D * 4);
    for (int tier = 1; tier < tier_count; tier++) {
        if (t == TFI_F32 && (tier_features[tier] & TFI_CPU_AVX512_BF16)) continue; /* the tier below serves these */
        const double pairs = (double)B * rows * keys * a->H * a->D, bytes = (double)B * len * a->H * a->D * 2 * (t ? 2 : 4);
        const double seconds =
            op_seconds(op_fn(TFI_OP_ATTENTION, (tfi_op_types){t, TFI_F32, t}, tier), a, attention_scratch(a, len), 0, 1);
        printf("attention %-8s B=%d %4d x %4d H=12 D=64 %s  %-9s %9.1f us %7.1f GFLOP/s %6.1f GB/s\n", name, (int)B, rows, len,
               tfi_dtype_name(t), tier_names[tier], seconds * 1e6, 4 * pairs / seconds * 1e-9, bytes / seconds * 1e-9);
    }
    op_end();
}

void bench_attention_store(void)
{
    for (int i = 0; i < 2; i++) {
        const tfi_dtype t = i ? TFI_BF16 : TFI_F32;
        for (int k = 0; k < 4; k++) bench_one("decode", TFI_ATTEND_CACHE, t, k & 1 ? 8 : 1, 1, k & 2 ? 1024 : 128);
        for (int32_t rows = 2; rows <= 16; rows *= 2) bench_one("few", TFI_ATTEND_CACHE, t, 1, rows, 512);
        bench_one("source", TFI_ATTEND_SOURCE, t, 4, 1, 40);
        bench_one("prefill", TFI_ATTEND_CACHE, t, 1, 128, 128);
        bench_one("prefill", TFI_ATTEND_CACHE, t, 1, 1024, 1024);
        bench_one("causal", TFI_ATTEND_CAUSAL, t, 1, 1024, 1024);
    }
}
