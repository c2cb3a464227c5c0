//! Runs that are killed or asked to stop from outside, in processes of their own.

#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use std::fmt::Write as _;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use common::{Toy, full_config, metrics};
use mnemic_layers::Philox;
use mnemic_train::{Checkpoints, Interrupt, Reason, Trainer};

const DIR: &str = "MNEMIC_TRAIN_TEST_DIR";
const PAUSE: &str = "MNEMIC_TRAIN_TEST_PAUSE_US";
const EPOCHS: usize = 12;

/// Not a test of its own: what the other tests run in a child process.
#[test]
fn child() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let dir = Path::new(&dir);
    let mut toy = Toy::new(1);
    toy.pause = Duration::from_micros(std::env::var(PAUSE).unwrap().parse().unwrap());
    toy.new_phase_after = Some(3);
    let interrupt = Interrupt::on_signals().unwrap();
    let mut config = full_config(EPOCHS);
    // Not at every step, so that a kill loses some.
    config.checkpoint_every_steps = Some(3);
    let trainer = Trainer::new(config).unwrap().with_interrupt(interrupt);
    let report = trainer.fit(&mut toy, dir, &mut ()).unwrap();
    let mut text = format!("{:?}\n", report.stopped);
    for (name, bits) in toy.weights() {
        writeln!(text, "{name} {bits:x?}").unwrap();
    }
    for record in report.history {
        writeln!(text, "{:?} {:?}", record.validation, record.train_loss.to_bits()).unwrap();
    }
    std::fs::write(dir.join("result"), text).unwrap();
}

fn spawn(dir: &Path, pause_us: u64) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture"])
        .env(DIR, dir)
        .env(PAUSE, pause_us.to_string())
        .stdout(Stdio::null())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap()
}

fn wait(mut child: Child) -> ExitStatus {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if start.elapsed() > Duration::from_secs(120) {
            child.kill().unwrap();
            panic!("the child does not end");
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Waits until the child has saved a checkpoint (a new one, if there was one before) or is done.
fn wait_for_progress(child: &mut Child, dir: &Path, before: &str) {
    let start = Instant::now();
    while last(dir) == before && child.try_wait().unwrap().is_none() {
        assert!(start.elapsed() < Duration::from_secs(120), "the child makes no progress");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn last(dir: &Path) -> String {
    std::fs::read_to_string(dir.join("checkpoint/last")).unwrap_or_default()
}

fn result(dir: &Path) -> String {
    std::fs::read_to_string(dir.join("result")).expect("the child wrote its result")
}

/// An uninterrupted run.
fn straight() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    assert!(wait(spawn(dir.path(), 0)).success());
    assert!(result(dir.path()).starts_with("Epochs\n"));
    dir
}

#[test]
fn killed_at_random_moments_ends_with_the_same_bits() {
    let whole = straight();
    for seed in [1, 2] {
        let rng = Philox::new(seed, 0);
        let dir = tempfile::tempdir().unwrap();
        let mut kills = 0;
        for attempt in 0..200 {
            let before = last(dir.path());
            let mut child = spawn(dir.path(), 700);
            if attempt < 12 {
                // Some kills come before anything is saved, most at any moment after.
                if attempt % 4 != 0 {
                    wait_for_progress(&mut child, dir.path(), &before);
                }
                std::thread::sleep(Duration::from_micros(rng.below(attempt, 12_000)));
                child.kill().unwrap();
            }
            let status = wait(child);
            if status.success() {
                break;
            }
            assert_eq!(status.signal(), Some(9), "the child failed by itself: {status}");
            kills += 1;
        }
        assert!(kills >= 4, "only {kills} kills hit");
        assert_eq!(result(dir.path()), result(whole.path()));
        assert_eq!(metrics(dir.path()), metrics(whole.path()));
    }
}

#[test]
fn signals_save_and_stop() {
    let whole = straight();
    let dir = tempfile::tempdir().unwrap();
    for signal in ["-TERM", "-INT"] {
        let before = last(dir.path());
        let mut child = spawn(dir.path(), 2000);
        wait_for_progress(&mut child, dir.path(), &before);
        send(signal, &child);
        let status = wait(child);
        assert!(status.success(), "{signal}: {status}");
        assert!(result(dir.path()).starts_with(&format!("{:?}\n", Reason::Interrupted)));
        assert!(Checkpoints::of_run(dir.path()).last().unwrap().is_some());
    }
    assert!(wait(spawn(dir.path(), 0)).success());
    assert_eq!(result(dir.path()), result(whole.path()));
    assert_eq!(metrics(dir.path()), metrics(whole.path()));
}

#[test]
fn a_second_signal_ends_at_once() {
    // A first signal that comes before the slow batch has begun saves and ends the run cleanly: try again then.
    let hit = (0..5).any(|_| {
        let code = signal_twice(tempfile::tempdir().unwrap().path()).code();
        assert!(matches!(code, Some(0 | 130)), "{code:?}");
        code == Some(130)
    });
    assert!(hit, "no second signal ended a run at once");
}

/// Starts a child with slow batches, sends two signals, and gives its status.
fn signal_twice(dir: &Path) -> ExitStatus {
    let child = spawn(dir, 30_000_000);
    // `metrics.jsonl` is opened by the session, after the signals were registered.
    let start = Instant::now();
    while !dir.join("metrics.jsonl").exists() {
        assert!(start.elapsed() < Duration::from_secs(60), "the child does not start");
        std::thread::sleep(Duration::from_millis(1));
    }
    std::thread::sleep(Duration::from_millis(100));
    send("-INT", &child);
    std::thread::sleep(Duration::from_millis(100));
    send("-INT", &child);
    let start = Instant::now();
    let status = wait(child);
    assert!(start.elapsed() < Duration::from_secs(20), "waited for the batch");
    status
}

/// By the shell, whose `kill` is built in.
fn send(signal: &str, child: &Child) {
    let command = format!("kill {signal} {}", child.id());
    assert!(Command::new("sh").args(["-c", &command]).status().unwrap().success());
}
