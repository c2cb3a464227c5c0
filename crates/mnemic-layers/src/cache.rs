//! Keys and values of what was read before, for writing token after token.
//!
//! Letters: b batch, h heads, `h_kv` key-value heads, n places, d width of a head.

use std::sync::Arc;

use candle_core::{DType, Result, Tensor, bail};

use crate::{AttentionOptions, Bias, Context, Heads, Mask};

/// The fewest places of a buffer.
const LEAST: usize = 16;

/// The keys and values that one attention layer has seen, `(b, h_kv, n, d)`, in buffers that double their room as they grow.
///
/// For inference alone: what is appended is cut from the graph, so no gradient flows through a cache. A value like any other: a
/// clone shares the buffers until one of the two is appended to, which then copies them first.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use mnemic_layers::KvCache;
/// let mut cache = KvCache::new();
/// let xs = Tensor::ones((1, 2, 3, 4), DType::F32, &Device::Cpu)?;
/// cache.append(&xs, &xs)?;
/// let fork = cache.clone();
/// let (k, _v) = cache.append(&xs.narrow(2, 0, 1)?, &xs.narrow(2, 0, 1)?)?;
/// assert_eq!(k.dims(), [1, 2, 4, 4]);
/// assert_eq!((cache.len(), fork.len()), (4, 3));
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct KvCache {
    buffers: Option<Buffers>,
    len: usize,
}

/// Keys and values with room for more: `(b, h_kv, room, d)`, zeros where nothing is yet.
#[derive(Debug, Clone)]
struct Buffers {
    k: Tensor,
    v: Tensor,
    /// Held by every clone: whoever holds it alone may write.
    owner: Arc<()>,
}

impl Buffers {
    fn room(&self) -> Result<usize> {
        self.k.dim(2)
    }

    /// The same numbers in buffers of their own with at least `room` places.
    fn copied(&self, len: usize, room: usize) -> Result<Self> {
        let copy = |old: &Tensor| {
            let (b, h, _, d) = old.dims4()?;
            let new = Tensor::zeros((b, h, room, d), old.dtype(), old.device())?;
            if len > 0 {
                new.slice_set(&old.narrow(2, 0, len)?.contiguous()?, 2, 0)?;
            }
            Ok::<_, candle_core::Error>(new)
        };
        Ok(Self { k: copy(&self.k)?, v: copy(&self.v)?, owner: Arc::default() })
    }
}

impl KvCache {
    /// A cache that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// The number n of places seen.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing was seen.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Takes the next keys and values, `(b, h_kv, n_new, d)` and `(b, h_kv, n_new, d_v)`, and gives all that were seen, as views.
    /// The views stay as they are when more is appended.
    ///
    /// # Errors
    /// When shapes or types are not those of what was seen.
    pub fn append(&mut self, k: &Tensor, v: &Tensor) -> Result<(Tensor, Tensor)> {
        self.push(k, v)?;
        match &self.buffers {
            Some(all) => Ok((all.k.narrow(2, 0, self.len)?, all.v.narrow(2, 0, self.len)?)),
            None => bail!("kv cache: internal error: no buffers"),
        }
    }

    fn push(&mut self, k: &Tensor, v: &Tensor) -> Result<()> {
        let (b, h, n, d) = k.dims4()?;
        let (b_v, h_v, n_v, d_v) = v.dims4()?;
        if (b, h, n) != (b_v, h_v, n_v) {
            bail!("kv cache: keys {:?} and values {:?} do not fit together", k.dims(), v.dims());
        }
        let needed = self.len + n;
        let (old, owned) = match self.buffers.take() {
            Some(mut old) => {
                let seen = (old.k.dims4()?, old.v.dims4()?, old.k.dtype());
                let fits = (seen.0.0, seen.0.1, seen.0.3, seen.1.3) == (b, h, d, d_v)
                    && seen.2 == k.dtype()
                    && seen.2 == v.dtype();
                let owned = Arc::get_mut(&mut old.owner).is_some();
                if !fits {
                    let expected = old.k.dims().to_vec();
                    self.buffers = Some(old);
                    bail!("kv cache: expected keys like {expected:?}, got {:?}", k.dims());
                }
                (old, owned)
            }
            None => {
                let none = |d, dtype| Tensor::zeros((b, h, 0, d), dtype, k.device());
                let (k, v) = (none(d, k.dtype())?, none(d_v, v.dtype())?);
                (Buffers { k, v, owner: Arc::default() }, true)
            }
        };
        let room = old.room()?;
        let new = match owned && needed <= room {
            true => old,
            false => old.copied(self.len, room.max(needed.next_power_of_two()).max(LEAST))?,
        };
        if n > 0 {
            new.k.slice_set(&k.detach().contiguous()?, 2, self.len)?;
            new.v.slice_set(&v.detach().contiguous()?, 2, self.len)?;
        }
        (self.buffers, self.len) = (Some(new), needed);
        Ok(())
    }

