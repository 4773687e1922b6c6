/* Building graphs: shapes are checked, errors stick and name the value, tied weights have one entry, the printers name every
 * op. */
#include <stdlib.h>

#include "check.h"
#include "graph/build.h"
#include "graph/print.h"

static const tfi_tensor tensor = {.name = "t", .dtype = TFI_F32, .rank = 2, .shape = {8, 4}, .stride = {4, 1}};
static const tfi_tensor other = {.name = "o", .dtype = TFI_F32, .rank = 2, .shape = {8, 4}, .stride = {4, 1}};
static const tfi_tensor vector = {.name = "v", .dtype = TFI_F32, .rank = 1, .shape = {4}, .stride = {1}};

static const tfi_tensor wide = {.name = "w", .dtype = TFI_F32, .rank = 2, .shape = {12, 4}, .stride = {4, 1}};
static const tfi_tensor table = {.name = "b", .dtype = TFI_F32, .rank = 2, .shape = {8, 2}, .stride = {2, 1}};

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

static int32_t add_bias(tfi_builder *b, int32_t buckets, int32_t max_distance)
{
    tfi_weight w = weight_of(&table, 8, 2);
    w.relative = (tfi_relative){.buckets = buckets, .max_distance = max_distance};
    return tfi_build_weight(b, &w);
}

/* embed -> norm -> gather -> tied linear */
static int32_t small_graph(tfi_builder *b)
{
    const int32_t word = add_weight(b, &tensor, 8, 4), gain = add_weight(b, &vector, 1, 4);
    const int32_t x = tfi_build_embed(b, "sum", word, -1, -1, TFI_F32);
    const int32_t y = tfi_build_norm(b, "norm", x, -1, gain, gain, 1e-5f, TFI_F32);
    tfi_build_keep(b, y);
    return tfi_build_linear(b, "logits", tfi_build_gather(b, "rows", y), add_weight(b, &tensor, 8, 4), -1, TFI_ACT_GELU, -1,
                            TFI_F32);
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
    CHECK(strncmp(text, "digraph", 7) == 0 && strstr(text, "o0 -> o1;"));
    tfi_arena_close(&arena);
    CHECK_INT(host.live_blocks, 0);
}

/* A decoder's step after an encoder's graph: two heads of size 2, bias, gated activation, the draw. */
static void step_graph(tfi_builder *b, tfi_draw_values *draw)
{
    const int32_t word = add_weight(b, &tensor, 8, 4), gain = add_weight(b, &vector, 1, 4);
    tfi_attention_spec spec = {.attend = TFI_ATTEND_CACHE, .layer = 3, .heads = 2, .head_size = 2, .scale = 1};

    tfi_build_kv_copy(b);
    int32_t x = tfi_build_embed(b, "sum", word, -1, -1, TFI_F32);
    x = tfi_build_rms_norm(b, "rms", x, -1, gain, 1e-6f, TFI_F32);
    const int32_t qkv = tfi_build_linear(b, "qkv", x, add_weight(b, &wide, 12, 4), -1, TFI_ACT_NONE, -1, TFI_F32);
    spec.bias = add_bias(b, 8, 16);
    x = tfi_build_attention(b, "self", qkv, &spec);
    spec.attend = TFI_ATTEND_SOURCE;
    spec.bias = -1;
    x = tfi_build_attention(b, "cross", x, &spec);
    x = tfi_build_linear(b, "up", x, add_weight(b, &tensor, 8, 4), -1, TFI_ACT_NONE, -1, TFI_F32);
    x = tfi_build_glu(b, "gated", x, TFI_ACT_GELU_TANH, TFI_F32);
    x = tfi_build_linear(b, "logits", tfi_build_gather(b, "rows", x), word, -1, TFI_ACT_NONE, -1, TFI_F32);
    tfi_build_draw(b, x, draw);
}

