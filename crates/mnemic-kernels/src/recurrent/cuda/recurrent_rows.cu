// Rows of input for the products of a scan's backward pass.
#include "common.cuh"

// Copies (b, t, d) with zeros behind the rows' ends; `count` is b t.
extern "C" __global__ void recurrent_clean(const float* x, const unsigned* lengths, float* clean, int count, int t, int d) {
    for (int row = blockIdx.x; row < count; row += gridDim.x) {
        const bool read = row % t < static_cast<int>(lengths[row / t]);
        for (int i = threadIdx.x; i < d; i += blockDim.x) {
            const size_t at = size_t(row) * d + i;
            clean[at] = read ? x[at] : 0;
        }
    }
}
EXPORT(recurrent_clean)
