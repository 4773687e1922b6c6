/* Token classification: probabilities a token, words, groups, windows, as transformers' token-classification pipeline does them. */
#include <math.h>
#include <string.h>

#include "api/handles.h"
#include "base/options.h"
#include "base/status.h"

/* A token or a word that has one label. */
typedef struct unit {
    int32_t label;
    float score;
    int64_t first, last; /* tokens of the batch */
} unit;

/* What the steps below work on: one call's batch with its probabilities, and growing lists reused from row to row. */
typedef struct tagger {
    const tf_model *model;
    const tfi_batch *batch;
    const float *scores; /* [tokens, labels] probabilities */
    int32_t labels;
    tf_aggregation aggregation;
    int keep_all;
    int32_t special[5], unk; /* ids that are no words, for an input of ids */
    int is_wordpiece;        /* the tokenizer */
    const tf_text *texts, *pairs;
    int64_t input; /* the text that the row at hand is of */
    unit *units;             /* [longest sequence] */
    tf_entity *found;        /* of one input */
    int64_t found_count, found_room;
} tagger;

static int is_special(const tagger *t, int64_t token)
{
    if (t->batch->encoding) return t->batch->text.sequence[token] < 0;
    for (int i = 0; t->batch->ids && i < 5; i++)
        if (t->special[i] >= 0 && t->batch->ids[token] == t->special[i]) return 1;
    return 0;
}

static int64_t code_points(const char *text)
{
    int64_t n = 0;
    for (; *text; text++) n += (*text & 0xC0) != 0x80;
    return n;
}

/* Does a token of byte-level BPE continue the word before it? To the reference it does where no space is around its begin. */
static int follows_no_space(const tagger *t, int64_t token)
{
    const tf_encoding_data *d = &t->batch->text;
    const tf_text *text = (d->sequence[token] == 1 ? t->pairs : t->texts) + t->input;
    const int64_t at = d->byte_begin[token];

    if (at == 0 || text->data[at - 1] == ' ') return 0;
    return at == text->size || text->data[at] != ' '; /* of size < 0: a NUL is there */
}

/* Does the token continue the word before it? For WordPiece the reference compares the length of its vocabulary entry with that of
 * the text it covers. Without text the entry tells: by "##", or by the space that a first piece of BPE or Unigram is spelled with. */
static int continues_word(const tagger *t, int64_t token)
{
    static const char space[] = "\xc4\xa0", mark[] = "\xe2\x96\x81";
    const char *entry;

    if (!t->model->tokenizer || !t->batch->ids || t->batch->ids[token] == t->unk ||
        tf_tokenizer_token(t->model->tokenizer, t->batch->ids[token], &entry) < 0)
        return 0;
    if (!t->batch->encoding)
        return t->is_wordpiece ? strncmp(entry, "##", 2) == 0 : strncmp(entry, space, 2) != 0 && strncmp(entry, mark, 3) != 0;
    if (!t->is_wordpiece) return follows_no_space(t, token);
    return code_points(entry) != t->batch->text.char_end[token] - t->batch->text.char_begin[token];
}

static int32_t best_label(const float *scores, int32_t labels)
{
    int32_t best = 0;
    for (int32_t i = 1; i < labels; i++)
        if (scores[i] > scores[best]) best = i;
    return best;
}

/* The label of a word from its tokens [u->first, u->last]; the tokens of a word follow each other without special ones between. */
static void label_word(const tagger *t, unit *u)
{
    const float *first = t->scores + u->first * t->labels;
    const int64_t n = u->last - u->first + 1;

    if (t->aggregation == TF_AGGREGATION_AVERAGE) {
        u->score = -1;
        for (int32_t k = 0; k < t->labels; k++) {
            float sum = 0;
            for (int64_t i = 0; i < n; i++) sum += first[i * t->labels + k];
            if (sum / (float)n > u->score) {
                u->score = sum / (float)n;
                u->label = k;
            }
        }
        return;
    }
    u->label = best_label(first, t->labels);
    u->score = first[u->label];
    if (t->aggregation != TF_AGGREGATION_MAX) return;
    for (int64_t i = 1; i < n; i++) {
        const float *row = first + i * t->labels;
        const int32_t label = best_label(row, t->labels);
        if (row[label] > u->score) {
            u->score = row[label];
            u->label = label;
        }
    }
}

/* The row's units: tokens, or words for the aggregations that work on words. */
static int64_t make_units(tagger *t, int64_t begin, int64_t end)
{
    const int words = t->aggregation >= TF_AGGREGATION_FIRST;
    int64_t n = 0;

    for (int64_t i = begin; i < end; i++) {
        if (is_special(t, i)) continue;
        if (words && n > 0 && continues_word(t, i))
            t->units[n - 1].last = i;
        else
            t->units[n++] = (unit){.first = i, .last = i};
    }
    for (int64_t i = 0; i < n; i++) label_word(t, &t->units[i]);
    return n;
}

