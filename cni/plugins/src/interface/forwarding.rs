//! The host passes on what pods send.

use std::fs;
use std::io;
use std::path::Path;

use coracle_cni::{CniError, PluginConfig};
use coracle_netlink::{Family, Socket};

use super::failure::{file, kernel};

const IPV4: &str = "/proc/sys/net/ipv4/ip_forward";
const IPV6: &str = "/proc/sys/net/ipv6/conf/all/forwarding";
const IPV6_INTERFACES: &str = "/proc/sys/net/ipv6/conf";

/// Turns forwarding on for the families asked for, where it is off.
///
/// # Errors
/// [`coracle_cni::code::IO`], [`coracle_cni::code::KERNEL`].
pub(crate) fn enable(
    config: &PluginConfig,
    host: &mut Socket,
    ipv4: bool,
    ipv6: bool,
) -> Result<(), CniError> {
    for (wanted, family, path) in [(ipv4, Family::Ipv4, IPV4), (ipv6, Family::Ipv6, IPV6)] {
        // Not read from the file: the names of other namespaces' sysctls are in the way to it.
        if !wanted || host.forwards(family).map_err(kernel(config))? {
            continue;
        }
        if family == Family::Ipv6 {
            keep_router_advertisements(Path::new(IPV6_INTERFACES))
                .map_err(|error| file(config, "set accept_ra in", IPV6_INTERFACES, &error))?;
        }
        fs::write(path, "1").map_err(|error| file(config, "write to", path, &error))?;
    }
    Ok(())
}

/// Where the kernel follows router advertisements it would stop to with forwarding on, and the host would lose its
/// address and its default route. `accept_ra` 2 says to go on.
fn keep_router_advertisements(interfaces: &Path) -> io::Result<()> {
    for entry in fs::read_dir(interfaces)? {
        let entry = entry?;
        // Neither is an interface. What is made later is made by somebody who knows of forwarding.
        if ["all", "default"].iter().any(|name| entry.file_name() == *name) {
            continue;
        }
        let path = entry.path().join("accept_ra");
        match read(&path) {
            Ok(value) if value == "1" => fs::write(path, "2")?,
            Ok(_) => {}
            // It is gone meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn read(path: impl AsRef<Path>) -> io::Result<String> {
    Ok(fs::read_to_string(path)?.trim_end().to_owned())
}
