/* Chains of links: layers of random shapes as GPT and T5 have them, from a row in memory to logits, in words all the way, or
 * from the middle of a layer. What each link wrote to memory too is compared with what its own inputs, as the device had
 * them, should give. The exchange is full of NaN, then of the last run's words; the store is full of NaN but for what
 * earlier runs stored. */
#include <stdlib.h>

#include "cuda_check.h"

enum { LINKS_MAX = 24, NONE = LINKS_MAX, LAYERS = 2, STORED = LAYERS + 1, DISTANCE = 20, RUNS = 3 };

typedef struct chain_link {
    int x, residual; /* numbers of links; -1, -2: rows that are given, NONE: none */
    float *w, *bias, *gain, *shift;
    device_out y;
    const void *result; /* of the device */
} chain_link;

typedef struct chain_store {
    tfi_store store;
    tfi_kv_view view;
    int32_t len, *table;
    float *values; /* of all elements, as if all had been stored */
} chain_store;

typedef struct chain_case {
    tfi_link links[LINKS_MAX];
    chain_link of[LINKS_MAX];
    tfi_chain_args a;
    tfi_dtype stream; /* of rows that residuals are added to */
    tfi_cuda_live live;
    chain_store own, source;
    tfi_link_rows given[2]; /* in memory */
    float *given_values[2];
    int32_t E, H, D, F;
    int64_t words;
    int relative; /* as T5: RMS, no biases but one by distance, a source */
} chain_case;

/* ---- making ---- */

static int64_t columns_of(const tfi_link *l)
{
    if (l->kind == TFI_LINK_ATTENTION) return (int64_t)l->of.attention.H * l->of.attention.D;
    return l->of.product.gated ? l->of.product.N / 2 : l->of.product.N;
}

static int64_t columns_of_x(const tfi_link *l)
{
    if (l->kind == TFI_LINK_PRODUCT) return l->of.product.K;
    return l->of.attention.source ? columns_of(l) : l->of.attention.column + 2 * columns_of(l);
}

/* Row -1 or -2 is in memory, anywhere. */
static void give(chain_case *c, int row, tfi_dtype type, int64_t columns, float high)
{
    const int i = -1 - row;

    c->given[i] = (tfi_link_rows){.words = -1, .dtype = (int16_t)type};
    c->given[i].memory = device_values(type, columns, -1, high, pick(0, 1) ? pick(0, 7) : 0, &c->given_values[i]);
}

static tfi_link_rows rows_of(const chain_case *c, int link)
{
    if (link == NONE) return (tfi_link_rows){.words = -1};
    if (link < 0) return c->given[-1 - link];
    tfi_link_rows rows = c->links[link].y;
    rows.memory = NULL;
    return rows;
}

/* Where the next words begin. */
static int32_t take_words(chain_case *c, int64_t count)
{
    const int32_t at = (int32_t)c->words;

    c->words += (count + 15) / 16 * 16 + 16 * pick(0, 2);
    return at;
}

/* Add a link; its number. */
static int add(chain_case *c, tfi_link l, int x, int residual, tfi_dtype y, int is_last)
{
    const int i = c->a.count++;
    chain_link *of = &c->of[i];

    of->x = x;
    of->residual = residual;
    of->y = device_output(y, columns_of(&l), 0);
    l.x = rows_of(c, x);
    l.residual = rows_of(c, residual);
    l.y = (tfi_link_rows){.memory = of->y.data, .words = -1, .link = (int16_t)(c->a.number + i), .dtype = (int16_t)y};
    if (i == 0) c->a.given = take_words(c, columns_of_x(&l));
    if (!is_last) l.y.words = take_words(c, tfi_cuda_link_words(&l));
    l.first = pick(0, 300);
    c->links[i] = l;
    CHECK(tfi_cuda_link_fits(&l, c->a.type, c->a.max_tokens, device_capability));
    CHECK(x < 0 || tfi_cuda_links_meet(&c->links[x], &l));
    return i;
}

