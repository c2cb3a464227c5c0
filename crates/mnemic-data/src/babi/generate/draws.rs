//! Random draws that depend on nothing but the stream of ChaCha8.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::babi::task::Task;

/// Which of the independent random streams of a seed and task to use.
#[derive(Debug, Clone, Copy)]
pub(super) enum Stream {
    Whole = 0,
    Train = 1,
    Test = 2,
}

/// Uniform draws. The algorithms are spelled out here, so that no new version of a library can
/// change a story.
pub(super) struct Draws {
    rng: ChaCha8Rng,
}

impl Draws {
    pub(super) fn new(seed: u64, task: Task, stream: Stream) -> Self {
        let mut key = *b"........mnemic bAbI generator v1";
        key[..8].copy_from_slice(&seed.to_le_bytes());
        // The last two letters give way to what tells streams of one seed apart.
        key[30] = task.number();
        key[31] = stream as u8;
        Self { rng: ChaCha8Rng::from_seed(key) }
    }

    /// A number from 0 to `n - 1`; `n` must not be 0.
    pub(super) fn below(&mut self, n: usize) -> usize {
        let n = n.max(1) as u64;
        // Numbers above the last multiple of n would favour small remainders.
        let surplus = (u64::MAX % n + 1) % n;
        loop {
            let x = self.rng.next_u64();
            if x <= u64::MAX - surplus {
                return (x % n) as usize;
            }
        }
    }

    /// True once in `n` times.
    pub(super) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// True every other time.
    pub(super) fn coin(&mut self) -> bool {
        self.one_in(2)
    }

    /// A number from 0 to `n - 1` other than `except`; `n` must be at least 2.
    pub(super) fn other(&mut self, n: usize, except: usize) -> usize {
        (except + 1 + self.below(n - 1)) % n
    }

    /// One of the items; there must be one.
    pub(super) fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len())]
    }

    /// One of the items, if there is any.
    pub(super) fn choose<T>(&mut self, items: impl IntoIterator<Item = T>) -> Option<T> {
        let mut items: Vec<T> = items.into_iter().collect();
        if items.is_empty() {
            return None;
        }
        let i = self.below(items.len());
        Some(items.swap_remove(i))
    }

    /// `count` different numbers below `n` in random order.
    pub(super) fn sample(&mut self, n: usize, count: usize) -> Vec<usize> {
        let mut all: Vec<usize> = (0..n).collect();
        for i in 0..count.min(n) {
            let j = i + self.below(n - i);
            all.swap(i, j);
        }
        all.truncate(count);
        all
    }

    /// Moves every item to another place: a random permutation of one cycle (Sattolo 1986).
    pub(super) fn rotate<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            let j = self.below(i);
            items.swap(i, j);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draws(seed: u64, task: u8, stream: Stream) -> Draws {
        Draws::new(seed, Task::new(task).unwrap(), stream)
    }

    #[test]
    fn draws_are_uniform_and_in_range() {
        let mut draws = draws(1, 1, Stream::Whole);
        for n in [1, 2, 3, 6, 7] {
            let mut counts = vec![0_u32; n];
            for _ in 0..6000 {
                counts[draws.below(n)] += 1;
            }
            // Five standard deviations of a binomial count are below 200.
            let mean = 6000 / n as u32;
            assert!(counts.iter().all(|c| c.abs_diff(mean) < 200), "{counts:?}");
        }
        let other: std::collections::BTreeSet<_> = (0..200).map(|_| draws.other(4, 2)).collect();
        assert_eq!(Vec::from_iter(other), [0, 1, 3]);
    }

    #[test]
    fn streams_differ() {
        let key = |seed, task, stream| draws(seed, task, stream).below(usize::MAX);
        let first = key(1, 1, Stream::Whole);
        for other in [(2, 1, Stream::Whole), (1, 2, Stream::Whole), (1, 1, Stream::Train)] {
            assert_ne!(first, key(other.0, other.1, other.2));
        }
        assert_eq!(first, key(1, 1, Stream::Whole));
    }

    #[test]
    fn rotation_moves_every_item() {
        let mut draws = draws(5, 14, Stream::Whole);
        for n in 2..7 {
            for _ in 0..50 {
                let mut items: Vec<usize> = (0..n).collect();
                draws.rotate(&mut items);
                assert!(items.iter().enumerate().all(|(i, &x)| i != x), "{items:?}");
            }
        }
        let mut sample = draws.sample(9, 9);
        sample.sort_unstable();
        assert_eq!(sample, Vec::from_iter(0..9));
    }
}
