/* LOGITS_PROCESS: a row is a team's, or, where each logit stands for itself and a team is one block, that of as many blocks. */
#ifndef TFI_KERNELS_PROCESS_CUH
#define TFI_KERNELS_PROCESS_CUH

#include "team.cuh"

tf_status tfi_cuda_constrain(const tfi_cuda_launch *l, const tfi_process_args *a);
tf_status tfi_cuda_warp(const tfi_cuda_launch *l, const tfi_process_args *a);

/* How many blocks a row has. */
inline unsigned process_parts(const tfi_cuda_launch *l, const tfi_process_args *a, int room)
{
    return l->capability >= 90 ? team_size(l, a->S, room) : (unsigned)TEAM_MAX;
}

#ifdef __CUDACC__

/* What is taken off each logit for log_softmax: the maximum, then this. NaN, as everything is then, for a row that has none. */
struct log_scale {
    float max, log_sum;
};

__device__ inline log_scale log_scale_of(team &t, const float *x, part p)
{
    const row_facts f = team_facts(t, own_facts(x, p));
    log_scale l = {score_of(f.best), CUDART_NAN_F};
    if (!f.invalid && l.max > -CUDART_INF_F) l.log_sum = (float)log(number_of_sum(sum_exp(t, x, p, l.max)));
    return l;
}

#endif
#endif
