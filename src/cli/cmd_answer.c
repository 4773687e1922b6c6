/* cmd_answer.c: answer questions from one context. */
#include "cli.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Questions are --question and the arguments; each is paired with the same context. */
static void questions_open(cli_texts *t, const cli_settings *s)
{
    tf_text context;
    int64_t size = -1;

    memset(t, 0, sizeof *t);
    t->texts = cli_alloc(s->argument_count + 1, sizeof *t->texts);
    t->pairs = cli_alloc(s->argument_count + 1, sizeof *t->pairs);
    if (s->question) t->texts[t->count++] = tf_text_of(s->question);
    for (int i = 0; i < s->argument_count; i++) t->texts[t->count++] = tf_text_of(s->arguments[i]);
    if (t->count == 0) cli_fail(s, CLI_USAGE, "no question; try 'tfinfer help answer'");
    if (s->context && s->file) cli_fail(s, CLI_USAGE, "the context comes from --context or from --file, not both");
    if (!s->context) t->buffer = cli_file_read(s, s->file, &size);
    context = (tf_text){s->context ? s->context : t->buffer, size};
    for (int64_t i = 0; i < t->count; i++) t->pairs[i] = context;
}

static void answer_json(tf_text context, const tf_span *a)
{
    cli_json_begin(NULL, '{');
    cli_json_number("score", (double)a->score);
    cli_json_text("text", context.data + a->byte_begin, a->byte_end - a->byte_begin);
    cli_json_range("bytes", a->byte_begin, a->byte_end);
    cli_json_range("characters", a->char_begin, a->char_end);
    cli_json_range("tokens", a->token_begin, a->token_end);
    cli_json_end('}');
}

static void answer_row(cli_table *t, tf_text context, const tf_span *a)
{
    cli_table_cell(t, "%.4f", (double)a->score);
    if (a->byte_end == a->byte_begin) {
        cli_table_text(t, "no answer", -1);
        for (int c = 0; c < 2; c++) cli_table_text(t, "", 0);
        return;
    }
    cli_table_text(t, context.data + a->byte_begin, a->byte_end - a->byte_begin);
    cli_table_cell(t, "%lld-%lld", (long long)a->char_begin, (long long)a->char_end);
    cli_table_context(t, context, a->byte_begin, a->byte_end);
}

/* All answers to question number `index`, which is number `n` of the result. */
static void answers_print(const cli_settings *s, const tf_result *result, const cli_texts *texts, int64_t index, int64_t n)
{
    static const cli_column columns[] = {
        {"score", 0, true}, {"answer", 60, false}, {"characters", 0, true}, {"in its place", 0, false}};
    const bool json = cli_on(s->json);
    cli_table t;

    cli_table_open(&t, columns, 4);
    if (json) {
        cli_json_begin(NULL, '{');
        cli_json_integer("index", index);
        cli_json_text("question", texts->texts[index].data, texts->texts[index].size);
        cli_json_begin("answers", '[');
    } else {
        cli_heading("question: ", texts->texts[index]);
    }
    for (int64_t i = 0; i < tf_result_count(result, n); i++) {
        tf_span a = {.struct_size = sizeof a};

        cli_check(s, tf_result_span(result, n, i, &a));
        if (json) answer_json(texts->pairs[index], &a);
        else answer_row(&t, texts->pairs[index], &a);
    }
    if (json) {
        cli_json_end(']');
        cli_json_end('}');
    } else {
        if (t.cell_count > 0) cli_table_print(&t);
        else printf("no answer\n");
        putchar('\n');
    }
    cli_table_close(&t);
}

void cli_answer(const cli_settings *s)
{
    int64_t first = 0, count = 0;
    tf_answer_options o;
    cli_texts texts;
    cli_model m;
    tf_input in;

    cli_model_path(s);
    questions_open(&texts, s);
    cli_model_open(&m, s);
    cli_session_open(&m);
    tf_answer_options_init(&o);
    o.top_k = s->top_k;
    o.max_answer_tokens = s->max_answer_tokens;
    o.max_tokens = s->max_tokens;
    o.stride = s->stride;
    o.allow_none = s->allow_none;
    while (cli_batch_next(&m, &texts, &first, &count, &in)) {
        tf_result *result = NULL;

        cli_batch_check(&m, &texts, first, count, tf_answer(m.session, &in, &o, &result));
        for (int64_t n = 0; n < count; n++) answers_print(s, result, &texts, first + n, n);
        tf_result_close(result);
    }
    cli_model_close(&m);
    cli_texts_close(&texts);
}
