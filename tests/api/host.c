/* What the library promises its host process: threads, fork, signals, stack, settings that belong to everybody. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <fenv.h>
#include <locale.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "tiny_model.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { SANITIZED = 1 }; /* frames are larger and the tool has threads of its own */
#else
enum { SANITIZED = 0 };
#endif

enum { POOL = 2, CALLERS = 16, MANY = 64 };

/* Enough work that every thread of the pool is wanted. */
static tf_status run_many(tf_session *s, float *out)
{
    tf_text texts[MANY];

    for (int i = 0; i < MANY; i++)
        texts[i] = tf_text_of("the cat sat on a mat. who lives in paris? rates rose again, is the cat in?");
    const tf_input in = tiny_texts(texts, MANY);
    return tf_embed(s, &in, NULL, out, TINY_WIDTH);
}

static int list_threads(int *tids, int capacity)
{
    int count = 0;
    DIR *d = opendir("/proc/self/task");

    for (struct dirent *e; (e = readdir(d));) {
        if (e->d_name[0] == '.') continue;
        if (count < capacity) tids[count] = atoi(e->d_name);
        count++;
    }
    closedir(d);
    return count;
}

/* ---- threads ---- */

typedef struct caller {
    pthread_t thread;
    tf_session *session;
    const float *expected;
    double worst;
    tf_status status;
} caller;

static atomic_int finished;

static void *call_often(void *arg)
{
    caller *c = arg;
    float *out = malloc(sizeof(float) * MANY * TINY_WIDTH);

    for (int i = 0; i < 6 && c->status >= 0; i++) {
        if ((c->status = run_many(c->session, out)) < 0) break;
        const double error = check_relative_l2(out, c->expected, MANY * TINY_WIDTH);
        if (!(error <= c->worst)) c->worst = error;
    }
    free(out);
    finished++;
    return NULL;
}

static void call_from_many_threads(int one_session)
{
    static float expected[MANY * TINY_WIDTH];
    caller callers[CALLERS] = {{0}};
    int most = 0;
    tf_model *m;
    tf_session *s;

    const int before = list_threads(NULL, 0);
    tiny_open(TINY_BASE, NULL, &m, &s);
    CHECK_OK(run_many(s, expected));
    finished = 0;
    for (int i = 0; i < CALLERS; i++) {
        callers[i].session = s;
        callers[i].expected = expected;
        if (!one_session) CHECK_OK(tf_session_open(m, NULL, &callers[i].session));
    }
    for (int i = 0; i < CALLERS; i++) pthread_create(&callers[i].thread, NULL, call_often, &callers[i]);
    while (finished < CALLERS) {
        const int now = list_threads(NULL, 0);
        if (now > most) most = now;
        usleep(1000);
    }
    for (int i = 0; i < CALLERS; i++) {
        pthread_join(callers[i].thread, NULL);
        CHECK_INT(callers[i].status, TF_STATUS_OK);
        CHECK(callers[i].worst <= 2e-6);
        if (!one_session) tf_session_close(callers[i].session);
    }
    if (most > before + CALLERS + POOL)
        check_failed(__FILE__, __LINE__, "%d threads, expected %d callers + %d of the pool + %d", most, CALLERS, POOL, before);
    check_count++;
    tf_session_close(s);
    tf_model_close(m);
    CHECK_INT(list_threads(NULL, 0), before); /* closing ends the pool */
}

static void sixteen_callers(void)
{
    call_from_many_threads(0);
}

static void sixteen_callers_of_one_session(void)
{
    call_from_many_threads(1);
}

/* All signals that can be blocked, as /proc shows masks; glibc keeps 32 and 33 for itself. */
static int blocks_all_signals(int tid)
{
    char path[64], line[256];
    unsigned long long mask = 0;

    snprintf(path, sizeof path, "/proc/self/task/%d/status", tid);
    FILE *f = fopen(path, "r");
    while (f && fgets(line, sizeof line, f)) {
        if (sscanf(line, "SigBlk: %llx", &mask) == 1) break;
    }
    if (f) fclose(f);
    const unsigned long long all = ~0ull & ~(1ull << (SIGKILL - 1) | 1ull << (SIGSTOP - 1) | 3ull << 31);
    return (mask & all) == all;
}

static int is_named(int tid)
{
    char path[64], name[32] = "";

    snprintf(path, sizeof path, "/proc/self/task/%d/comm", tid);
    FILE *f = fopen(path, "r");
    if (f && !fgets(name, sizeof name, f)) name[0] = 0;
    if (f) fclose(f);
    return strncmp(name, "tfinfer", 7) == 0;
}

