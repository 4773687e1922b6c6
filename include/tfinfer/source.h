/**
 * @file source.h
 * Where a checkpoint comes from, if not from a directory: files by name and tensors by name, which the host hands over in callbacks.
 * Files may lie in memory or anywhere in an open file, such as a database's; tensors in the memory of a live model, on the host or
 * on a CUDA device. tf_model_open_source() and tf_tokenizer_open_source() read it; tf_model_open() does so over a directory.
 *
 * @code
 * #include <fcntl.h>
 * #include <stdio.h>
 * #include <tfinfer/tfinfer.h>
 * #include <unistd.h>
 *
 * // Here the files of the folder `user`; they could be rows of a database, or bytes in memory: out->data and out->size.
 * static tf_status give_file(void *user, const char *name, tf_file *out)
 * {
 *     char path[512];
 *     snprintf(path, sizeof path, "%s/%s", (const char *)user, name);
 *     return (out->fd = open(path, O_RDONLY)) < 0 ? TF_STATUS_NOT_FOUND : TF_STATUS_OK;
 * }
 *
 * static void take_file(void *user, const tf_file *file)
 * {
 *     (void)user;
 *     close(file->fd);
 * }
 *
 * int main(int argc, char **argv)
 * {
 *     tf_source source;
 *     tf_model *model;
 *
 *     if (argc < 2) return 2;
 *     tf_source_init(&source);
 *     source.file = give_file;
 *     source.file_close = take_file;
 *     source.user = argv[1];
 *     if (tf_model_open_source(&source, NULL, &model) < 0) return fprintf(stderr, "%s\n", tf_last_error()), 1;
 *     puts("open");
 *     tf_model_close(model);
 *     return 0;
 * }
 * @endcode
 */
#ifndef TFINFER_SOURCE_H
#define TFINFER_SOURCE_H

#include <tfinfer/base.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Number format of weights and activations. */
typedef enum tf_dtype {
    TF_DTYPE_AUTO = 0, /**< GPU: what is stored (fp16 for bf16 that it lacks). CPU: bf16 for a 16-bit checkpoint where the processor
                            has bf16 instructions, else fp32 */
    TF_DTYPE_FP32 = 1,
    TF_DTYPE_TF32 = 2, /**< not in this version: TF_STATUS_UNSUPPORTED */
    TF_DTYPE_BF16 = 3,
    TF_DTYPE_FP16 = 4,
    TF_DTYPE_FP64 = 5 /**< of stored tensors alone */
} tf_dtype;

/** The most dimensions a tf_tensor can have. */
enum { TF_RANK_MAX = 8 };

/** One file: `size` bytes at `data`, or at `offset` of the open file `fd`. */
typedef struct tf_file {
    uint64_t struct_size;
    const void *data;  /**< the bytes, kept as they are until file_close; unset: they are in fd. Of an empty file any pointer */
    int64_t size;      /**< bytes; unset, of an fd alone: all from `offset` to the end */
    int64_t offset;    /**< in fd, any number of bytes; unset: 0 */
    int32_t fd;        /**< a regular file's descriptor, open for reading. The bytes are mapped, which needs no descriptor any more */
    int32_t reserved;  /**< leave unset */
    void *handle;      /**< anything: for file_close to find what it takes back */
    const char *error; /**< where the callback fails: why, for tf_last_error(); read at once. NULL: the status says it all */
} tf_file;

/** One tensor, wherever it lies. */
typedef struct tf_tensor {
    uint64_t struct_size;
    const char *name;            /**< as the checkpoint's files would have it, NUL-terminated; copied at once */
    const void *data;            /**< element [0, 0, ...], at any alignment; NULL only if there are no elements */
    int32_t dtype;               /**< tf_dtype: FP32, BF16, FP16 or FP64 */
    int32_t rank;                /**< dimensions, in [0, TF_RANK_MAX] */
    int64_t shape[TF_RANK_MAX];  /**< [rank] each >= 0 */
    int64_t stride[TF_RANK_MAX]; /**< [rank] elements, not bytes, from one to the next; each >= 0. All unset: row-major, contiguous */
    int32_t device;              /**< ordinal of the CUDA device whose memory `data` is in; unset: the host's memory */
    int32_t reserved;            /**< leave unset */
    const char *error;           /**< as in tf_file */
} tf_tensor;

/**
 * Files and tensors of one checkpoint. `file` and `tensor` are called on the thread that is inside the call which opens, and not after
 * it; they must not call back into the library. The structs they fill come with struct_size set by the library and every other
 * field unset (a host that knows more fields than struct_size has room for leaves those alone).
 * What they return other than OK ends the opening with that status, and with the text in `error`, but for the two answers named below.
 */
typedef struct tf_source {
    uint64_t struct_size;
    const char *label; /**< what error texts call it, such as a database's row; NULL: "source". Copied */

    /**
     * The file `name` of a Hugging Face directory: "config.json", "tokenizer.json", "1_Pooling/config.json", "model.safetensors" and
     * so on; which are asked for depends on those before, and one may be asked for more than once.
     * @return OK with `out` filled, NOT_FOUND where there is none, or a failure.
     */
    tf_status (*file)(void *user, const char *name, tf_file *out);

    /**
     * Takes back what `file` gave, filled as it was left: bytes in memory when they have been read, a descriptor as soon as it is mapped.
     * Once for each that was given, before the call that opens returns. NULL: nothing needs to be taken back.
     */
    void (*file_close)(void *user, const tf_file *file);

    /**
     * Tensor number `index`, counted from 0; asked for in order, maybe more than once. The same memory under two names is one tied
     * weight. Names not needed do no harm; tensors of integers are to be left out. Those of a folder that modules.json names (a
     * dense layer of sentence-transformers) have it in front: "2_Dense/linear.weight".
     * @return OK with `out` filled, END behind the last, or a failure.
     * NULL, or END at once: the tensors are read from the files model.safetensors and its like.
     */
    tf_status (*tensor)(void *user, int64_t index, tf_tensor *out);

    /**
     * Called once, when nothing of the source is needed any more: neither memory of its tensors nor callbacks nor `user`. With `borrow`
     * that is when the last handle of the model closes, on its thread; otherwise, or where opening fails, before that call returns.
     * Only a source with a wrong struct_size, which cannot be read, is not released. NULL: nothing to do.
     */
    void (*release)(void *user);

    void *user;       /**< for the callbacks */
    int32_t borrow;   /**< 1: tensors stay as they are until `release`, and those that have the right format and order already (on the CPU
                           embedding tables, biases and norms) are used where they lie; 0: all are copied. Unset: 0 */
    int32_t reserved; /**< leave unset */
} tf_source;

static inline void tf_source_init(tf_source *s)
{
    s->struct_size = sizeof *s;
    s->label = NULL;
    s->file = NULL;
    s->file_close = NULL;
    s->tensor = NULL;
    s->release = NULL;
    s->user = NULL;
    s->borrow = TF_UNSET;
    s->reserved = TF_UNSET;
}

#ifdef __cplusplus
}
#endif
#endif
