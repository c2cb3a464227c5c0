// Content addressing: one block a batch row, which holds its weights in shared memory.
#include "common.cuh"

namespace content {

// The inner product of two vectors, by one warp.
template <class T>
__device__ float dot(const T* x, const T* y, int d) {
    float sum = 0;
#pragma unroll 4
    for (int i = threadIdx.x % 32; i < d; i += 32) sum += to_float(x[i]) * to_float(y[i]);
    return warp_sum(sum);
}

// One warp a key for the scores; then one thread a column of the values.
template <class T>
__device__ void forward(const T* query, const T* keys, const T* values, const unsigned char* mask, const float* absent,
                        T* scores, T* weights, T* output, int n, int d, int dv, int linear) {
    DYNAMIC_SHARED(float, p);
    __shared__ float scratch[32];
    const size_t b = blockIdx.x;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = blockDim.x / 32;
    if (mask) mask += b * n;
    for (int i = warp; i < n; i += warps) {
        const bool kept = !mask || mask[i];
        const float s = kept ? dot(query + b * d, keys + (b * n + i) * d, d) : 0;
        if (lane == 0) {
            p[i] = s;
            scores[b * n + i] = from_float<T>(s);
        }
    }
    __syncthreads();
    if (!linear) {
        float top = absent ? absent[b] : -INFINITY;
        bool bad = isnan(top);
        for (int i = threadIdx.x; i < n; i += blockDim.x) {
            if (mask && !mask[i]) continue;
            bad |= isnan(p[i]);
            top = fmaxf(top, p[i]);
        }
        top = block_max(top, scratch);
        // fmaxf passes over NaN: it must spoil the row all the same.
        bad = __syncthreads_or(bad) || top == INFINITY;
        const bool none = top == -INFINITY && !bad;
        float sum = threadIdx.x == 0 && absent && !none ? expf(absent[b] - top) : 0;
        for (int i = threadIdx.x; i < n; i += blockDim.x) {
            const float e = none || (mask && !mask[i]) ? 0 : expf(p[i] - top);
            p[i] = e;
            sum += e;
        }
        sum = block_sum(sum, scratch);
        const float scale = bad ? NAN : none ? 0 : 1 / sum;
        for (int i = threadIdx.x; i < n; i += blockDim.x) p[i] = mask && !mask[i] ? 0 : p[i] * scale;
        __syncthreads();
    }
    for (int i = threadIdx.x; i < n; i += blockDim.x) weights[b * n + i] = from_float<T>(p[i]);
    for (int c = threadIdx.x; c < dv; c += blockDim.x) {
        float sum = 0;
#pragma unroll 4
        for (int i = 0; i < n; i++) {
            if (mask && !mask[i]) continue;
            sum += p[i] * to_float(values[(b * n + i) * dv + c]);
        }
        output[b * dv + c] = from_float<T>(sum);
    }
}

// ds = p (dp - sum p dp) + d_scores with dp = d_weights + d_output v; then dq = sum ds k, dk = ds q, dv = p d_output.
template <class T>
__device__ void backward(const T* query, const T* keys, const T* values, const unsigned char* mask, const T* weights,
                         const T* d_scores, const T* d_weights, const T* d_output, T* d_query, T* d_keys, T* d_values,
                         int n, int d, int dv, int linear) {
    DYNAMIC_SHARED(float, ds);
    __shared__ float scratch[32];
    const size_t b = blockIdx.x;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = blockDim.x / 32;
    if (mask) mask += b * n;
    for (int i = warp; i < n; i += warps) {
        const bool kept = !mask || mask[i];
        float g = kept && d_output ? dot(d_output + b * dv, values + (b * n + i) * dv, dv) : 0;
        if (kept && d_weights) g += to_float(d_weights[b * n + i]);
        if (lane == 0) ds[i] = g;
    }
    __syncthreads();
    float sum = 0;
    if (!linear) {
        for (int i = threadIdx.x; i < n; i += blockDim.x) {
            if (!mask || mask[i]) sum += to_float(weights[b * n + i]) * ds[i];
        }
        sum = block_sum(sum, scratch);
    }
    for (int i = threadIdx.x; i < n; i += blockDim.x) {
        float g = 0;
        if (!mask || mask[i]) {
            g = linear ? ds[i] : to_float(weights[b * n + i]) * (ds[i] - sum);
            if (d_scores) g += to_float(d_scores[b * n + i]);
        }
        ds[i] = g;
    }
    __syncthreads();
    if (d_query) {
        for (int c = threadIdx.x; c < d; c += blockDim.x) {
            float sum = 0;
#pragma unroll 4
            for (int i = 0; i < n; i++) {
                if (mask && !mask[i]) continue;
                sum += ds[i] * to_float(keys[(b * n + i) * d + c]);
            }
            d_query[b * d + c] = from_float<T>(sum);
        }
    }
    if (d_keys) {
        for (int i = warp; i < n; i += warps) {
            const bool kept = !mask || mask[i];
            for (int c = lane; c < d; c += 32) {
                const float g = kept ? ds[i] * to_float(query[b * d + c]) : 0;
                d_keys[(b * n + i) * d + c] = from_float<T>(g);
            }
        }
    }
    if (d_values) {
        for (int i = warp; i < n; i += warps) {
            const bool kept = (!mask || mask[i]) && d_output;
            const float p = kept ? to_float(weights[b * n + i]) : 0;
            for (int c = lane; c < dv; c += 32) {
                const float g = kept ? p * to_float(d_output[b * dv + c]) : 0;
                d_values[(b * n + i) * dv + c] = from_float<T>(g);
            }
        }
    }
}

#define CONTENT(T, name)                                                                                              \
    extern "C" __global__ void content_forward_##name(const T* query, const T* keys, const T* values,                 \
                                                      const unsigned char* mask, const float* absent, T* scores,      \
                                                      T* weights, T* output, int n, int d, int dv, int linear) {      \
        forward<T>(query, keys, values, mask, absent, scores, weights, output, n, d, dv, linear);                     \
    }                                                                                                                 \
    EXPORT(content_forward_##name)                                                                                    \
    extern "C" __global__ void content_backward_##name(                                                               \
        const T* query, const T* keys, const T* values, const unsigned char* mask, const T* weights, const T* d_scores, \
        const T* d_weights, const T* d_output, T* d_query, T* d_keys, T* d_values, int n, int d, int dv, int linear) { \
        backward<T>(query, keys, values, mask, weights, d_scores, d_weights, d_output, d_query, d_keys, d_values, n, d, \
                    dv, linear);                                                                                      \
    }                                                                                                                 \
    EXPORT(content_backward_##name)

CONTENT(float, f32)
CONTENT(__half, f16)
CONTENT(__nv_bfloat16, bf16)

}  // namespace content
