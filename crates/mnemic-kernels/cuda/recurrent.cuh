// The cells of recurrent scans, one unit of one row at a time, forward and backward. Kernels differ in how they make the
// recurrent products.
#pragma once

#include "common.cuh"

namespace recurrent {

struct State {
    float h, c;
};

// What a cell reads beside products and state: its step's scalar gate, its unit's peepholes, and which variant it is.
struct Extra {
    float gate, peep[3];
    int variant;
};

// What a unit's backward step gives: gradients of the input products, of the recurrent products and of the gate, and the part of the
// old state's gradient that comes through no product.
template <int G>
struct Gradients {
    float x[G], p[G], direct, gate;
};

__device__ __forceinline__ float sigmoid(float x) { return 1.f / (1.f + __expf(-x)); }

// GATES: rows of weights a unit. KEPT: numbers kept a unit for the backward pass. CHUNKS: how many groups of four weights a gate a thread
// can hold in registers. SPLIT: the gradients of the two products differ. CELL: there is a second state. BEFORE: the last gate's product
// reads r * h.
struct Rnn {
    static constexpr int GATES = 1, KEPT = 1, CHUNKS = 16;
    static constexpr bool SPLIT = false, CELL = false, BEFORE = false;

    __device__ static void forward(const float (&x)[1], const float (&p)[1], State& s, const Extra& e, float (&kept)[1]) {
        const float a = x[0] + p[0];
        s.h = kept[0] = e.variant ? fmaxf(a, 0.f) : tanhf(a);
    }
    __device__ static void backward(const float (&kept)[1], State, float dh, float&, const Extra& e, Gradients<1>& d) {
        const float y = kept[0];
        d.x[0] = d.p[0] = e.variant ? (y > 0 ? dh : 0.f) : dh * (1 - y * y);
        d.direct = d.gate = 0;
    }
};

// Keeps the gates i f g o.
struct Lstm {
    static constexpr int GATES = 4, KEPT = 4, CHUNKS = 4;
    static constexpr bool SPLIT = false, CELL = true, BEFORE = false;

    __device__ static void forward(const float (&x)[4], const float (&p)[4], State& s, const Extra& e, float (&kept)[4]) {
        kept[0] = sigmoid(x[0] + p[0] + e.peep[0] * s.c);
        kept[1] = sigmoid(x[1] + p[1] + e.peep[1] * s.c);
        kept[2] = tanhf(x[2] + p[2]);
        s.c = kept[1] * s.c + kept[0] * kept[2];
        kept[3] = sigmoid(x[3] + p[3] + e.peep[2] * s.c);
        s.h = kept[3] * tanhf(s.c);
    }
    __device__ static void backward(const float (&kept)[4], State old, float dh, float& dc, const Extra& e, Gradients<4>& d) {
        const float i = kept[0], f = kept[1], g = kept[2], o = kept[3], y = tanhf(f * old.c + i * g);
        d.x[3] = dh * y * o * (1 - o);
        dc += dh * o * (1 - y * y) + d.x[3] * e.peep[2];
        d.x[0] = dc * g * i * (1 - i);
        d.x[1] = dc * old.c * f * (1 - f);
        d.x[2] = dc * i * (1 - g * g);
        dc = dc * f + d.x[0] * e.peep[0] + d.x[1] * e.peep[1];
        UNROLL
        for (int q = 0; q < 4; ++q) d.p[q] = d.x[q];
        d.direct = d.gate = 0;
    }
};

// Keeps r z n and the new gate's recurrent product. Variant 1 is gated.
struct Gru {
    static constexpr int GATES = 3, KEPT = 4, CHUNKS = 5;
    static constexpr bool SPLIT = true, CELL = false, BEFORE = false;

    __device__ static void forward(const float (&x)[3], const float (&p)[3], State& s, const Extra& e, float (&kept)[4]) {
        const float r = sigmoid(x[0] + p[0]), z = sigmoid(x[1] + p[1]), n = tanhf(x[2] + r * p[2]);
        kept[0] = r, kept[1] = z, kept[2] = n, kept[3] = p[2];
        const float next = n + z * (s.h - n);
        s.h = e.variant ? s.h + e.gate * (next - s.h) : next;
    }
    __device__ static void backward(const float (&kept)[4], State old, float dh, float&, const Extra& e, Gradients<3>& d) {
        const float r = kept[0], z = kept[1], n = kept[2], open = e.variant ? e.gate : 1.f, dnext = open * dh;
        d.gate = dh * (n + z * (old.h - n) - old.h);
        d.direct = (1 - open) * dh + dnext * z;
        d.x[1] = d.p[1] = dnext * (old.h - n) * z * (1 - z);
        d.x[2] = dnext * (1 - z) * (1 - n * n);
        d.p[2] = d.x[2] * r;
        d.x[0] = d.p[0] = d.x[2] * kept[3] * r * (1 - r);
    }
};

// The update gate is the step's scalar gate. Keeps r n and the new gate's recurrent product.
struct Attention {
    static constexpr int GATES = 2, KEPT = 3, CHUNKS = 8;
    static constexpr bool SPLIT = true, CELL = false, BEFORE = false;