static int add_product(chain_case *c, int x, int residual, tfi_dtype y, int32_t N, int32_t K, tfi_activation activation,
                       int gated, int is_last)
{
    chain_link *of = &c->of[c->a.count];
    const float scale = 1.7f / sqrtf((float)K);
    const int normed = residual == NONE, has_bias = !c->relative;
    tfi_link l = {.kind = TFI_LINK_PRODUCT, .rows = is_last ? TFI_ROWS_SELECTED : TFI_ROWS_TOKENS};

    l.of.product.w = device_values(c->a.type, (int64_t)N * K, -scale, scale, 0, &of->w);
    if (has_bias) l.of.product.bias = device_values(TFI_F32, N, -0.2f, 0.2f, 0, &of->bias);
    if (normed) l.of.product.gain = device_values(TFI_F32, K, 0.5f, 1.5f, 0, &of->gain);
    if (normed && !c->relative) l.of.product.shift = device_values(TFI_F32, K, -0.2f, 0.2f, 0, &of->shift);
    l.of.product.N = N;
    l.of.product.K = K;
    l.of.product.eps = 1e-5f;
    l.of.product.norm = (uint8_t)(c->relative ? TFI_NORM_RMS : TFI_NORM_LAYER);
    l.of.product.activation = (uint8_t)activation;
    l.of.product.gated = (uint8_t)gated;
    return add(c, l, x, residual, y, is_last);
}

static int add_attention(chain_case *c, int x, int layer, int source)
{
    tfi_link l = {.kind = TFI_LINK_ATTENTION, .rows = TFI_ROWS_TOKENS};

    l.of.attention.layer = layer;
    l.of.attention.H = c->H;
    l.of.attention.D = c->D;
    l.of.attention.source = (uint8_t)source;
    l.of.attention.scale = c->relative ? 0.4f : 1 / sqrtf((float)c->D);
    l.of.attention.max_distance = DISTANCE;
    if (!source) l.of.attention.column = c->H * c->D;
    if (!source && c->relative)
        l.of.attention.bias = device_values(TFI_F32, c->H * (2 * DISTANCE + 1), -1, 1, 0, &c->of[c->a.count].bias);
    return add(c, l, x, NONE, c->a.type, 0);
}

static int64_t element_of(const chain_case *c, const chain_store *s, int layer, int side, int head, int token)
{
    const int64_t block = s->table[token / TFI_KV_BLOCK], plane = ((block * STORED + layer) * 2 + side) * c->H + head;

    return (plane * TFI_KV_BLOCK + token % TFI_KV_BLOCK) * c->D;
}

/* Tokens that earlier runs stored: of a source all. */
static int stored_of(const chain_case *c, const chain_store *s)
{
    return s->len - (s == &c->own);
}

static void fill_store(const chain_case *c, const chain_store *s, void *typed)
{
    const int planes = STORED * 2 * c->H;

    for (int i = 0; i < stored_of(c, s) * planes; i++) {
        const int64_t at = element_of(c, s, i % planes / c->H / 2, i % planes / c->H % 2, i % c->H, i / planes);
        for (int d = 0; d < c->D; d++) typed_put(typed, c->a.type, at + d, s->values[at + d]);
    }
}

static void make_store(chain_case *c, chain_store *s)
{
    static const int32_t lens[] = {1, 2, 15, 16, 17, 18, 64, 65, 140, 400};

    s->len = s == &c->source && pick(0, 5) == 0 ? 0 : lens[pick(0, at_most(9, 7))];
    const int64_t blocks = (s->len + TFI_KV_BLOCK - 1) / TFI_KV_BLOCK + pick(0, 3), step = blocks % 7 ? 7 : 1;
    s->table = host_bytes(blocks * 4);
    for (int64_t i = 0; i < blocks; i++) s->table[i] = (int32_t)((i * step + 3) % blocks);
    s->store.shape = (tfi_store_shape){STORED, c->H, c->D, c->a.type, blocks, 0};
    const int64_t bytes = blocks * tfi_kv_block_bytes(&s->store.shape);
    void *typed = host_bytes(bytes);
    memset(typed, 0xff, (size_t)bytes);
    (void)device_values(c->a.type, bytes / 2, -1, 1, 0, &s->values);
    fill_store(c, s, typed);
    s->store.blocks = device_copy(typed, bytes);
    s->view = (tfi_kv_view){.store = &s->store,
                            .lens = device_copy(&s->len, sizeof s->len),
                            .tables = device_copy(s->table, blocks * 4),
                            .stride = blocks};
    if (s->len > c->a.max_tokens) c->a.max_tokens = s->len;
}

