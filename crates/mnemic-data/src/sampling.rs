//! The order in which a data set is gone through, seeded and the same on every platform.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// How examples are grouped into the batches of an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Sampling {
    /// In order, the same in every epoch. For evaluation.
    Sequential,
    /// In a random order, each example once per epoch.
    Shuffled,
    /// Each example once per epoch, in batches of similar length: shuffled, sorted by length within
    /// windows of `window` batches, then the batches in random order. Less padding, at the price of
    /// batches that are less independent: a larger window means more of both.
    Bucketed {
        /// The number of batches per window, at least 1.
        window: usize,
    },
    /// As many independent draws as there are examples, so that some come more than once and
    /// others not at all.
    WithReplacement,
}

/// Groups the indices of a data set into batches for one epoch.
///
/// `lengths` holds one length per example (only [`Sampling::Bucketed`] looks at them). All batches
/// hold `batch_size` indices, but one may hold fewer when the number of examples is no multiple.
/// The same arguments give the same batches on every platform and in every version with this major
/// and minor number: draws come from the 64-bit words of a ChaCha8 stream keyed by `(seed, epoch)`,
/// brought into range by rejection, and shuffles are Fisher–Yates over them.
///
/// # Errors
/// `batch_size` or `window` is 0.
///
/// ```
/// use mnemic_data::{Sampling, batches};
/// let lengths = [3, 1, 4, 1, 5];
/// let first = batches(&lengths, 2, Sampling::Shuffled, 7, 0)?;
/// assert_eq!(first.len(), 3);
/// assert_eq!(first, batches(&lengths, 2, Sampling::Shuffled, 7, 0)?);
/// # Ok::<(), mnemic_data::Error>(())
/// ```
pub fn batches(
    lengths: &[usize],
    batch_size: usize,
    sampling: Sampling,
    seed: u64,
    epoch: u64,
) -> Result<Vec<Vec<usize>>> {
    if batch_size == 0 {
        return Err(Error::argument("batch_size", "0, expected at least 1"));
    }
    let mut draws = Draws::new(seed, epoch);
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    match sampling {
        Sampling::Sequential => {}
        Sampling::Shuffled => draws.shuffle(&mut order),
        Sampling::WithReplacement => order.fill_with(|| draws.below(lengths.len())),
        Sampling::Bucketed { window } => {
            if window == 0 {
                return Err(Error::argument("window", "0, expected at least 1"));
            }
            draws.shuffle(&mut order);
            // The sort is stable: examples of one length stay shuffled.
            for part in order.chunks_mut(window.saturating_mul(batch_size)) {
                part.sort_by_key(|&i| lengths[i]);
            }
        }
    }
    let mut batches: Vec<Vec<usize>> = order.chunks(batch_size).map(<[_]>::to_vec).collect();
    if matches!(sampling, Sampling::Bucketed { .. }) {
        draws.shuffle(&mut batches);
    }
    Ok(batches)
}

/// Uniform draws from a ChaCha8 stream. Written out because the shuffles of `rand` may change
/// between versions.
pub(crate) struct Draws(ChaCha8Rng);

impl Draws {
    fn new(seed: u64, epoch: u64) -> Self {
        Self::named(seed, epoch, b"mnemic batches 1")
    }

    /// The stream of these two numbers for a purpose.
    pub(crate) fn named(seed: u64, number: u64, purpose: &[u8; 16]) -> Self {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        key[8..16].copy_from_slice(&number.to_le_bytes());
        key[16..].copy_from_slice(purpose);
        Self(ChaCha8Rng::from_seed(key))
    }

    /// A uniform number in [0, 1).
    pub(crate) fn unit(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A uniform number below `n`, which must not be 0.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        let n = n as u64;
        // Numbers from the largest multiple of n on would favour small remainders.
        let excess = (u64::MAX % n + 1) % n;
        loop {
            let draw = self.0.next_u64();
            if draw <= u64::MAX - excess {
                return (draw % n) as usize;
            }
        }
    }

    /// Fisher–Yates from the back.
    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONCE: [Sampling; 3] =
        [Sampling::Sequential, Sampling::Shuffled, Sampling::Bucketed { window: 4 }];

    fn lengths(n: usize) -> Vec<usize> {
        (0..n).map(|i| i * 7 % 23).collect()
    }

