/* What the kernels of ATTENTION on tensor cores share. A warp has 16 rows of queries; products leave a lane two numbers side by
 * side of row lane / 4 and two of the row 8 behind, 8 columns apart (the layout of mma.sync and of wgmma): [columns / 8][4]. */
#ifndef TFI_KERNELS_ATTENTION_TILE_CUH
#define TFI_KERNELS_ATTENTION_TILE_CUH

#include "attention.cuh"

__device__ inline uint32_t shared_address(const void *p)
{
    return (uint32_t)__cvta_generic_to_shared(p);
}

__device__ inline float power_of_2(float v)
{
    float r;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(v));
    return r;
}

template <tfi_dtype T>
__device__ uint32_t pack(float low, float high)
{
    if constexpr (T == TFI_BF16) {
        const __nv_bfloat162 v = __floats2bfloat162_rn(low, high);
        return *(const uint32_t *)&v;
    } else {
        const __half2 v = __floats2half2_rn(low, high);
        return *(const uint32_t *)&v;
    }
}

/* ---- scores ---- */

/* Scores are made ready in mark_scores() where there is a bias; else soften() scales them. (A scale below 0 would turn the
 * order of scores.) */
__device__ inline bool scales_first(const attention_call &c)
{
    return c.a.bias || c.a.scale <= 0;
}

/* The head's biases by distance times log2(e), the outermost of them repeated so far that the 16 rows and KEYS keys of a warp
 * are read without a look at each distance. */
template <int KEYS>
struct bias_table {
    static constexpr int margin = KEYS + 14; /* of distance 0 of the first row, to where the last key of the last row is */

    __host__ __device__ static int width(int max_distance)
    {
        return 2 * (max_distance + margin) + 1;
    }

    /* Visible to the block after its next barrier. */
    __device__ static void stage(const attention_call &c, int head, float *to)
    {
        const float *bias = c.a.bias + (int64_t)head * (2 * c.a.max_distance + 1);
        for (int i = threadIdx.x; i < width(c.a.max_distance); i += blockDim.x)
            to[i] = LOG2E * bias_at(bias, c.a.max_distance, i - c.a.max_distance - margin);
    }

    /* Where the first key of the warp's first row is. */
    __device__ static const float *at(const attention_call &c, const float *staged, int distance)
    {
        const int far = c.a.max_distance;
        return staged + far + margin + max(-far - KEYS + 1, min(far + 15, distance));
    }
};

/* Scale and bias, and -infinity where a row does not see a key. `number` is that of the first of the warp's queries; bias: a
 * table, or NULL. */
template <int KEYS>
__device__ void mark_scores(const attention_call &c, const float *bias, int first_key, int number, int keys, float (*scores)[4])
{
    const int column = threadIdx.x % 4 * 2, row = threadIdx.x % WARP / 4;
    const int ahead = first_key - number; /* of the first key to the first query */

    if (bias) {
        const float scale = c.a.scale * LOG2E, *at = bias_table<KEYS>::at(c, bias, ahead) + column - row;
        float2 behind = make_float2(at[-8], at[-7]); /* of the row 8 behind, which is 8 keys further from all */
#pragma unroll
        for (int j = 0; j < KEYS / 8; j++) {
            const float2 here = make_float2(at[j * 8], at[j * 8 + 1]);
            scores[j][0] = scores[j][0] * scale + here.x;
            scores[j][1] = scores[j][1] * scale + here.y;
            scores[j][2] = scores[j][2] * scale + behind.x;
            scores[j][3] = scores[j][3] * scale + behind.y;
            behind = here;
        }
    } else if (scales_first(c)) {
#pragma unroll
        for (int i = 0; i < KEYS / 2; i++) scores[i / 4][i % 4] *= c.a.scale * LOG2E;
    }
    if (first_key + KEYS <= keys && (!c.causal || ahead + KEYS <= 1)) return; /* all rows see all keys */
    int seen[2]; /* keys that a lane's rows see, from its first column on */
#pragma unroll
    for (int half = 0; half < 2; half++)
        seen[half] = min(keys - first_key, c.causal ? row + half * 8 - ahead + 1 : KEYS) - column;
#pragma unroll
    for (int i = 0; i < KEYS / 2; i++)
        if (i / 4 * 8 + i % 2 >= seen[i % 4 / 2]) scores[i / 4][i % 4] = -INFINITY;
}

