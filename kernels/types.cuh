/* Elements of F32, BF16 and F16 in device memory, read and written as floats, V at a time: 8 where rows and pointers are
 * 16-byte aligned, otherwise one. Kernels that memory bounds take the type as an argument: the branch is uniform and costs less
 * than one kernel for each mix of types. Loading and widening are apart, so that all loads of a thread are under way before the first is waited for. */
#ifndef TFI_KERNELS_TYPES_CUH
#define TFI_KERNELS_TYPES_CUH

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "start.cuh"

template <int V>
struct raw_elements;

template <>
struct raw_elements<8> {
    uint4 low, high; /* high: F32 only */
};

template <>
struct raw_elements<1> {
    uint32_t bits;
};

__device__ inline int element_size(tfi_dtype t)
{
    return t == TFI_F32 ? 4 : 2;
}

__device__ inline const char *element_at(const void *p, tfi_dtype t, int64_t i)
{
    return (const char *)p + i * element_size(t);
}

__device__ inline char *element_at(void *p, tfi_dtype t, int64_t i)
{
    return (char *)p + i * element_size(t);
}

template <int V>
__device__ inline raw_elements<V> load_raw(const void *p, tfi_dtype t, int64_t i);

template <>
__device__ inline raw_elements<8> load_raw<8>(const void *p, tfi_dtype t, int64_t i)
{
    const uint4 *at = (const uint4 *)element_at(p, t, i);
    raw_elements<8> r;
    r.low = at[0];
    r.high = t == TFI_F32 ? at[1] : make_uint4(0, 0, 0, 0);
    return r;
}

template <>
__device__ inline raw_elements<1> load_raw<1>(const void *p, tfi_dtype t, int64_t i)
{
    raw_elements<1> r;
    r.bits = t == TFI_F32 ? ((const uint32_t *)p)[i] : ((const uint16_t *)p)[i];
    return r;
}

__device__ inline void store_raw(void *p, tfi_dtype t, int64_t i, const raw_elements<8> &r)
{
    uint4 *at = (uint4 *)element_at(p, t, i);
    at[0] = r.low;
    if (t == TFI_F32) at[1] = r.high;
}

__device__ inline float half_to_float(uint32_t bits, tfi_dtype t)
{
    return t == TFI_BF16 ? __uint_as_float(bits << 16) : __half2float(__ushort_as_half((unsigned short)bits));
}

__device__ inline uint32_t float_to_half(float v, tfi_dtype t)
{
    return t == TFI_BF16 ? __bfloat16_as_ushort(__float2bfloat16_rn(v)) : __half_as_ushort(__float2half_rn(v));
}

/* Two of them, the first in the low half. */
__device__ inline uint32_t float_to_halves(float low, float high, tfi_dtype t)
{
    if (t == TFI_BF16) {
        const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
        return *(const uint32_t *)&pair;
    }
    const __half2 pair = __floats2half2_rn(low, high);
    return *(const uint32_t *)&pair;
}

__device__ inline void widen(const raw_elements<8> &r, tfi_dtype t, float (&v)[8])
{
    const uint32_t words[8] = {r.low.x, r.low.y, r.low.z, r.low.w, r.high.x, r.high.y, r.high.z, r.high.w};
    if (t == TFI_F32) {
#pragma unroll
        for (int i = 0; i < 8; i++) v[i] = __uint_as_float(words[i]);
    } else if (t == TFI_BF16) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            v[2 * i] = __uint_as_float(words[i] << 16);
            v[2 * i + 1] = __uint_as_float(words[i] & 0xffff0000);
        }
    } else {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const float2 pair = __half22float2(*(const __half2 *)&words[i]);
            v[2 * i] = pair.x;
            v[2 * i + 1] = pair.y;
        }
    }
}

__device__ inline void widen(const raw_elements<1> &r, tfi_dtype t, float (&v)[1])
{
    v[0] = t == TFI_F32 ? __uint_as_float(r.bits) : half_to_float(r.bits, t);
}

template <int V>
__device__ inline void load(const void *p, tfi_dtype t, int64_t i, float (&v)[V])
{
    widen(load_raw<V>(p, t, i), t, v);
}

__device__ inline float load_one(const void *p, tfi_dtype t, int64_t i)
{
    float v[1];
    load<1>(p, t, i, v);
    return v[0];
}

__device__ inline void store(void *p, tfi_dtype t, int64_t i, const float (&v)[8])
{
    uint4 *at = (uint4 *)element_at(p, t, i);
    if (t == TFI_F32) {
        at[0] = make_uint4(__float_as_uint(v[0]), __float_as_uint(v[1]), __float_as_uint(v[2]), __float_as_uint(v[3]));
        at[1] = make_uint4(__float_as_uint(v[4]), __float_as_uint(v[5]), __float_as_uint(v[6]), __float_as_uint(v[7]));
    } else {
        uint32_t words[4];
#pragma unroll
        for (int k = 0; k < 4; k++) words[k] = float_to_halves(v[2 * k], v[2 * k + 1], t);
        at[0] = make_uint4(words[0], words[1], words[2], words[3]);
    }
}

__device__ inline void store(void *p, tfi_dtype t, int64_t i, const float (&v)[1])
{
    if (t == TFI_F32) ((float *)p)[i] = v[0];
    else ((uint16_t *)p)[i] = (uint16_t)float_to_half(v[0], t);
}

/* ---- host ---- */

/* Whether rows of `cols` elements in these buffers (NULL: none) can be read 8 elements at a time. */
template <typename... Pointers>
inline bool in_vectors(int64_t cols, Pointers... pointers)
{
    const uintptr_t all[] = {(uintptr_t)pointers...};
    uintptr_t bits = 0;
    for (uintptr_t p : all) bits |= p;
    return cols % 8 == 0 && bits % 16 == 0;
}

inline unsigned blocks_of(int64_t n, int64_t each)
{
    return (unsigned)((n + each - 1) / each);
}

#endif
