/* NORM, EMBED, GLU, GATHER_ROWS, POOL, L2NORM, LOGPROB and what follows a matrix product: random shapes, all mixes of types. */
#include "backend/ref/ref.h"
#include "cuda_check.h"

/* A case's shape: what it is made for, what lives, and whether buffers are out of line. */
typedef struct shape {
    int64_t made, live, cols;
    int shift;
    float m;
    tfi_op_types t;
} shape;

static tfi_op_types types_of(int i)
{
    static const tfi_dtype types[] = {TFI_F32, TFI_BF16, TFI_F16};
    return (tfi_op_types){types[i % 3], types[i / 3 % 3], types[i / 9 % 3]};
}

static shape any_shape(int i)
{
    static const int32_t widths[] = {1,    3,    8,    31,   64,   100,  384,  512,  768,
                                     1000, 1024, 1600, 2048, 3072, 5120, 8192, 8200, 10001};
    shape s = {.cols = widths[pick(0, 17)], .t = types_of(i), .m = any_magnitude()};

    s.live = pick(0, 9) ? pick(1, 40) : 0;
    s.made = s.live + pick(0, 9);
    s.shift = pick(0, 3) ? 0 : 1;
    return s;
}

/* Where kernels have a form for many rows. */
static shape any_tall_shape(int i)
{
    static const int32_t widths[] = {8, 64, 312, 384, 512, 768, 776, 1024};
    shape s = {.cols = widths[pick(0, 7)], .t = types_of(pick(0, 26)), .m = any_magnitude()};

    s.live = pick(i % 4 ? 4090 : 0, 4100);
    s.made = 4100 + pick(0, 3);
    return s;
}

/* Where kernels have a form for some rows of one type. */
static shape any_middling_shape(int i)
{
    static const int32_t widths[] = {8, 312, 512, 520, 768, 768, 776, 1024};
    static const tfi_dtype types[] = {TFI_F16, TFI_BF16, TFI_F32};
    const tfi_dtype t = types[i % 5 == 4 ? 2 : i % 2];
    shape s = {.cols = widths[pick(0, 7)], .t = {t, pick(0, 4) ? t : TFI_F32, t}, .m = any_magnitude()};

    s.made = pick(300, pick(0, 3) ? 1100 : 2600);
    s.live = pick(i % 4 ? (int32_t)s.made / 2 : 0, (int32_t)s.made);
    return s;
}

static tfi_cuda_live live_rows(tfi_rows rows, int64_t count)
{
    tfi_cuda_live live = {.draws = 0};
    for (int i = 0; i < TFI_ROWS_COUNT; i++) live.rows[i] = -1;
    live.rows[rows] = (int32_t)count;
    return live;
}

static tfi_rows any_rows(void)
{
    return (tfi_rows)pick(0, TFI_ROWS_COUNT - 1);
}

/* Rows of x, on the device, and x's rows so picked. */
static const int32_t *any_rows_of(const shape *s, const float *x, const void **picked)
{
    int32_t *from = host_bytes(s->made * 4);
    float *rows = host_bytes(s->made * s->cols * 4);

    for (int64_t r = 0; r < s->made; r++) {
        from[r] = pick(0, (int32_t)s->made - 1);
        memcpy(rows + r * s->cols, x + from[r] * s->cols, (size_t)s->cols * 4);
    }
    *picked = rows;
    return device_copy(from, s->made * 4);
}

