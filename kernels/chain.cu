/* A decode step's ops of one row, one after the other in one launch: products with their norms, and attention.
 *
 * Shapes    those of few.cu and attention_decode.cu in BF16 and F16 with one row; up to 256 links, a link the product or attention
 *           with what stands before and after it
 * Parallel  a block a multiprocessor, all of them resident. Columns of y, two by two, and heads are dealt out to blocks evenly. A
 *           block's warps have roles: one fills a ring of 16 KB stages by bulk copies, weights, stored keys and values, and waits
 *           for no other block, so it runs ahead; eight multiply, each every eighth chunk of 32 columns of x and w, or attend to
 *           every eighth block of the store; one makes y of what the eight have.
 * Exchange  y is written as words of 32 bits of elements and 32 of tag, which are read and written in one piece: who finds the tag
 *           has the elements. So no fence, no flag, and no second trip. A block that has nothing of a link reads nothing of it,
 *           and none writes a word of y before its part of x has come.
 * Order     Blocks take links in order and a link waits only for earlier ones, so with all blocks resident (a cooperative
 *           launch) someone can always go on.
 * Norms     x goes into the product as it comes, times the gains; mean and variance join the sums. So no barrier stands between x
 *           and w, and products with the gains and the shifts, which a layer's norm needs, are other columns of the same matrix
 *           instructions. Squares are summed of x as it is: a mean of 30 times the deviation costs the variance 1e-4.
 * Needs     9.0; K a multiple of 32; with a norm up to 2048; heads of a multiple of 8 up to 128
 * Floor     bytes of w / 4.3 TB/s, or for small links what follows one another: a word's way from block to block is 1.0 us at
 *           rest, and what a block does between words about 0.5 us. Predicted for a layer of GPT-2 124M of five links 8 us, XL 17.
 * Measured  on an H200, microseconds a step with the head while generating, in brackets few.cu and decode attention one after the
 *           other: GPT-2 124M F16 155 (215), medium 294, XL 1061 (1340), T5-base 199 (285), T5-3B BF16 818 (1330). A layer of 124M
 *           takes 11 us: five ways of words of 1.1 to 1.3, and from x to y 0.6 to 0.9. In a warp that is alone an instruction takes
 *           4 to 5 cycles, so what counts is how many there are from x to y, and branches among them: hence the first weights in
 *           registers before x is there, and products of stages that are not there.
 * Lost      Several rows: 1.4 to 1.5 times as long with 4. Sums that meet at a barrier of the eight, which one of them makes y of:
 *           the code of a link was 4000 instructions, more than the cache has. Two or more warps that copy: 3 took 13 to 19 % more
 *           for medium and T5-3B. Statistics by a warp that waits for x by itself: it had them 600 cycles after the sums. One row of
 *           x as A and stages as B: twice the instructions. Branches around stages and chunks that are not there: 40 % more from x
 *           to sums. Tiles of 8 rows dealt out in turn: up to 8 % more, some blocks have a tile more. Few copies under way: no
 *           matter. Links from the constant bank: a miss is 700 cycles. Naps between polls: 9 % more. All of a link once for nothing
 *           while x is not there, to have its code near: 15 % more. */
#include "activation.cuh"
#include "chain_attention.cuh"

namespace
{

#if __CUDA_ARCH__ >= 900 || !defined(__CUDA_ARCH__)

/* ---- the producer ---- */

/* Columns of y that are the block's, `width` to a tile. */
struct chain_columns {
    int begin, end, width, all;

    __device__ chain_columns(const chain_link &l)
    {
        const auto &p = l.is.of.product;
        const chain_share share = share_of(l);
        width = p.gated ? TILE / 2 : TILE;
        all = p.gated ? p.N / 2 : p.N;
        begin = share.begin * 2;
        end = min(begin + share.count * 2, all);
    }

