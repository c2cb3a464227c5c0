// Softmax and log-softmax over rows, with masks: a few threads or a block a row. A row that fits stays in registers; of a
// wider one the threads keep the maximum and the sum of what they have seen, and read it again, mostly from cache.
#include "rows.cuh"

namespace softmax {

// The places of a pack that the mask hides, a bit each.
template <int V>
__device__ __forceinline__ unsigned hidden(const unsigned char* mask, int i, int width) {
    const auto m = rows::load<V>(mask, i, width, static_cast<unsigned char>(1));
    unsigned bits = 0;
    UNROLL
    for (int j = 0; j < V; ++j) bits |= (m.v[j] == 0 ? 1u : 0u) << j;
    return bits;
}

// What a row's numbers become. A sum of 0 is that of a row without a finite score; NaN and infinity make the sum NaN.
struct Result {
    float top, sum, scale, log_sum;
    bool log;
    __device__ __forceinline__ Result(float t, float s, bool log_softmax) {
        top = t;
        sum = s;
        scale = s == 0 ? 0 : 1 / s;
        log_sum = logf(s);
        log = log_softmax;
    }
    __device__ __forceinline__ float of(float x, float e, bool hide) const {
        if (hide) return 0;
        if (!log) return e * scale;
        return sum == 0 ? -INFINITY : (isnan(sum) ? NAN : x - top - log_sum);
    }
};

// The largest and the sum of exponentials of what this thread sees of a row.
template <class T, bool W>
__device__ __forceinline__ void observe(const rows::Row<T, W>& row, const unsigned char* mask, float& top, float& sum) {
    constexpr int V = rows::VEC<T>, KEPT = rows::KEEP<T>;
    const T low = from_float<T>(-INFINITY);
    Pack<T, V> p[KEPT];
    unsigned hide[KEPT];
    for (int k = 0; k < row.turns(); k += KEPT) {
        float v[KEPT][V], higher = top;
        UNROLL
        for (int u = 0; u < KEPT; ++u) {
            if (row.has(k + u)) p[u] = rows::load<V>(row.data, row.at(k + u), row.width, low);
            hide[u] = row.has(k + u) && mask ? hidden<V>(mask, row.at(k + u), row.width) : 0;
        }
        UNROLL
        for (int u = 0; u < KEPT; ++u) {
            UNROLL
            for (int j = 0; j < V; ++j) {
                v[u][j] = row.has(k + u) && !(hide[u] >> j & 1) ? to_float(p[u].v[j]) : -INFINITY;
                higher = fmaxf(higher, v[u][j]);
            }
        }
        const float from = higher == -INFINITY ? 0 : higher;
        sum *= expf(top - from);
        top = higher;
        UNROLL
        for (int u = 0; u < KEPT; ++u) {
            UNROLL
            for (int j = 0; j < V; ++j) sum += expf(v[u][j] - from);
        }
    }
}

// Those of all threads; returns what is subtracted.
__device__ __forceinline__ float join(const rows::Team& team, float top, float& sum) {
    const float all = team.top(top), from = all == -INFINITY ? 0 : all;
    // A NaN among nothing but -inf stays.
    if (!isnan(sum)) sum *= expf(top - from);
    sum = team.sum(sum);
    return from;
}

template <class T, bool W>
__device__ __forceinline__ void write(const rows::Row<T, W>& row, const unsigned char* mask, T* y, const Result& result) {
    constexpr int V = rows::VEC<T>;
    const T low = from_float<T>(-INFINITY);
    const bool log = result.log;
    for (int k = 0; k < row.turns(); ++k) {
        if (!row.has(k)) continue;
        const auto q = rows::load<V>(row.data, row.at(k), row.width, low);
        const unsigned hides = mask ? hidden<V>(mask, row.at(k), row.width) : 0;
        float v[V];
        UNROLL
        for (int j = 0; j < V; ++j) {
            const float a = to_float(q.v[j]);
            v[j] = result.of(a, log ? 0 : expf(a - result.top), hides >> j & 1);
        }
        rows::store<V>(y, row.at(k), row.width, v);
    }
}

template <class T, bool W>
__device__ __forceinline__ void forward(const T* x, const unsigned char* mask, T* y, int count, int width, int lanes,
                                        bool log) {
    __shared__ float scratch[64];
    constexpr int V = rows::VEC<T>, KEPT = rows::KEEP<T>;
    const rows::Team team(lanes, count, scratch);
    const rows::Row<T, W> row(x, width, team);
    const size_t start = size_t(team.row) * width;
    const T low = from_float<T>(-INFINITY);
    Pack<T, V> p[KEPT];
    unsigned hide[KEPT];
    if ((width + 2 * V - 2) / V <= KEPT * lanes) {
        UNROLL
        for (int k = 0; k < KEPT; ++k) {
            if (row.has(k)) p[k] = rows::load<V, W>(row.data, row.at(k), row.width, low);
            hide[k] = row.has(k) && mask ? hidden<V>(mask + start, row.at(k), row.width) : 0;
        }
        float v[KEPT][V], top = -INFINITY, sum = 0;
        UNROLL
        for (int k = 0; k < KEPT; ++k) {
            UNROLL
            for (int j = 0; j < V; ++j) {
                v[k][j] = row.has(k) && !(hide[k] >> j & 1) ? to_float(p[k].v[j]) : -INFINITY;
                top = fmaxf(top, v[k][j]);
            }
        }
        top = team.top(top);
        const float from = top == -INFINITY ? 0 : top;
        UNROLL
        for (int k = 0; k < KEPT; ++k) {
            if (!row.has(k)) continue;
            UNROLL
            for (int j = 0; j < V; ++j) {
                const float e = expf(v[k][j] - from);
                if (!log) v[k][j] = e;
                sum += e;
            }
        }
        const Result result(from, team.sum(sum), log);
        UNROLL
        for (int k = 0; k < KEPT; ++k) {
            if (!row.has(k)) continue;
            UNROLL
            for (int j = 0; j < V; ++j) v[k][j] = result.of(v[k][j], v[k][j], hide[k] >> j & 1);
            rows::store<V, W>(y + start, row.at(k), row.width, v[k]);
        }
        return;
    }
    float top = -INFINITY, sum = 0;
    const unsigned char* const hides = mask ? mask + start : nullptr;
    observe(row, hides, top, sum);
    const float from = join(team, top, sum);
    write(row, hides, y + start, Result(from, sum, log));
}

// Softmax: dx = y (dy - sum y dy). Log-softmax: dx = dy - exp(y) sum dy, and 0 in a row of -inf.
template <class T, bool W>
__device__ __forceinline__ void backward(const T* y, const T* dy, T* dx, int count, int width, int lanes, bool log) {
    __shared__ float scratch[64];
    constexpr int V = rows::VEC<T>, KEPT = rows::KEEP<T>;
    const rows::Team team(lanes, count, scratch);
    const rows::Row<T, W> row(y, width, team);
    const size_t start = size_t(team.row) * width;
    const T outside = from_float<T>(log ? -INFINITY : 0), zero = from_float<T>(0);
    const bool kept = (width + 2 * V - 2) / V <= KEPT * lanes;
    Pack<T, V> p[KEPT], d[KEPT];
    float sum = 0, live = 0;
    for (int k = 0; k < (kept ? 1 : row.turns()); k += KEPT) {
        UNROLL
        for (int u = 0; u < KEPT; ++u) {
            if (!row.has(k + u)) continue;
            p[u] = rows::load<V, W>(row.data, row.at(k + u), row.width, outside);
            d[u] = rows::load<V, W>(dy + start, row.at(k + u), row.width, zero);
        }
        UNROLL
        for (int u = 0; u < KEPT; ++u) {
            if (!row.has(k + u)) continue;
            UNROLL
            for (int j = 0; j < V; ++j) {
                const float a = to_float(p[u].v[j]), g = to_float(d[u].v[j]);
                sum += log ? g : a * g;
                if (a != -INFINITY) live = 1;
            }
        }
    }
    sum = team.sum(sum);
    if (log) live = team.top(live);
    for (int k = 0; k < (kept ? 1 : row.turns()); k += KEPT) {
        UNROLL
        for (int u = 0; u < KEPT; ++u) {
            if (!row.has(k + u)) continue;
            if (!kept) {
                p[u] = rows::load<V, W>(row.data, row.at(k + u), row.width, outside);
                d[u] = rows::load<V, W>(dy + start, row.at(k + u), row.width, zero);
            }
            float v[V];
            UNROLL
            for (int j = 0; j < V; ++j) {
                const float a = to_float(p[u].v[j]), g = to_float(d[u].v[j]);
                v[j] = log ? (live != 0 ? g - expf(a) * sum : 0) : a * (g - sum);
            }
            rows::store<V, W>(dx + start, row.at(k + u), row.width, v);
        }
    }
}

// A few wide rows, in parts: a block (part, row) tells what its part comes to, and in a second launch each block joins the parts
// of its row.
struct Part {
    int first, width;
    size_t start;
    __device__ __forceinline__ Part(int row_width) {
        const int length = (row_width + gridDim.x - 1) / gridDim.x;
        first = min(static_cast<int>(blockIdx.x) * length, row_width);
        width = min(length, row_width - first);
        start = size_t(blockIdx.y) * row_width + first;
    }
};

template <class T>
__device__ __forceinline__ void parts(const T* x, const unsigned char* mask, float* found, int width) {
    __shared__ float scratch[64];
    const rows::Team team(blockDim.x, 1, scratch);
    const Part part(width);
    float top = -INFINITY, sum = 0;
    observe(rows::Row<T>(x + part.start, part.width), mask ? mask + part.start : nullptr, top, sum);
    const float all = team.top(top);
    if (!isnan(sum)) sum *= expf(top - (all == -INFINITY ? 0 : all));
    sum = team.sum(sum);
    if (threadIdx.x != 0) return;
    float* const to = found + 2 * (size_t(blockIdx.y) * gridDim.x + blockIdx.x);
    to[0] = all;
    to[1] = sum;
}

template <class T>
__device__ __forceinline__ void finish(const T* x, const unsigned char* mask, const float* found, T* y, int width,
                                       bool log) {
    __shared__ float scratch[64];
    const rows::Team team(blockDim.x, 1, scratch);
    const Part part(width);
    const float* const own = found + 2 * size_t(blockIdx.y) * gridDim.x;
    const bool has = threadIdx.x < gridDim.x;
    float sum = has ? own[2 * threadIdx.x + 1] : 0;
    const float from = join(team, has ? own[2 * threadIdx.x] : -INFINITY, sum);
    write(rows::Row<T>(x + part.start, part.width), mask ? mask + part.start : nullptr, y + part.start,
          Result(from, sum, log));
}

#define SOFTMAX(T, name)                                                                                              \
    extern "C" __global__ void __launch_bounds__(1024) softmax_forward_##name(                                        \
        const T* x, const unsigned char* mask, T* y, int count, int width, int lanes, int log) {                      \
        if (!mask && rows::whole(width, x, y))                                                                        \
            forward<T, true>(x, nullptr, y, count, width, lanes, log != 0);                                           \
        else                                                                                                          \
            forward<T, false>(x, mask, y, count, width, lanes, log != 0);                                             \
    }                                                                                                                 \
    EXPORT(softmax_forward_##name)                                                                                    \
    extern "C" __global__ void __launch_bounds__(512) softmax_parts_##name(const T* x, const unsigned char* mask,     \
                                                                           float* found, int width) {                 \
        parts<T>(x, mask, found, width);                                                                              \
    }                                                                                                                 \
    EXPORT(softmax_parts_##name)                                                                                      \
    extern "C" __global__ void __launch_bounds__(512) softmax_finish_##name(                                          \
        const T* x, const unsigned char* mask, const float* found, T* y, int width, int log) {                        \
        finish<T>(x, mask, found, y, width, log != 0);                                                                \
    }                                                                                                                 \
    EXPORT(softmax_finish_##name)                                                                                    \
    extern "C" __global__ void __launch_bounds__(1024) softmax_backward_##name(                                       \
        const T* y, const T* dy, T* dx, int count, int width, int lanes, int log) {                                   \
        if (rows::whole(width, y, dy, dx))                                                                            \
            backward<T, true>(y, dy, dx, count, width, lanes, log != 0);                                              \
        else                                                                                                          \
            backward<T, false>(y, dy, dx, count, width, lanes, log != 0);                                             \
    }                                                                                                                 \
    EXPORT(softmax_backward_##name)

SOFTMAX(float, f32)
SOFTMAX(__half, f16)
SOFTMAX(__nv_bfloat16, bf16)

}  // namespace softmax
