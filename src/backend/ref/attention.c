/* ATTENTION, plain C: each row of each head by itself; scores, softmax and sums in double. A query's number, for the bias, is
 * that of its token; where rows attend to a source, its number among the run's rows of its sequence. */
#include <math.h>

#include "backend/ref/ref.h"
#include "backend/rows.h"

typedef struct head_state {
    const tfi_attention_args *args;
    tfi_dtype type; /* of x */
    int64_t sequence, head;
    int64_t keys, number; /* keys of the sequence; number of its first query */
} head_state;

TFI_INLINE int from_store(const tfi_attention_args *a)
{
    return a->attend == TFI_ATTEND_CACHE || a->attend == TFI_ATTEND_SOURCE;
}

static int32_t block_of(const head_state *s, int64_t key)
{
    return s->args->kv.tables[s->sequence * s->args->kv.stride + key / TFI_KV_BLOCK];
}

/* Element d of the head in row `row` of Q (part 0), K (1) or V (2). */
static double element(const head_state *s, int64_t row, int64_t part, int64_t d)
{
    const tfi_attention_args *a = s->args;
    return (double)tfi_get(a->x, s->type, row * a->x_stride + (part * a->H + s->head) * a->D + d);
}

static double key_at(const head_state *s, int64_t key, int64_t d)
{
    const tfi_attention_args *a = s->args;
    if (!from_store(a)) return element(s, a->offsets[s->sequence] + key, 1, d);
    return (double)tfi_get(tfi_kv_keys(a->kv.store, block_of(s, key), a->kv.layer, (int32_t)s->head), a->kv.store->shape.dtype,
                           d * TFI_KV_BLOCK + key % TFI_KV_BLOCK);
}

static double value_at(const head_state *s, int64_t key, int64_t d)
{
    const tfi_attention_args *a = s->args;
    if (!from_store(a)) return element(s, a->offsets[s->sequence] + key, 2, d);
    return (double)tfi_get(tfi_kv_values(a->kv.store, block_of(s, key), a->kv.layer, (int32_t)s->head),
                           a->kv.store->shape.dtype, key % TFI_KV_BLOCK * a->D + d);
}

static double bias_of(const head_state *s, int64_t distance)
{
    const int64_t max = s->args->max_distance;
    if (!s->args->bias) return 0;
    if (distance > max) distance = max;
    if (distance < -max) distance = -max;
    return (double)s->args->bias[s->head * (2 * max + 1) + max + distance];
}

static void attend(const head_state *s, int64_t row, tfi_dtype y_type, double *scores)
{
    const tfi_attention_args *a = s->args;
    const int64_t number = s->number + row - a->offsets[s->sequence];
    const int causal = a->attend == TFI_ATTEND_CAUSAL || a->attend == TFI_ATTEND_CACHE;
    const int64_t keys = causal ? number + 1 : s->keys;
    double max = -INFINITY, total = 0;

    for (int64_t j = 0; j < keys; j++) {
        double dot = 0;
        for (int64_t d = 0; d < a->D; d++) dot += element(s, row, 0, d) * key_at(s, j, d);
        scores[j] = dot * (double)a->scale + bias_of(s, j - number);
        if (scores[j] > max) max = scores[j];
    }
    for (int64_t j = 0; j < keys; j++) total += scores[j] = exp(scores[j] - max);
    for (int64_t d = 0; d < a->D; d++) {
        double sum = 0;
        for (int64_t j = 0; j < keys; j++) sum += scores[j] * value_at(s, j, d);
        tfi_put(a->y, y_type, (row * a->H + s->head) * a->D + d, keys > 0 ? (float)(sum / total) : 0);
    }
}

TFI_INLINE void attention(const tfi_attention_args *a, const tfi_worker *w, tfi_op_types t)
{
    int64_t begin, end;

    tfi_share(w, a->R, &begin, &end);
    for (int64_t b = 0; b < a->B; b++) {
        const int64_t first = a->offsets[b], rows = a->offsets[b + 1] - first, keys = from_store(a) ? a->kv.lens[b] : rows;
        head_state s = {.args = a, .type = t.x, .sequence = b, .keys = keys};
        if (a->attend == TFI_ATTEND_CACHE) s.number = keys - rows;
        for (int64_t row = first; row < first + rows; row++) {
            if (row < begin || row >= end) continue;
            for (s.head = 0; s.head < a->H; s.head++) attend(&s, row, t.y, w->scratch);
        }
    }
}

TFI_TYPED(attention_f32_f32, attention, TFI_F32, TFI_F32, TFI_F32)
TFI_TYPED(attention_f32_bf16, attention, TFI_F32, TFI_F32, TFI_BF16)
TFI_TYPED(attention_bf16_f32, attention, TFI_BF16, TFI_F32, TFI_F32)
TFI_TYPED(attention_bf16_bf16, attention, TFI_BF16, TFI_F32, TFI_BF16)

tfi_host_fn tfi_ref_attention(tfi_op_types t)
{
    static const tfi_host_fn table[2][2] = {{attention_f32_f32, attention_f32_bf16}, {attention_bf16_f32, attention_bf16_bf16}};
    return table[t.x][t.y];
}
