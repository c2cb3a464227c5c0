//! Every verb and flag of the runner, declared and documented in this one place.

use std::process::ExitCode;

use anyhow::{Result, bail};

use crate::{bench, ci, demo, gpu, interop, package, test, tidy};

/// An option of a verb.
struct Flag {
    /// The name with its dashes.
    name: &'static str,
    /// What the help shows for its value; `None` for a switch.
    value: Option<&'static str>,
    help: &'static str,
}

/// What a verb does with the arguments that are none of its flags.
enum Rest {
    None,
    /// Plain words, shown under this name in the help.
    Words(&'static str),
    /// Handed on untouched, unknown options included.
    Forwarded(&'static str),
}

struct Verb {
    name: &'static str,
    about: &'static str,
    /// Further paragraphs of `cargo xtask VERB --help`.
    details: fn() -> String,
    flags: &'static [Flag],
    rest: Rest,
    examples: &'static [&'static str],
    run: fn(Args) -> Result<ExitCode>,
}

const VERBS: &[Verb] = &[
    Verb {
        name: "demo",
        about: "train a memory network in minutes, ask it questions and draw its attention",
        details: || {
            "Builds the binary `mnemic` and runs `mnemic demo` with the same arguments; the exit\n\
             code and signals are those of `mnemic`. No download. `cargo xtask demo -- --help`\n\
             shows the arguments that it takes."
                .into()
        },
        flags: &[],
        rest: Rest::Forwarded("ARGS"),
        examples: &["cargo xtask demo", "cargo xtask demo -- --help"],
        run: demo::run,
    },
    Verb {
        name: "test",
        about: "all tests: unit, integration, documentation; examples are compiled",
        details: || {
            "Needs no network beyond the crates, no Python and no data. Tests on real data run when\n\
             the environment variable MNEMIC_DATA names a folder that holds `data` and `fixtures`;\n\
             without it they are skipped, and the skipped ones are listed by name at the end."
                .into()
        },
        flags: &[
            Flag {
                name: "--filter",
                value: Some("NAME"),
                help: "only tests whose path contains NAME",
            },
            Flag {
                name: "--package",
                value: Some("CRATE"),
                help: "only the tests of one crate (may be repeated)",
            },
            Flag { name: "--release", value: None, help: "test the optimised build" },
        ],
        rest: Rest::None,
        examples: &[
            "cargo xtask test",
            "cargo xtask test --filter gru",
            "cargo xtask test --package mnemic-layers",
        ],
        run: test::run,
    },
    Verb {
        name: "bench",
        about: "measure, on request beside PyTorch on the same machine in the same run",
        details: bench::help,
        flags: &[
            Flag {
                name: "--peers",
                value: None,
                help: "also run the Python peer; sets up .venv on first use (PyPI)",
            },
            Flag {
                name: "--save",
                value: Some("LABEL"),
                help: "keep the output, with date, commit and machine, in benches/results",
            },
            Flag { name: "--list", value: None, help: "list the benches and stop" },
        ],
        rest: Rest::Forwarded("NAME ARGS"),
        examples: &[
            "cargo xtask bench --list",
            "cargo xtask bench dmn-step --peers",
            "cargo xtask bench dmn-step --peers --save two-cores --batch 100",
            "cargo xtask bench kernels --list",
            "cargo xtask bench kernels --peers --filter gru,lstm --threads 1,2",
            "cargo xtask bench pretrained --peers --sentences 200 --save two-cores",
        ],
        run: bench::run,
    },
    Verb {
        name: "interop",
        about: "whether Hugging Face's `transformers` reads what `save_pretrained` writes",
        details: interop::help,
        flags: &[Flag {
            name: "--save",
            value: Some("LABEL"),
            help: "keep the table, with date, commit and machine, in benches/results",
        }],
        rest: Rest::None,
        examples: &["cargo xtask interop", "cargo xtask interop --save transformers"],
        run: interop::run,
    },
    Verb {
        name: "gpu",
        about: "build with CUDA and pack tests, benches and `mnemic` for a machine with a GPU",
        details: gpu::help,
        flags: &[Flag {
            name: "--out",
            value: Some("DIR"),
            help: "the folder to pack into (default: target/gpu)",
        }],
        rest: Rest::None,
        examples: &["cargo xtask gpu", "cargo xtask gpu --out /tmp/mnemic-gpu"],
        run: gpu::run,
    },
    Verb {
        name: "ci",
        about: "everything that a change must pass, cheapest first; stops at the first failure",
        details: ci::help,
        flags: &[],
        rest: Rest::Words("STEP"),
        examples: &["cargo xtask ci", "cargo xtask ci fmt tidy clippy"],
        run: ci::run,
    },
    Verb {
        name: "tidy",
        about: "house rules that no compiler checks: layering, manifests, banned calls, sizes",
        details: tidy::help,
        flags: &[],
        rest: Rest::None,
        examples: &["cargo xtask tidy"],
        run: tidy::run,
    },
    Verb {
        name: "package",
        about: "check that every published crate packages",
        details: || {
            "Runs `cargo package` over the crates that are not marked `publish = false`, all at once,\n\
             so that they may need each other before the first release; then checks that each archive\n\
             holds its README, changelog and licences. Not part of `ci`: `--verify` builds\n\
             every archive from scratch."
                .into()
        },
        flags: &[
            Flag { name: "--verify", value: None, help: "also build each archive (minutes)" },
            Flag { name: "--offline", value: None, help: "do not touch the network" },
        ],
        rest: Rest::None,
        examples: &["cargo xtask package", "cargo xtask package --verify"],
        run: package::run,
    },
];

/// The arguments of one verb, already checked against its flags.
#[derive(Debug, Default)]
pub(crate) struct Args {
    given: Vec<(&'static str, Option<String>)>,
    /// What was none of the verb's flags, in order.
    pub(crate) rest: Vec<String>,
}

impl Args {
    /// Whether the switch was given.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.given.iter().any(|(flag, _)| *flag == name)
    }

