//! The events on disk: a file of JSON lines, of which only whole ones count.
//!
//! A line is an event as it was from then on, so the last one of a name is what it is. Lines are only ever
//! appended; whatever is cut off, what stood before it is whole. Once many lines are of the past, the file is
//! written anew beside itself and renamed into place.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use coracle_linux::{NewFile, PowerLoss};

use crate::MAX_EVENTS;
use crate::correlate::Kept;
use crate::error::EventsError;

/// The file in the directory.
const FILE: &str = "events.jsonl";
/// The file is written anew rather than getting longer than this.
const MAX_LINES: usize = 2 * MAX_EVENTS;
/// What is read of it at most, in bytes: no line the agent writes is longer than 16 KiB, and one batch of lines
/// may follow [`MAX_LINES`].
const MAX_BYTES: u64 = 48 << 20;

/// The file, to be appended to.
#[derive(Debug)]
pub(crate) struct Journal {
    directory: PathBuf,
    /// `None` when it is to be written anew before anything is appended: it ends within a line, or it is not known
    /// how it ends.
    file: Option<File>,
    lines: usize,
}

/// What a journal holds.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Held {
    /// In the order in which they were written.
    pub(crate) events: Vec<Kept>,
    /// How many lines there are.
    lines: usize,
    /// Nothing but whole lines that could be read.
    sound: bool,
}

// === impl Journal ===

impl Journal {
    /// The journal in a directory, which need not be there yet, and what it holds.
    pub(crate) fn open(directory: &Path) -> (Self, Result<Vec<Kept>, EventsError>) {
        let mut journal = Self { directory: directory.to_owned(), file: None, lines: 0 };
        let events = journal.load().map_err(|error| journal.error("read", error));
        (journal, events)
    }

    fn load(&mut self) -> io::Result<Vec<Kept>> {
        let mut options = OpenOptions::new();
        let mut file = match options.read(true).append(true).open(self.directory.join(FILE)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            file => file?,
        };
        let mut bytes = Vec::new();
        (&mut file).take(MAX_BYTES).read_to_end(&mut bytes)?;
        let held = Held::parse(&bytes);
        self.lines = held.lines;
        self.file = held.sound.then_some(file);
        Ok(held.events)
    }

    /// Puts these behind the others, or writes `all` anew where that is not possible or not sensible. The kernel
    /// has them then, and the disk after [`Journal::sync`].
    pub(crate) fn write(&mut self, new: &[Kept], all: impl FnOnce() -> Vec<Kept>) -> Result<(), EventsError> {
        match self.file.take() {
            Some(mut file) if self.lines + new.len() <= MAX_LINES => {
                let mut bytes = Vec::new();
                new.iter().for_each(|event| push_line(&mut bytes, event));
                // Where this fails in its middle, the file is not taken up again but written anew.
                file.write_all(&bytes).map_err(|error| self.error("append to", error))?;
                self.lines += new.len();
                self.file = Some(file);
                Ok(())
            }
            _ => self.rewrite(&all()).map_err(|error| self.error("write", error)),
        }
    }

    /// Has what was written outlast a loss of power.
    pub(crate) fn sync(&mut self) -> Result<(), EventsError> {
        let Some(file) = self.file.take() else { return Ok(()) };
        file.sync_data().map_err(|error| self.error("flush", error))?;
        self.file = Some(file);
        Ok(())
    }

    fn rewrite(&mut self, all: &[Kept]) -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.directory)?;
        let path = self.directory.join(FILE);
        write_anew(&path, all)?;
        (self.file, self.lines) = (Some(OpenOptions::new().append(true).open(path)?), all.len());
        Ok(())
    }

    fn error(&self, verb: &'static str, source: io::Error) -> EventsError {
        EventsError::Journal { verb, path: self.directory.join(FILE), source }
    }
}

fn write_anew(path: &Path, all: &[Kept]) -> io::Result<()> {
    let mut writer = BufWriter::new(NewFile::create(path, 0o600)?);
    for event in all {
        let mut line = Vec::new();
        push_line(&mut line, event);
        writer.write_all(&line)?;
    }
    let file = writer.into_inner().map_err(io::IntoInnerError::into_error)?;
    Ok(file.put_in_place(PowerLoss::New)?)
}

fn push_line(out: &mut Vec<u8>, event: &Kept) {
    // A struct of strings and numbers always encodes, and JSON has no line break outside its strings.
    if serde_json::to_writer(&mut *out, event).is_ok() {
        out.push(b'\n');
    }
}

// === impl Held ===

impl Held {
    /// What can be read of a journal: a line that was cut off or is damaged takes no other with it.
    pub(crate) fn parse(bytes: &[u8]) -> Self {
        let mut held = Self { sound: true, ..Self::default() };
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            held.lines += 1;
            match Kept::parse(line) {
                Ok(event) if line.ends_with(b"\n") => held.events.push(event),
                _ => held.sound = false,
            }
        }
        held
    }
}

#[cfg(test)]
mod tests;
