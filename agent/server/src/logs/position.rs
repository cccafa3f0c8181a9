//! Places in a log that a follower can come back to, whichever agent answers then.
//!
//! A client that asks for positions gets the log in frames: a line of JSON ([`FrameHead`]), then as many
//! bytes of text as it says. With the position of the last frame it got whole it goes on right behind it.
//! A position is a place in a file, so neither times nor what lines say matter; and what an agent that was
//! killed had half written is written again, record by record as long as before, up to the same place.

use coracle_model::PodUid;
use serde::{Deserialize, Serialize};

use super::line::Resume;

/// Where in which log. Clients keep it as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Position {
    pub(crate) uid: PodUid,
    /// Which run of the container.
    pub(crate) attempt: u32,
    /// `None`: at the beginning of whatever is there.
    pub(crate) place: Option<Place>,
    /// Within which record.
    pub(crate) resume: Resume,
}

/// A place in a file of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Place {
    pub(crate) file: FileId,
    /// In bytes of the uncompressed file.
    pub(crate) offset: u64,
}

/// What a file is known by while it is renamed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct FileId {
    pub(crate) inode: u64,
    /// When it was made, in nanoseconds, because the number of a removed file serves again; 0 where the file
    /// system does not say.
    pub(crate) born: i64,
}

/// The line before the text of a frame.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct FrameHead<P> {
    /// Of the text, in bytes.
    pub(crate) length: usize,
    /// Behind the text.
    pub(crate) position: P,
    /// Lines before the text are missing: the files they stood in were removed.
    pub(crate) gap: bool,
}
