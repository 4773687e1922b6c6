/* Tensors as a host may describe them: any number in any field. The input is a list of records; what lies inside the host's memory
 * must convert. A record: flags (1: strides are given, 2: no data, 4: on a device, 8: the callback fails, 16: of a folder, 32: a name
 * that others have), rank, dtype, the device, then of each dimension's size and stride an exponent and a mantissa. */
#include <stdio.h>
#include <stdlib.h>

#include "io/weights.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { MEMORY = 4096, ELEMENTS_MAX = 1 << 12, BUDGET = 16 << 20 };

static uint8_t memory_of_host[MEMORY];
static const uint8_t *left;
static size_t left_size;

static int next(void)
{
    return left_size ? (left_size--, *left++) : 0;
}

/* Small numbers, large ones, negative ones and those that mean "unset". */
static int64_t number(void)
{
    const int shift = next() % 64, mantissa = next();
    return shift == 63 ? (mantissa % 2 ? TF_UNSET : INT64_MIN) : (int64_t)((uint64_t)(int64_t)(int8_t)mantissa << shift);
}

static tf_status give(void *user, int64_t index, tf_tensor *out)
{
    static char name[32];

    (void)user;
    if (!left_size) return TF_STATUS_END;
    const int flags = next();
    snprintf(name, sizeof name, "%s%d", flags & 16 ? "2_Dense/" : "", flags & 32 ? 0 : (int)index);
    out->name = name;
    out->rank = next() % 16 - 2;
    out->dtype = next() % 8;
    out->data = flags & 2 ? NULL : memory_of_host;
    if (flags & 4) out->device = (int32_t)number();
    for (int i = 0; i < out->rank && i < TF_RANK_MAX; i++) {
        out->shape[i] = number();
        if (flags & 1) out->stride[i] = number();
    }
    return flags & 8 ? (tf_status)(int8_t)next() : TF_STATUS_OK;
}

static tf_status no_file(void *user, const char *name, tf_file *out)
{
    (void)user;
    (void)name;
    (void)out;
    return TF_STATUS_NOT_FOUND;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static float out[ELEMENTS_MAX];
    const tfi_files files = {.source = {.file = no_file, .tensor = give}, .label = "fuzz"};
    tfi_files of_folder;
    tfi_memory memory;
    tfi_source s;

    tfi_memory_init(&memory, NULL, BUDGET);
    tfi_files_folder(&of_folder, &files, size % 2 ? "2_Dense" : "");
    left = data;
    left_size = size;
    if (tfi_source_open(&s, &memory, &of_folder) == TF_STATUS_OK) {
        for (int64_t i = 0; i < s.tensor_count; i++) {
            const tfi_tensor *const t = &s.tensors[i];
            if (tfi_source_tensor(&s, t->name) != t || t->rank < 0 || t->rank > TFI_RANK_MAX || t->dtype > TFI_F64) abort();
            if (t->span > UINTPTR_MAX - (uintptr_t)t->data) abort();
            if (t->span <= MEMORY && !t->device && tfi_tensor_elements(t) <= ELEMENTS_MAX) (void)tfi_tensor_to_f32(t, out);
        }
        tfi_source_close(&s);
    }
    if (memory.used != 0) abort();
    return 0;
}
