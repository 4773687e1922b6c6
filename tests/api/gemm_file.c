/* The file that keeps how a device computes products: with it every open gives the same bits, whatever was measured; one that
 * is of no use is told of and replaced, and a stranger's is left alone. Needs a device: the environment variable TFINFER_DEVICE
 * names it. */
#include <stdlib.h>

#include "check.h"
#include "tiny_model.h"

enum { FILE_MAX = 1 << 18 };

static char logged[1024];
static char before[FILE_MAX + 1], after[FILE_MAX + 1];

static void log_line(void *user, tf_log_level level, const char *text)
{
    (void)user;
    if (level == TF_LOG_WARNING) snprintf(logged, sizeof logged, "%s", text);
}

static size_t load(const char *path, char *text)
{
    FILE *f = fopen(path, "rb");
    const size_t size = f ? fread(text, 1, FILE_MAX, f) : 0;

    if (f) fclose(f);
    return size;
}

static uint64_t sum_of(const char *text, size_t size)
{
    uint64_t sum = 14695981039346656037u;

    for (size_t i = 0; i < size; i++) sum = (sum ^ (unsigned char)text[i]) * 1099511628211u;
    return sum;
}

/* Open, run, close; `logged` then has the last warning, or nothing. */
static void run(const char *file, int32_t timing, float *out)
{
    check_memory memory;
    tf_model_options o;
    tf_model *m;
    tf_session *s;

    check_memory_init(&memory);
    tf_model_options_init(&o);
    o.allocator = &memory.hooks;
    o.gemm_file = file;
    o.gemm_timing = timing;
    o.log = log_line;
    *logged = 0;
    memset(out, 0, TINY_OUT * sizeof *out);
    tiny_open(TINY_MASKED_LM, &o, &m, &s);
    CHECK_OK(tiny_run(s, TINY_MASKED_LM, out));
    tf_session_close(s);
    tf_model_close(m);
    CHECK_INT(memory.live_bytes, 0);
}

static void same_file_same_bits(void)
{
    const char *path = check_path("choices");
    float first[TINY_OUT], again[TINY_OUT];
    size_t size;

    run(path, TF_UNSET, first);
    CHECK_TEXT(logged, "");
    size = load(path, before);
    CHECK(size > 200 && memcmp(before, "tfinfer gemm choices 1\n", 23) == 0);
    for (int i = 0; i < 8; i++) {
        run(path, i % 2 ? 0 : TF_UNSET, again); /* what the file has holds without timing, too */
        CHECK(memcmp(first, again, sizeof first) == 0);
        CHECK_TEXT(logged, "");
        CHECK(load(path, after) == size && memcmp(before, after, size) == 0);
    }
}

static void without_timing_nothing_is_kept(void)
{
    const char *path = check_path("untimed");
    float first[TINY_OUT], again[TINY_OUT];

    run(path, 0, first);
    CHECK_INT(load(path, after), 0);
    for (int i = 0; i < 4; i++) {
        run(NULL, 0, again);
        CHECK(memcmp(first, again, sizeof first) == 0);
    }
}

static void useless_files_are_replaced(void)
{
    static const char *const spoilt[] = {"device ", "cublasLt ", "\nsum "};
    static const char *const says[] = {"another device", "another device", "damaged"};
    const char *path = check_path("useless");
    float out[TINY_OUT];

    for (int i = 0; i < 3; i++) {
        run(path, TF_UNSET, out);
        const size_t size = load(path, before);
        char *at = size < FILE_MAX ? strstr(before, spoilt[i]) : NULL;
        CHECK(at != NULL);
        if (!at) return;
        at[strlen(spoilt[i])] ^= 1;
        if (i < 2) { /* sound otherwise */
            snprintf(before + size - 21, 22, "sum %016llx\n", (unsigned long long)sum_of(before, size - 21));
        }
        check_write(path, before, size);
        run(path, TF_UNSET, out);
        CHECK(strstr(logged, says[i]) != NULL && strstr(logged, path) != NULL);
        run(path, TF_UNSET, out);
        CHECK_TEXT(logged, "");
    }
}

/* A sound file whose numbers name functions that do not exist, or are not for these products: they are chosen anew. */
static void names_of_nothing(void)
{
    const char *path = check_path("names");
    float first[TINY_OUT], out[TINY_OUT];

    for (int i = 0; i < 8; i++) {
        char *at, *to = after;
        run(path, 0, first); /* with what is left of the last round */
        (void)remove(path);
        run(path, TF_UNSET, out);
        CHECK(check_relative_l2(out, first, TINY_OUT) < 1e-5);
        before[load(path, before)] = 0;
        for (at = before; *at; at = strchr(at, '\n') + 1) { /* a number of each line becomes another */
            const int line = (int)(strchr(at, '\n') + 1 - at), which = 7 + (int)(check_random() % 9);
            int number = -1;
            if (at[0] < '0' || at[0] > '9') {
                if (memcmp(at, "sum ", 4) != 0) to += sprintf(to, "%.*s", line, at);
                continue;
            }
            for (int k = 0; k < line; k++) {
                if (number + 1 == which && (k == 0 || at[k - 1] == ' ')) {
                    to += sprintf(to, "%u", (unsigned)(check_random() >> (check_random() % 33)) >> (check_random() % 32));
                    number++;
                    while (at[k] >= '0' && at[k] <= '9') k++;
                } else if (k == 0 || at[k - 1] == ' ') {
                    number++;
                }
                *to++ = at[k];
            }
        }
        to += sprintf(to, "sum %016llx\n", (unsigned long long)sum_of(after, (size_t)(to - after)));
        check_write(path, after, (size_t)(to - after));
        run(path, TF_UNSET, out);
        CHECK_TEXT(logged, "");
        CHECK(check_relative_l2(out, first, TINY_OUT) < 1e-5);
    }
}

static void strangers_are_left_alone(void)
{
    const char *path = check_path("diary");
    float out[TINY_OUT];

    check_write(path, "dear diary\n", 11);
    run(path, TF_UNSET, out);
    CHECK(strstr(logged, "no file of this version's choices") != NULL);
    CHECK_INT(load(path, after), 11);
    CHECK(memcmp(after, "dear diary\n", 11) == 0);
    run("/nonexistent/choices", TF_UNSET, out);
    CHECK(strstr(logged, "could not be written") != NULL);
}

int main(int argc, char **argv)
{
    if (!getenv("TFINFER_DEVICE")) {
        printf("skipped: TFINFER_DEVICE names no device\n");
        return 77;
    }
    check_run(argc, argv, "same_file_same_bits", same_file_same_bits);
    check_run(argc, argv, "without_timing_nothing_is_kept", without_timing_nothing_is_kept);
    check_run(argc, argv, "useless_files_are_replaced", useless_files_are_replaced);
    check_run(argc, argv, "names_of_nothing", names_of_nothing);
    check_run(argc, argv, "strangers_are_left_alone", strangers_are_left_alone);
    return check_done();
}
