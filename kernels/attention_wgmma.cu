/* Attention of tiles of rows by warpgroups of 9.0; what it computes: src/backend/ref/attention.c
 *
 * Shapes    those of attention_mma.cu, D up to 128, padded with zeros to 64 or 128 in shared memory
 * Parallel  a block has 64 rows of a head. Scores are wgmma's of queries and keys in shared memory, softmax is made in the
 *           registers where they arrive, and as wgmma's first operand the weights stay there. Many rows: a warpgroup a block,
 *           three to five blocks on a multiprocessor, so that one's softmax runs beside another's products. Few rows: several
 *           warpgroups have the same rows, each a part of the keys, and put their results together at the end. Keys and values
 *           come by cp.async, a step ahead.
 *           Few blocks with a step of keys each go through all of it twice, first over zeros while the kernel before runs:
 *           then the instructions are there.
 * Needs     vectors of 16 bytes; code for 9.0a
 * Floor     4*D*H flop and H exponentials a (row, key): BERT-base 128x384 is 58 GFLOP, 74 us at 790 TFLOP/s; 226 M
 *           exponentials at 16 a clock and multiprocessor are 63 us; 302 MB of x and y are 66 us
 * Measured  H200, CUDA 13.0, fp16, each in a chain of its kind: 128x384, H=12, D=64: 169 us, 342 TFLOP/s; 128 sequences of 1 to
 *           345: 72 us, 216; 32x384 with bias: 57 us, 252; 8x1024, causal: 50 us, 258; 32x384, H=16, D=128: 124 us, 311;
 *           1x512, H=12: 6.9 us; 1x40, H=12: 2.4 us; 1x16, H=32, D=128, with bias: 2.7 us
 *           A layer of BERT-base of 40 rows takes 1.1 us less with what is gone through twice, of 64 rows 1.5.
 * Tried     128x384: two warpgroups a block, 128 keys a step: 186 us; 64 keys: 195 us; four blocks of one: 190 us; three
 *           warpgroups: 272 us. Queries kept in registers: nvcc 13.0 gives weights the same registers, and the second step is
 *           wrong. A profile shows half of the issue slots used and no one stall that matters: more warps, fewer instructions.
 */
#include "attention_tile.cuh"

