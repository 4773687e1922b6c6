/* Sessions: the working memory of runs, and the loop that cuts a batch into steps. One lock guards a step, not a call: callbacks
 * run between steps with no lock held and may use the session themselves. */
#include <string.h>

#include "api/handles.h"
#include "base/options.h"
#include "base/status.h"

struct tf_session {
    tf_model *model;
    tfi_memory memory;
    tfi_program *program;
    int64_t limits[TFI_LIMIT_COUNT];
    pthread_mutex_t lock;        /* guards everything below and the program */
    int32_t *positions, *types;  /* [limits[TOKENS]]; types stay 0 */
    int32_t *offsets;            /* [limits[SEQUENCES] + 1] */
    int32_t *selected;           /* [limits[SELECTED]] */
    tf_session_stats stats;
};

enum {
    DEFAULT_STEP_TOKENS = 2048,
    DEFAULT_SEQUENCES = 512,
    MAX_STEP_TOKENS = 1 << 20,
    SELECTED_MIN = 64,
    SELECTED_BYTES = 16 << 20 /* of logits a step holds before they are copied to the caller */
};

/* Row limits of the session's program from options and model. */
static tf_status read_limits(const tf_model *m, const tf_session_options *o, int64_t limits[TFI_LIMIT_COUNT])
{
    const tfi_model *def = &m->def;
    const int64_t longest = def->max_input_tokens;
    int64_t tokens = longest > DEFAULT_STEP_TOKENS ? longest : DEFAULT_STEP_TOKENS;

    if (tokens > MAX_STEP_TOKENS) tokens = MAX_STEP_TOKENS;
    if (o->max_step_tokens != TF_UNSET) tokens = o->max_step_tokens;
    if (tokens < 1 || tokens > MAX_STEP_TOKENS)
        return tfi_fail(TF_STATUS_INVALID, "max_step_tokens is %lld, outside [1, %d]", (long long)tokens, (int)MAX_STEP_TOKENS);
    int64_t sequences = tokens < DEFAULT_SEQUENCES ? tokens : DEFAULT_SEQUENCES;
    if (o->max_sequences != TF_UNSET) sequences = o->max_sequences;
    if (sequences < 1 || sequences > tokens)
        return tfi_fail(TF_STATUS_INVALID, "max_sequences is %lld, outside [1, %lld]", (long long)sequences, (long long)tokens);
    int64_t selected = 1;
    if (def->token_logits >= 0) {
        selected = SELECTED_BYTES / (4 * def->graph.values[def->token_logits].cols);
        if (selected < SELECTED_MIN) selected = SELECTED_MIN;
        if (selected > tokens) selected = tokens;
    }
    limits[TFI_ROWS_TOKENS] = tokens;
    limits[TFI_ROWS_SEQUENCES] = sequences;
    limits[TFI_ROWS_SELECTED] = selected;
    limits[TFI_LIMIT_KV_TOKENS] = 0;
    return TF_STATUS_OK;
}

static tf_status read_options(const tf_model *m, const tf_session_options *options, tf_session_options *o, int64_t limits[TFI_LIMIT_COUNT])
{
    tf_status st;

    tf_session_options_init(o);
    if ((st = tfi_options_read(o, sizeof *o, options, "tf_session_options")) < 0) return st;
    if (o->memory_budget != TF_UNSET && o->memory_budget < 0)
        return tfi_fail(TF_STATUS_INVALID, "memory_budget is %lld", (long long)o->memory_budget);
    return read_limits(m, o, limits);
}

static int64_t host_bytes(const int64_t limits[TFI_LIMIT_COUNT])
{
    return (2 * limits[TFI_ROWS_TOKENS] + limits[TFI_ROWS_SEQUENCES] + 1 + limits[TFI_ROWS_SELECTED]) * (int64_t)sizeof(int32_t);
}

tf_status tfi_session_plan(const tf_model *m, const tf_session_options *options, int64_t *bytes)
{
    int64_t limits[TFI_LIMIT_COUNT];
    tf_session_options o;
    tf_status st;

    if ((st = read_options(m, options, &o, limits)) < 0 ||
        (st = m->backend->program_bytes(m->backend, &m->def.graph, limits, bytes)) < 0)
        return st;
    *bytes += host_bytes(limits) + (int64_t)sizeof(tf_session);
    return TF_STATUS_OK;
}

