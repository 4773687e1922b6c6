/* ATTENTION of all kinds on random sequences, with KV_APPEND on the way and without, KV_APPEND and KV_COPY. The store is full
 * of NaN but for the tokens that may be read, its blocks are in random order, so are columns of x that are nobody's, and what
 * lies behind the live sequences in offsets, lengths and tables. */
#include "backend/ref/ref.h"
#include "cuda_check.h"

enum { SEQUENCES_MAX = 8, LAYERS = 3, LAYER = 1, NOWHERE = 100000000 };

/* A run: on the host in fp32, on the device in its types. */
typedef struct problem {
    tfi_attention_args host, device;
    tfi_store host_store, device_store;
    tfi_cuda_live live;
    tfi_dtype x, stored;
    int32_t offsets[2 * SEQUENCES_MAX + 1], lens[2 * SEQUENCES_MAX];
    int32_t longest, longest_stored;
    int32_t *tables;
} problem;

static int is_stored(tfi_attend attend)
{
    return attend == TFI_ATTEND_CACHE || attend == TFI_ATTEND_SOURCE;
}

/* A length: mostly short, sometimes over several tiles. */
static int32_t any_length(int32_t most)
{
    switch (pick(0, 9)) {
    case 0:
        return 0;
    case 1:
        return pick(0, most);
    case 2:
    case 3:
    case 4:
        return 1;
    default:
        return pick(0, most < 80 ? most : 80);
    }
}

static void any_sequences(problem *p, int32_t most)
{
    tfi_attention_args *a = &p->host;
    const int tall = pick(0, 4) == 0; /* few sequences, all of them long: these go in taller tiles */

    most = at_most(most, tall ? 140 : 60);
    a->B = pick(1, tall ? at_most(2, 1) : at_most(SEQUENCES_MAX, 3));
    for (int64_t b = 0; b < a->B; b++) {
        const int32_t rows = tall ? pick(most / 2, most) : any_length(most);
        p->lens[b] = a->attend == TFI_ATTEND_SOURCE ? any_length(most) : rows;
        if (a->attend == TFI_ATTEND_CACHE && pick(0, 3))
            p->lens[b] += pick(0, 4) ? any_length(most) : pick(0, at_most(1500, 150));
        if (rows > p->longest) p->longest = rows;
        if (p->lens[b] > p->longest_stored) p->longest_stored = p->lens[b];
        p->offsets[b + 1] = p->offsets[b] + rows;
    }
    a->R = p->offsets[a->B];
    a->offsets = p->offsets;
}

/* Tables of blocks in random order, their unused ends nowhere; the two stores without a token. */
static void make_stores(problem *p)
{
    const int32_t used = (p->longest_stored + TFI_KV_BLOCK - 1) / TFI_KV_BLOCK, stride = used + pick(0, 3);
    const int64_t B = p->host.B, blocks = B * used + 3;
    int32_t *order = host_bytes(blocks * 4), next = 0;

    p->tables = host_bytes((B * stride + 1) * 4);
    for (int32_t i = 0; i < (int32_t)blocks; i++) {
        const int32_t k = pick(0, i);
        order[i] = order[k];
        order[k] = i;
    }
    for (int64_t i = 0; i < B * stride; i++)
        p->tables[i] = i % stride * TFI_KV_BLOCK < p->lens[i / stride] ? order[next++] : -NOWHERE;
    p->host_store.shape = (tfi_store_shape){LAYERS, p->host.H, p->host.D, TFI_F32, blocks, 0};
    p->device_store.shape = p->host_store.shape;
    p->device_store.shape.dtype = p->stored;
    const int64_t bytes = blocks * tfi_kv_block_bytes(&p->host_store.shape);
    p->host_store.blocks = host_bytes(bytes);
    memset(p->host_store.blocks, 0xff, (size_t)bytes);
    p->host.kv = (tfi_kv_view){&p->host_store, p->lens, p->tables, stride, LAYER};
    p->live.table_stride = p->live.source_stride = -NOWHERE;
    if (p->host.attend == TFI_ATTEND_SOURCE) p->live.source_stride = stride;
    else p->live.table_stride = stride;
}

static int64_t store_elements(const problem *p)
{
    return p->host_store.shape.blocks * 2 * LAYERS * p->host.H * tfi_kv_plane(&p->host_store.shape);
}

