//! Which port leads to which, as kubectl reads it.

use anyhow::{Context, anyhow, bail};
use coracle_server::client::{Container, Pod, Port};

/// A port here and the one in the pod that it leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Forward {
    /// 0 for any that is free.
    pub(super) local: u16,
    /// Never 0.
    pub(super) remote: u16,
}

/// Reads `REMOTE`, `LOCAL:REMOTE` or `:REMOTE`, where the remote port may be the name a container of the
/// pod gives it.
pub(super) fn parse(text: &str, pod: &Pod) -> anyhow::Result<Forward> {
    let (local, remote) = match text.split_once(':') {
        None => (None, text),
        Some((_, remote)) if remote.contains(':') => bail!("invalid port format '{text}'"),
        Some((local, remote)) => (Some(local), remote),
    };
    let remote = match remote.parse() {
        Ok(port) => port,
        Err(_) if remote.contains(|c: char| c.is_ascii_alphabetic()) => named(remote, pod)?,
        Err(error) => return Err(error).context(format!("error parsing remote port '{remote}'")),
    };
    if remote == 0 {
        bail!("remote port must be > 0");
    }
    if only_udp(remote, pod) {
        bail!("UDP protocol is not supported for {remote}");
    }
    let local = match local {
        None => remote,
        Some("") => 0,
        Some(local) => local.parse().with_context(|| format!("error parsing local port '{local}'"))?,
    };
    Ok(Forward { local, remote })
}

fn named(name: &str, pod: &Pod) -> anyhow::Result<u16> {
    let found = ports(pod).find(|port| port.name == name).map(|port| port.container_port);
    found.ok_or_else(|| anyhow!("Pod '{}' does not have a named port '{name}'", pod.metadata.name))
}

/// Whether the pod declares the port, and for UDP alone.
fn only_udp(number: u16, pod: &Pod) -> bool {
    let mut declared = ports(pod).filter(|port| port.container_port == number).peekable();
    declared.peek().is_some() && declared.all(|port| port.protocol == "UDP")
}

fn ports(pod: &Pod) -> impl Iterator<Item = &Port> {
    pod.spec.containers.iter().flat_map(|container: &Container| &container.ports)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod() -> Pod {
        let port = |name: &str, container_port, protocol: &str| Port {
            name: name.to_owned(),
            container_port,
            host_port: None,
            protocol: protocol.to_owned(),
        };
        let ports = vec![port("http", 8080, "TCP"), port("dns", 53, "UDP"), port("both", 54, "UDP")];
        let more = vec![port("", 54, "TCP")];
        let containers =
            [ports, more].map(|ports| Container { ports, ..Container::default() }).into_iter().collect();
        let mut pod = Pod::default();
        pod.metadata.name = "web".to_owned();
        pod.spec.containers = containers;
        pod
    }

    #[test]
    fn ports_are_read_as_kubectl_reads_them() {
        for (text, local, remote) in [
            ("80", 80, 80),
            ("8080:80", 8080, 80),
            (":80", 0, 80),
            ("0:80", 0, 80),
            ("http", 8080, 8080),
            ("80:http", 80, 8080),
            ("54", 54, 54),
        ] {
            assert_eq!(parse(text, &pod()).unwrap(), Forward { local, remote }, "{text}");
        }
        for (text, message) in [
            ("1:2:3", "invalid port format '1:2:3'"),
            ("80:0", "remote port must be > 0"),
            ("0", "remote port must be > 0"),
            ("x:80", "error parsing local port 'x': invalid digit found in string"),
            ("80:", "error parsing remote port '': cannot parse integer from empty string"),
            ("65536", "error parsing remote port '65536': number too large to fit in target type"),
            ("https", "Pod 'web' does not have a named port 'https'"),
            ("53", "UDP protocol is not supported for 53"),
        ] {
            assert_eq!(format!("{:#}", parse(text, &pod()).unwrap_err()), message, "{text}");
        }
    }
}
