/* A program: a graph with its operand types resolved, one allocation on the device, and the walk that launches its ops. */
#include "backend/cuda/program.h"

#include <string.h>

#include "backend/cuda/buckets.h"
#include "backend/cuda/gemm.h"
#include "backend/plan.h"
#include "base/status.h"

/* ---- sizes ---- */

static int64_t head_bytes(const tfi_graph *g)
{
    return (int64_t)sizeof(tfi_program) + g->op_count * (int64_t)sizeof(tfi_step) +
           tfi_cuda_link_room(g) * (int64_t)(sizeof(tfi_link) + sizeof(tfi_linked)) +
           g->value_count * (int64_t)(sizeof(int64_t) + 2 * sizeof(int32_t) + sizeof(int8_t));
}

/* A program with its arrays behind it, and what its graph alone decides. */
static tfi_program *make_head(const tfi_graph *g, tfi_memory *memory)
{
    tfi_program *p = tfi_zalloc(memory, (size_t)head_bytes(g));

    if (!p) return NULL;
    p->graph = g;
    p->memory = memory;
    p->link_room = tfi_cuda_link_room(g);
    p->steps = (tfi_step *)(p + 1);
    p->offsets = (int64_t *)(p->steps + g->op_count);
    p->links = (tfi_link *)(p->offsets + g->value_count);
    p->linked = (tfi_linked *)(p->links + p->link_room);
    p->last_read = (int32_t *)(p->linked + p->link_room);
    p->writer = p->last_read + g->value_count;
    p->wanted = (int8_t *)(p->writer + g->value_count);
    tfi_cuda_find_joins(p);
    return p;
}

static void round_limits(const int64_t limits[TFI_LIMIT_COUNT], int64_t out[TFI_LIMIT_COUNT])
{
    memcpy(out, limits, TFI_LIMIT_COUNT * sizeof *out);
    for (int i = 0; i < TFI_ROWS_COUNT; i++)
        if (limits[i] <= TFI_GRAPH_ROWS) out[i] = tfi_bucket(limits[i]);
}

/* A bias goes into the matrix library's epilogue in y's dtype. */
static int64_t bias_bytes(const tfi_graph *g, const tfi_op *op)
{
    if (op->kind != TFI_OP_LINEAR || op->bias < 0 || g->values[op->y].dtype == TFI_F32) return 0;
    return tfi_cuda_aligned(2 * g->values[op->y].cols);
}

/* What the driver takes for all graphs that a program may hold. */
static int64_t graph_bytes(const tfi_graph *g)
{
    const int64_t chains = (tfi_cuda_link_room(g) + TFI_CHAIN_LINKS - 1) / TFI_CHAIN_LINKS;
    return TFI_GRAPHS * (g->op_count * (int64_t)TFI_GRAPH_OP_BYTES + chains * TFI_GRAPH_CHAIN_BYTES);
}

static int64_t embedding_bytes(const tfi_graph *g, const int64_t *limits)
{
    int64_t bytes = 0;

    for (int32_t i = 0; i < g->op_count; i++)
        if (g->ops[i].kind == TFI_OP_EMBED) bytes = 4 * limits[TFI_ROWS_TOKENS] * g->values[g->ops[i].y].cols;
    return bytes;
}

static int reads_store(const tfi_graph *g, tfi_attend attend)
{
    for (int32_t i = 0; i < g->op_count; i++) {
        const tfi_op *op = &g->ops[i];
        if ((op->kind == TFI_OP_ATTENTION || op->kind == TFI_OP_KV_APPEND) && op->attend == attend) return 1;
    }
    return 0;
}

static int64_t choice_bytes(const tfi_program *p)
{
    return tfi_cuda_aligned(p->limits[TFI_ROWS_SEQUENCES] * (int64_t)sizeof(tfi_choice));
}

