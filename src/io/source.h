/* A source: the files of a checkpoint by name, and its tensors by name. One loader (src/models, src/api) reads every checkpoint
 * through this, wherever the bytes are. safetensors.c and torch.c fill it from a directory's weight files.
 *
 * Threads: immutable after open; any thread may read. */
#ifndef TFI_IO_SOURCE_H
#define TFI_IO_SOURCE_H

#include "base/dtype.h"
#include "base/files.h"
#include "base/memory.h"

enum { TFI_RANK_MAX = 8 };

/* One stored tensor. data points into a mapping and may be unaligned for its type: read elements with memcpy. */
typedef struct tfi_tensor {
    const char *name;
    tfi_dtype dtype;
    int rank; /* 0 for a scalar */
    int64_t shape[TFI_RANK_MAX];
    int64_t stride[TFI_RANK_MAX]; /* in elements, >= 0; row-major contiguous for safetensors, any view for .bin files */
    const uint8_t *data;          /* element [0, 0, ...] */
    size_t span;                  /* bytes from data to the end of the last element; all of them lie inside the file */
    const tfi_file *file;         /* the mapping that holds data */
} tfi_tensor;

typedef struct tfi_source tfi_source;
struct tfi_source {
    tfi_memory *memory;
    tfi_files files;
    tfi_arena arena;     /* names and the tensor table */
    tfi_tensor *tensors; /* sorted by name; no name twice */
    int64_t tensor_count;
    tfi_file *weight_files; /* mappings that live as long as the source */
    int64_t weight_file_count;
};

/* Open the directory `path`: model.safetensors, model.safetensors.index.json, pytorch_model.bin or
 * pytorch_model.bin.index.json, in this order. Only headers are read. The tensor table is empty, without error, if there is
 * none of them: a directory may hold a tokenizer alone; *has_weights (tensor_count > 0) tells. NOT_FOUND, IO, NOMEM; CORRUPT
 * with file, key and value. On failure nothing stays open. */
tf_status tfi_source_directory(tfi_source *s, tfi_memory *memory, const char *path);
void tfi_source_close(tfi_source *s); /* takes a zeroed source too */

/* NULL if there is none. */
const tfi_tensor *tfi_source_tensor(const tfi_source *s, const char *name);

/* Copy to contiguous row-major floats, whatever the dtype and strides; dst has as many elements as the tensor. Integer tensors
 * are TF_STATUS_UNSUPPORTED. */
tf_status tfi_tensor_to_f32(const tfi_tensor *t, float *dst);

/* Elements in all dimensions; shapes were checked at open, so this does not overflow. */
int64_t tfi_tensor_elements(const tfi_tensor *t);
int tfi_tensor_is_contiguous(const tfi_tensor *t);

#endif
