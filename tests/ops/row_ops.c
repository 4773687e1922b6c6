/* Ops that work row by row: NORM, EMBED, GATHER_ROWS, POOL, L2NORM, GLU, LOGPROB, KV_COPY, and the reference LINEAR. */
#include "opcheck.h"

static const int64_t row_counts[] = {0, 1, 7, 33}, widths[] = {1, 3, 16, 31, 64, 100, 384, 1000};
enum { ROW_COUNTS = 4, WIDTHS = 8, CASES = ROW_COUNTS * WIDTHS };

static int case_number; /* the case that check_run() runs now: shape, magnitude and all else follow from it */

static void run_cases(int argc, char **argv, const char *op, void (*body)(void))
{
    char name[64];
    for (case_number = 0; case_number < CASES; case_number++) {
        snprintf(name, sizeof name, "%s_R%d_E%d", op, (int)row_counts[case_number % ROW_COUNTS],
                 (int)widths[case_number / ROW_COUNTS]);
        check_run(argc, argv, name, body);
        op_end();
    }
}

static int64_t case_rows(void)
{
    return row_counts[case_number % ROW_COUNTS];
}

static int64_t case_width(void)
{
    return widths[case_number / ROW_COUNTS];
}

/* All tiers, 1 to 3 workers: right, and the same bits for any number of workers. */
static void check_tiers(tfi_op_kind kind, tfi_op_types types, const void *args, void **y_slot, const double *expected,
                        int64_t rows, int64_t cols, double tolerance)
{
    for (int tier = 0; tier < tier_count; tier++) {
        const tfi_host_fn fn = op_fn(kind, types, tier);
        void *first = NULL;
        CHECK(fn != NULL);
        if (!fn) return;
        for (int workers = 1; workers <= 3; workers++) {
            *y_slot = op_out(types.y, rows * cols);
            op_call(fn, args, workers, 0);
            op_check_rows(*y_slot, types.y, expected, rows, cols, tolerance);
            if (workers == 1) first = *y_slot;
            op_check_same(first, *y_slot, types.y, rows * cols);
        }
    }
}

static tfi_op_types types_of(int i)
{
    return (tfi_op_types){i & 1 ? TFI_BF16 : TFI_F32, i & 2 ? TFI_BF16 : TFI_F32, i & 4 ? TFI_BF16 : TFI_F32};
}

/* ---- NORM ---- */

static void norm_expected(const tfi_norm_args *a, tfi_op_types t, double *expected)
{
    for (int64_t r = 0; r < a->R; r++) {
        double *z = expected + r * a->E, sum = 0, squares = 0;
        for (int64_t i = 0; i < a->E; i++) {
            z[i] = op_get(a->x, t.x, r * a->E + i);
            if (a->residual) z[i] += op_get(a->residual, t.residual, r * a->E + i);
            if (a->norm == TFI_NORM_LAYER) sum += z[i] / (double)a->E;
        }
        for (int64_t i = 0; i < a->E; i++) squares += (z[i] - sum) * (z[i] - sum) / (double)a->E;
        for (int64_t i = 0; i < a->E; i++)
            z[i] = (z[i] - sum) / sqrt(squares + (double)a->eps) * (double)a->gain[i] + (a->bias ? (double)a->bias[i] : 0);
    }
}

static void norm_case(void)
{
    const int64_t R = case_rows(), E = case_width();
    const float m = op_magnitude(case_number), eps = case_number % 2 ? 1e-12f : 1e-5f;
    double *expected = op_zeros(R * E * (int64_t)sizeof *expected);

    for (int i = 0; i < 32; i++) {
        const tfi_op_types t = types_of(i);
        tfi_norm_args a = {.R = R, .E = E, .eps = eps, .norm = i & 16 ? TFI_NORM_RMS : TFI_NORM_LAYER};
        a.x = op_values(t.x, R * E, -m, m);
        a.residual = i & 8 ? op_values(t.residual, R * E, -m, m) : NULL;
        a.gain = op_values(TFI_F32, E, 0.5f, 2);
        a.bias = i & 16 ? NULL : op_values(TFI_F32, E, -0.1f, 0.1f);
        norm_expected(&a, t, expected);
        check_tiers(TFI_OP_NORM, t, &a, &a.y, expected, R, E, E < 16 ? 1e-4 : 1e-6);
    }
}

