/* A tier of LINEAR's second half over the vector layer included before: see tfi_linear_tier. */
#include "backend/cpu/linear.h"

#include <string.h>

#include "backend/cpu/vec_typed.h"

#include "backend/cpu/activation_tmpl.h"

TFI_INLINE void finish(const tfi_linear_tile *t, tfi_activation activation, tfi_dtype y)
{
    for (int64_t r = 0; r < t->rows; r++) {
        const float *sums = t->sums + r * t->stride;
        for (int64_t c = 0; c < t->cols; c += VEC) {
            const int64_t n = t->cols - c < VEC ? t->cols - c : VEC;
            vec v = vec_load(sums + c);
            if (t->bias) v = v + load_n(t->bias, TFI_F32, c, n);
            v = activate(v, activation);
            if (t->residual) v = v + load_n(t->residual, y, r * t->y_stride + c, n);
            store_n(t->y, y, r * t->y_stride + c, v, n);
        }
    }
}

static void pack(const void *rows, int64_t row_bytes, int64_t units, uint32_t *out)
{
    const char *from = rows;
    int64_t u = 0;

    for (; u + VEC <= units; u += VEC) {
        for (int64_t row = 0; row < TFI_BLOCK; row += VEC) {
            vec v[VEC];
            for (int i = 0; i < VEC; i++) v[i] = vec_load((const float *)(const void *)(from + (row + i) * row_bytes + u * 4));
            vec_transpose(v);
            for (int i = 0; i < VEC; i++) vec_store((float *)(out + (u + i) * TFI_BLOCK + row), v[i]);
        }
    }
    for (; u < units; u++)
        for (int64_t row = 0; row < TFI_BLOCK; row++) memcpy(out + u * TFI_BLOCK + row, from + row * row_bytes + u * 4, 4);
}

static void round_floats(const void *floats, int64_t n, uint16_t *out)
{
    for (int64_t i = 0; i < n; i += VEC) {
        const int64_t some = n - i < VEC ? n - i : VEC;
        store_n(out, TFI_BF16, i, load_n(floats, TFI_F32, i, some), some);
    }
}

#include "backend/cpu/operand_f32.h"

#include "backend/cpu/few_tmpl.h"

#include "backend/cpu/linear_table.h"
