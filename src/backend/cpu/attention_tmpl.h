/* ATTENTION, vectorised; meaning: backend/ref/attention.c.
 *
 * Shapes    packed sequences of any length, any H, D in [1, 256]; x and y F32 or BF16. Sums, scores and softmax in fp32;
 *           products of fp32 elements, or of bf16 pairs (operand_*.h), where the numerators P are rounded to bf16 too.
 * Work      one (sequence, head) after the other. Its keys are packed once, transposed, in panels [D][PANEL]; its values
 *           in panels [T][up to PANEL]. Then, for 48 query rows at a time and 512 keys at a time: scores S = Q K^T,
 *           softmax numerators P in place of S, O += P V. Sequences over 512 keys carry each row's running maximum and
 *           sum from one chunk to the next (Milakov, Gimelshein 2018); shorter ones have one chunk. O is divided by its
 *           sum once, at the end.
 * Products  C[rows][vecs] (+)= A[rows][depth] B[depth][vecs] on tiles of TILE_ROWS x TILE_VECS registers: an element of A
 *           is broadcast against TILE_VECS vectors of B. 48 rows share a panel of K in the first-level cache; 128 rows of
 *           V lie there at a time.
 * Workers   the rows of all (sequence, head) in order are cut into shares of equal cost (a row costs its sequence's
 *           length), so no long sequence keeps the others waiting; the two owners of a cut head each pack it.
 * Order     the arithmetic of a row depends on its own sequence alone: the same bits in any batch, for any workers.
 * Measured  GFLOP/s of one Zen 5 core (fp32 peak 260), H = 12, D = 64, by `ops --bench`:
 *           sequence length          16    128    512   2048   16..512 mixed
 *           AVX2, fp32               59     96    107    105    97
 *           AVX-512, fp32            94    181    208    206   190
 *           AVX512_BF16, bf16       124    294    332    337   299
 * Tried     96 query rows at a time, 64 rows of V: within 3 %. Scaling the queries instead of the scores: level,
 *           but bf16 queries would have to be rounded twice. clang leaves the tiles in memory, 4 times slower, where the
 *           loops over them are not told to unroll.
 */

enum { PANEL = TILE_VECS * VEC, VALUE_ROWS = 128 };

_Static_assert(TFI_ATTENTION_PAD % PANEL == 0 && TFI_ATTENTION_KEYS % PANEL == 0 && VEC <= 16, "layout of the scratch");

/* ---- products ---- */

/* C = A B, or C += A B with `add`, for a tile of constant size; b and c advance by ldb and ldc a row. */
TFI_INLINE void tile(const float *a, int64_t lda, const float *b, int64_t ldb, float *c, int64_t ldc, int64_t depth, int add,
                     const int rows, const int vecs)
{
    vec sum[TILE_ROWS][TILE_VECS];

    TFI_UNROLL
    for (int r = 0; r < rows; r++) {
        TFI_UNROLL
        for (int v = 0; v < vecs; v++) sum[r][v] = add ? vec_load(c + r * ldc + v * VEC) : vec_set(0);
    }
    for (int64_t k = 0; k < depth; k++) {
        vec row[TILE_VECS];
        TFI_UNROLL
        for (int v = 0; v < vecs; v++) row[v] = vec_load(b + k * ldb + v * VEC);
        TFI_UNROLL
        for (int r = 0; r < rows; r++) {
            const vec element = vec_set(a[r * lda + k]);
            TFI_UNROLL
            for (int v = 0; v < vecs; v++) sum[r][v] = operand_fma(element, row[v], sum[r][v]);
        }
    }
    TFI_UNROLL
    for (int r = 0; r < rows; r++) {
        TFI_UNROLL
        for (int v = 0; v < vecs; v++) vec_store(c + r * ldc + v * VEC, sum[r][v]);
    }
}

