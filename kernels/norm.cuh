/* From a row's sums to its norm. */
#ifndef TFI_KERNELS_NORM_CUH
#define TFI_KERNELS_NORM_CUH

#include "backend/ops.h"

/* y = (difference - shift) * factor * gain + bias, difference being z less the first mean, which is off by its rounding. */
struct norm_statistics {
    float shift, factor;
};

/* sums: of the differences and their squares. A NaN stays: fmaxf alone would give 0 for it. */
__device__ inline norm_statistics statistics_of(const tfi_norm_args &a, float2 sums)
{
    const float n = (float)a.E;
    norm_statistics s;

    s.shift = a.norm == TFI_NORM_LAYER ? sums.x / n : 0;
    s.factor = isnan(sums.y) ? sums.y : 1 / sqrtf(fmaxf(sums.y / n - s.shift * s.shift, 0) + a.eps);
    return s;
}

#endif
