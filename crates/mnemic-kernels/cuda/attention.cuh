// What the kernels of attention have in common: fragments of tensor cores for all types, tiles, masks and terms of scores.
#pragma once

#include "common.cuh"

// Keeps a loop's body short, so that its registers are enough.
#ifdef __CUDACC__
#define NO_UNROLL _Pragma("unroll 1")
#define UNROLL_BY(n) UNROLL_AS(unroll n)
#define UNROLL_AS(text) _Pragma(#text)
#else
#define NO_UNROLL
#define UNROLL_BY(n)
#endif

namespace attention {

constexpr int WARPS = 4, THREADS = 32 * WARPS;
constexpr float LOG2_E = 1.4426950408889634f, LN_2 = 0.6931471805599453f;

// Powers of two to within 2^-22, the smallest flushed to 0: one instruction.
__device__ __forceinline__ float power(float x) {
#ifdef __CUDACC__
    float result;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
    return result;
#else
    return exp2f(x);
#endif
}

__device__ __forceinline__ int ceil_div(int a, int b) { return (a + b - 1) / b; }

__device__ __forceinline__ unsigned pack(float x, float y, __nv_bfloat16) {
#ifdef __CUDACC__
    const __nv_bfloat162 both = __floats2bfloat162_rn(x, y);
    return *reinterpret_cast<const unsigned*>(&both);
#else
    return __bfloat16_as_ushort(__float2bfloat16_rn(x)) | unsigned(__bfloat16_as_ushort(__float2bfloat16_rn(y))) << 16;
#endif
}
__device__ __forceinline__ unsigned pack(float x, float y, __half) {
#ifdef __CUDACC__
    const __half2 both = __floats2half2_rn(x, y);
    return *reinterpret_cast<const unsigned*>(&both);
#else
    return __half_as_ushort(__float2half_rn(x)) | unsigned(__half_as_ushort(__float2half_rn(y))) << 16;
#endif
}

// Products on tensor cores. A is 16 x STEP, B is STEP x 16 (two operands side by side), the sum 16 x 8, of which a lane holds
// (g, 2 t), (g, 2 t + 1), (g + 8, 2 t) and (g + 8, 2 t + 1) with g = lane / 4, t = lane % 4. Rows of tiles in shared memory are
// PAD apart, so that no two lanes meet in a bank.
template <class T>
struct Fragment {
    static constexpr int STEP = 16, PAD = 8;
    struct A {
        unsigned r[4];
    };
    struct B {
        unsigned r[4];
    };

    // A[m][k] = tile[row + m][k0 + k].
    static __device__ __forceinline__ void load_a(A& a, const T* tile, int stride, int row, int k0) {
        const int lane = threadIdx.x % 32;
        ldmatrix_x4(a.r, tile + (row + lane % 16) * stride + k0 + lane / 16 * 8);
    }
    // B[k][n] = tile[row + n][k0 + k].
    static __device__ __forceinline__ void load_b(B& b, const T* tile, int stride, int row, int k0) {
        const int lane = threadIdx.x % 32;
        ldmatrix_x4(b.r, tile + (row + lane / 16 * 8 + lane % 8) * stride + k0 + lane / 8 % 2 * 8);
    }
    // B[k][n] = tile[row + k][column + n], for A out of sums.
    static __device__ __forceinline__ void load_b_down(B& b, const T* tile, int stride, int row, int column) {
        const int lane = threadIdx.x % 32;
        ldmatrix_x4_trans(b.r, tile + (row + lane % 16) * stride + column + lane / 16 * 8);
    }
    // A of columns k * STEP and on of sums: their layouts are the same.
    static __device__ __forceinline__ void from_sums(A& a, const float (*sums)[4], int k) {
        const float *x = sums[2 * k], *y = sums[2 * k + 1];
        a.r[0] = pack(x[0], x[1], T());
        a.r[1] = pack(x[2], x[3], T());
        a.r[2] = pack(y[0], y[1], T());
        a.r[3] = pack(y[2], y[3], T());
    }
    static __device__ __forceinline__ void multiply(float (*sums)[4], const A& a, const B& b) {
        const unsigned left[2] = {b.r[0], b.r[1]}, right[2] = {b.r[2], b.r[3]};
        mma_16x8x16(sums[0], a.r, left, T());
        mma_16x8x16(sums[1], a.r, right, T());
    }
};

// Floats are split in two numbers of TF32 each by cutting off what the tensor core does not read: two instructions, where rounding
// would take five. What is left out is 2^-20 of a product.
template <>
struct Fragment<float> {
    static constexpr int STEP = 8, PAD = 4;
    struct A {
        unsigned big[4], small[4];
    };
    struct B {
        unsigned big[2][2], small[2][2];
    };

