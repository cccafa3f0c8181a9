//! Masquerading of pods and ports of the host that lead to pods, in an nftables table of our own, by netlink.
//!
//! The table `inet coracle` is made when it is needed, in one transaction. Its chains and rules never change: what a pod
//! adds are elements of hash sets and maps, so that a change costs the same with one pod or a thousand. The comment
//! of an element tells whose it is (`<network>/<container id>/<interface>`), for `nft list table inet coracle` and for
//! whoever collects what nobody needs. Nothing of any other table is ever changed.

mod conntrack;
mod element;
mod entry;
mod error;
mod expression;
mod forward;
mod listed;
mod owner;
mod schema;
mod socket;
mod table;
mod transaction;
mod watch;
mod whole;

pub use conntrack::Conntrack;
pub use entry::{Entry, Part, PortMap, Protocol};
pub use error::Error;
pub use owner::Owner;
pub use schema::TABLE;
pub use table::{Nftables, Removed};
pub use watch::{Change, Watch};