/* Where everything lies in the program's block and in its pinned memory; p->graph and p->offsets are set. */
static tf_status plan(tfi_program *p, const int64_t limits[TFI_LIMIT_COUNT], tfi_memory *memory)
{
    const tfi_graph *g = p->graph;
    int64_t at = 0, scratch = 0;
    tf_status st;

    round_limits(limits, p->limits);
    tfi_cuda_prepare_chains(p);
    p->has_cache = reads_store(g, TFI_ATTEND_CACHE);
    p->has_source = reads_store(g, TFI_ATTEND_SOURCE);
    if ((st = tfi_plan_values(g, p->limits, 0, memory, p->offsets, &at)) < 0) return st;
    p->input_bytes = tfi_cuda_input_bytes(p);
    p->inputs_at = at = tfi_cuda_aligned(at);
    p->embeddings_at = at += tfi_cuda_aligned(p->input_bytes);
    p->choices_at = at += tfi_cuda_aligned(embedding_bytes(g, p->limits));
    p->biases_at = at += choice_bytes(p);
    for (int32_t i = 0; i < g->op_count; i++) {
        const int64_t bytes = g->ops[i].kind == TFI_OP_LINEAR ? 0 : tfi_cuda_scratch(g, &g->ops[i], p->limits);
        if (bytes > scratch) scratch = bytes;
        at += bias_bytes(g, &g->ops[i]);
    }
    p->exchange_at = at;
    p->workspace_at = at += tfi_cuda_aligned(p->exchange_words * (int64_t)sizeof(uint64_t));
    p->scratch_at = at += TFI_GEMM_WORKSPACE;
    p->block_bytes = at + tfi_cuda_aligned(scratch);
    p->pinned_bytes = 2 * (tfi_cuda_aligned(p->input_bytes) + choice_bytes(p)) + TFI_CUDA_ALIGN + TFI_TAP_STAGING;
    return TF_STATUS_OK;
}

tf_status tfi_cuda_program_bytes(tfi_backend *b, const tfi_graph *g, const int64_t limits[TFI_LIMIT_COUNT], int64_t *bytes)
{
    tfi_cuda *c = (tfi_cuda *)b;
    tfi_program *p = make_head(g, c->memory);
    tf_status st;

    if (!p) return TF_STATUS_NOMEM;
    st = plan(p, limits, c->memory);
    if (st == TF_STATUS_OK) *bytes = head_bytes(g) + p->block_bytes + p->pinned_bytes + graph_bytes(g);
    tfi_free(c->memory, p, (size_t)head_bytes(g));
    return st;
}

/* ---- open, close ---- */

static tfi_dtype value_type(const tfi_graph *g, int32_t value)
{
    return value < 0 ? TFI_F32 : g->values[value].dtype;
}

static tf_status resolve(const tfi_program *p, const tfi_op *op, tfi_step *s)
{
    const tfi_graph *g = p->graph;
    const char *value = op->y >= 0 ? g->values[op->y].name : op->x >= 0 ? g->values[op->x].name : "the store";
    int known;

    s->types = (tfi_op_types){.x = op->kind == TFI_OP_EMBED ? g->weights[op->weight].dtype : value_type(g, op->x),
                              .residual = value_type(g, op->residual),
                              .y = value_type(g, op->y)};
    known = s->types.x <= TFI_F16 && s->types.residual <= TFI_F16 && s->types.y <= TFI_F16;
    if (op->kind == TFI_OP_LINEAR)
        known = known && s->types.x == g->weights[op->weight].dtype && (s->types.y == s->types.x || s->types.y == TFI_F32) &&
                (op->residual < 0 || s->types.residual == s->types.y);
    if (known) return TF_STATUS_OK;
    return tfi_fail(TF_STATUS_UNSUPPORTED, "%s of %s on %s: no function for %s, residual %s, giving %s", tfi_op_name(op->kind),
                    value, p->cuda->name, tfi_dtype_name(s->types.x), tfi_dtype_name(s->types.residual),
                    tfi_dtype_name(s->types.y));
}

/* Biases are resident in fp32; a program has those in 16 bits that its products take. */
static tf_status make_biases(tfi_program *p)
{
    const tfi_graph *g = p->graph;
    int64_t at = p->biases_at;

    for (int32_t i = 0; i < g->op_count; i++) {
        const tfi_op *op = &g->ops[i];
        const int64_t bytes = bias_bytes(g, op);
        tf_status st;

        if (op->kind != TFI_OP_LINEAR || op->bias < 0) continue;
        p->steps[i].bias = bytes ? p->block + at : p->forms[op->bias].data;
        if (!bytes) continue;
        const int64_t cols = g->values[op->y].cols;
        float *wide = tfi_alloc(p->memory, (size_t)cols * (sizeof(float) + sizeof(uint16_t)));
        if (!wide) return TF_STATUS_NOMEM;
        uint16_t *narrow = (uint16_t *)(wide + cols);
        st = TFI_CUDA(p->cuda, cudaMemcpy(wide, p->forms[op->bias].data, (size_t)cols * sizeof *wide, cudaMemcpyDeviceToHost));
        for (int64_t k = 0; k < cols && st == TF_STATUS_OK; k++) narrow[k] = tfi_cuda_round(p->steps[i].types.y, wide[k]);
        if (st == TF_STATUS_OK)
            st = TFI_CUDA(p->cuda, cudaMemcpy(p->block + at, narrow, (size_t)cols * sizeof *narrow, cudaMemcpyHostToDevice));
        tfi_free(p->memory, wide, (size_t)cols * (sizeof(float) + sizeof(uint16_t)));
        if (st < 0) return st;
        at += bytes;
    }
    return TF_STATUS_OK;
}

