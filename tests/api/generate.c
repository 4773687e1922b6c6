/* tf_generate as a host sees it: streams, many requests, threads, callbacks, cancelling, budgets, failing allocations, and what a
 * step allocates. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "check.h"
#include "tiny_decoder.h"

/* ---- malloc counted: other libraries inside the library do not use the allocator hook ---- */

static atomic_int counting;
static _Atomic int64_t mallocs;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { CAN_COUNT = 0 }; /* they have a malloc of their own */
#else
enum { CAN_COUNT = 1 };
extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t),
    *__libc_memalign(size_t, size_t);

static void count(void)
{
    if (atomic_load(&counting)) atomic_fetch_add(&mallocs, 1);
}
void *malloc(size_t n)
{
    count();
    return __libc_malloc(n);
}
void *calloc(size_t n, size_t size)
{
    count();
    return __libc_calloc(n, size);
}
void *realloc(void *p, size_t n)
{
    count();
    return __libc_realloc(p, n);
}
void *memalign(size_t align, size_t n)
{
    count();
    return __libc_memalign(align, n);
}
void *aligned_alloc(size_t align, size_t n)
{
    count();
    return __libc_memalign(align, n);
}
int posix_memalign(void **out, size_t align, size_t n)
{
    count();
    return (*out = __libc_memalign(align, n)) ? 0 : 12;
}
#endif

/* ---- requests ---- */

static tf_status open_text(tf_session *s, const char *text, const tf_generate_options *o, tf_generate **out)
{
    const tf_text prompt = tf_text_of(text);
    tf_input in;

    tf_input_init(&in);
    in.texts = &prompt;
    in.count = 1;
    return tf_generate_open(s, &in, o, out);
}

static tf_generate_options settings(int32_t max_new_tokens)
{
    tf_generate_options o;

    tf_generate_options_init(&o);
    o.max_new_tokens = max_new_tokens;
    o.eos_count = 0; /* whole lengths */
    return o;
}

typedef struct outcome {
    int32_t ids[4][128];
    int64_t count[4];
    int32_t finish[4];
} outcome;

static void take_results(tf_generate *g, int32_t sequences, outcome *out)
{
    tf_generated r;

    memset(out, 0, sizeof *out);
    for (int32_t i = 0; i < sequences; i++) {
        tf_generated_init(&r);
        CHECK_OK(tf_generate_result(g, i, &r));
        CHECK(r.count <= 128);
        memcpy(out->ids[i], r.ids, (size_t)r.count * sizeof(int32_t));
        out->count[i] = r.count;
        out->finish[i] = r.finish;
    }
}

static void generate(tf_session *s, const char *text, const tf_generate_options *o, int32_t sequences, outcome *out)
{
    tf_generate *g;

    memset(out, 0, sizeof *out);
    CHECK_OK(open_text(s, text, o, &g));
    CHECK_OK(tf_generate_wait(g, -1));
    take_results(g, sequences, out);
    tf_generate_close(g);
}

static int same(const outcome *a, const outcome *b)
{
    return memcmp(a, b, sizeof *a) == 0;
}

static int same_lengths(const outcome *a, const outcome *b)
{
    return memcmp(a->count, b->count, sizeof a->count) == 0 && memcmp(a->finish, b->finish, sizeof a->finish) == 0;
}

/* Alone and beside others. A device adds up in another order there, and what is drawn at random may meet a boundary in its last
 * bits: then only the lengths have to agree. */
static int alike(const outcome *a, const outcome *b, int sampled)
{
    return sampled && getenv("TFINFER_DEVICE") ? same_lengths(a, b) : same(a, b);
}

/* Settings of several kinds: greedy, beams, sampling of one and of several sequences. */
enum { KINDS = 4 };
static tf_generate_options settings_of_kind(int kind, int32_t *sequences)
{
    tf_generate_options o = settings(12 + 3 * kind);

    *sequences = 1;
    if (kind == 1) {
        o.num_beams = 3;
        o.num_return_sequences = *sequences = 2;
    } else if (kind == 2) {
        o.do_sample = 1;
        o.seed = 7;
    } else if (kind == 3) {
        o.do_sample = 1;
        o.top_p = 0.9f;
        o.num_return_sequences = *sequences = 4;
        o.seed = 11;
    }
    return o;
}

