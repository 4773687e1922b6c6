/* step_logits DIRECTORY DTYPE PIECE...: logits of a generating checkpoint by its step graph alone, without requests or sampling, for a
 * Python test to compare. From standard input a line a sequence: the decoder's ids; for a family with an encoder the source's ids
 * before them and a "|" between. The sequences advance together, PIECE tokens of each in a run, from blocks of the store in a mixed-up
 * order. Writes float32 [tokens of all sequences, vocabulary] for every PIECE. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/handles.h"

enum { SEQUENCES_MAX = 64, TOKENS_MAX = 4096 };

typedef struct list {
    int32_t ids[TOKENS_MAX], count;
} list;

typedef struct inputs {
    list source[SEQUENCES_MAX], target[SEQUENCES_MAX];
    int32_t count;
} inputs;

/* Blocks of one kind of list: a table a sequence. */
typedef struct tables {
    int32_t *blocks; /* [count, stride] */
    int64_t stride;
} tables;

static void must(int condition, const char *what)
{
    if (condition) return;
    fprintf(stderr, "%s: %s\n", what, tf_last_error());
    exit(1);
}

static void *zeros(size_t count, size_t size)
{
    void *p = calloc(count ? count : 1, size);
    must(p != NULL, "memory");
    return p;
}

static void read_inputs(inputs *in, int has_source)
{
    static char line[16 * TOKENS_MAX];

    while (in->count < SEQUENCES_MAX && fgets(line, sizeof line, stdin)) {
        list *l = has_source ? &in->source[in->count] : &in->target[in->count];
        for (const char *word = strtok(line, " \n"); word; word = strtok(NULL, " \n")) {
            if (*word == '|') {
                l = &in->target[in->count];
                continue;
            }
            must(l->count < TOKENS_MAX, "too many ids");
            l->ids[l->count++] = atoi(word);
        }
        in->count++;
    }
}

static int32_t total(const list *lists, int32_t count)
{
    int32_t n = 0;
    for (int32_t i = 0; i < count; i++) n += lists[i].count;
    return n;
}

static int32_t longest(const list *lists, int32_t count)
{
    int32_t n = 1;
    for (int32_t i = 0; i < count; i++) n = lists[i].count > n ? lists[i].count : n;
    return n;
}

/* The next free blocks from the end, turn by turn, so that neighbours in a table are not neighbours in the store. */
static tables make_tables(const list *lists, int32_t count, int32_t *free_block)
{
    tables t = {.stride = (longest(lists, count) + TFI_KV_BLOCK - 1) / TFI_KV_BLOCK};

    t.blocks = zeros((size_t)(count * t.stride), sizeof *t.blocks);
    for (int64_t k = 0; k < t.stride; k++)
        for (int32_t i = 0; i < count; i++)
            if (k * TFI_KV_BLOCK < lists[i].count) t.blocks[i * t.stride + k] = --*free_block;
    return t;
}

static tfi_program *open_program(const tf_model *m, const tfi_graph *g, int64_t tokens, int64_t sequences, int64_t kv_tokens,
                                 tfi_memory *memory)
{
    const int64_t limits[TFI_LIMIT_COUNT] = {[TFI_ROWS_TOKENS] = tokens,
                                             [TFI_ROWS_SEQUENCES] = sequences,
                                             [TFI_ROWS_SELECTED] = tokens,
                                             [TFI_LIMIT_KV_TOKENS] = kv_tokens};
    tfi_program *p;

    must(m->backend->program_open(m->backend, g, m->forms, limits, memory, &p) == TF_STATUS_OK, "program");
    return p;
}

/* Encode the sources, all in one run, for their keys and values. */
static void encode(const tf_model *m, const inputs *in, tfi_store *store, const tables *t, tfi_memory *memory)
{
    int32_t offsets[SEQUENCES_MAX + 1] = {0}, lens[SEQUENCES_MAX];
    int32_t *ids = zeros((size_t)total(in->source, in->count), sizeof *ids);

    for (int32_t i = 0; i < in->count; i++) {
        lens[i] = in->source[i].count;
        memcpy(ids + offsets[i], in->source[i].ids, (size_t)lens[i] * sizeof *ids);
        offsets[i + 1] = offsets[i] + lens[i];
    }
    tfi_run run = {.rows = {offsets[in->count], in->count, 0}, .effects = TFI_EFFECT_KV, .store = store, .source_stride = t->stride};
    run.inputs[TFI_INPUT_IDS] = ids;
    run.inputs[TFI_INPUT_OFFSETS] = offsets;
    run.inputs[TFI_INPUT_SOURCE_LENS] = lens;
    run.inputs[TFI_INPUT_SOURCE_TABLES] = t->blocks;
    tfi_program *p = open_program(m, &m->def.graph, offsets[in->count], in->count, 1, memory);
    must(m->backend->run(p, &run) == TF_STATUS_OK, "encode");
    m->backend->program_close(p);
    free(ids);
}

typedef struct decoding {
    const tf_model *m;
    const inputs *in;
    tfi_program *program;
    tfi_run run;
    float *logits;                  /* [tokens, V] in the order of the sequences */
    int32_t *ids, *positions, *selected;
} decoding;

