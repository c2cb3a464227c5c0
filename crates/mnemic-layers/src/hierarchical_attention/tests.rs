use candle_core::{DType, Device, Tensor, Var};
use mnemic_kernels::attention::{Attention, Mask, attention};
use mnemic_testing::{assert_close, waves};

use super::*;
use crate::ParamStore;

const READOUTS: [Readout; 4] =
    [Readout::Flat, Readout::TopDown, Readout::Descent { beam: 2 }, Readout::Descent { beam: 100 }];

fn config(branching: usize, levels: usize, readout: Readout) -> HierarchicalAttentionConfig {
    HierarchicalAttentionConfig { width: 4, num_heads: 2, branching, levels, summaries: 1, readout }
}

fn build(config: HierarchicalAttentionConfig) -> (HierarchicalAttention, ParamStore) {
    let store = ParamStore::new(3);
    let layer =
        HierarchicalAttention::new(config, store.builder(DType::F64, &Device::Cpu)).unwrap();
    // Larger codes of places, so that tests see them.
    for (name, var) in store.vars() {
        if name.starts_with("frontier")
            || name.ends_with("position")
            || name.ends_with("query.weight")
        {
            var.set(&waves(var.dims(), name.len() as f64, 0.7, DType::F64)).unwrap();
        }
    }
    (layer, store)
}

fn set(store: &ParamStore, names: &str, value: f64) {
    let mut found = false;
    for (name, var) in store.vars().into_iter().filter(|(name, _)| name.contains(names)) {
        let values = Tensor::full(value, var.shape(), &Device::Cpu).unwrap();
        var.set(&values).unwrap_or_else(|e| panic!("{name}: {e}"));
        found = true;
    }
    assert!(found, "{names}");
}

/// Nothing but means: no attention, no feed-forward part.
fn average(store: &ParamStore) {
    ["out.weight", "linear2"].iter().for_each(|names| set(store, names, 0.));
}

fn all(t: usize) -> Vec<bool> {
    vec![true; t]
}

fn only(t: usize, step: usize) -> Vec<bool> {
    (0..t).map(|i| i == step).collect()
}

fn bits(xs: &Tensor) -> Vec<u64> {
    let xs = xs.flatten_all().unwrap().to_vec1::<f64>().unwrap();
    xs.into_iter().map(f64::to_bits).collect()
}

#[test]
fn frontiers_are_the_digits_of_a_counter() {
    let frontier = |b, levels, t| config(b, levels, Readout::Flat).frontier(t);
    assert_eq!(frontier(3, 2, 17), [15..17, 3..5, 0..1]);
    assert_eq!(frontier(100, 1, 10_000), [10_000..10_000, 0..100]);
    for (b, levels) in [(2, 0), (2, 3), (3, 1), (5, 2)] {
        for t in 0..300 {
            let nodes = frontier(b, levels, t);
            assert!(nodes.iter().map(Range::len).sum::<usize>() <= b + levels * (b - 1));
            // Without gaps from the newest leaf back, as far as the field reaches.
            let config = config(b, levels, Readout::Flat);
            let mut end = t;
            for (level, nodes) in nodes.iter().enumerate() {
                assert_eq!(nodes.end * config.span(level), end, "{b} {levels} {t} {level}");
                end = nodes.start * config.span(level);
            }
            let (seen, field) = (t - end, config.span(levels + 1));
            match t <= field {
                true => assert_eq!(seen, t),
                false => assert!((field..field + config.span(levels)).contains(&seen)),
            }
        }
    }
}

