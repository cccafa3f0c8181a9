//! What a container gets of a GPU, in CDI's terms.
//!
//! NVIDIA's toolkit is not needed: nothing of its runtime is, and the one hook is our own.

use std::collections::BTreeMap;
use std::path::PathBuf;

use coracle_model::{ContainerEdits, EditHook, EditMount, HookPoint};
use coracle_nvml::{Gpu, Mig};

use super::files::{self, Files};
use super::nodes;
use crate::device::{Grant, node};
use crate::drm;
use crate::host::Host;

/// The kind of our CDI devices. Not NVIDIA's own: two specifications of one name would make both unusable.
pub(crate) const KIND: &str = "nvidia.coracle.dev/gpu";

/// Options of every file; nothing of it can be written, or be a device.
const FILE: &[&str] = &["ro", "nosuid", "nodev", "rbind", "rprivate"];
/// A socket cannot be spoken with where it is read-only.
const SOCKET: &[&str] = &["nosuid", "nodev", "noexec", "rbind", "rprivate"];

/// How a driver's GPUs are described.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Description {
    /// What every container with any of them gets.
    pub(crate) common: ContainerEdits,
    /// What it gets of each, by UUID of GPU or partition.
    pub(crate) devices: BTreeMap<String, ContainerEdits>,
}

// === impl Description ===

impl Description {
    /// Describes these GPUs. `hook` is the command by which our hooks are executed.
    pub(crate) fn new(host: &Host, gpus: &[Gpu], version: &str, hook: &[String]) -> Self {
        let files = files::find(host, version);
        let mut devices = BTreeMap::new();
        for gpu in gpus {
            devices.insert(
                gpu.uuid.clone(),
                ContainerEdits { device_nodes: of_gpu(host, gpu), ..Default::default() },
            );
            for mig in gpu.partitions.iter().flatten() {
                devices.insert(
                    mig.uuid.clone(),
                    ContainerEdits { device_nodes: of_partition(host, gpu, mig), ..Default::default() },
                );
            }
        }
        Self { common: common(host, &files, hook), devices }
    }

    /// What the device of a UUID brings by its CDI name.
    pub(crate) fn by_name(uuid: &str) -> Grant {
        Grant { cdi: vec![format!("{KIND}={uuid}")], ..Grant::default() }
    }

    /// What it brings where there is no CDI: the same without the hook.
    pub(crate) fn by_specs(&self, uuid: &str) -> Grant {
        let mut nodes = self.common.device_nodes.clone();
        nodes.extend(self.devices.get(uuid).into_iter().flat_map(|edits| edits.device_nodes.iter().cloned()));
        Grant {
            cdi: Vec::new(),
            nodes,
            mounts: self.common.mounts.clone(),
            env: self.common.env.iter().cloned().collect(),
        }
    }
}

fn common(host: &Host, files: &Files, hook: &[String]) -> ContainerEdits {
    let shared = nodes::SHARED.iter().filter_map(|path| Some(node(path, &host.node(path)?, "rw")));
    let mount = |(container_path, host_path): (&String, &String), options: &[&str]| EditMount {
        host_path: host_path.clone(),
        container_path: container_path.clone(),
        fs_type: String::new(),
        options: options.iter().map(|option| (*option).to_owned()).collect(),
    };
    let mounts = files.libraries.iter().chain(&files.files).map(|one| mount(one, FILE));
    ContainerEdits {
        // Where NVIDIA's own runtime is in use it shall leave this container alone.
        env: vec![("NVIDIA_VISIBLE_DEVICES".to_owned(), "void".to_owned())],
        device_nodes: shared.collect(),
        mounts: mounts.chain(files.sockets.iter().map(|one| mount(one, SOCKET))).collect(),
        hooks: ldconfig(files, hook).into_iter().collect(),
        ..ContainerEdits::default()
    }
}

