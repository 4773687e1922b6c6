/* cmd_generate.c: continue or transform texts. One prompt is printed as it grows; many run together, as many as the session
 * holds. */
#define _POSIX_C_SOURCE 200809L
#include "cli.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tfinfer/generate.h>
#include <unistd.h>

/* A prompt on its way. */
typedef struct job {
    tf_generate *request;
    int32_t sequences; /* that tokens came of */
    bool done;
} job;

typedef struct work {
    const cli_settings *s;
    cli_model model;
    cli_texts texts;
    tf_generate_options options;
    tf_text *stops;
    int32_t *eos, *suppress, *decoder, *bad_ids, *bad_lens; /* what the options point to */
    job *jobs;
    int64_t tokens;
    double begin_s;
} work;

/* ------------------------------------------------------------ options ---- */

/* The ids of a list such as "3,17"; *count numbers. */
static int32_t *ids_read(const cli_settings *s, const char *what, const char *list, int64_t *count)
{
    int32_t *const ids = cli_alloc((int64_t)strlen(list) + 1, sizeof *ids); /* a digit an id */
    const char *at = list;
    int64_t id;

    for (*count = 0; cli_number_next(&at, &id);) {
        if (id < 0 || id > INT32_MAX) cli_fail(s, CLI_USAGE, "%s: %lld is no token id", what, (long long)id);
        ids[(*count)++] = (int32_t)id;
    }
    if (!at) cli_fail(s, CLI_USAGE, "%s takes token ids, not '%s'", what, list);
    return ids;
}

static void id_options(work *w)
{
    const cli_settings *const s = w->s;

    if (s->eos) w->options.eos_ids = w->eos = ids_read(s, "--eos", s->eos, &w->options.eos_count);
    if (s->suppress) w->options.suppress_ids = w->suppress = ids_read(s, "--suppress", s->suppress, &w->options.suppress_count);
    if (s->decoder_ids)
        w->options.decoder_ids = w->decoder = ids_read(s, "--decoder-ids", s->decoder_ids, &w->options.decoder_count);
}

static void bad_word_options(work *w)
{
    const cli_words *const words = &w->s->bad_words;
    int64_t room = 1, used = 0;

    if (words->count == 0) return;
    for (int i = 0; i < words->count; i++) room += (int64_t)strlen(words->items[i]);
    w->bad_ids = cli_alloc(room, sizeof *w->bad_ids);
    w->bad_lens = cli_alloc(words->count, sizeof *w->bad_lens);
    for (int i = 0; i < words->count; i++) {
        int64_t count;
        int32_t *const ids = ids_read(w->s, "--bad-words", words->items[i], &count);

        memcpy(w->bad_ids + used, ids, (size_t)count * sizeof *ids);
        w->bad_lens[i] = (int32_t)count;
        used += count;
        free(ids);
    }
    w->options.bad_words = (tf_id_lists){.ids = w->bad_ids, .lens = w->bad_lens, .count = words->count};
}

static void stop_options(work *w)
{
    const cli_words *const words = &w->s->stop;

    if (words->count == 0) return;
    w->stops = cli_alloc(words->count, sizeof *w->stops);
    for (int i = 0; i < words->count; i++) w->stops[i] = tf_text_of(words->items[i]);
    w->options.stop_strings = w->stops;
    w->options.stop_string_count = words->count;
}

