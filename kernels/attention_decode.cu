/* Attention of sequences that have one row, from the store; what it computes: src/backend/ref/attention.c
 *
 * Shapes    q [H*D] a sequence; keys and values in blocks of 16 tokens (kernels/kv.cuh) of one type; softmax and sums in fp32
 * Parallel  a block of 2 to 8 warps for each (sequence, head, split of its keys). A warp takes whole blocks of the store, in
 *           tiles of 4 to 16 tokens, and has two tiles under way (its .cuh). Warps meet in shared memory; splits in that of
 *           their cluster's first block (from 9.0 on), else in scratch and a second kernel. As many warps as it takes to have
 *           all keys of a short context under way at once, and splits, a power of two up to 8, for longer ones, both only
 *           while the device has room for them.
 * Early     In a chain of kernels each of which waits for the one before, what a kernel does before it waits costs nothing.
 *           What does not change during a run may be read then: offsets, lengths, tables, bias; keys and values of sources,
 *           which another graph writes; and, where all sequences have one row, of all tokens but the last: earlier runs have
 *           stored them, and runs follow one another in full (inputs are copied in between). A block that KV_COPY writes is
 *           one that its sequence appends to, so in runs that have copies a sequence's last block waits. It does not do to
 *           ask which kernel of the run wrote something: one may start while several before it are still at work.
 * Append    The new token's keys and values are taken from x, where the warp that has its place puts them among the others,
 *           and goes on to store them.
 * Needs     D % 8 == 0 and a 16-byte aligned store, otherwise it reads element by element
 * Floor     bytes of keys and values; 8 sequences of 1024, H=12, D=64, 2 bytes: 25 MB / 4.6 TB/s = 5.5 us. One sequence of
 *           some hundred tokens: two trips to L2 (q; y and the end of the kernel), 1.5 us
 * Measured  H200, microseconds a layer in a graph of dependent launches, the store in memory, KV_APPEND and all; in brackets
 *           what it was with KV_APPEND apart and nothing read ahead. fp16, H=12, D=64: one sequence of 40 tokens 1.9 (5.6),
 *           of 140 2.4 (7.3), of 250 2.5 (7.5), of 1024 3.3 (9.6); a source of 40 1.6 (4.2); 4 beams with copies 3.2 (9.0);
 *           8 x 140 2.9 (9.9), 8 x 1024 8.8 (17), 64 x 140 9.6 (14), 64 x 1024 49 (53). bf16, H=32, D=128: 32 tokens 2.7
 *           (8.0), 140 3.1 (10.4); behind a kernel that streams 3.5 MB they add 1.9 (7.5) and 2.5 (9.2). With plain launches
 *           140 tokens take 4.9.
 * Tried     Tensor cores (a lane's vectors are operands as they lie, if dimensions change places): no gain at D=64, a tenth
 *           at D=128. 16 warps of one tile: 2.3 for 140 tokens, 3.6 at D=128, 12 for 64 x 140. */
#include "attention_decode.cuh"

