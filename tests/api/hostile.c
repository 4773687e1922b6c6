/* Directories that are wrong: absurd and missing settings, damaged files, endless nesting. Each open is a status and a
 * sentence, takes no more than its budget, leaves nothing behind, and the directory opens again once it is whole. */
#include <stdlib.h>
#include <unistd.h>

#include "check.h"
#include "tiny_model.h"

enum { BUDGET = 64 << 20 };

static check_memory memory;
static const char *folder; /* a tiny classifier of this test's own */

typedef struct bytes {
    char *data;
    size_t size;
} bytes;

static const char *file_path(const char *name)
{
    static char path[600];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static bytes read_bytes(const char *name)
{
    bytes b = {0};
    FILE *f = fopen(file_path(name), "rb");

    if (!f || fseek(f, 0, SEEK_END) != 0) exit(2);
    b.size = (size_t)ftell(f);
    b.data = malloc(b.size + 1);
    rewind(f);
    if (!b.data || fread(b.data, 1, b.size, f) != b.size) exit(2);
    b.data[b.size] = 0;
    fclose(f);
    return b;
}

/* Open the directory as it is now and, if that works, run it; then everything must have been given back. */
static tf_status try_folder(void)
{
    static float out[TINY_OUT];
    tf_model_options o;
    tf_session_options so;
    tf_plan plan;
    tf_model *m = NULL;
    tf_session *s = NULL;

    tf_model_options_init(&o);
    o.allocator = &memory.hooks;
    o.threads = 1;
    o.memory_budget = BUDGET;
    tf_session_options_init(&so);
    so.memory_budget = BUDGET;
    tf_plan_init(&plan);
    (void)tf_model_plan(folder, &o, NULL, &plan);
    tf_status status = tf_model_open(folder, &o, &m);
    CHECK((status < 0) == (m == NULL));
    if (status < 0) CHECK(tf_last_error()[0] != 0 && status != TF_STATUS_INTERNAL);
    if (m) status = tf_session_open(m, &so, &s);
    if (s) status = tiny_run(s, TINY_CLASSIFIER, out);
    tf_session_close(s);
    tf_model_close(m);
    CHECK_INT(memory.live_blocks, 0);
    CHECK(memory.peak_bytes <= 2 * BUDGET);
    return status;
}

/* config.json with one value replaced */
static void set_config(const bytes *config, const char *key, const char *value)
{
    char quoted[64], *text = malloc(config->size + strlen(value) + 1);

    snprintf(quoted, sizeof quoted, "\"%s\": ", key);
    const char *at = strstr(config->data, quoted);
    if (!at || !text) {
        check_failed(__FILE__, __LINE__, "config.json has no key %s", key);
        free(text);
        return;
    }
    at += strlen(quoted);
    const char *end = at;
    for (int depth = 0; depth > 0 || (*end != ',' && *end != '}'); end++) depth += (*end == '[') - (*end == ']');
    const size_t head = (size_t)(at - config->data);
    memcpy(text, config->data, head);
    strcpy(text + head, value);
    strcat(text, end);
    check_write(file_path("config.json"), text, strlen(text));
    free(text);
}

static void absurd_settings(void)
{
    static const char *const keys[] = {"hidden_size",         "intermediate_size", "max_position_embeddings",
                                       "num_attention_heads", "num_hidden_layers", "type_vocab_size",
                                       "vocab_size"};
    static const char *const values[] = {
        "0",    "-1",      "1e300", "2147483647", "9223372036854775807", "99999999999999999999", "\"x\"", "[1]",
        "true", "1000000", "33.5",  "null"};
    const bytes config = read_bytes("config.json");

    for (size_t k = 0; k < sizeof keys / sizeof keys[0]; k++) {
        for (size_t v = 0; v < sizeof values / sizeof values[0]; v++) {
            set_config(&config, keys[k], values[v]);
            const tf_status status = try_folder();
            /* no value means transformers' default, which is right here for the types; 0 means that there are none */
            const int is_fine = strcmp(keys[k], "type_vocab_size") == 0 && (strcmp(values[v], "null") == 0 || v == 0);
            if (status >= 0 && !is_fine) check_failed(__FILE__, __LINE__, "%s = %s was taken", keys[k], values[v]);
        }
    }
    static const struct {
        const char *key, *value, *said;
    } named[] = {{"num_attention_heads", "3", "num_attention_heads"},
                 {"hidden_size", "\"x\"", "hidden_size"},
                 {"hidden_size", "-1", "config.json"},
                 {"hidden_act", "\"abacus\"", "abacus"},
                 {"model_type", "\"abacus\"", "abacus"},
                 {"architectures", "[\"BertForMultipleChoice\"]", "BertForMultipleChoice"},
                 {"architectures", "[\"BertLMHeadModel\"]", "BertLMHeadModel"},
                 {"position_embedding_type", "\"relative_key\"", "relative_key"},
                 {"layer_norm_eps", "\"small\"", "layer_norm_eps"},
                 {"hidden_size", "48", "word_embeddings.weight"}};
    for (size_t i = 0; i < sizeof named / sizeof named[0]; i++) {
        set_config(&config, named[i].key, named[i].value);
        CHECK(try_folder() < 0);
        CHECK_ERROR_SAYS(named[i].said);
    }
    check_write(file_path("config.json"), config.data, config.size);
    CHECK_OK(try_folder());
    free(config.data);
}

static void endless_nesting(void)
{
    static const char *const names[] = {"config.json", "tokenizer_config.json", "tokenizer.json", "modules.json",
                                        "model.safetensors.index.json"};
    enum { DEPTH = 200000 };
    char *deep = malloc(DEPTH + 8);
    const bytes weights = read_bytes("model.safetensors");

    if (!deep) exit(2);
    for (int object = 0; object < 2; object++) {
        memset(deep, '[', DEPTH);
        if (object) {
            for (int i = 0; i + 5 <= DEPTH; i += 5) memcpy(deep + i, "{\"a\":", 5);
        }
        for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
            bytes before = {0};
            if (access(file_path(names[i]), F_OK) == 0) before = read_bytes(names[i]);
            if (i == 4) unlink(file_path("model.safetensors")); /* so that the index is looked at */
            check_write(file_path(names[i]), deep, DEPTH);
            CHECK(try_folder() < 0);
            CHECK_ERROR_SAYS(names[i]);
            if (before.data) check_write(file_path(names[i]), before.data, before.size);
            else unlink(file_path(names[i]));
            if (i == 4) check_write(file_path("model.safetensors"), weights.data, weights.size);
            free(before.data);
        }
    }
    free(deep);
    free(weights.data);
    CHECK_OK(try_folder());
}