static void graph_of_a_step(void)
{
    static const tfi_op_kind kinds[] = {
        TFI_OP_KV_COPY,        TFI_OP_EMBED,          TFI_OP_NORM,   TFI_OP_LINEAR,      TFI_OP_KV_APPEND, TFI_OP_ATTENTION,
        TFI_OP_ATTENTION,      TFI_OP_LINEAR,         TFI_OP_GLU,    TFI_OP_GATHER_ROWS, TFI_OP_LINEAR,    TFI_OP_LOGPROB,
        TFI_OP_LOGITS_PROCESS, TFI_OP_LOGITS_PROCESS, TFI_OP_SAMPLE, TFI_OP_BEAM_STEP,   TFI_OP_STOP};
    enum { COUNT = sizeof kinds / sizeof *kinds };
    tfi_graph encode, step;
    tfi_draw_values draw;
    check_memory host;
    tfi_memory memory;
    tfi_arena arena;
    tfi_builder b;

    begin(&b, &arena, &memory, &host);
    const int32_t x = tfi_build_embed(&b, "source", add_weight(&b, &tensor, 8, 4), -1, -1, TFI_F32);
    tfi_build_keep_source(&b, tfi_build_linear(&b, "keys", x, add_weight(&b, &tensor, 8, 4), -1, TFI_ACT_NONE, -1, TFI_F32), 1,
                          1, 4, 0);
    tfi_build_next(&b, &encode);
    step_graph(&b, &draw);
    CHECK_OK(tfi_build_finish(&b, &encode, &step));
    CHECK_INT(encode.op_count, 3);
    CHECK_INT(encode.ops[2].kind, TFI_OP_KV_APPEND);
    CHECK_INT(encode.ops[2].attend, TFI_ATTEND_SOURCE);
    CHECK_INT(encode.ops[2].y, -1);
    CHECK(encode.weights == step.weights);
    CHECK_INT(encode.weight_count, 4); /* word, gain, QKV, bias: the word table is one, also as a LINEAR's */
    CHECK_INT(step.weight_count, 4);
    CHECK_INT(step.weights[3].readers, TFI_READ_BIAS);
    CHECK_INT(step.op_count, COUNT);
    for (int i = 0; i < COUNT; i++) CHECK_INT(step.ops[i].kind, kinds[i]);
    CHECK_INT(step.ops[4].column, 4);
    CHECK_INT(step.ops[4].layer, 3);
    CHECK_INT(step.ops[5].bias, 3);
    CHECK_INT(step.ops[6].bias, -1);
    CHECK_INT(step.values[draw.logprob].cols, 1);
    CHECK_INT(step.values[draw.warped].cols, 8);
    CHECK_INT(step.ops[14].x, draw.warped);
    CHECK_INT(step.ops[14].logits, step.ops[10].y);

    char text[8192];
    text[tfi_graph_text(&step, text, sizeof text - 1)] = '\0';
    CHECK(strstr(text, "\nKV_APPEND qkv to=cache layer=3") && strstr(text, "NORM sum rms") &&
          strstr(text, "attend=source layer=3") && strstr(text, "GLU up act=gelu_tanh") && strstr(text, "stage=warp") &&
          strstr(text, "\nSAMPLE warped logits=logits"));
    text[tfi_graph_dot(&step, text, sizeof text - 1)] = '\0';
    CHECK(strstr(text, "o10 -> o14 [style=dashed];") && strstr(text, "o3 -> o4;") && !strstr(text, "-> o0;"));
    tfi_arena_close(&arena);
    CHECK_INT(host.live_blocks, 0);
}

/* One defect each: heads that are not there, tables of relative positions, halves of an odd width, tokens drawn from anything.
 */
static void graph_of_a_bad_step(void)
{
    static const char *const texts[] = {
        "self: 2 heads of size 3", "self: 2 relative position", "self: 8 relative position", "glu", "fp32 rows",
        "self: weight b is"};

    for (int i = 0; i < 6; i++) {
        tfi_draw_values draw;
        check_memory host;
        tfi_memory memory;
        tfi_arena arena;
        tfi_builder b;
        tfi_graph g;

        begin(&b, &arena, &memory, &host);
        const int32_t x = tfi_build_embed(&b, "sum", add_weight(&b, &wide, 4, i == 3 ? 13 : 12), -1, -1, TFI_F32);
        tfi_attention_spec spec = {.attend = TFI_ATTEND_CACHE,
                                   .heads = i == 5 ? 4 : 2,
                                   .head_size = i == 0   ? 3
                                                : i == 5 ? 1
                                                         : 2,
                                   .scale = 1};
        spec.bias = i == 1 ? add_bias(&b, 2, 16) : i == 2 ? add_bias(&b, 8, 4) : add_bias(&b, 8, 16);
        if (i == 3) (void)tfi_build_glu(&b, "glu", x, TFI_ACT_RELU, TFI_F32);
        if (i == 4) tfi_build_draw(&b, x, &draw);
        if (i != 3 && i != 4) (void)tfi_build_attention(&b, "self", x, &spec);
        CHECK(tfi_build_finish(&b, NULL, &g) < 0);
        CHECK_ERROR_SAYS(texts[i]);
        tfi_arena_close(&arena);
        CHECK_INT(host.live_blocks, 0);
    }
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
    const int32_t narrow = tfi_build_embed(&b, "sum", add_weight(&b, &tensor, 8, 4), -1, -1, TFI_F32);
    CHECK_INT(
        tfi_build_attention(&b, "heads", narrow, &(tfi_attention_spec){.heads = 1, .head_size = 4, .scale = 1, .bias = -1}),
        -1);
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
        tfi_draw_values draw;
        tfi_graph g, before;
        tfi_builder b;

        begin(&b, &arena, &memory, &host);
        host.fail_at = n;
        (void)small_graph(&b);
        tfi_build_next(&b, &before);
        step_graph(&b, &draw);
        const tf_status st = tfi_build_finish(&b, &before, &g);
        CHECK_STATUS(st, host.fail_hit ? TF_STATUS_NOMEM : TF_STATUS_OK);
        tfi_arena_close(&arena);
        CHECK_INT(host.live_blocks, 0);
        if (!host.fail_hit) break;
    }
}

int main(int argc, char **argv)
{
    check_run(argc, argv, "graph_shapes_and_ties", graph_shapes_and_ties);
    check_run(argc, argv, "graph_of_a_step", graph_of_a_step);
    check_run(argc, argv, "graph_of_a_bad_step", graph_of_a_bad_step);
    check_run(argc, argv, "graph_errors_stick", graph_errors_stick);
    check_run(argc, argv, "graph_out_of_memory", graph_out_of_memory);
    return check_done();
}
