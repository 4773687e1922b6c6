/* Making a set of stems: first all of them in a hash table, in the order of adding; then packed.
 *
 * Units come in blocks of 64, and the children of a stem lie in one block, so that where they fit is found for a whole block at once: the
 * block's map of free units, with places exchanged by what a child's code point says, has the bases that put this child on a free unit.
 * Only blocks that filled up last are tried, which keeps packing linear. A unit may look like the child of another stem than its own: nobody
 * asks, because the bits of a stem say which places hold its children. */
#include "tokenizer/stems.h"

#include <string.h>

#include "base/status.h"
#include "tokenizer/unicode.h"

enum { BLOCK = 64, OPEN_BLOCKS = 16, FULL = 2 };

typedef struct block {
    uint64_t free;
    uint32_t first; /* unit */
} block;

typedef struct packer {
    tfi_stems *stems;
    uint32_t *begin;    /* [sprouts + 1] into children */
    uint32_t *children; /* sprouts by parent */
    uint32_t *unit, *base; /* [sprouts] */
    uint32_t in_table;  /* how many children are */
    block open[OPEN_BLOCKS];
    int open_count;
} packer;

static tf_status too_many(void)
{
    return tfi_fail(TF_STATUS_UNSUPPORTED, "a vocabulary of more than %d distinct prefixes", TFI_STEMS_MAX);
}

/* The table. */

static tf_status slots_open(tfi_stems *t, uint32_t count)
{
    uint32_t log2_slots = 4;

    while (((uint64_t)1 << log2_slots) / 3 * 2 < count) log2_slots++;
    tfi_stem_slot *slots = tfi_zalloc(t->memory, ((size_t)1 << log2_slots) * sizeof *slots);
    if (!slots) return TF_STATUS_NOMEM;
    t->slots = slots;
    t->mask = (1u << log2_slots) - 1;
    t->shift = 64 - log2_slots;
    return TF_STATUS_OK;
}

static void slots_close(tfi_stems *t)
{
    if (t->slots) tfi_free(t->memory, t->slots, ((size_t)t->mask + 1) * sizeof *t->slots);
    t->slots = NULL;
}

/* Room was made. */
static void slot_add(tfi_stems *t, uint32_t from, uint32_t c, uint32_t to)
{
    uint32_t slot = (uint32_t)(((uint64_t)from << 21 | c) * 0x9e3779b97f4a7c15u >> t->shift);

    while (t->slots[slot].to) slot = (slot + 1) & t->mask;
    t->slots[slot] = (tfi_stem_slot){from, c, to};
}

static tf_status slots_grow(tfi_stems *t)
{
    tfi_stems old = *t;
    const tf_status status = slots_open(t, t->sprout_count * 2);

    if (status < 0) return status;
    for (uint32_t i = 0; i <= old.mask; i++)
        if (old.slots[i].to) slot_add(t, old.slots[i].from, old.slots[i].c, old.slots[i].to);
    slots_close(&old);
    return TF_STATUS_OK;
}

/* Adding. */

tf_status tfi_stems_open(tfi_stems *t, tfi_memory *memory, uint32_t count)
{
    *t = (tfi_stems){.memory = memory};
    t->sprout_capacity = count < BLOCK ? BLOCK : count < TFI_STEMS_MAX ? count : TFI_STEMS_MAX;
    if (!(t->sprouts = tfi_alloc(memory, t->sprout_capacity * sizeof *t->sprouts))) return TF_STATUS_NOMEM;
    if (!(t->first = tfi_zalloc(memory, TFI_FIRST_COUNT * sizeof *t->first))) return TF_STATUS_NOMEM;
    t->sprouts[TFI_STEM_ROOT] = (tfi_sprout){.id = TFI_TRIE_NONE};
    t->sprout_count = 1;
    return slots_open(t, t->sprout_capacity);
}

static void sprouts_close(tfi_stems *t)
{
    if (t->sprouts) tfi_free(t->memory, t->sprouts, t->sprout_capacity * sizeof *t->sprouts);
    t->sprouts = NULL;
    t->sprout_count = t->sprout_capacity = 0;
}

void tfi_stems_close(tfi_stems *t)
{
    sprouts_close(t);
    slots_close(t);
    if (t->stems) tfi_free(t->memory, t->stems, t->capacity * sizeof *t->stems);
    if (t->scores) tfi_free(t->memory, t->scores, t->capacity * sizeof *t->scores);
    if (t->ids) tfi_free(t->memory, t->ids, t->capacity * sizeof *t->ids);
    if (t->first) tfi_free(t->memory, t->first, TFI_FIRST_COUNT * sizeof *t->first);
    memset(t, 0, sizeof *t);
}

