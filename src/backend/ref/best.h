/* The best of many: a heap of numbers with the places they came from. The number with the largest key is on top; of equal ones,
 * that with the higher index. */
#ifndef TFI_BACKEND_REF_BEST_H
#define TFI_BACKEND_REF_BEST_H

#include <stdint.h>

typedef struct tfi_ranked {
    float key;
    int32_t index;
} tfi_ranked;

static inline int tfi_ranked_above(tfi_ranked a, tfi_ranked b)
{
    return a.key > b.key || (a.key == b.key && a.index > b.index);
}

/* Let heap[at] sink to where it belongs; everything below it is in order. */
static inline void tfi_heap_sink(tfi_ranked *heap, int64_t n, int64_t at)
{
    const tfi_ranked moved = heap[at];

    for (int64_t child; (child = 2 * at + 1) < n; at = child) {
        if (child + 1 < n && tfi_ranked_above(heap[child + 1], heap[child])) child++;
        if (!tfi_ranked_above(heap[child], moved)) break;
        heap[at] = heap[child];
    }
    heap[at] = moved;
}

static inline void tfi_heap_make(tfi_ranked *heap, int64_t n)
{
    for (int64_t i = n / 2; i-- > 0;) tfi_heap_sink(heap, n, i);
}

/* Takes the top off; n > 0. */
static inline tfi_ranked tfi_heap_pop(tfi_ranked *heap, int64_t *n)
{
    const tfi_ranked top = heap[0];

    heap[0] = heap[--*n];
    if (*n > 0) tfi_heap_sink(heap, *n, 0);
    return top;
}

/* The `limit` highest scores of all offered, of equal ones those with the lower index: a heap of their negatives, the worst on
 * top. */
typedef struct tfi_best {
    tfi_ranked *heap; /* [limit] */
    int64_t count, limit;
} tfi_best;

static inline void tfi_best_offer(tfi_best *b, float score, int32_t index)
{
    const tfi_ranked offered = {-score, index};

    if (b->count < b->limit) {
        b->heap[b->count++] = offered;
        if (b->count == b->limit) tfi_heap_make(b->heap, b->count);
    } else if (b->limit > 0 && tfi_ranked_above(b->heap[0], offered)) {
        b->heap[0] = offered;
        tfi_heap_sink(b->heap, b->count, 0);
    }
}

/* Offers x[i] + add at index base + i. */
void tfi_best_offer_row(tfi_best *b, const float *x, int64_t n, float add, int32_t base);

/* Best first; nothing can be offered after that. heap[i].key is the negative of the score. */
void tfi_best_sort(tfi_best *b);

#endif
