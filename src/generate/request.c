#define _POSIX_C_SOURCE 200809L /* clock_gettime */

/* The course of a request: what the runs' choices mean for its sequences, beams and blocks. */
#include "generate/request.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/status.h"

int64_t tfi_now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* Beside tf_finish: a beam says itself why it ended. */
enum { FINISH_BY_ITSELF = -1 };

/* ---- blocks ---- */

static int32_t take_block(tf_generate *g)
{
    g->held++;
    return tfi_room_take_block(g->room);
}

static void drop_block(tf_generate *g, int32_t block)
{
    g->held -= tfi_room_drop_block(g->room, block);
}

void tfi_sequence_extend(tf_generate *g, tfi_sequence *q, int32_t stored)
{
    while (q->blocks < tfi_blocks_of(stored)) q->table[q->blocks++] = take_block(g);
}

void tfi_request_take_next(tf_generate *g, tfi_sequence *q)
{
    q->next = take_block(g);
}

static void drop_blocks(tf_generate *g, tfi_sequence *q)
{
    while (q->blocks > 0) drop_block(g, q->table[--q->blocks]);
    if (q->next >= 0) drop_block(g, q->next);
    q->next = -1;
}

/* Has one of the sequences before `i` claimed the block at `at`? */
static int is_claimed(const tf_generate *g, int32_t i, int32_t at, int32_t block)
{
    for (int32_t k = 0; k < i; k++)
        if (g->sequences[k].slot >= 0 && g->sequences[k].table[at] == block) return 1;
    return 0;
}

/* Sequence i goes on from what sequence parents[i] has stored. Full blocks are shared. Of a block that is partly filled the first to
 * go on from it keeps it; the others get copies, made at the beginning of the next run. What nobody goes on from is dropped before
 * copies are taken, so that a request never holds more than it was promised. Where the next run is on its way already, it has copied
 * for all of them, to the blocks they took for it. */
static void reorder(tf_generate *g, const int32_t *parents)
{
    const int32_t slots = g->settings.slots, stored = g->sequences[0].stored, is_ahead = g->sequences[0].next >= 0;
    const int32_t full = stored / TFI_KV_BLOCK, blocks = (int32_t)tfi_blocks_of(stored);

    for (int32_t i = 0; i < slots; i++)
        memcpy(g->old_tables + (int64_t)i * g->max_blocks, g->sequences[i].table, (size_t)blocks * sizeof(int32_t));
    for (int32_t i = 0; i < slots; i++) {
        const int32_t *from = g->old_tables + (int64_t)parents[i] * g->max_blocks;
        tfi_sequence *q = &g->sequences[i];
        for (int32_t k = 0; k < full; k++) tfi_room_hold_block(g->room, q->table[k] = from[k]);
        if (full == blocks || is_ahead) continue;
        q->table[full] = is_claimed(g, i, full, from[full]) ? -1 : from[full];
        if (q->table[full] >= 0) tfi_room_hold_block(g->room, q->table[full]);
    }
    for (int32_t i = 0; i < slots; i++)
        for (int32_t k = 0; k < blocks; k++) drop_block(g, g->old_tables[(int64_t)i * g->max_blocks + k]);
    for (int32_t i = 0; i < slots; i++) {
        tfi_sequence *q = &g->sequences[i];
        q->blocks = is_ahead ? full + 1 : blocks;
        q->stored = stored;
        if (is_ahead) {
            q->table[full] = q->next;
            q->next = -1;
            continue;
        }
        if (full == blocks || q->table[full] >= 0) continue;
        q->table[full] = take_block(g);
        g->copies[2 * g->copy_count] = g->old_tables[(int64_t)parents[i] * g->max_blocks + full];
        g->copies[2 * g->copy_count + 1] = q->table[full];
        g->copy_count++;
    }
}

/* The prompt was read in sequence 0; now all sequences have it. */
static void share_prompt(tf_generate *g)
{
    const tfi_sequence *first = &g->sequences[0];

    for (int32_t i = 1; i < g->settings.slots; i++) {
        tfi_sequence *q = &g->sequences[i];
        q->blocks = first->blocks;
        q->stored = first->stored;
        for (int32_t k = 0; k < first->blocks; k++) tfi_room_hold_block(g->room, q->table[k] = first->table[k]);
    }
}

