/* One pass of the encode graph over sequences of as many waiting jobs as fit. */
#ifndef TFI_GENERATE_ENCODE_STEP_H
#define TFI_GENERATE_ENCODE_STEP_H

#include "generate/scheduler.h"

/* A job's share of the pass: its sequences [first, last), rows [row, row + tokens) of the pass. */
typedef struct tfi_encode_part {
    tfi_job *job;
    int64_t first, last, row;
    int64_t selected_from, selected_to; /* of the job's rows (of its tokens where `rows` is NULL) */
} tfi_encode_part;

typedef struct tfi_encode_step {
    const tfi_engine *engine;
    tfi_program *program;
    tfi_store *store;
    int32_t *ids, *positions, *types;      /* [tokens] */
    int32_t *offsets, *last, *selected;
    int32_t *source_lens, *source_tables;
    int64_t source_stride;
    tfi_encode_part *parts;
    tfi_tap *taps;
    void *block;
    int64_t block_bytes;
    int64_t part_count, sequences, tokens; /* of the pass at hand */
} tfi_encode_step;

tf_status tfi_encode_step_open(tfi_encode_step *e, const tfi_engine *engine, tfi_store *store);
tf_status tfi_encode_step_bytes(const tfi_engine *engine, int64_t *bytes);
void tfi_encode_step_close(tfi_encode_step *e);

/* Take what fits from the list of jobs, in order; the jobs are in_step then. 0: nothing waits. */
int tfi_encode_step_plan(tfi_encode_step *e, tfi_job *jobs);
tf_status tfi_encode_step_run(tfi_encode_step *e);
/* Jobs are done, brought on, or have failed. */
void tfi_encode_step_apply(tfi_encode_step *e, tf_status status);

#endif
