//! pause, from the agent's side: starting it, speaking with it, reading what it wrote down.

mod again;
mod client;
mod error;
mod exit;
mod first;
mod launch;
mod ledger;
mod packet;

pub(crate) use again::ask_again;
pub use client::{Event, Exited, Listed, PauseClient, SharedPid, Spawn, Spawned, Taken};
pub use coracle_pause_wire::Step;
pub use error::PauseError;
pub use exit::{Exit, ExitStatus};
pub(crate) use first::Placeholder;
pub use launch::{Launch, Launched, launch};
pub use ledger::{Ledger, LedgerExit, read_ledger};
