/* cli_options.c: the table of all options and the parser that every command uses. */
#include "cli.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef enum cli_kind { CLI_FLAG, CLI_TEXT, CLI_WORDS, CLI_NUMBER, CLI_REAL, CLI_CHOICE } cli_kind;

typedef struct cli_option {
    const char *name;
    cli_kind kind;
    size_t offset; /* of its field in cli_settings */
    const char *argument;
    const char *help;
    int32_t min, max;    /* of a number */
    const char *choices; /* of a choice, separated by '|'; the value is the position */
} cli_option;

#define FIELD(name) offsetof(cli_settings, name)

static const cli_option options[] = {
    {"model", CLI_TEXT, FIELD(model), "DIR", "Hugging Face directory; without it the first plain argument"},
    {"file", CLI_TEXT, FIELD(file), "FILE", "read FILE, a text a line (\"-\": standard input)"},
    {"pair", CLI_FLAG, FIELD(pair), NULL, "texts come in pairs: two arguments, or one line with a tab between"},
    {"question", CLI_TEXT, FIELD(question), "TEXT", "a question; plain arguments are questions too"},
    {"context", CLI_TEXT, FIELD(context), "TEXT", "where to look; without it all of --file or of standard input"},
    {"device", CLI_TEXT, FIELD(device), "NAME", "cpu, cuda, cuda:1 and so on; auto: a GPU if there is one (auto)"},
    {"library-folder", CLI_TEXT, FIELD(library_folder), "DIR", "where libcublasLt lies, if the system does not find it"},
    {"mecab-dictionary", CLI_TEXT, FIELD(mecab_dictionary), "DIR", "of the dictionary that a Japanese BERT splits words with"},
    {"gemm-file", CLI_TEXT, FIELD(gemm_file), "FILE", "keeps how a GPU computes matrix products best; made at first use"},
    {"gemm-timing", CLI_CHOICE, FIELD(gemm_timing), NULL, "try several ways to compute a product on a GPU (yes)", 0, 0, "no|yes"},
    {"dtype", CLI_CHOICE, FIELD(dtype), NULL, "number format to compute in", 0, 0, "auto|fp32|tf32|bf16|fp16"},
    {"threads", CLI_NUMBER, FIELD(threads), "N", "threads that compute (all cores)", 1, 1024},
    {"max-step-tokens", CLI_NUMBER, FIELD(max_step_tokens), "N", "tokens computed at once (2048)", 1, 1048576},
    {"dot", CLI_FLAG, FIELD(dot), NULL, "print Graphviz source"},
    {"decode", CLI_FLAG, FIELD(decode), NULL, "the other way: token ids to text"},
    {"skip-special", CLI_FLAG, FIELD(skip_special), NULL, "leave special tokens out of decoded text"},
    {"no-special", CLI_FLAG, FIELD(no_special), NULL, "add no special tokens"},
    {"truncation", CLI_CHOICE, FIELD(truncation), NULL, "which text loses tokens beyond --max-length", 0, 0,
     "none|longest_first|only_first|only_second"},
    {"max-length", CLI_NUMBER, FIELD(max_length), "N", "tokens a sequence may have, with the special ones", 1, INT32_MAX},
    {"normalize", CLI_CHOICE, FIELD(normalize), NULL, "scale vectors to length 1 (what the model says)", 0, 0, "no|yes"},
    {"prompt", CLI_TEXT, FIELD(prompt), "TEXT", "text put before each text"},
    {"prompt-name", CLI_TEXT, FIELD(prompt_name), "NAME", "one of the model's own prompts, put before each text"},
    {"query-prompt-name", CLI_TEXT, FIELD(query_prompt_name), "NAME", "one of the model's prompts, put before each query"},
    {"aggregation", CLI_CHOICE, FIELD(aggregation), NULL, "how tokens become entities (simple)", 0, 0,
     "none|simple|first|average|max"},
    {"activation", CLI_CHOICE, FIELD(activation), NULL, "from logits to scores (what the model says)", 0, 0,
     "none|sigmoid|softmax"},
    {"max-tokens", CLI_NUMBER, FIELD(max_tokens), "N", "tokens of a text (embed) or window (answer)", 1, INT32_MAX},
    {"max-answer-tokens", CLI_NUMBER, FIELD(max_answer_tokens), "N", "tokens an answer may have (15)", 1, INT32_MAX},
    {"stride", CLI_NUMBER, FIELD(stride), "N", "tokens that neighbouring windows of a long text share", 0, INT32_MAX},
    {"truncate", CLI_FLAG, FIELD(truncate), NULL, "cut texts the model cannot hold, instead of refusing them"},
    {"keep-all", CLI_FLAG, FIELD(keep_all), NULL, "print tokens without an entity (label O) too"},
    {"allow-none", CLI_FLAG, FIELD(allow_none), NULL, "\"no answer\" may be an answer"},
    {"targets", CLI_TEXT, FIELD(targets), "A,B,...", "only these tokens of the vocabulary compete"},
    {"top-k", CLI_NUMBER, FIELD(top_k), "N", "how many results; of generate, candidates to draw from, 0: all", 0, INT32_MAX},
    {"kv-tokens", CLI_NUMBER, FIELD(kv_tokens), "N", "tokens that all running sequences may have (4096)", 1, INT32_MAX},
    {"max-new-tokens", CLI_NUMBER, FIELD(max_new_tokens), "N", "tokens to generate at most (20)", 1, INT32_MAX},
    {"min-new-tokens", CLI_NUMBER, FIELD(min_new_tokens), "N", "tokens to generate at least", 0, INT32_MAX},
    {"min-length", CLI_NUMBER, FIELD(min_length), "N", "tokens a sequence has at least, with the prompt", 0, INT32_MAX},
    {"max-time", CLI_REAL, FIELD(max_time), "SECONDS", "stop after this time"},
    {"stop", CLI_WORDS, FIELD(stop), "TEXT", "stop when this was generated; may be given more than once"},
    {"eos", CLI_TEXT, FIELD(eos), "ID,...", "tokens that end a sequence (the checkpoint's)"},
    {"n", CLI_NUMBER, FIELD(sequences), "N", "sequences a prompt (1)", 1, INT32_MAX},
    {"beams", CLI_NUMBER, FIELD(beams), "N", "beam search with N beams (1: none)", 1, INT32_MAX},
    {"early-stopping", CLI_CHOICE, FIELD(early_stopping), NULL, "when beam search ends (off)", 0, 0, "off|on|never"},
    {"length-penalty", CLI_REAL, FIELD(length_penalty), "X", "beams: above 0 favours long sequences (1)"},
    {"sample", CLI_FLAG, FIELD(sample), NULL, "draw tokens at random, not the likeliest"},
    {"seed", CLI_NUMBER, FIELD(seed), "N", "of the random numbers (0)", 0, INT32_MAX},
    {"temperature", CLI_REAL, FIELD(temperature), "X", "below 1 sharpens, above 1 flattens (1)"},
    {"top-p", CLI_REAL, FIELD(top_p), "X", "draw from the likeliest that have this probability together (1)"},
    {"min-p", CLI_REAL, FIELD(min_p), "X", "draw from those as likely as this part of the likeliest"},
    {"top-h", CLI_REAL, FIELD(top_h), "X", "draw from those that keep this part of the entropy"},
    {"typical-p", CLI_REAL, FIELD(typical_p), "X", "draw from the most typical that have this probability together (1)"},
    {"epsilon-cutoff", CLI_REAL, FIELD(epsilon_cutoff), "X", "draw from those as likely as this (0)"},
    {"eta-cutoff", CLI_REAL, FIELD(eta_cutoff), "X", "the same, less strict where the entropy is high (0)"},
    {"repetition-penalty", CLI_REAL, FIELD(repetition_penalty), "X", "above 1 makes tokens of the text less likely (1)"},
    {"presence-penalty", CLI_REAL, FIELD(presence_penalty), "X", "taken from the logit of tokens generated before (0)"},
    {"frequency-penalty", CLI_REAL, FIELD(frequency_penalty), "X", "the same times how often (0)"},
    {"no-repeat-ngram", CLI_NUMBER, FIELD(no_repeat_ngram), "N", "no N tokens in a row twice (0: off)", 0, INT32_MAX},
    {"encoder-repetition-penalty", CLI_REAL, FIELD(encoder_repetition_penalty), "X",
     "above 1 makes tokens of the source more likely (1)"},
    {"encoder-no-repeat-ngram", CLI_NUMBER, FIELD(encoder_no_repeat_ngram), "N", "no N tokens in a row of the source (0: off)", 0,
     INT32_MAX},
    {"bad-words", CLI_WORDS, FIELD(bad_words), "ID,...", "tokens in a row never to generate; may be given more than once"},
    {"suppress", CLI_TEXT, FIELD(suppress), "ID,...", "tokens never to generate"},
    {"forced-bos", CLI_NUMBER, FIELD(forced_bos), "ID", "the first token to generate, with an encoder", 0, INT32_MAX},
    {"decoder-ids", CLI_TEXT, FIELD(decoder_ids), "ID,...", "tokens the decoder begins with, with an encoder"},
    {"decay-start", CLI_NUMBER, FIELD(decay_start), "N", "new tokens after which the end grows likelier", 0, INT32_MAX},
    {"decay-factor", CLI_REAL, FIELD(decay_factor), "X", "how fast; with --decay-start"},
    {"renormalize", CLI_FLAG, FIELD(renormalize), NULL, "normalize log-probabilities after all changes"},
    {"logprobs", CLI_FLAG, FIELD(logprobs), NULL, "print the model's log-probability of each new token"},
    {"prompt-logprobs", CLI_FLAG, FIELD(prompt_logprobs), NULL, "print those of the prompt's tokens (with --json)"},
    {"ids", CLI_FLAG, FIELD(ids), NULL, "prompts are token ids, and ids are printed"},
    {"keep-special", CLI_FLAG, FIELD(keep_special), NULL, "print special tokens too"},
    {"batch", CLI_NUMBER, FIELD(batch), "N", "sequences a call (8)", 1, 1048576},
    {"length", CLI_NUMBER, FIELD(length), "N", "tokens a sequence (128)", 1, 1048576},
    {"lengths", CLI_TEXT, FIELD(lengths), "A,B,...", "tokens of the first, second, ... sequence, in place of --length"},
    {"runs", CLI_NUMBER, FIELD(runs), "N", "calls that are timed (10)", 1, 1000000},
    {"warm-up", CLI_NUMBER, FIELD(warm_up), "N", "calls before these (2)", 0, 1000000},
    {"replace-invalid", CLI_FLAG, FIELD(replace_invalid), NULL, "read bytes that are not UTF-8 as U+FFFD"},
    {"json", CLI_FLAG, FIELD(json), NULL, "print JSON, one line a result"},
    {"quiet", CLI_FLAG, FIELD(quiet), NULL, "no progress bar, no warnings"},
    {"help", CLI_FLAG, FIELD(help), NULL, "print this page"},
};

