/* STOP, plain C: what ends a sequence that SAMPLE has just given a token. */
#include "backend/ref/process.h"
#include "backend/ref/ref.h"
#include "backend/rows.h"

static void stop(const void *args, const tfi_worker *w)
{
    const tfi_draw_args *a = args;
    int64_t begin, end;

    tfi_share(w, a->count, &begin, &end);
    for (int64_t i = begin; i < end; i++) {
        const tfi_slot *slot = &a->slots[a->draws[i].slot];
        const tfi_sampling *s = slot->sampling;
        tfi_choice *choice = &a->choices[i];

        if (s->num_beams > 1 || choice->stop != TFI_STOP_NONE) continue;
        if (tfi_is_eos(s, choice->token)) {
            choice->stop = TFI_STOP_EOS;
        } else if (slot->count >= s->max_length) {
            choice->stop = TFI_STOP_LENGTH;
        }
    }
}

tfi_host_fn tfi_ref_stop(tfi_op_types t)
{
    return tfi_is_f32(t) ? stop : NULL;
}
