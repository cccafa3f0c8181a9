//! CNI plugins: a library whose code runs in the agent, and one program that any runtime can execute.

mod host_local;

pub use host_local::HostLocal;
