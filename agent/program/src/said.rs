//! What a program says.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

/// How much of an answer is shown in a message, in bytes.
const MOST_SHOWN: usize = 2 << 10;

/// Reads what a pipe has, and keeps it up to so many bytes. At its end the pipe is closed.
pub(crate) fn drain(pipe: &mut Option<OwnedFd>, kept: &mut Vec<u8>, most: usize) -> io::Result<()> {
    let mut buffer = [0; 16 << 10];
    // Bounded, so that one who never stops to write does not outlast the deadline.
    for _ in 0..64 {
        let Some(open) = pipe else { return Ok(()) };
        match rustix::io::read(open.as_fd(), &mut buffer) {
            Ok(0) => *pipe = None,
            Ok(read) => {
                let read = read.min(most.saturating_sub(kept.len()));
                kept.extend(buffer.iter().take(read));
            }
            Err(rustix::io::Errno::AGAIN) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Beginning and end of what was said: where a program crashes it says why first, else last.
pub fn excerpt(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let text = text.trim();
    if text.len() <= MOST_SHOWN {
        return text.to_owned();
    }
    let bounds = || text.char_indices().map(|(at, _)| at);
    let head = bounds().take_while(|at| *at <= MOST_SHOWN / 4).last().unwrap_or_default();
    let tail = bounds().find(|at| text.len() - at <= MOST_SHOWN / 4 * 3).unwrap_or(text.len());
    format!("{} [...] {}", text.get(..head).unwrap_or_default(), text.get(tail..).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beginning_and_end_are_shown_of_what_is_long() {
        assert_eq!(excerpt(b" short\n"), "short");
        let long = format!("panic: {}the end", "ä".repeat(5000));
        let shown = excerpt(long.as_bytes());
        assert!(shown.starts_with("panic: ä") && shown.ends_with("äthe end"), "{shown}");
        assert!(shown.len() <= MOST_SHOWN + " [...] ".len());
        assert_eq!(excerpt(&[0xff]), "\u{fffd}");
    }
}
