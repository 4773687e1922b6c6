/* LOGITS_PROCESS, SAMPLE, STOP and GREEDY: random settings and combinations over several rows and slots, with
 * histories. */
#include "backend/ref/process.h"
#include "backend/ref/ref.h"
#include "backend/ref/softmax.h"
#include "cuda_slots.h"

enum { LISTS = 6, BENCH_TOKENS = 8192 };

/* ---- settings ---- */

static tfi_id_lists any_lists(int32_t V)
{
    tfi_id_lists l = {.count = pick(1, LISTS)};
    int32_t *start = host_bytes((l.count + 1) * (int64_t)sizeof *start);
    for (int32_t i = 0; i < l.count; i++) start[i + 1] = start[i] + (chance(60) ? 1 : pick(1, 3));
    l.start = start;
    l.ids = any_ids(start[l.count], V);
    return l;
}

static void any_constraints(tfi_sampling *s, int32_t V)
{
    s->eos_count = pick(0, 3);
    s->eos = any_ids(3, V);
    s->source_count = pick(1, 20);
    s->source = any_ids(s->source_count, V);
    if (chance(30)) {
        float *values = host_bytes(LISTS * (int64_t)sizeof *values);
        for (int i = 0; i < LISTS; i++) values[i] = check_uniform(-5, 5);
        s->sequence_bias = any_lists(V);
        s->sequence_bias_values = values;
    }
    if (chance(30)) s->encoder_repetition_penalty = check_uniform(0.5f, 2);
    if (chance(40)) s->repetition_penalty = check_uniform(0.5f, 2);
    if (chance(30)) s->presence_penalty = check_uniform(-1, 1);
    if (chance(30)) s->frequency_penalty = check_uniform(-1, 1);
    if (chance(30)) s->no_repeat_ngram_size = pick(1, 3);
    if (chance(30)) s->encoder_no_repeat_ngram_size = pick(1, 3);
    if (chance(30)) s->bad_words = any_lists(V);
    if (chance(30)) s->min_length = pick(0, 20);
    if (chance(30)) s->min_new_tokens = pick(0, 20);
    if (chance(10)) s->forced_bos = pick(0, V - 1);
    if (chance(10)) s->forced_eos = any_ids(s->forced_eos_count = 2, V);
    if (chance(20)) s->remove_invalid_values = 1;
    if (chance(30)) {
        s->decay_start = pick(0, 5);
        s->decay_factor = check_uniform(0.9f, 1.2f);
    }
    if (chance(30)) s->suppress = any_ids(s->suppress_count = pick(1, 9), V);
    if (chance(30)) {
        s->begin_suppress = any_ids(s->begin_suppress_count = 3, V);
        s->begin_index = pick(1, 4);
    }
}

static void any_warpers(tfi_sampling *s)
{
    s->do_sample = !chance(15);
    if (chance(60)) s->temperature = check_uniform(0.5f, 2);
    if (chance(10)) s->top_h = check_uniform(0.1f, 0.9f);
    if (chance(40)) s->top_k = chance(20) ? pick(1000, 4000) : pick(1, 60);
    if (chance(40)) s->top_p = check_uniform(0.1f, 1);
    if (chance(15)) s->min_p = check_uniform(0.01f, 0.3f);
    if (chance(15)) s->typical_p = check_uniform(0.2f, 0.99f);
    if (chance(15)) s->epsilon_cutoff = check_uniform(1e-5f, 1e-2f);
    if (chance(15)) s->eta_cutoff = check_uniform(1e-5f, 1e-2f);
    if (chance(25)) s->renormalize_logits = 1;
    if (chance(20)) s->num_beams = pick(2, 4);
}

/* ---- LOGITS_PROCESS ---- */

/* Ids that one side has and the other has not: only where a limit is met to rounding. */
static int64_t compare_row(const float *y, const float *expected, int64_t V)
{
    int64_t one_sided = 0, wrong = 0;

    for (int64_t i = 0; i < V; i++) one_sided += (y[i] == -INFINITY) != (expected[i] == -INFINITY);
    for (int64_t i = 0; i < V; i++) {
        const float e = expected[i];
        if (y[i] == -INFINITY || e == -INFINITY || y[i] == e || (isnan(y[i]) && isnan(e))) continue;
        wrong += !(fabsf(y[i] - e) <= (one_sided > 0 ? 1e-2f : 1e-6f) * (1 + fabsf(e)));
    }
    CHECK_INT(wrong, 0);
    return one_sided;
}

