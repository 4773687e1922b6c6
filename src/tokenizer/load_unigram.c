/* Unigram as files have it: tokenizer.json's list of pieces with scores and its pipeline, or SentencePiece's .model. */
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
    return tfi_stems_open(&t->unigram.stems, t->memory, (uint32_t)(count / 3 * 8)); /* about what large vocabularies have */
}

/* Append a piece; of two with the same text the last one counts. */
static tf_status add_piece(tf_tokenizer *t, tfi_entries *out, const char *text, size_t size, double score)
{
    tf_status status;
    tfi_sprout *sprout;

    const int32_t number = (int32_t)out->count;
    out->data[out->count++] = (tfi_entry){.text = text, .size = (uint32_t)size, .id = number};
    t->unigram.scores[number] = score;
    t->vocab_entries = number + 1;
    if (size == 0) return TF_STATUS_OK;
    if ((status = tfi_stems_add(&t->unigram.stems, (const uint8_t *)text, size, &sprout)) < 0) return status;
    t->unigram.has_twins |= sprout->id != TFI_TRIE_NONE;
    sprout->id = number;
    return TF_STATUS_OK;
}

static tf_status bad_piece(const char *file, size_t i, const char *what)
{
    return tfi_fail(TF_STATUS_CORRUPT, "%s: model.vocab: piece %zu %s", file, i, what);
}

/* A number of tokenizer.json as the reference reads it: 19 or 20 digits as one integer, multiplied with or divided by a power
 * of ten. Of numbers with 16 digits and more that is not always the nearest double, and equal sums of scores hang on it. */
static double read_number(const tfi_json_pair *pair)
{
    const tfi_json_number n = tfi_json_number_read(pair->number, pair->number_size);
    double value = (double)n.digits;

    for (int32_t left = n.exponent; left != 0 && value != 0;) {
        const int32_t step = left > 308 ? 308 : left < -308 ? -308 : left;
        value = step > 0 ? value * pow(10, step) : value / pow(10, -step);
        left -= step;
        if (isinf(value)) break;
    }
    return n.is_negative ? -value : value;
}

static tf_status read_pieces(tf_tokenizer *t, const char *file, int whole, tfi_entries *out)
{
    tfi_json_list list = out->lists[TFI_LIST_VOCAB];
    tfi_json_pair pair;
    tfi_entry piece;
    size_t i = 0;
    int more;
    tf_status status = tfi_open_vocab(out, file, 0);

    if (status < 0) return status;
    if ((status = open_vocab(t, out->capacity, out)) < 0) return tfi_fail_prefix(status, "%s: ", file);
    for (; (more = tfi_json_list_pair(&list, &pair)) > 0; i++) {
        if ((status = tfi_list_text(t, &pair.text, &piece)) < 0)
            return tfi_fail_prefix(status, "%s: model.vocab: piece %zu: ", file, i);
        if (piece.size > TFI_PIECE_SIZE_MAX) return bad_piece(file, i, "is too long");
        const double score = whole ? read_number(&pair) : tfi_json_number_nearest(pair.number, pair.number_size);
        if (!isfinite(score)) return bad_piece(file, i, "has a score that no double holds");
        status = add_piece(t, out, piece.text, piece.size, score);
        if (status < 0) return tfi_fail_prefix(status, "%s: the vocabulary: ", file);
    }
    return more < 0 ? bad_piece(file, i, "is not a string with a number") : TF_STATUS_OK;
}

