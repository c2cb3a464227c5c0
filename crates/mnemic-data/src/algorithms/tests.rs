use super::*;

fn step(batch: &SequenceBatch, row: usize, step: usize) -> (&[f32], &[f32]) {
    let at = row * batch.steps + step;
    let (i, o) = (batch.input_size, batch.output_size);
    (&batch.inputs[at * i..][..i], &batch.targets[at * o..][..o])
}

fn scored(batch: &SequenceBatch) -> Vec<usize> {
    (0..batch.steps).filter(|&t| batch.scored[t]).collect()
}

#[test]
fn one_seed_gives_one_batch_and_others_differ() {
    for task in [
        Algorithm::copy(),
        Algorithm::repeat_copy(),
        Algorithm::associative_recall(),
        Algorithm::n_grams(),
        Algorithm::priority_sort(),
    ] {
        let batch = |seed, number| task.batch(3, seed, number).unwrap();
        assert_eq!(batch(1, 4), batch(1, 4));
        assert_ne!(batch(1, 4), batch(1, 5));
        assert_ne!(batch(1, 4), batch(2, 4));
        assert_eq!((batch(1, 4).input_size, batch(1, 4).output_size), task.sizes());
    }
}

#[test]
fn lengths_cover_their_range() {
    let lengths: std::collections::BTreeSet<usize> =
        (0..400).map(|i| (Algorithm::copy().batch(1, 1, i).unwrap().steps - 1) / 2).collect();
    assert_eq!(lengths, (1..=20).collect());
}

#[test]
fn copies_follow_the_number_of_times() {
    let task = Algorithm::RepeatCopy { bits: 3, length: (2, 2), repeats: (3, 3), shown: (1, 10) };
    let batch = task.batch(2, 1, 0).unwrap();
    assert_eq!((batch.steps, scored(&batch)), (10, (3..10).collect()));
    for row in 0..2 {
        for time in 0..3 {
            for i in 0..2 {
                let target = step(&batch, row, 3 + 2 * time + i).1;
                assert_eq!(target[..3], step(&batch, row, i).0[..3]);
                assert_eq!(target[3], 0.);
            }
        }
        assert_eq!(step(&batch, row, 9).1, [0., 0., 0., 1.]);
    }
    let number = |times: usize| {
        let batch = Algorithm::repeat_copy().at(&[1, times]).unwrap().batch(1, 1, 0).unwrap();
        step(&batch, 0, 1).0[8]
    };
    assert!((number(1) + 1.5667).abs() < 1e-3 && (number(10) - 1.5667).abs() < 1e-3);
}

#[test]
fn recall_asks_for_the_item_after_the_query() {
    for number in 0..20 {
        let batch = Algorithm::associative_recall().batch(4, 3, number).unwrap();
        let items = (batch.steps - 8) / 4;
        assert!((2..=6).contains(&items));
        assert_eq!(scored(&batch), (batch.steps - 3..batch.steps).collect::<Vec<_>>());
        for row in 0..4 {
            let item = |at: usize| -> Vec<f32> {
                (0..3).flat_map(|i| step(&batch, row, at + 1 + i).0[..6].to_vec()).collect()
            };
            let all: Vec<Vec<f32>> = (0..items).map(|i| item(4 * i)).collect();
            let query = item(4 * items);
            let asked = all[..items - 1].iter().position(|i| *i == query).unwrap();
            let answer: Vec<f32> =
                (0..3).flat_map(|i| step(&batch, row, batch.steps - 3 + i).1.to_vec()).collect();
            assert_eq!(answer, all[asked + 1]);
        }
    }
}

#[test]
fn sorting_gives_the_highest_priorities_first() {
    let batch = Algorithm::priority_sort().batch(3, 1, 0).unwrap();
    assert_eq!((batch.steps, scored(&batch).len()), (37, 16));
    for row in 0..3 {
        let mut all: Vec<&[f32]> = (0..20).map(|i| step(&batch, row, i).0).collect();
        all.sort_by(|a, b| b[8].total_cmp(&a[8]));
        for (i, vector) in all[..16].iter().enumerate() {
            assert_eq!(step(&batch, row, 21 + i).1, &vector[..8]);
        }
    }
}

