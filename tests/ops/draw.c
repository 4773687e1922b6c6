/* The ops that process logits and draw tokens: right on small cases that a reader can follow, the same for any number of
 * workers, nothing written beyond. That they equal transformers on random ones: tests/conformance/test_processors.py. */
#include <stdlib.h>

#include "opcheck.h"

static const tfi_op_types all_f32 = {TFI_F32, TFI_F32, TFI_F32};
enum { ROOM = 32 };

static tfi_sampling switched_off(int32_t V)
{
    return (tfi_sampling){.vocab = V,
                          .prompt = 1,
                          .max_length = ROOM,
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
                          .length_penalty = 1};
}

static int64_t scratch_of(tfi_op_kind kind, int64_t V)
{
    tfi_value values[] = {{.cols = V}};
    const tfi_graph graph = {.values = values, .value_count = 1};
    return tfi_host_scratch(&graph, &(tfi_op){.kind = kind}, 1, 1);
}

/* n sequences of one request, each with tokens between guard bands. */
static tfi_slot *open_slots(const tfi_sampling *s, int32_t n)
{
    tfi_slot *slots = op_zeros(n * (int64_t)sizeof *slots);
    tfi_beams *beams = op_zeros(sizeof *beams);

    beams->finished_scores = check_bytes(n * (int64_t)sizeof(float));
    beams->is_finished = check_bytes(n);
    beams->open = 1;
    for (int32_t i = 0; i < n; i++) {
        slots[i] = (tfi_slot){.sampling = s, .count = 1, .sequence = i, .score = i > 0 ? -1e9f : 0, .beams = beams};
        slots[i].tokens = check_bytes(ROOM * (int64_t)sizeof(int32_t));
        slots[i].tokens[0] = 1;
        beams->finished_scores[i] = -1e9f;
        beams->is_finished[i] = 0;
    }
    return slots;
}

/* Both stages over x [S, V] with slot r for row r, in all tiers; the last one's result. */
static const float *processed(const tfi_slot *slots, const float *x, int64_t S, int64_t V, int workers)
{
    int32_t *rows = op_zeros(S * (int64_t)sizeof *rows);
    float *first = NULL;

    for (int32_t r = 0; r < S; r++) rows[r] = r;
    for (int tier = 0; tier < tier_count; tier++) {
        const tfi_host_fn fn = op_fn(TFI_OP_LOGITS_PROCESS, all_f32, tier);
        float *constrained = op_out(TFI_F32, S * V), *y = op_out(TFI_F32, S * V);
        tfi_process_args a = {x, rows, slots, constrained, S, V, TFI_PROCESS_CONSTRAIN};
        op_call(fn, &a, workers, scratch_of(TFI_OP_LOGITS_PROCESS, V));
        a = (tfi_process_args){constrained, rows, slots, y, S, V, TFI_PROCESS_WARP};
        op_call(fn, &a, workers, scratch_of(TFI_OP_LOGITS_PROCESS, V));
        if (!first) first = y;
        op_check_same(first, y, TFI_F32, S * V);
    }
    return first;
}

/* A step of all slots, a row each; the choices, between guard bands and full of 0xff before. */
static tfi_choice *drawn(tfi_slot *slots, const float *x, int64_t n, int64_t V, int tier, int workers)
{
    static const tfi_op_kind kinds[] = {TFI_OP_SAMPLE, TFI_OP_BEAM_STEP, TFI_OP_STOP};
    tfi_draw *draws = op_zeros(n * (int64_t)sizeof *draws);
    tfi_choice *choices = check_bytes(n * (int64_t)sizeof *choices);
    const tfi_draw_args a = {x, x, draws, slots, choices, n, V};

    memset(choices, 0xff, (size_t)n * sizeof *choices);
    for (int32_t i = 0; i < n; i++) draws[i] = (tfi_draw){i, i};
    for (int k = 0; k < 3; k++) op_call(op_fn(kinds[k], all_f32, tier), &a, workers, scratch_of(kinds[k], V));
    return choices;
}

