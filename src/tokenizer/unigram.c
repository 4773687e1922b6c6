/* Text to tokens by Unigram: the normal form, words, and what stands for them; best_way.c finds the tokens of each.
 *
 * Nothing is allocated a word. Words that spaces divide take a short way past the normalizer if all that it does to them is to
 * change code points one by one; the tokens of short ones are remembered, and one that is known is found by its bytes up to the next
 * space, before its code points are looked at. */
#include "tokenizer/unigram.h"

#include <math.h>
#include <string.h>

#include "base/status.h"
#include "tokenizer/best_way.h"

enum { CUT_AIM = 4096 };

static inline tf_status reserve_points(tfi_scratch *s, size_t count)
{
    if (count <= s->point_capacity) return TF_STATUS_OK;
    return tfi_reserve(s->memory, (void **)&s->points, &s->point_capacity, count, sizeof *s->points);
}

/* Words as they are. */

/* A short word as numbers: its bytes, zeros behind them. */
typedef struct key {
    uint64_t a, b;
    uint32_t size;
} key;

/* The lowest bytes of a number. */
static inline uint64_t low_bytes(uint64_t number, int64_t bytes)
{
    return bytes >= 8 ? number : bytes <= 0 ? 0 : number & (((uint64_t)1 << 8 * bytes) - 1);
}

/* The first TFI_WORD_BYTES of text[0, left), spaces behind them. Where they are enough all are read at once, which is not waited for. */
static inline void read_bytes(const uint8_t *text, uint32_t left, uint64_t *a, uint64_t *b)
{
    uint8_t copy[TFI_WORD_BYTES];

    if (left < TFI_WORD_BYTES) {
        memset(copy, ' ', sizeof copy);
        memcpy(copy, text, left);
        text = copy;
    }
    memcpy(a, text, 8);
    memcpy(b, text + 8, 8);
}

static inline key read_key(const uint8_t *text, uint32_t size, uint32_t left)
{
    uint64_t a, b;

    read_bytes(text, left, &a, &b);
    return (key){low_bytes(a, size), low_bytes(b, (int64_t)size - 8), size};
}

/* How many bytes of a number are before the first space in it. */
static inline uint32_t space_at(uint64_t bytes)
{
    const uint64_t ones = 0x0101010101010101u, x = bytes ^ ' ' * ones, zeros = (x - ones) & ~x & ones << 7;

    return zeros ? (uint32_t)__builtin_ctzll(zeros) >> 3 : 8;
}

/* A word of at most TFI_WORD_BYTES up to the next space, or the begin of a longer one. */
static inline key cut_key(const uint8_t *text, uint32_t left)
{
    uint64_t a, b;

    read_bytes(text, left, &a, &b);
    const uint32_t in_a = space_at(a), size = in_a < 8 ? in_a : 8 + space_at(b);
    return (key){low_bytes(a, size), low_bytes(b, (int64_t)size - 8), size};
}

/* The place of a word in the table of known ones. */
static inline tfi_word *word_place(const tfi_scratch *s, const key *k)
{
    const uint64_t hash = k->a * 0x9e3779b97f4a7c15u + k->b * 0xc2b2ae3d27d4eb4fu + k->size * 0x165667b19e3779f9u;

    return &s->words[(hash ^ hash >> 29) * 0x9e3779b97f4a7c15u >> 40 & (TFI_WORDS - 1)];
}

