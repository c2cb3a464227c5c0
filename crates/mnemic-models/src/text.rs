//! Batches of token ids, padded on either side.

use candle_core::{Device, Result, Tensor, bail};
use mnemic_layers::{AttentionOptions, Mask};

/// On which side short rows are padded. Encoders pad on the right, decoders that go on from a prompt on the left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Padding {
    /// Tokens first.
    #[default]
    Right,
    /// Padding first, so that all rows end in their last token.
    Left,
}

/// Rows of token ids, as models read them.
///
/// ```
/// use candle_core::Device;
/// use mnemic_models::{Padding, TextBatch};
/// let batch = TextBatch::from_rows(&[vec![5, 6, 7], vec![8]], 0, Padding::Right, &Device::Cpu)?;
/// assert_eq!(batch.input_ids().to_vec2::<u32>()?, [[5, 6, 7], [8, 0, 0]]);
/// assert_eq!(batch.attention_mask(), [[1, 1, 1], [1, 0, 0]]);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct TextBatch {
    input_ids: Tensor,
    token_type_ids: Option<Tensor>,
    mask: Vec<Vec<u8>>,
    /// The lengths, where all padding is on the right and there is some.
    lengths: Option<Vec<usize>>,
    /// The mask as a tensor, where padding stands elsewhere.
    key_mask: Option<Tensor>,
}

impl TextBatch {
    /// A batch of rows, padded with `pad_id` to the longest.
    ///
    /// # Errors
    /// When there is no row.
    pub fn from_rows(
        rows: &[Vec<u32>],
        pad_id: u32,
        side: Padding,
        device: &Device,
    ) -> Result<Self> {
        let t = rows.iter().map(Vec::len).max().unwrap_or(0);
        let fill = |row: &[u32], pad: u32| -> Vec<u32> {
            let padding = std::iter::repeat_n(pad, t - row.len());
            match side {
                Padding::Right => row.iter().copied().chain(padding).collect(),
                Padding::Left => padding.chain(row.iter().copied()).collect(),
            }
        };
        let ids: Vec<u32> = rows.iter().flat_map(|row| fill(row, pad_id)).collect();
        let ones = |row: &Vec<u32>| fill(&vec![1; row.len()], 0).iter().map(|&m| m as u8).collect();
        let mask = rows.iter().map(ones).collect();
        Self::with_mask(Tensor::from_vec(ids, (rows.len(), t), device)?, mask)
    }

    /// A batch of `input_ids` (u32, `(b, t)`) and an attention mask: 1 at tokens, 0 at padding.
    ///
    /// # Errors
    /// When the two do not fit together.
    pub fn with_mask(input_ids: Tensor, mask: Vec<Vec<u8>>) -> Result<Self> {
        let (b, t) = input_ids.dims2()?;
        if mask.len() != b || mask.iter().any(|row| row.len() != t) {
            bail!("text batch: expected an attention mask of {b} rows of {t}");
        }
        let lengths: Vec<usize> =
            mask.iter().map(|row| row.iter().take_while(|&&m| m != 0).count()).collect();
        let right = mask.iter().zip(&lengths).all(|(row, &n)| row[n..].iter().all(|&m| m == 0));
        let full = lengths.iter().all(|&n| n == t);
        let key_mask = match right {
            true => None,
            false => Some(Tensor::from_vec(mask.concat(), (b, t), input_ids.device())?),
        };
        let lengths = (right && !full).then_some(lengths);
        Ok(Self { input_ids, token_type_ids: None, mask, lengths, key_mask })
    }

    /// The batch with segment numbers (u32, `(b, t)`), as BERT's two sentences have them; 0 otherwise.
    ///
    /// # Errors
    /// When the shape is not that of the ids.
    pub fn with_token_types(self, token_type_ids: Tensor) -> Result<Self> {
        if token_type_ids.dims() != self.input_ids.dims() {
            let (got, expected) = (token_type_ids.dims(), self.input_ids.dims());
            bail!("text batch: expected token types {expected:?}, got {got:?}");
        }
        Ok(Self { token_type_ids: Some(token_type_ids), ..self })
    }

    /// The ids, u32 `(b, t)`.
    pub fn input_ids(&self) -> &Tensor {
        &self.input_ids
    }

    /// The segment numbers, where there are some.
    pub fn token_type_ids(&self) -> Option<&Tensor> {
        self.token_type_ids.as_ref()
    }

