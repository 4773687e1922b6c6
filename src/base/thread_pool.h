/* A pool of worker threads that run one job at a time together: every worker calls the same function with its own number, and
 * they meet at barriers inside it. A job walks a whole list of ops, so that going from one op to the next costs a barrier
 * (about a microsecond) and no wake-up.
 *
 * The calling thread only hands over and blocks: what workers set on themselves (OpenMP's thread count, signal masks) never
 * touches the host's threads. Any number of callers; their jobs run in the order they came. */
#ifndef TFI_BASE_THREAD_POOL_H
#define TFI_BASE_THREAD_POOL_H

#include "base/memory.h"

enum { TFI_POOL_THREADS_MAX = 1024 };

typedef struct tfi_pool tfi_pool;

/* Threads start with the first job, named "tfinfer-0" and so on. `begin` (may be NULL) runs once on each of them first.
 * INVALID for a thread count outside [1, TFI_POOL_THREADS_MAX], NOMEM. */
tf_status tfi_pool_open(tfi_memory *memory, int threads, void (*begin)(void), tfi_pool **out);

/* Bytes tfi_pool_open takes. */
int64_t tfi_pool_bytes(int threads);

/* Run job(arg, index, count) on every worker, index in [0, count), and return when all have. A process forked from the one that
 * ran the last job starts threads of its own. NOMEM if a thread cannot be started; the pool stays usable. */
tf_status tfi_pool_run(tfi_pool *p, void (*job)(void *arg, int index, int count), void *arg);

/* Called by every worker of the running job: returns when all have called it. What one wrote before, all see after. */
void tfi_pool_barrier(tfi_pool *p);

/* Between looks at a word that somebody else will write: the processor's other thread has the time. */
static inline void tfi_pause(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

/* Ends and joins the threads of this process. No job may be running. NULL is fine. */
void tfi_pool_close(tfi_pool *p);

#endif