static inline int is_same(const tfi_word *known, const key *k)
{
    return known->size == k->size && known->a == k->a && known->b == k->b;
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

/* A word in a text whose code points are in s->points, behind a mark if it has a prefix; the prefix begins `gap` bytes,
 * `gap_chars` code points before the word. */
typedef struct word {
    uint32_t begin, end, prefix, gap, gap_chars;
    uint32_t chars;  /* code points in the text */
    uint32_t points; /* and as the map leaves them, the prefix counted */
    uint32_t left;   /* bytes from `begin` to where the text ends */
    int is_together; /* what the map does to it may hang on what is behind it */
} word;

/* What the map has for the code point at `at` if it changes it, else NULL; *size gets its bytes. */
static const uint8_t *changed(const tfi_unigram *u, const uint8_t *text, uint32_t at, uint32_t *size)
{
    size_t matched;
    uint32_t new_size;

    (void)tfi_utf8_decode(text + at, size);
    return tfi_charsmap_find(&u->map, text + at, *size, 0, &matched, &new_size);
}

/* Where each code point of a word came from that does not have as many as the text. */
static tf_status set_word_chars(tfi_reading *x, const word *w)
{
    const tfi_unigram *u = &x->t->unigram;
    tfi_scratch *s = x->s;
    uint32_t index = x->chars, size;
    tf_status status = tfi_reserve(s->memory, (void **)&s->chars, &s->char_capacity, (size_t)w->points + 1, sizeof *s->chars);
    tfi_char *c = s->chars;

    if (status < 0) return status;
    if (u->is_spm) *c++ = (tfi_char){.byte_begin = w->begin - w->gap, .index = index - w->gap_chars};
    for (uint32_t at = w->begin; at < w->end; at += size, index++) {
        const uint8_t *new = changed(u, x->text, at, &size);
        uint32_t count = new ? tfi_utf8_count(new, strlen((const char *)new)) : 1;
        while (count--) *c++ = (tfi_char){.byte_begin = at, .byte_end = at + size, .index = index};
    }
    *c = (tfi_char){.byte_begin = w->end, .index = index};
    return TF_STATUS_OK;
}

/* The tokens of the word by way of its piece, from *score on; see tfi_best_way(). */
static tf_status find_word(tfi_reading *x, const word *w, double *score, double *margin)
{
    tfi_passage p = {.points = x->s->points,
                     .count = w->points,
                     .prefix = w->prefix,
                     .begin = w->begin,
                     .index = x->chars,
                     .gap = w->gap,
                     .gap_chars = w->gap_chars,
                     .at = w->prefix,
                     .byte = w->begin};
    tf_status status;

    if (w->points != w->chars + w->prefix) {
        if ((status = set_word_chars(x, w)) < 0) return status;
        p.chars = x->s->chars;
        if (x->t->unigram.is_spm) p.prefix = 0;
    }
    return tfi_best_way(x, &p, score, margin);
}

/* Remember the tokens from `first` on as those of the word, if that can be. */
static void keep_word(const tfi_reading *x, tfi_word *to, const key *k, const word *w, size_t first, double score,
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
        const uint32_t end = tokens[i].byte_end - w->begin, char_end = tokens[i].char_end - x->chars;
        if (i > 0 && !(i == 1 && is_lone) && tokens[i].byte_begin != tokens[i - 1].byte_end) return;
        if (tokens[i].id >> TFI_WORD_ID_BITS) return;
        to->tokens[i] = (end << TFI_WORD_END_BITS | char_end) << TFI_WORD_ID_BITS | (uint32_t)tokens[i].id;
    }
    to->a = k->a;
    to->b = k->b;
    to->size = (uint8_t)k->size;
    to->chars = (uint8_t)w->chars;
    to->count = (uint8_t)count;
    to->prefix = (uint8_t)w->prefix;
    to->is_lone = (uint8_t)is_lone;
    to->is_together = (uint8_t)w->is_together;
    to->score = (float)score;
    to->margin = (float)margin;
}

/* Append a known word's tokens. */
static inline tf_status put_known(tfi_reading *x, const tfi_word *known, const word *w)
{
    enum { ID_MASK = (1 << TFI_WORD_ID_BITS) - 1, END_MASK = (1 << TFI_WORD_END_BITS) - 1 };
    const tf_status status = tfi_reserve_tokens(x->s, TFI_WORD_TOKENS);
    uint32_t begin = w->begin - w->gap, index = x->chars - w->gap_chars;

    if (status < 0) return status;
    for (int i = 0; i < known->count; i++) {
        if (i == 1 && known->is_lone) begin = w->begin, index = x->chars;
        const uint32_t token = known->tokens[i];
        const uint32_t end = w->begin + (token >> (TFI_WORD_ID_BITS + TFI_WORD_END_BITS));
        const uint32_t index_end = x->chars + (token >> TFI_WORD_ID_BITS & END_MASK);
        tfi_put_token(x, (int32_t)(token & ID_MASK), begin, end, index, index_end);
        begin = end;
        index = index_end;
    }
    return TF_STATUS_OK;
}

/* Does the map leave the word as many code points as it has? Then its tokens tell how many of them are unknown. */
static int has_all_points(const word *w)
{
    return w->points == w->chars + w->prefix;
}

/* Can the word be one of those that are remembered? */
static int is_short(const word *w)
{
    return w->end - w->begin <= TFI_WORD_BYTES && has_all_points(w);
}

/* By tokenizers' rules: each word by itself. */
static tf_status put_word(tfi_reading *x, const word *w)
{
    const size_t first = x->s->token_count;
    double score = 0;
    key k;
    tfi_word *known = NULL;
    tf_status status;

    if (is_short(w)) {
        k = read_key(x->text + w->begin, w->end - w->begin, w->left);
        known = word_place(x->s, &k);
        if (is_same(known, &k) && known->prefix == w->prefix) return put_known(x, known, w);
    }
    status = find_word(x, w, &score, NULL);
    if (status == TF_STATUS_OK && known) keep_word(x, known, &k, w, first, 0, 0);
    return status;
}

