/* Text to tokens by Unigram.
 *
 * The best way to each place is extended by every piece that begins there, as tokenizers' and libsentencepiece's
 * encode_optimized do it: places from left to right, pieces from short to long, and a new way counts only if its score is
 * larger. tokenizers adds doubles; libsentencepiece keeps floats and compares doubles with them, which at times decides a tie
 * the other way.
 *
 * Where no piece reaches over a place every way goes through it: what lies before is then settled, so that a piece of text of
 * any length takes nodes for a part of it alone. Nothing is allocated a word. Words that the normalizer leaves as they are, and
 * that ASCII spaces divide, take a short way past it, and the tokens of short ones are remembered. */
#include "tokenizer/unigram.h"

#include <math.h>
#include <string.h>

#include "base/status.h"
#include "tokenizer/tokenizer.h"

enum { SETTLE_SIZE = 4096, CUT_AIM = 4096 };

/* A piece of text, and how its places lie in the original: those of `chars`, or the same code points from byte `begin` on behind
 * `prefix` bytes of a mark. */
typedef struct piece {
    const uint8_t *text;
    uint32_t size;
    uint32_t prefix;       /* with tokenizers' rules not in the text: it counts as part of the first code point */
    const tfi_char *chars; /* the code point reached; NULL: the text is as it was */
    uint32_t next;         /* where in `text` that code point ends */
    uint32_t begin, index; /* without chars: the byte and the code point of the original behind the prefix, */
    uint32_t gap;          /* how far before it the prefix begins, */
    uint32_t at, at_index; /* and a place reached with the code point there */
} piece;

/* A way through a piece while it is found. Unknown code points wait for more of them in [unk_begin, unk_end). */
typedef struct way {
    tfi_reading *x;
    piece *piece;
    uint32_t base, reach; /* s->nodes[0] is place `base`; nodes are set up to `reach` */
    uint32_t unk_begin, unk_end;
    int32_t unk_parts;
    double score;  /* before the piece, then behind it */
    double margin; /* the least difference between two ways to a place */
} way;

/* How scores add up: as tokenizers does it, or as libsentencepiece does it, with a look at how clear each choice is. */
typedef enum sums { DOUBLES, FLOATS } sums;

/* Tokens. */

static inline uint32_t lead_size(uint8_t lead)
{
    return lead < 0x80 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
}

static void step_char(piece *p)
{
    p->chars++;
    p->next += lead_size(p->text[p->next]);
}

/* The code points before place `to` of a piece that is as it was. */
static uint32_t index_at(piece *p, uint32_t to)
{
    for (; p->at < to; p->at++) p->at_index += (p->text[p->at] & 0xc0) != 0x80;
    return p->at_index;
}

/* A token of a piece that is as it was. */
static void put_flat(const way *w, int32_t id, uint32_t begin, uint32_t end)
{
    piece *p = w->piece;
    const int has_prefix = begin < p->prefix;
    const uint32_t from = has_prefix ? p->prefix : begin;
    const uint32_t gap = has_prefix ? p->gap : 0, first = index_at(p, from);
    if (end <= p->prefix && !w->x->t->unigram.is_spm) end = p->prefix + lead_size(p->text[p->prefix]);
    const uint32_t last = index_at(p, end > from ? end : from);

    if (end < from) end = from;
    tfi_put_token(w->x, id, p->begin + from - p->prefix - gap, p->begin + end - p->prefix, p->index + first - gap,
                  p->index + last);
    if (p->at > from && has_prefix && end == from + lead_size(p->text[from])) { /* the next token may begin there again */
        p->at = from;
        p->at_index = first;
    }
}

static void put_token(const way *w, int32_t id, uint32_t begin, uint32_t end)
{
    piece *p = w->piece;

    if (!p->chars) {
        put_flat(w, id, begin, end);
        return;
    }
    while (p->next <= begin) step_char(p);
    const tfi_char *first = p->chars;
    while (p->next < end) step_char(p);
    if (w->x->t->unigram.is_spm) /* its ranges leave no gaps */
        tfi_put_token(w->x, id, first->byte_begin, p->chars[1].byte_begin, first->index, p->chars[1].index);
    else {
        tfi_token *k = tfi_put_token(w->x, id, first->byte_begin, p->chars->byte_end, first->index, p->chars->index + 1);
        if (w->x->t->bpe.trim) tfi_bpe_trim(w->x, k, p->text + begin, end - begin);
    }
}

