/* The source, its tensor table and the safetensors reader, on good files and on every kind of bad one. */
#define _POSIX_C_SOURCE 200809L
#include "weight_files.h"

static void make_safetensors(bytes *b, const char *header, size_t data_size)
{
    b->size = 0;
    put_number(b, strlen(header), 8);
    put_text(b, header);
    for (size_t i = 0; i < data_size; i++) put_number(b, i, 1);
}

static const char good_header[] = "{\"__metadata__\":{\"format\":\"pt\"},"
                                  "\"w\":{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[0,16]},"
                                  "\"b\":{\"dtype\":\"BF16\",\"shape\":[3],\"data_offsets\":[16,22]},"
                                  "\"h\":{\"dtype\":\"F16\",\"shape\":[1],\"data_offsets\":[22,24]},"
                                  "\"d\":{\"dtype\":\"F64\",\"shape\":[],\"data_offsets\":[24,32]},"
                                  "\"none\":{\"dtype\":\"F32\",\"shape\":[0,4],\"data_offsets\":[32,32]},"
                                  "\"i\":{\"dtype\":\"I64\",\"shape\":[1],\"data_offsets\":[32,40]}}  ";

static void make_good_safetensors(bytes *b)
{
    static const float w[4] = {1.5f, -2.0f, 3.25f, 0.0f};
    static const uint16_t halves[4] = {0x3f80, 0xc000, 0x7f80, 0x0001}; /* bf16 1, -2, inf; f16 2^-24 */
    static const double d = 0.1;
    static const int64_t i = -7;

    make_safetensors(b, good_header, 0);
    put(b, w, sizeof w);
    put(b, halves, sizeof halves);
    put(b, &d, sizeof d);
    put(b, &i, sizeof i);
}

static void safetensors_good(void)
{
    static bytes b;
    tfi_source s;
    float out[4];

    fresh_directory();
    make_good_safetensors(&b);
    write_file("model.safetensors", b.data, b.size);
    CHECK_OK(open_source(&s));
    CHECK_INT(s.tensor_count, 6);
    for (int i = 1; i < 6; i++) CHECK(strcmp(s.tensors[i - 1].name, s.tensors[i].name) < 0);
    CHECK(tfi_source_tensor(&s, "absent") == NULL);

    const tfi_tensor *w = tfi_source_tensor(&s, "w");
    CHECK(w != NULL && w->dtype == TFI_F32 && w->rank == 2 && w->shape[0] == 2 && w->stride[0] == 2 && w->stride[1] == 1);
    CHECK(w->file == s.weight_files && w->data + w->span <= w->file->data + w->file->size);
    CHECK_OK(tfi_tensor_to_f32(w, out));
    CHECK(out[0] == 1.5f && out[1] == -2.0f && out[2] == 3.25f && out[3] == 0.0f);
    CHECK_OK(tfi_tensor_to_f32(tfi_source_tensor(&s, "b"), out));
    CHECK(out[0] == 1.0f && out[1] == -2.0f && out[2] > 3e38f);
    CHECK_OK(tfi_tensor_to_f32(tfi_source_tensor(&s, "h"), out));
    CHECK(out[0] == 0x1p-24f);
    CHECK_OK(tfi_tensor_to_f32(tfi_source_tensor(&s, "d"), out));
    CHECK(out[0] == (float)0.1);
    CHECK_INT(tfi_tensor_elements(tfi_source_tensor(&s, "none")), 0);
    CHECK_OK(tfi_tensor_to_f32(tfi_source_tensor(&s, "none"), out));
    CHECK_STATUS(tfi_tensor_to_f32(tfi_source_tensor(&s, "i"), out), TF_STATUS_UNSUPPORTED);
    CHECK_ERROR_SAYS("\"i\"");
    close_source(&s);
}

#define TENSOR(name, dtype, shape, offsets)                                                                                    \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets "}"

