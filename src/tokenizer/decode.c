/* Ids to text, all at once or one after the other: a call of tf_tokenizer_decode is a stream that is opened, fed and finished.
 *
 * A token's string goes through decoder.c's stages, or, by libsentencepiece's and ByT5's rules, which look at ids, through what is
 * here; then through the cleaning up of spaces. Each of these holds back what it cannot decide before more is seen: an unfinished
 * character, a space that may go. So a stream gives the text of the whole, whole characters at a time. */
#include <string.h>

#include "base/options.h"
#include "base/status.h"
#include "tokenizer/decoder.h"

enum { RULES = 10, RULE_BYTES = 4, CHAR_BYTES = 4, HELD_BYTES = RULES * RULE_BYTES + CHAR_BYTES };

typedef struct replacement {
    const char *from, *to; /* `to` is never longer */
} replacement;

/* Of clean_up_tokenization, for the whole text, one after the other. Each begins with a space and has at most RULE_BYTES. */
static const replacement text_clean[RULES] = {{" .", "."},     {" ?", "?"},   {" !", "!"},   {" ,", ","},     {" ' ", "'"},
                                              {" n't", "n't"}, {" 'm", "'m"}, {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"}};

/* What a rule has seen and not yet passed on: the begin of its `from`. */
typedef struct held {
    char data[RULE_BYTES];
    uint32_t size;
} held;

struct tf_stream {
    tfi_memory memory; /* of a stream that was opened */
    const tf_tokenizer *t;
    tf_decode_options options;
    char *data; /* text that is ready */
    size_t size, capacity;
    tfi_decoding decoding; /* a tokenizer.json's decoders, or a class's */
    char *token;           /* a token's text, by the other rules */
    size_t token_size, token_capacity;
    uint8_t unfinished[CHAR_BYTES]; /* bytes that may become a character */
    uint32_t unfinished_size;
    held held[RULES];
    int is_holding; /* some rule holds something */
    int is_begun;   /* libsentencepiece: there was a token that had text */
};

/* Cleaning up. */

static void out_byte(tf_stream *s, char byte, int rule)
{
    for (; rule < RULES; rule++) {
        held *h = &s->held[rule];
        const replacement *r = &text_clean[rule];
        if (h->size == 0 && byte != ' ') continue;
        h->data[h->size++] = byte;
        s->is_holding = 1;
        while (h->size && memcmp(h->data, r->from, h->size) != 0) { /* not its begin: the first byte stays as it is */
            out_byte(s, h->data[0], rule + 1);
            memmove(h->data, h->data + 1, --h->size);
        }
        if (h->size && !r->from[h->size]) {
            h->size = 0;
            for (const char *p = r->to; *p; p++) out_byte(s, *p, rule + 1);
        }
        return;
    }
    s->data[s->size++] = byte;
}

static void out_text(tf_stream *s, const char *text, size_t size)
{
    size_t i = 0;

    if (!s->options.clean_up || s->t->never_cleans) {
        memcpy(s->data + s->size, text, size);
        s->size += size;
        return;
    }
    while (i < size) {
        while (i < size && (s->is_holding || text[i] == ' ')) {
            out_byte(s, text[i++], 0);
            if (!s->is_holding) continue;
            s->is_holding = 0;
            for (int k = 0; k < RULES; k++) s->is_holding |= s->held[k].size > 0;
        }
        for (; i < size && text[i] != ' '; i++) s->data[s->size++] = text[i];
    }
}

/* No more is to come. */
static void release_held(tf_stream *s)
{
    for (int rule = 0; rule < RULES; rule++) {
        held h = s->held[rule];
        s->held[rule].size = 0;
        for (uint32_t i = 0; i < h.size; i++) out_byte(s, h.data[i], rule + 1);
    }
    s->is_holding = 0;
}

/* The sink of the stages. */
static tf_status take_text(void *user, const char *text, size_t size)
{
    tf_stream *s = user;
    const tf_status status =
        tfi_reserve(s->decoding.memory, (void **)&s->data, &s->capacity, s->size + size + 2 * HELD_BYTES, 1);

    if (status == TF_STATUS_OK) out_text(s, text, size);
    return status;
}

/* Bytes to characters. Of a wrong part libsentencepiece makes U+FFFD for each byte, ByT5 nothing. */

static void out_bad(tf_stream *s, size_t bytes)
{
    const size_t marks = s->t->decoder == TFI_DECODER_SPM ? bytes : 0;

    for (size_t i = 0; i < marks; i++) out_text(s, "\xef\xbf\xbd", 3);
}

/* Bytes that waited for more of their character stay without. */
static void release_unfinished(tf_stream *s)
{
    if (s->unfinished_size) out_bad(s, s->unfinished_size);
    s->unfinished_size = 0;
}

/* Might these bytes be the begin of a character? */
static int is_begin(const uint8_t *data, uint32_t size)
{
    uint32_t bad = 0;

    if (data[0] < 0xc2 || data[0] > 0xf4 || size >= (data[0] < 0xe0 ? 2u : data[0] < 0xf0 ? 3u : 4u)) return 0;
    return tfi_utf8_valid(data, size, &bad) == 0 && bad == size; /* the wrong part of a cut-off character is all of it */
}

static void out_bytes(tf_stream *s, const uint8_t *data, size_t size)
{
    for (size_t i = 0; i < size;) {
        uint32_t bad = 0;
        size_t good;
        if (s->unfinished_size == 0 && (good = tfi_utf8_valid(data + i, size - i, &bad)) > 0) {
            out_text(s, (const char *)data + i, good);
            i += good;
            continue;
        }
        s->unfinished[s->unfinished_size++] = data[i++];
        while (s->unfinished_size && !is_begin(s->unfinished, s->unfinished_size)) {
            good = tfi_utf8_valid(s->unfinished, s->unfinished_size, &bad);
            if (good > 0) out_text(s, (const char *)s->unfinished, good);
            else out_bad(s, bad), good = bad;
            s->unfinished_size -= (uint32_t)good;
            memmove(s->unfinished, s->unfinished + good, s->unfinished_size);
        }
    }
}

/* Tokens to text, in s->token, or bytes. */

static void token_append(tf_stream *s, const char *text, size_t size)
{
    memcpy(s->token + s->token_size, text, size);
    s->token_size += size;
}

/* The token with a space for each mark in it. */
static void token_spaces(tf_stream *s, const char *token, size_t size)
{
    const tfi_unigram *u = &s->t->unigram;

    for (size_t at = 0; at < size;) {
        if (size - at >= u->mark_size && memcmp(token + at, u->mark_text, u->mark_size) == 0) {
            s->token[s->token_size++] = ' ';
            at += u->mark_size;
        } else {
            s->token[s->token_size++] = token[at++];
        }
    }
}

/* libsentencepiece: a space at the begin goes, one of each token until there is text. */
static void token_spm(tf_stream *s, int32_t id, const char *token, size_t size)
{
    const tf_tokenizer *t = s->t;
    const tfi_unigram *u = &t->unigram;
    const size_t mark = u->mark_size;

    if (id == u->unk_id) {
        token_append(s, u->unk_surface, u->unk_surface_size);
    } else if (!s->is_begun && (u->dummy_prefix || u->remove_extra_spaces) && size >= mark &&
               memcmp(token, u->mark_text, mark) == 0) {
        token_spaces(s, token + mark, size - mark);
        s->is_begun = !u->remove_extra_spaces;
    } else {
        token_spaces(s, token, size);
    }
    s->is_begun |= s->token_size > 0;
}

/* Is the token one of byte fallback's, <0x00> to <0xFF>? */
static int is_byte(const tf_tokenizer *t, int32_t id, uint8_t *byte)
{
    const char *token = t->text + t->text_begin[id];

    if (!t->unigram.byte_fallback || t->text_begin[id + 1] - t->text_begin[id] != sizeof "<0x00>") return 0;
    if (memcmp(token, "<0x", 3) != 0) return 0;
    for (int i = 0; i < 256; i++)
        if (t->unigram.byte_id[i] == id) return *byte = (uint8_t)i, 1;
    return 0;
}

static tf_status stream_reserve(tf_stream *s, tfi_memory *memory, size_t token_size)
{
    /* A byte of a token, or one that was held back, is at most three bytes of U+FFFD. */
    const size_t most = 3 * (token_size + 1) + 3 * HELD_BYTES;
    const tf_status status = tfi_reserve(memory, (void **)&s->token, &s->token_capacity, token_size + 2, 1);

    return status < 0 ? status : tfi_reserve(memory, (void **)&s->data, &s->capacity, s->size + most, 1);
}

static size_t token_size(const tf_tokenizer *t, int32_t id)
{
    const size_t size = t->text_begin[id + 1] - t->text_begin[id] - 1;
    return size > t->unigram.unk_surface_size ? size : t->unigram.unk_surface_size;
}

/* The text or bytes of a token, in s->token, where there is room for it. */
static void token_read(tf_stream *s, int32_t id)
{
    const tf_tokenizer *t = s->t;
    const char *token = t->text + t->text_begin[id];
    const size_t size = t->text_begin[id + 1] - t->text_begin[id] - 1;

    s->token_size = 0;
    if (t->decoder == TFI_DECODER_SPM) token_spm(s, id, token, size);
    else if (id >= TFI_BYT5_FIRST && id < TFI_BYT5_IDS) s->token[s->token_size++] = (char)(id - TFI_BYT5_FIRST);
    else token_append(s, token, size);
}

/* Append what a token adds to the text that is ready; by libsentencepiece's and ByT5's rules there is room for it. */
static tf_status push(tf_stream *s, int32_t id)
{
    const tf_tokenizer *t = s->t;
    const int is_spm = t->decoder == TFI_DECODER_SPM;
    const int skips = s->options.skip_special_tokens && t->token_flags[id] & TFI_TOKEN_SPECIAL;
    uint8_t byte;

    if (is_spm && is_byte(t, id, &byte)) {
        s->is_begun = 1;
        out_bytes(s, &byte, 1);
        return TF_STATUS_OK;
    }
    if (is_spm) release_unfinished(s); /* only bytes side by side make a character */
    if (!(t->token_flags[id] & TFI_TOKEN_PRESENT) || (skips && !(is_spm && id == t->unigram.unk_id))) return TF_STATUS_OK;
    if (t->decoder == TFI_DECODER_PARTS)
        return tfi_decoding_token(&s->decoding, t->text + t->text_begin[id], t->text_begin[id + 1] - t->text_begin[id] - 1);
    token_read(s, id);
    if (t->decoder == TFI_DECODER_BYT5) out_bytes(s, (const uint8_t *)s->token, s->token_size);
    else out_text(s, s->token, s->token_size);
    return TF_STATUS_OK;
}

static tf_status finish(tf_stream *s)
{
    const tf_status status = s->t->decoder == TFI_DECODER_PARTS ? tfi_decoding_end(&s->decoding) : TF_STATUS_OK;

    if (status < 0) return status;
    release_unfinished(s);
    release_held(s);
    return TF_STATUS_OK;
}

static void restart(tf_stream *s)
{
    s->size = s->unfinished_size = 0;
    s->is_begun = s->is_holding = 0;
    memset(s->held, 0, sizeof s->held);
    tfi_decoding_restart(&s->decoding);
}

/* The calls. */

static tf_status read_options(const tf_tokenizer *t, const tf_decode_options *options, tf_decode_options *o)
{
    tf_status status;

    tf_decode_options_init(o);
    if ((status = tfi_options_read(o, sizeof *o, options, "tf_decode_options")) < 0) return status;
    if (o->skip_special_tokens == TF_UNSET) o->skip_special_tokens = 0;
    if (o->clean_up == TF_UNSET) o->clean_up = t->clean_up;
    if ((o->skip_special_tokens & ~1) != 0 || (o->clean_up & ~1) != 0)
        return tfi_fail(TF_STATUS_INVALID, "tf_decode_options: skip_special_tokens is %d, clean_up is %d; each is 0 or 1",
                        (int)o->skip_special_tokens, (int)o->clean_up);
    return TF_STATUS_OK;
}

/* Where a piece goes. */
typedef struct piece_out {
    char *data; /* NULL: only the size is asked for */
    int64_t size, capacity;
} piece_out;

static tf_status take_piece(void *user, const char *text, size_t size)
{
    piece_out *out = user;

    if (out->data && (int64_t)size > out->capacity - out->size)
        return tfi_fail(TF_STATUS_TOO_SMALL, "a token of more than the %lld bytes there is room for", (long long)out->capacity);
    if (out->data && size) memcpy(out->data + out->size, text, size);
    out->size += (int64_t)size;
    return TF_STATUS_OK;
}

tf_status tfi_pieces_open(tfi_decoding *d, const tf_tokenizer *t, tfi_memory *memory)
{
    tfi_decoding_init(d, t, memory, take_piece, NULL);
    d->is_piece = 1;
    return tfi_decoding_reserve(d, t->token_size_max);
}

static tf_status decoded_piece(tfi_decoding *d, const tf_tokenizer *t, int32_t id, piece_out *out)
{
    d->user = out;
    return tfi_decoding_token(d, t->text + t->text_begin[id], t->text_begin[id + 1] - t->text_begin[id] - 1);
}

int64_t tfi_tokenizer_piece_max(const tf_tokenizer *t)
{
    const int grows = t->decoder == TFI_DECODER_PARTS && tfi_decoders_grow(t);
    int64_t longest = 0;
    tfi_decoding d;

    tfi_decoding_init(&d, t, t->memory, take_piece, NULL);
    d.is_piece = 1;
    for (int32_t id = 0; id < t->vocab_size; id++) {
        piece_out out = {0};
        if (grows) (void)decoded_piece(&d, t, id, &out); /* what fails has no piece either */
        if (out.size > longest) longest = out.size;
        if ((int64_t)token_size(t, id) > longest) longest = (int64_t)token_size(t, id);
    }
    tfi_decoding_close(&d);
    return longest + 1; /* a space before it */
}

tf_status tfi_tokenizer_piece(tfi_decoding *d, const tf_tokenizer *t, int32_t id, char *out, int64_t capacity, int64_t *size)
{
    tf_stream s = {.t = t, .token = out, .is_begun = 1};
    uint8_t byte;

    *size = 0;
    if (id < 0 || id >= t->vocab_size || !(t->token_flags[id] & TFI_TOKEN_PRESENT)) return TF_STATUS_OK;
    if (capacity < (int64_t)token_size(t, id) + 1)
        return tfi_fail(TF_STATUS_TOO_SMALL, "token %d may add %zu bytes, there is room for %lld", (int)id,
                        token_size(t, id) + 1, (long long)capacity);
    if (t->decoder == TFI_DECODER_PARTS) {
        piece_out to = {.data = out, .capacity = capacity};
        const tf_status status = decoded_piece(d, t, id, &to);
        if (status == TF_STATUS_OK) *size = to.size;
        return status;
    }
    if (t->decoder == TFI_DECODER_SPM && is_byte(t, id, &byte)) s.token[s.token_size++] = (char)byte;
    else token_read(&s, id);
    *size = (int64_t)s.token_size;
    return TF_STATUS_OK;
}

static tf_status decode(tf_stream *s, tfi_memory *memory, const int32_t *ids, int64_t count)
{
    const tf_tokenizer *t = s->t;
    tf_status status;

    for (int64_t i = 0; i < count; i++) {
        if (ids[i] < 0 || ids[i] >= t->vocab_size)
            return tfi_fail(TF_STATUS_INVALID, "ids[%lld] is %d, outside the vocabulary of %d", (long long)i, (int)ids[i],
                            (int)t->vocab_size);
        if ((status = stream_reserve(s, memory, token_size(t, ids[i]))) < 0) return status;
        if ((status = push(s, ids[i])) < 0) return status;
    }
    if ((status = stream_reserve(s, memory, 0)) < 0) return status;
    return finish(s);
}

static void stream_free(tf_stream *s, tfi_memory *memory)
{
    tfi_decoding_close(&s->decoding);
    tfi_free(memory, s->data, s->capacity);
    tfi_free(memory, s->token, s->token_capacity);
}

tf_status tf_tokenizer_decode(const tf_tokenizer *t, const int32_t *ids, int64_t count, const tf_decode_options *options,
                              char *text, int64_t capacity, int64_t *size)
{
    tf_stream s = {.t = t};
    tf_status status;

    if (!t || !size) return tfi_fail(TF_STATUS_INVALID, "tokenizer and size must not be NULL");
    *size = 0;
    if (count < 0 || (count > 0 && !ids) || capacity < 0 || (capacity > 0 && !text))
        return tfi_fail(TF_STATUS_INVALID, "count is %lld, capacity is %lld, ids or text may be NULL only if theirs is 0",
                        (long long)count, (long long)capacity);
    if ((status = read_options(t, options, &s.options)) < 0) return status;
    tfi_decoding_init(&s.decoding, t, t->memory, take_text, &s);
    if ((status = decode(&s, t->memory, ids, count)) == TF_STATUS_OK) {
        *size = (int64_t)s.size;
        if (*size > capacity)
            status = tfi_fail(TF_STATUS_TOO_SMALL, "the text has %lld bytes, the buffer %lld", (long long)*size,
                              (long long)capacity);
        else if (s.size > 0) memcpy(text, s.data, s.size);
    }
    stream_free(&s, t->memory);
    return status;
}

tf_status tf_stream_open(const tf_tokenizer *t, const tf_decode_options *options, tf_stream **out)
{
    tf_decode_options o;
    tfi_memory memory;
    tf_stream *s;
    tf_status status;

    if (!t || !out) return tfi_fail(TF_STATUS_INVALID, "tokenizer and out must not be NULL");
    *out = NULL;
    if ((status = read_options(t, options, &o)) < 0) return status;
    tfi_memory_init(&memory, &t->memory->hooks, TF_UNSET);
    if (!(s = tfi_zalloc(&memory, sizeof *s))) return TF_STATUS_NOMEM;
    tfi_memory_init(&s->memory, &t->memory->hooks, TF_UNSET);
    s->t = t;
    s->options = o;
    tfi_decoding_init(&s->decoding, t, &s->memory, take_text, s);
    if ((status = stream_reserve(s, &s->memory, t->token_size_max)) < 0 ||
        (status = tfi_decoding_reserve(&s->decoding, t->token_size_max)) < 0)
        tf_stream_close(s);
    else *out = s;
    return status;
}

tf_status tf_stream_push(tf_stream *s, int32_t id, const char **text, int64_t *size)
{
    if (!s || !text || !size) return tfi_fail(TF_STATUS_INVALID, "stream, text and size must not be NULL");
    s->size = 0;
    *text = s->data;
    *size = 0;
    if (id < 0 || id >= s->t->vocab_size)
        return tfi_fail(TF_STATUS_INVALID, "id is %d, outside the vocabulary of %d", (int)id, (int)s->t->vocab_size);
    const tf_status status = push(s, id);
    *text = s->data;
    *size = (int64_t)s->size;
    return status;
}

tf_status tf_stream_finish(tf_stream *s, const char **text, int64_t *size)
{
    if (!s || !text || !size) return tfi_fail(TF_STATUS_INVALID, "stream, text and size must not be NULL");
    s->size = 0;
    const tf_status status = finish(s);
    *text = s->data;
    *size = (int64_t)s->size;
    restart(s);
    return status;
}

void tf_stream_reset(tf_stream *s)
{
    if (s) restart(s);
}

void tf_stream_close(tf_stream *s)
{
    tfi_memory memory;

    if (!s) return;
    stream_free(s, &s->memory);
    tfi_memory_init(&memory, &s->memory.hooks, TF_UNSET);
    tfi_free(&memory, s, sizeof *s);
}
