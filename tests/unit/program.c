/* Programs of the CPU backend: a small encoder over every op kind, run by the backend and by its reference; taps, resumed runs,
 * rows that are not there, results that are not finite, exact bytes, failing allocations, threads and fork. */
#define _GNU_SOURCE
#include <dirent.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "backend/cpu/cpu.h"
#include "check.h"
#include "graph/build.h"

enum { E = 48, F = 112, HEADS = 3, VOCAB = 77, POSITIONS = 40, WEIGHTS_MAX = 24, SEQUENCES = 5, TOKENS = 120, THREADS = 2, KV_TOKENS = 96 };

static tfi_memory memory;

/* ---- a model in memory ---- */

typedef struct model {
    tfi_arena arena;
    tfi_graph graph;
    tfi_tensor tensors[WEIGHTS_MAX];
    int tensor_count;
    int32_t hidden, logits, pooled, unit; /* values */
} model;

static const tfi_tensor *tensor(model *m, int64_t rows, int64_t cols, float low, float high)
{
    tfi_tensor *t = &m->tensors[m->tensor_count++];
    *t = (tfi_tensor){.name = "t", .dtype = TFI_F32, .rank = rows ? 2 : 1, .span = (size_t)((rows ? rows : 1) * cols * 4)};
    t->shape[0] = rows ? rows : cols;
    t->shape[1] = cols;
    t->stride[0] = rows ? cols : 1;
    t->stride[1] = 1;
    t->data = (const uint8_t *)check_floats((rows ? rows : 1) * cols, low, high);
    return t;
}

static int32_t matrix(tfi_builder *b, model *m, int64_t rows, int64_t cols, tfi_dtype dtype)
{
    const float r = 1.5f / sqrtf((float)cols);
    return tfi_build_weight(b, &(tfi_weight){.name = "matrix",
                                             .rows = rows,
                                             .cols = cols,
                                             .dtype = dtype,
                                             .parts = 1,
                                             .part = {tensor(m, rows, cols, -r, r)},
                                             .part_rows = {rows}});
}

static int32_t vector(tfi_builder *b, model *m, int64_t cols, float low, float high)
{
    return tfi_build_weight(b, &(tfi_weight){.name = "vector",
                                             .rows = 1,
                                             .cols = cols,
                                             .dtype = TFI_F32,
                                             .parts = 1,
                                             .part = {tensor(m, 0, cols, low, high)},
                                             .part_rows = {cols}});
}

static void model_open(model *m, tfi_dtype dtype)
{
    tfi_builder b;

    *m = (model){.arena = {.memory = &memory}};
    tfi_build_begin(&b, &m->arena, &memory);
    const int32_t word = matrix(&b, m, VOCAB, E, dtype), position = matrix(&b, m, POSITIONS, E, dtype),
                  type = matrix(&b, m, 2, E, dtype);
    int32_t x = tfi_build_embed(&b, "embed", word, position, type, dtype);
    x = tfi_build_norm(&b, "embed_norm", x, -1, vector(&b, m, E, 0.5f, 1.5f), vector(&b, m, E, -1, 1), 1e-5f, dtype);
    const int32_t qkv =
        tfi_build_linear(&b, "qkv", x, matrix(&b, m, 3 * E, E, dtype), vector(&b, m, 3 * E, -1, 1), TFI_ACT_NONE, -1, dtype);
    const int32_t attended = tfi_build_attention(
        &b, "attention", qkv, &(tfi_attention_spec){.heads = HEADS, .head_size = E / HEADS, .scale = 0.25f, .bias = -1});
    const int32_t out = tfi_build_linear(&b, "out", attended, matrix(&b, m, E, E, dtype), -1, TFI_ACT_NONE, x, dtype);
    x = tfi_build_norm(&b, "norm", out, x, vector(&b, m, E, 0.5f, 1.5f), vector(&b, m, E, -1, 1), 1e-5f, dtype);
    const int32_t inner =
        tfi_build_linear(&b, "inner", x, matrix(&b, m, F, E, dtype), vector(&b, m, F, -1, 1), TFI_ACT_GELU, -1, dtype);
    m->hidden = tfi_build_linear(&b, "hidden", inner, matrix(&b, m, E, F, dtype), -1, TFI_ACT_NONE, x, dtype);
    tfi_build_keep(&b, m->hidden);
    const int32_t rows = tfi_build_gather(&b, "rows", m->hidden);
    m->logits = tfi_build_linear(&b, "logits", rows, word, vector(&b, m, VOCAB, -1, 1), TFI_ACT_NONE, -1, TFI_F32);
    m->pooled = tfi_build_pool(&b, "pooled", m->hidden, TFI_POOL_CLS | TFI_POOL_MEAN << 3, TFI_F32);
    m->unit = tfi_build_l2norm(&b, "unit", m->pooled, 1e-12f);
    CHECK_OK(tfi_build_finish(&b, NULL, &m->graph));
}

