//! What can go wrong with the node's events: only that they are not kept.

use std::io;
use std::path::PathBuf;

/// The events could not be read from disk, or not be written there.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EventsError {
    /// A step with the journal failed.
    #[error(
        "cannot {verb} {}: {source}; the node's events are kept in memory alone until it can be written again",
        path.display()
    )]
    Journal {
        /// What was tried.
        verb: &'static str,
        /// The journal.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}
