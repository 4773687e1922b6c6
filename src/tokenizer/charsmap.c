/* Nothing in a map's array is trusted: each step of a walk looks at the array's end, each value at the text's. */
#include "tokenizer/charsmap.h"

#include <string.h>

#include "base/status.h"
#include "tokenizer/unicode.h"

/* A unit: bit 8 says that a value hangs below, bits 0 to 7 and 31 are the label, bits 10 to 30 the way to the children, in
 * steps of 256 where bit 9 is set. */
static uint32_t offset(uint32_t unit)
{
    return (unit >> 10) << ((unit & (1u << 9)) >> 6);
}

tf_status tfi_charsmap_open(tfi_charsmap *m, tfi_arena *arena, const uint8_t *data, size_t size, const char *name)
{
    uint32_t bad = 0;

    *m = (tfi_charsmap){0};
    if (size == 0) return TF_STATUS_OK;
    if (size > UINT32_MAX / 2) return tfi_fail(TF_STATUS_CORRUPT, "%s: precompiled_charsmap has %zu bytes", name, size);
    if (size < 4) return tfi_fail(TF_STATUS_CORRUPT, "%s: precompiled_charsmap is cut off", name);
    const uint32_t bytes = data[0] | (uint32_t)data[1] << 8 | (uint32_t)data[2] << 16 | (uint32_t)data[3] << 24;
    if (bytes > size - 4 || bytes % 4 != 0 || bytes == 0)
        return tfi_fail(TF_STATUS_CORRUPT, "%s: precompiled_charsmap: a trie of %u bytes in %zu", name, bytes, size - 4);
    const size_t text_size = size - 4 - bytes;
    if (tfi_utf8_valid(data + 4 + bytes, text_size, &bad) != text_size)
        return tfi_fail(TF_STATUS_CORRUPT, "%s: precompiled_charsmap: replacements that are not UTF-8", name);
    uint32_t *units = tfi_arena_alloc(arena, bytes);
    const char *text = tfi_arena_copy(arena, (const char *)data + 4 + bytes, text_size);
    if (!units || !text) return TF_STATUS_NOMEM;
    for (uint32_t i = 0; i < bytes / 4; i++) {
        const uint8_t *b = data + 4 + 4 * (size_t)i;
        units[i] = b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
    }
    *m = (tfi_charsmap){
        .units = units, .unit_count = bytes / 4, .text = (const uint8_t *)text, .text_size = (uint32_t)text_size};
    return TF_STATUS_OK;
}

const uint8_t *tfi_charsmap_find(const tfi_charsmap *m, const uint8_t *text, size_t size, int longest, size_t *matched,
                                 uint32_t *replacement_size)
{
    const uint8_t *found = NULL;
    uint32_t at;

    if (!m->units) return NULL;
    at = offset(m->units[0]);
    for (size_t i = 0; i < size && text[i] != 0; i++) {
        at ^= text[i];
        if (at >= m->unit_count) break;
        const uint32_t unit = m->units[at];
        if ((unit & (1u << 31 | 255)) != text[i]) break;
        at ^= offset(unit);
        if (at >= m->unit_count) break;
        if (!(unit & 256)) continue;
        const uint32_t value = m->units[at] & ~(1u << 31);
        if (value > m->text_size || (m->text[value] & 0xc0) == 0x80) continue; /* the copy ends with a NUL */
        found = m->text + value;
        *matched = i + 1;
        if (!longest) break;
    }
    if (found) *replacement_size = (uint32_t)strlen((const char *)found);
    return found;
}

/* Go on from *at along `byte`: 0 if no member does. */
static int step(const tfi_charsmap *m, uint32_t *at, uint8_t byte)
{
    *at ^= byte;
    if (*at >= m->unit_count || (m->units[*at] & (1u << 31 | 255)) != byte) return 0;
    *at ^= offset(m->units[*at]);
    return *at < m->unit_count;
}

/* Put all code points that go on from `at` into `set`: `bytes` bytes are still to come of one that begins with the bits of `c`.
 * 0 if that takes more than *steps. */
static int add_points(const tfi_charsmap *m, uint32_t at, uint32_t c, uint32_t bytes, uint8_t *set, uint32_t *steps)
{
    for (uint32_t byte = 0x80; byte < 0xc0; byte++) {
        const uint32_t point = c << 6 | (byte & 63);
        uint32_t to = at;
        if ((*steps)-- == 0) return *steps = 0;
        if (!step(m, &to, (uint8_t)byte)) continue;
        if (bytes == 1) set[point] = 1;
        else if (!add_points(m, to, point, bytes - 1, set, steps)) return 0;
    }
    return 1;
}

int tfi_charsmap_seconds(const tfi_charsmap *m, const uint8_t *text, size_t size, uint8_t *set, uint32_t *steps)
{
    uint32_t at, any = 0;

    if (!m->units) return 0;
    at = offset(m->units[0]);
    for (size_t i = 0; i < size; i++)
        if (!step(m, &at, text[i])) return 0;
    for (uint32_t lead = 1; lead < 0xf0; lead = lead == 0x7f ? 0xc2 : lead + 1) {
        uint32_t to = at;
        if ((*steps)-- == 0) return *steps = 0, -1;
        if (!step(m, &to, (uint8_t)lead)) continue;
        any = 1;
        if (lead < 0x80) set[lead] = 1;
        else if (!add_points(m, to, lead & (lead < 0xe0 ? 31 : 15), lead < 0xe0 ? 1 : 2, set, steps)) return -1;
    }
    return (int)any;
}
