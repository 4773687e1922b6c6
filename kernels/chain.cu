/* A decode step's ops, one after the other in one launch: products of 1 to 8 rows with their norms, and attention of single rows.
 *
 * Shapes    those of few.cu and attention_decode.cu in BF16 and F16; up to 256 links, a link the product or attention with what
 *           stands before and after it
 * Parallel  a block a multiprocessor, all of them resident. Tiles of 8 rows of w (gated: 4 and the 4 of the right half), and items
 *           (row, head) of attention, are dealt out to blocks in turn. Four warps of a block, the producers, walk over the links
 *           and keep a ring of 16 KB stages full by bulk copies: weights, stored keys and values. They wait for no other block,
 *           so they run ahead while the other warps wait. Those, 8 of them, have every eighth chunk of 32 columns each: of x,
 *           which they take from the exchange into mma's order in shared memory for themselves alone, and of w. Sums of up to 4
 *           tiles meet at one barrier of the 8 warps; a norm takes another, for the statistics.
 * Exchange  y is written as words of 32 bits of elements and 32 of tag, which are read and written in one piece: who finds the tag
 *           has the elements. So no fence, no flag, and no second trip. A block that has no tile in a link reads nothing of it,
 *           and none writes a word of y before all of x has come: so a link may write the words of those before the last one.
 * Order     Blocks take links in order and a link waits only for earlier ones, so with all blocks resident (a cooperative
 *           launch) someone can always go on.
 * Needs     9.0; K a multiple of 32; with a norm up to 2048; heads of a multiple of 8 up to 128
 * Floor     bytes of w / 4.3 TB/s, or for small links what follows one another: a word's way from block to block is 1.0 us at
 *           rest, and what a block does between words about 0.5 us. Predicted for a layer of GPT-2 124M of five links 8 us, XL 17.
 * Measured  on an H200, one row, 140 tokens, microseconds a step with the head, in brackets few.cu and decode attention one after
 *           the other: T5-3B BF16 1226 (1330), XL F16 1424 (1330), medium 469, 124M without head 202 (165), T5-base 320 (265). So
 *           the prediction was wrong, and tfi_cuda_chain_pays() says when it does. A layer of 124M takes 17 us, of which words
 *           take 5; the rest is some 400 instructions in a row from x to y of each link. 4 rows take 1.4 to 1.5 times as long.
 * Lost      One producer: 15 % more, a copy takes its warp 60 cycles. Links from the constant bank: a miss is 700 cycles. Naps
 *           between polls: 9 % more. All of a link once for nothing while x is not there, to have its code near: 15 % more. Two
 *           stages at a time: more code, no gain. Only 2 to 6 copies under way: nothing for small models, 4 to 8 % less for XL
 *           and T5-3B, but with several producers a stage's parity does not tell one lap of the ring from the next but one. */
#include "activation.cuh"
#include "chain_attention.cuh"

