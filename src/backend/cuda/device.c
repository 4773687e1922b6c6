/* Opening a device, and what every call into it goes through. The context is made current by the driver's own stack: whatever
 * was current on the caller's thread, of whichever library, is so again afterwards. */
#include "backend/cuda/device.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "backend/cuda/cuda.h"
#include "backend/cuda/gemm.h"
#include "base/status.h"

enum { CAPABILITY_MIN = 75 };

/* ---- calls ---- */

tf_status tfi_cuda_enter(tfi_cuda *c)
{
    if (c->process != getpid())
        return tfi_fail(TF_STATUS_FORKED, "device \"%s\" belongs to the parent process; here the handle may only be closed",
                        c->name);
    if (c->dead) return tfi_fail(TF_STATUS_DEVICE, "device \"%s\" failed earlier; its handles may only be closed", c->name);
    if (c->driver.context_push(c->context) == 0) return TF_STATUS_OK;
    return tfi_fail(TF_STATUS_DEVICE, "device \"%s\": its context cannot be made current", c->name);
}

void tfi_cuda_leave(const tfi_cuda *c)
{
    void *mine;
    (void)c->driver.context_pop(&mine);
}

/* Faults that stay with the context: nothing works on it any more. */
static int is_sticky(cudaError_t e)
{
    return e == cudaErrorIllegalAddress || e == cudaErrorLaunchFailure || e == cudaErrorIllegalInstruction ||
           e == cudaErrorMisalignedAddress || e == cudaErrorInvalidAddressSpace || e == cudaErrorInvalidPc ||
           e == cudaErrorHardwareStackError || e == cudaErrorAssert || e == cudaErrorECCUncorrectable ||
           e == cudaErrorLaunchTimeout || e == cudaErrorContextIsDestroyed || e == cudaErrorUnknown;
}

tf_status tfi_cuda_check(tfi_cuda *c, cudaError_t error, const char *call)
{
    if (error == cudaSuccess) return TF_STATUS_OK;
    (void)cudaGetLastError();
    if (is_sticky(error)) c->dead = 1;
    return tfi_fail(error == cudaErrorMemoryAllocation ? TF_STATUS_NOMEM : TF_STATUS_DEVICE, "device \"%s\": %s in %.80s",
                    c->name, cudaGetErrorString(error), call);
}

/* ---- memory ---- */

static void *alloc(tfi_cuda *c, tfi_memory *memory, int64_t bytes, cudaError_t (*take)(void **, size_t), const char *what)
{
    void *p = NULL;
    cudaError_t error;

    if (bytes <= 0) bytes = 1;
    if (tfi_memory_charge(memory, bytes) < 0) return NULL;
    if ((error = take(&p, (size_t)bytes)) == cudaSuccess) return p;
    (void)tfi_cuda_check(c, error, what);
    (void)tfi_fail_prefix(TF_STATUS_NOMEM, "%lld bytes: ", (long long)bytes);
    tfi_memory_refund(memory, bytes);
    return NULL;
}

static cudaError_t take_device(void **out, size_t bytes)
{
    return cudaMalloc(out, bytes);
}

static cudaError_t take_pinned(void **out, size_t bytes)
{
    return cudaHostAlloc(out, bytes, cudaHostAllocDefault);
}

void *tfi_cuda_alloc(tfi_cuda *c, tfi_memory *memory, int64_t bytes)
{
    return alloc(c, memory, bytes, take_device, "cudaMalloc");
}

void *tfi_cuda_alloc_pinned(tfi_cuda *c, tfi_memory *memory, int64_t bytes)
{
    return alloc(c, memory, bytes, take_pinned, "cudaHostAlloc");
}

/* In a child process and after a fault there is nothing to give back to. */
void tfi_cuda_free(tfi_cuda *c, tfi_memory *memory, void *p, int64_t bytes)
{
    if (!p) return;
    if (c->process == getpid() && !c->dead && cudaFree(p) != cudaSuccess) (void)cudaGetLastError();
    tfi_memory_refund(memory, bytes > 0 ? bytes : 1);
}

