//! Where rows end, what is forced and forbidden, what is shown, and what is refused.

use std::ops::ControlFlow;

use candle_core::Device;
use mnemic_tasks::generation::{Finish, Generated, GenerationConfig, Generator};
use mnemic_tasks::models::{Context, Padding, TextBatch};

use crate::toy::{Toy, prompts, run};

/// After `i` most probably comes `i + 1`, then `i + 2`, …, of 10.
fn counter() -> Toy {
    Toy::new(10, |_, ids| {
        let last = *ids.last().unwrap();
        (0..10).map(|id| -(((id + 9 - last) % 10) as f32)).collect()
    })
}

fn greedy(max_new_tokens: usize) -> GenerationConfig {
    GenerationConfig {
        max_new_tokens: Some(max_new_tokens),
        eos_token_id: vec![9],
        ..GenerationConfig::default()
    }
}

fn beams(max_new_tokens: usize) -> GenerationConfig {
    GenerationConfig { num_beams: 3, ..greedy(max_new_tokens) }
}

fn finishes(found: &Generated) -> Vec<Finish> {
    found.rows.iter().flatten().map(|hypothesis| hypothesis.finish).collect()
}

#[test]
fn rows_end_at_end_tokens_or_the_greatest_length() {
    for config in [greedy(4), beams(4)] {
        let found = run(&counter(), &[vec![6], vec![1]], &config);
        assert_eq!(found.sequences(), [vec![7, 8, 9], vec![2, 3, 4, 5]]);
        assert_eq!(found.padded(0), [[7, 8, 9, 0], [2, 3, 4, 5]]);
        assert_eq!(finishes(&found), [Finish::EndToken, Finish::Length]);
        // The prompt counts in `max_length`, its padding does not.
        let config = GenerationConfig { max_length: Some(5), max_new_tokens: None, ..config };
        let found = run(&counter(), &[vec![0, 0, 0], vec![1]], &config);
        assert_eq!(found.sequences(), [vec![1, 2], vec![2, 3, 4, 5]]);
    }
    let endless = GenerationConfig::default();
    assert_eq!(run(&counter(), &[vec![1, 2]], &endless).rows[0][0].ids.len(), 20);
    let model = Toy { max_positions: Some(9), ..counter() };
    assert_eq!(run(&model, &[vec![1, 2]], &endless).rows[0][0].ids.len(), 7);
}

#[test]
fn ends_may_be_forbidden_and_forced() {
    for config in [greedy(7), beams(7)] {
        let later = GenerationConfig { min_new_tokens: Some(5), ..config.clone() };
        let found = run(&counter(), &[vec![6], vec![3]], &later);
        assert!(found.rows[0][0].ids.len() >= 6, "{found:?}");
        assert_eq!(found.rows[1][0].ids, [4, 5, 6, 7, 8, 9]);
        let forced = GenerationConfig { forced_eos_token_id: vec![9], ..config.clone() };
        let found = run(&counter(), &[vec![0]], &forced);
        assert_eq!(found.sequences(), [[1, 2, 3, 4, 5, 6, 9]]);
        assert_eq!(found.rows[0][0].token_scores[6], 0., "a forced token is certain");
        assert_eq!(finishes(&found), [Finish::EndToken]);
        // A single start token is followed by the forced one.
        let first = GenerationConfig {
            forced_bos_token_id: Some(4),
            decoder_start_token_id: Some(0),
            begin_suppress_tokens: vec![5],
            ..config
        };
        let found = run(&counter().encoder_decoder(), &[vec![3, 3]], &first);
        assert_eq!(found.rows[0][0].ids[..2], [4, 6]);
        assert_eq!(run(&counter(), &[vec![0, 0]], &first).rows[0][0].ids[0], 1);
    }
}

#[test]
fn words_and_repetitions_may_be_forbidden() {
    for config in [greedy(6), beams(6)] {
        let bad = GenerationConfig {
            bad_words_ids: vec![vec![2, 3], vec![7]],
            suppress_tokens: vec![5],
            ..config.clone()
        };
        assert_eq!(run(&counter(), &[vec![1]], &bad).sequences(), [vec![2, 4, 6, 8, 9]]);
    }
    let circle = Toy::markov([[0., 1., 0.], [0.6, 0., 0.4], [0.5, 0.5, 0.]]);
    let config = GenerationConfig { max_new_tokens: Some(5), ..GenerationConfig::default() };
    assert_eq!(run(&circle, &[vec![0]], &config).sequences(), [[1, 0, 1, 0, 1]]);
    let config = GenerationConfig { no_repeat_ngram_size: 2, ..config };
    // 0 1 0 occurred, so that 1 cannot follow 0 again; but nothing else can, either.
    let error = Generator::new(&circle, config).unwrap().generate(&prompts(&[vec![0]]));
    assert_eq!(error.unwrap_err().to_string(), "step 3, row 0: every token is banned");
}