/* The element of the host's store that is element i of the device's: there a key is D numbers side by side. */
static int64_t host_element(const problem *p, int64_t i)
{
    const int64_t D = p->host.D, plane = 16 * D, at = i % plane;
    const int is_key = i / plane / p->host.H % 2 == 0;
    return is_key ? i / plane * plane + at % D * 16 + at / D : i;
}

/* The host's store is rounded to the stored type. Returns the device's content. */
static void *round_store(problem *p)
{
    const int64_t n = store_elements(p);
    void *typed = host_bytes(n * (int64_t)tfi_dtype_size(p->stored));

    memset(typed, 0xff, (size_t)n * tfi_dtype_size(p->stored));
    for (int64_t i = 0; i < n; i++) {
        float *v = (float *)p->host_store.blocks + host_element(p, i);
        if (isnan(*v)) continue;
        typed_put(typed, p->stored, i, *v);
        *v = (float)typed_get(typed, p->stored, i);
    }
    return typed;
}

/* Random tokens in both stores, without the last `absent` of each sequence; NaN elsewhere. Returns the device's content. */
static void *fill_stores(problem *p, int32_t absent, float m)
{
    const int64_t H = p->host.H, D = p->host.D;
    float *host = (float *)p->host_store.blocks;

    for (int64_t b = 0; b < p->host.B; b++) {
        for (int64_t i = 0; i < (p->lens[b] - absent) * 2 * H; i++) {
            const int64_t token = i / (2 * H), plane = i % (2 * H), block = p->tables[b * p->host.kv.stride + token / 16];
            const int64_t first = ((block * LAYERS + LAYER) * 2 * H + plane) * 16 * D;
            for (int64_t d = 0; d < D; d++)
                host[plane < H ? first + d * 16 + token % 16 : first + token % 16 * D + d] = check_uniform(-m, 1.5f * m);
        }
    }
    return round_store(p);
}

/* x with random values in `used` columns from `column` on, NaN beside them; sometimes not aligned. */
static void make_x(problem *p, int64_t column, int64_t used, int64_t made, float m)
{
    const int64_t stride = p->host.x_stride, n = made * stride, size = (int64_t)tfi_dtype_size(p->x), shift = pick(0, 5) == 0;
    float *x = host_bytes(n * 4);
    char *typed = host_bytes((n + shift) * size);

    memset(typed, 0xff, (size_t)((n + shift) * size));
    for (int64_t i = 0; i < n; i++) {
        x[i] = NAN;
        if (i / stride >= p->host.R || i % stride < column || i % stride >= column + used) continue;
        typed_put(typed, p->x, i + shift, check_uniform(-m, 1.5f * m)); /* no output near 0: errors are relative */
        x[i] = (float)typed_get(typed, p->x, i + shift);
    }
    p->host.x = x;
    p->device.x = (char *)device_copy(typed, (n + shift) * size) + shift * size;
}

/* The device's arguments: made for more rows and sequences than live, with NaN and nonsense there. */
static void make_device(problem *p, int64_t made_rows, const void *blocks)
{
    const void *x = p->device.x;
    const int64_t B = p->host.B;

    p->device = p->host;
    p->device.x = x;
    p->device.R = made_rows;
    p->device.B = B + (pick(0, 1) ? 0 : pick(0, SEQUENCES_MAX));
    for (int64_t b = B; b < p->device.B; b++) {
        p->offsets[b + 1] = NOWHERE;
        p->lens[b] = NOWHERE;
    }
    p->device.offsets = device_copy(p->offsets, (p->device.B + 1) * 4);
    p->live.rows[TFI_ROWS_TOKENS] = (int32_t)p->host.R;
    p->live.rows[TFI_ROWS_SEQUENCES] = (int32_t)B;
    p->live.rows[TFI_ROWS_SELECTED] = -1;
    p->live.copies = pick(0, 1); /* they may be on their way: nothing else follows from it */
    if (!blocks) return;
    p->device_store.blocks = device_copy(blocks, store_elements(p) * (int64_t)tfi_dtype_size(p->stored));
    p->device.kv = (tfi_kv_view){&p->device_store, device_copy(p->lens, p->device.B * 4),
                                 device_copy(p->tables, B * p->host.kv.stride * 4), -NOWHERE, LAYER};
}

/* What tensor cores give: weights are rounded to the type. */
static double tolerance_of(const problem *p)
{
    const int one_type = !is_stored(p->host.attend) || p->stored == p->x;
    if (p->x == TFI_F32 || !one_type) return 2e-5;
    return p->x == TFI_BF16 ? 0x1p-8 : 0x1p-11 + 2e-5;
}

static tfi_attend case_attend;

