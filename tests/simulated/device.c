/* A CUDA device that is none: the part of the runtime, the driver and cuBLASLt that src/backend/cuda calls, over ordinary
 * memory. With launches.c and links.c the host side of the backend (staging, plans, inputs, graphs, chains, taps, slots) so runs,
 * and is tested, where there is no GPU. What is recorded during a capture is done when the graph is launched. fp32 and bf16. */
#define _GNU_SOURCE
#include <assert.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backend/cuda/libraries.h"
#include "base/status.h"
#include "simulated/simulated.h"

/* ---- streams and graphs: a stream does everything at once, unless it is being recorded ---- */

typedef struct task {
    struct task *next;
    void (*run)(const void *data);
    char data[]; /* copied */
} task;

typedef struct graph {
    task *first, **last;
} graph;

typedef struct stream {
    graph *recording;
} stream;

int simulated_launches;

void simulated_issue(cudaStream_t on, void (*run)(const void *), const void *data, size_t size)
{
    stream *s = (stream *)(void *)on;

    simulated_launches++;
    if (!s || !s->recording) {
        run(data);
        return;
    }
    task *t = malloc(sizeof *t + size);
    t->next = NULL;
    t->run = run;
    memcpy(t->data, data, size);
    *s->recording->last = t;
    s->recording->last = &t->next;
}

cudaError_t CUDARTAPI cudaStreamCreateWithFlags(cudaStream_t *out, unsigned flags)
{
    (void)flags;
    *out = calloc(1, sizeof(stream));
    return cudaSuccess;
}

cudaError_t CUDARTAPI cudaStreamDestroy(cudaStream_t s)
{
    free(s);
    return cudaSuccess;
}

cudaError_t CUDARTAPI cudaStreamSynchronize(cudaStream_t s)
{
    return s && ((stream *)(void *)s)->recording ? cudaErrorStreamCaptureUnsupported : cudaSuccess;
}

cudaError_t CUDARTAPI cudaStreamBeginCapture(cudaStream_t s, enum cudaStreamCaptureMode mode)
{
    graph *g = calloc(1, sizeof *g);

    (void)mode;
    g->last = &g->first;
    ((stream *)(void *)s)->recording = g;
    return cudaSuccess;
}

cudaError_t CUDARTAPI cudaStreamEndCapture(cudaStream_t s, cudaGraph_t *out)
{
    *out = (cudaGraph_t)(void *)((stream *)(void *)s)->recording;
    ((stream *)(void *)s)->recording = NULL;
    return cudaSuccess;
}

/* The graph hands its tasks over, where there is room for another. */
cudaError_t CUDARTAPI cudaGraphInstantiate(cudaGraphExec_t *out, cudaGraph_t g, unsigned long long flags)
{
    graph *copy;

    (void)flags;
    if (simulated_unused < 1 << 20) return cudaErrorMemoryAllocation;
    copy = malloc(sizeof *copy);
    memcpy(copy, g, sizeof *copy);
    ((graph *)(void *)g)->first = NULL;
    *out = (cudaGraphExec_t)(void *)copy;
    return cudaSuccess;
}

static void free_graph(graph *g)
{
    for (task *t = g->first, *next; t; t = next) {
        next = t->next;
        free(t);
    }
    free(g);
}

cudaError_t CUDARTAPI cudaGraphDestroy(cudaGraph_t g)
{
    free_graph((graph *)(void *)g);
    return cudaSuccess;
}

cudaError_t CUDARTAPI cudaGraphExecDestroy(cudaGraphExec_t g)
{
    free_graph((graph *)(void *)g);
    return cudaSuccess;
}

cudaError_t CUDARTAPI cudaGraphLaunch(cudaGraphExec_t g, cudaStream_t s)
{
    (void)s;
    for (const task *t = ((graph *)(void *)g)->first; t; t = t->next) t->run(t->data);
    return cudaSuccess;
}

