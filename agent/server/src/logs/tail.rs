//! Where the last lines of a log begin, found from its end.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

use super::files::Source;
use super::line::{Head, MAX_HEAD, Stream};

const BLOCK: usize = 64 << 10;

/// Counts lines from the end of a log towards its beginning, over one file after another.
#[derive(Debug)]
pub(crate) struct Tail {
    wanted: u64,
    found: u64,
    stream: Option<Stream>,
}

// === impl Tail ===

impl Tail {
    /// Looks for the last `wanted` lines, of one stream or of both.
    pub(crate) fn new(wanted: u64, stream: Option<Stream>) -> Self {
        Self { wanted, found: 0, stream }
    }

    /// Where in this file, which is older than those seen before, the wanted lines begin; `None` when
    /// they begin in a still older one.
    pub(crate) fn find(
        &mut self,
        source: &mut Source,
        reopened: impl FnOnce() -> io::Result<Option<Source>>,
    ) -> io::Result<Option<u64>> {
        match source {
            Source::Plain(file) => self.find_backwards(file),
            Source::Gzip(_) => {
                let mut counted = (0, false);
                records(source, |_, head| {
                    if self.counts(head) {
                        counted = (counted.0 + u64::from(!head.partial), head.partial);
                    }
                    true
                })?;
                let (whole, open) = counted;
                if self.found == 0 && open {
                    self.found = 1;
                }
                let Some(before) = (self.found + whole).checked_sub(self.wanted).filter(|more| *more > 0)
                else {
                    self.found += whole;
                    return Ok(None);
                };
                // The wanted lines begin where the line `before` (counted from 1) ends.
                let Some(mut again) = reopened()? else { return Ok(None) };
                let (mut seen, mut begin) = (0, None);
                records(&mut again, |offset, head| {
                    if seen == before {
                        begin = begin.or(Some(offset));
                        return false;
                    }
                    if self.counts(head) && !head.partial {
                        seen += 1;
                    }
                    true
                })?;
                self.found = self.wanted;
                Ok(Some(begin.unwrap_or(u64::MAX)))
            }
        }
    }

    fn counts(&self, head: &Head<'_>) -> bool {
        self.stream.is_none_or(|stream| stream == head.stream)
    }

    /// A record, going backwards. Whether the wanted lines begin right behind it.
    fn passes(&mut self, head: &Head<'_>) -> bool {
        if !self.counts(head) {
            return false;
        }
        if head.partial {
            // Parts of a line whose end is not written yet are a line, too.
            self.found = self.found.max(1);
            return false;
        }
        if self.found == self.wanted {
            return true;
        }
        self.found += 1;
        false
    }

    fn find_backwards(&mut self, file: &File) -> io::Result<Option<u64>> {
        let size = file.metadata()?.len();
        // A block, and what of the record behind it may still belong to a head that begins in the block.
        let mut buffer = vec![0; BLOCK + MAX_HEAD];
        let mut after = 0;
        let mut position = size;
        // Where the record behind the one looked at begins.
        let mut next = size;
        while position > 0 {
            let length = usize::try_from(position.min(BLOCK as u64)).unwrap_or(BLOCK);
            buffer.copy_within(..after, length);
            position -= length as u64;
            file.read_exact_at(&mut buffer[..length], position)?;
            let known = &buffer[..length + after];
            for end in (0..length).rev().filter(|place| known[*place] == b'\n') {
                let begin = position + end as u64 + 1;
                if begin < size && self.record(&known[end + 1..], begin, &mut next) {
                    return Ok(Some(next));
                }
            }
            if position == 0 && self.record(known, 0, &mut next) {
                return Ok(Some(next));
            }
            after = known.len().min(MAX_HEAD);
        }
        Ok(None)
    }

    fn record(&mut self, bytes: &[u8], begin: u64, next: &mut u64) -> bool {
        if parse(bytes).is_some_and(|head| self.passes(&head)) {
            return true;
        }
        *next = begin;
        false
    }
}

/// The head of the record `bytes` begin with.
fn parse(bytes: &[u8]) -> Option<Head<'_>> {
    let line = bytes.split(|byte| *byte == b'\n').next()?;
    Head::parse(&line[..line.len().min(MAX_HEAD)]).map(|(head, _)| head)
}

