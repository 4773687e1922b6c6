/* The decoders of a tokenizer.json as a row of stages: each takes the tokens of the one before it, as text, and gives its own.
 *
 * A token comes in chunks, the last of them marked; behind the last token comes an end. What a stage cannot decide before more is
 * seen it keeps (bytes that are no character yet, the last token of BPEDecoder, a token that Fuse has made of all of them), so
 * that what comes out piece by piece is what the whole decodes to. */
#ifndef TFI_TOKENIZER_DECODER_H
#define TFI_TOKENIZER_DECODER_H

#include "tokenizer/pipeline.h"
#include "tokenizer/tokenizer.h"

typedef enum tfi_chunk { TFI_CHUNK_PART, TFI_CHUNK_LAST, TFI_CHUNK_END } tfi_chunk;

typedef struct tfi_buffer {
    char *data;
    size_t size, capacity;
} tfi_buffer;

typedef struct tfi_stage {
    struct tfi_decoding *decoding;
    const tfi_part *part;
    size_t tokens;        /* complete ones */
    tfi_buffer token;     /* the chunks of one */
    tfi_buffer kept, out; /* what waits; what is being made */
    size_t out_limit;     /* bytes that may be made of the present token */
    uint8_t unfinished[4];
    uint32_t unfinished_size; /* bytes that may become a character */
    int64_t stripped;         /* code points that went from the begin of the present token; -1: no more go */
} tfi_stage;

typedef struct tfi_decoding {
    tfi_memory *memory;
    tfi_scratch scratch; /* for patterns */
    tf_status (*sink)(void *user, const char *text, size_t size);
    void *user;
    int is_piece; /* one token inside a text is asked for: bytes stay bytes, nothing waits */
    int count;
    tfi_stage stages[TFI_PARTS_MAX];
} tfi_decoding;

/* Set up the stages of a tokenizer for a text; `memory` and sink must outlive them. */
void tfi_decoding_init(tfi_decoding *d, const tf_tokenizer *t, tfi_memory *memory,
                       tf_status (*sink)(void *user, const char *text, size_t size), void *user);
/* Room for tokens of this size, so that most decoders need no more. OK or NOMEM. */
tf_status tfi_decoding_reserve(tfi_decoding *d, size_t token_size);
/* The next token; no more of them: the stages are then as new. OK, NOMEM, INVALID (a pattern's limit). */
tf_status tfi_decoding_token(tfi_decoding *d, const char *text, size_t size);
tf_status tfi_decoding_end(tfi_decoding *d);
/* As new, whatever waited. */
void tfi_decoding_restart(tfi_decoding *d);
void tfi_decoding_close(tfi_decoding *d);
/* May a token become longer than itself and a space? */
int tfi_decoders_grow(const tf_tokenizer *t);

#endif
