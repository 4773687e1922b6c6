/* The file of a device's choices between functions for products: what is written is read again; anything else is refused whole.
 */
#define _POSIX_C_SOURCE 200809L
#include "backend/cuda/gemm_choices.h"

#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backend/cuda/buckets.h"
#include "check.h"

static const tfi_gemm_origin origin = {"A device of 7\xc3\xa9", 90, 132, 130002};
static tfi_gemm_choices written, read_back;
static check_memory counted;
static tfi_memory memory;

static tfi_gemm_shape random_shape(void)
{
    return (tfi_gemm_shape){.M = tfi_bucket(1 + (int64_t)(check_random() % 100000)),
                            .N = 1 + (int64_t)(check_random() % INT32_MAX),
                            .K = 1 + (int64_t)(check_random() % INT32_MAX),
                            .type = (int32_t)(check_random() % 3),
                            .out = (int32_t)(check_random() % 3),
                            .epilogue = (int32_t)(check_random() % 256),
                            .residual = (int32_t)(check_random() % 2)};
}

/* `count` new classes in random states. */
static void fill(int count)
{
    memset(&written, 0, sizeof written);
    for (int i = 0; i < count; i++) {
        const tfi_gemm_shape s = random_shape();
        tfi_gemm_choice *e = tfi_gemm_choices_find(&written, &s);
        e->shape = s;
        e->state = (tfi_gemm_state)(1 + check_random() % 4);
        for (int k = 0; k < TFI_GEMM_CONFIG; k++) e->config[k] = (uint32_t)check_random();
    }
}

static const char *read_file(const char *path, const tfi_gemm_origin *o, int *ours)
{
    const char *why;

    memset(&read_back, 0, sizeof read_back);
    CHECK_OK(tfi_gemm_choices_read(&read_back, o, path, &memory, &why, ours));
    CHECK_INT(counted.live_bytes, 0);
    return why ? why : "";
}

static int64_t count_of(const tfi_gemm_choices *c)
{
    int64_t count = 0;

    for (int i = 0; i < TFI_GEMM_CLASSES; i++) count += c->at[i].state != TFI_GEMM_FREE;
    return count;
}

static size_t load(const char *path, char *text, size_t size)
{
    FILE *f = fopen(path, "rb");
    const size_t n = f ? fread(text, 1, size, f) : 0;

    if (f) fclose(f);
    return n;
}

/* A full table, too. */
static void what_was_timed_comes_back(void)
{
    static const int counts[] = {0, 1, 300, TFI_GEMM_CLASSES};
    const char *path = check_path("choices");
    int64_t kept;
    int ours;

    for (int n = 0; n < 4; n++) {
        fill(counts[n]);
        CHECK_OK(tfi_gemm_choices_write(&written, &origin, path));
        CHECK_TEXT(read_file(path, &origin, &ours), "");
        CHECK_INT(ours, 1);
        kept = 0;
        for (int i = 0; i < TFI_GEMM_CLASSES; i++) {
            const tfi_gemm_choice *e = &written.at[i];
            if (e->state < TFI_GEMM_TIMED) continue;
            const tfi_gemm_choice *again = tfi_gemm_choices_find(&read_back, &e->shape);
            kept++;
            CHECK(again && again->state == TFI_GEMM_READ && memcmp(again->config, e->config, sizeof e->config) == 0);
        }
        CHECK_INT(count_of(&read_back), kept);
    }
}

/* Nothing of another device's or library's file is taken, but it may be replaced. */
static void others_files_are_not_used(void)
{
    const char *path = check_path("others");
    tfi_gemm_origin other;
    int ours;

    fill(20);
    CHECK_OK(tfi_gemm_choices_write(&written, &origin, path));
    for (int i = 0; i < 4; i++) {
        other = origin;
        if (i == 0) other.device[0] = 'B';
        if (i == 1) other.capability = 100;
        if (i == 2) other.multiprocessors = 66;
        if (i == 3) other.library++;
        CHECK(strstr(read_file(path, &other, &ours), "another device") != NULL);
        CHECK_INT(ours, 1);
        CHECK_INT(count_of(&read_back), 0);
    }
}

/* Every cut and, at random places, every flipped bit: refused, and nothing is taken of it. */
static void damage_is_seen(void)
{
    static char text[1 << 16];
    const char *path = check_path("damaged");
    size_t size;
    int ours;

    fill(40);
    CHECK_OK(tfi_gemm_choices_write(&written, &origin, path));
    size = load(path, text, sizeof text);
    CHECK(size > 1000 && size < sizeof text);
    for (int i = 0; i < 2000; i++) {
        const size_t cut = i < 1000 ? check_random() % size : size, at = check_random() % size;
        char *copy = malloc(cut ? cut : 1);
        memcpy(copy, text, cut);
        if (cut == size) copy[at] ^= (char)(1 << check_random() % 8);
        memset(&read_back, 0, sizeof read_back);
        CHECK(tfi_gemm_choices_parse(&read_back, &origin, copy, cut) != NULL);
        CHECK_INT(count_of(&read_back), 0);
        free(copy);
    }
    text[size - 2] ^= 1;
    check_write(path, text, size);
    CHECK(strstr(read_file(path, &origin, &ours), "damaged") != NULL);
    CHECK_INT(ours, 1);
}

/* What is no file of choices is left alone, whatever it is. */
static void strangers_are_left_alone(void)
{
    static char large[(1 << 20) + 1];
    const char *path = check_path("strange");
    int ours;

    CHECK_TEXT(read_file(check_path("none"), &origin, &ours), "");
    CHECK_INT(ours, 1);
    check_write(path, "", 0);
    CHECK_TEXT(read_file(path, &origin, &ours), "");
    CHECK_INT(ours, 1);
    check_write(path, "dear diary\n", 11);
    CHECK(*read_file(path, &origin, &ours));
    CHECK_INT(ours, 0);
    check_write(path, large, sizeof large);
    CHECK(strstr(read_file(path, &origin, &ours), "too long") != NULL);
    CHECK_INT(ours, 0);
    path = check_path("a pipe");
    CHECK_INT(mkfifo(path, 0600), 0);
    CHECK(strstr(read_file(path, &origin, &ours), "cannot be read") != NULL);
    CHECK_INT(ours, 0);
    CHECK(strstr(read_file("/", &origin, &ours), "cannot be read") != NULL);
    CHECK_INT(ours, 0);
}

static void failures_are_told(void)
{
    const char *why;
    int ours;

    fill(1);
    CHECK_STATUS(tfi_gemm_choices_write(&written, &origin, "/nonexistent/file"), TF_STATUS_IO);
    CHECK_ERROR_SAYS("/nonexistent/file");
    CHECK_OK(tfi_gemm_choices_write(&written, &origin, check_path("memory")));
    counted.fail_at = 1;
    CHECK_STATUS(tfi_gemm_choices_read(&read_back, &origin, check_path("memory"), &memory, &why, &ours), TF_STATUS_NOMEM);
    CHECK_INT(counted.live_bytes, 0);
}

int main(int argc, char **argv)
{
    check_memory_init(&counted);
    tfi_memory_init(&memory, &counted.hooks, TF_UNSET);
    check_run(argc, argv, "what_was_timed_comes_back", what_was_timed_comes_back);
    check_run(argc, argv, "others_files_are_not_used", others_files_are_not_used);
    check_run(argc, argv, "damage_is_seen", damage_is_seen);
    check_run(argc, argv, "strangers_are_left_alone", strangers_are_left_alone);
    check_run(argc, argv, "failures_are_told", failures_are_told);
    return check_done();
}
