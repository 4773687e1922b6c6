/* Made-up checkpoints that generate: a GPT-2 with one token a byte, and a T5 with ByT5's tokenizer. */
#ifndef TFC_TINY_DECODER_H
#define TFC_TINY_DECODER_H

#include <tfinfer/generate.h>

enum { TINY_GPT2_VOCAB = 257, TINY_GPT2_POSITIONS = 96, TINY_GPT2_EOS = 256, TINY_T5_VOCAB = 384 };

typedef enum tiny_decoder { TINY_GPT2, TINY_T5, TINY_DECODER_COUNT } tiny_decoder;

/* The model's folder below this test's scratch folder, written at first need. Static text. */
const char *tiny_decoder_path(tiny_decoder kind);

#endif
