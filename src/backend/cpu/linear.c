#include "backend/cpu/linear.h"

#include <oneapi/dnnl/dnnl.h>
#include <string.h>

#include "backend/rows.h"
#include "base/status.h"

enum {
    PRIMITIVES = 64,          /* of a worker; a model needs about a dozen */
    ONEDNN_SCRATCH = 64 << 10 /* what its kernels ask for our tiles is 1 KB; one that asks for more brings its own */
};

typedef struct primitive {
    int64_t K;
    int32_t rows, cols, layout, dtype;
    dnnl_primitive_t run;
    dnnl_memory_t x, weights, sums, scratch;
} primitive;

typedef struct linear_worker {
    dnnl_stream_t stream;
    int32_t count, oldest; /* the table is filled, then the oldest goes */
    primitive table[PRIMITIVES];
} linear_worker;

struct tfi_linear {
    tfi_memory *memory;
    dnnl_engine_t engine;
    const tfi_linear_tier *tier;
    int workers;
    int32_t layouts[2]; /* by dtype: F32, BF16 */
    linear_worker *worker;
};

static tf_status onednn(dnnl_status_t status, const char *what)
{
    if (status == dnnl_success) return TF_STATUS_OK;
    if (status == dnnl_out_of_memory) return tfi_fail(TF_STATUS_NOMEM, "oneDNN, %s: out of memory", what);
    if (status == dnnl_unimplemented) return tfi_fail(TF_STATUS_UNSUPPORTED, "oneDNN, %s: not on this processor", what);
    return tfi_fail(TF_STATUS_INTERNAL, "oneDNN, %s: status %d", what, (int)status);
}

static dnnl_data_type_t onednn_type(tfi_dtype t)
{
    return t == TFI_BF16 ? dnnl_bf16 : dnnl_f32;
}

static void matrix(dnnl_memory_desc_t *out, dnnl_data_type_t type, int64_t rows, int64_t cols, int64_t row_stride,
                   int64_t col_stride)
{
    const dnnl_dims_t dims = {rows, cols}, strides = {row_stride, col_stride};
    (void)dnnl_memory_desc_init_by_strides(out, 2, dims, type, strides);
}

/* oneDNN sees weights as [K, cols]. */
static void weights_matrix(dnnl_memory_desc_t *out, const primitive *p)
{
    static const dnnl_format_tag_t tags[] = {
        [TFI_LAYOUT_PACKED_F32] = dnnl_BA16a64b, [TFI_LAYOUT_PACKED_BF16] = dnnl_BA16a64b2a};
    const dnnl_dims_t dims = {p->K, p->cols};

    if (p->layout == TFI_LAYOUT_PLAIN) {
        matrix(out, onednn_type((tfi_dtype)p->dtype), p->K, p->cols, 1, p->K);
    } else {
        (void)dnnl_memory_desc_init_by_tag(out, 2, dims, onednn_type((tfi_dtype)p->dtype), tags[p->layout]);
    }
}

typedef struct tile_descs {
    dnnl_memory_desc_t x, weights, sums;
} tile_descs;

/* sums = x W, fp32 throughout. */
static dnnl_status_t describe(dnnl_engine_t engine, const primitive *p, dnnl_scratchpad_mode_t mode, tile_descs *d,
                              dnnl_primitive_desc_t *out)
{
    dnnl_matmul_desc_t op;
    dnnl_primitive_attr_t attr;
    dnnl_status_t status;

    matrix(&d->x, onednn_type((tfi_dtype)p->dtype), p->rows, p->K, p->K, 1);
    weights_matrix(&d->weights, p);
    matrix(&d->sums, dnnl_f32, p->rows, p->cols, p->cols, 1);
    if ((status = dnnl_matmul_desc_init(&op, &d->x, &d->weights, NULL, &d->sums)) != dnnl_success) return status;
    if ((status = dnnl_primitive_attr_create(&attr)) != dnnl_success) return status;
    status = dnnl_primitive_attr_set_scratchpad_mode(attr, mode);
    if (status == dnnl_success) status = dnnl_primitive_attr_set_fpmath_mode(attr, dnnl_fpmath_mode_strict);
    if (status == dnnl_success) status = dnnl_primitive_desc_create(out, &op, attr, engine, NULL);
    dnnl_primitive_attr_destroy(attr);
    return status;
}

static void primitive_close(primitive *p)
{
    if (p->run) dnnl_primitive_destroy(p->run);
    if (p->x) dnnl_memory_destroy(p->x);
    if (p->weights) dnnl_memory_destroy(p->weights);
    if (p->sums) dnnl_memory_destroy(p->sums);
    if (p->scratch) dnnl_memory_destroy(p->scratch);
    memset(p, 0, sizeof *p);
}

