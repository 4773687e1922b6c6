/* KV_COPY: whole blocks of the store, each worker a part of every block. Every tier uses it. */
#include "backend/ref/ref.h"
#include "backend/rows.h"

static void kv_copy(const void *args, const tfi_worker *w)
{
    const tfi_kv_copy_args *a = args;
    const int64_t bytes = tfi_kv_block_bytes(&a->store->shape);
    int64_t begin, end;

    tfi_share(w, bytes, &begin, &end);
    for (int64_t i = 0; i < a->count && begin < end; i++)
        memcpy(a->store->blocks + a->copies[2 * i + 1] * bytes + begin, a->store->blocks + a->copies[2 * i] * bytes + begin,
               (size_t)(end - begin));
}

tfi_host_fn tfi_ref_kv_copy(tfi_op_types t)
{
    return t.x == TFI_F32 && t.residual == TFI_F32 && t.y == TFI_F32 ? kv_copy : NULL;
}
