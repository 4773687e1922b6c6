/* Values on their way to the caller: rows go to pinned memory in the order of the stream, and from there, as fp32, when that is
 * done. Rows that taps ask for are copied when they are computed or, few bytes of a graph, all of the values by its last launch:
 * they lie in the staging one behind the other, as the run's shape has them. */
#include <string.h>

#include "backend/cuda/program.h"
#include "base/status.h"

/* Not a number or infinite: the exponent's bits are all set. */
static int copy_row(const char *src, tfi_dtype type, int64_t n, float *dst)
{
    uint32_t bad = 0;

    for (int64_t i = 0; i < n; i++) {
        uint16_t half;
        if (type == TFI_F32) {
            memcpy(dst + i, src + 4 * i, sizeof *dst);
        } else {
            memcpy(&half, src + 2 * i, sizeof half);
            dst[i] = type == TFI_BF16 ? tfi_bf16_to_f32(half) : tfi_f16_to_f32(half);
        }
    }
    for (int64_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, dst + i, sizeof bits);
        bad |= (bits & 0x7f800000u) == 0x7f800000u;
    }
    return bad == 0;
}

static tf_status deliver(const tfi_program *p, const tfi_pending *n)
{
    const tfi_value *v = &p->graph->values[n->tap->value];
    const int64_t bytes = v->cols * (int64_t)tfi_dtype_size(v->dtype);

    for (int64_t i = 0; i < n->rows; i++) {
        float *dst = n->tap->dst + (n->first + i) * n->tap->stride;
        if (!copy_row(p->taps + n->at + i * bytes, v->dtype, v->cols, dst) && !n->tap->infinite)
            return tfi_fail(TF_STATUS_NUMERIC, "row %lld of %s holds a NaN or an infinity",
                            (long long)(n->tap->first + n->first + i), v->name);
    }
    return TF_STATUS_OK;
}

tf_status tfi_cuda_deliver_taps(tfi_pass *s)
{
    tfi_program *p = s->program;
    tf_status st = TF_STATUS_OK;

    for (int32_t i = 0; i < p->pending_count && st == TF_STATUS_OK; i++) st = deliver(p, &p->pending[i]);
    p->pending_count = 0;
    p->taps_filled = 0;
    return st;
}

static tf_status send(const tfi_pass *s, char *to, const char *from, int64_t bytes)
{
    const tfi_rows_args a = {from, to, bytes};

    if (bytes <= TFI_ROWS_GIVEN && ((uintptr_t)from | (uintptr_t)to | (uintptr_t)bytes) % 16 == 0)
        return tfi_cuda_give_rows(&a, s->stream);
    return TFI_CUDA(s->program->cuda, cudaMemcpyAsync(to, from, (size_t)bytes, cudaMemcpyDeviceToHost, s->stream));
}

static tf_status take(tfi_pass *s, const tfi_tap *tap)
{
    tfi_program *p = s->program;
    const tfi_value *v = &p->graph->values[tap->value];
    const int64_t bytes = v->cols * (int64_t)tfi_dtype_size(v->dtype);
    const int64_t count = tap->count ? tap->count : tfi_cuda_live_rows(p, s->run, tap->value);
    tf_status st;

    for (int64_t first = 0, rows; first < count; first += rows) {
        rows = (TFI_TAP_STAGING - p->taps_filled) / bytes;
        if (rows > count - first) rows = count - first;
        if (rows == 0 || p->pending_count == TFI_TAPS_PENDING) {
            rows = 0;
            if (p->pending_count == 0)
                return tfi_fail(TF_STATUS_UNSUPPORTED, "a row of %s has %lld bytes: too long", v->name, (long long)bytes);
            if ((st = TFI_CUDA(p->cuda, cudaStreamSynchronize(s->stream))) < 0 || (st = tfi_cuda_deliver_taps(s)) < 0)
                return st;
            continue;
        }
        p->pending[p->pending_count++] = (tfi_pending){tap, first, rows, p->taps_filled};
        const char *from = tfi_cuda_value(p, tap->value) + (tap->first + first) * bytes;
        if ((st = send(s, p->taps + p->taps_filled, from, rows * bytes)) < 0) return st;
        p->taps_filled += rows * bytes;
    }
    return TF_STATUS_OK;
}

tf_status tfi_cuda_take_taps(tfi_pass *s, int32_t value)
{
    tf_status st;

    for (int32_t i = 0; i < s->run->tap_count; i++)
        if (s->run->taps[i].value == value && (st = take(s, &s->run->taps[i])) < 0) return st;
    return TF_STATUS_OK;
}

/* A run that draws waits for its choices anyway. */
void tfi_cuda_plan_results(tfi_pass *s)
{
    const tfi_program *p = s->program;
    tfi_results_args *r = &s->results;
    int64_t at = 0;

    *r = (tfi_results_args){.number = p->finished};
    if (s->run->draw_count > 0 || s->run->tap_count > TFI_TAPS_PENDING) return;
    for (int32_t i = 0; i < p->graph->value_count; i++) {
        const tfi_value *v = &p->graph->values[i];
        const int64_t bytes = (s->shape.rows[v->rows] * v->cols * (int64_t)tfi_dtype_size(v->dtype) + 15) / 16 * 16;
        if (!(p->wanted[i] & TFI_WANTED_BY_TAP)) continue;
        if (r->count == TFI_RESULTS || at + bytes > TFI_ROWS_GIVEN) {
            r->count = 0;
            return;
        }
        r->rows[r->count++] = (tfi_rows_args){tfi_cuda_value(p, i), p->taps + at, bytes};
        at += bytes;
    }
}

void tfi_cuda_expect_results(tfi_pass *s)
{
    tfi_program *p = s->program;

    for (int32_t i = 0; i < s->run->tap_count; i++) {
        const tfi_tap *tap = &s->run->taps[i];
        const tfi_value *v = &p->graph->values[tap->value];
        const int64_t rows = tap->count ? tap->count : tfi_cuda_live_rows(p, s->run, tap->value);
        const tfi_rows_args *r = s->results.rows;
        while (r->from != tfi_cuda_value(p, tap->value)) r++;
        const int64_t at = (char *)r->to - p->taps + tap->first * v->cols * (int64_t)tfi_dtype_size(v->dtype);
        p->pending[p->pending_count++] = (tfi_pending){tap, 0, rows, at};
    }
}
