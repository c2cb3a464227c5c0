//! Sharing out work. A split never changes the arithmetic of a piece, so the number of threads changes no bit.

use std::sync::atomic::{AtomicBool, Ordering};

use rayon::prelude::*;

/// Runs `f`, a series of many small operations, on a thread of rayon's pool whose other threads stay awake until it ends: to wake a
/// thread takes as long as a small product. Results do not change. Where there is one thread, `f` just runs.
///
/// ```
/// assert_eq!(mnemic_kernels::awake(|| 1 + 1), 2);
/// ```
pub fn awake<R: Send>(f: impl FnOnce() -> R + Send) -> R {
    if rayon::current_num_threads() < 2 {
        return f();
    }
    let done = AtomicBool::new(false);
    rayon::scope(|scope| {
        // Also where `f` panics: the scope waits for the others.
        let _end = OnDrop(&done);
        let own = rayon::current_thread_index();
        let done = &done;
        scope.spawn_broadcast(move |_, other| {
            // This thread may come here as well, while it waits for one of its operations.
            while Some(other.index()) != own && !done.load(Ordering::Acquire) {
                if rayon::yield_now() != Some(rayon::Yield::Executed) {
                    (0..SPINS).for_each(|_| std::hint::spin_loop());
                    // Another program may need the core.
                    std::thread::yield_now();
                }
            }
        });
        f()
    })
}

/// About a microsecond between two looks for work.
const SPINS: usize = 32;

/// Raises a flag when it is dropped.
struct OnDrop<'a>(&'a AtomicBool);

impl Drop for OnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(threads: usize) -> rayon::ThreadPool {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap()
    }

    /// Many small parallel operations.
    fn sums() -> u64 {
        (0..50u64)
            .map(|i| {
                (0..100u32).into_par_iter().with_max_len(1).map(|j| i * u64::from(j)).sum::<u64>()
            })
            .sum()
    }

    #[test]
    fn the_result_is_that_of_the_function() {
        for threads in [1, 2, 3] {
            pool(threads).install(|| {
                assert_eq!(awake(sums), sums());
                // One within another, and several at once.
                assert_eq!(awake(|| awake(sums)), sums());
                let (a, b) = rayon::join(|| awake(sums), || awake(sums));
                assert_eq!(a, b);
            });
        }
        // From a thread outside of any pool.
        assert_eq!(awake(sums), sums());
    }

    #[test]
    fn a_panic_goes_on_in_the_caller() {
        pool(2).install(|| {
            let caught = std::panic::catch_unwind(|| awake(|| std::panic::panic_any(7u8)));
            assert_eq!(caught.unwrap_err().downcast_ref::<u8>(), Some(&7));
            assert_eq!(awake(|| 3), 3);
        });
    }
}
