//! The terminal of this process, lent to a program elsewhere.

use std::io;

use coracle_server::TerminalSize;
use rustix::stdio::stdin;
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr};

/// While it lives, every byte typed is passed on as it is, interrupts among them. Dropping it gives the
/// terminal back as it was.
#[derive(Debug)]
pub(super) struct RawMode {
    before: Termios,
}

/// Whether standard input is a terminal.
pub(super) fn is_terminal() -> bool {
    isatty(stdin())
}

/// Its size.
pub(super) fn size() -> io::Result<TerminalSize> {
    let size = tcgetwinsize(stdin())?;
    Ok(TerminalSize { width: size.ws_col, height: size.ws_row })
}

// === impl RawMode ===

impl RawMode {
    pub(super) fn enter() -> io::Result<Self> {
        let before = tcgetattr(stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(stdin(), OptionalActions::Now, &raw)?;
        Ok(Self { before })
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // A terminal that has gone needs nothing back.
        let _ = tcsetattr(stdin(), OptionalActions::Now, &self.before);
    }
}
