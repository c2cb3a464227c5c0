//! Text from ids that come one after the other.

use super::Tokenizer;
use crate::error::Result;

/// Decodes ids as they come and gives text only when it is complete: letters of several bytes may be spread over tokens.
///
/// ```no_run
/// use mnemic_models::Tokenizer;
/// let tokenizer = Tokenizer::from_folder("stories260K")?;
/// let mut stream = tokenizer.decode_stream(true);
/// for id in [403, 407, 261, 378] {
///     print!("{}", stream.step(id)?);
/// }
/// println!("{}", stream.finish()?);
/// # Ok::<(), mnemic_models::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct DecodeStream<'a> {
    tokenizer: &'a Tokenizer,
    skip_special: bool,
    /// The ids of the text that was given last, from `start`, and those that wait, from `given`: what a token looks like depends
    /// on the one before.
    ids: Vec<u32>,
    given: usize,
}

impl<'a> DecodeStream<'a> {
    pub(super) fn new(tokenizer: &'a Tokenizer, skip_special: bool) -> Self {
        Self { tokenizer, skip_special, ids: Vec::new(), given: 0 }
    }

    /// The text that the token completes; empty while a letter is not complete.
    ///
    /// # Errors
    /// As [`Tokenizer::decode`].
    pub fn step(&mut self, id: u32) -> Result<String> {
        self.ids.push(id);
        let (before, now) = self.texts()?;
        if now.len() <= before.len() || now.ends_with(char::REPLACEMENT_CHARACTER) {
            return Ok(String::new());
        }
        self.ids.drain(..self.given);
        self.given = self.ids.len();
        Ok(rest(&before, &now))
    }

    /// What is left at the end of the ids, with U+FFFD for letters that are not complete.
    ///
    /// # Errors
    /// As [`Tokenizer::decode`].
    pub fn finish(self) -> Result<String> {
        let (before, now) = self.texts()?;
        Ok(rest(&before, &now))
    }

    /// The texts without and with the ids that wait.
    fn texts(&self) -> Result<(String, String)> {
        let decode = |ids: &[u32]| self.tokenizer.decode(ids, self.skip_special);
        Ok((decode(&self.ids[..self.given])?, decode(&self.ids)?))
    }
}

/// What `now` has after what it shares with `before`.
fn rest(before: &str, now: &str) -> String {
    let shared = before.chars().zip(now.chars()).take_while(|(a, b)| a == b);
    now[shared.map(|(c, _)| c.len_utf8()).sum()..].to_string()
}
