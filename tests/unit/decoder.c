/* Programs of a decoder on the CPU backend: a graph over whole texts and one that goes on step by step from the store share
 * their weights and must agree; effects, fed values, taps of some rows, drawn ids, and the store itself. */
#include <math.h>
#include <stdlib.h>

#include "backend/cpu/cpu.h"
#include "check.h"
#include "graph/build.h"

enum {
    E = 48,
    F = 56,
    HEADS = 3,
    D = E / HEADS,
    VOCAB = 77,
    SEQUENCES = 3,
    LENGTH_MAX = 50,
    ROWS_MAX = SEQUENCES * LENGTH_MAX,
    TABLE = 5,
    BLOCKS = 64,
    SLOTS = 4,
    WEIGHTS_MAX = 16,
    GRAPHS = 2,
    THREADS = 2
};

static tfi_memory memory;

static int32_t below(int32_t n)
{
    return (int32_t)(check_random() % (uint64_t)n);
}

/* ---- a model: `whole` reads texts and keeps them as sources, `step` goes on from the store ---- */

typedef struct model {
    tfi_arena arena;
    tfi_graph whole, step;
    tfi_tensor tensors[WEIGHTS_MAX];
    int tensor_count;
    int32_t embed, table, gain, qkv, out, query, cross_out, up, down; /* weights */
    int32_t whole_hidden, hidden, final, logits;                      /* values, hidden: after the first attention */
    tfi_draw_values draw;
    tfi_dtype dtype;
} model;

static int32_t add_weight(tfi_builder *b, model *m, int64_t rows, int64_t cols, tfi_weight w)
{
    const float range = rows == 1 ? 1 : 1.5f / sqrtf((float)cols);
    tfi_tensor *t = &m->tensors[m->tensor_count++];

    *t = (tfi_tensor){.name = "t", .dtype = TFI_F32, .rank = 2, .shape = {rows, cols}, .stride = {cols, 1}};
    t->span = (size_t)(rows * cols * 4);
    t->data = (const uint8_t *)check_floats(rows * cols, rows == 1 ? 0.5f : -range, range);
    w.name = "weight";
    w.rows = rows;
    w.cols = cols;
    w.parts = 1;
    w.part[0] = t;
    w.part_rows[0] = rows == 1 ? cols : rows;
    return tfi_build_weight(b, &w);
}

/* The residual stream is fp32, whatever the products' type is. */
static int32_t attend_to_own(tfi_builder *b, model *m, tfi_attend attend, int32_t *qkv)
{
    const tfi_attention_spec spec = {
        .attend = attend, .layer = 0, .heads = HEADS, .head_size = D, .scale = 0.25f, .bias = m->table};
    const int32_t x = tfi_build_embed(b, "embed", m->embed, -1, -1, TFI_F32);
    const int32_t normed = tfi_build_rms_norm(b, "norm", x, -1, m->gain, 1e-6f, m->dtype);

    *qkv = tfi_build_linear(b, "qkv", normed, m->qkv, -1, TFI_ACT_NONE, -1, m->dtype);
    const int32_t attended = tfi_build_attention(b, "self", *qkv, &spec);
    return tfi_build_linear(b, "hidden", attended, m->out, -1, TFI_ACT_NONE, x, TFI_F32);
}

