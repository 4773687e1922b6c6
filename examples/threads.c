/* threads MODEL THREADS TEXT...: many threads on one model. Each asks for every TEXT in turn, as the clients of a server do; printed are the
 * answers, and how many came in a second from 1, 2, 4, ... THREADS threads.
 *
 * All threads share one session: it has room for them all, and calls that meet in it share passes over the weights, which the last column
 * shows. One session a thread would take the working memory as often and share nothing. */
#define _POSIX_C_SOURCE 200809L
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <tfinfer/generate.h>

enum { THREADS_MAX = 256, ROUNDS = 4, TEXT_BYTES = 256 };

/* What the threads share; none of them writes to it. */
typedef struct job {
    tf_session *session;
    char **texts;
    int count;
    char (*answers)[TEXT_BYTES]; /* [count] what one thread alone was told; all others must be told the same */
} job;

static void check(tf_status status)
{
    if (status >= 0) return;
    fprintf(stderr, "%s\n%s\n", tf_status_string(status), tf_last_error());
    exit(1);
}

/* A request belongs to the thread that opened it; BUSY says that others hold the session's room just now. */
static void ask(tf_session *session, const char *source, char *answer)
{
    const struct timespec pause = {0, 1000000};
    const tf_text text = tf_text_of(source);
    tf_generate_options options;
    tf_generate *request;
    tf_generated result;
    tf_status status;
    tf_input in;

    tf_input_init(&in);
    in.texts = &text;
    in.count = 1;
    tf_generate_options_init(&options);
    options.do_sample = 0;
    while ((status = tf_generate_open(session, &in, &options, &request)) == TF_STATUS_BUSY) nanosleep(&pause, NULL);
    check(status);
    check(tf_generate_wait(request, -1));
    tf_generated_init(&result);
    check(tf_generate_result(request, 0, &result));
    snprintf(answer, TEXT_BYTES, "%s", result.text);
    tf_generate_close(request);
}

static void *client(void *user)
{
    const job *j = user;
    char answer[TEXT_BYTES];

    for (int i = 0; i < ROUNDS * j->count; i++) {
        ask(j->session, j->texts[i % j->count], answer);
        if (strcmp(answer, j->answers[i % j->count])) {
            fprintf(stderr, "%s: \"%s\" alone, \"%s\" among others\n", j->texts[i % j->count], j->answers[i % j->count],
                    answer);
            exit(1);
        }
    }
    return NULL;
}

static double seconds_now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void measure(job *j, int threads)
{
    pthread_t ids[THREADS_MAX];
    tf_session_stats before, after;

    tf_session_stats_init(&before);
    tf_session_stats_init(&after);
    check(tf_session_get_stats(j->session, &before));
    const double begin = seconds_now();
    for (int i = 0; i < threads; i++) {
        if (pthread_create(&ids[i], NULL, client, j)) {
            fprintf(stderr, "thread %d cannot be started\n", i);
            exit(1);
        }
    }
    for (int i = 0; i < threads; i++) pthread_join(ids[i], NULL);
    const double seconds = seconds_now() - begin;
    check(tf_session_get_stats(j->session, &after));
    const double answers = (double)threads * ROUNDS * j->count;
    printf("%7d %8.0f %9.0f %18.1f\n", threads, answers, answers / seconds, (double)(after.steps - before.steps) / answers);
}

int main(int argc, char **argv)
{
    tf_model *model;
    job j;

    const int most = argc > 3 ? atoi(argv[2]) : 0;
    if (most < 1 || most > THREADS_MAX)
        return fprintf(stderr, "usage: threads MODEL THREADS TEXT...   (1 to %d threads)\n", THREADS_MAX), 2;
    check(tf_model_open(argv[1], NULL, &model));
    check(tf_session_open(model, NULL, &j.session));
    j.texts = argv + 3;
    j.count = argc - 3;
    j.answers = calloc((size_t)j.count, sizeof *j.answers);
    if (!j.answers) check(TF_STATUS_NOMEM);
    for (int i = 0; i < j.count; i++) {
        ask(j.session, j.texts[i], j.answers[i]);
        printf("%s: %s\n", j.texts[i], j.answers[i]);
    }
    printf("threads  answers  a second  passes an answer\n");
    for (int n = 1; n < most; n *= 2) measure(&j, n);
    measure(&j, most);
    free(j.answers);
    tf_session_close(j.session);
    tf_model_close(model);
    return 0;
}
