//! Verbs for texts and published models, as a user runs them. What a model says is held to fixtures in `mnemic-tasks`.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

fn mnemic(args: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_mnemic"))
        .args(args)
        .env_remove("MNEMIC_DATA")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that fails before it reads closes the pipe.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn succeed(args: &[&str], input: &str) -> String {
    let output = mnemic(args, input);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn fail(args: &[&str], input: &str) -> String {
    let output = mnemic(args, input);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{args:?} succeeded");
    assert!(!error.contains("panicked"), "{error}");
    error
}

fn json(args: &[&str], input: &str) -> Value {
    serde_json::from_str(&succeed(&[args, &["--json"]].concat(), input)).unwrap()
}

/// A path below the folder of shared data.
fn shared(test: &str, below: &str) -> Option<PathBuf> {
    match std::env::var_os("MNEMIC_DATA") {
        Some(dir) => Some(PathBuf::from(dir).join(below)),
        None => {
            println!("skipped: text::{test}: MNEMIC_DATA is not set");
            None
        }
    }
}

/// A tiny published model with a vocabulary of `[PAD] [UNK] [CLS] [SEP] [MASK] w5 w6 ...`.
fn tiny(test: &str, name: &str) -> Option<tempfile::TempDir> {
    let from = shared(test, "fixtures/hf")?.join(name);
    let folder = tempfile::tempdir().unwrap();
    for file in ["config.json", "model.safetensors"] {
        std::fs::copy(from.join(file), folder.path().join(file)).unwrap();
    }
    let special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"].map(String::from);
    let words = special.into_iter().chain((5..120).map(|i| format!("w{i}")));
    std::fs::write(folder.path().join("vocab.txt"), words.collect::<Vec<_>>().join("\n")).unwrap();
    Some(folder)
}

fn path(dir: &Path) -> &str {
    dir.to_str().unwrap()
}

#[test]
fn texts_come_from_arguments_a_file_or_standard_input() {
    let Some(dir) = shared("texts_come_from", "weights/model2vec") else { return };
    let model = path(&dir);
    let lines = "A man is eating food.\n\nA girl plays the violin.\n";
    let found = json(&["embed", model], lines);
    let rows = found.as_array().unwrap();
    assert_eq!(rows.len(), 2);
    assert_eq!(rows[1]["text"], "A girl plays the violin.");
    assert_eq!(rows[0]["embedding"].as_array().unwrap().len(), 128);
    let given = ["embed", model, "A man is eating food.", "A girl plays the violin."];
    assert_eq!(json(&given, ""), found);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("lines.txt");
    std::fs::write(&file, lines).unwrap();
    assert_eq!(json(&["embed", model, "--file", path(&file), "--batch", "1"], ""), found);
    let plain = succeed(&given, "");
    let numbers: Vec<f64> =
        plain.lines().next().unwrap().split('\t').map(|n| n.parse().unwrap()).collect();
    for (number, value) in numbers.iter().zip(rows[0]["embedding"].as_array().unwrap()) {
        assert!((number - value.as_f64().unwrap()).abs() < 1e-6);
    }
    assert_eq!(numbers.len(), 128);
}

#[test]
fn similar_texts_are_found() {
    let Some(dir) = shared("similar_texts", "weights/model2vec") else { return };
    let model = path(&dir);
    let lines = "The stock market fell.\nA man is eating a piece of bread.\nIt rains.\n";
    let found =
        json(&["similarity", model, "--query", "A man is eating food.", "--top", "2"], lines);
    let near = found["nearest"].as_array().unwrap();
    assert_eq!((near.len(), near[0]["index"].as_u64()), (2, Some(1)));
    assert_eq!(near[0]["text"], "A man is eating a piece of bread.");
    assert!(near[0]["score"].as_f64() > near[1]["score"].as_f64());
    let cosines = json(&["similarity", model], lines)["cosines"].clone();
    assert_eq!(cosines.as_array().unwrap().len(), 3);
    for i in 0..3 {
        assert!((cosines[i][i].as_f64().unwrap() - 1.).abs() < 1e-5);
        assert_eq!(cosines[i][2 - i], cosines[2 - i][i]);
    }
    let table = succeed(&["similarity", model], lines);
    assert!(table.contains("  1.00") && table.contains("It rains."), "{table}");
    assert!(fail(&["similarity", model, "a", "--top", "3"], "").contains("--query"));
}

#[test]
fn masks_are_filled() {
    let Some(folder) = tiny("masks_are_filled", "bert-mlm") else { return };
    let model = path(folder.path());
    let found = json(&["fill-mask", model, "w7 <mask> w9 [MASK]", "--top", "3"], "");
    let masks = found[0]["masks"].as_array().unwrap();
    assert_eq!(masks.len(), 2);
    for tokens in masks {
        let p: Vec<f64> =
            tokens.as_array().unwrap().iter().map(|t| t["probability"].as_f64().unwrap()).collect();
        assert_eq!(p.len(), 3);
        assert!(p.is_sorted_by(|a, b| a >= b) && p.iter().sum::<f64>() <= 1.00001, "{p:?}");
    }
    let plain = succeed(&["fill-mask", model, "w7 [MASK] w9", "--top", "3"], "");
    assert_eq!(plain.lines().count(), 3);
    assert!(fail(&["fill-mask", model, "w7 w9"], "").contains("expected [MASK]"));
    let error = fail(&["classify", model, "w7"], "");
    assert!(
        error.contains("a classifier of texts") && error.contains("BertForMaskedLM"),
        "{error}"
    );
}

#[test]
fn texts_are_classified() {
    let Some(folder) = tiny("texts_are_classified", "distilbert-classifier") else { return };
    let model = path(folder.path());
    let found = json(&["classify", model], "w7 w8\nw9\n");
    assert_eq!(found.as_array().unwrap().len(), 2);
    for row in found.as_array().unwrap() {
        let scores: Vec<f64> = row["labels"]
            .as_array()
            .unwrap()
            .iter()
            .map(|l| l["score"].as_f64().unwrap())
            .collect();
        assert_eq!(scores.len(), 3);
        assert!((scores.iter().sum::<f64>() - 1.).abs() < 1e-5, "{scores:?}");
    }
    let plain = succeed(&["classify", model, "w7 w8"], "");
    assert!(plain.lines().count() == 3 && plain.contains("LABEL_2"), "{plain}");
}

#[test]
fn attention_is_shown_and_written() {
    let Some(folder) = tiny("attention_is_shown", "bert-mlm") else { return };
    let model = path(folder.path());
    let drawn = succeed(&["inspect", model, "--text", "w7 w8 w9"], "");
    for part in ["layer 1 (mean of 4 heads)", "layer 2 (mean of 4 heads)", "w8"] {
        assert!(drawn.contains(part), "{drawn}");
    }
    let file = folder.path().join("page/heads.html");
    succeed(&["inspect", model, "--text", "w7 <b> w9", "--html", path(&file)], "");
    let page = std::fs::read_to_string(&file).unwrap();
    assert!(page.contains("All heads") && page.contains("</html>") && !page.contains("http"));
    assert!(page.contains("&lt;b&gt;") && !page.contains("<b> w9"));
    assert!(fail(&["inspect", model, "--text", " "], "").contains("--text"));
    assert!(fail(&["inspect", model], "").contains("--html"));
    let vit = shared("attention_is_shown", "fixtures/hf/vit-classifier").unwrap();
    let error = fail(&["inspect", path(&vit), "--text", "a"], "");
    assert!(error.contains("expected an encoder") && error.contains("ViTFor"), "{error}");
    assert!(error.contains("or ") && error.contains("MarianMTModel"), "{error}");
}

#[test]
fn what_is_missing_is_named() {
    for verb in ["embed", "similarity", "fill-mask", "classify"] {
        let error = fail(&[verb, "no/such/folder/here", "a"], "");
        assert!(error.contains("no/such/folder/here"), "{verb}: {error}");
        let error = fail(&[verb, "no/such/folder/here"], "\n \n");
        assert!(error.contains("standard input: expected at least one text"), "{verb}: {error}");
        let error = fail(&[verb, "x", "a", "--file", "b"], "");
        assert!(error.contains("cannot be used with"), "{verb}: {error}");
        assert!(fail(&[verb, "x", "--file", "no-file.txt"], "").contains("no-file.txt"));
        assert!(fail(&[verb, "x", "a", "--batch", "0"], "").contains("--batch"));
        assert!(succeed(&[verb, "--help"], "").contains("Examples:"));
    }
    let empty = tempfile::tempdir().unwrap();
    let error = fail(&["embed", path(empty.path()), "a"], "");
    assert!(error.contains("config.json"), "{error}");
}
