#include "models/sentence.h"

#include <stdio.h>
#include <string.h>

#include "base/status.h"
#include "models/config.h"

/* The last component of a dotted class path: old and new releases name the same module differently. */
static const char *last_component(const char *path)
{
    const char *dot = strrchr(path, '.');
    return dot ? dot + 1 : path;
}

/* A module's folder: relative, inside the directory. */
static tf_status read_path(tfi_json j, char out[TFI_FOLDER_MAX])
{
    const char *path = "";
    const tf_status s = tfi_json_string(j, "path", &path);

    if (s < 0) return s;
    if (strlen(path) >= TFI_FOLDER_MAX || path[0] == '/' || strstr(path, ".."))
        return tfi_fail(TF_STATUS_CORRUPT, "%s: \"path\": \"%.64s\" is no folder of the checkpoint", j.file, path);
    strcpy(out, path);
    for (size_t n = strlen(out); n > 0 && out[n - 1] == '/'; n--) out[n - 1] = '\0';
    return TF_STATUS_OK;
}

/* Read `folder`/`name` as an object; NOT_FOUND without text where there is none. */
static tf_status read_module(const tfi_files *files, const char *folder, const char *name, char file[128], json_t **out)
{
    snprintf(file, 128, "%s%s%s", folder, *folder ? "/" : "", name);
    return tfi_config_read(files, file, 0, out);
}

static const struct {
    const char *mode, *legacy;
    int32_t kind;
} poolings[] = {
    {"cls", "pooling_mode_cls_token", TFI_POOL_CLS},
    {"max", "pooling_mode_max_tokens", TFI_POOL_MAX},
    {"mean", "pooling_mode_mean_tokens", TFI_POOL_MEAN},
    {"mean_sqrt_len_tokens", "pooling_mode_mean_sqrt_len_tokens", TFI_POOL_MEAN_SQRT},
    {"weightedmean", "pooling_mode_weightedmean_tokens", TFI_POOL_WEIGHTED},
    {"lasttoken", "pooling_mode_lasttoken", TFI_POOL_LAST},
};

enum { POOLINGS = sizeof poolings / sizeof poolings[0] };

/* Put a kind behind the list, whose length is *count. */
static tf_status add_pooling(tfi_json j, int32_t kind, int32_t *list, int *count)
{
    if (*count == TFI_POOL_LIST_MAX)
        return tfi_fail(TF_STATUS_UNSUPPORTED, "%s: \"pooling_mode\" has more than %d entries", j.file, (int)TFI_POOL_LIST_MAX);
    *list |= kind << 3 * (*count)++;
    return TF_STATUS_OK;
}

static tf_status add_named_pooling(tfi_json j, const char *mode, int32_t *list, int *count)
{
    for (int i = 0; i < POOLINGS; i++)
        if (mode && strcmp(poolings[i].mode, mode) == 0) return add_pooling(j, poolings[i].kind, list, count);
    return tfi_fail(TF_STATUS_UNSUPPORTED, "%s: \"pooling_mode\": \"%s\" is not built", j.file, mode ? mode : "(no text)");
}

static tf_status parse_pooling(tfi_sentence *s, tfi_json j)
{
    const json_t *mode = json_object_get(j.object, "pooling_mode");
    int32_t pooling = 0;
    int count = 0;
    tf_status st = TF_STATUS_OK;

    if (json_is_array(mode)) {
        for (size_t i = 0; i < json_array_size(mode) && st == TF_STATUS_OK; i++)
            st = add_named_pooling(j, json_string_value(json_array_get(mode, i)), &pooling, &count);
    } else if (mode && !json_is_null(mode)) {
        st = add_named_pooling(j, json_string_value(mode), &pooling, &count);
    } else {
        for (int i = 0; i < POOLINGS && st == TF_STATUS_OK; i++) {
            int on = 0;
            st = tfi_json_bool(j, poolings[i].legacy, &on);
            if (on && st == TF_STATUS_OK) st = add_pooling(j, poolings[i].kind, &pooling, &count);
        }
    }
    if (pooling) s->pooling = pooling;
    if (st < 0 || (st = tfi_config_int(j, "word_embedding_dimension", 1, 1 << 20, &s->pooled_width)) < 0 ||
        (st = tfi_config_int(j, "embedding_dimension", 1, 1 << 20, &s->pooled_width)) < 0)
        return st;
    return tfi_json_bool(j, "include_prompt", &s->include_prompt);
}

