//! A SentencePiece model file (`sentencepiece_model.proto`): as much of it as encoding needs.

use super::SPACE;
use super::charsmap::Charsmap;

type Result<T> = std::result::Result<T, String>;

/// Pieces that stand for text, with their scores, and how texts are normalised.
pub(super) struct Spm {
    pub(super) pieces: Vec<(String, f32)>,
    pub(super) normalizer: Normalizer,
}

/// What is done to a text before it is cut into pieces.
#[derive(Debug, Clone)]
pub(super) struct Normalizer {
    charsmap: Charsmap,
    add_dummy_prefix: bool,
    remove_extra_whitespaces: bool,
}

// The types of pieces, and of models, that are understood.
const NORMAL: u64 = 1;
const UNKNOWN: u64 = 2;
const CONTROL: u64 = 3;
const USER_DEFINED: u64 = 4;
const UNUSED: u64 = 5;
const UNIGRAM: u64 = 1;

impl Spm {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self> {
        let mut pieces = Vec::new();
        let mut normalizer = Normalizer {
            charsmap: Charsmap::default(),
            add_dummy_prefix: true,
            remove_extra_whitespaces: true,
        };
        let mut fields = Fields(bytes);
        while let Some((number, value)) = fields.next()? {
            match (number, value) {
                (1, Value::Bytes(piece)) => pieces.extend(parse_piece(piece)?),
                (2, Value::Bytes(trainer)) => check_trainer(trainer)?,
                (3, Value::Bytes(spec)) => normalizer.parse(spec)?,
                _ => {}
            }
        }
        match pieces.is_empty() {
            true => Err("expected a SentencePiece model, found no pieces".into()),
            false => Ok(Self { pieces, normalizer }),
        }
    }
}

/// A piece, unless it stands for no text.
fn parse_piece(bytes: &[u8]) -> Result<Option<(String, f32)>> {
    let (mut text, mut score, mut kind) = (String::new(), 0f32, NORMAL);
    let mut fields = Fields(bytes);
    while let Some((number, value)) = fields.next()? {
        match (number, value) {
            (1, Value::Bytes(bytes)) => {
                text = String::from_utf8(bytes.to_vec()).map_err(|e| format!("piece: {e}"))?;
            }
            (2, Value::Fixed(bits)) => score = f32::from_bits(bits),
            (3, Value::Number(n)) => kind = n,
            _ => {}
        }
    }
    if !score.is_finite() {
        return Err(format!("the score of a piece is {score}"));
    }
    match kind {
        NORMAL | USER_DEFINED if !text.is_empty() => Ok(Some((text, score))),
        NORMAL | USER_DEFINED | UNKNOWN | CONTROL | UNUSED => Ok(None),
        _ => Err(format!("pieces of type {kind} are not read: expected a model without bytes")),
    }
}

fn check_trainer(bytes: &[u8]) -> Result<()> {
    let mut fields = Fields(bytes);
    while let Some((number, value)) = fields.next()? {
        if let (3, Value::Number(kind)) = (number, value)
            && kind != UNIGRAM
        {
            return Err(format!("expected a unigram model (type {UNIGRAM}), got type {kind}"));
        }
    }
    Ok(())
}

impl Normalizer {
    fn parse(&mut self, bytes: &[u8]) -> Result<()> {
        let mut fields = Fields(bytes);
        while let Some((number, value)) = fields.next()? {
            match (number, value) {
                (2, Value::Bytes(map)) if !map.is_empty() => self.charsmap = Charsmap::parse(map)?,
                (3, Value::Number(flag)) => self.add_dummy_prefix = flag != 0,
                (4, Value::Number(flag)) => self.remove_extra_whitespaces = flag != 0,
                (5, Value::Number(0)) => return Err("spaces are not escaped: not read".into()),
                _ => {}
            }
        }
        Ok(())
    }

    /// The text with `▁` for spaces, and for each of its bytes the byte of `text` that it comes from.
    pub(super) fn apply(&self, text: &str) -> (String, Vec<usize>) {
        let (mut out, mut origins) = (String::new(), Vec::new());
        let mut push = |out: &mut String, c: char, at: usize| {
            out.push(c);
            origins.extend(std::iter::repeat_n(at, c.len_utf8()));
        };
        let trims = self.remove_extra_whitespaces;
        let (mut at, mut after_space, mut begun) = (0, trims, false);
        while at < text.len() {
            let (replaced, taken) = self.charsmap.longest(&text[at..]);
            for c in replaced.chars() {
                if c == ' ' && after_space {
                    continue;
                }
                if !std::mem::replace(&mut begun, true) && self.add_dummy_prefix {
                    push(&mut out, SPACE, at);
                }
                push(&mut out, if c == ' ' { SPACE } else { c }, at);
                after_space = c == ' ' && trims;
            }
            at += taken;
        }
        if trims {
            let length = out.trim_end_matches(SPACE).len();
            out.truncate(length);
            // The end of the last piece that is left.
            origins.truncate(length + 1);
        }
        (out, origins)
    }
}

/// The fields of a message of protocol buffers, one after the other.
struct Fields<'a>(&'a [u8]);

enum Value<'a> {
    Number(u64),
    Fixed(u32),
    Bytes(&'a [u8]),
    Other,
}

impl<'a> Fields<'a> {
    fn next(&mut self) -> Result<Option<(u64, Value<'a>)>> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let value = match tag & 7 {
            0 => Value::Number(self.varint()?),
            1 => self.take(8).map(|_| Value::Other)?,
            2 => {
                let length = self.varint()?;
                Value::Bytes(self.take(usize::try_from(length).unwrap_or(usize::MAX))?)
            }
            5 => match self.take(4)?.first_chunk::<4>() {
                Some(bytes) => Value::Fixed(u32::from_le_bytes(*bytes)),
                None => Value::Other,
            },
            kind => return Err(format!("malformed: field of type {kind}")),
        };
        Ok(Some((tag >> 3, value)))
    }

    fn take(&mut self, n: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(n).ok_or("malformed or cut off")?;
        self.0 = rest;
        Ok(taken)
    }

    fn varint(&mut self) -> Result<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?.first().copied().unwrap_or(0);
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err("malformed: a number of more than 64 bits".into())
    }
}