/* What a row without any processor is: the same bits, NaN and infinity too. */
static void process_copies(void)
{
    static const int64_t sizes[] = {1, 63, 64, 65, 1000};

    for (int i = 0; i < 5; i++) {
        const int64_t V = sizes[i];
        const tfi_sampling s = switched_off((int32_t)V);
        const tfi_slot *slots = open_slots(&s, 3);
        float *x = op_values(TFI_F32, 3 * V, -5, 5);
        x[V - 1] = NAN;
        x[V] = INFINITY;
        for (int workers = 1; workers <= 3; workers++) op_check_same(processed(slots, x, 3, V, workers), x, TFI_F32, 3 * V);
    }
}

/* All processors at once, rows of several sequences: workers make no difference. */
static void process_workers(void)
{
    static const int32_t eos[] = {3}, starts[] = {0, 1, 3}, ids[] = {5, 1, 7}, source[] = {2, 9, 2};
    static const float biases[] = {-2, 3};
    enum { S = 5, V = 333 };
    tfi_sampling s = switched_off(V);

    s.eos = eos;
    s.eos_count = 1;
    s.sequence_bias = s.bad_words = (tfi_id_lists){2, starts, ids};
    s.sequence_bias_values = biases;
    s.source = source;
    s.source_count = 3;
    s.encoder_repetition_penalty = s.repetition_penalty = 1.3f;
    s.presence_penalty = s.frequency_penalty = 0.5f;
    s.no_repeat_ngram_size = s.encoder_no_repeat_ngram_size = 2;
    s.min_new_tokens = 4;
    s.do_sample = s.renormalize_logits = 1;
    s.temperature = 0.8f;
    s.top_k = 200;
    s.top_h = s.top_p = s.typical_p = 0.95f;
    s.min_p = s.epsilon_cutoff = s.eta_cutoff = 1e-4f;
    const tfi_slot *slots = open_slots(&s, S);
    const float *x = op_values(TFI_F32, S * V, -5, 5), *first = processed(slots, x, S, V, 1);
    for (int workers = 2; workers <= 3; workers++) op_check_same(first, processed(slots, x, S, V, workers), TFI_F32, S * V);
    for (int r = 0; r < S; r++) {
        double sum = 0;
        for (int i = 0; i < V; i++) sum += exp((double)first[r * V + i]);
        CHECK(fabs(sum - 1) < 1e-5 && first[r * V + 3] == -INFINITY && first[r * V + 5] == -INFINITY);
    }
}

/* Of equal scores at a cut the higher ids stay, as after a stable sort; top_k keeps all of them. */
static void process_ties(void)
{
    static const float x[] = {0, 1, 0, 1, 0, -9};
    enum { V = 6 };
    tfi_sampling s = switched_off(V);
    const tfi_slot *slots = open_slots(&s, 1);

    s.do_sample = 1;
    s.top_p = 0.3f;
    const float *y = processed(slots, x, 1, V, 1);
    for (int i = 0; i < V; i++) CHECK((y[i] > -INFINITY) == (i == 3));
    s.top_p = 1;
    s.top_k = 1;
    y = processed(slots, x, 1, V, 1);
    for (int i = 0; i < V; i++) CHECK((y[i] > -INFINITY) == (i == 1 || i == 3));
}

/* Where 60 of 61 ids share six tenths, typical_p finds the best one too little of a surprise; epsilon_cutoff then keeps the
 * best that is left, with its equals. */
static void process_typical(void)
{
    enum { V = 61 };
    tfi_sampling s = switched_off(V);
    const tfi_slot *slots = open_slots(&s, 1);
    float *x = op_values(TFI_F32, V, 0, 0);

    x[0] = logf(40);
    s.do_sample = 1;
    s.typical_p = 0.5f;
    s.epsilon_cutoff = 0.9f;
    const float *y = processed(slots, x, 1, V, 1);
    for (int i = 0; i < V; i++) CHECK((y[i] > -INFINITY) == (i > 0));
}

