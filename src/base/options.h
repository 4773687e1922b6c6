/* Reading option structs of older and newer callers, and writing result structs of either. */
#ifndef TFI_BASE_OPTIONS_H
#define TFI_BASE_OPTIONS_H

#include <stddef.h>

#include <tfinfer/base.h>

/* Copy the caller's struct `src` (its first field is struct_size) over `dst`, which holds "unset" in every field. A shorter
 * src leaves its missing tail unset; a longer one is refused (TF_STATUS_UNSUPPORTED) if its tail holds anything but zero,
 * TF_UNSET or the unset NaN. src NULL changes nothing. `what` names the struct in the error text. */
tf_status tfi_options_read(void *dst, size_t dst_size, const void *src, const char *what);

/* Write `src` to the caller's result struct, at most as many bytes as its struct_size says; struct_size itself stays. */
tf_status tfi_result_write(void *dst, const void *src, size_t src_size, const char *what);

/* Replace TF_UNSET by `unset`, then check the range; INVALID naming the option otherwise. A flag's range is [0, 1]. */
tf_status tfi_option_int(int32_t *value, int32_t unset, int32_t min, int32_t max, const char *what);

#endif
