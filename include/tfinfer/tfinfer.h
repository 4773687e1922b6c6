/**
 * @file tfinfer.h
 * Transformer inference straight from a Hugging Face checkpoint directory: open, run, close.
 *
 * @code
 * #include <stdio.h>
 * #include <tfinfer/tfinfer.h>
 *
 * int main(int argc, char **argv)
 * {
 *     tf_model *model;
 *     tf_session *session;
 *     tf_text texts[2] = {tf_text_of("A cat sat on the mat."), tf_text_of("Rates rose again.")};
 *     tf_input in;
 *     float out[2][1024];
 *
 *     if (argc < 2 || tf_model_open(argv[1], NULL, &model) < 0) return fprintf(stderr, "%s\n", tf_last_error()), 1;
 *     if (tf_session_open(model, NULL, &session) < 0) return fprintf(stderr, "%s\n", tf_last_error()), 1;
 *     tf_input_init(&in);
 *     in.texts = texts;
 *     in.count = 2;
 *     if (tf_embed(session, &in, NULL, out[0], 1024) < 0) return fprintf(stderr, "%s\n", tf_last_error()), 1;
 *     printf("%f %f ...\n%f %f ...\n", out[0][0], out[0][1], out[1][0], out[1][1]);
 *     tf_session_close(session);
 *     tf_model_close(model);
 * }
 * @endcode
 *
 * Ownership: what _open makes, the matching _close frees; _close takes NULL. A session keeps its model's memory alive: it is
 * freed with the last of them. Strings that belong to the model are valid until tf_model_close.
 * Threads: tf_model is immutable after open and shared by any number of threads. tf_session may be called from any thread;
 * calls that meet share its forward passes, run by one of the waiting threads. tf_result belongs to one thread at a time. A call on a
 * session from one of its own callbacks returns TF_STATUS_BUSY.
 * After fork(), a CPU model and its sessions opened in the parent work in the child too, each process on its own, provided no
 * thread of the parent was inside the library at that moment.
 * No call prints, aborts, exits, reads the environment or installs a signal handler. A call that fails says why in
 * tf_last_error() and leaves its handles usable.
 */
#ifndef TFINFER_TFINFER_H
#define TFINFER_TFINFER_H

#include <tfinfer/base.h>
#include <tfinfer/source.h>
#include <tfinfer/tokenizer.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tf_model tf_model;     /**< a checkpoint's weights on a device; immutable */
typedef struct tf_session tf_session; /**< the working memory for runs of a model */
typedef struct tf_result tf_result;   /**< records that a task found, grouped by input */

/* ---------------------------------------------------------------- model ---- */

/** Format of the weights of matrix products. This version has NONE alone; the others are TF_STATUS_UNSUPPORTED. */
typedef enum tf_quantization { TF_QUANTIZATION_NONE = 0, TF_QUANTIZATION_INT8 = 1, TF_QUANTIZATION_FP8 = 2 } tf_quantization;

/** Settings of tf_model_open(). */
typedef struct tf_model_options {
    uint64_t struct_size;
    const char *device;            /**< "cpu", "cuda", "cuda:1" and so on, or "auto": "cuda" if this build has it and driver, GPU
                                        and cuBLASLt are there, else "cpu"; tf_model_info tells, and `log` why. NULL: "auto" */
    int32_t dtype;                 /**< tf_dtype; unset: AUTO. What is asked for is never replaced: it runs or is UNSUPPORTED */
    int32_t quantization;          /**< tf_quantization; unset: NONE */
    int32_t threads;               /**< threads that compute, in [1, 1024]; unset: one a core this process may run on */
    int32_t gemm_timing;           /**< of a GPU, 1: time what cuBLASLt suggests for a product and keep the fastest, 0: take
                                        its first suggestion. Unset: 1 */
    int64_t memory_budget;         /**< bytes the model may take from the allocator; hard. Unset: no limit */
    const tf_allocator *allocator; /**< NULL: the C library's. Copied */
    tf_log_fn log;                 /**< NULL: none */
    void *log_user;
    tf_progress_fn progress; /**< NULL: none. Called while the model loads, done and total in bytes */
    void *progress_user;
    const char *library_folder; /**< where libcublasLt lies; NULL: wherever the system finds it. Not read by the CPU */
    const char *gemm_file;      /**< of a GPU: a file that keeps what was timed, so that the next open computes products the same
                                     way, to the bit. Read at open, replaced when the last handle of the model closes if there
                                     was something new; one that is damaged or for another device or cuBLASLt is reported to
                                     `log` and not used, one that is no such file is left alone. NULL: none */
    const char *mecab_dictionary; /**< as in tf_tokenizer_options */
} tf_model_options;

