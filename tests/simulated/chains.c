/* Chains, on the simulated device: which links a decode step has, what ends a chain, that a run with chains does what one
 * without them does, and tags. What links may not do to one another is asserted where they are performed (links.c). */
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>

#include "backend/cuda/cuda.h"
#include "backend/cuda/program.h"
#include "check.h"
#include "graph/build.h"
#include "simulated/simulated.h"

enum {
    E = 48,
    F = 96,
    HEADS = 3,
    D = E / HEADS,
    VOCAB = 77,
    SEQUENCES = 10,
    TOKENS = 40,
    TABLE = 4,
    BLOCKS = 2 * SEQUENCES * TABLE,
    WEIGHTS_MAX = 700,
    LAYERS_MAX = 4,
    LAYERS_MANY = 52, /* more links than a launch takes */
    ENGINES = 2
};

static tfi_memory memory;

static int32_t below(int32_t n)
{
    return (int32_t)(check_random() % (uint64_t)n);
}

/* ---- graphs ---- */

typedef struct model {
    tfi_arena arena;
    tfi_builder build;
    tfi_graph graph;
    tfi_tensor tensors[WEIGHTS_MAX];
    int tensor_count;
    char names[WEIGHTS_MAX][16];
    int name_count;
    tfi_dtype dtype;
    int layers;
    int32_t table, final, logits;
    tfi_draw_values draw;
} model;

static int32_t weight(model *m, int64_t rows, int64_t cols, tfi_dtype dtype, tfi_relative relative)
{
    const float range = rows == 1 ? 1 : 1.5f / sqrtf((float)cols);
    tfi_tensor *t = &m->tensors[m->tensor_count++];

    *t = (tfi_tensor){.name = "t", .dtype = TFI_F32, .rank = 2, .shape = {rows, cols}, .stride = {cols, 1}};
    t->span = (size_t)(rows * cols * 4);
    t->data = (const uint8_t *)check_floats(rows * cols, rows == 1 ? 0.5f : -range, range);
    return tfi_build_weight(&m->build, &(tfi_weight){.name = "weight",
                                                     .rows = rows,
                                                     .cols = cols,
                                                     .dtype = dtype,
                                                     .relative = relative,
                                                     .parts = 1,
                                                     .part = {t},
                                                     .part_rows = {rows == 1 ? cols : rows}});
}

static int32_t matrix(model *m, int64_t rows, int64_t cols)
{
    return weight(m, rows, cols, m->dtype, (tfi_relative){0});
}

static int32_t vector(model *m, int64_t cols)
{
    return weight(m, 1, cols, TFI_F32, (tfi_relative){0});
}

static const char *name(model *m)
{
    snprintf(m->names[m->name_count], sizeof m->names[0], "value %d", m->name_count);
    return m->names[m->name_count++];
}

static int32_t linear(model *m, int32_t x, int64_t outputs, int biased, tfi_activation a, int32_t residual, tfi_dtype dtype)
{
    const int32_t w = matrix(m, outputs, m->build.graph.values[x].cols);
    return tfi_build_linear(&m->build, name(m), x, w, biased ? vector(m, outputs) : -1, a, residual, dtype);
}

static int32_t norm(model *m, int32_t x, int rms)
{
    const int64_t cols = m->build.graph.values[x].cols;
    const int32_t gain = vector(m, cols);

    return rms ? tfi_build_rms_norm(&m->build, name(m), x, -1, gain, 1e-6f, m->dtype)
               : tfi_build_norm(&m->build, name(m), x, -1, gain, vector(m, cols), 1e-5f, m->dtype);
}

static int32_t attention(model *m, int32_t x, tfi_attend attend, int layer, int32_t bias)
{
    return tfi_build_attention(
        &m->build, name(m), x,
        &(tfi_attention_spec){.attend = attend, .layer = layer, .heads = HEADS, .head_size = D, .scale = 0.25f, .bias = bias});
}

static int32_t gpt2_layer(model *m, int32_t x, int layer)
{
    const int32_t qkv = linear(m, norm(m, x, 0), 3 * E, 1, TFI_ACT_NONE, -1, m->dtype);
    const int32_t middle = linear(m, attention(m, qkv, TFI_ATTEND_CACHE, layer, -1), E, 1, TFI_ACT_NONE, x, TFI_F32);
    const int32_t inner = linear(m, norm(m, middle, 0), F, 1, TFI_ACT_GELU_TANH, -1, m->dtype);
    return linear(m, inner, E, 1, TFI_ACT_NONE, middle, TFI_F32);
}