static void missing_files(void)
{
    static const char *const names[] = {"config.json", "model.safetensors", "vocab.txt", "tokenizer_config.json"};

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        const bytes before = read_bytes(names[i]);
        unlink(file_path(names[i]));
        const tf_status status = try_folder();
        if (i < 2) CHECK_STATUS(status, TF_STATUS_NOT_FOUND);
        if (i == 2) CHECK(status < 0); /* the model opens, its tasks on text are refused */
        check_write(file_path(names[i]), "", 0);
        CHECK(i == 3 || try_folder() < 0);
        check_write(file_path(names[i]), before.data, before.size);
        free(before.data);
    }
    CHECK_OK(try_folder());
}

/* Cut and overwrite at random. What comes out may open or not; it must not crash, leak, or say nothing. */
static void damage(const char *name, int rounds, size_t limit)
{
    const bytes whole = read_bytes(name);
    char *copy = malloc(whole.size + 1);
    int refused = 0;

    if (!copy) exit(2);
    for (int i = 0; i < rounds; i++) {
        size_t size = whole.size;
        const size_t reach = whole.size < limit ? whole.size : limit;
        memcpy(copy, whole.data, size);
        if (i % 3 == 0) {
            size = check_random() % reach;
        } else {
            for (int k = 0; k < 1 + i % 4; k++) copy[check_random() % reach] = (char)check_random();
        }
        check_write(file_path(name), copy, size);
        refused += try_folder() < 0;
    }
    CHECK(refused > rounds / 10);
    check_write(file_path(name), whole.data, whole.size);
    CHECK_OK(try_folder());
    free(copy);
    free(whole.data);
}

static void damaged_files(void)
{
    damage("config.json", 60, SIZE_MAX);
    damage("model.safetensors", 60, 4500); /* the header's part */
    damage("model.safetensors", 9, SIZE_MAX);
    damage("tokenizer_config.json", 30, SIZE_MAX);
}

/* Weights that are NaN end a task with NUMERIC; a NaN never leaves the library silently. */
static void weights_that_are_no_numbers(void)
{
    const bytes whole = read_bytes("model.safetensors");
    char *copy = malloc(whole.size);

    if (!copy) exit(2);
    memcpy(copy, whole.data, whole.size);
    memset(copy + whole.size - 64, 0xff, 64); /* the classifier's last rows */
    check_write(file_path("model.safetensors"), copy, whole.size);
    CHECK_STATUS(try_folder(), TF_STATUS_NUMERIC);
    check_write(file_path("model.safetensors"), whole.data, whole.size);
    CHECK_OK(try_folder());
    free(copy);
    free(whole.data);
}

int main(int argc, char **argv)
{
    static char path[512];

    check_memory_init(&memory);
    snprintf(path, sizeof path, "%s", check_path("hostile"));
    folder = path;
    tiny_model_write(folder, TINY_CLASSIFIER);
    check_run(argc, argv, "absurd_settings", absurd_settings);
    check_run(argc, argv, "endless_nesting", endless_nesting);
    check_run(argc, argv, "missing_files", missing_files);
    check_run(argc, argv, "damaged_files", damaged_files);
    check_run(argc, argv, "weights_that_are_no_numbers", weights_that_are_no_numbers);
    return check_done();
}
