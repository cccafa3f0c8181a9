//! /etc/hosts.

use std::fmt::Write as _;
use std::net::IpAddr;

use coracle_model::{HostAlias, PodNames};

const LOOPBACK: &str = "127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::0\tip6-localnet
fe00::0\tip6-mcastprefix
fe00::1\tip6-allnodes
fe00::2\tip6-allrouters
";

/// What a pod is known by in its /etc/hosts.
#[derive(Clone, Copy, Debug)]
pub enum Names<'a> {
    /// It is in the host's network: this is the host's own file, as far as there is one.
    Host(&'a str),
    /// It has names of its own.
    Own {
        /// Which.
        names: &'a PodNames,
        /// Its addresses. Without any, its name stands for the loopback interface, the only one it has.
        addresses: &'a [IpAddr],
    },
}

/// The content of /etc/hosts, as the kubelet writes it.
pub fn hosts(of: Names<'_>, aliases: &[HostAlias]) -> String {
    let mut text;
    match of {
        Names::Host(host) => {
            text = format!("# Kubernetes-managed hosts file (host network).\n{host}");
            if !text.ends_with('\n') {
                text.push('\n');
            }
        }
        Names::Own { names, addresses } => {
            text = format!("# Kubernetes-managed hosts file.\n{LOOPBACK}");
            let loopback = [IpAddr::from([127, 0, 0, 1])];
            let addresses = if addresses.is_empty() { &loopback } else { addresses };
            for address in addresses {
                let name = &names.hostname;
                let full = names.domain.as_ref().map(|domain| format!("{name}.{domain}\t"));
                line(&mut text, address, &format!("{}{name}", full.unwrap_or_default()));
            }
        }
    }
    if !aliases.is_empty() {
        text.push_str("\n# Entries added by HostAliases.\n");
        for HostAlias { ip, hostnames } in aliases {
            let names: Vec<&str> = hostnames.iter().map(|name| name.as_str()).collect();
            line(&mut text, ip, &names.join("\t"));
        }
    }
    text
}

fn line(text: &mut String, address: &IpAddr, names: &str) {
    // Writing to a string does not fail.
    let _ = writeln!(text, "{address}\t{names}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_model::Name;

    #[test]
    fn a_pods_own() {
        let plain = PodNames { hostname: "web".into(), domain: None, kernel: "web".into() };
        let text = hosts(Names::Own { names: &plain, addresses: &["10.1.2.3".parse().unwrap()] }, &[]);
        let own = text.strip_prefix(&format!("# Kubernetes-managed hosts file.\n{LOOPBACK}")).unwrap();
        assert_eq!(own, "10.1.2.3\tweb\n");

        let domain = Some("db.shop.svc.cluster.local".to_owned());
        let names = PodNames { hostname: "web".into(), domain, kernel: "web".into() };
        let addresses = ["10.1.2.3".parse().unwrap(), "fd00::3".parse().unwrap()];
        let name = |text: &str| Name::subdomain(text).unwrap();
        let aliases = [
            HostAlias { ip: "10.9.8.7".parse().unwrap(), hostnames: vec![name("a.example"), name("a")] },
            HostAlias { ip: "2001:db8::1".parse().unwrap(), hostnames: vec![name("b")] },
        ];
        let text = hosts(Names::Own { names: &names, addresses: &addresses }, &aliases);
        let own = text.split_once("ip6-allrouters\n").unwrap().1;
        assert_eq!(
            own,
            "10.1.2.3\tweb.db.shop.svc.cluster.local\tweb\nfd00::3\tweb.db.shop.svc.cluster.local\tweb\n\n\
             # Entries added by HostAliases.\n10.9.8.7\ta.example\ta\n2001:db8::1\tb\n"
        );
    }

    #[test]
    fn a_pod_without_an_address_still_knows_its_name() {
        let names = PodNames { hostname: "web".into(), domain: None, kernel: "web".into() };
        assert!(hosts(Names::Own { names: &names, addresses: &[] }, &[]).ends_with("\n127.0.0.1\tweb\n"));
    }

    #[test]
    fn the_hosts_own() {
        let alias = HostAlias { ip: "10.9.8.7".parse().unwrap(), hostnames: vec![Name::label("a").unwrap()] };
        assert_eq!(
            hosts(Names::Host("127.0.0.1 localhost"), &[alias]),
            "# Kubernetes-managed hosts file (host network).\n127.0.0.1 localhost\n\n\
             # Entries added by HostAliases.\n10.9.8.7\ta\n"
        );
    }
}
