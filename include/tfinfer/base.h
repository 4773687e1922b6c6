/**
 * @file base.h
 * What every public header of libtfinfer shares: status codes, the calling thread's last error, the version, "unset" values
 * and the hooks through which a host program gives memory, receives log lines and watches progress.
 *
 * source.h and tokenizer.h need only this header; tfinfer.h adds models. All compile as C99 and as C++.
 */
#ifndef TFINFER_BASE_H
#define TFINFER_BASE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The version's only home: the build reads it from here, and packages and manual pages have it from the build. */
#define TFINFER_VERSION_MAJOR 0 /**< of these headers; the library's number, which changes with what breaks programs */
#define TFINFER_VERSION_MINOR 1 /**< changes with what is new */
#define TFINFER_VERSION_PATCH 0 /**< changes with what was repaired */

/** Marks what the library exports. */
#if defined(__GNUC__)
#define TF_API __attribute__((visibility("default")))
#else
#define TF_API
#endif

/**
 * Every status a call can return: name, value (fixed for ever, 0 or negative), one line of text.
 * The enum, tf_status_string() and the language bindings are made from this list.
 */
#define TF_STATUS_LIST(X)                                                                                                \
    X(OK, 0, "success")                                                                                                  \
    X(INVALID, -1, "an argument is outside its documented range")                                                        \
    X(NOMEM, -2, "out of memory, or over a byte budget")                                                                 \
    X(IO, -3, "a file could not be opened or read")                                                                      \
    X(CORRUPT, -4, "a file is malformed")                                                                                \
    X(UNSUPPORTED, -5, "valid, but not supported by this build, checkpoint or device")                                   \
    X(NOT_FOUND, -6, "a file, tensor, key or name does not exist")                                                       \
    X(TOO_SMALL, -7, "the caller's buffer is too small")                                                                 \
    X(BUSY, -8, "the resource is in use; try again later")                                                               \
    X(CANCELLED, -9, "a callback of the caller ended the call")                                                          \
    X(DEVICE, -10, "the device failed")                                                                                  \
    X(FORKED, -11, "the handle belongs to the parent process")                                                           \
    X(NUMERIC, -12, "a result is NaN or infinite")                                                                       \
    X(INTERNAL, -13, "a defect of the library")                                                                          \
    X(END, -14, "nothing is left to do or to hand out")                                                                  \
    X(TIMEOUT, -15, "the time given ran out; nothing is lost")

/** How a call went: the names of TF_STATUS_LIST with TF_STATUS_ before them. */
typedef enum tf_status {
#define TF_STATUS_ENUM(name, value, text) TF_STATUS_##name = value,
    TF_STATUS_LIST(TF_STATUS_ENUM)
#undef TF_STATUS_ENUM
} tf_status;

/** "Not set" in an integer field of an options struct (32 or 64 bits wide). Floats use NaN, pointers NULL. Zero is a value. */
#define TF_UNSET INT32_MIN

/**
 * The name of a status, such as "TF_STATUS_NOMEM", followed by its line of text.
 * @return a static string; for a number that is no status, "unknown status". Any thread.
 */
TF_API const char *tf_status_string(tf_status status);

/**
 * What went wrong in the calling thread's last failed call: a sentence that names the argument, file, key or value.
 * @return UTF-8, never NULL, "" if no call of this thread has failed. Owned by the library, valid until this thread's next
 *         failing call. Successful calls leave it as it is.
 */
TF_API const char *tf_last_error(void);

/** The library's version at run time, such as "0.1.0". Static. Any thread. */
TF_API const char *tf_version(void);

/**
 * Where the library's memory comes from. Copied at the call that takes it; `user` must outlive the handle.
 * Third-party code inside the library (the matrix library, the JSON parser) uses malloc; tf_plan lists it on its own line.
 */
typedef struct tf_allocator {
    /** @return `size` bytes (> 0) aligned to `align` (a power of two up to 2 MiB), or NULL. Called from any thread. */
    void *(*alloc)(void *user, size_t size, size_t align);
    /** Takes back what alloc gave, with the same size. `ptr` is never NULL. Called from any thread. */
    void (*free)(void *user, void *ptr, size_t size);
    void *user;
} tf_allocator;

/** How much a line of the log matters. */
typedef enum tf_log_level { TF_LOG_DEBUG = 0, TF_LOG_INFO = 1, TF_LOG_WARNING = 2 } tf_log_level;

/**
 * Receives one line of text (no newline). The library itself never prints. Called on the thread that is inside the call,
 * with no lock held; it must not call back into the handle that logs.
 */
typedef void (*tf_log_fn)(void *user, tf_log_level level, const char *text);

/**
 * Watches a long call. `done` of `total` are bytes while a model loads and tokens while it runs; `total` may grow.
 * Called on the calling thread with no lock held, at least once a step and once per 64 MB loaded.
 * @return 0 to go on; anything else ends the call with TF_STATUS_CANCELLED, the handle stays usable.
 */
typedef int32_t (*tf_progress_fn)(void *user, int64_t done, int64_t total);

/** A piece of UTF-8 text, not owned. `size` in bytes; a negative size means `data` ends with a NUL. data may be NULL if size is 0. */
typedef struct tf_text {
    const char *data; /**< UTF-8 */
    int64_t size;     /**< bytes */
} tf_text;

/** A tf_text over a NUL-terminated string. */
static inline tf_text tf_text_of(const char *s)
{
    tf_text t;
    t.data = s;
    t.size = -1;
    return t;
}

/** The NaN that means "unset" in a float field. */
static inline float tf_unset_float(void)
{
    union {
        uint32_t bits;
        float value;
    } u;
    u.bits = 0x7fc00000u;
    return u.value;
}

#ifdef __cplusplus
}
#endif
#endif
