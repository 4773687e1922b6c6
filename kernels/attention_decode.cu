/* Attention of sequences that have one row, from the store; what it computes: src/backend/ref/attention.c
 *
 * Shapes    q [H*D] a sequence; keys and values in blocks of 16 tokens (kernels/kv.cuh) of one type; softmax and sums in fp32
 * Parallel  a block of 4 warps for each (sequence, head, split of its keys). A warp takes whole blocks of the store, 8 lanes a
 *           key, 16 bytes a lane, keys and values of 16 tokens under way at once. 8-lane groups have a softmax of their own and
 *           meet at the end: by shuffles, then through shared memory, then over the splits: in a cluster through distributed
 *           shared memory (from 9.0 on), else through scratch and a second kernel. Splits: a power of two up to 8, as many
 *           as it takes to fill the device twice, none shorter than 64 tokens of the longest sequence.
 * Needs     D % 8 == 0 and a 16-byte aligned store, otherwise it reads element by element
 * Floor     bytes of keys and values; 8 sequences of 1024, H=12, D=64, 2 bytes: 25 MB / 4.6 TB/s = 5.5 us */
#include <cooperative_groups.h>

#include "attention.cuh"

namespace
{

enum { WARPS = 4, LANES = 8, GROUPS = WARP / LANES, HEAD_MAX = 256, SPLITS_MAX = 8 };

struct decode_call {
    attention_call c;
    float *partials; /* [B, H, splits, SUMS + D] */
    int splits;
    bool clustered;
};

/* Softmax over some keys: the highest score, the sum of exp2(score - highest), and D sums of values so weighted. */
enum { HIGHEST, TOTAL, SUMS };
struct partial_row {
    float of[SUMS + HEAD_MAX];
};

template <tfi_dtype S>
__host__ __device__ constexpr int elements_of_chunk()
{
    return S == TFI_F32 ? 4 : 8;
}

template <tfi_dtype S, bool VECTORS>
__device__ uint4 load_chunk(const char *blocks, int64_t at, int d, int D)
{
    constexpr int V = elements_of_chunk<S>();
    [[maybe_unused]] uint32_t words[4] = {0, 0, 0, 0};

    if constexpr (VECTORS) {
        return d < D ? *(const uint4 *)element_at((const void *)blocks, S, at + d) : make_uint4(0, 0, 0, 0);
    } else {
#pragma unroll
        for (int k = 0; k < V; k++) {
            if (d + k >= D) continue;
            if (S == TFI_F32) words[k % 4] = ((const uint32_t *)blocks)[at + d + k];
            else words[k / 2 % 4] |= (uint32_t)((const uint16_t *)blocks)[at + d + k] << k % 2 * 16;
        }
        return make_uint4(words[0], words[1], words[2], words[3]);
    }
}

template <tfi_dtype S>
__device__ void widen_chunk(uint4 chunk, float (&v)[elements_of_chunk<S>()])
{
    const uint32_t words[4] = {chunk.x, chunk.y, chunk.z, chunk.w};
#pragma unroll
    for (int k = 0; k < elements_of_chunk<S>(); k++)
        v[k] = S == TFI_F32 ? __uint_as_float(words[k % 4]) : half_to_float(words[k / 2 % 4] >> k % 2 * 16 & 0xffff, S);
}

/* Running softmax of a group of lanes; each lane has CHUNKS * V of the D sums. */
template <tfi_dtype S, int CHUNKS>
struct group_state {
    static constexpr int V = elements_of_chunk<S>();
    float max = -INFINITY, total = 0;
    float sums[CHUNKS][V] = {};

    __device__ void rescale(float higher)
    {
        const float factor = exp2f(max - higher);
        max = higher;
        total *= factor;
#pragma unroll
        for (int i = 0; i < CHUNKS * V; i++) sums[i / V][i % V] *= factor;
    }

    __device__ void add(float score, const uint4 (&values)[CHUNKS])
    {
        const float weight = exp2f(score - max);
        total += weight;
#pragma unroll
        for (int i = 0; i < CHUNKS; i++) {
            float v[V];
            widen_chunk<S>(values[i], v);
#pragma unroll
            for (int k = 0; k < V; k++) sums[i][k] += weight * v[k];
        }
    }

