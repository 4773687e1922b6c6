#include "generate/decode_step.h"

#include <math.h>
#include <string.h>

#include "base/status.h"

/* ---- memory ---- */

/* A run's tables have one stride, its longest sequence's; together they hold no more than this. */
static int64_t table_ints(const tfi_engine *engine)
{
    return engine->step_limits[TFI_ROWS_SEQUENCES] * tfi_blocks_of(engine->step_limits[TFI_LIMIT_KV_TOKENS]);
}

static int64_t count_ints(const tfi_engine *engine)
{
    const int64_t tokens = engine->step_limits[TFI_ROWS_TOKENS], sequences = engine->step_limits[TFI_ROWS_SEQUENCES];
    return 5 * tokens + 5 * sequences + 1 + 2 * table_ints(engine);
}

/* Logits and scores kept a row, two for a callback; a prompt's scores. */
static int64_t tap_limit(const tfi_engine *engine)
{
    return 5 * engine->step_limits[TFI_ROWS_SEQUENCES];
}

static int64_t block_bytes(const tfi_engine *engine)
{
    return engine->step_limits[TFI_ROWS_SEQUENCES] * (int64_t)(sizeof(tfi_decode_part) + sizeof(tfi_draw) + sizeof(tfi_choice) +
                                                               sizeof(tfi_decode_tables) + sizeof(tfi_kv_move)) +
           tap_limit(engine) * (int64_t)sizeof(tfi_tap) + count_ints(engine) * (int64_t)sizeof(int32_t);
}

int64_t tfi_decode_step_bytes(const tfi_engine *engine)
{
    return block_bytes(engine);
}

tf_status tfi_decode_step_open(tfi_decode_step *d, const tfi_engine *engine, tfi_program *program, tfi_room *room)
{
    const int64_t tokens = engine->step_limits[TFI_ROWS_TOKENS], sequences = engine->step_limits[TFI_ROWS_SEQUENCES];

    *d = (tfi_decode_step){.engine = engine, .program = program, .room = room, .block_bytes = block_bytes(engine)};
    if (!(d->block = tfi_zalloc(engine->memory, (size_t)d->block_bytes))) return TF_STATUS_NOMEM;
    d->parts = d->block;
    d->tables = (tfi_decode_tables *)(d->parts + sequences);
    d->taps = (tfi_tap *)(d->tables + sequences);
    d->draws = (tfi_draw *)(d->taps + tap_limit(engine));
    d->choices = (tfi_choice *)(d->draws + sequences);
    d->moves = (tfi_kv_move *)(d->choices + sequences);
    d->ids = (int32_t *)(d->moves + sequences);
    d->positions = d->ids + tokens;
    d->selected = d->positions + tokens;
    d->row_slots = d->selected + tokens;
    d->targets = d->row_slots + tokens;
    d->kv_lens = d->targets + tokens;
    d->source_lens = d->kv_lens + sequences;
    d->copies = d->source_lens + sequences;
    d->offsets = d->copies + 2 * sequences;
    d->kv_tables = d->offsets + sequences + 1;
    d->source_tables = d->kv_tables + table_ints(engine);
    return TF_STATUS_OK;
}

void tfi_decode_step_close(tfi_decode_step *d)
{
    if (d->block) tfi_free(d->engine->memory, d->block, (size_t)d->block_bytes);
    memset(d, 0, sizeof *d);
}

/* ---- plan ---- */

static void begin(tfi_decode_step *d)
{
    d->part_count = d->rows = d->sequences = d->selected_count = d->draw_count = d->copy_count = 0;
    d->kv_stride = d->source_stride = 0;
    d->any_moves = 0;
    d->embeddings = NULL;
    d->needs_host = 0;
}

static tfi_decode_part *add_part(tfi_decode_step *d, tf_generate *g)
{
    tfi_decode_part *p = &d->parts[d->part_count++];

    *p = (tfi_decode_part){.request = g, .first_selected = d->selected_count, .first_draw = d->draw_count};
    g->in_use++;
    if (g->started_ms < 0) g->started_ms = tfi_now_ms();
    return p;
}

/* The step before decides whose blocks the beam goes on with; only the one that it appends to is known. */
static void add_move(tfi_decode_step *d, tf_generate *g, tfi_sequence *q, int32_t stored)
{
    const int32_t full = stored / TFI_KV_BLOCK, any = stored % TFI_KV_BLOCK != 0;

    tfi_request_take_next(g, q);
    d->tables[d->sequences].own_blocks = full;
    d->tables[d->sequences].next = q->next;
    d->moves[d->sequences] = (tfi_kv_move){.slot = q->slot,
                                           .first = (int32_t)(d->sequences - (q - g->sequences)),
                                           .filled = any ? q->table[full] : -1,
                                           .copy = any ? (int32_t)d->copy_count++ : -1};
    d->any_moves = 1;
}

