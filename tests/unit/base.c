/* The base layer: option structs of older and newer callers, budgets, arenas, JSON limits, number conversions. */
#include <math.h>

#include "base/dtype.h"
#include "base/json.h"
#include "base/memory.h"
#include "base/options.h"
#include "base/status.h"
#include "check.h"

typedef struct options_v1 {
    uint64_t struct_size;
    int32_t a, b;
} options_v1;

typedef struct options_v2 {
    uint64_t struct_size;
    int32_t a, b;
    int64_t c;
    float d;
    int32_t e;
} options_v2;

static void options_older_and_newer(void)
{
    options_v2 known = {sizeof known, TF_UNSET, TF_UNSET, TF_UNSET, tf_unset_float(), TF_UNSET};
    const options_v1 old = {sizeof old, 1, 0};
    CHECK_OK(tfi_options_read(&known, sizeof known, &old, "o"));
    CHECK_INT(known.a, 1);
    CHECK_INT(known.b, 0);
    CHECK_INT(known.c, TF_UNSET);

    options_v1 reader = {sizeof reader, TF_UNSET, TF_UNSET};
    options_v2 newer = {sizeof newer, 5, 6, TF_UNSET, tf_unset_float(), 0};
    CHECK_OK(tfi_options_read(&reader, sizeof reader, &newer, "o"));
    CHECK_INT(reader.a, 5);
    newer.e = 3;
    CHECK_STATUS(tfi_options_read(&reader, sizeof reader, &newer, "o"), TF_STATUS_UNSUPPORTED);
    newer.e = 0;
    newer.c = -1; /* all ones is a value, not the sign extension of TF_UNSET */
    CHECK_STATUS(tfi_options_read(&reader, sizeof reader, &newer, "o"), TF_STATUS_UNSUPPORTED);
    newer.struct_size = 3;
    CHECK_STATUS(tfi_options_read(&reader, sizeof reader, &newer, "o"), TF_STATUS_INVALID);
    CHECK_OK(tfi_options_read(&reader, sizeof reader, NULL, "o"));
}

static void result_write_respects_size(void)
{
    const options_v2 now = {sizeof now, 1, 2, 3, 4.0f, 5};
    options_v2 out = {sizeof(options_v1), 0, 0, -7, 0, -7};
    CHECK_OK(tfi_result_write(&out, &now, sizeof now, "r"));
    CHECK_INT(out.b, 2);
    CHECK_INT(out.c, -7);
    CHECK_INT(out.struct_size, sizeof(options_v1));
    out.struct_size = 1;
    CHECK_STATUS(tfi_result_write(&out, &now, sizeof now, "r"), TF_STATUS_INVALID);
}

static void memory_budget_is_hard(void)
{
    check_memory host;
    tfi_memory m;

    check_memory_init(&host);
    tfi_memory_init(&m, &host.hooks, 1000);
    void *p = tfi_alloc(&m, 600);
    CHECK(p != NULL);
    CHECK(tfi_alloc(&m, 401) == NULL);
    CHECK_ERROR_SAYS("budget");
    void *q = tfi_alloc(&m, 400);
    CHECK(q != NULL);
    tfi_free(&m, p, 600);
    tfi_free(&m, q, 400);
    CHECK_INT(m.used, 0);
    CHECK_INT(m.peak, 1000);
    CHECK_INT(host.live_blocks, 0);
    CHECK(tfi_alloc(&m, SIZE_MAX) == NULL);
}

static void arena_keeps_everything(void)
{
    check_memory host;
    tfi_memory m;
    char *text[300];

    check_memory_init(&host);
    tfi_memory_init(&m, &host.hooks, TF_UNSET);
    tfi_arena a = {.memory = &m};
    for (int i = 0; i < 300; i++) {
        char line[32];
        snprintf(line, sizeof line, "line %d", i);
        text[i] = tfi_arena_copy(&a, line, strlen(line));
        if (i % 50 == 0) CHECK(tfi_arena_alloc(&a, 100000) != NULL);
    }
    CHECK_TEXT(text[0], "line 0");
    CHECK_TEXT(text[299], "line 299");
    tfi_arena_close(&a);
    CHECK_INT(host.live_blocks, 0);
}

