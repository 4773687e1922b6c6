/* A request's settings: what the caller sets, over generation_config.json (without it config.json), over the defaults; checked,
 * and turned into the record that the sampling ops read. Rules: transformers' GenerationConfig. */
#ifndef TFI_GENERATE_SETTINGS_H
#define TFI_GENERATE_SETTINGS_H

#include <tfinfer/generate.h>

#include "backend/ops.h"
#include "base/files.h"
#include "base/memory.h"

/* A checkpoint's own settings. */
typedef struct tfi_generation {
    tf_generate_options options; /* unset where the files say nothing; its arrays live in the arena given */
    int32_t bos, pad, decoder_start; /* -1: none; decoder_start is bos where the files have none */
} tfi_generation;

/* Keys that are unknown or have no effect here are reported through `log` and ignored; no file at all is no failure: all unset. CORRUPT for
 * a file that is no JSON object or a value of a wrong type; ids outside [0, vocab) are CORRUPT, too, but for bos, pad, decoder start
 * and end-of-sequence tokens: configurations of small vocabularies name GPT-2's 50256, which nothing can draw, so that is reported and
 * dropped. Ranges are checked by tfi_settings_open, and only of what a request uses. */
tf_status tfi_generation_read(const tfi_files *files, int32_t vocab, tfi_arena *arena, tfi_memory *memory, tf_log_fn log, void *log_user,
                              tfi_generation *out);

/* What the settings are checked against. */
typedef struct tfi_request_facts {
    int32_t vocab;
    int32_t has_encoder;
    int32_t has_tokenizer;
    int32_t prompt;              /* decoder's tokens before the first new one */
    int32_t max_context;         /* tokens that the model can read; INT32_MAX: no limit */
    const int32_t *source;       /* encoder's ids; of a model without one the prompt, as in transformers. NULL: embeddings were given */
    int32_t source_count;
} tfi_request_facts;

typedef struct tfi_settings {
    tfi_memory *memory;
    void *block;                 /* copies of all arrays and strings below lie in it */
    size_t block_bytes;
    tfi_sampling sampling;       /* with max_length settled: the shortest of what was asked and max_context + 1 */
    int32_t slots;               /* sequences that run: beams, or sequences drawn */
    int32_t results;             /* num_return_sequences */
    float max_time;              /* seconds, INFINITY: no limit */
    tf_text *stop_strings;       /* [stop_string_count] */
    int32_t stop_string_count;
    tf_logits_fn logits;
    void *logits_user;
    int32_t prompt_logprobs, keep_logits, keep_scores, skip_special_tokens, clean_up;
} tfi_settings;

/* INVALID or UNSUPPORTED naming the setting, CORRUPT where the checkpoint's own is at fault. clean_up is TF_UNSET where nobody sets it.
 * `caller` NULL: nothing set. Close also after a failure. */
tf_status tfi_settings_open(tfi_settings *s, const tfi_generation *defaults, const tf_generate_options *caller,
                            const tfi_request_facts *facts, tfi_memory *memory);
void tfi_settings_close(tfi_settings *s);

#endif
