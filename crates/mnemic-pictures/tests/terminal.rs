//! The terminal form: exact pictures, widths, folding.

mod common;

use common::{long, pass, small};
use mnemic_pictures::{
    Error, Gate, HeatMap, PassTrace, QaTrace, Scale, TerminalOptions, terminal, terminal_heat_map,
};
use proptest::prelude::*;
use unicode_width::UnicodeWidthStr;

fn plain(width: usize) -> TerminalOptions {
    TerminalOptions { width, ..TerminalOptions::default() }
}

fn ascii(width: usize) -> TerminalOptions {
    TerminalOptions { unicode: false, ..plain(width) }
}

#[test]
fn plain_picture() {
    let want = "\
Example 1 · memn2n · qa1
  #  sentence                hop 1           hop 2
  1  Mary went home.                    .00  ██▌        .25
◆ 2  John took the milk.     ████████▊  .88             .00
◆ 3  John is in the garden.  █▎         .12  ███████▌   .75

Q: Where is the milk?
A: garden  ███████▌   .75
   home    ██▌        .25
   ✓ correct
";
    assert_eq!(terminal(&small(), &plain(100)).unwrap(), want);
}

/// The trace of the README, whose picture is copied there.
#[test]
fn picture_of_the_readme() {
    let trace = QaTrace {
        task: Some("two supporting facts".into()),
        sentences: ["Mary got the milk.", "John went to the office.", "Mary moved to the hallway."]
            .map(String::from)
            .to_vec(),
        answers: vec![("hallway".into(), 0.91), ("office".into(), 0.09)],
        expected: Some("hallway".into()),
        supports: vec![0, 2],
        passes: vec![pass("hop 1", &[0.88, 0.02, 0.1]), pass("hop 2", &[0.2, 0.05, 0.75])],
        ..small()
    };
    let readme = include_str!("../README.md");
    let picture = readme.split("```text\n").nth(1).unwrap().split("```").next().unwrap();
    assert_eq!(terminal(&trace, &TerminalOptions::default()).unwrap(), picture);
}

#[test]
fn ascii_picture_in_a_narrow_terminal() {
    let trace = QaTrace { expected: Some("home".into()), ..small() };
    let want = "\
Example 1 - memn2n - qa1
  #  sentence       hop 1     hop 2
  1  Mary went...        .00  #    .25
* 2  John took...   #### .88       .00
* 3  John is in...  #    .12  ###  .75

Q: Where is the milk?
A: garden  ###  .75
   home    #    .25
   wrong, expected: home
";
    assert_eq!(terminal(&trace, &ascii(38)).unwrap(), want);
}

#[test]
fn colour_only_when_asked() {
    let trace = small();
    assert!(!terminal(&trace, &plain(80)).unwrap().contains('\u{1b}'));
    let coloured = terminal(&trace, &TerminalOptions { colour: true, ..plain(80) }).unwrap();
    // The highest weight of a pass is bold, another one is not.
    assert!(coloured.contains("\u{1b}[1;36m████████▊  .88\u{1b}[0m"), "{coloured}");
    assert!(coloured.contains("\u{1b}[36m█▎         .12\u{1b}[0m"), "{coloured}");
    // Without its codes it is the plain picture.
    let mut text = String::new();
    for (n, part) in coloured.split('\u{1b}').enumerate() {
        text.push_str(if n == 0 { part } else { part.split_once('m').unwrap().1 });
    }
    let text: Vec<&str> = text.lines().map(str::trim_end).collect();
    let plain = terminal(&trace, &plain(80)).unwrap();
    assert_eq!(text, plain.lines().collect::<Vec<_>>());
}

#[test]
fn long_stories_are_folded() {
    let trace = long(200, &[57]);
    let text = terminal(&trace, &plain(80)).unwrap();
    let want = [
        "… 56 sentences with weight < 0.01 …",
        "57  Person 57 went",
        "58  Person 58 went",
        "59  Person 59 went",
        "… 141 sentences with weight < 0.01 …",
    ];
    let lines: Vec<&str> = text.lines().skip(2).take(5).map(str::trim).collect();
    for (line, want) in lines.iter().zip(want) {
        assert!(line.starts_with(want), "expected {want:?}, got {line:?}");
    }
    let all = terminal(&trace, &TerminalOptions { all: true, ..plain(80) }).unwrap();
    for i in 1..=200 {
        assert!(all.contains(&format!("Person {i} went")), "sentence {i} is missing");
    }
    assert!(!all.contains("sentences with weight"));
}

