//! Whole nodes: the real agent, the real kernel, pods as a user writes them.
//!
//! Every test has a machine of its own (namespaces, directories, cgroups) and ends by checking that nothing of
//! its pods is left there. All of them need root, and say so where they are skipped.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test whose surroundings fail has failed, and says where"
)]

mod attach;
mod command_line;
mod configuration;
mod cp;
mod debug;
mod devices;
mod events;
mod exec;
mod gpu;
mod harness;
mod hooks;
mod hostile;
mod idle;
mod images;
mod install;
mod kill;
mod lifecycle;
mod limits;
mod logs;
mod malformed;
mod manifest_url;
mod names;
mod namespaces;
mod network;
mod poor_host;
mod port_forward;
mod probes;
mod reconnect;
mod reload;
mod restart;
mod restart_rules;
mod run;
mod secrets;
mod security;
mod service;
mod shm;
mod shutdown;
mod sidecars;
mod storage;
mod sysctls;
mod systemd;
mod termination_messages;
mod uninstall;
mod walk;
