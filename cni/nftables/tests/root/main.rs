//! The table in the real kernel, in network namespaces made for it, read back by nft(8).

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod conntrack;
mod elements;
mod forward;
mod harness;
mod many;
mod watch;
mod whole;

use coracle_nftables::Owner;

fn owner(container_id: &str) -> Owner {
    Owner::new("pods", container_id, "eth0").unwrap()
}
