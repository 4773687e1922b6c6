#include "graph/print.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/status.h"

typedef struct sink {
    char *text;
    int64_t capacity, size;
} sink;

static void put(sink *s, const char *format, ...) TFI_PRINTF(2, 3);

static void put(sink *s, const char *format, ...)
{
    char line[512];
    va_list args;

    va_start(args, format);
    int n = vsnprintf(line, sizeof line, format, args);
    va_end(args);
    if (n < 0) return;
    if ((size_t)n >= sizeof line) n = (int)sizeof line - 1;
    for (int i = 0; i < n; i++, s->size++)
        if (s->size < s->capacity) s->text[s->size] = line[i];
}

static const char *const row_names[TFI_ROWS_COUNT] = {"R", "B", "S"};
static const char *const activation_names[TFI_ACT_COUNT] = {"none", "relu", "gelu", "gelu_tanh", "silu", "tanh", "sigmoid"};
static const char *const attend_names[] = {"all", "causal", "cache", "source"};
static const char *const pooling_names[] = {"", "cls", "max", "mean", "mean_sqrt_len", "weighted_mean", "last", ""};

static void put_attributes(sink *s, const tfi_op *op)
{
    switch (op->kind) {
    case TFI_OP_NORM:
        if (op->norm == TFI_NORM_RMS) put(s, " rms");
        put(s, " eps=%g", (double)op->eps);
        break;
    case TFI_OP_L2NORM:
        put(s, " eps=%g", (double)op->eps);
        break;
    case TFI_OP_LINEAR:
    case TFI_OP_GLU:
        if (op->activation != TFI_ACT_NONE) put(s, " act=%s", activation_names[op->activation]);
        break;
    case TFI_OP_ATTENTION:
        put(s, " heads=%d head_size=%d scale=%g attend=%s", (int)op->heads, (int)op->head_size, (double)op->scale,
            attend_names[op->attend]);
        if (op->attend >= TFI_ATTEND_CACHE) put(s, " layer=%d", (int)op->layer);
        break;
    case TFI_OP_KV_APPEND:
        put(s, " to=%s layer=%d heads=%d head_size=%d column=%d", attend_names[op->attend], (int)op->layer, (int)op->heads,
            (int)op->head_size, (int)op->column);
        break;
    case TFI_OP_LOGITS_PROCESS:
        put(s, " stage=%s", op->stage == TFI_PROCESS_WARP ? "warp" : "constrain");
        break;
    case TFI_OP_POOL:
        for (int32_t p = op->pooling; p; p >>= 3) put(s, "%s%s", p == op->pooling ? " pooling=" : "+", pooling_names[p & 7]);
        break;
    default:
        break;
    }
}

static void put_weights(sink *s, const tfi_graph *g, const tfi_op *op, const char *before)
{
    const int32_t ids[] = {op->weight, op->bias, op->positions, op->types};

    for (int i = 0; i < 4; i++) {
        if (ids[i] < 0) continue;
        const tfi_weight *w = &g->weights[ids[i]];
        put(s, "%s%s[%lld,%lld]%s", before, w->name, (long long)w->rows, (long long)w->cols, w->parts > 1 ? "+" : "");
    }
}

int64_t tfi_graph_text(const tfi_graph *g, char *text, int64_t capacity)
{
    sink s = {text, capacity, 0};

    put(&s, "# %d ops, %d values, %d weights; rows: R tokens, B sequences, S selected\n", (int)g->op_count, (int)g->value_count,
        (int)g->weight_count);
    for (int32_t i = 0; i < g->op_count; i++) {
        const tfi_op *op = &g->ops[i];
        const tfi_value *y = op->y >= 0 ? &g->values[op->y] : NULL;
        if (y)
            put(&s, "%-32s [%s,%lld] %s%s = ", y->name, row_names[y->rows], (long long)y->cols, tfi_dtype_name(y->dtype),
                y->keep ? " kept" : "");
        put(&s, "%s", tfi_op_name(op->kind));
        if (op->x >= 0) put(&s, " %s", g->values[op->x].name);
        if (op->residual >= 0) put(&s, " residual=%s", g->values[op->residual].name);
        if (op->logits >= 0) put(&s, " logits=%s", g->values[op->logits].name);
        put_attributes(&s, op);
        put_weights(&s, g, op, " ");
        put(&s, "\n");
    }
    return s.size;
}

/* A node is named after its op's number; edges come from the ops that wrote the operands. */
static void put_edge(sink *s, const tfi_graph *g, int32_t value, int32_t op, const char *style)
{
    int32_t writer = op;

    if (value < 0) return;
    while (writer > 0 && g->ops[writer].y != value) writer--;
    put(s, "  o%d -> o%d%s;\n", (int)writer, (int)op, style);
}

int64_t tfi_graph_dot(const tfi_graph *g, char *text, int64_t capacity)
{
    sink s = {text, capacity, 0};

    put(&s, "digraph tfinfer {\n  rankdir=TB; node [shape=box, fontname=\"monospace\", fontsize=10];\n");
    for (int32_t i = 0; i < g->op_count; i++) {
        const tfi_op *op = &g->ops[i];
        const tfi_value *y = op->y >= 0 ? &g->values[op->y] : NULL;
        put(&s, "  o%d [label=\"%s", (int)i, tfi_op_name(op->kind));
        put_attributes(&s, op);
        put_weights(&s, g, op, "\\n");
        if (y) put(&s, "\\n%s [%s,%lld] %s", y->name, row_names[y->rows], (long long)y->cols, tfi_dtype_name(y->dtype));
        put(&s, "\"];\n");
        put_edge(&s, g, op->x, i, "");
        put_edge(&s, g, op->residual, i, " [style=dashed]");
        put_edge(&s, g, op->logits, i, " [style=dashed]");
    }
    put(&s, "}\n");
    return s.size;
}
