/* GREEDY: draws without sampling, beams or processors but those of least lengths, from raw logits; what it computes:
 * LOGITS_PROCESS, SAMPLE and STOP of src/backend/ref, one after the other.
 *
 * Shapes    logits [S, V] fp32, draws, choices [count]
 * Parallel  a team a draw. The draw's record, slot and settings are read before the wait, but not what draws write: the
 *           number of tokens. One gather brings the parts' best together; log-probabilities take two more and a second pass
 * Needs     nothing: what is not aligned of a row is read number by number
 * Floor     4*V bytes a draw, from L2 where the product before left them; 1 row: three reads of L2, one behind the other,
 *           and a gather: 2 us; 64 rows of 50257 at 4.3 TB/s: 3 us
 * Measured  2.4 us and 5.7 on H200; the four ops it stands for take 7.4 and 24. From a product's keys (64 rows): 1.3 us, and
 *           the product takes 1.8 less
 * Tried     barriers over the cluster in place of gathers: 3.2 and 9.3; looking whether an id is banned in the one pass over
 *           the logits: 3.1 and 8.9, for the 18 copies of that */
#include "greedy.cuh"
#include "team.cuh"

namespace
{

__device__ bool is_among(const int32_t *ids, int32_t count, uint32_t id)
{
    for (int32_t i = 0; i < count; i++)
        if (ids[i] == (int32_t)id) return true;
    return false;
}

struct facts {
    uint64_t best; /* low_first() of what may be drawn; all bits set: the row is invalid */
    float max;     /* of all */
};

/* The best of this thread's part. Of a row of -infinity alone it is the first. first: of the banned ids. */
__device__ facts look(const float *x, part p, int32_t first, const int32_t *banned, int32_t count)
{
    bool invalid = false;
    float best = -CUDART_INF_F, max = -CUDART_INF_F;
    uint32_t at = 0;

    for_row(x + p.begin, p.count, [&](uint32_t i, float v) {
        invalid |= is_invalid(v);
        if (v > max) {
            max = v;
            at = i;
        }
    });
    best = max;
    const uint32_t id = (uint32_t)p.begin + at;
    if (count > 0 && ((int32_t)id == first || is_among(banned + 1, count - 1, id))) { /* again, by this thread alone */
        best = -CUDART_INF_F;
        for_row<1>(x + p.begin, p.count, [&](uint32_t i, float v) {
            if (!(v > best) || is_among(banned, count, (uint32_t)p.begin + i)) return;
            best = v;
            at = i;
        });
    }
    return {greedy_key(invalid ? CUDART_NAN_F : max, best, (uint32_t)p.begin + at), max};
}

__device__ float logprob(team &t, const float *x, part p, float own_max, uint32_t token)
{
    const float max = number_of((uint32_t)team_most(t, order_of(own_max)));
    return (float)((double)x[token] - ((double)max + log(number_of_sum(sum_exp(t, x, p, max)))));
}

/* What a draw needs of its slot. All but the number of tokens is read before the wait. */
struct drawer {
    const tfi_draw_args &a;
    int64_t i;
    bool lives;
    tfi_draw draw;
    tfi_slot *slot;
    tfi_sampling s = {};
    int32_t first_eos = -1, sequence, *tokens, count;
    tfi_choice *published;

    __device__ drawer(const tfi_draw_args &arguments, const tfi_cuda_live *live, int64_t index)
        : a(arguments), i(index), lives(i < live->draws), draw(lives ? a.draws[i] : tfi_draw{}), slot(&a.slots[draw.slot]),
          sequence(lives ? slot->sequence : 0), tokens(lives ? slot->tokens : NULL), published(live->published)
    {
        if (lives) s = *slot->sampling;
        if (s.eos_count > 0) first_eos = s.eos[0];
    }
    __device__ void wait()
    {
        wait_for_results();
        if (lives) count = __ldcg(&slot->count); /* not what was there before the wait */
    }
    __device__ tfi_choice choose(uint64_t key) const
    {
        tfi_choice choice = {};
        choice.parent = sequence;
        choice.finished_from = -2;
        choice.token = key == ~(uint64_t)0 ? -1 : (int32_t)index_of(key);
        if (choice.token < 0) choice.stop = TFI_STOP_NUMERIC;
        else if (choice.token == first_eos || is_among(s.eos, s.eos_count, choice.token)) choice.stop = TFI_STOP_EOS;
        else if (count + 1 >= s.max_length) choice.stop = TFI_STOP_LENGTH;
        return choice;
    }
    __device__ void publish(const tfi_choice &choice) const
    {
        a.choices[i] = choice;
        if (published) published[i] = choice;
        if (choice.token < 0) return;
        tokens[count] = choice.token;
        slot->count = count + 1;
    }
};

__global__ void __launch_bounds__(TEAM_THREADS) greedy(tfi_draw_args a, const tfi_cuda_live *live)
{
    __shared__ team_slots slots;
    follow();
    team t = join(&slots);
    drawer d(a, live, team_index(t));
    d.wait();
    if (!d.lives) return;
    const float *x = a.logits + d.draw.row * a.V;
    const part p = own_part(t, a.V);
    const facts f = look(x, p, d.first_eos, d.s.eos, may_end(d.s, d.count) ? 0 : d.s.eos_count);
    tfi_choice choice = d.choose(team_most(t, f.best));
    if (d.s.logprobs && choice.token >= 0) choice.logprob = logprob(t, x, p, f.max, (uint32_t)choice.token);
    if (t.member == 0 && threadIdx.x == 0) d.publish(choice);
}

/* A warp a draw. */
__global__ void __launch_bounds__(WARP)
    greedy_of_keys(tfi_draw_args a, const uint64_t *keys, int parts, const tfi_cuda_live *live)
{
    follow();
    drawer d(a, live, blockIdx.x);
    uint64_t most = 0;
    d.wait();
    if (!d.lives) return;
#pragma unroll 8
    for (int k = threadIdx.x; k < parts; k += WARP) most = max(most, keys[d.i * parts + k]);
    most = warp_most(most);
    if (threadIdx.x == 0) d.publish(d.choose(most));
}

} // namespace

extern "C" int tfi_cuda_is_greedy(const tfi_sampling *s)
{
    const int penalises = s->encoder_repetition_penalty != 1 || s->repetition_penalty != 1 || s->presence_penalty != 0 ||
                          s->frequency_penalty != 0 || s->no_repeat_ngram_size > 0 || s->encoder_no_repeat_ngram_size > 0;
    const int bans = s->bad_words.count > 0 || s->suppress_count > 0 || s->begin_suppress_count > 0;
    const int changes = s->sequence_bias.count > 0 || s->forced_bos >= 0 || s->forced_eos_count > 0 ||
                        s->remove_invalid_values || s->decay_start >= 0 || s->renormalize_logits;

    return !s->do_sample && s->num_beams <= 1 && !penalises && !bans && !changes;
}

extern "C" tf_status tfi_cuda_greedy(const tfi_cuda_launch *l, const tfi_draw_args *a)
{
    if (a->count == 0) return TF_STATUS_OK;
    return start_teams(l, "GREEDY", greedy, a->count, team_size(l, a->count, 2), 0, *a, l->live);
}

extern "C" tf_status tfi_cuda_greedy_of_keys(const tfi_cuda_launch *l, const tfi_draw_args *a, const uint64_t *keys,
                                             int64_t parts)
{
    if (a->count == 0) return TF_STATUS_OK;
    return start(l, "GREEDY", greedy_of_keys, (unsigned)a->count, WARP, 0, *a, keys, (int)parts, l->live);
}
