#include "base/options.h"

#include <stdint.h>
#include <string.h>

#include "base/status.h"

enum { STRUCT_MAX = 1 << 16 };

/* Zero, TF_UNSET (as 32 or as sign-extended 64 bits) and the unset NaN, word by word. */
static int tail_is_unset(const void *src, size_t from, size_t to)
{
    uint32_t previous = 0;

    if ((to - from) % 4 != 0) return 0;
    for (size_t at = from; at < to; at += 4) {
        uint32_t word;
        memcpy(&word, (const char *)src + at, 4);
        const int sign_extension = word == 0xffffffffu && previous == 0x80000000u && at % 8 == 4;
        if (word != 0 && word != 0x80000000u && word != 0x7fc00000u && !sign_extension) return 0;
        previous = word;
    }
    return 1;
}

tf_status tfi_options_read(void *dst, size_t dst_size, const void *src, const char *what)
{
    uint64_t size;

    if (!src) return TF_STATUS_OK;
    memcpy(&size, src, sizeof size);
    if (size < sizeof size || size > STRUCT_MAX)
        return tfi_fail(TF_STATUS_INVALID, "%s: struct_size is %llu; call its _init first", what, (unsigned long long)size);
    if (size > dst_size && !tail_is_unset(src, dst_size, (size_t)size))
        return tfi_fail(TF_STATUS_UNSUPPORTED, "%s: a field is set that version %s does not know", what, tf_version());
    memcpy(dst, src, size < dst_size ? (size_t)size : dst_size);
    size = dst_size; /* what was read is a whole struct of this version, and can be read again as one */
    memcpy(dst, &size, sizeof size);
    return TF_STATUS_OK;
}

tf_status tfi_result_write(void *dst, const void *src, size_t src_size, const char *what)
{
    uint64_t size;

    if (!dst) return tfi_fail(TF_STATUS_INVALID, "%s must not be NULL", what);
    memcpy(&size, dst, sizeof size);
    if (size < sizeof size || size > STRUCT_MAX)
        return tfi_fail(TF_STATUS_INVALID, "%s: struct_size is %llu; call its _init first", what, (unsigned long long)size);
    memcpy((char *)dst + sizeof size, (const char *)src + sizeof size,
           (size < src_size ? (size_t)size : src_size) - sizeof size);
    return TF_STATUS_OK;
}

tf_status tfi_option_int(int32_t *value, int32_t unset, int32_t min, int32_t max, const char *what)
{
    if (*value == TF_UNSET) *value = unset;
    if (*value >= min && *value <= max) return TF_STATUS_OK;
    return tfi_fail(TF_STATUS_INVALID, "%s is %d, outside [%d, %d]", what, (int)*value, (int)min, (int)max);
}