#[test]
fn folding_keeps_what_matters() {
    // Even attention below the threshold: the highest, the supports and NaN stay.
    let mut trace = long(60, &[]);
    let mut weights = vec![0.005; 60];
    weights[10] = 0.006;
    weights[30] = f32::NAN;
    trace.passes = vec![pass("hop 1", &weights)];
    trace.supports = vec![50];
    let text = terminal(&trace, &TerminalOptions { context: 0, ..plain(80) }).unwrap();
    let shown: Vec<&str> = text.lines().filter(|l| l.contains("Person")).collect();
    assert_eq!(shown.len(), 3, "{text}");
    for (line, want) in shown.iter().zip(["11  Person 11", "31  Person 31", "◆ 51  Person 51"]) {
        assert!(line.trim().starts_with(want), "{line}");
    }
    assert!(shown[1].ends_with("NaN"));
    // A single sentence is shown rather than replaced by a line that says so.
    let text = terminal(&long(40, &[9, 11, 0]), &TerminalOptions { context: 0, ..plain(80) });
    assert!(text.unwrap().contains("Person 11 "));
}

#[test]
fn passes_that_do_not_fit_continue_below() {
    let trace = long(14, &(0..14).collect::<Vec<_>>());
    let text = terminal(&trace, &plain(70)).unwrap();
    for n in 1..=14 {
        assert!(text.contains(&format!("hop {n} ")) || text.contains(&format!("hop {n}\n")), "{n}");
    }
    assert!(text.matches(" .90").count() == 14, "{text}");
}

#[test]
fn empty_story_and_no_answer() {
    let trace = QaTrace { title: "Nothing".into(), ..QaTrace::default() };
    assert_eq!(
        terminal(&trace, &plain(80)).unwrap(),
        "Nothing\n  (no sentences)\n\nQ:\nA: (no answer)\n"
    );
}

#[test]
fn expected_answers_further_down_are_shown() {
    let mut trace = small();
    trace.answers = (0..9).map(|n| (format!("word{n}"), 0.9 / 2f64.powi(n))).collect();
    trace.expected = Some("word7".into());
    let text = terminal(&trace, &plain(80)).unwrap();
    let words: Vec<&str> =
        text.lines().flat_map(str::split_whitespace).filter(|w| w.starts_with("word")).collect();
    assert_eq!(words, ["word0", "word1", "word2", "word3", "word4", "word7", "word7"]);
    assert!(text.ends_with("✗ wrong, expected: word7\n"));
}

#[test]
fn scores_are_drawn_from_lowest_to_highest() {
    let weights = vec![-2.0, 0.0, 2.0];
    let passes = vec![PassTrace { name: "hop 1".into(), weights, gate: Gate::Score }];
    let text = terminal(&QaTrace { passes, ..small() }, &plain(80)).unwrap();
    let bars: Vec<usize> = text.lines().skip(2).take(3).map(|l| l.matches('█').count()).collect();
    assert_eq!(bars, [0, 5, 10]);
    assert!(text.contains("-2.00") && text.contains("2.00"));
}

#[test]
fn inconsistent_traces_are_refused() {
    let mut trace = small();
    trace.passes[1].weights.pop();
    let error = terminal(&trace, &plain(80)).unwrap_err();
    assert!(matches!(error, Error::WeightCount { weights: 2, sentences: 3, .. }));
    assert_eq!(
        error.to_string(),
        "trace \"Example 1\", \"hop 2\": expected one weight per sentence, got 2 weights for 3 \
         sentences"
    );
    let error = terminal(&QaTrace { supports: vec![0, 3], ..small() }, &plain(80)).unwrap_err();
    assert!(matches!(error, Error::SupportIndex { support: 3, sentences: 3, .. }), "{error}");
}

#[test]
fn hostile_text_cannot_steer_the_terminal() {
    let mut trace = small();
    trace.sentences[0] = "\u{1b}[2Jgone\r\n\u{7}\u{202e}tfel".into();
    let text = terminal(&trace, &plain(80)).unwrap();
    assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
    assert!(text.contains("\u{fffd}[2Jgone"));
}

fn map(scale: Scale) -> HeatMap {
    HeatMap {
        title: "Reads".into(),
        row_label: "slot".into(),
        col_label: "step".into(),
        rows: vec!["1".into(), "2".into()],
        cols: vec!["a".into(), "b".into(), "c".into()],
        values: vec![0.0, 0.5, 1.0, f32::NAN, -1.0, 0.25],
        scale,
    }
}

