// Steps of optimisers in place, for many parameters in one launch, and sums of squares. The rules are those of the
// folder's Rust files, in the same order of operations.
#include "common.cuh"

namespace optimizer {

// Addresses or numbers, one a parameter, given to the launch by value.
struct Table {
    unsigned long long at[32];
};

// Numbers of a parameter that one block takes.
constexpr int CHUNK = 4096;

struct Constants {
    float at[8];
};

// New p and s from old ones and the gradient g.
struct Descent {
    static constexpr int STATES = 0;
    static __device__ void update(const float* c, float& p, float g, float*) { p = p - c[0] * (g + c[1] * p); }
};

template <bool FIRST, bool NESTEROV>
struct Momentum {
    static constexpr int STATES = 1;
    static __device__ void update(const float* c, float& p, float g, float* s) {
        g = g + c[1] * p;
        s[0] = FIRST ? g : c[2] * s[0] + c[3] * g;
        p = p - c[0] * (NESTEROV ? g + c[2] * s[0] : s[0]);
    }
};

template <bool TOP>
struct Adam {
    static constexpr int STATES = TOP ? 3 : 2;
    static __device__ void update(const float* c, float& p, float g, float* s) {
        p = p * c[0];
        g = g + c[1] * p;
        s[0] = s[0] + c[2] * (g - s[0]);
        s[1] = c[3] * s[1] + c[4] * g * g;
        float v = s[1];
        if (TOP) {
            // A NaN on either side gives NaN.
            s[2] = s[2] > v || s[2] != s[2] ? s[2] : v;
            v = s[2];
        }
        p = p - c[5] * s[0] / (sqrtf(v) / c[6] + c[7]);
    }
};

struct Adagrad {
    static constexpr int STATES = 1;
    static __device__ void update(const float* c, float& p, float g, float* s) {
        g = g + c[1] * p;
        s[0] = s[0] + g * g;
        p = p - c[0] * g / (sqrtf(s[0]) + c[2]);
    }
};

template <bool CENTERED, bool MOMENTUM>
struct RmsProp {
    static constexpr int STATES = 1 + CENTERED + MOMENTUM;
    static __device__ void update(const float* c, float& p, float g, float* s) {
        g = g + c[0] * p;
        s[0] = c[1] * s[0] + c[2] * g * g;
        float v = s[0];
        if (CENTERED) {
            s[1] = s[1] + c[2] * (g - s[1]);
            v = v - s[1] * s[1];
        }
        float d = g / (sqrtf(v) + c[4]);
        if (MOMENTUM) {
            float& b = s[1 + CENTERED];
            b = c[5] * b + d;
            d = b;
        }
        p = p - c[3] * d;
    }
};

struct Graves {
    static constexpr int STATES = 3;
    static __device__ void update(const float* c, float& p, float g, float* s) {
        g = g + c[0] * p;
        s[0] = c[1] * s[0] + c[2] * g * g;
        s[1] = c[1] * s[1] + c[2] * g;
        s[2] = c[5] * s[2] - c[3] * g / sqrtf(s[0] - s[1] * s[1] + c[4]);
        p = p + s[2];
    }
};

struct Lerp {
    static constexpr int STATES = 0;
    static __device__ void update(const float* c, float& p, float g, float*) { p = p + c[0] * (g - p); }
};

struct AddScaled {
    static constexpr int STATES = 0;
    static __device__ void update(const float* c, float& p, float g, float*) { p = c[0] * p + g; }
};

// A NaN stays.
struct Clamp {
    static constexpr int STATES = 0;
    static __device__ void update(const float* c, float& p, float g, float*) {
        const float x = g > c[1] ? c[1] : g;
        p = x < c[0] ? c[0] : x;
    }
};

// Which parameter a block works on: `ends` says at which block each one ends.
__device__ inline int owner(const Table& ends, int count) {
    int low = 0, high = count - 1;
    while (low < high) {
        const int mid = (low + high) / 2;
        if (blockIdx.x < unsigned(ends.at[mid])) high = mid;
        else low = mid + 1;
    }
    return low;
}

template <class Rule, int V>
__device__ void sweep(const Constants& c, float scale, float* p, const float* g, float* const* s, int count) {
    using P = Pack<float, V>;
    for (int i = threadIdx.x; i < count / V; i += blockDim.x) {
        P x = reinterpret_cast<P*>(p)[i];
        const P d = reinterpret_cast<const P*>(g)[i];
        P states[Rule::STATES + 1];
#pragma unroll
        for (int k = 0; k < Rule::STATES; k++) states[k] = reinterpret_cast<P*>(s[k])[i];
#pragma unroll
        for (int j = 0; j < V; j++) {
            float now[Rule::STATES + 1];
#pragma unroll
            for (int k = 0; k < Rule::STATES; k++) now[k] = states[k].v[j];
            Rule::update(c.at, x.v[j], d.v[j] * scale, now);
#pragma unroll
            for (int k = 0; k < Rule::STATES; k++) states[k].v[j] = now[k];
        }
        reinterpret_cast<P*>(p)[i] = x;
#pragma unroll
        for (int k = 0; k < Rule::STATES; k++) reinterpret_cast<P*>(s[k])[i] = states[k];
    }
}

// `ends` counts blocks, `sizes` numbers; `scales` holds floats.
template <class Rule>
__device__ void step(const Constants& c, const Table& params, const Table& grads, const Table& s0, const Table& s1,
                     const Table& s2, const Table& ends, const Table& sizes, const Table& scales, int count) {
    const int k = owner(ends, count);
    const size_t from = size_t(blockIdx.x - (k ? unsigned(ends.at[k - 1]) : 0)) * CHUNK, size = sizes.at[k];
    const int n = int(min((unsigned long long)CHUNK, (unsigned long long)(size - from)));
    float* p = reinterpret_cast<float*>(params.at[k]) + from;
    const float* g = reinterpret_cast<const float*>(grads.at[k]) + from;
    float* const s[3] = {reinterpret_cast<float*>(s0.at[k]) + from, reinterpret_cast<float*>(s1.at[k]) + from,
                         reinterpret_cast<float*>(s2.at[k]) + from};
    const unsigned long long all = params.at[k] | grads.at[k] | s0.at[k] | s1.at[k] | s2.at[k];
    const float scale = __uint_as_float(unsigned(scales.at[k]));
    if (all % 16 == 0 && n % 4 == 0) sweep<Rule, 4>(c, scale, p, g, s, n);
    else sweep<Rule, 1>(c, scale, p, g, s, n);
}

// The sum of squares of each block's numbers, in double; blocks are shared out as above.
__device__ inline void squares(const Table& tensors, const Table& ends, const Table& sizes, double* parts, int count) {
    __shared__ double scratch[32];
    const int k = owner(ends, count);
    const size_t from = size_t(blockIdx.x - (k ? unsigned(ends.at[k - 1]) : 0)) * CHUNK, size = sizes.at[k];
    const int n = int(min((unsigned long long)CHUNK, (unsigned long long)(size - from)));
    const float* x = reinterpret_cast<const float*>(tensors.at[k]) + from;
    double sum = 0;
    if (tensors.at[k] % 16 == 0 && n % 4 == 0) {
#pragma unroll 4
        for (int i = threadIdx.x; i < n / 4; i += blockDim.x) {
            const Pack<float, 4> p = reinterpret_cast<const Pack<float, 4>*>(x)[i];
#pragma unroll
            for (int j = 0; j < 4; j++) sum += double(p.v[j]) * p.v[j];
        }
    } else {
        for (int i = threadIdx.x; i < n; i += blockDim.x) sum += double(x[i]) * x[i];
    }
    sum = block_sum(sum, scratch);
    if (threadIdx.x == 0) parts[blockIdx.x] = sum;
}

#define OPTIMIZER(name, ...)                                                                                          \
    extern "C" __global__ void optimizer_##name(Table params, Table grads, Table s0, Table s1, Table s2, Table ends,   \
                                                Table sizes, Table scales, int count, float c0, float c1, float c2,   \
                                                float c3, float c4, float c5, float c6, float c7) {                   \
        const Constants c = {{c0, c1, c2, c3, c4, c5, c6, c7}};                                                       \
        step<__VA_ARGS__>(c, params, grads, s0, s1, s2, ends, sizes, scales, count);                                  \
    }                                                                                                                 \
    EXPORT(optimizer_##name)

OPTIMIZER(sgd, Descent)
OPTIMIZER(momentum, Momentum<false, false>)
OPTIMIZER(momentum_first, Momentum<true, false>)
OPTIMIZER(nesterov, Momentum<false, true>)
OPTIMIZER(nesterov_first, Momentum<true, true>)
OPTIMIZER(adam, Adam<false>)
OPTIMIZER(amsgrad, Adam<true>)
OPTIMIZER(adagrad, Adagrad)
OPTIMIZER(rmsprop, RmsProp<false, false>)
OPTIMIZER(rmsprop_momentum, RmsProp<false, true>)
OPTIMIZER(rmsprop_centered, RmsProp<true, false>)
OPTIMIZER(rmsprop_centered_momentum, RmsProp<true, true>)
OPTIMIZER(rmsprop_graves, Graves)
OPTIMIZER(lerp, Lerp)
OPTIMIZER(add_scaled, AddScaled)
OPTIMIZER(clamp, Clamp)

extern "C" __global__ void optimizer_squares(Table tensors, Table ends, Table sizes, double* parts, int count) {
    squares(tensors, ends, sizes, parts, count);
}
EXPORT(optimizer_squares)

}  // namespace optimizer
