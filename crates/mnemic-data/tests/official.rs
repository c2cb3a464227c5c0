//! The official release against what is known of it. Needs the archives of the release in the
//! folder `data/babi` of the directory that the environment variable `MNEMIC_DATA` names.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests may fail them")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

use mnemic_data::babi::{
    BabiSource, Edition, Example, Line, Split, Stats, Story, Task, examples, load_examples,
};
use mnemic_data::{Encoded, Error, Sampling, Vocabulary, batches};

fn folder(test: &str) -> Option<PathBuf> {
    let root = std::env::var_os("MNEMIC_DATA");
    if root.is_none() {
        eprintln!("skipped: {test}: MNEMIC_DATA is not set");
    }
    Some(PathBuf::from(root?).join("data").join("babi"))
}

fn open(test: &str) -> Option<BabiSource> {
    Some(BabiSource::open(folder(test)?).unwrap())
}

fn task(number: u8) -> Task {
    Task::new(number).unwrap()
}

fn all() -> Vec<Task> {
    Task::all().collect()
}

fn all_but_3() -> Vec<Task> {
    Task::all().filter(|t| t.number() != 3).collect()
}

fn questions(stories: &[Story]) -> usize {
    stories.iter().map(Story::num_questions).sum()
}

#[test]
fn every_file_has_the_published_number_of_questions() {
    let Some(source) = open("every_file_has_the_published_number_of_questions") else { return };
    assert_eq!(source.editions(), Edition::ALL);
    let count = |edition, tasks: &[Task], split| -> BTreeSet<usize> {
        let stories = source.stories_of(edition, tasks, split).unwrap();
        stories.iter().map(|s| questions(s)).collect()
    };
    assert_eq!(count(Edition::En, &all(), Split::TrainAll), [1000].into());
    assert_eq!(count(Edition::En, &all(), Split::Test), [1000].into());
    assert_eq!(count(Edition::En, &all(), Split::Train), [900].into());
    assert_eq!(count(Edition::En, &all(), Split::Valid), [100].into());
    assert_eq!(count(Edition::En10k, &all_but_3(), Split::TrainAll), [10_000].into());
    assert_eq!(count(Edition::En10k, &all_but_3(), Split::Valid), [1_000].into());
    let test = source.stories_of(Edition::En10k, &all(), Split::Test).unwrap();
    assert!(test == source.stories_of(Edition::En, &all(), Split::Test).unwrap());
}

#[test]
fn editions_with_validation_files_split_whole_stories() {
    let Some(source) = open("editions_with_validation_files_split_whole_stories") else { return };
    let uneven: [(Edition, BTreeMap<u8, usize>); 2] = [
        (Edition::EnValid, [(17, 904), (18, 905), (20, 904)].into()),
        (Edition::EnValid10k, [(18, 8996), (20, 9002)].into()),
    ];
    for (edition, uneven) in uneven {
        let (whole, tasks) = match edition {
            Edition::EnValid => (Edition::En, all()),
            _ => (Edition::En10k, all_but_3()),
        };
        let train = source.stories_of(edition, &tasks, Split::Train).unwrap();
        let valid = source.stories_of(edition, &tasks, Split::Valid).unwrap();
        let both = source.stories_of(edition, &tasks, Split::TrainAll).unwrap();
        let original = source.stories_of(whole, &tasks, Split::TrainAll).unwrap();
        for (i, task) in tasks.iter().enumerate() {
            let total = questions(&original[i]);
            let expected = uneven.get(&task.number()).copied().unwrap_or(total / 10 * 9);
            assert_eq!(questions(&train[i]), expected, "{edition} {task}");
            assert_eq!(questions(&valid[i]), total - expected, "{edition} {task}");
            assert!(both[i] == [train[i].as_slice(), &valid[i]].concat(), "{edition} {task}");
            let sorted = |stories: &[Story]| {
                let mut texts: Vec<String> = stories.iter().map(Story::to_string).collect();
                texts.sort_unstable();
                texts
            };
            assert!(sorted(&both[i]) == sorted(&original[i]), "{edition} {task}");
        }
    }
}

