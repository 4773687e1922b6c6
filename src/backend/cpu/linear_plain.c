/* LINEAR's second half in plain C, for processors without AVX2, and the choice between the tiers. */
#include <math.h>
#include <string.h>

#include "backend/cpu/linear.h"
#include "backend/rows.h"

static float activate(float x, tfi_activation activation)
{
    switch (activation) {
    case TFI_ACT_RELU:
        return x < 0 ? 0 : x;
    case TFI_ACT_GELU:
        return 0.5f * x * erfcf(x * -0.707106781f);
    case TFI_ACT_GELU_TANH:
        return x / (1 + expf(-1.59576912f * (x + 0.044715f * x * x * x)));
    case TFI_ACT_SILU:
        return x / (1 + expf(-x));
    case TFI_ACT_TANH:
        return tanhf(x);
    case TFI_ACT_SIGMOID:
        return 1 / (1 + expf(-x));
    case TFI_ACT_NONE:
    case TFI_ACT_COUNT:
        break;
    }
    return x;
}

TFI_INLINE void finish(const tfi_linear_tile *t, tfi_activation activation, tfi_dtype y)
{
    for (int64_t r = 0; r < t->rows; r++) {
        for (int64_t c = 0; c < t->cols; c++) {
            float v = t->sums[r * t->stride + c];
            if (t->bias) v += t->bias[c];
            v = activate(v, activation);
            if (t->residual) v += tfi_get(t->residual, y, r * t->y_stride + c);
            tfi_put(t->y, y, r * t->y_stride + c, v);
        }
    }
}

static void pack(const void *rows, int64_t row_bytes, int64_t units, uint32_t *out)
{
    for (int64_t u = 0; u < units; u++)
        for (int64_t row = 0; row < TFI_BLOCK; row++)
            memcpy(out + u * TFI_BLOCK + row, (const char *)rows + row * row_bytes + u * 4, 4);
}

static void round_floats(const void *floats, int64_t n, uint16_t *out)
{
    for (int64_t i = 0; i < n; i++) {
        float f;
        memcpy(&f, (const char *)floats + 4 * i, sizeof f);
        out[i] = tfi_f32_to_bf16(f);
    }
}

static void few(const void *x, int64_t rows, int64_t K, const uint32_t *block, const uint32_t *then, float *sums)
{
    (void)then;
    for (int64_t r = 0; r < rows; r++) {
        for (int64_t c = 0; c < TFI_BLOCK; c++) {
            double sum = 0;
            for (int64_t k = 0; k < K; k++) {
                float w;
                memcpy(&w, block + k * TFI_BLOCK + c, sizeof w);
                sum += (double)tfi_get(x, TFI_F32, r * K + k) * (double)w;
            }
            sums[r * TFI_BLOCK + c] = (float)sum;
        }
    }
}

void tfi_few_bf16_plain(const void *x, int64_t rows, int64_t K, const uint32_t *block, const uint32_t *then, float *sums)
{
    (void)then;
    for (int64_t r = 0; r < rows; r++) {
        for (int64_t c = 0; c < TFI_BLOCK; c++) {
            double sum = 0;
            for (int64_t k = 0; k < K; k++) {
                const uint32_t unit = block[k / 2 * TFI_BLOCK + c];
                sum += (double)tfi_get(x, TFI_BF16, r * K + k) * (double)tfi_bf16_to_f32((uint16_t)(k % 2 ? unit >> 16 : unit));
            }
            sums[r * TFI_BLOCK + c] = (float)sum;
        }
    }
}

#define FEW_BF16 tfi_few_bf16_plain
#include "backend/cpu/linear_table.h"

const tfi_linear_tier tfi_linear_plain = TIER;

const tfi_linear_tier *tfi_linear_tier_for(unsigned features)
{
#if defined(__x86_64__)
    if (features & TFI_CPU_AVX512) return &tfi_linear_avx512;
    if (features & TFI_CPU_AVX2) return &tfi_linear_avx2;
#else
    (void)features;
#endif
    return &tfi_linear_plain;
}
