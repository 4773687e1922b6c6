#include "tokenizer/trie.h"

#include <string.h>

#include "base/status.h"

enum { NODES_MAX = (1 << 24) - 1 }; /* a node's number and a byte fit in a key that is never TFI_TRIE_FREE */

static tf_status edges_resize(tfi_trie *t, uint32_t log2_slots)
{
    const uint32_t slots = 1u << log2_slots, old_slots = t->edges ? t->mask + 1 : 0;
    tfi_trie_edge *old = t->edges, *edges = tfi_alloc(t->memory, slots * sizeof *edges);

    if (!edges) return TF_STATUS_NOMEM;
    memset(edges, 0xff, slots * sizeof *edges);
    t->edges = edges;
    t->mask = slots - 1;
    t->shift = 32 - log2_slots;
    for (uint32_t i = 0; i < old_slots; i++) {
        if (old[i].key == TFI_TRIE_FREE) continue;
        uint32_t slot = old[i].key * 0x9e3779b1u >> t->shift;
        while (edges[slot].key != TFI_TRIE_FREE) slot = (slot + 1) & t->mask;
        edges[slot] = old[i];
    }
    tfi_free(t->memory, old, old_slots * sizeof *old);
    return TF_STATUS_OK;
}

static tf_status node_add(tfi_trie *t, uint32_t *node)
{
    if (t->nodes == t->node_capacity) {
        const uint32_t capacity = t->node_capacity * 2;
        int32_t *values = tfi_realloc(t->memory, t->values, t->node_capacity * sizeof *values, capacity * sizeof *values);
        if (!values) return TF_STATUS_NOMEM;
        t->values = values;
        t->node_capacity = capacity;
    }
    *node = t->nodes++;
    t->values[*node] = TFI_TRIE_NONE;
    return TF_STATUS_OK;
}

tf_status tfi_trie_open(tfi_trie *t, tfi_memory *memory, uint32_t nodes)
{
    uint32_t log2_slots = 6;

    memset(t, 0, sizeof *t);
    t->memory = memory;
    if (nodes > NODES_MAX) nodes = NODES_MAX;
    while ((3u << log2_slots) / 4 < nodes) log2_slots++;
    if (edges_resize(t, log2_slots) < 0) return TF_STATUS_NOMEM;
    t->node_capacity = nodes < 64 ? 64 : nodes;
    if (!(t->values = tfi_alloc(memory, t->node_capacity * sizeof *t->values))) return TF_STATUS_NOMEM;
    t->nodes = 1;
    t->values[TFI_TRIE_ROOT] = TFI_TRIE_NONE;
    return TF_STATUS_OK;
}

void tfi_trie_close(tfi_trie *t)
{
    if (t->edges) tfi_free(t->memory, t->edges, ((size_t)t->mask + 1) * sizeof *t->edges);
    if (t->values) tfi_free(t->memory, t->values, t->node_capacity * sizeof *t->values);
    memset(t, 0, sizeof *t);
}

/* The child of `node` along `byte`, made if it is not there. */
static tf_status child(tfi_trie *t, uint32_t node, uint8_t byte, uint32_t *out)
{
    const uint32_t key = node << 8 | byte;

    if ((*out = tfi_trie_step(t, node, byte)) != 0) return TF_STATUS_OK;
    if (t->nodes == NODES_MAX)
        return tfi_fail(TF_STATUS_UNSUPPORTED, "a vocabulary of more than %d distinct prefixes", NODES_MAX);
    if (t->nodes > (t->mask + 1) / 4 * 3 && edges_resize(t, 32 - t->shift + 1) < 0) return TF_STATUS_NOMEM;
    if (node_add(t, out) < 0) return TF_STATUS_NOMEM;
    uint32_t slot = key * 0x9e3779b1u >> t->shift;
    while (t->edges[slot].key != TFI_TRIE_FREE) slot = (slot + 1) & t->mask;
    t->edges[slot] = (tfi_trie_edge){.key = key, .child = *out};
    return TF_STATUS_OK;
}

tf_status tfi_trie_add(tfi_trie *t, const uint8_t *text, size_t size, int32_t **value)
{
    uint32_t node = TFI_TRIE_ROOT;
    tf_status status;

    for (size_t i = 0; i < size; i++)
        if ((status = child(t, node, text[i], &node)) < 0) return status;
    *value = &t->values[node];
    return TF_STATUS_OK;
}

uint32_t tfi_trie_walk(const tfi_trie *t, const uint8_t *text, size_t size)
{
    uint32_t node = TFI_TRIE_ROOT;

    for (size_t i = 0; i < size; i++)
        if (!(node = tfi_trie_step(t, node, text[i]))) return 0;
    return node;
}

int32_t tfi_trie_find(const tfi_trie *t, const uint8_t *text, size_t size)
{
    const uint32_t node = tfi_trie_walk(t, text, size);
    return node || size == 0 ? t->values[node] : TFI_TRIE_NONE;
}