namespace
{

/* ---- what a block has to do ---- */

__device__ decode_item find_split(const decode_call &p, int64_t b, int split)
{
    const attention_call &c = p.c;
    const int live = c.live->rows[TFI_ROWS_SEQUENCES];
    const int first = c.a.offsets[b], behind = c.a.offsets[b + 1], len = c.kv.lens[b]; /* of dead ones: anything */
    const int blocks = (len - 1) / TFI_KV_BLOCK + (len > 0), each = (blocks + p.splits - 1) / p.splits;
    decode_item item = {b < live && behind - first == 1, first, len, 0, 0, kv_table(c.kv, c.live, b)};

    if (item.single) {
        item.begin = min(blocks, split * each);
        item.end = min(blocks, item.begin + each);
    }
    return item;
}

/* ---- meetings ---- */

/* Number d of a split's row. */
__device__ void write_split(float *row, int d, const meeting &m)
{
    row[SUMS + d] = m.sum;
    if (d > 0) return;
    row[HIGHEST] = m.highest;
    row[TOTAL] = m.total;
}

__device__ void cluster_arrive()
{
#if __CUDA_ARCH__ >= 900
    __cluster_barrier_arrive();
#endif
}

__device__ void cluster_wait()
{
#if __CUDA_ARCH__ >= 900
    __cluster_barrier_wait();
#endif
}

/* The same variable in the shared memory of the cluster's first block. */
__device__ float *in_first_block(float *p)
{
#if __CUDA_ARCH__ >= 900
    return (float *)__cluster_map_shared_rank(p, 0);
#else
    return p;
#endif
}

/* Every block of a cluster writes its row to the first one's memory, which makes y of them. They may leave when they have
 * written; that the first has come they know from the barrier they arrived at when they began. */
template <int WIDTH>
__device__ void meet_splits(const decode_call &p, int64_t row, int warps, const float (*rows)[WIDTH], float (*splits)[WIDTH])
{
    const int split = blockIdx.x % p.splits, D = p.c.a.D;
    float *out = in_first_block(splits[split]);

    cluster_wait();
    for (int d = threadIdx.x; d < D; d += blockDim.x)
        write_split(out, d, meet(warps, d, [&](int w, int i) { return rows[w][i]; }));
    __syncwarp();
    cluster_arrive();
    if (split > 0) return;
    cluster_wait();
    for (int d = threadIdx.x; d < D; d += blockDim.x)
        write_y(p.c, row, d, meet(p.splits, d, [&](int s, int i) { return splits[s][i]; }));
}

template <typename Share>
__global__ void __launch_bounds__(DECODE_WARPS_MOST *WARP, Share::RESIDENT) decode(decode_call p)
{
    constexpr int WIDTH = SUMS + Share::CHUNK_COUNT * DECODE_CHUNK, TILES = TFI_KV_BLOCK / Share::TOKENS,
                  UNDER_WAY = Share::UNDER_WAY;
    __shared__ __align__(8) float rows[DECODE_WARPS_MOST][WIDTH], splits[DECODE_SPLITS_MAX][WIDTH];
    const int64_t b = blockIdx.x / p.splits;
    const int split = blockIdx.x % p.splits, warp = threadIdx.x / WARP, warps = blockDim.x / WARP, D = p.c.a.D;
    typename Share::tile tiles[UNDER_WAY];
    Share share;

    follow();
    if (p.clustered) cluster_arrive();
    const decode_item item = find_split(p, b, split);
    const int stored = item.len - (p.column >= 0), first = item.begin + warp;
    const int count = (max(0, item.end - first) + warps - 1) / warps * TILES; /* of the warp's tiles */
    int32_t numbers[UNDER_WAY];                                               /* of the blocks of the tiles that come next */
    bool early[UNDER_WAY];
    auto block_of = [&](int i) { return first + i / TILES * warps; };
    auto key_of = [&](int i) { return block_of(i) * TFI_KV_BLOCK + i % TILES * Share::TOKENS; };
    auto number_of = [&](int i) { return i < count ? item.table[block_of(i)] : 0; };

#pragma unroll
    for (int k = 0; k < UNDER_WAY; k++) numbers[k] = number_of(k);
#pragma unroll
    for (int k = 0; k < UNDER_WAY; k++) {
        early[k] = is_settled(p, item.len, block_of(k));
        if (k < count && early[k]) Share::load(p, item, numbers[k], key_of(k), stored, &tiles[k]);
    }
    wait_for_results();
    if (!item.single) return; /* the same for all blocks of a cluster */
    if (count > 0) share.load_query(p, item);
#pragma unroll
    for (int k = 0; k < UNDER_WAY; k++) {
        if (k >= count) break;
        if (!early[k]) Share::load(p, item, numbers[k], key_of(k), stored, &tiles[k]);
        if (p.column >= 0) Share::append(p, item, numbers[k], key_of(k), &tiles[k]);
        numbers[k] = number_of(k + UNDER_WAY);
    }
    for (int i = 0; i < count; i += UNDER_WAY) {
#pragma unroll
        for (int k = 0; k < UNDER_WAY; k++) {
            const int next = i + k + UNDER_WAY;
            if (i + k >= count) break;
            share.attend(tiles[k], key_of(i + k), item.len);
            if (next >= count) continue;
            Share::load(p, item, numbers[k], key_of(next), stored, &tiles[k]);
            if (p.column >= 0) Share::append(p, item, numbers[k], key_of(next), &tiles[k]);
            numbers[k] = number_of(next + UNDER_WAY);
        }
    }
    if (count > 0) share.write(rows[warp]);
    __syncthreads();

    const int used = min(warps, item.end - item.begin);
    if (p.clustered) {
        meet_splits(p, item.row, used, rows, splits);
        return;
    }
    float *out = p.partials + ((b * p.c.a.H + blockIdx.y) * p.splits + split) * (SUMS + D);
    for (int d = threadIdx.x; d < D; d += blockDim.x) {
        const meeting m = meet(used, d, [&](int w, int i) { return rows[w][i]; });
        if (p.splits == 1) write_y(p.c, item.row, d, m);
        else write_split(out, d, m);
    }
}

__global__ void __launch_bounds__(DECODE_WARPS_LEAST *WARP) combine(decode_call p)
{
    const decode_item item = find_split(p, blockIdx.x, 0);
    const int D = p.c.a.D;
    const float *partials = p.partials + ((int64_t)blockIdx.x * p.c.a.H + blockIdx.y) * p.splits * (SUMS + D);

    begin();
    if (!item.single) return;
    for (int d = threadIdx.x; d < D; d += blockDim.x)
        write_y(p.c, item.row, d, meet(p.splits, d, [&](int s, int i) { return partials[s * (SUMS + D) + i]; }));
}

/* ---- host ---- */

struct decode_form {
    void (*kernel)(decode_call);
    int resident, under_way; /* blocks of most warps on a multiprocessor; tokens of a warp */
};

template <typename Share>
decode_form form_of()
{
    return {decode<Share>, Share::RESIDENT, Share::UNDER_WAY * Share::TOKENS};
}

template <tfi_dtype S, bool VECTORS>
decode_form form_of_type(int chunks)
{
    if (chunks == 1) return form_of<decode_share<S, 1, VECTORS>>();
    return chunks == 2 ? form_of<decode_share<S, 2, VECTORS>>() : form_of<decode_share<S, 4, VECTORS>>();
}

template <bool VECTORS>
decode_form form_of_type(tfi_dtype stored, int chunks)
{
    if (stored == TFI_F32) return form_of_type<TFI_F32, VECTORS>(chunks);
    return stored == TFI_BF16 ? form_of_type<TFI_BF16, VECTORS>(chunks) : form_of_type<TFI_F16, VECTORS>(chunks);
}

decode_form form_for(const attention_call *c)
{
    const int chunks = (c->a.D + DECODE_CHUNK - 1) / DECODE_CHUNK;
    return c->vectors ? form_of_type<true>(c->kv.dtype, chunks) : form_of_type<false>(c->kv.dtype, chunks);
}

/* As many warps, then splits, as it takes to have all tokens under way at once, while the device has room for them. Where it
 * is full anyway, warps that have some blocks each. */
void divide(const tfi_cuda_launch *l, const attention_call *c, int64_t max_tokens, const decode_form &form, int *splits,
            int *warps)
{
    const int64_t blocks = blocks_of(max_tokens, TFI_KV_BLOCK);
    const int64_t room = l->multiprocessors * (int64_t)(form.resident * DECODE_WARPS_MOST) / (c->a.B * c->a.H);
    auto is_short = [&](int n) { return (n < blocks || n * WARP < c->a.D) && 2 * n <= room; };

    *splits = 1;
    *warps = DECODE_WARPS_LEAST;
    while (*warps < DECODE_WARPS_MOST && (is_short(*warps) || *warps * 8 < blocks)) *warps *= 2;
    while (*splits < DECODE_SPLITS_MAX && *splits * *warps * form.under_way < max_tokens && 2 * *splits * *warps <= room)
        *splits *= 2;
}

} // namespace

