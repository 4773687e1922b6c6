/* The op vocabulary: values, weights and ops of a graph, and the argument struct of each op's functions. Everything above
 * (src/graph builds and checks graphs, src/models decides what is in them) and below (backends execute them) meets here.
 *
 * Letters, here and everywhere: R token rows of all sequences packed one behind the other, B sequences, S selected rows,
 * E width, H heads, D head size, F inner width, V vocabulary. All matrices are row-major; rows are never padded. */
#ifndef TFI_BACKEND_OPS_H
#define TFI_BACKEND_OPS_H

#include <stdint.h>

#include "base/dtype.h"
#include "io/source.h"

typedef struct tfi_store tfi_store; /* the backend's own; see below */

/* ---- values: activations [rows, cols]; the row count is one of these symbols, known when the graph runs ---- */

typedef enum tfi_rows { TFI_ROWS_TOKENS, TFI_ROWS_SEQUENCES, TFI_ROWS_SELECTED, TFI_ROWS_COUNT } tfi_rows;

typedef struct tfi_value {
    const char *name; /* unique in the graph, for the printer and error texts */
    tfi_dtype dtype;  /* F32 or BF16; each value has its own */
    tfi_rows rows;
    int64_t cols;
    int keep;         /* survives until the next run that computes it, so that a resumed run can start from it */
} tfi_value;

/* ---- graph inputs: host arrays given with each run ---- */

typedef enum tfi_input_id {
    TFI_INPUT_IDS,        /* int32 [R], NULL: every row is one of EMBEDDINGS */
    TFI_INPUT_EMBEDDINGS, /* float [R, E], NULL if no row is one of them */
    TFI_INPUT_POSITIONS,  /* int32 [R] rows of the position table */
    TFI_INPUT_TYPES,      /* int32 [R] rows of the type table */
    TFI_INPUT_OFFSETS,    /* int32 [B + 1] first token row of each sequence, ends with R */
    TFI_INPUT_SELECTED,   /* int32 [S] token rows */
    TFI_INPUT_LAST,       /* int32 [B] token row that stands for each sequence (GPT-2's classifiers) */
    TFI_INPUT_SKIP,       /* int32 [1] leading tokens of each sequence that POOL leaves out; NULL: none */
    TFI_INPUT_TARGETS,    /* int32 [S] id whose log-probability is wanted, -1: none */
    TFI_INPUT_ROW_SLOTS,  /* int32 [S] slot whose settings and history a row of logits is processed with, -1: none */
    TFI_INPUT_KV_COPIES,  /* int32 [n, 2] blocks: from, to; n is tfi_run.copy_count */
    TFI_INPUT_KV_LENS,    /* int32 [B] tokens of each sequence in the KV store when this run has appended its own */
    TFI_INPUT_KV_TABLES,  /* int32 [B, tfi_run.table_stride] its blocks, in order */
    TFI_INPUT_KV_MOVES,   /* tfi_kv_move [B], of a backend that runs ahead; NULL: tables stand as they are */
    TFI_INPUT_SOURCE_LENS,   /* int32 [B] tokens of the encoded source that a sequence attends to; in the encode graph a
                                sequence's own length, 0: its keys and values are not kept */
    TFI_INPUT_SOURCE_TABLES, /* int32 [B, tfi_run.source_stride] blocks of the source's keys and values */
    TFI_INPUT_COUNT
} tfi_input_id;

/* In TFI_INPUT_IDS, beside ids of the vocabulary: the row of TFI_INPUT_EMBEDDINGS; or the token that was drawn last for a slot,
 * so that a sequence can go on before the host has seen its token. */
enum { TFI_ID_EMBEDDING = -1 };
#define TFI_ID_DRAWN(slot) (-2 - (slot))

/* What a beam that is drawn in the run before has stored is known when that is over: its blocks are then those of the sequence it
 * goes on from, with its own in the last place, which the run appends to. What that sequence has in the same place already is
 * copied there: entry `copy` of KV_COPIES is made of it. */