    static __device__ __forceinline__ void split(float x, unsigned& big, unsigned& small) {
        big = __float_as_uint(x) & 0xffffe000u;
        small = __float_as_uint(x - __uint_as_float(big));
    }
    static __device__ __forceinline__ void load_a(A& a, const float* tile, int stride, int row, int k0) {
        const int lane = threadIdx.x % 32;
        UNROLL
        for (int i = 0; i < 4; ++i) {
            const float x = tile[(row + lane / 4 + i % 2 * 8) * stride + k0 + lane % 4 + i / 2 * 4];
            split(x, a.big[i], a.small[i]);
        }
    }
    static __device__ __forceinline__ void load_b(B& b, const float* tile, int stride, int row, int k0) {
        const int lane = threadIdx.x % 32;
        UNROLL
        for (int i = 0; i < 4; ++i) {
            const float x = tile[(row + lane / 4 + i / 2 * 8) * stride + k0 + lane % 4 + i % 2 * 4];
            split(x, b.big[i / 2][i % 2], b.small[i / 2][i % 2]);
        }
    }
    // A lane of the sums holds columns 2 t and 2 t + 1 where A has t and t + 4, so the rows of B are taken in that order.
    static __device__ __forceinline__ void load_b_down(B& b, const float* tile, int stride, int row, int column) {
        const int lane = threadIdx.x % 32;
        UNROLL
        for (int i = 0; i < 4; ++i) {
            const float x = tile[(row + lane % 4 * 2 + i % 2) * stride + column + lane / 4 + i / 2 * 8];
            split(x, b.big[i / 2][i % 2], b.small[i / 2][i % 2]);
        }
    }
    static __device__ __forceinline__ void from_sums(A& a, const float (*sums)[4], int k) {
        const float* x = sums[k];
        split(x[0], a.big[0], a.small[0]);
        split(x[2], a.big[1], a.small[1]);
        split(x[1], a.big[2], a.small[2]);
        split(x[3], a.big[3], a.small[3]);
    }
    static __device__ __forceinline__ void multiply(float (*sums)[4], const A& a, const B& b) {
        UNROLL
        for (int i = 0; i < 2; ++i) mma_16x8x8_tf32(sums[i], a.small, b.big[i]);
        UNROLL
        for (int i = 0; i < 2; ++i) mma_16x8x8_tf32(sums[i], a.big, b.small[i]);
        UNROLL
        for (int i = 0; i < 2; ++i) mma_16x8x8_tf32(sums[i], a.big, b.big[i]);
    }
};

// Rows of the tiles that a block walks over: narrow ones where wide ones would not fit in shared memory.
template <class T, int D>
struct Shape {
    static constexpr int STRIDE = D + Fragment<T>::PAD;
    static constexpr int COLUMNS = sizeof(T) == 4 && D == 128 ? 32 : 64;
    static constexpr int STEPS = D / Fragment<T>::STEP;
    // Whether A is kept in registers.
    static constexpr bool KEEP = sizeof(T) == 2 && D <= 64;
    // So many steps of a product are scheduled together.
    static constexpr int UNROLLED = sizeof(T) == 4 ? 2 : STEPS;
};

// Copies rows `first` and on of a matrix (n, width) into a tile, zeros beyond its ends. `aligned` rows begin at multiples of
// 16 bytes; their copies are only begun.
template <class T, int D, int ROWS>
__device__ __forceinline__ void load_tile(T* tile, const T* matrix, int first, int n, int width, bool aligned) {
    constexpr int PER_COPY = 16 / sizeof(T), PER_ROW = D / PER_COPY, STRIDE = Shape<T, D>::STRIDE, STEP = THREADS / PER_ROW;
    if (aligned) {
        const int column = threadIdx.x % PER_ROW * PER_COPY, row = threadIdx.x / PER_ROW;
        const T* const from = matrix + size_t(first + row) * width + column;
        T* const to = tile + row * STRIDE + column;
        UNROLL
        for (int i = 0; i < ROWS; i += STEP) {
            const bool valid = first + row + i < n && column < width;
            cp_async_16(to + i * STRIDE, valid ? from + i * width : matrix, valid);
        }
    } else {
        NO_UNROLL
        for (int at = threadIdx.x; at < ROWS * D; at += THREADS) {
            const int row = at / D, column = at % D;
            const bool valid = first + row < n && column < width;
            tile[row * STRIDE + column] = valid ? matrix[size_t(first + row) * width + column] : from_float<T>(0);
        }
    }
}

// A's fragments of a warp's M tiles of 16 rows: kept in registers where they are few.
template <class T, int D, int M>
struct Kept {
    static constexpr bool ALL = Shape<T, D>::KEEP && M == 1;
    typename Fragment<T>::A a[M][ALL ? Shape<T, D>::STEPS : 1];

