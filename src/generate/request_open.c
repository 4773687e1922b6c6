/* The beginning and the end of a request. All it will ever need but the texts it hands out is taken here: a step takes nothing. */
#include <string.h>

#include "base/status.h"
#include "generate/request.h"

static int32_t *copy_ids(tfi_arena *arena, const int32_t *ids, int32_t count, int32_t room)
{
    int32_t *copy = tfi_arena_alloc(arena, (size_t)room * sizeof *copy);
    if (copy && ids) memcpy(copy, ids, (size_t)count * sizeof *copy);
    return copy;
}

static float *floats(tfi_arena *arena, int64_t rows, int64_t cols)
{
    if (cols && rows > INT64_MAX / 8 / cols) {
        (void)tfi_fail(TF_STATUS_NOMEM, "%lld x %lld floats", (long long)rows, (long long)cols);
        return NULL;
    }
    return tfi_arena_alloc(arena, (size_t)(rows * cols) * sizeof(float));
}

/* ---- parts; each NOMEM or OK ---- */

static tf_status make_sequences(tf_generate *g, const tfi_request_input *in)
{
    const int32_t slots = g->settings.slots;

    if (!(g->sequences = tfi_arena_alloc(&g->arena, (size_t)slots * sizeof *g->sequences)) ||
        !(g->copies = copy_ids(&g->arena, NULL, 0, 2 * slots)) || !(g->parents = copy_ids(&g->arena, NULL, 0, slots)) ||
        !(g->old_tables = copy_ids(&g->arena, NULL, 0, slots * g->max_blocks)))
        return TF_STATUS_NOMEM;
    for (int32_t i = 0; i < slots; i++) {
        tfi_sequence *q = &g->sequences[i];
        q->slot = q->held = q->next = -1;
        q->count = g->prompt;
        if (!(q->tokens = copy_ids(&g->arena, in->ids, g->prompt, g->max_length)) ||
            !(q->table = copy_ids(&g->arena, NULL, 0, g->max_blocks)))
            return TF_STATUS_NOMEM;
    }
    if (in->embeddings) {
        float *rows = floats(&g->arena, g->prompt, in->width);
        if (!rows) return TF_STATUS_NOMEM;
        memcpy(rows, in->embeddings, (size_t)g->prompt * (size_t)in->width * sizeof *rows);
        g->embeddings = rows;
    }
    return TF_STATUS_OK;
}

static tf_status make_beams(tf_generate *g)
{
    const int32_t slots = g->settings.slots;
    tfi_beams *b = &g->beams;

    if (g->settings.sampling.num_beams == 1) return TF_STATUS_OK;
    if (!(b->finished_scores = floats(&g->arena, slots, 1)) || !(b->is_finished = tfi_arena_alloc(&g->arena, (size_t)slots)) ||
        !(g->trace = tfi_arena_alloc(&g->arena, (size_t)g->max_new * (size_t)slots * sizeof *g->trace)) ||
        !(g->running_scores = floats(&g->arena, slots, 1)) ||
        !(g->finished = tfi_arena_alloc(&g->arena, (size_t)slots * sizeof *g->finished)) ||
        !(g->finished_before = tfi_arena_alloc(&g->arena, (size_t)slots * sizeof *g->finished_before)))
        return TF_STATUS_NOMEM;
    b->open = 1;
    for (int32_t i = 0; i < slots; i++) {
        b->finished_scores[i] = -1e9f;
        g->finished[i] = (tfi_finished_beam){.step = -1, .score = -1e9f};
    }
    return TF_STATUS_OK;
}

