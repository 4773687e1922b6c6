/* The launches of kernels on the simulated device: the reference's ops. They take their live counts when they are done, as kernels
 * do. */
#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "simulated/simulated.h"

typedef struct launch {
    tfi_op_kind kind;
    tfi_op_types types;
    tfi_rows rows;
    tfi_attend attend;
    int64_t max_rows, max_tokens; /* of attention */
    const tfi_cuda_live *live;
    const int32_t *from; /* NORM */
    union {
        tfi_embed_args embed;
        tfi_norm_args norm;
        tfi_glu_args glu;
        tfi_attention_args attention;
        tfi_kv_append_args kv_append;
        tfi_kv_copy_args kv_copy;
        tfi_gather_args gather;
        tfi_pool_args pool;
        tfi_l2norm_args l2norm;
        tfi_logprob_args logprob;
        tfi_process_args process;
        tfi_draw_args draw;
        tfi_finish_args finish;
    } a;
} launch;

static int64_t view_stride(const launch *l)
{
    return l->attend == TFI_ATTEND_SOURCE ? l->live->source_stride : l->live->table_stride;
}

/* Live counts in place of those the launch was made for, which may only be larger. */
static void take_live(launch *l)
{
    const tfi_cuda_live *live = l->live;
    const int64_t rows = live->rows[l->rows], R = live->rows[TFI_ROWS_TOKENS], B = live->rows[TFI_ROWS_SEQUENCES];

#define TAKE(field, count) (assert(l->a.field >= (count)), l->a.field = (count))
    switch (l->kind) {
    case TFI_OP_EMBED:
        TAKE(embed.R, R);
        break;
    case TFI_OP_NORM:
        TAKE(norm.R, rows);
        break;
    case TFI_OP_GLU:
        TAKE(glu.R, rows);
        break;
    case TFI_OP_ATTENTION:
        TAKE(attention.R, R);
        TAKE(attention.B, B);
        l->a.attention.kv.stride = view_stride(l);
        assert(l->max_rows >= live->longest && l->max_tokens >= live->longest_stored);
        break;
    case TFI_OP_KV_APPEND:
        TAKE(kv_append.R, R);
        TAKE(kv_append.B, B);
        l->a.kv_append.kv.stride = view_stride(l);
        break;
    case TFI_OP_KV_COPY:
        TAKE(kv_copy.count, live->copies);
        break;
    case TFI_OP_GATHER_ROWS:
        TAKE(gather.S, rows);
        break;
    case TFI_OP_POOL:
        TAKE(pool.B, B);
        break;
    case TFI_OP_L2NORM:
        TAKE(l2norm.R, rows);
        break;
    case TFI_OP_LOGPROB:
        TAKE(logprob.S, rows);
        break;
    case TFI_OP_LOGITS_PROCESS:
        TAKE(process.S, rows);
        break;
    default:
        TAKE(draw.count, live->draws);
        break;
    }
#undef TAKE
}

static float activate(tfi_activation a, float v)
{
    switch (a) {
    case TFI_ACT_RELU:
        return v > 0 ? v : 0;
    case TFI_ACT_GELU:
        return 0.5f * v * (1 + erff(v * 0.70710678f));
    case TFI_ACT_GELU_TANH:
        return 0.5f * v * (1 + tanhf(0.7978845608f * (v + 0.044715f * v * v * v)));
    case TFI_ACT_SILU:
        return v / (1 + expf(-v));
    case TFI_ACT_TANH:
        return tanhf(v);
    case TFI_ACT_SIGMOID:
        return 1 / (1 + expf(-v));
    default:
        return v;
    }
}

static cudaDataType type_of(tfi_dtype t)
{
    return t == TFI_F32 ? CUDA_R_32F : CUDA_R_16BF;
}

static void finish(const void *data)
{
    const launch *l = data;
    const tfi_finish_args *a = &l->a.finish;

    for (int64_t i = 0; i < l->live->rows[l->rows] * a->N; i++) {
        float v = simulated_element(a->sums, type_of(l->types.x), i) + (a->bias ? a->bias[i % a->N] : 0);
        v = activate(a->activation, v) + (a->residual ? simulated_element(a->residual, type_of(l->types.y), i) : 0);
        if (l->types.y == TFI_F32) ((float *)a->y)[i] = v;
        else ((uint16_t *)a->y)[i] = tfi_f32_to_bf16(v);
    }
}

