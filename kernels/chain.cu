/* A decode step's ops, one after the other in one launch: products of 1 to 8 rows with their norms, and attention of single rows.
 *
 * Shapes    those of few.cu and attention_decode.cu in BF16 and F16; up to 256 links, a link the product or attention with what
 *           stands before and after it
 * Parallel  a block a multiprocessor, all of them resident. Tiles of 8 rows of w (gated: 4 and the 4 of the right half), and items
 *           (row, head) of attention, are dealt out to blocks in turn. One warp of a block, the producer, walks over the links and
 *           keeps a ring of 16 KB stages full by bulk copies: weights, stored keys and values. It waits for no other block, so it
 *           runs ahead while the other warps wait. Those, 8 of them, have every eighth chunk of 32 columns each: of x, which they
 *           take from the exchange into mma's order in shared memory for themselves alone, and of w. Sums of up to 4 tiles meet
 *           at one barrier of the 8 warps; a norm takes another, for the statistics.
 * Exchange  y is written as words of 32 bits of elements and 32 of tag, which are read and written in one piece: who finds the tag
 *           has the elements. So no fence, no flag, and no second trip. Words of a link are not written again in the same run.
 * Order     Blocks take links in order and a link waits only for earlier ones, so with all blocks resident (a cooperative
 *           launch) someone can always go on.
 * Needs     9.0; K a multiple of 32; with a norm up to 2048; heads of a multiple of 8 up to 128 */
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
__device__ void prefetch_vectors(const tfi_link &l, const chain_share &share, int number)
{
    const auto &p = l.of.product;
    const int lane = threadIdx.x % WARP, width = width_of(l);

    if (p.gain && number % gridDim.x == blockIdx.x) {
        for (int i = lane * 32; i < p.K; i += WARP * 32) {
            prefetch(p.gain + i);
            if (p.shift) prefetch(p.shift + i);
        }
    }
    if (!p.bias) return;
    for (int i = lane; i < share.count; i += WARP) {
        prefetch(p.bias + (share.first + i * gridDim.x) * width);
        if (p.gated) prefetch(p.bias + (share.first + i * gridDim.x) * width + p.N / 2);
    }
}

__device__ void supply_product(const chain_thread &t, const chain_link &l, chain_ring &ring)
{
    const auto &p = l.is.of.product;
    const int lane = threadIdx.x % WARP, width = width_of(l.is), columns = columns_of(l.is), bytes = p.K * 2;
    const chain_share share = share_of(l);
    const uint32_t to = shared_address(t.shared + t.c.ring_at) + lane * ROW_STRIDE;

    for (int i = 0, tile = share.first; i < share.count; i++, tile += gridDim.x) {
        const int n = min(tile * width + lane % width, columns - 1) + lane / width * columns; /* gated: N / 2 columns */
        const char *row = (const char *)p.w + (int64_t)n * bytes;
        for (int begin = 0; begin < bytes; begin += l.part) {
            const int size = min((int)l.part, bytes - begin);
            ring.expect(size * TILE);
            if (lane < TILE) copy_bytes(to + ring.stage * STAGE, row + begin, size, ring.full);
            ring.next();
        }
    }
}

