#define _POSIX_C_SOURCE 200809L /* conditions with the monotonic clock */

#include "generate/scheduler.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <time.h>

#include "base/status.h"
#include "generate/decode_step.h"
#include "generate/encode_step.h"

struct tfi_scheduler {
    tfi_engine engine;
    pthread_mutex_t lock; /* guards everything here but what a step's run touches */
    pthread_cond_t moved; /* a step or a callback is over */
    int driving;
    int encode_next;      /* where both kinds of work wait they take turns */
    tfi_job *jobs;
    tf_generate *requests; /* oldest first */
    tfi_room room;
    tfi_encode_step encode;
    tfi_program *step_program;
    tfi_decode_step decode[2]; /* the second where the backend runs ahead */
    tfi_decode_step *under_way; /* the one that was begun and not waited for; NULL: none */
    tfi_scheduler_stats stats;
};

/* ---- open and close ---- */

static int generates(const tfi_engine *e)
{
    return e->store.blocks > 0;
}

tf_status tfi_scheduler_bytes(const tfi_engine *engine, int64_t *bytes, int64_t *kv_bytes)
{
    tfi_backend *backend = engine->backend;
    int64_t step = 0;
    tf_status st;

    *kv_bytes = 0;
    if ((st = tfi_encode_step_bytes(engine, bytes)) < 0) return st;
    *bytes += (int64_t)sizeof(tfi_scheduler);
    if (!generates(engine)) return TF_STATUS_OK;
    if ((*kv_bytes = tfi_room_bytes(backend, &engine->store)) < 0)
        return tfi_fail(TF_STATUS_NOMEM, "keys and values of %lld tokens are more than memory can hold",
                        (long long)(engine->store.blocks * TFI_KV_BLOCK));
    if ((st = backend->program_bytes(backend, &engine->def->step, engine->step_limits, &step)) < 0) return st;
    *bytes += step + (1 + !!backend->runs_ahead) * tfi_decode_step_bytes(engine) + *kv_bytes;
    return TF_STATUS_OK;
}

static void init_condition(pthread_cond_t *c)
{
    pthread_condattr_t attributes;

    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(c, &attributes);
    pthread_condattr_destroy(&attributes);
}

static tf_status open_decode(tfi_scheduler *s)
{
    const tfi_engine *e = &s->engine;
    tf_status st = e->backend->program_open(e->backend, &e->def->step, e->forms, e->step_limits, e->memory, &s->step_program);

    for (int i = 0; i <= !!e->backend->runs_ahead && st == TF_STATUS_OK; i++)
        st = tfi_decode_step_open(&s->decode[i], e, s->step_program, &s->room);
    return st;
}

tf_status tfi_scheduler_open(const tfi_engine *engine, tfi_scheduler **out)
{
    tfi_scheduler *s = tfi_zalloc(engine->memory, sizeof *s);
    tf_status st = TF_STATUS_OK;

    *out = NULL;
    if (!s) return TF_STATUS_NOMEM;
    s->engine = *engine;
    pthread_mutex_init(&s->lock, NULL);
    init_condition(&s->moved);
    if (generates(engine)) st = tfi_room_open(&s->room, engine->backend, &engine->store, engine->memory);
    if (st == TF_STATUS_OK) st = tfi_encode_step_open(&s->encode, &s->engine, s->room.store);
    if (st == TF_STATUS_OK && generates(engine)) st = open_decode(s);
    if (st < 0)
        tfi_scheduler_close(s);
    else
        *out = s;
    return st;
}

void tfi_scheduler_close(tfi_scheduler *s)
{
    if (!s) return;
    tfi_memory *memory = s->engine.memory;
    if (s->under_way) (void)s->engine.backend->wait(s->step_program, &s->under_way->run);
    for (int i = 0; i < 2; i++) tfi_decode_step_close(&s->decode[i]);
    if (s->step_program) s->engine.backend->program_close(s->step_program);
    tfi_encode_step_close(&s->encode);
    tfi_room_close(&s->room);
    pthread_cond_destroy(&s->moved);
    pthread_mutex_destroy(&s->lock);
    tfi_free(memory, s, sizeof *s);
}

void tfi_scheduler_get_stats(tfi_scheduler *s, tfi_scheduler_stats *out)
{
    pthread_mutex_lock(&s->lock);
    *out = s->stats;
    pthread_mutex_unlock(&s->lock);
}

/* ---- callbacks ---- */

static _Thread_local const tfi_callback_frame *innermost;

void tfi_callback_begin(tfi_callback_frame *f, const tfi_scheduler *s)
{
    *f = (tfi_callback_frame){s, innermost};
    innermost = f;
}

