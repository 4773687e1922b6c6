/* config.json and the JSON files of sentence-transformers: the first byte says which of them the rest is, the others are sound.
 * The checkpoint has no tensors, so a family builder stops at the first it needs, after all settings are read. */
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

static tf_status open_file(tfi_files *f, const char *name, tfi_file *out)
{
    (void)f;
    for (size_t i = 0; i < KNOWN; i++) {
        if (strcmp(known[i].name, name) != 0) continue;
        *out = i == fuzzed ? (tfi_file){.data = fuzz_data, .size = fuzz_size}
                           : (tfi_file){.data = (const uint8_t *)known[i].sound, .size = strlen(known[i].sound)};
        return TF_STATUS_OK;
    }
    return TF_STATUS_NOT_FOUND;
}

static void close_file(tfi_files *f, tfi_file *closed)
{
    (void)f;
    (void)closed;
}

static void must(int condition, const char *what)
{
    if (condition) return;
    fprintf(stderr, "%s\n", what);
    abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static tfi_tensor unused = {.name = "unused", .rank = 1, .shape = {1}};
    const tfi_files files = {.open = open_file, .close = close_file, .label = "checkpoint"};
    tfi_files of_sentence = files;
    tfi_memory memory;
    tfi_sentence sentence;
    tfi_model model;

    if (size < 1) return 0;
    fuzzed = data[0] % KNOWN;
    fuzz_data = data + 1;
    fuzz_size = size - 1;
    tfi_memory_init(&memory, NULL, 64 << 20);
    tfi_arena arena = {.memory = &memory};
    tfi_source source = {
        .memory = &memory, .files = files, .arena = {.memory = &memory}, .tensors = &unused, .tensor_count = 1};

    /* The dense module's weights are looked for in a folder that does not exist: with sound files that is where it ends. */
    (void)tfi_sentence_read(&sentence, "/nonexistent", &of_sentence, &arena, &memory);
    tfi_sentence_close(&sentence);
    must(tfi_model_build(&source, &sentence, TFI_F32, &arena, &model) < 0, "a model without tensors was built");
    tfi_arena_close(&arena);
    must(memory.used == 0, "memory was lost");
    return 0;
}