static void build_step(tfi_builder *b, model *m)
{
    const tfi_attention_spec cross = {
        .attend = TFI_ATTEND_SOURCE, .layer = 1, .heads = HEADS, .head_size = D, .scale = 0.25f, .bias = -1};
    int32_t qkv;

    tfi_build_kv_copy(b);
    m->hidden = attend_to_own(b, m, TFI_ATTEND_CACHE, &qkv);
    int32_t x = tfi_build_rms_norm(b, "cross_norm", m->hidden, -1, m->gain, 1e-6f, m->dtype);
    x = tfi_build_linear(b, "query", x, m->query, -1, TFI_ACT_NONE, -1, m->dtype);
    x = tfi_build_attention(b, "cross", x, &cross);
    const int32_t crossed = tfi_build_linear(b, "crossed", x, m->cross_out, -1, TFI_ACT_NONE, m->hidden, TFI_F32);
    x = tfi_build_rms_norm(b, "ffn_norm", crossed, -1, m->gain, 1e-6f, m->dtype);
    x = tfi_build_linear(b, "up", x, m->up, -1, TFI_ACT_NONE, -1, m->dtype);
    x = tfi_build_glu(b, "gated", x, TFI_ACT_GELU_TANH, m->dtype);
    m->final = tfi_build_linear(b, "final", x, m->down, -1, TFI_ACT_NONE, crossed, TFI_F32);
    tfi_build_keep(b, m->final);
    x = tfi_build_rms_norm(b, "last_norm", tfi_build_gather(b, "rows", m->final), -1, m->gain, 1e-6f, m->dtype);
    m->logits = tfi_build_linear(b, "logits", x, m->embed, -1, TFI_ACT_NONE, -1, TFI_F32);
    tfi_build_draw(b, m->logits, &m->draw);
}

static void model_open(model *m, tfi_dtype dtype)
{
    const tfi_relative relative = {.buckets = 8, .max_distance = 20};
    const tfi_weight matrix = {.dtype = dtype}, vector = {.dtype = TFI_F32}, bias = {.dtype = TFI_F32, .relative = relative};
    tfi_builder b;
    int32_t qkv;

    *m = (model){.arena = {.memory = &memory}, .dtype = dtype};
    tfi_build_begin(&b, &m->arena, &memory);
    m->embed = add_weight(&b, m, VOCAB, E, matrix);
    m->table = add_weight(&b, m, 8, HEADS, bias);
    m->gain = add_weight(&b, m, 1, E, vector);
    m->qkv = add_weight(&b, m, 3 * E, E, matrix);
    m->out = add_weight(&b, m, E, E, matrix);
    m->query = add_weight(&b, m, E, E, matrix);
    m->cross_out = add_weight(&b, m, E, E, matrix);
    m->up = add_weight(&b, m, 2 * F, E, matrix);
    m->down = add_weight(&b, m, E, F, matrix);
    m->whole_hidden = attend_to_own(&b, m, TFI_ATTEND_CAUSAL, &qkv);
    tfi_build_keep_source(&b, qkv, 1, HEADS, D, E);
    tfi_build_next(&b, &m->whole);
    build_step(&b, m);
    CHECK_OK(tfi_build_finish(&b, &m->whole, &m->step));
}

/* ---- a backend with both programs and a store ---- */

typedef struct engine {
    tfi_backend *backend;
    tfi_weight_form forms[WEIGHTS_MAX];
    tfi_program *whole, *step;
    tfi_store *store;
} engine;

static const int64_t limits[TFI_LIMIT_COUNT] = {ROWS_MAX, SEQUENCES, ROWS_MAX, TABLE *TFI_KV_BLOCK};

static void engine_open(engine *e, const model *m, int reference)
{
    const tfi_cpu_options o = {.memory = &memory, .threads = THREADS, .features = tfi_cpu_features(), .reference = reference};
    const tfi_store_shape shape = {
        .layers = 2, .heads = HEADS, .head_size = D, .dtype = m->dtype, .blocks = BLOCKS, .slots = SLOTS};

    CHECK_OK(tfi_cpu_open(&o, &e->backend));
    for (int32_t i = 0; i < m->step.weight_count; i++) {
        CHECK_OK(e->backend->weight_form(e->backend, &m->step.weights[i], &e->forms[i]));
        e->forms[i].data = check_bytes(e->forms[i].bytes);
        CHECK_OK(e->backend->weight_prepare(e->backend, &m->step.weights[i], &e->forms[i], NULL));
    }
    CHECK_OK(e->backend->program_open(e->backend, &m->whole, e->forms, limits, &memory, &e->whole));
    CHECK_OK(e->backend->program_open(e->backend, &m->step, e->forms, limits, &memory, &e->step));
    CHECK_OK(e->backend->store_open(e->backend, &shape, &memory, &e->store));
    memset(e->store->blocks, 0xff, (size_t)(BLOCKS * tfi_kv_block_bytes(&shape))); /* NaN: nobody reads what nobody wrote */
}

