/* Extractive question answering: start and end probabilities over the context's tokens, best span over windows. */
#include <math.h>
#include <string.h>

#include "api/handles.h"
#include "base/options.h"
#include "base/status.h"

enum { TOP_MAX = 1024 };

typedef struct finder {
    const tf_model *model;
    const tfi_batch *batch;
    const tf_answer_options *options;
    const float *logits; /* [tokens, 2] start and end */
    double *start, *end; /* [longest sequence] probabilities of one window */
    tf_span *best;       /* [top_k] best first */
    int32_t count;
    double none;         /* the lowest "no answer" score of the input's windows */
} finder;

/* Tokens [*begin, *end) of row `row` that belong to the context. */
static void context_of(const finder *f, int64_t row, int64_t *begin, int64_t *end)
{
    const tfi_batch *b = f->batch;

    if (!b->encoding) {
        *begin = b->starts[row] + f->options->contexts[2 * row];
        *end = b->starts[row] + f->options->contexts[2 * row + 1];
        return;
    }
    for (*begin = b->starts[row]; *begin < b->starts[row + 1] && b->text.sequence[*begin] != 1; ++*begin) continue;
    for (*end = *begin; *end < b->starts[row + 1] && b->text.sequence[*end] == 1; ++*end) continue;
}

/* Softmax of one logit column over the context, and the first token too where "no answer" competes. */
static void softmax_context(const finder *f, int64_t first, int64_t begin, int64_t end, int column, double *out)
{
    double top = -INFINITY, sum = 0;

    if (f->options->allow_none) top = f->logits[2 * first + column];
    for (int64_t i = begin; i < end; i++) top = fmax(top, f->logits[2 * i + column]);
    out[0] = f->options->allow_none ? exp(f->logits[2 * first + column] - top) : 0;
    sum = out[0];
    for (int64_t i = begin; i < end; i++) {
        if (i > first) out[i - first] = exp(f->logits[2 * i + column] - top);
        if (i > first) sum += out[i - first];
    }
    out[0] /= sum;
    for (int64_t i = begin; i < end; i++)
        if (i > first) out[i - first] /= sum;
}

static int same_span(const tf_span *a, const tf_span *b)
{
    return a->byte_begin == b->byte_begin && a->byte_end == b->byte_end && a->token_begin == b->token_begin &&
           a->token_end == b->token_end;
}

/* Insert into the sorted list; a span that another window found too keeps its better score. */
static void consider(finder *f, const tf_span *span)
{
    const int texts = f->batch->encoding != NULL;
    int32_t at = f->count;

    for (int32_t i = 0; i < f->count; i++) {
        const tf_span *have = &f->best[i];
        const int same = texts ? have->byte_begin == span->byte_begin && have->byte_end == span->byte_end : same_span(have, span);
        if (!same) continue;
        if (have->score >= span->score) return;
        memmove(&f->best[i], &f->best[i + 1], (size_t)(f->count - i - 1) * sizeof *f->best);
        at = --f->count;
        break;
    }
    if (f->count == f->options->top_k) {
        if (f->best[f->count - 1].score >= span->score) return;
        at = --f->count;
    }
    while (at > 0 && f->best[at - 1].score < span->score) at--;
    memmove(&f->best[at + 1], &f->best[at], (size_t)(f->count - at) * sizeof *f->best);
    f->best[at] = *span;
    f->count++;
}

static tf_span make_span(const finder *f, int64_t row, int64_t from, int64_t to, double score)
{
    const tf_encoding_data *d = &f->batch->text;
    const int64_t first = f->batch->starts[row];
    tf_span s = {.struct_size = sizeof s, .score = (float)score, .token_begin = from - first, .token_end = to + 1 - first};

    if (f->batch->encoding) {
        s.byte_begin = d->byte_begin[from];
        s.byte_end = d->byte_end[to];
        s.char_begin = d->char_begin[from];
        s.char_end = d->char_end[to];
    }
    return s;
}

static void search_window(finder *f, int64_t row)
{
    const int64_t first = f->batch->starts[row];
    int64_t begin, end;

    context_of(f, row, &begin, &end);
    if (begin >= end) return;
    softmax_context(f, first, begin, end, 0, f->start);
    softmax_context(f, first, begin, end, 1, f->end);
    if (f->options->allow_none && f->start[0] * f->end[0] < f->none) f->none = f->start[0] * f->end[0];
    for (int64_t i = begin; i < end; i++) {
        const double bar = f->count == f->options->top_k ? f->best[f->count - 1].score : -1;
        for (int64_t k = i; k < end && k - i < f->options->max_answer_tokens; k++) {
            const double score = f->start[i - first] * f->end[k - first];
            if (score <= bar) continue;
            const tf_span span = make_span(f, row, i, k, score);
            consider(f, &span);
        }
    }
}

static tf_status search_batch(finder *f, tf_result *r, int64_t inputs)
{
    const tfi_batch *b = f->batch;
    tf_status st = TF_STATUS_OK;

    for (int64_t input = 0, row = 0; input < inputs && st == TF_STATUS_OK; input++) {
        f->count = 0;
        f->none = INFINITY;
        do search_window(f, row++);
        while (b->encoding && row < b->count && b->text.row_text[row] == input);
        if (f->none < INFINITY) {
            const tf_span none = {.struct_size = sizeof none, .score = (float)f->none};
            consider(f, &none);
        }
        for (int32_t i = 0; i < f->count && st == TF_STATUS_OK; i++) st = tfi_result_add(r, &f->best[i]);
        tfi_result_end_input(r, input);
    }
    return st;
}

