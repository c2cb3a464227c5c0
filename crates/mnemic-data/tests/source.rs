//! Where a release may lie, and what is said when it is not right.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests may fail them")]

use std::fs;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use mnemic_data::babi::{BabiSource, Edition, Split, Task, load_examples};
use mnemic_data::{Error, LineError};

const RELEASE: [(&str, &str); 7] = [
    ("en/qa1_single-supporting-fact_train.txt", TEN),
    ("en/qa1_single-supporting-fact_test.txt", "1 A came.\n2 Who came?\ttest\t1\n"),
    ("en-10k/qa1_single-supporting-fact_train.txt", "1 A came.\n2 Who came?\tlarge\t1\n"),
    ("en-valid/qa1_train.txt", "1 A came.\n2 Who came?\tvt\t1\n"),
    ("en-valid/qa1_valid.txt", "1 A came.\n2 Who came?\tvv\t1\n"),
    ("en-valid/qa1_test.txt", "1 A came.\n2 Who came?\tvs\t1\n"),
    ("README.txt", "1 This is no data."),
];

/// Ten questions in two stories: nine of them train, one validates.
const TEN: &str = "1 A came.\n2 Who came?\ta0\t1\n3 Who came?\ta1\t1\n4 Who came?\ta2\t1\n\
                   5 Who came?\ta3\t1\n6 Who came?\ta4\t1\n1 A came.\n2 Who came?\ta5\t1\n\
                   3 Who came?\ta6\t1\n4 Who came?\ta7\t1\n5 Who came?\ta8\t1\n6 B came.\n\
                   7 Who came?\ta9\t6\n";

fn unpack(folder: &Path, files: &[(&str, &str)]) {
    for (name, text) in files {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

fn pack(archive: &Path, prefix: &str, files: &[(&str, &str)]) {
    let gz = GzEncoder::new(fs::File::create(archive).unwrap(), Compression::fast());
    let mut tar = tar::Builder::new(gz);
    for (name, text) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, format!("{prefix}{name}"), text.as_bytes()).unwrap();
    }
    tar.into_inner().unwrap().finish().unwrap();
}

fn task(number: u8) -> Task {
    Task::new(number).unwrap()
}

/// The answers of task 1 in a split, joined.
fn answers(source: &BabiSource, edition: Edition, split: Split) -> String {
    let examples = load_examples(source, edition, &[task(1)], split).unwrap();
    examples.iter().map(|e| e.answer.as_str()).collect::<Vec<_>>().join(" ")
}

fn check_release(source: &BabiSource) {
    assert_eq!(source.editions(), [Edition::En, Edition::En10k, Edition::EnValid]);
    let en = |split| answers(source, Edition::En, split);
    assert_eq!(en(Split::Train), "a0 a1 a2 a3 a4 a5 a6 a7 a8");
    assert_eq!(en(Split::Valid), "a9");
    assert_eq!(en(Split::TrainAll), "a0 a1 a2 a3 a4 a5 a6 a7 a8 a9");
    assert_eq!(en(Split::Test), "test");
    assert_eq!(answers(source, Edition::En10k, Split::TrainAll), "large");
    let valid = |split| answers(source, Edition::EnValid, split);
    assert_eq!(valid(Split::Train), "vt");
    assert_eq!(valid(Split::Valid), "vv");
    assert_eq!(valid(Split::TrainAll), "vt vv");
    assert_eq!(valid(Split::Test), "vs");
    assert!(source.has(Edition::EnValid, task(1), Split::TrainAll));
    assert!(!source.has(Edition::En10k, task(1), Split::Test));
    assert!(!source.has(Edition::En, task(2), Split::Train));
}

#[test]
fn a_release_is_found_wherever_it_lies() {
    let dir = tempfile::tempdir().unwrap();
    let release = dir.path().join("tasks_1-20_v1-2");
    unpack(&release, &RELEASE);
    check_release(&BabiSource::open(&release).unwrap());
    check_release(&BabiSource::open(dir.path()).unwrap());

    let packed = tempfile::tempdir().unwrap();
    for (i, prefix) in ["", "tasks_1-20_v1-2/", "./some/where/tasks/"].iter().enumerate() {
        let archive = packed.path().join(format!("r{i}.tar.gz"));
        pack(&archive, prefix, &RELEASE);
        check_release(&BabiSource::open(&archive).unwrap());
    }
    // All archives of a folder together, and nothing is unpacked beside them.
    let parts = tempfile::tempdir().unwrap();
    pack(&parts.path().join("a.tar.gz"), "x/", &RELEASE[..3]);
    pack(&parts.path().join("b.tgz"), "y/", &RELEASE[3..]);
    check_release(&BabiSource::open(parts.path()).unwrap());
    assert_eq!(fs::read_dir(parts.path()).unwrap().count(), 2);
}