/* The sprout that is `from` and c, made if it is not there. */
static tf_status child(tfi_stems *t, uint32_t from, uint32_t c, uint32_t *out)
{
    if ((*out = tfi_stems_look_up(t, from, c)) != 0) return TF_STATUS_OK;
    if (t->sprout_count == TFI_STEMS_MAX) return too_many();
    if (t->sprout_count == t->sprout_capacity) {
        const size_t size = sizeof *t->sprouts, capacity = t->sprout_capacity + (size_t)t->sprout_capacity / 2;
        tfi_sprout *grown = tfi_realloc(t->memory, t->sprouts, t->sprout_capacity * size, capacity * size);
        if (!grown) return TF_STATUS_NOMEM;
        t->sprouts = grown;
        t->sprout_capacity = (uint32_t)capacity;
    }
    if (t->sprout_count > (t->mask + 1) / 3 * 2 && slots_grow(t) < 0) return TF_STATUS_NOMEM;
    *out = t->sprout_count++;
    t->sprouts[*out] = (tfi_sprout){.parent = from, .c = c, .id = TFI_TRIE_NONE};
    slot_add(t, from, c, *out);
    return TF_STATUS_OK;
}

tf_status tfi_stems_add(tfi_stems *t, const uint8_t *text, size_t size, tfi_sprout **sprout)
{
    uint32_t at = TFI_STEM_ROOT, c_size;
    tf_status status;

    for (size_t i = 0; i < size; i += c_size)
        if ((status = child(t, at, tfi_utf8_decode(text + i, &c_size), &at)) < 0) return status;
    *sprout = &t->sprouts[at];
    return TF_STATUS_OK;
}

/* Packing. */

/* out[i] = in[i ^ by] */
static uint64_t exchange(uint64_t in, uint32_t by)
{
    static const uint64_t masks[6] = {0x5555555555555555, 0x3333333333333333, 0x0f0f0f0f0f0f0f0f,
                                      0x00ff00ff00ff00ff, 0x0000ffff0000ffff, 0x00000000ffffffff};

    for (int k = 0; k < 6; k++)
        if (by >> k & 1) in = (in & masks[k]) << (1 << k) | (in >> (1 << k) & masks[k]);
    return in;
}

/* The bases in the block that put all these children on free units, as bits. */
static uint64_t fitting(const packer *p, const block *b, const uint32_t *children, uint32_t count)
{
    uint64_t fits = UINT64_MAX;

    for (uint32_t i = 0; i < count && fits; i++) fits &= exchange(b->free, p->stems->sprouts[children[i]].c & 63);
    return fits;
}

/* One more block, in place of the fullest one if there are many. */
static tf_status add_block(packer *p, block **out)
{
    int at = p->open_count;

    if (at < OPEN_BLOCKS) p->open_count++;
    else
        for (int i = at = 0; i < OPEN_BLOCKS; i++)
            if (__builtin_popcountll(p->open[i].free) < __builtin_popcountll(p->open[at].free)) at = i;
    *out = &p->open[at];
    **out = (block){.free = UINT64_MAX, .first = p->stems->count};
    if (p->stems->count == 0) (*out)->free--; /* number 0 is no stem's */
    p->stems->count += BLOCK;
    return p->stems->count > TFI_STEMS_MAX ? too_many() : TF_STATUS_OK;
}

/* Give children with different places units in one block; *base gets where they are. */
static tf_status place(packer *p, const uint32_t *children, uint32_t count, uint32_t *base)
{
    block *b = NULL;
    uint64_t fits = 0;
    tf_status status;

    for (int i = 0; i < p->open_count && !fits; i++)
        if ((fits = fitting(p, &p->open[i], children, count)) != 0) b = &p->open[i];
    if (!fits) {
        if ((status = add_block(p, &b)) < 0) return status;
        fits = fitting(p, b, children, count);
        if (!fits) return place(p, children, count, base); /* all 64 places, in the block that lacks one */
    }
    *base = b->first + (uint32_t)__builtin_ctzll(fits);
    for (uint32_t i = 0; i < count; i++) {
        p->unit[children[i]] = *base ^ (p->stems->sprouts[children[i]].c & 63);
        b->free &= ~((uint64_t)1 << (p->unit[children[i]] & 63));
    }
    if (__builtin_popcountll(b->free) < FULL) *b = p->open[--p->open_count];
    return TF_STATUS_OK;
}

