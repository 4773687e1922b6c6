/* Activations of GLU and of what follows a matrix product, in fp32. */
#ifndef TFI_KERNELS_ACTIVATION_CUH
#define TFI_KERNELS_ACTIVATION_CUH

#include "backend/ops.h"

__device__ inline float activate(tfi_activation activation, float v)
{
    switch (activation) {
    case TFI_ACT_RELU:
        return v < 0 ? 0 : v; /* and a NaN stays */
    case TFI_ACT_GELU:
        return 0.5f * v * erfcf(v * -0.70710678118654752f); /* 1 + erff() would lose the digits of small results */
    case TFI_ACT_GELU_TANH:                                 /* (1 + tanh(u)) / 2 = 1 / (1 + exp(-2 u)) */
        return v / (1 + expf(-1.5957691216057308f * (v + 0.044715f * v * v * v)));
    case TFI_ACT_SILU:
        return v / (1 + expf(-v));
    case TFI_ACT_TANH:
        return tanhf(v);
    case TFI_ACT_SIGMOID:
        return 1 / (1 + expf(-v));
    default:
        return v;
    }
}

#endif