/* ---- memory and the rest ---- */

cudaError_t CUDARTAPI cudaMalloc(void **out, size_t size)
{
    *out = aligned_alloc(256, (size + 255) / 256 * 256);
    if (*out) memset(*out, 0xff, size); /* NaN */
    return *out ? cudaSuccess : cudaErrorMemoryAllocation;
}

cudaError_t CUDARTAPI cudaFree(void *p)
{
    free(p);
    return cudaSuccess;
}

cudaError_t CUDARTAPI cudaHostAlloc(void **out, size_t size, unsigned flags)
{
    (void)flags;
    return cudaMalloc(out, size);
}

cudaError_t CUDARTAPI cudaFreeHost(void *p)
{
    return cudaFree(p);
}

cudaError_t CUDARTAPI cudaMemset(void *p, int value, size_t size)
{
    memset(p, value, size);
    return cudaSuccess;
}

cudaError_t CUDARTAPI cudaMemsetAsync(void *p, int value, size_t size, cudaStream_t s)
{
    if (s && ((stream *)(void *)s)->recording) return cudaErrorStreamCaptureUnsupported; /* the backend records none */
    return cudaMemset(p, value, size);
}

cudaError_t CUDARTAPI cudaMemcpy(void *to, const void *from, size_t size, enum cudaMemcpyKind kind)
{
    (void)kind;
    memcpy(to, from, size);
    return cudaSuccess;
}

cudaError_t CUDARTAPI cudaMemcpyAsync(void *to, const void *from, size_t size, enum cudaMemcpyKind kind, cudaStream_t s)
{
    if (s && ((stream *)(void *)s)->recording) return cudaErrorStreamCaptureUnsupported; /* the backend records none */
    return cudaMemcpy(to, from, size, kind);
}

cudaError_t CUDARTAPI cudaMemcpy2DAsync(void *to, size_t to_step, const void *from, size_t from_step, size_t width,
                                        size_t height, enum cudaMemcpyKind kind, cudaStream_t s)
{
    (void)s;
    for (size_t i = 0; i < height; i++)
        (void)cudaMemcpy((char *)to + i * to_step, (const char *)from + i * from_step, width, kind);
    return cudaSuccess;
}

size_t simulated_unused = (size_t)1 << 40;

cudaError_t CUDARTAPI cudaMemGetInfo(size_t *unused, size_t *all)
{
    *unused = simulated_unused;
    *all = (size_t)1 << 40;
    return cudaSuccess;
}

static int event;

/* What one measures differs from time to time. */
static float noise(void)
{
    static _Atomic unsigned state;

    if (!state) state = (unsigned)getpid();
    state = state * 1664525u + 1013904223u;
    return (float)(1 + state / 65536u % 100);
}

cudaError_t CUDARTAPI cudaEventCreate(cudaEvent_t *out)
{
    *out = (cudaEvent_t)(void *)&event;
    return cudaSuccess;
}

cudaError_t CUDARTAPI cudaEventCreateWithFlags(cudaEvent_t *out, unsigned flags)
{
    (void)flags;
    return cudaEventCreate(out);
}

cudaError_t CUDARTAPI cudaEventDestroy(cudaEvent_t e)
{
    (void)e;
    return cudaSuccess;
}

cudaError_t CUDARTAPI cudaEventRecord(cudaEvent_t e, cudaStream_t s)
{
    (void)e;
    return s && ((stream *)(void *)s)->recording ? cudaErrorStreamCaptureUnsupported : cudaSuccess;
}

cudaError_t CUDARTAPI cudaEventSynchronize(cudaEvent_t e)
{
    (void)e;
    return cudaSuccess;
}

cudaError_t CUDARTAPI cudaEventQuery(cudaEvent_t e)
{
    (void)e;
    return cudaSuccess;
}

cudaError_t CUDARTAPI cudaEventElapsedTime(float *ms, cudaEvent_t a, cudaEvent_t b)
{
    (void)a;
    (void)b;
    *ms = noise();
    return cudaSuccess;
}