    __device__ __forceinline__ void load(const T* own, int row) {
        if constexpr (ALL) {
            UNROLL
            for (int k = 0; k < Shape<T, D>::STEPS; ++k)
                Fragment<T>::load_a(a[0][k], own, Shape<T, D>::STRIDE, row, k * Fragment<T>::STEP);
        }
    }
};

// sums (M tiles of 16 x 16 N) += A tile[row ..]^T over the whole width. Each fragment of the tile serves all M.
template <class T, int D, int N, int M>
__device__ __forceinline__ void across(float (&sums)[M][2 * N][4], const Kept<T, D, M>& kept, const T* own, int own_row,
                                       const T* tile, int row) {
    using F = Fragment<T>;
    constexpr int STRIDE = Shape<T, D>::STRIDE;
    UNROLL_BY((Shape<T, D>::UNROLLED))
    for (int k = 0; k < Shape<T, D>::STEPS; ++k) {
        typename F::A a[M];
        UNROLL
        for (int m = 0; m < M; ++m) {
            if constexpr (Kept<T, D, M>::ALL) {
                a[m] = kept.a[m][k];
            } else {
                F::load_a(a[m], own, STRIDE, own_row + 16 * m, k * F::STEP);
            }
        }
        UNROLL
        for (int n = 0; n < N; ++n) {
            typename F::B b;
            F::load_b(b, tile, STRIDE, row + 16 * n, k * F::STEP);
            UNROLL
            for (int m = 0; m < M; ++m) F::multiply(sums[m] + 2 * n, a[m], b);
        }
    }
}

// sums (M tiles of 16 x D) += weights (M tiles of 16 x 16 N) tile[row ..].
template <class T, int D, int N, int M>
__device__ __forceinline__ void down(float (&sums)[M][D / 8][4], const float (&weights)[M][2 * N][4], const T* tile, int row) {
    using F = Fragment<T>;
    UNROLL
    for (int k = 0; k < 16 * N / F::STEP; ++k) {
        typename F::A a[M];
        UNROLL
        for (int m = 0; m < M; ++m) F::from_sums(a[m], weights[m], k);
        UNROLL
        for (int n = 0; n < D / 16; ++n) {
            typename F::B b;
            F::load_b_down(b, tile, Shape<T, D>::STRIDE, row + k * F::STEP, 16 * n);
            UNROLL
            for (int m = 0; m < M; ++m) F::multiply(sums[m] + 2 * n, a[m], b);
        }
    }
}

// Sizes and masks. Query i stands at key i + n_k - n_q and sees one range of keys.
struct Problem {
    const unsigned* lengths;
    int n_q, n_k, d, d_v, h, group;
    // Reaches to the left and right, plus one; 0 where open.
    int left, right;
    float scale;
    int aligned;

    __device__ __forceinline__ int length(int batch) const { return lengths ? min(int(lengths[batch]), n_k) : n_k; }
    __device__ __forceinline__ int start(int i) const { return left ? max(0, i + n_k - n_q - left + 1) : 0; }
    __device__ __forceinline__ int end(int i, int length) const {
        return right ? min(length, i + n_k - n_q + right) : length;
    }
};

enum Relative { NONE, MUSIC, SHAW };

// What is added to the products, and dropout.
template <class T>
struct Terms {
    const T* bias;
    int bias_b, bias_h;
    const float* slopes;
    const T* distances;
    // Products of queries with relative keys, and of gradients with relative values, (b h, n_q, places).
    const T *products, *value_products;
    int relative, places;
    unsigned long long seed, stream, threshold;
    float kept;
};

struct Philox {
    unsigned long long last = ~0ull;
    unsigned x[4];

    __device__ __forceinline__ unsigned word(unsigned long long seed, unsigned long long stream, unsigned long long n) {
        if (n / 4 != last) {
            last = n / 4;
            x[0] = unsigned(last), x[1] = unsigned(last >> 32), x[2] = unsigned(stream), x[3] = unsigned(stream >> 32);
            unsigned key[2] = {unsigned(seed), unsigned(seed >> 32)};
            UNROLL
            for (int round = 0; round < 10; ++round) {
                const unsigned long long p = 0xd2511f53ull * x[0], q = 0xcd9e8d57ull * x[2];
                x[0] = unsigned(q >> 32) ^ x[1] ^ key[0];
                x[1] = unsigned(q);
                x[2] = unsigned(p >> 32) ^ x[3] ^ key[1];
                x[3] = unsigned(p);
                key[0] += 0x9e3779b9u;
                key[1] += 0xbb67ae85u;
            }
        }
        const unsigned low = n & 1 ? x[1] : x[0], high = n & 1 ? x[3] : x[2];
        return n & 2 ? high : low;
    }
};

// The terms of one head.
template <class T>
struct Head {
    const Problem& p;
    const Terms<T>& terms;
    int bh, batch, head;
    const T *bias, *distances;
    float slope;

