/* Building graphs: shapes are checked, errors stick and name the value, tied weights have one entry, the printers name every op. */
#include <stdlib.h>

#include "check.h"
#include "graph/build.h"
#include "graph/print.h"

static const tfi_tensor tensor = {.name = "t", .dtype = TFI_F32, .rank = 2, .shape = {8, 4}, .stride = {4, 1}};
static const tfi_tensor other = {.name = "o", .dtype = TFI_F32, .rank = 2, .shape = {8, 4}, .stride = {4, 1}};
static const tfi_tensor vector = {.name = "v", .dtype = TFI_F32, .rank = 1, .shape = {4}, .stride = {1}};

static tfi_weight weight_of(const tfi_tensor *t, int64_t rows, int64_t cols)
{
    return (tfi_weight){.name = t->name, .rows = rows, .cols = cols, .parts = 1, .part = {t}, .part_rows = {rows}};
}

static void begin(tfi_builder *b, tfi_arena *arena, tfi_memory *memory, check_memory *host)
{
    check_memory_init(host);
    tfi_memory_init(memory, &host->hooks, TF_UNSET);
    *arena = (tfi_arena){.memory = memory};
    tfi_build_begin(b, arena, memory);
}

static int32_t add_weight(tfi_builder *b, const tfi_tensor *t, int64_t rows, int64_t cols)
{
    const tfi_weight w = weight_of(t, rows, cols);
    return tfi_build_weight(b, &w);
}

/* embed -> norm -> gather -> tied linear */
static int32_t small_graph(tfi_builder *b)
{
    const int32_t word = add_weight(b, &tensor, 8, 4), gain = add_weight(b, &vector, 1, 4);
    const int32_t x = tfi_build_embed(b, "sum", word, -1, -1, TFI_F32);
    const int32_t y = tfi_build_norm(b, "norm", x, -1, gain, gain, 1e-5f, TFI_F32);
    tfi_build_keep(b, y);
    return tfi_build_linear(b, "logits", tfi_build_gather(b, "rows", y), add_weight(b, &tensor, 8, 4), -1, TFI_ACT_GELU, -1, TFI_F32);
}

static void graph_shapes_and_ties(void)
{
    check_memory host;
    tfi_memory memory;
    tfi_arena arena;
    tfi_builder b;
    tfi_graph g;

    begin(&b, &arena, &memory, &host);
    const int32_t logits = small_graph(&b);
    CHECK_OK(tfi_build_finish(&b, NULL, &g));
    CHECK_INT(g.op_count, 4);
    CHECK_INT(g.weight_count, 2);
    CHECK_INT(g.weights[0].readers, TFI_READ_ROWS | TFI_READ_LINEAR);
    CHECK_INT(g.weights[1].readers, TFI_READ_VECTOR);
    CHECK_INT(g.values[logits].cols, 8);
    CHECK_INT(g.values[logits].rows, TFI_ROWS_SELECTED);
    CHECK_INT(g.values[1].keep, 1);

    char text[4096];
    const int64_t size = tfi_graph_text(&g, text, sizeof text - 1);
    text[size] = '\0';
    CHECK(strstr(text, "EMBED") && strstr(text, "NORM sum") && strstr(text, "GATHER_ROWS norm") && strstr(text, "act=gelu"));
    CHECK_INT(tfi_graph_text(&g, NULL, 0), size);
    const int64_t dot = tfi_graph_dot(&g, text, sizeof text - 1);
    text[dot] = '\0';
    CHECK(strncmp(text, "digraph", 7) == 0 && strstr(text, "v0 -> v1;"));
    tfi_arena_close(&arena);
    CHECK_INT(host.live_blocks, 0);
}

static void graph_errors_stick(void)
{
    check_memory host;
    tfi_memory memory;
    tfi_arena arena;
    tfi_builder b;
    tfi_graph g;

    begin(&b, &arena, &memory, &host);
    const int32_t x = tfi_build_embed(&b, "sum", add_weight(&b, &tensor, 8, 4), -1, -1, TFI_F32);
    CHECK_INT(tfi_build_norm(&b, "bad.norm", x, -1, add_weight(&b, &other, 1, 5), 0, 1e-5f, TFI_F32), -1);
    CHECK_INT(tfi_build_gather(&b, "after", x), -1);
    CHECK_STATUS(tfi_build_finish(&b, NULL, &g), TF_STATUS_CORRUPT);
    CHECK_ERROR_SAYS("bad.norm");
    CHECK_ERROR_SAYS("[1, 5]");
    tfi_arena_close(&arena);

    begin(&b, &arena, &memory, &host);
    const int32_t wide = tfi_build_embed(&b, "sum", add_weight(&b, &tensor, 8, 4), -1, -1, TFI_F32);
    CHECK_INT(tfi_build_attention(&b, "heads", wide, &(tfi_attention_spec){.heads = 1, .head_size = 4, .scale = 1, .bias = -1}), -1);
    CHECK_STATUS(tfi_build_finish(&b, NULL, &g), TF_STATUS_UNSUPPORTED);
    CHECK_ERROR_SAYS("heads");
    tfi_arena_close(&arena);
    CHECK_INT(host.live_blocks, 0);
}

static void graph_out_of_memory(void)
{
    for (int64_t n = 1;; n++) {
        check_memory host;
        tfi_memory memory;
        tfi_arena arena;
        tfi_builder b;
        tfi_graph g;

        begin(&b, &arena, &memory, &host);
        host.fail_at = n;
        (void)small_graph(&b);
        const tf_status st = tfi_build_finish(&b, NULL, &g);
        CHECK_STATUS(st, host.fail_hit ? TF_STATUS_NOMEM : TF_STATUS_OK);
        tfi_arena_close(&arena);
        CHECK_INT(host.live_blocks, 0);
        if (!host.fail_hit) break;
    }
}

int main(int argc, char **argv)
{
    check_run(argc, argv, "graph_shapes_and_ties", graph_shapes_and_ties);
    check_run(argc, argv, "graph_errors_stick", graph_errors_stick);
    check_run(argc, argv, "graph_out_of_memory", graph_out_of_memory);
    return check_done();
}
