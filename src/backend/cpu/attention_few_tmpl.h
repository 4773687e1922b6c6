/* Attention of few rows of one head to the store: what a step of generation does. Included by attention_tmpl.h alone.
 *
 * Work      row after row: scores against all keys, a vector being one dimension of VEC keys; softmax; the outputs token by
 *           token, 64 columns at a time in registers. Nothing is packed. Always in fp32, whatever the operands are.
 * Floor     2*T*D elements of the store, each read once: one multiply-add an element, so reading them is the limit.
 * Measured  GB/s of one Zen 5 core (a plain sum over one array reads 118 GB/s from the third-level cache, 65 from memory), H =
 * 12, D = 64, by `ops --bench`, best of several on a machine with other work: sequences x tokens    1 x 128   8 x 128   1 x
 * 1024   8 x 1024 (50 MB in fp32: memory) AVX2, fp32                108        88        100         37 AVX-512, fp32 121 88
 * 104         41 AVX2, bf16                 60        55         61         33 AVX-512, bf16              82        72 83 39
 * Tried     No prefetch of the next block: a head's blocks lie far apart, a quarter slower from memory. Two blocks ahead: a
 *           tenth faster from memory, a tenth slower from the caches.
 */

enum { BLOCK_VECS = TFI_KV_BLOCK / VEC, CHAINS = 4, VALUE_VECS = 64 / VEC };

/* Scores of a query against keys [0, n), in log2 units; slots of the last block from n on get -inf. bias may be NULL. The
 * maximum. */
TFI_INLINE float few_scores(const head_state *s, tfi_dtype stored, const float *query, const float *bias, int64_t n,
                            float *scores)
{
    const int64_t whole = s->D - s->D % CHAINS;
    vec max = vec_set(-__builtin_inff());

    for (int64_t key = 0; key < n; key += TFI_KV_BLOCK) {
        const char *keys = stored_keys(s, key), *next = key + TFI_KV_BLOCK < n ? stored_keys(s, key + TFI_KV_BLOCK) : keys;
        vec sum[CHAINS][BLOCK_VECS]; /* sums of every CHAINS-th dimension: one alone would wait for itself */

        TFI_UNROLL
        for (int i = 0; i < CHAINS * BLOCK_VECS; i++) sum[i / BLOCK_VECS][i % BLOCK_VECS] = vec_set(0);
        for (int64_t d = 0; d < whole; d += CHAINS) {
            TFI_UNROLL
            for (int c = 0; c < CHAINS; c++) {
                const vec q = vec_set(query[d + c]);
                if (stored == TFI_F32 || c % 2 == 0) __builtin_prefetch(tfi_at(next, stored, (d + c) * TFI_KV_BLOCK));
                TFI_UNROLL
                for (int v = 0; v < BLOCK_VECS; v++)
                    sum[c][v] = vec_fma(q, load_n(keys, stored, (d + c) * TFI_KV_BLOCK + v * VEC, VEC), sum[c][v]);
            }
        }
        for (int64_t d = whole; d < s->D; d++) {
            TFI_UNROLL
            for (int v = 0; v < BLOCK_VECS; v++)
                sum[0][v] = vec_fma(vec_set(query[d]), load_n(keys, stored, d * TFI_KV_BLOCK + v * VEC, VEC), sum[0][v]);
        }
        TFI_UNROLL
        for (int v = 0; v < BLOCK_VECS; v++) {
            const int64_t at = key + v * VEC, left = n - at;
            vec z = scaled(s, (sum[0][v] + sum[1][v]) + (sum[2][v] + sum[3][v]), bias ? bias + at : NULL);
            if (left < VEC) z = vec_keep(z, left > 0 ? left : 0, -__builtin_inff());
            vec_store(scores + at, z);
            max = vec_max(max, z);
        }
    }
    return vec_max_lane(max);
}

/* The scores to softmax numerators; their sum. */
TFI_INLINE float few_numerators(float *scores, int64_t n, float max)
{
    vec sum = vec_set(0);

    for (int64_t i = 0; i < n; i += VEC) {
        const vec p = exp2_vec(vec_load(scores + i) - vec_set(max));
        vec_store(scores + i, p);
        sum += p;
    }
    return vec_sum(sum);
}

