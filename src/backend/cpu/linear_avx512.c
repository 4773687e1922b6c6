/* LINEAR's second half for AVX-512. Empty where the compiler has no such instructions: nothing asks for it there. */
#if defined(__AVX512F__)
#include "backend/cpu/vec_avx512.h"

#define FEW_BF16 tfi_few_bf16_avx512
#include "backend/cpu/linear_tmpl.h"

const tfi_linear_tier tfi_linear_avx512 = TIER;
#else
typedef int tfi_linear_avx512_is_not_here; /* ISO C wants a declaration in every file */
#endif
