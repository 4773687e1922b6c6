/* A request's settings: what the caller sets over what the files say over the defaults, every refusal, and memory that fails.
 */
#include "generate/settings.h"

#include <math.h>
#include <stdarg.h>
#include <stdlib.h>

#include "check.h"

enum { VOCAB = 100, TEXT_MAX = 4096 };

static const char *generation_json, *config_json; /* NULL: no such file */
static char logged[TEXT_MAX];
static tfi_memory memory;
static check_memory counted;

static tf_status open_file(void *user, const char *name, tf_file *out)
{
    const char *const text = !strcmp(name, "generation_config.json") ? generation_json
                             : !strcmp(name, "config.json")          ? config_json
                                                                     : NULL;

    (void)user;
    if (!text) return TF_STATUS_NOT_FOUND;
    out->data = text;
    out->size = (int64_t)strlen(text);
    return TF_STATUS_OK;
}

static void log_line(void *user, tf_log_level level, const char *text)
{
    const size_t used = strlen(logged);

    (void)user;
    snprintf(logged + used, sizeof logged - used, "%d:%s\n", (int)level, text);
}

static const int32_t source_ids[] = {5, 6, 7};
static tfi_request_facts facts;
static tfi_generation generation;
static tfi_arena arena;
static tf_generate_options asked;
static tfi_settings settings;

static void begin(void)
{
    check_memory_init(&counted);
    tfi_memory_init(&memory, &counted.hooks, TF_UNSET);
    arena = (tfi_arena){.memory = &memory};
    facts = (tfi_request_facts){.vocab = VOCAB, .has_tokenizer = 1, .prompt = 4, .max_context = 64};
    generation_json = config_json = NULL;
    logged[0] = '\0';
    tf_generate_options_init(&asked);
    memset(&settings, 0, sizeof settings);
}

static void end(void)
{
    tfi_settings_close(&settings);
    tfi_arena_close(&arena);
    CHECK_INT(counted.live_blocks, 0);
}

static void with_encoder(void)
{
    facts.has_encoder = 1;
    facts.prompt = 1;
    facts.max_context = INT32_MAX;
    facts.source = source_ids;
    facts.source_count = 3;
}

static tf_status read_files(void)
{
    tfi_files files = {.source = {.file = open_file}, .label = "dir"};

    return tfi_generation_read(&files, VOCAB, &arena, &memory, log_line, NULL, &generation);
}

static tf_status open_settings(void)
{
    tfi_settings_close(&settings);
    return tfi_settings_open(&settings, &generation, &asked, &facts, &memory);
}

/* Files as they are, then the settings of `asked`. */
static void settle(void)
{
    CHECK_OK(read_files());
    CHECK_OK(open_settings());
}

/* ---- what wins ---- */

static void defaults(void)
{
    begin();
    settle();
    const tfi_sampling *const p = &settings.sampling;
    CHECK_INT(p->vocab, VOCAB);
    CHECK_INT(p->prompt, 4);
    CHECK_INT(p->max_length, 24);
    CHECK_INT(p->min_length, 0);
    CHECK_INT(p->eos_count, 0);
    CHECK_INT(p->do_sample, 0);
    CHECK_INT(p->top_k, 0);
    CHECK(p->temperature == 1 && p->top_p == 1 && p->typical_p == 1 && isnan(p->min_p) && isnan(p->top_h));
    CHECK(p->repetition_penalty == 1 && p->encoder_repetition_penalty == 1 && p->presence_penalty == 0);
    CHECK_INT(p->num_beams, 1);
    CHECK(p->length_penalty == 1);
    CHECK_INT(p->forced_bos, -1);
    CHECK_INT(p->decay_start, -1);
    CHECK_INT(settings.results, 1);
    CHECK_INT(settings.slots, 1);
    CHECK(isinf(settings.max_time));
    CHECK_INT(settings.skip_special_tokens, 1);
    CHECK_INT(settings.clean_up, TF_UNSET);
    CHECK_INT(generation.bos, -1);
    asked.do_sample = 1;
    CHECK_OK(open_settings());
    CHECK_INT(p->top_k, 50);
    end();
}

