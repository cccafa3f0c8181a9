//! Safe wrappers over system calls no crate offers, and what of files many crates do in the same way.

#![allow(unsafe_code)]

mod allocator;
pub mod bpf;
mod clone;
mod descriptor;
mod environment;
mod errno;
mod execute;
mod keyring;
mod list_directory;
mod mount;
mod name_service;
mod namespace;
mod netlink;
mod network_namespace;
mod open_beneath;
mod procfs;
#[cfg(feature = "readiness")]
mod readiness;
mod remove_tree;
mod replace_file;
mod seccomp;
mod signal;
mod socket;
mod spawn;
mod stamp;

pub use allocator::{give_free_memory_back, keep_malloc_small};
pub use clone::{Cloned, OwnThreads, clone_sibling};
pub use descriptor::{close_on_exec_from, make_room_for_descriptors, raise_descriptor_limit, take_inherited};
pub use environment::forget_variables;
pub use execute::execve;
pub use keyring::join_new_session_keyring;
pub use list_directory::{list_directory, list_if_there};
pub use mount::{MountAttributes, mount_setattr, open_to_mount};
pub use name_service::look_names_up_without_modules;
pub use namespace::{unshare_cgroup_namespace, unshare_mount_namespace, unshare_network_namespace};
pub use netlink::{NetlinkOption, join_netlink_group, set_netlink_option};
pub use network_namespace::in_network_namespace;
pub use open_beneath::open_beneath;
pub use procfs::procfs_of;
#[cfg(feature = "readiness")]
pub use readiness::ReadinessFd;
pub use remove_tree::{empty_directory, remove_tree};
pub use replace_file::{
    NewFile, PowerLoss, ReplaceError, is_unfinished, remove_durably, remove_if_there, replace_file,
};
pub use seccomp::{SeccompInstruction, install_seccomp_filter};
pub use signal::{pidfd_send_signal_number, reset_signals};
pub use socket::socket_in_namespace;
pub use spawn::{Spawn, spawn};
pub use stamp::Stamp;
