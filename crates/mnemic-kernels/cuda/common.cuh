// What every file of kernels includes first: the CUDA features in use, under names that are the same for nvcc and for
// the emulation on the CPU, and helpers on top. A kernel is `extern "C" __global__` and followed by EXPORT(name).
#pragma once

#ifdef __CUDACC__

#include <cooperative_groups.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <math.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>

#define EXPORT(name)
// `#pragma unroll`, of which other compilers warn.
#define UNROLL _Pragma("unroll")
// The launch's shared memory as an array, aligned to 16 bytes. Kernels of one file may use different types.
// Cooperative kernels share through it alone: the emulation has one copy of `__shared__` variables for all blocks.
#define DYNAMIC_SHARED(type, name) \
    extern __shared__ __align__(16) unsigned char mnemic_dynamic_shared[]; \
    type* const name = reinterpret_cast<type*>(mnemic_dynamic_shared)

// To be called in every turn of a loop that waits for another thread.
__device__ __forceinline__ void spin_pause() { __nanosleep(20); }

// Waits for all threads of a cooperative launch.
__device__ __forceinline__ void grid_sync() { cooperative_groups::this_grid().sync(); }

// The same with a counter in global memory that was 0 at the launch: the n-th call, counted from 1, expects n times the
// number of blocks. All threads of all blocks must come.
__device__ __forceinline__ void grid_barrier(unsigned* counter, unsigned expected_total) {
    __syncthreads();
    if (threadIdx.x == 0 && threadIdx.y == 0 && threadIdx.z == 0) {
        __threadfence();
        atomicAdd(counter, 1u);
        unsigned total;
        do {
            asm volatile("ld.acquire.gpu.global.u32 %0, [%1];"
                         : "=r"(total)
                         : "l"(__cvta_generic_to_global(counter))
                         : "memory");
        } while (static_cast<int>(total - expected_total) < 0);
        __threadfence();
    }
    __syncthreads();
}

// A float as TF32, to nearest, ties away from zero.
__device__ __forceinline__ unsigned to_tf32(float x) {
    unsigned result;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(result) : "f"(x));
    return result;
}

// d += a b on tensor cores: A is 16 x 16 by rows, B is 16 x 8 by columns, D is 16 x 8; the fragments are those of PTX.
#define MNEMIC_MMA(shape, type) \
    asm volatile("mma.sync.aligned." shape ".row.col.f32." type "." type ".f32 " \
                 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};" \
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]) \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]))
__device__ __forceinline__ void mma_16x8x16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2],
                                            __nv_bfloat16) {
    MNEMIC_MMA("m16n8k16", "bf16");
}
__device__ __forceinline__ void mma_16x8x16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], __half) {
    MNEMIC_MMA("m16n8k16", "f16");
}
// The same for floats of reduced precision: A is 16 x 8, B is 8 x 8. The lowest 13 bits are left out: see to_tf32.
__device__ __forceinline__ void mma_16x8x8_tf32(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    MNEMIC_MMA("m16n8k8", "tf32");
}
#undef MNEMIC_MMA

// 8 x 8 matrices of 16-bit elements out of shared memory into fragments. Lane i gives the address of row i % 8 of
// matrix i / 8; for two matrices, lanes from 16 on give what they like.
__device__ __forceinline__ unsigned shared_address(const void* shared) {
    return static_cast<unsigned>(__cvta_generic_to_shared(shared));
}
#define MNEMIC_LDMATRIX_X4(trans) \
    asm volatile("ldmatrix.sync.aligned.m8n8.x4" trans ".shared.b16 {%0, %1, %2, %3}, [%4];" \
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) \
                 : "r"(shared_address(row)) \
                 : "memory")
#define MNEMIC_LDMATRIX_X2(trans) \
    asm volatile("ldmatrix.sync.aligned.m8n8.x2" trans ".shared.b16 {%0, %1}, [%2];" \
                 : "=r"(r[0]), "=r"(r[1]) \
                 : "r"(shared_address(row)) \
                 : "memory")