    __device__ int tiles() const
    {
        return (end - begin + width - 1) / width;
    }
};

__device__ void prefetch(const void *p)
{
    asm volatile("prefetch.global.L2 [%0];" ::"l"(p));
}

/* What is going to be loaded: a bias is the block's own, a norm's rows are all blocks'. */
__device__ void prefetch_vectors(const tfi_link &l, const chain_columns &columns)
{
    const auto &p = l.of.product;
    const int lane = threadIdx.x % WARP;

    if (p.gain && columns.begin == 0) {
#pragma unroll 1
        for (int i = lane * 32; i < p.K; i += WARP * 32) {
            prefetch(p.gain + i);
            if (p.shift) prefetch(p.shift + i);
        }
    }
    if (!p.bias) return;
#pragma unroll 1
    for (int i = columns.begin + lane * 8; i < columns.end; i += WARP * 8) {
        prefetch(p.bias + i);
        if (p.gated) prefetch(p.bias + i + columns.all);
    }
}

/* A lane copies a row's part. */
__device__ void supply_product(const chain_thread &t, const chain_link &l, const chain_columns &columns, chain_ring &ring)
{
    const auto &p = l.is.of.product;
    const int lane = threadIdx.x % WARP, width = columns.width, bytes = p.K * 2;
    const int right = lane / width * columns.all; /* gated: of the right half */
    const char *w = (const char *)p.w + (int64_t)(right + lane % width) * bytes;

#pragma unroll 1
    for (int first = columns.begin; first < columns.end; first += width) {
        const int rows = min(width, columns.end - first);
        const char *row = w + (int64_t)first * bytes;
        const bool has = lane < TILE && lane % width < rows;
#pragma unroll 1
        for (int begin = 0; begin < bytes; begin += PART) {
            const int size = min((int)PART, bytes - begin);
            ring.expect(size * rows * (TILE / width));
            if (has) copy_bytes(ring.at + lane * ROW_STRIDE, row + begin, size, ring.full);
            ring.next();
        }
    }
}

__device__ void produce(const chain_thread &t)
{
    chain_ring ring(t);
    bool waited = false;

#pragma unroll 1
    for (int i = 0; i < t.c.count; i++) {
        const chain_link &l = link_of(t, i);
        if (!t.lives(l.is)) continue;
        if (l.is.kind == TFI_LINK_PRODUCT) {
            const chain_columns columns(l);
            supply_product(t, l, columns, ring);
            prefetch_vectors(l.is, columns);
            continue;
        }
        if (!waited) wait_for_results(); /* of this run's KV_COPY */
        if (!waited) asm volatile("fence.proxy.async.global;" ::: "memory");
        waited = true;
        supply_attention(t, l, ring);
    }
}

/* ---- x ---- */

/* A warp keeps and reads its own chunks of a row of x alone: pieces of four columns, one or more a lane. */
enum { PIECE_STEP = WARP / 8 * CONSUMERS /* chunks from one to the next */ };

struct chain_pieces {
    int chunk; /* of the first piece */
    uint32_t to;

    __device__ chain_pieces(const chain_thread &t)
    {
        const int lane = threadIdx.x % WARP;
        chunk = lane / 8 * CONSUMERS + (int)threadIdx.x / WARP;
        to = t.base + t.c.z_at + chunk * CHUNK + lane % 8 * 8;
    }

