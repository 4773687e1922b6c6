/* A run's inputs as one piece of pinned memory, which a kernel takes from there, or a copy where they are many. Where each array
 * lies depends on the run's shape alone, so that a captured graph finds them where it was captured with. */
#include <stddef.h>
#include <string.h>

#include "backend/cuda/buckets.h"
#include "backend/cuda/program.h"

static int has_moves(const tfi_run_shape *s)
{
    return s->inputs >> TFI_INPUT_KV_MOVES & 1;
}

/* Bytes of an array for the rows of a shape. */
static int64_t part_bytes(const tfi_run_shape *s, int part)
{
    const int64_t R = s->rows[TFI_ROWS_TOKENS], B = s->rows[TFI_ROWS_SEQUENCES], S = s->rows[TFI_ROWS_SELECTED];

    switch (part) {
    case TFI_PART_LIVE:
        return sizeof(tfi_cuda_live);
    case TFI_PART_DRAWS:
        return s->draws * (int64_t)sizeof(tfi_draw);
    case TFI_INPUT_IDS:
    case TFI_INPUT_POSITIONS:
    case TFI_INPUT_TYPES:
        return 4 * R;
    case TFI_INPUT_OFFSETS:
        return 4 * (B + 1);
    case TFI_INPUT_LAST:
    case TFI_INPUT_KV_LENS:
    case TFI_INPUT_SOURCE_LENS:
        return 4 * B;
    case TFI_INPUT_SELECTED:
    case TFI_INPUT_TARGETS:
    case TFI_INPUT_ROW_SLOTS:
        return 4 * S;
    case TFI_INPUT_KV_COPIES:
        return 8 * s->copies;
    case TFI_INPUT_KV_TABLES:
        return 4 * B * s->kv_stride;
    case TFI_INPUT_KV_MOVES:
        return has_moves(s) * B * (int64_t)sizeof(tfi_kv_move);
    case TFI_PART_MOVED:
        return has_moves(s) * 4 * B * s->kv_stride;
    case TFI_INPUT_SOURCE_TABLES:
        return 4 * B * s->source_stride;
    default: /* EMBEDDINGS go by themselves, SKIP with the launch */
        return 0;
    }
}

static int64_t lay_out(const tfi_run_shape *s, int64_t parts[TFI_PART_COUNT])
{
    int64_t at = (part_bytes(s, TFI_PART_LIVE) + 63) / 64 * 64;

    parts[TFI_PART_LIVE] = 0; /* in all shapes: what a run leaves there is read in the next */
    for (int i = 0; i < TFI_PART_COUNT; i++) {
        if (i == TFI_PART_LIVE) continue;
        parts[i] = at;
        at += (part_bytes(s, i) + 63) / 64 * 64;
    }
    return at;
}

static int64_t table_room(const tfi_program *p)
{
    const int64_t stored = p->limits[TFI_LIMIT_KV_TOKENS], rows = p->limits[TFI_ROWS_TOKENS];

    return tfi_power_of_two(((stored > rows ? stored : rows) + TFI_KV_BLOCK - 1) / TFI_KV_BLOCK);
}

int64_t tfi_cuda_input_bytes(const tfi_program *p)
{
    tfi_run_shape most = {.draws = p->limits[TFI_ROWS_SEQUENCES],
                          .copies = p->limits[TFI_ROWS_SEQUENCES],
                          .kv_stride = p->has_cache ? table_room(p) : 0,
                          .source_stride = p->has_source ? table_room(p) : 0,
                          .inputs = p->has_cache << TFI_INPUT_KV_MOVES};
    int64_t parts[TFI_PART_COUNT];

    memcpy(most.rows, p->limits, sizeof most.rows);
    return lay_out(&most, parts);
}

static int64_t longest_of(const int32_t *lens, int64_t count)
{
    int64_t most = 0;

    for (int64_t i = 0; lens && i < count; i++)
        if (lens[i] > most) most = lens[i];
    return most;
}

