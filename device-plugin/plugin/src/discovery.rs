//! What there is now, of everything that is configured.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use coracle_nvml::Nvml;

use crate::config::Config;
use crate::device::{Device, Resource};
use crate::host::Host;
use crate::memory::Memory;
use crate::nvidia::{self, Description, Found, Source};
use crate::{amd, generic, intel};

/// Where nodes of GPUs come and go.
const GPU_DIRECTORIES: &[&str] = &["/dev", "/dev/dri", "/dev/nvidia-caps"];

/// Looks at the machine, and remembers what it saw.
pub(crate) struct Discovery {
    config: Arc<Config>,
    host: Host,
    /// The command by which our hooks are executed.
    hook: Vec<String>,
    memory: Memory,
    library: Option<Nvml>,
    gpus: Option<Gpus>,
    /// GPUs that had an error, by UUID, and which.
    sick: BTreeMap<String, String>,
    /// Nodes that more than one resource offers, which has been told.
    doubled: BTreeSet<String>,
}

/// GPUs of NVIDIA, as they were found last.
struct Gpus {
    found: Found,
    description: Arc<Description>,
}

/// What was seen.
pub(crate) struct Sight {
    /// What is offered.
    pub(crate) resources: Vec<Resource>,
    /// Directories whose changes can change that.
    pub(crate) looked: BTreeSet<PathBuf>,
    /// How GPUs of NVIDIA are described to runtimes, if there are any.
    pub(crate) description: Option<Arc<Description>>,
    /// Who tells of errors of which GPUs (UUID and address).
    pub(crate) watched: Option<(Source, Vec<(String, String)>)>,
}

/// Which GPU an error is told of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    Uuid(String),
    Address(String),
    /// One of them, and nobody knows which.
    Any,
}

/// Whether the nodes of GPUs of NVIDIA change with what came or went of this name.
pub(crate) fn concerns_nvidia(directory: &Path, name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b"nvidia")
        || ["dri", "nvidia-caps"].iter().any(|of| name == *of || directory.ends_with(of))
}

// === impl Discovery ===

impl Discovery {
    pub(crate) fn new(config: Arc<Config>, root: &Path, hook: Vec<String>) -> Self {
        let (memory, sick, doubled) = (Memory::default(), BTreeMap::new(), BTreeSet::new());
        Self { config, host: Host::new(root), hook, memory, library: None, gpus: None, sick, doubled }
    }

    /// Looks. `anew`: GPUs of NVIDIA may be others than last time, and their driver is asked. Blocks.
    pub(crate) fn look(&mut self, anew: bool) -> Sight {
        let config = Arc::clone(&self.config);
        let mut looked = BTreeSet::new();
        let mut resources: Vec<Resource> =
            config.resources.iter().map(|one| generic::discover(one, &self.host, &mut looked)).collect();
        self.tell_doubled(&resources);
        if config.nvidia.enabled || config.amd.enabled || config.intel.enabled {
            let directories = GPU_DIRECTORIES.iter().map(|path| self.host.at(path));
            looked.extend(directories.filter(|path| path.is_dir()));
        }
        if config.nvidia.enabled {
            if anew {
                self.find_nvidia();
            }
            resources.extend(self.offer_nvidia());
        }
        if config.amd.enabled {
            resources.extend(amd::discover(config.amd, &self.host));
        }
        if config.intel.enabled {
            resources.extend(intel::discover(config.intel, &self.host));
        }
        let identity = |gpu: &coracle_nvml::Gpu| (gpu.uuid.clone(), gpu.address.clone());
        Sight {
            resources: self.memory.complete(merged(resources)),
            looked,
            description: self.gpus.as_ref().map(|gpus| Arc::clone(&gpus.description)),
            watched: self
                .gpus
                .as_ref()
                .map(|gpus| (gpus.found.source.clone(), gpus.found.gpus.iter().map(identity).collect())),
        }
    }

    /// Two resources with one device are what a configuration may want, or a pattern that matches too much.
    fn tell_doubled(&mut self, resources: &[Resource]) {
        let mut first: BTreeMap<&str, &str> = BTreeMap::new();
        let mut doubled = BTreeSet::new();
        for resource in resources {
            for node in resource.devices.iter().filter_map(|device| device.grant.nodes.first()) {
                let other = *first.entry(&node.host_path).or_insert(&resource.name);
                if other != resource.name
                    && doubled.insert(node.host_path.clone())
                    && !self.doubled.contains(&node.host_path)
                {
                    tracing::warn!(
                        node = node.host_path,
                        resource = resource.name,
                        other,
                        "two resources offer one device: a container can have it while another has it too"
                    );
                }
            }
        }
        self.doubled = doubled;
    }

