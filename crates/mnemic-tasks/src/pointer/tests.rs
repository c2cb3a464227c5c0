use std::path::Path;

use mnemic_data::planar::{Instance, PlanarTask, to_text};
use mnemic_train::{Interrupt, TrainConfig};

use super::*;
use crate::Place;
use crate::babi::{RunOptions, update_csv};
use crate::run_folder::RunRecipe;

fn recipe(task: &str, extra: &str) -> crate::Result<PointerRecipe> {
    let text = format!(
        "name = \"small\"\n[model]\narchitecture = \"pointer-network\"\nhidden_size = 12\n\
         [data]\ndataset = \"planar\"\ntask = \"{task}\"\npoints = [4, 6]\ntest = [4, 7]\nbeam = 3\n{extra}\n\
         [batches]\nsize = 8\nper_epoch = 4\nevaluation = 2\n\
         [train]\nseed = 3\nepochs = 2\noptimizer = {{ name = \"adam\", lr = 0.01 }}\n"
    );
    PointerRecipe::parse(&text, "small.toml")
}

fn options(dir: &Path) -> RunOptions {
    RunOptions { run_dir: dir.to_path_buf(), interrupt: Interrupt::default(), ..Default::default() }
}

fn weights(dir: &Path) -> Vec<u8> {
    std::fs::read(dir.join("model/model.safetensors")).unwrap()
}

#[test]
fn runs_train_test_and_save_and_can_be_watched() {
    for task in ["convex-hull", "delaunay", "tsp"] {
        let (one, two) = (tempfile::TempDir::new().unwrap(), tempfile::TempDir::new().unwrap());
        let recipe = recipe(task, "").unwrap();
        let result = train_pointer(&recipe, &options(one.path()), &mut ()).unwrap();
        assert_eq!((result.examples, result.converged), (64, false));
        let tests: Vec<_> =
            result.tests.iter().map(|t| (t.points, t.search.as_str(), t.instances)).collect();
        let beam = if task == "tsp" { "beam 3, valid tours" } else { "beam 3" };
        let expected = [(4, "greedy", 16), (4, beam, 16), (7, "greedy", 16), (7, beam, 16)];
        assert_eq!(tests, expected);
        if task == "tsp" {
            for test in [&result.tests[1], &result.tests[3]] {
                assert_eq!((test.valid_percent, test.exact), (100., Some(true)));
                let (length, reference) = (test.length.unwrap(), test.reference_length.unwrap());
                assert!(length > reference, "{length} {reference}");
            }
        }
        assert_eq!(train_pointer(&recipe, &options(one.path()), &mut ()).unwrap(), result);
        train_pointer(&recipe, &options(two.path()), &mut ()).unwrap();
        assert_eq!(weights(one.path()), weights(two.path()));

        let model = PointerModel::open(one.path(), Place::Cpu).unwrap();
        assert_eq!(model.facts().rows.len(), 7);
        let sections = model.watch(Some(5), 0).unwrap();
        let html = mnemic_pictures::page("x", "", &[], &sections).unwrap();
        assert!(html.contains("Pointer weights") && html.contains("true answer"));
    }
}

#[test]
fn a_run_that_goes_on_ends_with_the_same_weights() {
    for extra in ["", "examples = 20"] {
        let (one, two) = (tempfile::TempDir::new().unwrap(), tempfile::TempDir::new().unwrap());
        let long = recipe("convex-hull", extra).unwrap();
        let short = PointerRecipe {
            train: TrainConfig { epochs: 1, ..long.train.clone() },
            ..long.clone()
        };
        train_pointer(&short, &options(one.path()), &mut ()).unwrap();
        train_pointer(&long, &options(one.path()), &mut ()).unwrap();
        train_pointer(&long, &options(two.path()), &mut ()).unwrap();
        assert_eq!(weights(one.path()), weights(two.path()));
    }
}