static const char *const prompts[] = {"a", "What is the capital of France?", "rates rose again in the third quarter", "xyzzy"};

/* ---- streams ---- */

static void stream_equals_result(tiny_decoder kind)
{
    tiny_bench b;
    tiny_bench_open(&b, kind, NULL);
    for (int k = 0; k < KINDS; k++) {
        int32_t sequences, seen[4] = {0}, finished = 0;
        char text[4][4096];
        int64_t bytes[4] = {0};
        tf_generate_options o = settings_of_kind(k, &sequences);
        tf_generated_token t;
        tf_generated r;
        tf_generate *g;
        tf_status st;

        CHECK_OK(open_text(b.session, prompts[k], &o, &g));
        tf_generated_token_init(&t);
        tf_generated_init(&r);
        while ((st = tf_generate_next(g, -1, &t)) == TF_STATUS_OK) {
            CHECK(t.sequence >= 0 && t.sequence < sequences);
            CHECK(t.id >= 0 || t.finish);
            memcpy(text[t.sequence] + bytes[t.sequence], t.text, (size_t)t.text_bytes);
            bytes[t.sequence] += t.text_bytes;
            CHECK_OK(tf_generate_result(g, t.sequence, &r));
            if (t.id >= 0) CHECK_INT(r.ids[seen[t.sequence]++], t.id);
            finished += t.finish != TF_FINISH_NONE;
        }
        CHECK_INT(st, TF_STATUS_END);
        CHECK_INT(finished, sequences);
        CHECK_STATUS(tf_generate_next(g, -1, &t), TF_STATUS_END);
        for (int32_t i = 0; i < sequences; i++) {
            CHECK_OK(tf_generate_result(g, i, &r));
            CHECK_INT(r.count, seen[i]);
            CHECK_INT(r.count, 12 + 3 * k);
            CHECK_INT(r.finish, TF_FINISH_LENGTH);
            CHECK_INT(r.text_bytes, bytes[i]);
            CHECK(memcmp(r.text, text[i], (size_t)bytes[i]) == 0);
        }
        CHECK_STATUS(tf_generate_result(g, sequences, &r), TF_STATUS_INVALID);
        CHECK_OK(tf_generate_wait(g, 0));
        tf_generate_close(g);
    }
    tiny_bench_close(&b);
}

static void gpt2_streams(void)
{
    stream_equals_result(TINY_GPT2);
}

static void t5_streams(void)
{
    stream_equals_result(TINY_T5);
}

/* ---- many at once ---- */

/* Beside others a prompt may be read in pieces, whose sums come out otherwise in the last bits, as a device's do anyway: a sequence that is
 * drawn at random may then meet a boundary, which in one round more than one will not. */
static void together_as_alone(tiny_decoder model, int32_t step_tokens)
{
    enum { REQUESTS = 12 };
    tf_session_options so;
    outcome alone[REQUESTS], out;
    tf_generate *g[REQUESTS];
    int32_t sequences[REQUESTS];
    int drawn_otherwise = 0;
    tiny_bench b;

    tf_session_options_init(&so);
    so.max_step_tokens = step_tokens;
    so.max_sequences = step_tokens < 40 ? step_tokens : 40;
    tiny_bench_open(&b, model, &so);
    for (int i = 0; i < REQUESTS; i++) {
        const tf_generate_options o = settings_of_kind(i % KINDS, &sequences[i]);
        generate(b.session, prompts[i % 4], &o, sequences[i], &alone[i]);
    }
    for (int i = 0; i < REQUESTS; i++) {
        const tf_generate_options o = settings_of_kind(i % KINDS, &sequences[i]);
        CHECK_OK(open_text(b.session, prompts[i % 4], &o, &g[i]));
        if (i % 3 == 0) CHECK_OK(tf_session_step(b.session, -1)); /* some are further on than others */
    }
    for (int i = REQUESTS - 1; i >= 0; i--) {
        CHECK_OK(tf_generate_wait(g[i], -1));
        take_results(g[i], sequences[i], &out);
        const int is_sampled = settings_of_kind(i % KINDS, &sequences[i]).do_sample == 1;
        drawn_otherwise += is_sampled && !same(&out, &alone[i]);
        CHECK(is_sampled ? same_lengths(&out, &alone[i]) : same(&out, &alone[i]));
        tf_generate_close(g[i]);
    }
    CHECK(drawn_otherwise <= 1 || getenv("TFINFER_DEVICE"));
    CHECK_STATUS(tf_session_step(b.session, -1), TF_STATUS_END);
    tiny_bench_close(&b);
}

