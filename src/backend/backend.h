/* The whole contract between the library and a device: a backend makes weights resident, turns a graph into an executable
 * program with its memory, and runs it. It knows ops, never models.
 *
 * Threads: a backend is shared by all sessions of a model and called from any thread; a program is run by one caller at a
 * time. Fork: in a child process a backend whose `survives_fork` is set goes on working, its threads are started again. */
#ifndef TFI_BACKEND_BACKEND_H
#define TFI_BACKEND_BACKEND_H

#include "backend/ops.h"
#include "base/memory.h"

typedef struct tfi_backend tfi_backend;
typedef struct tfi_program tfi_program;

/* Copy rows [first, first + count) of a value, or all live rows where count is 0, to the caller as fp32 as soon as it is computed:
 * dst [count, stride floats]. A NaN or infinity ends the run with TF_STATUS_NUMERIC, unless `infinite` allows them. */
typedef struct tfi_tap {
    int32_t value;
    int32_t infinite;
    int64_t first, count;
    float *dst;
    int64_t stride;
} tfi_tap;

/* Rows of a value given by the caller instead of being computed: src [live rows, stride floats]; an F32 value. */
typedef struct tfi_feed {
    int32_t value;
    const float *src;
    int64_t stride;
} tfi_feed;

/* Which ops without a value a run performs. */
enum {
    TFI_EFFECT_KV = 1,  /* KV_COPY, KV_APPEND */
    TFI_EFFECT_DRAW = 2 /* SAMPLE, BEAM_STEP, STOP */
};

/* What a program is made for: rows of each kind in a run and, behind them, tokens of a sequence or a source in the store (0 where the
 * graph attends to none). */
enum { TFI_LIMIT_KV_TOKENS = TFI_ROWS_COUNT, TFI_LIMIT_COUNT };

typedef struct tfi_run {
    int64_t rows[TFI_ROWS_COUNT];             /* live counts, each within the program's limits */
    const void *inputs[TFI_INPUT_COUNT];      /* host memory, valid during the run; checked by the caller */
    const tfi_tap *taps;
    const tfi_feed *feeds;
    int32_t tap_count, feed_count;
    int32_t resume;                           /* values with `keep` are still there from the run before: do not compute them */
    int32_t effects;                          /* TFI_EFFECT_ bits */
    void *stream;                             /* of the caller, to work on; NULL: the backend's own */
    tfi_store *store;                         /* NULL where the graph has no op that needs it */
    int64_t table_stride, source_stride;      /* blocks a row of TFI_INPUT_KV_TABLES, TFI_INPUT_SOURCE_TABLES */
    int64_t copy_count;                       /* of TFI_INPUT_KV_COPIES */
    const tfi_draw *draws;                    /* [draw_count] */
    tfi_choice *choices;                      /* [draw_count] written by the run */
    int64_t draw_count;
    int32_t ahead;                            /* of a backend that runs ahead: return when the run is on its way, wait() for the rest. No
                                                 taps, no feeds; inputs are taken at once, draws and choices lent until then */
} tfi_run;

/* Called on the loading thread between pieces of at most 64 MB; bytes of source read so far in this weight. Non-zero: stop with
 * TF_STATUS_CANCELLED. */
typedef struct tfi_load_hook {
    int (*report)(void *user, int64_t bytes);
    void *user;
} tfi_load_hook;

struct tfi_backend {
    const char *name; /* "cpu" */
    int threads;
    int has_bf16;     /* bf16 runs at full speed here */
    int runs_ahead;   /* up to two runs of a program can be on their way, see tfi_run.ahead */

    /* TF_STATUS_OK, or UNSUPPORTED naming the dtype, for weights and activations of this type. */
    tf_status (*supports)(tfi_backend *b, tfi_dtype dtype);

    /* The backend's memory, for the resident forms; counts against `memory`. NULL with the last error set. */
    void *(*alloc)(tfi_backend *b, tfi_memory *memory, int64_t bytes);
    void (*free)(tfi_backend *b, tfi_memory *memory, void *p, int64_t bytes); /* p may be NULL */

    /* Which resident form the weight will have. Reads no data. form->data stays NULL, unless the weight can be used where it lies: then
     * it is set, form->bytes is 0, and the weight is not prepared. */
    tf_status (*weight_form)(tfi_backend *b, const tfi_weight *w, tfi_weight_form *form);
    /* Bytes of staging that preparing any weight takes from the memory given at open (tf_plan.load_bytes). */
    int64_t (*load_bytes)(tfi_backend *b);
    /* Cast, reorder and pack the parts into form->data; the only place that does. Fetches the source pages and gives them back
     * piece by piece. Parts are on the host. */
    tf_status (*weight_prepare)(tfi_backend *b, const tfi_weight *w, const tfi_weight_form *form, const tfi_load_hook *hook);

    /* Of a weight whose parts lie on CUDA devices: where they have the resident form's type and order, copy them from there and set
     * *done; otherwise they are brought to the host and prepared. NULL: they always are. */
    tf_status (*weight_copy)(tfi_backend *b, const tfi_weight *w, const tfi_weight_form *form, int *done);

    /* All weights are prepared: what is on its way has arrived, staging is given back. Also after a failure. */
    tf_status (*load_end)(tfi_backend *b);

    /* Make a program for at most limits[]: resolves one function per op (or UNSUPPORTED naming op and types),
     * plans and allocates activations and scratch from `memory`. graph and forms must outlive it. */
    tf_status (*program_open)(tfi_backend *b, const tfi_graph *g, const tfi_weight_form *forms,
                              const int64_t limits[TFI_LIMIT_COUNT], tfi_memory *memory, tfi_program **out);
    /* The bytes program_open would take, without taking them. */
    tf_status (*program_bytes)(tfi_backend *b, const tfi_graph *g, const int64_t limits[TFI_LIMIT_COUNT], int64_t *bytes);
    void (*program_close)(tfi_program *p);
    /* Runs the ops that the taps and effects need, in order. Blocks until done. */
    tf_status (*run)(tfi_program *p, const tfi_run *run);
    /* Of a backend that runs ahead: block until this run, the oldest on its way, is done and its choices are there. */
    tf_status (*wait)(tfi_program *p, const tfi_run *run);

    /* The store of a session: KV blocks and slots, shared by its programs' runs. Contents of blocks start undefined, slots free. */
    tf_status (*store_open)(tfi_backend *b, const tfi_store_shape *shape, tfi_memory *memory, tfi_store **out);
    /* The bytes store_open would take; -1: more than memory can hold. */
    int64_t (*store_bytes)(tfi_backend *b, const tfi_store_shape *shape);
    void (*store_close)(tfi_store *s);
    /* At any time, but for slots that a run under way reads: put a sequence into a slot, or free it (record NULL). Tokens and sampling stay borrowed until then. */
    void (*slot_set)(tfi_store *s, int32_t slot, const tfi_slot *record);

    void (*close)(tfi_backend *b);
};

#endif
