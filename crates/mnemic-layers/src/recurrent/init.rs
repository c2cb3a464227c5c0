//! Initial values of recurrent weights.

use candle_core::{Result, Tensor, bail};
use candle_nn::{Init, VarBuilder};
use mnemic_kernels::recurrent::Weights;

use crate::init::{get_edited, normal, orthonormal_blocks, uniform, xavier_uniform};

/// How a weight of stacked gates is drawn.
#[derive(Debug, Clone, Copy)]
pub enum GateInit {
    /// Uniform in `±1/sqrt(h)`, as PyTorch does.
    Hidden,
    /// Xavier uniform with the fans of one gate.
    Xavier,
    /// One orthogonal matrix a gate.
    Orthogonal,
    /// As given.
    Drawn(Init),
}

/// Initial values of a recurrent layer.
#[derive(Debug, Clone, Copy)]
pub struct RecurrentInit {
    /// Input weights.
    pub input: GateInit,
    /// Recurrent weights.
    pub recurrent: GateInit,
    /// Both biases; uniform in `±1/sqrt(h)` where `None`.
    pub bias: Option<Init>,
    /// The bias that holds on to the state to begin with, the sum of its two vectors. LSTM: the forget gate's (1 in Jozefowicz et
    /// al. 2015). GRU and attention GRU: that of the reset and update gates (1 in TensorFlow's cell).
    pub gate_bias: Option<f64>,
}

impl RecurrentInit {
    /// PyTorch's: everything uniform in `±1/sqrt(h)`.
    pub fn pytorch() -> Self {
        Self { input: GateInit::Hidden, recurrent: GateInit::Hidden, bias: None, gate_bias: None }
    }

    /// Xavier uniform weights gate by gate, biases 0.
    pub fn xavier() -> Self {
        Self {
            input: GateInit::Xavier,
            recurrent: GateInit::Xavier,
            bias: Some(Init::Const(0.)),
            gate_bias: None,
        }
    }

    /// Xavier uniform input weights, orthogonal recurrent weights gate by gate, biases 0.
    pub fn orthogonal() -> Self {
        Self { recurrent: GateInit::Orthogonal, ..Self::xavier() }
    }

    /// Every weight and bias drawn from `init`.
    pub fn drawn(init: Init) -> Self {
        Self {
            input: GateInit::Drawn(init),
            recurrent: GateInit::Drawn(init),
            bias: Some(init),
            gate_bias: None,
        }
    }

    /// The same with this [gate bias](Self::gate_bias); not for an [`Rnn`](crate::Rnn), which has no gates.
    pub fn with_gate_bias(self, gate_bias: f64) -> Self {
        Self { gate_bias: Some(gate_bias), ..self }
    }
}

/// One layer and direction to be created.
pub(super) struct Layer<'a> {
    /// The layer's name in messages.
    pub(super) op: &'a str,
    /// What follows `weight_ih` and the rest: `_l0_reverse`.
    pub(super) suffix: &'a str,
    pub(super) gates: usize,
    pub(super) input_size: usize,
    pub(super) hidden_size: usize,
    pub(super) bias: bool,
}

impl Layer<'_> {
    pub(super) fn weights(&self, init: &RecurrentInit, vb: &VarBuilder<'_>) -> Result<Weights> {
        if init.gate_bias.is_some() && (self.gates == 1 || !self.bias) {
            bail!("{}: a gate bias needs a layer with gates and biases", self.op);
        }
        Ok(Weights {
            w_ih: self.weight("weight_ih", self.input_size, init.input, vb)?,
            w_hh: self.weight("weight_hh", self.hidden_size, init.recurrent, vb)?,
            b_ih: self.bias("bias_ih", init, init.gate_bias, vb)?,
            b_hh: self.bias("bias_hh", init, init.gate_bias.map(|_| 0.), vb)?,
        })
    }

    fn hidden(&self) -> Init {
        uniform(1. / (self.hidden_size as f64).sqrt())
    }

    fn weight(
        &self,
        name: &str,
        columns: usize,
        init: GateInit,
        vb: &VarBuilder<'_>,
    ) -> Result<Tensor> {
        let shape = (self.gates * self.hidden_size, columns);
        let name = format!("{name}{}", self.suffix);
        match init {
            GateInit::Hidden => vb.get_with_hints(shape, &name, self.hidden()),
            GateInit::Xavier => {
                vb.get_with_hints(shape, &name, xavier_uniform(columns, self.hidden_size))
            }
            GateInit::Drawn(init) => vb.get_with_hints(shape, &name, init),
            GateInit::Orthogonal => get_edited(vb, shape, &name, normal(1.), |values| {
                orthonormal_blocks(&name, values, &[shape.0, shape.1], self.gates)
            }),
        }
    }

    fn bias(
        &self,
        name: &str,
        init: &RecurrentInit,
        gate: Option<f64>,
        vb: &VarBuilder<'_>,
    ) -> Result<Option<Tensor>> {
        if !self.bias {
            return Ok(None);
        }
        let (h, name) = (self.hidden_size, format!("{name}{}", self.suffix));
        let init = init.bias.unwrap_or(self.hidden());
        let bias = get_edited(vb, self.gates * h, &name, init, |mut values| {
            if let Some(gate) = gate {
                let gates = match self.gates {
                    4 => h..2 * h,           // of i f g o, f
                    all => 0..(all - 1) * h, // of r z n, or r n, all but n
                };
                values[gates].fill(gate);
            }
            Ok(values)
        })?;
        Ok(Some(bias))
    }
}
