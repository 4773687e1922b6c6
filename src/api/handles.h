/* The public handles from inside, and what the task files share: a batch made of any tf_input, and the run over it. */
#ifndef TFI_API_HANDLES_H
#define TFI_API_HANDLES_H

#include <pthread.h>
#include <stdatomic.h>

#include <tfinfer/tfinfer.h>

#include "backend/backend.h"
#include "base/memory.h"
#include "generate/scheduler.h"
#include "models/model.h"

struct tf_model {
    tfi_memory memory;
    tfi_arena arena;            /* graph, names, prompts */
    atomic_int references;      /* the caller's and one a session */
    tfi_backend *backend;
    tfi_model def;
    tfi_sentence sentence;      /* its dense sources are closed after loading */
    tfi_generation generation;  /* the checkpoint's settings; of a model that generates */
    tf_dtype dtype;
    tfi_weight_form *forms;     /* [graph.weight_count] */
    void *weights;              /* one block that all forms lie in */
    int64_t weight_bytes;
    tf_tokenizer *tokenizer;    /* NULL: tokenizer_status and tokenizer_error say why */
    tf_status tokenizer_status;
    char tokenizer_error[512];
    tf_source lent; /* borrowed, and released with the model; release NULL: nothing is */
    tf_log_fn log;
    void *log_user;
};

void tfi_model_release(tf_model *m);

/* ---- a batch: what a tf_input asks for, checked ---- */

typedef struct tfi_batch {
    const tf_model *model;
    int64_t count;              /* sequences; with windows more than the input's texts */
    const int64_t *starts;      /* [count + 1] first token of each, all sequences packed */
    const int32_t *ids;         /* [tokens], -1 for a row of embeddings; NULL: all are */
    const float *embeddings;    /* [tokens, input_width] or NULL */
    const int32_t *type_ids;    /* [tokens], NULL: all 0 */
    int32_t skip;               /* leading tokens of each sequence that poolings leave out */
    tf_progress_fn progress;
    void *progress_user;
    tf_encoding *encoding;      /* of texts, with offsets; NULL for ids and embeddings */
    tf_encoding_data text;
    int64_t *owned_starts;      /* [count + 1] made here for ids and embeddings */
} tfi_batch;

/* Fill `b` from the caller's input. `tokenize` says how texts are cut (NULL: not at all); its replace_invalid is taken from the input.
 * Every id, type and length is checked. Close the batch also after a failure. */
tf_status tfi_batch_open(tfi_batch *b, const tf_model *m, const tf_input *in, const tf_tokenize_options *tokenize);
/* The same for a prompt, which may be empty. */
tf_status tfi_batch_open_prompt(tfi_batch *b, const tf_model *m, const tf_input *in);
void tfi_batch_close(tfi_batch *b);

/* ---- a run over a batch ---- */

/* Run the batch in as many steps as it takes. Outputs whose value has a row a selected token get `rows` (ascending tokens of the
 * batch, row_count of them), or all tokens when rows is NULL. */
tf_status tfi_session_run(tf_session *s, const tfi_batch *b, const tfi_output *outputs, int32_t output_count, const int64_t *rows,
                          int64_t row_count);

/* INVALID naming a sequence that is longer than a step. */
tf_status tfi_session_fits(const tf_session *s, const tfi_batch *b);

const tf_model *tfi_session_model(const tf_session *s);
tfi_scheduler *tfi_session_scheduler(tf_session *s);

/* A request keeps its session alive, too. */
void tfi_session_hold(tf_session *s);
void tfi_session_release(tf_session *s);

/* Bytes a session with these options would take, and those of them for keys and values. */
tf_status tfi_session_plan(const tf_model *m, const tf_session_options *options, int64_t *bytes, int64_t *kv_bytes);
void tfi_session_count_call(tf_session *s);

/* The task's head must be there; UNSUPPORTED naming task and class otherwise. */
tf_status tfi_model_needs(const tf_model *m, int32_t task, const char *call);

/* ---- results ---- */

typedef enum tfi_record_kind { TFI_RECORD_ENTITY, TFI_RECORD_SPAN, TFI_RECORD_FILL } tfi_record_kind;

struct tf_result {
    tfi_memory *memory;
    tf_model *model;            /* kept alive */
    tfi_record_kind kind;
    size_t record_bytes;
    int64_t inputs;
    int64_t *first;             /* [inputs + 1] first record of each input */
    char *records;
    int64_t count, room;
};

/* Records are added input by input, in order. */
tf_status tfi_result_open(const tf_model *m, tfi_record_kind kind, int64_t inputs, tf_result **out);
tf_status tfi_result_add(tf_result *r, const void *record);
void tfi_result_end_input(tf_result *r, int64_t input);

#endif
