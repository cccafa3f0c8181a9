//! The kubelet's HTTP API on a unix socket, and its client.
//!
//! Paths, queries, status codes and messages are the kubelet's and the API server's, so that what is
//! written for them works here. What Kubernetes has no path for stands under `/coracle/v1/`.
//!
//! The server holds no state of its own: everything it answers comes from a [`Node`].

pub mod client;
mod field_selector;
mod listen;
mod logs;
mod node;
mod object;
mod port_forward;
mod query;
mod remote_command;
mod route;
mod status;
mod websocket;

pub use listen::{ListenError, Socket, private_directory};
pub use node::{
    Amounts, AttachRequest, Deletion, EphemeralError, ExecError, ExecExit, ExecRequest, ExecSession,
    ForwardError, Forwarded, Node, NodeStatus, PodEntry, PortForwardRequest, Problem, Resize, SystemInfo,
    TerminalSize,
};
pub use route::serve;
pub use status::{Outcome, Status, StatusCause, StatusDetails, StatusMetadata};