namespace
{

#if __CUDA_ARCH__ >= 900 || !defined(__CUDA_ARCH__)

/* ---- the producer ---- */

__device__ int width_of(const tfi_link &l)
{
    return l.of.product.gated ? TILE / 2 : TILE;
}

__device__ int columns_of(const tfi_link &l)
{
    return l.of.product.gated ? l.of.product.N / 2 : l.of.product.N;
}

__device__ void prefetch(const void *p)
{
    asm volatile("prefetch.global.L2 [%0];" ::"l"(p));
}

/* What the consumers are going to load: a bias is the block's own, a norm's rows are all blocks'. */
__device__ void prefetch_vectors(const tfi_link &l, const chain_share &share)
{
    const auto &p = l.of.product;
    const int lane = threadIdx.x % WARP, width = width_of(l);

    if (p.gain && share.first == 0) {
#pragma unroll 1
        for (int i = lane * 32; i < p.K; i += WARP * 32) {
            prefetch(p.gain + i);
            if (p.shift) prefetch(p.shift + i);
        }
    }
    if (!p.bias) return;
#pragma unroll 1
    for (int i = lane; i < share.count; i += WARP) {
        prefetch(p.bias + (share.first + i * gridDim.x) * width);
        if (p.gated) prefetch(p.bias + (share.first + i * gridDim.x) * width + p.N / 2);
    }
}

/* A lane copies a row's part. */
__device__ void supply_product(const chain_thread &t, const chain_link &l, chain_supply &ring)
{
    const auto &p = l.is.of.product;
    const int lane = threadIdx.x % WARP, width = width_of(l.is), columns = columns_of(l.is), bytes = p.K * 2;
    const chain_share share = share_of(l);
    const int step = gridDim.x * width, count = share.count, right = lane / width * columns; /* gated: N / 2 columns */
    const char *w = (const char *)p.w + (int64_t)right * bytes;

#pragma unroll 1
    for (int i = 0, first = share.first * width; i < count; i++, first += step) {
        const char *row = w + (int64_t)min(first + lane % width, columns - 1) * bytes;
#pragma unroll 1
        for (int begin = 0; begin < bytes; begin += PART) {
            if (ring.is_mine()) {
                const int size = min((int)PART, bytes - begin);
                ring.expect(size * TILE);
                if (lane < TILE) copy_bytes(ring.at + lane * ROW_STRIDE, row + begin, size, ring.full);
            }
            ring.leave();
        }
    }
}

__device__ void produce(const chain_thread &t)
{
    chain_supply ring(t);
    bool waited = false;

#pragma unroll 1
    for (int i = 0; i < t.c.count; i++) {
        const chain_link &l = link_of(t, i);
        const chain_share share = share_of(l);
        const int rows = t.rows(l.is);
        if (rows <= 0 || share.count == 0) continue;
        if (l.is.kind == TFI_LINK_PRODUCT) {
            supply_product(t, l, ring);
            if (threadIdx.x < CONSUMING + WARP) prefetch_vectors(l.is, share);
            continue;
        }
        if (!waited) wait_for_results(); /* of this run's KV_COPY */
        if (!waited) asm volatile("fence.proxy.async.global;" ::: "memory");
        waited = true;
        supply_attention(t, l, ring, rows);
    }
}

/* ---- x ---- */

/* 16 bytes of a row of x are kept in the order in which they are mma's A: the lane's elements of its row of x with the first
 * two words of w in rows 0 to 7, with the other two in rows 8 to 15. What A's rows make with the other words is not read. */
__device__ uint4 in_order(const uint4 &x)
{
    return make_uint4(x.x, x.z, x.y, x.w);
}

/* Chunks of so many that are the warp's. */
__device__ int chunks_of(int chunks)
{
    return (chunks + CONSUMERS - 1 - (int)threadIdx.x / WARP) / CONSUMERS;
}

/* Eight columns: number i of the warp's, four a chunk. */
__device__ int column_of(int i)
{
    return (i / 4 * CONSUMERS + (int)threadIdx.x / WARP) * 32 + i % 4 * 8;
}

__device__ int row_of(const tfi_link &l, int m)
{
    return l.of.product.from ? l.of.product.from[m] : m;
}

/* The warp's chunks of all rows. */
template <tfi_dtype T>
__device__ void stage_rows(const chain_thread &t, const tfi_link &l, int rows)
{
    enum { HELD = 4 };
    const chain_source x(t, l.x);
    const int K = l.of.product.K, eights = chunks_of(K / 32) * 4;
    int m = 0, i = threadIdx.x % WARP;

    while (m < rows && eights > 0) {
        int at[HELD], to[HELD];
        raw_elements<8> v[HELD];
#pragma unroll
        for (int k = 0; k < HELD; k++) {
            for (; m < rows && i >= eights; i -= eights) m++;
            at[k] = m < rows ? row_of(l, m) * K + column_of(i) : -1;
            to[k] = m < rows ? m * t.c.z_stride + column_of(i) * 2 : -1;
            i += WARP;
        }
        take_eights<T>(x, at, v);
#pragma unroll
        for (int k = 0; k < HELD; k++)
            if (to[k] >= 0) shared_store4(t.base + t.c.z_at + to[k], in_order(v[k].low));
    }
}

/* The warp's chunks of one row, by pieces of four columns. */
__device__ void stage_row(const chain_thread &t, const tfi_link &l)
{
    enum { N = 4, STEP = WARP / 8 * CONSUMERS }; /* pieces at a time; chunks from piece to piece of a lane */
    const int lane = threadIdx.x % WARP, chunk = lane / 8 * CONSUMERS + (int)threadIdx.x / WARP;
    const uint64_t *from = t.c.exchange + l.x.words + row_of(l, 0) * (l.of.product.K / 2) + chunk * 16 + lane % 8 * 2;
    uint32_t to = t.base + t.c.z_at + chunk * CHUNK + lane % 8 / 2 * 16 + lane % 2 * 4;

#pragma unroll 1
    for (int left = l.of.product.K / 32 - chunk; left > 0; left -= N * STEP, from += N * STEP * 16, to += N * STEP * CHUNK) {
        const uint32_t wanted = (left > 0) | (left > STEP) << 1 | (left > 2 * STEP) << 2 | (left > 3 * STEP) << 3;
        uint2 v[N];
        take_pieces<N>(from, STEP * 16, wanted, t.tag + l.x.link, v);
#pragma unroll
        for (int k = 0; k < N; k++) {
            if (!(wanted >> k & 1)) break;
            shared_store1(to + k * STEP * CHUNK, v[k].x);
            shared_store1(to + k * STEP * CHUNK + 8, v[k].y);
        }
    }
}

template <tfi_dtype T>
__device__ void put_eight(uint32_t to, const float (&v)[8])
{
    uint32_t words[4];
#pragma unroll
    for (int k = 0; k < 4; k++) words[k] = float_to_halves(v[2 * k], v[2 * k + 1], T);
    shared_store4(to, in_order(make_uint4(words[0], words[1], words[2], words[3])));
}

/* From sums of differences to a number, and of their squares: factor, and what to add to differences times factor. */
__device__ float2 scale_of(float2 sums, bool layer, float share, float eps)
{
    const float mean = layer ? sums.x * share : 0;
    float variance = fmaf(sums.y, share, -mean * mean);
    asm("max.NaN.f32 %0, %0, 0f00000000;" : "+f"(variance));
    const float factor = rsqrtf(variance + eps);
    return make_float2(factor, -mean * factor);
}

__device__ void widen_by(const raw_elements<8> &raw, tfi_dtype X, float near, float (&v)[8], float2 &sums)
{
    widen(raw, X, v);
#pragma unroll
    for (int k = 0; k < 8; k++) {
        v[k] -= near;
        sums.x += v[k];
        sums.y += v[k] * v[k];
    }
}

/* The mean of a row's first two elements. Sums are taken of differences to it: then the variance, made of them in one go, is off
 * by K / 2 rounding errors at most. */
template <tfi_dtype X>
__device__ float begin_of(const chain_source &x, const chain_pair &pair, int row, int K)
{
    if (!x.words) return 0.5f * (load_one(x.memory, X, (int64_t)row * K) + load_one(x.memory, X, (int64_t)row * K + 1));
    const float2 v = wait_for_pair<X>(pair, x.words + row * (X == TFI_F32 ? K : K / 2), x.tag, X == TFI_F32);
    return 0.5f * (v.x + v.y);
}

template <tfi_dtype X>
__device__ chain_pair ask_for_begin(const chain_source &x, int row, int K)
{
    chain_pair p = {};
    if (x.words) p = load_pair(x.words + row * (X == TFI_F32 ? K : K / 2), X == TFI_F32);
    return p;
}

/* Four neighbours of a row that comes as words. */
template <tfi_dtype X>
__device__ void widen_four(const uint2 (&v)[X == TFI_F32 ? 2 : 1], float (&out)[4])
{
    if constexpr (X == TFI_F32) {
        out[0] = __uint_as_float(v[0].x);
        out[1] = __uint_as_float(v[0].y);
        out[2] = __uint_as_float(v[1].x);
        out[3] = __uint_as_float(v[1].y);
    } else {
        out[0] = half_to_float(v[0].x & 0xffff, X);
        out[1] = half_to_float(v[0].x >> 16, X);
        out[2] = half_to_float(v[0].y & 0xffff, X);
        out[3] = half_to_float(v[0].y >> 16, X);
    }
}

/* One row, normed: each warp its own chunks, a lane 4 N elements of them, N being 1 or, with more than 1024 columns, 2. */
template <tfi_dtype T, tfi_dtype X, int N>
__device__ void norm_row(const chain_thread &t, const tfi_link &l)
{
    enum { STEP = WARP / 8 * CONSUMERS, PIECES = X == TFI_F32 ? 2 : 1, WORDS = 4 * PIECES / 2 /* of 4 elements */ };
    const auto &p = l.of.product;
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, K = p.K;
    const int chunk = lane / 8 * CONSUMERS + warp, column = chunk * 32 + lane % 8 * 4;
    const bool layer = p.norm == TFI_NORM_LAYER;
    const uint32_t tag = t.tag + l.x.link;
    const uint64_t *begin = t.c.exchange + l.x.words + row_of(l, 0) * (K / 4 * WORDS);
    const bool plain = l.x.words < 0;
    const char *memory = (const char *)l.x.memory + (int64_t)row_of(l, 0) * K * (X == TFI_F32 ? 4 : 2);
    const chain_pair first = layer && !plain ? load_pair(begin, X == TFI_F32) : chain_pair{};
    float v[N][4], near = 0;
    float4 gain[N] = {}, shift[N] = {};
    float2 sums = make_float2(0, 0);

#pragma unroll
    for (int i = 0; i < N; i++) {
        const int at = column + i * STEP * 32;
        if (at >= K) break;
        gain[i] = *(const float4 *)(p.gain + at);
        if (p.shift) shift[i] = *(const float4 *)(p.shift + at);
    }
    uint2 pieces[N][PIECES] = {};
#pragma unroll
    for (int i = 0; i < N; i++) {
        const int at = column + i * STEP * 32;
        if (at >= K) break;
        if (!plain) take_pieces<PIECES>(begin + at / 4 * WORDS, 2, (1 << PIECES) - 1, tag, pieces[i]);
        else memcpy(pieces[i], memory + at * PIECES * 2, sizeof pieces[i]);
    }
    if (layer && plain) {
        near = load_one(memory, X, 0);
    } else if (layer) {
        const float2 two = wait_for_pair<X>(first, begin, tag, X == TFI_F32);
        near = 0.5f * (two.x + two.y);
    }
#pragma unroll
    for (int i = 0; i < N; i++) {
        widen_four<X>(pieces[i], v[i]);
#pragma unroll
        for (int k = 0; k < 4; k++) {
            v[i][k] -= column + i * STEP * 32 < K ? near : 0;
            sums.x += v[i][k];
            sums.y += v[i][k] * v[i][k];
        }
    }
#pragma unroll
    for (int i = WARP / 2; i > 0; i /= 2) {
        sums.x += __shfl_xor_sync(0xffffffffu, sums.x, i);
        sums.y += __shfl_xor_sync(0xffffffffu, sums.y, i);
    }
    if (lane == 0) shared_store2(t.base + STATISTICS_AT + warp * 8, sums);
    meet_consumers();
    sums = make_float2(0, 0);
#pragma unroll
    for (int w = 0; w < CONSUMERS; w += 2) {
        const uint4 two = shared_load4(t.base + STATISTICS_AT + w * 8);
        sums.x += __uint_as_float(two.x) + __uint_as_float(two.z);
        sums.y += __uint_as_float(two.y) + __uint_as_float(two.w);
    }
    const float2 scale = scale_of(sums, layer, __fdividef(1, (float)K), p.eps);
    const uint32_t to = t.base + t.c.z_at + chunk * CHUNK + lane % 8 / 2 * 16 + lane % 2 * 4;
#pragma unroll
    for (int i = 0; i < N; i++) {
        if (column + i * STEP * 32 >= K) break;
#pragma unroll
        for (int k = 0; k < 4; k++) v[i][k] = fmaf(v[i][k], scale.x, scale.y);
        const float a = fmaf(v[i][0], gain[i].x, shift[i].x), b = fmaf(v[i][1], gain[i].y, shift[i].y);
        const float c = fmaf(v[i][2], gain[i].z, shift[i].z), d = fmaf(v[i][3], gain[i].w, shift[i].w);
        shared_store1(to + i * STEP * CHUNK, float_to_halves(a, b, T));
        shared_store1(to + i * STEP * CHUNK + 8, float_to_halves(c, d, T));
    }
}

/* Eight columns of a row that one warp has: number i of the lane's. */
__device__ int column_of_lane(int i)
{
    return (i * WARP + (int)threadIdx.x % WARP) * 8;
}

/* Several rows, normed: each warp one of them. */
template <tfi_dtype T, tfi_dtype X>
__device__ void norm_rows(const chain_thread &t, const tfi_link &l, int rows)
{
    enum { HELD = 2, EIGHTS = NORM_MAX / 8 / WARP };
    const auto &p = l.of.product;
    const int m = threadIdx.x / WARP, K = p.K;
    const bool layer = p.norm == TFI_NORM_LAYER;
    const chain_source x(t, l.x);
    raw_elements<8> raw[EIGHTS / HELD][HELD];
    float2 sums = make_float2(0, 0);
    float near = 0;

    if (m < rows) {
        const int row = row_of(l, m);
        const chain_pair begin = layer ? ask_for_begin<X>(x, row, K) : chain_pair{};
#pragma unroll
        for (int i = 0; i < EIGHTS; i += HELD) {
            int at[HELD];
            if (column_of_lane(i) - column_of_lane(0) >= K) break;
#pragma unroll
            for (int k = 0; k < HELD; k++) at[k] = column_of_lane(i + k) < K ? row * K + column_of_lane(i + k) : -1;
            take_eights<X>(x, at, raw[i / HELD]);
            if (i == 0 && layer) near = begin_of<X>(x, begin, row, K);
#pragma unroll
            for (int k = 0; k < HELD; k++) {
                float v[8];
                if (column_of_lane(i + k) < K) widen_by(raw[i / HELD][k], X, near, v, sums);
            }
        }
        sums = make_float2(warp_sum(sums.x), warp_sum(sums.y));
        const float2 scale = scale_of(sums, layer, __fdividef(1, (float)K), p.eps);
#pragma unroll
        for (int i = 0; i < EIGHTS; i++) {
            const int column = column_of_lane(i);
            float v[8], gain[8], shift[8] = {};
            if (column >= K) break;
            load<8>(p.gain, TFI_F32, column, gain);
            if (p.shift) load<8>(p.shift, TFI_F32, column, shift);
            widen(raw[i / HELD][i % HELD], X, v);
#pragma unroll
            for (int k = 0; k < 8; k++) v[k] = fmaf(fmaf(v[k] - near, scale.x, scale.y), gain[k], shift[k]);
            put_eight<T>(t.base + t.c.z_at + m * t.c.z_stride + column * 2, v);
        }
    }
    meet_consumers();
}

template <tfi_dtype T, tfi_dtype X, bool ONE>
__device__ void stage_normed(const chain_thread &t, const tfi_link &l, int rows)
{
    if (!ONE) norm_rows<T, X>(t, l, rows);
    else if (l.of.product.K <= NORM_MAX / 2) norm_row<T, X, 1>(t, l);
    else norm_row<T, X, 2>(t, l);
}

template <tfi_dtype T, bool ONE>
__device__ void stage_x(const chain_thread &t, const tfi_link &l, int rows)
{
    if (!l.of.product.gain && ONE && l.x.words >= 0) stage_row(t, l);
    else if (!l.of.product.gain) stage_rows<T>(t, l, rows);
    else if (l.x.dtype == TFI_F32) stage_normed<T, TFI_F32, ONE>(t, l, rows);
    else stage_normed<T, T, ONE>(t, l, rows);
    __syncwarp();
}

/* ---- sums ---- */

template <tfi_dtype T>
__device__ void multiply(float (&c)[4], const uint4 &a, uint32_t b0, uint32_t b1)
{
    if constexpr (T == TFI_BF16)
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                     "{%0, %1, %2, %3};"
                     : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                     : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "r"(b0), "r"(b1));
    else
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                     "{%0, %1, %2, %3};"
                     : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                     : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "r"(b0), "r"(b1));
}