    __device__ static void forward(const float (&x)[2], const float (&p)[2], State& s, const Extra& e, float (&kept)[3]) {
        const float r = sigmoid(x[0] + p[0]), n = tanhf(x[1] + r * p[1]);
        kept[0] = r, kept[1] = n, kept[2] = p[1];
        s.h += e.gate * (n - s.h);
    }
    __device__ static void backward(const float (&kept)[3], State old, float dh, float&, const Extra& e, Gradients<2>& d) {
        const float r = kept[0], n = kept[1];
        d.gate = dh * (n - old.h);
        d.direct = (1 - e.gate) * dh;
        d.x[1] = e.gate * dh * (1 - n * n);
        d.p[1] = d.x[1] * r;
        d.x[0] = d.p[0] = d.x[1] * kept[2] * r * (1 - r);
    }
};

// A GRU with its reset gate before the product, in two parts: `reset` gives r * h, which the last product reads. Keeps r z n and r * h.
struct GruBefore {
    static constexpr int GATES = 3, KEPT = 4, CHUNKS = 5;
    static constexpr bool SPLIT = false, CELL = false, BEFORE = true;

    __device__ static float reset(float x, float p, State s, float (&kept)[4]) {
        kept[0] = sigmoid(x + p);
        return kept[3] = kept[0] * s.h;
    }
    __device__ static void forward(const float (&x)[3], const float (&p)[3], State& s, const Extra&, float (&kept)[4]) {
        const float z = sigmoid(x[1] + p[1]), n = tanhf(x[2] + p[2]);
        kept[1] = z, kept[2] = n;
        s.h = n + z * (s.h - n);
    }
    // All but the reset gate, for which d.p[2] has to go through the weights first.
    __device__ static void backward(const float (&kept)[4], State old, float dh, float&, const Extra&, Gradients<3>& d) {
        const float z = kept[1], n = kept[2];
        d.direct = dh * z;
        d.x[1] = d.p[1] = dh * (old.h - n) * z * (1 - z);
        d.x[2] = d.p[2] = dh * (1 - z) * (1 - n * n);
        d.x[0] = d.p[0] = d.gate = 0;
    }
    // `d_reset` is the gradient of r * h.
    __device__ static void backward_reset(const float (&kept)[4], State old, float d_reset, Gradients<3>& d) {
        const float r = kept[0];
        d.direct += d_reset * r;
        d.x[0] = d.p[0] = d_reset * old.h * r * (1 - r);
    }
};

// What a forward scan reads and writes. Pointers may be null: b_ih, b_hh, h0, c0, gates, peepholes, lengths; all that is kept.
struct Forward {
    const float *x, *w, *b_ih, *b_hh, *h0, *c0, *gates, *peepholes;
    const unsigned* lengths;
    float *output, *h_end, *c_end, *kept, *h_old, *c_old;
    int b, t, h, reverse, variant;
};

// What a backward scan reads and writes. May be null: gates, peepholes, lengths, all gradients of results; dp, d_gates, dh0, dc0.
struct Backward {
    const float *w, *gates, *peepholes;
    const unsigned* lengths;
    const float *kept, *h_old, *c_old, *d_output, *dh_end, *dc_end;
    float *dx, *dp, *d_gates, *dh0, *dc0;
    int b, t, h, reverse, variant;
};

#define FORWARD_PARAMETERS                                                                                          \
    const float *x, const float *w, const float *b_ih, const float *b_hh, const float *h0, const float *c0,         \
        const float *gates, const float *peepholes, const unsigned *lengths, float *output, float *h_end,           \
        float *c_end, float *kept, float *h_old, float *c_old, int b, int t, int h, int reverse, int variant
#define FORWARD_JOB                                                                                                  \
    recurrent::Forward {                                                                                            \
        x, w, b_ih, b_hh, h0, c0, gates, peepholes, lengths, output, h_end, c_end, kept, h_old, c_old, b, t, h,     \
            reverse, variant                                                                                        \
    }
#define BACKWARD_PARAMETERS                                                                                          \
    const float *w, const float *gates, const float *peepholes, const unsigned *lengths, const float *kept,         \
        const float *h_old, const float *c_old, const float *d_output, const float *dh_end, const float *dc_end,    \
        float *dx, float *dp, float *d_gates, float *dh0, float *dc0, int b, int t, int h, int reverse, int variant
#define BACKWARD_JOB                                                                                                 \
    recurrent::Backward {                                                                                           \
        w, gates, peepholes, lengths, kept, h_old, c_old, d_output, dh_end, dc_end, dx, dp, d_gates, dh0, dc0, b,   \
            t, h, reverse, variant                                                                                  \
    }

// The number of steps of a row.
template <class Job>
__device__ __forceinline__ int steps_of(const Job& job, int row) {
    if (row >= job.b) return 0;
    return job.lengths ? static_cast<int>(job.lengths[row]) : job.t;
}

// The place (row, time) of a row's i-th step.
template <class Job>
__device__ __forceinline__ size_t place_of(const Job& job, int row, int i, int steps) {
    return size_t(row) * job.t + (job.reverse ? steps - 1 - i : i);
}

template <class Job>
__device__ __forceinline__ Extra extra_of(const Job& job, int unit) {
    Extra e = {1.f, {0.f, 0.f, 0.f}, job.variant};
    if (job.peepholes)
        for (int q = 0; q < 3; ++q) e.peep[q] = job.peepholes[q * job.h + unit];
    return e;
}

// What a forward step reads of one unit.
template <class Cell>
struct Input {
    float x[Cell::GATES], gate;

