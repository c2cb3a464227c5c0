//! The training loop in one process.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use std::collections::BTreeMap;

use common::{Poison, Toy, full_config, metrics, plain_config};
use mnemic_train::optim::{OptimizerConfig, Sgd};
use mnemic_train::{
    BestBy, Checkpoints, EpochRecord, Error, Interrupt, Observer, Reason, Report, ScheduleConfig,
    StartInfo, StepInfo, StopWhen, TrainConfig, Trainer,
};

fn fit(config: TrainConfig, toy: &mut Toy, dir: &std::path::Path) -> Report {
    Trainer::new(config).unwrap().fit(toy, dir, &mut ()).unwrap()
}

#[test]
fn learns_and_leaves_the_best_weights() {
    let dir = tempfile::tempdir().unwrap();
    let mut toy = Toy::new(1);
    let report = fit(full_config(60), &mut toy, dir.path());
    assert_eq!((report.stopped, report.epochs, report.steps), (Reason::Epochs, 60, 60 * 4));
    let first = report.history[0].validation.loss;
    let best = report.best_validation.unwrap().loss;
    assert!(best < 0.5 * first, "{first} to {best}");
    let lowest = report.history.iter().map(|r| r.validation.loss).fold(f64::INFINITY, f64::min);
    assert_eq!(best, lowest);
    assert!(report.history.last().unwrap().lr < 0.01, "the plateau schedule never cut");
    // The weights in the store are those of the best checkpoint: the moving average.
    let in_store = toy.weights();
    let saved = Checkpoints::of_run(dir.path()).best().unwrap().unwrap().weights().unwrap();
    toy.store.load(&saved).unwrap().unwrap();
    assert_eq!(toy.weights(), in_store);
    let validation = mnemic_train::Problem::validate(&toy).unwrap();
    assert_eq!(validation.loss, best);
    assert!(report.seconds > 0. && report.examples_per_second > 0.);
    let text = serde_json::to_string(&report.history).unwrap();
    assert_eq!(serde_json::from_str::<Vec<EpochRecord>>(&text).unwrap(), report.history);
}

#[test]
fn the_best_weights_go_by_the_metric_that_is_asked_for() {
    let run = |highest| {
        let dir = tempfile::tempdir().unwrap();
        let mut config = plain_config(6);
        config.best_by = Some(BestBy { metric: "error".into(), highest });
        let report = fit(config, &mut Toy::new(1), dir.path());
        let errors: Vec<f64> =
            report.history.iter().map(|r| r.validation.metrics["error"]).collect();
        (report.best_epoch.unwrap(), errors)
    };
    for highest in [true, false] {
        let (best, errors) = run(highest);
        let beats = |&e: &f64| if highest { e > errors[best] } else { e < errors[best] };
        assert!(!errors.iter().any(beats), "{best} of {errors:?}");
        assert!(!errors[..best].contains(&errors[best]), "the first of equals is kept");
    }
    let mut config = plain_config(1);
    config.best_by = Some(BestBy { metric: "f2".into(), highest: true });
    let dir = tempfile::tempdir().unwrap();
    let result = Trainer::new(config).unwrap().fit(&mut Toy::new(1), dir.path(), &mut ());
    let error = result.unwrap_err().to_string();
    assert!(error.contains("best_by.metric: validation gives no f2; it gives loss"), "{error}");
}