/* The warp's sums, [rows, TILE], of `count` tiles; sums of even and odd chunks are apart so that fewer wait for one another. It is
 * short for a reason: what a layer's links execute has to stay in the instruction cache. */
template <tfi_dtype T>
__device__ void add_tiles(const chain_thread &t, chain_ring &ring, int K, int rows, int count, uint32_t to)
{
    enum { CHUNKS = PART / CHUNK, MINE = CHUNKS / CONSUMERS };
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, in_chunk = warp * CHUNK + lane % 4 * 16;
    const int w = lane / 4 * ROW_STRIDE + in_chunk;
    const uint32_t z = t.base + t.c.z_at + lane / 4 * t.c.z_stride + in_chunk;
    const bool has = lane / 4 < rows;

    to += warp * TFI_CHAIN_ROWS * TILE * 4 + lane * 8;
#pragma unroll 1
    for (int i = 0; i < count; i++, to += TILE_SUMS * 4) {
        float sums[2][2][4] = {};
        uint32_t x = z;
#pragma unroll 1
        for (int chunks = K / 32; chunks > 0; chunks -= CHUNKS, x += PART) {
            const int mine = chunks >= CHUNKS ? MINE : chunks_of(chunks);
            const uint32_t at = ring.at + w;
            uint4 a[MINE], b[MINE];
            ring.take();
#pragma unroll
            for (int k = 0; k < MINE; k++) {
                a[k] = make_uint4(0, 0, 0, 0);
                if (k < mine) b[k] = shared_load4(at + k * CONSUMERS * CHUNK);
                if (k < mine && has) a[k] = shared_load4(x + k * CONSUMERS * CHUNK);
            }
#pragma unroll
            for (int k = 0; k < MINE; k++) {
                if (k >= mine) break;
                multiply<T>(sums[k % 2][0], a[k], b[k].x, b[k].y);
                multiply<T>(sums[k % 2][1], a[k], b[k].z, b[k].w);
            }
            ring.give_back();
        }
        if (has)
            shared_store2(to, make_float2(sums[0][0][0] + sums[0][1][2] + (sums[1][0][0] + sums[1][1][2]),
                                          sums[0][0][1] + sums[0][1][3] + (sums[1][0][1] + sums[1][1][3])));
    }
}

