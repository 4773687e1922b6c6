/* Op functions that run on host memory: the plain-C reference of every op (src/backend/ref) and the vectorised tiers that
 * overwrite it (src/backend/cpu). One function type serves both, so that any test can set one against the other. */
#ifndef TFI_BACKEND_HOST_OPS_H
#define TFI_BACKEND_HOST_OPS_H

#include "backend/ops.h"

/* What a processor offers; an argument everywhere, so that a test can ask for any tier. */
enum {
    TFI_CPU_AVX2 = 1,        /* with FMA and F16C */
    TFI_CPU_AVX512 = 2,      /* F, BW, DQ, VL */
    TFI_CPU_AVX512_BF16 = 4
};
unsigned tfi_cpu_features(void);

/* One of several threads that call the same function with the same arguments at the same time: each does its share. */
typedef struct tfi_worker {
    int index, count;    /* index in [0, count) */
    void *scratch;       /* of this worker alone, 64-byte aligned, tfi_host_scratch() bytes */
} tfi_worker;

/* args points to the argument struct of the op's kind. */
typedef void (*tfi_host_fn)(const void *args, const tfi_worker *w);

/* Operand types a function is resolved for; operands an op lacks are TFI_F32. For EMBED x is the tables' type. */
typedef struct tfi_op_types {
    tfi_dtype x, residual, y;
} tfi_op_types;

/* The reference: every op kind, any of F32 and BF16 for each operand; NULL for other types. LINEAR reads layout 0 only. */
tfi_host_fn tfi_ref_resolve(tfi_op_kind kind, tfi_op_types types);

/* The fastest function for these features; falls back to the reference. LINEAR is not here: src/backend/cpu/linear.h. */
tfi_host_fn tfi_cpu_resolve(tfi_op_kind kind, tfi_op_types types, unsigned features);

/* Scratch bytes a worker needs for `op` when no sequence is longer than max_tokens; 0 for most. */
int64_t tfi_host_scratch(const tfi_graph *g, const tfi_op *op, int64_t max_tokens);

#endif