static void one_attention(tfi_dtype x, tfi_dtype stored, tfi_dtype y, int biased, int32_t most)
{
    static const int32_t sizes[] = {64, 64, 64, 128, 32, 16, 80, 256, 96}, capabilities[] = {75, 80, 90};
    const float m = any_magnitude();
    problem p = {.x = x, .stored = stored, .host.attend = case_attend};
    tfi_attention_args *a = &p.host;
    const void *blocks = NULL;
    float *bias;

    a->H = pick(1, at_most(3, 2));
    a->D = pick(0, 3) ? sizes[pick(0, 8)] : pick(1, 256);
    any_sequences(&p, most);
    const int64_t used = (is_stored(case_attend) ? 1 : 3) * a->H * a->D, made = a->R + pick(0, 9);
    a->x_stride = used + (pick(0, 2) ? 0 : pick(0, 2) ? 8 : 3);
    a->scale = 3 / (m * m * sqrtf((float)a->D));
    make_x(&p, 0, used, made, m);
    if (is_stored(case_attend)) {
        make_stores(&p);
        blocks = fill_stores(&p, 0, m);
    }
    a->y = host_bytes(a->R * a->H * a->D * 4);
    make_device(&p, made, blocks);
    if (biased) {
        a->max_distance = p.device.max_distance = pick(1, 4) > 1 ? pick(1, 200) : pick(1100, 1300);
        p.device.bias = device_values(TFI_F32, a->H * (2 * a->max_distance + 1), -3, 3, 0, &bias);
        a->bias = bias;
    }
    reference(TFI_OP_ATTENTION, a, tfi_ref_attention_scratch(p.longest > p.longest_stored ? p.longest : p.longest_stored));
    const int32_t more = pick(0, 1) ? 0 : pick(1, 100); /* a launch is made for longer ones too */
    for (int i = 0; i < 3; i++) {
        const int64_t n = made * a->H * a->D, scratch = tfi_cuda_attention_scratch(a->attend, p.device.B, a->H, a->D);
        const device_out out = device_output(y, n, pick(0, 5) == 0);
        tfi_cuda_launch l = device_launch(&p.live, capabilities[i], scratch);
        if (capabilities[i] > device_capability) continue;
        p.device.y = out.data;
        if (pick(0, 1)) l.multiprocessors = 1; /* no splits, tall tiles */
        device_begin();
        CHECK_OK(
            tfi_cuda_attention(&l, &p.device, (tfi_op_types){x, TFI_F32, y}, p.longest + more, p.longest_stored + more, NULL));
        device_run();
        check_rows(device_result(&out, y, a->R * a->H * a->D), y, a->y, a->R, a->H * a->D, tolerance_of(&p));
    }
    device_end();
}

/* Every combination of types, with and without bias; one type on all sides more often. */
static void attention_kind(void)
{
    static const tfi_dtype types[] = {TFI_F32, TFI_BF16, TFI_F16};

    for (int i = -1; next_case(&i, 54);) one_attention(types[i % 3], types[i / 3 % 3], types[i / 9 % 3], i / 27, 100);
    for (int i = -1; next_case(&i, 60);)
        one_attention(types[i % 3], types[i % 3], pick(0, 3) ? types[i % 3] : TFI_F32, i / 3 % 2, 300);
}

/* Sequences of one row, whose keys and values are in x and are to be stored. */
static void any_single_rows(problem *p)
{
    tfi_attention_args *a = &p->host;

    a->B = pick(1, at_most(SEQUENCES_MAX, 4));
    for (int64_t b = 0; b < a->B; b++) {
        p->lens[b] = 1 + (pick(0, 4) ? pick(0, at_most(300, 100)) : pick(0, at_most(1500, 300)));
        if (p->lens[b] > p->longest_stored) p->longest_stored = p->lens[b];
        p->offsets[b + 1] = (int32_t)b + 1;
    }
    p->longest = 1;
    a->R = a->B;
    a->offsets = p->offsets;
}

