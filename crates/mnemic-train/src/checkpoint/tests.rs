use super::*;
use serde_json::json;

fn contents(x: f32) -> Contents {
    let tensor = |x: f32| Tensor::new(&[x, -x], &Device::Cpu).unwrap();
    Contents {
        weights: BTreeMap::from([("w".to_string(), tensor(x))]),
        average: None,
        optimizer: BTreeMap::from([("sum/w".to_string(), tensor(2. * x))]),
        state: json!({"x": x}),
    }
}

/// Saves steps 1 to `n`, the second being the best.
fn saved(dir: &Path, n: u64) -> Checkpoints {
    let mut checkpoints = Checkpoints::of_run(dir);
    for step in 1..=n {
        let name = checkpoints.next_name(step).unwrap();
        let best = (step >= 2).then_some("step-000000002");
        checkpoints.save(&name, best, &contents(step as f32)).unwrap();
    }
    checkpoints
}

fn good(dir: &Path) -> (String, Vec<String>) {
    let (found, reasons) = Checkpoints::of_run(dir).newest_good().unwrap();
    let Found { checkpoint, contents } = found.unwrap();
    let x = contents.weights["w"].to_vec1::<f32>().unwrap()[0];
    assert_eq!(contents.state, json!({"x": x}));
    assert_eq!(contents.optimizer["sum/w"].to_vec1::<f32>().unwrap()[0], 2. * x);
    (checkpoint.name(), reasons)
}

#[test]
fn last_previous_and_best_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    assert!(Checkpoints::of_run(dir.path()).newest_good().unwrap().0.is_none());
    let checkpoints = saved(dir.path(), 6);
    let names = checkpoints.folders().unwrap();
    assert_eq!(names, ["step-000000002", "step-000000005", "step-000000006"]);
    assert_eq!(checkpoints.last().unwrap().unwrap().name(), "step-000000006");
    let best = checkpoints.best().unwrap().unwrap();
    assert_eq!(best.weights().unwrap()["w"].to_vec1::<f32>().unwrap(), [2., -2.]);
    assert_eq!(good(dir.path()), ("step-000000006".into(), vec![]));
    assert_eq!(checkpoints.next_name(6).unwrap(), "step-000000006.1");
}

fn cut(path: PathBuf, n: usize) {
    let bytes = fs::read(&path).unwrap();
    fs::write(path, &bytes[..bytes.len() - n]).unwrap();
}

#[test]
fn every_kind_of_damage_is_named_and_the_one_before_is_taken() {
    type Damage = fn(&Path);
    let damages: [(Damage, &str); 7] = [
        (|d| cut(d.join(WEIGHTS), 3), "weights.safetensors: expected 72 bytes, got 69"),
        (|d| fs::write(d.join(OPTIMIZER), "").unwrap(), "optimizer.safetensors: expected"),
        (|d| fs::remove_file(d.join(STATE)).unwrap(), "state.json: missing; expected"),
        (
            |d| {
                let path = d.join(WEIGHTS);
                let mut bytes = fs::read(&path).unwrap();
                *bytes.last_mut().unwrap() ^= 1;
                fs::write(path, bytes).unwrap();
            },
            "weights.safetensors: damaged: expected CRC-32C",
        ),
        (|d| fs::remove_file(d.join(files::LIST)).unwrap(), "crc32c.txt: missing"),
        (|d| cut(d.join(files::LIST), 12), "crc32c.txt: expected `mnemic checkpoint"),
        (|d| fs::remove_dir_all(d).unwrap(), "which is not there"),
    ];
    for (damage, expected) in damages {
        let dir = tempfile::tempdir().unwrap();
        saved(dir.path(), 4);
        damage(&dir.path().join("checkpoint/step-000000004"));
        let (name, reasons) = good(dir.path());
        assert_eq!(name, "step-000000003");
        assert!(reasons[0].contains(expected), "{expected}: {reasons:?}");
    }
}

#[test]
fn nothing_readable_is_an_error_with_all_reasons() {
    let dir = tempfile::tempdir().unwrap();
    saved(dir.path(), 2);
    for step in [1, 2] {
        let path = dir.path().join(format!("checkpoint/step-00000000{step}/{STATE}"));
        fs::write(path, "{").unwrap();
    }
    let error = Checkpoints::of_run(dir.path()).newest_good().err().unwrap().to_string();
    assert!(error.contains("no checkpoint can be read"), "{error}");
    assert!(error.contains("000000001/state.json") && error.contains("000000002/state.json"));
}

/// A crash after each single step of saving leaves the old or the new checkpoint.
#[test]
fn leftovers_of_a_crash_do_no_harm() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("checkpoint");
    saved(dir.path(), 3);
    // Half-written folder.
    fs::create_dir(root.join(".new-step-000000004")).unwrap();
    fs::write(root.join(".new-step-000000004").join(WEIGHTS), "half").unwrap();
    assert_eq!(good(dir.path()).0, "step-000000003");
    // Complete folder that `last` does not name yet, and a half-written pointer.
    let mut checkpoints = Checkpoints::of_run(dir.path());
    checkpoints.resume_at("step-000000003", Some("step-000000002")).unwrap();
    assert!(!root.join(".new-step-000000004").exists());
    files::write_dir(&root.join("step-000000004"), &contents(4.).to_files().unwrap()).unwrap();
    fs::write(root.join("last.tmp"), "ste").unwrap();
    assert_eq!(good(dir.path()).0, "step-000000003");
    // The run goes on from 3 and comes to 4 again.
    let name = checkpoints.next_name(4).unwrap();
    assert_eq!(name, "step-000000004.1");
    checkpoints.save(&name, Some("step-000000002"), &contents(4.)).unwrap();
    assert_eq!(checkpoints.folders().unwrap(), ["step-000000002", "step-000000003", name.as_str()]);
    // A pointer with rubbish in it.
    fs::write(root.join("last"), "../../etc\n").unwrap();
    let (found, reasons) = good(dir.path());
    assert_eq!(found, name);
    assert!(reasons[0].contains("expected the name of a folder"), "{reasons:?}");
}
