/* A program from inside: its one block of device memory, its pinned staging, and what a run of it passes around. */
#ifndef TFI_BACKEND_CUDA_PROGRAM_H
#define TFI_BACKEND_CUDA_PROGRAM_H

#include "backend/cuda/device.h"
#include "kernels/launch.h"

/* Arrays of a run that go to the device in one piece; but tables that moves have been made in are made on it. */
enum { TFI_PART_LIVE = TFI_INPUT_COUNT, TFI_PART_DRAWS, TFI_PART_MOVED, TFI_PART_COUNT };

/* What a run is rounded up to: everything that its launches depend on. Two runs of equal shape can share a captured graph.
 * Compared as bytes. */
typedef struct tfi_run_shape {
    int64_t rows[TFI_ROWS_COUNT];
    int64_t draws, copies;
    int64_t longest, longest_stored;  /* rows of a sequence in the run; tokens of one in the store */
    int64_t kv_stride, source_stride; /* room for blocks a row of the tables */
    int64_t single;                   /* every sequence has one row */
    uint64_t needed;                  /* which ops: a hash */
    const tfi_store *store;
    int32_t inputs; /* bits: the arrays that are there */
    int32_t skip;
} tfi_run_shape;

/* Ops that a product of few rows may do along with its own; -1: none. */
typedef struct tfi_few_parts {
    int32_t gather, norm, glu;
    int32_t norm_shown; /* others too read what the norm writes */
} tfi_few_parts;

typedef struct tfi_step {
    tfi_few_parts parts; /* of LINEAR */
    tfi_op_types types;
    int needed;           /* in this run: 0, or what its value is wanted for */
    const tfi_feed *feed; /* what the op would write is given by the caller */
    const void *bias;     /* of LINEAR, in y's dtype */
    int32_t link;         /* which does the op in this run; -1: none */
    int32_t chain;        /* links of the chain that is launched here, in place of its first op; 0: none is */
} tfi_step;

/* A link beside what its launch is told. */
typedef struct tfi_linked {
    int32_t x, residual, y; /* values */
    int32_t op, behind;     /* its first; behind its last */
    int32_t at, words;      /* of y in the exchange; 0 words: no other link reads y */
    tfi_dtype type;
} tfi_linked;

/* Device memory that the driver takes for a captured graph, an op: 1.5 to 1.7 KB a launch on an H200 with driver 580. It keeps
 * what a graph gives back for the next one. (Of host memory it takes 3.1 KB a launch, which nobody counts.) */
enum { TFI_GRAPH_OP_BYTES = 2048 };

/* And for a chain's links, which are a parameter of its launch. */
enum { TFI_GRAPH_CHAIN_BYTES = 32768 };

enum { TFI_GRAPHS = 32, TFI_GRAPH_ROWS = 4096, TFI_TAPS_PENDING = 64, TFI_TAP_STAGING = 16 << 20 };

typedef struct tfi_captured {
    tfi_run_shape shape;
    int64_t seen, used; /* runs of this shape; number of the last */
    cudaGraphExec_t exec;
} tfi_captured;

/* Rows on their way to a tap's destination through pinned memory. */
typedef struct tfi_pending {
    const tfi_tap *tap;
    int64_t first, rows; /* of the tap */
    int64_t at;
} tfi_pending;

/* What a run that is on its way has of its own: the next one is prepared meanwhile. */
typedef struct tfi_flight {
    char *inputs;        /* pinned */
    tfi_choice *choices; /* pinned */
    cudaEvent_t arrived; /* its choices, and so all of it */
} tfi_flight;

struct tfi_program {
    tfi_cuda *cuda;
    const tfi_graph *graph;
    const tfi_weight_form *forms;
    tfi_memory *memory;
    int64_t limits[TFI_LIMIT_COUNT]; /* rows rounded up */
    tfi_step *steps;                 /* [op_count], behind this struct */
    int64_t *offsets;                /* [value_count] of values in block */
    int32_t link_room;               /* links of a run at most */
    tfi_link *links;                 /* [link_room] of this run */
    tfi_linked *linked;              /* [link_room] */
    int32_t *last_read;              /* [value_count] by an op that may be in a link; -1: by none */
    int32_t *writer;                 /* [value_count] in this run: a link, or -1 */
    int8_t *wanted;                  /* [value_count] in this run: TFI_WANTED_ bits */
    cudaStream_t stream;             /* where the caller gives none, and to capture on */
    char *block;                     /* device: values, then the parts below */
    int64_t block_bytes, inputs_at, embeddings_at, choices_at, biases_at, exchange_at, workspace_at, scratch_at;
    int64_t exchange_words, given_words; /* the latter, in front, are for the x of a chain's first link */
    uint32_t tag;                        /* of the next run's first link */
    uint32_t number;                     /* of the last run */
    char *pinned;                        /* inputs and choices of two runs, taps */
    int64_t input_bytes, pinned_bytes;
    tfi_flight flights[2];
    int32_t begun, landed; /* runs; two at most are on their way */
    char *taps;            /* pinned [TFI_TAP_STAGING] */
    uint32_t *finished;    /* pinned: number of the last run that gave results */
    tfi_pending pending[TFI_TAPS_PENDING];
    int32_t pending_count;
    int64_t taps_filled;
    int64_t runs;
    int greedy;    /* all draws of the run are: one launch does them */
    int32_t keyed; /* LINEAR whose logits only that launch reads, draw i those of row i: keys of them would do; -1: none */
    int has_cache, has_source; /* ops that read the sequences' own blocks, their sources' */
    int64_t graph_bytes;       /* counted against the budget for captured */
    tfi_captured captured[TFI_GRAPHS];
};

