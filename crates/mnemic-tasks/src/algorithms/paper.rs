//! The figures of the papers' tables, as they are remembered: single digits may be off. Papers that show curves only have none here.

/// Of a recipe and task: accuracies at the sizes of training, and at longer ones: sequences wholly right, and the share before the first error, in percent.
type Transduced = (&'static str, &'static str, [f64; 4]);

/// Grefenstette et al. 2015, table 1; the LSTM is the best of one to eight layers.
const TRANSDUCTIONS: [Transduced; 20] = [
    ("lstm-transducer/transduction", "symbol-copy", [98., 98., 1., 50.]),
    ("lstm-transducer/transduction", "reversal", [95., 98., 4., 13.]),
    ("lstm-transducer/transduction", "bigram-flipping", [54., 93., 2., 52.]),
    ("lstm-transducer/transduction", "svo-to-sov", [98., 99., 98., 99.]),
    ("lstm-transducer/transduction", "gender-conjugation", [98., 99., 99., 99.]),
    ("neural-stack/stack", "symbol-copy", [89., 94., 0., 22.]),
    ("neural-stack/stack", "reversal", [100.; 4]),
    ("neural-stack/stack", "bigram-flipping", [44., 90., 0., 48.]),
    ("neural-stack/stack", "svo-to-sov", [100.; 4]),
    ("neural-stack/stack", "gender-conjugation", [93., 97., 93., 97.]),
    ("neural-stack/queue", "symbol-copy", [100.; 4]),
    ("neural-stack/queue", "reversal", [44., 61., 0., 1.]),
    ("neural-stack/queue", "bigram-flipping", [55., 94., 55., 98.]),
    ("neural-stack/queue", "svo-to-sov", [100.; 4]),
    ("neural-stack/queue", "gender-conjugation", [100.; 4]),
    ("neural-stack/deque", "symbol-copy", [100.; 4]),
    ("neural-stack/deque", "reversal", [100.; 4]),
    ("neural-stack/deque", "bigram-flipping", [55., 94., 53., 98.]),
    ("neural-stack/deque", "svo-to-sov", [100.; 4]),
    ("neural-stack/deque", "gender-conjugation", [100.; 4]),
];

/// Joulin and Mikolov 2015, table 2: of each recipe, with rounding or without, the sizes that are solved, in percent.
const PATTERNS: [(&str, bool, [f64; 5]); 4] = [
    ("lstm-transducer/counting", false, [100., 100., 68.3, 75., 100.]),
    ("stack-rnn/list", false, [100., 33.3, 100., 100., 100.]),
    ("stack-rnn/stack", false, [100., 100., 100., 100., 43.3]),
    ("stack-rnn/stack", true, [100.; 5]),
];

/// The tasks of [`PATTERNS`].
const PATTERN_TASKS: [&str; 5] = ["anbn", "anbncn", "anbncndn", "anb2n", "anbmcnm"];

/// Andrychowicz and Kurach 2016, table 1: wrong sequences of LSTM+HAM at 32 and 64 leaves, in percent.
const TREES: [(&str, [f64; 2]); 5] = [
    ("reverse", [0., 0.]),
    ("search", [0.12, 1.68]),
    ("merge", [0., 2.48]),
    ("sort", [0.04, 0.24]),
    ("add", [0., 100.]),
];

/// What the paper says of a recipe, `folder/file`, on a task at sizes as tables show them; a dash where it says nothing.
pub(super) fn paper(recipe: &str, task: &str, sizes: &str, rounding: bool) -> String {
    transduction(recipe, task, sizes)
        .or_else(|| pattern(recipe, task, rounding))
        .or_else(|| tree(recipe, task, sizes))
        .unwrap_or_else(|| "–".into())
}

fn transduction(recipe: &str, task: &str, sizes: &str) -> Option<String> {
    let row = TRANSDUCTIONS.iter().find(|(name, on, _)| (*name, *on) == (recipe, task))?;
    let [whole, fine] = match sizes {
        "8 × 64" => [row.2[0], row.2[1]],
        "65 × 128" => [row.2[2], row.2[3]],
        _ => return None,
    };
    Some(format!("wrong {:.0}, fine {fine:.0}", 100. - whole))
}

fn pattern(recipe: &str, task: &str, rounding: bool) -> Option<String> {
    let task = PATTERN_TASKS.iter().position(|name| *name == task)?;
    let row = PATTERNS.iter().find(|(name, how, _)| (*name, *how) == (recipe, rounding))?;
    Some(format!("solved {}", row.2[task]))
}

fn tree(recipe: &str, task: &str, sizes: &str) -> Option<String> {
    let (_, wrong) = TREES.iter().find(|(name, _)| recipe.starts_with("ham/") && *name == task)?;
    match sizes {
        "32" => Some(format!("wrong {}", wrong[0])),
        "64" => Some(format!("wrong {}", wrong[1])),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_figure_is_found_by_its_recipe_task_and_size() {
        let of = |recipe, task, sizes| paper(recipe, task, sizes, false);
        assert_eq!(of("neural-stack/queue", "reversal", "65 × 128"), "wrong 100, fine 1");
        assert_eq!(of("neural-stack/queue", "reversal", "8 × 64"), "wrong 56, fine 61");
        assert_eq!(of("ham/tasks", "sort", "64"), "wrong 0.24");
        assert_eq!(of("stack-rnn/stack", "anbmcnm", "2 × 60"), "solved 43.3");
        assert_eq!(paper("stack-rnn/stack", "anbmcnm", "2 × 60", true), "solved 100");
        for (recipe, task, sizes) in [
            ("ntm/copy", "copy", "20"),
            ("ham/tasks", "sort", "16"),
            ("rl-ntm/tasks", "search", "32"),
            ("stack-rnn/stack", "addition", "2 × 60"),
        ] {
            assert_eq!(of(recipe, task, sizes), "–");
        }
    }
}
