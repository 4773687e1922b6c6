/* cmd_label.c: classify (labels of a text or pair) and ner (labels of pieces of a text). */
#include "cli.h"

#include <stdio.h>
#include <stdlib.h>

/* ----------------------------------------------------------- classify ---- */

typedef struct scored {
    float score, logit;
    int32_t id;
} scored;

static int by_score(const void *a, const void *b)
{
    const scored *const x = a, *const y = b;

    if (x->score != y->score) return x->score < y->score ? 1 : -1;
    return x->id - y->id;
}

static const char *label_of(const tf_model_info *info, int32_t id, char *buffer, size_t size)
{
    if (id < info->labels) return info->label_names[id];
    snprintf(buffer, size, "LABEL_%d", (int)id);
    return buffer;
}

/* The labels of text `index` as rows of the table or one line of JSON; its own text stands in the first row only. */
static void labels_print(const cli_model *m, cli_table *t, const cli_texts *texts, int64_t index, const scored *best,
                         int32_t count)
{
    const bool json = cli_on(m->settings->json);
    char buffer[32];

    if (json) {
        cli_json_begin_text(texts, index);
        cli_json_begin("labels", '[');
    }
    for (int32_t i = 0; i < count; i++) {
        const char *const label = label_of(&m->info, best[i].id, buffer, sizeof buffer);

        if (json) {
            cli_json_begin(NULL, '{');
            cli_json_text("label", label, -1);
            cli_json_integer("id", best[i].id);
            cli_json_number("score", (double)best[i].score);
            cli_json_number("logit", (double)best[i].logit);
            cli_json_end('}');
            continue;
        }
        if (i == 0) cli_table_cell(t, "%lld", (long long)index);
        else cli_table_text(t, "", 0);
        cli_table_text(t, label, -1);
        cli_table_cell(t, "%.4f", (double)best[i].score);
        cli_table_text(t, i == 0 ? texts->texts[index].data : "", i == 0 ? texts->texts[index].size : 0);
        if (texts->pairs) cli_table_text(t, i == 0 ? texts->pairs[index].data : "", i == 0 ? texts->pairs[index].size : 0);
    }
    if (!json) return;
    cli_json_end(']');
    cli_json_end('}');
}

static void classify_part(cli_model *m, cli_table *t, const cli_texts *texts, const tf_input *in, int64_t first)
{
    const int32_t labels = m->info.sequence_logits;
    const int32_t top = cli_or(m->settings->top_k, labels);
    float *const logits = cli_alloc(in->count * labels, sizeof *logits), *const scores =
                                                                             cli_alloc(in->count * labels, sizeof *scores);
    scored *const sorted = cli_alloc(labels, sizeof *sorted);
    tf_classify_options o;

    tf_classify_options_init(&o);
    o.activation = m->settings->activation;
    o.truncate = m->settings->truncate;
    cli_batch_check(m, texts, first, in->count, tf_classify(m->session, in, &o, logits, scores));
    for (int64_t n = 0; n < in->count; n++) {
        for (int32_t i = 0; i < labels; i++) sorted[i] = (scored){scores[n * labels + i], logits[n * labels + i], i};
        qsort(sorted, (size_t)labels, sizeof *sorted, by_score);
        labels_print(m, t, texts, first + n, sorted, top < labels ? top : labels);
    }
    free(sorted);
    free(scores);
    free(logits);
}

void cli_classify(const cli_settings *s)
{
    static const cli_column columns[] = {
        {"text", 0, true}, {"label", 0, false}, {"score", 0, true}, {"", 60, false}, {"", 60, false}};
    int64_t first = 0, count = 0;
    cli_texts texts;
    cli_model m;
    cli_table t;
    tf_input in;

    cli_model_path(s);
    cli_texts_open(&texts, s, cli_on(s->pair));
    cli_model_open(&m, s);
    cli_session_open(&m);
    cli_table_open(&t, columns, texts.pairs ? 5 : 4);
    while (cli_batch_next(&m, &texts, &first, &count, &in)) classify_part(&m, &t, &texts, &in, first);
    if (t.cell_count > 0) cli_table_print(&t);
    cli_table_close(&t);
    cli_model_close(&m);
    cli_texts_close(&texts);
}

/* ---------------------------------------------------------------- ner ---- */

static void entity_row(cli_table *t, tf_text text, int64_t index, const tf_entity *e)
{
    cli_table_cell(t, "%lld", (long long)index);
    cli_table_text(t, e->label, -1);
    cli_table_cell(t, "%.4f", (double)e->score);
    cli_table_text(t, text.data + e->byte_begin, e->byte_end - e->byte_begin);
    cli_table_cell(t, "%lld-%lld", (long long)e->char_begin, (long long)e->char_end);
    cli_table_context(t, text, e->byte_begin, e->byte_end);
}

static void entity_json(tf_text text, const tf_entity *e)
{
    cli_json_begin(NULL, '{');
    cli_json_text("label", e->label, -1);
    cli_json_number("score", (double)e->score);
    cli_json_text("text", text.data + e->byte_begin, e->byte_end - e->byte_begin);
    cli_json_range("bytes", e->byte_begin, e->byte_end);
    cli_json_range("characters", e->char_begin, e->char_end);
    cli_json_range("tokens", e->token_begin, e->token_end);
    cli_json_end('}');
}

static void ner_part(cli_model *m, cli_table *t, const cli_texts *texts, const tf_input *in, int64_t first)
{
    const bool json = cli_on(m->settings->json);
    tf_token_classify_options o;
    tf_result *result = NULL;

    tf_token_classify_options_init(&o);
    o.aggregation = m->settings->aggregation; /* the choices stand in the order of tf_aggregation */
    o.truncate = m->settings->truncate;
    o.stride = m->settings->stride;
    o.keep_all = m->settings->keep_all;
    cli_batch_check(m, texts, first, in->count, tf_token_classify(m->session, in, &o, &result));
    for (int64_t n = 0; n < in->count; n++) {
        const tf_text text = texts->texts[first + n];

        if (json) {
            cli_json_begin_text(texts, first + n);
            cli_json_begin("entities", '[');
        }
        for (int64_t i = 0; i < tf_result_count(result, n); i++) {
            tf_entity e = {.struct_size = sizeof e};

            cli_check(m->settings, tf_result_entity(result, n, i, &e));
            if (json) entity_json(text, &e);
            else entity_row(t, text, first + n, &e);
        }
        if (!json) continue;
        cli_json_end(']');
        cli_json_end('}');
    }
    tf_result_close(result);
}

void cli_ner(const cli_settings *s)
{
    static const cli_column columns[] = {{"text", 0, true},     {"label", 0, false},     {"score", 0, true},
                                         {"entity", 40, false}, {"characters", 0, true}, {"in its place", 0, false}};
    int64_t first = 0, count = 0;
    cli_texts texts;
    cli_model m;
    cli_table t;
    tf_input in;

    cli_model_path(s);
    cli_texts_open(&texts, s, false);
    cli_model_open(&m, s);
    cli_session_open(&m);
    cli_table_open(&t, columns, 6);
    while (cli_batch_next(&m, &texts, &first, &count, &in)) ner_part(&m, &t, &texts, &in, first);
    if (t.cell_count > 0) cli_table_print(&t);
    else if (!cli_on(s->json) && texts.count > 0) printf("no entities\n");
    cli_table_close(&t);
    cli_model_close(&m);
    cli_texts_close(&texts);
}
