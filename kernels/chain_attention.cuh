/* Attention links of a chain: an item is a row and a head. Keys and values that earlier runs stored come through the ring, whole
 * blocks of the store at a time; the new token's come with the query, as words. A warp takes tiles of keys as in decode attention
 * (attention_decode.cuh), number i of all being warp i % 8's, and the last warp the new token. */
#ifndef TFI_KERNELS_CHAIN_ATTENTION_CUH
#define TFI_KERNELS_CHAIN_ATTENTION_CUH

#include "attention_decode.cuh"
#include "chain.cuh"

enum { STORED_TWICE = 2 * TFI_KV_BLOCK * 2 /* bytes of a dimension of a block's keys and values */ };

/* Blocks of the store in a stage of the ring. */
inline int kv_blocks_of_stage(int D)
{
    const int blocks = STAGE / (STORED_TWICE * D);
    return blocks < WARP / 2 ? blocks : WARP / 2;
}

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
__device__ inline void supply_attention(const chain_thread &t, const chain_link &l, chain_ring &ring, int rows)
{
    const kv_call &kv = kv_of(t, l.is);
    const int D = l.is.of.attention.D, lane = threadIdx.x % WARP, mine = lane / 2, plane = TFI_KV_BLOCK * D;
    const chain_share share = share_of(l);

    for (int i = 0, at = share.first; i < share.count; i++, at += gridDim.x) {
        if (at >= rows * l.is.of.attention.H) return;
        const chain_item item = find_item(l, kv, at);
        const int32_t *table = kv_table(kv, t.c.live, item.row);
        const int64_t head = l.is.of.attention.layer * 2 * kv.values_at + item.head * plane + lane % 2 * kv.values_at;

        for (int first = 0; first < item.stored; first += l.part * TFI_KV_BLOCK) {
            const int token = first + mine * TFI_KV_BLOCK, tokens = min(TFI_KV_BLOCK, item.stored - token);
            const bool has = mine < l.part && tokens > 0;
            const int64_t from = has ? table[token / TFI_KV_BLOCK] * kv.block_elements + head : 0;
            ring.expect(min(item.stored - first, l.part * TFI_KV_BLOCK) * D * 4);
            if (has)
                copy_bytes(shared_address(t.shared + t.c.ring_at) + ring.stage * STAGE + lane * plane * 2, kv.blocks + from * 2,
                           tokens * D * 2, ring.full);
            ring.next();
        }
    }
}

/* Query, and the new token's key and value where the item has one and the warp is the last: [CHUNKS] each. */
template <tfi_dtype T, int CHUNKS>
__device__ inline void take_item(const chain_thread &t, const chain_link &l, const chain_item &item, bool appends,
                                 raw_elements<8> (&out)[3 * CHUNKS])
{
    using share = decode_share<T, CHUNKS, true>;
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
    using share = decode_share<T, CHUNKS, true>;
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

template <tfi_dtype T, int CHUNKS>
__device__ inline void attend_item(const chain_thread &t, const chain_link &l, const chain_item &item, chain_ring &ring,
                                   float *meeting_place)
{
    using share = decode_share<T, CHUNKS, true>;
    constexpr int WIDTH = SUMS + CHUNKS * DECODE_CHUNK;
    static_assert(CONSUMERS * WIDTH <= MEETING, "");
    const auto &a = l.is.of.attention;
    const int warp = threadIdx.x / WARP, group = share::lane() / share::LANES, D = a.D, plane = TFI_KV_BLOCK * D * 2;
    const bool appends = !a.source && warp == CONSUMERS - 1;
    const float *biases = a.bias ? a.bias + (int64_t)item.head * (2 * a.max_distance + 1) : NULL;
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
        typename share::tile tile = {};
#pragma unroll
        for (int k = 0; k < CHUNKS; k++) {
            tile.keys[0][k] = taken[CHUNKS + k];
            tile.values[0][k] = taken[2 * CHUNKS + k];
        }
        tile.biases[0] = biases ? bias_at(biases, a.max_distance, 0) * LOG2E : 0;
        s.attend(tile, 0, 1);
        append_item<T, CHUNKS>(t, l, item, taken);
    }
    const int number = a.source ? 0 : item.len - 1;
    for (int first = 0, turn = warp; first < item.stored; first += l.part * TFI_KV_BLOCK) {
        const int behind = min(item.stored, first + l.part * TFI_KV_BLOCK);
        const char *stage = t.shared + t.c.ring_at + ring.stage * STAGE;

        ring.take();
        for (; turn * share::TOKENS < behind; turn += CONSUMERS) {
            const int key = turn * share::TOKENS;
            typename share::tile tile;
#pragma unroll
            for (int i = 0; i < share::STEPS; i++) {
                const int at = key + i * share::GROUPS + group, token = at - first;
                const char *from = stage + (token / TFI_KV_BLOCK * (2 * TFI_KV_BLOCK) + token % TFI_KV_BLOCK) * D * 2;
                tile.biases[i] = biases ? bias_at(biases, a.max_distance, at - number) * LOG2E : 0;
#pragma unroll
                for (int k = 0; k < CHUNKS; k++) {
                    const int d = share::dimension(k);
                    const bool has = at < behind && d < D;
                    tile.keys[i][k] = tile.values[i][k] = {};
                    if (has) tile.keys[i][k].low = *(const uint4 *)(from + d * 2);
                    if (has) tile.values[i][k].low = *(const uint4 *)(from + plane + d * 2);
                }
            }
            s.attend(tile, key, item.stored);
        }
        ring.give_back();
    }
    s.write(meeting_place + warp * WIDTH);
    meet_consumers();
    const int d = threadIdx.x * 2;
    if (d >= D) return;
    float2 y;
    const meeting low = meet(CONSUMERS, d, [&](int w, int i) { return meeting_place[w * WIDTH + i]; });
    const meeting high = meet(CONSUMERS, d + 1, [&](int w, int i) { return meeting_place[w * WIDTH + i]; });
    y.x = low.total == 0 ? 0 : low.sum / low.total; /* no keys: zeros */
    y.y = low.total == 0 ? 0 : high.sum / low.total;
    store_pair(t, l.is.y, item.row, item.head * D + d, a.H * D, y);
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
