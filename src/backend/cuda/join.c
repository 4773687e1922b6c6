/* Ops that one launch does together. Which ones could be is found when a program is opened, by their places in the graph and who
 * reads what; whether they are is decided in every walk, by the run's rows and taps, and the walk leaves out what another does:
 *   GATHER_ROWS, NORM, LINEAR, GLU   where the product has few rows; each but LINEAR may be missing. A POOL of first tokens
 *                                    does as GATHER_ROWS
 *   LINEAR, NORM                     where the product has some more rows, and the norm adds a residual to it
 *   GATHER_ROWS, NORM                else
 *   EMBED, NORM                      unless the norm is done with a product
 *   KV_APPEND, ATTENTION             where every sequence has one row
 * What a chain does (chain.c) is not joined here again. */
#include <string.h>

#include "backend/cuda/program.h"

static const tfi_op *op_at(const tfi_program *p, int32_t i)
{
    return &p->graph->ops[i];
}

/* Ops that read a value. */
static int readers(const tfi_graph *g, int32_t v)
{
    int count = 0;

    for (int32_t i = 0; i < g->op_count; i++) {
        const tfi_op *op = &g->ops[i];
        count += (op->x == v) + (op->residual == v) + (op->logits == v);
    }
    return count;
}

int tfi_cuda_feeds_next_alone(const tfi_graph *g, int32_t i)
{
    const tfi_op *op = &g->ops[i];
    return i + 1 < g->op_count && g->ops[i + 1].x == op->y && !g->values[op->y].keep && readers(g, op->y) == 1;
}

/* What it writes is rows of what it reads: those that GATHER_ROWS is given, or a POOL's first ones where none are skipped. */
static int picks_rows(const tfi_graph *g, int32_t i)
{
    const tfi_op *op = &g->ops[i];
    return op->kind == TFI_OP_GATHER_ROWS ||
           (op->kind == TFI_OP_POOL && op->pooling == TFI_POOL_CLS && g->values[op->x].dtype == g->values[op->y].dtype);
}

static void find_parts(tfi_program *p, int32_t i)
{
    const tfi_graph *g = p->graph;
    tfi_few_parts *f = &p->steps[i].parts;

    *f = (tfi_few_parts){-1, -1, -1, 0};
    if (g->ops[i].kind != TFI_OP_LINEAR) return;
    if (i > 0 && g->ops[i - 1].kind == TFI_OP_NORM && g->ops[i - 1].y == g->ops[i].x) f->norm = i - 1;
    f->norm_shown = f->norm >= 0 && !tfi_cuda_feeds_next_alone(g, f->norm);
    const int32_t first = f->norm >= 0 ? f->norm : i;
    if (first > 0 && picks_rows(g, first - 1) && tfi_cuda_feeds_next_alone(g, first - 1) && g->ops[first].residual < 0)
        f->gather = first - 1;
    if (i + 1 < g->op_count && g->ops[i + 1].kind == TFI_OP_GLU && tfi_cuda_feeds_next_alone(g, i) && g->ops[i].residual < 0 &&
        g->ops[i].activation == TFI_ACT_NONE)
        f->glu = i + 1;
}

void tfi_cuda_find_joins(tfi_program *p)
{
    for (int32_t i = 0; i < p->graph->op_count; i++) find_parts(p, i);
}

int tfi_cuda_is_tapped(const tfi_pass *s, int32_t v)
{
    return (s->program->wanted[v] & TFI_WANTED_BY_TAP) != 0;
}

/* Taps are taken behind the launch of their own op. */
int tfi_cuda_can_join(const tfi_pass *s, int32_t op)
{
    return s->program->steps[op].needed && !s->program->steps[op].feed && !tfi_cuda_is_tapped(s, op_at(s->program, op)->y);
}

