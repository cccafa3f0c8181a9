//! CNI plugins: a library whose code runs in the agent, and one program that any runtime can execute.

mod bridge;
mod host_local;
mod interface;
mod portmap;

use coracle_cni::Plugins;

pub use bridge::Bridge;
pub use host_local::HostLocal;
pub use portmap::Portmap;

/// All plugins there are. Each stands in a file of its own.
pub static PLUGINS: Plugins = Plugins(&[&Bridge, &HostLocal, &Portmap]);