/* libsentencepiece's sums go on from word to word, in float. What a word's tokens are hangs on them only where two ways are as good but for
 * rounding. So each word is taken by itself, with a sum that is near enough to tell that; where it is in doubt the sum is added up as
 * libsentencepiece has it. */
typedef struct total {
    double near;
    double exact; /* before the token `at` */
    size_t at;
} total;

/* Add up the sum behind all tokens: token by token, and of an unknown one code point by code point. */
static void add_up(const tfi_reading *x, total *sum)
{
    const tfi_unigram *u = &x->t->unigram;
    double score = sum->exact;

    for (size_t i = sum->at; i < x->s->token_count; i++) {
        const tfi_token *k = &x->s->tokens[i];
        const int is_unknown = k->id == u->unk_id;
        const uint32_t parts = is_unknown ? k->char_end - k->char_begin : 1;
        for (uint32_t n = 0; n < parts; n++) score = (float)(score + (is_unknown ? u->unk_score : u->scores[k->id]));
    }
    *sum = (total){.near = score, .exact = score, .at = x->s->token_count};
}

/* Is there surely no place within so many code points where the sum is taken off? What is near is off by half a unit in the last place,
 * 2^-24 of it, for each token since the exact one. */
enum { NEAR_TOKENS = 1024 };
static inline int is_small(const tfi_unigram *u, const total *sum, uint32_t points)
{
    return tfi_sum_is_small(u, 1.001 * sum->near, points);
}

/* Is the choice beyond doubt that a word's least clear one was by `margin`? A sum in float of numbers of a size is off by half a unit in its
 * last place, 2^-24 of it, for each of them, of which a word has at most TFI_WORD_POINTS. */
static inline int is_clear(double before, double score, double margin)
{
    return margin > 5e-6 * (1 + fabs(before) + 2 * fabs(score));
}

/* By libsentencepiece's rules. */
static tf_status put_spm_word(tfi_reading *x, const word *w, total *sum)
{
    const size_t first = x->s->token_count;
    double score = 0, margin;
    tf_status status;

    if (has_all_points(w) && w->points <= TFI_WORD_POINTS && is_small(&x->t->unigram, sum, w->points)) {
        if ((status = find_word(x, w, &score, &margin)) < 0) return status;
        if (is_short(w)) {
            const key k = read_key(x->text + w->begin, w->end - w->begin, w->left);
            keep_word(x, word_place(x->s, &k), &k, w, first, score, margin);
        }
        if (is_clear(sum->near, score, margin)) return sum->near += score, TF_STATUS_OK;
        x->s->token_count = first;
    }
    add_up(x, sum);
    score = sum->exact;
    status = find_word(x, w, &score, NULL);
    *sum = (total){.near = score, .exact = score, .at = x->s->token_count};
    return status;
}

/* The code points [begin, end) of the normal form into s->points behind `prefix` marks, with `mark` for a space. */
static tf_status read_points(tfi_scratch *s, size_t begin, size_t end, uint32_t prefix, uint32_t mark)
{
    const tf_status status = reserve_points(s, end - begin + 2);
    uint32_t *points = s->points, size;

    if (status < 0) return status;
    if (prefix) *points++ = mark;
    for (size_t i = begin; i < end; i++) {
        const uint32_t c = tfi_utf8_decode(s->normal + s->chars[i].at, &size);
        *points++ = c == ' ' ? mark : c;
    }
    *points = TFI_POINT_END;
    return TF_STATUS_OK;
}

/* The code points [begin, end) as one piece, spaces read as `mark` and one more in front with a prefix. */
static tf_status chars_piece(tfi_reading *x, size_t begin, size_t end, uint32_t prefix, uint32_t mark)
{
    tfi_scratch *s = x->s;
    const tf_status status = read_points(s, begin, end, prefix, mark);

    if (status < 0) return status;
    tfi_passage p = {
        .points = s->points, .count = (uint32_t)(end - begin) + prefix, .prefix = prefix, .chars = s->chars + begin};
    double score = 0;
    const tf_status found = tfi_best_way(x, &p, &score, NULL);
    x->word++;
    return found;
}

tf_status tfi_unigram_word(tfi_reading *x, size_t begin, size_t end)
{
    return chars_piece(x, begin, end, 0, ' ');
}

/* From the normal form to pieces. */

