/* A device from inside the backend: who may call it, its memory, what its parts share. */
#ifndef TFI_BACKEND_CUDA_DEVICE_H
#define TFI_BACKEND_CUDA_DEVICE_H

#include <pthread.h>
#include <cuda_runtime_api.h>
#include <stdatomic.h>
#include <sys/types.h>

#include "backend/backend.h"
#include "backend/cuda/libraries.h"
#include "backend/host_ops.h"
#include "base/thread_pool.h"

typedef struct tfi_gemm tfi_gemm;

typedef struct tfi_cuda {
    tfi_backend base; /* first: a tfi_backend is a tfi_cuda */
    char name[16];
    tfi_memory *memory;
    pid_t process;  /* a child of fork cannot use the device */
    int device;     /* the driver's handle */
    int capability; /* 90 for 9.0 */
    int multiprocessors;
    void *context; /* the device's primary one */
    tfi_cuda_driver driver;
    tfi_cublas_lt lt;
    tfi_gemm *gemm;
    tfi_pool *pool; /* casts weights */
    char *staging;  /* [2, TFI_CUDA_STAGING] pinned, while weights load */
    cudaStream_t upload;
    cudaEvent_t uploaded[2];
    int turn;         /* the half that is being filled */
    int64_t filled;   /* bytes of it */
    _Atomic int dead; /* a fault that the device does not recover from */
} tfi_cuda;

enum { TFI_CUDA_STAGING = 32 << 20, TFI_CUDA_ALIGN = 256 };

/* Make the device current on this thread, until tfi_cuda_leave(), which gives back what was. FORKED in a child process; DEVICE
 * after a fault that stays. */
tf_status tfi_cuda_enter(tfi_cuda *c);
void tfi_cuda_leave(const tfi_cuda *c);

/* OK, or NOMEM or DEVICE with the call's name and CUDA's words. The error is taken off the thread's state. */
tf_status tfi_cuda_check(tfi_cuda *c, cudaError_t error, const char *call);
#define TFI_CUDA(c, call) tfi_cuda_check(c, call, #call)

/* Device memory counts against the budget of `memory`, and so does the pinned kind; enter first. NULL with the last error set.
 */
void *tfi_cuda_alloc(tfi_cuda *c, tfi_memory *memory, int64_t bytes);
void tfi_cuda_free(tfi_cuda *c, tfi_memory *memory, void *p, int64_t bytes);
void *tfi_cuda_alloc_pinned(tfi_cuda *c, tfi_memory *memory, int64_t bytes);
void tfi_cuda_free_pinned(tfi_cuda *c, tfi_memory *memory, void *p, int64_t bytes);

static inline int64_t tfi_cuda_aligned(int64_t bytes)
{
    return (bytes + TFI_CUDA_ALIGN - 1) / TFI_CUDA_ALIGN * TFI_CUDA_ALIGN;
}

/* weight.c */
tf_status tfi_cuda_weight_form(tfi_backend *b, const tfi_weight *w, tfi_weight_form *form);
tf_status tfi_cuda_weight_prepare(tfi_backend *b, const tfi_weight *w, const tfi_weight_form *form, const tfi_load_hook *hook);
tf_status tfi_cuda_weight_copy(tfi_backend *b, const tfi_weight *w, const tfi_weight_form *form, int *done);
tf_status tfi_cuda_load_end(tfi_backend *b);
uint16_t tfi_cuda_round(tfi_dtype dtype, float f); /* to BF16 or F16 */

/* code.c */
/* NOMEM: less of the device's memory is free than the code of kernels that are used for the first time may take. */
tf_status tfi_cuda_code_room(tfi_cuda *c);
/* The code of all our kernels onto the device, which is entered; NOMEM. */
tf_status tfi_cuda_load_code(tfi_cuda *c);

/* store.c */
typedef struct tfi_cuda_store {
    tfi_store base; /* first; its blocks and slots are the device's */
    tfi_cuda *cuda;
    int64_t block_bytes, own_bytes;
    pthread_mutex_t lock;  /* slots are set while a run of other slots is under way */
    tfi_slot *host;        /* [slots] the caller's records, kept up to date with what runs drew */
    char *small;           /* device: records of slots that are small, side by side */
    char **records;        /* [slots] device: sampling, its lists, beams and tokens of the slot; kept for the next sequence */
    int64_t *room;         /* [slots] bytes of it */
    int64_t *from_reserve; /* [slots] of those, what came off the reserve */
    int64_t reserve;       /* bytes counted against the budget that records have not taken yet */
    int32_t **tokens;      /* [slots] device: history of the slot as it was set */
    tfi_beams **beams;     /* [slots] device */
    int8_t *dirty;         /* [slots] host record to be uploaded before the next run */
    int any_dirty;
} tfi_cuda_store;

tf_status tfi_cuda_store_open(tfi_backend *b, const tfi_store_shape *shape, tfi_memory *memory, tfi_store **out);
int64_t tfi_cuda_store_bytes(tfi_backend *b, const tfi_store_shape *shape);
void tfi_cuda_store_close(tfi_store *s);
void tfi_cuda_slot_set(tfi_store *s, int32_t slot, const tfi_slot *record);
/* Bring what slot_set changed to the device, in order of the stream; NOMEM. */
tf_status tfi_cuda_store_upload(tfi_cuda_store *s, cudaStream_t stream);
/* After a step of beam search that was done on the host: its slots' tokens, counts and scores to the device. */
tf_status tfi_cuda_store_renew(tfi_cuda_store *s, int32_t slot, cudaStream_t stream);

/* program.c */
tf_status tfi_cuda_program_open(tfi_backend *b, const tfi_graph *g, const tfi_weight_form *forms,
                                const int64_t limits[TFI_LIMIT_COUNT], tfi_memory *memory, tfi_program **out);
tf_status tfi_cuda_program_bytes(tfi_backend *b, const tfi_graph *g, const int64_t limits[TFI_LIMIT_COUNT], int64_t *bytes);
void tfi_cuda_program_close(tfi_program *p);
tf_status tfi_cuda_run(tfi_program *p, const tfi_run *run);
tf_status tfi_cuda_wait(tfi_program *p, const tfi_run *run);

#endif
