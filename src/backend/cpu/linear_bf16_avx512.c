/* Few rows of bf16 by pairs (AVX512_BF16); the packed bf16 form exists only where oneDNN, and so the processor, has these
 * instructions. They are asked for in this file, on top of the flags of the AVX-512 tier. */
#if defined(__AVX512F__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512bf16"))), apply_to = function)
#else
#pragma GCC target("avx512bf16")
#endif
#include <string.h>

#include "backend/cpu/vec_avx512.h"

#include "backend/cpu/linear.h"

#include "backend/cpu/operand_bf16.h"

#include "backend/cpu/few_tmpl.h"

void tfi_few_bf16_avx512(const void *x, int64_t rows, int64_t K, const uint32_t *block, const uint32_t *then, float *sums)
{
    few(x, rows, K, block, then, sums);
}

#if defined(__clang__)
#pragma clang attribute pop
#endif
#else
typedef int tfi_linear_bf16_avx512_is_not_here; /* ISO C wants a declaration in every file */
#endif