#[test]
fn en_is_the_beginning_of_en_10k() {
    let Some(source) = open("en_is_the_beginning_of_en_10k") else { return };
    let tasks = all_but_3();
    let small = source.stories_of(Edition::En, &tasks, Split::TrainAll).unwrap();
    let large = source.stories_of(Edition::En10k, &tasks, Split::TrainAll).unwrap();
    for ((task, small), large) in tasks.iter().zip(&small).zip(&large) {
        // The last story of `en` may stop early.
        let (last, whole) = small.split_last().unwrap();
        assert!(large.starts_with(whole), "{task}");
        assert!(large[whole.len()].lines.starts_with(&last.lines), "{task}");
    }
}

#[test]
fn the_missing_training_file_of_task_3_is_named() {
    let Some(source) = open("the_missing_training_file_of_task_3_is_named") else { return };
    assert!(!source.has(Edition::En10k, task(3), Split::Train));
    assert!(source.has(Edition::En10k, task(3), Split::Test));
    for (edition, expected) in [
        (Edition::En10k, "en-10k/qa3_three-supporting-facts_train.txt"),
        (Edition::EnValid10k, "en-valid-10k/qa3_train.txt"),
    ] {
        match load_examples(&source, edition, &all(), Split::Train) {
            Err(Error::MissingFile { file, editions, .. }) => {
                assert_eq!(file, expected);
                assert_eq!(editions, Edition::ALL);
            }
            other => panic!("expected a missing file, got {:?}", other.map(|e| e.len())),
        }
    }
}

/// The raw files of one edition, read without the code under test.
fn raw_files(folder: &PathBuf, edition: &str) -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    for archive in std::fs::read_dir(folder).unwrap() {
        let path = archive.unwrap().path();
        if !path.to_string_lossy().ends_with(".tar.gz") {
            continue;
        }
        let gz = flate2::read::GzDecoder::new(File::open(&path).unwrap());
        for entry in tar::Archive::new(gz).entries().unwrap() {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().into_owned();
            if path.parent().is_some_and(|p| p.ends_with(edition)) {
                let mut text = String::new();
                entry.read_to_string(&mut text).unwrap();
                files.insert(path.file_name().unwrap().to_string_lossy().into_owned(), text);
            }
        }
    }
    files
}

#[test]
fn stories_write_back_their_files_but_for_stray_blanks() {
    let test = "stories_write_back_their_files_but_for_stray_blanks";
    let (Some(folder), Some(source)) = (folder(test), open(test)) else { return };
    let files = raw_files(&folder, "en");
    let mut strays = 0;
    for task in Task::all() {
        for (split, name) in [(Split::TrainAll, "train"), (Split::Test, "test")] {
            let raw = &files[&format!("{task}_{}_{name}.txt", task.slug())];
            let stories = source.stories(Edition::En, task, split).unwrap();
            let written: String = stories.iter().map(Story::to_string).collect();
            assert!(written == raw.replace("? \t", "?\t"), "{task} {name}");
            if split == Split::TrainAll {
                strays += raw.matches("? \t").count();
            }
            for line in stories.iter().flat_map(|s| &s.lines) {
                if let Line::Question { text, .. } = line {
                    assert!(text.ends_with('?') && !text.ends_with(" ?"), "{text:?}");
                }
            }
        }
    }
    assert_eq!(strays, 13_000);
}

#[test]
fn validation_by_question_keeps_every_example() {
    let Some(source) = open("validation_by_question_keeps_every_example") else { return };
    for task in Task::all() {
        let made = |split| examples(task, &source.stories(Edition::En, task, split).unwrap());
        let (train, valid) = (made(Split::Train), made(Split::Valid));
        let whole = made(Split::TrainAll);
        assert_eq!((train.len(), valid.len(), whole.len()), (900, 100, 1000), "{task}");
        let strip = |e: &Example| Example { story: 0, ..e.clone() };
        assert!(whole.iter().map(strip).eq(train.iter().chain(&valid).map(strip)), "{task}");
    }
}

#[test]
fn distinct_answers_of_the_training_files() {
    let Some(source) = open("distinct_answers_of_the_training_files") else { return };
    let counts: Vec<usize> = Task::all()
        .map(|task| {
            let stories = source.stories(Edition::En, task, Split::TrainAll).unwrap();
            Stats::new(&stories).answers.len()
        })
        .collect();
    assert_eq!(counts, [6, 6, 6, 6, 7, 2, 4, 13, 2, 3, 6, 6, 6, 6, 4, 4, 2, 2, 12, 7]);
}

