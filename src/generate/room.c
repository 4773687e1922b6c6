#include "generate/room.h"

#include <assert.h>
#include <string.h>

int64_t tfi_blocks_of(int64_t tokens)
{
    return (tokens + TFI_KV_BLOCK - 1) / TFI_KV_BLOCK;
}

static int64_t lists_bytes(int64_t blocks, int64_t slots)
{
    return (2 * blocks + slots) * (int64_t)sizeof(int32_t);
}

int64_t tfi_room_bytes(tfi_backend *backend, const tfi_store_shape *shape)
{
    return backend->store_bytes(backend, shape) + lists_bytes(shape->blocks, shape->slots);
}

tf_status tfi_room_open(tfi_room *r, tfi_backend *backend, const tfi_store_shape *shape, tfi_memory *memory)
{
    tf_status st;

    *r = (tfi_room){.backend = backend,
                    .memory = memory,
                    .blocks = shape->blocks,
                    .free_blocks = shape->blocks,
                    .slots = shape->slots,
                    .free_slots = shape->slots};
    if ((st = backend->store_open(backend, shape, memory, &r->store)) < 0) return st;
    if (!(r->block_stack = tfi_zalloc(memory, (size_t)lists_bytes(r->blocks, r->slots)))) return TF_STATUS_NOMEM;
    r->holders = r->block_stack + r->blocks;
    r->slot_stack = r->holders + r->blocks;
    for (int64_t i = 0; i < r->blocks; i++) r->block_stack[i] = (int32_t)(r->blocks - 1 - i); /* the lowest goes first */
    for (int32_t i = 0; i < r->slots; i++) r->slot_stack[i] = r->slots - 1 - i;
    return TF_STATUS_OK;
}

void tfi_room_close(tfi_room *r)
{
    if (r->block_stack) tfi_free(r->memory, r->block_stack, (size_t)lists_bytes(r->blocks, r->slots));
    if (r->store) r->backend->store_close(r->store);
    memset(r, 0, sizeof *r);
}

int tfi_room_promise(tfi_room *r, int64_t blocks, int32_t slots)
{
    if (blocks > r->blocks - r->promised || slots > r->free_slots) return 0;
    r->promised += blocks;
    return 1;
}

void tfi_room_release(tfi_room *r, int64_t blocks)
{
    r->promised -= blocks;
}

int32_t tfi_room_take_block(tfi_room *r)
{
    assert(r->free_blocks > 0);
    const int32_t block = r->block_stack[--r->free_blocks];
    r->holders[block] = 1;
    return block;
}

void tfi_room_hold_block(tfi_room *r, int32_t block)
{
    r->holders[block]++;
}

int tfi_room_drop_block(tfi_room *r, int32_t block)
{
    assert(r->holders[block] > 0);
    if (--r->holders[block] > 0) return 0;
    r->block_stack[r->free_blocks++] = block;
    return 1;
}

int32_t tfi_room_take_slot(tfi_room *r, const tfi_slot *record)
{
    assert(r->free_slots > 0);
    const int32_t slot = r->slot_stack[--r->free_slots];
    r->backend->slot_set(r->store, slot, record);
    return slot;
}

void tfi_room_drop_slot(tfi_room *r, int32_t slot)
{
    r->backend->slot_set(r->store, slot, NULL);
    r->slot_stack[r->free_slots++] = slot;
}
