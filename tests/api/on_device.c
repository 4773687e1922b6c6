/* What a host that uses the GPU itself may expect of the library: its streams and contexts are respected, its allocations do
 * not disturb ours, memory comes back, a device that is full or broken is told in a sentence and the process goes on. The
 * driver is opened here by name, so that this builds and is skipped where there is none. Runs on the device TFINFER_DEVICE
 * ("cuda"). */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

#include "check.h"
#include "tiny_decoder.h"
#include "tiny_model.h"

/* ---- the driver ---- */

typedef unsigned long long address;
typedef void (*on_stream)(void *user);

static struct driver {
    int (*init)(unsigned flags);
    int (*device_get)(int *out, int ordinal);
    int (*context_retain)(void **out, int device);
    int (*context_create)(void **out, unsigned flags, int device);
    int (*context_destroy)(void *context);
    int (*context_get)(void **out);
    int (*context_set)(void *context);
    int (*synchronize)(void);
    int (*alloc)(address *out, size_t size);
    int (*free)(address p);
    int (*memory)(size_t *free, size_t *all);
    int (*stream_create)(void **out, unsigned flags);
    int (*stream_destroy)(void *stream);
    int (*stream_synchronize)(void *stream);
    int (*host_function)(void *stream, on_stream function, void *user);
    int (*module_load)(void **out, const void *image);
    int (*function_get)(void **out, void *module, const char *name);
    int (*launch)(void *function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, unsigned block_y,
                  unsigned block_z, unsigned shared, void *stream, void **arguments, void **extra);
} cu;

static const char *const driver_names[] = {"cuInit",
                                           "cuDeviceGet",
                                           "cuDevicePrimaryCtxRetain",
                                           "cuCtxCreate_v2",
                                           "cuCtxDestroy_v2",
                                           "cuCtxGetCurrent",
                                           "cuCtxSetCurrent",
                                           "cuCtxSynchronize",
                                           "cuMemAlloc_v2",
                                           "cuMemFree_v2",
                                           "cuMemGetInfo_v2",
                                           "cuStreamCreate",
                                           "cuStreamDestroy_v2",
                                           "cuStreamSynchronize",
                                           "cuLaunchHostFunc",
                                           "cuModuleLoadData",
                                           "cuModuleGetFunction",
                                           "cuLaunchKernel"};
enum { DRIVER_FUNCTIONS = sizeof driver_names / sizeof *driver_names };
_Static_assert(sizeof cu == DRIVER_FUNCTIONS * sizeof(void *), "a name for each function");

static int device_number;
static void *context; /* the device's primary one, current in this program's main thread */

/* Whether there is a device; its context is kept, as a host's own use of it would. */
static int device_open(const char *name)
{
    void *library = dlopen("libcuda.so.1", RTLD_NOW);

    for (int i = 0; library && i < DRIVER_FUNCTIONS; i++) {
        void *function = dlsym(library, driver_names[i]);
        if (!function) return 0;
        memcpy((char *)&cu + (size_t)i * sizeof function, &function, sizeof function);
    }
    return library && cu.init(0) == 0 && cu.device_get(&device_number, name[4] ? atoi(name + 5) : 0) == 0 &&
           cu.context_retain(&context, device_number) == 0 && cu.context_set(context) == 0;
}

static int64_t free_memory(void)
{
    size_t free = 0, all;
    CHECK_INT(cu.memory(&free, &all), 0);
    return (int64_t)free;
}

/* ---- a model at work ---- */

enum { TOKENS = 40, OUTPUTS = TOKENS + TINY_OUT };

typedef struct bench {
    check_memory memory;
    tf_model *decoder, *encoder;
    tf_session *decoding, *encoding;
} bench;

