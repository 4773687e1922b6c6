/* SentencePiece's .model files: a protobuf message of pieces, what they were trained with, and how text is normalised. */
#ifndef TFI_TOKENIZER_SPM_H
#define TFI_TOKENIZER_SPM_H

#include <stddef.h>
#include <stdint.h>

#include <tfinfer/base.h>

/* What a piece is, as the file numbers it. */
enum { TFI_SPM_NORMAL = 1, TFI_SPM_UNKNOWN, TFI_SPM_CONTROL, TFI_SPM_USER_DEFINED, TFI_SPM_UNUSED, TFI_SPM_BYTE };
enum { TFI_SPM_UNIGRAM = 1, TFI_SPM_BPE, TFI_SPM_WORD, TFI_SPM_CHAR };

/* Bytes of the file. */
typedef struct tfi_spm_bytes {
    const uint8_t *data;
    size_t size;
} tfi_spm_bytes;

typedef struct tfi_spm_piece {
    tfi_spm_bytes text; /* UTF-8, not empty, without NUL */
    float score;        /* not NaN */
    int32_t type;
} tfi_spm_piece;

/* All of the file but its pieces. */
typedef struct tfi_spm {
    int32_t pieces;
    int32_t model_type, unk_id;
    int byte_fallback, space_is_suffix;
    tfi_spm_bytes unk_surface; /* what the unknown piece decodes to */
    tfi_spm_bytes charsmap;
    int dummy_prefix, remove_extra_spaces, escape_spaces;
} tfi_spm;

/* Read everything; `name` is for error texts. OK, CORRUPT, UNSUPPORTED (more pieces than ids). */
tf_status tfi_spm_read(const uint8_t *data, size_t size, const char *name, tfi_spm *out);

/* The next piece of a file that tfi_spm_read has found good; *at is 0 at first. 0 if there is none left. */
int tfi_spm_next(const uint8_t *data, size_t size, size_t *at, tfi_spm_piece *out);

#endif
