/* LINEAR of 9 to 64 rows on tensor cores: the part of tfi_cuda_few() between a matrix by vectors and the matrix library.
 *
 * Shapes    x [M, K], w [N, K] in BF16 or F16; y [M, N] (gated: [M, N / 2]) in any type, with bias, activation, residual
 * Parallel  w is the left operand of mma.sync m16n8k16, tokens are the columns (M rounded up to 16, 32, 48 or 64). A warp has
 *           32 rows of w and every deep-th 32 of K; warps beside each other share the block's x. The blocks of a cluster
 *           share K: each gets the sums of some slots straight into its shared memory, adds them up in the order of the
 *           blocks and finishes them. The first weights are asked for before the results of the kernel before are waited
 *           for; what counts is the way from there on: x through L2, products, exchange, end.
 * Needs     K % 8 == 0, x and w aligned to 16 bytes, room for a block's x in shared memory, 8.0; clusters: 9.0. A norm is
 *           left to its own kernel: every block would do it again.
 * Floor     2 * N * K bytes of w at 4.55 TB/s (768 x 768: 0.3 us, 3072 x 768: 1.0 us, 50257 x 768: 17 us) and 0.72 us from
 *           a kernel to the next; expected: 2.5 us for the products of BERT-base.
 * Measured  H200, CUDA 13.0, 2026-11-21: dependent launches in a graph, weights from memory; w N x K (cuBLASLt):
 *           48 rows: 768 x 768 3.7 us (4.0), 768 x 3072 5.6 (7.7), 3072 x 768 with erf 5.7 (4.7 without), 2304 x 768 4.8 (4.6)
 *           64 rows: 768 x 3072 6.1 (7.9), 2304 x 768 6.0 (5.0), 3072 x 768 7.5 (5.1), 50257 x 768 41 (113)
 *           16 rows: 768 x 768 2.6 (4.1), 2304 x 768 3.5 (4.3), 768 x 3072 4.0 (7.3), 12288 x 1024 8.6 (8.8),
 *           16384 x 1024 10.7 (10.3), 1024 x 16384 12.5 (13.6). What it does not win is left to the library.
 * Tried     Weights in registers, in the order of the products: 170 to 240 registers leave no room for the next kernel's
 *           blocks, up to 1.5 us more. Every warp's sums straight to the blocks that finish them: 0.6 to 1.5 us more for
 *           N >= 2304 from 48 rows on, 0.1 to 0.3 us less at 16 rows. Blocks that go on to further tiles, x in two halves,
 *           divisions on the device, a body of the activations for every element: 0.7 to 1.1 us more together; what runs once
 *           waits for its instructions. */
#include "few.cuh"

namespace
{

/* Rows of w that a warp multiplies, K of one turn of its loop, bytes of w in a turn; a slot: 16 rows of w by 8 tokens, one
 * float4 a lane. */
enum { WARP_ROWS = 32, STEP = 32, STAGE_BYTES = WARP_ROWS * STEP * 2, SLOT_BYTES = 16 * WARP, WARPS_MOST = 16, SPLIT_MOST = 8 };

struct plan {
    int wide, deep; /* warps of a block along w's rows, and along K */
    int split;      /* blocks of a cluster, along K */
    int tiles;      /* clusters, of wide * WARP_ROWS rows of w */
    int turns;      /* of a warp */
    int depth;      /* turns whose weights are there or on their way: SHALLOW or DEEP */
    /* What follows from it: */
    int each, more;                   /* steps of K of a block; those of the first `more` have one more */
    int columns, stride;              /* 16-byte columns of a block's x, bytes from row to row of it in shared memory */
    int team_shift;                   /* log2 of the threads that copy a row of x */
    int rows, rows_bytes, rows_place; /* that are copied together; bytes of them in x and in shared memory */
    int inverse;                      /* 65536 / split, rounded up */
    int owned;                        /* slots that a block adds up, at most */
    int64_t hop, leap;                /* bytes of w to a lane's next row in the same 16, and to that in the next 16 */
    int step, gap, sixteen; /* in columns of y: from lane to lane, to a lane's second one, from 16 rows of w to the next */
    int paired;             /* a lane's two columns are neighbours that are read and written together */
    int ring_at, sums_at, barrier_at, shared; /* bytes */
};
enum { SHALLOW = 4, DEEP = 8 };

struct tiles_call {
    few_call few;
    plan p;
};

/* ---- instructions ---- */

__device__ uint32_t shared_address(const void *p)
{
    return (uint32_t)__cvta_generic_to_shared(p);
}

/* 16 bytes to shared memory; zeros where `inside` is false, and then nothing is read. */
__device__ void copy_16(uint32_t to, const void *from, bool inside)
{
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(inside ? 16 : 0) : "memory");
#endif
}

