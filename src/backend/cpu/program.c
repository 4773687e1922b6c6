/* A program: a graph with a function for each op, its activations and scratch in two allocations, and the walk over the ops.
 *
 * A run asks for values (taps) and effects; what those need is marked backwards through the ops and then computed. Not computed
 * are values that are there from the run before, and those that the caller feeds: they are copied in where their op would have
 * been. */
#include <assert.h>
#include <string.h>

#include "backend/cpu/cpu.h"
#include "backend/plan.h"
#include "backend/rows.h"
#include "base/status.h"

typedef union op_args {
    tfi_embed_args embed;
    tfi_norm_args norm;
    tfi_linear_args linear;
    tfi_attention_args attention;
    tfi_gather_args gather;
    tfi_pool_args pool;
    tfi_l2norm_args l2norm;
    tfi_glu_args glu;
    tfi_logprob_args logprob;
    tfi_process_args process;
    tfi_kv_copy_args kv_copy;
    tfi_kv_append_args kv_append;
    tfi_draw_args draw;
} op_args;

/* An op ready to run; args and taken are set anew for each run. */
typedef struct step {
    tfi_host_fn fn; /* NULL: LINEAR through oneDNN */
    tfi_op_types types;
    int needed;           /* in this run */
    const tfi_feed *feed; /* what the op would write is given by the caller */
    _Atomic int64_t *taken; /* [workers] LINEAR's tiles */
    op_args args;
} step;

struct tfi_program {
    tfi_cpu *cpu;
    const tfi_graph *graph;
    const tfi_weight_form *forms;
    tfi_memory *memory;
    int64_t limits[TFI_LIMIT_COUNT];
    step *steps;      /* [op_count], behind this struct */
    _Atomic int64_t *taken; /* [op_count, workers] */
    int64_t *offsets; /* [value_count] of values in block */
    int8_t *wanted;   /* [value_count] in this run: to be computed */
    char *block;      /* activations, then each worker's scratch */
    int64_t block_bytes, scratch_at, scratch_bytes;
};

/* ---- sizes ---- */

static int64_t head_bytes(const tfi_graph *g, int workers)
{
    return (int64_t)sizeof(tfi_program) + g->op_count * (int64_t)sizeof(step) +
           g->op_count * (int64_t)workers * (int64_t)sizeof(int64_t) + g->value_count * (int64_t)(sizeof(int64_t) + sizeof(int8_t));
}

static int64_t step_scratch(const tfi_graph *g, const tfi_op *op, const int64_t limits[TFI_LIMIT_COUNT])
{
    if (op->kind != TFI_OP_LINEAR) return tfi_host_scratch(g, op, limits[TFI_ROWS_TOKENS], limits[TFI_LIMIT_KV_TOKENS]);
    return tfi_linear_scratch();
}

/* Plans the values into offsets; *scratch is a worker's share of the block. */
static tf_status plan_block(const tfi_cpu *cpu, const tfi_graph *g, const int64_t limits[TFI_LIMIT_COUNT], tfi_memory *memory,
                            int64_t *offsets, int64_t *values, int64_t *scratch)
{
    tf_status status;

    *scratch = 0;
    if ((status = tfi_plan_values(g, limits, 0, memory, offsets, values)) < 0) return status;
    for (int32_t i = 0; i < g->op_count; i++) {
        const int64_t bytes = step_scratch(g, &g->ops[i], limits);
        if (bytes > *scratch) *scratch = bytes;
    }
    *scratch = (*scratch + 63) / 64 * 64;
    if (*scratch > (INT64_MAX / 2 - *values) / cpu->base.threads)
        return tfi_fail(TF_STATUS_NOMEM, "scratch of %lld bytes a thread is more than memory can hold", (long long)*scratch);
    return TF_STATUS_OK;
}