/* ---- y ---- */

/* Which two neighbours of y the thread makes of a batch's sums, and what joins them. */
struct chain_output {
    uint32_t sums; /* 0: none */
    chain_target to;
    float2 bias, other;
    const uint64_t *joins; /* NULL: no residual */
    chain_pair residual;
};

__device__ float2 load_bias(const float *bias, int n, bool two)
{
    return make_float2(bias[n], two ? bias[n + 1] : 0);
}

/* As if it had been words. */
__device__ chain_pair pair_of_memory(const void *p, int64_t at, uint32_t tag, const chain_target &like)
{
    const tfi_dtype type = like.wide ? TFI_F32 : TFI_F16; /* bits are all that is wanted */
    const uint32_t a = load_raw<1>(p, type, at).bits, b = like.two ? load_raw<1>(p, type, at + 1).bits : 0;
    return {{word_of(tag, like.wide ? a : b << 16 | a), word_of(tag, b)}};
}

template <tfi_dtype T, bool ONE>
__device__ chain_output prepare(const chain_thread &t, const tfi_link &l, int first, int count, int rows, uint32_t sums)
{
    const auto &p = l.of.product;
    const int shift = ONE ? 0 : rows > 4 ? 3 : rows > 2 ? 2 : rows > 1 ? 1 : 0, pair = threadIdx.x % 4, of = threadIdx.x / 4;
    const int width = width_of(l), columns = columns_of(l), tile = of >> shift, m = of & ((1 << shift) - 1);
    const int n = (first + tile * (int)gridDim.x) * width + pair * 2;
    chain_output o = {};

    if (tile >= count || m >= rows || pair * 2 >= width || n >= columns) return o;
    o.sums = sums + (tile * TILE_SUMS + m * TILE + pair * 2) * 4;
    o.to = target_of(t, l.y, m, n, columns);
    if (p.bias) o.bias = load_bias(p.bias, n, o.to.two);
    if (p.bias && p.gated) o.other = load_bias(p.bias + columns, n, o.to.two);
    if (l.residual.words >= 0) {
        o.joins = t.c.exchange + l.residual.words + pair_at(m, n, columns, o.to.wide);
        o.residual = load_pair(o.joins, o.to.wide);
    } else if (l.residual.memory) {
        o.joins = t.c.exchange;
        o.residual = pair_of_memory(l.residual.memory, (int64_t)m * columns + n, t.tag + l.residual.link, o.to);
    }
    return o;
}