static tf_status read_pooling(tfi_sentence *s, const tfi_files *files, const char *folder)
{
    char file[128];
    json_t *root;
    tf_status st = read_module(files, folder, "config.json", file, &root);

    if (st == TF_STATUS_NOT_FOUND) return tfi_fail(st, "%s: modules.json names %s, which is missing", files->label, file);
    if (st < 0) return st;
    st = parse_pooling(s, (tfi_json){root, file});
    json_decref(root);
    return st;
}

static tf_status dense_activation(tfi_json j, tfi_activation *out)
{
    static const struct {
        const char *name;
        tfi_activation activation;
    } known[] = {{"Tanh", TFI_ACT_TANH}, {"Identity", TFI_ACT_NONE}, {"ReLU", TFI_ACT_RELU},
                 {"GELU", TFI_ACT_GELU}, {"Sigmoid", TFI_ACT_SIGMOID}, {"SiLU", TFI_ACT_SILU}};
    const char *name = "torch.nn.modules.activation.Tanh";
    const tf_status st = tfi_json_string(j, "activation_function", &name);

    if (st < 0) return st;
    for (size_t i = 0; strncmp(name, "torch.nn.", 9) == 0 && i < sizeof known / sizeof known[0]; i++) {
        if (strcmp(known[i].name, last_component(name)) != 0) continue;
        *out = known[i].activation;
        return TF_STATUS_OK;
    }
    return tfi_fail(TF_STATUS_UNSUPPORTED, "%s: \"activation_function\": \"%s\" is not built", j.file, name);
}

static tf_status parse_dense(tfi_dense *d, tfi_json j)
{
    const char *input = "sentence_embedding", *output = input;
    tf_status st;

    d->bias = 1;
    if ((st = tfi_config_int(j, "in_features", 1, 1 << 20, &d->inputs)) < 0 ||
        (st = tfi_config_int(j, "out_features", 1, 1 << 20, &d->outputs)) < 0 || (st = tfi_json_bool(j, "bias", &d->bias)) < 0 ||
        (st = tfi_json_bool(j, "use_residual", &d->use_residual)) < 0 || (st = dense_activation(j, &d->activation)) < 0 ||
        (st = tfi_json_string(j, "module_input_name", &input)) < 0 || (st = tfi_json_string(j, "module_output_name", &output)) < 0)
        return st;
    if (strcmp(input, "sentence_embedding") != 0 || strcmp(output, "sentence_embedding") != 0)
        return tfi_fail(TF_STATUS_UNSUPPORTED, "%s: a Dense module from \"%s\" to \"%s\" is not built", j.file, input, output);
    return TF_STATUS_OK;
}

static tf_status read_dense(tfi_sentence *s, const tfi_files *files, const char *folder, tfi_memory *memory)
{
    tfi_files of_folder;
    char file[128];
    json_t *root;

    if (s->dense_count == TFI_SENTENCE_DENSE)
        return tfi_fail(TF_STATUS_UNSUPPORTED, "%s: modules.json has more than %d Dense modules", files->label, TFI_SENTENCE_DENSE);
    tf_status st = read_module(files, folder, "config.json", file, &root);
    if (st == TF_STATUS_NOT_FOUND) return tfi_fail(st, "%s: modules.json names %s, which is missing", files->label, file);
    if (st < 0) return st;
    tfi_dense *d = &s->dense[s->dense_count];
    strcpy(d->path, folder);
    st = parse_dense(d, (tfi_json){root, file});
    json_decref(root);
    if (st < 0) return st;
    tfi_files_folder(&of_folder, files, folder);
    if ((st = tfi_source_open(&d->source, memory, &of_folder)) < 0) return st;
    s->dense_count++; /* from here on tfi_sentence_close() closes the source */
    return TF_STATUS_OK;
}

static tf_status read_limits(tfi_sentence *s, const tfi_files *files)
{
    /* Old directories name the file after the transformer's class; the first that exists is read. */
    static const char *const names[] = {"sentence_bert_config.json",       "sentence_roberta_config.json",
                                        "sentence_distilbert_config.json", "sentence_camembert_config.json",
                                        "sentence_xlm-roberta_config.json"};
    char file[128];

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        json_t *root;
        tf_status st = read_module(files, s->transformer_path, names[i], file, &root);
        if (st == TF_STATUS_NOT_FOUND) continue;
        if (st < 0) return st;
        const tfi_json j = {root, file};
        st = tfi_config_int(j, "max_seq_length", 1, INT32_MAX / 2, &s->max_tokens);
        if (st == TF_STATUS_OK) st = tfi_json_bool(j, "do_lower_case", &s->lowercase);
        json_decref(root);
        return st;
    }
    return TF_STATUS_OK;
}