    /// The values of a flag, in order.
    pub(crate) fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.given.iter().filter(move |(flag, _)| *flag == name).filter_map(|(_, v)| v.as_deref())
    }

    /// The last value of a flag.
    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        self.given.iter().rev().find(|(flag, _)| *flag == name).and_then(|(_, v)| v.as_deref())
    }
}

/// Runs the verb that the command line names.
pub(crate) fn dispatch(mut args: Vec<String>) -> Result<ExitCode> {
    if args.is_empty() || ["help", "--help", "-h"].contains(&args[0].as_str()) {
        let text = match args.get(1) {
            Some(name) => verb_help(find(name)?),
            None => overview(),
        };
        print!("{text}");
        return Ok(ExitCode::SUCCESS);
    }
    let name = args.remove(0);
    let verb = find(&name)?;
    match parse(verb, args)? {
        Some(args) => (verb.run)(args),
        None => {
            print!("{}", verb_help(verb));
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn find(name: &str) -> Result<&'static Verb> {
    if let Some(verb) = VERBS.iter().find(|verb| verb.name == name) {
        return Ok(verb);
    }
    match nearest(name, VERBS.iter().map(|verb| verb.name)) {
        Some(near) => bail!("unknown verb `{name}`; did you mean `{near}`? See `cargo xtask help`"),
        None => bail!("unknown verb `{name}`; `cargo xtask help` lists them"),
    }
}

/// Splits the arguments into the verb's flags and the rest; `None` when help was asked for.
fn parse(verb: &Verb, args: Vec<String>) -> Result<Option<Args>> {
    let mut parsed = Args::default();
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        if arg == "--" {
            parsed.rest.extend(args);
            break;
        }
        if arg == "--help" || arg == "-h" {
            return Ok(None);
        }
        let (name, attached) = match arg.split_once('=') {
            Some((name, value)) if name.starts_with("--") => (name, Some(value.to_owned())),
            _ => (arg.as_str(), None),
        };
        let Some(flag) = verb.flags.iter().find(|flag| flag.name == name) else {
            match verb.rest {
                Rest::Forwarded(_) => {}
                Rest::Words(_) if !arg.starts_with('-') => {}
                _ => bail!(unknown_argument(verb, &arg)),
            }
            parsed.rest.push(arg);
            continue;
        };
        let value = match (flag.value, attached) {
            (None, None) => None,
            (None, Some(_)) => bail!("`{name}` of `cargo xtask {}` takes no value", verb.name),
            (Some(_), Some(value)) => Some(value),
            (Some(placeholder), None) => match args.next() {
                Some(value) => Some(value),
                None => {
                    bail!("`{name}` of `cargo xtask {}` needs a value: {placeholder}", verb.name)
                }
            },
        };
        parsed.given.push((flag.name, value));
    }
    if matches!(verb.rest, Rest::None) && !parsed.rest.is_empty() {
        bail!(unknown_argument(verb, &parsed.rest[0]));
    }
    Ok(Some(parsed))
}

fn unknown_argument(verb: &Verb, arg: &str) -> String {
    let hint = match nearest(arg, verb.flags.iter().map(|flag| flag.name)) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("see `cargo xtask {} --help`", verb.name),
    };
    format!("`cargo xtask {}` does not know `{arg}`; {hint}", verb.name)
}