#[test]
fn stop_sequences_end_rows() {
    let model = counter();
    for config in [greedy(8), beams(8)] {
        let generator = Generator::new(&model, config.clone()).unwrap();
        let generator = generator.stop_sequences(&[vec![4, 5], vec![8]]).unwrap();
        // The prompt's own 4 begins no stop sequence.
        let found = generator.generate(&prompts(&[vec![1], vec![4]])).unwrap();
        assert_eq!(found.sequences(), [vec![2, 3, 4, 5], vec![5, 6, 7, 8]]);
        assert_eq!(finishes(&found), [Finish::StopSequence; 2]);
    }
    let error = Generator::new(&model, greedy(1)).unwrap().stop_sequences(&[vec![]]);
    assert!(error.unwrap_err().to_string().contains("at least one id"));
}

#[test]
fn tokens_are_shown_and_may_stop_their_row() {
    let model = counter();
    let generator = Generator::new(&model, greedy(6)).unwrap();
    let mut shown = Vec::new();
    let found = generator
        .stream(&prompts(&[vec![0], vec![6], vec![2]]), |token| {
            shown.push((token.step, token.row, token.id, token.finish));
            match token.id {
                4 => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            }
        })
        .unwrap();
    assert_eq!(found.sequences(), [vec![1, 2, 3, 4], vec![7, 8, 9], vec![3, 4]]);
    assert_eq!(finishes(&found), [Finish::Stopped, Finish::EndToken, Finish::Stopped]);
    let end = Some(Finish::EndToken);
    let expected = [(0, 0, 1, None), (0, 1, 7, None), (0, 2, 3, None), (1, 0, 2, None)];
    assert_eq!(shown[..4], expected);
    let expected = [(1, 1, 8, None), (1, 2, 4, None), (2, 0, 3, None), (2, 1, 9, end)];
    assert_eq!(shown[4..8], expected);
    assert_eq!(shown[8..], [(3, 0, 4, None)], "finished rows show nothing");
}

#[test]
fn scores_are_kept_on_request() {
    let model = counter();
    let config = GenerationConfig { suppress_tokens: vec![1], ..greedy(2) };
    let generator = Generator::new(&model, config).unwrap();
    let found = generator.generate(&prompts(&[vec![0]])).unwrap();
    assert!(found.rows[0][0].step_scores.is_empty());
    let found = generator.keep_scores().generate(&prompts(&[vec![0]])).unwrap();
    let scores = &found.rows[0][0].step_scores;
    let first = [-9., f32::NEG_INFINITY, -1., -2., -3., -4., -5., -6., -7., -8.];
    assert_eq!((scores.len(), scores[0].as_slice()), (2, first.as_slice()));
    let total: f32 = first.iter().map(|z: &f32| z.exp()).sum();
    assert!((found.rows[0][0].token_scores[0] - (-1. - total.ln())).abs() < 1e-6);
}

#[test]
fn scores_that_are_no_numbers_are_errors() {
    for bad in [f32::NAN, f32::INFINITY] {
        let model = Toy::new(3, move |_, ids| match ids.len() {
            n if n > 3 && ids[0] == 1 => vec![0., bad, 0.],
            _ => vec![0., 1., 0.],
        });
        for num_beams in [1, 2] {
            let config = GenerationConfig { num_beams, ..GenerationConfig::default() };
            let generator = Generator::new(&model, config.clone()).unwrap();
            let error = generator.generate(&prompts(&[vec![0], vec![1]])).unwrap_err().to_string();
            assert_eq!(error, "step 4, row 1: the model's scores are NaN or infinite");
            let config = GenerationConfig { remove_invalid_values: true, ..config };
            Generator::new(&model, config).unwrap().generate(&prompts(&[vec![1]])).unwrap();
        }
    }
    for num_beams in [1, 2] {
        for do_sample in [false, true] {
            let suppress_tokens = (0..10).collect();
            let config = GenerationConfig { num_beams, do_sample, suppress_tokens, ..greedy(3) };
            let model = counter();
            let error = Generator::new(&model, config).unwrap().generate(&prompts(&[vec![1]]));
            assert_eq!(error.unwrap_err().to_string(), "step 1, row 0: every token is banned");
        }
    }
}

