// Dropout: forward and backward are one kernel, which draws the mask again.
#include "philox.cuh"
#include "rows.cuh"

namespace dropout {

template <class T>
__device__ __forceinline__ void mask(const T* x, T* y, int n, unsigned long long seed, unsigned long long stream,
                                     unsigned threshold, float keep) {
    constexpr int V = rows::VEC<T>;
    Pack<T, V> p[rows::PER_THREAD];
    rows::packs<V>(n, [&](int k, int i) { p[k] = rows::load<V>(x, i, n, T()); });
    rows::packs<V>(n, [&](int k, int i) {
        float v[V];
        UNROLL
        for (int j = 0; j < V; j += 4) {
            const uint4 words = philox(seed, stream, (i + j) / 4);
            // A product also where dropped: what is not a number stays so.
            v[j] = to_float(p[k].v[j]) * (words.x < threshold ? 0 : keep);
            v[j + 1] = to_float(p[k].v[j + 1]) * (words.y < threshold ? 0 : keep);
            v[j + 2] = to_float(p[k].v[j + 2]) * (words.z < threshold ? 0 : keep);
            v[j + 3] = to_float(p[k].v[j + 3]) * (words.w < threshold ? 0 : keep);
        }
        rows::store<V>(y, i, n, v);
    });
}

#define DROPOUT(T, name)                                                                                              \
    extern "C" __global__ void __launch_bounds__(256)                                                                 \
        dropout_##name(const T* x, T* y, int n, unsigned long long seed, unsigned long long stream,                   \
                       unsigned long long threshold, float keep) {                                                    \
        mask(x, y, n, seed, stream, static_cast<unsigned>(threshold), keep);                                          \
    }                                                                                                                 \
    EXPORT(dropout_##name)

DROPOUT(float, f32)
DROPOUT(__half, f16)
DROPOUT(__nv_bfloat16, bf16)

}  // namespace dropout
