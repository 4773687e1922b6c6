/* Files by name. A checkpoint is a set of named files; a directory is one such set, a single file another. Tokenizer and
 * weight readers see only this, so that other homes of the same files (memory, an archive) need no change in them. */
#ifndef TFI_BASE_FILES_H
#define TFI_BASE_FILES_H

#include <stddef.h>
#include <stdint.h>

#include <tfinfer/base.h>

/* The bytes of one file: a read-only private mapping, or memory, until tfi_file_close. data is never NULL after success. */
typedef struct tfi_file {
    const uint8_t *data;
    size_t size;
    int mapped; /* data is a mapping whose pages may be given back with tfi_file_drop */
} tfi_file;

typedef struct tfi_files tfi_files;
struct tfi_files {
    /* NOT_FOUND without touching the last error where there is no such file; names are relative, '/' between parts. */
    tf_status (*open)(tfi_files *f, const char *name, tfi_file *out);
    void (*close)(tfi_files *f, tfi_file *file);
    char label[512]; /* for messages: the directory's path */
};

/* The files of the directory `path`. Keeps no descriptor open. NOT_FOUND or IO if it is no readable directory. */
tf_status tfi_files_directory(tfi_files *f, const char *path);

/* As f->open, but a missing file is an error with text. */
tf_status tfi_files_need(tfi_files *f, const char *name, tfi_file *out);

/* Ask the kernel to bring the pages of [begin, begin + size) in ahead of a read, and to give them back after it. */
void tfi_file_fetch(const tfi_file *file, size_t begin, size_t size);
void tfi_file_drop(const tfi_file *file, size_t begin, size_t size);

#endif
