//! PyTorch's numbers: outputs and gradients of recurrent layers, embeddings, losses and softmax.

use std::collections::HashMap;

use candle_core::{D, DType, Device, Result, Tensor, Var};
use candle_nn::VarBuilder;
use mnemic_layers::losses::{CrossEntropy, Reduction, cross_entropy};
use mnemic_layers::{Context, Embedding, Gru, Lstm, Nonlinearity, RecurrentConfig, Rnn, init};
use mnemic_testing::{assert_close, torch_fixture};

type Tensors = HashMap<String, Tensor>;

const TYPES: [(&str, DType, f64); 2] = [("f64", DType::F64, 1e-10), ("f32", DType::F32, 1e-5)];

/// Inputs and parameters as variables.
fn variables(fixture: &Tensors) -> HashMap<String, Var> {
    let wanted = |k: &str| ["input", "h0", "c0"].contains(&k) || k.starts_with("param.");
    let chosen = fixture.iter().filter(|(k, _)| wanted(k));
    chosen.map(|(k, v)| (k.clone(), Var::from_tensor(v).unwrap())).collect()
}

fn run(
    cell: &str,
    cfg: RecurrentConfig,
    lengths: Option<&[usize]>,
    vars: &Tensors,
) -> Result<Tensors> {
    let parameters =
        vars.iter().filter_map(|(k, v)| Some((k.strip_prefix("param.")?.to_string(), v.clone())));
    let dtype = vars["input"].dtype();
    let vb = VarBuilder::from_tensors(parameters.collect(), dtype, &Device::Cpu);
    let (xs, h0, ctx) = (&vars["input"], &vars["h0"], Context::eval());
    let named =
        |output, hn| HashMap::from([("output".to_string(), output), ("hn".to_string(), hn)]);
    Ok(match cell {
        "lstm" => {
            let state = Some((h0, &vars["c0"]));
            let out = Lstm::new(cfg, vb)?.forward(xs, state, lengths, &ctx)?;
            let mut tensors = named(out.output, out.hidden);
            tensors.insert("cn".to_string(), out.cell);
            tensors
        }
        "gru" => {
            let out = Gru::new(cfg, vb)?.forward(xs, Some(h0), lengths, &ctx)?;
            named(out.output, out.state)
        }
        _ => {
            let phi = if cell == "rnn_tanh" { Nonlinearity::Tanh } else { Nonlinearity::Relu };
            let out = Rnn::new(cfg, phi, vb)?.forward(xs, Some(h0), lengths, &ctx)?;
            named(out.output, out.state)
        }
    })
}

fn compare(cell: &str, form: &str, ty: &str, tolerance: f64) -> Option<()> {
    let name = format!("{cell}_{form}.{ty}");
    let fixture = torch_fixture("recurrent layers agree with torch", &name)?;
    let cfg = RecurrentConfig {
        num_layers: if form.starts_with("l2") { 2 } else { 1 },
        bidirectional: form.contains("bi"),
        ..RecurrentConfig::new(4, 6)
    };
    let lengths: Option<Vec<usize>> = fixture
        .get("lengths")
        .map(|l| l.to_vec1::<i64>().unwrap().into_iter().map(|v| v as usize).collect());
    assert_eq!(lengths.is_some(), form.ends_with("packed"), "{name}");
    let vars = variables(&fixture);
    let inputs = vars.iter().map(|(k, v)| (k.clone(), v.as_tensor().clone())).collect();
    let outputs = run(cell, cfg, lengths.as_deref(), &inputs).unwrap();
    let mut loss: Option<Tensor> = None;
    for (k, v) in &outputs {
        assert_close(&format!("{name} {k}"), v, &fixture[k], tolerance, tolerance);
        let part = v.mul(&fixture[&format!("probe.{k}")]).unwrap().sum_all().unwrap();
        loss = Some(match loss {
            Some(loss) => (loss + part).unwrap(),
            None => part,
        });
    }
    let loss = loss.unwrap();
    let scale = 10. * tolerance; // a sum of some two hundred terms
    assert_close(&format!("{name} loss"), &loss, &fixture["loss"], scale, scale);
    let grads = loss.backward().unwrap();
    let expected: Vec<&String> = fixture.keys().filter(|k| k.starts_with("grad.")).collect();
    assert_eq!(expected.len(), vars.len(), "{name}: a gradient for each input and parameter");
    for key in expected {
        let var = &vars[&key["grad.".len()..]];
        let grad = grads.get(var).unwrap_or_else(|| panic!("{name}: no {key}"));
        assert_close(&format!("{name} {key}"), grad, &fixture[key], scale, scale);
    }
    Some(())
}