    __device__ int column() const
    {
        return chunk * 32 + (int)threadIdx.x % 8 * 4;
    }
};

template <tfi_dtype T>
__device__ uint2 narrow_four(float a, float b, float c, float d)
{
    return make_uint2(float_to_halves(a, b, T), float_to_halves(c, d, T));
}

/* Where the last part has no chunks there are zeros. */
__device__ void clear_behind(uint32_t z, int parts, int last)
{
    const int lane = threadIdx.x % WARP, k = lane / 4;
    const uint32_t to = z + (parts - 1) * PART + (k * CONSUMERS + (int)threadIdx.x / WARP) * CHUNK + lane % 4 * 16;

    if (k >= last && k < MINE) shared_store4(to, make_uint4(0, 0, 0, 0));
}

/* x as it is. */
__device__ void stage_plain(const chain_thread &t, const tfi_link &l, int parts, int last)
{
    enum { N = 4 }; /* pieces at a time */
    chain_pieces at(t);
    const uint64_t *from = t.c.exchange + l.x.words + at.column() / 2;

    clear_behind(t.base + t.c.z_at, parts, last);
#pragma unroll 1
    for (int left = l.of.product.K / 32 - at.chunk; left > 0; left -= N * PIECE_STEP) {
        const uint32_t wanted = 1 | (left > PIECE_STEP) << 1 | (left > 2 * PIECE_STEP) << 2 | (left > 3 * PIECE_STEP) << 3;
        uint2 v[N];
        take_pieces<N>(from, PIECE_STEP * 16, wanted, t.tag + l.x.link, v);
#pragma unroll
        for (int k = 0; k < N; k++)
            if (wanted >> k & 1) shared_store_words(at.to + k * PIECE_STEP * CHUNK, v[k]);
        from += N * PIECE_STEP * 16;
        at.to += N * PIECE_STEP * CHUNK;
    }
}

/* A power of two that brings the warp's largest element to 2^9 or more, and below 2^10: F16 holds no more than 65504. */
__device__ float power_below(float largest)
{
    const uint32_t exponent = __reduce_max_sync(0xffffffffu, __float_as_uint(largest)) >> 23;
    return __uint_as_float((263 - max(exponent, 16u)) << 23);
}

/* x times the gains, and before x comes the gains and the shifts, which the sums of a layer's norm need: mean and variance are not
 * known yet and join the sums at the end. So x is rounded as it is, not as differences to its mean. What the products were
 * multiplied with. */
template <tfi_dtype T, int N>
__device__ float stage_normed(const chain_thread &t, const tfi_link &l, int parts, int last, chain_place &statistics)
{
    const auto &p = l.of.product;
    const chain_pieces at(t);
    const int left = p.K / 32 - at.chunk;
    const uint64_t *from = t.c.exchange + l.x.words + at.column();
    const uint32_t z = t.base + t.c.z_at;
    float4 gain[N];
    float2 sums = make_float2(0, 0);
    float largest = 0, factor = 1;

    clear_behind(z, parts, last);
    if (p.norm == TFI_NORM_LAYER) clear_behind(z - t.c.z_stride, parts, last);
    if (p.norm == TFI_NORM_LAYER) clear_behind(z - 2 * t.c.z_stride, parts, last);
    statistics.wait_for_room();
#pragma unroll
    for (int i = 0; i < N; i++) {
        const uint32_t to = at.to + i * PIECE_STEP * CHUNK;
        gain[i] = make_float4(0, 0, 0, 0);
        if (left <= i * PIECE_STEP) break;
        gain[i] = *(const float4 *)(p.gain + at.column() + i * PIECE_STEP * 32);
        if (p.norm != TFI_NORM_LAYER) continue;
        float4 shift = make_float4(0, 0, 0, 0);
        if (p.shift) shift = *(const float4 *)(p.shift + at.column() + i * PIECE_STEP * 32);
        shared_store_words(to - t.c.z_stride, narrow_four<T>(gain[i].x, gain[i].y, gain[i].z, gain[i].w));
        shared_store_words(to - 2 * t.c.z_stride, narrow_four<T>(shift.x, shift.y, shift.z, shift.w));
    }
    uint2 v[2 * N] = {};
    const uint32_t wanted = (left > 0 ? 3 : 0) | (N > 1 && left > PIECE_STEP ? 12 : 0);
    static_assert(N <= 2 && 2 * PIECE_STEP * 32 >= NORM_MAX, "pieces wanted");
    while (wanted) {
        uint64_t w[N][2][2] = {};
        bool late = false;
#pragma unroll
        for (int k = 0; k < 2 * N; k++)
            if (wanted >> k & 1) load_words(from + k / 2 * PIECE_STEP * 32 + k % 2 * 2, w[k / 2][k % 2][0], w[k / 2][k % 2][1]);
#pragma unroll
        for (int k = 0; k < 2 * N; k++) {
            if (!(wanted >> k & 1)) continue;
            late |= is_late(w[k / 2][k % 2][0], t.tag + l.x.link) || is_late(w[k / 2][k % 2][1], t.tag + l.x.link);
            v[k] = make_uint2((uint32_t)w[k / 2][k % 2][0], (uint32_t)w[k / 2][k % 2][1]);
        }
        if (!late) break;
    }
    float y[N][4];
#pragma unroll
    for (int i = 0; i < N; i++) {
        const float x[4] = {__uint_as_float(v[2 * i].x), __uint_as_float(v[2 * i].y), __uint_as_float(v[2 * i + 1].x),
                            __uint_as_float(v[2 * i + 1].y)};
        const float gains[4] = {gain[i].x, gain[i].y, gain[i].z, gain[i].w};
#pragma unroll
        for (int k = 0; k < 4; k++) {
            sums.x += x[k];
            sums.y = fmaf(x[k], x[k], sums.y);
            y[i][k] = x[k] * gains[k];
            largest = fmaxf(largest, fabsf(y[i][k]));
        }
    }
    shared_store2(t.base + STATISTICS_AT + (statistics.number() * CONSUMING + threadIdx.x) * 8, sums);
    statistics.give();
    if constexpr (T == TFI_F16) factor = power_below(largest);
#pragma unroll
    for (int i = 0; i < N; i++)
        if (left > i * PIECE_STEP)
            shared_store_words(at.to + i * PIECE_STEP * CHUNK,
                               narrow_four<T>(y[i][0] * factor, y[i][1] * factor, y[i][2] * factor, y[i][3] * factor));
    return factor;
}

/* ---- sums ---- */

/* A row of w is so many parts; of the last one the warp has so many chunks. */
struct chain_parts {
    int count, last;

    __device__ chain_parts(int K)
    {
        const int chunks = K / 32;
        count = (chunks + PART_CHUNKS - 1) / PART_CHUNKS;
        last = (chunks - (count - 1) * PART_CHUNKS + CONSUMERS - 1 - (int)threadIdx.x / WARP) / CONSUMERS;
    }