static void process(void)
{
    int64_t rows = 0, one_sided = 0;

    for (int i = -1; next_case(&i, 400);) {
        const int32_t V = any_vocab(), live_rows = pick(1, at_most(5, 2)), made = live_rows + pick(0, at_most(3, 1));
        const tfi_cuda_live live = live_draws(-1, live_rows);
        world w = {.count = 0};
        int32_t row_slots[8];
        tfi_process_args host = {.S = live_rows, .V = V, .stage = i % 2 ? TFI_PROCESS_WARP : TFI_PROCESS_CONSTRAIN}, a;
        for (int32_t r = 0; r < made; r++) {
            tfi_sampling *s = host_bytes(sizeof *s);
            const int32_t count = chance(20) ? 1 : pick(1, TOKENS - 1);
            *s = plain_sampling(V);
            s->prompt = pick(1, count);
            if (chance(20)) s->max_length = count + 1;
            any_constraints(s, V);
            any_warpers(s);
            if (chance(10)) *s = plain_sampling(V);
            add_slot(&w, s, device_sampling(s), count, TOKENS);
            row_slots[r] = chance(10) ? -1 : r;
        }
        send_slots(&w);
        host.x = any_logits(made, V);
        host.row_slots = row_slots;
        host.slots = w.host;
        host.y = host_bytes(made * (int64_t)V * 4);
        reference(TFI_OP_LOGITS_PROCESS, &host, tfi_ref_process_scratch(V));
        a = host;
        a.S = made;
        a.x = device_copy(host.x, made * (int64_t)V * 4);
        a.row_slots = device_copy(row_slots, sizeof row_slots);
        a.slots = w.device;
        const device_out y = device_output(TFI_F32, made * (int64_t)V, 0);
        a.y = y.data;
        const tfi_cuda_launch l = device_launch(&live, any_capability(), 0);
        device_begin();
        CHECK_OK(tfi_cuda_process(&l, &a));
        device_run();
        const float *result = device_result(&y, TFI_F32, live_rows * (int64_t)V);
        for (int32_t r = 0; r < live_rows; r++) {
            const int64_t ids = compare_row(result + r * (int64_t)V, host.y + r * (int64_t)V, V);
            CHECK(ids <= (host.stage == TFI_PROCESS_WARP ? 8 : 0));
            rows++;
            one_sided += ids > 0;
        }
        device_end();
    }
    CHECK(one_sided * 50 <= rows + 100); /* 2 in 100 */
}

/* ---- SAMPLE, STOP ---- */

/* How far, as a part of the whole, the number that was drawn is from where `token` begins or ends. */
static double margin(const float *x, int64_t V, int64_t token, double uniform)
{
    const float max = tfi_row_max(x, V);
    double sum = 0, begin = 0, end = 0;

    for (int64_t i = 0; i < V; i++) {
        if (i == token) begin = sum;
        sum += exp((double)x[i] - (double)max);
        if (i == token) end = sum;
    }
    return fmin(fabs(uniform - begin / sum), fabs(uniform - end / sum));
}

static void check_choice(const tfi_choice *c, const tfi_choice *expected, const tfi_slot *slot, const float *x, int64_t V)
{
    if (c->token != expected->token) {
        const tfi_sampling *s = slot->sampling;
        const uint32_t step = (uint32_t)(slot->count - 1 - s->prompt);
        CHECK(s->do_sample && c->token >= 0 && expected->token >= 0 &&
              margin(x, V, c->token, tfi_uniform(s->seed, step, (uint32_t)slot->sequence, 0)) < 1e-6);
        return;
    }
    CHECK_INT(c->parent, expected->parent);
    CHECK_INT(c->stop, expected->stop);
    CHECK_INT(c->finished_from, expected->finished_from);
    CHECK(near(c->logprob, expected->logprob));
}

