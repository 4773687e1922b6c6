/* ATTENTION, vectorised; meaning: backend/ref/attention.c.
 *
 * Shapes    packed sequences of any length, any H, D in [1, 256]; x and y F32 or BF16, the store either. Sums, scores and
 *           softmax in fp32.
 * Ways      few rows of a sequence that attend to the store read it as it lies (attention_few_tmpl.h); all others pack keys
 *           and values and use products of tiles (attention_many_tmpl.h). Packing pays from 5 to 8 rows on.
 * Workers   the rows of all (sequence, head) in order are cut into shares of equal cost (a row costs the keys it sees), so no
 *           long sequence keeps the others waiting; the two owners of a cut head each pack it.
 * Order     the arithmetic of a row depends on its own sequence alone: the same bits in any batch, for any workers.
 */

#include "backend/cpu/attention_head_tmpl.h"

#include "backend/cpu/attention_few_tmpl.h"
#include "backend/cpu/attention_many_tmpl.h"

enum { FEW_ROWS = 4 };

/* Decided by the sequence alone, so that its rows get the same bits in any run. */
TFI_INLINE int is_few(const head_state *s)
{
    return s->stored && s->rows <= FEW_ROWS;
}

TFI_INLINE void head_state_set(head_state *s, const tfi_attention_args *a, int64_t b, float *scratch)
{
    const int64_t first = a->offsets[b], rows = a->offsets[b + 1] - first;
    const int stored = a->attend == TFI_ATTEND_CACHE || a->attend == TFI_ATTEND_SOURCE;
    const int64_t T = stored ? a->kv.lens[b] : rows;
    const tfi_attention_layout at = tfi_attention_layout_of(T, a->D);
    const int64_t vecs = (a->D + VEC - 1) / VEC, panels = (vecs + TILE_VECS - 1) / TILE_VECS;

    *s = (head_state){.args = a, .sequence = b, .first = first, .rows = rows, .T = T, .D = a->D, .width = vecs * VEC};
    s->causal = a->attend == TFI_ATTEND_CAUSAL || a->attend == TFI_ATTEND_CACHE;
    s->stored = stored;
    s->number = a->attend == TFI_ATTEND_CACHE ? T - rows : 0;
    s->depth = (s->D + PER_ELEMENT - 1) / PER_ELEMENT;
    s->key_depth = (T + PER_ELEMENT - 1) / PER_ELEMENT;
    s->value_vecs = (vecs + panels - 1) / panels;
    s->factor = (float)((double)a->scale * 1.4426950408889634);
    s->keys = scratch + at.keys;
    s->values = scratch + at.values;
    s->queries = scratch + at.queries;
    s->scores = scratch + at.scores;
    s->outputs = scratch + at.outputs;
    s->bias = scratch + at.bias;
    s->max = scratch + at.max;
    s->sum = scratch + at.sum;
}

/* Query rows [begin, end) of the head. */
TFI_INLINE void attend(const head_state *s, tfi_op_types t, int64_t begin, int64_t end)
{
    if (s->T == 0) {
        for (int64_t row = begin; row < end; row++) {
            for (int64_t d = 0; d < s->D; d++)
                tfi_put(s->args->y, t.y, ((s->first + row) * s->args->H + s->head) * s->D + d, 0);
        }
    } else if (is_few(s)) {
        for (int64_t row = begin; row < end; row++) attend_few(s, t, row);
    } else {
        attend_many(s, t, begin, end);
    }
}

/* ---- workers ---- */

/* Cost of a head's first n rows: the keys of each, and what a row costs without them (packing, output). */
TFI_INLINE int64_t rows_cost(const head_state *s, int64_t n)
{
    return n * (keys_of(s, 0) + 48) + (s->causal ? n * (n - 1) / 2 : 0);
}

/* The first row of a head whose rows begin at `base` on the scale of costs that lies at or behind `cost`; whole tiles of rows.
 */
TFI_INLINE int64_t row_behind(const head_state *s, int64_t cost, int64_t base)
{
    const int64_t unit = is_few(s) ? 1 : TILE_ROWS;
    int64_t low = 0, high = (s->rows + unit - 1) / unit;

    while (low < high) {
        const int64_t middle = (low + high) / 2;
        if (base + rows_cost(s, middle * unit) < cost) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return at_most(s->rows, low * unit);
}

TFI_INLINE void attention(const tfi_attention_args *a, const tfi_worker *w, tfi_op_types t)
{
    int64_t total = 0, base = 0, begin, end;
    head_state s;

    for (int64_t b = 0; b < a->B; b++) {
        head_state_set(&s, a, b, w->scratch);
        total += rows_cost(&s, s.rows) * a->H;
    }
    tfi_share(w, total, &begin, &end);
    for (int64_t b = 0; b < a->B; b++) {
        head_state_set(&s, a, b, w->scratch);
        const int64_t cost = rows_cost(&s, s.rows);
        for (s.head = 0; s.head < a->H; s.head++, base += cost) {
            const int64_t from = row_behind(&s, begin, base), to = row_behind(&s, end, base);
            if (from < to) attend(&s, t, from, to);
        }
    }
}
