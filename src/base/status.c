#include "base/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { TFI_ERROR_BYTES = 1024 };

static _Thread_local char last_error[TFI_ERROR_BYTES];

tf_status tfi_fail(tf_status status, const char *format, ...)
{
    char text[TFI_ERROR_BYTES]; /* the arguments may point into last_error */
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    memcpy(last_error, text, sizeof text);
    return status;
}

tf_status tfi_fail_prefix(tf_status status, const char *format, ...)
{
    char text[TFI_ERROR_BYTES];
    va_list args;

    va_start(args, format);
    const int n = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (n >= 0 && (size_t)n < sizeof text) snprintf(text + n, sizeof text - (size_t)n, "%s", last_error);
    memcpy(last_error, text, sizeof text);
    return status;
}

const char *tf_last_error(void)
{
    return last_error;
}

const char *tf_status_string(tf_status status)
{
    switch (status) {
#define TFI_STATUS_CASE(name, value, text)                                                                               \
    case TF_STATUS_##name:                                                                                               \
        return "TF_STATUS_" #name ": " text;
        TF_STATUS_LIST(TFI_STATUS_CASE)
#undef TFI_STATUS_CASE
    }
    return "unknown status";
}

#define TFI_TEXT_(x) #x
#define TFI_TEXT(x) TFI_TEXT_(x)

const char *tf_version(void)
{
    return TFI_TEXT(TFINFER_VERSION_MAJOR) "." TFI_TEXT(TFINFER_VERSION_MINOR) "." TFI_TEXT(TFINFER_VERSION_PATCH);
}
