/* cli.h: what the files of the tfinfer program share. The program is a client of the public API alone.
 *
 * main.c         the table of commands, help, dispatch
 * cli_options.c  the table of options, one parser for all commands
 * cli_texts.c    texts from arguments, a file or standard input
 * cli_model.c    opens model and session, the progress bar, fatal errors
 * table.c        aligned tables for a person
 * json_out.c     JSON lines for a program
 * cmd_*.c        the commands
 *
 * A command that fails prints one line to standard error and ends the process at once (cli_fail): nothing here outlives it. */
#ifndef TFINFER_CLI_H
#define TFINFER_CLI_H

#include <stdbool.h>
#include <tfinfer/tfinfer.h>

/* Exit codes; documented in the help text and docs/cli.md. */
enum {
    CLI_OK = 0,
    CLI_REFUSED = 1, /* the library refused the input or the model */
    CLI_USAGE = 2,   /* the command line makes no sense */
    CLI_FILE = 3     /* an input or output file could not be read or written */
};

/* ------------------------------------------------------------ options ---- */

/* The values of an option that may be given more than once. */
typedef struct cli_words {
    char **items;
    int count;
} cli_words;

/* Every option of every command. Numbers and choices not given are TF_UNSET, or the unset NaN, so they go to the library as they
 * are. */
typedef struct cli_settings {
    const char *command;
    const char *model, *file, *prompt, *prompt_name, *query_prompt_name, *question, *context, *lengths, *targets;
    const char *device, *library_folder, *gemm_file, *mecab_dictionary;
    int32_t gemm_timing, dtype, threads, max_step_tokens;
    int32_t json, quiet, help, replace_invalid;                                                     /* flags: 1 or TF_UNSET */
    int32_t dot, pair, decode, skip_special, no_special, truncate, keep_all, allow_none;            /* flags */
    int32_t truncation, normalize, aggregation, activation;                                         /* choices */
    int32_t max_length, max_tokens, max_answer_tokens, stride, top_k, batch, length, runs, warm_up; /* numbers */
    int32_t kv_tokens, sample, logprobs, prompt_logprobs, renormalize, ids, keep_special; /* from here on of generate */
    int32_t beams, sequences, early_stopping, max_new_tokens, min_new_tokens, min_length, seed;
    int32_t no_repeat_ngram, encoder_no_repeat_ngram, forced_bos, decay_start;
    float max_time, length_penalty, encoder_repetition_penalty, repetition_penalty, presence_penalty, frequency_penalty;
    float decay_factor, temperature, top_h, top_p, min_p, typical_p, epsilon_cutoff, eta_cutoff;
    const char *eos, *suppress, *decoder_ids;
    cli_words stop, bad_words;
    char **arguments; /* what is neither option nor model, in order */
    int argument_count;
} cli_settings;

typedef struct cli_command {
    const char *name;
    const char *summary;   /* one line */
    const char *arguments; /* behind the name in the usage line */
    const char *options;   /* names of the options it takes, separated by blanks */
    const char *details;   /* text of its help page, with an example */
    void (*run)(const cli_settings *s);
} cli_command;

/* Read argv[2...] for `command` into `s`; the first plain argument is the model unless --model gives it. */
void cli_options_read(cli_settings *s, const cli_command *command, int argc, char **argv);

/* A usage error if there are plain arguments besides the model. */
void cli_no_arguments(const cli_settings *s);

/* The next number of a list separated by commas or blanks; *list moves on. false at its end, *list is NULL if that is no
 * number. */
bool cli_number_next(const char **list, int64_t *number);

/* Print one help line for each option of `command`. */
void cli_options_help(const cli_command *command);

static inline bool cli_on(int32_t flag)
{
    return flag == 1;
}

static inline int32_t cli_or(int32_t value, int32_t unset)
{
    return value == TF_UNSET ? unset : value;
}

/* ----------------------------------------------------- errors, memory ---- */

