/* Attention links of a chain: an item is a head. Keys and values that earlier runs stored come through the ring, whole blocks of the
 * store at a time, and block i is warp i % 8's: its keys are A of a matrix product and the query, which comes as words, is B. The
 * new token is the finisher's: key and value come with the query, and join what the warps have. */
#ifndef TFI_KERNELS_CHAIN_ATTENTION_CUH
#define TFI_KERNELS_CHAIN_ATTENTION_CUH

#include <float.h>

#include "activation.cuh"
#include "attention_decode.cuh"
#include "chain.cuh"

enum { STORED_TWICE = 2 * TFI_KV_BLOCK * 2 /* bytes of a dimension of a block's keys and values */ };

/* Blocks of the store in a stage of the ring. */
inline int kv_blocks_of_stage(int D)
{
    const int blocks = STAGE / (STORED_TWICE * D);
    return blocks < WARP / 2 ? blocks : WARP / 2;
}

/* Softmax over some keys: eight lanes have a key's dimensions, 8 of each 64. */
template <tfi_dtype T, int CHUNKS>
using chain_softmax = decode_share<T, CHUNKS, true>;

struct chain_item {
    int head;
    int len;    /* tokens, the new one too */
    int stored; /* before the run */
};

__device__ inline chain_item find_item(const kv_call &kv, int head)
{
    const int len = kv.lens[0];
    return {head, len, len - !kv.source};
}

__device__ inline const kv_call &kv_of(const chain_thread &t, const tfi_link &link)
{
    return link.of.attention.source ? t.c.source : t.c.own;
}

/* The producer's. Lane 2i copies the keys of the stage's block i, lane 2i + 1 its values. */
__device__ inline void supply_attention(const chain_thread &t, const chain_link &l, chain_ring &ring)
{
    const kv_call &kv = kv_of(t, l.is);
    const int D = l.is.of.attention.D, lane = threadIdx.x % WARP, mine = lane / 2, plane = TFI_KV_BLOCK * D;
    const chain_share share = share_of(l);

    for (int head = share.begin; head < share.begin + share.count; head++) {
        const chain_item item = find_item(kv, head);
        const int32_t *table = kv.tables;
        const int64_t plane_at = l.is.of.attention.layer * 2 * kv.values_at + head * plane + lane % 2 * kv.values_at;

        for (int first = 0; first < item.stored; first += l.blocks * TFI_KV_BLOCK) {
            const int token = first + mine * TFI_KV_BLOCK, tokens = min(TFI_KV_BLOCK, item.stored - token);
            const bool has = mine < l.blocks && tokens > 0;
            const int64_t from = has ? table[token / TFI_KV_BLOCK] * kv.block_elements + plane_at : 0;
            ring.expect(min(item.stored - first, l.blocks * TFI_KV_BLOCK) * D * 4);
            if (has) copy_bytes(ring.at + lane * plane * 2, kv.blocks + from * 2, tokens * D * 2, ring.full);
            ring.next();
        }
    }
}

/* A block of the store: keys as A, of each 32 dimensions those of tokens g and g + 8; values as the softmax wants them, of each 64
 * dimensions those of tokens lane / 8 + 4 i. What is no token's is zeros. */
template <int CHUNKS>
struct chain_block {
    uint4 keys[2 * CHUNKS][2], values[CHUNKS][4];

    __device__ void load(uint32_t at, int D, int tokens)
    {
        const int lane = threadIdx.x % WARP, row = D * 2;
        const uint32_t key = at + lane / 4 * row + lane % 4 * 16,
                       value = at + TFI_KV_BLOCK * row + lane / 8 * row + lane % 8 * 16;

#pragma unroll
        for (int c = 0; c < 2 * CHUNKS; c++) {
            keys[c][0] = keys[c][1] = make_uint4(0, 0, 0, 0);
            if (c * 32 + lane % 4 * 8 >= D) continue;
            shared_load4(keys[c][0], key + c * CHUNK);
            shared_load4(keys[c][1], key + c * CHUNK + 8 * row);
        }
#pragma unroll
        for (int c = 0; c < CHUNKS; c++) {
#pragma unroll
            for (int i = 0; i < 4; i++) {
                values[c][i] = make_uint4(0, 0, 0, 0);
                if (c * DECODE_CHUNK + lane % 8 * 8 < D && lane / 8 + 4 * i < tokens)
                    shared_load4(values[c][i], value + 4 * i * row + c * DECODE_CHUNK * 2);
            }
        }
    }
};

