//! Sharing out work. A split never changes the arithmetic of a piece, so the number of threads changes no bit.

use rayon::prelude::*;

/// Runs the tasks, on threads where there are several.
pub(crate) fn for_each<I: Send>(tasks: Vec<I>, f: impl Fn(I) + Sync + Send) {
    if tasks.len() < 2 || rayon::current_num_threads() < 2 {
        tasks.into_iter().for_each(f);
    } else {
        tasks.into_par_iter().with_max_len(1).for_each(f);
    }
}

/// Rows a task takes of `rows`, each of `work` elementary steps (about a nanosecond): all of them where threads would cost more
/// than they give, else several tasks a thread, so that uneven threads end together.
pub(crate) fn rows_per_task(rows: usize, work: usize) -> usize {
    let threads = rayon::current_num_threads();
    if threads < 2 || rows.saturating_mul(work) < 1 << 17 {
        return rows.max(1);
    }
    let least = (1usize << 15).div_ceil(work.max(1));
    rows.div_ceil(4 * threads).max(least).max(1)
}
