/* For the tests of the weight readers: files built byte by byte, and what opening them must give. */
#ifndef TFC_WEIGHT_FILES_H
#define TFC_WEIGHT_FILES_H

#include <stdlib.h>
#include <sys/stat.h>

#include "check.h"
#include "io/source.h"

/* A file being written. */
typedef struct bytes {
    uint8_t data[1 << 16];
    size_t size;
} bytes;

static inline void put(bytes *b, const void *data, size_t size)
{
    if (size > sizeof b->data - b->size) exit(2);
    memcpy(b->data + b->size, data, size);
    b->size += size;
}

static inline void put_number(bytes *b, uint64_t n, size_t size)
{
    for (; size > 0; size--, n >>= 8) put(b, &(uint8_t){(uint8_t)n}, 1);
}

static inline void put_text(bytes *b, const char *text)
{
    put(b, text, strlen(text));
}

static const char *directory; /* of the case that runs */

static inline void fresh_directory(void)
{
    static char path[512];
    static int count;
    char name[32];

    snprintf(name, sizeof name, "source%d", count++);
    snprintf(path, sizeof path, "%s", check_path(name));
    if (mkdir(path, 0700) != 0) exit(2);
    directory = path;
}

static inline void write_file(const char *name, const void *data, size_t size)
{
    char path[600];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    check_write(path, data, size);
}

/* No mapping of a file of the directory may be left. */
static inline void check_unmapped(void)
{
    char line[1024];
    FILE *maps = fopen("/proc/self/maps", "r");
    int left = 0;

    while (maps && fgets(line, sizeof line, maps)) left += strstr(line, directory) != NULL;
    if (maps) fclose(maps);
    CHECK_INT(left, 0);
}

/* Open with a counting allocator, which must be empty after close or failure. */
static check_memory counted;
static tfi_memory memory;

static inline tf_status open_directory(tfi_source *s)
{
    static tfi_directory opened;
    tfi_files files;
    const tf_status status = tfi_files_directory(&files, &opened, directory);

    return status < 0 ? status : tfi_source_open(s, &memory, &files);
}

static inline tf_status open_source(tfi_source *s)
{
    check_memory_init(&counted);
    tfi_memory_init(&memory, &counted.hooks, TF_UNSET);
    const tf_status status = open_directory(s);
    if (status < 0) {
        check_unmapped();
        CHECK_INT(counted.live_blocks, 0);
        CHECK_INT(memory.used, 0);
    }
    return status;
}

static inline void close_source(tfi_source *s)
{
    tfi_source_close(s);
    check_unmapped();
    CHECK_INT(counted.live_blocks, 0);
}

static inline void expect_failure(const char *name, const bytes *b, tf_status status, const char *says)
{
    tfi_source s;

    write_file(name, b->data, b->size);
    CHECK_STATUS(open_source(&s), status);
    CHECK_ERROR_SAYS(name);
    CHECK_ERROR_SAYS(says);
}

/* Every proper prefix of a good file is CORRUPT. */
static inline void expect_no_prefix(const char *name, const bytes *b)
{
    tfi_source s;

    for (size_t size = 0; size < b->size; size++) {
        write_file(name, b->data, size);
        CHECK_STATUS(open_source(&s), TF_STATUS_CORRUPT);
    }
}

/* Any status may come of a changed byte; the sanitizers and the leak check judge. What opens must also convert. */
static inline void expect_survival(const char *name, bytes *b, int rounds)
{
    static float out[1 << 16];
    tfi_source s;

    for (int r = 0; r < rounds; r++) {
        const size_t at = check_random() % b->size;
        const uint8_t kept = b->data[at];
        b->data[at] = check_random() % 2 ? (uint8_t)check_random() : (uint8_t)(kept ^ 1 << check_random() % 8);
        write_file(name, b->data, b->size);
        if (open_source(&s) == TF_STATUS_OK) {
            for (int64_t i = 0; i < s.tensor_count; i++)
                if (tfi_tensor_elements(&s.tensors[i]) <= 1 << 16) (void)tfi_tensor_to_f32(&s.tensors[i], out);
            close_source(&s);
        }
        b->data[at] = kept;
    }
}

/* Failing allocation 1, 2, ... gives NOMEM and nothing live, until none is left to fail. */
static inline void expect_nomem(void)
{
    tfi_source s;

    for (int n = 1;; n++) {
        check_memory_init(&counted);
        counted.fail_at = n;
        tfi_memory_init(&memory, &counted.hooks, TF_UNSET);
        const tf_status status = open_directory(&s);
        if (status == TF_STATUS_OK) {
            CHECK(!counted.fail_hit);
            CHECK(n > 1);
            close_source(&s);
            return;
        }
        CHECK_STATUS(status, TF_STATUS_NOMEM);
        CHECK_INT(counted.live_blocks, 0);
        if (n > 1000) return;
    }
}

#endif
