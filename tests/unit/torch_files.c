/* The reader of pytorch_model.bin: zip archives, the layout before PyTorch 1.6, pickles of state dicts and hostile ones. */
#define _POSIX_C_SOURCE 200809L
#include "weight_files.h"

#define PICKLE(text) text, sizeof text - 1

static void put_string(bytes *b, const char *text) /* BINUNICODE */
{
    put_text(b, "X");
    put_number(b, strlen(text), 4);
    put_text(b, text);
}

static void put_int(bytes *b, int64_t n) /* LONG1 of 1 or 8 bytes */
{
    const size_t size = n >= -128 && n < 128 ? 1 : 8;
    put(b, "\x8a", 1);
    put_number(b, size, 1);
    put_number(b, (uint64_t)n, size);
}

static void put_ints(bytes *b, const int64_t *n, int count)
{
    put_text(b, "(");
    for (int i = 0; i < count; i++) put_int(b, n[i]);
    put_text(b, "t");
}

typedef struct view {
    const char *name, *storage_class, *key;
    int64_t count, offset;
    int rank;
    int64_t shape[9], stride[9];
} view;

/* name: _rebuild_tensor_v2(storage, offset, shape, stride, False, OrderedDict()), as torch.save writes it. */
static void put_tensor(bytes *b, const view *v, int legacy)
{
    put_string(b, v->name);
    put_text(b, "ctorch._utils\n_rebuild_tensor_v2\n((");
    put_string(b, "storage");
    put_text(b, "ctorch\n");
    put_text(b, v->storage_class);
    put_text(b, "\n");
    put_string(b, v->key);
    put_string(b, "cpu");
    put_int(b, v->count);
    put_text(b, legacy ? "NtQ" : "tQ");
    put_int(b, v->offset);
    put_ints(b, v->shape, v->rank);
    put_ints(b, v->stride, v->rank);
    put(b, PICKLE("\211ccollections\nOrderedDict\n)RtR"));
}

static void put_state_dict(bytes *b, const view *views, int count, int legacy)
{
    put(b, PICKLE("\x80\2ccollections\nOrderedDict\n)R("));
    for (int i = 0; i < count; i++) put_tensor(b, &views[i], legacy);
    put_text(b, "u.");
}

/* ---- zip archives ---- */

typedef struct entry {
    const char *name;
    const void *data;
    size_t size;
    int method;
    size_t said_size, said_at; /* what the directory says, where not 0 */
} entry;

static void put_zip(bytes *b, const entry *entries, int count, int zip64)
{
    size_t at[16];

    b->size = 0;
    for (int i = 0; i < count; i++) {
        at[i] = b->size;
        put(b, "PK\3\4", 4);
        put_number(b, 0, 4);
        put_number(b, (uint64_t)entries[i].method, 2);
        put_number(b, 0, 16); /* time, CRC, sizes: a writer may leave them to the directory */
        put_number(b, strlen(entries[i].name), 2);
        put_number(b, 5, 2); /* the extra field that pads data to an alignment */
        put_text(b, entries[i].name);
        put(b, "FB\1\0Z", 5);
        put(b, entries[i].data, entries[i].size);
    }
    const size_t begin = b->size;
    for (int i = 0; i < count; i++) {
        const size_t entry_size = entries[i].said_size ? entries[i].said_size : entries[i].size;
        if (entries[i].said_at) at[i] = entries[i].said_at;
        put(b, "PK\1\2", 4);
        put_number(b, 0, 6);
        put_number(b, (uint64_t)entries[i].method, 2);
        put_number(b, 0, 8);
        put_number(b, zip64 ? UINT32_MAX : entry_size, 4);
        put_number(b, zip64 ? UINT32_MAX : entry_size, 4);
        put_number(b, strlen(entries[i].name), 2);
        put_number(b, zip64 ? 33 : 0, 2);
        put_number(b, 0, 10);
        put_number(b, zip64 ? UINT32_MAX : at[i], 4);
        put_text(b, entries[i].name);
        if (!zip64) continue;
        put(b, "UT\1\0Z\1\0\x18\0", 9); /* another extra field comes first */
        put_number(b, entry_size, 8);
        put_number(b, entry_size, 8);
        put_number(b, at[i], 8);
    }
    const size_t size = b->size - begin, end64 = b->size;
    if (zip64) {
        put(b, "PK\6\6", 4);
        put_number(b, 44, 8);
        put_number(b, 0, 12);
        put_number(b, (uint64_t)count, 8);
        put_number(b, (uint64_t)count, 8);
        put_number(b, size, 8);
        put_number(b, begin, 8);
        put(b, "PK\6\7", 4);
        put_number(b, 0, 4);
        put_number(b, end64, 8);
        put_number(b, 1, 4);
    }
    put(b, "PK\5\6", 4);
    put_number(b, 0, 4);
    put_number(b, zip64 ? UINT16_MAX : (uint64_t)count, 2);
    put_number(b, zip64 ? UINT16_MAX : (uint64_t)count, 2);
    put_number(b, zip64 ? UINT32_MAX : size, 4);
    put_number(b, zip64 ? UINT32_MAX : begin, 4);
    put_number(b, 0, 2);
}

