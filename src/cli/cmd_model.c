/* cmd_model.c: info, plan and graph: what can be said of a model without running it. */
#include "cli.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const task_names[] = {"encode", "embed",     "classify", "ner",
                                         "answer", "fill-mask", "generate"}; /* by bit of tf_task */
enum { TASK_COUNT = sizeof task_names / sizeof task_names[0] };

static const cli_column pairs_columns[] = {{"", 0, false}, {"", 90, false}};

/* The mask token's spelling, or NULL. */
static const char *mask_token(const tf_tokenizer *tokenizer)
{
    tf_tokenizer_info info;
    const char *token;

    tf_tokenizer_info_init(&info);
    if (tf_tokenizer_get_info(tokenizer, &info) < 0 || info.mask_id < 0) return NULL;
    return tf_tokenizer_token(tokenizer, info.mask_id, &token) < 0 ? NULL : token;
}

static void row(cli_table *t, const char *name, const char *value)
{
    cli_table_text(t, name, -1);
    cli_table_text(t, value, -1);
}

static void row_number(cli_table *t, const char *name, int64_t value, const char *unit)
{
    cli_table_text(t, name, -1);
    cli_table_cell(t, "%lld%s", (long long)value, unit);
}

/* "a, b, c" in `to`, cut where it ends. */
static void names_join(char *to, size_t size, const char *const *names, int count)
{
    size_t used = 0;

    to[0] = '\0';
    for (int i = 0; i < count && used < size - 1; i++)
        used += (size_t)snprintf(to + used, size - used, "%s%s", i ? ", " : "", names[i]);
}

static int tasks_of(const tf_model_info *info, const char **names)
{
    int count = 0;

    for (int i = 0; i < TASK_COUNT; i++)
        if (info->tasks & (1 << i)) names[count++] = task_names[i];
    return count;
}

static void tokenizer_rows(cli_table *t, const cli_model *m)
{
    const tf_tokenizer *tokenizer;
    tf_tokenizer_info info;

    if (tf_model_tokenizer(m->model, &tokenizer) < 0) {
        row(t, "tokenizer", tf_last_error());
        return;
    }
    tf_tokenizer_info_init(&info);
    if (tf_tokenizer_get_info(tokenizer, &info) < 0) return;
    cli_table_text(t, "tokenizer", -1);
    cli_table_cell(t, "%s, %d tokens%s", info.model, (int)info.vocab_size, info.lowercase ? ", lower case" : "");
    if (mask_token(tokenizer)) row(t, "mask token", mask_token(tokenizer));
}

static void info_table(const cli_model *m)
{
    const tf_model_info *const i = &m->info;
    const char *tasks[TASK_COUNT];
    char text[512];
    cli_table t;

    cli_table_open(&t, pairs_columns, 2);
    row(&t, "directory", m->settings->model);
    row(&t, "family", i->family);
    row(&t, "architecture", i->architecture);
    names_join(text, sizeof text, tasks, tasks_of(i, tasks));
    row(&t, "tasks", text);
    cli_table_text(&t, "runs as", -1);
    cli_table_cell(&t, "%s on %s, %d thread%s", cli_dtype_name(i->dtype), i->device, (int)i->threads,
                   i->threads == 1 ? "" : "s");
    row_number(&t, "parameters", i->parameters, "");
    cli_table_text(&t, "size", -1);
    cli_table_cell(&t, "%d layers, width %d, %d heads of %d", (int)i->layers, (int)i->width, (int)i->heads, (int)i->head_size);
    row_number(&t, "vocabulary", i->vocab_size, " tokens");
    if (i->max_input_tokens == INT32_MAX) row(&t, "longest input", "no limit");
    else row_number(&t, "longest input", i->max_input_tokens, " tokens");
    if (i->tasks & TF_TASK_EMBED) {
        cli_table_text(&t, "embedding", -1);
        cli_table_cell(&t, "%d values, of at most %d tokens", (int)i->embedding_width, (int)i->embedding_tokens);
    }
    names_join(text, sizeof text, i->label_names, i->labels);
    if (i->labels > 0) row(&t, "labels", text);
    names_join(text, sizeof text, i->prompt_names, i->prompts);
    if (i->prompts > 0) row(&t, "prompts", text);
    if (i->default_prompt >= 0 && i->default_prompt < i->prompts) row(&t, "default prompt", i->prompt_names[i->default_prompt]);
    tokenizer_rows(&t, m);
    cli_table_print(&t);
    cli_table_close(&t);
}

static void json_names(const char *key, const char *const *names, int count)
{
    cli_json_begin(key, '[');
    for (int i = 0; i < count; i++) cli_json_text(NULL, names[i], -1);
    cli_json_end(']');
}

