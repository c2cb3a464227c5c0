// What a linear map does beside its products: the bias, added in place.
#include "common.cuh"

namespace linear {

// y += b for rows of `width` packs.
template <class T, int V>
__device__ void add_bias(T* y, const T* bias, int rows, int width) {
    using P = Pack<T, V>;
    P* to = reinterpret_cast<P*>(y);
    const P* from = reinterpret_cast<const P*>(bias);
    const size_t total = size_t(rows) * width, step = size_t(gridDim.x) * blockDim.x;
    for (size_t i = size_t(blockIdx.x) * blockDim.x + threadIdx.x; i < total; i += step) {
        P p = to[i];
        const P b = from[i % width];
#pragma unroll
        for (int k = 0; k < V; k++) p.v[k] = from_float<T>(to_float(p.v[k]) + to_float(b.v[k]));
        to[i] = p;
    }
}

#define LINEAR(T, V, name)                                                                         \
    extern "C" __global__ void linear_bias_##name(T* y, const T* bias, int rows, int width) {      \
        add_bias<T, V>(y, bias, rows, width);                                                      \
    }                                                                                              \
    EXPORT(linear_bias_##name)

LINEAR(float, 1, f32)
LINEAR(float, 4, f32_packed)
LINEAR(__half, 1, f16)
LINEAR(__half, 8, f16_packed)
LINEAR(__nv_bfloat16, 1, bf16)
LINEAR(__nv_bfloat16, 8, bf16_packed)

}  // namespace linear