static int64_t longest_row(const tfi_run *run)
{
    const int32_t *offsets = run->inputs[TFI_INPUT_OFFSETS];
    int64_t most = 0;

    for (int64_t i = 0; offsets && i < run->rows[TFI_ROWS_SEQUENCES]; i++)
        if (offsets[i + 1] - offsets[i] > most) most = offsets[i + 1] - offsets[i];
    return most;
}

static int64_t longest_stored(const tfi_program *p, const tfi_run *run)
{
    const int64_t B = run->rows[TFI_ROWS_SEQUENCES];
    const int64_t own = p->has_cache ? longest_of(run->inputs[TFI_INPUT_KV_LENS], B) : 0;
    const int64_t source = p->has_source ? longest_of(run->inputs[TFI_INPUT_SOURCE_LENS], B) : 0;

    return own > source ? own : source;
}

/* Above TFI_GRAPH_ROWS nothing is rounded. */
static int64_t rounded(int64_t rows, int64_t limit)
{
    const int64_t up = rows > TFI_GRAPH_ROWS ? rows : tfi_bucket(rows);
    return up < limit ? up : limit;
}

void tfi_cuda_shape_run(tfi_pass *s)
{
    const tfi_program *p = s->program;
    const tfi_run *run = s->run;
    const int32_t *skip = run->inputs[TFI_INPUT_SKIP];
    tfi_run_shape *h = &s->shape;

    memset(h, 0, sizeof *h);
    for (int i = 0; i < TFI_ROWS_COUNT; i++) h->rows[i] = rounded(run->rows[i], p->limits[i]);
    h->draws = rounded(run->draw_count, p->limits[TFI_ROWS_SEQUENCES]);
    h->copies = run->inputs[TFI_INPUT_KV_COPIES] ? rounded(run->copy_count, p->limits[TFI_ROWS_SEQUENCES]) : 0;
    h->longest = tfi_bucket(longest_row(run));
    h->single = h->longest == 1 && run->rows[TFI_ROWS_TOKENS] == run->rows[TFI_ROWS_SEQUENCES];
    h->longest_stored = tfi_power_of_two(longest_stored(p, run));
    if (p->has_cache && run->inputs[TFI_INPUT_KV_TABLES]) h->kv_stride = tfi_power_of_two(run->table_stride);
    if (p->has_source && run->inputs[TFI_INPUT_SOURCE_TABLES]) h->source_stride = tfi_power_of_two(run->source_stride);
    h->store = run->store;
    h->skip = skip ? *skip : 0;
    for (int i = 0; i < TFI_INPUT_COUNT; i++)
        if (run->inputs[i]) h->inputs |= 1 << i;
    (void)lay_out(h, s->parts);
    s->parts_bytes = s->parts[TFI_PART_MOVED]; /* the last */
}

/* Live bytes of an array, of the caller's memory. */
static int64_t live_bytes(const tfi_run *run, int part)
{
    tfi_run_shape live = {.draws = run->draw_count,
                          .copies = run->copy_count,
                          .kv_stride = run->table_stride,
                          .source_stride = run->source_stride,
                          .inputs = (run->inputs[TFI_INPUT_KV_MOVES] != NULL) << TFI_INPUT_KV_MOVES};

    memcpy(live.rows, run->rows, sizeof live.rows);
    return part_bytes(&live, part);
}

static tf_status send_embeddings(const tfi_pass *s, const float *from)
{
    const tfi_program *p = s->program;
    const tfi_op *op = p->graph->ops;

    while (op->kind != TFI_OP_EMBED) op++;
    const size_t bytes = (size_t)(s->run->rows[TFI_ROWS_TOKENS] * p->graph->values[op->y].cols) * sizeof *from;
    return TFI_CUDA(p->cuda, cudaMemcpyAsync(p->block + p->embeddings_at, from, bytes, cudaMemcpyHostToDevice, s->stream));
}