    __device__ int after(int part) const
    {
        return part + 1 == count ? 0 : part + 1;
    }

    __device__ int mine(int part) const
    {
        return part + 1 == count ? last : (int)MINE;
    }
};

/* A group of stages, and the warp's chunks of them. */
enum { GROUP = 4 };
typedef uint4 chain_group[GROUP][MINE];

/* The next `count` stages, the first of them `part` of a row. What there is not stays what it was. */
__device__ __forceinline__ void take_group(chain_ring &ring, const chain_parts &parts, int part, int count, chain_group &w)
{
    const int lane = threadIdx.x % WARP, own = lane / 4 * ROW_STRIDE + (int)threadIdx.x / WARP * CHUNK + lane % 4 * 16;

#pragma unroll
    for (int i = 0; i < GROUP; i++) {
        if (i >= count) break;
        const int mine = parts.mine(part);
        ring.take();
#pragma unroll
        for (int k = 0; k < MINE; k++)
            if (k < mine) shared_load4(w[i][k], ring.at + own + k * CONSUMERS * CHUNK);
        ring.give_back();
        part = parts.after(part);
    }
}

/* In a product of two stages, rows 0 to 7 of A are a stage's rows of w, rows 8 to 15 the next one's; columns of B are what they are multiplied with: x, the
 * gains and the shifts for the one, each followed by that for the other. So lane (g, q) ends with the sum of row g and what q is
 * of the one stage in c[0], of the other in c[3]. */

/* A warp's sums of all the block's tiles, from its chunks of each, a group of stages at a time. The first group is in registers
 * before x is there: what follows x is as few instructions in a row as can be, and no branches. Where a row ends, x is zeros, and w
 * what was there. */
template <tfi_dtype T>
__device__ void multiply_row(const chain_thread &t, const chain_link &l, chain_ring &ring, chain_places &places)
{
    const auto &p = l.is.of.product;
    const chain_parts parts(p.K);
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const int rows = p.gain && p.norm == TFI_NORM_LAYER ? (int)SUM_ROWS : 1;
    const uint32_t z = t.base + t.c.z_at - lane / 8 * t.c.z_stride + warp * CHUNK + lane % 4 * 16;
    const uint32_t sums = t.base + SUMS_AT + (warp * SUM_ROWS * TILE + lane % 4 * TILE + lane / 4) * 4;
    const bool has_x = lane / 8 < rows, has_sums = lane % 4 < rows;
    int stages = chain_columns(l).tiles() * parts.count, part = 0, tile = 0;
    float factor = 1, total = 0;
    uint4 x[GROUP / 2][MINE] = {};
    chain_group w = {};

    if (stages == 0) return;
    take_group(ring, parts, 0, stages, w);
    places.sums.wait_for_room();
    if (p.gain && parts.count == 1) factor = stage_normed<T, 1>(t, l.is, parts.count, parts.last, places.statistics);
    else if (p.gain) factor = stage_normed<T, 2>(t, l.is, parts.count, parts.last, places.statistics);
    else stage_plain(t, l.is, parts.count, parts.last);
    __syncwarp();
    factor = lane % 4 == 0 ? __uint_as_float((254u << 23) - __float_as_uint(factor)) : 1; /* 1 / it */
#pragma unroll 1
    for (;;) {
        float c[GROUP / 2][4][4] = {}, v[GROUP];
        int at[GROUP];

        at[0] = part;
#pragma unroll
        for (int i = 1; i < GROUP; i++) at[i] = parts.after(at[i - 1]);
        part = parts.after(at[GROUP - 1]);
#pragma unroll
        for (int i = 0; i < GROUP / 2; i++) {
            const uint32_t from = z + (lane & 4 ? at[2 * i + 1] : at[2 * i]) * PART;
#pragma unroll
            for (int k = 0; k < MINE; k++)
                if (has_x) shared_load4(x[i][k], from + k * CONSUMERS * CHUNK);
        }
        const int count = stages;
#pragma unroll
        for (int k = 0; k < MINE; k++) {
#pragma unroll
            for (int i = 0; i < GROUP / 2; i++) {
                const uint4 &a = w[2 * i][k], &b = w[2 * i + 1][k];
                multiply<T>(c[i][k % 2 * 2], a.x, b.x, a.y, b.y, x[i][k].x, x[i][k].y);
                multiply<T>(c[i][k % 2 * 2 + 1], a.z, b.z, a.w, b.w, x[i][k].z, x[i][k].w);
            }
        }
        stages -= GROUP;
        if (stages > 0) take_group(ring, parts, part, stages, w);
#pragma unroll
        for (int i = 0; i < GROUP / 2; i++) {
            v[2 * i] = c[i][0][0] + c[i][1][0] + (c[i][2][0] + c[i][3][0]);
            v[2 * i + 1] = c[i][0][3] + c[i][1][3] + (c[i][2][3] + c[i][3][3]);
        }
        const uint32_t to = sums + places.sums.number() * PLACE;
#pragma unroll
        for (int i = 0; i < GROUP; i++) {
            const bool is_last = at[i] + 1 == parts.count && i < count;
            total = at[i] == 0 ? v[i] : total + v[i];
            if (is_last && has_sums) shared_store1(to + tile * TILE_SUMS * 4, __float_as_uint(total * factor));
            tile += is_last;
        }
        if (tile == BATCH || stages <= 0) {
            places.sums.give();
            tile = 0;
            if (stages <= 0) return;
            places.sums.wait_for_room();
        }
    }
}

/* ---- statistics ---- */

/* Mean, and the factor of differences to it. */
__device__ float2 statistics_of(float2 sums, int norm, int K, float eps)
{
    const float share = __fdividef(1, (float)K), mean = norm == TFI_NORM_LAYER ? sums.x * share : 0;
    float variance = fmaf(sums.y, share, -mean * mean);
    asm("max.NaN.f32 %0, %0, 0f00000000;" : "+f"(variance));
    return make_float2(mean, rsqrtf(variance + eps));
}

/* ---- y ---- */

/* Of all warps. */
__device__ float2 total_of(uint32_t sums)
{
    float2 v[CONSUMERS];
#pragma unroll
    for (int w = 0; w < CONSUMERS; w++) v[w] = shared_load2(sums + w * SUM_ROWS * TILE * 4);
    return make_float2(v[0].x + v[1].x + (v[2].x + v[3].x) + (v[4].x + v[5].x + (v[6].x + v[7].x)),
                       v[0].y + v[1].y + (v[2].y + v[3].y) + (v[4].y + v[5].y + (v[6].y + v[7].y)));
}

/* The sums of x normed, and the bias. */
__device__ float2 normed_total(bool layer, uint32_t sums, float2 statistics, float2 bias)
{
    float2 v = total_of(sums);

    if (layer) {
        const float2 gains = total_of(sums + TILE * 4), shifts = total_of(sums + 2 * TILE * 4);
        v = make_float2(fmaf(-statistics.x, gains.x, v.x), fmaf(-statistics.x, gains.y, v.y));
        bias = make_float2(bias.x + shifts.x, bias.y + shifts.y);
    }
    return make_float2(fmaf(v.x, statistics.y, bias.x), fmaf(v.y, statistics.y, bias.y));
}

__device__ float2 load_bias(const float *bias, int n, bool two)
{
    return make_float2(bias[n], two ? bias[n + 1] : 0);
}

/* Two neighbours of what y is added to. */
template <tfi_dtype T>
__device__ float2 load_residual(const chain_thread &t, const chain_link &l, int n, bool two)
{
    const tfi_link_rows &r = l.is.residual;
    const uint32_t tag = t.tag + r.link;
    const uint64_t *from = t.c.exchange + r.words + (l.residual_wide ? n : n / 4 * 2);
    uint64_t a, b;

    if (r.words < 0)
        return make_float2(load_one(r.memory, (tfi_dtype)r.dtype, n), two ? load_one(r.memory, (tfi_dtype)r.dtype, n + 1) : 0);
    do load_words(from, a, b);
    while (is_late(l.residual_wide || n % 4 == 0 ? a : b, tag) || (l.residual_wide && is_late(b, tag)));
    if (l.residual_wide) return make_float2(__uint_as_float((uint32_t)a), __uint_as_float((uint32_t)b));
    const uint32_t halves = (uint32_t)(n % 4 == 0 ? a : b);
    return make_float2(half_to_float(halves & 0xffff, T), half_to_float(halves >> 16, T));
}

/* From each consumer's share of x's sum and squares. */
__device__ float2 take_statistics(const chain_thread &t, const tfi_link &l, chain_place &measured)
{
    const int lane = threadIdx.x % WARP;
    float2 sums = make_float2(0, 0);

    measured.wait_for_all();
#pragma unroll
    for (int w = 0; w < CONSUMERS; w += 2) {
        const float2 a = shared_load2(t.base + STATISTICS_AT + (measured.number() * CONSUMING + w * WARP + lane) * 8);
        const float2 b = shared_load2(t.base + STATISTICS_AT + (measured.number() * CONSUMING + (w + 1) * WARP + lane) * 8);
        sums.x += a.x + b.x;
        sums.y += a.y + b.y;
    }
    measured.give_back();
    /* one half of the lanes goes on with one of them, the other with the other */
    const bool high = lane & 16;
    float mine = (high ? sums.y : sums.x) + __shfl_xor_sync(0xffffffffu, high ? sums.x : sums.y, 16);
#pragma unroll
    for (int k = 8; k > 0; k /= 2) mine += __shfl_xor_sync(0xffffffffu, mine, k);
    const float other = __shfl_xor_sync(0xffffffffu, mine, 16);
    return statistics_of(high ? make_float2(other, mine) : make_float2(mine, other), l.of.product.norm, l.of.product.K,
                         l.of.product.eps);
}

/* A lane makes two neighbours of y of a batch's sums. */
template <tfi_dtype T>
__device__ void finish_row(const chain_thread &t, const chain_link &l, chain_places &places)
{
    const auto &p = l.is.of.product;
    const chain_columns columns(l);
    const int lane = threadIdx.x % WARP, pair = lane % 4, tiles = columns.tiles();
    const bool layer = p.gain && p.norm == TFI_NORM_LAYER, joins = l.is.residual.words >= 0 || l.is.residual.memory;
    float2 statistics = make_float2(0, 1);
#pragma unroll 1
    for (int first = 0; first < tiles; first += BATCH) {
        const int n = columns.begin + (first + lane / 4) * columns.width + pair * 2;
        const bool has = pair * 2 < columns.width && n < columns.end, two = n + 1 < columns.all;
        const chain_target to = target_of(t, l, n, columns.all);
        float2 bias = make_float2(0, 0), right = bias, residual = bias;
        if (has && p.bias) bias = load_bias(p.bias, n, two);
        if (has && p.bias && p.gated) right = load_bias(p.bias + columns.all, n, two);
        if (has && joins) residual = load_residual<T>(t, l, n, two);
        __syncwarp();
        if (first == 0 && p.gain) statistics = take_statistics(t, l.is, places.statistics);
        places.sums.wait_for_all();
        const uint32_t sums = t.base + SUMS_AT + places.sums.number() * PLACE + (lane / 4 * TILE_SUMS + pair * 2) * 4;
        const float2 total = normed_total(layer, sums, statistics, bias);
        float v[2] = {total.x, total.y};
        if (p.gated) right = normed_total(layer, sums + TILE / 2 * 4, statistics, right);
        if (p.activation != TFI_ACT_NONE) activate<2>((tfi_activation)p.activation, v);
        if (p.gated) {
            v[0] *= right.x;
            v[1] *= right.y;
        }
        if (has) to.put<T>(make_float2(v[0] + residual.x, v[1] + residual.y));
        places.sums.give_back();
    }
}

/* ---- the kernel ---- */

template <tfi_dtype T>
__device__ void finish(const chain_thread &t)
{
    chain_places places(t);

#pragma unroll 1
    for (int i = 0; i < t.c.count; i++) {
        const chain_link &l = link_of(t, i);
        if (!t.lives(l.is)) continue;
        if (l.is.kind == TFI_LINK_PRODUCT) finish_row<T>(t, l, places);
        else finish_heads<T>(t, l, places.sums);
    }
}

template <tfi_dtype T>
__device__ void consume(const chain_thread &t)
{
    chain_ring ring(t);
    chain_places places(t);

#pragma unroll 1
    for (int i = 0; i < t.c.count; i++) {
        const chain_link &l = link_of(t, i);
        if (!t.lives(l.is)) continue;
        if (l.is.kind == TFI_LINK_PRODUCT) multiply_row<T>(t, l, ring, places);
        else attend<T>(t, l, ring, places.sums);
    }
}

/* The first link's x, which is in memory, becomes words. */
template <tfi_dtype T>
__device__ void give(const chain_thread &t)
{
    const tfi_link &l = t.c.links[0].is;
    const tfi_dtype type = (tfi_dtype)l.x.dtype;
    uint64_t *words = t.c.exchange + l.x.words;
    const uint32_t tag = t.tag + l.x.link;

    if (!t.lives(l)) return;
    for (int i = blockIdx.x * CONSUMING + threadIdx.x; i < t.c.given_columns; i += gridDim.x * CONSUMING) {
        const uint16_t *halves = (const uint16_t *)l.x.memory + 2 * i;
        if (t.c.given_wide) store_word(words + i, word_of(tag, __float_as_uint(load_one(l.x.memory, type, i))));
        else if (2 * i < t.c.given_columns) store_word(words + i, word_of(tag, halves[0] | (uint32_t)halves[1] << 16));
    }
}

#endif

/* Four warps that come here all have so many each: the kernel begins with 168, and the consumers want more than the others. */
template <int COUNT>
__device__ void give_registers()
{
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    if constexpr (COUNT > 168) asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(COUNT));
    else asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(COUNT));
