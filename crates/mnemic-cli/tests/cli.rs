//! The program as a user runs it.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

const TINY: &str = r#"
name = "tiny"
[model]
architecture = "dmn-plus"
preset = "dmn_plus"
hidden_size = 8
[data]
dataset = "babi"
tasks = [1]
source = "generated"
train_questions = 300
test_questions = 50
[batches]
size = 10
[train]
epochs = 4
checkpoint_every_steps = 3
optimizer = { name = "adam", lr = 0.003 }
"#;

fn mnemic(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mnemic"));
    command.current_dir(folder).args(args).env_remove("MNEMIC_DATA").stdin(Stdio::null());
    command
}

fn run(folder: &Path, args: &[&str]) -> Output {
    mnemic(folder, args).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Standard output of a command that must succeed.
fn succeed(folder: &Path, args: &[&str]) -> String {
    let output = run(folder, args);
    assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// Standard error of a command that must fail, without a panic.
fn fail(folder: &Path, args: &[&str]) -> String {
    let output = run(folder, args);
    let error = text(&output.stderr);
    assert!(!output.status.success(), "{args:?} succeeded");
    assert!(!error.contains("panicked"), "{error}");
    error
}

fn with_recipe() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("tiny.toml"), TINY).unwrap();
    let path = folder.path().to_path_buf();
    (folder, path)
}

#[test]
fn train_eval_ask_inspect() {
    let (_guard, folder) = with_recipe();
    let table = succeed(&folder, &["train", "tiny.toml", "--run", "run"]);
    assert!(table.contains("task") && table.contains("50"), "{table}");
    for file in [
        "recipe.toml",
        "result.json",
        "model/config.json",
        "model/model.safetensors",
        "model/README.md",
    ] {
        assert!(folder.join("run").join(file).exists(), "{file}");
    }
    assert_eq!(succeed(&folder, &["eval", "run"]), table);

    std::fs::write(
        folder.join("story.txt"),
        "1 Mary moved to the garden.\n2 John went to the kitchen.\n3 Where is Mary?\tgarden\t1\n",
    )
    .unwrap();
    let json = succeed(&folder, &["ask", "run", "--story", "story.txt", "--json"]);
    let value: serde_json::Value = serde_json::from_str(&json).unwrap();
    let trace = &value["traces"][0];
    assert_eq!(trace["expected"], "garden");
    assert_eq!(trace["passes"].as_array().unwrap().len(), 3);
    assert_eq!(trace["passes"][0]["weights"].as_array().unwrap().len(), 2);
    let drawn =
        succeed(&folder, &["ask", "run", "--story", "story.txt", "--question", "Where is John?"]);
    assert!(drawn.contains("Where is Mary") || drawn.contains("where is mary"), "{drawn}");
    assert!(drawn.contains("john?"), "{drawn}");

    succeed(&folder, &["inspect", "run", "--html", "page/attention.html", "--examples", "3"]);
    let page = std::fs::read_to_string(folder.join("page/attention.html")).unwrap();
    assert!(page.contains("</html>") && !page.contains("http://") && page.contains("pass 1"));
    assert!(page.contains("wrong answers (%)"), "the learning curve is missing");

    let wrong = succeed(&folder, &["inspect", "run", "--card", "card", "--examples", "1"]);
    assert!(wrong.contains("| expected |") || wrong.contains("No test question"), "{wrong}");
    for picture in ["learning-curve.svg", "example-1.svg"] {
        let picture = std::fs::read_to_string(folder.join("card").join(picture)).unwrap();
        assert!(picture.starts_with("<svg xmlns=") && picture.ends_with("</svg>\n"));
    }
    assert!(fail(&folder, &["inspect", "run"]).contains("--html"));
}

