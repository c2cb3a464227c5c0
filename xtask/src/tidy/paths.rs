//! The paths that a source names, with its imports taken into account.

use std::collections::HashMap;

use super::lexer::Token;

/// A path such as `candle_nn::ops::softmax`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Named {
    /// In full as far as the imports of the file tell.
    pub(super) segments: Vec<String>,
    pub(super) line: usize,
    pub(super) kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A leaf of a `use` declaration; a glob ends in `*`.
    Import,
    /// In the code, written in full or through an imported module or type.
    Code,
    /// After a dot: a method or field.
    Method,
}

/// All paths of the code, imports first.
pub(super) fn paths(tokens: &[Token<'_>]) -> Vec<Named> {
    let mut found = Vec::new();
    let mut names = HashMap::new();
    for (at, token) in tokens.iter().enumerate() {
        // `impl Trait + use<'a>` is no import.
        if token.text == "use" && tokens.get(at + 1).is_some_and(|next| next.text != "<") {
            let mut imports = Imports { tokens, at: at + 1, found: &mut found, names: &mut names };
            imports.tree(&[]);
        }
    }
    let mut at = 0;
    while at < tokens.len() {
        at = match tokens[at].text {
            "use" => skip_import(tokens, at),
            text if is_word(text) => code_path(tokens, at, &names, &mut found),
            _ => at + 1,
        };
    }
    found
}

fn is_word(text: &str) -> bool {
    text.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

fn skip_import(tokens: &[Token<'_>], at: usize) -> usize {
    if tokens.get(at + 1).is_some_and(|next| next.text == "<") {
        return at + 1;
    }
    let length = tokens[at..].iter().take_while(|token| token.text != ";").count();
    at + length.max(1)
}

/// Takes in the path that begins at `at`; where the code goes on.
fn code_path(
    tokens: &[Token<'_>],
    at: usize,
    names: &HashMap<String, Vec<String>>,
    found: &mut Vec<Named>,
) -> usize {
    let mut segments = vec![tokens[at].text.to_owned()];
    let mut end = at + 1;
    while tokens.get(end).is_some_and(|token| token.text == "::")
        && tokens.get(end + 1).is_some_and(|token| is_word(token.text))
    {
        segments.push(tokens[end + 1].text.to_owned());
        end += 2;
    }
    let method = at > 0 && tokens[at - 1].text == ".";
    let mut kind = Kind::Code;
    if method {
        kind = Kind::Method;
    } else if let Some(full) = names.get(&segments[0]) {
        segments.splice(0..1, full.iter().cloned());
    }
    found.push(Named { segments, line: tokens[at].line, kind });
    end
}

/// Reads one `use` declaration.
struct Imports<'a, 't> {
    tokens: &'a [Token<'t>],
    at: usize,
    found: &'a mut Vec<Named>,
    /// Local name to full path.
    names: &'a mut HashMap<String, Vec<String>>,
}

impl Imports<'_, '_> {
    fn text(&self) -> &str {
        self.tokens.get(self.at).map_or(";", |token| token.text)
    }

    /// `a::b`, `a::{…}`, `a::*`, `a as b`, under the path `before`.
    fn tree(&mut self, before: &[String]) {
        let mut path = before.to_vec();
        loop {
            match self.text() {
                "::" => self.at += 1,
                "{" => return self.group(&path),
                "*" => {
                    path.push("*".into());
                    self.at += 1;
                    return self.leaf(path);
                }
                word if is_word(word) && word != "as" => {
                    // `self` in a group means the path before it.
                    if word != "self" || path.is_empty() {
                        path.push(word.to_owned());
                    }
                    self.at += 1;
                }
                _ => return self.leaf(path),
            }
        }
    }

    fn group(&mut self, path: &[String]) {
        self.at += 1;
        loop {
            match self.text() {
                "}" => break self.at += 1,
                ";" => break,
                "," => self.at += 1,
                // Nothing that begins a tree: step over it rather than stand still.
                text if text != "*" && text != "::" && text != "{" && !is_word(text) => {
                    self.at += 1
                }
                _ => self.tree(path),
            }
        }
    }

    fn leaf(&mut self, path: Vec<String>) {
        let line = self.tokens.get(self.at.saturating_sub(1)).map_or(0, |token| token.line);
        let mut local = path.last().cloned().unwrap_or_default();
        if self.text() == "as" {
            self.at += 1;
            local = self.text().to_owned();
            self.at += 1;
        }
        if local != "*" && path.len() > 1 || path.first() != Some(&local) {
            self.names.insert(local, path.clone());
        }
        if !path.is_empty() {
            self.found.push(Named { segments: path, line, kind: Kind::Import });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::lexer::{code_only, tokens};
    use super::*;

    fn found(text: &str, kind: Kind) -> Vec<String> {
        let code = code_only(text);
        let named = paths(&tokens(&code));
        named.iter().filter(|n| n.kind == kind).map(|n| n.segments.join("::")).collect()
    }

    #[test]
    fn imports_are_spelled_out() {
        let text = "use a::{b, c::{self, d as e, *}};\npub use ::f;";
        assert_eq!(found(text, Kind::Import), ["a::b", "a::c", "a::c::d", "a::c::*", "f"]);
    }

    #[test]
    fn code_is_read_through_the_imports() {
        let text =
            "use a::ops; use a as nn; use b::T as U;\nfn f() { ops::g(nn::h, U::new, x.ops) }";
        let code = found(text, Kind::Code);
        for path in ["a::ops::g", "a::h", "b::T::new"] {
            assert!(code.contains(&path.to_owned()), "{path} in {code:?}");
        }
        assert_eq!(found(text, Kind::Method), ["ops"]);
    }

    #[test]
    fn imports_of_several_lines_keep_the_line_of_each_name() {
        let code = code_only("use a::{\n    b,\n    c,\n};");
        let lines: Vec<usize> = paths(&tokens(&code)).iter().map(|named| named.line).collect();
        assert_eq!(lines, [2, 3]);
    }

    #[test]
    fn odd_input_ends() {
        assert_eq!(found("use a::{b, #, ", Kind::Import), ["a::b"]);
        assert!(found("fn f() -> impl X + use<'_> { g() }", Kind::Import).is_empty());
        assert!(found("use", Kind::Import).is_empty());
    }
}
