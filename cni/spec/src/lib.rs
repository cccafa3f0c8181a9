//! The [CNI specification](https://www.cni.dev/docs/spec/), versions 0.4.0 to 1.1.0: what plugins are called with
//! and what they answer.
//!
//! Inside there is one version, the newest: [`AddResult`] and [`CniError`] are of 1.1.0, and are converted where
//! JSON of another version is read or written.
//!
//! Everything here is synchronous: a plugin is a program first of all. [`Plugins`] runs a plugin's verb, in the process
//! or by execution; [`program`] makes plugins a program that others execute.

mod call;
mod directory;
mod end;
mod environment;
mod error;
mod exec;
mod list;
mod names;
mod plugin;
mod plugins;
pub mod program;
mod resolv_conf;
mod result;
mod version;

pub use call::{Call, GcCall, NetworkNamespace, PluginConfig, StatusCall};
pub use directory::{ConfigDirectoryError, first_network};
pub use end::{Running, end_executions};
pub use error::{CniError, code};
pub use list::{ConfigList, ListedPlugin};
pub use names::{check_container_id, check_ifname, check_kind, check_network_name};
pub use plugin::Plugin;
pub use plugins::Plugins;
pub use resolv_conf::resolv_conf_lines;
pub use result::{AddResult, Dns, Interface, IpConfig, Route};
pub use version::Version;