/* "B-PER" gives 'B' and "PER"; a label in no such form counts as inside. */
static const char *split_tag(const char *label, char *bi)
{
    *bi = 'I';
    if ((label[0] == 'B' || label[0] == 'I') && label[1] == '-') {
        *bi = label[0];
        return label + 2;
    }
    return label;
}

static tf_status add_entity(tagger *t, const unit *first, const unit *last, float score, int64_t row_begin)
{
    const tf_encoding_data *d = &t->batch->text;
    const char *label = t->model->def.label_names[first->label];
    const char *dash = strchr(label, '-');

    if (t->aggregation != TF_AGGREGATION_NONE && dash) label = dash + 1;
    if (!t->keep_all && strcmp(label, "O") == 0) return TF_STATUS_OK;
    if (t->found_count == t->found_room) {
        const int64_t room = t->found_room ? t->found_room * 2 : 32;
        void *p = tfi_realloc((tfi_memory *)&t->model->memory, t->found, (size_t)t->found_room * sizeof *t->found,
                              (size_t)room * sizeof *t->found);
        if (!p) return TF_STATUS_NOMEM;
        t->found = p;
        t->found_room = room;
    }
    tf_entity *e = &t->found[t->found_count++];
    *e = (tf_entity){.struct_size = sizeof *e, .label = label, .score = score, .label_id = first->label,
                     .token_begin = first->first - row_begin, .token_end = last->last + 1 - row_begin};
    if (t->batch->encoding) {
        e->byte_begin = d->byte_begin[first->first];
        e->byte_end = d->byte_end[last->last];
        e->char_begin = d->char_begin[first->first];
        e->char_end = d->char_end[last->last];
    }
    return TF_STATUS_OK;
}

/* Entities of one row: each unit alone, or neighbours with the same tag together unless the second begins anew. */
static tf_status tag_row(tagger *t, int64_t begin, int64_t end)
{
    const int64_t n = make_units(t, begin, end);
    const char *const *names = t->model->def.label_names;
    tf_status st = TF_STATUS_OK;

    for (int64_t i = 0, next; i < n && st == TF_STATUS_OK; i = next) {
        double sum = t->units[i].score;
        for (next = i + 1; next < n && t->aggregation != TF_AGGREGATION_NONE; next++) {
            char bi, before;
            const char *tag = split_tag(names[t->units[next].label], &bi);
            if (bi == 'B' || strcmp(tag, split_tag(names[t->units[next - 1].label], &before)) != 0) break;
            sum += t->units[next].score;
        }
        st = add_entity(t, &t->units[i], &t->units[next - 1], (float)(sum / (double)(next - i)), begin);
    }
    return st;
}

/* Stable, and quick on what it gets: windows come in order, so nearly everything is in place. */
static void sort_by_begin(tf_entity *e, int64_t n)
{
    for (int64_t i = 1; i < n; i++) {
        const tf_entity moving = e[i];
        int64_t at = i;
        for (; at > 0 && e[at - 1].char_begin > moving.char_begin; at--) e[at] = e[at - 1];
        e[at] = moving;
    }
}

/* Windows share tokens: of overlapping entities the longer one stays, of equally long ones the more certain. */
static void merge_windows(tagger *t)
{
    int64_t kept = 0;

    if (t->found_count == 0) return;
    sort_by_begin(t->found, t->found_count);
    for (int64_t i = 1; i < t->found_count; i++) {
        tf_entity *previous = &t->found[kept];
        const tf_entity *e = &t->found[i];
        if (e->char_begin >= previous->char_end) {
            t->found[++kept] = *e;
            continue;
        }
        const int64_t length = e->char_end - e->char_begin, before = previous->char_end - previous->char_begin;
        if (length > before || (length == before && e->score > previous->score)) *previous = *e;
    }
    t->found_count = kept + 1;
}

static tf_status tag_batch(tagger *t, tf_result *r, int64_t inputs)
{
    const tfi_batch *b = t->batch;
    tf_status st = TF_STATUS_OK;

    for (int64_t input = 0, row = 0; input < inputs && st == TF_STATUS_OK; input++) {
        const int64_t first_row = row;
        t->found_count = 0;
        t->input = input;
        do {
            st = tag_row(t, b->starts[row], b->starts[row + 1]);
            row++;
        } while (st == TF_STATUS_OK && b->encoding && row < b->count && b->text.row_text[row] == input);
        if (row - first_row > 1) merge_windows(t);
        for (int64_t i = 0; i < t->found_count && st == TF_STATUS_OK; i++) st = tfi_result_add(r, &t->found[i]);
        tfi_result_end_input(r, input);
    }
    return st;
}

static void softmax_rows(float *scores, int64_t rows, int32_t labels)
{
    for (int64_t r = 0; r < rows; r++, scores += labels) {
        float top = scores[0], sum = 0;
        for (int32_t i = 1; i < labels; i++) top = fmaxf(top, scores[i]);
        for (int32_t i = 0; i < labels; i++) sum += scores[i] = expf(scores[i] - top);
        for (int32_t i = 0; i < labels; i++) scores[i] /= sum;
    }
}