/* A mean far from 0 (10,000 deviations) is no reason to lose digits: the statistics see all of them. */
static void norm_far_mean(void)
{
    enum { R = 5, E = 768 };
    double expected[R * E];
    tfi_norm_args a = {.R = R, .E = E, .eps = 1e-12f};

    a.x = op_values(TFI_F32, R * E, 9999, 10001);
    a.gain = op_values(TFI_F32, E, 1, 1);
    a.bias = op_values(TFI_F32, E, 0, 0);
    norm_expected(&a, types_of(0), expected);
    check_tiers(TFI_OP_NORM, types_of(0), &a, &a.y, expected, R, E, 1e-6);
    op_end();
}

/* y may be x or residual. */
static void norm_in_place(void)
{
    enum { R = 9, E = 100 };
    double expected[R * E];
    tfi_norm_args a = {.R = R, .E = E, .eps = 1e-5f};

    for (int i = 0; i < 4 * tier_count; i++) {
        float *x = op_values(TFI_F32, R * E, -1, 1), *residual = op_values(TFI_F32, R * E, -1, 1);
        a.x = x;
        a.residual = residual;
        a.norm = i & 2 ? TFI_NORM_RMS : TFI_NORM_LAYER;
        a.gain = op_values(TFI_F32, E, 0.5f, 2);
        a.bias = i & 2 ? NULL : op_values(TFI_F32, E, -1, 1);
        norm_expected(&a, types_of(0), expected);
        a.y = i % 2 ? x : residual;
        op_call(op_fn(TFI_OP_NORM, types_of(0), i / 4), &a, 2, 0);
        op_check_rows(a.y, TFI_F32, expected, R, E, 1e-6);
    }
    op_end();
}

/* NaN in a row stays in the row. */
static void norm_nan(void)
{
    enum { R = 3, E = 37 };
    tfi_norm_args a = {.R = R, .E = E, .eps = 1e-5f};

    for (int i = 0; i < 2 * tier_count; i++) {
        float *x = op_values(TFI_F32, R * E, -1, 1);
        x[E + 36] = NAN;
        a.x = x;
        a.norm = i % 2 ? TFI_NORM_RMS : TFI_NORM_LAYER;
        a.gain = a.bias = op_values(TFI_F32, E, 0.5f, 2);
        a.y = op_out(TFI_F32, R * E);
        op_call(op_fn(TFI_OP_NORM, types_of(0), i / 2), &a, 1, 0);
        for (int k = 0; k < R * E; k++) CHECK(isnan(((float *)a.y)[k]) == (k / E == 1));
    }
    op_end();
}

void check_norm(int argc, char **argv)
{
    run_cases(argc, argv, "norm", norm_case);
    check_run(argc, argv, "norm_far_mean", norm_far_mean);
    check_run(argc, argv, "norm_in_place", norm_in_place);
    check_run(argc, argv, "norm_nan", norm_nan);
}

/* ---- EMBED ---- */

enum { EMBED_WORDS = 50, EMBED_SLOTS = 3 };

/* Ids of words, of tokens drawn for slots, and of given embeddings. */
static int32_t *mixed_ids(int64_t n)
{
    int32_t *ids = op_indices(n, EMBED_WORDS + EMBED_SLOTS + 1);
    for (int64_t r = 0; r < n; r++)
        if (ids[r] >= EMBED_WORDS) ids[r] = ids[r] == EMBED_WORDS ? TFI_ID_EMBEDDING : TFI_ID_DRAWN(ids[r] - EMBED_WORDS - 1);
    return ids;
}

/* The row of the table that an id stands for. */
static int64_t word_of(const tfi_slot *slots, int32_t id)
{
    return id >= 0 ? id : slots[-2 - id].tokens[slots[-2 - id].count - 1];
}