static void model_close(model *m)
{
    tfi_arena_close(&m->arena);
}

/* ---- one backend with its forms and program ---- */

typedef struct engine {
    tfi_backend *backend;
    tfi_weight_form forms[WEIGHTS_MAX];
    tfi_program *program;
    tfi_memory memory; /* of the program */
} engine;

static const int64_t limits[TFI_LIMIT_COUNT] = {TOKENS, SEQUENCES, 16, KV_TOKENS};

static void engine_open(engine *e, const model *m, int reference, unsigned features)
{
    const tfi_cpu_options o = {.memory = &memory, .threads = THREADS, .features = features, .reference = reference};
    int64_t bytes = 0;

    tfi_memory_init(&e->memory, NULL, TF_UNSET);
    CHECK_OK(tfi_cpu_open(&o, &e->backend));
    for (int32_t i = 0; i < m->graph.weight_count; i++) {
        CHECK_OK(e->backend->weight_form(e->backend, &m->graph.weights[i], &e->forms[i]));
        e->forms[i].data = check_bytes(e->forms[i].bytes);
        CHECK_OK(e->backend->weight_prepare(e->backend, &m->graph.weights[i], &e->forms[i], NULL));
    }
    CHECK_OK(e->backend->program_bytes(e->backend, &m->graph, limits, &bytes));
    CHECK_OK(e->backend->program_open(e->backend, &m->graph, e->forms, limits, &e->memory, &e->program));
    CHECK_INT(e->memory.used, bytes);
    CHECK_INT(e->memory.peak, bytes); /* a budget of exactly the plan is enough */
}

static void engine_close(engine *e)
{
    e->backend->program_close(e->program);
    CHECK_INT(e->memory.used, 0);
    e->backend->close(e->backend);
}

/* ---- inputs ---- */

typedef struct input {
    int32_t ids[TOKENS], positions[TOKENS], types[TOKENS], offsets[SEQUENCES + 1], selected[16];
    int64_t rows[TFI_ROWS_COUNT];
} input;

static int32_t below(int32_t n)
{
    return (int32_t)(check_random() % (uint64_t)n);
}

static void input_make(input *in, int32_t sequences, int32_t selected)
{
    int32_t tokens = 0;

    for (int32_t s = 0; s < sequences; s++) {
        const int32_t len = 1 + below(TOKENS / SEQUENCES - 1);
        in->offsets[s] = tokens;
        for (int32_t i = 0; i < len; i++, tokens++) {
            in->ids[tokens] = below(VOCAB);
            in->positions[tokens] = i;
            in->types[tokens] = below(2);
        }
    }
    in->offsets[sequences] = tokens;
    for (int32_t i = 0; i < selected; i++) in->selected[i] = below(tokens);
    memcpy(in->rows, (int64_t[]){tokens, sequences, selected}, sizeof in->rows);
}

static tfi_run run_of(const input *in, const tfi_tap *taps, int32_t tap_count)
{
    tfi_run run = {.taps = taps, .tap_count = tap_count};
    memcpy(run.rows, in->rows, sizeof run.rows);
    run.inputs[TFI_INPUT_IDS] = in->ids;
    run.inputs[TFI_INPUT_POSITIONS] = in->positions;
    run.inputs[TFI_INPUT_TYPES] = in->types;
    run.inputs[TFI_INPUT_OFFSETS] = in->offsets;
    run.inputs[TFI_INPUT_SELECTED] = in->selected;
    return run;
}

typedef struct outputs {
    float *data[8];
    tfi_tap taps[8];
    int64_t sizes[8];
    int32_t count;
} outputs;