static const float six[6] = {0, 1, 2, 3, 4, 5};

/* A matrix, its transpose, its second row, and a column with stride, all of one storage; and a row said three times. */
static const view good_views[] = {
    {"w", "FloatStorage", "0", 6, 0, 2, {2, 3}, {3, 1}},     {"t", "FloatStorage", "0", 6, 0, 2, {3, 2}, {1, 3}},
    {"row", "FloatStorage", "0", 6, 3, 1, {3}, {1}},         {"column", "FloatStorage", "0", 6, 1, 1, {2}, {3}},
    {"again", "FloatStorage", "0", 6, 3, 2, {3, 3}, {0, 1}}, {"empty", "LongStorage", "1", 0, 0, 1, {0}, {1}},
};
enum { GOOD_VIEWS = sizeof good_views / sizeof good_views[0] };

static void make_zip(bytes *b, const bytes *pickle, int zip64)
{
    const entry entries[] = {{"x/data.pkl", pickle->data, pickle->size, 0, 0, 0},
                             {"x/byteorder", "little", 6, 0, 0, 0},
                             {"x/data/0", six, sizeof six, 0, 0, 0},
                             {"x/data/1", "", 0, 0, 0, 0},
                             {"x/version", "3\n", 2, 0, 0, 0}};
    put_zip(b, entries, 5, zip64);
}

static void check_good_views(void)
{
    tfi_source s;
    float out[9];

    CHECK_OK(open_source(&s));
    CHECK_INT(s.tensor_count, GOOD_VIEWS);
    for (int i = 0; i < GOOD_VIEWS; i++) {
        const view *v = &good_views[i];
        const tfi_tensor *t = tfi_source_tensor(&s, v->name);
        CHECK(t != NULL);
        if (!t) continue;
        CHECK(t->data >= t->file->data && t->data + t->span <= t->file->data + t->file->size);
        if (t->dtype != TFI_F32) continue;
        CHECK_OK(tfi_tensor_to_f32(t, out));
        for (int64_t k = 0; k < tfi_tensor_elements(t); k++) {
            const int64_t row = v->rank == 2 ? k / v->shape[1] : k, column = v->rank == 2 ? k % v->shape[1] : 0;
            CHECK(out[k] == six[v->offset + row * v->stride[0] + column * v->stride[1]]);
        }
    }
    CHECK(tfi_tensor_is_contiguous(tfi_source_tensor(&s, "row")));
    CHECK(!tfi_tensor_is_contiguous(tfi_source_tensor(&s, "t")));
    close_source(&s);
}