/* After the last of the ops that draw. */
static void publish(const tfi_cuda_live *live, const tfi_choice *choices)
{
    memcpy(live->published, choices, (size_t)live->draws * sizeof *choices);
}

/* Rows `from` of x, [rows, cols]; to be freed. */
static void *pick_rows(const void *x, tfi_dtype t, const int32_t *from, int64_t rows, int64_t cols)
{
    const size_t row = (size_t)cols * tfi_dtype_size(t);
    char *y = x ? malloc((size_t)rows * row + 1) : NULL;

    for (int64_t m = 0; y && m < rows; m++)
        memcpy(y + (size_t)m * row, (const char *)x + (size_t)(from ? from[m] : m) * row, row);
    return y;
}

static void perform(const void *data)
{
    launch l;
    const tfi_worker one_worker = {0, 1, aligned_alloc(64, 64 << 20)};

    memcpy(&l, data, sizeof l);
    take_live(&l);
    void *picked = l.from ? pick_rows(l.a.norm.x, l.types.x, l.from, l.a.norm.R, l.a.norm.E) : NULL;
    if (picked) l.a.norm.x = picked;
    tfi_ref_resolve(l.kind, l.types)(&l.a, &one_worker);
    free(picked);
    if (l.kind == TFI_OP_STOP) publish(l.live, l.a.draw.choices);
    free(one_worker.scratch);
}

static tf_status start(const tfi_cuda_launch *on, launch l)
{
    l.live = on->live;
    simulated_issue(on->stream, perform, &l, sizeof l);
    return TF_STATUS_OK;
}

static void take_inputs(const void *data)
{
    const tfi_inputs_args *a = data;
    uint32_t last, number;
    int32_t ahead[2]; /* numbers go around: what counts is the distance */

    memcpy(&last, (const char *)a->to + a->number_at, sizeof last);
    for (int i = 0; i < 2; i++) {
        memcpy(&number, (const char *)a->pieces[i] + a->number_at, sizeof number);
        ahead[i] = (int32_t)(number - last);
    }
    assert(ahead[0] > 0 || ahead[1] > 0);
    const int which = ahead[1] > 0 && (ahead[0] <= 0 || ahead[1] < ahead[0]);
    memcpy(a->to, a->pieces[which], (size_t)a->bytes);
}

tf_status tfi_cuda_take_inputs(const tfi_cuda_launch *l, const tfi_inputs_args *a)
{
    assert(a->bytes <= TFI_INPUTS_TAKEN);
    simulated_issue(l->stream, take_inputs, a, sizeof *a);
    return TF_STATUS_OK;
}

static void kv_moves(const void *data)
{
    const tfi_kv_moves_args *a = data;
    const tfi_cuda_live *live;

    memcpy(&live, a + 1, sizeof live);
    assert(live->rows[TFI_ROWS_SEQUENCES] <= a->B);
    for (int32_t b = 0; b < live->rows[TFI_ROWS_SEQUENCES]; b++) {
        const tfi_kv_move *m = &a->moves[b];
        const int64_t stride = live->table_stride, last = (a->lens[b] - 1) / TFI_KV_BLOCK,
                      from = m->slot < 0 ? b : m->first + a->slots[m->slot].parent;
        for (int64_t k = 0; k < stride; k++) a->moved[b * stride + k] = a->tables[(k < last ? from : b) * stride + k];
        if (m->slot < 0 || m->copy < 0) continue;
        a->copies[2 * m->copy] = a->moves[from].filled;
        a->copies[2 * m->copy + 1] = a->tables[b * stride + last];
    }
}

tf_status tfi_cuda_kv_moves(const tfi_cuda_launch *l, const tfi_kv_moves_args *a)
{
    const struct {
        tfi_kv_moves_args a;
        const tfi_cuda_live *live;
    } given = {*a, l->live};

    simulated_issue(l->stream, kv_moves, &given, sizeof given);
    return TF_STATUS_OK;
}

static void give_rows(const void *data)
{
    const tfi_rows_args *a = data;
    memcpy(a->to, a->from, (size_t)a->bytes);
}

