// Binary cross-entropy of logits: losses, their sum in parts, and both gradients in one pass.
#include "rows.cuh"

namespace bce {

__device__ __forceinline__ float loss(float x, float y) {
    return (x > 0 ? x : 0) - x * y + log1pf(expf(-fabsf(x)));
}
__device__ __forceinline__ float sigmoid(float x) { return __fdividef(1, 1 + expf(-x)); }

// One sum a block.
template <class T>
__device__ __forceinline__ void sums(const T* x, const T* y, float* sums, int n) {
    __shared__ float scratch[32];
    constexpr int V = rows::VEC<T>;
    float sum = 0;
    const long long step = static_cast<long long>(gridDim.x) * 256 * V;
#pragma unroll 2
    for (long long at = (static_cast<long long>(blockIdx.x) * 256 + threadIdx.x) * V; at < n; at += step) {
        const int i = static_cast<int>(at);
        const auto p = rows::load<V>(x, i, n, T()), q = rows::load<V>(y, i, n, T());
        UNROLL
        for (int j = 0; j < V; ++j) {
            if (i + j < n) sum += loss(to_float(p.v[j]), to_float(q.v[j]));
        }
    }
    sum = block_sum(sum, scratch);
    if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

// dx = (sigmoid(x) - y) d and dy = -x d, with one d for all times a scale, or one each.
template <class T>
__device__ __forceinline__ void gradient(const T* x, const T* y, const T* grads, T* dx, T* dy, int n, bool each,
                                         float scale) {
    constexpr int V = rows::VEC<T>;
    rows::packs<V>(n, [&](int, int i) {
        Pack<T, V> q, g;
        const auto p = rows::load<V>(x, i, n, T());
        if (dx) q = rows::load<V>(y, i, n, T());
        if (each) g = rows::load<V>(grads, i, n, T());
        const float all = each ? 0 : to_float(grads[0]) * scale;
        float u[V], v[V];
        UNROLL
        for (int j = 0; j < V; ++j) {
            const float a = to_float(p.v[j]), d = each ? to_float(g.v[j]) : all;
            u[j] = dx ? (sigmoid(a) - to_float(q.v[j])) * d : 0;
            v[j] = -a * d;
        }
        if (dx) rows::store<V>(dx, i, n, u);
        if (dy) rows::store<V>(dy, i, n, v);
    });
}

#define BCE(T, name)                                                                                                  \
    extern "C" __global__ void __launch_bounds__(256) bce_losses_##name(const T* x, const T* y, T* losses, int n) {   \
        rows::map(x, y, losses, n, [](float x, float y) { return loss(x, y); });                                      \
    }                                                                                                                 \
    EXPORT(bce_losses_##name)                                                                                         \
    extern "C" __global__ void __launch_bounds__(256) bce_sums_##name(const T* x, const T* y, float* out, int n) {    \
        sums<T>(x, y, out, n);                                                                                        \
    }                                                                                                                 \
    EXPORT(bce_sums_##name)                                                                                           \
    extern "C" __global__ void __launch_bounds__(256) bce_gradient_##name(                                            \
        const T* x, const T* y, const T* grads, T* dx, T* dy, int n, int each, float scale) {                         \
        gradient<T>(x, y, grads, dx, dy, n, each != 0, scale);                                                        \
    }                                                                                                                 \
    EXPORT(bce_gradient_##name)

BCE(float, f32)
BCE(__half, f16)
BCE(__nv_bfloat16, bf16)

}  // namespace bce
