//! Answers, good and bad.

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// An answer.
#[derive(Clone, Debug)]
pub struct Reply {
    /// Such as `200 OK`.
    pub status: String,
    /// All but those that tell the body's length.
    pub headers: Vec<(String, String)>,
    /// What follows.
    pub body: Body,
}

/// What follows a head, and how.
#[derive(Clone, Debug)]
pub enum Body {
    /// All of it, with its length.
    Whole(Vec<u8>),
    /// All of it, in chunks.
    Chunked(Vec<u8>),
    /// So many of the bytes, then the connection ends.
    Truncated(Vec<u8>, usize),
    /// In chunks, without end.
    Endless,
    /// So many bytes at a time, with so long between them.
    Trickle(Vec<u8>, usize, Duration),
    /// So many of the bytes, then nothing, for as long as the client stays.
    Stalled(Vec<u8>, usize),
    /// These bytes in place of the whole answer, head and all; then the connection ends.
    Raw(Vec<u8>),
    /// No answer at all: the connection ends without one.
    Closed,
    /// No answer at all, for as long as the client stays.
    Silence,
}

/// How long a client that does not go is borne with.
const LONGEST: Duration = Duration::from_secs(120);

// === impl Reply ===

impl Reply {
    /// A status without a body.
    pub fn status(status: &str) -> Self {
        Self { status: status.to_owned(), headers: Vec::new(), body: Body::Whole(Vec::new()) }
    }

    /// What was asked for.
    pub fn ok(content_type: &str, bytes: impl Into<Vec<u8>>) -> Self {
        Self::status("200 OK").with("Content-Type", content_type).body(Body::Whole(bytes.into()))
    }

    /// An error in a registry's words.
    pub fn error(status: &str, code: &str, message: &str) -> Self {
        let body = format!(r#"{{"errors":[{{"code":"{code}","message":"{message}"}}]}}"#);
        Self::status(status).with("Content-Type", "application/json").body(Body::Whole(body.into_bytes()))
    }

    /// That who asks is to show a token of this service's.
    pub fn unauthorized(realm: &str, scope: &str) -> Self {
        let challenge = format!(r#"Bearer realm="{realm}",service="test-registry",scope="{scope}""#);
        Self::error("401 Unauthorized", "UNAUTHORIZED", "authentication required")
            .with("WWW-Authenticate", &challenge)
    }

    /// That it is elsewhere.
    pub fn redirect(location: &str) -> Self {
        Self::status("307 Temporary Redirect").with("Location", location)
    }

    /// With another header.
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With another body.
    pub fn body(self, body: Body) -> Self {
        Self { body, ..self }
    }

    /// The same bytes, sent otherwise.
    pub fn sent(self, how: impl FnOnce(Vec<u8>) -> Body) -> Self {
        match self.body {
            Body::Whole(bytes) => Self { body: how(bytes), ..self },
            _ => self,
        }
    }

    /// Sends it; whether the connection can be used again.
    pub(super) fn write(
        &self,
        stream: &mut impl Write,
        head_only: bool,
        ended: &AtomicBool,
    ) -> io::Result<bool> {
        let length = match &self.body {
            Body::Closed => return Ok(false),
            Body::Raw(bytes) => {
                stream.write_all(bytes)?;
                stream.flush()?;
                return Ok(false);
            }
            Body::Silence => return idle(stream, ended),
            Body::Whole(bytes)
            | Body::Truncated(bytes, _)
            | Body::Trickle(bytes, ..)
            | Body::Stalled(bytes, _) => {
                format!("Content-Length: {}\r\n", bytes.len())
            }
            Body::Chunked(_) | Body::Endless => "Transfer-Encoding: chunked\r\n".to_owned(),
        };
        let headers: String =
            self.headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        stream.write_all(format!("HTTP/1.1 {}\r\n{headers}{length}\r\n", self.status).as_bytes())?;
        if head_only {
            stream.flush()?;
            return Ok(true);
        }
        match &self.body {
            Body::Whole(bytes) => stream.write_all(bytes)?,
            Body::Chunked(bytes) => {
                for part in bytes.chunks(8 << 10) {
                    chunk(stream, part)?;
                }
                chunk(stream, b"")?;
            }
            Body::Truncated(bytes, count) => {
                stream.write_all(&bytes[..*count])?;
                stream.flush()?;
                return Ok(false);
            }
            Body::Endless => {
                let part = [b' '; 8 << 10];
                let end = Instant::now() + LONGEST;
                while Instant::now() < end && !ended.load(Ordering::SeqCst) {
                    chunk(stream, &part)?;
                }
                return Ok(false);
            }
            Body::Trickle(bytes, count, every) => {
                for part in bytes.chunks(*count) {
                    stream.write_all(part)?;
                    stream.flush()?;
                    if ended.load(Ordering::SeqCst) {
                        return Ok(false);
                    }
                    sleep(*every);
                }
            }
            Body::Stalled(bytes, count) => {
                stream.write_all(&bytes[..*count])?;
                stream.flush()?;
                return idle(stream, ended);
            }
            Body::Raw(_) | Body::Closed | Body::Silence => return Ok(false),
        }
        stream.flush()?;
        Ok(true)
    }
}

fn chunk(stream: &mut impl Write, part: &[u8]) -> io::Result<()> {
    stream.write_all(format!("{:x}\r\n", part.len()).as_bytes())?;
    stream.write_all(part)?;
    stream.write_all(b"\r\n")
}

/// Holds a connection and says nothing.
fn idle(_: &mut impl Write, ended: &AtomicBool) -> io::Result<bool> {
    let end = Instant::now() + LONGEST;
    while Instant::now() < end && !ended.load(Ordering::SeqCst) {
        sleep(Duration::from_millis(20));
    }
    Ok(false)
}

/// A JSON answer.
pub fn json(value: &serde_json::Value) -> Reply {
    Reply::ok("application/json", value.to_string())
}
