/* ner_spans MODEL: what a token classification checkpoint finds in each line of standard input, and where. Prints a line an entity, its
 * fields behind tabs: number of the line, first byte and the one past the last, label, score, the piece of text.
 *
 * Lines are taken BATCH at a time, in one call: the library packs them behind one another, without padding. */
#define _POSIX_C_SOURCE 200809L
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <tfinfer/tfinfer.h>

enum { BATCH = 64, SHARED_TOKENS = 32 };

static void check(tf_status status)
{
    if (status >= 0) return;
    fprintf(stderr, "%s\n%s\n", tf_status_string(status), tf_last_error());
    exit(1);
}

/* Up to BATCH lines without their ends; the caller frees them. */
static int64_t read_lines(tf_text *lines)
{
    int64_t count = 0;

    while (count < BATCH) {
        char *line = NULL;
        size_t room = 0;
        const ssize_t size = getline(&line, &room, stdin);
        if (size < 0) {
            free(line);
            break;
        }
        lines[count].data = line;
        lines[count++].size = size - (line[size - 1] == '\n');
    }
    if (!feof(stdin) && count < BATCH) {
        perror("standard input");
        exit(1);
    }
    return count;
}

static void print_spans(const tf_result *found, int64_t input, tf_text line, long number)
{
    tf_entity e;

    e.struct_size = sizeof e;
    for (int64_t i = 0; i < tf_result_count(found, input); i++) {
        check(tf_result_entity(found, input, i, &e));
        printf("%ld\t%ld\t%ld\t%s\t%.4f\t", number, (long)e.byte_begin, (long)e.byte_end, e.label, (double)e.score);
        fwrite(line.data + e.byte_begin, 1, (size_t)(e.byte_end - e.byte_begin), stdout);
        putchar('\n');
    }
}

int main(int argc, char **argv)
{
    tf_token_classify_options options;
    tf_text lines[BATCH];
    tf_session *session;
    tf_model *model;
    tf_result *found;
    tf_input in;
    long number = 0;

    if (argc != 2) return fprintf(stderr, "usage: ner_spans MODEL < TEXT\n"), 2;
    check(tf_model_open(argv[1], NULL, &model));
    check(tf_session_open(model, NULL, &session));
    tf_input_init(&in);
    in.texts = lines;
    in.replace_invalid = 1; /* bytes that are not UTF-8 are read as U+FFFD; places still count the bytes that are there */
    tf_token_classify_options_init(&options);
    options.aggregation = TF_AGGREGATION_FIRST; /* a word is never cut: its first piece decides */
    options.stride = SHARED_TOKENS;             /* lines that are longer than the model takes are read in windows */
    while ((in.count = read_lines(lines)) > 0) {
        check(tf_token_classify(session, &in, &options, &found));
        for (int64_t i = 0; i < in.count; i++) {
            print_spans(found, i, lines[i], ++number);
            free((char *)lines[i].data);
        }
        tf_result_close(found);
    }
    tf_session_close(session);
    tf_model_close(model);
    if (fflush(stdout)) return perror("standard output"), 1;
    return 0;
}