static tf_status find(tf_session *s, finder *f, int64_t inputs, tf_result **out)
{
    tfi_memory *memory = (tfi_memory *)&f->model->memory;
    const tfi_batch *b = f->batch;
    const int64_t tokens = b->count ? b->starts[b->count] : 0;
    const size_t logit_bytes = (size_t)tokens * 2 * sizeof(float);
    const size_t window_bytes = 2 * (size_t)f->model->def.max_input_tokens * sizeof(double);
    const size_t best_bytes = (size_t)f->options->top_k * sizeof *f->best;
    float *logits = tfi_alloc(memory, logit_bytes);
    tf_result *r = NULL;
    tf_status st = TF_STATUS_NOMEM;

    f->start = tfi_alloc(memory, window_bytes);
    f->best = tfi_alloc(memory, best_bytes);
    if (logits && f->start && f->best && (st = tfi_result_open(f->model, TFI_RECORD_SPAN, inputs, &r)) == TF_STATUS_OK &&
        (st = tfi_session_run(s, b, &(tfi_output){f->model->def.token_logits, logits, 2}, 1, NULL, 0)) == TF_STATUS_OK) {
        f->end = f->start + f->model->def.max_input_tokens;
        f->logits = logits;
        st = search_batch(f, r, inputs);
    }
    tfi_free(memory, f->best, best_bytes);
    tfi_free(memory, f->start, window_bytes);
    tfi_free(memory, logits, logit_bytes);
    if (st == TF_STATUS_OK)
        *out = r;
    else
        tf_result_close(r);
    return st;
}

static tf_status read_options(const tf_model *m, const tf_input *in, const tf_answer_options *options, tf_answer_options *o)
{
    const int32_t longest = m->def.max_input_tokens;
    tf_status st;

    tf_answer_options_init(o);
    if ((st = tfi_options_read(o, sizeof *o, options, "tf_answer_options")) < 0 ||
        (st = tfi_option_int(&o->top_k, 1, 1, TOP_MAX, "tf_answer: top_k")) < 0 ||
        (st = tfi_option_int(&o->max_answer_tokens, 15, 1, INT32_MAX, "tf_answer: max_answer_tokens")) < 0 ||
        (st = tfi_option_int(&o->max_tokens, longest < 384 ? longest : 384, 1, longest, "tf_answer: max_tokens")) < 0 ||
        (st = tfi_option_int(&o->stride, o->max_tokens / 2 < 128 ? o->max_tokens / 2 : 128, 0, INT32_MAX, "tf_answer: stride")) < 0 ||
        (st = tfi_option_int(&o->allow_none, 0, 0, 1, "tf_answer: allow_none")) < 0)
        return st;
    if (in->count > 0 && in->texts && !in->pairs)
        return tfi_fail(TF_STATUS_INVALID, "tf_answer: texts are questions; pairs must hold their contexts");
    if (in->count > 0 && !in->texts && !o->contexts)
        return tfi_fail(TF_STATUS_INVALID, "tf_answer: an input of ids needs tf_answer_options.contexts");
    return TF_STATUS_OK;
}

static tf_status check_contexts(const tfi_batch *b, const tf_answer_options *o)
{
    for (int64_t i = 0; !b->encoding && i < b->count; i++) {
        const int64_t begin = o->contexts[2 * i], end = o->contexts[2 * i + 1];
        if (begin < 0 || end < begin || end > b->starts[i + 1] - b->starts[i])
            return tfi_fail(TF_STATUS_INVALID, "tf_answer: the context [%lld, %lld) of sequence %lld lies outside it", (long long)begin,
                            (long long)end, (long long)i);
    }
    return TF_STATUS_OK;
}

tf_status tf_answer(tf_session *s, const tf_input *in, const tf_answer_options *options, tf_result **out)
{
    tf_answer_options o;
    tf_tokenize_options tokenize;
    tfi_batch b;
    tf_status st;

    if (!s || !in || !out) return tfi_fail(TF_STATUS_INVALID, "session, in and out must not be NULL");
    *out = NULL;
    const tf_model *m = tfi_session_model(s);
    if ((st = tfi_model_needs(m, TF_TASK_ANSWER, "tf_answer")) < 0 || (st = read_options(m, in, options, &o)) < 0) return st;
    tf_tokenize_options_init(&tokenize);
    tokenize.truncation = TF_TRUNCATION_ONLY_SECOND;
    tokenize.max_length = o.max_tokens;
    tokenize.stride = o.stride;
    tokenize.overflow = 1;
    finder f = {.model = m, .batch = &b, .options = &o};
    if ((st = tfi_batch_open(&b, m, in, &tokenize)) == TF_STATUS_OK && (st = check_contexts(&b, &o)) == TF_STATUS_OK)
        st = find(s, &f, in->count, out);
    tfi_batch_close(&b);
    if (st == TF_STATUS_OK) tfi_session_count_call(s);
    return st;
}