static void precedence(void)
{
    begin();
    generation_json =
        "{\"do_sample\":true,\"top_k\":7,\"top_p\":0.5,\"temperature\":null,\"eos_token_id\":[3,4],\"bos_token_id\":9,"
        "\"pad_token_id\":2,\"use_cache\":true,\"max_new_tokens\":11,\"stop_strings\":\"\\u00e9\"}";
    config_json = "{\"num_beams\":4,\"top_k\":1}";
    asked.top_p = 0.25f;
    settle();
    const tfi_sampling *const p = &settings.sampling;
    CHECK_INT(p->do_sample, 1);
    CHECK_INT(p->top_k, 7);
    CHECK(p->top_p == 0.25f && p->temperature == 1);
    CHECK_INT(p->num_beams, 1);
    CHECK_INT(p->max_length, 15);
    CHECK_INT(p->eos_count, 2);
    CHECK_INT(p->eos[1], 4);
    CHECK_INT(generation.bos, 9);
    CHECK_INT(generation.pad, 2);
    CHECK_INT(generation.decoder_start, 9);
    CHECK_INT(settings.stop_string_count, 1);
    CHECK_INT(settings.stop_strings[0].size, 2);
    CHECK(strstr(logged, "use_cache") && !strstr(logged, "top_k"));

    asked.eos_count = 0; /* an empty list is a list */
    asked.stop_string_count = 0;
    asked.do_sample = 0;
    asked.top_p = tf_unset_float();
    CHECK_OK(open_settings()); /* the file's sampling settings do nothing now */
    CHECK_INT(p->eos_count, 0);
    CHECK_INT(settings.stop_string_count, 0);
    CHECK_INT(p->top_k, 0);
    CHECK(p->top_p == 1);

    generation_json = NULL;
    config_json = "{\"model_type\":\"gpt2\",\"num_beams\":4,\"early_stopping\":\"never\",\"task_specific_params\":{\"a\":{"
                  "\"num_beams\":9}}}";
    logged[0] = '\0';
    settle();
    CHECK_INT(p->num_beams, 4);
    CHECK_INT(p->early_stopping, TF_EARLY_STOPPING_NEVER);
    CHECK_INT(settings.slots, 4);
    CHECK_INT(settings.results, 1);
    CHECK_TEXT(logged, "");
    end();
}

static void max_length(int32_t prompt, int32_t new_tokens, int32_t length, const char *json, int32_t expected)
{
    facts.prompt = prompt;
    asked.max_new_tokens = new_tokens;
    asked.max_length = length;
    generation_json = json;
    settle();
    CHECK_INT(settings.sampling.max_length, expected);
}

static void lengths(void)
{
    begin(); /* the context is 64 */
    max_length(4, TF_UNSET, TF_UNSET, NULL, 24);
    max_length(50, TF_UNSET, TF_UNSET, NULL, 64); /* the default ends with the last position ... */
    max_length(64, TF_UNSET, TF_UNSET, NULL, 65);
    max_length(50, 30, TF_UNSET, NULL, 65); /* ... what was asked for one token later */
    max_length(50, INT32_MAX, TF_UNSET, NULL, 65);
    max_length(50, TF_UNSET, 60, NULL, 60);
    max_length(4, 3, 60, NULL, 7);
    max_length(4, TF_UNSET, TF_UNSET, "{\"max_length\":9}", 9);
    max_length(4, TF_UNSET, TF_UNSET, "{\"max_length\":9,\"max_new_tokens\":9}", 13);
    max_length(4, TF_UNSET, 30, "{\"max_new_tokens\":9}", 30);
    max_length(4, 2, TF_UNSET, "{\"max_length\":3}", 6);
    facts.max_context = INT32_MAX;
    max_length(4, INT32_MAX, TF_UNSET, NULL, INT32_MAX);
    facts.max_context = 64;

    asked.max_new_tokens = 9;
    asked.max_length = TF_UNSET;
    asked.min_new_tokens = 5;
    generation_json = "{\"min_length\":40}";
    settle();
    CHECK_INT(settings.sampling.min_length, 9);
    CHECK_INT(settings.sampling.min_new_tokens, 5);
    asked.min_new_tokens = TF_UNSET; /* a file's minimum over the caller's maximum is no error of the caller */
    CHECK_OK(open_settings());
    CHECK_INT(settings.sampling.min_length, 40);
    CHECK_INT(settings.sampling.min_new_tokens, 0);
    asked.min_length = 3;
    CHECK_OK(open_settings());
    CHECK_INT(settings.sampling.min_length, 3);
    end();
}