tf_status tfi_cuda_give_rows(const tfi_rows_args *a, cudaStream_t stream)
{
    assert(a->bytes <= TFI_ROWS_GIVEN && ((uintptr_t)a->from | (uintptr_t)a->to | (uintptr_t)a->bytes) % 16 == 0);
    simulated_issue(stream, give_rows, a, sizeof *a);
    return TF_STATUS_OK;
}

static void give_results(const void *data)
{
    const tfi_results_args *a = data;
    const tfi_cuda_live *live;

    memcpy(&live, a + 1, sizeof live);
    for (int i = 0; i < a->count; i++) memcpy(a->rows[i].to, a->rows[i].from, (size_t)a->rows[i].bytes);
    *a->number = live->number;
}

tf_status tfi_cuda_give_results(const tfi_cuda_launch *l, const tfi_results_args *a)
{
    struct {
        tfi_results_args a;
        const tfi_cuda_live *live;
    } call = {*a, l->live};
    int64_t bytes = 0;

    for (int i = 0; i < a->count; i++) {
        assert(((uintptr_t)a->rows[i].from | (uintptr_t)a->rows[i].to | (uintptr_t)a->rows[i].bytes) % 16 == 0);
        bytes += a->rows[i].bytes;
    }
    assert(a->count > 0 && a->count <= TFI_RESULTS && bytes <= TFI_ROWS_GIVEN);
    simulated_issue(l->stream, give_results, &call, sizeof call);
    return TF_STATUS_OK;
}

static const tfi_op_types floats = {TFI_F32, TFI_F32, TFI_F32};

tf_status tfi_cuda_embed(const tfi_cuda_launch *l, const tfi_embed_args *a, tfi_op_types t)
{
    return start(l, (launch){TFI_OP_EMBED, t, .a.embed = *a});
}

int tfi_cuda_embed_norm_fits(int64_t E)
{
    return E <= 2048;
}

/* What is in between is fp32 where it is kept, else y's for now. */
tf_status tfi_cuda_embed_norm(const tfi_cuda_launch *l, const tfi_embed_args *a, const tfi_norm_args *norm, tfi_op_types t)
{
    tfi_embed_args e = *a;
    tfi_norm_args n = *norm;

    const tfi_dtype between = e.y ? TFI_F32 : t.y;

    if (!e.y) e.y = n.y;
    n.x = e.y;
    (void)start(l, (launch){TFI_OP_EMBED, {t.x, TFI_F32, between}, .a.embed = e});
    return start(l, (launch){TFI_OP_NORM, {between, TFI_F32, t.y}, TFI_ROWS_TOKENS, .a.norm = n});
}

tf_status tfi_cuda_norm(const tfi_cuda_launch *l, const tfi_norm_args *a, tfi_op_types t, tfi_rows rows, const int32_t *from)
{
    return start(l, (launch){TFI_OP_NORM, t, rows, .a.norm = *a, .from = from});
}

tf_status tfi_cuda_glu(const tfi_cuda_launch *l, const tfi_glu_args *a, tfi_op_types t, tfi_rows rows)
{
    return start(l, (launch){TFI_OP_GLU, t, rows, .a.glu = *a});
}

tf_status tfi_cuda_attention(const tfi_cuda_launch *l, const tfi_attention_args *a, tfi_op_types t, int64_t max_rows,
                             int64_t max_tokens, const tfi_kv_append_args *append)
{
    const int is_stored = a->attend == TFI_ATTEND_CACHE || a->attend == TFI_ATTEND_SOURCE;

    if (append) (void)tfi_cuda_kv_append(l, append, t, TFI_ATTEND_CACHE);
    return start(l, (launch){TFI_OP_ATTENTION, t, .attend = a->attend, .max_rows = max_rows,
                             .max_tokens = is_stored ? max_tokens : INT64_MAX, .a.attention = *a});
}

tf_status tfi_cuda_kv_append(const tfi_cuda_launch *l, const tfi_kv_append_args *a, tfi_op_types t, tfi_attend attend)
{
    return start(l, (launch){TFI_OP_KV_APPEND, t, .attend = attend, .a.kv_append = *a});
}

tf_status tfi_cuda_kv_copy(const tfi_cuda_launch *l, const tfi_kv_copy_args *a)
{
    return start(l, (launch){TFI_OP_KV_COPY, floats, .a.kv_copy = *a});
}

