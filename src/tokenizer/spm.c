/* A bounded reader of the few protobuf fields that a .model file is read for.
 *
 * Why not libsentencepiece: a file can crash it (Debian's 0.1.97 dies of SIGSEGV in Load() when precompiled_charsmap is a trie
 * of one unit, 0xffffffff, because it follows the array without looking at its end), and it trains and decodes besides, with
 * 1,600 protobuf symbols. The encoding of the message is a few lines; the tests compare what is read with the library's own
 * reading. */
#include "tokenizer/spm.h"

#include <math.h>
#include <string.h>

#include "base/status.h"
#include "tokenizer/tokenizer.h"

/* Fields of ModelProto, SentencePiece, TrainerSpec and NormalizerSpec. */
enum { MODEL_PIECES = 1, MODEL_TRAINER = 2, MODEL_NORMALIZER = 3 };
enum { PIECE_TEXT = 1, PIECE_SCORE = 2, PIECE_TYPE = 3 };
enum { TRAINER_MODEL_TYPE = 3, TRAINER_SUFFIX = 24, TRAINER_BYTE_FALLBACK = 35, TRAINER_UNK_ID = 40, TRAINER_UNK_SURFACE = 44 };
enum { NORMALIZER_CHARSMAP = 2, NORMALIZER_DUMMY_PREFIX = 3, NORMALIZER_REMOVE_EXTRA = 4, NORMALIZER_ESCAPE = 5 };
enum { WIRE_VARINT = 0, WIRE_FIXED64 = 1, WIRE_BYTES = 2, WIRE_FIXED32 = 5 };

typedef struct field {
    uint32_t number, wire;
    uint64_t value;      /* of a varint or a fixed number */
    tfi_spm_bytes bytes; /* of bytes */
} field;

static int read_varint(const uint8_t *data, size_t size, size_t *at, uint64_t *out)
{
    *out = 0;
    for (uint32_t shift = 0; shift < 64 && *at < size; shift += 7) {
        const uint8_t byte = data[(*at)++];
        *out |= (uint64_t)(byte & 127) << shift;
        if (byte < 128) return 1;
    }
    return 0;
}

static int read_fixed(const uint8_t *data, size_t size, size_t *at, size_t bytes, uint64_t *out)
{
    *out = 0;
    if (size - *at < bytes) return 0;
    for (size_t i = 0; i < bytes; i++) *out |= (uint64_t)data[(*at)++] << (8 * i);
    return 1;
}

/* The next field of a message: 1, 0 at its end, or -1 if it is malformed. */
static int next_field(const uint8_t *data, size_t size, size_t *at, field *f)
{
    uint64_t tag;

    if (*at >= size) return 0;
    if (!read_varint(data, size, at, &tag) || tag >> 3 == 0 || tag >> 3 > UINT32_MAX) return -1;
    *f = (field){.number = (uint32_t)(tag >> 3), .wire = (uint32_t)(tag & 7)};
    if (f->wire == WIRE_VARINT) return read_varint(data, size, at, &f->value) ? 1 : -1;
    if (f->wire == WIRE_FIXED64) return read_fixed(data, size, at, 8, &f->value) ? 1 : -1;
    if (f->wire == WIRE_FIXED32) return read_fixed(data, size, at, 4, &f->value) ? 1 : -1;
    if (f->wire != WIRE_BYTES || !read_varint(data, size, at, &f->value) || f->value > size - *at) return -1;
    f->bytes = (tfi_spm_bytes){.data = data + *at, .size = (size_t)f->value};
    *at += f->bytes.size;
    return 1;
}

/* What is wrong with a piece, or NULL. */
static const char *read_piece(tfi_spm_bytes message, tfi_spm_piece *out)
{
    size_t at = 0;
    uint32_t bits, bad = 0;
    int more;
    field f;

    *out = (tfi_spm_piece){.type = TFI_SPM_NORMAL};
    while ((more = next_field(message.data, message.size, &at, &f)) > 0) {
        if (f.number == PIECE_TEXT && f.wire == WIRE_BYTES) out->text = f.bytes;
        if (f.number == PIECE_TYPE && f.wire == WIRE_VARINT) out->type = f.value <= TFI_SPM_BYTE ? (int32_t)f.value : 0;
        if (f.number == PIECE_SCORE && f.wire == WIRE_FIXED32) {
            bits = (uint32_t)f.value;
            memcpy(&out->score, &bits, sizeof bits);
        }
    }
    if (more < 0) return "is malformed";
    if (out->text.size == 0) return "is empty";
    if (out->text.size > TFI_PIECE_SIZE_MAX) return "is too long";
    if (memchr(out->text.data, 0, out->text.size) || tfi_utf8_valid(out->text.data, out->text.size, &bad) != out->text.size)
        return "is not UTF-8 text";
    if (!isfinite(out->score)) return "has a score that is no number";
    return out->type ? NULL : "has an unknown type";
}

