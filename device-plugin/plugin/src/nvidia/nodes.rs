//! The device nodes of GPUs: which belong to what, and those the driver has not made yet.
//!
//! The kernel's driver makes no nodes itself: udev has no event for them, so NVIDIA ships a setuid program that makes them
//! when a library is first used. In a container there is none, so they must be there before.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use coracle_nvml::{Gpu, Mig};
use coracle_program::{Program, find};
use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};

use crate::host::Host;

/// Nodes that every container with a GPU needs, where they are there.
pub(crate) const SHARED: &[&str] =
    &["/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools", "/dev/nvidia-modeset"];

/// Where capabilities of partitions are listed.
const CAPABILITIES: &str = "/proc/driver/nvidia/capabilities";
/// How long a module may take to load.
const LOAD: Duration = Duration::from_secs(30);

/// What the driver says nodes should be like (`NVreg_DeviceFileMode` and others of its parameters).
struct Wish {
    make: bool,
    mode: u32,
    uid: u32,
    gid: u32,
}

/// Nodes of one GPU.
pub(crate) fn of_gpu(gpu: &Gpu) -> String {
    format!("/dev/nvidia{}", gpu.minor)
}

/// The nodes that open a partition: those of its GPU instance and its compute instance.
pub(crate) fn of_partition(host: &Host, gpu: &Gpu, mig: &Mig) -> Option<[String; 2]> {
    let instance = format!("{CAPABILITIES}/gpu{}/mig/gi{}", gpu.minor, mig.gpu_instance);
    let outer = capability(host, &format!("{instance}/access"))?;
    let inner = capability(host, &format!("{instance}/ci{}/access", mig.compute_instance))?;
    Some([outer, inner].map(|minor| format!("/dev/nvidia-caps/nvidia-cap{minor}")))
}

/// The minor number of a capability's node.
fn capability(host: &Host, path: &str) -> Option<u32> {
    field(&host.text(path)?, "DeviceFileMinor")
}

fn field(text: &str, name: &str) -> Option<u32> {
    let mut fields = text.lines().filter_map(|line| line.split_once(':'));
    fields.find(|(field, _)| field.trim() == name).and_then(|(_, value)| value.trim().parse().ok())
}

/// The major number of a driver's character devices.
fn major(devices: &str, names: &[&str]) -> Option<u32> {
    let section = devices.split("Block devices:").next().unwrap_or_default();
    let mut lines = section.lines().filter_map(|line| line.trim().split_once(' '));
    lines.find(|(_, name)| names.contains(&name.trim())).and_then(|(number, _)| number.parse().ok())
}

/// Makes what is missing of the nodes of these GPUs, and loads the module for unified memory, without which CUDA does not
/// start. What cannot be done is told and left: the GPU is unhealthy without its own node.
pub(crate) fn prepare(host: &Host, gpus: &[Gpu]) {
    let wish = Wish::of(host);
    if !wish.make {
        return;
    }
    let devices = || host.text("/proc/devices").unwrap_or_default();
    let mut known = devices();
    if host.is_own() && major(&known, &["nvidia-uvm"]).is_none() {
        load_module("nvidia-uvm");
        known = devices();
    }
    let frontend = major(&known, &["nvidia-frontend", "nvidia"]);
    let mut wanted: Vec<(String, Option<u32>, u32)> = Vec::new();
    for gpu in gpus {
        wanted.push((of_gpu(gpu), frontend, gpu.minor));
        for mig in gpu.partitions.iter().flatten() {
            for path in of_partition(host, gpu, mig).into_iter().flatten() {
                let minor = path.trim_start_matches("/dev/nvidia-caps/nvidia-cap").parse();
                wanted.extend(minor.ok().map(|minor| (path, major(&known, &["nvidia-caps"]), minor)));
            }
        }
    }
    let unified = major(&known, &["nvidia-uvm"]);
    wanted.push(("/dev/nvidiactl".to_owned(), major(&known, &["nvidiactl"]).or(frontend), 255));
    wanted.push(("/dev/nvidia-modeset".to_owned(), major(&known, &["nvidia-modeset"]), 254));
    wanted.push(("/dev/nvidia-uvm".to_owned(), unified, 0));
    wanted.push(("/dev/nvidia-uvm-tools".to_owned(), unified, 1));
    for (path, major, minor) in wanted {
        let Some(major) = major.filter(|_| host.resolve(&path).is_none()) else { continue };
        match make(host, &path, major, minor, &wish) {
            Ok(()) => {
                tracing::info!(path, major, minor, "made a device node of NVIDIA's driver that was not there")
            }
            Err(error) => {
                tracing::warn!(path, major, minor, %error, "cannot make a device node of NVIDIA's driver that is not there")
            }
        }
    }
}

fn make(host: &Host, path: &str, major: u32, minor: u32, wish: &Wish) -> io::Result<()> {
    let path = host.at(path);
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    let mode = Mode::from_raw_mode(wish.mode);
    match mknodat(CWD, &path, FileType::CharacterDevice, mode, makedev(major, minor)) {
        Ok(()) => {}
        // The driver's own program was quicker.
        Err(rustix::io::Errno::EXIST) => return Ok(()),
        Err(error) => return Err(error.into()),
    }
    // The mask of this process took bits away.
    fs::set_permissions(&path, fs::Permissions::from_mode(wish.mode))?;
    chown(&path, Some(wish.uid), Some(wish.gid))
}