    /// Makes row `i` what row `rows[i]` was, in buffers of its own; there may be more or fewer rows than before. For beams.
    ///
    /// # Errors
    /// When there is no such row.
    pub fn select(&mut self, rows: &[u32]) -> Result<()> {
        let Some(old) = &self.buffers else { return Ok(()) };
        let b = old.k.dim(0)?;
        if let Some(bad) = rows.iter().find(|&&row| row as usize >= b) {
            bail!("kv cache: there is no row {bad} of {b}");
        }
        let index = Tensor::new(rows, old.k.device())?;
        let (k, v) = (old.k.index_select(&index, 0)?, old.v.index_select(&index, 0)?);
        self.buffers = Some(Buffers { k, v, owner: Arc::default() });
        Ok(())
    }

    /// Attention of `q (b, h, n_new, d)` over all that was seen, once the next `k` and `v` have been taken; as [`Heads::forward`]. Masks
    /// and biases of `options` are for all the keys.
    ///
    /// # Errors
    /// As [`KvCache::append`] and [`Heads::forward`].
    pub fn attend(
        &mut self,
        heads: &Heads,
        [q, k, v]: [&Tensor; 3],
        options: &AttentionOptions<'_>,
        ctx: &Context,
    ) -> Result<Tensor> {
        let plain = options.mask.key_lengths.is_none()
            && options.mask.window.is_none()
            && options.key_mask.is_none()
            && matches!(options.bias, Bias::None)
            && matches!(options.relative, crate::Relative::None);
        // One query sees everything. Then the buffers are read as they lie, with their rooms as padding: a view would be copied.
        if q.dim(2)? == 1 && plain && !ctx.is_watching() {
            self.push(k, v)?;
            if let Some(all) = &self.buffers {
                let lengths = vec![self.len; q.dim(0)?];
                let mask = Mask { key_lengths: Some(&lengths), ..Mask::default() };
                let options = AttentionOptions { mask, ..AttentionOptions::default() };
                return heads.forward(q, &all.k, &all.v, &options, ctx);
            }
        }
        let (k, v) = self.append(k, v)?;
        heads.forward(q, &k, &v, options, ctx)
    }