static inline void tf_model_options_init(tf_model_options *o)
{
    o->struct_size = sizeof *o;
    o->device = NULL;
    o->dtype = TF_UNSET;
    o->quantization = TF_UNSET;
    o->threads = TF_UNSET;
    o->gemm_timing = TF_UNSET;
    o->memory_budget = TF_UNSET;
    o->allocator = NULL;
    o->log = NULL;
    o->log_user = NULL;
    o->progress = NULL;
    o->progress_user = NULL;
    o->library_folder = NULL;
    o->gemm_file = NULL;
    o->mecab_dictionary = NULL;
}

/**
 * Open the checkpoint in directory `path`: config.json with model.safetensors or pytorch_model.bin (or their shards), and
 * what else is there: a tokenizer, a sentence-transformers description (modules.json).
 *
 * @param options  NULL: all unset.
 * @return TF_STATUS_OK
 *         TF_STATUS_NOT_FOUND    no such directory, no config.json, no weights, or a tensor is missing (it is named)
 *         TF_STATUS_CORRUPT      a file is malformed; the text names file, key and value
 *         TF_STATUS_UNSUPPORTED  a family, head, setting, dtype or device that is not built; named
 *         TF_STATUS_CANCELLED    the progress callback said so
 *         TF_STATUS_IO, TF_STATUS_NOMEM, TF_STATUS_INVALID, TF_STATUS_DEVICE
 *
 * The files must not change while they are read; after return they are not needed any more.
 */
TF_API tf_status tf_model_open(const char *path, const tf_model_options *options, tf_model **out);

/**
 * Open a checkpoint that the host hands over: files and tensors by name (tf_source). tf_model_open() is this call over a directory.
 *
 * @param source   Its struct is copied; what it points to must stay until it is released.
 * @param options  As for tf_model_open().
 * @return as tf_model_open(), besides:
 *         TF_STATUS_INVALID      the source is NULL or has no `file`; a file or tensor is described wrongly: named, with the value
 *         TF_STATUS_UNSUPPORTED  a tensor is on a device and this build or host has no CUDA
 *         what a callback of the source returned, with its text
 *
 * All work that writes a tensor must be done: no stream is waited for. For one weight after the other, memory is taken for
 * the bytes of its tensors on a device, unless they go to the model's device as they are.
 */
TF_API tf_status tf_model_open_source(const tf_source *source, const tf_model_options *options, tf_model **out);
TF_API void tf_model_close(tf_model *m);

/** What a model can do: bits of tf_model_info.tasks. */
typedef enum tf_task {
    TF_TASK_ENCODE = 1,         /**< tf_encode */
    TF_TASK_EMBED = 2,          /**< tf_embed */
    TF_TASK_CLASSIFY = 4,       /**< tf_classify */
    TF_TASK_TOKEN_CLASSIFY = 8, /**< tf_token_classify */
    TF_TASK_ANSWER = 16,        /**< tf_answer */
    TF_TASK_FILL_MASK = 32,     /**< tf_fill_mask */
    TF_TASK_GENERATE = 64       /**< tf_generate_open */
} tf_task;

