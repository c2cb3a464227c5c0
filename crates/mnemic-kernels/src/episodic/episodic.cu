// Scores of episodic memory and all their gradients, without features in memory: a block makes those of its facts in
// shared memory, as halves [f m | |f - m|] of `hp` columns each, which are h and zeros up to a multiple of 4.
#include "common.cuh"

namespace episodic {

constexpr int GROUPS = 8;  // threads along the facts; along the columns there are `threads` / GROUPS, four columns each

using Four = Pack<float, 4>;

__device__ inline Four& four(float* at) { return *reinterpret_cast<Four*>(at); }

struct Sizes {
    int n, h, u, hp;
};

// The features of facts `first ..` up to `rows`, then zeros up to `tile`.
__device__ inline void features(float* feat, const float* facts, const float* memory, Sizes s, int first, int rows,
                                int tile) {
    for (int i = threadIdx.x; i < tile * s.hp; i += blockDim.x) {
        const int r = i / s.hp, c = i - r * s.hp;
        float product = 0, distance = 0;
        if (r < rows && c < s.h) {
            const size_t fact = size_t(first) + r;
            const float f = facts[fact * s.h + c], m = memory[fact / s.n * s.h + c];
            product = f * m;
            distance = fabsf(f - m);
        }
        feat[r * 2 * s.hp + c] = product;
        feat[r * 2 * s.hp + s.hp + c] = distance;
    }
}

constexpr int TILE = 16;   // facts of a block
constexpr int DEPTH = 32;  // columns of the inner weights that are in shared memory at a time

// inner (u, 2h) from column `k0` on, transposed: (DEPTH, width + 4) of units u0 .. u0 + width.
__device__ inline void weights(float* wt, const float* inner, Sizes s, int k0, int u0, int width) {
    const int stride = width + 4;
    const bool packed = s.h % 4 == 0 && reinterpret_cast<size_t>(inner) % 16 == 0;
    for (int i = threadIdx.x; i < width * (DEPTH / 4); i += blockDim.x) {
        const int unit = i % width, k = i / width * 4, from = k0 + k;
        const int half = from >= s.hp, col = from - half * s.hp;
        Four w = {};
        if (u0 + unit < s.u && from < 2 * s.hp) {
            const float* at = inner + size_t(u0 + unit) * 2 * s.h + half * s.h + col;
            if (packed) w = *reinterpret_cast<const Four*>(at);
            else
                for (int j = 0; j < 4; j++) w.v[j] = col + j < s.h ? at[j] : 0;
        }
#pragma unroll
        for (int j = 0; j < 4; j++) wt[(k + j) * stride + unit] = w.v[j];
    }
}

// Two facts and four units a thread.
extern "C" __global__ void episodic_forward(const float* facts, const float* memory, const float* fixed,
                                            const float* inner, const float* outer, const float* bias, float* saved,
                                            float* scores, int total, int n, int h, int u) {
    DYNAMIC_SHARED(float, shared);
    const Sizes s = {n, h, u, (h + 3) / 4 * 4};
    const int columns = blockDim.x / GROUPS, width = columns * 4, stride = width + 4;
    const int tx = threadIdx.x % columns, ty = threadIdx.x / columns;
    float* feat = shared;
    float* wt = feat + TILE * 2 * s.hp;
    float* sums = wt + DEPTH * stride;
    const int first = blockIdx.x * TILE, rows = min(TILE, total - first);
    features(feat, facts, memory, s, first, rows, TILE);
    float score[2] = {};
    for (int u0 = 0; u0 < u; u0 += width) {
        float acc[2][4] = {};
        for (int k0 = 0; k0 < 2 * s.hp; k0 += DEPTH) {
            __syncthreads();
            weights(wt, inner, s, k0, u0, width);
            __syncthreads();
            const int depth = min(DEPTH, 2 * s.hp - k0);
#pragma unroll 8
            for (int k = 0; k < depth; k++) {
                const Four w = four(wt + k * stride + tx * 4);
                const float a = feat[ty * 2 * s.hp + k0 + k], b = feat[(ty + GROUPS) * 2 * s.hp + k0 + k];
#pragma unroll
                for (int j = 0; j < 4; j++) {
                    acc[0][j] += a * w.v[j];
                    acc[1][j] += b * w.v[j];
                }
            }
        }
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const int r = ty + i * GROUPS;
#pragma unroll
            for (int j = 0; j < 4; j++) {
                const int unit = u0 + tx * 4 + j;
                if (r >= rows || unit >= u) continue;
                const size_t at = size_t(first + r) * u + unit;
                const float y = tanhf(acc[i][j] + fixed[at]);
                saved[at] = y;
                score[i] += y * outer[unit];
            }
        }
    }
#pragma unroll
    for (int i = 0; i < 2; i++) sums[(ty + i * GROUPS) * columns + tx] = score[i];
    __syncthreads();
    for (int r = threadIdx.x; r < rows; r += blockDim.x) {
        float sum = bias[0];
        for (int k = 0; k < columns; k++) sum += sums[r * columns + k];
        scores[first + r] = sum;
    }
}
EXPORT(episodic_forward)

