/* The tests' own harness: always-on checks that print both values, a seeded generator, guarded buffers, an allocator that
 * counts and can be told to fail. A test program is a main() that calls check_run() once a case and returns check_done(). */
#ifndef TFC_CHECK_H
#define TFC_CHECK_H

#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <tfinfer/base.h>

#ifdef __cplusplus
#include <atomic>
#define CHECK_ATOMIC(type) std::atomic<type>
extern "C" {
#else
#define CHECK_ATOMIC(type) _Atomic(type)
#endif

void check_failed(const char *file, int line, const char *format, ...) __attribute__((format(printf, 3, 4)));
extern CHECK_ATOMIC(int64_t) check_count; /* checks made so far; checks may be made on any thread */

#define CHECK(condition)                                                                                                 \
    do {                                                                                                                 \
        check_count++;                                                                                                   \
        if (!(condition)) check_failed(__FILE__, __LINE__, "%s", #condition);                                            \
    } while (0)
#define CHECK_INT(a, b)                                                                                                  \
    do {                                                                                                                 \
        const long long check_a = (long long)(a), check_b = (long long)(b);                                              \
        check_count++;                                                                                                   \
        if (check_a != check_b) check_failed(__FILE__, __LINE__, "%s is %lld, expected %s = %lld", #a, check_a, #b, check_b); \
    } while (0)
#define CHECK_TEXT(a, b)                                                                                                 \
    do {                                                                                                                 \
        const char *check_a = (a), *check_b = (b);                                                                       \
        check_count++;                                                                                                   \
        if (strcmp(check_a, check_b) != 0) check_failed(__FILE__, __LINE__, "%s is \"%s\", expected \"%s\"", #a, check_a, check_b); \
    } while (0)
/* The last error must hold `part`. */
#define CHECK_ERROR_SAYS(part)                                                                                           \
    do {                                                                                                                 \
        check_count++;                                                                                                   \
        if (!strstr(tf_last_error(), part))                                                                              \
            check_failed(__FILE__, __LINE__, "the error \"%s\" does not say \"%s\"", tf_last_error(), part);             \
    } while (0)
#define CHECK_STATUS(call, expected)                                                                                     \
    do {                                                                                                                 \
        const tf_status check_status = (call);                                                                           \
        check_count++;                                                                                                   \
        if (check_status != (expected))                                                                                  \
            check_failed(__FILE__, __LINE__, "%s gave %s (%s), expected %s", #call, tf_status_string(check_status),      \
                         tf_last_error(), tf_status_string(expected));                                                   \
    } while (0)
#define CHECK_OK(call) CHECK_STATUS(call, TF_STATUS_OK)

/* Run one named case; prints its name only if it fails. Filter: the program's first argument is a part of the names to run. */
void check_run(int argc, char **argv, const char *name, void (*body)(void));
/* Print "N passed, N failed" and return the exit code. */
int check_done(void);

/* Fresh each run; the seed is printed with a failure and taken from TFC_SEED if that is set. */
uint64_t check_random(void);
float check_uniform(float low, float high);

/* n floats between guard bands, freed and checked at the end of the case. check_out starts as NaN. */
float *check_floats(int64_t n, float low, float high);
float *check_out(int64_t n);
void *check_bytes(int64_t n);

/* sqrt(sum (a-b)^2 / sum b^2), NaN if any a is. */
double check_relative_l2(const float *a, const float *b, int64_t n);

/* An allocator that counts live bytes and blocks, checks sizes at free, and fails allocation number fail_at (1 is the next;
 * 0: never) and each that would make more than limit_bytes live (0: no limit). fail_hit tells whether one did. */
typedef struct check_memory {
    tf_allocator hooks;
    CHECK_ATOMIC(int64_t) live_bytes, live_blocks, peak_bytes, fail_at, limit_bytes;
    CHECK_ATOMIC(int) fail_hit;
} check_memory;
void check_memory_init(check_memory *m);

/* A file or folder below the test's scratch folder, which is removed at exit. Returned text is static until the next 8 calls. */
const char *check_path(const char *name);
void check_write(const char *path, const void *data, size_t size);

#ifdef __cplusplus
}
#endif

#endif