__device__ void close_group()
{
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

template <int PENDING>
__device__ void wait_for_groups()
{
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
#endif
}

/* All but the youngest depth - 1. */
__device__ void wait_for_older(int depth)
{
    if (depth == SHALLOW) wait_for_groups<SHALLOW - 1>();
    else wait_for_groups<DEEP - 1>();
}

/* Four 8x8 matrices, whose rows lanes 0-7, 8-15 and so on point at. */
__device__ void load_matrices(uint32_t (&r)[4], uint32_t row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(row)
                 : "memory");
}

template <tfi_dtype T>
__device__ void multiply(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1)
{
#if __CUDA_ARCH__ >= 800
    if constexpr (T == TFI_BF16) {
        asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
            "{%0, %1, %2, %3};"
            : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
    } else {
        asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
            "{%0, %1, %2, %3};"
            : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
    }
#endif
}

__device__ void keep_sums(uint32_t to, const float (&v)[4])
{
    asm volatile("st.shared.v4.f32 [%0], {%1, %2, %3, %4};" ::"r"(to), "f"(v[0]), "f"(v[1]), "f"(v[2]), "f"(v[3]) : "memory");
}

__device__ void prepare_to_receive(uint32_t barrier, int bytes)
{
#if __CUDA_ARCH__ >= 900
    if ((threadIdx.x | threadIdx.y | threadIdx.z) == 0) {
        asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(barrier) : "memory");
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
        asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
    }
    asm volatile("barrier.cluster.arrive.relaxed.aligned;" ::: "memory");
    asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
#endif
}

/* ---- weights and x ---- */

/* What a warp reads of w, turn after turn, into a ring that is its own. Its 32 rows are those of four 8x8 matrices. A row has 4
 * columns of 16 bytes, exchanged among each other so that 8 rows of a column lie in 8 banks. */
struct weight_stream {
    const plan &p;
    const char *source;
    uint32_t ring, to;
    int k, limit, valid; /* valid: bit i for the i-th of a lane's 4 rows */

    __device__ weight_stream(const tiles_call &c, uint32_t rings, int sixteen, int begin, int end)
        : p(c.p), ring(rings + (threadIdx.x / 4) * 64 + (threadIdx.x % 4 ^ threadIdx.x / 8) * 16), to(ring),
          k(begin + (int)threadIdx.x % 4 * 8), limit(end), valid(0)
    {
        const tfi_few_args &a = c.few.a;
        const int n = sixteen * p.sixteen + (int)threadIdx.x / 4 * p.step, columns = (int)few_columns(a);

        source = (const char *)a.w + (n * a.K + k) * 2;
        const int gap = a.gated ? 0 : p.gap;
        if (n < columns) valid |= 1;
        if (n + gap < columns) valid |= 2;
        if (n + p.sixteen < columns) valid |= 4;
        if (n + p.sixteen + gap < columns) valid |= 8;
    }

    __device__ void load()
    {
        const int inside = k < limit ? valid : 0;
        copy_16(to, source, inside & 1);
        copy_16(to + 512, source + p.hop, inside & 2);
        copy_16(to + 1024, source + p.leap, inside & 4);
        copy_16(to + 1536, source + p.leap + p.hop, inside & 8);
        k += p.deep * STEP;
        source += p.deep * STEP * 2;
        to += STAGE_BYTES;
        if (to >= ring + p.depth * STAGE_BYTES) to = ring;
    }
};

/* The block's K of the live rows of x, zeros behind its end. Places are found before the results are there. */
struct token_copy {
    const char *source;
    int row, column;
    uint32_t to;