fn overview() -> String {
    let mut text =
        String::from("The build runner of mnemic.\n\nUsage: cargo xtask VERB [ARGS]\n\nVerbs:\n");
    for verb in VERBS {
        text.push_str(&format!("  {:<10}{}\n", verb.name, verb.about));
    }
    text.push_str("  help      this text, or that of one verb: cargo xtask help VERB\n");
    text
}

fn verb_help(verb: &Verb) -> String {
    let mut usage = format!("cargo xtask {}", verb.name);
    if !verb.flags.is_empty() {
        usage.push_str(" [FLAGS]");
    }
    match verb.rest {
        Rest::None => {}
        Rest::Words(name) | Rest::Forwarded(name) => usage.push_str(&format!(" [{name}…]")),
    }
    let mut text = format!("{}: {}\n\nUsage: {usage}\n", verb.name, verb.about);
    text.push_str(&format!("\n{}\n", (verb.details)().trim_end()));
    if !verb.flags.is_empty() {
        text.push_str("\nFlags:\n");
        for flag in verb.flags {
            let value = flag.value.map(|value| format!(" {value}")).unwrap_or_default();
            text.push_str(&format!("  {:<18}{}\n", format!("{}{value}", flag.name), flag.help));
        }
    }
    text.push_str("\nExamples:\n");
    for example in verb.examples {
        text.push_str(&format!("  {example}\n"));
    }
    text
}

/// The candidate that a typing slip probably meant: at most two edits away, or one that the word begins.
pub(crate) fn nearest<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let scored = candidates.into_iter().map(|candidate| {
        let begins = word.len() >= 2 && candidate.starts_with(word);
        (if begins { 1 } else { edit_distance(word, candidate) }, candidate)
    });
    let limit = if word.chars().count() <= 3 { 1 } else { 2 };
    scored.filter(|(edits, _)| *edits <= limit).min().map(|(_, candidate)| candidate)
}

/// Levenshtein distance in characters.
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substitute = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = substitute.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_words(verb: &str, words: &[&str]) -> Result<Option<Args>> {
        parse(find(verb).unwrap(), words.iter().map(|w| (*w).to_owned()).collect())
    }

    #[test]
    fn edit_distance_counts_insertions_deletions_and_substitutions() {
        assert_eq!(edit_distance("", "abc"), 3);
        assert_eq!(edit_distance("kitten", "sitting"), 3);
        assert_eq!(edit_distance("tidy", "tidy"), 0);
    }

    #[test]
    fn a_slip_is_answered_with_the_verb_that_was_meant() {
        let error = find("tets").err().unwrap().to_string();
        assert!(error.contains("did you mean `test`"), "{error}");
        assert!(find("pack").err().unwrap().to_string().contains("`package`"));
        assert!(!find("frobnicate").err().unwrap().to_string().contains("did you mean"));
    }

    #[test]
    fn flags_take_their_value_from_either_form() {
        let args = parse_words("test", &["--filter", "gru", "--package=a", "--package", "b"]);
        let args = args.unwrap().unwrap();
        assert_eq!(args.value("--filter"), Some("gru"));
        assert_eq!(args.values("--package").collect::<Vec<_>>(), ["a", "b"]);
        assert!(!args.has("--release"));
    }

    #[test]
    fn wrong_flags_are_named_with_a_suggestion() {
        let error = parse_words("test", &["--fliter", "x"]).unwrap_err().to_string();
        assert!(error.contains("`--fliter`") && error.contains("`--filter`"), "{error}");
        assert!(parse_words("test", &["--filter"]).unwrap_err().to_string().contains("NAME"));
        assert!(parse_words("test", &["--release=1"]).is_err());
        assert!(parse_words("tidy", &["word"]).is_err());
    }

    #[test]
    fn forwarding_verbs_keep_unknown_options_in_order() {
        let args = parse_words("bench", &["dmn-step", "--peers", "--batch", "100", "--", "--list"]);
        let args = args.unwrap().unwrap();
        assert!(args.has("--peers") && !args.has("--list"));
        assert_eq!(args.rest, ["dmn-step", "--batch", "100", "--list"]);
    }

    #[test]
    fn help_is_asked_for_before_but_not_after_the_dashes() {
        assert!(parse_words("demo", &["--help"]).unwrap().is_none());
        assert_eq!(parse_words("demo", &["--", "--help"]).unwrap().unwrap().rest, ["--help"]);
    }

    #[test]
    fn every_verb_has_a_complete_help_text() {
        for verb in VERBS {
            let text = verb_help(verb);
            assert!(overview().contains(verb.about));
            assert!(!(verb.details)().is_empty() && !verb.examples.is_empty());
            for flag in verb.flags {
                assert!(text.contains(flag.name) && text.contains(flag.help));
            }
            for example in verb.examples {
                assert!(example.starts_with(&format!("cargo xtask {}", verb.name)));
            }
        }
    }
}
