//! What of the driver's a program in a container needs beside device nodes: libraries, programs, firmware, sockets.
//!
//! Libraries of a driver work with their own kernel module alone, so those count whose names end with its version.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use crate::elf;
use crate::host::Host;
use crate::ld_cache::Cache;

/// Where distributions, and NVIDIA's own installer, put libraries.
const DIRECTORIES: &[&str] = &[
    #[cfg(target_arch = "x86_64")]
    "/usr/lib/x86_64-linux-gnu",
    #[cfg(target_arch = "aarch64")]
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib64",
    "/usr/lib",
    #[cfg(target_arch = "x86_64")]
    "/usr/lib/x86_64-linux-gnu/nvidia/current",
    #[cfg(target_arch = "aarch64")]
    "/usr/lib/aarch64-linux-gnu/nvidia/current",
    "/usr/lib64/nvidia",
    "/usr/local/lib64",
    "/usr/local/lib",
    "/opt/lib64",
    "/run/opengl-driver/lib",
];

/// Below such a directory, what others load by path.
const SUBDIRECTORIES: &[&str] = &["vdpau"];

/// Libraries with versions of their own.
const OTHERS: &[&str] = &[
    "libnvidia-egl-gbm.so.1",
    "libnvidia-egl-wayland.so.1",
    "libnvidia-egl-wayland2.so.0",
    "libnvidia-egl-xcb.so.1",
    "libnvidia-egl-xlib.so.1",
    "libnvidia-api.so.1",
];

const PROGRAMS: &[&str] = &[
    "nvidia-smi",
    "nvidia-debugdump",
    "nvidia-persistenced",
    "nvidia-cuda-mps-control",
    "nvidia-cuda-mps-server",
    "nvidia-imex",
    "nvidia-imex-ctl",
];

const PROGRAM_DIRECTORIES: &[&str] =
    &["/usr/bin", "/usr/sbin", "/usr/local/bin", "/bin", "/run/opengl-driver/bin"];

/// Files by which loaders of OpenCL, Vulkan, EGL and OptiX find the driver.
const SETTINGS: &[&str] = &[
    "/etc/OpenCL/vendors/nvidia.icd",
    "/etc/vulkan/icd.d/nvidia_icd.json",
    "/usr/share/vulkan/icd.d/nvidia_icd.json",
    "/usr/share/vulkan/implicit_layer.d/nvidia_layers.json",
    "/usr/share/glvnd/egl_vendor.d/10_nvidia.json",
    "/usr/share/egl/egl_external_platform.d/10_nvidia_wayland.json",
    "/usr/share/egl/egl_external_platform.d/15_nvidia_gbm.json",
    "/usr/share/nvidia/nvoptix.bin",
];

/// Sockets of the driver's services.
const SOCKETS: &[&str] = &["/run/nvidia-persistenced/socket", "/run/nvidia-fabricmanager/socket"];

/// What a container needs of a driver.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Files {
    /// Where each library is to be seen in the container, and where it is on the host.
    pub(crate) libraries: BTreeMap<String, String>,
    /// By what name programs ask for it, and where it is to be seen then.
    pub(crate) sonames: BTreeMap<String, String>,
    /// Programs, settings and firmware: the same.
    pub(crate) files: BTreeMap<String, String>,
    /// The same.
    pub(crate) sockets: BTreeMap<String, String>,
}

/// Where the driver's libraries may be, without links, each once.
pub(crate) fn directories(host: &Host) -> Vec<String> {
    let cached = std::fs::read(host.at("/etc/ld.so.cache")).ok().and_then(|bytes| Cache::parse(&bytes).ok());
    let cached = cached.iter().flat_map(|cache| {
        let of = |name: &'static str| cache.find(name).map(|path| String::from_utf8_lossy(path).into_owned());
        of("libcuda.so.1").chain(of("libnvidia-ml.so.1"))
    });
    let cached = cached.filter_map(|path| path.rsplit_once('/').map(|(directory, _)| directory.to_owned()));
    let mut seen = BTreeSet::new();
    cached
        .chain(DIRECTORIES.iter().map(|path| (*path).to_owned()))
        .filter_map(|path| host.resolve(&path))
        .filter(|path| seen.insert(path.clone()))
        .collect()
}

/// Where NVML may be, best first.
pub(crate) fn management_libraries(host: &Host) -> Vec<PathBuf> {
    let paths = directories(host).into_iter().map(|directory| format!("{directory}/libnvidia-ml.so.1"));
    paths.filter_map(|path| host.resolve(&path)).map(|path| host.at(&path)).collect()
}

