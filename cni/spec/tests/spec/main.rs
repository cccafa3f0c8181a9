//! What this crate writes and reads, held against the specification's text.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod program;
mod results;
mod text;