#[test]
fn within_one_window_it_is_ordinary_causal_attention() {
    for (branching, levels) in [(7, 0), (9, 0), (8, 1), (20, 2)] {
        let (layer, store) = build(config(branching, levels, Readout::Flat));
        let leaves = waves(&[2, 7, 4], 1., 1., DType::F64);
        let all = layer.forward(&leaves, &all(7), &Context::eval()).unwrap();
        let weight = |name: &str| store.get(name).unwrap().as_tensor().clone();
        let map = |name: &str, xs: &Tensor| {
            let ys = xs.broadcast_matmul(&weight(name).t().unwrap()).unwrap();
            crate::split_heads(&ys, 2).unwrap()
        };
        let placed = leaves.broadcast_add(&weight("frontier.0").narrow(0, 0, 7).unwrap()).unwrap();
        let (q, k) = (map("query.weight", &leaves), map("key.weight", &placed));
        let options = Attention { mask: Mask::causal(), ..Attention::default() };
        let plain = attention(&q, &k, &map("value.weight", &placed), &options).unwrap().output;
        let plain = plain.transpose(1, 2).unwrap().reshape((2, 7, 4)).unwrap();
        assert_close("flat limit", &all, &plain, 1e-10, 1e-10);
    }
}

#[test]
fn without_attention_nodes_are_means() {
    let sizes =
        HierarchicalAttentionConfig { width: 1, num_heads: 1, ..config(2, 2, Readout::Flat) };
    let (layer, store) = build(sizes);
    average(&store);
    let leaves = Tensor::new(&[[[1f64], [2.], [3.], [6.]]], &Device::Cpu).unwrap();
    let nodes = layer.nodes(&leaves, None, &Context::eval()).unwrap();
    let values = |level: usize| nodes[level].flatten_all().unwrap().to_vec1::<f64>().unwrap();
    assert_eq!((values(1), values(2)), (vec![1.5, 4.5], vec![3.]));
    // A window of one child is that child; padding is no child.
    let nodes = layer.nodes(&leaves, Some(&[3]), &Context::eval()).unwrap();
    assert_eq!(nodes[1].flatten_all().unwrap().to_vec1::<f64>().unwrap(), [1.5, 3.]);
    assert_eq!(nodes[2].flatten_all().unwrap().to_vec1::<f64>().unwrap(), [2.25]);

    let sizes = HierarchicalAttentionConfig { summaries: 2, ..config(3, 2, Readout::Flat) };
    let (layer, store) = build(sizes);
    average(&store);
    let leaves = waves(&[2, 9, 4], 1., 1., DType::F64);
    let root = layer.nodes(&leaves, None, &Context::eval()).unwrap().pop().unwrap();
    let mean = leaves.mean_keepdim(1).unwrap();
    for vector in 0..2 {
        assert_close("root", &root.narrow(1, vector, 1).unwrap(), &mean, 1e-12, 1e-12);
    }
}

#[test]
fn a_query_of_zeros_attends_evenly() {
    let (layer, store) = build(config(5, 1, Readout::Flat));
    set(&store, "summary.1.query", 0.);
    let ctx = Context::eval().watching();
    layer.forward(&waves(&[2, 11, 4], 1., 1., DType::F64), &all(11), &ctx).unwrap();
    let trace = ctx.take_trace();
    let weights: Vec<&Tensor> = trace
        .iter()
        .filter(|entry| entry.name == "summary_weights_level_1")
        .map(|entry| &entry.value)
        .collect();
    assert_eq!(weights.len(), 2);
    for weights in weights {
        assert_eq!(weights.dims(), [2, 2, 5]);
        let even = Tensor::full(0.2f32, (2, 2, 5), &Device::Cpu).unwrap();
        assert_close("weights", weights, &even, 1e-6, 1e-6);
    }
}

#[test]
fn the_order_in_a_window_counts_by_position_alone() {
    let (layer, store) = build(config(3, 2, Readout::Flat));
    let leaves = waves(&[1, 9, 4], 1., 1., DType::F64);
    let swapped = |order: [u32; 9]| {
        let order = Tensor::new(&order, &Device::Cpu).unwrap();
        leaves.index_select(&order, 1).unwrap()
    };
    let root =
        |leaves: &Tensor| layer.nodes(leaves, None, &Context::eval()).unwrap().pop().unwrap();
    let orders = [[2, 0, 1, 3, 4, 5, 6, 8, 7], [3, 4, 5, 0, 1, 2, 6, 7, 8]];
    for order in orders {
        let difference = (root(&leaves) - root(&swapped(order))).unwrap().abs().unwrap();
        let largest = difference.flatten_all().unwrap().max(0).unwrap().to_scalar::<f64>().unwrap();
        assert!(largest > 1e-3, "{order:?}: {largest}");
    }
    set(&store, "position", 0.);
    for order in orders {
        assert_close("permuted", &root(&swapped(order)), &root(&leaves), 1e-12, 1e-12);
    }
    // Between windows it is no permutation of either level.
    let mixed = swapped([0, 1, 3, 2, 4, 5, 6, 7, 8]);
    let difference = (root(&leaves) - root(&mixed)).unwrap().abs().unwrap().sum_all().unwrap();
    assert!(difference.to_scalar::<f64>().unwrap() > 1e-3);
}

