/* Row counts that programs are prepared for: a run's counts are rounded up, so that few shapes are met, whose products were
 * timed and whose launches were captured before. */
#ifndef TFI_BACKEND_CUDA_BUCKETS_H
#define TFI_BACKEND_CUDA_BUCKETS_H

#include <stdint.h>

/* Powers of two to 16, then eight steps to a doubling (at least 16 rows): at most an eighth more from 128 on. */
static inline int64_t tfi_bucket(int64_t n)
{
    int64_t power = 1, step;

    if (n <= 0) return 0;
    while (power < n) power *= 2;
    if (power <= 16) return power;
    step = power / 16 > 16 ? power / 16 : 16;
    return (n + step - 1) / step * step;
}

static inline int64_t tfi_power_of_two(int64_t n)
{
    int64_t power = n > 0 ? 1 : 0;

    while (power < n) power *= 2;
    return power;
}

#endif
