/* write_tiny_model FOLDER: the tests' tiny sentence-embedding model, for scripts that need a checkpoint without Python. */
#include <stdio.h>

#include "../tiny_model.h"

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: write_tiny_model FOLDER\n");
        return 2;
    }
    tiny_model_write(argv[1], TINY_BASE);
    return 0;
}