void tfi_callback_end(const tfi_callback_frame *f)
{
    innermost = f->outer;
}

static int is_inside(const tfi_scheduler *s)
{
    for (const tfi_callback_frame *f = innermost; f; f = f->outer)
        if (f->scheduler == s) return 1;
    return 0;
}

tf_status tfi_scheduler_enter(const tfi_scheduler *s)
{
    return is_inside(s) ? tfi_fail(TF_STATUS_BUSY, "a call on the session from one of its own callbacks") : TF_STATUS_OK;
}

/* ---- requests' lives ---- */

static void unlink_request(tfi_scheduler *s, tf_generate *g)
{
    *(g->previous ? &g->previous->next : &s->requests) = g->next;
    if (g->next) g->next->previous = g->previous;
    g->previous = g->next = NULL;
}

static void link_request(tfi_scheduler *s, tf_generate *g)
{
    tf_generate *last = s->requests;

    while (last && last->next) last = last->next;
    g->previous = last;
    *(last ? &last->next : &s->requests) = g;
}

static void unlink_job(tfi_scheduler *s, tfi_job *job)
{
    tfi_job **at = &s->jobs;

    while (*at && *at != job) at = &(*at)->following;
    if (*at) *at = job->following;
}

static void link_job(tfi_scheduler *s, tfi_job *job)
{
    tfi_job **at = &s->jobs;

    while (*at) at = &(*at)->following;
    *at = job;
}

/* Requests that were closed while they were in use. */
static void free_abandoned(tfi_scheduler *s)
{
    for (tf_generate *g = s->requests, *next; g; g = next) {
        next = g->next;
        if (!g->abandoned || g->in_use || (g->source_job && g->source_job->in_step)) continue;
        unlink_request(s, g);
        if (g->source_job) unlink_job(s, g->source_job);
        tfi_request_free(g);
    }
}

/* ---- driving; the lock is held on entry and on return ---- */

static tf_generate *waiting_callback(const tfi_scheduler *s)
{
    for (tf_generate *g = s->requests; g; g = g->next)
        if (g->state == TFI_REQUEST_CALL && !g->in_use) return g;
    return NULL;
}

/* The host's callback for each row of the request. Another thread may drive meanwhile. */
static void call_back(tfi_scheduler *s, tf_generate *g)
{
    const int32_t rows = tfi_request_rows(g);
    tfi_callback_frame frame;
    int32_t refused = 0;

    g->in_use++;
    g->calling = 1;
    pthread_mutex_unlock(&s->lock);
    tfi_callback_begin(&frame, s);
    for (int32_t row = 0; row < rows && !refused; row++) {
        int32_t count, sequence = tfi_request_callback_ids(g, row, &count);
        refused = g->settings.logits(g->settings.logits_user, sequence, g->callback_ids, count,
                                     g->callback_logits + (int64_t)row * g->vocab, g->vocab);
    }
    tfi_callback_end(&frame);
    pthread_mutex_lock(&s->lock);
    g->in_use--;
    g->calling = 0;
    g->state = TFI_REQUEST_CALLED;
    if (refused) tfi_request_fail(g, TF_STATUS_CANCELLED, "the logits callback ended the request");
    if (g->cancelled) tfi_request_end(g, TF_FINISH_CANCELLED);
    free_abandoned(s);
    pthread_cond_broadcast(&s->moved);
}

static int has_encode_work(const tfi_scheduler *s)
{
    for (const tfi_job *job = s->jobs; job; job = job->following)
        if (!job->stopped) return 1;
    return 0;
}

static int has_decode_work(const tfi_scheduler *s)
{
    if (s->under_way) return 1;
    for (const tf_generate *g = s->requests; g; g = g->next)
        if (tfi_decode_step_wants(g) || (g->state == TFI_REQUEST_CALLED && !g->in_use)) return 1;
    return 0;
}

/* Jobs that a step has finished leave the list; a source's request goes on. */
static void settle_jobs(tfi_scheduler *s)
{
    for (tfi_job *job = s->jobs, *next; job; job = next) {
        next = job->following;
        if (!job->finished) continue;
        unlink_job(s, job);
        tf_generate *g = job->request;
        if (!g) continue;
        g->source_job = NULL;
        if (job->status < 0)
            tfi_request_fail(g, job->status, job->error);
        else if (g->state == TFI_REQUEST_SOURCE)
            g->state = TFI_REQUEST_PROMPT;
        if (g->cancelled) tfi_request_end(g, TF_FINISH_CANCELLED);
    }
}

