//! Where device plugins are met, and by which rules devices are given.

use std::path::{Path, PathBuf};

use coracle_cdi::DEFAULT_DIRECTORIES;
use coracle_device_manager::{TopologyPolicy, TopologyScope};

use super::file::File;
use super::flags::Overrides;
use super::problems::Problems;
use super::words::{self, Words};
use super::{directories, directory, flag};

/// Where device plugins are met, and by which rules devices are given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DevicesConfig {
    /// Sockets of plugins, and the node's, `kubelet.sock`.
    pub(crate) plugin_dir: PathBuf,
    /// Specifications of CDI; what is in a later goes before what is in an earlier.
    pub(crate) cdi_spec_dirs: Vec<PathBuf>,
    /// The configuration of our own plugin; it offers every GPU and nothing else where there is none.
    pub(crate) own_plugin: Option<PathBuf>,
    /// What is done for the sake of topology.
    pub(crate) policy: TopologyPolicy,
    /// For whom it is done.
    pub(crate) scope: TopologyScope,
}

impl Words for TopologyPolicy {
    const ALL: &'static [(&'static str, Self)] = &[
        ("none", Self::None),
        ("best-effort", Self::BestEffort),
        ("restricted", Self::Restricted),
        ("single-numa-node", Self::SingleNumaNode),
    ];
}

impl Words for TopologyScope {
    const ALL: &'static [(&'static str, Self)] = &[("container", Self::Container), ("pod", Self::Pod)];
}

// === impl DevicesConfig ===

impl DevicesConfig {
    /// Flags over the file over defaults.
    pub(super) fn combine(flags: &Overrides, file: &mut File, problems: &mut Problems) -> Self {
        let plugin_dir = directory(
            flag(&flags.device_plugin_dir, "--device-plugin-dir"),
            file.device_plugin_dir.take(),
            "devicePluginDir",
            problems,
        );
        let cdi_spec_dirs = match file.cdi_spec_dirs.take() {
            Some(paths) => directories(paths, "cdiSpecDirs", problems),
            None => DEFAULT_DIRECTORIES.map(PathBuf::from).to_vec(),
        };
        let own_plugin = directory(None, file.device_plugin_config.take(), "devicePluginConfig", problems);
        Self {
            own_plugin,
            plugin_dir: plugin_dir.unwrap_or_else(|| "/var/lib/kubelet/device-plugins".into()),
            cdi_spec_dirs,
            policy: words::read(file.topology_manager_policy.as_deref(), "topologyManagerPolicy", problems),
            scope: words::read(file.topology_manager_scope.as_deref(), "topologyManagerScope", problems),
        }
    }

    /// Where the node's own plugin describes its devices.
    pub(crate) fn own_cdi_dir(&self) -> &Path {
        let [.., default] = DEFAULT_DIRECTORIES;
        self.cdi_spec_dirs.last().map_or(Path::new(default), PathBuf::as_path)
    }

    /// Where plugins wait to be found.
    pub(crate) fn registry_dir(&self) -> PathBuf {
        self.plugin_dir.with_file_name("plugins_registry")
    }

    /// Where it can be asked who has which device.
    pub(crate) fn pod_resources_socket(&self) -> PathBuf {
        self.plugin_dir.with_file_name("pod-resources").join("kubelet.sock")
    }
}
