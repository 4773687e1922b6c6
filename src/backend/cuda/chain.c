/* Chains: ops of a decode step of one row in one launch (kernels/chain.cu). Which ops a chain does is found in every walk, by
 * the run's rows, taps and feeds:
 *   link    [GATHER_ROWS] [NORM] LINEAR [GLU], or [KV_APPEND] ATTENTION from the store
 *   chain   links one behind the other, each of which reads as x what the one before it writes, in words as it wants them
 * A product waits for all words of its x, attention for those of a head, and all its heads for all of them. So when a link
 * writes, all links are over but, where it is attention, the one before it: words are written only where none but those that
 * are over had to do with what was there. Memory takes care of itself: the plan keeps an op's operands apart, the first
 * link's x is words before a product writes, and what attention follows reads nothing else from memory, having no residual.
 *
 * What a link writes is in the exchange for links of the same chain, and in memory for everybody else; in memory alone is what
 * no other link reads. The exchange begins with the words that the first link's x goes to. */
#include <assert.h>

#include "backend/cuda/program.h"

enum { LINE = 16 /* words, of 128 bytes */, COLUMNS_MAX = 1 << 30 /* their numbers are of 32 bits */ };

/* ---- what the graph alone decides ---- */

static int is_half(tfi_dtype t)
{
    return t == TFI_BF16 || t == TFI_F16;
}

static int is_from_store(const tfi_op *op)
{
    return op->kind == TFI_OP_ATTENTION && (op->attend == TFI_ATTEND_CACHE || op->attend == TFI_ATTEND_SOURCE);
}

/* Each link has one of these. */
static int makes_a_link(const tfi_graph *g, const tfi_op *op)
{
    return (op->kind == TFI_OP_LINEAR && is_half(g->weights[op->weight].dtype)) ||
           (is_from_store(op) && is_half(g->values[op->x].dtype));
}

int32_t tfi_cuda_link_room(const tfi_graph *g)
{
    int32_t count = 0, decodes = 0;

    for (int32_t i = 0; i < g->op_count; i++) {
        count += makes_a_link(g, &g->ops[i]);
        decodes |= is_from_store(&g->ops[i]) && g->ops[i].attend == TFI_ATTEND_CACHE;
    }
    return !decodes ? 0 : count < INT16_MAX ? count : INT16_MAX;
}

static void find_last_reads(tfi_program *p)
{
    const tfi_graph *g = p->graph;

    for (int32_t v = 0; v < g->value_count; v++) p->last_read[v] = -1;
    for (int32_t i = 0; i < g->op_count; i++) {
        const tfi_op *op = &g->ops[i];
        const int may_join = op->kind == TFI_OP_GATHER_ROWS || op->kind == TFI_OP_NORM || makes_a_link(g, op);
        if (!may_join) continue;
        p->last_read[op->x] = i;
        if (op->residual >= 0) p->last_read[op->residual] = i;
    }
}

/* ---- words of the exchange ---- */

static int64_t whole_lines(int64_t words)
{
    return (words + LINE - 1) / LINE * LINE;
}

/* A chain that grows: links [begin, end); none before `held` has words that must stay. */
typedef struct growing {
    tfi_program *p;
    int32_t begin, end, held;
} growing;

/* Whether words of link i must stay while the next link writes. */
static int is_held(const growing *c, int32_t i)
{
    const tfi_linked *l = c->p->linked;
    return l[i].words > 0 && c->p->last_read[l[i].y] >= l[c->end - 1].op;
}

/* The lowest words that are free for what the next link writes; 0: there are none. */
static int place(growing *c, const tfi_link *link, tfi_linked *next, int64_t room)
{
    const tfi_linked *l = c->p->linked;
    int64_t at = c->p->given_words, words = 0;

    if (c->p->last_read[next->y] >= next->behind) words = whole_lines(tfi_cuda_link_words(link));
    while (c->held < c->end && !is_held(c, c->held)) c->held++;
    for (int32_t i = c->held; i < c->end; i++) {
        if (!is_held(c, i) || at >= l[i].at + l[i].words || at + words <= l[i].at) continue;
        at = l[i].at + l[i].words;
        i = c->held - 1; /* what was below may be in the way now */
    }
    if (at + words > room) return 0;
    next->at = (int32_t)at;
    next->words = (int32_t)words;
    return 1;
}

/* Words for any link's x. */
static int64_t words_to_give(const tfi_program *p)
{
    const tfi_graph *g = p->graph;
    int64_t most = 0;

    for (int32_t i = 0; i < g->op_count && p->link_room > 0; i++) {
        const int64_t columns = g->values[g->ops[i].x].cols;
        if (makes_a_link(g, &g->ops[i]) && columns <= COLUMNS_MAX && columns > most) most = columns;
    }
    return whole_lines(most);
}