extern "C" int64_t tfi_cuda_attention_scratch(tfi_attend attend, int64_t B, int32_t H, int32_t D)
{
    const bool stored = attend == TFI_ATTEND_CACHE || attend == TFI_ATTEND_SOURCE;
    return stored ? B * H * DECODE_SPLITS_MAX * (D + SUMS) * (int64_t)sizeof(float) : 0;
}

bool tfi_cuda_decode_appends(const attention_call *c, const tfi_kv_append_args *append)
{
    return c->vectors && c->t.x == c->kv.dtype && append->column % 8 == 0;
}

tf_status tfi_cuda_attention_decode(const tfi_cuda_launch *l, const attention_call *c, int64_t max_tokens,
                                    const tfi_kv_append_args *append)
{
    decode_call p = {*c, (float *)l->scratch};
    const decode_form form = form_for(c);
    int warps;
    tf_status status;

    p.settled = c->kv.source || append;
    p.column = append ? append->column : -1;
    if (tfi_cuda_decode_many_fits(l, &p)) return tfi_cuda_decode_many(l, &p, max_tokens);
    divide(l, c, max_tokens, form, &p.splits, &warps);
    p.clustered = p.splits > 1 && l->capability >= 90;
    const dim3 grid((unsigned)(c->a.B * p.splits), (unsigned)c->a.H);
    status =
        start_clusters(l, "ATTENTION", p.clustered ? (unsigned)p.splits : 1, form.kernel, grid, (unsigned)warps * WARP, 0, p);
    if (status < 0 || p.splits == 1 || p.clustered) return status;
    return start(l, "ATTENTION", combine, dim3((unsigned)c->a.B, (unsigned)c->a.H), DECODE_WARPS_LEAST * WARP, 0, p);
}
