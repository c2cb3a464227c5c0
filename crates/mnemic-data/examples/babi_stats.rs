//! Prints the statistics of all twenty tasks of the release, training and test questions pooled.
//!
//! ```text
//! cargo run -p mnemic-data --example babi_stats -- PATH [EDITION]
//! ```
//!
//! `PATH` is `tasks_1-20_v1-2`, a folder with it or with `.tar.gz` archives, or an archive;
//! `EDITION` is `en` unless given. Tasks whose files are missing are listed at the end.

use mnemic_data::Result;
use mnemic_data::babi::{BabiSource, Edition, Split, Stats, StatsTable, Task};

fn main() -> std::process::ExitCode {
    let mut args = std::env::args().skip(1);
    let Some(path) = args.next() else {
        eprintln!("usage: babi_stats PATH [EDITION]");
        return std::process::ExitCode::FAILURE;
    };
    match print_stats(&path, &args.next().unwrap_or_else(|| "en".into())) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            let mut cause = std::error::Error::source(&error);
            while let Some(error) = cause {
                eprintln!("  because: {error}");
                cause = error.source();
            }
            std::process::ExitCode::FAILURE
        }
    }
}

fn print_stats(path: &str, edition: &str) -> Result<()> {
    let edition: Edition = edition.parse()?;
    let source = BabiSource::open(path)?;
    let splits = [Split::TrainAll, Split::Test];
    let (present, missing): (Vec<Task>, Vec<Task>) =
        Task::all().partition(|&task| splits.iter().all(|&s| source.has(edition, task, s)));
    if present.is_empty() {
        // Says which file was expected.
        source.stories(edition, Task::new(1)?, Split::TrainAll)?;
    }
    let mut table = StatsTable::default();
    let train = source.stories_of(edition, &present, splits[0])?;
    let test = source.stories_of(edition, &present, splits[1])?;
    for (i, task) in present.iter().enumerate() {
        let stats = Stats::new(train[i].iter().chain(&test[i]));
        table.rows.push((format!("{} {}", task.number(), task.title()), stats));
    }
    let all = train.iter().chain(&test).flatten();
    table.rows.push(("all".into(), Stats::new(all)));
    println!("{table}");
    for task in missing {
        println!("missing in {edition}: {task} {}", task.title());
    }
    Ok(())
}