static void sample(void)
{
    for (int i = -1; next_case(&i, 300);) {
        const int32_t V = any_vocab(), live_count = pick(1, at_most(6, 3)), made = live_count + pick(0, 2);
        const tfi_cuda_live live = live_draws(live_count, -1);
        world w = {.count = 0};
        tfi_draw draws[8];
        float *x = any_logits(made, V), *logits = any_logits(made, V);
        for (int32_t r = 0; r < made; r++) {
            tfi_sampling *s = host_bytes(sizeof *s);
            const int32_t count = pick(2, TOKENS - 2);
            *s = plain_sampling(V);
            s->prompt = pick(1, count);
            s->do_sample = chance(70);
            s->logprobs = chance(50);
            s->remove_invalid_values = chance(30);
            s->eos_count = pick(0, 3);
            s->eos = any_ids(3, V);
            s->max_length = chance(30) ? count + 1 : TOKENS;
            add_slot(&w, s, device_sampling(s), count, TOKENS);
            draws[r] = (tfi_draw){.slot = r, .row = chance(80) ? r : 0};
            if (chance(30)) /* as if filtered */
                for (int32_t k = 0; k < V; k++)
                    if (!chance(2)) x[r * (int64_t)V + k] = -INFINITY;
            if (chance(20)) x[r * (int64_t)V + s->eos[0]] = 90;
            if (r == 2 && chance(30))
                for (int32_t k = 0; k < V; k++) x[2 * (int64_t)V + k] = -INFINITY;
        }
        send_slots(&w);
        tfi_choice expected[8] = {{0}};
        const tfi_draw_args host = {
            .x = x, .logits = logits, .draws = draws, .slots = w.host, .choices = expected, .count = live_count, .V = V};
        reference(TFI_OP_SAMPLE, &host, 0);
        reference(TFI_OP_STOP, &host, 0);
        const device_out out = device_output(TFI_F32, made * (int64_t)(sizeof(tfi_choice) / 4), 0);
        const tfi_draw_args a = {.x = device_copy(x, made * (int64_t)V * 4),
                                 .logits = device_copy(logits, made * (int64_t)V * 4),
                                 .draws = device_copy(draws, sizeof draws),
                                 .slots = w.device,
                                 .choices = out.data,
                                 .count = made,
                                 .V = V};
        const tfi_cuda_launch l = device_launch(&live, any_capability(), 0);
        device_begin();
        CHECK_OK(tfi_cuda_sample(&l, &a));
        CHECK_OK(tfi_cuda_stop(&l, &a));
        device_run();
        const tfi_choice *c = device_result(&out, TFI_F32, live_count * (int64_t)(sizeof(tfi_choice) / 4));
        int same = 1;
        for (int32_t r = 0; r < live_count; r++) {
            check_choice(&c[r], &expected[r], &w.host[r], x + draws[r].row * (int64_t)V, V);
            same &= c[r].token == expected[r].token;
        }
        if (same) compare_slots(&w);
        device_end();
    }
}

/* ---- GREEDY ---- */

/* The same slots again, with histories of their own. */
static tfi_slot *copy_slots(const world *w)
{
    tfi_slot slots[SLOTS];

    memcpy(slots, w->mirror, sizeof slots);
    for (int32_t i = 0; i < w->count; i++) slots[i].tokens = device_copy(w->host[i].tokens, TOKENS * (int64_t)sizeof(int32_t));
    return device_copy(slots, sizeof slots);
}

/* Rows of a request that has just read its prompt are shared. */
static void add_greedy(world *w, int32_t V, tfi_draw *draws, float *logits)
{
    const int32_t r = w->count;

    if (r > 0 && chance(20)) {
        add_slot(w, w->host[r - 1].sampling, w->mirror[r - 1].sampling, w->host[r - 1].count, TOKENS);
        draws[r] = (tfi_draw){.slot = r, .row = draws[r - 1].row};
        return;
    }
    tfi_sampling *s = host_bytes(sizeof *s);
    const int32_t count = pick(2, TOKENS - 2);
    float *x = logits + r * (int64_t)V;
    *s = plain_sampling(V);
    s->prompt = pick(1, count);
    s->logprobs = chance(50);
    s->eos_count = pick(0, 3);
    s->eos = any_ids(3, V);
    s->max_length = chance(30) ? count + 1 : TOKENS;
    if (chance(40)) s->min_length = pick(0, TOKENS);
    if (chance(40)) s->min_new_tokens = pick(0, TOKENS);
    CHECK(tfi_cuda_is_greedy(s));
    add_slot(w, s, device_sampling(s), count, TOKENS);
    draws[r] = (tfi_draw){.slot = r, .row = r};
    for (int32_t k = 0, few = chance(20); few && k < V; k++) x[k] = floorf(x[k] / 8); /* many equal ones */
    if (chance(40)) x[s->eos[0]] = 90;
    for (int32_t k = 0; r == 2 && chance(30) && k < V; k++) x[k] = -INFINITY;
}

