#define _GNU_SOURCE
#include "opcheck.h"

#include <stdlib.h>
#include <time.h>

int tier_count = 1;
unsigned tier_features[TIERS_MAX] = {0};
const char *const tier_names[TIERS_MAX] = {"reference", "AVX2", "AVX-512", "BF16"};

enum { CHECKED_MAX = 256, VALUES_MAX = 1024 };
static tfi_host_fn checked[CHECKED_MAX];
static int checked_count;
static void *values[VALUES_MAX];
static int values_count;

static int was_checked(tfi_host_fn fn)
{
    for (int i = 0; i < checked_count; i++) {
        if (checked[i] == fn) return 1;
    }
    return 0;
}

static tfi_host_fn resolve(tfi_op_kind kind, tfi_op_types types, int tier)
{
    return tier == 0 ? tfi_ref_resolve(kind, types) : tfi_cpu_resolve(kind, types, tier_features[tier]);
}

tfi_host_fn op_fn(tfi_op_kind kind, tfi_op_types types, int tier)
{
    const tfi_host_fn fn = resolve(kind, types, tier);
    if (fn && !was_checked(fn)) {
        if (checked_count == CHECKED_MAX) exit(2);
        checked[checked_count++] = fn;
    }
    return fn;
}

void op_call(tfi_host_fn fn, const void *args, int workers, int64_t scratch)
{
    for (int i = 0; i < workers; i++) {
        tfi_worker w = {.index = i, .count = workers, .scratch = NULL};
        if (scratch > 0) {
            w.scratch = check_bytes(scratch);
            memset(w.scratch, 0xff, (size_t)scratch);
        }
        fn(args, &w);
    }
}

void *op_zeros(int64_t bytes)
{
    if (values_count == VALUES_MAX) exit(2);
    void *p = calloc(1, bytes > 0 ? (size_t)bytes : 1);
    if (!p) exit(2);
    return values[values_count++] = p;
}

void *op_values(tfi_dtype t, int64_t n, float low, float high)
{
    void *p = op_zeros(n * (int64_t)tfi_dtype_size(t));
    for (int64_t i = 0; i < n; i++) {
        const float v = check_uniform(low, high);
        if (t == TFI_BF16) {
            ((uint16_t *)p)[i] = tfi_f32_to_bf16(v);
        } else {
            ((float *)p)[i] = v;
        }
    }
    return p;
}

int32_t *op_indices(int64_t n, int32_t limit)
{
    int32_t *p = op_zeros(n * (int64_t)sizeof *p);
    for (int64_t i = 0; i < n; i++) p[i] = (int32_t)(check_random() % (uint64_t)limit);
    return p;
}

void op_end(void)
{
    while (values_count > 0) free(values[--values_count]);
}

void *op_out(tfi_dtype t, int64_t n)
{
    void *p = check_bytes(n * (int64_t)tfi_dtype_size(t));
    memset(p, 0xff, (size_t)n * tfi_dtype_size(t)); /* NaN in both types */
    return p;
}

double op_get(const void *p, tfi_dtype t, int64_t i)
{
    return t == TFI_BF16 ? (double)tfi_bf16_to_f32(((const uint16_t *)p)[i]) : (double)((const float *)p)[i];
}

void op_check_rows(const void *y, tfi_dtype t, const double *expected, int64_t rows, int64_t cols, double tolerance)
{
    double mean = 0; /* squared norm of a row */

    if (t == TFI_BF16) tolerance += 0x1p-8; /* half a unit in the last place of the smallest significand is 2^-9 */
    for (int64_t i = 0; i < rows * cols; i++) mean += expected[i] * expected[i] / (double)rows;
    for (int64_t r = 0; r < rows; r++) {
        double difference = 0, norm = 0;
        for (int64_t i = 0; i < cols; i++) {
            const double e = expected[r * cols + i], d = op_get(y, t, r * cols + i) - e;
            difference += d * d;
            norm += e * e;
        }
        /* A row that is small because its terms cancel has the rounding errors of the terms: the average is its measure. */
        if (norm < mean) norm = mean;
        const double error = norm > 0 ? sqrt(difference / norm) : sqrt(difference);
        check_count++;
        if (!(error <= tolerance)) {
            check_failed(__FILE__, __LINE__, "row %lld of %lld: relative error %g, allowed %g", (long long)r, (long long)rows,
                         error, tolerance);
            return;
        }
    }
}

void op_check_same(const void *a, const void *b, tfi_dtype t, int64_t n)
{
    CHECK(memcmp(a, b, (size_t)n * tfi_dtype_size(t)) == 0);
}

float op_magnitude(int i)
{
    static const float magnitudes[] = {1, 1e-4f, 1e4f};
    return magnitudes[i % 3];
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t); /* other programs on the machine do not count */
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