#endif
}

template <tfi_dtype T>
__global__ void __launch_bounds__(THREADS, 1) chain(const __grid_constant__ chain_call c)
{
#if __CUDA_ARCH__ >= 900
    extern __shared__ __align__(128) char shared[];
    const tfi_cuda_live &live = *c.live;
    const int warp = threadIdx.x / WARP;
    uint32_t base = shared_address(shared);
    asm volatile("" : "+r"(base));
    const chain_thread t = {c, shared, base, live.tag, {live.rows[0], live.rows[1], live.rows[2]}};

    follow();
    copy_links(t);
    if (threadIdx.x == 0) {
        for (int i = 0; i < c.depth; i++) {
            barrier_init(base + FULL_AT + i * 8, 1);
            barrier_init(base + EMPTY_AT + i * 8, CONSUMERS);
        }
        for (int i = 0; i < PLACES; i++) {
            barrier_init(base + SUMS_FULL_AT + i * 8, CONSUMERS);
            barrier_init(base + SUMS_EMPTY_AT + i * 8, 1);
            barrier_init(base + STATISTICS_FULL_AT + i * 8, CONSUMERS);
            barrier_init(base + STATISTICS_EMPTY_AT + i * 8, 1);
        }
        barriers_are_there();
    }
    __syncthreads();
    if (warp < CONSUMERS) {
        give_registers<216>();
        wait_for_results();
        give<T>(t);
        consume<T>(t);
        return;
    }
    give_registers<72>();
    if (warp == PRODUCER) {
        produce(t);
    } else if (warp == FINISHER) {
        wait_for_results();
        finish<T>(t);
    }
#endif
}

