/* The best way through a piece of text by Unigram.
 *
 * The best way to each place is extended by every piece that begins there, as tokenizers' and libsentencepiece's
 * encode_optimized do it: places from left to right, pieces from short to long, and a new way counts only if its score is
 * larger. tokenizers adds doubles. libsentencepiece adds floats, which at times decides a tie the other way, and takes a sum that
 * has grown large off all ways that are open.
 *
 * Where no piece reaches over a place every way goes through it: what lies before is then settled, so that a piece of text of
 * any length takes nodes for a part of it alone.
 *
 * Places are code points, not bytes: one step in Japanese where UTF-8 has three. Floor of Japanese text, a code point: checked,
 * read and looked up 4 ns, two stems from the second level of cache 8 ns, its node and the one that is extended 4 ns, two
 * thirds of a token 8 ns, of which the caller's arrays are half: 24 ns, 125 MB/s. Predicted from 34 MB/s with bytes and a
 * double array: twice that. Measured on a machine with much other work: 66 to 80 MB/s beside 37. Where a vocabulary lacks a
 * script the text is one pass over a table: 250 MB/s beside 75. Lost: stems of 32 bytes behind a hash table (English at two
 * thirds, of cache misses), reading ahead of stems, ways compared without branches (both the same within the noise). */
#include "tokenizer/best_way.h"

#include <math.h>

#include "base/status.h"

enum { SETTLE_COUNT = 1024 };

/* libsentencepiece lets no way begin at a place with a larger sum than this, of either sign. */
static const double sum_most = 100000;