    #[test]
    fn every_example_comes_exactly_once() {
        for sampling in ONCE {
            for (n, batch_size) in [(0, 3), (1, 3), (12, 3), (100, 7), (101, 1), (5, 64)] {
                let made = batches(&lengths(n), batch_size, sampling, 1, 0).unwrap();
                assert_eq!(made.len(), n.div_ceil(batch_size), "{sampling:?}");
                assert!(made.iter().all(|b| (1..=batch_size).contains(&b.len())));
                let short = made.iter().filter(|b| b.len() < batch_size).count();
                assert_eq!(short, usize::from(n % batch_size > 0));
                let mut seen: Vec<usize> = made.concat();
                seen.sort_unstable();
                assert_eq!(seen, (0..n).collect::<Vec<_>>(), "{sampling:?}");
            }
        }
    }

    #[test]
    fn same_seed_same_batches_other_epoch_others() {
        let lengths = lengths(200);
        for sampling in [ONCE[1], ONCE[2], Sampling::WithReplacement] {
            let made = |seed, epoch| batches(&lengths, 8, sampling, seed, epoch).unwrap();
            assert_eq!(made(3, 5), made(3, 5));
            assert_ne!(made(3, 5), made(3, 6));
            assert_ne!(made(3, 5), made(4, 5));
            assert_ne!(made(3, 5), made(5, 3));
        }
        let sequential = batches(&lengths, 8, Sampling::Sequential, 3, 5).unwrap();
        assert_eq!(sequential.concat(), (0..200).collect::<Vec<_>>());
    }

    #[test]
    fn order_never_changes_between_versions() {
        // Computed by an independent implementation of ChaCha8, Fisher–Yates and the rejection;
        // a change here breaks the repeatability of published runs.
        let made = |sampling| batches(&[5, 3, 1, 4, 2, 9, 7, 8], 3, sampling, 42, 1).unwrap();
        assert_eq!(made(Sampling::Shuffled), [vec![6, 3, 1], vec![7, 2, 4], vec![0, 5]]);
        let bucketed = made(Sampling::Bucketed { window: 2 });
        assert_eq!(bucketed, [vec![3, 6, 7], vec![2, 4, 1], vec![0, 5]]);
        let replaced = made(Sampling::WithReplacement);
        assert_eq!(replaced, [vec![5, 0, 6], vec![7, 2, 0], vec![7, 6]]);
    }

    #[test]
    fn buckets_hold_similar_lengths() {
        let lengths: Vec<usize> = (0..1000).map(|i| i * 389 % 500).collect();
        let spread = |sampling| -> usize {
            let made = batches(&lengths, 10, sampling, 0, 0).unwrap();
            let of = |b: &Vec<usize>| {
                let longest = b.iter().map(|&i| lengths[i]).max().unwrap();
                longest - b.iter().map(|&i| lengths[i]).min().unwrap()
            };
            made.iter().map(of).sum()
        };
        let shuffled = spread(Sampling::Shuffled);
        let bucketed = spread(Sampling::Bucketed { window: 20 });
        assert!(bucketed * 5 < shuffled, "{bucketed} against {shuffled}");
        // Batches do not come in order of length.
        let made = batches(&lengths, 10, Sampling::Bucketed { window: 100 }, 0, 0).unwrap();
        let firsts: Vec<usize> = made.iter().map(|b| lengths[b[0]]).collect();
        assert!(!firsts.is_sorted());
    }

    #[test]
    fn draws_are_uniform() {
        let mut draws = Draws::new(9, 9);
        let mut counts = [0_u32; 6];
        for _ in 0..60_000 {
            counts[draws.below(6)] += 1;
        }
        // Standard deviation of each count: 91.
        assert!(counts.iter().all(|c| c.abs_diff(10_000) < 500), "{counts:?}");
        let made = batches(&[1; 5_000], 50, Sampling::WithReplacement, 0, 0).unwrap();
        let mut seen = made.concat();
        seen.sort_unstable();
        seen.dedup();
        // 1 - 1/e of the examples are expected.
        assert!((3_000..3_320).contains(&seen.len()), "{}", seen.len());
    }

    #[test]
    fn zero_sizes_are_errors() {
        let error = batches(&[1], 0, Sampling::Shuffled, 0, 0).unwrap_err();
        assert_eq!(error.to_string(), "batch_size: 0, expected at least 1");
        assert!(batches(&[1], 1, Sampling::Bucketed { window: 0 }, 0, 0).is_err());
    }

    #[test]
    fn names_in_a_recipe() {
        let read = |json| serde_json::from_str::<Sampling>(json).unwrap();
        assert_eq!(read("\"shuffled\""), Sampling::Shuffled);
        assert_eq!(read("\"with_replacement\""), Sampling::WithReplacement);
        assert_eq!(read("{\"bucketed\":{\"window\":50}}"), Sampling::Bucketed { window: 50 });
    }
}