static tf_status open_models(bench *b, const char *device, tf_dtype dtype, void *stream)
{
    tf_model_options o;
    tf_session_options so;
    tf_status st;

    memset(b, 0, sizeof *b);
    check_memory_init(&b->memory);
    tf_model_options_init(&o);
    tf_session_options_init(&so);
    o.allocator = &b->memory.hooks;
    o.threads = 2;
    o.device = device;
    o.dtype = dtype;
    so.stream = stream;
    so.kv_tokens = 1024;
    if ((st = tf_model_open(tiny_decoder_path(TINY_GPT2), &o, &b->decoder)) < 0 ||
        (st = tf_model_open(tiny_model_path(TINY_BASE), &o, &b->encoder)) < 0 ||
        (st = tf_session_open(b->decoder, &so, &b->decoding)) < 0)
        return st;
    return tf_session_open(b->encoder, &so, &b->encoding);
}

static const char *device_name(void)
{
    return getenv("TFINFER_DEVICE");
}

static void close_models(bench *b)
{
    tf_session_close(b->decoding);
    tf_session_close(b->encoding);
    tf_model_close(b->decoder);
    tf_model_close(b->encoder);
    CHECK_INT(b->memory.live_blocks, 0);
    CHECK_INT(b->memory.live_bytes, 0);
}

static tf_status start(tf_session *s, const char *text, tf_generate **out)
{
    const tf_text prompt = tf_text_of(text);
    tf_input in = tiny_texts(&prompt, 1);
    tf_generate_options o;

    tf_generate_options_init(&o);
    o.max_new_tokens = TOKENS;
    o.eos_count = 0;
    return tf_generate_open(s, &in, &o, out);
}

/* Ids of a greedy request, as numbers. */
static tf_status generate(tf_session *s, const char *text, float *out)
{
    tf_generated r;
    tf_generate *g;
    tf_status st;

    if ((st = start(s, text, &g)) < 0) return st;
    tf_generated_init(&r);
    if ((st = tf_generate_wait(g, -1)) == TF_STATUS_OK && (st = tf_generate_result(g, 0, &r)) == TF_STATUS_OK) {
        CHECK_INT(r.count, TOKENS);
        for (int i = 0; i < TOKENS; i++) out[i] = (float)r.ids[i];
    }
    tf_generate_close(g);
    return st;
}

/* Both models' answers. A prompt of its own length for each `number`: shapes come anew. */
static tf_status work(bench *b, int number, float out[OUTPUTS])
{
    static const char text[] = "the quick brown fox jumps over the lazy dog";
    tf_status st;

    memset(out, 0, OUTPUTS * sizeof *out);
    if ((st = generate(b->decoding, text + sizeof text - 2 - number % 40, out)) < 0) return st;
    return tiny_run(b->encoding, TINY_BASE, out + TOKENS);
}

static int same(const float *a, const float *b)
{
    return memcmp(a, b, TOKENS * sizeof *a) == 0 && check_relative_l2(a + TOKENS, b + TOKENS, TINY_OUT) < 1e-5;
}

static void check_works(bench *b, const float *want)
{
    float got[OUTPUTS];
    CHECK_OK(work(b, 3, got));
    CHECK(same(got, want));
}

/* ---- memory comes back ---- */

static void open_work_close(int number)
{
    static const tf_dtype dtypes[] = {TF_DTYPE_FP32, TF_DTYPE_FP16, TF_DTYPE_BF16};
    float out[OUTPUTS];
    bench b;

    CHECK_OK(open_models(&b, device_name(), dtypes[number % 3], NULL));
    for (int k = 0; k < 3; k++) CHECK_OK(work(&b, 3, out)); /* the second time a shape is captured, then replayed */
    close_models(&b);
}

/* A kernel's code stays on the device from its first use on: each dtype is used once before. What is free is so of the whole
 * device: when another process comes or goes, rounds are counted anew. What we lose, we lose again in every so many rounds. */
static void memory_returns(void)
{
    enum { ROUNDS = 100, AT_MOST = 400 };
    int done = 0, same = 0;

    for (; done < 3; done++) open_work_close(done);
    for (int64_t before = free_memory(); same < ROUNDS && done < AT_MOST; done++) {
        open_work_close(done);
        const int64_t now = free_memory();
        if (now != before) printf("round %d: %+lld bytes of the device's memory are free\n", done, (long long)(now - before));
        same = now == before ? same + 1 : 0;
        before = now;
    }
    check_count++;
    if (same < ROUNDS)
        check_failed(__FILE__, __LINE__, "device memory does not come back, or other processes on the device take and give it");
}

