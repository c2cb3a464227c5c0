//! Stacks and lists of numbers with what moves them: A. Joulin, T. Mikolov, arXiv 1503.01007 (2015), sections 3.2 and 3.3.
//!
//! Letters: b batch, c width of what the controller gives, S stacks, a actions, n cells so far, k cells that are seen.

use candle_core::{D, DType, Module, Result, Tensor, bail};
use candle_nn::VarBuilder;
use mnemic_kernels::activation::sigmoid;
use mnemic_kernels::memory::action_stack::{self, EMPTY, Structure, Weights, update};
use mnemic_kernels::softmax::softmax;

use crate::{Context, Linear, init};

/// Several stacks (or lists) of numbers, each moved as a whole by soft actions.
///
/// From what the controller gives, `h_t`, each stack gets its actions `softmax(A h_t)` and the number `σ(D h_t)` to push; see [`update`] for what follows. There are no
/// biases. Empty cells hold -1.
///
/// Parameters, each the sum of three numbers uniform in ±0.1: `actions.weight (S a, c)`, the rows of one stack together, PUSH, POP and NO-OP (of a list INSERT,
/// LEFT, RIGHT and NO-OP); `push.weight (S, c)`.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use mnemic_layers::{ActionStackConfig, ActionStacks, ActionStructure, Context, ParamStore};
/// let config = ActionStackConfig {
///     structure: ActionStructure::Stack, stacks: 10, capacity: 200, visible: 2, no_op: false, rounding: false,
/// };
/// let store = ParamStore::new(0);
/// let stacks = ActionStacks::new(config, 40, store.builder(DType::F32, &Device::Cpu))?;
/// let mut state = stacks.start(3)?;
/// stacks.step(&Tensor::zeros((3, 40), DType::F32, &Device::Cpu)?, &mut state, 0, &Context::eval())?;
/// assert_eq!((state.cells.dims(), state.visible.dims()), (&[3, 10, 1][..], &[3, 20][..]));
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct ActionStacks {
    config: ActionStackConfig,
    actions: Linear,
    push: Linear,
}

/// The sizes of [`ActionStacks`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ActionStackConfig {
    /// Stacks or lists.
    pub structure: Structure,
    /// How many of them, S.
    pub stacks: usize,
    /// The most cells of each.
    pub capacity: usize,
    /// Cells of each that are seen, k: of a stack from the top, of a list around the head, an even number with one more on the right.
    pub visible: usize,
    /// Whether nothing may be done, too.
    pub no_op: bool,
    /// Whether the likeliest action is done in full where the model is not trained.
    pub rounding: bool,
}

/// What the stacks hold.
#[derive(Debug, Clone)]
pub struct ActionStackState {
    /// The cells that may have been written, `(b, S, n)`.
    pub cells: Tensor,
    /// The cells that are seen, `(b, S k)`, those of one stack together.
    pub visible: Tensor,
}

impl ActionStacks {
    /// Stacks for a controller that gives `controller_size` numbers.
    ///
    /// # Errors
    /// When a size is 0, or a parameter exists with another shape or type.
    pub fn new(
        config: ActionStackConfig,
        controller_size: usize,
        vb: VarBuilder<'_>,
    ) -> Result<Self> {
        let ActionStackConfig { stacks: s, capacity, visible, .. } = config;
        if [controller_size, s, capacity, visible].contains(&0) {
            bail!("action stacks: expected positive sizes, got {config:?} for {controller_size}");
        }
        let map = |to: usize, name: &str| {
            init::three_uniforms(&vb.pp(name), (to, controller_size), "weight", 0.1)
        };
        let actions = map(s * config.structure.num_actions(config.no_op), "actions")?;
        let push = map(s, "push")?;
        Ok(Self { config, actions: Linear::new(actions, None), push: Linear::new(push, None) })
    }

    /// The sizes.
    pub fn config(&self) -> ActionStackConfig {
        self.config
    }

    /// The same stacks, with or without rounding where the model is not trained.
    pub fn with_rounding(mut self, rounding: bool) -> Self {
        self.config.rounding = rounding;
        self
    }

    /// Whether [`scan`](Self::scan) does what a [`step`](Self::step) after the other would: on a CPU, where nothing is rounded or watched.
    pub fn scans(&self, ctx: &Context) -> bool {
        let soft = ctx.is_train() || !self.config.rounding;
        soft && !ctx.is_watching() && self.push.weight().device().is_cpu()
    }

    /// A whole sequence from empty stacks, as one operation: `embedded (b, t, c)`, to which what the controller sees of the stacks (`visible (c, S k)`)
    /// and of itself a step before (`recurrent (c, c)`) is added, to its hidden layer `(b, t, c)`; see [`action_stack::scan`]. Nothing is rounded.
    ///
    /// # Errors
    /// When the shapes do not fit, naming them.
    pub fn scan(
        &self,
        embedded: &Tensor,
        visible: &Linear,
        recurrent: Option<&Linear>,
    ) -> Result<Tensor> {
        let ActionStackConfig { structure, capacity, visible: k, .. } = self.config;
        let weights = Weights {
            visible: visible.weight(),
            actions: self.actions.weight(),
            push: self.push.weight(),
            recurrent: recurrent.map(Linear::weight),
        };
        action_stack::scan(structure, embedded, weights, capacity, k)
    }

