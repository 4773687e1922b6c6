/* STOP: what ends a sequence that SAMPLE has just given a token; what it computes: src/backend/ref/stop.c
 *
 * Shapes    draws, choices [count]; a copy of the choices to the host, whatever op made them
 * Parallel  a thread a draw
 * Needs     nothing
 * Floor     that of a launch */
#include "types.cuh"

namespace
{

enum { THREADS = 64 };

__device__ bool is_eos(const tfi_sampling *s, int32_t token)
{
    for (int32_t i = 0; i < s->eos_count; i++)
        if (s->eos[i] == token) return true;
    return false;
}

__global__ void stop(tfi_draw_args a, const tfi_cuda_live *live)
{
    begin();
    const int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;

    if (i >= live->draws) return;
    const tfi_slot *slot = &a.slots[a.draws[i].slot];
    tfi_choice *choice = &a.choices[i];
    if (slot->sampling->num_beams <= 1 && choice->stop == TFI_STOP_NONE) {
        if (is_eos(slot->sampling, choice->token)) choice->stop = TFI_STOP_EOS;
        else if (slot->count >= slot->sampling->max_length) choice->stop = TFI_STOP_LENGTH;
    }
    if (live->published) live->published[i] = *choice;
}

} // namespace

extern "C" tf_status tfi_cuda_stop(const tfi_cuda_launch *l, const tfi_draw_args *a)
{
    if (a->count == 0) return TF_STATUS_OK;
    return start(l, "STOP", stop, blocks_of(a->count, THREADS), THREADS, 0, *a, l->live);
}
