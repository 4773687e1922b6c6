/* KV_APPEND, vectorised; meaning: backend/ref/kv_append.c.
 *
 * Shapes    as the reference: x F32 or BF16, the store either.
 * Work      a piece is the tokens that go to one head of one block. Keys of VEC whole tokens are transposed in registers, those
 * of the others, and of a step of generation, go one by one to the D places where their vectors lie; values are rows there.
 * Workers   pieces in order, in equal numbers; no two touch the same memory.
 * Floor     a token's keys touch D cache lines a head: attention reads the same lines right afterwards.
 */

typedef struct append_piece {
    const tfi_kv_append_args *args;
    int64_t sequence, row, token, n; /* rows of x from `row` on become tokens from `token` on */
} append_piece;

TFI_INLINE void append_keys(const append_piece *p, tfi_op_types t, tfi_dtype stored, char *keys, int64_t from)
{
    const int64_t stride = p->args->x_stride, D = p->args->D, slot = p->token % TFI_KV_BLOCK;
    int64_t i = 0;

    while (i < p->n) {
        if ((slot + i) % VEC || i + VEC > p->n) {
            for (int64_t d = 0; d < D; d++)
                tfi_put(keys, stored, d * TFI_KV_BLOCK + slot + i, tfi_get(p->args->x, t.x, from + i * stride + d));
            i++;
            continue;
        }
        for (int64_t d = 0; d < D; d += VEC) {
            const int64_t columns = D - d < VEC ? D - d : VEC;
            vec block[VEC];
            TFI_UNROLL
            for (int k = 0; k < VEC; k++) block[k] = load_n(p->args->x, t.x, from + (i + k) * stride + d, columns);
            vec_transpose(block);
            for (int64_t k = 0; k < columns; k++) store_n(keys, stored, (d + k) * TFI_KV_BLOCK + slot + i, block[k], VEC);
        }
        i += VEC;
    }
}

TFI_INLINE void append_values(const append_piece *p, tfi_op_types t, tfi_dtype stored, char *values, int64_t from)
{
    const int64_t D = p->args->D;

    for (int64_t i = 0; i < p->n; i++) {
        const int64_t row = from + i * p->args->x_stride, to = (p->token % TFI_KV_BLOCK + i) * D;
        for (int64_t d = 0; d < D; d += VEC) {
            const int64_t columns = D - d < VEC ? D - d : VEC;
            store_n(values, stored, to + d, load_n(p->args->x, t.x, row + d, columns), columns);
        }
    }
}

TFI_INLINE void append_piece_to(const append_piece *p, tfi_op_types t, int32_t head)
{
    const tfi_kv_append_args *a = p->args;
    const int32_t block = a->kv.tables[p->sequence * a->kv.stride + p->token / TFI_KV_BLOCK];
    const int64_t from = p->row * a->x_stride + a->column + (int64_t)head * a->D, width = (int64_t)a->H * a->D;
    char *keys = tfi_kv_keys(a->kv.store, block, a->kv.layer, head),
         *values = tfi_kv_values(a->kv.store, block, a->kv.layer, head);

    if (a->kv.store->shape.dtype == TFI_BF16) {
        append_keys(p, t, TFI_BF16, keys, from);
        append_values(p, t, TFI_BF16, values, from + width);
    } else {
        append_keys(p, t, TFI_F32, keys, from);
        append_values(p, t, TFI_F32, values, from + width);
    }
}

/* Blocks that a sequence's new tokens go to. */
TFI_INLINE int64_t append_blocks(const tfi_kv_append_args *a, int64_t b)
{
    const int64_t len = a->kv.lens[b], rows = a->offsets[b + 1] - a->offsets[b];
    if (len == 0 || rows == 0) return 0;
    return (len - 1) / TFI_KV_BLOCK - (len - rows) / TFI_KV_BLOCK + 1;
}

TFI_INLINE void kv_append(const tfi_kv_append_args *args, const tfi_worker *w, tfi_op_types t)
{
    const tfi_kv_append_args copy = *args, *a = &copy; /* vector stores may alias args, but not this */
    int64_t total = 0, index = 0, begin, end;

    for (int64_t b = 0; b < a->B; b++) total += append_blocks(a, b) * a->H;
    tfi_share(w, total, &begin, &end);
    for (int64_t b = 0; b < a->B; b++) {
        const int64_t len = a->kv.lens[b], blocks = append_blocks(a, b), new_rows = a->offsets[b + 1] - a->offsets[b];
        append_piece p = {.args = a, .sequence = b, .row = a->offsets[b], .token = len - new_rows};
        for (int64_t i = 0; i < blocks; i++, p.token += p.n, p.row += p.n) {
            const int64_t room = TFI_KV_BLOCK - p.token % TFI_KV_BLOCK, left = len - p.token;
            p.n = room < left ? room : left;
            for (int32_t head = 0; head < a->H; head++, index++) {
                if (index >= begin && index < end) append_piece_to(&p, t, head);
            }
        }
    }
}

TFI_TYPED(kv_append_f32, kv_append, TFI_F32, TFI_F32, TFI_F32)
TFI_TYPED(kv_append_bf16, kv_append, TFI_BF16, TFI_F32, TFI_F32)

static tfi_host_fn kv_append_fn(tfi_op_types t)
{
    return t.x == TFI_BF16 ? kv_append_bf16 : kv_append_f32;
}