    __device__ __forceinline__ Head(const Problem& p, const Terms<T>& terms, int bh)
        : p(p), terms(terms), bh(bh), batch(bh / p.h), head(bh % p.h) {
        const int of_batch = terms.bias_b > 1 ? batch : 0, of_head = terms.bias_h > 1 ? head : 0;
        bias = terms.bias ? terms.bias + size_t(of_batch * terms.bias_h + of_head) * p.n_q * p.n_k : nullptr;
        distances = terms.distances ? terms.distances + size_t(head) * (p.n_q + p.n_k - 1) : nullptr;
        slope = terms.slopes ? terms.slopes[head] : 0;
    }
    // The place of a pair among the relative vectors, or -1.
    __device__ __forceinline__ int place(int i, int j) const {
        const int distance = j - i - p.n_k + p.n_q;
        if (terms.relative == MUSIC) {
            const int place = terms.places - 1 + distance;
            return place >= 0 && place < terms.places ? place : -1;
        }
        const int k = terms.places / 2;
        return min(max(distance, -k), k) + k;
    }
    __device__ __forceinline__ size_t row(int i) const { return size_t(bh) * p.n_q + i; }
    // The score from the product, in base 2. For pairs that see each other only.
    __device__ __forceinline__ float score(float product, int i, int j) const {
        if (terms.relative != NONE) {
            const int at = place(i, j);
            if (at >= 0) product += to_float(terms.products[row(i) * terms.places + at]);
        }
        float s = product * p.scale;
        if (bias) s += to_float(bias[size_t(i) * p.n_k + j]);
        if (distances) s += to_float(distances[j - i + p.n_q - 1]);
        if (terms.slopes) s -= slope * fabsf(float(i + p.n_k - p.n_q - j));
        return s * LOG2_E;
    }
    // The factor of dropout.
    __device__ __forceinline__ float factor(Philox& rng, int i, int j) const {
        if (!terms.threshold) return 1;
        return rng.word(terms.seed, terms.stream, row(i) * p.n_k + j) < terms.threshold ? 0 : terms.kept;
    }
};

// Sums or maxima over the four lanes that share rows.
__device__ __forceinline__ float quad_sum(float x) {
    x += __shfl_xor_sync(FULL_MASK, x, 1);
    return x + __shfl_xor_sync(FULL_MASK, x, 2);
}
__device__ __forceinline__ float quad_max(float x) {
    x = fmaxf(x, __shfl_xor_sync(FULL_MASK, x, 1));
    return fmaxf(x, __shfl_xor_sync(FULL_MASK, x, 2));
}

// Writes two rows of sums, times factors, as rows of a matrix (n, width).
template <class T, int D>
__device__ __forceinline__ void store(T* matrix, const float (*sums)[4], int row, int n, int width, const float (&factor)[2]) {
    const int t = threadIdx.x % 4;
    UNROLL
    for (int r = 0; r < 2; ++r) {
        if (row + 8 * r >= n) continue;
        T* to = matrix + size_t(row + 8 * r) * width;
        UNROLL
        for (int c = 0; c < D / 8; ++c) {
            const int column = 8 * c + 2 * t;
            const T x = from_float<T>(sums[c][2 * r] * factor[r]), y = from_float<T>(sums[c][2 * r + 1] * factor[r]);
            if (width % 2 == 0) {
                if (column < width) *reinterpret_cast<Pack<T, 2>*>(to + column) = {x, y};
            } else {
                if (column < width) to[column] = x;
                if (column + 1 < width) to[column + 1] = y;
            }
        }
    }
}

#define ATTENTION_PARAMETERS(T) \
    const unsigned *lengths, int n_q, int n_k, int d, int d_v, int h, int group, int left, int right, float scale, \
        int aligned, const T *bias, int bias_b, int bias_h, const float *slopes, const T *distances, const T *products, \
        const T *value_products, int relative, int places, unsigned long long seed, unsigned long long stream, \
        unsigned long long threshold, float kept
#define ATTENTION_STRUCTS(T) \
    const attention::Problem problem{lengths, n_q, n_k, d, d_v, h, group, left, right, scale, aligned}; \
    const attention::Terms<T> terms{bias,     bias_b, bias_h, slopes, distances, products, value_products, \
                                    relative, places, seed,   stream, threshold, kept};

}  // namespace attention
