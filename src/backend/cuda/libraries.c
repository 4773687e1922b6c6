#define _GNU_SOURCE
#include "backend/cuda/libraries.h"

#include <dlfcn.h>
#include <stdio.h>

#include "base/status.h"

typedef struct entry {
    const char *name;
    void *slot; /* a function pointer's address */
} entry;

static tf_status find_all(void *library, const char *file, const entry *entries, int count)
{
    for (int i = 0; i < count; i++) {
        void *function = dlsym(library, entries[i].name);
        if (!function)
            return tfi_fail(TF_STATUS_UNSUPPORTED, "%s has no function %s: its version is not one that works here", file,
                            entries[i].name);
        *(void **)entries[i].slot = function;
    }
    return TF_STATUS_OK;
}

/* The driver is one a machine; its handle is the loader's to keep. */
tf_status tfi_cuda_driver_open(tfi_cuda_driver *d)
{
    static const char file[] = "libcuda.so.1";
    const entry entries[] = {{"cuInit", &d->init},
                             {"cuDriverGetVersion", &d->version},
                             {"cuDeviceGetCount", &d->device_count},
                             {"cuDeviceGet", &d->device_get},
                             {"cuDeviceGetName", &d->device_name},
                             {"cuDevicePrimaryCtxRetain", &d->context_retain},
                             {"cuCtxPushCurrent_v2", &d->context_push},
                             {"cuCtxPopCurrent_v2", &d->context_pop},
                             {"cuDevicePrimaryCtxRelease_v2", &d->context_release},
                             {"cuMemcpyDtoH_v2", &d->copy_out}};
    void *library = dlopen(file, RTLD_NOW | RTLD_LOCAL);

    if (!library) return tfi_fail(TF_STATUS_UNSUPPORTED, "no NVIDIA driver: %s", dlerror());
    const entry late[] = {{"cuTensorMapEncodeTiled", &d->tensor_map_encode},
                          {"cuFuncGetModule", &d->function_module},
                          {"cuModuleGetFunctionCount", &d->function_count},
                          {"cuModuleEnumerateFunctions", &d->functions},
                          {"cuFuncLoad", &d->function_load}};
    for (size_t i = 0; i < sizeof late / sizeof *late; i++) *(void **)late[i].slot = dlsym(library, late[i].name);
    return find_all(library, file, entries, (int)(sizeof entries / sizeof *entries));
}

tf_status tfi_cublas_lt_open(const char *folder, tfi_cublas_lt *lt)
{
    static const char *const files[] = {"libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so"};
    const entry entries[] = {{"cublasLtCreate", &lt->create},
                             {"cublasLtDestroy", &lt->destroy},
                             {"cublasLtGetVersion", &lt->version},
                             {"cublasLtMatmul", &lt->matmul},
                             {"cublasLtMatmulDescCreate", &lt->desc_create},
                             {"cublasLtMatmulDescDestroy", &lt->desc_destroy},
                             {"cublasLtMatmulDescSetAttribute", &lt->desc_set},
                             {"cublasLtMatrixLayoutCreate", &lt->layout_create},
                             {"cublasLtMatrixLayoutDestroy", &lt->layout_destroy},
                             {"cublasLtMatmulPreferenceCreate", &lt->preference_create},
                             {"cublasLtMatmulPreferenceDestroy", &lt->preference_destroy},
                             {"cublasLtMatmulPreferenceSetAttribute", &lt->preference_set},
                             {"cublasLtMatmulAlgoGetHeuristic", &lt->heuristic},
                             {"cublasLtMatmulAlgoConfigGetAttribute", &lt->algo_get}};
    char path[4096], why[512] = "";

    for (int in_folder = folder != NULL; in_folder >= 0 && !lt->handle; in_folder--) {
        for (int i = 0; i < 3 && !lt->handle; i++) {
            snprintf(path, sizeof path, "%s%s%s", in_folder ? folder : "", in_folder ? "/" : "", files[i]);
            lt->handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
            if (!lt->handle && !*why) snprintf(why, sizeof why, "%s", dlerror());
        }
    }
    if (!lt->handle)
        return tfi_fail(TF_STATUS_UNSUPPORTED,
                        "libcublasLt is missing (%s); library_folder of the model's options may name where it is", why);
    return find_all(lt->handle, path, entries, (int)(sizeof entries / sizeof *entries));
}
