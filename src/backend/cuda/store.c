/* The store of a session on the device: blocks of keys and values, and the slots with all they point to. The host keeps the
 * caller's records; what changed goes to the device before the next run, each slot's sampling record, lists, beams and tokens
 * as one piece. */
#include <assert.h>
#include <stddef.h>
#include <string.h>

#include "backend/cuda/device.h"
#include "base/status.h"

enum {
    RECORD_ESTIMATE = 4096
}; /* bytes of a slot's record beside its tokens, for the plan; a whole record that is no larger lies
                                  * beside those of other slots */
enum { SLOTS_AT_ONCE = 32 };

/* ---- sizes ---- */

static int blocks_bytes(const tfi_store_shape *s, int64_t *bytes)
{
    const int64_t planes = 2 * (int64_t)s->layers * s->heads;
    int64_t block;

    return !__builtin_mul_overflow(planes, tfi_kv_plane(s) * (int64_t)tfi_dtype_size(s->dtype), &block) &&
           !__builtin_mul_overflow(block, s->blocks, bytes) && *bytes <= INT64_MAX / 4;
}

static int64_t slots_bytes(const tfi_store_shape *s)
{
    return s->slots * (int64_t)sizeof(tfi_slot);
}

/* The store itself and what it knows of each slot. */
static int64_t own_bytes(const tfi_store_shape *s)
{
    return (int64_t)sizeof(tfi_cuda_store) + s->slots * (int64_t)(sizeof(tfi_slot) + sizeof(char *) + 2 * sizeof(int64_t) +
                                                                  sizeof(int32_t *) + sizeof(tfi_beams *) + 1);
}

/* Of all slots' records: a sequence has no more tokens than blocks, and lists as long as usual. Counted from the start, so that
 * what requests take later was in the plan. */
static int64_t records_bytes(const tfi_store_shape *s)
{
    return s->slots * (int64_t)RECORD_ESTIMATE + s->blocks * TFI_KV_BLOCK * (int64_t)sizeof(int32_t);
}

/* Of those, what is one piece. */
static int64_t small_bytes(const tfi_store_shape *s)
{
    return s->slots * (int64_t)RECORD_ESTIMATE;
}

int64_t tfi_cuda_store_bytes(tfi_backend *b, const tfi_store_shape *shape)
{
    int64_t bytes;

    (void)b;
    if (!blocks_bytes(shape, &bytes)) return -1;
    return own_bytes(shape) + slots_bytes(shape) + bytes + records_bytes(shape);
}

/* ---- open, close ---- */

tf_status tfi_cuda_store_open(tfi_backend *b, const tfi_store_shape *shape, tfi_memory *memory, tfi_store **out)
{
    tfi_cuda *c = (tfi_cuda *)b;
    tfi_cuda_store *s;
    int64_t bytes;
    tf_status st;

    *out = NULL;
    if (!blocks_bytes(shape, &bytes))
        return tfi_fail(TF_STATUS_NOMEM, "%lld blocks of keys and values are more than memory can hold",
                        (long long)shape->blocks);
    if ((st = tfi_cuda_enter(c)) < 0) return st;
    if (!(s = tfi_zalloc(memory, (size_t)own_bytes(shape)))) {
        tfi_cuda_leave(c);
        return TF_STATUS_NOMEM;
    }
    s->base.shape = *shape;
    s->base.memory = memory;
    s->cuda = c;
    s->block_bytes = bytes;
    s->own_bytes = own_bytes(shape);
    pthread_mutex_init(&s->lock, NULL);
    s->host = (tfi_slot *)(s + 1);
    s->records = (char **)(s->host + shape->slots);
    s->room = (int64_t *)(s->records + shape->slots);
    s->from_reserve = s->room + shape->slots;
    s->tokens = (int32_t **)(s->from_reserve + shape->slots);
    s->beams = (tfi_beams **)(s->tokens + shape->slots);
    s->dirty = (int8_t *)(s->beams + shape->slots);
    s->base.slots = tfi_cuda_alloc(c, memory, slots_bytes(shape));
    if (s->base.slots) s->base.blocks = tfi_cuda_alloc(c, memory, bytes);
    if (s->base.blocks) s->small = tfi_cuda_alloc(c, memory, small_bytes(shape));
    if (s->small && tfi_memory_charge(memory, records_bytes(shape) - small_bytes(shape)) == TF_STATUS_OK)
        s->reserve = records_bytes(shape) - small_bytes(shape);
    st = s->reserve > 0 ? TFI_CUDA(c, cudaMemset(s->base.slots, 0, (size_t)slots_bytes(shape))) : TF_STATUS_NOMEM;
    if (st == TF_STATUS_OK) st = TFI_CUDA(c, cudaDeviceSynchronize());
    tfi_cuda_leave(c);
    if (st < 0) tfi_cuda_store_close(&s->base);
    else *out = &s->base;
    return st;
}

