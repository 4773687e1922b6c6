/* Matching of stop strings: Knuth, Morris and Pratt's automaton for each string, fed with the bytes of tokens. */
#include "generate/stop_strings.h"

#include <string.h>

#include "tokenizer/decoder.h"

static void back_build(int32_t *back, const char *string, int32_t size)
{
    int32_t matched = 0;

    back[0] = 0;
    for (int32_t i = 1; i < size; i++) {
        while (matched > 0 && string[i] != string[matched]) matched = back[matched - 1];
        matched += string[i] == string[matched];
        back[i] = matched;
    }
}

tf_status tfi_stops_open(tfi_stops *s, const tf_text *strings, int32_t count, const tf_tokenizer *tokenizer, tfi_memory *memory)
{
    const int64_t piece = tfi_tokenizer_piece_max(tokenizer);
    size_t bytes = (size_t)count * sizeof *s->back;

    *s = (tfi_stops){.memory = memory, .tokenizer = tokenizer, .strings = strings, .count = count, .piece_capacity = piece};
    for (int32_t i = 0; i < count; i++) bytes += (size_t)strings[i].size * sizeof **s->back;
    bytes += (size_t)piece + sizeof *s->pieces;
    if (!(s->block = tfi_alloc(memory, bytes))) return TF_STATUS_NOMEM;
    s->block_bytes = bytes;
    s->pieces = s->block;
    s->back = (int32_t **)(s->pieces + 1);
    int32_t *at = (int32_t *)(s->back + count);
    for (int32_t i = 0; i < count; at += strings[i++].size) {
        s->back[i] = at;
        back_build(at, strings[i].data, (int32_t)strings[i].size);
    }
    s->piece = (char *)at;
    return tfi_pieces_open(s->pieces, tokenizer, memory);
}

void tfi_stops_close(tfi_stops *s)
{
    if (!s->memory) return;
    if (s->pieces) tfi_decoding_close(s->pieces);
    tfi_free(s->memory, s->block, s->block_bytes);
    *s = (tfi_stops){0};
}

static int64_t piece_read(tfi_stops *s, int32_t token)
{
    int64_t size = 0;

    (void)tfi_tokenizer_piece(s->pieces, s->tokenizer, token, s->piece, s->piece_capacity, &size); /* there is room for any */
    return size;
}

/* Feed a piece to string `i`; returns the bytes up to the end of the first match, or 0. */
static int64_t feed(const tfi_stops *s, int32_t i, int32_t *state, int64_t piece_size)
{
    const char *const string = s->strings[i].data;
    const int32_t size = (int32_t)s->strings[i].size, *const back = s->back[i];
    int32_t matched = *state;
    int64_t end = 0;

    for (int64_t at = 0; at < piece_size; at++) {
        while (matched > 0 && (matched == size || string[matched] != s->piece[at])) matched = back[matched - 1];
        matched += string[matched] == s->piece[at];
        if (matched == size && end == 0) end = at + 1;
    }
    *state = matched;
    return end;
}

void tfi_stops_begin(tfi_stops *s, int32_t *state, const int32_t *prompt, int64_t prompt_count)
{
    for (int32_t i = 0; i < s->count; i++) state[i] = 0;
    for (int64_t n = 0; n < prompt_count; n++) {
        const int64_t size = piece_read(s, prompt[n]);
        for (int32_t i = 0; i < s->count; i++) feed(s, i, &state[i], size);
    }
}

int tfi_stops_add(tfi_stops *s, int32_t *state, int32_t token, tfi_stop_match *match)
{
    const int64_t size = piece_read(s, token);
    int64_t first = 0;

    for (int32_t i = 0; i < s->count; i++) {
        const int64_t end = feed(s, i, &state[i], size);
        if (end == 0 || (first > 0 && end >= first)) continue;
        first = end;
        *match = (tfi_stop_match){.index = i, .bytes_left = size - end};
    }
    return first > 0;
}

int tfi_stops_completes(tfi_stops *s, const int32_t *state, int32_t token)
{
    const int64_t size = piece_read(s, token);

    for (int32_t i = 0; i < s->count; i++) {
        int32_t matched = state[i];
        if (feed(s, i, &matched, size) > 0) return 1;
    }
    return 0;
}

static int is_shown(const tf_tokenizer *t, int32_t id, int skip_special_tokens)
{
    return id >= 0 && id < t->vocab_size && !(skip_special_tokens && t->token_flags[id] & TFI_TOKEN_SPECIAL);
}

/* A text's first token may lose the space that it has inside one. */
static tf_status lost_space(tfi_stops *s, int32_t first, int64_t *lost)
{
    const int64_t inside = piece_read(s, first);
    int64_t size = inside;
    tf_decode_options o;
    tf_status status;

    *lost = 0;
    if (inside == 0 || s->piece[0] != ' ') return TF_STATUS_OK;
    tf_decode_options_init(&o);
    o.clean_up = 0;
    if ((status = tf_tokenizer_decode(s->tokenizer, &first, 1, &o, s->piece, s->piece_capacity, &size)) < 0) return status;
    *lost = size == inside - 1;
    return TF_STATUS_OK;
}

tf_status tfi_stops_find(tfi_stops *s, const int32_t *ids, int64_t count, const tfi_stop_match *match, int skip_special_tokens,
                         int64_t *begin)
{
    int64_t wanted = s->strings[match->index].size + match->bytes_left; /* bytes from the begin of the match on */
    int64_t token = count, first = 0, offset = 0, lost;
    tf_status status;

    *begin = 0;
    while (token > 0 && wanted > 0) wanted -= piece_read(s, ids[--token]);
    if (wanted > 0) return TF_STATUS_OK; /* it begins in the prompt */
    for (int64_t i = 0; i < token; i++)
        if (is_shown(s->tokenizer, ids[i], skip_special_tokens)) offset += piece_read(s, ids[i]);
    if (is_shown(s->tokenizer, ids[token], skip_special_tokens)) offset -= wanted;
    while (first < token && !is_shown(s->tokenizer, ids[first], skip_special_tokens)) first++;
    if ((status = lost_space(s, ids[first], &lost)) < 0) return status;
    *begin = offset > lost ? offset - lost : 0;
    return TF_STATUS_OK;
}
