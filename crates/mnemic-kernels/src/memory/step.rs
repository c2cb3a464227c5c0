//! A whole step of heads on their memory, fused: what addresses, reads and writes is that of the single operations, but what passes between them stays out
//! of the graph, and the memory's gradient is one.

use candle_core::Result;

use super::access::{ReadOp, WriteOp};
use super::address::{AddressOp, Saved as Addressed};
use super::num_controls;
use crate::fused::{Array, Backward, FusedOp, View};
use crate::real::{Real, for_chunks};

/// `M (b, n, w)`, weightings `(b, r + k, n)` and what the heads emit `(b, e)` to weightings, readings `(b, r, w)` and `M'`.
pub(super) struct StepOp {
    /// Heads that read r and that write k.
    pub(super) heads: (usize, usize),
    pub(super) max_shift: usize,
}

/// The parts of what the heads emit, each row-major over the batch, in the order in which they stand in a row.
pub(super) struct Emitted<T> {
    controls: Vec<T>,
    /// What is erased, in its range.
    erase: Vec<T>,
    /// What is added, in its range.
    add: Vec<T>,
}

/// What the backward pass needs.
pub(super) struct Saved<T> {
    emitted: Emitted<T>,
    addressed: Addressed<T>,
}

/// Shapes of the operands of the single operations.
struct Shapes {
    memory: [usize; 3],
    weights: [usize; 3],
    controls: [usize; 3],
    reading: [usize; 3],
    writing: [usize; 3],
    vectors: [usize; 3],
}

impl StepOp {
    fn shapes<T>(&self, x: &[View<'_, T>]) -> Shapes {
        let [b, n, w] = [x[0].dims[0], x[0].dims[1], x[0].dims[2]];
        let (r, k) = self.heads;
        Shapes {
            memory: [b, n, w],
            weights: [b, r + k, n],
            controls: [b, r + k, num_controls(w, self.max_shift)],
            reading: [b, r, n],
            writing: [b, k, n],
            vectors: [b, k, w],
        }
    }

    fn address(&self) -> AddressOp {
        AddressOp { max_shift: self.max_shift }
    }
}

/// Rows `(b, …)` cut into parts of these widths, each `(b, width)`.
fn cut<T: Real, const N: usize>(rows: &[T], widths: [usize; N]) -> [Vec<T>; N] {
    let all: usize = widths.iter().sum();
    let mut start = 0;
    widths.map(|width| {
        let part = rows.chunks_exact(all).flat_map(|row| &row[start..start + width]).copied();
        let part = part.collect();
        start += width;
        part
    })
}

/// The opposite of [`cut`]: parts `(b, width)` beside each other in rows.
fn join<T: Real, const N: usize>(parts: [&[T]; N], widths: [usize; N], b: usize) -> Vec<T> {
    let mut rows = Vec::with_capacity(b * widths.iter().sum::<usize>());
    for row in 0..b {
        for (part, width) in parts.iter().zip(widths) {
            rows.extend_from_slice(&part[row * width..][..width]);
        }
    }
    rows
}

/// `[b, i, j]` as the width of a row.
fn width([_, i, j]: [usize; 3]) -> usize {
    i * j
}

impl FusedOp for StepOp {
    const NAME: &'static str = "memory step";
    type Saved<T: Real> = Saved<T>;