__device__ float2 total_of(uint32_t sums, float2 total)
{
    float2 v[CONSUMERS];
#pragma unroll
    for (int w = 0; w < CONSUMERS; w++) v[w] = shared_load2(sums + w * TFI_CHAIN_ROWS * TILE * 4);
    total.x += v[0].x + v[1].x + (v[2].x + v[3].x) + (v[4].x + v[5].x + (v[6].x + v[7].x));
    total.y += v[0].y + v[1].y + (v[2].y + v[3].y) + (v[4].y + v[5].y + (v[6].y + v[7].y));
    return total;
}

template <tfi_dtype T>
__device__ void finish(const chain_thread &t, const tfi_link &l, const chain_output &o)
{
    const auto &p = l.of.product;

    if (o.sums == 0) return;
    const float2 total = total_of(o.sums, o.bias);
    float v[2] = {total.x, total.y};
    if (p.activation != TFI_ACT_NONE) activate<2>((tfi_activation)p.activation, v);
    if (p.gated) {
        const float2 right = total_of(o.sums + TILE / 2 * 4, o.other);
        v[0] *= right.x;
        v[1] *= right.y;
    }
    if (o.joins) {
        const float2 r = wait_for_pair<T>(o.residual, o.joins, t.tag + l.residual.link, o.to.wide);
        v[0] += r.x;
        v[1] += r.y;
    }
    o.to.put<T>(make_float2(v[0], v[1]));
}