static void zip_good(void)
{
    static bytes pickle, b;

    pickle.size = 0;
    put_state_dict(&pickle, good_views, GOOD_VIEWS, 0);
    for (int zip64 = 0; zip64 < 2; zip64++) {
        fresh_directory();
        make_zip(&b, &pickle, zip64);
        write_file("pytorch_model.bin", b.data, b.size);
        check_good_views();
        expect_nomem();
        expect_no_prefix("pytorch_model.bin", &b);
        expect_survival("pytorch_model.bin", &b, 2000);
    }
    make_zip(&b, &pickle, 0); /* a comment behind the end record */
    b.data[b.size - 2] = 3;
    put_text(&b, "abc");
    write_file("pytorch_model.bin", b.data, b.size);
    check_good_views();
}

static void zip_bad(void)
{
    static bytes pickle, b;
    const entry named[] = {{"x/other", "", 0, 0, 0, 0}};
    pickle.size = 0;
    put_state_dict(&pickle, good_views, 1, 0);
    const entry compressed[] = {{"x/data.pkl", pickle.data, pickle.size, 8, 0, 0}};
    const entry lacking[] = {{"x/data.pkl", pickle.data, pickle.size, 0, 0, 0}};
    const entry squeezed[] = {{"x/data.pkl", pickle.data, pickle.size, 0, 0, 0}, {"x/data/0", six, sizeof six, 8, 0, 0}};
    const entry shorter[] = {{"x/data.pkl", pickle.data, pickle.size, 0, 0, 0}, {"x/data/0", six, sizeof six - 1, 0, 0, 0}};
    const entry twice[] = {{"x/data.pkl", pickle.data, pickle.size, 0, 0, 0},
                           {"y/data.pkl", pickle.data, pickle.size, 0, 0, 0}};
    const entry big[] = {{"x/data.pkl", pickle.data, pickle.size, 0, 0, 0},
                         {"x/byteorder", "big", 3, 0, 0, 0},
                         {"x/data/0", six, sizeof six, 0, 0, 0}};
    const entry longer[] = {{"x/data.pkl", pickle.data, pickle.size, 0, 0, 0}, {"x/data/0", six, sizeof six, 0, 1 << 20, 0}};
    const entry far[] = {{"x/data.pkl", pickle.data, pickle.size, 0, 0, 0}, {"x/data/0", six, sizeof six, 0, 0, 1 << 28}};
    const entry elsewhere[] = {{"x/data.pkl", pickle.data, pickle.size, 0, 0, 0}, {"x/data/0", six, sizeof six, 0, 0, 1}};
    const struct {
        const entry *entries;
        int count;
        tf_status status;
        const char *says;
    } cases[] = {
        {named, 1, TF_STATUS_CORRUPT, "no entry data.pkl"},   {compressed, 1, TF_STATUS_UNSUPPORTED, "data.pkl is compressed"},
        {lacking, 1, TF_STATUS_CORRUPT, "no entry data/0"},   {squeezed, 2, TF_STATUS_UNSUPPORTED, "data/0 is compressed"},
        {shorter, 2, TF_STATUS_CORRUPT, "storage 0"},         {twice, 2, TF_STATUS_CORRUPT, "\"data.pkl\""},
        {big, 3, TF_STATUS_UNSUPPORTED, "byteorder"},         {longer, 2, TF_STATUS_CORRUPT, "data/0 of 1048576 bytes"},
        {far, 2, TF_STATUS_CORRUPT, "not at byte 268435456"}, {elsewhere, 2, TF_STATUS_CORRUPT, "not at byte 1"}};

    fresh_directory();
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        put_zip(&b, cases[i].entries, cases[i].count, i % 2);
        expect_failure("pytorch_model.bin", &b, cases[i].status, cases[i].says);
    }
    b.size = 0;
    put_text(&b, "version https://git-lfs.github.com/spec/v1\n");
    expect_failure("pytorch_model.bin", &b, TF_STATUS_CORRUPT, "neither");
}

/* ---- hostile pickles in a good archive ---- */

static void expect_pickle(const void *data, size_t size, tf_status status, const char *says)
{
    static bytes pickle, b;

    pickle.size = 0;
    put(&pickle, data, size);
    make_zip(&b, &pickle, 0);
    expect_failure("pytorch_model.bin", &b, status, says);
}

