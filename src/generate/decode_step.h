/* One pass of the step graph over all running requests: prompts being read, beside sequences that each go on by one token. */
#ifndef TFI_GENERATE_DECODE_STEP_H
#define TFI_GENERATE_DECODE_STEP_H

#include "generate/scheduler.h"

/* A request's share: its rows of the pass, of the selected rows, of the draws. The selected rows are first those of prompt tokens whose
 * log-probability is wanted, then those that are drawn from. */
typedef struct tfi_decode_part {
    tf_generate *request;
    int32_t rows, selected, scored, draws;
    int64_t first_selected, first_draw;
} tfi_decode_part;

/* Blocks of one of a pass's sequences. */
typedef struct tfi_decode_tables {
    const int32_t *own, *source;
    int32_t own_blocks, source_blocks;
    int32_t next; /* stands behind its own; -1: none does */
} tfi_decode_tables;

typedef struct tfi_decode_step {
    const tfi_engine *engine;
    tfi_program *program;            /* shared by the steps of a session */
    tfi_room *room;
    int32_t *ids, *positions;        /* [tokens] */
    int32_t *offsets, *kv_lens, *source_lens; /* [sequences (+ 1)] */
    int32_t *kv_tables, *source_tables; /* [sequences, stride of the pass] */
    int32_t *copies;                 /* [sequences, 2] */
    tfi_kv_move *moves;              /* [sequences] */
    int32_t *selected, *row_slots, *targets; /* [tokens] */
    tfi_draw *draws;                 /* [sequences] */
    tfi_choice *choices;             /* [sequences] */
    tfi_decode_part *parts;          /* [sequences] */
    tfi_decode_tables *tables;       /* [sequences] */
    tfi_tap *taps;
    void *block;
    int64_t block_bytes;
    /* of the pass at hand */
    int64_t part_count, rows, sequences, selected_count, draw_count, copy_count;
    int64_t kv_stride, source_stride;
    int any_moves;
    const float *embeddings;         /* of its first rows */
    int needs_host;                  /* nothing can be planned behind it before its results are known */
    tfi_run run;
} tfi_decode_step;

tf_status tfi_decode_step_open(tfi_decode_step *d, const tfi_engine *engine, tfi_program *program, tfi_room *room);
int64_t tfi_decode_step_bytes(const tfi_engine *engine);
void tfi_decode_step_close(tfi_decode_step *d);

/* Can the request take part in the next pass? */
int tfi_decode_step_wants(const tf_generate *g);

/* Take what fits from the list of requests; those are in use then. 0: nothing waits. */
int tfi_decode_step_plan(tfi_decode_step *d, tf_generate *requests);
/* The same while the step before is on its way: its draws are taken to be done. 0 also where somebody waits for the host's word. */
int tfi_decode_step_plan_ahead(tfi_decode_step *d, tf_generate *requests, const tfi_decode_step *before);
/* Where run.ahead is set then, the pass is on its way and has to be waited for. */
tf_status tfi_decode_step_run(tfi_decode_step *d);
void tfi_decode_step_apply(tfi_decode_step *d, tf_status status);

/* A pass of its own for a request that comes from its callback: nothing but the draw. */
void tfi_decode_step_plan_called(tfi_decode_step *d, tf_generate *g);
tf_status tfi_decode_step_run_called(tfi_decode_step *d);

#endif