template <tfi_dtype T, bool ONE>
__device__ void product(const chain_thread &t, const chain_link &l, chain_ring &ring, int rows, int *turn)
{
    const chain_share share = share_of(l);

    if (share.count == 0) return;
#pragma unroll 1
    for (int i = 0; i < share.count; i += BATCH) {
        const int count = min(share.count - i, (int)BATCH);
        const uint32_t sums = t.base + SUMS_AT + *turn * MEETING * 4;
        const chain_output o = prepare<T, ONE>(t, l.is, share.first + i * gridDim.x, count, rows, sums);
        if (i == 0) stage_x<T, ONE>(t, l.is, rows);
        add_tiles<T>(t, ring, l.is.of.product.K, ONE ? 1 : rows, count, sums);
        meet_consumers();
        finish<T>(t, l.is, o);
        *turn ^= 1;
    }
}

/* ---- the kernel ---- */

template <tfi_dtype T, bool ONE>
__device__ void consume(const chain_thread &t)
{
    chain_ring ring(t);
    int turn = 0;

    wait_for_results();
#pragma unroll 1
    for (int i = 0; i < t.c.count; i++) {
        const chain_link &l = link_of(t, i);
        const int rows = t.rows(l.is);
        if (rows <= 0) continue;
        if (l.is.kind == TFI_LINK_PRODUCT) product<T, ONE>(t, l, ring, rows, &turn);
        else attend<T>(t, l, ring, rows, &turn);
    }
}

