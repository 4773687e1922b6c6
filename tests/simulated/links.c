/* A chain on the simulated device: its links one after the other, through an exchange with tags as the real one. What may not
 * happen where links overlap is asserted: that a link writes words or memory that a link had to do with which may not be over
 * yet, or words that are for the first link's x; that a word does not have its writer's tag, or is wide and should be narrow;
 * that a tag was there before. */
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

int tfi_cuda_chain_pays(const tfi_link *links, int count)
{
    (void)links;
    return count > 1;
}

int tfi_cuda_link_fits(const tfi_link *link, tfi_dtype type, int64_t max_tokens, int capability)
{
    const int half = type == TFI_BF16 && (link->y.dtype == TFI_F32 || link->y.dtype == (int)type);

    (void)max_tokens;
    if (capability < 90 || !half) return 0;
    if (link->kind == TFI_LINK_ATTENTION) return link->x.dtype == (int)type && link->y.dtype == (int)type;
    return link->of.product.K % 8 == 0 && (!link->of.product.gated || !link->residual.memory) &&
           (link->of.product.gain || link->x.dtype == (int)type);
}

/* Of the words that a link writes, and of those that it reads as x. */
static int is_wide(const tfi_link *l)
{
    return l->y.dtype == TFI_F32 || l->residual.memory || l->residual.words >= 0;
}

static int wants_wide(const tfi_link *l)
{
    return l->kind == TFI_LINK_PRODUCT && l->of.product.gain;
}

