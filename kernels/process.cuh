/* LOGITS_PROCESS in parts: a block has this many logits of a row; what needs a whole row is done by the row's first block. */
#ifndef TFI_KERNELS_PROCESS_CUH
#define TFI_KERNELS_PROCESS_CUH

#include "draw.cuh"

enum { PROCESS_PART = 8192 };

tf_status tfi_cuda_constrain(const tfi_cuda_launch *l, const tfi_process_args *a);
tf_status tfi_cuda_warp(const tfi_cuda_launch *l, const tfi_process_args *a);

inline dim3 process_grid(const tfi_process_args *a)
{
    return dim3((unsigned)a->S, blocks_of(a->V, PROCESS_PART));
}

#ifdef __CUDACC__

/* y[i] = change(x[i]) for a part of a row. */
template <typename Change>
__device__ inline void copy_part(const float *x, float *y, int64_t begin, int64_t end, Change change)
{
    for_row(x + begin, end - begin, [&](uint32_t i, float v) { y[begin + i] = change(v); });
}

/* What is taken off each logit for log_softmax: the maximum, then this. NaN, as everything is then, for a row that has none. */
struct log_scale {
    float max, log_sum;
};

__device__ inline log_scale log_scale_of(const float *x, int64_t V, uint64_t *shared)
{
    const row_facts f = facts_of(x, V, shared);
    log_scale l = {score_of(f.best), CUDART_NAN_F};
    if (!f.invalid && l.max > -CUDART_INF_F) l.log_sum = (float)log(number_of_sum(sum_exp(x, V, l.max, shared)));
    return l;
}

#endif
#endif
