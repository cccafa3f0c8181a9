//! What a Node's status tells of the machine.

use std::collections::BTreeMap;
use std::fs;

use coracle_model::ExtendedResource;
use coracle_server::{Amounts, NodeStatus, SystemInfo};

use super::facts::NodeFacts;

/// What the node has, and how it is. `devices`: of each resource, all and those that work.
pub(super) fn status(
    facts: &NodeFacts,
    devices: &BTreeMap<ExtendedResource, (u64, u64)>,
    not_ready: Option<String>,
) -> NodeStatus {
    let now = facts.now();
    let amounts = |extended: BTreeMap<ExtendedResource, u64>| match &*now.allocatable {
        Ok(has) => {
            let (cpu, memory, ephemeral_storage) = (has.cpu, has.memory, has.ephemeral_storage);
            Amounts { cpu, memory, ephemeral_storage, extended }
        }
        Err(error) => {
            tracing::warn!(%error, "what the node has of CPUs, memory and disk cannot be told");
            Amounts { extended, ..Amounts::default() }
        }
    };
    let of = |count: fn(&(u64, u64)) -> u64| {
        devices.iter().map(|(resource, counts)| (resource.clone(), count(counts))).collect()
    };
    NodeStatus {
        addresses: now.addresses.to_vec(),
        capacity: amounts(of(|counts| counts.0)),
        allocatable: amounts(of(|counts| counts.1)),
        not_ready,
        system: system(),
    }
}

fn system() -> SystemInfo {
    let read = |path| fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default();
    SystemInfo {
        architecture: match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        }
        .to_owned(),
        boot_id: read("/proc/sys/kernel/random/boot_id"),
        kernel: read("/proc/sys/kernel/osrelease"),
        machine_id: read("/etc/machine-id"),
        os_image: distribution(&read("/etc/os-release")),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

/// `PRETTY_NAME` of os-release(5).
fn distribution(os_release: &str) -> String {
    let name = os_release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.unwrap_or("Linux").trim_matches(['"', '\'']).to_owned()
}

#[cfg(test)]
mod tests {
    use super::distribution;

    #[test]
    fn distributions_are_called_what_they_call_themselves() {
        let text = "NAME=Debian\nPRETTY_NAME=\"Debian GNU/Linux 13 (trixie)\"\n";
        assert_eq!(distribution(text), "Debian GNU/Linux 13 (trixie)");
        assert_eq!(distribution("PRETTY_NAME=Alpine"), "Alpine");
        assert_eq!(distribution(""), "Linux");
    }
}