static void lists(void)
{
    const int32_t bias_ids[] = {1, 2, 3, 1, 2, 4, 3}, bias_lens[] = {2, 1, 2, 1, 1}, bad_ids[] = {8, 9, 8, 9},
                  bad_lens[] = {1, 2, 1};
    const float biases[] = {-1, 2, -3, 4, 5};
    const int32_t eos[] = {8};
    const tfi_sampling *const p = &settings.sampling;

    begin();
    asked.sequence_bias = (tf_id_lists){bias_ids, bias_lens, 5};
    asked.sequence_bias_values = biases;
    asked.bad_words = (tf_id_lists){bad_ids, bad_lens, 3};
    asked.eos_ids = eos;
    asked.eos_count = 1;
    settle();
    CHECK_INT(p->sequence_bias.count, 3); /* {1, 2}: -3, {3}: 5, {4}: 4 */
    CHECK_INT(p->sequence_bias.start[1], 2);
    CHECK_INT(p->sequence_bias.start[3], 4);
    CHECK_INT(p->sequence_bias.ids[3], 4);
    CHECK(p->sequence_bias_values[0] == -3 && p->sequence_bias_values[1] == 5 && p->sequence_bias_values[2] == 4);
    CHECK_INT(p->bad_words.count, 2); /* the eos token alone is left out */
    CHECK_INT(p->bad_words.ids[0], 9);
    CHECK_INT(p->bad_words.ids[2], 9);
    CHECK(p->eos != eos);
    end();
}

static void files_lists(void)
{
    const tfi_sampling *const p = &settings.sampling;

    begin();
    generation_json = "{\"sequence_bias\":[[[10,45],-10.0],[[7],2]],\"bad_words_ids\":[[1],[2,3]],\"suppress_tokens\":[4,5],"
                      "\"begin_suppress_tokens\":6,\"forced_eos_token_id\":[7,8],\"exponential_decay_length_penalty\":[5,1.5],"
                      "\"eos_token_id\":1,\"stop_strings\":[\"a\",\"bc\"],\"max_time\":2.5}";
    settle();
    CHECK_INT(p->sequence_bias.count, 2);
    CHECK_INT(p->sequence_bias.ids[1], 45);
    CHECK(p->sequence_bias_values[0] == -10 && p->sequence_bias_values[1] == 2);
    CHECK_INT(p->bad_words.count, 1);
    CHECK_INT(p->suppress_count, 2);
    CHECK_INT(p->begin_suppress[0], 6);
    CHECK_INT(p->begin_index, 4);
    CHECK_INT(p->forced_eos_count, 2);
    CHECK_INT(p->decay_start, 5);
    CHECK(p->decay_factor == 1.5f && settings.max_time == 2.5f);
    CHECK_INT(settings.stop_string_count, 2);

    generation_json = "{\"sequence_bias\":{\"(10, 45)\":-10.0,\"(7,)\":1},\"exponential_decay_length_penalty\":[5,1.5]}";
    settle();
    CHECK_INT(p->sequence_bias.count, 2);
    CHECK_INT(p->sequence_bias.start[1], 2);
    CHECK_INT(p->sequence_bias.ids[2], 7);
    CHECK_INT(p->decay_start, -1); /* without an end there is nothing to hasten */

    with_encoder();
    generation_json = "{\"forced_bos_token_id\":3,\"begin_suppress_tokens\":[6],\"encoder_repetition_penalty\":2.0,"
                      "\"encoder_no_repeat_ngram_size\":3}";
    settle();
    CHECK_INT(p->forced_bos, 3);
    CHECK_INT(p->begin_index, 2);
    CHECK(p->encoder_repetition_penalty == 2);
    CHECK_INT(p->source_count, 3);
    CHECK_INT(p->source[2], 7);
    facts.has_encoder = 0;
    facts.source = NULL;
    CHECK_OK(open_settings());
    CHECK(p->encoder_repetition_penalty == 1);
    CHECK_INT(p->encoder_no_repeat_ngram_size, 0);
    end();
}

