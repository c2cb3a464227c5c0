// Cross-entropy of rows of scores. The forward pass reads each score once and keeps the largest and the sum of exponentials
// below it; the gradient reads and writes each once.
#include "rows.cuh"

namespace cross_entropy {

constexpr int IGNORED = -100;
// Packs of a row under way at a time.
constexpr int AHEAD = 4;

// Calls work(score, class) for the scores of the row, with the bias on top.
template <class T, class Start, class Work, class End>
__device__ __forceinline__ void visit(const rows::Row<T>& row, const T* bias, Start start, Work work, End end) {
    constexpr int V = rows::VEC<T>;
    const int turns = row.turns();
    for (int k = 0; k < turns; k += AHEAD) {
        Pack<T, V> p[AHEAD];
        UNROLL
        for (int u = 0; u < AHEAD; ++u) {
            if (row.has(k + u)) p[u] = rows::load<V>(row.data, row.at(k + u), row.width, from_float<T>(-INFINITY));
        }
        UNROLL
        for (int u = 0; u < AHEAD; ++u) {
            if (!row.has(k + u)) continue;
            const int i = row.at(k + u);
            float v[V];
            UNROLL
            for (int j = 0; j < V; ++j) v[j] = to_float(p[u].v[j]);
            if (bias) {
                const auto b = rows::load<V>(bias, i, row.width, from_float<T>(0));
                UNROLL
                for (int j = 0; j < V; ++j) v[j] += to_float(b.v[j]);
            }
            start(v);
            UNROLL
            for (int j = 0; j < V; ++j) work(v[j], i + j);
            end(v, i);
        }
    }
}

// What a row needs of the options.
struct Options {
    const float* weights;
    float hard, share;
    __device__ __forceinline__ float weight(int c) const { return weights ? weights[c] : 1; }
};

// Arrays of `total` rows, one after the other: loss, the row's weight, largest score, sum, and what the probabilities are
// multiplied by in the gradient. The block's rows begin at `first`.
template <class T>
__device__ __forceinline__ void forward(const T* x, const T* bias, const int* ids, Options o, float* kept, int first,
                                        int count, int total, int width, int lanes) {
    __shared__ float scratch[64];
    rows::Team team(lanes, count, scratch);
    const long long at = first + team.row;
    const bool there = team.live;
    const int target = there ? ids[at] : IGNORED;
    team.live = target != IGNORED;
    const rows::Row<T> row(x, width, team);
    // `shifted` is the sum of w (x - top), `all` that of w.
    float top = -INFINITY, sum = 0, shifted = 0, all = 0;
    const auto rise = [&](float higher) {
        if (higher == top) return;
        if (top != -INFINITY) {
            sum *= expf(top - higher);
            shifted += all * (top - higher);
        }
        top = higher;
    };
    visit(
        row, bias,
        [&](const float(&v)[rows::VEC<T>]) {
            float higher = top;
            UNROLL
            for (int j = 0; j < rows::VEC<T>; ++j) higher = fmaxf(higher, v[j]);
            rise(higher);
        },
        [&](float v, int c) {
            // Nothing but -inf so far adds nothing, but NaN stays.
            sum += top == -INFINITY ? (isnan(v) ? NAN : 0) : expf(v - top);
            if (o.share != 0 && c >= 0 && c < row.width) {
                const float w = o.weight(c);
                shifted += w * (top == -INFINITY ? v : v - top);
                all += w;
            }
        },
        [](const float(&)[rows::VEC<T>], int) {});
    rise(team.top(top));
    team.sum2(sum, shifted);
    if (o.share != 0 && o.weights) all = team.sum(all);
    else all = width;
    if (!there || team.lane != 0) return;
    const float weight = team.live ? o.weight(target) : 0, hard = o.hard * weight, soft = o.share * all;
    float loss = 0;
    if (team.live) {
        const float log_sum = logf(sum);
        const float score = to_float(row.data[target]) + (bias ? to_float(bias[target]) : 0);
        loss = hard * (log_sum - (score - top));
        if (o.share != 0) loss += soft * log_sum - o.share * shifted;
        if (sum == 0) loss = INFINITY;
    }
    kept[at] = loss;
    kept[size_t(total) + at] = weight;
    kept[2 * size_t(total) + at] = top;
    kept[3 * size_t(total) + at] = sum;
    kept[4 * size_t(total) + at] = hard + soft;
}

// The gradient of the scores, also in their place: (hard w_y + soft) p - share w - hard w_y [y], times the gradient of the
// loss: one for all rows, to be divided by `divisor`, or one a row.
template <class T>
__device__ __forceinline__ void gradient(const T* x, const T* bias, const int* ids, Options o, const float* kept,
                                         const T* grads, const float* divisor, T* dx, int first, int count, int total,
                                         int width, int lanes, bool each) {
    constexpr int V = rows::VEC<T>;
    rows::Team team(lanes, count, nullptr);
    const long long at = first + team.row;
    if (!team.live) return;
    const int target = ids[at];
    const float top = kept[2 * size_t(total) + at], sum = kept[3 * size_t(total) + at];
    const bool counts = target != IGNORED && sum != 0;
    float grad = 0, scale = 0, share = 0, own = 0;
    if (counts) {
        grad = grads ? to_float(grads[each ? at : 0]) : 1;
        if (divisor) grad /= divisor[0];
        scale = grad * kept[4 * size_t(total) + at] / sum;
        share = grad * o.share;
        own = grad * o.hard * o.weight(target);
    }
    const rows::Row<T> row(x, width, team);
    T* const to = dx + size_t(team.row) * width;
    if (!counts) {
        const float zeros[V] = {};
        for (int k = 0; k < row.turns(); ++k) {
            if (row.has(k)) rows::store<V>(to, row.at(k), row.width, zeros);
        }
        return;
    }
    visit(
        row, bias, [](const float(&)[V]) {}, [](float, int) {},
        [&](float(&v)[V], int i) {
            UNROLL
            for (int j = 0; j < V; ++j) {
                v[j] = expf(v[j] - top) * scale;
                if (share != 0 && i + j >= 0 && i + j < row.width) v[j] -= share * o.weight(i + j);
                if (i + j == target) v[j] -= own;
            }
            rows::store<V>(to, i, row.width, v);
        });
}

// The sum of losses over that of weights, or over a number; one block.
template <class T>
__device__ __forceinline__ void total(const float* losses, const float* weights, T* y, float* divisor, int n,
                                      float number) {
    __shared__ float scratch[64];
    const rows::Team team(blockDim.x, 1, scratch);
    float loss = 0, weight = 0;
#pragma unroll 8
    for (int i = threadIdx.x; i < n; i += 1024) {
        loss += losses[i];
        if (weights) weight += weights[i];
    }
    team.sum2(loss, weight);
    if (threadIdx.x != 0) return;
    if (!weights) weight = number;
    if (y) y[0] = from_float<T>(loss / weight);
    if (divisor) divisor[0] = weight;
}

// The weights of the rows' targets, without scores.
__device__ __forceinline__ void target_weights(const int* ids, const float* weights, float* y, int n) {
    const int i = blockIdx.x * 256 + threadIdx.x;
    if (i < n) y[i] = ids[i] == IGNORED ? 0 : (weights ? weights[ids[i]] : 1);
}

#define CROSS_ENTROPY(T, name)                                                                                        \
    extern "C" __global__ void __launch_bounds__(512) cross_entropy_forward_##name(                                  \
        const T* x, const T* bias, const int* ids, const float* weights, float* kept, int first, int count, int rows, \
        int width, int lanes, float hard, float share) {                                                              \
        forward<T>(x, bias, ids, {weights, hard, share}, kept, first, count, rows, width, lanes);                     \
    }                                                                                                                 \
    EXPORT(cross_entropy_forward_##name)                                                                              \
    extern "C" __global__ void __launch_bounds__(512) cross_entropy_gradient_##name(                                 \
        const T* x, const T* bias, const int* ids, const float* weights, const float* kept, const T* grads,           \
        const float* divisor, T* dx, int first, int count, int rows, int width, int lanes, int each, float hard,      \
        float share) {                                                                                                \
        gradient<T>(x, bias, ids, {weights, hard, share}, kept, grads, divisor, dx, first, count, rows, width, lanes, \
                    each != 0);                                                                                       \
    }                                                                                                                 \
    EXPORT(cross_entropy_gradient_##name)                                                                             \
    extern "C" __global__ void __launch_bounds__(1024) cross_entropy_total_##name(                                    \
        const float* losses, const float* weights, T* y, float* divisor, int n, float number) {                       \
        total<T>(losses, weights, y, divisor, n, number);                                                             \
    }                                                                                                                 \
    EXPORT(cross_entropy_total_##name)                                                                                \
    extern "C" __global__ void __launch_bounds__(256) cross_entropy_scaled_##name(const T* x, const T* scale, T* y,   \
                                                                                  int n) {                            \
        const float s = to_float(scale[0]);                                                                           \
        rows::map(x, y, n, [s](float x) { return x * s; });                                                           \
    }                                                                                                                 \
    EXPORT(cross_entropy_scaled_##name)                                                                               \
    extern "C" __global__ void __launch_bounds__(256) cross_entropy_round_##name(const float* x, T* y, int n) {       \
        const int i = blockIdx.x * 256 + threadIdx.x;                                                                 \
        if (i < n) y[i] = from_float<T>(x[i]);                                                                        \
    }                                                                                                                 \
    EXPORT(cross_entropy_round_##name)

CROSS_ENTROPY(float, f32)
CROSS_ENTROPY(__half, f16)
CROSS_ENTROPY(__nv_bfloat16, bf16)

extern "C" __global__ void __launch_bounds__(256)
    cross_entropy_weights(const int* ids, const float* weights, float* y, int n) {
    target_weights(ids, weights, y, n);
}
EXPORT(cross_entropy_weights)

}  // namespace cross_entropy
