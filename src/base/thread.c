#define _GNU_SOURCE
#include "base/thread.h"

#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "base/status.h"

tf_status tfi_thread_start(pthread_t *out, const char *name, void *(*run)(void *), void *arg)
{
    pthread_attr_t attr;
    sigset_t all, before;
    int error;

    if ((error = pthread_attr_init(&attr)) != 0)
        return tfi_fail(TF_STATUS_NOMEM, "thread attributes: %s", strerror(error));
    (void)pthread_attr_setstacksize(&attr, TFI_THREAD_STACK);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* the new thread inherits the mask */
    error = pthread_create(out, &attr, run, arg);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attr);
    if (error != 0) return tfi_fail(TF_STATUS_NOMEM, "a thread could not be started: %s", strerror(error));
    (void)pthread_setname_np(*out, name);
    return TF_STATUS_OK;
}

static int first_sibling(int cpu)
{
    char path[96];
    int first = cpu;

    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list", cpu);
    FILE *f = fopen(path, "re");
    if (f) {
        if (fscanf(f, "%d", &first) != 1) first = cpu;
        fclose(f);
    }
    return first;
}

int tfi_thread_cores(void)
{
    cpu_set_t set;
    int cores = 0;

    if (sched_getaffinity(0, sizeof set, &set) != 0) return 1;
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (!CPU_ISSET(cpu, &set)) continue;
        const int first = first_sibling(cpu);
        if (first == cpu || !CPU_ISSET(first, &set)) cores++;
    }
    return cores > 0 ? cores : 1;
}
