/* LINEAR of the CPU backend against the reference: weights of every stored type and order through weight_prepare, tiles of
 * every height and width, all activations; EMBED from the packed form. --bench prints speeds and checks nothing. */
#define _GNU_SOURCE
#include <math.h>
#include <stdlib.h>
#include <time.h>

#include "backend/cpu/cpu.h"
#include "check.h"

static tfi_memory memory;
static tfi_backend *fast, *plain;

static int64_t pick(int64_t low, int64_t high)
{
    return low + (int64_t)(check_random() % (uint64_t)(high - low + 1));
}

/* ---- weights ---- */

/* Of multiples of 1/64 in [-1, 1]: the tests make no others. */
static uint16_t to_f16(float f)
{
    int exponent;
    const float fraction = frexpf(fabsf(f), &exponent);
    const uint16_t sign = f < 0 ? 0x8000 : 0;
    return f == 0 ? 0 : (uint16_t)(sign | (exponent + 14) << 10 | (int)(fraction * 2048) % 1024);
}

static void put(uint8_t *p, tfi_dtype t, float f)
{
    const double d = f;
    uint16_t h = t == TFI_F16 ? to_f16(f) : tfi_f32_to_bf16(f);

    memcpy(p, t == TFI_F32 ? (const void *)&f : t == TFI_F64 ? (const void *)&d : (const void *)&h, tfi_dtype_size(t));
}

typedef struct stored {
    tfi_weight weight;
    tfi_tensor tensors[TFI_WEIGHT_PARTS];
} stored;

/* A matrix in up to three parts, each maybe transposed, spread out and at an odd address. fp16 sources hold few different
 * numbers. */
static void store(stored *s, int64_t rows, int64_t cols, tfi_dtype dtype, tfi_dtype source, int parts, int transposed,
                  int readers)
{
    *s = (stored){.weight = {.name = "w",
                             .rows = rows,
                             .cols = cols,
                             .dtype = dtype,
                             .transposed = transposed,
                             .readers = readers,
                             .parts = parts}};
    for (int i = 0; i < parts; i++) {
        const int64_t n = i + 1 < parts ? rows / parts : rows - rows / parts * (parts - 1), gap = pick(1, 2),
                      size = (int64_t)tfi_dtype_size(source);
        const int64_t inner = transposed ? n : cols, outer = transposed ? cols : n, odd = pick(0, 1);
        const int64_t pitch = inner * gap + pick(0, 3);
        tfi_tensor *t = &s->tensors[i];
        uint8_t *data = (uint8_t *)check_bytes(outer * pitch * size + odd) + odd;

        *t = (tfi_tensor){.name = "part",
                          .dtype = source,
                          .rank = 2,
                          .shape = {outer, inner},
                          .stride = {pitch, gap},
                          .data = data,
                          .span = (size_t)(outer * pitch * size)};
        for (int64_t o = 0; o < outer; o++) {
            for (int64_t k = 0; k < inner; k++) {
                const float v = source == TFI_F16 ? (float)pick(-64, 64) / 64 : check_uniform(-1, 1);
                put(data + (o * pitch + k * gap) * size, source, v);
            }
        }
        s->weight.part[i] = parts == 3 && pick(0, 9) == 0 ? NULL : t;
        s->weight.part_rows[i] = n;
    }
}

static tfi_weight_form prepare(tfi_backend *b, const stored *s)
{
    tfi_weight_form form;

    CHECK_OK(b->weight_form(b, &s->weight, &form));
    form.data = check_bytes(form.bytes);
    memset(form.data, 0xff, (size_t)form.bytes);
    CHECK_OK(b->weight_prepare(b, &s->weight, &form, NULL));
    return form;
}

/* ---- running one op ---- */

typedef struct op_job {
    const tfi_linear_args *args;
    tfi_dtype y;
    char *scratch;
    int64_t scratch_bytes;
    _Atomic int64_t taken[TFI_POOL_THREADS_MAX];
    _Atomic int failed;
    _Atomic int64_t busy_ns; /* processor time of the workers: on a busy machine the better clock */
} op_job;

