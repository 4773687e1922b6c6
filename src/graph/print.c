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

static const char *const op_names[TFI_OP_COUNT] = {"EMBED", "NORM", "LINEAR", "GLU", "ATTENTION", "GATHER_ROWS", "POOL", "L2NORM"};
static const char *const row_names[TFI_ROWS_COUNT] = {"R", "B", "S"};
static const char *const activation_names[TFI_ACT_COUNT] = {"none", "relu", "gelu", "gelu_tanh", "silu", "tanh", "sigmoid"};

static const char *const pooling_names[] = {"", "cls", "max", "mean", "mean_sqrt_len", "weighted_mean", "last", ""};

static void put_attributes(sink *s, const tfi_op *op)
{
    switch (op->kind) {
    case TFI_OP_NORM:
    case TFI_OP_L2NORM:
        put(s, " eps=%g", (double)op->eps);
        break;
    case TFI_OP_LINEAR:
        if (op->activation != TFI_ACT_NONE) put(s, " act=%s", activation_names[op->activation]);
        break;
    case TFI_OP_ATTENTION:
        put(s, " heads=%d head_size=%d scale=%g", (int)op->heads, (int)op->head_size, (double)op->scale);
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
        const tfi_value *y = &g->values[op->y];
        put(&s, "%-32s [%s,%lld] %s%s = %s", y->name, row_names[y->rows], (long long)y->cols, tfi_dtype_name(y->dtype),
            y->keep ? " kept" : "", op_names[op->kind]);
        if (op->x >= 0) put(&s, " %s", g->values[op->x].name);
        if (op->residual >= 0) put(&s, " residual=%s", g->values[op->residual].name);
        put_attributes(&s, op);
        put_weights(&s, g, op, " ");
        put(&s, "\n");
    }
    return s.size;
}

int64_t tfi_graph_dot(const tfi_graph *g, char *text, int64_t capacity)
{
    sink s = {text, capacity, 0};

    put(&s, "digraph tfinfer {\n  rankdir=TB; node [shape=box, fontname=\"monospace\", fontsize=10];\n");
    for (int32_t i = 0; i < g->op_count; i++) {
        const tfi_op *op = &g->ops[i];
        const tfi_value *y = &g->values[op->y];
        put(&s, "  v%d [label=\"%s", (int)op->y, op_names[op->kind]);
        put_attributes(&s, op);
        put_weights(&s, g, op, "\\n");
        put(&s, "\\n%s [%s,%lld] %s\"];\n", y->name, row_names[y->rows], (long long)y->cols, tfi_dtype_name(y->dtype));
        if (op->x >= 0) put(&s, "  v%d -> v%d;\n", (int)op->x, (int)op->y);
        if (op->residual >= 0) put(&s, "  v%d -> v%d [style=dashed];\n", (int)op->residual, (int)op->y);
    }
    put(&s, "}\n");
    return s.size;
}
