/* Checkpoints of the host that are described wrongly, callbacks and memory that fail, tokenizers alone: each has a status
 * and a text, and all is given back once. */
#define _GNU_SOURCE
#include "held_source.h"

/* ---- what is wrong ---- */

static void fails(const tf_source *s, tf_status status, const char *says, const char *says_too)
{
    const tf_model_options o = on_cpu(TF_DTYPE_FP32);
    tf_model *m = (tf_model *)&o;

    CHECK_STATUS(tf_model_open_source(s, &o, &m), status);
    CHECK(m == NULL);
    CHECK_ERROR_SAYS(says);
    CHECK_ERROR_SAYS(says_too);
    all_is_back();
}

#define SPOIL_FILE(name, statement)                                                                                            \
    static void name(tf_file *out)                                                                                             \
    {                                                                                                                          \
        statement;                                                                                                             \
    }
SPOIL_FILE(no_bytes, (out->data = NULL, out->fd = TF_UNSET))
SPOIL_FILE(both_homes, out->fd = 0)
SPOIL_FILE(negative_size, out->size = -3)
SPOIL_FILE(unset_size, out->size = TF_UNSET)
SPOIL_FILE(wrapping_size, out->size = INT64_MAX; out->data = (const void *)(UINTPTR_MAX - 4096))
SPOIL_FILE(closed_fd, (out->data = NULL, out->fd = 12345))
SPOIL_FILE(negative_fd, (out->data = NULL, out->fd = -1))

static void wrong_files(void)
{
    static const struct {
        void (*spoil)(tf_file *out);
        tf_status status;
        const char *says;
    } cases[] = {{no_bytes, TF_STATUS_INVALID, "neither data nor fd is set"},
                 {both_homes, TF_STATUS_INVALID, "data and fd are both set"},
                 {negative_size, TF_STATUS_INVALID, "size is -3"},
                 {unset_size, TF_STATUS_INVALID, "size is -2147483648"},
                 {wrapping_size, TF_STATUS_INVALID, "size is 9223372036854775807"},
                 {closed_fd, TF_STATUS_IO, "descriptor"},
                 {negative_fd, TF_STATUS_INVALID, "neither data nor fd is set"}};
    static const char *const names[] = {"config.json", "model.safetensors", "modules.json"};

    hold(tiny_model_path(TINY_BASE));
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        for (size_t n = 0; n < sizeof names / sizeof names[0]; n++) {
            const tf_source s = source_of(0);
            h.bad_name = names[n];
            h.spoil_file = cases[i].spoil;
            fails(&s, cases[i].status, cases[i].says, names[n]);
            CHECK_ERROR_SAYS("row 17/");
        }
    h.spoil_file = NULL;
    /* A tokenizer that cannot be read is no reason not to open the model: it says so when it is asked for. */
    const tf_source s = source_of(0);
    const tf_model_options o = on_cpu(TF_DTYPE_FP32);
    const tf_tokenizer *t;
    tf_model *m = NULL;
    h.bad_name = "tokenizer_config.json";
    h.spoil_file = negative_size;
    CHECK_OK(tf_model_open_source(&s, &o, &m));
    CHECK_STATUS(tf_model_tokenizer(m, &t), TF_STATUS_INVALID);
    CHECK_ERROR_SAYS("tokenizer_config.json: size is -3");
    tf_model_close(m);
    all_is_back();
}

static int64_t bad_offset, bad_size;
static int bad_fd;
SPOIL_FILE(range, (out->data = NULL, out->fd = bad_fd, out->offset = bad_offset, out->size = bad_size))