#[test]
fn interrupted_in_every_way_gives_the_same_bits() {
    let whole = tempfile::tempdir().unwrap();
    let mut toy = Toy::new(1);
    toy.new_phase_after = Some(2);
    let expected = fit(full_config(6), &mut toy, whole.path());
    let weights = toy.weights();

    // Stops after every single step, each time with a new process's worth of objects.
    let dir = tempfile::tempdir().unwrap();
    struct StopAfterStep(Interrupt);
    impl Observer for StopAfterStep {
        fn on_step(&mut self, _: &StepInfo<'_>) {
            self.0.request();
        }
    }
    let mut sessions = 0;
    let (toy, report) = loop {
        let mut toy = Toy::new(1);
        toy.new_phase_after = Some(2);
        let interrupt = Interrupt::new();
        let trainer = Trainer::new(full_config(6)).unwrap().with_interrupt(interrupt.clone());
        let mut observer = StopAfterStep(interrupt);
        let report = trainer.fit(&mut toy, dir.path(), &mut observer).unwrap();
        sessions += 1;
        assert!(sessions < 100);
        if report.stopped != Reason::Interrupted {
            break (toy, report);
        }
    };
    assert_eq!(sessions, 6 * 4 + 1);
    assert_eq!(toy.weights(), weights);
    assert_eq!(toy.ended, [0, 1, 2, 3, 4, 5]);
    assert_eq!((report.best_epoch, report.steps), (expected.best_epoch, expected.steps));
    assert_eq!(metrics(dir.path()), metrics(whole.path()));
    let tensorboard = |dir: &std::path::Path| {
        std::fs::metadata(dir.join("tensorboard/events.out.tfevents.0.mnemic")).unwrap().len()
    };
    assert_eq!(tensorboard(dir.path()), tensorboard(whole.path()));
}

#[test]
fn a_damaged_checkpoint_costs_only_the_steps_since_the_one_before() {
    #[derive(Default)]
    struct Warnings(Vec<String>);
    impl Observer for Warnings {
        fn on_warning(&mut self, message: &str) {
            self.0.push(message.into());
        }
    }
    let whole = tempfile::tempdir().unwrap();
    let mut toy = Toy::new(1);
    fit(full_config(4), &mut toy, whole.path());
    let expected = toy.weights();

    let dir = tempfile::tempdir().unwrap();
    fit(full_config(2), &mut Toy::new(1), dir.path());
    let last = Checkpoints::of_run(dir.path()).last().unwrap().unwrap();
    let file = last.path().join("optimizer.safetensors");
    let bytes = std::fs::read(&file).unwrap();
    std::fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
    let mut toy = Toy::new(1);
    let mut warnings = Warnings::default();
    let trainer = Trainer::new(full_config(4)).unwrap();
    let report = trainer.fit(&mut toy, dir.path(), &mut warnings).unwrap();
    assert!(warnings.0[0].contains("optimizer.safetensors: expected"), "{:?}", warnings.0);
    assert_eq!(report.resumed_from, Some(7));
    assert_eq!(toy.weights(), expected);
    assert_eq!(metrics(dir.path()), metrics(whole.path()));
}

#[test]
fn a_finished_run_gives_its_report_again_and_can_be_made_longer() {
    let dir = tempfile::tempdir().unwrap();
    let mut toy = Toy::new(1);
    let first = fit(plain_config(3), &mut toy, dir.path());
    let weights = toy.weights();
    let mut again = Toy::new(1);
    let second = fit(plain_config(3), &mut again, dir.path());
    assert_eq!((again.weights(), &second.history), (weights, &first.history));
    assert_eq!(second.resumed_from, Some(first.steps));
    let longer = fit(plain_config(5), &mut Toy::new(1), dir.path());
    assert_eq!((longer.epochs, longer.history.len()), (5, 5));
    let fresh = tempfile::tempdir().unwrap();
    let straight = fit(plain_config(5), &mut Toy::new(1), fresh.path());
    assert_eq!(longer.best_validation, straight.best_validation);
}

