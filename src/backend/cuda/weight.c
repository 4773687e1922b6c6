/* Making weights resident: row-major in their dtype, vectors and T5's biases in fp32. Workers cast into one half of a pinned
 * buffer while the other half is on its way to the device. */
#include <string.h>

#include "backend/cuda/device.h"
#include "base/status.h"

/* Of a part stored [inputs, outputs], rows and columns that are turned together: long reads, and a tile that stays in the cache. */
enum { TILE = 256, TILE_COLS = 16 };

static int is_vector(const tfi_weight *w)
{
    return (w->readers & (TFI_READ_LINEAR | TFI_READ_ROWS | TFI_READ_BIAS)) == 0;
}

static int64_t distances(const tfi_weight *w)
{
    return 2 * (int64_t)w->relative.max_distance + 1;
}

static tfi_dtype resident(const tfi_weight *w)
{
    return is_vector(w) || w->readers & TFI_READ_BIAS ? TFI_F32 : w->dtype;
}

tf_status tfi_cuda_weight_form(tfi_backend *b, const tfi_weight *w, tfi_weight_form *form)
{
    const int64_t rows = w->readers & TFI_READ_BIAS ? distances(w) : w->rows;
    tf_status st;

    *form = (tfi_weight_form){0};
    if (!is_vector(w) && (st = b->supports(b, w->dtype)) < 0) return tfi_fail_prefix(st, "weight %s: ", w->name);
    for (int i = 0; i < w->parts; i++) {
        const tfi_tensor *t = w->part[i];
        if (t && t->dtype > TFI_F64)
            return tfi_fail(TF_STATUS_UNSUPPORTED, "tensor %s of weight %s: %s is no type for weights", t->name, w->name,
                            tfi_dtype_name(t->dtype));
    }
    if (__builtin_mul_overflow(rows, w->cols, &form->bytes) ||
        __builtin_mul_overflow(form->bytes, (int64_t)tfi_dtype_size(resident(w)), &form->bytes) || form->bytes > INT64_MAX / 4)
        return tfi_fail(TF_STATUS_NOMEM, "weight %s: [%lld, %lld] is more than memory can hold", w->name, (long long)w->rows,
                        (long long)w->cols);
    return TF_STATUS_OK;
}

/* ---- elements ---- */

uint16_t tfi_cuda_round(tfi_dtype dtype, float f)
{
    return dtype == TFI_BF16 ? tfi_f32_to_bf16(f) : tfi_f32_to_f16(f);
}

static float element(const uint8_t *p, tfi_dtype t)
{
    uint16_t h;
    float f;
    double d;

    if (t == TFI_F32) {
        memcpy(&f, p, sizeof f);
        return f;
    }
    if (t == TFI_F64) {
        memcpy(&d, p, sizeof d);
        return (float)d;
    }
    memcpy(&h, p, sizeof h);
    return t == TFI_BF16 ? tfi_bf16_to_f32(h) : tfi_f16_to_f32(h);
}

static void put(void *out, tfi_dtype to, int64_t i, float f)
{
    if (to == TFI_F32) ((float *)out)[i] = f;
    else ((uint16_t *)out)[i] = tfi_cuda_round(to, f);
}

/* n elements, `step` bytes apart, to neighbours. The usual pairs of types have loops of their own, which vectorise. */
static void cast(const uint8_t *p, tfi_dtype from, int64_t step, int64_t n, void *out, tfi_dtype to)
{
    uint16_t *half = out;

    if (from == to && step == (int64_t)tfi_dtype_size(from)) {
        memcpy(out, p, (size_t)(n * step));
    } else if (from == TFI_F32 && step == 4 && to == TFI_F16) {
        for (int64_t i = 0; i < n; i++) half[i] = tfi_f32_to_f16(element(p + 4 * i, TFI_F32));
    } else if (from == TFI_F32 && step == 4 && to == TFI_BF16) {
        for (int64_t i = 0; i < n; i++) half[i] = tfi_f32_to_bf16(element(p + 4 * i, TFI_F32));
    } else {
        for (int64_t i = 0; i < n; i++) put(out, to, i, element(p + i * step, from));
    }
}

/* ---- matrices ---- */

typedef struct part {
    const tfi_tensor *tensor;   /* NULL: zeros */
    int64_t first, rows;        /* rows of the whole matrix */
    int64_t row_step, col_step; /* bytes */
} part;

typedef struct piece {
    const tfi_weight *w;
    part parts[TFI_WEIGHT_PARTS];
    int64_t begin, end; /* rows */
    char *out;          /* row `begin` */
} piece;