static tf_status make_flights(tfi_program *p)
{
    char *at = p->pinned;
    tf_status st = TF_STATUS_OK;

    for (int i = 0; i < 2 && st == TF_STATUS_OK; i++) {
        tfi_flight *f = &p->flights[i];
        f->inputs = at;
        memset(at, 0, sizeof(tfi_cuda_live)); /* number 0 */
        f->choices = (tfi_choice *)(void *)(at += tfi_cuda_aligned(p->input_bytes));
        at += choice_bytes(p);
        st = TFI_CUDA(p->cuda, cudaEventCreateWithFlags(&f->arrived, cudaEventDisableTiming));
    }
    p->finished = (uint32_t *)(void *)at;
    *p->finished = 0;
    p->taps = at + TFI_CUDA_ALIGN;
    return st;
}

static tf_status fill(tfi_program *p, const int64_t limits[TFI_LIMIT_COUNT])
{
    tf_status st;

    for (int32_t i = 0; i < p->graph->op_count; i++)
        if ((st = resolve(p, &p->graph->ops[i], &p->steps[i])) < 0) return st;
    if ((st = plan(p, limits, p->memory)) < 0 || (st = tfi_memory_charge(p->memory, graph_bytes(p->graph))) < 0) return st;
    p->graph_bytes = graph_bytes(p->graph);
    if (!(p->block = tfi_cuda_alloc(p->cuda, p->memory, p->block_bytes)) ||
        !(p->pinned = tfi_cuda_alloc_pinned(p->cuda, p->memory, p->pinned_bytes)))
        return TF_STATUS_NOMEM;
    if ((st = make_flights(p)) < 0) return st;
    /* Dead rows are computed along with live ones: they must hold numbers of some kind, or a product would be slow over them.
     */
    if ((st = TFI_CUDA(p->cuda, cudaMemset(p->block, 0, (size_t)p->block_bytes))) < 0 ||
        (st = TFI_CUDA(p->cuda, cudaStreamCreateWithFlags(&p->stream, cudaStreamNonBlocking))) < 0 || (st = make_biases(p)) < 0)
        return st;
    return TFI_CUDA(p->cuda, cudaDeviceSynchronize());
}

tf_status tfi_cuda_program_open(tfi_backend *b, const tfi_graph *g, const tfi_weight_form *forms,
                                const int64_t limits[TFI_LIMIT_COUNT], tfi_memory *memory, tfi_program **out)
{
    tfi_cuda *c = (tfi_cuda *)b;
    tfi_program *p;
    tf_status st;

    *out = NULL;
    if ((st = tfi_cuda_enter(c)) < 0) return st;
    if (!(p = make_head(g, memory))) {
        tfi_cuda_leave(c);
        return TF_STATUS_NOMEM;
    }
    p->cuda = c;
    p->forms = forms;
    p->tag = 1;
    st = fill(p, limits);
    tfi_cuda_leave(c);
    if (st < 0) tfi_cuda_program_close(p);
    else *out = p;
    return st;
}

void tfi_cuda_program_close(tfi_program *p)
{
    if (!p) return;
    const int entered = tfi_cuda_enter(p->cuda) == TF_STATUS_OK;
    for (int i = 0; i < TFI_GRAPHS && entered; i++)
        if (p->captured[i].exec) (void)cudaGraphExecDestroy(p->captured[i].exec);
    for (int i = 0; i < 2 && entered; i++)
        if (p->flights[i].arrived) (void)cudaEventDestroy(p->flights[i].arrived);
    if (p->stream && entered) (void)cudaStreamDestroy(p->stream);
    tfi_cuda_free_pinned(p->cuda, p->memory, p->pinned, p->pinned_bytes);
    tfi_cuda_free(p->cuda, p->memory, p->block, p->block_bytes);
    tfi_memory_refund(p->memory, p->graph_bytes);
    if (entered) tfi_cuda_leave(p->cuda);
    tfi_free(p->memory, p, (size_t)head_bytes(p->graph));
}