/* Any number of rows against one panel of `vecs` vectors, a constant. */
TFI_INLINE void product_of(const float *a, int64_t lda, const float *b, int64_t ldb, float *c, int64_t ldc, int64_t depth,
                           int add, int64_t rows, const int vecs)
{
    for (; rows >= TILE_ROWS; rows -= TILE_ROWS, a += TILE_ROWS * lda, c += TILE_ROWS * ldc)
        tile(a, lda, b, ldb, c, ldc, depth, add, TILE_ROWS, vecs);
    switch (rows) {
    case 1:
        tile(a, lda, b, ldb, c, ldc, depth, add, 1, vecs);
        break;
    case 2:
        tile(a, lda, b, ldb, c, ldc, depth, add, 2, vecs);
        break;
    case 3:
        tile(a, lda, b, ldb, c, ldc, depth, add, 3, vecs);
        break;
    case 4:
        tile(a, lda, b, ldb, c, ldc, depth, add, 4, vecs);
        break;
    case 5:
        tile(a, lda, b, ldb, c, ldc, depth, add, 5, vecs);
        break;
    default:
        break;
    }
}

static void product(const float *a, int64_t lda, const float *b, int64_t ldb, float *c, int64_t ldc, int64_t depth, int add,
                    int64_t rows, int64_t vecs)
{
    switch (vecs) {
    case 1:
        product_of(a, lda, b, ldb, c, ldc, depth, add, rows, 1);
        break;
    case 2:
        product_of(a, lda, b, ldb, c, ldc, depth, add, rows, 2);
        break;
#if TILE_VECS > 2
    case 3:
        product_of(a, lda, b, ldb, c, ldc, depth, add, rows, 3);
        break;
    case 4:
        product_of(a, lda, b, ldb, c, ldc, depth, add, rows, 4);
        break;
#endif
    default:
        break;
    }
}

/* ---- one head of one sequence ---- */

typedef struct head_state {
    const tfi_attention_args *args;
    int64_t first, T; /* the sequence's first row and length */
    int64_t head;
    int64_t D, width;         /* head size, and in whole vectors */
    int64_t depth, key_depth; /* elements (of PER_ELEMENT values) that D and T fill */
    int64_t value_vecs;       /* vectors in a panel of values */
    float factor;             /* scale * log2(e), so that softmax can use 2^x */
    float *keys, *values, *queries, *scores, *outputs, *max, *sum;
} head_state;

TFI_INLINE int64_t at_most(int64_t limit, int64_t n)
{
    return n < limit ? n : limit;
}

/* Element 0 of the head in row `row` of Q (part 0), K (1) or V (2). */
TFI_INLINE int64_t part_at(const head_state *s, int64_t row, int64_t part)
{
    const int64_t width = (int64_t)s->args->H * s->D;
    return ((s->first + row) * 3 + part) * width + s->head * s->D;
}

/* Keys to panels [depth][PANEL]; keys past the end are 0. */
TFI_INLINE void pack_keys(const head_state *s, tfi_op_types t)
{
    for (int64_t key = 0; key < s->T; key += VEC) {
        float *panel = s->keys + key / PANEL * PANEL * s->depth + key % PANEL;
        for (int64_t d = 0; d < s->depth; d += VEC) {
            const int64_t n = at_most(VEC, s->depth - d), values = at_most(VEC * PER_ELEMENT, s->D - d * PER_ELEMENT);
            vec block[VEC];
            TFI_UNROLL
            for (int i = 0; i < VEC; i++) {
                block[i] = vec_set(0);
                if (key + i < s->T)
                    block[i] = operand_along(s->args->x, t.x, part_at(s, key + i, 1) + d * PER_ELEMENT, values);
            }
            vec_transpose(block);
            for (int64_t i = 0; i < n; i++) vec_store(panel + (d + i) * PANEL, block[i]);
        }
    }
}

