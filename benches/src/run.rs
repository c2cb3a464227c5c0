//! One process, one number of threads: all chosen workloads.

use std::cell::RefCell;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::args::Args;
use crate::data;
use crate::peak::{self, Peak};
use crate::record::{Record, Run};
use crate::step::{Checked, Step};
use crate::table::{CARD, milliseconds};
use crate::workloads::{self, Tolerance, Workload};
use mnemic_benches::measure::{Participant, Times, interleave, quantile};
use mnemic_benches::peer::Peer;

/// Measures and prints one line of JSON for each workload, as soon as it has been measured: what ends a long run loses
/// only what was not reached.
pub(crate) fn run(options: &Args) -> Result<ExitCode> {
    let cuda = options.cuda().is_some();
    if let Some(ordinal) = options.cuda() {
        data::live_on(mnemic_kernels::cuda::device(ordinal)?);
    }
    let chosen = workloads::select(options.common.filter.as_deref(), cuda)?;
    let mut about = options.common.about();
    about.insert("mnemic".into(), env!("CARGO_PKG_VERSION").into());
    about.insert("SIMD".into(), format!("{:?}", mnemic_kernels::simd::level()));
    if let Some(ordinal) = options.cuda() {
        about.extend(gpu(ordinal));
    }
    let mut peer = start_peer(options)?;
    let versions = peer.iter().flat_map(|peer| peer.versions.clone());
    about.extend(versions);
    let peak = peak::measure(options.common.threads(), data::device())?;
    eprintln!(
        "peak with {} thread(s): {:.0} GFLOP/s, {:.1} GB/s",
        options.common.threads(),
        peak.gflops,
        peak.gigabytes_per_second
    );
    for (index, workload) in chosen.iter().enumerate() {
        eprint!("[{}/{}] {}: ", index + 1, chosen.len(), workload.name);
        let start = Instant::now();
        let record = one(workload, options, &peak, &mut peer);
        eprintln!("{} ({:.0} s)", line(&record), start.elapsed().as_secs_f64());
        let run = Run { about: about.clone(), peak: peak.clone(), results: vec![record] };
        println!("{}", serde_json::to_string(&run)?);
    }
    Ok(ExitCode::SUCCESS)
}

/// Card and driver.
fn gpu(ordinal: usize) -> Vec<(String, String)> {
    let card = mnemic_kernels::cuda::card(data::device()).unwrap_or_else(|| "unknown".into());
    let mut about = vec![(CARD.to_owned(), card)];
    let asked = Command::new("nvidia-smi")
        .args(["--query-gpu=driver_version", "--format=csv,noheader", "--id"])
        .arg(ordinal.to_string())
        .output();
    if let Ok(output) = asked
        && output.status.success()
    {
        let driver = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        about.push(("NVIDIA driver".into(), driver));
    }
    about
}

fn start_peer(options: &Args) -> Result<Option<Peer>> {
    let Some((python, script)) = options.common.peer() else { return Ok(None) };
    Peer::start(python, script, options.common.threads(), options.cuda()).map(Some)
}

/// What the progress says.
fn line(record: &Record) -> String {
    if let Some(error) = &record.error {
        return format!("not measured: {error}");
    }
    let mut parts =
        vec![format!("mnemic {} ms", record.ours_ms.map_or_else(String::new, milliseconds))];
    parts.extend(
        record.peer_modes_ms.iter().map(|(mode, ms)| format!("{mode} {}", milliseconds(*ms))),
    );
    parts.extend(record.candle_ms.map(|ms| format!("candle {}", milliseconds(ms))));
    parts.extend(record.ratio.map(|ratio| format!("ratio {ratio:.2}")));
    parts.extend(record.notes.iter().cloned());
    parts.join(", ")
}

fn one(workload: &Workload, options: &Args, peak: &Peak, peer: &mut Option<Peer>) -> Record {
    let mut record = Record {
        workload: workload.name.into(),
        threads: options.common.threads(),
        target: workload.target,
        flops: workload.cost.flops,
        bytes: workload.cost.bytes,
        half: workload.half,
        ..Record::default()
    };
    if let Err(error) = fill(workload, options, peer, &mut record) {
        record.error = Some(format!("{error:#}"));
    }
    record.derive(peak);
    record
}

