/* EMBED, vectorised; meaning: backend/ref/embed.c. Word tables of layout 0. Memory bound: three rows read, one written. */

TFI_INLINE void embed_step(const tfi_embed_args *a, tfi_op_types t, int64_t r, int64_t id, int64_t i, int64_t n)
{
    vec sum = id < 0 ? load_n(a->embeddings, TFI_F32, r * a->E + i, n) : load_n(a->word->data, t.x, id * a->E + i, n);
    if (a->positions) sum += load_n(a->positions, t.x, a->position_ids[r] * a->E + i, n);
    if (a->types) sum += load_n(a->types, t.x, a->type_ids[r] * a->E + i, n);
    store_n(a->y, t.y, r * a->E + i, sum, n);
}

TFI_INLINE void embed(const tfi_embed_args *args, const tfi_worker *w, tfi_op_types t)
{
    const tfi_embed_args copy = *args, *a = &copy; /* vector stores may alias args, but not this */
    const int64_t whole = a->E - a->E % VEC;
    int64_t begin, end;

    tfi_share(w, a->R, &begin, &end);
    for (int64_t r = begin; r < end; r++) {
        const int64_t id = tfi_embed_id(a, r);
        for (int64_t i = 0; i < whole; i += VEC) embed_step(a, t, r, id, i, VEC);
        if (whole < a->E) embed_step(a, t, r, id, whole, a->E - whole);
    }
}

TFI_TYPED(embed_f32_f32, embed, TFI_F32, TFI_F32, TFI_F32)
TFI_TYPED(embed_f32_bf16, embed, TFI_F32, TFI_F32, TFI_BF16)
TFI_TYPED(embed_bf16_f32, embed, TFI_BF16, TFI_F32, TFI_F32)
TFI_TYPED(embed_bf16_bf16, embed, TFI_BF16, TFI_F32, TFI_BF16)

static tfi_host_fn embed_fn(tfi_op_types t)
{
    static const tfi_host_fn table[2][2] = {{embed_f32_f32, embed_f32_bf16}, {embed_bf16_f32, embed_bf16_bf16}};
    return table[t.x][t.y];
}
