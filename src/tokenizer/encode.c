/* tf_encoding: texts to rows. Tokens of a text come from tfi_words(); here they are cut to length, windows are laid over what
 * was cut away, special tokens go around them, and a batch is shared among threads. Lengths, windows and their order are those
 * of the reference (truncate_encodings, Encoding::truncate and merge_with). */
#include <stdio.h>
#include <string.h>

#include "base/options.h"
#include "base/status.h"
#include "base/thread.h"
#include "tokenizer/tokenizer.h"

enum {
    THREADS_MAX = 256,
    ERROR_BYTES = 512,
    TEXT_MAX = 1 << 30,         /* its normal form, at most three times as long, still has 32-bit offsets */
    THREAD_BYTES_MIN = 16 << 10 /* less text than this is not worth a thread */
};

/* Packed rows; see tf_encoding_data. All token arrays are one block, so that growing is one step that works or does not. */
typedef struct rows {
    tfi_memory *memory;
    void *block;
    int64_t *byte_begin, *byte_end, *char_begin, *char_end;
    int32_t *ids, *type_ids, *sequence, *word;
    int64_t *row_start, *row_text; /* row_start has row_capacity elements, one more than rows may be used */
    size_t token_count, token_capacity, row_count, start_capacity, text_capacity;
} rows;

/* Settings of a call with every default filled in. */
typedef struct settings {
    int32_t special, truncation, side, overflow, replace, threads;
    int64_t max_length, stride;
    int first_keeps_more; /* of the tokenizer */
} settings;

typedef struct worker {
    const tf_tokenizer *t;
    const settings *set;
    const tf_text *texts, *pairs;
    int64_t first, last; /* texts of this worker */
    tfi_scratch scratch;
    rows rows;
    tf_status status;
    char error[ERROR_BYTES]; /* of its thread */
} worker;

struct tf_encoding {
    tfi_memory memory; /* its own, so that it may outlive the tokenizer */
    worker *workers;   /* the first one's rows are the result */
    int32_t worker_count;
};

/* Rows. */

enum { TOKEN_BYTES = 4 * 8 + 4 * 4 };

static void lay_out(rows *r, void *block, size_t capacity)
{
    int64_t *wide = block;
    int32_t *narrow = (int32_t *)(wide + 4 * capacity);

    r->byte_begin = wide;
    r->byte_end = wide + capacity;
    r->char_begin = wide + 2 * capacity;
    r->char_end = wide + 3 * capacity;
    r->ids = narrow;
    r->type_ids = narrow + capacity;
    r->sequence = narrow + 2 * capacity;
    r->word = narrow + 3 * capacity;
    r->block = block;
    r->token_capacity = capacity;
}

/* Copy the tokens of `from` behind those of `to`, which has room. */
static void tokens_copy(rows *to, const rows *from)
{
    const size_t at = to->token_count, n = from->token_count;

    if (n == 0) return;
    memcpy(to->byte_begin + at, from->byte_begin, n * 8);
    memcpy(to->byte_end + at, from->byte_end, n * 8);
    memcpy(to->char_begin + at, from->char_begin, n * 8);
    memcpy(to->char_end + at, from->char_end, n * 8);
    memcpy(to->ids + at, from->ids, n * 4);
    memcpy(to->type_ids + at, from->type_ids, n * 4);
    memcpy(to->sequence + at, from->sequence, n * 4);
    memcpy(to->word + at, from->word, n * 4);
    to->token_count += n;
}

static tf_status reserve_tokens(rows *r, size_t more)
{
    const size_t need = r->token_count + more;
    size_t capacity = r->token_capacity * 2 > 256 ? r->token_capacity * 2 : 256;
    rows grown = {0};

    if (need <= r->token_capacity) return TF_STATUS_OK;
    if (capacity < need) capacity = need;
    if (capacity > (size_t)INT64_MAX / 4 / TOKEN_BYTES) return tfi_fail(TF_STATUS_NOMEM, "out of memory: %zu tokens", capacity);
    void *block = tfi_alloc(r->memory, capacity * TOKEN_BYTES);
    if (!block) return TF_STATUS_NOMEM;
    lay_out(&grown, block, capacity);
    tokens_copy(&grown, r);
    tfi_free(r->memory, r->block, r->token_capacity * TOKEN_BYTES);
    lay_out(r, block, capacity);
    return TF_STATUS_OK;
}

