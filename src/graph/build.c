#include "graph/build.h"

#include <string.h>

#include "base/status.h"

/* Far beyond any real model, and small enough that products of two stay inside int64. */
#define DIMENSION_MAX ((int64_t)1 << 31)
enum { RELATIVE_DISTANCE_MAX = 1 << 20 };

void tfi_build_begin(tfi_builder *b, tfi_arena *arena, tfi_memory *memory)
{
    *b = (tfi_builder){.arena = arena, .memory = memory};
}

void tfi_build_fail(tfi_builder *b, tf_status status)
{
    if (b->status == TF_STATUS_OK) b->status = status;
}

/* Room for one more element in one of the three growing arrays. */
static int grow(tfi_builder *b, void **array, int32_t count, int32_t *room, size_t size)
{
    if (b->status < 0) return 0;
    if (count < *room) return 1;
    const int32_t wanted = *room ? *room * 2 : 64;
    void *p = tfi_realloc(b->memory, *array, (size_t)*room * size, (size_t)wanted * size);
    if (!p) {
        tfi_build_fail(b, TF_STATUS_NOMEM);
        return 0;
    }
    *array = p;
    *room = wanted;
    return 1;
}

static int32_t add_value(tfi_builder *b, const char *name, tfi_dtype dtype, tfi_rows rows, int64_t cols)
{
    if (cols < 1 || cols > DIMENSION_MAX) {
        tfi_build_fail(b, tfi_fail(TF_STATUS_CORRUPT, "%s would have %lld columns", name, (long long)cols));
        return -1;
    }
    if (!grow(b, (void **)&b->graph.values, b->graph.value_count, &b->value_room, sizeof *b->graph.values)) return -1;
    char *copy = tfi_arena_copy(b->arena, name, strlen(name));
    if (!copy) {
        tfi_build_fail(b, TF_STATUS_NOMEM);
        return -1;
    }
    b->graph.values[b->graph.value_count] = (tfi_value){.name = copy, .dtype = dtype, .rows = rows, .cols = cols};
    return b->graph.value_count++;
}

static void append_op(tfi_builder *b, tfi_op op)
{
    if (grow(b, (void **)&b->graph.ops, b->graph.op_count, &b->op_room, sizeof *b->graph.ops))
        b->graph.ops[b->graph.op_count++] = op;
}

/* Add the op and the value it writes; -1 after a failure. */
static int32_t add_op(tfi_builder *b, const char *name, tfi_op op, tfi_dtype dtype, tfi_rows rows, int64_t cols)
{
    if (b->status < 0) return -1;
    op.y = add_value(b, name, dtype, rows, cols);
    append_op(b, op);
    return b->status < 0 ? -1 : op.y;
}

static tfi_op new_op(tfi_op_kind kind)
{
    return (tfi_op){
        .kind = kind, .x = -1, .residual = -1, .y = -1, .logits = -1, .weight = -1, .bias = -1, .positions = -1, .types = -1};
}

/* The value, or NULL after recording why not. */
static const tfi_value *operand(tfi_builder *b, const char *name, int32_t v)
{
    if (b->status < 0) return NULL;
    if (v >= 0 && v < b->graph.value_count) return &b->graph.values[v];
    tfi_build_fail(b, tfi_fail(TF_STATUS_INTERNAL, "%s: operand %d is no value of the graph", name, (int)v));
    return NULL;
}

/* Note a reader of weight w and check its shape; rows or cols 0 means any. */
static int reads(tfi_builder *b, const char *name, int32_t w, int reader, int64_t rows, int64_t cols)
{
    if (b->status < 0) return 0;
    if (w < 0 || w >= b->graph.weight_count) {
        tfi_build_fail(b, tfi_fail(TF_STATUS_INTERNAL, "%s: operand %d is no weight of the graph", name, (int)w));
        return 0;
    }
    tfi_weight *weight = &b->graph.weights[w];
    if ((rows && weight->rows != rows) || (cols && weight->cols != cols)) {
        tfi_build_fail(b, tfi_fail(TF_STATUS_CORRUPT, "%s: weight %s is [%lld, %lld], [%lld, %lld] is expected", name,
                                   weight->name, (long long)weight->rows, (long long)weight->cols,
                                   (long long)(rows ? rows : weight->rows), (long long)(cols ? cols : weight->cols)));
        return 0;
    }
    weight->readers |= reader;
    return 1;
}