static void gpt2_together(void)
{
    together_as_alone(TINY_GPT2, 64);
    together_as_alone(TINY_GPT2, 40); /* prompts are read in pieces */
}

static void t5_together(void)
{
    together_as_alone(TINY_T5, 64);
}

typedef struct caller {
    pthread_t thread;
    tf_session *session;
    int number;
    outcome want;
    int wrong;
} caller;

static void *call_often(void *arg)
{
    caller *c = arg;
    for (int round = 0; round < 6; round++) {
        int32_t sequences;
        const tf_generate_options o = settings_of_kind(c->number % KINDS, &sequences);
        outcome out;
        tf_generate *g;
        tf_status st;
        while ((st = open_text(c->session, prompts[c->number % 4], &o, &g)) == TF_STATUS_BUSY) continue;
        if (st < 0 || tf_generate_wait(g, -1) < 0) {
            c->wrong++;
            continue;
        }
        take_results(g, sequences, &out);
        c->wrong += !alike(&out, &c->want, o.do_sample == 1);
        tf_generate_close(g);
    }
    return NULL;
}

static void many_threads_one_session(void)
{
    enum { THREADS = 8 };
    caller callers[THREADS];
    tiny_bench b;

    tiny_bench_open(&b, TINY_T5, NULL);
    for (int i = 0; i < THREADS; i++) {
        int32_t sequences;
        const tf_generate_options o = settings_of_kind(i % KINDS, &sequences);
        callers[i] = (caller){.session = b.session, .number = i};
        generate(b.session, prompts[i % 4], &o, sequences, &callers[i].want);
    }
    for (int i = 0; i < THREADS; i++) CHECK_INT(pthread_create(&callers[i].thread, NULL, call_often, &callers[i]), 0);
    for (int i = 0; i < THREADS; i++) {
        pthread_join(callers[i].thread, NULL);
        CHECK_INT(callers[i].wrong, 0);
    }
    tiny_bench_close(&b);
}

static void ten_thousand_handles(void)
{
    tiny_bench b;
    tiny_bench_open(&b, TINY_GPT2, NULL);
    const int64_t before = b.memory.live_bytes;
    for (int i = 0; i < 10000; i++) {
        int32_t sequences;
        const tf_generate_options o = settings_of_kind(i % KINDS, &sequences);
        tf_generate *g;
        CHECK_OK(open_text(b.session, "abc", &o, &g));
        if (i % 100 == 0) CHECK_OK(tf_session_step(b.session, -1));
        tf_generate_close(g);
    }
    CHECK_INT(b.memory.live_bytes, before);
    tiny_bench_close(&b);
}

/* ---- ends before the end ---- */

static void cancelled_and_closed(void)
{
    const tf_generate_options o = settings(40);
    outcome want, out;
    tf_generated_token t;
    tf_generated r;
    tf_generate *g, *other;
    tiny_bench b;

    tiny_bench_open(&b, TINY_GPT2, NULL);
    generate(b.session, prompts[1], &o, 1, &want);
    tf_generated_token_init(&t);
    tf_generated_init(&r);
    CHECK_OK(open_text(b.session, prompts[0], &o, &g));
    CHECK_OK(open_text(b.session, prompts[1], &o, &other));
    for (int i = 0; i < 5; i++) CHECK_OK(tf_generate_next(g, -1, &t));
    tf_generate_cancel(g);
    tf_generate_cancel(g);
    CHECK_STATUS(tf_generate_wait(g, -1), TF_STATUS_CANCELLED);
    CHECK_OK(tf_generate_result(g, 0, &r));
    CHECK_INT(r.count, 5);
    CHECK_INT(r.finish, TF_FINISH_CANCELLED);
    while ((t.finish = 0, tf_generate_next(g, -1, &t)) == TF_STATUS_OK) CHECK_INT(t.finish, TF_FINISH_CANCELLED);
    CHECK_STATUS(tf_generate_next(g, -1, &t), TF_STATUS_CANCELLED);
    tf_generate_close(g);

    CHECK_OK(open_text(b.session, prompts[2], &o, &g)); /* closed in mid-stream */
    CHECK_OK(tf_generate_next(g, -1, &t));
    tf_generate_close(g);
    CHECK_OK(tf_generate_wait(other, -1));
    take_results(other, 1, &out);
    CHECK(same(&out, &want));

    tf_session *s = b.session; /* a request keeps its session alive */
    CHECK_OK(open_text(s, prompts[1], &o, &g));
    tf_generate_close(other);
    tf_session_close(s);
    b.session = NULL;
    CHECK_OK(tf_generate_wait(g, -1));
    take_results(g, 1, &out);
    CHECK(same(&out, &want));
    tf_generate_close(g);
    tf_generate_close(NULL);
    tiny_bench_close(&b);
}

