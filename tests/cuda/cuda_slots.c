#include "cuda_slots.h"

int chance(int percent)
{
    return pick(1, 100) <= percent;
}

int32_t any_vocab(void)
{
    static const int32_t sizes[] = {50257, 50257, 32128, 8191, 8192, 8193, 1025, 513, 100, 33, 70001};
    const int32_t V = sizes[pick(0, 10)];
    return at_most(V, pick(0, 7) ? 1025 : 8193);
}

int32_t *any_ids(int32_t count, int32_t V)
{
    int32_t *ids = host_bytes(count * (int64_t)sizeof *ids);
    const int32_t few = V < 12 ? V : 12; /* so that they come again */
    for (int32_t i = 0; i < count; i++) ids[i] = chance(70) ? pick(0, few - 1) : pick(0, V - 1);
    return ids;
}

int any_capability(void)
{
    static const int older[] = {75, 80};
    return chance(33) ? older[pick(0, 1)] : device_capability;
}

/* ---- settings ---- */

tfi_sampling plain_sampling(int32_t V)
{
    return (tfi_sampling){.vocab = V,
                          .prompt = 1,
                          .max_length = TOKENS,
                          .encoder_repetition_penalty = 1,
                          .repetition_penalty = 1,
                          .forced_bos = -1,
                          .decay_start = -1,
                          .begin_index = -1,
                          .temperature = 1,
                          .top_h = NAN,
                          .top_p = 1,
                          .min_p = NAN,
                          .typical_p = 1,
                          .num_beams = 1,
                          .length_penalty = 1,
                          .seed = check_random()};
}

static const int32_t *device_ids(const int32_t *ids, int32_t count)
{
    return ids ? device_copy(ids, count * (int64_t)sizeof *ids) : NULL;
}

static tfi_id_lists device_lists(const tfi_id_lists *l)
{
    if (l->count == 0) return *l;
    return (tfi_id_lists){
        .count = l->count, .start = device_ids(l->start, l->count + 1), .ids = device_ids(l->ids, l->start[l->count])};
}

const tfi_sampling *device_sampling(const tfi_sampling *host)
{
    tfi_sampling s = *host;
    s.eos = device_ids(s.eos, s.eos_count);
    s.sequence_bias = device_lists(&s.sequence_bias);
    if (s.sequence_bias_values)
        s.sequence_bias_values = device_copy(s.sequence_bias_values, s.sequence_bias.count * (int64_t)sizeof(float));
    s.source = device_ids(s.source, s.source_count);
    s.bad_words = device_lists(&s.bad_words);
    s.forced_eos = device_ids(s.forced_eos, s.forced_eos_count);
    s.suppress = device_ids(s.suppress, s.suppress_count);
    s.begin_suppress = device_ids(s.begin_suppress, s.begin_suppress_count);
    return device_copy(&s, sizeof s);
}

/* ---- beams ---- */

tfi_beams *new_beams(int32_t count)
{
    tfi_beams *b = host_bytes(sizeof *b);
    b->finished_scores = host_bytes(count * (int64_t)sizeof *b->finished_scores);
    b->is_finished = host_bytes(count);
    b->open = 1;
    for (int32_t i = 0; i < count; i++) b->finished_scores[i] = -1e9f;
    return b;
}

tfi_beams *device_beams(const tfi_beams *host, int32_t count)
{
    tfi_beams b = *host;
    b.finished_scores = device_copy(b.finished_scores, count * (int64_t)sizeof *b.finished_scores);
    b.is_finished = device_copy(b.is_finished, count);
    return device_copy(&b, sizeof b);
}

/* ---- slots ---- */

tfi_slot *add_slot(world *w, const tfi_sampling *s, const tfi_sampling *device, int32_t count, int32_t room)
{
    tfi_slot *slot = &w->host[w->count];
    int32_t *tokens = host_bytes(room * (int64_t)sizeof *tokens), *ids = any_ids(count, s->vocab);

    memcpy(tokens, ids, (size_t)count * sizeof *tokens);
    *slot = (tfi_slot){.sampling = s, .tokens = tokens, .count = count, .sequence = s->num_beams > 1 ? 0 : pick(0, 7)};
    w->mirror[w->count] = *slot;
    w->mirror[w->count].sampling = device;
    w->mirror[w->count].tokens = device_copy(tokens, room * (int64_t)sizeof *tokens);
    w->count++;
    return slot;
}

void send_slots(world *w)
{
    w->device = device_copy(w->mirror, sizeof w->mirror);
}

int near(float a, float b)
{
    return a == b || (isnan(a) && isnan(b)) || fabsf(a - b) <= 1e-5f * (1 + fabsf(b));
}

void compare_slots(const world *w)
{
    tfi_slot slots[SLOTS];
    int32_t tokens[TOKENS];

    device_ok(cudaMemcpy(slots, w->device, sizeof slots, cudaMemcpyDeviceToHost), "cudaMemcpy");
    for (int32_t i = 0; i < w->count; i++) {
        const int32_t count = w->host[i].count;
        CHECK_INT(slots[i].count, count);
        CHECK(near(slots[i].score, w->host[i].score));
        device_ok(cudaMemcpy(tokens, slots[i].tokens, (size_t)count * sizeof *tokens, cudaMemcpyDeviceToHost), "cudaMemcpy");
        CHECK(memcmp(tokens, w->host[i].tokens, (size_t)count * sizeof *tokens) == 0);
    }
}

/* ---- logits ---- */

float *any_logits(int64_t rows, int64_t V)
{
    float *x = host_bytes(rows * V * (int64_t)sizeof *x);
    for (int64_t r = 0; r < rows; r++) {
        const float centre = chance(50) ? -60 : 0, spread = check_uniform(1, 12);
        const int coarse = chance(15), sorted = chance(8);
        for (int64_t i = 0; i < V; i++) {
            const float v = centre + spread * (check_uniform(-1, 1) + check_uniform(-1, 1) + check_uniform(-1, 1)) / 2;
            x[r * V + i] = coarse ? floorf(v) : v;
        }
        for (int64_t i = 0; sorted && i < V; i++)
            x[r * V + i] = centre - spread * (float)i / (float)V; /* the best in one place */
        if (chance(4)) x[r * V + pick(0, (int32_t)V - 1)] = NAN;
        if (chance(4)) x[r * V + pick(0, (int32_t)V - 1)] = INFINITY;
        if (chance(10)) x[r * V + pick(0, (int32_t)V - 1)] = -INFINITY;
    }
    return x;
}

tfi_cuda_live live_draws(int32_t draws, int32_t rows)
{
    tfi_cuda_live live = {.draws = draws};
    for (int i = 0; i < TFI_ROWS_COUNT; i++) live.rows[i] = -1;
    live.rows[TFI_ROWS_SELECTED] = rows;
    return live;
}
