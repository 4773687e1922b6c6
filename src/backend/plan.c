#include "backend/plan.h"

#include "base/status.h"

/* A value lives from the op that writes it to the last that reads it, both included: an op's operands never overlap. */
typedef struct life {
    int32_t first, last; /* ops; last < first: never written */
    int64_t bytes;
    int32_t next; /* placed values by offset, a list; -1 ends it */
} life;

static void reads(life *lives, int32_t value, int32_t op)
{
    if (value >= 0 && lives[value].last < op) lives[value].last = op;
}

/* One launch may do both: what the product reads must not be where the norm writes. */
static int is_product_with_norm(const tfi_op *product, const tfi_op *norm)
{
    return product->kind == TFI_OP_LINEAR && norm->kind == TFI_OP_NORM && norm->x == product->y && norm->residual >= 0;
}

static void find_lives(const tfi_graph *g, life *lives)
{
    for (int32_t v = 0; v < g->value_count; v++) lives[v] = (life){.first = 0, .last = -1, .next = -1};
    for (int32_t i = 0; i < g->op_count; i++) {
        const tfi_op *op = &g->ops[i];
        reads(lives, op->x, i);
        reads(lives, op->residual, i);
        reads(lives, op->logits, i);
        if (i > 0 && is_product_with_norm(&g->ops[i - 1], op)) reads(lives, g->ops[i - 1].x, i);
        if (op->y < 0) continue;
        lives[op->y].first = i;
        reads(lives, op->y, i);
    }
    for (int32_t v = 0; v < g->value_count; v++) {
        if (!g->values[v].keep) continue;
        lives[v].first = 0;
        lives[v].last = g->op_count;
    }
}

static tf_status find_bytes(const tfi_graph *g, const int64_t *limits, int64_t slack, life *lives)
{
    for (int32_t v = 0; v < g->value_count; v++) {
        const tfi_value *value = &g->values[v];
        int64_t bytes;

        if (__builtin_mul_overflow(limits[value->rows], value->cols, &bytes) ||
            __builtin_mul_overflow(bytes, (int64_t)tfi_dtype_size(value->dtype), &bytes) || bytes > INT64_MAX / 4 - slack)
            return tfi_fail(TF_STATUS_NOMEM, "value %s: [%lld, %lld] is more than memory can hold", value->name,
                            (long long)limits[value->rows], (long long)value->cols);
        lives[v].bytes = (bytes + slack + TFI_PLAN_ALIGN - 1) / TFI_PLAN_ALIGN * TFI_PLAN_ALIGN;
    }
    return TF_STATUS_OK;
}

/* The lowest gap between placed values that are alive at the same time; links the value into the list. */
static tf_status place(life *lives, int32_t *head, int32_t v, int64_t *offsets, int64_t *end)
{
    const life *mine = &lives[v];
    int32_t before = -1;
    int64_t at = 0;

    for (int32_t i = *head; i >= 0; i = lives[i].next) {
        if (lives[i].first > mine->last || lives[i].last < mine->first) continue;
        if (offsets[i] - at >= mine->bytes) break;
        if (offsets[i] + lives[i].bytes > at) at = offsets[i] + lives[i].bytes;
    }
    if (at > INT64_MAX / 4 - mine->bytes) return tfi_fail(TF_STATUS_NOMEM, "the activations are more than memory can hold");
    offsets[v] = at;
    if (at + mine->bytes > *end) *end = at + mine->bytes;
    for (int32_t i = *head; i >= 0 && offsets[i] <= at; i = lives[i].next) before = i;
    lives[v].next = before < 0 ? *head : lives[before].next;
    *(before < 0 ? head : &lives[before].next) = v;
    return TF_STATUS_OK;
}

/* Large values first: small ones then fill the gaps. Of equals, the earlier. */
static int32_t largest_left(const life *lives, const int64_t *offsets, int32_t count)
{
    int32_t best = -1;

    for (int32_t v = 0; v < count; v++)
        if (offsets[v] < 0 && (best < 0 || lives[v].bytes > lives[best].bytes)) best = v;
    return best;
}

tf_status tfi_plan_values(const tfi_graph *g, const int64_t limits[TFI_ROWS_COUNT], int64_t slack, tfi_memory *memory,
                          int64_t *offsets, int64_t *bytes)
{
    const size_t size = (size_t)g->value_count * sizeof(life);
    int32_t head = -1, v;
    tf_status status;
    life *lives;

    *bytes = 0;
    if (!(lives = tfi_alloc(memory, size))) return TF_STATUS_NOMEM;
    find_lives(g, lives);
    status = find_bytes(g, limits, slack, lives);
    for (v = 0; v < g->value_count; v++)
        offsets[v] = lives[v].last < lives[v].first ? 0 : -1; /* never written: takes nothing */
    while (status == TF_STATUS_OK && (v = largest_left(lives, offsets, g->value_count)) >= 0)
        status = place(lives, &head, v, offsets, bytes);
    tfi_free(memory, lives, size);
    return status;
}
