/* LINEAR of many rows on tensor cores: sizes around the tiles' edges, and times beside the matrix library's with FINISH. */
#include "backend/cuda/libraries.h"
#include "backend/ref/ref.h"
#include "cuda_check.h"

typedef struct product {
    tfi_cuda_launch l;
    tfi_many_args a;
    float *x, *w, *bias;
    device_out y;
} product;

static product make_product(tfi_dtype t, int64_t M, int64_t N, int64_t K, tfi_activation activation)
{
    const tfi_cuda_live live = {.draws = 0};
    product p = {.l = device_launch(&live, device_capability, 0)};

    p.a = (tfi_many_args){.M = M, .N = N, .K = K, .type = t, .activation = activation, .encode = device_encoder()};
    p.a.x = device_values(t, M * K, -1, 1, 0, &p.x);
    p.a.w = device_values(t, N * K, -3 / sqrtf((float)K), 3 / sqrtf((float)K), 0, &p.w); /* sums of deviation 1 */
    p.a.bias = device_values(TFI_F32, N, -1, 1, 0, &p.bias);
    p.y = device_output(t, M * N, 0);
    p.a.y = p.y.data;
    return p;
}

static void check_product_row(const product *p, const char *y, int64_t r)
{
    const int64_t N = p->a.N, K = p->a.K;
    float *expected = host_bytes(N * 4);

    for (int64_t n = 0; n < N; n++) {
        double sum = (double)p->bias[n];
        float part[8] = {0};
        for (int64_t k = 0; k < K; k += 8)
            for (int i = 0; i < 8; i++) part[i] += p->x[r * K + k + i] * p->w[n * K + k + i];
        for (int i = 0; i < 8; i++) sum += (double)part[i];
        expected[n] = (float)tfi_ref_activate(p->a.activation, sum);
    }
    /* The sum is rounded before the activation, whose slope is at most 1.13. */
    check_rows(y + r * N * 2, p->a.type, expected, 1, N, p->a.type == TFI_BF16 ? 0x1p-8 : 0x1p-11);
}

static void many(void)
{
    /* The last two with tiles of 256 columns where there are 132 multiprocessors. */
    static const int64_t sizes[][3] = {{257, 32, 512},     {300, 288, 520},  {512, 3072, 768},  {640, 480, 1024},
                                       {2000, 2304, 1024}, {9000, 992, 640}, {8400, 2016, 520}, {4200, 4064, 456}};
    enum { COUNT = sizeof sizes / sizeof *sizes, SAMPLES = 24 };

    for (int i = -1; next_case(&i, 4 * COUNT);) {
        const int64_t M = sizes[i / 4][0], N = sizes[i / 4][1], K = sizes[i / 4][2];
        product p = make_product(i % 2 ? TFI_BF16 : TFI_F16, M, N, K, i / 2 % 2 ? TFI_ACT_NONE : TFI_ACT_GELU);
        if (!tfi_cuda_many_fits(&p.a, device_capability)) {
            device_end();
            continue;
        }
        device_begin();
        CHECK_OK(tfi_cuda_many(&p.l, &p.a));
        device_run();
        const char *y = device_result(&p.y, p.a.type, M * N);
        int64_t unwritten = 0;
        for (int64_t k = 0; k < M * N; k++) unwritten += isnan(typed_get(y, p.a.type, k));
        CHECK_INT(unwritten, 0);
        for (int k = 0; k < SAMPLES; k++) check_product_row(&p, y, k == 0 ? 0 : k == 1 ? M - 1 : pick(0, (int32_t)M - 1));
        device_end();
    }
}

void check_many_kernels(int argc, char **argv)
{
    check_kind(argc, argv, "many", many);
}

/* ---- times ---- */

static void launch_many(const void *user, int i)
{
    const product *p = user;
    (void)i;
    (void)tfi_cuda_many(&p->l, &p->a);
}

typedef struct library_product {
    const tfi_cublas_lt *lt;
    cublasLtHandle_t handle;
    cublasLtMatmulDesc_t desc;
    cublasLtMatrixLayout_t w, x, y;
    const cublasLtMatmulAlgo_t *algorithm;
    const product *p;
    void *workspace;
    int alone;
} library_product;

enum { WORKSPACE = 32 << 20, CANDIDATES = 8 };

static void launch_library(const void *user, int i)
{
    const library_product *b = user;
    const tfi_many_args *a = &b->p->a;
    const float one = 1, zero = 0;
    const tfi_finish_args finish = {
        .sums = a->y, .bias = a->bias, .y = a->y, .M = a->M, .N = a->N, .activation = a->activation};
    (void)i;
    (void)b->lt->matmul(b->handle, b->desc, &one, a->w, b->w, a->x, b->x, &zero, a->y, b->y, a->y, b->y, b->algorithm,
                        b->workspace, WORKSPACE, device_stream);
    if (!b->alone) (void)tfi_cuda_finish(&b->p->l, &finish, (tfi_op_types){a->type, a->type, a->type}, TFI_ROWS_TOKENS);
}