    __device__ token_copy(const tiles_call &c, uint32_t base, int begin, int thread)
    {
        const tfi_few_args &a = c.few.a;

        row = thread >> c.p.team_shift;
        column = thread & ((1 << c.p.team_shift) - 1);
        source = (const char *)a.x + ((a.from ? 0 : row * a.K) + begin + column * 8) * 2;
        to = base + row * c.p.stride + column * 16;
        asm volatile("" : "+l"(source), "+r"(to));
    }

    __device__ void start(const tiles_call &c, int inside, int live) const
    {
        const tfi_few_args &a = c.few.a;
        const plan &p = c.p;
        const int columns = p.columns, team = 1 << p.team_shift;

        if (a.from) {
            for (int i = column; i < columns; i += team)
                for (int r = row; r < live; r += p.rows)
                    copy_16(to + (r - row) * p.stride + (i - column) * 16, source + a.from[r] * a.K * 2 + (i - column) * 16,
                            i < inside);
            return;
        }
        for (int i = column; i < columns; i += team) {
            const char *from = source + (i - column) * 16;
            uint32_t at = to + (i - column) * 16;
#pragma unroll 4
            for (int r = row; r < live; r += p.rows) {
                copy_16(at, from, i < inside);
                at += p.rows_place;
                from += p.rows_bytes;
            }
        }
    }
};

/* ---- the end ---- */

/* Reads of what has yet to be waited for: no branches, so that all are under way before the first is there. */
__device__ uint32_t read_4(const void *p, bool wanted)
{
    uint32_t v = 0;
    asm volatile("{\n\t.reg .pred p;\n\tsetp.ne.u32 p, %2, 0;\n\t@p ld.global.b32 %0, [%1];\n\t}"
                 : "+r"(v)
                 : "l"(p), "r"((uint32_t)wanted)
                 : "memory");
    return v;
}

/* One copy of the code, most of which is not run: a kernel of some microseconds also waits for its instructions. */
__device__ __noinline__ float activate_called(tfi_activation activation, float v)
{
    return activate(activation, v);
}

__device__ void store_one(const tfi_few_args &a, int64_t at, float v)
{
    const float y[1] = {v + (a.residual ? load_one(a.residual, a.out, at) : 0)};
    store(a.y, a.out, at, y);
}

/* A lane's elements of a slot: two tokens by two columns of y, gated: by one of them; and what joins its sums. */
struct slot_end {
    int n, m;
    float bias[2];
    uint32_t residual[4]; /* in y's type, where neighbours are read together */

    template <int TOKENS>
    __device__ void begin(const tiles_call &c, int slot)
    {
        const tfi_few_args &a = c.few.a;
        const int lane = (int)threadIdx.x;

        n = ((int)blockIdx.y * c.p.wide * 2 + slot / TOKENS) * c.p.sixteen + lane / 4 * c.p.step;
        m = slot % TOKENS * 8 + lane % 4 * 2;
        bias[0] = __uint_as_float(read_4(a.bias + n, a.bias && n < a.N));
        bias[1] = __uint_as_float(read_4(a.bias + n + c.p.gap, a.bias && n + c.p.gap < a.N));
    }

    __device__ void join(const tiles_call &c, int live)
    {
        const tfi_few_args &a = c.few.a;
        const bool wanted = a.residual && c.p.paired && n < a.N;
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const char *at = element_at(a.residual, a.out, (m + i) * a.N + n);
            residual[2 * i] = read_4(at, wanted && m + i < live);
            residual[2 * i + 1] = read_4(at + 4, wanted && m + i < live && a.out == TFI_F32);
        }
    }

    __device__ void store(const tiles_call &c, const float (&sums)[4], int live) const
    {
        const tfi_few_args &a = c.few.a;
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const int64_t at = (m + i) * few_columns(a) + n;
            float first = sums[i] + bias[0], second = sums[i + 2] + bias[1];

            if (m + i >= live || n >= few_columns(a)) continue;
            if (a.activation != TFI_ACT_NONE) {
                first = activate_called(a.activation, first);
                if (!a.gated) second = activate_called(a.activation, second);
            }
            if (c.p.paired && a.out == TFI_F32) {
                *(float2 *)((float *)a.y + at) =
                    make_float2(first + __uint_as_float(residual[2 * i]), second + __uint_as_float(residual[2 * i + 1]));
            } else if (c.p.paired) {
                first += half_to_float(residual[2 * i] & 0xffff, a.out);
                second += half_to_float(residual[2 * i] >> 16, a.out);
                *(uint32_t *)((uint16_t *)a.y + at) = float_to_half(first, a.out) | float_to_half(second, a.out) << 16;
            } else {
                store_one(a, at, a.gated ? first * second : first);
                if (!a.gated && n + c.p.gap < a.N) store_one(a, at + c.p.gap, second);
            }
        }
    }
};