static int32_t t5_layer(model *m, int32_t x, int layer)
{
    const int32_t qkv = linear(m, norm(m, x, 1), 3 * E, 0, TFI_ACT_NONE, -1, m->dtype);
    x = linear(m, attention(m, qkv, TFI_ATTEND_CACHE, layer, m->table), E, 0, TFI_ACT_NONE, x, TFI_F32);
    const int32_t query = linear(m, norm(m, x, 1), E, 0, TFI_ACT_NONE, -1, m->dtype);
    x = linear(m, attention(m, query, TFI_ATTEND_SOURCE, layer, -1), E, 0, TFI_ACT_NONE, x, TFI_F32);
    const int32_t up = linear(m, norm(m, x, 1), 2 * F, 0, TFI_ACT_NONE, -1, m->dtype);
    return linear(m, tfi_build_glu(&m->build, name(m), up, TFI_ACT_GELU_TANH, m->dtype), E, 0, TFI_ACT_NONE, x, TFI_F32);
}

/* Anything that fits together: products that have no norm, or one whose value others read, or that no chain can do (columns),
 * that read what was made long before, attention one behind the other, values that are kept. */
static int32_t random_layer(model *m, int32_t x, int layer)
{
    int32_t before[12], count = 1, y = x;

    before[0] = x;
    for (int i = 0, n = 2 + below(8); i < n; i++) {
        const int last = i == n - 1;
        const tfi_dtype stream = last || below(3) == 0 ? TFI_F32 : m->dtype;
        int32_t residual = before[below(count)], in = below(5) ? y : before[below(count)];
        if (m->build.graph.values[in].dtype != m->dtype || below(2)) in = norm(m, in, below(2));
        if (below(5) == 0) residual = in;
        if (below(3) == 0) {
            in = linear(m, in, 3 * E, below(2), TFI_ACT_NONE, -1, m->dtype);
            in = attention(m, in, TFI_ATTEND_CACHE, layer, below(2) ? m->table : -1);
            if (below(4) == 0) in = attention(m, in, TFI_ATTEND_SOURCE, layer, -1);
        } else if (below(3) == 0) {
            if (below(2)) in = linear(m, in, E, below(2), TFI_ACT_NONE, -1, m->dtype);
            if (m->build.graph.values[in].cols >= E) in = attention(m, in, TFI_ATTEND_SOURCE, layer, -1);
        } else if (below(2)) {
            in = linear(m, norm(m, in, below(2)), 2 * F, below(2), TFI_ACT_NONE, -1, m->dtype); /* which grows by squares */
            in = tfi_build_glu(&m->build, name(m), in, TFI_ACT_SILU, m->dtype);
        } else {
            in = linear(m, in, below(4) ? F : E + 12, below(2), TFI_ACT_RELU, -1, m->dtype);
        }
        const int fits = m->build.graph.values[residual].dtype == stream;
        y = linear(m, in, E, below(2), TFI_ACT_NONE, fits && below(4) ? residual : -1, stream);
        if (below(6) == 0) tfi_build_keep(&m->build, y);
        before[count++] = y;
    }
    return y;
}

typedef int32_t layer_fn(model *m, int32_t x, int layer);

static void model_open(model *m, layer_fn *layer, int layers, tfi_dtype dtype)
{
    memset(m, 0, sizeof *m);
    m->arena.memory = &memory;
    m->dtype = dtype;
    m->layers = layers;
    tfi_build_begin(&m->build, &m->arena, &memory);
    tfi_build_kv_copy(&m->build);
    m->table = weight(m, 8, HEADS, TFI_F32, (tfi_relative){.buckets = 8, .max_distance = 20});
    const int32_t words = matrix(m, VOCAB, E);
    int32_t x = tfi_build_embed(&m->build, "embed", words, -1, -1, TFI_F32);
    for (int i = 0; i < layers; i++) x = layer(m, x, i);
    m->final = x;
    tfi_build_keep(&m->build, x);
    x = norm(m, tfi_build_gather(&m->build, "rows", x), 1);
    m->logits = tfi_build_linear(&m->build, "logits", x, words, -1, TFI_ACT_NONE, -1, TFI_F32);
    tfi_build_draw(&m->build, m->logits, &m->draw);
    CHECK_OK(tfi_build_finish(&m->build, NULL, &m->graph));
}