static size_t scratch_bytes(const_dnnl_primitive_desc_t desc)
{
    return dnnl_memory_desc_get_size(dnnl_primitive_desc_query_md(desc, dnnl_query_scratchpad_md, 0));
}

static dnnl_status_t primitive_fill(dnnl_engine_t engine, primitive *p, const tile_descs *d, const_dnnl_primitive_desc_t desc)
{
    const dnnl_memory_desc_t *scratch = dnnl_primitive_desc_query_md(desc, dnnl_query_scratchpad_md, 0);
    dnnl_status_t status = dnnl_primitive_create(&p->run, desc);

    if (status == dnnl_success) status = dnnl_memory_create(&p->x, &d->x, engine, DNNL_MEMORY_NONE);
    if (status == dnnl_success) status = dnnl_memory_create(&p->weights, &d->weights, engine, DNNL_MEMORY_NONE);
    if (status == dnnl_success) status = dnnl_memory_create(&p->sums, &d->sums, engine, DNNL_MEMORY_NONE);
    if (status == dnnl_success) status = dnnl_memory_create(&p->scratch, scratch, engine, DNNL_MEMORY_NONE);
    return status;
}

static tf_status primitive_open(dnnl_engine_t engine, primitive *p)
{
    dnnl_primitive_desc_t desc;
    dnnl_status_t status;
    tile_descs d;

    status = describe(engine, p, dnnl_scratchpad_mode_user, &d, &desc);
    if (status == dnnl_success && scratch_bytes(desc) > ONEDNN_SCRATCH) {
        dnnl_primitive_desc_destroy(desc);
        status = describe(engine, p, dnnl_scratchpad_mode_library, &d, &desc);
    }
    if (status == dnnl_success) {
        status = primitive_fill(engine, p, &d, desc);
        dnnl_primitive_desc_destroy(desc);
    }
    if (status == dnnl_success) return TF_STATUS_OK;
    primitive_close(p);
    return onednn(status, "matrix product");
}

static tf_status primitive_for(tfi_linear *l, linear_worker *own, const tfi_linear_args *a, int64_t rows, int64_t cols,
                               primitive **out)
{
    const tfi_dtype dtype = a->weight->dtype;
    primitive *p;
    tf_status status;

    for (int32_t i = 0; i < own->count; i++) {
        p = &own->table[i];
        if (p->rows == rows && p->cols == cols && p->K == a->K && p->layout == a->form->layout && p->dtype == (int32_t)dtype) {
            *out = p;
            return TF_STATUS_OK;
        }
    }
    if (own->count == PRIMITIVES) {
        own->oldest = (own->oldest + 1) % PRIMITIVES;
        p = &own->table[own->oldest];
        primitive_close(p);
    } else {
        p = &own->table[own->count];
    }
    *p = (primitive){
        .K = a->K, .rows = (int32_t)rows, .cols = (int32_t)cols, .layout = a->form->layout, .dtype = (int32_t)dtype};
    if ((status = primitive_open(l->engine, p)) < 0) return status; /* the entry is all zeros: nothing asks for K = 0 */
    if (own->count < PRIMITIVES) own->count++;
    *out = p;
    return TF_STATUS_OK;
}

static tf_status product(const linear_worker *own, const primitive *p, const void *x, const void *weights, float *sums,
                         void *scratch)
{
    const dnnl_exec_arg_t args[] = {
        {DNNL_ARG_SRC, p->x}, {DNNL_ARG_WEIGHTS, p->weights}, {DNNL_ARG_DST, p->sums}, {DNNL_ARG_SCRATCHPAD, p->scratch}};
    dnnl_status_t status;

    /* Where K is no multiple of 16 this writes zeros over the padding of the weights, zeros already: harmless. */
    status = dnnl_memory_set_data_handle(p->weights, (void *)weights);
    if (status == dnnl_success) status = dnnl_memory_set_data_handle(p->x, (void *)x);
    if (status == dnnl_success) status = dnnl_memory_set_data_handle(p->sums, sums);
    if (status == dnnl_success) status = dnnl_memory_set_data_handle(p->scratch, scratch);
    if (status == dnnl_success) status = dnnl_primitive_execute(p->run, own->stream, 4, args);
    return onednn(status, "matrix product");
}

/* How an op is cut up. Tiles are numbered along the rows first, so that neighbours share weights. */
typedef struct tiling {
    int64_t row_tiles, tiles, cols;
} tiling;

