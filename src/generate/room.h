/* What of a session's store is free: KV blocks, which sequences may share, and slots. The scheduler's lock guards it. */
#ifndef TFI_GENERATE_ROOM_H
#define TFI_GENERATE_ROOM_H

#include "backend/backend.h"
#include "base/memory.h"

typedef struct tfi_room {
    tfi_backend *backend;
    tfi_store *store;
    int64_t blocks, free_blocks, promised;
    int32_t slots, free_slots;
    int32_t *block_stack; /* [blocks] the first free_blocks are free */
    int32_t *holders;     /* [blocks] sequences that hold the block */
    int32_t *slot_stack;  /* [slots] the first free_slots are free */
    tfi_memory *memory;
} tfi_room;

/* Opens the store, too. */
tf_status tfi_room_open(tfi_room *r, tfi_backend *backend, const tfi_store_shape *shape, tfi_memory *memory);
void tfi_room_close(tfi_room *r);
int64_t tfi_room_bytes(tfi_backend *backend, const tfi_store_shape *shape);

/* Blocks that n tokens fill. */
int64_t tfi_blocks_of(int64_t tokens);

/* A request takes all that it may need at most before it starts, so that it never has to stop for want of blocks. 0: not now. */
int tfi_room_promise(tfi_room *r, int64_t blocks, int32_t slots);
void tfi_room_release(tfi_room *r, int64_t blocks);

/* Within a promise there always is a free one. A block taken is held once. */
int32_t tfi_room_take_block(tfi_room *r);
void tfi_room_hold_block(tfi_room *r, int32_t block);
int tfi_room_drop_block(tfi_room *r, int32_t block); /* 1: nobody holds it any more */

int32_t tfi_room_take_slot(tfi_room *r, const tfi_slot *record);
void tfi_room_drop_slot(tfi_room *r, int32_t slot);

#endif
