/* Passes over a row of logits, written so that compilers turn them into vector code: loops of fixed length over blocks, integer
 * arithmetic where that of floats may not be reordered, and an exponential without branches. */
#include "backend/ref/softmax.h"

#include <math.h>
#include <string.h>

static inline int32_t bits_of(float v)
{
    int32_t bits;
    memcpy(&bits, &v, sizeof bits);
    return bits;
}

static inline float float_of(uint32_t bits)
{
    float v;
    memcpy(&v, &bits, sizeof v);
    return v;
}

int tfi_row_invalid(const float *x, int64_t n)
{
    int32_t bad = 0;

    for (int64_t i = 0; i < n; i++) {
        const int32_t bits = bits_of(x[i]);
        bad |= (bits & 0x7fffffff) > 0x7f800000 || bits == 0x7f800000;
    }
    return bad;
}

float tfi_row_max(const float *x, int64_t n)
{
    int32_t best = INT32_MIN;

    for (int64_t i = 0; i < n; i++) { /* as integers, negative numbers with their order reversed, floats compare alike */
        const int32_t bits = bits_of(x[i]), key = bits ^ ((bits >> 31) & 0x7fffffff);
        best = key > best ? key : best;
    }
    best ^= (best >> 31) & 0x7fffffff;
    return n > 0 ? float_of((uint32_t)best) : -INFINITY;
}

int64_t tfi_row_first(const float *x, int64_t n, float value)
{
    int64_t i = 0;

    for (; i + TFI_EXP_BLOCK <= n; i += TFI_EXP_BLOCK) {
        int32_t found = 0;
        for (int k = 0; k < TFI_EXP_BLOCK; k++) found |= x[i + k] == value;
        if (found) break;
    }
    while (i < n && !(x[i] == value)) i++;
    return i < n ? i : 0;
}

/* exp(v) for v in [lowest, 0], as 2^k * exp(rest), |rest| <= ln(2)/2; the polynomial is that of Cephes' expf (Moshier), good to
 * 2 units in the last place. NaN stays NaN. */
static const float lowest = -88; /* whose 2^k, with k = -127, comes out as 0 */

static inline float exp_of(float v)
{
    const float round = 12582912; /* adding 1.5 * 2^23 rounds to a whole number, which is then in the lowest bits */
    const float shifted = v * 1.44269504f + round, k = shifted - round;
    const float r = v - k * 0.693359375f - k * -2.12194440e-4f;
    float p = 1.9875691500e-4f;

    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1;
    return p * float_of(((uint32_t)bits_of(shifted) + 127) << 23);
}

/* There are only -infinities. */
static int is_empty(const float x[TFI_EXP_BLOCK])
{
    int32_t any = 0;

    for (int i = 0; i < TFI_EXP_BLOCK; i++) any |= !(x[i] <= -INFINITY);
    return !any;
}

double tfi_exp_block(const float *x, int64_t n, float max, float e[TFI_EXP_BLOCK])
{
    float part[TFI_EXP_BLOCK];
    double sums[4] = {0};

    if (n < TFI_EXP_BLOCK) {
        for (int i = 0; i < TFI_EXP_BLOCK; i++) part[i] = i < n ? x[i] : -INFINITY;
        x = part;
    }
    if (is_empty(x)) { /* like most of a row, once it is filtered */
        memset(e, 0, TFI_EXP_BLOCK * sizeof *e);
        return 0;
    }
    /* Two loops: in one, compilers branch around the exponential of the lowest number, and vectorise nothing. */
    for (int i = 0; i < TFI_EXP_BLOCK; i++) e[i] = x[i] - max < lowest ? lowest : x[i] - max;
    for (int i = 0; i < TFI_EXP_BLOCK; i++) e[i] = exp_of(e[i]);
    for (int i = 0; i < TFI_EXP_BLOCK; i += 4) {
        for (int k = 0; k < 4; k++) sums[k] += (double)e[i + k];
    }
    return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

double tfi_row_sum_exp(const float *x, int64_t n, float max)
{
    float e[TFI_EXP_BLOCK];
    double sum = 0;

    for (int64_t i = 0; i < n; i += TFI_EXP_BLOCK)
        sum += tfi_exp_block(x + i, n - i < TFI_EXP_BLOCK ? n - i : TFI_EXP_BLOCK, max, e);
    return sum;
}

double tfi_row_log_sum_exp(const float *x, int64_t n)
{
    const float max = tfi_row_max(x, n);
    return (double)max + log(tfi_row_sum_exp(x, n, max));
}

void tfi_log_softmax(float *x, int64_t n)
{
    const float max = tfi_row_max(x, n), sum = (float)log(tfi_row_sum_exp(x, n, max));
    for (int64_t i = 0; i < n; i++) x[i] = x[i] - max - sum;
}
