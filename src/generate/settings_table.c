/* The table of the settings that are one number, with their ranges and defaults. */
#include "generate/settings_table.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

#define AT(field) offsetof(tf_generate_options, field)
#define INT(field, files, min, max, unset)                                                                                     \
    {                                                                                                                          \
#field, AT(field), TFI_SETTING_INT, TFI_WHEN_ALWAYS, files, 0, min, max, unset, unset                                  \
    }
#define FLAG(field, files, unset)                                                                                              \
    {                                                                                                                          \
#field, AT(field), TFI_SETTING_FLAG, TFI_WHEN_ALWAYS, files, 0, 0, 1, unset, unset                                     \
    }
#define FLOAT(field, when, files, open, min, max, unset)                                                                       \
    {                                                                                                                          \
#field, AT(field), TFI_SETTING_FLOAT, when, files, open, min, max, unset, unset                                        \
    }

/* do_sample and num_beams come first: whether others act depends on them. */
const tfi_setting tfi_setting_table[TFI_SETTING_COUNT] = {
    FLAG(do_sample, 1, 0),
    INT(num_beams, 1, 1, 64, 1),
    INT(num_return_sequences, 1, 1, INT32_MAX, 1),
    INT(max_new_tokens, 1, 1, INT32_MAX, -1),
    INT(max_length, 1, 1, INT32_MAX, -1),
    INT(min_new_tokens, 1, 0, INT32_MAX, -1),
    INT(min_length, 1, 0, INT32_MAX, -1),
    FLOAT(max_time, TFI_WHEN_ALWAYS, 1, TFI_OPEN_LOW | TFI_OPEN_HIGH, 0, INFINITY, INFINITY),
    {"early_stopping", AT(early_stopping), TFI_SETTING_INT, TFI_WHEN_BEAMS, 0, 0, 0, 2, 0,
     0}, /* its form in files is another */
    FLOAT(length_penalty, TFI_WHEN_BEAMS, 1, TFI_OPEN_LOW | TFI_OPEN_HIGH, -INFINITY, INFINITY, 1),
    FLOAT(encoder_repetition_penalty, TFI_WHEN_SOURCE, 1, TFI_OPEN_LOW | TFI_OPEN_HIGH, 0, INFINITY, 1),
    FLOAT(repetition_penalty, TFI_WHEN_ALWAYS, 1, TFI_OPEN_LOW | TFI_OPEN_HIGH, 0, INFINITY, 1),
    FLOAT(presence_penalty, TFI_WHEN_ALWAYS, 0, TFI_OPEN_LOW | TFI_OPEN_HIGH, -INFINITY, INFINITY, 0),
    FLOAT(frequency_penalty, TFI_WHEN_ALWAYS, 0, TFI_OPEN_LOW | TFI_OPEN_HIGH, -INFINITY, INFINITY, 0),
    INT(no_repeat_ngram_size, 1, 0, INT32_MAX, 0),
    {"encoder_no_repeat_ngram_size", AT(encoder_no_repeat_ngram_size), TFI_SETTING_INT, TFI_WHEN_SOURCE, 1, 0, 0, INT32_MAX, 0,
     0},
    INT(forced_bos_id, 0, -1, INT32_MAX, -1),
    FLAG(remove_invalid_values, 1, 0),
    INT(decay_start, 0, 0, INT32_MAX, -1),
    FLOAT(decay_factor, TFI_WHEN_ALWAYS, 0, TFI_OPEN_LOW | TFI_OPEN_HIGH, 0, INFINITY, 1),
    FLOAT(temperature, TFI_WHEN_SAMPLING, 1, TFI_OPEN_LOW | TFI_OPEN_HIGH, 0, INFINITY, 1),
    FLOAT(top_h, TFI_WHEN_SAMPLING, 1, TFI_OPEN_LOW, 0, 1, NAN),
    {"top_k", AT(top_k), TFI_SETTING_INT, TFI_WHEN_SAMPLING, 1, 0, 0, INT32_MAX, 50, 0},
    FLOAT(top_p, TFI_WHEN_SAMPLING, 1, 0, 0, 1, 1),
    FLOAT(min_p, TFI_WHEN_SAMPLING, 1, 0, 0, 1, NAN),
    FLOAT(typical_p, TFI_WHEN_SAMPLING, 1, TFI_OPEN_LOW, 0, 1, 1),
    FLOAT(epsilon_cutoff, TFI_WHEN_SAMPLING, 1, TFI_OPEN_HIGH, 0, 1, 0),
    FLOAT(eta_cutoff, TFI_WHEN_SAMPLING, 1, TFI_OPEN_HIGH, 0, 1, 0),
    FLAG(renormalize_logits, 1, 0),
    FLAG(logprobs, 0, 0),
    FLAG(prompt_logprobs, 0, 0),
    FLAG(keep_logits, 0, 0),
    FLAG(keep_scores, 0, 0),
    FLAG(skip_special_tokens, 0, 1),
    FLAG(clean_up, 0, TF_UNSET), /* the tokenizer knows better */
    INT(reserved, 0, TF_UNSET, TF_UNSET, TF_UNSET),
};

const tfi_id_setting tfi_id_setting_table[TFI_ID_SETTING_COUNT] = {
    {"eos_ids", "eos_token_id", AT(eos_ids), AT(eos_count)},
    {"forced_eos_ids", "forced_eos_token_id", AT(forced_eos_ids), AT(forced_eos_count)},
    {"suppress_ids", "suppress_tokens", AT(suppress_ids), AT(suppress_count)},
    {"begin_suppress_ids", "begin_suppress_tokens", AT(begin_suppress_ids), AT(begin_suppress_count)},
    {"decoder_ids", NULL, AT(decoder_ids), AT(decoder_count)},
};

double tfi_setting_get(const tf_generate_options *o, const tfi_setting *s)
{
    const char *const field = (const char *)o + s->offset;
    int32_t number;
    float real;

    if (s->kind == TFI_SETTING_FLOAT) {
        memcpy(&real, field, sizeof real);
        return (double)real;
    }
    memcpy(&number, field, sizeof number);
    return number == TF_UNSET ? NAN : (double)number;
}

void tfi_setting_put(tf_generate_options *o, const tfi_setting *s, double value)
{
    char *const field = (char *)o + s->offset;
    const float real = (float)value;

    if (s->kind == TFI_SETTING_FLOAT) {
        memcpy(field, &real, sizeof real);
    } else {
        const int32_t number = (int32_t)value;
        memcpy(field, &number, sizeof number);
    }
}