/* A number whose order as an integer is that of the float, and back. */
__device__ inline int in_order(int bits)
{
    return bits ^ (bits >> 31 & 0x7fffffff);
}

/* The query as B: of each 32 dimensions eight in lanes 0 to 3. */
template <int CHUNKS>
__device__ __forceinline__ void take_query(const chain_thread &t, const chain_link &l, int head, uint4 (&query)[2 * CHUNKS])
{
    const int lane = threadIdx.x % WARP, D = l.is.of.attention.D;
    const uint64_t *from = t.c.exchange + l.is.x.words + (head * D + lane % 4 * 8) / 2;
    const uint32_t tag = t.tag + l.is.x.link;
    bool late = lane < 4;

#pragma unroll
    for (int c = 0; c < 2 * CHUNKS; c++) query[c] = make_uint4(0, 0, 0, 0);
    while (late) {
        uint64_t w[2 * CHUNKS][4] = {};
        late = false;
#pragma unroll
        for (int c = 0; c < 2 * CHUNKS; c++) {
            if (c * 32 + lane * 8 >= D) continue;
            load_words(from + c * 16, w[c][0], w[c][1]);
            load_words(from + c * 16 + 2, w[c][2], w[c][3]);
        }
#pragma unroll
        for (int c = 0; c < 2 * CHUNKS; c++) {
            if (c * 32 + lane * 8 >= D) continue;
            late |= is_late(w[c][0], tag) || is_late(w[c][1], tag) || is_late(w[c][2], tag) || is_late(w[c][3], tag);
            query[c] = make_uint4((uint32_t)w[c][0], (uint32_t)w[c][1], (uint32_t)w[c][2], (uint32_t)w[c][3]);
        }
    }
    __syncwarp();
}

/* What the warp's softmax makes of one block's tokens; `biases` of tokens g and g + 8, or -infinity where there is none. */
template <tfi_dtype T, int CHUNKS>
__device__ __forceinline__ void attend_block(const chain_block<CHUNKS> &b, const uint4 (&query)[2 * CHUNKS], float scale,
                                             const float (&biases)[2], chain_softmax<T, CHUNKS> &s)
{
    const int lane = threadIdx.x % WARP, group = lane / 8;
    float c[2][4] = {}, scores[2];

#pragma unroll
    for (int k = 0; k < 2 * CHUNKS; k++) {
        multiply<T>(c[0], b.keys[k][0].x, b.keys[k][1].x, b.keys[k][0].y, b.keys[k][1].y, query[k].x, query[k].y);
        multiply<T>(c[1], b.keys[k][0].z, b.keys[k][1].z, b.keys[k][0].w, b.keys[k][1].w, query[k].z, query[k].w);
    }
#pragma unroll
    for (int i = 0; i < 2; i++)
        scores[i] = biases[i] == -INFINITY ? -INFINITY : fmaf(c[0][2 * i] + c[1][2 * i], scale, biases[i]);
    const int highest =
        __reduce_max_sync(0xffffffffu, max(in_order(__float_as_int(scores[0])), in_order(__float_as_int(scores[1]))));
    s.rescale(fmaxf(s.max, __int_as_float(in_order(highest))));
#pragma unroll
    for (int i = 0; i < 2; i++) scores[i] = exp2_fast(scores[i] - s.max);
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const float weight = __shfl_sync(0xffffffffu, scores[i / 2], i % 2 * 16 + group * 4);
        s.total += weight;
#pragma unroll
        for (int k = 0; k < CHUNKS; k++) {
            const uint32_t words[4] = {b.values[k][i].x, b.values[k][i].y, b.values[k][i].z, b.values[k][i].w};
#pragma unroll
            for (int j = 0; j < 4; j++) {
                s.sums[k][2 * j] = fmaf(weight, half_to_float(words[j] & 0xffff, T), s.sums[k][2 * j]);
                s.sums[k][2 * j + 1] = fmaf(weight, half_to_float(words[j] >> 16, T), s.sums[k][2 * j + 1]);
            }
        }
    }
}

