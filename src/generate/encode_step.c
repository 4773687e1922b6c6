#include "generate/encode_step.h"

#include <stdio.h>
#include <string.h>

#include "base/status.h"

enum { TAPS_MAX = 2 * TFI_OUTPUTS_MAX }; /* of one run */

/* ---- memory ---- */

/* A source is one sequence of a pass, so its blocks are bounded by the pass's tokens. */
static int64_t table_stride(const tfi_engine *engine)
{
    return engine->store.blocks ? tfi_blocks_of(engine->encode_limits[TFI_ROWS_TOKENS]) : 0;
}

static int64_t count_ints(const tfi_engine *engine)
{
    const int64_t tokens = engine->encode_limits[TFI_ROWS_TOKENS], sequences = engine->encode_limits[TFI_ROWS_SEQUENCES];
    return 3 * tokens + 2 * sequences + 1 + engine->encode_limits[TFI_ROWS_SELECTED] + sequences * (1 + table_stride(engine));
}

static int64_t block_bytes(const tfi_engine *engine)
{
    return engine->encode_limits[TFI_ROWS_SEQUENCES] * (int64_t)sizeof(tfi_encode_part) + TAPS_MAX * (int64_t)sizeof(tfi_tap) +
           count_ints(engine) * (int64_t)sizeof(int32_t);
}

tf_status tfi_encode_step_bytes(const tfi_engine *engine, int64_t *bytes)
{
    tf_status st = engine->backend->program_bytes(engine->backend, &engine->def->graph, engine->encode_limits, bytes);
    if (st == TF_STATUS_OK) *bytes += block_bytes(engine);
    return st;
}

tf_status tfi_encode_step_open(tfi_encode_step *e, const tfi_engine *engine, tfi_store *store)
{
    const int64_t *limits = engine->encode_limits;

    *e = (tfi_encode_step){.engine = engine, .store = store, .block_bytes = block_bytes(engine)};
    if (!(e->block = tfi_zalloc(engine->memory, (size_t)e->block_bytes))) return TF_STATUS_NOMEM;
    e->parts = e->block;
    e->taps = (tfi_tap *)(e->parts + limits[TFI_ROWS_SEQUENCES]);
    e->ids = (int32_t *)(e->taps + TAPS_MAX);
    e->positions = e->ids + limits[TFI_ROWS_TOKENS];
    e->types = e->positions + limits[TFI_ROWS_TOKENS];
    e->offsets = e->types + limits[TFI_ROWS_TOKENS];
    e->last = e->offsets + limits[TFI_ROWS_SEQUENCES] + 1;
    e->selected = e->last + limits[TFI_ROWS_SEQUENCES];
    e->source_lens = e->selected + limits[TFI_ROWS_SELECTED];
    e->source_tables = e->source_lens + limits[TFI_ROWS_SEQUENCES];
    return engine->backend->program_open(engine->backend, &engine->def->graph, engine->forms, limits, engine->memory, &e->program);
}

void tfi_encode_step_close(tfi_encode_step *e)
{
    if (e->program) e->engine->backend->program_close(e->program);
    if (e->block) tfi_free(e->engine->memory, e->block, (size_t)e->block_bytes);
    memset(e, 0, sizeof *e);
}

/* ---- plan ---- */

/* The job's rows inside its sequences [first, last). */
static void select_rows(tfi_encode_part *p)
{
    const tfi_job *job = p->job;
    const int64_t begin = job->starts[p->first], end = job->starts[p->last];

    if (!job->rows) {
        p->selected_from = begin;
        p->selected_to = end;
        return;
    }
    p->selected_from = job->row_next;
    while (p->selected_from < job->row_count && job->rows[p->selected_from] < begin) p->selected_from++;
    p->selected_to = p->selected_from;
    while (p->selected_to < job->row_count && job->rows[p->selected_to] < end) p->selected_to++;
}

static int wants_selected(const tfi_graph *g, const tfi_job *job)
{
    for (int32_t i = 0; i < job->output_count; i++)
        if (g->values[job->outputs[i].value].rows == TFI_ROWS_SELECTED) return 1;
    return 0;
}

