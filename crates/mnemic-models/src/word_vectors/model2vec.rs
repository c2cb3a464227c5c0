//! Model2Vec: static embeddings of texts (S. Tulkens and T. van Dongen 2024, `minishlab/model2vec`).
//!
//! The vector of a text is the mean of its tokens' rows, `1/n Σ_i w[x_i] E[m[x_i]]`, brought to length 1 where the config says `normalize`.
//! Tokens are those of the tokenizer without special ones; the unknown is left out.
//!
//! `model.safetensors` has `embeddings (v', d)` of any type (i8 in small models), and in newer models `weights (v)` and `mapping (v)`, the
//! row of each token; without them the weights are 1 and the rows those of the ids.
//!
//! Letters: b texts, d width, v tokens.

use std::path::Path;

use candle_core::{DType, Device, Tensor};
use mnemic_layers::Embedding;
use serde_json::Value;

use crate::error::{Error, Result};
use crate::pretrained::{load_tensors, read_keys};
use crate::transformer::sentence::normalize;

/// Static embeddings of texts.
///
/// ```no_run
/// use candle_core::Device;
/// use mnemic_models::word_vectors::model2vec::Model2Vec;
/// let model = Model2Vec::from_folder("potion-base-4m", &Device::Cpu)?;
/// let embeddings = model.encode(&[vec![43, 1164], vec![1002]])?; // (2, d)
/// # let _ = embeddings;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Model2Vec {
    /// `(v + 1, d)`, the weights multiplied in; the last row pads.
    table: Embedding,
    vocab_size: usize,
    normalize: bool,
    device: Device,
    #[cfg(feature = "tokenizers")]
    tokenizer: crate::pretrained::Tokenizer,
}

impl Model2Vec {
    /// Reads a folder: `config.json`, `model.safetensors` and, with the feature `tokenizers`, `tokenizer.json`.
    ///
    /// # Errors
    /// When a file is missing or malformed, or the tensors do not fit together.
    pub fn from_folder(dir: impl AsRef<Path>, device: &Device) -> Result<Self> {
        let dir = dir.as_ref();
        let config = read_keys(&dir.join("config.json"))?;
        let table = read_table(&dir.join("model.safetensors"))?.to_device(device)?;
        let (v, d) = table.dims2()?;
        let zeros = Tensor::zeros((1, d), DType::F32, device)?;
        let padded = Tensor::cat(&[&table, &zeros], 0)?;
        Ok(Self {
            table: Embedding::from_weight(padded, Some(v as u32))?,
            vocab_size: v,
            normalize: config.get("normalize").and_then(Value::as_bool).unwrap_or(false),
            device: device.clone(),
            #[cfg(feature = "tokenizers")]
            tokenizer: crate::pretrained::Tokenizer::from_folder(dir)?,
        })
    }

    /// The vectors of texts given as ids, `(b, d)`: zeros for a text of no ids.
    ///
    /// # Errors
    /// When there is no text or an id is not in the vocabulary.
    pub fn encode(&self, rows: &[Vec<u32>]) -> candle_core::Result<Tensor> {
        let outside = |id: &&u32| **id as usize >= self.vocab_size;
        if let Some(id) = rows.iter().flatten().find(outside) {
            candle_core::bail!("model2vec: id {id} is not below {}", self.vocab_size);
        }
        let longest = rows.iter().map(Vec::len).max().unwrap_or(0).max(1);
        let pad = self.vocab_size as u32;
        let fill = |row: &Vec<u32>| {
            let padding = std::iter::repeat_n(pad, longest - row.len());
            row.iter().copied().chain(padding).collect::<Vec<_>>()
        };
        let ids: Vec<u32> = rows.iter().flat_map(fill).collect();
        let ids = Tensor::from_vec(ids, (rows.len(), longest), &self.device)?;
        let counts: Vec<f32> = rows.iter().map(|row| row.len().max(1) as f32).collect();
        let counts = Tensor::from_vec(counts, (rows.len(), 1), &self.device)?;
        let means = self.table.pooled(&ids, None)?.broadcast_div(&counts)?;
        if self.normalize { normalize(&means) } else { Ok(means) }
    }
}

#[cfg(feature = "tokenizers")]
impl Model2Vec {
    /// Tokens of a text that count, as `model2vec` has it.
    const MAX_TOKENS: usize = 512;

