//! What plugins that make interfaces have in common.

pub(crate) mod announce;
pub(crate) mod check;
pub(crate) mod failure;
pub(crate) mod forwarding;
pub(crate) mod ipam;
pub(crate) mod masquerade;
pub(crate) mod name;
pub(crate) mod owed;
pub(crate) mod pod;
pub(crate) mod told;
pub(crate) mod veth;