/* ---- what a run needs ---- */

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
    if (v >= 0 && !is_there(p, run, v)) p->wanted[v] |= TFI_WANTED;
}

static int has_effect(const tfi_program *p, const tfi_run *run, const tfi_op *op)
{
    switch (op->kind) {
    case TFI_OP_KV_COPY:
        return (run->effects & TFI_EFFECT_KV) && run->copy_count > 0;
    case TFI_OP_KV_APPEND:
        return (run->effects & TFI_EFFECT_KV) && tfi_cuda_live_rows(p, run, op->x) > 0;
    default:
        return (run->effects & TFI_EFFECT_DRAW) && run->draw_count > 0;
    }
}

static int is_process(const tfi_op *op)
{
    return op->kind == TFI_OP_LOGITS_PROCESS;
}

/* Nobody but the draws sees processed logits. */
static int shows_processed(const tfi_program *p, const tfi_run *run)
{
    for (int32_t i = 0; i < p->graph->op_count; i++) {
        const int32_t y = p->graph->ops[i].y;
        if (!is_process(&p->graph->ops[i])) continue;
        if (feed_of(run, y)) return 1;
        for (int32_t k = 0; k < run->tap_count; k++)
            if (run->taps[k].value == y) return 1;
    }
    return 0;
}

/* Which of the ops that draw have something to draw, or one launch for them all. */
static void mark_draws(tfi_program *p, const tfi_run *run)
{
    int64_t beams = 0, greedy = 0;

    p->greedy = 0;
    if (!(run->effects & TFI_EFFECT_DRAW) || run->draw_count == 0) return;
    for (int64_t i = 0; i < run->draw_count; i++) {
        const tfi_sampling *s = ((const tfi_cuda_store *)run->store)->host[run->draws[i].slot].sampling;
        beams += s->num_beams > 1;
        greedy += tfi_cuda_is_greedy(s);
    }
    p->greedy = greedy == run->draw_count && !shows_processed(p, run);
    for (int32_t i = 0; i < p->graph->op_count; i++) {
        const tfi_op *op = &p->graph->ops[i];
        tfi_step *s = &p->steps[i];
        if (op->kind == TFI_OP_SAMPLE) s->needed = beams < run->draw_count;
        if (op->kind == TFI_OP_BEAM_STEP) s->needed = beams > 0;
        if (p->greedy && (is_process(op) || op->kind == TFI_OP_STOP)) s->needed = 0;
    }
}

/* The product whose logits are for GREEDY alone. */
static int32_t find_keyed(const tfi_program *p, const tfi_run *run)
{
    const tfi_graph *g = p->graph;
    int32_t logits = -1, product = -1;

    for (int64_t i = 0; p->greedy && i < run->draw_count; i++)
        if (run->draws[i].row != i || ((const tfi_cuda_store *)run->store)->host[run->draws[i].slot].sampling->logprobs)
            return -1;
    for (int32_t i = 0; p->greedy && i < g->op_count; i++)
        if (g->ops[i].kind == TFI_OP_SAMPLE) logits = g->ops[i].logits;
    if (logits < 0 || g->values[logits].keep || p->wanted[logits] & TFI_WANTED_BY_TAP) return -1;
    for (int32_t i = 0; i < g->op_count; i++) {
        const tfi_op *op = &g->ops[i];
        if (!p->steps[i].needed || op->kind == TFI_OP_SAMPLE) continue;
        if (op->x == logits || op->residual == logits || op->logits == logits) return -1;
        if (op->y == logits && op->kind == TFI_OP_LINEAR && !p->steps[i].feed) product = i;
    }
    return product;
}

