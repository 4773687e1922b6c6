/* dump_tensors DIRECTORY: every tensor of a checkpoint, as the library reads it, for a Python test to compare. A line each:
 * name, dtype, contiguous (0 or 1), rank, shape; then, for floating point, the elements as 8 hex digits of their float bits;
 * for others, the stored bytes from the first element to the last, in hex. Fields are separated by tabs. */
#define _POSIX_C_SOURCE 199309L
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "io/source.h"

static void print_floats(const tfi_tensor *t)
{
    const int64_t n = tfi_tensor_elements(t);
    float *values = malloc((size_t)(n ? n : 1) * sizeof *values);

    if (!values || tfi_tensor_to_f32(t, values) != TF_STATUS_OK) {
        fprintf(stderr, "%s: %s\n", t->name, tf_last_error());
        exit(1);
    }
    for (int64_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &values[i], sizeof bits);
        printf("%08x", bits);
    }
    free(values);
}

static void print_tensor(const tfi_tensor *t)
{
    printf("%s\t%s\t%d\t%d\t", t->name, tfi_dtype_name(t->dtype), tfi_tensor_is_contiguous(t), t->rank);
    for (int i = 0; i < t->rank; i++) printf(i ? ",%lld" : "%lld", (long long)t->shape[i]);
    putchar('\t');
    if (t->dtype <= TFI_F64) print_floats(t);
    else
        for (size_t i = 0; i < t->span; i++) printf("%02x", t->data[i]);
    putchar('\n');
}

int main(int argc, char **argv)
{
    tfi_memory memory;
    tfi_directory directory;
    tfi_files files;
    tfi_source source;
    struct timespec begin, end;

    if (argc != 2) {
        fprintf(stderr, "usage: dump_tensors DIRECTORY\n");
        return 2;
    }
    tfi_memory_init(&memory, NULL, TF_UNSET);
    clock_gettime(CLOCK_MONOTONIC, &begin);
    tf_status status = tfi_files_directory(&files, &directory, argv[1]);
    if (status == TF_STATUS_OK) status = tfi_source_open(&source, &memory, &files);
    clock_gettime(CLOCK_MONOTONIC, &end);
    if (status != TF_STATUS_OK) {
        fprintf(stderr, "%s: %s\n", tf_status_string(status), tf_last_error());
        return 1;
    }
    fprintf(stderr, "opened %lld tensors in %.0f us\n", (long long)source.tensor_count,
            (double)(end.tv_sec - begin.tv_sec) * 1e6 + (double)(end.tv_nsec - begin.tv_nsec) * 1e-3);
    for (int64_t i = 0; i < source.tensor_count; i++) print_tensor(&source.tensors[i]);
    tfi_source_close(&source);
    return memory.used != 0;
}
