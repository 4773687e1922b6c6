/* vocab.txt: a token a line. */
#include <string.h>

#include "base/status.h"
#include "tokenizer/load.h"

void tfi_entries_close(tfi_entries *e)
{
    tfi_free(e->memory, e->data, e->capacity * sizeof *e->data);
    *e = (tfi_entries){.memory = e->memory};
}

/* `size` without the White_Space at the end, which the reference's reader trims. */
static size_t trim(const tf_tokenizer *t, const uint8_t *line, size_t size)
{
    while (size > 0) {
        size_t at = size - 1;
        uint32_t c_size;
        while (at > 0 && (line[at] & 0xc0) == 0x80) at--;
        if (!(tfi_unicode_flags(&t->unicode, tfi_utf8_decode(line + at, &c_size)) & TFI_UNICODE_SPACE)) break;
        size = at;
    }
    return size;
}

static tf_status add_line(tf_tokenizer *t, const char *name, const uint8_t *line, size_t size, int trims, tfi_entries *out)
{
    int32_t *id;
    tf_status status;

    if (trims) size = trim(t, line, size);
    else if (size > 0 && line[size - 1] == '\r') size--;
    if (out->count > TFI_TOKEN_ID_MAX)
        return tfi_fail(TF_STATUS_UNSUPPORTED, "%s: more than %d lines", name, TFI_TOKEN_ID_MAX + 1);
    if ((status = tfi_trie_add(&t->vocab, line, size, &id)) < 0) return tfi_fail_prefix(status, "%s: ", name);
    if (*id == TFI_TRIE_NONE) t->vocab_entries++;
    else out->data[*id].text = NULL;
    *id = (int32_t)out->count;
    if ((status = tfi_reserve(out->memory, (void **)&out->data, &out->capacity, out->count + 1, sizeof *out->data)) < 0)
        return status;
    out->data[out->count++] = (tfi_entry){.text = (const char *)line, .size = (uint32_t)size, .id = *id};
    return TF_STATUS_OK;
}

tf_status tfi_read_vocab_txt(tf_tokenizer *t, const tfi_file *file, const char *name, int trims, tfi_entries *out)
{
    uint32_t bad = 0;
    const size_t good = tfi_utf8_valid(file->data, file->size, &bad);
    tf_status status;

    if (bad) return tfi_fail(TF_STATUS_CORRUPT, "%s: not UTF-8 at byte %zu", name, good);
    if (file->size > INT32_MAX) return tfi_fail(TF_STATUS_UNSUPPORTED, "%s: %zu bytes", name, file->size);
    if ((status = tfi_trie_open(&t->vocab, t->memory, (uint32_t)(file->size * 2 / 5))) < 0) return status;
    for (size_t at = 0; at < file->size;) {
        const uint8_t *end = memchr(file->data + at, '\n', file->size - at);
        const size_t size = end ? (size_t)(end - file->data) - at : file->size - at;
        if ((status = add_line(t, name, file->data + at, size, trims, out)) < 0) return status;
        at += size + 1;
    }
    return TF_STATUS_OK;
}

tf_status tfi_read_byt5(tfi_loading *l)
{
    static const int own[] = {TFI_PAD, TFI_EOS, TFI_UNK};
    tf_tokenizer *t = l->t;
    tfi_entries *out = &l->entries;
    tf_status status;
    int32_t *id;

    t->model = TFI_MODEL_BYT5;
    t->decoder = TFI_DECODER_BYT5;
    t->no_second_end = 1;
    if ((status = tfi_reserve(out->memory, (void **)&out->data, &out->capacity, TFI_BYT5_IDS, sizeof *out->data)) < 0)
        return status;
    if ((status = tfi_trie_open(&t->vocab, t->memory, 2 * TFI_BYT5_IDS)) < 0) return status;
    for (int32_t i = 0; i < TFI_BYT5_IDS; i++) {
        uint8_t spelled[4];
        const uint32_t size = tfi_utf8_encode((uint32_t)(i - TFI_BYT5_FIRST) & 255, spelled);
        tfi_entry e = {.text = tfi_arena_copy(&t->arena, (const char *)spelled, size), .size = size, .id = i};
        if (i < TFI_BYT5_FIRST) e = (tfi_entry){.text = l->names[own[i]].text, .size = l->names[own[i]].size, .id = i};
        if (!e.text) return TF_STATUS_NOMEM;
        if ((status = tfi_trie_add(&t->vocab, (const uint8_t *)e.text, e.size, &id)) < 0) return status;
        if (*id == TFI_TRIE_NONE) *id = i;
        out->data[out->count++] = e;
    }
    t->vocab_entries = TFI_BYT5_IDS;
    return TF_STATUS_OK;
}