    /// A GPU had an error. Whether that makes a difference.
    pub(crate) fn is_sick(&mut self, which: &Which, why: &str) -> bool {
        let Some(gpus) = &self.gpus else { return false };
        let meant = |gpu: &&coracle_nvml::Gpu| match which {
            Which::Uuid(uuid) => {
                gpu.uuid == *uuid || gpu.partitions.iter().flatten().any(|mig| mig.uuid == *uuid)
            }
            Which::Address(address) => gpu.address == *address,
            Which::Any => true,
        };
        let mut any = false;
        for gpu in gpus.found.gpus.iter().filter(meant) {
            any |= self.sick.insert(gpu.uuid.clone(), why.to_owned()).is_none();
        }
        any
    }

    fn find_nvidia(&mut self) {
        let candidates = nvidia::management_libraries(&self.host);
        let Some(mut found) = nvidia::find(&self.host, &candidates, self.library.as_ref()) else {
            if self.gpus.take().is_some() {
                tracing::warn!("the GPUs of NVIDIA are gone");
            }
            (self.library, self.sick) = (None, BTreeMap::new());
            return;
        };
        if self.config.nvidia.prepare {
            nvidia::prepare(&self.host, &found.gpus);
        }
        match &found.source {
            Source::Library(library) => self.library = Some(library.clone()),
            Source::Files { why } => {
                // What was loaded does not answer any more: the driver was replaced.
                if self.library.take().is_some()
                    && let Some(again) = nvidia::find(&self.host, &candidates, None)
                {
                    if let Source::Library(library) = &again.source {
                        self.library = Some(library.clone());
                    }
                    found = again;
                } else {
                    tracing::warn!(
                        why,
                        "NVIDIA's management library cannot be used; GPUs are found without it, their partitions are not"
                    );
                }
            }
        }
        // One that went and came was reset.
        let there: BTreeSet<&str> = found.gpus.iter().map(|gpu| gpu.uuid.as_str()).collect();
        self.sick.retain(|uuid, _| there.contains(uuid.as_str()));
        let description = Description::new(&self.host, &found.gpus, &found.version, &self.hook);
        self.gpus = Some(Gpus { found, description: Arc::new(description) });
    }

    fn offer_nvidia(&mut self) -> Vec<Resource> {
        let Some(gpus) = &self.gpus else { return Vec::new() };
        let mut resources = nvidia::offer(&self.config.nvidia, &self.host, &gpus.found, &gpus.description);
        // By the UUIDs of GPUs and of their partitions.
        let mut sick: BTreeMap<&str, &String> = BTreeMap::new();
        for gpu in &gpus.found.gpus {
            if let Some(why) = self.sick.get(&gpu.uuid) {
                sick.insert(&gpu.uuid, why);
                sick.extend(gpu.partitions.iter().flatten().map(|mig| (mig.uuid.as_str(), why)));
            }
        }
        for device in resources.iter_mut().flat_map(|resource| &mut resource.devices) {
            if let Some(why) = sick.get(device.id.as_str()) {
                device.unhealthy = Some((*why).clone());
            }
        }
        resources
    }
}

/// What a configuration gives the name of a resource that is found by itself is left out: one socket serves one name.
fn merged(resources: Vec<Resource>) -> Vec<Resource> {
    let mut names = BTreeSet::new();
    let (first, doubled): (Vec<_>, Vec<_>) =
        resources.into_iter().partition(|resource| names.insert(resource.name.clone()));
    for resource in doubled {
        tracing::error!(
            resource = resource.name,
            "a configured resource has the name of one that is found by itself, which is not offered"
        );
    }
    first
}

