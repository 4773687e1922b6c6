/* What one token adds to a text that it stands inside: for matching text as it is generated, before it is decoded. Special
 * tokens have their own text here, as in transformers' StopStringCriteria, and the bytes need not be whole characters. */
#include <string.h>

#include "base/status.h"
#include "tokenizer/tokenizer.h"

int64_t tfi_tokenizer_piece_max(const tf_tokenizer *t)
{
    uint32_t longest = 0;

    for (int32_t id = 0; id < t->vocab_size; id++)
        if (t->text_begin[id + 1] - t->text_begin[id] > longest) longest = t->text_begin[id + 1] - t->text_begin[id];
    return longest; /* with the NUL, in whose place there may be a space */
}

/* The bytes that a token spells; one that is no spelling, as added tokens may be, stands for itself. */
static size_t spelled(const uint8_t *token, size_t size, char *out)
{
    size_t count = 0;
    uint32_t c_size;

    for (size_t at = 0; at < size; at += c_size) {
        const int byte = tfi_spelled_byte(tfi_utf8_decode(token + at, &c_size));
        if (byte < 0) {
            memcpy(out, token, size);
            return size;
        }
        out[count++] = (char)byte;
    }
    return count;
}

/* A word with the space before it, or the tail of one. */
static size_t word(const tf_tokenizer *t, const char *token, size_t size, char *out)
{
    const size_t prefix = t->decoder_prefix_size;

    if (t->decoder == TFI_DECODER_WORDPIECE && size >= prefix && memcmp(token, t->decoder_prefix, prefix) == 0) {
        memcpy(out, token + prefix, size - prefix);
        return size - prefix;
    }
    out[0] = ' ';
    memcpy(out + 1, token, size);
    return size + 1;
}

tf_status tfi_tokenizer_piece(const tf_tokenizer *t, int32_t id, char *out, int64_t capacity, int64_t *size)
{
    *size = 0;
    if (id < 0 || id >= t->vocab_size || !(t->token_flags[id] & TFI_TOKEN_PRESENT)) return TF_STATUS_OK;
    const char *const token = t->text + t->text_begin[id];
    const size_t bytes = t->text_begin[id + 1] - t->text_begin[id] - 1;

    if (capacity < (int64_t)bytes + 1)
        return tfi_fail(TF_STATUS_TOO_SMALL, "token %d may add %zu bytes, there is room for %lld", (int)id, bytes + 1,
                        (long long)capacity);
    *size =
        (int64_t)(t->decoder == TFI_DECODER_BYTES ? spelled((const uint8_t *)token, bytes, out) : word(t, token, bytes, out));
    return TF_STATUS_OK;
}
