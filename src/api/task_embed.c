#include <string.h>

#include "api/handles.h"
#include "base/options.h"
#include "base/status.h"

/* The prompt these options ask for, or "". */
static tf_status find_prompt(const tf_model *m, const tf_embed_options *o, const char **out)
{
    const tfi_sentence *s = &m->sentence;

    *out = o->prompt ? o->prompt : "";
    if (o->prompt) return TF_STATUS_OK;
    if (!o->prompt_name) {
        if (s->default_prompt >= 0) *out = s->prompt_texts[s->default_prompt];
        return TF_STATUS_OK;
    }
    for (int32_t i = 0; i < s->prompts; i++) {
        if (strcmp(s->prompt_names[i], o->prompt_name) != 0) continue;
        *out = s->prompt_texts[i];
        return TF_STATUS_OK;
    }
    return tfi_fail(TF_STATUS_NOT_FOUND, "tf_embed: the checkpoint has no prompt \"%s\"", o->prompt_name);
}

/* Copies of the texts with the prompt in front, in `arena`. */
static tf_status put_prompt(tfi_arena *arena, const char *prompt, tf_input *in)
{
    const size_t head = strlen(prompt);
    tf_text *texts = tfi_arena_alloc(arena, (size_t)(in->count ? in->count : 1) * sizeof *texts);

    if (!texts) return TF_STATUS_NOMEM;
    for (int64_t i = 0; i < in->count; i++) {
        const tf_text t = in->texts[i];
        const size_t size = !t.data ? 0 : t.size < 0 ? strlen(t.data) : (size_t)t.size;
        char *copy = tfi_arena_alloc(arena, head + size + 1);
        if (!copy) return TF_STATUS_NOMEM;
        memcpy(copy, prompt, head);
        if (size) memcpy(copy + head, t.data, size);
        texts[i] = (tf_text){copy, (int64_t)(head + size)};
    }
    in->texts = texts;
    return TF_STATUS_OK;
}

/* Settings of the directory that concern texts and that this call cannot follow are refused, not ignored. */
static tf_status check_text_settings(const tf_model *m)
{
    tf_tokenizer_info info;

    if (!m->sentence.lowercase || !m->tokenizer) return TF_STATUS_OK;
    tf_tokenizer_info_init(&info);
    const tf_status st = tf_tokenizer_get_info(m->tokenizer, &info);
    if (st == TF_STATUS_OK && !info.lowercase)
        return tfi_fail(TF_STATUS_UNSUPPORTED, "tf_embed: \"do_lower_case\" in front of a cased tokenizer is not built");
    return st;
}

/* "include_prompt": false leaves the prompt's tokens, the special one before them too, out of pooling. */
static tf_status skip_prompt(const tf_model *m, const char *prompt, tfi_batch *b)
{
    const tf_text text = tf_text_of(prompt);
    tf_encoding_data data;
    tf_encoding *encoding;
    tf_status st;

    if (!*prompt || m->sentence.include_prompt || !b->encoding) return TF_STATUS_OK;
    tf_encoding_data_init(&data);
    if ((st = tf_encoding_open(m->tokenizer, &encoding)) < 0) return st;
    if ((st = tf_tokenizer_encode(m->tokenizer, &text, NULL, 1, NULL, encoding)) == TF_STATUS_OK &&
        (st = tf_encoding_get(encoding, &data)) == TF_STATUS_OK)
        b->skip = (int32_t)data.tokens - 1;
    tf_encoding_close(encoding);
    for (int64_t i = 0; st == TF_STATUS_OK && i < b->count; i++)
        if (b->starts[i + 1] - b->starts[i] <= b->skip)
            st = tfi_fail(TF_STATUS_INVALID, "tf_embed: the prompt's %d tokens leave none of text %lld", (int)b->skip, (long long)i);
    return st;
}

tf_status tf_embed(tf_session *s, const tf_input *in, const tf_embed_options *options, float *out, int64_t out_stride)
{
    tf_embed_options o;
    tf_tokenize_options tokenize;
    const char *prompt;
    tf_input input;
    tfi_batch b;
    tf_status st;

    if (!s || !in || !out) return tfi_fail(TF_STATUS_INVALID, "session, in and out must not be NULL");
    const tf_model *m = tfi_session_model(s);
    tf_model_info info;
    tf_model_info_init(&info);
    if ((st = tfi_model_needs(m, TF_TASK_EMBED, "tf_embed")) < 0 || (st = tf_model_get_info(m, &info)) < 0) return st;
    tf_embed_options_init(&o);
    tf_input_init(&input);
    if ((st = tfi_options_read(&o, sizeof o, options, "tf_embed_options")) < 0 ||
        (st = tfi_options_read(&input, sizeof input, in, "tf_input")) < 0 || (st = find_prompt(m, &o, &prompt)) < 0)
        return st;
    if ((st = tfi_option_int(&o.max_tokens, info.embedding_tokens, 1, m->def.max_input_tokens, "tf_embed: max_tokens")) < 0 ||
        (st = tfi_option_int(&o.normalize, m->sentence.normalize, 0, 1, "tf_embed: normalize")) < 0)
        return st;
    if (out_stride < info.embedding_width)
        return tfi_fail(TF_STATUS_INVALID, "tf_embed: out_stride is %lld, at least %d is expected", (long long)out_stride,
                        (int)info.embedding_width);

    tfi_arena arena = {.memory = (tfi_memory *)&m->memory};
    if (input.texts && input.count > 0) {
        if ((st = check_text_settings(m)) < 0) return st;
        if (*prompt && (st = put_prompt(&arena, prompt, &input)) < 0) {
            tfi_arena_close(&arena);
            return st;
        }
    }
    tf_tokenize_options_init(&tokenize);
    tokenize.truncation = TF_TRUNCATION_LONGEST_FIRST;
    tokenize.max_length = o.max_tokens;
    if ((st = tfi_batch_open(&b, m, &input, &tokenize)) == TF_STATUS_OK && (st = skip_prompt(m, prompt, &b)) == TF_STATUS_OK) {
        const int32_t value = o.normalize ? m->def.embedding_normalized : m->def.embedding;
        st = tfi_session_run(s, &b, &(tfi_output){value, out, out_stride}, 1, NULL, 0);
    }
    tfi_batch_close(&b);
    tfi_arena_close(&arena);
    if (st == TF_STATUS_OK) tfi_session_count_call(s);
    return st;
}