static void embed_case(void)
{
    enum { WORDS = EMBED_WORDS, POSITIONS = 20, TYPES = 2 };
    int32_t tokens[] = {7, 1, 49, 0};
    const tfi_slot slots[EMBED_SLOTS] = {
        {.tokens = tokens, .count = 1}, {.tokens = tokens, .count = 3}, {.tokens = tokens, .count = 4}};
    const int64_t R = case_rows(), E = case_width();
    const float m = op_magnitude(case_number);
    double *expected = op_zeros(R * E * (int64_t)sizeof *expected);

    for (int i = 0; i < 24; i++) { /* types of tables and of y, embeddings or ids or both, with and without the small tables */
        const tfi_op_types t = {i & 1 ? TFI_BF16 : TFI_F32, TFI_F32, i & 2 ? TFI_BF16 : TFI_F32};
        const tfi_weight weight = {.rows = WORDS, .cols = E, .dtype = t.x};
        const tfi_weight_form form = {.data = op_values(t.x, WORDS * E, -m, m)};
        tfi_embed_args a = {.word_weight = &weight, .word = &form, .R = R, .E = E};
        if (i & 4 || i >= 16) a.embeddings = op_values(TFI_F32, R * E, -m, m);
        if (!(i & 4)) a.ids = i >= 16 ? mixed_ids(R) : op_indices(R, WORDS);
        a.slots = slots;
        if (!(i & 8)) {
            a.positions = op_values(t.x, POSITIONS * E, -m, m);
            a.position_ids = op_indices(R, POSITIONS);
        }
        if (i != 15) {
            a.types = op_values(t.x, TYPES * E, -m, m);
            a.type_ids = op_indices(R, TYPES);
        }
        for (int64_t k = 0; k < R * E; k++) {
            const int64_t r = k / E, c = k % E;
            expected[k] = !a.ids || a.ids[r] == TFI_ID_EMBEDDING ? (double)a.embeddings[k]
                                                                 : op_get(form.data, t.x, word_of(slots, a.ids[r]) * E + c);
            if (a.positions) expected[k] += op_get(a.positions, t.x, a.position_ids[r] * E + c);
            if (a.types) expected[k] += op_get(a.types, t.x, a.type_ids[r] * E + c);
        }
        check_tiers(TFI_OP_EMBED, t, &a, &a.y, expected, R, E, E < 16 ? 1e-4 : 3e-7);
    }
}

void check_embed(int argc, char **argv)
{
    run_cases(argc, argv, "embed", embed_case);
}

/* ---- GATHER_ROWS ---- */

static void gather_case(void)
{
    enum { X_ROWS = 11 };
    const int64_t S = case_rows(), E = case_width();
    double *expected = op_zeros(S * E * (int64_t)sizeof *expected);

    for (int i = 0; i < 2; i++) {
        const tfi_op_types t = {i ? TFI_BF16 : TFI_F32, TFI_F32, i ? TFI_BF16 : TFI_F32};
        tfi_gather_args a = {.S = S, .E = E};
        a.x = op_values(t.x, X_ROWS * E, -1, 1);
        a.rows = op_indices(S, X_ROWS);
        for (int64_t k = 0; k < S * E; k++) expected[k] = op_get(a.x, t.x, a.rows[k / E] * E + k % E);
        check_tiers(TFI_OP_GATHER_ROWS, t, &a, &a.y, expected, S, E, 0);
    }
}

void check_gather(int argc, char **argv)
{
    run_cases(argc, argv, "gather", gather_case);
}

/* ---- POOL ---- */

static double pool_expected(const tfi_pool_args *a, tfi_op_types t, int pooling, int64_t b, int64_t i)
{
    const int64_t begin = a->offsets[b], T = a->offsets[b + 1] - begin;
    double max = -1e300, sum = 0, weighted = 0, weights = 0, n = (double)(T - a->skip);

    for (int64_t r = a->skip; r < T; r++) {
        const double v = op_get(a->x, t.x, (begin + r) * a->E + i);
        max = v > max ? v : max;
        sum += v;
        weighted += v * (double)(r + 1);
        weights += (double)(r + 1);
    }
    switch (pooling) {
    case TFI_POOL_CLS:
        return op_get(a->x, t.x, (begin + a->skip) * a->E + i);
    case TFI_POOL_MAX:
        return max;
    case TFI_POOL_MEAN:
        return sum / n;
    case TFI_POOL_MEAN_SQRT:
        return sum / sqrt(n);
    case TFI_POOL_WEIGHTED:
        return weighted / weights;
    default:
        return op_get(a->x, t.x, (begin + T - 1) * a->E + i);
    }
}