static void threads_block_signals(void)
{
    static float out[MANY * TINY_WIDTH];
    int before[64], after[64], added = 0;
    sigset_t mask, mask_after;
    tf_model *m;
    tf_session *s;

    pthread_sigmask(SIG_SETMASK, NULL, &mask);
    const int count_before = list_threads(before, 64);
    tiny_open(TINY_BASE, NULL, &m, &s);
    CHECK_OK(run_many(s, out));
    const int count_after = list_threads(after, 64);
    for (int i = 0; i < count_after && i < 64; i++) {
        int old = 0;
        for (int k = 0; k < count_before && k < 64; k++) old |= before[k] == after[i];
        if (old) continue;
        added++;
        CHECK(is_named(after[i]));
        CHECK(blocks_all_signals(after[i]));
    }
    CHECK(added >= 1 && added <= POOL);
    pthread_sigmask(SIG_SETMASK, NULL, &mask_after);
    for (int i = 1; i < 32; i++)
        CHECK_INT(sigismember(&mask_after, i), sigismember(&mask, i)); /* the caller's own mask is as it was */
    tf_session_close(s);
    tf_model_close(m);
}

static void *fail_here(void *arg)
{
    tf_model *m;

    CHECK_TEXT(tf_last_error(), ""); /* another thread's error is not ours */
    CHECK_STATUS(tf_model_open("/nonexistent/of-a-thread", NULL, &m), TF_STATUS_NOT_FOUND);
    CHECK_ERROR_SAYS("of-a-thread");
    return arg;
}

static void last_error_is_of_the_thread(void)
{
    tf_model *m;
    pthread_t t;

    CHECK_STATUS(tf_model_open("/nonexistent/of-main", NULL, &m), TF_STATUS_NOT_FOUND);
    pthread_create(&t, NULL, fail_here, NULL);
    pthread_join(t, NULL);
    CHECK_ERROR_SAYS("of-main");
}

/* ---- fork ---- */

static void fork_and_go_on(void)
{
    static float expected[MANY * TINY_WIDTH], out[MANY * TINY_WIDTH];
    tf_model *m;
    tf_session *s;
    int state;

#if defined(__SANITIZE_THREAD__)
    printf("fork_and_go_on: skipped, ThreadSanitizer does not follow threads that a forked child starts\n");
    return;
#endif
    tiny_open(TINY_BASE, NULL, &m, &s);
    CHECK_OK(run_many(s, expected));
    fflush(NULL);
    const pid_t child = fork();
    if (child == 0) {
        alarm(60); /* a child that waits for the parent's threads must not hang the test */
        if (run_many(s, out) < 0) _exit(1);
        if (!(check_relative_l2(out, expected, MANY * TINY_WIDTH) <= 2e-6)) _exit(2);
        tf_session *own; /* and a new session of the old model */
        if (tf_session_open(m, NULL, &own) < 0 || run_many(own, out) < 0) _exit(3);
        if (!(check_relative_l2(out, expected, MANY * TINY_WIDTH) <= 2e-6)) _exit(4);
        tf_session_close(own);
        tf_session_close(s);
        tf_model_close(m);
        _exit(0);
    }
    CHECK_OK(run_many(s, out)); /* while the child is at it */
    CHECK(child > 0 && waitpid(child, &state, 0) == child);
    CHECK(WIFEXITED(state));
    CHECK_INT(WEXITSTATUS(state), 0);
    CHECK_OK(run_many(s, out));
    CHECK(check_relative_l2(out, expected, MANY * TINY_WIDTH) <= 2e-6);
    tf_session_close(s);
    tf_model_close(m);
}

/* ---- stack ---- */

enum { STACK = SANITIZED ? 1 << 20 : 128 << 10, STACK_USED_MAX = 64 << 10, PAINT = 0xA5 };

typedef struct stack_state {
    unsigned char *low; /* of the thread's stack */
    tiny_head head;
    tf_model *model;
    tf_session *session;
    tf_tokenizer *tokenizer;
    tf_encoding *encoding;
    float out[TINY_OUT];
} stack_state;

static tf_status plan_it(stack_state *k)
{
    tf_plan plan;
    tf_plan_init(&plan);
    return tf_model_plan(tiny_model_path(k->head), NULL, NULL, &plan);
}

static tf_status open_it(stack_state *k)
{
    tf_model_options o;
    tf_model_options_init(&o);
    o.threads = POOL;
    return tf_model_open(tiny_model_path(k->head), &o, &k->model);
}

