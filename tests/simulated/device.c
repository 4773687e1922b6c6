/* A CUDA device that is none: the part of the runtime, the driver and cuBLASLt that src/backend/cuda calls, over ordinary
 * memory, and the reference's ops in place of kernels. The host side of the backend (staging, plans, inputs, graphs, taps,
 * slots) so runs, and is tested, where there is no GPU. Launches take their live counts when they are done, as kernels do; what
 * is recorded during a capture is done when the graph is launched. fp32 and bf16. */
#define _GNU_SOURCE
#include <assert.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backend/cuda/libraries.h"
#include "backend/host_ops.h"
#include "base/status.h"
#include "kernels/launch.h"

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

static void issue(cudaStream_t on, void (*run)(const void *), const void *data, size_t size)
{
    stream *s = (stream *)(void *)on;

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

/* The graph hands its tasks over. */
cudaError_t CUDARTAPI cudaGraphInstantiate(cudaGraphExec_t *out, cudaGraph_t g, unsigned long long flags)
{
    graph *copy = malloc(sizeof *copy);

    (void)flags;
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

cudaError_t CUDARTAPI cudaDeviceGetAttribute(int *out, enum cudaDeviceAttr a, int device)
{
    (void)device;
    *out = a == cudaDevAttrComputeCapabilityMajor ? 9 : a == cudaDevAttrComputeCapabilityMinor ? 0 : 132;
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

tf_status tfi_cuda_driver_open(tfi_cuda_driver *out)
{
    *out = (tfi_cuda_driver){init, version, one, get, name, retain, push, pop};
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

static float get_element(const void *p, cudaDataType t, int64_t i)
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
                sum += get_element(p->A, p->a.type, n * p->a.step + k) * get_element(p->B, p->b.type, m * p->b.step + k);
            }
            if (p->beta != 0) sum += p->beta * get_element(p->C, p->y.type, m * p->y.step + n);
            if (p->d.epilogue & CUBLASLT_EPILOGUE_BIAS) sum += get_element(p->d.bias, p->y.type, n);
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
    issue(s, multiply, &p, sizeof p);
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

/* ---- kernels: the reference's functions ---- */

typedef struct launch {
    tfi_op_kind kind;
    tfi_op_types types;
    tfi_rows rows;
    tfi_attend attend;
    const tfi_cuda_live *live;
    union {
        tfi_embed_args embed;
        tfi_norm_args norm;
        tfi_glu_args glu;
        tfi_attention_args attention;
        tfi_kv_append_args kv_append;
        tfi_kv_copy_args kv_copy;
        tfi_gather_args gather;
        tfi_pool_args pool;
        tfi_l2norm_args l2norm;
        tfi_logprob_args logprob;
        tfi_process_args process;
        tfi_draw_args draw;
        tfi_finish_args finish;
    } a;
} launch;

static int64_t view_stride(const launch *l)
{
    return l->attend == TFI_ATTEND_SOURCE ? l->live->source_stride : l->live->table_stride;
}

/* Live counts in place of those the launch was made for, which may only be larger. */
static void take_live(launch *l)
{
    const tfi_cuda_live *live = l->live;
    const int64_t rows = live->rows[l->rows], R = live->rows[TFI_ROWS_TOKENS], B = live->rows[TFI_ROWS_SEQUENCES];

#define TAKE(field, count) (assert(l->a.field >= (count)), l->a.field = (count))
    switch (l->kind) {
    case TFI_OP_EMBED:
        TAKE(embed.R, R);
        break;
    case TFI_OP_NORM:
        TAKE(norm.R, rows);
        break;
    case TFI_OP_GLU:
        TAKE(glu.R, rows);
        break;
    case TFI_OP_ATTENTION:
        TAKE(attention.R, R);
        TAKE(attention.B, B);
        l->a.attention.kv.stride = view_stride(l);
        break;
    case TFI_OP_KV_APPEND:
        TAKE(kv_append.R, R);
        TAKE(kv_append.B, B);
        l->a.kv_append.kv.stride = view_stride(l);
        break;
    case TFI_OP_KV_COPY:
        TAKE(kv_copy.count, live->copies);
        break;
    case TFI_OP_GATHER_ROWS:
        TAKE(gather.S, rows);
        break;
    case TFI_OP_POOL:
        TAKE(pool.B, B);
        break;
    case TFI_OP_L2NORM:
        TAKE(l2norm.R, rows);
        break;
    case TFI_OP_LOGPROB:
        TAKE(logprob.S, rows);
        break;
    case TFI_OP_LOGITS_PROCESS:
        TAKE(process.S, rows);
        break;
    default:
        TAKE(draw.count, live->draws);
        break;
    }
#undef TAKE
}

static float activate(tfi_activation a, float v)
{
    switch (a) {
    case TFI_ACT_RELU:
        return v > 0 ? v : 0;
    case TFI_ACT_GELU:
        return 0.5f * v * (1 + erff(v * 0.70710678f));
    case TFI_ACT_GELU_TANH:
        return after(CUBLASLT_EPILOGUE_GELU, v);
    case TFI_ACT_SILU:
        return v / (1 + expf(-v));
    case TFI_ACT_TANH:
        return tanhf(v);
    case TFI_ACT_SIGMOID:
        return 1 / (1 + expf(-v));
    default:
        return v;
    }
}

static cudaDataType type_of(tfi_dtype t)
{
    return t == TFI_F32 ? CUDA_R_32F : CUDA_R_16BF;
}

static void finish(const void *data)
{
    const launch *l = data;
    const tfi_finish_args *a = &l->a.finish;

    for (int64_t i = 0; i < l->live->rows[l->rows] * a->N; i++) {
        float v = get_element(a->sums, type_of(l->types.x), i) + (a->bias ? a->bias[i % a->N] : 0);
        v = activate(a->activation, v) + (a->residual ? get_element(a->residual, type_of(l->types.y), i) : 0);
        if (l->types.y == TFI_F32) ((float *)a->y)[i] = v;
        else ((uint16_t *)a->y)[i] = tfi_f32_to_bf16(v);
    }
}

/* After the last of the ops that draw. */
static void publish(const tfi_cuda_live *live, const tfi_choice *choices)
{
    memcpy(live->published, choices, (size_t)live->draws * sizeof *choices);
}

static void perform(const void *data)
{
    launch l;
    const tfi_worker one_worker = {0, 1, aligned_alloc(64, 64 << 20)};

    memcpy(&l, data, sizeof l);
    take_live(&l);
    tfi_ref_resolve(l.kind, l.types)(&l.a, &one_worker);
    if (l.kind == TFI_OP_STOP) publish(l.live, l.a.draw.choices);
    free(one_worker.scratch);
}

static tf_status start(const tfi_cuda_launch *on, launch l)
{
    l.live = on->live;
    issue(on->stream, perform, &l, sizeof l);
    return TF_STATUS_OK;
}

static const tfi_op_types floats = {TFI_F32, TFI_F32, TFI_F32};

tf_status tfi_cuda_embed(const tfi_cuda_launch *l, const tfi_embed_args *a, tfi_op_types t)
{
    return start(l, (launch){TFI_OP_EMBED, t, .a.embed = *a});
}

tf_status tfi_cuda_norm(const tfi_cuda_launch *l, const tfi_norm_args *a, tfi_op_types t, tfi_rows rows)
{
    return start(l, (launch){TFI_OP_NORM, t, rows, .a.norm = *a});
}

tf_status tfi_cuda_glu(const tfi_cuda_launch *l, const tfi_glu_args *a, tfi_op_types t, tfi_rows rows)
{
    return start(l, (launch){TFI_OP_GLU, t, rows, .a.glu = *a});
}

tf_status tfi_cuda_attention(const tfi_cuda_launch *l, const tfi_attention_args *a, tfi_op_types t, int64_t max_rows,
                             int64_t max_tokens, const tfi_kv_append_args *append)
{
    if (append) (void)tfi_cuda_kv_append(l, append, t, TFI_ATTEND_CACHE);
    assert(max_rows >= l->live->longest);
    assert((a->attend == TFI_ATTEND_ALL || a->attend == TFI_ATTEND_CAUSAL) || max_tokens >= l->live->longest_stored);
    return start(l, (launch){TFI_OP_ATTENTION, t, .attend = a->attend, .a.attention = *a});
}

tf_status tfi_cuda_kv_append(const tfi_cuda_launch *l, const tfi_kv_append_args *a, tfi_op_types t, tfi_attend attend)
{
    return start(l, (launch){TFI_OP_KV_APPEND, t, .attend = attend, .a.kv_append = *a});
}

tf_status tfi_cuda_kv_copy(const tfi_cuda_launch *l, const tfi_kv_copy_args *a)
{
    return start(l, (launch){TFI_OP_KV_COPY, floats, .a.kv_copy = *a});
}

tf_status tfi_cuda_gather(const tfi_cuda_launch *l, const tfi_gather_args *a, tfi_op_types t, tfi_rows rows)
{
    return start(l, (launch){TFI_OP_GATHER_ROWS, t, rows, .a.gather = *a});
}

tf_status tfi_cuda_pool(const tfi_cuda_launch *l, const tfi_pool_args *a, tfi_op_types t)
{
    return start(l, (launch){TFI_OP_POOL, t, .a.pool = *a});
}

tf_status tfi_cuda_l2norm(const tfi_cuda_launch *l, const tfi_l2norm_args *a, tfi_op_types t, tfi_rows rows)
{
    return start(l, (launch){TFI_OP_L2NORM, t, rows, .a.l2norm = *a});
}

tf_status tfi_cuda_logprob(const tfi_cuda_launch *l, const tfi_logprob_args *a)
{
    return start(l, (launch){TFI_OP_LOGPROB, floats, TFI_ROWS_SELECTED, .a.logprob = *a});
}

tf_status tfi_cuda_process(const tfi_cuda_launch *l, const tfi_process_args *a)
{
    return start(l, (launch){TFI_OP_LOGITS_PROCESS, floats, TFI_ROWS_SELECTED, .a.process = *a});
}

tf_status tfi_cuda_sample(const tfi_cuda_launch *l, const tfi_draw_args *a)
{
    return start(l, (launch){TFI_OP_SAMPLE, floats, .a.draw = *a});
}

/* Requests that ask the host are the host's. Here they are hidden by a record that is no beam search's. */
static void step_beams(const void *data)
{
    const launch *l = data;

    for (int32_t i = 0; i < l->live->draws; i++)
        if (l->a.draw.slots[l->a.draw.draws[i].slot].sampling->completes) return;
    perform(data);
}

tf_status tfi_cuda_beam_step(const tfi_cuda_launch *l, const tfi_draw_args *a)
{
    const launch step = {TFI_OP_BEAM_STEP, floats, .live = l->live, .a.draw = *a};

    issue(l->stream, step_beams, &step, sizeof step);
    return TF_STATUS_OK;
}

tf_status tfi_cuda_stop(const tfi_cuda_launch *l, const tfi_draw_args *a)
{
    return start(l, (launch){TFI_OP_STOP, floats, .a.draw = *a});
}

tf_status tfi_cuda_finish(const tfi_cuda_launch *l, const tfi_finish_args *a, tfi_op_types t, tfi_rows rows)
{
    const launch after_product = {TFI_OP_LINEAR, t, rows, .live = l->live, .a.finish = *a};

    issue(l->stream, finish, &after_product, sizeof after_product);
    return TF_STATUS_OK;
}

int64_t tfi_cuda_scratch(const tfi_graph *g, const tfi_op *op, const int64_t *limits)
{
    (void)g, (void)op, (void)limits;
    return 0;
}

/* ---- products of few rows: NORM, LINEAR and GLU one after the other ---- */

typedef struct few_launch {
    tfi_few_args a;
    const tfi_cuda_live *live;
    tfi_rows rows;
} few_launch;

/* Rows `from` of x, [rows, cols]; to be freed. */
static void *pick_rows(const void *x, tfi_dtype t, const int32_t *from, int64_t rows, int64_t cols)
{
    const size_t row = (size_t)cols * tfi_dtype_size(t);
    char *y = x ? malloc((size_t)rows * row + 1) : NULL;

    for (int64_t m = 0; y && m < rows; m++)
        memcpy(y + (size_t)m * row, (const char *)x + (size_t)(from ? from[m] : m) * row, row);
    return y;
}

static void *few_input(const tfi_few_args *a, int64_t rows)
{
    const tfi_worker one_worker = {0, 1, NULL};
    tfi_norm_args norm = a->norm;

    if (!norm.gain) return pick_rows(a->x, a->type, a->from, rows, a->K);
    void *x = pick_rows(norm.x, a->norm_x, a->from, rows, a->K);
    void *residual = pick_rows(norm.residual, a->norm_residual, a->from, rows, a->K),
         *z = malloc((size_t)(rows * a->K * 4 + 1));
    norm.x = x;
    norm.residual = residual;
    norm.y = z;
    norm.R = rows;
    norm.E = a->K;
    tfi_ref_resolve(TFI_OP_NORM, (tfi_op_types){a->norm_x, a->norm_residual, a->type})(&norm, &one_worker);
    if (a->norm.y) memcpy(a->norm.y, z, (size_t)(rows * a->K) * tfi_dtype_size(a->type));
    free(x);
    free(residual);
    return z;
}

static void multiply_few(const void *data)
{
    const few_launch *l = data;
    const tfi_few_args *a = &l->a;
    const int64_t rows = l->live->rows[l->rows];
    const tfi_worker one_worker = {0, 1, NULL};
    const tfi_weight weight = {.rows = a->N, .cols = a->K, .dtype = a->type};
    const tfi_weight_form form = {.data = (void *)(uintptr_t)a->w};

    assert(rows <= a->M);
    void *x = few_input(a, rows), *sums = a->gated ? malloc((size_t)(rows * a->N * 4 + 1)) : NULL;
    const tfi_linear_args linear = {.x = x,
                                    .weight = &weight,
                                    .form = &form,
                                    .bias = a->bias,
                                    .residual = a->residual,
                                    .y = a->gated ? sums : a->y,
                                    .M = rows,
                                    .N = a->N,
                                    .K = a->K,
                                    .activation = a->gated ? TFI_ACT_NONE : a->activation};
    const tfi_dtype out = a->gated ? TFI_F32 : a->out;
    tfi_ref_resolve(TFI_OP_LINEAR, (tfi_op_types){a->type, out, out})(&linear, &one_worker);
    if (a->gated)
        tfi_ref_resolve(TFI_OP_GLU, (tfi_op_types){TFI_F32, TFI_F32, a->out})(
            &(tfi_glu_args){.x = sums, .y = a->y, .R = rows, .F = a->N / 2, .activation = a->activation}, &one_worker);
    free(sums);
    free(x);
}

int tfi_cuda_few_fits(const tfi_few_args *a, int capability)
{
    return capability >= 80 && a->M <= 8 && a->K % 8 == 0;
}

tf_status tfi_cuda_few(const tfi_cuda_launch *l, const tfi_few_args *a, tfi_rows rows)
{
    const few_launch few = {*a, l->live, rows};

    issue(l->stream, multiply_few, &few, sizeof few);
    return TF_STATUS_OK;
}

int tfi_cuda_many_fits(const tfi_many_args *a, int capability)
{
    (void)a, (void)capability;
    return 0;
}

tf_status tfi_cuda_many(const tfi_cuda_launch *l, const tfi_many_args *a)
{
    (void)l, (void)a;
    return TF_STATUS_UNSUPPORTED;
}

/* Whatever else is asked of them: the ops below do it. */
int tfi_cuda_is_greedy(const tfi_sampling *s)
{
    return !s->do_sample && s->num_beams <= 1;
}

/* Draw by draw, through the ops it stands for. */
static void greedy(const void *data)
{
    const launch *l = data;
    const tfi_draw_args *all = &l->a.draw;
    const tfi_worker one_worker = {0, 1, aligned_alloc(64, 64 << 20)};
    float *rows = malloc(2 * (size_t)all->V * sizeof *rows);

    for (int32_t i = 0; i < l->live->draws; i++) {
        const tfi_draw draw = {all->draws[i].slot, 0};
        tfi_process_args p = {
            all->logits + all->draws[i].row * all->V, &draw.slot, all->slots, rows, 1, all->V, TFI_PROCESS_CONSTRAIN};
        const tfi_draw_args a = {rows + all->V, p.x, &draw, all->slots, all->choices + i, 1, all->V};
        assert(tfi_cuda_is_greedy(all->slots[draw.slot].sampling));
        tfi_ref_resolve(TFI_OP_LOGITS_PROCESS, floats)(&p, &one_worker);
        p = (tfi_process_args){rows, &draw.slot, all->slots, rows + all->V, 1, all->V, TFI_PROCESS_WARP};
        tfi_ref_resolve(TFI_OP_LOGITS_PROCESS, floats)(&p, &one_worker);
        tfi_ref_resolve(TFI_OP_SAMPLE, floats)(&a, &one_worker);
        tfi_ref_resolve(TFI_OP_STOP, floats)(&a, &one_worker);
    }
    publish(l->live, all->choices);
    free(rows);
    free(one_worker.scratch);
}

tf_status tfi_cuda_greedy(const tfi_cuda_launch *l, const tfi_draw_args *a)
{
    const launch draws = {TFI_OP_SAMPLE, floats, .live = l->live, .a.draw = *a};

    issue(l->stream, greedy, &draws, sizeof draws);
    return TF_STATUS_OK;
}