/* ---- files that are refused, or have things to say ---- */

static void file_refused(const char *json, const char *says)
{
    generation_json = json;
    CHECK_STATUS(read_files(), TF_STATUS_CORRUPT);
    CHECK_ERROR_SAYS("dir/generation_config.json");
    CHECK_ERROR_SAYS(says);
}

static void files_refused(void)
{
    begin();
    file_refused("[]", "object");
    file_refused("{\"top_p\":\"0.5\"}", "top_p");
    file_refused("{\"top_k\":1.5}", "top_k");
    file_refused("{\"do_sample\":1}", "do_sample");
    file_refused("{\"early_stopping\":\"always\"}", "\"always\"");
    file_refused("{\"eos_token_id\":\"x\"}", "eos_token_id");
    file_refused("{\"eos_token_id\":[1,null]}", "eos_token_id");
    file_refused("{\"bos_token_id\":true}", "bos_token_id");
    file_refused("{\"suppress_tokens\":[100]}", "100");
    file_refused("{\"suppress_tokens\":[-1]}", "-1");
    file_refused("{\"forced_eos_token_id\":[1,[2]]}", "forced_eos_token_id");
    file_refused("{\"forced_bos_token_id\":100}", "forced_bos_token_id");
    file_refused("{\"bad_words_ids\":3}", "bad_words_ids");
    file_refused("{\"bad_words_ids\":[3]}", "bad_words_ids");
    file_refused("{\"bad_words_ids\":[[]]}", "bad_words_ids");
    file_refused("{\"bad_words_ids\":[[1,200]]}", "200");
    file_refused("{\"sequence_bias\":7}", "sequence_bias");
    file_refused("{\"sequence_bias\":[[[1]]]}", "sequence_bias");
    file_refused("{\"sequence_bias\":[[[1],\"x\"]]}", "sequence_bias");
    file_refused("{\"sequence_bias\":[[[1],1e300]]}", "sequence_bias");
    file_refused("{\"sequence_bias\":{\"(1, 2\":1.0}}", "sequence_bias");
    file_refused("{\"sequence_bias\":{\"()\":1.0}}", "sequence_bias");
    file_refused("{\"sequence_bias\":{\"(100,)\":1.0}}", "sequence_bias");
    file_refused("{\"sequence_bias\":{\"(1,)x\":1.0}}", "sequence_bias");
    file_refused("{\"exponential_decay_length_penalty\":[1]}", "[1]");
    file_refused("{\"exponential_decay_length_penalty\":[-1,2]}", "[-1,2]");
    file_refused("{\"stop_strings\":[1]}", "stop_strings");
    file_refused("{\"max_time\":1e300}", "max_time");
    end();
}

