use super::*;

const EACH: &str = r#"
    name = "x"
    each_task = true
    restarts = 2
    [model]
    architecture = "dmn-plus"
    preset = "dmn_plus"
    [data]
    dataset = "babi"
    tasks = [1, 3]
    source = "official"
    edition = "en-10k"
    max_sentences = 70
    [train]
    epochs = 5
    optimizer = { name = "adam", lr = 0.001 }
    [paper]
    1 = 0.0
    3 = 1.1
    [task.3]
    restarts = 10
    data = { source = "generated", official_test = true, max_sentences = 130 }
"#;

fn read(text: &str, task: Option<u8>, overrides: &[&str]) -> Result<Recipe> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.toml");
    std::fs::write(&path, text).unwrap();
    let overrides: Vec<String> = overrides.iter().map(ToString::to_string).collect();
    Recipe::read_task(&path, task.map(|t| Task::new(t).unwrap()), &overrides)
}

fn refused(text: &str, task: Option<u8>) -> String {
    read(text, task, &[]).unwrap_err().to_string()
}

#[test]
fn a_file_holds_a_recipe_for_each_task() {
    let one = read(EACH, Some(1), &[]).unwrap();
    assert_eq!((one.name.as_str(), one.restarts), ("x-task1", 2));
    assert_eq!(one.data.max_sentences, Some(70));
    let three = read(EACH, Some(3), &["train.epochs=7"]).unwrap();
    assert_eq!((three.name.as_str(), three.restarts, three.train.epochs), ("x-task3", 10, 7));
    assert_eq!((three.data.source, three.data.max_sentences), (Source::Generated, Some(130)));
    // What the changes do not name stays.
    assert_eq!((three.data.edition, three.paper.len()), (Some(Edition::En10k), 1));
    assert_eq!(three.paper["3"], 1.1);
    // A recipe that was written out stands alone.
    assert_eq!(Recipe::parse(&three.to_toml().unwrap(), "again", &[]).unwrap().restarts, 10);
}

#[test]
fn what_does_not_fit_is_named() {
    assert!(refused(EACH, None).contains("for each of the tasks 1, 3: choose one"));
    assert!(refused(EACH, Some(2)).contains("no recipe for task 2 alone; its tasks are 1, 3"));
    assert!(refused(&EACH.replace("[task.3]", "[task.4]"), Some(1)).contains("4 is not one of"));
    assert!(refused(&EACH.replace("= true\n    r", "= 1\n    r"), None).contains("expected true"));
    let unknown = refused(&EACH.replace("restarts = 10", "restart = 10"), Some(3));
    assert!(unknown.contains("task 3") && unknown.contains("restart"), "{unknown}");
}
