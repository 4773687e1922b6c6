/* server MODEL [PORT [WORKERS [QUEUE]]]: a model behind HTTP, by libmicrohttpd, with a bound on all that clients could make grow.
 *
 *   POST /generate   a text; the answer is {"text": ..., "tokens": 7, "finish": "eos"}
 *   POST /entities   a text; {"entities": [{"label": ..., "score": ..., "begin": 19, "end": 24, "text": ...}, ...]}, places in bytes
 *   POST /embed      a text; {"embedding": [...]}
 *   GET /status      {"family": ..., "working": 1, "waiting": 0, "served": 12, "refused": 0}
 *
 * A path exists if the checkpoint has its task. An error is {"error": ...} with a status that says whose fault it is.
 *
 * One thread of libmicrohttpd's talks to all clients. A request that has come whole goes to a queue, and its connection sleeps until one of
 * WORKERS threads has the answer. The workers share one session, in which calls that meet share passes over the weights. A queue that is
 * full is said at once, by 503 with Retry-After, for an answer that comes too late is work for nobody. SIGTERM and SIGINT: no new request is
 * taken, those that were are answered, the program ends with status 0.
 *
 * It listens on 127.0.0.1 alone; port 0, the default, is any that is free. TLS, names and the world, clients too that send a byte now and
 * then to hold a connection, are the business of what stands before it. */
#define _POSIX_C_SOURCE 200809L
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <jansson.h>
#include <microhttpd.h>
#include <tfinfer/generate.h>

enum {
    BODY_BYTES = 1 << 16, /* of a text */
    CONNECTIONS = 256,    /* that are open at once; others wait in the system's backlog */
    IDLE_SECONDS = 10,    /* after which a client that neither sends nor reads is let go */
    DRAIN_SECONDS = 5,    /* the same while the server ends */
    RETRY_SECONDS = 1,    /* what a client that was refused is told to wait */
    TOKENS = 128,         /* that one request may generate */
    HELD_TOKENS = 1024,   /* room for a worker, source and all; only a longer source of a T5 takes what others may be refused for */
    WORKERS_MAX = 64,
    QUEUE_MAX = 128 /* and the workers leave connections free, on which others are refused and GET /status is answered */
};

typedef struct server server;
typedef struct request request;

/* A path, and what answers it: a JSON value in *answer. `needs` is of tf_model_info.tasks; 0: the path is a GET and not for the workers. */
typedef struct route {
    const char *path;
    int32_t needs;
    tf_status (*answer)(server *s, const tf_text *text, json_t **answer);
} route;

struct request {
    struct MHD_Connection *connection;
    const route *route;
    char *body;
    size_t size, capacity;
    unsigned status; /* of HTTP; 0 as long as there is no answer */
    json_t *answer;
    request *next; /* in the queue */
};

struct server {
    tf_session *session;
    tf_model_info info;
    int workers, queue;   /* most that may work and wait */
    pthread_mutex_t lock; /* of what follows */
    pthread_cond_t wake;  /* the queue or `ending` has changed */
    request *first, *last;
    int working, waiting, open; /* open: requests that are not over for their client */
    json_int_t served, refused;
    int ending;
};

static void check(tf_status status)
{
    if (status >= 0) return;
    fprintf(stderr, "%s\n%s\n", tf_status_string(status), tf_last_error());
    exit(1);
}

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

/* ---------------------------------------------------------------- answers ---- */

static void input_of(tf_input *in, const tf_text *text)
{
    tf_input_init(in);
    in->texts = text;
    in->count = 1;
}

static tf_status generate(server *s, const tf_text *text, json_t **answer)
{
    static const char *const finishes[] = {"none", "eos", "length", "stop", "time", "cancelled"}; /* a later library may have more */
    tf_generate_options options;
    tf_generated result;
    tf_generate *g;
    tf_input in;

    input_of(&in, text);
    tf_generate_options_init(&options);
    options.max_new_tokens = TOKENS;
    tf_status status = tf_generate_open(s->session, &in, &options, &g);
    if (status < 0) return status;
    tf_generated_init(&result);
    status = tf_generate_wait(g, -1);
    if (status == TF_STATUS_OK) status = tf_generate_result(g, 0, &result);
    if (status == TF_STATUS_OK) {
        const char *const finish = result.finish <= TF_FINISH_CANCELLED ? finishes[result.finish] : "other";
        *answer = json_pack("{s:s%, s:I, s:s}", "text", result.text, (size_t)result.text_bytes, "tokens",
                            (json_int_t)result.count, "finish", finish);
    }
    tf_generate_close(g);
    return status;
}

