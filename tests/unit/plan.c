/* The memory plan on random graphs: values that are alive together never overlap, kept values share with nothing. */
#include <stdlib.h>

#include "backend/plan.h"
#include "check.h"

enum { VALUES_MAX = 40, OPS_MAX = 48 };

static tfi_memory memory;

typedef struct random_graph {
    tfi_graph graph;
    tfi_value values[VALUES_MAX];
    tfi_op ops[OPS_MAX];
    int64_t limits[TFI_ROWS_COUNT];
} random_graph;

static int32_t below(int32_t n)
{
    return (int32_t)(check_random() % (uint64_t)n);
}

/* Every op writes a new value and reads up to three of those before it; some sinks at the end write none. */
static void make(random_graph *r)
{
    const int32_t n = 1 + below(VALUES_MAX);

    memset(r, 0, sizeof *r);
    r->graph = (tfi_graph){.values = r->values, .ops = r->ops, .value_count = n, .op_count = n};
    for (int i = 0; i < TFI_ROWS_COUNT; i++) r->limits[i] = below(100);
    for (int32_t i = 0; i < n; i++) {
        r->values[i] = (tfi_value){.name = "v",
                                   .dtype = below(2) ? TFI_BF16 : TFI_F32,
                                   .rows = (tfi_rows)below(TFI_ROWS_COUNT),
                                   .cols = 1 + below(200),
                                   .keep = below(8) == 0};
        r->ops[i] = (tfi_op){.kind = below(2) ? TFI_OP_LINEAR : TFI_OP_NORM,
                             .x = i ? below(i) : -1,
                             .residual = i && below(2) ? below(i) : -1,
                             .logits = i && below(8) == 0 ? below(i) : -1,
                             .y = i};
        if (i > 2 && below(2)) r->ops[i].x = i - 1; /* mostly chains, as models are */
    }
    for (int32_t i = below(4); i > 0; i--)
        r->ops[r->graph.op_count++] = (tfi_op){.x = below(n), .residual = -1, .logits = below(2) ? below(n) : -1, .y = -1};
}

static int64_t bytes_of(const random_graph *r, int32_t v)
{
    return r->limits[r->values[v].rows] * r->values[v].cols * (int64_t)tfi_dtype_size(r->values[v].dtype);
}

static int last_use(const random_graph *r, int32_t v)
{
    int last = v;
    for (int32_t i = v; i < r->graph.op_count; i++)
        if (r->ops[i].x == v || r->ops[i].residual == v || r->ops[i].logits == v) last = i;
    /* one launch may do a product and the norm behind it that adds a residual */
    if (r->ops[last].kind == TFI_OP_LINEAR && r->ops[last].x == v && last + 1 < r->graph.op_count) {
        const tfi_op *next = &r->ops[last + 1];
        if (next->kind == TFI_OP_NORM && next->x == r->ops[last].y && next->residual >= 0) last++;
    }
    return last;
}

static void no_overlap(void)
{
    static random_graph r;
    int64_t offsets[VALUES_MAX], total, sum = 0;
    const int64_t slack = below(3) * 40;

    make(&r);
    CHECK_OK(tfi_plan_values(&r.graph, r.limits, slack, &memory, offsets, &total));
    for (int32_t a = 0; a < r.graph.value_count; a++) {
        CHECK(offsets[a] >= 0 && offsets[a] % TFI_PLAN_ALIGN == 0);
        CHECK(offsets[a] + bytes_of(&r, a) + slack <= total);
        sum += (bytes_of(&r, a) + slack + TFI_PLAN_ALIGN - 1) / TFI_PLAN_ALIGN * TFI_PLAN_ALIGN;
        for (int32_t b = a + 1; b < r.graph.value_count; b++) {
            const int together = r.values[a].keep || r.values[b].keep || last_use(&r, a) >= b;
            const int overlap = offsets[a] < offsets[b] + bytes_of(&r, b) + slack &&
                                offsets[b] < offsets[a] + bytes_of(&r, a) + slack;
            CHECK(!(together && overlap));
        }
    }
    CHECK(total <= sum);
}

/* Two rows of buffers do for a chain, however long. */
static void chain_is_small(void)
{
    static random_graph r;
    int64_t offsets[VALUES_MAX], total;

    r.graph = (tfi_graph){.values = r.values, .ops = r.ops, .value_count = VALUES_MAX, .op_count = VALUES_MAX};
    for (int32_t i = 0; i < VALUES_MAX; i++) {
        r.values[i] = (tfi_value){.name = "v", .cols = 16};
        r.ops[i] = (tfi_op){.x = i - 1, .residual = -1, .logits = -1, .y = i};
    }
    r.limits[TFI_ROWS_TOKENS] = 100;
    CHECK_OK(tfi_plan_values(&r.graph, r.limits, 0, &memory, offsets, &total));
    CHECK_INT(total, 2 * 100 * 16 * 4);
}

static void too_large(void)
{
    static random_graph r;
    int64_t offsets[VALUES_MAX], total;
    check_memory m;
    tfi_memory failing;

    r.graph = (tfi_graph){.values = r.values, .ops = r.ops, .value_count = 1, .op_count = 1};
    r.values[0] = (tfi_value){.name = "huge", .cols = INT64_MAX / 3};
    r.ops[0] = (tfi_op){.x = -1, .residual = -1, .logits = -1, .y = 0};
    r.limits[TFI_ROWS_TOKENS] = 100;
    CHECK_STATUS(tfi_plan_values(&r.graph, r.limits, 0, &memory, offsets, &total), TF_STATUS_NOMEM);
    CHECK_ERROR_SAYS("huge");
    CHECK_INT(memory.used, 0);
    check_memory_init(&m);
    m.fail_at = 1;
    tfi_memory_init(&failing, &m.hooks, TF_UNSET);
    CHECK_STATUS(tfi_plan_values(&r.graph, r.limits, 0, &failing, offsets, &total), TF_STATUS_NOMEM);
}

int main(int argc, char **argv)
{
    tfi_memory_init(&memory, NULL, TF_UNSET);
    for (int i = 0; i < 300; i++) check_run(argc, argv, "no_overlap", no_overlap);
    check_run(argc, argv, "chain_is_small", chain_is_small);
    check_run(argc, argv, "too_large", too_large);
    CHECK_INT(memory.used, 0);
    return check_done();
}