/* What attention gives becomes part of the stream again. */
static int leave(chain_case *c, int y, int x)
{
    return add_product(c, y, x, c->stream, c->E, c->H * c->D, TFI_ACT_NONE, 0, 0);
}

static int feed_forward(chain_case *c, int x)
{
    const int gated = c->relative && pick(0, 1);
    const tfi_activation activation = (tfi_activation)pick(TFI_ACT_NONE, TFI_ACT_SILU);
    const int y = add_product(c, x, NONE, c->a.type, gated ? 2 * c->F : c->F, c->E, activation, gated, 0);

    return add_product(c, y, x, c->stream, c->E, c->F, TFI_ACT_NONE, 0, 0);
}

static int make_layer(chain_case *c, int layer, int x)
{
    const int32_t inner = c->H * c->D;
    int y = add_product(c, x, NONE, c->a.type, 3 * inner, c->E, TFI_ACT_NONE, 0, 0);

    x = leave(c, add_attention(c, y, layer, 0), x);
    if (c->relative) {
        y = add_product(c, x, NONE, c->a.type, inner, c->E, TFI_ACT_NONE, 0, 0);
        x = leave(c, add_attention(c, y, layer, 1), x);
    }
    return feed_forward(c, x);
}

/* A chain that begins within a layer, with attention or behind it. */
static int begin_within(chain_case *c, int attention)
{
    const int source = c->relative && pick(0, 1), inner = c->H * c->D;

    give(c, -1, c->a.type, attention && !source ? 3 * inner : inner, 1);
    give(c, -2, c->stream, c->E, 3);
    return leave(c, attention ? add_attention(c, -1, LAYERS, source) : -1, -2);
}

static void make_case(chain_case *c)
{
    static const int32_t es[] = {32, 64, 320, 768, 800, 1600, 2048}, ds[] = {8, 32, 64, 96, 128},
                         fs[] = {32, 96, 2048, 2080, 4096};
    const int begins = pick(0, 3), alive = pick(0, 9) > 0;
    int x = -1;

    memset(c, 0, sizeof *c);
    c->a.links = c->links;
    c->a.number = pick(0, 3);
    c->a.type = pick(0, 1) ? TFI_BF16 : TFI_F16;
    c->stream = pick(0, 1) ? TFI_F32 : c->a.type;
    c->relative = pick(0, 1);
    c->E = at_most(es[pick(0, 6)], 320);
    c->D = ds[pick(0, 4)];
    c->F = at_most(fs[pick(0, 4)], pick(0, 3) ? 96 : 2080);
    c->H = c->D == 8 ? 4 * pick(1, 3) : pick(1, at_most(9, 3));
    c->live.rows[TFI_ROWS_TOKENS] = c->live.rows[TFI_ROWS_SEQUENCES] = alive;
    c->live.rows[TFI_ROWS_SELECTED] = alive && pick(0, 5) > 0;
    make_store(c, &c->own);
    make_store(c, &c->source);
    c->live.table_stride = c->own.view.stride;
    c->live.source_stride = c->source.view.stride;
    c->a.own = c->own.view;
    c->a.source = c->source.view;
    if (begins > 1) x = begin_within(c, begins == 2);
    else give(c, -1, c->stream, c->E, 3);
    for (int layer = 0; layer < LAYERS; layer++) x = make_layer(c, layer, x);
    (void)add_product(c, x, NONE, TFI_F32, pick(1, at_most(3000, 300)), c->E, TFI_ACT_NONE, 0, 1);
    c->a.exchange = device_bytes(c->words * 8);
}