/* The exchange is as large as it takes when all ops are in one chain. */
void tfi_cuda_prepare_chains(tfi_program *p)
{
    const tfi_graph *g = p->graph;
    growing c = {.p = p};

    find_last_reads(p);
    p->exchange_words = p->given_words = words_to_give(p);
    for (int32_t i = 0; i < g->op_count && c.end < p->link_room; i++) {
        if (!makes_a_link(g, &g->ops[i])) continue;
        const tfi_few_parts *f = &p->steps[i].parts;
        const int32_t last = f->glu >= 0 ? f->glu : i, op = f->gather >= 0 ? f->gather : f->norm >= 0 ? f->norm : i;
        const tfi_value *y = &g->values[g->ops[last].y];
        const tfi_link like = {.y.dtype = (int16_t)y->dtype, .of.product.N = (int32_t)y->cols, .kind = TFI_LINK_PRODUCT};
        tfi_linked *l = &p->linked[c.end];
        *l = (tfi_linked){.y = g->ops[last].y, .op = op, .behind = last + 1};
        if (y->cols > COLUMNS_MAX || !place(&c, &like, l, INT32_MAX)) break;
        c.end++;
        if (l->at + l->words > p->exchange_words) p->exchange_words = l->at + l->words;
    }
}

/* ---- links ---- */

static int is_computed(const tfi_program *p, int32_t op)
{
    return p->steps[op].needed && !p->steps[op].feed;
}

static tfi_link_rows in_memory(const void *rows, tfi_dtype type)
{
    return (tfi_link_rows){.memory = (void *)(uintptr_t)rows, .words = -1, .dtype = (int16_t)type};
}

/* The product that begins with op i; the op behind it, or 0: there is none. */
static int32_t describe_product(const tfi_pass *s, int32_t i, tfi_link *link, tfi_linked *l)
{
    const tfi_program *p = s->program;
    const tfi_op *ops = p->graph->ops;
    const int32_t most = i + 2 < p->graph->op_count ? i + 2 : p->graph->op_count - 1;
    tfi_few_args a;
    int32_t k = i;

    while (k < most && (ops[k].kind == TFI_OP_GATHER_ROWS || ops[k].kind == TFI_OP_NORM)) k++;
    tfi_few_parts f = p->steps[k].parts;
    if (ops[k].kind != TFI_OP_LINEAR || !is_computed(p, k) || (i != k && i != f.norm && i != f.gather)) return 0;
    if (i != f.gather) f.gather = -1;
    if (i == k) f.norm = -1;
    if (f.gather >= 0 && !tfi_cuda_can_join(s, f.gather)) return 0;
    if (f.norm >= 0 && (f.norm_shown || ops[f.norm].residual >= 0 || !tfi_cuda_can_join(s, f.norm))) return 0;
    if (f.glu >= 0 && (!tfi_cuda_can_join(s, k) || !is_computed(p, f.glu))) f.glu = -1;
    tfi_cuda_describe_few(s, k, &f, &a);
    if (a.N > COLUMNS_MAX || a.K > COLUMNS_MAX) return 0;
    *l = (tfi_linked){.x = ops[i].x,
                      .residual = ops[k].residual,
                      .y = ops[f.glu >= 0 ? f.glu : k].y,
                      .op = i,
                      .behind = (f.glu >= 0 ? f.glu : k) + 1,
                      .type = a.type};
    *link = (tfi_link){.x = a.norm.gain ? in_memory(a.norm.x, a.norm_x) : in_memory(a.x, a.type),
                       .residual = in_memory(a.residual, a.out),
                       .y = in_memory(a.y, a.out),
                       .of.product = {.w = a.w,
                                      .bias = a.bias,
                                      .gain = a.norm.gain,
                                      .shift = a.norm.bias,
                                      .N = (int32_t)a.N,
                                      .K = (int32_t)a.K,
                                      .eps = a.norm.eps,
                                      .norm = (uint8_t)a.norm.norm,
                                      .activation = (uint8_t)a.activation,
                                      .gated = (uint8_t)a.gated},
                       .kind = TFI_LINK_PRODUCT,
                       .rows = (uint8_t)p->graph->values[l->y].rows};
    return l->behind;
}