/// Calls `see` with the offset and head of each record until it says false.
fn records(source: &mut Source, mut see: impl FnMut(u64, &Head<'_>) -> bool) -> io::Result<()> {
    let mut buffer = vec![0; BLOCK];
    let mut head = Vec::with_capacity(MAX_HEAD);
    let (mut begin, mut offset) = (0, 0u64);
    loop {
        let length = source.read(&mut buffer)?;
        if length == 0 {
            return Ok(());
        }
        for line in buffer[..length].split_inclusive(|byte| *byte == b'\n') {
            head.extend_from_slice(&line[..line.len().min(MAX_HEAD - head.len())]);
            offset += line.len() as u64;
            if line.ends_with(b"\n") {
                if parse(&head).is_some_and(|head| !see(begin, &head)) {
                    return Ok(());
                }
                head.clear();
                begin = offset;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::read::MultiGzDecoder;
    use flate2::write::GzEncoder;

    use super::*;

    const TIME: &str = "2016-10-06T00:17:09.669794202Z";

    fn both(log: &str, wanted: u64, stream: Option<Stream>) -> (Option<u64>, u64) {
        let mut plain = tempfile::tempfile().unwrap();
        plain.write_all(log.as_bytes()).unwrap();
        let mut tail = Tail::new(wanted, stream);
        let found = tail.find(&mut Source::Plain(plain), || unreachable!()).unwrap();
        let plain = (found, tail.found);

        let compressed = || {
            let mut encoder = GzEncoder::new(tempfile::tempfile().unwrap(), flate2::Compression::fast());
            encoder.write_all(log.as_bytes()).unwrap();
            let mut file = encoder.finish().unwrap();
            io::Seek::rewind(&mut file).unwrap();
            Source::Gzip(Box::new(MultiGzDecoder::new(file)))
        };
        let mut tail = Tail::new(wanted, stream);
        let found = tail.find(&mut compressed(), || Ok(Some(compressed()))).unwrap();
        let found = found.map(|offset| offset.min(log.len() as u64));
        assert_eq!(
            (found, tail.found),
            plain,
            "compressed and plain differ for the last {wanted} of {log:?}"
        );
        plain
    }

    fn last(log: &str, wanted: u64) -> &str {
        &log[both(log, wanted, None).0.map_or(0, |offset| usize::try_from(offset).unwrap())..]
    }

    #[test]
    fn the_last_lines_are_found_from_the_end() {
        let lines: Vec<String> = (0..10).map(|n| format!("{TIME} stdout F line {n}\n")).collect();
        let log = lines.concat();
        for wanted in 1..=10 {
            assert_eq!(last(&log, wanted as u64), lines[10 - wanted..].concat());
        }
        assert_eq!(both(&log, 10, None), (None, 10));
        assert_eq!(both(&log, 11, None), (None, 10));
        assert_eq!(both("", 3, None), (None, 0));
        assert_eq!(last(&format!("garbage\n{log}"), 1), lines[9]);
    }

    #[test]
    fn parts_are_one_line() {
        let begin = format!("{TIME} stdout F before\n");
        let parts = format!("{TIME} stdout P a\n{TIME} stdout P b\n{TIME} stdout F c\n");
        let open = format!("{TIME} stdout P d\n{TIME} stdout P e\n");
        let log = format!("{begin}{parts}{open}");
        assert_eq!(last(&log, 1), open);
        assert_eq!(last(&log, 2), format!("{parts}{open}"));
        assert_eq!(last(&format!("{begin}{parts}"), 1), parts);
    }

    #[test]
    fn only_the_wanted_stream_counts() {
        let log = format!("{TIME} stdout F 1\n{TIME} stdout F 2\n{TIME} stderr F 3\n{TIME} stderr F 4\n");
        let (offset, found) = both(&log, 1, Some(Stream::Stdout));
        assert_eq!(&log[usize::try_from(offset.unwrap()).unwrap()..].split(' ').nth(3).unwrap()[..1], "2");
        assert_eq!(found, 1);
    }

    #[test]
    fn heads_may_lie_across_blocks() {
        // Lines of many lengths put heads at every place of a block's border.
        let lines: Vec<String> =
            (0..3000).map(|n| format!("{TIME} stdout F {n} {}\n", "x".repeat(n % 90))).collect();
        let log = lines.concat();
        assert!(log.len() > 3 * BLOCK);
        for wanted in [1, 700, 1000, 1500, 2999] {
            assert_eq!(last(&log, wanted as u64), lines[3000 - wanted..].concat(), "last {wanted}");
        }
        let long = format!("{TIME} stdout F {}\n", "y".repeat(5 * BLOCK));
        assert_eq!(last(&format!("{log}{long}"), 1), long);
    }
}