static void run_fast(void *arg, int index, int count)
{
    op_job *j = arg;
    const tfi_worker w = {index, count, j->scratch + index * j->scratch_bytes};
    struct timespec from, to;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &from);
    if (tfi_linear_run(((tfi_cpu *)fast)->linear, j->args, j->y, &w, j->taken) < 0) j->failed = 1;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &to);
    j->busy_ns += (to.tv_sec - from.tv_sec) * 1000000000 + to.tv_nsec - from.tv_nsec;
}

static void *random_values(int64_t n, tfi_dtype t)
{
    uint8_t *p = check_bytes(n * (int64_t)tfi_dtype_size(t));
    for (int64_t i = 0; i < n; i++) put(p + i * (int64_t)tfi_dtype_size(t), t, check_uniform(-1, 1));
    return p;
}

static float *as_floats(const void *p, tfi_dtype t, int64_t n)
{
    float *out = check_out(n);
    for (int64_t i = 0; i < n; i++) out[i] = t == TFI_F32 ? ((const float *)p)[i] : tfi_bf16_to_f32(((const uint16_t *)p)[i]);
    return out;
}

static void *out_values(int64_t n, tfi_dtype t)
{
    void *p = check_bytes(n * (int64_t)tfi_dtype_size(t));
    memset(p, 0xff, (size_t)(n * (int64_t)tfi_dtype_size(t))); /* NaN in both types */
    return p;
}

static tfi_dtype any_dtype(void)
{
    return fast->has_bf16 && pick(0, 1) ? TFI_BF16 : TFI_F32;
}

static void one_linear(int64_t M, int64_t N, int64_t K, tfi_dtype dtype)
{
    const tfi_dtype y = pick(0, 1) ? TFI_BF16 : TFI_F32;
    const int parts = N >= 3 && pick(0, 1) ? 3 : 1;
    const int64_t scratch = tfi_linear_scratch();
    stored s;

    store(&s, N, K, dtype, (tfi_dtype)pick(TFI_F32, TFI_F64), parts, (int)pick(0, 1), TFI_READ_LINEAR);
    const tfi_weight_form packed = prepare(fast, &s), rows = prepare(plain, &s);
    tfi_linear_args a = {.x = random_values(M * K, dtype), .weight = &s.weight, .form = &packed, .M = M, .N = N, .K = K};
    a.activation = (tfi_activation)pick(0, TFI_ACT_COUNT - 1);
    if (pick(0, 3)) a.bias = check_floats(N, -1, 1);
    if (pick(0, 1)) a.residual = random_values(M * N, y);

    a.y = out_values(M * N, y);
    op_job job = {.args = &a, .y = y, .scratch = check_bytes(2 * scratch), .scratch_bytes = scratch};
    CHECK_OK(tfi_pool_run(((tfi_cpu *)fast)->pool, run_fast, &job));
    CHECK_INT(job.failed, 0);
    const float *got = as_floats(a.y, y, M * N);

    a.form = &rows;
    a.y = out_values(M * N, y);
    tfi_ref_resolve(TFI_OP_LINEAR, (tfi_op_types){.x = dtype, .y = y})(&a, &(tfi_worker){.count = 1});
    const float *expected = as_floats(a.y, y, M * N);
    /* Relative to the sizes of the results and of the sums behind them, which an activation may have made nearly 0. */
    double difference = 0, size = 0;
    for (int64_t i = 0; i < M * N; i++) {
        difference += ((double)got[i] - expected[i]) * ((double)got[i] - expected[i]);
        size += (double)expected[i] * expected[i] + 0.01 * (double)K;
    }
    /* Sums that differ by little may round to neighbouring bf16 numbers, 2^-7 apart; of many results few do. */
    const double error = sqrt(difference / size), bound = y == TFI_BF16 ? 1e-3 + 8e-3 / sqrt((double)(M * N)) : 1e-6;
    check_count++;
    if (!(error <= bound))
        check_failed(__FILE__, __LINE__,
                     "M %d N %d K %d %s giving %s, source %s, %d parts, transposed %d, activation %d, bias %d, "
                     "residual %d: relative error %g",
                     (int)M, (int)N, (int)K, tfi_dtype_name(dtype), tfi_dtype_name(y), tfi_dtype_name(s.tensors[0].dtype),
                     parts, s.weight.transposed, (int)a.activation, a.bias != NULL, a.residual != NULL, error);
}

