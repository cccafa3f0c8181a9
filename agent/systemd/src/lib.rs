//! systemd: its units on the bus ([`manager`]), and what a service says to it and gets from it.
//!
//! The interface is `org.freedesktop.systemd1(5)`, as far as it is used here.

mod bus;
mod manager;

pub use bus::{connect, is_absent};
pub use manager::ManagerProxy;