/* Room for one more row and the row_start behind it. */
static tf_status reserve_rows(rows *r, size_t more)
{
    tf_status status = tfi_reserve(r->memory, (void **)&r->row_start, &r->start_capacity, r->row_count + more + 1, 8);
    if (status < 0) return status;
    return tfi_reserve(r->memory, (void **)&r->row_text, &r->text_capacity, r->row_count + more, 8);
}

static void rows_close(rows *r)
{
    tfi_free(r->memory, r->block, r->token_capacity * TOKEN_BYTES);
    tfi_free(r->memory, r->row_start, r->start_capacity * 8);
    tfi_free(r->memory, r->row_text, r->text_capacity * 8);
}

static void rows_clear(rows *r)
{
    r->row_count = r->token_count = 0;
    if (r->row_start) r->row_start[0] = 0;
}

/* Truncation. */

/* A text's tokens and the windows over them: `size` tokens each, neighbours `step` apart; the first keeps what truncation
 * keeps. */
typedef struct windows {
    const tfi_token *tokens;
    int64_t count, size, step, number;
    int left; /* windows go from the end to the begin */
} windows;

static void window(const windows *w, int64_t i, int64_t *begin, int64_t *end)
{
    if (w->left) {
        *end = w->count - i * w->step;
        *begin = *end > w->size ? *end - w->size : 0;
    } else {
        *begin = i * w->step;
        *end = *begin + w->size < w->count ? *begin + w->size : w->count;
    }
}

static tf_status cut(const settings *set, int64_t text, windows *w, int64_t keep)
{
    w->size = keep;
    if (keep >= w->count || !set->overflow) return TF_STATUS_OK;
    if (keep <= set->stride)
        return tfi_fail(TF_STATUS_INVALID,
                        "text %lld: windows of %lld tokens cannot share %lld; max_length is too small or stride too large",
                        (long long)text, (long long)keep, (long long)set->stride);
    w->step = keep - set->stride;
    w->number = 1 + (w->count - keep + w->step - 1) / w->step;
    return TF_STATUS_OK;
}

/* How many tokens the longest-first rule leaves of a pair of lengths n1, n2 where `room` is too small for both. */
static void longest_first(int64_t room, int first_keeps_more, int64_t *n1, int64_t *n2)
{
    int64_t *shorter = *n1 > *n2 ? n2 : n1, *longer = *n1 > *n2 ? n1 : n2;

    *longer = *shorter > room ? *shorter : *shorter > room - *shorter ? *shorter : room - *shorter;
    if (*shorter + *longer > room) {
        *(first_keeps_more ? n2 : shorter) = room / 2;
        *(first_keeps_more ? n1 : longer) = room - room / 2;
    }
}

static tf_status truncate(const settings *set, int64_t text, int is_pair, int32_t specials, windows w[2])
{
    const int64_t room = set->max_length - (set->special ? specials : 0);
    const int64_t excess = w[0].count + w[1].count - room;
    int64_t keep[2] = {w[0].count, w[1].count};
    tf_status status;

    if (set->truncation == TF_TRUNCATION_NONE) return TF_STATUS_OK;
    if (room < 0)
        return tfi_fail(TF_STATUS_INVALID, "max_length is %lld, but %d special tokens are added", (long long)set->max_length,
                        specials);
    if (excess <= 0) return TF_STATUS_OK;
    if (room == 0) {
        keep[0] = keep[1] = 0;
    } else if (set->truncation == TF_TRUNCATION_LONGEST_FIRST) {
        if (is_pair) longest_first(room, set->first_keeps_more, &keep[0], &keep[1]);
        else keep[0] = room;
    } else {
        const int target = set->truncation == TF_TRUNCATION_ONLY_SECOND;
        if (target && !is_pair)
            return tfi_fail(TF_STATUS_INVALID, "text %lld: truncation is ONLY_SECOND, but there is no second text",
                            (long long)text);
        if (keep[target] <= excess)
            return tfi_fail(TF_STATUS_INVALID, "text %lld: its %s text has %lld tokens, %lld would have to go", (long long)text,
                            target ? "second" : "first", (long long)keep[target], (long long)excess);
        keep[target] -= excess;
    }
    if ((status = cut(set, text, &w[0], keep[0])) < 0) return status;
    return cut(set, text, &w[1], keep[1]);
}