/* A list of 1 to 4 kinds in any order. */
static int32_t random_poolings(void)
{
    int32_t list = 0;
    for (uint64_t n = 1 + check_random() % 4; n > 0; n--) list = list << 3 | (int32_t)(1 + check_random() % TFI_POOL_LAST);
    return list;
}

static void pool_case(void)
{
    const int64_t B = case_rows(), E = case_width();
    const float m = op_magnitude(case_number);

    for (int i = 0; i < 28; i++) { /* each pooling alone, and a random set of them */
        const tfi_op_types t = {i & 1 ? TFI_BF16 : TFI_F32, TFI_F32, i & 2 ? TFI_BF16 : TFI_F32};
        tfi_pool_args a = {
            .B = B, .E = E, .pooling = i / 4 < 6 ? 1 + i / 4 : random_poolings(), .skip = (int32_t)(check_random() % 3)};
        int32_t *offsets = op_zeros((B + 1) * (int64_t)sizeof *offsets);
        int64_t at = 0, count = 0;
        for (int64_t b = 0; b < B; b++) offsets[b + 1] = offsets[b] + a.skip + 1 + (int32_t)(check_random() % 9);
        a.offsets = offsets;
        a.x = op_values(t.x, offsets[B] * E, -m, 3 * m);
        for (int32_t p = a.pooling; p; p >>= 3) count++;
        double *expected = op_zeros(B * count * E * (int64_t)sizeof *expected);
        for (int64_t b = 0; b < B; b++) {
            for (int32_t p = a.pooling; p; p >>= 3)
                for (int64_t k = 0; k < E; k++) expected[at++] = pool_expected(&a, t, p & 7, b, k);
        }
        check_tiers(TFI_OP_POOL, t, &a, &a.y, expected, B, count * E, E < 16 ? 1e-4 : 1e-6);
    }
}

static void pool_nan(void)
{
    static const int32_t offsets[] = {0, 4, 8};
    enum { E = 19 };

    for (int i = 0; i < tier_count * 4; i++) { /* the four poolings that see every row */
        float *x = op_values(TFI_F32, 8 * E, -1, 1), y[2 * E];
        tfi_pool_args a = {.x = x, .offsets = offsets, .y = y, .B = 2, .E = E, .pooling = TFI_POOL_MAX + i % 4};
        x[5 * E + 18] = x[5 * E] = NAN;
        op_call(op_fn(TFI_OP_POOL, types_of(0), i / 4), &a, 1, 0);
        for (int k = 0; k < 2 * E; k++) CHECK(isnan(y[k]) == (k == E || k == E + 18));
    }
    op_end();
}

void check_pool(int argc, char **argv)
{
    run_cases(argc, argv, "pool", pool_case);
    check_run(argc, argv, "pool_nan", pool_nan);
}

/* ---- L2NORM ---- */

static void l2norm_case(void)
{
    const int64_t R = case_rows(), E = case_width();
    const float m = op_magnitude(case_number);
    double *expected = op_zeros(R * E * (int64_t)sizeof *expected);

    for (int i = 0; i < 8; i++) { /* with an eps that has no effect, and one that rules */
        const tfi_op_types t = {i & 1 ? TFI_BF16 : TFI_F32, TFI_F32, i & 2 ? TFI_BF16 : TFI_F32};
        tfi_l2norm_args a = {.R = R, .E = E, .eps = i & 4 ? 100 * m : 1e-12f};
        a.x = op_values(t.x, R * E, -m, m);
        for (int64_t r = 0; r < R; r++) {
            double sum = 0;
            for (int64_t k = 0; k < E; k++) sum += pow(op_get(a.x, t.x, r * E + k), 2);
            for (int64_t k = 0; k < E; k++) expected[r * E + k] = op_get(a.x, t.x, r * E + k) / fmax(sqrt(sum), (double)a.eps);
        }
        check_tiers(TFI_OP_L2NORM, t, &a, &a.y, expected, R, E, 5e-7);
    }
}