static void wrong_ranges(void)
{
    static const struct {
        int64_t offset, size;
        const char *says;
    } cases[] = {{-1, 5, "offset is -1"},
                 {10001, TF_UNSET, "offset is 10001"},
                 {INT64_MAX, 1, "offset is 9223372036854775807"},
                 {10, 9991, "size is 9991, the file has 9990"},
                 {0, -7, "size is -7"},
                 {9000, INT64_MAX, "size is 9223372036854775807"}};
    int pipes[2];

    hold(tiny_model_path(TINY_BASE));
    h.bad_name = "config.json";
    h.spoil_file = range;
    if ((bad_fd = memfd_create("short", MFD_CLOEXEC)) < 0 || ftruncate(bad_fd, 10000) != 0) exit(2);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const tf_source s = source_of(0);
        bad_offset = cases[i].offset;
        bad_size = cases[i].size;
        fails(&s, TF_STATUS_INVALID, cases[i].says, "row 17/config.json");
    }
    tf_source s = source_of(0);
    bad_offset = 10000, bad_size = TF_UNSET; /* nothing is behind it: an empty file, which is no JSON */
    fails(&s, TF_STATUS_CORRUPT, "config.json", "row 17");
    close(bad_fd);
    if (pipe(pipes) != 0) exit(2);
    s = source_of(0);
    bad_fd = pipes[0], bad_offset = 0;
    fails(&s, TF_STATUS_IO, "not a regular file", "config.json");
    close(pipes[0]);
    close(pipes[1]);
}

#define SPOIL(name, statement)                                                                                                 \
    static void name(tf_tensor *out)                                                                                           \
    {                                                                                                                          \
        statement;                                                                                                             \
    }
SPOIL(no_name, out->name = NULL)
SPOIL(empty_name, out->name = "")
SPOIL(same_name, out->name = h.tensors[h.tensor_count - 1].name)
SPOIL(no_data, out->data = NULL)
SPOIL(no_dtype, out->dtype = TF_UNSET)
SPOIL(auto_dtype, out->dtype = TF_DTYPE_AUTO)
SPOIL(tf32, out->dtype = TF_DTYPE_TF32)
SPOIL(unknown_dtype, out->dtype = 99)
SPOIL(no_rank, out->rank = TF_UNSET)
SPOIL(rank_9, out->rank = 9)
SPOIL(negative_shape, out->shape[1] = -1)
SPOIL(unset_shape, out->shape[1] = TF_UNSET)
SPOIL(huge_shape, (out->shape[0] = INT64_MAX / 2, out->shape[1] = 4))
SPOIL(negative_stride, (out->stride[0] = -32, out->stride[1] = 1))
SPOIL(half_set_stride, out->stride[0] = 32)
SPOIL(huge_stride, (out->stride[0] = INT64_MAX / 8, out->stride[1] = 1))
SPOIL(wrapping_stride, (out->stride[0] = INT64_MAX / 1024, out->stride[1] = 1, out->data = (const void *)(UINTPTR_MAX - 8191)))
SPOIL(other_shape, (out->shape[1] = TINY_WIDTH / 2, out->stride[0] = TINY_WIDTH, out->stride[1] = 1))
SPOIL(other_rank, out->rank = 1)
SPOIL(other_name, out->name = "nobody.knows.it")
SPOIL(negative_device, out->device = -1)