static void random_shapes(void)
{
    static const int64_t Ns[] = {1, 2, 7, 63, 64, 65, 101, 128, 130, 768}, Ks[] = {1, 7, 16, 31, 32, 64, 101, 130, 768, 1030};

    for (int i = 0; i < 10; i++) one_linear(pick(1, 200), Ns[pick(0, 9)], Ks[pick(0, 9)], any_dtype());
}

/* Every height of a last tile. */
static void all_heights(void)
{
    const int64_t from = pick(0, 3);
    for (int64_t M = 1 + from; M <= 200; M += 4) one_linear(M, 20, 33, any_dtype());
}

/* The function of few rows: every number of them and one more, inputs that fill whole units and pieces and that do not. */
static void few_rows(void)
{
    static const int64_t Ks[] = {1, 2, 33, 96, 97, 193};

    for (int64_t M = 1; M <= TFI_FEW_ROWS + 1; M++) {
        for (int i = 0; i < 6; i++) {
            one_linear(M, pick(0, 1) ? 20 : 130, Ks[i], TFI_F32);
            if (fast->has_bf16) one_linear(M, pick(0, 1) ? 20 : 130, Ks[i], TFI_BF16);
        }
    }
}

/* The first rows of a call give the same bits however many rows it has. */
static void same_bits(void)
{
    static const int64_t Ks[] = {33, 512, 513, 768, 1030, 3072};
    const int64_t N = 130, most = 150, scratch = tfi_linear_scratch();

    for (int i = 0; i < 12; i++) {
        const int64_t K = Ks[i / 2];
        const tfi_dtype dtype = i % 2 && fast->has_bf16 ? TFI_BF16 : TFI_F32;
        stored s;

        store(&s, N, K, dtype, TFI_F32, 1, 0, TFI_READ_LINEAR);
        const tfi_weight_form form = prepare(fast, &s);
        if (form.layout == TFI_LAYOUT_PLAIN) continue; /* oneDNN's generic kernels promise nothing of the kind */
        tfi_linear_args a = {.x = random_values(most * K, dtype), .weight = &s.weight, .form = &form, .N = N, .K = K};
        const float *first = NULL;
        for (int k = 0; k < 8; k++) {
            a.M = k == 0 ? most : pick(1, 2 * TFI_FEW_ROWS);
            a.y = out_values(most * N, TFI_F32);
            op_job job = {.args = &a, .y = TFI_F32, .scratch = check_bytes(2 * scratch), .scratch_bytes = scratch};
            CHECK_OK(tfi_pool_run(((tfi_cpu *)fast)->pool, run_fast, &job));
            if (k == 0) first = a.y;
            CHECK(memcmp(first, a.y, (size_t)(a.M * N) * sizeof *first) == 0);
        }
    }
}

/* Several pieces of the source, in both orders of cutting. */
static void long_weights(void)
{
    for (int transposed = 0; transposed < 2; transposed++) {
        stored s;
        store(&s, 2100, 2050, TFI_F32, TFI_F64, 1, transposed, TFI_READ_LINEAR | TFI_READ_ROWS);
        const tfi_weight_form packed = prepare(fast, &s), rows = prepare(plain, &s);
        const int64_t units = tfi_packed_units(TFI_LAYOUT_PACKED_F32, 2050);
        if (packed.layout == TFI_LAYOUT_PLAIN) {
            CHECK(memcmp(packed.data, rows.data, (size_t)rows.bytes) == 0);
            continue;
        }
        for (int64_t n = 0; n < 2100; n++)
            for (int64_t k = 0; k < 2050; k++)
                if (((float *)packed.data)[(n / 64 * units + k) * 64 + n % 64] != ((float *)rows.data)[n * 2050 + k]) {
                    CHECK_INT(n, -1);
                    return;
                }
    }
}