    /* With the group `distance` lanes away. */
    __device__ void meet(int distance)
    {
        const float higher = fmaxf(max, __shfl_xor_sync(0xffffffffu, max, distance));
        if (higher != -INFINITY) rescale(higher);
        total += __shfl_xor_sync(0xffffffffu, total, distance);
#pragma unroll
        for (int i = 0; i < CHUNKS * V; i++) sums[i / V][i % V] += __shfl_xor_sync(0xffffffffu, sums[i / V][i % V], distance);
    }
};

/* The keys of store blocks [begin, end) that are this warp's. */
template <tfi_dtype S, int CHUNKS, bool VECTORS>
__device__ void attend(const attention_call &c, int64_t b, int head, int64_t begin, int64_t end, group_state<S, CHUNKS> *state)
{
    constexpr int V = elements_of_chunk<S>(), STEPS = TFI_KV_BLOCK / GROUPS, AT_ONCE = CHUNKS == 1 ? 4 : CHUNKS == 2 ? 2 : 1;
    const int lane = threadIdx.x % WARP, part = lane % LANES, group = lane / LANES, D = c.a.D;
    const int64_t len = c.kv.lens[b], number = c.a.attend == TFI_ATTEND_CACHE ? len - 1 : 0;
    const int32_t *table = kv_table(c.kv, c.live, b);
    const float *bias = c.a.bias ? c.a.bias + (int64_t)head * (2 * c.a.max_distance + 1) : NULL;
    const int64_t query = c.a.offsets[b] * c.a.x_stride + (int64_t)head * D;
    float q[CHUNKS][V];

#pragma unroll
    for (int i = 0; i < CHUNKS * V; i++) {
        const int d = (i / V * LANES + part) * V + i % V;
        q[i / V][i % V] = d < D ? load_one(c.a.x, c.t.x, query + d) * (c.a.scale * LOG2E) : 0;
    }
    for (int64_t block = begin + threadIdx.x / WARP; block < end; block += WARPS) {
        const int64_t plane = table[block] * c.kv.block_elements + c.kv.layer_at + (int64_t)head * TFI_KV_BLOCK * D;
#pragma unroll
        for (int step = 0; step < STEPS; step += AT_ONCE) {
            uint4 keys[AT_ONCE][CHUNKS], values[AT_ONCE][CHUNKS];
            float scores[AT_ONCE], highest = state->max;
#pragma unroll
            for (int i = 0; i < AT_ONCE; i++) {
                const int token = (step + i) * GROUPS + group;
                const int inside = block * TFI_KV_BLOCK + token < len ? D : 0; /* nothing is read behind the last token */
#pragma unroll
                for (int k = 0; k < CHUNKS; k++) {
                    const int d = (k * LANES + part) * V;
                    keys[i][k] = load_chunk<S, VECTORS>(c.kv.blocks, plane + token * D, d, inside);
                    values[i][k] = load_chunk<S, VECTORS>(c.kv.blocks, plane + c.kv.values_at + token * D, d, inside);
                }
            }
#pragma unroll
            for (int i = 0; i < AT_ONCE; i++) {
                const int64_t key = block * TFI_KV_BLOCK + (step + i) * GROUPS + group;
                float dot = 0;
#pragma unroll
                for (int k = 0; k < CHUNKS; k++) {
                    float v[V];
                    widen_chunk<S>(keys[i][k], v);
#pragma unroll
                    for (int j = 0; j < V; j++) dot += q[k][j] * v[j];
                }
#pragma unroll
                for (int k = 1; k < LANES; k *= 2) dot += __shfl_xor_sync(0xffffffffu, dot, k);
                if (bias) dot += bias_at(bias, c.a.max_distance, (int)(key - number)) * LOG2E;
                scores[i] = key < len ? dot : -INFINITY;
                highest = fmaxf(highest, scores[i]);
            }
            if (block * TFI_KV_BLOCK + step * GROUPS + group < len) { /* the group's first key of these */
                state->rescale(highest);
#pragma unroll
                for (int i = 0; i < AT_ONCE; i++) state->add(scores[i], values[i]);
            }
        }
    }
}

/* What the block's warps have, in shared memory. */
template <tfi_dtype S, int CHUNKS>
__device__ void meet_warps(group_state<S, CHUNKS> *state, int D, partial_row *warps, partial_row *out)
{
    constexpr int V = elements_of_chunk<S>();
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    float max = -INFINITY, total = 0, factors[WARPS];

#pragma unroll
    for (int i = LANES; i < WARP; i *= 2) state->meet(i);
    if (lane < LANES) {
#pragma unroll
        for (int i = 0; i < CHUNKS * V; i++) {
            const int d = (i / V * LANES + lane) * V + i % V;
            if (d < D) warps[warp].of[SUMS + d] = state->sums[i / V][i % V];
        }
        warps[warp].of[HIGHEST] = state->max;
        warps[warp].of[TOTAL] = state->total;
    }
    __syncthreads();
    for (int w = 0; w < WARPS; w++) max = fmaxf(max, warps[w].of[HIGHEST]);
#pragma unroll
    for (int w = 0; w < WARPS; w++) {
        factors[w] = warps[w].of[TOTAL] == 0 ? 0 : exp2f(warps[w].of[HIGHEST] - max); /* 0: it had no key */
        total += factors[w] * warps[w].of[TOTAL];
    }
    for (int d = threadIdx.x; d < D; d += WARPS * WARP) {
        float sum = 0;
#pragma unroll
        for (int w = 0; w < WARPS; w++) sum += factors[w] == 0 ? 0 : factors[w] * warps[w].of[SUMS + d];
        out->of[SUMS + d] = sum;
    }
    if (threadIdx.x == 0) {
        out->of[HIGHEST] = max;
        out->of[TOTAL] = total;
    }
    __syncthreads();
}

/* A row of y from what `splits` blocks have; get(split, i) is number i of a split's. */
template <typename Get>
__device__ void write_row(const attention_call &c, int64_t b, int head, int splits, Get get)
{
    const int64_t at = ((int64_t)c.a.offsets[b] * c.a.H + head) * c.a.D;
    float max = -INFINITY, total = 0, factors[SPLITS_MAX];

    for (int s = 0; s < splits; s++) max = fmaxf(max, get(s, HIGHEST));
#pragma unroll
    for (int s = 0; s < SPLITS_MAX; s++) {
        const float there = s < splits ? get(s, TOTAL) : 0;
        factors[s] = there == 0 ? 0 : exp2f(get(s, HIGHEST) - max);
        total += factors[s] * there;
    }
    for (int d = threadIdx.x; d < c.a.D; d += blockDim.x) {
        float v[1] = {0};
#pragma unroll
        for (int s = 0; s < SPLITS_MAX; s++) {
            if (s < splits && factors[s] != 0) v[0] += factors[s] * get(s, SUMS + d);
        }
        v[0] = total == 0 ? 0 : v[0] / total; /* no keys: zeros */
        store(c.a.y, c.t.y, at + d, v);
    }
}

__device__ bool is_single(const attention_call &c, int64_t b)
{
    return b < c.live->rows[TFI_ROWS_SEQUENCES] && c.a.offsets[b + 1] - c.a.offsets[b] == 1;
}

template <tfi_dtype S, int CHUNKS, bool VECTORS>
__global__ void __launch_bounds__(WARPS *WARP) decode(decode_call p)
{
    begin();
    __shared__ partial_row warps[WARPS], mine;
    const attention_call &c = p.c;
    const int64_t b = blockIdx.x / p.splits;
    const int split = blockIdx.x % p.splits, head = blockIdx.y;
    group_state<S, CHUNKS> state;

    if (!is_single(c, b)) return; /* the same for all blocks of a cluster */
    const int64_t blocks = (c.kv.lens[b] + TFI_KV_BLOCK - 1) / TFI_KV_BLOCK, each = (blocks + p.splits - 1) / p.splits;
    attend<S, CHUNKS, VECTORS>(c, b, head, split * each, min(blocks, (split + 1) * each), &state);
    meet_warps<S, CHUNKS>(&state, c.a.D, warps, &mine);
    if (p.splits == 1) {
        write_row(c, b, head, 1, [&](int, int i) { return mine.of[i]; });
        return;
    }
#if __CUDA_ARCH__ >= 900
    if (p.clustered) {
        cooperative_groups::cluster_group cluster = cooperative_groups::this_cluster();
        cluster.sync();
        if (split == 0) write_row(c, b, head, p.splits, [&](int s, int i) { return cluster.map_shared_rank(mine.of, s)[i]; });
        cluster.sync(); /* nobody leaves while its memory is read */
        return;
    }
#endif
    float *out = p.partials + ((b * c.a.H + head) * p.splits + split) * (c.a.D + SUMS);
    for (int i = threadIdx.x; i < c.a.D + SUMS; i += WARPS * WARP) out[i] = mine.of[i];
}

__global__ void __launch_bounds__(WARPS *WARP) combine(decode_call p)
{
    begin();
    const int64_t b = blockIdx.x;
    const int head = blockIdx.y, width = p.c.a.D + SUMS;
    const float *partials = p.partials + (b * p.c.a.H + head) * p.splits * width;

    if (is_single(p.c, b)) write_row(p.c, b, head, p.splits, [&](int s, int i) { return partials[s * width + i]; });
}

typedef void (*decode_kernel)(decode_call);

template <tfi_dtype S, bool VECTORS>
decode_kernel kernel_for(int D)
{
    const int chunks = (D + LANES * elements_of_chunk<S>() - 1) / (LANES * elements_of_chunk<S>());
    if (chunks <= 1) return decode<S, 1, VECTORS>;
    if (chunks <= 2) return decode<S, 2, VECTORS>;
    if (S == TFI_F32 && chunks > 4) return decode<TFI_F32, 8, VECTORS>;
    return decode<S, 4, VECTORS>;
}

template <bool VECTORS>
decode_kernel kernel_for(tfi_dtype stored, int D)
{
    if (stored == TFI_F32) return kernel_for<TFI_F32, VECTORS>(D);
    return stored == TFI_BF16 ? kernel_for<TFI_BF16, VECTORS>(D) : kernel_for<TFI_F16, VECTORS>(D);
}

int splits_for(const tfi_cuda_launch *l, int64_t items, int64_t max_tokens)
{
    int splits = 1;
    while (splits < SPLITS_MAX && items * splits < 2 * l->multiprocessors && splits * 64 < max_tokens) splits *= 2;
    return splits;
}

} // namespace