tf_status tfi_cuda_gather(const tfi_cuda_launch *l, const tfi_gather_args *a, tfi_op_types t, tfi_rows rows)
{
    return start(l, (launch){TFI_OP_GATHER_ROWS, t, rows, .a.gather = *a});
}

tf_status tfi_cuda_pool(const tfi_cuda_launch *l, const tfi_pool_args *a, tfi_op_types t)
{
    return start(l, (launch){TFI_OP_POOL, t, .a.pool = *a});
}

tf_status tfi_cuda_l2norm(const tfi_cuda_launch *l, const tfi_l2norm_args *a, tfi_op_types t, tfi_rows rows)
{
    return start(l, (launch){TFI_OP_L2NORM, t, rows, .a.l2norm = *a});
}

tf_status tfi_cuda_logprob(const tfi_cuda_launch *l, const tfi_logprob_args *a)
{
    return start(l, (launch){TFI_OP_LOGPROB, floats, TFI_ROWS_SELECTED, .a.logprob = *a});
}

tf_status tfi_cuda_process(const tfi_cuda_launch *l, const tfi_process_args *a)
{
    return start(l, (launch){TFI_OP_LOGITS_PROCESS, floats, TFI_ROWS_SELECTED, .a.process = *a});
}

tf_status tfi_cuda_sample(const tfi_cuda_launch *l, const tfi_draw_args *a)
{
    return start(l, (launch){TFI_OP_SAMPLE, floats, .a.draw = *a});
}

/* Requests that ask the host are the host's. Here they are hidden by a record that is no beam search's. */
static void step_beams(const void *data)
{
    const launch *l = data;

    for (int32_t i = 0; i < l->live->draws; i++)
        if (l->a.draw.slots[l->a.draw.draws[i].slot].sampling->completes) return;
    perform(data);
}

tf_status tfi_cuda_beam_step(const tfi_cuda_launch *l, const tfi_draw_args *a)
{
    const launch step = {TFI_OP_BEAM_STEP, floats, .live = l->live, .a.draw = *a};

    simulated_issue(l->stream, step_beams, &step, sizeof step);
    return TF_STATUS_OK;
}

tf_status tfi_cuda_stop(const tfi_cuda_launch *l, const tfi_draw_args *a)
{
    return start(l, (launch){TFI_OP_STOP, floats, .a.draw = *a});
}

tf_status tfi_cuda_finish(const tfi_cuda_launch *l, const tfi_finish_args *a, tfi_op_types t, tfi_rows rows)
{
    const launch after_product = {TFI_OP_LINEAR, t, rows, .live = l->live, .a.finish = *a};

    simulated_issue(l->stream, finish, &after_product, sizeof after_product);
    return TF_STATUS_OK;
}

int64_t tfi_cuda_scratch(const tfi_graph *g, const tfi_op *op, const int64_t *limits)
{
    (void)g, (void)op, (void)limits;
    return 0;
}

/* ---- products of few rows: NORM, LINEAR and GLU one after the other ---- */

enum { KEY_PARTS = 2 };

typedef struct few_launch {
    tfi_few_args a;
    const tfi_cuda_live *live;
    tfi_rows rows;
} few_launch;

static void *few_input(const tfi_few_args *a, int64_t rows)
{
    const tfi_worker one_worker = {0, 1, NULL};
    tfi_norm_args norm = a->norm;

    if (!norm.gain) return pick_rows(a->x, a->type, a->from, rows, a->K);
    void *x = pick_rows(norm.x, a->norm_x, a->from, rows, a->K);
    void *residual = pick_rows(norm.residual, a->norm_residual, a->from, rows, a->K),
         *z = malloc((size_t)(rows * a->K * 4 + 1));
    norm.x = x;
    norm.residual = residual;
    norm.y = z;
    norm.R = rows;
    norm.E = a->K;
    tfi_ref_resolve(TFI_OP_NORM, (tfi_op_types){a->norm_x, a->norm_residual, a->type})(&norm, &one_worker);
    if (a->norm.y) memcpy(a->norm.y, z, (size_t)(rows * a->K) * tfi_dtype_size(a->type));
    free(x);
    free(residual);
    return z;
}