/* A tied table: EMBED gives the same numbers, to the bit, as from a plain one. */
static void tied_rows(void)
{
    for (int i = 0; i < 8; i++) {
        const int64_t V = pick(1, 150), E = pick(1, 140), R = pick(1, 40);
        const tfi_dtype dtype = fast->has_bf16 && i % 2 ? TFI_BF16 : TFI_F32, y = i / 2 % 2 ? TFI_BF16 : TFI_F32;
        const tfi_op_types types = {.x = dtype, .y = y};
        stored s;

        store(&s, V, E, dtype, (tfi_dtype)pick(TFI_F32, TFI_F64), 1, 0, TFI_READ_LINEAR | TFI_READ_ROWS);
        const tfi_weight_form packed = prepare(fast, &s), rows = prepare(plain, &s);
        if (packed.layout == TFI_LAYOUT_PLAIN) continue; /* oneDNN has no kernels for packed forms here */
        int32_t *ids = check_bytes(R * 4), *types_ids = check_bytes(R * 4);
        for (int64_t r = 0; r < R; r++) {
            ids[r] = (int32_t)pick(0, V - 1);
            types_ids[r] = (int32_t)pick(0, 1);
        }
        tfi_embed_args a = {.ids = ids,
                            .type_ids = types_ids,
                            .word_weight = &s.weight,
                            .word = &packed,
                            .types = random_values(2 * E, dtype),
                            .R = R,
                            .E = E};
        const size_t bytes = (size_t)(R * E) * tfi_dtype_size(y);
        void *got = a.y = out_values(R * E, y);
        for (int w = 0; w < 3; w++) tfi_cpu_embed_packed(types)(&a, &(tfi_worker){.index = w, .count = 3});
        void *expected = a.y = out_values(R * E, y);
        a.word = &rows;
        tfi_ref_resolve(TFI_OP_EMBED, types)(&a, &(tfi_worker){.count = 1});
        CHECK(memcmp(got, expected, bytes) == 0);
    }
}

static void bad_sources(void)
{
    tfi_weight_form form;
    stored s;

    store(&s, 4, 4, TFI_F32, TFI_F32, 1, 0, TFI_READ_LINEAR);
    s.tensors[0].dtype = TFI_I64;
    CHECK_STATUS(fast->weight_form(fast, &s.weight, &form), TF_STATUS_UNSUPPORTED);
    CHECK_ERROR_SAYS("part");
    CHECK_ERROR_SAYS("int64");
    s.tensors[0].dtype = TFI_F32;
    s.weight.dtype = TFI_F16;
    CHECK_STATUS(fast->weight_form(fast, &s.weight, &form), TF_STATUS_UNSUPPORTED);
    CHECK_ERROR_SAYS("fp16");
    s.weight.dtype = TFI_F32;
    s.weight.rows = s.weight.cols = INT64_MAX / 4;
    CHECK_STATUS(fast->weight_form(fast, &s.weight, &form), TF_STATUS_NOMEM);
}

/* Vectors: parts one behind the other, as fp32; one of them missing. */
static void vectors(void)
{
    tfi_tensor t[2];
    uint8_t *data = check_bytes(2 * 5 * 2 + 2 * 3 * 8);
    tfi_weight w = {.name = "b",
                    .rows = 1,
                    .cols = 12,
                    .dtype = TFI_F32,
                    .readers = TFI_READ_VECTOR,
                    .parts = 3,
                    .part = {&t[0], NULL, &t[1]},
                    .part_rows = {5, 4, 3}};
    float expected[12] = {0};
    tfi_weight_form form;

    t[0] = (tfi_tensor){.name = "a", .dtype = TFI_F16, .rank = 1, .shape = {5}, .stride = {2}, .data = data, .span = 18};
    t[1] = (tfi_tensor){
        .name = "c", .dtype = TFI_F64, .rank = 2, .shape = {1, 3}, .stride = {9, 1}, .data = data + 20, .span = 24};
    for (int i = 0; i < 5; i++) put(data + 4 * i, TFI_F16, expected[i] = (float)pick(-64, 64) / 64);
    for (int i = 0; i < 3; i++) put(data + 20 + 8 * i, TFI_F64, expected[9 + i] = check_uniform(-1, 1));
    CHECK_OK(fast->weight_form(fast, &w, &form));
    CHECK_INT(form.bytes, 48);
    form.data = check_bytes(48);
    CHECK_OK(fast->weight_prepare(fast, &w, &form, NULL));
    CHECK(memcmp(form.data, expected, sizeof expected) == 0);
}

