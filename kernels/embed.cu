/* EMBED: the sum of a word (or given) row, a position row and a type row; what it computes: src/backend/ref/embed.c
 *
 * Shapes    tables [*, E] row-major in one type; embeddings [R, E] fp32; y [R, E]; sums in fp32
 * Parallel  a block a row, 8 elements a thread; all rows of a thread's elements are loaded before the first is used
 * Needs     E % 8 == 0 and 16-byte aligned tables, otherwise one element a thread
 * Inputs    What the launch in front writes is waited for before anything is read, and before the next kernel may come
 * Floor     4 rows of bytes a row at most; a call of few rows is launch bound */
#include "types.cuh"

namespace
{

struct embed_call {
    const int32_t *ids, *position_ids, *type_ids;
    const float *embeddings;
    const tfi_slot *slots;
    const void *words, *positions, *types;
    void *y;
    int64_t E;
    tfi_op_types t;
    const tfi_cuda_live *live;
    bool waits; /* the launch in front writes inputs: who comes behind must not come before those are there */
};

/* The row of the word table, or TFI_ID_EMBEDDING. */
__device__ int64_t row_of_word(const embed_call &c, int32_t id)
{
    if (id >= TFI_ID_EMBEDDING) return id;
    const tfi_slot *slot = &c.slots[TFI_ID_DRAWN(id)]; /* its own inverse */
    return slot->tokens[slot->count - 1];
}

template <int V>
__device__ void add(float (&sum)[V], const raw_elements<V> &r, tfi_dtype t)
{
    float v[V];
    widen(r, t, v);
#pragma unroll
    for (int k = 0; k < V; k++) sum[k] += v[k];
}

template <int V>
__global__ void embed(embed_call c)
{
    if (c.waits) wait_for_results();
    follow();
    const int64_t r = blockIdx.x;
    const bool is_live = r < c.live->rows[TFI_ROWS_TOKENS];
    const int32_t id = is_live && c.ids ? c.ids[r] : TFI_ID_EMBEDDING;
    const int64_t position = is_live && c.positions ? c.position_ids[r] : 0, type = is_live && c.types ? c.type_ids[r] : 0;

    wait_for_results();
    if (!is_live) return;
    const int64_t word = row_of_word(c, id);
    const bool given = word < 0;
    const void *first = given ? (const void *)c.embeddings : c.words;
    const tfi_dtype first_type = given ? TFI_F32 : c.t.x;
    for (int64_t i = (int64_t)threadIdx.x * V; i < c.E; i += (int64_t)blockDim.x * V) {
        raw_elements<V> a = load_raw<V>(first, first_type, (given ? r : word) * c.E + i), b = {}, d = {};
        float sum[V];
        if (c.positions) b = load_raw<V>(c.positions, c.t.x, position * c.E + i);
        if (c.types) d = load_raw<V>(c.types, c.t.x, type * c.E + i);
        widen(a, first_type, sum);
        if (c.positions) add<V>(sum, b, c.t.x);
        if (c.types) add<V>(sum, d, c.t.x);
        store(c.y, c.t.y, r * c.E + i, sum);
    }
}

} // namespace

extern "C" tf_status tfi_cuda_embed(const tfi_cuda_launch *l, const tfi_embed_args *a, tfi_op_types t)
{
    const embed_call c = {a->ids,       a->position_ids, a->type_ids, a->embeddings, a->slots, a->word ? a->word->data : NULL,
                          a->positions, a->types,        a->y,        a->E,          t,        l->live,
                          l->waits != 0};
    tfi_cuda_launch early = *l;
    const unsigned threads = a->E > 512 ? 128 : 64;

    if (a->R == 0) return TF_STATUS_OK;
    early.waits = 0;
    if (in_vectors(a->E, a->embeddings, c.words, a->positions, a->types, a->y))
        return start(&early, "EMBED", embed<8>, (unsigned)a->R, threads, 0, c);
    return start(&early, "EMBED", embed<1>, (unsigned)a->R, 128, 0, c);
}
