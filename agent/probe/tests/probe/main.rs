//! Probes and hooks against real servers, and the beat of probes on a clock that is not waited for.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod course;
mod grpc;
mod hook;
mod http;
mod https;
mod node;
mod server;
mod tcp;