/* Against the ops it stands for: the reference's, and those of the device, which have the same bits. */
static void greedy(void)
{
    for (int i = -1; next_case(&i, 300);) {
        const int32_t V = any_vocab(), live_count = pick(1, at_most(6, 3)), made = live_count + pick(0, 2);
        const int64_t bytes = made * (int64_t)V * 4, ints = (int64_t)(sizeof(tfi_choice) / 4);
        tfi_cuda_live live = live_draws(live_count, made);
        float *logits = any_logits(made, V), *y = host_bytes(bytes);
        world w = {.count = 0};
        tfi_draw draws[8];
        int32_t row_slots[8];
        tfi_choice expected[8] = {{0}};
        for (int32_t r = 0; r < made; r++) add_greedy(&w, V, draws, logits);
        for (int32_t r = 0; r < made; r++) row_slots[r] = r;
        const float *on_device = device_copy(logits, bytes);
        send_slots(&w);
        const tfi_slot *others = copy_slots(&w);
        const device_out out = device_output(TFI_F32, made * ints, 0), ops = device_output(TFI_F32, made * ints, 0);
        tfi_process_args process = {.x = on_device,
                                    .row_slots = device_copy(row_slots, sizeof row_slots),
                                    .slots = others,
                                    .y = device_bytes(bytes),
                                    .S = made,
                                    .V = V};
        tfi_draw_args draw = {.x = on_device,
                              .logits = on_device,
                              .draws = device_copy(draws, sizeof draws),
                              .slots = w.device,
                              .choices = out.data,
                              .count = made,
                              .V = V};
        const device_out published[2] = {device_output(TFI_F32, made * ints, 0), device_output(TFI_F32, made * ints, 0)};
        live.published = published[1].data;
        const tfi_cuda_live *other_live = device_copy(&live, sizeof live);
        live.published = published[0].data;
        tfi_cuda_launch l = device_launch(&live, any_capability(), 0);
        device_begin();
        CHECK_OK(tfi_cuda_greedy(&l, &draw));
        l.live = other_live;
        CHECK_OK(tfi_cuda_process(&l, &process));
        draw.x = process.y;
        draw.slots = (tfi_slot *)others;
        draw.choices = ops.data;
        CHECK_OK(tfi_cuda_sample(&l, &draw));
        CHECK_OK(tfi_cuda_stop(&l, &draw));
        device_run();
        process.x = logits;
        process.y = y;
        process.row_slots = row_slots;
        process.slots = w.host;
        reference(TFI_OP_LOGITS_PROCESS, &process, tfi_ref_process_scratch(V));
        draw = (tfi_draw_args){
            .x = y, .logits = logits, .draws = draws, .slots = w.host, .choices = expected, .count = live_count, .V = V};
        reference(TFI_OP_SAMPLE, &draw, 0);
        reference(TFI_OP_STOP, &draw, 0);
        const tfi_choice *c = device_result(&out, TFI_F32, live_count * ints);
        for (int32_t r = 0; r < live_count; r++) {
            CHECK_INT(c[r].token, expected[r].token);
            check_choice(&c[r], &expected[r], &w.host[r], y + draws[r].row * (int64_t)V, V);
        }
        const device_out *others_made[] = {&ops, &published[0], &published[1]};
        for (int k = 0; k < 3; k++)
            CHECK(memcmp(c, device_result(others_made[k], TFI_F32, live_count * ints), (size_t)live_count * sizeof *c) == 0);
        compare_slots(&w);
        device_end();
    }
}

/* A product of logits, then what is drawn from them: with the logits written, and with keys in place of them. */
typedef struct keyed_case {
    tfi_few_args few;
    float *logits; /* on the device */
    uint64_t *keys;
    int32_t V, made;
} keyed_case;

