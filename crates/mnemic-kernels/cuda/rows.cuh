// What the kernels over rows share: packs of 16 bytes, the threads that work at a row, and sums over columns.
#pragma once
#include "common.cuh"

namespace rows {

// Elements of 16 bytes.
template <class T>
constexpr int VEC = 16 / sizeof(T);

// How many elements past a multiple of 16 bytes an address lies.
template <class T>
__device__ __forceinline__ int misaligned(const T* p) {
    return static_cast<int>(reinterpret_cast<uintptr_t>(p) % 16 / sizeof(T));
}

// Whether rows of `width` consist of whole packs that lie aligned, of all these matrices. Null pointers do.
template <class T, class... Ts>
__device__ __forceinline__ bool whole(int width, const T* first, const Ts*... rest) {
    return width % VEC<T> == 0 && misaligned(first) == 0 && (... && (misaligned(rest) == 0));
}

// The elements from `i` on of a row of `width`, `i` possibly below 0: one load where they all are there and lie aligned,
// which with W is known. As they are in memory: a conversion would make every load wait for the one before.
template <int V, bool W = false, class T>
__device__ __forceinline__ Pack<T, V> load(const T* row, int i, int width, T outside) {
    using P = Pack<T, V>;
    if (W) return *reinterpret_cast<const P*>(row + i);
    if (i >= 0 && i <= width - V && reinterpret_cast<uintptr_t>(row + i) % sizeof(P) == 0)
        return *reinterpret_cast<const P*>(row + i);
    P p;
    UNROLL
    for (int j = 0; j < V; ++j) p.v[j] = i + j >= 0 && i + j < width ? row[i + j] : outside;
    return p;
}

template <int V, bool W = false, class T>
__device__ __forceinline__ void store(T* row, int i, int width, const float (&v)[V]) {
    using P = Pack<T, V>;
    if (W || (i >= 0 && i <= width - V && reinterpret_cast<uintptr_t>(row + i) % sizeof(P) == 0)) {
        P p;
        UNROLL
        for (int j = 0; j < V; ++j) p.v[j] = from_float<T>(v[j]);
        *reinterpret_cast<P*>(row + i) = p;
    } else {
        UNROLL
        for (int j = 0; j < V; ++j) {
            if (i + j >= 0 && i + j < width) row[i + j] = from_float<T>(v[j]);
        }
    }
}

// y = f(a) and y = f(a, b), element by element: blocks of 256 threads, two packs a thread.
constexpr int PER_THREAD = 2;

// Calls work(i) for the first element of every pack of this thread.
template <int V, class Work>
__device__ __forceinline__ void packs(long long n, Work work) {
    const long long block = static_cast<long long>(blockIdx.x) * (256 * V * PER_THREAD);
    UNROLL
    for (int k = 0; k < PER_THREAD; ++k) {
        const long long i = block + (k * 256 + static_cast<int>(threadIdx.x)) * V;
        if (i < n) work(k, static_cast<int>(i));
    }
}

template <class T, class F>
__device__ __forceinline__ void map(const T* a, T* y, int n, F f) {
    constexpr int V = VEC<T>;
    Pack<T, V> p[PER_THREAD];
    packs<V>(n, [&](int k, int i) { p[k] = load<V>(a, i, n, T()); });
    packs<V>(n, [&](int k, int i) {
        float v[V];
        UNROLL
        for (int j = 0; j < V; ++j) v[j] = f(to_float(p[k].v[j]));
        store<V>(y, i, n, v);
    });
}

template <class T, class F>
__device__ __forceinline__ void map(const T* a, const T* b, T* y, int n, F f) {
    constexpr int V = VEC<T>;
    Pack<T, V> p[PER_THREAD], q[PER_THREAD];
    packs<V>(n, [&](int k, int i) {
        p[k] = load<V>(a, i, n, T());
        q[k] = load<V>(b, i, n, T());
    });
    packs<V>(n, [&](int k, int i) {
        float v[V];
        UNROLL
        for (int j = 0; j < V; ++j) v[j] = f(to_float(p[k].v[j]), to_float(q[k].v[j]));
        store<V>(y, i, n, v);
    });
}

// The threads of a block that work at one row: `lanes` of them, a power of two up to 32, or the whole block. All of a
// warp must call the sums, also those past the last row, whose `live` is false.
struct Team {
    int lane, lanes;
    long long row;
    bool live;
    float* scratch;