enum { OPTION_COUNT = sizeof options / sizeof options[0] };

/* Whether `word` of `size` bytes is in the list `words`, separated by `separator`; its position, or -1. */
static int word_find(const char *words, char separator, const char *word, size_t size)
{
    for (int at = 0;; at++) {
        const char *end = strchr(words, separator);
        const size_t length = end ? (size_t)(end - words) : strlen(words);

        if (length == size && !memcmp(words, word, size)) return at;
        if (!end) return -1;
        words = end + 1;
    }
}

static bool command_takes(const cli_command *command, const cli_option *option)
{
    return !strcmp(option->name, "help") || word_find(command->options, ' ', option->name, strlen(option->name)) >= 0;
}

static const cli_option *option_find(const cli_settings *s, const cli_command *command, const char *name, size_t size)
{
    for (int i = 0; i < OPTION_COUNT; i++)
        if (strlen(options[i].name) == size && !memcmp(options[i].name, name, size) && command_takes(command, &options[i]))
            return &options[i];
    cli_fail(s, CLI_USAGE, "no option --%.*s; try 'tfinfer help %s'", (int)size, name, command->name);
}

static int32_t number_read(const cli_settings *s, const cli_option *option, const char *value)
{
    char *end;
    long number;

    errno = 0;
    number = strtol(value, &end, 10);
    if (end == value || *end || errno || number < option->min || number > option->max)
        cli_fail(s, CLI_USAGE, "--%s needs a whole number in [%d, %d], not '%s'", option->name, (int)option->min,
                 (int)option->max, value);
    return (int32_t)number;
}

