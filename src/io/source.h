/* A source: the files of a checkpoint by name, and its tensors by name. One loader (src/models, src/api) reads every checkpoint
 * through this, wherever the bytes are. host_tensors.c fills it from the host's callback, safetensors.c and torch.c from files.
 *
 * Threads: immutable after open; any thread may read. */
#ifndef TFI_IO_SOURCE_H
#define TFI_IO_SOURCE_H

#include "base/dtype.h"
#include "base/files.h"
#include "base/memory.h"

enum { TFI_RANK_MAX = 8 };

/* One stored tensor. data points into a file or the host's memory, maybe unaligned for its type: read elements with memcpy. */
typedef struct tfi_tensor {
    const char *name;
    tfi_dtype dtype;
    int rank; /* 0 for a scalar */
    int64_t shape[TFI_RANK_MAX];
    int64_t stride[TFI_RANK_MAX]; /* in elements, >= 0; row-major contiguous for safetensors, any view else */
    const uint8_t *data;          /* element [0, 0, ...] */
    size_t span;          /* bytes from data to the end of the last element; all of them lie inside the file, if there is one */
    const tfi_file *file; /* the file that holds data; NULL: the host's memory */
    int lasting;          /* data stays as long as the model: it may be used where it is */
    int64_t device;       /* 0: data is on the host; N + 1: on CUDA device N */
} tfi_tensor;

typedef struct tfi_source tfi_source;
struct tfi_source {
    tfi_memory *memory;
    tfi_files files;     /* or those of a folder */
    tfi_arena arena;     /* names and the tensor table */
    tfi_tensor *tensors; /* sorted by name; no name twice */
    int64_t tensor_count;
    tfi_file *weight_files; /* mappings that live as long as the source */
    int64_t weight_file_count;
};

/* Open the checkpoint that has these files: the tensors that the host hands over or, if there is none, those of
 * model.safetensors, model.safetensors.index.json, pytorch_model.bin or pytorch_model.bin.index.json, in this order. Only headers
 * are read. The tensor table is empty, without error, if there is none of them either: a directory may hold a tokenizer alone.
 * IO, NOMEM; CORRUPT with file, key and value; INVALID naming a tensor that the host describes wrongly; what its callbacks
 * return. On failure nothing stays open. What `files` lean on must stay as long as the source. */
tf_status tfi_source_open(tfi_source *s, tfi_memory *memory, const tfi_files *files);
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
