#include "models/config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/status.h"

enum { LABELS_MAX = 1 << 20 };

tf_status tfi_config_read(const tfi_files *files, const char *name, int array, json_t **out)
{
    tfi_file file;
    tf_status status;

    *out = NULL;
    if ((status = tfi_files_open(files, name, &file)) < 0) return status;
    status = tfi_json_parse((const char *)file.data, file.size, name, out);
    tfi_files_close(files, &file);
    if (status < 0) return tfi_fail_prefix(status, "%s/", files->label);
    if (array ? json_is_array(*out) : json_is_object(*out)) return TF_STATUS_OK;
    json_decref(*out);
    *out = NULL;
    return tfi_fail(TF_STATUS_CORRUPT, "%s/%s: the root is no JSON %s", files->label, name, array ? "array" : "object");
}

tf_status tfi_config_int(tfi_json j, const char *key, int32_t min, int32_t max, int32_t *out)
{
    int64_t value = *out;
    const tf_status status = tfi_json_int(j, key, min, max, &value);

    if (status == TF_STATUS_OK) *out = (int32_t)value;
    return status;
}

tf_status tfi_config_activation_named(tfi_json j, const char *key, const char *name, tfi_activation *out)
{
    /* gelu_fast and gelu_pytorch_tanh are gelu_new's formula in another order of operations. */
    static const struct {
        const char *name;
        tfi_activation activation;
    } known[] = {
        {"gelu", TFI_ACT_GELU},          {"gelu_python", TFI_ACT_GELU},
        {"gelu_new", TFI_ACT_GELU_TANH}, {"gelu_pytorch_tanh", TFI_ACT_GELU_TANH},
        {"gelu_fast", TFI_ACT_GELU_TANH}, {"gelu_python_tanh", TFI_ACT_GELU_TANH},
        {"relu", TFI_ACT_RELU},          {"silu", TFI_ACT_SILU},
        {"swish", TFI_ACT_SILU},         {"tanh", TFI_ACT_TANH},
        {"sigmoid", TFI_ACT_SIGMOID},    {"linear", TFI_ACT_NONE},
    };

    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (strcmp(known[i].name, name) == 0) {
            *out = known[i].activation;
            return TF_STATUS_OK;
        }
    }
    return tfi_fail(TF_STATUS_UNSUPPORTED, "%s: \"%s\": activation \"%s\" is not built", j.file, key, name);
}

tf_status tfi_config_activation(tfi_json j, const char *key, tfi_activation *out)
{
    const char *name = NULL;
    const tf_status status = tfi_json_string(j, key, &name);

    return status < 0 || !name ? status : tfi_config_activation_named(j, key, name, out);
}

tf_status tfi_config_labels(tfi_json j, tfi_arena *arena, int32_t *count, const char *const **names)
{
    const json_t *map = json_object_get(j.object, "id2label");
    const int have = map && json_is_object(map);
    int32_t n = 2;
    char text[32];
    tf_status status;

    if (map && !json_is_null(map) && !have)
        return tfi_fail(TF_STATUS_CORRUPT, "%s: \"id2label\" is no object", j.file);
    if (have) {
        if (json_object_size(map) > LABELS_MAX)
            return tfi_fail(TF_STATUS_CORRUPT, "%s: \"id2label\" has %zu entries", j.file, json_object_size(map));
        n = (int32_t)json_object_size(map);
    } else if ((status = tfi_config_int(j, "num_labels", 1, LABELS_MAX, &n)) < 0) {
        return status;
    }
    const char **list = tfi_arena_alloc(arena, (size_t)(n ? n : 1) * sizeof *list);
    if (!list) return TF_STATUS_NOMEM;
    for (int32_t i = 0; i < n; i++) {
        snprintf(text, sizeof text, have ? "%d" : "LABEL_%d", (int)i);
        const char *label = text;
        if (have) {
            const json_t *value = json_object_get(map, text);
            if (!value || !json_is_string(value))
                return tfi_fail(TF_STATUS_CORRUPT, "%s: \"id2label\" has no text for label %d", j.file, (int)i);
            label = json_string_value(value);
        }
        if (!(list[i] = tfi_arena_copy(arena, label, strlen(label)))) return TF_STATUS_NOMEM;
    }
    *count = n;
    *names = list;
    return TF_STATUS_OK;
}
