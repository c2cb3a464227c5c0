// Layer norm and RMS norm. Rows stay in registers where they fit. The gradients of weight and bias are sums over columns,
// of parts of the rows first.
#include "rows.cuh"

namespace normalization {

// A row's normalized numbers are ((x - mean) - rest) scale: the rest of the mean is what its rounding left out.
struct Stats {
    float mean, rest, scale;
    __device__ __forceinline__ float of(float x) const { return (x - mean - rest) * scale; }
};

// Calls work(pack, u) for each pack of the row, of which KEEP are loaded at a time. Where all of them stay, only the first
// time loads.
template <bool W, class T, class Work>
__device__ __forceinline__ void visit(const rows::Row<T, W>& row, Pack<T, rows::VEC<T>> (&p)[rows::KEEP<T>], bool kept,
                                      bool first, Work work) {
    constexpr int V = rows::VEC<T>, K = rows::KEEP<T>;
    for (int k = 0; k < (kept ? 1 : row.turns()); k += K) {
        if (first || !kept) {
            UNROLL
            for (int u = 0; u < K; ++u) {
                if (row.has(k + u)) p[u] = rows::load<V, W>(row.data, row.at(k + u), row.width, T());
            }
        }
        UNROLL
        for (int u = 0; u < K; ++u) {
            if (row.has(k + u)) work(p[u], row.at(k + u));
        }
    }
}

__device__ __forceinline__ bool inside(int i, int width) { return i >= 0 && i < width; }

template <class T, bool W>
__device__ __forceinline__ void forward(const T* x, const T* weight, const T* bias, T* y, float* stats, int count,
                                        int width, int lanes, bool centred, float eps) {
    __shared__ float scratch[64];
    constexpr int V = rows::VEC<T>, K = rows::KEEP<T>;
    const rows::Team team(lanes, count, scratch);
    const rows::Row<T, W> row(x, width, team);
    const bool kept = (width + 2 * V - 2) / V <= K * lanes;
    const float share = 1.f / width;
    Pack<T, V> p[K];
    Stats s{0, 0, 0};
    bool first = true;
    if (centred) {
        float sum = 0;
        visit(row, p, kept, true, [&](const Pack<T, V>& q, int i) {
            UNROLL
            for (int j = 0; j < V; ++j) sum += (W || inside(i + j, row.width)) ? to_float(q.v[j]) : 0;
        });
        s.mean = team.sum(sum) * share;
        first = false;
    }
    float rest = 0, square = 0;
    visit(row, p, kept, first, [&](const Pack<T, V>& q, int i) {
        UNROLL
        for (int j = 0; j < V; ++j) {
            const float c = (W || inside(i + j, row.width)) ? to_float(q.v[j]) - s.mean : 0;
            rest += c;
            square += c * c;
        }
    });
    team.sum2(rest, square);
    // The rest is no more than the rounding of the mean: its square takes nothing off that counts.
    s.rest = centred ? rest * share : 0;
    s.scale = 1 / sqrtf(fmaxf(square * share - s.rest * s.rest, 0) + eps);
    if (isnan(square)) s.scale = NAN;
    const size_t start = size_t(team.row) * width;
    visit(row, p, kept, false, [&](const Pack<T, V>& q, int i) {
        Pack<T, V> w, b;
        if (weight) w = rows::load<V, W>(weight, i, row.width, T());
        if (bias) b = rows::load<V, W>(bias, i, row.width, T());
        float v[V];
        UNROLL
        for (int j = 0; j < V; ++j) {
            v[j] = s.of(to_float(q.v[j]));
            if (weight) v[j] *= to_float(w.v[j]);
            if (bias) v[j] += to_float(b.v[j]);
        }
        rows::store<V, W>(y + start, i, row.width, v);
    });
    if (stats && team.live && team.lane == 0) {
        stats[team.row] = s.mean;
        stats[size_t(count) + team.row] = s.rest;
        stats[2 * size_t(count) + team.row] = s.scale;
    }
}

__device__ __forceinline__ Stats read_stats(const float* stats, int count, long long row) {
    return {stats[row], stats[size_t(count) + row], stats[2 * size_t(count) + row]};
}

// With g = dy weight and the normalized row z: dx = scale (g - mean(g) - z mean(g z)), without mean(g) for RMS norm.
template <class T, bool W>
__device__ __forceinline__ void backward(const T* x, const T* dy, const T* weight, const float* stats, T* dx, int count,
                                         int width, int lanes, bool centred) {
    __shared__ float scratch[64];
    constexpr int V = rows::VEC<T>, K = rows::KEEP<T>;
    const rows::Team team(lanes, count, scratch);
    const rows::Row<T, W> row(x, width, team);
    const size_t start = size_t(team.row) * width;
    const bool kept = (width + 2 * V - 2) / V <= K * lanes;
    const Stats s = team.live ? read_stats(stats, count, team.row) : Stats{0, 0, 0};
    Pack<T, V> p[K], d[K];
    // Gradients past the row's ends are 0, so that nothing else there counts.
    const auto read = [&](int k, int u) {
        p[u] = rows::load<V, W>(row.data, row.at(k + u), row.width, T());
        d[u] = rows::load<V, W>(dy + start, row.at(k + u), row.width, from_float<T>(0));
    };
    const auto gradient = [&](int u, const Pack<T, V>& w, int j) {
        return weight ? to_float(d[u].v[j]) * to_float(w.v[j]) : to_float(d[u].v[j]);
    };
    float plain = 0, product = 0;
    for (int k = 0; k < (kept ? 1 : row.turns()); k += K) {
        UNROLL
        for (int u = 0; u < K; ++u) {
            if (row.has(k + u)) read(k, u);
        }
        UNROLL
        for (int u = 0; u < K; ++u) {
            if (!row.has(k + u)) continue;
            Pack<T, V> w;
            if (weight) w = rows::load<V, W>(weight, row.at(k + u), row.width, from_float<T>(0));
            UNROLL
            for (int j = 0; j < V; ++j) {
                const bool in = W || inside(row.at(k + u) + j, row.width);
                const float g = gradient(u, w, j);
                plain += g;
                product += in ? g * s.of(to_float(p[u].v[j])) : 0;
            }
        }
    }
    team.sum2(plain, product);
    plain = centred ? plain / width : 0;
    product /= width;
    for (int k = 0; k < (kept ? 1 : row.turns()); k += K) {
        UNROLL
        for (int u = 0; u < K; ++u) {
            if (!row.has(k + u)) continue;
            if (!kept) read(k, u);
            Pack<T, V> w;
            if (weight) w = rows::load<V, W>(weight, row.at(k + u), row.width, from_float<T>(0));
            float v[V];
            UNROLL
            for (int j = 0; j < V; ++j)
                v[j] = (gradient(u, w, j) - plain - s.of(to_float(p[u].v[j])) * product) * s.scale;
            rows::store<V, W>(dx + start, row.at(k + u), row.width, v);
        }
    }
}

template <class T, int V>
struct Loaded {
    Pack<T, V> x, dy;
    Stats s;
};

// S = 1: the sums of dy z. S = 2: those of dy, too, after them.
template <class T, int S, int V, bool W>
__device__ __forceinline__ void columns(const T* x, const T* dy, const float* stats, float* sums, int count, int width,
                                        int lanes) {
    rows::column_sums<S, V>(
        count, width, lanes,
        [&](long long row, int column) {
            return Loaded<T, V>{rows::load<V, W>(x + row * width, column, width, T()),
                                rows::load<V, W>(dy + row * width, column, width, T()), read_stats(stats, count, row)};
        },
        [&](const Loaded<T, V>& l, float (&sums)[S][V]) {
            UNROLL
            for (int j = 0; j < V; ++j) {
                const float d = to_float(l.dy.v[j]);
                sums[0][j] += d * l.s.of(to_float(l.x.v[j]));
                if (S == 2) sums[S - 1][j] += d;
            }
        },
        [&](int s, int column, float sum) { sums[(size_t(blockIdx.y) * S + s) * width + column] = sum; });
}

#define NORM_COLUMNS(T, S, V, name)                                                                                   \
    extern "C" __global__ void __launch_bounds__(256) norm_columns##S##_##name(                                       \
        const T* x, const T* dy, const float* stats, float* sums, int count, int width, int lanes) {                  \
        if (V > 1 && rows::whole(width, x, dy))                                                                       \
            columns<T, S, V, true>(x, dy, stats, sums, count, width, lanes);                                          \
        else                                                                                                          \
            columns<T, S, V, false>(x, dy, stats, sums, count, width, lanes);                                         \
    }                                                                                                                 \
    EXPORT(norm_columns##S##_##name)

#define NORM(T, name)                                                                                                 \
    extern "C" __global__ void __launch_bounds__(1024) norm_forward_##name(                                           \
        const T* x, const T* weight, const T* bias, T* y, float* stats, int count, int width, int lanes, int centred, \
        float eps) {                                                                                                  \
        if (rows::whole(width, x, weight, bias, y))                                                                   \
            forward<T, true>(x, weight, bias, y, stats, count, width, lanes, centred != 0, eps);                      \
        else                                                                                                          \
            forward<T, false>(x, weight, bias, y, stats, count, width, lanes, centred != 0, eps);                     \
    }                                                                                                                 \
    EXPORT(norm_forward_##name)                                                                                       \
    extern "C" __global__ void __launch_bounds__(1024) norm_backward_##name(                                          \
        const T* x, const T* dy, const T* weight, const float* stats, T* dx, int count, int width, int lanes,         \
        int centred) {                                                                                                \
        if (rows::whole(width, x, dy, weight, dx))                                                                    \
            backward<T, true>(x, dy, weight, stats, dx, count, width, lanes, centred != 0);                           \
        else                                                                                                          \
            backward<T, false>(x, dy, weight, stats, dx, count, width, lanes, centred != 0);                          \
    }                                                                                                                 \
    EXPORT(norm_backward_##name)                                                                                      \
    NORM_COLUMNS(T, 1, rows::VEC<T>, name)                                                                                 \
    NORM_COLUMNS(T, 2, rows::VEC<T>, name)                                                                                 \
    NORM_COLUMNS(T, 1, 1, single_##name)                                                                                   \
    NORM_COLUMNS(T, 2, 1, single_##name)

NORM(float, f32)
NORM(__half, f16)
NORM(__nv_bfloat16, bf16)

}  // namespace normalization