static void one_append(tfi_dtype x, tfi_dtype stored, tfi_dtype y, int biased)
{
    enum { GUARD = 512 };
    static const int32_t sizes[] = {64, 64, 64, 128, 128, 32, 8, 80, 256}, capabilities[] = {75, 80, 90, 90};
    problem p = {.x = x, .stored = stored, .host.attend = TFI_ATTEND_CACHE};
    tfi_attention_args *a = &p.host;
    float *bias;

    a->H = pick(1, at_most(3, 2));
    a->D = pick(0, 4) ? sizes[pick(0, 8)] : pick(1, 256);
    any_single_rows(&p);
    const int64_t width = a->H * a->D, column = width + (pick(0, 3) ? 0 : pick(0, 16)), made = a->R + pick(0, 9);
    a->x_stride = column + 2 * width + (pick(0, 2) ? 0 : 8);
    a->scale = 3 / sqrtf((float)a->D);
    make_x(&p, 0, column + 2 * width, made, 1);
    make_stores(&p);
    const void *before = fill_stores(&p, 1, 1);
    const int64_t bytes = store_elements(&p) * (int64_t)tfi_dtype_size(stored);
    char *got = host_bytes(bytes + 2 * GUARD), *expected = host_bytes(bytes + 2 * GUARD);
    make_device(&p, made, before);
    tfi_kv_append_args append = {a->x, a->x_stride, a->offsets, a->kv, a->R, a->B, a->H, a->D, (int32_t)column};
    reference(TFI_OP_KV_APPEND, &append, 0);
    memset(expected, 0xff, (size_t)(bytes + 2 * GUARD));
    memcpy(expected + GUARD, round_store(&p), (size_t)bytes);
    a->y = host_bytes(a->R * width * 4);
    if (biased) {
        a->max_distance = p.device.max_distance = pick(1, 200);
        p.device.bias = device_values(TFI_F32, a->H * (2 * a->max_distance + 1), -3, 3, 0, &bias);
        a->bias = bias;
    }
    reference(TFI_OP_ATTENTION, a, tfi_ref_attention_scratch(p.longest_stored));
    append = (tfi_kv_append_args){p.device.x, a->x_stride, p.device.offsets, p.device.kv, made, p.device.B,
                                  a->H,       a->D,        (int32_t)column};
    for (int i = 0; i < 4; i++) {
        const device_out out = device_output(y, made * width, pick(0, 5) == 0);
        tfi_cuda_launch l =
            device_launch(&p.live, capabilities[i], tfi_cuda_attention_scratch(TFI_ATTEND_CACHE, p.device.B, a->H, a->D));
        char *guarded = device_bytes(bytes + 2 * GUARD);
        if (capabilities[i] > device_capability) continue;
        if (pick(0, 3) == 0) l.multiprocessors = pick(1, 8);
        p.device.y = out.data;
        p.device_store.blocks = guarded + GUARD;
        device_ok(cudaMemcpy(p.device_store.blocks, before, (size_t)bytes, cudaMemcpyHostToDevice), "cudaMemcpy");
        device_begin();
        CHECK_OK(tfi_cuda_attention(&l, &p.device, (tfi_op_types){x, TFI_F32, y}, 1, p.longest_stored, &append));
        device_run();
        check_rows(device_result(&out, y, a->R * width), y, a->y, a->R, width, 2e-5);
        device_ok(cudaMemcpy(got, guarded, (size_t)(bytes + 2 * GUARD), cudaMemcpyDeviceToHost), "cudaMemcpy");
        CHECK(memcmp(got, expected, (size_t)(bytes + 2 * GUARD)) == 0);
    }
    device_end();
}

static void attention_append(void)
{
    static const tfi_dtype types[] = {TFI_F32, TFI_BF16, TFI_F16};

    for (int i = -1; next_case(&i, 27);) one_append(types[i % 3], types[i / 3 % 3], types[i / 9 % 3], i % 2);
    for (int i = -1; next_case(&i, 60);) one_append(types[i % 3], types[i % 3], pick(0, 3) ? types[i % 3] : TFI_F32, i / 3 % 2);
}