int tfi_cuda_links_meet(const tfi_link *writer, const tfi_link *reader)
{
    return is_wide(writer) == wants_wide(reader);
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

int64_t tfi_cuda_link_words(const tfi_link *link)
{
    return (cols_of(link) + 1) / 2 * 2;
}

int64_t tfi_cuda_link_shares(const tfi_link *link)
{
    return link->kind == TFI_LINK_ATTENTION ? link->of.attention.H : (link->of.product.N + 7) / 8;
}

/* ---- who had to do with what ---- */

/* What gives the first link its x counts as link -1: nothing of it is over at first. */
enum { GIVES = -1, NONE = -2 };

typedef struct range {
    const char *begin, *end;
    int link;
} range;

typedef struct shadow {
    int over[TFI_CHAIN_LINKS]; /* all links up to this one are over as soon as the link writes anything */
    int done[TFI_CHAIN_LINKS]; /* as soon as it has written everything */
    int *word;                 /* the last link that had to do with it; NONE: none of this chain */
    range touched[TFI_CHAIN_LINKS * 3];
    int count;
} shadow;

/* A tile of a product waits for all columns of its x, an item of attention for those of its head; all of either, for all. */
static void find_order(shadow *s, const chain_launch *l)
{
    for (int i = 0; i < l->a.count; i++) {
        const tfi_link *k = &l->links[i];
        const int from = i == 0 ? GIVES : k->x.link - l->a.number;
        const int before = from == GIVES ? GIVES : s->done[from];
        s->over[i] = k->kind == TFI_LINK_PRODUCT ? before : from == GIVES ? NONE : s->over[from];
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

/* As the element's word has it: alone, or with its neighbour. */
static void put_words(const stage *t, int32_t first, uint32_t link, const void *dense, int dtype, int64_t cols, int wide)
{
    const size_t size = tfi_dtype_size((tfi_dtype)dtype);
    const uint64_t tag = t->l->live->tag + link;
    uint64_t *exchange = t->l->a.exchange;

    assert(wide || size == 2);
    for (int64_t i = 0, columns = wide ? 1 : 2; i * columns < cols; i++) {
        uint32_t element = 0;
        const float whole = wide ? simulated_element(dense, size == 4 ? CUDA_R_32F : CUDA_R_16BF, i) : 0;
        const size_t left = (size_t)cols * size - (size_t)i * 4;
        memcpy(&element, wide ? (const char *)&whole : (const char *)dense + i * 4, wide || left > 4 ? 4 : left);
        assert(t->s->word[first + i] <= (t->link == GIVES ? NONE : t->s->over[t->link]));
        exchange[first + i] = tag << 32 | element;
        t->s->word[first + i] = t->link;
    }
}

/* Of dtype again. */
static void take_words(const stage *t, int32_t first, uint32_t link, char *dense, int dtype, int64_t cols, int wide)
{
    const uint64_t *exchange = t->l->a.exchange;

    for (int64_t i = 0, columns = wide ? 1 : 2; i * columns < cols; i++) {
        const uint32_t element = (uint32_t)exchange[first + i];
        const size_t left = (size_t)(cols - i * 2) * 2;
        float whole;
        assert((uint32_t)(exchange[first + i] >> 32) == t->l->live->tag + link);
        t->s->word[first + i] = t->link;
        memcpy(&whole, &element, 4);
        const uint16_t half = tfi_f32_to_bf16(whole);
        if (wide && dtype == TFI_F32) memcpy(dense + i * 4, &whole, 4);
        else if (wide) memcpy(dense + i * 2, &half, 2);
        else memcpy(dense + i * 4, &element, left > 4 ? 4 : left);
    }
}

static const tfi_link *writer_of(const stage *t, const tfi_link_rows *rows)
{
    assert(rows->link >= t->l->a.number && rows->link < t->l->a.number + t->link);
    return &t->l->links[rows->link - t->l->a.number];
}

/* The first link's x, from memory. */
static void give_first(const stage *t, const tfi_link *k, int64_t cols)
{
    assert(k->x.words < 0 && k->x.memory);
    touch(t->s, GIVES, k->x.memory, cols * (int64_t)tfi_dtype_size((tfi_dtype)k->x.dtype), 0);
    put_words(t, t->l->a.given, (uint32_t)t->l->a.number, k->x.memory, k->x.dtype, cols, wants_wide(k));
}

/* The row dense in memory; to be freed. */
static void *take_x(const stage *t, const tfi_link *k, int64_t cols)
{
    char *dense = malloc((size_t)cols * 4 + 8);

    if (t->link == 0) {
        take_words(t, t->l->a.given, (uint32_t)t->l->a.number, dense, k->x.dtype, cols, wants_wide(k));
        return dense;
    }
    const tfi_link *writer = writer_of(t, &k->x);
    assert(!k->x.memory && k->x.words >= 0 && writer->y.words == k->x.words && writer->y.dtype == k->x.dtype);
    assert(tfi_cuda_links_meet(writer, k));
    take_words(t, k->x.words, (uint32_t)k->x.link, dense, k->x.dtype, cols, wants_wide(k));
    return dense;
}

static void *take_residual(const stage *t, const tfi_link_rows *from, int64_t cols)
{
    const size_t bytes = (size_t)cols * tfi_dtype_size((tfi_dtype)from->dtype);
    char *dense = malloc(bytes + 8);

    if (from->words < 0 && !from->memory) return free(dense), NULL;
    assert((from->words < 0) != (from->memory == NULL));
    if (from->memory) {
        touch(t->s, t->link, from->memory, (int64_t)bytes, 0);
        return memcpy(dense, from->memory, bytes);
    }
    take_words(t, from->words, (uint32_t)from->link, dense, from->dtype, cols, is_wide(writer_of(t, from)));
    return dense;
}

static void give(const stage *t, const tfi_link *k, const void *dense, int64_t cols)
{
    const int64_t bytes = cols * (int64_t)tfi_dtype_size((tfi_dtype)k->y.dtype);

    assert(k->y.memory || k->y.words >= 0);
    if (k->y.words >= 0) put_words(t, k->y.words, (uint32_t)(t->l->a.number + t->link), dense, k->y.dtype, cols, is_wide(k));
    if (!k->y.memory) return;
    touch(t->s, t->link, k->y.memory, bytes, 1);
    memcpy(k->y.memory, dense, (size_t)bytes);
}

/* ---- links ---- */

static void multiply(const stage *t, const tfi_link *k)
{
    const int64_t N = cols_of(k);
    void *x = take_x(t, k, k->of.product.K), *residual = take_residual(t, &k->residual, N), *y = malloc((size_t)N * 4 + 8);
    tfi_few_args a = {
        .norm = {.gain = k->of.product.gain, .bias = k->of.product.shift, .norm = k->of.product.norm, .eps = k->of.product.eps},
        .norm_x = (tfi_dtype)k->x.dtype,
        .w = k->of.product.w,
        .bias = k->of.product.bias,
        .residual = residual,
        .y = y,
        .M = 1,
        .N = k->of.product.N,
        .K = k->of.product.K,
        .type = t->l->a.type,
        .out = (tfi_dtype)k->y.dtype,
        .activation = k->of.product.activation,
        .gated = k->of.product.gated};

    if (a.norm.gain) a.norm.x = x;
    else a.x = x;
    simulated_multiply(&a, 1);
    give(t, k, y, N);
    free(x);
    free(residual);
    free(y);
}

static void attend(const stage *t, const tfi_link *k)
{
    const chain_launch *l = t->l;
    const int source = k->of.attention.source;
    const int64_t cols = input_cols(k), N = cols_of(k);
    const int32_t offsets[] = {0, 1}, H = k->of.attention.H, D = k->of.attention.D;
    const tfi_op_types types = {l->a.type, l->a.type, l->a.type};
    const tfi_worker one_worker = {0, 1, aligned_alloc(64, 64 << 20)};
    tfi_kv_view kv = source ? l->a.source : l->a.own;
    void *x = take_x(t, k, cols), *y = malloc((size_t)N * 4 + 8);

    assert(kv.store && l->live->rows[TFI_ROWS_SEQUENCES] == 1 && l->live->longest == 1 && kv.lens[0] <= l->a.max_tokens);
    kv.layer = k->of.attention.layer;
    kv.stride = source ? l->live->source_stride : l->live->table_stride;
    const tfi_kv_append_args append = {.x = x,
                                       .x_stride = cols,
                                       .offsets = offsets,
                                       .kv = kv,
                                       .R = 1,
                                       .B = 1,
                                       .H = H,
                                       .D = D,
                                       .column = k->of.attention.column};
    const tfi_attention_args attention = {.x = x,
                                          .x_stride = cols,
                                          .offsets = offsets,
                                          .kv = kv,
                                          .bias = k->of.attention.bias,
                                          .max_distance = k->of.attention.max_distance,
                                          .y = y,
                                          .R = 1,
                                          .B = 1,
                                          .H = H,
                                          .D = D,
                                          .attend = source ? TFI_ATTEND_SOURCE : TFI_ATTEND_CACHE,
                                          .scale = k->of.attention.scale};
    if (!source) tfi_ref_resolve(TFI_OP_KV_APPEND, types)(&append, &one_worker);
    tfi_ref_resolve(TFI_OP_ATTENTION, types)(&attention, &one_worker);
    give(t, k, y, N);
    free(x);
    free(y);
    free(one_worker.scratch);
}

/* ---- the chain ---- */

/* Of all links; none of theirs are for the first one's x. */
static int64_t words_behind(const chain_launch *l)
{
    const int64_t given = l->a.given + input_cols(&l->links[0]);
    int64_t most = given;

    assert(l->a.given % 2 == 0);
    for (int i = 0; i < l->a.count; i++) {
        const tfi_link *k = &l->links[i];
        const int64_t end = k->y.words < 0 ? 0 : k->y.words + tfi_cuda_link_words(k);
        assert(k->y.words < 0 || k->y.words >= given || end <= l->a.given);
        if (end > most) most = end;
    }
    return most;
}

static int lives(const chain_launch *l, int i)
{
    return l->live->rows[l->links[i].rows] > 0;
}

static void perform(const void *data)
{
    const chain_launch *l = data;
    const int64_t words = words_behind(l);
    const uint32_t first = l->live->tag + (uint32_t)l->a.number;
    shadow s = {.word = malloc((size_t)words * sizeof(int))};

    for (int i = 0; i < TFI_ROWS_COUNT; i++) assert(l->live->rows[i] <= 1);
    assert(first > 0 && first + (uint32_t)l->a.count > first);
    for (int64_t i = 0; i < words; i++) {
        s.word[i] = NONE;
        assert((uint32_t)(((const uint64_t *)l->a.exchange)[i] >> 32) - first >= (uint32_t)l->a.count);
    }
    find_order(&s, l);
    if (lives(l, 0)) give_first(&(stage){l, &s, GIVES}, &l->links[0], input_cols(&l->links[0]));
    for (int i = 0; i < l->a.count; i++) {
        const stage t = {l, &s, i};
        if (!lives(l, i)) continue;
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
