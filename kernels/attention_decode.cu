/* Attention of sequences that have one row, from the store; what it computes: src/backend/ref/attention.c
 *
 * Shapes    q [H*D] a sequence; keys and values in blocks of 16 tokens (kernels/kv.cuh) of one type; softmax and sums in fp32
 * Parallel  a block of 4 to 16 warps for each (sequence, head, split of its keys). A warp takes whole blocks of the store, 8
 * lanes a key, 8 elements a lane, keys and values of a round (up to 16 tokens) under way at once. Warps meet in shared memory;
 *           splits in that of their cluster's first block (from 9.0 on), else in scratch and a second kernel. As many warps as
 * it takes to have all keys of a short context under way at once, and splits, a power of two up to 8, for longer ones, both
 * only until the device is full. Early     In a chain of kernels each of which waits for the one before, what a kernel does
 * before it waits costs nothing. What does not change during a run may be read then: offsets, lengths, tables, bias; the keys
 * and values of sources, which another graph writes; and, where all sequences have one row, of all tokens but the last: earlier
 * runs have stored them, and runs follow one another in full (their inputs are copied in between). A block that KV_COPY writes
 * is one that its sequence appends to, so a sequence's last block is left for later in runs that have copies. It does not do to
 * ask which kernel of the run wrote something: a kernel may start while several before it are still at work. Append    The new
 * token's keys and values are taken from x, where the warp that has its place puts them among the others, and goes on to store
 * them. Needs     D % 8 == 0 and a 16-byte aligned store, otherwise it reads element by element Floor     bytes of keys and
 * values; 8 sequences of 1024, H=12, D=64, 2 bytes: 25 MB / 4.6 TB/s = 5.5 us. One sequence of some hundred tokens: two trips
 * to L2 (q; y and the end of the kernel), 1.5 us */
#include "attention.cuh"

namespace
{

enum { LANES = 8, GROUPS = WARP / LANES, V = 8, HEAD_MAX = 256, WARPS_LEAST = 4, WARPS_MOST = 16, SPLITS_MAX = 8 };

struct decode_call {
    attention_call c;
    float *partials; /* [B, H, splits, SUMS + D] */
    int splits;
    bool clustered;
    bool settled;   /* tokens but the last were stored by earlier runs */
    int64_t column; /* of the last token's keys in x, which are not stored yet; -1: they are */
};

/* Softmax over some keys: the highest score, the sum of exp2(score - highest), and D sums of values so weighted. */
enum { HIGHEST, TOTAL, SUMS };

/* As many as registers allow. */
constexpr int warps_most(tfi_dtype stored, int chunks)
{
    return chunks * (stored == TFI_F32 ? 2 : 1) > 2 ? WARPS_MOST / 2 : WARPS_MOST;
}

/* ---- what a block has to do ---- */

struct decode_item {
    bool single; /* else there is nothing to do */
    int64_t row; /* of x */
    int len;     /* tokens, the new one too */
    int begin, end;
    const int32_t *table;
};

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

/* Whether all but the last token of the block were there before the run. */
__device__ bool is_settled(const decode_call &p, const decode_item &item, int block)
{
    const bool copied = !p.c.kv.source && p.c.live->copies > 0 && block == (item.len - 1) / TFI_KV_BLOCK;
    return p.settled && block < item.end && !copied;
}

/* ---- a warp's share ---- */

template <tfi_dtype S, bool VECTORS>
__device__ raw_elements<V> load_eight(const void *p, int64_t at, int count)
{
    raw_elements<V> r = {};

    if constexpr (VECTORS) {
        if (count > 0) r = load_raw<V>(p, S, at);
    } else {
        uint32_t words[V] = {};
#pragma unroll
        for (int k = 0; k < V; k++) {
            if (k >= count) continue;
            const uint32_t bits = load_raw<1>(p, S, at + k).bits;
            words[S == TFI_F32 ? k : k / 2] |= S == TFI_F32 ? bits : bits << k % 2 * 16;
        }
        r.low = make_uint4(words[0], words[1], words[2], words[3]);
        r.high = make_uint4(words[4], words[5], words[6], words[7]);
    }
    return r;
}

template <bool VECTORS, int CHUNKS>
__device__ void load_query(const attention_call &c, int64_t at, float (&q)[CHUNKS][V])
{
    const int part = threadIdx.x % LANES;

#pragma unroll
    for (int i = 0; i < CHUNKS; i++) {
        const int d = (i * LANES + part) * V;
#pragma unroll
        for (int k = 0; k < V; k++) q[i][k] = !VECTORS && d + k < c.a.D ? load_one(c.a.x, c.t.x, at + d + k) : 0;
        if (VECTORS && d < c.a.D) load<V>(c.a.x, c.t.x, at + d, q[i]);
#pragma unroll
        for (int k = 0; k < V; k++) q[i][k] *= c.a.scale * LOG2E;
    }
}

/* A warp's running softmax: its max is that of all lanes, the sums are of the keys of the lane's group. */
template <int CHUNKS>
struct warp_state {
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