/* `vecs` vectors of outputs from column d on, the last one of `columns`, as sums over every `chains`-th token. vecs and chains
 * are constants. */
TFI_INLINE void few_values(const head_state *s, tfi_dtype stored, const float *p, int64_t n, int64_t d, int64_t columns,
                           const int vecs, const int chains)
{
    vec sum[CHAINS][VALUE_VECS];

    TFI_UNROLL
    for (int i = 0; i < chains * vecs; i++) sum[i / vecs][i % vecs] = vec_set(0);
    for (int64_t key = 0; key < n; key += TFI_KV_BLOCK) {
        const char *values = stored_values(s, key);
        const char *next = key + TFI_KV_BLOCK < n ? stored_values(s, key + TFI_KV_BLOCK) : values;
        const int64_t tokens = at_most(TFI_KV_BLOCK, n - key), whole = tokens - tokens % chains;
        for (int64_t i = 0; i < whole; i += chains) {
            TFI_UNROLL
            for (int c = 0; c < chains; c++) {
                const vec weight = vec_set(p[key + i + c]);
                TFI_UNROLL
                for (int v = 0; v < vecs; v++) {
                    const int64_t at = (i + c) * s->D + d + v * VEC;
                    if (v * VEC * (stored == TFI_BF16 ? 2 : 4) % 64 == 0) __builtin_prefetch(tfi_at(next, stored, at));
                    sum[c][v] = vec_fma(weight, load_n(values, stored, at, v == vecs - 1 ? columns : VEC), sum[c][v]);
                }
            }
        }
        for (int64_t i = whole; i < tokens; i++) {
            TFI_UNROLL
            for (int v = 0; v < vecs; v++) {
                const int64_t at = i * s->D + d + v * VEC;
                sum[0][v] = vec_fma(vec_set(p[key + i]), load_n(values, stored, at, v == vecs - 1 ? columns : VEC), sum[0][v]);
            }
        }
    }
    TFI_UNROLL
    for (int v = 0; v < vecs; v++) {
        vec all = sum[0][v];
        TFI_UNROLL
        for (int c = 1; c < chains; c++) all += sum[c][v];
        vec_store(s->outputs + d + v * VEC, all);
    }
}

/* Outputs and sum of one row, whose query is in `queries`, against keys [0, n); bias may be NULL. */
TFI_INLINE void few_row(const head_state *s, tfi_dtype stored, const float *bias, int64_t n)
{
    float *scores = s->keys;                        /* nothing is packed: there is room for a row */
    const int wide_chains = VEC == 16 ? CHAINS : 1; /* what the registers hold */
    int64_t d;

    s->sum[0] = few_numerators(scores, n, few_scores(s, stored, s->queries, bias, n, scores));
    for (d = 0; d + 64 <= s->D; d += 64) few_values(s, stored, scores, n, d, VEC, VALUE_VECS, wide_chains);
    for (; d + VEC <= s->D; d += VEC) few_values(s, stored, scores, n, d, VEC, 1, CHAINS);
    if (d < s->D) few_values(s, stored, scores, n, d, s->D - d, 1, CHAINS);
}

static void few_row_f32(const head_state *s, const float *bias, int64_t n)
{
    few_row(s, TFI_F32, bias, n);
}

static void few_row_bf16(const head_state *s, const float *bias, int64_t n)
{
    few_row(s, TFI_BF16, bias, n);
}

/* A row of the head; there are keys. */
TFI_INLINE void attend_few(const head_state *s, tfi_op_types t, int64_t row)
{
    const int64_t n = keys_of(s, row), from = part_at(s, row, 0);
    float *bias = s->args->bias ? s->values : NULL;

    for (int64_t d = 0; d < s->D; d += VEC)
        vec_store(s->queries + d, load_n(s->args->x, t.x, from + d, at_most(VEC, s->D - d)));
    if (bias) bias_of_distances(s, bias, -(s->number + row), n);
    if (s->args->kv.store->shape.dtype == TFI_BF16) {
        few_row_bf16(s, bias, n);
    } else {
        few_row_f32(s, bias, n);
    }
    store_outputs(s, t, row, 1);
}