static float real_read(const cli_settings *s, const cli_option *option, const char *value)
{
    char *end;
    const float number = strtof(value, &end);

    if (end == value || *end || number != number) cli_fail(s, CLI_USAGE, "--%s needs a number, not '%s'", option->name, value);
    return number;
}

static void word_store(const cli_settings *s, cli_words *words, const char *value)
{
    char **const items = realloc(words->items, ((size_t)words->count + 1) * sizeof *items);

    if (!items) cli_fail(s, CLI_REFUSED, "out of memory");
    words->items = items;
    memcpy(&words->items[words->count++], &value, sizeof value);
}

static void option_store(cli_settings *s, const cli_option *option, const char *value)
{
    void *field = (char *)s + option->offset;
    int32_t number = 1;

    if (option->kind == CLI_TEXT) {
        memcpy(field, &value, sizeof value);
        return;
    }
    if (option->kind == CLI_WORDS) {
        word_store(s, field, value);
        return;
    }
    if (option->kind == CLI_REAL) {
        const float real = real_read(s, option, value);
        memcpy(field, &real, sizeof real);
        return;
    }
    if (option->kind == CLI_NUMBER) number = number_read(s, option, value);
    if (option->kind == CLI_CHOICE && (number = word_find(option->choices, '|', value, strlen(value))) < 0)
        cli_fail(s, CLI_USAGE, "--%s is one of %s, not '%s'", option->name, option->choices, value);
    memcpy(field, &number, sizeof number);
}