#[test]
fn recipes_for_fine_tuning_are_told_apart() {
    let (_guard, folder) = with_recipe();
    let recipe = "name = 'x'\n[model]\nfrom = 'no-such-model'\nhead = 'sequence-classification'\n\
                  [data]\ndataset = 'trec'\nmax_length = 16\n[train]\nepochs = 1\noptimizer = { name = 'sgd', lr = 1 }\n";
    std::fs::write(folder.join("fine.toml"), recipe).unwrap();
    let error = fail(&folder, &["train", "fine.toml"]);
    assert!(error.contains("model.from") && error.contains("no-such-model"), "{error}");
    let error = fail(&folder, &["train", "fine.toml", "--set", "model.form=x"]);
    assert!(error.contains("fine.toml") && error.contains("unknown field `form`"), "{error}");
    assert!(fail(&folder, &["train", "fine.toml", "--task", "1"]).contains("has no tasks"));
    std::fs::write(folder.join("fine.toml"), recipe.replace("trec", "imdb")).unwrap();
    let error = fail(&folder, &["train", "fine.toml"]);
    assert!(error.contains("or one of trec, sst2, wnut17"), "{error}");
    assert!(!folder.join("runs").exists());
}

#[test]
fn a_story_on_standard_input() {
    let (_guard, folder) = with_recipe();
    succeed(&folder, &["train", "tiny.toml", "--run", "run", "--set", "train.epochs=1"]);
    let mut child = mnemic(&folder, &["ask", "run"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let story = "Mary moved to the garden.\nWhere is Mary?\n\nJohn went to the flurb.\n";
    child.stdin.take().unwrap().write_all(story.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(text(&output.stdout).contains("mary?"));
    let error = text(&output.stderr);
    assert!(
        !output.status.success() && error.contains("line 4") && error.contains("flurb"),
        "{error}"
    );
}

#[test]
fn a_killed_run_resumes_to_the_same_bits() {
    let (_guard, folder) = with_recipe();
    // Long enough that several kills hit, however fast the machine is.
    let train = |run| ["train", "tiny.toml", "--run", run, "--quiet", "--set", "train.epochs=40"];
    succeed(&folder, &train("whole"));
    let mut kills = 0;
    for round in 0..200u64 {
        let mut child = mnemic(&folder, &train("killed")).stdout(Stdio::null()).spawn().unwrap();
        // Kill at an irregular moment, later each time so that the run ends at last.
        let wait = Duration::from_millis(150 + 97 * round + (round * 7919) % 61);
        let start = Instant::now();
        let done = loop {
            if let Some(status) = child.try_wait().unwrap() {
                assert!(status.success());
                break true;
            }
            if start.elapsed() > wait {
                child.kill().unwrap();
                child.wait().unwrap();
                kills += 1;
                break false;
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        if done {
            break;
        }
    }
    let weights =
        |run: &str| std::fs::read(folder.join(run).join("model/model.safetensors")).unwrap();
    assert!(weights("whole") == weights("killed"), "weights differ after {kills} kills");
    assert!(kills > 0, "the run ended before it could be killed");
}

#[cfg(unix)]
#[test]
fn a_signal_saves_and_says_how_to_go_on() {
    let (_guard, folder) = with_recipe();
    let long = ["train", "tiny.toml", "--run", "run", "--set", "train.epochs=5000"];
    let child =
        mnemic(&folder, &long).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let start = Instant::now();
    while !folder.join("run/seed-0/checkpoint/last").exists() {
        assert!(start.elapsed() < Duration::from_secs(120), "no checkpoint");
        std::thread::sleep(Duration::from_millis(10));
    }
    Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    assert!(text(&output.stderr).contains("the same command goes on"), "{}", text(&output.stderr));
}

#[test]
fn a_demo_of_a_few_steps() {
    let folder = tempfile::tempdir().unwrap();
    let small = [
        "demo",
        "--set",
        "data.train_questions=200",
        "--set",
        "data.test_questions=40",
        "--set",
        "train.epochs=1",
        "--set",
        "model.hidden_size=8",
    ];
    for _ in 0..2 {
        // The second demo replaces the first.
        let drawn = succeed(folder.path(), &small);
        assert!(drawn.contains("pass 3") && drawn.contains("A:"), "{drawn}");
    }
    assert!(folder.path().join("runs/demo/attention.html").exists());
    std::fs::create_dir_all(folder.path().join("mine")).unwrap();
    std::fs::write(folder.path().join("mine/thesis.txt"), "precious").unwrap();
    let error = fail(folder.path(), &["demo", "--run", "mine"]);
    assert!(error.contains("something other than a demo"), "{error}");
    assert!(folder.path().join("mine/thesis.txt").exists());
}

#[test]
fn data_and_models() {
    let folder = tempfile::tempdir().unwrap();
    let stories = succeed(folder.path(), &["data", "generate", "--task", "15", "--questions", "8"]);
    assert_eq!(stories.lines().filter(|l| l.contains('\t')).count(), 8);
    assert_eq!(
        stories,
        succeed(folder.path(), &["data", "generate", "--task", "qa15", "--questions", "8"])
    );
    let list = succeed(folder.path(), &["data", "list"]);
    assert!(list.contains("two-supporting-facts") && list.contains("no official files"), "{list}");
    let stats =
        succeed(folder.path(), &["data", "stats", "--task", "1", "--questions", "100", "--json"]);
    serde_json::from_str::<serde_json::Value>(&stats).unwrap();
    let models = succeed(folder.path(), &["models", "--json"]);
    let models: serde_json::Value = serde_json::from_str(&models).unwrap();
    assert_eq!(models["presets"].as_array().unwrap().len(), 7);
}

#[test]
fn errors_name_the_place() {
    let (_guard, folder) = with_recipe();
    let run = |set: &str| fail(&folder, &["train", "tiny.toml", "--run", "run", "--set", set]);
    assert!(run("train.epoch=3").contains("epoch"));
    assert!(run("model.hiden_size=3").contains("hidden_size"), "{}", run("model.hiden_size=3"));
    assert!(run("model.preset=dmn_pluss").contains("dmn_plus"));
    assert!(run("data.tasks=[21]").contains("21"));
    assert!(run("batches.size=0").contains("batches.size"));
    assert!(run("nonsense").contains("KEY.KEY=VALUE"));
    assert!(run("data.source=official").contains("edition"));
    let missing = fail(
        &folder,
        &["train", "tiny.toml", "--set", "data.source=official", "--set", "data.edition=en"],
    );
    assert!(missing.contains("--data") && missing.contains("MNEMIC_DATA"), "{missing}");
    assert!(fail(&folder, &["train", "absent.toml"]).contains("absent.toml"));
    assert!(fail(&folder, &["ask", "nowhere"]).contains("nowhere"));
    std::fs::write(folder.join("bad.toml"), TINY.replace("epochs = 4", "epochs = \"four\""))
        .unwrap();
    let bad = fail(&folder, &["train", "bad.toml"]);
    assert!(bad.contains("bad.toml") && bad.contains("line"), "{bad}");
}

#[test]
fn damaged_models_are_refused() {
    let (_guard, folder) = with_recipe();
    succeed(&folder, &["train", "tiny.toml", "--run", "run", "--set", "train.epochs=1"]);
    let weights = folder.join("run/model/model.safetensors");
    let bytes = std::fs::read(&weights).unwrap();
    std::fs::write(&weights, &bytes[..bytes.len() / 2]).unwrap();
    assert!(fail(&folder, &["eval", "run"]).contains("model.safetensors"));
    std::fs::write(&weights, &bytes).unwrap();
    std::fs::write(folder.join("run/model/vocab.json"), "{").unwrap();
    assert!(fail(&folder, &["eval", "run"]).contains("vocab.json"));
}

#[test]
fn a_bench_trains_a_file_of_recipes() {
    let folder = tempfile::tempdir().unwrap();
    let models = folder.path().join("models/tiny");
    std::fs::create_dir_all(&models).unwrap();
    let each = TINY.replace("tasks = [1]", "tasks = [1, 6]").replace("epochs = 4", "epochs = 1");
    let each =
        each.replace("[model]", "title = 'Tiny'\ntable = 'generated'\neach_task = true\n[model]");
    std::fs::write(models.join("each.toml"), each + "[paper]\n1 = 0.5\n6 = 0.5\n").unwrap();
    std::fs::write(
        folder.path().join("README.md"),
        "a\n<!-- bAbI Trained on 10,000 generated questions a task -->\n<!-- end -->\nb\n",
    )
    .unwrap();
    let several = fail(folder.path(), &["train", "models/tiny/each.toml"]);
    assert!(several.contains("each of the tasks 1, 6: choose one"), "{several}");
    let listed = succeed(folder.path(), &["bench", "babi", "--list", "--tasks", "6"]);
    assert!(listed.starts_with("tiny-task6") && listed.lines().count() == 1, "{listed}");

    let page = succeed(folder.path(), &["bench", "babi", "--jobs", "2"]);
    assert!(page.contains("| task | Tiny |") && page.contains("| 6 yes/no questions |"), "{page}");
    let read = |path: &str| std::fs::read_to_string(folder.path().join(path)).unwrap();
    assert_eq!(read("models/babi.md"), page);
    assert!(read("README.md").contains("| 1 single supporting fact |"));
    let csv = read("models/tiny/results.csv");
    assert_eq!(csv.lines().count(), 3, "{csv}");
    // What is done is not done again: the result, with its times, stays the same.
    let before = read("runs/tiny-task1/result.json");
    succeed(folder.path(), &["bench", "babi", "--jobs", "1"]);
    assert_eq!(read("runs/tiny-task1/result.json"), before);
    assert!(fail(folder.path(), &["bench", "babi", "--models", "lstm"]).contains("no recipe fits"));
    // A run that fails is told, and the others go on.
    std::fs::remove_dir_all(folder.path().join("runs/tiny-task6")).unwrap();
    std::fs::write(folder.path().join("runs/tiny-task1/recipe.toml"), "name = 1").unwrap();
    let failed = fail(folder.path(), &["bench", "babi"]);
    assert!(
        failed.contains("failed: tiny-task1") && failed.contains("tiny-task6: error"),
        "{failed}"
    );
}

/// A folder below the shared data, or nothing where there is none.
fn shared(test: &str, below: &str) -> Option<String> {
    match std::env::var_os("MNEMIC_DATA") {
        Some(data) => Some(Path::new(&data).join(below).display().to_string()),
        None => {
            eprintln!("skipped: {test}: MNEMIC_DATA is not set");
            None
        }
    }
}

#[test]
fn generate_and_translate() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let (Some(stories), Some(g2p)) = (
        shared("generate_and_translate", "weights/stories260K"),
        shared("generate_and_translate", "weights/g2p-en"),
    ) else {
        return;
    };
    let story = ["generate", &stories, "The sun", "--max-new-tokens", "10"];
    let text = succeed(folder, &story);
    assert!(text.starts_with("The sun was shining and the sky"), "{text}");
    assert_eq!(succeed(folder, &[&story[..], &["--no-stream"]].concat()), text);
    let json =
        succeed(folder, &[&story[..], &["--json", "--beams", "2", "--n-best", "2"]].concat());
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json[0]["text"], "The sun");
    assert_eq!(json[0]["written"].as_array().unwrap().len(), 2);
    assert_eq!(json[0]["written"][0]["tokens"], 10);
    std::fs::write(folder.join("words.txt"), "candle\n\nmemory\n").unwrap();
    let words = succeed(folder, &["translate", &g2p, "--file", "words.txt"]);
    assert_eq!(words, "K AE1 N D AH0 L\nM EH1 M ER0 IY0\n");
    let mut child = mnemic(folder, &["translate", &g2p]);
    let mut child = child.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"candle\nmemory\n").unwrap();
    assert_eq!(text_of(child.wait_with_output().unwrap()), words);
    for (args, expected) in [
        (vec!["--beams", "2", "--temperature", "0.5"], "cannot be used with"),
        (vec!["--n-best", "2"], "--n-best 2"),
        (vec!["--top-p", "1.5"], "top_p"),
        (vec!["--length-penalty", "2"], "--beams"),
        (vec!["--seed", "2"], "--temperature"),
        (vec!["--beams", "2", "--stop", "x"], "one beam"),
    ] {
        let error = fail(folder, &[&story[..], &args].concat());
        assert!(error.contains(expected), "{args:?}: {error}");
    }
    let error = fail(folder, &["generate", &stories]);
    assert!(error.contains("standard input"), "{error}");
    // Wrong settings are told before the prompt is printed.
    let output = mnemic(folder, &[&story[..], &["--temperature", "0"]].concat()).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("temperature: expected a number above 0, got 0"), "{error}");
    assert!(!output.status.success() && output.stdout.is_empty(), "{output:?}");
}

fn text_of(output: Output) -> String {
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}