/* Building rows. */

static void put_special(rows *r, const tfi_piece *piece)
{
    const size_t i = r->token_count++;

    r->ids[i] = piece->id;
    r->type_ids[i] = piece->type;
    r->sequence[i] = r->word[i] = -1;
    r->byte_begin[i] = r->byte_end[i] = r->char_begin[i] = r->char_end[i] = 0;
}

static void put_text(rows *r, const tfi_piece *piece, int32_t type, const windows *w, int64_t number)
{
    const rows to = *r;
    const size_t first = r->token_count;
    int64_t begin, end;

    window(w, number, &begin, &end);
    for (int64_t k = begin; k < end; k++) {
        const tfi_token *token = &w->tokens[k];
        const size_t i = first + (size_t)(k - begin);
        to.ids[i] = token->id;
        to.type_ids[i] = type;
        to.sequence[i] = piece->id == TFI_PIECE_SECOND;
        to.word[i] = token->word;
        to.byte_begin[i] = token->byte_begin;
        to.byte_end[i] = token->byte_end;
        to.char_begin[i] = token->char_begin;
        to.char_end[i] = token->char_end;
    }
    r->token_count += (size_t)(end - begin);
    if (begin == end) return;
    const tfi_token *token = &w->tokens[begin];
    r->byte_begin[first] -= token->first_begin;
    r->byte_end[first] -= token->first_end;
    r->char_begin[first] -= token->first_begin > 0;
    r->char_end[first] -= token->first_end > 0;
}

/* ByT5: a text that ends with the special token gets no other one. */
static int is_second_end(const tf_tokenizer *t, const rows *r, const tfi_piece *piece)
{
    const size_t begin = (size_t)r->row_start[r->row_count], n = r->token_count;

    return t->no_second_end && n > begin && r->ids[n - 1] == piece->id && r->sequence[n - 1] >= 0;
}

static tf_status put_row(worker *k, const tfi_template *template, int64_t text, const windows w[2], int64_t i, int64_t j)
{
    const int keeps = k->t->windows_keep_type;
    rows *r = &k->rows;
    size_t need = 0;
    tf_status status;

    for (int32_t p = 0; p < template->count; p++) {
        const int32_t id = template->pieces[p].id;
        need += id >= 0 ? 1 : (size_t)w[id == TFI_PIECE_SECOND].size;
    }
    if ((status = reserve_tokens(r, need)) < 0 || (status = reserve_rows(r, 1)) < 0) return status;
    for (int32_t p = 0; p < template->count; p++) {
        const tfi_piece *piece = &template->pieces[p];
        if (piece->id == TFI_PIECE_FIRST) put_text(r, piece, keeps && i > 0 ? 0 : piece->type, &w[0], i);
        else if (piece->id == TFI_PIECE_SECOND) put_text(r, piece, keeps && j > 0 ? 1 : piece->type, &w[1], j);
        else if (k->set->special && !is_second_end(k->t, r, piece)) put_special(r, piece);
    }
    r->row_text[r->row_count] = text;
    r->row_start[++r->row_count] = (int64_t)r->token_count;
    return TF_STATUS_OK;
}

