//! CNI plugins: a library whose code runs in the agent, and one program that any runtime can execute.

mod host_local;

use coracle_cni::Plugins;

pub use host_local::HostLocal;

/// All plugins there are. Each stands in a file of its own.
pub static PLUGINS: Plugins = Plugins(&[&HostLocal]);
