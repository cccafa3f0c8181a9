//! Which GPUs there are: by the driver's library, or without it by what the driver shows in /proc.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use coracle_nvml::{Gpu, Nvml};

use crate::host::Host;

/// Where the driver shows its GPUs.
const GPUS: &str = "/proc/driver/nvidia/gpus";

/// What was found.
pub(crate) struct Found {
    /// GPUs, in order of their nodes.
    pub(crate) gpus: Vec<Gpu>,
    /// The version of the kernel's driver; the libraries have the same.
    pub(crate) version: String,
    /// Who told.
    pub(crate) source: Source,
}

/// Who tells of GPUs.
#[derive(Clone)]
pub(crate) enum Source {
    /// The driver's library.
    Library(Nvml),
    /// /proc and /sys, because the library cannot be used.
    Files {
        /// Why.
        why: String,
    },
}

/// What there is; `None` without a driver that has a GPU. Blocks, and makes the driver wake GPUs that sleep.
///
/// `library` is a library that was loaded before; another is not loaded then.
pub(crate) fn find(host: &Host, candidates: &[PathBuf], library: Option<&Nvml>) -> Option<Found> {
    // Without the kernel's driver the library is not even loaded.
    let version = host
        .text("/sys/module/nvidia/version")
        .or_else(|| version_of(&host.text("/proc/driver/nvidia/version")?))?;
    let loaded = match library {
        Some(library) => Ok(library.clone()),
        None => load(host, candidates),
    };
    let (mut gpus, source) = match loaded.and_then(|library| Ok((listed(&library)?, library))) {
        Ok((gpus, library)) => (gpus, Source::Library(library)),
        Err(why) => (in_proc(host), Source::Files { why }),
    };
    gpus.sort_by_key(|gpu| gpu.minor);
    (!gpus.is_empty()).then_some(Found { gpus, version, source })
}

/// Loads the first of the libraries that can be; where none is known, by its name.
fn load(host: &Host, candidates: &[PathBuf]) -> Result<Nvml, String> {
    let by_name = host.is_own().then_some(Path::new("libnvidia-ml.so.1"));
    let mut why = "there is no libnvidia-ml.so.1".to_owned();
    for path in candidates.iter().map(PathBuf::as_path).chain(by_name) {
        match Nvml::load(path) {
            Ok(library) => return Ok(library),
            Err(error) => why = error.to_string(),
        }
    }
    Err(why)
}

fn listed(library: &Nvml) -> Result<Vec<Gpu>, String> {
    let (gpus, failed) = library.gpus().map_err(|error| error.to_string())?;
    for error in failed {
        tracing::warn!(%error, "a GPU of NVIDIA cannot be asked, and is not offered");
    }
    Ok(gpus)
}

/// `NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.15  Release Build`
fn version_of(text: &str) -> Option<String> {
    let line = text.lines().find(|line| line.starts_with("NVRM version"))?;
    let is_version = |word: &&str| {
        word.contains('.')
            && word.split('.').all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()))
    };
    line.split_whitespace().find(is_version).map(str::to_owned)
}

fn in_proc(host: &Host) -> Vec<Gpu> {
    host.names(GPUS).iter().filter_map(|address| gpu_in_proc(host, address)).collect()
}

fn gpu_in_proc(host: &Host, address: &str) -> Option<Gpu> {
    let text = host.text(&format!("{GPUS}/{address}/information"))?;
    let fields: BTreeMap<&str, &str> = text
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.trim(), value.trim()))
        .collect();
    // A GPU that the driver was told to leave alone.
    if fields.get("GPU Excluded").is_some_and(|excluded| *excluded == "Yes") {
        return None;
    }
    let minor = fields.get("Device Minor")?.parse().ok()?;
    // The driver does not know the UUID of one that nobody has used yet.
    let uuid = fields
        .get("GPU UUID")
        .filter(|uuid| !uuid.contains('?'))
        .map_or_else(|| format!("GPU-{address}"), |uuid| (*uuid).to_owned());
    let partitions = host.names(&format!("/proc/driver/nvidia/capabilities/gpu{minor}/mig"));
    let partitioned = partitions.iter().any(|name| name.starts_with("gi"));
    Some(Gpu {
        minor,
        uuid,
        model: (*fields.get("Model").unwrap_or(&"")).to_owned(),
        address: address.to_owned(),
        // That there are some shows, which they are does not.
        partitions: partitioned.then(Vec::new),
        links: Vec::new(),
    })
}

