/* How kernels follow one another. From 9.0 on a kernel is put on the device while the one before it still runs (programmatic
 * dependent launch): its blocks come as soon as there is room for them, read what does not change during a run (weights, live
 * counts, inputs), and wait for the results of the kernel before. So every kernel calls begin(), or follow() and later
 * wait_for_results(), before it reads or writes anything that a kernel reads or writes. */
#ifndef TFI_KERNELS_START_CUH
#define TFI_KERNELS_START_CUH

#include "base/status.h"
#include "launch.h"

/* The next kernel may come. */
__device__ inline void follow()
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;");
#endif
}

/* All that came before is over, and what it wrote can be read. Every block waits before it ends: so the next kernel, which waits
 * for this one, has waited for all of them. */
__device__ inline void wait_for_results()
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

__device__ inline void begin()
{
    follow();
    wait_for_results();
}

/* ---- host ---- */

/* Each file that includes this puts itself in the list by which a device's open finds all kernels (src/backend/cuda/code.c). */
namespace {

__global__ void of_this_file()
{
}

struct kernel_file : tfi_kernel_file {
    kernel_file()
    {
        kernel = (const void *)of_this_file;
        next = tfi_kernel_files;
        tfi_kernel_files = this;
    }
} this_file;

} // namespace

inline tf_status started(const char *op, cudaError_t error)
{
    (void)cudaGetLastError(); /* the thread's state is clean again */
    if (error == cudaSuccess) return TF_STATUS_OK;
    return tfi_fail(error == cudaErrorMemoryAllocation ? TF_STATUS_NOMEM : TF_STATUS_DEVICE, "%s: %s", op,
                    cudaGetErrorString(error));
}

/* In clusters of `cluster` blocks along x (1: none), which takes 9.0. */
template <typename... Parameters, typename... Arguments>
tf_status start_clusters(const tfi_cuda_launch *l, const char *op, unsigned cluster, void (*kernel)(Parameters...), dim3 grid,
                         dim3 block, size_t shared, Arguments... arguments)
{
    cudaLaunchConfig_t config = {};
    cudaLaunchAttribute attributes[2] = {};

    config.gridDim = grid;
    config.blockDim = block;
    config.dynamicSmemBytes = shared;
    config.stream = l->stream;
    config.attrs = attributes;
    if (l->capability >= 90 && !l->waits) {
        attributes[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
        attributes[0].val.programmaticStreamSerializationAllowed = 1;
        config.numAttrs = 1;
    }
    if (cluster > 1) {
        cudaLaunchAttribute *a = &attributes[config.numAttrs++];
        a->id = cudaLaunchAttributeClusterDimension;
        a->val.clusterDim.x = cluster;
        a->val.clusterDim.y = a->val.clusterDim.z = 1;
    }
    return started(op, cudaLaunchKernelEx(&config, kernel, Parameters(arguments)...));
}

template <typename... Parameters, typename... Arguments>
tf_status start(const tfi_cuda_launch *l, const char *op, void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared,
                Arguments... arguments)
{
    return start_clusters(l, op, 1, kernel, grid, block, shared, arguments...);
}

#endif
