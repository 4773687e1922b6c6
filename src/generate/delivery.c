/* What a request hands to its owner: tokens one by one with the text they add, and whole results. */
#include <string.h>

#include "base/options.h"
#include "base/status.h"
#include "generate/request.h"

static int has_more(const tfi_generated_sequence *r)
{
    return r->delivered < r->count || (r->finish != TF_FINISH_NONE && !r->finish_delivered);
}

int tfi_request_has_next(const tf_generate *g)
{
    for (int32_t i = 0; i < g->settings.results; i++)
        if (has_more(&g->results[i])) return 1;
    return 0;
}

/* Of sequences that run side by side the one that is furthest behind; of beams, the best first. */
static tfi_generated_sequence *next_sequence(tf_generate *g)
{
    tfi_generated_sequence *best = NULL;

    for (int32_t i = 0; i < g->settings.results; i++) {
        tfi_generated_sequence *r = &g->results[i];
        if (!has_more(r) || (best && r->delivered >= best->delivered)) continue;
        best = r;
        if (g->settings.sampling.num_beams > 1) break;
    }
    return best;
}

/* Room for `size` bytes, at least doubled, so that it grows a few times only. */
static tf_status grow(tf_generate *g, char **text, size_t *room, int64_t size)
{
    if (size <= (int64_t)*room) return TF_STATUS_OK;
    const size_t wanted = (size_t)size > 2 * *room ? (size_t)size : 2 * *room;
    char *p = tfi_realloc(g->memory, *text, *room, wanted);
    if (!p) return TF_STATUS_NOMEM;
    *text = p;
    *room = wanted;
    return TF_STATUS_OK;
}

static tf_status append(tf_generate *g, int64_t *at, const char *text, int64_t size)
{
    tf_status st;

    if ((st = grow(g, &g->piece, &g->piece_room, *at + size + 1)) < 0) return st;
    if (size > 0) memcpy(g->piece + *at, text, (size_t)size);
    *at += size;
    g->piece[*at] = '\0';
    return TF_STATUS_OK;
}

tf_status tfi_request_next(tf_generate *g, tf_generated_token *out)
{
    tfi_generated_sequence *r = next_sequence(g);
    tf_generated_token t = {.struct_size = sizeof t, .sequence = (int32_t)(r - g->results), .id = -1};
    const char *text = "";
    tf_status st;

    const int has_token = r->delivered < r->count;
    if (has_token) {
        t.id = r->ids[r->delivered];
        if (r->logprobs) t.logprob = r->logprobs[r->delivered];
    }
    const int last = r->finish != TF_FINISH_NONE && r->delivered + has_token == r->count;
    if ((st = append(g, &t.text_bytes, "", 0)) < 0) return st;
    if (r->stream && has_token) {
        int64_t size = 0;
        if ((st = tf_stream_push(r->stream, t.id, &text, &size)) < 0 || (st = append(g, &t.text_bytes, text, size)) < 0) return st;
    }
    r->delivered += has_token;
    if (last) {
        int64_t size = 0;
        t.finish = r->finish;
        r->finish_delivered = 1;
        if (r->stream && ((st = tf_stream_finish(r->stream, &text, &size)) < 0 || (st = append(g, &t.text_bytes, text, size)) < 0))
            return st;
    }
    t.text = g->piece;
    return tfi_result_write(out, &t, sizeof t, "tf_generated_token");
}

tf_status tfi_request_status(const tf_generate *g)
{
    if (g->status == TF_STATUS_CANCELLED && !*g->error) return tfi_fail(TF_STATUS_CANCELLED, "the request was cancelled");
    if (g->status < 0) return tfi_fail(g->status, "%s", g->error);
    return g->state == TFI_REQUEST_DONE ? TF_STATUS_END : TF_STATUS_OK;
}

static tf_status decode(tf_generate *g, const tfi_generated_sequence *r, int64_t *size)
{
    tf_decode_options o;
    tf_status st;

    *size = 0;
    if ((st = grow(g, &g->text, &g->text_room, 1)) < 0) return st;
    g->text[0] = '\0';
    if (!g->tokenizer) return TF_STATUS_OK;
    tf_decode_options_init(&o);
    o.skip_special_tokens = g->settings.skip_special_tokens;
    o.clean_up = g->settings.clean_up;
    st = tf_tokenizer_decode(g->tokenizer, r->ids, r->count, &o, g->text, (int64_t)g->text_room - 1, size);
    if (st == TF_STATUS_TOO_SMALL) {
        if ((st = grow(g, &g->text, &g->text_room, *size + 1)) < 0) return st;
        st = tf_tokenizer_decode(g->tokenizer, r->ids, r->count, &o, g->text, (int64_t)g->text_room - 1, size);
    }
    if (st == TF_STATUS_OK) g->text[*size] = '\0';
    return st;
}

tf_status tfi_request_result(tf_generate *g, int32_t sequence, tf_generated *out)
{
    tf_status st;

    if (sequence < 0 || sequence >= g->settings.results)
        return tfi_fail(TF_STATUS_INVALID, "sequence %d of a request with %d", (int)sequence, (int)g->settings.results);
    const tfi_generated_sequence *r = &g->results[sequence];
    tf_generated t = {.struct_size = sizeof t,
                      .ids = r->ids,
                      .count = r->count,
                      .logprobs = r->logprobs,
                      .prompt_logprobs = g->prompt_logprobs,
                      .prompt_count = g->prompt,
                      .score = r->score,
                      .finish = r->finish,
                      .stop_begin = r->stop_begin,
                      .stop_index = r->stop_index,
                      .beams = r->beams};
    for (int64_t i = 0; r->logprobs && i < r->count; i++) t.cumulative_logprob += (double)r->logprobs[i];
    if ((st = decode(g, r, &t.text_bytes)) < 0) return st;
    t.text = g->text;
    return tfi_result_write(out, &t, sizeof t, "tf_generated");
}

tf_status tfi_request_scores(const tf_generate *g, int32_t kind, int64_t step, int32_t sequence, float *out, int64_t vocab)
{
    const float *kept = kind == TF_SCORES_LOGITS ? g->logits : g->scores;

    if (kind != TF_SCORES_LOGITS && kind != TF_SCORES_PROCESSED)
        return tfi_fail(TF_STATUS_INVALID, "kind of scores %d", (int)kind);
    if (vocab != g->vocab) return tfi_fail(TF_STATUS_INVALID, "vocab is %lld, the model's is %d", (long long)vocab, (int)g->vocab);
    if (sequence < 0 || sequence >= g->settings.slots)
        return tfi_fail(TF_STATUS_INVALID, "sequence %d of a request with %d", (int)sequence, (int)g->settings.slots);
    if (!kept || step < 0 || step >= g->step) return tfi_fail(TF_STATUS_NOT_FOUND, "no scores of step %lld were kept", (long long)step);
    if (step == 0) sequence = 0; /* all sequences went on from one row */
    memcpy(out, kept + (step * g->settings.slots + sequence) * (int64_t)g->vocab, (size_t)g->vocab * sizeof *out);
    return TF_STATUS_OK;
}
