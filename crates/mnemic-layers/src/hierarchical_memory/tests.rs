use mnemic_testing::{assert_close, waves};

use super::*;
use crate::ParamStore;

const SIZES: HierarchicalMemoryConfig =
    HierarchicalMemoryConfig { input_size: 3, node_size: 5, controller_size: 4, hidden_size: 6 };

fn memory(seed: u64) -> (HierarchicalMemory, ParamStore) {
    let store = ParamStore::new(seed);
    let vb = store.builder(DType::F64, &Device::Cpu);
    (HierarchicalMemory::new(SIZES, vb).unwrap(), store)
}

fn node(tree: &Tree, node: usize) -> Tensor {
    tree.pick(&[node, node]).unwrap()
}

/// Every inner node, joined anew from what is below it, is what the tree holds there.
fn consistent(memory: &HierarchicalMemory, tree: &Tree) {
    for at in 1..tree.leaves() {
        let children = concat(&[node(tree, 2 * at), node(tree, 2 * at + 1)]).unwrap();
        let joined = memory.joined(&children).unwrap();
        assert_close(&format!("node {at}"), &node(tree, at), &joined, 1e-15, 1e-15);
    }
}

#[test]
fn writing_leaves_the_tree_as_if_it_were_built_anew() {
    let (memory, _) = memory(1);
    let mut tree = memory.build(&waves(&[2, 6, 3], 1., 1., DType::F64)).unwrap();
    consistent(&memory, &tree);
    let ctx = Context::train(3, 0);
    for t in 0..9 {
        let controller = waves(&[2, 4], t as f64, 3., DType::F64);
        let access = memory.descend(&controller, &tree, t, &ctx).unwrap();
        memory.write(&controller, &access, &mut tree).unwrap();
        consistent(&memory, &tree);
    }
    // n - 1 JOINs to build, D JOINs and SEARCHes an access.
    assert_eq!(tree.evaluations(), Evaluations { join: 7 + 9 * 3, search: 9 * 3 });
}

#[test]
fn leaves_are_drawn_as_often_as_they_are_likely() {
    let (memory, _) = memory(4);
    let b = 4000;
    let leaves = waves(&[1, 4, 3], 1., 2., DType::F64);
    let tree =
        memory.build(&leaves.broadcast_as((b, 4, 3)).unwrap().contiguous().unwrap()).unwrap();
    let controller = waves(&[1, 4], 2., 3., DType::F64).broadcast_as((b, 4)).unwrap();
    let controller = controller.contiguous().unwrap();
    let p = memory.leaf_probabilities(&controller, &tree).unwrap();
    let p = p.get(0).unwrap().to_vec1::<f64>().unwrap();
    assert!((p.iter().sum::<f64>() - 1.).abs() < 1e-12);
    let access = memory.descend(&controller, &tree, 0, &Context::train(1, 0)).unwrap();
    let mut counts = [0.; 4];
    access.leaves.iter().for_each(|&leaf| counts[leaf] += 1.);
    let chi: f64 = counts
        .iter()
        .zip(&p)
        .map(|(count, p): (&f64, _)| (count - p * b as f64).powi(2) / (p * b as f64))
        .sum();
    // The 99.9 % point of χ² with three degrees of freedom.
    assert!(chi < 16.27, "{counts:?} {p:?}");
    // Without chance it is the likelier side that is taken.
    let access = memory.descend(&controller, &tree, 0, &Context::eval()).unwrap();
    let logits = access.logits.get(0).unwrap().to_vec1::<f64>().unwrap();
    assert_eq!(access.right[0], logits.iter().map(|&z| z > 0.).collect::<Vec<_>>());
}

#[test]
fn leaf_probabilities_multiply_along_the_path() {
    let weights = |p: [f64; 3]| {
        let [root, left, right] = p;
        [(1. - root) * (1. - left), (1. - root) * left, root * (1. - right), root * right]
    };
    let worked = weights([0.25, 0.6, 0.9]);
    for (a, b) in worked.iter().zip([0.3, 0.45, 0.025, 0.225]) {
        assert!((a - b).abs() < 1e-12);
    }
    let (memory, _) = memory(6);
    let tree = memory.build(&waves(&[1, 4, 3], 1., 2., DType::F64)).unwrap();
    let controller = waves(&[1, 4], 2., 3., DType::F64);
    let right = |at: usize| {
        let z = memory.searched(&tree.pick(&[at]).unwrap(), &controller).unwrap();
        1. / (1. + (-z.to_vec2::<f64>().unwrap()[0][0]).exp())
    };
    let expected = weights([right(1), right(2), right(3)]);
    let p = memory.leaf_probabilities(&controller, &tree).unwrap();
    assert_close("leaves", &p, &Tensor::new(&[expected], &Device::Cpu).unwrap(), 1e-12, 1e-12);
}

#[test]
fn one_leaf_needs_no_decision() {
    let (memory, _) = memory(1);
    let mut tree = memory.build(&waves(&[2, 1, 3], 1., 1., DType::F64)).unwrap();
    let controller = waves(&[2, 4], 1., 1., DType::F64);
    let access = memory.descend(&controller, &tree, 0, &Context::train(1, 0)).unwrap();
    assert_eq!((access.logits.dims(), access.leaves.as_slice()), (&[2, 0][..], &[0, 0][..]));
    memory.write(&controller, &access, &mut tree).unwrap();
    assert!(memory.build(&Tensor::zeros((2, 0, 3), DType::F64, &Device::Cpu).unwrap()).is_err());
}

/// Gradients of what is found after a write, through JOIN and WRITE, with the decisions held fast.
#[test]
fn gradients_pass_through_writes_and_joins() {
    let (memory, store) = memory(2);
    let vars = store.vars();
    let value = || {
        let mut tree = memory.build(&waves(&[2, 4, 3], 1., 1., DType::F64)).unwrap();
        let controller = waves(&[2, 4], 1., 1., DType::F64);
        let ctx = Context::eval();
        let mut sum = Tensor::zeros((), DType::F64, &Device::Cpu).unwrap();
        for t in 0..3 {
            let access = memory.descend(&controller, &tree, t, &ctx).unwrap();
            memory.write(&controller, &access, &mut tree).unwrap();
            let root = tree.pick(&[1, 1]).unwrap();
            for part in [access.value, access.logits, root] {
                sum = (sum + part.sqr().unwrap().sum_all().unwrap()).unwrap();
            }
        }
        sum
    };
    let grads = value().backward().unwrap();
    for (name, var) in vars {
        let grad = grads.get(&var).unwrap_or_else(|| panic!("{name}"));
        let at = var.flatten_all().unwrap().to_vec1::<f64>().unwrap();
        let probe = at.len() / 2;
        let with = |change: f64| {
            let mut values = at.clone();
            values[probe] += change;
            var.set(&Tensor::from_vec(values, var.dims(), &Device::Cpu).unwrap()).unwrap();
            value().to_scalar::<f64>().unwrap()
        };
        let numeric = (with(1e-6) - with(-1e-6)) / 2e-6;
        with(0.);
        let exact = grad.flatten_all().unwrap().to_vec1::<f64>().unwrap()[probe];
        assert!((numeric - exact).abs() < 1e-6 * (1. + exact.abs()), "{name}: {numeric} {exact}");
    }
}