    __device__ __forceinline__ void load(const Forward& job, size_t place, int unit) {
        const float* from = job.x + place * Cell::GATES * job.h + unit;
        UNROLL
        for (int g = 0; g < Cell::GATES; ++g) x[g] = from[g * job.h];
        gate = job.gates ? job.gates[place] : 1.f;
    }
};

// Adds the input's bias, or gives zeros.
template <class Cell>
__device__ __forceinline__ void bias_of(const float* bias, int h, int unit, float (&to)[Cell::GATES]) {
    UNROLL
    for (int g = 0; g < Cell::GATES; ++g) to[g] = bias ? bias[g * h + unit] : 0.f;
}

// Writes what a forward step gives for one unit.
template <class Cell>
__device__ __forceinline__ void store(const Forward& job, size_t place, int unit, State old, State now,
                                      const float (&kept)[Cell::KEPT]) {
    const size_t at = place * job.h + unit, all = size_t(job.b) * job.t * job.h;
    job.output[at] = now.h;
    if (!job.kept) return;
    UNROLL
    for (int q = 0; q < Cell::KEPT; ++q) job.kept[q * all + at] = kept[q];
    job.h_old[at] = old.h;
    if (Cell::CELL) job.c_old[at] = old.c;
}

// Zeros behind a row's end.
template <class Cell>
__device__ __forceinline__ void clear(const Forward& job, int row, int steps, int unit) {
    const float none[Cell::KEPT] = {};
    for (int i = steps; i < job.t; ++i) store<Cell>(job, size_t(row) * job.t + i, unit, {0, 0}, {0, 0}, none);
}

// What a backward step reads of one unit.
template <class Cell>
struct Kept {
    float kept[Cell::KEPT], d_output, gate;
    State old;

    __device__ __forceinline__ void load(const Backward& job, size_t place, int unit) {
        const size_t at = place * job.h + unit, all = size_t(job.b) * job.t * job.h;
        UNROLL
        for (int q = 0; q < Cell::KEPT; ++q) kept[q] = job.kept[q * all + at];
        old = {job.h_old[at], Cell::CELL ? job.c_old[at] : 0.f};
        d_output = job.d_output ? job.d_output[at] : 0.f;
        gate = job.gates ? job.gates[place] : 1.f;
    }
};

// Writes what a backward step gives for one unit.
template <class Cell>
__device__ __forceinline__ void store(const Backward& job, size_t place, int unit, const Gradients<Cell::GATES>& d) {
    const size_t at = place * Cell::GATES * job.h + unit;
    UNROLL
    for (int g = 0; g < Cell::GATES; ++g) {
        job.dx[at + g * job.h] = d.x[g];
        if (Cell::SPLIT) job.dp[at + g * job.h] = d.p[g];
    }
    if (job.d_gates) job.d_gates[place * job.h + unit] = d.gate;
}

template <class Cell>
__device__ __forceinline__ void clear(const Backward& job, int row, int steps, int unit) {
    const Gradients<Cell::GATES> none = {};
    for (int i = steps; i < job.t; ++i) store<Cell>(job, size_t(row) * job.t + i, unit, none);
}

}  // namespace recurrent
