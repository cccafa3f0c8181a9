//! Descriptors in tokio's reactor.

use std::io;
use std::ops::Deref;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A descriptor whose readiness is awaited.
///
/// Registration is unsafe in tokio since a descriptor that is closed or exchanged while registered
/// would leave another one in the reactor. This one is owned and cannot be taken out.
#[derive(Debug)]
pub struct ReadinessFd(AsyncFd<OwnedFd>);

impl ReadinessFd {
    /// Registers a descriptor. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// `EPERM` for a descriptor that has no readiness, such as a regular file.
    pub fn new(fd: OwnedFd, interest: Interest) -> io::Result<Self> {
        // SAFETY: the descriptor is owned by the `AsyncFd`, and this type gives no `&mut` to it, so it
        // stays open and the same until the registration is dropped with it.
        Ok(Self(unsafe { AsyncFd::register_with_interest(fd, interest)? }))
    }
}

impl Deref for ReadinessFd {
    type Target = AsyncFd<OwnedFd>;

    fn deref(&self) -> &AsyncFd<OwnedFd> {
        &self.0
    }
}