static void files_talk(void)
{
    begin();
    generation_json = "{\"num_beam_groups\":2,\"diversity_penalty\":0.0,\"penalty_alpha\":0.6,\"guidance_scale\":1.0,"
                      "\"token_healing\":false,\"dola_layers\":\"low\",\"surprise\":{\"a\":1},\"nothing\":null,"
                      "\"transformers_version\":\"5\",\"eos_token_id\":[100,5],\"bos_token_id\":50256,\"max_length\":1e30}";
    CHECK_STATUS(read_files(), TF_STATUS_CORRUPT); /* 1e30 tokens */
    logged[0] = '\0';
    generation_json = "{\"num_beam_groups\":2,\"diversity_penalty\":0.0,\"penalty_alpha\":0.6,\"guidance_scale\":1.0,"
                      "\"token_healing\":false,\"dola_layers\":\"low\",\"surprise\":{\"a\":1},\"nothing\":null,"
                      "\"transformers_version\":\"5\",\"eos_token_id\":[100,5],\"bos_token_id\":50256}";
    settle();
    CHECK(strstr(logged, "2:generation_config.json: \"num_beam_groups\"") != NULL);
    CHECK(strstr(logged, "2:generation_config.json: \"penalty_alpha\"") != NULL);
    CHECK(strstr(logged, "2:generation_config.json: \"dola_layers\"") != NULL);
    CHECK(strstr(logged, "1:generation_config.json: \"surprise\"") != NULL);
    CHECK(strstr(logged, "eos_token_id") && strstr(logged, "50256"));
    CHECK(!strstr(logged, "diversity_penalty") && !strstr(logged, "guidance_scale") && !strstr(logged, "token_healing"));
    CHECK(!strstr(logged, "\"nothing\"") && !strstr(logged, "transformers_version"));
    CHECK_INT(generation.bos, -1);
    CHECK_INT(settings.sampling.eos_count, 1);
    CHECK_INT(settings.sampling.eos[0], 5);
    end();
}

/* Values of a file that a request would use and cannot. */
static void files_ranges(void)
{
    begin();
    generation_json = "{\"top_p\":7.0,\"num_return_sequences\":3}";
    asked.num_return_sequences = 1;
    settle(); /* nothing is sampled */
    asked.do_sample = 1;
    CHECK_STATUS(open_settings(), TF_STATUS_CORRUPT);
    CHECK_ERROR_SAYS("top_p is 7, outside [0, 1]");
    CHECK_ERROR_SAYS("checkpoint");
    asked.top_p = 0.5f;
    CHECK_OK(open_settings());
    asked = (tf_generate_options){0};
    tf_generate_options_init(&asked);
    CHECK_STATUS(open_settings(), TF_STATUS_CORRUPT);
    CHECK_ERROR_SAYS("num_return_sequences is 3");
    generation_json = "{\"stop_strings\":\"a\"}";
    facts.has_tokenizer = 0;
    CHECK_OK(read_files());
    CHECK_STATUS(open_settings(), TF_STATUS_UNSUPPORTED);
    CHECK_ERROR_SAYS("stop_string_count");
    generation_json = "{\"max_length\":4}";
    CHECK_OK(read_files());
    CHECK_STATUS(open_settings(), TF_STATUS_INVALID);
    CHECK_ERROR_SAYS("the prompt has 4 tokens, max_length is 4");
    end();
}

/* ---- what a caller must not ask ---- */

static tf_generate_options *fresh(void)
{
    tf_generate_options_init(&asked);
    return &asked;
}

static void refused(const char *says)
{
    CHECK_STATUS(open_settings(), TF_STATUS_INVALID);
    CHECK_ERROR_SAYS(says);
    fresh();
}

#define REFUSED(field, value, says)                                                                                            \
    do {                                                                                                                       \
        asked.field = value;                                                                                                   \
        refused(says);                                                                                                         \
    } while (0)
#define REFUSED_SAMPLING(field, value, says)                                                                                   \
    do {                                                                                                                       \
        asked.do_sample = 1;                                                                                                   \
        REFUSED(field, value, says);                                                                                           \
    } while (0)