static void settings_init(cli_settings *s, const cli_command *command)
{
    const int32_t unset = TF_UNSET;
    const float unset_real = tf_unset_float();

    memset(s, 0, sizeof *s);
    s->command = command->name;
    for (int i = 0; i < OPTION_COUNT; i++)
        if (options[i].kind == CLI_REAL) memcpy((char *)s + options[i].offset, &unset_real, sizeof unset_real);
        else if (options[i].kind != CLI_TEXT && options[i].kind != CLI_WORDS)
            memcpy((char *)s + options[i].offset, &unset, sizeof unset);
}

/* One option at argv[i]; returns the index of its last word. */
static int option_read(cli_settings *s, const cli_command *command, int argc, char **argv, int i)
{
    const char *const name = argv[i] + 2;
    const size_t size = strcspn(name, "=");
    const char *value = name[size] ? name + size + 1 : NULL;
    const cli_option *const option = option_find(s, command, name, size);

    if (option->kind == CLI_FLAG) {
        if (value) cli_fail(s, CLI_USAGE, "--%s takes no value", option->name);
    } else if (!value) {
        if (i + 1 >= argc) cli_fail(s, CLI_USAGE, "--%s needs a value", option->name);
        value = argv[++i];
    }
    option_store(s, option, value);
    return i;
}

void cli_options_read(cli_settings *s, const cli_command *command, int argc, char **argv)
{
    bool plain = false; /* after "--" */

    settings_init(s, command);
    s->arguments = cli_alloc(argc, sizeof *s->arguments);
    for (int i = 2; i < argc; i++) {
        if (plain || argv[i][0] != '-' || !argv[i][1]) s->arguments[s->argument_count++] = argv[i];
        else if (!strcmp(argv[i], "--")) plain = true;
        else if (!strcmp(argv[i], "-h")) s->help = 1;
        else if (argv[i][1] != '-')
            cli_fail(s, CLI_USAGE, "no option %s; a text that starts with '-' goes after '--'", argv[i]);
        else i = option_read(s, command, argc, argv, i);
    }
    if (!s->model && s->argument_count > 0) {
        s->model = s->arguments[0];
        s->argument_count--;
        memmove(s->arguments, s->arguments + 1, (size_t)s->argument_count * sizeof *s->arguments);
    }
}

void cli_no_arguments(const cli_settings *s)
{
    if (s->argument_count > 0) cli_fail(s, CLI_USAGE, "unexpected argument '%s'", s->arguments[0]);
}

bool cli_number_next(const char **list, int64_t *number)
{
    const char *const at = *list + strspn(*list, ", \t");
    char *end;

    *list = at;
    if (!*at) return false;
    errno = 0;
    *number = strtoll(at, &end, 10);
    *list = end == at || errno || (*end && !strchr(", \t", *end)) ? NULL : end;
    return *list != NULL;
}

void cli_options_help(const cli_command *command)
{
    for (int i = 0; i < OPTION_COUNT; i++) {
        const cli_option *const o = &options[i];
        char left[96];

        if (!command_takes(command, o)) continue;
        if (o->kind == CLI_FLAG) snprintf(left, sizeof left, "--%s", o->name);
        else snprintf(left, sizeof left, "--%s %s", o->name, o->choices ? o->choices : o->argument);
        if (strlen(left) > 25) printf("  %s\n%29s%s\n", left, "", o->help);
        else printf("  %-25s  %s\n", left, o->help);
    }
}
