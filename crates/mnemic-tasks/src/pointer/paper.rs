//! The figures of the paper's tables, as they are remembered: single digits may be off.

use mnemic_data::planar::PlanarTask;

/// What the paper's tables say of `Ptr-Net` at a number of points.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Figure {
    /// The points that the paper's model was trained on.
    pub trained: (usize, usize),
    /// Right answers in percent.
    pub accuracy: Option<f64>,
    /// Covered area, or triangles found, in percent.
    pub coverage: Option<f64>,
    /// Mean length of the tours.
    pub length: Option<f64>,
}

/// Task, points trained on, points tested, accuracy, coverage, length.
type Row = (PlanarTask, (usize, usize), usize, Option<f64>, Option<f64>, Option<f64>);

const fn polygons(task: PlanarTask, trained: (usize, usize), n: usize, a: f64, c: f64) -> Row {
    (task, trained, n, Some(a), Some(c), None)
}

const fn tours(trained: (usize, usize), n: usize, length: f64) -> Row {
    (PlanarTask::Tsp, trained, n, None, None, Some(length))
}

use PlanarTask::{ConvexHull as Hull, Delaunay};

const ROWS: [Row; 20] = [
    polygons(Hull, (50, 50), 50, 72.6, 99.9),
    polygons(Hull, (5, 50), 5, 92.0, 99.6),
    polygons(Hull, (5, 50), 10, 87.0, 99.8),
    polygons(Hull, (5, 50), 50, 69.6, 99.9),
    polygons(Hull, (5, 50), 100, 50.3, 99.9),
    polygons(Hull, (5, 50), 200, 22.1, 99.9),
    polygons(Hull, (5, 50), 500, 1.3, 99.2),
    polygons(Delaunay, (5, 5), 5, 80.7, 93.0),
    polygons(Delaunay, (10, 10), 10, 22.6, 81.3),
    polygons(Delaunay, (50, 50), 50, 0., 52.8),
    tours((5, 5), 5, 2.12),
    tours((10, 10), 10, 2.88),
    tours((50, 50), 50, 6.09),
    tours((5, 20), 5, 2.12),
    tours((5, 20), 10, 2.87),
    tours((5, 20), 20, 3.88),
    tours((5, 20), 25, 4.30),
    tours((5, 20), 30, 4.72),
    tours((5, 20), 40, 5.91),
    tours((5, 20), 50, 7.66),
];

/// The paper's figure for a model trained on `trained` points and tested on `n`; where it has none, that of another model at `n`.
///
/// ```
/// use mnemic_data::planar::PlanarTask;
/// use mnemic_tasks::pointer::figure;
/// assert_eq!(figure(PlanarTask::Tsp, (10, 10), 10).and_then(|f| f.length), Some(2.88));
/// assert_eq!(figure(PlanarTask::ConvexHull, (5, 5), 5).map(|f| f.trained), Some((5, 50)));
/// assert_eq!(figure(PlanarTask::ConvexHull, (5, 5), 7), None);
/// ```
pub fn figure(task: PlanarTask, trained: (usize, usize), n: usize) -> Option<Figure> {
    let of = |row: &&Row| row.0 == task && row.2 == n;
    let same = ROWS.iter().filter(of).find(|row| row.1 == trained);
    let row = same.or_else(|| ROWS.iter().find(of))?;
    let &(_, trained, _, accuracy, coverage, length) = row;
    Some(Figure { trained, accuracy, coverage, length })
}
