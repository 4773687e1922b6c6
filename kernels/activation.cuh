/* Activations of GLU and of what follows a matrix product, in fp32, in few instructions: erff() and expf() would take longer
 * than the bytes. Errors are below 2.5e-7 of the larger of 1 and the argument (GELU's below 1.3e-7), and below 4e-6 of results
 * of 1e-6 or more. */
#ifndef TFI_KERNELS_ACTIVATION_CUH
#define TFI_KERNELS_ACTIVATION_CUH

#include "backend/ops.h"

/* 2^v; at most 2 units in the last place off, nothing below 2^-126. */
__device__ inline float exp2_fast(float v)
{
    float r;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(v));
    return r;
}

__device__ inline float logistic(float v)
{
    float r;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(1 + exp2_fast(-1.4426950408889634f * v)));
    return r;
}

__device__ inline float relu(float v)
{
#if __CUDA_ARCH__ >= 800
    asm("max.NaN.f32 %0, %0, 0f00000000;" : "+f"(v));
    return v;
#else
    return v < 0 ? 0 : v; /* and a NaN stays */
#endif
}

/* v Phi(v) = max(v, 0) - a Phi(-a), a = |v|. log2 Phi(-a) + 1 is close to a polynomial: this one is the best for errors of a
 * Phi(-a) up to 5.5, with relative ones held to 1e-6 up to 5. From 6 on nothing of it is left in the sum. */
__device__ inline float gelu(float v)
{
    const float a = fminf(fabsf(v), 8);
    float p = 1.05643437e-07f;

    p = fmaf(p, a, -2.6742598e-06f);
    p = fmaf(p, a, 2.64031551e-05f);
    p = fmaf(p, a, -9.92547284e-05f);
    p = fmaf(p, a, -0.000396828138f);
    p = fmaf(p, a, 0.00746968156f);
    p = fmaf(p, a, -0.0528294779f);
    p = fmaf(p, a, -0.459078223f);
    p = fmaf(p, a, -1.15112293f);
    p = fmaf(p, a, -1.0f);
    return fmaf(-a, exp2_fast(p), relu(v));
}

/* For a result that is rounded to 16 bits: 2e-5 of it, down to 1e-6. */
__device__ inline float gelu_for_half(float v)
{
    const float a = fminf(fabsf(v), 8);
    float p = 2.88097144e-05f;

    p = fmaf(p, a, -0.000700606382f);
    p = fmaf(p, a, 0.00771024264f);
    p = fmaf(p, a, -0.0525470525f);
    p = fmaf(p, a, -0.459637761f);
    p = fmaf(p, a, -1.15090954f);
    p = fmaf(p, a, -1.0f);
    return fmaf(-a, exp2_fast(p), relu(v));
}

#if __CUDA_ARCH__ >= 800
/* Two of them in fp16 all the way, in ten instructions: results are off by a tenth more than their rounding makes them, those of
 * negative numbers by 6e-4 of their norm. */
__device__ inline uint32_t gelu_of_halves(uint32_t v)
{
    uint32_t result;
    asm("{\n\t.reg .b32 a, p, rest;\n\t"
        "abs.f16x2 a, %1;\n\t"
        "min.f16x2 a, a, %2;\n\t"
        "max.NaN.f16x2 rest, %1, %3;\n\t"
        "fma.rn.f16x2 p, a, %4, %5;\n\t"
        "fma.rn.f16x2 p, p, a, %6;\n\t"
        "fma.rn.f16x2 p, p, a, %7;\n\t"
        "fma.rn.f16x2 p, p, a, %8;\n\t"
        "ex2.approx.f16x2 p, p;\n\t"
        "neg.f16x2 a, a;\n\t"
        "fma.rn.f16x2 %0, a, p, rest;\n\t}"
        : "=r"(result)
        : "r"(v), "r"(0x45804580u), "r"(0u), "r"(0x1b661b66u), "r"(0xa98aa98au), "r"(0xb77eb77eu), "r"(0xbc98bc98u),
          "r"(0xbc00bc00u)); /* 5.5, 0, 0.003612, -0.04329, -0.4682, -1.148, -1 */
    return result;
}
#endif

__device__ inline float gelu_tanh(float v)
{
    const float v2 = v * v;
    return v * logistic(v * fmaf(1.5957691216057308f * 0.044715f, v2, 1.5957691216057308f)); /* (1 + tanh(u)) / 2 is it of 2u */
}

/* V values: which function is asked once. */
template <int V>
__device__ inline void activate(tfi_activation activation, float (&v)[V])
{
    switch (activation) {
    case TFI_ACT_RELU:
#pragma unroll
        for (int k = 0; k < V; k++) v[k] = relu(v[k]);
        return;
    case TFI_ACT_GELU:
#pragma unroll
        for (int k = 0; k < V; k++) v[k] = gelu(v[k]);
        return;
    case TFI_ACT_GELU_TANH:
#pragma unroll
        for (int k = 0; k < V; k++) v[k] = gelu_tanh(v[k]);
        return;
    case TFI_ACT_SILU:
#pragma unroll
        for (int k = 0; k < V; k++) v[k] *= logistic(v[k]);
        return;
    case TFI_ACT_TANH:
#pragma unroll
        for (int k = 0; k < V; k++) v[k] = tanhf(v[k]);
        return;
    case TFI_ACT_SIGMOID:
#pragma unroll
        for (int k = 0; k < V; k++) v[k] = logistic(v[k]);
        return;
    default:
        return;
    }
}

/* One after the other: the table of a switch would come from memory each time a kernel starts. */
__device__ inline float activate(tfi_activation activation, float v)
{
    if (activation == TFI_ACT_NONE) return v;
    if (activation == TFI_ACT_RELU) return v < 0 ? 0 : v; /* and a NaN stays */
    if (activation == TFI_ACT_GELU_TANH)                  /* (1 + tanh(u)) / 2 = 1 / (1 + exp(-2 u)) */
        return v / (1 + expf(-1.5957691216057308f * (v + 0.044715f * v * v * v)));
    if (activation == TFI_ACT_GELU) return 0.5f * v * erfcf(v * -0.70710678118654752f); /* 1 + erff() would lose digits of */
    if (activation == TFI_ACT_SILU) return v / (1 + expf(-v));                          /* small results */
    if (activation == TFI_ACT_TANH) return tanhf(v);
    return 1 / (1 + expf(-v)); /* sigmoid */
}

#endif