/* The bytes of unknown text as tokens, if there is one for each. */
static int put_bytes(const way *w, uint32_t begin, uint32_t end)
{
    const tfi_unigram *u = &w->x->t->unigram;
    tfi_token whole;

    for (uint32_t i = begin; i < end; i++)
        if (u->byte_id[w->piece->text[i]] == TFI_TRIE_NONE) return 0;
    put_token(w, u->byte_id[w->piece->text[begin]], begin, end);
    whole = w->x->s->tokens[w->x->s->token_count - 1];
    for (uint32_t i = begin + 1; i < end; i++) {
        whole.id = u->byte_id[w->piece->text[i]];
        w->x->s->tokens[w->x->s->token_count++] = whole;
    }
    return 1;
}

/* Unknown code points that follow each other are one token. tokenizers asks the vocabulary for it once more. */
static void flush_unknown(way *w)
{
    const tf_tokenizer *t = w->x->t;
    const uint32_t begin = w->unk_begin, end = w->unk_end;
    int32_t id = TFI_TRIE_NONE;

    if (w->unk_parts == 0) return;
    w->unk_parts = 0;
    if (!t->unigram.is_spm) id = tfi_trie_find(&t->vocab, w->piece->text + begin, end - begin);
    if (id != TFI_TRIE_NONE) put_token(w, id, begin, end);
    else if (!t->unigram.byte_fallback || !put_bytes(w, begin, end)) put_token(w, t->unigram.unk_id, begin, end);
}

/* Append the tokens between `base` and `end`, through which every way goes. */
static tf_status settle(way *w, uint32_t end)
{
    tfi_scratch *s = w->x->s;
    tfi_node *nodes = s->nodes;
    const uint32_t size = end - w->base;
    const double score = nodes[size].score;
    const int32_t unk = w->x->t->unigram.unk_id;
    /* No token has less than a byte but those of byte fallback, which have as many as there are bytes. */
    const tf_status status = tfi_reserve_tokens(s, (size_t)size + (w->unk_parts ? w->unk_end - w->unk_begin : 0) + 1);

    if (status < 0) return status;
    /* Turn the links around. */
    uint32_t to = size, at = nodes[size].place - w->base;
    int32_t id = nodes[size].id;
    for (;;) {
        const tfi_node before = nodes[at];
        nodes[at].place = w->base + to;
        nodes[at].id = id;
        if (at == 0) break;
        to = at;
        at = before.place - w->base;
        id = before.id;
    }
    for (uint32_t from = w->base, next; from < end; from = next) {
        const tfi_node *node = &nodes[from - w->base];
        next = node->place;
        if (node->id != unk) {
            flush_unknown(w);
            put_token(w, node->id, from, next);
            continue;
        }
        if (w->unk_parts == 0) w->unk_begin = from;
        w->unk_parts = 1;
        w->unk_end = next;
    }
    w->base = w->reach = end;
    w->score = score;
    nodes[0] = (tfi_node){.score = score, .id = 0};
    return TF_STATUS_OK;
}

/* A way to place `to` by a token that begins at `from`. Room was made. */
static inline void extend(way *w, tfi_node *nodes, uint32_t from, uint32_t to, double score, int32_t id, sums how)
{
    tfi_node *node = &nodes[to - w->base];

    if (how == FLOATS) score = (float)score;
    for (; w->reach < to; w->reach++) nodes[w->reach + 1 - w->base].id = TFI_TRIE_NONE;
    if (node->id != TFI_TRIE_NONE) {
        const double more = score - node->score;
        if (how == FLOATS && fabs(more) < w->margin) w->margin = fabs(more);
        if (!(more > 0)) return;
    }
    *node = (tfi_node){.score = score, .place = from, .id = id};
}