#[test]
fn the_best_predictor_of_n_grams_pays_what_the_distribution_costs() {
    // The mean over many sequences; about 134 bits for 200 (measured once), far from the 195 of even odds.
    let mut sum = 0.;
    for number in 0..200 {
        let batch = Algorithm::n_grams().batch(1, 1, number).unwrap();
        let mut bits = batch.inputs.clone();
        bits.push(batch.targets[batch.steps - 1]);
        sum += n_gram_bound(&bits).unwrap();
    }
    assert!((120. ..150.).contains(&(sum / 200.)), "{}", sum / 200.);
    assert!(n_gram_bound(&[0., 0.5]).is_err());
    // Six equal bits: the first with a context costs one bit, the next log2(4/3).
    assert!((n_gram_bound(&[1.; 6]).unwrap() - 1.).abs() < 1e-12);
    let second = n_gram_bound(&[1.; 7]).unwrap() - 1.;
    assert!((second - (4f64 / 3.).log2()).abs() < 1e-12);
}

#[test]
fn sizes_out_of_range_are_refused() {
    for task in [
        Algorithm::Copy { bits: 0, length: (1, 2) },
        Algorithm::Copy { bits: 8, length: (3, 2) },
        Algorithm::AssociativeRecall { bits: 6, items: (1, 6) },
        Algorithm::NGrams { length: 5 },
        Algorithm::PrioritySort { bits: 8, inputs: 3, outputs: 4 },
    ] {
        assert!(task.batch(1, 1, 0).unwrap_err().to_string().contains("sizes out of range"));
    }
    assert!(Algorithm::copy().at(&[1, 2]).is_err() && Algorithm::copy().at(&[0]).is_err());
    assert_eq!(
        Algorithm::named("copy").unwrap().at(&[50]).unwrap().batch(1, 1, 0).unwrap().steps,
        101
    );
    assert!(Algorithm::named("sort").unwrap_err().to_string().contains("priority-sort"));
}

/// The symbols that one-hot rows stand for.
fn symbols(batch: &SequenceBatch, row: usize) -> (Vec<usize>, Vec<Option<usize>>) {
    let hot = |xs: &[f32]| {
        assert!(xs.iter().all(|&x| x == 0. || x == 1.) && xs.iter().sum::<f32>() <= 1.);
        xs.iter().position(|&x| x == 1.)
    };
    let at = |t| step(batch, row, t);
    let inputs = (0..batch.steps).map(|t| hot(at(t).0).unwrap()).collect();
    (inputs, (0..batch.steps).map(|t| hot(at(t).1)).collect())
}

/// Source and target of a row, with the layout checked.
fn source_and_target(
    batch: &SequenceBatch,
    row: usize,
    task: Transduction,
) -> (Vec<usize>, Vec<usize>) {
    let (sources, targets) = task.vocabulary();
    let (inputs, outputs) = symbols(batch, row);
    let separator = inputs.iter().position(|&i| i == sources + targets + 1).unwrap();
    assert_eq!(inputs[0], sources + targets);
    assert_eq!(scored(batch), (separator..batch.steps).collect::<Vec<_>>());
    let source = inputs[1..separator].to_vec();
    let target: Vec<usize> = inputs[separator + 1..].iter().map(|i| i - sources).collect();
    let said: Vec<usize> = outputs[separator..].iter().map(|s| s.unwrap()).collect();
    assert_eq!(said, [&target[..], &[targets]].concat());
    assert!(outputs[..separator].iter().all(Option::is_none) && batch.symbols);
    (source, target)
}