static void outputs_add(outputs *o, const model *m, const input *in, int32_t value)
{
    const int64_t cols = m->graph.values[value].cols, stride = cols + 3, rows = in->rows[m->graph.values[value].rows];
    float *p = check_out(rows * stride);

    memset(p, 0, (size_t)(rows * stride) * sizeof *p); /* gaps between rows compare as equal, and must stay so */
    o->data[o->count] = p;
    o->sizes[o->count] = rows * stride;
    o->taps[o->count++] = (tfi_tap){.value = value, .dst = p, .stride = stride};
}

static outputs outputs_make(const model *m, const input *in)
{
    outputs o = {.count = 0};
    outputs_add(&o, m, in, m->hidden);
    outputs_add(&o, m, in, m->logits);
    outputs_add(&o, m, in, m->unit);
    outputs_add(&o, m, in, 0);
    outputs_add(&o, m, in, m->hidden); /* a value may be tapped twice */
    return o;
}

static void compare(const outputs *a, const outputs *b, double bound)
{
    for (int i = 0; i < a->count; i++) {
        const double error = check_relative_l2(a->data[i], b->data[i], a->sizes[i]);
        check_count++;
        if (!(error <= bound)) check_failed(__FILE__, __LINE__, "tap %d: relative error %g", i, error);
    }
}

static tf_status no_bf16(void)
{
    tfi_backend *b;
    CHECK_OK(tfi_cpu_open(&(tfi_cpu_options){.memory = &memory, .threads = 1}, &b));
    const tf_status status = b->supports(b, TFI_BF16);
    b->close(b);
    return status;
}

static void against_reference(void)
{
    static const unsigned tiers[] = {0, TFI_CPU_AVX2, TFI_CPU_AVX2 | TFI_CPU_AVX512 | TFI_CPU_AVX512_BF16};
    static input in;

    for (int type = 0; type < 2; type++) {
        for (int t = 0; t < 3; t++) {
            const unsigned features = tiers[t] & tfi_cpu_features();
            engine fast, plain;
            model m;
            model_open(&m, type ? TFI_BF16 : TFI_F32);
            engine_open(&plain, &m, 1, features);
            if (type && !plain.backend->has_bf16) { /* refused there, by name */
                const tf_status refused = no_bf16();
                CHECK_INT(refused, TF_STATUS_UNSUPPORTED);
                engine_close(&plain);
                model_close(&m);
                continue;
            }
            engine_open(&fast, &m, 0, features);
            for (int i = 0; i < 4; i++) {
                input_make(&in, 1 + below(SEQUENCES), 1 + below(16));
                outputs a = outputs_make(&m, &in), b = outputs_make(&m, &in);
                tfi_run run = run_of(&in, a.taps, a.count);
                CHECK_OK(fast.backend->run(fast.program, &run));
                run.taps = b.taps;
                CHECK_OK(plain.backend->run(plain.program, &run));
                compare(&a, &b, type ? 2e-2 : 2e-6);
            }
            engine_close(&fast);
            engine_close(&plain);
            model_close(&m);
        }
    }
}

static void resumed(void)
{
    static input in;
    engine e;
    model m;

    model_open(&m, TFI_F32);
    engine_open(&e, &m, 0, tfi_cpu_features());
    input_make(&in, 3, 5);
    outputs whole = outputs_make(&m, &in), part = {.count = 0};
    tfi_run run = run_of(&in, whole.taps, whole.count);
    CHECK_OK(e.backend->run(e.program, &run));
    outputs_add(&part, &m, &in, m.hidden);
    outputs_add(&part, &m, &in, m.logits);
    run = run_of(&in, part.taps, part.count);
    run.resume = 1;
    run.inputs[TFI_INPUT_IDS] = NULL; /* nobody looks */
    run.inputs[TFI_INPUT_POSITIONS] = NULL;
    CHECK_OK(e.backend->run(e.program, &run));
    CHECK(memcmp(part.data[0], whole.data[0], (size_t)part.sizes[0] * 4) == 0);
    CHECK(memcmp(part.data[1], whole.data[1], (size_t)part.sizes[1] * 4) == 0);

    /* No selected rows: the ops over them do nothing. No taps: nothing at all. */
    in.rows[TFI_ROWS_SELECTED] = 0;
    run = run_of(&in, whole.taps, whole.count);
    run.inputs[TFI_INPUT_SELECTED] = NULL;
    CHECK_OK(e.backend->run(e.program, &run));
    run.tap_count = 0;
    run.inputs[TFI_INPUT_IDS] = NULL;
    CHECK_OK(e.backend->run(e.program, &run));
    engine_close(&e);
    model_close(&m);
}

