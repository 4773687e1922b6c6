#include "base/json.h"

#include <math.h>
#include <string.h>

#include "base/status.h"

/* The deepest nesting of brackets outside strings; a cheap pass that lets jansson's recursion be bounded beforehand. */
static int nesting(const char *data, size_t size)
{
    int depth = 0, deepest = 0;

    for (size_t i = 0; i < size; i++) {
        const char c = data[i];
        if (c == '"') {
            for (i++; i < size && data[i] != '"'; i++)
                if (data[i] == '\\') i++;
        } else if (c == '{' || c == '[') {
            if (++depth > deepest) deepest = depth;
        } else if (c == '}' || c == ']') {
            depth--;
        }
    }
    return deepest;
}

tf_status tfi_json_parse(const char *data, size_t size, const char *file, json_t **out)
{
    json_error_t error;

    *out = NULL;
    if (nesting(data, size) > TFI_JSON_DEPTH)
        return tfi_fail(TF_STATUS_CORRUPT, "%s: JSON nested deeper than %d levels", file, TFI_JSON_DEPTH);
    const size_t flags = JSON_REJECT_DUPLICATES | JSON_DECODE_ANY | JSON_ALLOW_NUL;
    *out = json_loadb(data, size, flags, &error);
    /* Real files hold integers beyond 64 bits (model_max_length: int(1e30)): read such a file's numbers as doubles. */
    if (!*out && json_error_code(&error) == json_error_numeric_overflow)
        *out = json_loadb(data, size, flags | JSON_DECODE_INT_AS_REAL, &error);
    if (!*out) {
        if (json_error_code(&error) == json_error_out_of_memory)
            return tfi_fail(TF_STATUS_NOMEM, "%s: out of memory while reading JSON", file);
        return tfi_fail(TF_STATUS_CORRUPT, "%s: line %d, column %d: %s", file, error.line, error.column, error.text);
    }
    return TF_STATUS_OK;
}

static const char *type_name(const json_t *v)
{
    static const char *const names[] = {"an object", "an array", "a string", "an integer", "a number", "true", "false", "null"};
    return names[json_typeof(v)];
}

static const json_t *find(tfi_json j, const char *key)
{
    const json_t *v = json_object_get(j.object, key);
    return v && !json_is_null(v) ? v : NULL;
}

tf_status tfi_json_int(tfi_json j, const char *key, int64_t min, int64_t max, int64_t *out)
{
    const json_t *v = find(j, key);

    if (!v) return TF_STATUS_OK;
    const double d = json_number_value(v);
    const int whole = json_is_real(v) && d >= -0x1p53 && d <= 0x1p53 && d == floor(d); /* see tfi_json_parse */
    if (!json_is_integer(v) && !whole)
        return tfi_fail(TF_STATUS_CORRUPT, "%s: \"%s\" is %s, an integer is expected", j.file, key, type_name(v));
    const int64_t i = whole ? (int64_t)d : json_integer_value(v);
    if (i < min || i > max)
        return tfi_fail(TF_STATUS_CORRUPT, "%s: \"%s\" is %lld, outside [%lld, %lld]", j.file, key, (long long)i, (long long)min,
                        (long long)max);
    *out = i;
    return TF_STATUS_OK;
}

tf_status tfi_json_float(tfi_json j, const char *key, double min, double max, double *out)
{
    const json_t *v = find(j, key);

    if (!v) return TF_STATUS_OK;
    if (!json_is_number(v))
        return tfi_fail(TF_STATUS_CORRUPT, "%s: \"%s\" is %s, a number is expected", j.file, key, type_name(v));
    const double d = json_number_value(v);
    if (!(d >= min && d <= max))
        return tfi_fail(TF_STATUS_CORRUPT, "%s: \"%s\" is %g, outside [%g, %g]", j.file, key, d, min, max);
    *out = d;
    return TF_STATUS_OK;
}

tf_status tfi_json_bool(tfi_json j, const char *key, int *out)
{
    const json_t *v = find(j, key);

    if (!v) return TF_STATUS_OK;
    if (!json_is_boolean(v))
        return tfi_fail(TF_STATUS_CORRUPT, "%s: \"%s\" is %s, true or false is expected", j.file, key, type_name(v));
    *out = json_is_true(v);
    return TF_STATUS_OK;
}

tf_status tfi_json_string(tfi_json j, const char *key, const char **out)
{
    const json_t *v = find(j, key);

    if (!v) return TF_STATUS_OK;
    if (!json_is_string(v))
        return tfi_fail(TF_STATUS_CORRUPT, "%s: \"%s\" is %s, a string is expected", j.file, key, type_name(v));
    *out = json_string_value(v);
    return TF_STATUS_OK;
}
