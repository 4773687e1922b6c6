/* A pickle reader that knows what a PyTorch state dict is made of and nothing else: it runs no code, and refuses by name every
 * opcode and every global (class or function) outside a short list. Tensors and storages come out as descriptions; torch.c
 * finds their bytes. */
#ifndef TFI_IO_PICKLE_H
#define TFI_IO_PICKLE_H

#include "io/source.h"

typedef enum tfi_pickle_kind {
    TFI_PICKLE_OTHER, /* a value that a state dict may hold and no reader needs: None, floats, bytes, dtypes, ... */
    TFI_PICKLE_MARK,  /* on the stack only */
    TFI_PICKLE_BOOL,
    TFI_PICKLE_INT,
    TFI_PICKLE_TEXT,
    TFI_PICKLE_TUPLE,
    TFI_PICKLE_LIST,
    TFI_PICKLE_DICT,
    TFI_PICKLE_GLOBAL,
    TFI_PICKLE_STORAGE,
    TFI_PICKLE_TENSOR
} tfi_pickle_kind;

typedef struct tfi_pickle_value {
    tfi_pickle_kind kind;
    uint32_t size; /* bytes of a text, items of a tuple */
    union {
        int64_t integer;  /* of BOOL and INT */
        const char *text; /* in the file, no NUL behind it */
        const struct tfi_pickle_value *items;
        struct tfi_pickle_container *container; /* of LIST and DICT */
        const struct tfi_pickle_global *global;
        struct tfi_pickle_storage *storage;
        const struct tfi_pickle_tensor *tensor;
    } as;
} tfi_pickle_value;

/* A list's items in order; a dict's keys and values in turns, a later key not replacing an earlier one. */
typedef struct tfi_pickle_container {
    struct tfi_pickle_item *first, *last;
} tfi_pickle_container;

typedef struct tfi_pickle_item {
    tfi_pickle_value value;
    struct tfi_pickle_item *next;
} tfi_pickle_item;

/* The elements that any number of tensors are views of; named again by each of them, so one key may occur many times. */
typedef struct tfi_pickle_storage {
    const char *key; /* in the file, key_size bytes */
    uint32_t key_size;
    tfi_dtype dtype;
    int64_t count;       /* elements, >= 0 */
    const uint8_t *data; /* NULL; for the caller to fill, with size in bytes */
    size_t size;
    struct tfi_pickle_storage *next;
} tfi_pickle_storage;

typedef struct tfi_pickle_tensor {
    const tfi_pickle_storage *storage;
    int64_t offset; /* in elements, like strides; not checked, nor is the shape */
    int rank;
    int64_t shape[TFI_RANK_MAX], stride[TFI_RANK_MAX];
} tfi_pickle_tensor;

typedef struct tfi_pickle {
    tfi_pickle_value root;
    tfi_pickle_storage *storages; /* in no order */
    size_t storage_count;
    size_t size; /* bytes read, through STOP */
} tfi_pickle;

/* Read one pickle at the begin of `data`. Everything in *out lives in `arena`, and texts in `data`. CORRUPT, UNSUPPORTED,
 * NOMEM, with the byte at which it failed in the error text. Memory stays within a fixed multiple of the bytes read. */
tf_status tfi_pickle_read(tfi_arena *arena, const uint8_t *data, size_t size, tfi_pickle *out);

/* NULL if there is none. */
const tfi_pickle_value *tfi_pickle_find(const tfi_pickle_container *dict, const char *key);

#endif