static void engine_close(engine *e)
{
    e->backend->store_close(e->store);
    e->backend->program_close(e->whole);
    e->backend->program_close(e->step);
    e->backend->close(e->backend);
}

/* ---- texts, and how far they have come ---- */

typedef struct state {
    int32_t ids[SEQUENCES][LENGTH_MAX], lengths[SEQUENCES], done[SEQUENCES];
    int32_t tables[SEQUENCES][TABLE], sources[SEQUENCES][TABLE], source_lens[SEQUENCES];
    int32_t spare[BLOCKS], spare_count;
    /* of the run */
    int32_t run_ids[ROWS_MAX], offsets[SEQUENCES + 1], selected[ROWS_MAX], row_slots[ROWS_MAX], lens[SEQUENCES], copies[2];
} state;

static void state_make(state *s)
{
    s->spare_count = BLOCKS;
    for (int32_t i = 0; i < BLOCKS; i++) { /* shuffled */
        const int32_t k = below(i + 1);
        s->spare[i] = s->spare[k];
        s->spare[k] = i;
    }
    for (int b = 0; b < SEQUENCES; b++) {
        s->lengths[b] = 1 + below(LENGTH_MAX);
        s->source_lens[b] = b == 1 ? 0 : s->lengths[b];
        s->done[b] = 0;
        for (int i = 0; i < s->lengths[b]; i++) s->ids[b][i] = below(VOCAB);
        for (int i = 0; i < TABLE; i++) {
            s->tables[b][i] = s->spare[--s->spare_count];
            s->sources[b][i] = s->spare[--s->spare_count];
        }
    }
}

/* The next counts[b] tokens of each text. */
static tfi_run next_run(state *s, const engine *e, const int32_t counts[SEQUENCES], const tfi_tap *taps, int32_t tap_count)
{
    tfi_run run = {.taps = taps,
                   .tap_count = tap_count,
                   .effects = TFI_EFFECT_KV,
                   .store = e->store,
                   .table_stride = TABLE,
                   .source_stride = TABLE};
    int32_t rows = 0;

    for (int b = 0; b < SEQUENCES; b++) {
        s->offsets[b] = rows;
        s->lens[b] = s->done[b] + counts[b];
        for (int i = 0; i < counts[b]; i++) s->run_ids[rows++] = s->ids[b][s->done[b] + i];
    }
    s->offsets[SEQUENCES] = rows;
    for (int32_t r = 0; r < rows; r++) {
        s->selected[r] = r;
        s->row_slots[r] = -1;
    }
    run.rows[TFI_ROWS_TOKENS] = run.rows[TFI_ROWS_SELECTED] = rows;
    run.rows[TFI_ROWS_SEQUENCES] = SEQUENCES;
    run.inputs[TFI_INPUT_IDS] = s->run_ids;
    run.inputs[TFI_INPUT_OFFSETS] = s->offsets;
    run.inputs[TFI_INPUT_SELECTED] = s->selected;
    run.inputs[TFI_INPUT_ROW_SLOTS] = s->row_slots;
    run.inputs[TFI_INPUT_KV_LENS] = s->lens;
    run.inputs[TFI_INPUT_KV_TABLES] = s->tables;
    run.inputs[TFI_INPUT_SOURCE_LENS] = s->source_lens;
    run.inputs[TFI_INPUT_SOURCE_TABLES] = s->sources;
    return run;
}

/* A sequence's last block moves elsewhere before the run reads it. */
static void move_block(state *s, tfi_run *run, int b)
{
    const int32_t at = s->done[b] / TFI_KV_BLOCK, to = s->spare[0];

    s->copies[0] = s->tables[b][at];
    s->copies[1] = to;
    s->spare[0] = s->tables[b][at];
    s->tables[b][at] = to;
    run->inputs[TFI_INPUT_KV_COPIES] = s->copies;
    run->copy_count = 1;
}

static void same(const float *a, const float *b, int64_t n, double bound)
{
    const double error = n ? check_relative_l2(a, b, n) : 0;
    check_count++;
    if (!(error <= bound)) check_failed(__FILE__, __LINE__, "relative error %g of %lld numbers", error, (long long)n);
}