static void options_fill(work *w)
{
    const cli_settings *const s = w->s;
    tf_generate_options *const o = &w->options;

    tf_generate_options_init(o);
    o->max_new_tokens = s->max_new_tokens;
    o->max_length = s->max_length;
    o->min_new_tokens = s->min_new_tokens;
    o->min_length = s->min_length;
    o->max_time = s->max_time;
    o->early_stopping = s->early_stopping; /* the choices stand in the order of tf_early_stopping */
    o->do_sample = s->sample;
    o->num_beams = s->beams;
    o->num_return_sequences = s->sequences;
    o->length_penalty = s->length_penalty;
    o->encoder_repetition_penalty = s->encoder_repetition_penalty;
    o->repetition_penalty = s->repetition_penalty;
    o->presence_penalty = s->presence_penalty;
    o->frequency_penalty = s->frequency_penalty;
    o->no_repeat_ngram_size = s->no_repeat_ngram;
    o->encoder_no_repeat_ngram_size = s->encoder_no_repeat_ngram;
    o->forced_bos_id = s->forced_bos;
    o->decay_start = s->decay_start;
    o->decay_factor = s->decay_factor;
    o->temperature = s->temperature;
    o->top_h = s->top_h;
    o->top_k = s->top_k;
    o->top_p = s->top_p;
    o->min_p = s->min_p;
    o->typical_p = s->typical_p;
    o->epsilon_cutoff = s->epsilon_cutoff;
    o->eta_cutoff = s->eta_cutoff;
    o->renormalize_logits = s->renormalize;
    o->seed = s->seed;
    o->logprobs = s->logprobs;
    o->prompt_logprobs = s->prompt_logprobs;
    if (cli_on(s->keep_special)) o->skip_special_tokens = 0;
    id_options(w);
    bad_word_options(w);
    stop_options(w);
}

/* ------------------------------------------------------------- output ---- */

static const char *finish_name(int32_t finish)
{
    static const char *const names[] = {"none", "eos", "length", "stop", "time", "cancelled"};

    return finish >= 0 && finish <= TF_FINISH_CANCELLED ? names[finish] : "unknown";
}

/* Text as it is, but for what would steer a terminal. */
static void text_put(const char *text, int64_t size)
{
    const bool terminal = isatty(STDOUT_FILENO);
    int bytes;

    if (!terminal) fwrite(text, 1, (size_t)size, stdout);
    for (int64_t i = 0; terminal && i < size; i += bytes) {
        const int32_t c = cli_code_point(text + i, size - i, &bytes);
        const bool controls = (c < 0x20 && c != '\n' && c != '\t') || (c >= 0x7f && c < 0xa0);

        if (controls) fputs("\xef\xbf\xbd", stdout);
        else fwrite(text + i, 1, (size_t)bytes, stdout);
    }
}

static void ids_put(const int32_t *ids, int64_t count)
{
    for (int64_t i = 0; i < count; i++) printf(i ? " %d" : "%d", (int)ids[i]);
}

static void logprobs_table(const work *w, const tf_generated *r)
{
    static const cli_column columns[] = {{"token", 40, false}, {"id", 0, true}, {"log-probability", 0, true}};
    const tf_tokenizer *tokenizer = NULL;
    cli_table t;

    if (!r->logprobs) return;
    (void)tf_model_tokenizer(w->model.model, &tokenizer); /* without one there are ids alone */
    cli_table_open(&t, columns, 3);
    for (int64_t i = 0; i < r->count; i++) {
        const char *token = "";

        if (tokenizer) (void)tf_tokenizer_token(tokenizer, r->ids[i], &token);
        cli_table_text(&t, token, -1);
        cli_table_cell(&t, "%d", (int)r->ids[i]);
        cli_table_cell(&t, "%.4f", (double)r->logprobs[i]);
    }
    if (r->count > 0) cli_table_print(&t);
    printf("sum %.4f, finish %s\n", r->cumulative_logprob, finish_name(r->finish));
    cli_table_close(&t);
}

static void numbers_json(const char *key, const float *numbers, int64_t count)
{
    cli_json_begin(key, '[');
    for (int64_t i = 0; i < count; i++) cli_json_number(NULL, (double)numbers[i]);
    cli_json_end(']');
}

