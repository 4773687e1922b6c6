/* Attention of many sequences that have one row each, from the store, in 16 bits; what it computes:
 * src/backend/ref/attention.c; beside attention_decode.cu, which spreads few of them over the device.
 *
 * Shapes    q [H*D] a sequence, D 64 or 128; keys and values in blocks of 16 tokens (kernels/kv.cuh), of x's type
 * Parallel  a warp a sequence and head. It takes two blocks of the store at a time, which copies of whole planes bring into
 *           a ring in shared memory: the first ones before the results of the kernel before are waited for
 *           (attention_decode.cu says what may be read then), so that most bytes are on their way while the product before
 *           is at work, and registers hold none of them. Alone, a warp has nobody to meet: what a block of more does beside
 *           keys is most of its instructions.
 * Products  q k by mma.sync: 16 keys are the rows, q stands in all columns, so every lane has the score of the two keys
 *           whose values it weights in fp32: lane l has keys l / 4 and l / 4 + 8 and 8 dimensions of every 32. Rows of the
 *           odd keys are read half by half in the other order, for the banks; q's odd columns too, and odd keys take the
 *           score of an odd column.
 * Room      Each warp takes as much shared memory as makes its share of all warps fill a multiprocessor: 36 KB where 768 warps
 *           are 6 a multiprocessor. With less, those that the product before has left free get 10 and are the last to end.
 * Needs     9.0, vectors of 16 bytes
 * Floor     bytes of keys and values: 64 sequences of 90 tokens, H=12, D=64: 17.7 MB / 4.6 TB/s = 3.9 us, of 140: 6.0 us, of
 *           which all but what the kernel before leaves no room for can come before; 2 us from there on
 * Measured  H200, CUDA 13.0, 2026-11-22: a layer of GPT-2 124M for 64 sequences as a chain of seven dependent launches: of
 *           41, 90 and 139 tokens 22.6, 23.9 and 26.7 us; with as many stages as a short context has blocks and no more room
 *           than they take 22.8, 24.9 and 27.7. All keys and values in L2: 0.3, 0.8 and 0.9 less. attention_decode.cu: 2.2
 *           more of 90 tokens and 3.3 of 139
 * Tried     Four warps with a ring each that meet at the end: 1.7 us more of 90 tokens; two: 2.5. Going through the products
 *           once before the wait, as norm.cu does: 0.35 more. Values' products by mma.sync as well, from tiles that the copy
 *           engine swizzles: 0.8 more, for its small tiles come later than whole planes. A kernel beside the chain that brings
 *           the layer's keys and values to L2 ahead: 0.7 more. */
#include "attention_decode.cuh"
#include "hopper.cuh"

