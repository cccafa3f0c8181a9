//! What can go wrong.

use std::borrow::Cow;

use netlink_packet_core::DecodeError;

/// Why something could not be done with the table.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel could not be asked, or has refused.
    #[error("nftables: {0}")]
    Netlink(#[from] coracle_netlink::Error),
    /// The kernel has no nftables, or lacks what the table is made of.
    #[error(
        "nftables: make table inet coracle: {source}; the kernel needs nftables with NAT for inet, concatenations \
         with intervals and fib (CONFIG_NF_TABLES_INET, NFT_NAT, NFT_MASQ, NFT_CT, NFT_FIB_INET; Linux 5.10 or newer)"
    )]
    Unsupported {
        /// What the kernel has said.
        source: coracle_netlink::Error,
    },
    /// Somebody else has it.
    #[error("{what} is taken by {holder}: remove that, or ask for another one")]
    Taken {
        /// A host port.
        what: String,
        /// Network, container id and interface; or a stranger's comment.
        holder: String,
    },
    /// What ADD has made is not there any more.
    #[error("nftables: table inet coracle lacks {}", missing.join(", "))]
    Missing {
        /// What is missing, or is another's.
        missing: Vec<String>,
    },
    /// Whose an element is does not fit into its comment.
    #[error(
        "network {network}, container {container_id}, interface {ifname}: the names have {length} bytes together, \
         and a comment of nftables has room for {most}"
    )]
    NameTooLong {
        /// The network.
        network: String,
        /// The container.
        container_id: String,
        /// The interface.
        ifname: String,
        /// How long they are, with two separators.
        length: usize,
        /// How long they may be.
        most: usize,
    },
    /// An interface's name is none.
    #[error("{name:?} is no interface's name: it has 1 to 15 bytes")]
    InterfaceName {
        /// The name.
        name: String,
    },
    /// The table was changed by others again and again while it was read.
    #[error("nftables: {what}: the rule set was changed by others {attempts} times in a row; try again")]
    Busy {
        /// What was tried.
        what: Cow<'static, str>,
        /// How often.
        attempts: u32,
    },
    /// An answer of the kernel is not what it has to be.
    #[error("nftables: {what}: the kernel's answer cannot be read: {source}")]
    Malformed {
        /// What was asked for.
        what: Cow<'static, str>,
        /// What is wrong with it.
        source: DecodeError,
    },
}
