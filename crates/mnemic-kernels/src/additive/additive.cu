// Additive attention. The tanh of all pairs is computed where it is used, in each of the three kernels, and never kept.
#include "common.cuh"

namespace additive {

struct Tanh {
    float value, slope;
};

// The value within 3e-7, the slope with few relative errors however small: 1 - value^2 would cancel. Right at both infinities.
__device__ inline Tanh tanh_of(float x) {
    const float e = __expf(-2 * fabsf(x)), r = __fdividef(1.f, 1 + e);
    return {copysignf((1 - e) * r, x), 4 * e * r * r};
}

enum Output { SCORES, SOFTMAX, LOG_SOFTMAX };

// One block a query, one warp a key, the query in shared memory; mask rows are 1 or t for a batch row.
__device__ inline void forward(const float* queries, const float* keys, const float* v, const unsigned char* mask,
                               float* y, int t, int s, int d, int mask_rows, int output) {
    DYNAMIC_SHARED(float, e);
    __shared__ float scratch[32];
    float* q = e + s;
    const size_t row = blockIdx.x, b = row / t;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = blockDim.x / 32;
    if (mask) mask += (mask_rows == 1 ? b : row) * s;
    for (int i = threadIdx.x; i < d; i += blockDim.x) q[i] = queries[row * d + i];
    __syncthreads();
    for (int i = warp; i < s; i += warps) {
        float sum = 0;
        if (!mask || mask[i]) {
            const float* k = keys + (b * s + i) * d;
#pragma unroll 4
            for (int c = lane; c < d; c += 32) sum += v[c] * tanh_of(q[c] + k[c]).value;
        }
        sum = warp_sum(sum);
        if (lane == 0) e[i] = sum;
    }
    __syncthreads();
    if (output == SCORES) {
        for (int i = threadIdx.x; i < s; i += blockDim.x) y[row * s + i] = e[i];
        return;
    }
    float top = -INFINITY;
    bool bad = false;
    for (int i = threadIdx.x; i < s; i += blockDim.x) {
        if (mask && !mask[i]) continue;
        bad |= isnan(e[i]);
        top = fmaxf(top, e[i]);
    }
    top = block_max(top, scratch);
    // fmaxf passes over NaN: it must spoil the row all the same.
    bad = __syncthreads_or(bad) || top == INFINITY;
    float sum = 0;
    for (int i = threadIdx.x; i < s; i += blockDim.x) {
        if (top != -INFINITY && (!mask || mask[i])) sum += expf(e[i] - top);
    }
    sum = block_sum(sum, scratch);
    const float scale = 1 / sum, log_sum = logf(sum);
    for (int i = threadIdx.x; i < s; i += blockDim.x) {
        const bool log = output == LOG_SOFTMAX;
        float x = log ? -INFINITY : 0;
        if (!mask || mask[i]) {
            if (bad) x = NAN;
            else if (top != -INFINITY) x = log ? e[i] - top - log_sum : expf(e[i] - top) * scale;
        }
        y[row * s + i] = x;
    }
}

// One block a query: the gradient of its scores, which is kept for the keys, then one thread a column of the query's
// gradient and of its part of that of v.
__device__ inline void backward_queries(const float* queries, const float* keys, const float* v,
                                        const unsigned char* mask, const float* y, const float* dy, float* de,
                                        float* d_queries, float* parts, int t, int s, int d, int mask_rows, int output) {
    DYNAMIC_SHARED(float, g);
    __shared__ float scratch[32];
    const size_t row = blockIdx.x, b = row / t;
    if (mask) mask += (mask_rows == 1 ? b : row) * s;
    float sum = 0;
    if (output != SCORES) {
        for (int i = threadIdx.x; i < s; i += blockDim.x) {
            if (mask && !mask[i]) continue;
            const float x = dy[row * s + i];
            sum += output == SOFTMAX ? x * y[row * s + i] : x;
        }
        sum = block_sum(sum, scratch);
    }
    for (int i = threadIdx.x; i < s; i += blockDim.x) {
        float x = 0;
        if (!mask || mask[i]) {
            const float p = y[row * s + i];
            x = dy[row * s + i];
            if (output == SOFTMAX) x = p * (x - sum);
            // A row of nothing but -inf passes no gradient on.
            if (output == LOG_SOFTMAX) x = x - expf(p) * sum;
        }
        g[i] = x;
        de[row * s + i] = x;
    }
    __syncthreads();
    for (int c = threadIdx.x; c < d; c += blockDim.x) {
        const float q = queries[row * d + c];
        float dq = 0, dv = 0;
#pragma unroll 4
        for (int i = 0; i < s; i++) {
            if (mask && !mask[i]) continue;
            const Tanh th = tanh_of(q + keys[(b * s + i) * d + c]);
            dv += g[i] * th.value;
            dq += g[i] * th.slope;
        }
        if (d_queries) d_queries[row * d + c] = dq * v[c];
        if (parts) parts[row * d + c] = dv;
    }
}

// One block a key, one thread a column.
__device__ inline void backward_keys(const float* queries, const float* keys, const float* v, const unsigned char* mask,
                                     const float* de, float* d_keys, int t, int s, int d, int mask_rows) {
    const size_t row = blockIdx.x, b = row / s;
    const int i = int(row - b * s);
    for (int c = threadIdx.x; c < d; c += blockDim.x) {
        const float k = keys[row * d + c];
        float dk = 0;
#pragma unroll 4
        for (int j = 0; j < t; j++) {
            const size_t query = b * t + j;
            if (mask && !mask[(mask_rows == 1 ? b : query) * s + i]) continue;
            dk += de[query * s + i] * tanh_of(queries[query * d + c] + k).slope;
        }
        d_keys[row * d + c] = dk * v[c];
    }
}

extern "C" __global__ void additive_forward(const float* queries, const float* keys, const float* v,
                                            const unsigned char* mask, float* y, int t, int s, int d, int mask_rows,
                                            int output) {
    forward(queries, keys, v, mask, y, t, s, d, mask_rows, output);
}
EXPORT(additive_forward)

extern "C" __global__ void additive_backward_queries(const float* queries, const float* keys, const float* v,
                                                     const unsigned char* mask, const float* y, const float* dy, float* de,
                                                     float* d_queries, float* parts, int t, int s, int d, int mask_rows,
                                                     int output) {
    backward_queries(queries, keys, v, mask, y, dy, de, d_queries, parts, t, s, d, mask_rows, output);
}
EXPORT(additive_backward_queries)

extern "C" __global__ void additive_backward_keys(const float* queries, const float* keys, const float* v,
                                                  const unsigned char* mask, const float* de, float* d_keys, int t, int s,
                                                  int d, int mask_rows) {
    backward_keys(queries, keys, v, mask, de, d_keys, t, s, d, mask_rows);
}
EXPORT(additive_backward_keys)

}  // namespace additive
