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
 * thirds, of cache misses). Reading ahead of stems is 6 to 9 % more on a machine with other work; in words it is nothing.
 *
 * What words of mixed languages wait for is wrong guesses, not memory: 2.35 a byte before and 1.45 now, counted by cachegrind, of 250
 * and 215 instructions; 20 to 25 % more speed. A word is taken at once, on nodes of its own; ways are compared without branches, and a
 * stem that is no piece takes part with a score of minus infinity. Lost: the walks of 32 places side by side, one code point a round, so
 * that they wait for memory together (a tenth slower: more instructions than that saves); both tests of a child as one branch (fewer
 * wrong guesses, but more lines of cache are read). */
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
    uint32_t base; /* the place up to which tokens are appended, or wait as unknown ones */
    uint32_t unk_begin, unk_end;
    double score;  /* before the piece, then behind it */
    double margin; /* the least difference between two ways to a place */
} way;

/* How scores add up: as tokenizers does it, or as libsentencepiece does it. */
typedef enum sums { DOUBLES, FLOATS } sums;

/* Tokens. */

static inline uint32_t lead_size(uint8_t lead)
{
    return 1u + (lead >= 0xc0) + (lead >= 0xe0) + (lead >= 0xf0);
}

/* The byte of the original at place `to` of a piece without chars. Places come in order, but a lone mark has the range of what
 * is behind it. */
static inline uint32_t byte_at(const way *w, uint32_t to)
{
    tfi_passage *p = w->passage;
    const uint8_t *text = w->x->text;
    uint32_t at = p->at, byte = p->byte;

    if (p->bytes) return p->begin + p->bytes[to];
    if (to < at) {
        at = p->prefix;
        byte = p->begin;
    }
    for (; at < to; at++) byte += lead_size(text[byte]);
    p->at = at;
    return p->byte = byte;
}

/* A token of a piece without chars. */
static inline void put_flat(const way *w, int32_t id, uint32_t begin, uint32_t end)
{
    const tfi_passage *p = w->passage;
    const int has_prefix = begin < p->prefix;
    const uint32_t from = has_prefix ? p->prefix : begin;

    if (end < from + !w->x->t->unigram.is_spm) end = from + !w->x->t->unigram.is_spm;
    const uint32_t byte = byte_at(w, from) - (has_prefix ? p->gap : 0), index = p->index - p->prefix;
    tfi_put_token(w->x, id, byte, byte_at(w, end), index + from - (has_prefix ? p->gap_chars : 0), index + end);
}

/* With tokenizers' rules a prefix counts as part of the code point behind it; libsentencepiece's ranges leave no gaps. */
static inline void put_token(const way *w, int32_t id, uint32_t begin, uint32_t end)
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

/* The best way so far to each place, from `base` on: nodes[0] is that. */

/* Where the last token on a way begins, and its stem. */
static inline uint64_t link_of(uint32_t place, uint32_t stem)
{
    return (uint64_t)place << TFI_STEM_BITS | stem;
}

/* Places to which no way leads yet. Sums may end as low as that, so each has one nevertheless. */
static inline void init_nodes(tfi_node *nodes, uint32_t begin, uint32_t end)
{
    for (uint32_t i = begin; i < end; i++) nodes[i] = (tfi_node){.score = -INFINITY, .last = link_of(i - 1, TFI_STEM_ROOT)};
}

/* A way to a place. Written without branches: either is as likely. */
static inline void offer(tfi_node *node, double score, uint64_t last, sums how, double *margin)
{
    if (how == FLOATS) score = (float)score;
    const double old = node->score,
                 least = fabs(score - old); /* infinite where no way leads, not a number for what is no piece */
    const uint64_t is_better = -(uint64_t)(score > old);

    if (how == DOUBLES) *margin = least < *margin ? least : *margin;
    node->score = score > old ? score : old;
    node->last = (last & is_better) | (node->last & ~is_better);
}

