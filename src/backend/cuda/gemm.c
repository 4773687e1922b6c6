/* How a product is computed is chosen once for each class of shapes (rows rounded up as programs do) and kept: the library
 * suggests some functions, the fastest of which is found by timing them where it is met first, or in another process that wrote
 * its choice to a file.
 *
 * cuBLASLt counts columns first: y [M, N] row-major is its D [N, M], W its A [K, N] transposed, x its B [K, M]. 16-bit products
 * add up in fp32, and split sums are never rounded to 16 bits in between. */
#include "backend/cuda/gemm.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "backend/cuda/buckets.h"
#include "backend/cuda/gemm_choices.h"
#include "base/status.h"

enum { CANDIDATES = 8, TIMED_RUNS = 4, ALIGNMENT = 64 };

/* Where a sum is split, its parts are added up in fp32. */
#define REDUCTIONS (uint32_t)(CUBLASLT_REDUCTION_SCHEME_NONE | CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE)

struct tfi_gemm {
    tfi_cuda *cuda;
    cublasLtHandle_t handle;
    int timing;
    pthread_mutex_t lock; /* guards choices and any_new, and times one call at a time */
    tfi_gemm_choices choices;
    int any_new; /* choices that the file lacks */
    char *file;  /* NULL: none, or one that is not ours to replace */
    size_t file_size;
    tfi_gemm_origin origin;
    tf_log_fn log;
    void *log_user;
};

/* The library's descriptions of one call. */
typedef struct product {
    cublasLtMatmulDesc_t desc;
    cublasLtMatrixLayout_t a, b, d;
} product;

/* ---- open, close ---- */

static void warn(const tfi_gemm *g, const char *path, const char *what)
{
    char text[600];

    if (!g->log) return;
    snprintf(text, sizeof text, "gemm_file %.300s: %.200s", path, what);
    g->log(g->log_user, TF_LOG_WARNING, text);
}

/* With the device current. */
static void find_origin(tfi_gemm *g)
{
    tfi_gemm_origin *o = &g->origin;

    if (g->cuda->driver.device_name(o->device, (int)sizeof o->device - 1, g->cuda->device) != 0) *o->device = 0;
    for (char *p = o->device; *p; p++)
        if (*p < ' ') *p = ' ';
    o->capability = g->cuda->capability;
    o->multiprocessors = g->cuda->multiprocessors;
    o->library = (int64_t)g->cuda->lt.version();
}

static tf_status read_file(tfi_gemm *g, const char *path)
{
    const char *why;
    int ours;
    tf_status st;

    find_origin(g);
    if ((st = tfi_gemm_choices_read(&g->choices, &g->origin, path, g->cuda->memory, &why, &ours)) < 0) return st;
    if (why) warn(g, path, why);
    if (!ours) return TF_STATUS_OK;
    g->file_size = strlen(path) + 1;
    if (!(g->file = tfi_alloc(g->cuda->memory, g->file_size))) return TF_STATUS_NOMEM;
    memcpy(g->file, path, g->file_size);
    return TF_STATUS_OK;
}

static tf_status status_of(cublasStatus_t failed)
{
    if (failed == CUBLAS_STATUS_ALLOC_FAILED) return TF_STATUS_NOMEM;
    return failed == CUBLAS_STATUS_NOT_SUPPORTED ? TF_STATUS_UNSUPPORTED : TF_STATUS_DEVICE;
}

tf_status tfi_gemm_open(tfi_cuda *c, const tfi_cuda_options *o, tfi_gemm **out)
{
    tfi_gemm *g = tfi_zalloc(c->memory, sizeof *g);

    if (!g) return TF_STATUS_NOMEM;
    g->cuda = c;
    g->timing = !o->no_timing;
    g->log = o->log;
    g->log_user = o->log_user;
    (void)pthread_mutex_init(&g->lock, NULL);
    *out = g; /* closed by the device's close from here on */
    const cublasStatus_t made = c->lt.create(&g->handle);
    if (made == CUBLAS_STATUS_SUCCESS) return o->gemm_file ? read_file(g, o->gemm_file) : TF_STATUS_OK;
    g->handle = NULL;
    return tfi_fail(status_of(made), "libcublasLt cannot be started on this device: its status %d", (int)made);
}

void tfi_gemm_close(tfi_gemm *g)
{
    if (!g) return;
    if (g->file && g->any_new && g->cuda->process == getpid() &&
        tfi_gemm_choices_write(&g->choices, &g->origin, g->file) != TF_STATUS_OK)
        warn(g, g->file, "the choices could not be written");
    if (g->handle && tfi_cuda_enter(g->cuda) == TF_STATUS_OK) {
        (void)g->cuda->lt.destroy(g->handle);
        tfi_cuda_leave(g->cuda);
    }
    (void)pthread_mutex_destroy(&g->lock);
    tfi_free(g->cuda->memory, g->file, g->file_size);
    tfi_free(g->cuda->memory, g, sizeof *g);
}

