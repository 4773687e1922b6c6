/* What the kernels of ATTENTION share: the call, and which rows of which sequence a block has. Tiles of T rows are numbered so
 * that sequence b's begin at offsets[b] / T + b: there is room for all of them, whatever the lengths, so a grid of R / T + B
 * tiles serves any mix of up to R rows in up to B sequences, and a block finds its sequence by a search in the offsets. */
#ifndef TFI_KERNELS_ATTENTION_CUH
#define TFI_KERNELS_ATTENTION_CUH

#include "kv.cuh"
#include "reduce.cuh"

struct attention_call {
    tfi_attention_args a;
    tfi_op_types t;
    kv_call kv;
    const tfi_cuda_live *live;
    bool causal;
    bool vectors;     /* rows of a head begin at multiples of 16 bytes, in x and in the store */
    bool skip_single; /* sequences of one row are another kernel's */
};

struct attention_item {
    int first;            /* row of the sequence's first row */
    int row;              /* of the tile's first row in the sequence */
    int rows;             /* of the tile */
    int keys;             /* of the sequence */
    int number;           /* of the tile's first query, for causality and bias */
    const int32_t *table; /* NULL: keys and values are in x */
};

__device__ inline bool find_item(const attention_call &c, unsigned tile, int tile_rows, attention_item *item)
{
    const int32_t *offsets = c.a.offsets;
    const int B = c.live->rows[TFI_ROWS_SEQUENCES];

    if (B == 0) return false;
    const int b = find_last((int)c.a.B, tile, [&](int k) {
        const int from = offsets[k]; /* nonsense behind the live ones, but it need not wait for their count */
        return k < B ? from / tile_rows + k : INT32_MAX;
    });
    const int first = offsets[b], rows = offsets[b + 1] - first;
    const int64_t row = ((int64_t)tile - first / tile_rows - b) * tile_rows;
    if (row >= rows || (c.skip_single && rows == 1)) return false;
    item->first = first;
    item->row = (int)row;
    item->rows = min(tile_rows, rows - item->row);
    item->keys = c.kv.blocks ? c.kv.lens[b] : rows;
    item->number = item->row + (c.a.attend == TFI_ATTEND_CACHE ? item->keys - rows : 0);
    item->table = c.kv.blocks ? kv_table(c.kv, c.live, b) : NULL;
    return true;
}

/* Keys that any row of the tile sees. */
__device__ inline int visible_keys(const attention_call &c, const attention_item &item)
{
    return c.causal ? min(item.keys, item.number + item.rows) : item.keys;
}

/* Element of a row of x where a head's query begins (part 0), its key (1) or its value (2). */
__device__ inline int64_t x_element(const attention_call &c, int row, int part, int head)
{
    return (int64_t)row * (int)c.a.x_stride + (part * c.a.H + head) * c.a.D;
}

/* First element of key `key` of a head, or of its value; in the store or in x. */
__device__ inline int64_t key_element(const attention_call &c, const attention_item &item, int key, int head, bool value)
{
    if (item.table) return kv_key(c.kv, item.table, key, head, c.a.D) + (value ? c.kv.values_at : 0);
    return x_element(c, item.first + key, value ? 2 : 1, head);
}

__device__ inline int64_t query_element(const attention_call &c, const attention_item &item, int row, int head)
{
    return x_element(c, item.first + item.row + row, 0, head);
}

__device__ inline int64_t output_element(const attention_call &c, const attention_item &item, int row, int head)
{
    return ((int64_t)(item.first + item.row + row) * c.a.H + head) * c.a.D;
}

/* Bias of T5 by distance, from the head's row of the table. */
__device__ inline float bias_at(const float *table, int max_distance, int distance)
{
    return table[max_distance + max(-max_distance, min(max_distance, distance))];
}

#define LOG2E 1.4426950408889634f

/* Biases up to this distance fit beside the tiles of all kernels that keep them in shared memory. */
enum { BIAS_DISTANCE_MAX = 1200 };

/* ---- host ---- */

/* Sequences of one row, their keys split over blocks. `append` (or NULL) is done on the way; not every call can have it so. */
tf_status tfi_cuda_attention_decode(const tfi_cuda_launch *l, const attention_call *c, int64_t max_tokens,
                                    const tfi_kv_append_args *append);
bool tfi_cuda_decode_appends(const attention_call *c, const tfi_kv_append_args *append);
/* Tiles of rows, on tensor cores: x and the store in one type, BF16 (from 8.0 on) or F16. */
tf_status tfi_cuda_attention_mma(const tfi_cuda_launch *l, const attention_call *c, int64_t max_rows);
/* The same by warpgroups, where vectors can be had and D is at most 128. */
bool tfi_cuda_attention_wgmma_fits(const attention_call *c, int capability);
tf_status tfi_cuda_attention_wgmma(const tfi_cuda_launch *l, const attention_call *c, int64_t max_rows, int64_t max_keys);
/* Tiles of rows, in fp32, any mix of types. */
tf_status tfi_cuda_attention_fma(const tfi_cuda_launch *l, const attention_call *c);

#endif