cudaError_t CUDARTAPI cudaDeviceSynchronize(void)
{
    return cudaSuccess;
}

cudaError_t CUDARTAPI cudaGetLastError(void)
{
    return cudaSuccess;
}

cudaError_t CUDARTAPI cudaPeekAtLastError(void)
{
    return cudaSuccess;
}

const char *CUDARTAPI cudaGetErrorString(cudaError_t e)
{
    return e == cudaErrorMemoryAllocation ? "out of memory" : "simulated";
}

int simulated_capability = 90;

cudaError_t CUDARTAPI cudaDeviceGetAttribute(int *out, enum cudaDeviceAttr a, int device)
{
    (void)device;
    *out = a == cudaDevAttrComputeCapabilityMajor   ? simulated_capability / 10
           : a == cudaDevAttrComputeCapabilityMinor ? simulated_capability % 10
                                                    : 132;
    return cudaSuccess;
}

/* ---- the driver: one device ---- */

static int init(unsigned flags)
{
    (void)flags;
    return 0;
}

static int version(int *out)
{
    *out = CUDART_VERSION;
    return 0;
}

static int one(int *out)
{
    *out = 1;
    return 0;
}

static int get(int *out, int ordinal)
{
    *out = ordinal;
    return 0;
}

static int name(char *out, int size, int device)
{
    snprintf(out, (size_t)size, "simulated %d", device);
    return 0;
}

static _Thread_local int depth; /* of contexts: every call of the backend leaves none behind */

static int retain(void **out, int device)
{
    (void)device;
    *out = &event;
    return 0;
}

static int push(void *context)
{
    (void)context;
    depth++;
    return 0;
}

static int pop(void **out)
{
    *out = &event;
    assert(depth > 0);
    depth--;
    return 0;
}

static int let_go(int device)
{
    (void)device;
    return 0;
}

static int copy_out(void *to, unsigned long long from, size_t bytes)
{
    memcpy(to, (const void *)(uintptr_t)from, bytes);
    return 0;
}

/* Two files of kernels, of which one has one and the other two. A function is its file, and so is a module. */
static tfi_kernel_file files[] = {{"a", &files[1]}, {"bc", NULL}};
tfi_kernel_file *tfi_kernel_files = files;
int simulated_loads;

cudaError_t CUDARTAPI cudaGetFuncBySymbol(cudaFunction_t *out, const void *kernel)
{
    *out = (cudaFunction_t)(uintptr_t)kernel;
    return cudaSuccess;
}

static int function_module(void **out, void *function)
{
    *out = function;
    return 0;
}

static int function_count(unsigned *out, void *module)
{
    *out = (unsigned)strlen(module);
    return 0;
}

static int functions(void **out, unsigned count, void *module)
{
    for (unsigned i = 0; i < count; i++) out[i] = (char *)module + i;
    return 0;
}

static int function_load(void *function)
{
    assert(strchr("abc", *(char *)function));
    simulated_loads++;
    return 0;
}

tf_status tfi_cuda_driver_open(tfi_cuda_driver *out)
{
    *out = (tfi_cuda_driver){init,           version,   one,          get,      name, retain,
                             push,           pop,       let_go,       copy_out, NULL, function_module,
                             function_count, functions, function_load};
    return TF_STATUS_OK;
}

/* ---- the matrix library ---- */

typedef struct description {
    cublasLtEpilogue_t epilogue;
    const void *bias;
} description;

typedef struct matrix {
    cudaDataType type;
    int64_t rows, cols, step; /* by columns */
} matrix;

/* A function is its attributes, one beside the other: one number, and the custom option says whether sums are formed backwards.
 */
enum { FUNCTION = 7, BACKWARDS = 1 };