    /* All groups' sums, of which each lane ends with two a chunk. */
    __device__ void write(float *row)
    {
        const int lane = threadIdx.x % WARP, part = lane % LANES, first = lane / 16 * 4 + lane / 8 % 2 * 2;

        total += __shfl_xor_sync(0xffffffffu, total, 16);
        total += __shfl_xor_sync(0xffffffffu, total, 8);
#pragma unroll
        for (int i = 0; i < CHUNKS; i++) {
            float four[4], two[2];
#pragma unroll
            for (int k = 0; k < 4; k++) {
                const float low = sums[i][k], high = sums[i][k + 4];
                four[k] = (lane & 16 ? high : low) + __shfl_xor_sync(0xffffffffu, lane & 16 ? low : high, 16);
            }
#pragma unroll
            for (int k = 0; k < 2; k++) {
                const float low = four[k], high = four[k + 2];
                two[k] = (lane & 8 ? high : low) + __shfl_xor_sync(0xffffffffu, lane & 8 ? low : high, 8);
            }
            *(float2 *)&row[SUMS + (i * LANES + part) * V + first] = make_float2(two[0], two[1]);
        }
        if (lane == 0) {
            row[HIGHEST] = max;
            row[TOTAL] = total;
        }
    }
};

/* Keys and values that are under way at once: of STEPS tokens a group of lanes. */
template <tfi_dtype S, int CHUNKS, bool VECTORS>
struct decode_round {
    static constexpr int ROOM = 8 / (CHUNKS * (S == TFI_F32 ? 2 : 1)), STEPS = ROOM < 4 ? ROOM : 4, TOKENS = STEPS * GROUPS;
    raw_elements<V> keys[STEPS][CHUNKS], values[STEPS][CHUNKS];
    float biases[STEPS];
    int64_t plane; /* element where the keys of the block begin */

    /* Tokens from `first` of the block on; those that are not below `len` are zeros. */
    __device__ void load(const attention_call &c, const decode_item &item, int block, int first, int len)
    {
        const int lane = threadIdx.x % WARP, part = lane % LANES, group = lane / LANES, head = blockIdx.y, D = c.a.D;
        const int number = c.a.attend == TFI_ATTEND_CACHE ? item.len - 1 : 0;
        const float *bias = c.a.bias ? c.a.bias + (int64_t)head * (2 * c.a.max_distance + 1) : NULL;

        plane = item.table[block] * c.kv.block_elements + c.kv.layer_at + (int64_t)head * TFI_KV_BLOCK * D;
#pragma unroll
        for (int i = 0; i < STEPS; i++) {
            const int token = first + i * GROUPS + group, key = block * TFI_KV_BLOCK + token;
            biases[i] = bias ? bias_at(bias, c.a.max_distance, key - number) * LOG2E : 0;
#pragma unroll
            for (int k = 0; k < CHUNKS; k++) {
                const int d = (k * LANES + part) * V, count = key < len ? D - d : 0;
                keys[i][k] = load_eight<S, VECTORS>(c.kv.blocks, plane + token * D + d, count);
                values[i][k] = load_eight<S, VECTORS>(c.kv.blocks, plane + c.kv.values_at + token * D + d, count);
            }
        }
    }