tf_status tfi_read_unigram_model(tf_tokenizer *t, tfi_json model, int whole, tfi_entries *out)
{
    int64_t unk = -1;
    tf_status status;

    t->model = TFI_MODEL_UNIGRAM;
    if ((status = tfi_json_int(model, "unk_id", 0, TFI_TOKEN_ID_MAX, &unk)) < 0) return status;
    if ((status = tfi_json_bool(model, "byte_fallback", &t->unigram.byte_fallback)) < 0) return status;
    t->unigram.unk_id = (int32_t)unk;
    return read_pieces(t, model.file, whole, out);
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

static void set_mark(tfi_unigram *u, const uint8_t *mark)
{
    u->mark = tfi_utf8_decode(mark, &u->mark_size);
    memcpy(u->mark_text, mark, u->mark_size);
}

/* What unigram.c does in place of a Metaspace. */
void tfi_unigram_mark(tfi_unigram *u, const tfi_part *metaspace)
{
    u->has_mark = 1;
    u->split_marks = metaspace->splits;
    u->prepend = metaspace->prepend;
    set_mark(u, metaspace->mark_text);
}

tf_status tfi_unigram_class(tf_tokenizer *t, int prefix_space)
{
    tfi_unigram *u = &t->unigram;
    tfi_part *part = NULL;
    tf_status status;

    if (u->map.units) {
        if ((status = tfi_parts_add(t, tfi_normalizers, "Precompiled", &t->normalizers, &part)) < 0) return status;
        part->map = &u->map;
    }
    if ((status = tfi_parts_add(t, tfi_decoders, "Metaspace", &t->decoders, &part)) < 0) return status;
    part->splits = 1;
    part->prepend = prefix_space ? TFI_PREPEND_ALWAYS : TFI_PREPEND_NEVER;
    tfi_part_set_mark(part, 0x2581);
    u->split_spaces = 1;
    tfi_unigram_mark(u, part);
    return TF_STATUS_OK;
}

tf_status tfi_read_class_charsmap(tf_tokenizer *t, tfi_json root)
{
    const json_t *normalizer = json_object_get(root.object, "normalizer"), *list = json_object_get(normalizer, "normalizers");
    const size_t n = json_is_array(list) ? json_array_size(list) : 1;

    for (size_t i = 0; i < n; i++) {
        const tfi_json part = {.object = json_is_array(list) ? json_array_get(list, i) : normalizer, .file = root.file};
        const char *type = json_string_value(json_object_get(part.object, "type"));
        if (type && strcmp(type, "Precompiled") == 0) return tfi_charsmap_read(t, part, &t->unigram.map);
    }
    return TF_STATUS_OK;
}

/* libsentencepiece's own rules. */

/* What the types of the pieces mean for texts. */
static tf_status read_types(tf_tokenizer *t, const tfi_spm_file *f)
{
    tfi_unigram *u = &t->unigram;
    const tfi_spm *spm = &f->spm;
    float least = INFINITY;
    size_t at = 0;
    tfi_spm_piece piece;
    tfi_sprout *sprout;
    tf_status status;
    int32_t *value;

    for (int32_t id = 0; tfi_spm_next(f->file.data, f->file.size, &at, &piece); id++) {
        const int is_user = piece.type == TFI_SPM_USER_DEFINED;
        if ((status = tfi_stems_add(&u->stems, piece.text.data, piece.text.size, &sprout)) < 0) return status;
        if (sprout->id != id) return tfi_fail(TF_STATUS_CORRUPT, "%s: piece %d is there twice", f->name, (int)id);
        if (id == spm->unk_id && piece.type != TFI_SPM_UNKNOWN)
            return tfi_fail(TF_STATUS_CORRUPT, "%s: piece %d is not the unknown one, as unk_id says", f->name, (int)id);
        sprout->is_marker = piece.type != TFI_SPM_NORMAL && !is_user;
        if (sprout->is_marker) continue;
        for (size_t i = 1; i + u->mark_size <= piece.text.size; i++)
            u->spans_words |= memcmp(piece.text.data + i, u->mark_text, u->mark_size) == 0;
        if (!is_user && piece.score < least) least = piece.score;
        if (!is_user) continue;
        u->user_count++;
        if ((status = tfi_trie_add(&u->user, piece.text.data, piece.text.size, &value)) < 0) return status;
        *value = id;
    }
    if (isinf(least)) least = 0; /* no normal piece */
    u->unk_score = least - 10.0f;
    at = 0;
    for (int32_t id = 0; u->user_count && tfi_spm_next(f->file.data, f->file.size, &at, &piece); id++)
        if (piece.type == TFI_SPM_USER_DEFINED) u->scores[id] = (float)(0.1 * (double)(piece.text.size - 1));
    return TF_STATUS_OK;
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
    if (!u->unk_surface) return TF_STATUS_NOMEM;
    if ((status = tfi_trie_open(&u->user, t->memory, 64)) < 0) return status;
    return read_types(t, f);
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

/* ALBERT's normalizers, which go before the map: quotes, accents, lower case. */
static tf_status add_albert_normalizers(tfi_loading *l)
{
    static const char quotes[] = "{\"type\":\"Replace\",\"pattern\":{\"String\":\"%s\"},\"content\":\"\\\"\"}";
    static const char accents[] = ",{\"type\":\"NFKD\"},{\"type\":\"StripAccents\"}", lower[] = ",{\"type\":\"Lowercase\"}";
    char grave[96], straight[96], text[512];
    int lowers = 1, keeps = 0;
    json_t *root;
    tf_status status;

    if ((status = tfi_json_bool(l->config, "do_lower_case", &lowers)) < 0) return status;
    if ((status = tfi_json_bool(l->config, "keep_accents", &keeps)) < 0) return status;
    snprintf(grave, sizeof grave, quotes, "``");
    snprintf(straight, sizeof straight, quotes, "''");
    const int size = snprintf(text, sizeof text, "{\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[%s,%s%s%s]}}", grave,
                              straight, keeps ? "" : accents, lowers ? lower : "");
    if ((status = tfi_json_parse(text, (size_t)size, "AlbertTokenizer", &root)) < 0) return status;
    status = tfi_parts_read(l->t, &(tfi_json){.object = root, .file = "AlbertTokenizer"}, "normalizer", "normalizers",
                            tfi_normalizers, &l->t->normalizers);
    json_decref(root);
    l->t->lowercase = lowers;
    return status;
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
    t->unigram.unk_id = l->rules == TFI_RULES_T5 ? 2 : l->rules == TFI_RULES_ALBERT ? 1 : 3;
    if (l->rules == TFI_RULES_ALBERT && (status = add_albert_normalizers(l)) < 0) return status;
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

    const tfi_parts *n = &t->normalizers;

    u->is_plain = n->count == 0 || (n->count == 1 && n->data[0].map == &u->map);
    for (uint32_t c = 0; c < 128; c++) {
        const uint8_t text = (uint8_t)c;
        const int is_space = tfi_unicode_flags(&t->unicode, c) & TFI_UNICODE_SPACE;
        const uint8_t *new = tfi_charsmap_find(&u->map, &text, 1, 0, &matched, &size);
        u->ascii[c] = is_space ? TFI_ASCII_SPACE : TFI_ASCII_WORD;
        if ((new && !(is_space && size == 1 && *new == ' ')) || (u->has_mark && c == u->mark)) u->ascii[c] = TFI_ASCII_REMOVED;
    }
}

/* May long text be normalised in parts that end before a space? */
static int has_seams(const tf_tokenizer *t)
{
    const tfi_unigram *u = &t->unigram;

    if (u->ascii[' '] != TFI_ASCII_SPACE) return 0;
    for (int i = 0; i < t->normalizers.count; i++) {
        const tfi_part *part = &t->normalizers.data[i];
        const int to_mark = u->has_mark && part->to.size == u->mark_size &&
                            memcmp(part->to.data, u->mark_text, u->mark_size) == 0;
        if (part->seams == TFI_SEAMS_UNSAFE || (part->seams == TFI_SEAMS_SPACE && !to_mark)) return 0;
    }
    return 1;
}

/* Is code point `c` a grapheme of its own, if what is behind it does not join any base? */
static int is_alone(uint32_t c)
{
    static const uint32_t hangul[] = {0x1161, 0x11a8}; /* a vowel and a final consonant */
    int32_t state = 0;
    int alone = tfi_unicode_is_break(' ', c, &state);

    state = 0;
    alone &= tfi_unicode_is_break(c, ' ', &state);
    state = 0;
    alone &= tfi_unicode_is_break(c, c, &state);
    for (int i = 0; i < 2; i++) {
        state = 0;
        alone &= tfi_unicode_is_break(c, hangul[i], &state);
    }
    return alone;
}

/* Is `c` a space, by which words are divided? */
static int divides(const tf_tokenizer *t, uint32_t c)
{
    return t->unigram.is_spm ? c == ' ' : tfi_unicode_flags(&t->unicode, c) & TFI_UNICODE_SPACE;
}

/* What the short way does with what the map has for a code point: TFI_POINT_*. */
static int mapped_point(const tf_tokenizer *t, const uint8_t *new, uint32_t new_size)
{
    const tfi_unigram *u = &t->unigram;
    uint32_t size;

    if (new_size == 0) return TFI_POINT_SLOW;
    for (uint32_t i = 0; i < new_size; i += size) {
        const uint32_t c = tfi_utf8_decode(new + i, &size);
        if (divides(t, c) && size == new_size) return TFI_POINT_SPACE;
        if (tfi_unicode_flags(&t->unicode, c) & TFI_UNICODE_SPACE || c == u->mark) return TFI_POINT_SLOW;
    }
    return TFI_POINT_MAPPED;
}

/* What the short way does with code point `c` by itself: SLOW, SPACE, MAPPED or nothing; goes_on: as the begin of a member of
 * the map it asks for more. */
static int lonely_point(const tf_tokenizer *t, uint32_t c, const uint8_t *text, uint32_t size, int goes_on)
{
    const tfi_unigram *u = &t->unigram;
    uint32_t new_size;
    size_t matched;
    const uint8_t *new = tfi_charsmap_find(&u->map, text, size, 0, &matched, &new_size);

    if (c == u->mark || (u->lowercase && tfi_unicode_flags(&t->unicode, c) & TFI_UNICODE_LOWERED)) return TFI_POINT_SLOW;
    if (u->user_count && tfi_trie_walk(&u->user, text, size)) return TFI_POINT_SLOW;
    if (!new && !divides(t, c)) return tfi_unicode_flags(&t->unicode, c) & TFI_UNICODE_SPACE ? TFI_POINT_SLOW : 0;
    if (goes_on || !is_alone(c)) return TFI_POINT_SLOW;
    return new ? mapped_point(t, new, new_size) : TFI_POINT_SPACE;
}

/* May words be taken one by one? With libsentencepiece's rules only where no piece reaches from one into the next and a lone
 * mark is known, and the text is changed by the map alone. */
static int has_words(const tf_tokenizer *t)
{
    const tfi_unigram *u = &t->unigram;

    if (u->ascii[' '] != TFI_ASCII_SPACE) return 0;
    if (!u->is_spm) return u->is_plain && u->split_spaces && u->has_mark;
    if (!u->dummy_prefix || !u->remove_extra_spaces || !u->escape_spaces || u->space_is_suffix) return 0;
    return u->stems.stems[tfi_stems_first(&u->stems, u->mark)].bits & TFI_STEM_PIECE && !u->spans_words;
}

/* TFI_POINT_* of all code points. A map for which that takes long has no short way. */
static tf_status set_points(tf_tokenizer *t)
{
    tfi_unigram *u = &t->unigram;
    uint8_t *second, text[4];
    uint32_t steps = 1 << 21;
    int32_t state;
    int more = 0;

    if (!has_words(t)) return TF_STATUS_OK;
    if (!(second = tfi_zalloc(t->memory, TFI_FIRST_COUNT))) return TF_STATUS_NOMEM;
    for (uint32_t c = 0; c < TFI_FIRST_COUNT && more >= 0; c++) {
        const uint32_t size = tfi_utf8_encode(c, text);
        more = c >= 0xd800 && c < 0xe000 ? 0 : tfi_charsmap_seconds(&u->map, text, size, second, &steps);
        state = 0;
        const int flags = lonely_point(t, c, text, size, more) | (tfi_unicode_is_break(' ', c, &state) ? 0 : TFI_POINT_JOINS);
        u->stems.first[c] |= (uint32_t)flags << TFI_STEM_BITS;
    }
    for (uint32_t c = 0; c < TFI_FIRST_COUNT; c++)
        if (second[c]) u->stems.first[c] |= (uint32_t)TFI_POINT_SECOND << TFI_STEM_BITS;
    u->has_words = more >= 0;
    u->has_spaces = (u->stems.first[' '] >> TFI_STEM_BITS & TFI_POINT_ASKED) == TFI_POINT_SPACE;
    tfi_free(t->memory, second, TFI_FIRST_COUNT);
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
        double least = INFINITY;
        for (int32_t i = 0; i < t->vocab_entries; i++)
            if (u->scores[i] < least) least = u->scores[i];
        u->unk_score = least - 10.0;
    }
    u->score_most = fabs(u->unk_score);
    for (int32_t i = 0; i < t->vocab_entries; i++)
        if (fabs(u->scores[i]) > u->score_most) u->score_most = fabs(u->scores[i]);
    if ((status = tfi_stems_pack(&u->stems, u->scores)) < 0) return tfi_fail_prefix(status, "%s: ", file);
    for (int i = 0; i < 256; i++) {
        const int size = snprintf(name, sizeof name, "<0x%02X>", (unsigned)i);
        u->byte_id[i] = tfi_vocab_find(t, name, (size_t)size);
    }
    set_ascii(t);
    u->has_seams = has_seams(t);
    return set_points(t);
}
