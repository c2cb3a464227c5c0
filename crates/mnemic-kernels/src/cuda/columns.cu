// Sums over the rows of a matrix: parts of the rows first, then, in a second launch, the parts.
#include "rows.cuh"

namespace columns {

template <class T, class O, int V>
__device__ void sum(const T* x, O* y, int row_count, int width, int lanes) {
    rows::column_sums<1, V>(
        row_count, width, lanes,
        [&](long long row, int column) { return rows::load<V>(x + row * width, column, width, T()); },
        [&](const Pack<T, V>& p, float (&sums)[1][V]) {
            UNROLL
            for (int j = 0; j < V; ++j) sums[0][j] += to_float(p.v[j]);
        },
        [&](int, int column, float sum) { y[size_t(blockIdx.y) * width + column] = from_float<O>(sum); });
}

#define COLUMNS(T, O, name)                                                                                           \
    extern "C" __global__ void __launch_bounds__(256)                                                                 \
        columns_##name(const T* x, O* y, int row_count, int width, int lanes) {                                       \
        sum<T, O, rows::VEC<T>>(x, y, row_count, width, lanes);                                                       \
    }                                                                                                                 \
    EXPORT(columns_##name)                                                                                            \
    extern "C" __global__ void __launch_bounds__(256)                                                                 \
        columns_single_##name(const T* x, O* y, int row_count, int width, int lanes) {                                \
        sum<T, O, 1>(x, y, row_count, width, lanes);                                                                  \
    }                                                                                                                 \
    EXPORT(columns_single_##name)

COLUMNS(float, float, f32_f32)
COLUMNS(float, __half, f32_f16)
COLUMNS(float, __nv_bfloat16, f32_bf16)
COLUMNS(__half, float, f16_f32)
COLUMNS(__half, __half, f16_f16)
COLUMNS(__nv_bfloat16, float, bf16_f32)
COLUMNS(__nv_bfloat16, __nv_bfloat16, bf16_bf16)

}  // namespace columns
