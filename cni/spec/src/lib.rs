//! The [CNI specification](https://www.cni.dev/docs/spec/), versions 0.4.0 to 1.1.0: what plugins are called with
//! and what they answer.
//!
//! Inside there is one version, the newest: [`AddResult`] and [`CniError`] are of 1.1.0, and are converted where
//! JSON of another version is read or written.
//!
//! Everything here is synchronous: a plugin is a program first of all.

mod call;
mod error;
mod plugin;
mod result;

pub use call::{Call, NetworkNamespace, PluginConfig};
pub use error::{CniError, code};
pub use plugin::{GcCall, Plugin};
pub use result::{AddResult, Dns, Interface, IpConfig, Route};