/* ---- host ---- */

enum { SHARED = 224 * 1024, DEPTH_MIN = 2, TOKENS_MAX = 2048 };

/* Of x, in whole parts. */
int z_bytes_of(int K)
{
    return (K * 2 + PART - 1) / PART * PART;
}

int64_t depth_for(int64_t links, int64_t z_bytes)
{
    const int64_t depth = (SHARED - FREE_AT - links * (int64_t)sizeof(chain_link) - z_bytes - 256) / STAGE;
    return depth < DEPTH_MAX ? depth : DEPTH_MAX;
}

bool is_there(const tfi_link_rows *r)
{
    return r->words >= 0 || r->memory;
}

bool fits_product(const tfi_link *l, tfi_dtype type)
{
    const auto &p = l->of.product;

    if (p.K < 32 || p.K % 32 || p.N < 1 || (p.gated && p.N % 2) || !in_vectors(p.K, p.w)) return false;
    if (p.gain && (p.K > NORM_MAX || !in_vectors(p.K, p.gain, p.shift))) return false;
    if (l->x.dtype != type && !(p.gain && l->x.dtype == TFI_F32)) return false;
    if (l->y.dtype != type && l->y.dtype != TFI_F32) return false;
    if (is_there(&l->residual) && (p.gated || l->residual.dtype != l->y.dtype)) return false;
    return depth_for(TFI_CHAIN_LINKS, (SUM_ROWS - 1) * z_stride_of(NORM_MAX) + z_bytes_of(p.K)) >= DEPTH_MIN;
}

