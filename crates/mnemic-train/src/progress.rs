//! A progress bar in the terminal.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::ProgressStyle;

use crate::{EpochRecord, Observer, Report, StartInfo, StepInfo};

/// Shows a bar for the epoch under way, with loss, error, examples per second and time left, and a line for each epoch
/// that is done. Where standard error is not a terminal, only the lines.
pub struct ProgressBar {
    output: Output,
    last_drawn: Option<Instant>,
    epochs: usize,
}

enum Output {
    Bar(indicatif::ProgressBar),
    Lines(Box<dyn Write + Send>),
}

/// Redrawn at most this often.
const INTERVAL: Duration = Duration::from_millis(60);
const TEMPLATE: &str = "{prefix} [{bar:24}] {pos}/{len}  {msg}";

impl ProgressBar {
    /// On standard error.
    pub fn new() -> Self {
        if std::io::stderr().is_terminal() {
            Self::on_bar(indicatif::ProgressBar::new(0))
        } else {
            Self::lines(Box::new(std::io::stderr()))
        }
    }

    /// A line for each epoch into `out`.
    pub fn lines(out: Box<dyn Write + Send>) -> Self {
        Self { output: Output::Lines(out), last_drawn: None, epochs: 0 }
    }

    /// A bar of the caller's, for instance one of an `indicatif::MultiProgress`.
    pub fn on_bar(bar: indicatif::ProgressBar) -> Self {
        if let Ok(style) = ProgressStyle::with_template(TEMPLATE) {
            bar.set_style(style.progress_chars("=> "));
        }
        Self { output: Output::Bar(bar), last_drawn: None, epochs: 0 }
    }

    fn line(&mut self, text: &str) {
        match &mut self.output {
            Output::Bar(bar) => bar.println(text),
            // A closed pipe is no reason to stop training.
            Output::Lines(out) => drop(writeln!(out, "{text}").and_then(|()| out.flush())),
        }
    }
}

impl Default for ProgressBar {
    fn default() -> Self {
        Self::new()
    }
}

impl Observer for ProgressBar {
    fn on_start(&mut self, info: &StartInfo) {
        self.epochs = info.epochs;
        let from = info.resumed_from.map(|s| format!(", resumed at step {s}")).unwrap_or_default();
        self.line(&format!("training {} parameters{from}", info.parameters));
    }

    fn on_step(&mut self, info: &StepInfo<'_>) {
        let Output::Bar(bar) = &self.output else { return };
        let recent = self.last_drawn.is_some_and(|t| t.elapsed() < INTERVAL);
        if recent && info.step_in_epoch < info.steps_per_epoch {
            return;
        }
        self.last_drawn = Some(Instant::now());
        bar.set_length(info.steps_per_epoch as u64);
        bar.set_prefix(format!("epoch {}/{}", info.epoch + 1, info.epochs));
        bar.set_message(step_text(info));
        bar.set_position(info.step_in_epoch as u64);
    }

    fn on_epoch(&mut self, record: &EpochRecord) {
        let text = epoch_text(record, self.epochs);
        self.line(&text);
    }

    fn on_warning(&mut self, message: &str) {
        self.line(&format!("warning: {message}"));
    }

    fn on_end(&mut self, report: &Report) {
        if let Output::Bar(bar) = &self.output {
            bar.finish_and_clear();
        }
        let text = end_text(report);
        self.line(&text);
    }
}

fn step_text(info: &StepInfo<'_>) -> String {
    let error = info.error.map(|e| format!("  error {}", percent(e))).unwrap_or_default();
    let (loss, speed, left) = (info.loss, info.examples_per_second, time(info.eta));
    format!("loss {loss:.4}{error}  {speed:.0} examples/s  {left} left")
}

fn epoch_text(record: &EpochRecord, epochs: usize) -> String {
    let error =
        |value: Option<f64>| value.map(|e| format!(", error {}", percent(e))).unwrap_or_default();
    format!(
        "epoch {}/{epochs}  train: loss {:.4}{}  validation: loss {:.4}{}{}",
        record.epoch + 1,
        record.train_loss,
        error(record.train_metrics.get("error").copied()),
        record.validation.loss,
        error(record.validation.get("error")),
        if record.best { "  (best)" } else { "" },
    )
}

