/* A chain on the simulated device: its links one after the other, through an exchange with tags as the real one. What may not
 * happen where links overlap is asserted: that a link writes words or memory that a link had to do with which may not be over
 * yet, that a word does not have its writer's tag, that a tag was there before. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "simulated/simulated.h"

typedef struct chain_launch {
    tfi_chain_args a;
    const tfi_cuda_live *live;
    tfi_link links[TFI_CHAIN_LINKS];
} chain_launch;

simulated_chain simulated_chains[SIMULATED_CHAINS];
int simulated_chain_count;

int tfi_cuda_chain_pays(const tfi_link *links, int count, int64_t M)
{
    (void)links;
    (void)count;
    (void)M;
    return 1;
}

int tfi_cuda_link_fits(const tfi_link *link, tfi_dtype type, int64_t M, int64_t max_tokens, int capability)
{
    const int half = type == TFI_BF16 && (link->y.dtype == TFI_F32 || link->y.dtype == (int)type);

    (void)max_tokens;
    if (capability < 90 || M > TFI_CHAIN_ROWS || !half) return 0;
    if (link->kind == TFI_LINK_ATTENTION) return link->x.dtype == (int)type && link->y.dtype == (int)type;
    return link->of.product.K % 8 == 0 && (!link->of.product.gated || !link->residual.memory) &&
           (link->of.product.gain || link->x.dtype == (int)type);
}

static int64_t cols_of(const tfi_link *l)
{
    if (l->kind == TFI_LINK_ATTENTION) return (int64_t)l->of.attention.H * l->of.attention.D;
    return l->of.product.gated ? l->of.product.N / 2 : l->of.product.N;
}

static int64_t input_cols(const tfi_link *l)
{
    if (l->kind == TFI_LINK_PRODUCT) return l->of.product.K;
    return l->of.attention.source ? cols_of(l) : l->of.attention.column + 2 * cols_of(l);
}

static int64_t words_of(int dtype, int64_t cols)
{
    return (cols * (int64_t)tfi_dtype_size((tfi_dtype)dtype) + 3) / 4;
}

int64_t tfi_cuda_link_words(const tfi_link *link, int64_t M)
{
    return M * words_of(link->y.dtype, cols_of(link));
}

int64_t tfi_cuda_link_tiles(const tfi_link *link, int64_t M)
{
    return link->kind == TFI_LINK_ATTENTION ? M * link->of.attention.H : (link->of.product.N + 7) / 8;
}

/* ---- who had to do with what ---- */

typedef struct range {
    const char *begin, *end;
    int link;
} range;

typedef struct shadow {
    int over[TFI_CHAIN_LINKS]; /* all links up to this one are over as soon as the link writes anything */
    int done[TFI_CHAIN_LINKS]; /* as soon as it has written everything */
    int *word;                 /* the last link that had to do with it; -1: none of this chain */
    range touched[TFI_CHAIN_LINKS * 3];
    int count;
} shadow;

/* A tile of a product waits for all columns of its x, an item of attention for those of its head; all of either, for all. */
static void find_order(shadow *s, const chain_launch *l)
{
    for (int i = 0; i < l->a.count; i++) {
        const tfi_link *k = &l->links[i];
        const int from = k->x.words < 0 ? -1 : k->x.link - l->a.number;
        const int before = from < 0 ? -1 : s->done[from];
        s->over[i] = k->kind == TFI_LINK_PRODUCT ? before : from < 0 ? -1 : s->over[from];
        s->done[i] = before >= i - 1 ? i : before;
    }
}

static void touch(shadow *s, int link, const void *p, int64_t bytes, int writes)
{
    const range r = {p, (const char *)p + bytes, link};

    for (int i = 0; writes && i < s->count; i++)
        assert(s->touched[i].link <= s->over[link] || s->touched[i].end <= r.begin || r.end <= s->touched[i].begin);
    s->touched[s->count++] = r;
}

/* ---- rows in and out ---- */

typedef struct stage {
    const chain_launch *l;
    shadow *s;
    int link;
} stage;

