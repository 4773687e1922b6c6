/**
 * @file generate.h
 * Text generation with GPT-2 and T5: greedy, sampling, beam search and beam sampling, streamed token by token.
 *
 * @code
 * tf_generate *g;
 * tf_generated_token token;
 * tf_text prompt = tf_text_of("Once upon a time");
 * tf_input in;
 * tf_status st;
 *
 * tf_input_init(&in);
 * in.texts = &prompt;
 * in.count = 1;
 * if (tf_generate_open(session, &in, NULL, &g) < 0) return fprintf(stderr, "%s\n", tf_last_error()), 1;
 * tf_generated_token_init(&token);
 * while ((st = tf_generate_next(g, -1, &token)) == TF_STATUS_OK) fwrite(token.text, 1, (size_t)token.text_bytes, stdout);
 * if (st != TF_STATUS_END) fprintf(stderr, "%s\n", tf_last_error());
 * tf_generate_close(g);
 * @endcode
 *
 * A tf_generate is one request: a prompt and what comes out of it. All open requests of a session advance together, one token a
 * step, in one forward pass; so do waiting tf_encode and task calls of other threads. Who drives: of the threads that are inside
 * tf_generate_next, _wait or tf_session_step (and the tasks), exactly one at a time runs a step; it hands over as soon as its own request has something to
 * return. Nothing moves while nobody is inside.
 * Threads: a tf_generate belongs to one caller at a time; tf_generate_cancel may be called from any thread. Callbacks run on the
 * thread that drives, with no lock held; a call on the same session from inside one returns TF_STATUS_BUSY.
 * Ownership: text and arrays that a call hands out belong to the request until its next call or tf_generate_close.
 */
#ifndef TFINFER_GENERATE_H
#define TFINFER_GENERATE_H

#include <tfinfer/tfinfer.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tf_generate tf_generate; /**< one request */

/** Token ids to be avoided, or given a bias: `count` sequences, packed one behind the other. */
typedef struct tf_id_lists {
    const int32_t *ids;  /**< [sum(lens)] */
    const int32_t *lens; /**< [count] each >= 1 */
    int64_t count;       /**< 0: none */
} tf_id_lists;

/** When beam search ends; transformers' False, True and "never". */
typedef enum tf_early_stopping {
    TF_EARLY_STOPPING_OFF = 0,  /**< num_beams are complete and none that runs, scored at the length it has, is better than the worst of them */
    TF_EARLY_STOPPING_ON = 1,   /**< num_beams are complete */
    TF_EARLY_STOPPING_NEVER = 2 /**< as OFF, but with length_penalty > 0 scored at the longest it could get */
} tf_early_stopping;

/**
 * Changes the logits of one sequence before sampling; called once a step and sequence (beam), after the processors that the options
 * ask for and before temperature, top_k and the others that act on sampling alone (where transformers puts custom processors; also the
 * place for what it calls prefix_allowed_tokens_fn: set what is not allowed to -INFINITY).
 *
 * @param ids     [count] the decoder's tokens so far, prompt included.
 * @param logits  [vocab] float32, to be changed in place; log-probabilities with num_beams > 1.
 * @return 0 to go on; anything else ends this request with TF_STATUS_CANCELLED.
 */
typedef int32_t (*tf_logits_fn)(void *user, int32_t sequence, const int32_t *ids, int64_t count, float *logits, int64_t vocab);

/**
 * Settings of a request. Names and meanings are those of transformers' GenerationConfig. What is unset comes from the checkpoint's
 * generation_config.json, without that file from config.json, else it is the default given here. What the caller sets is checked: a
 * value out of range, two that contradict each other and one that would have no effect (temperature without do_sample, length_penalty
 * without beams, unless it is the value that switches it off, or the default) are TF_STATUS_INVALID, named. A checkpoint's settings that
 * have no effect are passed over; one out of range that a request would use is TF_STATUS_CORRUPT. In integers TF_UNSET, in floats NaN
 * is unset.
 */
