/* Masked-token prediction: the most probable ids for each mask token. */
#include <math.h>

#include "api/handles.h"
#include "base/options.h"
#include "base/status.h"

enum { MASKS_A_RUN = 128, TOP_MAX = 65536 };

typedef struct filler {
    const tf_model *model;
    const tfi_batch *batch;
    const tf_fill_mask_options *options;
    int64_t vocab;
    int64_t *masks;   /* [mask_count] tokens of the batch that are masks, ascending */
    int64_t mask_count;
    float *logits;    /* [MASKS_A_RUN or the most masks of one sequence, vocab] */
    int32_t *top;     /* [top_k] ids, best first */
} filler;

/* The masks of the batch; each sequence must have one. Counts only when f->masks is NULL. */
static tf_status find_masks(filler *f, int32_t mask_id)
{
    const tfi_batch *b = f->batch;

    f->mask_count = 0;
    for (int64_t i = 0; i < b->count; i++) {
        const int64_t before = f->mask_count;
        for (int64_t t = b->starts[i]; t < b->starts[i + 1]; t++) {
            if (b->ids[t] != mask_id) continue;
            if (f->masks) f->masks[f->mask_count] = t;
            f->mask_count++;
        }
        if (f->mask_count == before) return tfi_fail(TF_STATUS_INVALID, "tf_fill_mask: input %lld has no mask token", (long long)i);
    }
    return TF_STATUS_OK;
}

static int is_listed(const int32_t *ids, int32_t n, int32_t id)
{
    for (int32_t i = 0; i < n; i++)
        if (ids[i] == id) return 1;
    return 0;
}

/* The best ids of a row of logits into f->top: insertion into a short sorted list, most candidates fail the first comparison. */
static int32_t select_top(const filler *f, const float *logits)
{
    const tf_fill_mask_options *o = f->options;
    const int64_t candidates = o->targets ? o->target_count : f->vocab;
    int32_t n = 0;

    for (int64_t c = 0; c < candidates; c++) {
        const int32_t id = o->targets ? o->targets[c] : (int32_t)c;
        if (n == o->top_k && logits[id] <= logits[f->top[n - 1]]) continue;
        if (o->targets && is_listed(f->top, n, id)) continue; /* a target given twice is one candidate */
        int32_t at = n < o->top_k ? n++ : n - 1;
        for (; at > 0 && logits[f->top[at - 1]] < logits[id]; at--) f->top[at] = f->top[at - 1];
        f->top[at] = id;
    }
    return n;
}

static tf_status add_fills(const filler *f, const float *logits, int32_t position, int32_t mask, tf_result *r)
{
    const int32_t n = select_top(f, logits);
    double sum = 0;
    float top = logits[0];
    tf_status st = TF_STATUS_OK;

    for (int64_t i = 1; i < f->vocab; i++) top = fmaxf(top, logits[i]);
    for (int64_t i = 0; i < f->vocab; i++) sum += expf(logits[i] - top);
    for (int32_t i = 0; i < n && st == TF_STATUS_OK; i++) {
        tf_fill fill = {.struct_size = sizeof fill, .score = (float)(exp((double)logits[f->top[i]] - top) / sum), .id = f->top[i],
                        .position = position, .mask = mask};
        if (f->model->tokenizer && tf_tokenizer_token(f->model->tokenizer, fill.id, &fill.token) < 0) fill.token = NULL;
        st = tfi_result_add(r, &fill);
    }
    return st;
}

/* Sequences [first, last) whose masks, from number `mask` on, fit one run's logits. */
static int64_t next_run(const filler *f, int64_t first, int64_t mask, int64_t *masks)
{
    const tfi_batch *b = f->batch;
    int64_t last = first, n = 0;

    while (last < b->count) {
        int64_t more = n;
        while (mask + more < f->mask_count && f->masks[mask + more] < b->starts[last + 1]) more++;
        if (more > MASKS_A_RUN && last > first) break;
        n = more;
        last++;
    }
    *masks = n;
    return last;
}

static tf_status fill_batch(tf_session *s, filler *f, tf_result *r)
{
    const tfi_batch *b = f->batch;
    tf_status st = TF_STATUS_OK;
    int64_t mask = 0, masks;

    for (int64_t first = 0, last; first < b->count && st == TF_STATUS_OK; first = last) {
        last = next_run(f, first, mask, &masks);
        tfi_batch part = *b;
        part.starts = b->starts + first;
        part.count = last - first;
        const tfi_output output = {f->model->def.token_logits, f->logits, f->vocab};
        if ((st = tfi_session_run(s, &part, &output, 1, f->masks + mask, masks)) < 0) return st;
        const float *row = f->logits;
        for (int64_t i = first; i < last; i++) {
            int32_t number = 0;
            for (; mask < f->mask_count && f->masks[mask] < b->starts[i + 1] && st == TF_STATUS_OK; mask++, row += f->vocab)
                st = add_fills(f, row, (int32_t)(f->masks[mask] - b->starts[i]), number++, r);
            tfi_result_end_input(r, i);
        }
    }
    return st;
}

