/* LOGPROB, vectorised; meaning: backend/ref/logprob.c. Two passes over a row: its maximum, then the sum of exponentials, in
 * pieces whose sums are added in double, so that a large vocabulary costs no accuracy. */
#include <math.h>

enum { LOGPROB_PIECE = 2048 };

TFI_INLINE float logprob_max(const float *x, int64_t V)
{
    const int64_t whole = V - V % VEC;
    vec max = vec_set(x[0]);

    for (int64_t i = 0; i < whole; i += VEC) max = vec_max(max, vec_load(x + i));
    if (whole < V) max = vec_max(max, vec_keep(vec_load_part(x + whole, V - whole), V - whole, x[0]));
    return vec_max_lane(max);
}

/* sum of e^(x - max) */
TFI_INLINE float logprob_sum(const float *x, int64_t n, vec max)
{
    const vec per_nat = vec_set(1.44269504f);
    const int64_t whole = n - n % VEC;
    vec sum = vec_set(0);

    for (int64_t i = 0; i < whole; i += VEC) sum += exp2_vec((vec_load(x + i) - max) * per_nat);
    if (whole < n) sum += vec_keep(exp2_vec((vec_load_part(x + whole, n - whole) - max) * per_nat), n - whole, 0);
    return vec_sum(sum);
}

static void logprob(const void *args, const tfi_worker *w)
{
    const tfi_logprob_args copy = *(const tfi_logprob_args *)args, *a = &copy;
    int64_t begin, end;

    tfi_share(w, a->S, &begin, &end);
    for (int64_t s = begin; s < end; s++) {
        const float *x = a->x + s * a->V;
        double sum = 0;

        a->y[s] = 0;
        if (a->targets[s] < 0) continue;
        const float max = logprob_max(x, a->V);
        for (int64_t i = 0; i < a->V; i += LOGPROB_PIECE)
            sum += (double)logprob_sum(x + i, a->V - i < LOGPROB_PIECE ? a->V - i : LOGPROB_PIECE, vec_set(max));
        a->y[s] = (float)((double)x[a->targets[s]] - (double)max - log(sum));
    }
}
