#include "cuda_check.h"

#include <stdlib.h>

#include "backend/ref/ref.h"

enum { GUARD = 512, HELD_MAX = 4096 };

cudaStream_t device_stream;
int device_capability, device_multiprocessors;
int case_limit;
static void *held_device[HELD_MAX], *held_host[HELD_MAX];
static int device_count, host_count, capturing;
static double worst;

void device_ok(cudaError_t error, const char *what)
{
    if (error == cudaSuccess) return;
    check_failed(__FILE__, __LINE__, "%s: %s", what, cudaGetErrorString(error));
    printf("the device failed: %s: %s; no later case was run\n", what, cudaGetErrorString(error));
    check_done();
    exit(1);
}

int32_t pick(int32_t low, int32_t high)
{
    return low + (int32_t)(check_random() % (uint64_t)(high - low + 1));
}

int next_case(int *i, int count)
{
    const int step = case_limit > 0 && case_limit < count ? count / case_limit : 1;
    *i += *i < 0 ? pick(1, step) : pick(1, 2 * step - 1); /* what cases take turns in has other turns each time */
    return *i < count;
}

int32_t at_most(int32_t size, int32_t enough)
{
    return case_limit > 0 && size > enough ? enough : size;
}

tfi_dtype any_float(void)
{
    static const tfi_dtype types[] = {TFI_F32, TFI_BF16, TFI_F16};
    return types[pick(0, 2)];
}

const char *float_name(tfi_dtype t)
{
    return tfi_dtype_name(t);
}

float any_magnitude(void)
{
    static const float magnitudes[] = {1, 1e-2f, 100};
    return magnitudes[pick(0, 2)];
}

/* ---- memory ---- */

void *host_bytes(int64_t bytes)
{
    if (host_count == HELD_MAX) exit(2);
    void *p = calloc(1, bytes > 0 ? (size_t)bytes : 1);
    if (!p) exit(2);
    return held_host[host_count++] = p;
}

void *device_bytes(int64_t bytes)
{
    void *p;
    if (device_count == HELD_MAX) exit(2);
    device_ok(cudaMalloc(&p, (size_t)(bytes > 0 ? bytes : 1)), "cudaMalloc");
    device_ok(cudaMemset(p, 0xff, (size_t)(bytes > 0 ? bytes : 1)), "cudaMemset");
    return held_device[device_count++] = p;
}

void *device_copy(const void *host, int64_t bytes)
{
    void *p = device_bytes(bytes);
    if (bytes > 0) device_ok(cudaMemcpy(p, host, (size_t)bytes, cudaMemcpyHostToDevice), "cudaMemcpy");
    return p;
}

void device_end(void)
{
    device_ok(cudaDeviceSynchronize(), "the end of a case");
    while (device_count > 0) device_ok(cudaFree(held_device[--device_count]), "cudaFree");
    while (host_count > 0) free(held_host[--host_count]);
}

/* ---- elements ---- */

double typed_get(const void *p, tfi_dtype t, int64_t i)
{
    if (t == TFI_F32) return (double)((const float *)p)[i];
    const uint16_t bits = ((const uint16_t *)p)[i];
    return (double)(t == TFI_BF16 ? tfi_bf16_to_f32(bits) : tfi_f16_to_f32(bits));
}

void typed_put(void *p, tfi_dtype t, int64_t i, float v)
{
    if (t == TFI_F32) ((float *)p)[i] = v;
    else ((uint16_t *)p)[i] = t == TFI_BF16 ? tfi_f32_to_bf16(v) : tfi_f32_to_f16(v);
}

void *device_values(tfi_dtype t, int64_t n, float low, float high, int shift, float **values)
{
    const int64_t size = (int64_t)tfi_dtype_size(t);
    void *typed = host_bytes((n + shift) * size);
    float *floats = host_bytes(n * (int64_t)sizeof *floats);

    for (int64_t i = 0; i < n; i++) {
        typed_put(typed, t, i + shift, check_uniform(low, high));
        floats[i] = (float)typed_get(typed, t, i + shift);
    }
    if (values) *values = floats;
    return (char *)device_copy(typed, (n + shift) * size) + shift * size;
}

device_out device_output(tfi_dtype t, int64_t n, int shift)
{
    device_out o = {.at = GUARD + shift * (int64_t)tfi_dtype_size(t)};
    o.bytes = o.at + n * (int64_t)tfi_dtype_size(t) + GUARD;
    o.base = device_bytes(o.bytes);
    o.data = o.base + o.at;
    return o;
}

void *device_result(const device_out *o, tfi_dtype t, int64_t live)
{
    const int64_t end = o->at + live * (int64_t)tfi_dtype_size(t);
    unsigned char *copy = host_bytes(o->bytes);
    int64_t spoiled = 0;

    device_ok(cudaMemcpy(copy, o->base, (size_t)o->bytes, cudaMemcpyDeviceToHost), "cudaMemcpy");
    for (int64_t i = 0; i < o->bytes; i++) spoiled += (i < o->at || i >= end) && copy[i] != 0xff;
    CHECK_INT(spoiled, 0);
    return copy + o->at;
}

/* ---- launches ---- */

tfi_cuda_launch device_launch(const tfi_cuda_live *live, int capability, int64_t scratch)
{
    return (tfi_cuda_launch){.stream = device_stream,
                             .capability = capability,
                             .multiprocessors = device_multiprocessors,
                             .live = device_copy(live, sizeof *live),
                             .scratch = device_bytes(scratch)};
}

