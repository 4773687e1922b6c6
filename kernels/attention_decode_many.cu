/* Attention of many sequences that have one row each, from the store, in 16 bits; what it computes:
 * src/backend/ref/attention.c; beside attention_decode.cu, which spreads few of them over the device.
 *
 * Shapes    q [H*D] a sequence, D 64 or 128; keys and values in blocks of 16 tokens (kernels/kv.cuh), of x's type
 * Parallel  a block a sequence and head. A warp takes every so manyth block of the store, which copies of whole planes bring
 *           into its own ring in shared memory: the first ones before the results of the kernel before are waited for
 *           (attention_decode.cu says what may be read then), so that nearly all bytes are on their way while the product
 *           before is at work, and registers hold none of them.
 * Products  q k by mma.sync: 16 keys are the rows, q stands in all columns, so every lane has the score of the two keys
 *           whose values it weights in fp32: lane l has keys l / 4 and l / 4 + 8 and 8 dimensions of every 32. Rows of the
 *           odd keys are read half by half in the other order, for the banks; q's odd columns too, and odd keys take the score
 *           of an odd column.
 * Needs     9.0, vectors of 16 bytes
 * Floor     bytes of keys and values: 64 sequences of 90 tokens, H=12, D=64: 17.7 MB / 4.6 TB/s = 3.9 us, of 140: 6.0 us, of
 *           which all but what the kernel before leaves no room for can come before; 2 us from there on
 */
#include "attention_decode.cuh"

namespace
{

#define HOPPER (__CUDA_ARCH__ >= 900)

enum { STAGES_MOST = 4 };

struct many_call {
    decode_call d;
    int stages; /* of a warp's ring */
};

__device__ uint32_t shared_address(const void *p)
{
    return (uint32_t)__cvta_generic_to_shared(p);
}

__device__ uint4 read_16(uint32_t from)
{
    uint4 v;
    asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "r"(from)
                 : "memory");
    return v;
}

__device__ void write_16(uint32_t to, uint4 v)
{
    asm volatile("st.shared.v4.u32 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w) : "memory");
}

/* c += a b: of a [16, 16] a lane has four pairs, in b [16, 8] all columns of one parity are alike. */
template <tfi_dtype T>
__device__ void multiply(float (&c)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0, uint32_t b1)
{
#if HOPPER
    if constexpr (T == TFI_BF16) {
        asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
            "{%0, %1, %2, %3};"
            : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
            : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
    } else {
        asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
            "{%0, %1, %2, %3};"
            : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
            : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
    }
#endif
}

/* The blocks of the store that a warp takes, one after the other, into its ring. */
template <int D>
struct supply {
    static constexpr int PLANE = TFI_KV_BLOCK * D * 2;
    const decode_call &p;
    const int32_t *table;
    uint32_t ring, barriers;
    int first, step, count;
    int32_t numbers; /* of the blocks from i - i % WARP on, one a lane */

    __device__ void init(int stages) const
    {
#if HOPPER
        if (threadIdx.x % WARP == 0) {
            for (int i = 0; i < stages; i++)
                asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(barriers + 8 * i) : "memory");
            asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
        }
        __syncwarp();
#endif
    }

    /* Its `i`th, in turn. All lanes; returns the block's number. */
    __device__ int32_t ask(int i, int stage)
    {
        const int lane = threadIdx.x % WARP;
        if (i % WARP == 0) numbers = i + lane < count ? table[first + (i + lane) * step] : 0;
        const int32_t number = __shfl_sync(0xffffffffu, numbers, i % WARP);
#if HOPPER
        if (lane == 0) {
            const char *from = p.c.kv.blocks + decode_plane(p, number) * 2;
            const uint32_t to = ring + stage * 2 * PLANE, barrier = barriers + 8 * stage;
            asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(2 * PLANE) : "memory");
            asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(to),
                         "l"(from), "r"(PLANE), "r"(barrier)
                         : "memory");
            asm volatile(
                "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(to + PLANE),
                "l"(from + p.c.kv.values_at * 2), "r"(PLANE), "r"(barrier)
                : "memory");
        }