/* Attention over all columns of its x: the heads together wait for all of it. */
static int32_t describe_attention(const tfi_pass *s, int32_t i, tfi_link *link, tfi_linked *l)
{
    const tfi_program *p = s->program;
    const tfi_op *append = p->graph->ops[i].kind == TFI_OP_KV_APPEND ? &p->graph->ops[i++] : NULL;
    const tfi_op *op = &p->graph->ops[i];

    if (i == p->graph->op_count || !is_from_store(op) || !is_computed(p, i)) return 0;
    const int source = op->attend == TFI_ATTEND_SOURCE;
    const int64_t width = (int64_t)op->heads * op->head_size, cols = p->graph->values[op->x].cols;
    if (source ? append != NULL : !append || !tfi_cuda_appends_inside(s, i)) return 0;
    if (cols > COLUMNS_MAX || cols != (source ? width : append->column + 2 * width)) return 0;
    if (s->run->store->shape.dtype != p->steps[i].types.x) return 0;
    *l = (tfi_linked){
        .x = op->x, .residual = -1, .y = op->y, .op = i - (append != NULL), .behind = i + 1, .type = p->steps[i].types.x};
    *link = (tfi_link){.x = in_memory(tfi_cuda_value(p, op->x), p->steps[i].types.x),
                       .residual = in_memory(NULL, TFI_F32),
                       .y = in_memory(tfi_cuda_value(p, op->y), p->steps[i].types.y),
                       .of.attention = {.bias = op->bias < 0 ? NULL : p->forms[op->bias].data,
                                        .layer = op->layer,
                                        .H = op->heads,
                                        .D = op->head_size,
                                        .column = append ? append->column : 0,
                                        .max_distance = op->bias < 0 ? 0 : p->graph->weights[op->bias].relative.max_distance,
                                        .scale = op->scale,
                                        .source = (uint8_t)source},
                       .kind = TFI_LINK_ATTENTION,
                       .rows = TFI_ROWS_TOKENS};
    return l->behind;
}

/* The link that begins with op i; the op behind it, or 0: none does. */
static int32_t describe(const tfi_pass *s, int32_t i, tfi_link *link, tfi_linked *l)
{
    const tfi_op_kind kind = s->program->graph->ops[i].kind;
    int32_t behind = 0;

    if (kind == TFI_OP_KV_APPEND || kind == TFI_OP_ATTENTION) behind = describe_attention(s, i, link, l);
    if (kind == TFI_OP_GATHER_ROWS || kind == TFI_OP_NORM || kind == TFI_OP_LINEAR) behind = describe_product(s, i, link, l);
    return behind && tfi_cuda_link_fits(link, l->type, s->shape.longest_stored, s->program->cuda->capability) ? behind : 0;
}

/* ---- chains ---- */

/* The chain's end; where it does not pay, its ops are launched by themselves. */
static void close_chain(growing *c)
{
    tfi_program *p = c->p;
    const int pays = tfi_cuda_chain_pays(p->links + c->begin, c->end - c->begin);

    if (pays) p->steps[p->linked[c->begin].op].chain = c->end - c->begin;
    for (int32_t n = c->begin; n < c->end && !pays; n++)
        for (int32_t i = p->linked[n].op; i < p->linked[n].behind; i++) p->steps[i].link = -1;
    if (!pays) c->end = c->begin;
    c->begin = c->held = c->end;
}

/* Taps are taken behind a chain's launch: of its last value, then. */
static int goes_on(const tfi_pass *s, const growing *c, const tfi_link *link, const tfi_linked *l)
{
    if (c->end == c->begin) return 1;
    const tfi_linked *last = &c->p->linked[c->end - 1];
    const tfi_link *writer = &c->p->links[c->end - 1];
    return l->x == last->y && l->type == last->type && c->end - c->begin < TFI_CHAIN_LINKS && !tfi_cuda_is_tapped(s, last->y) &&
           (link->kind == TFI_LINK_PRODUCT || writer->kind == TFI_LINK_PRODUCT) && tfi_cuda_links_meet(writer, link);
}

static void append(growing *c, const tfi_link *link, const tfi_linked *l)
{
    c->p->links[c->end] = *link;
    c->p->linked[c->end] = *l;
    for (int32_t i = l->op; i < l->behind; i++) c->p->steps[i].link = c->end;
    c->end++;
}

/* Steps are marked with links and chains; how many links there are. */
static int32_t find_links(const tfi_pass *s)
{
    tfi_program *p = s->program;
    growing c = {.p = p};

    for (int32_t i = 0, behind; i < p->graph->op_count; i = behind) {
        tfi_linked l;
        tfi_link link;
        behind = i + 1;
        if (!p->steps[i].needed) continue;
        const int32_t linked = c.end < p->link_room ? describe(s, i, &link, &l) : 0;
        if (!linked || !goes_on(s, &c, &link, &l)) close_chain(&c);
        if (!linked) continue;
        if (!place(&c, &link, &l, p->exchange_words)) {
            close_chain(&c);
            if (!place(&c, &link, &l, p->exchange_words)) continue;
        }
        append(&c, &link, &l);
        behind = linked;
    }
    close_chain(&c);
    return c.end;
}