static void ranges(void)
{
    begin();
    CHECK_OK(read_files());
    REFUSED(max_new_tokens, 0, "max_new_tokens is 0, outside [1, 2147483647]");
    REFUSED(max_length, 0, "max_length is 0");
    REFUSED(min_new_tokens, -1, "min_new_tokens is -1");
    REFUSED(min_length, -1, "min_length is -1");
    REFUSED(max_time, 0.0f, "max_time is 0, outside (0, inf)");
    REFUSED(max_time, INFINITY, "max_time is inf");
    REFUSED(do_sample, 2, "do_sample is 2, outside [0, 1]");
    REFUSED(num_beams, 0, "num_beams is 0, outside [1, 64]");
    REFUSED(num_beams, 65, "num_beams is 65");
    REFUSED(num_return_sequences, 0, "num_return_sequences is 0");
    REFUSED(early_stopping, 3, "early_stopping is 3");
    REFUSED(length_penalty, -INFINITY, "length_penalty is -inf");
    REFUSED(encoder_repetition_penalty, 0.0f, "encoder_repetition_penalty is 0");
    REFUSED(repetition_penalty, 0.0f, "repetition_penalty is 0");
    REFUSED(repetition_penalty, INFINITY, "repetition_penalty is inf");
    REFUSED(presence_penalty, INFINITY, "presence_penalty is inf");
    REFUSED(frequency_penalty, -INFINITY, "frequency_penalty is -inf");
    REFUSED(no_repeat_ngram_size, -1, "no_repeat_ngram_size is -1");
    REFUSED(encoder_no_repeat_ngram_size, -1, "encoder_no_repeat_ngram_size is -1");
    REFUSED(forced_bos_id, -2, "forced_bos_id is -2");
    REFUSED(remove_invalid_values, 2, "remove_invalid_values is 2");
    REFUSED(decay_start, -1, "decay_start is -1");
    REFUSED(decay_factor, 0.0f, "decay_factor is 0");
    REFUSED(renormalize_logits, -1, "renormalize_logits is -1");
    REFUSED(logprobs, 2, "logprobs is 2");
    REFUSED(prompt_logprobs, 2, "prompt_logprobs is 2");
    REFUSED(keep_logits, 2, "keep_logits is 2");
    REFUSED(keep_scores, 2, "keep_scores is 2");
    REFUSED(skip_special_tokens, 2, "skip_special_tokens is 2");
    REFUSED(clean_up, 2, "clean_up is 2");
    REFUSED_SAMPLING(temperature, 0.0f, "temperature is 0, outside (0, inf)");
    REFUSED_SAMPLING(temperature, INFINITY, "temperature is inf");
    REFUSED_SAMPLING(top_h, 0.0f, "top_h is 0, outside (0, 1]");
    REFUSED_SAMPLING(top_k, -1, "top_k is -1");
    REFUSED_SAMPLING(top_p, 7.0f, "top_p is 7, outside [0, 1]");
    REFUSED_SAMPLING(min_p, -0.5f, "min_p is -0.5");
    REFUSED_SAMPLING(typical_p, 0.0f, "typical_p is 0");
    REFUSED_SAMPLING(epsilon_cutoff, 1.0f, "epsilon_cutoff is 1, outside [0, 1)");
    REFUSED_SAMPLING(eta_cutoff, -1.0f, "eta_cutoff is -1");
    asked.reserved = 0;
    CHECK_STATUS(open_settings(), TF_STATUS_UNSUPPORTED);
    CHECK_ERROR_SAYS("reserved");
    end();
}