/* T5's table by bucket becomes one by distance; the bucket function itself is checked against its formula in double, away from
 * the edges between buckets. */
static void bias_by_distance(void)
{
    const tfi_relative r = {
        .buckets = (int32_t)pick(4, 40), .max_distance = (int32_t)pick(20, 200), .bidirectional = (int32_t)pick(0, 1)};
    const int64_t heads = pick(1, 9), columns = 2 * r.max_distance + 1;
    const int32_t buckets = r.bidirectional ? r.buckets / 2 : r.buckets, exact = buckets / 2;
    tfi_weight_form form;
    stored s;

    store(&s, r.buckets, heads, TFI_F32, pick(0, 1) ? TFI_BF16 : TFI_F32, (int)pick(1, 2), (int)pick(0, 1), TFI_READ_BIAS);
    s.weight.relative = r;
    form = prepare(fast, &s);
    CHECK_INT(form.layout, TFI_LAYOUT_PLAIN);
    CHECK_INT(form.bytes, heads * columns * 4);
    s.weight.readers = TFI_READ_VECTOR | TFI_READ_ROWS;
    const tfi_weight_form table = prepare(plain, &s); /* the same table, by bucket */
    for (int32_t d = -r.max_distance; d <= r.max_distance; d++) {
        const int32_t bucket = tfi_relative_bucket(&r, d), behind = r.bidirectional ? abs(d) : d < 0 ? -d : 0;
        const double share = behind < exact ? behind
                                            : exact + log((double)behind / exact) / log((double)r.max_distance / exact) *
                                                          (buckets - exact);
        const int32_t first = r.bidirectional && d > 0 ? buckets : 0;
        if (share - floor(share) > 1e-4 && ceil(share) - share > 1e-4)
            CHECK_INT(bucket - first, share < buckets ? (int32_t)share : buckets - 1);
        if (behind < exact) CHECK_INT(bucket - first, behind);
        for (int64_t h = 0; h < heads; h++)
            CHECK(((float *)form.data)[h * columns + r.max_distance + d] == ((float *)table.data)[bucket * heads + h]);
    }
    for (int32_t far = r.max_distance; far < 3 * r.max_distance; far++) { /* nothing changes beyond */
        CHECK_INT(tfi_relative_bucket(&r, far), tfi_relative_bucket(&r, r.max_distance));
        CHECK_INT(tfi_relative_bucket(&r, -far), tfi_relative_bucket(&r, -r.max_distance));
    }
}

static double exactly(tfi_activation activation, double v)
{
    switch (activation) {
    case TFI_ACT_RELU:
        return v > 0 ? v : 0;
    case TFI_ACT_GELU:
        return 0.5 * v * erfc(-v * 0.70710678118654752);
    case TFI_ACT_GELU_TANH:
        return v / (1 + exp(-1.5957691216057308 * (v + 0.044715 * v * v * v)));
    case TFI_ACT_SILU:
        return v / (1 + exp(-v));
    case TFI_ACT_TANH:
        return tanh(v);
    case TFI_ACT_SIGMOID:
        return 1 / (1 + exp(-v));
    default:
        return v;
    }
}