tf_status tf_session_open(tf_model *m, const tf_session_options *options, tf_session **out)
{
    int64_t limits[TFI_LIMIT_COUNT];
    tf_session_options o;
    tf_status st;

    if (!m || !out) return tfi_fail(TF_STATUS_INVALID, "model and out must not be NULL");
    *out = NULL;
    if ((st = read_options(m, options, &o, limits)) < 0) return st;
    tf_session *s = tfi_zalloc(&m->memory, sizeof *s);
    if (!s) return TF_STATUS_NOMEM;
    tfi_memory_init(&s->memory, &m->memory.hooks, o.memory_budget);
    pthread_mutex_init(&s->lock, NULL);
    s->model = m;
    atomic_fetch_add(&m->references, 1);
    memcpy(s->limits, limits, sizeof limits);
    if (!(s->positions = tfi_zalloc(&s->memory, (size_t)host_bytes(limits)))) {
        st = TF_STATUS_NOMEM;
        goto fail;
    }
    s->types = s->positions + limits[TFI_ROWS_TOKENS];
    s->offsets = s->types + limits[TFI_ROWS_TOKENS];
    s->selected = s->offsets + limits[TFI_ROWS_SEQUENCES] + 1;
    if ((st = m->backend->program_open(m->backend, &m->def.graph, m->forms, limits, &s->memory, &s->program)) < 0) goto fail;
    s->stats.struct_size = sizeof s->stats;
    s->stats.bytes = atomic_load(&s->memory.used);
    *out = s;
    return TF_STATUS_OK;
fail:
    tf_session_close(s);
    return st;
}

void tf_session_close(tf_session *s)
{
    if (!s) return;
    tf_model *m = s->model;
    if (s->program) m->backend->program_close(s->program);
    tfi_free(&s->memory, s->positions, (size_t)host_bytes(s->limits));
    pthread_mutex_destroy(&s->lock);
    tfi_free(&m->memory, s, sizeof *s);
    tfi_model_release(m);
}

const tf_model *tfi_session_model(const tf_session *s)
{
    return s->model;
}

void tfi_session_count_call(tf_session *s)
{
    pthread_mutex_lock(&s->lock);
    s->stats.calls++;
    pthread_mutex_unlock(&s->lock);
}

tf_status tf_session_get_stats(tf_session *s, tf_session_stats *stats)
{
    if (!s) return tfi_fail(TF_STATUS_INVALID, "the session must not be NULL");
    pthread_mutex_lock(&s->lock);
    const tf_session_stats now = s->stats;
    pthread_mutex_unlock(&s->lock);
    return tfi_result_write(stats, &now, sizeof now, "tf_session_stats");
}

/* ---- steps ---- */

/* A step: sequences [first, last) of the batch, tokens [begin, end). */
typedef struct step {
    int64_t first, last, begin, end;
} step;

/* Position ids as the family counts them; RoBERTa skips padding tokens inside a text. */
static void fill_positions(tf_session *s, const tfi_batch *b, const step *p)
{
    const tfi_model *def = &b->model->def;

    for (int64_t i = p->first; i < p->last; i++) {
        int32_t next = def->position_base;
        for (int64_t t = b->starts[i]; t < b->starts[i + 1]; t++) {
            const int pad = b->ids && def->position_pad >= 0 && b->ids[t] == def->position_pad;
            s->positions[t - p->begin] = pad ? def->position_pad : next++;
        }
        s->offsets[i - p->first] = (int32_t)(b->starts[i] - p->begin);
    }
    s->offsets[p->last - p->first] = (int32_t)(p->end - p->begin);
}

/* The next sequences that fit the session's limits. */
static tf_status next_step(const tf_session *s, const tfi_batch *b, int64_t first, step *p)
{
    *p = (step){.first = first, .last = first, .begin = b->starts[first]};
    while (p->last < b->count && p->last - first < s->limits[TFI_ROWS_SEQUENCES] &&
           b->starts[p->last + 1] - p->begin <= s->limits[TFI_ROWS_TOKENS])
        p->last++;
    p->end = b->starts[p->last];
    if (p->last == first)
        return tfi_fail(TF_STATUS_INVALID, "sequence %lld has %lld tokens; the session's max_step_tokens is %lld", (long long)first,
                        (long long)(b->starts[first + 1] - b->starts[first]), (long long)s->limits[TFI_ROWS_TOKENS]);
    return TF_STATUS_OK;
}