/* Ties, ids that are barred, rows and columns that are no numbers. */
static keyed_case any_keyed(void)
{
    const int32_t M = pick(9, at_most(SLOTS, 16)),
                  V = at_most(M <= 16 && chance(50) ? 8191
                              : chance(50)          ? 50257
                                                    : 33001,
                              8191),
                  K = 8 * pick(1, 12);
    keyed_case k = {.V = V, .made = M, .logits = device_bytes(M * (int64_t)V * 4), .keys = device_bytes(M * (int64_t)V * 4)};
    const tfi_dtype type = chance(50) ? TFI_BF16 : TFI_F16;
    char *w, *x;

    k.few = (tfi_few_args){.M = M, .N = V, .K = K, .type = type, .out = TFI_F32, .encode = device_encoder()};
    k.few.x = x = device_values(type, M * (int64_t)K, -1, 1, 0, NULL);
    k.few.w = w = device_values(type, V * (int64_t)K, -1, 1, 0, NULL);
    if (chance(50)) { /* every logit twice */
        const int64_t half = V / 2 * (int64_t)K * 2;
        device_ok(cudaMemcpy(w + half, w, (size_t)half, cudaMemcpyDeviceToDevice), "cudaMemcpy");
    }
    if (chance(30)) device_ok(cudaMemset(x + pick(0, M - 1) * (int64_t)K * 2, 0xff, (size_t)K * 2), "cudaMemset");
    if (chance(30)) {
        float *bias = host_bytes(V * (int64_t)sizeof *bias);
        const float all = chance(30) ? -INFINITY : 0;
        for (int32_t i = 0; i < V; i++) bias[i] = all;
        if (chance(30)) bias[pick(0, V - 1)] = chance(50) ? INFINITY : NAN;
        if (chance(50)) bias[pick(0, 11)] = 90;
        k.few.bias = device_copy(bias, V * (int64_t)sizeof *bias);
    }
    return k;
}

static void draw_keyed(const tfi_cuda_launch *l, const keyed_case *k, tfi_draw_args *draw, int keyed)
{
    tfi_few_args few = k->few;

    draw->logits = draw->x = k->logits;
    few.y = keyed ? (void *)k->keys : (void *)k->logits;
    if (keyed) few.draws = draw->draws, few.slots = draw->slots;
    const int64_t parts = tfi_cuda_few_parts(l, &few);
    CHECK(parts > 0 && parts * 8 <= k->V * 4);
    CHECK_OK(tfi_cuda_few(l, &few, TFI_ROWS_SELECTED));
    if (keyed) CHECK_OK(tfi_cuda_greedy_of_keys(l, draw, k->keys, parts));
    else CHECK_OK(tfi_cuda_greedy(l, draw));
}

static void greedy_keys(void)
{
    for (int i = -1; device_capability == 90 && next_case(&i, 40);) {
        const keyed_case k = any_keyed();
        const int32_t live_count = pick(1, k.made);
        const int64_t ints = (int64_t)(sizeof(tfi_choice) / 4);
        tfi_cuda_live live = live_draws(live_count, live_count);
        world w = {.count = 0};
        tfi_draw draws[SLOTS];
        for (int32_t r = 0; r < k.made; r++) {
            tfi_sampling *s = host_bytes(sizeof *s);
            *s = plain_sampling(k.V);
            s->eos_count = pick(0, 3);
            s->eos = any_ids(3, k.V);
            if (chance(60)) s->min_length = pick(0, TOKENS);
            if (chance(60)) s->min_new_tokens = pick(0, TOKENS);
            add_slot(&w, s, device_sampling(s), pick(2, TOKENS - 4), TOKENS);
            draws[r] = (tfi_draw){.slot = k.made - 1 - r, .row = r};
        }
        send_slots(&w);
        const tfi_slot *others = copy_slots(&w);
        device_out choices[2], published[2];
        tfi_draw_args draw = {.draws = device_copy(draws, sizeof draws), .count = k.made, .V = k.V};
        for (int keyed = 0; keyed < 2; keyed++) {
            choices[keyed] = device_output(TFI_F32, k.made * ints, 0);
            published[keyed] = device_output(TFI_F32, k.made * ints, 0);
            live.published = published[keyed].data;
            const tfi_cuda_launch l = device_launch(&live, 90, 0);
            draw.slots = keyed ? (tfi_slot *)others : w.device;
            draw.choices = choices[keyed].data;
            device_begin();
            for (int step = 0; step < at_most(3, 1); step++) draw_keyed(&l, &k, &draw, keyed); /* counts go on */
            device_run();
        }
        const void *expected = device_result(&choices[0], TFI_F32, live_count * ints);
        const device_out *others_made[] = {&choices[1], &published[0], &published[1]};
        for (int n = 0; n < 3; n++)
            CHECK(memcmp(expected, device_result(others_made[n], TFI_F32, live_count * ints),
                         (size_t)live_count * sizeof(tfi_choice)) == 0);
        device_end();
    }
}

