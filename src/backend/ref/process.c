/* LOGITS_PROCESS, plain C: what a request asks of its logits, row by row; the processors themselves are in process_constrain.c
 * and process_warp.c. */
#include "backend/ref/process.h"
#include "backend/ref/ref.h"
#include "backend/rows.h"

static void process(const void *args, const tfi_worker *w)
{
    const tfi_process_args *a = args;
    int64_t begin, end;

    tfi_share(w, a->S, &begin, &end);
    for (int64_t r = begin; r < end; r++) {
        float *y = a->y + r * a->V;

        memcpy(y, a->x + r * a->V, (size_t)a->V * sizeof *y);
        if (a->row_slots[r] < 0) continue;
        (a->stage == TFI_PROCESS_CONSTRAIN ? tfi_constrain_row : tfi_warp_row)(&a->slots[a->row_slots[r]], y, a->V, w->scratch);
    }
}

tfi_host_fn tfi_ref_process(tfi_op_types t)
{
    return tfi_is_f32(t) ? process : NULL;
}
