// Element-wise functions, forward and backward: one launch each, every number read and written once.
#include "rows.cuh"

namespace activation {

// Where the functions have reached their limits, and no product is 0 times infinity. NaN stays.
__device__ __forceinline__ float clamp(float x) { return x < -1000 ? -1000 : (x > 1000 ? 1000 : x); }
__device__ __forceinline__ float at_least(float x) { return x < -1000 ? -1000 : x; }
__device__ __forceinline__ float sigmoid(float x) { return __fdividef(1, 1 + expf(-x)); }

// The normal distribution function; half precision does not see what erff loses far below zero.
template <class T>
__device__ __forceinline__ float normal_cdf(float x) {
    return sizeof(T) == 2 ? 0.5f + 0.5f * erff(x * 0.70710678f) : 0.5f * erfcf(x * -0.70710678f);
}

// From the result in f32; from the operand in half precision, where the result is too coarse near its limits.
struct Tanh {
    template <class T>
    static __device__ __forceinline__ float value(float x) { return tanhf(x); }
    template <class T>
    static __device__ __forceinline__ float gradient(float v, float g) {
        const float y = sizeof(T) == 2 ? tanhf(v) : v;
        return g * (1 - y * y);
    }
};

struct Sigmoid {
    template <class T>
    static __device__ __forceinline__ float value(float x) { return sigmoid(x); }
    template <class T>
    static __device__ __forceinline__ float gradient(float v, float g) {
        const float y = sizeof(T) == 2 ? sigmoid(v) : v;
        return g * (y * (1 - y));
    }
};

struct Relu {
    // Written so that NaN stays.
    template <class T>
    static __device__ __forceinline__ float value(float x) { return x <= 0 ? 0 : x; }
    template <class T>
    static __device__ __forceinline__ float gradient(float y, float g) { return y <= 0 ? 0 : g; }
};

struct Silu {
    template <class T>
    static __device__ __forceinline__ float value(float x) { return at_least(x) * sigmoid(x); }
    template <class T>
    static __device__ __forceinline__ float gradient(float x, float g) {
        const float s = sigmoid(x);
        return g * (s + clamp(x) * (s * (1 - s)));
    }
};

struct Softplus {
    template <class T>
    static __device__ __forceinline__ float value(float x) { return fmaxf(x, 0) + log1pf(expf(-fabsf(x))); }
    template <class T>
    static __device__ __forceinline__ float gradient(float x, float g) { return g * sigmoid(x); }
};

struct Gelu {
    template <class T>
    static __device__ __forceinline__ float value(float x) { return at_least(x) * normal_cdf<T>(x); }
    template <class T>
    static __device__ __forceinline__ float gradient(float x, float g) {
        const float c = clamp(x);
        return g * (normal_cdf<T>(x) + c * (0.39894228f * expf(c * c * -0.5f)));
    }
};

// (1 + tanh(u)) / 2 is the sigmoid of 2 u: one exponential and no cancellation.
constexpr float TWICE_ROOT = 1.5957691216f, CUBIC = 0.044715f;

struct GeluTanh {
    template <class T>
    static __device__ __forceinline__ float value(float x) {
        const float c = clamp(x);
        return at_least(x) * sigmoid(TWICE_ROOT * (c + CUBIC * (c * c * c)));
    }
    template <class T>
    static __device__ __forceinline__ float gradient(float x, float g) {
        const float c = clamp(x), square = c * c;
        const float s = sigmoid(TWICE_ROOT * (c + CUBIC * (square * c)));
        return g * (s + c * (TWICE_ROOT * (1 + 3 * CUBIC * square)) * (s * (1 - s)));
    }
};

// The place of the first of a pack of results in the operand, whose rows are twice as long.
__device__ __forceinline__ long long glu_place(long long i, int width) { return i + i / width * width; }

// Packs where no pack lies across the end of a row, else single elements.
template <class T, int V>
__device__ __forceinline__ void glu_forward(const T* x, T* y, int n, int width) {
    Pack<T, V> a[rows::PER_THREAD], b[rows::PER_THREAD];
    rows::packs<V>(n, [&](int k, int i) {
        const T* at = x + glu_place(i, width);
        a[k] = rows::load<V>(at, 0, V, T());
        b[k] = rows::load<V>(at + width, 0, V, T());
    });
    rows::packs<V>(n, [&](int k, int i) {
        float v[V];
        UNROLL
        for (int j = 0; j < V; ++j) v[j] = to_float(a[k].v[j]) * sigmoid(to_float(b[k].v[j]));
        rows::store<V>(y, i, n, v);
    });
}

template <class T, int V>
__device__ __forceinline__ void glu_backward(const T* x, const T* dy, T* dx, int n, int width) {
    rows::packs<V>(n, [&](int, int i) {
        const long long at = glu_place(i, width);
        const auto a = rows::load<V>(x + at, 0, V, T()), b = rows::load<V>(x + at + width, 0, V, T());
        const auto g = rows::load<V>(dy, i, n, T());
        float d_a[V], d_b[V];
        UNROLL
        for (int j = 0; j < V; ++j) {
            const float s = sigmoid(to_float(b.v[j])), d = to_float(g.v[j]);
            d_a[j] = d * s;
            d_b[j] = d * to_float(a.v[j]) * (s * (1 - s));
        }
        rows::store<V>(dx + at, 0, V, d_a);
        rows::store<V>(dx + at + width, 0, V, d_b);
    });
}

#define ACTIVATION(A, T, name)                                                                                        \
    extern "C" __global__ void __launch_bounds__(256) name##_forward(const T* x, T* y, int n) {                       \
        rows::map(x, y, n, [](float x) { return A::value<T>(x); });                                                   \
    }                                                                                                                 \
    EXPORT(name##_forward)                                                                                            \
    extern "C" __global__ void __launch_bounds__(256) name##_backward(const T* v, const T* dy, T* dx, int n) {        \
        rows::map(v, dy, dx, n, [](float v, float g) { return A::gradient<T>(v, g); });                               \
    }                                                                                                                 \
    EXPORT(name##_backward)

#define ACTIVATIONS(A, name)                                                                                          \
    ACTIVATION(A, float, activation_##name##_f32)                                                                     \
    ACTIVATION(A, __half, activation_##name##_f16)                                                                    \
    ACTIVATION(A, __nv_bfloat16, activation_##name##_bf16)

ACTIVATIONS(Tanh, tanh)
ACTIVATIONS(Sigmoid, sigmoid)
ACTIVATIONS(Relu, relu)
ACTIVATIONS(Silu, silu)
ACTIVATIONS(Softplus, softplus)
ACTIVATIONS(Gelu, gelu)
ACTIVATIONS(GeluTanh, gelu_tanh)

#define GLU(T, name)                                                                                                  \
    extern "C" __global__ void __launch_bounds__(256) activation_glu_##name##_forward(const T* x, T* y, int n, int w) { \
        if (w % rows::VEC<T> == 0) glu_forward<T, rows::VEC<T>>(x, y, n, w);                                          \
        else glu_forward<T, 1>(x, y, n, w);                                                                           \
    }                                                                                                                 \
    EXPORT(activation_glu_##name##_forward)                                                                           \
    extern "C" __global__ void __launch_bounds__(256) activation_glu_##name##_backward(const T* x, const T* dy, T* dx, \
                                                                                       int n, int w) {                \
        if (w % rows::VEC<T> == 0) glu_backward<T, rows::VEC<T>>(x, dy, dx, n, w);                                    \
        else glu_backward<T, 1>(x, dy, dx, n, w);                                                                     \
    }                                                                                                                 \
    EXPORT(activation_glu_##name##_backward)

GLU(float, f32)
GLU(__half, f16)
GLU(__nv_bfloat16, bf16)

}  // namespace activation
