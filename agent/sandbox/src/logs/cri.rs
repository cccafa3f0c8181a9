//! The CRI log format: `<RFC 3339 time with nanoseconds> <stdout|stderr> <P|F> <text>\n`.
//!
//! `F` ends a line; `P` is a part of one, because the line is longer than [`MAX_PIECE`] or because
//! the stream ended without a newline.

use jiff::Timestamp;

/// The longest piece of a line in one record, in bytes: containerd's and CRI-O's default.
pub(super) const MAX_PIECE: usize = 16 * 1024;

/// Which of a container's streams a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

/// How many of the bytes that lie ready form records that may be written now.
///
/// Whole lines always do; the start of a line does once it is [`MAX_PIECE`] long, and at the end of
/// the stream (`ended`) everything does.
pub(super) fn complete(ready: &[u8], ended: bool) -> usize {
    if ended {
        return ready.len();
    }
    let lines = ready.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let rest = ready.len() - lines;
    lines + rest / MAX_PIECE * MAX_PIECE
}

/// Appends the records of `bytes` to `out`. A last piece without newline becomes a `P` record.
pub(super) fn format(bytes: &[u8], stream: Stream, time: Timestamp, out: &mut Vec<u8>) {
    let stamp = format!("{time:.9}");
    let mut record = |tag: &[u8], text: &[u8]| {
        out.extend_from_slice(stamp.as_bytes());
        out.extend_from_slice(match stream {
            Stream::Stdout => b" stdout ",
            Stream::Stderr => b" stderr ",
        });
        out.extend_from_slice(tag);
        out.extend_from_slice(text);
        out.push(b'\n');
    };
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        let (text, ends) = match line.strip_suffix(b"\n") {
            Some(text) => (text, true),
            None => (line, false),
        };
        let mut pieces = text.chunks(MAX_PIECE).peekable();
        if pieces.peek().is_none() && ends {
            record(b"F ", b"");
        }
        while let Some(piece) = pieces.next() {
            let last = pieces.peek().is_none();
            record(if last && ends { b"F " } else { b"P " }, piece);
        }
    }
}

// === impl Stream ===

impl Stream {
    /// The stream's number in a cursor and in the order of held descriptors.
    pub(super) fn index(self) -> u8 {
        match self {
            Self::Stdout => 0,
            Self::Stderr => 1,
        }
    }

    /// The stream with that number.
    pub(super) fn from_index(index: u8) -> Option<Self> {
        match index {
            0 => Some(Self::Stdout),
            1 => Some(Self::Stderr),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn formatted(bytes: &[u8]) -> String {
        let mut out = Vec::new();
        format(bytes, Stream::Stderr, Timestamp::UNIX_EPOCH, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn lines_pieces_and_what_is_left() {
        assert_eq!(
            formatted(b"one\n\ntwo"),
            "1970-01-01T00:00:00.000000000Z stderr F one\n\
             1970-01-01T00:00:00.000000000Z stderr F \n\
             1970-01-01T00:00:00.000000000Z stderr P two\n"
        );
        let long = [vec![b'x'; MAX_PIECE + 1], vec![b'\n']].concat();
        let records = formatted(&long);
        let tags: Vec<_> = records.lines().map(|line| &line[38..39]).collect();
        assert_eq!(tags, ["P", "F"]);
        // A line of exactly the limit is one whole record.
        assert_eq!(formatted(&[vec![b'x'; MAX_PIECE], vec![b'\n']].concat()).lines().count(), 1);
    }

    #[test]
    fn only_whole_records_are_taken() {
        assert_eq!(complete(b"", false), 0);
        assert_eq!(complete(b"abc", false), 0);
        assert_eq!(complete(b"abc", true), 3);
        assert_eq!(complete(b"a\nbc", false), 2);
        assert_eq!(complete(&vec![b'x'; MAX_PIECE + 5], false), MAX_PIECE);
        assert_eq!(
            complete(&[b"a\n".to_vec(), vec![b'x'; 2 * MAX_PIECE + 1]].concat(), false),
            2 + 2 * MAX_PIECE
        );
    }
}
