#define _GNU_SOURCE
#include "tiny_files.h"

#include <stdlib.h>

#include "check.h"

FILE *tiny_create(const char *folder, const char *name)
{
    char path[600];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "wb");
    if (!f) {
        perror(path);
        exit(2);
    }
    return f;
}

void tiny_write_text(const char *folder, const char *name, const char *text)
{
    FILE *f = tiny_create(folder, name);
    fputs(text, f);
    fclose(f);
}

void tiny_weights_begin(tiny_weights *w)
{
    memset(w, 0, sizeof *w);
    w->head = open_memstream(&w->header, &w->header_size);
    w->data = open_memstream(&w->bytes, &w->byte_count);
}

void tiny_weights_add(tiny_weights *w, const char *name, int rows, int cols, float middle, float spread)
{
    const int64_t count = (int64_t)(rows ? rows : 1) * cols, bytes = count * 4;

    fprintf(w->head, "%s\"%s\":{\"dtype\":\"F32\",\"shape\":[", w->offset ? "," : "{", name);
    if (rows) fprintf(w->head, "%d,", rows);
    fprintf(w->head, "%d],\"data_offsets\":[%lld,%lld]}", cols, (long long)w->offset, (long long)(w->offset + bytes));
    for (int64_t i = 0; i < count; i++) {
        const float v = check_uniform(middle - spread, middle + spread);
        fwrite(&v, sizeof v, 1, w->data);
    }
    w->offset += bytes;
}

void tiny_weights_end(tiny_weights *w, const char *folder)
{
    fputc('}', w->head);
    fclose(w->head);
    fclose(w->data);

    FILE *f = tiny_create(folder, "model.safetensors");
    const uint64_t size = w->header_size; /* little-endian, as the hosts of these tests are */
    fwrite(&size, sizeof size, 1, f);
    fwrite(w->header, 1, w->header_size, f);
    fwrite(w->bytes, 1, w->byte_count, f);
    fclose(f);
    free(w->header);
    free(w->bytes);
}
