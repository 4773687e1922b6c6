/* LOGITS_PROCESS: what a request asks of its logits; what it computes: src/backend/ref/process.c. The two stages:
 * process_constrain.cu, process_warp.cu */
#include "process.cuh"

extern "C" tf_status tfi_cuda_process(const tfi_cuda_launch *l, const tfi_process_args *a)
{
    if (a->S == 0 || a->V == 0) return TF_STATUS_OK;
    return a->stage == TFI_PROCESS_CONSTRAIN ? tfi_cuda_constrain(l, a) : tfi_cuda_warp(l, a);
}