#[test]
fn a_single_edition_folder_goes_by_its_name_or_its_file_names() {
    let dir = tempfile::tempdir().unwrap();
    unpack(dir.path(), &RELEASE);
    let source = BabiSource::open(dir.path().join("en-10k")).unwrap();
    assert_eq!(source.editions(), [Edition::En10k]);
    assert_eq!(answers(&source, Edition::En10k, Split::TrainAll), "large");
    assert!(matches!(
        source.stories(Edition::En, task(1), Split::Train),
        Err(Error::MissingFile { editions, .. }) if editions == [Edition::En10k]
    ));

    fs::rename(dir.path().join("en-10k"), dir.path().join("mine")).unwrap();
    fs::rename(dir.path().join("en-valid"), dir.path().join("split")).unwrap();
    let source = BabiSource::open(dir.path().join("mine")).unwrap();
    assert_eq!(answers(&source, Edition::En, Split::TrainAll), "large");
    let source = BabiSource::open(dir.path().join("split")).unwrap();
    assert_eq!(answers(&source, Edition::EnValid, Split::Valid), "vv");
}

#[test]
fn unpacked_files_go_before_archives() {
    let dir = tempfile::tempdir().unwrap();
    pack(&dir.path().join("all.tar.gz"), "tasks/", &RELEASE);
    unpack(dir.path(), &[("en/qa1_single-supporting-fact_test.txt", "1 A b.\n2 Who?\town\t1\n")]);
    let source = BabiSource::open(dir.path()).unwrap();
    assert_eq!(answers(&source, Edition::En, Split::Test), "own");
    assert_eq!(answers(&source, Edition::En, Split::Valid), "a9");
}

#[test]
fn several_tasks_come_one_after_the_other() {
    let dir = tempfile::tempdir().unwrap();
    let two = "1 A b.\n2 Who?\tsecond\t1\n";
    let files = [RELEASE[1], ("en/qa2_two-supporting-facts_test.txt", two)];
    unpack(dir.path(), &files);
    pack(&dir.path().join("packed.tar.gz"), "", &files);
    for source in [dir.path().to_path_buf(), dir.path().join("packed.tar.gz")] {
        let source = BabiSource::open(source).unwrap();
        let tasks = [task(2), task(1), task(2)];
        let examples = load_examples(&source, Edition::En, &tasks, Split::Test).unwrap();
        let got: Vec<_> =
            examples.iter().map(|e| (e.task.unwrap().number(), e.answer.as_str())).collect();
        assert_eq!(got, [(2, "second"), (1, "test"), (2, "second")]);
        assert!(load_examples(&source, Edition::En, &[], Split::Test).unwrap().is_empty());
    }
}

#[test]
fn a_missing_file_is_named_with_the_editions_that_are_there() {
    let dir = tempfile::tempdir().unwrap();
    unpack(dir.path(), &RELEASE);
    let source = BabiSource::open(dir.path()).unwrap();
    let error = source.stories(Edition::EnValid10k, task(3), Split::Train).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "`en-valid-10k/qa3_train.txt` is missing in {} (editions there: en, en-10k, en-valid)",
            dir.path().display()
        )
    );
    let error = source.stories(Edition::En, task(3), Split::Test).unwrap_err().to_string();
    assert!(error.starts_with("`en/qa3_three-supporting-facts_test.txt` is missing"), "{error}");
}

#[test]
fn places_without_data_are_errors() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(BabiSource::open(dir.path()), Err(Error::NoData { .. })));
    let missing = dir.path().join("nothing");
    let error = BabiSource::open(&missing).unwrap_err();
    assert!(matches!(&error, Error::Io { path, .. } if *path == missing), "{error}");

    let empty = dir.path().join("empty.tar.gz");
    pack(&empty, "", &[("README.txt", "1 Nothing here.")]);
    assert!(matches!(BabiSource::open(&empty), Err(Error::NoData { .. })));

    let broken = dir.path().join("broken.tar.gz");
    fs::write(&broken, "this is no archive").unwrap();
    let error = BabiSource::open(&broken).unwrap_err();
    assert!(matches!(&error, Error::Io { path, .. } if *path == broken), "{error}");

    let whole = dir.path().join("whole.tar.gz");
    let noise: String = (0..5000_u32).map(|i| format!("{}", i.wrapping_mul(2654435761))).collect();
    pack(&whole, "", &[("big.txt", &noise), RELEASE[0]]);
    let bytes = fs::read(&whole).unwrap();
    fs::write(&broken, &bytes[..bytes.len() / 2]).unwrap();
    let error = BabiSource::open(&broken).unwrap_err();
    assert!(matches!(&error, Error::Io { path, .. } if *path == broken), "{error}");
}

#[test]
fn a_bad_line_is_named_with_its_file_in_folders_and_archives() {
    let dir = tempfile::tempdir().unwrap();
    let name = "en/qa1_single-supporting-fact_test.txt";
    let files = [(name, "1 A came.\r\n2 Who came?\t\t1\r\n")];
    unpack(dir.path(), &files);
    let archive = dir.path().join("r.tar.gz");
    pack(&archive, "deep/", &files);
    let expect = |source: &Path, expected: String| {
        let source = BabiSource::open(source).unwrap();
        match source.stories(Edition::En, task(1), Split::Test) {
            Err(Error::Malformed { file, line, reason }) => {
                assert_eq!((file, line, reason), (expected, 2, LineError::EmptyAnswer));
            }
            other => panic!("expected a malformed line, got {other:?}"),
        }
    };
    expect(&dir.path().join("en"), dir.path().join(name).display().to_string());
    expect(&archive, format!("{}:deep/{name}", archive.display()));
}
