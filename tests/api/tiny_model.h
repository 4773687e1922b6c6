/* A checkpoint directory as Hugging Face writes it, small enough to make anew in each test: a BERT of two layers and width 32
 * with random weights, and a vocabulary of single letters and a few words, so that any ASCII text has ids. */
#ifndef TFC_TINY_MODEL_H
#define TFC_TINY_MODEL_H

#include <tfinfer/tfinfer.h>

enum {
    TINY_WIDTH = 32,
    TINY_HEADS = 2,
    TINY_LAYERS = 2,
    TINY_INNER = 64,
    TINY_POSITIONS = 64,
    TINY_TYPES = 2,
    TINY_LABELS = 3,
    TINY_PAD = 0,
    TINY_UNK = 1,
    TINY_CLS = 2,
    TINY_SEP = 3,
    TINY_MASK = 4
};

typedef enum tiny_head { TINY_BASE, TINY_CLASSIFIER, TINY_TAGGER, TINY_ANSWERER, TINY_MASKED_LM, TINY_HEAD_COUNT } tiny_head;

/* Write config.json, vocab.txt, tokenizer_config.json and model.safetensors to the folder `path`, which is made. The base model
 * gets modules.json with mean pooling and normalisation too. Ends the program if it cannot. */
void tiny_model_write(const char *path, tiny_head head);

/* The same model under this test's scratch folder, written at first need. Static text. */
const char *tiny_model_path(tiny_head head);

int tiny_vocab_size(void);

/* Open the model with two threads, and a session of it; options may be NULL. Ends the program if that fails. */
void tiny_open(tiny_head head, const tf_model_options *options, tf_model **model, tf_session **session);

/* An input of `count` texts. */
tf_input tiny_texts(const tf_text *texts, int64_t count);

/* Run the task of this head on two fixed texts; out [TINY_OUT] gets the task's numbers. */
enum { TINY_OUT = 256 };
tf_status tiny_run(tf_session *s, tiny_head head, float *out);

#endif