/* Greedy, sampling and beams side by side; what one worker does, several do. */
static void draw_workers(void)
{
    enum { BEAMS = 3, N = 4 + 2 * BEAMS, V = 150, STEPS = 4 };
    static const int32_t eos[] = {3};
    tfi_sampling kinds[4];
    tfi_choice expected[STEPS][N];
    int32_t tokens[N][ROOM];
    float *x = op_values(TFI_F32, STEPS * N * V, -3, 3);

    for (int k = 0; k < 4; k++) {
        kinds[k] = switched_off(V);
        kinds[k].seed = check_random();
        kinds[k].do_sample = k & 1;
        kinds[k].num_beams = k & 2 ? BEAMS : 1;
        kinds[k].eos = eos;
        kinds[k].eos_count = 1;
        kinds[k].logprobs = 1;
    }
    for (int run = 0; run < 3 * tier_count; run++) {
        tfi_slot slots[N];
        memcpy(slots, open_slots(&kinds[0], 2), 2 * sizeof *slots);
        memcpy(slots + 2, open_slots(&kinds[3], BEAMS), BEAMS * sizeof *slots);
        memcpy(slots + 2 + BEAMS, open_slots(&kinds[1], 2), 2 * sizeof *slots);
        memcpy(slots + 4 + BEAMS, open_slots(&kinds[2], BEAMS), BEAMS * sizeof *slots);
        for (int step = 0; step < STEPS; step++) {
            const tfi_choice *choices = drawn(slots, x + step * N * V, N, V, run / 3, run % 3 + 1);
            if (run == 0) memcpy(expected[step], choices, sizeof expected[step]);
            CHECK(memcmp(expected[step], choices, sizeof expected[step]) == 0);
            for (int i = 0; i < N; i++) CHECK(choices[i].token >= 0 && choices[i].token < V && choices[i].logprob < 0);
        }
        for (int i = 0; i < N; i++) {
            CHECK_INT(slots[i].count, 1 + STEPS);
            if (run == 0) memcpy(tokens[i], slots[i].tokens, (size_t)slots[i].count * sizeof tokens[i][0]);
            CHECK(memcmp(tokens[i], slots[i].tokens, (size_t)slots[i].count * sizeof tokens[i][0]) == 0);
        }
    }
}

/* Beams exchange their arrays of tokens, and lose none. */
static void beams_keep_their_arrays(void)
{
    enum { BEAMS = 6, V = 40, STEPS = 20 };
    tfi_sampling s = switched_off(V);

    s.num_beams = BEAMS;
    tfi_slot *slots = open_slots(&s, BEAMS);
    int32_t *arrays[BEAMS], said[BEAMS][ROOM];
    for (int i = 0; i < BEAMS; i++) {
        arrays[i] = slots[i].tokens;
        said[i][0] = 1;
    }
    for (int step = 1; step <= STEPS; step++) {
        int32_t before[BEAMS][ROOM];
        const tfi_choice *choices = drawn(slots, op_values(TFI_F32, BEAMS * V, -3, 3), BEAMS, V, 0, 1);
        memcpy(before, said, sizeof before);
        for (int i = 0; i < BEAMS; i++) {
            int found = 0;
            memcpy(said[i], before[choices[i].parent], sizeof said[i]);
            said[i][step] = choices[i].token;
            CHECK(memcmp(said[i], slots[i].tokens, (size_t)(step + 1) * sizeof said[i][0]) == 0);
            for (int k = 0; k < BEAMS; k++) found += slots[k].tokens == arrays[i];
            CHECK_INT(found, 1);
            CHECK(i == 0 || choices[i - 1].score >= choices[i].score);
        }
    }
}

/* Equal candidates: the lower beam, then the lower id. */
static void beam_ties(void)
{
    enum { BEAMS = 2, V = 5 };
    static const float x[BEAMS * V] = {0};
    tfi_sampling s = switched_off(V);

    s.num_beams = BEAMS;
    tfi_slot *slots = open_slots(&s, BEAMS);
    slots[1].score = 0;
    const tfi_choice *choices = drawn(slots, x, BEAMS, V, 0, 1);
    CHECK(choices[0].parent == 0 && choices[0].token == 0 && choices[1].parent == 0 && choices[1].token == 1);
}