/// Task; stories of both splits; questions per story; context mean, 95 %, max; S; Q; V; answers
/// that are no words; A; supports. English 1k release, training and test pooled.
type Row = (u8, usize, (usize, usize), (f64, usize, usize), [usize; 5], (usize, usize));

#[rustfmt::skip]
const TABLE: [Row; 20] = [
    (1, 400, (5, 5), (6.0, 10, 10), [6, 3, 19, 0, 6], (1, 1)),
    (2, 400, (5, 5), (15.4, 28, 88), [6, 4, 33, 0, 6], (2, 2)),
    (3, 400, (5, 5), (50.5, 116, 228), [6, 7, 34, 0, 6], (3, 3)),
    (4, 2000, (1, 1), (2.0, 2, 2), [7, 6, 14, 0, 6], (1, 1)),
    (5, 400, (5, 5), (19.4, 46, 102), [6, 7, 39, 0, 7], (1, 1)),
    (6, 400, (5, 5), (6.3, 10, 26), [6, 5, 33, 2, 2], (1, 1)),
    (7, 400, (5, 5), (8.5, 18, 34), [6, 6, 39, 4, 4], (1, 8)),
    (8, 400, (5, 5), (8.8, 18, 58), [6, 4, 34, 11, 14], (1, 8)),
    (9, 400, (5, 5), (6.0, 10, 10), [7, 5, 22, 1, 2], (1, 1)),
    (10, 400, (5, 5), (6.0, 10, 10), [9, 5, 21, 3, 3], (1, 1)),
    (11, 400, (5, 5), (6.0, 10, 10), [8, 3, 26, 0, 6], (2, 2)),
    (12, 400, (5, 5), (6.0, 10, 10), [8, 3, 20, 0, 6], (1, 1)),
    (13, 400, (5, 5), (6.0, 10, 10), [8, 3, 26, 0, 6], (2, 2)),
    (14, 400, (5, 5), (7.8, 12, 14), [8, 6, 25, 0, 6], (2, 2)),
    (15, 500, (4, 4), (8.0, 8, 8), [5, 5, 17, 0, 4], (2, 2)),
    (16, 2000, (1, 1), (9.0, 9, 9), [4, 4, 17, 0, 4], (3, 3)),
    (17, 250, (8, 8), (2.0, 2, 2), [11, 11, 16, 2, 2], (2, 2)),
    (18, 397, (1, 9), (6.2, 10, 15), [9, 9, 16, 2, 2], (2, 2)),
    (19, 2000, (1, 1), (5.0, 5, 5), [7, 10, 19, 12, 12], (2, 2)),
    // Ten to twelve questions, but the last story of each file is cut short.
    (20, 187, (7, 12), (5.9, 11, 12), [6, 7, 35, 0, 7], (1, 1)),
];

#[test]
fn statistics_of_the_1k_release() {
    let Some(source) = open("statistics_of_the_1k_release") else { return };
    let train = source.stories_of(Edition::En, &all(), Split::TrainAll).unwrap();
    let test = source.stories_of(Edition::En, &all(), Split::Test).unwrap();
    let stats: Vec<Stats> =
        train.iter().zip(&test).map(|(a, b)| Stats::new(a.iter().chain(b))).collect();
    for (stats, row) in stats.iter().zip(TABLE) {
        let (number, stories, per_story, (mean, p95, max), sizes, supports) = row;
        assert_eq!((stats.questions, stats.stories), (2000, stories), "task {number}");
        let got = (stats.story_questions_min, stats.story_questions_max);
        assert_eq!(got, per_story, "task {number}");
        // Printed with one decimal.
        assert!((stats.context_mean - mean).abs() < 0.05 + 1e-9, "task {number}");
        assert_eq!((stats.context_p95, stats.context_max), (p95, max), "task {number}");
        let classes = stats.answers.len();
        let got = [stats.sentence_max, stats.question_max, stats.words, stats.answer_only, classes];
        assert_eq!(got, sizes, "task {number}");
        assert_eq!((stats.supports_min, stats.supports_max), supports, "task {number}");
    }
    let shares: [(usize, &[(&str, f64)]); 7] = [
        (6, &[("yes", 50.3)]),
        (7, &[("none", 46.8), ("one", 48.8), ("two", 4.3), ("three", 0.2)]),
        (8, &[("nothing", 34.0)]),
        (9, &[("no", 63.6)]),
        (10, &[("no", 45.2), ("yes", 41.3), ("maybe", 13.6)]),
        (17, &[("yes", 51.3)]),
        (18, &[("no", 51.3)]),
    ];
    for (number, answers) in shares {
        for &(answer, percent) in answers {
            let share = 100.0 * stats[number - 1].answer_share(answer);
            assert!((share - percent).abs() < 0.05 + 1e-9, "task {number} {answer}: {share}");
        }
    }
    let joint = Stats::new(train.iter().chain(&test).flatten());
    assert_eq!((joint.words, joint.answers.len()), (145, 58));
    assert_eq!(joint.words + joint.answer_only, 174);
    assert_eq!(joint.questions, 40_000);
}

