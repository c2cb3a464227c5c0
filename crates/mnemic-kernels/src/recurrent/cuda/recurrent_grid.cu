// Scans whose recurrent weights fit all multiprocessors together: every block owns some units, holds their weights in shared memory and
// reads the vectors of the whole batch, which all blocks write, once a step. One barrier of all blocks a step.
//
// A warp makes products of 8 rows with 4 of the block's columns at a time, its lanes 4 numbers each of every 128.
#include "common.cuh"
#include "recurrent.cuh"

namespace recurrent_grid {

using namespace recurrent;
using Four = Pack<float, 4>;

constexpr int THREADS = 512, ROWS = 8, COLUMNS = 4;

struct Layout {
    int units, parts;
};

// The block's share of a product of vectors (b, width) with its columns; width is a multiple of 4.
struct Product {
    const float* weights;  // [column][width], shared
    float* sums;           // [part][tile][32], shared
    int b, width, columns, parts;

    __device__ int column_tiles() const { return (columns + COLUMNS - 1) / COLUMNS; }
    __device__ int tiles() const { return (b + ROWS - 1) / ROWS * column_tiles(); }

    // Sums the lanes' values, each of 32 by another lane: lane i gets the i-th.
    __device__ static float share_out(float (&v)[32]) {
        const int lane = threadIdx.x % 32;
        UNROLL
        for (int n = 16; n > 0; n /= 2) {
            const bool upper = lane & n;
            UNROLL
            for (int i = 0; i < n; ++i) {
                const float give = upper ? v[i] : v[i + n], keep = upper ? v[i + n] : v[i];
                v[i] = keep + __shfl_xor_sync(FULL_MASK, give, n);
            }
        }
        return v[0];
    }

    __device__ void run(const float* vectors) const {
        const int lane = threadIdx.x % 32, all = tiles(), across = column_tiles();
        const int chunks = (width + 127) / 128;
        for (int item = threadIdx.x / 32; item < all * parts; item += blockDim.x / 32) {
            const int tile = item % all, part = item / all;
            const int row = tile / across * ROWS, column = tile % across * COLUMNS;
            float sums_of[ROWS * COLUMNS] = {};
            for (int chunk = part * chunks / parts; chunk < (part + 1) * chunks / parts; ++chunk) {
                const int k = (chunk * 32 + lane) * 4;
                if (k >= width) continue;
                Four v[ROWS], w[COLUMNS];
                UNROLL
                for (int r = 0; r < ROWS; ++r) {
                    v[r] = Four{};
                    if (row + r < b) v[r] = *reinterpret_cast<const Four*>(vectors + size_t(row + r) * width + k);
                }
                UNROLL
                for (int q = 0; q < COLUMNS; ++q)
                    w[q] = *reinterpret_cast<const Four*>(weights + size_t(min(column + q, columns - 1)) * width + k);
                UNROLL
                for (int r = 0; r < ROWS; ++r)
                    UNROLL
                    for (int q = 0; q < COLUMNS; ++q)
                        UNROLL
                        for (int e = 0; e < 4; ++e) sums_of[r * COLUMNS + q] += v[r].v[e] * w[q].v[e];
            }
            sums[item * 32 + lane] = share_out(sums_of);
        }
        __syncthreads();
    }

