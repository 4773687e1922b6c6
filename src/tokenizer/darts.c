/* Building a double array.
 *
 * Units come in blocks of 256; a node's base and its children lie in one block, at base ^ byte. A unit knows only its byte, not its
 * parent, so no two nodes share a base. Where a node fits is found for a whole block at once: of each of its bytes the block's map of free
 * units, with places exchanged by that byte, says which bases put the child on a free unit. Block 0 is where leaves lead: nothing
 * there has the byte that is looked for. Only blocks that filled up last are tried, which keeps building linear. */
#include "tokenizer/darts.h"

#include <string.h>

#include "base/status.h"

enum { BLOCK = 256, OPEN_BLOCKS = 16, FULL = 4, LEAF = 0 };

typedef struct map256 {
    uint64_t bits[4];
} map256;

typedef struct block {
    map256 free, bases;    /* units that are free, bases that are */
    uint32_t first, count; /* first unit; free units */
} block;

typedef struct builder {
    tfi_darts *darts;
    uint32_t capacity;
    const tfi_trie *trie;
    uint32_t *begin; /* [nodes + 1] into bytes and children */
    uint8_t *bytes;  /* [nodes] of edges */
    uint32_t *children;
    uint32_t *unit_of; /* [nodes] */
    block open[OPEN_BLOCKS];
    int open_count;
} builder;

/* out[i] = in[i ^ byte] */
static map256 exchange(const map256 *in, uint8_t byte)
{
    static const uint64_t masks[6] = {0x5555555555555555, 0x3333333333333333, 0x0f0f0f0f0f0f0f0f,
                                      0x00ff00ff00ff00ff, 0x0000ffff0000ffff, 0x00000000ffffffff};
    map256 out;

    for (int w = 0; w < 4; w++) {
        uint64_t x = in->bits[w ^ (byte >> 6)];
        for (int k = 0; k < 6; k++)
            if (byte >> k & 1) x = (x & masks[k]) << (1 << k) | (x >> (1 << k) & masks[k]);
        out.bits[w] = x;
    }
    return out;
}

static void clear_bit(map256 *m, uint32_t i)
{
    m->bits[i >> 6] &= ~((uint64_t)1 << (i & 63));
}

/* The lowest member, or -1. */
static int first_bit(const map256 *m)
{
    for (int w = 0; w < 4; w++)
        if (m->bits[w]) return w * 64 + __builtin_ctzll(m->bits[w]);
    return -1;
}

/* A base in the block for a child at `byte`, or -1. Most nodes have one child: any free unit will do. */
static int find_single(const block *b, uint8_t byte)
{
    for (uint32_t w = 0; w < 4; w++)
        for (uint64_t left = b->free.bits[w]; left; left &= left - 1) {
            const uint32_t base = (w * 64 + (uint32_t)__builtin_ctzll(left)) ^ byte;
            if (b->bases.bits[base >> 6] >> (base & 63) & 1) return (int)base;
        }
    return -1;
}

/* A base in the block for children at these bytes, or -1. */
static int find_base(const block *b, const uint8_t *bytes, uint32_t count)
{
    map256 fits = b->bases;

    if (b->count < count) return -1;
    if (count == 1) return find_single(b, bytes[0]);
    for (uint32_t i = 0; i < count; i++) {
        const map256 one = exchange(&b->free, bytes[i]);
        for (int w = 0; w < 4; w++) fits.bits[w] &= one.bits[w];
    }
    return first_bit(&fits);
}

/* A free unit's byte is one that only a base that nobody has would look for. */
static void finish_block(builder *w, const block *b)
{
    const int nobody = first_bit(&b->bases);

    for (uint32_t i = 0; i < BLOCK; i++)
        if (b->free.bits[i >> 6] >> (i & 63) & 1) w->darts->units[b->first + i] = (tfi_dart){.tag = i ^ (uint32_t)nobody};
}

static tf_status add_units(builder *w)
{
    tfi_darts *d = w->darts;

    if (d->unit_count + BLOCK <= w->capacity) {
        d->unit_count += BLOCK;
        return TF_STATUS_OK;
    }
    const uint32_t capacity = w->capacity + w->capacity / 4 + 16 * BLOCK;
    tfi_dart *units = tfi_realloc(d->memory, d->units, w->capacity * sizeof *units, capacity * sizeof *units);
    if (!units) return TF_STATUS_NOMEM;
    d->units = units;
    w->capacity = capacity;
    d->unit_count += BLOCK;
    return TF_STATUS_OK;
}

/* One more block, in place of the fullest one if there are many. */
static tf_status add_block(builder *w, block **out)
{
    int at = w->open_count;
    const tf_status status = add_units(w);

    if (status < 0) return status;
    if (w->open_count < OPEN_BLOCKS) {
        w->open_count++;
    } else {
        at = 0;
        for (int i = 1; i < OPEN_BLOCKS; i++)
            if (w->open[i].count < w->open[at].count) at = i;
        finish_block(w, &w->open[at]);
    }
    block *b = &w->open[at];
    memset(b, 0xff, sizeof *b);
    b->first = w->darts->unit_count - BLOCK;
    b->count = BLOCK;
    *out = b;
    return TF_STATUS_OK;
}