typedef struct tfi_kv_move {
    int32_t slot;         /* whose parent counts; -1: the sequence's blocks stand as they are */
    int32_t first;        /* the run's sequence that is the request's beam 0; the others are behind it */
    int32_t filled, copy; /* the block that it has had in the last place until now; -1: the place is new, nothing is copied */
} tfi_kv_move;

/* ---- weights ---- */

/* How a weight would be split over several devices; fused matrices are sliced inside each part. */
typedef enum tfi_shard { TFI_SHARD_NONE, TFI_SHARD_COLUMN, TFI_SHARD_ROW, TFI_SHARD_HEADS, TFI_SHARD_VOCAB } tfi_shard;

/* Who reads a weight; a tied embedding has two bits set and still one resident form. */
enum { TFI_READ_LINEAR = 1, TFI_READ_ROWS = 2, TFI_READ_VECTOR = 4, TFI_READ_BIAS = 8 };

/* T5's relative position bias: a table [buckets, heads], of which tfi_relative_bucket() says which row serves a distance. Its
 * resident form is by distance: fp32 [heads, 2 * max_distance + 1], column max_distance + clamp(key - query, -max_distance,
 * max_distance); beyond max_distance the bucket does not change any more. */
typedef struct tfi_relative {
    int32_t buckets, max_distance;
    int32_t bidirectional;  /* 0: keys behind the query share bucket 0 */
} tfi_relative;

enum { TFI_WEIGHT_PARTS = 3 };

typedef struct tfi_weight {
    const char *name;     /* of the first part's tensor */
    int64_t rows, cols;   /* logical: a LINEAR computes x W^T with W [rows = outputs, cols = inputs]; a table has a row an id; a
                             vector is [1, cols] */
    tfi_dtype dtype;      /* of the resident form; vectors are F32 */
    int transposed;       /* parts are stored [inputs, outputs] */
    float scale;          /* of a vector: factor that its resident form has in it; 0: none */
    int readers;          /* TFI_READ_ bits of all ops that read it */
    tfi_shard shard;
    tfi_relative relative; /* of a weight that is read as TFI_READ_BIAS; rows = buckets, cols = heads */
    int parts;            /* stacked along rows (a vector's along cols); Q, K, V of one projection are three */
    const tfi_tensor *part[TFI_WEIGHT_PARTS]; /* NULL: zeros (a bias that the checkpoint lacks) */
    int64_t part_rows[TFI_WEIGHT_PARTS];      /* rows (cols of a vector) of each; they sum up */
} tfi_weight;

/* The one resident form of a weight. The backend says what it will be (layout, bytes); whoever loads provides the memory. */
typedef struct tfi_weight_form {
    int32_t layout;   /* the backend's own numbering; 0 is plain row-major */
    int64_t bytes;
    void *data;       /* 64-byte aligned, in the backend's memory; of a weight used where the host has it, at any address that its
                         elements can have, and never written */
} tfi_weight_form;

/* ---- ops ---- */

typedef enum tfi_activation {
    TFI_ACT_NONE, TFI_ACT_RELU, TFI_ACT_GELU /* erf */, TFI_ACT_GELU_TANH, TFI_ACT_SILU, TFI_ACT_TANH, TFI_ACT_SIGMOID, TFI_ACT_COUNT
} tfi_activation;

/* A way to make one vector of a sequence. Several are concatenated: a list of them is an octal number, the first in its lowest
 * digit, so that walking it is `for (int32_t p = list; p; p >>= 3)` with the kind p & 7. */
enum { TFI_POOL_CLS = 1, TFI_POOL_MAX, TFI_POOL_MEAN, TFI_POOL_MEAN_SQRT, TFI_POOL_WEIGHTED, TFI_POOL_LAST, TFI_POOL_LIST_MAX = 10 };

typedef enum tfi_op_kind {
    TFI_OP_EMBED, TFI_OP_NORM, TFI_OP_LINEAR, TFI_OP_GLU, TFI_OP_ATTENTION, TFI_OP_GATHER_ROWS, TFI_OP_POOL, TFI_OP_L2NORM,
    TFI_OP_LOGPROB, TFI_OP_LOGITS_PROCESS,
    /* These write no value but the store (KV blocks, slots) or the run's choices; a run has them done by its `effects`. */
    TFI_OP_KV_COPY, TFI_OP_KV_APPEND, TFI_OP_SAMPLE, TFI_OP_BEAM_STEP, TFI_OP_STOP,
    TFI_OP_COUNT
} tfi_op_kind;

