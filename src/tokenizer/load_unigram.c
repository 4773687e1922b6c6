/* Unigram as files have it: tokenizer.json's list of pieces with scores and its pipeline, or SentencePiece's .model. */
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "tokenizer/load.h"

static const uint8_t usual_mark[] = "\xe2\x96\x81"; /* U+2581 */

/* Vocabulary. */

static tf_status open_vocab(tf_tokenizer *t, size_t count, tfi_entries *out)
{
    tf_status status;

    if (count > TFI_TOKEN_ID_MAX) return tfi_fail(TF_STATUS_UNSUPPORTED, "a vocabulary of %zu pieces", count);
    status = tfi_reserve(out->memory, (void **)&out->data, &out->capacity, count, sizeof *out->data);
    if (status < 0) return status;
    if (!(t->unigram.scores = tfi_arena_alloc(&t->arena, (count + 1) * sizeof *t->unigram.scores))) return TF_STATUS_NOMEM;
    return tfi_trie_open(&t->vocab, t->memory, count < TFI_TOKEN_ID_MAX / 4 ? (uint32_t)count * 3 : TFI_TOKEN_ID_MAX);
}

/* Append a piece; of two with the same text the last one counts. */
static tf_status add_piece(tf_tokenizer *t, tfi_entries *out, const char *text, size_t size, double score)
{
    tf_status status;
    int32_t *id;

    const int32_t number = (int32_t)out->count;
    out->data[out->count++] = (tfi_entry){.text = text, .size = (uint32_t)size, .id = number};
    t->unigram.scores[number] = score;
    t->vocab_entries = number + 1;
    if (size == 0) return TF_STATUS_OK;
    if ((status = tfi_trie_add(&t->vocab, (const uint8_t *)text, size, &id)) < 0) return status;
    *id = number;
    return TF_STATUS_OK;
}

static tf_status bad_piece(const char *file, size_t i, const char *what)
{
    return tfi_fail(TF_STATUS_CORRUPT, "%s: model.vocab: piece %zu %s", file, i, what);
}

/* A number of tokenizer.json as the reference reads it: up to 19 digits as one integer, divided by a power of ten. Of numbers
 * with 16 digits and more that is not always the nearest double, and equal sums of scores hang on it. Its own writer writes as
 * few digits as tell a double from its neighbours, so they can be had back. */
static double read_number(double exact)
{
    char text[40];
    uint64_t digits = 0;
    int places = 0, exponent = 0;

    for (int precision = 14; precision < 17; precision++) {
        snprintf(text, sizeof text, "%.*e", precision, fabs(exact));
        if (strtod(text, NULL) != fabs(exact)) continue;
        if (precision == 14) return exact;
        break;
    }
    const char *p = text;
    for (; *p && *p != 'e'; p++) {
        if (*p < '0' || *p > '9') continue;
        digits = digits * 10 + (uint64_t)(*p - '0');
        places++;
    }
    if (*p) exponent = (int)strtol(p + 1, NULL, 10);
    exponent -= places - 1;
    while (digits && digits % 10 == 0) digits /= 10, exponent++;
    if (exponent > 0 || exponent < -300) return exact;
    const double value = (double)digits / pow(10, -exponent);
    return exact < 0 ? -value : value;
}

tf_status tfi_read_unigram_model(tf_tokenizer *t, tfi_json model, int whole, tfi_entries *out)
{
    const json_t *vocab = json_object_get(model.object, "vocab"), *piece;
    int64_t unk = -1;
    size_t i;
    tf_status status;

    t->model = TFI_MODEL_UNIGRAM;
    if (!json_is_array(vocab)) return tfi_fail(TF_STATUS_CORRUPT, "%s: \"model.vocab\" is not an array", model.file);
    if ((status = tfi_json_int(model, "unk_id", 0, TFI_TOKEN_ID_MAX, &unk)) < 0) return status;
    if ((status = tfi_json_bool(model, "byte_fallback", &t->unigram.byte_fallback)) < 0) return status;
    t->unigram.unk_id = (int32_t)unk;
    if ((status = open_vocab(t, json_array_size(vocab), out)) < 0) return tfi_fail_prefix(status, "%s: ", model.file);
    json_array_foreach(vocab, i, piece)
    {
        const json_t *text = json_array_get(piece, 0), *score = json_array_get(piece, 1);
        if (json_array_size(piece) != 2 || !json_is_string(text) || !json_is_number(score))
            return bad_piece(model.file, i, "is not a string with a number");
        if (json_string_length(text) > TFI_PIECE_SIZE_MAX) return bad_piece(model.file, i, "is too long");
        const double number = whole ? read_number(json_number_value(score)) : json_number_value(score);
        status = add_piece(t, out, json_string_value(text), json_string_length(text), number);
        if (status < 0) return tfi_fail_prefix(status, "%s: the vocabulary: ", model.file);
    }
    return TF_STATUS_OK;
}

