/* BERT's Japanese checkpoints: MeCab goes before WordPiece. */
#ifndef TFI_TOKENIZER_JAPANESE_H
#define TFI_TOKENIZER_JAPANESE_H

#include "tokenizer/mecab.h"

typedef struct tfi_japanese {
    tfi_mecab *mecab; /* NULL: another tokenizer */
    int lowercase, by_character;
} tfi_japanese;

#endif
