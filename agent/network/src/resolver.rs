//! /etc/resolv.conf, by resolv.conf(5) and the kubelet's rules.

use std::fmt;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::Path;

use coracle_cni::resolv_conf_lines;
use coracle_model::{DnsConfig, DnsPolicy, Pod};

use crate::NetworkError;

/// What the C library heeds, and Kubernetes allows.
const MAX_NAMESERVERS: usize = 3;
const MAX_SEARCHES: usize = 32;
const MAX_SEARCH_CHARACTERS: usize = 2048;

/// What the kubelet gives pods that ask a cluster's DNS.
const CLUSTER_OPTION: &str = "ndots:5";

/// Where systemd-resolved keeps what it was told by others. Its own address, in /etc/resolv.conf, is a
/// loopback one, which no pod with a network of its own reaches.
const BEHIND_RESOLVED: &str = "/run/systemd/resolve/resolv.conf";
const RESOLVED: [&str; 2] = ["127.0.0.53", "127.0.0.54"];

/// The settings of a resolver.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolver {
    /// Addresses, perhaps with a zone.
    pub nameservers: Vec<String>,
    /// Domains.
    pub searches: Vec<String>,
    /// Such as `ndots:5`.
    pub options: Vec<String>,
}

/// The DNS of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterDns {
    /// Its servers; none without a cluster.
    pub servers: Vec<IpAddr>,
    /// What its names end in; may be empty.
    pub domain: String,
}

// === impl Resolver ===

impl Resolver {
    /// The host's own settings, from `configured` or, if that is not set, from where they are. No file has no
    /// settings.
    ///
    /// # Errors
    ///
    /// [`NetworkError::Io`] when the file is there and cannot be read, or was configured and is not there.
    pub fn of_host(configured: Option<&Path>) -> Result<Self, NetworkError> {
        if let Some(path) = configured {
            let text = fs::read_to_string(path).map_err(NetworkError::io("read", path))?;
            return Ok(Self::parse(&text));
        }
        let read = |path: &str| match fs::read(path) {
            Ok(text) => Ok(Self::parse(&String::from_utf8_lossy(&text))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(NetworkError::io("read", Path::new(path))(error)),
        };
        let own = read("/etc/resolv.conf")?;
        if own.is_resolved() {
            let behind = read(BEHIND_RESOLVED)?;
            if !behind.nameservers.is_empty() {
                return Ok(behind);
            }
        }
        Ok(own)
    }

    /// Whether systemd-resolved on this host is asked, and nobody else.
    fn is_resolved(&self) -> bool {
        !self.nameservers.is_empty() && self.nameservers.iter().all(|it| RESOLVED.contains(&it.as_str()))
    }

    /// Reads a resolv.conf(5). What it does not understand it passes over, as the C library does.
    pub fn parse(text: &str) -> Self {
        let mut resolver = Self::default();
        for (keyword, mut words) in resolv_conf_lines(text) {
            match keyword {
                "nameserver" => resolver.nameservers.extend(words.next().map(str::to_owned)),
                "options" => resolver.options.extend(words.map(str::to_owned)),
                // The last of them counts.
                "search" => resolver.searches = words.map(without_dot).collect(),
                "domain" => resolver.searches = words.take(1).map(without_dot).collect(),
                _ => {}
            }
        }
        resolver
    }

    /// The settings of a pod, and what of them had to be left out, in the kubelet's words.
    pub fn of_pod(pod: &Pod, host: &Self, cluster: &ClusterDns) -> (Self, Vec<String>) {
        let dns = &pod.spec.dns;
        let of_cluster = match dns.policy {
            DnsPolicy::ClusterFirst => !pod.spec.host.network,
            DnsPolicy::ClusterFirstWithHostNet => true,
            DnsPolicy::Default | DnsPolicy::None => false,
        };
        let mut resolver = match dns.policy {
            DnsPolicy::None => Self::default(),
            _ if of_cluster && !cluster.servers.is_empty() => cluster.resolver(pod, host),
            _ => host.clone(),
        };
        resolver.add(&dns.config);
        let problems = resolver.fit();
        (resolver, problems)
    }

    fn add(&mut self, config: &DnsConfig) {
        let nameservers = config.nameservers.iter().map(IpAddr::to_string);
        extend(&mut self.nameservers, nameservers);
        extend(&mut self.searches, config.searches.iter().cloned());
        for option in &config.options {
            let name = |text: &String| text.split(':').next().unwrap_or_default() == option.name;
            self.options.retain(|text| !name(text));
            self.options.push(match &option.value {
                Some(value) if !value.is_empty() => format!("{}:{value}", option.name),
                _ => option.name.clone(),
            });
        }
    }

    /// Leaves out what is more than a resolver heeds.
    fn fit(&mut self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.nameservers.len() > MAX_NAMESERVERS {
            self.nameservers.truncate(MAX_NAMESERVERS);
            problems.push(format!(
                "Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: {}",
                self.nameservers.join(" ")
            ));
        }
        let before = self.searches.len();
        self.searches.truncate(MAX_SEARCHES);
        // With the spaces between them.
        let length = |searches: &[String]| {
            searches.iter().map(|search| search.len() + 1).sum::<usize>().saturating_sub(1)
        };
        while length(&self.searches) > MAX_SEARCH_CHARACTERS {
            self.searches.pop();
        }
        if self.searches.len() < before {
            problems.push(format!(
                "Search Line limits were exceeded, some search paths have been omitted, the applied search line is: {}",
                self.searches.join(" ")
            ));
        }
        problems
    }
}

impl fmt::Display for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.searches.is_empty() {
            writeln!(f, "search {}", self.searches.join(" "))?;
        }
        for server in &self.nameservers {
            writeln!(f, "nameserver {server}")?;
        }
        if !self.options.is_empty() {
            writeln!(f, "options {}", self.options.join(" "))?;
        }
        Ok(())
    }
}

