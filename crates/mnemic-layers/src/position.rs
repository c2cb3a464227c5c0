//! Position weights of the words of a sentence (Sukhbaatar et al. 2015, section 4.1).

use candle_core::{DType, Device, Result, Tensor, bail};

/// The weights that a sentence's word vectors are summed with.
///
/// `j = 1..J` is the word and `k = 1..d` the dimension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PositionEncoding {
    /// All 1: a bag of words.
    BagOfWords,
    /// The paper's: `l_kj = (1 - j/J) - (k/d)(1 - 2j/J)`; also that of DMN+ (Xiong et al. 2016, eq.
    /// 3).
    Paper,
    /// The authors' program's: `l_kj = 1 + 4 (k - (d+1)/2) (j - (J+1)/2) / (d J)`. Its mean is 1,
    /// the paper's about ½.
    Code,
}

/// The weights `(j, d)` for sentences of `sentence_len` words.
///
/// ```
/// use candle_core::{DType, Device};
/// use mnemic_layers::{PositionEncoding, position_encoding};
/// let l = position_encoding(3, 4, PositionEncoding::Paper, DType::F64, &Device::Cpu)?;
/// assert_eq!(l.to_vec2::<f64>()?[2], [0.25, 0.5, 0.75, 1.]);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
/// When a size is 0.
pub fn position_encoding(
    sentence_len: usize,
    dim: usize,
    encoding: PositionEncoding,
    dtype: DType,
    device: &Device,
) -> Result<Tensor> {
    if sentence_len == 0 || dim == 0 {
        bail!("position_encoding: sizes must be positive, got ({sentence_len}, {dim})");
    }
    let (words, width) = (sentence_len as f64, dim as f64);
    let weight = |j: f64, k: f64| match encoding {
        PositionEncoding::BagOfWords => 1.,
        PositionEncoding::Paper => (1. - j / words) - (k / width) * (1. - 2. * j / words),
        PositionEncoding::Code => {
            1. + 4. * (k - (width + 1.) / 2.) * (j - (words + 1.) / 2.) / (width * words)
        }
    };
    let values: Vec<f64> = (1..=sentence_len)
        .flat_map(|j| (1..=dim).map(move |k| (j as f64, k as f64)))
        .map(|(j, k)| weight(j, k))
        .collect();
    Tensor::from_vec(values, (sentence_len, dim), &Device::Cpu)?.to_dtype(dtype)?.to_device(device)
}
