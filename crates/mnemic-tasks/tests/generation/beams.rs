//! Beam search, and greedy search as far as it is one beam.

use mnemic_tasks::generation::{
    EarlyStopping, Finish, Generated, GenerationConfig, Generator, Hypothesis, generate,
};

use crate::toy::{Cached, Toy, prompts, run};

const STOPPING: [EarlyStopping; 3] =
    [EarlyStopping::Heuristic, EarlyStopping::Always, EarlyStopping::Never];

fn beams(num_beams: usize, max_new_tokens: usize) -> GenerationConfig {
    GenerationConfig {
        num_beams,
        num_return_sequences: num_beams,
        max_new_tokens: Some(max_new_tokens),
        eos_token_id: vec![0],
        ..GenerationConfig::default()
    }
}

/// Vocabulary: end, begin, a, b. After a, b is a little more probable than a: torch's choice among equals is not the first.
fn golden() -> Toy {
    Toy::markov([
        [0.25; 4],
        [0.05, 0., 0.5, 0.45],
        [0.4, 0., 0.299999, 0.300001],
        [0.1, 0., 0.1, 0.8],
    ])
}

#[test]
fn the_golden_toy_of_transformers() {
    let (a, b) = (2, 3);
    let (short, long) = (vec![a, 0], vec![b; 5]);
    let second = vec![a, b, b, b, b];
    for early_stopping in STOPPING {
        for (length_penalty, expected) in [
            (0., [(&short, -1.60944), (&long, -1.69108)]),
            (1., [(&long, -0.33822), (&second, -0.51331)]),
            (2., [(&long, -0.06764), (&second, -0.10266)]),
        ] {
            let config = GenerationConfig { length_penalty, early_stopping, ..beams(2, 5) };
            let config = GenerationConfig { max_new_tokens: None, max_length: Some(6), ..config };
            let found = run(&golden(), &[vec![1]], &config);
            assert_eq!(found.rows[0].len(), 2);
            for (hypothesis, (ids, score)) in found.rows[0].iter().zip(expected) {
                assert_eq!(hypothesis.ids, *ids, "{length_penalty} {early_stopping:?}");
                assert!((hypothesis.score - score).abs() < 1e-5, "{}", hypothesis.score);
            }
        }
    }
    let greedy = run(&golden(), &[vec![1]], &GenerationConfig { num_beams: 1, ..beams(1, 5) });
    assert_eq!(greedy.rows[0][0].ids, short);
    assert!((greedy.rows[0][0].score - 0.2f64.ln() / 2.).abs() < 1e-6);
}

/// Every sequence of at most `longest` tokens that ends in 0 or is as long as it may be, best first.
fn exhaustive(model: &Toy, prompt: &[u32], longest: usize, alpha: f64) -> Vec<(Vec<u32>, f64)> {
    let mut found = Vec::new();
    let mut open = vec![(Vec::new(), 0f64)];
    while let Some((ids, sum)) = open.pop() {
        let history = [prompt, &ids].concat();
        for (id, log_p) in (0..).zip(model.log_probabilities(&[], &history)) {
            let longer: Vec<u32> = [ids.as_slice(), &[id]].concat();
            match id == 0 || longer.len() == longest {
                true => {
                    let score = (sum + log_p) / (longer.len() as f64).powf(alpha);
                    found.push((longer, score));
                }
                false => open.push((longer, sum + log_p)),
            }
        }
    }
    found.sort_by(|a, b| b.1.total_cmp(&a.1));
    found
}

#[test]
fn as_many_beams_as_sequences_are_an_exhaustive_search() {
    for (seed, alpha) in [(1, 0.), (2, 0.6), (3, 1.), (4, 2.), (5, -0.5)] {
        let model = Toy::irregular(4, seed);
        let config = GenerationConfig {
            length_penalty: alpha,
            early_stopping: EarlyStopping::Never,
            ..beams(256, 4)
        };
        let found = run(&model, &[vec![2, 1]], &config);
        let expected = exhaustive(&model, &[2, 1], 4, alpha);
        assert_eq!(expected.len(), found.rows[0].len());
        for (hypothesis, (ids, score)) in found.rows[0].iter().zip(&expected) {
            assert_eq!(&hypothesis.ids, ids);
            assert!((hypothesis.score - score).abs() < 1e-5);
        }
    }
}