__device__ __forceinline__ void ldmatrix_x4(unsigned (&r)[4], const void* row) { MNEMIC_LDMATRIX_X4(""); }
__device__ __forceinline__ void ldmatrix_x4_trans(unsigned (&r)[4], const void* row) { MNEMIC_LDMATRIX_X4(".trans"); }
__device__ __forceinline__ void ldmatrix_x2(unsigned (&r)[2], const void* row) { MNEMIC_LDMATRIX_X2(""); }
__device__ __forceinline__ void ldmatrix_x2_trans(unsigned (&r)[2], const void* row) { MNEMIC_LDMATRIX_X2(".trans"); }
#undef MNEMIC_LDMATRIX_X4
#undef MNEMIC_LDMATRIX_X2

// Starts to copy 16 bytes from global to shared memory, or to fill with zeros if not valid. What was started before a
// commit is one group; wait<N> leaves at most the N last groups on their way, and speaks for the calling thread only.
__device__ __forceinline__ void cp_async_16(void* shared, const void* global, bool valid) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)),
                 "l"(__cvta_generic_to_global(global)), "r"(valid ? 16 : 0)
                 : "memory");
}
__device__ __forceinline__ void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int N>
__device__ __forceinline__ void cp_async_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

#else
#include "emulate.h"
#endif

constexpr unsigned FULL_MASK = 0xffffffffu;

// N elements that are loaded and stored as one; the address must be a multiple of the size.
template <class T, int N>
struct alignas(sizeof(T) * N) Pack {
    T v[N];
};

// What to compute in for elements of a type: double for double, else float.
template <class T>
struct Accumulator {
    using Type = float;
};
template <>
struct Accumulator<double> {
    using Type = double;
};
template <class T>
using acc_t = typename Accumulator<T>::Type;

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(double x) { return static_cast<float>(x); }
__device__ __forceinline__ float to_float(__half x) { return __half2float(x); }
__device__ __forceinline__ float to_float(__nv_bfloat16 x) { return __bfloat162float(x); }

template <class T>
__device__ __forceinline__ T from_float(float x) {
    return static_cast<T>(x);
}
template <>
__device__ __forceinline__ __half from_float<__half>(float x) {
    return __float2half_rn(x);
}
template <>
__device__ __forceinline__ __nv_bfloat16 from_float<__nv_bfloat16>(float x) {
    return __float2bfloat16_rn(x);
}

// The same without loss for double.
template <class T>
__device__ __forceinline__ acc_t<T> to_acc(T x) {
    return to_float(x);
}
template <>
__device__ __forceinline__ double to_acc<double>(double x) {
    return x;
}
template <class T>
__device__ __forceinline__ T from_acc(acc_t<T> x) {
    return from_float<T>(x);
}
template <>
__device__ __forceinline__ double from_acc<double>(double x) {
    return x;
}

__device__ __forceinline__ unsigned thread_in_block() {
    return threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
}

// The sum or the maximum over a whole warp or block, for every thread. The order is fixed, so the result is too. Like
// fmaxf, the maximum passes NaN over. Whole warps only.
template <class T>
__device__ __forceinline__ T warp_sum(T value) {
    UNROLL
    for (int lanes = 16; lanes > 0; lanes /= 2) value += __shfl_xor_sync(FULL_MASK, value, lanes);
    return value;
}
template <class T>
__device__ __forceinline__ T warp_max(T value) {
    UNROLL
    for (int lanes = 16; lanes > 0; lanes /= 2) value = max(value, __shfl_xor_sync(FULL_MASK, value, lanes));
    return value;
}

// `scratch` is shared memory for one value a warp, which nobody reads or writes at that time; when the call returns it
// is free again.
template <class T>
__device__ __forceinline__ T block_sum(T value, T* scratch) {
    const unsigned thread = thread_in_block(), warps = blockDim.x * blockDim.y * blockDim.z / 32;
    value = warp_sum(value);
    if (thread % 32 == 0) scratch[thread / 32] = value;
    __syncthreads();
    value = warp_sum(thread % 32 < warps ? scratch[thread % 32] : T(0));
    __syncthreads();
    return value;
}
template <class T>
__device__ __forceinline__ T block_max(T value, T* scratch) {
    const unsigned thread = thread_in_block(), warps = blockDim.x * blockDim.y * blockDim.z / 32;
    value = warp_max(value);
    if (thread % 32 == 0) scratch[thread / 32] = value;
    __syncthreads();
    // The first warp's value stands in for the missing ones.
    value = warp_max(scratch[thread % 32 < warps ? thread % 32 : 0]);
    __syncthreads();
    return value;
}