int32_t tfi_build_weight(tfi_builder *b, const tfi_weight *w)
{
    if (b->status < 0) return -1;
    for (int32_t i = 0; i < b->graph.weight_count; i++) {
        const tfi_weight *have = &b->graph.weights[i];
        if (w->part[0] && have->part[0] == w->part[0] && have->rows == w->rows && have->cols == w->cols && have->scale == w->scale)
            return i;
    }
    if (w->rows < 1 || w->cols < 1 || w->rows > DIMENSION_MAX || w->cols > DIMENSION_MAX) {
        tfi_build_fail(
            b, tfi_fail(TF_STATUS_CORRUPT, "%s would be [%lld, %lld]", w->name, (long long)w->rows, (long long)w->cols));
        return -1;
    }
    if (!grow(b, (void **)&b->graph.weights, b->graph.weight_count, &b->weight_room, sizeof *b->graph.weights)) return -1;
    tfi_weight *added = &b->graph.weights[b->graph.weight_count];
    *added = *w;
    if (!(added->name = tfi_arena_copy(b->arena, w->name, strlen(w->name)))) {
        tfi_build_fail(b, TF_STATUS_NOMEM);
        return -1;
    }
    return b->graph.weight_count++;
}

int32_t tfi_build_embed(tfi_builder *b, const char *name, int32_t word, int32_t positions, int32_t types, tfi_dtype dtype)
{
    tfi_op op = new_op(TFI_OP_EMBED);

    if (!reads(b, name, word, TFI_READ_ROWS, 0, 0)) return -1;
    const int64_t width = b->graph.weights[word].cols;
    if (positions >= 0 && !reads(b, name, positions, TFI_READ_ROWS, 0, width)) return -1;
    if (types >= 0 && !reads(b, name, types, TFI_READ_ROWS, 0, width)) return -1;
    op.weight = word;
    op.positions = positions;
    op.types = types;
    return add_op(b, name, op, dtype, TFI_ROWS_TOKENS, width);
}

static int32_t add_norm(tfi_builder *b, const char *name, tfi_op op, tfi_dtype dtype)
{
    const tfi_value *in = operand(b, name, op.x), *r = op.residual >= 0 ? operand(b, name, op.residual) : NULL;

    if (!in || (op.residual >= 0 && !r)) return -1;
    if (r && (r->rows != in->rows || r->cols != in->cols)) {
        tfi_build_fail(b,
                       tfi_fail(TF_STATUS_INTERNAL, "%s: the residual %s has another shape than %s", name, r->name, in->name));
        return -1;
    }
    if (!reads(b, name, op.weight, TFI_READ_VECTOR, 1, in->cols)) return -1;
    if (op.norm == TFI_NORM_LAYER && !reads(b, name, op.bias, TFI_READ_VECTOR, 1, in->cols)) return -1;
    return add_op(b, name, op, dtype, in->rows, in->cols);
}

int32_t tfi_build_norm(tfi_builder *b, const char *name, int32_t x, int32_t residual, int32_t gain, int32_t bias, float eps,
                       tfi_dtype dtype)
{
    tfi_op op = new_op(TFI_OP_NORM);

    op.x = x;
    op.residual = residual;
    op.weight = gain;
    op.bias = bias;
    op.eps = eps;
    return add_norm(b, name, op, dtype);
}