double op_seconds(tfi_host_fn fn, const void *args, int64_t scratch, int index, int count)
{
    tfi_worker w = {.index = index, .count = count, .scratch = aligned_alloc(64, (size_t)(scratch + 127) / 64 * 64)};
    double best = 1e9;
    int calls = 1;

    if (!w.scratch) exit(2);
    for (int i = 0; i < 7; i++) {
        const double begin = now();
        for (int k = 0; k < calls; k++) fn(args, &w);
        const double seconds = (now() - begin) / calls;
        if (seconds < best) best = seconds;
        if (seconds * calls < 0.02) {
            calls = (int)(0.03 / seconds) + 1;
            i = 0;
        }
    }
    free(w.scratch);
    return best;
}

/* Which operand types an op must have functions for. */
static int must_resolve(tfi_op_kind kind, tfi_op_types t)
{
    switch (kind) {
    case TFI_OP_GATHER_ROWS:
        return t.x == t.y;
    case TFI_OP_KV_APPEND:
        return t.residual == TFI_F32 && t.y == TFI_F32;
    case TFI_OP_LOGPROB:
    case TFI_OP_LOGITS_PROCESS:
    case TFI_OP_KV_COPY:
    case TFI_OP_SAMPLE:
    case TFI_OP_BEAM_STEP:
    case TFI_OP_STOP:
        return t.x == TFI_F32 && t.residual == TFI_F32 && t.y == TFI_F32;
    default:
        return 1;
    }
}

/* A function that a resolve gives and no case above has run is a hole. */
static void check_nothing_is_left(void)
{
    for (int i = 0; i < tier_count * TFI_OP_COUNT * 8; i++) {
        const int tier = i / 8 / TFI_OP_COUNT, kind = i / 8 % TFI_OP_COUNT;
        const tfi_op_types types = {i & 1 ? TFI_BF16 : TFI_F32, i & 2 ? TFI_BF16 : TFI_F32, i & 4 ? TFI_BF16 : TFI_F32};
        const tfi_host_fn fn = resolve((tfi_op_kind)kind, types, tier);
        check_count++;
        if (fn && !was_checked(fn))
            check_failed(__FILE__, __LINE__, "%s, types %d %d %d, %s: no check", tfi_op_name((tfi_op_kind)kind), types.x,
                         types.residual, types.y, tier_names[tier]);
        if (!fn && must_resolve((tfi_op_kind)kind, types))
            check_failed(__FILE__, __LINE__, "%s, types %d %d %d, %s: no function", tfi_op_name((tfi_op_kind)kind), types.x,
                         types.residual, types.y, tier_names[tier]);
    }
}

static void check_resolve_refuses(void)
{
    for (int kind = 0; kind < TFI_OP_COUNT; kind++) {
        CHECK(!tfi_ref_resolve((tfi_op_kind)kind, (tfi_op_types){TFI_F16, TFI_F32, TFI_F32}));
        CHECK(!tfi_cpu_resolve((tfi_op_kind)kind, (tfi_op_types){TFI_F32, TFI_F32, TFI_I8}, tfi_cpu_features()));
    }
    CHECK(!tfi_ref_resolve(TFI_OP_GATHER_ROWS, (tfi_op_types){TFI_F32, TFI_F32, TFI_BF16}));
    CHECK(!tfi_ref_resolve(TFI_OP_COUNT, (tfi_op_types){TFI_F32, TFI_F32, TFI_F32}));
}

int main(int argc, char **argv)
{
    const unsigned features = tfi_cpu_features();

    if (features & TFI_CPU_AVX2) tier_features[tier_count++] = TFI_CPU_AVX2;
    if (features & TFI_CPU_AVX512) tier_features[tier_count++] = TFI_CPU_AVX2 | TFI_CPU_AVX512;
    if (features & TFI_CPU_AVX512_BF16) tier_features[tier_count++] = features;
    if (argc > 1 && strcmp(argv[1], "--bench") == 0) {
        bench_rows();
        bench_attention();
        bench_draw();
        return 0;
    }
    printf("tiers:");
    for (int i = 0; i < tier_count; i++) printf(" %s", tier_names[i]);
    printf("\n");
    check_norm(argc, argv);
    check_embed(argc, argv);
    check_gather(argc, argv);
    check_pool(argc, argv);
    check_l2norm(argc, argv);
    check_linear(argc, argv);
    check_glu(argc, argv);
    check_logprob(argc, argv);
    check_kv_copy(argc, argv);
    check_attention(argc, argv);
    check_draw(argc, argv);
    check_run(argc, argv, "resolve_refuses", check_resolve_refuses);
    if (argc == 1) check_run(argc, argv, "every_function_has_a_check", check_nothing_is_left);
    return check_done();
}