static tf_status entities(server *s, const tf_text *text, json_t **answer)
{
    tf_token_classify_options options;
    tf_result *found;
    tf_entity e;
    tf_input in;

    input_of(&in, text);
    tf_token_classify_options_init(&options);
    options.aggregation = TF_AGGREGATION_FIRST;
    options.stride = 32; /* a text longer than the model takes is read in windows */
    tf_status status = tf_token_classify(s->session, &in, &options, &found);
    if (status < 0) return status;
    json_t *list = json_array();
    e.struct_size = sizeof e;
    for (int64_t i = 0; status == TF_STATUS_OK && i < tf_result_count(found, 0); i++) {
        status = tf_result_entity(found, 0, i, &e);
        if (status == TF_STATUS_OK &&
            json_array_append_new(list, json_pack("{s:s, s:f, s:I, s:I, s:s%}", "label", e.label, "score", (double)e.score,
                                                  "begin", (json_int_t)e.byte_begin, "end", (json_int_t)e.byte_end, "text",
                                                  text->data + e.byte_begin, (size_t)(e.byte_end - e.byte_begin))))
            status = TF_STATUS_NOMEM;
    }
    tf_result_close(found);
    *answer = json_pack("{s:o}", "entities", list);
    return status;
}

static tf_status embed(server *s, const tf_text *text, json_t **answer)
{
    const int32_t width = s->info.embedding_width;
    float *vector = malloc(sizeof *vector * (size_t)width);
    json_t *list = json_array();
    tf_input in;

    input_of(&in, text);
    const tf_status status = vector ? tf_embed(s->session, &in, NULL, vector, width) : TF_STATUS_NOMEM;
    for (int32_t i = 0; status == TF_STATUS_OK && i < width; i++) json_array_append_new(list, json_real((double)vector[i]));
    *answer = json_pack("{s:o}", "embedding", list);
    free(vector);
    return status;
}

static tf_status tell_status(server *s, const tf_text *text, json_t **answer)
{
    (void)text;
    pthread_mutex_lock(&s->lock);
    *answer = json_pack("{s:s, s:i, s:i, s:I, s:I}", "family", s->info.family, "working", s->working, "waiting", s->waiting,
                        "served", s->served, "refused", s->refused);
    pthread_mutex_unlock(&s->lock);
    return TF_STATUS_OK;
}

static const route routes[] = {
    {"/generate", TF_TASK_GENERATE, generate},
    {"/entities", TF_TASK_TOKEN_CLASSIFY, entities},
    {"/embed", TF_TASK_EMBED, embed},
    {"/status", 0, tell_status},
};

/* Of HTTP, for a status of the library's: whose fault it is, and whether to come again. */
static unsigned http_status(tf_status status)
{
    switch (status) {
    case TF_STATUS_OK:
        return MHD_HTTP_OK;
    case TF_STATUS_INVALID:
        return MHD_HTTP_BAD_REQUEST;
    case TF_STATUS_BUSY:
    case TF_STATUS_NOMEM:
        return MHD_HTTP_SERVICE_UNAVAILABLE;
    default:
        return MHD_HTTP_INTERNAL_SERVER_ERROR;
    }
}

static void set_error(request *r, unsigned status, const char *text)
{
    json_decref(r->answer);
    r->answer = json_pack("{s:s}", "error", text);
    r->status = status;
}

static void answer(server *s, request *r)
{
    const tf_text text = {r->body, (int64_t)r->size};
    const tf_status status = r->route->answer(s, &text, &r->answer);

    r->status = http_status(status);
    if (status < 0) set_error(r, r->status, status == TF_STATUS_NOMEM ? "out of memory" : tf_last_error());
}

/* ---------------------------------------------------------------- workers ---- */

/* The next request, or NULL when the server ends and there is none. */
static request *take(server *s)
{
    pthread_mutex_lock(&s->lock);
    while (!s->first && !s->ending) pthread_cond_wait(&s->wake, &s->lock);
    request *r = s->first;
    if (r) {
        s->first = r->next;
        s->waiting--;
        s->working++;
    }
    pthread_mutex_unlock(&s->lock);
    return r;
}

static void *work(void *user)
{
    server *s = user;

    for (request *r = take(s); r; r = take(s)) {
        answer(s, r);
        pthread_mutex_lock(&s->lock);
        s->working--;
        s->served++;
        pthread_mutex_unlock(&s->lock);
        MHD_resume_connection(r->connection); /* r is libmicrohttpd's thread's again */
    }
    return NULL;
}

/* Give a request to the workers; its connection then sleeps. Returns 0 and refuses it if there is no room. */
static int enqueue(server *s, request *r)
{
    pthread_mutex_lock(&s->lock);
    const int ending = s->ending, taken = !ending && s->waiting < s->queue;
    if (taken) {
        MHD_suspend_connection(r->connection); /* before a worker can see it */
        if (s->first) s->last->next = r;
        else s->first = r;
        s->last = r;
        s->waiting++;
        pthread_cond_signal(&s->wake);
    } else {
        s->refused++;
    }
    pthread_mutex_unlock(&s->lock);
    if (!taken) set_error(r, MHD_HTTP_SERVICE_UNAVAILABLE, ending ? "the server ends" : "too many requests are waiting");
    return taken;
}

