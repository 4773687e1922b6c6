/* Which function of the matrix library computes a class of products, kept in memory and, where the options name one, in a file.
 *
 * The file is text of one version: a title; the device and the library that the choices hold for (others' are their own
 * business); a line a class with M N K, the dtypes of x and y, epilogue, residual, and the numbers that name the function to
 * the library; the FNV-1a sum of all before. What is read never reaches the library: a choice holds if a function of that name
 * is among those that the library suggests for the class. */
#ifndef TFI_BACKEND_CUDA_GEMM_CHOICES_H
#define TFI_BACKEND_CUDA_GEMM_CHOICES_H

#include <stddef.h>
#include <stdint.h>

#include "base/memory.h"

enum { TFI_GEMM_CLASSES = 1024, TFI_GEMM_CONFIG = 9, TFI_GEMM_RECORD = 64 /* bytes */ };

typedef struct tfi_gemm_shape {
    int64_t M, N, K; /* M rounded up as programs do */
    int32_t type, out, epilogue, residual;
} tfi_gemm_shape;

typedef enum tfi_gemm_state {
    TFI_GEMM_FREE = 0,    /* nothing is known of the class */
    TFI_GEMM_REFUSED = 1, /* the library has no function */
    TFI_GEMM_FIRST = 2,   /* its first suggestion, not timed */
    TFI_GEMM_TIMED = 3,   /* the fastest; goes into the file */
    TFI_GEMM_READ = 4     /* out of the file, not met yet; goes back into it */
} tfi_gemm_state;

typedef struct tfi_gemm_choice {
    tfi_gemm_shape shape;
    tfi_gemm_state state;
    uint32_t config[TFI_GEMM_CONFIG];      /* the function's name, of TIMED and READ */
    unsigned char record[TFI_GEMM_RECORD]; /* the function, as the library has it; of FIRST and TIMED */
} tfi_gemm_choice;

/* A hash table; zero is empty. */
typedef struct tfi_gemm_choices {
    tfi_gemm_choice at[TFI_GEMM_CLASSES];
} tfi_gemm_choices;

/* What choices hold for. */
typedef struct tfi_gemm_origin {
    char device[128]; /* its name, one line */
    int32_t capability, multiprocessors;
    int64_t library; /* version of the matrix library */
} tfi_gemm_origin;

/* The class's place, or the free one where it goes; NULL: the table is full. */
tfi_gemm_choice *tfi_gemm_choices_find(tfi_gemm_choices *c, const tfi_gemm_shape *s);

/* Take the choices of a file's text; NULL, or why none was taken: static words. Any bytes. */
const char *tfi_gemm_choices_parse(tfi_gemm_choices *c, const tfi_gemm_origin *o, const char *text, size_t size);

/* The same of a file, if there is one; *why is NULL or says why none was taken. *ours: there is no such file, or it is one of
 * choices, whosever: it may be replaced. NOMEM. */
tf_status tfi_gemm_choices_read(tfi_gemm_choices *c, const tfi_gemm_origin *o, const char *path, tfi_memory *memory,
                                const char **why, int *ours);

/* Replace the file in one go: who reads it finds the old or the new one, whole. IO, with text. */
tf_status tfi_gemm_choices_write(const tfi_gemm_choices *c, const tfi_gemm_origin *o, const char *path);

#endif
