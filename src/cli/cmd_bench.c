/* cmd_bench.c: how fast the encoder runs on random token ids. Times whole calls of tf_encode that give the last hidden state.
 */
#include "cli.h"

#include <stdio.h>
#include <stdlib.h>

enum { DEFAULT_BATCH = 8, DEFAULT_LENGTH = 128, DEFAULT_RUNS = 10, DEFAULT_WARM_UP = 2 };

/* The lengths of --lengths, or the single --length. */
static int32_t *lengths_read(const cli_settings *s, int32_t *count)
{
    int32_t *const lengths = cli_alloc(4096, sizeof *lengths);
    const char *at = s->lengths;
    int64_t length;

    *count = 1;
    lengths[0] = cli_or(s->length, DEFAULT_LENGTH);
    if (!s->lengths) return lengths;
    for (*count = 0; cli_number_next(&at, &length) && *count < 4096; (*count)++) {
        if (length < 1 || length > 1048576) cli_fail(s, CLI_USAGE, "--lengths: %lld is no length", (long long)length);
        lengths[*count] = (int32_t)length;
    }
    if (!at || *count == 0 || *at) cli_fail(s, CLI_USAGE, "--lengths needs 1 to 4096 whole numbers, not '%s'", s->lengths);
    return lengths;
}

/* The same ids in every run of the program: xorshift from a fixed seed. */
static int32_t *ids_make(int64_t count, int32_t vocab_size)
{
    int32_t *const ids = cli_alloc(count, sizeof *ids);
    uint64_t state = 88172645463325252u;

    for (int64_t i = 0; i < count; i++) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        ids[i] = (int32_t)(state % (uint64_t)vocab_size);
    }
    return ids;
}

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

/* Seconds of each run, sorted. */
static double *runs_time(cli_model *m, const tf_input *in, const tf_encode_output *out, int32_t warm_up, int32_t runs)
{
    double *const seconds = cli_alloc(runs, sizeof *seconds);

    cli_progress_begin(&m->progress, m->settings, "bench", warm_up + runs);
    for (int32_t i = 0; i < warm_up + runs; i++) {
        const double begin = cli_seconds();

        cli_check(m->settings, tf_encode(m->session, in, out));
        if (i >= warm_up) seconds[i - warm_up] = cli_seconds() - begin;
        cli_progress_part(&m->progress, 0, m->progress.all);
        cli_progress_step(&m->progress, i + 1, warm_up + runs);
    }
    cli_progress_clear(&m->progress);
    qsort(seconds, (size_t)runs, sizeof *seconds, by_value);
    return seconds;
}

static void report(const cli_model *m, int32_t batch, int64_t tokens, int32_t runs, const double *seconds)
{
    static const cli_column columns[] = {{"dtype", 0, false},   {"threads", 0, true},  {"sequences", 0, true},
                                         {"tokens", 0, true},   {"runs", 0, true},     {"median ms", 0, true},
                                         {"least ms", 0, true}, {"tokens/s", 0, true}, {"sequences/s", 0, true}};
    const double median = (seconds[(runs - 1) / 2] + seconds[runs / 2]) / 2;
    cli_table t;

    if (cli_on(m->settings->json)) {
        cli_json_begin(NULL, '{');
        cli_json_integer("sequences", batch);
        cli_json_integer("tokens", tokens);
        cli_json_text("dtype", cli_dtype_name(m->info.dtype), -1);
        cli_json_integer("threads", m->info.threads);
        cli_json_integer("runs", runs);
        cli_json_number("median_ms", 1e3 * median);
        cli_json_number("min_ms", 1e3 * seconds[0]);
        cli_json_number("tokens_per_s", (double)tokens / median);
        cli_json_number("sequences_per_s", batch / median);
        cli_json_end('}');
        return;
    }
    cli_table_open(&t, columns, 9);
    cli_table_text(&t, cli_dtype_name(m->info.dtype), -1);
    cli_table_cell(&t, "%d", (int)m->info.threads);
    cli_table_cell(&t, "%d", (int)batch);
    cli_table_cell(&t, "%lld", (long long)tokens);
    cli_table_cell(&t, "%d", (int)runs);
    cli_table_cell(&t, "%.3f", 1e3 * median);
    cli_table_cell(&t, "%.3f", 1e3 * seconds[0]);
    cli_table_cell(&t, "%.0f", (double)tokens / median);
    cli_table_cell(&t, "%.1f", batch / median);
    cli_table_print(&t);
    cli_table_close(&t);
}

void cli_bench(const cli_settings *s)
{
    const int32_t runs = cli_or(s->runs, DEFAULT_RUNS), warm_up = cli_or(s->warm_up, DEFAULT_WARM_UP);
    int32_t length_count;
    int64_t tokens = 0;
    tf_encode_output out;
    cli_model m;
    tf_input in;

    cli_no_arguments(s);
    int32_t *const lengths = lengths_read(s, &length_count);
    const int32_t batch = cli_or(s->batch, s->lengths ? length_count : DEFAULT_BATCH);
    int32_t *const lens = cli_alloc(batch, sizeof *lens);
    for (int32_t i = 0; i < batch; i++) tokens += lens[i] = lengths[i % length_count];
    cli_model_open(&m, s);
    cli_session_open(&m);
    int32_t *const ids = ids_make(tokens, m.info.vocab_size);
    float *const hidden = cli_alloc(tokens * m.info.width, sizeof *hidden);

    tf_input_init(&in);
    in.count = batch;
    in.ids = ids;
    in.lens = lens;
    tf_encode_output_init(&out);
    out.layers = &m.info.layers;
    out.layer_count = 1;
    out.hidden = hidden;
    double *const seconds = runs_time(&m, &in, &out, warm_up, runs);
    report(&m, batch, tokens, runs, seconds);
    free(seconds);
    free(hidden);
    free(ids);
    free(lens);
    free(lengths);
    cli_model_close(&m);
}