/* All pieces that begin at `at`. */
static inline void extend_all(way *w, uint32_t at, sums how)
{
    const tfi_unigram *u = &w->x->t->unigram;
    tfi_node *nodes = w->x->s->nodes;
    const uint8_t *text = w->piece->text;
    const uint32_t size = w->piece->size, single = at + lead_size(text[at]);
    const double score = nodes[at - w->base].score;
    uint32_t base = u->pieces.root;
    int is_known = 0;
    int32_t id;

    for (uint32_t i = at; i < size && tfi_darts_step(&u->pieces, &base, text[i], &id);) {
        i++;
        if (id == TFI_TRIE_NONE) continue;
        extend(w, nodes, at, i, score + u->scores[id], id, how);
        is_known |= i == single;
    }
    if (!is_known) extend(w, nodes, at, single, score + u->unk_score, u->unk_id, how);
}

static inline tf_status find_way(way *w, sums how)
{
    tfi_scratch *s = w->x->s;
    const piece *p = w->piece;
    tf_status status;

    if ((status = tfi_reserve(s->memory, (void **)&s->nodes, &s->node_capacity, 1, sizeof *s->nodes)) < 0) return status;
    s->nodes[0] = (tfi_node){.id = 0, .score = w->score};
    for (uint32_t at = 0; at < p->size; at += lead_size(p->text[at])) {
        if (at - w->base >= SETTLE_SIZE && w->reach == at && (status = settle(w, at)) < 0) return status;
        const uint32_t rest = p->size - w->base, most = at - w->base + TFI_PIECE_SIZE_MAX;
        const size_t need = (rest < most ? rest : most) + 1;
        if (need > s->node_capacity &&
            (status = tfi_reserve(s->memory, (void **)&s->nodes, &s->node_capacity, need, sizeof *s->nodes)) < 0)
            return status;
        extend_all(w, at, how);
    }
    if (p->size > w->base && (status = settle(w, p->size)) < 0) return status;
    if ((status = tfi_reserve_tokens(s, (size_t)(w->unk_end - w->unk_begin) + 1)) < 0) return status;
    flush_unknown(w);
    return TF_STATUS_OK;
}

/* Append the tokens of a piece, which is one word. */
static tf_status put_piece(tfi_reading *x, piece *p)
{
    way w = {.x = x, .piece = p};
    const tf_status status = x->t->unigram.is_spm ? find_way(&w, FLOATS) : find_way(&w, DOUBLES);

    x->word++;
    return status;
}

/* Words as they are. */

/* The place of a word in the table of known ones, and its text with zeros behind it. */
static tfi_word *word_place(tfi_scratch *s, const uint8_t *text, uint32_t size, uint8_t key[TFI_WORD_BYTES])
{
    uint64_t parts[TFI_WORD_BYTES / 8], hash = size;

    memset(key, 0, TFI_WORD_BYTES);
    memcpy(key, text, size);
    memcpy(parts, key, sizeof parts);
    for (size_t i = 0; i < TFI_WORD_BYTES / 8; i++) hash = (hash ^ parts[i]) * 0x9e3779b97f4a7c15u, hash ^= hash >> 29;
    return &s->words[hash % TFI_WORDS];
}

/* Empty the table if it is another tokenizer's. */
static tf_status own_words(const tf_tokenizer *t, tfi_scratch *s)
{
    if (s->words && s->words_owner == t->serial) return TF_STATUS_OK;
    if (!s->words && !(s->words = tfi_alloc(s->memory, TFI_WORDS * sizeof *s->words))) return TF_STATUS_NOMEM;
    for (int i = 0; i < TFI_WORDS; i++) s->words[i].size = 0;
    s->words_owner = t->serial;
    return TF_STATUS_OK;
}

/* A word in a text, and what stands for it: `prefix` bytes of a mark, which begin `gap` bytes before it, and itself. */
typedef struct word {
    uint32_t begin, end, prefix, gap;
} word;

/* The tokens of the word by way of its piece, from *score on. */
static tf_status find_word(tfi_reading *x, const word *w, sums how, double *score, double *margin)
{
    const tfi_unigram *u = &x->t->unigram;
    tfi_scratch *s = x->s;
    const uint32_t size = w->prefix + w->end - w->begin;
    tf_status status = tfi_reserve(s->memory, (void **)&s->piece, &s->piece_capacity, (size_t)size + 4, 1);

    if (status < 0) return status;
    memcpy(s->piece, u->mark_text, sizeof u->mark_text);
    memcpy(s->piece + w->prefix, x->text + w->begin, w->end - w->begin);
    piece p = {.text = s->piece,
               .size = size,
               .prefix = w->prefix,
               .begin = w->begin,
               .index = x->chars,
               .gap = w->gap,
               .at = w->prefix};
    way v = {.x = x, .piece = &p, .score = *score, .margin = INFINITY};
    status = how == DOUBLES ? find_way(&v, DOUBLES) : find_way(&v, FLOATS);
    *score = v.score;
    *margin = v.margin;
    return status;
}

