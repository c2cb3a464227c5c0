//! The PyTorch side: a child process that answers one line of JSON with one line of JSON.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Importing PyTorch from a cold disk takes a while.
const START: Duration = Duration::from_secs(180);
/// A turn of steps; preparing without a compiler.
const ANSWER: Duration = Duration::from_secs(300);

/// What both sides must agree on before anything is timed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Checked {
    /// The loss of the first step, before any update.
    pub value: f64,
    /// The Euclidean norm of all its gradients.
    pub gradient: f64,
}

/// The child process.
pub struct Peer {
    child: Child,
    requests: ChildStdin,
    answers: Receiver<String>,
    ended: bool,
    /// The versions of Python and PyTorch.
    pub versions: Vec<(String, String)>,
}

impl Peer {
    /// Starts the script and waits until it is ready.
    pub fn start(
        python: &Path,
        script: &Path,
        threads: usize,
        cuda: Option<usize>,
    ) -> Result<Self> {
        let device = cuda.map_or_else(|| "cpu".into(), |ordinal| format!("cuda:{ordinal}"));
        let threads = threads.to_string();
        let mut child = Command::new(python)
            .arg(script)
            .args(["--serve", "--threads", &threads, "--device", &device])
            .env("OMP_NUM_THREADS", &threads)
            .env("MKL_NUM_THREADS", &threads)
            // No pool of compilers beside the programs that are measured.
            .env("TORCHINDUCTOR_COMPILE_THREADS", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start the peer `{}`", python.display()))?;
        let (Some(requests), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            bail!("the peer has no standard input or output");
        };
        let (send, answers) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    break;
                }
            }
        });
        let mut peer = Self { child, requests, answers, ended: false, versions: Vec::new() };
        let ready = peer.answer(START).context("the peer did not start")?;
        let texts = ready.as_object().into_iter().flatten();
        let texts =
            texts.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())));
        peer.versions = texts.collect();
        Ok(peer)
    }

    /// Prepares and warms up a workload in a mode, and tells what it computes.
    pub fn prepare(&mut self, workload: &str, mode: &str, limit: Duration) -> Result<Checked> {
        let answer = self.ask(&json!({"workload": workload, "mode": mode}), limit)?;
        checked(&answer)
    }

    /// [`Peer::prepare`] without a compiler.
    pub fn prepare_eager(&mut self, workload: &str, mode: &str) -> Result<Checked> {
        self.prepare(workload, mode, ANSWER)
    }

    /// The seconds of each of `steps` steps.
    pub fn run(&mut self, mode: &str, steps: usize) -> Result<Vec<f64>> {
        let answer = self.ask(&json!({"run": steps, "mode": mode}), ANSWER)?;
        seconds(&answer, steps)
    }

    /// [`Peer::run`] with the device idle before and after each step.
    pub fn run_alone(&mut self, mode: &str, steps: usize) -> Result<Vec<f64>> {
        let answer = self.ask(&json!({"run": steps, "mode": mode, "alone": true}), ANSWER)?;
        seconds(&answer, steps)
    }

    /// Forgets what has been prepared.
    pub fn clear(&mut self) -> Result<()> {
        self.ask(&json!({"clear": true}), ANSWER).map(|_| ())
    }

    /// One question, whatever it is, with its answer.
    pub fn ask(&mut self, request: &Value, limit: Duration) -> Result<Value> {
        if self.ended {
            bail!("the peer has ended");
        }
        let sent = writeln!(self.requests, "{request}").and_then(|()| self.requests.flush());
        sent.context("the peer has ended")?;
        self.answer(limit)
    }

    fn answer(&mut self, limit: Duration) -> Result<Value> {
        match self.answers.recv_timeout(limit) {
            Ok(line) => parse(&line),
            Err(RecvTimeoutError::Timeout) => {
                // What it says later would be taken for the answer to the next question.
                self.end();
                bail!("no answer within {} s", limit.as_secs())
            }
            Err(RecvTimeoutError::Disconnected) => {
                self.end();
                bail!("the peer has ended")
            }
        }
    }

    /// Whether it can still be asked.
    pub fn is_alive(&mut self) -> bool {
        !self.ended && matches!(self.child.try_wait(), Ok(None))
    }

    /// What the peer has started, such as a compiler, may outlive it and hold its output open: the flag says it.
    fn end(&mut self) {
        self.ended = true;
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.end();
    }
}

