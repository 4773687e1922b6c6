/* Weight files of any content, from memory: what opens must have tensors inside its file and must convert. The first byte says
 * which file the rest is: 's' model.safetensors, 'i' an index, a zero byte and its shard, 'p' a pickle alone, else
 * pytorch_model.bin. */
#include <stdlib.h>

#include "io/pickle.h"
#include "io/weights.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { ELEMENTS_MAX = 1 << 16, BUDGET = 64 << 20 };

typedef struct named {
    const char *name;
    const uint8_t *data;
    size_t size;
} named;

static named present[2];

static tf_status memory_open(void *user, const char *name, tf_file *out)
{
    (void)user;
    for (int i = 0; i < 2; i++) {
        if (!present[i].name || strcmp(present[i].name, name) != 0) continue;
        out->data = present[i].data;
        out->size = (int64_t)present[i].size;
        return TF_STATUS_OK;
    }
    return TF_STATUS_NOT_FOUND;
}

static void name_files(char format, const uint8_t *data, size_t size)
{
    const uint8_t *zero = format == 'i' ? memchr(data, 0, size) : NULL;

    memset(present, 0, sizeof present);
    if (zero) {
        present[0] = (named){"model.safetensors.index.json", data, (size_t)(zero - data)};
        present[1] = (named){"shard", zero + 1, size - (size_t)(zero - data) - 1};
    } else {
        present[0] = (named){format == 's' ? "model.safetensors" : "pytorch_model.bin", data, size};
    }
}

static void check_tensor(const tfi_source *s, const tfi_tensor *t)
{
    static float out[ELEMENTS_MAX];
    const tfi_file *f = t->file;

    if (t->data < f->data || t->data > f->data + f->size || t->span > (size_t)(f->data + f->size - t->data)) abort();
    if (tfi_source_tensor(s, t->name) != t) abort();
    if (tfi_tensor_elements(t) <= ELEMENTS_MAX) (void)tfi_tensor_to_f32(t, out);
}

static void fuzz_pickle(tfi_memory *memory, const uint8_t *data, size_t size)
{
    tfi_arena arena = {.memory = memory};
    tfi_pickle pickle;

    if (tfi_pickle_read(&arena, data, size, &pickle) == TF_STATUS_OK && pickle.size > size) abort();
    tfi_arena_close(&arena);
}

static void fuzz_source(tfi_memory *memory, char format, const uint8_t *data, size_t size)
{
    const tfi_files files = {.source = {.file = memory_open}, .label = "fuzz"};
    tfi_source s;

    name_files(format, data, size);
    if (tfi_source_open(&s, memory, &files) < 0) return;
    for (int64_t i = 0; i < s.tensor_count; i++) check_tensor(&s, &s.tensors[i]);
    tfi_source_close(&s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    tfi_memory memory;

    if (size == 0) return 0;
    tfi_memory_init(&memory, NULL, BUDGET);
    if (data[0] == 'p') fuzz_pickle(&memory, data + 1, size - 1);
    else fuzz_source(&memory, (char)data[0], data + 1, size - 1);
    if (memory.used != 0) abort();
    return 0;
}
