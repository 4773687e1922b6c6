#define _GNU_SOURCE
#include "check.h"

#include <math.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#if defined(__SANITIZE_THREAD__)
/* oneDNN's cache of primitives is locked by code that the sanitizer does not see. */
const char *__tsan_default_suppressions(void);
const char *__tsan_default_suppressions(void)
{
    return "called_from_lib:libdnnl.so\nrace:libdnnl.so\n";
}
#endif

_Atomic int64_t check_count;

static const char *case_name = "";
static int passed, failed;
static _Atomic int case_failures;
static uint64_t seed, state;

enum { GUARD = 64, BUFFERS_MAX = 4096 };
static struct { char *base; int64_t size; } buffers[BUFFERS_MAX];
static int buffer_count;

void check_failed(const char *file, int line, const char *format, ...)
{
    va_list args;

    if (++case_failures > 20) return;
    fprintf(stderr, "%s:%d: in %s (TFC_SEED=%llu): ", file, line, case_name, (unsigned long long)seed);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
}

uint64_t check_random(void)
{
    if (seed == 0) {
        const char *given = getenv("TFC_SEED");
        seed = given ? strtoull(given, NULL, 10) : (uint64_t)time(NULL) * 1000003u ^ (uint64_t)getpid() << 20;
        if (seed == 0) seed = 1;
        state = seed;
    }
    uint64_t z = state += 0x9e3779b97f4a7c15u; /* splitmix64, Vigna 2015 */
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

float check_uniform(float low, float high)
{
    return low + (high - low) * (float)(check_random() >> 40) * 0x1p-24f;
}

static void *guarded(int64_t size)
{
    if (buffer_count == BUFFERS_MAX) {
        fprintf(stderr, "%s: more than %d buffers\n", case_name, BUFFERS_MAX);
        exit(2);
    }
    char *base = aligned_alloc(GUARD, (size_t)(size + 3 * GUARD) / GUARD * GUARD);
    if (!base) exit(2);
    memset(base, 0xA5, GUARD);
    memset(base + GUARD + size, 0xA5, GUARD);
    buffers[buffer_count].base = base;
    buffers[buffer_count++].size = size;
    return base + GUARD;
}

static void buffers_close(void)
{
    for (int i = 0; i < buffer_count; i++) {
        const unsigned char *before = (unsigned char *)buffers[i].base, *after = before + GUARD + buffers[i].size;
        for (int k = 0; k < GUARD; k++) {
            if (before[k] != 0xA5) check_failed(__FILE__, __LINE__, "buffer %d: written %d bytes before its begin", i, GUARD - k);
            if (after[k] != 0xA5) check_failed(__FILE__, __LINE__, "buffer %d: written %d bytes past its end", i, k);
        }
        free(buffers[i].base);
    }
    buffer_count = 0;
}

void *check_bytes(int64_t n)
{
    return guarded(n);
}

float *check_floats(int64_t n, float low, float high)
{
    float *p = guarded(n * (int64_t)sizeof(float));
    for (int64_t i = 0; i < n; i++) p[i] = check_uniform(low, high);
    return p;
}

float *check_out(int64_t n)
{
    float *p = guarded(n * (int64_t)sizeof(float));
    for (int64_t i = 0; i < n; i++) p[i] = NAN;
    return p;
}

double check_relative_l2(const float *a, const float *b, int64_t n)
{
    double difference = 0, norm = 0;
    for (int64_t i = 0; i < n; i++) {
        difference += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
        norm += (double)b[i] * b[i];
    }
    return norm > 0 ? sqrt(difference / norm) : sqrt(difference);
}

void check_run(int argc, char **argv, const char *name, void (*body)(void))
{
    if (argc > 1 && !strstr(name, argv[1])) return;
    case_name = name;
    case_failures = 0;
    body();
    buffers_close();
    if (case_failures) {
        failed++;
        fprintf(stderr, "FAILED %s\n", name);
    } else {
        passed++;
    }
}

int check_done(void)
{
    printf("%lld checks\n%d passed, %d failed\n", (long long)check_count, passed, failed);
    return failed ? 1 : 0;
}

typedef struct block_head { size_t size, align; } block_head;

static void *counting_alloc(void *user, size_t size, size_t align)
{
    check_memory *m = user;
    if ((m->fail_at > 0 && --m->fail_at == 0) || (m->limit_bytes > 0 && m->live_bytes + (int64_t)size > m->limit_bytes)) {
        m->fail_hit = 1;
        return NULL;
    }
    if (align < 64) align = 64;
    char *base = aligned_alloc(align, (size + 2 * align - 1) / align * align);
    if (!base) return NULL;
    ((block_head *)(base + align))[-1] = (block_head){size, align};
    const int64_t live = atomic_fetch_add(&m->live_bytes, (int64_t)size) + (int64_t)size;
    m->live_blocks++;
    if (live > m->peak_bytes) m->peak_bytes = live;
    return base + align;
}

static void counting_free(void *user, void *p, size_t size)
{
    check_memory *m = user;
    const block_head h = ((block_head *)p)[-1];
    if (h.size != size) check_failed(__FILE__, __LINE__, "freed with size %zu, allocated with %zu", size, h.size);
    m->live_bytes -= (int64_t)h.size;
    m->live_blocks--;
    free((char *)p - h.align);
}

void check_memory_init(check_memory *m)
{
    memset(m, 0, sizeof *m);
    m->hooks = (tf_allocator){counting_alloc, counting_free, m};
}

static char scratch[64];

static void scratch_remove(void)
{
    char command[96];
    snprintf(command, sizeof command, "rm -rf '%s'", scratch);
    if (system(command) != 0) fprintf(stderr, "%s could not be removed\n", scratch);
}

const char *check_path(const char *name)
{
    static char paths[8][512];
    static int next;

    if (!scratch[0]) {
        strcpy(scratch, "/tmp/tfinfer-test-XXXXXX");
        if (!mkdtemp(scratch)) exit(2);
        atexit(scratch_remove);
    }
    char *path = paths[next++ % 8];
    snprintf(path, sizeof paths[0], "%s/%s", scratch, name);
    return path;
}

void check_write(const char *path, const void *data, size_t size)
{
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(data, 1, size, f) != size || fclose(f) != 0) {
        perror(path);
        exit(2);
    }
}
