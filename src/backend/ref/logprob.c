/* LOGPROB, plain C: the log-softmax of a row at its target, in double. fp32 alone. */
#include <math.h>

#include "backend/ref/ref.h"
#include "backend/rows.h"

static void logprob(const void *args, const tfi_worker *w)
{
    const tfi_logprob_args *a = args;
    int64_t begin, end;

    tfi_share(w, a->S, &begin, &end);
    for (int64_t s = begin; s < end; s++) {
        const float *x = a->x + s * a->V;
        double max = (double)x[0], sum = 0;

        a->y[s] = 0;
        if (a->targets[s] < 0) continue;
        for (int64_t i = 1; i < a->V; i++) max = (double)x[i] > max ? (double)x[i] : max;
        for (int64_t i = 0; i < a->V; i++) sum += exp((double)x[i] - max);
        a->y[s] = (float)((double)x[a->targets[s]] - max - log(sum));
    }
}

tfi_host_fn tfi_ref_logprob(tfi_op_types t)
{
    return t.x == TFI_F32 && t.residual == TFI_F32 && t.y == TFI_F32 ? logprob : NULL;
}
