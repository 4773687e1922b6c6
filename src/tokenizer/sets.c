#include "tokenizer/sets.h"

#include <stdlib.h>
#include <string.h>

#include "tokenizer/tokenizer.h"

enum { NEWLINE = '\n' };

tf_status tfi_set_add(tfi_memory *memory, tfi_set *s, uint32_t first, uint32_t last)
{
    const tf_status status = tfi_reserve(memory, (void **)&s->data, &s->capacity, s->count + 1, sizeof *s->data);

    if (status < 0) return status;
    s->data[s->count++] = (tfi_points){first, last};
    return TF_STATUS_OK;
}

void tfi_set_close(tfi_memory *memory, tfi_set *s)
{
    tfi_free(memory, s->data, s->capacity * sizeof *s->data);
    *s = (tfi_set){0};
}

static int by_first(const void *a, const void *b)
{
    const tfi_points *x = a, *y = b;

    return x->first < y->first ? -1 : x->first > y->first;
}

void tfi_set_normalize(tfi_set *s)
{
    size_t n = 0;

    if (s->count == 0) return;
    qsort(s->data, s->count, sizeof *s->data, by_first);
    for (size_t i = 0; i < s->count; i++) {
        const tfi_points r = s->data[i];
        if (n > 0 && r.first <= s->data[n - 1].last + 1) {
            if (r.last > s->data[n - 1].last) s->data[n - 1].last = r.last;
        } else {
            s->data[n++] = r;
        }
    }
    s->count = n;
}

tf_status tfi_set_invert(tfi_memory *memory, tfi_set *s)
{
    tfi_set out = {0};
    uint32_t next = 0;
    tf_status status = TF_STATUS_OK;

    tfi_set_normalize(s);
    for (size_t i = 0; i < s->count && status == TF_STATUS_OK; i++) {
        if (s->data[i].first > next) status = tfi_set_add(memory, &out, next, s->data[i].first - 1);
        next = s->data[i].last + 1;
    }
    if (next <= TFI_POINT_LAST && status == TF_STATUS_OK) status = tfi_set_add(memory, &out, next, TFI_POINT_LAST);
    tfi_set_close(memory, s);
    *s = out;
    return status;
}

tf_status tfi_set_join(tfi_memory *memory, tfi_set *to, const tfi_set *from)
{
    tf_status status = TF_STATUS_OK;

    for (size_t i = 0; i < from->count && status == TF_STATUS_OK; i++)
        status = tfi_set_add(memory, to, from->data[i].first, from->data[i].last);
    return status;
}

/* The common part, as what is in neither complement. */
tf_status tfi_set_intersect(tfi_memory *memory, tfi_set *to, tfi_set *from)
{
    tf_status status;

    if ((status = tfi_set_invert(memory, to)) < 0 || (status = tfi_set_invert(memory, from)) < 0 ||
        (status = tfi_set_join(memory, to, from)) < 0)
        return status;
    return tfi_set_invert(memory, to);
}

tf_status tfi_set_fold(tfi_memory *memory, tfi_set *s)
{
    tf_status status = TF_STATUS_OK;

    tfi_set_normalize(s);
    const size_t n = s->count;
    for (size_t i = 0; i < n && status == TF_STATUS_OK; i++) {
        for (uint32_t c = s->data[i].first; c <= s->data[i].last && c < 128 && status == TF_STATUS_OK; c++) {
            const uint32_t lower = c | 0x20;
            if (lower < 'a' || lower > 'z') continue;
            status = tfi_set_add(memory, s, c ^ 0x20, c ^ 0x20);
            if (status == TF_STATUS_OK && lower == 's') status = tfi_set_add(memory, s, 0x17f, 0x17f);
            if (status == TF_STATUS_OK && lower == 'k') status = tfi_set_add(memory, s, 0x212a, 0x212a);
        }
    }
    return status;
}

/* Classes of code points. */

/* Where a set begins or ends. */
typedef struct edge {
    uint32_t at, set;
} edge;

static int by_place(const void *a, const void *b)
{
    const edge *x = a, *y = b;

    return x->at < y->at ? -1 : x->at > y->at;
}

/* The class of what is in these sets, or TFI_CLASSES_MAX if there are too many. The newline keeps its code, the first set is its alone. */
static uint32_t class_of(tfi_partition *p, const uint64_t sets[TFI_SET_WORDS])
{
    if (sets[0] & 1) return memcpy(p->members[NEWLINE], sets, sizeof p->members[0]), NEWLINE;
    for (uint32_t i = 0; i < p->count; i++)
        if (i != NEWLINE && memcmp(p->members[i], sets, sizeof p->members[0]) == 0) return i;
    if (p->count == NEWLINE) p->count++;
    if (p->count == TFI_CLASSES_MAX) return TFI_CLASSES_MAX;
    memcpy(p->members[p->count], sets, sizeof p->members[0]);
    return p->count++;
}

/* Code points [first, end) are of this class; pages are kept as they become full. */
static tf_status fill(tfi_partition *p, tfi_arena *arena, uint32_t first, uint32_t end, uint32_t class)
{
    const uint8_t **pages = p->classes->page;

    for (uint32_t c = first; c < end; c++) {
        p->page[c & 255] = (uint8_t) class;
        if ((c & 255) != 255) continue;
        const uint32_t i = c >> 8;
        if (i > 0 && memcmp(pages[i - 1], p->page, sizeof p->page) == 0) {
            pages[i] = pages[i - 1];
            continue;
        }
        uint8_t *copy = tfi_arena_alloc(arena, sizeof p->page);
        if (!copy) return TF_STATUS_NOMEM;
        memcpy(copy, p->page, sizeof p->page);
        pages[i] = copy;
    }
    return TF_STATUS_OK;
}

tf_status tfi_sets_divide(tfi_memory *memory, const tfi_set *sets, uint32_t set_count, tfi_arena *arena, tfi_partition *p)
{
    uint64_t inside[TFI_SET_WORDS] = {0};
    size_t count = 0, n = 0;
    uint32_t at = 0;
    tf_status status = TF_STATUS_OK;

    for (uint32_t i = 0; i < set_count; i++) count += 2 * sets[i].count;
    edge *edges = tfi_alloc(memory, (count + 1) * sizeof *edges);
    if (!edges) return TF_STATUS_NOMEM;
    for (uint32_t i = 0; i < set_count; i++) {
        for (size_t k = 0; k < sets[i].count; k++) {
            edges[n++] = (edge){sets[i].data[k].first, i};
            edges[n++] = (edge){sets[i].data[k].last + 1, i};
        }
    }
    qsort(edges, n, sizeof *edges, by_place);
    for (size_t i = 0; i <= n && status == TF_STATUS_OK; i++) {
        const uint32_t next = i < n ? edges[i].at : TFI_POINT_LAST + 1;
        if (next > at) {
            const uint32_t class = class_of(p, inside);
            status = class == TFI_CLASSES_MAX ? TF_STATUS_UNSUPPORTED : fill(p, arena, at, next, class);
            at = next;
        }
        if (i < n) inside[edges[i].set / 64] ^= (uint64_t)1 << (edges[i].set & 63);
    }
    tfi_free(memory, edges, (count + 1) * sizeof *edges);
    return status;
}
