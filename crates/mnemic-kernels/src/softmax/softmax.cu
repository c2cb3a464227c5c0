// Softmax and log-softmax over rows, with masks: one block a row, each number read once while it lies in registers or cache.
#include "common.cuh"

namespace softmax {

template <class T>
__device__ void forward(const T* x, const unsigned char* mask, T* y, int width, int log) {
    __shared__ float scratch[32];
    const size_t row = size_t(blockIdx.x) * width;
    float top = -INFINITY;
    bool bad = false;
    for (int i = threadIdx.x; i < width; i += blockDim.x) {
        if (mask && !mask[row + i]) continue;
        float v = to_float(x[row + i]);
        bad |= isnan(v);
        top = fmaxf(top, v);
    }
    top = block_max(top, scratch);
    // fmaxf passes over NaN: it must spoil the row all the same.
    bad = __syncthreads_or(bad) || top == INFINITY;
    float sum = 0;
    if (top != -INFINITY && !bad) {
        for (int i = threadIdx.x; i < width; i += blockDim.x) {
            if (mask && !mask[row + i]) continue;
            sum += expf(to_float(x[row + i]) - top);
        }
        sum = block_sum(sum, scratch);
    }
    const float scale = 1 / sum, log_sum = logf(sum);
    for (int i = threadIdx.x; i < width; i += blockDim.x) {
        float v;
        if (bad) v = NAN;
        else if (top == -INFINITY) v = log ? -INFINITY : 0;
        else if (log) v = to_float(x[row + i]) - top - log_sum;
        else v = expf(to_float(x[row + i]) - top) * scale;
        y[row + i] = from_float<T>(mask && !mask[row + i] ? 0 : v);
    }
}

// Softmax: dx = y (dy - sum y dy). Log-softmax: dx = dy - exp(y) sum dy.
template <class T>
__device__ void backward(const T* y, const T* dy, T* dx, int width, int log) {
    __shared__ float scratch[32];
    const size_t row = size_t(blockIdx.x) * width;
    float sum = 0;
    bool live = false;
    for (int i = threadIdx.x; i < width; i += blockDim.x) {
        float p = to_float(y[row + i]), d = to_float(dy[row + i]);
        sum += log ? d : p * d;
        live |= p != -INFINITY;
    }
    sum = block_sum(sum, scratch);
    live = __syncthreads_or(live);
    for (int i = threadIdx.x; i < width; i += blockDim.x) {
        float p = to_float(y[row + i]), d = to_float(dy[row + i]);
        float g = log ? (live ? d - expf(p) * sum : 0) : p * (d - sum);
        dx[row + i] = from_float<T>(g);
    }
}

#define SOFTMAX(T, name)                                                                                              \
    extern "C" __global__ void softmax_forward_##name(const T* x, const unsigned char* mask, T* y, int width, int log) { \
        forward<T>(x, mask, y, width, log);                                                                           \
    }                                                                                                                 \
    EXPORT(softmax_forward_##name)                                                                                    \
    extern "C" __global__ void softmax_backward_##name(const T* y, const T* dy, T* dx, int width, int log) {           \
        backward<T>(y, dy, dx, width, log);                                                                           \
    }                                                                                                                 \
    EXPORT(softmax_backward_##name)

SOFTMAX(float, f32)
SOFTMAX(__half, f16)
SOFTMAX(__nv_bfloat16, bf16)

}  // namespace softmax
