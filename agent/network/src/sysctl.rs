//! Which kernel settings a pod may make: those of its own namespaces that harm nobody else, and what the
//! node's owner allows.

use coracle_model::Pod;

/// Of the pod's own namespaces, bounded, and no danger to others on the node: Kubernetes' list.
const SAFE: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
];

/// A namespace that has settings of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Namespace {
    Ipc,
    Net,
}

/// What the node's owner allows beside [`SAFE`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SysctlPolicy {
    unsafe_allowed: Vec<String>,
}

// === impl SysctlPolicy ===

impl SysctlPolicy {
    /// The patterns of `allowedUnsafeSysctls`: names, or beginnings of names with `*` behind.
    ///
    /// # Errors
    ///
    /// The pattern that names settings of the whole node, or is none, and why.
    pub fn new(patterns: &[String]) -> Result<Self, (String, &'static str)> {
        for pattern in patterns {
            let plain = pattern.strip_suffix('*').unwrap_or(pattern);
            if plain.contains('*') || plain.contains('/') {
                return Err((pattern.clone(), "must be a name with dots, which may end in *"));
            }
            if namespace(pattern).is_none() {
                let detail = "is not known to be namespaced: it would change the whole node";
                return Err((pattern.clone(), detail));
            }
        }
        Ok(Self { unsafe_allowed: patterns.to_vec() })
    }

    /// Whether the pod may have its sysctls.
    ///
    /// # Errors
    ///
    /// Why not, in the kubelet's words (its reason is `SysctlForbidden`).
    pub fn check(&self, pod: &Pod) -> Result<(), String> {
        let host = pod.spec.host;
        for name in pod.spec.security.sysctls.keys() {
            match namespace(name) {
                Some(Namespace::Net) if host.network => {
                    return Err(format!("forbidden sysctl: {name:?} not allowed with host net enabled"));
                }
                Some(Namespace::Ipc) if host.ipc => {
                    return Err(format!("forbidden sysctl: {name:?} not allowed with host ipc enabled"));
                }
                Some(_) if self.allows(name) => {}
                _ => return Err(format!("forbidden sysctl: {name:?} not allowlisted")),
            }
        }
        Ok(())
    }

    fn allows(&self, name: &str) -> bool {
        let fits = |pattern: &String| match pattern.strip_suffix('*') {
            Some(beginning) => name.starts_with(beginning),
            None => name == pattern,
        };
        SAFE.contains(&name) || self.unsafe_allowed.iter().any(fits)
    }
}

/// Whose setting it is; `None` for one of the whole node. Also for patterns.
fn namespace(name: &str) -> Option<Namespace> {
    let ipc = ["kernel.shm", "kernel.msg", "fs.mqueue."].iter().any(|beginning| name.starts_with(beginning));
    if ipc || name == "kernel.sem" {
        Some(Namespace::Ipc)
    } else if name.starts_with("net.") {
        Some(Namespace::Net)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resolver::tests::pod;

    fn check(policy: &[&str], name: &str, host: &str) -> Result<(), String> {
        let patterns: Vec<String> = policy.iter().map(|pattern| (*pattern).to_owned()).collect();
        let mut pod = pod(coracle_model::DnsPolicy::Default, host == "net");
        pod.spec.host.ipc = host == "ipc";
        pod.spec.security.sysctls.insert(name.to_owned(), "1".to_owned());
        SysctlPolicy::new(&patterns).unwrap().check(&pod)
    }

    #[test]
    fn what_is_safe_or_allowed_may_be_set() {
        for (policy, name) in [
            (&[][..], "net.ipv4.tcp_syncookies"),
            (&[], "kernel.shm_rmid_forced"),
            (&["kernel.msg*"], "kernel.msgmax"),
            (&["net.core.somaxconn"], "net.core.somaxconn"),
            (&["net.*"], "net.ipv4.conf.eth0.rp_filter"),
        ] {
            assert_eq!(check(policy, name, ""), Ok(()), "{name}");
        }
    }

    #[test]
    fn what_is_not_is_refused_in_the_kubelets_words() {
        for (policy, name, host, why) in [
            (&[][..], "net.core.somaxconn", "", "\"net.core.somaxconn\" not allowlisted"),
            (&["net.core.somaxconn"], "net.core.somaxconn2", "", "\"net.core.somaxconn2\" not allowlisted"),
            (&["net.core.*"], "net.corex", "", "\"net.corex\" not allowlisted"),
            (&[], "vm.swappiness", "", "\"vm.swappiness\" not allowlisted"),
            (&[], "kernel.hostname", "", "\"kernel.hostname\" not allowlisted"),
            (&[], "net.ipv4.tcp_rmem", "net", "\"net.ipv4.tcp_rmem\" not allowed with host net enabled"),
            (
                &[],
                "kernel.shm_rmid_forced",
                "ipc",
                "\"kernel.shm_rmid_forced\" not allowed with host ipc enabled",
            ),
        ] {
            assert_eq!(check(policy, name, host), Err(format!("forbidden sysctl: {why}")));
        }
        assert_eq!(check(&[], "net.ipv4.tcp_rmem", "ipc"), Ok(()));
    }

    #[test]
    fn a_pattern_is_of_a_pods_own_namespaces() {
        for pattern in ["vm.*", "*", "kernel.*", "", "n*t.x", "net/ipv4/x"] {
            assert_eq!(SysctlPolicy::new(&[pattern.to_owned()]).unwrap_err().0, pattern);
        }
    }
}
