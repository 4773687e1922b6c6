/* The CPU backend: a pool of threads of ours that walks a program's ops, oneDNN for LINEAR, functions of this directory for the
 * rest. The calling thread computes nothing: workers set OpenMP's thread count on themselves, so no OpenMP team ever exists. */
#ifndef TFI_BACKEND_CPU_H
#define TFI_BACKEND_CPU_H

#include "backend/backend.h"
#include "backend/cpu/linear.h"
#include "backend/host_ops.h"
#include "base/thread_pool.h"

typedef struct tfi_cpu_options {
    tfi_memory *memory; /* of the backend itself; outlives it */
    int threads;        /* 0: one a core */
    unsigned features;  /* TFI_CPU_ bits, at most tfi_cpu_features() */
    int reference;      /* 1: every op by its plain-C reference, weights in row-major order, for tests */
} tfi_cpu_options;

/* INVALID (thread count), NOMEM. Threads start with the first weight or run. */
tf_status tfi_cpu_open(const tfi_cpu_options *options, tfi_backend **out);

/* ---- inside the backend ---- */

typedef struct tfi_cpu {
    tfi_backend base; /* first: a tfi_backend is a tfi_cpu */
    tfi_memory *memory;
    unsigned features;
    int reference;
    tfi_pool *pool;
    tfi_linear *linear;
} tfi_cpu;

/* The first error of several workers, with its text, carried to the thread that waits for them. */
typedef struct tfi_cpu_error {
    _Atomic int taken;
    tf_status status;
    char text[512];
} tfi_cpu_error;

/* On a worker: keep its last error, unless there is one. */
void tfi_cpu_error_keep(tfi_cpu_error *e, tf_status status);
/* On the caller, after the job: OK, or the kept status with its text as the last error. */
tf_status tfi_cpu_error_raise(const tfi_cpu_error *e);

/* weight.c */
tf_status tfi_cpu_weight_form(tfi_backend *b, const tfi_weight *w, tfi_weight_form *form);
tf_status tfi_cpu_weight_prepare(tfi_backend *b, const tfi_weight *w, const tfi_weight_form *form, const tfi_load_hook *hook);

/* tied.c: EMBED from a table in a packed form. types.x is the table's dtype; NULL for types it does not know. */
tfi_host_fn tfi_cpu_embed_packed(tfi_op_types types);

/* program.c */
tf_status tfi_cpu_program_open(tfi_backend *b, const tfi_graph *g, const tfi_weight_form *forms,
                               const int64_t limits[TFI_LIMIT_COUNT], tfi_memory *memory, tfi_program **out);
tf_status tfi_cpu_program_bytes(tfi_backend *b, const tfi_graph *g, const int64_t limits[TFI_LIMIT_COUNT], int64_t *bytes);
void tfi_cpu_program_close(tfi_program *p);
tf_status tfi_cpu_run(tfi_program *p, const tfi_run *run);

/* store.c */
tf_status tfi_cpu_store_open(tfi_backend *b, const tfi_store_shape *shape, tfi_memory *memory, tfi_store **out);
int64_t tfi_cpu_store_bytes(tfi_backend *b, const tfi_store_shape *shape);
void tfi_cpu_store_close(tfi_store *s);
void tfi_cpu_slot_set(tfi_store *s, int32_t slot, const tfi_slot *record);

#endif