/* As many of the job's next sequences as fit. */
static int take(tfi_encode_step *e, tfi_job *job)
{
    const int64_t *limits = e->engine->encode_limits;
    tfi_encode_part *p = &e->parts[e->part_count];

    *p = (tfi_encode_part){.job = job, .first = job->next, .last = job->next, .row = e->tokens};
    while (p->last < job->count && e->sequences < limits[TFI_ROWS_SEQUENCES] &&
           e->tokens + job->starts[p->last + 1] - job->starts[p->last] <= limits[TFI_ROWS_TOKENS]) {
        e->tokens += job->starts[p->last + 1] - job->starts[p->last];
        e->sequences++;
        p->last++;
    }
    if (p->last == p->first) return 0;
    if (wants_selected(&e->engine->def->graph, job)) select_rows(p);
    job->in_step = 1;
    e->part_count++;
    return 1;
}

int tfi_encode_step_plan(tfi_encode_step *e, tfi_job *jobs)
{
    int64_t outputs = 0;
    const tfi_job *first;

    while (jobs && jobs->stopped) jobs = jobs->following;
    first = jobs;
    e->part_count = e->sequences = e->tokens = 0;
    for (tfi_job *job = jobs; job; job = job->following) {
        if (job != first && (job->stopped || job->alone || job->embeddings || job->skip != first->skip || outputs + job->output_count > TAPS_MAX)) continue;
        if (!take(e, job) || job->alone || job->embeddings) break; /* in order: what does not fit comes first in the next step */
        outputs += job->output_count;
    }
    return e->part_count > 0;
}

/* ---- run ---- */

/* The token that stands for a sequence: its last one, or its last one that is not padding; its first if all are. */
static int64_t last_token(const tfi_model *def, const tfi_job *job, int64_t sequence)
{
    int64_t t = job->starts[sequence + 1] - 1;

    while (job->ids && def->last_pad >= 0 && t > job->starts[sequence] && job->ids[t] == def->last_pad) t--;
    return t;
}

/* As the family counts them; RoBERTa skips padding tokens inside a text. */
static void fill_positions(const tfi_model *def, const int32_t *ids, int64_t count, int32_t *positions)
{
    const int32_t base = def->position_base;
    int32_t next = base;

    if (!ids || def->position_pad < 0) {
        for (int64_t i = 0; i < count; i++) positions[i] = base + (int32_t)i;
        return;
    }
    for (int64_t i = 0; i < count; i++) positions[i] = ids[i] == def->position_pad ? def->position_pad : next++;
}

static void fill_sequence(tfi_encode_step *e, const tfi_job *job, int64_t sequence, int64_t row)
{
    const int64_t first = job->starts[sequence], count = job->starts[sequence + 1] - first;
    const size_t bytes = (size_t)count * sizeof(int32_t);
    const int32_t *ids = job->ids ? job->ids + first : NULL;

    if (ids) memcpy(e->ids + row, ids, bytes);
    if (job->type_ids) memcpy(e->types + row, job->type_ids + first, bytes);
    else memset(e->types + row, 0, bytes);
    fill_positions(e->engine->def, ids, count, e->positions + row);
}

static void fill(tfi_encode_step *e)
{
    int64_t sequence = 0;

    e->source_stride = 0;
    for (int64_t i = 0; i < e->part_count; i++) {
        const tf_generate *g = e->parts[i].job->request;
        if (g && g->source_blocks > e->source_stride) e->source_stride = g->source_blocks;
    }
    for (int64_t i = 0; i < e->part_count; i++) {
        const tfi_encode_part *p = &e->parts[i];
        const tf_generate *g = p->job->request;
        for (int64_t k = p->first; k < p->last; k++, sequence++) {
            const int64_t row = p->row + p->job->starts[k] - p->job->starts[p->first];
            e->offsets[sequence] = (int32_t)row;
            e->last[sequence] = (int32_t)(row + last_token(e->engine->def, p->job, k) - p->job->starts[k]);
            e->source_lens[sequence] = g ? g->source_count : 0;
            if (g) memcpy(e->source_tables + sequence * e->source_stride, g->source_table, (size_t)g->source_blocks * sizeof(int32_t));
            fill_sequence(e, p->job, k, row);
        }
    }
    e->offsets[sequence] = (int32_t)e->tokens;
}

static void add_tap(tfi_encode_step *e, tfi_run *run, const tfi_output *o, int64_t first, int64_t count, int64_t dst_row)
{
    e->taps[run->tap_count++] =
        (tfi_tap){.value = o->value, .first = first, .count = count, .dst = o->dst + dst_row * o->stride, .stride = o->stride};
}

