/* generation_config.json: whatever it holds is read or refused, and what was read opens or is refused as a request's settings.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "generate/settings.h"

static const uint8_t *fuzz_data;
static size_t fuzz_size;

static tf_status open_file(void *user, const char *name, tf_file *out)
{
    (void)user;
    if (strcmp(name, "generation_config.json") != 0) return TF_STATUS_NOT_FOUND;
    out->data = fuzz_data;
    out->size = (int64_t)fuzz_size;
    return TF_STATUS_OK;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const int32_t source[] = {1, 2, 3};
    const tfi_request_facts facts = {.vocab = 1000,
                                     .has_encoder = 1,
                                     .has_tokenizer = 1,
                                     .prompt = 1,
                                     .max_context = 512,
                                     .source = source,
                                     .source_count = 3};
    tfi_files files = {.source = {.file = open_file}, .label = "checkpoint"};
    tfi_generation generation;
    tfi_settings settings;
    tfi_memory memory;

    if (size == 0) return 0;
    fuzz_data = data;
    fuzz_size = size;
    tfi_memory_init(&memory, NULL, 64 << 20);
    tfi_arena arena = {.memory = &memory};
    if (tfi_generation_read(&files, 1000, &arena, &memory, NULL, NULL, &generation) == TF_STATUS_OK) {
        tf_generate_options asked;

        tf_generate_options_init(&asked);
        asked.do_sample = (int32_t)(size & 1); /* both lots of settings have their turn */
        if (tfi_settings_open(&settings, &generation, &asked, &facts, &memory) == TF_STATUS_OK &&
            (settings.sampling.max_length < 2 || settings.slots < 1)) {
            fprintf(stderr, "settings without a sequence\n");
            abort();
        }
        tfi_settings_close(&settings);
    }
    tfi_arena_close(&arena);
    if (memory.used != 0) {
        fprintf(stderr, "memory was lost\n");
        abort();
    }
    return 0;
}