tf_status tfi_read_spm_vocab(tf_tokenizer *t, const tfi_spm_file *f, const tfi_spm_layout *layout, tfi_entries *out)
{
    size_t at = 0;
    tfi_spm_piece piece;
    tf_status status;

    t->model = TFI_MODEL_UNIGRAM;
    t->unigram.byte_fallback = 0; /* of the classes; tfi_spm_rules() knows better */
    status = open_vocab(t, (size_t)f->spm.pieces + (size_t)layout->head_count + (size_t)layout->extra_ids + 1, out);
    for (int32_t i = 0; i < layout->head_count && status == TF_STATUS_OK; i++)
        status = add_piece(t, out, layout->head[i].text, strlen(layout->head[i].text), layout->head[i].score);
    for (int32_t i = 0; status == TF_STATUS_OK && tfi_spm_next(f->file.data, f->file.size, &at, &piece); i++)
        if (i >= layout->skip) status = add_piece(t, out, (const char *)piece.text.data, piece.text.size, piece.score);
    if (status == TF_STATUS_OK && layout->last) status = add_piece(t, out, layout->last, strlen(layout->last), 0);
    for (int32_t i = layout->extra_ids; i > 0 && status == TF_STATUS_OK; i--) {
        char name[32];
        const int size = snprintf(name, sizeof name, "<extra_id_%d>", (int)i - 1);
        const char *text = tfi_arena_copy(&t->arena, name, (size_t)size);
        status = text ? add_piece(t, out, text, (size_t)size, 0) : TF_STATUS_NOMEM;
    }
    if (status < 0) return tfi_fail_prefix(status, "%s: ", f->name);
    return tfi_charsmap_open(&t->unigram.map, &t->arena, f->spm.charsmap.data, f->spm.charsmap.size, f->name);
}

/* Pipelines. */

static tf_status new_step(tf_tokenizer *t, const char *file, tfi_step_kind kind, tfi_step **out)
{
    tfi_unigram *u = &t->unigram;

    if (!u->steps && !(u->steps = tfi_arena_alloc(&t->arena, TFI_STEPS_MAX * sizeof *u->steps))) return TF_STATUS_NOMEM;
    if (u->step_count == TFI_STEPS_MAX)
        return tfi_fail(TF_STATUS_UNSUPPORTED, "%s: a normalizer of more than %d steps", file, TFI_STEPS_MAX);
    *out = &u->steps[u->step_count++];
    (*out)->kind = kind;
    return TF_STATUS_OK;
}

static void set_mark(tfi_unigram *u, const uint8_t *mark)
{
    u->mark = tfi_utf8_decode(mark, &u->mark_size);
    memcpy(u->mark_text, mark, u->mark_size);
}

static void set_decoder(tf_tokenizer *t, const uint8_t *mark, uint32_t mark_size, int drops)
{
    t->decoder = TFI_DECODER_METASPACE;
    t->decoder_drops = drops;
    t->decoder_prefix = tfi_arena_copy(&t->arena, (const char *)mark, mark_size);
    t->decoder_prefix_size = mark_size;
}

tf_status tfi_unigram_class(tf_tokenizer *t, int prefix_space)
{
    tfi_unigram *u = &t->unigram;
    tfi_step *step = NULL;
    tf_status status;

    if (u->map.units && (status = new_step(t, "", TFI_STEP_CHARSMAP, &step)) < 0) return status;
    u->split_spaces = u->has_mark = u->split_marks = 1;
    u->prepend = prefix_space ? TFI_PREPEND_ALWAYS : TFI_PREPEND_NEVER;
    set_mark(u, usual_mark);
    set_decoder(t, usual_mark, u->mark_size, prefix_space);
    return t->decoder_prefix ? TF_STATUS_OK : TF_STATUS_NOMEM;
}