// === impl Found ===

impl Found {
    /// How many NVLinks connect each pair of GPUs, by their UUIDs in order.
    pub(crate) fn links(&self) -> BTreeMap<(String, String), u32> {
        let mut links = BTreeMap::new();
        for gpu in &self.gpus {
            for other in self.gpus.iter().filter(|other| other.uuid > gpu.uuid) {
                let direct = gpu.links.iter().filter(|end| **end == other.address).count();
                // Behind a switch every GPU reaches every other with all of its links.
                let switched = |gpu: &Gpu| {
                    gpu.links.iter().filter(|end| !self.gpus.iter().any(|it| it.address == **end)).count()
                };
                let there = direct + switched(gpu).min(switched(other));
                if there > 0 {
                    links.insert(
                        (gpu.uuid.clone(), other.uuid.clone()),
                        u32::try_from(there).unwrap_or(u32::MAX),
                    );
                }
            }
        }
        links
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Tree;

    #[test]
    fn versions_of_both_kernel_modules() {
        let closed = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023\nGCC version:  gcc version 12.3.0";
        assert_eq!(version_of(closed).as_deref(), Some("535.104.05"));
        let open = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.15  Release Build  (dvs)";
        assert_eq!(version_of(open).as_deref(), Some("570.86.15"));
        assert_eq!(version_of("GCC version: gcc 12.3.0"), None);
    }

    #[test]
    fn gpus_in_proc() {
        let tree = Tree::new();
        tree.nvidia(&["0000:3b:00.0", "0000:86:00.0"]);
        tree.file(
            "proc/driver/nvidia/gpus/0000:af:00.0/information",
            "Model: NVIDIA T4\nGPU UUID: GPU-????????-????-????-????-????????????\nDevice Minor: 2\nGPU Excluded: No\n",
        );
        tree.file("proc/driver/nvidia/gpus/0000:b0:00.0/information", "Device Minor: 3\nGPU Excluded: Yes\n");
        tree.file("proc/driver/nvidia/capabilities/gpu1/mig/gi1/access", "DeviceFileMinor: 12\n");
        let found = find(&tree.host(), &[], None).expect("GPUs");
        assert_eq!(found.version, "570.86.15");
        assert!(matches!(&found.source, Source::Files { why } if why.contains("libnvidia-ml")));
        let gpus: Vec<_> = found
            .gpus
            .iter()
            .map(|it| (it.minor, it.uuid.as_str(), it.address.as_str(), it.partitions.is_some()))
            .collect();
        assert_eq!(
            gpus,
            [
                (0, "GPU-00000000-0000-0000-0000-000000000000", "0000:3b:00.0", false),
                (1, "GPU-00000000-0000-0000-0000-000000000001", "0000:86:00.0", true),
                (2, "GPU-0000:af:00.0", "0000:af:00.0", false),
            ]
        );
    }

    #[test]
    fn links_through_switches_and_without() {
        let gpu = |minor: u32, links: &[&str]| Gpu {
            minor,
            uuid: format!("GPU-{minor}"),
            model: String::new(),
            address: format!("0000:0{minor}:00.0"),
            partitions: None,
            links: links.iter().map(|it| (*it).to_owned()).collect(),
        };
        let found = Found {
            gpus: vec![
                gpu(0, &["0000:01:00.0", "0000:01:00.0", "0000:f0:00.0"]),
                gpu(1, &["0000:00:00.0", "0000:00:00.0", "0000:f0:00.0"]),
                gpu(2, &[]),
            ],
            version: String::new(),
            source: Source::Files { why: String::new() },
        };
        let expected = [(("GPU-0".to_owned(), "GPU-1".to_owned()), 3)];
        assert_eq!(found.links(), expected.into());
    }

    #[test]
    fn without_a_driver_there_is_nothing() {
        assert!(find(&Tree::new().host(), &[], None).is_none());
    }
}