static const part *part_of(const piece *p, int64_t row)
{
    const part *q = p->parts;
    while (row >= q->first + q->rows) q++;
    return q;
}

static const uint8_t *address(const part *p, int64_t row, int64_t col)
{
    return p->tensor->data + (row - p->first) * p->row_step + col * p->col_step;
}

/* Rows [row, row + n) of a part, n at most TILE, where a column's elements are neighbours. */
static void turn(const piece *p, const part *q, int64_t row, int64_t n)
{
    const tfi_dtype to = p->w->dtype;
    const int64_t cols = p->w->cols, size = (int64_t)tfi_dtype_size(to);
    uint32_t tile[TILE_COLS][TILE];

    for (int64_t col = 0, count; col < cols; col += count) {
        char *out = p->out + ((row - p->begin) * cols + col) * size;
        count = cols - col < TILE_COLS ? cols - col : TILE_COLS;
        for (int64_t c = 0; c < count; c++) cast(address(q, row, col + c), q->tensor->dtype, q->row_step, n, tile[c], to);
        for (int64_t r = 0; r < n; r++, out += cols * size) {
            if (to == TFI_F32)
                for (int64_t c = 0; c < count; c++) memcpy(out + 4 * c, (const char *)tile[c] + 4 * r, 4);
            else
                for (int64_t c = 0; c < count; c++) memcpy(out + 2 * c, (const char *)tile[c] + 2 * r, 2);
        }
    }
}

static void cast_rows(void *arg, int index, int count)
{
    const piece *p = arg;
    const int64_t rows = p->end - p->begin, cols = p->w->cols, bytes = cols * (int64_t)tfi_dtype_size(p->w->dtype);
    const int64_t end = p->begin + rows * (index + 1) / count;

    for (int64_t row = p->begin + rows * index / count, n; row < end; row += n) {
        const part *q = part_of(p, row);
        n = q->first + q->rows < end ? q->first + q->rows - row : end - row;
        if (n > TILE) n = TILE;
        if (!q->tensor) {
            memset(p->out + (row - p->begin) * bytes, 0, (size_t)(n * bytes));
        } else if (q->col_step > q->row_step) {
            turn(p, q, row, n);
        } else {
            for (int64_t r = row; r < row + n; r++)
                cast(address(q, r, 0), q->tensor->dtype, q->col_step, cols, p->out + (r - p->begin) * bytes, p->w->dtype);
        }
    }
}

static tf_status open_parts(piece *p)
{
    const tfi_weight *w = p->w;
    int64_t first = 0;

    for (int i = 0; i < w->parts; first += w->part_rows[i++]) {
        const tfi_tensor *t = w->part[i];
        p->parts[i] = (part){.tensor = t, .first = first, .rows = w->part_rows[i]};
        if (!t) continue;
        if (t->rank < 1 || t->rank > 2)
            return tfi_fail(TF_STATUS_CORRUPT, "tensor %s has %d dimensions, 2 are expected", t->name, t->rank);
        const int64_t size = (int64_t)tfi_dtype_size(t->dtype);
        const int64_t outer = t->rank == 2 ? t->stride[0] * size : 0, inner = t->stride[t->rank - 1] * size;
        p->parts[i].row_step = w->transposed ? inner : outer;
        p->parts[i].col_step = w->transposed ? outer : inner;
    }
    return TF_STATUS_OK;
}

/* ---- to the device ---- */

static tf_status open_staging(tfi_cuda *c)
{
    tf_status st;

    if (c->staging) return TF_STATUS_OK;
    if (!(c->staging = tfi_cuda_alloc_pinned(c, c->memory, 2 * (int64_t)TFI_CUDA_STAGING))) return TF_STATUS_NOMEM;
    c->turn = 0;
    c->filled = 0;
    if ((st = TFI_CUDA(c, cudaStreamCreateWithFlags(&c->upload, cudaStreamNonBlocking))) < 0) return st;
    for (int i = 0; i < 2; i++)
        if ((st = TFI_CUDA(c, cudaEventCreateWithFlags(&c->uploaded[i], cudaEventDisableTiming))) < 0) return st;
    return TF_STATUS_OK;
}