const char *tfi_op_name(tfi_op_kind kind); /* for the printer and error texts */

/* What ATTENTION's rows attend to. */
typedef enum tfi_attend {
    TFI_ATTEND_ALL,    /* every token of the own sequence, all in this run */
    TFI_ATTEND_CAUSAL, /* those up to the row itself, all in this run */
    TFI_ATTEND_CACHE,  /* those up to the row itself, from the KV store */
    TFI_ATTEND_SOURCE  /* every token of the sequence's source, from the KV store */
} tfi_attend;

typedef enum tfi_norm_kind { TFI_NORM_LAYER, TFI_NORM_RMS } tfi_norm_kind;

/* Which half of the processors LOGITS_PROCESS is: host callbacks come between them. */
typedef enum tfi_process_stage { TFI_PROCESS_CONSTRAIN, TFI_PROCESS_WARP } tfi_process_stage;

/* An op of a graph: operands are indices into the graph's values and weights, -1 for none. What they mean for each kind is in
 * the argument struct of the same name below. */
typedef struct tfi_op {
    tfi_op_kind kind;
    int32_t x, residual, y;       /* values */
    int32_t logits;               /* value: raw logits beside x of SAMPLE */
    int32_t weight, bias;         /* weights: matrix and bias of LINEAR, gain and bias (RMS: none) of NORM, word table of EMBED,
                                     table of ATTENTION's relative position bias */
    int32_t positions, types;     /* weights: tables of EMBED */
    tfi_activation activation;    /* LINEAR, GLU */
    tfi_norm_kind norm;           /* NORM */
    float eps;                    /* NORM, L2NORM */
    tfi_attend attend;            /* ATTENTION; KV_APPEND: CACHE or SOURCE, which of a sequence's tables */
    int32_t layer;                /* of the KV store: ATTENTION from it, KV_APPEND */
    int32_t heads, head_size;     /* ATTENTION, KV_APPEND */
    int32_t column;               /* KV_APPEND: first column of the keys in x, the values follow them */
    float scale;                  /* ATTENTION */
    int32_t pooling;              /* POOL: a list of TFI_POOL_ kinds */
    tfi_process_stage stage;      /* LOGITS_PROCESS */
} tfi_op;

/* A model's graphs share one list of weights. */
typedef struct tfi_graph {
    tfi_value *values;
    tfi_op *ops; /* in execution order: every value is written by one op before it is read */
    tfi_weight *weights;
    int32_t value_count, op_count, weight_count;
} tfi_graph;

/* ---- the store: what runs of a session share, in the backend's memory ---- */

/* Keys and values lie in blocks of this many tokens, all layers and heads of a token in one block. */
enum { TFI_KV_BLOCK = 16 };

/* One shape serves a decoder's own tokens and the encoded source it attends to. */
typedef struct tfi_store_shape {
    int32_t layers, heads, head_size; /* of keys and values */
    tfi_dtype dtype;
    int64_t blocks;
    int32_t slots;
} tfi_store_shape;

/* A list of token sequences: sequence i is ids[start[i] .. start[i + 1]). */
typedef struct tfi_id_lists {
    int32_t count;
    const int32_t *start; /* [count + 1] */
    const int32_t *ids;
} tfi_id_lists;

/* What a request asks of its logits; the same for all its sequences and constant while they run. Names and meanings are those of
 * transformers' GenerationConfig; each field's comment gives the value that switches it off. Lengths count the decoder's tokens,
 * prompt included. Pointers are borrowed while a slot uses the record. */