static void norm(void)
{
    for (int i = -1; next_case(&i, 27 * 8 + 32);) {
        const shape s = i < 27 * 8 ? any_shape(i) : i < 27 * 8 + 12 ? any_tall_shape(i) : any_middling_shape(i);
        const int64_t n = s.made * s.cols;
        const int form = i < 27 * 8 ? i / 27 : pick(0, 3);
        const tfi_rows rows = any_rows();
        const tfi_cuda_live live = live_rows(rows, s.live);
        tfi_norm_args host = {.R = s.live, .E = s.cols, .eps = 1e-5f, .norm = form % 2 ? TFI_NORM_RMS : TFI_NORM_LAYER},
                      a = host;
        float *x, *residual = NULL, *gain, *bias = NULL;
        a.R = s.made;
        a.x = device_values(s.t.x, n, -s.m, 2 * s.m, s.shift, &x);
        if (form % 4 < 2) a.residual = device_values(s.t.residual, n, -s.m, s.m, s.shift, &residual);
        a.gain = device_values(TFI_F32, s.cols, 0.5f, 2, 0, &gain);
        if (host.norm == TFI_NORM_LAYER) a.bias = device_values(TFI_F32, s.cols, -0.1f, 0.1f, 0, &bias);
        host.x = x;
        const int32_t *from = !a.residual && pick(0, 1) ? any_rows_of(&s, x, &host.x) : NULL;
        host.residual = residual;
        host.gain = gain;
        host.bias = bias;
        host.y = host_bytes(n * 4);
        reference(TFI_OP_NORM, &host, 0);
        const device_out y = device_output(s.t.y, n, s.shift);
        a.y = y.data;
        const tfi_cuda_launch l = device_launch(&live, device_capability, 0);
        device_begin();
        CHECK_OK(tfi_cuda_norm(&l, &a, s.t, rows, from));
        device_run();
        check_rows(device_result(&y, s.t.y, s.live * s.cols), s.t.y, host.y, s.live, s.cols, s.cols < 16 ? 3e-4 : 2e-6);
        device_end();
    }
}

/* A mean of 10,000 deviations costs no digits; y may be x; a NaN stays in its row. */
static void norm_hard(void)
{
    enum { R = 5, E = 768 };
    const tfi_op_types t = {TFI_F32, TFI_F32, TFI_F32};
    const tfi_cuda_live live = live_rows(TFI_ROWS_TOKENS, R);
    const tfi_cuda_launch l = device_launch(&live, device_capability, 0);

    for (int shift = 0; shift < 2; shift++) {
        float *x, *gain, *bias, *back = host_bytes(R * E * 4);
        tfi_norm_args a = {.R = R, .E = E, .eps = 1e-12f}, host = a;
        a.x = device_values(TFI_F32, R * E, 9999, 10001, shift, &x);
        a.y = (void *)a.x;
        a.gain = device_values(TFI_F32, E, 1, 2, 0, &gain);
        a.bias = device_values(TFI_F32, E, 0, 1, 0, &bias);
        host.x = x;
        host.gain = gain;
        host.bias = bias;
        host.y = host_bytes(R * E * 4);
        reference(TFI_OP_NORM, &host, 0);
        CHECK_OK(tfi_cuda_norm(&l, &a, t, TFI_ROWS_TOKENS, NULL));
        device_ok(cudaStreamSynchronize(device_stream), "NORM");
        device_ok(cudaMemcpy(back, a.y, R * E * 4, cudaMemcpyDeviceToHost), "cudaMemcpy");
        check_rows(back, TFI_F32, host.y, R, E, 3e-6);
        x[E + 36] = NAN;
        device_ok(cudaMemcpy(a.y, x, R * E * 4, cudaMemcpyHostToDevice), "cudaMemcpy");
        CHECK_OK(tfi_cuda_norm(&l, &a, t, TFI_ROWS_TOKENS, NULL));
        device_ok(cudaStreamSynchronize(device_stream), "NORM");
        device_ok(cudaMemcpy(back, a.y, R * E * 4, cudaMemcpyDeviceToHost), "cudaMemcpy");
        for (int k = 0; k < R * E; k++) CHECK(isnan(back[k]) == (k / E == 1));
    }
    device_end();
}

