/* LINEAR of 9 to 64 rows: taken by the matrix library until a kernel is here. */
#include "few.cuh"

bool tfi_few_tiles_fits(const tfi_few_args *, int)
{
    return false;
}

tf_status tfi_cuda_few_tiles(const tfi_cuda_launch *, const tfi_few_args *, tfi_rows)
{
    return TF_STATUS_UNSUPPORTED;
}