/* Tokens go to where they belong, to the bit, and nothing else changes. */
static void kv_append(void)
{
    for (int i = -1; next_case(&i, 54);) {
        static const tfi_dtype types[] = {TFI_F32, TFI_BF16, TFI_F16};
        problem p = {.x = types[i % 3], .stored = types[i / 3 % 3]};
        tfi_attention_args *a = &p.host;
        a->attend = pick(0, 1) ? TFI_ATTEND_SOURCE : TFI_ATTEND_CACHE;
        a->H = pick(1, 4);
        a->D = pick(0, 1) ? 64 : pick(1, 100);
        any_sequences(&p, 100);
        for (int64_t b = 0; b < a->B && a->attend == TFI_ATTEND_SOURCE; b++) { /* one that is not kept has length 0 */
            p.lens[b] = pick(0, 3) ? p.offsets[b + 1] - p.offsets[b] : 0;
        }
        if (a->attend == TFI_ATTEND_SOURCE) p.longest_stored = p.longest;
        const int64_t width = a->H * a->D, column = pick(0, 1) ? 8 * pick(0, 9) : pick(0, 70);
        a->x_stride = column + 2 * width + (pick(0, 1) ? 0 : pick(0, 20));
        if (a->D % 8 == 0 && pick(0, 2)) a->x_stride = (a->x_stride + 7) / 8 * 8;
        make_stores(&p);
        make_x(&p, column, 2 * width, a->R + 3, 1);
        const int64_t n = store_elements(&p), size = (int64_t)tfi_dtype_size(p.stored);
        char *empty = host_bytes(n * size), *expected = host_bytes(n * size), *got = host_bytes(n * size);
        memset(empty, 0xff, (size_t)(n * size));
        memset(expected, 0xff, (size_t)(n * size));
        make_device(&p, a->R + 3, empty);
        tfi_kv_append_args append = {a->x, a->x_stride, a->offsets, a->kv, a->R, a->B, a->H, a->D, (int32_t)column};
        reference(TFI_OP_KV_APPEND, &append, 0);
        for (int64_t k = 0; k < n; k++) {
            const float v = ((const float *)p.host_store.blocks)[host_element(&p, k)];
            if (!isnan(v)) typed_put(expected, p.stored, k, v);
        }
        append = (tfi_kv_append_args){p.device.x, a->x_stride, p.device.offsets, p.device.kv, a->R + 3, p.device.B,
                                      a->H,       a->D,        (int32_t)column};
        const tfi_cuda_launch l = device_launch(&p.live, device_capability, 0);
        device_begin();
        CHECK_OK(tfi_cuda_kv_append(&l, &append, (tfi_op_types){p.x, TFI_F32, TFI_F32}, a->attend));
        device_run();
        device_ok(cudaMemcpy(got, p.device_store.blocks, (size_t)(n * size), cudaMemcpyDeviceToHost), "cudaMemcpy");
        CHECK(memcmp(got, expected, (size_t)(n * size)) == 0);
        device_end();
    }
}

static void kv_copy(void)
{
    for (int i = -1; next_case(&i, 12);) {
        const int32_t count = pick(0, 5), made = count + pick(0, 3), blocks = 2 * made + 1;
        tfi_store store = {.shape = {pick(1, 12), pick(1, 6), pick(1, 100), any_float(), blocks, 0}};
        const int64_t each = tfi_kv_block_bytes(&store.shape);
        const tfi_cuda_live live = {.copies = count};
        int32_t *copies = host_bytes(2 * made * 4 + 4);
        char *before = host_bytes(blocks * each), *got = host_bytes(blocks * each);
        for (int64_t k = 0; k < blocks * each; k++) before[k] = (char)check_random();
        for (int32_t k = 0; k < made; k++) {
            copies[2 * k] = k < count ? 2 * k : NOWHERE;
            copies[2 * k + 1] = k < count ? 2 * k + 1 : NOWHERE;
        }
        store.blocks = device_copy(before, blocks * each);
        const tfi_kv_copy_args a = {&store, device_copy(copies, 2 * made * 4), made};
        const tfi_cuda_launch l = device_launch(&live, device_capability, 0);
        device_begin();
        CHECK_OK(tfi_cuda_kv_copy(&l, &a));
        device_run();
        for (int32_t k = 0; k < count; k++)
            memcpy(before + copies[2 * k + 1] * each, before + copies[2 * k] * each, (size_t)each);
        device_ok(cudaMemcpy(got, store.blocks, (size_t)(blocks * each), cudaMemcpyDeviceToHost), "cudaMemcpy");
        CHECK(memcmp(got, before, (size_t)(blocks * each)) == 0);
        device_end();
    }
}

/* Requests of some beams each, between sequences that stay as they are: after the kernel each beam has its parent's blocks, but its own in
 * the last place, and where that is one that was being filled there is a copy to be made from the parent's. */
