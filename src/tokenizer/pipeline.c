/* The long way from text to tokens, for every tokenizer.json: normalise, find the added tokens that wait for the normal form,
 * divide what is between them part by part, and let the model have each span as a word. */
#include "tokenizer/pipeline.h"

#include <string.h>

#include "base/status.h"
#include "tokenizer/tokenizer.h"

/* The added tokens of the normal form and what lies between them, as spans. */
static tf_status find_added(tfi_reading *x)
{
    const tf_tokenizer *t = x->t;
    tfi_scratch *s = x->s;
    uint32_t taken = 0, from = 0, done = 0;
    tfi_match m;

    s->span_count = 0;
    for (;;) {
        const int found = t->folded.count && s->normal_size &&
                          tfi_added_next(t, &t->folded, s->normal, (uint32_t)s->normal_size, from, taken, &m);
        const tf_status status =
            tfi_reserve(s->memory, (void **)&s->spans, &s->span_capacity, s->span_count + 2, sizeof *s->spans);
        if (status < 0) return status;
        const uint32_t first = found ? (uint32_t)tfi_char_index(s, m.begin) : (uint32_t)s->char_count;
        if (done < first) s->spans[s->span_count++] = (tfi_span){.begin = done, .end = first, .added = TFI_TRIE_NONE};
        if (!found) return TF_STATUS_OK;
        done = (uint32_t)tfi_char_index(s, m.end);
        s->spans[s->span_count++] = (tfi_span){.begin = first, .end = done, .added = m.index};
        taken = m.end;
        from = m.resume;
    }
}

static uint32_t span_begin(const tfi_scratch *s, uint32_t i)
{
    return i < s->char_count ? s->chars[i].at : (uint32_t)s->normal_size;
}

/* Take off the ranges of the tokens from `first` on what the post-processor trims. Unigram's have done it: their strings are text. */
static void trim_tokens(tfi_reading *x, size_t first)
{
    const tf_tokenizer *t = x->t;

    for (size_t i = first; i < x->s->token_count; i++) {
        tfi_token *k = &x->s->tokens[i];
        if (t->token_flags[k->id] & TFI_TOKEN_NORMAL) {
            const tfi_added *a = t->added;
            while (a->id != k->id) a++;
            tfi_bpe_trim(x, k, (const uint8_t *)a->text, a->size);
            continue;
        }
        tfi_bpe_trim(x, k, (const uint8_t *)t->text + t->text_begin[k->id],
                     t->text_begin[k->id + 1] - t->text_begin[k->id] - 1);
    }
}

static tf_status put_added(tfi_reading *x, const tfi_span *span)
{
    const tfi_scratch *s = x->s;
    const tfi_char *first = &s->chars[span->begin], *last = &s->chars[span->end - 1];
    const tf_status status = tfi_reserve_tokens(x->s, 1);

    if (status < 0) return status;
    tfi_token *k =
        tfi_put_token(x, x->t->added[span->added].id, first->byte_begin, last->byte_end, first->index, last->index + 1);
    if (x->t->bpe.trim) tfi_bpe_trim(x, k, s->normal + first->at, span_begin(s, span->end) - first->at);
    x->word++;
    return TF_STATUS_OK;
}

/* WordLevel: the word, or the unknown token. */
static tf_status whole_word(tfi_reading *x, const tfi_span *span)
{
    const tfi_scratch *s = x->s;
    const tfi_char *first = &s->chars[span->begin], *last = &s->chars[span->end - 1];
    const uint32_t size = span_begin(s, span->end) - first->at;
    int32_t id = tfi_trie_find(&x->t->vocab, s->normal + first->at, size);
    const tf_status status = tfi_reserve_tokens(x->s, 1);

    if (status < 0) return status;
    if (id == TFI_TRIE_NONE && (id = x->t->unk_id) == TFI_TRIE_NONE)
        return tfi_fail(TF_STATUS_INVALID, "\"%.*s\" is not in the vocabulary, which has no unknown token",
                        (int)(size < 64 ? size : 64), (const char *)s->normal + first->at);
    tfi_put_token(x, id, first->byte_begin, last->byte_end, first->index, last->index + 1);
    x->word++;
    return TF_STATUS_OK;
}

static tf_status put_span(tfi_reading *x, const tfi_span *span)
{
    const size_t first = x->s->token_count;
    tf_status status;

    if (span->added != TFI_TRIE_NONE) return put_added(x, span);
    switch (x->t->model) {
    case TFI_MODEL_BPE:
        status = tfi_bpe_word(x, span->begin, span->end);
        break;
    case TFI_MODEL_UNIGRAM:
        return tfi_unigram_word(x, span->begin, span->end);
    case TFI_MODEL_WORDLEVEL:
        status = whole_word(x, span);
        break;
    default:
        status = tfi_wordpiece_word(x, span->begin, span->end);
        break;
    }
    if (status == TF_STATUS_OK && x->t->bpe.trim) trim_tokens(x, first);
    return status;
}

tf_status tfi_pipeline_segment(tfi_reading *x, uint32_t begin, uint32_t end)
{
    const tf_tokenizer *t = x->t;
    const tfi_range range = {.begin = begin, .end = end, .is_first = 1, .is_last = 1};
    int lost;
    tf_status status;

    if ((status = tfi_run_normalizers(t, x->s, x->text, &range, &x->chars, &lost)) < 0) return status;
    if ((status = find_added(x)) < 0) return status;
    for (int i = 0; i < t->splitters.count; i++)
        if ((status = t->splitters.data[i].kind->split(x, &t->splitters.data[i])) < 0) return status;
    for (size_t i = 0; i < x->s->span_count && status == TF_STATUS_OK; i++) status = put_span(x, &x->s->spans[i]);
    return status;
}
