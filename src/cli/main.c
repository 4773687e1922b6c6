/* main.c: the tfinfer program's table of commands, its help, and the dispatch. */
#define _XOPEN_SOURCE 700
#include "cli.h"

#include <errno.h>
#include <locale.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MODEL_OPTIONS "model device library-folder gemm-file gemm-timing dtype threads mecab-dictionary json quiet"
#define TASK_OPTIONS MODEL_OPTIONS " file max-step-tokens replace-invalid"

static const cli_command commands[] = {
    {"info", "what a model is and can do", "DIR", MODEL_OPTIONS,
     "Opens the model and prints its family, sizes, labels, prompts and tokenizer.\n\n  tfinfer info all-MiniLM-L6-v2\n",
     cli_info},
    {"plan", "the memory a model takes, from its files' headers alone", "DIR", MODEL_OPTIONS " max-step-tokens",
     "No weight is read. The total is what the model and one session of it take.\n\n"
     "  tfinfer plan --dtype bf16 all-MiniLM-L6-v2\n",
     cli_plan},
    {"graph", "the operations a model runs", "DIR", MODEL_OPTIONS " dot",
     "One line an operation, or Graphviz source:\n\n  tfinfer graph --dot all-MiniLM-L6-v2 | dot -Tsvg > graph.svg\n",
     cli_graph},
    {"tokenize", "text to token ids and back", "DIR [TEXT...]",
     "model mecab-dictionary json quiet file pair no-special truncation max-length stride replace-invalid decode skip-special",
     "Needs the tokenizer's files alone; DIR may be a tokenizer.json or vocab.txt too. With --stride, what\n"
     "truncation cuts away comes as further windows. With --decode the texts are token ids.\n\n"
     "  tfinfer tokenize all-MiniLM-L6-v2 'Hello, wordpiece!'\n"
     "  tfinfer tokenize --decode all-MiniLM-L6-v2 101 7592 102\n",
     cli_tokenize},
    {"embed", "one vector a text", "DIR [TEXT...]", TASK_OPTIONS " normalize max-tokens prompt prompt-name",
     "Computes what sentence-transformers computes from the same directory. Long texts are truncated. A table\n"
     "shows the first values; --json gives them all.\n\n  tfinfer embed --json all-MiniLM-L6-v2 --file lines.txt > "
     "vectors.jsonl\n",
     cli_embed},
    {"similar", "rank the lines of a file by their likeness to a query", "DIR QUERY...",
     TASK_OPTIONS " top-k max-tokens prompt-name query-prompt-name",
     "The lines come from --file or standard input; blank ones are passed over. The score is the cosine of the\n"
     "two embeddings. --top-k is 5 unless given.\n\n  tfinfer similar all-MiniLM-L6-v2 'a stormy night at sea' --file "
     "book.txt\n",
     cli_similar},
    {"classify", "score texts, or pairs of texts, against the model's labels", "DIR [TEXT...]",
     TASK_OPTIONS " pair top-k activation truncate",
     "For sequence classification, regression, reranking (--pair) and next sentence (--pair). Labels come best\n"
     "first, all of them unless --top-k says how many.\n\n"
     "  tfinfer classify sentiment-model 'What a lovely day.'\n"
     "  tfinfer classify --pair reranker --file question-tab-passage.tsv\n",
     cli_classify},
    {"ner", "find names and other entities", "DIR [TEXT...]", TASK_OPTIONS " aggregation stride truncate keep-all",
     "--aggregation means what it means in transformers' token-classification pipeline. With --stride a text\n"
     "longer than the model takes is read in windows.\n\n  tfinfer ner ner-model 'Ada Lovelace met Charles Babbage in "
     "London.'\n",
     cli_ner},
    {"answer", "answer questions from a text", "DIR [QUESTION...]",
     TASK_OPTIONS " question context top-k max-tokens max-answer-tokens stride allow-none",
     "The answer is a piece of the context, which is --context, or else all of --file or of standard input.\n\n"
     "  tfinfer answer qa-model --question 'Who wrote the notes?' --context 'Ada Lovelace wrote the notes.'\n"
     "  tfinfer answer qa-model 'Who?' 'When?' --file article.txt\n",
     cli_answer},
    {"fill-mask", "candidates for the masked words of a text", "DIR [TEXT...]", TASK_OPTIONS " top-k targets",
     "Write the model's mask token ('tfinfer info' shows it) where a word is missing.\n\n"
     "  tfinfer fill-mask bert-base-uncased 'Paris is the [MASK] of France.'\n",
     cli_fill_mask},
    {"generate", "continue a text, or transform it", "DIR [PROMPT...]",
     TASK_OPTIONS " kv-tokens ids max-new-tokens max-length min-new-tokens min-length max-time stop eos n beams early-stopping "
                  "length-penalty sample seed temperature top-k top-p min-p top-h typical-p epsilon-cutoff eta-cutoff "
                  "repetition-penalty presence-penalty frequency-penalty no-repeat-ngram encoder-repetition-penalty "
                  "encoder-no-repeat-ngram bad-words suppress forced-bos decoder-ids decay-start decay-factor renormalize "
                  "logprobs prompt-logprobs keep-special",
     "GPT-2 continues the prompt, T5 reads it and writes an answer. A single prompt's text appears as it grows;\n"
     "several prompts run together and are printed in their order. What is not given comes from the\n"
     "checkpoint's generation_config.json.\n\n"
     "  tfinfer generate gpt2 'Once upon a time' --sample --top-p 0.9 --seed 7\n"
     "  tfinfer generate t5-small --file lines.txt --beams 4 --json > results.jsonl\n",
     cli_generate},
    {"bench", "measure speed on random token ids", "DIR", MODEL_OPTIONS " max-step-tokens batch length lengths runs warm-up",
     "Times whole calls of the encoder and prints median and least time. Sequences repeat --lengths in turn;\n"
     "without --batch there is one sequence a length.\n\n  tfinfer bench --threads 2 --lengths 16,64,512 all-MiniLM-L6-v2\n",
     cli_bench},
};