/* Selected rows [from, to) of the wanted list that lie inside the step. `rows` NULL is the list of all tokens. */
static void rows_of_step(const step *p, const int64_t *rows, int64_t row_count, int64_t *from, int64_t *to)
{
    if (!rows) {
        *from = p->begin;
        *to = p->end;
        return;
    }
    while (*from < row_count && rows[*from] < p->begin) ++*from;
    *to = *from;
    while (*to < row_count && rows[*to] < p->end) ++*to;
}

/* One forward pass for the step, then the token head again for as many selected rows as are left. */
static tf_status run_step(tf_session *s, const tfi_batch *b, const step *p, const tfi_output *outputs, int32_t output_count,
                          const int64_t *rows, int64_t from, int64_t to)
{
    const tfi_graph *g = &s->model->def.graph;
    tfi_tap taps[TFI_OUTPUTS_MAX];
    tfi_run run = {.taps = taps};
    tf_status st;

    fill_positions(s, b, p);
    run.rows[TFI_ROWS_TOKENS] = p->end - p->begin;
    run.rows[TFI_ROWS_SEQUENCES] = p->last - p->first;
    run.inputs[TFI_INPUT_IDS] = b->ids ? b->ids + p->begin : NULL;
    run.inputs[TFI_INPUT_EMBEDDINGS] = b->embeddings ? b->embeddings + p->begin * s->model->def.input_width : NULL;
    run.inputs[TFI_INPUT_POSITIONS] = s->positions;
    run.inputs[TFI_INPUT_TYPES] = b->type_ids ? b->type_ids + p->begin : s->types;
    run.inputs[TFI_INPUT_OFFSETS] = s->offsets;
    run.inputs[TFI_INPUT_SELECTED] = s->selected;
    run.inputs[TFI_INPUT_SKIP] = &b->skip;
    do {
        const int64_t chunk = to - from < s->limits[TFI_ROWS_SELECTED] ? to - from : s->limits[TFI_ROWS_SELECTED];
        run.rows[TFI_ROWS_SELECTED] = chunk;
        for (int64_t i = 0; i < chunk; i++) s->selected[i] = (int32_t)((rows ? rows[from + i] : from + i) - p->begin);
        run.tap_count = 0;
        for (int32_t i = 0; i < output_count; i++) {
            const tfi_rows kind = g->values[outputs[i].value].rows;
            const int64_t row = kind == TFI_ROWS_TOKENS ? p->begin : kind == TFI_ROWS_SEQUENCES ? p->first : from;
            if (run.resume && kind != TFI_ROWS_SELECTED) continue;
            taps[run.tap_count++] =
                (tfi_tap){.value = outputs[i].value, .dst = outputs[i].dst + row * outputs[i].stride, .stride = outputs[i].stride};
        }
        if ((st = s->model->backend->run(s->program, &run)) < 0) return st;
        from += chunk;
        run.resume = 1;
    } while (from < to);
    s->stats.steps++;
    s->stats.sequences += p->last - p->first;
    s->stats.tokens += p->end - p->begin;
    return TF_STATUS_OK;
}

static int wants_selected(const tfi_graph *g, const tfi_output *outputs, int32_t count)
{
    for (int32_t i = 0; i < count; i++)
        if (g->values[outputs[i].value].rows == TFI_ROWS_SELECTED) return 1;
    return 0;
}

tf_status tfi_session_run(tf_session *s, const tfi_batch *b, const tfi_output *outputs, int32_t output_count, const int64_t *rows,
                          int64_t row_count)
{
    const int selected = wants_selected(&s->model->def.graph, outputs, output_count);
    int64_t from = 0, to = 0;
    tf_status st;
    step p;

    for (int64_t first = 0; first < b->count; first = p.last) {
        if ((st = next_step(s, b, first, &p)) < 0) return st;
        if (selected) rows_of_step(&p, rows, row_count, &from, &to);
        pthread_mutex_lock(&s->lock);
        st = run_step(s, b, &p, outputs, output_count, rows, from, to);
        pthread_mutex_unlock(&s->lock);
        if (st < 0) return st;
        from = to;
        if (b->progress && b->progress(b->progress_user, p.end, b->starts[b->count]) != 0)
            return tfi_fail(TF_STATUS_CANCELLED, "the progress callback ended the call after %lld of %lld tokens", (long long)p.end,
                            (long long)b->starts[b->count]);
    }
    return TF_STATUS_OK;
}
