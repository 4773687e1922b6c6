/* Matrix products through cuBLASLt: y = act(x W^T + bias) + residual as far as its epilogues have the right formula. */
#ifndef TFI_BACKEND_CUDA_GEMM_H
#define TFI_BACKEND_CUDA_GEMM_H

#include "backend/cuda/cuda.h"
#include "backend/cuda/device.h"

enum { TFI_GEMM_WORKSPACE = 32 << 20 };

typedef struct tfi_gemm_call {
    int64_t M, N, K;
    tfi_dtype type;            /* of x and the weight */
    tfi_dtype out;             /* of y, bias and residual */
    const void *x;             /* [M, K] */
    const void *w;             /* [N, K] */
    const void *bias;          /* [N] or NULL */
    const void *residual;      /* [M, N] or NULL; only without activation */
    void *y;                   /* [M, N] */
    tfi_activation activation; /* NONE, RELU, GELU_TANH */
    int may_time;              /* the stream is not being captured */
} tfi_gemm_call;

/* Reads the file of choices that the options name; closing writes it if there are new ones. */
tf_status tfi_gemm_open(tfi_cuda *c, const tfi_cuda_options *options, tfi_gemm **out);
void tfi_gemm_close(tfi_gemm *g);

/* Which way a call of this class is done, once and for all that follow: UNSUPPORTED if the library has no function for it (with
 * an epilogue: ask again without). Fills `workspace` and y when it times. */
tf_status tfi_gemm_run(tfi_gemm *g, const tfi_gemm_call *call, void *workspace, cudaStream_t stream);

#endif