tf_status tfi_cuda_load_end(tfi_backend *b)
{
    tfi_cuda *c = (tfi_cuda *)b;
    tf_status st;
    int entered;

    if (!c->staging) return TF_STATUS_OK;
    if ((entered = (st = tfi_cuda_enter(c)) == TF_STATUS_OK)) {
        if (c->upload) {
            st = TFI_CUDA(c, cudaStreamSynchronize(c->upload));
            (void)cudaStreamDestroy(c->upload);
        }
        for (int i = 0; i < 2; i++)
            if (c->uploaded[i]) (void)cudaEventDestroy(c->uploaded[i]);
    }
    c->upload = NULL;
    c->uploaded[0] = c->uploaded[1] = NULL;
    tfi_cuda_free_pinned(c, c->memory, c->staging, 2 * (int64_t)TFI_CUDA_STAGING);
    if (entered) tfi_cuda_leave(c);
    c->staging = NULL;
    return st;
}

/* Pinned room for the next bytes; at most TFI_CUDA_STAGING. */
static tf_status stage(tfi_cuda *c, int64_t bytes, void **out)
{
    tf_status st;

    if (bytes > TFI_CUDA_STAGING) return tfi_fail(TF_STATUS_UNSUPPORTED, "a row of %lld bytes is too long", (long long)bytes);
    if (c->filled + bytes > TFI_CUDA_STAGING) {
        if ((st = TFI_CUDA(c, cudaEventRecord(c->uploaded[c->turn], c->upload))) < 0) return st;
        c->turn ^= 1;
        c->filled = 0;
        if ((st = TFI_CUDA(c, cudaEventSynchronize(c->uploaded[c->turn]))) < 0) return st;
    }
    *out = c->staging + c->turn * (int64_t)TFI_CUDA_STAGING + c->filled;
    c->filled += tfi_cuda_aligned(bytes);
    return TF_STATUS_OK;
}

static tf_status send(tfi_cuda *c, const tfi_weight_form *form, int64_t offset, const void *from, int64_t bytes)
{
    return TFI_CUDA(c, cudaMemcpyAsync((char *)form->data + offset, from, (size_t)bytes, cudaMemcpyHostToDevice, c->upload));
}

/* From device to device, whichever they are; rows may lie further apart than they are long. */
static tf_status copy_rows(tfi_cuda *c, const piece *p, const tfi_weight_form *form, size_t row_bytes)
{
    tf_status st = TF_STATUS_OK;

    for (int i = 0; i < p->w->parts && st == TF_STATUS_OK; i++) {
        const part *q = &p->parts[i];
        char *to = (char *)form->data + (size_t)q->first * row_bytes;
        if (q->rows == 0 || row_bytes == 0) continue;
        const size_t step = q->rows > 1 ? (size_t)q->row_step : row_bytes;
        st = TFI_CUDA(c, cudaMemcpy2DAsync(to, row_bytes, q->tensor->data, step, row_bytes, (size_t)q->rows, cudaMemcpyDefault,
                                           c->upload));
    }
    return st;
}

/* A matrix in its own type, rows of neighbours that do not overlap. */
static int copies(const piece *p)
{
    const int64_t size = (int64_t)tfi_dtype_size(p->w->dtype), cols = p->w->cols;

    for (int i = 0; i < p->w->parts; i++) {
        const part *q = &p->parts[i];
        if (!q->tensor || !q->tensor->device || q->tensor->dtype != p->w->dtype) return 0;
        if ((cols > 1 && q->col_step != size) || (q->rows > 1 && q->row_step < cols * size)) return 0;
    }
    return !(p->w->readers & TFI_READ_BIAS);
}

static tf_status report(const tfi_load_hook *hook, int64_t bytes)
{
    if (!hook || !hook->report || hook->report(hook->user, bytes) == 0) return TF_STATUS_OK;
    return tfi_fail(TF_STATUS_CANCELLED, "loading was ended by the progress callback");
}

/* Bytes of source a row has, of any part. */
static int64_t source_row_bytes(const tfi_weight *w)
{
    int64_t most = 0;

    for (int i = 0; i < w->parts; i++) {
        const int64_t bytes = w->part[i] ? w->cols * (int64_t)tfi_dtype_size(w->part[i]->dtype) : 0;
        if (bytes > most) most = bytes;
    }
    return most;
}