typedef struct tfi_sampling {
    int32_t vocab;
    int32_t prompt;                      /* tokens of the decoder's prompt */
    int32_t max_length;                  /* prompt + new tokens; the last one ends the sequence */
    int32_t eos_count;
    const int32_t *eos;
    /* constrain, in this order */
    tfi_id_lists sequence_bias;          /* count 0 */
    const float *sequence_bias_values;   /* [sequence_bias.count] */
    float encoder_repetition_penalty;    /* 1 */
    float repetition_penalty;            /* 1 */
    float presence_penalty, frequency_penalty; /* 0: over drawn tokens alone, right after repetition_penalty */
    int32_t no_repeat_ngram_size;        /* 0 */
    int32_t encoder_no_repeat_ngram_size; /* 0 */
    const int32_t *source;               /* encoder's ids, for the two encoder_ settings */
    int32_t source_count;
    tfi_id_lists bad_words;              /* count 0 */
    int32_t min_length;                  /* 0 */
    int32_t min_new_tokens;              /* 0 */
    int32_t forced_bos;                  /* -1 */
    int32_t forced_eos_count;            /* 0 */
    const int32_t *forced_eos;
    int32_t remove_invalid_values;       /* 0 */
    int32_t decay_start;                 /* exponential_decay_length_penalty, from this many new tokens on; -1: off */
    float decay_factor;
    int32_t suppress_count;              /* 0 */
    const int32_t *suppress;
    int32_t begin_suppress_count;        /* 0 */
    const int32_t *begin_suppress;
    int32_t begin_index;                 /* length at which begin_suppress acts */
    /* warp, in this order, only with do_sample; renormalize always */
    int32_t do_sample;
    float temperature;                   /* 1 */
    float top_h;                         /* NaN */
    int32_t top_k;                       /* 0 */
    float top_p;                         /* 1 */
    float min_p;                         /* NaN */
    float typical_p;                     /* 1 */
    float epsilon_cutoff, eta_cutoff;    /* 0 */
    int32_t renormalize_logits;          /* 0 */
    uint64_t seed;
    int32_t logprobs;                    /* 1: choices carry the model's log-probability of the token */
    /* beams; 1: none, the sequences of a request are drawn independently */
    int32_t num_beams;                   /* tfi_beam_candidates() is at most TFI_BEAM_CANDIDATES_MAX */
    float length_penalty;
    int32_t early_stopping;              /* 0: by the heuristic, 1: when num_beams are finished, 2: never */
    /* Asks whether `token` after beam `beam` completes a stop string; NULL: there are none. Called by BEAM_STEP. */
    int (*completes)(void *user, int32_t beam, int32_t token);
    void *completes_user;
} tfi_sampling;

/* Each step of beam search ranks as many continuations; their number is limited. */
enum { TFI_BEAM_CANDIDATES_MAX = 4096 };
static inline int64_t tfi_beam_candidates(const tfi_sampling *s)
{
    return (s->eos_count > 1 ? 1 + (int64_t)s->eos_count : 2) * s->num_beams;
}

/* What beam search remembers of a request beside its beams. Made with finished scores of -1e9 and open = 1. */
typedef struct tfi_beams {
    float *finished_scores;              /* [num_beams], best first */
    int8_t *is_finished;                 /* [num_beams] */
    int8_t open;                         /* a finished sequence can still be improved */
} tfi_beams;

/* A running sequence, or a beam of one. */
typedef struct tfi_slot {
    const tfi_sampling *sampling;        /* NULL: the slot is free */
    int32_t *tokens;                     /* [max_length] prompt, then drawn tokens */
    int32_t count;                       /* tokens now */
    int32_t sequence;                    /* number in the request, of a beam its number */
    float score;                         /* beams: sum of log-probabilities; starts at 0 for beam 0, -1e9 for the others */
    int32_t parent;                      /* beams: the beam that this one went on from when it was drawn last */
    tfi_beams *beams;                    /* of the request, shared by its beams */
} tfi_slot;

/* A sequence that gets a token in this run, from a row of the selected ones. The sequences of a request that has just read its
 * prompt share one row; the beams of a request are neighbours, in order. */
typedef struct tfi_draw {
    int32_t slot, row;
} tfi_draw;

/* What a run decided for a draw. */
typedef enum tfi_stop {
    TFI_STOP_NONE,
    TFI_STOP_EOS,
    TFI_STOP_LENGTH,
    TFI_STOP_BEAMS,   /* this request's beam search is over (given to all its beams) */
    TFI_STOP_NUMERIC  /* the logits hold a NaN or an infinity, and remove_invalid_values is off */
} tfi_stop;