static void kv_moves(void)
{
    enum { MOST = 40 };
    for (int i = -1; next_case(&i, 12);) {
        const int32_t stride = pick(1, 100);
        tfi_kv_move moves[MOST];
        int32_t lens[MOST], parents[MOST], B = 0, copies = 0;
        tfi_slot *slots = host_bytes(MOST * sizeof *slots);
        int32_t *tables = host_bytes(MOST * stride * 4), *want = host_bytes(MOST * stride * 4), *pairs = host_bytes(MOST * 8);
        for (int32_t beams; B < MOST - 8; B += beams) {
            const int32_t first = B, len = pick(1, stride * TFI_KV_BLOCK), last = (len - 1) / TFI_KV_BLOCK;
            const int is_new = len % TFI_KV_BLOCK == 1, is_request = pick(0, 3) > 0;
            beams = is_request ? pick(1, 8) : 1;
            for (int32_t b = first; b < first + beams; b++) {
                for (int32_t k = 0; k < stride; k++) tables[b * stride + k] = (int32_t)(check_random() >> 34);
                lens[b] = len;
                parents[b] = first + pick(0, beams - 1);
                slots[MOST - 1 - b].parent = parents[b] - first;
                moves[b] = (tfi_kv_move){.slot = is_request ? MOST - 1 - b : -1,
                                         .first = first,
                                         .filled = is_new || !is_request ? -1 : (int32_t)(check_random() >> 34),
                                         .copy = is_new || !is_request ? -1 : copies++};
            }
            for (int32_t b = first; b < first + beams; b++) {
                memcpy(want + b * stride, tables + b * stride, (size_t)stride * 4);
                if (is_request) memcpy(want + b * stride, tables + parents[b] * stride, (size_t)last * 4);
                if (moves[b].copy < 0) continue;
                pairs[2 * moves[b].copy] = moves[parents[b]].filled;
                pairs[2 * moves[b].copy + 1] = tables[b * stride + last];
            }
        }
        const int32_t made = B + pick(0, 3);
        const tfi_cuda_live live = {.rows = {[TFI_ROWS_SEQUENCES] = B}, .copies = copies, .table_stride = stride};
        const device_out moved = device_output(TFI_F32, made * stride, 0), copied = device_output(TFI_F32, 2 * made, 0);
        const tfi_kv_moves_args a = {.moves = device_copy(moves, (int64_t)sizeof moves),
                                     .tables = device_copy(tables, MOST * stride * 4),
                                     .lens = device_copy(lens, (int64_t)sizeof lens),
                                     .slots = device_copy(slots, MOST * (int64_t)sizeof *slots),
                                     .moved = moved.data,
                                     .copies = copied.data,
                                     .B = made};
        const tfi_cuda_launch l = device_launch(&live, device_capability, 0);
        device_begin();
        CHECK_OK(tfi_cuda_kv_moves(&l, &a));
        device_run();
        CHECK(memcmp(device_result(&moved, TFI_F32, B * stride), want, (size_t)(B * stride) * 4) == 0);
        CHECK(memcmp(device_result(&copied, TFI_F32, 2 * copies), pairs, (size_t)copies * 8) == 0);
        device_end();
    }
}

void check_store_kernels(int argc, char **argv)
{
    check_kind(argc, argv, "kv_append", kv_append);
    check_kind(argc, argv, "kv_copy", kv_copy);
    check_kind(argc, argv, "kv_moves", kv_moves);
}

