/* cmd_embed.c: embed (a vector a text) and similar (lines ranked by the cosine of their embeddings to a query's). */
#include "cli.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SHOWN_VALUES = 4, DEFAULT_TOP = 5 };

static double dot(const float *a, const float *b, int32_t width)
{
    double sum = 0.0;

    for (int32_t i = 0; i < width; i++) sum += (double)a[i] * (double)b[i];
    return sum;
}

static void embed_options(tf_embed_options *o, const cli_settings *s, const char *prompt_name)
{
    tf_embed_options_init(o);
    o->normalize = s->normalize;
    o->max_tokens = s->max_tokens;
    o->prompt = s->prompt;
    o->prompt_name = prompt_name;
}

/* -------------------------------------------------------------- embed ---- */

static void vector_row(cli_table *t, const cli_texts *texts, int64_t index, const float *vector, int32_t width)
{
    char values[128] = "";
    size_t used = 0;

    for (int32_t i = 0; i < width && i < SHOWN_VALUES; i++)
        used += (size_t)snprintf(values + used, sizeof values - used, "%s%.4f", i ? " " : "", (double)vector[i]);
    cli_table_cell(t, "%lld", (long long)index);
    cli_table_cell(t, "%.4f", sqrt(dot(vector, vector, width)));
    cli_table_cell(t, "%s%s", values, width > SHOWN_VALUES ? " \xe2\x80\xa6" : "");
    cli_table_text(t, texts->texts[index].data, texts->texts[index].size);
}

static void vector_json(const cli_texts *texts, int64_t index, const float *vector, int32_t width)
{
    cli_json_begin_text(texts, index);
    cli_json_begin("embedding", '[');
    for (int32_t i = 0; i < width; i++) cli_json_number(NULL, (double)vector[i]);
    cli_json_end(']');
    cli_json_end('}');
}

void cli_embed(const cli_settings *s)
{
    static const cli_column columns[] = {{"text", 0, true}, {"length", 0, true}, {"first values", 0, false}, {"", 60, false}};
    int64_t first = 0, count = 0;
    tf_embed_options o;
    cli_texts texts;
    cli_model m;
    cli_table t;
    tf_input in;

    cli_model_path(s);
    cli_texts_open(&texts, s, false);
    cli_model_open(&m, s);
    cli_session_open(&m);
    embed_options(&o, s, s->prompt_name);
    cli_table_open(&t, columns, 4);
    const int32_t width = m.info.embedding_width;
    while (cli_batch_next(&m, &texts, &first, &count, &in)) {
        float *const vectors = cli_alloc(count * width, sizeof *vectors);

        cli_batch_check(&m, &texts, first, count, tf_embed(m.session, &in, &o, vectors, width));
        for (int64_t i = 0; i < count; i++) {
            if (cli_on(s->json)) vector_json(&texts, first + i, vectors + i * width, width);
            else vector_row(&t, &texts, first + i, vectors + i * width, width);
        }
        free(vectors);
    }
    if (t.cell_count > 0) {
        cli_table_print(&t);
        printf("%d values a text; --json prints them all\n", (int)width);
    }
    cli_table_close(&t);
    cli_model_close(&m);
    cli_texts_close(&texts);
}

/* ------------------------------------------------------------ similar ---- */

typedef struct hit {
    double score;
    int64_t line; /* index into the texts */
} hit;

/* The best lines of one query so far, best first; of equal scores the earlier line first. */
typedef struct ranking {
    hit *hits;
    int64_t count, capacity;
} ranking;

static void ranking_offer(ranking *r, double score, int64_t line)
{
    int64_t at = r->count;

    if (at == r->capacity && score <= r->hits[at - 1].score) return;
    if (at < r->capacity) r->count++;
    else at--;
    for (; at > 0 && r->hits[at - 1].score < score; at--) r->hits[at] = r->hits[at - 1];
    r->hits[at] = (hit){score, line};
}

static bool is_blank(tf_text text)
{
    for (int64_t i = 0; i < text.size; i++)
        if (!strchr(" \t\v\f\r", text.data[i]) || !text.data[i]) return false;
    return true;
}

/* Drop blank lines; returns the number, from 1, of each that stays. */
static int64_t *blank_lines_drop(cli_texts *texts)
{
    int64_t *const numbers = cli_alloc(texts->count, sizeof *numbers);
    int64_t kept = 0;

    for (int64_t i = 0; i < texts->count; i++) {
        if (is_blank(texts->texts[i])) continue;
        numbers[kept] = i + 1;
        texts->texts[kept++] = texts->texts[i];
    }
    texts->count = kept;
    return numbers;
}