/* Whatever a request asks for beside least lengths. */
static void is_greedy(void)
{
    static const int32_t ids[] = {0, 1};

    for (int i = 0; i < 23; i++) {
        tfi_sampling s = plain_sampling(100);
        switch (i) {
#define CASE(number, change)                                                                                                   \
    case number:                                                                                                               \
        s.change;                                                                                                              \
        break
            CASE(0, sequence_bias = ((tfi_id_lists){1, ids, ids}));
            CASE(1, encoder_repetition_penalty = 1.1f);
            CASE(2, repetition_penalty = 0.9f);
            CASE(3, presence_penalty = -1);
            CASE(4, frequency_penalty = 1);
            CASE(5, no_repeat_ngram_size = 2);
            CASE(6, encoder_no_repeat_ngram_size = 2);
            CASE(7, bad_words = ((tfi_id_lists){1, ids, ids}));
            CASE(8, forced_bos = 0);
            CASE(9, forced_eos_count = 1);
            CASE(10, remove_invalid_values = 1);
            CASE(11, decay_start = 0);
            CASE(12, suppress_count = 1);
            CASE(13, begin_suppress_count = 1);
            CASE(14, do_sample = 1);
            CASE(15, renormalize_logits = 1);
            CASE(16, num_beams = 2);
            CASE(17, min_length = 5); /* from here on they are */
            CASE(18, min_new_tokens = 5);
            CASE(19, eos_count = 1);
            CASE(20, logprobs = 1);
            CASE(21, temperature = 2); /* warpers are for samplers */
            CASE(22, top_k = 5);
#undef CASE
        }
        CHECK_INT(tfi_cuda_is_greedy(&s) != 0, i >= 17);
    }
}

void check_draw_kernels(int argc, char **argv)
{
    check_kind(argc, argv, "process", process);
    check_kind(argc, argv, "sample", sample);
    check_kind(argc, argv, "greedy", greedy);
    check_kind(argc, argv, "greedy_keys", greedy_keys);
    check_kind(argc, argv, "is_greedy", is_greedy);
}

/* ---- times ---- */

typedef struct draw_bench {
    tfi_cuda_launch l;
    tfi_process_args constrain, warp;
    tfi_draw_args draw;
    int what; /* bits: which of the four, greedy alone, the product in front of them */
    int beams;
    tfi_few_args product;
} draw_bench;

static void launch_draw(const void *user, int i)
{
    const draw_bench *b = user;
    (void)i;
    if (b->what & 32) (void)tfi_cuda_few(&b->l, &b->product, TFI_ROWS_SELECTED);
    if (b->what & 1) (void)tfi_cuda_process(&b->l, &b->constrain);
    if (b->what & 2) (void)tfi_cuda_process(&b->l, &b->warp);
    if (b->what & 4) (void)(b->beams ? tfi_cuda_beam_step : tfi_cuda_sample)(&b->l, &b->draw);
    if (b->what & 8) (void)tfi_cuda_stop(&b->l, &b->draw);
    if (b->what & 16) (void)tfi_cuda_greedy(&b->l, &b->draw);
}

/* What writes the logits, of T5-base's size: its weights have been through L2 when the draws' code and records are wanted. */
static tfi_few_args product_of(float *y, int32_t rows, int32_t V)
{
    enum { K = 768 };
    const int64_t count = K * (int64_t)(rows + V);
    uint16_t *halves = host_bytes(count * 2);

    for (int64_t i = 0; i < count; i++) halves[i] = (uint16_t)((check_random() & 0x83ff) | 0x2c00);
    return (tfi_few_args){.x = device_copy(halves, K * (int64_t)rows * 2),
                          .w = device_copy(halves + K * (int64_t)rows, K * (int64_t)V * 2),
                          .y = y,
                          .M = rows,
                          .N = V,
                          .K = K,
                          .type = TFI_F16,
                          .out = TFI_F32,
                          .encode = device_encoder()};
}