/* Print "tfinfer: COMMAND: ..." to standard error and exit with `code`. */
_Noreturn void cli_fail(const cli_settings *s, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* cli_fail with tf_last_error() if `status` is a failure. */
void cli_check(const cli_settings *s, tf_status status);

/* count * size zeroed bytes; ends the process when there are none. */
void *cli_alloc(int64_t count, size_t size);

/* -------------------------------------------------------------- texts ---- */

typedef struct cli_texts {
    tf_text *texts;
    tf_text *pairs; /* NULL unless asked for */
    int64_t count;
    char *buffer; /* what the texts point into, unless they are arguments */
} cli_texts;

/* The texts of the command line, of --file (a line each), or of standard input (no text, or "-"). With `pair` the arguments
 * are taken two by two and a line is split at its first tab. */
void cli_texts_open(cli_texts *t, const cli_settings *s, bool pair);

/* The lines of --file, or of standard input without it; arguments are left alone. */
void cli_texts_open_lines(cli_texts *t, const cli_settings *s, bool pair);
void cli_texts_close(cli_texts *t);

/* Bytes of a tf_text. */
int64_t cli_text_size(tf_text t);

/* The code point at text[0...size) and its bytes; -1 and one byte where it is not UTF-8 (overlong forms and surrogates too). */
int32_t cli_code_point(const char *text, int64_t size, int *bytes);

/* All of a file, or of standard input for NULL and "-", NUL-terminated; free() it. */
char *cli_file_read(const cli_settings *s, const char *path, int64_t *size);

/* ------------------------------------------------------ model, running ---- */

/* A bar on standard error, drawn when that is a terminal and the work has taken half a second. */
typedef struct cli_progress {
    const char *what;
    double begin_s, drawn_s;
    int64_t all;          /* units of work of the command */
    int64_t before, part; /* units done before the current call, units of the current call */
    bool wanted, drawn;
} cli_progress;

void cli_progress_begin(cli_progress *p, const cli_settings *s, const char *what, int64_t all);
void cli_progress_part(cli_progress *p, int64_t before, int64_t part);
int32_t cli_progress_step(void *progress, int64_t done, int64_t total); /* a tf_progress_fn */
void cli_progress_clear(cli_progress *p);

/* Seconds of a clock that only goes forward. */
double cli_seconds(void);

typedef struct cli_model {
    tf_model *model;
    tf_session *session; /* NULL until cli_session_open */
    tf_model_info info;
    const cli_settings *settings;
    cli_progress progress;
} cli_model;

/* A tf_log_fn: warnings go to standard error. */
void cli_log(void *user, tf_log_level level, const char *text);

/* "fp32" of TF_DTYPE_FP32. */
const char *cli_dtype_name(int32_t dtype);

/* Options for the library out of the settings. */
void cli_model_options(tf_model_options *o, const cli_settings *s);
void cli_session_options(tf_session_options *o, const cli_settings *s);

const char *cli_model_path(const cli_settings *s); /* or a usage error */
void cli_model_open(cli_model *m, const cli_settings *s);
void cli_session_open(cli_model *m);
void cli_model_close(cli_model *m);

/* The next part of `texts` as an input: *first and *count walk over it. Start with both 0; false when all is done. */
bool cli_batch_next(cli_model *m, const cli_texts *texts, int64_t *first, int64_t *count, tf_input *in);

/* cli_check for the call on a batch: clears the bar, says which texts the message is about. */
void cli_batch_check(cli_model *m, const cli_texts *texts, int64_t first, int64_t count, tf_status status);

/* -------------------------------------------------------------- table ---- */

typedef struct cli_column {
    const char *title;
    int max_width; /* in terminal columns; longer cells end with "…"; 0: no limit */
    bool right;    /* aligned */
} cli_column;

typedef struct cli_table {
    const cli_column *columns;
    int column_count;
    char **cells;
    int64_t cell_count, capacity;
} cli_table;

void cli_table_open(cli_table *t, const cli_column *columns, int column_count);
void cli_table_cell(cli_table *t, const char *format, ...) __attribute__((format(printf, 2, 3)));
void cli_table_text(cli_table *t, const char *text, int64_t size); /* any bytes; a negative size means a NUL ends it */
/* A cell that shows text[begin...end) in brackets with what stands around it; the range lies inside the text. */
void cli_table_context(cli_table *t, tf_text text, int64_t begin, int64_t end);
void cli_table_print(cli_table *t); /* and forget the rows */
void cli_table_close(cli_table *t);

/* Print a heading over a table: any text, made safe for a terminal, on one line of at most 100 columns. */
void cli_heading(const char *label, tf_text text);

/* A text as it may go to a terminal: no control characters, valid UTF-8. free() it. */
char *cli_printable(const char *text, int64_t size);

/* --------------------------------------------------------------- JSON ---- */

/* JSON to standard output. Commas come by themselves; `key` is NULL inside arrays. The outermost end adds a newline. */
void cli_json_begin(const char *key, char bracket);                  /* '{' or '[' */
void cli_json_end(char bracket);                                     /* '}' or ']' */
void cli_json_text(const char *key, const char *text, int64_t size); /* NULL text gives null */
void cli_json_integer(const char *key, int64_t value);
void cli_json_number(const char *key, double value); /* enough digits for a float */
void cli_json_range(const char *key, int64_t begin, int64_t end);

/* {"index": ..., "text": ..., "pair": ...: the opening of every line that is about a text. */
void cli_json_begin_text(const cli_texts *texts, int64_t index);

/* ----------------------------------------------------------- commands ---- */

void cli_info(const cli_settings *s);
void cli_plan(const cli_settings *s);
void cli_graph(const cli_settings *s);
void cli_tokenize(const cli_settings *s);
void cli_embed(const cli_settings *s);
void cli_similar(const cli_settings *s);
void cli_classify(const cli_settings *s);
void cli_ner(const cli_settings *s);
void cli_answer(const cli_settings *s);
void cli_fill_mask(const cli_settings *s);
void cli_generate(const cli_settings *s);
void cli_bench(const cli_settings *s);

#endif