tf_status tfi_cpu_program_bytes(tfi_backend *b, const tfi_graph *g, const int64_t limits[TFI_LIMIT_COUNT], int64_t *bytes)
{
    const tfi_cpu *cpu = (const tfi_cpu *)b;
    const size_t size = (size_t)g->value_count * sizeof(int64_t);
    int64_t *offsets = tfi_alloc(cpu->memory, size), values, scratch;
    tf_status status;

    if (!offsets) return TF_STATUS_NOMEM;
    status = plan_block(cpu, g, limits, cpu->memory, offsets, &values, &scratch);
    tfi_free(cpu->memory, offsets, size);
    if (status == TF_STATUS_OK) *bytes = head_bytes(g, cpu->base.threads) + values + scratch * cpu->base.threads;
    return status;
}

/* ---- open ---- */

static tfi_dtype value_type(const tfi_graph *g, int32_t value)
{
    return value < 0 ? TFI_F32 : g->values[value].dtype;
}

static tfi_op_types types_of(const tfi_graph *g, const tfi_op *op)
{
    return (tfi_op_types){.x = op->kind == TFI_OP_EMBED ? g->weights[op->weight].dtype : value_type(g, op->x),
                          .residual = value_type(g, op->residual),
                          .y = value_type(g, op->y)};
}

static tf_status resolve(const tfi_program *p, const tfi_op *op, step *s)
{
    const tfi_graph *g = p->graph;
    const char *value = op->y >= 0 ? g->values[op->y].name : op->x >= 0 ? g->values[op->x].name : "the store";
    int known;

    s->types = types_of(g, op);
    if (p->cpu->reference) {
        s->fn = tfi_ref_resolve(op->kind, s->types);
    } else if (op->kind == TFI_OP_EMBED && p->forms[op->weight].layout != TFI_LAYOUT_PLAIN) {
        s->fn = tfi_cpu_embed_packed(s->types);
    } else if (op->kind != TFI_OP_LINEAR) {
        s->fn = tfi_cpu_resolve(op->kind, s->types, p->cpu->features);
    }
    known = s->fn != NULL;
    if (op->kind == TFI_OP_LINEAR && !p->cpu->reference)
        known = s->types.x == g->weights[op->weight].dtype && s->types.x <= TFI_BF16 && s->types.y <= TFI_BF16 &&
                (op->residual < 0 || s->types.residual == s->types.y);
    if (known) return TF_STATUS_OK;
    return tfi_fail(TF_STATUS_UNSUPPORTED, "%s of %s on cpu: no function for %s, residual %s, giving %s", tfi_op_name(op->kind),
                    value, tfi_dtype_name(s->types.x), tfi_dtype_name(s->types.residual), tfi_dtype_name(s->types.y));
}

tf_status tfi_cpu_program_open(tfi_backend *b, const tfi_graph *g, const tfi_weight_form *forms,
                               const int64_t limits[TFI_LIMIT_COUNT], tfi_memory *memory, tfi_program **out)
{
    tfi_program *p = tfi_zalloc(memory, (size_t)head_bytes(g, b->threads));
    int64_t values = 0;
    tf_status status;

    *out = NULL;
    if (!p) return TF_STATUS_NOMEM;
    p->cpu = (tfi_cpu *)b;
    p->graph = g;
    p->forms = forms;
    p->memory = memory;
    memcpy(p->limits, limits, sizeof p->limits);
    p->steps = (step *)(p + 1);
    p->taken = (_Atomic int64_t *)(p->steps + g->op_count);
    p->offsets = (int64_t *)(p->taken + (int64_t)g->op_count * b->threads);
    p->wanted = (int8_t *)(p->offsets + g->value_count);
    for (int32_t i = 0; i < g->op_count; i++) {
        p->steps[i].taken = p->taken + (int64_t)i * b->threads;
        if ((status = resolve(p, &g->ops[i], &p->steps[i])) < 0) goto fail;
    }
    if ((status = plan_block(p->cpu, g, limits, memory, p->offsets, &values, &p->scratch_bytes)) < 0) goto fail;
    p->scratch_at = values;
    p->block_bytes = values + p->scratch_bytes * b->threads;
    if (!(p->block = tfi_alloc(memory, (size_t)p->block_bytes))) {
        status = TF_STATUS_NOMEM;
        goto fail;
    }
    *out = p;
    return TF_STATUS_OK;
fail:
    tfi_cpu_program_close(p);
    return status;
}