/* Values to panels [key_depth][value_vecs vectors], the last maybe narrower; columns past D are 0. */
TFI_INLINE void pack_values(const head_state *s, tfi_op_types t)
{
    const int64_t row_stride = 3 * (int64_t)s->args->H * s->D, panel_width = s->value_vecs * VEC;

    for (int64_t k = 0; k < s->key_depth; k++) {
        const int64_t key = k * PER_ELEMENT, from = part_at(s, key, 2);
        for (int64_t d = 0; d < s->D; d += VEC) {
            const int64_t panel = d / panel_width * panel_width, columns = at_most(panel_width, s->width - panel);
            vec_store(s->values + panel * s->key_depth + k * columns + (d - panel),
                      operand_across(s->args->x, t.x, from + d, row_stride, s->T - key, at_most(VEC, s->D - d)));
        }
    }
}

/* Queries from `row` on to rows of `width` elements. */
TFI_INLINE void pack_queries(const head_state *s, tfi_op_types t, int64_t row, int64_t rows)
{
    for (int64_t r = 0; r < rows; r++) {
        const int64_t from = part_at(s, row + r, 0);
        for (int64_t d = 0; d < s->D; d += VEC * PER_ELEMENT)
            vec_store(s->queries + r * s->width + d / PER_ELEMENT,
                      operand_along(s->args->x, t.x, from + d, at_most(VEC * PER_ELEMENT, s->D - d)));
    }
}

/* A row of n scores to softmax numerators, as elements; `first` says that there was no chunk before. */
TFI_INLINE void softmax_row(const head_state *s, int64_t r, float *scores, int64_t n, int first)
{
    const int64_t whole = n - n % VEC;
    const vec factor = vec_set(s->factor), lowest = vec_set(-__builtin_inff());
    vec max = first ? lowest : vec_set(s->max[r]), sum = vec_set(0);
    int64_t i;

    for (i = 0; i < whole; i += VEC) max = vec_max(max, vec_load(scores + i) * factor);
    if (i < n) max = vec_max(max, vec_keep(vec_load(scores + i) * factor, n - i, -__builtin_inff()));
    const float new_max = vec_max_lane(max);
    max = vec_set(new_max);

    for (i = 0; i < whole; i += VEC) {
        const vec p = exp2_vec(vec_fma(vec_load(scores + i), factor, -max));
        operand_store(scores, i, p);
        sum += p;
    }
    if (i < n) {
        const vec p = vec_keep(exp2_vec(vec_fma(vec_load(scores + i), factor, -max)), n - i, 0);
        operand_store(scores, i, p);
        sum += p;
    }

    if (first) {
        s->sum[r] = vec_sum(sum);
    } else {
        const vec fade = exp2_vec(vec_set(s->max[r]) - max); /* the chunks before were relative to a lower maximum */
        float *out = s->outputs + r * s->width;
        s->sum[r] = vec_sum(vec_keep(fade, 1, 0)) * s->sum[r] + vec_sum(sum);
        for (i = 0; i < s->width; i += VEC) vec_store(out + i, vec_load(out + i) * fade);
    }
    s->max[r] = new_max;
}

/* Scores, softmax and outputs of `rows` query rows against keys [key, key + n). */
static void attend_chunk(const head_state *s, int64_t rows, int64_t key, int64_t n)
{
    const int64_t stride = (n + PANEL - 1) / PANEL * PANEL, panel_width = s->value_vecs * VEC;

    for (int64_t i = 0; i < n; i += PANEL) {
        const int64_t vecs = (at_most(PANEL, n - i) + VEC - 1) / VEC;
        product(s->queries, s->width, s->keys + (key + i) * s->depth, PANEL, s->scores + i, stride, s->depth, 0, rows, vecs);
    }
    for (int64_t r = 0; r < rows; r++) softmax_row(s, r, s->scores + r * stride, n, key == 0);
    for (int64_t i = 0; i < n; i += VALUE_ROWS) {
        const int64_t depth = (at_most(VALUE_ROWS, n - i) + PER_ELEMENT - 1) / PER_ELEMENT;
        for (int64_t d = 0; d < s->width; d += panel_width) {
            const int64_t columns = at_most(panel_width, s->width - d);
            const float *values = s->values + d * s->key_depth + (key + i) / PER_ELEMENT * columns;
            product(s->scores + i / PER_ELEMENT, stride, values, columns, s->outputs + d, s->width, depth, key + i > 0, rows,
                    columns / VEC);
        }
    }
}

