/* libmecab's calls. The model is shared by all threads; each has a lattice of its own. What libmecab allocates is its own and
 * not counted in the library's memory. */
#include "tokenizer/mecab.h"

#include <stdio.h>
#include <string.h>

#include "base/status.h"
#include "tokenizer/unicode.h"

#ifdef TFINFER_WITH_MECAB

#include <mecab.h>

enum { KINDS = 0xffff, KINDS_BYTES = KINDS * 4 };

struct tfi_mecab {
    mecab_model_t *model;
    mecab_t *tagger;
    uint32_t *kinds; /* [KINDS] of char.bin: classes in the low 18 bits, bit 30 if characters of one class make unknown words */
};

/* The table of characters at the end of char.bin, which was found good. */
static tf_status read_kinds(tfi_mecab *m, tfi_memory *memory, const tfi_files *files)
{
    tfi_file file;
    const tf_status status = tfi_files_need(files, "char.bin", &file);

    if (status < 0) return status;
    m->kinds = tfi_alloc(memory, KINDS_BYTES);
    if (m->kinds && file.size >= KINDS_BYTES) memcpy(m->kinds, file.data + file.size - KINDS_BYTES, KINDS_BYTES);
    tfi_files_close(files, &file);
    return m->kinds ? TF_STATUS_OK : TF_STATUS_NOMEM;
}

/* How often libmecab will look at a character to see how far words of one class reach: from each character on as far as they do, so
 * the square of such a run's length. */
static uint64_t looks(const tfi_mecab *m, const uint8_t *text, uint32_t size)
{
    enum { CLASSES = (1 << 18) - 1, GROUPS = 1 << 30 };
    uint64_t total = 0, run = 0;
    uint32_t classes = 0, length;

    for (uint32_t at = 0; at < size; at += length) {
        const uint32_t c = tfi_utf8_decode(text + at, &length), kind = m->kinds[c < KINDS ? c : 0];
        run = run && kind & classes ? run + 1 : 1;
        if (run == 1) classes = kind & CLASSES;
        if (kind & GROUPS && !(kind & m->kinds[' '] & CLASSES)) total += run; /* spaces it skips at once */
    }
    return total;
}

tf_status tfi_mecab_open(tfi_mecab **out, tfi_memory *memory, const char *folder)
{
    char directory[1024], settings[1024 + sizeof "/dicrc"];
    char name[] = "mecab", d[] = "-d", r[] = "-r";
    /* The dictionary's own settings in place of the mecabrc that it would look for elsewhere. */
    char *arguments[] = {name, d, directory, r, settings};
    tfi_directory opened;
    tfi_files files;
    tf_status status = tfi_files_directory(&files, &opened, folder);
    tfi_mecab *m;

    *out = NULL;
    if (status < 0 || (status = tfi_mecab_check(&files)) < 0) return status;
    if ((size_t)snprintf(directory, sizeof directory, "%s", folder) >= sizeof directory)
        return tfi_fail(TF_STATUS_INVALID, "%.64s...: the dictionary's path is too long", folder);
    snprintf(settings, sizeof settings, "%s/dicrc", folder);
    if (!(m = tfi_zalloc(memory, sizeof *m))) return TF_STATUS_NOMEM;
    if ((status = read_kinds(m, memory, &files)) < 0) {
        tfi_mecab_close(m, memory);
        return status;
    }
    if ((m->model = mecab_model_new(5, arguments)) != NULL) m->tagger = mecab_model_new_tagger(m->model);
    if (m->tagger) return *out = m, TF_STATUS_OK;
    tfi_mecab_close(m, memory);
    return tfi_fail(TF_STATUS_CORRUPT, "%s: libmecab does not open this dictionary", folder);
}

void tfi_mecab_close(tfi_mecab *m, tfi_memory *memory)
{
    if (!m) return;
    if (m->tagger) mecab_destroy(m->tagger);
    if (m->model) mecab_model_destroy(m->model);
    tfi_free(memory, m->kinds, KINDS_BYTES);
    tfi_free(memory, m, sizeof *m);
}

tf_status tfi_mecab_parse(const tfi_mecab *m, void **lattice, const uint8_t *text, uint32_t size)
{
    enum { LOOKS_MAX = 1 << 30, LOOKS_A_BYTE = 64 };

    if (looks(m, text, size) > LOOKS_MAX + (uint64_t)size * LOOKS_A_BYTE)
        return tfi_fail(TF_STATUS_INVALID,
                        "a text of %u bytes has so long runs of characters of one class that MeCab would take too long: "
                        "its time grows with their square",
                        size);
    if (!*lattice && !(*lattice = mecab_model_new_lattice(m->model)))
        return tfi_fail(TF_STATUS_NOMEM, "libmecab has no memory for a text");
    mecab_lattice_set_sentence2(*lattice, (const char *)text, size);
    if (!mecab_parse_lattice(m->tagger, *lattice)) /* the sum of its costs has 31 bits */
        return tfi_fail(TF_STATUS_INVALID, "a text of %u bytes is too long for MeCab: %s", size,
                        mecab_lattice_strerror(*lattice));
    return TF_STATUS_OK;
}

void tfi_mecab_lattice_close(void *lattice)
{
    if (lattice) mecab_lattice_destroy(lattice);
}

int tfi_mecab_next(void *lattice, const void **node, uint32_t *begin, uint32_t *end)
{
    const mecab_node_t *n = *node ? ((const mecab_node_t *)*node)->next : mecab_lattice_get_bos_node(lattice)->next;

    *node = n;
    if (!n || n->stat == MECAB_EOS_NODE) return 0;
    *begin = (uint32_t)(n->surface - mecab_lattice_get_sentence(lattice));
    *end = *begin + n->length;
    return 1;
}

#else

tf_status tfi_mecab_open(tfi_mecab **out, tfi_memory *memory, const char *folder)
{
    (void)memory;
    *out = NULL;
    return tfi_fail(TF_STATUS_UNSUPPORTED, "%s: this build has no MeCab, which needs libmecab", folder);
}

void tfi_mecab_close(tfi_mecab *m, tfi_memory *memory)
{
    (void)m;
    (void)memory;
}

tf_status tfi_mecab_parse(const tfi_mecab *m, void **lattice, const uint8_t *text, uint32_t size)
{
    (void)m;
    (void)lattice;
    (void)text;
    (void)size;
    return TF_STATUS_UNSUPPORTED;
}

void tfi_mecab_lattice_close(void *lattice)
{
    (void)lattice;
}

int tfi_mecab_next(void *lattice, const void **node, uint32_t *begin, uint32_t *end)
{
    (void)lattice;
    (void)node;
    (void)begin;
    (void)end;
    return 0;
}

#endif