/* ---- engines: a device with chains, one without ---- */

typedef struct engine {
    tfi_backend *backend;
    tfi_weight_form forms[WEIGHTS_MAX];
    tfi_program *program;
    tfi_store *store;
    tfi_memory memory;
} engine;

static void engine_open(engine *e, const model *m, int capability, int64_t rows)
{
    const int64_t limits[TFI_LIMIT_COUNT] = {rows, rows < SEQUENCES ? rows : SEQUENCES, rows, TABLE * TFI_KV_BLOCK};
    const tfi_store_shape shape = {
        .layers = m->layers, .heads = HEADS, .head_size = D, .dtype = m->dtype, .blocks = BLOCKS, .slots = SEQUENCES};
    int64_t bytes;

    simulated_capability = capability;
    tfi_memory_init(&e->memory, NULL, TF_UNSET);
    CHECK_OK(tfi_cuda_open(&(tfi_cuda_options){.memory = &memory, .threads = 1, .no_timing = 1}, &e->backend));
    for (int32_t i = 0; i < m->graph.weight_count; i++) {
        CHECK_OK(e->backend->weight_form(e->backend, &m->graph.weights[i], &e->forms[i]));
        e->forms[i].data = e->backend->alloc(e->backend, &memory, e->forms[i].bytes);
        CHECK_OK(e->backend->weight_prepare(e->backend, &m->graph.weights[i], &e->forms[i], NULL));
    }
    CHECK_OK(e->backend->load_end(e->backend));
    CHECK_OK(e->backend->program_bytes(e->backend, &m->graph, limits, &bytes));
    CHECK_OK(e->backend->program_open(e->backend, &m->graph, e->forms, limits, &e->memory, &e->program));
    CHECK_INT(e->memory.used, bytes);
    CHECK_OK(e->backend->store_open(e->backend, &shape, &memory, &e->store));
}

static void engine_close(engine *e, const model *m)
{
    e->backend->store_close(e->store);
    e->backend->program_close(e->program);
    CHECK_INT(e->memory.used, 0);
    for (int32_t i = 0; i < m->graph.weight_count; i++)
        e->backend->free(e->backend, &memory, e->forms[i].data, e->forms[i].bytes);
    e->backend->close(e->backend);
}

/* The same keys and values everywhere. */
static void fill_store(const engine *e, const model *m)
{
    const int64_t n = BLOCKS * tfi_kv_block_bytes(&e->store->shape) / (int64_t)tfi_dtype_size(m->dtype);

    for (int64_t i = 0; i < n; i++) {
        const float f = check_uniform(-1, 1);
        if (m->dtype == TFI_F32) ((float *)(void *)e->store->blocks)[i] = f;
        else ((uint16_t *)(void *)e->store->blocks)[i] = tfi_f32_to_bf16(f);
    }
}

static void copy_store(const engine *to, const engine *from)
{
    memcpy(to->store->blocks, from->store->blocks, (size_t)(BLOCKS * tfi_kv_block_bytes(&from->store->shape)));
}

/* ---- runs ---- */

typedef struct state {
    int32_t ids[TOKENS], offsets[SEQUENCES + 1], selected[TOKENS], slots[TOKENS], lens[SEQUENCES], source_lens[SEQUENCES];
    int32_t tables[SEQUENCES][TABLE], sources[SEQUENCES][TABLE];
} state;

/* counts[b] rows of each sequence. */
static tfi_run run_of(state *s, const int32_t *counts, int32_t sequences)
{
    tfi_run run = {.effects = TFI_EFFECT_KV, .table_stride = TABLE, .source_stride = TABLE};
    int32_t rows = 0;

    for (int32_t b = 0; b < sequences; b++) {
        s->offsets[b] = rows;
        s->lens[b] = counts[b] + below(TABLE * TFI_KV_BLOCK - counts[b] + 1);
        s->source_lens[b] = below(TABLE * TFI_KV_BLOCK + 1);
        for (int i = 0; i < TABLE; i++) {
            s->tables[b][i] = b * TABLE + i;
            s->sources[b][i] = (SEQUENCES + b) * TABLE + i;
        }
        for (int32_t i = 0; i < counts[b]; i++, rows++) {
            s->ids[rows] = below(VOCAB);
            s->selected[rows] = rows;
            s->slots[rows] = -1;
        }
    }
    s->offsets[sequences] = rows;
    run.rows[TFI_ROWS_TOKENS] = run.rows[TFI_ROWS_SELECTED] = rows;
    run.rows[TFI_ROWS_SEQUENCES] = sequences;
    run.inputs[TFI_INPUT_IDS] = s->ids;
    run.inputs[TFI_INPUT_OFFSETS] = s->offsets;
    run.inputs[TFI_INPUT_SELECTED] = s->selected;
    run.inputs[TFI_INPUT_ROW_SLOTS] = s->slots;
    run.inputs[TFI_INPUT_KV_LENS] = s->lens;
    run.inputs[TFI_INPUT_KV_TABLES] = s->tables;
    run.inputs[TFI_INPUT_SOURCE_LENS] = s->source_lens;
    run.inputs[TFI_INPUT_SOURCE_TABLES] = s->sources;
    return run;
}