    __device__ float get(int row, int column) const {
        const int tile = row / ROWS * column_tiles() + column / COLUMNS;
        float sum = 0;
        for (int part = 0; part < parts; ++part)
            sum += sums[(part * tiles() + tile) * 32 + row % ROWS * COLUMNS + column % COLUMNS];
        return sum;
    }
};

__device__ __forceinline__ int padded(int h) { return (h + 3) / 4 * 4; }

template <class Job>
__device__ int longest_of(const Job& job) {
    int longest = job.lengths ? 0 : job.t;
    if (job.lengths)
        for (int row = 0; row < job.b; ++row) longest = max(longest, steps_of(job, row));
    return longest;
}

// Shared memory: weights [unit][gate][padded h], sums, then two numbers of state for each of the block's units and each row.
// `vectors` (2, b, padded h) and `counter` are 0 before.
template <class Cell>
__device__ void forward(const Forward& job, float* vectors, unsigned* counter, Layout layout) {
    constexpr int G = Cell::GATES;
    DYNAMIC_SHARED(float, shared);
    const int h = job.h, units = layout.units, first = blockIdx.x * units, width = padded(h), elements = job.b * units;
    Product product = {shared, shared + size_t(units) * G * width, job.b, width, units * G, layout.parts};
    State* states = reinterpret_cast<State*>(product.sums + product.tiles() * layout.parts * 32);
    for (int i = threadIdx.x; i < units * G * width; i += blockDim.x) {
        const int column = i / width, k = i % width, unit = first + column / G, g = column % G;
        shared[i] = unit < h && k < h ? job.w[(size_t(g) * h + unit) * h + k] : 0.f;
    }
    const auto place = [&](int e, int& row, int& unit) {
        row = e / units, unit = first + e % units;
        return unit < h;
    };
    int row, unit;
    Input<Cell> next = {};
    for (int e = threadIdx.x; e < elements; e += blockDim.x) {
        if (!place(e, row, unit)) continue;
        const size_t at = size_t(row) * h + unit;
        states[e] = {job.h0 ? job.h0[at] : 0.f, job.c0 ? job.c0[at] : 0.f};
        vectors[size_t(row) * width + unit] = states[e].h;
        const int steps = steps_of(job, row);
        if (e == static_cast<int>(threadIdx.x) && steps > 0) next.load(job, place_of(job, row, 0, steps), unit);
    }
    const int longest = longest_of(job);
    const size_t side = size_t(job.b) * width;
    grid_barrier(counter, gridDim.x);
    for (int i = 0; i < longest; ++i) {
        product.run(vectors + (i & 1) * side);
        float* to = vectors + ((i + 1) & 1) * side;
        for (int e = threadIdx.x; e < elements; e += blockDim.x) {
            if (!place(e, row, unit)) continue;
            const int steps = steps_of(job, row);
            State now = states[e];
            if (i < steps) {
                const State old = now;
                Input<Cell> input = next;
                if (e != static_cast<int>(threadIdx.x)) input.load(job, place_of(job, row, i, steps), unit);
                float p[G], b_ih[G], b_hh[G], kept[Cell::KEPT];
                bias_of<Cell>(job.b_ih, h, unit, b_ih);
                bias_of<Cell>(job.b_hh, h, unit, b_hh);
                UNROLL
                for (int g = 0; g < G; ++g) {
                    p[g] = product.get(row, e % units * G + g) + b_hh[g];
                    input.x[g] += b_ih[g];
                }
                Extra extra = extra_of(job, unit);
                extra.gate = input.gate;
                Cell::forward(input.x, p, now, extra, kept);
                store<Cell>(job, place_of(job, row, i, steps), unit, old, now, kept);
                states[e] = now;
                if (e == static_cast<int>(threadIdx.x) && i + 1 < steps)
                    next.load(job, place_of(job, row, i + 1, steps), unit);
            }
            to[size_t(row) * width + unit] = now.h;
        }
        if (i + 1 < longest) grid_barrier(counter, (i + 2) * gridDim.x);
    }
    for (int e = threadIdx.x; e < elements; e += blockDim.x) {
        if (!place(e, row, unit)) continue;
        clear<Cell>(job, row, steps_of(job, row), unit);
        job.h_end[size_t(row) * h + unit] = states[e].h;
        if (Cell::CELL) job.c_end[size_t(row) * h + unit] = states[e].c;
    }
}

// Shared memory: weights [unit][gate][padded h], sums, then two numbers for each of the block's units and each row: the gradient of its
// state so far and of its cell. `vectors` (2, b, gates, padded h) and `counter` are 0 before.
template <class Cell>
__device__ void backward(const Backward& job, float* vectors, unsigned* counter, Layout layout) {
    constexpr int G = Cell::GATES;
    DYNAMIC_SHARED(float, shared);
    const int h = job.h, units = layout.units, first = blockIdx.x * units, pad = padded(h), width = G * pad;
    const int elements = job.b * units;
    Product product = {shared, shared + size_t(units) * width, job.b, width, units, layout.parts};
    State* states = reinterpret_cast<State*>(product.sums + product.tiles() * layout.parts * 32);
    // Neighbours read neighbouring units of one row of weights.
    for (int i = threadIdx.x; i < units * width; i += blockDim.x) {
        const int u = i % units, q = i / units, unit = first + u, g = q / pad, k = q % pad;
        shared[u * width + q] = unit < h && k < h ? job.w[(size_t(g) * h + k) * h + unit] : 0.f;
    }
    const auto place = [&](int e, int& row, int& unit) {
        row = e / units, unit = first + e % units;
        return unit < h;
    };
    const int longest = longest_of(job);
    const size_t side = size_t(job.b) * width;
    int row, unit;
    Kept<Cell> next = {};
    for (int e = threadIdx.x; e < elements; e += blockDim.x) {
        if (!place(e, row, unit)) continue;
        const size_t at = size_t(row) * h + unit;
        states[e] = {job.dh_end ? job.dh_end[at] : 0.f, job.dc_end ? job.dc_end[at] : 0.f};
        const int steps = steps_of(job, row);
        if (e == static_cast<int>(threadIdx.x) && steps > 0) next.load(job, place_of(job, row, steps - 1, steps), unit);
    }
    __syncthreads();
    for (int i = longest - 1; i >= 0; --i) {
        float* to = vectors + (i & 1) * side;
        for (int e = threadIdx.x; e < elements; e += blockDim.x) {
            if (!place(e, row, unit)) continue;
            const int steps = steps_of(job, row);
            Gradients<G> d = {};
            d.direct = states[e].h;
            if (i < steps) {
                Kept<Cell> now = next;
                if (e != static_cast<int>(threadIdx.x)) now.load(job, place_of(job, row, i, steps), unit);
                Extra extra = extra_of(job, unit);
                extra.gate = now.gate;
                Cell::backward(now.kept, now.old, states[e].h + now.d_output, states[e].c, extra, d);
                store<Cell>(job, place_of(job, row, i, steps), unit, d);
                if (e == static_cast<int>(threadIdx.x) && i > 0)
                    next.load(job, place_of(job, row, i - 1, steps), unit);
            }
            UNROLL
            for (int g = 0; g < G; ++g) to[size_t(row) * width + g * pad + unit] = d.p[g];
            states[e].h = d.direct;
        }
        grid_barrier(counter, (longest - i) * gridDim.x);
        product.run(to);
        for (int e = threadIdx.x; e < elements; e += blockDim.x)
            if (place(e, row, unit)) states[e].h += product.get(row, e % units);
    }
    for (int e = threadIdx.x; e < elements; e += blockDim.x) {
        if (!place(e, row, unit)) continue;
        clear<Cell>(job, row, steps_of(job, row), unit);
        if (job.dh0) job.dh0[size_t(row) * h + unit] = states[e].h;
        if (job.dc0) job.dc0[size_t(row) * h + unit] = states[e].c;
    }
}

#define GRID(Cell, name)                                                                                    \
    extern "C" __global__ void __launch_bounds__(THREADS) recurrent_grid_forward_##name(                    \
        FORWARD_PARAMETERS, float* vectors, unsigned* counter, int units, int parts) {                      \
        forward<Cell>(FORWARD_JOB, vectors, counter, {units, parts});                                       \
    }                                                                                                       \
    EXPORT(recurrent_grid_forward_##name)                                                                   \
    extern "C" __global__ void __launch_bounds__(THREADS) recurrent_grid_backward_##name(                   \
        BACKWARD_PARAMETERS, float* vectors, unsigned* counter, int units, int parts) {                     \
        backward<Cell>(BACKWARD_JOB, vectors, counter, {units, parts});                                     \
    }                                                                                                       \
    EXPORT(recurrent_grid_backward_##name)

GRID(Rnn, rnn)
GRID(Lstm, lstm)
GRID(Gru, gru)
GRID(Attention, attention)

}  // namespace recurrent_grid
