/* Threads of the library: named, with a stated stack, all signals blocked so that the host's handlers never run on them. */
#ifndef TFI_BASE_THREAD_H
#define TFI_BASE_THREAD_H

#include <pthread.h>

#include <tfinfer/base.h>

enum { TFI_THREAD_STACK = 2 << 20 };

tf_status tfi_thread_start(pthread_t *out, const char *name, void *(*run)(void *), void *arg);

/* Processors this process may run on, counting one a core where the system says which are siblings. At least 1. */
int tfi_thread_cores(void);

#endif
