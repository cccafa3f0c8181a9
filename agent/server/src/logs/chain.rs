//! The files of a log read as one, from the oldest to the current, across rotations.

use std::io::{self, Read, Seek, SeekFrom};

use super::files::{LogDirectory, Segment, Source};
use super::line::Decoder;
use super::position::Place;
use super::tail::Tail;

/// A place in a log. Reading goes on where new text will be written.
#[derive(Debug)]
pub(crate) struct Chain {
    directory: LogDirectory,
    at: Option<At>,
}

#[derive(Debug)]
struct At {
    segment: Segment,
    source: Source,
    /// How much of it was read, in bytes.
    offset: u64,
}

// === impl Chain ===

impl Chain {
    /// The beginning of the log.
    pub(crate) fn from_start(directory: LogDirectory) -> Self {
        Self { directory, at: None }
    }

    /// Where the last lines begin, as `tail` counts them; `None` for the end of all there is.
    pub(crate) fn from_tail(directory: LogDirectory, tail: Option<Tail>) -> io::Result<Self> {
        let segments = directory.segments()?;
        let mut chain = Self { directory, at: None };
        let Some(mut tail) = tail else {
            if let Some(segment) = segments.last() {
                chain.open_at(segment, u64::MAX)?;
            }
            return Ok(chain);
        };
        for segment in segments.iter().rev() {
            let Some(mut source) = chain.directory.open_segment(segment)? else { break };
            if let Some(offset) = tail.find(&mut source, || chain.directory.open_segment(segment))? {
                chain.open_at(segment, offset)?;
                break;
            }
        }
        Ok(chain)
    }

    /// A place another chain was at; `None` when its file is gone.
    pub(crate) fn from_place(
        directory: LogDirectory,
        place: Place,
    ) -> io::Result<Result<Self, LogDirectory>> {
        let segments = directory.segments()?;
        let mut chain = Self { directory, at: None };
        for segment in segments.iter().filter(|segment| segment.file == place.file) {
            if chain.open_at(segment, place.offset)? {
                return Ok(Ok(chain));
            }
        }
        Ok(Err(chain.directory))
    }

    /// Where it is; `None` at the beginning of whatever is there.
    pub(crate) fn place(&self) -> Option<Place> {
        self.at.as_ref().map(|at| Place { file: at.segment.file, offset: at.offset })
    }

    /// The directory, to be watched.
    pub(crate) fn directory(&self) -> &LogDirectory {
        &self.directory
    }

    /// Reads what comes next. 0 means: all that is there now was read.
    pub(crate) fn read(&mut self, buffer: &mut [u8], decoder: &mut Decoder) -> io::Result<usize> {
        loop {
            if let Some(at) = &mut self.at {
                let length = at.read(buffer)?;
                if length > 0 {
                    return Ok(length);
                }
            }
            let Some(next) = self.next(decoder)? else { return Ok(0) };
            // The writer makes the next file only after its last write to this one: once the next is
            // seen, one more end of this file is its last.
            if let Some(at) = &mut self.at {
                let length = at.read(buffer)?;
                if length > 0 {
                    return Ok(length);
                }
            }
            decoder.end_of_file();
            if !self.open_at(&next, 0)? {
                // Renamed or removed just now: look again.
                continue;
            }
        }
    }

    /// The file after this one.
    fn next(&self, decoder: &mut Decoder) -> io::Result<Option<Segment>> {
        let Some(at) = &self.at else {
            let mut segments = self.directory.segments()?;
            return Ok(if segments.is_empty() { None } else { Some(segments.swap_remove(0)) });
        };
        // By far the most often.
        if self.directory.is_current(&at.segment)? {
            return Ok(None);
        }
        let mut segments = self.directory.segments()?;
        match segments.iter().position(|segment| segment.file == at.segment.file) {
            Some(place) => Ok(segments.into_iter().nth(place + 1)),
            None if segments.is_empty() => Ok(None),
            None => {
                // This file was compressed or removed while it was read. What is still there is read from
                // the beginning, without what was read already.
                decoder.skip_up_to_last();
                Ok(Some(segments.swap_remove(0)))
            }
        }
    }

    /// At an offset; `u64::MAX` is the end. Whether the file is there.
    fn open_at(&mut self, segment: &Segment, mut offset: u64) -> io::Result<bool> {
        let Some(mut source) = self.directory.open_segment(segment)? else { return Ok(false) };
        match &mut source {
            Source::Plain(file) if offset == u64::MAX => {
                offset = file.seek(SeekFrom::End(0))?;
            }
            Source::Plain(file) => {
                file.seek(SeekFrom::Start(offset))?;
            }
            Source::Gzip(_) if offset == 0 => {}
            Source::Gzip(_) => {
                offset = io::copy(&mut Read::by_ref(&mut source).take(offset), &mut io::sink())?;
            }
        }
        self.at = Some(At { segment: segment.clone(), source, offset });
        Ok(true)
    }
}

// === impl At ===

impl At {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.source.read(buffer)?;
        self.offset += length as u64;
        Ok(length)
    }
}
