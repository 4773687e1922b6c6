#include <string.h>

#include "api/handles.h"
#include "base/options.h"
#include "base/status.h"

static const size_t record_sizes[] = {sizeof(tf_entity), sizeof(tf_span), sizeof(tf_fill)};

tf_status tfi_result_open(const tf_model *m, tfi_record_kind kind, int64_t inputs, tf_result **out)
{
    tf_model *model = (tf_model *)m; /* only its reference count changes */
    tf_result *r = tfi_zalloc(&model->memory, sizeof *r);

    *out = NULL;
    if (!r) return TF_STATUS_NOMEM;
    r->memory = &model->memory;
    if (!(r->first = tfi_zalloc(r->memory, (size_t)(inputs + 1) * sizeof *r->first))) {
        tfi_free(r->memory, r, sizeof *r);
        return TF_STATUS_NOMEM;
    }
    r->model = model;
    atomic_fetch_add(&model->references, 1);
    r->kind = kind;
    r->record_bytes = record_sizes[kind];
    r->inputs = inputs;
    *out = r;
    return TF_STATUS_OK;
}

tf_status tfi_result_add(tf_result *r, const void *record)
{
    if (r->count == r->room) {
        const int64_t room = r->room ? r->room * 2 : 32;
        void *p = tfi_realloc(r->memory, r->records, (size_t)r->room * r->record_bytes, (size_t)room * r->record_bytes);
        if (!p) return TF_STATUS_NOMEM;
        r->records = p;
        r->room = room;
    }
    memcpy(r->records + (size_t)r->count++ * r->record_bytes, record, r->record_bytes);
    return TF_STATUS_OK;
}

void tfi_result_end_input(tf_result *r, int64_t input)
{
    r->first[input + 1] = r->count;
}

void tf_result_close(tf_result *r)
{
    if (!r) return;
    tf_model *m = r->model;
    tfi_free(r->memory, r->records, (size_t)r->room * r->record_bytes);
    tfi_free(r->memory, r->first, (size_t)(r->inputs + 1) * sizeof *r->first);
    tfi_free(r->memory, r, sizeof *r);
    tfi_model_release(m);
}

int64_t tf_result_count(const tf_result *r, int64_t input)
{
    return r && input >= 0 && input < r->inputs ? r->first[input + 1] - r->first[input] : 0;
}

static tf_status record(const tf_result *r, tfi_record_kind kind, int64_t input, int64_t index, void *out, const char *what)
{
    if (!r) return tfi_fail(TF_STATUS_INVALID, "the result must not be NULL");
    if (r->kind != kind) return tfi_fail(TF_STATUS_INVALID, "the result holds no %s records", what);
    if (index < 0 || index >= tf_result_count(r, input))
        return tfi_fail(TF_STATUS_INVALID, "there is no record %lld of input %lld", (long long)index, (long long)input);
    return tfi_result_write(out, r->records + (size_t)(r->first[input] + index) * r->record_bytes, r->record_bytes, what);
}

tf_status tf_result_entity(const tf_result *r, int64_t input, int64_t index, tf_entity *out)
{
    return record(r, TFI_RECORD_ENTITY, input, index, out, "tf_entity");
}

tf_status tf_result_span(const tf_result *r, int64_t input, int64_t index, tf_span *out)
{
    return record(r, TFI_RECORD_SPAN, input, index, out, "tf_span");
}

tf_status tf_result_fill(const tf_result *r, int64_t input, int64_t index, tf_fill *out)
{
    return record(r, TFI_RECORD_FILL, input, index, out, "tf_fill");
}
