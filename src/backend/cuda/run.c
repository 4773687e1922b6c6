/* A run: its inputs to the device, the ops by a walk or as a captured graph, what was asked for back. A shape that comes again
 * is captured: the walk is then recorded on the program's own stream, in thread-local mode so that other threads' calls do not
 * meet it, and from then on launched as one. */
#include <assert.h>
#include <string.h>

#include "backend/cuda/program.h"
#include "base/status.h"
#include "base/thread_pool.h"

/* ---- graphs ---- */

static void hash_needed(tfi_pass *s)
{
    uint64_t h = 1469598103934665603u ^ (uint64_t)(s->program->keyed + 1);

    for (int32_t i = 0; i < s->program->graph->op_count; i++) h = (h ^ (uint64_t)s->program->steps[i].needed) * 1099511628211u;
    for (int32_t i = 0; i < s->program->graph->value_count; i++) h = (h ^ (uint64_t)s->program->wanted[i]) * 1099511628211u;
    s->shape.needed = h;
}

/* Whether the value is still there when the run is over: none that is computed after it lies in its memory. */
static int survives(const tfi_program *p, int32_t v)
{
    const tfi_graph *g = p->graph;
    int written = 0;

    for (int32_t i = 0; i < g->op_count; i++) {
        const int32_t y = g->ops[i].y;
        if (y == v) {
            written = 1;
        } else if (y >= 0 && written && p->steps[i].needed) {
            const tfi_value *a = &g->values[v], *b = &g->values[y];
            const int64_t a_end = p->offsets[v] + p->limits[a->rows] * a->cols * (int64_t)tfi_dtype_size(a->dtype);
            const int64_t b_end = p->offsets[y] + p->limits[b->rows] * b->cols * (int64_t)tfi_dtype_size(b->dtype);
            if (p->offsets[v] < b_end && p->offsets[y] < a_end) return 0;
        }
    }
    return 1;
}

static int may_capture(const tfi_pass *s)
{
    const tfi_run *run = s->run;

    if (run->feed_count > 0 || run->inputs[TFI_INPUT_EMBEDDINGS]) return 0;
    for (int i = 0; i < TFI_ROWS_COUNT; i++)
        if (run->rows[i] > TFI_GRAPH_ROWS) return 0;
    for (int32_t i = 0; i < run->tap_count; i++)
        if (!survives(s->program, run->taps[i].value)) return 0;
    return 1;
}

/* The record of this shape; a new one takes the place of that which was used least lately. */
static tfi_captured *find(tfi_pass *s)
{
    tfi_program *p = s->program;
    tfi_captured *oldest = &p->captured[0];

    for (int i = 0; i < TFI_GRAPHS; i++) {
        tfi_captured *e = &p->captured[i];
        if (e->seen > 0 && memcmp(&e->shape, &s->shape, sizeof e->shape) == 0) return e;
        if (e->used < oldest->used) oldest = e;
    }
    if (oldest->exec) (void)cudaGraphExecDestroy(oldest->exec);
    *oldest = (tfi_captured){.shape = s->shape};
    return oldest;
}

static tf_status capture(tfi_pass *s, cudaGraphExec_t *out)
{
    tfi_program *p = s->program;
    tfi_pass recording = *s;
    cudaGraph_t graph = NULL;
    cudaError_t ended;
    tf_status st;

    recording.stream = p->stream;
    recording.capturing = 1;
    if ((st = TFI_CUDA(p->cuda, cudaStreamBeginCapture(p->stream, cudaStreamCaptureModeThreadLocal))) < 0) return st;
    st = tfi_cuda_walk(&recording, 0);
    ended = cudaStreamEndCapture(p->stream, &graph);
    if (st == TF_STATUS_OK && (st = tfi_cuda_check(p->cuda, ended, "cudaStreamEndCapture")) == TF_STATUS_OK)
        st = TFI_CUDA(p->cuda, cudaGraphInstantiate(out, graph, 0));
    if (graph) (void)cudaGraphDestroy(graph);
    (void)cudaGetLastError();
    return st;
}

static tf_status take_all_taps(tfi_pass *s)
{
    tf_status st;

    for (int32_t v = 0; v < s->program->graph->value_count; v++)
        if ((st = tfi_cuda_take_taps(s, v)) < 0) return st;
    return TF_STATUS_OK;
}

/* A shape is captured when it comes the second time: the first walk has timed the products, and many shapes come only once. One
 * that cannot be captured, on a full device for one, is walked, and tried again whenever it has come twice as often. */
