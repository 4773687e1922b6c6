/* In place of the CUDA backend in a build without a toolkit. */
#include "backend/cuda/cuda.h"
#include "base/status.h"

tf_status tfi_cuda_open(const tfi_cuda_options *options, tfi_backend **out)
{
    *out = NULL;
    return tfi_fail(TF_STATUS_UNSUPPORTED, "device \"cuda:%d\": this build has no CUDA backend", options->device);
}

tf_status tfi_cuda_read(int ordinal, void *to, const void *from, size_t bytes)
{
    (void)to;
    (void)from;
    (void)bytes;
    return tfi_fail(TF_STATUS_UNSUPPORTED, "memory of device \"cuda:%d\": this build has no CUDA backend", ordinal);
}
