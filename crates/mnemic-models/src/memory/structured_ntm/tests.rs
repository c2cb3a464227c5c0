use candle_core::{DType, Device, Tensor};
use mnemic_layers::{ParamStore, backward, only_fused};
use mnemic_testing::{assert_close, waves};

use super::*;
use crate::testing::without_gradient;

const ALL: [Structure; 3] = [Structure::Ntm1, Structure::Ntm2, Structure::Ntm3];

fn small(structure: Structure) -> Config {
    Config { structure, hidden_size: 7, num_slots: 6, slot_width: 4, ..Config::ntm1(3, 2) }
}

fn build(config: &Config, dtype: DType) -> (StructuredNtm, ParamStore) {
    let store = ParamStore::new(3);
    (StructuredNtm::new(config, store.builder(dtype, &Device::Cpu)).unwrap(), store)
}

#[test]
fn gradients_reach_every_parameter() {
    for structure in ALL {
        let (ntm, store) = build(&small(structure), DType::F64);
        let inputs = waves(&[2, 5, 3], 1., 1., DType::F64);
        let scores = ntm.forward(&inputs, None, &Context::eval()).unwrap();
        let loss = scores.sqr().unwrap().sum_all().unwrap();
        assert_eq!(without_gradient(&store, &loss), Vec::<String>::new(), "{structure:?}");
    }
}

#[test]
fn later_inputs_and_other_rows_change_nothing() {
    for structure in ALL {
        let (ntm, _) = build(&small(structure), DType::F64);
        let ctx = Context::eval();
        let inputs = waves(&[3, 6, 3], 1., 1., DType::F64);
        let whole = ntm.forward(&inputs, None, &ctx).unwrap();
        let first = ntm.forward(&inputs.narrow(1, 0, 4).unwrap(), None, &ctx).unwrap();
        assert_close("first steps", &first, &whole.narrow(1, 0, 4).unwrap(), 1e-12, 1e-12);
        let row = ntm.forward(&inputs.narrow(0, 1, 1).unwrap(), None, &ctx).unwrap();
        assert_close("one row", &row, &whole.narrow(0, 1, 1).unwrap(), 1e-12, 1e-12);
    }
}

#[test]
fn the_graph_is_fused_and_the_share_is_learnt() {
    let (ntm, store) = build(&small(Structure::Ntm3), DType::F32);
    let scores =
        ntm.forward(&waves(&[2, 4, 3], 1., 1., DType::F32), None, &Context::eval()).unwrap();
    let zeros = scores.zeros_like().unwrap();
    let sum = mnemic_layers::losses::Reduction::Sum;
    let loss = mnemic_layers::losses::bce_with_logits(&scores, &zeros, sum).unwrap();
    assert!(only_fused(&loss));
    let grads = backward(&loss).unwrap();
    let shares: Vec<_> =
        store.vars().into_iter().filter(|(name, _)| name.contains("share")).collect();
    assert_eq!(shares.len(), 2);
    for (name, share) in shares {
        assert_eq!(share.to_vec1::<f32>().unwrap(), [0.], "{name}");
        assert!(grads.get(&share).unwrap().to_vec1::<f32>().unwrap()[0] != 0., "{name}");
    }
}

#[test]
fn wrong_sizes_are_named() {
    let error = |config: Config| {
        let store = ParamStore::new(0);
        let vb = store.builder(DType::F32, &Device::Cpu);
        StructuredNtm::new(&config, vb).unwrap_err().to_string()
    };
    assert!(error(Config { slot_width: 0, ..Config::ntm1(9, 8) }).contains("slot_width"));
    assert!(error(Config { max_shift: 128, ..Config::ntm1(9, 8) }).contains("max_shift 128"));
    assert!(error(Config { share: Some(1.5), ..Config::ntm1(9, 8) }).contains("share 1.5"));
    let (ntm, _) = build(&small(Structure::Ntm1), DType::F32);
    let inputs = Tensor::zeros((1, 2, 9), DType::F32, &Device::Cpu).unwrap();
    let error = ntm.forward(&inputs, None, &Context::eval()).unwrap_err().to_string();
    assert!(error.contains("(b, t, 3), got [1, 2, 9]"), "{error}");
}
