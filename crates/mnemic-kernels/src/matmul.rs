//! Matrix products on slices, by the `gemm` crate with its AVX-512 kernels.

use gemm::Parallelism;

use crate::real::Real;

/// A strided view of a matrix in a slice: element `(i, j)` is `data[i * row + j * col]`.
#[derive(Clone, Copy)]
pub(crate) struct Mat<'a, T> {
    pub(crate) data: &'a [T],
    pub(crate) row: usize,
    pub(crate) col: usize,
}

/// Below so many multiplications a product takes a few microseconds: less than waking a thread.
pub(crate) const PARALLEL: usize = 64 * 64 * 64 * 4;

fn fits(len: usize, m: usize, n: usize, row: usize, col: usize) -> bool {
    m == 0 || n == 0 || (m - 1) * row + (n - 1) * col < len
}

/// `dst (m, n) = lhs (m, k) rhs (k, n)`, added to `dst` where `add`. `dst` has row stride `dst_row`.
#[allow(clippy::too_many_arguments, reason = "the arguments of a matrix product")]
pub(crate) fn matmul<T: Real>(
    (m, n, k): (usize, usize, usize),
    dst: &mut [T],
    dst_row: usize,
    add: bool,
    lhs: Mat<'_, T>,
    rhs: Mat<'_, T>,
    parallelism: Parallelism,
) {
    assert!(fits(dst.len(), m, n, dst_row, 1) && dst_row >= n, "matmul: destination too small");
    assert!(fits(lhs.data.len(), m, k, lhs.row, lhs.col), "matmul: left operand too small");
    assert!(fits(rhs.data.len(), k, n, rhs.row, rhs.col), "matmul: right operand too small");
    let parallelism = if m * n * k < PARALLEL { Parallelism::None } else { parallelism };
    // SAFETY: the assertions above keep every access of the three strided views inside its slice; `dst` is borrowed
    // mutably, so it overlaps neither operand, and rows of `dst` do not overlap because `dst_row >= n`.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            dst.as_mut_ptr(),
            1,
            dst_row as isize,
            add,
            lhs.data.as_ptr(),
            lhs.col as isize,
            lhs.row as isize,
            rhs.data.as_ptr(),
            rhs.col as isize,
            rhs.row as isize,
            T::ONE,
            T::ONE,
            false,
            false,
            false,
            parallelism,
        );
    }
}

/// The parallelism of a single large product.
pub(crate) fn parallelism() -> Parallelism {
    match rayon::current_num_threads() {
        1 => Parallelism::None,
        n => Parallelism::Rayon(n),
    }
}
