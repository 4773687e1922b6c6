/* Products of up to 8 rows with their norm, gate, activation and residual: random shapes in all mixes of types, rows picked by
 * index, and a row alone must have the bits it has among others. */
#include <stdlib.h>

#include "backend/ref/ref.h"
#include "cuda_check.h"

enum { ROWS = 8, SOURCES = 11 };

typedef struct few_case {
    tfi_few_args host, a; /* host: values as floats */
    tfi_rows rows;
    int64_t live;
    device_out y, z;
    float *expected, *expected_z;
} few_case;

static int32_t *any_sources(void)
{
    int32_t *from = host_bytes(ROWS * 4);
    for (int m = 0; m < ROWS; m++) from[m] = pick(0, SOURCES - 1);
    return from;
}

/* Values of x, [SOURCES, K], or what a norm makes of them; as many for the device. */
static void put_x(few_case *c, float m)
{
    tfi_few_args *a = &c->a, *h = &c->host;
    const int64_t K = a->K;
    float *values, *gain, *bias = NULL, *residual = NULL;

    if (pick(0, 2) == 0 || K > 2048 ||
        a->M > 2) { /* plain; in 16 bits sums of numbers that are not small need as many digits as they have */
        a->x = device_values(a->type, SOURCES * K, -m, m, 0, &values);
        h->x = values;
        return;
    }
    a->norm_x = a->norm_residual = pick(0, 1) ? TFI_F32 : a->type;
    a->norm = (tfi_norm_args){.norm = pick(0, 1) ? TFI_NORM_RMS : TFI_NORM_LAYER, .R = a->M, .E = K, .eps = 1e-5f};
    a->norm.x = device_values(a->norm_x, SOURCES * K, -m, 2 * m, 0, &values);
    if (pick(0, 1)) a->norm.residual = device_values(a->norm_residual, SOURCES * K, -m, m, 0, &residual);
    a->norm.gain = device_values(TFI_F32, K, 0.5f, 2, 0, &gain);
    if (a->norm.norm == TFI_NORM_LAYER) a->norm.bias = device_values(TFI_F32, K, -0.1f, 0.1f, 0, &bias);
    h->norm = a->norm;
    h->norm.R = SOURCES;
    h->norm.x = values;
    h->norm.residual = residual;
    h->norm.gain = gain;
    h->norm.bias = bias;
    h->x = h->norm.y = host_bytes(SOURCES * K * 4);
    reference(TFI_OP_NORM, &h->norm, 0);
    float *z = h->norm.y;
    for (int64_t i = 0; i < SOURCES * K; i++) {
        float rounded;
        typed_put(&rounded, a->type, 0, z[i]);
        z[i] = (float)typed_get(&rounded, a->type, 0);
    }
    c->z = device_output(a->type, a->M * K, 0);
    if (pick(0, 1)) a->norm.y = c->z.data;
}

static float active(tfi_activation activation, double v)
{
    switch (activation) {
    case TFI_ACT_RELU:
        return v > 0 ? (float)v : 0;
    case TFI_ACT_GELU:
        return (float)(0.5 * v * erfc(-v * sqrt(0.5)));
    case TFI_ACT_GELU_TANH:
        return (float)(0.5 * v * (1 + tanh(0.7978845608028654 * (v + 0.044715 * v * v * v))));
    case TFI_ACT_SILU:
        return (float)(v / (1 + exp(-v)));
    case TFI_ACT_TANH:
        return (float)tanh(v);
    case TFI_ACT_SIGMOID:
        return (float)(1 / (1 + exp(-v)));
    default:
        return (float)v;
    }
}

static double dot(const tfi_few_args *h, const int32_t *from, int64_t m, int64_t n)
{
    const float *x = (const float *)h->x + (from ? from[m] : m) * h->K, *w = (const float *)h->w + n * h->K;
    double sum = h->bias ? (double)h->bias[n] : 0;
    for (int64_t k = 0; k < h->K; k++) sum += (double)x[k] * (double)w[k];
    return sum;
}