/* Rows of one sequence, from its token `from` on. */
static void add_rows(tfi_decode_step *d, tf_generate *g, tfi_sequence *q, int32_t from, int32_t count)
{
    tfi_decode_tables *t = &d->tables[d->sequences];

    *t = (tfi_decode_tables){.own = q->table, .source = g->source_table, .source_blocks = g->source_blocks, .next = -1};
    if (g->ahead_draws > 0 && tfi_request_has_beams(g)) {
        add_move(d, g, q, from);
    } else {
        tfi_sequence_extend(g, q, from + count);
        t->own_blocks = q->blocks;
        d->moves[d->sequences] = (tfi_kv_move){.slot = -1};
    }
    const int64_t blocks = t->own_blocks + (t->next >= 0);
    if (blocks > d->kv_stride) d->kv_stride = blocks;
    if (g->source_blocks > d->source_stride) d->source_stride = g->source_blocks;
    d->offsets[d->sequences] = (int32_t)d->rows;
    d->kv_lens[d->sequences] = from + count;
    d->source_lens[d->sequences] = g->source_count;
    for (int32_t i = 0; i < count; i++, d->rows++) {
        d->ids[d->rows] = from + i >= g->prompt ? TFI_ID_DRAWN(q->slot) : q->tokens[from + i];
        d->positions[d->rows] = from + i;
    }
    d->sequences++;
}

static void select_row(tfi_decode_step *d, tfi_decode_part *p, int64_t row, int32_t slot, int32_t target)
{
    d->selected[d->selected_count] = (int32_t)row;
    d->row_slots[d->selected_count] = slot;
    d->targets[d->selected_count] = target;
    d->selected_count++;
    p->selected++;
}

/* With the draw that is on its way the sequence will be as long as it may: it is not in the step that is planned behind. */
static int is_full(const tf_generate *g, const tfi_sequence *q)
{
    return g->ahead_draws > 0 && q->count + g->ahead_draws >= g->max_length;
}

/* The draws of the request's running sequences, from the rows selected last: one each, or one for all. */
static void add_draws(tfi_decode_step *d, tfi_decode_part *p)
{
    tf_generate *g = p->request;
    const int shared = g->step + g->ahead_draws == 0;
    int64_t row = p->first_selected + p->scored;

    for (int32_t i = 0; i < g->settings.slots; i++) {
        if (g->sequences[i].slot < 0 || is_full(g, &g->sequences[i])) continue;
        d->draws[d->draw_count++] = (tfi_draw){.slot = g->sequences[i].slot, .row = (int32_t)row};
        p->draws++;
        row += !shared;
    }
}

static void add_drawn(tfi_decode_step *d, tf_generate *g)
{
    tfi_decode_part *p = add_part(d, g);

    for (int32_t i = 0; i < g->settings.slots; i++) {
        tfi_sequence *q = &g->sequences[i];
        if (q->slot < 0 || is_full(g, q)) continue;
        add_rows(d, g, q, q->count + g->ahead_draws - 1, 1);
        select_row(d, p, d->rows - 1, q->slot, -1);
        p->rows++;
    }
    memcpy(d->copies + 2 * d->copy_count, g->copies, (size_t)g->copy_count * 2 * sizeof(int32_t));
    d->copy_count += g->copy_count;
    g->copy_count = 0;
    if (!g->settings.logits) add_draws(d, p);
}

/* The next rows of a prompt, at most `room`. */
static void add_prompt(tfi_decode_step *d, tf_generate *g, int64_t room)
{
    tfi_sequence *q = &g->sequences[0];
    const int32_t from = q->stored + g->ahead_rows, left = g->prompt - from, count = left < room ? left : (int32_t)room;
    const int64_t row = d->rows;
    tfi_decode_part *p = add_part(d, g);

    add_rows(d, g, q, from, count);
    p->rows = count;
    if (g->embeddings && d->rows == count) d->embeddings = g->embeddings + (int64_t)from * g->width;
    for (int32_t i = from; g->prompt_logprobs && i < from + count && i + 1 < g->prompt; i++)
        select_row(d, p, row + i - from, -1, q->tokens[i + 1]);
    p->scored = p->selected;
    if (from + count < g->prompt) return;
    select_row(d, p, d->rows - 1, q->slot, -1);
    if (!g->settings.logits) add_draws(d, p);
}

