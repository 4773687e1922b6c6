/* Attention links of a chain: an item is a row and a head. Keys and values that earlier runs stored come through the ring, whole
 * blocks of the store at a time; the new token's come with the query, as words. A warp takes tiles of keys as in decode attention
 * (attention_decode.cuh), number i of all being warp i % 8's, and the last warp the new token. */
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

/* Few keys at a time for each eight lanes: a short context keeps all warps busy then. */
enum { STEPS = 2 };
template <tfi_dtype T, int CHUNKS>
using chain_decode = decode_share<T, CHUNKS, true, STEPS>;

struct chain_item {
    int row, head;
    int len;    /* tokens, the new one too */
    int stored; /* before the run */
};

__device__ inline chain_item find_item(const chain_link &l, const kv_call &kv, int item)
{
    const int H = l.is.of.attention.H, row = item / H, len = kv.lens[row];
    return {row, item - row * H, len, len - !kv.source};
}

__device__ inline const kv_call &kv_of(const chain_thread &t, const tfi_link &link)
{
    return link.of.attention.source ? t.c.source : t.c.own;
}

/* The producer's. Lane 2i copies the keys of the stage's block i, lane 2i + 1 its values. */
__device__ inline void supply_attention(const chain_thread &t, const chain_link &l, chain_supply &ring, int rows)
{
    const kv_call &kv = kv_of(t, l.is);
    const int D = l.is.of.attention.D, lane = threadIdx.x % WARP, mine = lane / 2, plane = TFI_KV_BLOCK * D;
    const chain_share share = share_of(l);

    for (int i = 0, at = share.first; i < share.count; i++, at += gridDim.x) {
        if (at >= rows * l.is.of.attention.H) return;
        const chain_item item = find_item(l, kv, at);
        const int32_t *table = kv_table(kv, t.c.live, item.row);
        const int64_t head = l.is.of.attention.layer * 2 * kv.values_at + item.head * plane + lane % 2 * kv.values_at;

        for (int first = 0; first < item.stored; first += l.blocks * TFI_KV_BLOCK) {
            if (!ring.is_mine()) {
                ring.leave();
                continue;
            }
            const int token = first + mine * TFI_KV_BLOCK, tokens = min(TFI_KV_BLOCK, item.stored - token);
            const bool has = mine < l.blocks && tokens > 0;
            const int64_t from = has ? table[token / TFI_KV_BLOCK] * kv.block_elements + head : 0;
            ring.expect(min(item.stored - first, l.blocks * TFI_KV_BLOCK) * D * 4);
            if (has) copy_bytes(ring.at + lane * plane * 2, kv.blocks + from * 2, tokens * D * 2, ring.full);
            ring.leave();
        }
    }
}

/* Query, and the new token's key and value where the item has one and the warp is the last: [CHUNKS] each. */
template <tfi_dtype T, int CHUNKS>
__device__ inline void take_item(const chain_thread &t, const chain_link &l, const chain_item &item, bool appends,
                                 raw_elements<8> (&out)[3 * CHUNKS])
{
    using share = chain_decode<T, CHUNKS>;
    const auto &a = l.is.of.attention;
    const int inner = a.H * a.D, width = a.source ? inner : a.column + 2 * inner, query = item.row * width + item.head * a.D;
    int at[3 * CHUNKS];

#pragma unroll
    for (int k = 0; k < CHUNKS; k++) {
        const int d = share::dimension(k);
        at[k] = d < a.D ? query + d : -1;
        at[CHUNKS + k] = appends && d < a.D ? query + a.column + d : -1;
        at[2 * CHUNKS + k] = appends && d < a.D ? query + a.column + inner + d : -1;
    }
#pragma unroll
    for (int k = 0; k < 3 * CHUNKS; k++) out[k] = {};
    take_eights<T>(chain_source(t, l.is.x), at, out);
}

/* The new token's key and value, to the store, where later runs find them. */
template <tfi_dtype T, int CHUNKS>
__device__ inline void append_item(const chain_thread &t, const chain_link &l, const chain_item &item,
                                   const raw_elements<8> (&taken)[3 * CHUNKS])
{
    using share = chain_decode<T, CHUNKS>;
    const kv_call &kv = t.c.own;
    const auto &a = l.is.of.attention;
    const int64_t to = kv_key(kv, kv_table(kv, t.c.live, item.row), item.len - 1, item.head, a.D) + a.layer * 2 * kv.values_at;

    if (share::lane() >= share::LANES) return;
#pragma unroll
    for (int k = 0; k < CHUNKS; k++) {
        const int d = share::dimension(k);
        if (d >= a.D) continue;
        store_raw(kv.blocks, T, to + d, taken[CHUNKS + k]);
        store_raw(kv.blocks, T, to + kv.values_at + d, taken[2 * CHUNKS + k]);
    }
}

/* Dimensions 2 i and 2 i + 1 of all warps' rows, i being the thread. */
template <tfi_dtype T, int WIDTH>
__device__ inline void meet_warps(const float *rows, int D, const chain_target &to)
{
    const int d = threadIdx.x * 2;
    float highest = -FLT_MAX, of[CONSUMERS], totals[CONSUMERS], total = 0;
    float2 sum = make_float2(0, 0), v[CONSUMERS];

#pragma unroll
    for (int w = 0; w < CONSUMERS; w++) {
        const float2 two = *(const float2 *)(rows + w * WIDTH);
        of[w] = two.x;
        totals[w] = two.y;
        v[w] = *(const float2 *)(rows + w * WIDTH + SUMS + d);
        highest = fmaxf(highest, of[w]);
    }
#pragma unroll
    for (int w = 0; w < CONSUMERS; w++) {
        const float factor = exp2_fast(of[w] - highest); /* 0: it had no key */
        total += factor * totals[w];
        sum.x += factor * v[w].x;
        sum.y += factor * v[w].y;
    }
    const float scale = total == 0 ? 0 : __fdividef(1, total); /* no keys: zeros */
    if (d < D) to.put<T>(make_float2(sum.x * scale, sum.y * scale));
}