/* ------------------------------------------------------------------- HTTP ---- */

/* Send the answer; without memory for it an empty body. */
static enum MHD_Result reply(server *s, request *r)
{
    char retry[16];
    char *json = r->answer ? json_dumps(r->answer, JSON_COMPACT | JSON_REAL_PRECISION(9)) : NULL;
    const unsigned status = json || r->status != MHD_HTTP_OK ? r->status : MHD_HTTP_INTERNAL_SERVER_ERROR;
    struct MHD_Response *response = json ? MHD_create_response_from_buffer(strlen(json), json, MHD_RESPMEM_MUST_FREE)
                                         : MHD_create_response_from_buffer(0, "", MHD_RESPMEM_PERSISTENT);

    if (!response) {
        free(json);
        return MHD_NO; /* closes the connection */
    }
    MHD_add_response_header(response, "Content-Type", "application/json");
    if (status == MHD_HTTP_METHOD_NOT_ALLOWED) MHD_add_response_header(response, "Allow", r->route->needs ? "POST" : "GET");
    if (status == MHD_HTTP_SERVICE_UNAVAILABLE) {
        snprintf(retry, sizeof retry, "%d", RETRY_SECONDS);
        MHD_add_response_header(response, "Retry-After", retry);
    }
    pthread_mutex_lock(&s->lock);
    if (s->ending) MHD_add_response_header(response, "Connection", "close");
    pthread_mutex_unlock(&s->lock);
    const enum MHD_Result queued = MHD_queue_response(r->connection, status, response);
    MHD_destroy_response(response);
    return queued;
}

static const route *find_route(const server *s, const char *path)
{
    for (size_t i = 0; i < sizeof routes / sizeof *routes; i++) {
        if (!strcmp(path, routes[i].path) && (s->info.tasks & routes[i].needs) == routes[i].needs) return &routes[i];
    }
    return NULL;
}

/* What the headers tell: refuse it, or get ready for the body, whose length must be known beforehand. */
static void read_headers(server *s, request *r, const char *path, const char *method)
{
    const char *length = MHD_lookup_connection_value(r->connection, MHD_HEADER_KIND, "Content-Length");
    const unsigned long long size = length ? strtoull(length, NULL, 10) : 0;

    r->route = find_route(s, path);
    if (!r->route) {
        set_error(r, MHD_HTTP_NOT_FOUND, "no such path, or no task of this model");
    } else if (strcmp(method, r->route->needs ? "POST" : "GET")) {
        set_error(r, MHD_HTTP_METHOD_NOT_ALLOWED, r->route->needs ? "POST a text" : "GET alone");
    } else if (!r->route->needs) {
        return;
    } else if (!length) {
        set_error(r, MHD_HTTP_LENGTH_REQUIRED, "the body's length is not given");
    } else if (size == 0) {
        set_error(r, MHD_HTTP_BAD_REQUEST, "the body is empty");
    } else if (size > BODY_BYTES) {
        set_error(r, MHD_HTTP_CONTENT_TOO_LARGE, "the body is too large");
    } else {
        r->capacity = (size_t)size;
        r->body = malloc(r->capacity);
        if (!r->body) set_error(r, MHD_HTTP_SERVICE_UNAVAILABLE, "out of memory");
    }
}

static enum MHD_Result begin(server *s, struct MHD_Connection *connection, const char *path, const char *method, void **state)
{
    request *r = calloc(1, sizeof *r);

    if (!r) return MHD_NO;
    *state = r;
    r->connection = connection;
    pthread_mutex_lock(&s->lock);
    s->open++;
    pthread_mutex_unlock(&s->lock);
    read_headers(s, r, path, method);
    return r->status ? reply(s, r) : MHD_YES;
}

/* Called by libmicrohttpd once for the headers, then for each piece of the body, at its end, and when the connection is woken. */
static enum MHD_Result on_request(void *user, struct MHD_Connection *connection, const char *path, const char *method,
                                  const char *version, const char *data, size_t *size, void **state)
{
    server *s = user;
    request *r = *state;

    (void)version;
    if (!r) return begin(s, connection, path, method, state);
    if (*size) {
        if (*size > r->capacity - r->size) return MHD_NO; /* more than was announced */
        memcpy(r->body + r->size, data, *size);
        r->size += *size;
        *size = 0;
        return MHD_YES;
    }
    if (!r->status && !r->route->needs) answer(s, r);
    if (!r->status && enqueue(s, r)) return MHD_YES; /* r is a worker's now: it is not looked at */
    return reply(s, r);
}