int tfi_decode_step_wants(const tf_generate *g)
{
    return !g->in_use && (g->state == TFI_REQUEST_PROMPT || g->state == TFI_REQUEST_DRAWN);
}

/* In the step being planned: not in use but by the step before it, and something of it still goes on. */
static int wants(const tf_generate *g)
{
    if (g->ahead_rows == 0) return tfi_decode_step_wants(g);
    if (g->in_use > 1 || g->cancelled) return 0;
    for (int32_t i = 0; i < g->settings.slots; i++)
        if (g->sequences[i].slot >= 0 && !is_full(g, &g->sequences[i])) return 1;
    return 0;
}

static int reads_prompt(const tf_generate *g)
{
    return g->state == TFI_REQUEST_PROMPT && g->ahead_draws == 0;
}

/* Requests that decode always fit: a session has no more slots than a pass has rows. What is left goes to prompts, in order. A prompt of
 * embeddings comes first, for its rows have to be those of one array; one a pass. */
static void fill(tfi_decode_step *d, tf_generate *requests)
{
    int64_t rows = d->engine->step_limits[TFI_ROWS_TOKENS], sequences = d->engine->step_limits[TFI_ROWS_SEQUENCES];

    begin(d);
    for (const tf_generate *g = requests; g; g = g->next) {
        if (!wants(g) || reads_prompt(g)) continue;
        rows -= g->running;
        sequences -= g->running;
    }
    for (tf_generate *g = requests; g && rows > 0 && sequences > 0; g = g->next) {
        if (!wants(g) || !reads_prompt(g) || !g->embeddings) continue;
        add_prompt(d, g, rows);
        rows -= d->rows;
        sequences--;
        break;
    }
    for (tf_generate *g = requests; g; g = g->next)
        if (wants(g) && !reads_prompt(g)) add_drawn(d, g);
    for (tf_generate *g = requests; g && rows > 0 && sequences > 0; g = g->next) {
        const int64_t before = d->rows;
        if (!wants(g) || !reads_prompt(g) || g->embeddings) continue;
        add_prompt(d, g, rows);
        rows -= d->rows - before;
        sequences--;
    }
}

static int may_go_ahead(const tfi_decode_step *d)
{
    for (int64_t i = 0; i < d->part_count; i++)
        if (!tfi_request_can_go_ahead(d->parts[i].request)) return 0;
    return d->draw_count > 0 && d->selected_count <= d->engine->step_limits[TFI_ROWS_SELECTED];
}

int tfi_decode_step_plan(tfi_decode_step *d, tf_generate *requests)
{
    fill(d, requests);
    d->needs_host = !may_go_ahead(d);
    return d->part_count > 0;
}

/* Everybody that waits must be able to go along: those that wait for the host's word would otherwise fall behind the others. */
int tfi_decode_step_plan_ahead(tfi_decode_step *d, tf_generate *requests, const tfi_decode_step *before)
{
    for (const tf_generate *g = requests; g; g = g->next)
        if (g->state != TFI_REQUEST_DONE && g->state != TFI_REQUEST_SOURCE && !tfi_request_can_go_ahead(g)) return 0;
    for (int64_t i = 0; i < before->part_count; i++) {
        const tfi_decode_part *p = &before->parts[i];
        p->request->ahead_draws = p->draws > 0;
        p->request->ahead_rows = p->rows;
    }
    (void)tfi_decode_step_plan(d, requests);
    for (int64_t i = 0; i < before->part_count; i++)
        before->parts[i].request->ahead_draws = before->parts[i].request->ahead_rows = 0;
    return d->part_count > 0;
}

/* ---- run ---- */

/* The tables of all sequences, now that the longest is known. */
static void fill_tables(tfi_decode_step *d)
{
    for (int64_t i = 0; i < d->sequences; i++) {
        const tfi_decode_tables *t = &d->tables[i];
        memcpy(d->kv_tables + i * d->kv_stride, t->own, (size_t)t->own_blocks * sizeof(int32_t));
        if (t->next >= 0) d->kv_tables[i * d->kv_stride + t->own_blocks] = t->next;
        if (t->source_blocks > 0)
            memcpy(d->source_tables + i * d->source_stride, t->source, (size_t)t->source_blocks * sizeof(int32_t));
    }
    d->offsets[d->sequences] = (int32_t)d->rows;
}