int32_t tfi_build_rms_norm(tfi_builder *b, const char *name, int32_t x, int32_t residual, int32_t gain, float eps,
                           tfi_dtype dtype)
{
    tfi_op op = new_op(TFI_OP_NORM);

    op.norm = TFI_NORM_RMS;
    op.x = x;
    op.residual = residual;
    op.weight = gain;
    op.eps = eps;
    return add_norm(b, name, op, dtype);
}

int32_t tfi_build_linear(tfi_builder *b, const char *name, int32_t x, int32_t weight, int32_t bias, tfi_activation activation,
                         int32_t residual, tfi_dtype dtype)
{
    tfi_op op = new_op(TFI_OP_LINEAR);
    const tfi_value *in = operand(b, name, x), *r = residual >= 0 ? operand(b, name, residual) : NULL;

    if (!in || (residual >= 0 && !r) || !reads(b, name, weight, TFI_READ_LINEAR, 0, in->cols)) return -1;
    const int64_t outputs = b->graph.weights[weight].rows;
    if (bias >= 0 && !reads(b, name, bias, TFI_READ_VECTOR, 1, outputs)) return -1;
    if (b->graph.weights[weight].dtype != in->dtype) {
        tfi_build_fail(b, tfi_fail(TF_STATUS_INTERNAL, "%s: %s input meets a %s weight", name, tfi_dtype_name(in->dtype),
                                   tfi_dtype_name(b->graph.weights[weight].dtype)));
        return -1;
    }
    if (r && (r->rows != in->rows || r->cols != outputs || r->dtype != dtype)) {
        tfi_build_fail(b, tfi_fail(TF_STATUS_INTERNAL, "%s: the residual %s has another shape or type", name, r->name));
        return -1;
    }
    op.x = x;
    op.weight = weight;
    op.bias = bias;
    op.activation = activation;
    op.residual = residual;
    return add_op(b, name, op, dtype, in->rows, outputs);
}

int32_t tfi_build_glu(tfi_builder *b, const char *name, int32_t x, tfi_activation activation, tfi_dtype dtype)
{
    tfi_op op = new_op(TFI_OP_GLU);
    const tfi_value *in = operand(b, name, x);

    if (!in) return -1;
    if (in->cols % 2) {
        tfi_build_fail(
            b, tfi_fail(TF_STATUS_INTERNAL, "%s: %s has no two halves of %lld columns", name, in->name, (long long)in->cols));
        return -1;
    }
    op.x = x;
    op.activation = activation;
    return add_op(b, name, op, dtype, in->rows, in->cols / 2);
}

/* Are there `needed` matrices of heads * head_size columns in x, from `column` on? */
static int has_heads(tfi_builder *b, const char *name, const tfi_value *x, const tfi_op *op, int needed)
{
    const int64_t columns = (int64_t)op->heads * op->head_size;

    if (op->heads >= 1 && op->head_size >= 1 && op->head_size <= 256 && op->column >= 0 && op->layer >= 0 &&
        x->rows == TFI_ROWS_TOKENS && x->cols - op->column >= needed * columns)
        return 1;
    tfi_build_fail(b, tfi_fail(TF_STATUS_UNSUPPORTED, "%s: %d heads of size %d over %lld columns; head sizes are 1 to 256",
                               name, (int)op->heads, (int)op->head_size, (long long)x->cols));
    return 0;
}

/* The table of a relative position bias: can its buckets be computed, and is there a column for each head? */
static int reads_bias(tfi_builder *b, const char *name, int32_t w, int32_t heads)
{
    if (!reads(b, name, w, TFI_READ_BIAS, 0, heads)) return 0;
    const tfi_weight *weight = &b->graph.weights[w];
    const tfi_relative *r = &weight->relative;
    const int32_t exact = r->buckets / (r->bidirectional ? 4 : 2); /* distances with a bucket of their own */

    if (weight->rows == r->buckets && weight->dtype == TFI_F32 && exact >= 1 && r->max_distance > exact &&
        r->max_distance <= RELATIVE_DISTANCE_MAX)
        return 1;
    tfi_build_fail(
        b, tfi_fail(TF_STATUS_UNSUPPORTED, "%s: %d relative position buckets up to distance %d, from %s [%lld, %lld]", name,
                    (int)r->buckets, (int)r->max_distance, weight->name, (long long)weight->rows, (long long)weight->cols));
    return 0;
}