#[test]
fn heat_maps() {
    let want = "\
Reads
rows: slot, columns: step
   a c
1 │ ▒█│
2 │╳ ░│
0 [ ░▒▓█] 1   ╳ NaN
";
    assert_eq!(terminal_heat_map(&map(Scale::Unit), &plain(80)).unwrap(), want);
    let want = "\
Reads
rows: slot, columns: step
   a c
1 | :#|
2 |?N.|
-1 [Nn=- .:+#] 1   ? NaN
";
    assert_eq!(terminal_heat_map(&map(Scale::Diverging), &ascii(80)).unwrap(), want);
    let wrong = HeatMap { values: vec![0.0; 5], ..map(Scale::Unit) };
    let error = terminal_heat_map(&wrong, &plain(80)).unwrap_err().to_string();
    assert_eq!(error, "heat map \"Reads\": expected 2 rows x 3 columns = 6 values, got 5");
}

prop_compose! {
    fn any_trace()(
        sentences in prop::collection::vec("\\PC{0,90}|[a-z ]{0,30}|\\x1b\\[1m.{0,9}", 0..30),
        names in prop::collection::vec("[a-z 漢é]{0,20}[0-9]{0,3}", 0..12),
        question in ".{0,200}",
        words in prop::collection::vec((".{0,40}", any::<f64>()), 0..9),
        seed in any::<u32>(),
        gate in prop::sample::select(vec![Gate::Softmax, Gate::Sigmoid, Gate::Score]),
    ) -> QaTrace {
        let weight = |n: usize| match (seed as usize + n * 7919) % 13 {
            0 => f32::NAN,
            1 => f32::INFINITY,
            2 => f32::NEG_INFINITY,
            3 => f32::MAX,
            4 => -12345.678,
            k => (k - 5) as f32 / 400.0,
        };
        let count = sentences.len();
        QaTrace {
            title: question.clone(),
            model: "m".repeat(count * 5),
            task: None,
            supports: (0..count).filter(|i| i % 4 == 1).collect(),
            passes: names.into_iter().enumerate().map(|(p, name)| PassTrace {
                name,
                weights: (0..count).map(|i| weight(i * 17 + p)).collect(),
                gate,
            }).collect(),
            expected: words.last().map(|w| w.0.clone()),
            sentences, question, answers: words,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_line_exceeds_the_width(trace in any_trace(), width in 0usize..140, unicode: bool, all: bool) {
        let options = TerminalOptions { width, unicode, all, ..TerminalOptions::default() };
        let text = terminal(&trace, &options).unwrap();
        for line in text.lines() {
            prop_assert!(line.width() <= width.max(24), "{} > {width}: {line:?}", line.width());
            prop_assert!(!line.chars().any(char::is_control));
            prop_assert!(unicode || line.is_ascii());
        }
    }

    #[test]
    fn heat_maps_keep_the_width(rows in 1usize..5, cols in 1usize..300, width in 0usize..120) {
        let map = HeatMap {
            rows: (0..rows).map(|r| "row".repeat(r * 9)).collect(),
            cols: (0..cols).map(|c| format!("column {c}")).collect(),
            values: (0..rows * cols).map(|i| i as f32).collect(),
            scale: Scale::Auto,
            ..map(Scale::Auto)
        };
        let text = terminal_heat_map(&map, &plain(width)).unwrap();
        for line in text.lines() {
            prop_assert!(line.width() <= width.max(24), "{line:?}");
        }
        let cells = text.lines().filter_map(|l| l.split('│').nth(1)).map(UnicodeWidthStr::width);
        prop_assert_eq!(cells.sum::<usize>(), rows * cols);
    }

    #[test]
    fn pages_and_pictures_never_panic(trace in any_trace()) {
        let html = mnemic_pictures::page(&trace.title, "", std::slice::from_ref(&trace), &[]).unwrap();
        prop_assert!(html.ends_with("</html>\n"));
        let svg = mnemic_pictures::svg(&trace).unwrap();
        prop_assert!(svg.ends_with("</svg>\n"));
        let file = mnemic_pictures::TraceFile { traces: vec![trace], heat_maps: vec![] };
        mnemic_pictures::TraceFile::from_json(&file.to_json().unwrap()).unwrap();
    }
}
