/* Status codes and the calling thread's last error. tfi_fail() is called where most is known; everybody else forwards the code. */
#ifndef TFI_BASE_STATUS_H
#define TFI_BASE_STATUS_H

#include <tfinfer/base.h>

#if defined(__GNUC__)
#define TFI_PRINTF(text_at, args_at) __attribute__((format(printf, text_at, args_at)))
#else
#define TFI_PRINTF(text_at, args_at)
#endif

#ifdef __cplusplus
extern "C" { /* launchers of kernels report failures too */
#endif

/* Record the detail text for tf_last_error() (cut at 1 KB) and return `status`. */
tf_status tfi_fail(tf_status status, const char *format, ...) TFI_PRINTF(2, 3);

/* Put words in front of the text that is there ("model.safetensors: " ...) and return `status`. */
tf_status tfi_fail_prefix(tf_status status, const char *format, ...) TFI_PRINTF(2, 3);

#ifdef __cplusplus
}
#endif
#endif
