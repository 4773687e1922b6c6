/* Reading the parts of a tokenizer.json: what a component lists, by the table of its kinds. What is in no table is refused by
 * name. */
#include "tokenizer/pipeline.h"

#include <string.h>

#include "base/status.h"
#include "tokenizer/load.h"

enum { DEPTH_MAX = 8 };

int tfi_part_is(const tfi_part *part, const char *name)
{
    return strcmp(part->kind->name, name) == 0;
}

static tf_status add(tf_tokenizer *t, const tfi_part_kind *kind, tfi_parts *parts, tfi_part **out)
{
    if (!parts->data && !(parts->data = tfi_arena_alloc(&t->arena, TFI_PARTS_MAX * sizeof *parts->data)))
        return TF_STATUS_NOMEM;
    if (parts->count == TFI_PARTS_MAX)
        return tfi_fail(TF_STATUS_UNSUPPORTED, "tokenizer.json: more than %d parts in a sequence", TFI_PARTS_MAX);
    *out = &parts->data[parts->count++];
    (*out)->kind = kind;
    return TF_STATUS_OK;
}

tf_status tfi_parts_add(tf_tokenizer *t, const tfi_part_kind *kinds, const char *name, tfi_parts *parts, tfi_part **out)
{
    while (kinds->name && strcmp(kinds->name, name) != 0) kinds++;
    return add(t, kinds, parts, out);
}

static tf_status read_part(tf_tokenizer *t, tfi_json json, const char *key, const char *list, const tfi_part_kind *kinds,
                           int depth, tfi_parts *out)
{
    const json_t *members = json_object_get(json.object, list), *member;
    const char *type = NULL;
    tfi_part *part = NULL;
    size_t i;
    tf_status status;

    if (!json_is_object(json.object)) return tfi_fail(TF_STATUS_CORRUPT, "%s: \"%s\": a part is not an object", json.file, key);
    if ((status = tfi_json_string(json, "type", &type)) < 0) return status;
    if (!type) return tfi_fail(TF_STATUS_CORRUPT, "%s: \"%s\" has no \"type\"", json.file, key);
    if (strcmp(type, "Sequence") == 0) {
        if (!json_is_array(members)) return tfi_fail(TF_STATUS_CORRUPT, "%s: \"%s\" is not an array", json.file, list);
        if (depth == DEPTH_MAX) return tfi_fail(TF_STATUS_UNSUPPORTED, "%s: \"%s\": sequences %d deep", json.file, key, depth);
        json_array_foreach(members, i, member)
        {
            status = read_part(t, (tfi_json){.object = member, .file = json.file}, key, list, kinds, depth + 1, out);
            if (status < 0) return status;
        }
        return TF_STATUS_OK;
    }
    while (kinds->name && strcmp(kinds->name, type) != 0) kinds++;
    if (!kinds->name) return tfi_fail(TF_STATUS_UNSUPPORTED, "%s: the %s %.64s is not supported", json.file, key, type);
    if ((status = add(t, kinds, out, &part)) < 0) return status;
    return kinds->read ? kinds->read(t, &json, part) : TF_STATUS_OK;
}

tf_status tfi_parts_read(tf_tokenizer *t, const tfi_json *root, const char *key, const char *list, const tfi_part_kind *kinds,
                         tfi_parts *out)
{
    const json_t *component = json_object_get(root->object, key);

    if (!component || json_is_null(component)) return TF_STATUS_OK;
    return read_part(t, (tfi_json){.object = component, .file = root->file}, key, list, kinds, 0, out);
}

/* Settings. */

tf_status tfi_part_string(tf_tokenizer *t, const tfi_json *json, const char *key, int is_needed, tfi_string *out)
{
    const char *text = NULL;
    const tf_status status = tfi_json_string(*json, key, &text);

    if (status < 0) return status;
    if (!text && is_needed) return tfi_fail(TF_STATUS_CORRUPT, "%s: a part has no \"%s\"", json->file, key);
    if (!text) return TF_STATUS_OK;
    if (strlen(text) > UINT16_MAX)
        return tfi_fail(TF_STATUS_UNSUPPORTED, "%s: a \"%s\" of %zu bytes", json->file, key, strlen(text));
    out->size = (uint32_t)strlen(text);
    return (out->data = tfi_arena_copy(&t->arena, text, out->size)) ? TF_STATUS_OK : TF_STATUS_NOMEM;
}

/* {"String": text} or {"Regex": expression}; what the tokenizer closes later. */
tf_status tfi_part_pattern(tf_tokenizer *t, const tfi_json *json, tfi_part *part)
{
    const json_t *pattern = json_object_get(json->object, "pattern");
    const json_t *text = json_object_get(pattern, "String"), *regex = json_object_get(pattern, "Regex");
    const json_t *value = text ? text : regex;

    if (!json_is_string(value) || json_object_size(pattern) != 1)
        return tfi_fail(TF_STATUS_CORRUPT, "%s: a \"pattern\" is neither a String nor a Regex", json->file);
    return tfi_pattern_open(t->memory, &t->more, json_string_value(value), json_string_length(value), regex != NULL, json->file,
                            &part->pattern);
}

