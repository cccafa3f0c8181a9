//! OCI seccomp profiles compiled to BPF with logarithmic lookup.
//!
//! A profile ([`Profile`], or [`default_profile`]) is resolved for a host and a container's
//! capabilities into OCI's `linux.seccomp`, and that is compiled into a [`Program`]. [`Cache`] does it
//! once per distinct profile and set of capabilities and shares the result between containers.
//!
//! What a profile means, where the specification is silent:
//!
//! - The rules of a system call are tried in order and the first that matches decides. Within a rule,
//!   conditions on different arguments must all hold; when an argument has several, each condition of
//!   the rule is a rule of its own, as in runc.
//! - Names that an architecture does not have are skipped for it: profiles list the calls of all.
//! - A call made for an architecture the profile does not name kills the process. x32 calls fail with
//!   ENOSYS, as on a kernel without x32.

mod architecture;
mod cache;
mod capability;
mod compile;
mod default;
mod error;
mod profile;
mod program;
mod rules;

pub use architecture::Architecture;
pub use cache::Cache;
pub use capability::CapSet;
pub use compile::compile;
pub use default::default_profile;
pub use error::Error;
pub use profile::{Host, KernelVersion, Profile};
pub use program::{Instruction, Program};