namespace
{

enum { GROUP = 4 * WARP, GROUP_ROWS = 64, LINE = 64, LINE_BYTES = 128, ALIGNMENT = 1024 };

/* A block of GROUPS warpgroups: each has 64 rows of its own and sees all keys of a step, or (SPLIT) all have the same 64 rows
 * and each its part of the keys. Tiles in shared memory are panels of 64 dimensions: a line of 128 bytes for each row or key,
 * its 16-byte chunks in the order wgmma calls a swizzle of 128 bytes. */
template <int SIZE_, int GROUPS_, bool SPLIT_, int KEYS_, int STAGES_, int BLOCKS_, bool PLAIN_ = false,
          bool REHEARSES_ = false>
struct shape_of {
    static constexpr int SIZE = SIZE_, GROUPS = GROUPS_, KEYS = KEYS_, STAGES = STAGES_, BLOCKS = BLOCKS_;
    static constexpr bool SPLIT = SPLIT_, PLAIN = PLAIN_; /* PLAIN: no bias, keys and values in x: fewer registers, shorter */
    static constexpr bool REHEARSES = REHEARSES_;         /* goes through all of it twice, first with nothing */
    static constexpr int threads = GROUPS * GROUP, panels = SIZE / LINE;
    static constexpr int rows = SPLIT ? GROUP_ROWS : GROUPS * GROUP_ROWS, step = SPLIT ? GROUPS * KEYS : KEYS;
    static constexpr int query_bytes = rows * panels * LINE_BYTES, tile_bytes = step * panels * LINE_BYTES;
    static constexpr int stage_bytes = 2 * tile_bytes;
    static constexpr int partial = 4 + SIZE / 2; /* numbers a thread has: two bases, two totals, sums */
    static constexpr int partial_bytes = SPLIT ? threads * partial * 4 : 0;
};

/* Code for 9.0a, and what the host's compiler must see of it; the kernel is empty for other devices. */
#if defined(__CUDA_ARCH_FEAT_SM90_ALL) || !defined(__CUDA_ARCH__)
#define COMPILED
#endif
#ifdef COMPILED

/* ---- instructions ---- */

/* The same number in all lanes, as the compiler learns here: addresses of tiles and loop counts belong into uniform registers,
 * or each product waits for the one before to have read its descriptors. */
__device__ int uniform(int v)
{
    return __reduce_max_sync(0xffffffffu, v);
}

/* An operand in shared memory: lines of 128 bytes in groups of 8, swizzled. */
__device__ uint64_t tile_descriptor(uint32_t address)
{
    return (uint64_t)1 << 62 | (uint64_t)(1024 >> 4) << 32 | (uint64_t)1 << 16 | (address & 0x3ffff) >> 4;
}

/* c += a b: a [64, 16] of the warpgroup, b [16, 64]. A is of registers and b's lines are its rows (values), or a is in shared
 * memory too and b's lines are its columns (keys). */
#define PRODUCT(INSTRUCTION, A, ...)                                                                                           \
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %32, 0;\n"                                                                  \
                 "wgmma.mma_async.sync.aligned.m64n64k16.f32." INSTRUCTION " {"                                                \
                 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "                                      \
                 "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, " A "\n}"                   \
                 : "+f"(c[0][0]), "+f"(c[0][1]), "+f"(c[0][2]), "+f"(c[0][3]), "+f"(c[1][0]), "+f"(c[1][1]), "+f"(c[1][2]),    \
                   "+f"(c[1][3]), "+f"(c[2][0]), "+f"(c[2][1]), "+f"(c[2][2]), "+f"(c[2][3]), "+f"(c[3][0]), "+f"(c[3][1]),    \
                   "+f"(c[3][2]), "+f"(c[3][3]), "+f"(c[4][0]), "+f"(c[4][1]), "+f"(c[4][2]), "+f"(c[4][3]), "+f"(c[5][0]),    \
                   "+f"(c[5][1]), "+f"(c[5][2]), "+f"(c[5][3]), "+f"(c[6][0]), "+f"(c[6][1]), "+f"(c[6][2]), "+f"(c[6][3]),    \
                   "+f"(c[7][0]), "+f"(c[7][1]), "+f"(c[7][2]), "+f"(c[7][3])                                                  \
                 : "r"((int)accumulate), "l"(b), __VA_ARGS__                                                                   \
                 : "memory")

template <tfi_dtype T>
__device__ void multiply_keys(float (*c)[4], uint64_t a, uint64_t b, bool accumulate)
{
    if constexpr (T == TFI_BF16) PRODUCT("bf16.bf16", "%34, %33, p, 1, 1, 0, 0;", "l"(a));
    else PRODUCT("f16.f16", "%34, %33, p, 1, 1, 0, 0;", "l"(a));
}

template <tfi_dtype T>
__device__ void multiply_values(float (*c)[4], const uint32_t (&a)[4], uint64_t b)
{
    const bool accumulate = true;
    if constexpr (T == TFI_BF16)
        PRODUCT("bf16.bf16", "{%34, %35, %36, %37}, %33, p, 1, 1, 1;", "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]));
    else PRODUCT("f16.f16", "{%34, %35, %36, %37}, %33, p, 1, 1, 1;", "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]));
}

/* Registers that products read or write are as the program says; called before products begin and after they end. */
template <int COUNT>
__device__ void settle(float (*c)[4])
{
#pragma unroll
    for (int i = 0; i < COUNT; i++) asm volatile("" : "+f"(c[i / 4][i % 4])::"memory");
}

__device__ void begin_products()
{
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

__device__ void close_products()
{
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

template <int PENDING>
__device__ void wait_for_products()
{
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(PENDING) : "memory");
}

/* Line `line`, 16-byte chunk `chunk` of a panel. */
__device__ uint32_t chunk_at(int line, int chunk)
{
    return (uint32_t)(line * LINE_BYTES + ((chunk ^ line % 8) << 4));
}

/* 16 bytes to shared memory; zeros where `inside` is false, and then nothing is read. */
__device__ void copy_chunk(uint32_t to, const uint16_t *from, bool inside)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(inside ? 16 : 0) : "memory");
}

__device__ void close_copies()
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}

/* All groups of copies but the youngest PENDING are there for the whole block, and for its tensor cores. */
template <int PENDING>
__device__ void wait_for_copies()
{
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
    __syncthreads();
}

/* ---- tiles ---- */

template <class SHAPE>
__device__ void copy_queries(const attention_call &c, const attention_item &item, int head, uint32_t to)
{
    const uint16_t *x = (const uint16_t *)c.a.x;
    const int chunk = threadIdx.x % 8;

#pragma unroll
    for (int line = threadIdx.x / 8; line < SHAPE::rows; line += SHAPE::threads / 8) {
        const int64_t at = query_element(c, item, line, head);
#pragma unroll
        for (int p = 0; p < SHAPE::panels; p++) {
            const int d = p * LINE + chunk * 8;
            const bool inside = line < item.rows && d < c.a.D;
            copy_chunk(to + p * SHAPE::rows * LINE_BYTES + chunk_at(line, chunk), inside ? x + at + d : x, inside);
        }
    }
}

/* Keys and values of a step; those from `visible` on are zeros. */
template <class SHAPE>
__device__ void copy_step(const attention_call &c, const attention_item &item, int head, int first, int visible, uint32_t to)
{
    constexpr int APART = SHAPE::threads / 8; /* lines of a thread */
    const int chunk = threadIdx.x % 8, line = threadIdx.x / 8;
    const auto copy_line = [&](int i, bool there, const uint16_t *key, int64_t values) {
#pragma unroll
        for (int p = 0; p < SHAPE::panels; p++) {
            const uint32_t out = to + p * SHAPE::step * LINE_BYTES + chunk_at(line, chunk) + i * (APART * LINE_BYTES);
            const bool inside = there && p * LINE + chunk * 8 < c.a.D;
            copy_chunk(out, key + p * LINE, inside);
            copy_chunk(out + SHAPE::tile_bytes, key + p * LINE + values, inside);
        }
    };

    if (!SHAPE::PLAIN && c.kv.blocks) {
        const uint16_t *from = (const uint16_t *)c.kv.blocks + chunk * 8;
#pragma unroll
        for (int i = 0; i < SHAPE::step / APART; i++) {
            const int key = first + line + i * APART;
            const uint32_t there = (uint32_t)min(key, visible - 1);
            copy_line(i, key < visible, from + kv_key(c.kv, item.table, there, head, c.a.D), c.kv.values_at);
        }
    } else {
        const int stride = (int)c.a.x_stride, width = c.a.H * c.a.D;
        const uint16_t *from = (const uint16_t *)c.a.x + key_element(c, item, first + line, head, false) + chunk * 8;
#pragma unroll
        for (int i = 0; i < SHAPE::step / APART; i++)
            copy_line(i, first + line + i * APART < visible, from + (int64_t)i * APART * stride, width);
    }
}

/* Whether rows of y can be written in vectors of 16 bytes. */
__device__ bool writes_lines(const attention_call &c)
{
    return c.t.y != TFI_F32 && (uintptr_t)c.a.y % 16 == 0;
}

/* The warp's 16 rows, by way of the shared memory where its queries were: whole lines are written at once. */
template <class SHAPE>
__device__ void write_lines(const attention_call &c, const attention_item &item, int head, uint32_t queries, int row,
                            const float (&total)[2], const float (*sums)[4])
{
    const int lane = threadIdx.x % WARP;
    uint16_t *const y = (uint16_t *)c.a.y;

#pragma unroll
    for (int half = 0; half < 2; half++) {
        const float factor = total[half] == 0 ? 0 : 1 / total[half]; /* no keys: zeros */
#pragma unroll
        for (int n = 0; n < SHAPE::SIZE / 8; n++) {
            const float a = sums[n][2 * half] * factor, b = sums[n][2 * half + 1] * factor;
            const uint32_t to = queries + n / 8 * SHAPE::rows * LINE_BYTES + chunk_at(row + lane / 4 + half * 8, n % 8) +
                                lane % 4 * 4;
            asm volatile("st.shared.b32 [%0], %1;" ::"r"(to),
                         "r"(c.t.y == TFI_BF16 ? pack<TFI_BF16>(a, b) : pack<TFI_F16>(a, b))
                         : "memory");
        }
    }
    __syncwarp();
#pragma unroll
    for (int i = 0; i < 4 * SHAPE::panels; i++) {
        const int r = row + i % 4 * 4 + lane / 8, d = i / 4 * LINE + lane % 8 * 8;
        uint4 v;
        asm volatile("ld.shared.v4.b32 {%0, %1, %2, %3}, [%4];"
                     : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                     : "r"(queries + i / 4 * SHAPE::rows * LINE_BYTES + chunk_at(r, lane % 8))
                     : "memory");
        if (r < item.rows && d < c.a.D) *(uint4 *)(y + output_element(c, item, r, head) + d) = v;
    }
}

/* What write_rows() does where y has 16 bits, in little code. */
template <int COLUMNS>
__device__ void write_pairs(const attention_call &c, const attention_item &item, int head, int row, int column,
                            const float (&total)[2], const float (*sums)[4])
{
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const float factor = total[half] == 0 ? 0 : 1 / total[half]; /* no keys: zeros */
        const int r = row + threadIdx.x % WARP / 4 + half * 8, d = column + threadIdx.x % 4 * 2;
        uint16_t *const to = (uint16_t *)c.a.y + output_element(c, item, r, head) + d;
#pragma unroll
        for (int n = 0; n < COLUMNS / 8; n++)
            if (r < item.rows && d + n * 8 < c.a.D)
                *(uint32_t *)(to + n * 8) = float_to_halves(sums[n][2 * half] * factor, sums[n][2 * half + 1] * factor, c.t.y);
    }
}