static tf_status parse_prompts(tfi_sentence *s, tfi_json j, tfi_arena *arena)
{
    json_t *prompts = json_object_get(j.object, "prompts");
    const char *chosen = NULL, *name;
    json_t *text;
    tf_status st;

    if ((st = tfi_json_string(j, "default_prompt_name", &chosen)) < 0) return st;
    if (!json_is_object(prompts)) return TF_STATUS_OK;
    const size_t n = json_object_size(prompts);
    s->prompt_names = tfi_arena_alloc(arena, (n + 1) * sizeof *s->prompt_names);
    s->prompt_texts = tfi_arena_alloc(arena, (n + 1) * sizeof *s->prompt_texts);
    if (!s->prompt_names || !s->prompt_texts) return TF_STATUS_NOMEM;
    json_object_foreach(prompts, name, text)
    {
        if (json_is_null(text)) continue;
        if (!json_is_string(text)) return tfi_fail(TF_STATUS_CORRUPT, "%s: \"prompts\": \"%s\" is no text", j.file, name);
        if (chosen && strcmp(chosen, name) == 0) s->default_prompt = s->prompts;
        if (!(s->prompt_names[s->prompts] = tfi_arena_copy(arena, name, strlen(name))) ||
            !(s->prompt_texts[s->prompts] = tfi_arena_copy(arena, json_string_value(text), json_string_length(text))))
            return TF_STATUS_NOMEM;
        s->prompts++;
    }
    if (chosen && s->default_prompt < 0)
        return tfi_fail(TF_STATUS_CORRUPT, "%s: \"default_prompt_name\": there is no prompt \"%s\"", j.file, chosen);
    return TF_STATUS_OK;
}

static tf_status read_prompts(tfi_sentence *s, const tfi_files *files, tfi_arena *arena)
{
    json_t *root;
    tf_status st = tfi_config_read(files, "config_sentence_transformers.json", 0, &root);

    if (st == TF_STATUS_NOT_FOUND) return TF_STATUS_OK;
    if (st < 0) return st;
    st = parse_prompts(s, (tfi_json){root, "config_sentence_transformers.json"}, arena);
    json_decref(root);
    return st;
}

/* One entry of modules.json; the order must be Transformer, Pooling, then any of Dense and Normalize. */
static tf_status read_entry(tfi_sentence *s, const tfi_files *files, tfi_memory *memory, const json_t *entry, size_t index)
{
    const tfi_json j = {entry, "modules.json"};
    const char *type = "";
    char folder[TFI_FOLDER_MAX];
    tf_status st;

    if (!json_is_object(entry)) return tfi_fail(TF_STATUS_CORRUPT, "modules.json: entry %zu is no object", index);
    if ((st = tfi_json_string(j, "type", &type)) < 0 || (st = read_path(j, folder)) < 0) return st;
    const char *name = last_component(type);
    if (index == 0 && strcmp(name, "Transformer") == 0) {
        strcpy(s->transformer_path, folder);
        return TF_STATUS_OK;
    }
    if (index == 1 && strcmp(name, "Pooling") == 0) return read_pooling(s, files, folder);
    if (index > 1 && strcmp(name, "Dense") == 0 && !s->normalize) return read_dense(s, files, folder, memory);
    if (index > 1 && strcmp(name, "Normalize") == 0) {
        s->normalize = 1;
        return TF_STATUS_OK;
    }
    return tfi_fail(TF_STATUS_UNSUPPORTED, "modules.json: a module of type \"%s\" at place %zu is not built", type, index);
}

tf_status tfi_sentence_read(tfi_sentence *s, const tfi_files *files, tfi_arena *arena, tfi_memory *memory)
{
    json_t *root;

    *s = (tfi_sentence){.pooling = TFI_POOL_MEAN, .include_prompt = 1, .default_prompt = -1};
    tf_status st = tfi_config_read(files, "modules.json", 1, &root);
    if (st == TF_STATUS_NOT_FOUND) return TF_STATUS_OK;
    if (st < 0) return st;
    for (size_t i = 0; i < json_array_size(root) && st == TF_STATUS_OK; i++)
        st = read_entry(s, files, memory, json_array_get(root, i), i);
    json_decref(root);
    if (st == TF_STATUS_OK) st = read_limits(s, files);
    return st == TF_STATUS_OK ? read_prompts(s, files, arena) : st;
}

void tfi_sentence_close(tfi_sentence *s)
{
    for (int i = 0; i < s->dense_count; i++) tfi_source_close(&s->dense[i].source);
    s->dense_count = 0;
}