static void wrong_tensors(void)
{
    static const struct {
        void (*spoil)(tf_tensor *out);
        tf_status status;
        const char *says;
    } cases[] = {{no_name, TF_STATUS_INVALID, "has no name"},
                 {empty_name, TF_STATUS_INVALID, "has no name"},
                 {no_data, TF_STATUS_INVALID, "data is NULL"},
                 {no_dtype, TF_STATUS_INVALID, "dtype is -2147483648"},
                 {auto_dtype, TF_STATUS_INVALID, "dtype is 0"},
                 {tf32, TF_STATUS_INVALID, "dtype is 2"},
                 {unknown_dtype, TF_STATUS_INVALID, "dtype is 99"},
                 {no_rank, TF_STATUS_INVALID, "rank is -2147483648"},
                 {rank_9, TF_STATUS_INVALID, "rank is 9"},
                 {negative_shape, TF_STATUS_INVALID, "dimension 1 is -1"},
                 {unset_shape, TF_STATUS_INVALID, "dimension 1 is -2147483648"},
                 {huge_shape, TF_STATUS_INVALID, "more elements than can exist"},
                 {negative_stride, TF_STATUS_INVALID, "stride 0 is -32"},
                 {half_set_stride, TF_STATUS_INVALID, "stride 1 is -2147483648"},
                 {huge_stride, TF_STATUS_INVALID, "strides"},
                 {wrapping_stride, TF_STATUS_INVALID, "strides"},
                 {negative_device, TF_STATUS_INVALID, "device is -1"},
                 {same_name, TF_STATUS_INVALID, "stored twice"},
                 {other_shape, TF_STATUS_CORRUPT, "has shape"},
                 {other_rank, TF_STATUS_CORRUPT, "has shape"},
                 {other_name, TF_STATUS_NOT_FOUND, "word_embeddings"}};

    hold(tiny_model_path(TINY_BASE));
    for (int i = 0; i < h.tensor_count; i++)
        if (strstr(h.tensors[i].name, "word_embeddings")) h.bad_name = h.tensors[i].name;
    CHECK(h.bad_name != NULL);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const tf_source s = source_of(1);
        h.spoil_tensor = cases[i].spoil;
        fails(&s, cases[i].status, cases[i].says, "row 17");
    }
}

/* Statuses and texts of the callbacks come through. */
static void failing_callbacks(void)
{
    static const struct {
        tf_status given, status;
        const char *text, *says;
    } cases[] = {{TF_STATUS_IO, TF_STATUS_IO, "the database is locked", "the database is locked"},
                 {TF_STATUS_CANCELLED, TF_STATUS_CANCELLED, NULL, "TF_STATUS_CANCELLED"},
                 {TF_STATUS_NOMEM, TF_STATUS_NOMEM, "", ""},
                 {(tf_status)7, TF_STATUS_INVALID, "ignored", "returned 7"},
                 {(tf_status)-99, TF_STATUS_INVALID, NULL, "returned -99"}};

    hold(tiny_model_path(TINY_BASE));
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        h.status = cases[i].given;
        h.text = cases[i].text;
        tf_source s = source_of(0);
        h.bad_name = "config.json";
        fails(&s, cases[i].status, cases[i].says, "row 17/config.json");
        s = source_of(0);
        h.bad_name = "modules.json";
        fails(&s, cases[i].status, cases[i].says, "row 17/modules.json");
        s = source_of(1);
        h.bad_name = h.tensors[3].name;
        fails(&s, cases[i].status, cases[i].says, "row 17/tensor number 3");
    }
    h.status = TF_STATUS_NOT_FOUND; /* of a tensor it is a failure like any other */
    h.text = "row is gone";
    tf_source s = source_of(1);
    fails(&s, TF_STATUS_NOT_FOUND, "row is gone", "tensor number 3");
    s = source_of(0);
    h.bad_name = "config.json";
    fails(&s, TF_STATUS_NOT_FOUND, "config.json", "row 17");
}

static tf_status endless(void *user, int64_t index, tf_tensor *out)
{
    static char name[32];
    static const float number = 1;

    (void)user;
    snprintf(name, sizeof name, "t%lld", (long long)index);
    out->name = name;
    out->data = &number;
    out->dtype = TF_DTYPE_FP32;
    out->rank = 0;
    return TF_STATUS_OK;
}