static void add_tap(tfi_decode_step *d, tfi_run *run, int32_t value, int64_t first, int64_t count, float *dst, int64_t stride)
{
    d->taps[run->tap_count++] =
        (tfi_tap){.value = value, .infinite = 1, .first = first, .count = count, .dst = dst, .stride = stride};
}

/* Where the logits of row `row` of a request's drawn rows are kept: by step and sequence, also when others have ended. */
static float *kept_row(const tf_generate *g, float *kept, int32_t row)
{
    int32_t i = 0;

    for (int32_t seen = -1; i < g->settings.slots; i++)
        if (g->sequences[i].slot >= 0 && ++seen == row) break;
    return kept + ((int64_t)g->step * g->settings.slots + i) * g->vocab;
}

/* What is wanted of the part's selected rows [from, to) of the run; its drawn rows are never cut. */
static void tap_part(tfi_decode_step *d, tfi_run *run, const tfi_decode_part *p, int64_t from, int64_t to)
{
    const tfi_model *def = d->engine->def;
    tf_generate *g = p->request;
    const int64_t scored_end = p->first_selected + p->scored;
    const int64_t first = p->first_selected > from ? p->first_selected : from, end = scored_end < to ? scored_end : to;
    const int32_t drawn = p->selected - p->scored;

    if (first < end) {
        const int32_t token = g->sequences[0].stored + (int32_t)(first - p->first_selected); /* of the chunk's first row */
        add_tap(d, run, def->draw.logprob, first - from, end - first, g->prompt_logprobs + token + 1, 1);
    }
    if (drawn == 0 || scored_end < from || scored_end >= to) return;
    const int64_t row = scored_end - from;
    if (g->settings.logits) {
        add_tap(d, run, def->draw.constrained, row, drawn, g->callback_logits, g->vocab);
        add_tap(d, run, def->logits, row, drawn, g->callback_raw, g->vocab);
    }
    for (int32_t i = 0; i < drawn; i++) {
        if (g->logits) add_tap(d, run, def->logits, row + i, 1, kept_row(g, g->logits, i), g->vocab);
        if (g->scores && !g->settings.logits)
            add_tap(d, run, def->draw.warped, row + i, 1, kept_row(g, g->scores, i), g->vocab);
    }
}

/* Selected rows from `from` on that one run holds: the drawn rows of a part stay together. */
static int64_t chunk_end(const tfi_decode_step *d, int64_t from)
{
    const int64_t limit = from + d->engine->step_limits[TFI_ROWS_SELECTED];

    if (d->selected_count <= limit) return d->selected_count;
    for (int64_t i = 0; i < d->part_count; i++) {
        const tfi_decode_part *p = &d->parts[i];
        const int64_t drawn = p->first_selected + p->scored, end = p->first_selected + p->selected;
        if (drawn < limit && limit < end) return drawn;
    }
    return limit;
}

static void take_draws(tfi_decode_step *d, tfi_run *run, int64_t from, int64_t to, int64_t *draw)
{
    run->draws = d->draws + *draw;
    run->choices = d->choices + *draw;
    run->draw_count = 0;
    for (; *draw < d->draw_count && d->draws[*draw].row < to; ++*draw, run->draw_count++) d->draws[*draw].row -= (int32_t)from;
}

tf_status tfi_decode_step_run(tfi_decode_step *d)
{
    tfi_run *run = &d->run;
    int64_t from = 0, draw = 0;
    tf_status st;

    *run = (tfi_run){.taps = d->taps,
                     .store = d->room->store,
                     .effects = TFI_EFFECT_KV,
                     .stream = d->engine->stream,
                     .table_stride = d->kv_stride,
                     .source_stride = d->source_stride,
                     .copy_count = d->copy_count,
                     .ahead = d->engine->backend->runs_ahead && !d->needs_host};
    fill_tables(d);
    run->rows[TFI_ROWS_TOKENS] = d->rows;
    run->rows[TFI_ROWS_SEQUENCES] = d->sequences;
    run->inputs[TFI_INPUT_IDS] = d->ids;
    run->inputs[TFI_INPUT_EMBEDDINGS] = d->embeddings;
    run->inputs[TFI_INPUT_POSITIONS] = d->positions;
    run->inputs[TFI_INPUT_OFFSETS] = d->offsets;
    run->inputs[TFI_INPUT_KV_LENS] = d->kv_lens;
    run->inputs[TFI_INPUT_KV_TABLES] = d->kv_tables;
    run->inputs[TFI_INPUT_KV_MOVES] = d->any_moves ? d->moves : NULL;
    run->inputs[TFI_INPUT_KV_COPIES] = d->copies;
    run->inputs[TFI_INPUT_SOURCE_LENS] = d->source_lens;
    run->inputs[TFI_INPUT_SOURCE_TABLES] = d->source_tables;
    for (;;) {
        const int64_t to = chunk_end(d, from);
        run->rows[TFI_ROWS_SELECTED] = to - from;
        run->inputs[TFI_INPUT_SELECTED] = d->selected + from;
        run->inputs[TFI_INPUT_ROW_SLOTS] = d->row_slots + from;
        run->inputs[TFI_INPUT_TARGETS] = d->targets + from;
        run->tap_count = 0;
        for (int64_t i = 0; i < d->part_count; i++) tap_part(d, run, &d->parts[i], from, to);
        take_draws(d, run, from, to, &draw);
        if (run->draw_count > 0) run->effects |= TFI_EFFECT_DRAW;
        if ((st = d->engine->backend->run(d->program, run)) < 0) return st;
        if (to == d->selected_count) return TF_STATUS_OK; /* the last run's record may still be waited with */
        run->resume = 1;
        run->effects = 0;
        from = to;
    }
}

