/* EMBED, plain C: the sum of a word (or given) row, a position row and a type row. Word tables of layout 0. */
#include "backend/ref/ref.h"
#include "backend/rows.h"

TFI_INLINE void embed(const tfi_embed_args *a, const tfi_worker *w, tfi_op_types t)
{
    int64_t begin, end;

    tfi_share(w, a->R, &begin, &end);
    for (int64_t r = begin; r < end; r++) {
        const int64_t id = tfi_embed_id(a, r);
        for (int64_t i = 0; i < a->E; i++) {
            float sum = id < 0 ? a->embeddings[r * a->E + i] : tfi_get(a->word->data, t.x, id * a->E + i);
            if (a->positions) sum += tfi_get(a->positions, t.x, a->position_ids[r] * a->E + i);
            if (a->types) sum += tfi_get(a->types, t.x, a->type_ids[r] * a->E + i);
            tfi_put(a->y, t.y, r * a->E + i, sum);
        }
    }
}

TFI_TYPED(embed_f32_f32, embed, TFI_F32, TFI_F32, TFI_F32)
TFI_TYPED(embed_f32_bf16, embed, TFI_F32, TFI_F32, TFI_BF16)
TFI_TYPED(embed_bf16_f32, embed, TFI_BF16, TFI_F32, TFI_F32)
TFI_TYPED(embed_bf16_bf16, embed, TFI_BF16, TFI_F32, TFI_BF16)

tfi_host_fn tfi_ref_embed(tfi_op_types t)
{
    static const tfi_host_fn table[2][2] = {{embed_f32_f32, embed_f32_bf16}, {embed_bf16_f32, embed_bf16_bf16}};
    return table[t.x][t.y];
}