/// Devices of a resource that cannot be used, and why.
pub(crate) fn complaints(resource: &Resource) -> BTreeMap<String, String> {
    let complaint = |device: &Device| Some((device.id.clone(), device.unhealthy.clone()?));
    resource.devices.iter().filter_map(complaint).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Tree;

    const FIRST: &str = "GPU-00000000-0000-0000-0000-000000000000";
    const SECOND: &str = "GPU-00000000-0000-0000-0000-000000000001";

    fn discovery(tree: &Tree, config: &str) -> Discovery {
        let config = Config::decode(config.as_bytes(), "test").expect("a configuration");
        Discovery::new(Arc::new(config), tree.path("").as_path(), vec!["/usr/bin/coracle".to_owned()])
    }

    fn health(sight: &Sight) -> Vec<(String, Vec<(String, bool)>)> {
        let devices =
            |it: &Resource| it.devices.iter().map(|it| (it.id.clone(), it.unhealthy.is_none())).collect();
        sight.resources.iter().map(|it| (it.name.clone(), devices(it))).collect()
    }

    fn expected(resources: &[(&str, &[(&str, bool)])]) -> Vec<(String, Vec<(String, bool)>)> {
        let devices =
            |ids: &[(&str, bool)]| ids.iter().map(|(id, healthy)| ((*id).to_owned(), *healthy)).collect();
        resources.iter().map(|(name, ids)| ((*name).to_owned(), devices(ids))).collect()
    }

    #[test]
    fn every_kind_of_gpu_beside_what_is_configured() {
        let tree = Tree::new();
        tree.nvidia(&["0000:3b:00.0", "0000:86:00.0"]);
        tree.drm("0000:02:00.0", "0x8086", "xe", 8, 138);
        tree.file("dev/fuse", "");
        let mut discovery = discovery(
            &tree,
            "resources: [{name: coracle.dev/fuse, devices: [{paths: [{path: /dev/fuse}]}]}]",
        );
        let sight = discovery.look(true);
        assert_eq!(
            health(&sight),
            expected(&[
                ("coracle.dev/fuse", &[("fuse", true)]),
                ("gpu.intel.com/xe", &[("0000:02:00.0", true)]),
                ("nvidia.com/gpu", &[(FIRST, true), (SECOND, true)]),
            ])
        );
        assert!(sight.looked.contains(&tree.path("dev/dri")));
        assert!(sight.description.is_some());
        let (_, watched) = sight.watched.expect("GPUs are watched");
        assert_eq!(watched[1], (SECOND.to_owned(), "0000:86:00.0".to_owned()));
    }

    #[test]
    fn a_sick_gpu_is_unhealthy_until_it_went_and_came() {
        let tree = Tree::new();
        tree.nvidia(&["0000:3b:00.0", "0000:86:00.0"]);
        let mut discovery = discovery(&tree, "");
        discovery.look(true);
        assert!(!discovery.is_sick(&Which::Address("0000:01:00.0".to_owned()), "XID 79"));
        assert!(discovery.is_sick(&Which::Address("0000:86:00.0".to_owned()), "XID 79"));
        assert!(!discovery.is_sick(&Which::Uuid(SECOND.to_owned()), "XID 80"), "it is sick already");
        let sick = expected(&[("nvidia.com/gpu", &[(FIRST, true), (SECOND, false)])]);
        assert_eq!(health(&discovery.look(false)), sick);
        assert_eq!(health(&discovery.look(true)), sick);
        let information = tree.path("proc/driver/nvidia/gpus/0000:86:00.0/information");
        let text = std::fs::read(&information).expect("a file");
        std::fs::remove_file(&information).expect("a GPU less");
        assert_eq!(health(&discovery.look(true)), sick, "it is remembered");
        std::fs::write(&information, text).expect("a file");
        assert_eq!(
            health(&discovery.look(true)),
            expected(&[("nvidia.com/gpu", &[(FIRST, true), (SECOND, true)])])
        );
        assert!(discovery.is_sick(&Which::Any, "lost"));
        assert_eq!(
            health(&discovery.look(false)),
            expected(&[("nvidia.com/gpu", &[(FIRST, false), (SECOND, false)])])
        );
    }

    #[test]
    fn what_is_switched_off_is_not_looked_for() {
        let tree = Tree::new();
        tree.nvidia(&["0000:3b:00.0"]);
        tree.drm("0000:02:00.0", "0x8086", "xe", 8, 138);
        let mut off =
            discovery(&tree, "{nvidia: {enabled: false}, amd: {enabled: false}, intel: {enabled: false}}");
        let sight = off.look(true);
        assert_eq!((sight.resources.len(), sight.looked.len()), (0, 0));
    }

    #[test]
    fn a_name_is_offered_once() {
        let tree = Tree::new();
        tree.nvidia(&["0000:3b:00.0"]);
        let mut doubled = discovery(
            &tree,
            "resources: [{name: nvidia.com/gpu, devices: [{paths: [{path: /dev/nvidia0}]}]}]",
        );
        assert_eq!(health(&doubled.look(true)), expected(&[("nvidia.com/gpu", &[("nvidia0", true)])]));
    }

    #[test]
    fn what_concerns_nvidias_driver() {
        let concerns = |directory: &str, name: &str| concerns_nvidia(Path::new(directory), OsStr::new(name));
        assert!(
            concerns("/dev", "nvidia0")
                && concerns("/dev/dri", "card0")
                && concerns("/dev/nvidia-caps", "x")
                && concerns("/dev", "dri")
        );
        assert!(!concerns("/dev", "ttyUSB0") && !concerns("/dev", "loop0"));
    }
}
