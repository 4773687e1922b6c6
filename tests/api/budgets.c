/* Memory: every allocation in turn is made to fail, budgets hold, the plan covers what is taken, and cancelled calls leave
 * nothing behind. */
#include <stdlib.h>

#include "check.h"
#include "tiny_model.h"

static tf_model_options counted(check_memory *memory)
{
    tf_model_options o;

    tf_model_options_init(&o);
    o.allocator = &memory->hooks;
    o.threads = 2;
    return o;
}

static void nothing_left(const check_memory *memory)
{
    CHECK_INT(memory->live_blocks, 0);
    CHECK_INT(memory->live_bytes, 0);
}

/* The call that is made to fail at allocation 1, 2, ...; it must clean up behind itself. */
typedef tf_status (*attempt)(void *user);

/* Returns how many allocations the call makes. */
static int fail_each_allocation(check_memory *memory, attempt call, void *user)
{
    const int64_t before = memory->live_bytes;

    for (int n = 1;; n++) {
        memory->fail_hit = 0;
        memory->fail_at = n;
        const tf_status status = call(user);
        memory->fail_at = 0;
        if (!memory->fail_hit) {
            CHECK_STATUS(status, TF_STATUS_OK);
            return n - 1;
        }
        CHECK_STATUS(status, TF_STATUS_NOMEM);
        CHECK_INT(memory->live_bytes, before);
        if (status != TF_STATUS_NOMEM || memory->live_bytes != before) {
            check_failed(__FILE__, __LINE__, "this was allocation %d", n);
            return n;
        }
        CHECK_OK(call(user)); /* the next call works */
    }
}

typedef struct opening {
    const char *path;
    tf_model_options options;
} opening;

static tf_status open_model(void *user)
{
    const opening *o = user;
    tf_model *m;
    const tf_status status = tf_model_open(o->path, &o->options, &m);

    if (status < 0) CHECK(m == NULL);
    tf_model_close(status < 0 ? NULL : m);
    return status;
}

static tf_status open_session(void *user)
{
    tf_session *s;
    const tf_status status = tf_session_open(user, NULL, &s);

    if (status < 0) CHECK(s == NULL);
    tf_session_close(status < 0 ? NULL : s);
    return status;
}

typedef struct task {
    tf_session *session;
    tiny_head head;
} task;

static tf_status run_task(void *user)
{
    const task *t = user;
    float out[TINY_OUT];
    return tiny_run(t->session, t->head, out);
}

static tf_status plan_model(void *user)
{
    const opening *o = user;
    tf_plan plan;

    tf_plan_init(&plan);
    return tf_model_plan(o->path, &o->options, NULL, &plan);
}

static void out_of_memory(tiny_head head)
{
    check_memory memory;
    tf_model *m;
    task t = {.head = head};

    check_memory_init(&memory);
    opening o = {tiny_model_path(head), counted(&memory)};
    CHECK(fail_each_allocation(&memory, open_model, &o) > 0);
    nothing_left(&memory);
    fail_each_allocation(&memory, plan_model, &o);
    nothing_left(&memory);

    CHECK_OK(tf_model_open(o.path, &o.options, &m));
    CHECK(fail_each_allocation(&memory, open_session, m) > 0);
    CHECK_OK(tf_session_open(m, NULL, &t.session));
    fail_each_allocation(&memory, run_task, &t);
    tf_session_close(t.session);
    tf_model_close(m);
    nothing_left(&memory);
}

static void out_of_memory_base(void)
{
    out_of_memory(TINY_BASE);
}
static void out_of_memory_classifier(void)
{
    out_of_memory(TINY_CLASSIFIER);
}
static void out_of_memory_tagger(void)
{
    out_of_memory(TINY_TAGGER);
}
static void out_of_memory_answerer(void)
{
    out_of_memory(TINY_ANSWERER);
}
static void out_of_memory_masked_lm(void)
{
    out_of_memory(TINY_MASKED_LM);
}

typedef struct tokenizing {
    const char *path;
    tf_tokenizer_options options;
} tokenizing;

