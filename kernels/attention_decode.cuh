/* Attention of single rows (attention_decode.cu): the call, which keys a block has, and what a warp does with its share. */
#ifndef TFI_KERNELS_ATTENTION_DECODE_CUH
#define TFI_KERNELS_ATTENTION_DECODE_CUH

#include "attention.cuh"

enum { DECODE_WARPS_LEAST = 2, DECODE_WARPS_MOST = 8, DECODE_SPLITS_MAX = 8, DECODE_CHUNK = 64 /* dimensions */ };

struct decode_call {
    attention_call c;
    float *partials; /* [B, H, splits, SUMS + D] */
    int splits;
    bool clustered;
    bool settled;   /* tokens but the last were stored by earlier runs */
    int64_t column; /* of the last token's keys in x, which are not stored yet; -1: they are */
};

struct decode_item {
    bool single; /* else there is nothing to do */
    int64_t row; /* of x */
    int len;     /* tokens, the new one too */
    int begin, end;
    const int32_t *table;
};

/* Softmax over some keys as a row of floats: the highest score, the sum of exp2(score - highest), and D sums of values so
 * weighted. */
enum { HIGHEST, TOTAL, SUMS };

/* What up to 8 rows have together; get(row, i) is number i of a row's. */
enum { ROWS_MOST = 8 };
static_assert((int)DECODE_WARPS_MOST <= ROWS_MOST && (int)DECODE_SPLITS_MAX <= ROWS_MOST, "all meet in one go");

struct meeting {
    float highest, total, sum;
};

template <typename Get>
__device__ inline meeting meet(int count, int d, Get get)
{
    meeting m = {-INFINITY, 0, 0};
    float highest[ROWS_MOST], totals[ROWS_MOST], sums[ROWS_MOST];

#pragma unroll
    for (int i = 0; i < ROWS_MOST; i++) {
        highest[i] = i < count ? get(i, HIGHEST) : -INFINITY;
        totals[i] = i < count ? get(i, TOTAL) : 0;
        sums[i] = i < count ? get(i, SUMS + d) : 0;
        m.highest = fmaxf(m.highest, highest[i]);
    }
#pragma unroll
    for (int i = 0; i < ROWS_MOST; i++) {
        const float factor = highest[i] == -INFINITY ? 0 : exp2f(highest[i] - m.highest); /* 0: it had no key */
        m.total += factor * totals[i];
        m.sum += factor * sums[i];
    }
    return m;
}

/* First elements of a head's queries and new keys in x. */
__device__ inline int64_t decode_query(const decode_call &p, const decode_item &item)
{
    return item.row * p.c.a.x_stride + (int64_t)blockIdx.y * p.c.a.D;
}

__device__ inline int64_t decode_new_key(const decode_call &p, const decode_item &item)
{
    return decode_query(p, item) + p.column;
}

/* First element of the head's keys in block `number` of the store. */
__device__ inline int64_t decode_plane(const decode_call &p, int32_t number)
{
    return number * p.c.kv.block_elements + p.c.kv.layer_at + (int64_t)blockIdx.y * TFI_KV_BLOCK * p.c.a.D;
}

/* What T5 adds to the score of a key, times log2(e). */
__device__ inline float decode_bias(const attention_call &c, const decode_item &item, int key)
{
    const int number = c.a.attend == TFI_ATTEND_CACHE ? item.len - 1 : 0, size = 2 * c.a.max_distance + 1;
    return c.a.bias ? bias_at(c.a.bias + (int64_t)blockIdx.y * size, c.a.max_distance, key - number) * LOG2E : 0;
}

/* Whether all but the last token of the block were there before the run. */
__device__ inline bool is_settled(const decode_call &p, int len, int block)
{
    const bool copied = !p.c.kv.source && p.c.live->copies > 0 && block == (len - 1) / TFI_KV_BLOCK;
    return p.settled && !copied;
}

__device__ inline void write_y(const attention_call &c, int64_t row, int d, const meeting &m)
{
    const float v[1] = {m.total == 0 ? 0 : m.sum / m.total}; /* no keys: zeros */
    store(c.a.y, c.t.y, (row * c.a.H + blockIdx.y) * c.a.D + d, v);
}