static int64_t most_masks(const filler *f)
{
    int64_t most = f->mask_count < MASKS_A_RUN ? f->mask_count : MASKS_A_RUN, mask = 0;

    for (int64_t i = 0; i < f->batch->count; i++) {
        const int64_t before = mask;
        while (mask < f->mask_count && f->masks[mask] < f->batch->starts[i + 1]) mask++;
        if (mask - before > most) most = mask - before;
    }
    return most;
}

static tf_status fill(tf_session *s, filler *f, int32_t mask_id, tf_result **out)
{
    tfi_memory *memory = (tfi_memory *)&f->model->memory;
    tfi_arena arena = {.memory = memory};
    tf_result *r = NULL;
    tf_status st;

    if ((st = find_masks(f, mask_id)) < 0) return st;
    f->masks = tfi_arena_alloc(&arena, (size_t)f->mask_count * sizeof *f->masks);
    f->top = tfi_arena_alloc(&arena, (size_t)f->options->top_k * sizeof *f->top);
    st = TF_STATUS_NOMEM;
    if (!f->masks || !f->top) goto done;
    if ((st = find_masks(f, mask_id)) < 0) goto done;
    const size_t logit_bytes = (size_t)most_masks(f) * (size_t)f->vocab * sizeof *f->logits;
    if (!(f->logits = tfi_alloc(memory, logit_bytes)))
        st = TF_STATUS_NOMEM;
    else if ((st = tfi_result_open(f->model, TFI_RECORD_FILL, f->batch->count, &r)) == TF_STATUS_OK)
        st = fill_batch(s, f, r);
    tfi_free(memory, f->logits, logit_bytes);
done:
    tfi_arena_close(&arena);
    if (st == TF_STATUS_OK)
        *out = r;
    else
        tf_result_close(r);
    return st;
}

static tf_status read_options(const tf_model *m, const tf_fill_mask_options *options, tf_fill_mask_options *o)
{
    tf_tokenizer_info info = {.struct_size = sizeof info, .mask_id = -1};
    tf_status st;

    tf_fill_mask_options_init(o);
    if ((st = tfi_options_read(o, sizeof *o, options, "tf_fill_mask_options")) < 0) return st;
    if (m->tokenizer && (st = tf_tokenizer_get_info(m->tokenizer, &info)) < 0) return st;
    if (o->mask_id == TF_UNSET && info.mask_id < 0)
        return tfi_fail(TF_STATUS_UNSUPPORTED, "tf_fill_mask: there is no tokenizer with a mask token; set mask_id");
    if ((st = tfi_option_int(&o->mask_id, info.mask_id, 0, m->def.vocab_size - 1, "tf_fill_mask: mask_id")) < 0 ||
        (st = tfi_option_int(&o->top_k, 5, 1, TOP_MAX, "tf_fill_mask: top_k")) < 0 ||
        (st = tfi_option_int(&o->target_count, 0, 0, INT32_MAX, "tf_fill_mask: target_count")) < 0)
        return st;
    if ((o->target_count > 0) != (o->targets != NULL))
        return tfi_fail(TF_STATUS_INVALID, "tf_fill_mask: targets and target_count go together");
    for (int32_t i = 0; i < o->target_count; i++)
        if (o->targets[i] < 0 || o->targets[i] >= m->def.vocab_size)
            return tfi_fail(TF_STATUS_INVALID, "tf_fill_mask: target %d is outside the vocabulary of %d", (int)o->targets[i],
                            (int)m->def.vocab_size);
    return TF_STATUS_OK;
}

tf_status tf_fill_mask(tf_session *s, const tf_input *in, const tf_fill_mask_options *options, tf_result **out)
{
    tf_fill_mask_options o;
    tfi_batch b;
    tf_status st;

    if (!s || !in || !out) return tfi_fail(TF_STATUS_INVALID, "session, in and out must not be NULL");
    *out = NULL;
    const tf_model *m = tfi_session_model(s);
    if ((st = tfi_model_needs(m, TF_TASK_FILL_MASK, "tf_fill_mask")) < 0 || (st = read_options(m, options, &o)) < 0) return st;
    filler f = {.model = m, .batch = &b, .options = &o, .vocab = m->def.graph.values[m->def.token_logits].cols};
    if ((st = tfi_batch_open(&b, m, in, NULL)) == TF_STATUS_OK) {
        if (!b.ids && b.count > 0)
            st = tfi_fail(TF_STATUS_INVALID, "tf_fill_mask: input embeddings do not say where the masks are; use tf_encode with rows");
        else
            st = fill(s, &f, o.mask_id, out);
    }
    tfi_batch_close(&b);
    if (st == TF_STATUS_OK) tfi_session_count_call(s);
    return st;
}