void check_l2norm(int argc, char **argv)
{
    run_cases(argc, argv, "l2norm", l2norm_case);
}

/* ---- LINEAR: the reference alone ---- */

static double activated(tfi_activation activation, double v)
{
    const double inner = sqrt(2 / 3.14159265358979323846) * (v + 0.044715 * pow(v, 3));
    switch (activation) {
    case TFI_ACT_RELU:
        return fmax(v, 0);
    case TFI_ACT_GELU:
        return v * erfc(-v / sqrt(2)) / 2;
    case TFI_ACT_GELU_TANH:
        return v * (1 - 1 / (1 + exp(2 * inner)));
    case TFI_ACT_SILU:
        return v * (0.5 + 0.5 * tanh(v / 2));
    case TFI_ACT_TANH:
        return 1 - 2 / (1 + exp(2 * v));
    case TFI_ACT_SIGMOID:
        return 0.5 + 0.5 * tanh(v / 2);
    default:
        return v;
    }
}

static void linear_case(void)
{
    enum { N = 5 };
    const int64_t M = case_rows(), K = case_width();
    const float range = 2 / sqrtf((float)K); /* keeps activations where they are curved */
    double *expected = op_zeros(M * N * (int64_t)sizeof *expected);

    for (int i = 0; i < 8 * TFI_ACT_COUNT; i++) {
        const tfi_op_types t = {i & 1 ? TFI_BF16 : TFI_F32, TFI_F32, i & 2 ? TFI_BF16 : TFI_F32};
        const tfi_dtype stored = i & 4 ? TFI_BF16 : TFI_F32;
        const tfi_weight weight = {.rows = N, .cols = K, .dtype = stored};
        const tfi_weight_form form = {.data = op_values(stored, N * K, -range, range)};
        tfi_linear_args a = {.weight = &weight, .form = &form, .M = M, .N = N, .K = K, .activation = (tfi_activation)(i / 8)};
        a.x = op_values(t.x, M * K, -2, 2);
        a.bias = i % 3 ? op_values(TFI_F32, N, -1, 1) : NULL;
        a.residual = i % 5 ? op_values(t.y, M * N, -1, 1) : NULL;
        for (int64_t k = 0; k < M * N; k++) {
            double sum = a.bias ? (double)a.bias[k % N] : 0;
            for (int64_t c = 0; c < K; c++) sum += op_get(a.x, t.x, k / N * K + c) * op_get(form.data, stored, k % N * K + c);
            expected[k] = activated(a.activation, sum) + (a.residual ? op_get(a.residual, t.y, k) : 0);
        }
        check_tiers(TFI_OP_LINEAR, t, &a, &a.y, expected, M, N, 1e-7);
    }
}

void check_linear(int argc, char **argv)
{
    run_cases(argc, argv, "linear", linear_case);
}

/* ---- GLU ---- */

static void glu_case(void)
{
    const int64_t R = case_rows(), F = case_width();
    double *expected = op_zeros(R * F * (int64_t)sizeof *expected);

    for (int i = 0; i < 4 * TFI_ACT_COUNT; i++) {
        const tfi_op_types t = {i & 1 ? TFI_BF16 : TFI_F32, TFI_F32, i & 2 ? TFI_BF16 : TFI_F32};
        tfi_glu_args a = {.R = R, .F = F, .activation = (tfi_activation)(i / 4)};
        a.x = op_values(t.x, 2 * R * F, -4, 4);
        for (int64_t r = 0; r < R; r++)
            for (int64_t k = 0; k < F; k++)
                expected[r * F + k] = activated(a.activation, op_get(a.x, t.x, 2 * r * F + k)) *
                                      op_get(a.x, t.x, (2 * r + 1) * F + k);
        check_tiers(TFI_OP_GLU, t, &a, &a.y, expected, R, F, 1.5e-6);
    }
}

void check_glu(int argc, char **argv)
{
    run_cases(argc, argv, "glu", glu_case);
}

/* ---- LOGPROB ---- */