static void hostile_pickles(void)
{
    static const struct {
        const char *data;
        size_t size;
        tf_status status;
        const char *says;
    } cases[] = {
        {PICKLE("\x80\2cos\nsystem\nX\4\0\0\0exit\x85R."), TF_STATUS_UNSUPPORTED, "os.system"},
        {PICKLE("\x80\2cposix\nsystem\n."), TF_STATUS_UNSUPPORTED, "posix.system"},
        {PICKLE("\x80\x04\x8c\10builtins\x8c\4eval\x93."), TF_STATUS_UNSUPPORTED, "builtins.eval"},
        {PICKLE("\x80\2cbuiltins\ngetattr\n."), TF_STATUS_UNSUPPORTED, "builtins.getattr"},
        {PICKLE("\x80\2ctorch\nFloatStorage2\n."), TF_STATUS_UNSUPPORTED, "torch.FloatStorage2"},
        {PICKLE("\x80\2c\x1b[31m\nx\n."), TF_STATUS_UNSUPPORTED, "?[31m.x"},
        {PICKLE("ios\nsystem\n."), TF_STATUS_UNSUPPORTED, "(INST)"},
        {PICKLE("(S'x'\nios\nsystem\n."), TF_STATUS_UNSUPPORTED, "(STRING)"},
        {PICKLE("N)\x81."), TF_STATUS_UNSUPPORTED, "(NEWOBJ)"},
        {PICKLE("\x82\1."), TF_STATUS_UNSUPPORTED, "(EXT1)"},
        {PICKLE("\xff."), TF_STATUS_UNSUPPORTED, "0xff"},
        {PICKLE("\x80\x09."), TF_STATUS_UNSUPPORTED, "protocol 9"},
        {PICKLE(""), TF_STATUS_CORRUPT, "byte 0"},
        {PICKLE("."), TF_STATUS_CORRUPT, "empty stack"},
        {PICKLE("(."), TF_STATUS_CORRUPT, "empty stack"},
        {PICKLE("t."), TF_STATUS_CORRUPT, "no mark"},
        {PICKLE("N."), TF_STATUS_CORRUPT, "no state dict"},
        {PICKLE("N)R."), TF_STATUS_CORRUPT, "called"},
        {PICKLE("ctorch\nFloatStorage\n)R."), TF_STATUS_UNSUPPORTED, "torch.FloatStorage"},
        {PICKLE("ctorch._utils\n_rebuild_tensor_v2\n)R."), TF_STATUS_CORRUPT, "a tensor without"},
        {PICKLE("ctorch._utils\n_rebuild_parameter\n)R."), TF_STATUS_CORRUPT, "a parameter without"},
        {PICKLE("ccollections\nOrderedDict\nN\x85R."), TF_STATUS_UNSUPPORTED, "OrderedDict"},
        {PICKLE("Nr\xff\xff\xff\xff."), TF_STATUS_CORRUPT, "memo entry 4294967295"},
        {PICKLE("h\0."), TF_STATUS_CORRUPT, "memo entry 0"},
        {PICKLE("(q\0."), TF_STATUS_CORRUPT, "empty stack"},
        {PICKLE("}(Nu."), TF_STATUS_CORRUPT, "no value"},
        {PICKLE("](NNu."), TF_STATUS_CORRUPT, "put into a list"},
        {PICKLE("}Na."), TF_STATUS_CORRUPT, "put into a dict"},
        {PICKLE("X\xff\xff\xff\xffx."), TF_STATUS_CORRUPT, "4294967295 bytes"},
        {PICKLE("NQ."), TF_STATUS_CORRUPT, "persistent id"},
        {PICKLE(")Q."), TF_STATUS_CORRUPT, "persistent id"},
        {PICKLE("NNb."), TF_STATUS_UNSUPPORTED, "attributes"},
        {PICKLE("cos"), TF_STATUS_CORRUPT, "does not end"},
        {PICKLE("NN\x93."), TF_STATUS_CORRUPT, "no string"},
    };

    fresh_directory();
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        expect_pickle(cases[i].data, cases[i].size, cases[i].status, cases[i].says);

    static bytes deep; /* nesting without end: a list that holds a list that ... */
    deep.size = 0;
    for (int i = 0; i < 20000; i++) put_text(&deep, "](");
    put_text(&deep, "N");
    expect_pickle(deep.data, deep.size, TF_STATUS_CORRUPT, "are left");
    for (int i = 0; i < 20000; i++) put_text(&deep, "e");
    put_text(&deep, ".");
    expect_pickle(deep.data, deep.size, TF_STATUS_CORRUPT, "no state dict");
}