void tfi_cuda_free_pinned(tfi_cuda *c, tfi_memory *memory, void *p, int64_t bytes)
{
    if (!p) return;
    if (c->process == getpid() && !c->dead && cudaFreeHost(p) != cudaSuccess) (void)cudaGetLastError();
    tfi_memory_refund(memory, bytes > 0 ? bytes : 1);
}

static void *weights_alloc(tfi_backend *b, tfi_memory *memory, int64_t bytes)
{
    tfi_cuda *c = (tfi_cuda *)b;
    void *p;

    if (tfi_cuda_enter(c) < 0) return NULL;
    p = tfi_cuda_alloc(c, memory, bytes);
    tfi_cuda_leave(c);
    return p;
}

static void weights_free(tfi_backend *b, tfi_memory *memory, void *p, int64_t bytes)
{
    tfi_cuda *c = (tfi_cuda *)b;
    const int entered = tfi_cuda_enter(c) == TF_STATUS_OK;

    tfi_cuda_free(c, memory, p, bytes);
    if (entered) tfi_cuda_leave(c);
}

/* ---- what it can do ---- */

static tf_status supports(tfi_backend *b, tfi_dtype dtype)
{
    const tfi_cuda *c = (const tfi_cuda *)b;

    if (dtype == TFI_BF16 && c->capability < 80)
        return tfi_fail(TF_STATUS_UNSUPPORTED, "bf16 on %s: this device has compute capability %d.%d, bf16 needs 8.0", c->name,
                        c->capability / 10, c->capability % 10);
    if (dtype <= TFI_F16) return TF_STATUS_OK;
    return tfi_fail(TF_STATUS_UNSUPPORTED, "%s on %s: only fp32, bf16 and fp16 are supported", tfi_dtype_name(dtype), c->name);
}

static int64_t load_bytes(tfi_backend *b)
{
    (void)b;
    return 2 * (int64_t)TFI_CUDA_STAGING;
}

/* ---- open, close ---- */

static void cuda_close(tfi_backend *b)
{
    tfi_cuda *c = (tfi_cuda *)b;
    const int entered = c->context && tfi_cuda_enter(c) == TF_STATUS_OK;

    (void)tfi_cuda_load_end(b);
    tfi_gemm_close(c->gemm);
    if (entered) tfi_cuda_leave(c);
    tfi_pool_close(c->pool);
    tfi_free(c->memory, c, sizeof *c);
}

/* The runtime of this build works with drivers of its own major version or later. */
static tf_status check_driver(const tfi_cuda *c)
{
    int version = 0;

    if (c->driver.version(&version) != 0 || version / 1000 < CUDART_VERSION / 1000)
        return tfi_fail(TF_STATUS_UNSUPPORTED, "the NVIDIA driver is too old: it serves CUDA %d.%d, this build needs %d",
                        version / 1000, version % 1000 / 10, CUDART_VERSION / 1000);
    return TF_STATUS_OK;
}

static tf_status open_context(tfi_cuda *c, int ordinal)
{
    int count = 0, code;
    tf_status st;

    if ((st = tfi_cuda_driver_open(&c->driver)) < 0 || (st = check_driver(c)) < 0) return st;
    code = c->driver.init(0);
    if (code == 0) code = c->driver.device_count(&count);
    if (code != 0 || count == 0) return tfi_fail(TF_STATUS_UNSUPPORTED, "no CUDA device (driver error %d)", code);
    if (ordinal >= count) return tfi_fail(TF_STATUS_UNSUPPORTED, "no such device; there are %d, counted from 0", count);
    if ((code = c->driver.device_get(&c->device, ordinal)) != 0 || (code = c->driver.context_retain(&c->context, c->device)) != 0)
        return tfi_fail(TF_STATUS_DEVICE, "the device cannot be opened (driver error %d)", code);
    return TF_STATUS_OK;
}