void device_begin(void)
{
    device_ok(cudaDeviceSynchronize(), "before a launch");
    capturing = pick(0, 1);
    if (capturing) device_ok(cudaStreamBeginCapture(device_stream, cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
}

void device_run(void)
{
    cudaGraph_t graph;
    cudaGraphExec_t exec;

    if (capturing) {
        device_ok(cudaStreamEndCapture(device_stream, &graph), "cudaStreamEndCapture");
        device_ok(cudaGraphInstantiate(&exec, graph, 0), "cudaGraphInstantiate");
        device_ok(cudaGraphLaunch(exec, device_stream), "cudaGraphLaunch");
        device_ok(cudaStreamSynchronize(device_stream), "a graph");
        device_ok(cudaGraphExecDestroy(exec), "cudaGraphExecDestroy");
        device_ok(cudaGraphDestroy(graph), "cudaGraphDestroy");
    }
    device_ok(cudaStreamSynchronize(device_stream), "a kernel");
}

/* ---- comparison ---- */

void reference(tfi_op_kind kind, const void *args, int64_t scratch)
{
    const tfi_worker w = {.index = 0, .count = 1, .scratch = host_bytes(scratch)};
    tfi_ref_resolve(kind, (tfi_op_types){TFI_F32, TFI_F32, TFI_F32})(args, &w);
}

void check_rows(const void *y, tfi_dtype t, const float *expected, int64_t rows, int64_t cols, double tolerance)
{
    double mean = 0; /* squared norm of a row */

    if (t == TFI_BF16) tolerance += 0x1p-8; /* half a unit in the last place of the smallest significand is 2^-9 */
    if (t == TFI_F16) tolerance += 0x1p-11;
    for (int64_t i = 0; i < rows * cols; i++) mean += (double)expected[i] * (double)expected[i] / (double)rows;
    for (int64_t r = 0; r < rows; r++) {
        double difference = 0, norm = 0;
        for (int64_t i = r * cols; i < (r + 1) * cols; i++) {
            const double e = (double)expected[i], d = typed_get(y, t, i) - e;
            difference += d * d;
            norm += e * e;
        }
        /* A row that is small because its terms cancel has the rounding errors of the terms: the average is its measure. */
        const double error = mean > 0 || norm > 0 ? sqrt(difference / (norm < mean ? mean : norm)) : sqrt(difference);
        if (!(error <= worst)) worst = error;
        check_count++;
        if (!(error <= tolerance)) {
            check_failed(__FILE__, __LINE__, "row %lld of %lld, %lld columns of %s: relative error %g, allowed %g",
                         (long long)r, (long long)rows, (long long)cols, float_name(t), error, tolerance);
            return;
        }
    }
}

double take_worst(void)
{
    const double was = worst;
    worst = 0;
    return was;
}

void check_kind(int argc, char **argv, const char *name, void (*body)(void))
{
    const int64_t before = check_count;
    if (argc > 1 && strcmp(argv[1], "--list") == 0) puts(name);
    check_run(argc, argv, name, body);
    if (check_count != before)
        printf("%-22s %8lld checks, worst relative error %.2g\n", name, (long long)(check_count - before), take_worst());
    fflush(stdout);
}

/* ---- times ---- */

static int by_size(const void *a, const void *b)
{
    const float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

double bench_us(void (*launch)(const void *user, int i), const void *user, int count)
{
    enum { RUNS = 15 };
    float ms[RUNS];
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    cudaEvent_t begin, end;

    device_ok(cudaDeviceSynchronize(), "before a benchmark");
    device_ok(cudaEventCreate(&begin), "cudaEventCreate");
    device_ok(cudaEventCreate(&end), "cudaEventCreate");
    device_ok(cudaStreamBeginCapture(device_stream, cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
    for (int i = 0; i < count; i++) launch(user, i);
    device_ok(cudaStreamEndCapture(device_stream, &graph), "cudaStreamEndCapture");
    device_ok(cudaGraphInstantiate(&exec, graph, 0), "cudaGraphInstantiate");
    for (int i = -3; i < RUNS; i++) {
        device_ok(cudaEventRecord(begin, device_stream), "cudaEventRecord");
        device_ok(cudaGraphLaunch(exec, device_stream), "cudaGraphLaunch");
        device_ok(cudaEventRecord(end, device_stream), "cudaEventRecord");
        device_ok(cudaEventSynchronize(end), "a benchmark");
        if (i >= 0) device_ok(cudaEventElapsedTime(&ms[i], begin, end), "cudaEventElapsedTime");
    }
    qsort(ms, RUNS, sizeof *ms, by_size);
    device_ok(cudaEventDestroy(begin), "cudaEventDestroy");
    device_ok(cudaEventDestroy(end), "cudaEventDestroy");
    device_ok(cudaGraphExecDestroy(exec), "cudaGraphExecDestroy");
    device_ok(cudaGraphDestroy(graph), "cudaGraphDestroy");
    return (double)ms[RUNS / 2] * 1e3 / count;
}

void *device_encoder(void)
{
    void *function = NULL;
    enum cudaDriverEntryPointQueryResult found;
    if (cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000, cudaEnableDefault, &found) != cudaSuccess)
        return NULL;
    return found == cudaDriverEntryPointSuccess ? function : NULL;
}