/* The order in which the reference merges the windows of two texts. */
static tf_status put_rows(worker *k, const tfi_template *template, int64_t text, const windows w[2])
{
    tf_status status = put_row(k, template, text, w, 0, 0);

    for (int64_t i = 1; i < w[0].number && status == TF_STATUS_OK; i++)
        for (int64_t j = 0; j < w[1].number && status == TF_STATUS_OK; j++) status = put_row(k, template, text, w, i, j);
    for (int64_t j = 1; j < w[1].number && status == TF_STATUS_OK; j++) status = put_row(k, template, text, w, 0, j);
    return status;
}

/* Text. */

static int64_t text_bytes(const tf_text *text)
{
    return text->size < 0 ? (int64_t)strlen(text->data) : text->size;
}

static tf_status repair(tfi_scratch *s, const uint8_t *text, size_t size)
{
    size_t at = 0;
    tf_status status;

    s->repaired_size = s->repair_count = 0;
    while (at < size) {
        uint32_t bad = 0;
        const size_t good = tfi_utf8_valid(text + at, size - at, &bad);
        status = tfi_reserve(s->memory, (void **)&s->repaired, &s->repaired_capacity, s->repaired_size + good + 3, 1);
        if (status < 0) return status;
        memcpy(s->repaired + s->repaired_size, text + at, good);
        s->repaired_size += good;
        at += good;
        if (bad == 0) continue;
        status = tfi_reserve(s->memory, (void **)&s->repairs, &s->repair_capacity, s->repair_count + 1, sizeof *s->repairs);
        if (status < 0) return status;
        at += bad;
        memcpy(s->repaired + s->repaired_size, "\xef\xbf\xbd", 3);
        s->repaired_size += 3;
        s->repairs[s->repair_count++] =
            (tfi_repair){.at = (uint32_t)s->repaired_size, .shift = (int64_t)at - (int64_t)s->repaired_size};
    }
    return TF_STATUS_OK;
}

/* Offsets in repaired text to offsets in the original; both ends lie on code points. */
static uint32_t original_offset(const tfi_scratch *s, uint32_t at)
{
    size_t low = 0, high = s->repair_count;

    while (low < high) { /* the first repair that ends behind `at` */
        const size_t middle = (low + high) / 2;
        if (s->repairs[middle].at <= at) low = middle + 1;
        else high = middle;
    }
    return low ? (uint32_t)(at + s->repairs[low - 1].shift) : at;
}

static tf_status text_tokens(worker *k, int64_t number, int second)
{
    const tf_text text = second ? k->pairs[number] : k->texts[number];
    const uint8_t *data = (const uint8_t *)text.data;
    const size_t size = (size_t)text_bytes(&text), first = k->scratch.token_count;
    const char *which = second ? "second text" : "text";
    tfi_scratch *s = &k->scratch;
    uint32_t bad;
    tf_status status;

    s->pattern_steps = 0;
    const size_t good = tfi_utf8_valid(data, size, &bad);
    if (good == size) return tfi_words(k->t, s, data, (uint32_t)size);
    if (!k->set->replace) return tfi_fail(TF_STATUS_INVALID, "%s %lld: not UTF-8 at byte %zu", which, (long long)number, good);
    if ((status = repair(s, data, size)) < 0) return status;
    if (s->repaired_size > TEXT_MAX)
        return tfi_fail(TF_STATUS_INVALID, "%s %lld: more than %d bytes once repaired", which, (long long)number, TEXT_MAX);
    if ((status = tfi_words(k->t, s, s->repaired, (uint32_t)s->repaired_size)) < 0) return status;
    for (size_t i = first; i < s->token_count; i++) {
        tfi_token *token = &s->tokens[i];
        const uint32_t first_begin = original_offset(s, token->byte_begin - token->first_begin);
        const uint32_t first_end = original_offset(s, token->byte_end - token->first_end);
        token->byte_begin = original_offset(s, token->byte_begin);
        token->byte_end = original_offset(s, token->byte_end);
        token->first_begin = (uint8_t)(token->byte_begin - first_begin);
        token->first_end = (uint8_t)(token->byte_end - first_end);
    }
    return TF_STATUS_OK;
}

