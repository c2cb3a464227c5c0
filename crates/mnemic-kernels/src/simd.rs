//! The SIMD level of the fast paths, chosen at run time.
//!
//! The best level that the processor has is taken; no compiler flag is needed. `MNEMIC_SIMD` (`portable`, `avx2`, `avx512`, `neon`)
//! or [`with_level`] force a lower one, to test it or to measure what it gives. Matrix products of the `gemm` crate
//! choose for themselves.

use std::cell::Cell;
use std::sync::OnceLock;

use candle_core::{Result, bail};

/// A set of vector instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// What every processor of the target has.
    Portable,
    /// AVX2 with fused multiply-add: 8 numbers of 32 bits at a time.
    Avx2,
    /// AVX-512: 16 numbers of 32 bits at a time.
    Avx512,
    /// NEON: 4 numbers of 32 bits at a time.
    Neon,
}

const ALL: [Level; 4] = [Level::Avx512, Level::Avx2, Level::Neon, Level::Portable];

thread_local! {
    static FORCED: Cell<Option<Level>> = const { Cell::new(None) };
}

/// The levels that this processor has, the best first.
pub fn available() -> Vec<Level> {
    ALL.into_iter().filter(|level| level.is_available()).collect()
}

/// The level that operations called from this thread take.
pub fn level() -> Level {
    static BEST: OnceLock<Level> = OnceLock::new();
    FORCED.get().unwrap_or_else(|| {
        *BEST.get_or_init(|| {
            let named = std::env::var("MNEMIC_SIMD").ok().and_then(|name| {
                ALL.into_iter().find(|l| format!("{l:?}").eq_ignore_ascii_case(name.trim()))
            });
            let named = named.filter(|level| level.is_available());
            named.or_else(|| available().first().copied()).unwrap_or(Level::Portable)
        })
    })
}

/// Runs `f` with the operations that this thread calls (backward passes, too) held to `level`.
///
/// ```
/// use mnemic_kernels::simd::{Level, level, with_level};
/// assert_eq!(with_level(Level::Portable, level)?, Level::Portable);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
/// When the processor lacks it.
pub fn with_level<T>(level: Level, f: impl FnOnce() -> T) -> Result<T> {
    struct Restore(Option<Level>);
    impl Drop for Restore {
        fn drop(&mut self) {
            FORCED.set(self.0);
        }
    }
    if !level.is_available() {
        bail!("SIMD level {level:?}: this processor has {:?}", available());
    }
    let _restore = Restore(FORCED.replace(Some(level)));
    Ok(f())
}

impl Level {
    #[cfg(target_arch = "x86_64")]
    fn is_available(self) -> bool {
        match self {
            Level::Portable => true,
            Level::Avx2 => pulp::x86::V3::try_new().is_some(),
            Level::Avx512 => pulp::x86::V4::try_new().is_some(),
            Level::Neon => false,
        }
    }

    #[cfg(target_arch = "aarch64")]
    fn is_available(self) -> bool {
        match self {
            Level::Portable => true,
            Level::Neon => pulp::aarch64::Neon::try_new().is_some(),
            Level::Avx2 | Level::Avx512 => false,
        }
    }

    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    fn is_available(self) -> bool {
        self == Level::Portable
    }

    /// Runs `op` compiled for this level. `with_simd` must be `#[inline(always)]`, and so must be what it calls, or it stays
    /// at the portable level.
    #[inline]
    pub(crate) fn dispatch<Op: pulp::WithSimd>(self, op: Op) -> Op::Output {
        use pulp::Simd;
        #[cfg(target_arch = "x86_64")]
        match self {
            Level::Avx512 => {
                if let Some(simd) = pulp::x86::V4::try_new() {
                    return Simd::vectorize(simd, op);
                }
            }
            Level::Avx2 => {
                if let Some(simd) = pulp::x86::V3::try_new() {
                    return Simd::vectorize(simd, op);
                }
            }
            _ => {}
        }
        #[cfg(target_arch = "aarch64")]
        if self == Level::Neon
            && let Some(simd) = pulp::aarch64::Neon::try_new()
        {
            return Simd::vectorize(simd, op);
        }
        // Vectors of 128 bits are part of every 64-bit target.
        Simd::vectorize(pulp::Scalar128b, op)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forcing_ends_with_the_closure() {
        let before = level();
        for l in available() {
            assert_eq!(with_level(l, level).unwrap(), l);
        }
        assert_eq!(level(), before);
    }

    #[test]
    fn a_missing_level_is_an_error() {
        let missing = ALL.into_iter().find(|l| !l.is_available()).unwrap();
        assert!(with_level(missing, || ()).unwrap_err().to_string().contains("this processor has"));
    }
}