/* ---- where rows are ---- */

/* Rows of value v that link n of the chain from `begin` reads. */
static void read_rows(const tfi_program *p, int32_t begin, tfi_link_rows *rows, int32_t v)
{
    const int32_t w = v < 0 ? -1 : p->writer[v];

    if (w < 0) return;
    if (w < begin) {
        p->links[w].y.memory = tfi_cuda_value(p, v);
        return;
    }
    assert(p->linked[w].words > 0);
    rows->memory = NULL;
    rows->words = p->links[w].y.words = p->linked[w].at;
    rows->link = (int16_t)w;
}

static void show(const tfi_program *p, int32_t v)
{
    if (v >= 0 && p->writer[v] >= 0) p->links[p->writer[v]].y.memory = tfi_cuda_value(p, v);
}

static void connect(const tfi_pass *s, int32_t count)
{
    const tfi_program *p = s->program;
    const tfi_graph *g = p->graph;
    int64_t first = 0;

    for (int32_t v = 0; v < g->value_count; v++) p->writer[v] = -1;
    for (int32_t n = 0; n < count; n++) {
        const int32_t y = p->linked[n].y;
        p->writer[y] = n;
        if (!g->values[y].keep && !tfi_cuda_is_tapped(s, y)) p->links[n].y.memory = NULL;
        p->links[n].y.link = (int16_t)n;
        p->links[n].first = (int32_t)(first % p->cuda->multiprocessors);
        first += tfi_cuda_link_shares(&p->links[n]);
    }
    for (int32_t i = 0, begin = 0; i < g->op_count; i++) {
        const tfi_op *op = &g->ops[i];
        const int32_t n = p->steps[i].link;
        if (p->steps[i].chain) begin = n;
        if (n >= 0 && i == p->linked[n].op) {
            read_rows(p, begin, &p->links[n].x, p->linked[n].x);
            read_rows(p, begin, &p->links[n].residual, p->linked[n].residual);
        } else if (n < 0 && is_computed(p, i)) {
            show(p, op->x);
            show(p, op->residual);
            show(p, op->logits);
        }
    }
}

static int has_one_row(const tfi_pass *s)
{
    for (int i = 0; i < TFI_ROWS_COUNT; i++)
        if (s->shape.rows[i] > 1) return 0;
    return s->shape.single;
}

void tfi_cuda_find_chains(const tfi_pass *s)
{
    tfi_program *p = s->program;

    for (int32_t i = 0; i < p->graph->op_count; i++) {
        p->steps[i].link = -1;
        p->steps[i].chain = 0;
    }
    if (p->link_room == 0 || !has_one_row(s)) return;
    connect(s, find_links(s));
}

tf_status tfi_cuda_launch_chain(const tfi_pass *s, const tfi_cuda_launch *l, int32_t op)
{
    const tfi_program *p = s->program;
    const int32_t begin = p->steps[op].link, count = p->steps[op].chain;
    tfi_chain_args a = {.links = p->links + begin,
                        .count = count,
                        .number = begin,
                        .max_tokens = s->shape.longest_stored,
                        .type = p->linked[begin].type,
                        .exchange = p->block + p->exchange_at,
                        .given = 0};

    for (int32_t n = begin; n < begin + count; n++) {
        if (p->links[n].kind != TFI_LINK_ATTENTION) continue;
        if (p->links[n].of.attention.source) a.source = tfi_cuda_kv_view(s, TFI_ATTEND_SOURCE, 0);
        else a.own = tfi_cuda_kv_view(s, TFI_ATTEND_CACHE, 0);
    }
    return tfi_cuda_chain(l, &a);
}

/* ---- tags ---- */

/* Before tags come again the exchange forgets them, behind the runs on their way. */
tf_status tfi_cuda_next_tag(const tfi_pass *s, uint32_t *tag)
{
    tfi_program *p = s->program;
    tf_status st;

    if (p->tag > UINT32_MAX - (uint32_t)p->link_room) {
        const size_t bytes = (size_t)p->exchange_words * sizeof(uint64_t);
        if ((st = TFI_CUDA(p->cuda, cudaMemsetAsync(p->block + p->exchange_at, 0, bytes, s->stream))) < 0) return st;
        p->tag = 1;
    }
    *tag = p->tag;
    p->tag += (uint32_t)p->link_room;
    return TF_STATUS_OK;
}