static tf_status open_session(stack_state *k)
{
    return tf_session_open(k->model, NULL, &k->session);
}

static tf_status run_it(stack_state *k)
{
    return tiny_run(k->session, k->head, k->out);
}

static tf_status print_it(stack_state *k)
{
    int64_t size;
    const tf_status status = tf_model_graph(k->model, TF_GRAPH_TEXT, NULL, 0, &size);
    return status == TF_STATUS_TOO_SMALL ? TF_STATUS_OK : status;
}

static tf_status open_tokenizer(stack_state *k)
{
    const tf_status status = tf_tokenizer_open(tiny_model_path(k->head), NULL, &k->tokenizer);
    return status < 0 ? status : tf_encoding_open(k->tokenizer, &k->encoding);
}

static tf_status tokenize(stack_state *k)
{
    const tf_text texts[2] = {tf_text_of("The CAT sat, unaffable."), tf_text_of("\xe4\xb8\xad\xe6\x96\x87 caf\xc3\xa9")};
    return tf_tokenizer_encode(k->tokenizer, texts, NULL, 2, NULL, k->encoding);
}

static tf_status close_it(stack_state *k)
{
    tf_encoding_close(k->encoding);
    tf_tokenizer_close(k->tokenizer);
    tf_session_close(k->session);
    tf_model_close(k->model);
    return TF_STATUS_OK;
}

/* Paint what lies unused below us, call, and see how deep the paint was touched. */
__attribute__((noinline)) static void call_measured(stack_state *k, const char *name, tf_status (*call)(stack_state *))
{
    unsigned char *here = __builtin_frame_address(0);

    if (!SANITIZED) {
        volatile unsigned char *paint = k->low;
        while (paint < here - 512) *paint++ = PAINT; /* no call, whose frame would be painted over */
    }
    CHECK_STATUS(call(k), TF_STATUS_OK);
    if (SANITIZED) return;
    const unsigned char *touched = k->low;
    while (touched < here && *touched == PAINT) touched++;
    check_count++;
    if (here - touched > STACK_USED_MAX)
        check_failed(__FILE__, __LINE__, "%s used %ld bytes of the caller's stack", name, (long)(here - touched));
    else if (getenv("TFC_VERBOSE")) printf("%s: %ld bytes of stack\n", name, (long)(here - touched));
}

static void *call_everything(void *arg)
{
    stack_state *k = arg;

    call_measured(k, "tf_model_plan", plan_it);
    call_measured(k, "tf_model_open", open_it);
    call_measured(k, "tf_session_open", open_session);
    call_measured(k, "the task", run_it);
    call_measured(k, "the task again", run_it);
    call_measured(k, "tf_model_graph", print_it);
    call_measured(k, "tf_tokenizer_open", open_tokenizer);
    call_measured(k, "tf_tokenizer_encode", tokenize);
    call_measured(k, "closing", close_it);
    return NULL;
}