static tf_status encode_text(worker *k, int64_t number)
{
    const tfi_template *template = k->pairs ? &k->t->pair : &k->t->single;
    tfi_scratch *s = &k->scratch;
    tf_status status;

    s->token_count = 0;
    if ((status = text_tokens(k, number, 0)) < 0) return status;
    const int64_t n1 = (int64_t)s->token_count;
    if (k->pairs && (status = text_tokens(k, number, 1)) < 0) return status;
    const int64_t n2 = (int64_t)s->token_count - n1;
    const int left = k->set->side == TF_SIDE_LEFT;
    windows w[2] = {{.tokens = s->tokens, .count = n1, .size = n1, .step = 1, .number = 1, .left = left},
                    {.tokens = n1 ? s->tokens + n1 : s->tokens, .count = n2, .size = n2, .step = 1, .number = 1, .left = left}};
    if ((status = truncate(k->set, number, k->pairs != NULL, template->specials, w)) < 0) return status;
    return put_rows(k, template, number, w);
}

static void *worker_run(void *arg)
{
    worker *k = arg;

    k->status = reserve_rows(&k->rows, 1);
    rows_clear(&k->rows);
    for (int64_t i = k->first; i < k->last && k->status == TF_STATUS_OK; i++) k->status = encode_text(k, i);
    if (k->status < 0) snprintf(k->error, sizeof k->error, "%s", tf_last_error());
    return NULL;
}

/* The call. */

static tf_status read_settings(const tf_tokenizer *t, const tf_tokenize_options *options, settings *set)
{
    tf_tokenize_options o;
    tf_status status;

    tf_tokenize_options_init(&o);
    if ((status = tfi_options_read(&o, sizeof o, options, "tf_tokenize_options")) < 0) return status;
    *set = (settings){.special = o.add_special_tokens == TF_UNSET ? 1 : o.add_special_tokens,
                      .truncation = o.truncation == TF_UNSET ? TF_TRUNCATION_NONE : o.truncation,
                      .side = o.truncation_side == TF_UNSET ? t->truncation_side : o.truncation_side,
                      .overflow = o.overflow == TF_UNSET ? 0 : o.overflow,
                      .replace = o.replace_invalid == TF_UNSET ? 0 : o.replace_invalid,
                      .threads = o.threads == TF_UNSET ? 1 : o.threads,
                      .max_length = o.max_length == TF_UNSET ? t->model_max_length : o.max_length,
                      .stride = o.stride == TF_UNSET ? 0 : o.stride,
                      .first_keeps_more = t->first_keeps_more};
    const struct {
        const char *name;
        int64_t value, min, max;
    } ranges[] = {{"add_special_tokens", set->special, 0, 1},
                  {"truncation", set->truncation, TF_TRUNCATION_NONE, TF_TRUNCATION_ONLY_SECOND},
                  {"truncation_side", set->side, TF_SIDE_RIGHT, TF_SIDE_LEFT},
                  {"overflow", set->overflow, 0, 1},
                  {"replace_invalid", set->replace, 0, 1},
                  {"threads", set->threads, 1, INT32_MAX},
                  {"max_length", set->max_length, 0, INT32_MAX},
                  {"stride", set->stride, 0, INT32_MAX}};
    for (size_t i = 0; i < sizeof ranges / sizeof ranges[0]; i++)
        if (ranges[i].value < ranges[i].min || ranges[i].value > ranges[i].max)
            return tfi_fail(TF_STATUS_INVALID, "tf_tokenize_options.%s is %lld, outside [%lld, %lld]", ranges[i].name,
                            (long long)ranges[i].value, (long long)ranges[i].min, (long long)ranges[i].max);
    /* As the reference: without any limit to cut to, nothing is cut. */
    if (o.max_length == TF_UNSET && t->model_max_length == INT32_MAX) set->truncation = TF_TRUNCATION_NONE;
    return TF_STATUS_OK;
}