static const int32_t ones[SEQUENCES] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1};

/* Words of the exchange that a chain has to do with. */
static int64_t words_of(const simulated_chain *c)
{
    const tfi_link *first = &c->links[0];
    const int64_t inner = (int64_t)first->of.attention.H * first->of.attention.D;
    const int64_t given = first->kind == TFI_LINK_PRODUCT ? first->of.product.K
                          : first->of.attention.source    ? inner
                                                          : first->of.attention.column + 2 * inner;
    int64_t most = c->a.given + (given + 15) / 16 * 16;

    for (int i = 0; i < c->a.count; i++) {
        const int64_t end = c->links[i].y.words < 0 ? 0 : c->links[i].y.words + tfi_cuda_link_words(&c->links[i]);
        if (end > most) most = end;
    }
    return most;
}

static int run_on(const engine *e, const tfi_run *run)
{
    const int before = simulated_chain_count;
    tfi_run mine = *run;

    mine.store = e->store;
    CHECK_OK(e->backend->run(e->program, &mine));
    for (int i = before; i < simulated_chain_count; i++)
        CHECK(words_of(&simulated_chains[i % SIMULATED_CHAINS]) <= e->program->exchange_words);
    return simulated_chain_count - before;
}

/* ---- which links ---- */

static void add(char *text, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void add(char *text, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(text + strlen(text), 4096 - strlen(text), format, args);
    va_end(args);
}

static void add_rows(char *text, const char *label, const tfi_link_rows *r)
{
    if (r->memory) add(text, " %smemory", label);
    if (r->words >= 0) add(text, " %s%d", label, r->link);
}

static const char *text_of(const simulated_chain *c)
{
    static char text[4096];

    *text = 0;
    for (int i = 0; i < c->a.count; i++) {
        const tfi_link *k = &c->links[i];
        if (k->kind == TFI_LINK_ATTENTION) {
            add(text, "%s %d%s", k->of.attention.source ? "source" : "own", k->of.attention.layer,
                k->of.attention.bias ? " bias" : "");
        } else {
            add(text, "%s%s%d%s", k->of.product.gain ? "norm " : "", k->of.product.gated ? "gated " : "", k->of.product.N,
                k->of.product.bias ? " bias" : "");
        }
        add_rows(text, "x ", &k->x);
        add_rows(text, "+ ", &k->residual);
        add_rows(text, "to ", &k->y);
        add(text, "\n");
    }
    return text;
}

static const simulated_chain *last_but(int n)
{
    return &simulated_chains[(simulated_chain_count - 1 - n) % SIMULATED_CHAINS];
}

static const char gpt2_links[] = "norm 144 bias x memory to 0\n"
                                 "own 0 x 0 to 1\n"
                                 "48 bias x 1 + memory to 2\n"
                                 "norm 96 bias x 2 to 3\n"
                                 "48 bias x 3 + 2 to 4\n"
                                 "norm 144 bias x 4 to 5\n"
                                 "own 1 x 5 to 6\n"
                                 "48 bias x 6 + 4 to 7\n"
                                 "norm 96 bias x 7 to 8\n"
                                 "48 bias x 8 + 7 to memory to 9\n"
                                 "norm 77 x 9 to memory\n";

static const char t5_links[] = "norm 144 x memory to 0\n"
                               "own 0 bias x 0 to 1\n"
                               "48 x 1 + memory to 2\n"
                               "norm 48 x 2 to 3\n"
                               "source 0 x 3 to 4\n"
                               "48 x 4 + 2 to 5\n"
                               "norm gated 192 x 5 to 6\n"
                               "48 x 6 + 5 to memory to 7\n"
                               "norm 77 x 7 to memory\n";

static const tfi_sampling greedy = {.vocab = VOCAB,
                                    .max_length = TOKENS,
                                    .encoder_repetition_penalty = 1,
                                    .repetition_penalty = 1,
                                    .forced_bos = -1,
                                    .decay_start = -1,
                                    .temperature = 1,
                                    .top_h = NAN,
                                    .top_p = 1,
                                    .min_p = NAN,
                                    .typical_p = 1,
                                    .num_beams = 1};

/* A step that draws: embeddings, a chain, the draws; captured and not. */
static void step_of(layer_fn *layer, int layers, const char *links)
{
    static state s;
    int32_t tokens[TOKENS] = {below(VOCAB)};
    const tfi_slot slot = {.sampling = &greedy, .tokens = tokens, .count = 1};
    const tfi_draw draw = {0, 0};
    tfi_choice choice;
    engine e;
    model m;

    model_open(&m, layer, layers, TFI_BF16);
    engine_open(&e, &m, 90, TOKENS);
    fill_store(&e, &m);
    e.backend->slot_set(e.store, 0, &slot);
    for (int turn = 0; turn < 4; turn++) {
        tfi_run run = run_of(&s, ones, 1);
        run.effects |= TFI_EFFECT_DRAW;
        run.draws = &draw;
        run.choices = &choice;
        run.draw_count = 1;
        s.lens[0] = 20 + turn; /* of one shape */
        s.source_lens[0] = 20;
        const int launches = simulated_launches;
        CHECK_INT(run_on(&e, &run), turn < 2);
        if (turn < 2) CHECK_INT(simulated_launches - launches, 4); /* inputs, embeddings, chain, draws */
        CHECK_TEXT(text_of(last_but(0)), links);
    }
    engine_close(&e, &m);
    tfi_arena_close(&m.arena);
}

static void steps(void)
{
    step_of(gpt2_layer, 2, gpt2_links);
    step_of(t5_layer, 1, t5_links);
}

/* A step that could not be captured for want of room is walked, and captured when there is some. */
static void captured_later(void)
{
    static const int chains[] = {1, 2, 1, 1, 0, 0}; /* the second is recorded and walked, the fourth recorded alone */
    static state s;
    float first[VOCAB], logits[VOCAB];
    const size_t plenty = simulated_unused;
    engine e;
    model m;

    model_open(&m, gpt2_layer, 2, TFI_BF16);
    engine_open(&e, &m, 90, TOKENS);
    fill_store(&e, &m);
    const tfi_tap tap = {.value = m.logits, .dst = logits, .stride = VOCAB};
    tfi_run run = run_of(&s, ones, 1);
    run.taps = &tap;
    run.tap_count = 1;
    s.lens[0] = 20;
    for (int turn = 0; turn < 6; turn++) {
        simulated_unused = turn == 1 || turn == 2 ? 0 : plenty;
        CHECK_INT(run_on(&e, &run), chains[turn]);
        if (turn == 0) memcpy(first, logits, sizeof first);
        CHECK(memcmp(first, logits, sizeof first) == 0);
        memset(logits, 0, sizeof logits);
    }
    engine_close(&e, &m);
    tfi_arena_close(&m.arena);
}

/* All blocks of the device have as many tiles, but for one. */
static void shares(void)
{
    static int tiles[1000];
    static state s;
    engine e;
    model m;

    model_open(&m, gpt2_layer, LAYERS_MAX, TFI_BF16);
    engine_open(&e, &m, 90, TOKENS);
    fill_store(&e, &m);
    const int blocks = e.program->cuda->multiprocessors;
    const tfi_tap tap = {.value = m.logits, .dst = check_out(VOCAB), .stride = VOCAB};
    tfi_run run = run_of(&s, ones, 1);
    run.taps = &tap;
    run.tap_count = 1;
    CHECK_INT(run_on(&e, &run), 1);
    for (int i = 0; i < last_but(0)->a.count; i++) {
        const tfi_link *k = &last_but(0)->links[i];
        for (int64_t n = 0; n < tfi_cuda_link_shares(k); n++) tiles[(k->first + n) % blocks]++;
    }
    for (int i = 0; i < blocks; i++) CHECK(tiles[i] == tiles[0] || tiles[i] == tiles[0] - 1);
    engine_close(&e, &m);
    tfi_arena_close(&m.arena);
}

/* ---- what ends a chain ---- */

static int32_t value_of(const model *m, int32_t nth, tfi_op_kind kind)
{
    for (int32_t i = 0; i < m->graph.op_count; i++)
        if (m->graph.ops[i].kind == kind && nth-- == 0) return m->graph.ops[i].y;
    return -1;
}

/* How many chains a run of counts[b] rows of each sequence has, and their links together. */
static int chains_of(const engine *e, const model *m, const int32_t *counts, int32_t sequences, int32_t tapped, int32_t fed,
                     int *links)
{
    static float fed_rows[TOKENS * E], taken[TOKENS * 3 * E], logits[TOKENS * VOCAB];
    static state s;
    const tfi_feed feed = {.value = fed, .src = fed_rows, .stride = E};
    const tfi_tap taps[] = {{.value = m->logits, .dst = logits, .stride = VOCAB},
                            {.value = tapped, .dst = taken, .stride = 3 * E}};
    tfi_run run = run_of(&s, counts, sequences);

    for (int b = 0; b < sequences; b++) s.lens[b] = s.source_lens[b] = 20; /* all of one shape */
    run.taps = taps;
    run.tap_count = tapped < 0 ? 1 : 2;
    run.feeds = &feed;
    run.feed_count = fed < 0 ? 0 : 1;
    const int count = run_on(e, &run);
    *links = 0;
    for (int i = 0; i < count; i++) *links += last_but(i)->a.count;
    return count;
}

static void ends(void)
{
    static const int32_t two[SEQUENCES] = {2}, one_of_two[SEQUENCES] = {1, 0}, prompt[SEQUENCES] = {7};
    engine e, old, wide;
    int links;
    model m;

    model_open(&m, gpt2_layer, 2, TFI_BF16);
    engine_open(&old, &m, 80, TOKENS);
    engine_open(&e, &m, 90, TOKENS);
    fill_store(&e, &m);
    fill_store(&old, &m);
    for (int turn = 0; turn < 4; turn++) { /* captured, too */
        const int walked = turn < 2;
        CHECK_INT(chains_of(&e, &m, ones, 1, -1, -1, &links), walked);
        CHECK_INT(links, 11 * walked);
        CHECK_INT(chains_of(&e, &m, ones, 2, -1, -1, &links), 0);
        CHECK_INT(chains_of(&old, &m, ones, 1, -1, -1, &links), 0);
        CHECK_INT(chains_of(&e, &m, one_of_two, 2, -1, -1, &links), 0);
        CHECK_INT(chains_of(&e, &m, two, 1, -1, -1, &links), 0);
        CHECK_INT(chains_of(&e, &m, prompt, 1, -1, -1, &links), 0);
    }
    /* What is tapped is the last of its chain, or what makes it is in none: queries; what attention gives; what a norm does. */
    CHECK_INT(chains_of(&e, &m, ones, 1, value_of(&m, 0, TFI_OP_LINEAR), -1, &links), 1);
    CHECK_INT(links, 10);
    CHECK_INT(chains_of(&e, &m, ones, 1, value_of(&m, 1, TFI_OP_ATTENTION), -1, &links), 2);
    CHECK_INT(links, 11);
    CHECK_INT(chains_of(&e, &m, ones, 1, value_of(&m, 2, TFI_OP_NORM), -1, &links), 2);
    CHECK_INT(links, 11);
    /* What is fed is not computed, nor is attention for it; its product is then one between launches. */
    CHECK_INT(chains_of(&e, &m, ones, 1, -1, value_of(&m, 1, TFI_OP_LINEAR), &links), 1);
    CHECK_INT(links, 8);
    engine_close(&e, &m);
    engine_close(&old, &m);
    tfi_arena_close(&m.arena);

    model_open(&m, gpt2_layer, 2, TFI_F32);
    engine_open(&wide, &m, 90, TOKENS);
    fill_store(&wide, &m);
    CHECK_INT(wide.program->exchange_words, 0);
    CHECK_INT(chains_of(&wide, &m, ones, 1, -1, -1, &links), 0);
    engine_close(&wide, &m);
    tfi_arena_close(&m.arena);
}

/* Where a product wants other words than the one before it writes: it has no norm, and a residual was added; it has one, and
 * none was. */
static int32_t unmet_layer(model *m, int32_t x, int layer)
{
    const int32_t qkv = linear(m, norm(m, x, 0), 3 * E, 1, TFI_ACT_NONE, -1, m->dtype);
    const int32_t plain = linear(m, attention(m, qkv, TFI_ATTEND_CACHE, layer, -1), E, 0, TFI_ACT_NONE, -1, m->dtype);
    const int32_t inner = linear(m, plain, F, 0, TFI_ACT_RELU, -1, m->dtype);
    const int32_t sum = linear(m, inner, E, 0, TFI_ACT_NONE, plain, m->dtype);
    const int32_t up = linear(m, linear(m, sum, F, 0, TFI_ACT_RELU, -1, m->dtype), E, 0, TFI_ACT_NONE, -1, m->dtype);
    return linear(m, norm(m, up, 1), E, 0, TFI_ACT_NONE, -1, TFI_F32);
}

static const char *const unmet_links[] = {"norm 144 bias x memory to 0\n"
                                          "own 0 x 0 to 1\n"
                                          "48 x 1 to 2\n"
                                          "96 x 2 to 3\n"
                                          "48 x 3 + 2 to memory\n",
                                          "96 x memory to 5\n"
                                          "48 x 5 to memory\n",
                                          "norm 48 x memory to memory to 7\n"
                                          "norm 77 x 7 to memory\n"};

static void meets(void)
{
    engine e;
    int links;
    model m;

    model_open(&m, unmet_layer, 1, TFI_BF16);
    engine_open(&e, &m, 90, TOKENS);
    fill_store(&e, &m);
    CHECK_INT(chains_of(&e, &m, ones, 1, -1, -1, &links), 3);
    for (int i = 0; i < 3; i++) CHECK_TEXT(text_of(last_but(2 - i)), unmet_links[i]);
    engine_close(&e, &m);
    tfi_arena_close(&m.arena);
}

/* ---- any graph: as without chains ---- */

static void same(const float *a, const float *b, int64_t n)
{
    const double error = check_relative_l2(a, b, n);

    check_count++;
    if (!(error <= 4e-2)) check_failed(__FILE__, __LINE__, "relative error %g", error);
}

static void random_run(const model *m, const engine *e)
{
    static float out[ENGINES][TOKENS * VOCAB], taken[ENGINES][TOKENS * 3 * E], fed_rows[TOKENS * E];
    static state s;
    const int32_t sequences = below(4) ? 1 : 2 + below(3), /* more than one have no chains */
        other = below(m->graph.value_count), fed = value_of(m, below(20), TFI_OP_LINEAR);
    const tfi_value *v = &m->graph.values[other], *f = fed < 0 ? NULL : &m->graph.values[fed];
    const int tapped = below(3) == 0 && v->rows == TFI_ROWS_TOKENS && v->cols <= 3 * E;
    const int feeds = below(8) == 0 && f && f->dtype == TFI_F32 && f->cols == E;
    const tfi_feed feed = {.value = fed, .src = fed_rows, .stride = E};
    tfi_run run = run_of(&s, ones, sequences);

    for (int i = 0; i < TOKENS * E; i++) fed_rows[i] = check_uniform(-1, 1);
    if (below(4) == 0) /* some rows alone, in another order */
        for (int64_t i = run.rows[TFI_ROWS_SELECTED] = 1 + below(sequences); i-- > 0;) s.selected[i] = below(sequences);
    run.feeds = &feed;
    run.feed_count = feeds;
    for (int i = 0; i < ENGINES; i++) {
        const tfi_tap taps[] = {{.value = m->logits, .dst = out[i], .stride = VOCAB},
                                {.value = other, .dst = taken[i], .stride = v->cols}};
        run.taps = taps;
        run.tap_count = 1 + tapped;
        run_on(&e[i], &run);
    }
    same(out[0], out[1], run.rows[TFI_ROWS_SELECTED] * VOCAB);
    if (tapped) same(taken[0], taken[1], sequences * v->cols);
    if (below(4)) return;
    run.resume = 1; /* from what is kept, other rows; no effect again */
    run.effects = 0;
    run.feed_count = 0;
    for (int i = 0; i < ENGINES; i++) {
        const tfi_tap tap = {.value = m->logits, .dst = out[i], .stride = VOCAB};
        run.taps = &tap;
        run.tap_count = 1;
        run_on(&e[i], &run);
    }
    same(out[0], out[1], run.rows[TFI_ROWS_SELECTED] * VOCAB);
}

static void many_links(void)
{
    engine e[ENGINES];
    model m;
    int links;

    model_open(&m, gpt2_layer, LAYERS_MANY, TFI_BF16);
    for (int i = 0; i < ENGINES; i++) engine_open(&e[i], &m, i ? 80 : 90, 4);
    fill_store(&e[0], &m);
    copy_store(&e[1], &e[0]);
    CHECK_INT(chains_of(&e[0], &m, ones, 1, -1, -1, &links), 2);
    CHECK_INT(links, 5 * LAYERS_MANY + 1);
    CHECK_INT(last_but(0)->a.number, TFI_CHAIN_LINKS);
    copy_store(&e[1], &e[0]);
    random_run(&m, e);
    for (int i = 0; i < ENGINES; i++) engine_close(&e[i], &m);
    tfi_arena_close(&m.arena);
}

static void any_graph(void)
{
    int chains = 0;

    for (int draw = 0; draw < 24; draw++) {
        static layer_fn *const layers[] = {gpt2_layer, t5_layer, random_layer, random_layer};
        const int64_t rows = below(4) ? TOKENS : 4;
        engine e[ENGINES];
        model m;
        model_open(&m, layers[below(4)], 1 + below(LAYERS_MAX), TFI_BF16);
        for (int i = 0; i < ENGINES; i++) engine_open(&e[i], &m, i ? 80 : 90, rows);
        fill_store(&e[0], &m);
        for (int turn = 0; turn < 12; turn++) {
            const int before = simulated_chain_count;
            copy_store(&e[1], &e[0]);
            random_run(&m, e);
            chains += simulated_chain_count - before;
        }
        for (int i = 0; i < ENGINES; i++) engine_close(&e[i], &m);
        tfi_arena_close(&m.arena);
    }
    CHECK(chains > 50);
}

/* ---- tags ---- */

/* Before they would begin again the exchange forgets them; runs on their way do not mind. (links.c sees to it that no word has
 * the tag of a link that has not written it.) */
static void tags(void)
{
    static float logits[2][VOCAB], queries[3 * E];
    static state s;
    uint32_t last = 0;
    int wraps = 0;
    engine e;
    model m;

    model_open(&m, gpt2_layer, 2, TFI_BF16);
    engine_open(&e, &m, 90, 4);
    fill_store(&e, &m);
    CHECK_INT(e.program->link_room, 11);
    tfi_run run = run_of(&s, ones, 1);
    const tfi_tap first_taps[] = {{.value = m.logits, .dst = logits[0], .stride = VOCAB},
                                  {.value = value_of(&m, 4, TFI_OP_LINEAR), .dst = queries, .stride = 3 * E}};
    run.taps = first_taps; /* so a chain begins with attention, and words that later ones do not reach keep the first tags */
    run.tap_count = 2;
    CHECK_INT(run_on(&e, &run), 2);
    e.program->tag = UINT32_MAX - 11 * 40 + (uint32_t)below(11);
    run = run_of(&s, ones, 1);
    for (int turn = 0; turn < 100; turn++) {
        const tfi_tap tap = {.value = m.logits, .dst = logits[turn > 0], .stride = VOCAB};
        run.taps = &tap;
        run.tap_count = 1;
        (void)run_on(&e, &run);
        const uint32_t tag = last_but(0)->live->tag;
        CHECK(tag > 0 && tag <= UINT32_MAX - 10);
        CHECK(turn == 0 || tag == last + 11 || tag == 1);
        wraps += tag < last;
        last = tag;
        if (turn > 0) CHECK(memcmp(logits[0], logits[1], sizeof logits[0]) == 0);
    }
    CHECK_INT(wraps, 1);
    e.program->tag = UINT32_MAX;
    run = run_of(&s, ones, 1);
    CHECK_INT(run_on(&e, &run), 1);
    CHECK_INT(last_but(0)->live->tag, 1);
    engine_close(&e, &m);
    tfi_arena_close(&m.arena);
}

int main(int argc, char **argv)
{
    tfi_memory_init(&memory, NULL, TF_UNSET);
    check_run(argc, argv, "steps", steps);
    check_run(argc, argv, "captured_later", captured_later);
    check_run(argc, argv, "shares", shares);
    check_run(argc, argv, "ends", ends);
    check_run(argc, argv, "meets", meets);
    check_run(argc, argv, "many_links", many_links);
    check_run(argc, argv, "any_graph", any_graph);
    check_run(argc, argv, "tags", tags);
    return check_done();
}
