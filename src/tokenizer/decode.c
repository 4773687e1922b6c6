/* Ids to text: the WordPiece and the byte-level decoder, and the cleaning up after them, as the reference does them. */
#include <string.h>

#include "base/options.h"
#include "base/status.h"
#include "tokenizer/tokenizer.h"

typedef struct replacement {
    const char *from, *to; /* `to` is never longer */
} replacement;

/* Of the decoder, for each token with the space before it. */
static const replacement token_clean[] = {{" .", "."},   {" ?", "?"},     {" !", "!"},    {" ,", ","},
                                          {" ' ", "'"},  {" n't", "n't"}, {" 'm", "'m"},  {" do not", " don't"},
                                          {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"}};
/* Of clean_up_tokenization, for the whole text. */
static const replacement text_clean[] = {{" .", "."},     {" ?", "?"},   {" !", "!"},   {" ,", ","},     {" ' ", "'"},
                                         {" n't", "n't"}, {" 'm", "'m"}, {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"}};

/* Replace each occurrence from left to right, in place; returns the new size. */
static size_t replace_all(char *text, size_t size, const replacement *r)
{
    const size_t from_size = strlen(r->from), to_size = strlen(r->to);
    size_t out = 0, at = 0;

    while (at < size) {
        if (text[at] == r->from[0] && size - at >= from_size && memcmp(text + at, r->from, from_size) == 0) {
            memcpy(text + out, r->to, to_size);
            out += to_size;
            at += from_size;
        } else {
            text[out++] = text[at++];
        }
    }
    return out;
}

static size_t clean(char *text, size_t size, const replacement *list, size_t count)
{
    for (size_t i = 0; i < count; i++) size = replace_all(text, size, &list[i]);
    return size;
}

typedef struct output {
    char *data;
    size_t size, capacity;
} output;

/* Append the bytes that a token spells; one that is no spelling, as added tokens may be, stands for itself. Room was reserved.
 */
static void put_bytes(output *o, const uint8_t *token, size_t size)
{
    const size_t begin = o->size;
    uint32_t c_size;

    for (size_t at = 0; at < size; at += c_size) {
        const int byte = tfi_spelled_byte(tfi_utf8_decode(token + at, &c_size));
        if (byte < 0) {
            memcpy(o->data + begin, token, size);
            o->size = begin + size;
            return;
        }
        o->data[o->size++] = (char)byte;
    }
}

/* Append one token; `first` if nothing was before it. */
static tf_status put(const tf_tokenizer *t, output *o, int32_t id, int first)
{
    const char *token = t->text + t->text_begin[id];
    size_t size = t->text_begin[id + 1] - t->text_begin[id] - 1;
    const size_t begin = o->size;
    tf_status status = tfi_reserve(t->memory, (void **)&o->data, &o->capacity, o->size + size + 1, 1);

    if (status < 0) return status;
    if (t->decoder == TFI_DECODER_BYTES) {
        put_bytes(o, (const uint8_t *)token, size);
        return TF_STATUS_OK;
    }
    if (!first) {
        const size_t prefix = t->decoder_prefix_size;
        if (t->decoder == TFI_DECODER_WORDPIECE && size >= prefix && memcmp(token, t->decoder_prefix, prefix) == 0) {
            token += prefix;
            size -= prefix;
        } else {
            o->data[o->size++] = ' ';
        }
    }
    memcpy(o->data + o->size, token, size);
    o->size += size;
    if (t->decoder == TFI_DECODER_WORDPIECE && t->decoder_cleans)
        o->size = begin + clean(o->data + begin, o->size - begin, token_clean, sizeof token_clean / sizeof token_clean[0]);
    return TF_STATUS_OK;
}

/* Joined bytes need not be UTF-8: U+FFFD takes the place of each wrong part. */
static tf_status repair(const tf_tokenizer *t, output *o)
{
    output good = {0};
    tf_status status = TF_STATUS_OK;

    for (size_t at = 0; at < o->size && status == TF_STATUS_OK;) {
        uint32_t bad = 0;
        const size_t size = tfi_utf8_valid((const uint8_t *)o->data + at, o->size - at, &bad);
        if (size == o->size) return TF_STATUS_OK; /* nearly always */
        status = tfi_reserve(t->memory, (void **)&good.data, &good.capacity, good.size + size + 3, 1);
        if (status < 0) break;
        memcpy(good.data + good.size, o->data + at, size);
        good.size += size;
        if (bad > 0) memcpy(good.data + good.size, "\xef\xbf\xbd", 3);
        good.size += bad > 0 ? 3 : 0;
        at += size + bad;
    }
    tfi_free(t->memory, o->data, o->capacity);
    *o = good;
    return status;
}

static tf_status decode(const tf_tokenizer *t, const int32_t *ids, int64_t count, const tf_decode_options *o, output *out)
{
    int first = 1;
    tf_status status;

    for (int64_t i = 0; i < count; i++) {
        if (ids[i] < 0 || ids[i] >= t->vocab_size)
            return tfi_fail(TF_STATUS_INVALID, "ids[%lld] is %d, outside the vocabulary of %d", (long long)i, (int)ids[i],
                            (int)t->vocab_size);
        const uint8_t flags = t->token_flags[ids[i]];
        if (!(flags & TFI_TOKEN_PRESENT) || (o->skip_special_tokens && flags & TFI_TOKEN_SPECIAL)) continue;
        if ((status = put(t, out, ids[i], first)) < 0) return status;
        first = 0;
    }
    if (t->decoder == TFI_DECODER_BYTES && (status = repair(t, out)) < 0) return status;
    if (o->clean_up && !t->never_cleans)
        out->size = clean(out->data, out->size, text_clean, sizeof text_clean / sizeof text_clean[0]);
    return TF_STATUS_OK;
}

tf_status tf_tokenizer_decode(const tf_tokenizer *t, const int32_t *ids, int64_t count, const tf_decode_options *options,
                              char *text, int64_t capacity, int64_t *size)
{
    tf_decode_options o;
    output out = {0};
    tf_status status;

    if (!t || !size) return tfi_fail(TF_STATUS_INVALID, "tokenizer and size must not be NULL");
    *size = 0;
    if (count < 0 || (count > 0 && !ids) || capacity < 0 || (capacity > 0 && !text))
        return tfi_fail(TF_STATUS_INVALID, "count is %lld, capacity is %lld, ids or text may be NULL only if theirs is 0",
                        (long long)count, (long long)capacity);
    tf_decode_options_init(&o);
    if ((status = tfi_options_read(&o, sizeof o, options, "tf_decode_options")) < 0) return status;
    if (o.skip_special_tokens == TF_UNSET) o.skip_special_tokens = 0;
    if (o.clean_up == TF_UNSET) o.clean_up = t->clean_up;
    if ((o.skip_special_tokens & ~1) != 0 || (o.clean_up & ~1) != 0)
        return tfi_fail(TF_STATUS_INVALID, "tf_decode_options: skip_special_tokens is %d, clean_up is %d; each is 0 or 1",
                        (int)o.skip_special_tokens, (int)o.clean_up);
    if ((status = decode(t, ids, count, &o, &out)) == TF_STATUS_OK) {
        *size = (int64_t)out.size;
        if (*size > capacity)
            status = tfi_fail(TF_STATUS_TOO_SMALL, "the text has %lld bytes, the buffer %lld", (long long)*size,
                              (long long)capacity);
        else if (out.size > 0) memcpy(text, out.data, out.size);
    }
    tfi_free(t->memory, out.data, out.capacity);
    return status;
}
