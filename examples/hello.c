/* hello MODEL PROMPT: continue a text with a model that generates, such as examples/models/gpt2-prose. The smallest whole program: open
 * a model, a session of it and a request, wait, print. hello.cpp is the same in C++. */
#include <stdio.h>
#include <stdlib.h>

#include <tfinfer/generate.h>

/* Every call returns a status, negative if it failed; tf_last_error() then has a sentence for a person. */
static void check(tf_status status)
{
    if (status >= 0) return;
    fprintf(stderr, "%s\n%s\n", tf_status_string(status), tf_last_error());
    exit(1);
}

int main(int argc, char **argv)
{
    tf_model *model;      /* the weights: any number of threads may share them */
    tf_session *session;  /* the working memory: requests of one session advance together */
    tf_generate *request; /* a prompt, and what comes out of it */
    tf_generate_options options;
    tf_generated result;
    tf_input in;

    if (argc != 3) return fprintf(stderr, "usage: hello MODEL PROMPT\n"), 2;
    const tf_text prompt = tf_text_of(argv[2]);
    check(tf_model_open(argv[1], NULL, &model));
    check(tf_session_open(model, NULL, &session));

    /* A struct's _init leaves every field unset: what is not set here comes from the checkpoint. */
    tf_input_init(&in);
    in.texts = &prompt;
    in.count = 1;
    tf_generate_options_init(&options);
    options.max_new_tokens = 40;
    options.seed = 3;
    check(tf_generate_open(session, &in, &options, &request));
    check(tf_generate_wait(request, -1));
    tf_generated_init(&result);
    check(tf_generate_result(request, 0, &result));
    printf("%s%s\n", argv[2], result.text);

    tf_generate_close(request);
    tf_session_close(session);
    tf_model_close(model);
    return 0;
}