/* A run on its way. */
typedef struct tfi_pass {
    tfi_program *program;
    const tfi_run *run;
    tfi_flight *flight;
    cudaStream_t stream;
    tfi_run_shape shape;
    int64_t parts[TFI_PART_COUNT]; /* offsets of the arrays in the block of inputs */
    int64_t parts_bytes;
    int capturing;
    tfi_results_args results; /* of a run that is launched as a graph, whose last launch gives them; count 0: none does */
} tfi_pass;

/* To be computed; to be copied to the caller. */
enum { TFI_WANTED = 1, TFI_WANTED_BY_TAP = 2 };

/* program.c: what the run needs; launch it all, in order. */
void tfi_cuda_mark(tfi_program *p, const tfi_run *run);
tf_status tfi_cuda_walk(tfi_pass *s, int with_taps);
static inline char *tfi_cuda_value(const tfi_program *p, int32_t v)
{
    return v < 0 ? NULL : p->block + p->offsets[v];
}
static inline int64_t tfi_cuda_live_rows(const tfi_program *p, const tfi_run *run, int32_t v)
{
    return run->rows[p->graph->values[v].rows];
}

/* A view of the store's tables, whose layer is `layer`. */
tfi_kv_view tfi_cuda_kv_view(const tfi_pass *s, tfi_attend attend, int32_t layer);

/* join.c: what could be done together; the call that does LINEAR `op` as a product of few rows, or of some more (0: neither);
 * whether ATTENTION `op` also does the KV_APPEND before it; which GATHER_ROWS (-1: none) NORM `op` does; the rows that one (or a
 * POOL of first ones) picks; which EMBED (-1: none) NORM `op` does; whether this op is left out because another one's launch does it. */
void tfi_cuda_find_joins(tfi_program *p);
int tfi_cuda_few_call(const tfi_pass *s, int32_t op, tfi_few_args *a);
int tfi_cuda_mid_call(const tfi_pass *s, int32_t op, tfi_mid_args *a);
int tfi_cuda_appends_inside(const tfi_pass *s, int32_t op);
int32_t tfi_cuda_gather_inside(const tfi_pass *s, int32_t op);
const int32_t *tfi_cuda_gathered(const tfi_pass *s, int32_t op);
int32_t tfi_cuda_embed_inside(const tfi_pass *s, int32_t op);
int tfi_cuda_is_joined(const tfi_pass *s, int32_t op);
/* Nobody but the op behind `op` has to do with what it writes. */
int tfi_cuda_feeds_next_alone(const tfi_graph *g, int32_t op);
/* Parts of the above for chains: the call that does LINEAR `op` with these parts; whether `op` is computed, and its value seen
 * by no tap; whether no byte that `read` has room in (-1: none) is one of `written`. */
void tfi_cuda_describe_few(const tfi_pass *s, int32_t op, const tfi_few_parts *f, tfi_few_args *a);
int tfi_cuda_can_join(const tfi_pass *s, int32_t op);
int tfi_cuda_is_tapped(const tfi_pass *s, int32_t v);
int tfi_cuda_are_apart(const tfi_program *p, int32_t read, int32_t written);

/* chain.c: links that a run has at most; what is found when a program is opened, and the exchange's size; the run's chains, as
 * marks on the program's steps; the launch of the one that begins with `op`; tags for the links of a run. */
int32_t tfi_cuda_link_room(const tfi_graph *g);
void tfi_cuda_prepare_chains(tfi_program *p);
void tfi_cuda_find_chains(const tfi_pass *s);
tf_status tfi_cuda_launch_chain(const tfi_pass *s, const tfi_cuda_launch *l, int32_t op);
tf_status tfi_cuda_next_tag(const tfi_pass *s, uint32_t *tag);

/* inputs.c: bytes of a program's largest inputs; where a run's lie; filled and sent, or left to the walk's first launch. */
int64_t tfi_cuda_input_bytes(const tfi_program *p);
void tfi_cuda_shape_run(tfi_pass *s);
tf_status tfi_cuda_send_inputs(tfi_pass *s);
tf_status tfi_cuda_take(const tfi_pass *s, tfi_cuda_launch *l);
const void *tfi_cuda_input(const tfi_pass *s, int part);

/* taps.c: values on their way to the caller, and there. Where a graph's last launch gives what the taps want: what and where to;
 * its taps. */
tf_status tfi_cuda_take_taps(tfi_pass *s, int32_t value);
void tfi_cuda_plan_results(tfi_pass *s);
void tfi_cuda_expect_results(tfi_pass *s);
tf_status tfi_cuda_deliver_taps(tfi_pass *s); /* the copies are done */

#endif