/* Give the node's children units; *base gets where they are. */
static tf_status place(builder *w, uint32_t node, uint32_t *base)
{
    const uint32_t begin = w->begin[node], count = w->begin[node + 1] - begin;
    block *b = NULL;
    int low = -1;
    tf_status status;

    *base = LEAF;
    if (count == 0) return TF_STATUS_OK;
    for (int i = 0; i < w->open_count && low < 0; i++)
        if ((low = find_base(&w->open[i], w->bytes + begin, count)) >= 0) b = &w->open[i];
    if (low < 0) {
        if ((status = add_block(w, &b)) < 0) return status;
        low = 0;
    }
    *base = b->first + (uint32_t)low;
    clear_bit(&b->bases, (uint32_t)low);
    for (uint32_t i = begin; i < begin + count; i++) {
        const uint32_t at = (uint32_t)low ^ w->bytes[i], child = w->children[i];
        clear_bit(&b->free, at);
        w->unit_of[child] = b->first + at;
        w->darts->units[b->first + at].tag = w->bytes[i] | (uint32_t)(w->trie->values[child] + 1) << 8;
    }
    b->count -= count;
    if (b->count < FULL) { /* not worth looking at any more */
        finish_block(w, b);
        *b = w->open[--w->open_count];
    }
    return TF_STATUS_OK;
}

/* The edges of the trie, by node. */
static void list_edges(builder *w)
{
    const tfi_trie *t = w->trie;

    for (uint32_t i = 0; i <= t->mask; i++)
        if (t->edges[i].key != TFI_TRIE_FREE) w->begin[(t->edges[i].key >> 8) + 1]++;
    for (uint32_t i = 0; i < t->nodes; i++) w->begin[i + 1] += w->begin[i];
    for (uint32_t i = 0; i < t->nodes; i++) w->unit_of[i] = w->begin[i];
    for (uint32_t i = 0; i <= t->mask; i++) {
        if (t->edges[i].key == TFI_TRIE_FREE) continue;
        const uint32_t at = w->unit_of[t->edges[i].key >> 8]++;
        w->bytes[at] = (uint8_t)t->edges[i].key;
        w->children[at] = t->edges[i].child;
    }
}

/* A node's number is larger than its parent's, so that its own unit is known when its turn comes. */
static tf_status build(builder *w)
{
    tfi_darts *d = w->darts;
    uint32_t base;
    tf_status status = add_units(w);

    if (status < 0) return status;
    for (uint32_t i = 0; i < BLOCK; i++) d->units[i] = (tfi_dart){.tag = ~i & 255};
    for (uint32_t node = 0; node < w->trie->nodes; node++) {
        if ((status = place(w, node, &base)) < 0) return status;
        if (node == TFI_TRIE_ROOT) d->root = base;
        else d->units[w->unit_of[node]].base = base;
    }
    for (int i = 0; i < w->open_count; i++) finish_block(w, &w->open[i]);
    return TF_STATUS_OK;
}

tf_status tfi_darts_open(tfi_darts *d, tfi_memory *memory, const tfi_trie *from)
{
    const size_t nodes = from->nodes;
    builder *w = tfi_zalloc(memory, sizeof *w);
    tf_status status = TF_STATUS_NOMEM;

    *d = (tfi_darts){.memory = memory};
    if (!w) return status;
    w->darts = d;
    w->trie = from;
    w->capacity = from->nodes + from->nodes / 32 + 4 * BLOCK;
    d->units = tfi_alloc(memory, w->capacity * sizeof *d->units);
    w->begin = tfi_zalloc(memory, (nodes + 1) * sizeof *w->begin);
    w->bytes = tfi_alloc(memory, nodes);
    w->children = tfi_alloc(memory, nodes * sizeof *w->children);
    w->unit_of = tfi_alloc(memory, nodes * sizeof *w->unit_of);
    if (d->units && w->begin && w->bytes && w->children && w->unit_of) {
        list_edges(w);
        status = build(w);
    }
    tfi_free(memory, w->begin, (nodes + 1) * sizeof *w->begin);
    tfi_free(memory, w->bytes, nodes);
    tfi_free(memory, w->children, nodes * sizeof *w->children);
    tfi_free(memory, w->unit_of, nodes * sizeof *w->unit_of);
    d->capacity = d->units ? w->capacity : 0;
    tfi_free(memory, w, sizeof *w);
    return status;
}

void tfi_darts_close(tfi_darts *d)
{
    if (d->units) tfi_free(d->memory, d->units, d->capacity * sizeof *d->units);
    d->units = NULL;
}
