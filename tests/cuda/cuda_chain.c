/* Chains of links: layers of random shapes as GPT and T5 have them, from a row in memory to logits, in words all the way. What
 * each link wrote to memory too is compared with what its own inputs, as the device had them, should give. The exchange is full
 * of NaN, then of the last run's words; the store is full of NaN but for what earlier runs stored. */
#include <stdlib.h>

#include "cuda_check.h"

enum { LINKS_MAX = 24, LAYERS = 2, DISTANCE = 20, RUNS = 3 };

typedef struct chain_link {
    int x, residual; /* numbers of links; -1: the first row, LINKS_MAX: none */
    float *w, *bias, *gain, *shift;
    device_out y;
    const void *result; /* of the device */
} chain_link;

typedef struct chain_store {
    tfi_store store;
    tfi_kv_view view;
    int32_t lens[TFI_CHAIN_ROWS], *tables;
    int64_t stride;
    float *values; /* of all elements, as if all had been stored */
} chain_store;

typedef struct chain_case {
    tfi_link links[LINKS_MAX];
    chain_link of[LINKS_MAX];
    tfi_chain_args a;
    tfi_dtype stream; /* of rows that residuals are added to */
    tfi_cuda_live live;
    chain_store own, source;
    const void *first; /* on the device */
    float *first_values, *biases;
    int32_t from[TFI_CHAIN_ROWS];
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

static tfi_link_rows rows_of(const chain_case *c, int link)
{
    if (link == LINKS_MAX) return (tfi_link_rows){.words = -1};
    if (link >= 0) return c->links[link].y;
    return (tfi_link_rows){.memory = (void *)(uintptr_t)c->first, .words = -1, .dtype = (int16_t)c->stream};
}

/* Add a link; its number. */
static int add(chain_case *c, tfi_link l, int x, int residual, tfi_dtype y, int is_last)
{
    const int i = c->a.count++;
    chain_link *of = &c->of[i];

    of->x = x;
    of->residual = residual;
    of->y = device_output(y, c->a.M * columns_of(&l), 0);
    l.x = rows_of(c, x);
    l.x.memory = x < 0 ? l.x.memory : NULL;
    l.residual = rows_of(c, residual);
    l.residual.memory = residual < 0 ? l.residual.memory : NULL;
    l.y = (tfi_link_rows){.memory = of->y.data, .words = -1, .link = (int16_t)(c->a.number + i), .dtype = (int16_t)y};
    if (!is_last) {
        l.y.words = (int32_t)c->words;
        c->words += tfi_cuda_link_words(&l, c->a.M);
    }
    l.first = pick(0, 300);
    c->links[i] = l;
    CHECK(tfi_cuda_link_fits(&l, c->a.type, c->a.M, c->a.max_tokens, device_capability));
    return i;
}

static int add_product(chain_case *c, int x, int residual, tfi_dtype y, int32_t N, int32_t K, tfi_activation activation,
                       int gated, int is_last)
{
    chain_link *of = &c->of[c->a.count];
    const float scale = 1.7f / sqrtf((float)K);
    const int normed = y != c->stream || residual == LINKS_MAX, has_bias = !c->relative;
    tfi_link l = {.kind = TFI_LINK_PRODUCT, .rows = is_last ? TFI_ROWS_SELECTED : TFI_ROWS_TOKENS};

    l.of.product.w = device_values(c->a.type, (int64_t)N * K, -scale, scale, 0, &of->w);
    if (has_bias) l.of.product.bias = device_values(TFI_F32, N, -0.2f, 0.2f, 0, &of->bias);
    if (normed) l.of.product.gain = device_values(TFI_F32, K, 0.5f, 1.5f, 0, &of->gain);
    if (normed && !c->relative) l.of.product.shift = device_values(TFI_F32, K, -0.2f, 0.2f, 0, &of->shift);
    if (is_last) l.of.product.from = device_copy(c->from, sizeof c->from);
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
    if (!source && c->relative) {
        static float *values;
        l.of.attention.bias = device_values(TFI_F32, c->H * (2 * DISTANCE + 1), -1, 1, 0, &values);
        c->of[c->a.count].bias = values;
    }
    return add(c, l, x, LINKS_MAX, c->a.type, 0);
}

static int64_t element_of(const chain_case *c, const chain_store *s, int layer, int side, int b, int head, int token)
{
    const int64_t block = s->tables[b * s->stride + token / TFI_KV_BLOCK];
    const int64_t plane = ((block * LAYERS + layer) * 2 + side) * c->H + head;
    return (plane * TFI_KV_BLOCK + token % TFI_KV_BLOCK) * c->D;
}

/* Tokens that earlier runs stored: of a source all. */
static int stored_of(const chain_case *c, const chain_store *s, int b)
{
    return s->lens[b] - (s == &c->own);
}

static void fill_store(const chain_case *c, const chain_store *s, void *typed)
{
    for (int b = 0; b < c->a.M; b++) {
        for (int i = 0; i < stored_of(c, s, b) * LAYERS * 2 * c->H; i++) {
            const int plane = i % (LAYERS * 2 * c->H), token = i / (LAYERS * 2 * c->H);
            const int64_t at = element_of(c, s, plane / c->H / 2, plane / c->H % 2, b, plane % c->H, token);
            for (int d = 0; d < c->D; d++) typed_put(typed, c->a.type, at + d, s->values[at + d]);
        }
    }
}

static void make_store(chain_case *c, chain_store *s)
{
    static const int32_t lens[] = {1, 2, 15, 16, 17, 18, 64, 65, 140, 400};
    int32_t most = 1;

    for (int b = 0; b < c->a.M; b++) {
        s->lens[b] = s == &c->source && pick(0, 5) == 0 ? 0 : lens[pick(0, 9)];
        if (s->lens[b] > most) most = s->lens[b];
    }
    const int64_t each = (most + TFI_KV_BLOCK - 1) / TFI_KV_BLOCK, blocks = c->a.M * each;
    s->stride = each + pick(0, 3);
    s->tables = host_bytes(c->a.M * s->stride * 4);
    for (int64_t i = 0; i < blocks; i++) s->tables[i / each * s->stride + i % each] = (int32_t)((i * 7 + 3) % blocks);
    for (int64_t i = 0; i < blocks && blocks % 7 == 0; i++) s->tables[i / each * s->stride + i % each] = (int32_t)i;
    s->store.shape = (tfi_store_shape){LAYERS, c->H, c->D, c->a.type, blocks, 0};
    const int64_t bytes = blocks * tfi_kv_block_bytes(&s->store.shape);
    void *typed = host_bytes(bytes);
    memset(typed, 0xff, (size_t)bytes);
    (void)device_values(c->a.type, bytes / 2, -1, 1, 0, &s->values);
    fill_store(c, s, typed);
    s->store.blocks = device_copy(typed, bytes);
    s->view = (tfi_kv_view){.store = &s->store,
                            .lens = device_copy(s->lens, sizeof s->lens),
                            .tables = device_copy(s->tables, c->a.M * s->stride * 4),
                            .stride = s->stride};
    if (most > c->a.max_tokens) c->a.max_tokens = most;
}

static void make_layer(chain_case *c, int layer, int *x)
{
    const int32_t inner = c->H * c->D;
    const int gated = c->relative && pick(0, 1);
    const tfi_activation activation = (tfi_activation)pick(TFI_ACT_NONE, TFI_ACT_SILU);
    const tfi_dtype type = c->a.type;
    int y = add_product(c, *x, LINKS_MAX, type, 3 * inner, c->E, TFI_ACT_NONE, 0, 0);

    y = add_attention(c, y, layer, 0);
    *x = add_product(c, y, *x, c->stream, c->E, inner, TFI_ACT_NONE, 0, 0);
    if (c->relative) {
        y = add_product(c, *x, LINKS_MAX, type, inner, c->E, TFI_ACT_NONE, 0, 0);
        y = add_attention(c, y, layer, 1);
        *x = add_product(c, y, *x, c->stream, c->E, inner, TFI_ACT_NONE, 0, 0);
    }
    y = add_product(c, *x, LINKS_MAX, type, gated ? 2 * c->F : c->F, c->E, activation, gated, 0);
    *x = add_product(c, y, *x, c->stream, c->E, c->F, TFI_ACT_NONE, 0, 0);
}

static void make_case(chain_case *c)
{
    static const int32_t es[] = {32, 64, 320, 768, 800, 1600, 2048}, ds[] = {8, 32, 64, 96, 128},
                         fs[] = {32, 96, 2048, 2080, 4096};
    int x = -1;

    memset(c, 0, sizeof *c);
    c->a.links = c->links;
    c->a.number = pick(0, 3);
    c->a.M = pick(0, 1) ? 1 : pick(1, TFI_CHAIN_ROWS);
    c->a.type = pick(0, 1) ? TFI_BF16 : TFI_F16;
    c->stream = pick(0, 1) ? TFI_F32 : c->a.type;
    c->relative = pick(0, 1);
    c->E = es[pick(0, 6)];
    c->D = ds[pick(0, 4)];
    c->F = fs[pick(0, 4)];
    c->H = c->D == 8 ? 4 * pick(1, 3) : pick(1, 9);
    for (int i = 0; i < TFI_ROWS_COUNT; i++) c->live.rows[i] = pick(0, 2) ? (int32_t)c->a.M : pick(1, (int32_t)c->a.M);
    c->live.rows[TFI_ROWS_SEQUENCES] = c->live.rows[TFI_ROWS_TOKENS];
    for (int i = 0; i < TFI_CHAIN_ROWS; i++) c->from[i] = pick(0, c->live.rows[TFI_ROWS_TOKENS] - 1);
    make_store(c, &c->own);
    make_store(c, &c->source);
    c->live.table_stride = c->own.stride;
    c->live.source_stride = c->source.stride;
    c->a.own = c->own.view;
    c->a.source = c->source.view;
    c->first = device_values(c->stream, c->a.M * c->E, -1, 3, 0, &c->first_values);
    for (int layer = 0; layer < LAYERS; layer++) make_layer(c, layer, &x);
    (void)add_product(c, x, LINKS_MAX, TFI_F32, pick(1, 3000), c->E, TFI_ACT_NONE, 0, 1);
    c->a.exchange = device_bytes(c->words * 8);
}

/* ---- what it should be ---- */

/* Element of a row that a link reads, as the device had it. */
static double read_row(const chain_case *c, int link, int64_t i)
{
    if (link < 0) return (double)c->first_values[i];
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

/* A row of x, normed and rounded. */
static void read_x(const chain_case *c, int i, int row, float *z)
{
    const chain_link *of = &c->of[i];
    const int32_t K = c->links[i].of.product.K;
    double mean = 0, squares = 0;

    for (int k = 0; k < K; k++) mean += read_row(c, of->x, (int64_t)row * K + k) / K;
    if (c->relative) mean = 0;
    for (int k = 0; k < K; k++) {
        z[k] = (float)read_row(c, of->x, (int64_t)row * K + k);
        squares += ((double)z[k] - mean) * ((double)z[k] - mean);
    }
    if (!of->gain) return;
    const double factor = 1 / sqrt(squares / K + 1e-5f);
    for (int k = 0; k < K; k++) {
        float rounded;
        typed_put(&rounded, c->a.type, 0,
                  (float)(((double)z[k] - mean) * factor * (double)of->gain[k] + (of->shift ? (double)of->shift[k] : 0)));
        z[k] = (float)typed_get(&rounded, c->a.type, 0);
    }
}

static float dot(const float *a, const float *b, int32_t n)
{
    float sums[4] = {0};
    for (int32_t i = 0; i < n; i++) sums[i % 4] += a[i] * b[i];
    return sums[0] + sums[1] + (sums[2] + sums[3]);
}

static void expect_product(const chain_case *c, int i, int rows, float *y)
{
    const tfi_link *l = &c->links[i];
    const chain_link *of = &c->of[i];
    const int32_t K = l->of.product.K;
    const int64_t columns = columns_of(l);
    float *z = host_bytes(K * 4);

    for (int m = 0; m < rows; m++) {
        read_x(c, i, l->of.product.from ? c->from[m] : m, z);
        for (int64_t n = 0; n < columns; n++) {
            const float left = dot(z, of->w + n * K, K) + (of->bias ? of->bias[n] : 0);
            float v = active((tfi_activation)l->of.product.activation, (double)left);
            if (l->of.product.gated) v *= dot(z, of->w + (n + columns) * K, K) + (of->bias ? of->bias[n + columns] : 0);
            if (of->residual != LINKS_MAX) v += (float)read_row(c, of->residual, m * columns + n);
            y[m * columns + n] = v;
        }
    }
}

/* Key (side 0) or value of a token, as floats: from the store, or, where it is the run's own, from x. */
static void read_token(const chain_case *c, int i, int side, int row, int head, int token, float *v)
{
    const tfi_link *l = &c->links[i];
    const chain_store *s = l->of.attention.source ? &c->source : &c->own;
    const int64_t inner = columns_of(l);

    if (token < stored_of(c, s, row)) {
        memcpy(v, s->values + element_of(c, s, l->of.attention.layer, side, row, head, token), (size_t)c->D * 4);
        return;
    }
    for (int d = 0; d < c->D; d++) v[d] = (float)read_row(c, c->of[i].x, (row * 3 + 1 + side) * inner + head * c->D + d);
}

static void expect_head(const chain_case *c, int i, int row, int head, float *y)
{
    const tfi_link *l = &c->links[i];
    const int source = l->of.attention.source;
    const int32_t len = source ? c->source.lens[row] : c->own.lens[row];
    const int64_t inner = columns_of(l), query = row * inner * (source ? 1 : 3) + head * c->D;
    double total = 0;
    float q[256], v[256];

    for (int d = 0; d < c->D; d++) q[d] = (float)read_row(c, c->of[i].x, query + d);
    for (int token = 0; token < len; token++) {
        const int distance = token - (len - 1);
        read_token(c, i, 0, row, head, token, v);
        double score = (double)(dot(q, v, c->D) * l->of.attention.scale);
        if (c->of[i].bias)
            score += (double)c->of[i].bias[head * (2 * DISTANCE + 1) + (distance < -DISTANCE ? 0 : distance + DISTANCE)];
        read_token(c, i, 1, row, head, token, v);
        total += exp(score);
        for (int d = 0; d < c->D; d++) y[d] += (float)exp(score) * v[d];
    }
    for (int d = 0; d < c->D && total > 0; d++) y[d] /= (float)total;
}

static void check_appended(const chain_case *c, int i, int row, int head)
{
    const chain_store *s = &c->own;
    char bytes[512];
    float v[256];

    for (int side = 0; side < 2; side++) {
        const int64_t at = element_of(c, s, c->links[i].of.attention.layer, side, row, head, s->lens[row] - 1);
        int wrong = 0;
        read_token(c, i, side, row, head, s->lens[row] - 1, v);
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
    float *y = host_bytes(rows * columns * 4);

    c->of[i].result = device_result(&c->of[i].y, (tfi_dtype)l->y.dtype, rows * columns);
    if (l->kind == TFI_LINK_PRODUCT) {
        expect_product(c, i, rows, y);
    } else {
        for (int r = 0; r < rows * c->H; r++) {
            expect_head(c, i, r / c->H, r % c->H, y + r * c->D);
            if (!l->of.attention.source) check_appended(c, i, r / c->H, r % c->H);
        }
    }
    check_rows(c->of[i].result, (tfi_dtype)l->y.dtype, y, rows, columns, c->a.type == TFI_BF16 ? 2e-3 : 3e-4);
}

/* ---- kinds ---- */

static void run_chain(chain_case *c)
{
    const tfi_cuda_launch l = device_launch(&c->live, device_capability, 0);

    for (int run = 0; run < RUNS; run++) {
        const uint32_t tag = 0xfffffff0u - 40 * RUNS + (uint32_t)(40 * run);
        device_ok(
            cudaMemcpy((char *)(uintptr_t)l.live + offsetof(tfi_cuda_live, tag), &tag, sizeof tag, cudaMemcpyHostToDevice),
            "cudaMemcpy");
        device_begin();
        CHECK_OK(tfi_cuda_chain(&l, &c->a));
        device_run();
    }
}

static void chain(void)
{
    static chain_case c;

    if (device_capability < 90) return;
    for (int i = 0; i < 24; i++) {
        make_case(&c);
        run_chain(&c);
        for (int k = 0; k < c.a.count; k++) check_link(&c, k);
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
    CHECK(tfi_cuda_link_fits(&fit, TFI_F16, 1, 0, 90) == 1);
    CHECK(tfi_cuda_link_fits(&fit, TFI_F16, 1, 0, 89) == 0);
    CHECK(tfi_cuda_link_fits(&fit, TFI_F32, 1, 0, 90) == 0);
    CHECK(tfi_cuda_link_fits(&fit, TFI_F16, TFI_CHAIN_ROWS + 1, 0, 90) == 0);
    CHECK(tfi_cuda_link_fits(&fit, TFI_BF16, 1, 0, 90) == 0);
    CHECK_INT(tfi_cuda_link_tiles(&fit, 3), 2);
    CHECK_INT(tfi_cuda_link_words(&fit, 3), 3 * 6);
    fit.of.product.K = 48;
    CHECK(tfi_cuda_link_fits(&fit, TFI_F16, 1, 0, 90) == 0);
    fit.of.product.K = 64;
    fit.of.product.w = aligned + 2;
    CHECK(tfi_cuda_link_fits(&fit, TFI_F16, 1, 0, 90) == 0);
}

void check_chain_kernels(int argc, char **argv)
{
    check_kind(argc, argv, "chain", chain);
    check_kind(argc, argv, "chain_unfit", chain_unfit);
}