typedef struct tf_generate_options {
    uint64_t struct_size;
    /* length; all lengths in tokens */
    int32_t max_new_tokens;      /**< >= 1; 20 */
    int32_t max_length;          /**< decoder's tokens, prompt included. The checkpoint's max_new_tokens gives way to it; the caller's own takes
                                      precedence, but must not go beyond it */
    int32_t min_new_tokens;      /**< >= 0; 0 */
    int32_t min_length;          /**< prompt included; 0. With min_new_tokens as max_length with max_new_tokens */
    float max_time;              /**< seconds from the first step on, > 0; no limit. Ends a request at delivery, a step late at most */
    int32_t early_stopping;      /**< tf_early_stopping, with beams; OFF */
    const tf_text *stop_strings; /**< [stop_string_count] UTF-8, not empty; need the checkpoint's tokenizer */
    int64_t stop_string_count;   /**< 0 */
    const int32_t *eos_ids;      /**< [eos_count] tokens that end a sequence; the checkpoint's */
    int64_t eos_count;           /**< 0: nothing ends a sequence but its length */
    /* strategy */
    int32_t do_sample;            /**< 0 or 1; 0 */
    int32_t num_beams;            /**< in [1, 64]; 1 */
    int32_t num_return_sequences; /**< >= 1; with beams, or without do_sample, at most num_beams; 1 */
    float length_penalty;         /**< beams: score = sum of log-probabilities / length^length_penalty; 1 */
    /* what acts on the logits, in this order */
    const float *sequence_bias_values; /**< [sequence_bias.count] added to the logit of a sequence's last token where the rest precedes it;
                                            of equal sequences the last counts */
    tf_id_lists sequence_bias;        /**< what sequence_bias_values are for; none */
    float encoder_repetition_penalty; /**< > 0; 1. Of the source's tokens; of the prompt's with GPT-2 */
    float repetition_penalty;         /**< > 0; 1 */
    float presence_penalty;           /**< subtracted from the logit of every token generated so far; 0. No part of transformers */
    float frequency_penalty;          /**< the same times how often it was generated; 0 */
    int32_t no_repeat_ngram_size;     /**< >= 0; 0 */
    int32_t encoder_no_repeat_ngram_size; /**< >= 0; 0. Of the source, or the prompt, likewise */
    tf_id_lists bad_words;            /**< bad_words_ids; an end-of-sequence token alone is left out, as transformers does */
    int32_t forced_bos_id;            /**< the token behind a prompt of one token, as T5's is; none. -1: none, whatever the checkpoint says */
    int32_t remove_invalid_values;    /**< 1: NaN and infinity among the logits are replaced; 0: TF_STATUS_NUMERIC */
    const int32_t *forced_eos_ids;    /**< [forced_eos_count] forced as the last token when max_length is reached */
    int64_t forced_eos_count;         /**< 0: nothing is forced */
    int32_t decay_start;              /**< exponential_decay_length_penalty: new tokens after which it acts; with decay_factor */
    float decay_factor;               /**< the end token's logit grows by |logit| * (factor^n - 1); where it is -INFINITY, TF_STATUS_NUMERIC
                                           (transformers goes on with NaN) */
    const int32_t *suppress_ids;      /**< [suppress_count] never generated */
    int64_t suppress_count;           /**< 0: none */
    const int32_t *begin_suppress_ids; /**< [begin_suppress_count] not generated as the first token */
    int64_t begin_suppress_count;      /**< 0: none */
    tf_logits_fn logits;              /**< NULL: none */
    void *logits_user;
    float temperature;                /**< > 0; 1. From here to eta_cutoff with do_sample alone */
    float top_h;                      /**< in (0, 1]; off */
    int32_t top_k;                    /**< >= 0, 0: off; 50 */
    float top_p;                      /**< in [0, 1]; 1 */
    float min_p;                      /**< in [0, 1]; off */
    float typical_p;                  /**< in (0, 1]; 1 */
    float epsilon_cutoff;             /**< in [0, 1); 0 */
    float eta_cutoff;                 /**< in [0, 1); 0 */
    int32_t renormalize_logits;       /**< 1: log-softmax at the end; 0 */
    int32_t reserved;                 /**< leave unset */
    int64_t seed;                     /**< of sampling, TF_UNSET: 0. The same seed gives the same random numbers in any batch. May be set
                                           without do_sample: the result is the same for every seed */
    /* decoder's prompt of T5 */
    const int32_t *decoder_ids;       /**< [decoder_count] begins with the decoder's start token, or it is put before; NULL: that token alone */
    int64_t decoder_count;            /**< of decoder_ids */
    /* what is kept for tf_generate_result and tf_generate_scores */
    int32_t logprobs;                 /**< 1: the model's log-probability of each new token, before any processing; 0 */
    int32_t prompt_logprobs;          /**< 1: of each prompt token but the first (GPT-2; T5: of decoder_ids); 0 */
    int32_t keep_logits;              /**< 1: each step's raw logits; 0 */
    int32_t keep_scores;              /**< 1: each step's processed logits, as sampled from; 0 */
    int32_t skip_special_tokens;      /**< in texts: 1 leaves special tokens out; 1 */
    int32_t clean_up;                 /**< as tf_decode_options.clean_up */
} tf_generate_options;