#endif
        return number;
    }

    __device__ void wait(int stage, int phase) const
    {
#if HOPPER
        asm volatile("{\n\t.reg .pred done;\n\t"
                     "again:\n\t"
                     "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n\t"
                     "@!done bra again;\n\t}" ::"r"(barriers + 8 * stage),
                     "r"(phase)
                     : "memory");
#endif
    }
};

/* A warp's softmax over its keys. Step i of a lane has dimensions 32 * (i or, of odd keys, i ^ 1) + 8 * (lane % 4). */
template <tfi_dtype T, int D>
struct many_share {
    static constexpr int STEPS = D / 32, ROW = D * 2;
    uint4 q[STEPS];
    float max = -INFINITY, total = 0, sums[STEPS][8] = {};

    __device__ static int key()
    {
        return threadIdx.x % WARP / 4;
    }

    __device__ static int part(int step)
    {
        return step ^ key() % 2;
    }

    __device__ void load_query(const decode_call &p, int64_t at)
    {
        const uint16_t *x = (const uint16_t *)p.c.a.x + at + threadIdx.x % 4 * 8;
#pragma unroll
        for (int i = 0; i < STEPS; i++) q[i] = *(const uint4 *)(x + part(i) * 32);
    }

    __device__ void add(float weight, uint4 v, float (&to)[8])
    {
        float values[8];
        widen(raw_elements<8>{v, {}}, T, values);
#pragma unroll
        for (int k = 0; k < 8; k++) to[k] += weight * values[k];
    }

    /* To the 16 keys from `first` on, whose planes are at `keys`. At least one is below item.len. */
    __device__ void attend(const decode_call &p, const decode_item &item, uint32_t keys, int first)
    {
        const uint32_t row = keys + key() * ROW + threadIdx.x % 4 * 16, values = row + TFI_KV_BLOCK * ROW;
        const int low = first + key(), high = low + 8;
        float c[4] = {0, 0, 0, 0};

#pragma unroll
        for (int i = 0; i < STEPS; i++) {
            const uint4 a = read_16(row + part(i) * 64), b = read_16(row + 8 * ROW + part(i) * 64);
            multiply<T>(c, a.x, b.x, a.y, b.y, q[i].x, q[i].y);
            multiply<T>(c, a.z, b.z, a.w, b.w, q[i].z, q[i].w);
        }
        const float scale = p.c.a.scale * LOG2E;
        const float s = (key() % 2 ? c[1] : c[0]) * scale + decode_bias(p.c, item, low);
        const float t = (key() % 2 ? c[3] : c[2]) * scale + decode_bias(p.c, item, high);
        const float s0 = low < item.len ? s : -INFINITY, s1 = high < item.len ? t : -INFINITY;
        const float highest = fmaxf(max, fmaxf(s0, s1));
        if (highest == -INFINITY) return; /* none of this lane's keys so far */
        const float factor = exp2f(max - highest), w0 = exp2f(s0 - highest), w1 = exp2f(s1 - highest);
        max = highest;
        total = total * factor + w0 + w1;
#pragma unroll
        for (int i = 0; i < STEPS; i++) {
#pragma unroll
            for (int k = 0; k < 8; k++) sums[i][k] *= factor;
            if (low < item.len) add(w0, read_16(values + part(i) * 64), sums[i]);
            if (high < item.len) add(w1, read_16(values + 8 * ROW + part(i) * 64), sums[i]);
        }
    }

    __device__ static float from_lane(float v, int distance)
    {
        return __shfl_xor_sync(0xffffffffu, v, distance);
    }

