/* Text to tokens by Unigram.
 *
 * The best way to each place is extended by every piece that begins there, as tokenizers' and libsentencepiece's
 * encode_optimized do it: places from left to right, pieces from short to long, and a new way counts only if its score is
 * larger. tokenizers adds doubles; libsentencepiece keeps floats and compares doubles with them, which at times decides a tie
 * the other way.
 *
 * Where no piece reaches over a place every way goes through it: what lies before is then settled, so that a piece of text of
 * any length takes nodes for a part of it alone. Nothing is allocated a word. Words of plain ASCII take a short way past the
 * normalizer. */
#include "tokenizer/unigram.h"

#include <string.h>

#include "base/status.h"
#include "tokenizer/tokenizer.h"

enum { SETTLE_SIZE = 4096, CUT_AIM = 4096, ASCII_PIECE_MAX = 256 };

/* A piece of text, and how its places lie in the original: those of `chars`, or in ASCII one byte each. */
typedef struct piece {
    const uint8_t *text;
    uint32_t size;
    uint32_t prefix;       /* bytes of a mark that is not in the text: it counts as part of the first code point */
    const tfi_char *chars; /* the code point reached; NULL: ASCII from byte `begin`, code point `index` on */
    uint32_t next;         /* where in `text` that code point ends */
    uint32_t begin, index;
} piece;

/* A way through a piece while it is found. Unknown code points wait for more of them in [unk_begin, unk_end). */
typedef struct way {
    tfi_reading *x;
    piece *piece;
    uint32_t base, reach; /* s->nodes[0] is place `base`; nodes are set up to `reach` */
    uint32_t unk_begin, unk_end;
    int32_t unk_parts;
} way;

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

static void put_token(const way *w, int32_t id, uint32_t begin, uint32_t end)
{
    piece *p = w->piece;

    if (!p->chars) {
        const uint32_t first = begin < p->prefix ? 0 : begin - p->prefix, last = end <= p->prefix ? 1 : end - p->prefix;
        tfi_put_token(w->x, id, p->begin + first, p->begin + last, p->index + first, p->index + last);
        return;
    }
    while (p->next <= begin) step_char(p);
    const tfi_char *first = p->chars;
    while (p->next < end) step_char(p);
    if (w->x->t->unigram.is_spm) /* its ranges leave no gaps */
        tfi_put_token(w->x, id, first->byte_begin, p->chars[1].byte_begin, first->index, p->chars[1].index);
    else tfi_put_token(w->x, id, first->byte_begin, p->chars->byte_end, first->index, p->chars->index + 1);
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
    if (!t->unigram.is_spm) id = tfi_trie_find(t->unigram.pieces, w->piece->text + begin, end - begin);
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
    nodes[0] = (tfi_node){.score = score, .id = 0};
    return TF_STATUS_OK;
}

/* A way to place `to` by a token that begins at `from`. Room was made. */
static inline void extend(way *w, uint32_t from, uint32_t to, double score, int32_t id)
{
    tfi_node *nodes = w->x->s->nodes, *node = &nodes[to - w->base];

    if (w->x->t->unigram.is_spm) score = (float)score;
    for (; w->reach < to; w->reach++) nodes[w->reach + 1 - w->base].id = TFI_TRIE_NONE;
    if (node->id != TFI_TRIE_NONE && !(score > node->score)) return;
    *node = (tfi_node){.score = score, .place = from, .id = id};
}

static double piece_score(const tfi_unigram *u, int32_t id, uint32_t size)
{
    if (u->is_user && u->is_user[id]) return (double)((float)size * (float)u->user_score) - 0.1;
    return u->scores[id];
}

/* All pieces that begin at `at`. */
static void extend_all(way *w, uint32_t at)
{
    const tf_tokenizer *t = w->x->t;
    const tfi_unigram *u = &t->unigram;
    const uint8_t *text = w->piece->text;
    const uint32_t size = w->piece->size, single = at + lead_size(text[at]);
    const double score = w->x->s->nodes[at - w->base].score;
    int is_known = 0;

    for (uint32_t i = at, node = TFI_TRIE_ROOT; i < size && (node = tfi_trie_step(u->pieces, node, text[i])) != 0;) {
        const int32_t id = u->pieces->values[node];
        i++;
        if (id == TFI_TRIE_NONE) continue;
        extend(w, at, i, score + piece_score(u, id, i - at), id);
        is_known |= i == single;
    }
    if (!is_known) extend(w, at, single, score + u->unk_score, u->unk_id);
}