extern "C" int64_t tfi_cuda_attention_scratch(tfi_attend attend, int64_t B, int32_t H, int32_t D)
{
    const bool stored = attend == TFI_ATTEND_CACHE || attend == TFI_ATTEND_SOURCE;
    return stored ? B * H * SPLITS_MAX * (D + SUMS) * (int64_t)sizeof(float) : 0;
}

tf_status tfi_cuda_attention_decode(const tfi_cuda_launch *l, const attention_call *c, int64_t max_tokens)
{
    decode_call p = {*c, (float *)l->scratch, splits_for(l, c->a.B * c->a.H, max_tokens), false};
    const decode_kernel kernel = c->vectors ? kernel_for<true>(c->kv.dtype, c->a.D) : kernel_for<false>(c->kv.dtype, c->a.D);
    const dim3 grid((unsigned)(c->a.B * p.splits), (unsigned)c->a.H);
    tf_status status;

    p.clustered = p.splits > 1 && l->capability >= 90;
    status = start_clusters(l, "ATTENTION", p.clustered ? (unsigned)p.splits : 1, kernel, grid, WARPS * WARP, 0, p);
    if (status < 0 || p.splits == 1 || p.clustered) return status;
    return start(l, "ATTENTION", combine, dim3((unsigned)c->a.B, (unsigned)c->a.H), WARPS * WARP, 0, p);
}