#[test]
fn nothing_later_changes_a_bit() {
    let t = 19;
    let leaves = waves(&[2, t, 4], 1., 1., DType::F64);
    for readout in READOUTS {
        for (branching, levels) in [(3, 0), (2, 2), (3, 1)] {
            let (layer, _) = build(config(branching, levels, readout));
            let whole = layer.forward(&leaves, &all(t), &Context::eval()).unwrap();
            for step in [0, 4, 8, 17] {
                let other = waves(&[2, t - step - 1, 4], 5., 3., DType::F64);
                let changed = Tensor::cat(&[&leaves.narrow(1, 0, step + 1).unwrap(), &other], 1);
                let changed = changed.unwrap();
                let again = layer.forward(&changed, &all(t), &Context::eval()).unwrap();
                let first = |xs: &Tensor| bits(&xs.narrow(1, 0, step + 1).unwrap());
                assert_eq!(first(&again), first(&whole), "{readout:?} {branching} {levels} {step}");
                let one = |leaves: &Tensor| {
                    layer.forward(leaves, &only(t, step), &Context::eval()).unwrap()
                };
                assert_eq!(bits(&one(&changed)), bits(&one(&leaves)));
            }
        }
    }
}

#[test]
fn all_steps_at_once_one_alone_and_a_stream_are_the_same() {
    let t = 23;
    let leaves = waves(&[2, t, 4], 1., 1., DType::F64);
    for readout in READOUTS {
        for (branching, levels, summaries) in
            [(3, 0, 1), (2, 1, 2), (2, 2, 1), (3, 2, 3), (30, 1, 1)]
        {
            let descent = matches!(readout, Readout::Descent { .. });
            let summaries = if descent { 1 } else { summaries };
            let sizes =
                HierarchicalAttentionConfig { summaries, ..config(branching, levels, readout) };
            let (layer, _) = build(sizes);
            let whole = layer.forward(&leaves, &all(t), &Context::eval()).unwrap();
            let mut state = layer.start();
            for step in 0..t {
                let expected = whole.narrow(1, step, 1).unwrap();
                let name = format!("{sizes:?} step {step}");
                let one = layer.forward(&leaves, &only(t, step), &Context::eval()).unwrap();
                assert_close(&name, &one, &expected, 1e-10, 1e-10);
                let leaf = leaves.narrow(1, step, 1).unwrap().squeeze(1).unwrap();
                let next = layer.step(&leaf, &mut state, &Context::eval()).unwrap();
                assert_close(&name, &next, &expected.squeeze(1).unwrap(), 1e-10, 1e-10);
                let built: usize = (1..=levels).map(|l| (step + 1) / sizes.span(l)).sum();
                assert_eq!(state.built, built);
                assert!(built * (branching - 1) < step + 1 || levels == 0);
                let held: usize = state.levels.iter().map(|nodes| nodes.len()).sum();
                assert!(descent || held <= branching + levels * (branching - 1), "{held}");
            }
        }
    }
}

