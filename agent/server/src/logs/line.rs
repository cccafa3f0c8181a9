//! The CRI log format: `<RFC 3339 time with nanoseconds> <stdout|stderr> <P|F> <text>\n`.
//!
//! `P` marks a part of a line that goes on in the next record of the same stream, `F` the line's end
//! (kubernetes/cri-api, "container log format"). The decoder is a function of the bytes alone; a line of
//! any length, or a file of garbage, costs it no more memory than a record's head.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// What of a log is wanted, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Filter {
    /// Only this stream.
    pub(crate) stream: Option<Stream>,
    /// Only lines written at or after this time.
    pub(crate) since: Option<Timestamp>,
    /// Each line begins with its time.
    pub(crate) timestamps: bool,
}

/// An output of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

/// The head of a record: all before its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head<'a> {
    pub(crate) time: &'a str,
    pub(crate) timestamp: Timestamp,
    pub(crate) stream: Stream,
    /// The line goes on in the stream's next record.
    pub(crate) partial: bool,
}

/// The longest head: 35 bytes of time, `stderr`, the tag (to which CRI may add `:` parts), three spaces.
pub(crate) const MAX_HEAD: usize = 96;

/// Turns records into what users see.
#[derive(Debug)]
pub(crate) struct Decoder {
    filter: Filter,
    /// The head of the current record as far as it was read.
    head: Vec<u8>,
    state: State,
    /// By stream: whether its next record continues a line, and whether that line is shown.
    open: [Option<bool>; 2],
    /// Records up to this time were already given out; see [`Decoder::skip_up_to_last`].
    floor: Option<Timestamp>,
    last: Option<Timestamp>,
}

/// What a decoder has to know to go on in the middle of a log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Resume {
    state: State,
    open: [Option<bool>; 2],
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
enum State {
    #[default]
    Head,
    Text {
        shown: bool,
        partial: bool,
    },
    /// Up to the next newline: text that is not wanted, or no record at all.
    Skip,
}

// === impl Head ===

impl<'a> Head<'a> {
    /// The head that `bytes` begin with, and its length.
    pub(crate) fn parse(bytes: &'a [u8]) -> Option<(Self, usize)> {
        let mut fields = bytes.splitn(4, |byte| *byte == b' ');
        let (time, stream, tags) = (fields.next()?, fields.next()?, fields.next()?);
        fields.next()?;
        let length = time.len() + stream.len() + tags.len() + 3;
        let time = std::str::from_utf8(time).ok()?;
        let stream = match stream {
            b"stdout" => Stream::Stdout,
            b"stderr" => Stream::Stderr,
            _ => return None,
        };
        // Tags are separated by ':'; the first says whether the line is whole.
        let partial = match tags.split(|byte| *byte == b':').next()? {
            b"P" => true,
            b"F" => false,
            _ => return None,
        };
        Some((Self { time, timestamp: time.parse().ok()?, stream, partial }, length))
    }
}

// === impl Decoder ===

impl Decoder {
    pub(crate) fn new(filter: Filter) -> Self {
        Self {
            filter,
            head: Vec::with_capacity(MAX_HEAD),
            state: State::Head,
            open: [None; 2],
            floor: None,
            last: None,
        }
    }

    /// Goes on where another decoder was.
    pub(crate) fn resume(&mut self, Resume { state, open }: Resume) {
        self.head.clear();
        (self.state, self.open) = (state, open);
    }

    /// Where it is, and how many bytes of a record's head it has read: those are to be read again from there.
    pub(crate) fn place(&self) -> (Resume, usize) {
        (Resume { state: self.state, open: self.open }, self.head.len())
    }