static void sequence_json(const work *w, const tf_generated *r)
{
    cli_json_begin(NULL, '{');
    cli_json_text("text", r->text, r->text_bytes);
    cli_json_begin("ids", '[');
    for (int64_t i = 0; i < r->count; i++) cli_json_integer(NULL, r->ids[i]);
    cli_json_end(']');
    cli_json_text("finish", finish_name(r->finish), -1);
    if (r->stop_index >= 0) {
        cli_json_text("stop", w->s->stop.count > r->stop_index ? w->s->stop.items[r->stop_index] : NULL, -1);
        cli_json_integer("stop_byte", r->stop_begin);
    }
    if (cli_or(w->s->beams, 1) > 1) cli_json_number("score", (double)r->score);
    if (r->logprobs) {
        numbers_json("logprobs", r->logprobs, r->count);
        cli_json_number("cumulative_logprob", r->cumulative_logprob);
    }
    if (r->prompt_logprobs) numbers_json("prompt_logprobs", r->prompt_logprobs, r->prompt_count);
    cli_json_end('}');
}

/* One sequence's text under the place it has among several. */
static void sequence_print(const work *w, const job *j, int32_t sequence, const tf_generated *r)
{
    if (j->sequences > 1 && cli_or(w->s->beams, 1) > 1) printf("[%d] score %.4f\n", (int)sequence, (double)r->score);
    else if (j->sequences > 1) printf("[%d]\n", (int)sequence);
    if (cli_on(w->s->ids)) ids_put(r->ids, r->count);
    else text_put(r->text, r->text_bytes);
    putchar('\n');
    logprobs_table(w, r);
}

static void sequence_get(const work *w, const job *j, int32_t sequence, tf_generated *r)
{
    tf_generated_init(r);
    cli_check(w->s, tf_generate_result(j->request, sequence, r));
}

static void job_print(const work *w, int64_t index)
{
    const job *const j = &w->jobs[index];
    const bool json = cli_on(w->s->json);
    tf_generated r;

    if (json) {
        cli_json_begin_text(&w->texts, index);
        cli_json_begin("sequences", '[');
    } else if (w->texts.count > 1) {
        cli_heading("prompt: ", w->texts.texts[index]);
    }
    for (int32_t i = 0; i < j->sequences; i++) {
        sequence_get(w, j, i, &r);
        if (json) sequence_json(w, &r);
        else sequence_print(w, j, i, &r);
    }
    if (json) {
        cli_json_end(']');
        cli_json_end('}');
    } else if (w->texts.count > 1) {
        putchar('\n');
    }
}

/* ------------------------------------------------------------ running ---- */

static tf_status job_open(work *w, int64_t index)
{
    const tf_text *const text = &w->texts.texts[index];
    char *list = NULL;
    int32_t *ids = NULL, length;
    int64_t count;
    tf_status status;
    tf_input in;

    tf_input_init(&in);
    in.count = 1;
    in.replace_invalid = w->s->replace_invalid;
    if (cli_on(w->s->ids)) {
        list = cli_alloc(cli_text_size(*text) + 1, 1);
        memcpy(list, text->data, (size_t)cli_text_size(*text));
        in.ids = ids = ids_read(w->s, "--ids", list, &count);
        if (count > INT32_MAX) cli_fail(w->s, CLI_USAGE, "--ids: %lld ids in one prompt", (long long)count);
        length = (int32_t)count;
        in.lens = &length;
    } else {
        in.texts = text;
    }
    status = tf_generate_open(w->model.session, &in, &w->options, &w->jobs[index].request);
    free(ids);
    free(list);
    return status;
}

static void job_check(work *w, int64_t index, tf_status status)
{
    if (status >= 0) return;
    cli_progress_clear(&w->model.progress);
    if (w->texts.count > 1) cli_fail(w->s, CLI_REFUSED, "in text number %lld: %s", (long long)index, tf_last_error());
    cli_check(w->s, status);
}

static void token_count(work *w, job *j, const tf_generated_token *token)
{
    w->tokens += token->id >= 0;
    if (token->sequence >= j->sequences) j->sequences = token->sequence + 1;
}