static tf_status use_tokenizer(void *user)
{
    const tokenizing *k = user;
    const tf_text texts[2] = {tf_text_of("The cat sat."), tf_text_of("xyzzy again, who is in Paris?")};
    tf_tokenizer *t;
    tf_encoding *e = NULL;
    tf_encoding_data d;
    char text[64];
    int64_t size;

    tf_status status = tf_tokenizer_open(k->path, &k->options, &t);
    if (status < 0) return status;
    status = tf_encoding_open(t, &e);
    if (status >= 0) status = tf_tokenizer_encode(t, texts, NULL, 2, NULL, e);
    tf_encoding_data_init(&d);
    if (status >= 0) status = tf_encoding_get(e, &d);
    if (status >= 0) status = tf_tokenizer_decode(t, d.ids, d.row_start[1], NULL, text, sizeof text, &size);
    tf_encoding_close(e);
    tf_tokenizer_close(t);
    return status;
}

static void out_of_memory_tokenizer(void)
{
    check_memory memory;
    tokenizing k = {.path = tiny_model_path(TINY_BASE)};

    check_memory_init(&memory);
    tf_tokenizer_options_init(&k.options);
    k.options.allocator = &memory.hooks;
    CHECK(fail_each_allocation(&memory, use_tokenizer, &k) > 0);
    nothing_left(&memory);
}

/* ---- budgets ---- */

static void budgets_hold(void)
{
    const char *path = tiny_model_path(TINY_BASE);
    check_memory memory;
    tf_session_options so;
    tf_model *m;
    tf_session *s;
    tf_plan plan;

    check_memory_init(&memory);
    tf_model_options o = counted(&memory);
    tf_plan_init(&plan);
    CHECK_OK(tf_model_plan(path, &o, NULL, &plan));
    CHECK(plan.weight_bytes > 0 && plan.session_bytes > 0);
    CHECK_INT(plan.total_bytes, plan.weight_bytes + plan.mapped_bytes + plan.model_bytes + plan.session_bytes);

    static const int64_t small[] = {0, 1, 4096, 50000};
    for (int i = 0; i < 4; i++) {
        o.memory_budget = small[i];
        memory.peak_bytes = 0;
        CHECK_STATUS(tf_model_open(path, &o, &m), TF_STATUS_NOMEM);
        CHECK(memory.peak_bytes <= small[i]);
        nothing_left(&memory);
    }
    CHECK_ERROR_SAYS("50000");

    /* What the plan says is enough. */
    o.memory_budget = plan.weight_bytes + plan.model_bytes + plan.load_bytes;
    memory.peak_bytes = 0;
    const tf_status status = tf_model_open(path, &o, &m);
    CHECK_STATUS(status, TF_STATUS_OK);
    if (status < 0) return;
    CHECK(memory.peak_bytes <= o.memory_budget);
    CHECK(memory.live_bytes <= plan.weight_bytes + plan.model_bytes);
    const int64_t model_bytes = memory.live_bytes;

    tf_session_options_init(&so);
    so.memory_budget = 1000;
    CHECK_STATUS(tf_session_open(m, &so, &s), TF_STATUS_NOMEM);
    CHECK_ERROR_SAYS("1000");
    CHECK_INT(memory.live_bytes, model_bytes);
    so.memory_budget = plan.session_bytes;
    CHECK_OK(tf_session_open(m, &so, &s));
    CHECK(memory.live_bytes - model_bytes <= plan.session_bytes);
    float out[TINY_OUT];
    CHECK_OK(tiny_run(s, TINY_BASE, out));
    tf_session_close(s);
    tf_model_close(m);
    nothing_left(&memory);
}

