//! The end of a process that was killed.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// How long a process may take to end that was killed. One that hangs in the kernel may take longer than anybody waits.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// Waits for the end of a process, by its pidfd.
///
/// # Errors
/// [`io::ErrorKind::TimedOut`], or as `poll(2)`.
pub fn wait_for_end(process: &OwnedFd, deadline: Instant) -> io::Result<()> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
        match poll(&mut [PollFd::new(process, PollFlags::IN)], Some(&left)) {
            Ok(0) => return Err(io::Error::new(io::ErrorKind::TimedOut, "a killed program does not end")),
            Ok(_) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