typedef struct tfi_choice {
    int32_t token;
    int32_t parent;       /* beams: the beam that this one goes on from */
    float logprob;        /* the model's, before any processing, if asked for */
    float score;          /* beams: their running sum */
    int32_t stop;         /* tfi_stop */
    /* Beams: entry i (of num_beams, best first) of the finished list after this step, given in the choice of beam i:
     * finished_from >= 0 is the entry it was before; -1 a sequence that ended now with finished_token behind beam finished_parent;
     * -2 no sequence yet (but transformers may return it: the running sequence it names is finished_parent, finished_token). */
    int32_t finished_from, finished_parent, finished_token;
    float finished_score; /* with the length penalty */
    float finished_logprob;
} tfi_choice;

/* ---- what an op's functions are called with: the op's meaning. Live row counts; pointers in the backend's memory.
 *      dtypes of operands are fixed when the function is resolved. ---- */

/* y[r] = word[ids[r]] (or embeddings[r]) + positions[position_ids[r]] + types[type_ids[r]]; sums in fp32. What ids below 0
 * mean: TFI_ID_EMBEDDING, TFI_ID_DRAWN. */
typedef struct tfi_embed_args {
    const int32_t *ids, *position_ids, *type_ids;
    const float *embeddings;              /* [R, E] or NULL */
    const tfi_slot *slots;                /* of the store, NULL if no id names one */
    const tfi_weight *word_weight;
    const tfi_weight_form *word;          /* [V, E] in its resident form, maybe a LINEAR's */
    const void *positions, *types;        /* [*, E] row-major in the dtype of word's weight, or NULL */
    void *y;                              /* [R, E] */
    int64_t R, E;
} tfi_embed_args;

/* With z = x + residual, statistics in fp32 over E:
 *   LAYER  y = (z - mean(z)) / sqrt(var(z) + eps) * gain + bias   (Ba et al. 2016)
 *   RMS    y = z / sqrt(mean(z^2) + eps) * gain                   (Zhang, Sennrich 2019) */
typedef struct tfi_norm_args {
    const void *x, *residual;             /* [R, E]; residual may be NULL */
    const float *gain, *bias;             /* [E]; RMS has no bias */
    tfi_norm_kind norm;
    void *y;                              /* [R, E]; may alias x or residual */
    int64_t R, E;
    float eps;
} tfi_norm_args;

/* y = act(x W^T + b) + residual; accumulates in fp32 */
typedef struct tfi_linear_args {
    const void *x;                        /* [M, K] */
    const tfi_weight *weight;             /* [N, K] */
    const tfi_weight_form *form;
    const float *bias;                    /* [N] or NULL */
    const void *residual;                 /* [M, N] in y's dtype, or NULL */
    void *y;                              /* [M, N]; aliases nothing */
    int64_t M, N, K;
    tfi_activation activation;
} tfi_linear_args;

/* y = act(x[:, :F]) * x[:, F:] */
typedef struct tfi_glu_args {
    const void *x;                        /* [R, 2*F] */
    void *y;                              /* [R, F] */
    int64_t R, F;
    tfi_activation activation;
} tfi_glu_args;

/* Where the keys and values of a run's sequences are in the store. */
typedef struct tfi_kv_view {
    tfi_store *store;
    const int32_t *lens;                  /* [B] tokens in the store, this run's own included */
    const int32_t *tables;                /* [B, stride] blocks */
    int64_t stride;
    int32_t layer;
} tfi_kv_view;

/* y = softmax(scale * q k^T + bias) v for each head. Row r of sequence b attends to what `attend` says; from the store, the run's
 * rows of a sequence are its last ones: row i of n is token lens[b] - n + i. A row of x begins with H*D of Q; for ALL and CAUSAL
 * H*D of K and of V follow. bias is tfi_relative's form by distance between the tokens' numbers in their sequence. Softmax and sums in
 * fp32. A sequence without rows, or a row without keys (a source of length 0), is legal; the latter gives zeros. */
