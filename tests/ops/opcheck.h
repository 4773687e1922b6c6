/* What the op tests share: tiers of this machine, functions by tier with a record of which were checked, typed operands,
 * expected values in double. The op files check every function against a computation of their own in double; opcheck.c has
 * main() and fails if a function that some resolve gives was never checked. */
#ifndef OPCHECK_H
#define OPCHECK_H

#include <math.h>

#include "backend/host_ops.h"
#include "check.h"

/* Feature masks this machine has: 0 (the reference), AVX2, AVX-512, AVX-512 with BF16. */
enum { TIERS_MAX = 4 };
extern int tier_count;
extern unsigned tier_features[TIERS_MAX];
extern const char *const tier_names[TIERS_MAX];

/* The function of a tier, or NULL if these types are not supported; remembered as checked. */
tfi_host_fn op_fn(tfi_op_kind kind, tfi_op_types types, int tier);

/* Call fn as `workers` workers would, one after the other, each with scratch of exactly `scratch` bytes full of NaN. */
void op_call(tfi_host_fn fn, const void *args, int workers, int64_t scratch);

/* n random elements in an allocation of exactly their size (so that a sanitizer sees reads outside); freed by op_end(). */
void *op_values(tfi_dtype t, int64_t n, float low, float high);
void *op_zeros(int64_t bytes);
int32_t *op_indices(int64_t n, int32_t limit);
void op_end(void);

/* n elements of NaN between guard bands. */
void *op_out(tfi_dtype t, int64_t n);
double op_get(const void *p, tfi_dtype t, int64_t i);

/* Every row of y within `tolerance` (relative L2) of what is expected; rounding to BF16 comes on top where y is that. */
void op_check_rows(const void *y, tfi_dtype t, const double *expected, int64_t rows, int64_t cols, double tolerance);
/* The same bits. */
void op_check_same(const void *a, const void *b, tfi_dtype t, int64_t n);

/* Magnitude of the inputs of case i: 1e-4, 1, 1e4 in turn. */
float op_magnitude(int i);

/* Seconds that worker `index` of `count` takes alone: the fastest of several runs, each long enough to time. */
double op_seconds(tfi_host_fn fn, const void *args, int64_t scratch, int index, int count);

void check_norm(int argc, char **argv);
void check_embed(int argc, char **argv);
void check_gather(int argc, char **argv);
void check_pool(int argc, char **argv);
void check_l2norm(int argc, char **argv);
void check_linear(int argc, char **argv);
void check_glu(int argc, char **argv);
void check_logprob(int argc, char **argv);
void check_kv_copy(int argc, char **argv);
void check_attention(int argc, char **argv);
void check_attention_store(int argc, char **argv);
void check_draw(int argc, char **argv);
void bench_rows(void);
void bench_attention(void);
void bench_attention_store(void);
void bench_draw(void);

#endif