/* ---- the kernel ---- */

/* A warp's turns; ring: its weights, x: its first columns of x. */
template <tfi_dtype TYPE, int TOKENS>
__device__ void multiply_turns(const plan &p, weight_stream &weights, uint32_t ring, uint32_t x, int live,
                               float (&sums)[2][TOKENS][4])
{
    const int lane = (int)threadIdx.x;
    const uint32_t matrix = ring + (lane / 8 % 2 * 8 + lane % 8) * 64 + (lane / 16 ^ lane % 8 / 2) * 16;
    int stage = 0;

    x += lane % 8 * p.stride + lane / 8 * 16;
    for (int turn = 0; turn < p.turns; turn++) {
        uint32_t a[2][2][4];
        const uint32_t at = matrix + stage * STAGE_BYTES;
        if (turn >= p.depth) {
            wait_for_older(p.depth);
            __syncwarp();
        }
#pragma unroll
        for (int i = 0; i < 2; i++) {
            load_matrices(a[i][0], at + i * 1024);
            load_matrices(a[i][1], (at ^ 32) + i * 1024);
        }
        stage = stage + 1 == p.depth ? 0 : stage + 1;
        if (p.turns > p.depth) {
            __syncwarp(); /* all lanes have read what this overwrites */
            if (turn + p.depth < p.turns) weights.load();
            close_group();
        }
#pragma unroll
        for (int j = 0; j < TOKENS; j++) {
            if (j == TOKENS - 1 && 8 * j >= live) break; /* rows are rounded up more often than not */
            uint32_t b[4];
            load_matrices(b, x + j * 8 * p.stride);
#pragma unroll
            for (int i = 0; i < 2; i++) {
                multiply<TYPE>(sums[i][j], a[i][0], b[0], b[1]);
                multiply<TYPE>(sums[i][j], a[i][1], b[2], b[3]);
            }
        }
        x += p.deep * STEP * 2;
    }
}

/* The block's sums, its warps' added up, to the blocks of the cluster that finish them. kept: of every warp, all slots. */
__device__ void exchange(const plan &p, uint32_t kept, uint32_t received, uint32_t barrier, int warp, int slots)
{
    for (int slot = warp; slot < slots; slot += p.wide * p.deep) {
        const int at = slot * p.inverse >> 16;
        float total[4] = {0, 0, 0, 0};
        for (int i = 0; i < p.deep; i++) few_add(total, kept + (i * slots + slot) * SLOT_BYTES);
        few_send(received + ((int)blockIdx.x * p.owned + at) * SLOT_BYTES, barrier, slot - at * p.split, total);
    }
    few_wait_to_receive(barrier);
}

