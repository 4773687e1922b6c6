/* KV_APPEND: keys and values of the run's rows into the store; what it computes: src/backend/ref/kv_append.c
 *
 * Shapes    x [R, x_stride] with H*D keys from `column` on and H*D values behind them; the store as kernels/kv.cuh says; any
 *           mix of types
 * Parallel  grid [R, 2*H*D / elements of a block]; each warp finds the row's sequence, before it waits for x; then 8 elements
 *           a thread. Where all sequences have one row attention_decode stores theirs on the way.
 * Needs     D, x_stride and column multiples of 8, 16-byte aligned buffers; otherwise one element a thread
 * Floor     bytes of keys and values twice; launch bound where R is small */
#include "kv.cuh"
#include "reduce.cuh"

namespace
{

enum { THREADS = 128 };

struct append_call {
    tfi_kv_append_args a;
    kv_call kv;
    tfi_dtype x;
    const tfi_cuda_live *live;
};

/* Element of the store for number i of the row's keys and values; -1: none. */
__device__ int64_t place_of(const append_call &c, int64_t row, int64_t i)
{
    const int64_t width = (int64_t)c.a.H * c.a.D, in_row = i < width ? i : i - width;
    const int32_t *offsets = c.a.offsets;

    if (row >= c.live->rows[TFI_ROWS_TOKENS]) return -1;
    const int b = find_last(c.live->rows[TFI_ROWS_SEQUENCES], row, [&](int k) { return offsets[k]; });
    const int64_t len = c.kv.lens[b], token = len - offsets[b + 1] + row;
    if (len <= 0 || i >= 2 * width) return -1; /* a source that is not kept has length 0 */
    return kv_key(c.kv, kv_table(c.kv, c.live, b), token, (int)(in_row / c.a.D), c.a.D) + in_row % c.a.D +
           (i < width ? 0 : c.kv.values_at);
}

template <int V>
__global__ void kv_append(append_call c)
{
    follow();
    const int64_t row = blockIdx.x, i = ((int64_t)blockIdx.y * THREADS + threadIdx.x) * V, to = place_of(c, row, i);
    float v[V];

    wait_for_results();
    if (to < 0) return;
    load<V>(c.a.x, c.x, row * c.a.x_stride + c.a.column + i, v);
    store(c.kv.blocks, c.kv.dtype, to, v);
}

} // namespace

extern "C" tf_status tfi_cuda_kv_append(const tfi_cuda_launch *l, const tfi_kv_append_args *a, tfi_op_types t,
                                        tfi_attend attend)
{
    const append_call c = {*a, kv_call_of(&a->kv, attend), t.x, l->live};
    const int64_t columns = 2 * (int64_t)a->H * a->D;

    if (a->R == 0 || a->B == 0) return TF_STATUS_OK;
    if (in_vectors(a->D, a->x, c.kv.blocks) && a->x_stride % 8 == 0 && a->column % 8 == 0)
        return start(l, "KV_APPEND", kv_append<8>, dim3((unsigned)a->R, blocks_of(columns, 8 * THREADS)), THREADS, 0, c);
    return start(l, "KV_APPEND", kv_append<1>, dim3((unsigned)a->R, blocks_of(columns, THREADS)), THREADS, 0, c);
}