#[test]
fn one_beam_is_greedy_search() {
    // A beam of 1 takes another way through the code only where it is asked for as a beam: sampling from one token is greedy, too.
    for seed in 0..20 {
        let model = Toy::irregular(7, seed);
        let rows = [vec![3, 1, 4], vec![5]];
        let config = GenerationConfig { num_return_sequences: 1, ..beams(1, 12) };
        let greedy = run(&model, &rows, &config);
        for length_penalty in [0., 2.] {
            let config = GenerationConfig { length_penalty, ..config.clone() };
            assert_eq!(run(&model, &rows, &config).sequences(), greedy.sequences());
        }
        let top_1 = GenerationConfig { do_sample: true, top_k: 1, ..config.clone() };
        assert_eq!(run(&model, &rows, &top_1).sequences(), greedy.sequences());
        let top_0 = GenerationConfig { do_sample: true, top_k: 0, top_p: 0., ..config.clone() };
        assert_eq!(run(&model, &rows, &top_0).sequences(), greedy.sequences());
        let cold = GenerationConfig { do_sample: true, temperature: 1e-4, ..config };
        assert_eq!(run(&model, &rows, &cold).sequences(), greedy.sequences());
        let expected = |row: &[u32]| {
            let mut ids = row.to_vec();
            while ids.len() < row.len() + 12 && (ids.len() == row.len() || ids.last() != Some(&0)) {
                let scores = model.log_probabilities(&[], &ids);
                let best = (0..7).max_by(|&i, &j| scores[i].total_cmp(&scores[j])).unwrap();
                ids.push(best as u32);
            }
            ids.split_off(row.len())
        };
        assert_eq!(greedy.sequences(), rows.map(|row| expected(&row)));
    }
}

/// Every hypothesis' token scores are those of the model read anew: the state was that of its beam at every step.
fn check_scores(model: &Toy, input: &[u32], prompt: &[u32], found: &Hypothesis, alpha: f64) {
    let mut ids = prompt.to_vec();
    let mut sum = 0.;
    for (&id, &score) in found.ids.iter().zip(&found.token_scores) {
        let expected = model.log_probabilities(input, &ids)[id as usize];
        assert!((expected - f64::from(score)).abs() < 1e-5, "after {ids:?}");
        sum += expected;
        ids.push(id);
    }
    let score = sum / (found.ids.len() as f64).powf(alpha);
    assert!((found.score - score).abs() < 1e-5);
}

#[test]
fn beams_keep_their_own_past() {
    for seed in 0..10 {
        let config = GenerationConfig { length_penalty: 0.7, ..beams(4, 9) };
        let decoder = Toy::irregular(11, seed);
        let rows = [vec![3, 1, 4], vec![5], vec![9, 2]];
        let found = run(&decoder, &rows, &config);
        for (row, hypotheses) in rows.iter().zip(&found.rows) {
            assert_eq!(hypotheses.len(), 4);
            assert!(hypotheses.windows(2).all(|pair| pair[0].score >= pair[1].score));
            hypotheses.iter().for_each(|h| check_scores(&decoder, &[], row, h, 0.7));
        }
        let both = decoder.encoder_decoder();
        let config = GenerationConfig { decoder_start_token_id: Some(8), ..config };
        let found = run(&both, &rows, &config);
        for (row, hypotheses) in rows.iter().zip(&found.rows) {
            hypotheses.iter().for_each(|h| check_scores(&both, row, &[8], h, 0.7));
        }
    }
}

#[test]
fn beams_that_change_places_take_their_state_along() {
    // After "1" comes 2 (0.6) or 3 (0.4); what follows 3 is certain, what follows 2 is not: 3 overtakes.
    let model = Toy::markov([
        [1., 0., 0., 0., 0., 0.],
        [0., 0., 0.6, 0.4, 0., 0.],
        [0., 0., 0., 0., 0.5, 0.5],
        [0., 0., 0., 0., 0., 1.],
        [1., 0., 0., 0., 0., 0.],
        [0.9, 0., 0., 0., 0.1, 0.],
    ]);
    let found = run(&model, &[vec![1]], &GenerationConfig { length_penalty: 0., ..beams(2, 6) });
    let sequences = found.sequences();
    assert_eq!(sequences, [vec![3, 5, 0], vec![2, 4, 0]]);
    assert!((found.scores()[0] - 0.36f64.ln()).abs() < 1e-6);
    assert!((found.scores()[1] - 0.3f64.ln()).abs() < 1e-6);
}

#[test]
fn a_cache_changes_nothing() {
    for seed in 0..10 {
        let (cached, uncached) = (Cached { vocab_size: 9, seed }, Toy::irregular(9, seed));
        let rows = [vec![3, 1], vec![5, 7], vec![2, 2]];
        for config in [
            GenerationConfig { num_return_sequences: 1, ..beams(1, 20) },
            GenerationConfig { do_sample: true, num_return_sequences: 3, ..beams(1, 20) },
            beams(5, 20),
            GenerationConfig { do_sample: true, ..beams(3, 20) },
        ] {
            let expected = run(&uncached, &rows, &config);
            assert_eq!(generate(&cached, &prompts(&rows), &config).unwrap(), expected);
        }
    }
}

