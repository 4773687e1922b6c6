/* Making weights resident: every stored type and order in, one packed or plain form out, by all workers at once and piece by
 * piece, so that the source's pages need not all be in memory at the same time. */
#include <string.h>

#include "backend/cpu/cpu.h"
#include "base/status.h"

enum {
    PIECE_BYTES = 32 << 20, /* of source between two reports */
    STAGE_UNITS = 64,       /* of a block's rows converted before they are interleaved: 16 KB, first-level cache */
    CHUNK_UNITS = 1024      /* what a worker packs of a block at a time */
};

typedef struct part {
    const tfi_tensor *tensor;   /* NULL: zeros */
    int64_t first, rows;        /* rows of the whole matrix */
    int64_t row_step, col_step; /* bytes */
} part;

typedef struct matrix {
    const tfi_weight *w;
    const tfi_weight_form *form;
    const tfi_linear_tier *tier;
    part parts[TFI_WEIGHT_PARTS];
} matrix;

/* Rows and cols of the matrix, half-open. */
typedef struct piece {
    int64_t row_begin, row_end, col_begin, col_end;
} piece;

typedef struct piece_job {
    const matrix *m;
    piece p;
} piece_job;

static tf_status check_tensor(const tfi_weight *w, const tfi_tensor *t)
{
    if (!t || t->dtype <= TFI_F64) return TF_STATUS_OK;
    return tfi_fail(TF_STATUS_UNSUPPORTED, "tensor %s of weight %s: %s is no type for weights", t->name, w->name,
                    tfi_dtype_name(t->dtype));
}

static int is_vector(const tfi_weight *w)
{
    return (w->readers & (TFI_READ_LINEAR | TFI_READ_ROWS | TFI_READ_BIAS)) == 0;
}

/* Columns of the resident form of a bias by distance. */
static int64_t distances(const tfi_weight *w)
{
    return 2 * (int64_t)w->relative.max_distance + 1;
}

/* The host's own memory, where it stays and is what the plain form would be; NULL: it is not. */
static void *lent(const tfi_weight *w)
{
    const tfi_tensor *t = w->part[0];
    const tfi_dtype dtype = is_vector(w) ? TFI_F32 : w->dtype;

    if (w->parts != 1 || !t || !t->lasting || t->device || t->dtype != dtype || !tfi_tensor_is_contiguous(t)) return NULL;
    if (w->readers & (TFI_READ_LINEAR | TFI_READ_BIAS) || w->transposed || w->scale != 0) return NULL;
    return (uintptr_t)t->data % tfi_dtype_size(dtype) == 0 ? (void *)t->data : NULL;
}

tf_status tfi_cpu_weight_form(tfi_backend *b, const tfi_weight *w, tfi_weight_form *form)
{
    const tfi_cpu *cpu = (const tfi_cpu *)b;
    int64_t rows = w->rows, units = w->cols, unit_bytes = (int64_t)tfi_dtype_size(is_vector(w) ? TFI_F32 : w->dtype);
    tf_status status;

    *form = (tfi_weight_form){.layout = TFI_LAYOUT_PLAIN};
    if (!is_vector(w) && (status = b->supports(b, w->dtype)) < 0) return tfi_fail_prefix(status, "weight %s: ", w->name);
    for (int i = 0; i < w->parts; i++)
        if ((status = check_tensor(w, w->part[i])) < 0) return status;
    if ((form->data = lent(w))) return TF_STATUS_OK;
    if (w->readers & TFI_READ_BIAS) rows = distances(w);
    if ((w->readers & TFI_READ_LINEAR) && !cpu->reference) form->layout = tfi_linear_layout(cpu->linear, w->dtype);
    if (form->layout != TFI_LAYOUT_PLAIN) {
        rows = (rows + TFI_BLOCK - 1) / TFI_BLOCK * TFI_BLOCK;
        units = tfi_packed_units(form->layout, units);
        unit_bytes = 4;
    }
    if (__builtin_mul_overflow(rows, units, &form->bytes) || __builtin_mul_overflow(form->bytes, unit_bytes, &form->bytes))
        return tfi_fail(TF_STATUS_NOMEM, "weight %s: [%lld, %lld] is more than memory can hold", w->name, (long long)w->rows,
                        (long long)w->cols);
    return TF_STATUS_OK;
}

/* ---- elements ---- */

/* As tfi_f16_to_f32, without branches, so that loops over it vectorise: multiplying moves the exponent to its place and turns
 * fp16's subnormals into normal numbers. */