#[test]
fn gradients_reach_what_is_under_the_frontier_and_nothing_else() {
    let t = 13;
    for readout in READOUTS {
        for (branching, levels) in [(3, 0), (2, 1), (2, 2), (3, 1)] {
            let sizes = config(branching, levels, readout);
            let (layer, _) = build(sizes);
            let leaves = Var::from_tensor(&waves(&[1, t, 4], 1., 1., DType::F64)).unwrap();
            for time in [1, 6, t] {
                let y = layer.forward(&leaves, &only(t, time - 1), &Context::eval()).unwrap();
                let grads = y.sqr().unwrap().sum_all().unwrap().backward().unwrap();
                let grads = grads.get(&leaves).unwrap().abs().unwrap().sum(2).unwrap();
                let grads = grads.to_vec2::<f64>().unwrap().remove(0);
                let start = sizes.frontier(time)[levels].start * sizes.span(levels);
                let beam = matches!(readout, Readout::Descent { beam } if beam < branching);
                for (leaf, grad) in grads.iter().enumerate() {
                    let under = (start..time).contains(&leaf);
                    // A narrow descent leaves out some that it might have read.
                    assert!(
                        (*grad != 0.) == under || (beam && under),
                        "{sizes:?} {time}: {leaf} has {grad}"
                    );
                }
            }
        }
    }
}

/// An attention for each level that summarises, and one to read, or one a level: with the leaf's encoder Lv + 2, or 2 Lv + 2, are between an input
/// and the context.
#[test]
fn paths_are_as_long_as_the_tree_is_high() {
    for (readout, reads) in [(Readout::Flat, 1.), (Readout::TopDown, 4.)] {
        let (layer, _) = build(config(2, 3, readout));
        let ctx = Context::eval().watching();
        layer.forward(&waves(&[1, 15, 4], 1., 1., DType::F64), &only(15, 14), &ctx).unwrap();
        let (mut summaries, mut sum) = (std::collections::BTreeSet::new(), 0.);
        for entry in ctx.take_trace() {
            match entry.name.strip_prefix("summary_weights_level_") {
                Some(level) => _ = summaries.insert(level.to_string()),
                None => {
                    let weights = entry.value.to_dtype(DType::F64).unwrap();
                    sum += weights.sum_all().unwrap().to_scalar::<f64>().unwrap();
                }
            }
        }
        assert_eq!(summaries.into_iter().collect::<Vec<_>>(), ["1", "2", "3"]);
        // One node of each level is seen; every softmax of the two heads adds up to one.
        assert!((sum - 2. * reads).abs() < 1e-6, "{readout:?}: {sum}");
    }
}

/// Scores by hand: a root that goes right with 1/4, its left child with 0.6 and its right one with 0.9.
#[test]
fn a_descent_of_two_levels_has_the_products_as_weights() {
    let sizes = HierarchicalAttentionConfig {
        width: 2,
        num_heads: 1,
        ..config(2, 1, Readout::Descent { beam: 2 })
    };
    let (layer, store) = build(sizes);
    average(&store);
    set(&store, "frontier", 0.);
    let to = |name: &str, values: [f64; 4]| {
        let values = Tensor::from_slice(&values, (2, 2), &Device::Cpu).unwrap();
        store.get(name).unwrap().set(&values).unwrap();
    };
    // Leaves are (1, √2 ln p): the query takes the one, the keys of leaves the other number.
    let scaled: Vec<f64> = [0.4f64, 0.6, 0.1, 0.9].map(|p| 2f64.sqrt() * p.ln()).to_vec();
    let (left, right) = ((scaled[0] + scaled[1]) / 2., (scaled[2] + scaled[3]) / 2.);
    let slope = 2f64.sqrt() * (0.75f64.ln() - 0.25f64.ln()) / (left - right);
    to("query.weight", [1., 0., 0., 0.]);
    to("key.0.weight", [0., 1., 0., 0.]);
    to("key.1.weight", [0., slope, 0., 0.]);
    let leaves: Vec<f64> = scaled.iter().flat_map(|&x| [1., x]).collect();
    let leaves = Tensor::from_vec(leaves, (1, 4, 2), &Device::Cpu).unwrap();
    let ctx = Context::eval().watching();
    layer.forward(&leaves, &only(4, 3), &ctx).unwrap();
    let trace = ctx.take_trace();
    let weights = &trace.iter().find(|w| w.name == "leaf_weights").unwrap().value;
    let expected = Tensor::new(&[[[0.3f32, 0.45, 0.025, 0.225]]], &Device::Cpu).unwrap();
    assert_close("weights", weights, &expected, 1e-6, 1e-6);
}

