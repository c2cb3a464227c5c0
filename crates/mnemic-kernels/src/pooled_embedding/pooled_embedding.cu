// Sums of rows of a table, and the table's gradient without sorting and without atomic operations.
#include "common.cuh"

namespace pooled_embedding {

// Groups of `words` ids to sums of their rows; one thread a pack of columns. Rows are `width` packs wide. An id that is not
// below `rows` gives NaN: nothing on the device can report it.
template <class T, int V>
__device__ void forward(const T* table, const unsigned* ids, const T* weights, T* y, int groups, int words, int width,
                        int rows, unsigned padding) {
    using P = Pack<T, V>;
    const P* from = reinterpret_cast<const P*>(table);
    const P* scale = reinterpret_cast<const P*>(weights);
    const size_t total = size_t(groups) * width, step = size_t(gridDim.x) * blockDim.x;
    for (size_t i = size_t(blockIdx.x) * blockDim.x + threadIdx.x; i < total; i += step) {
        const size_t group = i / width;
        const int col = int(i - group * width);
        float sum[V] = {};
#pragma unroll 4
        for (int j = 0; j < words; j++) {
            const unsigned id = ids[group * words + j];
            if (id == padding) continue;
            const bool known = id < unsigned(rows);
            const P row = from[known ? size_t(id) * width + col : 0];
            const P w = scale ? scale[size_t(j) * width + col] : P();
#pragma unroll
            for (int k = 0; k < V; k++) {
                const float x = known ? to_float(row.v[k]) : NAN;
                sum[k] += scale ? to_float(w.v[k]) * x : x;
            }
        }
        P out;
#pragma unroll
        for (int k = 0; k < V; k++) out.v[k] = from_float<T>(sum[k]);
        reinterpret_cast<P*>(y)[i] = out;
    }
}

constexpr int WARPS = 4;
constexpr int AHEAD = 4;

// The table's gradient from `per_chunk` ids: (chunks, v, d). A block has 32 columns and `tile` rows of the table in shared
// memory, once for each warp; a lane alone adds to its column, in the order of the ids.
template <class T>
__device__ void backward(const unsigned* ids, const T* weights, const T* dy, float* parts, int total, int words, int d,
                         int v, int tile, int per_chunk, unsigned padding) {
    DYNAMIC_SHARED(float, sums);
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    float* own = sums + size_t(warp) * tile * 32 + lane;
    const int col = blockIdx.x * 32 + lane, start = blockIdx.y * tile;
    const bool on = col < d;
    const int rows = min(tile, v - start);
    for (int r = 0; r < rows; r++) own[r * 32] = 0;
    const int first = blockIdx.z * per_chunk, last = min(first + per_chunk, total);
    const int share = ((per_chunk + WARPS - 1) / WARPS + 31) / 32 * 32;
    const int begin = first + warp * share, end = min(begin + share, last);
    for (int base = begin; base < end; base += 32) {
        const bool there = base + lane < end;
        const unsigned id = there ? ids[base + lane] : padding;
        const unsigned row = id - unsigned(start);
        unsigned live = __ballot_sync(~0u, there && id != padding && row < unsigned(rows));
        while (live) {
            // Several loads are under way before the first is added.
            float values[AHEAD];
            int places[AHEAD];
#pragma unroll
            for (int k = 0; k < AHEAD; k++) {
                places[k] = -1;
                if (!live) continue;
                const int bit = __ffs(int(live)) - 1;
                live &= live - 1;
                places[k] = int(__shfl_sync(~0u, row, bit));
                const int at = base + bit, group = at / words;
                values[k] = on ? to_float(dy[size_t(group) * d + col]) : 0;
                if (weights && on) values[k] *= to_float(weights[size_t(at - group * words) * d + col]);
            }
#pragma unroll
            for (int k = 0; k < AHEAD; k++) {
                if (places[k] >= 0) own[places[k] * 32] += values[k];
            }
        }
    }
    __syncthreads();
    float* out = parts + (size_t(blockIdx.z) * v + start) * d + blockIdx.x * 32;
    const int columns = min(32, d - int(blockIdx.x) * 32);
    for (int i = threadIdx.x; i < rows * 32; i += blockDim.x) {
        const int r = i / 32, c = i % 32;
        if (c >= columns) continue;
        float sum = 0;
        for (int w = 0; w < WARPS; w++) sum += sums[(size_t(w) * tile + r) * 32 + c];
        out[size_t(r) * d + c] = sum;
    }
}

// The gradient of the position weights: one block for each word and 32 columns.
template <class T>
__device__ void weights(const T* table, const unsigned* ids, const T* dy, T* out, int groups, int words, int d, int rows,
                        unsigned padding) {
    __shared__ float sums[8][32];
    const int lane = threadIdx.x % 32, part = threadIdx.x / 32;
    const int col = blockIdx.x * 32 + lane, j = blockIdx.y;
    float sum = 0;
    if (col < d) {
#pragma unroll 4
        for (int g = part; g < groups; g += 8) {
            const unsigned id = ids[size_t(g) * words + j];
            if (id == padding || id >= unsigned(rows)) continue;
            sum += to_float(table[size_t(id) * d + col]) * to_float(dy[size_t(g) * d + col]);
        }
    }
    sums[part][lane] = sum;
    __syncthreads();
    if (part == 0 && col < d) {
        for (int k = 1; k < 8; k++) sum += sums[k][lane];
        out[size_t(j) * d + col] = from_float<T>(sum);
    }
}

#define POOLED_FORWARD(T, V, name)                                                                                           \
    extern "C" __global__ void pooled_embedding_forward_##name(const T* table, const unsigned* ids, const T* weights,  \
                                                               T* y, int groups, int words, int width, int rows,      \
                                                               unsigned long long padding) {                          \
        forward<T, V>(table, ids, weights, y, groups, words, width, rows, unsigned(padding));                         \
    }                                                                                                                 \
    EXPORT(pooled_embedding_forward_##name)

#define POOLED_BACKWARD(T, name)                                                                                             \
    extern "C" __global__ void pooled_embedding_backward_##name(                                                      \
        const unsigned* ids, const T* weights, const T* dy, float* parts, int total, int words, int d, int v, int tile, \
        int per_chunk, unsigned long long padding) {                                                                  \
        backward<T>(ids, weights, dy, parts, total, words, d, v, tile, per_chunk, unsigned(padding));                 \
    }                                                                                                                 \
    EXPORT(pooled_embedding_backward_##name)                                                                          \
    extern "C" __global__ void pooled_embedding_weights_##name(const T* table, const unsigned* ids, const T* dy, T* out, \
                                                               int groups, int words, int d, int rows,                \
                                                               unsigned long long padding) {                          \
        weights<T>(table, ids, dy, out, groups, words, d, rows, unsigned(padding));                                   \
    }                                                                                                                 \
    EXPORT(pooled_embedding_weights_##name)

POOLED_FORWARD(float, 1, f32)
POOLED_FORWARD(float, 4, f32_packed)
POOLED_FORWARD(__half, 1, f16)
POOLED_FORWARD(__half, 8, f16_packed)
POOLED_FORWARD(__nv_bfloat16, 1, bf16)
POOLED_FORWARD(__nv_bfloat16, 8, bf16_packed)
POOLED_BACKWARD(float, f32)
POOLED_BACKWARD(__half, f16)
POOLED_BACKWARD(__nv_bfloat16, bf16)

}  // namespace pooled_embedding