static inline float half(uint16_t h)
{
    const uint32_t magnitude = (uint32_t)(h & 0x7fff) << 13, infinite = (h & 0x7c00) == 0x7c00 ? 0x7f800000u : 0;
    uint32_t bits = magnitude;
    float f;

    memcpy(&f, &bits, sizeof f);
    f *= 0x1p112f;
    memcpy(&bits, &f, sizeof bits);
    bits |= infinite | (uint32_t)(h & 0x8000) << 16;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static inline float element(const uint8_t *p, tfi_dtype t)
{
    uint16_t h;
    float f;
    double d;

    switch (t) {
    case TFI_F32:
        memcpy(&f, p, sizeof f);
        return f;
    case TFI_F64:
        memcpy(&d, p, sizeof d);
        return (float)d;
    case TFI_BF16:
        memcpy(&h, p, sizeof h);
        return tfi_bf16_to_f32(h);
    default:
        memcpy(&h, p, sizeof h);
        return half(h);
    }
}

static inline void read_floats(const uint8_t *p, tfi_dtype from, int64_t step, int64_t n, float *out)
{
    for (int64_t i = 0; i < n; i++) out[i] = element(p + i * step, from);
}

/* The contiguous cases have loops of their own, which vectorise. */
static void to_floats(const uint8_t *p, tfi_dtype from, int64_t step, int64_t n, float *out)
{
    if (from == TFI_F32 && step == 4) {
        memcpy(out, p, (size_t)n * sizeof *out);
    } else if (from == TFI_BF16 && step == 2) {
        read_floats(p, TFI_BF16, 2, n, out);
    } else if (from == TFI_F16 && step == 2) {
        read_floats(p, TFI_F16, 2, n, out);
    } else {
        read_floats(p, from, step, n, out);
    }
}

static void to_bf16(const tfi_linear_tier *tier, const uint8_t *p, tfi_dtype from, int64_t step, int64_t n, uint16_t *out)
{
    float some[256];

    if (from == TFI_BF16 && step == 2) {
        memcpy(out, p, (size_t)n * sizeof *out);
    } else if (from == TFI_F32 && step == 4) {
        tier->round(p, n, out);
    } else {
        for (int64_t i = 0; i < n; i += 256) {
            const int64_t count = n - i < 256 ? n - i : 256;
            to_floats(p + i * step, from, step, count, some);
            tier->round(some, count, out + i);
        }
    }
}

static const part *part_of(const matrix *m, int64_t row)
{
    const part *p = m->parts;
    while (row >= p->first + p->rows) p++;
    return p;
}

static const uint8_t *address(const part *p, int64_t row, int64_t col)
{
    return p->tensor->data + (row - p->first) * p->row_step + col * p->col_step;
}

/* Elements [col, col + n) of a row, in the weight's dtype. */
static void read_row(const matrix *m, int64_t row, int64_t col, int64_t n, void *out)
{
    const part *p = part_of(m, row);

    if (!p->tensor) {
        memset(out, 0, (size_t)n * tfi_dtype_size(m->w->dtype));
    } else if (m->w->dtype == TFI_BF16) {
        to_bf16(m->tier, address(p, row, col), p->tensor->dtype, p->col_step, n, out);
    } else {
        to_floats(address(p, row, col), p->tensor->dtype, p->col_step, n, out);
    }
}

/* ---- packing ---- */

/* Elements [row, row + n) of a column of a part stored [inputs, outputs], where they are neighbours, in the weight's dtype. */
static void read_column(const matrix *m, const part *p, int64_t row, int64_t col, int64_t n, void *out)
{
    if (m->w->dtype == TFI_BF16) {
        to_bf16(m->tier, address(p, row, col), p->tensor->dtype, p->row_step, n, out);
    } else {
        to_floats(address(p, row, col), p->tensor->dtype, p->row_step, n, out);
    }
}

static int lies_in_columns(const part *p)
{
    return p->tensor && p->row_step == (int64_t)tfi_dtype_size(p->tensor->dtype) && p->col_step > p->row_step;
}

/* Of a part stored [inputs, outputs]: a column is a unit as it is, or half of one. */
static void pack_columns(const matrix *m, const part *p, int64_t row, int64_t live, int64_t begin, int64_t end, uint32_t *out)
{
    const int64_t cols = m->w->cols;

    for (int64_t u = begin; u < end; u++, out += TFI_BLOCK) {
        uint16_t half[2][TFI_BLOCK] = {{0}};
        if (m->w->dtype == TFI_F32) {
            memset(out, 0, TFI_BLOCK * sizeof *out);
            if (u < cols) read_column(m, p, row, u, live, out);
            continue;
        }
        for (int i = 0; i < 2 && 2 * u + i < cols; i++) read_column(m, p, row, 2 * u + i, live, half[i]);
        for (int r = 0; r < TFI_BLOCK; r++) out[r] = half[0][r] | (uint32_t)half[1][r] << 16;
    }
}

/* Units [begin, end) of a block of rows. */
static void pack_block(const matrix *m, int64_t block, int64_t begin, int64_t end)
{
    const int64_t size = (int64_t)tfi_dtype_size(m->w->dtype), unit = 4 / size, row = block * TFI_BLOCK;
    const int64_t live = m->w->rows - row < TFI_BLOCK ? m->w->rows - row : TFI_BLOCK;
    const part *p = part_of(m, row);
    uint32_t *out = (uint32_t *)m->form->data + (block * tfi_packed_units(m->form->layout, m->w->cols) + begin) * TFI_BLOCK;

    if (p->tensor && p->tensor->dtype == m->w->dtype && p->col_step == size && row + TFI_BLOCK <= p->first + p->rows &&
        end * unit <= m->w->cols) {
        m->tier->pack(address(p, row, begin * unit), p->row_step, end - begin, out);
        return;
    }
    if (lies_in_columns(p) && row + live <= p->first + p->rows) {
        pack_columns(m, p, row, live, begin, end, out);
        return;
    }
    for (int64_t u = begin; u < end; u += STAGE_UNITS) {
        _Alignas(64) uint32_t stage[TFI_BLOCK][STAGE_UNITS] = {{0}};
        const int64_t units = end - u < STAGE_UNITS ? end - u : STAGE_UNITS, left = m->w->cols - u * unit;
        const int64_t n = left < units * unit ? left : units * unit;
        if (n > 0)
            for (int64_t r = 0; r < live; r++) read_row(m, row + r, u * unit, n, stage[r]);
        m->tier->pack(stage, sizeof stage[0], units, out + (u - begin) * TFI_BLOCK);
    }
}

/* The bytes of a part inside a piece: strides are not negative, so they lie between its first and last element. */
static int byte_range(const part *p, const piece *q, size_t *begin, size_t *size)
{
    const int64_t row = q->row_begin > p->first ? q->row_begin : p->first;
    const int64_t end = q->row_end < p->first + p->rows ? q->row_end : p->first + p->rows;

    if (!p->tensor || !p->tensor->file || row >= end || q->col_begin >= q->col_end) return 0;
    const uint8_t *first = address(p, row, q->col_begin), *last = address(p, end - 1, q->col_end - 1);
    *begin = (size_t)(first - p->tensor->file->data);
    *size = (size_t)(last - first) + tfi_dtype_size(p->tensor->dtype);
    return 1;
}

static void for_pages(const matrix *m, const piece *q, void (*advise)(const tfi_file *, size_t, size_t))
{
    size_t begin, size;

    for (int i = 0; i < m->w->parts; i++)
        if (byte_range(&m->parts[i], q, &begin, &size)) advise(m->parts[i].tensor->file, begin, size);
}

static void pack_share(const piece_job *j, const tfi_worker *w)
{
    const matrix *m = j->m;
    const int64_t unit = 4 / (int64_t)tfi_dtype_size(m->w->dtype), units = tfi_packed_units(m->form->layout, m->w->cols);
    const int64_t first_block = j->p.row_begin / TFI_BLOCK, blocks = (j->p.row_end + TFI_BLOCK - 1) / TFI_BLOCK - first_block;
    const int64_t begin = j->p.col_begin / unit, end = j->p.col_end == m->w->cols ? units : j->p.col_end / unit;
    const int64_t chunks = (end - begin + CHUNK_UNITS - 1) / CHUNK_UNITS;
    const int64_t item_begin = blocks * chunks * w->index / w->count, item_end = blocks * chunks * (w->index + 1) / w->count;

    if (item_begin == item_end) return;
    piece mine = j->p;
    mine.row_begin = (first_block + item_begin / chunks) * TFI_BLOCK;
    mine.row_end = (first_block + (item_end - 1) / chunks + 1) * TFI_BLOCK;
    if (mine.row_end > j->p.row_end) mine.row_end = j->p.row_end;
    for_pages(m, &mine, tfi_file_fetch);
    for (int64_t i = item_begin; i < item_end; i++) {
        const int64_t from = begin + i % chunks * CHUNK_UNITS, to = from + CHUNK_UNITS < end ? from + CHUNK_UNITS : end;
        pack_block(m, first_block + i / chunks, from, to);
    }
}

/* Rows [row, row + n) of a plain form from a part stored [inputs, outputs], by squares that the first-level cache holds. */
static void copy_columns(const matrix *m, const part *p, int64_t row, int64_t n, int64_t begin, int64_t end)
{
    const int bf16 = m->w->dtype == TFI_BF16;
    uint32_t stage[TFI_BLOCK][TFI_BLOCK]; /* of TFI_BF16 the first half of each row */

    for (int64_t col = begin; col < end; col += TFI_BLOCK) {
        const int64_t some = end - col < TFI_BLOCK ? end - col : TFI_BLOCK;
        for (int64_t c = 0; c < some; c++) read_column(m, p, row, col + c, n, stage[c]);
        for (int64_t r = 0; r < n; r++) {
            const int64_t at = (row + r) * m->w->cols + col;
            for (int64_t c = 0; c < some; c++) {
                if (bf16) {
                    memcpy((uint16_t *)m->form->data + at + c, (uint16_t *)(void *)stage[c] + r, sizeof(uint16_t));
                } else {
                    ((uint32_t *)m->form->data)[at + c] = stage[c][r];
                }
            }
        }
    }
}

static void copy_share(const piece_job *j, const tfi_worker *w)
{
    const matrix *m = j->m;
    const int64_t size = (int64_t)tfi_dtype_size(m->w->dtype), rows = j->p.row_end - j->p.row_begin;
    piece mine = j->p;

    mine.row_begin = j->p.row_begin + rows * w->index / w->count;
    mine.row_end = j->p.row_begin + rows * (w->index + 1) / w->count;
    for_pages(m, &mine, tfi_file_fetch);
    for (int64_t row = mine.row_begin, n = 1; row < mine.row_end; row += n) {
        const part *p = part_of(m, row);
        n = 1;
        if (lies_in_columns(p)) {
            const int64_t end = p->first + p->rows < mine.row_end ? p->first + p->rows : mine.row_end;
            n = end - row < TFI_BLOCK ? end - row : TFI_BLOCK;
            copy_columns(m, p, row, n, mine.col_begin, mine.col_end);
        } else {
            read_row(m, row, mine.col_begin, mine.col_end - mine.col_begin,
                     (char *)m->form->data + (row * m->w->cols + mine.col_begin) * size);
        }
    }
}

static void prepare_piece(void *arg, int index, int count)
{
    const piece_job *j = arg;
    const tfi_worker w = {.index = index, .count = count};

    if (j->m->form->layout == TFI_LAYOUT_PLAIN) {
        copy_share(j, &w);
    } else {
        pack_share(j, &w);
    }
}

/* ---- the whole weight ---- */

/* Steps between rows and columns as the graph sees them, whichever way the tensor is stored. */
static tf_status open_part(const tfi_weight *w, int i, int64_t first, part *out)
{
    const tfi_tensor *t = w->part[i];

    *out = (part){.tensor = t, .first = first, .rows = w->part_rows[i]};
    if (!t) return TF_STATUS_OK;
    if (t->rank < 1 || t->rank > 2)
        return tfi_fail(TF_STATUS_CORRUPT, "tensor %s has %d dimensions, 2 are expected", t->name, t->rank);
    const int64_t size = (int64_t)tfi_dtype_size(t->dtype);
    const int64_t outer = t->rank == 2 ? t->stride[0] * size : 0, inner = t->stride[t->rank - 1] * size;
    out->row_step = w->transposed ? inner : outer;
    out->col_step = w->transposed ? outer : inner;
    return TF_STATUS_OK;
}

/* Pieces cut the way the source lies in memory: by rows, or by columns if a column's elements are neighbours. */
static piece next_piece(const matrix *m, piece last)
{
    const part *p = m->parts;
    const int64_t rows = m->w->rows, cols = m->w->cols;

    while (p + 1 < m->parts + m->w->parts && !p->tensor) p++;
    const int64_t size = p->tensor ? (int64_t)tfi_dtype_size(p->tensor->dtype) : 4;
    if (p->row_step >= p->col_step) {
        const int64_t step = PIECE_BYTES / (cols * size) / TFI_BLOCK * TFI_BLOCK;
        const int64_t end = last.row_end + (step ? step : TFI_BLOCK);
        return (piece){.row_begin = last.row_end, .row_end = end < rows ? end : rows, .col_end = cols};
    }
    const int64_t step = PIECE_BYTES / (rows * size) / STAGE_UNITS * STAGE_UNITS;
    const int64_t end = last.col_end + (step ? step : STAGE_UNITS);
    return (piece){.row_end = rows, .col_begin = last.col_end, .col_end = end < cols ? end : cols};
}

static int64_t source_bytes(const matrix *m, const piece *q)
{
    int64_t bytes = 0;

    for (int i = 0; i < m->w->parts; i++) {
        const part *p = &m->parts[i];
        const int64_t row = q->row_begin > p->first ? q->row_begin : p->first;
        const int64_t end = q->row_end < p->first + p->rows ? q->row_end : p->first + p->rows;
        if (p->tensor && end > row)
            bytes += (end - row) * (q->col_end - q->col_begin) * (int64_t)tfi_dtype_size(p->tensor->dtype);
    }
    return bytes;
}

static tf_status report(const tfi_load_hook *hook, int64_t bytes)
{
    if (!hook || !hook->report || hook->report(hook->user, bytes) == 0) return TF_STATUS_OK;
    return tfi_fail(TF_STATUS_CANCELLED, "loading was ended by the progress callback");
}

static tf_status prepare_matrix(tfi_pool *pool, const matrix *m, const tfi_load_hook *hook)
{
    piece_job job = {.m = m};
    int64_t done = 0;
    tf_status status;

    while (job.p.row_end < m->w->rows || job.p.col_end < m->w->cols) {
        job.p = next_piece(m, job.p);
        if ((status = tfi_pool_run(pool, prepare_piece, &job)) < 0) return status;
        for_pages(m, &job.p, tfi_file_drop);
        done += source_bytes(m, &job.p);
        if ((status = report(hook, done)) < 0) return status;
    }
    return TF_STATUS_OK;
}

/* Vectors are small: the caller copies them. Their parts lie one behind the other, in whatever dimension has the elements. */
static tf_status prepare_vector(const tfi_weight *w, const tfi_weight_form *form, const tfi_load_hook *hook)
{
    float *out = form->data;
    int64_t done = 0;

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
        to_floats(t->data, t->dtype, step, w->part_rows[i], out);
        for (int64_t k = 0; w->scale != 0 && k < w->part_rows[i]; k++) out[k] *= w->scale;
        if (t->file) tfi_file_drop(t->file, (size_t)(t->data - t->file->data), t->span);
        done += w->part_rows[i] * size;
    }
    return report(hook, done);
}