static tf_status make_results(tf_generate *g)
{
    tf_decode_options o;
    tf_status st;

    if (!(g->results = tfi_arena_alloc(&g->arena, (size_t)g->settings.results * sizeof *g->results))) return TF_STATUS_NOMEM;
    tf_decode_options_init(&o);
    o.skip_special_tokens = g->settings.skip_special_tokens;
    o.clean_up = g->settings.clean_up;
    for (int32_t i = 0; i < g->settings.results; i++) {
        const int has_beams = g->settings.sampling.num_beams > 1;
        tfi_generated_sequence *r = &g->results[i];
        r->stop_index = -1;
        r->stop_begin = -1;
        r->ids = has_beams ? copy_ids(&g->arena, NULL, 0, g->max_new) : g->sequences[i].tokens + g->prompt;
        if (!r->ids || (has_beams && !(r->beams = copy_ids(&g->arena, NULL, 0, g->max_new)))) return TF_STATUS_NOMEM;
        if (g->settings.sampling.logprobs && !(r->logprobs = floats(&g->arena, g->max_new, 1))) return TF_STATUS_NOMEM;
        if (g->tokenizer && (st = tf_stream_open(g->tokenizer, &o, &r->stream)) < 0) return st;
    }
    return TF_STATUS_OK;
}

static tf_status make_kept(tf_generate *g)
{
    const tfi_settings *s = &g->settings;
    const int64_t all = (int64_t)g->max_new * s->slots;

    if (s->prompt_logprobs && !(g->prompt_logprobs = floats(&g->arena, g->prompt, 1))) return TF_STATUS_NOMEM;
    if (s->keep_logits && !(g->logits = floats(&g->arena, all, g->vocab))) return TF_STATUS_NOMEM;
    if (s->keep_scores && !(g->scores = floats(&g->arena, all, g->vocab))) return TF_STATUS_NOMEM;
    if (!s->logits) return TF_STATUS_OK;
    if (!(g->callback_logits = floats(&g->arena, s->slots, g->vocab)) ||
        !(g->callback_ids = copy_ids(&g->arena, NULL, 0, g->max_length)) ||
        !(g->callback_raw = floats(&g->arena, s->slots, g->vocab)))
        return TF_STATUS_NOMEM;
    return TF_STATUS_OK;
}

static tf_status make_stops(tf_generate *g)
{
    const tfi_settings *s = &g->settings;
    const int32_t ints = s->slots * s->stop_string_count;
    tf_status st;

    if (s->stop_string_count == 0) return TF_STATUS_OK;
    if ((st = tfi_stops_open(&g->stops, s->stop_strings, s->stop_string_count, g->tokenizer, g->memory)) < 0) return st;
    if (!(g->stop_states = copy_ids(&g->arena, NULL, 0, ints)) || !(g->stop_states_before = copy_ids(&g->arena, NULL, 0, ints)))
        return TF_STATUS_NOMEM;
    for (int32_t i = 0; i < s->slots; i++)
        tfi_stops_begin(&g->stops, g->stop_states + i * s->stop_string_count, g->sequences[0].tokens, g->prompt);
    g->settings.sampling.completes = tfi_request_completes;
    g->settings.sampling.completes_user = g;
    return TF_STATUS_OK;
}

static tf_status make_source(tf_generate *g, const tfi_request_input *in)
{
    const int32_t blocks = (int32_t)tfi_blocks_of(in->source_count);

    if (in->source_count == 0) return TF_STATUS_OK;
    if (!(g->source_table = copy_ids(&g->arena, NULL, 0, blocks))) return TF_STATUS_NOMEM;
    if (in->source && !(g->source = copy_ids(&g->arena, in->source, in->source_count, in->source_count))) return TF_STATUS_NOMEM;
    if (in->source_embeddings) {
        if (!(g->source_embeddings = floats(&g->arena, in->source_count, in->width))) return TF_STATUS_NOMEM;
        memcpy(g->source_embeddings, in->source_embeddings, (size_t)in->source_count * (size_t)in->width * sizeof(float));
    }
    return TF_STATUS_OK;
}

/* ---- room ---- */

static int64_t wanted_blocks(const tf_generate *g)
{
    return (int64_t)g->settings.slots * g->max_blocks + tfi_blocks_of(g->source_count);
}

/* First of all: the sizes of the parts are the caller's numbers, and what can never run must not take their memory. */
static tf_status check_room(const tf_generate *g)
{
    const int32_t slots = g->settings.slots;
    const int64_t wanted = wanted_blocks(g);

    if (wanted > g->room->blocks)
        return tfi_fail(TF_STATUS_INVALID, "the request may need keys and values of %lld tokens, the session's kv_tokens is %lld",
                        (long long)(wanted * TFI_KV_BLOCK), (long long)(g->room->blocks * TFI_KV_BLOCK));
    if (slots > g->room->slots)
        return tfi_fail(TF_STATUS_INVALID, "%d sequences; the session's max_sequences is %d", (int)slots, (int)g->room->slots);
    return TF_STATUS_OK;
}