/* Ids are run in what tf_session_open reserved; a call takes nothing more but a number a sequence, and gives it back. */
static void runs_take_what_was_reserved(void)
{
    static const int32_t ids[] = {TINY_CLS, 7, 8, 9, TINY_SEP, TINY_CLS, 20, TINY_SEP}, lens[] = {5, 3};
    check_memory memory;
    tf_model *m;
    tf_session *s;
    tf_input in;
    float out[2 * TINY_WIDTH];

    check_memory_init(&memory);
    const tf_model_options o = counted(&memory);
    tiny_open(TINY_BASE, &o, &m, &s);
    tf_input_init(&in);
    in.ids = ids;
    in.lens = lens;
    in.count = 2;
    const int64_t before = memory.live_bytes;
    memory.peak_bytes = before;
    CHECK_OK(tf_embed(s, &in, NULL, out, TINY_WIDTH));
    CHECK(memory.peak_bytes - before <= (in.count + 1) * 8);
    CHECK_INT(memory.live_bytes, before);
    tf_session_close(s);
    tf_model_close(m);
    nothing_left(&memory);
}

/* ---- cancelling ---- */

typedef struct watch {
    int calls, cancel_at;
    int64_t done, total;
} watch;

static int32_t progress(void *user, int64_t done, int64_t total)
{
    watch *w = user;

    CHECK(done >= w->done && done <= total);
    w->done = done;
    w->total = total;
    return ++w->calls == w->cancel_at;
}

static void cancelled_open(void)
{
    check_memory memory;
    tf_model *m;

    check_memory_init(&memory);
    tf_model_options o = counted(&memory);
    watch w = {.cancel_at = 1};
    o.progress = progress;
    o.progress_user = &w;
    CHECK_STATUS(tf_model_open(tiny_model_path(TINY_BASE), &o, &m), TF_STATUS_CANCELLED);
    CHECK(m == NULL);
    CHECK_INT(w.calls, 1);
    nothing_left(&memory);
    w = (watch){0};
    CHECK_OK(tf_model_open(tiny_model_path(TINY_BASE), &o, &m));
    CHECK(w.calls > 0 && w.done == w.total && w.total > 0);
    tf_model_close(m);
    nothing_left(&memory);
}

static void cancelled_run(void)
{
    enum { TEXTS = 12 };
    tf_text texts[TEXTS];
    float out[TEXTS * TINY_WIDTH];
    tf_session_options so;
    tf_model *m;
    tf_session *s, *wide;
    watch w = {.cancel_at = 2};

    for (int i = 0; i < TEXTS; i++) texts[i] = tf_text_of("the cat sat on a mat. who lives in paris? rates rose again!");
    tiny_open(TINY_BASE, NULL, &m, &wide);
    tf_session_options_init(&so);
    so.max_step_tokens = TINY_POSITIONS; /* so that the call takes several steps */
    CHECK_OK(tf_session_open(m, &so, &s));
    tf_input in = tiny_texts(texts, TEXTS);
    in.progress = progress;
    in.progress_user = &w;
    CHECK_STATUS(tf_embed(s, &in, NULL, out, TINY_WIDTH), TF_STATUS_CANCELLED);
    CHECK_INT(w.calls, 2);
    w = (watch){0};
    CHECK_OK(tf_embed(s, &in, NULL, out, TINY_WIDTH));
    CHECK(w.calls >= TEXTS / 4);
    CHECK_INT(w.done, w.total);
    tf_session_close(s);
    tf_session_close(wide);
    tf_model_close(m);
}

int main(int argc, char **argv)
{
    check_run(argc, argv, "out_of_memory_base", out_of_memory_base);
    check_run(argc, argv, "out_of_memory_classifier", out_of_memory_classifier);
    check_run(argc, argv, "out_of_memory_tagger", out_of_memory_tagger);
    check_run(argc, argv, "out_of_memory_answerer", out_of_memory_answerer);
    check_run(argc, argv, "out_of_memory_masked_lm", out_of_memory_masked_lm);
    check_run(argc, argv, "out_of_memory_tokenizer", out_of_memory_tokenizer);
    check_run(argc, argv, "budgets_hold", budgets_hold);
    check_run(argc, argv, "runs_take_what_was_reserved", runs_take_what_was_reserved);
    check_run(argc, argv, "cancelled_open", cancelled_open);
    check_run(argc, argv, "cancelled_run", cancelled_run);
    return check_done();
}
