//! What a plugin says when it fails.

use serde::{Deserialize, Serialize};

/// An error as the specification's section 5, "Error", has it. What a plugin prints, and what a chain fails with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{msg}{}{details}", if details.is_empty() { "" } else { ": " })]
pub struct CniError {
    /// One of [`code`], or a plugin's own from 100 on.
    pub code: u32,
    /// What was tried, on what, and why it failed.
    pub msg: String,
    /// More of it; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub details: String,
}

/// Numbers of errors: those of the specification, and from 100 on our plugins'.
pub mod code {
    /// The version of the configuration is not supported.
    pub const INCOMPATIBLE_VERSION: u32 = 1;
    /// A field of the configuration is not supported.
    pub const UNSUPPORTED_FIELD: u32 = 2;
    /// The container is not known: the caller need not clean up.
    pub const UNKNOWN_CONTAINER: u32 = 3;
    /// A variable of the environment is missing or wrong.
    pub const INVALID_ENVIRONMENT: u32 = 4;
    /// Reading or writing failed.
    pub const IO: u32 = 5;
    /// What was read is not what it has to be.
    pub const DECODING: u32 = 6;
    /// The configuration is wrong.
    pub const INVALID_CONFIG: u32 = 7;
    /// It may work later.
    pub const TRY_AGAIN: u32 = 11;
    /// STATUS: no ADD can succeed now.
    pub const NOT_AVAILABLE: u32 = 50;
    /// STATUS: no ADD can succeed now, and containers there are may have limited connectivity.
    pub const LIMITED_CONNECTIVITY: u32 = 51;
    /// The kernel refused.
    pub const KERNEL: u32 = 100;
    /// CHECK: something is not as ADD has left it.
    pub const CHECK_FAILED: u32 = 101;
    /// All addresses of a range are taken.
    pub const NO_ADDRESSES: u32 = 102;
    /// A plugin's program took too long, or ended without an answer.
    pub const PLUGIN_FAILED: u32 = 103;
}

// === impl CniError ===

impl CniError {
    /// An error without details.
    pub fn new(code: u32, msg: impl Into<String>) -> Self {
        Self { code, msg: msg.into(), details: String::new() }
    }
}
