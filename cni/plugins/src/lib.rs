//! CNI plugins: a library whose code runs in the agent, and one program that any runtime can execute.

mod bandwidth;
mod bridge;
mod host_local;
mod interface;
mod loopback;
mod portmap;
mod ptp;
mod tuning;

use coracle_cni::Plugins;

pub use bandwidth::Bandwidth;
pub use bridge::Bridge;
pub use host_local::HostLocal;
pub use interface::told::interface_of;
pub use loopback::Loopback;
pub use portmap::Portmap;
pub use ptp::Ptp;
pub use tuning::Tuning;

/// All plugins there are. Each stands in a file of its own.
pub static PLUGINS: Plugins = Plugins(&[&Bandwidth, &Bridge, &HostLocal, &Loopback, &Portmap, &Ptp, &Tuning]);