static void json_limits(void)
{
    char deep[400];
    json_t *root;

    memset(deep, '[', 200);
    memset(deep + 200, ']', 200);
    CHECK_STATUS(tfi_json_parse(deep, sizeof deep, "deep.json", &root), TF_STATUS_CORRUPT);
    CHECK_ERROR_SAYS("deep.json");
    CHECK_STATUS(tfi_json_parse("{\"a\":1,\"a\":2}", 13, "twice.json", &root), TF_STATUS_CORRUPT);
    CHECK_STATUS(tfi_json_parse("{\"a\":", 5, "cut.json", &root), TF_STATUS_CORRUPT);
    const char *good = "{\"a\":\"[[[[\",\"n\":7,\"f\":2.5,\"b\":true,\"z\":null}";
    CHECK_OK(tfi_json_parse(good, strlen(good), "ok.json", &root));

    const tfi_json j = {root, "ok.json"};
    int64_t n = 1;
    double f = 0;
    int b = 0;
    const char *s = NULL;
    CHECK_OK(tfi_json_int(j, "n", 0, 10, &n));
    CHECK_INT(n, 7);
    CHECK_OK(tfi_json_int(j, "z", 0, 10, &n));
    CHECK_INT(n, 7);
    CHECK_STATUS(tfi_json_int(j, "n", 0, 6, &n), TF_STATUS_CORRUPT);
    CHECK_ERROR_SAYS("\"n\" is 7");
    CHECK_STATUS(tfi_json_int(j, "a", 0, 6, &n), TF_STATUS_CORRUPT);
    CHECK_OK(tfi_json_float(j, "f", 0, 3, &f));
    CHECK(f == 2.5);
    CHECK_OK(tfi_json_bool(j, "b", &b));
    CHECK_INT(b, 1);
    CHECK_OK(tfi_json_string(j, "a", &s));
    CHECK_TEXT(s, "[[[[");
    json_decref(root);
}

static void number_conversions(void)
{
    for (uint32_t h = 0; h < 65536; h++) {
        const float f = tfi_bf16_to_f32((uint16_t)h);
        if (f == f) CHECK_INT(tfi_f32_to_bf16(f), h);
    }
    CHECK(isnan(tfi_bf16_to_f32(tfi_f32_to_bf16(NAN))));
    CHECK(tfi_bf16_to_f32(tfi_f32_to_bf16(1.00390625f)) == 1.0f); /* a tie goes to even */
    CHECK(tfi_f16_to_f32(0x3c00) == 1.0f && tfi_f16_to_f32(0xc000) == -2.0f);
    CHECK(tfi_f16_to_f32(0x0001) == 0x1p-24f && tfi_f16_to_f32(0x7bff) == 65504.0f);
    CHECK(isinf(tfi_f16_to_f32(0x7c00)) && isnan(tfi_f16_to_f32(0x7e00)));
}

static void errors_have_texts(void)
{
    CHECK_TEXT(tf_status_string(TF_STATUS_OK), "TF_STATUS_OK: success");
    CHECK_TEXT(tf_status_string((tf_status)-999), "unknown status");
    CHECK_STATUS(tfi_fail(TF_STATUS_IO, "first %d", 1), TF_STATUS_IO);
    CHECK_TEXT(tf_last_error(), "first 1");
    (void)tfi_fail_prefix(TF_STATUS_IO, "before: ");
    CHECK_TEXT(tf_last_error(), "before: first 1");
}

int main(int argc, char **argv)
{
    check_run(argc, argv, "options_older_and_newer", options_older_and_newer);
    check_run(argc, argv, "result_write_respects_size", result_write_respects_size);
    check_run(argc, argv, "memory_budget_is_hard", memory_budget_is_hard);
    check_run(argc, argv, "arena_keeps_everything", arena_keeps_everything);
    check_run(argc, argv, "json_limits", json_limits);
    check_run(argc, argv, "number_conversions", number_conversions);
    check_run(argc, argv, "errors_have_texts", errors_have_texts);
    return check_done();
}
