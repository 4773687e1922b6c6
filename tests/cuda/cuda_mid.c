/* LINEAR of 65 to 512 rows on tensor cores: every way of sharing the work out that sizes lead to, with and without a norm, odd
 * edges, fewer live rows than the launch is made for; and times. */
#include "backend/ref/ref.h"
#include "cuda_check.h"

static void *encoder(void)
{
    void *function = NULL;
    enum cudaDriverEntryPointQueryResult found;
    if (cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000, cudaEnableDefault, &found) != cudaSuccess)
        return NULL;
    return found == cudaDriverEntryPointSuccess ? function : NULL;
}

typedef struct product {
    tfi_cuda_launch l;
    tfi_mid_args a;
    float *x, *w, *bias, *residual, *gain, *shift;
    device_out y;
    int64_t live;
} product;

static const tfi_activation activations[] = {TFI_ACT_NONE,      TFI_ACT_GELU, TFI_ACT_NONE, TFI_ACT_GELU,
                                             TFI_ACT_GELU_TANH, TFI_ACT_RELU, TFI_ACT_SILU, TFI_ACT_TANH};

static product make_product(const int64_t *size, int i)
{
    const tfi_dtype t = i % 2 ? TFI_BF16 : TFI_F16;
    const int64_t M = size[0], N = size[1], K = size[2];
    product p = {.live = i % 3 == 0 ? M : pick((int32_t)M / 2, (int32_t)M)};
    const tfi_cuda_live live = {.rows = {[TFI_ROWS_TOKENS] = (int32_t)p.live}};

    p.l = device_launch(&live, device_capability, 0);
    p.a = (tfi_mid_args){.M = M, .N = N, .K = K, .type = t, .out = i % 5 == 4 ? TFI_F32 : t, .encode = encoder()};
    p.a.activation = activations[pick(0, 7)];
    p.a.x = device_values(t, M * K, -1, 1, 0, &p.x);
    p.a.w = device_values(t, N * K, -3 / sqrtf((float)K), 3 / sqrtf((float)K), 0, &p.w); /* sums of deviation 1 */
    if (i % 7 != 6) p.a.bias = device_values(TFI_F32, N, -1, 1, 0, &p.bias);
    if (i % 4 == 3) p.a.residual = device_values(p.a.out, M * N, -1, 1, 0, &p.residual);
    p.y = device_output(p.a.out, M * N, 0);
    p.a.y = p.y.data;
    return p;
}

/* The product's norm, of many residuals. */
static void add_norm(product *p, int i)
{
    const int64_t M = p->a.M, N = p->a.N;

    p->residual = NULL;
    p->a.activation = TFI_ACT_NONE;
    p->a.gain = device_values(TFI_F32, N, 0.5f, 1.5f, 0, &p->gain);
    p->a.shift = i % 4 ? device_values(TFI_F32, N, -1, 1, 0, &p->shift) : NULL;
    p->a.residual = i % 5 ? device_values(p->a.out, M * N, i % 3 ? -2 : 50, i % 3 ? 2 : 52, 0, &p->residual) : NULL;
    p->a.eps = i % 2 ? 1e-12f : 0.5f;
}

static void normalise(const product *p, float *row)
{
    const int64_t N = p->a.N;
    double mean = 0, squares = 0;

    for (int64_t n = 0; n < N; n++) mean += (double)row[n] / (double)N;
    for (int64_t n = 0; n < N; n++) squares += ((double)row[n] - mean) * ((double)row[n] - mean) / (double)N;
    for (int64_t n = 0; n < N; n++)
        row[n] = (float)(((double)row[n] - mean) / sqrt(squares + (double)p->a.eps) * (double)p->gain[n] +
                         (p->shift ? (double)p->shift[n] : 0));
}

static void check_product_row(const product *p, const char *y, int64_t r)
{
    const int64_t N = p->a.N, K = p->a.K;
    float *expected = host_bytes(N * 4);

    for (int64_t n = 0; n < N; n++) {
        double sum = p->bias ? (double)p->bias[n] : 0;
        float part[8] = {0};
        for (int64_t k = 0; k < K; k += 8)
            for (int i = 0; i < 8; i++) part[i] += p->x[r * K + k + i] * p->w[n * K + k + i];
        for (int i = 0; i < 8; i++) sum += (double)part[i];
        expected[n] = (float)(tfi_ref_activate(p->a.activation, sum) + (p->residual ? (double)p->residual[r * N + n] : 0));
    }
    if (p->gain) normalise(p, expected);
    check_rows(y + r * N * (p->a.out == TFI_F32 ? 4 : 2), p->a.out, expected, 1, N, 2e-5);
}

