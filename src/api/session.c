/* Sessions: the working memory of runs, behind the scheduler that shares it out among calls and requests. */
#include <string.h>

#include "api/handles.h"
#include "base/options.h"
#include "base/status.h"

struct tf_session {
    tf_model *model;
    tfi_memory memory;
    tfi_scheduler *scheduler;
    int64_t max_tokens;      /* of a sequence */
    int64_t bytes;
    atomic_int references;   /* the caller's and one a request */
    _Atomic int64_t calls;
};

enum {
    DEFAULT_STEP_TOKENS = 2048,
    DEFAULT_DECODE_TOKENS = 512, /* prompts are read in pieces of this: enough for the matrix products to be at their best */
    DEFAULT_SEQUENCES = 512,
    DEFAULT_KV_TOKENS = 4096,
    MAX_STEP_TOKENS = 1 << 20,
    SELECTED_MIN = 64,
    SELECTED_BYTES = 16 << 20 /* of logits a step holds before they are copied to the caller */
};

#define MAX_KV_TOKENS ((int64_t)1 << 30)

/* ---- options ---- */

/* Rows of logits in a run. */
static int64_t selected_rows(const tfi_graph *g, int32_t value, int64_t most)
{
    int64_t rows = SELECTED_BYTES / (4 * g->values[value].cols);

    if (rows < SELECTED_MIN) rows = SELECTED_MIN;
    return rows < most ? rows : most;
}

static tf_status read_limits(const tfi_model *def, const tf_session_options *o, tfi_engine *e)
{
    const int64_t longest = def->max_input_tokens == INT32_MAX ? 0 : def->max_input_tokens;
    int64_t tokens = longest > DEFAULT_STEP_TOKENS ? longest : DEFAULT_STEP_TOKENS;

    if (tokens > MAX_STEP_TOKENS) tokens = MAX_STEP_TOKENS;
    if (o->max_step_tokens != TF_UNSET) tokens = o->max_step_tokens;
    if (tokens < 1 || tokens > MAX_STEP_TOKENS)
        return tfi_fail(TF_STATUS_INVALID, "max_step_tokens is %lld, outside [1, %d]", (long long)tokens, (int)MAX_STEP_TOKENS);
    int64_t sequences = tokens < DEFAULT_SEQUENCES ? tokens : DEFAULT_SEQUENCES;
    if (o->max_sequences != TF_UNSET) sequences = o->max_sequences;
    if (sequences < 1 || sequences > tokens)
        return tfi_fail(TF_STATUS_INVALID, "max_sequences is %lld, outside [1, %lld]", (long long)sequences, (long long)tokens);
    e->encode_limits[TFI_ROWS_TOKENS] = tokens;
    e->encode_limits[TFI_ROWS_SEQUENCES] = sequences;
    e->encode_limits[TFI_ROWS_SELECTED] = def->token_logits < 0 ? 1 : selected_rows(&def->graph, def->token_logits, tokens);
    return TF_STATUS_OK;
}

/* Room for generation, unless the model has none or the caller wants none. */
static tf_status read_store(const tfi_model *def, const tf_session_options *o, tfi_engine *e)
{
    const int64_t context = def->max_context_tokens == INT32_MAX ? 0 : def->max_context_tokens;
    const int64_t sequences = e->encode_limits[TFI_ROWS_SEQUENCES];
    int64_t tokens = context > DEFAULT_KV_TOKENS ? context : DEFAULT_KV_TOKENS;

    if (o->kv_tokens != TF_UNSET) tokens = o->kv_tokens;
    if (tokens < 0 || tokens > MAX_KV_TOKENS)
        return tfi_fail(TF_STATUS_INVALID, "kv_tokens is %lld, outside [0, %lld]", (long long)tokens, (long long)MAX_KV_TOKENS);
    if (def->step.op_count == 0) return TF_STATUS_OK;
    e->store = def->store;
    e->store.blocks = tfi_blocks_of(tokens);
    e->store.slots = (int32_t)sequences;
    int64_t rows = o->max_step_tokens != TF_UNSET || e->encode_limits[TFI_ROWS_TOKENS] < DEFAULT_DECODE_TOKENS
                       ? e->encode_limits[TFI_ROWS_TOKENS]
                       : DEFAULT_DECODE_TOKENS;
    if (rows < sequences) rows = sequences;
    e->step_limits[TFI_ROWS_TOKENS] = rows;
    e->step_limits[TFI_ROWS_SEQUENCES] = sequences;
    e->step_limits[TFI_ROWS_SELECTED] = selected_rows(&def->step, def->logits, rows);
    const int64_t held = e->store.blocks * TFI_KV_BLOCK;
    e->step_limits[TFI_LIMIT_KV_TOKENS] = context && context < held && !def->has_encoder ? context : held;
    return TF_STATUS_OK;
}

