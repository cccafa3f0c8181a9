//! The gRPC APIs between a node, its device plugins and its monitoring: `deviceplugin v1beta1`, `pluginregistration v1` and
//! `podresources v1`, and how they are spoken over unix sockets.

mod client;
mod error;
mod lenient;
mod plugin;
mod server;
pub mod wire;

pub use client::{call, connect};
pub use error::{ConnectError, ServeError};
pub use plugin::PluginClient;
pub use server::{Listener, serve};
pub use tonic;

/// The longest message that is taken, in octets; as in the kubelet.
pub const MAX_MESSAGE: usize = 16 * 1024 * 1024;

/// The device-plugin API, `v1beta1`.
pub mod deviceplugin {
    #![allow(missing_docs, unreachable_pub, unused_qualifications, clippy::all, reason = "generated code")]

    include!("generated/v1beta1.rs");

    /// The version of the API, as plugins state it.
    pub const VERSION: &str = "v1beta1";
    /// `Device.health` of a device that works.
    pub const HEALTHY: &str = "Healthy";
    /// `Device.health` of one that does not.
    pub const UNHEALTHY: &str = "Unhealthy";
    /// The directory of plugins' sockets, where nothing else is configured.
    pub const PLUGIN_DIR: &str = "/var/lib/kubelet/device-plugins";
    /// The node's own socket in it.
    pub const KUBELET_SOCKET: &str = "kubelet.sock";
}

/// The plugin-registration API, `v1`.
pub mod pluginregistration {
    #![allow(missing_docs, unreachable_pub, unused_qualifications, clippy::all, reason = "generated code")]

    include!("generated/pluginregistration.rs");

    /// `PluginInfo.type` of a device plugin.
    pub const DEVICE_PLUGIN: &str = "DevicePlugin";
    /// The directory of sockets that are looked at, where nothing else is configured.
    pub const REGISTRY_DIR: &str = "/var/lib/kubelet/plugins_registry";
}

/// The podresources API, `v1`.
pub mod podresources {
    #![allow(missing_docs, unreachable_pub, unused_qualifications, clippy::all, reason = "generated code")]

    include!("generated/v1.rs");

    /// The node's socket, where nothing else is configured.
    pub const SOCKET: &str = "/var/lib/kubelet/pod-resources/kubelet.sock";
}