/* ---- what it should be ---- */

/* Element of a row that a link reads, as the device had it. */
static double read_row(const chain_case *c, int link, int64_t i)
{
    if (link < 0) return (double)c->given_values[-1 - link][i];
    return typed_get(c->of[link].result, (tfi_dtype)c->links[link].y.dtype, i);
}

static float active(tfi_activation activation, double v)
{
    switch (activation) {
    case TFI_ACT_RELU:
        return v > 0 ? (float)v : 0;
    case TFI_ACT_GELU:
        return (float)(0.5 * v * erfc(-v * sqrt(0.5)));
    case TFI_ACT_GELU_TANH:
        return (float)(0.5 * v * (1 + tanh(0.7978845608028654 * (v + 0.044715 * v * v * v))));
    case TFI_ACT_SILU:
        return (float)(v / (1 + exp(-v)));
    default:
        return (float)v;
    }
}

static double rounded(tfi_dtype t, float v)
{
    uint16_t bits;
    typed_put(&bits, t, 0, v);
    return typed_get(&bits, t, 0);
}

/* x, normed as the kernel does: x times the gains, the gains and the shifts are rounded, mean and factor join at the end. */
static void read_x(const chain_case *c, int i, float *z)
{
    const chain_link *of = &c->of[i];
    const tfi_dtype type = c->a.type;
    const int32_t K = c->links[i].of.product.K;
    double mean = 0, squares = 0;

    for (int k = 0; k < K; k++) mean += read_row(c, of->x, k) / K;
    if (c->relative) mean = 0;
    for (int k = 0; k < K; k++) {
        z[k] = (float)read_row(c, of->x, k);
        squares += ((double)z[k] - mean) * ((double)z[k] - mean);
    }
    if (!of->gain) return;
    const double factor = 1 / sqrt(squares / K + 1e-5f);
    for (int k = 0; k < K; k++) {
        const double gain = mean != 0 ? rounded(type, of->gain[k]) : 0, shift = of->shift ? rounded(type, of->shift[k]) : 0;
        z[k] = (float)((rounded(type, z[k] * of->gain[k]) - mean * gain) * factor + shift);
    }
}

static float dot(const float *a, const float *b, int32_t n)
{
    float sums[4] = {0};
    for (int32_t i = 0; i < n; i++) sums[i % 4] += a[i] * b[i];
    return sums[0] + sums[1] + (sums[2] + sums[3]);
}

static void expect_product(const chain_case *c, int i, float *y)
{
    const tfi_link *l = &c->links[i];
    const chain_link *of = &c->of[i];
    const int32_t K = l->of.product.K;
    const int64_t columns = columns_of(l);
    float *z = host_bytes(K * 4);

    read_x(c, i, z);
    for (int64_t n = 0; n < columns; n++) {
        const float left = dot(z, of->w + n * K, K) + (of->bias ? of->bias[n] : 0);
        y[n] = active((tfi_activation)l->of.product.activation, (double)left);
        if (l->of.product.gated) y[n] *= dot(z, of->w + (n + columns) * K, K) + (of->bias ? of->bias[n + columns] : 0);
        if (of->residual != NONE) y[n] += (float)read_row(c, of->residual, n);
    }
}

/* Key (side 0) or value of a token, as floats: from the store, or, where it is the run's own, from x. */
static void read_token(const chain_case *c, int i, int side, int head, int token, float *v)
{
    const tfi_link *l = &c->links[i];
    const chain_store *s = l->of.attention.source ? &c->source : &c->own;

    if (token < stored_of(c, s)) {
        memcpy(v, s->values + element_of(c, s, l->of.attention.layer, side, head, token), (size_t)c->D * 4);
        return;
    }
    for (int d = 0; d < c->D; d++) v[d] = (float)read_row(c, c->of[i].x, (1 + side) * columns_of(l) + head * c->D + d);
}

