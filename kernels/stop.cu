/* STOP: what ends a sequence that SAMPLE has just given a token; what it computes: src/backend/ref/stop.c
 *
 * Shapes    draws, choices [count]; a copy of the choices to the host, whatever op made them
 * Parallel  a thread a draw; settings are read before the wait
 * Needs     nothing
 * Floor     that of a launch: 1 us on H200 */
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
    follow();
    const int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    const bool lives = i < live->draws;
    const tfi_slot *slot = lives ? &a.slots[a.draws[i].slot] : NULL;
    const tfi_sampling *s = lives ? slot->sampling : NULL;
    const bool may_end = lives && s->num_beams < 2;
    const int32_t max_length = may_end ? s->max_length : 0, first_eos = may_end && s->eos_count > 0 ? s->eos[0] : -1;
    tfi_choice *published = live->published;

    wait_for_results();
    if (!lives) return;
    tfi_choice choice = a.choices[i];
    if (may_end && choice.stop == TFI_STOP_NONE) {
        if (choice.token == first_eos || is_eos(s, choice.token)) choice.stop = TFI_STOP_EOS;
        else if (__ldcg(&slot->count) >= max_length) choice.stop = TFI_STOP_LENGTH; /* not what was there before the wait */
        a.choices[i].stop = choice.stop;
    }
    if (published) published[i] = choice;
}

} // namespace

extern "C" tf_status tfi_cuda_stop(const tfi_cuda_launch *l, const tfi_draw_args *a)
{
    if (a->count == 0) return TF_STATUS_OK;
    return start(l, "STOP", stop, blocks_of(a->count, THREADS), THREADS, 0, *a, l->live);
}
