/* Which tier serves an op on this processor, found out once: the reference, AVX2 or AVX-512. Other architectures have the
 * reference alone. */
#include "backend/cpu/tiers.h"
#include "backend/ref/ref.h"

#if defined(__x86_64__)
#include <cpuid.h>

static int has_f16c(void)
{
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}

unsigned tfi_cpu_features(void)
{
    unsigned features = 0;

    __builtin_cpu_init(); /* asks the operating system too: wide registers count only where it saves them */
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c()) features |= TFI_CPU_AVX2;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl"))
        features |= TFI_CPU_AVX512;
    if ((features & TFI_CPU_AVX512) && __builtin_cpu_supports("avx512bf16")) features |= TFI_CPU_AVX512_BF16;
    return features;
}

tfi_host_fn tfi_cpu_resolve(tfi_op_kind kind, tfi_op_types types, unsigned features)
{
    const tfi_host_fn plain = tfi_ref_resolve(kind, types);
    tfi_host_fn fn = NULL;

    if (!plain) return NULL;
    if (features & TFI_CPU_AVX512_BF16) fn = tfi_avx512_bf16_resolve(kind, types);
    if (!fn && (features & TFI_CPU_AVX512)) fn = tfi_avx512_resolve(kind, types);
    if (!fn && (features & TFI_CPU_AVX2)) fn = tfi_avx2_resolve(kind, types);
    return fn ? fn : plain;
}

#else

unsigned tfi_cpu_features(void)
{
    return 0;
}

tfi_host_fn tfi_cpu_resolve(tfi_op_kind kind, tfi_op_types types, unsigned features)
{
    (void)features;
    return tfi_ref_resolve(kind, types);
}

#endif

int64_t tfi_host_scratch(const tfi_graph *g, const tfi_op *op, int64_t max_rows, int64_t max_tokens)
{
    if (op->kind == TFI_OP_BEAM_STEP) return tfi_ref_beam_step_scratch();
    if (op->kind == TFI_OP_LOGITS_PROCESS) return tfi_ref_process_scratch(g->values[op->x].cols);
    if (op->kind != TFI_OP_ATTENTION) return 0;
    const int stored = op->attend == TFI_ATTEND_CACHE || op->attend == TFI_ATTEND_SOURCE;
    const int64_t keys = stored ? max_tokens : max_rows;
    const int64_t plain = tfi_ref_attention_scratch(keys), tiers = tfi_attention_scratch(keys, op->head_size);
    return plain > tiers ? plain : tiers;
}