/* The ways by all pieces that begin at the place `from`, whose code point is the first of `points`; how many code points the longest of them
 * has. A stem that is no piece has a score with which it is never chosen. */
static inline uint32_t offer_all(const tfi_unigram *u, tfi_node *nodes, uint32_t from, const uint32_t *points, sums how,
                                 double *margin)
{
    const tfi_stems *t = &u->stems;
    const double score = nodes[from].score;
    uint32_t stem = tfi_stems_first(t, *points), size = 1;
    uint64_t bits = t->stems[stem].bits;
    const int is_piece = (bits & TFI_STEM_PIECE) != 0;

    offer(&nodes[from + 1], score + (is_piece ? tfi_stems_score(t, stem) : u->unk_score),
          link_of(from, is_piece ? stem : TFI_STEM_ROOT), how, margin);
    if (!stem) return size;
    for (uint32_t i = 1; tfi_stem_may_go_on(bits, points[i]); i++) {
        const uint32_t c = points[i];
        uint32_t next = tfi_stem_child(bits, c);
        if ((t->stems[next].bits & TFI_STEM_POINT) != c)
            if (!(bits & TFI_STEM_MORE) || !(next = tfi_stems_look_up(t, stem, c))) break;
        stem = next;
        bits = t->stems[stem].bits;
        offer(&nodes[from + i + 1], score + tfi_stems_score(t, stem), link_of(from, stem), how, margin);
        size = bits & TFI_STEM_PIECE ? i + 1 : size;
    }
    return size;
}

/* Append the tokens of the way to nodes[size]. Room was made. */
static inline void put_way(way *w, tfi_node *nodes, uint32_t size)
{
    const tfi_unigram *u = &w->x->t->unigram;
    uint64_t last = nodes[size].last;

    for (uint32_t to = size, from; to > 0; to = from) { /* turn the links around */
        const uint64_t before = nodes[from = (uint32_t)(last >> TFI_STEM_BITS)].last;
        nodes[from].last = link_of(to, last & TFI_STEMS_MAX);
        last = before;
    }
    for (uint32_t from = 0, next; from < size; from = next) {
        const uint32_t stem = nodes[from].last & TFI_STEMS_MAX;
        const int32_t id = stem == TFI_STEM_ROOT ? u->unk_id : u->stems.stems[stem].id;
        next = (uint32_t)(nodes[from].last >> TFI_STEM_BITS);
        if (id == u->unk_id) {
            put_unknown(w, w->base + from, w->base + next);
            continue;
        }
        if (w->unk_begin < w->unk_end) flush_unknown(w);
        put_token(w, id, w->base + from, w->base + next);
    }
}

/* Where each code point of a word begins, if it is in the text as it is. */
static void find_bytes(way *w, uint8_t *bytes)
{
    tfi_passage *p = w->passage;
    const uint8_t *text = w->x->text + p->begin;

    if (p->chars) return;
    bytes[0] = bytes[p->prefix] = 0;
    for (uint32_t i = p->prefix; i < p->count; i++) bytes[i + 1] = (uint8_t)(bytes[i] + lead_size(text[bytes[i]]));
    p->bytes = bytes;
}

/* A word: all of it at once, in the first level of cache. */
static tf_status find_word_way(way *w)
{
    const tfi_passage *p = w->passage;
    const tf_status status = reserve_for(w, p->count);
    tfi_node nodes[TFI_WORD_POINTS + 1];
    uint8_t bytes[TFI_WORD_POINTS + 1];
    double margin = INFINITY;

    if (status < 0) return status;
    nodes[0] = (tfi_node){.score = w->score};
    init_nodes(nodes, 1, p->count + 1);
    for (uint32_t at = 0; at < p->count; at++) offer_all(&w->x->t->unigram, nodes, at, p->points + at, DOUBLES, &margin);
    find_bytes(w, bytes);
    put_way(w, nodes, p->count);
    flush_unknown(w);
    w->score = nodes[p->count].score;
    w->margin = margin;
    return TF_STATUS_OK;
}