/* Run the batch and collect its entities into a new result. */
static tf_status tag(tf_session *s, tagger *t, int64_t inputs, tf_result **out)
{
    tfi_memory *memory = (tfi_memory *)&t->model->memory;
    const tfi_batch *b = t->batch;
    const int64_t tokens = b->count ? b->starts[b->count] : 0;
    const size_t score_bytes = (size_t)tokens * (size_t)t->labels * sizeof(float);
    const size_t unit_bytes = (size_t)t->model->def.max_input_tokens * sizeof(unit);
    float *scores = tfi_alloc(memory, score_bytes);
    tf_result *r = NULL;
    tf_status st = TF_STATUS_NOMEM;

    t->units = tfi_alloc(memory, unit_bytes);
    if (scores && t->units && (st = tfi_result_open(t->model, TFI_RECORD_ENTITY, inputs, &r)) == TF_STATUS_OK &&
        (st = tfi_session_run(s, b, &(tfi_output){t->model->def.token_logits, scores, t->labels}, 1, NULL, 0)) == TF_STATUS_OK) {
        softmax_rows(scores, tokens, t->labels);
        t->scores = scores;
        st = tag_batch(t, r, inputs);
    }
    tfi_free(memory, t->found, (size_t)t->found_room * sizeof *t->found);
    tfi_free(memory, t->units, unit_bytes);
    tfi_free(memory, scores, score_bytes);
    if (st == TF_STATUS_OK)
        *out = r;
    else
        tf_result_close(r);
    return st;
}

static tf_status read_options(const tf_token_classify_options *options, tf_token_classify_options *o)
{
    tf_status st;

    tf_token_classify_options_init(o);
    if ((st = tfi_options_read(o, sizeof *o, options, "tf_token_classify_options")) < 0 ||
        (st = tfi_option_int(&o->aggregation, TF_AGGREGATION_SIMPLE, TF_AGGREGATION_NONE, TF_AGGREGATION_MAX,
                             "tf_token_classify: aggregation")) < 0 ||
        (st = tfi_option_int(&o->truncate, 0, 0, 1, "tf_token_classify: truncate")) < 0 ||
        (st = tfi_option_int(&o->stride, -1, -1, INT32_MAX, "tf_token_classify: stride")) < 0 ||
        (st = tfi_option_int(&o->keep_all, 0, 0, 1, "tf_token_classify: keep_all")) < 0)
        return st;
    if (o->stride >= 0 && o->aggregation == TF_AGGREGATION_NONE)
        return tfi_fail(TF_STATUS_INVALID, "tf_token_classify: windows (stride) need an aggregation");
    return TF_STATUS_OK;
}

tf_status tf_token_classify(tf_session *s, const tf_input *in, const tf_token_classify_options *options, tf_result **out)
{
    tf_token_classify_options o;
    tf_tokenize_options tokenize;
    tf_tokenizer_info info = {.struct_size = sizeof info};
    tfi_batch b;
    tf_status st;

    if (!s || !in || !out) return tfi_fail(TF_STATUS_INVALID, "session, in and out must not be NULL");
    *out = NULL;
    const tf_model *m = tfi_session_model(s);
    if ((st = tfi_model_needs(m, TF_TASK_TOKEN_CLASSIFY, "tf_token_classify")) < 0 || (st = read_options(options, &o)) < 0) return st;
    tagger t = {.model = m, .batch = &b, .labels = m->def.labels, .aggregation = (tf_aggregation)o.aggregation, .keep_all = o.keep_all,
                .special = {-1, -1, -1, -1, -1}, .unk = -1};
    tf_tokenize_options_init(&tokenize);
    tokenize.max_length = m->def.max_input_tokens;
    if (m->tokenizer) {
        if ((st = tf_tokenizer_get_info(m->tokenizer, &info)) < 0) return st;
        const int32_t special[5] = {info.cls_id, info.sep_id, info.pad_id, info.bos_id, info.eos_id};
        memcpy(t.special, special, sizeof special);
        t.unk = info.unk_id;
        t.is_wordpiece = strcmp(info.model, "WordPiece") == 0;
        if (info.model_max_length < tokenize.max_length) tokenize.max_length = info.model_max_length;
    }
    if (o.truncate || o.stride >= 0) tokenize.truncation = TF_TRUNCATION_LONGEST_FIRST;
    if (o.stride >= 0) {
        tokenize.truncation = TF_TRUNCATION_ONLY_FIRST;
        tokenize.overflow = 1;
        tokenize.stride = o.stride;
    }
    if ((st = tfi_batch_open(&b, m, in, &tokenize)) == TF_STATUS_OK) {
        t.texts = in->texts;
        t.pairs = in->pairs;
        st = tag(s, &t, in->count, out);
    }
    tfi_batch_close(&b);
    if (st == TF_STATUS_OK) tfi_session_count_call(s);
    return st;
}