fn end_text(report: &Report) -> String {
    let why = match report.stopped {
        crate::Reason::Epochs => "all epochs done",
        crate::Reason::Patience => "validation no longer improves",
        crate::Reason::Solved => "goal reached",
        crate::Reason::Time => "time is over",
        crate::Reason::Interrupted => "interrupted; run again to go on",
    };
    let time = time(Duration::try_from_secs_f64(report.seconds).unwrap_or_default());
    format!("{why}: {} steps, {time}, {:.0} examples/s", report.steps, report.examples_per_second)
}

/// `45s`, `1m 35s`, `2h 05m`.
fn time(duration: Duration) -> String {
    let seconds = (duration.as_secs_f64().round()) as u64;
    match (seconds / 3600, seconds / 60 % 60) {
        (0, 0) => format!("{seconds}s"),
        (0, minutes) => format!("{minutes}m {:02}s", seconds % 60),
        (hours, minutes) => format!("{hours}h {minutes:02}m"),
    }
}

fn percent(x: f64) -> String {
    format!("{:.2} %", 100. * x)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Reason, Validation};
    use std::collections::BTreeMap;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn watch(bar: &mut ProgressBar) {
        bar.on_start(&StartInfo { epochs: 3, epoch: 0, parameters: 42, resumed_from: Some(7) });
        let metrics = BTreeMap::from([("error".to_string(), 0.125)]);
        let info = StepInfo {
            epoch: 0,
            epochs: 3,
            step: 8,
            step_in_epoch: 2,
            steps_per_epoch: 4,
            loss: 0.5,
            step_loss: 0.25,
            error: Some(0.125),
            metrics: &metrics,
            lr: 0.1,
            grad_norm: 1.,
            examples_per_second: 1234.4,
            eta: Duration::from_secs(95),
        };
        assert_eq!(step_text(&info), "loss 0.5000  error 12.50 %  1234 examples/s  1m 35s left");
        bar.on_step(&info);
        let record = EpochRecord {
            epoch: 0,
            step: 10,
            train_loss: 0.5,
            train_metrics: metrics.clone(),
            validation: Validation::new(0.75).with("error", 0.5),
            lr: 0.1,
            best: true,
            seconds: 1.,
        };
        bar.on_epoch(&record);
        bar.on_warning("look here");
        bar.on_end(&Report {
            stopped: Reason::Epochs,
            best_epoch: Some(0),
            best_validation: Some(record.validation.clone()),
            history: vec![record],
            epochs: 1,
            steps: 10,
            seconds: 60.,
            cpu_seconds: None,
            examples_per_second: 10.,
            no_gradient: vec![],
            resumed_from: None,
        });
    }

    #[test]
    fn without_a_terminal_there_is_a_line_per_epoch() {
        let out = Shared::default();
        watch(&mut ProgressBar::lines(Box::new(out.clone())));
        let text = String::from_utf8(out.0.lock().unwrap().clone()).unwrap();
        let expected = [
            "training 42 parameters, resumed at step 7",
            "epoch 1/3  train: loss 0.5000, error 12.50 %  validation: loss 0.7500, error 50.00 %  (best)",
            "warning: look here",
            "all epochs done: 10 steps, 1m 00s, 10 examples/s",
        ];
        assert_eq!(text.lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn the_bar_follows_the_steps() {
        let bar = indicatif::ProgressBar::hidden();
        watch(&mut ProgressBar::on_bar(bar.clone()));
        assert_eq!((bar.position(), bar.length(), bar.is_finished()), (4, Some(4), true));
        assert_eq!(bar.prefix(), "epoch 1/3");
        assert!(bar.message().starts_with("loss 0.5000"), "{}", bar.message());
        assert_eq!(time(Duration::from_secs(7500)), "2h 05m");
        // A mistake in the template would leave indicatif's own style, silently.
        assert!(ProgressStyle::with_template(TEMPLATE).is_ok());
    }
}
