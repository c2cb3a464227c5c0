//! The format of the files published with the paper: `x1 y1 … xn yn output i1 i2 …`, indices from 1.

use std::fmt::Write;
use std::path::Path;

use super::{Instance, PlanarTask, Point};
use crate::error::{Error, Result};
use crate::lines::{Encoding, malformed, read_lines};

/// The instances of a file (plain or `.gz`), one a line.
///
/// # Errors
/// When the file cannot be read, or a line does not follow the format or is not in the form of the task's answers, naming file and line.
pub fn read(path: impl AsRef<Path>, task: PlanarTask) -> Result<Vec<Instance>> {
    let path = path.as_ref();
    let folder = path.parent().unwrap_or(Path::new(""));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let text = read_lines(folder, &name, Encoding::Utf8)?;
    let parse = |(i, line): (usize, &String)| {
        parse(line, task).map_err(|expected| malformed(&text.file, i + 1, &expected, line))
    };
    let all: Vec<Instance> = text.lines.iter().enumerate().map(parse).collect::<Result<_>>()?;
    match all.is_empty() {
        true => Err(Error::argument("path", format!("{} holds no instances", text.file))),
        false => Ok(all),
    }
}

/// The instances as such a file has them.
///
/// ```
/// use mnemic_data::planar::{Instance, to_text};
/// let instance = Instance { points: vec![[0., 0.5], [1., 0.25]], answer: vec![0, 1, 0] };
/// assert_eq!(to_text(&[instance]), "0 0.5 1 0.25 output 1 2 1 \n");
/// ```
pub fn to_text(instances: &[Instance]) -> String {
    let mut text = String::new();
    for instance in instances {
        for [x, y] in &instance.points {
            let _ = write!(text, "{x} {y} ");
        }
        text.push_str("output ");
        for i in &instance.answer {
            let _ = write!(text, "{} ", i + 1);
        }
        text.push('\n');
    }
    text
}

/// The instance of a line, or what was expected.
fn parse(line: &str, task: PlanarTask) -> std::result::Result<Instance, String> {
    const FORMAT: &str = "`x1 y1 … xn yn output i1 i2 …`";
    let mut words = line.split_whitespace();
    let mut numbers = vec![];
    for word in words.by_ref().take_while(|word| *word != "output") {
        let number = word.parse().ok().filter(|x: &f64| x.is_finite());
        numbers.push(number.ok_or_else(|| format!("{FORMAT} with a number in place of `{word}`"))?);
    }
    if !numbers.len().is_multiple_of(2) || numbers.is_empty() {
        return Err(format!("{FORMAT} with two numbers a point, not {} in all", numbers.len()));
    }
    let points: Vec<Point> = numbers.chunks_exact(2).map(|p| [p[0], p[1]]).collect();
    let n = points.len();
    if n < task.fewest() {
        return Err(format!("at least {} points", task.fewest()));
    }
    let index = |word: &str| {
        let number = word.parse().ok().filter(|i| (1..=n).contains(i));
        let number = number.ok_or_else(|| format!("an index from 1 to {n} in place of `{word}`"));
        number.map(|i: usize| i - 1)
    };
    let answer: Vec<usize> = words.map(index).collect::<std::result::Result<_, _>>()?;
    match (answer.is_empty(), task.expected_form(n, &answer)) {
        (true, _) => Err(format!("{FORMAT} with an answer")),
        (_, Some(expected)) => Err(expected.into()),
        _ => Ok(Instance { points, answer }),
    }
}
