/* host_tensors.c: tensors that the host hands over one by one, in memory of its own. It is taken at its word, but no address may
 * wrap round: how much memory lies behind a pointer only the host knows. */
#include <stdio.h>

#include "base/status.h"
#include "io/weights.h"

/* A callback that never says END is one that does not look at the index. */
enum { TENSORS_MAX = 1 << 20 };

static tf_status read_dtype(int32_t given, tfi_dtype *out)
{
    static const struct {
        tf_dtype given;
        tfi_dtype stored;
    } known[] = {{TF_DTYPE_FP32, TFI_F32}, {TF_DTYPE_BF16, TFI_BF16}, {TF_DTYPE_FP16, TFI_F16}, {TF_DTYPE_FP64, TFI_F64}};

    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if ((int32_t)known[i].given != given) continue;
        *out = known[i].stored;
        return TF_STATUS_OK;
    }
    return tfi_fail(TF_STATUS_INVALID, "dtype is %d, none of FP32, BF16, FP16 and FP64", (int)given);
}

/* Row-major where the host gave no strides. What overflows here is refused with the shape. */
static void read_strides(const tf_tensor *given, tfi_tensor *t)
{
    int64_t row_major = 1;
    int unset = 0;

    for (int i = 0; i < t->rank; i++) unset += given->stride[i] == TF_UNSET;
    for (int i = t->rank - 1; i >= 0; i--) {
        t->shape[i] = given->shape[i];
        t->stride[i] = unset == t->rank ? row_major : given->stride[i];
        if (t->shape[i] < 0 || __builtin_mul_overflow(row_major, t->shape[i], &row_major)) row_major = 0;
    }
}

static tf_status add(tfi_source *s, const tf_tensor *given, const char *name)
{
    tfi_tensor t = {.data = given->data, .lasting = s->files.source.borrow == 1};
    tf_status status;

    if ((status = read_dtype(given->dtype, &t.dtype)) < 0) return status;
    if (given->rank < 0 || given->rank > TFI_RANK_MAX)
        return tfi_fail(TF_STATUS_INVALID, "rank is %d, outside [0, %d]", (int)given->rank, TFI_RANK_MAX);
    if (given->device < 0 && given->device != TF_UNSET)
        return tfi_fail(TF_STATUS_INVALID, "device is %d; it is a CUDA device's number, or unset", (int)given->device);
    t.rank = given->rank;
    t.device = given->device == TF_UNSET ? 0 : 1 + (int64_t)given->device;
    read_strides(given, &t);
    if (!given->data) {
        for (int i = 0; i < t.rank && t.data == NULL; i++)
            if (t.shape[i] == 0) t.data = (const uint8_t *)"";
        if (!t.data) return tfi_fail(TF_STATUS_INVALID, "data is NULL");
    }
    t.span = UINTPTR_MAX - (uintptr_t)t.data;
    if (t.span > INT64_MAX) t.span = INT64_MAX;
    return tfi_source_add(s, &t, 0, name, strlen(name));
}

/* The name inside the source's folder, or NULL: another folder's. */
static const char *inside(const tfi_source *s, const char *name)
{
    const size_t n = strlen(s->files.folder);
    return strncmp(name, s->files.folder, n) == 0 ? name + n : NULL;
}

static tf_status read_tensor(tfi_source *s, int64_t index, int *more)
{
    const tf_source *from = &s->files.source;
    tf_tensor given = {
        .struct_size = sizeof given, .dtype = TF_UNSET, .rank = TF_UNSET, .device = TF_UNSET, .reserved = TF_UNSET};
    char what[64];

    for (int i = 0; i < TF_RANK_MAX; i++) given.shape[i] = given.stride[i] = TF_UNSET;
    snprintf(what, sizeof what, "tensor number %lld", (long long)index);
    tf_status status = from->tensor(from->user, index, &given);
    *more = status != TF_STATUS_END;
    if (!*more) return TF_STATUS_OK;
    if (status != TF_STATUS_OK) return tfi_source_failed(s->files.label, what, status, given.error);
    if (!given.name || !*given.name) return tfi_fail(TF_STATUS_INVALID, "%s: %s has no name", s->files.label, what);
    const char *name = inside(s, given.name);
    if (!name) return TF_STATUS_OK;
    status = add(s, &given, name);
    if (status == TF_STATUS_OK || status == TF_STATUS_NOMEM) return status;
    return tfi_fail_prefix(TF_STATUS_INVALID, "%s: %s, \"%s\": ", s->files.label, what, tfi_show_name(name).text);
}

tf_status tfi_host_tensors_read(tfi_source *s)
{
    tf_status status;
    int more = 1;

    for (int64_t i = 0; s->files.source.tensor && more; i++) {
        if (i == TENSORS_MAX)
            return tfi_fail(TF_STATUS_INVALID, "%s: more than %d tensors; the callback says END behind the last",
                            s->files.label, TENSORS_MAX);
        if ((status = read_tensor(s, i, &more)) < 0) return status;
    }
    return TF_STATUS_OK;
}
