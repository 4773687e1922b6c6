/* Attention of many rows of one head. Included by attention_tmpl.h alone.
 *
 * Work      The head's keys are packed once, transposed, in panels [D][PANEL] (the store has them transposed already); its
 *           values in panels [T][up to PANEL]. Then, for 48 query rows at a time and 512 keys at a time: scores S = Q K^T,
 *           softmax numerators P in place of S, O += P V. Sequences over 512 keys carry each row's running maximum and
 *           sum from one chunk to the next (Milakov, Gimelshein 2018); shorter ones have one chunk. O is divided by its
 *           sum once, at the end.
 * Causal    a block of rows stops behind the last key that its last row sees; what its other rows do not see gets a
 *           numerator of 0.
 * Bias      a block of rows meets every distance of a chunk along one line, which is written out once; each row begins one
 *           further to the left than the row before.
 * Products  C[rows][vecs] (+)= A[rows][depth] B[depth][vecs] on tiles of TILE_ROWS x TILE_VECS registers: an element of A
 *           is broadcast against TILE_VECS vectors of B. 48 rows share a panel of K in the first-level cache; 128 rows of
 *           V lie there at a time. Elements are fp32, or pairs of bf16 (operand_*.h); then the numerators P are rounded to
 *           bf16 too, and so are the keys and values of an F32 store.
 * Measured  GFLOP/s of one Zen 5 core (fp32 peak 260), H = 12, D = 64, by `ops --bench`; causal and prefill from the store
 *           count the keys seen:
 *           sequence length          16    128    512   2048   16..512 mixed   causal 1024   prefill 128   1024
 *           AVX2, fp32               59     96    107    105    97             95             68           94
 *           AVX-512, fp32            94    181    208    206   190            189            127          183
 *           AVX512_BF16, bf16       124    294    332    337   299            331            211          325
 * Tried     96 query rows at a time, 64 rows of V: within 3 %. Scaling the queries instead of the scores: level,
 *           but bf16 queries would have to be rounded twice. clang leaves the tiles in memory, 4 times slower, where the
 *           loops over them are not told to unroll.
 */

enum { PANEL = TILE_VECS * VEC, VALUE_ROWS = 128 };

_Static_assert(TFI_ATTENTION_PAD % PANEL == 0 && TFI_ATTENTION_KEYS % PANEL == 0 && VEC <= 16, "layout of the scratch");
_Static_assert(TFI_KV_BLOCK % VEC == 0 && TFI_KV_BLOCK % PER_ELEMENT == 0,
               "a vector's keys, an element's values lie in one block");

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

/* ---- packing ---- */

/* Keys [0, limit) to panels [depth][PANEL]; those that fill up the last vector are 0. */
TFI_INLINE void pack_keys(const head_state *s, tfi_op_types t, int64_t limit)
{
    for (int64_t key = 0; key < limit; key += VEC) {
        float *panel = s->keys + key / PANEL * PANEL * s->depth + key % PANEL;
        for (int64_t d = 0; d < s->depth; d += VEC) {
            const int64_t n = at_most(VEC, s->depth - d), values = at_most(VEC * PER_ELEMENT, s->D - d * PER_ELEMENT);
            vec block[VEC];
            TFI_UNROLL
            for (int i = 0; i < VEC; i++) {
                block[i] = vec_set(0);
                if (key + i < limit)
                    block[i] = operand_along(s->args->x, t.x, part_at(s, key + i, 1) + d * PER_ELEMENT, values);
            }
            vec_transpose(block);
            for (int64_t i = 0; i < n; i++) vec_store(panel + (d + i) * PANEL, block[i]);
        }
    }
}

/* The same from the store, where they are transposed already. */
TFI_INLINE void pack_stored_keys(const head_state *s, tfi_dtype stored, int64_t limit)
{
    for (int64_t key = 0; key < limit; key += VEC) {
        const char *block = stored_keys(s, key);
        float *panel = s->keys + key / PANEL * PANEL * s->depth + key % PANEL;
        for (int64_t i = 0; i < s->depth; i++) {
            const int64_t d = i * PER_ELEMENT, at = d * TFI_KV_BLOCK + key % TFI_KV_BLOCK;
            vec_store(panel + i * PANEL, operand_across(block, stored, at, TFI_KV_BLOCK, s->D - d, at_most(VEC, limit - key)));
        }
    }
}

/* Values of element k, of the keys before `limit`, from rows that lie `stride` values apart, to panels [key_depth][value_vecs
 * vectors], the last maybe narrower; columns past D are 0. */
TFI_INLINE void pack_value(const head_state *s, const void *p, tfi_dtype type, int64_t at, int64_t stride, int64_t k,
                           int64_t limit)
{
    const int64_t panel_width = s->value_vecs * VEC;

    for (int64_t d = 0; d < s->D; d += VEC) {
        const int64_t panel = d / panel_width * panel_width, columns = at_most(panel_width, s->width - panel);
        vec_store(s->values + panel * s->key_depth + k * columns + (d - panel),
                  operand_across(p, type, at + d, stride, limit - k * PER_ELEMENT, at_most(VEC, s->D - d)));
    }
}

