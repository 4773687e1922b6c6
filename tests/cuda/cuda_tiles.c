/* Products of 9 to 64 rows: random shapes and types, odd ones too, on paths with and without clusters; what comes out for a row
 * does not depend on its neighbours. */
#include <stdlib.h>

#include "backend/ref/ref.h"
#include "cuda_check.h"

enum { MOST = TFI_FEW_ROWS, SOURCES = 70 };

typedef struct tiles_case {
    tfi_few_args a;
    const float *x, *w, *bias, *residual; /* as floats */
    const int32_t *from;
    int64_t live;
    int capability;
    tfi_rows rows;
    device_out y;
} tiles_case;

static int64_t columns_of(const tfi_few_args *a)
{
    return a->gated ? a->N / 2 : a->N;
}

/* x has to lie in shared memory, shared out among the blocks of a cluster. */
static int has_room(const tfi_few_args *a, int capability)
{
    return a->M * a->K <= (capability >= 90 && a->N <= 700 ? 400000 : 40000);
}

/* w's scale makes sums about 1, whatever K is. */
static tiles_case any_tiles(int i)
{
    static const int32_t ns[] = {1, 40, 96, 257, 768, 1000, 2304, 4500, 9000, 33001},
                         ks[] = {8, 40, 64, 312, 768, 1600, 3080, 8192, 192};
    const float m = any_magnitude();
    tiles_case c = {.rows = (tfi_rows)pick(0, TFI_ROWS_COUNT - 1), .capability = pick(0, 2) ? device_capability : 80};
    tfi_few_args *a = &c.a;
    float *x, *w, *bias = NULL, *residual = NULL;

    do {
        a->M = pick(9, MOST);
        a->N = ns[pick(0, 9)];
        a->K = ks[pick(0, 8)];
    } while (a->M * a->N * a->K > at_most(100000000, 10000000) || !has_room(a, c.capability));
    a->type = i % 2 ? TFI_BF16 : TFI_F16;
    a->out = pick(0, 1) ? TFI_F32 : a->type;
    a->activation = (tfi_activation)(i % TFI_ACT_COUNT);
    a->gated = pick(0, 3) == 0;
    if (a->gated) a->N *= 2;
    c.live = pick(0, 3) ? pick(1, (int32_t)a->M) : a->M;
    if (pick(0, 9) == 0) c.live = 0;
    const float scale = 2 / sqrtf((float)a->K) / m;
    a->x = device_values(a->type, SOURCES * a->K, -m, m, 0, &x);
    a->w = device_values(a->type, a->N * a->K, -scale, scale, 0, &w);
    if (pick(0, 1)) a->bias = device_values(TFI_F32, a->N, -1, 1, 0, &bias);
    if (!a->gated && pick(0, 1)) a->residual = device_values(a->out, a->M * a->N, -1, 1, 0, &residual);
    if (pick(0, 2) == 0) {
        int32_t *from = host_bytes(MOST * 4);
        for (int k = 0; k < MOST; k++) from[k] = pick(0, SOURCES - 1);
        a->from = device_copy(from, MOST * 4);
        c.from = from;
    }
    c.x = x;
    c.w = w;
    c.bias = bias;
    c.residual = residual;
    c.y = device_output(a->out, a->M * columns_of(a), 0);
    a->y = c.y.data;
    if (pick(0, 3)) a->encode = device_encoder();
    return c;
}

static double dot(const tiles_case *c, int64_t m, int64_t n)
{
    const float *x = c->x + (c->from ? c->from[m] : m) * c->a.K, *w = c->w + n * c->a.K;
    double sum = c->bias ? (double)c->bias[n] : 0;

    for (int64_t k = 0; k < c->a.K; k++) sum += (double)x[k] * (double)w[k];
    return sum;
}

static float *expected_of(const tiles_case *c)
{
    const int64_t columns = columns_of(&c->a);
    float *y = host_bytes(c->live * columns * 4);

    for (int64_t m = 0; m < c->live; m++) {
        for (int64_t n = 0; n < columns; n++) {
            double v = tfi_ref_activate(c->a.activation, dot(c, m, n));
            if (c->a.gated) v *= dot(c, m, n + columns);
            if (c->residual) v += (double)c->residual[m * columns + n];
            y[m * columns + n] = (float)v;
        }
    }
    return y;
}

static tfi_cuda_launch launch_of(const tiles_case *c, int64_t count)
{
    tfi_cuda_live live = {.draws = 0};
    for (int i = 0; i < TFI_ROWS_COUNT; i++) live.rows[i] = -1;
    live.rows[c->rows] = (int32_t)count;
    return device_launch(&live, c->capability, 0);
}

