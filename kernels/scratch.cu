/* scratch.cu: what the kernels' files have in common on the host: how much scratch each op's launch may use (a program has one piece, as
 * large as the largest), and the list of the files. */
#include "launch.h"

tfi_kernel_file *tfi_kernel_files; /* each file puts itself in: start.cuh */

extern "C" int64_t tfi_cuda_scratch(const tfi_graph *, const tfi_op *op, const int64_t *limits)
{
    if (op->kind == TFI_OP_BEAM_STEP) return tfi_cuda_beam_step_scratch(limits[TFI_ROWS_SEQUENCES]);
    if (op->kind != TFI_OP_ATTENTION) return 0;
    return tfi_cuda_attention_scratch(op->attend, limits[TFI_ROWS_SEQUENCES], op->heads, op->head_size);
}