/* The same text alone and among others. */
static void same_alone(void)
{
    static input in, one;
    engine e;
    model m;

    model_open(&m, TFI_F32);
    engine_open(&e, &m, 0, tfi_cpu_features());
    for (int round = 0; round < 5; round++) {
        outputs all = {.count = 0}, alone = {.count = 0};
        input_make(&in, SEQUENCES, 1);
        const int32_t s = below(SEQUENCES), begin = in.offsets[s], len = in.offsets[s + 1] - begin;
        memcpy(one.ids, in.ids + begin, (size_t)len * 4);
        memcpy(one.positions, in.positions + begin, (size_t)len * 4);
        memcpy(one.types, in.types + begin, (size_t)len * 4);
        memcpy(one.offsets, (int32_t[]){0, len}, 8);
        memcpy(one.rows, (int64_t[]){len, 1, 0}, sizeof one.rows);
        outputs_add(&all, &m, &in, m.hidden);
        outputs_add(&alone, &m, &one, m.hidden);
        tfi_run run = run_of(&in, all.taps, 1);
        CHECK_OK(e.backend->run(e.program, &run));
        run = run_of(&one, alone.taps, 1);
        CHECK_OK(e.backend->run(e.program, &run));
        CHECK(check_relative_l2(alone.data[0], all.data[0] + begin * all.taps[0].stride, alone.sizes[0]) <= 2e-6);
    }
    engine_close(&e);
    model_close(&m);
}

static void not_finite(void)
{
    static input in;
    engine e;
    model m;

    model_open(&m, TFI_F32);
    ((float *)m.tensors[5].data)[17] = INFINITY; /* of qkv's matrix */
    engine_open(&e, &m, 0, tfi_cpu_features());
    for (int i = 0; i < 20; i++) {
        input_make(&in, SEQUENCES, 4);
        outputs o = outputs_make(&m, &in);
        tfi_run run = run_of(&in, o.taps, o.count);
        CHECK_STATUS(e.backend->run(e.program, &run), TF_STATUS_NUMERIC);
        CHECK_ERROR_SAYS("of hidden holds a NaN");
        run.taps = &o.taps[3]; /* the value before the defect is fine */
        run.tap_count = 1;
        CHECK_OK(e.backend->run(e.program, &run));
    }
    engine_close(&e);
    model_close(&m);
}

static void refused_and_failing(void)
{
    check_memory counting;
    tfi_memory failing;
    tfi_program *p;
    engine e;
    model m;

    model_open(&m, TFI_F32);
    engine_open(&e, &m, 0, tfi_cpu_features());
    for (int n = 1;; n++) {
        check_memory_init(&counting);
        counting.fail_at = n;
        tfi_memory_init(&failing, &counting.hooks, TF_UNSET);
        const tf_status status = e.backend->program_open(e.backend, &m.graph, e.forms, limits, &failing, &p);
        if (!counting.fail_hit) {
            CHECK_OK(status);
            e.backend->program_close(p);
            CHECK_INT(counting.live_blocks, 0);
            break;
        }
        CHECK_STATUS(status, TF_STATUS_NOMEM);
        CHECK(p == NULL);
        CHECK_INT(counting.live_blocks, 0);
    }
    for (int n = 1;; n++) {
        tfi_backend *b;
        check_memory_init(&counting);
        counting.fail_at = n;
        tfi_memory_init(&failing, &counting.hooks, TF_UNSET);
        const tf_status status = tfi_cpu_open(&(tfi_cpu_options){.memory = &failing, .threads = 1}, &b);
        if (status == TF_STATUS_OK) b->close(b);
        CHECK_INT(counting.live_blocks, 0);
        if (!counting.fail_hit) break;
        CHECK_STATUS(status, TF_STATUS_NOMEM);
    }
    m.graph.values[m.logits].dtype = TFI_F16;
    CHECK_STATUS(e.backend->program_open(e.backend, &m.graph, e.forms, limits, &memory, &p), TF_STATUS_UNSUPPORTED);
    CHECK_ERROR_SAYS("LINEAR of logits");
    CHECK_ERROR_SAYS("fp16");
    m.graph.values[m.logits].dtype = TFI_F32;
    CHECK_STATUS(e.backend->supports(e.backend, TFI_F16), TF_STATUS_UNSUPPORTED);
    tfi_backend *none;
    CHECK_STATUS(tfi_cpu_open(&(tfi_cpu_options){.memory = &memory, .threads = -1}, &none), TF_STATUS_INVALID);
    engine_close(&e);
    model_close(&m);
}

