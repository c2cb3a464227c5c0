//! SentencePiece's table of replacements: a double-array trie (J. Aoe 1989, as Darts-clone lays it out) over the bytes of what is replaced,
//! whose values are places in the list of replacements.

/// Longest matches are replaced; a replacement may be empty.
#[derive(Debug, Clone, Default)]
pub(crate) struct Charsmap {
    units: Vec<u32>,
    /// Each ends with a zero byte.
    replacements: Vec<u8>,
}

impl Charsmap {
    /// The table of `precompiled_charsmap`: the length of the trie in bytes, the trie, the replacements.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let cut = || "the table of replacements is malformed or cut off".to_string();
        let (length, rest) = bytes.split_first_chunk::<4>().ok_or_else(cut)?;
        let length = u32::from_le_bytes(*length) as usize;
        let (trie, replacements) = rest.split_at_checked(length).ok_or_else(cut)?;
        let (units, odd) = trie.as_chunks::<4>();
        if !odd.is_empty() || units.is_empty() {
            return Err(cut());
        }
        if std::str::from_utf8(replacements).is_err() {
            return Err("the replacements are not UTF-8".into());
        }
        let units = units.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect();
        Ok(Self { units, replacements: replacements.to_vec() })
    }

    /// Refuses a table with a node whose children or replacement lie outside: the crate `tokenizers` reads such tables unchecked.
    pub(crate) fn check(&self) -> Result<(), String> {
        let total = self.units.len();
        let replacements = std::str::from_utf8(&self.replacements).unwrap_or("");
        let sound = |(i, &unit): (usize, &u32)| {
            // Units with this bit are values.
            if unit >> 31 == 1 {
                return true;
            }
            let Some(&child) = self.units.get(i ^ offset(unit)) else { return false };
            unit >> 8 & 1 == 0 || replacements.is_char_boundary((child & 0x7fff_ffff) as usize)
        };
        // Bytes move within blocks of 256.
        match total.is_multiple_of(256) && self.units.iter().enumerate().all(sound) {
            true => Ok(()),
            false => Err("the table of replacements is malformed".into()),
        }
    }

    /// What stands for the beginning of `text`, and how many of its bytes: the longest match, or its first letter as it is.
    pub(super) fn longest<'a>(&'a self, text: &'a str) -> (&'a str, usize) {
        let first = text.chars().next().map_or(0, char::len_utf8);
        let found =
            self.matches(text.as_bytes()).filter(|(_, taken)| text.is_char_boundary(*taken));
        found.unwrap_or((&text[..first], first))
    }

    fn matches(&self, key: &[u8]) -> Option<(&str, usize)> {
        let mut node = offset(*self.units.first()?);
        let mut found = None;
        for (i, &byte) in key.iter().enumerate() {
            node ^= byte as usize;
            let Some(&unit) = self.units.get(node) else { break };
            // The label, and the bit that values have.
            if byte == 0 || unit & ((1 << 31) | 0xff) != u32::from(byte) {
                break;
            }
            node ^= offset(unit);
            if unit >> 8 & 1 == 1 {
                let value = self.units.get(node).map(|unit| (unit & 0x7fff_ffff) as usize);
                found = value.map(|value| (value, i + 1)).or(found);
            }
        }
        let (value, taken) = found?;
        let rest = self.replacements.get(value..)?;
        let end = rest.iter().position(|&b| b == 0).unwrap_or(rest.len());
        Some((std::str::from_utf8(&rest[..end]).ok()?, taken))
    }
}

/// The distance from a node to its children.
fn offset(unit: u32) -> usize {
    let unit = unit as usize;
    (unit >> 10) << ((unit & (1 << 9)) >> 6)
}