static void philox(void)
{
    static const uint32_t counter[4] = {0};
    uint32_t r[4];

    tfi_philox(0, counter, r);
    CHECK(r[0] == 0x6627e8d5 && r[1] == 0xe169c58d && r[2] == 0xbc57ac4c && r[3] == 0x9b00dbd8);
}

void check_draw(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*body)(void);
    } cases[] = {{"process_copies", process_copies}, {"process_workers", process_workers},
                 {"process_ties", process_ties},     {"process_typical", process_typical},
                 {"draw_workers", draw_workers},     {"beams_keep_their_arrays", beams_keep_their_arrays},
                 {"beam_ties", beam_ties},           {"philox", philox}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        check_run(argc, argv, cases[i].name, cases[i].body);
        op_end();
    }
}

/* ---- figures ---- */

static void bench_settings(const char *name, const tfi_sampling *s, const float *x, int64_t V)
{
    static const int32_t row = 0;
    int32_t tokens[ROOM] = {0};
    tfi_slot slot = {.sampling = s, .tokens = tokens, .count = 1};
    float *y = op_zeros(V * 4), *z = op_zeros(V * 4);
    tfi_choice choice;
    const tfi_draw draw = {0, 0};
    const tfi_process_args constrain = {x, &row, &slot, y, 1, V, TFI_PROCESS_CONSTRAIN},
                           warp = {y, &row, &slot, z, 1, V, TFI_PROCESS_WARP};
    const tfi_draw_args sample = {z, x, &draw, &slot, &choice, 1, V};
    const int tier = tier_count - 1;
    const tfi_host_fn process = op_fn(TFI_OP_LOGITS_PROCESS, all_f32, tier), choose = op_fn(TFI_OP_SAMPLE, all_f32, tier);
    const int64_t scratch = scratch_of(TFI_OP_LOGITS_PROCESS, V);
    const double a = op_seconds(process, &constrain, scratch, 0, 1), b = op_seconds(process, &warp, scratch, 0, 1);

    /* The function appends a token each time; a copy of it that starts anew is not worth its words: the slot has room. */
    slot.tokens = op_zeros((int64_t)4 << 24);
    const double c = op_seconds(choose, &sample, 0, 0, 1);
    printf("%-34s constrain %6.1f us, warp %6.1f us, sample %6.1f us\n", name, a * 1e6, b * 1e6, c * 1e6);
}

void bench_draw(void)
{
    enum { V = 50257 };
    float *x = op_values(TFI_F32, V, 0, 1);
    tfi_sampling s = switched_off(V);

    for (int i = 0; i < V; i++) x[i] = -3 * logf(x[i] + 1e-6f); /* a tail like that of a language model */
    bench_settings("greedy V=50257", &s, x, V);
    s.logprobs = 1;
    bench_settings("greedy, log-probabilities", &s, x, V);
    s.logprobs = 0;
    s.do_sample = 1;
    bench_settings("sampling", &s, x, V);
    s.temperature = 0.8f;
    s.top_p = 0.9f;
    bench_settings("temperature, top_p", &s, x, V);
    s.top_k = 50;
    bench_settings("temperature, top_k 50, top_p", &s, x, V);
    s = switched_off(V);
    s.num_beams = 4;
    bench_settings("log_softmax of a beam", &s, x, V);
    op_end();

    float *rows = op_values(TFI_F32, 4 * V, -12, 0);
    tfi_slot *slots = open_slots(&s, 4);
    const tfi_draw draws[] = {{0, 0}, {1, 1}, {2, 2}, {3, 3}};
    tfi_choice choices[4];
    for (int i = 0; i < 4; i++) slots[i].tokens = op_zeros((int64_t)4 << 18);
    s.max_length = 1 << 18;
    const tfi_draw_args a = {rows, rows, draws, slots, choices, 4, V};
    printf("%-34s %6.1f us\n", "beam step, 4 beams",
           1e6 * op_seconds(op_fn(TFI_OP_BEAM_STEP, all_f32, 0), &a, scratch_of(TFI_OP_BEAM_STEP, V), 0, 1));
    op_end();
}