static void expect(few_case *c, const int32_t *from)
{
    const tfi_few_args *h = &c->host;
    const int64_t columns = h->gated ? h->N / 2 : h->N;

    c->expected = host_bytes(c->live * columns * 4);
    c->expected_z = host_bytes(c->live * h->K * 4);
    for (int64_t m = 0; m < c->live; m++) {
        memcpy(c->expected_z + m * h->K, (const float *)h->x + (from ? from[m] : m) * h->K, (size_t)h->K * 4);
        for (int64_t n = 0; n < columns; n++) {
            const float left = active(h->activation, dot(h, from, m, n));
            const float right = h->gated ? (float)dot(h, from, m, n + columns) : 1;
            c->expected[m * columns + n] = left * right + (h->residual ? ((const float *)h->residual)[m * columns + n] : 0);
        }
    }
}

static few_case any_few(int i)
{
    static const int32_t ks[] = {32, 64, 96, 256, 512, 768, 800, 1024, 1600, 3072}, ns[] = {1, 7, 32, 65, 200, 768, 2304, 4801};
    static const tfi_dtype types[] = {TFI_F32, TFI_BF16, TFI_F16};
    const float m = any_magnitude();
    const int32_t *from = NULL;
    float *w, *bias = NULL, *residual = NULL;
    few_case c = {.rows = (tfi_rows)pick(0, TFI_ROWS_COUNT - 1)};
    tfi_few_args *a = &c.a;

    a->M = pick(0, 2) ? pick(1, 4) : pick(5, ROWS);
    a->K = ks[pick(0, 9)];
    a->N = at_most(ns[pick(0, a->K > 800 ? 5 : 7)], 300);
    a->type = types[i % 3];
    a->out = any_float();
    a->activation = pick(0, 1) ? TFI_ACT_NONE : (tfi_activation)pick(TFI_ACT_NONE, TFI_ACT_SIGMOID);
    a->gated = pick(0, 3) == 0;
    if (a->gated) a->N *= 2;
    c.host = *a;
    c.live = pick(0, 4) ? a->M : pick(0, (int32_t)a->M);
    put_x(&c, m);
    if (pick(0, 1)) {
        from = any_sources();
        a->from = device_copy(from, ROWS * 4);
    }
    const float scale = 2 / sqrtf((float)a->K) / (a->norm.gain ? 1 : m);
    a->w = device_values(a->type, a->N * a->K, -scale, scale, 0, &w);
    if (pick(0, 1)) a->bias = device_values(TFI_F32, a->N, -1, 1, 0, &bias);
    if (!a->gated && pick(0, 1)) a->residual = device_values(a->out, a->M * a->N, -1, 1, 0, &residual);
    c.host.w = w;
    c.host.bias = bias;
    c.host.residual = residual;
    c.y = device_output(a->out, a->M * (a->gated ? a->N / 2 : a->N), pick(0, 1));
    a->y = c.y.data;
    expect(&c, from);
    return c;
}

static tfi_cuda_launch launch_of(tfi_rows rows, int64_t count)
{
    tfi_cuda_live live = {.draws = 0};
    for (int i = 0; i < TFI_ROWS_COUNT; i++) live.rows[i] = -1;
    live.rows[rows] = (int32_t)count;
    tfi_cuda_launch l = device_launch(&live, device_capability, 0);
    if (case_limit > 0) l.multiprocessors = pick(1, 9); /* more than a round all the same */
    return l;
}

