//! The update of one tensor: one pass over flat slices, constants rounded once.
//!
//! `p` is the parameter, `g` its gradient, `t` the step counting from 1, `decay` the weight decay of this tensor.

use super::config::{Adagrad, Adam, RmsProp, RmsPropGraves, Sgd};
use crate::values::Real;

/// Plain descent (`buffer` is `None`) or momentum.
pub(super) fn sgd<T: Real>(
    c: &Sgd,
    (lr, decay, t): (f64, f64, u64),
    p: &mut [T],
    g: &[T],
    buffer: Option<&mut [T]>,
) {
    let (lr, decay) = (T::of(lr), T::of(decay));
    let Some(buffer) = buffer else {
        for (p, g) in p.iter_mut().zip(g) {
            *p = *p - lr * (*g + decay * *p);
        }
        return;
    };
    let momentum = T::of(c.momentum);
    // The first step starts the buffer at the gradient, undampened.
    let (keep, take) =
        if t == 1 { (T::of(0.), T::of(1.)) } else { (momentum, T::of(1. - c.dampening)) };
    for ((p, g), b) in p.iter_mut().zip(g).zip(buffer) {
        let g = *g + decay * *p;
        *b = keep * *b + take * g;
        let d = if c.nesterov { g + momentum * *b } else { *b };
        *p = *p - lr * d;
    }
}

/// Adam, or AdamW where `decoupled`.
pub(super) fn adam<T: Real>(
    c: &Adam,
    decoupled: bool,
    (lr, decay, t): (f64, f64, u64),
    p: &mut [T],
    g: &[T],
    (m, v, largest): (&mut [T], &mut [T], Option<&mut [T]>),
) {
    let [b1, b2] = c.betas;
    let exponent = t as f64;
    let size = T::of(lr / (1. - b1.powf(exponent)));
    let root = T::of((1. - b2.powf(exponent)).sqrt());
    let (shrink, l2) = if decoupled { (1. - lr * decay, 0.) } else { (1., decay) };
    let (shrink, l2, eps) = (T::of(shrink), T::of(l2), T::of(c.eps));
    let (take1, keep2, take2) = (T::of(1. - b1), T::of(b2), T::of(1. - b2));
    let moments = move |p: &mut T, g: &T, m: &mut T, v: &mut T| {
        *p = *p * shrink;
        let g = *g + l2 * *p;
        *m = *m + take1 * (g - *m);
        *v = keep2 * *v + take2 * g * g;
    };
    let state = p.iter_mut().zip(g).zip(m.iter_mut()).zip(v.iter_mut());
    match largest {
        None => {
            for (((p, g), m), v) in state {
                moments(p, g, m, v);
                *p = *p - size * *m / (v.sqrt() / root + eps);
            }
        }
        Some(largest) => {
            for ((((p, g), m), v), top) in state.zip(largest) {
                moments(p, g, m, v);
                *top = top.greater(*v);
                *p = *p - size * *m / (top.sqrt() / root + eps);
            }
        }
    }
}

pub(super) fn adagrad<T: Real>(
    c: &Adagrad,
    (lr, decay, t): (f64, f64, u64),
    p: &mut [T],
    g: &[T],
    sum: &mut [T],
) {
    let lr = T::of(lr / (1. + (t - 1) as f64 * c.lr_decay));
    let (decay, eps) = (T::of(decay), T::of(c.eps));
    for ((p, g), s) in p.iter_mut().zip(g).zip(sum) {
        let g = *g + decay * *p;
        *s = *s + g * g;
        *p = *p - lr * g / (s.sqrt() + eps);
    }
}

/// PyTorch's RMSProp; `mean` where centred, `buffer` where there is momentum.
pub(super) fn rmsprop<T: Real>(
    c: &RmsProp,
    (lr, decay): (f64, f64),
    p: &mut [T],
    g: &[T],
    square: &mut [T],
    mut mean: Option<&mut [T]>,
    mut buffer: Option<&mut [T]>,
) {
    let (lr, decay, eps) = (T::of(lr), T::of(decay), T::of(c.eps));
    let (keep, take, momentum) = (T::of(c.alpha), T::of(1. - c.alpha), T::of(c.momentum));
    for (i, ((p, g), s)) in p.iter_mut().zip(g).zip(square).enumerate() {
        let g = *g + decay * *p;
        *s = keep * *s + take * g * g;
        let mut variance = *s;
        if let Some(mean) = &mut mean {
            let m = &mut mean[i];
            *m = *m + take * (g - *m);
            variance = variance - *m * *m;
        }
        let mut d = g / (variance.sqrt() + eps);
        if let Some(buffer) = &mut buffer {
            buffer[i] = momentum * buffer[i] + d;
            d = buffer[i];
        }
        *p = *p - lr * d;
    }
}

pub(super) fn rmsprop_graves<T: Real>(
    c: &RmsPropGraves,
    (lr, decay): (f64, f64),
    p: &mut [T],
    g: &[T],
    (square, mean, delta): (&mut [T], &mut [T], &mut [T]),
) {
    let (lr, decay, eps) = (T::of(lr), T::of(decay), T::of(c.eps));
    let (keep, take, momentum) = (T::of(c.alpha), T::of(1. - c.alpha), T::of(c.momentum));
    for ((((p, g), n), m), d) in p.iter_mut().zip(g).zip(square).zip(mean).zip(delta) {
        let g = *g + decay * *p;
        *n = keep * *n + take * g * g;
        *m = keep * *m + take * g;
        *d = momentum * *d - lr * g / (*n - *m * *m + eps).sqrt();
        *p = *p + *d;
    }
}
