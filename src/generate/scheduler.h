/* A session's work and who does it. Two kinds of work wait here: jobs (sequences to encode, of tasks and of T5's sources) and
 * requests (sequences to continue). Threads that wait for either do it themselves: one at a time drives, a step at a time, for
 * everybody; each step takes along what fits of all that waits.
 *
 * A step is planned under the lock, run without it (only the driver runs programs), and what it gave is applied under it again.
 * Host callbacks run without the lock and beside the steps of others. */
#ifndef TFI_GENERATE_SCHEDULER_H
#define TFI_GENERATE_SCHEDULER_H

#include "generate/request.h"
#include "models/model.h"

/* A value wanted for rows of a job: dst [rows of the value's kind, stride floats]. */
typedef struct tfi_output {
    int32_t value;
    float *dst;
    int64_t stride;
} tfi_output;

enum { TFI_OUTPUTS_MAX = 256 }; /* of one job: more hidden states than any real encoder has, few enough for a caller's stack */

/* Sequences to encode. What is wanted of them, or a request whose source they are. */
struct tfi_job {
    int64_t count;
    const int64_t *starts;      /* [count + 1] first token of each, all sequences packed */
    const int32_t *ids;         /* [tokens], NULL: embeddings */
    const float *embeddings;    /* [tokens, input width] of ids -1, or all; or NULL */
    const int32_t *type_ids;    /* [tokens], NULL: all 0 */
    int32_t skip;               /* leading tokens of each sequence that poolings leave out */
    const tfi_output *outputs;
    int32_t output_count;
    const int64_t *rows;        /* [row_count] ascending tokens whose selected-row outputs are wanted, NULL: all */
    int64_t row_count;
    tf_generate *request;       /* or NULL */

    /* the scheduler's */
    tfi_job *following;
    int64_t next, row_next;     /* sequences and rows that are done */
    int32_t in_step, finished;
    int32_t stopped;            /* its caller wants no more of it */
    int32_t alone;              /* a step shared with others failed: find out whose fault it was */
    tf_status status;
    char error[512];
};

/* What a session's steps run on and how much they may hold. */
typedef struct tfi_engine {
    const tfi_model *def;
    tfi_backend *backend;
    const tfi_weight_form *forms;
    tfi_memory *memory;
    int64_t encode_limits[TFI_LIMIT_COUNT], step_limits[TFI_LIMIT_COUNT];
    tfi_store_shape store; /* blocks 0: no generation */
    void *stream;          /* of the caller, or NULL */
} tfi_engine;

typedef struct tfi_scheduler_stats {
    int64_t steps, sequences, tokens;
} tfi_scheduler_stats;

tf_status tfi_scheduler_open(const tfi_engine *engine, tfi_scheduler **out);
tf_status tfi_scheduler_bytes(const tfi_engine *engine, int64_t *bytes, int64_t *kv_bytes);
void tfi_scheduler_close(tfi_scheduler *s);
void tfi_scheduler_get_stats(tfi_scheduler *s, tfi_scheduler_stats *out);

/* Encode the job's sequences and return when they are done; `progress` is called on this thread, with no lock held, when a step has
 * brought the job on. Every sequence fits a step (the caller checked). */
tf_status tfi_scheduler_encode(tfi_scheduler *s, tfi_job *job, tf_progress_fn progress, void *progress_user);

/* ---- requests; `timeout_ms` as in tfinfer/generate.h ---- */

tf_status tfi_scheduler_open_request(tfi_scheduler *s, const tfi_request_input *in, tf_generate **out);
void tfi_scheduler_close_request(tf_generate *g);
void tfi_scheduler_cancel(tf_generate *g);

/* Wait for the request's next token and hand it out; or END, or why it ended. */
tf_status tfi_scheduler_next(tf_generate *g, int32_t timeout_ms, tf_generated_token *out);
/* Wait until it is done. OK, or why it ended without a whole result. */
tf_status tfi_scheduler_wait(tf_generate *g, int32_t timeout_ms);
tf_status tfi_scheduler_result(tf_generate *g, int32_t sequence, tf_generated *out);
tf_status tfi_scheduler_scores(tf_generate *g, int32_t kind, int64_t step, int32_t sequence, float *out, int64_t vocab);

/* One step for everybody; END when nothing waits. */
tf_status tfi_scheduler_step(tfi_scheduler *s, int32_t timeout_ms);

/* BUSY when the calling thread is inside one of this session's callbacks. */
tf_status tfi_scheduler_enter(const tfi_scheduler *s);

/* Run a host callback as one of this session's: calls back into the session are refused meanwhile. */
typedef struct tfi_callback_frame {
    const tfi_scheduler *scheduler;
    const struct tfi_callback_frame *outer;
} tfi_callback_frame;
void tfi_callback_begin(tfi_callback_frame *f, const tfi_scheduler *s);
void tfi_callback_end(const tfi_callback_frame *f);

#endif