void tfi_cuda_store_close(tfi_store *store)
{
    tfi_cuda_store *s = (tfi_cuda_store *)store;
    tfi_memory *memory;
    int entered;

    if (!s) return;
    memory = s->base.memory;
    entered = tfi_cuda_enter(s->cuda) == TF_STATUS_OK;
    for (int32_t i = 0; i < s->base.shape.slots; i++) tfi_cuda_free(s->cuda, memory, s->records[i], s->room[i]);
    tfi_cuda_free(s->cuda, memory, s->small, small_bytes(&s->base.shape));
    tfi_cuda_free(s->cuda, memory, s->base.blocks, s->block_bytes);
    tfi_cuda_free(s->cuda, memory, s->base.slots, slots_bytes(&s->base.shape));
    if (entered) tfi_cuda_leave(s->cuda);
    tfi_memory_refund(memory, s->reserve);
    pthread_mutex_destroy(&s->lock);
    tfi_free(memory, s, (size_t)s->own_bytes);
}

void tfi_cuda_slot_set(tfi_store *store, int32_t slot, const tfi_slot *record)
{
    tfi_cuda_store *s = (tfi_cuda_store *)store;

    assert(slot >= 0 && slot < s->base.shape.slots);
    pthread_mutex_lock(&s->lock);
    s->host[slot] = record ? *record : (tfi_slot){.sampling = NULL};
    s->beams[slot] = NULL;
    s->dirty[slot] = 1;
    s->any_dirty = 1;
    pthread_mutex_unlock(&s->lock);
}

/* ---- to the device ---- */

/* A record being put together for the device: written where there is an image, else only measured. */
typedef struct image {
    char *host; /* NULL: measure */
    char *device;
    int64_t bytes;
} image;

/* `bytes` of src (NULL: room alone); gives their address on the device. */
static void *add(image *m, const void *src, int64_t bytes)
{
    void *device = m->device ? m->device + m->bytes : NULL;

    if (m->host && src && bytes > 0) memcpy(m->host + m->bytes, src, (size_t)bytes);
    m->bytes += (bytes + 15) / 16 * 16;
    return device;
}

static const int32_t *add_ids(image *m, const int32_t *ids, int32_t count)
{
    return count > 0 ? add(m, ids, count * (int64_t)sizeof *ids) : NULL;
}

static void add_lists(image *m, tfi_id_lists *l)
{
    const int32_t ids = l->count > 0 ? l->start[l->count] : 0;

    l->ids = add_ids(m, l->ids, ids);
    l->start = add_ids(m, l->start, l->count > 0 ? l->count + 1 : 0);
}

static tfi_beams *add_beams(image *m, const tfi_beams *beams, int32_t count)
{
    tfi_beams b = *beams;

    b.finished_scores = add(m, beams->finished_scores, count * (int64_t)sizeof *b.finished_scores);
    b.is_finished = add(m, beams->is_finished, count);
    return add(m, &b, sizeof b);
}

/* The beams of a request share one record, that of whichever slot came first: they end together. */
static tfi_beams *find_beams(const tfi_cuda_store *s, const tfi_beams *beams)
{
    for (int32_t i = 0; i < s->base.shape.slots; i++)
        if (s->host[i].sampling && s->host[i].beams == beams && s->beams[i]) return s->beams[i];
    return NULL;
}

