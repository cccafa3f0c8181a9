//! Lines of several streams on one output, each with a word in front that says where it is from.

use std::io::{self, Write};

use super::style::Style;

/// A line longer than this is cut: what is held of every stream is bounded.
const MAX_LINE: usize = 64 << 10;

/// Puts a prefix before every line of a stream. Only whole lines are written, so that the lines of
/// several streams never mix.
#[derive(Debug)]
pub(crate) struct Prefixer {
    prefix: String,
    /// The last line, which is not whole yet.
    rest: Vec<u8>,
}

// === impl Prefixer ===

impl Prefixer {
    /// With `prefix` and a space before each line.
    pub(crate) fn new(prefix: &str, style: Option<Style>) -> Self {
        let painted = style.map_or_else(|| prefix.to_owned(), |style| style.paint(prefix).to_string());
        Self { prefix: painted + " ", rest: Vec::new() }
    }

    /// Writes the lines that end in `bytes`, and keeps what follows them.
    pub(crate) fn push(&mut self, bytes: &[u8], out: &mut impl Write) -> io::Result<()> {
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.rest.extend_from_slice(line);
            if line.ends_with(b"\n") {
                self.line(out)?;
            } else {
                while self.rest.len() >= MAX_LINE {
                    let more = self.rest.split_off(MAX_LINE);
                    self.rest.push(b'\n');
                    self.line(out)?;
                    self.rest = more;
                }
            }
        }
        Ok(())
    }

    /// Writes what was kept of a stream that ended within a line.
    pub(crate) fn finish(&mut self, out: &mut impl Write) -> io::Result<()> {
        if self.rest.is_empty() {
            return Ok(());
        }
        self.rest.push(b'\n');
        self.line(out)
    }

    fn line(&mut self, out: &mut impl Write) -> io::Result<()> {
        // One write, so that another process on the same terminal or pipe does not come between.
        let mut line = Vec::with_capacity(self.prefix.len() + self.rest.len());
        line.extend_from_slice(self.prefix.as_bytes());
        line.append(&mut self.rest);
        out.write_all(&line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_lines_are_written() {
        let mut prefixer = Prefixer::new("web |", None);
        let mut out = Vec::new();
        prefixer.push(b"one\ntw", &mut out).unwrap();
        assert_eq!(out, b"web | one\n");
        prefixer.push(b"o\n\nthree", &mut out).unwrap();
        assert_eq!(out, b"web | one\nweb | two\nweb | \n");
        prefixer.finish(&mut out).unwrap();
        prefixer.finish(&mut out).unwrap();
        assert_eq!(out, b"web | one\nweb | two\nweb | \nweb | three\n");
    }

    #[test]
    fn an_endless_line_is_cut() {
        let mut prefixer = Prefixer::new("x", None);
        let mut out = Vec::new();
        for _ in 0..10 {
            prefixer.push(&vec![b'y'; MAX_LINE / 3], &mut out).unwrap();
            assert!(prefixer.rest.len() < MAX_LINE);
        }
        prefixer.finish(&mut out).unwrap();
        assert_eq!(out.iter().filter(|byte| **byte == b'y').count(), MAX_LINE / 3 * 10);
        assert_eq!(out.split(|byte| *byte == b'\n').count(), 5);
    }

    #[test]
    fn a_prefix_may_have_a_colour() {
        let mut out = Vec::new();
        Prefixer::new("a", Some(Style::Nth(0))).push(b"b\n", &mut out).unwrap();
        assert_eq!(out, b"\x1b[36ma\x1b[0m b\n");
    }
}