/* Rows dense in memory; to be freed. */
static void *take(const stage *t, const tfi_link_rows *from, int64_t rows, int64_t cols)
{
    const size_t row = (size_t)cols * tfi_dtype_size((tfi_dtype)from->dtype);
    const int64_t words = words_of(from->dtype, cols);
    const uint64_t *exchange = t->l->a.exchange;
    char *dense = malloc((size_t)rows * row + 8);

    if (from->words < 0 && !from->memory) return free(dense), NULL;
    assert((from->words < 0) != (from->memory == NULL));
    if (from->memory) {
        touch(t->s, t->link, from->memory, rows * (int64_t)row, 0);
        return memcpy(dense, from->memory, (size_t)rows * row);
    }
    assert(from->link >= t->l->a.number && from->link < t->l->a.number + t->link);
    for (int64_t m = 0; m < rows; m++) {
        for (int64_t i = 0; i < words; i++) {
            const int64_t at = from->words + m * words + i;
            const uint32_t element = (uint32_t)exchange[at];
            const size_t left = row - (size_t)i * 4;
            assert((uint32_t)(exchange[at] >> 32) == t->l->live->tag + (uint32_t)from->link);
            memcpy(dense + (size_t)m * row + (size_t)i * 4, &element, left < 4 ? left : 4);
            t->s->word[at] = t->link;
        }
    }
    return dense;
}

static void give(const stage *t, const tfi_link_rows *to, const void *dense, int64_t rows, int64_t cols)
{
    const size_t row = (size_t)cols * tfi_dtype_size((tfi_dtype)to->dtype);
    const int64_t words = words_of(to->dtype, cols);
    const uint64_t tag = t->l->live->tag + (uint32_t)(t->l->a.number + t->link);
    uint64_t *exchange = t->l->a.exchange;

    assert(to->memory || to->words >= 0);
    if (to->memory) {
        touch(t->s, t->link, to->memory, rows * (int64_t)row, 1);
        memcpy(to->memory, dense, (size_t)rows * row);
    }
    for (int64_t m = 0; to->words >= 0 && m < rows; m++) {
        for (int64_t i = 0; i < words; i++) {
            const int64_t at = to->words + m * words + i;
            uint32_t element = 0;
            const size_t left = row - (size_t)i * 4;
            memcpy(&element, (const char *)dense + (size_t)m * row + (size_t)i * 4, left < 4 ? left : 4);
            assert(t->s->word[at] <= t->s->over[t->link]);
            exchange[at] = tag << 32 | element;
            t->s->word[at] = t->link;
        }
    }
}

/* ---- links ---- */

static void multiply(const stage *t, const tfi_link *k)
{
    const tfi_cuda_live *live = t->l->live;
    const int64_t rows = live->rows[k->rows], in = k->of.product.from ? live->rows[TFI_ROWS_TOKENS] : rows, N = cols_of(k);
    const tfi_dtype type = t->l->a.type;
    void *x = take(t, &k->x, in, k->of.product.K), *residual = take(t, &k->residual, rows, N),
         *y = malloc((size_t)(rows * N * 4 + 8));
    tfi_few_args a = {
        .norm = {.gain = k->of.product.gain, .bias = k->of.product.shift, .norm = k->of.product.norm, .eps = k->of.product.eps},
        .norm_x = (tfi_dtype)k->x.dtype,
        .from = k->of.product.from,
        .w = k->of.product.w,
        .bias = k->of.product.bias,
        .residual = residual,
        .y = y,
        .M = rows,
        .N = k->of.product.N,
        .K = k->of.product.K,
        .type = type,
        .out = (tfi_dtype)k->y.dtype,
        .activation = k->of.product.activation,
        .gated = k->of.product.gated};

    if (a.norm.gain) a.norm.x = x;
    else a.x = x;
    simulated_multiply(&a, rows);
    give(t, &k->y, y, rows, N);
    free(x);
    free(residual);
    free(y);
}