/** Facts about an open model. Pointers belong to the model. */
typedef struct tf_model_info {
    uint64_t struct_size;
    const char *family;       /**< "bert", "roberta", "distilbert", "electra", ...: config.json's model_type */
    const char *architecture; /**< the class that was loaded, such as "BertForTokenClassification" */
    const char *device;       /**< "cpu", "cuda", "cuda:1" */
    int32_t dtype;            /**< tf_dtype that was chosen for weights and activations */
    int32_t tasks;            /**< tf_task bits */
    int32_t layers;           /**< transformer layers; there are layers + 1 hidden states */
    int32_t heads;            /**< of attention */
    int32_t head_size;        /**< width of one */
    int32_t width;            /**< of the hidden states */
    int32_t input_width;      /**< of input embeddings given in place of ids (differs from width in some ELECTRA models) */
    int32_t vocab_size;       /**< rows of the word embeddings: ids are below it */
    int32_t type_count;       /**< token types that ids may have, 0 if the family has none */
    int32_t max_input_tokens; /**< the longest sequence the position table holds; INT32_MAX: T5 has none */
    int32_t embedding_width;  /**< floats tf_embed writes a text */
    int32_t embedding_tokens; /**< tokens after which tf_embed truncates */
    int32_t pooled_width;     /**< of tf_encode's pooled output; 0 if the checkpoint has no pooler */
    int32_t token_logits;     /**< logits a token: vocabulary, labels, 2 for answers, 1 for ELECTRA's discriminator; 0 if none */
    int32_t sequence_logits;  /**< logits a sequence: labels, 2 for next sentence; 0 if none */
    int32_t labels;           /**< entries of label_names */
    int32_t prompts;          /**< entries of prompt_names and prompt_texts */
    int32_t default_prompt;   /**< index into them, -1 if none */
    int32_t threads;          /**< that compute */
    int32_t has_encoder;      /**< 1 for T5: what is generated depends on an encoded source */
    int32_t decoder_layers;   /**< of a family with an encoder; else 0 */
    int32_t max_context_tokens; /**< tokens a generated sequence may have, its prompt included; INT32_MAX: the model sets no limit;
                                     0: it does not generate */
    int32_t bos_id, eos_id, pad_id, decoder_start_id; /**< as generation uses them; -1: none */
    int64_t parameters;       /**< elements of the tensors that were loaded */
    const char *const *label_names;  /**< [labels] */
    const char *const *prompt_names; /**< [prompts] of sentence-transformers */
    const char *const *prompt_texts; /**< [prompts] what each puts before a text */
} tf_model_info;

static inline void tf_model_info_init(tf_model_info *i)
{
    i->struct_size = sizeof *i;
}

/** Fill `info`: the caller sets struct_size, at most that many bytes are written. @return OK or INVALID. Any thread. */
TF_API tf_status tf_model_get_info(const tf_model *m, tf_model_info *info);

/**
 * The directory's tokenizer, lent: valid until the model is closed, not to be closed by the caller.
 * @return OK; NOT_FOUND if the directory has none; the status and text of its refusal if it has one that is not supported.
 */
TF_API tf_status tf_model_tokenizer(const tf_model *m, const tf_tokenizer **out);

/** Settings of tf_session_open(). */
typedef struct tf_session_options {
    uint64_t struct_size;
    void *stream;            /**< a CUDA stream of the model's device to work on; NULL: one of the session's own. Ignored by the CPU */
    int32_t max_step_tokens; /**< rows one step computes, in [1, 1048576]; longer calls run in several steps. Unset: 2048, at
                                  least the model's max_input_tokens */
    int32_t max_sequences;   /**< sequences a step holds, in [1, max_step_tokens]; unset: 512, at most max_step_tokens */
    int64_t memory_budget;   /**< bytes the session may take from the model's allocator; hard. Unset: no limit */
    int64_t kv_tokens;       /**< keys and values of how many tokens the session holds for tf_generate requests, of all their sequences
                                  and T5's sources; unset: 4096, at least the model's longest sequence. 0: no generation */
} tf_session_options;

static inline void tf_session_options_init(tf_session_options *o)
{
    o->struct_size = sizeof *o;
    o->stream = NULL;
    o->max_step_tokens = TF_UNSET;
    o->max_sequences = TF_UNSET;
    o->memory_budget = TF_UNSET;
    o->kv_tokens = TF_UNSET;
}