/* Embed all texts and offer each to each query's ranking; with `queries` NULL write the embeddings to `out`. */
static void similar_run(cli_model *m, const cli_texts *texts, const char *prompt_name, float *out, const float *queries,
                        ranking *rankings, int64_t query_count)
{
    const int32_t width = m->info.embedding_width;
    int64_t first = 0, count = 0;
    tf_embed_options o;
    tf_input in;

    embed_options(&o, m->settings, prompt_name);
    o.normalize = 1;
    while (cli_batch_next(m, texts, &first, &count, &in)) {
        float *const vectors = queries ? cli_alloc(count * width, sizeof *vectors) : out + first * width;

        cli_batch_check(m, texts, first, count, tf_embed(m->session, &in, &o, vectors, width));
        if (!queries) continue;
        for (int64_t i = 0; i < count; i++)
            for (int64_t q = 0; q < query_count; q++)
                ranking_offer(&rankings[q], dot(queries + q * width, vectors + i * width, width), first + i);
        free(vectors);
    }
}

static void ranking_json(const ranking *r, tf_text query, const cli_texts *lines, const int64_t *numbers)
{
    cli_json_begin(NULL, '{');
    cli_json_text("query", query.data, query.size);
    cli_json_begin("results", '[');
    for (int64_t i = 0; i < r->count; i++) {
        const tf_text text = lines->texts[r->hits[i].line];

        cli_json_begin(NULL, '{');
        cli_json_number("score", r->hits[i].score);
        cli_json_integer("line", numbers[r->hits[i].line]);
        cli_json_text("text", text.data, text.size);
        cli_json_end('}');
    }
    cli_json_end(']');
    cli_json_end('}');
}

static void ranking_table(const ranking *r, tf_text query, const cli_texts *lines, const int64_t *numbers)
{
    static const cli_column columns[] = {{"score", 0, true}, {"line", 0, true}, {"text", 100, false}};
    cli_table t;

    cli_heading("query: ", query);
    cli_table_open(&t, columns, 3);
    for (int64_t i = 0; i < r->count; i++) {
        const tf_text text = lines->texts[r->hits[i].line];

        cli_table_cell(&t, "%.4f", r->hits[i].score);
        cli_table_cell(&t, "%lld", (long long)numbers[r->hits[i].line]);
        cli_table_text(&t, text.data, text.size);
    }
    cli_table_print(&t);
    putchar('\n');
    cli_table_close(&t);
}

static void queries_from_arguments(cli_texts *queries, const cli_settings *s)
{
    memset(queries, 0, sizeof *queries);
    if (s->argument_count == 0) cli_fail(s, CLI_USAGE, "no query; try 'tfinfer help similar'");
    queries->count = s->argument_count;
    queries->texts = cli_alloc(queries->count, sizeof *queries->texts);
    for (int i = 0; i < s->argument_count; i++) queries->texts[i] = tf_text_of(s->arguments[i]);
}

void cli_similar(const cli_settings *s)
{
    const int64_t top = cli_or(s->top_k, DEFAULT_TOP);
    cli_texts queries, lines;
    cli_model m;

    cli_model_path(s);
    queries_from_arguments(&queries, s);
    cli_texts_open_lines(&lines, s, false);
    int64_t *const numbers = blank_lines_drop(&lines);
    cli_model_open(&m, s);
    cli_session_open(&m);
    float *const vectors = cli_alloc(queries.count * m.info.embedding_width, sizeof *vectors);
    ranking *const rankings = cli_alloc(queries.count, sizeof *rankings);
    for (int64_t q = 0; q < queries.count; q++) {
        rankings[q].capacity = top < lines.count ? top : lines.count;
        rankings[q].hits = cli_alloc(rankings[q].capacity, sizeof(hit));
    }

    similar_run(&m, &queries, s->query_prompt_name, vectors, NULL, NULL, 0);
    similar_run(&m, &lines, s->prompt_name, NULL, vectors, rankings, queries.count);
    for (int64_t q = 0; q < queries.count; q++) {
        (cli_on(s->json) ? ranking_json : ranking_table)(&rankings[q], queries.texts[q], &lines, numbers);
        free(rankings[q].hits);
    }
    free(rankings);
    free(vectors);
    free(numbers);
    cli_model_close(&m);
    cli_texts_close(&lines);
    cli_texts_close(&queries);
}
