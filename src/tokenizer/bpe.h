/* Byte-level BPE: what words.c is for WordPiece. A vocabulary spells each byte as one printable character (a space is U+0120);
 * text is split as GPT-2's pattern does it, each word begins as its bytes, and neighbours merge in the order of the merges. */
#ifndef TFI_TOKENIZER_BPE_H
#define TFI_TOKENIZER_BPE_H

#include <stdint.h>

#include "base/memory.h"
#include "tokenizer/pipeline.h"
#include "tokenizer/trie.h"
#include "tokenizer/unicode.h"

/* Two neighbouring tokens become `id`; lower ranks go first. left TFI_TRIE_NONE: a free slot. */
typedef struct tfi_merge {
    int32_t left, right, rank, id;
} tfi_merge;

typedef struct tfi_bpe {
    tfi_merge *merges; /* [mask + 1], open addressing */
    uint32_t mask, shift;
    int32_t byte_id[256]; /* TFI_TRIE_NONE: the vocabulary lacks the byte, text loses it */
    int lacks_bytes;
    int ignore_merges; /* a word that is a token is that token */
    int is_text;       /* words do not all begin as spelled bytes: bpe_word.c takes them */
    int byte_fallback, has_unk, fuse_unk;
    int32_t unk_id;
    int32_t fallback_id[256];            /* <0x00>, ...; TFI_TRIE_NONE where there is none */
    tfi_string inner_prefix, end_suffix; /* of characters that are not a word's first, or are its last */
    tfi_trie words;                      /* by bytes: tokens that their own bytes merge into, so that a word needs no merging */
    uint32_t space_node;                 /* where `words` stands after a space; the root if nowhere */
    const tfi_unicode *classes;
    uint8_t ascii_class[128];
    int prefix_space, use_pattern; /* of the pre-tokenizer */
    int trim, trim_expects_prefix; /* of the post-processor: trim_offsets, add_prefix_space */
} tfi_bpe;

/* The character that spells a byte, and back: -1 for one that spells none. */
uint32_t tfi_byte_spelling(uint8_t byte);
int tfi_spelled_byte(uint32_t c);

/* Make room for `count` merges. OK or NOMEM. */
tf_status tfi_bpe_open(tfi_bpe *b, tfi_memory *memory, size_t count);
void tfi_bpe_close(tfi_bpe *b, tfi_memory *memory);

/* Of two merges of the same pair the last one counts. Room was made. */
void tfi_bpe_add(tfi_bpe *b, const tfi_merge *merge);

#endif
