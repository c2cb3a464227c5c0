//! Runs side by side, each in a process of its own.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use mnemic_tasks::babi::{ResultRow, RunResult, update_csv};
use mnemic_tasks::engine::Interrupt;
use mnemic_tasks::{Place, Recipe};

/// How long a run may take to save itself once it was asked to stop.
const PATIENCE: Duration = Duration::from_secs(30);

/// A recipe to be carried out.
pub(super) struct Job {
    pub(super) path: PathBuf,
    pub(super) recipe: Recipe,
    pub(super) run: PathBuf,
}

impl Job {
    /// The job in a line.
    pub(super) fn line(&self) -> String {
        format!("{}: {}", self.recipe.name, self.recipe.description)
    }
}

/// What all jobs share.
pub(super) struct Runner {
    pub(super) data: Option<PathBuf>,
    pub(super) device: Place,
    /// Threads of each run.
    pub(super) threads: usize,
    /// The number of jobs.
    pub(super) all: usize,
    /// Jobs that run at a time.
    pub(super) at_once: usize,
    pub(super) interrupt: Interrupt,
}

impl Runner {
    /// Runs all jobs, or those before an interruption. Returns what went wrong with some; the others go on.
    pub(super) fn run(&self, jobs: Vec<Job>) -> Vec<String> {
        let queue = Mutex::new(jobs.into_iter().enumerate().collect::<VecDeque<_>>());
        let failed = Mutex::new(Vec::new());
        // Tables of results are written by one job at a time.
        let tables = Mutex::new(());
        let next = || lock(&queue).pop_front();
        std::thread::scope(|scope| {
            for _ in 0..self.at_once {
                scope.spawn(|| {
                    while let Some((i, job)) = next()
                        && !self.interrupt.is_requested()
                    {
                        if let Err(error) = self.job(i, &job, &tables) {
                            eprintln!("[{}/{}] {}: {error:#}", i + 1, self.all, job.recipe.name);
                            lock(&failed).push(format!("{}: {error:#}", job.recipe.name));
                        }
                    }
                });
            }
        });
        failed.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    fn job(&self, i: usize, job: &Job, tables: &Mutex<()>) -> Result<()> {
        let place = format!("[{}/{}]", i + 1, self.all);
        eprintln!("{place} {}", job.line());
        let child = self.command(job)?.spawn().context("cannot start a run")?;
        if !self.wait(child)? {
            return Ok(());
        }
        let result = result(&job.run)?;
        let rows = ResultRow::of(&job.recipe, &job.path, &result)?;
        let table = job.path.parent().unwrap_or(Path::new(".")).join("results.csv");
        let _one = lock(tables);
        update_csv(&table, &rows)?;
        let paper: Vec<f64> = result.tests.iter().filter_map(|t| t.paper_percent).collect();
        let paper = match paper.len() == result.tests.len() {
            true => format!(" (paper {:.1} %)", paper.iter().sum::<f64>() / paper.len() as f64),
            false => String::new(),
        };
        eprintln!(
            "{place} {}: error {:.1} %{paper}, seed {} of {}, {:.0} s",
            job.recipe.name,
            result.mean_error(),
            result.seed,
            result.epochs.len(),
            result.seconds
        );
        Ok(())
    }

    /// `mnemic train` with this job's share of the cores. One run alone shows its progress.
    fn command(&self, job: &Job) -> Result<Command> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("train").arg(&job.path).arg("--run").arg(&job.run);
        if let [task] = job.recipe.data.tasks.as_slice() {
            command.arg("--task").arg(task.number().to_string());
        }
        if let Some(data) = &self.data {
            command.arg("--data").arg(data);
        }
        command.arg("--device").arg(self.device.to_string());
        command.env("RAYON_NUM_THREADS", self.threads.to_string()).stdout(Stdio::null());
        if self.at_once > 1 {
            command.arg("--quiet").stderr(Stdio::piped());
        }
        Ok(command)
    }

    /// Waits for a run; whether it came to its end. One that is asked to stop may save itself first: Ctrl-C reaches it, too.
    fn wait(&self, mut child: Child) -> Result<bool> {
        let mut stopping = None;
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            if self.interrupt.is_requested() {
                let since = *stopping.get_or_insert_with(Instant::now);
                if since.elapsed() > PATIENCE {
                    child.kill()?;
                }
            }
            std::thread::sleep(Duration::from_millis(100));
        };
        if status.success() {
            return Ok(true);
        }
        if self.interrupt.is_requested() {
            return Ok(false);
        }
        let said = match child.stderr.take() {
            Some(pipe) => std::io::read_to_string(pipe)?,
            None => String::new(),
        };
        let last = said.lines().last().unwrap_or_default();
        bail!("{} ({status})", last.trim_start_matches("error: "))
    }
}

/// What a run came to.
pub(super) fn result(run: &Path) -> Result<RunResult> {
    let path = run.join("result.json");
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    serde_json::from_str(&text).map_err(|e| anyhow!("{}: {e}", path.display()))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
