/* LINEAR of few rows: taken by the matrix library until a kernel is here. */
#include "few.cuh"

extern "C" int tfi_cuda_few_fits(const tfi_few_args *a, int capability)
{
    return a->M > 8 && tfi_few_tiles_fits(a, capability);
}

extern "C" tf_status tfi_cuda_few(const tfi_cuda_launch *l, const tfi_few_args *a, tfi_rows rows)
{
    return tfi_cuda_few_tiles(l, a, rows);
}