#[test]
fn the_joint_data_set_goes_into_batches() {
    let Some(source) = open("the_joint_data_set_goes_into_batches") else { return };
    let train = load_examples(&source, Edition::En, &all(), Split::Train).unwrap();
    let test = load_examples(&source, Edition::En, &all(), Split::Test).unwrap();
    assert_eq!((train.len(), test.len()), (18_000, 20_000));
    assert!(train.iter().all(|e| e.supports.iter().all(|&s| s < e.statements.len())));
    // Task 8 asks in the test file for an answer that the training file lacks.
    let task_8 = |e: &&Example| e.task == Some(task(8));
    let narrow = Vocabulary::from_examples(train.iter().filter(task_8)).unwrap();
    let test_8: Vec<Example> = test.iter().filter(task_8).cloned().collect();
    assert!(matches!(Encoded::new(&test_8, &narrow, None), Err(Error::UnknownAnswer { .. })));

    let vocabulary = Vocabulary::from_examples(train.iter().chain(&test)).unwrap();
    assert_eq!((vocabulary.len(), vocabulary.answer_ids().len()), (175, 58));
    let data = Encoded::new(&train, &vocabulary, Some(50)).unwrap();
    let lengths = data.story_lengths();
    assert_eq!(lengths.iter().max(), Some(&50));
    let sampling = Sampling::Bucketed { window: 50 };
    let (mut real, mut padded, mut plain) = (0, 0, 0);
    for indices in batches(&lengths, 32, sampling, 1, 0).unwrap() {
        let batch = data.batch_padded(&indices, data.pad_to()).unwrap();
        assert_eq!((batch.sentence_len, batch.question_len), (11, 11));
        real += batch.story_lengths.iter().sum::<usize>();
        padded += batch.batch_size * batch.num_sentences;
        for (row, &index) in batch.indices.iter().enumerate() {
            check_row(&batch, row, &train[index], &vocabulary);
        }
    }
    for indices in batches(&lengths, 32, Sampling::Shuffled, 1, 0).unwrap() {
        plain += indices.len() * indices.iter().map(|&i| lengths[i]).max().unwrap();
    }
    // Buckets leave little padding: shuffled batches hold some four times the sentences they need.
    assert!(padded < real * 11 / 10, "{padded} for {real}");
    assert!(plain > real * 3, "{plain} for {real}");
}

/// Decodes a row of a batch and compares it with its example.
fn check_row(batch: &mnemic_data::Batch, row: usize, example: &Example, vocab: &Vocabulary) {
    let mut example = example.clone();
    example.truncate_context(50);
    let decode = |ids: &[u32]| -> Vec<String> {
        ids.iter().map(|&id| vocab.word(id).unwrap().to_string()).collect()
    };
    let (n, j) = (batch.num_sentences, batch.sentence_len);
    for i in 0..n {
        let length = batch.sentence_lengths[row * n + i];
        let sentence = &batch.story[(row * n + i) * j..][..j];
        let expected = example.statements.get(i).map_or(&[][..], |s| s);
        assert_eq!(decode(&sentence[..length]), expected);
        assert!(sentence[length..].iter().all(|&id| id == 0));
    }
    let question = &batch.question[row * batch.question_len..][..batch.question_lengths[row]];
    assert_eq!(decode(question), example.question);
    assert_eq!(vocab.word(batch.answers[row]), Some(example.answer.as_str()));
    assert_eq!(batch.supports[row], example.supports);
    assert_eq!(Some(batch.tasks[row]), example.task.map(Task::number));
}
