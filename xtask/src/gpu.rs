//! `cargo xtask gpu`: what runs on a machine that has a GPU and no Rust, in one folder.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

use crate::bench::record;
use crate::flags::Args;
use crate::process;

/// The script beside the programs.
const RUN: &str = include_str!("gpu.sh");

/// The text of `cargo xtask gpu --help`.
pub(crate) fn help() -> String {
    "Builds the release profile with the feature `cuda` (`nvcc` must be on the PATH, or named by NVCC or\n\
     CUDA_HOME; no GPU is needed) and packs into a folder, and into a .tar.gz beside it: the tests of\n\
     the kernels, the workspace's tests on CUDA, `bench-kernels` with its PyTorch peer, `mnemic` with\n\
     the recipes, and `run.sh`, which starts them on a machine that has the NVIDIA driver, and cuBLAS\n\
     and cuRAND of the system or of PyTorch's wheels:\n\n\
     \x20 run.sh tests [FILTER]       all tests that use the device\n\
     \x20 run.sh bench NAME [ARGS]    `bench-kernels` beside PyTorch; writes NAME.json and NAME.md\n\
     \x20 run.sh train RECIPE [ARGS]  `mnemic train --device cuda`; likewise the other commands\n\
     \x20 run.sh sanitize [FILTER]    the tests of the kernels under compute-sanitizer"
        .into()
}

/// Which of cargo's products go into the folder, and under which name.
struct Product {
    /// The target's name, and whether it is a test.
    target: &'static str,
    test: bool,
    file: &'static str,
}

const PRODUCTS: &[Product] = &[
    Product { target: "mnemic_kernels", test: true, file: "kernels-tests" },
    Product { target: "cuda", test: true, file: "workspace-tests" },
    Product { target: "bench-kernels", test: false, file: "bench-kernels" },
    Product { target: "mnemic", test: false, file: "mnemic" },
];

/// One command, so that candle is compiled once.
const BUILD: &[&str] = &[
    "build",
    "--release",
    "--features",
    "cuda",
    "--bins",
    "--tests",
    "--message-format=json-render-diagnostics",
    "--package=mnemic-kernels",
    "--package=mnemic-tests",
    "--package=mnemic-benches",
    "--package=mnemic-cli",
];

/// Runs the verb.
pub(crate) fn run(args: Args) -> Result<ExitCode> {
    let root = process::root()?;
    let out = match args.value("--out") {
        Some(out) => std::path::absolute(out)?,
        None => root.join("target/gpu"),
    };
    let built = build(&root)?;
    let bin = out.join("bin");
    std::fs::create_dir_all(&bin).with_context(|| format!("cannot make {}", bin.display()))?;
    for (product, path) in PRODUCTS.iter().zip(&built) {
        place(path, &bin.join(product.file))?;
    }
    copy_texts(&root.join("benches/peers"), &out.join("peers"), "py")?;
    copy_texts(&root.join("models"), &out.join("models"), "toml")?;
    let facts: Vec<String> = record::facts(&root)
        .into_iter()
        // The machine is the one that runs it.
        .filter(|(key, _)| *key != "machine" && *key != "date")
        .map(|(key, value)| format!("{key}={value}\n"))
        .collect();
    write(&out.join("about"), &facts.concat())?;
    let script = out.join("run.sh");
    write(&script, RUN)?;
    executable(&script)?;
    println!("packed: {} ({:.0} MB)", out.display(), size(&out)? as f64 / 1e6);
    if let Some(archive) = archive(&out) {
        let bytes = std::fs::metadata(&archive)?.len();
        println!("the same: {} ({:.0} MB)", archive.display(), bytes as f64 / 1e6);
    }
    Ok(ExitCode::SUCCESS)
}

/// Builds; the paths of [`PRODUCTS`] in their order.
fn build(root: &Path) -> Result<Vec<PathBuf>> {
    let mut command = process::cargo_in(root);
    command.args(BUILD);
    let mut found = vec![None; PRODUCTS.len()];
    let status = process::each_line(&mut command, |line| {
        for (product, found) in PRODUCTS.iter().zip(&mut found) {
            if let Some(path) = executable_of(line, product) {
                *found = Some(path);
            }
        }
    })?;
    if !status.success() {
        bail!("`{}` failed ({status})", process::shown(&command));
    }
    let named = |(product, path): (&Product, Option<PathBuf>)| {
        path.with_context(|| format!("cargo built no {}", product.file))
    };
    PRODUCTS.iter().zip(found).map(named).collect()
}