/** Bytes a model and one session of it take. */
typedef struct tf_plan {
    uint64_t struct_size;
    int64_t weight_bytes;       /**< resident forms of the weights */
    int64_t mapped_bytes;       /**< pages of the checkpoint's files that stay mapped and in use after open */
    int64_t model_bytes;        /**< graphs, names, tokenizer: what else the model holds, an upper bound within 2 % + 1 MB */
    int64_t session_bytes;      /**< activations, scratch, and kv_bytes, of one session */
    int64_t load_bytes;         /**< held on top only while the model loads; up to 32 MB of the files' pages are mapped in besides */
    int64_t third_party_bytes;  /**< memory of other libraries (matrix library, JSON), measured on a typical model; not of the allocator */
    int64_t total_bytes;        /**< weight + mapped + model + session */
    int64_t kv_bytes;           /**< of session_bytes: keys and values of kv_tokens tokens */
} tf_plan;

static inline void tf_plan_init(tf_plan *p)
{
    p->struct_size = sizeof *p;
}

/**
 * What tf_model_open and tf_session_open with the same arguments will take, from the files' headers alone: no weight is read.
 * @param session  NULL: all unset.
 * @return as tf_model_open.
 */
TF_API tf_status tf_model_plan(const char *path, const tf_model_options *options, const tf_session_options *session, tf_plan *out);

/** How tf_model_graph() writes: lines, or Graphviz source. */
typedef enum tf_graph_format { TF_GRAPH_TEXT = 0, TF_GRAPH_DOT = 1 } tf_graph_format;

/**
 * The model's graph as text: one line an operation, or Graphviz source. Of a model that generates two, the second its step's.
 * Writes at most `capacity` bytes to `text` (NULL if that is 0), no NUL added, and the full size to *size.
 * @return OK, TOO_SMALL (*size says what is needed), INVALID, NOMEM.
 */
TF_API tf_status tf_model_graph(const tf_model *m, int32_t format, char *text, int64_t capacity, int64_t *size);

/* -------------------------------------------------------------- session ---- */

/**
 * Take the working memory for runs of `m`. Runs allocate nothing; around them, texts take memory for their token ids and
 * results for their records, from the model's allocator.
 * @return OK, NOMEM (also: over memory_budget; the text gives both numbers), INVALID, UNSUPPORTED (an operation that the device has not for
 *         the model's types; named), DEVICE, FORKED.
 */
TF_API tf_status tf_session_open(tf_model *m, const tf_session_options *options, tf_session **out);
TF_API void tf_session_close(tf_session *s);

/** What a session has done so far. */
typedef struct tf_session_stats {
    uint64_t struct_size;
    int64_t calls;     /**< tasks finished */
    int64_t steps;     /**< forward passes */
    int64_t sequences; /**< encoded */
    int64_t tokens;    /**< encoded; there is no padding, so this is what was computed */
    int64_t bytes;     /**< of working memory */
} tf_session_stats;

static inline void tf_session_stats_init(tf_session_stats *s)
{
    s->struct_size = sizeof *s;
}

/** Fill `stats`; its struct_size set, at most that many bytes are written. @return OK or INVALID. Any thread. */
TF_API tf_status tf_session_get_stats(tf_session *s, tf_session_stats *stats);

/* ---------------------------------------------------------------- tasks ---- */

/**
 * What a task runs on: texts, or ids, or input embeddings, or ids mixed with embeddings. `count` counts
 * texts or sequences. Sequences given as ids or embeddings lie packed one behind the other, special tokens included. All of
 * it is host memory, read during the call only.
 */