static int digit_of(char c)
{
    if (c >= 'A' && c <= 'Z') return c - 'A';
    if (c >= 'a' && c <= 'z') return c - 'a' + 26;
    if (c >= '0' && c <= '9') return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

/* "precompiled_charsmap" is base64. */
static tf_status read_charsmap(tf_tokenizer *t, tfi_json part)
{
    const json_t *value = json_object_get(part.object, "precompiled_charsmap");
    const char *text = json_string_value(value);
    size_t n = json_string_length(value), size = 0;
    tf_status status = TF_STATUS_OK;
    uint32_t bits = 0;

    if (!text) return tfi_fail(TF_STATUS_CORRUPT, "%s: \"precompiled_charsmap\" is not a string", part.file);
    while (n > 0 && text[n - 1] == '=') n--;
    uint8_t *data = tfi_alloc(t->memory, n + 1);
    if (!data) return TF_STATUS_NOMEM;
    for (size_t i = 0; i < n && status == TF_STATUS_OK; i++) {
        const int digit = digit_of(text[i]);
        if (digit < 0) status = tfi_fail(TF_STATUS_CORRUPT, "%s: \"precompiled_charsmap\" is not base64", part.file);
        bits = bits << 6 | (uint32_t)(digit & 63);
        if (i % 4 == 1) data[size++] = (uint8_t)(bits >> 4);
        if (i % 4 == 2) data[size++] = (uint8_t)(bits >> 2);
        if (i % 4 == 3) data[size++] = (uint8_t)bits;
    }
    if (status == TF_STATUS_OK) status = tfi_charsmap_open(&t->unigram.map, &t->arena, data, size, part.file);
    tfi_free(t->memory, data, n + 1);
    return status;
}

static tf_status refuse_step(tfi_json part, const char *what, const char *type)
{
    return tfi_fail(TF_STATUS_UNSUPPORTED, "%s: %s is %s, which is not supported for Unigram", part.file, what, type);
}

/* Code points of a pattern or of its replacement. */
static int read_points(const json_t *value, uint32_t out[TFI_REPLACE_MAX], uint32_t *count)
{
    const uint8_t *text = (const uint8_t *)json_string_value(value);
    uint32_t size;

    *count = 0;
    if (!text || json_string_length(value) > TFI_REPLACE_MAX) return 0;
    for (size_t at = 0; at < json_string_length(value); at += size) out[(*count)++] = tfi_utf8_decode(text + at, &size);
    return 1;
}

/* Replace, of a string or of two and more spaces, the one regular expression that such files have. */
static tf_status read_replace(tf_tokenizer *t, tfi_json part)
{
    const json_t *pattern = json_object_get(part.object, "pattern"), *text = json_object_get(pattern, "String");
    const char *regex = json_string_value(json_object_get(pattern, "Regex"));
    tfi_step *step = NULL;
    const tf_status status = new_step(t, part.file, TFI_STEP_REPLACE, &step);

    if (status < 0) return status;
    if (regex && strcmp(regex, " {2,}") != 0)
        return tfi_fail(TF_STATUS_UNSUPPORTED, "%s: normalizer: Replace of the regular expression \"%.64s\" is not supported",
                        part.file, regex);
    step->run = regex != NULL;
    step->from[0] = ' ';
    if ((!regex && (!read_points(text, step->from, &step->from_count) || step->from_count == 0)) ||
        !read_points(json_object_get(part.object, "content"), step->to, &step->to_count))
        return tfi_fail(TF_STATUS_UNSUPPORTED, "%s: normalizer: Replace of what is neither a string nor a regular expression",
                        part.file);
    return TF_STATUS_OK;
}

static tf_status read_strip(tf_tokenizer *t, tfi_json part)
{
    tfi_step *step = NULL;
    tf_status status = new_step(t, part.file, TFI_STEP_STRIP, &step);

    if (status < 0) return status;
    step->left = step->right = 1;
    if ((status = tfi_json_bool(part, "strip_left", &step->left)) < 0) return status;
    return tfi_json_bool(part, "strip_right", &step->right);
}

static tf_status read_normalizer(tf_tokenizer *t, tfi_json part, int depth)
{
    const char *type = NULL;
    const json_t *list, *value;
    tfi_step *step = NULL;
    size_t i;
    tf_status status;

    if (!part.object || json_is_null(part.object)) return TF_STATUS_OK;
    if (!json_is_object(part.object)) return tfi_fail(TF_STATUS_CORRUPT, "%s: a normalizer is not an object", part.file);
    if ((status = tfi_json_string(part, "type", &type)) < 0) return status;
    if (!type) return tfi_fail(TF_STATUS_CORRUPT, "%s: a normalizer has no \"type\"", part.file);
    if (strcmp(type, "Lowercase") == 0) return new_step(t, part.file, TFI_STEP_LOWERCASE, &step);
    if (strcmp(type, "Nmt") == 0) return new_step(t, part.file, TFI_STEP_NMT, &step);
    if (strcmp(type, "Replace") == 0) return read_replace(t, part);
    if (strcmp(type, "Strip") == 0) return read_strip(t, part);
    if (strcmp(type, "Precompiled") == 0) {
        if (t->unigram.map.units) return refuse_step(part, "a second normalizer", type);
        if ((status = read_charsmap(t, part)) < 0) return status;
        return new_step(t, part.file, TFI_STEP_CHARSMAP, &step);
    }
    if (strcmp(type, "Sequence") != 0 || depth > 1) return refuse_step(part, "the normalizer", type);
    list = json_object_get(part.object, "normalizers");
    if (!json_is_array(list)) return tfi_fail(TF_STATUS_CORRUPT, "%s: \"normalizers\" is not an array", part.file);
    json_array_foreach(list, i, value)
    {
        if ((status = read_normalizer(t, (tfi_json){.object = value, .file = part.file}, depth + 1)) < 0) return status;
    }
    return TF_STATUS_OK;
}

tf_status tfi_read_class_charsmap(tf_tokenizer *t, tfi_json root)
{
    const json_t *normalizer = json_object_get(root.object, "normalizer"), *list = json_object_get(normalizer, "normalizers");
    const size_t n = json_is_array(list) ? json_array_size(list) : 1;

    for (size_t i = 0; i < n; i++) {
        const tfi_json part = {.object = json_is_array(list) ? json_array_get(list, i) : normalizer, .file = root.file};
        const char *type = json_string_value(json_object_get(part.object, "type"));
        if (type && strcmp(type, "Precompiled") == 0) return read_charsmap(t, part);
    }
    return TF_STATUS_OK;
}

/* The settings of a Metaspace, which a pre-tokenizer and a decoder may be. */
static tf_status read_metaspace(tfi_json part, const uint8_t **mark, tfi_prepend *prepend, int *split)
{
    const char *text = (const char *)usual_mark, *scheme = "always";
    int prefix = 1;
    uint32_t size;
    tf_status status;

    if ((status = tfi_json_string(part, "replacement", &text)) < 0) return status;
    if ((status = tfi_json_string(part, "prepend_scheme", &scheme)) < 0) return status;
    if ((status = tfi_json_bool(part, "add_prefix_space", &prefix)) < 0) return status;
    if ((status = tfi_json_bool(part, "split", split)) < 0) return status;
    *prepend = strcmp(scheme, "always") == 0  ? TFI_PREPEND_ALWAYS
               : strcmp(scheme, "first") == 0 ? TFI_PREPEND_FIRST
                                              : TFI_PREPEND_NEVER;
    if (*prepend == TFI_PREPEND_NEVER && strcmp(scheme, "never") != 0)
        return tfi_fail(TF_STATUS_CORRUPT, "%s: Metaspace: prepend_scheme is \"%.32s\"", part.file, scheme);
    if (!prefix && *prepend != TFI_PREPEND_NEVER)
        return tfi_fail(TF_STATUS_CORRUPT, "%s: Metaspace: add_prefix_space and prepend_scheme disagree", part.file);
    if (!*text || ((void)tfi_utf8_decode((const uint8_t *)text, &size), strlen(text) != size))
        return tfi_fail(TF_STATUS_CORRUPT, "%s: Metaspace: replacement is \"%.32s\", not one character", part.file, text);
    *mark = (const uint8_t *)text;
    return TF_STATUS_OK;
}

static tf_status read_pre_tokenizer(tf_tokenizer *t, tfi_json part, int depth)
{
    tfi_unigram *u = &t->unigram;
    const char *type = NULL;
    const uint8_t *mark;
    const json_t *list, *value;
    size_t i;
    tf_status status;

    if (!part.object || json_is_null(part.object)) return TF_STATUS_OK;
    if (!json_is_object(part.object)) return tfi_fail(TF_STATUS_CORRUPT, "%s: a pre_tokenizer is not an object", part.file);
    if ((status = tfi_json_string(part, "type", &type)) < 0) return status;
    if (!type) return tfi_fail(TF_STATUS_CORRUPT, "%s: a pre_tokenizer has no \"type\"", part.file);
    if (u->has_mark) return refuse_step(part, "a pre_tokenizer behind Metaspace", type);
    if (strcmp(type, "WhitespaceSplit") == 0) return u->split_spaces = 1, TF_STATUS_OK;
    if (strcmp(type, "Metaspace") == 0) {
        u->has_mark = u->split_marks = 1;
        if ((status = read_metaspace(part, &mark, &u->prepend, &u->split_marks)) < 0) return status;
        return set_mark(u, mark), TF_STATUS_OK;
    }
    if (strcmp(type, "Sequence") != 0 || depth > 1) return refuse_step(part, "the pre_tokenizer", type);
    list = json_object_get(part.object, "pretokenizers");
    if (!json_is_array(list)) return tfi_fail(TF_STATUS_CORRUPT, "%s: \"pretokenizers\" is not an array", part.file);
    json_array_foreach(list, i, value)
    {
        if ((status = read_pre_tokenizer(t, (tfi_json){.object = value, .file = part.file}, depth + 1)) < 0) return status;
    }
    return TF_STATUS_OK;
}

static tf_status read_decoder(tf_tokenizer *t, tfi_json part)
{
    const char *type = NULL;
    const uint8_t *mark;
    tfi_prepend prepend;
    int split;
    tf_status status;

    if (!part.object || json_is_null(part.object)) return TF_STATUS_OK;
    if (!json_is_object(part.object)) return tfi_fail(TF_STATUS_CORRUPT, "%s: the decoder is not an object", part.file);
    if ((status = tfi_json_string(part, "type", &type)) < 0) return status;
    if (type && strcmp(type, "Sequence") == 0 && json_array_size(json_object_get(part.object, "decoders")) == 1)
        return read_decoder(
            t, (tfi_json){.object = json_array_get(json_object_get(part.object, "decoders"), 0), .file = part.file});
    if (!type || strcmp(type, "Metaspace") != 0) return refuse_step(part, "the decoder", type ? type : "nothing");
    if ((status = read_metaspace(part, &mark, &prepend, &split)) < 0) return status;
    set_decoder(t, mark, (uint32_t)strlen((const char *)mark), prepend != TFI_PREPEND_NEVER);
    return t->decoder_prefix ? TF_STATUS_OK : TF_STATUS_NOMEM;
}

tf_status tfi_read_unigram_pipeline(tf_tokenizer *t, tfi_json root)
{
    tf_status status;

    set_mark(&t->unigram, usual_mark);
    status = read_normalizer(t, (tfi_json){.object = json_object_get(root.object, "normalizer"), .file = root.file}, 0);
    if (status < 0) return status;
    status = read_pre_tokenizer(t, (tfi_json){.object = json_object_get(root.object, "pre_tokenizer"), .file = root.file}, 0);
    if (status < 0) return status;
    return read_decoder(t, (tfi_json){.object = json_object_get(root.object, "decoder"), .file = root.file});
}

/* libsentencepiece's own rules. */

/* Read the pieces that a text may be made of, by their types, into `own`. */
static tf_status read_types(tf_tokenizer *t, const tfi_spm_file *f, tfi_trie *own)
{
    tfi_unigram *u = &t->unigram;
    const tfi_spm *spm = &f->spm;
    float least = INFINITY, most = FLT_MIN; /* as there: scores are negative, so that a user-defined piece has about -0.1 */
    size_t at = 0;
    tfi_spm_piece piece;
    tf_status status;
    int32_t *value;

    for (int32_t id = 0; tfi_spm_next(f->file.data, f->file.size, &at, &piece); id++) {
        const int is_user = piece.type == TFI_SPM_USER_DEFINED;
        if (tfi_trie_find(&t->vocab, piece.text.data, piece.text.size) != id)
            return tfi_fail(TF_STATUS_CORRUPT, "%s: piece %d is there twice", f->name, (int)id);
        if (id == spm->unk_id && piece.type != TFI_SPM_UNKNOWN)
            return tfi_fail(TF_STATUS_CORRUPT, "%s: piece %d is not the unknown one, as unk_id says", f->name, (int)id);
        if (piece.type != TFI_SPM_NORMAL && !is_user) continue;
        for (size_t i = 1; i + u->mark_size <= piece.text.size; i++)
            u->spans_words |= memcmp(piece.text.data + i, u->mark_text, u->mark_size) == 0;
        if (!is_user && piece.score < least) least = piece.score;
        if (!is_user && piece.score > most) most = piece.score;
        if ((status = tfi_trie_add(own, piece.text.data, piece.text.size, &value)) < 0) return status;
        *value = id;
        if (!is_user) continue;
        u->user_count++;
        if ((status = tfi_trie_add(&u->user, piece.text.data, piece.text.size, &value)) < 0) return status;
        *value = id;
    }
    if (least > most) least = 0; /* no normal piece */
    u->unk_score = least - 10.0f;
    at = 0;
    for (int32_t id = 0; u->user_count && tfi_spm_next(f->file.data, f->file.size, &at, &piece); id++)
        if (piece.type == TFI_SPM_USER_DEFINED) u->scores[id] = (double)((float)piece.text.size * most) - 0.1;
    return TF_STATUS_OK;
}

static tf_status read_own_pieces(tf_tokenizer *t, const tfi_spm_file *f)
{
    tfi_trie own;
    tf_status status = tfi_trie_open(&own, t->memory, t->vocab.nodes);

    if (status == TF_STATUS_OK) status = read_types(t, f, &own);
    if (status == TF_STATUS_OK) status = tfi_darts_open(&t->unigram.pieces, t->memory, &own);
    tfi_trie_close(&own);
    return status;
}

tf_status tfi_spm_rules(tf_tokenizer *t, const tfi_spm_file *f)
{
    tfi_unigram *u = &t->unigram;
    const tfi_spm *spm = &f->spm;
    tf_status status;

    u->is_spm = 1;
    u->dummy_prefix = spm->dummy_prefix;
    u->remove_extra_spaces = spm->remove_extra_spaces;
    u->escape_spaces = spm->escape_spaces;
    u->space_is_suffix = spm->space_is_suffix;
    u->byte_fallback = spm->byte_fallback;
    u->unk_id = spm->unk_id;
    set_mark(u, usual_mark);
    t->decoder = TFI_DECODER_SPM;
    u->unk_surface = tfi_arena_copy(&t->arena, (const char *)spm->unk_surface.data, spm->unk_surface.size);
    u->unk_surface_size = (uint32_t)spm->unk_surface.size;
    t->decoder_prefix = tfi_arena_copy(&t->arena, (const char *)usual_mark, u->mark_size);
    t->decoder_prefix_size = u->mark_size;
    if (!u->unk_surface || !t->decoder_prefix) return TF_STATUS_NOMEM;
    if ((status = tfi_trie_open(&u->user, t->memory, 64)) < 0) return status;
    return read_own_pieces(t, f);
}

void tfi_spm_mark_special(tf_tokenizer *t, const tfi_spm_file *f)
{
    size_t at = 0;
    tfi_spm_piece piece;

    for (int32_t id = 0; tfi_spm_next(f->file.data, f->file.size, &at, &piece); id++)
        if (piece.type == TFI_SPM_CONTROL || piece.type == TFI_SPM_UNKNOWN) t->token_flags[id] |= TFI_TOKEN_SPECIAL;
}

/* Classes. */

tf_status tfi_extra_ids(const tfi_loading *l, int32_t *count)
{
    enum { EXTRA_IDS_MAX = 10000 };
    const int has = l->rules == TFI_RULES_T5 || l->rules == TFI_RULES_BYT5 || (l->rules == TFI_RULES_SPM && l->is_class);
    int64_t value = !has ? 0 : l->rules == TFI_RULES_BYT5 ? 125 : 100;
    const tf_status status = has ? tfi_json_int(l->config, "extra_ids", 0, EXTRA_IDS_MAX, &value) : TF_STATUS_OK;

    *count = (int32_t)value;
    return status;
}

static tf_status read_spm_class(tfi_loading *l)
{
    const char *const bos = l->names[TFI_BOS].text, *const pad = l->names[TFI_PAD].text, *const eos = l->names[TFI_EOS].text;
    const char *const unk = l->names[TFI_UNK].text;
    const struct tfi_spm_head xlm_roberta[] = {{bos, 0}, {pad, 0}, {eos, 0}, {unk, 0}};
    const struct tfi_spm_head camembert[] = {{"<s>NOTUSED", 0}, {pad, 0}, {"</s>NOTUSED", 0}, {unk, 0}, {"<unk>NOTUSED", -100}};
    tfi_spm_layout layout = {0};
    tf_status status;

    if (l->rules == TFI_RULES_XLM_ROBERTA)
        layout = (tfi_spm_layout){.head = xlm_roberta, .head_count = 4, .skip = 3, .last = l->names[TFI_MASK].text};
    if (l->rules == TFI_RULES_CAMEMBERT)
        layout = (tfi_spm_layout){.head = camembert, .head_count = 5, .skip = 1, .last = l->names[TFI_MASK].text};
    if ((status = tfi_extra_ids(l, &layout.extra_ids)) < 0) return status;
    return tfi_read_spm_vocab(l->t, &l->spm, &layout, &l->entries);
}

tf_status tfi_read_unigram_class(tfi_loading *l)
{
    tf_tokenizer *t = l->t;
    int prefix = 1;
    tf_status status;

    t->unigram.byte_fallback = 0;
    if (l->spm.file.data) status = read_spm_class(l);
    else status = tfi_read_class_charsmap(t, l->tokens);
    if (status < 0) return status;
    if (l->rules == TFI_RULES_SPM) {
        if ((status = tfi_json_bool(l->config, "do_lower_case", &t->unigram.lowercase)) < 0) return status;
        t->lowercase = t->unigram.lowercase;
        return tfi_spm_rules(t, &l->spm);
    }
    t->unigram.unk_id = l->rules == TFI_RULES_T5 ? 2 : 3;
    if (l->rules == TFI_RULES_CAMEMBERT) {
        t->unigram.unk_id = 0;
        for (size_t i = l->entries.count; i > 0; i--) {
            const tfi_entry *e = &l->entries.data[i - 1];
            if (e->size == l->names[TFI_UNK].size && memcmp(e->text, l->names[TFI_UNK].text, e->size) == 0)
                t->unigram.unk_id = (int32_t)i - 1;
        }
    }
    if (l->rules != TFI_RULES_T5 && (status = tfi_json_bool(l->config, "add_prefix_space", &prefix)) < 0) return status;
    return tfi_unigram_class(t, prefix);
}

/* Both. */

/* What the short way for ASCII may take for granted. */
static void set_ascii(tf_tokenizer *t)
{
    tfi_unigram *u = &t->unigram;
    size_t matched;
    uint32_t size;

    u->is_plain = u->step_count == 0 || (u->step_count == 1 && u->steps[0].kind == TFI_STEP_CHARSMAP);
    for (uint32_t c = 0; c < 128; c++) {
        const uint8_t text = (uint8_t)c;
        const int is_space = tfi_unicode_flags(&t->unicode, c) & TFI_UNICODE_SPACE;
        const uint8_t *new = tfi_charsmap_find(&u->map, &text, 1, 0, &matched, &size);
        u->ascii[c] = is_space ? TFI_ASCII_SPACE : TFI_ASCII_WORD;
        if ((new && !(is_space && size == 1 && *new == ' ')) || (u->has_mark && c == u->mark)) u->ascii[c] = TFI_ASCII_REMOVED;
    }
}

/* May long text be normalised in parts that end before a space? */
static int has_seams(const tfi_unigram *u)
{
    if (u->ascii[' '] != TFI_ASCII_SPACE) return 0;
    for (int i = 0; i < u->step_count; i++) {
        const tfi_step *step = &u->steps[i];
        if (step->kind != TFI_STEP_REPLACE || step->run) continue;
        const int to_mark = step->from_count == 1 && step->to_count == 1 && u->has_mark && step->to[0] == u->mark;
        for (uint32_t k = 0; k < step->from_count; k++)
            if (step->from[k] < 128 && !to_mark) return 0;
    }
    return 1;
}

/* Does some member of the map begin with two characters of ASCII that are words? The short way does not look for it. */
static int maps_ascii_pairs(const tfi_unigram *u)
{
    for (int a = 0; a < 128; a++)
        for (int b = 0; b < 128; b++) {
            const uint8_t text[2] = {(uint8_t)a, (uint8_t)b};
            if (u->ascii[a] == TFI_ASCII_WORD && tfi_charsmap_begins(&u->map, text, 2)) return 1;
        }
    return 0;
}

/* Does the normalizer change code point `c` by itself, or is it no part of a word? */
static int is_slow(const tf_tokenizer *t, uint32_t c, const uint8_t *text, uint32_t size)
{
    const tfi_unigram *u = &t->unigram;
    const uint8_t flags = tfi_unicode_flags(&t->unicode, c);
    uint32_t length;
    size_t matched;

    if (c < 128 && u->ascii[c] != TFI_ASCII_WORD) return 1;
    if (flags & TFI_UNICODE_SPACE || (u->has_mark && c == u->mark) || (u->is_spm && c == u->mark)) return 1;
    if (u->lowercase && flags & TFI_UNICODE_LOWERED) return 1;
    if (u->user_count && tfi_trie_walk(&u->user, text, size)) return 1;
    return tfi_charsmap_find(&u->map, text, size, 0, &matched, &length) != NULL;
}

/* What the short way does with code point `c`: TFI_POINT_*. */
static uint8_t point(const tf_tokenizer *t, uint32_t c)
{
    uint8_t text[4];
    const uint32_t size = tfi_utf8_encode(c, text);
    int32_t state = 0;
    const int joins = tfi_unicode_is_break(' ', c, &state) ? 0 : TFI_POINT_JOINS;

    if (is_slow(t, c, text, size)) return (uint8_t)(TFI_POINT_SLOW | joins);
    return (uint8_t)(joins | (tfi_charsmap_begins(&t->unigram.map, text, size) ? TFI_POINT_ASKS : 0));
}

/* May words be taken one by one? With libsentencepiece's rules only where no piece reaches from one into the next and a lone mark
 * is known, and the text is changed by the map alone. */
static int has_words(const tf_tokenizer *t)
{
    const tfi_unigram *u = &t->unigram;

    if (u->ascii[' '] != TFI_ASCII_SPACE || maps_ascii_pairs(u)) return 0;
    if (!u->is_spm) return u->is_plain && u->split_spaces && u->has_mark;
    if (!u->dummy_prefix || !u->remove_extra_spaces || !u->escape_spaces || u->space_is_suffix) return 0;
    return u->lone_mark != TFI_TRIE_NONE && !u->spans_words;
}

/* The id of the piece that is a mark and nothing else. */
static int32_t lone_mark(const tfi_unigram *u)
{
    uint32_t base = u->pieces.root;
    int32_t id = TFI_TRIE_NONE;

    for (uint32_t i = 0; i < u->mark_size; i++)
        if (!tfi_darts_step(&u->pieces, &base, u->mark_text[i], &id)) return TFI_TRIE_NONE;
    return id;
}

static tf_status set_points(tf_tokenizer *t)
{
    enum { POINTS = 0x10000 };
    tfi_unigram *u = &t->unigram;

    if (!has_words(t)) return TF_STATUS_OK;
    if (!(u->points = tfi_arena_alloc(&t->arena, POINTS))) return TF_STATUS_NOMEM;
    for (uint32_t c = 0; c < POINTS; c++) u->points[c] = c >= 0xd800 && c < 0xe000 ? TFI_POINT_SLOW : point(t, c);
    return TF_STATUS_OK;
}

tf_status tfi_unigram_finish(tf_tokenizer *t, const char *file)
{
    tfi_unigram *u = &t->unigram;
    char name[16];
    tf_status status;

    if (u->unk_id < 0) return tfi_fail(TF_STATUS_UNSUPPORTED, "%s: a Unigram model without unk_id is not supported", file);
    if (u->unk_id >= t->vocab_entries)
        return tfi_fail(TF_STATUS_CORRUPT, "%s: unk_id is %d, there are %d pieces", file, (int)u->unk_id,
                        (int)t->vocab_entries);
    if (!u->is_spm) {
        if ((status = tfi_darts_open(&u->pieces, t->memory, &t->vocab)) < 0) return status;
        double least = INFINITY;
        for (int32_t i = 0; i < t->vocab_entries; i++)
            if (u->scores[i] < least) least = u->scores[i];
        u->unk_score = least - 10.0;
    }
    for (int i = 0; i < 256; i++) {
        const int size = snprintf(name, sizeof name, "<0x%02X>", (unsigned)i);
        u->byte_id[i] = tfi_trie_find(&t->vocab, (const uint8_t *)name, (size_t)size);
    }
    set_ascii(t);
    u->has_seams = has_seams(u);
    u->lone_mark = lone_mark(u);
    return set_points(t);
}