/* The warp wants no more of the stage. */
__device__ inline void pass(chain_ring &ring)
{
    ring.take();
    ring.give_back();
}

template <tfi_dtype T, int CHUNKS>
__device__ inline void attend_item(const chain_thread &t, const chain_link &l, const chain_item &item, chain_ring &ring,
                                   float *meeting_place)
{
    using share = chain_decode<T, CHUNKS>;
    constexpr int WIDTH = SUMS + CHUNKS * DECODE_CHUNK;
    static_assert(CONSUMERS * WIDTH + 32 + CHUNKS * DECODE_CHUNK <= MEETING, "the new token's key and value come behind");
    const auto &a = l.is.of.attention;
    const int warp = threadIdx.x / WARP, group = share::lane() / share::LANES, D = a.D, plane = TFI_KV_BLOCK * D * 2;
    const bool appends = !a.source && warp == CONSUMERS - 1;
    const float *biases = a.bias ? a.bias + (int64_t)item.head * (2 * a.max_distance + 1) : NULL;
    const int of_warp = warp * WARP + share::lane();
    const chain_target to = target_of(t, l.is.y, item.row, item.head * D + of_warp * 2, a.H * D);
    const uint32_t fresh = shared_address(meeting_place + CONSUMERS * WIDTH + 32) / 16 * 16;
    raw_elements<8> taken[3 * CHUNKS];
    share s;

    take_item<T, CHUNKS>(t, l, item, appends, taken);
#pragma unroll
    for (int k = 0; k < CHUNKS; k++) {
        widen(taken[k], T, s.q[k]);
#pragma unroll
        for (int j = 0; j < 8; j++) s.q[k][j] *= a.scale * LOG2E;
    }
    if (appends) {
#pragma unroll
        for (int k = 0; k < CHUNKS; k++) {
            const uint32_t to = fresh + share::dimension(k) * 2;
            if (group == 0) shared_store4(to, taken[CHUNKS + k].low);
            if (group == 0) shared_store4(to + CHUNKS * DECODE_CHUNK * 2, taken[2 * CHUNKS + k].low);
        }
        append_item<T, CHUNKS>(t, l, item, taken);
        __syncwarp();
    }
    /* Tile -1 is the new token. */
    const int number = a.source ? 0 : item.len - 1, per = l.blocks * TFI_KV_BLOCK;
    int first = 0; /* token of the ring's stage */
#pragma unroll 1
    for (int i = appends ? -1 : warp;; i = i < 0 ? warp : i + CONSUMERS) {
        int key = item.len - 1, behind = item.len, begin = key, values = CHUNKS * DECODE_CHUNK * 2;
        uint32_t stage = fresh;
        if (i >= 0) {
            key = i * share::TOKENS;
            if (key >= item.stored) break;
            for (; key >= first + per; first += per) pass(ring);
            ring.take();
            behind = min(item.stored, first + per);
            begin = first;
            values = plane;
            stage = ring.at;
        }
        typename share::tile tile;
#pragma unroll
        for (int k = 0; k < STEPS; k++) {
            const int at = key + k * share::GROUPS + group, token = at - begin;
            const uint32_t from = stage + (token / TFI_KV_BLOCK * (2 * TFI_KV_BLOCK) + token % TFI_KV_BLOCK) * D * 2;
            tile.biases[k] = biases ? bias_at(biases, a.max_distance, at - number) * LOG2E : 0;
#pragma unroll
            for (int c = 0; c < CHUNKS; c++) {
                const int d = share::dimension(c);
                tile.keys[k][c] = tile.values[k][c] = {};
                if (at >= behind || d >= D) continue;
                tile.keys[k][c].low = shared_load4(from + d * 2);
                tile.values[k][c].low = shared_load4(from + values + d * 2);
            }
        }
        s.attend(tile, key, behind);
    }
    for (; first < item.stored; first += per) pass(ring);
    s.write(meeting_place + warp * WIDTH);
    meet_consumers();
    if (warp * WARP * 2 < D) meet_warps<T, WIDTH>(meeting_place, D, to);
}

template <tfi_dtype T>
__device__ inline void attend(const chain_thread &t, const chain_link &l, chain_ring &ring, int rows, int *turn)
{
    const kv_call &kv = kv_of(t, l.is);
    const chain_share share = share_of(l);
    const int D = l.is.of.attention.D;

    for (int i = 0, at = share.first; i < share.count; i++, at += gridDim.x) {
        if (at >= rows * l.is.of.attention.H) return;
        const chain_item item = find_item(l, kv, at);
        float *meeting_place = (float *)(t.shared + SUMS_AT) + *turn * MEETING;
        if (D <= 64) attend_item<T, 1>(t, l, item, ring, meeting_place);
        else attend_item<T, 2>(t, l, item, ring, meeting_place);
        *turn ^= 1;
    }
}

#endif
