/* Libraries that are opened when the first device is, so that the same file runs where there are none of them. */
#ifndef TFI_BACKEND_CUDA_LIBRARIES_H
#define TFI_BACKEND_CUDA_LIBRARIES_H

#include <cublasLt.h>

#include <tfinfer/base.h>

/* The driver's part that the CUDA runtime lacks: the context that is current on a thread, whoever made it so. */
typedef struct tfi_cuda_driver {
    int (*init)(unsigned flags);
    int (*version)(int *out);
    int (*device_count)(int *out);
    int (*device_get)(int *out, int ordinal);
    int (*device_name)(char *out, int size, int device);
    int (*context_retain)(void **out, int device);
    int (*context_push)(void *context);
    int (*context_pop)(void **out);
    int (*context_release)(int device);
    int (*copy_out)(void *to, unsigned long long from, size_t bytes); /* device memory to the host's */
    void *tensor_map_encode; /* cuTensorMapEncodeTiled, or NULL: a driver without it */
    /* Kernels of a module; they are of 12.4, NULL in a driver without them. */
    int (*function_module)(void **out, void *function);
    int (*function_count)(unsigned *out, void *module);
    int (*functions)(void **out, unsigned count, void *module);
    int (*function_load)(void *function);
} tfi_cuda_driver;

typedef struct tfi_cublas_lt {
    void *handle; /* of the library itself */
    cublasStatus_t (*create)(cublasLtHandle_t *);
    cublasStatus_t (*destroy)(cublasLtHandle_t);
    size_t (*version)(void);
    cublasStatus_t (*matmul)(cublasLtHandle_t, cublasLtMatmulDesc_t, const void *, const void *, cublasLtMatrixLayout_t,
                             const void *, cublasLtMatrixLayout_t, const void *, const void *, cublasLtMatrixLayout_t, void *,
                             cublasLtMatrixLayout_t, const cublasLtMatmulAlgo_t *, void *, size_t, cudaStream_t);
    cublasStatus_t (*desc_create)(cublasLtMatmulDesc_t *, cublasComputeType_t, cudaDataType_t);
    cublasStatus_t (*desc_destroy)(cublasLtMatmulDesc_t);
    cublasStatus_t (*desc_set)(cublasLtMatmulDesc_t, cublasLtMatmulDescAttributes_t, const void *, size_t);
    cublasStatus_t (*layout_create)(cublasLtMatrixLayout_t *, cudaDataType, uint64_t, uint64_t, int64_t);
    cublasStatus_t (*layout_destroy)(cublasLtMatrixLayout_t);
    cublasStatus_t (*preference_create)(cublasLtMatmulPreference_t *);
    cublasStatus_t (*preference_destroy)(cublasLtMatmulPreference_t);
    cublasStatus_t (*preference_set)(cublasLtMatmulPreference_t, cublasLtMatmulPreferenceAttributes_t, const void *, size_t);
    cublasStatus_t (*heuristic)(cublasLtHandle_t, cublasLtMatmulDesc_t, cublasLtMatrixLayout_t, cublasLtMatrixLayout_t,
                                cublasLtMatrixLayout_t, cublasLtMatrixLayout_t, cublasLtMatmulPreference_t, int,
                                cublasLtMatmulHeuristicResult_t *, int *);
    cublasStatus_t (*algo_get)(const cublasLtMatmulAlgo_t *, cublasLtMatmulAlgoConfigAttributes_t, void *, size_t, size_t *);
} tfi_cublas_lt;

/* UNSUPPORTED, naming the library or function that is missing. Libraries stay open. */
tf_status tfi_cuda_driver_open(tfi_cuda_driver *out);
/* `folder` NULL: the usual search alone. */
tf_status tfi_cublas_lt_open(const char *folder, tfi_cublas_lt *out);

#endif