typedef struct tf_input {
    uint64_t struct_size;
    int64_t count;            /**< texts or sequences */
    const tf_text *texts;     /**< [count] UTF-8 */
    const tf_text *pairs;     /**< [count] second texts, or NULL. For tf_answer texts are questions, pairs are contexts */
    const int32_t *ids;       /**< [sum(lens)] */
    const float *embeddings;  /**< [sum(lens), tf_model_info.input_width] in place of the word embeddings. With ids too: only the rows
                                   of tokens whose id is -1 are read, such as a soft prompt's */
    const int32_t *type_ids;  /**< [sum(lens)] with ids or embeddings; NULL: all 0 */
    const int32_t *lens;      /**< [count] tokens a sequence, each in [1, max_input_tokens]; with ids or embeddings */
    tf_progress_fn progress;  /**< NULL: none. Called once a step, done and total in tokens */
    void *progress_user;
    int32_t replace_invalid;  /**< 1: text that is not UTF-8 reads as U+FFFD; unset: 0, an error */
    int32_t reserved;         /**< leave unset */
} tf_input;

static inline void tf_input_init(tf_input *i)
{
    i->struct_size = sizeof *i;
    i->count = TF_UNSET;
    i->texts = NULL;
    i->pairs = NULL;
    i->ids = NULL;
    i->embeddings = NULL;
    i->type_ids = NULL;
    i->lens = NULL;
    i->progress = NULL;
    i->progress_user = NULL;
    i->replace_invalid = TF_UNSET;
    i->reserved = TF_UNSET;
}

/**
 * @name Tasks
 * Every task returns TF_STATUS_OK or
 *         TF_STATUS_INVALID      an input outside its range (which sequence, which position); text longer than the model takes in a
 *                                task that does not truncate; outputs may be partly written, the session stays usable
 *         TF_STATUS_UNSUPPORTED  the checkpoint has no head for the task, or texts were given and it has no tokenizer
 *         TF_STATUS_BUSY         called from a callback of this session
 *         TF_STATUS_NOMEM, TF_STATUS_CANCELLED, TF_STATUS_NUMERIC (a result would be NaN or infinite), TF_STATUS_DEVICE, TF_STATUS_FORKED
 * @{
 */

/** Raw tensors of tf_encode: each pointer NULL (not wanted) or host memory of the caller, float32, row-major. */
typedef struct tf_encode_output {
    uint64_t struct_size;
    const int32_t *layers;    /**< [layer_count] hidden states wanted: 0 is the embeddings' output, tf_model_info.layers the last */
    int64_t layer_count;      /**< of layers */
    float *hidden;            /**< [layer_count, tokens, width] */
    float *pooled;            /**< [count, pooled_width] */
    float *token_logits;      /**< [rows or tokens, tf_model_info.token_logits] */
    float *sequence_logits;   /**< [count, tf_model_info.sequence_logits] */
    const int64_t *rows;      /**< [row_count] tokens (numbered over all sequences, ascending) whose token_logits are wanted; NULL: all */
    int64_t row_count;        /**< of rows */
} tf_encode_output;

static inline void tf_encode_output_init(tf_encode_output *o)
{
    o->struct_size = sizeof *o;
    o->layers = NULL;
    o->layer_count = TF_UNSET;
    o->hidden = NULL;
    o->pooled = NULL;
    o->token_logits = NULL;
    o->sequence_logits = NULL;
    o->rows = NULL;
    o->row_count = TF_UNSET;
}

/**
 * Run the encoder and give raw tensors. `tokens` is the sum of all sequences' lengths. Texts are encoded with special tokens
 * and not truncated; tf_tokenizer_encode tells their lengths beforehand.
 */
TF_API tf_status tf_encode(tf_session *s, const tf_input *in, const tf_encode_output *out);

/** Settings of tf_embed(). */
typedef struct tf_embed_options {
    uint64_t struct_size;
    int32_t normalize;       /**< 1: L2-normalise; unset: what modules.json says, else 0 */
    int32_t max_tokens;      /**< truncate texts to this; unset: tf_model_info.embedding_tokens */
    const char *prompt;      /**< text put before each text; NULL: see prompt_name */
    const char *prompt_name; /**< one of tf_model_info.prompt_names; NULL: the default prompt if there is one */
} tf_embed_options;

static inline void tf_embed_options_init(tf_embed_options *o)
{
    o->struct_size = sizeof *o;
    o->normalize = TF_UNSET;
    o->max_tokens = TF_UNSET;
    o->prompt = NULL;
    o->prompt_name = NULL;
}

