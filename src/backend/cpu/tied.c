/* EMBED from the packed form that a tied table has because a LINEAR reads it too: a row's elements lie a block apart. Slower a
 * row than a plain table, and nothing beside the products of the same model. */
#include "backend/cpu/cpu.h"
#include "backend/rows.h"

TFI_INLINE float packed_element(tfi_dtype t, const char *row, int64_t i)
{
    if (t == TFI_F32) return ((const float *)(const void *)row)[i * TFI_BLOCK];
    return tfi_bf16_to_f32(((const uint16_t *)(const void *)row)[i / 2 * 2 * TFI_BLOCK + i % 2]);
}

TFI_INLINE const char *packed_row(const tfi_embed_args *a, int64_t row)
{
    const int64_t units = tfi_packed_units(a->word->layout, a->E);
    return (const char *)a->word->data + (row / TFI_BLOCK * units * TFI_BLOCK + row % TFI_BLOCK) * 4;
}

TFI_INLINE void embed(const tfi_embed_args *a, const tfi_worker *w, tfi_op_types t)
{
    int64_t begin, end;

    tfi_share(w, a->R, &begin, &end);
    for (int64_t r = begin; r < end; r++) {
        const int64_t id = tfi_embed_id(a, r);
        const char *row = id < 0 ? NULL : packed_row(a, id);
        for (int64_t i = 0; i < a->E; i++) {
            float sum = row ? packed_element(t.x, row, i) : a->embeddings[r * a->E + i];
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

tfi_host_fn tfi_cpu_embed_packed(tfi_op_types t)
{
    static const tfi_host_fn table[2][2] = {{embed_f32_f32, embed_f32_bf16}, {embed_bf16_f32, embed_bf16_bf16}};
    return t.x <= TFI_BF16 && t.y <= TFI_BF16 ? table[t.x][t.y] : NULL;
}