/* Remember the tokens from `first` on as those of the word, if that can be. */
static void keep_word(const tfi_reading *x, tfi_word *to, const uint8_t key[TFI_WORD_BYTES], const word *w, size_t first,
                      double margin)
{
    const tfi_unigram *u = &x->t->unigram;
    const tfi_token *tokens = x->s->tokens + first;
    const size_t count = x->s->token_count - first;

    /* With tokenizers' rules a lone mark has the first code point's range, and so has what follows. */
    const int is_lone = !u->is_spm && count > 1 && tokens[0].byte_begin == tokens[1].byte_begin;

    if (count > TFI_WORD_TOKENS || u->byte_fallback) return;
    to->size = 0; /* until all of it is written */
    for (size_t i = 0; i < count; i++) {
        if (i > 0 && !(i == 1 && is_lone) && tokens[i].byte_begin != tokens[i - 1].byte_end) return;
        to->ids[i] = tokens[i].id;
        to->ends[i] = (uint8_t)(tokens[i].byte_end - w->begin);
        to->char_ends[i] = (uint8_t)(tokens[i].char_end - x->chars);
    }
    memcpy(to->text, key, TFI_WORD_BYTES);
    to->size = (uint8_t)(w->end - w->begin);
    to->count = (uint8_t)count;
    to->prefix = (uint8_t)w->prefix;
    to->is_lone = (uint8_t)is_lone;
    to->margin = (float)margin;
}

/* Append a known word's tokens. */
static tf_status put_known(tfi_reading *x, const tfi_word *known, const word *w)
{
    const tf_status status = tfi_reserve_tokens(x->s, TFI_WORD_TOKENS);
    uint32_t begin = w->begin - w->gap, index = x->chars - w->gap;

    if (status < 0) return status;
    for (int i = 0; i < known->count; i++) {
        if (i == 1 && known->is_lone) begin = w->begin, index = x->chars;
        const uint32_t end = w->begin + known->ends[i], index_end = x->chars + known->char_ends[i];
        tfi_put_token(x, known->ids[i], begin, end, index, index_end);
        begin = end;
        index = index_end;
    }
    return TF_STATUS_OK;
}

/* By tokenizers' rules: each word by itself. */
static tf_status put_word(tfi_reading *x, const word *w)
{
    const uint32_t size = w->end - w->begin;
    const size_t first = x->s->token_count;
    double score = 0, margin;
    uint8_t key[TFI_WORD_BYTES];
    tfi_word *known = NULL;
    tf_status status;

    if (size <= TFI_WORD_BYTES) {
        known = word_place(x->s, x->text + w->begin, size, key);
        if (known->size == size && known->prefix == w->prefix && memcmp(known->text, key, TFI_WORD_BYTES) == 0)
            return put_known(x, known, w);
    }
    status = find_word(x, w, DOUBLES, &score, &margin);
    if (status == TF_STATUS_OK && known) keep_word(x, known, key, w, first, 0);
    return status;
}

/* What *score is behind a known word: a sum in float, token by token, and of an unknown one code point by code point. */
static double score_after(const tfi_unigram *u, const tfi_word *known, double score)
{
    for (int i = 0; i < known->count; i++) {
        const int is_unknown = known->ids[i] == u->unk_id;
        const int parts = is_unknown ? known->char_ends[i] - (i > 0 ? known->char_ends[i - 1] : 0) : 1;
        for (int k = 0; k < parts; k++) score = (float)(score + (is_unknown ? u->unk_score : u->scores[known->ids[i]]));
    }
    return score;
}

/* How far apart two ways must be for no rounding to turn the choice between them. A sum in float of numbers of a size is off by half a
 * unit in its last place, 2^-24 of it, for each of them; a word has at most 27. */
