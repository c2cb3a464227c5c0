use std::collections::BTreeSet;

use robust::{Coord, incircle};

use super::*;

fn instances(task: PlanarTask, n: usize, count: u64) -> impl Iterator<Item = Instance> {
    (0..count).map(move |i| task.instance((n, n), 7, i).unwrap())
}

/// All orders of 1 to n - 1 behind 0.
fn tours(n: usize) -> Vec<Vec<usize>> {
    let mut all = vec![vec![0]];
    for i in 1..n {
        let put = |tour: &Vec<usize>, at: usize| {
            let mut tour = tour.clone();
            tour.insert(at, i);
            tour
        };
        all = all.iter().flat_map(|t| (1..=t.len()).map(move |at| put(t, at))).collect();
    }
    all
}

#[test]
fn hulls_hold_all_points_and_no_other_polygon_is_larger() {
    for n in [2, 3, 5, 9, 60] {
        for Instance { points, answer } in instances(PlanarTask::ConvexHull, n, 60) {
            let (last, hull) = answer.split_last().unwrap();
            assert_eq!(*last, hull[0]);
            assert_eq!(hull.iter().min(), hull.first());
            if n < 4 {
                assert_eq!(hull.len(), n);
                continue;
            }
            assert!(is_simple(&points, hull));
            let area = polygon_area(&points, hull);
            // Cutting a corner off makes it smaller, and so does going through any other point.
            for k in 0..hull.len() {
                let mut smaller = hull.to_vec();
                let cut = smaller.remove(k);
                assert!(polygon_area(&points, &smaller) < area, "{cut} of {points:?}");
            }
            for p in (0..n).filter(|p| !hull.contains(p)) {
                for k in 0..hull.len() {
                    let edge = [hull[k], hull[(k + 1) % hull.len()], p];
                    assert!(polygon_area(&points, &edge) > 0.);
                }
            }
        }
    }
}

#[test]
fn hulls_of_unusual_points() {
    let on_a_line = [[0., 0.], [0.1, 0.1], [0.3, 0.3], [0.2, 0.2]];
    assert_eq!(convex_hull(&on_a_line), [0, 2]);
    assert_eq!(convex_hull(&[[0.5, 0.5]; 4]), [0]);
    let twice = [[1., 0.], [0., 0.], [0., 1.], [1., 0.], [0., 0.]];
    assert_eq!(convex_hull(&twice), [0, 2, 1]);
    assert!(delaunay(&on_a_line).is_empty());
}

#[test]
fn circumcircles_of_triangles_are_empty_and_triangles_are_as_many_as_euler_says() {
    let coord = |[x, y]: Point| Coord { x, y };
    for n in [3, 4, 5, 10, 50] {
        for Instance { points, answer } in instances(PlanarTask::Delaunay, n, 60) {
            let h = convex_hull(&points).len();
            assert_eq!(answer.len(), 3 * (2 * n - 2 - h));
            assert!(answer.len() <= PlanarTask::Delaunay.longest_answer(n));
            let triangles: Vec<&[usize]> = answer.chunks(3).collect();
            assert!(triangles.is_sorted() && triangles.iter().all(|t| t.is_sorted()));
            let mut area = 0.;
            for t in triangles {
                let turn = polygon_area(&points, t);
                let [a, b, c] = [t[0], t[1], t[2]].map(|i| coord(points[i]));
                area += turn.abs();
                for p in (0..n).filter(|p| !t.contains(p)) {
                    assert!(incircle(a, b, c, coord(points[p])) * turn < 0.);
                }
            }
            let whole = polygon_area(&points, &convex_hull(&points));
            assert!((area - whole).abs() < 1e-9, "{area} of {whole}");
        }
    }
}

#[test]
fn tours_are_the_shortest_of_all() {
    for n in [2, 3, 4, 5, 7] {
        for Instance { points, answer } in instances(PlanarTask::Tsp, n, 20) {
            let (last, tour) = answer.split_last().unwrap();
            assert_eq!((*last, tour[0]), (0, 0));
            let length = tour_length(&points, tour);
            let shortest = tours(n).iter().map(|t| tour_length(&points, t)).fold(9., f64::min);
            assert!((length - shortest).abs() < 1e-9, "{length} and {shortest}");
            // Where it starts and which way it goes changes nothing.
            let mut other = tour.to_vec();
            other.rotate_left(n / 2);
            other.reverse();
            assert!((tour_length(&points, &other) - length).abs() < 1e-12);
            assert!(n < 3 || polygon_area(&points, tour) > 0.);
        }
    }
}