TFI_INLINE void store_outputs(const head_state *s, tfi_op_types t, int64_t row, int64_t rows)
{
    const int64_t width = (int64_t)s->args->H * s->D;

    for (int64_t r = 0; r < rows; r++) {
        const vec factor = vec_set(1 / s->sum[r]);
        const int64_t to = (s->first + row + r) * width + s->head * s->D;
        for (int64_t d = 0; d < s->D; d += VEC)
            store_n(s->args->y, t.y, to + d, vec_load(s->outputs + r * s->width + d) * factor, at_most(VEC, s->D - d));
    }
}

/* Query rows [begin, end) of the head. */
TFI_INLINE void attend(const head_state *s, tfi_op_types t, int64_t begin, int64_t end)
{
    pack_keys(s, t);
    pack_values(s, t);
    for (int64_t row = begin; row < end; row += TFI_ATTENTION_ROWS) {
        const int64_t rows = at_most(TFI_ATTENTION_ROWS, end - row);
        pack_queries(s, t, row, rows);
        for (int64_t key = 0; key < s->T; key += TFI_ATTENTION_KEYS)
            attend_chunk(s, rows, key, at_most(TFI_ATTENTION_KEYS, s->T - key));
        store_outputs(s, t, row, rows);
    }
}

/* ---- workers ---- */

/* Cost of a query row in a sequence of T: its keys, and what it costs without them (packing, output). */
TFI_INLINE int64_t row_cost(int64_t T)
{
    return T + 48;
}

/* The first row of a head whose rows begin at `base` on the scale of costs that lies at or behind `cost`; whole tiles of rows.
 */
TFI_INLINE int64_t row_behind(int64_t cost, int64_t base, int64_t T)
{
    const int64_t row = cost <= base ? 0 : (cost - base + row_cost(T) - 1) / row_cost(T);
    const int64_t whole = (row + TILE_ROWS - 1) / TILE_ROWS * TILE_ROWS;
    return whole < T ? whole : T;
}

TFI_INLINE void head_state_set(head_state *s, const tfi_attention_args *a, int64_t first, int64_t T, float *scratch)
{
    const tfi_attention_layout at = tfi_attention_layout_of(T, a->D);
    const int64_t vecs = (a->D + VEC - 1) / VEC, panels = (vecs + TILE_VECS - 1) / TILE_VECS;

    *s = (head_state){.args = a, .first = first, .T = T, .D = a->D, .width = vecs * VEC};
    s->depth = (s->D + PER_ELEMENT - 1) / PER_ELEMENT;
    s->key_depth = (T + PER_ELEMENT - 1) / PER_ELEMENT;
    s->value_vecs = (vecs + panels - 1) / panels;
    s->factor = (float)((double)a->scale * 1.4426950408889634);
    s->keys = scratch + at.keys;
    s->values = scratch + at.values;
    s->queries = scratch + at.queries;
    s->scores = scratch + at.scores;
    s->outputs = scratch + at.outputs;
    s->max = scratch + at.max;
    s->sum = scratch + at.sum;
}

TFI_INLINE void attention(const tfi_attention_args *a, const tfi_worker *w, tfi_op_types t)
{
    int64_t total = 0, base = 0, begin, end;
    head_state s;

    for (int64_t b = 0; b < a->B; b++) {
        const int64_t T = a->offsets[b + 1] - a->offsets[b];
        total += T * row_cost(T) * a->H;
    }
    tfi_share(w, total, &begin, &end);
    for (int64_t b = 0; b < a->B; b++) {
        const int64_t T = a->offsets[b + 1] - a->offsets[b];
        head_state_set(&s, a, a->offsets[b], T, w->scratch);
        for (s.head = 0; s.head < a->H; s.head++, base += T * row_cost(T)) {
            const int64_t from = row_behind(begin, base, T), to = row_behind(end, base, T);
            if (from < to) attend(&s, t, from, to);
        }
    }
}
