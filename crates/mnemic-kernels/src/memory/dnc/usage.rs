//! Usage, allocation and the weighting of a write, fused: a walk over the slots, a sort, and a walk in its order.

use candle_core::Result;

use crate::fused::{Array, Backward, FusedOp, View};
use crate::real::Real;

/// Usage, weightings of writing `(b, n)` and reading `(b, r, n)` before, content `(b, n)`, gates `(b, r + 2)` to usage, allocation and
/// weighting, `(b, n)` each.
pub(super) struct UsageOp;

/// A row of the batch.
struct Row<'a, T> {
    n: usize,
    usage: &'a [T],
    weights: &'a [T],
    read_weights: &'a [T],
    content: &'a [T],
    /// After σ: one a read head, then for allocation, then for writing.
    gates: Vec<T>,
}

impl<'a, T: Real> Row<'a, T> {
    fn new(x: &[View<'a, T>], row: usize) -> Self {
        let (n, r) = (x[0].dims[1], x[2].dims[1]);
        let part = |i: usize, size: usize| &x[i].data[row * size..][..size];
        Self {
            n,
            usage: part(0, n),
            weights: part(1, n),
            read_weights: part(2, r * n),
            content: part(3, n),
            gates: part(4, r + 2).iter().map(|g| g.sigmoid_()).collect(),
        }
    }

    fn heads(&self) -> usize {
        self.gates.len() - 2
    }

    /// What reading head `head` leaves of slot `i`.
    fn left(&self, head: usize, i: usize) -> T {
        T::ONE - self.gates[head] * self.read_weights[head * self.n + i]
    }

    /// What all heads but `but` leave of slot `i`.
    fn retention(&self, i: usize, but: usize) -> T {
        let heads = (0..self.heads()).filter(|&head| head != but);
        heads.fold(T::ONE, |product, head| product * self.left(head, i))
    }

    /// What is in use before anything is freed.
    fn held(&self, i: usize) -> T {
        self.usage[i] + self.weights[i] - self.usage[i] * self.weights[i]
    }
}

/// The slots from the least used to the most.
fn ascending<T: Real>(usage: &[T]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..usage.len()).collect();
    order.sort_by(|&i, &j| usage[i].to_f64().total_cmp(&usage[j].to_f64()));
    order
}

impl FusedOp for UsageOp {
    const NAME: &'static str = "write weights";
    type Saved<T: Real> = ();

    fn forward<T: Real>(&self, x: &[View<'_, T>], _: bool) -> Result<(Vec<Array<T>>, ())> {
        let dims = vec![x[0].dims[0], x[0].dims[1]];
        let (b, n) = (dims[0], dims[1]);
        let (mut usage, mut allocation) = (Vec::with_capacity(b * n), vec![T::ZERO; b * n]);
        let mut weights = Vec::with_capacity(b * n);
        for number in 0..b {
            let row = Row::new(x, number);
            usage.extend((0..n).map(|i| row.held(i) * row.retention(i, usize::MAX)));
            let usage = &usage[number * n..];
            let allocation = &mut allocation[number * n..][..n];
            let mut product = T::ONE;
            for i in ascending(usage) {
                allocation[i] = (T::ONE - usage[i]) * product;
                product *= usage[i];
            }
            let (allocate, write) = (row.gates[row.heads()], row.gates[row.heads() + 1]);
            let mixed = allocation.iter().zip(row.content);
            weights.extend(mixed.map(|(&a, &c)| write * (allocate * a + (T::ONE - allocate) * c)));
        }
        let results = [usage, allocation, weights];
        Ok((results.into_iter().map(|data| (data, dims.clone())).collect(), ()))
    }

    fn backward<T: Real>(&self, pass: Backward<'_, T, ()>) -> Result<Vec<Option<Vec<T>>>> {
        let x = pass.inputs;
        let (b, n) = (x[0].dims[0], x[0].dims[1]);
        let mut out: Vec<Vec<T>> = x.iter().map(|x| Vec::with_capacity(x.data.len())).collect();
        for number in 0..b {
            let row = Row::new(x, number);
            let part = |data: &[T]| data[number * n..][..n].to_vec();
            let grad = |i: usize| pass.grads[i].map_or_else(|| vec![T::ZERO; n], |g| part(g.data));
            let grads = [grad(0), grad(1), grad(2)];
            let results = [part(pass.outputs[0].data), part(pass.outputs[1].data)];
            for (out, d) in out.iter_mut().zip(row_backward(&row, &results, grads)) {
                out.extend(d);
            }
        }
        Ok(out.into_iter().map(Some).collect())
    }
}

/// The gradients of a row's operands from those of usage, allocation and weighting.
fn row_backward<T: Real>(
    row: &Row<'_, T>,
    [usage, allocation]: &[Vec<T>; 2],
    [mut d_usage, mut d_allocation, d_weights]: [Vec<T>; 3],
) -> [Vec<T>; 5] {
    let (n, r) = (row.n, row.heads());
    let (allocate, write) = (row.gates[r], row.gates[r + 1]);
    let mut d_gates = vec![T::ZERO; r + 2];
    let mut d_content = vec![T::ZERO; n];
    for (i, &d) in d_weights.iter().enumerate() {
        let (a, c) = (allocation[i], row.content[i]);
        d_gates[r + 1] += d * (allocate * a + (T::ONE - allocate) * c);
        d_gates[r] += d * write * (a - c);
        d_allocation[i] += d * write * allocate;
        d_content[i] = d * write * (T::ONE - allocate);
    }
    allocation_backward(usage, &d_allocation, &mut d_usage);
    let (mut d_before, mut d_written) = (vec![T::ZERO; n], vec![T::ZERO; n]);
    let mut d_read = vec![T::ZERO; r * n];
    for (i, &d) in d_usage.iter().enumerate() {
        let d_held = d * row.retention(i, usize::MAX);
        d_before[i] = d_held * (T::ONE - row.weights[i]);
        d_written[i] = d_held * (T::ONE - row.usage[i]);
        for head in 0..r {
            let d_left = -d * row.held(i) * row.retention(i, head);
            d_gates[head] += d_left * row.read_weights[head * n + i];
            d_read[head * n + i] = d_left * row.gates[head];
        }
    }
    for (d, &g) in d_gates.iter_mut().zip(&row.gates) {
        *d *= g * (T::ONE - g);
    }
    [d_before, d_written, d_read, d_content, d_gates]
}

/// Adds what the allocation makes of the gradient of the usage. The products are those of the less used slots, so nothing is divided by.
fn allocation_backward<T: Real>(usage: &[T], d_allocation: &[T], d_usage: &mut [T]) {
    let order = ascending(usage);
    let mut products = Vec::with_capacity(order.len());
    let mut product = T::ONE;
    for &i in &order {
        products.push(product);
        product *= usage[i];
    }
    let mut d_product = T::ZERO; // of the product after this slot
    for (&i, &product) in order.iter().zip(&products).rev() {
        d_usage[i] += (d_product - d_allocation[i]) * product;
        d_product = d_allocation[i] * (T::ONE - usage[i]) + d_product * usage[i];
    }
}