    /// Reads `bytes` on from where the last call ended, and appends what users see to `out`.
    pub(crate) fn decode(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) {
        while !bytes.is_empty() {
            bytes = match self.state {
                State::Head => self.head(bytes, out),
                State::Text { shown, partial } => {
                    let (text, rest, whole) = split_line(bytes);
                    if shown {
                        out.extend_from_slice(text);
                    }
                    if whole {
                        if shown && !partial {
                            out.push(b'\n');
                        }
                        self.state = State::Head;
                    }
                    rest
                }
                State::Skip => {
                    let (_, rest, whole) = split_line(bytes);
                    if whole {
                        self.state = State::Head;
                    }
                    rest
                }
            };
        }
    }

    /// The file ended and another follows: a record that was cut short does not run into it.
    pub(crate) fn end_of_file(&mut self) {
        self.head.clear();
        self.state = State::Head;
    }

    /// From here on, what is not newer than the last record is not shown: for a reader that lost its
    /// place among files and reads some again.
    pub(crate) fn skip_up_to_last(&mut self) {
        self.floor = self.last;
    }

    /// Collects a record's head, and decides about its text.
    fn head<'b>(&mut self, bytes: &'b [u8], out: &mut Vec<u8>) -> &'b [u8] {
        let missing = 3 - self.head.iter().filter(|byte| **byte == b' ').count();
        let mut spaces = 0;
        let end = bytes.iter().position(|byte| {
            spaces += usize::from(*byte == b' ');
            *byte == b'\n' || spaces == missing
        });
        let taken = end.map_or(bytes.len(), |end| end + 1);
        if self.head.len() + taken > MAX_HEAD {
            self.head.clear();
            self.state = State::Skip;
            return bytes;
        }
        self.head.extend_from_slice(&bytes[..taken]);
        if end.is_some() {
            let head = std::mem::take(&mut self.head);
            // A line that ended before its third space is no record, and is over.
            self.state = match Head::parse(&head) {
                Some((parsed, _)) if head.last() == Some(&b' ') => self.begin(&parsed, out),
                _ if head.last() == Some(&b'\n') => State::Head,
                _ => State::Skip,
            };
            self.head = head;
            self.head.clear();
        }
        &bytes[taken..]
    }

    fn begin(&mut self, head: &Head<'_>, out: &mut Vec<u8>) -> State {
        let place = head.stream as usize;
        let shown = match self.open[place] {
            Some(shown) => shown,
            None => {
                let shown = self.filter.stream.is_none_or(|stream| stream == head.stream)
                    && self.filter.since.is_none_or(|since| head.timestamp >= since)
                    && self.floor.is_none_or(|floor| head.timestamp > floor);
                if shown && self.filter.timestamps {
                    out.extend_from_slice(head.time.as_bytes());
                    out.push(b' ');
                }
                shown
            }
        };
        self.open[place] = head.partial.then_some(shown);
        self.last = Some(self.last.map_or(head.timestamp, |last| last.max(head.timestamp)));
        if shown { State::Text { shown, partial: head.partial } } else { State::Skip }
    }
}

