/* stream MODEL PROMPT [NEW_TOKENS]: print a text as it grows. Ctrl-C ends the request, not the program: what was written stays, memory is
 * given back, and the exit status is the 130 that a shell expects. A second Ctrl-C ends the program at once. */
#define _POSIX_C_SOURCE 200809L
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <tfinfer/generate.h>

enum { LOOK_MS = 100, NEW_TOKENS = 100 };

/* All that the handler does. The library's own threads block all signals, so it always runs on one of the program's. */
static volatile sig_atomic_t interrupted;

static void interrupt(int signal)
{
    (void)signal;
    interrupted = 1;
}

static void check(tf_status status)
{
    if (status >= 0) return;
    fprintf(stderr, "%s\n%s\n", tf_status_string(status), tf_last_error());
    exit(1);
}

static double seconds_now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* Print tokens until the request has ended. A timeout loses nothing: it is there to look at the flag also while no token comes. */
static tf_status follow(tf_generate *request)
{
    tf_generated_token token;
    tf_status status;

    tf_generated_token_init(&token);
    while ((status = tf_generate_next(request, LOOK_MS, &token)) == TF_STATUS_OK || status == TF_STATUS_TIMEOUT) {
        if (status == TF_STATUS_OK) fwrite(token.text, 1, (size_t)token.text_bytes, stdout);
        if (fflush(stdout)) { /* the reader has gone: nobody wants the rest */
            perror("standard output");
            exit(1);
        }
        if (interrupted) tf_generate_cancel(request);
    }
    putchar('\n');
    return status;
}

int main(int argc, char **argv)
{
    struct sigaction action;
    tf_generate_options options;
    tf_generate *request;
    tf_generated result;
    tf_session *session;
    tf_model *model;
    tf_input in;

    if (argc < 3 || argc > 4) return fprintf(stderr, "usage: stream MODEL PROMPT [NEW_TOKENS]\n"), 2;
    const tf_text prompt = tf_text_of(argv[2]);
    check(tf_model_open(argv[1], NULL, &model));
    check(tf_session_open(model, NULL, &session));
    tf_input_init(&in);
    in.texts = &prompt;
    in.count = 1;
    tf_generate_options_init(&options);
    options.max_new_tokens = argc == 4 ? atoi(argv[3]) : NEW_TOKENS;
    check(tf_generate_open(session, &in, &options, &request));

    memset(&action, 0, sizeof action);
    action.sa_handler = interrupt;
    action.sa_flags = (int)SA_RESETHAND;
    sigaction(SIGINT, &action, NULL);

    fputs(argv[2], stdout);
    const double begin = seconds_now();
    const tf_status status = follow(request);
    const double seconds = seconds_now() - begin;
    if (status != TF_STATUS_END && status != TF_STATUS_CANCELLED) check(status);
    tf_generated_init(&result);
    check(tf_generate_result(request, 0, &result)); /* also of a request that was cancelled */
    fprintf(stderr, "%ld tokens in %.2f s, %.0f a second%s\n", (long)result.count, seconds, (double)result.count / seconds,
            result.finish == TF_FINISH_CANCELLED ? ", cancelled" : "");
    tf_generate_close(request);
    tf_session_close(session);
    tf_model_close(model);
    return interrupted ? 130 : 0;
}
