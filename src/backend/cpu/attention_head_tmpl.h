/* What attention's two ways share: a head of a sequence, where its operands are, the bias. Included by attention_tmpl.h alone.
 */

typedef struct head_state {
    const tfi_attention_args *args;
    int64_t sequence, head;
    int64_t first, rows;      /* the sequence's rows of x */
    int64_t number;           /* of the first row among the sequence's tokens */
    int64_t T;                /* keys of the sequence */
    int causal, stored;       /* row i sees number + i + 1 keys; keys and values come from the store */
    int64_t D, width;         /* head size, and in whole vectors */
    int64_t depth, key_depth; /* elements (of PER_ELEMENT values) that D and T fill */
    int64_t value_vecs;       /* vectors in a panel of values */
    float factor;             /* scale * log2(e), so that softmax can use 2^x */
    float *keys, *values, *queries, *scores, *outputs, *bias, *max, *sum;
} head_state;

TFI_INLINE int64_t at_most(int64_t limit, int64_t n)
{
    return n < limit ? n : limit;
}

/* Keys that a row attends to: the first ones. */
TFI_INLINE int64_t keys_of(const head_state *s, int64_t row)
{
    return s->causal ? s->number + row + 1 : s->T;
}

/* Element 0 of the head in row `row` of Q (part 0), K (1) or V (2). */
TFI_INLINE int64_t part_at(const head_state *s, int64_t row, int64_t part)
{
    return (s->first + row) * s->args->x_stride + (part * s->args->H + s->head) * s->D;
}

/* The block of key `key`: keys [D][TFI_KV_BLOCK], values [TFI_KV_BLOCK][D]. */
TFI_INLINE const char *stored_keys(const head_state *s, int64_t key)
{
    const tfi_kv_view *kv = &s->args->kv;
    return tfi_kv_keys(kv->store, kv->tables[s->sequence * kv->stride + key / TFI_KV_BLOCK], kv->layer, (int32_t)s->head);
}

TFI_INLINE const char *stored_values(const head_state *s, int64_t key)
{
    const tfi_kv_view *kv = &s->args->kv;
    return tfi_kv_values(kv->store, kv->tables[s->sequence * kv->stride + key / TFI_KV_BLOCK], kv->layer, (int32_t)s->head);
}

/* The head's bias times log2(e) for n distances from `distance` on. */
TFI_INLINE void bias_of_distances(const head_state *s, float *out, int64_t distance, int64_t n)
{
    const int64_t max = s->args->max_distance;
    const float *row = s->args->bias + s->head * (2 * max + 1) + max;
    const float log2_e = 1.44269504f, low = row[-max] * log2_e, high = row[max] * log2_e;
    int64_t i = 0;

    for (; i < n && distance + i < -max; i++) out[i] = low;
    for (; i < n && distance + i <= max; i++) out[i] = row[distance + i] * log2_e;
    for (; i < n; i++) out[i] = high;
}

/* 2^x's argument: VEC products q k as scores in log2 units. bias may be NULL. */
TFI_INLINE vec scaled(const head_state *s, vec product, const float *bias)
{
    const vec factor = vec_set(s->factor);
    if (bias) return vec_fma(product, factor, vec_load(bias));
    return product * factor;
}

/* Outputs of `rows` rows, divided by their sums, to y. */
TFI_INLINE void store_outputs(const head_state *s, tfi_op_types t, int64_t row, int64_t rows)
{
    for (int64_t r = 0; r < rows; r++) {
        const vec factor = vec_set(1 / s->sum[r]);
        const int64_t to = ((s->first + row + r) * s->args->H + s->head) * s->D;
        for (int64_t d = 0; d < s->D; d += VEC)
            store_n(s->args->y, t.y, to + d, vec_load(s->outputs + r * s->width + d) * factor, at_most(VEC, s->D - d));
    }
}