namespace
{

#define HOPPER (__CUDA_ARCH__ >= 900)

/* MEMORY: of a multiprocessor, of which a block has RESERVED beside its own. */
enum { STAGES_MOST = 8, MEMORY = 227 * 1024, RESERVED = 1024 + STAGES_MOST * 8 };

struct many_call {
    decode_call d;
    int stages; /* of the ring */
};

/* Zeros where `there` is false. */
__device__ uint4 read_16(uint32_t from, bool there)
{
    uint4 v = make_uint4(0, 0, 0, 0);
    asm volatile("{\n\t.reg .pred p;\n\tsetp.ne.b32 p, %5, 0;\n\t@p ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];\n\t}"
                 : "+r"(v.x), "+r"(v.y), "+r"(v.z), "+r"(v.w)
                 : "r"(from), "r"((int)there)
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

/* The sequence's blocks of the store, one after the other, into the ring. */
template <int D>
struct supply {
    static constexpr int PLANE = TFI_KV_BLOCK * D * 2;
    const decode_call &p;
    const int32_t *table;
    uint32_t ring, barriers;
    int count;
    int32_t numbers; /* of the blocks from i - i % WARP on, one a lane */

    __device__ void init(int stages) const
    {
#if HOPPER
        if (threadIdx.x == 0) {
#pragma unroll 1
            for (int i = 0; i < stages; i++) barrier_init(barriers + 8 * i, 1);
            barriers_are_there();
        }
        __syncwarp();
#endif
    }

    /* Its `i`th, in turn. All lanes. */
    __device__ void ask(int i, int stage)
    {
        const int lane = threadIdx.x;
        if (i % WARP == 0) numbers = i + lane < count ? table[i + lane] : 0;
        const int32_t number = __shfl_sync(0xffffffffu, numbers, i % WARP);
#if HOPPER
        if (lane == 0) {
            const char *from = p.c.kv.blocks + decode_plane(p, number) * 2;
            const uint32_t to = ring + stage * 2 * PLANE, barrier = barriers + 8 * stage;
            barrier_expect(barrier, 2 * PLANE);
            copy_bytes(to, from, PLANE, barrier);
            copy_bytes(to + PLANE, from + p.c.kv.values_at * 2, PLANE, barrier);
        }
#endif
    }

    /* Stages that have been read may be asked for again. */
    __device__ void all_have_read() const
    {
#if HOPPER
        before_copies();
#endif
    }

    __device__ void wait(int stage, int phase) const
    {
#if HOPPER
        barrier_wait(barriers + 8 * stage, phase);
#endif
    }
};

__device__ float exp2_of(float v)
{
    float r;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(v));
    return r;
}

/* The softmax over a sequence's keys. Step i of a lane has dimensions 32 * (i or, of odd keys, i ^ 1) + 8 * (lane % 4). */
template <tfi_dtype T, int D>
struct many_share {
    static constexpr int STEPS = D / 32, ROW = D * 2;
    uint4 q[STEPS];
    float scale, max = -INFINITY, total = 0, sums[STEPS][8] = {};

    __device__ static int key()
    {
        return threadIdx.x / 4;
    }

    __device__ static int part(int step)
    {
        return step ^ key() % 2;
    }

    __device__ void load_query(const decode_call &p, const uint16_t *x)
    {
        scale = p.c.a.scale * LOG2E;
#pragma unroll
        for (int i = 0; i < STEPS; i++) q[i] = *(const uint4 *)(x + part(i) * 32 + threadIdx.x % 4 * 8);
    }

    /* What the lane reads of a block: rows of two keys, and their values where those are in the sequence. */
    struct rows {
        uint4 keys[2][STEPS], values[2][STEPS];
    };

    /* number: of the lane's first key in the sequence. */
    __device__ static void read(const decode_item &item, uint32_t keys, int number, rows *r)
    {
        const uint32_t row = keys + key() * ROW + threadIdx.x % 4 * 16;
#pragma unroll
        for (int i = 0; i < 2 * STEPS; i++) r->keys[i % 2][i / 2] = read_16(row + i % 2 * 8 * ROW + part(i / 2) * 64, true);
#pragma unroll
        for (int i = 0; i < 2 * STEPS; i++)
            r->values[i % 2][i / 2] =
                read_16(row + TFI_KV_BLOCK * ROW + i % 2 * 8 * ROW + part(i / 2) * 64, number + i % 2 * 8 < item.len);
    }

    __device__ void score(const decode_call &p, const decode_item &item, const rows &r, int number, float (&s)[2]) const
    {
        float c[2][4] = {};

#pragma unroll
        for (int i = 0; i < STEPS; i++) {
            const uint4 a = r.keys[0][i], b = r.keys[1][i];
            multiply<T>(c[0], a.x, b.x, a.y, b.y, q[i].x, q[i].y);
            multiply<T>(c[1], a.z, b.z, a.w, b.w, q[i].z, q[i].w);
        }
#pragma unroll
        for (int k = 0; k < 2; k++) {
            s[k] = (key() % 2 ? c[0][2 * k + 1] + c[1][2 * k + 1] : c[0][2 * k] + c[1][2 * k]) * scale;
            if (p.c.a.bias) s[k] += decode_bias(p.c, item, number + 8 * k);
            if (number + 8 * k >= item.len) s[k] = -INFINITY;
        }
    }

    __device__ void add(float weight, const uint4 (&row)[STEPS])
    {
#pragma unroll
        for (int i = 0; i < STEPS; i++) {
            float values[8];
            widen(raw_elements<8>{row[i], {}}, T, values);
#pragma unroll
            for (int k = 0; k < 8; k++) sums[i][k] += weight * values[k];
        }
    }

    /* To the blocks at keys[0] and, where there are two, keys[1]. */
    __device__ void attend(const decode_call &p, const decode_item &item, const uint32_t (&keys)[2], int first, bool two)
    {
        const int number = first + key();
        rows r[2];
        float s[2][2];

        read(item, keys[0], number, &r[0]);
        read(item, two ? keys[1] : keys[0], two ? number + TFI_KV_BLOCK : item.len, &r[1]);
        score(p, item, r[0], number, s[0]);
        score(p, item, r[1], two ? number + TFI_KV_BLOCK : item.len, s[1]);
        const float highest = fmaxf(fmaxf(max, fmaxf(s[0][0], s[0][1])), fmaxf(s[1][0], s[1][1]));
        const float from = highest == -INFINITY ? 0 : highest,
                    factor = exp2_of(max - from); /* none of this lane's keys so far */
        max = highest;
        total *= factor;
#pragma unroll
        for (int i = 0; i < STEPS * 8; i++) sums[i / 8][i % 8] *= factor;
#pragma unroll
        for (int k = 0; k < 4; k++) {
            const float weight = exp2_of(s[k / 2][k % 2] - from);
            total += weight;
            add(weight, r[k / 2].values[k % 2]);
        }
    }

    __device__ static float from_lane(float v, int distance)
    {
        return __shfl_xor_sync(0xffffffffu, v, distance);
    }

    /* All lanes' sums; of each 64 dimensions a lane ends with two. */
    __device__ void write(const decode_call &p, int64_t y)
    {
        const int lane = threadIdx.x;
        const bool odd = lane & 4, second = lane & 8, fourth = lane & 16;
        float highest = max;

#pragma unroll
        for (int k = 4; k < WARP; k *= 2) highest = fmaxf(highest, from_lane(highest, k));
        const float factor = max == -INFINITY ? 0 : exp2_of(max - highest);
        total *= factor;
#pragma unroll
        for (int k = 4; k < WARP; k *= 2) total += from_lane(total, k);
        const float share = total == 0 ? 0 : 1 / total; /* no keys: zeros */
#pragma unroll
        for (int i = 0; i < STEPS; i += 2) {
            float eight[8], four[4];
#pragma unroll
            for (int k = 0; k < 8; k++) eight[k] = sums[i][k] * factor + from_lane(sums[i + 1][k] * factor, 4);
#pragma unroll
            for (int k = 0; k < 4; k++)
                four[k] = (second ? eight[k + 4] : eight[k]) + from_lane(second ? eight[k] : eight[k + 4], 8);
#pragma unroll
            for (int k = 0; k < 2; k++) {
                const float v = (fourth ? four[k + 2] : four[k]) + from_lane(fourth ? four[k] : four[k + 2], 16);
                const float out[1] = {v * share};
                ::store(p.c.a.y, p.c.t.y, y + (i + odd) * 32 + lane % 4 * 8 + second * 4 + fourth * 2 + k, out);
            }
        }
    }
};

/* The new token's key and value, 16 bytes a lane: to the store, and over what the copies brought of its place. */
template <int D>
struct new_token {
    static constexpr int LANES = D / 8; /* of a key */
    uint4 v;

    __device__ static int at()
    {
        return threadIdx.x % LANES * 8;
    }

    __device__ static bool is_value()
    {
        return threadIdx.x >= LANES;
    }

    /* x: of the sequence's new key. */
    __device__ void load(const uint16_t *x, int64_t to_value)
    {
        if (threadIdx.x < 2 * LANES) v = *(const uint4 *)(x + (is_value() ? to_value : 0) + at());
    }

    /* to: the place of its key in the store; keys: of its block. */
    __device__ void store(uint16_t *to, int64_t to_value, uint32_t keys, int token) const
    {
        if (threadIdx.x < 2 * LANES) {
            *(uint4 *)(to + (is_value() ? to_value : 0) + at()) = v;
            write_16(keys + is_value() * (TFI_KV_BLOCK * D * 2) + token * D * 2 + at() * 2, v);
        }
        __syncwarp();
    }
};

template <tfi_dtype T, int D>
__global__ void __launch_bounds__(WARP) decode_many(many_call c)
{
    extern __shared__ __align__(128) char memory[];
    __shared__ __align__(8) uint64_t barriers[STAGES_MOST];
    const decode_call &p = c.d;
    const int64_t b = blockIdx.x;

    follow();
    const int first = p.c.a.offsets[b], behind = p.c.a.offsets[b + 1], len = p.c.kv.lens[b]; /* of dead ones: anything */
    const decode_item item = {
        b < p.c.live->rows[TFI_ROWS_SEQUENCES] && behind - first == 1, first, len, 0, 0, kv_table(p.c.kv, p.c.live, b)};
    const int count = item.single ? (len + TFI_KV_BLOCK - 1) / TFI_KV_BLOCK : 0, token = (len - 1) % TFI_KV_BLOCK;
    const uint32_t ring = shared_address(memory);
    supply<D> blocks = {p, item.table, ring, shared_address(barriers), count, 0};
    int asked = 0, settled = p.settled ? min(count, c.stages) : 0;
    if (settled == count && count > 0 && !is_settled(p, len, count - 1)) settled--;

    blocks.init(c.stages);
#pragma unroll 1
    for (; asked < settled; asked++) blocks.ask(asked, asked);
    const uint16_t *x = (const uint16_t *)p.c.a.x + decode_query(p, item);
    uint16_t *place = NULL;
    if (p.column >= 0 && count > 0) place = (uint16_t *)p.c.kv.blocks + decode_plane(p, item.table[count - 1]) + token * D;
    wait_for_results();
    if (!item.single) return;
    many_share<T, D> share;
    new_token<D> newest;
    share.load_query(p, x);
    if (place) newest.load(x + p.column, (int64_t)p.c.a.H * D);
#pragma unroll 1
    for (; asked < min(count, c.stages); asked++) blocks.ask(asked, asked);
#pragma unroll 1
    for (int i = 0, stage = 0, phase = 0; i < count; i += 2) {
        const bool two = i + 1 < count;
        const int other = stage + 1 < c.stages ? stage + 1 : 0;
        const uint32_t keys[2] = {ring + stage * 2 * supply<D>::PLANE, ring + other * 2 * supply<D>::PLANE};
        blocks.wait(stage, phase);
        if (two) blocks.wait(other, other ? phase : phase ^ 1);
        if (place && i + 2 >= count) newest.store(place, p.c.kv.values_at, two ? keys[1] : keys[0], token);
        share.attend(p, item, keys, i * TFI_KV_BLOCK, two);
        __syncwarp();
        if (asked < count) blocks.all_have_read();
#pragma unroll 1
        for (int k = 0; k < 2 && asked < count; k++, asked++) blocks.ask(asked, k ? other : stage);
        if (other == 0) phase ^= 1;
        stage = other + 1;
        if (stage < c.stages) continue;
        stage = 0;
        phase ^= 1;
    }
    share.write(p, (item.row * p.c.a.H + blockIdx.y) * D);
}

/* ---- host ---- */

/* A warp takes as much shared memory as leaves room on a multiprocessor for its share of all warps: those that have room for more
 * now would get more. */
int bytes_for(const tfi_cuda_launch *l, int64_t warps, int stage)
{
    const int64_t each = (warps + l->multiprocessors - 1) / l->multiprocessors;
    const int64_t room = (MEMORY / each - RESERVED) / 4096 * 4096, least = 2 * stage, most = STAGES_MOST * stage;
    return (int)(room < least ? least : room < most ? room : most);
}

template <tfi_dtype T, int D>
tf_status launch(const tfi_cuda_launch *l, const decode_call *p, int64_t max_tokens)
{
    const int stage = 2 * supply<D>::PLANE, bytes = bytes_for(l, p->c.a.B * p->c.a.H, stage);
    const int64_t blocks = blocks_of(max_tokens, TFI_KV_BLOCK);
    const many_call c = {*p, blocks < 2 ? 2 : blocks < bytes / stage ? (int)blocks : bytes / stage};
    const cudaError_t error = cudaFuncSetAttribute(decode_many<T, D>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);

    if (error != cudaSuccess) return started("ATTENTION", error);
    return start(l, "ATTENTION", decode_many<T, D>, dim3((unsigned)p->c.a.B, (unsigned)p->c.a.H), WARP, (size_t)bytes, c);
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
    if (p->c.kv.dtype == TFI_BF16)
        return p->c.a.D == 64 ? launch<TFI_BF16, 64>(l, p, max_tokens) : launch<TFI_BF16, 128>(l, p, max_tokens);
    return p->c.a.D == 64 ? launch<TFI_F16, 64>(l, p, max_tokens) : launch<TFI_F16, 128>(l, p, max_tokens);
}