/// The path that one of cargo's messages gives for a product. A message is an object on one line; its fields are found as text,
/// which spares this crate a reader of JSON.
fn executable_of(message: &str, product: &Product) -> Option<PathBuf> {
    let has = |field: &str| message.contains(field);
    let name = format!("\"name\":\"{}\"", product.target);
    let test = format!("\"test\":{}}}", product.test);
    if !has("\"reason\":\"compiler-artifact\"") || !has(&name) || !has(&test) {
        return None;
    }
    let (_, rest) = message.split_once("\"executable\":\"")?;
    let (path, _) = rest.split_once('"')?;
    Some(PathBuf::from(path.replace("\\\\", "\\")))
}

/// The folder as one compressed file beside it, about a quarter of its size; `None` where there is no `tar`.
fn archive(folder: &Path) -> Option<PathBuf> {
    let (above, name) = (folder.parent()?, folder.file_name()?);
    let archive = folder.with_extension("tar.gz");
    let mut command = Command::new("tar");
    command.arg("-C").arg(above).arg("-czf").arg(&archive).arg(name);
    command.status().is_ok_and(|status| status.success()).then_some(archive)
}

/// Copies a program without its symbols, which are two thirds of it.
fn place(from: &Path, to: &Path) -> Result<()> {
    let stripped = Command::new("strip").arg("-o").arg(to).arg(from).status();
    if stripped.is_ok_and(|status| status.success()) {
        return Ok(());
    }
    eprintln!("{} is packed with its symbols: there is no `strip` here", to.display());
    copy(from, to)
}

/// Copies the files with an extension, in the same folders.
fn copy_texts(from: &Path, to: &Path, extension: &str) -> Result<()> {
    let entries = from.read_dir().with_context(|| format!("cannot read {}", from.display()))?;
    for entry in entries {
        let path = entry?.path();
        let target = to.join(path.file_name().unwrap_or_default());
        if path.is_dir() {
            copy_texts(&path, &target, extension)?;
        } else if path.extension().is_some_and(|e| e == extension) {
            std::fs::create_dir_all(to).with_context(|| format!("cannot make {}", to.display()))?;
            copy(&path, &target)?;
        }
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::copy(from, to).with_context(|| format!("cannot write {}", to.display()))?;
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn executable(path: &Path) -> Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))?;
    }
    #[cfg(not(unix))]
    let _ = path;
    Ok(())
}

fn size(folder: &Path) -> Result<u64> {
    let mut sum = 0;
    for entry in folder.read_dir()? {
        let entry = entry?;
        sum += match entry.file_type()?.is_dir() {
            true => size(&entry.path())?,
            false => entry.metadata()?.len(),
        };
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEST: &str = r#"{"reason":"compiler-artifact","target":{"kind":["lib"],"name":"mnemic_kernels"},"profile":{"opt_level":"3","test":true},"executable":"/t/release/deps/mnemic_kernels-1"}"#;
    const LIB: &str = r#"{"reason":"compiler-artifact","target":{"kind":["lib"],"name":"mnemic_kernels"},"profile":{"opt_level":"3","test":false},"executable":null}"#;

    #[test]
    fn programs_are_found_in_the_messages_of_cargo() {
        let path = executable_of(TEST, &PRODUCTS[0]);
        assert_eq!(path, Some(PathBuf::from("/t/release/deps/mnemic_kernels-1")));
        assert_eq!(executable_of(LIB, &PRODUCTS[0]), None);
        assert_eq!(executable_of(TEST, &PRODUCTS[3]), None);
    }

    #[test]
    fn every_program_is_started_by_the_script() {
        for product in PRODUCTS {
            assert!(RUN.contains(&format!("bin/{}", product.file)), "{}", product.file);
        }
    }
}