#[test]
fn bad_values_are_named() {
    let base = GenerationConfig::default;
    for (config, expected) in [
        (GenerationConfig { num_beams: 0, ..base() }, "num_beams: expected at least 1, got 0"),
        (GenerationConfig { max_length: Some(0), ..base() }, "max_length: expected at least 1"),
        (GenerationConfig { temperature: 0., ..base() }, "temperature: expected a number above 0"),
        (
            GenerationConfig { top_p: 1.5, ..base() },
            "top_p: expected a number from 0 to 1, got 1.5",
        ),
        (GenerationConfig { min_p: Some(-1.), ..base() }, "min_p: expected a number from 0 to 1"),
        (
            GenerationConfig { repetition_penalty: f64::NAN, ..base() },
            "repetition_penalty: expected a number above 0, got NaN",
        ),
        (
            GenerationConfig { length_penalty: f64::INFINITY, ..base() },
            "length_penalty: expected a",
        ),
        (GenerationConfig { num_return_sequences: 2, ..base() }, "expected 1 for greedy search"),
        (
            GenerationConfig { num_beams: 2, num_return_sequences: 3, ..base() },
            "num_return_sequences: expected at most num_beams = 2, got 3",
        ),
        (GenerationConfig { bad_words_ids: vec![vec![]], ..base() }, "bad_words_ids: expected"),
        (
            GenerationConfig { min_new_tokens: Some(3), max_new_tokens: Some(2), ..base() },
            "min_new_tokens: expected at most max_new_tokens = 2, got 3",
        ),
        (
            GenerationConfig { eos_token_id: vec![10], ..base() },
            "eos_token_id: expected ids below 10",
        ),
        (
            GenerationConfig { forced_eos_token_id: vec![1, 11], ..base() },
            "forced_eos_token_id: expected ids below 10, the size of the vocabulary, got 11",
        ),
        (
            GenerationConfig { bad_words_ids: vec![vec![1, 12]], ..base() },
            "bad_words_ids: expected",
        ),
    ] {
        let error = Generator::new(&counter(), config).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn bad_batches_are_named() {
    let error = |model: &Toy, config: &GenerationConfig, batch: &TextBatch| {
        let generator = Generator::new(model, config.clone()).unwrap();
        generator.generate(batch).unwrap_err().to_string()
    };
    let model = counter();
    let rows = [vec![1, 2, 3], vec![4]];
    let right = TextBatch::from_rows(&rows, 0, Padding::Right, &Device::Cpu).unwrap();
    let expected = "row 1: the prompt of a decoder is padded on the left, without gaps";
    assert_eq!(error(&model, &greedy(2), &right), expected);
    let empty = prompts(&[vec![1, 2, 3], vec![]]);
    assert_eq!(error(&model, &greedy(2), &empty), "row 1: the prompt is empty");
    let short = GenerationConfig { max_length: Some(3), ..GenerationConfig::default() };
    let expected = "row 0: the prompt has 3 tokens, max_length is 3";
    assert_eq!(error(&model, &short, &prompts(&rows)), expected);
    let model = Toy { max_positions: Some(8), ..counter() };
    let expected = "row 0: the model has 8 positions, max_length is 9";
    assert_eq!(error(&model, &greedy(6), &prompts(&rows)), expected);
    let both = counter().encoder_decoder();
    assert!(error(&both, &greedy(2), &right).starts_with("decoder_start_token_id: an encoder"));
    let generator = Generator::new(&model, beams(2)).unwrap();
    let error = generator.stream(&prompts(&rows), |_| ControlFlow::Continue(())).unwrap_err();
    assert_eq!(error.to_string(), "num_beams: only 1 beam can be streamed, got 3");
    let ctx = Context::eval().watching();
    let generator = Generator::new(&model, greedy(2)).unwrap().context(&ctx);
    assert_eq!(generator.config().eos_token_id, [9]);
    generator.generate(&prompts(&rows)).unwrap();
}