/** Set every field to "unset". */
static inline void tf_generate_options_init(tf_generate_options *o);

/**
 * Begin a request: the prompt (GPT-2) or source (T5) is in->texts, ->ids or ->embeddings with in->count 1; ids with -1 where a row of
 * embeddings stands (soft prompts) are allowed. An empty GPT-2 prompt starts from the bos token. Reserves KV blocks for the
 * longest possible result times its sequences; no later call takes memory but for tf_generate_next's and _result's texts.
 *
 * @return TF_STATUS_OK
 *         TF_STATUS_INVALID      an option or id out of range, options that contradict each other, a prompt that leaves no room for a new
 *                                token, a request that the session's kv_tokens can never hold (both numbers are given)
 *         TF_STATUS_BUSY         other requests hold the blocks or sequences it needs now; or called from a callback of this session
 *         TF_STATUS_UNSUPPORTED  the checkpoint cannot generate; a setting that this version does not have
 *         TF_STATUS_NOMEM
 */
TF_API tf_status tf_generate_open(tf_session *s, const tf_input *in, const tf_generate_options *options, tf_generate **out);

/** Ends the request, finished or not, and frees it; when it returns, none of its callbacks runs on any thread. Takes NULL. Not from one
 *  of its own callbacks. */
TF_API void tf_generate_close(tf_generate *g);

/** Why a sequence ended. */
typedef enum tf_finish {
    TF_FINISH_NONE = 0,      /**< still running */
    TF_FINISH_EOS = 1,       /**< an end-of-sequence token, which is the last id */
    TF_FINISH_LENGTH = 2,    /**< max_length, max_new_tokens or the model's last position */
    TF_FINISH_STOP = 3,      /**< a stop string */
    TF_FINISH_TIME = 4,      /**< max_time */
    TF_FINISH_CANCELLED = 5
} tf_finish;

/** A new token as tf_generate_next hands it out. */
typedef struct tf_generated_token {
    uint64_t struct_size;
    int32_t sequence;    /**< in [0, num_return_sequences) */
    int32_t id;          /**< -1: no token, the last bytes of the sequence's text and its finish */
    float logprob;       /**< with options.logprobs, else 0 */
    int32_t finish;      /**< tf_finish; not NONE with the last record of a sequence */
    const char *text;    /**< what the token adds to the text: whole UTF-8 characters, maybe none; "" without a tokenizer */
    int64_t text_bytes;  /**< of text */
} tf_generated_token;

static inline void tf_generated_token_init(tf_generated_token *t)
{
    t->struct_size = sizeof *t;
}

/**
 * The next token of any sequence of this request, in the order they come; with beams all tokens of the best sequence when the search is
 * over, then of the next one.
 *
 * @param timeout_ms  how long to wait, -1: without limit, 0: not at all (no step is driven then).
 * @return TF_STATUS_OK; TF_STATUS_END when everything has been handed out; TF_STATUS_TIMEOUT (nothing lost, call again);
 *         TF_STATUS_CANCELLED; TF_STATUS_BUSY from a callback of this session; TF_STATUS_NUMERIC, TF_STATUS_DEVICE, NOMEM: the request has ended.
 */
TF_API tf_status tf_generate_next(tf_generate *g, int32_t timeout_ms, tf_generated_token *out);

/** Wait until the whole request is finished. @return OK, or as tf_generate_next. */
TF_API tf_status tf_generate_wait(tf_generate *g, int32_t timeout_ms);

/** A sequence's result so far; whole once tf_generate_wait said OK. */
typedef struct tf_generated {
    uint64_t struct_size;
    const int32_t *ids;            /**< [count] new tokens, the eos token included */
    int64_t count;                 /**< new tokens */
    const char *text;              /**< of the new tokens; NUL-terminated; "" without a tokenizer */
    int64_t text_bytes;            /**< of text */
    const float *logprobs;         /**< [count] with options.logprobs, else NULL */
    const float *prompt_logprobs;  /**< [prompt_count], the first is 0; with options.prompt_logprobs, else NULL */
    int64_t prompt_count;          /**< decoder's tokens before the first new one */
    double cumulative_logprob;     /**< sum of logprobs */
    float score;                   /**< beams: the sequence's score; else 0 */
    int32_t finish;                /**< tf_finish */
    int64_t stop_begin;            /**< where in text a stop string begins, -1: none did; texts are not trimmed */
    int64_t stop_index;            /**< which of stop_strings, -1 */
    const int32_t *beams;          /**< [count] the beam that each token was drawn from, numbered as in tf_generate_scores(); else NULL */
} tf_generated;

