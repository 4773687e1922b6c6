/* From a caller's tf_input to a checked batch of packed sequences. */
#include <string.h>

#include "api/handles.h"
#include "base/options.h"
#include "base/status.h"

static tf_status check_input(const tf_input *in)
{
    const int given = (in->texts != NULL) + (in->ids || in->embeddings);

    if (in->count < 0) return tfi_fail(TF_STATUS_INVALID, "tf_input.count is not set, or negative");
    if (in->count > 0 && given != 1)
        return tfi_fail(TF_STATUS_INVALID, "tf_input: either texts or ids (or embeddings, or both) must be set");
    if (in->texts && (in->lens || in->type_ids))
        return tfi_fail(TF_STATUS_INVALID, "tf_input: lens and type_ids go with ids or embeddings, not with texts");
    if (!in->texts && in->pairs) return tfi_fail(TF_STATUS_INVALID, "tf_input: pairs go with texts");
    if (!in->texts && in->count > 0 && !in->lens) return tfi_fail(TF_STATUS_INVALID, "tf_input.lens must not be NULL");
    if (in->replace_invalid != TF_UNSET && in->replace_invalid != 0 && in->replace_invalid != 1)
        return tfi_fail(TF_STATUS_INVALID, "tf_input.replace_invalid is %d, 0 or 1 is expected", (int)in->replace_invalid);
    return TF_STATUS_OK;
}

/* Starts of sequences given as ids or embeddings. */
static tf_status starts_from_lens(tfi_batch *b, tf_model *m, const int32_t *lens, int32_t min_tokens)
{
    if (b->count > INT64_MAX / 64) return tfi_fail(TF_STATUS_INVALID, "tf_input.count is %lld", (long long)b->count);
    if (!(b->owned_starts = tfi_alloc(&m->memory, (size_t)(b->count + 1) * sizeof *b->owned_starts))) return TF_STATUS_NOMEM;
    b->owned_starts[0] = 0;
    for (int64_t i = 0; i < b->count; i++) {
        if (lens[i] < min_tokens)
            return tfi_fail(TF_STATUS_INVALID, "sequence %lld has length %d; at least %d is expected", (long long)i, (int)lens[i],
                            (int)min_tokens);
        b->owned_starts[i + 1] = b->owned_starts[i] + lens[i];
    }
    b->starts = b->owned_starts;
    return TF_STATUS_OK;
}

static tf_status encode_texts(tfi_batch *b, const tf_input *in, const tf_tokenize_options *tokenize)
{
    const tf_tokenizer *tokenizer;
    tf_tokenize_options o;
    tf_status st;

    if ((st = tf_model_tokenizer(b->model, &tokenizer)) < 0) /* as a task's status: texts are not supported by this checkpoint */
        return tfi_fail_prefix(st == TF_STATUS_NOT_FOUND ? TF_STATUS_UNSUPPORTED : st, "texts need a tokenizer: ");
    tf_tokenize_options_init(&o);
    if (tokenize) o = *tokenize;
    o.replace_invalid = in->replace_invalid;
    o.threads = in->count >= 64 ? b->model->backend->threads : 1; /* a few texts take less time than starting a thread */
    if ((st = tf_encoding_open(tokenizer, &b->encoding)) < 0 ||
        (st = tf_tokenizer_encode(tokenizer, in->texts, in->pairs, in->count, &o, b->encoding)) < 0)
        return st;
    tf_encoding_data_init(&b->text);
    if ((st = tf_encoding_get(b->encoding, &b->text)) < 0) return st;
    b->count = b->text.rows;
    b->starts = b->text.row_start;
    b->ids = b->text.ids;
    b->type_ids = b->model->def.type_count > 0 ? b->text.type_ids : NULL;
    return TF_STATUS_OK;
}

/* Lengths, ids and types against the model's limits; a kernel must never meet one outside its table. */
static tf_status check_sequences(const tfi_batch *b, int32_t min_tokens)
{
    const tfi_model *def = &b->model->def;

    for (int64_t i = 0; i < b->count; i++) {
        const int64_t length = b->starts[i + 1] - b->starts[i];
        if (length < min_tokens || length > def->max_input_tokens)
            return tfi_fail(TF_STATUS_INVALID, "%s %lld has %lld tokens; the model takes 1 to %d",
                            b->encoding ? "text" : "sequence", (long long)(b->encoding ? b->text.row_text[i] : i), (long long)length,
                            (int)def->max_input_tokens);
        for (int64_t t = b->starts[i]; t < b->starts[i + 1]; t++) {
            if (b->ids && b->embeddings && b->ids[t] == TFI_ID_EMBEDDING) continue;
            if (b->ids && (b->ids[t] < 0 || b->ids[t] >= def->vocab_size))
                return tfi_fail(TF_STATUS_INVALID, "sequence %lld, position %lld: id %d is outside the vocabulary of %d", (long long)i,
                                (long long)(t - b->starts[i]), (int)b->ids[t], (int)def->vocab_size);
            if (b->type_ids && (b->type_ids[t] < 0 || b->type_ids[t] >= def->type_count))
                return tfi_fail(TF_STATUS_INVALID, "sequence %lld, position %lld: token type %d; the model has %d", (long long)i,
                                (long long)(t - b->starts[i]), (int)b->type_ids[t], (int)def->type_count);
        }
    }
    return TF_STATUS_OK;
}

static tf_status open_batch(tfi_batch *b, const tf_model *m, const tf_input *in, const tf_tokenize_options *tokenize,
                            int32_t min_tokens)
{
    tf_input input;
    tf_status st;

    memset(b, 0, sizeof *b);
    b->model = m;
    if (!in) return tfi_fail(TF_STATUS_INVALID, "the input must not be NULL");
    tf_input_init(&input);
    if ((st = tfi_options_read(&input, sizeof input, in, "tf_input")) < 0 || (st = check_input(&input)) < 0) return st;
    b->count = input.count;
    b->progress = input.progress;
    b->progress_user = input.progress_user;
    if (input.texts) {
        if ((st = encode_texts(b, &input, tokenize)) < 0) return st;
    } else {
        b->ids = input.ids;
        b->embeddings = input.embeddings;
        b->type_ids = input.type_ids;
        if ((st = starts_from_lens(b, (tf_model *)m, input.lens, min_tokens)) < 0) return st;
    }
    return check_sequences(b, min_tokens);
}

tf_status tfi_batch_open(tfi_batch *b, const tf_model *m, const tf_input *in, const tf_tokenize_options *tokenize)
{
    return open_batch(b, m, in, tokenize, 1);
}

tf_status tfi_batch_open_prompt(tfi_batch *b, const tf_model *m, const tf_input *in)
{
    return open_batch(b, m, in, NULL, 0);
}

void tfi_batch_close(tfi_batch *b)
{
    tf_encoding_close(b->encoding);
    if (b->owned_starts)
        tfi_free((tfi_memory *)&b->model->memory, b->owned_starts, (size_t)(b->count + 1) * sizeof *b->owned_starts);
    memset(b, 0, sizeof *b);
}
