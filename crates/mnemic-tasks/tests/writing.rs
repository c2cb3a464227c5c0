//! Texts gone on with and translated, with trained models.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::collections::HashMap;

use mnemic_tasks::Place;
use mnemic_tasks::generation::{EarlyStopping, GenerationConfig};
use mnemic_tasks::text::{Ending, WriteOptions, Writer, attention};
use mnemic_testing::shared_data;
use serde_json::Value;

fn json<T: serde::de::DeserializeOwned>(test: &str, path: &str) -> Option<T> {
    let path = shared_data(test, path)?;
    Some(serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap())
}

fn stories(test: &str) -> Option<Writer> {
    Some(Writer::causal(shared_data(test, "weights/stories260K")?, Place::Cpu).unwrap())
}

fn greedy(writer: &Writer, tokens: usize) -> WriteOptions {
    WriteOptions::new(GenerationConfig { max_new_tokens: Some(tokens), ..writer.config.clone() })
}

#[test]
fn stories_are_those_of_transformers_whole_and_piece_by_piece() {
    let test = "stories_are_those_of_transformers_whole_and_piece_by_piece";
    let Some(writer) = stories(test) else { return };
    let Some(prompts) = json::<Vec<Value>>(test, "fixtures/real/stories260k/prompts.json") else {
        return;
    };
    let text = |prompt: &Value, key: &str| prompt[key].as_str().unwrap().to_string();
    let texts: Vec<String> = prompts.iter().map(|prompt| text(prompt, "text")).collect();
    let refs: Vec<&str> = texts.iter().map(String::as_str).collect();
    let options = greedy(&writer, 48);
    let beams = GenerationConfig { num_beams: 4, ..options.config.clone() };
    // Batches of two: padding and the other rows change nothing.
    let written = writer.write(&refs, &WriteOptions { batch: 2, ..options.clone() }).unwrap();
    let searched = writer.write(&refs, &WriteOptions::new(beams)).unwrap();
    for ((prompt, written), searched) in prompts.iter().zip(&written).zip(&searched) {
        let start = text(prompt, "text");
        assert_eq!(format!("{start}{}", written[0].text), text(prompt, "greedy"));
        assert_eq!(format!("{start}{}", searched[0].text), text(prompt, "beam4"));
        assert_eq!((written[0].tokens, written[0].ending), (48, Ending::Length));
        let mut shown = String::new();
        let streamed = writer.stream(&start, &options, &mut |piece| shown.push_str(piece)).unwrap();
        assert_eq!((&streamed.text, &shown), (&written[0].text, &written[0].text));
        assert!((streamed.score - written[0].score).abs() < 1e-5);
    }
}

#[test]
fn stop_texts_end_a_story_before_them() {
    let Some(writer) = stories("stop_texts_end_a_story_before_them") else { return };
    let options = greedy(&writer, 60);
    let whole = writer.write(&["The sun"], &options).unwrap()[0][0].text.clone();
    // In the middle of a word, which tokens do not end with.
    let stop = vec!["never".to_string(), "hiny b".to_string()];
    let cut = WriteOptions { stop: stop.clone(), ..options.clone() };
    let mut shown = String::new();
    let written = writer.stream("The sun", &cut, &mut |piece| shown.push_str(piece)).unwrap();
    let place = whole.find("hiny b").unwrap();
    assert_eq!((written.text.as_str(), written.ending), (&whole[..place], Ending::Stop));
    assert_eq!(shown, written.text);
    let beams = GenerationConfig { num_beams: 2, ..options.config };
    let error = writer.write(&["The sun"], &WriteOptions { stop, ..WriteOptions::new(beams) });
    assert!(error.unwrap_err().to_string().contains("one beam"));
}

#[test]
fn samples_follow_from_the_seed_and_not_from_the_batch() {
    let Some(writer) = stories("samples_follow_from_the_seed_and_not_from_the_batch") else {
        return;
    };
    let options = |seed, batch| {
        let config = GenerationConfig { do_sample: true, seed, ..greedy(&writer, 12).config };
        let config = GenerationConfig { num_return_sequences: 2, ..config };
        WriteOptions { batch, ..WriteOptions::new(config) }
    };
    let write = |seed, batch| writer.write(&["The sun", "Tom", "One day"], &options(seed, batch));
    let first = write(7, 8).unwrap();
    assert_eq!(first, write(7, 8).unwrap());
    let texts = |all: &[Vec<mnemic_tasks::text::Written>]| -> Vec<String> {
        all.iter().flatten().map(|one| one.text.clone()).collect()
    };
    assert_eq!(texts(&first), texts(&write(7, 1).unwrap()));
    assert_ne!(texts(&first), texts(&write(8, 8).unwrap()));
    assert_ne!(first[0][0].text, first[0][1].text);
    assert!(writer.stream("x", &options(7, 1), &mut |_| {}).is_err());
}