/* Rows of greedy search, of sampling with top_k 50, top_p 0.9 and a temperature, of sampling with top_p alone, and of beams. */
static void bench_rows(const char *name, int32_t rows, int32_t V, const tfi_sampling *s)
{
    const tfi_cuda_live live = live_draws(rows, rows);
    const int64_t bytes = rows * (int64_t)V * 4, tokens = BENCH_TOKENS * (int64_t)sizeof(int32_t);
    const tfi_sampling *sampling = device_sampling(s);
    tfi_slot *slots = host_bytes(rows * (int64_t)sizeof *slots);
    tfi_draw *draws = host_bytes(rows * (int64_t)sizeof *draws);
    int32_t *row_slots = host_bytes(rows * (int64_t)sizeof *row_slots);
    float *x = host_bytes(bytes);
    static const char *const parts[] = {"constrain", "warp", "draw", "stop", "all", "greedy", "product", "product and all"};
    static const int whats[] = {1, 2, 4, 8, 15, 16, 32, 47};
    draw_bench b = {.l = device_launch(&live, device_capability, tfi_cuda_beam_step_scratch(rows)), .beams = s->num_beams > 1};

    for (int64_t i = 0; i < rows * (int64_t)V; i++) x[i] = -60 + 6 * (check_uniform(-1, 1) + check_uniform(-1, 1));
    for (int32_t i = 0; i < rows; i++) {
        tfi_beams *beams = b.beams && i % s->num_beams == 0 ? device_beams(new_beams(s->num_beams), s->num_beams) : NULL;
        slots[i] = (tfi_slot){.sampling = sampling,
                              .tokens = device_bytes(tokens),
                              .count = 40,
                              .sequence = b.beams ? i % s->num_beams : 0,
                              .beams = b.beams && !beams ? slots[i - 1].beams : beams};
        device_ok(cudaMemset(slots[i].tokens, 0, (size_t)tokens), "cudaMemset");
        draws[i] = (tfi_draw){i, i};
        row_slots[i] = i;
    }
    b.constrain = (tfi_process_args){.x = device_copy(x, bytes),
                                     .row_slots = device_copy(row_slots, rows * 4),
                                     .slots = device_copy(slots, rows * (int64_t)sizeof *slots),
                                     .y = device_bytes(bytes),
                                     .S = rows,
                                     .V = V};
    b.warp = b.constrain;
    b.warp.stage = TFI_PROCESS_WARP;
    b.warp.x = b.constrain.y;
    b.warp.y = device_bytes(bytes);
    b.draw = (tfi_draw_args){.x = b.warp.y,
                             .logits = b.constrain.x,
                             .draws = device_copy(draws, rows * (int64_t)sizeof *draws),
                             .slots = (tfi_slot *)b.warp.slots,
                             .choices = device_bytes(rows * (int64_t)sizeof(tfi_choice)),
                             .count = rows,
                             .V = V};
    printf("%-22s %3d x %d:", name, rows, V);
    b.product = product_of((float *)(uintptr_t)b.constrain.x, rows, V);
    for (int i = 0; i < 8; i++) {
        if ((whats[i] == 16 && !tfi_cuda_is_greedy(s)) || (whats[i] >= 32 && !tfi_cuda_few_fits(&b.product, device_capability)))
            continue;
        b.what = whats[i];
        printf(" %s %.2f us", parts[i], bench_us(launch_draw, &b, 40));
    }
    printf(", floor %.2f us of reading %.1f MB at 4.3 TB/s\n", 6 * (double)bytes / 4.3e6, 6 * (double)bytes / 1e6);
    device_end();
}

void bench_draw(void)
{
    tfi_sampling greedy = plain_sampling(50257), nucleus, best, beams;

    greedy.max_length = BENCH_TOKENS;
    nucleus = beams = greedy;
    nucleus.do_sample = 1;
    nucleus.temperature = 0.8f;
    nucleus.top_p = 0.9f;
    best = nucleus;
    best.top_k = 50;
    beams.num_beams = 4;
    for (int32_t rows = 1; rows <= 64; rows += 63) {
        bench_rows("greedy", rows, 50257, &greedy);
        bench_rows("top_k 50, top_p 0.9", rows, 50257, &best);
        bench_rows("top_p 0.9", rows, 50257, &nucleus);
        bench_rows("4 beams", rows == 1 ? 4 : rows, 32128, &beams);
    }
}