static tf_status check_text(const tf_text *text, const char *which, int64_t number, int64_t *bytes)
{
    if (!text->data && text->size != 0)
        return tfi_fail(TF_STATUS_INVALID, "%s %lld: data must not be NULL", which, (long long)number);
    const int64_t size = text_bytes(text);
    if (size > TEXT_MAX)
        return tfi_fail(TF_STATUS_INVALID, "%s %lld: %lld bytes, at most %d", which, (long long)number, (long long)size,
                        TEXT_MAX);
    *bytes = *bytes < INT64_MAX - size ? *bytes + size : INT64_MAX;
    return TF_STATUS_OK;
}

static tf_status check_texts(const tf_text *texts, const tf_text *pairs, int64_t count, int64_t *bytes)
{
    tf_status status = TF_STATUS_OK;

    *bytes = 0;
    for (int64_t i = 0; i < count && status == TF_STATUS_OK; i++) {
        status = check_text(&texts[i], "text", i, bytes);
        if (status == TF_STATUS_OK && pairs) status = check_text(&pairs[i], "second text", i, bytes);
    }
    return status;
}

static tf_status reserve_workers(tf_encoding *e, int32_t count)
{
    if (count <= e->worker_count) return TF_STATUS_OK;
    worker *grown = tfi_realloc(&e->memory, e->workers, (size_t)e->worker_count * sizeof *grown, (size_t)count * sizeof *grown);
    if (!grown) return TF_STATUS_NOMEM;
    for (int32_t i = e->worker_count; i < count; i++)
        grown[i] = (worker){.scratch = {.memory = &e->memory}, .rows = {.memory = &e->memory}};
    e->workers = grown;
    e->worker_count = count;
    return TF_STATUS_OK;
}

/* Give each worker neighbouring texts of about the same number of bytes. */
static void share(tf_encoding *e, int32_t threads, const tf_text *texts, const tf_text *pairs, int64_t count, int64_t bytes)
{
    int64_t at = 0, done = 0;

    for (int32_t i = 0; i < threads; i++) {
        worker *k = &e->workers[i];
        const int64_t goal = i + 1 == threads ? INT64_MAX : bytes / threads * (i + 1);
        k->first = at;
        for (; at < count && (done < goal || i + 1 == threads); at++)
            done += text_bytes(&texts[at]) + (pairs ? text_bytes(&pairs[at]) : 0);
        k->last = at;
    }
}

/* Append the rows of the other workers to the first one's. */
static tf_status gather(tf_encoding *e, int32_t threads)
{
    rows *to = &e->workers[0].rows;
    size_t token_count = 0, row_count = 0;
    tf_status status;

    for (int32_t i = 1; i < threads; i++) {
        token_count += e->workers[i].rows.token_count;
        row_count += e->workers[i].rows.row_count;
    }
    if ((status = reserve_tokens(to, token_count)) < 0 || (status = reserve_rows(to, row_count)) < 0) return status;
    for (int32_t i = 1; i < threads; i++) {
        const rows *from = &e->workers[i].rows;
        for (size_t r = 0; r < from->row_count; r++) {
            to->row_text[to->row_count + r] = from->row_text[r];
            to->row_start[to->row_count + r + 1] = (int64_t)to->token_count + from->row_start[r + 1];
        }
        to->row_count += from->row_count;
        tokens_copy(to, from);
    }
    return TF_STATUS_OK;
}

static tf_status run_workers(tf_encoding *e, int32_t threads)
{
    pthread_t ids[THREADS_MAX];
    int32_t started = 1;

    for (; started < threads; started++)
        if (tfi_thread_start(&ids[started], "tf-tokenize", worker_run, &e->workers[started]) < 0) break;
    worker_run(&e->workers[0]);
    for (int32_t i = 1; i < started; i++) (void)pthread_join(ids[i], NULL);
    for (int32_t i = started; i < threads; i++) worker_run(&e->workers[i]); /* no thread to be had: the work is still done */
    for (int32_t i = 0; i < threads; i++)
        if (e->workers[i].status < 0) return tfi_fail(e->workers[i].status, "%s", e->workers[i].error);
    return threads > 1 ? gather(e, threads) : TF_STATUS_OK;
}