    /* The new token, from x: into the round, and to the store. Vectors of the store's type. */
    __device__ void append(const decode_call &p, const decode_item &item, int block, int first)
    {
        const attention_call &c = p.c;
        const int lane = threadIdx.x % WARP, part = lane % LANES, group = lane / LANES, head = blockIdx.y, D = c.a.D;
        const int token = item.len - 1 - block * TFI_KV_BLOCK, at = token - first; /* in the block, in the round */
        const int64_t from = item.row * c.a.x_stride + p.column + head * D, to = plane + token * D;

        if (at < 0 || at >= TOKENS) return;
#pragma unroll
        for (int k = 0; k < CHUNKS; k++) {
            const int d = (k * LANES + part) * V;
            const raw_elements<V> key = load_eight<S, VECTORS>(c.a.x, from + d, D - d);
            const raw_elements<V> value = load_eight<S, VECTORS>(c.a.x, from + (int64_t)c.a.H * D + d, D - d);
#pragma unroll
            for (int i = 0; i < STEPS; i++) {
                if (i * GROUPS + group != at) continue;
                keys[i][k] = key;
                values[i][k] = value;
            }
            if (group != at % GROUPS || d >= D) continue;
            store_raw(c.kv.blocks, S, to + d, key);
            store_raw(c.kv.blocks, S, to + c.kv.values_at + d, value);
        }
    }

    /* Key `key` and those behind it, below `len`; there is one, or the state has a key already. */
    __device__ void attend(const float (&q)[CHUNKS][V], int key, int len, warp_state<CHUNKS> *state) const
    {
        const int group = threadIdx.x % WARP / LANES;
        float scores[STEPS], highest = state->max;

#pragma unroll
        for (int i = 0; i < STEPS; i++) {
            float dot = 0;
#pragma unroll
            for (int k = 0; k < CHUNKS; k++) {
                float v[V];
                widen(keys[i][k], S, v);
#pragma unroll
                for (int j = 0; j < V; j++) dot += q[k][j] * v[j];
            }
#pragma unroll
            for (int k = 1; k < LANES; k *= 2) dot += __shfl_xor_sync(0xffffffffu, dot, k);
            scores[i] = key + i * GROUPS + group < len ? dot + biases[i] : -INFINITY;
            highest = fmaxf(highest, scores[i]);
        }
#pragma unroll
        for (int k = LANES; k < WARP; k *= 2) highest = fmaxf(highest, __shfl_xor_sync(0xffffffffu, highest, k));
        state->rescale(highest);
#pragma unroll
        for (int i = 0; i < STEPS; i++) {
            const float weight = exp2f(scores[i] - highest);
            state->total += weight;
#pragma unroll
            for (int k = 0; k < CHUNKS; k++) {
                float v[V];
                widen(values[i][k], S, v);
#pragma unroll
                for (int j = 0; j < V; j++) state->sums[k][j] += weight * v[j];
            }
        }
    }
};

/* ---- meetings ---- */

/* What `count` rows have together; get(row, i) is number i of a row's. */
struct meeting {
    float highest, total, sum;
};

template <typename Get>
__device__ meeting meet(int count, int d, Get get)
{
    meeting m = {-INFINITY, 0, 0};

    for (int i = 0; i < count; i++) m.highest = fmaxf(m.highest, get(i, HIGHEST));
    for (int i = 0; i < count; i++) {
        const float there = get(i, TOTAL), factor = there == 0 ? 0 : exp2f(get(i, HIGHEST) - m.highest); /* 0: it had no key */
        m.total += factor * there;
        m.sum += there == 0 ? 0 : factor * get(i, SUMS + d);
    }
    return m;
}

__device__ void write_y(const attention_call &c, int64_t row, int d, const meeting &m)
{
    const float v[1] = {m.total == 0 ? 0 : m.sum / m.total}; /* no keys: zeros */
    store(c.a.y, c.t.y, (row * c.a.H + blockIdx.y) * c.a.D + d, v);
}

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

template <tfi_dtype S, int CHUNKS, bool VECTORS>
__global__ void __launch_bounds__(warps_most(S, CHUNKS) * WARP) decode(decode_call p)
{
    constexpr int WIDTH = SUMS + CHUNKS * LANES * V;
    __shared__ __align__(8) float rows[WARPS_MOST][WIDTH], splits[SPLITS_MAX][WIDTH];
    const attention_call &c = p.c;
    const int64_t b = blockIdx.x / p.splits;
    const int split = blockIdx.x % p.splits, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
    const int head = blockIdx.y, D = c.a.D;
    decode_round<S, CHUNKS, VECTORS> round;
    warp_state<CHUNKS> state;
    float q[CHUNKS][V];

    follow();
    if (p.clustered) cluster_arrive();
    const decode_item item = find_split(p, b, split);
    const int stored = item.len - (p.column >= 0), first = item.begin + warp;
    bool loaded = is_settled(p, item, first);
    if (loaded) round.load(c, item, first, 0, stored);
    wait_for_results();
    if (!item.single) return; /* the same for all blocks of a cluster */

    load_query<VECTORS>(c, item.row * c.a.x_stride + (int64_t)head * D, q);
    for (int block = first; block < item.end; block += warps) {
        for (int token = 0; token < TFI_KV_BLOCK; token += round.TOKENS) {
            if (!loaded) round.load(c, item, block, token, stored);
            if (VECTORS && p.column >= 0) round.append(p, item, block, token);
            round.attend(q, block * TFI_KV_BLOCK + token, item.len, &state);
            loaded = false;
        }
    }
    if (first < item.end) state.write(rows[warp]);
    __syncthreads();

    const int used = min(warps, item.end - item.begin);
    if (p.clustered) {
        meet_splits(p, item.row, used, rows, splits);
        return;
    }
    float *out = p.partials + ((b * c.a.H + head) * p.splits + split) * (SUMS + D);
    for (int d = threadIdx.x; d < D; d += blockDim.x) {
        const meeting m = meet(used, d, [&](int w, int i) { return rows[w][i]; });
        if (p.splits == 1) write_y(c, item.row, d, m);
        else write_split(out, d, m);
    }
}

__global__ void __launch_bounds__(WARPS_LEAST *WARP) combine(decode_call p)
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

typedef void (*decode_kernel)(decode_call);

int chunks_of(int D)
{
    return D <= LANES * V ? 1 : D <= 2 * LANES * V ? 2 : 4;
}

template <tfi_dtype S, bool VECTORS>
decode_kernel kernel_for(int D)
{
    const int chunks = chunks_of(D);
    if (chunks == 1) return decode<S, 1, VECTORS>;
    return chunks == 2 ? decode<S, 2, VECTORS> : decode<S, 4, VECTORS>;
}

template <bool VECTORS>
decode_kernel kernel_for(tfi_dtype stored, int D)
{
    if (stored == TFI_F32) return kernel_for<TFI_F32, VECTORS>(D);
    return stored == TFI_BF16 ? kernel_for<TFI_BF16, VECTORS>(D) : kernel_for<TFI_F16, VECTORS>(D);
}

/* As many warps, then splits, as there are blocks of the store, while the device has room for them. */
void divide(const tfi_cuda_launch *l, int64_t items, int64_t max_tokens, int most, int *splits, int *warps)
{
    const int64_t blocks = blocks_of(max_tokens, TFI_KV_BLOCK), room = l->multiprocessors * (int64_t)WARPS_MOST / items;

    *splits = 1;
    *warps = WARPS_LEAST;
    while (*warps < most && *warps < blocks && 2 * *warps <= room) *warps *= 2;
    while (*splits < SPLITS_MAX && *splits * *warps < blocks && 2 * *splits * *warps <= room) *splits *= 2;
}

} // namespace