#[test]
fn recurrent_layers_agree_with_torch() {
    let mut compared = 0;
    for cell in ["rnn_tanh", "rnn_relu", "gru", "lstm"] {
        for form in ["l1", "l1_bi", "l2", "l2_bi"] {
            for packed in ["", "_packed"] {
                for (ty, _, tolerance) in TYPES {
                    if compare(cell, &format!("{form}{packed}"), ty, tolerance).is_none() {
                        return;
                    }
                    compared += 1;
                }
            }
        }
    }
    assert_eq!(compared, 64);
}

#[test]
fn embedding_agrees_with_torch() {
    for (ty, dtype, tolerance) in TYPES {
        let name = format!("embedding.{ty}");
        let Some(fixture) = torch_fixture("embedding_agrees_with_torch", &name) else { return };
        let weight = Var::from_tensor(&fixture["param.weight"]).unwrap();
        let vb = HashMap::from([("weight".to_string(), weight.as_tensor().clone())]);
        let vb = VarBuilder::from_tensors(vb, dtype, &Device::Cpu);
        let layer = Embedding::new(7, 4, init::normal(1.), Some(0), vb).unwrap();
        let ids = fixture["input"].to_dtype(DType::U32).unwrap();
        let output = layer.forward(&ids).unwrap();
        // PyTorch reads what its padding row holds; here padding reads as zeros.
        let kept = ids.ne(0u32).unwrap().to_dtype(dtype).unwrap().unsqueeze(D::Minus1).unwrap();
        let expected = fixture["output"].broadcast_mul(&kept).unwrap();
        assert_close(&name, &output, &expected, tolerance, tolerance);
        let loss = output.mul(&fixture["probe.output"]).unwrap().sum_all().unwrap();
        let grads = loss.backward().unwrap();
        let expected = &fixture["grad.param.weight"];
        assert_close(&name, grads.get(&weight).unwrap(), expected, tolerance, tolerance);
    }
}

#[test]
fn cross_entropy_agrees_with_torch() {
    let forms = [("", 0.), ("_smoothed", 0.1), ("_weighted", 0.), ("_weighted_smoothed", 0.2)];
    let reductions =
        [("mean", Reduction::Mean), ("sum", Reduction::Sum), ("none", Reduction::None)];
    for (form, label_smoothing) in forms {
        for (ty, _, tolerance) in TYPES {
            let name = format!("cross_entropy{form}.{ty}");
            let Some(fixture) = torch_fixture("cross_entropy_agrees_with_torch", &name) else {
                return;
            };
            assert_eq!(fixture.contains_key("weight"), form.starts_with("_weighted"));
            let input = Var::from_tensor(&fixture["input"]).unwrap();
            let targets = fixture["target"].to_vec1::<i64>().unwrap();
            for (key, reduction) in reductions {
                let class_weights = fixture.get("weight").cloned();
                let options = CrossEntropy { reduction, label_smoothing, class_weights };
                let loss = cross_entropy(&input, &targets, &options).unwrap();
                let name = format!("{name} {key}");
                assert_close(&name, &loss, &fixture[&format!("loss.{key}")], tolerance, tolerance);
                let grads = loss.sum_all().unwrap().backward().unwrap();
                let expected = &fixture[&format!("grad.input.{key}")];
                assert_close(&name, grads.get(&input).unwrap(), expected, tolerance, tolerance);
            }
        }
    }
}

#[test]
fn softmax_agrees_with_torch() {
    type Function = fn(&Tensor) -> Result<Tensor>;
    let functions: [(&str, Function); 2] = [
        ("softmax", mnemic_kernels::softmax::softmax),
        ("log_softmax", mnemic_kernels::softmax::log_softmax),
    ];
    for (ty, _, tolerance) in TYPES {
        let Some(fixture) =
            torch_fixture("softmax_agrees_with_torch", &format!("activations.{ty}"))
        else {
            return;
        };
        for (name, f) in functions {
            let input = Var::from_tensor(&fixture["input"]).unwrap();
            let output = f(&input).unwrap();
            assert_close(name, &output, &fixture[&format!("output.{name}")], tolerance, tolerance);
            let loss = output.mul(&fixture["probe"]).unwrap().sum_all().unwrap();
            let grads = loss.backward().unwrap();
            let expected = &fixture[&format!("grad.{name}")];
            assert_close(name, grads.get(&input).unwrap(), expected, tolerance, tolerance);
        }
    }
}