static double logprob_expected(const float *x, int64_t V, int32_t target)
{
    double max = -INFINITY, sum = 0;

    if (target < 0) return 0;
    for (int64_t i = 0; i < V; i++) max = fmax(max, (double)x[i]);
    for (int64_t i = 0; i < V; i++) sum += exp((double)x[i] - max);
    return (double)x[target] - max - log(sum);
}

/* The error allowed is absolute: a share of the largest logit, and what a sum over the vocabulary loses. */
static void logprob_of(int64_t S, int64_t V, float range)
{
    float *x = op_values(TFI_F32, S * V, -range, range);
    int32_t *targets = op_indices(S, (int32_t)V);
    tfi_logprob_args a = {.x = x, .targets = targets, .S = S, .V = V};

    for (int64_t s = 0; s < S; s++) {
        if (s % 5 == 4) targets[s] = -1;
        if (V > 3) x[s * V + (targets[s] == 1 ? 2 : 1)] = -INFINITY; /* as processors leave them */
    }
    for (int tier = 0; tier < tier_count; tier++) {
        for (int workers = 1; workers <= 3; workers++) {
            a.y = op_out(TFI_F32, S);
            op_call(op_fn(TFI_OP_LOGPROB, types_of(0), tier), &a, workers, 0);
            for (int64_t s = 0; s < S; s++) {
                const double expected = logprob_expected(x + s * V, V, targets[s]);
                CHECK(fabs((double)a.y[s] - expected) <= 2e-7 + 1.5e-7 * (fabs(expected) + (double)range));
            }
        }
    }
}

static void logprob_case(void)
{
    logprob_of(case_rows(), case_width(), case_number % 3 == 0 ? 1e-2f : case_number % 3 == 1 ? 10 : 300);
}

static void logprob_large(void)
{
    logprob_of(2, 50257, 8);
    op_end();
}

static void logprob_nan(void)
{
    enum { V = 2 * 2048 + 37 };

    for (int i = 0; i < 3 * tier_count; i++) {
        static const int at[] = {0, 2049, V - 1};
        const int32_t targets[] = {3, 3};
        float *x = op_values(TFI_F32, 2 * V, -1, 1), y[2];
        x[V + at[i % 3]] = NAN;
        op_call(op_fn(TFI_OP_LOGPROB, types_of(0), i / 3),
                &(tfi_logprob_args){.x = x, .targets = targets, .y = y, .S = 2, .V = V}, 1, 0);
        CHECK(!isnan(y[0]) && isnan(y[1]));
    }
    op_end();
}

void check_logprob(int argc, char **argv)
{
    run_cases(argc, argv, "logprob", logprob_case);
    check_run(argc, argv, "logprob_large", logprob_large);
    check_run(argc, argv, "logprob_nan", logprob_nan);
}

/* ---- KV_COPY ---- */

static void kv_copy_case(void)
{
    static const int32_t copies[] = {4, 0, 4, 2, 5, 1};
    enum { BLOCKS = 6 };

    for (int i = 0; i < 2 * 3; i++) {
        tfi_store store = {
            .shape = {.layers = 2, .heads = 3, .head_size = 5, .dtype = i % 2 ? TFI_BF16 : TFI_F32, .blocks = BLOCKS}};
        const int64_t bytes = tfi_kv_block_bytes(&store.shape);
        char *before = op_values(TFI_F32, BLOCKS * bytes / 4, -1, 1);
        store.blocks = check_bytes(BLOCKS * bytes);
        for (int count = 0; count <= 3; count++) {
            memcpy(store.blocks, before, (size_t)(BLOCKS * bytes));
            op_call(op_fn(TFI_OP_KV_COPY, types_of(0), i % tier_count), &(tfi_kv_copy_args){&store, copies, count}, 1 + i / 2,
                    0);
            for (int b = 0; b < BLOCKS; b++) {
                int from = b;
                for (int k = 0; k < count; k++)
                    if (copies[2 * k + 1] == b) from = copies[2 * k];
                CHECK(memcmp(store.blocks + b * bytes, before + from * bytes, (size_t)bytes) == 0);
            }
        }
    }
    op_end();
}