/* The same rows' bits when all other rows are another's. */
static void check_neighbours(const tiles_case *c, const void *y)
{
    const int64_t columns = columns_of(&c->a), r = pick(0, (int32_t)c->live - 1);
    const int64_t bytes = columns * (int64_t)tfi_dtype_size(c->a.out);
    const device_out again = device_output(c->a.out, c->a.M * columns, 0);
    const tfi_cuda_launch l = launch_of(c, r + 1);
    const int64_t row = c->a.K * (int64_t)tfi_dtype_size(c->a.type);
    tfi_few_args a = c->a;

    if (c->from) {
        int32_t *from = host_bytes(MOST * 4);
        for (int k = 0; k < MOST; k++) from[k] = pick(0, SOURCES - 1);
        from[r] = c->from[r];
        a.from = device_copy(from, MOST * 4);
    } else {
        char *x = device_values(a.type, SOURCES * a.K, -1, 1, 0, NULL);
        device_ok(cudaMemcpy(x + r * row, (const char *)a.x + r * row, (size_t)row, cudaMemcpyDeviceToDevice), "cudaMemcpy");
        a.x = x;
    }
    a.y = again.data;
    device_begin();
    CHECK_OK(tfi_cuda_few(&l, &a, c->rows));
    device_run();
    const char *result = device_result(&again, a.out, (r + 1) * columns);
    CHECK(memcmp(result + r * bytes, (const char *)y + r * bytes, (size_t)bytes) == 0);
}

static void tiles(void)
{
    for (int i = -1; next_case(&i, 12 * TFI_ACT_COUNT);) {
        const tiles_case c = any_tiles(i);
        const tfi_cuda_launch l = launch_of(&c, c.live);
        const int64_t columns = columns_of(&c.a);

        device_begin();
        CHECK_OK(tfi_cuda_few(&l, &c.a, c.rows));
        device_run();
        const void *y = device_result(&c.y, c.a.out, c.live * columns);
        check_rows(y, c.a.out, expected_of(&c), c.live, columns, 6e-6);
        if (c.live > 0) check_neighbours(&c, y);
        device_end();
    }
}

/* y may be the residual. */
static void tiles_in_place(void)
{
    tiles_case c = any_tiles(0);
    tfi_few_args *a = &c.a;
    float *residual;

    while (a->gated) c = any_tiles(0);
    a->residual = a->y = device_values(a->out, a->M * a->N, -1, 1, 0, &residual);
    c.residual = residual;
    const tfi_cuda_launch l = launch_of(&c, c.live);
    CHECK_OK(tfi_cuda_few(&l, a, c.rows));
    device_ok(cudaStreamSynchronize(device_stream), "tiles");
    const int64_t bytes = c.live * a->N * (int64_t)tfi_dtype_size(a->out);
    void *y = host_bytes(bytes);
    device_ok(cudaMemcpy(y, a->y, (size_t)bytes, cudaMemcpyDeviceToHost), "cudaMemcpy");
    check_rows(y, a->out, expected_of(&c), c.live, a->N, 6e-6);
    device_end();
}

/* The library's, not the kernel's. */
static void tiles_unfit(void)
{
    static char buffer[64];
    char *aligned = buffer + (16 - (uintptr_t)buffer % 16);
    const float gain = 1;
    const tfi_few_args fit = {.x = aligned, .w = aligned, .M = 40, .N = 768, .K = 768, .type = TFI_F16, .out = TFI_F32};
    tfi_few_args a = fit;

    CHECK(tfi_cuda_few_fits(&a, 90) == 1);
    CHECK(tfi_cuda_few_fits(&a, 75) == 0);
    a.K = 772;
    CHECK(tfi_cuda_few_fits(&a, 90) == 0);
    a.K = 1 << 20; /* no room for x */
    CHECK(tfi_cuda_few_fits(&a, 90) == 0);
    a = fit;
    a.w = aligned + 2;
    CHECK(tfi_cuda_few_fits(&a, 90) == 0);
    a = fit;
    a.type = TFI_F32;
    CHECK(tfi_cuda_few_fits(&a, 90) == 0);
    a = fit;
    a.norm.gain = &gain;
    CHECK(tfi_cuda_few_fits(&a, 90) == 0);
}

void check_tile_kernels(int argc, char **argv)
{
    check_kind(argc, argv, "tiles_unfit", tiles_unfit);
    check_kind(argc, argv, "tiles", tiles);
    check_kind(argc, argv, "tiles_in_place", tiles_in_place);
}

