//! Text of unknown origin: cleaning, escaping, measuring, shortening.

use unicode_width::UnicodeWidthStr;

/// Replaces what must not reach a terminal or an XML document: line breaks and tabs become spaces;
/// control characters (an escape sequence could redraw the screen), direction overrides and
/// non-characters become U+FFFD.
pub(crate) fn clean(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\t' | '\n' | '\r' | '\u{2028}' | '\u{2029}' => ' ',
            c if c.is_control() => '\u{fffd}',
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '\u{fffd}',
            c if (c as u32) & 0xfffe == 0xfffe => '\u{fffd}',
            c => c,
        })
        .collect()
}

/// Cleans and escapes text for HTML and SVG, as content and between quotation marks.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in clean(text).chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// Columns that cleaned text takes in a terminal.
pub(crate) fn width(text: &str) -> usize {
    text.width()
}

/// Shortens text to `max` columns, ending it in `ellipsis` where something was cut.
pub(crate) fn shorten(text: &str, max: usize, ellipsis: &str) -> String {
    if width(text) <= max {
        return text.into();
    }
    let ellipsis = if width(ellipsis) <= max { ellipsis } else { "" };
    let head = prefix(text, max - width(ellipsis));
    format!("{}{ellipsis}", head.trim_end())
}

/// Longest beginning of `text` that takes at most `max` columns.
fn prefix(text: &str, max: usize) -> &str {
    let ends = text.char_indices().map(|(i, _)| i).chain([text.len()]);
    ends.map(|end| &text[..end]).take_while(|p| width(p) <= max).last().unwrap_or("")
}

/// Shortens the name of a pass but keeps the number that it ends in: `reading pass 12` is `rea…12`.
pub(crate) fn shorten_name(name: &str, max: usize, ellipsis: &str) -> String {
    let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
    let digits = &name[stem.len()..];
    if width(name) <= max || digits.is_empty() || width(digits) >= max {
        return shorten(name, max, ellipsis);
    }
    let room = max - width(digits);
    let stem = shorten(stem, room, if room > width(ellipsis) + 1 { ellipsis } else { "" });
    format!("{stem}{digits}")
}

/// Text with spaces after it up to `columns`.
pub(crate) fn pad(text: &str, columns: usize) -> String {
    format!("{text}{}", " ".repeat(columns.saturating_sub(width(text))))
}

/// Text with spaces before it up to `columns`.
pub(crate) fn pad_left(text: &str, columns: usize) -> String {
    format!("{}{text}", " ".repeat(columns.saturating_sub(width(text))))
}

/// Breaks text at spaces into lines of at most `max` columns; longer words are cut.
pub(crate) fn wrap(text: &str, max: usize) -> Vec<String> {
    let max = max.max(2);
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let mut rest = word;
        while !rest.is_empty() {
            let room = match lines.last() {
                Some(line) if !line.is_empty() => max.saturating_sub(width(line) + 1),
                _ => max,
            };
            if width(rest) > room && room < max {
                lines.push(String::new());
                continue;
            }
            let head = prefix(rest, room);
            // A character wider than the line cannot be wrapped.
            let head = if head.is_empty() { rest } else { head };
            if let Some(line) = lines.last_mut() {
                if !line.is_empty() {
                    line.push(' ');
                }
                line.push_str(head);
            }
            rest = &rest[head.len()..];
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_everything_that_is_special() {
        assert_eq!(escape("<a href='x'>\"&\"</a>"), {
            "&lt;a href=&#39;x&#39;&gt;&quot;&amp;&quot;&lt;/a&gt;"
        });
        assert_eq!(escape("a\nb\u{1b}[2J\u{202e}c\u{ffff}"), "a b\u{fffd}[2J\u{fffd}c\u{fffd}");
    }

    #[test]
    fn shortens_by_columns() {
        assert_eq!(shorten("Mary went home", 14, "…"), "Mary went home");
        assert_eq!(shorten("Mary went home", 10, "…"), "Mary went…");
        assert_eq!(shorten("Mary went home", 2, "..."), "Ma");
        assert_eq!(shorten("abc", 0, "…"), "");
        assert_eq!(shorten("漢字漢字", 5, "…"), "漢字…");
        assert_eq!(shorten_name("reading pass 12", 6, "…"), "rea…12");
        assert_eq!(shorten_name("pass 12", 3, "…"), "p12");
        assert_eq!(shorten_name("123456", 3, "…"), "12…");
    }

    #[test]
    fn wraps_at_spaces() {
        assert_eq!(wrap("Where is the apple?", 9), ["Where is", "the", "apple?"]);
        assert_eq!(wrap("incomprehensible", 7), ["incompr", "ehensib", "le"]);
        assert_eq!(wrap("", 9), [""]);
    }
}