/* A way through a piece while it is found. Unknown code points wait for more of them in [unk_begin, unk_end). */
typedef struct way {
    tfi_reading *x;
    tfi_passage *passage;
    uint32_t base, reach; /* s->nodes[0] is place `base`; nodes are set up to `reach` */
    uint32_t unk_begin, unk_end;
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

/* The byte of the original at place `to` of a piece without chars. Places come in order, but a lone mark has the range of what
 * is behind it. */
static inline uint32_t byte_at(const way *w, uint32_t to)
{
    tfi_passage *p = w->passage;

    if (to < p->at) {
        p->at = p->prefix;
        p->byte = p->begin;
    }
    for (; p->at < to; p->at++) p->byte += lead_size(w->x->text[p->byte]);
    return p->byte;
}

/* A token of a piece without chars. */
static void put_flat(const way *w, int32_t id, uint32_t begin, uint32_t end)
{
    const tfi_passage *p = w->passage;
    const int has_prefix = begin < p->prefix;
    const uint32_t from = has_prefix ? p->prefix : begin;

    if (end < from + !w->x->t->unigram.is_spm) end = from + !w->x->t->unigram.is_spm;
    const uint32_t byte = byte_at(w, from) - (has_prefix ? p->gap : 0), index = p->index - p->prefix;
    tfi_put_token(w->x, id, byte, byte_at(w, end), index + from - (has_prefix ? p->gap_chars : 0), index + end);
}

/* With tokenizers' rules a prefix counts as part of the code point behind it; libsentencepiece's ranges leave no gaps. */
static void put_token(const way *w, int32_t id, uint32_t begin, uint32_t end)
{
    const tfi_passage *p = w->passage;
    const tf_tokenizer *t = w->x->t;

    if (!p->chars) {
        put_flat(w, id, begin, end);
        return;
    }
    if (t->unigram.is_spm) {
        const tfi_char *first = &p->chars[begin], *next = &p->chars[end];
        tfi_put_token(w->x, id, first->byte_begin, next->byte_begin, first->index, next->index);
        return;
    }
    const tfi_char *first = &p->chars[begin > p->prefix ? begin - p->prefix : 0];
    const tfi_char *last = &p->chars[end > p->prefix ? end - p->prefix - 1 : 0];
    tfi_token *k = tfi_put_token(w->x, id, first->byte_begin, last->byte_end, first->index, last->index + 1);
    if (t->bpe.trim) { /* never where there are prefixes */
        const uint8_t *text = w->x->s->normal;
        tfi_bpe_trim(w->x, k, text + first->at, last->at - first->at + lead_size(text[last->at]));
    }
}

/* The bytes of unknown text as tokens, if there is one for each. */
static int put_bytes(const way *w, uint32_t begin, uint32_t end)
{
    const tfi_unigram *u = &w->x->t->unigram;
    tfi_scratch *s = w->x->s;
    const size_t first = s->token_count;
    uint8_t text[4];

    for (uint32_t i = begin; i < end; i++) {
        const uint32_t size = tfi_utf8_encode(w->passage->points[i], text);
        for (uint32_t k = 0; k < size; k++)
            if (u->byte_id[text[k]] == TFI_TRIE_NONE) return 0;
    }
    put_token(w, TFI_TRIE_NONE, begin, end);
    const tfi_token whole = s->tokens[first];
    s->token_count = first;
    for (uint32_t i = begin; i < end; i++) {
        const uint32_t size = tfi_utf8_encode(w->passage->points[i], text);
        for (uint32_t k = 0; k < size; k++) {
            s->tokens[s->token_count] = whole;
            s->tokens[s->token_count++].id = u->byte_id[text[k]];
        }
    }
    return 1;
}

/* The id of the piece that unknown code points make together. */
static int32_t find_piece(const tfi_stems *stems, const uint32_t *points, uint32_t count)
{
    uint32_t at = tfi_stems_first(stems, points[0]);

    for (uint32_t i = 1; i < count && at; i++) at = tfi_stems_step(stems, at, points[i]);
    return at ? stems->stems[at].id : TFI_TRIE_NONE;
}

/* Unknown code points that follow each other are one token. tokenizers asks the vocabulary for it once more. */
static void flush_unknown(way *w)
{
    const tfi_unigram *u = &w->x->t->unigram;
    const uint32_t begin = w->unk_begin, end = w->unk_end;
    int32_t id = TFI_TRIE_NONE;

    if (begin == end) return;
    w->unk_begin = end;
    if (!u->is_spm) id = find_piece(&u->stems, w->passage->points + begin, end - begin);
    if (id != TFI_TRIE_NONE) put_token(w, id, begin, end);
    else if (!u->byte_fallback || !put_bytes(w, begin, end)) put_token(w, u->unk_id, begin, end);
}

static inline void put_unknown(way *w, uint32_t begin, uint32_t end)
{
    if (w->unk_begin == w->unk_end) w->unk_begin = begin;
    w->unk_end = end;
}

/* Room for the tokens of `count` code points and of those that wait. */
static tf_status reserve_for(const way *w, uint32_t count)
{
    const size_t most = (size_t)count + (w->unk_end - w->unk_begin) + 1;

    return tfi_reserve_tokens(w->x->s, w->x->t->unigram.byte_fallback ? 4 * most : (size_t)count + 1);
}

/* Append the tokens between `base` and `end`, through which every way goes. */
static tf_status settle(way *w, uint32_t end)
{
    tfi_node *nodes = w->x->s->nodes;
    const uint32_t size = end - w->base;
    const double score = nodes[size].score;
    const tfi_unigram *u = &w->x->t->unigram;
    const tf_status status = reserve_for(w, size);

    if (status < 0) return status;
    /* Turn the links around. */
    uint32_t to = size, at = nodes[size].place - w->base;
    uint32_t stem = nodes[size].stem;
    for (;;) {
        const tfi_node before = nodes[at];
        nodes[at].place = w->base + to;
        nodes[at].stem = stem;
        if (at == 0) break;
        to = at;
        at = before.place - w->base;
        stem = before.stem;
    }
    for (uint32_t from = w->base, next; from < end; from = next) {
        const tfi_node *node = &nodes[from - w->base];
        next = node->place;
        const int32_t id = node->stem == TFI_STEM_ROOT ? u->unk_id : u->stems.stems[node->stem].id;
        if (id == u->unk_id) {
            put_unknown(w, from, next);
        } else {
            flush_unknown(w);
            put_token(w, id, from, next);
        }
    }
    w->base = w->reach = end;
    w->score = score;
    nodes[0] = (tfi_node){.score = score};
    return TF_STATUS_OK;
}

/* A way to a place by a token that begins at `from`. */
static inline void extend(way *w, tfi_node *node, uint32_t from, double score, uint32_t stem, sums how)
{
    if (how == FLOATS) score = (float)score;
    if (node->stem != TFI_NOT_REACHED) {
        const double more = score - node->score;
        if (how == FLOATS && fabs(more) < w->margin) w->margin = fabs(more);
        if (!(more > 0)) return;
    }
    *node = (tfi_node){.score = score, .place = from, .stem = stem};
}

/* All pieces that begin at `at`; `stem` is its code point, or 0. Room was made. */
static inline void extend_all(way *w, uint32_t at, uint32_t stem, sums how)
{
    const tfi_unigram *u = &w->x->t->unigram;
    const tfi_stem *stems = u->stems.stems;
    const uint32_t *point = w->passage->points + at, *end = w->passage->points + w->passage->count;
    tfi_node *node = w->x->s->nodes + (at - w->base), *reach = node + (w->reach - at);
    const double score = node->score;

    if (reach == node) (++reach)->stem = TFI_NOT_REACHED;
    if (!(stems[stem].bits & TFI_STEM_PIECE)) extend(w, node + 1, at, score + u->unk_score, TFI_STEM_ROOT, how);
    while (stem) {
        node++;
        if (stems[stem].bits & TFI_STEM_PIECE) {
            while (reach < node) (++reach)->stem = TFI_NOT_REACHED;
            extend(w, node, at, score + tfi_stems_score(&u->stems, stem), stem, how);
        }
        if (++point == end) break;
        stem = tfi_stems_step(&u->stems, stem, *point);
    }
    w->reach = w->base + (uint32_t)(reach - w->x->s->nodes);
}

/* Where the sum at `at` is too large it is taken off all places that are reached. */
static inline void limit_sums(const way *w, uint32_t at)
{
    tfi_node *node = w->x->s->nodes + (at - w->base), *reach = node + (w->reach - at);
    const double sum = node->score;

    if (fabs(sum) <= sum_most) return;
    for (; node <= reach; node++)
        if (node->stem != TFI_NOT_REACHED) node->score = (float)(node->score - sum);
}

/* Where every way goes through `at`, and no piece begins with its code point nor with those up to *end, they are unknown. */
static tf_status pass_unknown(way *w, uint32_t at, uint32_t *end, sums how)
{
    const tfi_unigram *u = &w->x->t->unigram;
    const tfi_passage *p = w->passage;
    tf_status status;

    if (at > w->base && (status = settle(w, at)) < 0) return status;
    double score = w->x->s->nodes[0].score;
    for (*end = at; *end < p->count && !tfi_stems_first(&u->stems, p->points[*end]); ++*end) {
        if (how == FLOATS && fabs(score) > sum_most) score = 0;
        score += u->unk_score;
        if (how == FLOATS) score = (float)score;
    }
    put_unknown(w, at, *end);
    w->base = w->reach = *end;
    w->score = w->x->s->nodes[0].score = score;
    return TF_STATUS_OK;
}

static inline tf_status find_way(way *w, sums how)
{
    tfi_scratch *s = w->x->s;
    const tfi_unigram *u = &w->x->t->unigram;
    const tfi_passage *p = w->passage;
    tf_status status;

    if ((status = tfi_reserve(s->memory, (void **)&s->nodes, &s->node_capacity, 1, sizeof *s->nodes)) < 0) return status;
    s->nodes[0] = (tfi_node){.score = w->score};
    for (uint32_t at = 0; at < p->count; at++) {
        const uint32_t stem = tfi_stems_first(&u->stems, p->points[at]);
        if (how == FLOATS) limit_sums(w, at);
        if (w->reach == at) {
            if (!stem) {
                if ((status = pass_unknown(w, at, &at, how)) < 0) return status;
                at--;
                continue;
            }
            if (at - w->base >= SETTLE_COUNT && (status = settle(w, at)) < 0) return status;
        }
        const size_t need = (size_t)(at - w->base) + TFI_PIECE_SIZE_MAX + 1;
        if (need > s->node_capacity &&
            (status = tfi_reserve(s->memory, (void **)&s->nodes, &s->node_capacity, need, sizeof *s->nodes)) < 0)
            return status;
        extend_all(w, at, stem, how);
    }
    if (p->count > w->base && (status = settle(w, p->count)) < 0) return status;
    if ((status = reserve_for(w, 0)) < 0) return status;
    flush_unknown(w);
    return TF_STATUS_OK;
}

int tfi_sum_is_small(const tfi_unigram *u, double sum, uint32_t points)
{
    return fabs(sum) + points * u->score_most <= sum_most;
}

tf_status tfi_best_way(tfi_reading *x, tfi_passage *p, double *score, double *margin)
{
    way w = {.x = x, .passage = p, .score = *score, .margin = INFINITY};
    const tf_status status = x->t->unigram.is_spm ? find_way(&w, FLOATS) : find_way(&w, DOUBLES);

    *score = w.score;
    *margin = w.margin;
    return status;
}
