//! Keys that leave a terminal elsewhere without ending what runs in it.

/// Looks for a sequence of keys in what is typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DetachKeys {
    sequence: Vec<u8>,
    /// The beginning of the sequence, held back until it is known to be no more than that.
    held: Vec<u8>,
}

// === impl DetachKeys ===

impl DetachKeys {
    /// Docker's and kubectl's.
    pub(super) const DEFAULT: &str = "ctrl-p,ctrl-q";

    /// Reads `ctrl-p,ctrl-q`: keys with commas between them, each a character or `ctrl-` and one.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let sequence = text.split(',').map(key).collect::<Result<_, _>>()?;
        Ok(Self { sequence, held: Vec::new() })
    }

    /// Passes on what is typed, into `out`. Says whether the sequence was; what came after it is not passed
    /// on.
    pub(super) fn pass(&mut self, typed: &[u8], out: &mut Vec<u8>) -> bool {
        for byte in typed {
            self.held.push(*byte);
            while !self.sequence.starts_with(&self.held) {
                out.push(self.held.remove(0));
            }
            if self.held == self.sequence {
                return true;
            }
        }
        false
    }

    /// What is held back when nothing more is typed.
    pub(super) fn rest(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.held)
    }
}

impl Default for DetachKeys {
    /// [`DetachKeys::DEFAULT`].
    fn default() -> Self {
        Self { sequence: vec![0x10, 0x11], held: Vec::new() }
    }
}

fn key(text: &str) -> Result<u8, String> {
    match (text.as_bytes(), text.strip_prefix("ctrl-").map(str::as_bytes)) {
        ([key], _) if key.is_ascii() => Ok(*key),
        // A control key's code is that of its letter without the two highest bits.
        (_, Some([key @ (b'a'..=b'z' | b'@' | b'[' | b'\\' | b']' | b'^' | b'_')])) => Ok(*key & 0x1f),
        _ => Err(format!("{text:?} is no key: use a character, or ctrl- and a letter or one of @[\\]^_")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_what_it_reads_as() {
        assert_eq!(DetachKeys::parse(DetachKeys::DEFAULT), Ok(DetachKeys::default()));
    }

    #[test]
    fn keys_are_characters_or_control_keys() {
        assert_eq!(DetachKeys::parse("ctrl-p,ctrl-q").unwrap().sequence, [16, 17]);
        assert_eq!(DetachKeys::parse("a,ctrl-@,ctrl-\\").unwrap().sequence, [b'a', 0, 28]);
        for bad in ["", "ctrl-", "ctrl-P", "ab", "é", "a,,b"] {
            assert!(DetachKeys::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn only_the_whole_sequence_detaches() {
        let mut keys = DetachKeys::parse("a,a,b").unwrap();
        let mut out = Vec::new();
        assert!(!keys.pass(b"xa", &mut out));
        assert_eq!(out, b"x", "it may be the beginning");
        assert!(!keys.pass(b"ca", &mut out));
        // The third a makes the first one none of the sequence.
        assert!(!keys.pass(b"aa", &mut out));
        assert_eq!(out, b"xaca");
        assert!(keys.pass(b"by", &mut out));
        assert_eq!(out, b"xaca");

        let mut keys = DetachKeys::parse("ctrl-p,ctrl-q").unwrap();
        assert!(!keys.pass(b"\x10", &mut out));
        assert_eq!(keys.rest(), b"\x10");
    }
}