fn load_module(module: &str) {
    let Some(path) = find("modprobe", ["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from)) else {
        tracing::warn!(
            module,
            "a module of NVIDIA's driver is not loaded, and there is no modprobe to load it: CUDA will not start"
        );
        return;
    };
    let arguments = [OsString::from("--"), OsString::from(module)];
    let program = Program {
        name: None,
        inherits: true,
        path: &path,
        arguments: &arguments,
        without: &[],
        variables: &[],
        stdin_name: "coracle-modprobe",
        stdin: &[],
        most_stdout: 4096,
        deadline: Some(Instant::now() + LOAD),
    };
    match program.execute() {
        Ok(answer) if answer.status.success() => tracing::info!(module, "loaded a module of NVIDIA's driver"),
        Ok(answer) => {
            let said = coracle_program::excerpt(&answer.stderr);
            tracing::warn!(module, status = %answer.status, said, "cannot load a module of NVIDIA's driver: CUDA will not start");
        }
        Err(error) => {
            tracing::warn!(module, %error, "cannot load a module of NVIDIA's driver: CUDA will not start")
        }
    }
}

// === impl Wish ===

impl Wish {
    fn of(host: &Host) -> Self {
        let text = host.text("/proc/driver/nvidia/params").unwrap_or_default();
        Self {
            make: field(&text, "ModifyDeviceFiles").unwrap_or(1) != 0,
            mode: field(&text, "DeviceFileMode").unwrap_or(0o666) & 0o777,
            uid: field(&text, "DeviceFileUID").unwrap_or(0),
            gid: field(&text, "DeviceFileGID").unwrap_or(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};

    use super::*;
    use crate::testing::Tree;

    const DEVICES: &str = "Character devices:\n  1 mem\n195 nvidia\n195 nvidia-modeset\n195 nvidiactl\n237 nvidia-uvm\n238 nvidia-caps\n\nBlock devices:\n  9 nvidia-caps-imex\n";

    #[test]
    fn majors_of_drivers() {
        assert_eq!(major(DEVICES, &["nvidia-frontend", "nvidia"]), Some(195));
        assert_eq!(major(DEVICES, &["nvidia-caps"]), Some(238));
        assert_eq!(major(DEVICES, &["nvidia-caps-imex"]), None);
        assert_eq!(major("", &["nvidia"]), None);
    }

    fn partitioned() -> (Tree, Gpu) {
        let tree = Tree::new();
        tree.nvidia(&["0000:3b:00.0"]);
        tree.file("proc/devices", DEVICES);
        tree.file(
            "proc/driver/nvidia/capabilities/gpu0/mig/gi3/access",
            "DeviceFileMinor: 30\nDeviceFileMode: 292\n",
        );
        tree.file(
            "proc/driver/nvidia/capabilities/gpu0/mig/gi3/ci0/access",
            "DeviceFileMinor: 31\nDeviceFileMode: 292\n",
        );
        let mig = Mig {
            uuid: "MIG-1".to_owned(),
            profile: "1g.10gb".to_owned(),
            gpu_instance: 3,
            compute_instance: 0,
        };
        let gpu = Gpu {
            minor: 0,
            uuid: "GPU-1".to_owned(),
            model: String::new(),
            address: "0000:3b:00.0".to_owned(),
            partitions: Some(vec![mig]),
            links: Vec::new(),
        };
        (tree, gpu)
    }

    #[test]
    fn nodes_of_a_partition() {
        let (tree, gpu) = partitioned();
        let mig = gpu.partitions.as_ref().and_then(|it| it.first()).expect("a partition");
        let nodes = of_partition(&tree.host(), &gpu, mig).expect("nodes");
        assert_eq!(nodes, ["/dev/nvidia-caps/nvidia-cap30", "/dev/nvidia-caps/nvidia-cap31"]);
        let other = Mig { gpu_instance: 4, ..mig.clone() };
        assert_eq!(of_partition(&tree.host(), &gpu, &other), None);
    }

    #[test]
    fn makes_what_is_missing_as_the_driver_wishes() {
        if !rustix::process::geteuid().is_root() {
            return eprintln!("skipped: only root may make device nodes");
        }
        let (tree, gpu) = partitioned();
        for path in ["dev/nvidia0", "dev/nvidia-uvm", "dev/nvidia-uvm-tools"] {
            fs::remove_file(tree.path(path)).expect("a node less");
        }
        tree.file(
            "proc/driver/nvidia/params",
            "ModifyDeviceFiles: 1\nDeviceFileUID: 7\nDeviceFileGID: 44\nDeviceFileMode: 432\n",
        );
        prepare(&tree.host(), &[gpu]);
        let made = ["dev/nvidia0", "dev/nvidia-uvm", "dev/nvidia-uvm-tools", "dev/nvidia-caps/nvidia-cap31"]
            .map(|path| {
                let node = tree.path(path).metadata().expect("a node");
                assert!(node.file_type().is_char_device());
                let device = node.rdev();
                (
                    rustix::fs::major(device),
                    rustix::fs::minor(device),
                    node.mode() & 0o7777,
                    node.uid(),
                    node.gid(),
                )
            });
        assert_eq!(
            made,
            [(195, 0, 0o660, 7, 44), (237, 0, 0o660, 7, 44), (237, 1, 0o660, 7, 44), (238, 31, 0o660, 7, 44)]
        );
        assert!(!tree.path("dev/nvidiactl").metadata().expect("it was there").file_type().is_char_device());
    }

    #[test]
    fn makes_none_where_the_driver_wishes_that() {
        let (tree, gpu) = partitioned();
        fs::remove_file(tree.path("dev/nvidia0")).expect("a node less");
        tree.file("proc/driver/nvidia/params", "ModifyDeviceFiles: 0\n");
        prepare(&tree.host(), &[gpu]);
        assert!(!tree.path("dev/nvidia0").exists());
    }
}