/* Each activation of each tier against double precision, relative to the result's size or its argument's, whichever is less. */
static void activations(void)
{
    const tfi_linear_tier *tiers[] = {&tfi_linear_plain, tfi_cpu_features() & TFI_CPU_AVX2 ? &tfi_linear_avx2 : NULL,
                                      tfi_cpu_features() & TFI_CPU_AVX512 ? &tfi_linear_avx512 : NULL};
    float *x = check_floats(1 << 16, -12, 12), *y = check_out(1 << 16);

    for (int i = 0; i < 1 << 16; i += 4) x[i] *= 1e-3f;
    for (int i = 1; i < 1 << 16; i += 64) x[i] *= 100;
    for (int t = 0; t < 3; t++) {
        for (int act = 0; tiers[t] && act < TFI_ACT_COUNT; act++) {
            double worst = 0, at = 0;
            tiers[t]->finish[act][TFI_F32](
                &(tfi_linear_tile){.sums = x, .rows = 512, .cols = 128, .stride = 128, .y = y, .y_stride = 128});
            for (int i = 0; i < 1 << 16; i++) {
                const double exact = exactly((tfi_activation)act, x[i]),
                             error = fabs(y[i] - exact) / (fabs(exact) + 0.1 * fmin(fabs(x[i]), 1) + 1e-30);
                if (!(error <= worst)) {
                    worst = error;
                    at = x[i];
                }
            }
            check_count++;
            if (!(worst < 1e-6)) check_failed(__FILE__, __LINE__, "tier %d, activation %d: error %g at %g", t, act, worst, at);
            y[0] = 0;
            x[0] = NAN;
            tiers[t]->finish[act][TFI_F32](
                &(tfi_linear_tile){.sums = x, .rows = 1, .cols = 1, .stride = 64, .y = y, .y_stride = 1});
            CHECK(isnan(y[0]));
            x[0] = 1e-3f;
        }
    }
}

/* ---- speed ---- */

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void bench_one(tfi_dtype dtype, int64_t M, int64_t N, int64_t K, tfi_activation activation)
{
    static char *space;
    const int64_t room = 64 << 20;
    tfi_tensor t = {.name = "w", .dtype = dtype, .rank = 2, .shape = {N, K}, .stride = {K, 1}};
    tfi_weight w = {.name = "w",
                    .rows = N,
                    .cols = K,
                    .dtype = dtype,
                    .readers = TFI_READ_LINEAR,
                    .parts = 1,
                    .part = {&t},
                    .part_rows = {N}};
    tfi_weight_form form;
    double best = 1e9, busy = 1e9;

    if (!space && (space = tfi_zalloc(&memory, (size_t)(5 * room))) == NULL) return;
    t.data = (uint8_t *)space;
    CHECK_OK(fast->weight_form(fast, &w, &form));
    form.data = space + room;
    CHECK_OK(fast->weight_prepare(fast, &w, &form, NULL));
    const tfi_linear_args a = {.x = space + 2 * room,
                               .weight = &w,
                               .form = &form,
                               .bias = (float *)(void *)space,
                               .y = space + 3 * room,
                               .M = M,
                               .N = N,
                               .K = K,
                               .activation = activation};
    op_job job = {.args = &a, .y = dtype, .scratch = space + 4 * room, .scratch_bytes = tfi_linear_scratch()};
    const double begin = seconds();
    for (int i = 0; i < 5 || (seconds() - begin < 0.15 && i < 1000); i++) {
        const double from = seconds();
        for (int k = 0; k < TFI_POOL_THREADS_MAX; k++) atomic_store(&job.taken[k], 0);
        atomic_store(&job.busy_ns, 0);
        CHECK_OK(tfi_pool_run(((tfi_cpu *)fast)->pool, run_fast, &job));
        if (seconds() - from < best) best = seconds() - from;
        if ((double)job.busy_ns * 1e-9 < busy) busy = (double)job.busy_ns * 1e-9;
    }
    printf("%-4s M %4d K %4d N %4d activation %d: %7.1f us  %6.1f GFLOP/s, %6.1f a core of processor time\n",
           tfi_dtype_name(dtype), (int)M, (int)K, (int)N, (int)activation, best * 1e6, 2e-9 * (double)(M * N * K) / best,
           2e-9 * (double)(M * N * K) / busy);
}