bool fits_attention(const tfi_link *l, tfi_dtype type, int64_t max_tokens)
{
    const auto &a = l->of.attention;

    if (a.D < 8 || a.D % 8 || a.D > 128 || (!a.source && a.column % 8) || max_tokens > TOKENS_MAX) return false;
    return l->x.dtype == type && l->y.dtype == type;
}

/* As is_wide(), of what the link reads. */
bool wants_wide(const tfi_link *l)
{
    return l->kind == TFI_LINK_PRODUCT && l->of.product.gain;
}

int64_t columns_of_y(const tfi_link *l)
{
    if (l->kind == TFI_LINK_ATTENTION) return (int64_t)l->of.attention.H * l->of.attention.D;
    return l->of.product.gated ? l->of.product.N / 2 : l->of.product.N;
}

/* Of the link that wrote these rows. */
bool came_wide(const tfi_chain_args *a, const tfi_link_rows *r)
{
    return r->words >= 0 && is_wide(&a->links[r->link - a->number]);
}

void make_link(const tfi_chain_args *a, const tfi_link *from, int blocks, chain_link *to)
{
    const int64_t tiles = tfi_cuda_link_shares(from);

    to->is = *from;
    to->is.first = from->first % blocks;
    to->each = (int16_t)(tiles / blocks);
    to->more = (int16_t)(tiles % blocks);
    to->residual_wide = came_wide(a, &from->residual);
    to->y_wide = is_wide(from);
    if (from->kind == TFI_LINK_ATTENTION) to->blocks = (int16_t)kv_blocks_of_stage(from->of.attention.D);
}