/* ---- ends ---- */

void tfi_request_settle(tf_generate *g)
{
    for (int32_t i = 0; i < g->settings.slots; i++) {
        tfi_sequence *q = &g->sequences[i];
        if (q->held < 0) continue;
        drop_blocks(g, q);
        tfi_room_drop_slot(g->room, q->held);
        q->held = -1;
    }
    if (g->state != TFI_REQUEST_DONE) return;
    while (g->source_blocks > 0) tfi_room_drop_block(g->room, g->source_table[--g->source_blocks]);
    tfi_room_release(g->room, g->promised);
    g->promised = 0;
}

/* A step that was planned ahead may still run with the sequence: what it holds is given back when nobody has it. */
static void end_sequence(tf_generate *g, tfi_sequence *q)
{
    if (q->slot < 0) return;
    q->held = q->slot;
    q->slot = -1;
    g->running--;
    if (!g->in_use) tfi_request_settle(g);
}

static void done(tf_generate *g)
{
    for (int32_t i = 0; i < g->settings.slots; i++) end_sequence(g, &g->sequences[i]);
    g->copy_count = 0;
    g->state = TFI_REQUEST_DONE;
    if (!g->in_use) tfi_request_settle(g);
}

void tfi_request_fail(tf_generate *g, tf_status status, const char *error)
{
    if (g->state == TFI_REQUEST_DONE) return;
    g->status = status;
    snprintf(g->error, sizeof g->error, "%s", error);
    done(g);
}

/* ---- stop strings ---- */

static int32_t *stop_state(tf_generate *g, int32_t *states, int32_t i)
{
    return states + (int64_t)i * g->stops.count;
}

static void found_stop(tf_generate *g, tfi_generated_sequence *r, const tfi_stop_match *match)
{
    r->stop_index = match->index;
    (void)tfi_stops_find(&g->stops, r->ids, r->count, match, g->settings.skip_special_tokens, &r->stop_begin);
}

int tfi_request_completes(void *user, int32_t beam, int32_t token)
{
    tf_generate *g = user;
    return tfi_stops_completes(&g->stops, stop_state(g, g->stop_states, beam), token);
}

/* ---- beams ---- */

static int is_eos(const tf_generate *g, int32_t token)
{
    for (int32_t i = 0; i < g->settings.sampling.eos_count; i++)
        if (g->settings.sampling.eos[i] == token) return 1;
    return 0;
}

/* The new tokens of the sequence that was beam `beam` before step `step`, into ids [step]; their log-probabilities and beams. */
static void walk_back(const tf_generate *g, int32_t step, int32_t beam, int32_t *ids, float *logprobs, int32_t *beams)
{
    while (step-- > 0) {
        const tfi_beam_trace *t = &g->trace[(int64_t)step * g->settings.slots + beam];
        ids[step] = t->token;
        if (logprobs) logprobs[step] = t->logprob;
        beam = t->parent;
        if (beams) beams[step] = beam;
    }
}

/* Did the whole result of a beam end with a stop string? */
static int search_stop(tf_generate *g, tfi_generated_sequence *r)
{
    int32_t *state = stop_state(g, g->stop_states_before, 0); /* nobody needs it any more */
    tfi_stop_match match;

    if (g->stops.count == 0) return 0;
    tfi_stops_begin(&g->stops, state, g->sequences[0].tokens, g->prompt);
    for (int64_t i = 0; i < r->count; i++)
        if (tfi_stops_add(&g->stops, state, r->ids[i], &match) && i + 1 == r->count) found_stop(g, r, &match);
    return r->stop_index >= 0;
}

