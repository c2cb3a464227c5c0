// Scans of any size: the recurrent products are made step by step outside, and one kernel a step does the rest (two for a GRU that
// resets before its product). One thread a unit and row.
#include "common.cuh"
#include "recurrent.cuh"

namespace recurrent_steps {

using namespace recurrent;

// `p` (b, g h) holds the products of step i. Where the reset gate comes before the product, it lacks the last gate, which is `last` (b, h).
// Reads the states `h_from` and `c_from` and writes the next; the first step clears what stands behind the rows' ends.
template <class Cell>
__device__ void forward(const Forward& job, const float* p, const float* last, const float* h_from, const float* c_from,
                        float* h_to, float* c_to, int i) {
    constexpr int G = Cell::GATES, FIRST = Cell::BEFORE ? G - 1 : G;
    const int e = blockIdx.x * blockDim.x + threadIdx.x, h = job.h;
    if (e >= job.b * h) return;
    const int row = e / h, unit = e % h, steps = steps_of(job, row);
    State now = {h_from[e], Cell::CELL ? c_from[e] : 0.f};
    if (i == 0) clear<Cell>(job, row, steps, unit);
    if (i < steps) {
        const State old = now;
        const size_t place = place_of(job, row, i, steps);
        Input<Cell> input;
        input.load(job, place, unit);
        float q[G], b_ih[G], b_hh[G], kept[Cell::KEPT];
        bias_of<Cell>(job.b_ih, h, unit, b_ih);
        bias_of<Cell>(job.b_hh, h, unit, b_hh);
        UNROLL
        for (int g = 0; g < G; ++g) {
            q[g] = (g < FIRST ? p[(size_t(row) * FIRST + g) * h + unit] : last[e]) + b_hh[g];
            input.x[g] += b_ih[g];
        }
        Extra extra = extra_of(job, unit);
        extra.gate = input.gate;
        if constexpr (Cell::BEFORE) Cell::reset(input.x[0], q[0], old, kept);
        Cell::forward(input.x, q, now, extra, kept);
        store<Cell>(job, place, unit, old, now, kept);
    }
    h_to[e] = now.h;
    if (Cell::CELL) c_to[e] = now.c;
}

// r * h of step i.
__device__ void reset(const Forward& job, const float* p, const float* h_from, float* to, int i) {
    const int e = blockIdx.x * blockDim.x + threadIdx.x, h = job.h;
    if (e >= job.b * h) return;
    const int row = e / h, unit = e % h, steps = steps_of(job, row);
    float r = 0;
    if (i < steps) {
        float x = job.x[place_of(job, row, i, steps) * 3 * h + unit], q = p[size_t(row) * 2 * h + unit], kept[4];
        if (job.b_ih) x += job.b_ih[unit];
        if (job.b_hh) q += job.b_hh[unit];
        r = GruBefore::reset(x, q, {h_from[e], 0}, kept);
    }
    to[e] = r;
}

// The gradient of the state after step i is `direct` + `product`, either of which may be null. Writes the gradients of the step's
// recurrent products to `p` (b, g h), and where the reset gate comes before the product that of the last gate alone to `last`.
template <class Cell>
__device__ void backward(const Backward& job, const float* direct, const float* product, const float* dc_from, float* p,
                         float* last, float* direct_to, float* dc_to, int i) {
    constexpr int G = Cell::GATES;
    const int e = blockIdx.x * blockDim.x + threadIdx.x, h = job.h;
    if (e >= job.b * h) return;
    const int row = e / h, unit = e % h, steps = steps_of(job, row);
    const float dh = (direct ? direct[e] : 0.f) + (product ? product[e] : 0.f);
    float dc = Cell::CELL && dc_from ? dc_from[e] : 0.f;
    Gradients<G> d = {};
    d.direct = dh;
    if (i == 0) clear<Cell>(job, row, steps, unit);
    if (i < steps) {
        const size_t place = place_of(job, row, i, steps);
        Kept<Cell> now;
        now.load(job, place, unit);
        Extra extra = extra_of(job, unit);
        extra.gate = now.gate;
        Cell::backward(now.kept, now.old, dh + now.d_output, dc, extra, d);
        store<Cell>(job, place, unit, d);
    }
    if (Cell::BEFORE) {
        last[e] = d.p[G - 1];
        UNROLL
        for (int g = 0; g < G - 1; ++g) p[(size_t(row) * (G - 1) + g) * h + unit] = d.p[g];
    } else {
        UNROLL
        for (int g = 0; g < G; ++g) p[(size_t(row) * G + g) * h + unit] = d.p[g];
    }
    direct_to[e] = d.direct;
    if (Cell::CELL) dc_to[e] = dc;
}

// The rest of a backward step where the reset gate comes before the product, with the gradient of r * h. Adds to `direct`.
__device__ void reset_back(const Backward& job, const float* d_reset, float* p, float* direct, int i) {
    const int e = blockIdx.x * blockDim.x + threadIdx.x, h = job.h;
    if (e >= job.b * h) return;
    const int row = e / h, unit = e % h, steps = steps_of(job, row);
    if (i >= steps) return;
    const size_t place = place_of(job, row, i, steps);
    Kept<GruBefore> now;
    now.load(job, place, unit);
    Gradients<3> d = {};
    GruBefore::backward_reset(now.kept, now.old, d_reset[e], d);
    direct[e] += d.direct;
    p[size_t(row) * 2 * h + unit] = job.dx[place * 3 * h + unit] = d.x[0];
}

#define STEPS(Cell, name)                                                                                            \
    extern "C" __global__ void recurrent_steps_forward_##name(                                                       \
        FORWARD_PARAMETERS, const float* p, const float* last, const float* h_from, const float* c_from,             \
        float* h_to, float* c_to, int i) {                                                                           \
        forward<Cell>(FORWARD_JOB, p, last, h_from, c_from, h_to, c_to, i);                                          \
    }                                                                                                                \
    EXPORT(recurrent_steps_forward_##name)                                                                           \
    extern "C" __global__ void recurrent_steps_backward_##name(                                                      \
        BACKWARD_PARAMETERS, const float* direct, const float* product, const float* dc_from, float* p, float* last, \
        float* direct_to, float* dc_to, int i) {                                                                     \
        backward<Cell>(BACKWARD_JOB, direct, product, dc_from, p, last, direct_to, dc_to, i);                        \
    }                                                                                                                \
    EXPORT(recurrent_steps_backward_##name)

STEPS(Rnn, rnn)
STEPS(Lstm, lstm)
STEPS(Gru, gru)
STEPS(GruBefore, gru_before)
STEPS(Attention, attention)

extern "C" __global__ void recurrent_steps_reset(FORWARD_PARAMETERS, const float* p, const float* h_from, float* to, int i) {
    reset(FORWARD_JOB, p, h_from, to, i);
}
EXPORT(recurrent_steps_reset)

extern "C" __global__ void recurrent_steps_reset_back(BACKWARD_PARAMETERS, const float* d_reset, float* p, float* direct, int i) {
    reset_back(BACKWARD_JOB, d_reset, p, direct, i);
}
EXPORT(recurrent_steps_reset_back)

}  // namespace recurrent_steps
