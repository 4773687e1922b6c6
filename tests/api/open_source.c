/* Checkpoints that the host hands over: the same model from a directory, from memory, from the inside of an open file and from
 * tensors gives the same numbers to the bit, and all is given back once. open_source_wrong.c has what is said wrongly. */
#define _GNU_SOURCE
#include "held_source.h"

/* ---- homes of files ---- */

static void files_in_memory(void)
{
    for (int head = 0; head < TINY_HEAD_COUNT; head++) {
        hold(tiny_model_path((tiny_head)head));
        const tf_source s = source_of(0);
        same(&s, (tiny_head)head, TF_DTYPE_FP32);
    }
}

/* All files one behind the other in one, at odd offsets. */
static void files_in_a_file(void)
{
    hold(tiny_model_path(TINY_BASE));
    tf_source s = source_of(0);
    int64_t at = 5;

    if ((h.fd = memfd_create("archive", MFD_CLOEXEC)) < 0) exit(2);
    for (int i = 0; i < h.file_count; i++) {
        h.fd_offset[i] = at;
        if (pwrite(h.fd, h.files[i].data, (size_t)h.files[i].size, at) != h.files[i].size) exit(2);
        at += h.files[i].size + 4097;
    }
    same(&s, TINY_BASE, TF_DTYPE_FP32);
    close(h.fd);
}

/* Shards and their index, and no callback that takes anything back. */
static void shards_in_memory(void)
{
    hold(tiny_model_path(TINY_BASE));
    tf_source s = source_of(0);
    s.file_close = NULL;
    held_file *const whole = find_file("model.safetensors");
    snprintf(whole->name, sizeof whole->name, "a.safetensors");
    held_file *const f = &h.files[h.file_count++];
    snprintf(f->name, sizeof f->name, "model.safetensors.index.json");
    f->size = asprintf(&f->data, "{\"weight_map\":{\"%s\":\"a.safetensors\"}}", h.tensors[0].name);
    const tf_model_options o = on_cpu(TF_DTYPE_FP32);
    tf_model *m;
    CHECK_OK(tf_model_open_source(&s, &o, &m));
    tf_model_close(m);
    CHECK_INT(h.released, 1);
}

/* ---- tensors ---- */

static void tensors_copied(void)
{
    for (int head = 0; head < TINY_HEAD_COUNT; head++) {
        hold(tiny_model_path((tiny_head)head));
        const tf_source s = source_of(1);
        same(&s, (tiny_head)head, TF_DTYPE_FP32);
    }
}

static void tensors_borrowed(void)
{
    for (int head = 0; head < TINY_HEAD_COUNT; head++) {
        hold(tiny_model_path((tiny_head)head));
        tf_source s = source_of(1);
        s.borrow = 1;
        same(&s, (tiny_head)head, TF_DTYPE_FP32);
    }
}

/* Element i of a tensor of floats, in another format: those that are exact, so that the model stays the same. */
static void put(char *out, int32_t dtype, float f)
{
    const double d = f;
    uint32_t bits;

    memcpy(&bits, &f, sizeof bits);
    if (dtype == TF_DTYPE_FP64) memcpy(out, &d, sizeof d);
    if (dtype == TF_DTYPE_FP32) memcpy(out, &f, sizeof f);
    const uint16_t high = (uint16_t)(bits >> 16); /* the numbers were rounded to bf16 */
    if (dtype == TF_DTYPE_BF16) memcpy(out, &high, sizeof high);
}

static int64_t size_of(int32_t dtype)
{
    return dtype == TF_DTYPE_FP64 ? 8 : dtype == TF_DTYPE_FP32 ? 4 : 2;
}

/* Lay each tensor out anew: with its dimensions in the other order, gaps, odd addresses and other formats. */
static void scatter(void)
{
    static const int32_t dtypes[] = {TF_DTYPE_FP32, TF_DTYPE_FP64, TF_DTYPE_BF16};

    for (int i = 0; i < h.tensor_count; i++) {
        tf_tensor *const t = &h.tensors[i].t;
        const int64_t rows = t->shape[0], cols = t->rank == 2 ? t->shape[1] : 1;
        const int64_t step = 1 + (int64_t)(check_random() % 3), pad = (int64_t)(check_random() % 5);
        const int32_t dtype = dtypes[check_random() % 3];
        const int64_t size = size_of(dtype), odd = (int64_t)(check_random() % 8);
        /* Columns first, or rows first. */
        const int turned = t->rank == 2 && check_random() % 2;
        const int64_t inner = turned ? rows : cols, outer_step = (t->rank == 2 ? inner : 1) * step + pad;
        char *const room = check_bytes(((rows + 1) * (cols + 1) * 3 + (rows + cols) * 5 + 1) * 8 + 8);
        t->stride[0] = turned ? step : outer_step;
        t->stride[1] = turned ? outer_step : step;
        for (int64_t r = 0; r < rows; r++)
            for (int64_t c = 0; c < cols; c++) {
                float f;
                memcpy(&f, (const char *)t->data + (r * cols + c) * 4, sizeof f);
                put(room + odd + (r * t->stride[0] + (t->rank == 2 ? c * t->stride[1] : 0)) * size, dtype, f);
            }
        t->data = room + odd;
        t->dtype = dtype;
        t->struct_size = 1;
    }
}