/**
 * One vector a text, as sentence-transformers computes it from the same directory: transformer, pooling, dense layers,
 * normalisation. Without modules.json: the mean over tokens, not normalised. Longer texts are truncated.
 *
 * @param out         [count, out_stride] float32, host memory of the caller.
 * @param out_stride  floats from one row to the next, at least tf_model_info.embedding_width.
 */
TF_API tf_status tf_embed(tf_session *s, const tf_input *in, const tf_embed_options *options, float *out, int64_t out_stride);

/** From logits to scores. */
typedef enum tf_activation { TF_ACTIVATION_NONE = 0, TF_ACTIVATION_SIGMOID = 1, TF_ACTIVATION_SOFTMAX = 2 } tf_activation;

/** Settings of tf_classify(). */
typedef struct tf_classify_options {
    uint64_t struct_size;
    int32_t activation; /**< tf_activation from logits to scores; unset: regression NONE, multi-label or one label SIGMOID, else SOFTMAX */
    int32_t truncate;   /**< 1: cut longer texts to the model's length (pairs: longest first); unset: 0, an error */
} tf_classify_options;

static inline void tf_classify_options_init(tf_classify_options *o)
{
    o->struct_size = sizeof *o;
    o->activation = TF_UNSET;
    o->truncate = TF_UNSET;
}

/**
 * Score texts, or pairs of texts, against the checkpoint's labels (sequence classification, regression, next sentence).
 *
 * @param logits  [count, tf_model_info.sequence_logits] or NULL.
 * @param scores  the same shape, activated, or NULL.
 */
TF_API tf_status tf_classify(tf_session *s, const tf_input *in, const tf_classify_options *options, float *logits, float *scores);

/** From tokens to entities: what transformers' token-classification pipeline calls aggregation_strategy. */
typedef enum tf_aggregation {
    TF_AGGREGATION_NONE = 0,
    TF_AGGREGATION_SIMPLE = 1,
    TF_AGGREGATION_FIRST = 2,
    TF_AGGREGATION_AVERAGE = 3,
    TF_AGGREGATION_MAX = 4
} tf_aggregation;

/** Settings of tf_token_classify(). */
typedef struct tf_token_classify_options {
    uint64_t struct_size;
    int32_t aggregation; /**< tf_aggregation; unset: SIMPLE */
    int32_t truncate;    /**< 1: cut longer texts to the model's length; unset: 0, an error unless stride is set */
    int32_t stride;      /**< tokens that neighbouring windows of a longer text share, >= 0; unset: no windows */
    int32_t keep_all;    /**< 1: give records labelled "O" too; unset: 0 */
} tf_token_classify_options;

static inline void tf_token_classify_options_init(tf_token_classify_options *o)
{
    o->struct_size = sizeof *o;
    o->aggregation = TF_UNSET;
    o->truncate = TF_UNSET;
    o->stride = TF_UNSET;
    o->keep_all = TF_UNSET;
}

/** One entity, or one token with TF_AGGREGATION_NONE. Ranges are half-open; for an input of ids the text ranges are 0. */
typedef struct tf_entity {
    uint64_t struct_size;
    const char *label;      /**< without "B-" and "I-" if grouped; belongs to the model */
    float score;            /**< probability in [0, 1] */
    int32_t label_id;       /**< index into label_names: of its first token, or word */
    int64_t byte_begin, byte_end, char_begin, char_end; /**< in the input text */
    int64_t token_begin, token_end;                     /**< in the input's token sequence (of its window with stride) */
} tf_entity;

/** Find entities. Records: tf_entity, by position, through tf_result_entity. Close *out with tf_result_close. */
TF_API tf_status tf_token_classify(tf_session *s, const tf_input *in, const tf_token_classify_options *options, tf_result **out);