/* ---- apply ---- */

static int has_nan(const float *x, int32_t n)
{
    for (int32_t i = 0; i < n; i++)
        if (isnan(x[i])) return 1;
    return 0;
}

/* What has been read of a request. */
static void advance(const tfi_decode_step *d, const tfi_decode_part *p)
{
    tf_generate *g = p->request;

    if (g->state == TFI_REQUEST_PROMPT) {
        const int32_t read = g->sequences[0].stored;
        g->sequences[0].stored += p->rows;
        if (p->scored > 0 && has_nan(g->prompt_logprobs + read + 1, p->scored)) {
            tfi_request_fail(g, TF_STATUS_NUMERIC, "log-probabilities of the prompt are NaN");
            return;
        }
    } else if (g->state == TFI_REQUEST_DRAWN) {
        for (int32_t i = 0; i < g->settings.slots; i++)
            if (g->sequences[i].slot >= 0) g->sequences[i].stored = g->sequences[i].count;
    }
    if (p->draws > 0) tfi_request_drawn(g, d->draws + p->first_draw, d->choices + p->first_draw);
    else if (p->selected > p->scored) g->state = TFI_REQUEST_CALL;
}

void tfi_decode_step_apply(tfi_decode_step *d, tf_status status)
{
    for (int64_t i = 0; i < d->part_count; i++) {
        const tfi_decode_part *p = &d->parts[i];
        tf_generate *g = p->request;
        g->in_use--;
        if (status < 0) tfi_request_fail(g, status, tf_last_error());
        else if (g->state != TFI_REQUEST_DONE && !g->cancelled) advance(d, p);
        if (g->cancelled) tfi_request_end(g, TF_FINISH_CANCELLED);
        if (!g->in_use) tfi_request_settle(g);
    }
}

/* ---- after a callback ---- */

void tfi_decode_step_plan_called(tfi_decode_step *d, tf_generate *g)
{
    const int32_t rows = tfi_request_rows(g);
    tfi_decode_part *p;

    begin(d);
    p = add_part(d, g);
    for (int32_t i = 0, row = 0; row < rows; i++)
        if (g->sequences[i].slot >= 0) select_row(d, p, row++, g->sequences[i].slot, -1);
    add_draws(d, p);
}

tf_status tfi_decode_step_run_called(tfi_decode_step *d)
{
    const tfi_model *def = d->engine->def;
    const tfi_decode_part *p = &d->parts[0];
    tf_generate *g = p->request;
    const tfi_feed feeds[] = {{.value = def->draw.constrained, .src = g->callback_logits, .stride = g->vocab},
                              {.value = def->logits, .src = g->callback_raw, .stride = g->vocab}};
    tfi_run run = {.taps = d->taps,
                   .feeds = feeds,
                   .feed_count = 2,
                   .resume = 1,
                   .store = d->room->store,
                   .effects = TFI_EFFECT_DRAW,
                   .stream = d->engine->stream,
                   .draws = d->draws,
                   .choices = d->choices,
                   .draw_count = d->draw_count};

    run.rows[TFI_ROWS_SELECTED] = p->selected;
    run.inputs[TFI_INPUT_ROW_SLOTS] = d->row_slots;
    for (int32_t i = 0; g->scores && i < p->selected; i++)
        add_tap(d, &run, def->draw.warped, i, 1, kept_row(g, g->scores, i), g->vocab);
    return d->engine->backend->run(d->program, &run);
}