constexpr int ROWS = 32;  // facts at a time in the backward pass, four a thread
constexpr int STEP = 16;  // units of the inner weights that are in shared memory at a time

struct Back {
    const float *facts, *memory, *inner, *outer, *saved, *grad;
    float *d_facts, *d_memory, *d_fixed, *part;
    float *pre, *feat, *wt, *sums, *d_vector;  // shared
    int columns, width, tx, ty, up;
};

// Before the tanh; and the gradients of outer weights and bias, which the block gathers in its part.
__device__ inline void outer_gradient(const Back& k, Sizes s, size_t first, int rows, bool fresh) {
    for (int i = threadIdx.x; i < ROWS * k.up; i += blockDim.x) {
        const int r = i / k.up, c = i - r * k.up;
        float g = 0;
        if (r < rows && c < s.u) {
            const size_t at = (first + r) * s.u + c;
            const float y = k.saved[at];
            g = k.grad[first + r] * k.outer[c] * (1 - y * y);
            k.d_fixed[at] = g;
        }
        k.pre[i] = g;
    }
    float* to = k.part + size_t(s.u) * 2 * s.h;
    for (int c = threadIdx.x; c <= s.u; c += blockDim.x) {
        float sum = 0;
#pragma unroll 4
        for (int r = 0; r < rows; r++) {
            const float g = k.grad[first + r];
            sum += c < s.u ? g * k.saved[(first + r) * s.u + c] : g;
        }
        to[c] = fresh ? sum : to[c] + sum;
    }
}

// The gradient of the features, four facts and four columns of both halves a thread, turned into those of facts and memory.
__device__ inline void feature_gradient(const Back& k, Sizes s, size_t b, size_t first, int rows) {
    for (int c0 = 0; c0 < s.hp; c0 += k.width) {
        float product[4][4] = {}, distance[4][4] = {};
        for (int u0 = 0; u0 < s.u; u0 += STEP) {
            __syncthreads();
            for (int i = threadIdx.x; i < STEP * 2 * k.width; i += blockDim.x) {
                const int unit = i / (2 * k.width), c = i - unit * 2 * k.width;
                const int half = c >= k.width, col = c0 + c - half * k.width;
                const bool there = u0 + unit < s.u && col < s.h;
                k.wt[i] = there ? k.inner[size_t(u0 + unit) * 2 * s.h + half * s.h + col] : 0;
            }
            __syncthreads();
#pragma unroll 4
            for (int unit = 0; unit < STEP; unit++) {
                const Four p = four(k.wt + unit * 2 * k.width + k.tx * 4);
                const Four q = four(k.wt + unit * 2 * k.width + k.width + k.tx * 4);
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    const float a = k.pre[(k.ty + i * GROUPS) * k.up + u0 + unit];
#pragma unroll
                    for (int j = 0; j < 4; j++) {
                        product[i][j] += a * p.v[j];
                        distance[i][j] += a * q.v[j];
                    }
                }
            }
        }
#pragma unroll
        for (int j = 0; j < 4; j++) {
            const int col = c0 + k.tx * 4 + j;
            float sum = 0;
            if (col < s.h) {
                const float m = k.memory[b * s.h + col];
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    const int r = k.ty + i * GROUPS;
                    if (r >= rows) continue;
                    const size_t at = (first + r) * s.h + col;
                    const float f = k.facts[at], by = f - m;
                    const float turned = by > 0 ? distance[i][j] : by < 0 ? -distance[i][j] : 0;
                    k.d_facts[at] = product[i][j] * m + turned;
                    sum += product[i][j] * f - turned;
                }
            }
            k.sums[k.ty * k.width + k.tx * 4 + j] = sum;
        }
        __syncthreads();
        for (int c = threadIdx.x; c < k.width && c0 + c < s.hp; c += blockDim.x) {
            float sum = k.d_vector[c0 + c];
            for (int i = 0; i < GROUPS; i++) sum += k.sums[i * k.width + c];
            k.d_vector[c0 + c] = sum;
        }
    }
}

