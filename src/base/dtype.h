/* Element types and the conversions between them. */
#ifndef TFI_BASE_DTYPE_H
#define TFI_BASE_DTYPE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef enum tfi_dtype {
    TFI_F32, TFI_BF16, TFI_F16, TFI_F64, /* what weights may be stored as; graphs use F32, BF16, F16 */
    TFI_I64, TFI_I32, TFI_I16, TFI_I8, TFI_U8, TFI_BOOL,
    TFI_DTYPE_COUNT
} tfi_dtype;

static inline size_t tfi_dtype_size(tfi_dtype t)
{
    static const uint8_t sizes[TFI_DTYPE_COUNT] = {4, 2, 2, 8, 8, 4, 2, 1, 1, 1};
    return sizes[t];
}

static inline const char *tfi_dtype_name(tfi_dtype t)
{
    static const char *const names[TFI_DTYPE_COUNT] = {"fp32", "bf16", "fp16", "fp64", "int64",
                                                       "int32", "int16", "int8", "uint8", "bool"};
    return names[t];
}

static inline float tfi_bf16_to_f32(uint16_t h)
{
    const uint32_t bits = (uint32_t)h << 16;
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

/* Round to nearest, ties to even; NaN stays NaN. */
static inline uint16_t tfi_f32_to_bf16(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
}

static inline float tfi_f16_to_f32(uint16_t h)
{
    const uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = h >> 10 & 31, mantissa = h & 0x3ff;
    uint32_t bits;
    float f;

    if (exponent == 31) {
        bits = sign | 0x7f800000u | mantissa << 13;
    } else if (exponent != 0) {
        bits = sign | (exponent + 112) << 23 | mantissa << 13;
    } else { /* subnormal: mantissa * 2^-24, exact in fp32 */
        f = (float)mantissa * 0x1p-24f;
        memcpy(&bits, &f, sizeof bits);
        bits |= sign;
    }
    memcpy(&f, &bits, sizeof f);
    return f;
}

/* Round to nearest, ties to even; too large becomes infinite, NaN stays NaN. Without branches, so that loops over it vectorise. */
static inline uint16_t tfi_f32_to_f16(float f)
{
    uint32_t bits, magnitude, small;
    float aligned;

    memcpy(&bits, &f, sizeof bits);
    magnitude = bits & 0x7fffffffu;
    memcpy(&aligned, &magnitude, sizeof aligned);
    aligned += 0.5f; /* moves the last bit of an fp16 subnormal to the last bit of the sum, rounded as the sum is */
    memcpy(&small, &aligned, sizeof small);
    const uint32_t normal = (magnitude - 0x38000000u + 0xfffu + (magnitude >> 13 & 1)) >> 13;
    const uint32_t special = magnitude > 0x7f800000u ? 0x7e00u : 0x7c00u;
    const uint32_t finite = magnitude < 0x38800000u ? small - 0x3f000000u : normal;
    return (uint16_t)((bits >> 16 & 0x8000u) | (magnitude >= 0x47800000u ? special : finite));
}

#endif