static void expect_head(const chain_case *c, int i, int head, float *y)
{
    const tfi_link *l = &c->links[i];
    const int32_t len = l->of.attention.source ? c->source.len : c->own.len;
    double total = 0;
    float q[256], v[256];

    for (int d = 0; d < c->D; d++) q[d] = (float)read_row(c, c->of[i].x, head * c->D + d);
    for (int token = 0; token < len; token++) {
        const int distance = token - (len - 1);
        read_token(c, i, 0, head, token, v);
        double score = (double)(dot(q, v, c->D) * l->of.attention.scale);
        if (c->of[i].bias)
            score += (double)c->of[i].bias[head * (2 * DISTANCE + 1) + (distance < -DISTANCE ? 0 : distance + DISTANCE)];
        read_token(c, i, 1, head, token, v);
        total += exp(score);
        for (int d = 0; d < c->D; d++) y[d] += (float)exp(score) * v[d];
    }
    for (int d = 0; d < c->D && total > 0; d++) y[d] /= (float)total;
}

static void check_appended(const chain_case *c, int i, int head)
{
    const chain_store *s = &c->own;
    char bytes[512];
    float v[256];

    for (int side = 0; side < 2; side++) {
        const int64_t at = element_of(c, s, c->links[i].of.attention.layer, side, head, s->len - 1);
        int wrong = 0;
        read_token(c, i, side, head, s->len - 1, v);
        device_ok(cudaMemcpy(bytes, s->store.blocks + at * 2, (size_t)c->D * 2, cudaMemcpyDeviceToHost), "cudaMemcpy");
        for (int d = 0; d < c->D; d++) wrong += (float)typed_get(bytes, c->a.type, d) != v[d];
        CHECK_INT(wrong, 0);
    }
}

static void check_link(chain_case *c, int i)
{
    const tfi_link *l = &c->links[i];
    const int64_t columns = columns_of(l);
    const int rows = c->live.rows[l->rows];
    float *y = host_bytes(columns * 4);

    c->of[i].result = device_result(&c->of[i].y, (tfi_dtype)l->y.dtype, rows * columns);
    if (rows == 0) return;
    if (l->kind == TFI_LINK_PRODUCT) expect_product(c, i, y);
    for (int head = 0; l->kind == TFI_LINK_ATTENTION && head < c->H; head++) {
        expect_head(c, i, head, y + head * c->D);
        if (!l->of.attention.source) check_appended(c, i, head);
    }
    check_rows(c->of[i].result, (tfi_dtype)l->y.dtype, y, 1, columns, 1e-4);
}

/* ---- kinds ---- */

/* The `run`th, with words' tags of its own. */
static void run_chain(chain_case *c, const tfi_cuda_launch *l, int run)
{
    const uint32_t tag = 0xfffffff0u - 40 * RUNS + (uint32_t)(40 * run);

    device_ok(cudaMemcpy((char *)(uintptr_t)l->live + offsetof(tfi_cuda_live, tag), &tag, sizeof tag, cudaMemcpyHostToDevice),
              "cudaMemcpy");
    device_begin();
    CHECK_OK(tfi_cuda_chain(l, &c->a));
    device_run();
}

static void chain(void)
{
    static chain_case c;

    if (device_capability < 90) return;
    for (int i = -1; next_case(&i, 24);) {
        make_case(&c);
        tfi_cuda_launch l = device_launch(&c.live, device_capability, 0);
        if (case_limit > 0) l.multiprocessors = pick(1, 9);
        for (int run = 0; run < at_most(RUNS, 1); run++) run_chain(&c, &l, run);
        for (int k = 0; k < c.a.count; k++) check_link(&c, k);
        device_end();
    }
}

/* The same bits in every run, with weights that come from memory: blocks wait for them, and for one another, differently each
 * time. */
