#define _GNU_SOURCE
#include "base/memory.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/status.h"

enum { LARGE_BLOCK = 4 << 20, HUGE_PAGE = 2 << 20, LINE = 64, CHUNK = 64 << 10 };

static void *libc_alloc(void *user, size_t size, size_t align)
{
    void *p = NULL;

    (void)user;
    if (posix_memalign(&p, align < sizeof(void *) ? sizeof(void *) : align, size) != 0) return NULL;
    /* Weights are read end to end many times a second: huge pages save the page faults at load and the TLB misses after. */
    if (align >= HUGE_PAGE) (void)madvise(p, size, MADV_HUGEPAGE);
    return p;
}

static void libc_free(void *user, void *p, size_t size)
{
    (void)user;
    (void)size;
    free(p);
}

void tfi_memory_init(tfi_memory *m, const tf_allocator *allocator, int64_t budget)
{
    if (allocator)
        m->hooks = *allocator;
    else
        m->hooks = (tf_allocator){.alloc = libc_alloc, .free = libc_free};
    m->budget = budget == TF_UNSET ? INT64_MAX : budget;
    atomic_init(&m->used, 0);
    atomic_init(&m->peak, 0);
}

tf_status tfi_memory_charge(tfi_memory *m, int64_t bytes)
{
    const int64_t used = atomic_fetch_add(&m->used, bytes) + bytes;
    int64_t peak = atomic_load(&m->peak);

    if (used > m->budget) {
        atomic_fetch_sub(&m->used, bytes);
        return tfi_fail(TF_STATUS_NOMEM, "over the memory budget: %lld bytes would be used of %lld", (long long)used,
                        (long long)m->budget);
    }
    while (used > peak && !atomic_compare_exchange_weak(&m->peak, &peak, used)) continue;
    return TF_STATUS_OK;
}

void tfi_memory_refund(tfi_memory *m, int64_t bytes)
{
    atomic_fetch_sub(&m->used, bytes);
}

void *tfi_alloc(tfi_memory *m, size_t size)
{
    if (size == 0) size = 1;
    if (size > (size_t)INT64_MAX / 2) {
        (void)tfi_fail(TF_STATUS_NOMEM, "out of memory: %zu bytes asked for", size);
        return NULL;
    }
    if (tfi_memory_charge(m, (int64_t)size) < 0) return NULL;
    void *p = m->hooks.alloc(m->hooks.user, size, size >= LARGE_BLOCK ? HUGE_PAGE : LINE);
    if (p) return p;
    tfi_memory_refund(m, (int64_t)size);
    (void)tfi_fail(TF_STATUS_NOMEM, "out of memory: %zu bytes asked for", size);
    return NULL;
}

void *tfi_zalloc(tfi_memory *m, size_t size)
{
    void *p = tfi_alloc(m, size);
    if (p) memset(p, 0, size ? size : 1);
    return p;
}

void tfi_free(tfi_memory *m, void *p, size_t size)
{
    if (!p) return;
    if (size == 0) size = 1;
    m->hooks.free(m->hooks.user, p, size);
    atomic_fetch_sub(&m->used, (int64_t)size);
}

void *tfi_realloc(tfi_memory *m, void *p, size_t old_size, size_t new_size)
{
    void *q = tfi_alloc(m, new_size);
    if (!q) return NULL;
    if (p) memcpy(q, p, old_size < new_size ? old_size : new_size);
    tfi_free(m, p, old_size);
    return q;
}

struct tfi_arena_chunk {
    struct tfi_arena_chunk *next;
    size_t size, used; /* both include this header */
};

void *tfi_arena_alloc(tfi_arena *a, size_t size)
{
    const size_t header = (sizeof(struct tfi_arena_chunk) + 15) & ~(size_t)15;
    struct tfi_arena_chunk *c = a->first;

    if (size > (size_t)INT64_MAX / 2) {
        (void)tfi_fail(TF_STATUS_NOMEM, "out of memory: %zu bytes asked for", size);
        return NULL;
    }
    size = (size + 15) & ~(size_t)15;
    if (!c || c->size - c->used < size) {
        const size_t bytes = header + (size > CHUNK ? size : CHUNK);
        if (!(c = tfi_alloc(a->memory, bytes))) return NULL;
        c->size = bytes;
        c->used = header;
        /* A block of its own size must not hide the half-empty chunk behind it. */
        if (size > CHUNK && a->first) {
            c->next = a->first->next;
            a->first->next = c;
        } else {
            c->next = a->first;
            a->first = c;
        }
    }
    void *p = (char *)c + c->used;
    c->used += size;
    memset(p, 0, size);
    return p;
}

char *tfi_arena_copy(tfi_arena *a, const char *text, size_t size)
{
    char *p = tfi_arena_alloc(a, size + 1);
    if (p && size) memcpy(p, text, size);
    return p;
}

void tfi_arena_close(tfi_arena *a)
{
    for (struct tfi_arena_chunk *c = a->first, *next; c; c = next) {
        next = c->next;
        tfi_free(a->memory, c, c->size);
    }
    a->first = NULL;
}