/* Backwards from taps and effects. An op over no rows is left out, but not what feeds it. */
void tfi_cuda_mark(tfi_program *p, const tfi_run *run)
{
    const tfi_graph *g = p->graph;

    memset(p->wanted, 0, (size_t)g->value_count);
    for (int32_t i = 0; i < run->tap_count; i++) {
        want(p, run, run->taps[i].value);
        p->wanted[run->taps[i].value] |= TFI_WANTED_BY_TAP;
    }
    for (int32_t i = g->op_count; i-- > 0;) {
        const tfi_op *op = &g->ops[i];
        tfi_step *s = &p->steps[i];
        const int wanted = op->y >= 0 && p->wanted[op->y] & TFI_WANTED;
        s->feed = wanted ? feed_of(run, op->y) : NULL;
        s->needed = op->y < 0 ? has_effect(p, run, op) : wanted ? p->wanted[op->y] : 0;
        if (s->needed && !s->feed) {
            want(p, run, op->x);
            want(p, run, op->residual);
            want(p, run, op->logits);
        }
        if (op->y >= 0 && tfi_cuda_live_rows(p, run, op->y) == 0) s->needed = 0;
    }
    mark_draws(p, run);
    p->keyed = find_keyed(p, run);
}

/* ---- launches ---- */

static const void *weight(const tfi_program *p, int32_t w)
{
    return w < 0 ? NULL : p->forms[w].data;
}

static int64_t cols_of(const tfi_program *p, int32_t v)
{
    return p->graph->values[v].cols;
}

static tfi_rows kind_of(const tfi_program *p, int32_t v)
{
    return p->graph->values[v].rows;
}

tfi_kv_view tfi_cuda_kv_view(const tfi_pass *s, tfi_attend attend, int32_t layer)
{
    const int source = attend == TFI_ATTEND_SOURCE;

    return (tfi_kv_view){.store = s->run->store,
                         .lens = tfi_cuda_input(s, source ? TFI_INPUT_SOURCE_LENS : TFI_INPUT_KV_LENS),
                         .tables = tfi_cuda_input(s, source ? TFI_INPUT_SOURCE_TABLES : TFI_INPUT_KV_TABLES),
                         .stride = source ? s->run->source_stride : s->run->table_stride,
                         .layer = layer};
}

/* Formulas of the matrix library's epilogues. */
static int fits_epilogue(const tfi_op *op)
{
    if (op->activation == TFI_ACT_NONE) return 1;
    return op->residual < 0 && (op->activation == TFI_ACT_RELU || op->activation == TFI_ACT_GELU_TANH);
}

/* Keys a row that the product of logits leaves where the logits would be; 0: it leaves logits. */
static int64_t key_parts(const tfi_pass *s, const tfi_cuda_launch *l)
{
    const tfi_program *p = s->program;
    tfi_few_args few;

    if (p->keyed < 0 || !tfi_cuda_few_call(s, p->keyed, &few)) return 0;
    const int64_t parts = tfi_cuda_few_parts(l, &few);
    return parts * (int64_t)sizeof(uint64_t) <= few.N * (int64_t)sizeof(float) ? parts : 0;
}

static tf_status launch_linear(const tfi_pass *s, const tfi_cuda_launch *l, const tfi_op *op, const tfi_step *step)
{
    const tfi_program *p = s->program;
    const tfi_rows kind = kind_of(p, op->y);
    const int32_t i = (int32_t)(op - p->graph->ops);
    void *y = tfi_cuda_value(p, op->y), *workspace = p->block + p->workspace_at;
    const int fused = fits_epilogue(op);
    tfi_gemm_call call = {.M = s->shape.rows[kind],
                          .N = cols_of(p, op->y),
                          .K = p->graph->weights[op->weight].cols,
                          .type = step->types.x,
                          .out = step->types.y,
                          .x = tfi_cuda_value(p, op->x),
                          .w = weight(p, op->weight),
                          .y = y,
                          .may_time = !s->capturing};
    tfi_few_args few;
    tfi_mid_args mid;
    tf_status st;

    if (tfi_cuda_few_call(s, i, &few)) {
        if (i == p->keyed && key_parts(s, l) > 0) {
            few.draws = tfi_cuda_input(s, TFI_PART_DRAWS);
            few.slots = s->run->store->slots;
        }
        return tfi_cuda_few(l, &few, kind);
    }
    if (tfi_cuda_mid_call(s, i, &mid)) return tfi_cuda_mid(l, &mid, kind);
    const tfi_many_args many = {.x = call.x,
                                .w = call.w,
                                .bias = weight(p, op->bias),
                                .y = y,
                                .M = call.M,
                                .N = call.N,
                                .K = call.K,
                                .type = call.type,
                                .activation = op->activation,
                                .encode = p->cuda->driver.tensor_map_encode};
    if (op->residual < 0 && call.out == call.type && tfi_cuda_many_fits(&many, l->capability)) return tfi_cuda_many(l, &many);
    if (fused) {
        call.bias = step->bias;
        call.residual = tfi_cuda_value(p, op->residual);
        call.activation = op->activation;
        if ((st = tfi_gemm_run(p->cuda->gemm, &call, workspace, s->stream)) != TF_STATUS_UNSUPPORTED) return st;
        call.bias = call.residual = NULL;
        call.activation = TFI_ACT_NONE;
    }
    if ((st = tfi_gemm_run(p->cuda->gemm, &call, workspace, s->stream)) < 0) return st;
    const tfi_finish_args finish = {.sums = y,
                                    .bias = weight(p, op->bias),
                                    .residual = tfi_cuda_value(p, op->residual),
                                    .y = y,
                                    .M = call.M,
                                    .N = call.N,
                                    .activation = op->activation};
    if (!finish.bias && !finish.residual && finish.activation == TFI_ACT_NONE) return TF_STATUS_OK;
    return tfi_cuda_finish(l, &finish, (tfi_op_types){step->types.y, step->types.y, step->types.y}, kind);
}

