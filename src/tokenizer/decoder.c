#include "tokenizer/decoder.h"

#include <string.h>

#include "base/json.h"
#include "base/status.h"

enum { GROWTH_MAX = 64, GROWTH_FREE = 4096 }; /* a file may ask for any, part after part */

/* Buffers. */

static tf_status append(const tfi_stage *s, tfi_buffer *b, const char *text, size_t size)
{
    if (b == &s->out && b->size + size > s->out_limit)
        return tfi_fail(TF_STATUS_INVALID, "a decoder makes more than %d times as much of a text", GROWTH_MAX);
    const tf_status status = tfi_reserve(s->decoding->memory, (void **)&b->data, &b->capacity, b->size + size, 1);

    if (status < 0) return status;
    if (size) memcpy(b->data + b->size, text, size);
    b->size += size;
    return TF_STATUS_OK;
}

/* Append the text with all of `from` replaced; an empty one is found before each character and at the end. */
static tf_status append_replaced(const tfi_stage *s, tfi_buffer *b, const char *text, size_t size, tfi_string from,
                                 tfi_string to)
{
    size_t at = 0;
    uint32_t n;
    tf_status status = TF_STATUS_OK;

    while (at < size && status == TF_STATUS_OK) {
        if (from.size == 0) {
            if ((status = append(s, b, to.data, to.size)) < 0) return status;
        } else if (size - at >= from.size && memcmp(text + at, from.data, from.size) == 0) {
            status = append(s, b, to.data, to.size);
            at += from.size;
            continue;
        }
        tfi_utf8_decode((const uint8_t *)text + at, &n);
        status = append(s, b, text + at, n);
        at += n;
    }
    return status < 0 || from.size ? status : append(s, b, to.data, to.size);
}

