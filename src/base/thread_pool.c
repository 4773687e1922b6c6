#define _GNU_SOURCE
#include "base/thread_pool.h"

#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/status.h"
#include "base/thread.h"

/* A waiter looks this often before it sleeps: 10 to 40 us, longer than ops of a running job differ between workers, and short
 * enough to be nothing where the processors are busy with other work. */
enum { SPINS = 1000, LINE = 64 };

/* A word to wait on. Sleepers are counted, so that the one who changes it calls the kernel only when somebody sleeps. */
typedef struct gate {
    _Atomic uint32_t word, sleepers;
} gate;

typedef struct job {
    void (*run)(void *arg, int index, int count);
    void *arg;
    struct job *next;
    gate done; /* the word becomes 1; lies on the caller's stack */
} job;

typedef struct worker {
    tfi_pool *pool;
    int index;
    pthread_t thread;
} worker;

struct tfi_pool {
    tfi_memory *memory;
    void (*begin)(void);
    int count;
    /* Process the rest of this struct belongs to; negative while that process is making it its own after a fork. */
    _Atomic pid_t owner;
    pthread_mutex_t lock; /* guards the queue and the starting of threads */
    job *first, **last;   /* the running job and those behind it */
    int started;
    _Atomic int stop;
    _Alignas(LINE) gate turn;           /* the word counts jobs begun */
    _Alignas(LINE) _Atomic int running; /* workers inside the first job */
    _Alignas(LINE) gate phase;          /* the word counts barriers passed */
    _Alignas(LINE) _Atomic int arrived;
    _Alignas(LINE) worker workers[];
};

static void gate_wait(gate *g, uint32_t seen, int spins)
{
    for (int i = 0; i < spins; i++) {
        if (atomic_load_explicit(&g->word, memory_order_acquire) != seen) return;
        tfi_pause();
    }
    atomic_fetch_add(&g->sleepers, 1); /* before the kernel compares the word: either it sees the new one, or we are counted */
    while (atomic_load(&g->word) == seen) syscall(SYS_futex, &g->word, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
    atomic_fetch_sub(&g->sleepers, 1);
}

static void gate_open(gate *g)
{
    atomic_fetch_add(&g->word, 1);
    if (atomic_load(&g->sleepers) > 0) syscall(SYS_futex, &g->word, FUTEX_WAKE_PRIVATE, INT32_MAX, NULL, NULL, 0);
}

static void begin_first(tfi_pool *p)
{
    atomic_store(&p->running, p->count);
    gate_open(&p->turn);
}

/* The last worker out of a job: tell its caller, begin the next. */
static void end_first(tfi_pool *p)
{
    pthread_mutex_lock(&p->lock);
    job *ended = p->first;
    p->first = ended->next;
    if (p->first) {
        begin_first(p);
    } else {
        p->last = &p->first;
    }
    pthread_mutex_unlock(&p->lock);
    /* The caller may be gone as soon as the word changes, and its stack with it: no look at the sleepers after that. A wake at
     * an address that nobody sleeps on does nothing. */
    _Atomic uint32_t *word = &ended->done.word;
    atomic_store(word, 1);
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

static void *work(void *arg)
{
    const worker *w = arg;
    tfi_pool *p = w->pool;
    uint32_t seen = 0; /* threads start before the first job of their process */

    if (p->begin) p->begin();
    for (;;) {
        gate_wait(&p->turn, seen, SPINS);
        seen++;
        if (atomic_load(&p->stop)) return NULL;
        p->first->run(p->first->arg, w->index, p->count);
        if (atomic_fetch_sub(&p->running, 1) == 1) end_first(p);
    }
}

void tfi_pool_barrier(tfi_pool *p)
{
    const uint32_t seen = atomic_load_explicit(&p->phase.word, memory_order_relaxed);

    if (atomic_fetch_add(&p->arrived, 1) == p->count - 1) {
        atomic_store(&p->arrived, 0);
        gate_open(&p->phase);
    } else {
        gate_wait(&p->phase, seen, SPINS);
    }
}

/* With no thread of this process in the pool yet: forget the queue and the threads of the one we were forked from. */
static void make_own(tfi_pool *p)
{
    pthread_mutex_init(&p->lock, NULL);
    p->first = NULL;
    p->last = &p->first;
    p->started = 0;
    atomic_store(&p->stop, 0);
    p->turn = (gate){0};
    p->phase = (gate){0};
    atomic_store(&p->arrived, 0);
    atomic_store(&p->running, 0);
}

static void adopt(tfi_pool *p)
{
    const pid_t self = getpid();
    pid_t owner;

    while ((owner = atomic_load(&p->owner)) != self) {
        if (owner == -self) {
            sched_yield();
        } else if (atomic_compare_exchange_strong(&p->owner, &owner, -self)) {
            make_own(p);
            atomic_store(&p->owner, self);
        }
    }
}

static tf_status start_threads(tfi_pool *p)
{
    for (; p->started < p->count; p->started++) {
        worker *w = &p->workers[p->started];
        char name[24];
        tf_status status;

        *w = (worker){.pool = p, .index = p->started};
        snprintf(name, sizeof name, "tfinfer-%d", p->started);
        if ((status = tfi_thread_start(&w->thread, name, work, w)) < 0) return status;
    }
    return TF_STATUS_OK;
}

tf_status tfi_pool_run(tfi_pool *p, void (*run)(void *arg, int index, int count), void *arg)
{
    job mine = {.run = run, .arg = arg};

    adopt(p);
    pthread_mutex_lock(&p->lock);
    const tf_status status = start_threads(p);
    if (status == TF_STATUS_OK) {
        const int idle = p->first == NULL;
        *p->last = &mine;
        p->last = &mine.next;
        if (idle) begin_first(p);
    }
    pthread_mutex_unlock(&p->lock);
    if (status == TF_STATUS_OK) gate_wait(&mine.done, 0, 0);
    return status;
}

int64_t tfi_pool_bytes(int threads)
{
    return (int64_t)(sizeof(tfi_pool) + (size_t)threads * sizeof(worker));
}

tf_status tfi_pool_open(tfi_memory *memory, int threads, void (*begin)(void), tfi_pool **out)
{
    tfi_pool *p;

    *out = NULL;
    if (threads < 1 || threads > TFI_POOL_THREADS_MAX)
        return tfi_fail(TF_STATUS_INVALID, "%d threads: outside [1, %d]", threads, TFI_POOL_THREADS_MAX);
    if (!(p = tfi_zalloc(memory, (size_t)tfi_pool_bytes(threads)))) return TF_STATUS_NOMEM;
    p->memory = memory;
    p->begin = begin;
    p->count = threads;
    make_own(p);
    atomic_store(&p->owner, getpid());
    *out = p;
    return TF_STATUS_OK;
}

void tfi_pool_close(tfi_pool *p)
{
    if (!p) return;
    if (atomic_load(&p->owner) == getpid()) {
        atomic_store(&p->stop, 1);
        gate_open(&p->turn);
        for (int i = 0; i < p->started; i++) pthread_join(p->workers[i].thread, NULL);
        pthread_mutex_destroy(&p->lock);
    }
    tfi_free(p->memory, p, (size_t)tfi_pool_bytes(p->count));
}
