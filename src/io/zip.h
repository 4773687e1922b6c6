/* The directory of a zip archive of stored (not compressed) entries, with or without the zip64 fields for 4 GB and more. */
#ifndef TFI_IO_ZIP_H
#define TFI_IO_ZIP_H

#include "base/memory.h"
#include "io/source.h"

typedef struct tfi_zip_entry {
    const char *name; /* in the file, name_size bytes; without the top folder, which may have any name */
    size_t name_size;
    uint32_t method, flags;
    uint64_t stored_size, size, header_at;
} tfi_zip_entry;

typedef struct tfi_zip {
    const tfi_file *file;
    tfi_zip_entry *entries; /* sorted by name, no name twice */
    size_t count;
} tfi_zip;

/* The entries live in `arena`. CORRUPT, NOMEM. */
tf_status tfi_zip_open(tfi_arena *arena, const tfi_file *file, tfi_zip *out);

/* The bytes of the entry `folder` + `name`. NOT_FOUND without touching the last error; CORRUPT; UNSUPPORTED if compressed. */
tf_status tfi_zip_find(const tfi_zip *zip, const char *folder, const char *name, size_t name_size, const uint8_t **data,
                       size_t *size);

#endif
