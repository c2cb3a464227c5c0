// The k largest of a row, a block a row: the k-th largest is found byte by byte from histograms of the elements as ordered
// integers, then what is not below it is gathered and sorted. Atomic operations count integers only, and the sort's keys are
// all different: the result does not depend on the order of the threads.
#include "rows.cuh"

namespace top_k {

// An element as an integer in the same order; 0 and -0 are one, NaN is above all.
__device__ __forceinline__ unsigned ordered(float x) {
    if (isnan(x)) return 0xffffffffu;
    const unsigned bits = __float_as_uint(x + 0.f);
    return bits >> 31 ? ~bits : bits | 0x80000000u;
}

struct Shared {
    unsigned bins[256], byte, rest, found, sums[32];
};

// The byte that holds the `rest`-th largest, from the histogram: byte, what is still to be taken within it. First warp only.
__device__ __forceinline__ void choose(Shared& s) {
    const int lane = threadIdx.x;
    // Lane 0 has the highest eight bins.
    unsigned own = 0;
    for (int j = 0; j < 8; ++j) own += s.bins[255 - lane * 8 - j];
    unsigned upto = own;
    for (int d = 1; d < 32; d *= 2) {
        const unsigned other = __shfl_up_sync(FULL_MASK, upto, d);
        if (lane >= d) upto += other;
    }
    const unsigned rest = s.rest;
    __syncwarp();
    unsigned above = upto - own;
    if (above >= rest || upto < rest) return;
    for (int j = 0; j < 8; ++j) {
        const unsigned bin = 255 - lane * 8 - j, count = s.bins[bin];
        if (above + count >= rest) {
            s.byte = bin;
            s.rest = rest - above;
            s.found = count;
            return;
        }
        above += count;
    }
}

template <class T>
__device__ __forceinline__ void select(const T* all, T* values, unsigned* indices, int n, int k, int size) {
    DYNAMIC_SHARED(unsigned long long, keys);
    __shared__ Shared s;
    const T* x = all + size_t(blockIdx.x) * n;
    const int thread = threadIdx.x, threads = blockDim.x;
    unsigned least = 0;
    if (thread == 0) s.rest = k;
    for (int shift = 24; shift >= 0; shift -= 8) {
        for (int i = thread; i < 256; i += threads) s.bins[i] = 0;
        __syncthreads();
#pragma unroll 4
        for (int i = thread; i < n; i += threads) {
            const unsigned key = ordered(to_float(x[i]));
            if (shift == 24 || (key ^ least) >> (shift + 8) == 0) atomicAdd(&s.bins[key >> shift & 255], 1u);
        }
        __syncthreads();
        if (thread < 32) choose(s);
        __syncthreads();
        least |= s.byte << shift;
    }
    // All above the k-th largest, and of those equal to it the first.
    const unsigned rest = s.rest;
    const bool all_equal = s.found == rest;
    __syncthreads();
    if (thread == 0) s.found = 0;
    for (int i = k + thread; i < size; i += threads) keys[i] = 0;
    __syncthreads();
    for (int i = thread; i < n; i += threads) {
        const unsigned key = ordered(to_float(x[i]));
        if (key > least || (all_equal && key == least))
            keys[atomicAdd(&s.found, 1u)] = static_cast<unsigned long long>(key) << 32 | ~static_cast<unsigned>(i);
    }
    __syncthreads();
    unsigned taken = 0;
    for (int first = 0; !all_equal && taken < rest && first < n; first += threads) {
        const int i = first + thread;
        const bool equal = i < n && ordered(to_float(x[i])) == least;
        const unsigned votes = __ballot_sync(FULL_MASK, equal);
        if (thread % 32 == 0) s.sums[thread / 32] = __popc(votes);
        __syncthreads();
        unsigned place = taken + __popc(votes & ((1u << thread % 32) - 1));
        for (int w = 0; w < threads / 32; ++w) {
            if (w < thread / 32) place += s.sums[w];
            taken += s.sums[w];
        }
        if (equal && place < rest)
            keys[k - rest + place] = static_cast<unsigned long long>(least) << 32 | ~static_cast<unsigned>(i);
        __syncthreads();
    }
    __syncthreads();
    // Bitonic sort, the greatest first.
    for (int run = 2; run <= size; run *= 2) {
        for (int step = run / 2; step > 0; step /= 2) {
            for (int t = thread; t < size / 2; t += threads) {
                const int a = t / step * 2 * step + t % step, b = a + step;
                const unsigned long long p = keys[a], q = keys[b];
                if ((p < q) == ((a & run) == 0)) {
                    keys[a] = q;
                    keys[b] = p;
                }
            }
            __syncthreads();
        }
    }
    for (int i = thread; i < k; i += threads) {
        const unsigned index = ~static_cast<unsigned>(keys[i]);
        values[size_t(blockIdx.x) * k + i] = x[index];
        indices[size_t(blockIdx.x) * k + i] = index;
    }
}

// The gradient, into zeros.
template <class T>
__device__ __forceinline__ void scatter(const unsigned* indices, const T* dy, T* dx, int count, int n, int k) {
    const long long i = static_cast<long long>(blockIdx.x) * 256 + threadIdx.x;
    if (i < static_cast<long long>(count) * k) dx[i / k * n + indices[i]] = dy[i];
}

#define TOP_K(T, name)                                                                                                \
    extern "C" __global__ void __launch_bounds__(512) top_k_select_##name(const T* x, T* values, unsigned* indices,   \
                                                                          int n, int k, int size) {                   \
        select<T>(x, values, indices, n, k, size);                                                                    \
    }                                                                                                                 \
    EXPORT(top_k_select_##name)                                                                                       \
    extern "C" __global__ void __launch_bounds__(256) top_k_scatter_##name(const unsigned* indices, const T* dy,      \
                                                                           T* dx, int count, int n, int k) {          \
        scatter<T>(indices, dy, dx, count, n, k);                                                                     \
    }                                                                                                                 \
    EXPORT(top_k_scatter_##name)

TOP_K(float, f32)
TOP_K(__half, f16)
TOP_K(__nv_bfloat16, bf16)

}  // namespace top_k
