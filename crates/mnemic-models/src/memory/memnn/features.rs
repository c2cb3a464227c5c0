//! Bags of words and n-grams as lists of feature ids.

use candle_core::{Device, Result, Tensor};

use super::Config;
use crate::story::{Prepared, pad_sequences};

/// The ids of a sentence's features: its words, then the buckets of its longer n-grams.
fn features(config: &Config, words: &[u32]) -> Vec<u32> {
    let mut ids = words.to_vec();
    for n in 2..=config.ngrams {
        ids.extend(words.windows(n).map(|gram| {
            let bucket = hash(gram) % config.ngram_buckets.max(1) as u64;
            (config.vocab_size as u64 + bucket) as u32
        }));
    }
    ids
}

/// FNV-1a over the ids, mixed once more so that the low bits are good.
fn hash(gram: &[u32]) -> u64 {
    let bytes = gram.iter().flat_map(|w| w.to_le_bytes());
    let h = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |h, b| {
        (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    (h ^ (h >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93) >> 16
}

/// The features of all sentences `(b, n, f)` and questions `(b, f')`, padded with 0.
pub(super) fn bags(config: &Config, prepared: &Prepared) -> Result<(Tensor, Tensor)> {
    let batch = &prepared.batch;
    if config.ngrams == 1 {
        return Ok((batch.story.clone(), batch.question.clone()));
    }
    let (b, n, _) = batch.story.dims3()?;
    let device: &Device = batch.story.device();
    let (mut sentences, mut questions) = (Vec::with_capacity(b * n), Vec::with_capacity(b));
    for row in 0..b {
        sentences.extend(prepared.sentences(row)?.map(|words| features(config, words)));
        sentences.resize(n * (row + 1), Vec::new());
        questions.push(features(config, prepared.question(row)?));
    }
    let (story, _) = pad_sequences(&sentences, device)?;
    let (question, _) = pad_sequences(&questions, device)?;
    Ok((story.reshape((b, n, ()))?, question))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sizes;

    #[test]
    fn a_sentence_gives_words_and_buckets() {
        let sizes = Sizes { vocab_size: 10, sentence_len: 4, memory_size: 5 };
        let config = Config { ngram_buckets: 50, ..Config::am_ng(sizes) };
        let ids = features(&config, &[3, 4, 5, 4]);
        assert_eq!(ids.len(), 4 + 3 + 2);
        assert_eq!(ids[..4], [3, 4, 5, 4]);
        assert!(ids[4..].iter().all(|id| (10..60).contains(id)));
        assert_ne!(ids[5], ids[6]); // (4, 5) and (5, 4)
        assert_eq!(ids[4], features(&config, &[3, 4])[2]);
        assert_eq!(features(&config, &[7]), [7]);
    }

    #[test]
    fn buckets_are_used_evenly() {
        let mut counts = [0usize; 64];
        for a in 0..60u32 {
            for b in 0..60u32 {
                counts[(hash(&[a, b]) % 64) as usize] += 1;
            }
        }
        // 3600 pairs, 56 a bucket on average, standard deviation 7.4.
        assert!(counts.iter().all(|c| (20..95).contains(c)), "{counts:?}");
    }
}
