/* Made-up checkpoints that generate: a GPT-2 with one token a byte, and a T5 with ByT5's tokenizer. */
#ifndef TFC_TINY_DECODER_H
#define TFC_TINY_DECODER_H

#include <tfinfer/generate.h>

#include "check.h"

enum { TINY_GPT2_VOCAB = 257, TINY_GPT2_POSITIONS = 96, TINY_GPT2_EOS = 256, TINY_T5_VOCAB = 384 };

typedef enum tiny_decoder { TINY_GPT2, TINY_T5, TINY_DECODER_COUNT } tiny_decoder;

/* The model's folder below this test's scratch folder, written at first need. Static text. */
const char *tiny_decoder_path(tiny_decoder kind);

/* One of them and a session, on the device that TFINFER_DEVICE names; closing checks that nothing is left. */
typedef struct tiny_bench {
    check_memory memory;
    tf_model *model;
    tf_session *session;
} tiny_bench;
void tiny_bench_open(tiny_bench *b, tiny_decoder kind, const tf_session_options *options); /* options may be NULL */
void tiny_bench_close(tiny_bench *b);

#endif