/// What there is of a version.
pub(crate) fn find(host: &Host, version: &str) -> Files {
    let mut files = Files::default();
    for directory in directories(host) {
        files.add_libraries(host, &directory, version);
        for below in SUBDIRECTORIES {
            files.add_libraries(host, &format!("{directory}/{below}"), version);
        }
    }
    for name in PROGRAMS {
        let mut paths = PROGRAM_DIRECTORIES.iter().map(|directory| format!("{directory}/{name}"));
        // Programs are found by name, and so in the container where PATH always leads.
        if let Some(resolved) = paths.find_map(|path| host.resolve(&path)) {
            files.files.insert(format!("/usr/bin/{name}"), resolved);
        }
    }
    let firmware = format!("/lib/firmware/nvidia/{version}");
    let firmware = host.names(&firmware).into_iter().map(|name| format!("{firmware}/{name}"));
    for path in SETTINGS.iter().map(|path| (*path).to_owned()).chain(firmware) {
        if let Some(resolved) = host.resolve(&path) {
            files.files.insert(path, resolved);
        }
    }
    for path in SOCKETS {
        if let Some(resolved) = host.resolve(path) {
            files.sockets.insert((*path).to_owned(), resolved);
        }
    }
    files
}

// === impl Files ===

impl Files {
    fn add_libraries(&mut self, host: &Host, directory: &str, version: &str) {
        let suffix = format!(".so.{version}");
        for name in host.names(directory) {
            if !name.ends_with(&suffix) && !OTHERS.contains(&name.as_str()) {
                continue;
            }
            let path = format!("{directory}/{name}");
            let Some(resolved) = host.resolve(&path) else { continue };
            let soname = match elf::soname(&host.at(&resolved)) {
                Ok(Some(soname)) => soname,
                // Of another architecture, or what only looks like a library.
                Ok(None) => continue,
                Err(error) => {
                    tracing::warn!(path, %error, "a library of NVIDIA's driver cannot be read, and is left out");
                    continue;
                }
            };
            // A directory that comes first is the one that the host's linker prefers.
            if self.sonames.contains_key(&soname) {
                continue;
            }
            let asked_for = format!("{directory}/{soname}");
            self.libraries.insert(asked_for.clone(), resolved.clone());
            if soname == "libcuda.so.1" {
                // What was linked by hand asks for it without a version.
                self.libraries.insert(format!("{directory}/libcuda.so"), resolved.clone());
                self.sonames.insert("libcuda.so".to_owned(), format!("{directory}/libcuda.so"));
            }
            self.sonames.insert(soname, asked_for);
            self.libraries.insert(path, resolved);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{DRIVER, Tree};

    #[test]
    fn libraries_of_the_drivers_version_by_every_name_they_are_asked_for() {
        let tree = Tree::new();
        tree.nvidia_files();
        let files = find(&tree.host(), DRIVER);
        let directory = "/usr/lib/x86_64-linux-gnu";
        let cuda = format!("{directory}/libcuda.so.{DRIVER}");
        for name in ["libcuda.so", "libcuda.so.1", &format!("libcuda.so.{DRIVER}")] {
            assert_eq!(files.libraries.get(&format!("{directory}/{name}")), Some(&cuda), "{name}");
        }
        let glcore = format!("libnvidia-glcore.so.{DRIVER}");
        let sonames: Vec<_> = files.sonames.keys().map(String::as_str).collect();
        assert_eq!(
            sonames,
            ["libcuda.so", "libcuda.so.1", &glcore, "libnvidia-ml.so.1", "libnvidia-ptxjitcompiler.so.1"]
        );
        assert!(
            files.libraries.keys().all(|path| !path.contains("libz") && !path.contains("535")),
            "{files:?}"
        );
        let others: Vec<_> = files.files.keys().map(String::as_str).collect();
        assert_eq!(others, [&format!("/lib/firmware/nvidia/{DRIVER}/gsp_ga10x.bin"), "/usr/bin/nvidia-smi"]);
        assert_eq!(files.sockets.keys().collect::<Vec<_>>(), ["/run/nvidia-persistenced/socket"]);
    }

    #[test]
    fn a_directory_is_found_by_the_linkers_cache() {
        let tree = Tree::new();
        let mut cache = Cache::default();
        cache.put("libcuda.so.1", "/opt/driver/lib/libcuda.so.1");
        tree.file("etc/ld.so.cache", cache.to_bytes().expect("a file"));
        tree.file(
            &format!("opt/driver/lib/libcuda.so.{DRIVER}"),
            crate::testing::elf_with_soname("libcuda.so.1"),
        );
        let files = find(&tree.host(), DRIVER);
        assert_eq!(
            files.sonames.get("libcuda.so.1").map(String::as_str),
            Some("/opt/driver/lib/libcuda.so.1")
        );
    }

    #[test]
    fn nvml_is_looked_for_where_the_libraries_are() {
        let tree = Tree::new();
        tree.nvidia_files();
        let found = management_libraries(&tree.host());
        assert_eq!(found, [tree.path(&format!("usr/lib/x86_64-linux-gnu/libnvidia-ml.so.{DRIVER}"))]);
    }
}
