/* A shared object for test_processors.py: the ops that process logits and draw tokens, called as a program calls them, on slots
 * that live here. Records are those of backend/ops.h; the test mirrors them and compares their sizes. */
#include <stdlib.h>
#include <string.h>

#include "backend/host_ops.h"

/* The sequences or beams of one request. */
typedef struct request {
    tfi_sampling sampling;
    tfi_beams beams;
    int32_t count;
    tfi_slot *slots;
} request;

int64_t draw_size(int which)
{
    const int64_t sizes[] = {sizeof(tfi_sampling), sizeof(tfi_choice)};
    return sizes[which];
}

void draw_philox(uint64_t key, const uint32_t *counter, uint32_t *out)
{
    tfi_philox(key, counter, out);
}

static void *zeros(int64_t bytes)
{
    void *p = calloc(1, (size_t)bytes);
    if (!p) abort();
    return p;
}

/* `tokens` [length]: what all sequences said so far. */
request *draw_open(const tfi_sampling *s, int32_t sequences, const int32_t *tokens, int32_t length)
{
    request *r = zeros(sizeof *r);

    r->sampling = *s;
    r->count = sequences;
    r->slots = zeros(sequences * (int64_t)sizeof *r->slots);
    r->beams = (tfi_beams){zeros(sequences * (int64_t)sizeof(float)), zeros(sequences), 1};
    for (int32_t i = 0; i < sequences; i++) {
        tfi_slot *slot = &r->slots[i];
        *slot =
            (tfi_slot){.sampling = &r->sampling, .count = length, .sequence = i, .score = i ? -1e9f : 0, .beams = &r->beams};
        slot->tokens = zeros(((int64_t)s->max_length > length ? s->max_length : length) * (int64_t)sizeof(int32_t));
        memcpy(slot->tokens, tokens, (size_t)length * sizeof *tokens);
        r->beams.finished_scores[i] = -1e9f;
    }
    return r;
}

void draw_close(request *r)
{
    for (int32_t i = 0; i < r->count; i++) free(r->slots[i].tokens);
    free(r->beams.finished_scores);
    free(r->beams.is_finished);
    free(r->slots);
    free(r);
}

int32_t draw_tokens(const request *r, int32_t i, int32_t *out)
{
    memcpy(out, r->slots[i].tokens, (size_t)r->slots[i].count * sizeof *out);
    return r->slots[i].count;
}

/* Each worker of an op, one after the other, with scratch full of NaN. */
static void run(tfi_op_kind kind, const void *args, int workers, int64_t V)
{
    tfi_value values[] = {{.cols = V}};
    const tfi_graph graph = {.values = values, .value_count = 1};
    const tfi_op op = {.kind = kind};
    const int64_t bytes = (tfi_host_scratch(&graph, &op, 1, 1) + 63) / 64 * 64;
    const tfi_host_fn fn = tfi_cpu_resolve(kind, (tfi_op_types){TFI_F32, TFI_F32, TFI_F32}, tfi_cpu_features());

    for (int i = 0; i < workers; i++) {
        void *scratch = aligned_alloc(64, (size_t)bytes + 64);
        if (!scratch || !fn) abort();
        memset(scratch, 0xff, (size_t)bytes);
        fn(args, &(tfi_worker){i, workers, scratch});
        free(scratch);
    }
}

/* One step of all requests together. logits [rows, V]: a row for each sequence, or one for a request where shared[i]; processed
 * the same; choices one for each sequence. */
void draw_step(request **requests, int32_t n, const int32_t *shared, const float *logits, float *processed, int64_t V,
               int workers, tfi_choice *choices)
{
    int64_t rows = 0, count = 0, all = 0;
    for (int32_t i = 0; i < n; i++) all += requests[i]->count;

    tfi_slot *slots = zeros(all * (int64_t)sizeof *slots);
    tfi_draw *draws = zeros(all * (int64_t)sizeof *draws);
    int32_t *row_slots = zeros(all * (int64_t)sizeof *row_slots);
    for (int32_t i = 0; i < n; i++) {
        for (int32_t k = 0; k < requests[i]->count; k++) {
            slots[count] = requests[i]->slots[k];
            if (k == 0 || !shared[i]) row_slots[rows++] = (int32_t)count;
            draws[count] = (tfi_draw){(int32_t)count, (int32_t)rows - 1};
            count++;
        }
    }
    float *constrained = zeros((rows * V + 1) * (int64_t)sizeof *constrained);
    run(TFI_OP_LOGITS_PROCESS, &(tfi_process_args){logits, row_slots, slots, constrained, rows, V, TFI_PROCESS_CONSTRAIN},
        workers, V);
    run(TFI_OP_LOGITS_PROCESS, &(tfi_process_args){constrained, row_slots, slots, processed, rows, V, TFI_PROCESS_WARP},
        workers, V);
    const tfi_draw_args args = {processed, logits, draws, slots, choices, count, V};
    run(TFI_OP_SAMPLE, &args, workers, V);
    run(TFI_OP_BEAM_STEP, &args, workers, V);
    run(TFI_OP_STOP, &args, workers, V);
    count = 0;
    for (int32_t i = 0; i < n; i++) {
        memcpy(requests[i]->slots, slots + count, (size_t)requests[i]->count * sizeof *slots);
        count += requests[i]->count;
    }
    free(constrained);
    free(row_slots);
    free(draws);
    free(slots);
}
