/* KV_APPEND, plain C: element by element. */
#include "backend/ref/ref.h"
#include "backend/rows.h"

/* Row `row` of x becomes token `token` of sequence b. */
TFI_INLINE void append(const tfi_kv_append_args *a, tfi_dtype x, int64_t b, int64_t token, int64_t row)
{
    const tfi_store *store = a->kv.store;
    const int32_t block = a->kv.tables[b * a->kv.stride + token / TFI_KV_BLOCK];
    const int64_t slot = token % TFI_KV_BLOCK;

    for (int32_t h = 0; h < a->H; h++) {
        char *keys = tfi_kv_keys(store, block, a->kv.layer, h), *values = tfi_kv_values(store, block, a->kv.layer, h);
        const int64_t from = row * a->x_stride + a->column + (int64_t)h * a->D;
        for (int64_t d = 0; d < a->D; d++) {
            tfi_put(keys, store->shape.dtype, d * TFI_KV_BLOCK + slot, tfi_get(a->x, x, from + d));
            tfi_put(values, store->shape.dtype, slot * a->D + d, tfi_get(a->x, x, from + (int64_t)a->H * a->D + d));
        }
    }
}

TFI_INLINE void kv_append(const tfi_kv_append_args *a, const tfi_worker *w, tfi_op_types t)
{
    int64_t begin, end;

    tfi_share(w, a->R, &begin, &end);
    for (int64_t b = 0; b < a->B; b++) {
        const int64_t behind = a->offsets[b + 1], len = a->kv.lens[b];
        for (int64_t row = a->offsets[b]; row < behind && len > 0; row++) {
            if (row >= begin && row < end) append(a, t.x, b, len - behind + row, row);
        }
    }
}

TFI_TYPED(kv_append_f32, kv_append, TFI_F32, TFI_F32, TFI_F32)
TFI_TYPED(kv_append_bf16, kv_append, TFI_BF16, TFI_F32, TFI_F32)

tfi_host_fn tfi_ref_kv_append(tfi_op_types t)
{
    return t.x == TFI_BF16 ? kv_append_bf16 : kv_append_f32;
}
