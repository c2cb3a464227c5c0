// Sums of what several blocks have left, and copies between a tensor and its parts.
#include "common.cuh"

namespace parts {

// Addresses of parts, or where they end, given to a launch by value.
struct Table {
    unsigned long long at[32];
};

__device__ inline int owner(const Table& ends, int count, int col) {
    int low = 0, high = count - 1;
    while (low < high) {
        const int mid = (low + high) / 2;
        if (col < int(ends.at[mid])) high = mid;
        else low = mid + 1;
    }
    return low;
}

// The sums over `rows` rows of `size` floats, laid into several outputs one after the other. Eight warps share the rows of
// 32 columns.
template <class T>
__device__ void sum(const float* from, const Table& outputs, const Table& ends, int count, int rows, int size) {
    __shared__ float sums[8][32];
    const int lane = threadIdx.x % 32, part = threadIdx.x / 32;
    const int col = int(blockIdx.x) * 32 + lane;
    float sum = 0;
    if (col < size) {
#pragma unroll 4
        for (int r = part; r < rows; r += 8) sum += from[size_t(r) * size + col];
    }
    sums[part][lane] = sum;
    __syncthreads();
    if (part == 0 && col < size) {
        for (int k = 1; k < 8; k++) sum += sums[k][lane];
        const int k = owner(ends, count, col);
        reinterpret_cast<T*>(outputs.at[k])[col - (k ? ends.at[k - 1] : 0)] = from_float<T>(sum);
    }
}

struct alignas(16) Sixteen {
    unsigned at[4];
};

// Rows of `total` units, of which `count` parts from unit `first` on are copied: into the parts, or out of them. A part
// without address is left out, or read as zeros.
template <class U>
__device__ void copy(const Table& part, const Table& ends, U* whole, int rows, int count, int first, int total, int out) {
    const int span = int(ends.at[count - 1]);
    const size_t units = size_t(rows) * span, step = size_t(gridDim.x) * blockDim.x;
    for (size_t i = size_t(blockIdx.x) * blockDim.x + threadIdx.x; i < units; i += step) {
        const size_t row = i / span;
        const int col = int(i - row * span), k = owner(ends, count, col);
        const int start = k ? int(ends.at[k - 1]) : 0, width = int(ends.at[k]) - start;
        U* p = reinterpret_cast<U*>(part.at[k]);
        U& w = whole[row * total + first + col];
        const size_t at = row * width + (col - start);
        if (!out) w = p ? p[at] : U();
        else if (p) p[at] = w;
    }
}

#define PARTS_SUM(T, name)                                                                                            \
    extern "C" __global__ void parts_sum_##name(const float* from, Table outputs, Table ends, int count, int rows,    \
                                                int size) {                                                          \
        sum<T>(from, outputs, ends, count, rows, size);                                                              \
    }                                                                                                                \
    EXPORT(parts_sum_##name)

#define PARTS_COPY(U, name)                                                                                           \
    extern "C" __global__ void parts_copy_##name(Table part, Table ends, U* whole, int rows, int count, int first,    \
                                                 int total, int out) {                                                \
        copy<U>(part, ends, whole, rows, count, first, total, out);                                                  \
    }                                                                                                                \
    EXPORT(parts_copy_##name)

PARTS_SUM(float, f32)
PARTS_SUM(__half, f16)
PARTS_SUM(__nv_bfloat16, bf16)
PARTS_COPY(unsigned short, 2)
PARTS_COPY(unsigned, 4)
PARTS_COPY(Sixteen, 16)

}  // namespace parts