#[test]
fn transductions_do_what_they_say() {
    for (name, task) in Transduction::ALL {
        for number in 0..20 {
            let batch = Algorithm::named(name).unwrap().batch(3, 1, number).unwrap();
            for row in 0..3 {
                let (source, target) = source_and_target(&batch, row, task);
                assert!((8..=64).contains(&source.len()), "{name}: {}", source.len());
                assert_eq!(source.len(), target.len());
                let mut expected = source.clone();
                match task {
                    Transduction::Copy => {}
                    Transduction::Reversal => expected.reverse(),
                    Transduction::BigramFlipping => {
                        expected.chunks_mut(2).for_each(<[usize]>::reverse);
                    }
                    Transduction::SvoToSov => {
                        // The same words, the object before its verb: subjects and pronouns stay in their order.
                        assert_ne!(source, target);
                        let sorted = |mut xs: Vec<usize>| {
                            xs.sort_unstable();
                            xs
                        };
                        assert_eq!(sorted(source.clone()), sorted(target.clone()));
                        continue;
                    }
                    Transduction::GenderConjugation => expected = conjugated(&source),
                }
                assert_eq!(target, expected, "{name}");
            }
        }
    }
}

/// German by rules of its own, not by the grammar: an article looks at the noun after it.
fn conjugated(source: &[usize]) -> Vec<usize> {
    let gender = |noun: usize| (noun - 4) / 25;
    (0..source.len())
        .map(|i| match source[i] {
            0 => gender(source[i + 1]),
            1 => [3, 4, 3][gender(source[i + 1])],
            2 => 5,
            3 => 6,
            other => other + 3,
        })
        .collect()
}

/// A sentence parsed anew: `S V O` with the verb after the longest subject. Checked by moving the verb of the main clause.
#[test]
fn one_verb_moves_to_the_end() {
    let task = Transduction::SvoToSov;
    for number in 0..50 {
        let batch = Algorithm::named("svo-to-sov").unwrap().batch(2, 5, number).unwrap();
        for row in 0..2 {
            let (source, target) = source_and_target(&batch, row, task);
            let verb = |word: &usize| (66..99).contains(word);
            let last = *target.last().unwrap();
            assert!(verb(&last));
            // Taking one verb out of the source and putting it last gives the target.
            let moved = (0..source.len()).filter(|&i| source[i] == last).any(|i| {
                let mut rest = source.clone();
                let word = rest.remove(i);
                rest.push(word);
                rest == target
            });
            assert!(moved, "{source:?} {target:?}");
        }
    }
}

#[test]
fn lengths_of_grammars_have_their_probabilities() {
    use super::grammar::{Grammar, Item, Rule};
    // A → A A (1/4) | x (3/4): one symbol with 3/4, two with 9/64, three with 2 · 27/1024.
    let rules = vec![vec![
        Rule::new(0.25, vec![Item::Nonterminal(0), Item::Nonterminal(0)]),
        Rule::new(0.75, vec![Item::Words(vec![(0, 0)])]),
    ]];
    let grammar = Grammar::new(rules, 3);
    let mut counts = [0usize; 4];
    let mut draws = crate::sampling::Draws::named(1, 2, b"test of grammars");
    for _ in 0..20_000 {
        counts[grammar.length((1, 3), &mut draws)] += 1;
    }
    let all = 0.75 + 9. / 64. + 54. / 1024.;
    for (n, p) in [(1, 0.75), (2, 9. / 64.), (3, 54. / 1024.)] {
        let share = counts[n] as f64 / 20_000.;
        assert!((share - p / all).abs() < 0.01, "{n}: {share}");
    }
    assert_eq!(grammar.derive(3, &mut draws), (vec![0; 3], vec![0; 3]));
    assert!(!grammar.reaches((0, 0)) && grammar.reaches((3, 3)) && !grammar.reaches((4, 4)));
}