/// A fixed number of instances comes in shuffled passes that run on from epoch to epoch.
#[test]
fn a_fixed_number_of_instances_is_gone_through_evenly() {
    use mnemic_train::Problem;
    let recipe = recipe("convex-hull", "examples = 20").unwrap();
    let store = mnemic_models::ParamStore::new(1);
    let device = candle_core::Device::Cpu;
    let vb = store.builder(candle_core::DType::F32, &device);
    let model =
        mnemic_models::memory::pointer_network::PointerNetwork::new(&recipe.config().unwrap(), vb);
    let problem = PointerProblem {
        model: &model.unwrap(),
        store: &store,
        data: &recipe.data,
        batches: &recipe.batches,
        seed: 1,
        device,
        fingerprint: String::new(),
    };
    let mut seen: Vec<usize> = vec![];
    for epoch in 0..5 {
        let batches = problem.train_batches(epoch).unwrap();
        assert_eq!(batches.iter().map(Vec::len).collect::<Vec<_>>(), [8; 4]);
        seen.extend(batches.concat());
    }
    let (first, second) = (seen[..20].to_vec(), seen[20..40].to_vec());
    assert_ne!(first, second);
    for mut pass in [first, second] {
        pass.sort_unstable();
        assert_eq!(pass, (0..20).collect::<Vec<_>>());
    }
}

#[test]
fn published_files_are_tested_and_mistakes_in_them_show_before_training() {
    let (data, run) = (tempfile::TempDir::new().unwrap(), tempfile::TempDir::new().unwrap());
    let recipe = recipe("convex-hull", "files = [\"hull.txt\"]").unwrap();
    let options = RunOptions { data: Some(data.path().to_path_buf()), ..options(run.path()) };
    let error = train_pointer(&recipe, &options, &mut ()).unwrap_err().to_string();
    assert!(error.contains("hull.txt") && !run.path().join("recipe.toml").exists(), "{error}");
    let make = |i| PlanarTask::ConvexHull.instance((5, 5), 9, i).unwrap();
    let instances: Vec<Instance> = (0..10).map(make).collect();
    std::fs::write(data.path().join("hull.txt"), to_text(&instances)).unwrap();
    let result = train_pointer(&recipe, &options, &mut ()).unwrap();
    let file: Vec<_> = result.tests.iter().filter(|t| t.source == "hull.txt").collect();
    assert_eq!(file.iter().map(|t| (t.points, t.instances)).collect::<Vec<_>>(), [(5, 10); 2]);
}

#[test]
fn answers_are_judged_as_the_paper_counts() {
    let task = PlanarTask::ConvexHull;
    let points = vec![[0., 0.], [1., 0.], [1., 1.], [0., 1.], [0.5, 0.2]];
    let hull = Instance { answer: task.solve(&points).unwrap(), points: points.clone() };
    assert_eq!(hull.answer, [0, 1, 2, 3, 0]);
    let of = |answer: &[usize]| judge(task, &hull, answer, true);
    for same in [&[0, 1, 2, 3, 0][..], &[2, 3, 0, 1, 2], &[2, 3, 0, 1]] {
        assert_eq!(of(same), Judgement { right: true, valid: true, coverage: 1., length: None });
    }
    let half = of(&[0, 1, 2, 0]);
    assert!(!half.right && half.valid && (half.coverage - 0.5).abs() < 1e-12);
    let inner = of(&[0, 4, 1, 2, 3, 0]);
    assert!(!inner.right && inner.valid && (inner.coverage - 0.9).abs() < 1e-12);
    for bad in [&[0, 2, 1, 3, 0][..], &[0, 1, 0], &[], &[0, 1, 2, 3, 0, 1]] {
        assert!(!of(bad).valid && of(bad).coverage == 0., "{bad:?}");
    }
    assert_eq!(judge(task, &hull, &hull.answer, false), Judgement::default());

    let task = PlanarTask::Delaunay;
    let mesh = Instance { answer: task.solve(&points).unwrap(), points: points.clone() };
    assert_eq!(mesh.answer.len(), 12);
    let mut turned: Vec<usize> = mesh.answer[3..].to_vec();
    turned.extend(mesh.answer[..3].iter().rev());
    let all = judge(task, &mesh, &turned, true);
    assert!(all.right && all.valid && all.coverage == 1.);
    let some = judge(task, &mesh, &mesh.answer[..7], true);
    assert!(!some.right && !some.valid && some.coverage == 0.5);
    assert_eq!(judge(task, &mesh, &mesh.answer[..6], false).coverage, 0.5);

    let task = PlanarTask::Tsp;
    let tour = Instance { answer: task.solve(&points).unwrap(), points };
    let shortest = judge(task, &tour, &tour.answer, true);
    assert!(shortest.right && shortest.length.is_some());
    let longer = judge(task, &tour, &[0, 2, 1, 3, 4, 0], true);
    assert!(!longer.right && longer.valid && longer.length > shortest.length);
    for bad in [&[0, 1, 2, 3, 0][..], &[0, 1, 2, 3, 3, 0], &[0, 1, 2, 3, 4, 0, 1]] {
        assert_eq!(judge(task, &tour, bad, true), Judgement::default(), "{bad:?}");
    }
}

