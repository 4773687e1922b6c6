/* GREEDY: draws without sampling, beams or processors but those of least lengths, from raw logits; what it computes:
 * LOGITS_PROCESS, SAMPLE and STOP of src/backend/ref, one after the other.
 *
 * Shapes    logits [S, V] fp32, draws, choices [count]
 * Parallel  a team a draw. The draw's record, slot and settings are read before the wait, but not what draws write: the
 *           number of tokens. One gather brings the parts' best together; log-probabilities take two more and a second pass
 * Needs     nothing: what is not aligned of a row is read number by number
 * Floor     4*V bytes a draw, from L2 where the product before left them; 1 row: three reads of L2, one behind the other,
 *           and a gather: 2 us; 64 rows of 50257 at 4.3 TB/s: 3 us
 * Measured  2.4 us and 5.7 on H200; the four ops it stands for take 7.4 and 24
 * Tried     barriers over the cluster in place of gathers: 3.2 and 9.3; looking whether an id is banned in the one pass over
 *           the logits: 3.1 and 8.9, for the 18 copies of that */
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
    return {invalid ? ~(uint64_t)0 : low_first(best, best > -CUDART_INF_F ? (uint32_t)p.begin + at : 0), max};
}

__device__ float logprob(team &t, const float *x, part p, float own_max, uint32_t token)
{
    const float max = number_of((uint32_t)team_most(t, order_of(own_max)));
    return (float)((double)x[token] - ((double)max + log(number_of_sum(sum_exp(t, x, p, max)))));
}

__global__ void __launch_bounds__(TEAM_THREADS) greedy(tfi_draw_args a, const tfi_cuda_live *live)
{
    __shared__ team_slots slots;
    follow();
    team t = join(&slots);
    const int64_t i = team_index(t);
    const bool lives = i < live->draws;
    const tfi_draw draw = lives ? a.draws[i] : tfi_draw{};
    tfi_slot *slot = &a.slots[draw.slot];
    tfi_sampling s = {};
    int32_t first_eos = -1;
    if (lives) s = *slot->sampling;
    if (s.eos_count > 0) first_eos = s.eos[0];
    const int32_t sequence = lives ? slot->sequence : 0;
    tfi_choice *published = live->published;
    wait_for_results();
    if (!lives) return;
    const float *x = a.logits + draw.row * a.V;
    const int32_t count = __ldcg(&slot->count); /* not what was there before the wait */
    int32_t *tokens = slot->tokens;
    const bool may_end = count >= s.min_length && count - s.prompt >= s.min_new_tokens;
    const part p = own_part(t, a.V);
    const facts f = look(x, p, first_eos, s.eos, may_end ? 0 : s.eos_count);
    const uint64_t best = team_most(t, f.best);
    tfi_choice choice = {};
    choice.parent = sequence;
    choice.finished_from = -2;
    if (best == ~(uint64_t)0) {
        choice.token = -1;
        choice.stop = TFI_STOP_NUMERIC;
    } else {
        const uint32_t token = index_of(best);
        choice.token = (int32_t)token;
        if (s.logprobs) choice.logprob = logprob(t, x, p, f.max, token);
        if (choice.token == first_eos || is_among(s.eos, s.eos_count, token)) choice.stop = TFI_STOP_EOS;
        else if (count + 1 >= s.max_length) choice.stop = TFI_STOP_LENGTH;
    }
    if (t.member > 0 || threadIdx.x > 0) return;
    a.choices[i] = choice;
    if (published) published[i] = choice;
    if (choice.token < 0) return;
    tokens[count] = choice.token;
    slot->count = count + 1;
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