static tf_status read_options(const tf_model *m, const tf_session_options *options, tf_session_options *o, tfi_engine *e)
{
    tf_status st;

    tf_session_options_init(o);
    if ((st = tfi_options_read(o, sizeof *o, options, "tf_session_options")) < 0) return st;
    if (o->memory_budget != TF_UNSET && o->memory_budget < 0)
        return tfi_fail(TF_STATUS_INVALID, "memory_budget is %lld", (long long)o->memory_budget);
    *e = (tfi_engine){.def = &m->def, .backend = m->backend, .forms = m->forms, .stream = o->stream};
    if ((st = read_limits(&m->def, o, e)) < 0) return st;
    return read_store(&m->def, o, e);
}

tf_status tfi_session_plan(const tf_model *m, const tf_session_options *options, int64_t *bytes, int64_t *kv_bytes)
{
    tf_session_options o;
    tfi_engine e;
    tf_status st;

    if ((st = read_options(m, options, &o, &e)) < 0 || (st = tfi_scheduler_bytes(&e, bytes, kv_bytes)) < 0) return st;
    *bytes += (int64_t)sizeof(tf_session);
    return TF_STATUS_OK;
}

/* ---- life ---- */

tf_status tf_session_open(tf_model *m, const tf_session_options *options, tf_session **out)
{
    tf_session_options o;
    tfi_engine e;
    tf_status st;

    if (!m || !out) return tfi_fail(TF_STATUS_INVALID, "model and out must not be NULL");
    *out = NULL;
    if ((st = read_options(m, options, &o, &e)) < 0) return st;
    tf_session *s = tfi_zalloc(&m->memory, sizeof *s);
    if (!s) return TF_STATUS_NOMEM;
    tfi_memory_init(&s->memory, &m->memory.hooks, o.memory_budget);
    atomic_init(&s->references, 1);
    s->model = m;
    atomic_fetch_add(&m->references, 1);
    s->max_tokens = e.encode_limits[TFI_ROWS_TOKENS];
    e.memory = &s->memory;
    if ((st = tfi_scheduler_open(&e, &s->scheduler)) < 0) {
        tf_session_close(s);
        return st;
    }
    s->bytes = atomic_load(&s->memory.used);
    *out = s;
    return TF_STATUS_OK;
}

void tfi_session_hold(tf_session *s)
{
    atomic_fetch_add(&s->references, 1);
}

void tfi_session_release(tf_session *s)
{
    if (atomic_fetch_sub(&s->references, 1) > 1) return;
    tf_model *m = s->model;
    tfi_scheduler_close(s->scheduler);
    tfi_free(&m->memory, s, sizeof *s);
    tfi_model_release(m);
}

void tf_session_close(tf_session *s)
{
    if (s) tfi_session_release(s);
}

const tf_model *tfi_session_model(const tf_session *s)
{
    return s->model;
}

tfi_scheduler *tfi_session_scheduler(tf_session *s)
{
    return s->scheduler;
}

void tfi_session_count_call(tf_session *s)
{
    atomic_fetch_add(&s->calls, 1);
}

tf_status tf_session_get_stats(tf_session *s, tf_session_stats *stats)
{
    tfi_scheduler_stats now;

    if (!s) return tfi_fail(TF_STATUS_INVALID, "the session must not be NULL");
    tfi_scheduler_get_stats(s->scheduler, &now);
    const tf_session_stats all = {.struct_size = sizeof all,
                                  .calls = atomic_load(&s->calls),
                                  .steps = now.steps,
                                  .sequences = now.sequences,
                                  .tokens = now.tokens,
                                  .bytes = s->bytes};
    return tfi_result_write(stats, &all, sizeof all, "tf_session_stats");
}

/* ---- running a batch ---- */

tf_status tfi_session_fits(const tf_session *s, const tfi_batch *b)
{
    for (int64_t i = 0; i < b->count; i++)
        if (b->starts[i + 1] - b->starts[i] > s->max_tokens)
            return tfi_fail(TF_STATUS_INVALID, "sequence %lld has %lld tokens; the session's max_step_tokens is %lld", (long long)i,
                            (long long)(b->starts[i + 1] - b->starts[i]), (long long)s->max_tokens);
    return TF_STATUS_OK;
}

tf_status tfi_session_run(tf_session *s, const tfi_batch *b, const tfi_output *outputs, int32_t output_count, const int64_t *rows,
                          int64_t row_count)
{
    tfi_job job = {.count = b->count,
                   .starts = b->starts,
                   .ids = b->ids,
                   .embeddings = b->embeddings,
                   .type_ids = b->type_ids,
                   .skip = b->skip,
                   .outputs = outputs,
                   .output_count = output_count,
                   .rows = rows,
                   .row_count = row_count};
    tf_status st;

    if ((st = tfi_session_fits(s, b)) < 0) return st;
    return tfi_scheduler_encode(s->scheduler, &job, b->progress, b->progress_user);
}
