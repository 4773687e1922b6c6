/* LINEAR's second half for AVX2. Empty where the compiler has no such instructions: nothing asks for it there. */
#if defined(__AVX2__)
#include "backend/cpu/vec_avx2.h"

#define FEW_BF16 tfi_few_bf16_plain
#include "backend/cpu/linear_tmpl.h"

const tfi_linear_tier tfi_linear_avx2 = TIER;
#else
typedef int tfi_linear_avx2_is_not_here; /* ISO C wants a declaration in every file */
#endif