fn fill(
    workload: &Workload,
    options: &Args,
    peer: &mut Option<Peer>,
    record: &mut Record,
) -> Result<()> {
    let mut ours = (workload.ours)()?;
    let expected = ours.check()?;
    record.computed.insert("mnemic".into(), expected);
    let modes = prepare_peer(workload, options, expected, peer, record)?;
    let mut candle = match options.candle() {
        true => prepare_candle(workload, expected, record),
        false => None,
    };
    let mut all = vec![Participant::new("mnemic", false, timed(ours.as_mut()))];
    if let Some(step) = &mut candle {
        all.push(Participant::new("candle", true, timed(step.as_mut())));
    }
    let shared = peer.as_mut().map(RefCell::new);
    if let Some(peer) = &shared {
        for mode in &modes {
            let burst = move |steps| peer.borrow_mut().run(mode, steps);
            all.push(Participant::new(mode.clone(), false, Box::new(burst)));
        }
    }
    let (times, rounds) = interleave(all, options.seconds);
    record.rounds = rounds;
    let alone = |times: &Times| alone_ms(times, ours.as_mut(), shared.as_ref());
    if options.cuda().is_some() {
        record.alone_ms = times.iter().filter_map(alone).collect();
    }
    if let Some(peer) = shared
        && let Err(error) = peer.borrow_mut().clear()
    {
        record.notes.push(format!("PyTorch: {error:#}"));
    }
    times.into_iter().try_for_each(|times| enter(times, record))
}

/// The median of some steps of a program, each with the device to itself: what a step takes from its beginning to its end.
fn alone_ms(
    times: &Times,
    ours: &mut dyn Step,
    peer: Option<&RefCell<&mut Peer>>,
) -> Option<(String, f64)> {
    let steps = ((0.2 / times.median?) as usize).clamp(3, 100);
    let mut seconds = match times.name.as_str() {
        "mnemic" => each_alone(ours, steps).ok()?,
        "candle" => return None,
        mode => peer?.borrow_mut().run_alone(mode, steps).ok()?,
    };
    seconds.sort_by(f64::total_cmp);
    Some((times.name.clone(), quantile(&seconds, 0.5)? * 1e3))
}

fn each_alone(step: &mut dyn Step, steps: usize) -> Result<Vec<f64>> {
    data::device().synchronize()?;
    let one = |_| {
        let start = Instant::now();
        step.run()?;
        data::device().synchronize()?;
        Ok(start.elapsed().as_secs_f64())
    };
    (0..steps).map(one).collect()
}

/// On a GPU the host runs ahead of the device, as it does in training: only all steps of a burst together can be timed.
fn timed(step: &mut dyn Step) -> mnemic_benches::measure::Burst<'_> {
    Box::new(move |steps| {
        if !data::device().is_cpu() {
            data::device().synchronize()?;
            let start = Instant::now();
            (0..steps).try_for_each(|_| step.run())?;
            data::device().synchronize()?;
            return Ok(vec![start.elapsed().as_secs_f64() / steps as f64; steps]);
        }
        let one = |_| {
            let start = Instant::now();
            step.run()?;
            Ok(start.elapsed().as_secs_f64())
        };
        // As `Trainer::fit` does.
        mnemic_kernels::awake(|| (0..steps).map(one).collect())
    })
}

/// Enters the times of a program; that ours failed is an error.
fn enter(times: Times, record: &mut Record) -> Result<()> {
    let ms = times.median.map(|seconds| seconds * 1e3);
    match (times.name.as_str(), ms) {
        ("mnemic", None) => bail!("{}", times.error.unwrap_or_else(|| "no time".into())),
        ("mnemic", ms) => {
            record.ours_ms = ms;
            record.ours_quartiles_ms = times.quartiles.map(|(low, high)| (low * 1e3, high * 1e3));
            record.steps = times.steps;
        }
        ("candle", Some(ms)) => record.candle_ms = Some(ms),
        (mode, Some(ms)) => {
            record.peer_modes_ms.insert(mode.to_owned(), ms);
        }
        (name, None) => {
            let error = times.error.unwrap_or_else(|| "no time".into());
            record.notes.push(format!("{name}: {error}"));
        }
    }
    Ok(())
}

