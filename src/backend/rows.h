/* What every op function on host memory is made of: a worker's share of the rows, elements of F32 or BF16 read and written as
 * floats, and one function for each combination of operand types. Everything here is static: files compiled for wider
 * instruction sets include it too. */
#ifndef TFI_BACKEND_ROWS_H
#define TFI_BACKEND_ROWS_H

#include "backend/host_ops.h"

#if defined(__GNUC__)
#define TFI_INLINE static inline __attribute__((always_inline, unused))
#else
#define TFI_INLINE static inline
#endif

/* In front of a loop of at most 16 turns over an array of vectors: unrolled, its elements become registers. */
#if defined(__clang__)
#define TFI_UNROLL _Pragma("clang loop unroll(full)")
#else
#define TFI_UNROLL _Pragma("GCC unroll 16")
#endif

/* Rows [begin, end) of n are this worker's. */
TFI_INLINE void tfi_share(const tfi_worker *w, int64_t n, int64_t *begin, int64_t *end)
{
    *begin = n * w->index / w->count;
    *end = n * (w->index + 1) / w->count;
}

/* Address of element i. */
TFI_INLINE const void *tfi_at(const void *p, tfi_dtype t, int64_t i)
{
    return (const char *)p + i * (t == TFI_BF16 ? 2 : 4);
}

TFI_INLINE void *tfi_at_out(void *p, tfi_dtype t, int64_t i)
{
    return (char *)p + i * (t == TFI_BF16 ? 2 : 4);
}

TFI_INLINE float tfi_get(const void *p, tfi_dtype t, int64_t i)
{
    return t == TFI_BF16 ? tfi_bf16_to_f32(((const uint16_t *)p)[i]) : ((const float *)p)[i];
}

TFI_INLINE void tfi_put(void *p, tfi_dtype t, int64_t i, float v)
{
    if (t == TFI_BF16) {
        ((uint16_t *)p)[i] = tfi_f32_to_bf16(v);
    } else {
        ((float *)p)[i] = v;
    }
}

/* EMBED's row r: the id of a token, or -1 for a row of the given embeddings. */
TFI_INLINE int64_t tfi_embed_id(const tfi_embed_args *a, int64_t r)
{
    const int32_t id = a->ids ? a->ids[r] : TFI_ID_EMBEDDING;
    if (id >= TFI_ID_EMBEDDING) return id;
    const tfi_slot *slot = &a->slots[TFI_ID_DRAWN(id)]; /* its own inverse */
    return slot->tokens[slot->count - 1];
}

/* An op function `name` for fixed operand types, from an inline `body` that takes the types as an argument. */
#define TFI_TYPED(name, body, x_type, residual_type, y_type)                                                                   \
    static void name(const void *args, const tfi_worker *w)                                                                    \
    {                                                                                                                          \
        body(args, w, (tfi_op_types){.x = x_type, .residual = residual_type, .y = y_type});                                    \
    }

/* Tables of functions are indexed by operand types. */
_Static_assert(TFI_F32 == 0 && TFI_BF16 == 1, "function tables are indexed by these");

#endif
