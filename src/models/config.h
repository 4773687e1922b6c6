/* config.json and its like: read, parsed and checked through base/json.h. */
#ifndef TFI_MODELS_CONFIG_H
#define TFI_MODELS_CONFIG_H

#include "backend/ops.h"
#include "base/files.h"
#include "base/json.h"
#include "base/memory.h"

/* Read and parse one JSON file whose root must be an object (or an array if `array`). NOT_FOUND, without text, if there is no such file.
 * Free *out with json_decref. */
tf_status tfi_config_read(const tfi_files *files, const char *name, int array, json_t **out);

/* Like tfi_json_int over [min, INT32_MAX/2 or max] into an int32. */
tf_status tfi_config_int(tfi_json j, const char *key, int32_t min, int32_t max, int32_t *out);

/* An activation by transformers' name; UNSUPPORTED naming key and value for others. */
tf_status tfi_config_activation(tfi_json j, const char *key, tfi_activation *out);
/* The same of a name taken from the key's value. */
tf_status tfi_config_activation_named(tfi_json j, const char *key, const char *name, tfi_activation *out);

/* id2label as an array of names; absent: LABEL_0, LABEL_1, ... by num_labels, else two. */
tf_status tfi_config_labels(tfi_json j, tfi_arena *arena, int32_t *count, const char *const **names);

#endif