/* WordPiece's cleaning up, of a token with the space before it; none is longer than what it replaces. */
static void clean(tfi_buffer *b)
{
    static const struct {
        const char *from, *to;
    } rules[] = {{" .", "."},   {" ?", "?"},           {" !", "!"},   {" ,", ","},     {" ' ", "'"},   {" n't", "n't"},
                 {" 'm", "'m"}, {" do not", " don't"}, {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"}};

    for (size_t i = 0; i < sizeof rules / sizeof rules[0]; i++) {
        const size_t from = strlen(rules[i].from), to = strlen(rules[i].to);
        size_t out = 0;
        for (size_t at = 0; at < b->size;) {
            if (b->data[at] == ' ' && b->size - at >= from && memcmp(b->data + at, rules[i].from, from) == 0) {
                memcpy(b->data + out, rules[i].to, to);
                out += to;
                at += from;
            } else {
                b->data[out++] = b->data[at++];
            }
        }
        b->size = out;
    }
}

/* Stages. */

static tf_status feed(tfi_stage *s, const char *text, size_t size, tfi_chunk chunk);

static tf_status emit(const tfi_stage *s, const char *text, size_t size, tfi_chunk chunk)
{
    tfi_decoding *d = s->decoding;

    if (s + 1 < d->stages + d->count) return feed(&d->stages[s - d->stages + 1], text, size, chunk);
    return size ? d->sink(d->user, text, size) : TF_STATUS_OK;
}

static tf_status emit_out(tfi_stage *s)
{
    return emit(s, s->out.data, s->out.size, TFI_CHUNK_LAST);
}

static tf_status feed(tfi_stage *s, const char *text, size_t size, tfi_chunk chunk)
{
    const tf_status status = s->part->kind->decode(s, text, size, chunk);

    if (chunk == TFI_CHUNK_LAST) s->tokens++;
    if (status < 0 || chunk != TFI_CHUNK_END) return status;
    s->tokens = 0;
    s->token.size = s->kept.size = 0;
    s->stripped = 0;
    s->unfinished_size = 0;
    return emit(s, NULL, 0, TFI_CHUNK_END);
}

/* Collect the chunks of a token; 1 once *text and *size are all of it. */
static int gather(tfi_stage *s, const char **text, size_t *size, int chunk, tf_status *status)
{
    *status = TF_STATUS_OK;
    if (chunk == TFI_CHUNK_END) return 0;
    if (chunk == TFI_CHUNK_PART || s->token.size > 0) {
        if ((*status = append(s, &s->token, *text, *size)) < 0 || chunk == TFI_CHUNK_PART) return 0;
        *text = s->token.data;
        *size = s->token.size;
        s->token.size = 0;
    }
    s->out.size = 0;
    s->out_limit = GROWTH_MAX * *size + GROWTH_FREE;
    return 1;
}

/* Strings with a space between: what a tokenizer without a decoder does. */
static tf_status join(tfi_stage *s, const char *text, size_t size, int chunk)
{
    if (chunk == TFI_CHUNK_END) return TF_STATUS_OK;
    if (s->tokens > 0) {
        const tf_status status = emit(s, " ", 1, TFI_CHUNK_PART);
        if (status < 0) return status;
    }
    return emit(s, text, size, TFI_CHUNK_LAST);
}

static const tfi_part_kind join_kind = {.decode = join};
static const tfi_part join_part = {.kind = &join_kind};

/* WordPiece. */
static tf_status decode_pieces(tfi_stage *s, const char *text, size_t size, int chunk)
{
    const tfi_string prefix = s->part->from;
    tf_status status;

    if (!gather(s, &text, &size, chunk, &status)) return status;
    if (s->tokens > 0) {
        if (size >= prefix.size && memcmp(text, prefix.data, prefix.size) == 0) {
            text += prefix.size;
            size -= prefix.size;
        } else if ((status = append(s, &s->out, " ", 1)) < 0) {
            return status;
        }
    }
    if ((status = append(s, &s->out, text, size)) < 0) return status;
    if (s->part->cleans) clean(&s->out);
    return emit_out(s);
}

/* ByteLevel: spelled bytes, joined, read as UTF-8; a wrong part becomes U+FFFD. */

static tf_status emit_bad(const tfi_stage *s)
{
    return emit(s, "\xef\xbf\xbd", 3, TFI_CHUNK_PART);
}

/* Might these bytes be the begin of a character? */
static int is_begin(const uint8_t *data, uint32_t size)
{
    uint32_t bad = 0;

    if (data[0] < 0xc2 || data[0] > 0xf4 || size >= (data[0] < 0xe0 ? 2u : data[0] < 0xf0 ? 3u : 4u)) return 0;
    return tfi_utf8_valid(data, size, &bad) == 0 && bad == size; /* the wrong part of a cut-off character is all of it */
}

static tf_status emit_bytes(tfi_stage *s, const uint8_t *data, size_t size)
{
    tf_status status = TF_STATUS_OK;

    for (size_t i = 0; i < size && status == TF_STATUS_OK;) {
        uint32_t bad = 0;
        size_t good;
        if (s->unfinished_size == 0 && (good = tfi_utf8_valid(data + i, size - i, &bad)) > 0) {
            status = emit(s, (const char *)data + i, good, TFI_CHUNK_PART);
            i += good;
            continue;
        }
        s->unfinished[s->unfinished_size++] = data[i++];
        while (s->unfinished_size && !is_begin(s->unfinished, s->unfinished_size) && status == TF_STATUS_OK) {
            good = tfi_utf8_valid(s->unfinished, s->unfinished_size, &bad);
            status = good > 0 ? emit(s, (const char *)s->unfinished, good, TFI_CHUNK_PART) : emit_bad(s);
            if (good == 0) good = bad;
            s->unfinished_size -= (uint32_t)good;
            memmove(s->unfinished, s->unfinished + good, s->unfinished_size);
        }
    }
    return status;
}

/* The bytes that a token spells, in s->out; a token with a character that spells no byte stands for itself. */
static tf_status spelled(tfi_stage *s, const char *text, size_t size)
{
    const tf_status status = tfi_reserve(s->decoding->memory, (void **)&s->out.data, &s->out.capacity, size, 1);
    uint32_t n;

    if (status < 0) return status;
    for (size_t at = 0; at < size; at += n) {
        const int byte = tfi_spelled_byte(tfi_utf8_decode((const uint8_t *)text + at, &n));
        if (byte < 0) {
            s->out.size = 0;
            return append(s, &s->out, text, size);
        }
        s->out.data[s->out.size++] = (char)byte;
    }
    return TF_STATUS_OK;
}

static tf_status decode_bytes(tfi_stage *s, const char *text, size_t size, int chunk)
{
    tf_status status;

    if (chunk == TFI_CHUNK_END) {
        if (s->unfinished_size && (status = emit_bad(s)) < 0) return status;
        return emit(s, NULL, 0, TFI_CHUNK_LAST);
    }
    if (!gather(s, &text, &size, chunk, &status) || (status = spelled(s, text, size)) < 0) return status;
    return s->decoding->is_piece ? emit_out(s) : emit_bytes(s, (const uint8_t *)s->out.data, s->out.size);
}

/* ByteFallback: tokens <0x00> to <0xFF> side by side are bytes; if they are no text, each is U+FFFD. */

static int hex_value(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The byte of a token, or -1; the reference reads a sign, too. */
static int byte_of(const char *text, size_t size)
{
    if (size != 6 || memcmp(text, "<0x", 3) != 0 || text[5] != '>') return -1;
    const int high = text[3] == '+' ? 0 : hex_value(text[3]), low = hex_value(text[4]);
    return high < 0 || low < 0 ? -1 : high << 4 | low;
}

static tf_status flush_bytes(tfi_stage *s)
{
    const size_t size = s->kept.size;
    uint32_t bad;
    tf_status status = TF_STATUS_OK;

    if (size == 0) return TF_STATUS_OK;
    s->kept.size = 0;
    if (tfi_utf8_valid((const uint8_t *)s->kept.data, size, &bad) == size) return emit(s, s->kept.data, size, TFI_CHUNK_LAST);
    for (size_t i = 0; i < size && status == TF_STATUS_OK; i++) status = emit(s, "\xef\xbf\xbd", 3, TFI_CHUNK_LAST);
    return status;
}

static tf_status decode_fallback(tfi_stage *s, const char *text, size_t size, int chunk)
{
    tf_status status;

    if (chunk == TFI_CHUNK_END) return flush_bytes(s);
    if (!gather(s, &text, &size, chunk, &status)) return status;
    const int byte = byte_of(text, size);
    if (byte >= 0) {
        const char one = (char)byte;
        return s->decoding->is_piece ? emit(s, &one, 1, TFI_CHUNK_LAST) : append(s, &s->kept, &one, 1);
    }
    if ((status = flush_bytes(s)) < 0) return status;
    return emit(s, text, size, TFI_CHUNK_LAST);
}

static tf_status decode_fuse(tfi_stage *s, const char *text, size_t size, int chunk)
{
    if (s->decoding->is_piece) return chunk == TFI_CHUNK_END ? TF_STATUS_OK : emit(s, text, size, (tfi_chunk)chunk);
    return emit(s, text, size, chunk == TFI_CHUNK_END ? TFI_CHUNK_LAST : TFI_CHUNK_PART);
}

/* Strip: of `start` and `stop` characters at the ends those that are the mark. */

static int is_mark(const tfi_part *part, const char *text, size_t size)
{
    return size >= part->mark_size && memcmp(text, part->mark_text, part->mark_size) == 0;
}

/* In a piece inside a text all tokens before it have been fused with it. */
static int is_inside(const tfi_stage *s)
{
    if (!s->decoding->is_piece) return 0;
    for (const tfi_stage *before = s; before > s->decoding->stages; before--)
        if (tfi_part_is(before[-1].part, "Fuse") || tfi_part_is(before[-1].part, "ByteLevel")) return 1;
    return 0;
}

static tf_status decode_strip(tfi_stage *s, const char *text, size_t size, int chunk)
{
    const tfi_part *part = s->part;
    tf_status status = TF_STATUS_OK;

    if (chunk == TFI_CHUNK_END || is_inside(s)) return chunk == TFI_CHUNK_END ? status : emit(s, text, size, (tfi_chunk)chunk);
    if (part->stop > 0 && !gather(s, &text, &size, chunk, &status)) return status;
    for (; s->stripped >= 0 && s->stripped < part->start && size > 0; s->stripped++) {
        if (!is_mark(part, text, size)) {
            s->stripped = -1;
            break;
        }
        text += part->mark_size;
        size -= part->mark_size;
    }
    for (int64_t i = 0;
         i < part->stop && size >= part->mark_size && is_mark(part, text + size - part->mark_size, part->mark_size); i++)
        size -= part->mark_size;
    if (chunk == TFI_CHUNK_LAST) s->stripped = 0;
    return emit(s, text, size, (tfi_chunk)chunk);
}

static tf_status decode_replace(tfi_stage *s, const char *text, size_t size, int chunk)
{
    tfi_finding f = {0};
    size_t done = 0;
    int found = 0;
    tf_status status;

    if (!gather(s, &text, &size, chunk, &status)) return status;
    while (size > 0) {
        status = tfi_pattern_next(s->part->pattern, &s->decoding->scratch, (const uint8_t *)text, size, &f, &found);
        if (status < 0) return status;
        if (!found) break;
        if ((status = append(s, &s->out, text + done, f.begin - done)) < 0) return status;
        if ((status = append(s, &s->out, s->part->to.data, s->part->to.size)) < 0) return status;
        done = f.end;
    }
    if ((status = append(s, &s->out, text + done, size - done)) < 0) return status;
    return emit_out(s);
}

/* Metaspace: a mark is a space; in the first token, where one was put before it, nothing. */
static tf_status decode_metaspace(tfi_stage *s, const char *text, size_t size, int chunk)
{
    const tfi_part *part = s->part;
    const tfi_string from = {(const char *)part->mark_text, part->mark_size};
    const tfi_string to = {" ", s->tokens > 0 || part->prepend == TFI_PREPEND_NEVER};
    tf_status status;

    if (!gather(s, &text, &size, chunk, &status)) return status;
    return (status = append_replaced(s, &s->out, text, size, from, to)) < 0 ? status : emit_out(s);
}

/* BPEDecoder: the end of a word is a space, of the last one nothing. */

static tf_status emit_kept(tfi_stage *s, const char *to)
{
    tf_status status;

    s->out.size = 0;
    s->out_limit = GROWTH_MAX * s->kept.size + GROWTH_FREE;
    status = append_replaced(s, &s->out, s->kept.data, s->kept.size, s->part->from, (tfi_string){to, (uint32_t)strlen(to)});
    s->kept.size = 0;
    return status < 0 ? status : emit_out(s);
}

static tf_status decode_suffix(tfi_stage *s, const char *text, size_t size, int chunk)
{
    tf_status status;

    if (chunk == TFI_CHUNK_END) return s->tokens > 0 ? emit_kept(s, "") : TF_STATUS_OK;
    if (!gather(s, &text, &size, chunk, &status)) return status;
    if (s->tokens > 0 && !s->decoding->is_piece && (status = emit_kept(s, " ")) < 0) return status;
    if ((status = append(s, &s->kept, text, size)) < 0) return status;
    return s->decoding->is_piece ? emit_kept(s, " ") : TF_STATUS_OK;
}

/* CTC: of equal tokens side by side one is left, without padding; empty ones go. */
static tf_status decode_ctc(tfi_stage *s, const char *text, size_t size, int chunk)
{
    const tfi_part *part = s->part;
    tf_status status;

    if (!gather(s, &text, &size, chunk, &status)) return status;
    if (s->tokens > 0 && s->kept.size == size && (size == 0 || memcmp(s->kept.data, text, size) == 0)) return TF_STATUS_OK;
    s->kept.size = 0;
    if ((status = append(s, &s->kept, text, size)) < 0) return status;
    if ((status = append_replaced(s, &s->out, text, size, part->from, (tfi_string){"", 0})) < 0) return status;
    if (part->cleans) {
        clean(&s->out);
        s->token.size = 0;
        if ((status = append_replaced(s, &s->token, s->out.data, s->out.size, part->to, (tfi_string){" ", 1})) < 0)
            return status;
        s->out.size = 0;
        if ((status = append(s, &s->out, s->token.data, s->token.size)) < 0) return status;
        s->token.size = 0;
    }
    return s->out.size ? emit_out(s) : TF_STATUS_OK;
}

/* Settings. */

static tf_status read_pieces(tf_tokenizer *t, const tfi_json *json, tfi_part *part)
{
    tf_status status;

    part->from = (tfi_string){"##", 2};
    part->cleans = 1;
    if ((status = tfi_part_string(t, json, "prefix", 0, &part->from)) < 0) return status;
    return tfi_json_bool(*json, "cleanup", &part->cleans);
}

static tf_status read_strip(tf_tokenizer *t, const tfi_json *json, tfi_part *part)
{
    tf_status status;

    (void)t;
    if ((status = tfi_part_char(json, "content", part)) < 0) return status;
    if ((status = tfi_json_int(*json, "start", 0, UINT32_MAX, &part->start)) < 0) return status;
    return tfi_json_int(*json, "stop", 0, UINT32_MAX, &part->stop);
}

static tf_status read_replace(tf_tokenizer *t, const tfi_json *json, tfi_part *part)
{
    const tf_status status = tfi_part_string(t, json, "content", 1, &part->to);

    return status < 0 ? status : tfi_part_pattern(t, json, part);
}

static tf_status read_suffix(tf_tokenizer *t, const tfi_json *json, tfi_part *part)
{
    part->from = (tfi_string){"</w>", 4};
    return tfi_part_string(t, json, "suffix", 0, &part->from);
}

static tf_status read_ctc(tf_tokenizer *t, const tfi_json *json, tfi_part *part)
{
    tf_status status;

    part->from = (tfi_string){"<pad>", 5};
    part->to = (tfi_string){"|", 1};
    part->cleans = 1;
    if ((status = tfi_part_string(t, json, "pad_token", 0, &part->from)) < 0) return status;
    if ((status = tfi_part_string(t, json, "word_delimiter_token", 0, &part->to)) < 0) return status;
    return tfi_json_bool(*json, "cleanup", &part->cleans);
}

const tfi_part_kind tfi_decoders[] = {{.name = "BPEDecoder", .read = read_suffix, .decode = decode_suffix},
                                      {.name = "ByteFallback", .decode = decode_fallback},
                                      {.name = "ByteLevel", .decode = decode_bytes},
                                      {.name = "CTC", .read = read_ctc, .decode = decode_ctc},
                                      {.name = "Fuse", .decode = decode_fuse},
                                      {.name = "Metaspace", .read = tfi_part_metaspace, .decode = decode_metaspace},
                                      {.name = "Replace", .read = read_replace, .decode = decode_replace},
                                      {.name = "Strip", .read = read_strip, .decode = decode_strip},
                                      {.name = "WordPiece", .read = read_pieces, .decode = decode_pieces},
                                      {0}};

/* A text. */

void tfi_decoding_init(tfi_decoding *d, const tf_tokenizer *t, tfi_memory *memory,
                       tf_status (*sink)(void *user, const char *text, size_t size), void *user)
{
    *d = (tfi_decoding){.memory = memory, .sink = sink, .user = user, .count = t->decoders.count, .scratch.memory = memory};
    for (int i = 0; i < d->count; i++) d->stages[i] = (tfi_stage){.decoding = d, .part = &t->decoders.data[i]};
    if (d->count > 0) return;
    d->count = 1;
    d->stages[0] = (tfi_stage){.decoding = d, .part = &join_part};
}

tf_status tfi_decoding_reserve(tfi_decoding *d, size_t token_size)
{
    for (int i = 0; i < d->count; i++) {
        tfi_buffer *buffers[] = {&d->stages[i].token, &d->stages[i].kept, &d->stages[i].out};
        for (int k = 0; k < 3; k++) {
            const tf_status status =
                tfi_reserve(d->memory, (void **)&buffers[k]->data, &buffers[k]->capacity, token_size + 2, 1);
            if (status < 0) return status;
        }
    }
    return TF_STATUS_OK;
}

tf_status tfi_decoding_token(tfi_decoding *d, const char *text, size_t size)
{
    if (d->is_piece)
        for (int i = 0; i < d->count; i++) d->stages[i].tokens = 1;
    return feed(&d->stages[0], text, size, TFI_CHUNK_LAST);
}

tf_status tfi_decoding_end(tfi_decoding *d)
{
    return feed(&d->stages[0], NULL, 0, TFI_CHUNK_END);
}

void tfi_decoding_restart(tfi_decoding *d)
{
    d->scratch.pattern_steps = 0;
    for (int i = 0; i < d->count; i++) {
        tfi_stage *s = &d->stages[i];
        s->tokens = 0;
        s->token.size = s->kept.size = 0;
        s->unfinished_size = 0;
        s->stripped = 0;
    }
}

void tfi_decoding_close(tfi_decoding *d)
{
    for (int i = 0; i < d->count; i++) {
        tfi_stage *s = &d->stages[i];
        tfi_free(d->memory, s->token.data, s->token.capacity);
        tfi_free(d->memory, s->kept.data, s->kept.capacity);
        tfi_free(d->memory, s->out.data, s->out.capacity);
    }
    tfi_scratch_close(&d->scratch);
}

int tfi_decoders_grow(const tf_tokenizer *t)
{
    for (int i = 0; i < t->decoders.count; i++)
        if (tfi_part_is(&t->decoders.data[i], "Replace") || tfi_part_is(&t->decoders.data[i], "BPEDecoder") ||
            tfi_part_is(&t->decoders.data[i], "CTC"))
            return 1;
    return 0;
}