static void glu(void)
{
    for (int i = -1; next_case(&i, 27 * 2 * TFI_ACT_COUNT);) {
        const shape s = any_shape(i);
        const int64_t n = s.made * s.cols;
        const tfi_rows rows = any_rows();
        const tfi_cuda_live live = live_rows(rows, s.live);
        tfi_glu_args host = {.R = s.live, .F = s.cols, .activation = (tfi_activation)(i % TFI_ACT_COUNT)}, a = host;
        float *x;
        a.R = s.made;
        a.x = device_values(s.t.x, 2 * n, -4, 5, s.shift, &x);
        host.x = x;
        host.y = host_bytes(n * 4);
        reference(TFI_OP_GLU, &host, 0);
        const device_out y = device_output(s.t.y, n, s.shift);
        a.y = y.data;
        const tfi_cuda_launch l = device_launch(&live, device_capability, 0);
        device_begin();
        CHECK_OK(tfi_cuda_glu(&l, &a, s.t, rows));
        device_run();
        check_rows(device_result(&y, s.t.y, s.live * s.cols), s.t.y, host.y, s.live, s.cols, 4e-6);
        device_end();
    }
}

static void finish(void)
{
    enum { CASES = 27 * 2 * TFI_ACT_COUNT };
    for (int i = -1; next_case(&i, CASES + 12);) {
        shape s = i < CASES ? any_shape(i) : any_tall_shape(i);
        const int64_t n = s.made * s.cols;
        const tfi_rows rows = any_rows();
        const tfi_cuda_live live = live_rows(rows, s.live);
        tfi_finish_args a = {.M = s.made, .N = s.cols, .activation = (tfi_activation)(i % TFI_ACT_COUNT)};
        float *sums, *bias = NULL, *residual = NULL, *expected = host_bytes(n * 4);
        if (s.t.x != TFI_F32) s.t.x = s.t.y;
        a.sums = device_values(s.t.x, n, -4, 5, s.shift, &sums);
        if (i % 3) a.bias = device_values(TFI_F32, s.cols, -1, 1, 0, &bias);
        if (i % 5) a.residual = device_values(s.t.y, n, -1, 1, s.shift, &residual);
        for (int64_t k = 0; k < s.live * s.cols; k++)
            expected[k] = (float)(tfi_ref_activate(a.activation, (double)sums[k] + (bias ? (double)bias[k % s.cols] : 0)) +
                                  (residual ? (double)residual[k] : 0));
        const device_out y = device_output(s.t.y, n, s.shift);
        a.y = y.data;
        const tfi_cuda_launch l = device_launch(&live, device_capability, 0);
        device_begin();
        CHECK_OK(tfi_cuda_finish(&l, &a, s.t, rows));
        device_run();
        check_rows(device_result(&y, s.t.y, s.live * s.cols), s.t.y, expected, s.live, s.cols, 4e-6);
        device_end();
    }
}

static int32_t *any_indices(int64_t n, int32_t limit)
{
    int32_t *p = host_bytes(n * (int64_t)sizeof *p);
    for (int64_t i = 0; i < n; i++) p[i] = pick(0, limit - 1);
    return p;
}

static void gather(void)
{
    enum { X_ROWS = 11 };
    for (int i = -1; next_case(&i, 27);) {
        const shape s = any_shape(i);
        const tfi_rows rows = any_rows();
        const tfi_cuda_live live = live_rows(rows, s.live);
        int32_t *indices = any_indices(s.made, X_ROWS);
        float *x, *expected = host_bytes(s.made * s.cols * 4);
        for (int64_t k = s.live; k < s.made; k++) indices[k] = 1 << 30;
        tfi_gather_args a = {.S = s.made, .E = s.cols, .rows = device_copy(indices, s.made * 4)};
        a.x = device_values(s.t.x, X_ROWS * s.cols, -1, 1, s.shift, &x);
        for (int64_t k = 0; k < s.live * s.cols; k++) expected[k] = x[indices[k / s.cols] * s.cols + k % s.cols];
        const device_out y = device_output(s.t.x, s.made * s.cols, s.shift);
        a.y = y.data;
        const tfi_cuda_launch l = device_launch(&live, device_capability, 0);
        device_begin();
        CHECK_OK(tfi_cuda_gather(&l, &a, (tfi_op_types){s.t.x, TFI_F32, s.t.x}, rows));
        device_run();
        check_rows(device_result(&y, s.t.x, s.live * s.cols), s.t.x, expected, s.live, s.cols, 0);
        device_end();
    }
}

