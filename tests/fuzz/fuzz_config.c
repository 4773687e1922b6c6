/* config.json and the JSON files of sentence-transformers: the first byte says which of them the rest is. A config.json is
 * alone, beside the others all are sound.
 * The checkpoint has the tensors of a tiny GPT-2 and of a tiny T5 (regress/config holds configs that build them); any other
 * builder stops at the first tensor it needs, after all settings are read. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "models/model.h"

typedef struct file {
    const char *name, *sound;
} file;

static const file known[] = {
    {"config.json",
     "{\"model_type\":\"bert\",\"architectures\":[\"BertForTokenClassification\"],\"id2label\":{\"0\":\"O\",\"1\":\"B\"}}"},
    {"modules.json",
     "[{\"idx\":0,\"path\":\"\",\"type\":\"a.Transformer\"},{\"idx\":1,\"path\":\"1_Pooling\",\"type\":\"a.Pooling\"},"
     "{\"idx\":2,\"path\":\"2_Dense\",\"type\":\"a.Dense\"}]"},
    {"1_Pooling/config.json", "{\"word_embedding_dimension\":768,\"pooling_mode\":[\"mean\",\"cls\"]}"},
    {"2_Dense/config.json",
     "{\"in_features\":768,\"out_features\":9,\"activation_function\":\"torch.nn.modules.activation.Tanh\"}"},
    {"sentence_bert_config.json", "{\"max_seq_length\":256,\"do_lower_case\":false}"},
    {"config_sentence_transformers.json", "{\"prompts\":{\"query\":\"q: \"},\"default_prompt_name\":\"query\"}"},
};

enum { KNOWN = sizeof known / sizeof known[0] };

static size_t fuzzed;
static const uint8_t *fuzz_data;
static size_t fuzz_size;

static tf_status open_file(void *user, const char *name, tf_file *out)
{
    (void)user;
    for (size_t i = 0; i < KNOWN; i++) {
        if (strcmp(known[i].name, name) != 0 || (fuzzed == 0 && i != 0)) continue;
        out->data = i == fuzzed ? (const void *)fuzz_data : known[i].sound;
        out->size = (int64_t)(i == fuzzed ? fuzz_size : strlen(known[i].sound));
        return TF_STATUS_OK;
    }
    return TF_STATUS_NOT_FOUND;
}

/* ---- tensors: names, types and shapes are all that building a graph asks for ---- */

enum { V = 5, E = 6, F = 7, P = 3, BUCKETS = 4, HEADS = 2, HD = 4 /* heads times head size */ };

#define MATRIX(text, outputs, inputs)                                                                                          \
    {                                                                                                                          \
        .name = text, .rank = 2, .shape = { outputs, inputs }                                                                  \
    }
#define VECTOR(text, elements)                                                                                                 \
    {                                                                                                                          \
        .name = text, .rank = 1, .shape = { elements }                                                                         \
    }
#define CONV(text, outputs, inputs) MATRIX(text ".weight", inputs, outputs), VECTOR(text ".bias", outputs)
#define NORM(text) VECTOR(text ".weight", E), VECTOR(text ".bias", E)
#define ATTENTION(text)                                                                                                        \
    MATRIX(text ".q.weight", HD, E), MATRIX(text ".k.weight", HD, E), MATRIX(text ".v.weight", HD, E),                         \
        MATRIX(text ".o.weight", E, HD)
#define RELATIVE(text) MATRIX(text ".relative_attention_bias.weight", BUCKETS, HEADS)

static tfi_tensor tensors[] = {
    MATRIX("wte.weight", V, E),
    MATRIX("wpe.weight", P, E),
    NORM("h.0.ln_1"),
    CONV("h.0.attn.c_attn", 3 * E, E),
    CONV("h.0.attn.c_proj", E, E),
    NORM("h.0.ln_2"),
    CONV("h.0.mlp.c_fc", F, E),
    CONV("h.0.mlp.c_proj", E, F),
    NORM("ln_f"),
    MATRIX("score.weight", 2, E),
    MATRIX("classifier.weight", 2, E),
    VECTOR("classifier.bias", 2),
    MATRIX("shared.weight", V, E),
    RELATIVE("encoder.block.0.layer.0.SelfAttention"),
    ATTENTION("encoder.block.0.layer.0.SelfAttention"),
    VECTOR("encoder.block.0.layer.0.layer_norm.weight", E),
    MATRIX("encoder.block.0.layer.1.DenseReluDense.wi.weight", F, E),
    MATRIX("encoder.block.0.layer.1.DenseReluDense.wi_0.weight", F, E),
    MATRIX("encoder.block.0.layer.1.DenseReluDense.wi_1.weight", F, E),
    MATRIX("encoder.block.0.layer.1.DenseReluDense.wo.weight", E, F),
    VECTOR("encoder.block.0.layer.1.layer_norm.weight", E),
    VECTOR("encoder.final_layer_norm.weight", E),
    RELATIVE("decoder.block.0.layer.0.SelfAttention"),
    ATTENTION("decoder.block.0.layer.0.SelfAttention"),
    VECTOR("decoder.block.0.layer.0.layer_norm.weight", E),
    ATTENTION("decoder.block.0.layer.1.EncDecAttention"),
    VECTOR("decoder.block.0.layer.1.layer_norm.weight", E),
    MATRIX("decoder.block.0.layer.2.DenseReluDense.wi.weight", F, E),
    MATRIX("decoder.block.0.layer.2.DenseReluDense.wi_0.weight", F, E),
    MATRIX("decoder.block.0.layer.2.DenseReluDense.wi_1.weight", F, E),
    MATRIX("decoder.block.0.layer.2.DenseReluDense.wo.weight", E, F),
    VECTOR("decoder.block.0.layer.2.layer_norm.weight", E),
    VECTOR("decoder.final_layer_norm.weight", E),
};

static int by_name(const void *a, const void *b)
{
    return strcmp(((const tfi_tensor *)a)->name, ((const tfi_tensor *)b)->name);
}

static void must(int condition, const char *what)
{
    if (condition) return;
    fprintf(stderr, "%s\n", what);
    abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const tfi_files files = {.source = {.file = open_file}, .label = "checkpoint"};
    tfi_memory memory;
    tfi_sentence sentence;
    tfi_model model;

    if (size < 1) return 0;
    qsort(tensors, sizeof tensors / sizeof tensors[0], sizeof tensors[0], by_name);
    fuzzed = data[0] % KNOWN;
    fuzz_data = data + 1;
    fuzz_size = size - 1;
    tfi_memory_init(&memory, NULL, 64 << 20);
    tfi_arena arena = {.memory = &memory};
    tfi_source source = {.memory = &memory,
                         .files = files,
                         .arena = {.memory = &memory},
                         .tensors = tensors,
                         .tensor_count = sizeof tensors / sizeof tensors[0]};

    /* The dense module has no weights: with sound files that is where it ends. */
    (void)tfi_sentence_read(&sentence, &files, &arena, &memory);
    tfi_sentence_close(&sentence);
    if (tfi_model_build(&source, &sentence, TFI_F32, &arena, &model) == TF_STATUS_OK)
        must(model.graph.op_count > 0 && model.hidden && model.hidden[model.layers] > 0, "a model without outputs was built");
    tfi_arena_close(&arena);
    must(memory.used == 0, "memory was lost");
    return 0;
}
