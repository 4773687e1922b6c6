/* The AVX-512 tier. Compiled for that instruction set, so nothing in it may be shared with other files: all but the
 * one function is static. Empty where the compiler has no such instructions. */
#if defined(__AVX512F__)
#include "backend/cpu/vec_avx512.h"

#include "backend/cpu/tier_tmpl.h"

tfi_host_fn tfi_avx512_resolve(tfi_op_kind kind, tfi_op_types types)
{
    return tier_fn(kind, types);
}
#else
typedef int tfi_avx512_is_not_here; /* ISO C wants a declaration in every file */
#endif