    __device__ __forceinline__ Team(int team_lanes, int row_count, float* shared) {
        lanes = team_lanes;
        lane = static_cast<int>(threadIdx.x) % lanes;
        row = static_cast<long long>(blockIdx.x) * (blockDim.x / lanes) + threadIdx.x / lanes;
        live = row < row_count;
        scratch = shared;
    }
    __device__ __forceinline__ float sum(float x) const {
        if (lanes > 32) return block_sum(x, scratch);
        for (int l = lanes / 2; l > 0; l /= 2) x += __shfl_xor_sync(FULL_MASK, x, l);
        return x;
    }
    // Two sums at a time; `scratch` holds 64 floats.
    __device__ __forceinline__ void sum2(float& x, float& y) const {
        if (lanes <= 32) {
            for (int l = lanes / 2; l > 0; l /= 2) {
                x += __shfl_xor_sync(FULL_MASK, x, l);
                y += __shfl_xor_sync(FULL_MASK, y, l);
            }
            return;
        }
        const int warp = threadIdx.x / 32, warps = blockDim.x / 32, i = threadIdx.x % 32;
        x = warp_sum(x);
        y = warp_sum(y);
        if (i == 0) {
            scratch[warp] = x;
            scratch[32 + warp] = y;
        }
        __syncthreads();
        x = warp_sum(i < warps ? scratch[i] : 0.f);
        y = warp_sum(i < warps ? scratch[32 + i] : 0.f);
        __syncthreads();
    }
    __device__ __forceinline__ float top(float x) const {
        if (lanes > 32) return block_max(x, scratch);
        for (int l = lanes / 2; l > 0; l /= 2) x = fmaxf(x, __shfl_xor_sync(FULL_MASK, x, l));
        return x;
    }
};

// Packs of a row that a thread keeps in registers, 16 elements; a row with more is read again.
template <class T>
constexpr int KEEP = 16 / VEC<T>;

// A row as packs. The first begins where memory is aligned, at or before the row's first element: with W, there.
template <class T, bool W = false>
struct Row {
    static constexpr int V = VEC<T>;
    const T* data;
    int width, shift, packs, lane, lanes;

    __device__ __forceinline__ Row(const T* matrix, int row_width, const Team& team) {
        data = matrix + team.row * row_width;
        width = team.live ? row_width : 0;
        shift = W ? 0 : misaligned(data);
        packs = team.live ? (width + shift + V - 1) / V : 0;
        lane = team.lane;
        lanes = team.lanes;
    }
    // A part of a row, for a whole block.
    __device__ __forceinline__ Row(const T* first, int part_width) {
        data = first;
        width = part_width;
        shift = misaligned(data);
        packs = (width + shift + V - 1) / V;
        lane = threadIdx.x;
        lanes = blockDim.x;
    }
    // The first element of this thread's k-th pack.
    __device__ __forceinline__ int at(int k) const { return (lane + k * lanes) * V - shift; }
    __device__ __forceinline__ bool has(int k) const { return lane + k * lanes < packs; }
    __device__ __forceinline__ int turns() const { return (packs + lanes - 1) / lanes; }
};

// Sums over the rows of matrices of `columns`, S of them side by side, in fixed order. Threads: `lanes` (a power of two)
// over the columns, V columns each, and as many rows at a time as fit into a block of 256. Blocks: x over the columns, y over
// parts of the rows. `load(row, column)` reads what `add(loaded, sums)` adds, `give(s, column, sum)` takes a part's sum.
template <int S, int V, class Load, class Add, class Give>
__device__ __forceinline__ void column_sums(int row_count, int columns, int lanes, Load load, Add add, Give give) {
    __shared__ float scratch[256 * V];
    const int lane = threadIdx.x % lanes, group = threadIdx.x / lanes, groups = 256 / lanes;
    const int column = (static_cast<int>(blockIdx.x) * lanes + lane) * V;
    const long long part = (row_count + gridDim.y - 1) / gridDim.y, first = blockIdx.y * part;
    const long long last = min(first + part, static_cast<long long>(row_count));
    float sums[S][V];
    UNROLL
    for (int s = 0; s < S; ++s) {
        UNROLL
        for (int j = 0; j < V; ++j) sums[s][j] = 0;
    }
    if (column < columns) {
        long long row = first + group;
        // Several loads under way at a time.
        for (; row + 3 * groups < last; row += 4 * groups) {
            decltype(load(row, column)) loaded[4];
            UNROLL
            for (int k = 0; k < 4; ++k) loaded[k] = load(row + k * groups, column);
            UNROLL
            for (int k = 0; k < 4; ++k) add(loaded[k], sums);
        }
        for (; row < last; row += groups) add(load(row, column), sums);
    }
    UNROLL
    for (int s = 0; s < S; ++s) {
        UNROLL
        for (int j = 0; j < V; ++j) scratch[j * 256 + threadIdx.x] = sums[s][j];
        __syncthreads();
        for (int half = groups / 2; half > 0; half /= 2) {
            if (group < half) {
                UNROLL
                for (int j = 0; j < V; ++j)
                    scratch[j * 256 + threadIdx.x] += scratch[j * 256 + threadIdx.x + half * lanes];
            }
            __syncthreads();
        }
        if (group == 0 && column < columns) {
            UNROLL
            for (int j = 0; j < V; ++j) give(s, column + j, scratch[j * 256 + threadIdx.x]);
        }
        __syncthreads();
    }
}

}  // namespace rows