static int64_t ceil_divide(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

static tiling tiling_of(const tfi_linear_args *a, int workers)
{
    const int64_t M = a->M;
    tiling t;

    t.row_tiles = M > TFI_FEW_ROWS && M < TFI_TILE_ROWS && M % 16 != 0 ? 2 : ceil_divide(M, TFI_TILE_ROWS);
    t.cols = M <= TFI_FEW_ROWS ? TFI_BLOCK : TFI_TILE_COLS;
    if (t.row_tiles * ceil_divide(a->N, t.cols) < 8 * workers) t.cols = TFI_BLOCK;
    t.tiles = t.row_tiles * ceil_divide(a->N, t.cols);
    return t;
}

/* Rows [begin, end) of y that tile number i writes, and the rows of x it reads for that: `height` of them, from few different
 * heights, so that few primitives do. The last tile reaches back over rows of the one before. */
typedef struct row_tile {
    int64_t begin, end, first, height;
} row_tile;

static row_tile row_tile_of(int64_t M, int64_t row_tiles, int64_t i)
{
    row_tile t = {.begin = i * TFI_TILE_ROWS};

    if (M <= TFI_FEW_ROWS) {
        t.end = t.height = M;
    } else if (M < TFI_TILE_ROWS && row_tiles == 2) { /* 17 to 63: whole groups of 16, then the rest */
        t.begin = i ? M / 16 * 16 : 0;
        t.end = i ? M : M / 16 * 16;
        t.height = i ? 16 : t.end;
        t.first = t.end - t.height;
    } else {
        t.end = i + 1 < row_tiles ? t.begin + TFI_TILE_ROWS : M;
        t.height = (t.end - t.begin + 15) / 16 * 16;
        t.first = t.end - t.height;
    }
    return t;
}

/* A worker's scratch: the sums of a tile, and oneDNN's own. */
enum { SUMS_BYTES = TFI_TILE_ROWS * TFI_TILE_COLS * 4 };

int64_t tfi_linear_scratch(void)
{
    return SUMS_BYTES + ONEDNN_SCRATCH;
}

static const void *weights_at(const tfi_linear_args *a, int64_t n)
{
    const size_t unit = tfi_dtype_size(a->weight->dtype);

    if (a->form->layout == TFI_LAYOUT_PLAIN) return (const char *)a->form->data + (size_t)(n * a->K) * unit;
    return (const uint32_t *)a->form->data + n * tfi_packed_units(a->form->layout, a->K);
}

/* The tile of outputs [n, n + cols); `then`: the first output of the worker's next tile, -1 if there is none. */
static tf_status run_tile(tfi_linear *l, linear_worker *own, const tfi_linear_args *a, tfi_dtype y, row_tile rows, int64_t n,
                          int64_t cols, int64_t then, char *scratch)
{
    const int64_t live = a->N - n < cols ? a->N - n : cols;
    const int64_t width = a->form->layout == TFI_LAYOUT_PLAIN ? live : ceil_divide(live, TFI_BLOCK) * TFI_BLOCK;
    float *sums = (float *)(void *)scratch;
    const void *x = tfi_at(a->x, a->weight->dtype, rows.first * a->K);
    primitive *p;
    tf_status status;

    if (a->M <= TFI_FEW_ROWS && a->form->layout != TFI_LAYOUT_PLAIN) {
        l->tier->few[a->weight->dtype](x, a->M, a->K, weights_at(a, n), then < 0 ? NULL : weights_at(a, then), sums);
    } else {
        if ((status = primitive_for(l, own, a, rows.height, width, &p)) < 0) return status;
        if ((status = product(own, p, x, weights_at(a, n), sums, scratch + SUMS_BYTES)) < 0) return status;
    }
    l->tier->finish[a->activation][y](
        &(tfi_linear_tile){.sums = sums + (rows.begin - rows.first) * width,
                           .rows = rows.end - rows.begin,
                           .cols = live,
                           .stride = width,
                           .bias = a->bias ? a->bias + n : NULL,
                           .residual = a->residual ? tfi_at(a->residual, y, rows.begin * a->N + n) : NULL,
                           .y = tfi_at_out(a->y, y, rows.begin * a->N + n),
                           .y_stride = a->N});
    return TF_STATUS_OK;
}

/* A tile that nobody has, -1 if all are taken. Each worker has a run of neighbouring tiles of its own, so that it reads weights in
 * one stream (few rows: 98 % of the rate of plain reading; tiles dealt out one by one: 90 %); who is done helps the others, for on a
 * busy machine one of them may be away for a while. */
static int64_t claim(_Atomic int64_t *taken, const tiling *t, const tfi_worker *w)
{
    for (int i = 0; i < w->count; i++) {
        const int owner = (w->index + i) % w->count;
        const int64_t first = t->tiles * owner / w->count, end = t->tiles * (owner + 1) / w->count;
        if (first + atomic_load_explicit(&taken[owner], memory_order_relaxed) >= end) continue;
        const int64_t tile = first + atomic_fetch_add_explicit(&taken[owner], 1, memory_order_relaxed);
        if (tile < end) return tile;
    }
    return -1;
}

tf_status tfi_linear_run(tfi_linear *l, const tfi_linear_args *a, tfi_dtype y, const tfi_worker *w, _Atomic int64_t *taken)
{
    const tiling t = tiling_of(a, w->count);
    linear_worker *own = &l->worker[w->index];
    tf_status status = TF_STATUS_OK;
    int64_t i, next;

    if (!own->stream && (status = onednn(dnnl_stream_create(&own->stream, l->engine, dnnl_stream_default_flags), "stream")) < 0)
        return status;
    /* The next tile is taken before there is time for it, to ask for its weights while this one's are worked on. */
    for (i = claim(taken, &t, w); i >= 0 && status == TF_STATUS_OK; i = next) {
        next = claim(taken, &t, w);
        status = run_tile(l, own, a, y, row_tile_of(a->M, t.row_tiles, i % t.row_tiles), i / t.row_tiles * t.cols, t.cols,
                          next < 0 ? -1 : next / t.row_tiles * t.cols, w->scratch);
    }
    return status;
}

/* Whether oneDNN has a kernel of its own for the packed layout here, rather than a generic one. */
static int has_kernel(dnnl_engine_t engine, int32_t layout, tfi_dtype dtype)
{
    const primitive p = {.K = 768, .rows = TFI_TILE_ROWS, .cols = TFI_TILE_COLS, .layout = layout, .dtype = (int32_t)dtype};
    const char *name = "";
    dnnl_primitive_desc_t desc;
    tile_descs d;

    if (describe(engine, &p, dnnl_scratchpad_mode_user, &d, &desc) != dnnl_success) return 0;
    (void)dnnl_primitive_desc_query(desc, dnnl_query_impl_info_str, 0, &name);
    const int found = strncmp(name, "brg", 3) == 0;
    dnnl_primitive_desc_destroy(desc);
    return found;
}

tf_status tfi_linear_open(tfi_memory *memory, int workers, unsigned features, tfi_linear **out)
{
    const size_t table = (size_t)workers * sizeof(linear_worker);
    tfi_linear *l;
    tf_status status;

    *out = NULL;
    if (!(l = tfi_zalloc(memory, sizeof *l))) return TF_STATUS_NOMEM;
    l->memory = memory;
    l->workers = workers;
    l->tier = tfi_linear_tier_for(features);
    status = onednn(dnnl_engine_create(&l->engine, dnnl_cpu, 0), "CPU engine");
    if (status == TF_STATUS_OK && !(l->worker = tfi_zalloc(memory, table))) status = TF_STATUS_NOMEM;
    if (status < 0) {
        tfi_linear_close(l);
        return status;
    }
    if (has_kernel(l->engine, TFI_LAYOUT_PACKED_F32, TFI_F32)) l->layouts[TFI_F32] = TFI_LAYOUT_PACKED_F32;
    if (has_kernel(l->engine, TFI_LAYOUT_PACKED_BF16, TFI_BF16)) l->layouts[TFI_BF16] = TFI_LAYOUT_PACKED_BF16;
    *out = l;
    return TF_STATUS_OK;
}

void tfi_linear_close(tfi_linear *l)
{
    if (!l) return;
    for (int i = 0; l->worker && i < l->workers; i++) {
        for (int k = 0; k < PRIMITIVES; k++) primitive_close(&l->worker[i].table[k]);
        if (l->worker[i].stream) dnnl_stream_destroy(l->worker[i].stream);
    }
    tfi_free(l->memory, l->worker, (size_t)l->workers * sizeof(linear_worker));
    if (l->engine) dnnl_engine_destroy(l->engine);
    tfi_free(l->memory, l, sizeof *l);
}

int32_t tfi_linear_layout(const tfi_linear *l, tfi_dtype dtype)
{
    return dtype == TFI_BF16 ? l->layouts[TFI_BF16] : l->layouts[TFI_F32];
}
