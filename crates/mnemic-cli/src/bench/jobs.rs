//! Runs side by side, each in a process of its own.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use mnemic_tasks::Place;
use mnemic_tasks::engine::Interrupt;
use serde::de::DeserializeOwned;

/// How long a run may take to save itself once it was asked to stop.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is done with a run's folder.
type Collect = Box<dyn Fn(&Path) -> Result<String> + Send + Sync>;

/// A run to be made.
pub(super) struct Job {
    pub(super) name: String,
    pub(super) description: String,
    /// The arguments of `mnemic train`, without the run's folder and the device.
    pub(super) arguments: Vec<String>,
    pub(super) run: PathBuf,
    /// Adds the results of the run to the tables, and says them in a few words.
    pub(super) collect: Collect,
}

impl Job {
    /// The job in a line.
    pub(super) fn line(&self) -> String {
        format!("{}: {}", self.name, self.description)
    }
}

/// What all jobs share.
pub(super) struct Runner {
    device: Place,
    /// Threads of each run.
    threads: usize,
    /// The number of jobs.
    all: usize,
    /// Jobs that run at a time.
    at_once: usize,
    pub(super) interrupt: Interrupt,
}

impl Runner {
    /// Runs jobs side by side, each on its share of the cores; as many at once as there are cores where nothing is said.
    pub(super) fn new(jobs: usize, at_once: Option<NonZeroUsize>, device: Place) -> Result<Self> {
        let cores = std::thread::available_parallelism()?.get();
        let at_once = at_once.map_or(cores, usize::from).min(jobs);
        let threads = (cores / at_once.max(1)).max(1);
        Ok(Self { device, threads, all: jobs, at_once, interrupt: Interrupt::on_signals()? })
    }

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
                            let error = crate::output::chain(&error);
                            eprintln!("[{}/{}] {}: {error}", i + 1, self.all, job.name);
                            lock(&failed).push(format!("{}: {error}", job.name));
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
        let _one = lock(tables);
        let said = (job.collect)(&job.run)?;
        eprintln!("{place} {}: {said}", job.name);
        Ok(())
    }

    /// `mnemic train` with this job's share of the cores. One run alone shows its progress.
    fn command(&self, job: &Job) -> Result<Command> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("train").args(&job.arguments).arg("--run").arg(&job.run);
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
pub(super) fn result<T: DeserializeOwned>(run: &Path) -> Result<T> {
    let path = run.join("result.json");
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    serde_json::from_str(&text).map_err(|e| anyhow!("{}: {e}", path.display()))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