static int32_t any_poolings(void)
{
    int32_t list = 0;
    for (int n = pick(1, 4); n > 0; n--) list = list << 3 | pick(1, TFI_POOL_LAST);
    return list;
}

static void pool(void)
{
    for (int i = -1; next_case(&i, 27 * 4);) {
        const shape s = any_shape(i);
        const tfi_cuda_live live = live_rows(TFI_ROWS_SEQUENCES, s.live);
        tfi_pool_args host = {.B = s.live, .E = s.cols, .pooling = any_poolings(), .skip = pick(0, 2)}, a = host;
        int32_t *offsets = host_bytes((s.made + 1) * 4);
        int64_t count = 0;
        float *x;
        for (int64_t b = 0; b < s.made; b++)
            offsets[b + 1] = b < s.live ? offsets[b] + a.skip + pick(1, pick(0, 5) ? 9 : 70) : 1 << 30;
        for (int32_t p = a.pooling; p; p >>= 3) count++;
        a.B = s.made;
        a.offsets = device_copy(offsets, (s.made + 1) * 4);
        a.x = device_values(s.t.x, offsets[s.live] * s.cols, -s.m, 3 * s.m, s.shift, &x);
        host.offsets = offsets;
        host.x = x;
        host.y = host_bytes(s.live * count * s.cols * 4);
        reference(TFI_OP_POOL, &host, 0);
        const device_out y = device_output(s.t.y, s.made * count * s.cols, s.shift);
        a.y = y.data;
        const tfi_cuda_launch l = device_launch(&live, device_capability, 0);
        device_begin();
        CHECK_OK(tfi_cuda_pool(&l, &a, s.t));
        device_run();
        check_rows(device_result(&y, s.t.y, s.live * count * s.cols), s.t.y, host.y, s.live, count * s.cols,
                   s.cols < 16 ? 1e-4 : 2e-6);
        device_end();
    }
}

static void l2norm(void)
{
    for (int i = -1; next_case(&i, 27 * 2);) {
        const shape s = any_shape(i);
        const int64_t n = s.made * s.cols;
        const tfi_rows rows = any_rows();
        const tfi_cuda_live live = live_rows(rows, s.live);
        tfi_l2norm_args host = {.R = s.live, .E = s.cols, .eps = i % 2 ? 100 * s.m : 1e-12f}, a = host;
        float *x;
        a.R = s.made;
        a.x = device_values(s.t.x, n, -s.m, s.m, s.shift, &x);
        host.x = x;
        host.y = host_bytes(n * 4);
        reference(TFI_OP_L2NORM, &host, 0);
        const device_out y = device_output(s.t.y, n, s.shift);
        a.y = y.data;
        const tfi_cuda_launch l = device_launch(&live, device_capability, 0);
        device_begin();
        CHECK_OK(tfi_cuda_l2norm(&l, &a, s.t, rows));
        device_run();
        /* F16 results around 1e-4 of long rows are subnormal: 2^-25 is 3e-4 of them */
        check_rows(device_result(&y, s.t.y, s.live * s.cols), s.t.y, host.y, s.live, s.cols, s.t.y == TFI_F16 ? 3e-4 : 2e-6);
        device_end();
    }
}

static void logprob(void)
{
    for (int i = -1; next_case(&i, 30);) {
        shape s = any_shape(0);
        const tfi_cuda_live live = live_rows(TFI_ROWS_SELECTED, s.live);
        if (i % 10 == 0) s.cols = 50257;
        int32_t *targets = any_indices(s.made, (int32_t)s.cols);
        for (int64_t k = 0; k < s.made; k++)
            if (k % 5 == 3) targets[k] = -1;
        tfi_logprob_args host = {.S = s.live, .V = s.cols, .targets = targets}, a = host;
        float *x;
        a.S = s.made;
        a.targets = device_copy(targets, s.made * 4);
        a.x = device_values(TFI_F32, s.made * s.cols, -20, 15, s.shift, &x);
        host.x = x;
        host.y = host_bytes(s.made * 4);
        reference(TFI_OP_LOGPROB, &host, 0);
        const device_out y = device_output(TFI_F32, s.made, s.shift);
        a.y = y.data;
        const tfi_cuda_launch l = device_launch(&live, device_capability, 0);
        device_begin();
        CHECK_OK(tfi_cuda_logprob(&l, &a));
        device_run();
        check_rows(device_result(&y, TFI_F32, s.live), TFI_F32, host.y, s.live, 1, 2e-6);
        device_end();
    }
}