/* Step by step, with chunks of any size, blocks that move and the reference beside it: as the whole text at once. */
static void steps_of(tfi_dtype dtype)
{
    static float whole[ROWS_MAX * E], hidden[ROWS_MAX * E], logits[2][ROWS_MAX * VOCAB];
    static state s;
    engine e, plain;
    model m;

    model_open(&m, dtype);
    engine_open(&e, &m, 0);
    engine_open(&plain, &m, 1);
    state_make(&s);
    const tfi_tap all = {.value = m.whole_hidden, .dst = whole, .stride = E};
    tfi_run run = next_run(&s, &e, s.lengths, &all, 1);
    int32_t starts[SEQUENCES];
    memcpy(starts, s.offsets, sizeof starts);
    CHECK_OK(e.backend->run(e.whole, &run));
    run.store = plain.store;
    run.tap_count = 0; /* the effects alone */
    CHECK_OK(plain.backend->run(plain.whole, &run));
    for (int turn = 0; s.done[0] < s.lengths[0] || s.done[1] < s.lengths[1] || s.done[2] < s.lengths[2]; turn++) {
        tfi_tap taps[] = {{.value = m.logits, .dst = logits[0], .stride = VOCAB},
                          {.value = m.hidden, .dst = hidden, .stride = E}};
        int32_t counts[SEQUENCES];
        for (int b = 0; b < SEQUENCES; b++) {
            const int32_t left = s.lengths[b] - s.done[b], some = turn == 0 ? 1 : below(turn % 3 ? 3 : 20);
            counts[b] = some < left ? some : left;
        }
        run = next_run(&s, &e, counts, taps, 2);
        if (turn % 2) move_block(&s, &run, below(SEQUENCES));
        CHECK_OK(e.backend->run(e.step, &run));
        taps[0].dst = logits[1];
        run.tap_count = 1;
        run.store = plain.store;
        CHECK_OK(plain.backend->run(plain.step, &run));
        same(logits[0], logits[1], run.rows[0] * VOCAB, dtype == TFI_BF16 ? 2e-2 : 5e-6);
        for (int b = 0; b < SEQUENCES; b++) {
            same(hidden + s.offsets[b] * E, whole + (starts[b] + s.done[b]) * E, counts[b] * (int64_t)E,
                 dtype == TFI_BF16 ? 1e-2 : 3e-6);
            s.done[b] += counts[b];
        }
        if (run.copy_count) /* nobody reads the old place any more */
            memset(e.store->blocks + s.copies[0] * tfi_kv_block_bytes(&e.store->shape), 0xff,
                   (size_t)tfi_kv_block_bytes(&e.store->shape));
    }
    engine_close(&e);
    engine_close(&plain);
    tfi_arena_close(&m.arena);
}

static void steps(void)
{
    tfi_backend *b;

    steps_of(TFI_F32);
    CHECK_OK(tfi_cpu_open(&(tfi_cpu_options){.memory = &memory, .threads = 1, .features = tfi_cpu_features()}, &b));
    const int bf16 = b->has_bf16;
    b->close(b);
    if (bf16) steps_of(TFI_BF16);
}

/* ---- one run's parts ---- */

