//! Logs, and how to go on with one where the last agent left off.

use axum::body::Bytes;
use futures_util::{Stream, StreamExt, stream};

use super::{ClientError, MAX_BODY, answer};
use crate::logs::FrameHead;
use crate::query::append;

/// `v1 PodLogOptions`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// Go on until the container ended.
    pub follow: bool,
    /// The run before.
    pub previous: bool,
    /// Lines of the last so many seconds.
    pub since_seconds: Option<u64>,
    /// Lines since a time in RFC 3339.
    pub since_time: Option<String>,
    /// Each line begins with its time.
    pub timestamps: bool,
    /// The last so many lines.
    pub tail_lines: Option<u64>,
    /// So many bytes.
    pub limit_bytes: Option<u64>,
    /// The run with this restart count, whichever runs now. Not known to Kubernetes.
    pub attempt: Option<u32>,
}

/// A place in a log that any agent of the node can go on from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogPosition(String);

/// A part of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogPiece {
    /// May be empty: then only the position is told.
    pub text: Bytes,
    /// Right behind the text.
    pub position: LogPosition,
    /// Lines before the text are missing: the files they stood in were removed since.
    pub gap: bool,
}

// === impl LogOptions ===

impl LogOptions {
    pub(super) fn query(&self) -> String {
        let mut query = String::new();
        let mut set =
            |key, value: Option<String>| value.into_iter().for_each(|value| append(&mut query, key, &value));
        set("follow", self.follow.then(|| "true".to_owned()));
        set("previous", self.previous.then(|| "true".to_owned()));
        set("timestamps", self.timestamps.then(|| "true".to_owned()));
        set("sinceSeconds", self.since_seconds.map(|seconds| seconds.to_string()));
        set("sinceTime", self.since_time.clone());
        set("tailLines", self.tail_lines.map(|lines| lines.to_string()));
        set("limitBytes", self.limit_bytes.map(|bytes| bytes.to_string()));
        set("attempt", self.attempt.map(|attempt| attempt.to_string()));
        query
    }

    /// As [`LogOptions::query`], for a log in frames.
    pub(super) fn query_from(&self, position: Option<&LogPosition>) -> String {
        let mut query = self.query();
        append(&mut query, "positions", "true");
        if let Some(LogPosition(position)) = position {
            append(&mut query, "position", position);
        }
        query
    }
}

/// Takes the frames of a body apart. A frame that did not come whole is not given.
pub(super) fn pieces(
    body: impl Stream<Item = Result<Bytes, ClientError>> + Send + Unpin + 'static,
    path: String,
) -> impl Stream<Item = Result<LogPiece, ClientError>> + Send + Unpin + 'static {
    Box::pin(stream::try_unfold((body, Vec::new()), move |(mut body, mut read)| {
        let path = path.clone();
        async move {
            loop {
                if let Some(piece) = next(&mut read).map_err(|error| answer(&path, error))? {
                    return Ok(Some((piece, (body, read))));
                }
                match body.next().await.transpose()? {
                    None if read.is_empty() => return Ok(None),
                    None => return Err(answer(&path, "the log ends within a frame")),
                    Some(more) if read.len() + more.len() <= MAX_BODY => read.extend_from_slice(&more),
                    Some(_) => return Err(answer(&path, "an endless frame")),
                }
            }
        }
    }))
}

/// Takes the first frame off the front, if it is there.
fn next(read: &mut Vec<u8>) -> serde_json::Result<Option<LogPiece>> {
    let Some(end) = read.iter().position(|byte| *byte == b'\n') else { return Ok(None) };
    let head: FrameHead<serde_json::Value> = serde_json::from_slice(&read[..end])?;
    let Some(text) = read.get(end + 1..).and_then(|rest| rest.get(..head.length)) else { return Ok(None) };
    let text = Bytes::copy_from_slice(text);
    read.drain(..end + 1 + head.length);
    Ok(Some(LogPiece { text, position: LogPosition(head.position.to_string()), gap: head.gap }))
}