void check_kv_copy(int argc, char **argv)
{
    check_run(argc, argv, "kv_copy", kv_copy_case);
}

/* ---- figures ---- */

static void bench_one(const char *name, tfi_op_kind kind, tfi_op_types t, const void *args, double bytes)
{
    for (int tier = 0; tier < tier_count; tier++) {
        const double seconds = op_seconds(op_fn(kind, t, tier), args, 0, 0, 1);
        printf("%-28s x %s y %s  %-9s %8.1f us %7.1f GB/s\n", name, tfi_dtype_name(t.x), tfi_dtype_name(t.y), tier_names[tier],
               seconds * 1e6, bytes / seconds * 1e-9);
    }
}

void bench_rows(void)
{
    enum { R = 1024, E = 768 };
    static const int32_t offsets[] = {0, 128, 256, 384, 512, 640, 768, 896, 1024};
    const double elements = (double)R * E;

    for (int i = 0; i < 2; i++) {
        const tfi_dtype d = i ? TFI_BF16 : TFI_F32;
        const tfi_op_types t = {d, d, d};
        const double size = (double)tfi_dtype_size(d);
        const tfi_weight weight = {.rows = 30522, .cols = E, .dtype = d};
        const tfi_weight_form form = {.data = op_values(d, 30522 * E, -1, 1)};
        void *x = op_values(d, R * E, -1, 1), *residual = op_values(d, R * E, -1, 1), *y = op_zeros(R * E * 4);
        const float *gain = op_values(TFI_F32, E, 0.5f, 2), *sums = op_values(TFI_F32, R * E, -1, 1);
        bench_one(
            "norm R=1024 E=768", TFI_OP_NORM, t,
            &(tfi_norm_args){.x = x, .residual = residual, .gain = gain, .bias = gain, .y = y, .R = R, .E = E, .eps = 1e-12f},
            elements * 3 * size);
        bench_one("embed R=1024 E=768", TFI_OP_EMBED, t,
                  &(tfi_embed_args){.ids = op_indices(R, 30522),
                                    .position_ids = op_indices(R, 512),
                                    .type_ids = op_indices(R, 2),
                                    .word_weight = &weight,
                                    .word = &form,
                                    .positions = form.data,
                                    .types = form.data,
                                    .y = y,
                                    .R = R,
                                    .E = E},
                  elements * 4 * size);
        bench_one("gather S=1024 E=768", TFI_OP_GATHER_ROWS, t,
                  &(tfi_gather_args){.x = x, .rows = op_indices(R, R), .y = y, .S = R, .E = E}, elements * 2 * size);
        bench_one("pool mean 8 x 128 E=768", TFI_OP_POOL, t,
                  &(tfi_pool_args){.x = x, .offsets = offsets, .y = y, .B = 8, .E = E, .pooling = TFI_POOL_MEAN},
                  elements * size);
        bench_one("l2norm R=1024 E=768", TFI_OP_L2NORM, t, &(tfi_l2norm_args){.x = x, .y = y, .R = R, .E = E, .eps = 1e-12f},
                  elements * 2 * size);
        bench_one("rms norm of fp32", TFI_OP_NORM, (tfi_op_types){TFI_F32, TFI_F32, d},
                  &(tfi_norm_args){.x = sums, .gain = gain, .norm = TFI_NORM_RMS, .y = y, .R = R, .E = E, .eps = 1e-6f},
                  elements * (4 + size));
        bench_one("glu gelu_tanh R=1024 F=384", TFI_OP_GLU, t,
                  &(tfi_glu_args){.x = x, .y = y, .R = R, .F = E / 2, .activation = TFI_ACT_GELU_TANH}, elements * 1.5 * size);
        op_end();
    }
    const float *logits = op_values(TFI_F32, 4 * 50257, -8, 8);
    const int32_t targets[] = {1, 2, 3, 4};
    float y[4];
    bench_one("logprob S=4 V=50257", TFI_OP_LOGPROB, (tfi_op_types){TFI_F32, TFI_F32, TFI_F32},
              &(tfi_logprob_args){.x = logits, .targets = targets, .y = y, .S = 4, .V = 50257}, 4 * 50257 * 4.0);
    op_end();
}
