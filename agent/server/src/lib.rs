//! The kubelet's HTTP API on a unix socket, and its client.
//!
//! Paths, queries, status codes and messages are the kubelet's and the API server's, so that what is
//! written for them works here. What Kubernetes has no path for stands under `/coracle/v1/`.
//!
//! The server holds no state of its own: everything it answers comes from a [`Node`].

mod listen;
mod logs;
mod node;
mod status;

pub use listen::{ListenError, Socket};
pub use node::{
    Event, EventType, ExecError, ExecExit, ExecRequest, ExecSession, Node, PodEntry, Pods, Problem, Resize,
    TerminalSize,
};
pub use status::{Status, StatusCause, StatusDetails};