/* The fastest of what the library suggests, alone and with FINISH; zeros without the library. */
static void bench_library(const product *p, double us[2])
{
    static tfi_cublas_lt lt;
    const tfi_many_args *a = &p->a;
    const cudaDataType_t type = a->type == TFI_BF16 ? CUDA_R_16BF : CUDA_R_16F;
    const cublasOperation_t transposed = CUBLAS_OP_T;
    const uint64_t workspace = WORKSPACE;
    library_product b = {.lt = &lt, .p = p, .workspace = device_bytes(WORKSPACE)};
    cublasLtMatmulPreference_t wish;
    cublasLtMatmulHeuristicResult_t results[CANDIDATES];
    int count = 0;

    us[0] = us[1] = 0;
    if (!lt.handle && tfi_cublas_lt_open(NULL, &lt) < 0) return;
    (void)lt.create(&b.handle);
    (void)lt.desc_create(&b.desc, CUBLAS_COMPUTE_32F, CUDA_R_32F);
    (void)lt.desc_set(b.desc, CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof transposed);
    (void)lt.layout_create(&b.w, type, (uint64_t)a->K, (uint64_t)a->N, a->K);
    (void)lt.layout_create(&b.x, type, (uint64_t)a->K, (uint64_t)a->M, a->K);
    (void)lt.layout_create(&b.y, type, (uint64_t)a->N, (uint64_t)a->M, a->N);
    (void)lt.preference_create(&wish);
    (void)lt.preference_set(wish, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace, sizeof workspace);
    (void)lt.heuristic(b.handle, b.desc, b.w, b.x, b.y, b.y, wish, CANDIDATES, results, &count);
    for (int i = 0; i < count; i++) {
        b.algorithm = &results[i].algo;
        for (b.alone = 0; b.alone < 2; b.alone++) {
            const double t = bench_us(launch_library, &b, 4);
            if (us[b.alone] == 0 || t < us[b.alone]) us[b.alone] = t;
        }
    }
    (void)lt.preference_destroy(wish);
    (void)lt.layout_destroy(b.w);
    (void)lt.layout_destroy(b.x);
    (void)lt.layout_destroy(b.y);
    (void)lt.desc_destroy(b.desc);
    (void)lt.destroy(b.handle);
}

/* Random values, as many as there are, from a block of them: what is multiplied decides how much power it takes. */
static void *device_noise(int64_t n, float scale)
{
    enum { BLOCK = 1 << 20 };
    void *block = device_values(TFI_F16, BLOCK, -scale, scale, 0, NULL), *p = device_bytes(2 * n);
    for (int64_t i = 0; i < n; i += BLOCK)
        device_ok(cudaMemcpy((char *)p + 2 * i, block, (size_t)(2 * (n - i < BLOCK ? n - i : BLOCK)), cudaMemcpyDeviceToDevice),
                  "cudaMemcpy");
    return p;
}

void bench_many(void)
{
    static const int64_t sizes[][3] = {{49152, 3072, 768}, {49152, 4096, 1024}, {22110, 3072, 768}, {4096, 3072, 768},
                                       {2048, 3072, 768},  {1024, 3072, 768},   {512, 3072, 768},   {512, 4096, 1024},
                                       {256, 3072, 768},   {128, 3072, 768}};
    for (int i = 0; i < (int)(sizeof sizes / sizeof *sizes); i++) {
        const int64_t M = sizes[i][0], N = sizes[i][1], K = sizes[i][2];
        tfi_cuda_live live = {.rows = {(int32_t)M}};
        product p = {.l = device_launch(&live, device_capability, 0)};
        p.a = (tfi_many_args){.M = M, .N = N, .K = K, .type = TFI_F16, .activation = TFI_ACT_GELU, .encode = device_encoder()};
        p.a.x = device_noise(M * K, 1);
        p.a.w = device_noise(N * K, 3 / sqrtf((float)K));
        p.a.bias = device_values(TFI_F32, N, -1, 1, 0, NULL);
        p.a.y = device_bytes(2 * M * N);
        if (!tfi_cuda_many_fits(&p.a, device_capability)) {
            device_end();
            continue;
        }
        double library[2];
        bench_library(&p, library);
        const double us = bench_us(launch_many, &p, M > 4096 ? 8 : 50), tera = 2e-6 * (double)M * (double)N * (double)K;
        printf("many %5lld x %lld x %lld %8.2f us, %6.1f TFLOP/s; matrix library alone %8.2f us, %6.1f TFLOP/s, with FINISH "
               "%8.2f us\n",
               (long long)M, (long long)N, (long long)K, us, tera / us, library[1], tera / library[1], library[0]);
        device_end();
    }
}