int tfi_spm_next(const uint8_t *data, size_t size, size_t *at, tfi_spm_piece *out)
{
    field f;

    while (next_field(data, size, at, &f) > 0)
        if (f.number == MODEL_PIECES && f.wire == WIRE_BYTES) return read_piece(f.bytes, out) == NULL;
    return 0;
}

static int read_trainer(tfi_spm_bytes message, tfi_spm *out)
{
    size_t at = 0;
    int more;
    field f;

    while ((more = next_field(message.data, message.size, &at, &f)) > 0) {
        const int32_t number = f.value <= INT32_MAX ? (int32_t)f.value : -1;
        if (f.number == TRAINER_UNK_SURFACE && f.wire == WIRE_BYTES) out->unk_surface = f.bytes;
        if (f.wire != WIRE_VARINT) continue;
        if (f.number == TRAINER_MODEL_TYPE) out->model_type = number;
        if (f.number == TRAINER_SUFFIX) out->space_is_suffix = f.value != 0;
        if (f.number == TRAINER_BYTE_FALLBACK) out->byte_fallback = f.value != 0;
        if (f.number == TRAINER_UNK_ID) out->unk_id = number;
    }
    return more;
}

static int read_normalizer(tfi_spm_bytes message, tfi_spm *out)
{
    size_t at = 0;
    int more;
    field f;

    while ((more = next_field(message.data, message.size, &at, &f)) > 0) {
        if (f.number == NORMALIZER_CHARSMAP && f.wire == WIRE_BYTES) out->charsmap = f.bytes;
        if (f.wire != WIRE_VARINT) continue;
        if (f.number == NORMALIZER_DUMMY_PREFIX) out->dummy_prefix = f.value != 0;
        if (f.number == NORMALIZER_REMOVE_EXTRA) out->remove_extra_spaces = f.value != 0;
        if (f.number == NORMALIZER_ESCAPE) out->escape_spaces = f.value != 0;
    }
    return more;
}

tf_status tfi_spm_read(const uint8_t *data, size_t size, const char *name, tfi_spm *out)
{
    static const char surface[] = " \xe2\x81\x87 ";
    size_t at = 0;
    uint32_t bad = 0;
    int more;
    field f;

    *out = (tfi_spm){.model_type = TFI_SPM_UNIGRAM,
                     .unk_surface = {(const uint8_t *)surface, sizeof surface - 1},
                     .dummy_prefix = 1,
                     .remove_extra_spaces = 1,
                     .escape_spaces = 1};
    while ((more = next_field(data, size, &at, &f)) > 0) {
        const char *wrong = NULL;
        tfi_spm_piece piece;
        if (f.wire != WIRE_BYTES) continue;
        if (f.number == MODEL_PIECES) {
            if ((wrong = read_piece(f.bytes, &piece)) != NULL)
                return tfi_fail(TF_STATUS_CORRUPT, "%s: piece %d %s", name, (int)out->pieces, wrong);
            if (out->pieces > TFI_TOKEN_ID_MAX)
                return tfi_fail(TF_STATUS_UNSUPPORTED, "%s: more than %d pieces", name, TFI_TOKEN_ID_MAX);
            out->pieces++;
        }
        if (f.number == MODEL_TRAINER && read_trainer(f.bytes, out) < 0) more = -1;
        if (f.number == MODEL_NORMALIZER && read_normalizer(f.bytes, out) < 0) more = -1;
        if (more < 0) break;
    }
    if (more < 0) return tfi_fail(TF_STATUS_CORRUPT, "%s: malformed at byte %zu of %zu", name, at, size);
    if (out->pieces == 0) return tfi_fail(TF_STATUS_CORRUPT, "%s: it has no pieces", name);
    if (out->unk_id < 0 || out->unk_id >= out->pieces)
        return tfi_fail(TF_STATUS_CORRUPT, "%s: unk_id is %d, there are %d pieces", name, (int)out->unk_id, (int)out->pieces);
    if (tfi_utf8_valid(out->unk_surface.data, out->unk_surface.size, &bad) != out->unk_surface.size)
        return tfi_fail(TF_STATUS_CORRUPT, "%s: unk_surface is not UTF-8", name);
    return TF_STATUS_OK;
}
