// The backward pass, in two kernels so that nothing is added atomically: one owns 64 or 128 queries and walks over keys (dQ), the
// other owns as many keys and walks over queries (dK, dV). A warp owns M tiles of 16 rows. Both make weights P again from the logarithms of the sums:
// dV = P^T dO, dP = dO V^T, dS = P (dP - D), dQ = scale dS K, dK = scale dS^T Q, with D = rowsum(dO O) - d log_sum_exp.
// The second kernel works on transposed scores, so that P^T and dS^T are operands as they lie in registers.
#include "attention.cuh"

namespace attention {

// Columns, in steps of 16, whose scores are in registers at a time: few where there is much beside them.
template <class T, int D, bool MUCH, int M>
struct Chunk {
    static constexpr int N = M > 1 || (sizeof(T) == 2 && D == 128) || (D == 64 && MUCH && sizeof(T) == 2) ? 1 : 2;
};

// What only some calls want; null where not.
struct Extras {
    // dS (b h, n_q, n_k).
    float* d_scores;
    // The gradient of the products with relative keys and the weights of relative values, (b h, n_q, places).
    float *d_products, *weights;
};

// A row's sums in base 2, such that rows that saw nothing get weights of 0.
__device__ __forceinline__ float sums_of(float log_sum_exp) {
    return log_sum_exp == -INFINITY ? INFINITY : log_sum_exp * LOG2_E;
}

// D of a warp's 16 rows, for the lanes that hold them.
template <class T, int D>
__device__ __forceinline__ void deltas(float (&delta)[2], const T* output, const T* d_output, const T* d_log_sum_exp,
                                       float* all, int row, size_t base, const Problem& p) {
    const int lane = threadIdx.x % 32;
    float parts[16] = {};
    UNROLL
    for (int r = 0; r < 16; ++r) {
        const size_t at = (base + row + r) * p.d_v;
        UNROLL
        for (int c = 0; c < D; c += 32) {
            if (row + r < p.n_q && c + lane < p.d_v) parts[r] += to_float(output[at + c + lane]) * to_float(d_output[at + c + lane]);
        }
    }
    UNROLL
    for (int r = 0; r < 16; ++r) {
        float sum = warp_sum(parts[r]);
        if (row + r < p.n_q) {
            const size_t at = base + row + r;
            if (d_log_sum_exp) sum -= to_float(d_log_sum_exp[at]);
            if (lane == 0) all[at] = sum;
        }
        if (r % 8 == lane / 4) delta[r / 8] = sum;
    }
}

template <class T, int D, int M, bool RICH>
__device__ __forceinline__ void queries(const T* q, const T* k, const T* v, const T* output, const T* d_output,
                                        const T* d_log_sum_exp, const float* log_sum_exp, float* all_deltas, T* d_q,
                                        const Extras& extras, const Problem& p, const Terms<T>& terms) {
    using F = Fragment<T>;
    using S = Shape<T, D>;
    constexpr int ROWS = 64 * M, COLUMNS = S::COLUMNS, STRIDE = S::STRIDE, N = Chunk<T, D, RICH, M>::N;
    DYNAMIC_SHARED(T, own_q);
    T* const own_d = own_q + ROWS * STRIDE;
    T* const tiles = own_d + ROWS * STRIDE;
    const int blocks = ceil_div(p.n_q, ROWS), heads = gridDim.x / blocks;
    const int bh = p.right ? blockIdx.x % heads : blockIdx.x / blocks;
    const int block = p.right ? blocks - 1 - blockIdx.x / heads : blockIdx.x % blocks;
    const Head<T> head(p, terms, bh);
    const int kv = bh / p.group, length = p.length(head.batch), first = block * ROWS;
    const int last = min(first + ROWS, p.n_q) - 1, own = threadIdx.x / 32 * 16 * M, t = threadIdx.x % 4;
    const int top = first + own + threadIdx.x % 32 / 4;
    const int from = p.start(first) / COLUMNS, until = ceil_div(max(p.end(last, length), 0), COLUMNS);
    const bool aligned = p.aligned;
    const size_t base = size_t(bh) * p.n_q;
    k += size_t(kv) * p.n_k * p.d;
    v += size_t(kv) * p.n_k * p.d_v;
    const auto load = [&](int tile) {
        T* const to = tiles + tile % 2 * 2 * COLUMNS * STRIDE;
        load_tile<T, D, COLUMNS>(to, k, tile * COLUMNS, p.n_k, p.d, aligned);
        load_tile<T, D, COLUMNS>(to + COLUMNS * STRIDE, v, tile * COLUMNS, p.n_k, p.d_v, aligned);
    };
    load_tile<T, D, ROWS>(own_q, q + base * p.d, first, p.n_q, p.d, aligned);
    load_tile<T, D, ROWS>(own_d, d_output + base * p.d_v, first, p.n_q, p.d_v, aligned);
    if (from < until) load(from);
    cp_async_commit();

    float delta[M][2] = {}, sums[M][2], low[2] = {}, high[2] = {}, low_weight[2] = {}, high_weight[2] = {};
    int start[M][2], end[M][2];
    UNROLL
    for (int m = 0; m < M; ++m) {
        deltas<T, D>(delta[m], output, d_output, d_log_sum_exp, all_deltas, first + own + 16 * m, base, p);
        UNROLL
        for (int r = 0; r < 2; ++r) {
            const int i = top + 16 * m + 8 * r;
            sums[m][r] = i < p.n_q ? sums_of(log_sum_exp[base + i]) : INFINITY;
            start[m][r] = p.start(i), end[m][r] = p.end(i, length);
        }
    }
    float dq[M][D / 8][4] = {};
    Kept<T, D, M> kept_q, kept_d;
    cp_async_wait<0>();
    __syncthreads();
    kept_q.load(own_q, own);
    kept_d.load(own_d, own);
    const float scale = p.scale * LOG2_E;
    Philox rng;
    for (int tile = from; tile < until; ++tile) {
        cp_async_wait<0>();
        __syncthreads();
        if (tile + 1 < until) load(tile + 1);
        cp_async_commit();
        const T* const keys = tiles + tile % 2 * 2 * COLUMNS * STRIDE;
        const T* const values = keys + COLUMNS * STRIDE;
        const bool whole = tile * COLUMNS >= p.start(last) && tile * COLUMNS + COLUMNS <= p.end(first, length);
        NO_UNROLL
        for (int chunk = 0; chunk < COLUMNS; chunk += 16 * N) {
            float all_s[M][2 * N][4] = {}, all_ds[M][2 * N][4] = {};
            across<T, D, N, M>(all_s, kept_q, own_q, own, keys, chunk);
            across<T, D, N, M>(all_ds, kept_d, own_d, own, values, chunk);
            const int column = tile * COLUMNS + chunk;
            UNROLL
            for (int m = 0; m < M; ++m) {
                float (&s)[2 * N][4] = all_s[m], (&ds)[2 * N][4] = all_ds[m];
                const int row = top + 16 * m;
                UNROLL
                for (int c = 0; c < 2 * N; ++c) {
                    UNROLL
                    for (int e = 0; e < 4; ++e) {
                        const int r = e / 2, i = row + 8 * r, j = column + 8 * c + 2 * t + e % 2;
                        const bool seen = whole || (j >= start[m][r] && j < end[m][r]);
                        if constexpr (RICH) {
                            if (!seen || i >= p.n_q) {
                                ds[c][e] = 0;
                                continue;
                            }
                            const float weight = power(head.score(s[c][e], i, j) - sums[m][r]), factor = head.factor(rng, i, j);
                            const int place = head.place(i, j), places = terms.places;
                            const size_t at = head.row(i) * places + max(place, 0);
                            float dp = ds[c][e];
                            if (terms.value_products) dp += to_float(terms.value_products[at]);
                            const float d = weight * (dp * factor - delta[m][r]);
                            ds[c][e] = d;
                            if (extras.d_scores) extras.d_scores[head.row(i) * p.n_k + j] = d;
                            const bool ends = terms.relative == SHAW;
                            if (extras.d_products && place >= 0) {
                                if (ends && place == 0) {
                                    low[r] += d;
                                } else if (ends && place == places - 1) {
                                    high[r] += d;
                                } else {
                                    extras.d_products[at] = d * p.scale;
                                }
                            }
                            if (extras.weights) {
                                if (place == 0) {
                                    low_weight[r] += weight * factor;
                                } else if (place == places - 1) {
                                    high_weight[r] += weight * factor;
                                } else {
                                    extras.weights[at] = weight * factor;
                                }
                            }
                        } else {
                            const float weight = seen ? power(s[c][e] * scale - sums[m][r]) : 0;
                            ds[c][e] = weight * (ds[c][e] - delta[m][r]);
                        }
                    }
                }
            }
            down<T, D, N, M>(dq, all_ds, keys, chunk);
        }
    }
    cp_async_wait<0>();
    const float factor[2] = {p.scale, p.scale};
    UNROLL
    for (int m = 0; m < M; ++m) store<T, D>(d_q + base * p.d, dq[m], top + 16 * m, p.n_q, p.d, factor);
    if constexpr (RICH) {
        if (terms.relative != SHAW) return;
        UNROLL
        for (int r = 0; r < 2; ++r) {
            const float sum[4] = {quad_sum(low[r]), quad_sum(high[r]), quad_sum(low_weight[r]), quad_sum(high_weight[r])};
            if (t != 0 || top + 8 * r >= p.n_q) continue;
            const size_t at = head.row(top + 8 * r) * terms.places, far = at + terms.places - 1;
            if (extras.d_products) {
                extras.d_products[at] = sum[0] * p.scale;
                if (far > at) extras.d_products[far] = sum[1] * p.scale;
            }
            if (extras.weights) {
                extras.weights[at] = sum[2];
                if (far > at) extras.weights[far] = sum[3];
            }
        }
    }
}

template <class T, int D, int M, bool RICH>
__device__ __forceinline__ void keys(const T* q, const T* k, const T* v, const T* d_output, const float* log_sum_exp,
                                     const float* all_deltas, T* d_k, T* d_v, const Problem& p, const Terms<T>& terms) {
    using F = Fragment<T>;
    using S = Shape<T, D>;
    constexpr int ROWS = 64 * M, COLUMNS = S::COLUMNS, STRIDE = S::STRIDE, N = Chunk<T, D, true, M>::N;
    DYNAMIC_SHARED(T, own_k);
    T* const own_v = own_k + ROWS * STRIDE;
    T* const tiles = own_v + ROWS * STRIDE;
    float* const statistics = reinterpret_cast<float*>(tiles + 4 * COLUMNS * STRIDE);
    const int blocks = ceil_div(p.n_k, ROWS), heads = gridDim.x / blocks;
    const int kv = p.right ? blockIdx.x % heads : blockIdx.x / blocks;
    const int first = (p.right ? blockIdx.x / heads : blockIdx.x % blocks) * ROWS;
    const int h_kv = p.h / p.group, batch = kv / h_kv, length = p.length(batch);
    const int last = min(first + ROWS, p.n_k) - 1, own = threadIdx.x / 32 * 16 * M, t = threadIdx.x % 4;
    const int top = first + own + threadIdx.x % 32 / 4, shift = p.n_k - p.n_q;
    // The queries that see some of the keys.
    const int begin = p.right ? max(0, first - shift - p.right + 1) : 0;
    int stop = p.left ? min(p.n_q, last - shift + p.left) : p.n_q;
    if (first >= length) stop = begin;
    const int from = begin / COLUMNS, count = max(0, ceil_div(max(stop, 0), COLUMNS) - from);
    const bool aligned = p.aligned;
    // Tiles of all heads of the group, one after the other.
    const auto load = [&](int buffer, int member, int tile) {
        const size_t base = size_t(kv * p.group + member) * p.n_q;
        T* const to = tiles + buffer * 2 * COLUMNS * STRIDE;
        load_tile<T, D, COLUMNS>(to, q + base * p.d, tile * COLUMNS, p.n_q, p.d, aligned);
        load_tile<T, D, COLUMNS>(to + COLUMNS * STRIDE, d_output + base * p.d_v, tile * COLUMNS, p.n_q, p.d_v, aligned);
        const int thread = threadIdx.x, i = tile * COLUMNS + thread % COLUMNS;
        float* const place = statistics + buffer * 2 * COLUMNS;
        if (thread < COLUMNS) place[thread] = i < p.n_q ? sums_of(log_sum_exp[base + i]) : INFINITY;
        if (thread >= THREADS - COLUMNS) place[COLUMNS + thread % COLUMNS] = i < p.n_q ? all_deltas[base + i] : 0;
    };
    load_tile<T, D, ROWS>(own_k, k + size_t(kv) * p.n_k * p.d, first, p.n_k, p.d, aligned);
    load_tile<T, D, ROWS>(own_v, v + size_t(kv) * p.n_k * p.d_v, first, p.n_k, p.d_v, aligned);
    if (count > 0) load(0, 0, from);
    cp_async_commit();
    float dk[M][D / 8][4] = {}, dv[M][D / 8][4] = {};
    Kept<T, D, M> kept_k, kept_v;
    cp_async_wait<0>();
    __syncthreads();
    kept_k.load(own_k, own);
    kept_v.load(own_v, own);
    const float scale = p.scale * LOG2_E;
    Philox rng;
    for (int n = 0, member = 0, tile = from; n < count * p.group; ++n) {
        const bool wraps = tile + 1 == from + count;
        const int next_member = member + wraps, next_tile = wraps ? from : tile + 1;
        cp_async_wait<0>();
        __syncthreads();
        if (n + 1 < count * p.group) load((n + 1) % 2, next_member, next_tile);
        cp_async_commit();
        const T* const rows = tiles + n % 2 * 2 * COLUMNS * STRIDE;
        const T* const d_rows = rows + COLUMNS * STRIDE;
        const float* const sums = statistics + n % 2 * 2 * COLUMNS;
        const float* const deltas = sums + COLUMNS;
        const Head<T> head(p, terms, kv * p.group + member);
        const int first_query = tile * COLUMNS, last_query = min(first_query + COLUMNS, p.n_q) - 1;
        const bool whole = first >= p.start(last_query) && last < p.end(first_query, length);
        NO_UNROLL
        for (int chunk = 0; chunk < COLUMNS; chunk += 16 * N) {
            float all_s[M][2 * N][4] = {}, all_ds[M][2 * N][4] = {};
            across<T, D, N, M>(all_s, kept_k, own_k, own, rows, chunk);
            across<T, D, N, M>(all_ds, kept_v, own_v, own, d_rows, chunk);
            UNROLL
            for (int m = 0; m < M; ++m) {
                float (&s)[2 * N][4] = all_s[m], (&ds)[2 * N][4] = all_ds[m];
                const int row = top + 16 * m;
                UNROLL
                for (int c = 0; c < 2 * N; ++c) {
                    UNROLL
                    for (int e = 0; e < 4; ++e) {
                        const int column = chunk + 8 * c + 2 * t + e % 2, i = first_query + column, j = row + e / 2 * 8;
                        const bool seen = whole || (j >= p.start(i) && j < p.end(i, length));
                        if constexpr (RICH) {
                            if (!seen || i >= p.n_q || j >= p.n_k) {
                                s[c][e] = ds[c][e] = 0;
                                continue;
                            }
                            const float weight = power(head.score(s[c][e], i, j) - sums[column]), factor = head.factor(rng, i, j);
                            float dp = ds[c][e];
                            if (terms.value_products) dp += to_float(terms.value_products[head.row(i) * terms.places + head.place(i, j)]);
                            s[c][e] = weight * factor;
                            ds[c][e] = weight * (dp * factor - deltas[column]);
                        } else {
                            const float weight = seen ? power(s[c][e] * scale - sums[column]) : 0;
                            s[c][e] = weight;
                            ds[c][e] = weight * (ds[c][e] - deltas[column]);
                        }
                    }
                }
            }
            down<T, D, N, M>(dv, all_s, d_rows, chunk);
            down<T, D, N, M>(dk, all_ds, rows, chunk);
        }
        member = next_member, tile = next_tile;
    }
    cp_async_wait<0>();
    const float factor[2] = {p.scale, p.scale}, one[2] = {1, 1};
    UNROLL
    for (int m = 0; m < M; ++m) {
        store<T, D>(d_k + size_t(kv) * p.n_k * p.d, dk[m], top + 16 * m, p.n_k, p.d, factor);
        store<T, D>(d_v + size_t(kv) * p.n_k * p.d_v, dv[m], top + 16 * m, p.n_k, p.d_v, one);
    }
}

// The gradient of a table of distances (h, n_q + n_k - 1): the sums of dS along diagonals, over the batch. A block takes 32
// diagonals of a head; its 8 rows of threads share out batch and queries.
extern "C" __global__ void attention_diagonals(const float* d_scores, float* d_table, int b, int h, int n_q, int n_k) {
    __shared__ float parts[256];
    const int diagonals = n_q + n_k - 1, blocks = ceil_div(diagonals, 32), head = blockIdx.x / blocks;
    const int diagonal = blockIdx.x % blocks * 32 + threadIdx.x % 32, part = threadIdx.x / 32;
    float sum = 0;
    for (int batch = 0; batch < b; ++batch) {
        const float* matrix = d_scores + size_t(batch * h + head) * n_q * n_k;
        for (int i = part; i < n_q; i += 8) {
            const int j = diagonal + i - n_q + 1;
            if (j >= 0 && j < n_k) sum += matrix[size_t(i) * n_k + j];
        }
    }
    parts[threadIdx.x] = sum;
    __syncthreads();
    if (part > 0 || diagonal >= diagonals) return;
    for (int other = 1; other < 8; ++other) sum += parts[other * 32 + threadIdx.x];
    d_table[size_t(head) * diagonals + diagonal] = sum;
}
EXPORT(attention_diagonals)

// How many blocks of a kernel are to fit a multiprocessor.
#define BLOCKS_OF(T, D, M, RICH) (M == 1 && sizeof(T) == 2 && D <= 64 && !RICH ? 3 : 2)
#define QUERIES(T, D, M, RICH, name) \
    extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS_OF(T, D, M, RICH)) attention_queries_##name##_##D( \
        const T* q, const T* k, const T* v, const T* output, const T* d_output, const T* d_log_sum_exp, \
        const float* log_sum_exp, float* all_deltas, T* d_q, float* d_scores, float* d_products, float* weights, \
        ATTENTION_PARAMETERS(T)) { \
        ATTENTION_STRUCTS(T) \
        queries<T, D, M, RICH>(q, k, v, output, d_output, d_log_sum_exp, log_sum_exp, all_deltas, d_q, \
                               {d_scores, d_products, weights}, problem, terms); \
    } \
    EXPORT(attention_queries_##name##_##D)
#define KEYS(T, D, M, RICH, name) \
    extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS_OF(T, D, M, RICH)) attention_keys_##name##_##D( \
        const T* q, const T* k, const T* v, const T* d_output, const float* log_sum_exp, const float* all_deltas, T* d_keys, \
        T* d_values, ATTENTION_PARAMETERS(T)) { \
        ATTENTION_STRUCTS(T) \
        keys<T, D, M, RICH>(q, k, v, d_output, log_sum_exp, all_deltas, d_keys, d_values, problem, terms); \
    } \
    EXPORT(attention_keys_##name##_##D)
#define BACKWARD(T, D, RICH, name) QUERIES(T, D, 1, RICH, name) KEYS(T, D, 1, RICH, name)
#define BACKWARD_OF(T, name) \
    BACKWARD(T, 32, false, name) \
    BACKWARD(T, 64, false, name) \
    BACKWARD(T, 128, false, name) \
    BACKWARD(T, 32, true, rich_##name) \
    BACKWARD(T, 64, true, rich_##name) \
    BACKWARD(T, 128, true, rich_##name)
#define TALL_BACKWARD(T, name) \
    QUERIES(T, 32, 2, false, tall_##name) \
    QUERIES(T, 64, 2, false, tall_##name) \
    KEYS(T, 32, 2, false, tall_##name) \
    KEYS(T, 64, 2, false, tall_##name)

BACKWARD_OF(float, f32)
BACKWARD_OF(__half, f16)
BACKWARD_OF(__nv_bfloat16, bf16)
TALL_BACKWARD(__half, f16)
TALL_BACKWARD(__nv_bfloat16, bf16)

}  // namespace attention
