//! Draws made-up traces: prints the terminal form and, with a path, writes an HTML page and an SVG
//! picture.
//!
//! ```text
//! cargo run -p mnemic-pictures --example trace -- target/trace.html target/trace.svg
//! ```

use std::error::Error;

use mnemic_pictures::{
    Curve, Facts, Gate, HeatMap, PassTrace, QaTrace, Scale, Section, Series, TerminalOptions, page,
    svg, terminal, terminal_heat_map,
};

fn main() -> Result<(), Box<dyn Error>> {
    let traces = [short(), long(), gates(), scores()];
    let options = TerminalOptions { colour: true, ..TerminalOptions::default() };
    for trace in &traces {
        println!("{}", terminal(trace, &options)?);
    }
    println!("{}", terminal_heat_map(&reading(), &options)?);
    let mut paths = std::env::args().skip(1);
    if let Some(path) = paths.next() {
        let subtitle = "Made-up traces: which sentences a memory network reads, pass by pass.";
        std::fs::write(path, page("Reading a story", subtitle, &traces, &sections())?)?;
    }
    if let Some(path) = paths.next() {
        std::fs::write(path, svg(&traces[1])?)?;
    }
    Ok(())
}

fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|t| (*t).to_string()).collect()
}

fn pass(name: &str, gate: Gate, weights: Vec<f32>) -> PassTrace {
    PassTrace { name: name.into(), weights, gate }
}

fn short() -> QaTrace {
    QaTrace {
        title: "Example 1".into(),
        model: "memn2n, 3 hops".into(),
        task: Some("two supporting facts".into()),
        sentences: strings(&[
            "Mary got the milk there.",
            "John moved to the bedroom.",
            "Sandra went back to the kitchen.",
            "Mary travelled to the hallway.",
            "Daniel took the apple.",
        ]),
        question: "Where is the milk?".into(),
        answers: [("hallway", 0.912), ("kitchen", 0.051), ("bedroom", 0.028), ("garden", 0.009)]
            .map(|(word, p)| (word.to_string(), p))
            .to_vec(),
        expected: Some("hallway".into()),
        supports: vec![0, 3],
        passes: vec![
            pass("hop 1", Gate::Softmax, vec![0.87, 0.02, 0.01, 0.08, 0.02]),
            pass("hop 2", Gate::Softmax, vec![0.31, 0.03, 0.04, 0.61, 0.01]),
            pass("hop 3", Gate::Softmax, vec![0.02, 0.004, 0.015, 0.96, 0.001]),
        ],
    }
}

/// A story of 60 sentences in which three count.
fn long() -> QaTrace {
    let (people, places) = (["Mary", "John", "Sandra", "Daniel"], ["kitchen", "garden", "office"]);
    let mut sentences: Vec<String> = (0..60)
        .map(|i| {
            let (who, place) = (people[i * 7 % 4], places[i * 5 % 3]);
            match i % 5 {
                0 | 2 => format!("{who} went to the {place}."),
                1 => format!("{who} journeyed to the {place}."),
                3 => format!("{who} picked up the football there."),
                _ => format!("{who} discarded the football."),
            }
        })
        .collect();
    for (i, text) in [
        (16, "Sandra grabbed the apple."),
        (31, "Sandra went back to the bathroom."),
        (47, "Sandra moved to the garden with everything that she had been carrying all day long."),
    ] {
        sentences[i] = text.into();
    }
    let attention = |peaks: &[(usize, f32)]| -> Vec<f32> {
        let rest = 1.0 - peaks.iter().map(|p| p.1).sum::<f32>();
        let mut weights = vec![rest / 60.0; 60];
        for (i, weight) in peaks {
            weights[*i] += weight;
        }
        weights
    };
    QaTrace {
        title: "Example 2".into(),
        model: "memn2n, 3 hops".into(),
        task: Some("three supporting facts".into()),
        sentences,
        question: "Where was the apple before the garden?".into(),
        answers: [("garden", 0.48), ("bathroom", 0.41), ("office", 0.06), ("kitchen", 0.05)]
            .map(|(word, p)| (word.to_string(), p))
            .to_vec(),
        expected: Some("bathroom".into()),
        supports: vec![16, 31, 47],
        passes: vec![
            pass("hop 1", Gate::Softmax, attention(&[(16, 0.55), (20, 0.2), (47, 0.1)])),
            pass("hop 2", Gate::Softmax, attention(&[(47, 0.5), (31, 0.22), (16, 0.08)])),
            pass("hop 3", Gate::Softmax, attention(&[(47, 0.46), (31, 0.41)])),
        ],
    }
}

