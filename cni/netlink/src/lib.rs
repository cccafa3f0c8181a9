//! Netlink in batches, and rtnetlink with it: links, addresses, routes, bridges and queueing disciplines, in any
//! network namespace.
//!
//! Several requests go to the kernel in one system call, and each one's answer is told by its place. Everything
//! blocks for as long as the kernel takes, and no longer: netlink answers within the call that asks.

mod address;
mod attribute;
mod batch;
mod bridge_vlan;
mod datagram;
mod default_route;
mod error;
mod forwarding;
mod link;
mod mac;
mod route;
mod socket;
mod subscription;
mod traffic;

pub use address::{Address, AddressOptions};
pub use batch::Batch;
pub use error::{Error, Failure, Failures};
pub use forwarding::Family;
pub use link::{Bridge, Link, LinkChange, LinkId, Peer, Veth};
pub use mac::{InvalidMacAddress, MacAddress};
pub use route::Route;
pub use socket::{Message, Outcome, Protocol, Socket};
pub use subscription::{Notice, Subscription};
pub use traffic::{TokenBucket, TokenBucketSeen};