static void contradictions(void)
{
    begin();
    CHECK_OK(read_files());
    REFUSED(temperature, 0.7f, "temperature is set to 0.69999");
    REFUSED(top_k, 5, "top_k is set to 5, but has no effect: do_sample is 0");
    REFUSED(top_p, 0.5f, "top_p");
    REFUSED(top_h, 0.5f, "top_h");
    REFUSED(min_p, 0.5f, "min_p");
    REFUSED(typical_p, 0.5f, "typical_p");
    REFUSED(epsilon_cutoff, 0.5f, "epsilon_cutoff");
    REFUSED(eta_cutoff, 0.5f, "eta_cutoff");
    REFUSED(length_penalty, 2.0f, "length_penalty is set to 2, but has no effect: num_beams is 1");
    REFUSED(early_stopping, TF_EARLY_STOPPING_ON, "early_stopping");
    REFUSED(encoder_repetition_penalty, 2.0f, "embeddings, not ids");
    REFUSED(encoder_no_repeat_ngram_size, 2, "embeddings, not ids");
    REFUSED(num_return_sequences, 2, "num_return_sequences is 2, but do_sample is 0 and num_beams 1");
    asked.num_beams = 2;
    REFUSED(num_return_sequences, 3, "num_return_sequences is 3, more than num_beams, which is 2");
    REFUSED(forced_bos_id, 5, "a prompt of one token");
    REFUSED(decay_start, 5, "decay_start and decay_factor");
    REFUSED(decay_factor, 1.5f, "decay_start and decay_factor");
    asked.decay_start = 5;
    REFUSED(decay_factor, 1.5f, "there are no eos_ids");
    REFUSED(logits_user, &asked, "logits_user");
    asked.max_length = 10;
    REFUSED(max_new_tokens, 7, "max_new_tokens is 7 behind a prompt of 4 tokens, but max_length is 10");
    asked.min_length = 10;
    REFUSED(min_new_tokens, 5, "min_new_tokens is 5");
    asked.max_new_tokens = 4;
    REFUSED(min_new_tokens, 5, "min_new_tokens asks for at least 9");
    REFUSED(min_length, 30, "min_length asks for at least 30"); /* the default ends at 24 */
    REFUSED(max_length, 4, "no room for a new token");
    facts.prompt = 65;
    refused("the prompt has 65 tokens, the model's context is 64");

    facts.prompt = 1; /* what does nothing may be said, as long as it is nothing */
    asked.temperature = 1;
    asked.top_k = 50;
    asked.length_penalty = 1;
    asked.early_stopping = TF_EARLY_STOPPING_OFF;
    asked.encoder_repetition_penalty = 1;
    asked.forced_bos_id = 5;
    asked.seed = 3;
    CHECK_OK(open_settings());
    with_encoder();
    facts.source = NULL;
    fresh();
    REFUSED(encoder_repetition_penalty, 2.0f, "embeddings");
    end();
}

static void lists_refused(void)
{
    static const int32_t outside[] = {3, VOCAB}, negative[] = {-1}, inside[] = {3}, none[] = {0}, two[] = {2}, one[] = {1};
    static const float infinite[] = {INFINITY}, finite[] = {1};
    const struct {
        const char *name;
        const int32_t **ids;
        int64_t *count;
    } list[] = {{"eos_ids", &asked.eos_ids, &asked.eos_count},
                {"forced_eos_ids", &asked.forced_eos_ids, &asked.forced_eos_count},
                {"suppress_ids", &asked.suppress_ids, &asked.suppress_count},
                {"begin_suppress_ids", &asked.begin_suppress_ids, &asked.begin_suppress_count},
                {"decoder_ids", &asked.decoder_ids, &asked.decoder_count}};

    begin();
    CHECK_OK(read_files());
    for (int i = 0; i < 5; i++) {
        *list[i].ids = outside;
        *list[i].count = 2;
        refused("id 1 is 100, outside the vocabulary of 100");
        *list[i].ids = negative;
        *list[i].count = 1;
        refused(list[i].name);
        *list[i].count = 1;
        refused("is NULL");
        *list[i].ids = inside;
        refused("its count is not");
        *list[i].ids = inside;
        *list[i].count = -1;
        refused("count is -1");
    }
    asked.decoder_count = 1;
    REFUSED(decoder_ids, inside, "no encoder");
    asked.suppress_count = asked.forced_eos_count = 1;
    asked.suppress_ids = inside;
    REFUSED(forced_eos_ids, inside, "forced_eos_ids");
    facts.prompt = 1;
    asked.suppress_count = 1;
    asked.suppress_ids = inside;
    REFUSED(forced_bos_id, 3, "forced_bos_id, 3,");
    REFUSED(forced_bos_id, VOCAB, "forced_bos_id is 100");

    REFUSED(bad_words, ((tf_id_lists){inside, none, 1}), "bad_words: sequence 0 has 0 ids");
    REFUSED(bad_words, ((tf_id_lists){outside, two, 1}), "outside the vocabulary");
    REFUSED(bad_words, ((tf_id_lists){NULL, one, 1}), "bad_words is NULL");
    REFUSED(bad_words, ((tf_id_lists){inside, NULL, 1}), "bad_words is NULL");
    REFUSED(bad_words, ((tf_id_lists){inside, one, -7}), "count is -7");
    REFUSED(sequence_bias, ((tf_id_lists){inside, one, 1}), "sequence_bias_values is NULL");
    REFUSED(sequence_bias_values, finite, "sequence_bias_values is set");
    asked.sequence_bias_values = infinite;
    REFUSED(sequence_bias, ((tf_id_lists){inside, one, 1}), "not finite");
    end();
}