    /// 1 at tokens, 0 at padding, `(b, t)`.
    pub fn attention_mask(&self) -> &[Vec<u8>] {
        &self.mask
    }

    /// The number of rows and of places in each.
    pub fn dims(&self) -> Result<(usize, usize)> {
        self.input_ids.dims2()
    }

    /// The batch whose row `i` is row `rows[i]` of this one.
    ///
    /// # Errors
    /// When there is no such row.
    pub fn select(&self, rows: &[u32]) -> Result<Self> {
        let pick = |&row: &u32| self.mask.get(row as usize).cloned();
        let Some(mask) = rows.iter().map(pick).collect::<Option<Vec<_>>>() else {
            bail!("text batch: expected rows below {}, got {rows:?}", self.mask.len())
        };
        let index = Tensor::new(rows, self.input_ids.device())?;
        let batch = Self::with_mask(self.input_ids.index_select(&index, 0)?, mask)?;
        match &self.token_type_ids {
            Some(types) => batch.with_token_types(types.index_select(&index, 0)?),
            None => Ok(batch),
        }
    }

    /// Attention to the tokens of this batch and not to its padding.
    pub fn options(&self) -> AttentionOptions<'_> {
        let mask = Mask { key_lengths: self.lengths.as_deref(), ..Mask::default() };
        AttentionOptions { mask, key_mask: self.key_mask.as_ref(), ..AttentionOptions::default() }
    }

    /// The position of each token among the tokens of its row, from 0, and `pad` at padding: `(b, t)`.
    pub fn positions(&self, pad: u32) -> Result<Tensor> {
        self.positions_from(0, pad)
    }

    /// [`Self::positions`], but from `first`.
    pub fn positions_from(&self, first: u32, pad: u32) -> Result<Tensor> {
        let row = |row: &Vec<u8>| -> Vec<u32> {
            let mut next = first;
            let place = |&m: &u8| match m {
                0 => pad,
                _ => {
                    next = next.saturating_add(1);
                    next - 1
                }
            };
            row.iter().map(place).collect()
        };
        let positions: Vec<u32> = self.mask.iter().flat_map(row).collect();
        Tensor::from_vec(positions, self.input_ids.shape(), self.input_ids.device())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_goes_to_the_chosen_side() {
        let rows = [vec![5, 6, 7], vec![8]];
        let left = TextBatch::from_rows(&rows, 9, Padding::Left, &Device::Cpu).unwrap();
        assert_eq!(left.input_ids().to_vec2::<u32>().unwrap(), [[5, 6, 7], [9, 9, 8]]);
        assert_eq!(left.positions(1).unwrap().to_vec2::<u32>().unwrap(), [[0, 1, 2], [1, 1, 0]]);
        assert!(left.options().key_mask.is_some() && left.options().mask.key_lengths.is_none());
        let right = TextBatch::from_rows(&rows, 9, Padding::Right, &Device::Cpu).unwrap();
        assert_eq!(right.options().mask.key_lengths, Some([3, 1].as_slice()));
        let full = TextBatch::from_rows(&rows[..1], 9, Padding::Left, &Device::Cpu).unwrap();
        assert!(full.options().key_mask.is_none() && full.options().mask.key_lengths.is_none());
    }

    #[test]
    fn rows_are_selected_with_their_masks() {
        let rows = [vec![5, 6, 7], vec![8]];
        let batch = TextBatch::from_rows(&rows, 9, Padding::Right, &Device::Cpu).unwrap();
        let types = batch.input_ids().clone();
        let batch = batch.with_token_types(types).unwrap();
        let again = batch.select(&[1, 1, 0]).unwrap();
        assert_eq!(again.attention_mask(), [[1, 0, 0], [1, 0, 0], [1, 1, 1]]);
        let types = again.token_type_ids().unwrap().to_vec2::<u32>().unwrap();
        assert_eq!(types, [[8, 9, 9], [8, 9, 9], [5, 6, 7]]);
        assert_eq!(again.options().mask.key_lengths, Some([1, 1, 3].as_slice()));
        assert!(batch.select(&[2]).unwrap_err().to_string().contains("rows below 2"));
    }

    #[test]
    fn a_mask_of_another_shape_is_refused() {
        let ids = Tensor::zeros((2, 3), candle_core::DType::U32, &Device::Cpu).unwrap();
        let error = TextBatch::with_mask(ids, vec![vec![1; 3], vec![1; 2]]).unwrap_err();
        assert!(error.to_string().contains("2 rows of 3"), "{error}");
    }
}