/* The warpgroups' softmaxes over parts of the keys become one; each writes its share of the columns. */
template <class SHAPE>
__device__ void meet_groups(const attention_call &c, const attention_item &item, int head, float *shared,
                            const row_state &state, const float (*sums)[4])
{
    constexpr int COLUMNS = SHAPE::SIZE / SHAPE::GROUPS;
    const int group = threadIdx.x / GROUP, thread = threadIdx.x % GROUP;
    const auto number = [&](int g, int i) -> float & { return shared[(g * SHAPE::partial + i) * GROUP + thread]; };
    float base[2] = {-INFINITY, -INFINITY}, total[2] = {0, 0}, out[COLUMNS / 8][4] = {};

#pragma unroll
    for (int half = 0; half < 2; half++) {
        number(group, half) = state.base[half];
        number(group, 2 + half) = state.total[half];
    }
#pragma unroll
    for (int i = 0; i < SHAPE::SIZE / 2; i++) number(group, 4 + i) = sums[i / 4][i % 4];
    __syncthreads();
#pragma unroll
    for (int i = 0; i < 2 * SHAPE::GROUPS; i++) base[i % 2] = fmaxf(base[i % 2], number(i / 2, i % 2));
#pragma unroll
    for (int g = 0; g < SHAPE::GROUPS; g++) {
        float factors[2];
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const float there = number(g, 2 + half);
            factors[half] = there == 0 ? 0 : power_of_2(number(g, half) - base[half]);
            total[half] += factors[half] * there;
        }
#pragma unroll
        for (int i = 0; i < COLUMNS / 2; i++)
            out[i / 4][i % 4] += factors[i % 4 / 2] * number(g, 4 + group * (COLUMNS / 2) + i);
    }
    if constexpr (SHAPE::PLAIN) write_pairs<COLUMNS>(c, item, head, thread / WARP * 16, group * COLUMNS, total, out);
    else write_rows<COLUMNS>(c, item, head, thread / WARP * 16, group * COLUMNS, total, out);
}