/* One run over tokens [begin, begin + piece) of every sequence that has so many. */
static void advance(decoding *d, int32_t begin, int32_t piece)
{
    const tf_model *m = d->m;
    const int64_t vocab = m->def.step.values[m->def.logits].cols;
    int32_t offsets[SEQUENCES_MAX + 1] = {0}, lens[SEQUENCES_MAX];
    int32_t rows = 0;

    for (int32_t i = 0; i < d->in->count; i++) {
        const list *l = &d->in->target[i];
        int32_t end = begin + piece < l->count ? begin + piece : l->count;
        for (int32_t t = begin; t < end; t++, rows++) {
            d->ids[rows] = l->ids[t];
            d->positions[rows] = t;
            d->selected[rows] = rows;
        }
        offsets[i + 1] = rows;
        lens[i] = end;
    }
    float *some = zeros((size_t)rows, (size_t)vocab * sizeof *some);
    const tfi_tap tap = {.value = m->def.logits, .dst = some, .stride = vocab};
    tfi_run *r = &d->run;
    r->rows[TFI_ROWS_TOKENS] = r->rows[TFI_ROWS_SELECTED] = rows;
    r->rows[TFI_ROWS_SEQUENCES] = d->in->count;
    r->inputs[TFI_INPUT_IDS] = d->ids;
    r->inputs[TFI_INPUT_POSITIONS] = d->positions;
    r->inputs[TFI_INPUT_SELECTED] = d->selected;
    r->inputs[TFI_INPUT_OFFSETS] = offsets;
    r->inputs[TFI_INPUT_KV_LENS] = lens;
    r->taps = &tap;
    r->tap_count = 1;
    must(m->backend->run(d->program, r) == TF_STATUS_OK, "step");
    float *out = d->logits;
    for (int32_t i = 0; i < d->in->count; i++) {
        const int32_t n = offsets[i + 1] - offsets[i];
        memcpy(out + begin * vocab, some + offsets[i] * vocab, (size_t)(n * vocab) * sizeof *some);
        out += d->in->target[i].count * vocab;
    }
    free(some);
}

static void decode(tf_model *m, const inputs *in, int32_t piece, tfi_memory *memory)
{
    const tfi_model *def = &m->def;
    const int32_t most = longest(in->target, in->count), sources = longest(in->source, in->count);
    const int64_t tokens = total(in->target, in->count), vocab = def->step.values[def->logits].cols;
    int32_t blocks = in->count * ((most + sources) / TFI_KV_BLOCK + 2);
    tfi_store_shape shape = def->store;
    int32_t source_lens[SEQUENCES_MAX];
    tfi_store *store;

    shape.blocks = blocks;
    shape.slots = 1;
    must(m->backend->store_open(m->backend, &shape, memory, &store) == TF_STATUS_OK, "store");
    const tables own = make_tables(in->target, in->count, &blocks), source = make_tables(in->source, in->count, &blocks);
    if (def->has_encoder) encode(m, in, store, &source, memory);
    for (int32_t i = 0; i < in->count; i++) source_lens[i] = in->source[i].count;
    decoding d = {.m = m,
                  .in = in,
                  .program = open_program(m, &def->step, tokens, in->count, most > sources ? most : sources, memory),
                  .run = {.effects = TFI_EFFECT_KV, .store = store, .table_stride = own.stride, .source_stride = source.stride},
                  .logits = zeros((size_t)(tokens * vocab), sizeof(float)),
                  .ids = zeros((size_t)tokens, sizeof(int32_t)),
                  .positions = zeros((size_t)tokens, sizeof(int32_t)),
                  .selected = zeros((size_t)tokens, sizeof(int32_t))};
    d.run.inputs[TFI_INPUT_KV_TABLES] = own.blocks;
    d.run.inputs[TFI_INPUT_SOURCE_LENS] = source_lens;
    d.run.inputs[TFI_INPUT_SOURCE_TABLES] = source.blocks;
    for (int32_t begin = 0; begin < most; begin += piece) advance(&d, begin, piece);
    must(fwrite(d.logits, sizeof(float), (size_t)(tokens * vocab), stdout) == (size_t)(tokens * vocab), "stdout");
    m->backend->program_close(d.program);
    m->backend->store_close(store);
    free(d.logits);
    free(d.ids);
    free(d.positions);
    free(d.selected);
    free(own.blocks);
    free(source.blocks);
}

int main(int argc, char **argv)
{
    inputs *in = zeros(1, sizeof *in);
    tf_model_options o;
    tfi_memory memory;
    tf_model *m;

    if (argc < 4) return 2;
    tf_model_options_init(&o);
    o.dtype = strcmp(argv[2], "bf16") == 0 ? TF_DTYPE_BF16 : TF_DTYPE_FP32;
    tfi_memory_init(&memory, NULL, TF_UNSET);
    must(tf_model_open(argv[1], &o, &m) == TF_STATUS_OK, "model");
    must(m->def.step.op_count > 0, "the model has no step");
    read_inputs(in, m->def.has_encoder);
    for (int i = 3; i < argc; i++) decode(m, in, atoi(argv[i]), &memory);
    tf_model_close(m);
    free(in);
    return atomic_load(&memory.used) != 0;
}