#[test]
fn mistakes_are_named() {
    let error = |text: &str, by: &str| {
        let good = recipe("tsp", "examples = 9").unwrap().to_toml().unwrap();
        assert!(good.contains(text), "{good}");
        PointerRecipe::parse(&good.replace(text, by), "x.toml").unwrap_err().to_string()
    };
    assert!(error("\"tsp\"", "\"tps\"").contains("tps"));
    assert!(error("\"pointer-network\"", "\"ntm\"").contains("expected \"pointer-network\""));
    assert!(error("hidden_size = 12", "hidden = 12").contains("hidden"));
    assert!(error("beam = 3", "beam = 0").contains("data.beam"));
    assert!(error("examples = 9", "examples = 0").contains("data.examples"));
    assert!(error("per_epoch = 4", "per_epoch = 0").contains("batches.per_epoch"));
    assert!(error("name = \"small\"", "name = \"a/b\"").contains("plain folder name"));
    assert!(recipe("tsp", "files = [\"../x\"]").unwrap_err().to_string().contains("../x"));
    let text = recipe("tsp", "").unwrap().to_toml().unwrap();
    let points = PointerRecipe::parse(&text.replacen("4,", "9,", 1), "x").unwrap_err().to_string();
    assert!(points.contains("data.points = [9, 6]"), "{points}");
}

fn row(task: PlanarTask, points: usize, search: &str) -> PointerRow {
    let tsp = task == PlanarTask::Tsp;
    PointerRow {
        recipe: "a.toml".into(),
        task,
        trained_from: 5,
        trained_to: 5,
        seed: 1,
        points,
        source: "generated".into(),
        search: search.into(),
        instances: 1000,
        accuracy_percent: 90.,
        coverage_percent: (!tsp).then_some(99.5),
        valid_percent: if points > 9 { 98. } else { 99.5 },
        length: tsp.then_some(2.5),
        reference_length: tsp.then_some(2.25),
        exact: tsp.then_some(points < 13),
        trained_examples: 64,
        cpu_minutes: Some(1.5),
        commit: "abc".into(),
        date: "2026-11-27".into(),
        machine: "x".into(),
    }
}

#[test]
fn tables_stand_beside_the_papers_figures() {
    let dir = tempfile::TempDir::new().unwrap();
    assert_eq!(pointer_section(dir.path()).unwrap(), "");
    let text = recipe("tsp", "").unwrap().to_toml().unwrap();
    std::fs::write(dir.path().join("a.toml"), text).unwrap();
    assert_eq!(pointer_section(dir.path()).unwrap(), "");
    let rows = [
        row(PlanarTask::ConvexHull, 10, "greedy"),
        row(PlanarTask::ConvexHull, 5, "greedy"),
        row(PlanarTask::Delaunay, 5, "beam 2"),
        row(PlanarTask::Tsp, 20, "beam 2, valid tours"),
    ];
    update_csv(&dir.path().join("results.csv"), &rows[..]).unwrap();
    let page = pointer_section(dir.path()).unwrap();
    for line in [
        "| a (seed 1) | 5 | 5 | greedy | 90.0 | 92.0 (5–50) | 99.5 | 99.6 (5–50) | 99.5 | 1000 | 1.5 |",
        "| a (seed 1) | 5 | 10 | greedy | 90.0 | 87.0 (5–50) | FAIL (99.5) | 99.8 (5–50) | 98.0 | 1000 | 1.5 |",
        "| a (seed 1) | 5 | 5 | beam 2 | 90.0 | 80.7 | 99.5 | 93.0 | 99.5 | 1000 | 1.5 |",
        "| a (seed 1) | 5 | 20 | beam 2, valid tours | 2.500 | 3.88 (5–20) | ~2.250 | 90.0 | 98.0 | 1000 | 1.5 |",
    ] {
        assert!(page.contains(line), "{line}\n{page}");
    }
}