enum { WORDS = 50, SLOTS = 3 };

/* Ids of words, of tokens drawn for slots, and of given embeddings. */
static int32_t *any_ids(int64_t n, int given)
{
    int32_t *ids = any_indices(n, WORDS + SLOTS + (given ? 1 : 0));
    for (int64_t r = 0; r < n; r++)
        if (ids[r] >= WORDS) ids[r] = ids[r] == WORDS + SLOTS ? TFI_ID_EMBEDDING : TFI_ID_DRAWN(ids[r] - WORDS);
    return ids;
}

/* The same rows with a norm behind; sum: what EMBED gives. */
static void embed_with_norm(const tfi_cuda_launch *l, const shape *s, tfi_embed_args a, const float *sum)
{
    tfi_norm_args host = {.x = sum,
                          .R = s->live,
                          .E = s->cols,
                          .eps = 1e-5f,
                          .norm = pick(0, 1) ? TFI_NORM_RMS : TFI_NORM_LAYER},
                  norm = host;
    float *gain, *bias = NULL;

    norm.gain = device_values(TFI_F32, s->cols, 0.5f, 2, 0, &gain);
    if (host.norm == TFI_NORM_LAYER) norm.bias = device_values(TFI_F32, s->cols, -0.1f, 0.1f, 0, &bias);
    host.gain = gain;
    host.bias = bias;
    host.y = host_bytes(s->made * s->cols * 4);
    reference(TFI_OP_NORM, &host, 0);
    const device_out y = device_output(s->t.y, s->made * s->cols, s->shift);
    device_out kept;
    norm.x = a.y = NULL;
    norm.y = y.data;
    if (pick(0, 1)) {
        kept = device_output(TFI_F32, s->made * s->cols, s->shift);
        a.y = kept.data;
    }
    device_begin();
    CHECK_OK(tfi_cuda_embed_norm(l, &a, &norm, s->t));
    device_run();
    if (a.y)
        check_rows(device_result(&kept, TFI_F32, s->live * s->cols), TFI_F32, sum, s->live, s->cols,
                   s->cols < 16 ? 1e-5 : 3e-7);
    check_rows(device_result(&y, s->t.y, s->live * s->cols), s->t.y, host.y, s->live, s->cols, s->cols < 16 ? 3e-4 : 2e-6);
}