static void *cancel_soon(void *g)
{
    for (volatile int i = 0; i < 20000; i++) continue;
    tf_generate_cancel(g);
    return NULL;
}

static void cancelled_by_another_thread(void)
{
    tiny_bench b;
    tiny_bench_open(&b, TINY_GPT2, NULL);
    for (int i = 0; i < 30; i++) {
        const tf_generate_options o = settings(90);
        pthread_t thread;
        tf_generate *g;
        CHECK_OK(open_text(b.session, "a", &o, &g));
        CHECK_INT(pthread_create(&thread, NULL, cancel_soon, g), 0);
        const tf_status st = tf_generate_wait(g, -1);
        CHECK(st == TF_STATUS_CANCELLED || st == TF_STATUS_OK);
        pthread_join(thread, NULL);
        tf_generate_close(g);
    }
    tiny_bench_close(&b);
}

static void timeouts_and_steps(void)
{
    const tf_generate_options o = settings(5);
    tf_generated_token t;
    tf_generate *g;
    tiny_bench b;

    tiny_bench_open(&b, TINY_T5, NULL);
    tf_generated_token_init(&t);
    CHECK_STATUS(tf_session_step(b.session, -1), TF_STATUS_END);
    CHECK_OK(open_text(b.session, "abc", &o, &g));
    CHECK_STATUS(tf_generate_next(g, 0, &t), TF_STATUS_TIMEOUT);
    CHECK_STATUS(tf_generate_wait(g, 0), TF_STATUS_TIMEOUT);
    int steps = 0;
    while (tf_session_step(b.session, 1000) == TF_STATUS_OK) steps++;
    CHECK_INT(steps, 1 + 5); /* the source, then five tokens */
    for (int i = 0; i < 5; i++) CHECK_OK(tf_generate_next(g, 0, &t));
    CHECK_STATUS(tf_generate_next(g, 0, &t), TF_STATUS_END);
    tf_generate_close(g);
    tiny_bench_close(&b);
}

/* ---- callbacks ---- */

typedef struct called {
    tf_session *session;
    tf_generate *self;
    int calls, busy, fail_at;
} called;

static int32_t on_logits(void *user, int32_t sequence, const int32_t *ids, int64_t count, float *logits, int64_t vocab)
{
    called *c = user;
    tf_generated_token t;
    tf_generate *g;

    (void)sequence;
    (void)ids;
    tf_generated_token_init(&t);
    c->busy += open_text(c->session, "abc", NULL, &g) == TF_STATUS_BUSY;
    c->busy += tf_generate_next(c->self, 0, &t) == TF_STATUS_BUSY;
    c->busy += tf_session_step(c->session, 0) == TF_STATUS_BUSY;
    for (int64_t i = 0; i < vocab; i++) logits[i] = i == 65 + count % 26 ? 1.0f : -1.0f;
    return ++c->calls == c->fail_at;
}