static uint32_t *attribute_of(const cublasLtMatmulAlgo_t *a, cublasLtMatmulAlgoConfigAttributes_t which)
{
    assert(which <= CUBLASLT_ALGO_CONFIG_CLUSTER_SHAPE_ID);
    return (uint32_t *)(void *)a->data + which;
}

static cublasStatus_t algo_get(const cublasLtMatmulAlgo_t *a, cublasLtMatmulAlgoConfigAttributes_t which, void *out,
                               size_t size, size_t *written)
{
    memcpy(out, attribute_of(a, which), *written = size);
    return CUBLAS_STATUS_SUCCESS;
}

typedef struct product {
    description d;
    matrix a, b, y;
    float beta;
    int backwards; /* the order that sums are formed in */
    const void *A, *B, *C;
    void *D;
} product;

static cublasStatus_t create(cublasLtHandle_t *h)
{
    *h = (cublasLtHandle_t)(void *)&event;
    return CUBLAS_STATUS_SUCCESS;
}

static cublasStatus_t destroy(cublasLtHandle_t h)
{
    (void)h;
    return CUBLAS_STATUS_SUCCESS;
}

static cublasStatus_t desc_create(cublasLtMatmulDesc_t *out, cublasComputeType_t compute, cudaDataType_t scale)
{
    assert(compute == CUBLAS_COMPUTE_32F && scale == CUDA_R_32F);
    *out = calloc(1, sizeof(description));
    return CUBLAS_STATUS_SUCCESS;
}

static cublasStatus_t desc_destroy(cublasLtMatmulDesc_t d)
{
    free(d);
    return CUBLAS_STATUS_SUCCESS;
}

static cublasStatus_t desc_set(cublasLtMatmulDesc_t d, cublasLtMatmulDescAttributes_t which, const void *value, size_t size)
{
    description *mine = (description *)(void *)d;

    if (which == CUBLASLT_MATMUL_DESC_EPILOGUE) memcpy(&mine->epilogue, value, size);
    if (which == CUBLASLT_MATMUL_DESC_BIAS_POINTER) memcpy(&mine->bias, value, size);
    return CUBLAS_STATUS_SUCCESS;
}

static cublasStatus_t layout_create(cublasLtMatrixLayout_t *out, cudaDataType type, uint64_t rows, uint64_t cols, int64_t step)
{
    matrix *m = malloc(sizeof *m);

    *m = (matrix){type, (int64_t)rows, (int64_t)cols, step};
    *out = (cublasLtMatrixLayout_t)(void *)m;
    return CUBLAS_STATUS_SUCCESS;
}

static cublasStatus_t layout_destroy(cublasLtMatrixLayout_t m)
{
    free(m);
    return CUBLAS_STATUS_SUCCESS;
}

static cublasStatus_t preference_create(cublasLtMatmulPreference_t *out)
{
    *out = (cublasLtMatmulPreference_t)(void *)&event;
    return CUBLAS_STATUS_SUCCESS;
}

static cublasStatus_t preference_destroy(cublasLtMatmulPreference_t p)
{
    (void)p;
    return CUBLAS_STATUS_SUCCESS;
}

static cublasStatus_t preference_set(cublasLtMatmulPreference_t p, cublasLtMatmulPreferenceAttributes_t a, const void *v,
                                     size_t size)
{
    (void)p;
    (void)a;
    (void)v;
    (void)size;
    return CUBLAS_STATUS_SUCCESS;
}

static size_t library_version(void)
{
    return 130002;
}

/* Two suggestions that round differently, but none with an epilogue where N is odd: what follows a product is then another
 * launch. */