/* All that the slot's record points to; `slot` becomes the device's record. Tokens come last, so that the image need not hold
 * the part that has none yet. */
static void build(const tfi_cuda_store *s, image *m, tfi_slot *slot)
{
    tfi_sampling sampling = *slot->sampling;

    sampling.eos = add_ids(m, sampling.eos, sampling.eos_count);
    sampling.sequence_bias_values =
        sampling.sequence_bias.count > 0
            ? add(m, sampling.sequence_bias_values, sampling.sequence_bias.count * (int64_t)sizeof(float))
            : NULL;
    add_lists(m, &sampling.sequence_bias);
    add_lists(m, &sampling.bad_words);
    sampling.source = add_ids(m, sampling.source, sampling.source_count);
    sampling.forced_eos = add_ids(m, sampling.forced_eos, sampling.forced_eos_count);
    sampling.suppress = add_ids(m, sampling.suppress, sampling.suppress_count);
    sampling.begin_suppress = add_ids(m, sampling.begin_suppress, sampling.begin_suppress_count);
    if (slot->beams) {
        tfi_beams *shared = find_beams(s, slot->beams);
        slot->beams = shared ? shared : add_beams(m, slot->beams, sampling.num_beams);
    }
    slot->sampling = add(m, &sampling, sizeof sampling);
    slot->tokens = add(m, slot->tokens, slot->count * (int64_t)sizeof *slot->tokens);
}

/* Room on the device for the slot's record, that of the sequence before where it is large enough. It comes off the reserve
 * first. */
static tf_status make_room(tfi_cuda_store *s, int32_t slot, int64_t bytes)
{
    tfi_memory *memory = s->base.memory;
    int64_t taken;

    if (s->room[slot] >= bytes) return TF_STATUS_OK;
    tfi_cuda_free(s->cuda, memory, s->records[slot], s->room[slot]);
    s->records[slot] = NULL;
    if (tfi_memory_charge(memory, s->from_reserve[slot]) == TF_STATUS_OK) s->reserve += s->from_reserve[slot];
    s->room[slot] = s->from_reserve[slot] = 0;
    bytes = tfi_cuda_aligned(bytes);
    taken = bytes < s->reserve ? bytes : s->reserve;
    tfi_memory_refund(memory, taken);
    if (!(s->records[slot] = tfi_cuda_alloc(s->cuda, memory, bytes))) {
        if (tfi_memory_charge(memory, taken) < 0) s->reserve -= taken;
        return TF_STATUS_NOMEM;
    }
    s->reserve -= taken;
    s->from_reserve[slot] = taken;
    s->room[slot] = bytes;
    return TF_STATUS_OK;
}

static tf_status send(tfi_cuda_store *s, void *to, const void *from, int64_t bytes, cudaStream_t stream)
{
    return TFI_CUDA(s->cuda, cudaMemcpyAsync(to, from, (size_t)bytes, cudaMemcpyHostToDevice, stream));
}

/* Bytes of what the slot points to, and of its record: that and room for all tokens it may get. */
static int64_t measure(const tfi_cuda_store *s, int32_t i, int64_t *record)
{
    tfi_slot slot = s->host[i];
    image m = {0};

    if (slot.sampling) build(s, &m, &slot);
    *record = slot.sampling ? m.bytes + (slot.sampling->max_length + 1) * (int64_t)sizeof(int32_t) : 0;
    return m.bytes;
}

/* The image of what the slot points to, in `host`; gives the slot's record on the device. */
static void fill(tfi_cuda_store *s, int32_t i, char *host, char *device, tfi_slot *slot)
{
    image m = {.host = host, .device = device};

    *slot = s->host[i];
    if (!slot->sampling) return;
    build(s, &m, slot);
    s->tokens[i] = slot->tokens;
    s->beams[i] = slot->beams;
}

