/* ByT5: a token a byte. The reference gives no ranges; those of a byte are the code point's that it is part of. */
#include "tokenizer/tokenizer.h"

tf_status tfi_byt5_segment(tfi_reading *x, uint32_t begin, uint32_t end)
{
    uint32_t size;
    const tf_status status = tfi_reserve_tokens(x->s, end - begin);

    if (status < 0) return status;
    for (uint32_t at = begin; at < end; at += size, x->chars++) {
        (void)tfi_utf8_decode(x->text + at, &size);
        for (uint32_t i = 0; i < size; i++)
            tfi_put_token(x, x->text[at + i] + TFI_BYT5_FIRST, at, at + size, x->chars, x->chars + 1);
    }
    x->word++;
    return TF_STATUS_OK;
}