/* Shared memory, from an aligned address on: queries, then stages of keys and values. */
__device__ uint32_t queries_at()
{
    extern __shared__ uint4 memory[];
    return (shared_address(memory) + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

template <class SHAPE>
__device__ float *stage_memory()
{
    extern __shared__ uint4 memory[];
    return (float *)((char *)memory + (queries_at() + SHAPE::query_bytes - shared_address(memory)));
}

/* The tile's rows, in steps over the keys that any of them sees; this warpgroup's see less than `mine`. */
template <tfi_dtype T, class SHAPE>
__device__ void attend_tile(const attention_call &c, const attention_item &item, int visible, int steps, int mine,
                            const float *bias)
{
    constexpr int KEYS = SHAPE::KEYS, SIZE = SHAPE::SIZE, panels = SHAPE::panels;
    const uint32_t queries = queries_at(), stages = queries + SHAPE::query_bytes;
    const int group = uniform(threadIdx.x / GROUP), group_row = SHAPE::SPLIT ? 0 : group * GROUP_ROWS;
    const int warp_row = group_row + uniform(threadIdx.x % GROUP / WARP) * 16;
    const int head = blockIdx.x, part = SHAPE::SPLIT ? group * KEYS : 0;
    float sums[SIZE / 8][4] = {};
    row_state state;

    const float scale = scales_first(c) ? 1 : c.a.scale * LOG2E;
    const auto copy = [&](int i) {
        if (i < steps)
            copy_step<SHAPE>(c, item, head, i * SHAPE::step, visible, stages + i % SHAPE::STAGES * SHAPE::stage_bytes);
        close_copies();
    };

    /* Without a key nobody would wait for queries, and where they are is where rows go out by. */
    if (SHAPE::PLAIN || steps > 0) copy_queries<SHAPE>(c, item, head, queries);
#pragma unroll
    for (int i = 0; i < SHAPE::STAGES - 1; i++) copy(i);
    const uint64_t query_tile = tile_descriptor(queries + group_row * LINE_BYTES);
    for (int i = 0; i < steps; i++) {
        const uint64_t key_tile = tile_descriptor(stages + i % SHAPE::STAGES * SHAPE::stage_bytes + part * LINE_BYTES);
        const int first = i * SHAPE::step + part;
        float scores[KEYS / 8][4];

        wait_for_copies<SHAPE::STAGES - 2>();
        copy(i + SHAPE::STAGES - 1);
        if (first >= mine) continue;
        begin_products();
#pragma unroll
        for (int k = 0; k < SIZE / 16; k++) {
            const uint64_t a = query_tile + (k / 4 * SHAPE::rows * LINE_BYTES + k % 4 * 32) / 16;
            const uint64_t b = key_tile + (k / 4 * SHAPE::step * LINE_BYTES + k % 4 * 32) / 16;
#pragma unroll
            for (int n = 0; n < KEYS / 64; n++) multiply_keys<T>(&scores[n * 8], a, b + n * (64 * LINE_BYTES / 16), k > 0);
        }
        close_products();
        wait_for_products<0>();
        settle<KEYS / 2>(scores);
        mark_scores<KEYS>(c, bias, first, item.number + warp_row, item.keys, scores);
        soften<KEYS, SIZE>(&state, scale, scores, sums);
        uint32_t weights[KEYS / 16][4];
#pragma unroll
        for (int k = 0; k < KEYS / 4; k++)
            weights[k / 4][k % 4] = pack<T>(scores[k / 2][k % 2 * 2], scores[k / 2][k % 2 * 2 + 1]);
        settle<SIZE / 2>(sums);
        begin_products();
#pragma unroll
        for (int k = 0; k < KEYS / 16; k++) {
#pragma unroll
            for (int p = 0; p < panels; p++)
                multiply_values<T>(&sums[p * 8], weights[k],
                                   key_tile + (SHAPE::tile_bytes + (p * SHAPE::step + k * 16) * LINE_BYTES) / 16);
        }
        close_products();
        wait_for_products<0>();
        settle<SIZE / 2>(sums);
    }
    meet_lanes(&state);
    if constexpr (SHAPE::SPLIT) {
        __syncthreads(); /* all are done with keys and values */
        meet_groups<SHAPE>(c, item, head, stage_memory<SHAPE>(), state, sums);
    } else {
        if (!SHAPE::REHEARSES && warp_row >= item.rows) return;
        if (writes_lines(c)) write_lines<SHAPE>(c, item, head, queries, warp_row, state.total, sums);
        else write_rows<SIZE>(c, item, head, warp_row, 0, state.total, sums);
    }
}

template <tfi_dtype T, class SHAPE>
__device__ void attend(const attention_call &c, int bias_from)
{
    const int group = uniform(threadIdx.x / GROUP), group_row = SHAPE::SPLIT ? 0 : group * GROUP_ROWS;
    attention_item item;

    follow();
    const bool live = uniform(find_item(c, blockIdx.y, SHAPE::rows, &item));
    float *const bias = !SHAPE::PLAIN && c.a.bias ? stage_memory<SHAPE>() + bias_from : NULL;
    if (live && bias) bias_table<SHAPE::KEYS>::stage(c, blockIdx.x, bias);
        /* A rehearsal is of a step over zeros, by which no row is written. */
#pragma unroll 1
    for (int turn = SHAPE::REHEARSES ? 0 : 1; turn < 2; turn++) {
        attention_item tile = {};
        int visible = 0, steps = 1, mine = 1;
        if (turn == 1) {
            if (SHAPE::REHEARSES) __syncthreads();
            wait_for_results();
            if (!live) return;
            tile = item;
            tile.rows = uniform(item.rows);
            tile.keys = uniform(item.keys);
            tile.number = uniform(item.number);
            visible = visible_keys(c, tile);
            steps = (visible + SHAPE::step - 1) / SHAPE::step;
            mine = SHAPE::SPLIT || group * GROUP_ROWS < tile.rows
                       ? (c.causal ? min(visible, tile.number + group_row + GROUP_ROWS) : visible)
                       : 0;
        }
        attend_tile<T, SHAPE>(c, tile, visible, steps, mine, bias);
    }
}

#endif

template <tfi_dtype T, class SHAPE>
__global__ void __launch_bounds__(SHAPE::threads, SHAPE::BLOCKS) attention_by_groups(attention_call c, int bias_from)
{
#ifdef COMPILED
    attend<T, SHAPE>(c, bias_from);
#endif
}

/* ---- host ---- */

/* What the launch asks of shared memory: queries, then steps of keys and values, where partial results meet later, then biases.
 */
template <tfi_dtype T, class SHAPE>
tf_status launch(const tfi_cuda_launch *l, const attention_call *c, int64_t max_keys)
{
    static_assert(!SHAPE::REHEARSES || !SHAPE::SPLIT, "a rehearsal has results of nothing, which need not meet");
    const int64_t steps = (max_keys + SHAPE::step - 1) / SHAPE::step;
    const int stages = (int)(steps < SHAPE::STAGES ? steps : SHAPE::STAGES) * SHAPE::stage_bytes;
    const int body = stages > SHAPE::partial_bytes ? stages : SHAPE::partial_bytes;
    const int biases = !SHAPE::PLAIN && c->a.bias ? bias_table<SHAPE::KEYS>::width(c->a.max_distance) * 4 : 0;
    const int bytes = ALIGNMENT + SHAPE::query_bytes + body + biases;
    const dim3 grid((unsigned)c->a.H, (unsigned)(c->a.R / SHAPE::rows + c->a.B)); /* heads side by side, as in x */

    if (bytes > 48 * 1024)
        (void)cudaFuncSetAttribute(attention_by_groups<T, SHAPE>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    return start(l, "ATTENTION", attention_by_groups<T, SHAPE>, grid, SHAPE::threads, bytes, *c, body / 4);
}

template <tfi_dtype T, int SIZE>
tf_status launch_sized(const tfi_cuda_launch *l, const attention_call *c, int64_t max_rows, int64_t max_keys)
{
    const int64_t blocks = (c->a.R + GROUP_ROWS - 1) / GROUP_ROWS * c->a.H;
    const bool few = blocks <= l->multiprocessors,
               plain = SIZE == 64 && !c->kv.blocks && !c->a.bias && c->t.y != TFI_F32 && (uintptr_t)c->a.y % 16 == 0;

    if (few && max_keys > 64) {
        if (plain) return launch<T, shape_of<64, 4, true, 64, 3, 1, true>>(l, c, max_keys);
        return launch<T, shape_of<SIZE, SIZE == 64 ? 4 : 2, true, 64, 3, 1>>(l, c, max_keys);
    }
    if (few && plain) return launch<T, shape_of<64, 1, false, 64, 2, 4, true, true>>(l, c, max_keys);
    if (SIZE > 64 || c->kv.blocks || c->a.bias || blocks <= 4 * l->multiprocessors)
        return launch<T, shape_of<SIZE, 1, false, 64, 2, SIZE == 64 ? 4 : 3>>(l, c, max_keys);
    return launch<T, shape_of<64, 1, false, 64, 2, 5, true>>(l, c, max_keys);
}

template <tfi_dtype T>
tf_status launch_typed(const tfi_cuda_launch *l, const attention_call *c, int64_t max_rows, int64_t max_keys)
{
    return c->a.D <= 64 ? launch_sized<T, 64>(l, c, max_rows, max_keys) : launch_sized<T, 128>(l, c, max_rows, max_keys);
}

} // namespace

bool tfi_cuda_attention_wgmma_fits(const attention_call *c, int capability)
{
#ifdef TFI_SM_90A
    return capability == 90 && c->vectors && c->a.D <= 128 && c->a.R / GROUP_ROWS + c->a.B <= UINT16_MAX;
#else
    (void)c, (void)capability;
    return false;
#endif
}

tf_status tfi_cuda_attention_wgmma(const tfi_cuda_launch *l, const attention_call *c, int64_t max_rows, int64_t max_keys)
{
    return c->t.x == TFI_BF16 ? launch_typed<TFI_BF16>(l, c, max_rows, max_keys)
                              : launch_typed<TFI_F16>(l, c, max_rows, max_keys);
}
