/* cli_model.c: opening a model and its session as the options say, walking texts in parts, the progress bar, fatal errors. */
#define _POSIX_C_SOURCE 200809L
#include "cli.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* Texts of one call: enough to fill many steps, few enough that results of a large file appear as they come. */
enum { BATCH_TEXTS = 1024 };

enum { BAR_WIDTH = 30 };
static const double bar_after_s = 0.5, bar_every_s = 0.1;

/* ----------------------------------------------------- errors, memory ---- */

void cli_fail(const cli_settings *s, int code, const char *format, ...)
{
    va_list arguments;

    fflush(stdout);
    fprintf(stderr, "tfinfer: %s: ", s->command);
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(code);
}

void cli_check(const cli_settings *s, tf_status status)
{
    if (status < 0) cli_fail(s, CLI_REFUSED, "%s", *tf_last_error() ? tf_last_error() : tf_status_string(status));
}

void *cli_alloc(int64_t count, size_t size)
{
    void *const memory = calloc(count > 0 ? (size_t)count : 1, size);

    if (memory) return memory;
    fprintf(stderr, "tfinfer: out of memory\n");
    exit(CLI_REFUSED);
}

/* ----------------------------------------------------------- progress ---- */

double cli_seconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

void cli_progress_begin(cli_progress *p, const cli_settings *s, const char *what, int64_t all)
{
    memset(p, 0, sizeof *p);
    p->what = what;
    p->all = p->part = all;
    p->begin_s = p->drawn_s = cli_seconds();
    p->wanted = !cli_on(s->quiet) && isatty(STDERR_FILENO);
}

void cli_progress_part(cli_progress *p, int64_t before, int64_t part)
{
    p->before = before;
    p->part = part;
}

int32_t cli_progress_step(void *progress, int64_t done, int64_t total)
{
    cli_progress *const p = progress;
    const double now = cli_seconds();
    double share;

    if (!p->wanted || total <= 0 || p->all <= 0) return 0;
    if (now - p->begin_s < bar_after_s || now - p->drawn_s < bar_every_s) return 0;
    share = ((double)p->before + (double)p->part * (double)done / (double)total) / (double)p->all;
    if (share > 1.0) share = 1.0;
    fprintf(stderr, "\r%s [", p->what);
    for (int i = 0; i < BAR_WIDTH; i++) fputc(i < (int)(share * BAR_WIDTH) ? '#' : '.', stderr);
    fprintf(stderr, "] %3d %%  %.0f s", (int)(100.0 * share), now - p->begin_s);
    fflush(stderr);
    p->drawn_s = now;
    p->drawn = true;
    return 0;
}

void cli_progress_clear(cli_progress *p)
{
    if (p->drawn) fputs("\r\033[K", stderr);
    p->drawn = false;
}

/* -------------------------------------------------------------- model ---- */

void cli_log(void *user, tf_log_level level, const char *text)
{
    (void)user;
    if (level >= TF_LOG_WARNING) fprintf(stderr, "tfinfer: warning: %s\n", text);
}

const char *cli_dtype_name(int32_t dtype)
{
    static const char *const names[] = {"auto", "fp32", "tf32", "bf16", "fp16"};

    return dtype >= 0 && dtype <= TF_DTYPE_FP16 ? names[dtype] : "unknown";
}

void cli_model_options(tf_model_options *o, const cli_settings *s)
{
    tf_model_options_init(o);
    o->device = s->device;
    o->library_folder = s->library_folder;
    o->gemm_file = s->gemm_file;
    o->mecab_dictionary = s->mecab_dictionary;
    o->gemm_timing = s->gemm_timing;
    o->dtype = s->dtype; /* the choices stand in the order of tf_dtype */
    o->threads = s->threads;
    if (!cli_on(s->quiet)) o->log = cli_log;
}

void cli_session_options(tf_session_options *o, const cli_settings *s)
{
    tf_session_options_init(o);
    o->max_step_tokens = s->max_step_tokens;
    o->kv_tokens = s->kv_tokens;
}

const char *cli_model_path(const cli_settings *s)
{
    if (!s->model) cli_fail(s, CLI_USAGE, "no model directory; try 'tfinfer help %s'", s->command);
    return s->model;
}

void cli_model_open(cli_model *m, const cli_settings *s)
{
    tf_model_options o;
    tf_status status;

    memset(m, 0, sizeof *m);
    m->settings = s;
    cli_model_options(&o, s);
    cli_progress_begin(&m->progress, s, "loading", 1);
    o.progress = cli_progress_step;
    o.progress_user = &m->progress;
    status = tf_model_open(cli_model_path(s), &o, &m->model);
    cli_progress_clear(&m->progress);
    cli_check(s, status);
    tf_model_info_init(&m->info);
    cli_check(s, tf_model_get_info(m->model, &m->info));
}

void cli_session_open(cli_model *m)
{
    tf_session_options o;

    cli_session_options(&o, m->settings);
    cli_check(m->settings, tf_session_open(m->model, &o, &m->session));
}

void cli_model_close(cli_model *m)
{
    tf_session_close(m->session);
    tf_model_close(m->model);
}

bool cli_batch_next(cli_model *m, const cli_texts *texts, int64_t *first, int64_t *count, tf_input *in)
{
    if (*first == 0 && *count == 0) cli_progress_begin(&m->progress, m->settings, m->settings->command, texts->count);
    *first += *count;
    if (*first >= texts->count) return false;
    *count = texts->count - *first < BATCH_TEXTS ? texts->count - *first : BATCH_TEXTS;
    cli_progress_part(&m->progress, *first, *count);

    tf_input_init(in);
    in->count = *count;
    in->texts = texts->texts + *first;
    in->pairs = texts->pairs ? texts->pairs + *first : NULL;
    in->replace_invalid = m->settings->replace_invalid;
    in->progress = cli_progress_step;
    in->progress_user = &m->progress;
    return true;
}

void cli_batch_check(cli_model *m, const cli_texts *texts, int64_t first, int64_t count, tf_status status)
{
    cli_progress_clear(&m->progress);
    if (status < 0 && count < texts->count)
        cli_fail(m->settings, CLI_REFUSED, "in the %lld texts from number %lld on: %s", (long long)count, (long long)first,
                 tf_last_error());
    cli_check(m->settings, status);
}