static void drive_encode(tfi_scheduler *s)
{
    if (!tfi_encode_step_plan(&s->encode, s->jobs)) return;
    pthread_mutex_unlock(&s->lock);
    const tf_status st = tfi_encode_step_run(&s->encode);
    pthread_mutex_lock(&s->lock);
    tfi_encode_step_apply(&s->encode, st);
    s->stats.steps++;
    if (st == TF_STATUS_OK) {
        s->stats.sequences += s->encode.sequences;
        s->stats.tokens += s->encode.tokens;
    }
    settle_jobs(s);
}

/* Begin a step that was planned. It is then on its way, or over. */
static void begin_step(tfi_scheduler *s, tfi_decode_step *d)
{
    pthread_mutex_unlock(&s->lock);
    const tf_status st = tfi_decode_step_run(d);
    pthread_mutex_lock(&s->lock);
    s->stats.steps++;
    s->stats.tokens += d->rows;
    if (st == TF_STATUS_OK && d->run.ahead)
        s->under_way = d;
    else
        tfi_decode_step_apply(d, st);
}

static void end_step(tfi_scheduler *s, tfi_decode_step *d)
{
    pthread_mutex_unlock(&s->lock);
    const tf_status st = s->engine.backend->wait(d->program, &d->run);
    pthread_mutex_lock(&s->lock);
    if (s->under_way == d) s->under_way = NULL;
    tfi_decode_step_apply(d, st);
}

static int serves_anybody(const tfi_decode_step *d)
{
    for (int64_t i = 0; i < d->part_count; i++)
        if (d->parts[i].request->state != TFI_REQUEST_DONE) return 1;
    return 0;
}

/* The results of the step on its way are waited for when the one behind it has been begun, so that the device is never idle between
 * them. Sequences that turn out to have ended are in that one for nothing; when they were all, it is waited for at once. */
static void follow_up(tfi_scheduler *s)
{
    tfi_decode_step *d = s->under_way, *next = d == &s->decode[0] ? &s->decode[1] : &s->decode[0];

    if (tfi_decode_step_plan_ahead(next, s->requests, d)) begin_step(s, next);
    end_step(s, d);
    if (s->under_way && !serves_anybody(s->under_way)) end_step(s, s->under_way);
}

static void drive_called(tfi_scheduler *s)
{
    tfi_decode_step *d = &s->decode[0];

    for (tf_generate *g = s->requests, *next; g; g = next) {
        next = g->next;
        if (g->state != TFI_REQUEST_CALLED || g->in_use) continue;
        tfi_decode_step_plan_called(d, g);
        pthread_mutex_unlock(&s->lock);
        const tf_status st = tfi_decode_step_run_called(d);
        pthread_mutex_lock(&s->lock);
        tfi_decode_step_apply(d, st);
        next = s->requests; /* the list may have changed; this request is not CALLED any more */
    }
}

static void drive_decode(tfi_scheduler *s)
{
    if (!s->under_way) {
        drive_called(s);
        if (!tfi_decode_step_plan(&s->decode[0], s->requests)) return;
        begin_step(s, &s->decode[0]);
    }
    if (s->under_way) follow_up(s);
}

/* Nothing is on its way any more, unless another thread drives. */
static void settle(tfi_scheduler *s)
{
    if (s->driving || !s->under_way) return;
    s->driving = 1;
    end_step(s, s->under_way);
    s->driving = 0;
    pthread_cond_broadcast(&s->moved);
}

static void drive(tfi_scheduler *s)
{
    s->driving = 1;
    const int encodes = has_encode_work(s), decodes = has_decode_work(s);
    if (encodes && (s->encode_next || !decodes))
        drive_encode(s);
    else
        drive_decode(s);
    s->encode_next = !s->encode_next;
    s->driving = 0;
    free_abandoned(s);
    pthread_cond_broadcast(&s->moved);
}

/* Wait for others until the deadline; 0 when it has passed. */
static int wait_until(tfi_scheduler *s, int64_t deadline_ms)
{
    if (deadline_ms < 0) {
        pthread_cond_wait(&s->moved, &s->lock);
        return 1;
    }
    const struct timespec t = {.tv_sec = (time_t)(deadline_ms / 1000), .tv_nsec = (long)(deadline_ms % 1000) * 1000000};
    return pthread_cond_timedwait(&s->moved, &s->lock, &t) != ETIMEDOUT;
}

static int64_t deadline_of(int32_t timeout_ms)
{
    return timeout_ms < 0 ? -1 : tfi_now_ms() + timeout_ms;
}