/* A table by bucket becomes one by distance. */
static void prepare_bias(const matrix *m)
{
    const tfi_relative *r = &m->w->relative;
    const int64_t columns = distances(m->w);
    float *out = m->form->data;

    for (int64_t i = 0; i < columns; i++) {
        const int32_t bucket = tfi_relative_bucket(r, (int32_t)(i - r->max_distance));
        const part *p = part_of(m, bucket);
        for (int64_t h = 0; h < m->w->cols; h++)
            out[h * columns + i] = p->tensor ? element(address(p, bucket, h), p->tensor->dtype) : 0;
    }
    for (int i = 0; i < m->w->parts; i++) {
        const tfi_tensor *t = m->w->part[i];
        if (t && t->file) tfi_file_drop(t->file, (size_t)(t->data - t->file->data), t->span);
    }
}

tf_status tfi_cpu_weight_prepare(tfi_backend *b, const tfi_weight *w, const tfi_weight_form *form, const tfi_load_hook *hook)
{
    const tfi_cpu *cpu = (const tfi_cpu *)b;
    matrix m = {.w = w, .form = form, .tier = tfi_linear_tier_for(cpu->features)};
    int64_t first = 0;
    tf_status status;

    if (is_vector(w)) return prepare_vector(w, form, hook);
    for (int i = 0; i < w->parts; i++) {
        if ((status = open_part(w, i, first, &m.parts[i])) < 0) return status;
        first += w->part_rows[i];
    }
    if (w->readers & TFI_READ_BIAS) {
        const piece all = {.row_end = w->rows, .col_end = w->cols};
        prepare_bias(&m);
        return report(hook, source_bytes(&m, &all));
    }
    return prepare_matrix(cpu->pool, &m, hook);
}
