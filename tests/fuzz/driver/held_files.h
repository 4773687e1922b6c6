/* The input of a fuzz target as a set of named files in memory. */
#ifndef TFC_HELD_FILES_H
#define TFC_HELD_FILES_H

#include <string.h>

#include "base/files.h"

enum { HELD_FILES = 5 };

static struct {
    const char *name; /* NULL: no file */
    const uint8_t *data;
    size_t size;
} held[HELD_FILES];

static tf_status open_held(tfi_files *f, const char *name, tfi_file *out)
{
    (void)f;
    for (int i = 0; i < HELD_FILES; i++) {
        if (!held[i].name || strcmp(name, held[i].name) != 0) continue;
        *out = (tfi_file){.data = held[i].data, .size = held[i].size};
        return TF_STATUS_OK;
    }
    return TF_STATUS_NOT_FOUND;
}

static void close_held(tfi_files *f, tfi_file *file)
{
    (void)f;
    memset(file, 0, sizeof *file);
}

#endif