static void on_completed(void *user, struct MHD_Connection *connection, void **state, enum MHD_RequestTerminationCode why)
{
    server *s = user;
    request *r = *state;

    (void)connection, (void)why;
    if (!r) return;
    pthread_mutex_lock(&s->lock);
    s->open--;
    pthread_mutex_unlock(&s->lock);
    json_decref(r->answer);
    free(r->body);
    free(r);
}

static struct MHD_Daemon *listen_on(server *s, int port)
{
    struct sockaddr_in address;

    memset(&address, 0, sizeof address);
    address.sin_family = AF_INET;
    address.sin_port = htons((uint16_t)port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    struct MHD_Daemon *daemon = MHD_start_daemon(MHD_USE_AUTO | MHD_USE_INTERNAL_POLLING_THREAD | MHD_ALLOW_SUSPEND_RESUME, 0,
                                                 NULL, NULL, on_request, s, MHD_OPTION_SOCK_ADDR, (struct sockaddr *)&address,
                                                 MHD_OPTION_NOTIFY_COMPLETED, on_completed, s, MHD_OPTION_CONNECTION_LIMIT,
                                                 (unsigned)CONNECTIONS, MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)IDLE_SECONDS,
                                                 MHD_OPTION_END);
    if (!daemon) fail("cannot listen");
    printf("http://127.0.0.1:%d\n", (int)MHD_get_daemon_info(daemon, MHD_DAEMON_INFO_BIND_PORT)->port);
    fflush(stdout);
    return daemon;
}

/* Requests whose answer is not with their client yet. */
static int count_open(server *s)
{
    pthread_mutex_lock(&s->lock);
    const int open = s->open;
    pthread_mutex_unlock(&s->lock);
    return open;
}

/* Answer what was taken, then let the connections go. Clients that do not read their answer, or have sent half a request, have
 * DRAIN_SECONDS. */
static void drain(server *s, struct MHD_Daemon *daemon, const pthread_t *threads)
{
    const struct timespec pause = {0, 10000000};

    close(MHD_quiesce_daemon(daemon));
    pthread_mutex_lock(&s->lock);
    s->ending = 1;
    pthread_cond_broadcast(&s->wake);
    pthread_mutex_unlock(&s->lock);
    for (int i = 0; i < s->workers; i++) pthread_join(threads[i], NULL);
    for (int i = 0; i < 100 * DRAIN_SECONDS && count_open(s); i++) nanosleep(&pause, NULL);
    MHD_stop_daemon(daemon);
}

/* A number in [low, high], or the program's usage. */
static int number_of(const char *text, int low, int high)
{
    char *end;
    const long value = strtol(text, &end, 10);

    if (end == text || *end || value < low || value > high) {
        fprintf(stderr, "server: \"%s\" is not in %d to %d\nusage: server MODEL [PORT [WORKERS [QUEUE]]]\n", text, low, high);
        exit(2);
    }
    return (int)value;
}

int main(int argc, char **argv)
{
    static server s = {.lock = PTHREAD_MUTEX_INITIALIZER, .wake = PTHREAD_COND_INITIALIZER};
    tf_session_options options;
    pthread_t threads[WORKERS_MAX];
    sigset_t signals;
    tf_model *model;
    int number;

    if (argc < 2 || argc > 5) return fprintf(stderr, "usage: server MODEL [PORT [WORKERS [QUEUE]]]\n"), 2;
    const int port = argc > 2 ? number_of(argv[2], 0, 65535) : 0;
    s.workers = argc > 3 ? number_of(argv[3], 1, WORKERS_MAX) : 4;
    s.queue = argc > 4 ? number_of(argv[4], 1, QUEUE_MAX) : 32;

    /* Before any thread starts, so that all have them blocked: the signals are for sigwait() alone. */
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    pthread_sigmask(SIG_BLOCK, &signals, NULL);
    signal(SIGPIPE, SIG_IGN);

    check(tf_model_open(argv[1], NULL, &model));
    tf_model_info_init(&s.info);
    check(tf_model_get_info(model, &s.info));
    tf_session_options_init(&options);
    options.kv_tokens = (int64_t)s.workers * HELD_TOKENS;
    check(tf_session_open(model, &options, &s.session));
    for (int i = 0; i < s.workers; i++) {
        if ((errno = pthread_create(&threads[i], NULL, work, &s))) fail("cannot start a thread");
    }
    struct MHD_Daemon *daemon = listen_on(&s, port);
    sigwait(&signals, &number);
    drain(&s, daemon, threads);
    tf_session_close(s.session);
    tf_model_close(model);
    return 0;
}