static double doubt(double before, double after)
{
    return 4e-6 * (1 + fabs(before) + 2 * fabs(after - before));
}

/* By libsentencepiece's rules: sums go on from word to word in float, so what is known of a word counts if it is beyond doubt. */
static tf_status put_spm_word(tfi_reading *x, const word *w, double *score)
{
    const uint32_t size = w->end - w->begin;
    const double before = *score;
    const size_t first = x->s->token_count;
    uint8_t key[TFI_WORD_BYTES];
    tfi_word *known = NULL;
    double margin;

    if (size <= TFI_WORD_BYTES) {
        known = word_place(x->s, x->text + w->begin, size, key);
        if (known->size == size && memcmp(known->text, key, TFI_WORD_BYTES) == 0) {
            const double after = score_after(&x->t->unigram, known, before);
            if (known->margin > doubt(before, after)) return *score = after, put_known(x, known, w);
        }
    }
    const tf_status status = find_word(x, w, FLOATS, score, &margin);
    if (status == TF_STATUS_OK && known) keep_word(x, known, key, w, first, margin - doubt(before, *score));
    return status;
}

tf_status tfi_unigram_word(tfi_reading *x, size_t begin, size_t end)
{
    const tfi_scratch *s = x->s;
    const uint32_t at = s->chars[begin].at, stop = end < s->char_count ? s->chars[end].at : (uint32_t)s->normal_size;
    piece p = {.text = s->normal + at, .size = stop - at, .chars = s->chars + begin, .next = lead_size(s->normal[at])};

    return put_piece(x, &p);
}

/* From the normal form to pieces. */

static inline int is_mark(const tf_tokenizer *t, const tfi_scratch *s, size_t i)
{
    const tfi_unigram *u = &t->unigram;
    const uint8_t *c = s->normal + s->chars[i].at;

    return *c == ' ' || (*c == u->mark_text[0] && memcmp(c, u->mark_text, u->mark_size) == 0);
}

static inline uint32_t char_end(const tfi_scratch *s, size_t i)
{
    return i + 1 < s->char_count ? s->chars[i + 1].at : (uint32_t)s->normal_size;
}

/* The code points [begin, end) as one piece, spaces read as marks and one more in front if `prepend`. */
static tf_status chars_piece(tfi_reading *x, size_t begin, size_t end, int prepend)
{
    const tfi_unigram *u = &x->t->unigram;
    tfi_scratch *s = x->s;
    uint32_t size = 0;
    const tf_status status =
        tfi_reserve(s->memory, (void **)&s->piece, &s->piece_capacity, u->mark_size * (end - begin + 1) + s->normal_size, 1);

    if (status < 0) return status;
    const uint32_t prefix = prepend ? u->mark_size : 0;
    memcpy(s->piece, u->mark_text, prefix);
    size = prefix;
    for (size_t i = begin; i < end; i++) {
        const uint8_t *c = s->normal + s->chars[i].at;
        const int is_space = u->has_mark && *c == ' ';
        const uint32_t n = is_space ? u->mark_size : char_end(s, i) - s->chars[i].at;
        memcpy(s->piece + size, is_space ? u->mark_text : c, n);
        size += n;
    }
    piece p = {.text = s->piece, .size = size, .prefix = prefix, .chars = s->chars + begin};
    p.next = prefix + lead_size(s->piece[prefix]);
    return put_piece(x, &p);
}

/* What Metaspace does with code points that belong together. */
static tf_status chars_marked(tfi_reading *x, size_t begin, size_t end)
{
    const tfi_unigram *u = &x->t->unigram;
    const tfi_scratch *s = x->s;
    const int wanted = u->prepend == TFI_PREPEND_ALWAYS || (u->prepend == TFI_PREPEND_FIRST && s->chars[begin].byte_begin == 0);
    int prepend = u->has_mark && wanted && !is_mark(x->t, s, begin);
    tf_status status = TF_STATUS_OK;

    for (size_t i = begin, next; i < end && status == TF_STATUS_OK; i = next, prepend = 0) {
        for (next = i + 1; next < end && !(u->has_mark && u->split_marks && is_mark(x->t, s, next));) next++;
        status = chars_piece(x, i, next, prepend);
    }
    return status;
}

