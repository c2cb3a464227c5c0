//! T5's classes of distances (Raffel et al. 2020, section 2.1, and the authors' program).

use std::ops::Range;

use candle_core::{Result, bail};

/// How distances fall into buckets, each of which has a learned bias of its own.
///
/// The first half of the buckets (of those of a direction) are single distances, the rest grow logarithmically up to `max_distance`,
/// beyond which all distances share the last one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelativeBuckets {
    /// Whether keys after the query have buckets of their own, the second half of all; otherwise they fall into that of distance 0.
    pub bidirectional: bool,
    /// The number of buckets.
    pub num_buckets: usize,
    /// From this distance on all share a bucket.
    pub max_distance: usize,
}

impl RelativeBuckets {
    /// Refuses numbers that leave a direction without a single distance, or logarithms without room.
    ///
    /// # Errors
    /// When it does, naming the number.
    pub fn validate(&self) -> Result<()> {
        let (directions, Self { num_buckets: n, max_distance: far, .. }) =
            (if self.bidirectional { 2 } else { 1 }, *self);
        if n < 2 * directions || !n.is_multiple_of(directions) || n > u32::MAX as usize {
            bail!("relative buckets: {n} buckets are too few, too many or not even");
        }
        let exact = n / directions / 2;
        if far <= exact {
            bail!("relative buckets: max_distance must be above {exact}, got {far}");
        }
        Ok(())
    }

    /// The bucket of a key that stands `distance` places after the query (before it where negative).
    fn bucket(&self, distance: i64) -> u32 {
        let (n, offset, steps) = match self.bidirectional {
            true => {
                let half = self.num_buckets / 2;
                (half, if distance > 0 { half } else { 0 }, distance.unsigned_abs() as usize)
            }
            false => (self.num_buckets, 0, distance.min(0).unsigned_abs() as usize),
        };
        let exact = n / 2;
        if steps < exact {
            return (offset + steps) as u32;
        }
        // In 32 bits, as checkpoints were trained.
        let ratio = (steps as f32 / exact as f32).ln();
        let whole = (self.max_distance as f64 / exact as f64).ln() as f32;
        let beyond = (ratio / whole * (n - exact) as f32) as usize;
        (offset + (exact + beyond).min(n - 1)) as u32
    }
}

/// The buckets of `distances` (places from the query to the key, negative before it). Looked up in a table `(num_buckets, h)`, those of
/// `1 - n_k..n_q` are a [`Bias::Distance`](crate::Bias::Distance) of `n_q` queries and `n_k` keys once its axes are exchanged.
///
/// ```
/// use mnemic_layers::{RelativeBuckets, relative_buckets};
/// let buckets = RelativeBuckets { bidirectional: true, num_buckets: 32, max_distance: 128 };
/// assert_eq!(relative_buckets(-2..3, buckets)?, [2, 1, 0, 17, 18]);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
/// When the buckets make no sense.
pub fn relative_buckets(distances: Range<i64>, buckets: RelativeBuckets) -> Result<Vec<u32>> {
    buckets.validate()?;
    Ok(distances.map(|distance| buckets.bucket(distance)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_of_the_published_program() {
        let distances =
            [-200, -128, -127, -91, -64, -32, -16, -15, -8, -7, -1, 0, 1, 7, 8, 15, 16, 127, 200];
        let both = [15, 15, 15, 15, 14, 12, 10, 9, 8, 7, 1, 0, 17, 23, 24, 25, 26, 31, 31];
        let past = [31, 31, 31, 29, 26, 21, 16, 15, 8, 7, 1, 0, 0, 0, 0, 0, 0, 0, 0];
        for (i, &distance) in distances.iter().enumerate() {
            for (bidirectional, expected) in [(true, both[i]), (false, past[i])] {
                let buckets = RelativeBuckets { bidirectional, num_buckets: 32, max_distance: 128 };
                let found = relative_buckets(distance..distance + 1, buckets).unwrap();
                assert_eq!(found, [expected], "{distance}, {bidirectional}");
            }
        }
    }

    #[test]
    fn numbers_that_make_no_sense_are_refused() {
        let check = |bidirectional, num_buckets, max_distance| {
            RelativeBuckets { bidirectional, num_buckets, max_distance }.validate()
        };
        check(true, 4, 2).unwrap();
        assert!(check(true, 2, 128).is_err() && check(true, 33, 128).is_err());
        let error = check(false, 32, 16).unwrap_err().to_string();
        assert!(error.contains("max_distance must be above 16"), "{error}");
    }
}