enum { COMMAND_COUNT = sizeof commands / sizeof commands[0] };

static const char exit_codes[] =
    "Exit codes: 0 success; 1 the library refused the model or the input; 2 the command line is wrong;\n"
    "3 an input or output file could not be read or written.\n";

static const cli_command *command_find(const char *name)
{
    for (int i = 0; i < COMMAND_COUNT; i++)
        if (!strcmp(commands[i].name, name)) return &commands[i];
    fprintf(stderr, "tfinfer: no command '%s'; 'tfinfer help' lists them\n", name);
    exit(CLI_USAGE);
}

static void help_all(FILE *out)
{
    fputs("Usage: tfinfer COMMAND DIR [TEXT...] [OPTIONS]\n"
          "       tfinfer help [COMMAND] | --help | --version\n\n"
          "Runs BERT-, GPT-2- and T5-like models straight from a Hugging Face directory DIR.\n\n",
          out);
    for (int i = 0; i < COMMAND_COUNT; i++) fprintf(out, "  %-10s  %s\n", commands[i].name, commands[i].summary);
    fprintf(out, "\nTexts are arguments, or the lines of --file FILE, or of standard input. --json prints JSON lines.\n%s",
            exit_codes);
}

static void help_command(const cli_command *command)
{
    printf("tfinfer %s: %s\n\nUsage: tfinfer %s %s [OPTIONS]\n\n%s\nOptions:\n", command->name, command->summary, command->name,
           command->arguments, command->details);
    cli_options_help(command);
    printf("\n%s", exit_codes);
}

static void run(int argc, char **argv)
{
    const char *const name = argc > 1 ? argv[1] : "";
    const cli_command *command;
    cli_settings settings;

    if (!*name) {
        help_all(stderr);
        exit(CLI_USAGE);
    }
    if (!strcmp(name, "--version")) {
        printf("tfinfer %s\n", tf_version());
    } else if (!strcmp(name, "help") || !strcmp(name, "--help") || !strcmp(name, "-h")) {
        if (argc > 2) help_command(command_find(argv[2]));
        else help_all(stdout);
    } else {
        command = command_find(name);
        cli_options_read(&settings, command, argc, argv);
        if (cli_on(settings.help)) help_command(command);
        else command->run(&settings);
        free(settings.arguments);
        free(settings.stop.items);
        free(settings.bad_words.items);
    }
}

int main(int argc, char **argv)
{
    /* Widths of characters need a UTF-8 locale; numbers keep their point because only LC_CTYPE is set. */
    if (!setlocale(LC_CTYPE, "") || MB_CUR_MAX == 1) setlocale(LC_CTYPE, "C.UTF-8");
    signal(SIGPIPE, SIG_DFL); /* 'tfinfer ... | head' ends without a word, whatever the parent had set */
    run(argc, argv);
    if (!fflush(stdout) && !ferror(stdout)) return CLI_OK;
    fprintf(stderr, "tfinfer: cannot write standard output: %s\n", strerror(errno));
    return CLI_FILE;
}
