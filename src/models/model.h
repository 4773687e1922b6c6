/* A model as the library runs it: facts, a graph, and which of its values are the outputs. Families fill it in from config.json
 * and the names of the tensors; nothing here touches weights' data or a device. */
#ifndef TFI_MODELS_MODEL_H
#define TFI_MODELS_MODEL_H

#include "backend/ops.h"
#include "graph/build.h"
#include "base/memory.h"
#include "io/source.h"
#include "models/sentence.h"

typedef enum tfi_problem { TFI_PROBLEM_NONE, TFI_PROBLEM_REGRESSION, TFI_PROBLEM_SINGLE_LABEL, TFI_PROBLEM_MULTI_LABEL } tfi_problem;

typedef struct tfi_model {
    const char *family, *architecture;
    int32_t layers, heads, head_size, width, input_width, vocab_size, type_count;
    int32_t decoder_layers;   /* of a family with an encoder, whose layers are `layers`; else 0 */
    int32_t max_input_tokens; /* INT32_MAX: the model sets no limit (relative positions) */
    int32_t position_base;    /* position of a sequence's first token; RoBERTa's is pad + 1 */
    int32_t position_pad;     /* RoBERTa: a token with this id takes this position and counts for none; -1: none such */
    int32_t last_pad;         /* TFI_INPUT_LAST: a sequence's last token with another id than this; -1: its last token */
    int32_t labels;
    const char *const *label_names;
    tfi_problem problem;
    int32_t tasks;            /* tf_task bits */
    int64_t parameters;

    tfi_graph graph;
    /* Outputs, as values of the graph; -1 where the checkpoint has none. */
    int32_t *hidden;          /* [layers + 1] */
    int32_t pooled, token_logits, sequence_logits;
    int32_t embedding, embedding_normalized; /* sentence embedding before and after L2 normalisation */
    const char *pooled_missing; /* the tensor whose absence makes pooled -1, for the error text */

    /* Generation; step.op_count is 0 where the checkpoint has none. The encode graph of a family with an encoder keeps the source's keys
     * and values; `graph` of one without serves tf_encode alone. */
    tfi_graph step;
    tfi_store_shape store;    /* blocks and slots are the session's to choose */
    int32_t has_encoder;
    int32_t step_final;       /* value of step, kept: what the logits are made from */
    int32_t logits;           /* value of step [S, V] */
    tfi_draw_values draw;     /* values of step */
    int32_t max_context_tokens; /* ids of a decoder's sequence that can be read: its positions. A sequence may have one id more, which
                                   is drawn and never read. INT32_MAX: no limit of the model's own */
} tfi_model;

/* Build the model in `source` for weights and activations of `dtype`; `sentence` as tfi_sentence_read gave it. Everything made
 * lives in `arena`; tensors stay borrowed from the sources.
 * NOT_FOUND naming a missing file or tensor, CORRUPT, UNSUPPORTED naming family, class or setting, NOMEM. */
tf_status tfi_model_build(const tfi_source *source, const tfi_sentence *sentence, tfi_dtype dtype, tfi_arena *arena,
                          tfi_model *out);

/* The type most of the checkpoint's floating-point bytes are stored in. */
tfi_dtype tfi_model_stored_dtype(const tfi_source *source);

#endif
