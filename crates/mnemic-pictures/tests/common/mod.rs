//! Traces that several tests draw.

use mnemic_pictures::{Gate, PassTrace, QaTrace};

/// A pass of softmax weights.
pub(crate) fn pass(name: &str, weights: &[f32]) -> PassTrace {
    PassTrace { name: name.into(), weights: weights.to_vec(), gate: Gate::Softmax }
}

/// Three sentences, two passes, a right answer.
pub(crate) fn small() -> QaTrace {
    QaTrace {
        title: "Example 1".into(),
        model: "memn2n".into(),
        task: Some("qa1".into()),
        sentences: ["Mary went home.", "John took the milk.", "John is in the garden."]
            .map(String::from)
            .to_vec(),
        question: "Where is the milk?".into(),
        answers: vec![("garden".into(), 0.75), ("home".into(), 0.25)],
        expected: Some("garden".into()),
        supports: vec![1, 2],
        passes: vec![pass("hop 1", &[0.0, 0.875, 0.125]), pass("hop 2", &[0.25, 0.0, 0.75])],
    }
}

/// A story of `count` sentences, each pass attending to one of them.
pub(crate) fn long(count: usize, peaks: &[usize]) -> QaTrace {
    QaTrace {
        sentences: (1..=count).map(|i| format!("Person {i} went to place {}.", i * i)).collect(),
        supports: vec![],
        passes: peaks
            .iter()
            .enumerate()
            .map(|(n, &peak)| {
                let mut weights = vec![0.001; count];
                weights[peak] = 0.9;
                pass(&format!("hop {}", n + 1), &weights)
            })
            .collect(),
        ..small()
    }
}