/* One graph, captured once, serves any mix of lengths. */
static void attention_replay(void)
{
    enum { ROWS = 300, B = 6, H = 2, D = 64, RUNS = 6 };
    const int64_t stride = 3 * H * D;
    float *x;
    problem p = {.host = {.x_stride = stride, .H = H, .D = D, .scale = 0.125f, .attend = TFI_ATTEND_CAUSAL}};
    tfi_attention_args *a = &p.host, device;
    cudaGraph_t graph;
    cudaGraphExec_t exec;

    a->R = ROWS;
    a->B = B;
    device = *a;
    device.x = device_values(TFI_BF16, ROWS * stride, -1, 2, 0, &x);
    int32_t *device_offsets = device_bytes((B + 1) * 4);
    device.offsets = device_offsets;
    const device_out y = device_output(TFI_BF16, ROWS * H * D, 0);
    device.y = y.data;
    const tfi_cuda_launch l = device_launch(&p.live, device_capability, 0);
    device_ok(cudaStreamBeginCapture(device_stream, cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
    CHECK_OK(tfi_cuda_attention(&l, &device, (tfi_op_types){TFI_BF16, TFI_F32, TFI_BF16}, ROWS, 0, NULL));
    device_ok(cudaStreamEndCapture(device_stream, &graph), "cudaStreamEndCapture");
    device_ok(cudaGraphInstantiate(&exec, graph, 0), "cudaGraphInstantiate");
    for (int i = 0; i < RUNS; i++) {
        a->B = pick(0, B);
        for (int64_t b = 0; b < a->B; b++) p.offsets[b + 1] = p.offsets[b] + pick(0, ROWS / B);
        a->R = p.offsets[a->B];
        a->x = x;
        a->offsets = p.offsets;
        a->y = host_bytes(ROWS * H * D * 4);
        p.live.rows[TFI_ROWS_TOKENS] = (int32_t)a->R;
        p.live.rows[TFI_ROWS_SEQUENCES] = (int32_t)a->B;
        reference(TFI_OP_ATTENTION, a, tfi_ref_attention_scratch(ROWS));
        device_ok(cudaMemcpy(device_offsets, p.offsets, (B + 1) * 4, cudaMemcpyHostToDevice), "cudaMemcpy");
        device_ok(cudaMemcpy((void *)l.live, &p.live, sizeof p.live, cudaMemcpyHostToDevice), "cudaMemcpy");
        device_ok(cudaMemset(y.base, 0xff, (size_t)y.bytes), "cudaMemset");
        device_ok(cudaDeviceSynchronize(), "before a graph");
        device_ok(cudaGraphLaunch(exec, device_stream), "cudaGraphLaunch");
        device_ok(cudaStreamSynchronize(device_stream), "a graph");
        check_rows(device_result(&y, TFI_BF16, a->R * H * D), TFI_BF16, a->y, a->R, H * D, 0x1p-8);
    }
    device_ok(cudaGraphExecDestroy(exec), "cudaGraphExecDestroy");
    device_ok(cudaGraphDestroy(graph), "cudaGraphDestroy");
    device_end();
}

void check_attention_kernels(int argc, char **argv)
{
    static const char *const names[] = {"attention_all", "attention_causal", "attention_cache", "attention_source"};

    for (int i = 0; i < 4; i++) {
        case_attend = (tfi_attend)i;
        check_kind(argc, argv, names[i], attention_kind);
    }
    check_kind(argc, argv, "attention_append", attention_append);
    check_kind(argc, argv, "attention_replay", attention_replay);
}

/* ---- times ---- */

enum { BENCH_LAYERS = 12 };

typedef struct attention_bench {
    tfi_cuda_launch l;
    tfi_attention_args a;
    tfi_kv_append_args append;
    tfi_op_types t;
    int64_t rows, tokens;
} attention_bench;

static void launch_attention(const void *user, int i)
{
    attention_bench b = *(const attention_bench *)user;
    const int appends = b.a.attend == TFI_ATTEND_CACHE && b.rows == 1;
    b.a.kv.layer = b.append.kv.layer = i % BENCH_LAYERS; /* where the store is larger than the cache it comes from memory */
    (void)tfi_cuda_attention(&b.l, &b.a, b.t, b.rows, b.tokens, appends ? &b.append : NULL);
}

typedef struct bench_shape {
    int64_t B, rows, tokens; /* sequences of `rows` rows; from the store, of `tokens` tokens */
    int32_t H, D;
    int biased;
} bench_shape;

static void bench_one(const char *name, tfi_attend attend, tfi_dtype t, bench_shape s)
{
    const int64_t B = s.B, H = s.H, D = s.D, R = B * s.rows, stride = (s.tokens + TFI_KV_BLOCK - 1) / TFI_KV_BLOCK,
                  blocks = B * stride, size = (int64_t)tfi_dtype_size(t);
    tfi_store store = {.shape = {BENCH_LAYERS, s.H, s.D, t, blocks, 0}};
    tfi_cuda_live live = {.rows = {(int32_t)R, (int32_t)B, 0}};
    attention_bench b = {.t = {t, TFI_F32, t}, .rows = s.rows, .tokens = s.tokens};
    int32_t *offsets = host_bytes((B + 1) * 4), *lens = host_bytes(B * 4), *tables = host_bytes(blocks * 4 + 4);

    for (int64_t i = 0; i < B; i++) {
        offsets[i + 1] = (int32_t)((i + 1) * s.rows);
        lens[i] = (int32_t)s.tokens;
    }
    for (int64_t i = 0; i < blocks; i++) tables[i] = (int32_t)i;
    live.table_stride = live.source_stride = stride;
    b.l = device_launch(&live, device_capability, tfi_cuda_attention_scratch(attend, B, s.H, s.D));
    b.a = (tfi_attention_args){.x_stride = 3 * H * D, .R = R, .B = B, .H = s.H, .D = s.D, .attend = attend, .scale = 0.125f};
    b.a.x = device_values(t, R * b.a.x_stride, -1, 1, 0, NULL);
    b.a.offsets = device_copy(offsets, (B + 1) * 4);
    b.a.y = device_bytes(R * H * D * size);
    if (s.biased) {
        b.a.max_distance = 128;
        b.a.bias = device_values(TFI_F32, H * 257, -1, 1, 0, NULL);
    }
    if (s.tokens > 0) {
        store.blocks = device_bytes(blocks * tfi_kv_block_bytes(&store.shape));
        device_ok(cudaMemset(store.blocks, 0x3c, (size_t)(blocks * tfi_kv_block_bytes(&store.shape))), "cudaMemset");
        b.a.kv = (tfi_kv_view){&store, device_copy(lens, B * 4), device_copy(tables, blocks * 4), 0, 0};
    }
    b.append = (tfi_kv_append_args){b.a.x, b.a.x_stride, b.a.offsets, b.a.kv, R, B, s.H, s.D, (int32_t)(H * D)};
    const double keys = s.tokens > 0 ? (double)s.tokens : (double)s.rows, half = attend == TFI_ATTEND_CAUSAL ? 0.5 : 1;
    const double flop = 4.0 * (double)R * keys * half * H * D, bytes = 2.0 * (double)(B * s.tokens * H * D * size);
    const double us = bench_us(launch_attention, &b, 36), rate = t == TFI_F32 ? 60e6 : 790e6;
    const double floor_us = flop / rate > bytes / 4.6e6 ? flop / rate : bytes / 4.6e6;
    printf("attention %-7s %4lld x %4lld rows, %4lld stored, H=%d D=%d %-4s%s %9.2f us, floor %7.2f us, %6.1f TFLOP/s %7.1f "
           "GB/s\n",
           name, (long long)B, (long long)s.rows, (long long)s.tokens, (int)s.H, (int)s.D, float_name(t),
           s.biased ? " bias" : "", us, floor_us, flop / us * 1e-6, bytes / us * 1e-3);
    device_end();
}

void bench_attention(void)
{
    static const tfi_dtype types[] = {TFI_BF16, TFI_F16, TFI_F32};
    static const struct {
        const char *name;
        tfi_attend attend;
        bench_shape shape;
    } cases[] = {
        {"all", TFI_ATTEND_ALL, {1, 40, 0, 12, 64, 0}},           {"all", TFI_ATTEND_ALL, {8, 128, 0, 12, 64, 0}},
        {"all", TFI_ATTEND_ALL, {1, 512, 0, 12, 64, 0}},          {"all", TFI_ATTEND_ALL, {128, 384, 0, 12, 64, 0}},
        {"all", TFI_ATTEND_ALL, {128, 384, 0, 16, 64, 0}},        {"all", TFI_ATTEND_ALL, {1, 16, 0, 32, 128, 1}},
        {"all", TFI_ATTEND_ALL, {32, 384, 0, 16, 128, 0}},        {"prefill", TFI_ATTEND_CACHE, {1, 40, 40, 25, 64, 0}},
        {"all", TFI_ATTEND_ALL, {32, 384, 0, 12, 64, 1}},         {"causal", TFI_ATTEND_CAUSAL, {1, 1024, 0, 12, 64, 0}},
        {"prefill", TFI_ATTEND_CACHE, {1, 512, 1024, 12, 64, 0}}, /* those below store the token that they have */
        {"decode", TFI_ATTEND_CACHE, {1, 1, 40, 12, 64, 0}},      {"decode", TFI_ATTEND_CACHE, {1, 1, 140, 12, 64, 0}},
        {"decode", TFI_ATTEND_CACHE, {1, 1, 1024, 12, 64, 0}},    {"decode", TFI_ATTEND_CACHE, {1, 1, 48, 32, 128, 1}},
        {"decode", TFI_ATTEND_CACHE, {4, 1, 140, 12, 64, 1}},     {"decode", TFI_ATTEND_CACHE, {8, 1, 1024, 12, 64, 0}},
        {"decode", TFI_ATTEND_CACHE, {64, 1, 140, 12, 64, 0}},    {"decode", TFI_ATTEND_CACHE, {64, 1, 1024, 12, 64, 0}},
        {"source", TFI_ATTEND_SOURCE, {1, 1, 40, 12, 64, 0}},     {"source", TFI_ATTEND_SOURCE, {1, 1, 16, 32, 128, 0}}};
    for (int i = 0; i < 3; i++)
        for (size_t k = 0; k < sizeof cases / sizeof *cases; k++)
            bench_one(cases[k].name, cases[k].attend, types[i], cases[k].shape);
}
