// Features of facts beside the vector of their row: product and distance.
#include "common.cuh"

namespace interaction {

// facts (b, n, h) and vectors (b, h) to (b, n, 2h); one thread a number of the facts.
template <class T>
__device__ void forward(const T* facts, const T* vectors, T* z, int b, int n, int h) {
    const size_t total = size_t(b) * n * h, step = size_t(gridDim.x) * blockDim.x;
    for (size_t i = size_t(blockIdx.x) * blockDim.x + threadIdx.x; i < total; i += step) {
        const size_t fact = i / h;
        const int col = int(i - fact * h);
        const float f = to_float(facts[i]), m = to_float(vectors[fact / n * h + col]);
        z[fact * 2 * h + col] = from_float<T>(f * m);
        z[fact * 2 * h + h + col] = from_float<T>(fabsf(f - m));
    }
}

// Both gradients: one block for 32 columns of a batch row, whose facts are shared among 8 warps.
template <class T>
__device__ void backward(const T* facts, const T* vectors, const T* dz, T* d_facts, T* d_vectors, int n, int h) {
    __shared__ float sums[8][32];
    const int lane = threadIdx.x % 32, part = threadIdx.x / 32;
    const int col = blockIdx.y * 32 + lane;
    const size_t b = blockIdx.x;
    float sum = 0;
    if (col < h) {
        const float m = to_float(vectors[b * h + col]);
#pragma unroll 4
        for (int i = part; i < n; i += 8) {
            const size_t fact = b * n + i;
            const float f = to_float(facts[fact * h + col]);
            const float p = to_float(dz[fact * 2 * h + col]), q = to_float(dz[fact * 2 * h + h + col]);
            const float by = f - m, turned = by > 0 ? q : by < 0 ? -q : 0;
            d_facts[fact * h + col] = from_float<T>(p * m + turned);
            sum += p * f - turned;
        }
    }
    sums[part][lane] = sum;
    __syncthreads();
    if (part == 0 && col < h) {
        for (int k = 1; k < 8; k++) sum += sums[k][lane];
        d_vectors[b * h + col] = from_float<T>(sum);
    }
}

#define INTERACTION(T, name)                                                                                          \
    extern "C" __global__ void interaction_forward_##name(const T* facts, const T* vectors, T* z, int b, int n, int h) { \
        forward<T>(facts, vectors, z, b, n, h);                                                                       \
    }                                                                                                                 \
    EXPORT(interaction_forward_##name)                                                                                \
    extern "C" __global__ void interaction_backward_##name(const T* facts, const T* vectors, const T* dz, T* d_facts,  \
                                                           T* d_vectors, int n, int h) {                              \
        backward<T>(facts, vectors, dz, d_facts, d_vectors, n, h);                                                    \
    }                                                                                                                 \
    EXPORT(interaction_backward_##name)

INTERACTION(float, f32)
INTERACTION(__half, f16)
INTERACTION(__nv_bfloat16, bf16)

}  // namespace interaction
