//! Sysctls of a network namespace.

use std::fs;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;

use coracle_cni::{CniError, PluginConfig, code};
use coracle_linux::in_network_namespace;

use crate::interface::failure::{damaged, failure, file};

/// What stands for the interface in a name.
const IFNAME: &str = "IFNAME";

/// The file of a sysctl by its name, as sysctl(8) has it: the first separator, `.` or `/`, is that of the whole name, and
/// the other one stands for a dot within a part. `None` for what is not a network namespace's.
pub(super) fn path(name: &str, ifname: &str) -> Option<PathBuf> {
    let separator = name.chars().find(|c| ['.', '/'].contains(c))?;
    let parts: Vec<String> = name
        .split(separator)
        .map(|part| if separator == '.' { part.replace('/', ".") } else { part.to_owned() })
        .map(|part| part.replace(IFNAME, ifname))
        .collect();
    let fine = |part: &String| !["", ".", ".."].contains(&part.as_str()) && !part.contains(['/', '\0']);
    let is_of_network = parts.len() > 1 && parts[0] == "net" && parts.iter().all(fine);
    is_of_network.then(|| PathBuf::from("/proc/sys").join(parts.join("/")))
}

/// # Errors
/// [`code::IO`], [`code::KERNEL`].
pub(super) fn write(
    config: &PluginConfig,
    namespace: BorrowedFd<'_>,
    sysctls: &[(PathBuf, String)],
) -> Result<(), CniError> {
    within(config, namespace, sysctls, |path, value| {
        fs::write(path, value).map_err(|error| file(config, "write to", path.display(), &error))
    })
}

/// # Errors
/// [`code::CHECK_FAILED`], [`code::IO`], [`code::KERNEL`].
pub(super) fn check(
    config: &PluginConfig,
    namespace: BorrowedFd<'_>,
    sysctls: &[(PathBuf, String)],
) -> Result<(), CniError> {
    within(config, namespace, sysctls, |path, value| {
        let is = fs::read_to_string(path).map_err(|error| file(config, "read", path.display(), &error))?;
        // Of several numbers the kernel has its own way to separate them.
        if is.split_whitespace().eq(value.split_whitespace()) {
            return Ok(());
        }
        Err(damaged(config, format_args!("{} is {:?} instead of {value:?}", path.display(), is.trim_end())))
    })
}

fn within(
    config: &PluginConfig,
    namespace: BorrowedFd<'_>,
    sysctls: &[(PathBuf, String)],
    mut each: impl FnMut(&PathBuf, &str) -> Result<(), CniError>,
) -> Result<(), CniError> {
    if sysctls.is_empty() {
        return Ok(());
    }
    let all = || sysctls.iter().try_for_each(|(path, value)| each(path, value));
    let entered: io::Result<_> = in_network_namespace(namespace, all);
    entered.map_err(|error| {
        failure(config, code::KERNEL, format_args!("enter the network namespace: {error}"))
    })?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sysctls_of_network_namespaces_have_a_path() {
        let cases = [
            ("net.ipv4.ip_forward", Some("/proc/sys/net/ipv4/ip_forward")),
            ("net/ipv4/ip_forward", Some("/proc/sys/net/ipv4/ip_forward")),
            ("net.ipv4.conf.IFNAME.arp_filter", Some("/proc/sys/net/ipv4/conf/eth0.5/arp_filter")),
            ("net.ipv4.conf.eth0/7.arp_filter", Some("/proc/sys/net/ipv4/conf/eth0.7/arp_filter")),
            ("net/ipv4/conf/eth0.7/arp_filter", Some("/proc/sys/net/ipv4/conf/eth0.7/arp_filter")),
            ("kernel.hostname", None),
            ("net", None),
            ("net.", None),
            ("net..ipv4", None),
            ("net/../kernel/hostname", None),
            ("net.//.kernel.hostname", None),
            (".net.ipv4.ip_forward", None),
            ("", None),
        ];
        for (name, expected) in cases {
            assert_eq!(path(name, "eth0.5"), expected.map(PathBuf::from), "{name}");
        }
    }
}