#[test]
fn transductions_are_tested_at_other_lengths() {
    let task = Algorithm::named("reversal").unwrap();
    let steps = task.at(&[100]).unwrap().batch(1, 1, 0).unwrap().steps;
    assert_eq!(steps, 202);
    for number in 0..50 {
        let batch = task.at(&[65, 128]).unwrap().batch(1, 1, number).unwrap();
        assert!((65 + 67..=128 + 130).contains(&batch.steps));
    }
    assert!(Algorithm::named("bigram-flipping").unwrap().at(&[9]).is_err());
    assert!(Algorithm::named("gender-conjugation").unwrap().at(&[1, 2]).is_err());
}

/// Each row as text, `.` where a target is not scored.
fn streams(batch: &SequenceBatch, letters: &str) -> Vec<(String, String)> {
    let letter = |symbol: usize| letters.chars().nth(symbol).unwrap();
    (0..batch.batch_size)
        .map(|row| {
            let (inputs, targets) = symbols(batch, row);
            let targets = targets.into_iter().map(|t| t.map_or('-', letter)).collect();
            (inputs.into_iter().map(letter).collect(), targets)
        })
        .collect()
}

/// One row of these sequences, as many steps as given.
fn written_out(task: Pattern, sizes: &[usize], steps: usize, letters: &str) -> (String, String) {
    let mut draws = crate::sampling::Draws::named(1, 2, b"test of patterns");
    let row = sizes.iter().map(|&n| task.sequence(n, &mut draws)).collect();
    streams(&task.lay_out(&[row], steps), letters).remove(0)
}

#[test]
fn only_what_is_known_is_scored_in_patterns() {
    let said = |task, sizes: &[usize], steps, inputs: &str, targets: &str| {
        let expected = (inputs.to_string(), targets.to_string());
        assert_eq!(written_out(task, sizes, steps, "abcd"), expected, "{task:?}");
    };
    // The first b is not known, nor how many a's there are.
    said(Pattern::AnBn, &[3, 1, 2], 8, "aaabbbab", "---bba-a");
    // A row may end within a sequence.
    said(Pattern::AnBn, &[3, 1, 2], 4, "aaab", "---b");
    said(Pattern::AnBnCn, &[2, 1, 1], 9, "aabbccabc", "--bcca-ca");
    said(Pattern::AnBnCnDn, &[2, 1], 8, "aabbccdd", "--bccdda");
    said(Pattern::AnB2n, &[2, 1, 1], 9, "aabbbbabb", "--bbba-ba");
}

#[test]
fn the_third_count_of_a_pattern_is_the_sum_of_the_others() {
    let mut firsts = std::collections::BTreeSet::new();
    for number in 0..40 {
        let batch = Algorithm::named("anbmcnm").unwrap().at(&[5]).unwrap().batch(1, 1, number);
        let (inputs, targets) = streams(&batch.unwrap(), "abc").remove(0);
        for at in (0..inputs.len()).step_by(10) {
            let (sequence, scored) = (&inputs[at..at + 10], &targets[at..at + 10]);
            let count = |letter: char| sequence.matches(letter).count();
            assert_eq!((count('a') + count('b'), count('c')), (5, 5), "{sequence}");
            let sorted: String = ["a", "b", "c"].iter().flat_map(|l| sequence.matches(l)).collect();
            assert_eq!(sequence, sorted);
            assert_eq!(scored, "-----cccca");
            firsts.insert(count('a'));
        }
    }
    assert_eq!(firsts, (1..=4).collect());
}

#[test]
fn strings_come_back_in_reverse() {
    let batch = Algorithm::named("memorization").unwrap().batch(4, 1, 0).unwrap();
    for (inputs, targets) in streams(&batch, "abc") {
        let mut at = 0;
        while let Some(n) = inputs[at..].find('c').filter(|n| at + 2 * n < inputs.len()) {
            let (string, back) = (&inputs[at..at + n], &inputs[at + n + 1..at + 2 * n + 1]);
            assert_eq!(string.chars().rev().collect::<String>(), back);
            let expected = format!("{}{back}-", "-".repeat(n));
            assert_eq!(targets[at..at + 2 * n + 1], expected);
            at += 2 * n + 1;
        }
        assert!(at > inputs.len() - 40);
    }
}

