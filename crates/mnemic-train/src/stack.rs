//! A thread with room for candle's recursive backward pass.

use crate::error::{Error, Result};

/// 512 MiB of address space; pages that are not used cost nothing.
const STACK: usize = 512 << 20;

/// Runs `f` on a thread with a stack of 512 MiB and waits for it. A panic of `f` goes on in the caller.
///
/// It is a thread of a rayon pool of its own, with as many threads as the caller's: operations that share out their work then
/// do so without waking anyone to begin with, which counts where a step is made of hundreds of small ones.
///
/// candle's backward pass recurses once for each operation of the graph, so that a long sequence overflows an ordinary
/// stack. [`crate::Trainer::fit`] does this by itself.
///
/// ```
/// fn depth(n: u64) -> u64 { if n == 0 { 0 } else { 1 + std::hint::black_box(depth(n - 1)) } }
/// assert_eq!(mnemic_train::on_big_stack(|| depth(1_000_000))?, 1_000_000);
/// # Ok::<(), mnemic_train::Error>(())
/// ```
///
/// # Errors
/// The thread cannot be started.
pub fn on_big_stack<T: Send>(f: impl FnOnce() -> T + Send) -> Result<T> {
    // The caller's tracing subscriber follows onto the thread.
    let dispatch = tracing::dispatcher::get_default(Clone::clone);
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(rayon::current_num_threads())
        .thread_name(|i| format!("train-{i}"))
        .stack_size(STACK)
        .build();
    let pool = pool.map_err(|error| {
        let source = std::io::Error::other(error);
        Error::Thread { bytes: STACK, source }
    })?;
    Ok(pool.install(|| tracing::dispatcher::with_default(&dispatch, f)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Var};

    #[test]
    fn a_deep_graph_goes_backward() {
        let x = Var::new(1f64, &Device::Cpu).unwrap();
        // Overflows a test's 2 MiB stack about threefold.
        let grad = on_big_stack(|| {
            let mut y = x.as_tensor().clone();
            for _ in 0..30_000 {
                y = (y + 1e-3).unwrap();
            }
            let grads = y.backward().unwrap();
            let grad = grads.get(&x).unwrap().to_scalar::<f64>().unwrap();
            // The graph is dropped here, which recurses too.
            drop(y);
            grad
        });
        assert_eq!(grad.unwrap(), 1.);
    }

    #[test]
    fn panics_go_on_in_the_caller() {
        let caught = std::panic::catch_unwind(|| on_big_stack(|| std::panic::panic_any(7u8)));
        assert_eq!(caught.unwrap_err().downcast_ref::<u8>(), Some(&7));
    }
}