int columns_of_x(const tfi_link *l)
{
    if (l->kind == TFI_LINK_PRODUCT) return l->of.product.K;
    const int inner = l->of.attention.H * l->of.attention.D;
    return l->of.attention.source ? inner : l->of.attention.column + 2 * inner;
}

void make_call(const tfi_cuda_launch *l, const tfi_chain_args *a, int blocks, chain_call *c)
{
    int z_bytes = 0;

    c->live = l->live;
    c->exchange = (uint64_t *)a->exchange;
    if (a->own.store) c->own = kv_call_of(&a->own, TFI_ATTEND_CACHE);
    if (a->source.store) c->source = kv_call_of(&a->source, TFI_ATTEND_SOURCE);
    c->own.layer_at = c->source.layer_at = 0;
    c->count = a->count;
    for (int i = 0; i < a->count; i++) {
        const tfi_link *link = &a->links[i];
        make_link(a, link, blocks, &c->links[i]);
        if (link->kind != TFI_LINK_PRODUCT) continue;
        z_bytes = max(z_bytes, z_bytes_of(link->of.product.K));
        if (link->of.product.gain) c->z_stride = max(c->z_stride, z_stride_of(link->of.product.K));
    }
    c->given_columns = columns_of_x(a->links);
    c->given_wide = wants_wide(a->links);
    c->links[0].is.x.words = a->given;
    c->links[0].is.x.link = (int16_t)a->number;
    c->z_at = (int)((FREE_AT + a->count * sizeof(chain_link) + 127) / 128 * 128) + (SUM_ROWS - 1) * c->z_stride;
    c->ring_at = (int)((c->z_at + z_bytes + 127) / 128 * 128);
    c->depth = (int)depth_for(a->count, (SUM_ROWS - 1) * c->z_stride + z_bytes);
}

template <tfi_dtype T>
tf_status launch(const tfi_cuda_launch *l, const tfi_chain_args *a)
{
    const auto kernel = chain<T>;
    cudaLaunchConfig_t config = {};
    cudaLaunchAttribute attributes[2] = {};
    chain_call c = {};

    make_call(l, a, l->multiprocessors, &c);
    config.gridDim = (unsigned)l->multiprocessors;
    config.blockDim = THREADS;
    config.dynamicSmemBytes = (size_t)(c.ring_at + c.depth * STAGE);
    config.stream = l->stream;
    config.attrs = attributes;
    config.numAttrs = l->waits ? 1 : 2;
    attributes[0].id = cudaLaunchAttributeCooperative;
    attributes[0].val.cooperative = 1;
    attributes[1].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attributes[1].val.programmaticStreamSerializationAllowed = 1;
    (void)cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)config.dynamicSmemBytes);
    return started("a chain", cudaLaunchKernelEx(&config, kernel, c));
}

} // namespace

extern "C" int tfi_cuda_link_fits(const tfi_link *link, tfi_dtype type, int64_t max_tokens, int capability)
{
    if (capability < 90 || capability / 10 == 12 /* it has half the shared memory */ || (type != TFI_BF16 && type != TFI_F16))
        return 0;
    return link->kind == TFI_LINK_PRODUCT ? fits_product(link, type) : fits_attention(link, type, max_tokens);
}

extern "C" int tfi_cuda_links_meet(const tfi_link *writer, const tfi_link *reader)
{
    return is_wide(writer) == wants_wide(reader);
}

/* Steps of all models that were measured take less time as chains, and so two links may be taken to. */
extern "C" int tfi_cuda_chain_pays(const tfi_link *, int count)
{
    return count > 1;
}

extern "C" int64_t tfi_cuda_link_shares(const tfi_link *link)
{
    return link->kind == TFI_LINK_ATTENTION ? link->of.attention.H : (columns_of_y(link) + 1) / 2;
}

/* Narrow ones would do with half as many. */
extern "C" int64_t tfi_cuda_link_words(const tfi_link *link)
{
    return (columns_of_y(link) + 1) / 2 * 2;
}

extern "C" tf_status tfi_cuda_chain(const tfi_cuda_launch *l, const tfi_chain_args *a)
{
    if (a->count == 0) return TF_STATUS_OK;
    return a->type == TFI_BF16 ? launch<TFI_BF16>(l, a) : launch<TFI_F16>(l, a);
}
