/* What the readers of weight files share with source.c. A reader adds the tensors of one file to a source's table; its error
 * texts name tensor and value, and source.c puts the file's name in front. */
#ifndef TFI_IO_WEIGHTS_H
#define TFI_IO_WEIGHTS_H

#include "io/source.h"

/* Add the tensors that s->files.source hands over, if any. */
tf_status tfi_host_tensors_read(tfi_source *s);

/* Add `view`: its data and span are the storage that it is a view of, beginning `offset` elements in. Refuses a view that
 * leaves the storage, a negative stride, an absurd shape. The name is copied. */
tf_status tfi_source_add(tfi_source *s, const tfi_tensor *view, int64_t offset, const char *name, size_t name_size);

tf_status tfi_safetensors_read(tfi_source *s, const tfi_file *file);
tf_status tfi_torch_read(tfi_source *s, const tfi_file *file);

/* Text of a file for an error message: at most 100 bytes, '?' for what is not printable ASCII. */
typedef struct tfi_shown {
    char text[104];
} tfi_shown;
tfi_shown tfi_show(const char *text, size_t size);

static inline tfi_shown tfi_show_name(const char *name)
{
    return tfi_show(name, strlen(name));
}

/* Little-endian numbers at any address. */
static inline uint32_t tfi_read_u16(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8;
}

static inline uint32_t tfi_read_u32(const uint8_t *p)
{
    return tfi_read_u16(p) | tfi_read_u16(p + 2) << 16;
}

static inline uint64_t tfi_read_u64(const uint8_t *p)
{
    return tfi_read_u32(p) | (uint64_t)tfi_read_u32(p + 4) << 32;
}

#endif
