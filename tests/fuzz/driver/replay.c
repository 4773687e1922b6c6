/* Runs a libFuzzer target without libFuzzer: once on no bytes at all, then on every file named or found in a folder named. */
#define _GNU_SOURCE
#include <ftw.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int inputs;

static int replay(const char *path, const struct stat *info, int kind, struct FTW *where)
{
    (void)where;
    if (kind != FTW_F) return 0;
    const size_t size = (size_t)info->st_size;
    uint8_t *data = malloc(size ? size : 1); /* exactly as long as the input, so that sanitizers see an overrun */
    FILE *f = fopen(path, "rb");
    if (!data || !f || fread(data, 1, size, f) != size) {
        perror(path);
        exit(2);
    }
    fclose(f);
    LLVMFuzzerTestOneInput(data, size);
    free(data);
    inputs++;
    return 0;
}

int main(int argc, char **argv)
{
    static const uint8_t nothing[1];

    LLVMFuzzerTestOneInput(nothing, 0);
    for (int i = 1; i < argc; i++) {
        struct stat info;
        if (stat(argv[i], &info) == 0) nftw(argv[i], replay, 16, FTW_PHYS);
    }
    printf("%d inputs replayed\n%d passed, 0 failed\n", inputs, inputs + 1);
    return 0;
}