/* Round the checkpoint's numbers so that every format holds them. */
static void round_all(void)
{
    for (int i = 0; i < h.tensor_count; i++) {
        tf_tensor *const t = &h.tensors[i].t;
        const int64_t n = t->shape[0] * (t->rank == 2 ? t->shape[1] : 1);
        for (int64_t k = 0; k < n; k++) {
            uint32_t bits;
            memcpy(&bits, (const char *)t->data + 4 * k, sizeof bits);
            bits &= 0xffff0000u;
            memcpy((char *)(uintptr_t)t->data + 4 * k, &bits, sizeof bits);
        }
    }
}

static void open_and_run(const tf_source *s, tiny_head head, int32_t dtype, float out[TINY_OUT])
{
    const tf_model_options o = on_cpu(dtype);
    tf_model *m = NULL;

    CHECK_OK(tf_model_open_source(s, &o, &m));
    if (m) run(m, head, out);
    tf_model_close(m);
    all_is_back();
}

static void tensors_scattered(void)
{
    float expected[TINY_OUT] = {0}, out[TINY_OUT] = {0};

    for (int round = 0; round < 10; round++) {
        const tiny_head head = (tiny_head)(check_random() % TINY_HEAD_COUNT);
        hold(tiny_model_path(head));
        round_all();
        tf_source s = source_of(1);
        open_and_run(&s, head, TF_DTYPE_FP32, expected);
        scatter();
        s = source_of(1);
        s.borrow = (int32_t)(check_random() % 2);
        open_and_run(&s, head, TF_DTYPE_FP32, out);
        CHECK(memcmp(out, expected, sizeof out) == 0);
    }
}

/* Borrowed memory is used where it lies: a table that changes behind the model's back changes what it says. */
static void borrowed_in_place(void)
{
    const tf_model_options o = on_cpu(TF_DTYPE_FP32);
    float before[TINY_OUT], after[TINY_OUT];

    for (int borrow = 0; borrow < 2; borrow++) {
        tf_model *m = NULL;
        tf_session *session;
        hold(tiny_model_path(TINY_BASE));
        tf_source s = source_of(1);
        s.borrow = borrow;
        CHECK_OK(tf_model_open_source(&s, &o, &m));
        if (!m) return;
        CHECK_INT(h.released, !borrow);
        run(m, TINY_BASE, before);
        for (int i = 0; i < h.tensor_count; i++)
            if (strstr(h.tensors[i].name, "word_embeddings"))
                memset((char *)(uintptr_t)h.tensors[i].t.data, 0, (size_t)tiny_vocab_size() * TINY_WIDTH * 4);
        run(m, TINY_BASE, after);
        CHECK_INT(memcmp(before, after, sizeof before) != 0, borrow);
        /* A session keeps the model's memory, and so the source. */
        CHECK_OK(tf_session_open(m, NULL, &session));
        tf_model_close(m);
        CHECK_INT(h.released, !borrow);
        tf_session_close(session);
        CHECK_INT(h.released, 1);
    }
}

/* What is borrowed is not in the model's budget. */
static void borrowed_bytes(void)
{
    int64_t held_bytes[2];

    for (int borrow = 0; borrow < 2; borrow++) {
        check_memory memory;
        tf_model_options o = on_cpu(TF_DTYPE_FP32);
        tf_model *m = NULL;
        check_memory_init(&memory);
        o.allocator = &memory.hooks;
        hold(tiny_model_path(TINY_BASE));
        tf_source s = source_of(1);
        s.borrow = borrow;
        CHECK_OK(tf_model_open_source(&s, &o, &m));
        held_bytes[borrow] = memory.live_bytes;
        tf_model_close(m);
        CHECK_INT(memory.live_blocks, 0);
    }
    CHECK(held_bytes[0] - held_bytes[1] >= tiny_vocab_size() * TINY_WIDTH * 4);
}