    /// The type of what was seen.
    pub fn dtype(&self) -> Option<DType> {
        self.buffers.as_ref().map(|all| all.k.dtype())
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;
    use mnemic_testing::{assert_close, waves};

    use super::*;

    /// Keys and values of a whole sequence.
    fn sequence(n: usize) -> (Tensor, Tensor) {
        (waves(&[2, 3, n, 4], 1., 1., DType::F32), waves(&[2, 3, n, 5], 2., 1., DType::F32))
    }

    fn part((k, v): &(Tensor, Tensor), start: usize, n: usize) -> (Tensor, Tensor) {
        (k.narrow(2, start, n).unwrap(), v.narrow(2, start, n).unwrap())
    }

    fn same(name: &str, (a, b): &(Tensor, Tensor), (c, d): &(Tensor, Tensor)) {
        assert_close(name, &a.contiguous().unwrap(), &c.contiguous().unwrap(), 0., 0.);
        assert_close(name, &b.contiguous().unwrap(), &d.contiguous().unwrap(), 0., 0.);
    }

    #[test]
    fn what_is_appended_comes_back_whole() {
        let all = sequence(100);
        let mut cache = KvCache::new();
        let (mut start, mut views) = (0, vec![]);
        for n in [5, 1, 0, 1, 30, 1, 40, 22] {
            let (k, v) = part(&all, start, n);
            let seen = cache.append(&k, &v).unwrap();
            start += n;
            same(&format!("{start} places"), &seen, &part(&all, 0, start));
            views.push((start, seen));
        }
        assert_eq!(cache.len(), 100);
        for (n, view) in views {
            same("an old view", &view, &part(&all, 0, n));
        }
    }

    #[test]
    fn clones_go_their_own_ways() {
        let (all, other) = (sequence(8), (sequence(20).0, sequence(20).1));
        let mut first = KvCache::new();
        let (k, v) = part(&all, 0, 3);
        first.append(&k, &v).unwrap();
        let mut second = first.clone();
        let mut third = second.clone();
        let (k, v) = part(&all, 3, 1);
        let seen = first.append(&k, &v).unwrap();
        let (k, v) = part(&other, 9, 1);
        let forked = second.append(&k, &v).unwrap();
        same("first", &seen, &part(&all, 0, 4));
        same("second, before", &part(&forked, 0, 3), &part(&all, 0, 3));
        same("second, last", &part(&forked, 3, 1), &part(&other, 9, 1));
        let (k, v) = part(&other, 12, 1);
        let last = third.append(&k, &v).unwrap();
        same("third", &part(&last, 3, 1), &part(&other, 12, 1));
        same("first again", &seen, &part(&all, 0, 4));
        same("second again", &part(&forked, 3, 1), &part(&other, 9, 1));
    }

    #[test]
    fn rows_are_selected_for_beams() {
        let all = sequence(6);
        let mut cache = KvCache::new();
        cache.select(&[7]).unwrap();
        let (k, v) = part(&all, 0, 5);
        let before = cache.append(&k, &v).unwrap();
        let kept = cache.clone();
        cache.select(&[1, 1, 0]).unwrap();
        let index = Tensor::new(&[1u32, 1, 0], &Device::Cpu).unwrap();
        let pick = |t: &Tensor| t.contiguous().unwrap().index_select(&index, 0).unwrap();
        let (k, v) = part(&all, 5, 1);
        let (k, v) = cache.append(&pick(&k), &pick(&v)).unwrap();
        same("selected", &(k, v), &(pick(&all.0), pick(&all.1)));
        same("the clone", &before, &part(&all, 0, 5));
        assert_eq!(kept.len(), 5);
        assert!(cache.select(&[3]).unwrap_err().to_string().contains("no row 3 of 3"));
    }

    #[test]
    fn one_query_at_a_time_equals_causal_attention() {
        let all = sequence(20);
        let q = waves(&[2, 6, 20, 4], 3., 1., DType::F32);
        let (heads, causal) = (Heads::new(None, 0.), AttentionOptions::causal());
        let ctx = Context::eval();
        let expected = heads.forward(&q, &all.0, &all.1, &causal, &ctx).unwrap();
        for ctx in [Context::eval(), Context::eval().watching()] {
            let mut cache = KvCache::new();
            for (start, n) in std::iter::once((0, 7)).chain((7..20).map(|i| (i, 1))) {
                let q = q.narrow(2, start, n).unwrap();
                let (k, v) = part(&all, start, n);
                let got = cache.attend(&heads, [&q, &k, &v], &causal, &ctx).unwrap();
                let expected = expected.narrow(1, start, n).unwrap();
                assert_close(&format!("from {start}"), &got, &expected, 1e-6, 1e-6);
            }
            let weights = ctx.take_trace().pop().map(|w| w.value.dims().to_vec());
            assert!(weights.is_none_or(|dims| dims == [2, 6, 1, 20]));
        }
    }

    #[test]
    fn other_shapes_are_refused_and_change_nothing() {
        let all = sequence(4);
        let mut cache = KvCache::new();
        let (k, v) = part(&all, 0, 2);
        cache.append(&k, &v).unwrap();
        let one = |t: &Tensor| t.narrow(0, 0, 1).unwrap();
        let error = cache.append(&one(&k), &one(&v)).unwrap_err().to_string();
        assert!(error.contains("[2, 3, 16, 4]") && error.contains("[1, 3, 2, 4]"), "{error}");
        let error = cache.append(&k, &one(&v)).unwrap_err().to_string();
        assert!(error.contains("do not fit together"), "{error}");
        let double = k.to_dtype(DType::F64).unwrap();
        assert!(cache.append(&double, &v).is_err());
        let (k, v) = part(&all, 2, 2);
        same("after", &cache.append(&k, &v).unwrap(), &all);
    }
}