tf_status tfi_cuda_send_inputs(tfi_pass *s)
{
    tfi_program *p = s->program;
    const tfi_run *run = s->run;
    tfi_cuda_live live = {.draws = (int32_t)run->draw_count,
                          .copies = run->inputs[TFI_INPUT_KV_COPIES] ? (int32_t)run->copy_count : 0,
                          .longest = (int32_t)longest_row(run),
                          .longest_stored = (int32_t)longest_stored(p, run),
                          .table_stride = run->table_stride,
                          .source_stride = run->source_stride,
                          .published = s->flight->choices};
    tf_status st;

    if ((st = tfi_cuda_next_tag(s, &live.tag)) < 0) return st;
    live.number = ++p->number;
    for (int i = 0; i < TFI_ROWS_COUNT; i++) live.rows[i] = (int32_t)run->rows[i];
    memcpy(s->flight->inputs + s->parts[TFI_PART_LIVE], &live, sizeof live);
    if (run->draw_count > 0)
        memcpy(s->flight->inputs + s->parts[TFI_PART_DRAWS], run->draws, (size_t)run->draw_count * sizeof *run->draws);
    for (int i = 0; i < TFI_INPUT_COUNT; i++) {
        const int64_t room = part_bytes(&s->shape, i), bytes = live_bytes(run, i);
        if (run->inputs[i] && room > 0)
            memcpy(s->flight->inputs + s->parts[i], run->inputs[i], (size_t)(bytes < room ? bytes : room));
    }
    if (s->parts_bytes > TFI_INPUTS_TAKEN &&
        (st = TFI_CUDA(p->cuda, cudaMemcpyAsync(p->block + p->inputs_at, s->flight->inputs, (size_t)s->parts_bytes,
                                                cudaMemcpyHostToDevice, s->stream))) < 0)
        return st;
    return run->inputs[TFI_INPUT_EMBEDDINGS] ? send_embeddings(s, run->inputs[TFI_INPUT_EMBEDDINGS]) : TF_STATUS_OK;
}

static const void *part(const tfi_pass *s, int part)
{
    return s->program->block + s->program->inputs_at + s->parts[part];
}

static tf_status make_moves(const tfi_pass *s, tfi_cuda_launch *l)
{
    const tfi_kv_moves_args a = {.moves = part(s, TFI_INPUT_KV_MOVES),
                                 .tables = part(s, TFI_INPUT_KV_TABLES),
                                 .lens = part(s, TFI_INPUT_KV_LENS),
                                 .slots = s->run->store->slots,
                                 .moved = (int32_t *)(uintptr_t)part(s, TFI_PART_MOVED),
                                 .copies = (int32_t *)(uintptr_t)part(s, TFI_INPUT_KV_COPIES),
                                 .B = s->shape.rows[TFI_ROWS_SEQUENCES]};

    l->waits = 1;
    return tfi_cuda_kv_moves(l, &a);
}

static tf_status take(const tfi_pass *s, tfi_cuda_launch *l)
{
    const tfi_program *p = s->program;
    const tfi_inputs_args a = {.pieces = {p->flights[0].inputs, p->flights[1].inputs},
                               .to = p->block + p->inputs_at,
                               .bytes = s->parts_bytes,
                               .number_at = s->parts[TFI_PART_LIVE] + (int64_t)offsetof(tfi_cuda_live, number)};

    if (s->parts_bytes > TFI_INPUTS_TAKEN) return TF_STATUS_OK;
    l->waits = 1;
    return tfi_cuda_take_inputs(l, &a);
}

/* In front of a walk's launches. */
tf_status tfi_cuda_take(const tfi_pass *s, tfi_cuda_launch *l)
{
    tf_status st = take(s, l);
    return st == TF_STATUS_OK && has_moves(&s->shape) ? make_moves(s, l) : st;
}

const void *tfi_cuda_input(const tfi_pass *s, int number)
{
    const tfi_program *p = s->program;

    if (number < TFI_INPUT_COUNT && !s->run->inputs[number]) return NULL;
    if (number == TFI_INPUT_EMBEDDINGS) return p->block + p->embeddings_at;
    return part(s, number == TFI_INPUT_KV_TABLES && has_moves(&s->shape) ? TFI_PART_MOVED : number);
}