/** Settings of tf_answer(). */
typedef struct tf_answer_options {
    uint64_t struct_size;
    int32_t top_k;             /**< answers a question, >= 1; unset: 1 */
    int32_t max_answer_tokens; /**< unset: 15 */
    int32_t max_tokens;        /**< of a window with question and special tokens; unset: 384, at most the model's length */
    int32_t stride;            /**< context tokens that neighbouring windows share; unset: 128, at most half the window */
    int32_t allow_none;        /**< 1: "no answer" (an empty range) may be an answer; unset: 0 */
    int32_t reserved;          /**< leave unset */
    const int64_t *contexts;   /**< [count, 2] with an input of ids: first and one-past-last context token of each sequence */
} tf_answer_options;

static inline void tf_answer_options_init(tf_answer_options *o)
{
    o->struct_size = sizeof *o;
    o->top_k = TF_UNSET;
    o->max_answer_tokens = TF_UNSET;
    o->max_tokens = TF_UNSET;
    o->stride = TF_UNSET;
    o->allow_none = TF_UNSET;
    o->reserved = TF_UNSET;
    o->contexts = NULL;
}

/** One answer: a range of the context. "No answer" has empty ranges. For an input of ids the text ranges are 0. */
typedef struct tf_span {
    uint64_t struct_size;
    float score; /**< product of start and end probability, in [0, 1] */
    int32_t reserved; /**< 0 */
    int64_t byte_begin, byte_end, char_begin, char_end; /**< in the context text */
    int64_t token_begin, token_end;                     /**< in the sequence of the window it was found in */
} tf_span;

/** Find answers to questions (texts) in contexts (pairs). Records: tf_span, best first, through tf_result_span. */
TF_API tf_status tf_answer(tf_session *s, const tf_input *in, const tf_answer_options *options, tf_result **out);

/** Settings of tf_fill_mask(). */
typedef struct tf_fill_mask_options {
    uint64_t struct_size;
    int32_t top_k;          /**< candidates a mask, >= 1; unset: 5 */
    int32_t target_count;   /**< unset: 0 */
    const int32_t *targets; /**< [target_count] ids: only these compete; NULL: the whole vocabulary */
    int32_t mask_id;        /**< unset: the tokenizer's mask token; needed for ids where there is no tokenizer */
    int32_t reserved;       /**< leave unset */
} tf_fill_mask_options;

static inline void tf_fill_mask_options_init(tf_fill_mask_options *o)
{
    o->struct_size = sizeof *o;
    o->top_k = TF_UNSET;
    o->target_count = TF_UNSET;
    o->targets = NULL;
    o->mask_id = TF_UNSET;
    o->reserved = TF_UNSET;
}

/** One candidate for one mask. */
typedef struct tf_fill {
    uint64_t struct_size;
    float score;       /**< probability over the whole vocabulary, in [0, 1] */
    int32_t id;        /**< of the candidate */
    int32_t position;  /**< the mask's token position in the sequence */
    int32_t mask;      /**< number of the mask in the input, from 0 */
    const char *token; /**< the vocabulary's spelling; NULL without a tokenizer. Belongs to the model */
} tf_fill;

/** Candidates for each mask token of each input. Records: tf_fill, by mask, best first, through tf_result_fill. An input
 *  without a mask is TF_STATUS_INVALID. */
TF_API tf_status tf_fill_mask(tf_session *s, const tf_input *in, const tf_fill_mask_options *options, tf_result **out);

/** @} */

/** Records found for input number `input` of the call; 0 if out of range. */
TF_API int64_t tf_result_count(const tf_result *r, int64_t input);

/**
 * Copy record `index` of input `input` of tf_token_classify(); the caller sets out->struct_size, at most that many bytes are written.
 * @return OK; INVALID if a number is out of range or the result holds records of another kind.
 */
TF_API tf_status tf_result_entity(const tf_result *r, int64_t input, int64_t index, tf_entity *out);
/** The same of tf_answer(). */
TF_API tf_status tf_result_span(const tf_result *r, int64_t input, int64_t index, tf_span *out);
/** The same of tf_fill_mask(). */
TF_API tf_status tf_result_fill(const tf_result *r, int64_t input, int64_t index, tf_fill *out);
TF_API void tf_result_close(tf_result *r);

#ifdef __cplusplus
}
#endif
#endif
