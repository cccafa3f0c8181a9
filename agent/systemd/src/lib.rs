//! systemd: its units on the bus ([`Systemd`]), and what a service says to it and gets from it.
//!
//! The interface is `org.freedesktop.systemd1(5)`, as far as it is used here.

mod bus;
mod client;
mod error;
mod job;
mod manager;
mod name;
mod property;
mod unit;

pub use bus::{connect, is_absent};
pub use client::Systemd;
pub use error::{Action, Error};
pub use manager::ManagerProxy;
pub use name::{InvalidUnitName, UnitName};
pub use property::Property;
pub use unit::{Active, JobType, UnitState};