void tfi_cpu_program_close(tfi_program *p)
{
    if (!p) return;
    tfi_free(p->memory, p->block, (size_t)p->block_bytes);
    tfi_free(p->memory, p, (size_t)head_bytes(p->graph, p->cpu->base.threads));
}

/* ---- run ---- */

static void *value(const tfi_program *p, int32_t v)
{
    return v < 0 ? NULL : p->block + p->offsets[v];
}

static const void *weight(const tfi_program *p, int32_t w)
{
    return w < 0 ? NULL : p->forms[w].data;
}

static int64_t rows_of(const tfi_program *p, const tfi_run *run, int32_t v)
{
    return run->rows[p->graph->values[v].rows];
}

static int64_t cols_of(const tfi_program *p, int32_t v)
{
    return p->graph->values[v].cols;
}

static tfi_kv_view kv_view(const tfi_run *run, const tfi_op *op)
{
    const int source = op->attend == TFI_ATTEND_SOURCE;

    return (tfi_kv_view){.store = run->store,
                         .lens = run->inputs[source ? TFI_INPUT_SOURCE_LENS : TFI_INPUT_KV_LENS],
                         .tables = run->inputs[source ? TFI_INPUT_SOURCE_TABLES : TFI_INPUT_KV_TABLES],
                         .stride = source ? run->source_stride : run->table_stride,
                         .layer = op->layer};
}

static void bind_attention(const tfi_program *p, const tfi_run *run, const tfi_op *op, tfi_attention_args *a)
{
    *a = (tfi_attention_args){.x = value(p, op->x),
                              .x_stride = cols_of(p, op->x),
                              .offsets = run->inputs[TFI_INPUT_OFFSETS],
                              .bias = weight(p, op->bias),
                              .y = value(p, op->y),
                              .R = rows_of(p, run, op->y),
                              .B = run->rows[TFI_ROWS_SEQUENCES],
                              .H = op->heads,
                              .D = op->head_size,
                              .attend = op->attend,
                              .scale = op->scale};
    if (op->attend == TFI_ATTEND_CACHE || op->attend == TFI_ATTEND_SOURCE) a->kv = kv_view(run, op);
    if (op->bias >= 0) a->max_distance = p->graph->weights[op->bias].relative.max_distance;
}

/* Which rows a GATHER_ROWS is of. */
static tfi_input_id gathered(const tfi_program *p, const tfi_op *op)
{
    return p->graph->values[op->y].rows == TFI_ROWS_SEQUENCES ? TFI_INPUT_LAST : TFI_INPUT_SELECTED;
}

