// Scans whose recurrent weights fit one multiprocessor: every block holds all of them, in registers and what is left over in shared
// memory, and reads some rows from their first step to their last. Blocks have nothing to tell each other.
//
// `lanes` neighbouring threads share a unit: thread s of them holds its weights of the inputs (c lanes + s) 4 + 0..3, chunk c after chunk,
// so that neighbours read neighbouring 16 bytes of the vector that all multiply. After the sums have been exchanged, thread s computes
// the unit of row s % R; the first R write.
#include "common.cuh"
#include "recurrent.cuh"

namespace recurrent_small {

using namespace recurrent;
using Four = Pack<float, 4>;

constexpr int THREADS = 512;

// A thread's weights of one unit, G gates.
template <int G, int C>
struct Weights {
    float held[G][4 * C];
    Four* rest;  // [chunk - C][gate][thread]
    int lanes, lane, chunks, pad;

    // How many numbers a vector takes.
    __device__ static int padded(int lanes, int chunks) { return 4 * lanes * max(chunks, C); }

    // `at(gate, k)` is the weight of input k, for k < width.
    template <class At>
    __device__ void load(float* shared, int lanes_, int chunks_, bool live, int width, At at) {
        lanes = lanes_, lane = threadIdx.x % lanes, chunks = chunks_, pad = padded(lanes, chunks);
        rest = reinterpret_cast<Four*>(shared);
        const auto get = [&](int g, int c, int e) {
            const int k = (c * lanes + lane) * 4 + e;
            return live && k < width ? at(g, k) : 0.f;
        };
        UNROLL
        for (int g = 0; g < G; ++g) {
            UNROLL
            for (int i = 0; i < 4 * C; ++i) held[g][i] = get(g, i / 4, i % 4);
        }
        for (int c = C; c < chunks; ++c)
            for (int g = 0; g < G; ++g) {
                Four four;
                UNROLL
                for (int e = 0; e < 4; ++e) four.v[e] = get(g, c, e);
                rest[((c - C) * G + g) * blockDim.x + threadIdx.x] = four;
            }
    }

    __device__ __forceinline__ Four read(const float* vector, int c) const {
        return *reinterpret_cast<const Four*>(vector + (c * lanes + lane) * 4);
    }

    __device__ __forceinline__ float dot(float sum, const float* w, const Four& v) const {
        UNROLL
        for (int e = 0; e < 4; ++e) sum += w[e] * v.v[e];
        return sum;
    }

    // Every gate's product with one vector a row, the same for all gates: sums[row][gate]. Gates FIRST to LAST - 1 only.
    template <int FIRST, int LAST, int R>
    __device__ __forceinline__ void multiply(const float* vectors, float (&sums)[R][G]) const {
        UNROLL
        for (int r = 0; r < R; ++r)
            for (int g = FIRST; g < LAST; ++g) sums[r][g] = 0;
        UNROLL
        for (int c = 0; c < C; ++c) {
            UNROLL
            for (int r = 0; r < R; ++r) {
                const Four v = read(vectors + r * pad, c);
                UNROLL
                for (int g = FIRST; g < LAST; ++g) sums[r][g] = dot(sums[r][g], &held[g][4 * c], v);
            }
        }
        for (int c = C; c < chunks; ++c) {
            Four v[R];
            UNROLL
            for (int r = 0; r < R; ++r) v[r] = read(vectors + r * pad, c);
            UNROLL
            for (int g = FIRST; g < LAST; ++g) {
                const Four w = rest[((c - C) * G + g) * blockDim.x + threadIdx.x];
                UNROLL
                for (int r = 0; r < R; ++r) sums[r][g] = dot(sums[r][g], w.v, v[r]);
            }
        }
        for (int m = 1; m < lanes; m *= 2) {
            UNROLL
            for (int r = 0; r < R; ++r)
                UNROLL
                for (int g = FIRST; g < LAST; ++g) sums[r][g] += __shfl_xor_sync(FULL_MASK, sums[r][g], m);
        }
    }