/* The code points [begin, end) of the normal form. */
static tf_status chars_words(tfi_reading *x, size_t begin, size_t end)
{
    const tfi_scratch *s = x->s;
    tf_status status = TF_STATUS_OK;

    if (!x->t->unigram.split_spaces) return begin < end ? chars_marked(x, begin, end) : TF_STATUS_OK;
    for (size_t i = begin, next; i < end && status == TF_STATUS_OK; i = next) {
        next = i + 1;
        if (s->chars[i].flags & TFI_UNICODE_SPACE) continue;
        while (next < end && !(s->chars[next].flags & TFI_UNICODE_SPACE)) next++;
        status = chars_marked(x, i, next);
    }
    return status;
}

/* The same with the added tokens that are looked for there. */
static tf_status chars_segment(tfi_reading *x)
{
    const tf_tokenizer *t = x->t;
    tfi_scratch *s = x->s;
    uint32_t taken = 0, from = 0;
    tf_status status;
    tfi_match m;

    while (t->folded.count && tfi_added_next(t, &t->folded, s->normal, (uint32_t)s->normal_size, from, taken, &m)) {
        const size_t first = tfi_char_index(s, m.begin), last = tfi_char_index(s, m.end);
        if (taken < m.begin && (status = chars_words(x, tfi_char_index(s, taken), first)) < 0) return status;
        if ((status = tfi_reserve_tokens(s, 1)) < 0) return status;
        tfi_put_token(x, t->added[m.index].id, s->chars[first].byte_begin, s->chars[last - 1].byte_end, s->chars[first].index,
                      s->chars[last - 1].index + 1);
        x->word++;
        taken = m.end;
        from = m.resume;
    }
    return chars_words(x, tfi_char_index(s, taken), s->char_count);
}

/* From text to the normal form. */

static tf_status spm_segment(tfi_reading *x, uint32_t begin, uint32_t end)
{
    tfi_scratch *s = x->s;
    const tf_status status = tfi_spm_normalize(x->t, s, x->text, begin, end, &x->chars);

    if (status < 0 || s->char_count == 0) return status;
    piece p = {.text = s->normal, .size = (uint32_t)s->normal_size, .chars = s->chars, .next = lead_size(s->normal[0])};
    return put_piece(x, &p);
}

/* Is `at`, inside text[begin, end), a space with printing ASCII on both sides? Nothing that is done to the text looks over it.
 */
static int is_seam(const uint8_t *text, uint32_t begin, uint32_t end, uint32_t at)
{
    return text[at] == ' ' && at > begin && text[at - 1] > ' ' && text[at - 1] < 127 && at + 1 < end && text[at + 1] > ' ' &&
           text[at + 1] < 127;
}

/* Where a part that begins at `at` may end: in front of a space; not before CUT_AIM bytes where the space itself is needed. */
static uint32_t cut_end(const tf_tokenizer *t, const uint8_t *text, uint32_t begin, uint32_t at, uint32_t end)
{
    const tfi_unigram *u = &t->unigram;

    if (!u->has_seams || t->folded.count || !(u->split_spaces || (u->has_mark && u->split_marks))) return end;
    for (at = u->is_plain && u->split_spaces ? at + 1 : end - at > CUT_AIM ? at + CUT_AIM : end; at < end; at++)
        if (is_seam(text, begin, end, at)) return at;
    return end;
}

/* The long way for the part text[at, stop) of text[begin, end); x->chars counts on. */
static tf_status normal_part(tfi_reading *x, uint32_t begin, uint32_t end, uint32_t at, uint32_t *stop)
{
    tfi_range range = {.begin = at, .end = *stop, .is_first = at == begin, .is_last = *stop == end};
    const uint32_t chars = x->chars;
    int lost;
    tf_status status = tfi_run_normalizers(x->t, x->s, x->text, &range, &x->chars, &lost);

    if (status == TF_STATUS_OK && lost && *stop < end) {
        *stop = range.end = end;
        range.is_last = 1;
        x->chars = chars;
        status = tfi_run_normalizers(x->t, x->s, x->text, &range, &x->chars, &lost);
    }
    return status < 0 ? status : chars_segment(x);
}