/* Do what waits, or wait while others do, until `is_ready`. OK, or TIMEOUT. */
static tf_status drive_until(tfi_scheduler *s, int (*is_ready)(const void *), const void *what, int32_t timeout_ms)
{
    const int64_t deadline = deadline_of(timeout_ms);
    tf_generate *callback;

    while (!is_ready(what)) {
        if (timeout_ms == 0 || (deadline >= 0 && tfi_now_ms() >= deadline))
            return tfi_fail(TF_STATUS_TIMEOUT, "nothing came within %d ms", (int)timeout_ms);
        if ((callback = waiting_callback(s)) != NULL)
            call_back(s, callback);
        else if (!s->driving && (has_encode_work(s) || has_decode_work(s)))
            drive(s);
        else
            (void)wait_until(s, deadline);
    }
    return TF_STATUS_OK;
}

/* ---- jobs ---- */

typedef struct job_wait {
    const tfi_job *job;
    int64_t seen; /* sequences done when the caller last looked */
} job_wait;

static int job_moved(const void *what)
{
    const job_wait *w = what;
    return w->job->finished || w->job->next > w->seen;
}

static int job_is_free(const void *what)
{
    return !((const tfi_job *)what)->in_step;
}

/* The caller's progress callback, with no lock held. Non-zero: stop. */
static int32_t report(tfi_scheduler *s, const tfi_job *job, tf_progress_fn progress, void *user)
{
    tfi_callback_frame frame;
    const int64_t done = job->starts[job->next], total = job->starts[job->count];

    pthread_mutex_unlock(&s->lock);
    tfi_callback_begin(&frame, s);
    const int32_t stop = progress(user, done, total);
    tfi_callback_end(&frame);
    pthread_mutex_lock(&s->lock);
    return stop;
}

tf_status tfi_scheduler_encode(tfi_scheduler *s, tfi_job *job, tf_progress_fn progress, void *progress_user)
{
    job_wait wait = {job, 0};
    tf_status st;

    if ((st = tfi_scheduler_enter(s)) < 0 || job->count == 0) return st;
    pthread_mutex_lock(&s->lock);
    link_job(s, job);
    do {
        (void)drive_until(s, job_moved, &wait, -1);
        wait.seen = job->next;
        if (progress && job->status == TF_STATUS_OK && report(s, job, progress, progress_user) != 0) {
            job->stopped = 1;
            (void)drive_until(s, job_is_free, job, -1);
            if (!job->finished) unlink_job(s, job);
            pthread_mutex_unlock(&s->lock);
            return tfi_fail(TF_STATUS_CANCELLED, "the progress callback ended the call after %lld of %lld tokens",
                            (long long)job->starts[wait.seen], (long long)job->starts[job->count]);
        }
    } while (!job->finished);
    pthread_mutex_unlock(&s->lock);
    return job->status < 0 ? tfi_fail(job->status, "%s", job->error) : TF_STATUS_OK;
}

/* ---- requests ---- */

/* The job that encodes a request's source: part of the request. */
static tf_status make_source_job(tf_generate *g)
{
    int64_t *starts;

    if (g->source_count == 0) return TF_STATUS_OK;
    if (!(g->source_job = tfi_arena_alloc(&g->arena, sizeof *g->source_job)) ||
        !(starts = tfi_arena_alloc(&g->arena, 2 * sizeof *starts)))
        return TF_STATUS_NOMEM;
    starts[1] = g->source_count;
    *g->source_job = (tfi_job){
        .count = 1, .starts = starts, .ids = g->source, .embeddings = g->source_embeddings, .request = g};
    return TF_STATUS_OK;
}

/* Requests that are done but in the step on its way hold their room until it is over. */
static void settle_done(tfi_scheduler *s)
{
    for (const tf_generate *g = s->requests; g; g = g->next)
        if (g->state == TFI_REQUEST_DONE && g->in_use) {
            settle(s);
            return;
        }
}

tf_status tfi_scheduler_open_request(tfi_scheduler *s, const tfi_request_input *in, tf_generate **out)
{
    tf_generate *g;
    tf_status st;

    *out = NULL;
    if ((st = tfi_scheduler_enter(s)) < 0) return st;
    pthread_mutex_lock(&s->lock);
    settle_done(s);
    if ((st = tfi_request_open(&s->room, s->engine.memory, in, &g)) == TF_STATUS_OK) {
        if ((st = make_source_job(g)) == TF_STATUS_OK) {
            g->scheduler = s;
            link_request(s, g);
            if (g->source_job) link_job(s, g->source_job);
            *out = g;
            pthread_cond_broadcast(&s->moved);
        } else {
            tfi_request_free(g);
        }
    }
    pthread_mutex_unlock(&s->lock);
    return st;
}