/* Resumed, fed, tapped in part, with drawn ids: each against the plain run. */
static void parts_of_a_run(void)
{
    static float logits[ROWS_MAX * VOCAB], again[ROWS_MAX * VOCAB], final[ROWS_MAX * (E + 2)];
    static state s;
    engine e;
    model m;

    model_open(&m, TFI_F32);
    engine_open(&e, &m, 0);
    state_make(&s);
    tfi_run run = next_run(&s, &e, s.lengths, NULL, 0);
    CHECK_OK(e.backend->run(e.whole, &run));
    tfi_tap taps[] = {{.value = m.logits, .dst = logits, .stride = VOCAB}, {.value = m.final, .dst = final, .stride = E + 2}};
    const int64_t n = run.rows[0];
    run.taps = taps;
    run.tap_count = 2;
    CHECK_OK(e.backend->run(e.step, &run));

    /* From the kept value, some of the rows; no effect is asked for, and no input but the rows is looked at. */
    tfi_tap some = {.value = m.logits, .first = n / 2, .count = n - n / 2, .dst = again, .stride = VOCAB};
    tfi_run resumed = {.rows = {n, SEQUENCES, n}, .taps = &some, .tap_count = 1, .resume = 1};
    resumed.inputs[TFI_INPUT_SELECTED] = s.selected;
    CHECK_OK(e.backend->run(e.step, &resumed));
    CHECK(memcmp(again, logits + n / 2 * VOCAB, (size_t)(some.count * VOCAB) * sizeof *again) == 0);

    /* Fed instead of kept. */
    const tfi_feed feed = {.value = m.final, .src = final, .stride = E + 2};
    some = (tfi_tap){.value = m.logits, .dst = again, .stride = VOCAB};
    tfi_run fed = resumed;
    fed.resume = 0;
    fed.feeds = &feed;
    fed.feed_count = 1;
    memset(again, 0, sizeof again);
    CHECK_OK(e.backend->run(e.step, &fed));
    CHECK(memcmp(again, logits, (size_t)(n * VOCAB) * sizeof *again) == 0);
    for (int64_t i = 0; i < n * (E + 2); i++) final[i] = -final[i]; /* and it is what is fed that counts */
    fed.resume = 1;
    CHECK_OK(e.backend->run(e.step, &fed));
    CHECK(!(check_relative_l2(again, logits, n * VOCAB) < 0.1));

    /* What is not finite ends a run, unless it may be there. */
    final[(n - 1) * (E + 2)] = INFINITY;
    CHECK_STATUS(e.backend->run(e.step, &fed), TF_STATUS_NUMERIC);
    CHECK_ERROR_SAYS("of logits holds a NaN");
    some.infinite = 1;
    CHECK_OK(e.backend->run(e.step, &fed));
    CHECK(isnan(again[n * VOCAB - 1]));
    some.infinite = 0;
    some.count = n - 1;
    if (n > 1) CHECK_OK(e.backend->run(e.step, &fed)); /* the row is not among them */

    /* A slot's last token in place of its id. */
    int32_t tokens[] = {1, 2, s.run_ids[0]};
    e.backend->slot_set(e.store, 2, &(tfi_slot){.tokens = tokens, .count = 3});
    s.run_ids[0] = TFI_ID_DRAWN(2);
    taps[0].dst = again;
    CHECK_OK(e.backend->run(e.step, &run));
    CHECK(memcmp(again, logits, (size_t)(n * VOCAB) * sizeof *again) == 0);
    e.backend->slot_set(e.store, 2, NULL);
    CHECK(e.store->slots[2].tokens == NULL);
    engine_close(&e);
    tfi_arena_close(&m.arena);
}