static void wrong_sources(void)
{
    struct {
        tf_source s;
        int32_t more[2];
    } newer;
    const tf_model_options o = on_cpu(TF_DTYPE_FP32);
    tf_model_options bad = o;
    tf_model *m;

    CHECK_STATUS(tf_model_open_source(NULL, &o, &m), TF_STATUS_INVALID);
    hold(tiny_model_path(TINY_BASE));
    tf_source s = source_of(0);
    CHECK_STATUS(tf_model_open_source(&s, &o, NULL), TF_STATUS_INVALID);
    all_is_back();
    s = source_of(0);
    s.file = NULL;
    fails(&s, TF_STATUS_INVALID, "`file` is NULL", "");
    s = source_of(0);
    s.borrow = 2;
    fails(&s, TF_STATUS_INVALID, "borrow is 2", "");
    s = source_of(0);
    s.reserved = 4;
    fails(&s, TF_STATUS_UNSUPPORTED, "reserved is 4", "");
    s = source_of(0);
    s.label = NULL;
    h.bad_name = "config.json";
    h.status = TF_STATUS_IO;
    fails(&s, TF_STATUS_IO, "source/config.json", "");
    h.status = TF_STATUS_OK;
    bad.threads = -5;
    s = source_of(0);
    CHECK_STATUS(tf_model_open_source(&s, &bad, &m), TF_STATUS_INVALID);
    all_is_back();
    /* Without tensors and without a file of them. */
    s = source_of(1);
    h.tensor_count = 0;
    fails(&s, TF_STATUS_NOT_FOUND, "row 17: no model.safetensors", "");
    s = source_of(1);
    s.tensor = endless;
    fails(&s, TF_STATUS_INVALID, "more than 1048576 tensors", "");

    /* A struct whose size is wrong cannot be read, so it is not released. */
    hold(tiny_model_path(TINY_BASE));
    s = source_of(0);
    for (uint64_t size = 0; size < 8; size++) {
        s.struct_size = size;
        CHECK_STATUS(tf_model_open_source(&s, &o, &m), TF_STATUS_INVALID);
        CHECK_ERROR_SAYS("tf_source");
    }
    memset(&newer, 0, sizeof newer);
    newer.s = source_of(0);
    newer.s.struct_size = sizeof newer;
    newer.more[1] = 5;
    CHECK_STATUS(tf_model_open_source(&newer.s, &o, &m), TF_STATUS_UNSUPPORTED);
    CHECK_INT(h.released, 0);
    newer.more[1] = 0;
    CHECK_OK(tf_model_open_source(&newer.s, &o, &m));
    tf_model_close(m);
    all_is_back();
    /* An older caller's ends before `borrow`. */
    s = source_of(0);
    s.struct_size = offsetof(tf_source, borrow);
    s.borrow = 77;
    CHECK_OK(tf_model_open_source(&s, &o, &m));
    tf_model_close(m);
    all_is_back();
}

/* A tensor on a device, where there is none. */
SPOIL(on_device, out->device = 0)

static void without_device(void)
{
    if (getenv("TFINFER_DEVICE")) return;
    hold(tiny_model_path(TINY_BASE));
    h.bad_name = h.tensors[0].name;
    h.spoil_tensor = on_device;
    const tf_source s = source_of(1);
    fails(&s, TF_STATUS_UNSUPPORTED, h.tensors[0].name, "");
}

/* ---- memory that fails ---- */

static void no_memory(void)
{
    for (int tensors = 0; tensors < 2; tensors++) {
        hold(tiny_model_path(TINY_MASKED_LM));
        const int device = tensors && getenv("TFINFER_DEVICE") && !dlopen("libcuda.so.1", RTLD_NOW);
        for (int i = 0; i < h.tensor_count; i++) h.tensors[i].t.device = device;
        for (int n = 1;; n++) {
            check_memory memory;
            tf_model_options o = on_cpu(TF_DTYPE_FP32);
            tf_model *m;
            tf_source s = source_of(tensors);
            s.borrow = tensors;
            check_memory_init(&memory);
            o.allocator = &memory.hooks;
            memory.fail_at = n;
            const tf_status status = tf_model_open_source(&s, &o, &m);
            tf_model_close(m);
            CHECK_INT(memory.live_blocks, 0);
            all_is_back();
            if (!memory.fail_hit) {
                CHECK_STATUS(status, TF_STATUS_OK);
                CHECK(n > 20);
                break;
            }
            CHECK_STATUS(status, TF_STATUS_NOMEM);
        }
    }
}

