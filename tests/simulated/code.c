/* Kernels' code, on the simulated device: all of it is loaded when a device is opened, and nothing is where there is no room. */
#include "backend/cuda/cuda.h"
#include "backend/cuda/gemm.h"
#include "check.h"
#include "simulated/simulated.h"

enum { M = 2, N = 3, K = 4 };
static const size_t plenty = (size_t)1 << 40, too_little = (size_t)31 << 20;

static tf_status device_open(tfi_memory *memory, tfi_backend **out)
{
    tfi_memory_init(memory, NULL, TF_UNSET);
    return tfi_cuda_open(&(tfi_cuda_options){.memory = memory, .threads = 1}, out);
}

static void at_open(void)
{
    tfi_memory memory;
    tfi_backend *b;

    simulated_loads = 0;
    simulated_unused = too_little;
    CHECK_STATUS(device_open(&memory, &b), TF_STATUS_NOMEM);
    CHECK_ERROR_SAYS("device \"cuda\"");
    CHECK_ERROR_SAYS("code");
    CHECK_INT(simulated_loads, 0);
    CHECK_INT(memory.used, 0);
    simulated_unused = plenty;
    CHECK_OK(device_open(&memory, &b));
    CHECK_INT(simulated_loads, 3);
    b->close(b);
    CHECK_INT(memory.used, 0);
}

/* A class of products brings code of the matrix library's when it is met first; from then on it wants no room. */
static void at_a_new_product(void)
{
    const float x[M * K] = {1, 2, 3, 4, 5, 6, 7, 8}, w[N * K] = {1, 0, 0, 0, 0, 1, 0, 0, 1, 1, 1, 1},
                      want[M * N] = {1, 2, 10, 5, 6, 26};
    float y[M * N] = {0};
    const tfi_gemm_call call = {.M = M, .N = N, .K = K, .type = TFI_F32, .out = TFI_F32, .x = x, .w = w, .y = y, .may_time = 1};
    tfi_memory memory;
    tfi_backend *b;

    CHECK_OK(device_open(&memory, &b));
    tfi_gemm *g = ((tfi_cuda *)b)->gemm;
    simulated_unused = too_little;
    for (int i = 0; i < 2; i++) {
        CHECK_STATUS(tfi_gemm_run(g, &call, NULL, NULL), TF_STATUS_NOMEM);
        CHECK_ERROR_SAYS("code");
        CHECK(y[0] == 0);
    }
    simulated_unused = plenty;
    CHECK_OK(tfi_gemm_run(g, &call, NULL, NULL));
    simulated_unused = too_little;
    for (int i = 0; i < M * N; i++) CHECK(y[i] == want[i]);
    memset(y, 0, sizeof y);
    CHECK_OK(tfi_gemm_run(g, &call, NULL, NULL));
    for (int i = 0; i < M * N; i++) CHECK(y[i] == want[i]);
    simulated_unused = plenty;
    b->close(b);
}

int main(int argc, char **argv)
{
    check_run(argc, argv, "at_open", at_open);
    check_run(argc, argv, "at_a_new_product", at_a_new_product);
    return check_done();
}
