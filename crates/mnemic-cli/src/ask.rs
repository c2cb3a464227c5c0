//! `mnemic ask`.

use std::io::{BufRead, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use mnemic_tasks::babi::BabiModel;
use mnemic_tasks::data::babi::{Example, tokenize};
use mnemic_tasks::pictures::{QaTrace, TraceFile, page, svg};

use crate::args::AskArgs;
use crate::output;

/// Answers that a model gives while a story is told.
struct Session<'a> {
    model: &'a BabiModel,
    args: &'a AskArgs,
    story: Vec<String>,
    traces: Vec<QaTrace>,
}

pub(crate) fn ask(args: &AskArgs) -> Result<ExitCode> {
    let model = BabiModel::open_on(&args.run, args.device)?;
    let mut session = Session { model: &model, args, story: vec![], traces: vec![] };
    match &args.story {
        Some(path) => session.read_file(path)?,
        None if std::io::stdin().is_terminal() => session.converse()?,
        None => session.read_lines(std::io::stdin().lock(), "standard input")?,
    }
    for question in &args.question {
        session.answer(question, None)?;
    }
    if session.traces.is_empty() {
        bail!("nothing was asked: end a line with a question mark, or give --question");
    }
    if args.json {
        let file = TraceFile { traces: session.traces.clone(), heat_maps: vec![] };
        output::print(&file.to_json()?)?;
    }
    if let Some(path) = &args.html {
        let title = format!("Answers of {}", model.recipe.name);
        output::write_page(path, &page(&title, &model.recipe.description, &session.traces, &[])?)?;
    }
    if let (Some(path), Some(trace)) = (&args.svg, session.traces.last()) {
        output::write_page(path, &svg(trace)?)?;
    }
    Ok(ExitCode::SUCCESS)
}

impl Session<'_> {
    fn read_file(&mut self, path: &Path) -> Result<()> {
        let file = std::fs::File::open(path).with_context(|| path.display().to_string())?;
        self.read_lines(std::io::BufReader::new(file), &path.display().to_string())
    }

    fn read_lines(&mut self, lines: impl BufRead, place: &str) -> Result<()> {
        for (i, line) in lines.lines().enumerate() {
            line.map_err(anyhow::Error::from)
                .and_then(|line| self.line(&line))
                .with_context(|| format!("{place}, line {}", i + 1))?;
        }
        Ok(())
    }

    /// Reads from a person: an error is told and the line forgotten.
    fn converse(&mut self) -> Result<()> {
        eprintln!("Tell a story, one sentence a line; a line with a question mark asks about it.");
        eprintln!("An empty line starts a new story, Ctrl-D ends. This model knows the words:");
        eprintln!("  {}", self.model.vocabulary.words()[1..].join(" "));
        let stdin = std::io::stdin();
        loop {
            eprint!("> ");
            std::io::stderr().flush()?;
            let mut line = String::new();
            if stdin.lock().read_line(&mut line)? == 0 {
                eprintln!();
                return Ok(());
            }
            if let Err(e) = self.line(&line) {
                eprintln!("{}", output::chain(&e));
            }
        }
    }

    /// A sentence, a question, or the start of a new story.
    fn line(&mut self, line: &str) -> Result<()> {
        let line = line.trim();
        let (number, text) = match line.split_once(' ') {
            Some((n, rest)) if n.chars().all(|c| c.is_ascii_digit()) => (Some(n), rest.trim()),
            _ => (None, line),
        };
        if text.is_empty() || number == Some("1") {
            self.story.clear();
        }
        if text.is_empty() {
            return Ok(());
        }
        match text.split_once('?') {
            Some((question, rest)) => {
                let expected = rest.trim().split('\t').next().filter(|a| !a.is_empty());
                self.answer(question, expected)
            }
            None => {
                // Unknown words are told at once, not only when something is asked.
                self.model.vocabulary.encode(&tokenize(text))?;
                self.story.push(text.trim_end_matches('.').to_string());
                Ok(())
            }
        }
    }

    fn answer(&mut self, question: &str, expected: Option<&str>) -> Result<()> {
        let mut example = Example::parse(&self.story.join("\n"), question)?;
        example.answer = expected.unwrap_or_default().to_string();
        let mut trace = self.model.ask(&example, self.args.answers)?;
        trace.sentences = self.story.clone();
        if !self.args.json {
            output::draw(&trace, self.args.all)?;
        }
        self.traces.push(trace);
        Ok(())
    }
}
