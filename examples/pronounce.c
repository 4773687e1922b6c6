/* pronounce MODEL WORD...: print how English words are pronounced, as examples/models/t5-pronounce writes it, the three likeliest ways of
 * each. All words are requests of one session: they advance together, whichever of them is waited for. */
#include <stdio.h>
#include <stdlib.h>

#include <tfinfer/generate.h>

enum { WORDS_MAX = 64, WAYS = 3 };

static void check(tf_status status)
{
    if (status >= 0) return;
    fprintf(stderr, "%s\n%s\n", tf_status_string(status), tf_last_error());
    exit(1);
}

static tf_generate *ask(tf_session *session, const char *word)
{
    const tf_text text = tf_text_of(word);
    tf_generate_options options;
    tf_generate *request;
    tf_input in;

    tf_input_init(&in);
    in.texts = &text;
    in.count = 1;
    tf_generate_options_init(&options);
    options.num_beams = WAYS;
    options.num_return_sequences = WAYS;
    check(tf_generate_open(session, &in, &options, &request));
    return request;
}

int main(int argc, char **argv)
{
    tf_generate *requests[WORDS_MAX];
    tf_session *session;
    tf_model *model;
    tf_generated way;

    if (argc < 3 || argc > WORDS_MAX + 2) return fprintf(stderr, "usage: pronounce MODEL WORD...\n"), 2;
    check(tf_model_open(argv[1], NULL, &model));
    check(tf_session_open(model, NULL, &session));
    for (int i = 2; i < argc; i++) requests[i - 2] = ask(session, argv[i]);
    tf_generated_init(&way);
    for (int i = 2; i < argc; i++) {
        check(tf_generate_wait(requests[i - 2], -1));
        for (int k = 0; k < WAYS; k++) {
            check(tf_generate_result(requests[i - 2], k, &way));
            printf("%-16s %8.3f  %s\n", k ? "" : argv[i], (double)way.score, way.text);
        }
        tf_generate_close(requests[i - 2]);
    }
    tf_session_close(session);
    tf_model_close(model);
    return 0;
}