static inline int is_mark(const tf_tokenizer *t, const tfi_scratch *s, size_t i)
{
    const tfi_unigram *u = &t->unigram;
    const uint8_t *c = s->normal + s->chars[i].at;

    return *c == ' ' || (*c == u->mark_text[0] && memcmp(c, u->mark_text, u->mark_size) == 0);
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
        status = chars_piece(x, i, next, (uint32_t)prepend, u->has_mark ? u->mark : ' ');
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
    return chars_piece(x, 0, s->char_count, 0, ' ');
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

/* The code points that the map has for the one at `at`, onto s->points. *count counts them. */
static tf_status map_point(const tfi_reading *x, uint32_t at, uint32_t *count)
{
    uint32_t size, c_size;
    const uint8_t *new = changed(&x->t->unigram, x->text, at, &size);
    const uint32_t new_size = (uint32_t)strlen((const char *)new);
    const tf_status status = reserve_points(x->s, (size_t)*count + new_size + 1);

    for (uint32_t i = 0; i < new_size && status == TF_STATUS_OK; i += c_size)
        x->s->points[(*count)++] = tfi_utf8_decode(new + i, &c_size);
    return status;
}

static inline uint32_t flags_of(const tfi_unigram *u, uint32_t c)
{
    return c < TFI_FIRST_COUNT ? u->stems.first[c] >> TFI_STEM_BITS : TFI_POINT_SLOW;
}

/* May what is at `at` be taken by itself, whatever comes behind it, which has `size` bytes? */
static int parts_behind(const tfi_unigram *u, const uint8_t *text, uint32_t at, uint32_t end)
{
    uint32_t size;

    if (at == end || text[at] < 128) return 1;
    const uint32_t c = tfi_utf8_decode(text + at, &size);
    return c < TFI_FIRST_COUNT && !(flags_of(u, c) & TFI_POINT_JOINS);
}

/* Is at `at` a space, or what becomes one, that may be taken by itself? *size gets its bytes. */
static inline int is_space(const tfi_unigram *u, const uint8_t *text, uint32_t at, uint32_t end, uint32_t *size)
{
    return flags_of(u, tfi_utf8_decode(text + at, size)) & TFI_POINT_SPACE && parts_behind(u, text, at + *size, end);
}

/* What read_word() does with the code point at `at`, which asks for something, behind that at `before`: -1 if it ends the
 * short way, 0 if it is changed or ends the word, 1 if it stays as it is. */
static int take_special(const tfi_reading *x, uint32_t flags, uint32_t before, uint32_t at, uint32_t size, uint32_t end)
{
    const tfi_unigram *u = &x->t->unigram;

    if (flags & TFI_POINT_SLOW) return -1;
    if (flags & TFI_POINT_SECOND && before < at && is_changed(u, x->text, before, end)) return -1;
    if (flags & (TFI_POINT_MAPPED | TFI_POINT_SPACE)) return parts_behind(u, x->text, at + size, end) ? 0 : -1;
    return 1;
}

/* Read the word at `at`, up to where the text ends or a space is, into s->points behind its prefix. Its end is `at` if the
 * normalizer does more to it than the short way knows. */
static tf_status read_word(const tfi_reading *x, uint32_t at, uint32_t end, word *w)
{
    const uint32_t *first = x->t->unigram.stems.first;
    tfi_scratch *s = x->s;
    const uint8_t *text = x->text;
    uint32_t n = w->prefix, stop = at, before = at, size, chars = 0;
    tf_status status = reserve_points(s, 64);

    if (status < 0) return status;
    s->points[0] = x->t->unigram.mark;
    w->begin = w->end = at;
    w->left = end - at;
    w->is_together = 0;
    for (; stop < end; before = stop, stop += size, chars++) {
        const uint32_t c = tfi_utf8_decode(text + stop, &size);
        if (c >= TFI_FIRST_COUNT) return TF_STATUS_OK;
        const uint32_t flags = first[c] >> TFI_STEM_BITS;
        if (n + 1 >= s->point_capacity && (status = reserve_points(s, (size_t)n + 2)) < 0) return status;
        s->points[n] = c;
        if (!(flags & TFI_POINT_ASKED)) {
            n++;
            continue;
        }
        const int taken = take_special(x, flags, before, stop, size, end);
        if (taken < 0) return TF_STATUS_OK;
        if (flags & TFI_POINT_SPACE) break;
        w->is_together |= (flags & TFI_POINT_SECOND) != 0;
        if (taken) n++;
        else if ((status = map_point(x, stop, &n)) < 0) return status;
    }
    s->points[n] = TFI_POINT_END;
    w->end = stop;
    w->chars = chars;
    w->points = n;
    return TF_STATUS_OK;
}

/* The word at `at` if it is a known one up to U+0020, that may be taken by itself, or to where the text ends; else NULL. What the map does to
 * it need not be looked at again. */
static inline const tfi_word *known_word(const tfi_reading *x, uint32_t at, uint32_t end, uint32_t prefix)
{
    const tfi_unigram *u = &x->t->unigram;
    const key k = cut_key(x->text + at, end - at);
    const tfi_word *known = word_place(x->s, &k);
    const uint32_t stop = at + k.size;

    if (k.size == 0 || !is_same(known, &k) || known->prefix != prefix || known->is_together || !u->has_spaces) return NULL;
    if (stop < end && (x->text[stop] != ' ' || !parts_behind(u, x->text, stop + 1, end))) return NULL;
    return known;
}

/* libsentencepiece's rules for words that take the short way, with spaces between them; *done: they were. */
static tf_status spm_words(tfi_reading *x, uint32_t begin, uint32_t end, int *done)
{
    const tfi_unigram *u = &x->t->unigram;
    const size_t first = x->s->token_count;
    const uint32_t chars = x->chars;
    word w = {.prefix = 1};
    total sum = {.at = first};
    int any = 0;
    tf_status status = own_words(x->t, x->s);

    *done = 0;
    for (uint32_t at = begin, size; at < end && status == TF_STATUS_OK; at = w.end) {
        for (; at < end && is_space(u, x->text, at, end, &size); at += size, x->chars++) {
            w.gap += any ? size : 0;
            w.gap_chars += any ? 1 : 0;
        }
        if ((*done = at == end)) break;
        const tfi_word *known = known_word(x, at, end, w.prefix);
        if (x->s->token_count - sum.at >= NEAR_TOKENS) add_up(x, &sum);
        if (known && is_small(u, &sum, TFI_WORD_POINTS) && is_clear(sum.near, known->score, known->margin)) {
            w.begin = at;
            w.end = at + known->size;
            w.chars = known->chars;
            sum.near += known->score;
            status = put_known(x, known, &w);
        } else {
            if ((status = read_word(x, at, end, &w)) < 0 || w.end == at) break;
            status = put_spm_word(x, &w, &sum);
        }
        x->chars += w.chars;
        *done = any = 1;
        w.gap = w.gap_chars = 0;
    }
    if (status == TF_STATUS_OK && !*done) {
        x->s->token_count = first;
        x->chars = chars;
    }
    x->word += *done && any;
    return status;
}

/* By tokenizers' rules, the word at `at` if it takes the short way; else *stop is `at`. */
static tf_status short_word(tfi_reading *x, uint32_t at, uint32_t end, word *w, uint32_t *stop)
{
    const tfi_word *known = known_word(x, at, end, w->prefix);
    tf_status status;

    *stop = at;
    if (known) {
        w->begin = at;
        w->end = at + known->size;
        w->chars = known->chars;
        status = put_known(x, known, w);
    } else {
        if ((status = read_word(x, at, end, w)) < 0 || w->end == at) return status;
        status = put_word(x, w);
    }
    x->chars += w->chars;
    x->word++;
    *stop = w->end;
    return status;
}

/* Words by tokenizers' rules, and what takes the long way between them. */
static tf_status words(tfi_reading *x, uint32_t begin, uint32_t end)
{
    const tfi_unigram *u = &x->t->unigram;
    const int is_plain = u->has_words && x->t->folded.count == 0;
    uint32_t size;
    word w = {0};
    tf_status status = is_plain ? own_words(x->t, x->s) : TF_STATUS_OK;

    for (uint32_t at = begin, stop; at < end && status == TF_STATUS_OK; at = stop) {
        if (is_plain && is_space(u, x->text, at, end, &size)) {
            stop = at + size;
            x->chars++;
            continue;
        }
        w.prefix = u->prepend == TFI_PREPEND_ALWAYS || (u->prepend == TFI_PREPEND_FIRST && at == 0);
        if (is_plain && ((status = short_word(x, at, end, &w, &stop)) < 0 || stop > at)) continue;
        stop = cut_end(x->t, x->text, begin, at, end);
        status = normal_part(x, begin, end, at, &stop);
    }
    return status;
}

tf_status tfi_unigram_segment(tfi_reading *x, uint32_t begin, uint32_t end)
{
    int done = 0;
    tf_status status = TF_STATUS_OK;

    if (!x->t->unigram.is_spm) return words(x, begin, end);
    if (x->t->unigram.has_words) status = spm_words(x, begin, end, &done);
    return status < 0 || done ? status : spm_segment(x, begin, end);
}