static void json_tokenizer(const cli_model *m)
{
    const tf_tokenizer *tokenizer;
    tf_tokenizer_info info;

    tf_tokenizer_info_init(&info);
    if (tf_model_tokenizer(m->model, &tokenizer) < 0 || tf_tokenizer_get_info(tokenizer, &info) < 0) {
        cli_json_text("tokenizer", NULL, 0);
        return;
    }
    cli_json_begin("tokenizer", '{');
    cli_json_text("model", info.model, -1);
    cli_json_integer("vocab_size", info.vocab_size);
    cli_json_integer("model_max_length", info.model_max_length);
    cli_json_text("mask_token", mask_token(tokenizer), -1);
    cli_json_integer("lowercase", info.lowercase);
    cli_json_end('}');
}

static void info_json(const cli_model *m)
{
    const tf_model_info *const i = &m->info;
    const char *tasks[TASK_COUNT];
    const struct {
        const char *key;
        int64_t value;
    } numbers[] = {
        {"threads", i->threads},
        {"parameters", i->parameters},
        {"layers", i->layers},
        {"heads", i->heads},
        {"head_size", i->head_size},
        {"width", i->width},
        {"input_width", i->input_width},
        {"vocab_size", i->vocab_size},
        {"type_count", i->type_count},
        {"max_input_tokens", i->max_input_tokens},
        {"embedding_width", i->embedding_width},
        {"embedding_tokens", i->embedding_tokens},
        {"pooled_width", i->pooled_width},
        {"token_logits", i->token_logits},
        {"sequence_logits", i->sequence_logits},
        {"default_prompt", i->default_prompt},
    };

    cli_json_begin(NULL, '{');
    cli_json_text("directory", m->settings->model, -1);
    cli_json_text("family", i->family, -1);
    cli_json_text("architecture", i->architecture, -1);
    json_names("tasks", tasks, tasks_of(i, tasks));
    cli_json_text("device", i->device, -1);
    cli_json_text("dtype", cli_dtype_name(i->dtype), -1);
    for (size_t n = 0; n < sizeof numbers / sizeof numbers[0]; n++) cli_json_integer(numbers[n].key, numbers[n].value);
    json_names("labels", i->label_names, i->labels);
    json_names("prompt_names", i->prompt_names, i->prompts);
    json_names("prompt_texts", i->prompt_texts, i->prompts);
    json_tokenizer(m);
    cli_json_end('}');
}

void cli_info(const cli_settings *s)
{
    cli_model m;

    cli_no_arguments(s);
    cli_model_open(&m, s);
    if (cli_on(s->json)) info_json(&m);
    else info_table(&m);
    cli_model_close(&m);
}

void cli_plan(const cli_settings *s)
{
    static const cli_column columns[] = {{"", 0, false}, {"bytes", 0, true}, {"MB", 0, true}};
    tf_model_options model_options;
    tf_session_options session_options;
    tf_plan p;
    cli_table t;

    cli_no_arguments(s);
    cli_model_options(&model_options, s);
    cli_session_options(&session_options, s);
    tf_plan_init(&p);
    cli_check(s, tf_model_plan(cli_model_path(s), &model_options, &session_options, &p));

    const struct {
        const char *key, *name;
        int64_t bytes;
    } rows[] = {
        {"weight_bytes", "weights", p.weight_bytes},
        {"mapped_bytes", "mapped files in use", p.mapped_bytes},
        {"model_bytes", "rest of the model", p.model_bytes},
        {"session_bytes", "one session", p.session_bytes},
        {"total_bytes", "total", p.total_bytes},
        {"load_bytes", "only while loading", p.load_bytes},
        {"third_party_bytes", "other libraries", p.third_party_bytes},
    };
    cli_table_open(&t, columns, 3);
    if (cli_on(s->json)) cli_json_begin(NULL, '{');
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        if (cli_on(s->json)) {
            cli_json_integer(rows[i].key, rows[i].bytes);
            continue;
        }
        cli_table_text(&t, rows[i].name, -1);
        cli_table_cell(&t, "%lld", (long long)rows[i].bytes);
        cli_table_cell(&t, "%.1f", (double)rows[i].bytes / 1e6);
    }
    if (cli_on(s->json)) cli_json_end('}');
    else cli_table_print(&t);
    cli_table_close(&t);
}

void cli_graph(const cli_settings *s)
{
    const int32_t format = cli_on(s->dot) ? TF_GRAPH_DOT : TF_GRAPH_TEXT;
    int64_t size = 0;
    tf_status status;
    cli_model m;
    char *text;

    cli_no_arguments(s);
    cli_model_open(&m, s);
    status = tf_model_graph(m.model, format, NULL, 0, &size);
    if (status != TF_STATUS_TOO_SMALL) cli_check(s, status);
    text = cli_alloc(size, 1);
    cli_check(s, tf_model_graph(m.model, format, text, size, &size));
    if (cli_on(s->json)) {
        cli_json_begin(NULL, '{');
        cli_json_text("format", format == TF_GRAPH_DOT ? "dot" : "text", -1);
        cli_json_text("graph", text, size);
        cli_json_end('}');
    } else {
        fwrite(text, 1, (size_t)size, stdout);
        if (size > 0 && text[size - 1] != '\n') putchar('\n');
    }
    free(text);
    cli_model_close(&m);
}
