//! Programs of the node that are asked something on standard input and answer on standard output: plugins of CNI,
//! credential helpers, credential providers.
//!
//! They are started by `posix_spawn`: nothing is asked of `Command` that would make it fork, since the caller may have
//! many threads. Each is the leader of a process group of its own, so that one that takes too long ends with what it has
//! started, and is waited for by its pidfd, so that no other child of the caller is reaped.
//!
//! Everything here blocks. What programs say is handed back and never logged: it may be a secret.

mod end;
mod error;
mod execute;
mod find;
mod said;

pub use end::{PATIENCE, wait_for_end};
pub use error::ProgramError;
pub use execute::{Answer, Program};
pub use find::find;
pub use said::excerpt;