static void embed(void)
{
    static int32_t tokens[] = {7, 1, 49, 0};
    enum { POSITIONS = 20, TYPES = 2 };
    int32_t *device_tokens;
    tfi_slot slots[SLOTS] = {{.count = 1}, {.count = 3}, {.count = 4}}, device_slots[SLOTS];

    for (int i = -1; next_case(&i, 27 * 4);) {
        const shape s = any_shape(i);
        const tfi_cuda_live live = live_rows(TFI_ROWS_TOKENS, s.live);
        const tfi_weight weight = {.rows = WORDS, .cols = s.cols, .dtype = s.t.x};
        const int given = i % 2, only_given = i % 8 == 1;
        float *words, *embeddings = NULL, *positions = NULL, *types = NULL;
        tfi_weight_form form = {.data = device_values(s.t.x, WORDS * s.cols, -s.m, s.m, s.shift, &words)}, host_form;
        tfi_embed_args host = {.R = s.live, .E = s.cols, .word_weight = &weight, .word = &host_form, .slots = slots}, a = host;
        device_tokens = device_copy(tokens, sizeof tokens);
        memcpy(device_slots, slots, sizeof slots);
        for (int k = 0; k < SLOTS; k++) {
            slots[k].tokens = tokens;
            device_slots[k].tokens = device_tokens;
        }
        host_form = (tfi_weight_form){.data = words};
        a.R = s.made;
        a.word = &form;
        a.slots = device_copy(device_slots, sizeof device_slots);
        if (given) a.embeddings = device_values(TFI_F32, s.made * s.cols, -s.m, s.m, s.shift, &embeddings);
        if (!only_given) {
            int32_t *ids = any_ids(s.made, given);
            host.ids = ids;
            a.ids = device_copy(ids, s.made * 4);
        }
        if (i / 2 % 2) {
            int32_t *ids = any_indices(s.made, POSITIONS);
            host.position_ids = ids;
            a.position_ids = device_copy(ids, s.made * 4);
            a.positions = device_values(s.t.x, POSITIONS * s.cols, -s.m, s.m, s.shift, &positions);
        }
        if (i / 4 % 2) {
            int32_t *ids = any_indices(s.made, TYPES);
            host.type_ids = ids;
            a.type_ids = device_copy(ids, s.made * 4);
            a.types = device_values(s.t.x, TYPES * s.cols, -s.m, s.m, s.shift, &types);
        }
        host.embeddings = embeddings;
        host.positions = positions;
        host.types = types;
        host.y = host_bytes(s.made * s.cols * 4);
        reference(TFI_OP_EMBED, &host, 0);
        const device_out y = device_output(s.t.y, s.made * s.cols, s.shift);
        a.y = y.data;
        const tfi_cuda_launch l = device_launch(&live, device_capability, 0);
        device_begin();
        CHECK_OK(tfi_cuda_embed(&l, &a, s.t));
        device_run();
        check_rows(device_result(&y, s.t.y, s.live * s.cols), s.t.y, host.y, s.live, s.cols, s.cols < 16 ? 1e-5 : 3e-7);
        if (tfi_cuda_embed_norm_fits(s.cols)) embed_with_norm(&l, &s, a, host.y);
        device_end();
    }
}

/* Values to the host's memory, nothing beside them, and the run's number. */
static void results(void)
{
    enum { ROOM = TFI_ROWS_GIVEN + 256 };
    char *pinned;

    device_ok(cudaHostAlloc((void **)&pinned, ROOM, cudaHostAllocDefault), "cudaHostAlloc");
    for (int i = 0; i < 40; i++) {
        tfi_cuda_live live = {.number = (uint32_t)pick(0, INT32_MAX)};
        tfi_results_args a = {.count = pick(1, TFI_RESULTS), .number = (uint32_t *)(void *)(pinned + ROOM - 128)};
        char *expected = host_bytes(ROOM);
        int64_t at = 64;
        memset(pinned, 0xff, ROOM);
        memset(expected, 0xff, ROOM);
        for (int k = 0; k < a.count; k++, at += pick(0, 1) * 16) {
            const int64_t bytes = 16 * (int64_t)pick(0, k ? 64 : i % 2 ? 3 : 1500);
            char *value = host_bytes(bytes + 1);
            for (int64_t b = 0; b < bytes; b++) value[b] = (char)pick(0, 255);
            a.rows[k] = (tfi_rows_args){device_copy(value, bytes + 1), pinned + at, bytes};
            memcpy(expected + at, value, (size_t)bytes);
            at += bytes;
        }
        memcpy(expected + ROOM - 128, &live.number, sizeof live.number);
        const tfi_cuda_launch l = device_launch(&live, device_capability, 0);
        device_begin();
        CHECK_OK(tfi_cuda_give_results(&l, &a));
        device_run();
        CHECK(memcmp(pinned, expected, ROOM) == 0);
        device_end();
    }
    device_ok(cudaFreeHost(pinned), "cudaFreeHost");
}