/// One answer; what the peer could not do is an error.
fn parse(line: &str) -> Result<Value> {
    let answer: Value = serde_json::from_str(line)
        .with_context(|| format!("the peer answered with something else than JSON: {line}"))?;
    match answer.get("error").and_then(Value::as_str) {
        Some(error) => bail!("{error}"),
        None => Ok(answer),
    }
}

fn checked(answer: &Value) -> Result<Checked> {
    let number = |key: &str| {
        let found = answer.get(key).and_then(Value::as_f64);
        found.with_context(|| format!("the peer's answer lacks the number `{key}`: {answer}"))
    };
    Ok(Checked { value: number("value")?, gradient: number("gradient")? })
}

fn seconds(answer: &Value, steps: usize) -> Result<Vec<f64>> {
    let all = answer.get("seconds").and_then(Value::as_array);
    let all: Option<Vec<f64>> = all.and_then(|all| all.iter().map(Value::as_f64).collect());
    match all {
        Some(all) if all.len() == steps => Ok(all),
        _ => bail!("expected the seconds of {steps} steps, got {answer}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read() {
        let answer = parse(r#"{"value": 0.5, "gradient": 2}"#).unwrap();
        assert_eq!(checked(&answer).unwrap(), Checked { value: 0.5, gradient: 2. });
        assert_eq!(seconds(&parse(r#"{"seconds": [0.25, 1]}"#).unwrap(), 2).unwrap(), [0.25, 1.]);
    }

    #[test]
    fn what_is_no_answer_is_an_error_that_shows_it() {
        let message = |result: Result<Value>| result.unwrap_err().to_string();
        assert_eq!(message(parse(r#"{"error": "no C++ compiler"}"#)), "no C++ compiler");
        assert!(message(parse("Traceback")).contains("Traceback"));
        let short = parse(r#"{"seconds": [1]}"#).unwrap();
        assert!(seconds(&short, 2).unwrap_err().to_string().contains("2 steps"));
        let nan = parse(r#"{"value": null, "gradient": 1}"#).unwrap();
        assert!(checked(&nan).unwrap_err().to_string().contains("`value`"));
    }

    /// A stand-in for the script: a shell that speaks the protocol.
    #[cfg(unix)]
    fn shell(script: &str) -> Result<Peer> {
        use std::sync::atomic::{AtomicUsize, Ordering};
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!(
            "mnemic-peer-{}-{}.sh",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, script)?;
        let peer = Peer::start(Path::new("sh"), &path, 1, None);
        std::fs::remove_file(&path)?;
        peer
    }

    #[cfg(unix)]
    #[test]
    fn a_peer_is_asked_and_times_out() {
        let script = r#"echo '{"torch": "9"}'; read a; echo '{"value": 1, "gradient": 2}'; read b; sleep 60"#;
        let mut peer = shell(script).unwrap();
        assert_eq!(peer.versions, [("torch".to_owned(), "9".to_owned())]);
        assert_eq!(peer.prepare_eager("x", "eager").unwrap().gradient, 2.);
        let late = peer.prepare("x", "compile", Duration::from_millis(50)).unwrap_err();
        assert!(late.to_string().contains("no answer"), "{late}");
        assert!(!peer.is_alive() && peer.run("eager", 1).is_err());
    }

    #[cfg(unix)]
    #[test]
    fn a_peer_that_ends_at_once_is_an_error() {
        let error = shell("exit 1").err().map(|error| format!("{error:#}")).unwrap_or_default();
        assert!(error.contains("did not start") && error.contains("ended"), "{error}");
    }
}
