//! Planar geometry as sequences of points: convex hulls, Delaunay triangulations and the travelling salesman (O. Vinyals, M. Fortunato,
//! N. Jaitly, "Pointer Networks", arXiv 1506.03134, 2015, section 3).
//!
//! Points are uniform in the unit square. An answer is a sequence of their indices (from 0 here, from 1 in files), in a canonical form without which
//! several sequences would be right:
//!
//! - *hull*: its corners counter-clockwise from the one of the lowest index, which comes again at the end;
//! - *Delaunay*: the triangles, each with its indices in increasing order, in lexicographic order;
//! - *TSP*: the tour counter-clockwise from point 0, which comes again at the end. Optimal (Held and Karp 1962) up to [`EXACT_TOUR`] points, beyond that the best
//!   of local searches, one from each point.
//!
//! The paper does not say in which direction its tours go; the published files have both.

mod file;
mod geometry;
#[cfg(test)]
mod tests;
mod tour;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::sampling::Draws;

pub use file::{read, to_text};
pub use geometry::{Point, convex_hull, delaunay, is_simple, polygon_area};
pub use tour::{EXACT_TOUR, optimal_tour, short_tour, tour_length};

/// What is asked about the points.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PlanarTask {
    /// The convex hull.
    ConvexHull,
    /// The Delaunay triangulation.
    Delaunay,
    /// The shortest tour.
    Tsp,
}

/// Points, and the answer about them.
#[derive(Debug, Clone, PartialEq)]
pub struct Instance {
    /// The points, in the order in which they are given.
    pub points: Vec<Point>,
    /// Indices of points from 0, in the task's canonical form.
    pub answer: Vec<usize>,
}

impl PlanarTask {
    /// All tasks.
    pub const ALL: [Self; 3] = [Self::ConvexHull, Self::Delaunay, Self::Tsp];

    /// The name in recipes.
    pub fn name(self) -> &'static str {
        match self {
            Self::ConvexHull => "convex-hull",
            Self::Delaunay => "delaunay",
            Self::Tsp => "tsp",
        }
    }

    /// The fewest points that the task makes sense for.
    pub fn fewest(self) -> usize {
        if self == Self::Delaunay { 3 } else { 2 }
    }

    /// The most indices of an answer about `n` points: a hull or tour of all and its first point again, or the `2n - 5` triangles that there can be.
    pub fn longest_answer(self, n: usize) -> usize {
        match self {
            Self::ConvexHull | Self::Tsp => n + 1,
            Self::Delaunay => 3 * (2 * n).saturating_sub(5),
        }
    }

    /// The canonical answer about these points.
    ///
    /// ```
    /// use mnemic_data::planar::PlanarTask;
    /// let square = [[0., 0.], [0.4, 0.5], [1., 1.], [1., 0.], [0., 1.]];
    /// assert_eq!(PlanarTask::ConvexHull.solve(&square)?, [0, 3, 2, 4, 0]);
    /// assert_eq!(PlanarTask::Tsp.solve(&square)?, [0, 3, 2, 4, 1, 0]);
    /// # Ok::<(), mnemic_data::Error>(())
    /// ```
    ///
    /// # Errors
    /// When there are too few points, or one is not finite.
    pub fn solve(self, points: &[Point]) -> Result<Vec<usize>> {
        self.check_points(points)?;
        Ok(match self {
            Self::ConvexHull => closed(convex_hull(points)),
            Self::Delaunay => delaunay(points).concat(),
            Self::Tsp if points.len() <= EXACT_TOUR => closed(optimal_tour(points)),
            Self::Tsp => closed(short_tour(points)),
        })
    }

    /// Instance `number` of the stream of `seed`, with a number of points uniform from the least to the most. Any two numbers give independent
    /// instances, whatever the task.
    ///
    /// ```
    /// use mnemic_data::planar::PlanarTask;
    /// let instance = PlanarTask::Tsp.instance((5, 10), 1, 0)?;
    /// assert!((5..=10).contains(&instance.points.len()));
    /// assert_eq!(instance.answer.len(), instance.points.len() + 1);
    /// # Ok::<(), mnemic_data::Error>(())
    /// ```
    ///
    /// # Errors
    /// When the numbers of points are out of order, or too few for the task.
    pub fn instance(
        self,
        (least, most): (usize, usize),
        seed: u64,
        number: u64,
    ) -> Result<Instance> {
        if least < self.fewest() || most < least {
            let reason =
                format!("{least} to {most}, expected a range from at least {}", self.fewest());
            return Err(Error::argument("points", reason));
        }
        let mut draws = Draws::named(seed, number, b"mnemic planar 01");
        let n = least + draws.below(most - least + 1);
        let points: Vec<Point> = (0..n).map(|_| [draws.unit(), draws.unit()]).collect();
        Ok(Instance { answer: self.solve(&points)?, points })
    }

    /// What is wrong with the form of an answer about `n` points, whose indices are below `n`.
    fn expected_form(self, n: usize, answer: &[usize]) -> Option<&'static str> {
        let closed = answer.len() > 1 && answer.first() == answer.last();
        let corners = answer.split_last().map_or(answer, |(_, corners)| corners);
        let mut sorted = corners.to_vec();
        sorted.sort_unstable();
        let all_differ = sorted.windows(2).all(|pair| pair[0] != pair[1]);
        match self {
            Self::ConvexHull if !closed || !all_differ => {
                Some("the corners of a hull, each once, and the first one again")
            }
            Self::Tsp if !closed || !all_differ || corners.len() != n => {
                Some("a tour of all points, each once, and the first one again")
            }
            Self::Delaunay if !answer.len().is_multiple_of(3) => {
                Some("triangles of three indices each")
            }
            _ => None,
        }
    }

    fn check_points(self, points: &[Point]) -> Result<()> {
        let n = points.len();
        if n < self.fewest() {
            let reason = format!("{n}, expected at least {} for {}", self.fewest(), self.name());
            return Err(Error::argument("points", reason));
        }
        match points.iter().position(|p| !p.iter().all(|x| x.is_finite())) {
            Some(i) => {
                let reason = format!("point {i} is {:?}, expected finite numbers", points[i]);
                Err(Error::argument("points", reason))
            }
            None => Ok(()),
        }
    }
}

/// The cycle with its first index again at the end.
fn closed(mut cycle: Vec<usize>) -> Vec<usize> {
    cycle.extend(cycle.first().copied());
    cycle
}
