//! Hulls, triangulations and polygons. Which side of a line a point is on is decided exactly.

use robust::{Coord, orient2d};

/// A point of the plane: x and y.
pub type Point = [f64; 2];

/// Positive where `c` lies to the left of the line from `a` to `b`, negative to the right, 0 on it.
fn side(a: Point, b: Point, c: Point) -> f64 {
    let coord = |[x, y]: Point| Coord { x, y };
    orient2d(coord(a), coord(b), coord(c))
}

/// The corners of the convex hull, counter-clockwise from the one of the lowest index (A. M. Andrew 1979, monotone chain). Points on an edge are no corners;
/// of equal points the first is.
///
/// ```
/// use mnemic_data::planar::convex_hull;
/// assert_eq!(convex_hull(&[[0.5, 0.5], [0., 0.], [1., 1.], [1., 0.], [0.5, 0.]]), [1, 3, 2]);
/// ```
pub fn convex_hull(points: &[Point]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..points.len()).collect();
    let key = |i: usize| points[i];
    order.sort_by(|&i, &j| {
        let ([xi, yi], [xj, yj]) = (key(i), key(j));
        xi.total_cmp(&xj).then(yi.total_cmp(&yj)).then(i.cmp(&j))
    });
    order.dedup_by(|a, b| points[*a] == points[*b]);
    if order.len() < 2 {
        return order;
    }
    let chain = |order: &mut dyn Iterator<Item = usize>| {
        let mut chain: Vec<usize> = vec![];
        for i in order {
            while let [.., a, b] = chain[..]
                && side(points[a], points[b], points[i]) <= 0.
            {
                chain.pop();
            }
            chain.push(i);
        }
        chain.pop(); // the other chain begins with it
        chain
    };
    let mut hull = chain(&mut order.iter().copied());
    hull.extend(chain(&mut order.iter().rev().copied()));
    let lowest = (0..hull.len()).min_by_key(|&at| hull[at]).unwrap_or(0);
    hull.rotate_left(lowest);
    hull
}

/// The triangles of the Delaunay triangulation, each in increasing order, all in lexicographic order; none where all points lie on a line.
///
/// ```
/// use mnemic_data::planar::delaunay;
/// assert_eq!(delaunay(&[[0., 0.], [1., 0.], [1.1, 1.], [0., 1.]]), [[0, 1, 3], [1, 2, 3]]);
/// ```
pub fn delaunay(points: &[Point]) -> Vec<[usize; 3]> {
    let points: Vec<delaunator::Point> =
        points.iter().map(|&[x, y]| delaunator::Point { x, y }).collect();
    let triangles = delaunator::triangulate(&points).triangles;
    let mut triangles: Vec<[usize; 3]> =
        triangles.chunks_exact(3).map(|t| [t[0], t[1], t[2]]).collect();
    triangles.iter_mut().for_each(|triangle| triangle.sort_unstable());
    triangles.sort_unstable();
    triangles
}

/// The area of the polygon with these corners: positive where they go counter-clockwise.
///
/// ```
/// use mnemic_data::planar::polygon_area;
/// let points = [[0., 0.], [2., 0.], [0., 1.]];
/// assert_eq!((polygon_area(&points, &[0, 1, 2]), polygon_area(&points, &[0, 2, 1])), (1., -1.));
/// ```
pub fn polygon_area(points: &[Point], corners: &[usize]) -> f64 {
    let next = corners.iter().cycle().skip(1);
    let twice: f64 = corners
        .iter()
        .zip(next)
        .map(|(&i, &j)| points[i][0] * points[j][1] - points[j][0] * points[i][1])
        .sum();
    twice / 2.
}

/// Whether the corners make a simple polygon: at least three, all different, and no two edges meet but neighbours in their corner.
///
/// ```
/// use mnemic_data::planar::is_simple;
/// let square = [[0., 0.], [1., 0.], [1., 1.], [0., 1.]];
/// assert!(is_simple(&square, &[0, 1, 2, 3]) && !is_simple(&square, &[0, 2, 1, 3]));
/// ```
pub fn is_simple(points: &[Point], corners: &[usize]) -> bool {
    let n = corners.len();
    if n < 3 {
        return false;
    }
    let corner = |k: usize| points[corners[k % n]];
    let folds = |k: usize| {
        let (a, b, c) = (corner(k), corner(k + 1), corner(k + 2));
        let ahead = (a[0] - b[0]) * (c[0] - b[0]) + (a[1] - b[1]) * (c[1] - b[1]) > 0.;
        a == b || (side(a, b, c) == 0. && ahead)
    };
    let meet = |k: usize, l: usize| meet([corner(k), corner(k + 1)], [corner(l), corner(l + 1)]);
    // The edge before the first is its neighbour, too.
    let apart = |k: usize| (k + 2..n).filter(move |&l| (l + 1) % n != k);
    !(0..n).any(folds) && !(0..n).any(|k| apart(k).any(|l| meet(k, l)))
}

/// Whether two segments have a point in common.
fn meet([a, b]: [Point; 2], [c, d]: [Point; 2]) -> bool {
    let (from_c, from_d) = (side(a, b, c), side(a, b, d));
    let (from_a, from_b) = (side(c, d, a), side(c, d, b));
    let opposite = |x: f64, y: f64| (x > 0. && y < 0.) || (x < 0. && y > 0.);
    if opposite(from_c, from_d) && opposite(from_a, from_b) {
        return true;
    }
    let between = |p: Point, q: Point, x: Point| {
        (0..2).all(|k| p[k].min(q[k]) <= x[k] && x[k] <= p[k].max(q[k]))
    };
    (from_c == 0. && between(a, b, c))
        || (from_d == 0. && between(a, b, d))
        || (from_a == 0. && between(c, d, a))
        || (from_b == 0. && between(c, d, b))
}