/* Floats of a warp's softmax in a place. */
template <int CHUNKS>
constexpr int SOFTMAX = SUMS + CHUNKS *DECODE_CHUNK + 2;
static_assert(CONSUMERS * SOFTMAX<2> * 4 <= PLACE, "all warps' are there");

template <tfi_dtype T, int CHUNKS>
__device__ __forceinline__ void attend_head(const chain_thread &t, const chain_link &l, int head, chain_ring &ring,
                                            chain_place &place)
{
    const auto &a = l.is.of.attention;
    const chain_item item = find_item(kv_of(t, l.is), head);
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, number = a.source ? 0 : item.len - 1;
    const int blocks = (item.stored + TFI_KV_BLOCK - 1) / TFI_KV_BLOCK, stages = (blocks + l.blocks - 1) / l.blocks;
    const float *table = a.bias ? a.bias + (int64_t)head * (2 * a.max_distance + 1) : NULL;
    uint4 query[2 * CHUNKS];
    chain_softmax<T, CHUNKS> s;
    int stage = 0;

    place.wait_for_room();
#pragma unroll 1
    for (int i = warp; i < blocks; i += CONSUMERS) {
        chain_block<CHUNKS> block;
        float biases[2] = {-INFINITY, -INFINITY};
        for (; stage < i / l.blocks; stage++) {
            ring.take();
            ring.give_back();
        }
        ring.take();
        block.load(ring.at + i % l.blocks * (2 * TFI_KV_BLOCK) * a.D * 2, a.D, item.stored - i * TFI_KV_BLOCK);
#pragma unroll
        for (int k = 0; k < 2; k++) {
            const int key = i * TFI_KV_BLOCK + lane / 4 + 8 * k;
            if (lane % 4 > 0 || key >= item.stored) continue;
            biases[k] = table ? bias_at(table, a.max_distance, key - number) * LOG2E : 0;
        }
        if (i == warp) take_query<CHUNKS>(t, l, head, query);
        attend_block<T, CHUNKS>(block, query, a.scale * LOG2E, biases, s);
    }
    for (; stage < stages; stage++) {
        ring.take();
        ring.give_back();
    }
    s.write((float *)(t.shared + SUMS_AT + place.number() * PLACE) + warp * SOFTMAX<CHUNKS>);
    place.give();
}

template <tfi_dtype T>
__device__ inline void attend(const chain_thread &t, const chain_link &l, chain_ring &ring, chain_place &place)
{
    const chain_share share = share_of(l);

#pragma unroll 1
    for (int head = share.begin; head < share.begin + share.count; head++) {
        if (l.is.of.attention.D <= DECODE_CHUNK) attend_head<T, 1>(t, l, head, ring, place);
        else attend_head<T, 2>(t, l, head, ring, place);
    }
}

/* ---- the finisher's ---- */

/* Two neighbours of the query and, of a cache, the new token's key and its value; where there are no such dimensions zeros. A
 * source may have no keys: words are waited for all the same, before y is written. */
template <int CHUNKS>
__device__ __forceinline__ void take_token(const chain_thread &t, const chain_link &l, int head, uint32_t (&of)[3][CHUNKS])
{
    const auto &a = l.is.of.attention;
    const int lane = threadIdx.x % WARP, inner = a.H * a.D, count = a.source ? 1 : 3;
    const uint64_t *from = t.c.exchange + l.is.x.words + (head * a.D) / 2 + lane;

    for (bool late = true; late;) {
        uint64_t w[3][CHUNKS];
        late = false;
#pragma unroll
        for (int i = 0; i < 3; i++) {
#pragma unroll
            for (int c = 0; c < CHUNKS; c++) {
                w[i][c] = (uint64_t)(t.tag + l.is.x.link) << 32;
                if (i < count && c * DECODE_CHUNK + lane * 2 < a.D)
                    w[i][c] = load_word(from + (i == 0 ? 0 : (a.column + (i - 1) * inner) / 2) + c * DECODE_CHUNK / 2);
            }
        }
#pragma unroll
        for (int i = 0; i < 3; i++) {
#pragma unroll
            for (int c = 0; c < CHUNKS; c++) {
                late |= is_late(w[i][c], t.tag + l.is.x.link);
                of[i][c] = (uint32_t)w[i][c];
            }
        }
    }
    __syncwarp();
}