/* A record of its own. */
static tf_status upload_large(tfi_cuda_store *s, int32_t i, int64_t image_bytes, int64_t bytes, cudaStream_t stream,
                              tfi_slot *slot)
{
    tf_status st = make_room(s, i, bytes);
    char *host;

    if (st < 0) return st;
    if (!(host = tfi_zalloc(s->base.memory, (size_t)image_bytes))) return TF_STATUS_NOMEM;
    fill(s, i, host, s->records[i], slot);
    st = send(s, s->records[i], host, image_bytes, stream);
    /* The image is ordinary memory: its bytes are in the driver's own when cudaMemcpyAsync returns. */
    tfi_free(s->base.memory, host, (size_t)image_bytes);
    return st;
}

/* The small records of `count` slots side by side, images of at most `width` bytes, as one copy. */
static tf_status upload_small(tfi_cuda_store *s, int32_t first, int32_t count, int64_t width, cudaStream_t stream,
                              tfi_slot *slots)
{
    char *host = tfi_zalloc(s->base.memory, (size_t)(count * width)), *device = s->small + first * (int64_t)RECORD_ESTIMATE;
    tf_status st;

    if (!host) return TF_STATUS_NOMEM;
    for (int32_t i = 0; i < count; i++) fill(s, first + i, host + i * width, device + i * (int64_t)RECORD_ESTIMATE, &slots[i]);
    st = TFI_CUDA(s->cuda, cudaMemcpy2DAsync(device, RECORD_ESTIMATE, host, (size_t)width, (size_t)width, (size_t)count,
                                             cudaMemcpyHostToDevice, stream));
    tfi_free(s->base.memory, host, (size_t)(count * width));
    return st;
}

/* The records of slots from `first` on that one copy takes; how many. */
static int32_t upload_some(tfi_cuda_store *s, int32_t first, cudaStream_t stream, tfi_slot *slots, tf_status *st)
{
    int64_t width = 16, record, bytes = measure(s, first, &record);
    int32_t count = 0;

    if (record > RECORD_ESTIMATE) {
        *st = upload_large(s, first, bytes, record, stream, slots);
        return 1;
    }
    for (; count < SLOTS_AT_ONCE && first + count < s->base.shape.slots && s->dirty[first + count]; count++) {
        bytes = measure(s, first + count, &record);
        if (record > RECORD_ESTIMATE) break;
        if (bytes > width) width = bytes;
    }
    *st = upload_small(s, first, count, width, stream, slots);
    return count;
}

static tf_status upload_dirty(tfi_cuda_store *s, cudaStream_t stream)
{
    tfi_slot slots[SLOTS_AT_ONCE];
    tf_status st = TF_STATUS_OK;

    for (int32_t i = 0, n; s->any_dirty && i < s->base.shape.slots; i += n) {
        n = 1;
        if (!s->dirty[i]) continue;
        n = upload_some(s, i, stream, slots, &st);
        if (st < 0) return tfi_fail_prefix(st, "the record of a sequence: ");
        if ((st = send(s, s->base.slots + i, slots, n * (int64_t)sizeof *slots, stream)) < 0)
            return tfi_fail_prefix(st, "the records of sequences: ");
        memset(s->dirty + i, 0, (size_t)n);
    }
    s->any_dirty = 0;
    return TF_STATUS_OK;
}

tf_status tfi_cuda_store_upload(tfi_cuda_store *s, cudaStream_t stream)
{
    pthread_mutex_lock(&s->lock);
    const tf_status st = upload_dirty(s, stream);
    pthread_mutex_unlock(&s->lock);
    return st;
}

tf_status tfi_cuda_store_renew(tfi_cuda_store *s, int32_t i, cudaStream_t stream)
{
    const tfi_slot *host = &s->host[i];
    char *device = (char *)(s->base.slots + i);
    tf_status st;

    if ((st = send(s, s->tokens[i], host->tokens, host->count * (int64_t)sizeof *host->tokens, stream)) < 0 ||
        (st = send(s, device + offsetof(tfi_slot, count), &host->count, sizeof host->count, stream)) < 0)
        return st;
    return send(s, device + offsetof(tfi_slot, score), &host->score, sizeof host->score, stream);
}