static tfi_embed_args embed_args(const tfi_pass *s, const tfi_op *op)
{
    const tfi_program *p = s->program;
    return (tfi_embed_args){.ids = tfi_cuda_input(s, TFI_INPUT_IDS),
                            .position_ids = tfi_cuda_input(s, TFI_INPUT_POSITIONS),
                            .type_ids = tfi_cuda_input(s, TFI_INPUT_TYPES),
                            .embeddings = tfi_cuda_input(s, TFI_INPUT_EMBEDDINGS),
                            .slots = s->run->store ? s->run->store->slots : NULL,
                            .word_weight = &p->graph->weights[op->weight],
                            .word = &p->forms[op->weight],
                            .positions = weight(p, op->positions),
                            .types = weight(p, op->types),
                            .y = tfi_cuda_value(p, op->y),
                            .R = s->shape.rows[kind_of(p, op->y)],
                            .E = cols_of(p, op->y)};
}

static tf_status launch_norm(const tfi_pass *s, const tfi_cuda_launch *l, const tfi_op *op, const tfi_step *step)
{
    const tfi_program *p = s->program;
    const tfi_rows kind = kind_of(p, op->y);
    const int32_t i = (int32_t)(op - p->graph->ops), gather = tfi_cuda_gather_inside(s, i), embed = tfi_cuda_embed_inside(s, i);
    const tfi_norm_args a = {.x = tfi_cuda_value(p, gather < 0 ? op->x : p->graph->ops[gather].x),
                             .residual = tfi_cuda_value(p, op->residual),
                             .gain = weight(p, op->weight),
                             .bias = weight(p, op->bias),
                             .norm = op->norm,
                             .y = tfi_cuda_value(p, op->y),
                             .R = s->shape.rows[kind],
                             .E = cols_of(p, op->y),
                             .eps = op->eps};

    if (embed >= 0) {
        tfi_embed_args e = embed_args(s, &p->graph->ops[embed]);
        if (tfi_cuda_feeds_next_alone(p->graph, embed)) e.y = NULL;
        return tfi_cuda_embed_norm(l, &e, &a, (tfi_op_types){p->steps[embed].types.x, TFI_F32, step->types.y});
    }
    return tfi_cuda_norm(l, &a, step->types, kind, gather < 0 ? NULL : tfi_cuda_gathered(s, gather));
}

static tfi_kv_append_args append_args(const tfi_pass *s, const tfi_op *op)
{
    const tfi_program *p = s->program;

    return (tfi_kv_append_args){.x = tfi_cuda_value(p, op->x),
                                .x_stride = cols_of(p, op->x),
                                .offsets = tfi_cuda_input(s, TFI_INPUT_OFFSETS),
                                .kv = tfi_cuda_kv_view(s, op->attend, op->layer),
                                .R = s->shape.rows[kind_of(p, op->x)],
                                .B = s->shape.rows[TFI_ROWS_SEQUENCES],
                                .H = op->heads,
                                .D = op->head_size,
                                .column = op->column};
}

