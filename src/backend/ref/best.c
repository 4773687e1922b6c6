/* The best of a row, with a quick look at many numbers at a time: nearly all are worse than what is there. */
#include "backend/ref/best.h"

enum { BLOCK = 64 };

void tfi_best_offer_row(tfi_best *b, const float *x, int64_t n, float add, int32_t base)
{
    int64_t i = 0;

    while (i < n) {
        if (b->count == b->limit && i + BLOCK <= n) {
            const float worst = b->limit > 0 ? -b->heap[0].key : 0;
            int32_t any = 0;
            for (int k = 0; k < BLOCK; k++) any |= x[i + k] + add > worst;
            if (!any) {
                i += BLOCK;
                continue;
            }
        }
        const int64_t end = i + BLOCK < n ? i + BLOCK : n;
        for (; i < end; i++) tfi_best_offer(b, x[i] + add, base + (int32_t)i);
    }
}

void tfi_best_sort(tfi_best *b)
{
    int64_t n = b->count;

    if (n < b->limit) tfi_heap_make(b->heap, n);
    while (n > 1) {
        const int64_t last = n - 1;
        b->heap[last] = tfi_heap_pop(b->heap, &n);
    }
}