/* One launch reads `read` and writes `written`, which the plan of memory did not know of. */
int tfi_cuda_are_apart(const tfi_program *p, int32_t read, int32_t written)
{
    if (read < 0) return 1;
    const tfi_value *a = &p->graph->values[read], *b = &p->graph->values[written];
    const int64_t a_end = p->offsets[read] + p->limits[a->rows] * a->cols * (int64_t)tfi_dtype_size(a->dtype);
    const int64_t b_end = p->offsets[written] + p->limits[b->rows] * b->cols * (int64_t)tfi_dtype_size(b->dtype);
    return p->offsets[read] >= b_end || p->offsets[written] >= a_end;
}

/* ---- a product of few rows ---- */

const int32_t *tfi_cuda_gathered(const tfi_pass *s, int32_t i)
{
    const tfi_program *p = s->program;
    const int is_last = p->graph->values[op_at(p, i)->y].rows == TFI_ROWS_SEQUENCES;
    if (op_at(p, i)->kind == TFI_OP_POOL) return tfi_cuda_input(s, TFI_INPUT_OFFSETS);
    return tfi_cuda_input(s, is_last ? TFI_INPUT_LAST : TFI_INPUT_SELECTED);
}

/* The call that does LINEAR `i` with these parts. */
void tfi_cuda_describe_few(const tfi_pass *s, int32_t i, const tfi_few_parts *f, tfi_few_args *a)
{
    const tfi_program *p = s->program;
    const tfi_op *op = op_at(p, i), *out = f->glu >= 0 ? op_at(p, f->glu) : op;
    const tfi_weight *w = &p->graph->weights[op->weight];
    int32_t x = op->x;

    *a = (tfi_few_args){.w = p->forms[op->weight].data,
                        .bias = op->bias < 0 ? NULL : p->forms[op->bias].data,
                        .residual = tfi_cuda_value(p, op->residual),
                        .y = tfi_cuda_value(p, out->y),
                        .M = s->shape.rows[p->graph->values[out->y].rows],
                        .N = w->rows,
                        .K = w->cols,
                        .type = p->steps[i].types.x,
                        .out = p->graph->values[out->y].dtype,
                        .activation = out->activation,
                        .gated = f->glu >= 0,
                        .encode = p->cuda->driver.tensor_map_encode};
    if (f->gather >= 0) {
        a->from = tfi_cuda_gathered(s, f->gather);
        x = op_at(p, f->gather)->x;
    }
    if (f->norm < 0) {
        a->x = tfi_cuda_value(p, x);
        return;
    }
    const tfi_op *norm = op_at(p, f->norm);
    if (f->gather < 0) x = norm->x;
    a->norm = (tfi_norm_args){.x = tfi_cuda_value(p, x),
                              .residual = tfi_cuda_value(p, norm->residual),
                              .gain = p->forms[norm->weight].data,
                              .bias = norm->bias < 0 ? NULL : p->forms[norm->bias].data,
                              .norm = norm->norm,
                              .R = a->M,
                              .E = a->K,
                              .eps = norm->eps};
    a->norm_x = p->steps[f->norm].types.x;
    a->norm_residual = p->steps[f->norm].types.residual;
    if (f->norm_shown) a->norm.y = tfi_cuda_value(p, norm->y);
}

static int fits(const tfi_pass *s, int32_t i, const tfi_few_parts *f, tfi_few_args *a)
{
    tfi_cuda_describe_few(s, i, f, a);
    return tfi_cuda_few_fits(a, s->program->cuda->capability);
}

static int can_pick(const tfi_pass *s, int32_t i)
{
    return tfi_cuda_can_join(s, i) && (op_at(s->program, i)->kind == TFI_OP_GATHER_ROWS || s->shape.skip == 0);
}