/* With the context current. */
static tf_status read_device(tfi_cuda *c, int ordinal)
{
    int major = 0, minor = 0;
    tf_status st;

    if ((st = TFI_CUDA(c, cudaFree(NULL))) < 0 ||
        (st = TFI_CUDA(c, cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, ordinal))) < 0 ||
        (st = TFI_CUDA(c, cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, ordinal))) < 0 ||
        (st = TFI_CUDA(c, cudaDeviceGetAttribute(&c->multiprocessors, cudaDevAttrMultiProcessorCount, ordinal))) < 0)
        return st;
    c->capability = 10 * major + minor;
    if (c->capability >= CAPABILITY_MIN) return TF_STATUS_OK;
    return tfi_fail(TF_STATUS_UNSUPPORTED, "compute capability %d.%d; 7.5 is the least", major, minor);
}

static const tfi_backend functions = {.supports = supports,
                                      .alloc = weights_alloc,
                                      .free = weights_free,
                                      .weight_form = tfi_cuda_weight_form,
                                      .load_bytes = load_bytes,
                                      .weight_copy = tfi_cuda_weight_copy,
                                      .weight_prepare = tfi_cuda_weight_prepare,
                                      .load_end = tfi_cuda_load_end,
                                      .program_open = tfi_cuda_program_open,
                                      .program_bytes = tfi_cuda_program_bytes,
                                      .program_close = tfi_cuda_program_close,
                                      .runs_ahead = 1,
                                      .run = tfi_cuda_run,
                                      .wait = tfi_cuda_wait,
                                      .store_open = tfi_cuda_store_open,
                                      .store_bytes = tfi_cuda_store_bytes,
                                      .store_close = tfi_cuda_store_close,
                                      .slot_set = tfi_cuda_slot_set,
                                      .close = cuda_close};

tf_status tfi_cuda_open(const tfi_cuda_options *o, tfi_backend **out)
{
    tfi_cuda *c;
    tf_status st;

    *out = NULL;
    if (!(c = tfi_zalloc(o->memory, sizeof *c))) return TF_STATUS_NOMEM;
    c->base = functions;
    c->base.name = c->name;
    c->base.threads = o->threads;
    c->memory = o->memory;
    c->process = getpid();
    if (o->device == 0) snprintf(c->name, sizeof c->name, "cuda");
    else snprintf(c->name, sizeof c->name, "cuda:%d", o->device);
    if ((st = open_context(c, o->device)) < 0 || (st = tfi_pool_open(o->memory, o->threads, NULL, &c->pool)) < 0 ||
        (st = tfi_cuda_enter(c)) < 0)
        goto fail;
    if ((st = read_device(c, o->device)) == TF_STATUS_OK && (st = tfi_cuda_load_code(c)) == TF_STATUS_OK &&
        (st = tfi_cublas_lt_open(o->library_folder, &c->lt)) == TF_STATUS_OK)
        st = tfi_gemm_open(c, o, &c->gemm);
    tfi_cuda_leave(c);
    if (st < 0) goto fail;
    c->base.has_bf16 = c->capability >= 80;
    *out = &c->base;
    return TF_STATUS_OK;
fail:
    st = tfi_fail_prefix(st, "device \"%s\": ", c->name);
    cuda_close(&c->base);
    return st;
}

/* The device's own context, as a host that has tensors there uses it, is held for the copy alone. */
tf_status tfi_cuda_read(int ordinal, void *to, const void *from, size_t bytes)
{
    tfi_cuda c = {.process = getpid()};
    void *mine;
    tf_status st;

    if ((st = open_context(&c, ordinal)) < 0) return tfi_fail_prefix(st, "memory of device \"cuda:%d\": ", ordinal);
    int code = c.driver.context_push(c.context);
    if (code == 0) {
        code = c.driver.copy_out(to, (uintptr_t)from, bytes);
        (void)c.driver.context_pop(&mine);
    }
    (void)c.driver.context_release(c.device);
    if (code == 0) return TF_STATUS_OK;
    return tfi_fail(TF_STATUS_DEVICE, "memory of device \"cuda:%d\": %zu bytes at %p cannot be read (driver error %d)", ordinal,
                    bytes, from, code);
}
