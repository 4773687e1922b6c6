/* The thread pool: jobs of many callers, barriers, threads and their number, fork, close. */
#define _GNU_SOURCE
#include <dirent.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/thread_pool.h"
#include "check.h"

enum { WORKERS = 3, CALLERS = 8, ROUNDS = 40, STEPS = 20 };

static tfi_memory memory;
static tfi_pool *pool;
static int idle_threads; /* of the process without a pool: sanitizers have one of their own */

#if defined(__SANITIZE_THREAD__)
enum { CAN_FORK = 0 }; /* the thread sanitizer does not know threads of a forked child */
#else
enum { CAN_FORK = 1 };
#endif

static int threads_now(void)
{
    DIR *d = opendir("/proc/self/task");
    int n = 0;

    for (struct dirent *e; d && (e = readdir(d));) n += e->d_name[0] != '.';
    if (d) closedir(d);
    return n;
}

/* Each step every worker checks what its neighbour wrote in the step before: only barriers make that right. */
typedef struct steps_job {
    int64_t cells[2][WORKERS];
    _Atomic int wrong, ran;
} steps_job;

static void run_steps(void *arg, int index, int count)
{
    steps_job *j = arg;

    for (int step = 1; step <= STEPS; step++) {
        j->cells[step % 2][index] = step;
        tfi_pool_barrier(pool);
        if (j->cells[step % 2][(index + 1) % count] != step) j->wrong++;
    }
    j->ran++;
}

static void *call_often(void *arg)
{
    (void)arg;
    for (int i = 0; i < ROUNDS; i++) {
        steps_job j = {0};
        if (tfi_pool_run(pool, run_steps, &j) < 0 || j.wrong || j.ran != WORKERS) return "wrong";
    }
    return NULL;
}

static void many_callers(void)
{
    pthread_t callers[CALLERS];

    CHECK_OK(tfi_pool_open(&memory, WORKERS, NULL, &pool));
    CHECK_INT(threads_now(), idle_threads); /* none before the first job */
    CHECK(call_often(NULL) == NULL);
    CHECK_INT(threads_now(), idle_threads + WORKERS);
    for (int i = 0; i < CALLERS; i++) pthread_create(&callers[i], NULL, call_often, NULL);
    for (int i = 0; i < CALLERS; i++) {
        void *said;
        pthread_join(callers[i], &said);
        CHECK(said == NULL);
    }
    CHECK_INT(threads_now(), idle_threads + WORKERS);
    tfi_pool_close(pool);
    CHECK_INT(threads_now(), idle_threads);
    CHECK_INT(memory.used, 0);
}

static _Atomic int begun;

static void on_begin(void)
{
    begun++;
}

static void look_around(void *arg, int index, int count)
{
    char name[16], expected[32];
    sigset_t blocked;
    _Atomic int *good = arg;

    snprintf(expected, sizeof expected, "tfinfer-%d", index);
    for (int i = 0; i < 1000; i++) { /* the name is given by the thread that starts this one, maybe a moment later */
        pthread_getname_np(pthread_self(), name, sizeof name);
        if (strcmp(name, expected) == 0) break;
        usleep(1000);
    }
    pthread_sigmask(SIG_SETMASK, NULL, &blocked);
    if (strcmp(name, expected) == 0 && count == 2 && sigismember(&blocked, SIGINT) && sigismember(&blocked, SIGUSR1)) (*good)++;
}

static void worker_threads(void)
{
    _Atomic int good = 0;

    begun = 0;
    CHECK_OK(tfi_pool_open(&memory, 2, on_begin, &pool));
    for (int i = 0; i < 5; i++) CHECK_OK(tfi_pool_run(pool, look_around, &good));
    CHECK_INT(good, 10);
    CHECK_INT(begun, 2);
    usleep(2000); /* let them fall asleep, then wake them */
    CHECK_OK(tfi_pool_run(pool, look_around, &good));
    CHECK_INT(good, 12);
    tfi_pool_close(pool);
}

static _Atomic int stop_calling;

static void *call_until_told(void *arg)
{
    steps_job j = {0};
    (void)arg;
    while (!stop_calling) (void)tfi_pool_run(pool, run_steps, &j);
    return NULL;
}

/* Forked while another thread's jobs run, the child has a pool of its own and the parent's goes on. */
static void fork_and_run(void)
{
    pthread_t caller;

    CHECK_OK(tfi_pool_open(&memory, WORKERS, NULL, &pool));
    CHECK(call_often(NULL) == NULL);
    stop_calling = 0;
    pthread_create(&caller, NULL, call_until_told, NULL);
    for (int i = 0; i < 5; i++) {
        const pid_t child = fork();
        int status = -1;
        if (child == 0) {
            alarm(20);
            const int right = call_often(NULL) == NULL && threads_now() == 1 + WORKERS;
            tfi_pool_close(pool);
            _exit(right && threads_now() == 1 ? 0 : 1);
        }
        waitpid(child, &status, 0);
        CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    stop_calling = 1;
    pthread_join(caller, NULL);
    CHECK(call_often(NULL) == NULL);
    const pid_t unused = fork(); /* a child that only closes */
    int status = -1;
    if (unused == 0) {
        alarm(20);
        tfi_pool_close(pool);
        _exit(0);
    }
    waitpid(unused, &status, 0);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    tfi_pool_close(pool);
}

static void bad_arguments(void)
{
    check_memory m;
    tfi_memory failing;

    CHECK_STATUS(tfi_pool_open(&memory, 0, NULL, &pool), TF_STATUS_INVALID);
    CHECK_STATUS(tfi_pool_open(&memory, TFI_POOL_THREADS_MAX + 1, NULL, &pool), TF_STATUS_INVALID);
    CHECK_ERROR_SAYS("1025 threads");
    check_memory_init(&m);
    m.fail_at = 1;
    tfi_memory_init(&failing, &m.hooks, TF_UNSET);
    CHECK_STATUS(tfi_pool_open(&failing, 2, NULL, &pool), TF_STATUS_NOMEM);
    CHECK(pool == NULL);
    tfi_pool_close(NULL);
    CHECK_OK(tfi_pool_open(&failing, 2, NULL, &pool));
    CHECK_INT(failing.used, tfi_pool_bytes(2));
    tfi_pool_close(pool); /* never used: no threads */
    CHECK_INT(m.live_blocks, 0);
}

static void *nothing(void *arg)
{
    return arg;
}

int main(int argc, char **argv)
{
    pthread_t first;

    if (pthread_create(&first, NULL, nothing, NULL) == 0) pthread_join(first, NULL);
    idle_threads = threads_now();
    tfi_memory_init(&memory, NULL, TF_UNSET);
    check_run(argc, argv, "many_callers", many_callers);
    check_run(argc, argv, "worker_threads", worker_threads);
    if (CAN_FORK) check_run(argc, argv, "fork_and_run", fork_and_run);
    check_run(argc, argv, "bad_arguments", bad_arguments);
    return check_done();
}