static void fill_result(tf_generate *g, tfi_generated_sequence *r, const tfi_finished_beam *f, int32_t finish)
{
    int32_t *ids = (int32_t *)r->ids;

    r->score = f->score;
    r->finish = finish == FINISH_BY_ITSELF ? TF_FINISH_LENGTH : finish;
    if (f->step < 0) return; /* all that could have taken this place was impossible */
    walk_back(g, f->step, f->parent, ids, r->logprobs, r->beams);
    ids[f->step] = f->token;
    r->beams[f->step] = f->parent;
    if (r->logprobs) r->logprobs[f->step] = f->logprob;
    r->count = f->step + 1;
    const int stopped = search_stop(g, r);
    if (finish != FINISH_BY_ITSELF) return;
    if (is_eos(g, f->token)) r->finish = TF_FINISH_EOS;
    else if (stopped) r->finish = TF_FINISH_STOP;
}

/* The search was stopped from outside: beams that still run compete with those that have finished. */
static void finish_running_beams(tf_generate *g)
{
    const tfi_sampling *p = &g->settings.sampling;

    for (int32_t b = 0; b < g->settings.slots && g->step > 0; b++) {
        const tfi_beam_trace *t = &g->trace[(int64_t)(g->step - 1) * g->settings.slots + b];
        tfi_finished_beam f = {.step = g->step - 1, .parent = t->parent, .token = t->token, .logprob = t->logprob};
        f.score = g->running_scores[b] / powf((float)g->step, p->length_penalty);
        for (int32_t i = 0; i < g->settings.slots; i++) {
            tfi_finished_beam *e = &g->finished[i];
            if (e->step >= 0 && e->score >= f.score) continue;
            const tfi_finished_beam pushed = *e;
            *e = f;
            f = pushed;
        }
    }
}

static void finish_beams(tf_generate *g, int32_t finish)
{
    if (finish != FINISH_BY_ITSELF) finish_running_beams(g);
    for (int32_t i = 0; i < g->settings.results; i++) fill_result(g, &g->results[i], &g->finished[i], finish);
    done(g);
}

static void beams_drawn(tf_generate *g, const tfi_choice *choices)
{
    const int32_t slots = g->settings.slots;

    memcpy(g->finished_before, g->finished, (size_t)slots * sizeof *g->finished);
    for (int32_t i = 0; i < slots; i++) {
        const tfi_choice *c = &choices[i];
        if (c->finished_from >= 0) g->finished[i] = g->finished_before[c->finished_from];
        else
            g->finished[i] = (tfi_finished_beam){.step = g->step,
                                                 .parent = c->finished_parent,
                                                 .token = c->finished_token,
                                                 .score = c->finished_score,
                                                 .logprob = c->finished_logprob};
        g->trace[(int64_t)g->step * slots + i] = (tfi_beam_trace){c->parent, c->token, c->logprob};
        g->running_scores[i] = c->score;
        g->parents[i] = c->parent;
    }
    g->step++;
    if (choices[0].stop == TFI_STOP_BEAMS) {
        finish_beams(g, FINISH_BY_ITSELF);
        return;
    }
    reorder(g, g->parents);
    for (int32_t i = 0; i < slots; i++) g->sequences[i].count++;
    if (g->stops.count == 0) return;
    const size_t state_bytes = (size_t)g->stops.count * sizeof(int32_t);
    memcpy(g->stop_states_before, g->stop_states, (size_t)slots * state_bytes);
    for (int32_t i = 0; i < slots; i++) {
        tfi_stop_match match;
        memcpy(stop_state(g, g->stop_states, i), stop_state(g, g->stop_states_before, choices[i].parent), state_bytes);
        (void)tfi_stops_add(&g->stops, stop_state(g, g->stop_states, i), choices[i].token, &match);
    }
}

/* ---- sequences drawn one by one ---- */

static tf_finish finish_of(tf_generate *g, int32_t i, const tfi_choice *c)
{
    tfi_generated_sequence *r = &g->results[i];
    tfi_stop_match match;

    if (g->stops.count > 0 && tfi_stops_add(&g->stops, stop_state(g, g->stop_states, i), c->token, &match))
        found_stop(g, r, &match);
    if (c->stop == TFI_STOP_EOS) return TF_FINISH_EOS;
    if (r->stop_index >= 0) return TF_FINISH_STOP;
    return c->stop == TFI_STOP_LENGTH ? TF_FINISH_LENGTH : TF_FINISH_NONE;
}