static void odd_values(void)
{
    static bytes pickle, b;
    tfi_source s;

    fresh_directory();
    pickle.size = 0;
    put(&pickle, PICKLE("}q\0(")); /* what a state dict may hold beside tensors, and a parameter */
    put_string(&pickle, "float");
    put(&pickle, "G\0\0\0\0\0\0\0\0", 9);
    put_string(&pickle, "bytes");
    put(&pickle, PICKLE("c_codecs\nencode\nX\1\0\0\0aX\6\0\0\0latin1\x86R"));
    put_string(&pickle, "long");
    put(&pickle, PICKLE("\x8a\11\1\2\3\4\5\6\7\10\11"));
    put_string(&pickle, "dtype");
    put_text(&pickle, "ctorch\nfloat32\n");
    put(&pickle, PICKLE("K\1K\2")); /* a key that is no text */
    put_tensor(&pickle, &good_views[0], 0);
    put_string(&pickle, "self");
    put(&pickle, PICKLE("h\0u."));
    make_zip(&b, &pickle, 0);
    write_file("pytorch_model.bin", b.data, b.size);
    CHECK_OK(open_source(&s));
    CHECK_INT(s.tensor_count, 1);
    close_source(&s);
}

static void bad_views(void)
{
    static const struct {
        view v;
        tf_status status;
        const char *says;
    } cases[] = {
        {{"w", "FloatStorage", "0", 6, 1, 2, {2, 3}, {3, 1}}, TF_STATUS_CORRUPT, "\"w\""},
        {{"w", "FloatStorage", "0", 6, -1, 1, {1}, {1}}, TF_STATUS_CORRUPT, "offset -1"},
        {{"w", "FloatStorage", "0", 6, -1, 1, {3}, {1}}, TF_STATUS_CORRUPT, "offset -1"},
        {{"w", "FloatStorage", "0", 6, 6, 1, {1}, {1}}, TF_STATUS_CORRUPT, "offset 6"},
        {{"w", "FloatStorage", "0", 6, 5, 1, {2}, {-1}}, TF_STATUS_CORRUPT, "stride 0 is -1"},
        {{"w", "FloatStorage", "0", 6, 0, 1, {-2}, {1}}, TF_STATUS_CORRUPT, "dimension 0 is -2"},
        {{"w", "FloatStorage", "0", 6, 0, 2, {1LL << 40, 1LL << 40}, {0, 0}}, TF_STATUS_CORRUPT, "1099511627776"},
        {{"w", "FloatStorage", "0", 6, INT64_MAX, 1, {2}, {1}}, TF_STATUS_CORRUPT, "\"w\""},
        {{"w", "FloatStorage", "0", 6, 0, 1, {3}, {INT64_MAX}}, TF_STATUS_CORRUPT, "\"w\""},
        {{"w", "FloatStorage", "0", 7, 0, 1, {1}, {1}}, TF_STATUS_CORRUPT, "storage 0: 7 elements"},
        {{"w", "FloatStorage", "0", INT64_MAX, 0, 1, {1}, {1}}, TF_STATUS_CORRUPT, "storage 0"},
        {{"w", "FloatStorage", "0", -1, 0, 1, {1}, {1}}, TF_STATUS_CORRUPT, "persistent id"},
        {{"w", "FloatStorage", "9", 6, 0, 1, {1}, {1}}, TF_STATUS_CORRUPT, "data/9"},
        {{"w", "FloatStorage", "../version", 0, 0, 1, {1}, {1}}, TF_STATUS_CORRUPT, "data/../version"},
        {{"w", "Size", "0", 6, 0, 1, {1}, {1}}, TF_STATUS_CORRUPT, "its class is Size"},
        {{"w", "FloatStorage", "0", 6, 0, 9, {1, 1, 1, 1, 1, 1, 1, 1, 1}, {1}}, TF_STATUS_UNSUPPORTED, "9 dimensions"},
    };
    static bytes pickle, b;

    fresh_directory();
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        pickle.size = 0;
        put_state_dict(&pickle, &cases[i].v, 1, 0);
        make_zip(&b, &pickle, 0);
        expect_failure("pytorch_model.bin", &b, cases[i].status, cases[i].says);
    }
    const view twice[] = {good_views[0], good_views[0]};
    pickle.size = 0;
    put_state_dict(&pickle, twice, 2, 0);
    make_zip(&b, &pickle, 0);
    expect_failure("pytorch_model.bin", &b, TF_STATUS_CORRUPT, "\"w\" is stored twice");
}