static void callbacks(void)
{
    tf_generate_options o = settings(10), plain = settings(10);
    called c = {0};
    outcome want, out;
    tf_generate *g, *other;
    tiny_bench b;

    tiny_bench_open(&b, TINY_GPT2, NULL);
    generate(b.session, prompts[1], &plain, 1, &want);
    c.session = b.session;
    o.logits = on_logits;
    o.logits_user = &c;
    CHECK_OK(open_text(b.session, "abc", &o, &g));
    CHECK_OK(open_text(b.session, prompts[1], &plain, &other));
    c.self = g;
    CHECK_OK(tf_generate_wait(g, -1));
    take_results(g, 1, &out);
    for (int i = 0; i < 10; i++) CHECK_INT(out.ids[0][i], 65 + 3 + i);
    CHECK_INT(c.calls, 10);
    CHECK_INT(c.busy, 30);
    CHECK_OK(tf_generate_wait(other, -1));
    take_results(other, 1, &out);
    CHECK(same(&out, &want));
    tf_generate_close(g);
    tf_generate_close(other);

    c = (called){.session = b.session, .fail_at = 4};
    CHECK_OK(open_text(b.session, "abc", &o, &g));
    c.self = g;
    CHECK_STATUS(tf_generate_wait(g, -1), TF_STATUS_CANCELLED);
    CHECK_INT(c.calls, 4);
    tf_generate_close(g);
    generate(b.session, prompts[1], &plain, 1, &out);
    CHECK(same(&out, &want));
    tiny_bench_close(&b);
}

/* ---- limits ---- */

static void room_is_kept(void)
{
    tf_generate_options o = settings(20), large = settings(60);
    tf_session_options so;
    tf_generate *g, *other;
    tiny_bench b;

    tf_session_options_init(&so);
    so.kv_tokens = 64;
    tiny_bench_open(&b, TINY_GPT2, &so);
    large.num_beams = 4;
    CHECK_STATUS(open_text(b.session, "abcdefgh", &large, &g), TF_STATUS_INVALID);
    CHECK_ERROR_SAYS("320"); /* four beams of 67 tokens to be read: five blocks of 16 each */
    CHECK_ERROR_SAYS("64");
    CHECK(g == NULL);
    CHECK_OK(open_text(b.session, "abcdefgh", &o, &g)); /* two blocks each */
    CHECK_OK(open_text(b.session, "abcdefgh", &o, &other));
    tf_generate *third;
    CHECK_STATUS(open_text(b.session, "abcdefgh", &o, &third), TF_STATUS_BUSY);
    CHECK_OK(tf_generate_wait(g, -1)); /* what is done holds nothing */
    CHECK_OK(open_text(b.session, "abcdefgh", &o, &third));
    CHECK_OK(tf_generate_wait(third, -1));
    tf_generate_close(g);
    tf_generate_close(other);
    tf_generate_close(third);
    tiny_bench_close(&b);

    tiny_bench_open(&b, TINY_T5, &so); /* whose length has no limit */
    large.max_new_tokens = INT32_MAX;
    const int64_t before = b.memory.live_bytes;
    b.memory.peak_bytes = before;
    CHECK_STATUS(open_text(b.session, "abcdefgh", &large, &g), TF_STATUS_INVALID);
    CHECK(b.memory.peak_bytes - before < 1 << 20); /* nothing of that length was taken first */
    tiny_bench_close(&b);
}

static void the_plan_holds(tiny_decoder kind)
{
    tf_session_stats stats;
    tf_plan plan;
    tf_model_options o;
    tiny_bench b;

    tiny_bench_open(&b, kind, NULL);
    tf_model_options_init(&o);
    o.threads = 2;
    o.device = getenv("TFINFER_DEVICE");
    tf_plan_init(&plan);
    tf_session_stats_init(&stats);
    CHECK_OK(tf_model_plan(tiny_decoder_path(kind), &o, NULL, &plan));
    CHECK_OK(tf_session_get_stats(b.session, &stats));
    CHECK(plan.kv_bytes > 0 && plan.kv_bytes < plan.session_bytes);
    CHECK(plan.session_bytes >= stats.bytes && plan.session_bytes < stats.bytes + 4096);
    tiny_bench_close(&b);
}

static void plans_hold(void)
{
    the_plan_holds(TINY_GPT2);
    the_plan_holds(TINY_T5);
}

typedef struct attempt {
    tf_session *session;
    int kind;
} attempt;