static tf_status prepare_matrix(tfi_cuda *c, const tfi_weight *w, const tfi_weight_form *form, const tfi_load_hook *hook)
{
    const int64_t row_bytes = w->cols * (int64_t)tfi_dtype_size(w->dtype), source_row = source_row_bytes(w);
    const int64_t most = TFI_CUDA_STAGING / (source_row > row_bytes ? source_row : row_bytes), rows = most > 0 ? most : 1;
    piece p = {.w = w};
    void *out;
    tf_status st;

    if ((st = open_parts(&p)) < 0) return st;
    for (p.begin = 0; p.begin < w->rows; p.begin = p.end) {
        p.end = p.begin + rows < w->rows ? p.begin + rows : w->rows;
        if ((st = stage(c, (p.end - p.begin) * row_bytes, &out)) < 0) return tfi_fail_prefix(st, "weight %s: ", w->name);
        p.out = out;
        if ((st = tfi_pool_run(c->pool, cast_rows, &p)) < 0 ||
            (st = send(c, form, p.begin * row_bytes, out, (p.end - p.begin) * row_bytes)) < 0 ||
            (st = report(hook, p.end * source_row)) < 0)
            return st;
    }
    return TF_STATUS_OK;
}

/* Parts lie one behind the other, in whatever dimension has the elements. */
static void fill_vector(const tfi_weight *w, float *out)
{
    for (int i = 0; i < w->parts; out += w->part_rows[i++]) {
        const tfi_tensor *t = w->part[i];
        int along = 0;
        if (!t) {
            memset(out, 0, (size_t)w->part_rows[i] * sizeof *out);
            continue;
        }
        for (int d = 0; d < t->rank; d++)
            if (t->shape[d] > 1) along = d;
        const int64_t size = (int64_t)tfi_dtype_size(t->dtype), step = t->rank ? t->stride[along] * size : size;
        cast(t->data, t->dtype, step, w->part_rows[i], out, TFI_F32);
        for (int64_t k = 0; w->scale != 0 && k < w->part_rows[i]; k++) out[k] *= w->scale;
    }
}

/* A table by bucket becomes one by distance. */
static void fill_bias(const piece *p, float *out)
{
    const tfi_relative *r = &p->w->relative;
    const int64_t columns = distances(p->w);

    for (int64_t i = 0; i < columns; i++) {
        const int32_t bucket = tfi_relative_bucket(r, (int32_t)(i - r->max_distance));
        const part *q = part_of(p, bucket);
        for (int64_t h = 0; h < p->w->cols; h++)
            out[h * columns + i] = q->tensor ? element(address(q, bucket, h), q->tensor->dtype) : 0;
    }
}

static tf_status prepare_floats(tfi_cuda *c, const tfi_weight *w, const tfi_weight_form *form, const tfi_load_hook *hook)
{
    piece p = {.w = w};
    void *out;
    tf_status st;

    if ((st = stage(c, form->bytes, &out)) < 0) return tfi_fail_prefix(st, "weight %s: ", w->name);
    if (is_vector(w)) {
        fill_vector(w, out);
    } else {
        if ((st = open_parts(&p)) < 0) return st;
        fill_bias(&p, out);
    }
    if ((st = send(c, form, 0, out, form->bytes)) < 0) return st;
    return report(hook, w->rows * source_row_bytes(w));
}

static void advise(const tfi_weight *w, void (*advice)(const tfi_file *, size_t, size_t))
{
    for (int i = 0; i < w->parts; i++) {
        const tfi_tensor *t = w->part[i];
        if (t && t->file) advice(t->file, (size_t)(t->data - t->file->data), t->span);
    }
}

tf_status tfi_cuda_weight_copy(tfi_backend *b, const tfi_weight *w, const tfi_weight_form *form, int *done)
{
    tfi_cuda *c = (tfi_cuda *)b;
    piece p = {.w = w};
    tf_status st;

    *done = 0;
    if (is_vector(w)) return TF_STATUS_OK;
    if ((st = open_parts(&p)) < 0 || !copies(&p) || (st = tfi_cuda_enter(c)) < 0) return st;
    if ((st = open_staging(c)) == TF_STATUS_OK) st = copy_rows(c, &p, form, (size_t)w->cols * tfi_dtype_size(w->dtype));
    tfi_cuda_leave(c);
    *done = st == TF_STATUS_OK;
    return st < 0 ? tfi_fail_prefix(st, "weight %s: ", w->name) : st;
}

tf_status tfi_cuda_weight_prepare(tfi_backend *b, const tfi_weight *w, const tfi_weight_form *form, const tfi_load_hook *hook)
{
    tfi_cuda *c = (tfi_cuda *)b;
    tf_status st;

    if ((st = tfi_cuda_enter(c)) < 0) return st;
    advise(w, tfi_file_fetch);
    if ((st = open_staging(c)) == TF_STATUS_OK)
        st = is_vector(w) || w->readers & TFI_READ_BIAS ? prepare_floats(c, w, form, hook) : prepare_matrix(c, w, form, hook);
    advise(w, tfi_file_drop);
    tfi_cuda_leave(c);
    return st;
}