static tf_status launch_attention(const tfi_pass *s, const tfi_cuda_launch *l, const tfi_op *op, const tfi_step *step)
{
    const tfi_program *p = s->program;
    const int stored = op->attend == TFI_ATTEND_CACHE || op->attend == TFI_ATTEND_SOURCE;
    tfi_attention_args a = {.x = tfi_cuda_value(p, op->x),
                            .x_stride = cols_of(p, op->x),
                            .offsets = tfi_cuda_input(s, TFI_INPUT_OFFSETS),
                            .bias = weight(p, op->bias),
                            .y = tfi_cuda_value(p, op->y),
                            .R = s->shape.rows[TFI_ROWS_TOKENS],
                            .B = s->shape.rows[TFI_ROWS_SEQUENCES],
                            .H = op->heads,
                            .D = op->head_size,
                            .attend = op->attend,
                            .scale = op->scale};

    const int32_t i = (int32_t)(op - p->graph->ops);
    const int appends = tfi_cuda_appends_inside(s, i);
    tfi_kv_append_args append;

    if (appends) append = append_args(s, &p->graph->ops[i - 1]);
    if (stored) a.kv = tfi_cuda_kv_view(s, op->attend, op->layer);
    if (op->bias >= 0) a.max_distance = p->graph->weights[op->bias].relative.max_distance;
    return tfi_cuda_attention(l, &a, step->types, s->shape.longest, stored ? s->shape.longest_stored : s->shape.longest,
                              appends ? &append : NULL);
}

static tf_status launch_greedy(const tfi_pass *s, const tfi_cuda_launch *l, tfi_draw_args a)
{
    const int64_t parts = key_parts(s, l);

    a.x = a.logits;
    return parts > 0 ? tfi_cuda_greedy_of_keys(l, &a, (const uint64_t *)(const void *)a.logits, parts) : tfi_cuda_greedy(l, &a);
}

static tf_status launch_draw(const tfi_pass *s, const tfi_cuda_launch *l, const tfi_op *op)
{
    const tfi_program *p = s->program;
    const tfi_draw_args a = {.x = (const float *)(const void *)tfi_cuda_value(p, op->x),
                             .logits = (const float *)(const void *)tfi_cuda_value(p, op->logits),
                             .draws = tfi_cuda_input(s, TFI_PART_DRAWS),
                             .slots = s->run->store ? s->run->store->slots : NULL,
                             .choices = (tfi_choice *)(void *)(p->block + p->choices_at),
                             .count = s->shape.draws,
                             .V = cols_of(p, op->x)};

    if (p->greedy) return launch_greedy(s, l, a);
    if (op->kind == TFI_OP_SAMPLE) return tfi_cuda_sample(l, &a);
    return op->kind == TFI_OP_BEAM_STEP ? tfi_cuda_beam_step(l, &a) : tfi_cuda_stop(l, &a);
}

static tf_status launch_store(const tfi_pass *s, const tfi_cuda_launch *l, const tfi_op *op, const tfi_step *step)
{
    if (op->kind == TFI_OP_KV_COPY) {
        const tfi_kv_copy_args a = {
            .store = s->run->store, .copies = tfi_cuda_input(s, TFI_INPUT_KV_COPIES), .count = s->shape.copies};
        return tfi_cuda_kv_copy(l, &a);
    }
    const tfi_kv_append_args a = append_args(s, op);

    return tfi_cuda_kv_append(l, &a, step->types, op->attend);
}

