/* cmd_fill_mask.c: candidates for the masked words of a text, each shown inside the sentence. */
#include "cli.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What one call needs besides the model: the mask's spelling, and the ids that --targets names. */
typedef struct fill_task {
    const tf_tokenizer *tokenizer;
    const char *mask;
    int32_t *targets;
    int32_t target_count;
} fill_task;

static void targets_read(fill_task *f, const cli_settings *s)
{
    if (!s->targets) return;
    f->targets = cli_alloc((int64_t)strlen(s->targets) + 1, sizeof *f->targets);
    for (const char *at = s->targets; *at;) {
        const size_t size = strcspn(at, ",");

        if (tf_tokenizer_id(f->tokenizer, (tf_text){at, (int64_t)size}, &f->targets[f->target_count++]) < 0)
            cli_fail(s, CLI_REFUSED, "--targets: the vocabulary has no token '%.*s'", (int)size, at);
        at += size + (at[size] == ',');
    }
}

static void fill_task_open(fill_task *f, const cli_model *m)
{
    tf_tokenizer_info info;

    memset(f, 0, sizeof *f);
    cli_check(m->settings, tf_model_tokenizer(m->model, &f->tokenizer));
    tf_tokenizer_info_init(&info);
    cli_check(m->settings, tf_tokenizer_get_info(f->tokenizer, &info));
    if (info.mask_id < 0) cli_fail(m->settings, CLI_REFUSED, "the tokenizer has no mask token");
    cli_check(m->settings, tf_tokenizer_token(f->tokenizer, info.mask_id, &f->mask));
    targets_read(f, m->settings);
}

/* Byte offset of mask number `number` in the text, or -1. */
static int64_t mask_find(tf_text text, const char *mask, int32_t number)
{
    const int64_t size = cli_text_size(text), length = (int64_t)strlen(mask);

    for (int64_t at = 0; at + length <= size; at++) {
        if (memcmp(text.data + at, mask, (size_t)length)) continue;
        if (number-- == 0) return at;
        at += length - 1;
    }
    return -1;
}

/* The candidate as a word: the decoder turns pieces of other alphabets into text. free() it. */
static char *word_of(const cli_settings *s, const fill_task *f, const tf_fill *fill)
{
    int64_t size = 0;
    char *word;
    const tf_status status = tf_tokenizer_decode(f->tokenizer, &fill->id, 1, NULL, NULL, 0, &size);

    if (status != TF_STATUS_TOO_SMALL) cli_check(s, status);
    word = cli_alloc(size + 1, 1);
    cli_check(s, tf_tokenizer_decode(f->tokenizer, &fill->id, 1, NULL, word, size, &size));
    return word;
}

/* The text with the candidate in the mask's place; "##ing" joins the word before it. free() it. */
static char *sentence_fill(const cli_settings *s, const fill_task *f, tf_text text, const tf_fill *fill)
{
    const int64_t at = mask_find(text, f->mask, fill->mask);
    char *const word = word_of(s, f, fill);
    const bool joined = !strncmp(word, "##", 2) && word[2];
    const char *const shown = joined ? word + 2 : word + strspn(word, " ");
    const int64_t size = cli_text_size(text), behind = at + (int64_t)strlen(f->mask);
    const int64_t before = joined && at > 0 && text.data[at - 1] == ' ' ? at - 1 : at;
    char *const filled = cli_alloc(size + (int64_t)strlen(word) + 1, 1);

    if (at < 0) {
        memcpy(filled, text.data, (size_t)size);
    } else {
        memcpy(filled, text.data, (size_t)before);
        strcpy(filled + before, shown);
        memcpy(filled + before + strlen(shown), text.data + behind, (size_t)(size - behind));
    }
    free(word);
    return filled;
}

static void fill_json(const tf_fill *fill, const char *filled)
{
    cli_json_begin(NULL, '{');
    cli_json_integer("mask", fill->mask);
    cli_json_integer("position", fill->position);
    cli_json_text("token", fill->token, -1);
    cli_json_integer("id", fill->id);
    cli_json_number("score", (double)fill->score);
    cli_json_text("filled", filled, -1);
    cli_json_end('}');
}

static void fill_row(cli_table *t, const tf_fill *fill, const char *filled)
{
    cli_table_cell(t, "%d", (int)fill->mask);
    cli_table_cell(t, "%.4f", (double)fill->score);
    cli_table_text(t, fill->token ? fill->token : "", -1);
    cli_table_text(t, filled, -1);
}

/* All candidates of text number `index`, which is number `n` of the result. */
static void fills_print(const cli_settings *s, const fill_task *f, const tf_result *result, const cli_texts *texts,
                        int64_t index, int64_t n)
{
    static const cli_column columns[] = {{"mask", 0, true}, {"score", 0, true}, {"token", 30, false}, {"filled", 100, false}};
    cli_table t;

    cli_table_open(&t, columns, 4);
    if (cli_on(s->json)) {
        cli_json_begin_text(texts, index);
        cli_json_begin("candidates", '[');
    } else {
        cli_heading("text: ", texts->texts[index]);
    }
    for (int64_t i = 0; i < tf_result_count(result, n); i++) {
        tf_fill fill = {.struct_size = sizeof fill};
        char *filled;

        cli_check(s, tf_result_fill(result, n, i, &fill));
        filled = sentence_fill(s, f, texts->texts[index], &fill);
        if (cli_on(s->json)) fill_json(&fill, filled);
        else fill_row(&t, &fill, filled);
        free(filled);
    }
    if (cli_on(s->json)) {
        cli_json_end(']');
        cli_json_end('}');
    } else {
        cli_table_print(&t);
        putchar('\n');
    }
    cli_table_close(&t);
}

void cli_fill_mask(const cli_settings *s)
{
    int64_t first = 0, count = 0;
    tf_fill_mask_options o;
    cli_texts texts;
    fill_task task;
    cli_model m;
    tf_input in;

    cli_model_path(s);
    cli_texts_open(&texts, s, false);
    cli_model_open(&m, s);
    cli_session_open(&m);
    fill_task_open(&task, &m);
    tf_fill_mask_options_init(&o);
    o.top_k = s->top_k;
    if (task.target_count > 0) o.target_count = task.target_count;
    o.targets = task.targets;
    while (cli_batch_next(&m, &texts, &first, &count, &in)) {
        tf_result *result = NULL;

        cli_batch_check(&m, &texts, first, count, tf_fill_mask(m.session, &in, &o, &result));
        for (int64_t n = 0; n < count; n++) fills_print(s, &task, result, &texts, first + n, n);
        tf_result_close(result);
    }
    free(task.targets);
    cli_model_close(&m);
    cli_texts_close(&texts);
}
