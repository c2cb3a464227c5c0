//! Trained encoder-decoders: names in Latin letters, spelling to phonemes.

use std::collections::HashMap;

use candle_core::{DType, Device};
use mnemic_tasks::generation::{EarlyStopping, Finish, GenerationConfig, Generator, generate};
use mnemic_tasks::models::recurrent::gru_seq2seq::GruSeq2Seq;
use mnemic_tasks::models::transformer::opennmt::OpenNmtTransformer;
use mnemic_tasks::models::{Padding, Pretrained, TextBatch, from_pretrained};
use mnemic_testing::shared_data;
use serde_json::Value;

/// The words of `fixtures/real/NAME/words.json`.
fn words<T: serde::de::DeserializeOwned>(test: &str, name: &str) -> Option<T> {
    let path = shared_data(test, &format!("fixtures/real/{name}/words.json"))?;
    Some(serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap())
}

#[test]
fn names_in_latin_letters_and_four_beams_of_each() {
    let test = "real::names_in_latin_letters_and_four_beams_of_each";
    let Some(words) = words::<Vec<Value>>(test, "transliteration") else { return };
    let Some(folder) = shared_data(test, "weights/aren-transliteration") else { return };
    let loaded: Pretrained<OpenNmtTransformer> =
        from_pretrained(folder, DType::F32, &Device::Cpu).unwrap();
    let model = loaded.inference_model(DType::F32, &Device::Cpu).unwrap();
    let letters = |word: &Value| -> Vec<u32> {
        let letters: Vec<String> =
            word["word"].as_str().unwrap().chars().map(String::from).collect();
        loaded.config.source_ids(letters.iter().map(String::as_str))
    };
    let rows: Vec<Vec<u32>> = words.iter().map(letters).collect();
    let batch = TextBatch::from_rows(&rows, 0, Padding::Right, &Device::Cpu).unwrap();
    let config = GenerationConfig {
        decoder_start_token_id: Some(loaded.config.start),
        eos_token_id: vec![loaded.config.end],
        pad_token_id: Some(loaded.config.blank),
        max_new_tokens: Some(40),
        ..GenerationConfig::default()
    };
    let text = |ids: &[u32]| loaded.config.target_tokens(ids).concat();

    let greedy = generate(&model, &batch, &config).unwrap();
    let beams = GenerationConfig { num_beams: 4, num_return_sequences: 4, ..config };
    // CTranslate2 stops as soon as it has four.
    let beams = GenerationConfig { early_stopping: EarlyStopping::Always, ..beams };
    let beams = Generator::new(&model, beams).unwrap().generate(&batch).unwrap();
    for ((word, greedy), beams) in words.iter().zip(&greedy.rows).zip(&beams.rows) {
        assert_eq!(text(&greedy[0].ids), word["greedy"].as_str().unwrap());
        let found: Vec<String> = beams.iter().map(|beam| text(&beam.ids)).collect();
        let expected: Vec<&str> =
            word["beam4"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
        assert_eq!(found, expected, "{word}");
        for (beam, score) in beams.iter().zip(word["beam4_scores"].as_array().unwrap()) {
            let (found, expected) = (beam.score, score.as_f64().unwrap());
            assert!((found - expected).abs() < 1e-4, "{word}: {found} and {expected}");
        }
    }
}

#[test]
fn pronunciations_of_unseen_words() {
    let test = "real::pronunciations_of_unseen_words";
    let Some(words) = words::<HashMap<String, String>>(test, "g2p-en") else { return };
    let Some(folder) = shared_data(test, "weights/g2p-en") else { return };
    let loaded: Pretrained<GruSeq2Seq> = from_pretrained(folder, DType::F32, &Device::Cpu).unwrap();
    let model = loaded.inference_model(DType::F32, &Device::Cpu).unwrap();
    let spelt = |word: &String| -> Vec<u32> {
        let letters: Vec<String> = word.chars().map(String::from).collect();
        loaded.config.source_ids(letters.iter().map(String::as_str)).unwrap()
    };
    let rows: Vec<Vec<u32>> = words.keys().map(spelt).collect();
    let batch = TextBatch::from_rows(&rows, 0, Padding::Right, &Device::Cpu).unwrap();
    let config = GenerationConfig {
        decoder_start_token_id: Some(loaded.config.start),
        eos_token_id: vec![loaded.config.end],
        pad_token_id: Some(0),
        max_new_tokens: Some(20),
        ..GenerationConfig::default()
    };
    let written = generate(&model, &batch, &config).unwrap();
    let beams = GenerationConfig { num_beams: 3, ..config };
    let beams = generate(&model, &batch, &beams).unwrap();
    assert_eq!(written.rows.len(), 8);
    for (((word, phonemes), row), best) in words.iter().zip(&written.rows).zip(&beams.rows) {
        assert_eq!(row[0].finish, Finish::EndToken, "{word}");
        assert_eq!(loaded.config.target_tokens(&row[0].ids).join(" "), *phonemes, "{word}");
        assert!(best[0].score >= row[0].score - 1e-6, "{word}");
    }
}