static void safetensors_bad(void)
{
    static const struct {
        const char *header;
        size_t data_size;
        tf_status status;
        const char *says;
    } cases[] = {
        {"", 0, TF_STATUS_CORRUPT, "header"},
        {"[]", 0, TF_STATUS_CORRUPT, "no JSON object"},
        {"{\"a\":1}", 0, TF_STATUS_CORRUPT, "\"a\""},
        {"{" TENSOR("a", "F8_E4M3", "[4]", "[0,4]") "}", 4, TF_STATUS_UNSUPPORTED, "\"a\": dtype \"F8_E4M3\""},
        {"{\"a\":{\"dtype\":3,\"shape\":[4],\"data_offsets\":[0,4]}}", 4, TF_STATUS_CORRUPT, "\"dtype\""},
        {"{" TENSOR("a", "F32", "4", "[0,4]") "}", 4, TF_STATUS_CORRUPT, "\"shape\""},
        {"{" TENSOR("a", "F32", "[-1]", "[0,4]") "}", 4, TF_STATUS_CORRUPT, "\"shape\"[0]"},
        {"{" TENSOR("a", "F32", "[1.0]", "[0,4]") "}", 4, TF_STATUS_CORRUPT, "\"shape\"[0]"},
        {"{" TENSOR("a", "F32", "[1,1,1,1,1,1,1,1,1]", "[0,4]") "}", 4, TF_STATUS_UNSUPPORTED, "9 numbers"},
        {"{" TENSOR("a", "F32", "[4294967296,4294967296]", "[0,4]") "}", 4, TF_STATUS_CORRUPT, "4294967296"},
        {"{" TENSOR("a", "F32", "[2305843009213693952]", "[0,0]") "}", 0, TF_STATUS_CORRUPT, "2305843009213693952"},
        {"{" TENSOR("a", "F32", "[0,9223372036854775807]", "[0,0]") "}", 0, TF_STATUS_CORRUPT, "9223372036854775807"},
        {"{" TENSOR("a", "F32", "[99999999999999999999]", "[0,4]") "}", 4, TF_STATUS_CORRUPT, "shape"},
        {"{" TENSOR("a", "F32", "[2]", "[0,4]") "}", 4, TF_STATUS_CORRUPT, "8 bytes"},
        {"{" TENSOR("a", "F32", "[1]", "[0,8]") "}", 8, TF_STATUS_CORRUPT, "4 bytes"},
        {"{" TENSOR("a", "F32", "[1]", "[4,0]") "}", 4, TF_STATUS_CORRUPT, "[4, 0]"},
        {"{" TENSOR("a", "F32", "[1]", "[0]") "}", 4, TF_STATUS_CORRUPT, "\"data_offsets\""},
        {"{" TENSOR("a", "F32", "[1]", "[0,4,8]") "}", 4, TF_STATUS_UNSUPPORTED, "\"data_offsets\""},
        {"{" TENSOR("a", "F32", "[2]", "[0,8]") "}", 4, TF_STATUS_CORRUPT, "outside the 4 bytes"},
        {"{" TENSOR("a", "F32", "[1]", "[9223372036854775803,9223372036854775807]") "}", 4, TF_STATUS_CORRUPT, "outside"},
        {"{" TENSOR("a", "F32", "[2]", "[0,8]") "," TENSOR("b", "F32", "[2]", "[4,12]") "}", 12, TF_STATUS_CORRUPT, "overlap"},
        {"{" TENSOR("a", "F32", "[1]", "[0,4]") "," TENSOR("b", "F32", "[1]", "[0,4]") "}", 4, TF_STATUS_CORRUPT, "overlap"},
        {"{" TENSOR("a", "F32", "[1]", "[0,4]") "," TENSOR("b", "F32", "[1]", "[8,12]") "}", 12, TF_STATUS_CORRUPT, "gap"},
        {"{" TENSOR("a", "F32", "[1]", "[0,4]") "}", 9, TF_STATUS_CORRUPT, "5 bytes follow"},
        {"{" TENSOR("a", "F32", "[1]", "[0,4]") "," TENSOR("a", "F32", "[1]", "[4,8]") "}", 8, TF_STATUS_CORRUPT, "duplicate"},
    };
    static bytes b;

    fresh_directory();
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        make_safetensors(&b, cases[i].header, cases[i].data_size);
        expect_failure("model.safetensors", &b, cases[i].status, cases[i].says);
    }

    b.size = 0;
    put_number(&b, 50000, 8);
    for (int i = 0; i < 50000; i++) put_text(&b, "[");
    expect_failure("model.safetensors", &b, TF_STATUS_CORRUPT, "nested deeper");

    static const uint64_t lengths[] = {1, 41, UINT32_MAX, INT64_MAX, UINT64_MAX, UINT64_MAX - 7};
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        make_safetensors(&b, "{" TENSOR("a", "F32", "[1]", "[0,4]") "}", 4);
        memcpy(b.data, &lengths[i], 8);
        expect_failure("model.safetensors", &b, TF_STATUS_CORRUPT, "header");
    }
}