static void mid(void)
{
    static const int64_t sizes[][3] = {
        {65, 1000, 1032}, {80, 768, 768},    {96, 3072, 768},  {128, 4096, 1024}, {160, 768, 3072}, {224, 96, 64},
        {256, 768, 768},  {256, 3072, 760},  {96, 8, 200},     {192, 2304, 768},  {128, 768, 3072}, {256, 768, 3072},
        {96, 104, 2056},  {256, 4096, 1024}, {200, 5000, 520}, {144, 1024, 4096}, {72, 776, 456},   {256, 1024, 1024},
        {512, 2304, 768}, {512, 3072, 768},  {448, 768, 3072}, {512, 768, 768},   {400, 1024, 520}, {161, 768, 200}};
    enum { COUNT = sizeof sizes / sizeof *sizes, SAMPLES = 12 };
    int normed = 0;

    for (int i = -1; next_case(&i, 4 * COUNT);) {
        product p = make_product(sizes[i % COUNT], i + i / COUNT); /* the other type */
        if (i >= 2 * COUNT) add_norm(&p, i);
        normed += p.gain && tfi_cuda_mid_fits(&p.a, device_capability);
        if (!tfi_cuda_mid_fits(&p.a, device_capability)) {
            device_end();
            continue;
        }
        device_begin();
        CHECK_OK(tfi_cuda_mid(&p.l, &p.a, TFI_ROWS_TOKENS));
        device_run();
        const char *y = device_result(&p.y, p.a.out, p.live * p.a.N);
        int64_t unwritten = 0;
        for (int64_t k = 0; k < p.live * p.a.N; k++) unwritten += isnan(typed_get(y, p.a.out, k));
        CHECK_INT(unwritten, 0);
        for (int k = 0; k < SAMPLES; k++)
            check_product_row(&p, y, k == 0 ? 0 : k == 1 ? p.live - 1 : pick(0, (int32_t)p.live - 1));
        device_end();
    }
    if (device_capability == 90 && case_limit == 0) CHECK(normed > 0);
}

void check_mid_kernels(int argc, char **argv)
{
    check_kind(argc, argv, "mid", mid);
}

/* ---- times ---- */

/* Products of one size over other weights each time, as in a model. */
typedef struct chain {
    product p;
    const char *weights;
    int64_t bytes;
} chain;

static void launch_next(const void *user, int i)
{
    const chain *c = user;
    const int64_t each = 2 * c->p.a.N * c->p.a.K;
    tfi_mid_args a = c->p.a;
    a.w = c->weights + i * each % (c->bytes - each) / 128 * 128;
    (void)tfi_cuda_mid(&c->p.l, &a, TFI_ROWS_TOKENS);
}

void bench_mid(void)
{
    static const int64_t sizes[][3] = {
        {128, 2304, 768}, {128, 768, 768},  {128, 3072, 768},  {128, 768, 3072},  {256, 2304, 768},  {256, 768, 768},
        {256, 3072, 768}, {256, 768, 3072}, {256, 3072, 1024}, {256, 1024, 1024}, {256, 4096, 1024}, {256, 1024, 4096},
        {512, 2304, 768}, {512, 768, 768},  {512, 3072, 768},  {512, 768, 3072},  {512, 1024, 1024}};
    enum { COUNT = sizeof sizes / sizeof *sizes };

    for (int i = 0; i < 2 * COUNT; i++) {
        const int64_t M = sizes[i % COUNT][0], N = sizes[i % COUNT][1], K = sizes[i % COUNT][2];
        tfi_cuda_live live = {.rows = {[TFI_ROWS_TOKENS] = (int32_t)M}};
        chain c = {.p = {.l = device_launch(&live, device_capability, 0)}, .bytes = (int64_t)200 << 20};
        c.weights = device_bytes(c.bytes);
        c.p.a = (tfi_mid_args){.M = M, .N = N, .K = K, .type = TFI_F16, .out = TFI_F16, .encode = encoder()};
        c.p.a.activation = N == 4 * K ? TFI_ACT_GELU : TFI_ACT_NONE;
        c.p.a.x = device_values(TFI_F16, M * K, -1, 1, 0, NULL);
        c.p.a.w = c.weights;
        c.p.a.bias = device_values(TFI_F32, N, -1, 1, 0, NULL);
        c.p.a.y = device_bytes(2 * M * N);
        if (i >= COUNT) {
            c.p.a.gain = c.p.a.shift = c.p.a.bias;
            c.p.a.residual = c.p.a.x;
            c.p.a.activation = TFI_ACT_NONE;
        }
        if (!tfi_cuda_mid_fits(&c.p.a, device_capability)) {
            device_end();
            continue;
        }
        const double us = bench_us(launch_next, &c, 40);
        printf("mid %5lld x %lld x %lld%s %8.2f us, %6.1f TFLOP/s\n", (long long)M, (long long)N, (long long)K,
               c.p.a.gain ? " and norm" : "", us, 2e-6 * (double)M * (double)N * (double)K / us);
        device_end();
    }
}
