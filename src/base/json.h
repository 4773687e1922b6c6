/* JSON through jansson, with what a library that reads strangers' files needs around it: a depth limit (jansson recurses on the
 * caller's stack), duplicate keys refused, and getters whose error text names file, key and value. */
#ifndef TFI_BASE_JSON_H
#define TFI_BASE_JSON_H

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

#include <tfinfer/base.h>

enum { TFI_JSON_DEPTH = 64 };

/* Parse `size` bytes; `file` names them in error texts. The root may be any value. Free *out with json_decref. */
tf_status tfi_json_parse(const char *data, size_t size, const char *file, json_t **out);

/* The root of the parsed text and where it came from, for the getters below. */
typedef struct tfi_json {
    const json_t *object;
    const char *file;
} tfi_json;

/* Each getter leaves *out as it is when the key is absent or null, so the caller stores the default first. A value of another
 * type or outside [min, max] is TF_STATUS_CORRUPT. Strings belong to the JSON tree. */
tf_status tfi_json_int(tfi_json j, const char *key, int64_t min, int64_t max, int64_t *out);
tf_status tfi_json_float(tfi_json j, const char *key, double min, double max, double *out);
tf_status tfi_json_bool(tfi_json j, const char *key, int *out);
tf_status tfi_json_string(tfi_json j, const char *key, const char **out);

#endif