static tf_status perform(tfi_pass *s)
{
    tfi_program *p = s->program;
    tfi_captured *e = NULL;
    tf_status st;

    if (may_capture(s)) {
        hash_needed(s);
        e = find(s);
        e->seen++;
        e->used = ++p->runs;
        if (e->seen > 1) tfi_cuda_plan_results(s);
        if (e->seen > 1 && !e->exec && (e->seen & (e->seen - 1)) == 0 && capture(s, &e->exec) < 0) e->exec = NULL;
    }
    if (!e || !e->exec) {
        s->results.count = 0;
        return tfi_cuda_walk(s, 1);
    }
    if ((st = TFI_CUDA(p->cuda, cudaGraphLaunch(e->exec, s->stream))) < 0) return st;
    if (s->results.count == 0) return take_all_taps(s);
    tfi_cuda_expect_results(s);
    return TF_STATUS_OK;
}

/* ---- choices ---- */

static int is_for_host(const tfi_sampling *s)
{
    return s->num_beams > 1 && s->completes;
}

/* Beam search that asks a function of the host for each candidate is a step of the reference's, over logits that are copied
 * here. The draws [begin, end) are one request's. */
static tf_status step_on_host(tfi_pass *s, const tfi_op *op, int64_t begin, int64_t end)
{
    tfi_program *p = s->program;
    tfi_cuda_store *store = (tfi_cuda_store *)s->run->store;
    const int64_t V = p->graph->values[op->x].cols, first = s->run->draws[begin].row,
                  rows = s->run->draws[end - 1].row + 1 - first;
    const int64_t scratch = tfi_host_scratch(p->graph, op, 1, 1), draws = (end - begin) * (int64_t)sizeof(tfi_draw);
    const size_t row_bytes = (size_t)(rows * V) * sizeof(float), size = (size_t)(scratch + draws) + 2 * row_bytes;
    char *room = tfi_alloc(p->memory, size);
    tf_status st;

    if (!room) return TF_STATUS_NOMEM;
    float *x = (float *)(void *)(room + scratch), *logits = x + rows * V;
    tfi_draw *draw = (tfi_draw *)(logits + rows * V);
    for (int64_t i = 0; i < end - begin; i++)
        draw[i] = (tfi_draw){.slot = s->run->draws[begin + i].slot, .row = s->run->draws[begin + i].row - (int32_t)first};
    if ((st = TFI_CUDA(p->cuda, cudaMemcpyAsync(x, tfi_cuda_value(p, op->x) + (size_t)(first * V) * sizeof *x, row_bytes,
                                                cudaMemcpyDeviceToHost, s->stream))) == TF_STATUS_OK &&
        (st = TFI_CUDA(p->cuda, cudaMemcpyAsync(logits, tfi_cuda_value(p, op->logits) + (size_t)(first * V) * sizeof *x,
                                                row_bytes, cudaMemcpyDeviceToHost, s->stream))) == TF_STATUS_OK &&
        (st = TFI_CUDA(p->cuda, cudaStreamSynchronize(s->stream))) == TF_STATUS_OK) {
        const tfi_draw_args a = {.x = x,
                                 .logits = logits,
                                 .draws = draw,
                                 .slots = store->host,
                                 .choices = s->run->choices + begin,
                                 .count = end - begin,
                                 .V = V};
        const tfi_worker one = {.index = 0, .count = 1, .scratch = room};
        tfi_ref_resolve(TFI_OP_BEAM_STEP, (tfi_op_types){TFI_F32, TFI_F32, TFI_F32})(&a, &one);
        for (int64_t i = begin; i < end && st == TF_STATUS_OK; i++)
            st = tfi_cuda_store_renew(store, s->run->draws[i].slot, s->stream);
    }
    tfi_free(p->memory, room, size);
    return st;
}

static const tfi_op *beam_step(const tfi_graph *g)
{
    for (int32_t i = 0; i < g->op_count; i++)
        if (g->ops[i].kind == TFI_OP_BEAM_STEP) return &g->ops[i];
    return NULL;
}