/* Take what a running request has to hand out. */
static void job_collect(work *w, int64_t index)
{
    job *const j = &w->jobs[index];
    tf_generated_token token;
    tf_status status;

    tf_generated_token_init(&token);
    while ((status = tf_generate_next(j->request, 0, &token)) == TF_STATUS_OK) token_count(w, j, &token);
    if (status == TF_STATUS_END) j->done = true;
    else if (status != TF_STATUS_TIMEOUT) job_check(w, index, status);
}

/* Open requests from number `opened` on until the session is full; returns where that was. `running`: some hold a part of it.
 */
static int64_t jobs_open(work *w, int64_t opened, bool running)
{
    for (; opened < w->texts.count; opened++, running = true) {
        const tf_status status = job_open(w, opened);

        if (status == TF_STATUS_BUSY && running) break;
        job_check(w, opened, status);
    }
    return opened;
}

/* All prompts, as many together as there is room for; results in the prompts' order. */
static void run_together(work *w)
{
    cli_progress *const progress = &w->model.progress;
    int64_t printed = 0, opened = 0, done = 0;

    cli_progress_begin(progress, w->s, "generate", w->texts.count);
    while (printed < w->texts.count) {
        opened = jobs_open(w, opened, opened > printed);
        const tf_status status = tf_session_step(w->model.session, -1);

        if (status != TF_STATUS_END) job_check(w, printed, status);
        for (int64_t i = printed; i < opened; i++) {
            if (w->jobs[i].done) continue;
            job_collect(w, i);
            done += w->jobs[i].done;
        }
        for (; printed < opened && w->jobs[printed].done; printed++) {
            cli_progress_clear(progress);
            job_print(w, printed);
            tf_generate_close(w->jobs[printed].request);
        }
        (void)cli_progress_step(progress, done, w->texts.count);
    }
    cli_progress_clear(progress);
}

/* One prompt: its first sequence as it grows, then the others. */
static void run_streaming(work *w)
{
    job *const j = &w->jobs[0];
    tf_generated_token token;
    tf_generated r;
    tf_status status;

    job_check(w, 0, job_open(w, 0));
    tf_generated_token_init(&token);
    while ((status = tf_generate_next(j->request, -1, &token)) == TF_STATUS_OK) {
        token_count(w, j, &token);
        if (token.sequence > 0) continue;
        if (!cli_on(w->s->ids)) text_put(token.text, token.text_bytes);
        else if (token.id >= 0) printf("%d ", (int)token.id);
        fflush(stdout);
    }
    putchar('\n');
    if (status != TF_STATUS_END) job_check(w, 0, status);
    for (int32_t i = 0; i < j->sequences; i++) {
        sequence_get(w, j, i, &r);
        if (i == 0) logprobs_table(w, &r);
        else sequence_print(w, j, i, &r);
    }
    tf_generate_close(j->request);
}

static void speed_print(const work *w)
{
    const double seconds = cli_seconds() - w->begin_s;

    if (cli_on(w->s->quiet) || !isatty(STDERR_FILENO) || seconds <= 0) return;
    fprintf(stderr, "%lld tokens in %.2f s, %.1f tokens/s\n", (long long)w->tokens, seconds, (double)w->tokens / seconds);
}

void cli_generate(const cli_settings *s)
{
    work w = {.s = s};

    cli_model_path(s);
    options_fill(&w);
    cli_texts_open(&w.texts, s, false);
    w.jobs = cli_alloc(w.texts.count, sizeof *w.jobs);
    cli_model_open(&w.model, s);
    cli_session_open(&w.model);
    w.begin_s = cli_seconds();
    if (w.texts.count == 1 && !cli_on(s->json) && cli_or(s->sequences, 1) == 1) run_streaming(&w);
    else run_together(&w);
    speed_print(&w);
    cli_model_close(&w.model);
    cli_texts_close(&w.texts);
    free(w.jobs);
    free(w.stops);
    free(w.eos);
    free(w.suppress);
    free(w.decoder);
    free(w.bad_ids);
    free(w.bad_lens);
}