/// The hook that tells the container's dynamic linker where the libraries are.
fn ldconfig(files: &Files, hook: &[String]) -> Option<EditHook> {
    let (path, _) = hook.split_first()?;
    if files.sonames.is_empty() {
        return None;
    }
    let libraries =
        files.sonames.iter().flat_map(|(name, path)| ["--library".to_owned(), format!("{name}={path}")]);
    let args = hook.iter().cloned().chain(["ldconfig".to_owned()]).chain(libraries).collect();
    Some(EditHook {
        point: HookPoint::CreateContainer,
        path: path.clone(),
        args,
        env: Vec::new(),
        timeout: None,
    })
}

fn of_gpu(host: &Host, gpu: &Gpu) -> Vec<coracle_model::DeviceNode> {
    let path = nodes::of_gpu(gpu);
    let own = host.node(&path).map(|resolved| node(&path, &resolved, "rw"));
    own.into_iter().chain(drm::nodes(host, &format!("/sys/bus/pci/devices/{}", gpu.address))).collect()
}

/// A partition cannot draw, so it has no nodes for that.
fn of_partition(host: &Host, gpu: &Gpu, mig: &Mig) -> Vec<coracle_model::DeviceNode> {
    let capabilities = nodes::of_partition(host, gpu, mig).into_iter().flatten();
    let paths = [nodes::of_gpu(gpu)].into_iter().chain(capabilities);
    paths.filter_map(|path| Some(node(&path, &host.node(&path)?, "rw"))).collect()
}

/// Where NVML may be.
pub(crate) fn management_libraries(host: &Host) -> Vec<PathBuf> {
    files::management_libraries(host)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nvidia::find;
    use crate::testing::{DRIVER, Tree};

    #[test]
    fn a_container_gets_its_gpu_and_what_all_need() {
        let tree = Tree::new();
        tree.nvidia(&["0000:3b:00.0", "0000:86:00.0"]);
        tree.nvidia_files();
        let host = tree.host();
        let found = find(&host, &[], None).expect("GPUs");
        let hook = ["/usr/bin/coracle", "device-plugin", "hook"].map(str::to_owned);
        let description = Description::new(&host, &found.gpus, &found.version, &hook);
        let shared: Vec<_> = description.common.device_nodes.iter().map(|it| it.path.as_str()).collect();
        assert_eq!(
            shared,
            ["/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools", "/dev/nvidia-modeset"]
        );
        let second = &description.devices["GPU-00000000-0000-0000-0000-000000000001"];
        let paths: Vec<_> = second.device_nodes.iter().map(|it| it.path.as_str()).collect();
        assert_eq!(
            paths,
            [
                "/dev/nvidia1",
                "/dev/dri/card1",
                "/dev/dri/renderD129",
                "/dev/dri/by-path/pci-0000:86:00.0-card",
                "/dev/dri/by-path/pci-0000:86:00.0-render"
            ]
        );
        let mount = |path: &str| {
            description.common.mounts.iter().find(|it| it.container_path == path).expect("a mount")
        };
        let cuda = mount("/usr/lib/x86_64-linux-gnu/libcuda.so.1");
        assert_eq!(cuda.host_path, format!("/usr/lib/x86_64-linux-gnu/libcuda.so.{DRIVER}"));
        assert!(cuda.options.contains(&"ro".to_owned()));
        assert!(!mount("/run/nvidia-persistenced/socket").options.contains(&"ro".to_owned()));
        let [hook] = &description.common.hooks[..] else { panic!("one hook") };
        assert_eq!((hook.point, hook.path.as_str()), (HookPoint::CreateContainer, "/usr/bin/coracle"));
        assert_eq!(hook.args[..4], ["/usr/bin/coracle", "device-plugin", "hook", "ldconfig"]);
        assert!(hook.args.contains(&"libcuda.so.1=/usr/lib/x86_64-linux-gnu/libcuda.so.1".to_owned()));
        let specs = description.by_specs("GPU-00000000-0000-0000-0000-000000000001");
        assert_eq!((specs.nodes.len(), specs.cdi.len()), (9, 0));
        assert_eq!(specs.env.get("NVIDIA_VISIBLE_DEVICES").map(String::as_str), Some("void"));
    }
}