static void stop_refused(const char *data, int64_t size, const char *says)
{
    const tf_text text = {data, size};

    asked.stop_strings = &text;
    asked.stop_string_count = 1;
    refused(says);
}

static void stop_strings(void)
{
    begin();
    CHECK_OK(read_files());
    stop_refused("", -1, "string 0 has 0 bytes");
    stop_refused("abc", 0, "string 0 has 0 bytes");
    stop_refused(NULL, 3, "string 0 has 0 bytes");
    stop_refused("ab\xff", -1, "string 0 is not UTF-8 at byte 2");
    stop_refused("\xc3\xa9", 1, "not UTF-8 at byte 0");
    asked.stop_string_count = 1;
    refused("stop_strings is NULL");
    facts.has_tokenizer = 0;
    stop_refused("abc", -1, "need a tokenizer");
    end();
}

/* ---- memory ---- */

static void rich(void)
{
    static const tf_text stop = {"\n\n", 2};

    generation_json = "{\"sequence_bias\":[[[10,45],-10.0],[[7],2]],\"bad_words_ids\":[[1],[2,3]],\"suppress_tokens\":[4,5],"
                      "\"stop_strings\":[\"a\",\"bc\"],\"eos_token_id\":[1,2],\"forced_eos_token_id\":1}";
    asked.stop_strings = &stop;
    asked.stop_string_count = 1;
}

static void memory_fails(void)
{
    for (int at = 1;; at++) {
        begin();
        rich();
        counted.fail_at = at;
        tf_status status = read_files();
        if (status == TF_STATUS_OK) status = open_settings();
        if (counted.fail_hit) CHECK_INT(status, TF_STATUS_NOMEM);
        else CHECK_OK(status);
        const int hit = counted.fail_hit;
        end();
        if (!hit) break;
        CHECK(at < 100);
    }
}

/* An older caller's struct is shorter, a newer one's longer. */
static void older_and_newer(void)
{
    struct {
        tf_generate_options o;
        int64_t more;
    } newer;

    begin();
    CHECK_OK(read_files());
    newer.o = asked;
    newer.o.struct_size = sizeof newer;
    newer.more = 0;
    CHECK_OK(tfi_settings_open(&settings, &generation, &newer.o, &facts, &memory));
    tfi_settings_close(&settings);
    newer.more = 5;
    CHECK_STATUS(tfi_settings_open(&settings, &generation, &newer.o, &facts, &memory), TF_STATUS_UNSUPPORTED);
    tfi_settings_close(&settings);
    newer.o.struct_size = offsetof(tf_generate_options, max_length);
    newer.o.max_new_tokens = 2;
    newer.o.max_length = 77;
    CHECK_OK(tfi_settings_open(&settings, &generation, &newer.o, &facts, &memory));
    CHECK_INT(settings.sampling.max_length, 6);
    tfi_settings_close(&settings);
    CHECK_OK(tfi_settings_open(&settings, &generation, NULL, &facts, &memory));
    end();
}

int main(int argc, char **argv)
{
    check_run(argc, argv, "defaults", defaults);
    check_run(argc, argv, "precedence", precedence);
    check_run(argc, argv, "lengths", lengths);
    check_run(argc, argv, "lists", lists);
    check_run(argc, argv, "lists in files", files_lists);
    check_run(argc, argv, "files refused", files_refused);
    check_run(argc, argv, "files talk", files_talk);
    check_run(argc, argv, "ranges of files", files_ranges);
    check_run(argc, argv, "ranges", ranges);
    check_run(argc, argv, "contradictions", contradictions);
    check_run(argc, argv, "lists refused", lists_refused);
    check_run(argc, argv, "stop strings", stop_strings);
    check_run(argc, argv, "memory fails", memory_fails);
    check_run(argc, argv, "older and newer callers", older_and_newer);
    return check_done();
}
