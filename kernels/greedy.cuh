/* What GREEDY (greedy.cu) and products of logits that look for the best themselves (few_wgmma.cu) agree on. */
#ifndef TFI_KERNELS_GREEDY_CUH
#define TFI_KERNELS_GREEDY_CUH

#include "draw.cuh"

/* Whether a sequence of `count` tokens may get an end token. */
__device__ inline bool may_end(const tfi_sampling &s, int32_t count)
{
    return count >= s.min_length && count - s.prompt >= s.min_new_tokens;
}

/* Of any part of a row: the highest key of all parts names the token. most: of all logits, NaN if one is; best: of those that
 * may be drawn, and its lowest id. All bits set: the row is invalid. Of a row of -infinity alone it is the first. */
__device__ inline uint64_t greedy_key(float most, float best, uint32_t id)
{
    return is_invalid(most) ? ~(uint64_t)0 : low_first(best, best > -CUDART_INF_F ? id : 0);
}

#endif
