// The forward pass: a block takes 64 or 128 queries of one head over all tiles of keys that they see, with a running maximum
// and sum of each row (Milakov & Gimelshein 2018; Dao 2023, "FlashAttention-2"). A warp owns 16 or 32 whole rows.
#include "attention.cuh"

namespace attention {

// Running maxima and sums of two rows of a lane. Maxima are those of bare products, or with more terms of scores in base 2.
struct Rows {
    float top[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0};
    // The sums of what lies beyond Shaw's distances, to the left and right.
    float low[2] = {0, 0}, high[2] = {0, 0};
};

// The products of a tile, or with more terms its scores in base 2, -inf where hidden. Shaw's weights are laid aside as scores.
template <class T, int COLUMNS, bool RICH>
__device__ __forceinline__ void finish(float (*s)[4], const Problem& p, const Head<T>& head, int length, int row, int column,
                                       bool whole, float* shaw) {
    if (!RICH && whole) return;
    const int t = threadIdx.x % 4;
    int start[2] = {}, end[2] = {};
    UNROLL
    for (int r = 0; r < 2; ++r) start[r] = p.start(row + 8 * r), end[r] = p.end(row + 8 * r, length);
    UNROLL
    for (int c = 0; c < COLUMNS / 8; ++c) {
        UNROLL
        for (int e = 0; e < 4; ++e) {
            const int r = e / 2, i = row + 8 * r, j = column + 8 * c + 2 * t + e % 2;
            const bool seen = whole || (j >= start[r] && j < end[r]);
            if constexpr (RICH) {
                const bool real = seen && i < p.n_q;
                s[c][e] = real ? head.score(s[c][e], i, j) : -INFINITY;
                if (shaw && real) {
                    const int place = head.place(i, j);
                    if (place > 0 && place < head.terms.places - 1) {
                        shaw[head.row(i) * head.terms.places + place] = s[c][e];
                    }
                }
            } else {
                if (!seen) s[c][e] = -INFINITY;
            }
        }
    }
}

// From scores to weights that are not yet divided by their sum; what was summed before is brought to the new maximum.
template <class T, int D, int COLUMNS, bool RICH>
__device__ __forceinline__ void accumulate(float (*s)[4], float (*o)[4], Rows& rows, const Head<T>& head, float scale, int row,
                                           int column, bool shaw) {
    const int t = threadIdx.x % 4;
    UNROLL
    for (int r = 0; r < 2; ++r) {
        float top = rows.top[r];
        UNROLL
        for (int c = 0; c < COLUMNS / 8; ++c) top = fmaxf(top, fmaxf(s[c][2 * r], s[c][2 * r + 1]));
        top = quad_max(top);
        const float shift = top == -INFINITY ? 0 : top * scale, factor = power(rows.top[r] * scale - shift);
        rows.top[r] = top;
        float sum = 0;
        UNROLL
        for (int c = 0; c < COLUMNS / 8; ++c) {
            UNROLL
            for (int e = 2 * r; e < 2 * r + 2; ++e) {
                s[c][e] = power(s[c][e] * scale - shift);
                sum += s[c][e];
            }
        }
        rows.sum[r] = rows.sum[r] * factor + sum;
        UNROLL
        for (int c = 0; c < D / 8; ++c) o[c][2 * r] *= factor, o[c][2 * r + 1] *= factor;
        if constexpr (RICH) {
            rows.low[r] *= factor;
            rows.high[r] *= factor;
            const int i = row + 8 * r, last = head.terms.places - 1;
            Philox rng;
            UNROLL
            for (int c = 0; c < COLUMNS / 8; ++c) {
                UNROLL
                for (int e = 0; e < 2; ++e) {
                    const int j = column + 8 * c + 2 * t + e;
                    float& weight = s[c][2 * r + e];
                    weight *= head.factor(rng, i, j);
                    if (shaw) {
                        const int place = head.place(i, j);
                        if (place == 0) rows.low[r] += weight;
                        if (place == last && last > 0) rows.high[r] += weight;
                    }
                }
            }
        }
    }
}

// Shaw's weights (n_q, places) of a lane's rows: the ends are sums, between them stand scores of single keys.
template <class T>
__device__ __forceinline__ void finish_shaw(float* shaw, Rows& rows, const Head<T>& head, int row, const float (&total)[2]) {
    const int t = threadIdx.x % 4, places = head.terms.places;
    __syncwarp();
    UNROLL
    for (int r = 0; r < 2; ++r) {
        const int i = row + 8 * r;
        const float low = quad_sum(rows.low[r]), high = quad_sum(rows.high[r]);
        const float divisor = total[r] == 0 ? 0 : 1 / total[r], shift = rows.top[r] == -INFINITY ? 0 : rows.top[r];
        if (i >= head.p.n_q) continue;
        float* weights = shaw + head.row(i) * places;
        Philox rng;
        for (int place = t; place < places; place += 4) {
            float weight;
            if (place == 0) {
                weight = low * divisor;
            } else if (place == places - 1) {
                weight = high * divisor;
            } else {
                const int j = place - places / 2 + i + head.p.n_k - head.p.n_q;
                weight = power(weights[place] - shift) * divisor;
                if (j >= 0 && j < head.p.n_k) weight *= head.factor(rng, i, j);
            }
            weights[place] = weight;
        }
    }
}

template <class T, int D, int TILES, bool RICH>
__device__ __forceinline__ void forward(const T* q, const T* k, const T* v, T* output, T* log_sum_exp, float* exact, float* shaw,
                                        const Problem& p, const Terms<T>& terms) {
    using F = Fragment<T>;
    using S = Shape<T, D>;
    constexpr int ROWS = 64 * TILES, COLUMNS = S::COLUMNS, STRIDE = S::STRIDE;
    DYNAMIC_SHARED(T, queries);
    T* const tiles = queries + ROWS * STRIDE;
    const int blocks = ceil_div(p.n_q, ROWS), heads = gridDim.x / blocks;
    // Under a causal mask the last queries have most to do: they come first.
    const int bh = p.right ? blockIdx.x % heads : blockIdx.x / blocks;
    const int block = p.right ? blocks - 1 - blockIdx.x / heads : blockIdx.x % blocks;
    const Head<T> head(p, terms, bh);
    const int kv = bh / p.group, length = p.length(head.batch), first = block * ROWS;
    const int last = min(first + ROWS, p.n_q) - 1, warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4;
    const int from = p.start(first) / COLUMNS, until = ceil_div(max(p.end(last, length), 0), COLUMNS);
    const bool aligned = p.aligned;
    k += size_t(kv) * p.n_k * p.d;
    v += size_t(kv) * p.n_k * p.d_v;
    const auto load = [&](int tile) {
        T* const to = tiles + tile % 2 * 2 * COLUMNS * STRIDE;
        load_tile<T, D, COLUMNS>(to, k, tile * COLUMNS, p.n_k, p.d, aligned);
        load_tile<T, D, COLUMNS>(to + COLUMNS * STRIDE, v, tile * COLUMNS, p.n_k, p.d_v, aligned);
    };
    load_tile<T, D, ROWS>(queries, q + size_t(bh) * p.n_q * p.d, first, p.n_q, p.d, aligned);
    if (from < until) load(from);
    cp_async_commit();

    float o[TILES][D / 8][4] = {};
    Rows rows[TILES];
    const int own = warp * 16 * TILES;
    // From what maxima are of to base 2; positive, so that the largest product has the largest weight.
    const float scale = RICH ? 1 : p.scale * LOG2_E;
    typename F::A kept[TILES][S::KEEP ? S::STEPS : 1];
    cp_async_wait<0>();
    __syncthreads();
    if constexpr (S::KEEP) {
        UNROLL
        for (int m = 0; m < TILES; ++m) {
            UNROLL
            for (int step = 0; step < S::STEPS; ++step) F::load_a(kept[m][step], queries, STRIDE, own + 16 * m, step * F::STEP);
        }
    }
    for (int tile = from; tile < until; ++tile) {
        cp_async_wait<0>();
        __syncthreads();
        if (tile + 1 < until) load(tile + 1);
        cp_async_commit();
        const T* const keys = tiles + tile % 2 * 2 * COLUMNS * STRIDE;
        const T* const values = keys + COLUMNS * STRIDE;
        const int column = tile * COLUMNS;
        const bool whole = column >= p.start(last) && column + COLUMNS <= p.end(first, length);
        float s[TILES][COLUMNS / 8][4] = {};
        UNROLL
        for (int step = 0; step < S::STEPS; ++step) {
            typename F::A a[TILES];
            UNROLL
            for (int m = 0; m < TILES; ++m) {
                if constexpr (S::KEEP) {
                    a[m] = kept[m][step];
                } else {
                    F::load_a(a[m], queries, STRIDE, own + 16 * m, step * F::STEP);
                }
            }
            UNROLL
            for (int n = 0; n < COLUMNS / 16; ++n) {
                typename F::B b;
                F::load_b(b, keys, STRIDE, 16 * n, step * F::STEP);
                UNROLL
                for (int m = 0; m < TILES; ++m) F::multiply(s[m] + 2 * n, a[m], b);
            }
        }
        UNROLL
        for (int m = 0; m < TILES; ++m) {
            const int row = first + own + 16 * m + g;
            finish<T, COLUMNS, RICH>(s[m], p, head, length, row, column, whole, shaw);
            accumulate<T, D, COLUMNS, RICH>(s[m], o[m], rows[m], head, scale, row, column, shaw != nullptr);
        }
        UNROLL
        for (int step = 0; step < COLUMNS / F::STEP; ++step) {
            typename F::A a[TILES];
            UNROLL
            for (int m = 0; m < TILES; ++m) F::from_sums(a[m], s[m], step);
            UNROLL
            for (int n = 0; n < D / 16; ++n) {
                typename F::B b;
                F::load_b_down(b, values, STRIDE, step * F::STEP, 16 * n);
                UNROLL
                for (int m = 0; m < TILES; ++m) F::multiply(o[m] + 2 * n, a[m], b);
            }
        }
    }
    cp_async_wait<0>();
    UNROLL
    for (int m = 0; m < TILES; ++m) {
        const int row = first + own + 16 * m + g;
        float sum[2], factor[2];
        UNROLL
        for (int r = 0; r < 2; ++r) {
            sum[r] = quad_sum(rows[m].sum[r]);
            factor[r] = sum[r] == 0 ? 0 : 1 / sum[r];
            if (threadIdx.x % 4 == 0 && row + 8 * r < p.n_q) {
                const float log = sum[r] == 0 ? -INFINITY : (rows[m].top[r] * scale + log2f(sum[r])) * LN_2;
                log_sum_exp[head.row(row + 8 * r)] = from_float<T>(log);
                if (exact) exact[head.row(row + 8 * r)] = log;
            }
        }
        store<T, D>(output + size_t(bh) * p.n_q * p.d_v, o[m], row, p.n_q, p.d_v, factor);
        if constexpr (RICH) {
            if (shaw) finish_shaw(shaw, rows[m], head, row, sum);
        }
    }
}

#define FORWARD(T, D, TILES, RICH, name) \
    extern "C" __global__ void __launch_bounds__(THREADS, sizeof(T) == 2 && D <= 64 && TILES == 1 && !RICH ? 3 : 2) \
        name(const T* q, const T* k, const T* v, T* output, T* log_sum_exp, float* exact, float* shaw, ATTENTION_PARAMETERS(T)) { \
        ATTENTION_STRUCTS(T) \
        forward<T, D, TILES, RICH>(q, k, v, output, log_sum_exp, exact, shaw, problem, terms); \
    } \
    EXPORT(name)
#define FORWARD_OF(T, D, name) \
    FORWARD(T, D, 1, false, attention_forward_##name##_##D) \
    FORWARD(T, D, 1, true, attention_forward_rich_##name##_##D)

FORWARD_OF(float, 32, f32)
FORWARD_OF(float, 64, f32)
FORWARD_OF(float, 128, f32)
FORWARD_OF(__half, 32, f16)
FORWARD_OF(__half, 64, f16)
FORWARD_OF(__half, 128, f16)
FORWARD_OF(__nv_bfloat16, 32, bf16)
FORWARD_OF(__nv_bfloat16, 64, bf16)
FORWARD_OF(__nv_bfloat16, 128, bf16)
FORWARD(__half, 32, 2, false, attention_forward_tall_f16_32)
FORWARD(__half, 64, 2, false, attention_forward_tall_f16_64)
FORWARD(__nv_bfloat16, 32, 2, false, attention_forward_tall_bf16_32)
FORWARD(__nv_bfloat16, 64, 2, false, attention_forward_tall_bf16_64)
FORWARD(__half, 128, 2, false, attention_forward_tall_f16_128)
FORWARD(__nv_bfloat16, 128, 2, false, attention_forward_tall_bf16_128)

}  // namespace attention