/* ---- times: chains over the weights of as many layers as it takes to come from memory ---- */

typedef struct product {
    const char *name;
    int64_t M, N, K;
    tfi_dtype out;
    tfi_activation activation;
    int gated, joined; /* joined: with a residual */
} product;

typedef struct tiles_bench {
    tfi_cuda_launch l;
    tfi_few_args a;
    char *w;
    int copies;
} tiles_bench;

static void launch_tiles(const void *user, int i)
{
    const tiles_bench *b = user;
    tfi_few_args a = b->a;

    a.w = b->w + i % b->copies * a.N * a.K * 2;
    (void)tfi_cuda_few(&b->l, &a, TFI_ROWS_TOKENS);
}

static void bench_product(const product *p)
{
    enum { BYTES = 160 << 20 };
    const int64_t bytes = p->N * p->K * 2;
    const tiles_case c = {.rows = TFI_ROWS_TOKENS, .capability = device_capability};
    tiles_bench b = {.l = launch_of(&c, p->M), .copies = (int)(BYTES / bytes + 1)};

    b.w = device_bytes(b.copies * bytes);
    device_ok(cudaMemset(b.w, 0x11, (size_t)(b.copies * bytes)), "cudaMemset");
    b.a = (tfi_few_args){.M = p->M,
                         .N = p->N,
                         .K = p->K,
                         .type = TFI_F16,
                         .out = p->out,
                         .activation = p->activation,
                         .gated = p->gated,
                         .x = device_values(TFI_F16, p->M * p->K, -1, 1, 0, NULL),
                         .bias = device_values(TFI_F32, p->N, -1, 1, 0, NULL),
                         .encode = device_encoder(),
                         .y = device_bytes(p->M * p->N * 4)};
    if (p->joined) b.a.residual = device_values(p->out, p->M * p->N, -1, 1, 0, NULL);
    if (!tfi_cuda_few_fits(&b.a, device_capability)) {
        printf("%-22s M=%lld does not fit\n", p->name, (long long)p->M);
    } else {
        const double us = bench_us(launch_tiles, &b, b.copies > 24 ? b.copies : 24);
        printf("%-22s M=%-2lld [%5lld, %5lld] %6.2f us %4.2f TB/s, floor %.2f us at 4.3 TB/s\n", p->name, (long long)p->M,
               (long long)p->N, (long long)p->K, us, (double)bytes / us * 1e-6, (double)bytes / 4.3e6);
    }
    device_end();
}

void bench_tiles(void)
{
    static const tfi_dtype half = TFI_F16, wide = TFI_F32;
    const product all[] = {{"BERT-base qkv", 48, 2304, 768, half, TFI_ACT_NONE, 0, 0},
                           {"BERT-base out", 48, 768, 768, half, TFI_ACT_NONE, 0, 1},
                           {"BERT-base up", 48, 3072, 768, half, TFI_ACT_GELU, 0, 0},
                           {"BERT-base down", 48, 768, 3072, half, TFI_ACT_NONE, 0, 1},
                           {"GPT-2 qkv", 64, 2304, 768, half, TFI_ACT_NONE, 0, 0},
                           {"GPT-2 out", 64, 768, 768, half, TFI_ACT_NONE, 0, 1},
                           {"GPT-2 up", 64, 3072, 768, half, TFI_ACT_GELU_TANH, 0, 0},
                           {"GPT-2 down", 64, 768, 3072, half, TFI_ACT_NONE, 0, 1},
                           {"GPT-2 head", 64, 50257, 768, wide, TFI_ACT_NONE, 0, 0},
                           {"T5-base qkv", 16, 2304, 768, half, TFI_ACT_NONE, 0, 0},
                           {"T5-base gated up", 16, 4096, 768, half, TFI_ACT_GELU_TANH, 1, 0},
                           {"T5-base down", 16, 768, 2048, wide, TFI_ACT_NONE, 0, 1},
                           {"T5-3B qkv", 16, 12288, 1024, half, TFI_ACT_NONE, 0, 0},
                           {"T5-3B out", 16, 1024, 4096, wide, TFI_ACT_NONE, 0, 1},
                           {"T5-3B up", 16, 16384, 1024, half, TFI_ACT_RELU, 0, 0},
                           {"T5-3B down", 16, 1024, 16384, wide, TFI_ACT_NONE, 0, 1}};

    for (size_t i = 0; i < sizeof all / sizeof *all; i++) bench_product(&all[i]);
}
