/* GATHER_ROWS: copies whole rows; what it computes: src/backend/ref/gather.c
 *
 * Shapes    x [R, E], y [S, E] in one type; rows [S]
 * Parallel  grid [S, E / elements of a block], 8 elements a thread
 * Needs     E % 8 == 0 and 16-byte aligned buffers, otherwise one element a thread
 * Floor     bytes of y twice; launch bound */
#include "types.cuh"

namespace
{

enum { THREADS = 128 };

struct gather_call {
    tfi_gather_args a;
    tfi_dtype type;
    const tfi_cuda_live *live;
    tfi_rows rows;
};

template <int V>
__global__ void gather(gather_call c)
{
    follow();
    const int64_t s = blockIdx.x, i = ((int64_t)blockIdx.y * THREADS + threadIdx.x) * V;
    const bool is_live = s < c.live->rows[c.rows] && i < c.a.E;
    const char *from = element_at(c.a.x, c.type, (is_live ? c.a.rows[s] : 0) * c.a.E + i);

    wait_for_results();
    if (!is_live) return;
    char *to = element_at(c.a.y, c.type, s * c.a.E + i);
    if (V == 8) {
        ((uint4 *)to)[0] = ((const uint4 *)from)[0];
        if (c.type == TFI_F32) ((uint4 *)to)[1] = ((const uint4 *)from)[1];
    } else if (c.type == TFI_F32) {
        *(uint32_t *)to = *(const uint32_t *)from;
    } else {
        *(uint16_t *)to = *(const uint16_t *)from;
    }
}

} // namespace

extern "C" tf_status tfi_cuda_gather(const tfi_cuda_launch *l, const tfi_gather_args *a, tfi_op_types t, tfi_rows rows)
{
    const gather_call c = {*a, t.x, l->live, rows};

    if (a->S == 0) return TF_STATUS_OK;
    if (in_vectors(a->E, a->x, a->y))
        return start(l, "GATHER_ROWS", gather<8>, dim3((unsigned)a->S, blocks_of(a->E, 8 * THREADS)), THREADS, 0, c);
    return start(l, "GATHER_ROWS", gather<1>, dim3((unsigned)a->S, blocks_of(a->E, THREADS)), THREADS, 0, c);
}