static void safetensors_hurt(void)
{
    static bytes b;

    fresh_directory();
    make_good_safetensors(&b);
    expect_no_prefix("model.safetensors", &b);
    expect_survival("model.safetensors", &b, 2000);
    write_file("model.safetensors", b.data, b.size);
    expect_nomem();
}

static void write_shard(const char *name, const char *header, size_t data_size)
{
    static bytes b;
    make_safetensors(&b, header, data_size);
    write_file(name, b.data, b.size);
}

static void shards(void)
{
    static const char index_name[] = "model.safetensors.index.json";
    static const struct {
        const char *index;
        tf_status status;
        const char *says;
    } cases[] = {
        {"{\"weight_map\":{\"a\":\"1.safetensors\",\"c\":\"3.safetensors\"}}", TF_STATUS_CORRUPT, "no file 3.safetensors"},
        {"{\"weight_map\":{\"a\":\"1.safetensors\",\"c\":\"1.safetensors\"}}", TF_STATUS_CORRUPT, "\"c\" is not in"},
        {"{\"weight_map\":{\"a\":\"2.safetensors\",\"b\":\"1.safetensors\"}}", TF_STATUS_CORRUPT, "is not in"},
        {"{\"weight_map\":{\"a\":\"1.safetensors\",\"b\":\"same.safetensors\"}}", TF_STATUS_CORRUPT, "\"a\" is stored twice"},
        {"{\"weight_map\":{\"a\":\"../1.safetensors\"}}", TF_STATUS_CORRUPT, "no file of this directory"},
        {"{\"weight_map\":{\"a\":\"..\"}}", TF_STATUS_IO, ".."},
        {"{\"weight_map\":{\"a\":\"\"}}", TF_STATUS_CORRUPT, "\"a\""},
        {"{\"weight_map\":{\"a\":\"1.safetensors\\u0000\"}}", TF_STATUS_CORRUPT, "\"a\""},
        {"{\"weight_map\":{\"a\":7}}", TF_STATUS_CORRUPT, "\"a\""},
        {"{\"weight_map\":[]}", TF_STATUS_CORRUPT, "weight_map"},
        {"[]", TF_STATUS_CORRUPT, "weight_map"},
        {"{\"weight_map\":{\"a\":\"bad.safetensors\"}}", TF_STATUS_CORRUPT, "bad.safetensors: "},
        {"{\"weight_map\":{\"a\":\"1.safetensors\",\"a\":\"1.safetensors\"}}", TF_STATUS_CORRUPT, "duplicate"},
    };
    tfi_source s;
    float out[1];

    fresh_directory();
    write_shard("../1.safetensors", "{" TENSOR("a", "U8", "[4]", "[0,4]") "}", 4); /* outside: must not be read */
    write_shard("1.safetensors", "{" TENSOR("a", "U8", "[4]", "[0,4]") "}", 4);
    write_shard("2.safetensors", "{" TENSOR("b", "BF16", "[1]", "[0,2]") "}", 2);
    write_shard("same.safetensors", "{" TENSOR("a", "U8", "[4]", "[0,4]") "," TENSOR("b", "U8", "[4]", "[4,8]") "}", 8);
    write_shard("bad.safetensors", "{" TENSOR("a", "U8", "[4]", "[0,4]") "}", 3);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        write_file(index_name, cases[i].index, strlen(cases[i].index));
        CHECK_STATUS(open_source(&s), cases[i].status);
        CHECK_ERROR_SAYS(index_name);
        CHECK_ERROR_SAYS(cases[i].says);
    }
    const char good[] = "{\"metadata\":{},\"weight_map\":{\"b\":\"2.safetensors\",\"a\":\"1.safetensors\"}}";
    write_file(index_name, good, sizeof good - 1);
    CHECK_OK(open_source(&s));
    CHECK_INT(s.tensor_count, 2);
    CHECK_INT(s.weight_file_count, 2);
    CHECK(tfi_source_tensor(&s, "a")->file != tfi_source_tensor(&s, "b")->file);
    CHECK_OK(tfi_tensor_to_f32(tfi_source_tensor(&s, "b"), out));
    close_source(&s);
    expect_nomem();
}