#[test]
fn names_in_latin_letters() {
    let test = "names_in_latin_letters";
    let Some(words) = json::<Vec<Value>>(test, "fixtures/real/transliteration/words.json") else {
        return;
    };
    let Some(folder) = shared_data(test, "weights/aren-transliteration") else { return };
    let writer = Writer::seq2seq(folder, Place::Cpu).unwrap();
    let texts: Vec<&str> = words.iter().map(|word| word["word"].as_str().unwrap()).collect();
    let written = writer.write(&texts, &WriteOptions::new(writer.config.clone())).unwrap();
    let config =
        GenerationConfig { num_beams: 4, num_return_sequences: 4, ..writer.config.clone() };
    let config = GenerationConfig { early_stopping: EarlyStopping::Always, ..config };
    let beams = writer.write(&texts, &WriteOptions::new(config)).unwrap();
    for ((word, written), beams) in words.iter().zip(&written).zip(&beams) {
        assert_eq!(written[0].text, word["greedy"].as_str().unwrap());
        assert_eq!(written[0].ending, Ending::EndToken);
        let expected: Vec<&str> =
            word["beam4"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
        let found: Vec<&str> = beams.iter().map(|beam| beam.text.as_str()).collect();
        assert_eq!(found, expected);
    }
}

#[test]
fn words_are_spelt_in_phonemes() {
    let test = "words_are_spelt_in_phonemes";
    let Some(words) = json::<HashMap<String, String>>(test, "fixtures/real/g2p-en/words.json")
    else {
        return;
    };
    let Some(folder) = shared_data(test, "weights/g2p-en") else { return };
    let writer = Writer::seq2seq(folder, Place::Cpu).unwrap();
    let options = WriteOptions::new(writer.config.clone());
    for (word, phonemes) in &words {
        // Capital letters are not in the vocabulary: small ones are taken.
        let written = writer.write(&[&word.to_uppercase()], &options).unwrap();
        assert_eq!(written[0][0].text, *phonemes, "{word}");
    }
    assert!(writer.write(&[" "], &options).unwrap_err().to_string().contains("one letter"));
}

#[test]
fn models_of_another_kind_are_refused() {
    let Some(weights) = shared_data("models_of_another_kind_are_refused", "weights") else {
        return;
    };
    let error = Writer::seq2seq(weights.join("stories260K"), Place::Cpu).unwrap_err().to_string();
    assert!(error.contains("encoder-decoder") && error.contains("marian"), "{error}");
    let error = Writer::causal(weights.join("g2p-en"), Place::Cpu).unwrap_err().to_string();
    assert!(error.contains("causal language model"), "{error}");
    let error = Writer::causal(weights.join("no-such"), Place::Cpu).unwrap_err().to_string();
    assert!(error.contains("no-such"), "{error}");
}

#[test]
fn attention_of_writing_models_is_watched() {
    let Some(weights) = shared_data("attention_of_writing_models_is_watched", "weights") else {
        return;
    };
    let story = attention(&weights.join("stories260K"), "Tom had a dog.", Place::Cpu).unwrap();
    let maps = &story.maps[0];
    assert_eq!((story.maps.len(), maps.layers.len(), maps.layers[0].heads.len()), (1, 5, 8));
    assert_eq!(story.tokens[..3], ["<s>", "\u{2423}T", "om"]);
    let n = story.tokens.len();
    for heads in maps.layers.iter().flat_map(|layer| &layer.heads) {
        for (i, row) in heads.chunks_exact(n).enumerate() {
            // Nothing later is seen, and the rest is all there is.
            assert!((row[..=i].iter().sum::<f32>() - 1.).abs() < 1e-5);
            assert!(row[i + 1..].iter().all(|&w| w == 0.));
        }
    }
    let names = attention(&weights.join("aren-transliteration"), "محمد", Place::Cpu).unwrap();
    let titles: Vec<&str> = names.maps.iter().map(|maps| maps.title.as_str()).collect();
    assert_eq!(titles, ["Encoder", "Decoder", "From what is written to what is read"]);
    let cross = &names.maps[2];
    assert_eq!(cross.cols, names.tokens);
    assert_eq!(cross.rows.last().unwrap(), "</s>");
    let error = attention(&weights.join("g2p-en"), "hello", Place::Cpu).unwrap_err().to_string();
    assert!(error.contains("no attention"), "{error}");
    let error = attention(&weights.join("gat-cora"), "x", Place::Cpu).unwrap_err().to_string();
    assert!(error.contains("config.json"), "{error}");
}