    /// The empty stacks of `b` sequences.
    ///
    /// # Errors
    /// When there is no memory for them.
    pub fn start(&self, b: usize) -> Result<ActionStackState> {
        let ActionStackConfig { structure, stacks: s, visible: k, .. } = self.config;
        let (dtype, device): (DType, _) = (self.push.weight().dtype(), self.push.weight().device());
        let empty = |dims: &[usize]| Tensor::full(EMPTY, dims, device)?.to_dtype(dtype);
        Ok(ActionStackState {
            cells: empty(&[b, s, structure.first_cells()])?,
            visible: empty(&[b, s * k])?,
        })
    }

    /// A step in which the controller gave `hidden (b, c)`. `number` numbers what is watched: `actions (b, S, a)`, `values (b, S)` that are pushed, and
    /// `tops (b, S)`, the first cell of each afterwards (of a list the one under the head).
    ///
    /// # Errors
    /// When the shapes do not fit, naming them.
    pub fn step(
        &self,
        hidden: &Tensor,
        state: &mut ActionStackState,
        number: usize,
        ctx: &Context,
    ) -> Result<()> {
        let ActionStackConfig { structure, stacks: s, capacity, visible: k, .. } = self.config;
        let (b, a) = (hidden.dim(0)?, structure.num_actions(self.config.no_op));
        let mut actions = softmax(&self.actions.forward(hidden)?.reshape((b, s, a))?)?;
        if self.config.rounding && !ctx.is_train() {
            actions = likeliest(&actions)?;
        }
        let values = sigmoid(&self.push.forward(hidden)?)?;
        let step = update(structure, &state.cells, &actions, &values, capacity, k)?;
        state.cells = step.cells;
        state.visible = step.visible.reshape((b, s * k))?;
        ctx.watch("actions", number, || Ok(actions))?;
        ctx.watch("values", number, || Ok(values))?;
        let head = match structure {
            Structure::Stack => 0,
            Structure::List => (k - 1) / 2,
        };
        ctx.watch("tops", number, || step.visible.narrow(2, head, 1)?.squeeze(2))
    }
}

/// 1 for the largest number of each row, 0 for the others.
fn likeliest(actions: &Tensor) -> Result<Tensor> {
    let a = actions.dim(D::Minus1)?;
    let best = actions.detach().argmax_keepdim(D::Minus1)?; // (b, s, 1)
    let all = Tensor::arange(0u32, a as u32, actions.device())?;
    best.broadcast_eq(&all)?.to_dtype(actions.dtype())
}

#[cfg(test)]
mod tests {
    use candle_core::Device;
    use mnemic_testing::{assert_close, waves};

    use super::*;
    use crate::ParamStore;

    fn small(rounding: bool) -> (ActionStacks, ParamStore) {
        let config = ActionStackConfig {
            structure: Structure::List,
            stacks: 2,
            capacity: 5,
            visible: 2,
            no_op: true,
            rounding,
        };
        let store = ParamStore::new(1);
        let stacks = ActionStacks::new(config, 3, store.builder(DType::F64, &Device::Cpu)).unwrap();
        (stacks, store)
    }

    #[test]
    fn rounding_does_one_action_in_full_and_pushes_what_it_pushed() {
        let hidden = waves(&[2, 3], 1., 1., DType::F64);
        let step = |rounding: bool, ctx: &Context| {
            let stacks = small(rounding).0;
            let mut state = stacks.start(2).unwrap();
            stacks.step(&hidden, &mut state, 0, ctx).unwrap();
            state.cells
        };
        let watching = Context::eval().watching();
        step(true, &watching);
        let trace = watching.take_trace();
        let names: Vec<&str> = trace.iter().map(|w| w.name.as_str()).collect();
        assert_eq!(names, ["actions", "values", "tops"]);
        let soft = Context::eval().watching();
        step(false, &soft);
        let soft = soft.take_trace();
        let rows = |t: &Tensor| t.flatten_to(1).unwrap().to_vec2::<f64>().unwrap();
        for (hard, soft) in rows(&trace[0].value).iter().zip(rows(&soft[0].value)) {
            assert!((soft.iter().sum::<f64>() - 1.).abs() < 1e-12);
            let best = soft.iter().cloned().fold(0., f64::max);
            let expected: Vec<f64> = soft.iter().map(|&x| f64::from(x == best)).collect();
            assert_eq!(*hard, expected);
        }
        assert_close("values", &trace[1].value, &soft[1].value, 0., 0.);
        // In training nothing is rounded.
        let train = |rounding| step(rounding, &Context::train(0, 0));
        assert_close("training", &train(true), &train(false), 0., 0.);
    }

    #[test]
    fn cells_grow_to_the_capacity() {
        let (stacks, store) = small(false);
        let mut state = stacks.start(1).unwrap();
        let mut counts = vec![];
        for t in 0..4 {
            counts.push(state.cells.dim(2).unwrap());
            let hidden = waves(&[1, 3], t as f64, 1., DType::F64);
            stacks.step(&hidden, &mut state, t, &Context::eval()).unwrap();
        }
        assert_eq!((counts, state.visible.dims()), (vec![1, 3, 5, 5], &[1, 4][..]));
        let shapes: Vec<_> =
            store.vars().iter().map(|(n, v)| (n.clone(), v.dims().to_vec())).collect();
        let expected = [("actions.weight", vec![8, 3]), ("push.weight", vec![2, 3])];
        assert_eq!(shapes, expected.map(|(name, dims)| (name.to_string(), dims)));
    }
}
