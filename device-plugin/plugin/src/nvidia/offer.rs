//! As which resources GPUs and their partitions are offered.

use std::collections::{BTreeMap, BTreeSet};

use coracle_nvml::{Gpu, Mig};

use super::gpus::{Found, Source};
use super::nodes;
use super::spec::Description;
use crate::config::{Delivery, MigStrategy, Nvidia};
use crate::device::{Device, Resource};
use crate::host::Host;

/// The resource of whole GPUs, and of partitions that are all alike.
const GPU: &str = "nvidia.com/gpu";

/// What is offered of what was found. What the configuration asks for and the machine has not is told.
pub(crate) fn offer(config: &Nvidia, host: &Host, found: &Found, description: &Description) -> Vec<Resource> {
    let mut resources: BTreeMap<String, Vec<Device>> = BTreeMap::new();
    let mut add = |name: String, device| resources.entry(name).or_default().push(device);
    let device = |uuid: &str, gpu: &Gpu, unhealthy: Option<String>| {
        let sysfs = format!("/sys/bus/pci/devices/{}", gpu.address);
        let grant = match config.delivery {
            Delivery::Cdi => Description::by_name(uuid),
            Delivery::DeviceSpecs => description.by_specs(uuid),
        };
        Device { id: uuid.to_owned(), unhealthy, numa: host.numa(&sysfs), place: host.place(&sysfs), grant }
    };
    let single = config.mig == MigStrategy::Single;
    if single && !alike(&found.gpus) {
        return Vec::new();
    }
    for gpu in &found.gpus {
        let own = nodes::of_gpu(gpu);
        let missing = host.node(&own).is_none().then(|| format!("there is no device node {own}"));
        match gpu.partitions.as_deref().filter(|_| config.mig != MigStrategy::None) {
            None => add(GPU.to_owned(), device(&gpu.uuid, gpu, missing)),
            Some(partitions) => {
                if let (true, Source::Files { why }) = (partitions.is_empty(), &found.source) {
                    tracing::warn!(
                        gpu = gpu.uuid,
                        why,
                        "the partitions of a GPU are not offered: only NVIDIA's library tells what they are"
                    );
                }
                for mig in partitions {
                    let missing = missing.clone().or_else(|| closed(host, gpu, mig));
                    let name = if single {
                        GPU.to_owned()
                    } else {
                        format!("nvidia.com/mig-{}", resource_of(&mig.profile))
                    };
                    add(name, device(&mig.uuid, gpu, missing));
                }
            }
        }
    }
    resources.into_iter().map(|(name, devices)| shared(config, found, name, devices)).collect()
}

/// Whether partitions can be told by nothing but their number.
fn alike(gpus: &[Gpu]) -> bool {
    let partitioned = gpus.iter().filter(|gpu| gpu.partitions.is_some()).count();
    if partitioned == 0 {
        return true;
    }
    let profiles: BTreeSet<&str> =
        gpus.iter().flat_map(|gpu| gpu.partitions.iter().flatten()).map(|mig| mig.profile.as_str()).collect();
    let alike = partitioned == gpus.len() && profiles.len() <= 1;
    if !alike {
        tracing::error!(
            ?profiles,
            partitioned,
            gpus = gpus.len(),
            "no GPU is offered: with migStrategy single all must be partitioned, and all partitions be of one size; use mixed"
        );
    }
    alike
}

/// Why a partition cannot be opened.
fn closed(host: &Host, gpu: &Gpu, mig: &Mig) -> Option<String> {
    match nodes::of_partition(host, gpu, mig) {
        None => Some("the driver does not show its capabilities".to_owned()),
        Some(paths) => paths
            .into_iter()
            .find(|path| host.node(path).is_none())
            .map(|path| format!("there is no device node {path}")),
    }
}

/// A profile as a resource's name has it: `1g.10gb+me` is `1g.10gb.me`.
fn resource_of(profile: &str) -> String {
    profile
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '.' | '-') { c } else { '.' })
        .collect()
}

