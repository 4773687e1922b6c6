/* The CUDA backend: device memory, cuBLASLt for LINEAR, kernels of our own (kernels/) for the rest. This header is all that
 * others see and asks for no toolkit; in a build without CUDA cuda_absent.c stands in its place. */
#ifndef TFI_BACKEND_CUDA_H
#define TFI_BACKEND_CUDA_H

#include "backend/backend.h"

typedef struct tfi_cuda_options {
    tfi_memory *memory;         /* of the backend itself; outlives it */
    int device;                 /* number of the device */
    int threads;                /* host threads that cast weights */
    const char *library_folder; /* where libcublasLt lies; NULL: the usual search. Not kept */
    int no_timing;              /* take the matrix library's first suggestion instead of timing several */
    const char *gemm_file;      /* where choices between its suggestions are kept; NULL: nowhere. Copied */
    tf_log_fn log;              /* of what is wrong with that file; may be NULL */
    void *log_user;
} tfi_cuda_options;

/* UNSUPPORTED, saying what is missing: a driver, a device, one that is new enough, libcublasLt; NOMEM, DEVICE. */
tf_status tfi_cuda_open(const tfi_cuda_options *options, tfi_backend **out);

/* Copy from the memory of a CUDA device to the host's, whatever the model runs on. UNSUPPORTED, saying what is missing; DEVICE.
 */
tf_status tfi_cuda_read(int ordinal, void *to, const void *from, size_t bytes);

#endif