/* ---- a host that allocates all the time ---- */

static atomic_int stop;

typedef struct allocating {
    int64_t rounds;
    int failures;
} allocating;

static void *allocate_always(void *arg)
{
    allocating *a = arg;
    address p;

    CHECK_INT(cu.context_set(context), 0);
    for (; !atomic_load(&stop); a->rounds++)
        a->failures += cu.alloc(&p, (size_t)1 << (10 + a->rounds % 14)) != 0 || cu.free(p) != 0;
    return NULL;
}

/* A capture that watched the whole process would fail here, or make the other thread's calls fail. */
static void allocations_elsewhere(void)
{
    enum { LENGTHS = 24 };
    static float want[LENGTHS][OUTPUTS];
    float got[OUTPUTS];
    allocating a = {0, 0};
    pthread_t thread;
    bench b;

    CHECK_OK(open_models(&b, device_name(), TF_DTYPE_FP32, NULL));
    for (int i = 0; i < LENGTHS; i++) CHECK_OK(work(&b, i, want[i]));
    close_models(&b);
    atomic_store(&stop, 0);
    CHECK_INT(pthread_create(&thread, NULL, allocate_always, &a), 0);
    for (int round = 0; round < 3; round++) {
        CHECK_OK(open_models(&b, device_name(), TF_DTYPE_FP32, NULL));
        for (int i = 0; i < LENGTHS * 3; i++) {
            CHECK_OK(work(&b, i / 3, got));
            CHECK(same(got, want[i / 3]));
        }
        close_models(&b);
    }
    atomic_store(&stop, 1);
    pthread_join(thread, NULL);
    CHECK_INT(a.failures, 0);
    CHECK(a.rounds > 100);
}

/* ---- a full device ---- */

enum { PIECES_MAX = 1 << 16 };
static struct fill {
    address pieces[PIECES_MAX];
    int count;
} fill;

/* Take all memory of the device, to the last half kilobyte. */
static void fill_device(void)
{
    for (size_t size = (size_t)1 << 34; size >= 512; size /= 2)
        while (fill.count < PIECES_MAX && cu.alloc(&fill.pieces[fill.count], size) == 0) fill.count++;
    CHECK(fill.count < PIECES_MAX);
}

static void empty_device(void)
{
    while (fill.count > 0) CHECK_INT(cu.free(fill.pieces[--fill.count]), 0);
}

static void full_at_open(void)
{
    float want[OUTPUTS];
    tf_session_options so;
    tf_session *s = NULL;
    bench b, more;

    CHECK_OK(open_models(&b, device_name(), TF_DTYPE_FP32, NULL));
    CHECK_OK(work(&b, 3, want));
    fill_device();
    CHECK_STATUS(open_models(&more, device_name(), TF_DTYPE_FP32, NULL), TF_STATUS_NOMEM);
    CHECK_ERROR_SAYS("memory");
    CHECK_ERROR_SAYS(device_name());
    close_models(&more);
    CHECK_STATUS(tf_session_open(b.decoder, NULL, &s), TF_STATUS_NOMEM);
    CHECK_ERROR_SAYS("bytes");
    CHECK(!s);
    empty_device();
    check_works(&b, want);
    tf_session_options_init(&so);
    so.kv_tokens = (int64_t)1 << 30; /* more than any device has room for */
    CHECK_STATUS(tf_session_open(b.decoder, &so, &s), TF_STATUS_NOMEM);
    check_works(&b, want);
    CHECK_OK(open_models(&more, device_name(), TF_DTYPE_FP32, NULL));
    check_works(&more, want);
    close_models(&more);
    close_models(&b);
}

