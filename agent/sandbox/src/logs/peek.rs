//! Looking at what lies in a pipe without taking it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice, tee};

/// Capacity asked for a container's pipes, in bytes: what it may write ahead while no agent runs.
pub(super) const PIPE_CAPACITY: usize = 256 * 1024;

/// A private pipe and buffer through which all pumps look, one at a time: looking is short, and one
/// set of them keeps an agent with many containers small.
struct Glass {
    read: OwnedFd,
    write: OwnedFd,
    sink: OwnedFd,
    buffer: Vec<u8>,
}

static GLASS: Mutex<Option<Glass>> = Mutex::new(None);

/// Calls `look` with the bytes that lie ready in `pipe`, in order, consuming none.
pub(super) fn peek<R>(pipe: BorrowedFd<'_>, look: impl FnOnce(&[u8]) -> R) -> io::Result<R> {
    let mut slot = GLASS.lock().unwrap_or_else(PoisonError::into_inner);
    let glass = match slot.take() {
        Some(glass) => slot.insert(glass),
        None => slot.insert(Glass::new()?),
    };
    let result = glass.fill(pipe).map(|()| look(&glass.buffer));
    if result.is_err() {
        // The private pipe may hold what was not read back: the next look starts with a fresh one.
        *slot = None;
    }
    result
}

/// Takes exactly `count` bytes from `from` and moves them, uncopied, to `to`.
pub(super) fn transfer(from: BorrowedFd<'_>, to: BorrowedFd<'_>, mut count: usize) -> io::Result<()> {
    while count > 0 {
        let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
        match splice(from, None, to, None, count, flags) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(moved) => count -= moved,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Throws away the first `count` bytes of a pipe.
pub(super) fn discard(pipe: BorrowedFd<'_>, count: usize) -> io::Result<()> {
    let mut slot = GLASS.lock().unwrap_or_else(PoisonError::into_inner);
    let glass = match slot.take() {
        Some(glass) => slot.insert(glass),
        None => slot.insert(Glass::new()?),
    };
    transfer(pipe, glass.sink.as_fd(), count)
}

/// How many bytes lie ready in a pipe.
pub(super) fn ready(pipe: BorrowedFd<'_>) -> io::Result<usize> {
    let count = rustix::io::ioctl_fionread(pipe)?;
    usize::try_from(count).map_err(io::Error::other)
}

/// A pipe of the capacity containers get, or the most this host allows.
pub(super) fn pipe(flags: PipeFlags) -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = pipe_with(flags | PipeFlags::CLOEXEC)?;
    // A refused enlargement (the user's pipe quota is used up) leaves the kernel's 64 KiB: only the
    // room for output while no agent runs is smaller.
    let _ = fcntl_setpipe_size(&write, PIPE_CAPACITY);
    Ok((read, write))
}

// === impl Glass ===

impl Glass {
    fn new() -> io::Result<Self> {
        let (read, write) = pipe(PipeFlags::NONBLOCK)?;
        let sink = std::fs::File::options().write(true).open("/dev/null")?.into();
        Ok(Self { read, write, sink, buffer: Vec::new() })
    }

    fn fill(&mut self, pipe: BorrowedFd<'_>) -> io::Result<()> {
        self.buffer.clear();
        let seen = match tee(pipe, &self.write, PIPE_CAPACITY, SpliceFlags::NONBLOCK) {
            Ok(seen) => seen,
            Err(rustix::io::Errno::AGAIN) => 0,
            Err(error) => return Err(error.into()),
        };
        self.buffer.resize(seen, 0);
        let mut at = 0;
        while at < seen {
            match rustix::io::read(&self.read, &mut self.buffer[at..])? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => at += count,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looking_takes_nothing() {
        let (read, write) = pipe(PipeFlags::NONBLOCK).unwrap();
        assert_eq!(peek(read.as_fd(), <[u8]>::len).unwrap(), 0);
        rustix::io::write(&write, b"hello").unwrap();
        for _ in 0..2 {
            assert_eq!(peek(read.as_fd(), <[u8]>::to_vec).unwrap(), b"hello");
        }
        discard(read.as_fd(), 2).unwrap();
        let (journal, into) = pipe(PipeFlags::NONBLOCK).unwrap();
        transfer(read.as_fd(), into.as_fd(), 3).unwrap();
        assert_eq!((ready(read.as_fd()).unwrap(), ready(journal.as_fd()).unwrap()), (0, 3));
        assert_eq!(peek(journal.as_fd(), <[u8]>::to_vec).unwrap(), b"llo");
        // More than there is: an error, not a wait.
        assert!(discard(journal.as_fd(), 4).is_err());
    }
}