template <tfi_dtype T>
__device__ inline float2 widen_two(uint32_t halves)
{
    return make_float2(half_to_float(halves & 0xffff, T), half_to_float(halves >> 16, T));
}

/* A lane makes two neighbours of y of each 64 dimensions, of what the warps have and the new token. */
template <tfi_dtype T, int CHUNKS>
__device__ __forceinline__ void finish_head(const chain_thread &t, const chain_link &l, int head, chain_place &place)
{
    const auto &a = l.is.of.attention;
    const kv_call &kv = kv_of(t, l.is);
    const int lane = threadIdx.x % WARP, D = a.D;
    float highest = -FLT_MAX, total = 0, score = -INFINITY;
    float2 sums[CHUNKS] = {}, of[CONSUMERS];
    uint32_t token[3][CHUNKS];

    take_token<CHUNKS>(t, l, head, token);
    if (!a.source) {
        const chain_item item = find_item(kv, head);
        const int64_t to = kv_key(kv, kv.tables, item.len - 1, head, D) + a.layer * 2 * kv.values_at + lane * 2;
        float dot = 0;
#pragma unroll
        for (int c = 0; c < CHUNKS; c++) {
            const float2 q = widen_two<T>(token[0][c]), k = widen_two<T>(token[1][c]);
            dot += q.x * k.x + q.y * k.y;
            if (c * DECODE_CHUNK + lane * 2 >= D) continue;
            *(uint32_t *)(kv.blocks + (to + c * DECODE_CHUNK) * 2) = token[1][c];
            *(uint32_t *)(kv.blocks + (to + kv.values_at + c * DECODE_CHUNK) * 2) = token[2][c];
        }
        score = warp_sum(dot) * a.scale * LOG2E;
        if (a.bias) score += bias_at(a.bias + (int64_t)head * (2 * a.max_distance + 1), a.max_distance, 0) * LOG2E;
    }
    place.wait_for_all();
    const uint32_t rows = t.base + SUMS_AT + place.number() * PLACE;
#pragma unroll
    for (int w = 0; w < CONSUMERS; w++) {
        of[w] = shared_load2(rows + w * SOFTMAX<CHUNKS> * 4);
        highest = fmaxf(highest, of[w].x);
    }
    highest = fmaxf(highest, score);
#pragma unroll
    for (int w = 0; w < CONSUMERS; w++) {
        const float factor = exp2_fast(of[w].x - highest); /* 0: it had no key */
        total += factor * of[w].y;
#pragma unroll
        for (int c = 0; c < CHUNKS; c++) {
            const float2 v = shared_load2(rows + (w * SOFTMAX<CHUNKS> + SUMS + c * DECODE_CHUNK + lane * 2) * 4);
            sums[c].x = fmaf(factor, v.x, sums[c].x);
            sums[c].y = fmaf(factor, v.y, sums[c].y);
        }
    }
    place.give_back();
    const float factor = exp2_fast(score - highest);
    total += factor;
    const float scale = total == 0 ? 0 : __fdividef(1, total); /* no keys: zeros */
#pragma unroll
    for (int c = 0; c < CHUNKS; c++) {
        const int d = c * DECODE_CHUNK + lane * 2;
        const float2 v = widen_two<T>(token[2][c]);
        if (d >= D) continue;
        target_of(t, l, head * D + d, a.H * D)
            .put<T>(make_float2(fmaf(factor, v.x, sums[c].x) * scale, fmaf(factor, v.y, sums[c].y) * scale));
    }
}

template <tfi_dtype T>
__device__ inline void finish_heads(const chain_thread &t, const chain_link &l, chain_place &place)
{
    const chain_share share = share_of(l);

#pragma unroll 1
    for (int head = share.begin; head < share.begin + share.count; head++) {
        if (l.is.of.attention.D <= DECODE_CHUNK) finish_head<T, 1>(t, l, head, place);
        else finish_head<T, 2>(t, l, head, place);
    }
}

#endif