/* Most was reserved at open; what still has to be taken may fail, by name, and the request alone. */
static void full_at_run(void)
{
    float want[OUTPUTS], got[OUTPUTS];
    bench b;

    CHECK_OK(open_models(&b, device_name(), TF_DTYPE_FP32, NULL));
    CHECK_OK(work(&b, 3, want));
    close_models(&b);
    CHECK_OK(open_models(&b, device_name(), TF_DTYPE_FP32, NULL));
    fill_device();
    for (int i = 0; i < 3; i++) {
        const tf_status st = work(&b, 3, got);
        if (st == TF_STATUS_OK) CHECK(same(got, want));
        else CHECK_STATUS(st, TF_STATUS_NOMEM);
    }
    empty_device();
    check_works(&b, want);
    close_models(&b);
}

/* The first case of all: where none of our code is on the device yet, and there is no room for it. */
static void full_at_first_open(void)
{
    bench b;

    fill_device();
    CHECK_STATUS(open_models(&b, device_name(), TF_DTYPE_FP16, NULL), TF_STATUS_NOMEM);
    CHECK_ERROR_SAYS("the code of kernels");
    close_models(&b);
    empty_device();
    open_work_close(1);
}

/* What runs for the first time has its code on the device, or says that there is no room for it and runs when there is. */
static void full_at_first_run(void)
{
    float want[OUTPUTS], got[OUTPUTS];
    bench b, more;

    CHECK_OK(open_models(&b, device_name(), TF_DTYPE_FP16, NULL));
    fill_device();
    for (int i = 0; i < 2; i++) {
        const tf_status st = work(&b, 3, got);
        if (st < 0) {
            printf("a full device, run %d: %s\n", i, tf_last_error());
            CHECK_STATUS(st, TF_STATUS_NOMEM);
        }
    }
    empty_device();
    CHECK_OK(open_models(&more, device_name(), TF_DTYPE_FP16, NULL));
    CHECK_OK(work(&more, 3, want));
    close_models(&more);
    check_works(&b, want);
    close_models(&b);
}

/* ---- the caller's stream and context ---- */

static atomic_int held;

static void hold(void *user)
{
    (void)user;
    while (atomic_load(&held)) nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
}

typedef struct worker {
    pthread_t thread;
    bench *bench;
    float out[OUTPUTS];
    tf_status status;
    atomic_int done;
} worker;

static void *work_elsewhere(void *arg)
{
    worker *w = arg;
    w->status = work(w->bench, 3, w->out);
    atomic_store(&w->done, 1);
    return NULL;
}

/* What is before us on the caller's stream has to be done first; nothing else waits for that. */
static void callers_stream(void)
{
    float want[OUTPUTS];
    worker w = {.done = 0};
    bench b, other;
    void *stream;

    CHECK_INT(cu.stream_create(&stream, 1), 0); /* does not wait for the default stream */
    CHECK_OK(open_models(&b, device_name(), TF_DTYPE_FP32, stream));
    CHECK_OK(open_models(&other, device_name(), TF_DTYPE_FP32, NULL));
    for (int i = 0; i < 3; i++) {
        CHECK_OK(work(&other, 3, want));
        check_works(&b, want);
    }
    atomic_store(&held, 1);
    CHECK_INT(cu.host_function(stream, hold, NULL), 0);
    w.bench = &b;
    CHECK_INT(pthread_create(&w.thread, NULL, work_elsewhere, &w), 0);
    for (int i = 0; i < 20; i++) {
        check_works(&other, want);
        nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
    }
    CHECK_INT(atomic_load(&w.done), 0);
    atomic_store(&held, 0);
    pthread_join(w.thread, NULL);
    CHECK_OK(w.status);
    CHECK(same(w.out, want));
    close_models(&b);
    close_models(&other);
    CHECK_INT(cu.stream_synchronize(stream), 0); /* it is the caller's still */
    CHECK_INT(cu.stream_destroy(stream), 0);
}

static void check_context(void *expected)
{
    void *current = NULL;
    CHECK_INT(cu.context_get(&current), 0);
    CHECK_INT((intptr_t)current, (intptr_t)expected);
}