/* GPT-2's stored matrices are turned, its output matrix is tied; T5 has two stacks. */
static void decoders(void)
{
    for (int kind = 0; kind < TINY_DECODER_COUNT; kind++) {
        const tf_model_options o = on_cpu(TF_DTYPE_FP32);
        const char *path = tiny_decoder_path((tiny_decoder)kind);
        const tf_text text = tf_text_of("once");
        int32_t ids[2][64];
        int64_t count[2] = {0};
        for (int way = 0; way < 2; way++) {
            tf_model *m = NULL;
            tf_session *session;
            tf_generate *g;
            tf_generate_options how;
            tf_generated result;
            tf_input in = tiny_texts(&text, 1);
            hold(path);
            const tf_source s = source_of(1);
            if (way == 0) CHECK_OK(tf_model_open(path, &o, &m));
            else CHECK_OK(tf_model_open_source(&s, &o, &m));
            if (!m) return;
            tf_generate_options_init(&how);
            how.max_new_tokens = 16;
            CHECK_OK(tf_session_open(m, NULL, &session));
            CHECK_OK(tf_generate_open(session, &in, &how, &g));
            CHECK_OK(tf_generate_wait(g, -1));
            tf_generated_init(&result);
            CHECK_OK(tf_generate_result(g, 0, &result));
            count[way] = result.count < 64 ? result.count : 64;
            memcpy(ids[way], result.ids, (size_t)count[way] * sizeof ids[way][0]);
            tf_generate_close(g);
            tf_session_close(session);
            tf_model_close(m);
        }
        CHECK_INT(count[1], count[0]);
        CHECK(count[0] > 0 && memcmp(ids[0], ids[1], (size_t)count[0] * sizeof ids[0][0]) == 0);
    }
}

/* Over the simulated device, whose memory is ordinary memory: what has the right type and order goes from device to device, all
 * else by way of the host, and models on the CPU read it too. */
static void on_simulated_device(void)
{
    static const char *const devices[] = {"cpu", "cuda"};
    void *const driver = dlopen("libcuda.so.1", RTLD_NOW);

    if (driver) dlclose(driver);
    if (driver || !getenv("TFINFER_DEVICE")) {
        printf("on_simulated_device: skipped, the device is not simulated\n");
        return;
    }
    for (int round = 0; round < 20; round++) {
        const tiny_head head = (tiny_head)(check_random() % TINY_HEAD_COUNT);
        tf_model_options o = on_cpu(check_random() % 2 ? TF_DTYPE_BF16 : TF_DTYPE_FP32);
        check_memory memory;
        float out[2][TINY_OUT];
        check_memory_init(&memory);
        hold(tiny_model_path(head));
        round_all();
        if (round % 4) scatter();
        o.device = devices[check_random() % 2];
        o.gemm_timing = 0;
        o.allocator = &memory.hooks;
        for (int device = 0; device < 2; device++) {
            tf_model *m = NULL;
            tf_source s = source_of(1);
            s.borrow = (int32_t)(check_random() % 2);
            for (int i = 0; i < h.tensor_count; i++) h.tensors[i].t.device = device ? 1 : 0;
            CHECK_OK(tf_model_open_source(&s, &o, &m));
            if (!m) return;
            run(m, head, out[device]);
            tf_model_close(m);
            all_is_back();
            CHECK_INT(memory.live_blocks, 0);
        }
        CHECK(memcmp(out[0], out[1], sizeof out[0]) == 0);
    }
}

/* ---- many at once ---- */

static void *open_one(void *arg)
{
    float expected[TINY_OUT], out[TINY_OUT];
    tf_model_options o = on_cpu(TF_DTYPE_FP32);
    tf_source s = *(const tf_source *)arg;
    tf_model *m = NULL;

    s.release = NULL;
    s.file_close = NULL;
    for (int i = 0; i < 3; i++) {
        run_directory(TINY_TAGGER, TF_DTYPE_FP32, expected);
        CHECK_OK(tf_model_open_source(&s, &o, &m));
        if (!m) return NULL;
        run(m, TINY_TAGGER, out);
        CHECK(memcmp(out, expected, sizeof out) == 0);
        tf_model_close(m);
    }
    return NULL;
}

static tf_status give_shared_file(void *user, const char *name, tf_file *out)
{
    const held_file *const f = find_file(name);

    (void)user;
    if (!f) return TF_STATUS_NOT_FOUND;
    out->data = f->data;
    out->size = f->size;
    return TF_STATUS_OK;
}

static void many_threads(void)
{
    pthread_t threads[4];

    hold(tiny_model_path(TINY_TAGGER));
    tf_source s = source_of(1);
    s.file = give_shared_file;
    for (int i = 0; i < 4; i++)
        if (pthread_create(&threads[i], NULL, open_one, &s) != 0) exit(2);
    for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
}

int main(int argc, char **argv)
{
    check_run(argc, argv, "files in memory", files_in_memory);
    check_run(argc, argv, "files in a file", files_in_a_file);
    check_run(argc, argv, "shards in memory", shards_in_memory);
    check_run(argc, argv, "tensors copied", tensors_copied);
    check_run(argc, argv, "tensors borrowed", tensors_borrowed);
    check_run(argc, argv, "tensors scattered", tensors_scattered);
    check_run(argc, argv, "borrowed in place", borrowed_in_place);
    check_run(argc, argv, "borrowed bytes", borrowed_bytes);
    check_run(argc, argv, "decoders", decoders);
    check_run(argc, argv, "on a simulated device", on_simulated_device);
    check_run(argc, argv, "many threads", many_threads);
    let_go();
    return check_done();
}
