// What a linear map does beside its products: the bias, added in place, and its gradient.
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

// The sums over rows of 32 columns: of `per_block` rows each, into a row of `parts`, or of all into `y`. 32 warps share the rows.
template <class T>
__device__ void sum_columns(const T* x, T* y, float* parts, int rows, int width, int per_block) {
    __shared__ float sums[32][32];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, col = blockIdx.x * 32 + lane;
    const int first = blockIdx.y * per_block, last = min(first + per_block, rows);
    float sum = 0;
    if (col < width) {
#pragma unroll 8
        for (int r = first + warp; r < last; r += 32) sum += to_float(x[size_t(r) * width + col]);
    }
    sums[warp][lane] = sum;
    __syncthreads();
    if (warp == 0 && col < width) {
        for (int k = 1; k < 32; k++) sum += sums[k][lane];
        if (parts) parts[size_t(blockIdx.y) * width + col] = sum;
        else y[col] = from_float<T>(sum);
    }
}

#define LINEAR(T, V, name)                                                                         \
    extern "C" __global__ void linear_bias_##name(T* y, const T* bias, int rows, int width) {      \
        add_bias<T, V>(y, bias, rows, width);                                                      \
    }                                                                                              \
    EXPORT(linear_bias_##name)

#define LINEAR_COLUMNS(T, name)                                                                    \
    extern "C" __global__ void linear_columns_##name(const T* x, T* y, float* parts, int rows,     \
                                                     int width, int per_block) {                   \
        sum_columns<T>(x, y, parts, rows, width, per_block);                                       \
    }                                                                                              \
    EXPORT(linear_columns_##name)

LINEAR(float, 1, f32)
LINEAR(float, 4, f32_packed)
LINEAR(__half, 1, f16)
LINEAR(__half, 8, f16_packed)
LINEAR(__nv_bfloat16, 1, bf16)
LINEAR(__nv_bfloat16, 8, bf16_packed)
LINEAR_COLUMNS(float, f32)
LINEAR_COLUMNS(__half, f16)
LINEAR_COLUMNS(__nv_bfloat16, bf16)

}  // namespace linear