__device__ void produce(const chain_thread &t)
{
    chain_ring ring(t.c, t.shared);
    bool waited = false;

    for (int i = 0; i < t.c.count; i++) {
        const chain_link &l = t.c.links[i];
        const chain_share share = share_of(l);
        const int rows = t.rows(l.is);
        if (rows <= 0 || share.count == 0) continue;
        if (l.is.kind == TFI_LINK_PRODUCT) {
            prefetch_vectors(l.is, share, i);
            supply_product(t, l, ring);
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

/* Chunks of a row that are the warp's. */
__device__ int chunks_of(int K)
{
    return (K / 32 + CONSUMERS - 1 - (int)threadIdx.x / WARP) / CONSUMERS;
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

template <tfi_dtype T>
__device__ void stage_rows(const chain_thread &t, const tfi_link &l, int rows)
{
    enum { HELD = 4 };
    const chain_source x(t, l.x);
    const int K = l.of.product.K, eights = chunks_of(K) * 4;
    char *z = t.shared + t.c.z_at;
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
            if (to[k] >= 0) *(uint4 *)(z + to[k]) = in_order(v[k].low);
    }
}

template <tfi_dtype T>
__device__ void put_eight(char *z, const float (&v)[8])
{
    uint32_t words[4];
#pragma unroll
    for (int k = 0; k < 4; k++) words[k] = float_to_halves(v[2 * k], v[2 * k + 1], T);
    *(uint4 *)z = in_order(make_uint4(words[0], words[1], words[2], words[3]));
}

/* Rows first to first + R - 1, normed; a lane has 8 elements of each. Sums are of differences to the mean of two of the row's
 * elements: then the variance, taken from them in one go, is off by K / 2 rounding errors at most. */
template <tfi_dtype T, tfi_dtype X, int R>
__device__ void norm_rows(const chain_thread &t, const tfi_link &l, int first, int rows, const float (&gain)[8],
                          const float (&shift)[8])
{
    const auto &p = l.of.product;
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, K = p.K, column = column_of(lane);
    const bool has = lane < chunks_of(K) * 4, layer = p.norm == TFI_NORM_LAYER;
    float2 *statistics = (float2 *)(t.shared + STATISTICS_AT);
    float v[R][8];
    float2 sums[R];
    const chain_source x(t, l.x);
    int at[R], row[R];
    raw_elements<8> raw[R];
    chain_pair begins[R];

#pragma unroll
    for (int r = 0; r < R; r++) {
        row[r] = row_of(l, min(first + r, rows - 1));
        at[r] = first + r < rows && has ? row[r] * K + column : -1;
        raw[r] = {};
        if (layer) begins[r] = load_pair(x, row[r], 0, K, X);
    }
    take_eights<X>(x, at, raw);
#pragma unroll
    for (int r = 0; r < R; r++) {
        const float2 begin = layer ? wait_for_pair(x, begins[r], row[r], 0, K, X) : make_float2(0, 0);
        widen(raw[r], X, v[r]);
        sums[r] = make_float2(0, 0);
#pragma unroll
        for (int k = 0; k < 8; k++) {
            v[r][k] -= has ? (begin.x + begin.y) * 0.5f : 0;
            sums[r].x += v[r][k];
            sums[r].y += v[r][k] * v[r][k];
        }
    }
#pragma unroll
    for (int r = 0; r < R; r++) {
        sums[r] = make_float2(warp_sum(sums[r].x), warp_sum(sums[r].y));
        if (lane == 0) statistics[r * CONSUMERS + warp] = sums[r];
    }
    meet_consumers();
    const float share = __fdividef(1, (float)K);
#pragma unroll
    for (int r = 0; r < R; r++) {
        float2 d = make_float2(0, 0);
        if (first + r >= rows) break;
#pragma unroll
        for (int w = 0; w < CONSUMERS; w++) {
            const float2 more = statistics[r * CONSUMERS + w];
            d.x += more.x;
            d.y += more.y;
        }
        const float mean = layer ? d.x * share : 0, variance = fmaxf(d.y * share - mean * mean, 0); /* which loses a NaN */
        const float factor = isnan(d.y) ? d.y : rsqrtf(variance + p.eps);
#pragma unroll
        for (int k = 0; k < 8; k++) v[r][k] = (v[r][k] - mean) * factor * gain[k] + shift[k];
        if (has) put_eight<T>(t.shared + t.c.z_at + (first + r) * t.c.z_stride + column * 2, v[r]);
    }
}

template <tfi_dtype T, tfi_dtype X>
__device__ void stage_normed(const chain_thread &t, const tfi_link &l, int rows)
{
    enum { SOME = 2 };
    const auto &p = l.of.product;
    const int lane = threadIdx.x % WARP, column = column_of(lane);
    const bool has = lane < chunks_of(p.K) * 4;
    float gain[8] = {}, shift[8] = {};

    if (has) load<8>(p.gain, TFI_F32, column, gain);
    if (has && p.shift) load<8>(p.shift, TFI_F32, column, shift);
    if (rows == 1) {
        norm_rows<T, X, 1>(t, l, 0, rows, gain, shift);
        return;
    }
    for (int m = 0; m < rows; m += SOME) {
        if (m > 0) meet_consumers(); /* statistics have been read */
        norm_rows<T, X, SOME>(t, l, m, rows, gain, shift);
    }
}

template <tfi_dtype T>
__device__ void stage_x(const chain_thread &t, const tfi_link &l, int rows)
{
    if (!l.of.product.gain) stage_rows<T>(t, l, rows);
    else if (l.x.dtype == TFI_F32) stage_normed<T, TFI_F32>(t, l, rows);
    else stage_normed<T, T>(t, l, rows);
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

/* The warp's sums of a tile, [rows, TILE] of its chunks; `z`: the lane's 16 bytes of chunk 0 of its row of x. */
template <tfi_dtype T>
__device__ void add_tile(const chain_thread &t, const chain_link &l, chain_ring &ring, const char *z, int rows, float *to)
{
    enum { CHUNKS = PART / CHUNK / CONSUMERS };
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, bytes = l.is.of.product.K * 2;
    float sums[2][2][4] = {};

    for (int begin = 0; begin < bytes; begin += l.part) {
        const int first = (warp - begin / CHUNK) % CONSUMERS, behind = min((int)l.part, bytes - begin);
        const int at = (first < 0 ? first + CONSUMERS : first) * CHUNK;
        const char *w = t.shared + t.c.ring_at + ring.stage * STAGE + lane / 4 * ROW_STRIDE + lane % 4 * 16;
        uint4 a[CHUNKS], b[CHUNKS];

        ring.take();
#pragma unroll
        for (int k = 0; k < CHUNKS; k++) {
            const int i = at + k * CONSUMERS * CHUNK;
            a[k] = b[k] = make_uint4(0, 0, 0, 0);
            if (i < behind) a[k] = *(const uint4 *)(z + begin + i);
            if (i < behind) b[k] = *(const uint4 *)(w + i);
        }
#pragma unroll
        for (int k = 0; k < CHUNKS; k++) {
            if (at + k * CONSUMERS * CHUNK >= behind) break;
            multiply<T>(sums[k % 2][0], a[k], b[k].x, b[k].y);
            multiply<T>(sums[k % 2][1], a[k], b[k].z, b[k].w);
        }
        ring.give_back();
    }
    if (lane / 4 >= rows) return;
    *(float2 *)(to + 2 * lane) = make_float2(sums[0][0][0] + sums[0][1][2] + sums[1][0][0] + sums[1][1][2],
                                             sums[0][0][1] + sums[0][1][3] + sums[1][0][1] + sums[1][1][3]);
}

/* ---- y ---- */

/* Which two neighbours of y the thread makes of a batch's sums, and what joins them. */
struct chain_output {
    int tile, m, n; /* tile: of the batch, -1: none */
    float2 bias, other;
    chain_pair residual;
};

__device__ float2 load_bias(const float *bias, int n, int columns)
{
    return make_float2(bias[n], n + 1 < columns ? bias[n + 1] : 0);
}

__device__ chain_output prepare(const chain_thread &t, const tfi_link &l, int first, int count, int rows)
{
    const auto &p = l.of.product;
    const int shift = rows > 4 ? 3 : rows > 2 ? 2 : rows > 1 ? 1 : 0, pair = threadIdx.x % 4, of = threadIdx.x / 4;
    const int width = width_of(l), columns = columns_of(l);
    chain_output o = {of >> shift, of & ((1 << shift) - 1)};

    o.n = (first + o.tile * (int)gridDim.x) * width + pair * 2;
    if (o.tile >= count || o.m >= rows || pair * 2 >= width || o.n >= columns) {
        o.tile = -1;
        return o;
    }
    if (p.bias) o.bias = load_bias(p.bias, o.n, columns);
    if (p.bias && p.gated) o.other = load_bias(p.bias + columns, o.n, columns);
    if (l.residual.words >= 0 || l.residual.memory)
        o.residual = load_pair(chain_source(t, l.residual), o.m, o.n, columns, (tfi_dtype)l.y.dtype);
    return o;
}

__device__ float2 total_of(const float *sums, float2 total)
{
    float2 all[CONSUMERS];
#pragma unroll
    for (int w = 0; w < CONSUMERS; w++) all[w] = *(const float2 *)(sums + w * TFI_CHAIN_ROWS * TILE);
#pragma unroll
    for (int w = 0; w < CONSUMERS; w++) {
        total.x += all[w].x;
        total.y += all[w].y;
    }
    return total;
}

__device__ void finish(const chain_thread &t, const tfi_link &l, const chain_output &o, const float *sums)
{
    const auto &p = l.of.product;
    const int columns = columns_of(l);

    if (o.tile < 0) return;
    sums += o.tile * TILE_SUMS + o.m * TILE + threadIdx.x % 4 * 2;
    const float2 total = total_of(sums, o.bias);
    float v[2] = {total.x, total.y};
    activate<2>((tfi_activation)p.activation, v);
    if (p.gated) {
        const float2 right = total_of(sums + TILE / 2, o.other);
        v[0] *= right.x;
        v[1] *= right.y;
    }
    if (l.residual.words >= 0 || l.residual.memory) {
        const float2 r = wait_for_pair(chain_source(t, l.residual), o.residual, o.m, o.n, columns, (tfi_dtype)l.y.dtype);
        v[0] += r.x;
        v[1] += r.y;
    }
    store_pair(t, l.y, o.m, o.n, columns, make_float2(v[0], v[1]));
}

template <tfi_dtype T>
__device__ void product(const chain_thread &t, const chain_link &l, chain_ring &ring, int rows, int *turn)
{
    const chain_share share = share_of(l);
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const char *z = t.shared + t.c.z_at + min(lane / 4, rows - 1) * t.c.z_stride + lane % 4 * 16;

    if (share.count == 0) return;
    chain_output o = prepare(t, l.is, share.first, min(share.count, (int)BATCH), rows);
    stage_x<T>(t, l.is, rows);
    for (int i = 0; i < share.count; i += BATCH) {
        const int count = min(share.count - i, (int)BATCH);
        float *sums = (float *)(t.shared + SUMS_AT) + *turn * MEETING;
        if (i > 0) o = prepare(t, l.is, share.first + i * gridDim.x, count, rows);
        for (int k = 0; k < count; k++) add_tile<T>(t, l, ring, z, rows, sums + k * TILE_SUMS + warp * TFI_CHAIN_ROWS * TILE);
        meet_consumers();
        finish(t, l.is, o, sums);
        *turn ^= 1;
    }
}

/* ---- the kernel ---- */

template <tfi_dtype T>
__device__ void consume(const chain_thread &t)
{
    chain_ring ring(t.c, t.shared);
    int turn = 0;

    wait_for_results();
    for (int i = 0; i < t.c.count; i++) {
        const chain_link &l = t.c.links[i];
        const int rows = t.rows(l.is);
        if (rows <= 0) continue;
        if (l.is.kind == TFI_LINK_PRODUCT) product<T>(t, l, ring, rows, &turn);
        else attend<T>(t, l, ring, rows, &turn);
    }
}

#endif

template <tfi_dtype T>
__global__ void __launch_bounds__(THREADS, 1) chain(const __grid_constant__ chain_call c)
{
#if __CUDA_ARCH__ >= 900
    extern __shared__ __align__(128) char shared[];
    const tfi_cuda_live &live = *c.live;
    const chain_thread t = {c, shared, live.tag, {live.rows[0], live.rows[1], live.rows[2]}};

    follow();
    if (threadIdx.x == 0) {
        for (int i = 0; i < c.depth; i++) {
            barrier_init(shared_address(shared + FULL_AT) + i * 8, 1);
            barrier_init(shared_address(shared + EMPTY_AT) + i * 8, CONSUMERS);
        }
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    __syncthreads();
    if (threadIdx.x >= CONSUMING) produce(t);
    else consume<T>(t);
#endif
}

/* ---- host ---- */

enum { SHARED = 224 * 1024, DEPTH_MIN = 4, NORM_MAX = CONSUMERS * WARP * 8, TOKENS_MAX = 2048 };

int64_t z_stride_of(int64_t K)
{
    return (K * 2 + 127) / 128 * 128 + CHUNK;
}

int64_t depth_for(int64_t z_bytes)
{
    const int64_t depth = (SHARED - FREE_AT - z_bytes - 256) / STAGE;
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
    return depth_for(M * z_stride_of(p.K)) >= DEPTH_MIN;
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
    if (from->kind == TFI_LINK_ATTENTION) {
        to->part = (int16_t)kv_blocks_of_stage(from->of.attention.D);
        return;
    }
    const int chunks = from->of.product.K * 2 / CHUNK, parts = (chunks * CHUNK + PART - 1) / PART;
    to->parts = (int16_t)parts;
    to->part = (int16_t)((chunks + parts - 1) / parts * CHUNK);
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
    c->z_at = (FREE_AT + 127) / 128 * 128;
    c->ring_at = (int)((c->z_at + a->M * stride + 127) / 128 * 128);
    c->depth = (int)depth_for(a->M * stride);
}

template <tfi_dtype T>
tf_status launch(const tfi_cuda_launch *l, const tfi_chain_args *a)
{
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
    (void)cudaFuncSetAttribute(chain<T>, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)config.dynamicSmemBytes);
    return started("a chain", cudaLaunchKernelEx(&config, chain<T>, c));
}

} // namespace

extern "C" int tfi_cuda_link_fits(const tfi_link *link, tfi_dtype type, int64_t M, int64_t max_tokens, int capability)
{
    if (capability < 90 || capability / 10 == 12 /* it has half the shared memory */ || (type != TFI_BF16 && type != TFI_F16) ||
        M > TFI_CHAIN_ROWS)
        return 0;
    return link->kind == TFI_LINK_PRODUCT ? fits_product(link, type, M) : fits_attention(link, type, max_tokens);
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
    return a->type == TFI_BF16 ? launch<TFI_BF16>(l, a) : launch<TFI_F16>(l, a);
}