    /* All lanes' sums; of each 64 dimensions a lane ends with two. */
    __device__ void write(float *row)
    {
        const int lane = threadIdx.x % WARP;
        const bool odd = lane & 4, second = lane & 8, fourth = lane & 16;
        float highest = max;

#pragma unroll
        for (int k = 4; k < WARP; k *= 2) highest = fmaxf(highest, from_lane(highest, k));
        const float factor = max == -INFINITY ? 0 : exp2f(max - highest);
        total *= factor;
#pragma unroll
        for (int k = 4; k < WARP; k *= 2) total += from_lane(total, k);
#pragma unroll
        for (int i = 0; i < STEPS; i += 2) {
            float eight[8], four[4], two[2];
#pragma unroll
            for (int k = 0; k < 8; k++) eight[k] = sums[i][k] * factor + from_lane(sums[i + 1][k] * factor, 4);
#pragma unroll
            for (int k = 0; k < 4; k++)
                four[k] = (second ? eight[k + 4] : eight[k]) + from_lane(second ? eight[k] : eight[k + 4], 8);
#pragma unroll
            for (int k = 0; k < 2; k++)
                two[k] = (fourth ? four[k + 2] : four[k]) + from_lane(fourth ? four[k] : four[k + 2], 16);
            *(float2 *)&row[SUMS + (i + odd) * 32 + lane % 4 * 8 + second * 4 + fourth * 2] = make_float2(two[0], two[1]);
        }
        if (lane > 0) return;
        row[HIGHEST] = highest;
        row[TOTAL] = total;
    }
};

/* The new token's key and value, 16 bytes a lane: to the store, and over what the copies brought of its place. */
template <int D>
struct new_token {
    static constexpr int LANES = D / 8; /* of a key */
    uint4 v;

    __device__ void load(const decode_call &p, const decode_item &item)
    {
        const int lane = threadIdx.x % WARP;
        const uint16_t *x = (const uint16_t *)p.c.a.x + decode_new_key(p, item) + (lane >= LANES ? p.c.a.H * D : 0);
        if (lane < 2 * LANES) v = *(const uint4 *)(x + lane % LANES * 8);
    }

    __device__ void store(const decode_call &p, const decode_item &item, int32_t number, uint32_t keys) const
    {
        const int lane = threadIdx.x % WARP, token = (item.len - 1) % TFI_KV_BLOCK, value = lane >= LANES;
        if (lane < 2 * LANES) {
            const int64_t at = decode_plane(p, number) + token * D + lane % LANES * 8 + (value ? p.c.kv.values_at : 0);
            *(uint4 *)(p.c.kv.blocks + at * 2) = v;
            write_16(keys + value * (TFI_KV_BLOCK * D * 2) + token * D * 2 + lane % LANES * 16, v);
        }
        __syncwarp();
    }
};

