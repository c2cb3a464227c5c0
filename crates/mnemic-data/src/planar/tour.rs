//! Short tours of all points.

use super::geometry::{Point, polygon_area};

/// The most points of which the shortest tour is sought exactly.
pub const EXACT_TOUR: usize = 12;

/// The length of the closed tour.
///
/// ```
/// let points = [[0., 0.], [3., 0.], [3., 4.]];
/// assert_eq!(mnemic_data::planar::tour_length(&points, &[0, 1, 2]), 12.);
/// ```
pub fn tour_length(points: &[Point], tour: &[usize]) -> f64 {
    let next = tour.iter().cycle().skip(1);
    tour.iter().zip(next).map(|(&i, &j)| distance(points[i], points[j])).sum()
}

fn distance(a: Point, b: Point) -> f64 {
    ((a[0] - b[0]).powi(2) + (a[1] - b[1]).powi(2)).sqrt()
}

/// The distances of all pairs.
struct Distances {
    n: usize,
    values: Vec<f64>,
}

impl Distances {
    fn new(points: &[Point]) -> Self {
        let n = points.len();
        let values = (0..n * n).map(|k| distance(points[k / n], points[k % n])).collect();
        Self { n, values }
    }

    fn at(&self, i: usize, j: usize) -> f64 {
        self.values[i * self.n + j]
    }
}

/// A shortest tour, by dynamic programming over sets of points (M. Held, R. M. Karp 1962), counter-clockwise from point 0.
///
/// Takes `2^n n²` steps and `2^n n` numbers of memory: for a few points, [`EXACT_TOUR`] or some more.
///
/// ```
/// use mnemic_data::planar::optimal_tour;
/// assert_eq!(optimal_tour(&[[0., 0.], [1., 1.], [0., 1.], [1., 0.]]), [0, 3, 1, 2]);
/// ```
pub fn optimal_tour(points: &[Point]) -> Vec<usize> {
    let n = points.len();
    if n < 4 {
        return canonical(points, (0..n).collect());
    }
    let d = Distances::new(points);
    // costs[set * m + j]: the shortest way from point 0 through the set of points 1 to m that ends at point j + 1 of it.
    let m = n - 1;
    let whole = (1usize << m) - 1;
    let mut costs = vec![f64::INFINITY; (whole + 1) * m];
    for set in 1..=whole {
        for j in members(set) {
            let rest = set & !(1 << j);
            costs[set * m + j] = match rest {
                0 => d.at(0, j + 1),
                _ => best(&costs, &d, rest, j + 1).1,
            };
        }
    }
    let mut tour = vec![];
    let (mut rest, mut next) = (whole, 0);
    while rest != 0 {
        let (j, _) = best(&costs, &d, rest, next);
        tour.push(j + 1);
        (rest, next) = (rest & !(1 << j), j + 1);
    }
    tour.push(0);
    canonical(points, tour)
}

/// The last point j + 1 of the shortest way through `set` and on to `next`, and the length.
fn best(costs: &[f64], d: &Distances, set: usize, next: usize) -> (usize, f64) {
    let m = d.n - 1;
    members(set).fold((0, f64::INFINITY), |best, k| {
        let cost = costs[set * m + k] + d.at(k + 1, next);
        if cost < best.1 { (k, cost) } else { best }
    })
}

fn members(set: usize) -> impl Iterator<Item = usize> {
    let mut left = set;
    std::iter::from_fn(move || {
        let first = left.trailing_zeros() as usize;
        (left != 0).then(|| {
            left &= left - 1;
            first
        })
    })
}

/// A short tour for any number of points, counter-clockwise from point 0: from each point (at most 64 of them) a nearest-neighbour tour,
/// improved until neither turning a stretch round (2-opt) nor moving one of up to three points (Or-opt) makes it shorter; the best of all.
///
/// ```
/// use mnemic_data::planar::{optimal_tour, short_tour};
/// let points = [[0., 0.], [1., 1.], [0., 1.], [1., 0.], [0.5, -0.2]];
/// assert_eq!(short_tour(&points), optimal_tour(&points));
/// ```
pub fn short_tour(points: &[Point]) -> Vec<usize> {
    let n = points.len();
    if n < 4 {
        return canonical(points, (0..n).collect());
    }
    let d = Distances::new(points);
    let starts = n.min(64);
    let mut shortest = (f64::INFINITY, vec![]);
    for k in 0..starts {
        let mut tour = nearest_neighbours(&d, k * n / starts);
        while two_opt(&d, &mut tour) || or_opt(&d, &mut tour) {}
        let length = tour_length(points, &tour);
        if length < shortest.0 {
            shortest = (length, tour);
        }
    }
    canonical(points, shortest.1)
}

fn nearest_neighbours(d: &Distances, start: usize) -> Vec<usize> {
    let mut tour = vec![start];
    let mut left: Vec<usize> = (0..d.n).filter(|&i| i != start).collect();
    let mut last = start;
    while let Some(at) = (0..left.len()).min_by(|&a, &b| {
        let (a, b) = (left[a], left[b]);
        d.at(last, a).total_cmp(&d.at(last, b)).then(a.cmp(&b))
    }) {
        last = left.swap_remove(at);
        tour.push(last);
    }
    tour
}

/// What counts as shorter: more than rounding, or moves could go round in circles.
const GAIN: f64 = 1e-12;

/// Turns stretches round as long as that helps; whether it did.
fn two_opt(d: &Distances, tour: &mut [usize]) -> bool {
    let n = tour.len();
    let mut improved = false;
    loop {
        let mut found = false;
        for i in 0..n - 1 {
            for j in i + 2..n {
                let (a, b, c, e) = (tour[i], tour[i + 1], tour[j], tour[(j + 1) % n]);
                if a != e && d.at(a, c) + d.at(b, e) < d.at(a, b) + d.at(c, e) - GAIN {
                    tour[i + 1..=j].reverse();
                    found = true;
                }
            }
        }
        if !found {
            return improved;
        }
        improved = true;
    }
}

/// Moves one stretch of one to three points to where it makes the tour shorter, either way round; whether there was one.
fn or_opt(d: &Distances, tour: &mut Vec<usize>) -> bool {
    let n = tour.len();
    for len in 1..=3.min(n - 2) {
        for at in 0..n {
            tour.rotate_left(at);
            // The stretch comes first, then the others.
            let (first, last, rest) = (tour[0], tour[len - 1], &tour[len..]);
            let (before, after) = (rest[rest.len() - 1], rest[0]);
            let saved = d.at(before, first) + d.at(last, after) - d.at(before, after);
            for k in 0..rest.len() - 1 {
                let (p, q) = (rest[k], rest[k + 1]);
                let kept = d.at(p, first) + d.at(last, q);
                let turned = d.at(p, last) + d.at(first, q);
                if kept.min(turned) - d.at(p, q) < saved - GAIN {
                    let mut stretch = tour[..len].to_vec();
                    if turned < kept {
                        stretch.reverse();
                    }
                    tour.drain(..len);
                    tour.splice(k + 1..k + 1, stretch);
                    return true;
                }
            }
            tour.rotate_right(at);
        }
    }
    false
}

/// From point 0, counter-clockwise; where the tour has no area, towards the lower index.
fn canonical(points: &[Point], mut tour: Vec<usize>) -> Vec<usize> {
    let start = tour.iter().position(|&i| i == 0).unwrap_or(0);
    tour.rotate_left(start);
    let area = polygon_area(points, &tour);
    if area < 0. || (area == 0. && tour.len() > 2 && tour[1] > tour[tour.len() - 1]) {
        tour[1..].reverse();
    }
    tour
}