/* Row r of a case has the bits that it has alone. */
static void check_alone(const few_case *c, const void *together)
{
    const int64_t columns = c->a.gated ? c->a.N / 2 : c->a.N, r = pick(0, (int32_t)c->live - 1);
    const int64_t bytes = columns * (int64_t)tfi_dtype_size(c->a.out);
    const device_out y = device_output(c->a.out, columns, 0);
    const tfi_cuda_launch l = launch_of(c->rows, 1);
    const int32_t row = (int32_t)r;
    tfi_few_args a = c->a;

    a.M = a.norm.R = 1;
    a.y = y.data;
    a.norm.y = NULL;
    a.from = a.from ? a.from + r : device_copy(&row, 4);
    if (a.residual) a.residual = (const char *)a.residual + r * bytes;
    device_begin();
    CHECK_OK(tfi_cuda_few(&l, &a, c->rows));
    device_run();
    CHECK(memcmp(device_result(&y, a.out, columns), (const char *)together + r * bytes, (size_t)bytes) == 0);
}

static void few(void)
{
    for (int i = -1; next_case(&i, 3 * 40);) {
        const few_case c = any_few(i);
        const int64_t columns = c.a.gated ? c.a.N / 2 : c.a.N;
        const tfi_cuda_launch l = launch_of(c.rows, c.live);
        /* A number that norm.c and the kernel round to different neighbours is off by a unit in the last place. */
        const double rounding = !c.a.norm.gain || c.a.type == TFI_F32 ? 0 : c.a.type == TFI_BF16 ? 3e-4 : 4e-5;

        CHECK(tfi_cuda_few_fits(&c.a, device_capability));
        device_begin();
        CHECK_OK(tfi_cuda_few(&l, &c.a, c.rows));
        device_run();
        const void *y = device_result(&c.y, c.a.out, c.live * columns);
        check_rows(y, c.a.out, c.expected, c.live, columns, 4e-6 + 4 * rounding);
        if (c.a.norm.gain) {
            const int64_t kept = c.a.norm.y ? c.live : 0;
            const void *z = device_result(&c.z, c.a.type, kept * c.a.K);
            check_rows(z, c.a.type, c.expected_z, kept, c.a.K, 3e-6 + rounding);
        }
        if (c.live > 0) check_alone(&c, y);
        device_end();
    }
}

/* The library's, not the kernel's. */
static void few_unfit(void)
{
    static char buffer[64];
    char *aligned = buffer + (16 - (uintptr_t)buffer % 16);
    const tfi_few_args fit = {.x = aligned, .w = aligned, .M = 1, .N = 9, .K = 64, .type = TFI_F16, .out = TFI_F32};
    tfi_few_args a = fit;

    CHECK(tfi_cuda_few_fits(&a, 90) == 1);
    CHECK(tfi_cuda_few_fits(&a, 80) == 0);
    a.K = 44;
    CHECK(tfi_cuda_few_fits(&a, 90) == 0);
    a = fit;
    a.x = aligned + 2;
    CHECK(tfi_cuda_few_fits(&a, 90) == 0);
    a = fit;
    a.type = TFI_I8;
    CHECK(tfi_cuda_few_fits(&a, 90) == 0);
}

void check_few_kernels(int argc, char **argv)
{
    check_kind(argc, argv, "few", few);
    check_kind(argc, argv, "few_unfit", few_unfit);
}

/* ---- times: chains of products, the weights of as many layers as it takes to come from memory ---- */

typedef struct product {
    const char *name;
    int64_t N, K;
    int normed, gated, joined; /* joined: with a residual */
} product;

typedef struct few_bench {
    tfi_cuda_launch l;
    tfi_few_args a;
    char *w, *x, *y;
    int copies;
} few_bench;

static void launch_few(const void *user, int i)
{
    const few_bench *b = user;
    tfi_few_args a = b->a;
    a.w = b->w + i % b->copies * a.N * a.K * (int64_t)tfi_dtype_size(a.type);
    a.y = i % 2 ? b->y : b->x;
    a.norm.x = a.x = i % 2 ? b->x : b->y;
    if (!a.norm.gain) a.norm.x = NULL;
    (void)tfi_cuda_few(&b->l, &a, TFI_ROWS_TOKENS);
}