static void attend(const stage *t, const tfi_link *k)
{
    const chain_launch *l = t->l;
    const int source = k->of.attention.source;
    const int64_t B = l->live->rows[TFI_ROWS_SEQUENCES], cols = input_cols(k), N = cols_of(k);
    const tfi_op_types types = {l->a.type, l->a.type, l->a.type};
    const tfi_worker one_worker = {0, 1, aligned_alloc(64, 64 << 20)};
    tfi_kv_view kv = source ? l->a.source : l->a.own;
    void *x = take(t, &k->x, B, cols), *y = malloc((size_t)(B * N * 4 + 8));
    int32_t offsets[TFI_CHAIN_ROWS + 1];

    assert(kv.store && l->live->rows[TFI_ROWS_TOKENS] == B && l->live->longest == 1);
    for (int i = 0; i <= TFI_CHAIN_ROWS; i++) offsets[i] = i;
    kv.layer = k->of.attention.layer;
    kv.stride = source ? l->live->source_stride : l->live->table_stride;
    for (int64_t b = 0; b < B; b++) assert(kv.lens[b] <= l->a.max_tokens);
    if (!source)
        tfi_ref_resolve(TFI_OP_KV_APPEND, types)(&(tfi_kv_append_args){.x = x,
                                                                       .x_stride = cols,
                                                                       .offsets = offsets,
                                                                       .kv = kv,
                                                                       .R = B,
                                                                       .B = B,
                                                                       .H = k->of.attention.H,
                                                                       .D = k->of.attention.D,
                                                                       .column = k->of.attention.column},
                                                 &one_worker);
    tfi_ref_resolve(TFI_OP_ATTENTION, types)(&(tfi_attention_args){.x = x,
                                                                   .x_stride = cols,
                                                                   .offsets = offsets,
                                                                   .kv = kv,
                                                                   .bias = k->of.attention.bias,
                                                                   .max_distance = k->of.attention.max_distance,
                                                                   .y = y,
                                                                   .R = B,
                                                                   .B = B,
                                                                   .H = k->of.attention.H,
                                                                   .D = k->of.attention.D,
                                                                   .attend = source ? TFI_ATTEND_SOURCE : TFI_ATTEND_CACHE,
                                                                   .scale = k->of.attention.scale},
                                             &one_worker);
    give(t, &k->y, y, B, N);
    free(x);
    free(y);
    free(one_worker.scratch);
}

/* ---- the chain ---- */

static int64_t words_behind(const chain_launch *l)
{
    int64_t most = 0;

    for (int i = 0; i < l->a.count; i++) {
        const tfi_link *k = &l->links[i];
        const int64_t end = k->y.words < 0 ? 0 : k->y.words + tfi_cuda_link_words(k, l->a.M);
        if (end > most) most = end;
    }
    return most;
}

static void perform(const void *data)
{
    const chain_launch *l = data;
    const int64_t words = words_behind(l);
    const uint32_t first = l->live->tag + (uint32_t)l->a.number;
    shadow s = {.word = malloc((size_t)(words + 1) * sizeof(int))};

    for (int i = 0; i < TFI_ROWS_COUNT; i++) assert(l->live->rows[i] <= l->a.M);
    assert(first > 0 && first + (uint32_t)l->a.count > first);
    for (int64_t i = 0; i < words; i++) {
        s.word[i] = -2;
        assert((uint32_t)(((const uint64_t *)l->a.exchange)[i] >> 32) - first >= (uint32_t)l->a.count);
    }
    find_order(&s, l);
    for (int i = 0; i < l->a.count; i++) {
        const stage t = {l, &s, i};
        if (l->links[i].kind == TFI_LINK_PRODUCT) multiply(&t, &l->links[i]);
        else attend(&t, &l->links[i]);
    }
    free(s.word);
}

tf_status tfi_cuda_chain(const tfi_cuda_launch *on, const tfi_chain_args *a)
{
    static chain_launch l; /* copied when it is issued */
    simulated_chain *record = &simulated_chains[simulated_chain_count++ % SIMULATED_CHAINS];

    assert(a->count > 1 && a->count <= TFI_CHAIN_LINKS && on->capability >= 90);
    l.a = *a;
    l.live = on->live;
    memcpy(l.links, a->links, (size_t)a->count * sizeof *a->links);
    record->live = on->live;
    record->a = *a;
    memcpy(record->links, a->links, (size_t)a->count * sizeof *a->links);
    simulated_issue(on->stream, perform, &l, sizeof l);
    return TF_STATUS_OK;
}