static tf_status launch(const tfi_pass *s, const tfi_cuda_launch *l, const tfi_op *op, const tfi_step *step)
{
    const tfi_program *p = s->program;
    void *x = tfi_cuda_value(p, op->x), *y = tfi_cuda_value(p, op->y);
    const tfi_rows kind = op->y < 0 ? TFI_ROWS_TOKENS : kind_of(p, op->y);
    const int64_t rows = s->shape.rows[kind], cols = op->y < 0 ? 0 : cols_of(p, op->y);

    switch (op->kind) {
    case TFI_OP_EMBED: {
        const tfi_embed_args a = embed_args(s, op);
        return tfi_cuda_embed(l, &a, step->types);
    }
    case TFI_OP_NORM:
        return launch_norm(s, l, op, step);
    case TFI_OP_LINEAR:
        return launch_linear(s, l, op, step);
    case TFI_OP_GLU:
        return tfi_cuda_glu(l, &(tfi_glu_args){.x = x, .y = y, .R = rows, .F = cols, .activation = op->activation}, step->types,
                            kind);
    case TFI_OP_ATTENTION:
        return launch_attention(s, l, op, step);
    case TFI_OP_GATHER_ROWS:
        return tfi_cuda_gather(
            l,
            &(tfi_gather_args){
                .x = x, .rows = tfi_cuda_gathered(s, (int32_t)(op - p->graph->ops)), .y = y, .S = rows, .E = cols},
            step->types, kind);
    case TFI_OP_POOL:
        return tfi_cuda_pool(l,
                             &(tfi_pool_args){.x = x,
                                              .offsets = tfi_cuda_input(s, TFI_INPUT_OFFSETS),
                                              .y = y,
                                              .B = rows,
                                              .E = cols_of(p, op->x),
                                              .pooling = op->pooling,
                                              .skip = s->shape.skip},
                             step->types);
    case TFI_OP_L2NORM:
        return tfi_cuda_l2norm(l, &(tfi_l2norm_args){.x = x, .y = y, .R = rows, .E = cols, .eps = op->eps}, step->types, kind);
    case TFI_OP_LOGPROB:
        return tfi_cuda_logprob(
            l, &(tfi_logprob_args){
                   .x = x, .targets = tfi_cuda_input(s, TFI_INPUT_TARGETS), .y = y, .S = rows, .V = cols_of(p, op->x)});
    case TFI_OP_LOGITS_PROCESS:
        return tfi_cuda_process(l, &(tfi_process_args){.x = x,
                                                       .row_slots = tfi_cuda_input(s, TFI_INPUT_ROW_SLOTS),
                                                       .slots = s->run->store ? s->run->store->slots : NULL,
                                                       .y = y,
                                                       .S = rows,
                                                       .V = cols,
                                                       .stage = op->stage});
    case TFI_OP_KV_COPY:
    case TFI_OP_KV_APPEND:
        return launch_store(s, l, op, step);
    default:
        return launch_draw(s, l, op);
    }
}

static tf_status copy_feed(const tfi_pass *s, const tfi_feed *f)
{
    const tfi_program *p = s->program;
    const size_t row = (size_t)cols_of(p, f->value) * sizeof(float);

    return TFI_CUDA(p->cuda,
                    cudaMemcpy2DAsync(tfi_cuda_value(p, f->value), row, f->src, (size_t)f->stride * sizeof(float), row,
                                      (size_t)tfi_cuda_live_rows(p, s->run, f->value), cudaMemcpyHostToDevice, s->stream));
}

/* A launch that fails may be the first to hear of a fault, which is the device's. */
static tf_status launched(const tfi_pass *s, tf_status st)
{
    if (st != TF_STATUS_DEVICE || s->capturing) return st;
    const tf_status of_device = TFI_CUDA(s->program->cuda, cudaStreamSynchronize(s->stream));
    return of_device < 0 ? of_device : st;
}

tf_status tfi_cuda_walk(tfi_pass *s, int with_taps)
{
    tfi_program *p = s->program;
    const tfi_graph *g = p->graph;
    tfi_cuda_launch l = {.stream = s->stream,
                         .capability = p->cuda->capability,
                         .multiprocessors = p->cuda->multiprocessors,
                         .live = tfi_cuda_input(s, TFI_PART_LIVE),
                         .scratch = p->block + p->scratch_at};
    tf_status st;

    if ((st = launched(s, tfi_cuda_take(s, &l))) < 0) return st;
    tfi_cuda_find_chains(s);
    for (int32_t v = 0; with_taps && v < g->value_count; v++)
        if (is_there(p, s->run, v) && (st = tfi_cuda_take_taps(s, v)) < 0) return st;
    for (int32_t i = 0; i < g->op_count; i++) {
        const tfi_op *op = &g->ops[i];
        const tfi_step *step = &p->steps[i];
        if (!step->needed || tfi_cuda_is_joined(s, i)) continue;
        const int32_t y = step->chain ? p->linked[step->link + step->chain - 1].y : op->y;
        st = launched(s, step->feed    ? copy_feed(s, step->feed)
                         : step->chain ? tfi_cuda_launch_chain(s, &l, i)
                                       : launch(s, &l, op, step));
        if (st < 0)
            return tfi_fail_prefix(st, "%s of %s: ", tfi_op_name(op->kind), op->y >= 0 ? g->values[op->y].name : "the store");
        l.waits = 0;
        if (with_taps && y >= 0 && (st = tfi_cuda_take_taps(s, y)) < 0) return st;
    }
    if (s->results.count > 0 && (st = launched(s, tfi_cuda_give_results(&l, &s->results))) < 0) return st;
    return TFI_CUDA(p->cuda, cudaPeekAtLastError());
}