tf_status tfi_part_behavior(const tfi_json *json, tfi_part *part)
{
    static const char *const names[] = {"Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"};
    const char *name = NULL;
    const tf_status status = tfi_json_string(*json, "behavior", &name);

    if (status < 0) return status;
    for (int i = 0; name && i < 5; i++)
        if (strcmp(names[i], name) == 0) return part->behavior = (tfi_behavior)i, TF_STATUS_OK;
    return name ? tfi_fail(TF_STATUS_CORRUPT, "%s: \"behavior\" is \"%.32s\"", json->file, name) : TF_STATUS_OK;
}

void tfi_part_set_mark(tfi_part *part, uint32_t mark)
{
    part->mark = mark;
    part->mark_size = tfi_utf8_encode(mark, part->mark_text);
}

tf_status tfi_part_char(const tfi_json *json, const char *key, tfi_part *part)
{
    const char *text = NULL;
    const tf_status status = tfi_json_string(*json, key, &text);
    uint32_t size = 0;

    if (status < 0) return status;
    if (text && *text) tfi_part_set_mark(part, tfi_utf8_decode((const uint8_t *)text, &size));
    if (!text || !*text || strlen(text) != size)
        return tfi_fail(TF_STATUS_CORRUPT, "%s: \"%s\" is \"%.32s\", not one character", json->file, key, text ? text : "");
    return TF_STATUS_OK;
}

/* The settings of Metaspace, which is a pre-tokenizer and a decoder. */
tf_status tfi_part_metaspace(tf_tokenizer *t, const tfi_json *json, tfi_part *part)
{
    static const char *const schemes[] = {"never", "first", "always"};
    const char *scheme = "always";
    int prefix = 1, number = 0;
    tf_status status;

    (void)t;
    part->splits = 1;
    tfi_part_set_mark(part, 0x2581);
    if (json_object_get(json->object, "replacement") && (status = tfi_part_char(json, "replacement", part)) < 0) return status;
    if ((status = tfi_json_string(*json, "prepend_scheme", &scheme)) < 0) return status;
    if ((status = tfi_json_bool(*json, "add_prefix_space", &prefix)) < 0) return status;
    if ((status = tfi_json_bool(*json, "split", &part->splits)) < 0) return status;
    while (number < 3 && strcmp(schemes[number], scheme) != 0) number++;
    if (number == 3) return tfi_fail(TF_STATUS_CORRUPT, "%s: Metaspace: prepend_scheme is \"%.32s\"", json->file, scheme);
    part->prepend = (tfi_prepend)number;
    if (!prefix && part->prepend != TFI_PREPEND_NEVER)
        return tfi_fail(TF_STATUS_CORRUPT, "%s: Metaspace: add_prefix_space and prepend_scheme disagree", json->file);
    return TF_STATUS_OK;
}

/* A character map in base64. */

static int digit_of(char c)
{
    if (c >= 'A' && c <= 'Z') return c - 'A';
    if (c >= 'a' && c <= 'z') return c - 'a' + 26;
    if (c >= '0' && c <= '9') return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

tf_status tfi_charsmap_read(tf_tokenizer *t, tfi_json json, tfi_charsmap *map)
{
    const json_t *value = json_object_get(json.object, "precompiled_charsmap");
    const char *text = json_string_value(value);
    size_t n = json_string_length(value), size = 0;
    tf_status status = TF_STATUS_OK;
    uint32_t bits = 0;

    if (!text) return tfi_fail(TF_STATUS_CORRUPT, "%s: \"precompiled_charsmap\" is not a string", json.file);
    while (n > 0 && text[n - 1] == '=') n--;
    uint8_t *data = tfi_alloc(t->memory, n + 1);
    if (!data) return TF_STATUS_NOMEM;
    for (size_t i = 0; i < n && status == TF_STATUS_OK; i++) {
        const int digit = digit_of(text[i]);
        if (digit < 0) status = tfi_fail(TF_STATUS_CORRUPT, "%s: \"precompiled_charsmap\" is not base64", json.file);
        bits = bits << 6 | (uint32_t)(digit & 63);
        if (i % 4 == 1) data[size++] = (uint8_t)(bits >> 4);
        if (i % 4 == 2) data[size++] = (uint8_t)(bits >> 2);
        if (i % 4 == 3) data[size++] = (uint8_t)bits;
    }
    if (status == TF_STATUS_OK) status = tfi_charsmap_open(map, &t->arena, data, size, json.file);
    tfi_free(t->memory, data, n + 1);
    return status;
}