static tf_status try_once(const attempt *a)
{
    int32_t sequences;
    tf_generate_options o = settings_of_kind(a->kind, &sequences);
    const tf_text stop = tf_text_of("zq");
    tf_generated_token t;
    tf_generated r;
    tf_generate *g;
    tf_status st;

    o.stop_strings = &stop;
    o.stop_string_count = 1;
    o.logprobs = o.prompt_logprobs = 1;
    if ((st = open_text(a->session, "abc", &o, &g)) < 0) return st;
    tf_generated_token_init(&t);
    tf_generated_init(&r);
    while ((st = tf_generate_next(g, -1, &t)) == TF_STATUS_OK) continue;
    if (st == TF_STATUS_END) st = tf_generate_result(g, 0, &r);
    tf_generate_close(g);
    return st;
}

static void out_of_memory(void)
{
    for (int kind = 0; kind < 2 * KINDS; kind++) {
        tiny_bench b;
        tiny_bench_open(&b, kind < KINDS ? TINY_GPT2 : TINY_T5, NULL);
        const attempt a = {b.session, kind % KINDS};
        const int64_t before = b.memory.live_bytes;
        for (int n = 1;; n++) {
            b.memory.fail_hit = 0;
            b.memory.fail_at = n;
            const tf_status st = try_once(&a);
            b.memory.fail_at = 0;
            CHECK_INT(b.memory.live_bytes, before);
            if (!b.memory.fail_hit) {
                CHECK_STATUS(st, TF_STATUS_OK);
                CHECK(n > 3);
                break;
            }
            CHECK_STATUS(st, TF_STATUS_NOMEM);
            if (st != TF_STATUS_NOMEM) break;
        }
        CHECK_OK(try_once(&a));
        tiny_bench_close(&b);
    }
}

/* Steps that decode take no memory from anywhere. (Those that read sources and prompts go through oneDNN, which does.) */
static void steps_allocate_nothing(tiny_decoder kind)
{
    tf_generate *g[KINDS];
    tiny_bench b;

    tiny_bench_open(&b, kind, NULL);
    for (int k = 0; k < KINDS; k++) {
        int32_t sequences;
        const tf_generate_options o = settings_of_kind(k, &sequences);
        CHECK_OK(open_text(b.session, prompts[k], &o, &g[k]));
    }
    const int64_t before = b.memory.live_bytes;
    int steps = 0;
    for (int i = 0; i < 2; i++) CHECK_OK(tf_session_step(b.session, -1));
    atomic_store(&mallocs, 0);
    atomic_store(&counting, 1);
    while (tf_session_step(b.session, -1) == TF_STATUS_OK) steps++;
    atomic_store(&counting, 0);
    CHECK(steps > 10);
    CHECK_INT(mallocs, 0);
    CHECK_INT(b.memory.live_bytes, before);
    for (int k = 0; k < KINDS; k++) tf_generate_close(g[k]);
    tiny_bench_close(&b);
}

static void steps_take_nothing(void)
{
    if (getenv("TFINFER_DEVICE")) { /* the matrix library and the graphs of a GPU's driver take what they want */
        printf("steps_take_nothing: skipped, the device is not the CPU\n");
        return;
    }
    steps_allocate_nothing(TINY_GPT2);
    steps_allocate_nothing(TINY_T5);
    if (!CAN_COUNT) printf("malloc is not counted under a sanitizer\n");
}

int main(int argc, char **argv)
{
    check_run(argc, argv, "gpt2_streams", gpt2_streams);
    check_run(argc, argv, "t5_streams", t5_streams);
    check_run(argc, argv, "gpt2_together", gpt2_together);
    check_run(argc, argv, "t5_together", t5_together);
    check_run(argc, argv, "many_threads_one_session", many_threads_one_session);
    check_run(argc, argv, "ten_thousand_handles", ten_thousand_handles);
    check_run(argc, argv, "cancelled_and_closed", cancelled_and_closed);
    check_run(argc, argv, "cancelled_by_another_thread", cancelled_by_another_thread);
    check_run(argc, argv, "timeouts_and_steps", timeouts_and_steps);
    check_run(argc, argv, "callbacks", callbacks);
    check_run(argc, argv, "room_is_kept", room_is_kept);
    check_run(argc, argv, "plans_hold", plans_hold);
    check_run(argc, argv, "out_of_memory", out_of_memory);
    check_run(argc, argv, "steps_take_nothing", steps_take_nothing);
    return check_done();
}