/* Ops that write a value. */
static void bind_value(tfi_program *p, const tfi_run *run, const tfi_op *op, op_args *a)
{
    const tfi_graph *g = p->graph;
    const int64_t rows = rows_of(p, run, op->y), cols = cols_of(p, op->y);
    const int32_t *offsets = run->inputs[TFI_INPUT_OFFSETS], *skip = run->inputs[TFI_INPUT_SKIP];
    const tfi_slot *slots = run->store ? run->store->slots : NULL;
    void *x = value(p, op->x), *y = value(p, op->y);

    switch (op->kind) {
    case TFI_OP_EMBED:
        a->embed = (tfi_embed_args){.ids = run->inputs[TFI_INPUT_IDS],
                                    .position_ids = run->inputs[TFI_INPUT_POSITIONS],
                                    .type_ids = run->inputs[TFI_INPUT_TYPES],
                                    .embeddings = run->inputs[TFI_INPUT_EMBEDDINGS],
                                    .slots = slots,
                                    .word_weight = &g->weights[op->weight],
                                    .word = &p->forms[op->weight],
                                    .positions = weight(p, op->positions),
                                    .types = weight(p, op->types),
                                    .y = y,
                                    .R = rows,
                                    .E = cols};
        break;
    case TFI_OP_NORM:
        a->norm = (tfi_norm_args){.x = x,
                                  .residual = value(p, op->residual),
                                  .gain = weight(p, op->weight),
                                  .bias = weight(p, op->bias),
                                  .norm = op->norm,
                                  .y = y,
                                  .R = rows,
                                  .E = cols,
                                  .eps = op->eps};
        break;
    case TFI_OP_LINEAR:
        a->linear = (tfi_linear_args){.x = x,
                                      .weight = &g->weights[op->weight],
                                      .form = &p->forms[op->weight],
                                      .bias = weight(p, op->bias),
                                      .residual = value(p, op->residual),
                                      .y = y,
                                      .M = rows,
                                      .N = cols,
                                      .K = g->weights[op->weight].cols,
                                      .activation = op->activation};
        break;
    case TFI_OP_GLU:
        a->glu = (tfi_glu_args){.x = x, .y = y, .R = rows, .F = cols, .activation = op->activation};
        break;
    case TFI_OP_ATTENTION:
        bind_attention(p, run, op, &a->attention);
        break;
    case TFI_OP_GATHER_ROWS:
        a->gather = (tfi_gather_args){.x = x, .rows = run->inputs[gathered(p, op)], .y = y, .S = rows, .E = cols};
        break;
    case TFI_OP_POOL:
        a->pool = (tfi_pool_args){.x = x,
                                  .offsets = offsets,
                                  .y = y,
                                  .B = rows,
                                  .E = cols_of(p, op->x),
                                  .pooling = op->pooling,
                                  .skip = skip ? *skip : 0};
        break;
    case TFI_OP_L2NORM:
        a->l2norm = (tfi_l2norm_args){.x = x, .y = y, .R = rows, .E = cols, .eps = op->eps};
        break;
    case TFI_OP_LOGPROB:
        a->logprob =
            (tfi_logprob_args){.x = x, .targets = run->inputs[TFI_INPUT_TARGETS], .y = y, .S = rows, .V = cols_of(p, op->x)};
        break;
    case TFI_OP_LOGITS_PROCESS:
        a->process = (tfi_process_args){.x = x,
                                        .row_slots = run->inputs[TFI_INPUT_ROW_SLOTS],
                                        .slots = slots,
                                        .y = y,
                                        .S = rows,
                                        .V = cols,
                                        .stage = op->stage};
        break;
    default:
        break;
    }
}

/* Ops that write to the store or the choices; 0: nothing to do in this run. */
static int bind_effect(tfi_program *p, const tfi_run *run, const tfi_op *op, op_args *a)
{
    switch (op->kind) {
    case TFI_OP_KV_COPY:
        a->kv_copy =
            (tfi_kv_copy_args){.store = run->store, .copies = run->inputs[TFI_INPUT_KV_COPIES], .count = run->copy_count};
        return (run->effects & TFI_EFFECT_KV) && run->copy_count > 0;
    case TFI_OP_KV_APPEND:
        a->kv_append = (tfi_kv_append_args){.x = value(p, op->x),
                                            .x_stride = cols_of(p, op->x),
                                            .offsets = run->inputs[TFI_INPUT_OFFSETS],
                                            .kv = kv_view(run, op),
                                            .R = rows_of(p, run, op->x),
                                            .B = run->rows[TFI_ROWS_SEQUENCES],
                                            .H = op->heads,
                                            .D = op->head_size,
                                            .column = op->column};
        return (run->effects & TFI_EFFECT_KV) && a->kv_append.R > 0;
    default:
        a->draw = (tfi_draw_args){.x = value(p, op->x),
                                  .logits = value(p, op->logits),
                                  .draws = run->draws,
                                  .slots = run->store ? run->store->slots : NULL,
                                  .choices = run->choices,
                                  .count = run->draw_count,
                                  .V = cols_of(p, op->x)};
        return (run->effects & TFI_EFFECT_DRAW) && run->draw_count > 0;
    }
}

