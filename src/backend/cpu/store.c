/* The store of a session in host memory: blocks of keys and values, and the slots of running sequences. */
#include <assert.h>
#include <string.h>

#include "backend/cpu/cpu.h"
#include "base/status.h"

/* Bytes of all blocks; 0 if some product does not fit. */
static int blocks_bytes(const tfi_store_shape *s, int64_t *bytes)
{
    const int64_t planes = 2 * (int64_t)s->layers * s->heads; /* factors are 32 bits each */
    int64_t block;

    return !__builtin_mul_overflow(planes, tfi_kv_plane(s) * (int64_t)tfi_dtype_size(s->dtype), &block) &&
           !__builtin_mul_overflow(block, s->blocks, bytes) && *bytes <= INT64_MAX / 4;
}

static int64_t slots_bytes(const tfi_store_shape *s)
{
    return s->slots * (int64_t)sizeof(tfi_slot);
}

int64_t tfi_cpu_store_bytes(tfi_backend *b, const tfi_store_shape *shape)
{
    int64_t bytes;

    (void)b;
    return blocks_bytes(shape, &bytes) ? (int64_t)sizeof(tfi_store) + slots_bytes(shape) + bytes : -1;
}

tf_status tfi_cpu_store_open(tfi_backend *b, const tfi_store_shape *shape, tfi_memory *memory, tfi_store **out)
{
    int64_t bytes;
    tfi_store *s;

    *out = NULL;
    if (!blocks_bytes(shape, &bytes))
        return tfi_fail(TF_STATUS_NOMEM, "%lld blocks of keys and values are more than memory can hold",
                        (long long)shape->blocks);
    if (!(s = tfi_zalloc(memory, sizeof *s))) return TF_STATUS_NOMEM;
    s->shape = *shape;
    s->memory = memory;
    if (!(s->slots = tfi_zalloc(memory, (size_t)slots_bytes(shape))) || !(s->blocks = tfi_alloc(memory, (size_t)bytes))) {
        tfi_cpu_store_close(s);
        return TF_STATUS_NOMEM;
    }
    (void)b;
    *out = s;
    return TF_STATUS_OK;
}

void tfi_cpu_store_close(tfi_store *s)
{
    int64_t bytes = 0;

    if (!s) return;
    (void)blocks_bytes(&s->shape, &bytes);
    tfi_free(s->memory, s->blocks, (size_t)bytes);
    tfi_free(s->memory, s->slots, (size_t)slots_bytes(&s->shape));
    tfi_free(s->memory, s, sizeof *s);
}

void tfi_cpu_slot_set(tfi_store *s, int32_t slot, const tfi_slot *record)
{
    assert(slot >= 0 && slot < s->shape.slots);
    s->slots[slot] = record ? *record : (tfi_slot){.sampling = NULL};
}
