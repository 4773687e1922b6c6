/* host_hooks MODEL: the library in a host's hands. Its memory comes from the host's allocator, which counts and has a budget; what it has
 * to say goes to the host's log; the host watches it load and can say no. Runs three times: as it should be, with half the memory, and
 * stopped half-way; each time all memory comes back. */
#define _POSIX_C_SOURCE 200809L
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include <tfinfer/tfinfer.h>

typedef struct host {
    pthread_mutex_t lock; /* the allocator is called from any thread */
    size_t held, most, budget;
    int stop_percent; /* a load that has come this far is stopped */
    int percent;      /* how far it has come */
} host;

/* NULL is an answer like any other: the call that asked ends with TF_STATUS_NOMEM and takes nothing along. */
static void *take(void *user, size_t size, size_t align)
{
    host *h = user;
    void *memory = NULL;

    pthread_mutex_lock(&h->lock);
    if (size <= h->budget - h->held && !posix_memalign(&memory, align < sizeof memory ? sizeof memory : align, size)) {
        h->held += size;
        if (h->most < h->held) h->most = h->held;
    } else {
        memory = NULL;
    }
    pthread_mutex_unlock(&h->lock);
    return memory;
}

/* The size comes back, so that the host need not keep it. */
static void give_back(void *user, void *memory, size_t size)
{
    host *h = user;

    pthread_mutex_lock(&h->lock);
    h->held -= size;
    pthread_mutex_unlock(&h->lock);
    free(memory);
}

static void write_log(void *user, tf_log_level level, const char *text)
{
    static const char *const names[] = {"debug", "info", "warning"}; /* a later library may have more */

    (void)user;
    fprintf(stderr, "%s: %s\n", level <= TF_LOG_WARNING ? names[level] : "log", text);
}

static int32_t watch(void *user, int64_t done, int64_t total)
{
    host *h = user;

    h->percent = total ? (int)(100 * done / total) : 100;
    return h->percent >= h->stop_percent;
}

/* Open, embed one text, close. */
static tf_status run(host *h, const char *path)
{
    const tf_allocator allocator = {take, give_back, h};
    const tf_text text = tf_text_of("the lord said unto moses");
    tf_model_options options;
    tf_session *session = NULL;
    tf_model *model = NULL;
    tf_model_info info;
    tf_status status;
    float *vector = NULL;
    tf_input in;

    tf_model_options_init(&options);
    options.allocator = &allocator;
    options.log = write_log;
    options.progress = watch;
    options.progress_user = h;
    status = tf_model_open(path, &options, &model);
    if (status == TF_STATUS_OK) status = tf_session_open(model, NULL, &session);
    if (status == TF_STATUS_OK) {
        tf_model_info_init(&info);
        status = tf_model_get_info(model, &info);
    }
    if (status == TF_STATUS_OK) {
        tf_input_init(&in);
        in.texts = &text;
        in.count = 1;
        vector = malloc(sizeof *vector * (size_t)info.embedding_width);
        status = vector ? tf_embed(session, &in, NULL, vector, info.embedding_width) : TF_STATUS_NOMEM;
    }
    free(vector);
    tf_session_close(session);
    tf_model_close(model);
    return status;
}

/* Run within a budget and up to a point; say how it went. What is still held afterwards would be a leak. */
static tf_status try_run(const char *title, const char *path, size_t budget, int stop_percent, size_t *most)
{
    host h = {PTHREAD_MUTEX_INITIALIZER, 0, 0, budget, stop_percent, 0};
    const tf_status status = run(&h, path);

    printf("%-11s loaded %3d %%, at most %5.1f MB held, %zu bytes now\n", title, h.percent, (double)h.most / 1e6, h.held);
    printf("%-11s %s\n", "", tf_status_string(status));
    if (status < 0) printf("%-11s %s\n", "", tf_last_error());
    pthread_mutex_destroy(&h.lock);
    if (most) *most = h.most;
    return h.held ? TF_STATUS_INTERNAL : status;
}

int main(int argc, char **argv)
{
    const int never = 101;
    size_t most;

    if (argc != 2) return fprintf(stderr, "usage: host_hooks MODEL\n"), 2;
    if (try_run("whole", argv[1], SIZE_MAX, never, &most) != TF_STATUS_OK) return 1;
    if (try_run("half memory", argv[1], most / 2, never, NULL) != TF_STATUS_NOMEM) return 1;
    if (try_run("half-way", argv[1], SIZE_MAX, 50, NULL) != TF_STATUS_CANCELLED) return 1;
    return 0;
}