/* What each job wants of all its tokens and sequences. */
static void tap_rows(tfi_encode_step *e, tfi_run *run)
{
    const tfi_graph *g = &e->engine->def->graph;
    int64_t sequence = 0;

    for (int64_t i = 0; i < e->part_count; i++) {
        const tfi_encode_part *p = &e->parts[i];
        const int64_t begin = p->job->starts[p->first], count = p->job->starts[p->last] - begin;
        for (int32_t k = 0; k < p->job->output_count; k++) {
            const tfi_output *o = &p->job->outputs[k];
            if (g->values[o->value].rows == TFI_ROWS_TOKENS) add_tap(e, run, o, p->row, count, begin);
            if (g->values[o->value].rows == TFI_ROWS_SEQUENCES) add_tap(e, run, o, sequence, p->last - p->first, p->first);
        }
        sequence += p->last - p->first;
    }
}

/* Select the next rows of the parts from *part on, as many as a run holds, with their taps. Returns how many. */
static int64_t select_chunk(tfi_encode_step *e, tfi_run *run, int64_t *part)
{
    const tfi_graph *g = &e->engine->def->graph;
    const int64_t limit = e->engine->encode_limits[TFI_ROWS_SELECTED];
    int64_t count = 0;

    for (; *part < e->part_count && count < limit; ++*part) {
        tfi_encode_part *p = &e->parts[*part];
        const int64_t left = p->selected_to - p->selected_from, taken = left < limit - count ? left : limit - count;
        const int64_t begin = p->job->starts[p->first];
        for (int64_t i = 0; i < taken; i++) {
            const int64_t at = p->selected_from + i, token = p->job->rows ? p->job->rows[at] : at;
            e->selected[count + i] = (int32_t)(p->row + token - begin);
        }
        for (int32_t k = 0; taken > 0 && k < p->job->output_count; k++)
            if (g->values[p->job->outputs[k].value].rows == TFI_ROWS_SELECTED)
                add_tap(e, run, &p->job->outputs[k], count, taken, p->selected_from);
        count += taken;
        p->selected_from += taken;
        if (taken < left) break;
    }
    return count;
}

static int keeps_sources(const tfi_encode_step *e)
{
    for (int64_t i = 0; i < e->part_count; i++)
        if (e->parts[i].job->request) return 1;
    return 0;
}

tf_status tfi_encode_step_run(tfi_encode_step *e)
{
    const tfi_job *first = e->parts[0].job;
    const int64_t token = first->starts[e->parts[0].first];
    int64_t part = 0;
    tf_status st;

    fill(e);
    tfi_run run = {.taps = e->taps, .effects = keeps_sources(e) ? TFI_EFFECT_KV : 0, .store = e->store, .source_stride = e->source_stride};
    run.stream = e->engine->stream;
    run.rows[TFI_ROWS_TOKENS] = e->tokens;
    run.rows[TFI_ROWS_SEQUENCES] = e->sequences;
    run.inputs[TFI_INPUT_IDS] = first->ids ? e->ids : NULL;
    run.inputs[TFI_INPUT_EMBEDDINGS] = first->embeddings ? first->embeddings + token * e->engine->def->input_width : NULL;
    run.inputs[TFI_INPUT_POSITIONS] = e->positions;
    run.inputs[TFI_INPUT_TYPES] = e->types;
    run.inputs[TFI_INPUT_OFFSETS] = e->offsets;
    run.inputs[TFI_INPUT_LAST] = e->last;
    run.inputs[TFI_INPUT_SELECTED] = e->selected;
    run.inputs[TFI_INPUT_SKIP] = &first->skip;
    run.inputs[TFI_INPUT_SOURCE_LENS] = e->source_lens;
    run.inputs[TFI_INPUT_SOURCE_TABLES] = e->source_tables;
    tap_rows(e, &run);
    do {
        run.rows[TFI_ROWS_SELECTED] = select_chunk(e, &run, &part);
        if ((st = e->engine->backend->run(e->program, &run)) < 0) return st;
        run.resume = 1;
        run.effects = 0;
        run.tap_count = 0;
    } while (part < e->part_count);
    return TF_STATUS_OK;
}

/* ---- apply ---- */

static void fail(tfi_job *job, tf_status status)
{
    job->status = status;
    job->finished = 1;
    snprintf(job->error, sizeof job->error, "%s", tf_last_error());
}

void tfi_encode_step_apply(tfi_encode_step *e, tf_status status)
{
    for (int64_t i = 0; i < e->part_count; i++) {
        const tfi_encode_part *p = &e->parts[i];
        tfi_job *job = p->job;
        job->in_step = 0;
        if (status < 0) {
            if (e->part_count > 1)
                job->alone = 1;
            else
                fail(job, status);
            continue;
        }
        job->next = p->last;
        if (job->rows) job->row_next = p->selected_from;
        job->finished = job->next == job->count;
    }
}
