//! A counter-based random generator: Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3").
//!
//! A number is a pure function of `(seed, stream, index)`. Nothing has state, so there is nothing to save in a
//! checkpoint, and results do not depend on the number of threads or on the order in which numbers are drawn.

const MUL: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];

/// Blocks that [`Philox::blocks`] makes at a time.
pub(crate) const LANES: usize = 16;

/// A random stream, keyed by a seed and a stream number.
///
/// ```
/// use mnemic_kernels::rng::Philox;
/// let rng = Philox::new(7, 0);
/// assert_eq!(rng.uniform(3), Philox::new(7, 0).uniform(3));
/// assert!((0.0..1.0).contains(&rng.uniform(3)));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Philox {
    key: [u32; 2],
    stream: u64,
}

impl Philox {
    /// The stream `stream` of `seed`. Streams of one seed are independent of each other.
    pub fn new(seed: u64, stream: u64) -> Self {
        Self { key: [seed as u32, (seed >> 32) as u32], stream }
    }

    /// The seed.
    #[cfg(cuda_path)]
    pub(crate) fn seed(&self) -> u64 {
        u64::from(self.key[0]) | u64::from(self.key[1]) << 32
    }

    /// The number of the stream.
    #[cfg(cuda_path)]
    pub(crate) fn stream(&self) -> u64 {
        self.stream
    }

    /// The stream that belongs to a name, such as a parameter's: the name is hashed (FNV-1a, 64 bits).
    pub fn named(seed: u64, name: &str) -> Self {
        let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| {
            (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        Self::new(seed, hash)
    }

    /// Seed and stream, for kernels that make the numbers themselves.
    #[cfg(cuda_path)]
    #[allow(dead_code, reason = "for the operations")]
    pub(crate) fn keys(&self) -> (u64, u64) {
        (u64::from(self.key[0]) | u64::from(self.key[1]) << 32, self.stream)
    }

    /// Block `counter` of the stream: four independent 32-bit words.
    pub fn block(&self, counter: u64) -> [u32; 4] {
        let mut x = [
            counter as u32,
            (counter >> 32) as u32,
            self.stream as u32,
            (self.stream >> 32) as u32,
        ];
        let mut key = self.key;
        for _ in 0..10 {
            let p0 = u64::from(MUL[0]) * u64::from(x[0]);
            let p1 = u64::from(MUL[1]) * u64::from(x[2]);
            x = [
                (p1 >> 32) as u32 ^ x[1] ^ key[0],
                p1 as u32,
                (p0 >> 32) as u32 ^ x[3] ^ key[1],
                p0 as u32,
            ];
            key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
        }
        x
    }

    /// The blocks `first..first + LANES`, one after the other: [`Philox::block`] on vectors.
    #[allow(clippy::needless_range_loop, reason = "four arrays of lanes side by side")]
    #[inline(always)]
    pub(crate) fn blocks(&self, first: u64) -> [u32; 4 * LANES] {
        const LOW: u64 = 0xffff_ffff;
        // 32-bit words in 64-bit lanes. Above the low halves stands what is left of the products: no product reads it.
        let counter = |shift: u32| {
            std::array::from_fn::<u64, LANES, _>(|j| first.wrapping_add(j as u64) >> shift)
        };
        let mut x = [counter(0), counter(32), [self.stream; LANES], [self.stream >> 32; LANES]];
        let mut key = self.key;
        for _ in 0..10 {
            for j in 0..LANES {
                let p0 = (x[0][j] & LOW) * u64::from(MUL[0]);
                let p1 = (x[2][j] & LOW) * u64::from(MUL[1]);
                x[0][j] = (p1 >> 32) ^ x[1][j] ^ u64::from(key[0]);
                x[2][j] = (p0 >> 32) ^ x[3][j] ^ u64::from(key[1]);
                x[1][j] = p1;
                x[3][j] = p0;
            }
            key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
        }
        let mut words = [0; 4 * LANES];
        for j in 0..LANES {
            for k in 0..4 {
                words[4 * j + k] = x[k][j] as u32;
            }
        }
        words
    }

    /// 64 random bits: number `index` of the stream (two numbers a block).
    pub fn bits(&self, index: u64) -> u64 {
        let x = self.block(index / 2);
        let k = 2 * (index % 2) as usize;
        u64::from(x[k]) | u64::from(x[k + 1]) << 32
    }

    /// A number in `[0, 1)` with 53 random bits.
    pub fn uniform(&self, index: u64) -> f64 {
        (self.bits(index) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A number in `0..n` (`n > 0`), by the multiply-shift map; its bias is below `n / 2^64`.
    pub fn below(&self, index: u64, n: u64) -> u64 {
        ((u128::from(self.bits(index)) * u128::from(n)) >> 64) as u64
    }

    /// A standard normal number (Box-Muller; both of its inputs come from block `index`).
    pub fn normal(&self, index: u64) -> f64 {
        // 1 - u lies in (0, 1], so the logarithm is finite.
        let radius = (-2.0 * (1.0 - self.uniform(2 * index)).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform(2 * index + 1)).cos()
    }

    /// `n` uniform numbers in `[low, high)`.
    pub fn uniforms(&self, n: usize, low: f64, high: f64) -> Vec<f64> {
        (0..n as u64).map(|i| low + (high - low) * self.uniform(i)).collect()
    }

    /// `n` normal numbers with the given mean and standard deviation.
    pub fn normals(&self, n: usize, mean: f64, std: f64) -> Vec<f64> {
        (0..n as u64).map(|i| mean + std * self.normal(i)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reference_vectors() {
        // Known answers published with Random123: (counter, key) -> block.
        assert_eq!(
            Philox::new(0, 0).block(0),
            [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]
        );
        assert_eq!(
            Philox::new(u64::MAX, u64::MAX).block(u64::MAX),
            [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
        );
        assert_eq!(
            Philox::new(0x299f_31d0_a409_3822, 0x0370_7344_1319_8a2e).block(0x85a3_08d3_243f_6a88),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    #[test]
    fn blocks_equal_single_blocks() {
        let rng = Philox::new(0x299f_31d0_a409_3822, 0x0370_7344_1319_8a2e);
        for first in [0, 5, (1 << 32) - 7, u64::MAX - 3] {
            for (j, four) in rng.blocks(first).chunks(4).enumerate() {
                assert_eq!(four, rng.block(first.wrapping_add(j as u64)));
            }
        }
    }

    #[test]
    fn moments() {
        let z = Philox::new(3, 1).normals(100_000, 0.0, 1.0);
        let mean = z.iter().sum::<f64>() / z.len() as f64;
        let var = z.iter().map(|v| v * v).sum::<f64>() / z.len() as f64;
        assert!(mean.abs() < 0.02 && (var - 1.0).abs() < 0.02, "mean {mean}, variance {var}");
        let u = Philox::new(3, 2).uniforms(100_000, -1.0, 3.0);
        assert!(u.iter().all(|v| (-1.0..3.0).contains(v)));
        assert!((u.iter().sum::<f64>() / u.len() as f64 - 1.0).abs() < 0.02);
    }

    #[test]
    fn streams_and_names_differ() {
        assert_ne!(Philox::new(1, 0).bits(0), Philox::new(1, 1).bits(0));
        assert_ne!(Philox::named(1, "a.weight").bits(0), Philox::named(1, "b.weight").bits(0));
        assert!((0..1000).all(|i| Philox::new(1, 0).below(i, 7) < 7));
    }
}