// === impl ClusterDns ===

impl ClusterDns {
    fn resolver(&self, pod: &Pod, host: &Resolver) -> Resolver {
        let (namespace, domain) = (&pod.key.namespace, &self.domain);
        let mut searches = Vec::new();
        if !domain.is_empty() {
            searches = vec![format!("{namespace}.svc.{domain}"), format!("svc.{domain}"), domain.clone()];
        }
        extend(&mut searches, host.searches.iter().cloned());
        Resolver {
            nameservers: self.servers.iter().map(IpAddr::to_string).collect(),
            searches,
            options: vec![CLUSTER_OPTION.to_owned()],
        }
    }
}

/// Adds what is not there yet.
fn extend(list: &mut Vec<String>, more: impl Iterator<Item = String>) {
    for one in more {
        if !list.contains(&one) {
            list.push(one);
        }
    }
}

/// A domain stands without its last dot, but for the root's.
fn without_dot(domain: &str) -> String {
    match domain.strip_suffix('.') {
        Some(rest) if !rest.is_empty() => rest.to_owned(),
        _ => domain.to_owned(),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use coracle_model::{Container, DnsOption, HostNamespaces, Name, PodKey, PodSpec};

    use super::*;

    fn resolver(nameservers: &[&str], searches: &[&str], options: &[&str]) -> Resolver {
        let own = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
        Resolver { nameservers: own(nameservers), searches: own(searches), options: own(options) }
    }

    pub(crate) fn pod(policy: DnsPolicy, host_network: bool) -> Pod {
        let name = |text| Name::label(text).unwrap();
        let mut spec = PodSpec::new(vec![Container::new(name("c"), "image")]);
        spec.host = HostNamespaces { network: host_network, ..Default::default() };
        spec.dns.policy = policy;
        Pod {
            uid: "uid".parse().unwrap(),
            key: PodKey { namespace: name("shop"), name: name("web") },
            labels: Default::default(),
            annotations: Default::default(),
            spec,
            object: String::new(),
        }
    }

    fn cluster() -> ClusterDns {
        ClusterDns { servers: vec!["10.96.0.10".parse().unwrap()], domain: "cluster.local".to_owned() }
    }

    #[test]
    fn a_file_is_read_as_the_c_library_reads_it() {
        let text = "# resolv.conf\n; old\nnameserver 10.0.0.1 # first\nnameserver fe80::1%eth0\nnameserver\n\
                    domain gone.example\nsearch a.example. b.example\t.\n\noptions ndots:2  rotate\noptions edns0\n\
                    sortlist 10.0.0.0\n";
        let expected = resolver(
            &["10.0.0.1", "fe80::1%eth0"],
            &["a.example", "b.example", "."],
            &["ndots:2", "rotate", "edns0"],
        );
        assert_eq!(Resolver::parse(text), expected);
        assert_eq!(
            expected.to_string(),
            "search a.example b.example .\nnameserver 10.0.0.1\nnameserver fe80::1%eth0\noptions ndots:2 rotate edns0\n"
        );
        assert_eq!(Resolver::parse(&expected.to_string()), expected);
        assert_eq!(Resolver::parse("search a b\ndomain c d\n").searches, ["c"]);
        assert_eq!(Resolver::default().to_string(), "");
    }

    #[test]
    fn every_policy() {
        use DnsPolicy::{ClusterFirst, ClusterFirstWithHostNet, Default, None};
        let host = resolver(&["10.0.0.1"], &["lan"], &["edns0"]);
        let ours = resolver(
            &["10.96.0.10"],
            &["shop.svc.cluster.local", "svc.cluster.local", "cluster.local", "lan"],
            &["ndots:5"],
        );
        let nothing = Resolver::default();
        for (policy, host_network, with, without) in [
            (ClusterFirst, false, &ours, &host),
            (ClusterFirst, true, &host, &host),
            (ClusterFirstWithHostNet, false, &ours, &host),
            (ClusterFirstWithHostNet, true, &ours, &host),
            (Default, false, &host, &host),
            (Default, true, &host, &host),
            (None, false, &nothing, &nothing),
            (None, true, &nothing, &nothing),
        ] {
            let pod = pod(policy, host_network);
            assert_eq!(&Resolver::of_pod(&pod, &host, &cluster()).0, with, "{policy:?} {host_network}");
            let no_cluster = ClusterDns { servers: vec![], ..cluster() };
            assert_eq!(&Resolver::of_pod(&pod, &host, &no_cluster).0, without, "{policy:?} {host_network}");
        }
    }

    #[test]
    fn a_pods_own_settings_come_on_top() {
        let option = |name: &str, value: Option<&str>| DnsOption {
            name: name.into(),
            value: value.map(str::to_owned),
        };
        let mut pod = pod(DnsPolicy::Default, false);
        pod.spec.dns.config = DnsConfig {
            nameservers: vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()],
            searches: vec!["lan".into(), "other".into()],
            options: vec![option("ndots", Some("1")), option("rotate", None), option("edns0", Some(""))],
        };
        let host = resolver(&["10.0.0.1"], &["lan"], &["ndots:3", "edns0", "ndotsy"]);
        let (found, problems) = Resolver::of_pod(&pod, &host, &cluster());
        let expected =
            resolver(&["10.0.0.1", "fd00::1"], &["lan", "other"], &["ndotsy", "ndots:1", "rotate", "edns0"]);
        assert_eq!((found, problems), (expected, vec![]));
    }

    #[test]
    fn what_a_resolver_would_not_heed_is_left_out_and_told() {
        let many = resolver(&["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"], &[], &[]);
        let (found, problems) = Resolver::of_pod(&pod(DnsPolicy::Default, false), &many, &cluster());
        assert_eq!(found.nameservers.len(), 3);
        assert_eq!(problems.len(), 1);
        assert!(problems[0].ends_with("the applied nameserver line is: 10.0.0.1 10.0.0.2 10.0.0.3"));

        let names: Vec<String> = (0..33).map(|n| format!("n{n}.example")).collect();
        let many = Resolver { searches: names.clone(), ..Resolver::default() };
        let (found, problems) = Resolver::of_pod(&pod(DnsPolicy::Default, false), &many, &cluster());
        assert_eq!((found.searches.as_slice(), problems.len()), (&names[..32], 1));

        // 11 of 186 characters and the spaces between are 2,056; of 185, 2,045.
        for (length, kept) in [(186, 10), (185, 11)] {
            let searches: Vec<String> = (0..11).map(|n| format!("{n:0>length$}")).collect();
            let long = Resolver { searches, ..Resolver::default() };
            let (found, problems) = Resolver::of_pod(&pod(DnsPolicy::Default, false), &long, &cluster());
            assert_eq!((found.searches.len(), problems.len()), (kept, usize::from(kept == 10)));
        }
    }

    #[test]
    fn the_hosts_file_is_looked_for_behind_a_stub() {
        assert!(resolver(&["127.0.0.53"], &[], &[]).is_resolved());
        assert!(!resolver(&["127.0.0.53", "10.0.0.1"], &[], &[]).is_resolved());
        assert!(!Resolver::default().is_resolved());
        let missing = Resolver::of_host(Some(Path::new("/nowhere/resolv.conf"))).unwrap_err();
        assert!(missing.to_string().starts_with("cannot read /nowhere/resolv.conf: "));
    }
}