static const tfi_feed *feed_of(const tfi_run *run, int32_t v)
{
    for (int32_t i = 0; i < run->feed_count; i++)
        if (run->feeds[i].value == v) return &run->feeds[i];
    return NULL;
}

/* A kept value of an earlier run is there already. */
static int is_there(const tfi_program *p, const tfi_run *run, int32_t v)
{
    return run->resume && p->graph->values[v].keep && !feed_of(run, v);
}

static void want(tfi_program *p, const tfi_run *run, int32_t v)
{
    if (v >= 0 && !is_there(p, run, v)) p->wanted[v] = 1;
}

/* Is the op needed? If so it gets its arguments. */
static int bind(tfi_program *p, const tfi_run *run, const tfi_op *op, step *s)
{
    s->feed = NULL;
    if (op->y < 0) return bind_effect(p, run, op, &s->args);
    if (!p->wanted[op->y]) return 0;
    if ((s->feed = feed_of(run, op->y))) return rows_of(p, run, op->y) > 0;
    bind_value(p, run, op, &s->args);
    for (int i = 0; i < p->cpu->base.threads; i++) atomic_store_explicit(&s->taken[i], 0, memory_order_relaxed);
    return 1;
}

/* Mark backwards from taps and effects what has to be computed. An op over no rows is left out, but not what feeds it. */
static void bind_all(tfi_program *p, const tfi_run *run)
{
    const tfi_graph *g = p->graph;

    memset(p->wanted, 0, (size_t)g->value_count);
    for (int32_t i = 0; i < run->tap_count; i++) want(p, run, run->taps[i].value);
    for (int32_t i = g->op_count; i-- > 0;) {
        const tfi_op *op = &g->ops[i];
        step *s = &p->steps[i];
        s->needed = bind(p, run, op, s);
        if (!s->needed || s->feed) continue;
        want(p, run, op->x);
        want(p, run, op->residual);
        want(p, run, op->logits);
        if (op->y >= 0) s->needed = rows_of(p, run, op->y) > 0;
    }
}

typedef struct walk {
    tfi_program *program;
    const tfi_run *run;
    /* The first stage that failed: workers leave together at the barrier after it. An op is stage 2i, its taps stage 2i + 1,
     * the taps of kept values stage -1. */
    _Atomic int64_t failed_stage;
    tfi_cpu_error error;
} walk;

static void fail_at(walk *k, int64_t stage, tf_status status)
{
    int64_t before = atomic_load(&k->failed_stage);

    tfi_cpu_error_keep(&k->error, status);
    while (stage < before && !atomic_compare_exchange_weak(&k->failed_stage, &before, stage)) continue;
}

/* Right after a barrier, so that all workers give the same answer. */
static int has_failed(const walk *k, int64_t stage)
{
    return atomic_load(&k->failed_stage) <= stage;
}

/* Not a number or infinite: the exponent's bits are all set. An integer test, so that the loop vectorises. */
static int copy_row(const void *src, tfi_dtype type, int64_t n, float *dst)
{
    uint32_t bad = 0;

    if (type == TFI_F32) {
        memcpy(dst, src, (size_t)n * sizeof *dst);
    } else {
        for (int64_t i = 0; i < n; i++) dst[i] = tfi_bf16_to_f32(((const uint16_t *)src)[i]);
    }
    for (int64_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, dst + i, sizeof bits);
        bad |= (bits & 0x7f800000u) == 0x7f800000u;
    }
    return bad == 0;
}

