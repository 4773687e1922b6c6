/* tf_generate: arguments checked, the prompt made into ids, the rest is the scheduler's. */
#include "api/handles.h"
#include "base/options.h"
#include "base/status.h"

/* ---- the decoder's prompt ---- */

/* T5's decoder begins with its start token; what the caller gives follows, whether or not it names that token too. */
static tf_status source_prompt(const tf_model *m, const tf_generate_options *o, tfi_arena *arena, tfi_request_input *in)
{
    const int32_t start = m->generation.decoder_start >= 0 ? m->generation.decoder_start : m->generation.bos;
    const int64_t given = o->decoder_count == TF_UNSET ? 0 : o->decoder_count;
    int32_t *ids, count = 0;

    if (given < 0 || given > INT32_MAX / 2 || (given > 0 && !o->decoder_ids))
        return tfi_fail(TF_STATUS_INVALID, "decoder_ids and decoder_count do not fit together");
    if (start < 0) return tfi_fail(TF_STATUS_UNSUPPORTED, "the checkpoint names no decoder_start_token_id and no bos_token_id");
    if (!(ids = tfi_arena_alloc(arena, (size_t)(given + 1) * sizeof *ids))) return TF_STATUS_NOMEM;
    if (given == 0 || o->decoder_ids[0] != start) ids[count++] = start;
    for (int64_t i = 0; i < given; i++) {
        if (o->decoder_ids[i] < 0 || o->decoder_ids[i] >= m->def.vocab_size)
            return tfi_fail(TF_STATUS_INVALID, "decoder_ids[%lld] is %d, outside the vocabulary of %d", (long long)i,
                            (int)o->decoder_ids[i], (int)m->def.vocab_size);
        ids[count++] = o->decoder_ids[i];
    }
    in->ids = ids;
    in->count = count;
    return TF_STATUS_OK;
}

/* A prompt of nothing but embeddings has ids, too: those that say so. */
static tf_status fill_ids(tfi_arena *arena, const int32_t *ids, int32_t count, const int32_t **out)
{
    int32_t *made;

    *out = ids;
    if (ids) return TF_STATUS_OK;
    if (!(made = tfi_arena_alloc(arena, (size_t)count * sizeof *made))) return TF_STATUS_NOMEM;
    for (int32_t i = 0; i < count; i++) made[i] = TFI_ID_EMBEDDING;
    *out = made;
    return TF_STATUS_OK;
}

static tf_status plain_prompt(const tf_model *m, const tfi_batch *b, tfi_arena *arena, tfi_request_input *in)
{
    in->count = (int32_t)b->starts[1];
    if (in->count == 0) {
        if (m->generation.bos < 0) return tfi_fail(TF_STATUS_INVALID, "the prompt is empty, and the checkpoint has no bos_token_id");
        in->ids = &m->generation.bos;
        in->count = 1;
        return TF_STATUS_OK;
    }
    in->embeddings = b->embeddings;
    return fill_ids(arena, b->ids, in->count, &in->ids);
}

static tf_status fill_input(tf_session *s, const tfi_batch *b, const tf_generate_options *o, tfi_arena *arena, tfi_request_input *in)
{
    const tf_model *m = tfi_session_model(s);

    *in = (tfi_request_input){.defaults = &m->generation,
                              .options = o,
                              .tokenizer = m->tokenizer,
                              .vocab = m->def.vocab_size,
                              .width = m->def.input_width,
                              .max_context = m->def.max_context_tokens};
    if (!m->def.has_encoder) return plain_prompt(m, b, arena, in);
    in->source = b->ids;
    in->source_embeddings = b->embeddings;
    in->source_count = (int32_t)b->starts[1];
    if (in->source_count == 0) return tfi_fail(TF_STATUS_INVALID, "the source has no tokens");
    return source_prompt(m, o, arena, in);
}

/* ---- the public calls ---- */

tf_status tf_generate_open(tf_session *s, const tf_input *in, const tf_generate_options *options, tf_generate **out)
{
    tfi_request_input input;
    tf_generate_options o;
    tfi_batch b;
    tf_status st;

    if (!s || !out) return tfi_fail(TF_STATUS_INVALID, "session and out must not be NULL");
    *out = NULL;
    const tf_model *m = tfi_session_model(s);
    tf_generate_options_init(&o);
    if ((st = tfi_model_needs(m, TF_TASK_GENERATE, "tf_generate_open")) < 0 ||
        (st = tfi_options_read(&o, sizeof o, options, "tf_generate_options")) < 0)
        return st;
    tfi_arena arena = {.memory = (tfi_memory *)&m->memory};
    if ((st = tfi_batch_open_prompt(&b, m, in)) == TF_STATUS_OK && b.count != 1)
        st = tfi_fail(TF_STATUS_INVALID, "a request has one prompt; tf_input.count is %lld", (long long)b.count);
    if (st == TF_STATUS_OK && m->def.has_encoder) st = tfi_session_fits(s, &b); /* other prompts are read in pieces */
    if (st == TF_STATUS_OK) st = fill_input(s, &b, &o, &arena, &input);
    if (st == TF_STATUS_OK) st = tfi_scheduler_open_request(tfi_session_scheduler(s), &input, out);
    tfi_batch_close(&b);
    tfi_arena_close(&arena);
    if (st < 0) return st;
    (*out)->owner = s;
    tfi_session_hold(s);
    tfi_session_count_call(s);
    return TF_STATUS_OK;
}

void tf_generate_close(tf_generate *g)
{
    if (!g) return;
    tf_session *s = g->owner;
    tfi_scheduler_close_request(g);
    tfi_session_release(s);
}

tf_status tf_generate_next(tf_generate *g, int32_t timeout_ms, tf_generated_token *out)
{
    if (!g || !out) return tfi_fail(TF_STATUS_INVALID, "request and out must not be NULL");
    return tfi_scheduler_next(g, timeout_ms, out);
}

tf_status tf_generate_wait(tf_generate *g, int32_t timeout_ms)
{
    return g ? tfi_scheduler_wait(g, timeout_ms) : tfi_fail(TF_STATUS_INVALID, "the request must not be NULL");
}

tf_status tf_generate_result(tf_generate *g, int32_t sequence, tf_generated *out)
{
    if (!g || !out) return tfi_fail(TF_STATUS_INVALID, "request and out must not be NULL");
    return tfi_scheduler_result(g, sequence, out);
}

tf_status tf_generate_scores(const tf_generate *g, int32_t kind, int64_t step, int32_t sequence, float *out, int64_t vocab)
{
    if (!g || !out) return tfi_fail(TF_STATUS_INVALID, "request and out must not be NULL");
    return tfi_scheduler_scores((tf_generate *)g, kind, step, sequence, out, vocab);
}

void tf_generate_cancel(tf_generate *g)
{
    if (g) tfi_scheduler_cancel(g);
}

tf_status tf_session_step(tf_session *s, int32_t timeout_ms)
{
    return s ? tfi_scheduler_step(tfi_session_scheduler(s), timeout_ms)
             : tfi_fail(TF_STATUS_INVALID, "the session must not be NULL");
}