#[test]
fn rows_are_written_as_if_they_were_alone() {
    let rows = [vec![3, 1, 4, 1], vec![5], vec![9, 2, 6], vec![5, 3]];
    let plain = GenerationConfig { num_return_sequences: 1, ..beams(1, 12) };
    let rules = GenerationConfig {
        repetition_penalty: 1.3,
        no_repeat_ngram_size: 2,
        min_length: 7,
        max_new_tokens: None,
        max_length: Some(12),
        forced_eos_token_id: vec![0],
        ..beams(3, 1)
    };
    for config in [
        plain.clone(),
        GenerationConfig { do_sample: true, num_return_sequences: 2, ..plain.clone() },
        GenerationConfig { num_beams: 1, num_return_sequences: 1, ..rules.clone() },
        rules.clone(),
        GenerationConfig { do_sample: true, top_k: 4, ..rules },
        GenerationConfig { min_new_tokens: Some(3), ..beams(4, 12) },
    ] {
        for seed in 0..5 {
            let model = Toy::irregular(12, seed);
            let together = run(&model, &rows, &config);
            for (i, row) in rows.iter().enumerate() {
                let generator = Generator::new(&model, config.clone()).unwrap();
                let generator = generator.first_row(i as u64);
                let alone = generator.generate(&prompts(std::slice::from_ref(row))).unwrap();
                assert_eq!(alone, Generated { rows: vec![together.rows[i].clone()] });
            }
        }
    }
}

#[test]
fn the_first_among_equals_wins() {
    let flat = Toy::markov([[1.; 4]; 4]);
    let config = GenerationConfig { eos_token_id: vec![3], ..beams(1, 3) };
    assert_eq!(run(&flat, &[vec![2]], &config).sequences(), [[0, 0, 0]]);
    let config = GenerationConfig { eos_token_id: vec![3], ..beams(3, 2) };
    // Of all continuations of equal worth the first beam's come first.
    assert_eq!(run(&flat, &[vec![2]], &config).sequences(), [[0, 0], [0, 1], [0, 2]]);
}

#[test]
fn the_longer_a_search_goes_on_the_better_its_best() {
    let mut better = [false; 2];
    for seed in 0..60 {
        let model = Toy::irregular(5, seed);
        let best = STOPPING.map(|early_stopping| {
            let config = GenerationConfig { early_stopping, length_penalty: 1.5, ..beams(3, 15) };
            run(&model, &[vec![1]], &config).rows[0][0].score
        });
        let [heuristic, always, never] = best;
        assert!(always <= heuristic && heuristic <= never, "{best:?}");
        better = [better[0] || always < heuristic, better[1] || heuristic < never];
    }
    assert_eq!(better, [true, true], "the rules differ");
}

#[test]
fn an_end_beyond_the_first_beams_is_forgotten() {
    // From 1: 2 (0.5), 3 (0.3), end (0.2), which would be the best in the end. With two beams it is third and does not count.
    let model = Toy::markov([
        [1., 0., 0., 0.],
        [0.2, 0., 0.5, 0.3],
        [0., 0., 0.5, 0.5],
        [0., 0., 0.5, 0.5],
    ]);
    let ends = |num_beams| {
        let config = GenerationConfig { length_penalty: 0., ..beams(num_beams, 3) };
        run(&model, &[vec![1]], &config).rows[0].iter().filter(|h| h.ids == [0]).count()
    };
    assert_eq!((ends(2), ends(3)), (0, 1));
}

#[test]
fn there_may_be_several_end_tokens() {
    let config = GenerationConfig { eos_token_id: vec![0, 3, 4], ..beams(3, 10) };
    let mut ends = [0; 5];
    for seed in 0..20 {
        for hypothesis in &run(&Toy::irregular(8, seed), &[vec![1]], &config).rows[0] {
            let inside = &hypothesis.ids[..hypothesis.ids.len() - 1];
            assert!(inside.iter().all(|id| ![0, 3, 4].contains(id)));
            if hypothesis.finish == Finish::EndToken {
                ends[hypothesis.ids[inside.len()] as usize] += 1;
            }
        }
    }
    assert!(ends[0] > 0 && ends[3] > 0 && ends[4] > 0, "{ends:?}");
}

#[test]
fn fewer_hypotheses_than_asked_for_are_no_error() {
    // Two sequences are possible at all.
    let model = Toy::markov([[1., 0., 0.], [0.25, 0., 0.75], [1., 0., 0.]]);
    let found = run(&model, &[vec![1]], &beams(4, 5));
    assert_eq!(found.sequences(), [vec![2, 0], vec![0]]);
}