fn shared(config: &Nvidia, found: &Found, name: String, devices: Vec<Device>) -> Resource {
    let sharing = &config.sharing;
    let shares = sharing.replicas.iter().find(|(of, _)| *of == name).map_or(1, |(_, replicas)| *replicas);
    let name = if shares > 1 && sharing.rename_by_default { format!("{name}.shared") } else { name };
    let mut resource = Resource::new(name, devices, shares);
    resource.one_share_only = shares > 1 && sharing.fail_requests_greater_than_one;
    resource.links = found.links();
    resource
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::TimeSlicing;
    use crate::testing::Tree;

    fn mig(number: u32, profile: &str) -> Mig {
        Mig {
            uuid: format!("MIG-{number}"),
            profile: profile.to_owned(),
            gpu_instance: number,
            compute_instance: 0,
        }
    }

    /// Two GPUs, of which the second has these partitions.
    fn machine(first: Option<Vec<Mig>>, second: Option<Vec<Mig>>) -> (Tree, Found) {
        let tree = Tree::new();
        tree.nvidia(&["0000:3b:00.0", "0000:86:00.0"]);
        let mut found = super::super::find(&tree.host(), &[], None).expect("GPUs");
        for (gpu, partitions) in found.gpus.iter_mut().zip([first, second]) {
            for mig in partitions.iter().flatten() {
                let instance =
                    format!("proc/driver/nvidia/capabilities/gpu{}/mig/gi{}", gpu.minor, mig.gpu_instance);
                let minor = gpu.minor * 100 + mig.gpu_instance * 10;
                tree.file(&format!("{instance}/access"), format!("DeviceFileMinor: {minor}\n"));
                tree.file(&format!("{instance}/ci0/access"), format!("DeviceFileMinor: {}\n", minor + 1));
                tree.file(&format!("dev/nvidia-caps/nvidia-cap{minor}"), "");
                tree.file(&format!("dev/nvidia-caps/nvidia-cap{}", minor + 1), "");
            }
            gpu.partitions = partitions;
        }
        (tree, found)
    }

    fn offered(config: &Nvidia, (tree, found): &(Tree, Found)) -> Vec<(String, Vec<String>)> {
        let description = Description::new(&tree.host(), &found.gpus, &found.version, &[]);
        let resources = offer(config, &tree.host(), found, &description);
        let healthy = |it: &Resource| {
            it.devices.iter().filter(|it| it.unhealthy.is_none()).map(|it| it.id.clone()).collect()
        };
        resources.iter().map(|it| (it.name.clone(), healthy(it))).collect()
    }

    const FIRST: &str = "GPU-00000000-0000-0000-0000-000000000000";
    const SECOND: &str = "GPU-00000000-0000-0000-0000-000000000001";

    fn expected(resources: &[(&str, &[&str])]) -> Vec<(String, Vec<String>)> {
        resources
            .iter()
            .map(|(name, ids)| ((*name).to_owned(), ids.iter().map(|id| (*id).to_owned()).collect()))
            .collect()
    }

    #[test]
    fn strategies_for_partitions() {
        let none = Nvidia::default();
        let single = Nvidia { mig: MigStrategy::Single, ..Nvidia::default() };
        let mixed = Nvidia { mig: MigStrategy::Mixed, ..Nvidia::default() };
        let whole: &[(&str, &[&str])] = &[("nvidia.com/gpu", &[FIRST, SECOND])];
        let plain = machine(None, None);
        for config in [&none, &single, &mixed] {
            assert_eq!(offered(config, &plain), expected(whole));
        }
        let half = machine(None, Some(vec![mig(1, "1g.10gb"), mig(2, "3g.40gb"), mig(3, "1g.10gb+me")]));
        assert_eq!(offered(&none, &half), expected(whole));
        assert_eq!(offered(&single, &half), []);
        let parts: &[(&str, &[&str])] = &[
            ("nvidia.com/gpu", &[FIRST]),
            ("nvidia.com/mig-1g.10gb", &["MIG-1"]),
            ("nvidia.com/mig-1g.10gb.me", &["MIG-3"]),
            ("nvidia.com/mig-3g.40gb", &["MIG-2"]),
        ];
        assert_eq!(offered(&mixed, &half), expected(parts));
        let alike = machine(Some(vec![mig(1, "1g.10gb")]), Some(vec![mig(2, "1g.10gb")]));
        assert_eq!(offered(&single, &alike), expected(&[("nvidia.com/gpu", &["MIG-1", "MIG-2"])]));
    }

    #[test]
    fn without_its_nodes_it_is_unhealthy() {
        let machine = machine(None, Some(vec![mig(1, "1g.10gb"), mig(2, "1g.10gb")]));
        std::fs::remove_file(machine.0.path("dev/nvidia-caps/nvidia-cap111")).expect("a node less");
        std::fs::remove_file(machine.0.path("dev/nvidia0")).expect("a node less");
        let mixed = Nvidia { mig: MigStrategy::Mixed, ..Nvidia::default() };
        assert_eq!(
            offered(&mixed, &machine),
            expected(&[("nvidia.com/gpu", &[]), ("nvidia.com/mig-1g.10gb", &["MIG-2"])])
        );
    }

    #[test]
    fn shares() {
        let machine = machine(None, None);
        let sharing = |rename| TimeSlicing {
            rename_by_default: rename,
            fail_requests_greater_than_one: true,
            replicas: vec![("nvidia.com/gpu".to_owned(), 4)],
        };
        let description = Description::new(&machine.0.host(), &machine.1.gpus, "", &[]);
        for (rename, name) in [(false, "nvidia.com/gpu"), (true, "nvidia.com/gpu.shared")] {
            let config = Nvidia { sharing: sharing(rename), ..Nvidia::default() };
            let resources = offer(&config, &machine.0.host(), &machine.1, &description);
            let summary: Vec<_> =
                resources.iter().map(|it| (it.name.as_str(), it.shares, it.one_share_only)).collect();
            assert_eq!(summary, [(name, 4, true)]);
        }
    }
}
