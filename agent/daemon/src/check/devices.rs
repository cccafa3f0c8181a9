//! What pods can be given of devices.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::Path;

use coracle_cdi::Registry;

use super::Finding;
use crate::config::Config;

/// What programs of pods ask for by these names.
const COMMON: [&str; 3] = ["/dev/fuse", "/dev/kvm", "/dev/net/tun"];

pub(super) fn check(config: &Config) -> Vec<Finding> {
    let mut findings = vec![devices(Path::new("/"))];
    let socket = config.devices.plugin_dir.join("kubelet.sock");
    // The agent's own is one's own where the agent runs.
    if UnixStream::connect(&socket).is_ok() && UnixStream::connect(config.socket()).is_err() {
        findings.push(Finding::weaker(
            "device plugins",
            format!("another program listens on {}", socket.display()),
            "device plugins register there, and no pod gets devices",
            "stop it (is it a kubelet?), or set devicePluginDir",
        ));
    }
    let registry = Registry::new(&config.devices.cdi_spec_dirs);
    let faults = registry.faults();
    if !faults.is_empty() {
        findings.push(Finding::weaker(
            "CDI",
            faults.join("; "),
            "no container gets the devices that these specifications describe",
            "write them again with the vendor's tool",
        ));
    }
    findings
}

/// The devices below a root directory that pods are known to ask for.
fn devices(root: &Path) -> Finding {
    let dev = root.join("dev");
    let named = |directory: &Path, prefix: &str| {
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| Some(entry.file_name().to_str()?.to_owned()));
        let numbered = |name: &String| {
            let number = name.strip_prefix(prefix).unwrap_or_default();
            !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
        };
        names.filter(numbered).count()
    };
    let mut found = Vec::new();
    let nvidia = named(&dev, "nvidia");
    if nvidia > 0 {
        found.push(format!("GPUs of NVIDIA: {nvidia}"));
    }
    if dev.join("kfd").exists() {
        found.push("the compute interface of AMD's GPUs".to_owned());
    }
    let render = named(&dev.join("dri"), "renderD");
    if render > 0 {
        found.push(format!("render nodes: {render}"));
    }
    let common = COMMON.into_iter().filter(|path| root.join(&path[1..]).exists()).collect::<Vec<_>>();
    if !common.is_empty() {
        found.push(common.join(", "));
    }
    let found = if found.is_empty() { "none that pods usually ask for".to_owned() } else { found.join("; ") };
    Finding::ok("devices", found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_counted_by_the_names_of_their_nodes() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(devices(root.path()).found, "none that pods usually ask for");
        for path in ["dev/dri", "dev/net"] {
            fs::create_dir_all(root.path().join(path)).unwrap();
        }
        for path in [
            "dev/nvidia0",
            "dev/nvidia11",
            "dev/nvidiactl",
            "dev/nvidia-uvm",
            "dev/dri/card0",
            "dev/dri/renderD128",
            "dev/kfd",
            "dev/net/tun",
        ] {
            fs::write(root.path().join(path), "").unwrap();
        }
        assert_eq!(
            devices(root.path()).found,
            "GPUs of NVIDIA: 2; the compute interface of AMD's GPUs; render nodes: 1; /dev/net/tun"
        );
    }
}