tf_status tf_tokenizer_encode(const tf_tokenizer *t, const tf_text *texts, const tf_text *pairs, int64_t count,
                              const tf_tokenize_options *options, tf_encoding *out)
{
    settings set;
    int64_t bytes;
    tf_status status;

    if (!t || !out) return tfi_fail(TF_STATUS_INVALID, "tokenizer and encoding must not be NULL");
    rows_clear(&out->workers[0].rows);
    if (count < 0 || (count > 0 && !texts))
        return tfi_fail(TF_STATUS_INVALID, "count is %lld, texts is %s", (long long)count, texts ? "set" : "NULL");
    if ((status = read_settings(t, options, &set)) < 0 || (status = check_texts(texts, pairs, count, &bytes)) < 0)
        return status;
    int64_t threads = set.threads < THREADS_MAX ? set.threads : THREADS_MAX;
    if (threads > count) threads = count;
    if (threads > bytes / THREAD_BYTES_MIN) threads = bytes / THREAD_BYTES_MIN;
    if (threads < 1) threads = 1;
    if ((status = reserve_workers(out, (int32_t)threads)) < 0) return status;
    share(out, (int32_t)threads, texts, pairs, count, bytes);
    for (int64_t i = 0; i < threads; i++) {
        worker *k = &out->workers[i];
        k->t = t;
        k->set = &set;
        k->texts = texts;
        k->pairs = pairs;
    }
    if ((status = run_workers(out, (int32_t)threads)) < 0) rows_clear(&out->workers[0].rows);
    return status;
}

tf_status tf_encoding_open(const tf_tokenizer *t, tf_encoding **out)
{
    tfi_memory memory;
    tf_encoding *e;

    if (!t || !out) return tfi_fail(TF_STATUS_INVALID, "tokenizer and out must not be NULL");
    *out = NULL;
    tfi_memory_init(&memory, &t->memory->hooks, TF_UNSET);
    if (!(e = tfi_zalloc(&memory, sizeof *e))) return TF_STATUS_NOMEM;
    tfi_memory_init(&e->memory, &t->memory->hooks, TF_UNSET);
    if (reserve_workers(e, 1) < 0 || reserve_rows(&e->workers[0].rows, 1) < 0) {
        tf_encoding_close(e);
        return TF_STATUS_NOMEM;
    }
    rows_clear(&e->workers[0].rows);
    *out = e;
    return TF_STATUS_OK;
}

void tf_encoding_close(tf_encoding *e)
{
    tfi_memory memory;

    if (!e) return;
    for (int32_t i = 0; i < e->worker_count; i++) {
        tfi_scratch_close(&e->workers[i].scratch);
        rows_close(&e->workers[i].rows);
    }
    tfi_free(&e->memory, e->workers, (size_t)e->worker_count * sizeof *e->workers);
    tfi_memory_init(&memory, &e->memory.hooks, TF_UNSET);
    tfi_free(&memory, e, sizeof *e);
}

tf_status tf_encoding_get(const tf_encoding *e, tf_encoding_data *data)
{
    if (!e) return tfi_fail(TF_STATUS_INVALID, "encoding must not be NULL");
    const rows *r = &e->workers[0].rows;
    const tf_encoding_data all = {.struct_size = sizeof all,
                                  .rows = (int64_t)r->row_count,
                                  .tokens = (int64_t)r->token_count,
                                  .row_start = r->row_start,
                                  .row_text = r->row_text,
                                  .ids = r->ids,
                                  .type_ids = r->type_ids,
                                  .sequence = r->sequence,
                                  .word = r->word,
                                  .byte_begin = r->byte_begin,
                                  .byte_end = r->byte_end,
                                  .char_begin = r->char_begin,
                                  .char_end = r->char_end};
    return tfi_result_write(data, &all, sizeof all, "tf_encoding_data");
}
