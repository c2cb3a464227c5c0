//! The files published with pointer networks against our solvers, in the folder `data/ptr-net` of the directory that `MNEMIC_DATA` names.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::path::PathBuf;

use mnemic_data::planar::{Instance, PlanarTask, read, to_text, tour_length};

/// A published file, unless `MNEMIC_DATA` is unset; then the test says that it is skipped.
fn published(test: &str, name: &str) -> Option<PathBuf> {
    match std::env::var_os("MNEMIC_DATA") {
        Some(root) => Some(PathBuf::from(root).join("data/ptr-net").join(name)),
        None => {
            println!("skipped: {test}: MNEMIC_DATA is not set");
            None
        }
    }
}

#[test]
fn all_published_hulls_are_ours() {
    let Some(path) = published("planar hulls", "convex_hull_5_test.txt.gz") else { return };
    let instances = read(path, PlanarTask::ConvexHull).unwrap();
    assert_eq!(instances.len(), 10_000);
    for (i, Instance { points, answer }) in instances.iter().enumerate() {
        assert_eq!(&PlanarTask::ConvexHull.solve(points).unwrap(), answer, "line {}", i + 1);
    }
}

#[test]
fn published_tours_are_as_long_as_ours() {
    let Some(path) = published("planar tours", "tsp10_format_sample.txt") else { return };
    let instances = read(&path, PlanarTask::Tsp).unwrap();
    assert_eq!(instances.len(), 4);
    for Instance { points, answer } in &instances {
        let ours = PlanarTask::Tsp.solve(points).unwrap();
        let length = |tour: &[usize]| tour_length(points, &tour[..tour.len() - 1]);
        assert!((length(&ours) - length(answer)).abs() < 1e-9);
    }
    // Written again, the file is the same text.
    let text = std::fs::read_to_string(path).unwrap();
    assert_eq!(to_text(&instances).trim_end(), text.trim_end());
}