static tf_status copy_tap(const walk *k, const tfi_tap *tap, const tfi_worker *w)
{
    const tfi_program *p = k->program;
    const tfi_value *v = &p->graph->values[tap->value];
    int64_t begin, end;

    tfi_share(w, tap->count ? tap->count : rows_of(p, k->run, tap->value), &begin, &end);
    for (int64_t i = begin; i < end; i++) {
        const int64_t r = tap->first + i;
        if (!copy_row(tfi_at(value(p, tap->value), v->dtype, r * v->cols), v->dtype, v->cols, tap->dst + i * tap->stride) &&
            !tap->infinite)
            return tfi_fail(TF_STATUS_NUMERIC, "row %lld of %s holds a NaN or an infinity", (long long)r, v->name);
    }
    return TF_STATUS_OK;
}

/* Copy this worker's rows of the value to all its taps. Its memory may serve another value next: a barrier follows. */
static void copy_taps(walk *k, int32_t v, int64_t stage, const tfi_worker *w)
{
    const tfi_run *run = k->run;
    tf_status status;
    int found = 0;

    for (int32_t i = 0; i < run->tap_count; i++) {
        if (run->taps[i].value != v) continue;
        if ((status = copy_tap(k, &run->taps[i], w)) < 0) fail_at(k, stage, status);
        found = 1;
    }
    if (found) tfi_pool_barrier(k->program->cpu->pool);
}

static void copy_feed(const walk *k, const tfi_feed *feed, const tfi_worker *w)
{
    const tfi_program *p = k->program;
    const int64_t cols = cols_of(p, feed->value);
    float *dst = value(p, feed->value);
    int64_t begin, end;

    tfi_share(w, rows_of(p, k->run, feed->value), &begin, &end);
    for (int64_t r = begin; r < end; r++) memcpy(dst + r * cols, feed->src + r * feed->stride, (size_t)cols * sizeof *dst);
}

static void run_step(walk *k, int32_t i, const tfi_worker *w)
{
    step *s = &k->program->steps[i];
    tf_status status;

    if (s->feed) {
        copy_feed(k, s->feed, w);
    } else if (s->fn) {
        s->fn(&s->args, w);
    } else if ((status = tfi_linear_run(k->program->cpu->linear, &s->args.linear, s->types.y, w, s->taken)) < 0) {
        fail_at(k, 2 * (int64_t)i, status);
    }
}

static void walk_ops(void *arg, int index, int count)
{
    walk *k = arg;
    tfi_program *p = k->program;
    const tfi_graph *g = p->graph;
    const tfi_worker w = {index, count, p->block + p->scratch_at + index * p->scratch_bytes};

    for (int32_t v = 0; v < g->value_count; v++)
        if (is_there(p, k->run, v)) copy_taps(k, v, -1, &w);
    if (has_failed(k, -1)) return;
    for (int32_t i = 0; i < g->op_count; i++) {
        if (!p->steps[i].needed) continue;
        run_step(k, i, &w);
        tfi_pool_barrier(p->cpu->pool);
        if (has_failed(k, 2 * (int64_t)i)) return;
        if (g->ops[i].y < 0) continue;
        copy_taps(k, g->ops[i].y, 2 * (int64_t)i + 1, &w);
        if (has_failed(k, 2 * (int64_t)i + 1)) return;
    }
}

tf_status tfi_cpu_run(tfi_program *p, const tfi_run *run)
{
    walk k = {.program = p, .run = run, .failed_stage = INT64_MAX};
    tf_status status;

    for (int i = 0; i < TFI_ROWS_COUNT; i++) assert(run->rows[i] >= 0 && run->rows[i] <= p->limits[i]);
    for (int32_t i = 0; i < run->feed_count; i++) assert(p->graph->values[run->feeds[i].value].dtype == TFI_F32);
    bind_all(p, run);
    if ((status = tfi_pool_run(p->cpu->pool, walk_ops, &k)) < 0) return status;
    return tfi_cpu_error_raise(&k.error);
}