/// The weights of all leaves, by walking down the tree number by number.
fn enumerated(
    layer: &HierarchicalAttention,
    store: &ParamStore,
    levels: &[Tensor],
    time: usize,
) -> Vec<Vec<f64>> {
    let sizes = *layer.config();
    let (b, d, h) = (sizes.branching, sizes.width, sizes.num_heads);
    let dh = d / h;
    let rows = |t: &Tensor| t.to_vec2::<f64>().unwrap();
    let weight = |name: String| rows(store.get(&name).unwrap().as_tensor());
    let map = |w: &[Vec<f64>], x: &[f64]| -> Vec<f64> {
        w.iter().map(|row| row.iter().zip(x).map(|(a, b)| a * b).sum()).collect()
    };
    let nodes: Vec<Vec<Vec<f64>>> = levels.iter().map(|n| rows(&n.squeeze(0).unwrap())).collect();
    let query = map(&weight("query.weight".into()), &nodes[0][time - 1]);
    let exp = |level: usize, node: usize, head: usize| -> f64 {
        let place = &weight(format!("frontier.{level}"))[node % b];
        let x: Vec<f64> = nodes[level][node].iter().zip(place).map(|(a, b)| a + b).collect();
        let key = map(&weight(format!("key.{level}.weight")), &x);
        let score: f64 = (head * dh..(head + 1) * dh).map(|i| query[i] * key[i]).sum();
        (score / (dh as f64).sqrt()).exp()
    };
    (0..h)
        .map(|head| {
            let mut leaves = vec![0.; time];
            let mut open: Vec<(usize, usize, f64)> = vec![];
            let frontier = sizes.frontier(time);
            let all =
                || frontier.iter().enumerate().flat_map(|(l, n)| n.clone().map(move |j| (l, j)));
            let sum: f64 = all().map(|(level, node)| exp(level, node, head)).sum();
            open.extend(all().map(|(l, node)| (l, node, exp(l, node, head) / sum)));
            while let Some((level, node, weight)) = open.pop() {
                if level == 0 {
                    leaves[node] = weight;
                    continue;
                }
                let children = node * b..(node + 1) * b;
                let sum: f64 = children.clone().map(|child| exp(level - 1, child, head)).sum();
                open.extend(
                    children.map(|c| (level - 1, c, weight * exp(level - 1, c, head) / sum)),
                );
            }
            leaves
        })
        .collect()
}

#[test]
fn a_whole_descent_is_what_enumeration_gives() {
    for (branching, levels, t) in [(3, 1, 7), (2, 2, 7), (2, 3, 17), (3, 0, 4), (2, 2, 13)] {
        let (layer, store) = build(config(branching, levels, Readout::Descent { beam: branching }));
        let leaves = waves(&[1, t, 4], 1., 2., DType::F64);
        let ctx = Context::eval().watching();
        let context = layer.forward(&leaves, &only(t, t - 1), &ctx).unwrap();
        let nodes = layer.complete(&leaves, &Context::eval()).unwrap();
        let expected = enumerated(&layer, &store, &nodes, t);
        let trace = ctx.take_trace();
        let weights = &trace.iter().find(|w| w.name == "leaf_weights").unwrap().value;
        let weights = weights.squeeze(0).unwrap().to_vec2::<f32>().unwrap();
        let value = store.get("value.weight").unwrap().as_tensor().to_vec2::<f64>().unwrap();
        let rows = leaves.squeeze(0).unwrap().to_vec2::<f64>().unwrap();
        let context = context.flatten_all().unwrap().to_vec1::<f64>().unwrap();
        for (head, expected) in expected.iter().enumerate() {
            assert!((expected.iter().sum::<f64>() - 1.).abs() < 1e-9);
            for (a, b) in weights[head].iter().zip(expected) {
                assert!((f64::from(*a) - b).abs() < 1e-6, "{a} {b}");
            }
            for i in head * 2..head * 2 + 2 {
                let c: f64 = expected
                    .iter()
                    .zip(&rows)
                    .map(|(w, e)| w * e.iter().zip(&value[i]).map(|(a, b)| a * b).sum::<f64>())
                    .sum();
                assert!((c - context[i]).abs() < 1e-9, "{c} {}", context[i]);
            }
        }
    }
}

