/* Memory: the host's allocator with a byte budget in front of it, and arenas for things that die together.
 * Nothing in the library calls malloc directly; third-party libraries do. */
#ifndef TFI_BASE_MEMORY_H
#define TFI_BASE_MEMORY_H

#include <stddef.h>
#include <stdint.h>

#include <tfinfer/base.h>

#ifdef __cplusplus /* kernels see the record, and leave it alone */
typedef int64_t tfi_atomic_bytes;
#else
#include <stdatomic.h>
typedef _Atomic int64_t tfi_atomic_bytes;
#endif

/* Thread-safe. `used` counts what is live now through this object, `peak` its maximum. */
typedef struct tfi_memory {
    tf_allocator hooks;
    int64_t budget; /* bytes; INT64_MAX: none */
    tfi_atomic_bytes used, peak;
} tfi_memory;

/* allocator NULL: the C library's, with huge pages asked for at 4 MB and more. budget TF_UNSET: none. */
void tfi_memory_init(tfi_memory *m, const tf_allocator *allocator, int64_t budget);

/* 64-byte aligned (2 MB from 4 MB on), or NULL with the last error set. size 0 gives a valid pointer to nothing. */
void *tfi_alloc(tfi_memory *m, size_t size);
void *tfi_zalloc(tfi_memory *m, size_t size);
/* Grow or shrink, keeping min(old, new) bytes; on failure NULL and the old block stays. p may be NULL with old_size 0. */
void *tfi_realloc(tfi_memory *m, void *p, size_t old_size, size_t new_size);
void tfi_free(tfi_memory *m, void *p, size_t size); /* p may be NULL */

/* For memory that does not come from the hooks (a device's): count it against the budget, NOMEM if it is over; and take it off again. */
tf_status tfi_memory_charge(tfi_memory *m, int64_t bytes);
void tfi_memory_refund(tfi_memory *m, int64_t bytes);

/* Bump allocation in chunks; all of it is freed by close. Not thread-safe. Zero-initialise `first`, set `memory`. */
typedef struct tfi_arena {
    tfi_memory *memory;
    struct tfi_arena_chunk *first;
} tfi_arena;

void *tfi_arena_alloc(tfi_arena *a, size_t size);                     /* zeroed, 16-byte aligned; NULL with the last error set */
char *tfi_arena_copy(tfi_arena *a, const char *text, size_t size);    /* copies and adds a NUL */
void tfi_arena_close(tfi_arena *a);

#endif
