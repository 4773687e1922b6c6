/* Kernels against the reference functions, on a device. A program that carries all it needs; without arguments it runs every
 * case, with one those whose names have it as a part (a number behind it: so many of each kind's, and none of them large), with
 * --bench [name] it prints times and floors, with --list the names. */
#include <stdlib.h>

#include "cuda_check.h"

static const struct {
    const char *name;
    void (*run)(void);
} benches[] = {{"norm", bench_norm},           {"finish", bench_finish}, {"many", bench_many}, {"mid", bench_mid},
               {"attention", bench_attention}, {"draw", bench_draw},     {"few", bench_few},   {"tiles", bench_tiles}};

int main(int argc, char **argv)
{
    struct cudaDeviceProp device;
    int count = 0;

    setvbuf(stdout, NULL, _IOLBF, 0); /* a log shows how far it came */
    if (cudaGetDeviceCount(&count) != cudaSuccess || count == 0) {
        printf("skipped: no CUDA device\n");
        return 77;
    }
    device_ok(cudaGetDeviceProperties(&device, 0), "cudaGetDeviceProperties");
    device_ok(cudaStreamCreateWithFlags(&device_stream, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
    device_capability = device.major * 10 + device.minor;
    device_multiprocessors = device.multiProcessorCount;
    printf("%s, capability %d.%d, %d multiprocessors\n", device.name, device.major, device.minor, device_multiprocessors);
    if (argc > 1 && strcmp(argv[1], "--bench") == 0) {
        for (int i = 0; i < (int)(sizeof benches / sizeof *benches); i++)
            if (argc < 3 || strstr(benches[i].name, argv[2])) benches[i].run();
        return 0;
    }
    if (argc > 2) case_limit = atoi(argv[2]);
    check_row_kernels(argc, argv);
    check_store_kernels(argc, argv);
    check_attention_kernels(argc, argv);
    check_draw_kernels(argc, argv);
    check_beam_kernels(argc, argv);
    check_few_kernels(argc, argv);
    check_tile_kernels(argc, argv);
    check_many_kernels(argc, argv);
    check_chain_kernels(argc, argv);
    check_mid_kernels(argc, argv);
    return check_done();
}
