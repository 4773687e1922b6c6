/* Files by name. A checkpoint is a set of named files, which a host hands over in a tf_source (tfinfer/source.h); a directory is
 * a source whose callbacks are here. Tokenizer and weight readers see only this. */
#ifndef TFI_BASE_FILES_H
#define TFI_BASE_FILES_H

#include <stddef.h>
#include <stdint.h>

#include <tfinfer/base.h>
#include <tfinfer/source.h>

/* The bytes of one file: a read-only private mapping, or memory, until tfi_files_close. data is never NULL after success. */
typedef struct tfi_file {
    const uint8_t *data;
    size_t size;
    int mapped;    /* data lies in a mapping whose pages may be given back with tfi_file_drop */
    tf_file given; /* what file_close takes back */
} tfi_file;

/* The files of a source, or of one folder of it. May be copied. */
typedef struct tfi_files {
    tf_source source;
    char folder[66]; /* goes before each name: "2_Dense/", or "" */
    char label[600]; /* for messages: a directory's path */
} tfi_files;

enum { TFI_FOLDER_MAX = 64 }; /* bytes of a folder's name, less than */

/* A source's struct as the caller filled it, of any version; what else is wrong with it tfi_files_of() tells. */
tf_status tfi_source_copy(tf_source *out, const tf_source *given);
tf_status tfi_files_of(tfi_files *f, const tf_source *source);
void tfi_source_released(const tf_source *source); /* nothing of it is needed any more */

/* The files of the directory `path`; `d` must stay where it is as long as they are used. NOT_FOUND or IO if it is no readable
 * directory. */
typedef struct tfi_directory {
    char path[512], error[128];
} tfi_directory;
tf_status tfi_files_directory(tfi_files *f, tfi_directory *d, const char *path);

/* Those of a folder of it, "" for itself. */
void tfi_files_folder(tfi_files *f, const tfi_files *of, const char *folder);

/* NOT_FOUND without touching the last error where there is no such file; names are relative, '/' between parts. */
tf_status tfi_files_open(const tfi_files *f, const char *name, tfi_file *out);
void tfi_files_close(const tfi_files *f, tfi_file *file);

/* The same, but a missing file is an error with text. */
tf_status tfi_files_need(const tfi_files *f, const char *name, tfi_file *out);

/* What a callback of a source returned, other than OK: passed on with its text or, if it is no status at all, INVALID. */
tf_status tfi_source_failed(const char *label, const char *what, tf_status status, const char *error);

/* Ask the kernel to bring the pages of [begin, begin + size) in ahead of a read, and to give them back after it. */
void tfi_file_fetch(const tfi_file *file, size_t begin, size_t size);
void tfi_file_drop(const tfi_file *file, size_t begin, size_t size);

#endif