template <tfi_dtype TYPE, int TOKENS>
__global__ void __launch_bounds__(WARPS_MOST *WARP, 1) few_tiles(const tiles_call c)
{
    extern __shared__ __align__(128) char shared[];
    const plan &p = c.p;
    const int lane = (int)threadIdx.x, wide = (int)threadIdx.y, deep = (int)threadIdx.z, rank = (int)blockIdx.x;
    const int warp = deep * p.wide + wide, warps = p.wide * p.deep, slots = p.wide * 2 * TOKENS;
    const int begin = (rank * p.each + min(rank, p.more)) * STEP;
    const int end = min(begin + (p.each + (rank < p.more)) * STEP, (int)c.few.a.K);
    const uint32_t base = shared_address(shared), barrier = base + p.barrier_at;
    const uint32_t ring = base + p.ring_at + warp * min(p.depth, p.turns) * STAGE_BYTES;

    follow();
    weight_stream weights(c, ring, ((int)blockIdx.y * p.wide + wide) * 2, begin + deep * STEP, end);
    for (int i = 0; i < min(p.depth, p.turns); i++) weights.load();
    close_group();
    const int live = few_live(c.few);
    const token_copy tokens(c, base, begin, warp * WARP + lane);
    slot_end next;
    next.begin<TOKENS>(c, warp * p.split + rank);
    if (p.split > 1) prepare_to_receive(barrier, ((slots - rank + p.split - 1) * p.inverse >> 16) * p.split * SLOT_BYTES);
    wait_for_results();

    tokens.start(c, (end - begin) / 8, live);
    close_group();
    next.join(c, live);
    float sums[2][TOKENS][4] = {};
    wait_for_groups<0>();
    __syncthreads();
    multiply_turns<TYPE, TOKENS>(p, weights, ring, base + deep * (STEP * 2), live, sums);

    /* What blocks exchange is added up before, where x and the rings were: the way between them is narrow. */
    const uint32_t kept = base + lane * 16, received = base + p.sums_at + lane * 16;
    __syncthreads();
#pragma unroll
    for (int i = 0; i < 2 * TOKENS; i++) keep_sums(kept + (warp * 2 * TOKENS + i) * SLOT_BYTES, sums[i / TOKENS][i % TOKENS]);
    __syncthreads();
    if (p.split > 1) exchange(p, kept, received, barrier, warp, slots);
    const uint32_t from = p.split > 1 ? received : kept;
    const int sources = p.split > 1 ? p.split : p.deep;
    for (int i = warp; i * p.split + rank < slots; i += warps) {
        const slot_end now = next;
        const int following = (i + warps) * p.split + rank;
        float total[4] = {0, 0, 0, 0};
        if (following < slots) {
            next.begin<TOKENS>(c, following);
            next.join(c, live);
        }
#pragma unroll 4
        for (int k = 0; k < sources; k++) few_add(total, from + (k * p.owned + i) * SLOT_BYTES);
        now.store(c, total, live);
    }
}

/* ---- host ---- */

int eights_of(int64_t M)
{
    return M <= 16 ? 2 : M <= 32 ? 4 : M <= 48 ? 6 : 8;
}

/* What follows from the numbers of warps and blocks. */
void complete(const tfi_few_args *a, plan *p)
{
    const int eights = eights_of(a->M), steps = (int)blocks_of(a->K, STEP), warps = p->wide * p->deep;
    const int64_t pair = a->out == TFI_F32 ? 8 : 4;

    p->tiles = (int)blocks_of(a->N, p->wide * WARP_ROWS);
    p->each = steps / p->split;
    p->more = steps % p->split;
    p->turns = (int)blocks_of(p->each + (p->more > 0), p->deep);
    if (p->depth == 0) p->depth = p->turns > SHALLOW ? DEEP : SHALLOW;
    p->columns = p->turns * p->deep * (STEP / 8);
    p->stride = p->columns * 16 + 16;
    p->team_shift = p->columns <= 8 ? 3 : p->columns <= 16 ? 4 : 5;
    p->rows = warps * WARP >> p->team_shift;
    p->rows_bytes = p->rows * (int)a->K * 2;
    p->rows_place = p->rows * p->stride;
    p->inverse = (65536 + p->split - 1) / p->split;
    p->owned = (int)blocks_of(p->wide * 2 * eights, p->split);
    p->paired = !a->gated && a->N % 2 == 0 && ((uintptr_t)a->y | (uintptr_t)a->residual) % pair == 0;
    p->step = p->paired ? 2 : 1;
    p->gap = a->gated ? (int)a->N / 2 : p->paired ? 1 : 8;
    p->sixteen = a->gated ? 8 : 16;
    p->hop = p->gap * a->K * 2;
    p->leap = p->sixteen * a->K * 2;
    p->ring_at = (8 * eights * p->stride + 127) / 128 * 128;
    const int rings = p->ring_at + warps * (p->depth < p->turns ? p->depth : p->turns) * STAGE_BYTES;
    const int kept = warps * 2 * eights * SLOT_BYTES;
    p->sums_at = rings > kept ? rings : kept;
    p->barrier_at = p->sums_at + (p->split > 1 ? p->owned * p->split * SLOT_BYTES : 0);
    p->shared = p->barrier_at + 8;
}