/* ---- description ---- */

static cudaDataType_t data_type(tfi_dtype t)
{
    return t == TFI_F32 ? CUDA_R_32F : t == TFI_BF16 ? CUDA_R_16BF : CUDA_R_16F;
}

static cublasLtEpilogue_t epilogue(const tfi_gemm_call *c)
{
    switch (c->activation) {
    case TFI_ACT_RELU:
        return c->bias ? CUBLASLT_EPILOGUE_RELU_BIAS : CUBLASLT_EPILOGUE_RELU;
    case TFI_ACT_GELU_TANH:
        return c->bias ? CUBLASLT_EPILOGUE_GELU_BIAS : CUBLASLT_EPILOGUE_GELU;
    default:
        return c->bias ? CUBLASLT_EPILOGUE_BIAS : CUBLASLT_EPILOGUE_DEFAULT;
    }
}

static void forget(const tfi_gemm *g, product *p)
{
    const tfi_cublas_lt *lt = &g->cuda->lt;

    if (p->desc) (void)lt->desc_destroy(p->desc);
    if (p->a) (void)lt->layout_destroy(p->a);
    if (p->b) (void)lt->layout_destroy(p->b);
    if (p->d) (void)lt->layout_destroy(p->d);
}

static int describe(const tfi_gemm *g, const tfi_gemm_call *c, product *p)
{
    const tfi_cublas_lt *lt = &g->cuda->lt;
    const cudaDataType_t type = data_type(c->type), out = data_type(c->out);
    const cublasOperation_t transposed = CUBLAS_OP_T;
    const cublasLtEpilogue_t after = epilogue(c);

    *p = (product){0};
    return lt->desc_create(&p->desc, CUBLAS_COMPUTE_32F, CUDA_R_32F) == CUBLAS_STATUS_SUCCESS &&
           lt->desc_set(p->desc, CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof transposed) == CUBLAS_STATUS_SUCCESS &&
           lt->desc_set(p->desc, CUBLASLT_MATMUL_DESC_EPILOGUE, &after, sizeof after) == CUBLAS_STATUS_SUCCESS &&
           (!c->bias ||
            lt->desc_set(p->desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &c->bias, sizeof c->bias) == CUBLAS_STATUS_SUCCESS) &&
           lt->layout_create(&p->a, type, (uint64_t)c->K, (uint64_t)c->N, c->K) == CUBLAS_STATUS_SUCCESS &&
           lt->layout_create(&p->b, type, (uint64_t)c->K, (uint64_t)c->M, c->K) == CUBLAS_STATUS_SUCCESS &&
           lt->layout_create(&p->d, out, (uint64_t)c->N, (uint64_t)c->M, c->N) == CUBLAS_STATUS_SUCCESS;
}

static cublasStatus_t multiply(const tfi_gemm *g, const tfi_gemm_call *c, const product *p,
                               const cublasLtMatmulAlgo_t *algorithm, void *workspace, cudaStream_t stream)
{
    const float one = 1, beta = c->residual ? 1 : 0;
    const void *added = c->residual ? c->residual : c->y;

    return g->cuda->lt.matmul(g->handle, p->desc, &one, c->w, p->a, c->x, p->b, &beta, added, p->d, c->y, p->d, algorithm,
                              workspace, TFI_GEMM_WORKSPACE, stream);
}

/* ---- choice ---- */

/* The library's suggestions, best first by its own estimate; their number. */
static int suggest(const tfi_gemm *g, const product *p, cublasLtMatmulHeuristicResult_t results[CANDIDATES])
{
    const tfi_cublas_lt *lt = &g->cuda->lt;
    const uint64_t workspace = TFI_GEMM_WORKSPACE;
    const uint32_t reductions = REDUCTIONS, alignment = ALIGNMENT;
    cublasLtMatmulPreference_t wish;
    int count = 0, kept = 0;

    memset(results, 0,
           CANDIDATES * sizeof *results); /* records are compared as bytes, and the library leaves some as they are */
    if (lt->preference_create(&wish) != CUBLAS_STATUS_SUCCESS) return 0;
    (void)lt->preference_set(wish, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace, sizeof workspace);
    (void)lt->preference_set(wish, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &reductions, sizeof reductions);
    for (int i = CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES; i <= CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES; i++)
        (void)lt->preference_set(wish, (cublasLtMatmulPreferenceAttributes_t)i, &alignment, sizeof alignment);
    if (lt->heuristic(g->handle, p->desc, p->a, p->b, p->d, p->d, wish, CANDIDATES, results, &count) != CUBLAS_STATUS_SUCCESS)
        count = 0;
    (void)lt->preference_destroy(wish);
    for (int i = 0; i < count; i++)
        if (results[i].state == CUBLAS_STATUS_SUCCESS) results[kept++] = results[i];
    return kept;
}