#endif

/* ONE: no more than one row, which has less code. */
template <tfi_dtype T, bool ONE>
__global__ void __launch_bounds__(THREADS, 1) chain(const __grid_constant__ chain_call c)
{
#if __CUDA_ARCH__ >= 900
    extern __shared__ __align__(128) char shared[];
    const tfi_cuda_live &live = *c.live;
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
        barriers_are_there();
    }
    __syncthreads();
    if (threadIdx.x >= CONSUMING) produce(t);
    else consume<T, ONE>(t);
#endif
}

/* ---- host ---- */

enum { SHARED = 224 * 1024, DEPTH_MIN = 2, TOKENS_MAX = 2048 };

int64_t z_stride_of(int64_t K)
{
    return (K * 2 + 127) / 128 * 128 + CHUNK;
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

bool fits_product(const tfi_link *l, tfi_dtype type, int64_t M)
{
    const auto &p = l->of.product;

    if (p.K < 32 || p.K % 32 || p.N < 1 || (p.gated && p.N % 2) || !in_vectors(p.K, p.w, l->x.memory)) return false;
    if (p.gain && (p.K > NORM_MAX || !in_vectors(p.K, p.gain, p.shift))) return false;
    if (l->x.dtype != type && !(p.gain && l->x.dtype == TFI_F32)) return false;
    if (l->y.dtype != type && l->y.dtype != TFI_F32) return false;
    if (is_there(&l->residual) && (p.gated || l->residual.dtype != l->y.dtype)) return false;
    return depth_for(TFI_CHAIN_LINKS, M * z_stride_of(p.K)) >= DEPTH_MIN;
}

bool fits_attention(const tfi_link *l, tfi_dtype type, int64_t max_tokens)
{
    const auto &a = l->of.attention;

    if (a.D < 8 || a.D % 8 || a.D > 128 || (!a.source && a.column % 8) || max_tokens > TOKENS_MAX) return false;
    return l->x.dtype == type && l->y.dtype == type && in_vectors(8, l->x.memory);
}

int64_t columns_of_y(const tfi_link *l)
{
    if (l->kind == TFI_LINK_ATTENTION) return (int64_t)l->of.attention.H * l->of.attention.D;
    return l->of.product.gated ? l->of.product.N / 2 : l->of.product.N;
}

void make_link(const tfi_link *from, int64_t M, int blocks, chain_link *to)
{
    const int64_t tiles = tfi_cuda_link_tiles(from, M);

    to->is = *from;
    to->is.first = from->first % blocks;
    to->each = (int16_t)(tiles / blocks);
    to->more = (int16_t)(tiles % blocks);
    if (from->kind == TFI_LINK_ATTENTION) to->blocks = (int16_t)kv_blocks_of_stage(from->of.attention.D);
}

void make_call(const tfi_cuda_launch *l, const tfi_chain_args *a, int blocks, chain_call *c)
{
    int64_t stride = 0;

    c->live = l->live;
    c->exchange = (uint64_t *)a->exchange;
    if (a->own.store) c->own = kv_call_of(&a->own, TFI_ATTEND_CACHE);
    if (a->source.store) c->source = kv_call_of(&a->source, TFI_ATTEND_SOURCE);
    c->own.layer_at = c->source.layer_at = 0;
    c->count = a->count;
    c->number = a->number;
    c->M = (int)a->M;
    for (int i = 0; i < a->count; i++) {
        const tfi_link *link = &a->links[i];
        make_link(link, a->M, blocks, &c->links[i]);
        if (link->kind == TFI_LINK_PRODUCT && z_stride_of(link->of.product.K) > stride)
            stride = z_stride_of(link->of.product.K);
    }
    c->z_stride = (int)stride;
    c->z_at = (int)((FREE_AT + a->count * sizeof(chain_link) + 127) / 128 * 128);
    c->ring_at = (int)((c->z_at + a->M * stride + 127) / 128 * 128);
    c->depth = (int)depth_for(a->count, a->M * stride);
}

template <tfi_dtype T, bool ONE>
tf_status launch(const tfi_cuda_launch *l, const tfi_chain_args *a)
{
    const auto kernel = chain<T, ONE>;
    cudaLaunchConfig_t config = {};
    cudaLaunchAttribute attributes[2] = {};
    chain_call c = {};

    make_call(l, a, l->multiprocessors, &c);
    config.gridDim = (unsigned)l->multiprocessors;
    config.blockDim = THREADS;
    config.dynamicSmemBytes = (size_t)(c.ring_at + c.depth * STAGE);
    config.stream = l->stream;
    config.attrs = attributes;
    config.numAttrs = 2;
    attributes[0].id = cudaLaunchAttributeCooperative;
    attributes[0].val.cooperative = 1;
    attributes[1].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attributes[1].val.programmaticStreamSerializationAllowed = 1;
    (void)cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)config.dynamicSmemBytes);
    return started("a chain", cudaLaunchKernelEx(&config, kernel, c));
}

} // namespace

