/* The first stage of LOGITS_PROCESS, in the order and arithmetic of src/backend/ref/process_constrain.c, whose names these
 * are.
 *
 * Shapes    x, y [S, V] fp32
 * Parallel  the blocks of a row have equal parts of it: each looks at all ids of the lists and histories and changes what is
 *           its own. Settings are read before the wait. For log_softmax, for beams, members of a team tell one another of
 *           their parts; a block that is a team alone reads the whole row
 * Needs     nothing
 * Floor     8*V bytes a row; V=50257: 0.4 MB, from L2 and back, one read behind the other: 2 us
 * Measured  1.6 us where nothing is asked, 64 rows 5.9; log_softmax of 4 rows of 32128 4.1 us, on H200 */
#include "process.cuh"

namespace
{

enum { NOTES = 8192 };

struct share {
    const tfi_sampling *s; /* shared */
    float *y;
    int32_t V, begin, end; /* ids begin to end are the block's */
    const int32_t *tokens;
    int32_t length;
    int *notes; /* [end - begin] shared, undefined between uses */
};

__device__ bool is_own(const share &p, int32_t id)
{
    return id >= p.begin && id < p.end;
}

__device__ int *note(const share &p, int32_t id)
{
    return &p.notes[id - p.begin];
}

__device__ bool is_eos(const tfi_sampling *s, int32_t token)
{
    for (int32_t i = 0; i < s->eos_count; i++)
        if (s->eos[i] == token) return true;
    return false;
}

/* Each changes y; the next may not begin before. */
template <typename Visit>
__device__ void for_list(int32_t count, Visit visit)
{
    for (int32_t i = threadIdx.x; i < count; i += blockDim.x) visit(i);
    __syncthreads();
}

__device__ void ban(const share &p, const int32_t *ids, int32_t count)
{
    for_list(count, [&](int32_t i) {
        if (is_own(p, ids[i])) p.y[ids[i]] = -CUDART_INF_F;
    });
}

__device__ bool are_equal(const int32_t *a, const int32_t *b, int32_t count)
{
    for (int32_t i = 0; i < count; i++)
        if (a[i] != b[i]) return false;
    return true;
}

/* ---- biases and bans of sequences ---- */

__device__ int32_t list_length(const tfi_id_lists *l, int32_t i)
{
    return l->start[i + 1] - l->start[i];
}

__device__ const int32_t *list_ids(const tfi_id_lists *l, int32_t i)
{
    return l->ids + l->start[i];
}

__device__ int32_t last_id(const tfi_id_lists *l, int32_t i)
{
    return l->ids[l->start[i + 1] - 1];
}

__device__ bool is_due(const share &p, const tfi_id_lists *l, int32_t i)
{
    const int32_t before = list_length(l, i) - 1;
    if (before < 0 || before > p.length || !is_own(p, last_id(l, i))) return false;
    return are_equal(list_ids(l, i), p.tokens + p.length - before, before);
}

__device__ bool is_repeated(const tfi_id_lists *l, int32_t i)
{
    const int32_t length = list_length(l, i);

    for (int32_t k = i + 1; k < l->count; k++)
        if (list_length(l, k) == length && are_equal(list_ids(l, k), list_ids(l, i), length)) return true;
    return false;
}

/* Whoever comes first to an id adds up its biases, in their order. */
__device__ void bias_sequences(const share &p)
{
    const tfi_id_lists *l = &p.s->sequence_bias;

    if (l->count == 0) return;
    for_list(l->count, [&](int32_t i) {
        if (is_due(p, l, i)) *note(p, last_id(l, i)) = 0;
    });
    for_list(l->count, [&](int32_t i) {
        if (!is_due(p, l, i)) return;
        const int32_t id = last_id(l, i);
        float sum = 0;
        if (atomicExch(note(p, id), 1) != 0) return;
        for (int32_t k = 0; k < l->count; k++)
            if (list_length(l, k) > 0 && last_id(l, k) == id && is_due(p, l, k) && !is_repeated(l, k))
                sum += p.s->sequence_bias_values[k];
        p.y[id] += sum;
    });
}

__device__ void ban_words(const share &p)
{
    const tfi_id_lists *l = &p.s->bad_words;

    for_list(l->count, [&](int32_t i) {
        if (!is_due(p, l, i)) return;
        const int32_t id = last_id(l, i);
        if (list_length(l, i) > 1 || !is_eos(p.s, id)) p.y[id] += -CUDART_INF_F;
    });
}

/* ---- penalties ---- */

/* Once for each id among `ids`. */
__device__ void penalise_repetition(const share &p, const int32_t *ids, int32_t count, float penalty)
{
    for_list(count, [&](int32_t i) {
        if (is_own(p, ids[i])) *note(p, ids[i]) = 0;
    });
    for_list(count, [&](int32_t i) {
        if (!is_own(p, ids[i]) || atomicExch(note(p, ids[i]), 1) != 0) return;
        const float y = p.y[ids[i]];
        p.y[ids[i]] = y < 0 ? y * penalty : y / penalty;
    });
}

__device__ void penalise_drawn(const share &p)
{
    const int32_t *drawn = p.tokens + p.s->prompt;
    const int32_t count = p.length - p.s->prompt;

    for_list(count, [&](int32_t i) {
        if (is_own(p, drawn[i])) *note(p, drawn[i]) = 0;
    });
    for_list(count, [&](int32_t i) {
        if (is_own(p, drawn[i])) atomicAdd(note(p, drawn[i]), 1);
    });
    for_list(count, [&](int32_t i) {
        if (!is_own(p, drawn[i])) return;
        const int times = atomicExch(note(p, drawn[i]), 0);
        if (times > 0) p.y[drawn[i]] -= __fadd_rn(p.s->presence_penalty, __fmul_rn(p.s->frequency_penalty, (float)times));
    });
}

__device__ void ban_ngrams(const share &p, const int32_t *ids, int32_t count, int32_t size)
{
    if (p.length + 1 < size) return;
    const int32_t *last = p.tokens + p.length + 1 - size;
    for_list(count - size + 1, [&](int32_t i) {
        const int32_t id = ids[i + size - 1];
        if (is_own(p, id) && are_equal(ids + i, last, size - 1)) p.y[id] = -CUDART_INF_F;
    });
}

__device__ void repetition(const share &p)
{
    const tfi_sampling *s = p.s;

    if (s->encoder_repetition_penalty != 1)
        penalise_repetition(p, s->source, s->source_count, (float)(1 / (double)s->encoder_repetition_penalty));
    if (s->repetition_penalty != 1) penalise_repetition(p, p.tokens, p.length, s->repetition_penalty);
    if (s->presence_penalty != 0 || s->frequency_penalty != 0) penalise_drawn(p);
    if (s->no_repeat_ngram_size > 0) ban_ngrams(p, p.tokens, p.length, s->no_repeat_ngram_size);
    if (s->encoder_no_repeat_ngram_size > 0) ban_ngrams(p, s->source, s->source_count, s->encoder_no_repeat_ngram_size);
}

/* ---- the rest ---- */

__device__ void force(const share &p, const int32_t *ids, int32_t count)
{
    for_list(p.end - p.begin, [&](int32_t i) { p.y[p.begin + i] = -CUDART_INF_F; });
    for_list(count, [&](int32_t i) {
        if (is_own(p, ids[i])) p.y[ids[i]] = 0;
    });
}

__device__ void remove_invalid(const share &p)
{
    for_list(p.end - p.begin, [&](int32_t i) {
        const float v = p.y[p.begin + i];
        p.y[p.begin + i] = v != v ? 0 : fminf(fmaxf(v, -CUDART_MAX_NORMAL_F), CUDART_MAX_NORMAL_F);
    });
}

__device__ bool is_first(const int32_t *ids, int32_t i)
{
    for (int32_t k = 0; k < i; k++)
        if (ids[k] == ids[i]) return false;
    return true;
}

__device__ void favour_end(const share &p, int32_t past)
{
    const float factor = (float)(pow((double)p.s->decay_factor, (double)past) - 1);

    for_list(p.s->eos_count, [&](int32_t i) {
        const int32_t id = p.s->eos[i];
        if (!is_own(p, id) || !is_first(p.s->eos, i)) return;
        const float before = p.y[id];
        if (isfinite(before)) p.y[id] = __fadd_rn(before, __fmul_rn(fabsf(before), factor));
    });
}

__device__ void constrain_share(const share &p)
{
    const tfi_sampling *s = p.s;
    const int32_t drawn = p.length - s->prompt;

    bias_sequences(p);
    repetition(p);
    ban_words(p);
    if (p.length < s->min_length || drawn < s->min_new_tokens) ban(p, s->eos, s->eos_count);
    if (s->forced_bos >= 0 && p.length == 1) force(p, &s->forced_bos, 1);
    if (s->forced_eos_count > 0 && p.length == s->max_length - 1) force(p, s->forced_eos, s->forced_eos_count);
    if (s->remove_invalid_values) remove_invalid(p);
    if (s->decay_start >= 0 && drawn > s->decay_start) favour_end(p, drawn - s->decay_start);
    ban(p, s->suppress, s->suppress_count);
    if (p.length == s->begin_index) ban(p, s->begin_suppress, s->begin_suppress_count);
}

/* Nothing but copying is done to nearly all rows. */
__device__ bool asks(const tfi_sampling *s)
{
    return s->sequence_bias.count > 0 || s->encoder_repetition_penalty != 1 || s->repetition_penalty != 1 ||
           s->presence_penalty != 0 || s->frequency_penalty != 0 || s->no_repeat_ngram_size > 0 ||
           s->encoder_no_repeat_ngram_size > 0 || s->bad_words.count > 0 || s->min_length > 0 || s->min_new_tokens > 0 ||
           s->forced_bos >= 0 || s->forced_eos_count > 0 || s->remove_invalid_values || s->decay_start >= 0 ||
           s->suppress_count > 0 || s->begin_suppress_count > 0;
}

__global__ void __launch_bounds__(TEAM_THREADS) constrain(tfi_process_args a, const tfi_cuda_live *live, unsigned parts)
{
    __shared__ team_slots slots;
    __shared__ int notes[NOTES];
    __shared__ tfi_sampling s;
    follow();
    team t = join(&slots);
    const int64_t row = blockIdx.x / parts;
    const part p = part_of(a.V, blockIdx.x % parts, parts);
    const bool lives = row < live->rows[TFI_ROWS_SELECTED];
    const tfi_slot *slot = lives && a.row_slots[row] >= 0 ? &a.slots[a.row_slots[row]] : NULL;
    if (slot) copy_settings(slot->sampling, &s);
    const bool asked = slot && asks(&s);
    wait_for_results();
    if (!lives) return;
    const float *x = a.x + row * a.V;
    float *y = a.y + row * a.V;
    if (slot && s.num_beams > 1) {
        const log_scale scale = log_scale_of(t, x, own_part(t, a.V));
        copy_row(x + p.begin, y + p.begin, p.count, [&](float v) { return v - scale.max - scale.log_sum; });
    } else {
        copy_row(x + p.begin, y + p.begin, p.count, [](float v) { return v; });
    }
    if (!asked) return;
    __syncthreads();
    for (int64_t begin = p.begin; begin < p.begin + p.count; begin += NOTES) {
        const int64_t end = min(begin + NOTES, p.begin + p.count);
        constrain_share({&s, y, (int32_t)a.V, (int32_t)begin, (int32_t)end, slot->tokens, __ldcg(&slot->count), notes});
    }
}

} // namespace

tf_status tfi_cuda_constrain(const tfi_cuda_launch *l, const tfi_process_args *a)
{
    return start_teams(l, "LOGITS_PROCESS", constrain, a->S, process_parts(l, a, 2), 0, *a, l->live, process_parts(l, a, 2));
}
