/* Kernels' code on the device. The driver loads it when a kernel is first used, and where the device has no room for it then, it
 * reports that once and takes the code for loaded from there on (580.159): the kernel fails for the life of the process. So ours
 * is loaded when a device is opened, and the matrix library's only while there is room. */
#include "backend/cuda/device.h"
#include "base/status.h"
#include "kernels/launch.h"

/* More than all of our kernels take (6 MB), and than one product's candidates do. */
enum { ROOM = 32 << 20 };

tf_status tfi_cuda_code_room(tfi_cuda *c)
{
    size_t unused = 0, all;
    tf_status st = TFI_CUDA(c, cudaMemGetInfo(&unused, &all));

    if (st < 0 || unused >= ROOM) return st;
    return tfi_fail(TF_STATUS_NOMEM, "device \"%s\": %lld bytes of its memory are free, the code of kernels may need %lld",
                    c->name, (long long)unused, (long long)ROOM);
}

/* All kernels of one file. */
static tf_status load_file(tfi_cuda *c, const tfi_kernel_file *file)
{
    const tfi_cuda_driver *d = &c->driver;
    cudaFunction_t one;
    void *module;
    unsigned count = 0;
    tf_status st = TFI_CUDA(c, cudaGetFuncBySymbol(&one, file->kernel));

    if (st < 0) return st;
    int code = d->function_module(&module, one);
    if (code == 0) code = d->function_count(&count, module);
    void **functions = code == 0 ? tfi_zalloc(c->memory, count * sizeof *functions) : NULL;
    if (code == 0 && !functions) return TF_STATUS_NOMEM;
    if (code == 0) code = d->functions(functions, count, module);
    for (unsigned i = 0; i < count && code == 0; i++) code = d->function_load(functions[i]);
    tfi_free(c->memory, functions, count * sizeof *functions);
    return code == 0 ? TF_STATUS_OK : tfi_fail(TF_STATUS_DEVICE, "its kernels cannot be loaded (driver error %d)", code);
}

tf_status tfi_cuda_load_code(tfi_cuda *c)
{
    tf_status st = tfi_cuda_code_room(c);

    if (!c->driver.function_load) return st;
    for (const tfi_kernel_file *f = tfi_kernel_files; f && st == TF_STATUS_OK; f = f->next) st = load_file(c, f);
    return st;
}
