/* Greedy draws: done op by op until a kernel is here. */
#include "start.cuh"

extern "C" int tfi_cuda_is_greedy(const tfi_sampling *)
{
    return 0;
}

extern "C" tf_status tfi_cuda_greedy(const tfi_cuda_launch *, const tfi_draw_args *)
{
    return TF_STATUS_UNSUPPORTED;
}