extern "C" int tfi_cuda_link_fits(const tfi_link *link, tfi_dtype type, int64_t M, int64_t max_tokens, int capability)
{
    if (capability < 90 || capability / 10 == 12 /* it has half the shared memory */ || (type != TFI_BF16 && type != TFI_F16) ||
        M > TFI_CHAIN_ROWS)
        return 0;
    return link->kind == TFI_LINK_PRODUCT ? fits_product(link, type, M) : fits_attention(link, type, max_tokens);
}

/* Where bytes are most of a link's time; the figures are above. */
extern "C" int tfi_cuda_chain_pays(const tfi_link *links, int count, int64_t M)
{
    const double least = 14e6;
    double bytes = 0;

    for (int i = 0; i < count; i++)
        if (links[i].kind == TFI_LINK_PRODUCT) bytes += 2.0 * links[i].of.product.N * links[i].of.product.K;
    return M == 1 && bytes >= least * count;
}

extern "C" int64_t tfi_cuda_link_tiles(const tfi_link *link, int64_t M)
{
    if (link->kind == TFI_LINK_ATTENTION) return M * link->of.attention.H;
    const int64_t width = link->of.product.gated ? TILE / 2 : TILE;
    return (columns_of_y(link) + width - 1) / width;
}

extern "C" int64_t tfi_cuda_link_words(const tfi_link *link, int64_t M)
{
    return M * row_words((int)columns_of_y(link), link->y.dtype);
}

extern "C" tf_status tfi_cuda_chain(const tfi_cuda_launch *l, const tfi_chain_args *a)
{
    if (a->count == 0 || a->M == 0) return TF_STATUS_OK;
    if (a->M == 1) return a->type == TFI_BF16 ? launch<TFI_BF16, true>(l, a) : launch<TFI_F16, true>(l, a);
    return a->type == TFI_BF16 ? launch<TFI_BF16, false>(l, a) : launch<TFI_F16, false>(l, a);
}