void simulated_multiply(const tfi_few_args *a, int64_t rows)
{
    const tfi_worker one_worker = {0, 1, NULL};
    const tfi_weight weight = {.rows = a->N, .cols = a->K, .dtype = a->type};
    const tfi_weight_form form = {.data = (void *)(uintptr_t)a->w};

    assert(rows <= a->M);
    void *x = few_input(a, rows), *sums = a->gated ? malloc((size_t)(rows * a->N * 4 + 1)) : NULL;
    const tfi_linear_args linear = {.x = x,
                                    .weight = &weight,
                                    .form = &form,
                                    .bias = a->bias,
                                    .residual = a->residual,
                                    .y = a->gated ? sums : a->y,
                                    .M = rows,
                                    .N = a->N,
                                    .K = a->K,
                                    .activation = a->gated ? TFI_ACT_NONE : a->activation};
    const tfi_dtype out = a->gated ? TFI_F32 : a->out;
    tfi_ref_resolve(TFI_OP_LINEAR, (tfi_op_types){a->type, out, out})(&linear, &one_worker);
    if (a->gated)
        tfi_ref_resolve(TFI_OP_GLU, (tfi_op_types){TFI_F32, TFI_F32, a->out})(
            &(tfi_glu_args){.x = sums, .y = a->y, .R = rows, .F = a->N / 2, .activation = a->activation}, &one_worker);
    free(sums);
    free(x);
}

/* The processed logits of a row; 0: it holds what no logit may be. */
static int process_row(const tfi_few_args *a, int32_t slot, const float *logits, float *y, float *between)
{
    const tfi_worker one_worker = {0, 1, aligned_alloc(64, 64 << 20)};
    tfi_process_args p = {logits, &slot, (tfi_slot *)(uintptr_t)a->slots, between, 1, a->N, TFI_PROCESS_CONSTRAIN};
    int is_valid = 1;

    tfi_ref_resolve(TFI_OP_LOGITS_PROCESS, floats)(&p, &one_worker);
    p = (tfi_process_args){between, &slot, (tfi_slot *)(uintptr_t)a->slots, y, 1, a->N, TFI_PROCESS_WARP};
    tfi_ref_resolve(TFI_OP_LOGITS_PROCESS, floats)(&p, &one_worker);
    for (int64_t i = 0; i < a->N; i++) is_valid &= logits[i] < INFINITY;
    free(one_worker.scratch);
    return is_valid;
}

/* Keys here: of the token that is drawn, one more than it is; all bits set: of an invalid row. */
static void multiply_keyed(const few_launch *l)
{
    const int64_t rows = l->live->rows[l->rows], N = l->a.N;
    float *logits = malloc((size_t)((rows + 2) * N) * sizeof *logits), *y = logits + rows * N;
    tfi_few_args a = l->a;

    a.y = logits;
    simulated_multiply(&a, rows);
    for (int32_t i = 0; i < l->live->draws; i++) {
        uint64_t *keys = (uint64_t *)l->a.y + i * KEY_PARTS, best = 0;
        assert(a.draws[i].row == i && i < rows && !a.slots[a.draws[i].slot].sampling->logprobs);
        const int is_valid = process_row(&a, a.draws[i].slot, logits + i * N, y, y + N);
        for (int64_t n = 1; n < N; n++)
            if (y[n] > y[best]) best = (uint64_t)n;
        keys[0] = is_valid ? 0 : ~(uint64_t)0;
        keys[1] = best + 1;
    }
    free(logits);
}

static void multiply_few(const void *data)
{
    const few_launch *l = data;
    if (l->a.draws) multiply_keyed(l);
    else simulated_multiply(&l->a, l->live->rows[l->rows]);
}

int64_t tfi_cuda_few_parts(const tfi_cuda_launch *l, const tfi_few_args *a)
{
    return tfi_cuda_few_fits(a, l->capability) && a->out == TFI_F32 && !a->gated && !a->residual ? KEY_PARTS : 0;
}

int tfi_cuda_few_fits(const tfi_few_args *a, int capability)
{
    return capability >= 80 && a->M <= 8 && a->K % 8 == 0;
}

tf_status tfi_cuda_few(const tfi_cuda_launch *l, const tfi_few_args *a, tfi_rows rows)
{
    const few_launch few = {*a, l->live, rows};

    simulated_issue(l->stream, multiply_few, &few, sizeof few);
    return TF_STATUS_OK;
}