static void add_append(tfi_builder *b, const char *name, const tfi_value *x, tfi_op op)
{
    op.kind = TFI_OP_KV_APPEND;
    op.bias = -1;
    if (has_heads(b, name, x, &op, 2)) append_op(b, op);
}

int32_t tfi_build_attention(tfi_builder *b, const char *name, int32_t x, const tfi_attention_spec *spec)
{
    const int fused = spec->attend == TFI_ATTEND_ALL || spec->attend == TFI_ATTEND_CAUSAL;
    tfi_op op = new_op(TFI_OP_ATTENTION);
    const tfi_value *in = operand(b, name, x);

    if (!in) return -1;
    op.x = x;
    op.attend = spec->attend;
    op.layer = spec->layer;
    op.heads = spec->heads;
    op.head_size = spec->head_size;
    if (!has_heads(b, name, in, &op, fused ? 3 : 1)) return -1;
    const int64_t columns = (int64_t)op.heads * op.head_size;
    if (fused && in->cols != 3 * columns) {
        tfi_build_fail(b,
                       tfi_fail(TF_STATUS_INTERNAL, "%s: %s has more columns than queries, keys and values", name, in->name));
        return -1;
    }
    if (op.attend == TFI_ATTEND_CACHE) {
        op.column = (int32_t)columns;
        add_append(b, name, in, op);
        op.column = 0;
    }
    if (spec->bias >= 0 && !reads_bias(b, name, spec->bias, op.heads)) return -1;
    op.bias = spec->bias;
    op.scale = spec->scale;
    return add_op(b, name, op, in->dtype, TFI_ROWS_TOKENS, columns);
}

void tfi_build_keep_source(tfi_builder *b, int32_t x, int32_t layer, int32_t heads, int32_t head_size, int32_t column)
{
    tfi_op op = new_op(TFI_OP_KV_APPEND);
    const tfi_value *in = operand(b, "keys of the source", x);

    if (!in) return;
    op.x = x;
    op.attend = TFI_ATTEND_SOURCE;
    op.layer = layer;
    op.heads = heads;
    op.head_size = head_size;
    op.column = column;
    add_append(b, in->name, in, op);
}

void tfi_build_kv_copy(tfi_builder *b)
{
    append_op(b, new_op(TFI_OP_KV_COPY));
}

static int32_t add_process(tfi_builder *b, const char *name, int32_t x, tfi_process_stage stage)
{
    tfi_op op = new_op(TFI_OP_LOGITS_PROCESS);
    const tfi_value *in = operand(b, name, x);

    if (!in) return -1;
    op.x = x;
    op.stage = stage;
    return add_op(b, name, op, TFI_F32, TFI_ROWS_SELECTED, in->cols);
}

void tfi_build_draw(tfi_builder *b, int32_t logits, tfi_draw_values *out)
{
    static const tfi_op_kind sinks[] = {TFI_OP_SAMPLE, TFI_OP_BEAM_STEP, TFI_OP_STOP};
    const tfi_value *in = operand(b, "draw", logits);
    tfi_op op = new_op(TFI_OP_LOGPROB);

    *out = (tfi_draw_values){-1, -1, -1};
    if (!in) return;
    if (in->dtype != TFI_F32 || in->rows != TFI_ROWS_SELECTED) {
        tfi_build_fail(b, tfi_fail(TF_STATUS_INTERNAL, "%s: tokens are drawn from fp32 rows of the selected tokens", in->name));
        return;
    }
    op.x = logits;
    out->logprob = add_op(b, "logprob", op, TFI_F32, TFI_ROWS_SELECTED, 1);
    out->constrained = add_process(b, "constrained", logits, TFI_PROCESS_CONSTRAIN);
    out->warped = add_process(b, "warped", out->constrained, TFI_PROCESS_WARP);
    op.x = out->warped;
    op.logits = logits;
    for (int i = 0; i < 3; i++) {
        op.kind = sinks[i];
        append_op(b, op);
    }
}

