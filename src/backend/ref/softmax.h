/* What the ops on rows of logits are made of: maxima, sums of exponentials, and the numbers that must not be there. */
#ifndef TFI_BACKEND_REF_SOFTMAX_H
#define TFI_BACKEND_REF_SOFTMAX_H

#include <stdint.h>

enum { TFI_EXP_BLOCK = 64 };

/* Some number is NaN or +infinity. */
int tfi_row_invalid(const float *x, int64_t n);

/* The largest number and the first place it has; -infinity and 0 if all are that. NaN is not looked for. */
float tfi_row_max(const float *x, int64_t n);
int64_t tfi_row_first(const float *x, int64_t n, float value);

/* e[i] = exp(x[i] - max) for n <= TFI_EXP_BLOCK numbers of at most max, 0 below the range of float; their sum in an order of
 * its own. */
double tfi_exp_block(const float *x, int64_t n, float max, float e[TFI_EXP_BLOCK]);

/* sum of exp(x[i] - max), and the logarithm of the sum of exp(x[i]); NaN where the row is invalid. */
double tfi_row_sum_exp(const float *x, int64_t n, float max);
double tfi_row_log_sum_exp(const float *x, int64_t n);

/* In place, in the arithmetic of torch: float, but for the sum. */
void tfi_log_softmax(float *x, int64_t n);

#endif