template <tfi_dtype TYPE>
tf_status launch_tiles(const tfi_cuda_launch *l, const tfi_few_args *a, const tiles_call &c)
{
    const int eights = eights_of(a->M);
    void (*kernel)(const tiles_call) = eights == 2   ? few_tiles<TYPE, 2>
                                       : eights == 4 ? few_tiles<TYPE, 4>
                                       : eights == 6 ? few_tiles<TYPE, 6>
                                                     : few_tiles<TYPE, 8>;
    const tf_status st =
        started("few tiles", cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, c.p.shared));
    if (st < 0) return st;
    return start_clusters(l, "few tiles", (unsigned)c.p.split, kernel, dim3((unsigned)c.p.split, (unsigned)c.p.tiles),
                          dim3(WARP, (unsigned)c.p.wide, (unsigned)c.p.deep), (size_t)c.p.shared, c);
}

tf_status run_plan(const tfi_cuda_launch *l, const tfi_few_args *a, tfi_rows rows, const plan &p)
{
    const tiles_call c = {{*a, l->live, rows}, p};
    return a->type == TFI_BF16 ? launch_tiles<TFI_BF16>(l, a, c) : launch_tiles<TFI_F16>(l, a, c);
}

/* Shared memory a block can have. */
int room(int capability)
{
    return (capability == 80 || capability == 87                         ? 163
            : capability == 90 || capability == 100 || capability == 103 ? 227
                                                                         : 99) *
           1024;
}

/* Few rows of w are shared out along K among blocks that exchange their sums; many are not. The numbers were measured. What has
 * no room is made smaller. */
bool choose(const tfi_few_args *a, int capability, plan *p)
{
    *p = {};
    if (capability < 90) *p = {.wide = 2, .deep = 4, .split = 1};
    else if (a->N <= 2048) *p = {.wide = a->K > 8192 ? 3 : 2, .deep = a->K > 1024 ? 4 : 3, .split = SPLIT_MOST};
    else if (a->N <= 4096 && !a->gated) *p = {.wide = 4, .deep = 3, .split = 4};
    else if (a->N <= 8192) *p = {.wide = 6, .deep = 2, .split = 4};
    else if (a->N <= 32768) *p = {.wide = 4, .deep = 4, .split = 1};
    else *p = {.wide = 6, .deep = 2, .split = 1};
    for (complete(a, p); p->shared > room(capability); complete(a, p)) {
        if (p->depth > SHALLOW) p->depth = SHALLOW;
        else if (p->deep > 1) p->deep--;
        else if (p->wide > 1) p->wide--;
        else return false;
    }
    return true;
}

/* Where the matrix library has the formula and is as fast. Its rows of y must be aligned for that. */
bool library_pays(const tfi_few_args *a)
{
    const bool known = a->activation == TFI_ACT_NONE || a->activation == TFI_ACT_RELU || a->activation == TFI_ACT_GELU_TANH;

    if (!known || a->gated || a->N % 8 != 0 || a->N <= 2048) return false;
    return a->M > (a->N <= 8192 ? 32 : 16) || a->N > 12288;
}

} // namespace

bool tfi_few_tiles_fits(const tfi_few_args *a, int capability)
{
    plan p;
    if (tfi_few_wgmma_fits(a, capability)) return true;
    if (capability < 80 || (a->type != TFI_BF16 && a->type != TFI_F16) || a->out > TFI_F16 || a->norm.gain ||
        a->M > TFI_FEW_ROWS || a->K % 8 != 0 || ((uintptr_t)a->x | (uintptr_t)a->w) % 16 != 0 || library_pays(a))
        return false;
    return (capability >= 90 || a->N >= 4096) && choose(a, capability, &p);
}

tf_status tfi_cuda_few_tiles(const tfi_cuda_launch *l, const tfi_few_args *a, tfi_rows rows)
{
    plan p;
    if (tfi_few_wgmma_fits(a, l->capability)) return tfi_cuda_few_wgmma(l, a, rows);
    if (!choose(a, l->capability, &p))
        return tfi_fail(TF_STATUS_UNSUPPORTED, "LINEAR of %lld rows: no room for %lld columns", (long long)a->M,
                        (long long)a->K);
    return run_plan(l, a, rows, p);
}
