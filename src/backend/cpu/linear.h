/* LINEAR on the CPU. oneDNN computes tiles of x W^T into a small buffer of sums (few_tmpl.h where there are few rows); what
 * comes after (bias, activation, residual, rounding) is done by functions of ours on the tile while it is in the first-level
 * cache. So a oneDNN primitive depends on nothing but the tile's shape and K: a model needs a dozen of them, whatever its ops,
 * outputs and row counts are.
 *
 * Weights lie in blocks of 64 outputs, the inputs of a block interleaved so that the innermost loop reads whole vectors: the
 * form that oneDNN's AVX-512 kernels want (its tags BA16a64b and BA16a64b2a). Any slice of whole blocks is a weight of its own,
 * which is how the work is cut along outputs. Where oneDNN has no such kernels the form is plain row-major. */
#ifndef TFI_BACKEND_CPU_LINEAR_H
#define TFI_BACKEND_CPU_LINEAR_H

#include <stdatomic.h>

#include "backend/host_ops.h"
#include "base/memory.h"

/* Values of tfi_weight_form.layout; both packed ones are arrays of 32-bit units [blocks of outputs][units][TFI_BLOCK], a unit
 * being one fp32 input or two neighbouring bf16 inputs. Missing outputs and inputs are zeros. */
enum { TFI_LAYOUT_PLAIN = 0, TFI_LAYOUT_PACKED_F32 = 1, TFI_LAYOUT_PACKED_BF16 = 2 };

enum {
    TFI_BLOCK = 64,      /* outputs in a block */
    TFI_TILE_ROWS = 64,  /* rows of x in a tile */
    TFI_TILE_COLS = 128, /* outputs in a tile, but 64 where there is little work to share out */
    TFI_FEW_ROWS = 16    /* up to here a product streams weights and nothing else counts: a function of ours does it */
};

/* Units of one output of a packed form: oneDNN wants K in whole groups of 16 units. */
static inline int64_t tfi_packed_units(int32_t layout, int64_t K)
{
    return layout == TFI_LAYOUT_PACKED_F32 ? (K + 15) / 16 * 16 : (K + 31) / 32 * 16;
}

/* ---- what comes after the product, and before it when weights are loaded, by tier (linear_tmpl.h) ---- */

typedef struct tfi_linear_tile {
    const float *sums; /* [rows, stride], a multiple of TFI_BLOCK wide */
    int64_t rows, cols, stride;
    const float *bias;    /* [cols] or NULL */
    const void *residual; /* [rows, y_stride] in y's dtype, or NULL */
    void *y;              /* [rows, y_stride] */
    int64_t y_stride;
} tfi_linear_tile;

typedef void (*tfi_linear_finish)(const tfi_linear_tile *t);

/* `then`: the block that this worker reads next, so that its stream of weights does not stop in between; or NULL. */
typedef void (*tfi_linear_few)(const void *x, int64_t rows, int64_t K, const uint32_t *block, const uint32_t *then, float *sums);

/* Of the tiers that have no better: plain C, and AVX512_BF16's. */
void tfi_few_bf16_plain(const void *x, int64_t rows, int64_t K, const uint32_t *block, const uint32_t *then, float *sums);
void tfi_few_bf16_avx512(const void *x, int64_t rows, int64_t K, const uint32_t *block, const uint32_t *then, float *sums);

typedef struct tfi_linear_tier {
    tfi_linear_finish finish[TFI_ACT_COUNT][2]; /* by activation and dtype of y: F32, BF16 */
    /* out [units][TFI_BLOCK] from TFI_BLOCK rows of `units` 32-bit units that lie row_bytes apart */
    void (*pack)(const void *rows, int64_t row_bytes, int64_t units, uint32_t *out);
    /* fp32 to bf16; floats may be unaligned */
    void (*round)(const void *floats, int64_t n, uint16_t *out);
    /* by dtype: sums [rows, TFI_BLOCK] of up to TFI_FEW_ROWS rows of x [rows, K] with one block of a packed form */
    tfi_linear_few few[2];
} tfi_linear_tier;

extern const tfi_linear_tier tfi_linear_plain, tfi_linear_avx2, tfi_linear_avx512;
const tfi_linear_tier *tfi_linear_tier_for(unsigned features);

/* ---- the op ---- */

/* The engine, and for each worker its own primitives: no lock anywhere, also not after a fork. */
typedef struct tfi_linear tfi_linear;

tf_status tfi_linear_open(tfi_memory *memory, int workers, unsigned features, tfi_linear **out);
void tfi_linear_close(tfi_linear *l);

/* The form for a matrix of this dtype that LINEAR reads. */
int32_t tfi_linear_layout(const tfi_linear *l, tfi_dtype dtype);

/* Scratch of a worker, whatever the op. */
int64_t tfi_linear_scratch(void);

/* Called by all workers. x has the weight's dtype. `taken` counts the tiles that are taken of each worker's share, and
 * starts with zeros. NOMEM, or UNSUPPORTED or
 * INTERNAL where oneDNN refuses. */
tf_status tfi_linear_run(tfi_linear *l, const tfi_linear_args *a, tfi_dtype y, const tfi_worker *w, _Atomic int64_t *taken /* [workers] */);

#endif