TFI_INLINE void pack_values(const head_state *s, tfi_op_types t, int64_t limit)
{
    for (int64_t k = 0; k * PER_ELEMENT < limit; k++)
        pack_value(s, s->args->x, t.x, part_at(s, k * PER_ELEMENT, 2), s->args->x_stride, k, limit);
}

TFI_INLINE void pack_stored_values(const head_state *s, tfi_dtype stored, int64_t limit)
{
    for (int64_t k = 0; k * PER_ELEMENT < limit; k++) {
        const int64_t key = k * PER_ELEMENT;
        pack_value(s, stored_values(s, key), stored, key % TFI_KV_BLOCK * s->D, s->D, k, limit);
    }
}

static void pack_stored(const head_state *s, int64_t limit)
{
    if (s->args->kv.store->shape.dtype == TFI_BF16) {
        pack_stored_keys(s, TFI_BF16, limit);
        pack_stored_values(s, TFI_BF16, limit);
    } else {
        pack_stored_keys(s, TFI_F32, limit);
        pack_stored_values(s, TFI_F32, limit);
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

/* ---- a block of rows against a chunk of keys ---- */

/* A row of n scores, of which it attends to the first `seen`, to softmax numerators, as elements; `first` says that there was
 * no chunk before, and then seen > 0. */
TFI_INLINE void softmax_row(const head_state *s, int64_t r, float *scores, const float *bias, int64_t seen, int64_t n,
                            int first)
{
    const int64_t whole = seen - seen % VEC;
    const vec lowest = vec_set(-__builtin_inff());
    vec max = first ? lowest : vec_set(s->max[r]), sum = vec_set(0);
    int64_t i;

    for (i = 0; i < whole; i += VEC) max = vec_max(max, scaled(s, vec_load(scores + i), bias ? bias + i : NULL));
    if (i < seen) {
        const vec z = scaled(s, vec_load(scores + i), bias ? bias + i : NULL);
        max = vec_max(max, vec_keep(z, seen - i, -__builtin_inff()));
    }
    const float new_max = vec_max_lane(max);
    max = vec_set(new_max);

    for (i = 0; i < whole; i += VEC) {
        const vec p = exp2_vec(scaled(s, vec_load(scores + i), bias ? bias + i : NULL) - max);
        operand_store(scores, i, p);
        sum += p;
    }
    if (i < seen) {
        const vec z = scaled(s, vec_load(scores + i), bias ? bias + i : NULL);
        const vec p = vec_keep(exp2_vec(z - max), seen - i, 0);
        operand_store(scores, i, p);
        sum += p;
        i += VEC;
    }
    for (; i < n; i += VEC) operand_store(scores, i, vec_set(0));

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

/* The rows' scores against keys [key, key + n), as `stride` floats each, to numerators. */
static void softmax_rows(const head_state *s, int64_t row, int64_t rows, int64_t key, int64_t n, int64_t stride)
{
    /* the distances of the last row begin lowest; those of each row before it begin one higher */
    if (s->args->bias) bias_of_distances(s, s->bias, key - (s->number + row + rows - 1), n + rows - 1);
    for (int64_t r = 0; r < rows; r++) {
        const int64_t left = keys_of(s, row + r) - key, seen = left < 0 ? 0 : at_most(n, left);
        float *scores = s->scores + r * stride;
        if (s->args->bias) {
            softmax_row(s, r, scores, s->bias + (rows - 1 - r), seen, n, key == 0);
        } else {
            softmax_row(s, r, scores, NULL, seen, n, key == 0);
        }
    }
}

/* Scores, softmax and outputs of rows from `row` on against keys [key, key + n). */
static void attend_chunk(const head_state *s, int64_t row, int64_t rows, int64_t key, int64_t n)
{
    const int64_t stride = (n + PANEL - 1) / PANEL * PANEL, panel_width = s->value_vecs * VEC;

    for (int64_t i = 0; i < n; i += PANEL) {
        const int64_t vecs = (at_most(PANEL, n - i) + VEC - 1) / VEC;
        product(s->queries, s->width, s->keys + (key + i) * s->depth, PANEL, s->scores + i, stride, s->depth, 0, rows, vecs);
    }
    softmax_rows(s, row, rows, key, n, stride);
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

/* Query rows [begin, end) of the head; there are keys. */
TFI_INLINE void attend_many(const head_state *s, tfi_op_types t, int64_t begin, int64_t end)
{
    const int64_t limit = keys_of(s, end - 1);

    if (s->stored) {
        pack_stored(s, limit);
    } else {
        pack_keys(s, t, limit);
        pack_values(s, t, limit);
    }
    for (int64_t row = begin; row < end; row += TFI_ATTENTION_ROWS) {
        const int64_t rows = at_most(TFI_ATTENTION_ROWS, end - row), keys = keys_of(s, row + rows - 1);
        pack_queries(s, t, row, rows);
        for (int64_t key = 0; key < keys; key += TFI_ATTENTION_KEYS)
            attend_chunk(s, row, rows, key, at_most(TFI_ATTENTION_KEYS, keys - key));
        store_outputs(s, t, row, rows);
    }
}
