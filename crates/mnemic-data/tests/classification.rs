//! The official files of the classification and tagging sets, where they are.

use std::path::PathBuf;

use mnemic_data::{Part, sst, trec, wnut17};

/// The folder `below` data, unless `MNEMIC_DATA` is unset; then the test says that it is skipped.
fn folder(test: &str, below: &str) -> Option<PathBuf> {
    match std::env::var_os("MNEMIC_DATA") {
        Some(root) => Some(PathBuf::from(root).join("data").join(below)),
        None => {
            println!("skipped: {test}: MNEMIC_DATA is not set");
            None
        }
    }
}

const PARTS: [Part; 3] = [Part::Train, Part::Dev, Part::Test];

#[test]
fn trec_has_its_published_counts() {
    let Some(folder) = folder("trec_has_its_published_counts", "text-classification/trec") else {
        return;
    };
    let parts = PARTS.map(|part| trec::read(&folder, part).unwrap());
    assert_eq!(parts.each_ref().map(Vec::len), [4907, 545, 500]);
    let mut counts = [0; 6];
    parts[..2].iter().flatten().for_each(|question| counts[question.label] += 1);
    assert_eq!(counts, [86, 1162, 1250, 1223, 835, 896]); // Li & Roth, table 2
}

#[test]
fn sst_has_its_published_counts() {
    let Some(folder) = folder("sst_has_its_published_counts", "text-classification/sst") else {
        return;
    };
    let count = |fine| PARTS.map(|part| sst::read(&folder, fine, part).unwrap().len());
    assert_eq!(count(false), [6920, 872, 1821]);
    assert_eq!(count(true), [8544, 1101, 2210]);
}

#[test]
fn wnut17_has_its_published_counts() {
    let Some(folder) = folder("wnut17_has_its_published_counts", "ner/wnut17") else { return };
    let parts = PARTS.map(|part| wnut17::read(&folder, part).unwrap());
    assert_eq!(parts.each_ref().map(Vec::len), [3394, 1009, 1287]);
    let tokens = parts.each_ref().map(|part| part.iter().map(|s| s.words.len()).sum::<usize>());
    assert_eq!(tokens, [62730, 15733, 23394]);
}