// The gradient of the inner weights, four units and four columns of both halves a thread, gathered in the block's part.
__device__ inline void inner_gradient(const Back& k, Sizes s, int rows, bool fresh) {
    for (int u0 = k.ty * 4; u0 < s.u; u0 += GROUPS * 4) {
        for (int c0 = k.tx * 4; c0 < s.h; c0 += k.width) {
            float product[4][4] = {}, distance[4][4] = {};
#pragma unroll 4
            for (int r = 0; r < rows; r++) {
                const Four a = four(k.pre + r * k.up + u0);
                const Four p = four(k.feat + r * 2 * s.hp + c0), q = four(k.feat + r * 2 * s.hp + s.hp + c0);
#pragma unroll
                for (int i = 0; i < 4; i++) {
#pragma unroll
                    for (int j = 0; j < 4; j++) {
                        product[i][j] += a.v[i] * p.v[j];
                        distance[i][j] += a.v[i] * q.v[j];
                    }
                }
            }
#pragma unroll
            for (int i = 0; i < 4; i++) {
#pragma unroll
                for (int j = 0; j < 4; j++) {
                    if (u0 + i >= s.u || c0 + j >= s.h) continue;
                    float* at = k.part + size_t(u0 + i) * 2 * s.h + c0 + j;
                    at[0] = fresh ? product[i][j] : at[0] + product[i][j];
                    at[s.h] = fresh ? distance[i][j] : at[s.h] + distance[i][j];
                }
            }
        }
    }
}

// A block takes whole batch rows; what it adds up for the parameters goes to its row of `parts` (blocks, 2 h u + u + 1).
extern "C" __global__ void episodic_backward(const float* facts, const float* memory, const float* inner,
                                             const float* outer, const float* saved, const float* grad, float* d_facts,
                                             float* d_memory, float* d_fixed, float* parts, int b, int n, int h, int u) {
    DYNAMIC_SHARED(float, shared);
    const Sizes s = {n, h, u, (h + 3) / 4 * 4};
    Back k = {facts, memory, inner, outer, saved, grad, d_facts, d_memory, d_fixed, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}};
    k.part = parts + size_t(blockIdx.x) * (size_t(u) * 2 * h + u + 1);
    k.columns = blockDim.x / GROUPS;
    k.width = k.columns * 4;
    k.tx = threadIdx.x % k.columns;
    k.ty = threadIdx.x / k.columns;
    k.up = (u + STEP - 1) / STEP * STEP;
    k.pre = shared;
    k.feat = k.pre + ROWS * k.up;
    k.wt = k.feat + ROWS * 2 * s.hp;
    k.sums = k.wt + STEP * 2 * k.width;
    k.d_vector = k.sums + GROUPS * k.width;
    bool fresh = true;
    for (int row = blockIdx.x; row < b; row += gridDim.x) {
        for (int c = threadIdx.x; c < s.hp; c += blockDim.x) k.d_vector[c] = 0;
        for (int t = 0; t < n; t += ROWS) {
            const size_t first = size_t(row) * n + t;
            const int rows = min(ROWS, n - t);
            __syncthreads();
            outer_gradient(k, s, first, rows, fresh);
            features(k.feat, facts, memory, s, int(first), rows, ROWS);
            feature_gradient(k, s, row, first, rows);
            inner_gradient(k, s, rows, fresh);
            fresh = false;
        }
        __syncthreads();
        for (int c = threadIdx.x; c < h; c += blockDim.x) d_memory[size_t(row) * h + c] = k.d_vector[c];
    }
}
EXPORT(episodic_backward)

}  // namespace episodic