#[test]
fn a_checkpoint_of_another_run_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    fit(plain_config(1), &mut Toy::new(1), dir.path());
    let error = |config: TrainConfig, toy: &mut Toy| {
        Trainer::new(config).unwrap().fit(toy, dir.path(), &mut ()).unwrap_err().to_string()
    };
    let mut config = plain_config(2);
    config.optimizer = OptimizerConfig::Sgd(Sgd::new(0.5));
    let found = error(config, &mut Toy::new(1));
    assert!(found.contains("optimizer.lr (was 0.05, is 0.5)"), "{found}");
    let mut other = Toy::new(1);
    let vb = other.store.builder(candle_core::DType::F32, &candle_core::Device::Cpu);
    vb.get(2, "extra").unwrap();
    let found = error(plain_config(2), &mut other);
    assert!(found.contains(r#"missing [("extra", [2])]"#), "{found}");
    other.store = mnemic_layers::ParamStore::new(0);
    assert!(error(plain_config(2), &mut other).contains("expected parameters"));
}

#[test]
fn each_reason_to_stop() {
    let run = |config: TrainConfig, change: fn(&mut Toy)| {
        let dir = tempfile::tempdir().unwrap();
        let mut toy = Toy::new(1);
        change(&mut toy);
        let report = fit(config.clone(), &mut toy, dir.path());
        // Asked again, it does not go on.
        let again = fit(config, &mut toy, dir.path());
        if report.stopped != Reason::Time {
            assert_eq!((again.stopped, again.steps), (report.stopped, report.steps));
        }
        assert_eq!(again.stopped, report.stopped);
        report
    };
    let patience = TrainConfig { patience: Some(3), ..plain_config(50) };
    let report = run(patience.clone(), |t| {
        t.validation_loss = Some(|e| if e < 4 { 9. - e as f64 } else { 6. })
    });
    assert_eq!((report.stopped, report.best_epoch, report.epochs), (Reason::Patience, Some(3), 7));
    // A new phase forgets the best loss.
    let report = run(patience, |t| {
        t.new_phase_after = Some(2);
        t.validation_loss = Some(|e| 1. + e as f64);
    });
    assert_eq!((report.stopped, report.best_epoch, report.epochs), (Reason::Patience, Some(3), 7));

    let stop = |metric: &str, below, epochs| StopWhen { metric: metric.into(), below, epochs };
    let solved = TrainConfig { stop_when: Some(stop("loss", 2., 2)), ..plain_config(50) };
    // Low once, then high, then low twice.
    let report = run(solved, |t| t.validation_loss = Some(|e| [3., 1., 3., 2., 1., 1.][e]));
    assert_eq!((report.stopped, report.epochs), (Reason::Solved, 5));

    let time = TrainConfig { max_seconds: Some(1e-9), ..plain_config(50) };
    let report = run(time, |_| {});
    assert_eq!((report.stopped, report.steps), (Reason::Time, 0));
    let time = TrainConfig { max_seconds: Some(0.3), ..plain_config(100_000) };
    let report = run(time, |_| {});
    assert!(report.steps > 0 && report.seconds < 10.);
}

#[test]
fn accumulated_batches_are_one_batch() {
    // 50 examples in batches of 8 and a rest of 2, all in one step, against plain descent by hand.
    let dir = tempfile::tempdir().unwrap();
    let mut config = plain_config(1);
    config.accumulate = 100;
    let mut toy = Toy::new(1);
    let report = fit(config, &mut toy, dir.path());
    assert_eq!(report.steps, 1);
    use mnemic_layers::Context;
    use mnemic_train::Problem;
    let other = Toy::new(1);
    let batches = other.train_batches(0).unwrap();
    let mut sum: BTreeMap<String, candle_core::Tensor> = BTreeMap::new();
    for (i, batch) in batches.iter().enumerate() {
        let ctx = Context::train(0, i as u64);
        let loss = other.loss(&other.load_batch(batch).unwrap(), &ctx).unwrap().loss;
        let grads = loss.backward().unwrap();
        for (name, var) in other.store.vars() {
            let part = (grads.get(&var).unwrap() * (batch.len() as f64 / 50.)).unwrap();
            let sum = sum.entry(name).or_insert_with(|| part.zeros_like().unwrap());
            *sum = (&*sum + part).unwrap();
        }
    }
    for (name, var) in other.store.vars() {
        let expected = (var.as_tensor() - (&sum[&name] * 0.05).unwrap()).unwrap();
        let got = toy.store.get(&name).unwrap();
        mnemic_testing::assert_close(&name, got.as_tensor(), &expected, 1e-6, 1e-6);
    }
}

#[test]
fn a_nan_is_named_and_the_last_checkpoint_kept() {
    let cases = [
        (Poison::Loss, "loss is NaN in step "),
        (Poison::Gradient, "gradient of output.weight is NaN at flat index 0 in step "),
        (Poison::Parameter, "parameter hidden.bias is NaN at flat index 0 in step "),
    ];
    for (poison, expected) in cases {
        let dir = tempfile::tempdir().unwrap();
        fit(plain_config(2), &mut Toy::new(1), dir.path());
        let kept = Checkpoints::of_run(dir.path()).last().unwrap().unwrap();
        let mut toy = Toy::new(1);
        toy.poison = Some((17, poison));
        let trainer = Trainer::new(plain_config(4)).unwrap();
        let error = trainer.fit(&mut toy, dir.path(), &mut ()).expect_err(expected);
        let text = error.to_string();
        assert!(text.starts_with(expected), "{text}");
        let Error::NotFinite(found) = error else { panic!("{error:?}") };
        assert_eq!(found.epoch, 2);
        // Seven batches an epoch, one a step.
        assert_eq!(found.step, 2 * 7 + found.batch as u64 + 1);
        assert!(found.description.starts_with("points [") && found.description.contains("17"));
        let last = Checkpoints::of_run(dir.path()).last().unwrap().unwrap();
        assert_eq!(last.path(), kept.path());
        // The data repaired, the run goes on from there.
        let report = fit(plain_config(4), &mut Toy::new(1), dir.path());
        assert_eq!((report.resumed_from, report.epochs), (Some(14), 4));
    }
}

#[test]
fn a_nan_validation_loss_stops() {
    let dir = tempfile::tempdir().unwrap();
    let mut toy = Toy::new(1);
    toy.validation_loss = Some(|_| f64::INFINITY);
    let trainer = Trainer::new(plain_config(4)).unwrap();
    let error = trainer.fit(&mut toy, dir.path(), &mut ()).unwrap_err().to_string();
    assert!(error.starts_with("validation loss is inf in step 7 (epoch 0"), "{error}");
}

#[test]
fn the_observer_sees_everything_once() {
    #[derive(Default)]
    struct Log {
        steps: Vec<(u64, usize, usize)>,
        epochs: Vec<EpochRecord>,
        warnings: Vec<String>,
        started: Option<StartInfo>,
        ended: bool,
    }
    impl Observer for Log {
        fn on_start(&mut self, info: &StartInfo) {
            self.started = Some(info.clone());
        }
        fn on_step(&mut self, info: &StepInfo<'_>) {
            assert!(info.loss.is_finite() && info.grad_norm > 0. && info.error.is_some());
            assert_eq!(info.metrics["error"], info.error.unwrap());
            self.steps.push((info.step, info.step_in_epoch, info.steps_per_epoch));
        }
        fn on_epoch(&mut self, record: &EpochRecord) {
            self.epochs.push(record.clone());
        }
        fn on_warning(&mut self, message: &str) {
            self.warnings.push(message.into());
        }
        fn on_end(&mut self, _: &Report) {
            self.ended = true;
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let mut toy = Toy::new(1);
    let vb = toy.store.builder(candle_core::DType::F32, &candle_core::Device::Cpu);
    vb.get(2, "unused.weight").unwrap();
    let mut config = plain_config(2);
    config.accumulate = 3;
    config.schedule = ScheduleConfig::Halving { every: 1, unit: Default::default() };
    config.stop_when = Some(StopWhen { metric: "accuracy".into(), below: 0., epochs: 1 });
    let mut log = Log::default();
    let report = Trainer::new(config).unwrap().fit(&mut toy, dir.path(), &mut log).unwrap();
    let steps = [(1, 1, 3), (2, 2, 3), (3, 3, 3), (4, 1, 3), (5, 2, 3), (6, 3, 3)];
    assert_eq!(log.steps, steps);
    assert_eq!(log.epochs, report.history);
    assert_eq!(log.epochs.iter().map(|e| e.lr).collect::<Vec<_>>(), [0.05, 0.025]);
    assert_eq!(report.no_gradient, ["unused.weight"]);
    assert_eq!(log.warnings[0], "no gradient reaches unused.weight");
    assert!(log.warnings[1].contains("no accuracy; it gives loss, error"), "{:?}", log.warnings);
    assert_eq!(log.started.unwrap().parameters, 3 * 16 + 16 + 16 + 1 + 2);
    assert!(log.ended);
}
