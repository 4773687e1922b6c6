/* SAMPLE, plain C: the next token of each sequence without beams, the most probable one or one drawn at random. */
#include <math.h>

#include "backend/ref/process.h"
#include "backend/ref/ref.h"
#include "backend/ref/softmax.h"
#include "backend/rows.h"

/* In [0, 1), of 53 bits. */
double tfi_uniform(uint64_t seed, uint32_t step, uint32_t index, uint32_t use)
{
    const uint32_t counter[4] = {step, index, use, 0};
    uint32_t r[4];

    tfi_philox(seed, counter, r);
    return ((double)(r[0] >> 5) * 67108864.0 + (double)(r[1] >> 6)) * 0x1p-53;
}

/* Where the running sum of exp(x - max) passes `uniform` times the whole: block by block, then inside the block. */
static int64_t draw_at(const float *x, int64_t V, float max, double uniform)
{
    const double target = uniform * tfi_row_sum_exp(x, V, max);
    float e[TFI_EXP_BLOCK];
    double running = 0;
    int64_t last = 0;

    for (int64_t i = 0; i < V; i += TFI_EXP_BLOCK) {
        const int64_t n = V - i < TFI_EXP_BLOCK ? V - i : TFI_EXP_BLOCK;
        const double sum = tfi_exp_block(x + i, n, max, e);
        if (running + sum <= target) {
            running += sum;
            continue;
        }
        for (int64_t k = 0; k < n; k++) {
            if (e[k] <= 0) continue;
            last = i + k;
            running += (double)e[k];
            if (running > target) break;
        }
        break; /* the sum in another order may have missed the target by rounding: then it is the block's last */
    }
    return last;
}

/* The token for a row, or -1 if there is none that could be told. */
static int64_t choose(const tfi_slot *slot, const float *x, const float *logits, int64_t V)
{
    const tfi_sampling *s = slot->sampling;

    if (!s->remove_invalid_values && tfi_row_invalid(logits, V)) return -1;
    if (tfi_row_invalid(x, V)) return -1;
    const float max = tfi_row_max(x, V);
    if (!s->do_sample) return tfi_row_first(x, V, max);
    if (max == -INFINITY) return -1;
    return draw_at(x, V, max, tfi_uniform(s->seed, (uint32_t)(slot->count - s->prompt), (uint32_t)slot->sequence, 0));
}

static void sample_one(const tfi_draw_args *a, int64_t i)
{
    const tfi_draw *draw = &a->draws[i];
    const float *logits = a->logits + draw->row * a->V;
    tfi_slot *slot = &a->slots[draw->slot];
    const int64_t token = choose(slot, a->x + draw->row * a->V, logits, a->V);

    a->choices[i] = (tfi_choice){.token = (int32_t)token, .parent = slot->sequence, .finished_from = -2};
    if (token < 0) {
        a->choices[i].stop = TFI_STOP_NUMERIC;
        return;
    }
    slot->tokens[slot->count++] = (int32_t)token;
    if (slot->sampling->logprobs) a->choices[i].logprob = (float)((double)logits[token] - tfi_row_log_sum_exp(logits, a->V));
}

static void sample(const void *args, const tfi_worker *w)
{
    const tfi_draw_args *a = args;
    int64_t begin, end;

    tfi_share(w, a->count, &begin, &end);
    for (int64_t i = begin; i < end; i++)
        if (a->slots[a->draws[i].slot].sampling->num_beams <= 1) sample_one(a, i);
}

tfi_host_fn tfi_ref_sample(tfi_op_types t)
{
    return tfi_is_f32(t) ? sample : NULL;
}