/* A warp's share of the keys, in fp32 for any mix of types: 8 lanes a key, 8 elements a lane in each chunk of the dimensions.
 */
template <tfi_dtype S, int CHUNKS, bool VECTORS, int STEPS = 4 / CHUNKS>
struct decode_share {
    static constexpr int LANES = 8, GROUPS = WARP / LANES, V = 8, TOKENS = STEPS * GROUPS;
    /* Tiles of a warp; blocks of most warps on a multiprocessor, both as registers allow. At large heads of 16 bits a tile
     * could be larger: then the kernel before and this one do not fit on a multiprocessor together any more. */
    static constexpr int UNDER_WAY = S == TFI_F32 && CHUNKS == 4 ? 1 : 2, RESIDENT = S != TFI_F32 && CHUNKS == 1 ? 2 : 1;
    static constexpr int CHUNK_COUNT = CHUNKS;

    /* The softmax so far: `max` is that of all lanes, the sums are of the keys of the lane's group. */
    float max = -INFINITY, total = 0, sums[CHUNKS][V] = {}, q[CHUNKS][V];

    /* STEPS tokens of each group. */
    struct tile {
        raw_elements<V> keys[STEPS][CHUNKS], values[STEPS][CHUNKS];
        float biases[STEPS];
    };

    __device__ static int lane()
    {
        return threadIdx.x % WARP;
    }

    __device__ static int dimension(int chunk)
    {
        return (chunk * LANES + lane() % LANES) * V;
    }

    __device__ static raw_elements<V> load_eight(const void *p, int64_t at, int count)
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

    __device__ void load_query(const decode_call &p, const decode_item &item)
    {
        const attention_call &c = p.c;
        const int64_t at = decode_query(p, item);

#pragma unroll
        for (int i = 0; i < CHUNKS; i++) {
            const int d = dimension(i);
#pragma unroll
            for (int k = 0; k < V; k++) q[i][k] = !VECTORS && d + k < c.a.D ? load_one(c.a.x, c.t.x, at + d + k) : 0;
            if (VECTORS && d < c.a.D) ::load<V>(c.a.x, c.t.x, at + d, q[i]);
#pragma unroll
            for (int k = 0; k < V; k++) q[i][k] *= c.a.scale * LOG2E;
        }
    }

    /* Key `key` and those behind it, in block `number` of the store; those that are not below `len` are zeros. */
    __device__ static void load(const decode_call &p, const decode_item &item, int32_t number, int key, int len, tile *out)
    {
        const attention_call &c = p.c;
        const int64_t plane = decode_plane(p, number);
        const int D = c.a.D;

#pragma unroll
        for (int i = 0; i < STEPS; i++) {
            const int at = key + i * GROUPS + lane() / LANES, token = at % TFI_KV_BLOCK;
            out->biases[i] = decode_bias(c, item, at);
#pragma unroll
            for (int k = 0; k < CHUNKS; k++) {
                const int d = dimension(k), count = at < len ? D - d : 0;
                out->keys[i][k] = load_eight(c.kv.blocks, plane + token * D + d, count);
                out->values[i][k] = load_eight(c.kv.blocks, plane + c.kv.values_at + token * D + d, count);
            }
        }
    }

