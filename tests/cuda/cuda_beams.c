/* BEAM_STEP: several requests with beams, step after step, each of which goes on from what the one before chose. */
#include "backend/ref/ref.h"
#include "backend/ref/softmax.h"
#include "cuda_slots.h"

static void add_request(world *w, int32_t V, tfi_draw *draws, int32_t *draw_count)
{
    tfi_sampling *s = host_bytes(sizeof *s);
    const tfi_sampling *device;
    const int32_t length = pick(1, 5), first = w->count;

    *s = plain_sampling(V);
    s->prompt = length;
    s->max_length = length + pick(3, 12);
    s->num_beams = pick(2, 5);
    s->do_sample = chance(30);
    s->logprobs = chance(50);
    s->eos_count = chance(15) ? 20 : pick(0, 3); /* then there are many candidates */
    s->eos = any_ids(20, V);
    s->early_stopping = pick(0, 2);
    s->length_penalty = check_uniform(-1, 2);
    device = device_sampling(s);
    tfi_beams *beams = new_beams(s->num_beams), *mirror = device_beams(beams, s->num_beams);
    for (int32_t i = 0; i < s->num_beams; i++) {
        tfi_slot *slot = add_slot(w, s, device, length, TOKENS);
        slot->sequence = i;
        slot->score = i == 0 ? 0 : -1e9f;
        slot->beams = beams;
        w->mirror[w->count - 1].sequence = i;
        w->mirror[w->count - 1].score = slot->score;
        w->mirror[w->count - 1].beams = mirror;
        draws[(*draw_count)++] = (tfi_draw){.slot = first + i, .row = first};
    }
}

/* Whether all is the same: one that differs by rounding may go another way from there on. */
static int compare_choices(const tfi_choice *c, const tfi_choice *e, int32_t count)
{
    int same = 1;

    for (int32_t i = 0; i < count; i++) {
        const int decided = c[i].token == e[i].token && c[i].parent == e[i].parent;
        same &= decided;
        CHECK(decided || near(c[i].score, e[i].score));
        if (!decided) continue;
        CHECK(near(c[i].score, e[i].score) && near(c[i].logprob, e[i].logprob));
        CHECK_INT(c[i].stop, e[i].stop);
        CHECK_INT(c[i].finished_from, e[i].finished_from);
        CHECK(near(c[i].finished_score, e[i].finished_score));
        if (e[i].finished_from >= 0) continue;
        CHECK_INT(c[i].finished_parent, e[i].finished_parent);
        CHECK_INT(c[i].finished_token, e[i].finished_token);
        CHECK(near(c[i].finished_logprob, e[i].finished_logprob));
    }
    return same;
}

/* One step of all requests; x is the log-softmax of the logits, some ids of which end a sequence more often than not. */
static int step_beams(world *w, const tfi_draw *draws, int32_t count, int32_t made, int32_t V)
{
    const tfi_cuda_live live = live_draws(count, -1);
    const int64_t bytes = made * (int64_t)V * 4, ints = (int64_t)(sizeof(tfi_choice) / 4);
    float *logits = any_logits(made, V), *x = host_bytes(bytes);
    tfi_choice expected[SLOTS] = {{0}};

    for (int32_t r = 0; r < made; r++) {
        const tfi_sampling *s = w->host[r].sampling;
        if (s && s->eos_count > 0 && chance(60)) logits[r * (int64_t)V + s->eos[0]] = tfi_row_max(logits + r * (int64_t)V, V);
    }
    memcpy(x, logits, (size_t)bytes);
    for (int32_t r = 0; r < made; r++) tfi_log_softmax(x + r * (int64_t)V, V);
    const tfi_draw_args host = {
        .x = x, .logits = logits, .draws = draws, .slots = w->host, .choices = expected, .count = count, .V = V};
    const device_out out = device_output(TFI_F32, made * ints, 0);
    const tfi_draw_args a = {.x = device_copy(x, bytes),
                             .logits = device_copy(logits, bytes),
                             .draws = device_copy(draws, made * (int64_t)sizeof *draws),
                             .slots = w->device,
                             .choices = out.data,
                             .count = made,
                             .V = V};
    const tfi_cuda_launch l = device_launch(&live, any_capability(), tfi_cuda_beam_step_scratch(made));
    reference(TFI_OP_BEAM_STEP, &host, tfi_ref_beam_step_scratch());
    device_begin();
    CHECK_OK(tfi_cuda_beam_step(&l, &a));
    device_run();
    const int same = compare_choices(device_result(&out, TFI_F32, count * ints), expected, count);
    if (same) compare_slots(w);
    for (int32_t i = 0; i < count; i++)
        if (expected[i].stop == TFI_STOP_NUMERIC) return 0;
    return same;
}

static void beam_step(void)
{
    int steps = 0;

    for (int i = -1; next_case(&i, 60);) {
        const int32_t V = any_vocab();
        world w = {.count = 0};
        tfi_draw draws[SLOTS] = {{0, 0}};
        int32_t count = 0;
        for (int32_t n = pick(1, at_most(3, 1)); n > 0; n--) add_request(&w, V, draws, &count);
        send_slots(&w);
        for (int step = 0; step < at_most(6, 3) && step_beams(&w, draws, count, count + (count < SLOTS), V); step++) {
            steps++;
            for (int32_t k = 0; k < count; k++) draws[k].row = k; /* the first shared the prompt's row */
        }
        device_end();
    }
    CHECK(steps > 60 || case_limit > 0);
}

static int never(void *user, int32_t beam, int32_t token)
{
    (void)user, (void)beam, (void)token;
    return 0;
}

/* A request that asks the host is passed by: nothing of it is touched. */
static void beam_step_of_host(void)
{
    enum { V = 500 };
    world w = {.count = 0};
    tfi_draw draws[SLOTS] = {{0, 0}};
    int32_t count = 0;

    add_request(&w, V, draws, &count);
    tfi_sampling s = *w.host[0].sampling;
    s.completes = never;
    for (int32_t i = 0; i < w.count; i++) w.mirror[i].sampling = device_sampling(&s);
    send_slots(&w);
    const tfi_cuda_live live = live_draws(count, -1);
    const device_out out = device_output(TFI_F32, count * (int64_t)(sizeof(tfi_choice) / 4), 0);
    const float *x = device_copy(any_logits(count, V), count * (int64_t)V * 4);
    const tfi_draw_args a = {.x = x,
                             .logits = x,
                             .draws = device_copy(draws, sizeof draws),
                             .slots = w.device,
                             .choices = out.data,
                             .count = count,
                             .V = V};
    const tfi_cuda_launch l = device_launch(&live, device_capability, tfi_cuda_beam_step_scratch(count));
    device_begin();
    CHECK_OK(tfi_cuda_beam_step(&l, &a));
    device_run();
    (void)device_result(&out, TFI_F32, 0);
    compare_slots(&w);
    device_end();
}

void check_beam_kernels(int argc, char **argv)
{
    check_kind(argc, argv, "beam_step", beam_step);
    check_kind(argc, argv, "beam_step_of_host", beam_step_of_host);
}