/// Plain candle's step, if there is one and it computes the same.
fn prepare_candle(
    workload: &Workload,
    expected: Checked,
    record: &mut Record,
) -> Option<Box<dyn Step>> {
    let make = workload.candle.as_ref()?;
    let prepared = make().and_then(|mut step| {
        let found = step.check()?;
        record.computed.insert("candle".into(), found);
        agree(workload.tolerance, expected, found).context("candle and mnemic disagree")?;
        Ok(step)
    });
    match prepared {
        Ok(step) => Some(step),
        Err(error) => {
            record.notes.push(format!("candle: {error:#}"));
            None
        }
    }
}

/// The modes of PyTorch that are ready to run. That it computes something else is an error; that a mode cannot be had
/// is a note.
fn prepare_peer(
    workload: &Workload,
    options: &Args,
    expected: Checked,
    peer: &mut Option<Peer>,
    record: &mut Record,
) -> Result<Vec<String>> {
    let Some(running) = peer else { return Ok(Vec::new()) };
    let mut modes = Vec::new();
    let compiles = options.compile_seconds > 0.;
    let wanted = |mode: &&&str| {
        (compiles || !is_compiled(mode)) && (options.cuda().is_some() || **mode != GRAPHS)
    };
    for &mode in workload.modes.iter().filter(wanted) {
        let prepared = if is_compiled(mode) {
            running.prepare(workload.name, mode, Duration::from_secs_f64(options.compile_seconds))
        } else {
            running.prepare_eager(workload.name, mode)
        };
        match prepared {
            Ok(found) => {
                record.computed.insert(mode.into(), found);
                agree(workload.tolerance, expected, found)
                    .with_context(|| format!("PyTorch ({mode}) and mnemic disagree"))?;
                modes.push(mode.to_owned());
            }
            Err(error) => record.notes.push(format!("{mode}: {error:#}")),
        }
        if !running.is_alive() {
            let fresh = start_peer(options)?.context("the peer has gone")?;
            *running = fresh;
            for mode in &modes {
                running.prepare_eager(workload.name, mode)?;
            }
        }
    }
    Ok(modes)
}

/// `torch.compile`, and the same with CUDA graphs.
pub(crate) const COMPILE: &str = "compile";
pub(crate) const GRAPHS: &str = "reduce-overhead";

pub(crate) fn is_compiled(mode: &str) -> bool {
    mode == COMPILE || mode == GRAPHS
}

/// Losses and norms of gradients must not lie further apart than the tolerance, relative to them.
fn agree(tolerance: Tolerance, ours: Checked, theirs: Checked) -> Result<()> {
    for (what, a, b, tolerance) in [
        ("value", ours.value, theirs.value, tolerance.value),
        ("gradient", ours.gradient, theirs.gradient, tolerance.gradient),
    ] {
        let close = (a - b).abs() <= tolerance * a.abs().max(b.abs());
        if !close {
            bail!("{what} {a} here, {b} there");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(value: f64, gradient: f64) -> Checked {
        Checked { value, gradient }
    }

    #[test]
    fn agreement_is_relative_and_nan_agrees_with_nothing() {
        let agree = |a, b| agree(Tolerance::SINGLE, a, b);
        assert!(agree(checked(1., 1e4), checked(1.0005, 1.0005e4)).is_ok());
        let error = agree(checked(1., 1.), checked(1., 1.01)).unwrap_err().to_string();
        assert_eq!(error, "gradient 1 here, 1.01 there");
        assert!(agree(checked(f64::NAN, 1.), checked(f64::NAN, 1.)).is_err());
    }

    #[test]
    fn times_go_to_their_columns() {
        let times = |name: &str, median| Times {
            name: name.into(),
            median,
            quartiles: None,
            steps: 3,
            error: median.is_none().then(|| "broken".into()),
        };
        let mut record = Record::default();
        for (name, median) in [
            ("mnemic", Some(0.001)),
            ("candle", Some(0.002)),
            ("eager", Some(0.003)),
            ("compile", None),
        ] {
            enter(times(name, median), &mut record).unwrap();
        }
        assert_eq!((record.ours_ms, record.candle_ms), (Some(1.), Some(2.)));
        assert_eq!(record.peer_modes_ms["eager"], 3.);
        assert_eq!(record.notes, ["compile: broken"]);
        assert!(enter(times("mnemic", None), &mut record).is_err());
    }
}
