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

static tf_status open_held(void *user, const char *name, tf_file *out)
{
    (void)user;
    for (int i = 0; i < HELD_FILES; i++) {
        if (!held[i].name || strcmp(name, held[i].name) != 0) continue;
        out->data = held[i].data ? held[i].data : (const uint8_t *)"";
        out->size = (int64_t)held[i].size;
        return TF_STATUS_OK;
    }
    return TF_STATUS_NOT_FOUND;
}

#endif
