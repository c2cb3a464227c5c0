// Cumulative sums and products along rows, forwards or backwards: a thread scans a pack, the threads of a row scan what
// the packs come to, and carry on with the next packs.
#include "rows.cuh"

namespace scan {

// r -> a r + b.
struct Affine {
    float a, b;
};

__device__ __forceinline__ float up(float x, int by) { return __shfl_up_sync(FULL_MASK, x, by); }
__device__ __forceinline__ float from(float x, int lane) { return __shfl_sync(FULL_MASK, x, lane); }
__device__ __forceinline__ Affine up(Affine x, int by) { return {up(x.a, by), up(x.b, by)}; }
__device__ __forceinline__ Affine from(Affine x, int lane) { return {from(x.a, lane), from(x.b, lane)}; }

struct Sum {
    using E = float;
    static __device__ __forceinline__ E unit() { return 0; }
    static __device__ __forceinline__ E join(E first, E then) { return first + then; }
};
struct Product {
    using E = float;
    static __device__ __forceinline__ E unit() { return 1; }
    static __device__ __forceinline__ E join(E first, E then) { return first * then; }
};
struct Recurrence {
    using E = Affine;
    static __device__ __forceinline__ E unit() { return {1, 0}; }
    // Nothing carried stays nothing, also where factors overflow.
    static __device__ __forceinline__ E join(E first, E then) {
        return {first.a * then.a, first.b == 0 ? then.b : then.a * first.b + then.b};
    }
};

// What comes before this thread's element of the team, with `carry` before all; `carry` then becomes what all come to.
template <class O>
__device__ __forceinline__ typename O::E before(typename O::E own, typename O::E& carry, const rows::Team& team,
                                                typename O::E* scratch) {
    using E = typename O::E;
    const int side = min(team.lanes, 32), lane = team.lane % side, in_warp = threadIdx.x % 32;
    E all = own;
    for (int d = 1; d < side; d *= 2) {
        const E other = up(all, d);
        if (lane >= d) all = O::join(other, all);
    }
    E ahead = up(all, 1);
    if (lane == 0) ahead = O::unit();
    E sum;
    if (team.lanes <= 32) {
        sum = from(all, in_warp - lane + side - 1);
    } else {
        const int warp = threadIdx.x / 32, warps = blockDim.x / 32;
        if (in_warp == 31) scratch[warp] = all;
        __syncthreads();
        E total = in_warp < warps ? scratch[in_warp] : O::unit();
        for (int d = 1; d < 32; d *= 2) {
            const E other = up(total, d);
            if (in_warp >= d) total = O::join(other, total);
        }
        const E front = from(total, max(warp - 1, 0));
        if (warp > 0) ahead = O::join(front, ahead);
        sum = from(total, 31);
        __syncthreads();
    }
    ahead = O::join(carry, ahead);
    carry = O::join(carry, sum);
    return ahead;
}

// Calls read(i, elements) for a pack's first place and write(i, before, elements), in the row's order or against it; what
// stands before an element is `before[j]`. Places outside the row hold what they like.
template <class O, class T, class Read, class Write>
__device__ __forceinline__ void scan(const T* x, int count, int width, int lanes, bool back, Read read, Write write) {
    constexpr int V = rows::VEC<T>;
    using E = typename O::E;
    __shared__ E scratch[32];
    const rows::Team team(lanes, count, nullptr);
    const rows::Row<T> row(x, width, team);
    // The same for all rows, also where they begin within a pack.
    const int turns = ((width + 2 * V - 2) / V + lanes - 1) / lanes;
    E carry = O::unit();
    for (int turn = 0; turn < turns; ++turn) {
        const int place = turn * lanes + team.lane;
        const bool has = place < row.packs;
        const int i = (back ? row.packs - 1 - place : place) * V - row.shift;
        E v[V], own = O::unit();
        if (has) read(row, i, v);
        UNROLL
        for (int j = 0; j < V; ++j) {
            if (!has || i + j < 0 || i + j >= row.width) v[j] = O::unit();
        }
        UNROLL
        for (int j = 0; j < V; ++j) own = O::join(own, v[back ? V - 1 - j : j]);
        E ahead = before<O>(own, carry, team, scratch);
        if (!has) continue;
        E fore[V];
        UNROLL
        for (int j = 0; j < V; ++j) {
            if (back) {
                fore[V - 1 - j] = ahead;
                ahead = O::join(ahead, v[V - 1 - j]);
            } else {
                fore[j] = ahead;
                ahead = O::join(ahead, v[j]);
            }
        }
        write(team.row, row, i, fore, v);
    }
}

template <class O, class T, class Y>
__device__ __forceinline__ void simple(const T* x, Y* y, int count, int width, int lanes, bool exclusive, bool back) {
    constexpr int V = rows::VEC<T>;
    scan<O>(
        x, count, width, lanes, back,
        [](const rows::Row<T>& row, int i, float (&v)[V]) {
            const auto p = rows::load<V>(row.data, i, row.width, T());
            UNROLL
            for (int j = 0; j < V; ++j) v[j] = to_float(p.v[j]);
        },
        [&](long long r, const rows::Row<T>& row, int i, float (&fore)[V], float (&v)[V]) {
            UNROLL
            for (int j = 0; j < V; ++j) v[j] = exclusive ? fore[j] : O::join(fore[j], v[j]);
            rows::store<V>(y + r * width, i, row.width, v);
        });
}

// The gradient of the product: dx_i = P_i r_i with the product P of the factors before i. With u_i = x_i r_i it is
// r_i = g_i + u_{i+1}, u_i = x_i g_i + x_i u_{i+1}; for the exclusive product r_i = s_{i+1}, s_i = g_i + x_i s_{i+1}.
template <class T>
__device__ __forceinline__ void product_gradient(const T* x, const T* dy, const float* product, T* dx, int count,
                                                 int width, int lanes, bool exclusive) {
    constexpr int V = rows::VEC<T>;
    const auto gradient = [&](const T* data, int i, int w) {
        return rows::load<V>(dy + (data - x), i, w, T());
    };
    scan<Recurrence>(
        x, count, width, lanes, true,
        [&](const rows::Row<T>& row, int i, Affine (&v)[V]) {
            const auto p = rows::load<V>(row.data, i, row.width, T());
            const auto g = gradient(row.data, i, row.width);
            UNROLL
            for (int j = 0; j < V; ++j) {
                const float a = to_float(p.v[j]), d = to_float(g.v[j]);
                v[j] = {a, exclusive ? d : a * d};
            }
        },
        [&](long long r, const rows::Row<T>& row, int i, Affine (&fore)[V], Affine (&)[V]) {
            const auto g = gradient(row.data, i, row.width);
            const auto before = rows::load<V>(product + r * width, i, row.width, 0.f);
            float d[V];
            UNROLL
            for (int j = 0; j < V; ++j) d[j] = before.v[j] * (fore[j].b + (exclusive ? 0 : to_float(g.v[j])));
            rows::store<V>(dx + r * width, i, row.width, d);
        });
}

#define SCAN(T, name)                                                                                                 \
    extern "C" __global__ void __launch_bounds__(512) scan_sum_##name(const T* x, T* y, int count, int width,         \
                                                                      int lanes, int exclusive, int back) {           \
        simple<Sum>(x, y, count, width, lanes, exclusive != 0, back != 0);                                            \
    }                                                                                                                 \
    EXPORT(scan_sum_##name)                                                                                           \
    extern "C" __global__ void __launch_bounds__(512) scan_product_##name(const T* x, T* y, int count, int width,     \
                                                                          int lanes, int exclusive) {                 \
        simple<Product>(x, y, count, width, lanes, exclusive != 0, false);                                            \
    }                                                                                                                 \
    EXPORT(scan_product_##name)                                                                                       \
    extern "C" __global__ void __launch_bounds__(512) scan_product_wide_##name(const T* x, float* y, int count,       \
                                                                               int width, int lanes) {                \
        simple<Product>(x, y, count, width, lanes, true, false);                                                      \
    }                                                                                                                 \
    EXPORT(scan_product_wide_##name)                                                                                  \
    extern "C" __global__ void __launch_bounds__(512) scan_product_gradient_##name(                                   \
        const T* x, const T* dy, const float* product, T* dx, int count, int width, int lanes, int exclusive) {       \
        product_gradient(x, dy, product, dx, count, width, lanes, exclusive != 0);                                    \
    }                                                                                                                 \
    EXPORT(scan_product_gradient_##name)

SCAN(float, f32)
SCAN(__half, f16)
SCAN(__nv_bfloat16, bf16)

}  // namespace scan