/* Milliseconds of some runs in a row; negative: it does not run. The library may write to the record it runs: this is a copy.
 */
static float time_one(const tfi_gemm *g, const tfi_gemm_call *c, const product *p, cublasLtMatmulAlgo_t algorithm,
                      void *workspace, cudaStream_t stream, const cudaEvent_t events[2])
{
    float ms = -1;

    if (multiply(g, c, p, &algorithm, workspace, stream) != CUBLAS_STATUS_SUCCESS) return -1;
    if (cudaEventRecord(events[0], stream) != cudaSuccess) return -1;
    for (int i = 0; i < TIMED_RUNS; i++)
        if (multiply(g, c, p, &algorithm, workspace, stream) != CUBLAS_STATUS_SUCCESS) return -1;
    if (cudaEventRecord(events[1], stream) != cudaSuccess || cudaEventSynchronize(events[1]) != cudaSuccess) return -1;
    return cudaEventElapsedTime(&ms, events[0], events[1]) == cudaSuccess ? ms : -1;
}

static int fastest(const tfi_gemm *g, const tfi_gemm_call *c, const product *p, const cublasLtMatmulHeuristicResult_t *results,
                   int count, void *workspace, cudaStream_t stream)
{
    cudaEvent_t events[2] = {NULL, NULL};
    float best_ms = -1;
    int best = 0;

    if (cudaEventCreate(&events[0]) == cudaSuccess && cudaEventCreate(&events[1]) == cudaSuccess) {
        for (int i = 0; i < count; i++) {
            const float ms = time_one(g, c, p, results[i].algo, workspace, stream, events);
            if (ms < 0 || (best_ms >= 0 && ms >= best_ms)) continue;
            best_ms = ms;
            best = i;
        }
    }
    for (int i = 0; i < 2; i++)
        if (events[i]) (void)cudaEventDestroy(events[i]);
    return best;
}

_Static_assert(sizeof(cublasLtMatmulAlgo_t) == TFI_GEMM_RECORD, "the library's record of a function");

/* ---- names ---- */

/* What names a function: its number and its settings. (The library's record of it has more, some of which changes as it runs.)
 */
static const struct {
    cublasLtMatmulAlgoConfigAttributes_t attribute;
    size_t size; /* bytes */
} config[TFI_GEMM_CONFIG] = {
    {CUBLASLT_ALGO_CONFIG_ID, 4},
    {CUBLASLT_ALGO_CONFIG_TILE_ID, 4},
    {CUBLASLT_ALGO_CONFIG_STAGES_ID, 4},
    {CUBLASLT_ALGO_CONFIG_SPLITK_NUM, 4},
    {CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME, 4},
    {CUBLASLT_ALGO_CONFIG_CTA_SWIZZLING, 4},
    {CUBLASLT_ALGO_CONFIG_CUSTOM_OPTION, 4},
    {CUBLASLT_ALGO_CONFIG_INNER_SHAPE_ID, 2},
    {CUBLASLT_ALGO_CONFIG_CLUSTER_SHAPE_ID, 2},
};

static void find_name(const tfi_gemm *g, const cublasLtMatmulAlgo_t *algorithm, uint32_t name[TFI_GEMM_CONFIG])
{
    size_t written;

    memset(name, 0, TFI_GEMM_CONFIG * sizeof *name);
    for (int i = 0; i < TFI_GEMM_CONFIG; i++) /* little endian */
        if (g->cuda->lt.algo_get(algorithm, config[i].attribute, &name[i], config[i].size, &written) != CUBLAS_STATUS_SUCCESS)
            name[i] = 0;
}

/* The first suggestion of that name; -1: none. */
static int find_named(const tfi_gemm *g, const cublasLtMatmulHeuristicResult_t *results, int count,
                      const uint32_t wanted[TFI_GEMM_CONFIG])
{
    uint32_t name[TFI_GEMM_CONFIG];

    for (int i = 0; i < count; i++) {
        find_name(g, &results[i].algo, name);
        if (memcmp(name, wanted, sizeof name) == 0) return i;
    }
    return -1;
}

/* ---- classes ---- */

/* The function for a class, of those suggested for its rounded number of rows: they are the same whichever number is met first.
 * A file's choice holds if it is among them. */
