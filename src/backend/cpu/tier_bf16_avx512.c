/* The AVX512_BF16 tier: attention on bf16 rows, the only op here that multiplies matrices. The instruction set is asked for in
 * this file, on top of the flags of the AVX-512 tier. */
#if defined(__AVX512F__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512bf16"))), apply_to = function)
#else
#pragma GCC target("avx512bf16")
#endif
#include "backend/cpu/vec_avx512.h"

#include "backend/cpu/tiers.h"

#include "backend/cpu/vec_typed.h"

#include "backend/cpu/operand_bf16.h"

#include "backend/cpu/attention_tmpl.h"

TFI_TYPED(attention_bf16_f32, attention, TFI_BF16, TFI_F32, TFI_F32)
TFI_TYPED(attention_bf16_bf16, attention, TFI_BF16, TFI_F32, TFI_BF16)

tfi_host_fn tfi_avx512_bf16_resolve(tfi_op_kind kind, tfi_op_types types)
{
    if (kind != TFI_OP_ATTENTION || types.x != TFI_BF16) return NULL;
    return types.y == TFI_BF16 ? attention_bf16_bf16 : attention_bf16_f32;
}

#if defined(__clang__)
#pragma clang attribute pop
#endif
#else
typedef int tfi_avx512_bf16_is_not_here; /* ISO C wants a declaration in every file */
#endif