int tfi_cuda_many_fits(const tfi_many_args *a, int capability)
{
    (void)a, (void)capability;
    return 0;
}

tf_status tfi_cuda_many(const tfi_cuda_launch *l, const tfi_many_args *a)
{
    (void)l, (void)a;
    return TF_STATUS_UNSUPPORTED;
}

int tfi_cuda_mid_fits(const tfi_mid_args *a, int capability)
{
    (void)a, (void)capability;
    return 0;
}

tf_status tfi_cuda_mid(const tfi_cuda_launch *l, const tfi_mid_args *a, tfi_rows rows)
{
    (void)l, (void)a, (void)rows;
    return TF_STATUS_UNSUPPORTED;
}

/* Whatever else is asked of them: the ops below do it. */
int tfi_cuda_is_greedy(const tfi_sampling *s)
{
    return !s->do_sample && s->num_beams <= 1;
}

/* Draw by draw, through the ops it stands for. */
static void greedy(const void *data)
{
    const launch *l = data;
    const tfi_draw_args *all = &l->a.draw;
    const tfi_worker one_worker = {0, 1, aligned_alloc(64, 64 << 20)};
    float *rows = malloc(2 * (size_t)all->V * sizeof *rows);

    for (int32_t i = 0; i < l->live->draws; i++) {
        const tfi_draw draw = {all->draws[i].slot, 0};
        tfi_process_args p = {
            all->logits + all->draws[i].row * all->V, &draw.slot, all->slots, rows, 1, all->V, TFI_PROCESS_CONSTRAIN};
        const tfi_draw_args a = {rows + all->V, p.x, &draw, all->slots, all->choices + i, 1, all->V};
        assert(tfi_cuda_is_greedy(all->slots[draw.slot].sampling));
        tfi_ref_resolve(TFI_OP_LOGITS_PROCESS, floats)(&p, &one_worker);
        p = (tfi_process_args){rows, &draw.slot, all->slots, rows + all->V, 1, all->V, TFI_PROCESS_WARP};
        tfi_ref_resolve(TFI_OP_LOGITS_PROCESS, floats)(&p, &one_worker);
        tfi_ref_resolve(TFI_OP_SAMPLE, floats)(&a, &one_worker);
        tfi_ref_resolve(TFI_OP_STOP, floats)(&a, &one_worker);
    }
    publish(l->live, all->choices);
    free(rows);
    free(one_worker.scratch);
}

tf_status tfi_cuda_greedy(const tfi_cuda_launch *l, const tfi_draw_args *a)
{
    const launch draws = {TFI_OP_SAMPLE, floats, .live = l->live, .a.draw = *a};

    simulated_issue(l->stream, greedy, &draws, sizeof draws);
    return TF_STATUS_OK;
}

/* Through rows that have nothing but the token. */
static void greedy_of_keys(const void *data)
{
    const launch *l = data;
    const tfi_draw_args *all = &l->a.draw;
    const tfi_worker one_worker = {0, 1, aligned_alloc(64, 64 << 20)};
    float *row = malloc((size_t)all->V * sizeof *row);

    for (int32_t i = 0; i < l->live->draws; i++) {
        const uint64_t *keys = (const uint64_t *)(const void *)all->logits + i * KEY_PARTS;
        const tfi_draw draw = {all->draws[i].slot, 0};
        const tfi_draw_args a = {row, row, &draw, all->slots, all->choices + i, 1, all->V};
        for (int64_t n = 0; n < all->V; n++) row[n] = keys[0] ? NAN : -INFINITY;
        if (!keys[0]) row[keys[1] - 1] = 0;
        tfi_ref_resolve(TFI_OP_SAMPLE, floats)(&a, &one_worker);
        tfi_ref_resolve(TFI_OP_STOP, floats)(&a, &one_worker);
    }
    publish(l->live, all->choices);
    free(row);
    free(one_worker.scratch);
}

tf_status tfi_cuda_greedy_of_keys(const tfi_cuda_launch *l, const tfi_draw_args *a, const uint64_t *keys, int64_t parts)
{
    const launch draws = {TFI_OP_SAMPLE, floats, .live = l->live, .a.draw = *a};

    assert((const void *)keys == a->logits && parts == KEY_PARTS);
    simulated_issue(l->stream, greedy_of_keys, &draws, sizeof draws);
    return TF_STATUS_OK;
}