/* Pieces of any length. */

/* Append the tokens between `base` and `end`, through which every way goes. */
static tf_status settle(way *w, uint32_t end)
{
    tfi_node *nodes = w->x->s->nodes;
    const uint32_t size = end - w->base;
    const tf_status status = reserve_for(w, size);

    if (status < 0) return status;
    put_way(w, nodes, size);
    w->base = end;
    w->score = nodes[size].score;
    nodes[0] = (tfi_node){.score = w->score};
    return TF_STATUS_OK;
}

/* Where the sum at a place is too large it is taken off all that are reached, `more` behind that. */
static inline void limit_sums(tfi_node *node, uint32_t more)
{
    const double sum = node->score;

    if (fabs(sum) <= sum_most) return;
    for (uint32_t i = 0; i <= more; i++) node[i].score = (float)(node[i].score - sum);
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
    w->base = *end;
    w->score = w->x->s->nodes[0].score = score;
    return TF_STATUS_OK;
}

/* Ask for what the walks from places ahead will read, the stem of a code point and its child, before it is waited for. */
static inline void ask_ahead(const tfi_stems *t, const tfi_passage *p, uint32_t at)
{
    enum { STEM_AHEAD = 8, CHILD_AHEAD = 3 };
    const uint32_t *points = p->points + at;

    if (at + STEM_AHEAD >= p->count) return;
    __builtin_prefetch(&t->stems[tfi_stems_first(t, points[STEM_AHEAD])]);
    const uint64_t bits = t->stems[tfi_stems_first(t, points[CHILD_AHEAD])].bits;
    __builtin_prefetch(&t->stems[tfi_stem_child(bits, points[CHILD_AHEAD + 1])]);
}

static inline tf_status find_way(way *w, sums how)
{
    enum { AT_ONCE = 16 };
    tfi_scratch *s = w->x->s;
    const tfi_unigram *u = &w->x->t->unigram;
    const tfi_passage *p = w->passage;
    const uint32_t ahead = (u->stems.longest > 1 ? u->stems.longest : 1) + 1;
    uint32_t reach = 0, fresh = 1; /* the first node that may not be written yet */
    double margin = INFINITY;
    tf_status status;

    if ((status = tfi_reserve(s->memory, (void **)&s->nodes, &s->node_capacity, 1, sizeof *s->nodes)) < 0) return status;
    s->nodes[0] = (tfi_node){.score = w->score};
    for (uint32_t at = 0; at < p->count; at++) {
        if (how == FLOATS) limit_sums(s->nodes + (at - w->base), reach - at);
        if (reach == at) {
            if (!tfi_stems_first(&u->stems, p->points[at])) {
                if ((status = pass_unknown(w, at, &reach, how)) < 0) return status;
                at = reach - 1;
                fresh = 1;
                continue;
            }
            if (at - w->base >= SETTLE_COUNT) {
                if ((status = settle(w, at)) < 0) return status;
                fresh = 1;
            }
        }
        const uint32_t from = at - w->base;
        if (from + ahead > fresh) {
            const size_t need = (size_t)from + ahead + AT_ONCE;
            status = tfi_reserve(s->memory, (void **)&s->nodes, &s->node_capacity, need, sizeof *s->nodes);
            if (status < 0) return status;
            init_nodes(s->nodes, fresh, (uint32_t)need);
            fresh = (uint32_t)need;
        }
        ask_ahead(&u->stems, p, at);
        const uint32_t far = at + offer_all(u, s->nodes, from, p->points + at, how, &margin);
        reach = far > reach ? far : reach;
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
    const int is_word = p->count <= TFI_WORD_POINTS;
    const tf_status status = !margin && x->t->unigram.is_spm ? find_way(&w, FLOATS)
                             : is_word                       ? find_word_way(&w)
                                                             : find_way(&w, DOUBLES);

    *score = w.score;
    if (margin) *margin = w.margin;
    return status;
}
