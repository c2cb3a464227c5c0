//! `cargo xtask interop`: whether Hugging Face's own library reads what `save_pretrained` writes.

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Result, bail};

use crate::bench::{python, record};
use crate::flags::Args;
use crate::process;

/// Where the folders are written, below the workspace's root.
const FOLDER: &str = "target/interop";

/// The script that loads them.
const SCRIPT: &str = "tests/python/load_saved.py";

/// The text of `cargo xtask interop --help`.
pub(crate) fn help() -> String {
    format!(
        "Reads the small Hugging Face checkpoints below MNEMIC_DATA, one of every class, writes each with\n\
         `save_pretrained` into a folder of {FOLDER}, and loads that with `transformers` (sentence\n\
         encoders, where MNEMIC_MINILM names the folder of all-MiniLM-L6-v2, with\n\
         `sentence-transformers`). Fails when a key is missing, unexpected or of another shape, or an\n\
         output differs by more than 1e-5. Python is that of {} or of `.venv`, as in `bench --peers`.",
        python::PYTHON
    )
}

/// Runs the verb.
pub(crate) fn run(args: Args) -> Result<ExitCode> {
    let root = process::root()?;
    if std::env::var_os("MNEMIC_DATA").is_none_or(|data| data.is_empty()) {
        bail!("`cargo xtask interop` needs MNEMIC_DATA, the folder that holds `fixtures/hf`");
    }
    let label = args.value("--save");
    let kept = label.map(|label| record::path(&root, "interop", label, "md")).transpose()?;
    let python = python::interpreter(&root)?;
    // What an earlier run left would be checked as well.
    let folder = root.join(FOLDER);
    if folder.exists() {
        std::fs::remove_dir_all(&folder)?;
    }
    process::succeed(&mut saving(&root))?;
    let mut text = record::head(&root);
    let mut loading = loading(&root, &python);
    let status = process::each_line(&mut loading, |line| {
        println!("{line}");
        let _ = writeln!(text, "{line}");
    })?;
    if !status.success() {
        bail!("`{}` failed ({status})", process::shown(&loading));
    }
    if let Some(path) = kept {
        record::save(&path, &text)?;
        println!("kept in {}", path.display());
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes the folders.
fn saving(root: &Path) -> Command {
    let mut command = process::cargo_in(root);
    command.args([
        "run",
        "--package",
        "mnemic-models",
        "--example",
        "save_pretrained",
        "--",
        FOLDER,
    ]);
    command
}

fn loading(root: &Path, python: &Path) -> Command {
    let mut command = Command::new(python);
    command.current_dir(root).args([SCRIPT, FOLDER]);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_programs_are_told_the_same_folder() {
        let saving = process::shown(&saving(Path::new(".")));
        let loading = process::shown(&loading(Path::new("."), Path::new("python")));
        assert!(saving.ends_with(&format!("--example save_pretrained -- {FOLDER}")), "{saving}");
        assert_eq!(loading, format!("python {SCRIPT} {FOLDER}"));
        assert!(process::root().unwrap().join(SCRIPT).is_file());
    }
}