static int32_t add_gather(tfi_builder *b, const char *name, int32_t x, tfi_rows rows)
{
    tfi_op op = new_op(TFI_OP_GATHER_ROWS);
    const tfi_value *in = operand(b, name, x);

    if (!in) return -1;
    op.x = x;
    return add_op(b, name, op, in->dtype, rows, in->cols);
}

int32_t tfi_build_gather(tfi_builder *b, const char *name, int32_t x)
{
    return add_gather(b, name, x, TFI_ROWS_SELECTED);
}

int32_t tfi_build_gather_last(tfi_builder *b, const char *name, int32_t x)
{
    return add_gather(b, name, x, TFI_ROWS_SEQUENCES);
}

int32_t tfi_build_pool(tfi_builder *b, const char *name, int32_t x, int32_t pooling, tfi_dtype dtype)
{
    tfi_op op = new_op(TFI_OP_POOL);
    const tfi_value *in = operand(b, name, x);
    int64_t kinds = 0;

    if (!in) return -1;
    for (int32_t p = pooling; p; p >>= 3) kinds++;
    op.x = x;
    op.pooling = pooling;
    return add_op(b, name, op, dtype, TFI_ROWS_SEQUENCES, in->cols * kinds);
}

int32_t tfi_build_l2norm(tfi_builder *b, const char *name, int32_t x, float eps)
{
    tfi_op op = new_op(TFI_OP_L2NORM);
    const tfi_value *in = operand(b, name, x);

    if (!in) return -1;
    op.x = x;
    op.eps = eps;
    return add_op(b, name, op, in->dtype, in->rows, in->cols);
}

void tfi_build_keep(tfi_builder *b, int32_t value)
{
    if (operand(b, "keep", value)) b->graph.values[value].keep = 1;
}

static void *settle(tfi_builder *b, void *array, int32_t count, int32_t room, size_t size)
{
    void *p = NULL;

    if (b->status == TF_STATUS_OK) {
        if ((p = tfi_arena_alloc(b->arena, (size_t)count * size)) && count) memcpy(p, array, (size_t)count * size);
        else if (!p) b->status = TF_STATUS_NOMEM;
    }
    tfi_free(b->memory, array, (size_t)room * size);
    return p;
}

/* Move the values and ops of the graph in the works to the arena; the builder keeps none. */
static void close_graph(tfi_builder *b, tfi_graph *out)
{
    tfi_graph *g = &b->graph;

    *out = (tfi_graph){.value_count = g->value_count, .op_count = g->op_count};
    out->values = settle(b, g->values, g->value_count, b->value_room, sizeof *g->values);
    out->ops = settle(b, g->ops, g->op_count, b->op_room, sizeof *g->ops);
    g->values = NULL;
    g->ops = NULL;
    g->value_count = g->op_count = b->value_room = b->op_room = 0;
}

void tfi_build_next(tfi_builder *b, tfi_graph *out)
{
    close_graph(b, out);
}

tf_status tfi_build_finish(tfi_builder *b, tfi_graph *before, tfi_graph *out)
{
    tfi_graph last;

    close_graph(b, &last);
    last.weight_count = b->graph.weight_count;
    last.weights = settle(b, b->graph.weights, b->graph.weight_count, b->weight_room, sizeof *b->graph.weights);
    b->graph = (tfi_graph){0};
    b->weight_room = 0;
    if (b->status < 0) return b->status;
    if (before) {
        before->weights = last.weights;
        before->weight_count = last.weight_count;
    }
    *out = last;
    return TF_STATUS_OK;
}