extern "C" int64_t tfi_cuda_attention_scratch(tfi_attend attend, int64_t B, int32_t H, int32_t D)
{
    const bool stored = attend == TFI_ATTEND_CACHE || attend == TFI_ATTEND_SOURCE;
    return stored ? B * H * SPLITS_MAX * (D + SUMS) * (int64_t)sizeof(float) : 0;
}

bool tfi_cuda_decode_appends(const attention_call *c, const tfi_kv_append_args *append)
{
    return c->vectors && c->t.x == c->kv.dtype && append->column % 8 == 0;
}

tf_status tfi_cuda_attention_decode(const tfi_cuda_launch *l, const attention_call *c, int64_t max_tokens,
                                    const tfi_kv_append_args *append)
{
    decode_call p = {*c, (float *)l->scratch};
    const decode_kernel kernel = c->vectors ? kernel_for<true>(c->kv.dtype, c->a.D) : kernel_for<false>(c->kv.dtype, c->a.D);
    int warps;
    tf_status status;

    divide(l, c->a.B * c->a.H, max_tokens, warps_most(c->kv.dtype, chunks_of(c->a.D)), &p.splits, &warps);
    p.clustered = p.splits > 1 && l->capability >= 90;
    p.settled = c->kv.source || append;
    p.column = append ? append->column : -1;
    const dim3 grid((unsigned)(c->a.B * p.splits), (unsigned)c->a.H);
    status = start_clusters(l, "ATTENTION", p.clustered ? (unsigned)p.splits : 1, kernel, grid, (unsigned)warps * WARP, 0, p);
    if (status < 0 || p.splits == 1 || p.clustered) return status;
    return start(l, "ATTENTION", combine, dim3((unsigned)c->a.B, (unsigned)c->a.H), WARPS_LEAST * WARP, 0, p);
}
