//! Container output to log files: every byte once, whatever is killed.
//!
//! A container writes into a pipe whose read end pause holds as well, so nothing is lost while no
//! agent runs. The agent must not lose or double a line either, wherever it is killed, and reading
//! from a pipe consumes: a byte read but not yet written would be gone. So a [`Pump`] never reads
//! what it has not secured:
//!
//! 1. it *looks* at the pipe with `tee`, which consumes nothing, and decides which whole lines to take;
//! 2. it notes in the [cursor](cursor) how long the log file is and how much it is about to become;
//! 3. it moves those bytes with one `splice` into a **journal**, a second pipe that pause holds too;
//! 4. it appends the formatted lines to the log file;
//! 5. it drains the journal.
//!
//! Each step is one system call, and only a living agent moves them on. The next agent looks at the
//! journal: empty, and the last chunk was either finished or never begun; not empty, and the file's
//! length says whether its lines were written (drain the journal) or not (cut the file back to the noted
//! length and write them again). See [`Pump::recover`].
//!
//! A container must not stop for its log. While the file cannot be opened or written, its output is taken and given
//! up, and opening is tried again when there is more of it; while the cursor cannot be written, lines go past the
//! journal.
//!
//! Whoever is attached to the container is shown what the pump looks at ([taps]), which takes nothing
//! from the pipe, and for which nothing waits.

mod beneath;
mod cri;
mod cursor;
mod file;
mod last;
mod peek;
mod pipes;
mod pump;
mod remove;
mod taps;

pub use file::{LogError, LogLimits};
pub(crate) use file::{LogFile, SharedLogLimits};
pub(crate) use last::{end_of, last_lines};
pub(crate) use pipes::{ContainerEnds, HELD_OUTPUT, OutputPipes};
pub(crate) use pump::{Pump, PumpError};
pub(crate) use remove::{remove, remove_all, remove_older};
pub use taps::LiveOutput;
pub(crate) use taps::{MOST_BEHIND, Tap, Taps};