static cublasStatus_t heuristic(cublasLtHandle_t h, cublasLtMatmulDesc_t d, cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t y, cublasLtMatmulPreference_t p, int wanted,
                                cublasLtMatmulHeuristicResult_t *out, int *count)
{
    const int64_t n = ((matrix *)(void *)y)->rows;

    (void)h, (void)a, (void)b, (void)c, (void)p;
    memset(out, 0, (size_t)wanted * sizeof *out);
    for (int i = 0; i < 2; i++) {
        out[i].algo.data[6] = (uint64_t)noise(); /* a record's other bytes need not come again */
        *attribute_of(&out[i].algo, CUBLASLT_ALGO_CONFIG_ID) = FUNCTION;
        *attribute_of(&out[i].algo, CUBLASLT_ALGO_CONFIG_CUSTOM_OPTION) = i ? BACKWARDS : 0;
    }
    *count = ((description *)(void *)d)->epilogue != CUBLASLT_EPILOGUE_DEFAULT && n % 2 == 1 ? 0 : 2;
    return CUBLAS_STATUS_SUCCESS;
}

float simulated_element(const void *p, cudaDataType t, int64_t i)
{
    assert(t == CUDA_R_32F || t == CUDA_R_16BF);
    return t == CUDA_R_32F ? ((const float *)p)[i] : tfi_bf16_to_f32(((const uint16_t *)p)[i]);
}

static float after(cublasLtEpilogue_t e, float v)
{
    if (e & CUBLASLT_EPILOGUE_RELU) return v > 0 ? v : 0;
    if (e & CUBLASLT_EPILOGUE_GELU) return 0.5f * v * (1 + tanhf(0.7978845608f * (v + 0.044715f * v * v * v)));
    return v;
}

static void multiply(const void *data)
{
    const product *p = data;

    for (int64_t m = 0; m < p->y.cols; m++) {
        for (int64_t n = 0; n < p->y.rows; n++) {
            float sum = 0;
            for (int64_t i = 0; i < p->a.rows; i++) {
                const int64_t k = p->backwards ? p->a.rows - 1 - i : i;
                sum += simulated_element(p->A, p->a.type, n * p->a.step + k) *
                       simulated_element(p->B, p->b.type, m * p->b.step + k);
            }
            if (p->beta != 0) sum += p->beta * simulated_element(p->C, p->y.type, m * p->y.step + n);
            if (p->d.epilogue & CUBLASLT_EPILOGUE_BIAS) sum += simulated_element(p->d.bias, p->y.type, n);
            sum = after(p->d.epilogue, sum);
            if (p->y.type == CUDA_R_32F) ((float *)p->D)[m * p->y.step + n] = sum;
            else ((uint16_t *)p->D)[m * p->y.step + n] = tfi_f32_to_bf16(sum);
        }
    }
}

static cublasStatus_t matmul(cublasLtHandle_t h, cublasLtMatmulDesc_t d, const void *alpha, const void *A,
                             cublasLtMatrixLayout_t a, const void *B, cublasLtMatrixLayout_t b, const void *beta, const void *C,
                             cublasLtMatrixLayout_t c, void *D, cublasLtMatrixLayout_t y, const cublasLtMatmulAlgo_t *algorithm,
                             void *workspace, size_t size, cudaStream_t s)
{
    const product p = {*(description *)(void *)d,
                       *(matrix *)(void *)a,
                       *(matrix *)(void *)b,
                       *(matrix *)(void *)y,
                       *(const float *)beta,
                       *attribute_of(algorithm, CUBLASLT_ALGO_CONFIG_CUSTOM_OPTION) == BACKWARDS,
                       A,
                       B,
                       C,
                       D};

    (void)h, (void)alpha, (void)c, (void)workspace, (void)size;
    simulated_issue(s, multiply, &p, sizeof p);
    return CUBLAS_STATUS_SUCCESS;
}

tf_status tfi_cublas_lt_open(const char *folder, tfi_cublas_lt *out)
{
    (void)folder;
    *out = (tfi_cublas_lt){NULL,           create,         destroy,           library_version,
                           matmul,         desc_create,    desc_destroy,      desc_set,
                           layout_create,  layout_destroy, preference_create, preference_destroy,
                           preference_set, heuristic,      algo_get};
    return TF_STATUS_OK;
}