template <tfi_dtype T, int D>
__global__ void __launch_bounds__(DECODE_WARPS_MOST *WARP) decode_many(many_call c)
{
    extern __shared__ __align__(128) char memory[];
    __shared__ __align__(8) float rows[DECODE_WARPS_MOST][SUMS + D];
    __shared__ __align__(8) uint64_t barriers[DECODE_WARPS_MOST][STAGES_MOST];
    const decode_call &p = c.d;
    const int warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
    const int64_t b = blockIdx.x;

    follow();
    const int first = p.c.a.offsets[b], behind = p.c.a.offsets[b + 1], len = p.c.kv.lens[b]; /* of dead ones: anything */
    decode_item item = {
        b < p.c.live->rows[TFI_ROWS_SEQUENCES] && behind - first == 1, first, len, 0, 0, kv_table(p.c.kv, p.c.live, b)};
    if (item.single) item.end = (len + TFI_KV_BLOCK - 1) / TFI_KV_BLOCK;
    const int count = max(0, item.end - warp + warps - 1) / warps, early = min(count, c.stages);
    const uint32_t ring = shared_address(memory) + warp * c.stages * 2 * supply<D>::PLANE;
    supply<D> blocks = {p, item.table, ring, shared_address(barriers[warp]), warp, warps, count, 0};
    const bool is_last = count > 0 && (item.end - 1) % warps == warp; /* the sequence's last block is this warp's last */
    const int settled = is_last && !is_settled(p, len, item.end - 1) ? early - (early == count) : early;
    int32_t number = 0;

    blocks.init(c.stages);
    if (p.settled)
        for (int i = 0; i < settled; i++) number = blocks.ask(i, i);
    wait_for_results();
    if (!item.single) return;
    for (int i = p.settled ? settled : 0; i < early; i++) number = blocks.ask(i, i);
    many_share<T, D> share;
    new_token<D> token;
    share.load_query(p, decode_query(p, item));
    if (is_last && p.column >= 0) token.load(p, item);
    for (int i = 0, stage = 0, phase = 0; i < count; i++) {
        const uint32_t keys = ring + stage * 2 * supply<D>::PLANE;
        blocks.wait(stage, phase);
        if (is_last && i == count - 1 && p.column >= 0) token.store(p, item, number, keys);
        share.attend(p, item, keys, (warp + i * warps) * TFI_KV_BLOCK);
        if (i + c.stages < count) {
            __syncwarp();
            number = blocks.ask(i + c.stages, stage);
        }
        if (++stage < c.stages) continue;
        stage = 0;
        phase ^= 1;
    }
    if (count > 0) share.write(rows[warp]);
    __syncthreads();
    const int used = min(warps, item.end);
    for (int d = threadIdx.x; d < D; d += blockDim.x)
        write_y(p.c, item.row, d, meet(used, d, [&](int w, int i) { return rows[w][i]; }));
}

/* ---- host ---- */

/* As many warps as have all of a short context under way, while all blocks have room on the device. */
void divide(int64_t max_tokens, int *warps, int *stages)
{
    const int64_t blocks = blocks_of(max_tokens, TFI_KV_BLOCK);

    *warps = DECODE_WARPS_LEAST;
    while (*warps < 4 && *warps < blocks) *warps *= 2;
    *stages = 1;
    while (*stages < 2 && *stages * *warps < blocks) ++*stages;
}

template <tfi_dtype T, int D>
tf_status launch(const tfi_cuda_launch *l, const decode_call *p, int warps, int stages)
{
    const many_call c = {*p, stages};
    const int bytes = warps * stages * 2 * supply<D>::PLANE;
    const cudaError_t error = cudaFuncSetAttribute(decode_many<T, D>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);

    if (error != cudaSuccess) return started("ATTENTION", error);
    return start(l, "ATTENTION", decode_many<T, D>, dim3((unsigned)p->c.a.B, (unsigned)p->c.a.H), (unsigned)warps * WARP,
                 (size_t)bytes, c);
}

} // namespace

bool tfi_cuda_decode_many_fits(const tfi_cuda_launch *l, const decode_call *p)
{
    const attention_call &c = p->c;
    return l->capability >= 90 && c.vectors && c.t.x == c.kv.dtype && c.kv.dtype != TFI_F32 && (c.a.D == 64 || c.a.D == 128) &&
           c.a.B * c.a.H > 2 * (int64_t)l->multiprocessors;
}

tf_status tfi_cuda_decode_many(const tfi_cuda_launch *l, const decode_call *p, int64_t max_tokens)
{
    int warps, stages;

    divide(max_tokens, &warps, &stages);
    if (p->c.kv.dtype == TFI_BF16)
        return p->c.a.D == 64 ? launch<TFI_BF16, 64>(l, p, warps, stages) : launch<TFI_BF16, 128>(l, p, warps, stages);
    return p->c.a.D == 64 ? launch<TFI_F16, 64>(l, p, warps, stages) : launch<TFI_F16, 128>(l, p, warps, stages);
}