/* The caller's choices, and the histories that it lent, as they are on the device. */
static tf_status take_choices(tfi_pass *s)
{
    const tfi_run *run = s->run;
    tfi_cuda_store *store = (tfi_cuda_store *)run->store;
    const tfi_op *step = beam_step(s->program->graph);
    tf_status st;

    memcpy(run->choices, s->flight->choices, (size_t)run->draw_count * sizeof *run->choices);
    for (int64_t i = 0, n; i < run->draw_count; i += n) {
        tfi_slot *slot = &store->host[run->draws[i].slot];
        n = slot->sampling->num_beams > 1 ? slot->sampling->num_beams : 1;
        if (is_for_host(slot->sampling)) {
            if ((st = step_on_host(s, step, i, i + n)) < 0) return st;
        } else if (n == 1 && run->choices[i].stop != TFI_STOP_NUMERIC) {
            slot->tokens[slot->count++] = run->choices[i].token;
        }
    }
    return TF_STATUS_OK;
}

static int any_for_host(const tfi_run *run)
{
    for (int64_t i = 0; i < run->draw_count; i++)
        if (is_for_host(((tfi_cuda_store *)run->store)->host[run->draws[i].slot].sampling)) return 1;
    return 0;
}

/* ---- run ---- */

static int draws(const tfi_run *run)
{
    return (run->effects & TFI_EFFECT_DRAW) && run->draw_count > 0;
}

static tf_status begin(tfi_pass *s)
{
    tfi_program *p = s->program;
    const tfi_run *run = s->run;
    tf_status st;

    if (run->store && (st = tfi_cuda_store_upload((tfi_cuda_store *)run->store, s->stream)) < 0) return st;
    if ((st = tfi_cuda_send_inputs(s)) < 0 || (st = perform(s)) < 0) return st;
    return TFI_CUDA(p->cuda, cudaEventRecord(s->flight->arrived, s->stream));
}

enum { LOOKS = 1 << 10 }; /* at the number, some 50 us, before the device is asked */

/* Until the run's results are there, or all of it is over. Its number comes with its results, before the device says that it is
 * over; after a fault only the device says so. */
static tf_status wait_for_run(const tfi_pass *s)
{
    const tfi_program *p = s->program;

    while (s->results.count > 0) {
        for (int i = 0; i < LOOKS; i++) {
            if (__atomic_load_n(p->finished, __ATOMIC_ACQUIRE) == p->number) return TF_STATUS_OK;
            tfi_pause();
        }
        if (cudaEventQuery(s->flight->arrived) != cudaErrorNotReady) break;
        (void)cudaGetLastError();
    }
    return TFI_CUDA(p->cuda, cudaEventSynchronize(s->flight->arrived));
}

static tf_status end(tfi_pass *s)
{
    tfi_program *p = s->program;
    tf_status st = wait_for_run(s);

    if (st < 0 || (st = tfi_cuda_deliver_taps(s)) < 0 || !draws(s->run) || (st = take_choices(s)) < 0) return st;
    return any_for_host(s->run) ? TFI_CUDA(p->cuda, cudaStreamSynchronize(s->stream)) : TF_STATUS_OK;
}

/* Nothing may still read what the next run writes. */
static void give_up(const tfi_pass *s)
{
    tfi_program *p = s->program;

    if (!p->cuda->dead) (void)cudaStreamSynchronize(s->stream);
    (void)cudaGetLastError();
    p->pending_count = 0;
    p->taps_filled = 0;
}

static tfi_pass pass_of(tfi_program *p, const tfi_run *run, int number)
{
    return (tfi_pass){.program = p,
                      .run = run,
                      .flight = &p->flights[number % 2],
                      .stream = run->stream ? (cudaStream_t)run->stream : p->stream};
}

tf_status tfi_cuda_run(tfi_program *p, const tfi_run *run)
{
    tfi_pass s = pass_of(p, run, p->begun);
    tf_status st;

    assert(p->begun - p->landed < 2);
    for (int i = 0; i < TFI_ROWS_COUNT; i++) assert(run->rows[i] >= 0 && run->rows[i] <= p->limits[i]);
    if ((st = tfi_cuda_enter(p->cuda)) < 0) return st;
    tfi_cuda_shape_run(&s);
    tfi_cuda_mark(p, run);
    st = begin(&s);
    if (st == TF_STATUS_OK && run->ahead) {
        p->begun++;
    } else {
        if (st == TF_STATUS_OK) st = end(&s);
        if (st < 0) give_up(&s);
    }
    tfi_cuda_leave(p->cuda);
    return st;
}

tf_status tfi_cuda_wait(tfi_program *p, const tfi_run *run)
{
    tfi_pass s = pass_of(p, run, p->landed);
    tf_status st;

    assert(p->landed < p->begun);
    p->landed++;
    if ((st = tfi_cuda_enter(p->cuda)) < 0) return st;
    if ((st = end(&s)) < 0) give_up(&s);
    tfi_cuda_leave(p->cuda);
    return st;
}