static inline void tf_generated_init(tf_generated *r)
{
    r->struct_size = sizeof *r;
}

/** Result of sequence `sequence` in [0, num_return_sequences), the best first with beams. @return OK, INVALID, NOMEM. */
TF_API tf_status tf_generate_result(tf_generate *g, int32_t sequence, tf_generated *out);

/** Which logits tf_generate_scores() gives: the model's, or what was sampled from. */
typedef enum tf_scores { TF_SCORES_LOGITS = 0, TF_SCORES_PROCESSED = 1 } tf_scores;

/**
 * Logits of step `step` (0: those the first new token was drawn from) and sequence (with num_beams > 1: beam as it ran, before
 * reordering) `sequence`: out [vocab] float32. @return OK; NOT_FOUND if they were not kept or the step has not been; INVALID.
 */
TF_API tf_status tf_generate_scores(const tf_generate *g, int32_t kind, int64_t step, int32_t sequence, float *out, int64_t vocab);

/** End the request at its next step; any thread. What was generated stays readable. */
TF_API void tf_generate_cancel(tf_generate *g);

/**
 * Drive one step for everybody, without a request of one's own: for programs that hold many requests in one thread. Then
 * tf_generate_next(g, 0, ...) collects.
 *
 * @return TF_STATUS_OK when a step was run; TF_STATUS_END when there is nothing to do; TF_STATUS_TIMEOUT when another thread drove all
 *         the time; TF_STATUS_BUSY from a callback of this session.
 */
TF_API tf_status tf_session_step(tf_session *s, int32_t timeout_ms);

static inline void tf_generate_options_init(tf_generate_options *o)
{
    const tf_id_lists none = {NULL, NULL, TF_UNSET};
    const float unset = tf_unset_float();

    o->struct_size = sizeof *o;
    o->max_new_tokens = TF_UNSET;
    o->max_length = TF_UNSET;
    o->min_new_tokens = TF_UNSET;
    o->min_length = TF_UNSET;
    o->max_time = unset;
    o->early_stopping = TF_UNSET;
    o->stop_strings = NULL;
    o->stop_string_count = TF_UNSET;
    o->eos_ids = NULL;
    o->eos_count = TF_UNSET;
    o->do_sample = TF_UNSET;
    o->num_beams = TF_UNSET;
    o->num_return_sequences = TF_UNSET;
    o->length_penalty = unset;
    o->sequence_bias_values = NULL;
    o->sequence_bias = none;
    o->encoder_repetition_penalty = unset;
    o->repetition_penalty = unset;
    o->presence_penalty = unset;
    o->frequency_penalty = unset;
    o->no_repeat_ngram_size = TF_UNSET;
    o->encoder_no_repeat_ngram_size = TF_UNSET;
    o->bad_words = none;
    o->forced_bos_id = TF_UNSET;
    o->remove_invalid_values = TF_UNSET;
    o->forced_eos_ids = NULL;
    o->forced_eos_count = TF_UNSET;
    o->decay_start = TF_UNSET;
    o->decay_factor = unset;
    o->suppress_ids = NULL;
    o->suppress_count = TF_UNSET;
    o->begin_suppress_ids = NULL;
    o->begin_suppress_count = TF_UNSET;
    o->logits = NULL;
    o->logits_user = NULL;
    o->temperature = unset;
    o->top_h = unset;
    o->top_k = TF_UNSET;
    o->top_p = unset;
    o->min_p = unset;
    o->typical_p = unset;
    o->epsilon_cutoff = unset;
    o->eta_cutoff = unset;
    o->renormalize_logits = TF_UNSET;
    o->reserved = TF_UNSET;
    o->seed = TF_UNSET;
    o->decoder_ids = NULL;
    o->decoder_count = TF_UNSET;
    o->logprobs = TF_UNSET;
    o->prompt_logprobs = TF_UNSET;
    o->keep_logits = TF_UNSET;
    o->keep_scores = TF_UNSET;
    o->skip_special_tokens = TF_UNSET;
    o->clean_up = TF_UNSET;
}

#ifdef __cplusplus
}
#endif
#endif