/* ---- directories, and views of any shape ---- */

static void directories(void)
{
    static bytes b;
    tfi_source s;

    directory = "/nonexistent/here";
    CHECK_STATUS(open_source(&s), TF_STATUS_NOT_FOUND);
    CHECK_ERROR_SAYS("/nonexistent/here");
    fresh_directory();
    CHECK_OK(open_source(&s));
    CHECK_INT(s.tensor_count, 0);
    CHECK(tfi_source_tensor(&s, "w") == NULL);
    close_source(&s);
    b.size = 0;
    expect_failure("model.safetensors", &b, TF_STATUS_CORRUPT, "0 bytes");

    b.size = 0;
    put_text(&b, "not looked at"); /* safetensors come first */
    write_file("pytorch_model.bin", b.data, b.size);
    make_good_safetensors(&b);
    write_file("model.safetensors", b.data, b.size);
    CHECK_OK(open_source(&s));
    CHECK(tfi_source_tensor(&s, "none") != NULL);
    close_source(&s);
    memset(&s, 0, sizeof s);
    tfi_source_close(&s);
}

/* tfi_tensor_to_f32 on random views against the definition. */
static void random_views(void)
{
    for (int round = 0; round < 500; round++) {
        tfi_tensor t = {.name = "v", .dtype = (tfi_dtype)(check_random() % 4), .rank = (int)(check_random() % 5)};
        int64_t last = 0;
        for (int i = 0; i < t.rank; i++) {
            t.shape[i] = 1 + (int64_t)(check_random() % 5);
            t.stride[i] = (int64_t)(check_random() % 8);
            last += (t.shape[i] - 1) * t.stride[i];
        }
        const size_t element_size = tfi_dtype_size(t.dtype);
        t.span = (size_t)(last + 1) * element_size;
        uint8_t *data = check_bytes((int64_t)t.span);
        for (size_t i = 0; i < t.span; i++) data[i] = (uint8_t)(i % element_size < element_size - 1 ? check_random() : 0x3f);
        t.data = data;
        const int64_t n = tfi_tensor_elements(&t);
        float *out = check_out(n);
        CHECK_OK(tfi_tensor_to_f32(&t, out));
        for (int64_t k = 0; k < n; k++) {
            int64_t at = 0, rest = k;
            for (int i = t.rank - 1; i >= 0; i--) {
                at += rest % t.shape[i] * t.stride[i];
                rest /= t.shape[i];
            }
            const uint8_t *p = data + (size_t)at * element_size;
            uint16_t half;
            float f;
            double d;
            memcpy(&half, p, 2);
            if (t.dtype == TFI_F32) memcpy(&f, p, 4);
            else if (t.dtype == TFI_F64) memcpy(&d, p, 8), f = (float)d;
            else f = t.dtype == TFI_BF16 ? tfi_bf16_to_f32(half) : tfi_f16_to_f32(half);
            CHECK(memcmp(&f, &out[k], 4) == 0);
        }
    }
}

int main(int argc, char **argv)
{
    check_run(argc, argv, "safetensors_good", safetensors_good);
    check_run(argc, argv, "safetensors_bad", safetensors_bad);
    check_run(argc, argv, "safetensors_hurt", safetensors_hurt);
    check_run(argc, argv, "shards", shards);
    check_run(argc, argv, "directories", directories);
    check_run(argc, argv, "random_views", random_views);
    return check_done();
}