/* Of the product's neighbours those that can come along in this run. */
static tfi_few_parts able_parts(const tfi_pass *s, int32_t i)
{
    const tfi_program *p = s->program;
    const tfi_op *op = op_at(p, i);
    tfi_few_parts f = p->steps[i].parts;
    int32_t y = op->y;

    if (f.glu >= 0 && tfi_cuda_can_join(s, i) && tfi_cuda_can_join(s, f.glu) &&
        tfi_cuda_are_apart(p, op->x, op_at(p, f.glu)->y))
        y = op_at(p, f.glu)->y;
    else f.glu = -1;
    if (f.gather >= 0 && !can_pick(s, f.gather)) f.gather = -1;
    const tfi_op *norm = f.norm >= 0 ? op_at(p, f.norm) : NULL;
    const int32_t x = f.gather >= 0 ? op_at(p, f.gather)->x : norm ? norm->x : op->x;
    if (norm && (!tfi_cuda_can_join(s, f.norm) || !tfi_cuda_are_apart(p, x, norm->y) ||
                 !tfi_cuda_are_apart(p, norm->residual, norm->y) || !tfi_cuda_are_apart(p, norm->residual, y)))
        f.norm = f.gather = -1;
    if (!tfi_cuda_are_apart(p, x, y)) f.norm = f.gather = -1;
    return f;
}

/* How the product is done; 0: not as one of few rows. */
static int choose(const tfi_pass *s, int32_t i, tfi_few_parts *f, tfi_few_args *a)
{
    const tfi_op *op = op_at(s->program, i);

    if (s->program->steps[i].link >= 0 || s->shape.rows[s->program->graph->values[op->y].rows] > TFI_FEW_ROWS) return 0;
    *f = able_parts(s, i);
    if (fits(s, i, f, a)) return 1;
    f->norm = f->gather = -1; /* a norm of its own may pay */
    if (fits(s, i, f, a)) return 1;
    f->glu = -1;
    return fits(s, i, f, a);
}

int tfi_cuda_few_call(const tfi_pass *s, int32_t i, tfi_few_args *a)
{
    tfi_few_parts f;
    return s->program->steps[i].needed && choose(s, i, &f, a);
}

/* ---- a product of more rows, and the norm behind it ---- */

/* The NORM that may be done with LINEAR `i`; -1: none. */
static int32_t norm_behind(const tfi_pass *s, int32_t i)
{
    const tfi_program *p = s->program;
    const tfi_op *op = op_at(p, i), *norm = op + 1;

    if (op->kind != TFI_OP_LINEAR || op->residual >= 0 || p->steps[i].link >= 0 || !tfi_cuda_feeds_next_alone(p->graph, i) ||
        norm->kind != TFI_OP_NORM || norm->norm != TFI_NORM_LAYER || norm->residual < 0 || !tfi_cuda_can_join(s, i) ||
        !tfi_cuda_can_join(s, i + 1) || !tfi_cuda_are_apart(p, op->x, norm->y))
        return -1;
    const tfi_dtype type = p->steps[i].types.y;
    return p->steps[i + 1].types.residual == type && p->steps[i + 1].types.y == type ? i + 1 : -1;
}

int tfi_cuda_mid_call(const tfi_pass *s, int32_t i, tfi_mid_args *a)
{
    const tfi_program *p = s->program;
    const tfi_op *op = op_at(p, i);
    const tfi_weight *w = &p->graph->weights[op->weight];
    const int32_t behind = norm_behind(s, i);

    *a = (tfi_mid_args){.x = tfi_cuda_value(p, op->x),
                        .w = p->forms[op->weight].data,
                        .bias = op->bias < 0 ? NULL : p->forms[op->bias].data,
                        .residual = tfi_cuda_value(p, op->residual),
                        .y = tfi_cuda_value(p, op->y),
                        .M = s->shape.rows[p->graph->values[op->y].rows],
                        .N = w->rows,
                        .K = w->cols,
                        .type = p->steps[i].types.x,
                        .out = p->steps[i].types.y,
                        .activation = op->activation,
                        .encode = p->cuda->driver.tensor_map_encode};
    if (behind >= 0) {
        const tfi_op *norm = op_at(p, behind);
        tfi_mid_args both = *a;
        both.residual = tfi_cuda_value(p, norm->residual);
        both.gain = p->forms[norm->weight].data;
        both.shift = norm->bias < 0 ? NULL : p->forms[norm->bias].data;
        both.eps = norm->eps;
        both.y = tfi_cuda_value(p, norm->y);
        if (tfi_cuda_mid_fits(&both, p->cuda->capability)) *a = both;
        if (a->gain) return 1;
    }
    return tfi_cuda_mid_fits(a, p->cuda->capability);
}