#[test]
fn local_search_is_near_the_shortest_tour() {
    for (n, share) in [(8, 0.9), (12, 0.8)] {
        let (mut exact, mut found, mut right) = (0., 0., 0.);
        for Instance { points, answer } in instances(PlanarTask::Tsp, n, 60) {
            let tour = short_tour(&points);
            let (short, best) =
                (tour_length(&points, &tour), tour_length(&points, &answer[..answer.len() - 1]));
            assert!(short >= best - 1e-9);
            let seen: BTreeSet<usize> = tour.iter().copied().collect();
            assert_eq!(seen.len(), n);
            (exact, found, right) =
                (exact + best, found + short, right + f64::from(short < best + 1e-9));
        }
        assert!(found / exact < 1.003, "{n}: {found} {exact}");
        assert!(right / 60. > share, "{n}: {right}");
    }
    // The mean of optimal tours of 50 points is about 5.7.
    let lengths = instances(PlanarTask::Tsp, 50, 20)
        .map(|i| tour_length(&i.points, &i.answer[..i.answer.len() - 1]));
    let mean = lengths.sum::<f64>() / 20.;
    assert!((5.3..6.0).contains(&mean), "{mean}");
}

#[test]
fn instances_depend_on_nothing_but_their_numbers() {
    let made = |seed, number| PlanarTask::ConvexHull.instance((5, 50), seed, number).unwrap();
    assert_eq!(made(1, 2), made(1, 2));
    assert_ne!(made(1, 2), made(1, 3));
    assert_ne!(made(1, 2), made(2, 2));
    let lengths: Vec<usize> = (0..2000).map(|i| made(3, i).points.len()).collect();
    assert_eq!((lengths.iter().min(), lengths.iter().max()), (Some(&5), Some(&50)));
    let mean = lengths.iter().sum::<usize>() as f64 / 2000.;
    assert!((mean - 27.5).abs() < 1.5, "{mean}");
    for (range, part) in [((1, 5), "1 to 5"), ((6, 5), "6 to 5")] {
        let error = PlanarTask::Tsp.instance(range, 0, 0).unwrap_err().to_string();
        assert!(error.contains(part) && error.contains("at least 2"), "{error}");
    }
    let error = PlanarTask::Tsp.solve(&[[0., 0.], [f64::NAN, 0.]]).unwrap_err().to_string();
    assert!(error.contains("point 1"), "{error}");
}

#[test]
fn polygons_that_cross_touch_or_fold_are_not_simple() {
    let points = [[0., 0.], [2., 0.], [2., 2.], [0., 2.], [1., 0.], [1., 1.], [3., 0.]];
    assert!(is_simple(&points, &[0, 1, 2, 3]));
    assert!(is_simple(&points, &[0, 4, 1, 2, 3])); // straight on
    assert!(is_simple(&points, &[3, 2, 5, 1, 0]));
    for bad in [
        &[0, 1][..],
        &[0, 2, 1, 3],
        &[0, 1, 2, 4],    // 4 lies on the edge before it
        &[0, 6, 1, 2],    // back along itself
        &[0, 1, 2, 0, 3], // a corner twice
        &[0, 1, 1, 2],
    ] {
        assert!(!is_simple(&points, bad), "{bad:?}");
    }
}

#[test]
fn files_come_back_and_wrong_lines_are_named() {
    let dir = tempfile::TempDir::new().unwrap();
    let path = dir.path().join("tsp.txt");
    for task in PlanarTask::ALL {
        let made: Vec<Instance> = (0..9).map(|i| task.instance((4, 9), 1, i).unwrap()).collect();
        std::fs::write(&path, to_text(&made)).unwrap();
        assert_eq!(read(&path, task).unwrap(), made);
    }
    let good = "0 0 1 0 0.5 1 output 1 2 3 1 \n";
    for (bad, part) in [
        ("0 0 1 0 0.5 output 1 2 1", "two numbers a point, not 5"),
        ("0 0 1 x output 1 2 1", "in place of `x`"),
        ("0 0 1 NaN output 1 2 1", "in place of `NaN`"),
        ("0 0 1 0 output 1 3 1", "from 1 to 2 in place of `3`"),
        ("0 0 1 0 output 0 1 0", "in place of `0`"),
        ("0 0 1 0", "with an answer"),
        ("", "two numbers a point, not 0"),
        ("0 0 1 0 0.5 1 output 1 2 1", "a tour of all points"),
        ("0 0 1 0 0.5 1 output 1 2 3", "a tour of all points"),
        ("0 0 output 1", "at least 2 points"),
    ] {
        std::fs::write(&path, format!("{good}{bad}\n{good}")).unwrap();
        let error = read(&path, PlanarTask::Tsp).unwrap_err().to_string();
        assert!(error.contains("tsp.txt, line 2: expected") && error.contains(part), "{error}");
    }
    std::fs::write(&path, "0 0 1 0 0.5 1 output 1 2 2 1\n").unwrap();
    let error = read(&path, PlanarTask::ConvexHull).unwrap_err().to_string();
    assert!(error.contains("corners of a hull"), "{error}");
    std::fs::write(&path, "0 0 1 0 0.5 1 output 1 2\n").unwrap();
    let error = read(&path, PlanarTask::Delaunay).unwrap_err().to_string();
    assert!(error.contains("triangles of three"), "{error}");
    std::fs::write(&path, "").unwrap();
    assert!(read(&path, PlanarTask::Tsp).unwrap_err().to_string().contains("no instances"));
    std::fs::remove_file(&path).unwrap();
    assert!(read(&path, PlanarTask::Tsp).unwrap_err().to_string().contains("tsp.txt"));
}
