//! Words and their pieces.

use mnemic_models::Encoded;

/// Words joined by blanks, and from which byte to which byte each goes.
pub fn join_words(words: &[String]) -> (String, Vec<(usize, usize)>) {
    let mut text = String::new();
    let mut places = Vec::with_capacity(words.len());
    for word in words {
        if !text.is_empty() {
            text.push(' ');
        }
        places.push((text.len(), text.len() + word.len()));
        text.push_str(word);
    }
    (text, places)
}

/// The place of each word's first piece among the tokens of `encoded`, the text of whose words `places` says where they are.
///
/// `None` for a word that was cut off, or that the tokenizer makes nothing of (such as one of control characters only).
pub fn first_pieces(encoded: &Encoded, places: &[(usize, usize)]) -> Vec<Option<usize>> {
    let mut firsts = vec![None; places.len()];
    let mut word = 0;
    for (i, (&(start, end), text)) in encoded.offsets.iter().zip(&encoded.texts).enumerate() {
        if text.is_none() || start == end {
            continue;
        }
        // A piece may take the blank before its word along, so its end says which word it is of.
        while places.get(word + 1).is_some_and(|next| next.0 < end) {
            word += 1;
        }
        match (firsts.get_mut(word), places.get(word)) {
            (Some(first @ None), Some(place)) if place.0 < end => *first = Some(i),
            _ => {}
        }
    }
    firsts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(offsets: &[(usize, usize)]) -> Encoded {
        let added = |&(start, end): &(usize, usize)| if start == end { None } else { Some(0) };
        Encoded {
            texts: offsets.iter().map(added).collect(),
            offsets: offsets.to_vec(),
            ..Encoded::default()
        }
    }

    #[test]
    fn the_first_piece_of_each_word_is_found() {
        let words = ["play", "in", "M\u{fc}nchen", "!"].map(String::from);
        let (text, places) = join_words(&words);
        assert_eq!(text, "play in M\u{fc}nchen !");
        assert_eq!(places, [(0, 4), (5, 7), (8, 16), (17, 18)]);
        // [CLS] pl ##ay in m\u{fc} ##nch ##en ! [SEP]
        let pieces =
            [(0, 0), (0, 2), (2, 4), (5, 7), (8, 11), (11, 14), (14, 16), (17, 18), (0, 0)];
        let expected = [Some(1), Some(3), Some(4), Some(7)];
        assert_eq!(first_pieces(&encoded(&pieces), &places), expected);
        // With the blank before it, as byte-level tokens have it, or as a token of its own.
        let pieces = [(0, 0), (0, 4), (4, 7), (7, 8), (8, 16), (16, 18), (0, 0)];
        let expected = [Some(1), Some(2), Some(4), Some(5)];
        assert_eq!(first_pieces(&encoded(&pieces), &places), expected);
    }

    #[test]
    fn words_that_are_cut_off_or_vanish_have_none() {
        let (_, places) = join_words(&["a", "\u{200b}", "b", "c"].map(String::from));
        let pieces = [(0, 0), (0, 1), (6, 7), (0, 0)];
        assert_eq!(first_pieces(&encoded(&pieces), &places), [Some(1), None, Some(2), None]);
        assert_eq!(first_pieces(&encoded(&pieces), &[]), []);
    }
}
