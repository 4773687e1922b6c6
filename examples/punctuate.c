/* punctuate MODEL TEXT: put capitals and punctuation back into lower-case text, as examples/models/bert-punctuate learnt it. The
 * model labels each word with its case and the mark that follows it, such as "Capital," ("O": neither changes). */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <tfinfer/tfinfer.h>

enum { SHARED_TOKENS = 32 };

static void check(tf_status status)
{
    if (status >= 0) return;
    fprintf(stderr, "%s\n%s\n", tf_status_string(status), tf_last_error());
    exit(1);
}

/* The words [begin, end) of the text, each written as the label says. */
static void write_words(const char *text, int64_t begin, int64_t end, const char *label)
{
    const int upper = strncmp(label, "UPPER", 5) == 0, capital = strncmp(label, "Capital", 7) == 0;
    const char *mark = strpbrk(label, ",.?!:;");

    for (int64_t i = begin; i < end; i++) {
        const int starts = i == begin || isspace((unsigned char)text[i - 1]);
        putchar(upper || (capital && starts) ? toupper((unsigned char)text[i]) : text[i]);
        if (mark && (i + 1 == end || isspace((unsigned char)text[i + 1])) && !isspace((unsigned char)text[i])) putchar(*mark);
    }
}

int main(int argc, char **argv)
{
    tf_token_classify_options options;
    tf_session *session;
    tf_model *model;
    tf_result *found;
    tf_entity entity;
    tf_input in;
    int64_t at = 0;

    if (argc != 3) return fprintf(stderr, "usage: punctuate MODEL TEXT\n"), 2;
    const tf_text text = tf_text_of(argv[2]);
    check(tf_model_open(argv[1], NULL, &model));
    check(tf_session_open(model, NULL, &session));
    tf_input_init(&in);
    in.texts = &text;
    in.count = 1;
    tf_token_classify_options_init(&options);
    options.aggregation = TF_AGGREGATION_FIRST; /* the model was taught a label for the first piece of each word */
    options.stride = SHARED_TOKENS;             /* a text longer than the model takes is read in windows */
    check(tf_token_classify(session, &in, &options, &found));
    memset(&entity, 0, sizeof entity);
    entity.struct_size = sizeof entity;
    for (int64_t i = 0; i < tf_result_count(found, 0); i++) {
        check(tf_result_entity(found, 0, i, &entity));
        printf("%.*s", (int)(entity.byte_begin - at), argv[2] + at);
        write_words(argv[2], entity.byte_begin, entity.byte_end, entity.label);
        at = entity.byte_end;
    }
    printf("%s\n", argv[2] + at);
    tf_result_close(found);
    tf_session_close(session);
    tf_model_close(model);
    if (fflush(stdout)) return perror("standard output"), 1;
    return 0;
}
