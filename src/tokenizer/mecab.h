/* MeCab, which splits Japanese into words, behind one seam: the only place that knows libmecab. Built where libmecab is found. */
#ifndef TFI_TOKENIZER_MECAB_H
#define TFI_TOKENIZER_MECAB_H

#include <stddef.h>
#include <stdint.h>

#include "base/files.h"
#include "base/memory.h"

typedef struct tfi_mecab tfi_mecab;

enum { TFI_MECAB_TEXT_MAX = 1 << 24 }; /* bytes of one text: MeCab takes a few hundred bytes of memory for each of them */

/* Open the dictionary in `folder`. No mecabrc and no environment variable is read. Its files are checked first, because libmecab
 * trusts what they say. OK, NOT_FOUND or CORRUPT (a file is named), UNSUPPORTED (built without libmecab, or what the dictionary
 * asks for), NOMEM. */
tf_status tfi_mecab_open(tfi_mecab **out, tfi_memory *memory, const char *folder);
void tfi_mecab_close(tfi_mecab *m, tfi_memory *memory);

/* Split text[0, size), at most TFI_MECAB_TEXT_MAX bytes of UTF-8 without a NUL; the words are read one by one with
 * tfi_mecab_next. *lattice is the thread's working memory, libmecab's own: NULL at first, freed by tfi_mecab_lattice_close. OK,
 * NOMEM, or INVALID: a text that is too much for libmecab, whose costs have 31 bits and whose time grows with the square of a run of
 * characters of one class. */
tf_status tfi_mecab_parse(const tfi_mecab *m, void **lattice, const uint8_t *text, uint32_t size);
void tfi_mecab_lattice_close(void *lattice);

/* The next word, without the spaces before it; *node is NULL at first. 0 at the end. */
int tfi_mecab_next(void *lattice, const void **node, uint32_t *begin, uint32_t *end);

/* mecab_files.c: whether libmecab can walk the dictionary's files without leaving them. OK, NOT_FOUND, CORRUPT, UNSUPPORTED. */
tf_status tfi_mecab_check(const tfi_files *files);

#endif