/* Softmax of a lane's two rows so far: weights are 2 to the power of score - base. The base follows the highest score, but not
 * while it is less than 8 away: sums are rarely brought to a new one, and weights stay below 2^8. */
struct row_state {
    float base[2] = {-INFINITY, -INFINITY}, total[2] = {0, 0};
};

enum { BASE_LAG = 8 };

/* Scores times `scale` become weights; earlier sums are brought to the new base. */
template <int KEYS, int SIZE>
__device__ void soften(row_state *state, float scale, float (*scores)[4], float (*sums)[4])
{
    float factors[2];

#pragma unroll
    for (int half = 0; half < 2; half++) {
        float highest = -INFINITY, total = 0;
#pragma unroll
        for (int j = 0; j < KEYS / 8; j++) highest = fmaxf(highest, fmaxf(scores[j][2 * half], scores[j][2 * half + 1]));
        highest = fmaxf(highest, __shfl_xor_sync(0xffffffffu, highest, 1));
        highest = fmaxf(highest, __shfl_xor_sync(0xffffffffu, highest, 2));
        highest *= scale;
        factors[half] = 1;
        if (highest > state->base[half] + BASE_LAG) {
            factors[half] = power_of_2(state->base[half] - highest);
            state->base[half] = highest;
        }
        const float base = state->base[half] == -INFINITY ? 0 : state->base[half]; /* a row that has seen no key */
#pragma unroll
        for (int j = 0; j < KEYS / 8; j++) {
            scores[j][2 * half] = power_of_2(scores[j][2 * half] * scale - base);
            scores[j][2 * half + 1] = power_of_2(scores[j][2 * half + 1] * scale - base);
            total += scores[j][2 * half] + scores[j][2 * half + 1];
        }
        state->total[half] = state->total[half] * factors[half] + total;
    }
    if (!__any_sync(0xffffffffu, factors[0] != 1 || factors[1] != 1)) return;
#pragma unroll
    for (int i = 0; i < SIZE / 2; i++) sums[i / 4][i % 4] *= factors[i % 4 / 2];
}

/* ---- results ---- */

/* In one store where it is aligned: y may begin at any element, and rows of odd width at odd ones. */
__device__ inline void store_pair(void *y, tfi_dtype t, int64_t at, float a, float b, bool both)
{
    const float first[1] = {a}, second[1] = {b};
    char *to = element_at(y, t, at);
    if (both && (uintptr_t)to % (2 * element_size(t)) == 0) {
        if (t == TFI_F32) *(float2 *)to = make_float2(a, b);
        else *(uint32_t *)to = float_to_half(a, t) | float_to_half(b, t) << 16;
        return;
    }
    store(y, t, at, first);
    if (both) store(y, t, at + 1, second);
}

/* Of a lane's two rows, summed over the four lanes that have a part of them. */
__device__ inline void meet_lanes(row_state *state)
{
#pragma unroll
    for (int half = 0; half < 2; half++) {
        state->total[half] += __shfl_xor_sync(0xffffffffu, state->total[half], 1);
        state->total[half] += __shfl_xor_sync(0xffffffffu, state->total[half], 2);
    }
}

/* COLUMNS columns from `column` on of the warp's 16 rows, the first of which is `row` of the tile, divided by `total`. */
template <int COLUMNS>
__device__ void write_rows(const attention_call &c, const attention_item &item, int head, int row, int column,
                           const float (&total)[2], const float (*sums)[4])
{
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const float factor = total[half] == 0 ? 0 : 1 / total[half]; /* no keys: zeros */
        const int r = row + threadIdx.x % WARP / 4 + half * 8;
        if (r >= item.rows) continue;
        const int64_t at = output_element(c, item, r, head);
#pragma unroll
        for (int n = 0; n < COLUMNS / 8; n++) {
            const int d = column + n * 8 + threadIdx.x % 4 * 2;
            if (d < c.a.D)
                store_pair(c.a.y, c.t.y, at + d, sums[n][2 * half] * factor, sums[n][2 * half + 1] * factor, d + 1 < c.a.D);
        }
    }
}

#endif
