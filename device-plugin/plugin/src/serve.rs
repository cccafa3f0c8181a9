//! Resources as a kubelet sees them: a socket each in the directory of plugins, registered whenever a kubelet comes.

mod directory;
mod endpoint;
mod service;

pub(crate) use directory::{Directory, Generation};
pub(crate) use endpoint::{Endpoint, is_socket_name};