static void calls_fit_a_small_stack(void)
{
    static stack_state k;

    for (int head = 0; head < TINY_HEAD_COUNT; head++) {
        pthread_attr_t attr;
        pthread_t t;
        (void)tiny_model_path((tiny_head)head); /* written here, on a large stack */
        memset(&k, 0, sizeof k);
        k.head = (tiny_head)head;
        k.low = mmap(NULL, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        pthread_attr_init(&attr);
        CHECK_INT(pthread_attr_setstack(&attr, k.low, STACK), 0);
        const int error = pthread_create(&t, &attr, call_everything, &k);
        CHECK_INT(error, 0);
        if (error == 0) pthread_join(t, NULL);
        pthread_attr_destroy(&attr);
        munmap(k.low, STACK);
    }
}

/* ---- what belongs to the whole process ---- */

typedef void (*json_get)(void *(**)(size_t), void (**)(void *));

typedef struct process_state {
    struct sigaction actions[32];
    char locale[128];
    void *(*json_malloc)(size_t);
    void (*json_free)(void *);
    int omp_threads, omp_dynamic, rounding, descriptors;
    char directory[512];
    char **environment;
    int variables;
} process_state;

/* Functions of libraries that the library loads; a test that links only ours asks the loader for them. */
static int call_int(const char *name)
{
    int (*f)(void) = (int (*)(void))dlsym(RTLD_DEFAULT, name);
    return f ? f() : -1;
}

extern char **environ;

static void look(process_state *p)
{
    memset(p, 0, sizeof *p);
    for (int i = 1; i < 32; i++) sigaction(i, NULL, &p->actions[i]);
    snprintf(p->locale, sizeof p->locale, "%s", setlocale(LC_ALL, NULL));
    const json_get get = (json_get)dlsym(RTLD_DEFAULT, "json_get_alloc_funcs");
    if (get) get(&p->json_malloc, &p->json_free);
    p->omp_threads = call_int("omp_get_max_threads");
    p->omp_dynamic = call_int("omp_get_dynamic");
    p->rounding = fegetround();
    if (!getcwd(p->directory, sizeof p->directory)) p->directory[0] = 0;
    p->environment = environ;
    for (char **v = environ; *v; v++) p->variables++;
    DIR *d = opendir("/proc/self/fd");
    while (readdir(d)) p->descriptors++;
    closedir(d);
}

static void run_every_head(void)
{
    float out[TINY_OUT];
    tf_model *m;
    tf_session *s;

    for (int head = 0; head < TINY_HEAD_COUNT; head++) {
        tiny_open((tiny_head)head, NULL, &m, &s);
        CHECK_OK(tiny_run(s, (tiny_head)head, out));
        tf_session_close(s);
        tf_model_close(m);
    }
    CHECK_STATUS(tf_model_open("/nonexistent", NULL, &m), TF_STATUS_NOT_FOUND);
}

static void settings_stay(void)
{
    static process_state before, after;
    void (*set)(int) = (void (*)(int))dlsym(RTLD_DEFAULT, "omp_set_num_threads");

    CHECK(setlocale(LC_ALL, "C.UTF-8") != NULL);
    if (set) set(7); /* the caller's own choice for its thread */
    look(&before);
    run_every_head();
    look(&after);
    for (int i = 1; i < 32; i++) {
        CHECK(before.actions[i].sa_handler == after.actions[i].sa_handler);
        CHECK_INT(after.actions[i].sa_flags, before.actions[i].sa_flags);
    }
    CHECK_TEXT(after.locale, before.locale);
    CHECK(before.json_malloc != NULL && before.json_malloc == after.json_malloc && before.json_free == after.json_free);
    CHECK_INT(before.omp_threads, 7);
    CHECK_INT(after.omp_threads, 7);
    CHECK_INT(after.omp_dynamic, before.omp_dynamic);
    CHECK_INT(after.rounding, before.rounding);
    CHECK_TEXT(after.directory, before.directory);
    CHECK(after.environment == before.environment && after.variables == before.variables);
    CHECK_INT(after.descriptors, before.descriptors);
}

/* A locale whose decimal point is a comma must not change how numbers in files are read. */
static void comma_locale(void)
{
    static const char *const names[] = {"de_DE.UTF-8", "de_DE.utf8", "fr_FR.UTF-8", "fr_FR.utf8"};
    const char *chosen = NULL;

    for (int i = 0; i < 4 && !chosen; i++) chosen = setlocale(LC_ALL, names[i]);
    if (!chosen) {
        printf("comma_locale: skipped, no locale with a decimal comma is installed\n");
        return;
    }
    run_every_head();
    setlocale(LC_ALL, "C");
}

static void nothing_is_printed(void)
{
    const char *path = check_path("printed");
    char text[256] = "";

    fflush(NULL);
    const int out = dup(STDOUT_FILENO), err = dup(STDERR_FILENO), file = open(path, O_CREAT | O_RDWR | O_TRUNC, 0600);
    dup2(file, STDOUT_FILENO);
    dup2(file, STDERR_FILENO);
    run_every_head();
    fflush(NULL);
    dup2(out, STDOUT_FILENO);
    dup2(err, STDERR_FILENO);
    const ssize_t size = pread(file, text, sizeof text - 1, 0);
    CHECK_INT(size, 0);
    CHECK_TEXT(text, "");
    close(file);
    close(out);
    close(err);
}

int main(int argc, char **argv)
{
    check_run(argc, argv, "last_error_is_of_the_thread", last_error_is_of_the_thread);
    check_run(argc, argv, "settings_stay", settings_stay);
    check_run(argc, argv, "comma_locale", comma_locale);
    check_run(argc, argv, "nothing_is_printed", nothing_is_printed);
    check_run(argc, argv, "threads_block_signals", threads_block_signals);
    check_run(argc, argv, "sixteen_callers", sixteen_callers);
    check_run(argc, argv, "sixteen_callers_of_one_session", sixteen_callers_of_one_session);
    check_run(argc, argv, "fork_and_go_on", fork_and_go_on);
    check_run(argc, argv, "calls_fit_a_small_stack", calls_fit_a_small_stack);
    return check_done();
}