/* Append the tokens of a piece, which is one word. */
static tf_status put_piece(tfi_reading *x, piece *p)
{
    tfi_scratch *s = x->s;
    way w = {.x = x, .piece = p};
    tf_status status;

    if ((status = tfi_reserve(s->memory, (void **)&s->nodes, &s->node_capacity, 1, sizeof *s->nodes)) < 0) return status;
    s->nodes[0] = (tfi_node){.id = 0};
    for (uint32_t at = 0; at < p->size; at += lead_size(p->text[at])) {
        if (at - w.base >= SETTLE_SIZE && w.reach == at && (status = settle(&w, at)) < 0) return status;
        const uint32_t rest = p->size - w.base, most = at - w.base + TFI_PIECE_SIZE_MAX;
        status =
            tfi_reserve(s->memory, (void **)&s->nodes, &s->node_capacity, (rest < most ? rest : most) + 1, sizeof *s->nodes);
        if (status < 0) return status;
        extend_all(&w, at);
    }
    if (p->size > w.base && (status = settle(&w, p->size)) < 0) return status;
    if ((status = tfi_reserve_tokens(s, (size_t)(w.unk_end - w.unk_begin) + 1)) < 0) return status;
    flush_unknown(&w);
    x->word++;
    return TF_STATUS_OK;
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
    tf_status status = tfi_unigram_normalize(x->t, x->s, x->text, &range, &x->chars, &lost);

    if (status == TF_STATUS_OK && lost && *stop < end) {
        *stop = range.end = end;
        range.is_last = 1;
        x->chars = chars;
        status = tfi_unigram_normalize(x->t, x->s, x->text, &range, &x->chars, &lost);
    }
    return status < 0 ? status : chars_segment(x);
}

/* A word of ASCII that the normalizer leaves as it is. */
static tf_status ascii_word(tfi_reading *x, uint32_t begin, uint32_t end)
{
    const tfi_unigram *u = &x->t->unigram;
    const uint32_t prefix = u->prepend == TFI_PREPEND_NEVER || (u->prepend == TFI_PREPEND_FIRST && begin > 0) ? 0
                                                                                                              : u->mark_size;
    uint8_t text[4 + ASCII_PIECE_MAX];
    piece p = {.text = text, .size = prefix + end - begin, .prefix = prefix, .begin = begin, .index = x->chars};

    memcpy(text, u->mark_text, sizeof u->mark_text);
    memcpy(text + prefix, x->text + begin, end - begin);
    x->chars += end - begin;
    return put_piece(x, &p);
}

/* The end of the plain ASCII word at `at`; `at` if there is none, or if what comes behind may belong to it. */
static uint32_t plain_end(const tfi_unigram *u, const uint8_t *text, uint32_t at, uint32_t end)
{
    uint32_t stop = at;

    while (stop < end && text[stop] < 128 && u->ascii[text[stop]] == TFI_ASCII_WORD) stop++;
    return stop < end && (text[stop] > 127 || u->ascii[text[stop]] != TFI_ASCII_SPACE) ? at : stop;
}

tf_status tfi_unigram_segment(tfi_reading *x, uint32_t begin, uint32_t end)
{
    const tfi_unigram *u = &x->t->unigram;
    const uint8_t *text = x->text;
    const int is_plain = u->is_plain && u->split_spaces && u->has_mark && x->t->folded.count == 0;
    tf_status status = TF_STATUS_OK;

    if (u->is_spm) return spm_segment(x, begin, end);
    for (uint32_t at = begin, stop; at < end && status == TF_STATUS_OK; at = stop) {
        stop = at + 1;
        if (is_plain && text[at] < 128 && u->ascii[text[at]] == TFI_ASCII_SPACE && (stop == end || text[stop] < 128)) {
            x->chars++;
            continue;
        }
        stop = is_plain ? plain_end(u, text, at, end) : at;
        if (stop > at && stop - at <= ASCII_PIECE_MAX) {
            status = ascii_word(x, at, stop);
            continue;
        }
        stop = cut_end(x->t, text, begin, at, end);
        status = normal_part(x, begin, end, at, &stop);
    }
    return status;
}
