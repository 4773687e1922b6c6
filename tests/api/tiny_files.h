/* Files of a made-up checkpoint. Every function ends the program if it cannot do its work. */
#ifndef TFC_TINY_FILES_H
#define TFC_TINY_FILES_H

#include <stdint.h>
#include <stdio.h>

FILE *tiny_create(const char *folder, const char *name);
void tiny_write_text(const char *folder, const char *name, const char *text);

/* model.safetensors: 8 bytes of header size, a JSON header, the data. */
typedef struct tiny_weights {
    char *header, *bytes;
    size_t header_size, byte_count;
    FILE *head, *data;
    int64_t offset;
} tiny_weights;

void tiny_weights_begin(tiny_weights *w);
/* A matrix, or a vector where rows is 0, of numbers in [middle - spread, middle + spread]. */
void tiny_weights_add(tiny_weights *w, const char *name, int rows, int cols, float middle, float spread);
void tiny_weights_end(tiny_weights *w, const char *folder);

#endif