static tf_status place_children(packer *p, uint32_t sprout)
{
    const uint32_t *children = p->children + p->begin[sprout], count = p->begin[sprout + 1] - p->begin[sprout];
    const tfi_sprout *sprouts = p->stems->sprouts;
    uint32_t base;
    uint64_t places = 0;
    int apart = sprout != TFI_STEM_ROOT;
    tf_status status = TF_STATUS_OK;

    for (uint32_t i = 0; i < count; i++) {
        const uint64_t place = (uint64_t)1 << (sprouts[children[i]].c & 63);
        apart &= !(places & place);
        places |= place;
    }
    p->base[sprout] = apart ? 0 : TFI_STEM_TABLE;
    if (apart) return count ? place(p, children, count, &p->base[sprout]) : TF_STATUS_OK;
    for (uint32_t i = 0; i < count && status == TF_STATUS_OK; i++) {
        p->in_table += sprout != TFI_STEM_ROOT || sprouts[children[i]].c >= TFI_FIRST_COUNT;
        status = place(p, &children[i], 1, &base);
    }
    return status;
}

static void list_children(packer *p)
{
    const tfi_stems *t = p->stems;

    for (uint32_t i = 1; i < t->sprout_count; i++) p->begin[t->sprouts[i].parent + 1]++;
    for (uint32_t i = 0; i < t->sprout_count; i++) p->begin[i + 1] += p->begin[i];
    for (uint32_t i = 0; i < t->sprout_count; i++) p->unit[i] = p->begin[i];
    for (uint32_t i = 1; i < t->sprout_count; i++) p->children[p->unit[t->sprouts[i].parent]++] = i;
}

/* All has its place: write it down. */
static tf_status write_stems(packer *p)
{
    tfi_stems *t = p->stems;

    slots_close(t);
    t->capacity = t->count;
    if (!(t->stems = tfi_zalloc(t->memory, t->count * sizeof *t->stems))) return TF_STATUS_NOMEM;
    if (!(t->scores = tfi_alloc(t->memory, t->count * sizeof *t->scores))) return TF_STATUS_NOMEM;
    if (!(t->ids = tfi_alloc(t->memory, t->count * sizeof *t->ids))) return TF_STATUS_NOMEM;
    if (slots_open(t, p->in_table) < 0) return TF_STATUS_NOMEM;
    p->unit[TFI_STEM_ROOT] = TFI_STEM_ROOT;
    for (uint32_t i = 1; i < t->sprout_count; i++) {
        const tfi_sprout *from = &t->sprouts[i];
        const uint32_t at = p->unit[i], parent = p->unit[from->parent];
        t->stems[at].base = p->base[i];
        t->stems[at].point = from->c | (from->id != TFI_TRIE_NONE && !from->is_marker ? TFI_STEM_PIECE : 0);
        t->scores[at] = from->score;
        t->ids[at] = from->id;
        t->stems[parent].next |= (uint64_t)1 << (from->c & 63);
        if (parent == TFI_STEM_ROOT && from->c < TFI_FIRST_COUNT) t->first[from->c] = at;
        else if (p->base[from->parent] == TFI_STEM_TABLE) slot_add(t, parent, from->c, at);
    }
    return TF_STATUS_OK;
}

tf_status tfi_stems_pack(tfi_stems *t)
{
    const size_t sprouts = t->sprout_count;
    packer p = {.stems = t};
    tf_status status = TF_STATUS_NOMEM;

    p.begin = tfi_zalloc(t->memory, (sprouts + 1) * sizeof *p.begin);
    p.children = tfi_alloc(t->memory, sprouts * sizeof *p.children);
    p.unit = tfi_alloc(t->memory, sprouts * sizeof *p.unit);
    p.base = tfi_alloc(t->memory, sprouts * sizeof *p.base);
    if (p.begin && p.children && p.unit && p.base) {
        list_children(&p);
        status = TF_STATUS_OK;
        for (uint32_t i = 0; i < sprouts && status == TF_STATUS_OK; i++) status = place_children(&p, i);
        if (status == TF_STATUS_OK) status = write_stems(&p);
    }
    tfi_free(t->memory, p.begin, (sprouts + 1) * sizeof *p.begin);
    tfi_free(t->memory, p.children, sprouts * sizeof *p.children);
    tfi_free(t->memory, p.unit, sprouts * sizeof *p.unit);
    tfi_free(t->memory, p.base, sprouts * sizeof *p.base);
    sprouts_close(t);
    return status;
}

int32_t tfi_stems_find(const tfi_stems *t, const uint8_t *text, size_t size)
{
    uint32_t at = TFI_STEM_ROOT, c_size, bad;

    if (size == 0 || tfi_utf8_valid(text, size, &bad) != size) return TFI_TRIE_NONE;
    for (size_t i = 0; i < size; i += c_size) {
        const uint32_t c = tfi_utf8_decode(text + i, &c_size);
        at = i ? tfi_stems_step(t, at, c) : tfi_stems_first(t, c);
        if (at == TFI_STEM_ROOT) return TFI_TRIE_NONE;
    }
    return t->ids[at];
}