typedef struct tfi_attention_args {
    const void *x;                        /* [R, x_stride] */
    int64_t x_stride;                     /* 3*H*D, or what the value has */
    const int32_t *offsets;               /* [B + 1] */
    tfi_kv_view kv;                       /* CACHE, SOURCE */
    const float *bias;                    /* [H, 2*max_distance + 1] or NULL */
    int32_t max_distance;
    void *y;                              /* [R, H*D] */
    int64_t R, B;
    int32_t H, D;                         /* any D in [1, 256] */
    tfi_attend attend;
    float scale;
} tfi_attention_args;

/* Keys and values of this run's rows into the store: row i of sequence b's n is token lens[b] - n + i. A row holds H*D keys from
 * `column` on, and H*D values behind them. Sequences of length 0 are left out. */
typedef struct tfi_kv_append_args {
    const void *x;                        /* [R, x_stride] */
    int64_t x_stride;
    const int32_t *offsets;               /* [B + 1] */
    tfi_kv_view kv;
    int64_t R, B;
    int32_t H, D, column;
} tfi_kv_append_args;

/* Whole blocks, all layers; no block is both source and target. */
typedef struct tfi_kv_copy_args {
    tfi_store *store;
    const int32_t *copies;                /* [count, 2] from, to */
    int64_t count;
} tfi_kv_copy_args;

/* y[s] = x[s, targets[s]] - log sum exp x[s]; 0 where the target is -1 */
typedef struct tfi_logprob_args {
    const float *x;                       /* [S, V] logits */
    const int32_t *targets;               /* [S] */
    float *y;                             /* [S, 1] */
    int64_t S, V;
} tfi_logprob_args;

/* y[s] = the processors of this stage over x[s], with the settings and history of row_slots[s]; a copy where that is -1.
 * Order, formulas and edge cases are those of transformers' GenerationMixin._get_logits_processor and its classes. CONSTRAIN begins with
 * log_softmax for requests with beams. */
typedef struct tfi_process_args {
    const float *x;                       /* [S, V] */
    const int32_t *row_slots;             /* [S] */
    const tfi_slot *slots;
    float *y;                             /* [S, V] */
    int64_t S, V;
    tfi_process_stage stage;
} tfi_process_args;

/* SAMPLE, for each draw whose request has no beams: with do_sample the token where the running sum of softmax(x), by ascending id,
 * passes the uniform number of tfi_philox(seed, sequence, step), step being the tokens drawn before; else the first maximum. The token is
 * appended to the slot's. BEAM_STEP, for each request with beams: one step of transformers 5's _beam_search. STOP marks what
 * SAMPLE drew: end-of-sequence tokens, the maximum length. All write the draw's choice. */
typedef struct tfi_draw_args {
    const float *x;                       /* [S, V] processed */
    const float *logits;                  /* [S, V] raw, for log-probabilities */
    const tfi_draw *draws;                /* [count] */
    tfi_slot *slots;
    tfi_choice *choices;                  /* [count] */
    int64_t count, V;
} tfi_draw_args;

/* y[s] = x[rows[s]]: the selected rows; or, where y has a row a sequence, the row that stands for each */
typedef struct tfi_gather_args {
    const void *x;                        /* [R, E] */
    const int32_t *rows;                  /* [S] TFI_INPUT_SELECTED, TFI_INPUT_LAST */
    void *y;                              /* [S, E], x's dtype */
    int64_t S, E;
} tfi_gather_args;

/* One vector a sequence, over its tokens from number `skip` on, of which there is at least one: the poolings of `pooling`,
 * concatenated. CLS is the first of these tokens. MEAN_SQRT divides by the square root of their number, WEIGHTED weighs token i of
 * the whole sequence (from 0) with i + 1. Sums in fp32. */
typedef struct tfi_pool_args {
    const void *x;                        /* [R, E] */
    const int32_t *offsets;               /* [B + 1] */
    void *y;                              /* [B, n*E], n kinds in pooling */
    int64_t B, E;
    int32_t pooling;
    int32_t skip;
} tfi_pool_args;

/* y = x / max(|x|_2, eps) */
typedef struct tfi_l2norm_args {
    const void *x;                        /* [R, E] */
    void *y;                              /* [R, E]; may alias x */
    int64_t R, E;
    float eps;
} tfi_l2norm_args;

#endif