void tfi_scheduler_cancel(tf_generate *g)
{
    tfi_scheduler *s = g->scheduler;

    pthread_mutex_lock(&s->lock);
    g->cancelled = 1;
    settle(s);
    if (!g->in_use && !(g->source_job && g->source_job->in_step)) {
        if (g->source_job) unlink_job(s, g->source_job);
        g->source_job = NULL;
        tfi_request_end(g, TF_FINISH_CANCELLED);
    }
    pthread_cond_broadcast(&s->moved);
    pthread_mutex_unlock(&s->lock);
}

void tfi_scheduler_close_request(tf_generate *g)
{
    tfi_scheduler *s = g->scheduler;

    tfi_scheduler_cancel(g);
    pthread_mutex_lock(&s->lock);
    /* Another thread may be in the callback, whose data the caller may free from now on. From inside one nothing waits: two could wait
     * for each other. */
    while (g->calling && !is_inside(s)) pthread_cond_wait(&s->moved, &s->lock);
    g->abandoned = 1;
    free_abandoned(s); /* at once, or when the step that is on it is over */
    pthread_mutex_unlock(&s->lock);
}

static int has_next_or_done(const void *what)
{
    const tf_generate *g = what;
    return tfi_request_has_next(g) || g->state == TFI_REQUEST_DONE;
}

static int is_done(const void *what)
{
    return ((const tf_generate *)what)->state == TFI_REQUEST_DONE;
}

/* What follows reads what steps write: under the lock. */
tf_status tfi_scheduler_next(tf_generate *g, int32_t timeout_ms, tf_generated_token *out)
{
    tfi_scheduler *s = g->scheduler;
    tf_status st;

    if ((st = tfi_scheduler_enter(s)) < 0) return st;
    pthread_mutex_lock(&s->lock);
    if ((st = drive_until(s, has_next_or_done, g, timeout_ms)) == TF_STATUS_OK)
        st = tfi_request_has_next(g) ? tfi_request_next(g, out) : tfi_request_status(g);
    pthread_mutex_unlock(&s->lock);
    return st;
}

tf_status tfi_scheduler_wait(tf_generate *g, int32_t timeout_ms)
{
    tfi_scheduler *s = g->scheduler;
    tf_status st;

    if ((st = tfi_scheduler_enter(s)) < 0) return st;
    pthread_mutex_lock(&s->lock);
    if ((st = drive_until(s, is_done, g, timeout_ms)) == TF_STATUS_OK && g->status < 0) st = tfi_request_status(g);
    pthread_mutex_unlock(&s->lock);
    return st;
}

tf_status tfi_scheduler_result(tf_generate *g, int32_t sequence, tf_generated *out)
{
    pthread_mutex_lock(&g->scheduler->lock);
    const tf_status st = tfi_request_result(g, sequence, out);
    pthread_mutex_unlock(&g->scheduler->lock);
    return st;
}

tf_status tfi_scheduler_scores(tf_generate *g, int32_t kind, int64_t step, int32_t sequence, float *out, int64_t vocab)
{
    pthread_mutex_lock(&g->scheduler->lock);
    const tf_status st = tfi_request_scores(g, kind, step, sequence, out, vocab);
    pthread_mutex_unlock(&g->scheduler->lock);
    return st;
}

/* ---- stepping for everybody ---- */

static int has_any_work(const tfi_scheduler *s)
{
    for (const tf_generate *g = s->requests; g; g = g->next)
        if (g->state != TFI_REQUEST_DONE) return 1;
    return has_encode_work(s);
}

tf_status tfi_scheduler_step(tfi_scheduler *s, int32_t timeout_ms)
{
    const int64_t deadline = deadline_of(timeout_ms);
    tf_generate *callback;
    tf_status st;

    if ((st = tfi_scheduler_enter(s)) < 0) return st;
    pthread_mutex_lock(&s->lock);
    for (;;) {
        if (!has_any_work(s)) {
            st = TF_STATUS_END;
            break;
        }
        if ((callback = waiting_callback(s)) != NULL) {
            call_back(s, callback);
        } else if (!s->driving && (has_encode_work(s) || has_decode_work(s))) {
            drive(s);
            break;
        } else if (timeout_ms == 0 || !wait_until(s, deadline)) {
            st = tfi_fail(TF_STATUS_TIMEOUT, "another thread drove all the time");
            break;
        }
    }
    pthread_mutex_unlock(&s->lock);
    return st;
}