/* ---- the layout before PyTorch 1.6 ---- */

static void put_legacy_head(bytes *b, int little_endian)
{
    b->size = 0;
    put(b, PICKLE("\x80\2\x8a\12\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."));
    put(b, PICKLE("\x80\2M\xe9\3."));
    put(b, PICKLE("\x80\2}("));
    put_string(b, "little_endian");
    put_text(b, little_endian ? "\x88u." : "\x89u.");
}

static void make_legacy(bytes *b)
{
    put_legacy_head(b, 1);
    put_state_dict(b, good_views, GOOD_VIEWS, 1);
    put(b, PICKLE("\x80\2](X\1\0\0\0001X\1\0\0\0000e."));
    put_number(b, 0, 8);
    put_number(b, 6, 8);
    put(b, six, sizeof six);
}

static void legacy(void)
{
    static bytes b;

    fresh_directory();
    make_legacy(&b);
    write_file("pytorch_model.bin", b.data, b.size);
    check_good_views();
    expect_nomem();
    expect_no_prefix("pytorch_model.bin", &b);
    expect_survival("pytorch_model.bin", &b, 2000);

    put_legacy_head(&b, 0);
    expect_failure("pytorch_model.bin", &b, TF_STATUS_UNSUPPORTED, "little_endian");
    put_legacy_head(&b, 1);
    put_state_dict(&b, good_views, 1, 1);
    const size_t head = b.size;
    put(&b, PICKLE("]X\1\0\0\0009a."));
    expect_failure("pytorch_model.bin", &b, TF_STATUS_CORRUPT, "storage 9 belongs to no tensor");
    b.size = head;
    put(&b, PICKLE("]."));
    expect_failure("pytorch_model.bin", &b, TF_STATUS_CORRUPT, "storage 0 is not in the file");
    b.size = head;
    put(&b, PICKLE("](X\1\0\0\0000X\1\0\0\0000e."));
    put_number(&b, 6, 8);
    put(&b, six, sizeof six);
    put_number(&b, 6, 8);
    put(&b, six, sizeof six);
    expect_failure("pytorch_model.bin", &b, TF_STATUS_CORRUPT, "storage 0 is stored twice");
    b.size = head;
    put(&b, PICKLE("]X\1\0\0\0000a."));
    put_number(&b, UINT64_MAX, 8);
    expect_failure("pytorch_model.bin", &b, TF_STATUS_CORRUPT, "storage 0: 18446744073709551615 elements");
}

int main(int argc, char **argv)
{
    check_run(argc, argv, "zip_good", zip_good);
    check_run(argc, argv, "zip_bad", zip_bad);
    check_run(argc, argv, "hostile_pickles", hostile_pickles);
    check_run(argc, argv, "odd_values", odd_values);
    check_run(argc, argv, "bad_views", bad_views);
    check_run(argc, argv, "legacy", legacy);
    return check_done();
}
