//! The end of a log, as the text its container wrote.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags, openat};
use rustix::io::Errno;

use super::beneath::open_beneath;
use super::cri::MAX_PIECE;
use super::file::rotated;

/// What is read of a file's end. It holds a whole record, and records of more text than is asked for
/// whatever their lengths are.
const WINDOW: u64 = 2 * MAX_PIECE as u64;

/// The last bytes, at most `most` (some kilobytes), of the last lines, at most so many, without times and
/// streams. From the file rotated last where the current one is empty. `log` lies beneath `log_dir`.
///
/// # Errors
/// When the log cannot be read, or something else was put in its place.
pub(crate) fn last_lines(log_dir: &Path, log: &Path, lines: usize, most: usize) -> io::Result<Vec<u8>> {
    let (Some(parent), Some(name)) = (log.parent(), log.file_name()) else { return Ok(Vec::new()) };
    let Some(directory) = open_beneath(log_dir, parent)? else { return Ok(Vec::new()) };
    let mut records = read_end(&directory, name)?;
    if records.is_empty() {
        let last = rotated(&directory, name)?.into_iter().max();
        records = last.map_or(Ok(Vec::new()), |last| read_end(&directory, &last))?;
    }
    let mut text = text_of(&records, lines);
    text.drain(..text.len().saturating_sub(most));
    Ok(text)
}

/// The last whole records of a file.
fn read_end(directory: &OwnedFd, name: &OsStr) -> io::Result<Vec<u8>> {
    // A pod with the log directory mounted may have put anything in its place.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = match openat(directory, name, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT) => return Ok(Vec::new()),
        Err(errno) => return Err(errno.into()),
    };
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other(format!("{} is not a regular file", name.display())));
    }
    let mut records = end_of(&file, metadata.len(), WINDOW)?;
    if metadata.len() > WINDOW {
        let whole = records.iter().position(|byte| *byte == b'\n').map_or(records.len(), |end| end + 1);
        records.drain(..whole);
    }
    Ok(records)
}

/// The last bytes of a file of that length, at most `most`.
pub(crate) fn end_of(file: &File, length: u64, most: u64) -> io::Result<Vec<u8>> {
    let size = length.min(most);
    let mut bytes = vec![0; usize::try_from(size).unwrap_or(0)];
    let mut filled = 0;
    while filled < bytes.len() {
        match file.read_at(&mut bytes[filled..], length - size + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

/// The text of the last `lines` lines of these records.
fn text_of(records: &[u8], lines: usize) -> Vec<u8> {
    let mut pieces = Vec::new();
    let mut found = 0;
    for record in records.split(|byte| *byte == b'\n').rev().filter(|record| !record.is_empty()) {
        // Time, stream and tag, then the text, spaces and all.
        let mut parts = record.splitn(4, |byte| *byte == b' ');
        let (Some(tag), text) = (parts.nth(2), parts.next().unwrap_or_default()) else { continue };
        if tag == b"F" {
            if found == lines {
                break;
            }
            found += 1;
            pieces.push(&b"\n"[..]);
        }
        pieces.push(text);
    }
    pieces.into_iter().rev().flatten().copied().collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use jiff::Timestamp;

    use super::super::cri::{Stream, format};
    use super::*;

    fn logged(text: &str) -> Vec<u8> {
        let mut records = Vec::new();
        format(text.as_bytes(), Stream::Stderr, Timestamp::UNIX_EPOCH, &mut records);
        records
    }

    fn last(current: &[u8], aside: Option<&[u8]>, lines: usize, most: usize) -> String {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("c")).unwrap();
        let log = dir.path().join("c/0.log");
        fs::write(&log, current).unwrap();
        if let Some(aside) = aside {
            fs::write(dir.path().join("c/0.log.20260101-000000"), aside).unwrap();
        }
        String::from_utf8(last_lines(dir.path(), &log, lines, most).unwrap()).unwrap()
    }

    #[test]
    fn lines_and_bytes_are_limited() {
        assert_eq!(last(b"", None, 80, 100), "");
        assert_eq!(last(&logged("a b\n\nc\n"), None, 80, 100), "a b\n\nc\n");
        assert_eq!(last(&logged("a\nb\nc\n"), None, 2, 100), "b\nc\n");
        assert_eq!(last(&logged("abc\ndef\n"), None, 80, 5), "\ndef\n");
        assert_eq!(last(&logged("no end"), None, 80, 100), "no end");
        assert_eq!(last(b"", Some(&logged("before\n")), 80, 100), "before\n");
    }

    #[test]
    fn long_lines_and_long_logs_end_in_what_was_written_last() {
        let long = format!("{}end\n", "x".repeat(5 * MAX_PIECE));
        assert_eq!(last(&logged(&long), None, 80, 2048), format!("{}end\n", "x".repeat(2044)));
        let many: String = (0..10_000).map(|n| format!("line {n}\n")).collect();
        let expected: String = (9_920..10_000).map(|n| format!("line {n}\n")).collect();
        assert_eq!(last(&logged(&many), None, 80, 2048), expected);
    }

    #[test]
    fn nothing_else_is_read_in_the_place_of_a_log() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("c")).unwrap();
        let log = dir.path().join("c/0.log");
        std::os::unix::fs::symlink("/etc/passwd", &log).unwrap();
        assert!(last_lines(dir.path(), &log, 80, 100).is_err());
        fs::remove_file(&log).unwrap();
        fs::create_dir(&log).unwrap();
        assert!(last_lines(dir.path(), &log, 80, 100).is_err());
    }
}