/* Tokens are drawn when the run says so, from rows that the draws name. */
static void draws(void)
{
    static float logits[ROWS_MAX * VOCAB];
    static state s;
    int32_t tokens[SLOTS][LENGTH_MAX] = {{0}};
    tfi_sampling sampling = {.vocab = VOCAB,
                             .max_length = LENGTH_MAX,
                             .encoder_repetition_penalty = 1,
                             .repetition_penalty = 1,
                             .forced_bos = -1,
                             .decay_start = -1,
                             .temperature = 1,
                             .top_h = NAN,
                             .top_p = 1,
                             .min_p = NAN,
                             .typical_p = 1,
                             .logprobs = 1,
                             .num_beams = 1,
                             .length_penalty = 1};
    tfi_draw draw[SLOTS];
    tfi_choice choices[SLOTS];
    engine e;
    model m;

    model_open(&m, TFI_F32);
    engine_open(&e, &m, 0);
    state_make(&s);
    const tfi_tap tap = {.value = m.logits, .dst = logits, .stride = VOCAB};
    tfi_run run = next_run(&s, &e, s.lengths, &tap, 1);
    CHECK_OK(e.backend->run(e.whole, &(tfi_run){.rows = {run.rows[0], SEQUENCES, 0},
                                                .effects = TFI_EFFECT_KV,
                                                .store = e.store,
                                                .source_stride = TABLE,
                                                .inputs = {[TFI_INPUT_IDS] = s.run_ids,
                                                           [TFI_INPUT_OFFSETS] = s.offsets,
                                                           [TFI_INPUT_SOURCE_LENS] = s.source_lens,
                                                           [TFI_INPUT_SOURCE_TABLES] = s.sources}}));
    for (int32_t i = 0; i < SLOTS; i++) {
        e.backend->slot_set(e.store, i, &(tfi_slot){.sampling = &sampling, .tokens = tokens[i], .count = 1});
        draw[i] = (tfi_draw){.slot = i, .row = below((int32_t)run.rows[0])};
        s.row_slots[draw[i].row] = i;
    }
    run.draws = draw;
    run.choices = choices;
    run.draw_count = SLOTS;
    CHECK_OK(e.backend->run(e.step, &run)); /* tokens in, none out */
    for (int i = 0; i < SLOTS; i++) CHECK_INT(e.store->slots[i].count, 1);
    run.effects = TFI_EFFECT_DRAW;
    run.resume = 1;
    run.tap_count = 0;
    CHECK_OK(e.backend->run(e.step, &run));
    for (int i = 0; i < SLOTS; i++) {
        const float *row = logits + draw[i].row * VOCAB;
        int32_t best = 0;
        double sum = 0;
        for (int32_t t = 1; t < VOCAB; t++) best = row[t] > row[best] ? t : best;
        for (int32_t t = 0; t < VOCAB; t++) sum += exp((double)row[t] - (double)row[best]);
        CHECK_INT(choices[i].token, best);
        CHECK_INT(e.store->slots[i].count, 2);
        CHECK_INT(tokens[i][1], best);
        CHECK(fabs((double)choices[i].logprob + log(sum)) < 1e-5);
    }
    engine_close(&e);
    tfi_arena_close(&m.arena);
}

/* ---- the store ---- */

static void store(void)
{
    tfi_store_shape shape = {.layers = 3, .heads = 5, .head_size = 7, .dtype = TFI_BF16, .blocks = 11, .slots = 6};
    tfi_store *st;
    tfi_backend *b;

    CHECK_OK(tfi_cpu_open(&(tfi_cpu_options){.memory = &memory, .threads = 1}, &b));
    for (int n = 1;; n++) {
        check_memory counting;
        tfi_memory failing;
        check_memory_init(&counting);
        counting.fail_at = n;
        tfi_memory_init(&failing, &counting.hooks, TF_UNSET);
        const tf_status status = b->store_open(b, &shape, &failing, &st);
        CHECK_STATUS(status, counting.fail_hit ? TF_STATUS_NOMEM : TF_STATUS_OK);
        if (!counting.fail_hit) {
            CHECK_INT(counting.live_bytes, b->store_bytes(b, &shape));
            CHECK_INT((uintptr_t)st->blocks % 64, 0);
            CHECK(tfi_kv_values(st, 10, 2, 4) + tfi_kv_plane(&shape) * 2 == st->blocks + 11 * tfi_kv_block_bytes(&shape));
            for (int32_t i = 0; i < shape.slots; i++) CHECK(st->slots[i].sampling == NULL);
            b->store_close(st);
        }
        CHECK_INT(counting.live_blocks, 0);
        if (!counting.fail_hit) break;
        CHECK(st == NULL);
    }
    shape.blocks = INT64_MAX / 1000;
    CHECK_STATUS(b->store_open(b, &shape, &memory, &st), TF_STATUS_NOMEM);
    CHECK_ERROR_SAYS("more than memory can hold");
    CHECK_INT(b->store_bytes(b, &shape), -1);
    shape = (tfi_store_shape){.layers = INT32_MAX, .heads = INT32_MAX, .head_size = INT32_MAX, .dtype = TFI_F32, .blocks = 1};
    CHECK_INT(b->store_bytes(b, &shape), -1);
    b->close(b);
}

int main(int argc, char **argv)
{
    tfi_memory_init(&memory, NULL, TF_UNSET);
    for (int i = 0; i < 5; i++) check_run(argc, argv, "steps", steps);
    check_run(argc, argv, "parts_of_a_run", parts_of_a_run);
    check_run(argc, argv, "draws", draws);
    check_run(argc, argv, "store", store);
    CHECK_INT(memory.used, 0);
    return check_done();
}