fn gates() -> QaTrace {
    QaTrace {
        title: "Example 3".into(),
        model: "dmn".into(),
        task: Some("one supporting fact".into()),
        passes: vec![
            pass("episode 1", Gate::Sigmoid, vec![0.97, 0.31, 0.02, 0.78, 0.12]),
            pass("episode 2", Gate::Sigmoid, vec![0.44, f32::NAN, 0.03, 0.99, 0.05]),
        ],
        ..short()
    }
}

fn scores() -> QaTrace {
    QaTrace {
        title: "Example 4".into(),
        model: "memn2n, linear start".into(),
        passes: vec![
            pass("hop 1", Gate::Score, vec![4.2, -1.3, 0.4, 2.5, f32::NEG_INFINITY]),
            pass("hop 2", Gate::Score, vec![12.6, -31.0, 8.0, 24.5, 1.0]),
        ],
        expected: None,
        ..short()
    }
}

/// Where a memory of 12 locations is read over 40 steps: written in order, read back reversed.
fn reading() -> HeatMap {
    let (rows, cols) = (12_usize, 40_usize);
    let mut values = vec![0.0; rows * cols];
    for t in 0..cols {
        let place = if t < 20 { t as f32 * 0.6 } else { (39 - t) as f32 * 0.6 };
        for r in 0..rows {
            values[r * cols + t] = (-(r as f32 - place).powi(2) / 0.5).exp();
        }
    }
    HeatMap {
        title: "Read weighting over time".into(),
        row_label: "memory location".into(),
        col_label: "time step".into(),
        rows: (1..=rows).map(|r| r.to_string()).collect(),
        cols: (1..=cols).map(|t| t.to_string()).collect(),
        values,
        scale: Scale::Unit,
    }
}

fn similarity() -> HeatMap {
    let words = strings(&["kitchen", "garden", "milk", "apple"]);
    HeatMap {
        title: "Similarity of word vectors".into(),
        row_label: "word".into(),
        col_label: "word".into(),
        rows: words.clone(),
        cols: words,
        values: vec![
            1.0, 0.62, -0.31, -0.2, 0.62, 1.0, -0.44, 0.08, -0.31, -0.44, 1.0, 0.71, -0.2, 0.08,
            0.71, 1.0,
        ],
        scale: Scale::Diverging,
    }
}

fn sections() -> Vec<Section> {
    let facts = [
        ("model", "memn2n, 3 hops, position encoding, linear start"),
        ("recipe", "models/memn2n-babi/recipe.toml"),
        ("seed", "7"),
        ("test error", "3.2 %"),
    ];
    let facts = Facts {
        title: "Run".into(),
        rows: facts.map(|(name, value)| (name.to_string(), value.to_string())).to_vec(),
    };
    let curve = |name: &str, floor: f64, rate: f64| Series {
        name: name.into(),
        points: (0..=60)
            .map(|e| {
                let e = f64::from(e);
                (e, floor + 2.9 * (-e / rate).exp() * (1.0 + 0.08 * (e * 1.7).sin()))
            })
            .collect(),
    };
    let curve = Curve {
        title: "Training".into(),
        x_label: "epoch".into(),
        y_label: "loss (nats)".into(),
        log_y: true,
        series: vec![
            curve("train", 0.01, 9.0),
            curve("validation", 0.09, 11.0),
            curve("without linear start", 0.6, 16.0),
        ],
    };
    vec![facts.into(), curve.into(), reading().into(), similarity().into()]
}