static void chain_again(void)
{
    enum { CASES = 12, AGAIN = 100, SPOIL = 128 << 20 };
    static chain_case c;

    if (device_capability < 90) return;
    for (int i = -1; next_case(&i, CASES);) {
        void *spoil = device_bytes(SPOIL), *first[LINKS_MAX];
        make_case(&c);
        const tfi_cuda_launch l = device_launch(&c.live, device_capability, 0);
        for (int run = 0; run < AGAIN; run++) {
            device_ok(cudaMemset(spoil, run, SPOIL), "cudaMemset");
            run_chain(&c, &l, run);
            for (int k = 0; k < c.a.count; k++) {
                const tfi_link *link = &c.links[k];
                const int64_t live = c.live.rows[link->rows] * columns_of(link);
                void *now = device_result(&c.of[k].y, (tfi_dtype)link->y.dtype, live);
                if (run == 0) first[k] = now;
                else CHECK_INT(memcmp(now, first[k], (size_t)live * tfi_dtype_size((tfi_dtype)link->y.dtype)), 0);
            }
        }
        device_end();
    }
}

static void chain_unfit(void)
{
    static char buffer[64];
    char *aligned = buffer + (16 - (uintptr_t)buffer % 16);
    tfi_link fit = {.x = {.words = 0, .dtype = TFI_F16}, .residual = {.words = -1}, .y = {.words = 0, .dtype = TFI_F16}};

    fit.of.product.w = aligned;
    fit.of.product.N = 9;
    fit.of.product.K = 64;
    CHECK(tfi_cuda_link_fits(&fit, TFI_F16, 0, 90) == 1);
    CHECK(tfi_cuda_link_fits(&fit, TFI_F16, 0, 89) == 0);
    CHECK(tfi_cuda_link_fits(&fit, TFI_F32, 0, 90) == 0);
    CHECK(tfi_cuda_link_fits(&fit, TFI_BF16, 0, 90) == 0);
    CHECK_INT(tfi_cuda_link_shares(&fit), 5);
    CHECK_INT(tfi_cuda_link_words(&fit), 10);
    CHECK(!tfi_cuda_chain_pays(&fit, 0) && !tfi_cuda_chain_pays(&fit, 1));
    fit.of.product.K = 48;
    CHECK(tfi_cuda_link_fits(&fit, TFI_F16, 0, 90) == 0);
    fit.of.product.K = 64;
    fit.of.product.w = aligned + 2;
    CHECK(tfi_cuda_link_fits(&fit, TFI_F16, 0, 90) == 0);
}

/* What has a norm wants what is F32 or had something added to it; what has none, and attention, want the rest. */
static void chain_meets(void)
{
    static float gain[64];
    const tfi_link_rows none = {.words = -1}, words = {.words = 0, .dtype = TFI_F16}, memory = {.memory = gain, .words = -1};
    const tfi_link narrow = {.residual = none, .y = words},
                   attention = {.residual = none, .y = words, .kind = TFI_LINK_ATTENTION};
    const tfi_link wide[] = {
        {.residual = words, .y = words}, {.residual = memory, .y = words}, {.residual = none, .y = {.dtype = TFI_F32}}};
    tfi_link normed = narrow;

    normed.of.product.gain = gain;
    for (int i = 0; i < 3; i++) {
        CHECK(tfi_cuda_links_meet(&wide[i], &normed));
        CHECK(!tfi_cuda_links_meet(&wide[i], &narrow) && !tfi_cuda_links_meet(&wide[i], &attention));
    }
    CHECK(!tfi_cuda_links_meet(&narrow, &normed) && !tfi_cuda_links_meet(&attention, &normed));
    CHECK(tfi_cuda_links_meet(&narrow, &narrow) && tfi_cuda_links_meet(&narrow, &attention));
    CHECK(tfi_cuda_links_meet(&attention, &narrow));
}

void check_chain_kernels(int argc, char **argv)
{
    check_kind(argc, argv, "chain", chain);
    check_kind(argc, argv, "chain_again", chain_again);
    check_kind(argc, argv, "chain_unfit", chain_unfit);
    check_kind(argc, argv, "chain_meets", chain_meets);
}