    /* The new token, where it is one of the tile's: from x into the tile, and to the store. Vectors of the store's type. */
    __device__ static void append(const decode_call &p, const decode_item &item, int32_t number, int key, tile *out)
    {
        const attention_call &c = p.c;
        const int at = item.len - 1 - key, D = c.a.D;
        const int64_t from = decode_new_key(p, item);
        raw_elements<V> keys[CHUNKS], values[CHUNKS];

        if (at < 0 || at >= TOKENS) return;
#pragma unroll
        for (int k = 0; k < CHUNKS; k++) {
            keys[k] = load_eight(c.a.x, from + dimension(k), D - dimension(k));
            values[k] = load_eight(c.a.x, from + (int64_t)c.a.H * D + dimension(k), D - dimension(k));
        }
        const int64_t to = decode_plane(p, number) + (item.len - 1) % TFI_KV_BLOCK * D;
#pragma unroll
        for (int k = 0; k < CHUNKS; k++) {
#pragma unroll
            for (int i = 0; i < STEPS; i++) {
                if (i * GROUPS + lane() / LANES != at) continue;
                out->keys[i][k] = keys[k];
                out->values[i][k] = values[k];
            }
            if (lane() / LANES != at % GROUPS || dimension(k) >= D) continue;
            store_raw(c.kv.blocks, S, to + dimension(k), keys[k]);
            store_raw(c.kv.blocks, S, to + c.kv.values_at + dimension(k), values[k]);
        }
    }

    __device__ void rescale(float higher)
    {
        const float factor = exp2f(max - higher);
        max = higher;
        total *= factor;
#pragma unroll
        for (int i = 0; i < CHUNKS * V; i++) sums[i / V][i % V] *= factor;
    }

    /* To key `key` and those behind it. One of them is below `len`, or there was a key before. */
    __device__ void attend(const tile &t, int key, int len)
    {
        float scores[STEPS], highest = max;

#pragma unroll
        for (int i = 0; i < STEPS; i++) {
            float dot = 0;
#pragma unroll
            for (int k = 0; k < CHUNKS; k++) {
                float v[V];
                widen(t.keys[i][k], S, v);
#pragma unroll
                for (int j = 0; j < V; j++) dot += q[k][j] * v[j];
            }
#pragma unroll
            for (int k = 1; k < LANES; k *= 2) dot += __shfl_xor_sync(0xffffffffu, dot, k);
            scores[i] = key + i * GROUPS + lane() / LANES < len ? dot + t.biases[i] : -INFINITY;
            highest = fmaxf(highest, scores[i]);
        }
#pragma unroll
        for (int k = LANES; k < WARP; k *= 2) highest = fmaxf(highest, __shfl_xor_sync(0xffffffffu, highest, k));
        rescale(highest);
#pragma unroll
        for (int i = 0; i < STEPS; i++) {
            const float weight = exp2f(scores[i] - highest);
            total += weight;
#pragma unroll
            for (int k = 0; k < CHUNKS; k++) {
                float v[V];
                widen(t.values[i][k], S, v);
#pragma unroll
                for (int j = 0; j < V; j++) sums[k][j] += weight * v[j];
            }
        }
    }

    /* All groups' sums, of which each lane ends with two a chunk. */
    __device__ void write(float *row)
    {
        const bool high = lane() & 16, odd = lane() & 8;

        total += __shfl_xor_sync(0xffffffffu, total, 16);
        total += __shfl_xor_sync(0xffffffffu, total, 8);
#pragma unroll
        for (int i = 0; i < CHUNKS; i++) {
            float four[4], two[2];
#pragma unroll
            for (int k = 0; k < 4; k++) {
                const float mine = high ? sums[i][k + 4] : sums[i][k], yours = high ? sums[i][k] : sums[i][k + 4];
                four[k] = mine + __shfl_xor_sync(0xffffffffu, yours, 16);
            }
#pragma unroll
            for (int k = 0; k < 2; k++) {
                const float mine = odd ? four[k + 2] : four[k], yours = odd ? four[k] : four[k + 2];
                two[k] = mine + __shfl_xor_sync(0xffffffffu, yours, 8);
            }
            *(float2 *)&row[SUMS + dimension(i) + high * 4 + odd * 2] = make_float2(two[0], two[1]);
        }
        if (lane() > 0) return;
        row[HIGHEST] = max;
        row[TOTAL] = total;
    }
};

/* ---- host ---- */

/* Many sequences (attention_decode_many.cu). */
bool tfi_cuda_decode_many_fits(const tfi_cuda_launch *l, const decode_call *p);
tf_status tfi_cuda_decode_many(const tfi_cuda_launch *l, const decode_call *p, int64_t max_tokens);

#endif