static void bench_product(const product *p, tfi_dtype type, int64_t M)
{
    enum { BYTES = 160 << 20, SOME = 1 << 18 };
    const int64_t bytes = p->N * p->K * (int64_t)tfi_dtype_size(type), width = p->N > p->K ? p->N : p->K;
    few_bench b = {.l = launch_of(TFI_ROWS_TOKENS, M), .copies = (int)(BYTES / bytes + 1)};
    const int count = b.copies > 48 ? b.copies : 48;
    char *random = device_values(type, SOME, -0.02f, 0.02f, 0, NULL);

    b.w = device_bytes(b.copies * bytes);
    for (int64_t at = 0; at < b.copies * bytes; at += SOME) {
        const int64_t left = b.copies * bytes - at;
        device_ok(cudaMemcpy(b.w + at, random, (size_t)(left < SOME ? left : SOME), cudaMemcpyDeviceToDevice), "cudaMemcpy");
    }
    b.x = device_bytes(M * width * 4);
    b.y = device_bytes(M * width * 4);
    device_ok(cudaMemset(b.x, 0, (size_t)(M * width * 4)), "cudaMemset");
    device_ok(cudaMemset(b.y, 0, (size_t)(M * width * 4)), "cudaMemset");
    b.a = (tfi_few_args){.M = M, .N = p->N, .K = p->K, .type = type, .out = p->N > 30000 ? TFI_F32 : type, .gated = p->gated};
    b.a.bias = device_values(TFI_F32, p->N, -1, 1, 0, NULL);
    b.a.norm_x = b.a.norm_residual = type;
    if (p->normed) {
        b.a.norm = (tfi_norm_args){.norm = TFI_NORM_LAYER, .R = M, .E = p->K, .eps = 1e-5f};
        b.a.norm.gain = device_values(TFI_F32, p->K, 0, 1, 0, NULL);
        b.a.norm.bias = device_values(TFI_F32, p->K, 0, 1, 0, NULL);
    }
    if (p->joined) b.a.residual = device_values(type, M * p->N, -1, 1, 0, NULL);
    b.a.norm.x = b.a.x = b.x;
    if (!tfi_cuda_few_fits(&b.a, device_capability)) {
        printf("  M=%lld  does not fit", (long long)M);
    } else {
        const double us = bench_us(launch_few, &b, count);
        printf("  M=%lld %6.2f us %4.2f TB/s", (long long)M, us, (double)bytes / us * 1e-6);
    }
    device_end();
}

void bench_few(void)
{
    static const product all[] = {
        {"GPT-2 qkv", 2304, 768, 1, 0, 0},         {"GPT-2 attention out", 768, 768, 0, 0, 1},
        {"GPT-2 up", 3072, 768, 1, 0, 0},          {"GPT-2 down", 768, 3072, 0, 0, 1},
        {"GPT-2 head", 50257, 768, 1, 0, 0},       {"medium qkv", 3072, 1024, 1, 0, 0},
        {"medium down", 1024, 4096, 0, 0, 1},      {"XL qkv", 4800, 1600, 1, 0, 0},
        {"XL attention out", 1600, 1600, 0, 0, 1}, {"XL up", 6400, 1600, 1, 0, 0},
        {"XL down", 1600, 6400, 0, 0, 1},          {"T5-base gated up", 4096, 768, 1, 1, 0},
        {"T5-base head", 32128, 768, 1, 0, 0},     {"T5-3B qkv", 12288, 1024, 1, 0, 0},
        {"T5-3B out", 1024, 4096, 0, 0, 1},        {"T5-3B up", 16384, 1024, 1, 0, 0},
        {"T5-3B down", 1024, 16384, 0, 0, 1},      {"qkv without norm", 2304, 768, 0, 0, 0},
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        const product *p = &all[i];
        printf("%-20s [%5lld, %5lld] F16 ", p->name, (long long)p->N, (long long)p->K);
        for (int64_t M = 1; M <= ROWS; M *= 2) bench_product(p, TFI_F16, M);
        printf(", floor %.2f us at 4.3 TB/s\n", (double)(p->N * p->K) * 2 / 4.3e6);
    }
}