/// A narrow descent reads the heaviest nodes alone, and all weights still add up to one.
#[test]
fn a_narrow_descent_expands_the_heaviest() {
    let t = 16;
    let leaves = waves(&[2, t, 4], 1., 2., DType::F64);
    let read = |beam: usize| {
        let (layer, _) = build(config(4, 1, Readout::Descent { beam }));
        let ctx = Context::eval().watching();
        layer.forward(&leaves, &only(t, t - 1), &ctx).unwrap();
        let trace = ctx.take_trace();
        let of = |name: &str| trace.iter().find(|w| w.name == name).unwrap().value.to_vec3::<f32>();
        (of("readout_weights_level_1").unwrap(), of("leaf_weights").unwrap())
    };
    let (whole, _) = read(4);
    let (nodes, weights) = read(1);
    for row in 0..2 {
        let mass = |slot: usize| whole[row][0][slot] + whole[row][1][slot];
        let heaviest = (0..4).max_by(|&a, &b| mass(a).total_cmp(&mass(b))).unwrap();
        for head in 0..2 {
            assert_eq!(nodes[row][head][heaviest], 1.);
            let sum: f32 = weights[row][head].iter().sum();
            let inside: f32 = weights[row][head][heaviest * 4..heaviest * 4 + 4].iter().sum();
            assert!((sum - 1.).abs() < 1e-5 && (inside - 1.).abs() < 1e-5);
        }
    }
}

#[test]
fn rows_shorter_than_others_are_encoded_as_if_alone() {
    let sizes = HierarchicalAttentionConfig { summaries: 2, ..config(3, 2, Readout::Flat) };
    let (layer, _) = build(sizes);
    let leaves = waves(&[2, 8, 4], 1., 1., DType::F64);
    let both = layer.nodes(&leaves, Some(&[8, 4]), &Context::eval()).unwrap().pop().unwrap();
    for (row, length) in [(0, 8), (1, 4)] {
        let alone = leaves.narrow(0, row, 1).unwrap().narrow(1, 0, length).unwrap();
        let alone = layer.nodes(&alone, None, &Context::eval()).unwrap();
        let last = alone.last().unwrap();
        assert_close("root", &both.narrow(0, row, 1).unwrap(), last, 1e-12, 1e-12);
    }
    for lengths in [&[8, 0][..], &[9, 1], &[8]] {
        let error = layer.nodes(&leaves, Some(lengths), &Context::eval()).unwrap_err().to_string();
        assert!(error.contains("lengths from 1 to 8"), "{error}");
    }
}

#[test]
fn sizes_that_make_no_sense_are_refused() {
    let good = config(4, 2, Readout::Flat);
    for (bad, word) in [
        (HierarchicalAttentionConfig { num_heads: 3, ..good }, "num_heads"),
        (HierarchicalAttentionConfig { branching: 1, ..good }, "branching"),
        (HierarchicalAttentionConfig { levels: 40, ..good }, "span"),
        (config(4, 2, Readout::Descent { beam: 0 }), "beam"),
        (
            HierarchicalAttentionConfig {
                summaries: 2,
                ..config(4, 2, Readout::Descent { beam: 1 })
            },
            "one summary",
        ),
    ] {
        assert!(bad.validate().unwrap_err().to_string().contains(word), "{bad:?}");
    }
    let (layer, _) = build(good);
    let leaves = waves(&[2, 5, 3], 1., 1., DType::F64);
    let error = layer.forward(&leaves, &all(5), &Context::eval()).unwrap_err().to_string();
    assert!(error.contains("(b, t, 4)"), "{error}");
    let leaves = waves(&[2, 5, 4], 1., 1., DType::F64);
    assert!(layer.forward(&leaves, &[false; 5], &Context::eval()).is_err());
}