/* Does something at `at` ask to be changed together with what follows it? */
static int is_changed(const tfi_unigram *u, const uint8_t *text, uint32_t at, uint32_t end)
{
    size_t matched;
    uint32_t size;

    return tfi_charsmap_find(&u->map, text + at, end - at, 0, &matched, &size) != NULL;
}

/* The end of the word at `at` if the normalizer leaves it as it is: where the text ends or an ASCII space is. Else `at`. */
static uint32_t plain_end(const tfi_unigram *u, const uint8_t *text, uint32_t at, uint32_t end)
{
    uint32_t stop = at, size = 1;

    for (; stop < end; stop += size) {
        uint32_t c = text[stop];
        if (c < 128) {
            size = 1;
            if (u->points[c] & TFI_POINT_SLOW) return u->ascii[c] == TFI_ASCII_SPACE ? stop : at;
            if (stop + 1 == end || text[stop + 1] < 128) continue; /* no member of the map is two characters of ASCII */
        } else {
            c = tfi_utf8_decode(text + stop, &size);
            if (c > 0xffff || u->points[c] & TFI_POINT_SLOW) return at;
        }
        if (u->points[c] & TFI_POINT_ASKS && is_changed(u, text, stop, end)) return at;
    }
    return stop;
}

/* May the space before `at` be taken by itself? */
static int parts_from_space(const tfi_unigram *u, const uint8_t *text, uint32_t at, uint32_t end)
{
    uint32_t size;

    if (at == end || text[at] < 128) return 1;
    const uint32_t c = tfi_utf8_decode(text + at, &size);
    return c <= 0xffff && !(u->points[c] & TFI_POINT_JOINS);
}

/* libsentencepiece's rules for words that are plain, with one space between them; *done: they were. */
static tf_status spm_words(tfi_reading *x, uint32_t begin, uint32_t end, int *done)
{
    const tfi_unigram *u = &x->t->unigram;
    const size_t first = x->s->token_count;
    const uint32_t chars = x->chars;
    double score = 0;
    tf_status status = own_words(x->t, x->s);

    *done = 0;
    for (uint32_t at = begin, stop; at < end && status == TF_STATUS_OK; at = stop + 1) {
        stop = plain_end(u, x->text, at, end);
        if (stop == at || stop + 1 == end || (stop < end && x->text[stop] != ' ')) break;
        const word w = {.begin = at, .end = stop, .prefix = u->mark_size, .gap = at > begin};
        status = put_spm_word(x, &w, &score);
        x->chars += tfi_utf8_count(x->text + at, stop - at) + (stop < end);
        *done = stop == end;
    }
    if (!*done) {
        x->s->token_count = first;
        x->chars = chars;
    } else {
        x->word++;
    }
    return status;
}

tf_status tfi_unigram_segment(tfi_reading *x, uint32_t begin, uint32_t end)
{
    const tfi_unigram *u = &x->t->unigram;
    const uint8_t *text = x->text;
    const int is_plain = u->points && x->t->folded.count == 0;
    int done = 0;
    tf_status status = TF_STATUS_OK;

    if (u->is_spm) {
        if (u->points) status = spm_words(x, begin, end, &done);
        return status < 0 || done ? status : spm_segment(x, begin, end);
    }
    if (is_plain && (status = own_words(x->t, x->s)) < 0) return status;
    for (uint32_t at = begin, stop; at < end && status == TF_STATUS_OK; at = stop) {
        stop = at + 1;
        if (is_plain && text[at] < 128 && u->ascii[text[at]] == TFI_ASCII_SPACE && parts_from_space(u, text, stop, end)) {
            x->chars++;
            continue;
        }
        stop = is_plain ? plain_end(u, text, at, end) : at;
        if (stop > at) {
            const int prepends = u->prepend == TFI_PREPEND_ALWAYS || (u->prepend == TFI_PREPEND_FIRST && at == 0);
            const word w = {.begin = at, .end = stop, .prefix = prepends ? u->mark_size : 0};
            status = put_word(x, &w);
            x->chars += tfi_utf8_count(text + at, stop - at);
            x->word++;
            continue;
        }
        stop = cut_end(x->t, text, begin, at, end);
        status = normal_part(x, begin, end, at, &stop);
    }
    return status;
}