    /// The vectors of texts, `(b, d)`.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    pub fn embed(&self, texts: &[&str]) -> Result<Tensor> {
        let unknown = self.tokenizer.special().unk;
        let row = |text: &&str| {
            let mut ids = self.tokenizer.encode_plain(text)?.ids;
            ids.retain(|&id| Some(id) != unknown);
            ids.truncate(Self::MAX_TOKENS);
            Ok(ids)
        };
        let rows = texts.iter().map(row).collect::<Result<Vec<_>>>()?;
        Ok(self.encode(&rows)?)
    }
}

/// The rows of all ids, f32 `(v, d)`.
fn read_table(file: &Path) -> Result<Tensor> {
    let tensors = load_tensors(file, &Device::Cpu)?;
    let floats = |name: &str| tensors.get(name).map(|t| t.to_dtype(DType::F32)).transpose();
    let mut table = match floats("embeddings")? {
        Some(table) if table.rank() == 2 => table,
        _ => return Err(Error::format(file, "expected a matrix `embeddings`")),
    };
    if let Some(mapping) = tensors.get("mapping") {
        let rows = table.dims()[0] as i64;
        let mapping = mapping.flatten_all()?.to_dtype(DType::I64)?;
        if mapping.to_vec1::<i64>()?.iter().any(|row| !(0..rows).contains(row)) {
            return Err(Error::format(file, format!("`mapping` names no row below {rows}")));
        }
        table = table.index_select(&mapping.to_dtype(DType::U32)?, 0)?;
    }
    if let Some(weights) = floats("weights")? {
        let v = table.dims()[0];
        if weights.elem_count() != v {
            let reason = format!("expected {v} `weights`, got {:?}", weights.dims());
            return Err(Error::format(file, reason));
        }
        table = table.broadcast_mul(&weights.reshape((v, 1))?)?;
    }
    let finite = table.flatten_all()?.to_vec1::<f32>()?.iter().all(|x| x.is_finite());
    match finite {
        true => Ok(table),
        false => Err(Error::format(file, "the embeddings are not finite")),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::fs;

    use mnemic_testing::assert_close;

    use super::*;

    #[test]
    fn sentences_as_published() {
        let test = "sentences_as_published";
        let Some(real) = mnemic_testing::shared_data(test, "fixtures/real/model2vec") else {
            return;
        };
        let dir = mnemic_testing::shared_data(test, "weights/model2vec").unwrap();
        let model = Model2Vec::from_folder(dir, &Device::Cpu).unwrap();
        let json = fs::read_to_string(real.join("sentences.json")).unwrap();
        let json: Value = serde_json::from_str(&json).unwrap();
        let rows: Vec<Vec<u32>> = json
            .as_array()
            .unwrap()
            .iter()
            .map(|row| serde_json::from_value(row["ids"].clone()).unwrap())
            .collect();
        let expected = load_tensors(real.join("fixture.safetensors"), &Device::Cpu).unwrap();
        let got = model.encode(&rows).unwrap();
        assert_close("embeddings", &got, &expected["embeddings"], 0., 1e-5);
        let cosine = got.matmul(&got.t().unwrap()).unwrap();
        assert_close("cosine", &cosine, &expected["cosine"], 0., 1e-5);
        #[cfg(feature = "tokenizers")]
        {
            let texts: Vec<&str> =
                json.as_array().unwrap().iter().map(|row| row["text"].as_str().unwrap()).collect();
            assert_close("texts", &model.embed(&texts).unwrap(), &got, 0., 0.);
        }
        let empty = model.encode(&[vec![], vec![5]]).unwrap().to_vec2::<f32>().unwrap();
        assert!(empty[0].iter().all(|&x| x == 0.) && empty[1].iter().any(|&x| x != 0.));
        assert!(model.encode(&[vec![29_528]]).unwrap_err().to_string().contains("29528"));
    }

    #[test]
    fn mapped_and_weighted_rows() {
        let dir = tempfile::TempDir::new().unwrap();
        let file = dir.path().join("model.safetensors");
        let save = |mapping: [i64; 3]| {
            let table = Tensor::new(&[[1f32, 2.], [3., 4.]], &Device::Cpu).unwrap();
            let tensors = HashMap::from([
                ("embeddings".to_string(), table),
                ("mapping".to_string(), Tensor::new(&mapping, &Device::Cpu).unwrap()),
                ("weights".to_string(), Tensor::new(&[1f64, 2., 0.5], &Device::Cpu).unwrap()),
            ]);
            candle_core::safetensors::save(&tensors, &file).unwrap();
            read_table(&file)
        };
        let table = save([1, 0, 1]).unwrap().to_vec2::<f32>().unwrap();
        assert_eq!(table, [[3., 4.], [2., 4.], [1.5, 2.]]);
        assert!(save([0, 2, 0]).unwrap_err().to_string().contains("mapping"));
    }
}