/// The text up to a newline, what follows it, and whether there was one.
fn split_line(bytes: &[u8]) -> (&[u8], &[u8], bool) {
    match bytes.iter().position(|byte| *byte == b'\n') {
        Some(end) => (&bytes[..end], &bytes[end + 1..], true),
        None => (bytes, &[], false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T1: &str = "2016-10-06T00:17:09.669794202Z";
    const T2: &str = "2016-10-06T00:17:10.5+02:00";
    const T3: &str = "2016-10-06T00:17:11Z";

    /// Decodes in pieces of every size: the result must not depend on where reads end.
    fn decode(filter: &Filter, log: &[u8]) -> String {
        let whole = in_pieces(filter, log, log.len().max(1));
        for size in 1..log.len().min(50) {
            assert_eq!(in_pieces(filter, log, size), whole, "in pieces of {size}");
        }
        String::from_utf8(whole).unwrap()
    }

    fn in_pieces(filter: &Filter, log: &[u8], size: usize) -> Vec<u8> {
        let mut decoder = Decoder::new(filter.clone());
        let mut out = Vec::new();
        for piece in log.chunks(size) {
            decoder.decode(piece, &mut out);
            assert!(decoder.head.len() <= MAX_HEAD);
        }
        out
    }

    #[test]
    fn records_become_lines() {
        let all = Filter::default();
        let cases = [
            (format!("{T1} stdout F hello\n"), "hello\n"),
            (format!("{T1} stdout F \n"), "\n"),
            (format!("{T1} stdout F  two  spaces \n"), " two  spaces \n"),
            (format!("{T1} stdout P ab\n{T1} stdout P cd\n{T1} stdout F \n"), "abcd\n"),
            (format!("{T1} stdout P no end"), "no end"),
            (format!("{T1} stdout F:x tags\n{T1} stdout P:F tags\n"), "tags\ntags"),
            (String::new(), ""),
        ];
        for (log, expected) in cases {
            assert_eq!(decode(&all, log.as_bytes()), expected, "{log:?}");
        }
    }

    #[test]
    fn garbage_is_skipped_to_the_next_line() {
        let all = Filter::default();
        for garbage in [
            "no record\n".to_owned(),
            "\n\n".to_owned(),
            format!("{T1} stdnull F x\n"),
            format!("{T1} stdout Q x\n"),
            format!("{T1} stdout\n"),
            format!("{T1} stdout F\n"),
            "yesterday stdout F x\n".to_owned(),
            format!("{}\n", "x".repeat(300)),
            format!("{} stdout F x\n", "0".repeat(300)),
            " ".repeat(1000) + "\n",
        ] {
            let log = format!("{T1} stdout F before\n{garbage}{T1} stdout F after\n");
            assert_eq!(decode(&all, log.as_bytes()), "before\nafter\n", "{garbage:?}");
        }
        let mut binary = vec![0xff; 100];
        binary.push(b'\n');
        binary.extend_from_slice(format!("{T1} stdout F after\n").as_bytes());
        assert_eq!(decode(&all, &binary), "after\n");
    }

    #[test]
    fn streams_and_times_are_chosen_by_line() {
        let log = format!(
            "{T1} stdout P one \n{T1} stderr F err\n{T3} stdout F two\n{T3} stderr P e\n{T3} stderr F rr\n"
        );
        let stdout = Filter { stream: Some(Stream::Stdout), ..Filter::default() };
        assert_eq!(decode(&stdout, log.as_bytes()), "one two\n");
        // The line began before: its later part is not shown alone.
        let since = Filter { since: Some(T3.parse().unwrap()), ..Filter::default() };
        assert_eq!(decode(&since, log.as_bytes()), "err\n");
        // The line began before the time asked for, though an offset makes it look later.
        let log = format!("{T2} stdout F earlier\n{T3} stdout F later\n");
        assert_eq!(decode(&since, log.as_bytes()), "later\n");
        let times = Filter { timestamps: true, ..Filter::default() };
        let log = format!("{T1} stdout P a\n{T3} stdout F b\n{T2} stderr F c\n");
        assert_eq!(decode(&times, log.as_bytes()), format!("{T1} ab\n{T2} c\n"));
    }

    #[test]
    fn a_line_of_any_length_passes_through() {
        let long = "x".repeat(1 << 20);
        let log = format!("{T1} stdout F {long}\n");
        let mut decoder = Decoder::new(Filter::default());
        let (mut length, mut largest) = (0, 0);
        for piece in log.as_bytes().chunks(1000) {
            let mut out = Vec::new();
            decoder.decode(piece, &mut out);
            length += out.len();
            largest = largest.max(out.len());
        }
        assert_eq!(length, long.len() + 1);
        assert!(largest <= 1000);
    }

    #[test]
    fn what_was_shown_is_not_shown_again() {
        let mut decoder = Decoder::new(Filter::default());
        let mut out = Vec::new();
        decoder.decode(format!("{T1} stdout F one\n{T2} stdout F ").as_bytes(), &mut out);
        decoder.end_of_file();
        decoder.skip_up_to_last();
        decoder.decode(format!("{T1} stdout F one\n{T3} stdout F two\n").as_bytes(), &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), "one\ntwo\n");
    }
}