static void *work_under(void *current)
{
    float out[OUTPUTS];
    bench b;

    if (current) CHECK_INT(cu.context_set(current), 0);
    CHECK_OK(open_models(&b, device_name(), TF_DTYPE_FP32, NULL));
    check_context(current);
    for (int k = 0; k < 3; k++) {
        CHECK_OK(work(&b, 3, out));
        check_context(current);
    }
    close_models(&b);
    check_context(current);
    return NULL;
}

/* Whatever was current on the calling thread, none or another library's context, is so after each call. */
static void callers_context(void)
{
    pthread_t thread;
    void *other;

    CHECK_INT(cu.context_create(&other, 0, device_number), 0);
    CHECK_INT(cu.context_set(context), 0);
    for (int i = 0; i < 2; i++) {
        CHECK_INT(pthread_create(&thread, NULL, work_under, i ? other : NULL), 0);
        pthread_join(thread, NULL);
    }
    CHECK_INT(cu.context_destroy(other), 0);
}

/* ---- a device that broke: the last case, for nothing works on it afterwards ---- */

/* Writes to address 0. */
static const char fault[] = ".version 6.3\n.target sm_75\n.address_size 64\n"
                            ".visible .entry fault()\n{\n.reg .b64 %p;\n.reg .b32 %v;\nmov.u64 %p, 0;\nmov.u32 %v, 1;\n"
                            "st.global.u32 [%p], %v;\nret;\n}\n";

static void break_device(void)
{
    void *module, *function;

    CHECK_INT(cu.module_load(&module, fault), 0);
    CHECK_INT(cu.function_get(&function, module, "fault"), 0);
    CHECK_INT(cu.launch(function, 1, 1, 1, 1, 1, 1, 0, NULL, NULL, NULL), 0);
    CHECK(cu.synchronize() != 0);
}

static void check_says_so(tf_status st)
{
    CHECK_STATUS(st, TF_STATUS_DEVICE);
    CHECK_ERROR_SAYS(device_name());
}

static void broken_device(void)
{
    float want[OUTPUTS], out[OUTPUTS];
    bench b, host, more;
    tf_generate *g;
    tf_session *s;

    CHECK_OK(open_models(&host, "cpu", TF_DTYPE_FP32, NULL));
    CHECK_OK(work(&host, 3, want));
    CHECK_OK(open_models(&b, device_name(), TF_DTYPE_FP32, NULL));
    CHECK_OK(work(&b, 3, out));
    CHECK_OK(start(b.decoding, "begun before", &g));
    CHECK_OK(tf_session_step(b.decoding, -1));
    break_device();
    check_says_so(tf_generate_wait(g, -1));
    for (int i = 0; i < 2; i++) {
        check_says_so(generate(b.decoding, "after", out));
        check_says_so(tiny_run(b.encoding, TINY_BASE, out));
        check_says_so(tf_session_open(b.decoder, NULL, &s));
        check_says_so(tf_session_open(b.encoder, NULL, &s));
        check_says_so(open_models(&more, device_name(), TF_DTYPE_FP32, NULL));
        close_models(&more);
    }
    check_works(&host, want);
    tf_generate_close(g);
    close_models(&b);
    check_works(&host, want);
    close_models(&host);
    CHECK_OK(open_models(&host, "cpu", TF_DTYPE_FP32, NULL));
    check_works(&host, want);
    close_models(&host);
}

int main(int argc, char **argv)
{
    const char *name = device_name();

    if (!name || strncmp(name, "cuda", 4) != 0 || !device_open(name)) {
        printf("skipped: TFINFER_DEVICE names no CUDA device\n");
        return 77;
    }
    check_run(argc, argv, "full_at_first_open", full_at_first_open);
    check_run(argc, argv, "full_at_first_run", full_at_first_run);
    check_run(argc, argv, "memory_returns", memory_returns);
    check_run(argc, argv, "allocations_elsewhere", allocations_elsewhere);
    check_run(argc, argv, "full_at_open", full_at_open);
    check_run(argc, argv, "full_at_run", full_at_run);
    check_run(argc, argv, "callers_stream", callers_stream);
    check_run(argc, argv, "callers_context", callers_context);
    check_run(argc, argv, "broken_device", broken_device);
    return check_done();
}