#[test]
fn sums_are_written_with_the_last_digit_first() {
    let drawn = pattern::addition(&[1, 0, 1], &[1]);
    let text: String = drawn.symbols.iter().map(|&s| "01+=.".as_bytes()[s] as char).collect();
    assert_eq!((text.as_str(), &text[drawn.scored]), ("101+1=011.", "011."));
    let batch = Algorithm::named("addition").unwrap().batch(6, 1, 0).unwrap();
    for (inputs, targets) in streams(&batch, "01+=.") {
        let mut rest = (inputs.as_str(), targets.as_str());
        while let Some(end) = rest.0.find('.') {
            let ((sum, left), (scored, more)) =
                (rest.0.split_at(end + 1), rest.1.split_at(end + 1));
            rest = (left, more);
            let (digits, answer) = sum.split_once('=').unwrap();
            let (x, y) = digits.split_once('+').unwrap();
            assert!(x.starts_with('1') && y.starts_with('1') && x.len() + y.len() <= 19);
            let number = |digits: &str| u64::from_str_radix(digits, 2).unwrap();
            let backwards: String = answer.trim_end_matches('.').chars().rev().collect();
            assert_eq!(number(x) + number(y), number(&backwards), "{sum}");
            assert_eq!(scored, format!("{}{answer}-", "-".repeat(digits.len())));
        }
    }
}

#[test]
fn streams_hold_whole_sequences_and_end_together() {
    for (name, task) in Pattern::ALL {
        let of = Algorithm::named(name).unwrap();
        let batch = of.batch(3, 1, 4).unwrap();
        assert_eq!(batch, of.batch(3, 1, 4).unwrap());
        assert_ne!(batch, of.batch(3, 2, 4).unwrap());
        assert_ne!(symbols(&batch, 0).0, symbols(&batch, 1).0, "{name}");
        for row in 0..3 {
            let own: Vec<_> = batch.sequences.iter().filter(|s| s.row == row).collect();
            assert!(own.len() >= 10, "{name}");
            assert!(own.windows(2).all(|w| w[0].steps.end == w[1].steps.start));
            assert_eq!(own[0].steps.start, 0);
            // Only the last steps may be those of a cut sequence, and some row has none.
            assert!(batch.steps - own[own.len() - 1].steps.end < 4 * 20);
        }
        assert!(batch.sequences.iter().any(|s| s.steps.end == batch.steps));
        assert!(of.at(&[task.least(), 60]).is_ok() && of.at(&[task.least() - 1]).is_err());
        assert_eq!(of.at(&[60]).unwrap().each_size(), Some(60..=60));
    }
    // Of other tasks each row is a sequence.
    let batch = Algorithm::copy().batch(2, 1, 0).unwrap();
    assert_eq!(batch.sequences[1], Sequence { row: 1, steps: 0..batch.steps });
    assert_eq!((batch.sequences.len(), Algorithm::copy().each_size()), (2, None));
}

#[test]
fn curricula_begin_with_small_sizes() {
    let longest =
        |task: Algorithm| (0..50).map(|i| task.batch(1, 1, i).unwrap().steps).max().unwrap();
    let copy = Algorithm::copy();
    assert_eq!((longest(copy.up_to(3)), copy.up_to(20), copy.up_to(99)), (7, copy, copy));
    let pattern = Algorithm::named("anbn").unwrap();
    assert!(longest(pattern.up_to(3)) <= 60 && longest(pattern) > 200);
    // Not below the smallest size, and to one that the task has.
    let addition = Algorithm::named("addition").unwrap();
    assert_eq!(addition.up_to(0), addition.at(&[2]).unwrap());
    for (name, _) in Transduction::ALL {
        let task = Algorithm::named(name).unwrap();
        assert!(longest(task.up_to(9)) <= 2 * 12 + 2, "{name}");
    }
}