    // The sum over gates FIRST to LAST - 1 of their products with a vector each: vectors[row][gate]. For the row of this thread.
    template <int FIRST, int LAST, int R>
    __device__ __forceinline__ float multiply_back(const float* vectors) const {
        float sums[R] = {};
        UNROLL
        for (int c = 0; c < C; ++c) {
            UNROLL
            for (int r = 0; r < R; ++r) {
                UNROLL
                for (int g = FIRST; g < LAST; ++g)
                    sums[r] = dot(sums[r], &held[g][4 * c], read(vectors + (r * G + g) * pad, c));
            }
        }
        for (int c = C; c < chunks; ++c) {
            UNROLL
            for (int g = FIRST; g < LAST; ++g) {
                const Four w = rest[((c - C) * G + g) * blockDim.x + threadIdx.x];
                UNROLL
                for (int r = 0; r < R; ++r) sums[r] = dot(sums[r], w.v, read(vectors + (r * G + g) * pad, c));
            }
        }
        for (int m = 1; m < lanes; m *= 2) {
            UNROLL
            for (int r = 0; r < R; ++r) sums[r] += __shfl_xor_sync(FULL_MASK, sums[r], m);
        }
        float mine = sums[0];
        UNROLL
        for (int r = 1; r < R; ++r) mine = lane % R == r ? sums[r] : mine;
        return mine;
    }
};

// Fills the block's vectors with zeros: padding stays so.
__device__ __forceinline__ void clear_vectors(float* vectors, int count) {
    for (int i = threadIdx.x; i < count; i += blockDim.x) vectors[i] = 0;
}

template <int R, class Job>
__device__ __forceinline__ int longest_of(const Job& job) {
    int longest = 0;
    for (int r = 0; r < R; ++r) longest = max(longest, steps_of(job, blockIdx.x * R + r));
    return longest;
}

// Shared memory: two vectors of states a row (one more for r * h), then the weights that are left over.
template <class Cell, int R>
__device__ void forward(const Forward& job, int lanes, int chunks) {
    constexpr int G = Cell::GATES;
    DYNAMIC_SHARED(float, shared);
    const int unit = threadIdx.x / lanes, lane = threadIdx.x % lanes, own = lane % R, row = blockIdx.x * R + own;
    const bool live = unit < job.h && row < job.b, writes = live && lane < R;
    const int steps = live ? steps_of(job, row) : 0, longest = longest_of<R>(job);
    Weights<G, Cell::CHUNKS> weights;
    const int pad = weights.padded(lanes, chunks), count = (Cell::BEFORE ? 3 : 2) * R * pad, h = job.h;
    weights.load(shared + count, lanes, chunks, unit < h, h,
                 [&](int g, int k) { return job.w[(size_t(g) * h + unit) * h + k]; });
    clear_vectors(shared, count);
    State state = {0, 0};
    Extra extra = {};
    float b_ih[G] = {}, b_hh[G] = {};
    Input<Cell> next = {};
    if (live) {
        extra = extra_of(job, unit);
        bias_of<Cell>(job.b_ih, h, unit, b_ih);
        bias_of<Cell>(job.b_hh, h, unit, b_hh);
        if (job.h0) state.h = job.h0[size_t(row) * h + unit];
        if (job.c0) state.c = job.c0[size_t(row) * h + unit];
        if (steps > 0) next.load(job, place_of(job, row, 0, steps), unit);
    }
    __syncthreads();
    if (writes) shared[own * pad + unit] = state.h;
    __syncthreads();
    for (int i = 0; i < longest; ++i) {
        const float* from = shared + (i & 1) * R * pad;
        float* to = shared + ((i + 1) & 1) * R * pad;
        Input<Cell> now = next;
        if (i + 1 < steps) next.load(job, place_of(job, row, i + 1, steps), unit);
        float sums[R][G], p[G], kept[Cell::KEPT];
        weights.template multiply<0, Cell::BEFORE ? G - 1 : G>(from, sums);
        const auto take = [&](int g) {
            p[g] = sums[0][g];
            UNROLL
            for (int r = 1; r < R; ++r) p[g] = own == r ? sums[r][g] : p[g];
            p[g] += b_hh[g];
            now.x[g] += b_ih[g];
        };
        UNROLL
        for (int g = 0; g < (Cell::BEFORE ? G - 1 : G); ++g) take(g);
        if constexpr (Cell::BEFORE) {
            float* reset = shared + 2 * R * pad;
            const float v = Cell::reset(now.x[0], p[0], state, kept);
            if (writes) reset[own * pad + unit] = v;
            __syncthreads();
            weights.template multiply<G - 1, G>(reset, sums);
            take(G - 1);
        }
        if (i < steps) {
            const State old = state;
            extra.gate = now.gate;
            Cell::forward(now.x, p, state, extra, kept);
            if (writes) store<Cell>(job, place_of(job, row, i, steps), unit, old, state, kept);
        }
        if (writes) to[own * pad + unit] = state.h;
        __syncthreads();
    }
    if (!writes) return;
    clear<Cell>(job, row, steps, unit);
    job.h_end[size_t(row) * h + unit] = state.h;
    if (Cell::CELL) job.c_end[size_t(row) * h + unit] = state.c;
}

// Shared memory: two sets of a vector a row and gate, then the weights that are left over.
template <class Cell, int R>
__device__ void backward(const Backward& job, int lanes, int chunks) {
    constexpr int G = Cell::GATES;
    DYNAMIC_SHARED(float, shared);
    const int unit = threadIdx.x / lanes, lane = threadIdx.x % lanes, own = lane % R, row = blockIdx.x * R + own;
    const bool live = unit < job.h && row < job.b, writes = live && lane < R;
    const int steps = live ? steps_of(job, row) : 0, longest = longest_of<R>(job);
    Weights<G, Cell::CHUNKS> weights;
    const int pad = weights.padded(lanes, chunks), count = 2 * R * G * pad, h = job.h;
    weights.load(shared + count, lanes, chunks, unit < h, h,
                 [&](int g, int k) { return job.w[(size_t(g) * h + k) * h + unit]; });
    clear_vectors(shared, count);
    float dh = 0, dc = 0;
    Extra extra = {};
    Kept<Cell> next = {};
    if (live) {
        extra = extra_of(job, unit);
        if (job.dh_end) dh = job.dh_end[size_t(row) * h + unit];
        if (job.dc_end) dc = job.dc_end[size_t(row) * h + unit];
        if (steps > 0) next.load(job, place_of(job, row, steps - 1, steps), unit);
    }
    __syncthreads();
    for (int i = longest - 1; i >= 0; --i) {
        float* vectors = shared + (i & 1) * R * G * pad;
        Gradients<G> d = {};
        const Kept<Cell> now = next;
        const bool active = i < steps;
        d.direct = dh;
        if (active) {
            if (i > 0) next.load(job, place_of(job, row, i - 1, steps), unit);
            extra.gate = now.gate;
            Cell::backward(now.kept, now.old, dh + now.d_output, dc, extra, d);
        }
        if constexpr (Cell::BEFORE) {
            if (writes) vectors[(own * G + G - 1) * pad + unit] = d.p[G - 1];
            __syncthreads();
            const float d_reset = weights.template multiply_back<G - 1, G, R>(vectors);
            if (active) Cell::backward_reset(now.kept, now.old, d_reset, d);
        }
        if (writes) {
            UNROLL
            for (int g = 0; g < (Cell::BEFORE ? G - 1 : G); ++g) vectors[(own * G + g) * pad + unit] = d.p[g];
            if (active) store<Cell>(job, place_of(job, row, i, steps), unit, d);
        }
        __syncthreads();
        dh = d.direct + weights.template multiply_back<0, Cell::BEFORE ? G - 1 : G, R>(vectors);
    }
    if (!writes) return;
    clear<Cell>(job, row, steps, unit);
    if (job.dh0) job.dh0[size_t(row) * h + unit] = dh;
    if (job.dc0) job.dc0[size_t(row) * h + unit] = dc;
}

#define SMALL(Cell, name, R)                                                                            \
    extern "C" __global__ void __launch_bounds__(THREADS)                                               \
        recurrent_small_forward_##name##_##R(FORWARD_PARAMETERS, int lanes, int chunks) {               \
        forward<Cell, R>(FORWARD_JOB, lanes, chunks);                                                   \
    }                                                                                                   \
    EXPORT(recurrent_small_forward_##name##_##R)                                                        \
    extern "C" __global__ void __launch_bounds__(THREADS)                                               \
        recurrent_small_backward_##name##_##R(BACKWARD_PARAMETERS, int lanes, int chunks) {             \
        backward<Cell, R>(BACKWARD_JOB, lanes, chunks);                                                 \
    }                                                                                                   \
    EXPORT(recurrent_small_backward_##name##_##R)

SMALL(Rnn, rnn, 1)
SMALL(Rnn, rnn, 4)
SMALL(Lstm, lstm, 1)
SMALL(Lstm, lstm, 4)
SMALL(Gru, gru, 1)
SMALL(Gru, gru, 4)
SMALL(GruBefore, gru_before, 1)
SMALL(GruBefore, gru_before, 4)
SMALL(Attention, attention, 1)
SMALL(Attention, attention, 4)

}  // namespace recurrent_small