static void sequences_drawn(tf_generate *g, const tfi_draw *draws, const tfi_choice *choices)
{
    for (int32_t i = 0; i < g->settings.slots; i++) {
        tfi_sequence *q = &g->sequences[i];
        tfi_generated_sequence *r = &g->results[i];
        if (q->slot < 0) continue;
        for (; draws->slot != q->slot; draws++) choices++;
        q->count++;
        if (r->logprobs) r->logprobs[r->count] = choices->logprob;
        r->count++;
        r->finish = (int32_t)finish_of(g, i, choices);
        draws++;
        choices++;
        if (r->finish != TF_FINISH_NONE) end_sequence(g, q);
    }
    g->step++;
    if (g->running == 0) done(g);
}

/* ---- what the scheduler calls ---- */

int32_t tfi_request_rows(const tf_generate *g)
{
    return g->step == 0 ? 1 : g->running;
}

/* Beams that go ahead hold a block more each until the step before is over. Those whose stop strings the host looks for wait for it. */
static int may_beams_go_ahead(const tf_generate *g)
{
    const int64_t more = g->sequences[0].next < 0 ? g->settings.slots : 0;
    return g->stops.count == 0 && g->held + more <= (int64_t)g->settings.slots * g->max_blocks;
}

int tfi_request_can_go_ahead(const tf_generate *g)
{
    if (g->settings.logits || g->logits || g->scores || g->copy_count > 0) return 0;
    if (tfi_request_has_beams(g) && !may_beams_go_ahead(g)) return 0;
    if (g->state == TFI_REQUEST_PROMPT) return !g->prompt_logprobs && !g->embeddings && g->settings.slots == 1;
    return 1;
}

/* One of the running sequences has no number to draw with. */
static int any_numeric(const tf_generate *g, const tfi_draw *draws, const tfi_choice *choices)
{
    for (int32_t i = 0; i < g->settings.slots; i++) {
        if (g->sequences[i].slot < 0) continue;
        for (; draws->slot != g->sequences[i].slot; draws++) choices++;
        if (choices->stop == TFI_STOP_NUMERIC) return 1;
    }
    return 0;
}

void tfi_request_drawn(tf_generate *g, const tfi_draw *draws, const tfi_choice *choices)
{
    if (any_numeric(g, draws, choices)) {
        tfi_request_fail(g, TF_STATUS_NUMERIC, "the logits hold a NaN or an infinity");
        return;
    }
    if (g->step == 0 && g->settings.slots > 1) {
        share_prompt(g);
        memset(g->parents, 0, (size_t)g->settings.slots * sizeof *g->parents);
        if (!tfi_request_has_beams(g)) reorder(g, g->parents);
    }
    g->state = TFI_REQUEST_DRAWN;
    if (tfi_request_has_beams(g)) beams_drawn(g, choices);
    else sequences_drawn(g, draws, choices);
    if (g->state != TFI_REQUEST_DONE && (float)(tfi_now_ms() - g->started_ms) > 1000 * g->settings.max_time)
        tfi_request_end(g, TF_FINISH_TIME);
}

void tfi_request_end(tf_generate *g, tf_finish finish)
{
    if (g->state == TFI_REQUEST_DONE) return;
    if (finish == TF_FINISH_CANCELLED && g->status == TF_STATUS_OK) g->status = TF_STATUS_CANCELLED;
    if (tfi_request_has_beams(g)) {
        finish_beams(g, (int32_t)finish);
        return;
    }
    for (int32_t i = 0; i < g->settings.slots; i++)
        if (g->sequences[i].slot >= 0) g->results[i].finish = (int32_t)finish;
    done(g);
}

int32_t tfi_request_callback_ids(tf_generate *g, int32_t row, int32_t *count)
{
    int32_t i = 0;

    for (int32_t seen = -1; i < g->settings.slots; i++)
        if (g->sequences[i].slot >= 0 && ++seen == row) break;
    *count = g->prompt + g->step;
    memcpy(g->callback_ids, g->sequences[i].tokens, (size_t)(tfi_request_has_beams(g) ? g->prompt : *count) * sizeof(int32_t));
    if (tfi_request_has_beams(g)) walk_back(g, g->step, i, g->callback_ids + g->prompt, NULL, NULL);
    return i;
}
