//! Netlink in batches, and rtnetlink with it: links, addresses, routes, bridges and queueing disciplines, in any
//! network namespace.
//!
//! Several requests go to the kernel in one system call, and each one's answer is told by its place. Everything
//! blocks for as long as the kernel takes, and no longer: netlink answers within the call that asks.

mod batch;
mod datagram;
mod error;
mod socket;
mod subscription;

pub use batch::Batch;
pub use error::{Error, Failure, Failures};
pub use socket::{Message, Outcome, Protocol, Socket};
pub use subscription::{Notice, Subscription};
