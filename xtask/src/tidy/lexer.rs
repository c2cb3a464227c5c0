//! Just enough of Rust's grammar to tell code from comments and literals.

/// A word, `::` or one sign of the code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Token<'a> {
    pub(super) text: &'a str,
    /// From 1.
    pub(super) line: usize,
}

/// The text with comments and the contents of literals replaced by spaces; line ends stay.
pub(super) fn code_only(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut code = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = skip_end(&chars, at);
        if end == at {
            code.push(chars[at]);
            at += 1;
        } else {
            code.extend(chars[at..end].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
            at = end;
        }
    }
    code
}

/// Where the comment or literal that begins at `at` ends; `at` itself when none does.
fn skip_end(chars: &[char], at: usize) -> usize {
    let next = chars.get(at + 1).copied();
    match chars[at] {
        '/' if next == Some('/') => find(chars, at, |c| c == '\n'),
        '/' if next == Some('*') => block_comment_end(chars, at),
        '"' => quoted_end(chars, at, '"'),
        '\'' if next == Some('\\') || chars.get(at + 2) == Some(&'\'') => {
            quoted_end(chars, at, '\'')
        }
        'r' | 'b' | 'c' if !in_word(chars, at) => raw_string_end(chars, at).unwrap_or(at),
        _ => at,
    }
}

fn in_word(chars: &[char], at: usize) -> bool {
    at > 0 && (chars[at - 1].is_alphanumeric() || chars[at - 1] == '_')
}

fn find(chars: &[char], from: usize, stop: impl Fn(char) -> bool) -> usize {
    (from..chars.len()).find(|i| stop(chars[*i])).unwrap_or(chars.len())
}

/// Block comments nest.
fn block_comment_end(chars: &[char], at: usize) -> usize {
    let mut depth = 0usize;
    let mut i = at;
    while i < chars.len() {
        match (chars[i], chars.get(i + 1)) {
            ('/', Some('*')) => (depth, i) = (depth + 1, i + 2),
            ('*', Some('/')) => (depth, i) = (depth - 1, i + 2),
            _ => i += 1,
        }
        if depth == 0 {
            return i;
        }
    }
    chars.len()
}

fn quoted_end(chars: &[char], at: usize, quote: char) -> usize {
    let mut i = at + 1;
    while i < chars.len() && chars[i] != quote {
        i += if chars[i] == '\\' { 2 } else { 1 };
    }
    (i + 1).min(chars.len())
}

/// The end of `r"…"`, `r#"…"#`, `br#"…"#` and the like, if one begins here.
fn raw_string_end(chars: &[char], at: usize) -> Option<usize> {
    let mut i = at;
    while matches!(chars.get(i), Some('b' | 'c')) {
        i += 1;
    }
    if chars.get(i) != Some(&'r') {
        return None;
    }
    i += 1;
    let hashes = chars[i..].iter().take_while(|c| **c == '#').count();
    if chars.get(i + hashes) != Some(&'"') {
        return None;
    }
    let mut close = vec!['"'];
    close.resize(hashes + 1, '#');
    let body = i + hashes + 1;
    let found = chars[body..].windows(close.len()).position(|window| window == close);
    Some(found.map_or(chars.len(), |length| body + length + close.len()))
}

/// The words and signs of what [`code_only`] returned.
pub(super) fn tokens(code: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    for (index, line) in code.lines().enumerate() {
        let mut rest = line.trim_start();
        while let Some(first) = rest.chars().next() {
            let length = if first.is_alphanumeric() || first == '_' {
                let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_'));
                end.unwrap_or(rest.len())
            } else if rest.starts_with("::") {
                2
            } else {
                first.len_utf8()
            };
            let (text, after) = rest.split_at(length);
            tokens.push(Token { text, line: index + 1 });
            rest = after.trim_start();
        }
    }
    tokens
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        let code = code_only(text);
        tokens(&code).iter().map(|token| token.text.to_owned()).collect()
    }

    #[test]
    fn comments_are_not_code() {
        assert_eq!(words("a // b\n/// c\nd"), ["a", "d"]);
        assert_eq!(words("a /* b /* c */ d */ e"), ["a", "e"]);
    }

    #[test]
    fn literals_are_not_code() {
        assert_eq!(words(r#"f("a \" b", 'c', '\'', b"d")"#), ["f", "(", ",", ",", ",", "b", ")"]);
        assert_eq!(words("r#\"a \" b\"# + br\"c\" + d"), ["+", "+", "d"]);
        assert_eq!(words("\"// not a comment\" a"), ["a"]);
    }

    #[test]
    fn lifetimes_and_raw_names_are_code() {
        assert_eq!(words("&'a str"), ["&", "'", "a", "str"]);
        assert_eq!(words("r#type x"), ["r", "#", "type", "x"]);
        assert_eq!(words("for_r\"x\" y"), ["for_r", "y"]);
    }

    #[test]
    fn lines_keep_their_numbers() {
        let code = code_only("/* one\ntwo */ a\n\"x\ny\" b::c");
        let tokens = tokens(&code);
        let found: Vec<(&str, usize)> = tokens.iter().map(|t| (t.text, t.line)).collect();
        assert_eq!(found, [("a", 2), ("b", 4), ("::", 4), ("c", 4)]);
    }

    #[test]
    fn an_unfinished_literal_ends_with_the_file() {
        assert_eq!(words("a \"b"), ["a"]);
        assert_eq!(words("a /* b"), ["a"]);
        assert_eq!(words("a r#\"b"), ["a"]);
    }
}