    fn forward<T: Real>(&self, x: &[View<'_, T>], grad: bool) -> Result<(Vec<Array<T>>, Saved<T>)> {
        let s = self.shapes(x);
        let widths = [s.controls, s.vectors, s.vectors].map(width);
        let [controls, mut erase, mut add] = cut(x[2].data, widths);
        for_chunks(&mut erase, 1, |_, part| part.iter_mut().for_each(|e| *e = e.sigmoid_()));
        for_chunks(&mut add, 1, |_, part| part.iter_mut().for_each(|a| *a = a.tanh_()));
        let view = |data, dims| View { data, dims };
        let addressing = [x[0], x[1], view(&controls, &s.controls)];
        let (mut weights, addressed) = self.address().forward(&addressing, grad)?;
        let weights = weights.remove(0).0;
        let [reading, writing] = cut(&weights, [s.reading, s.writing].map(width));
        let (mut read, ()) = ReadOp.forward(&[x[0], view(&reading, &s.reading)], grad)?;
        let writing =
            [x[0], view(&writing, &s.writing), view(&erase, &s.vectors), view(&add, &s.vectors)];
        let (mut memory, ()) = WriteOp.forward(&writing, grad)?;
        let results = vec![(weights, s.weights.to_vec()), read.remove(0), memory.remove(0)];
        Ok((results, Saved { emitted: Emitted { controls, erase, add }, addressed }))
    }

    fn backward<T: Real>(&self, pass: Backward<'_, T, Saved<T>>) -> Result<Vec<Option<Vec<T>>>> {
        let (x, s) = (pass.inputs, self.shapes(pass.inputs));
        let b = s.memory[0];
        let Saved { emitted: Emitted { controls, erase, add }, addressed } = pass.saved;
        let view = |data, dims| View { data, dims };
        let [reading, writing] = cut(pass.outputs[0].data, [s.reading, s.writing].map(width));

        let inputs =
            [x[0], view(&writing, &s.writing), view(erase, &s.vectors), view(add, &s.vectors)];
        let write = match &pass.grads[2..] {
            grads @ [Some(_)] => WriteOp.backward(single(&inputs, grads))?,
            _ => vec![],
        };
        let inputs = [x[0], view(&reading, &s.reading)];
        let read = match &pass.grads[1..2] {
            grads @ [Some(_)] => ReadOp.backward(single(&inputs, grads))?,
            _ => vec![],
        };

        let [mut d_memory, d_writing, d_erase, d_add] = taken(write);
        let [d_read_memory, d_reading] = taken(read);
        let mut d_weights = joined([d_reading, d_writing], [s.reading, s.writing].map(width), b);
        add_to(&mut d_weights, pass.grads[0].map(|g| g.data));
        add_to(&mut d_memory, d_read_memory.as_deref());

        let (mut d_previous, mut d_controls) = (None, None);
        if let Some(d_weights) = &d_weights {
            let addressing = Backward {
                inputs: &[x[0], x[1], view(controls, &s.controls)],
                outputs: &[view(pass.outputs[0].data, &s.weights)],
                saved: addressed,
                grads: &[Some(view(d_weights, &s.weights))],
                wanted: &[pass.wanted[0], pass.wanted[1], true],
            };
            let [from_address, previous, controls] = taken(self.address().backward(addressing)?);
            add_to(&mut d_memory, from_address.as_deref());
            (d_previous, d_controls) = (previous, controls);
        }
        let d_erase = through(d_erase, erase, |e| e * (T::ONE - e));
        let d_add = through(d_add, add, |a| T::ONE - a * a);
        let widths = [s.controls, s.vectors, s.vectors].map(width);
        let d_emitted = joined([d_controls, d_erase, d_add], widths, b);
        let zeros = |i: usize| Some(vec![T::ZERO; x[i].data.len()]);
        Ok(vec![
            d_memory.or_else(|| zeros(0)),
            d_previous.or_else(|| zeros(1)),
            d_emitted.or_else(|| zeros(2)),
        ])
    }
}

/// The backward pass of reading or writing, which keep nothing.
fn single<'a, T>(
    inputs: &'a [View<'a, T>],
    grads: &'a [Option<View<'a, T>>],
) -> Backward<'a, T, ()> {
    Backward { inputs, outputs: &[], saved: &(), grads, wanted: &[true; 4] }
}

/// The first gradients of a list; none where the list is shorter.
fn taken<T, const N: usize>(gradients: Vec<Option<Vec<T>>>) -> [Option<Vec<T>>; N] {
    let mut gradients = gradients.into_iter();
    std::array::from_fn(|_| gradients.next().flatten())
}

/// Gradients beside each other; zeros where there is none but others.
fn joined<T: Real, const N: usize>(
    parts: [Option<Vec<T>>; N],
    widths: [usize; N],
    b: usize,
) -> Option<Vec<T>> {
    if parts.iter().all(Option::is_none) {
        return None;
    }
    let mut widths_left = widths.iter();
    let parts = parts.map(|part| {
        let width = widths_left.next().copied().unwrap_or(0);
        part.unwrap_or_else(|| vec![T::ZERO; b * width])
    });
    Some(join(std::array::from_fn(|i| parts[i].as_slice()), widths, b))
}

/// Adds a gradient to one that may not be there yet.
fn add_to<T: Real>(sum: &mut Option<Vec<T>>, more: Option<&[T]>) {
    match (sum.as_mut(), more) {
        (Some(sum), Some(more)) => {
            for_chunks(sum, 1, |start, part| {
                part.iter_mut().zip(&more[start..]).for_each(|(sum, &x)| *sum += x);
            });
        }
        (None, Some(more)) => *sum = Some(more.to_vec()),
        (_, None) => {}
    }
}

/// A gradient through a function with this derivative, given its results.
fn through<T: Real>(
    grad: Option<Vec<T>>,
    results: &[T],
    derivative: impl Fn(T) -> T,
) -> Option<Vec<T>> {
    let mut grad = grad?;
    grad.iter_mut().zip(results).for_each(|(g, &y)| *g *= derivative(y));
    Some(grad)
}