static tf_status take_room(tf_generate *g)
{
    const int32_t slots = g->settings.slots;
    const int64_t wanted = wanted_blocks(g);
    tfi_room *room = g->room;

    if (!tfi_room_promise(room, wanted, slots))
        return tfi_fail(TF_STATUS_BUSY, "other requests hold what this one needs: %lld of %lld KV blocks, %d of %d sequences are free",
                        (long long)(room->blocks - room->promised), (long long)room->blocks, (int)room->free_slots, (int)room->slots);
    g->promised = wanted;
    for (int32_t i = 0; i < slots; i++) {
        const int beams = g->settings.sampling.num_beams > 1;
        const tfi_slot record = {.sampling = &g->settings.sampling,
                                 .tokens = g->sequences[i].tokens,
                                 .count = g->prompt,
                                 .sequence = i,
                                 .score = beams && i > 0 ? -1e9f : 0,
                                 .beams = beams ? &g->beams : NULL};
        g->sequences[i].slot = tfi_room_take_slot(room, &record);
    }
    g->running = slots;
    for (int32_t i = 0; i < (int32_t)tfi_blocks_of(g->source_count); i++)
        g->source_table[g->source_blocks++] = tfi_room_take_block(room);
    return TF_STATUS_OK;
}

tf_status tfi_request_open(tfi_room *room, tfi_memory *memory, const tfi_request_input *in, tf_generate **out)
{
    const int32_t *const source = in->source_count > 0 ? in->source : in->embeddings ? NULL : in->ids; /* what encoder_ settings read */
    const tfi_request_facts facts = {.vocab = in->vocab,
                                     .has_encoder = in->source_count > 0,
                                     .has_tokenizer = in->tokenizer != NULL,
                                     .prompt = in->count,
                                     .max_context = in->max_context,
                                     .source = source,
                                     .source_count = in->source_count > 0 ? in->source_count : in->count};
    tf_generate *g = tfi_zalloc(memory, sizeof *g);
    tf_status st;

    *out = NULL;
    if (!g) return TF_STATUS_NOMEM;
    g->memory = memory;
    g->arena.memory = memory;
    g->room = room;
    g->tokenizer = in->tokenizer;
    g->vocab = in->vocab;
    g->width = in->width;
    g->prompt = in->count;
    g->source_count = in->source_count;
    g->started_ms = -1;
    g->state = in->source_count > 0 ? TFI_REQUEST_SOURCE : TFI_REQUEST_PROMPT;
    if ((st = tfi_settings_open(&g->settings, in->defaults, in->options, &facts, memory)) < 0) goto fail;
    g->max_length = g->settings.sampling.max_length;
    g->max_new = g->max_length - g->prompt;
    g->max_blocks = (int32_t)tfi_blocks_of(g->max_length - 1); /* the last token is never read */
    if ((st = check_room(g)) < 0 || (st = make_sequences(g, in)) < 0 || (st = make_beams(g)) < 0 || (st = make_results(g)) < 0 ||
        (st = make_kept(g)) < 0 || (st = make_stops(g)) < 0 || (st = make_source(g, in)) < 0 || (st = take_room(g)) < 0)
        goto fail;
    *out = g;
    return TF_STATUS_OK;
fail:
    g->state = TFI_REQUEST_DONE;
    tfi_request_free(g);
    return st;
}

void tfi_request_free(tf_generate *g)
{
    tfi_memory *memory = g->memory;

    tfi_request_end(g, TF_FINISH_CANCELLED);
    for (int32_t i = 0; g->results && i < g->settings.results; i++) tf_stream_close(g->results[i].stream);
    tfi_stops_close(&g->stops);
    tfi_settings_close(&g->settings);
    tfi_free(memory, g->text, g->text_room);
    tfi_free(memory, g->piece, g->piece_room);
    tfi_arena_close(&g->arena);
    tfi_free(memory, g, sizeof *g);
}