/* ---- tokenizers alone ---- */

static int64_t encode(const tf_tokenizer *t, int32_t ids[16])
{
    const tf_text text = tf_text_of("the cat sat");
    tf_encoding *e;
    tf_encoding_data d;

    CHECK_OK(tf_encoding_open(t, &e));
    CHECK_OK(tf_tokenizer_encode(t, &text, NULL, 1, NULL, e));
    tf_encoding_data_init(&d);
    CHECK_OK(tf_encoding_get(e, &d));
    const int64_t n = d.tokens < 16 ? d.tokens : 16;
    memcpy(ids, d.ids, (size_t)n * sizeof *ids);
    tf_encoding_close(e);
    return n;
}

static void tokenizers(void)
{
    const char *path = tiny_model_path(TINY_BASE);
    int32_t expected[16], ids[16];
    tf_tokenizer *t;

    hold(path);
    CHECK_OK(tf_tokenizer_open(path, NULL, &t));
    const int64_t n = encode(t, expected);
    tf_tokenizer_close(t);
    static const char *const names[] = {NULL, "vocab.txt"};
    for (int i = 0; i < 2; i++) {
        const tf_source s = source_of(1);
        CHECK_OK(tf_tokenizer_open_source(&s, names[i], NULL, &t));
        all_is_back();
        CHECK_INT(encode(t, ids), n);
        CHECK(memcmp(ids, expected, (size_t)n * sizeof *ids) == 0);
        tf_tokenizer_close(t);
    }
    tf_source s = source_of(0);
    CHECK_STATUS(tf_tokenizer_open_source(&s, "absent.txt", NULL, &t), TF_STATUS_NOT_FOUND);
    CHECK_ERROR_SAYS("row 17: no file absent.txt");
    CHECK(t == NULL);
    all_is_back();
    s = source_of(0);
    CHECK_STATUS(tf_tokenizer_open_source(&s, NULL, NULL, NULL), TF_STATUS_INVALID);
    all_is_back();
    CHECK_STATUS(tf_tokenizer_open_source(NULL, NULL, NULL, &t), TF_STATUS_INVALID);
    s = source_of(0);
    s.file = NULL;
    CHECK_STATUS(tf_tokenizer_open_source(&s, NULL, NULL, &t), TF_STATUS_INVALID);
    all_is_back();
    s = source_of(0);
    h.bad_name = "vocab.txt";
    h.status = TF_STATUS_IO;
    h.text = "the disk is gone";
    CHECK_STATUS(tf_tokenizer_open_source(&s, NULL, NULL, &t), TF_STATUS_IO);
    CHECK_ERROR_SAYS("row 17/vocab.txt: the disk is gone");
    all_is_back();
    h.status = TF_STATUS_OK;
    for (int k = 1;; k++) {
        check_memory memory;
        tf_tokenizer_options o;
        check_memory_init(&memory);
        tf_tokenizer_options_init(&o);
        o.allocator = &memory.hooks;
        memory.fail_at = k;
        s = source_of(0);
        const tf_status status = tf_tokenizer_open_source(&s, NULL, &o, &t);
        tf_tokenizer_close(t);
        CHECK_INT(memory.live_blocks, 0);
        all_is_back();
        if (!memory.fail_hit) break;
        CHECK_STATUS(status, TF_STATUS_NOMEM);
    }
}

int main(int argc, char **argv)
{
    check_run(argc, argv, "wrong files", wrong_files);
    check_run(argc, argv, "wrong ranges", wrong_ranges);
    check_run(argc, argv, "wrong tensors", wrong_tensors);
    check_run(argc, argv, "failing callbacks", failing_callbacks);
    check_run(argc, argv, "wrong sources", wrong_sources);
    check_run(argc, argv, "without device", without_device);
    check_run(argc, argv, "no memory", no_memory);
    check_run(argc, argv, "tokenizers", tokenizers);
    let_go();
    return check_done();
}
