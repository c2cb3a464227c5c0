//! Compiles the CUDA kernels: with `nvcc` for the feature `cuda`, with a C++ compiler for `cuda-emulation`.

use std::error::Error;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::{env, fs, thread};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rustc-check-cfg=cfg(cuda_path)");
    println!("cargo::rerun-if-changed=build.rs");
    let feature = |name: &str| env::var_os(format!("CARGO_FEATURE_{name}")).is_some();
    let (cuda, emulation) = (feature("CUDA"), feature("CUDA_EMULATION"));
    if !cuda && !emulation {
        return Ok(());
    }
    println!("cargo::rustc-cfg=cuda_path");
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").ok_or("no manifest folder")?);
    println!("cargo::rerun-if-changed={}", root.join("cuda").display());
    let mut sources = vec![];
    find(&root.join("src"), &mut sources)?;
    sources.sort();
    for source in &sources {
        println!("cargo::rerun-if-changed={}", source.display());
    }
    if cuda {
        compile_for_devices(&sources, &root.join("cuda"), &out)?;
    }
    #[cfg(feature = "cuda-emulation")]
    compile_for_the_cpu(&sources, &root.join("cuda"), &out)?;
    Ok(())
}

/// All `.cu` files below a folder.
fn find(folder: &Path, found: &mut Vec<PathBuf>) -> Result<(), Box<dyn Error>> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            find(&path, found)?;
        } else if path.extension().is_some_and(|e| e == "cu") {
            found.push(path);
        }
    }
    Ok(())
}

fn stem(path: &Path) -> String {
    path.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default()
}

/// One image a file: machine code for Hopper, and PTX that the driver compiles for every device from 8.0 on. Writes
/// `modules.rs`, the list of images.
fn compile_for_devices(
    sources: &[PathBuf],
    include: &Path,
    out: &Path,
) -> Result<(), Box<dyn Error>> {
    for name in ["NVCC", "CUDA_HOME", "CUDA_COMPUTE_CAP"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    let nvcc = match (env::var_os("NVCC"), env::var_os("CUDA_HOME")) {
        (Some(nvcc), _) => PathBuf::from(nvcc),
        (None, Some(home)) => Path::new(&home).join("bin/nvcc"),
        (None, None) => PathBuf::from("nvcc"),
    };
    let jobs = env::var("NUM_JOBS").ok().and_then(|n| n.parse().ok()).unwrap_or(1usize);
    let (queue, errors) = (Mutex::new(sources.to_vec()), Mutex::new(vec![]));
    thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let Some(source) = queue.lock().ok().and_then(|mut q| q.pop()) else { return };
                    if let Err(e) = compile_image(&nvcc, &source, include, out)
                        && let Ok(mut errors) = errors.lock()
                    {
                        errors.push(e.to_string());
                    }
                }
            });
        }
    });
    let errors = errors.into_inner()?;
    if !errors.is_empty() {
        return Err(errors.join("\n").into());
    }
    let mut list = String::from("/// The image of each file of kernels.\n");
    list += "static MODULES: &[(&str, &[u8])] = &[\n";
    for source in sources {
        let name = stem(source);
        let _ = writeln!(
            list,
            "({name:?}, include_bytes!(concat!(env!(\"OUT_DIR\"), \"/{name}.fatbin\"))),"
        );
    }
    fs::write(out.join("modules.rs"), list + "];\n")?;
    Ok(())
}

fn compile_image(
    nvcc: &Path,
    source: &Path,
    include: &Path,
    out: &Path,
) -> Result<(), Box<dyn Error>> {
    let run = Command::new(nvcc)
        .args(["-std=c++17", "-O3", "--fatbin"])
        .args(["-gencode", "arch=compute_80,code=compute_80"])
        .args(["-gencode", "arch=compute_90,code=sm_90"])
        .arg("-I")
        .arg(include)
        .arg(source)
        .arg("-o")
        .arg(out.join(stem(source)).with_extension("fatbin"))
        .output()
        .map_err(|e| format!("{}: {e}; the feature `cuda` needs nvcc", nvcc.display()))?;
    if !run.status.success() {
        let text = String::from_utf8_lossy(&run.stderr).into_owned();
        return Err(format!("{}:\n{text}", source.display()).into());
    }
    Ok(())
}

/// All kernels as one library for the CPU.
#[cfg(feature = "cuda-emulation")]
fn compile_for_the_cpu(
    sources: &[PathBuf],
    include: &Path,
    out: &Path,
) -> Result<(), Box<dyn Error>> {
    let mut all = String::new();
    for source in sources {
        let _ = writeln!(all, "#include \"{}\"", source.display());
    }
    let path = out.join("emulated.cpp");
    fs::write(&path, all)?;
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .opt_level(2)
        .flag("-Wno-unknown-pragmas")
        .flag("-Wno-unused-local-typedefs")
        .include(include)
        .file(&path)
        .compile("emulated");
    Ok(())
}