static tf_status choose(tfi_gemm *g, const tfi_gemm_call *c, const product *p, void *workspace, cudaStream_t stream,
                        tfi_gemm_choice *e)
{
    cublasLtMatmulHeuristicResult_t results[CANDIDATES];
    tfi_gemm_call rounded = *c;
    product of_class;
    int count = 0, chosen = -1;
    tf_status st;

    if ((st = tfi_cuda_code_room(g->cuda)) < 0) return st;
    rounded.M = e->shape.M;
    if (describe(g, &rounded, &of_class)) count = suggest(g, &of_class, results);
    forget(g, &of_class);
    if (e->state == TFI_GEMM_READ) chosen = find_named(g, results, count, e->config);
    if (chosen >= 0) {
        e->state = TFI_GEMM_TIMED;
    } else if (count == 0) {
        e->state = TFI_GEMM_REFUSED;
        return TF_STATUS_OK;
    } else if (g->timing && c->may_time) {
        find_name(g, &results[count > 1 ? fastest(g, c, p, results, count, workspace, stream) : 0].algo, e->config);
        chosen = find_named(g, results, count, e->config);
        e->state = TFI_GEMM_TIMED;
        g->any_new = 1;
    } else {
        chosen = 0;
        e->state = TFI_GEMM_FIRST;
    }
    memcpy(e->record, &results[chosen].algo, sizeof e->record);
    return TF_STATUS_OK;
}

/* The library's first suggestion, for a call that has no place in the table: timing would come again with every call. */
static tf_status first_choice(tfi_gemm *g, const tfi_gemm_call *c, const product *p, tfi_gemm_shape s, tfi_gemm_choice *out)
{
    tfi_gemm_call untimed = *c;

    *out = (tfi_gemm_choice){.shape = s};
    untimed.may_time = 0;
    return choose(g, &untimed, p, NULL, NULL, out);
}

/* What the class is computed with. */
static tf_status choice_of(tfi_gemm *g, const tfi_gemm_call *c, const product *p, void *workspace, cudaStream_t stream,
                           tfi_gemm_choice *out)
{
    const tfi_gemm_shape s = {tfi_bucket(c->M),   c->N, c->K, (int32_t)c->type, (int32_t)c->out, (int32_t)epilogue(c),
                              c->residual != NULL};
    tfi_gemm_choice *e;
    tf_status st = TF_STATUS_OK;

    (void)pthread_mutex_lock(&g->lock);
    e = tfi_gemm_choices_find(&g->choices, &s);
    if (e && (e->state == TFI_GEMM_FREE || e->state == TFI_GEMM_READ)) {
        e->shape = s;
        st = choose(g, c, p, workspace, stream, e);
    }
    if (e) *out = *e;
    else st = first_choice(g, c, p, s, out);
    (void)pthread_mutex_unlock(&g->lock);
    return st;
}

static cublasStatus_t multiply_as(const tfi_gemm *g, const tfi_gemm_call *c, const product *p, const tfi_gemm_choice *e,
                                  void *workspace, cudaStream_t stream)
{
    cublasLtMatmulAlgo_t algorithm;

    if (e->state == TFI_GEMM_REFUSED) return CUBLAS_STATUS_NOT_SUPPORTED;
    memcpy(&algorithm, e->record, sizeof algorithm);
    return multiply(g, c, p, &algorithm, workspace, stream);
}

tf_status tfi_gemm_run(tfi_gemm *g, const tfi_gemm_call *c, void *workspace, cudaStream_t stream)
{
    cublasStatus_t done = CUBLAS_STATUS_SUCCESS;
    tfi_gemm_choice e;
    product p;
    tf_status st;

    if (!describe(g, c, &p)) {
        forget(g, &p);
        return tfi_fail(TF_STATUS_UNSUPPORTED, "the matrix library refuses a product of [%lld, %lld] and [%lld, %lld]",
                        (long long)c->M, (long long)c->K, (long long)c->N, (long long)c->K);
    }
    if ((st = choice_of(g, c, &p, workspace, stream, &e)) == TF_STATUS_OK) done = multiply_as(g, c, &p, &e, workspace, stream);
    if (done == CUBLAS_STATUS_NOT_SUPPORTED &&
        e.state != TFI_GEMM_REFUSED) { /* chosen for another number of rows of its class */
        e.shape.M = c->M;
        if ((st = first_choice(g, c, &p, e.shape, &e)) == TF_STATUS_OK) done = multiply_as(g, c, &p, &e, workspace, stream);
    }
    forget(g, &p);
    if (st < 0 || done == CUBLAS_STATUS_SUCCESS) return st;
    return tfi_fail(status_of(done),
                    "device \"%s\": cublasLt status %d for a product of [%lld, %lld] %s and [%lld, %lld] giving %s",
                    g->cuda->name, (int)done, (long long)c->M, (long long)c->K, tfi_dtype_name(c->type), (long long)c->N,
                    (long long)c->K, tfi_dtype_name(c->out));
}