/* Making a matrix resident, stored either way; the second turn finds the source in memory. */
static void bench_load(tfi_dtype dtype, tfi_dtype source, int transposed)
{
    const int64_t N = 6400, K = 1600;
    tfi_tensor t = {.name = "w", .dtype = source, .rank = 2, .shape = {transposed ? K : N, transposed ? N : K}};
    tfi_weight w = {.name = "w",
                    .rows = N,
                    .cols = K,
                    .dtype = dtype,
                    .transposed = transposed,
                    .readers = TFI_READ_LINEAR,
                    .parts = 1,
                    .part = {&t},
                    .part_rows = {N}};
    const int64_t bytes = N * K * (int64_t)tfi_dtype_size(source);
    tfi_weight_form form;

    t.stride[0] = t.shape[1];
    t.stride[1] = 1;
    t.data = tfi_zalloc(&memory, (size_t)bytes);
    CHECK_OK(fast->weight_form(fast, &w, &form));
    form.data = tfi_zalloc(&memory, (size_t)form.bytes);
    if (!t.data || !form.data) return;
    CHECK_OK(fast->weight_prepare(fast, &w, &form, NULL));
    const double from = seconds();
    CHECK_OK(fast->weight_prepare(fast, &w, &form, NULL));
    printf("load [%d, %d] %s from %s%s: %.2f GB/s of source\n", (int)N, (int)K, tfi_dtype_name(dtype), tfi_dtype_name(source),
           transposed ? ", transposed" : "", (double)bytes / (seconds() - from) * 1e-9);
    tfi_free(&memory, (void *)t.data, (size_t)bytes);
    tfi_free(&memory, form.data, (size_t)form.bytes);
}

static void bench(void)
{
    for (int i = 0; i < 12; i++) {
        static const tfi_dtype sources[] = {TFI_F32, TFI_BF16, TFI_F16};
        if (i < 6 || fast->has_bf16) bench_load(i < 6 ? TFI_F32 : TFI_BF16, sources[i / 2 % 3], i % 2);
    }

    static const int64_t Ms[] = {1, 16, 128, 512, 1024, 1296},
                         shapes[][2] = {{768, 2304}, {768, 768}, {768, 3072}, {3072, 768}};

    for (int type = 0; type < 1 + fast->has_bf16; type++)
        for (int i = 0; i < 4; i++)
            for (int m = 0; m < 6; m++)
                bench_one(type ? TFI_BF16 : TFI_F32, Ms[m], shapes[i][1], shapes[i][0], i == 2 ? TFI_ACT_GELU : TFI_ACT_NONE);
}

int main(int argc, char **argv)
{
    tfi_cpu_options o = {.memory = &memory, .threads = 2, .features = tfi_cpu_features()};

    tfi_memory_init(&memory, NULL, TF_UNSET);
    if (tfi_cpu_open(&o, &fast) < 0) return 2;
    o.reference = 1;
    if (tfi_cpu_open(&o, &plain) < 0) return 2;
    if (argc > 1 && strcmp(argv[1], "--bench") == 0) {
        bench();
        return 0;
    }
    for (int i = 0; i < 10; i++) check_run(argc, argv, "random_shapes", random_shapes);
    check_run(argc, argv, "all_heights", all_heights);
    check_run(argc, argv, "few_rows", few_rows);
    check_run(argc, argv, "same_bits", same_bits);
    check_run(argc, argv, "long_weights", long_weights);
    check_run(argc, argv, "tied_rows", tied_rows);
    check_run(argc, argv, "bad_sources", bad_sources);
    check_run(argc, argv, "vectors", vectors);
    for (int i = 0; i < 20; i++) check_run(argc, argv, "bias_by_distance", bias_by_distance);
    check_run(argc, argv, "activations", activations);
    fast->close(fast);
    plain->close(plain);
    CHECK_INT(memory.used, 0);
    return check_done();
}
