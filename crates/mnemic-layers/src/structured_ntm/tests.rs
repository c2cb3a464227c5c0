use mnemic_testing::{assert_close, waves};

use super::*;
use crate::ParamStore;

/// A memory whose shares before σ are set.
fn memory(structure: MemoryStructure, shares: &[f64]) -> (StructuredMemory, ParamStore) {
    let config = StructuredMemoryConfig {
        structure,
        controller_size: 5,
        num_slots: 6,
        slot_width: 4,
        max_shift: 1,
        share: None,
    };
    let store = ParamStore::new(11);
    let memory = StructuredMemory::new(config, store.builder(DType::F64, &Device::Cpu)).unwrap();
    for (name, var) in store.vars() {
        if let Some(l) = name.strip_prefix("share.") {
            let l: usize = l.parse().unwrap();
            var.set(&Tensor::new(&[shares[l]], &Device::Cpu).unwrap()).unwrap();
        }
    }
    (memory, store)
}

/// Gives what is called the same in both the values of the first.
fn share_parameters(from: &ParamStore, to: &ParamStore) {
    for (name, var) in to.vars() {
        let same = from.vars().into_iter().find(|(other, _)| *other == name);
        if let Some((_, value)) = same
            && !name.starts_with("share")
            && value.dims() == var.dims()
        {
            var.set(value.as_tensor()).unwrap();
        }
    }
}

fn hidden(t: usize, b: usize) -> Tensor {
    waves(&[b, 5], t as f64, 2., DType::F64)
}

/// σ is 1 to the last bit.
const ALL: f64 = 1e3;

#[test]
fn ntm3_whose_first_layer_keeps_to_itself_is_ntm2() {
    let (ntm2, parameters) = memory(MemoryStructure::Ntm2, &[-0.4]);
    let (ntm3, store) = memory(MemoryStructure::Ntm3, &[ALL, -0.4]);
    share_parameters(&parameters, &store);
    let mut states = [ntm2.start(2).unwrap(), ntm3.start(2).unwrap()];
    for t in 0..20 {
        states[0] = ntm2.step(&hidden(t, 2), &states[0], t, &Context::eval()).unwrap();
        states[1] = ntm3.step(&hidden(t, 2), &states[1], t, &Context::eval()).unwrap();
        assert_close("read", &states[0].read, &states[1].read, 1e-12, 1e-12);
    }
}

/// What heads emit, and the flat memory that they write and read: a step of an NTM that reads what it has just written.
struct Flat {
    memory: Tensor,
    read_weights: Tensor,
    write_weights: Tensor,
}

impl Flat {
    fn start(state: &StructuredState, layer: usize) -> Self {
        Self {
            memory: state.memory[layer].clone(),
            read_weights: state.read_weights.clone(),
            write_weights: state.write_weights[layer].clone(),
        }
    }

    fn step(&mut self, like: &StructuredMemory, write_head: usize, hidden: &Tensor) -> Tensor {
        let head = like.head(&like.write_heads[write_head], hidden).unwrap();
        self.write_weights = address(&self.memory, &self.write_weights, &head.controls, 1).unwrap();
        self.memory = write(&self.memory, &self.write_weights, &head.erase, &head.add).unwrap();
        let controls = like.read_head.forward(hidden).unwrap().unsqueeze(1).unwrap();
        self.read_weights = address(&self.memory, &self.read_weights, &controls, 1).unwrap();
        read(&self.memory, &self.read_weights).unwrap().squeeze(1).unwrap()
    }
}

/// The layer that is read is a flat memory where NTM1's keeps nothing, and where nothing is mixed into NTM2's and NTM3's.
#[test]
fn the_limits_are_ntms() {
    use MemoryStructure::{Ntm1, Ntm2, Ntm3};
    let cases: [(MemoryStructure, &[f64], usize); 3] =
        [(Ntm1, &[-ALL], 0), (Ntm2, &[ALL], 1), (Ntm3, &[ALL, ALL], 1)];
    for (structure, shares, layer) in cases {
        let (memory, _) = memory(structure, shares);
        let mut state = memory.start(2).unwrap();
        let mut flat = Flat::start(&state, layer);
        for t in 0..20 {
            state = memory.step(&hidden(t, 2), &state, t, &Context::eval()).unwrap();
            let expected = flat.step(&memory, layer, &hidden(t, 2));
            assert_close(&format!("{structure:?}"), &state.read, &expected, 1e-12, 1e-12);
        }
    }
}

/// `M²_T = a^T M²_0 + (1 - a) Σ a^{T-t} M¹_t`, and so within the range of all that was written.
#[test]
fn the_hidden_layer_is_a_leaky_average() {
    let share = 0.3f64;
    let (memory, _) = memory(MemoryStructure::Ntm1, &[(share / (1. - share)).ln()]);
    let mut state = memory.start(1).unwrap();
    let mut written = vec![];
    let (mut least, mut most) = (state.memory[1].clone(), state.memory[1].clone());
    let start = state.memory[1].clone();
    for t in 0..12 {
        state = memory.step(&hidden(t, 1), &state, t, &Context::eval()).unwrap();
        written.push(state.memory[0].clone());
        let mut expected = (&start * share.powi(t as i32 + 1)).unwrap();
        for (age, layer) in written.iter().rev().enumerate() {
            let part = (layer * ((1. - share) * share.powi(age as i32))).unwrap();
            expected = (expected + part).unwrap();
        }
        assert_close("hidden layer", &state.memory[1], &expected, 1e-12, 1e-12);
        least = least.minimum(&state.memory[0]).unwrap();
        most = most.maximum(&state.memory[0]).unwrap();
        for (low, high) in [(&least, &state.memory[1]), (&state.memory[1], &most)] {
            let gap = (high - low).unwrap().min_all().unwrap().to_scalar::<f64>().unwrap();
            assert!(gap >= -1e-12, "{gap}");
        }
    }
}

#[test]
fn a_share_is_half_at_first_or_fixed() {
    let config = |share| StructuredMemoryConfig {
        structure: MemoryStructure::Ntm3,
        controller_size: 5,
        num_slots: 6,
        slot_width: 4,
        max_shift: 1,
        share,
    };
    let shares = |share| {
        let store = ParamStore::new(0);
        let vb = store.builder(DType::F32, &Device::Cpu);
        let memory = StructuredMemory::new(config(share), vb)?;
        memory.shares()?.iter().map(Tensor::to_vec1::<f32>).collect::<Result<Vec<_>>>()
    };
    assert_eq!(shares(None).unwrap(), [[0.5], [0.5]]);
    assert_eq!(shares(Some(0.9)).unwrap(), [[0.9], [0.9]]);
    assert!(shares(Some(-0.1)).unwrap_err().to_string().contains("-0.1"));
}