void check_row_kernels(int argc, char **argv)
{
    check_kind(argc, argv, "norm", norm);
    check_kind(argc, argv, "norm_hard", norm_hard);
    check_kind(argc, argv, "glu", glu);
    check_kind(argc, argv, "finish", finish);
    check_kind(argc, argv, "gather", gather);
    check_kind(argc, argv, "pool", pool);
    check_kind(argc, argv, "l2norm", l2norm);
    check_kind(argc, argv, "logprob", logprob);
    check_kind(argc, argv, "embed", embed);
    check_kind(argc, argv, "results", results);
}

/* ---- times ---- */

typedef struct norm_bench {
    tfi_cuda_launch l;
    tfi_norm_args a;
    tfi_op_types t;
} norm_bench;

static void launch_norm(const void *user, int i)
{
    const norm_bench *b = user;
    (void)i;
    (void)tfi_cuda_norm(&b->l, &b->a, b->t, TFI_ROWS_TOKENS, NULL);
}

/* fp16 but for x, in an encoder's two shapes; the last two fit in L2. */
void bench_norm(void)
{
    for (int i = 0; i < 12; i++) {
        const tfi_dtype x = i % 2 ? TFI_F32 : TFI_F16;
        const int64_t R = i < 4 ? 49152 : i < 6 ? 22110 : i < 8 ? 4096 : i < 10 ? 512 : 1, E = i == 2 || i == 3 ? 1024 : 768;
        const tfi_cuda_live live = live_rows(TFI_ROWS_TOKENS, R);
        norm_bench b = {.l = device_launch(&live, device_capability, 0), .t = {x, TFI_F16, TFI_F16}};
        b.a = (tfi_norm_args){.R = R, .E = E, .eps = 1e-12f};
        b.a.x = device_bytes(R * E * (int64_t)tfi_dtype_size(x));
        b.a.residual = device_bytes(R * E * 2);
        b.a.gain = b.a.bias = device_values(TFI_F32, E, 1, 2, 0, NULL);
        b.a.y = device_bytes(R * E * 2);
        const double bytes = (double)(R * E) * (double)(tfi_dtype_size(x) + 4);
        printf("norm %5lld x %lld of %-4s %9.2f us, floor %7.2f us at 4.3 TB/s (buffers warm in L2 if they fit)\n",
               (long long)R, (long long)E, float_name(x), bench_us(launch_norm, &b, 20), bytes / 4.3e6);
        device_end();
    }
}

typedef struct finish_bench {
    tfi_cuda_launch l;
    tfi_finish_args a;
    tfi_dtype t;
} finish_bench;

static void launch_finish(const void *user, int i)
{
    const finish_bench *b = user;
    (void)i;
    (void)tfi_cuda_finish(&b->l, &b->a, (tfi_op_types){b->t, b->t, b->t}, TFI_ROWS_TOKENS);
}

void bench_finish(void)
{
    static const tfi_activation activations[] = {TFI_ACT_GELU, TFI_ACT_GELU, TFI_ACT_SILU, TFI_ACT_NONE};
    for (int i = 0; i < 16; i++) {
        const int64_t M = i < 4 ? 49152 : i < 8 ? 22110 : i < 12 ? 512 : 40, N = i % 4 == 1 ? 4096 : 3072;
        const tfi_cuda_live live = live_rows(TFI_ROWS_TOKENS, M);
        finish_bench b = {.l = device_launch(&live, device_capability, 0), .t = i % 4 == 2 ? TFI_BF16 : TFI_F16};
        b.a = (tfi_finish_args){.M = M, .N = N, .activation = activations[i % 4]};
        b.a.bias = device_values(TFI_F32, N, -1, 1, 0, NULL);
        b.a.y = device_bytes(M * N * 2);
        b.a.sums = b.a.y;
        if (i % 4 == 3) b.a.residual = device_bytes(M * N * 2);
        const double bytes = (double)(M * N) * (b.a.residual ? 6 : 4);
        printf("finish %5lld x %lld of %-4s activation %d %9.2f us, floor %7.2f us at 4.3 TB/s\n", (long long)M, (long long)N,
               float_name(b.t), (int)b.a.activation, bench_us(launch_finish, &b, 10), bytes / 4.3e6);
        device_end();
    }
}
