/* What the tests of kernels share: typed operands on the device beside their values as floats on the host, poisoned outputs
 * between guard bands, live counts below what a launch is made for, runs through the stream or a captured graph, comparison
 * with what the reference functions give for the same values in fp32. */
#ifndef CUDA_CHECK_H
#define CUDA_CHECK_H

#include <math.h>

#include "check.h"
#include "launch.h"

/* The device under test, the same for all cases. */
extern cudaStream_t device_stream;
extern int device_capability, device_multiprocessors;

/* Under a tool that takes its time: so many of a kind's cases, other ones each time, and none that is large. 0: all of them. */
extern int case_limit;
/* On to the next of cases 0 to count - 1 that is to be run; before the first one *i is -1. 0: there is none. */
int next_case(int *i, int count);
/* `size`, or under such a tool `enough` where that is less. */
int32_t at_most(int32_t size, int32_t enough);

/* End the program, with the count of what passed so far, if the call failed. */
void device_ok(cudaError_t error, const char *what);

int32_t pick(int32_t low, int32_t high);
tfi_dtype any_float(void);
const char *float_name(tfi_dtype t);
/* 1, 1e-2 or 100. */
float any_magnitude(void);

/* n random elements of type t on the device, and what they are as floats on the host (values may be NULL). `shift` elements in
 * front of them spoil their alignment. All memory lives until device_end(). */
void *device_values(tfi_dtype t, int64_t n, float low, float high, int shift, float **values);
void *device_copy(const void *host, int64_t bytes);
void *device_bytes(int64_t bytes); /* all bits set: NaN in every type */
void *host_bytes(int64_t bytes);   /* zeros */
void device_end(void);

/* Typed elements on the host. */
double typed_get(const void *p, tfi_dtype t, int64_t i);
void typed_put(void *p, tfi_dtype t, int64_t i, float v);

/* n elements with all bits set, between guard bands; `shift` as above. */
typedef struct device_out {
    void *data;
    char *base;
    int64_t bytes, at;
} device_out;
device_out device_output(tfi_dtype t, int64_t n, int shift);
/* What was written, and that nothing was but the first `live` of n elements. On the host. */
void *device_result(const device_out *o, tfi_dtype t, int64_t live);

/* What a launcher is called with: `live` copied to the device, scratch of `scratch` bytes full of NaN. */
tfi_cuda_launch device_launch(const tfi_cuda_live *live, int capability, int64_t scratch);

/* Between these, launches on the stream are, every other time, captured in a graph, which then runs. */
void device_begin(void);
void device_run(void);

/* Every row of y within `tolerance` (relative L2) of what is expected, rounding to t coming on top; the worst is remembered. */
void check_rows(const void *y, tfi_dtype t, const float *expected, int64_t rows, int64_t cols, double tolerance);
double take_worst(void);

/* The reference in fp32. */
void reference(tfi_op_kind kind, const void *args, int64_t scratch);

/* Microseconds of one of `count` calls of launch(user, i), captured in one graph; the median of several runs. */
double bench_us(void (*launch)(const void *user, int i), const void *user, int count);

void check_row_kernels(int argc, char **argv);
void check_store_kernels(int argc, char **argv);
void check_attention_kernels(int argc, char **argv);
void check_draw_kernels(int argc, char **argv);
void check_beam_kernels(int argc, char **argv);
void check_few_kernels(int argc, char **argv);
void check_tile_kernels(int argc, char **argv);
void check_many_kernels(int argc, char **argv);
void check_chain_kernels(int argc, char **argv);
void check_mid_kernels(int argc, char **argv);
/* Run a kind's cases and print its line. */
void check_kind(int argc, char **argv, const char *name, void (*body)(void));
void bench_norm(void);
void bench_finish(void);
void bench_many(void);
void bench_mid(void);
void bench_attention(void);
void bench_draw(void);
void bench_few(void);
void bench_tiles(void);

/* What makes maps for the copy engine, or NULL. */
void *device_encoder(void);

#endif