/* NORM `i` is done by the product before it. */
static int is_normed_before(const tfi_pass *s, int32_t i)
{
    tfi_mid_args a;

    return i > 0 && norm_behind(s, i - 1) == i && tfi_cuda_mid_call(s, i - 1, &a) && a.gain;
}

int32_t tfi_cuda_gather_inside(const tfi_pass *s, int32_t i)
{
    const tfi_program *p = s->program;

    if (i == 0 || op_at(p, i - 1)->kind != TFI_OP_GATHER_ROWS || op_at(p, i)->kind != TFI_OP_NORM || !p->steps[i].needed ||
        p->steps[i].feed || p->steps[i].link >= 0 || op_at(p, i)->residual >= 0 ||
        !tfi_cuda_feeds_next_alone(p->graph, i - 1) || !tfi_cuda_can_join(s, i - 1) ||
        !tfi_cuda_are_apart(p, op_at(p, i - 1)->x, op_at(p, i)->y))
        return -1;
    return i - 1;
}

int32_t tfi_cuda_embed_inside(const tfi_pass *s, int32_t i)
{
    const tfi_program *p = s->program;

    if (i == 0 || op_at(p, i - 1)->kind != TFI_OP_EMBED || op_at(p, i)->kind != TFI_OP_NORM || !p->steps[i].needed ||
        p->steps[i].feed || p->steps[i].link >= 0 || op_at(p, i)->residual >= 0 || op_at(p, i)->x != op_at(p, i - 1)->y ||
        !tfi_cuda_can_join(s, i - 1) || tfi_cuda_is_joined(s, i))
        return -1;
    if (!tfi_cuda_feeds_next_alone(p->graph, i - 1) && p->graph->values[op_at(p, i)->x].dtype != TFI_F32) return -1;
    const int64_t E = p->graph->values[op_at(p, i)->y].cols;
    return tfi_cuda_embed_norm_fits(E) ? i - 1 : -1;
}

/* ---- what is left out ---- */

int tfi_cuda_appends_inside(const tfi_pass *s, int32_t i)
{
    const tfi_graph *g = s->program->graph;

    if (i == 0 || s->shape.longest != 1 || g->ops[i].attend != TFI_ATTEND_CACHE) return 0;
    const tfi_op *append = &g->ops[i - 1];
    return append->kind == TFI_OP_KV_APPEND && append->attend == TFI_ATTEND_CACHE && append->layer == g->ops[i].layer &&
           append->x == g->ops[i].x && s->program->steps[i - 1].needed && s->program->steps[i].needed;
}

int tfi_cuda_is_joined(const tfi_pass *s, int32_t i)
{
    const tfi_graph *g = s->program->graph;
    tfi_few_parts f;
    tfi_few_args a;

    if (s->program->steps[i].link >= 0) return s->program->steps[i].chain == 0;
    switch (g->ops[i].kind) {
    case TFI_OP_EMBED:
        return i + 1 < g->op_count && tfi_cuda_embed_inside(s, i + 1) == i;
    case TFI_OP_KV_APPEND:
        return i + 1 < g->op_count && g->ops[i + 1].kind == TFI_OP_ATTENTION && tfi_cuda_appends_inside(s, i + 1);
    case TFI_OP_POOL:
    case TFI_OP_GATHER_ROWS:
    case TFI_OP_NORM:
        if (g->ops[i].kind == TFI_OP_NORM && is_normed_before(s, i)) return 1;
        for (int32_t k = i + 1; k < g->op_count && k <= i + 2; k++)
            if (g->ops[k].kind == TFI_OP_LINEAR && s->program->steps[k].needed && choose(s, k, &f, &a) &&
                (f.norm == i || f.gather == i))
                return 1;
        return i + 1 < g->op_count && tfi_cuda_gather_inside(s, i + 1) == i;
    case TFI_OP_GLU:
        return i > 0 && g->ops[i - 1].kind == TFI_OP_LINEAR && s->program->steps[i - 1].needed && choose(s, i - 1, &f, &a) &&
               f.glu == i;
    default:
        return 0;
    }
}