/* ---- threads and fork ---- */

typedef struct caller {
    engine *e;
    tfi_program *program;
    const model *m;
    const input *in;
    const outputs *expected;
    int wrong;
} caller;

#if defined(__SANITIZE_THREAD__)
enum { CAN_FORK = 0 }; /* the thread sanitizer does not know threads of a forked child, and has a thread of its own */
#else
enum { CAN_FORK = 1 };
#endif

static void *call(void *arg)
{
    caller *c = arg;
    float space[SEQUENCES * (2 * E + 3)];
    const tfi_tap mine = {.value = c->m->unit, .dst = space, .stride = 2 * E + 3};

    for (int i = 0; i < 10; i++) {
        const tfi_run run = run_of(c->in, &mine, 1);
        memset(space, 0, sizeof space);
        if (c->e->backend->run(c->program, &run) < 0) c->wrong++;
        if (!(check_relative_l2(space, c->expected->data[2], c->expected->sizes[2]) <= 1e-6)) c->wrong++;
    }
    return NULL;
}

static int threads_now(void)
{
    DIR *d = opendir("/proc/self/task");
    int n = 0;
    for (struct dirent *e; d && (e = readdir(d));) n += e->d_name[0] != '.';
    if (d) closedir(d);
    return n;
}

/* The child computes with the weights of its parent and threads of its own, and closes everything. */
static void fork_and_call(caller *callers, int count)
{
    engine *e = callers[0].e;
    const pid_t child = fork();
    if (child == 0) {
        alarm(60);
        (void)call(&callers[0]);
        const int right = callers[0].wrong == 0 && threads_now() == 1 + THREADS;
        e->backend->program_close(e->program);
        for (int i = 0; i < count; i++) e->backend->program_close(callers[i].program);
        e->backend->close(e->backend);
        _exit(right ? 0 : 1);
    }
    int status = -1;
    waitpid(child, &status, 0);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void callers_and_fork(void)
{
    enum { CALLERS = 16 };
    static input in;
    caller callers[CALLERS];
    pthread_t threads[CALLERS];
    engine e;
    model m;

    model_open(&m, TFI_F32);
    engine_open(&e, &m, 0, tfi_cpu_features());
    input_make(&in, 4, 3);
    outputs o = outputs_make(&m, &in);
    tfi_run run = run_of(&in, o.taps, o.count);
    CHECK_OK(e.backend->run(e.program, &run));
    const int calm = threads_now(); /* this thread, the pool's, and one of a sanitizer's */
    if (CAN_FORK) CHECK_INT(calm, 1 + THREADS);
    for (int i = 0; i < CALLERS; i++) {
        callers[i] = (caller){.e = &e, .m = &m, .in = &in, .expected = &o};
        CHECK_OK(e.backend->program_open(e.backend, &m.graph, e.forms, limits, &e.memory, &callers[i].program));
    }
    for (int i = 0; i < CALLERS; i++) pthread_create(&threads[i], NULL, call, &callers[i]);
    CHECK(threads_now() <= calm + CALLERS);
    for (int i = 0; i < CALLERS; i++) {
        pthread_join(threads[i], NULL);
        CHECK_INT(callers[i].wrong, 0);
    }
    CHECK_INT(threads_now(), calm); /* no OpenMP team was ever made */

    if (CAN_FORK) fork_and_call(callers, CALLERS);
    (void)call(&callers[0]);
    CHECK_INT(callers[0].wrong, 0);
    for (int i = 0; i < CALLERS; i++) e.backend->program_close(callers[i].program);
    engine_close(&e);
    model_close(&m);
}

int main(int argc, char **argv)
{
    tfi_memory_init(&memory, NULL, TF_UNSET);
    check_run(argc, argv, "against_reference", against_reference);
    check_run(argc, argv, "resumed", resumed);
    check_run(argc, argv, "same_alone", same_alone);
    check_run(argc, argv, "not_finite", not_finite);
    check_run(argc, argv, "refused_and_failing", refused_and_failing);
    check_run(argc, argv, "callers_and_fork", callers_and_fork);
    CHECK_INT(memory.used, 0);
    return check_done();
}
