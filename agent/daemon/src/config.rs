//! The configuration: defaults, overridden by the file, overridden by flags; validated once.
//!
//! Fields are named as in the kubelet's `KubeletConfiguration` where they mean the same. An unknown
//! field is refused: a misspelt limit that is silently not applied is worse than a node that says no.

mod images;
mod manifest_url;
mod network;
mod shutdown;
mod words;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Component, Path, PathBuf};

use coracle_model::{Name, Quantity};
use coracle_network::SysctlPolicy;
use coracle_shutdown::GracePeriods;
use serde::Deserialize;

pub(crate) use images::{CollectionConfig, ImagesConfig};
pub(crate) use manifest_url::ManifestUrl;
pub(crate) use network::NetworkConfig;
pub(crate) use words::{CgroupDriver, PodsOnStop};

/// Read when it is there and `--config` names no other.
pub(crate) const DEFAULT_CONFIG_FILE: &str = "/etc/coracle/config.yaml";

/// Everything the node can be told, validated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Config {
    /// Images, writable layers, volumes; survives a reboot.
    pub(crate) root_dir: PathBuf,
    /// Sockets, ledgers; until reboot.
    pub(crate) run_dir: PathBuf,
    /// `<namespace>_<name>_<uid>/<container>/<attempt>.log`; links in its sibling `containers/`.
    pub(crate) log_dir: PathBuf,
    /// The directory of manifests.
    pub(crate) manifest_dir: PathBuf,
    /// Where further manifests are served.
    pub(crate) manifest_url: Option<ManifestUrl>,
    /// The cgroup `kubepods` is made under, as a path from the hierarchy's root: `/` is the root itself.
    pub(crate) cgroup_parent: PathBuf,
    /// Who makes the pods' cgroups.
    pub(crate) cgroup_driver: CgroupDriver,
    /// What becomes of the pods when the service is stopped.
    pub(crate) pods_on_stop: PodsOnStop,
    /// The node's name in what users see.
    pub(crate) node_name: Name,
    /// The most processes a pod may have; `None` leaves it to the host.
    pub(crate) pod_pids_limit: Option<u64>,
    /// A container's log is rotated at this size, in bytes.
    pub(crate) container_log_max_size: u64,
    /// The most log files of a container, the current one included.
    pub(crate) container_log_max_files: u32,
    /// The cluster's DNS servers, for pods that ask them; none without a cluster.
    pub(crate) cluster_dns: Vec<IpAddr>,
    /// What names with a domain end in; may be empty.
    pub(crate) cluster_domain: String,
    /// The host's resolver settings for pods; `None` finds them.
    pub(crate) resolv_conf: Option<PathBuf>,
    /// How pods are connected.
    pub(crate) network: NetworkConfig,
    /// Which kernel settings pods may make.
    pub(crate) sysctls: SysctlPolicy,
    /// Where `seccompProfile.localhostProfile` is looked up.
    pub(crate) seccomp_profile_root: PathBuf,
    /// Containers without a `seccompProfile` get `RuntimeDefault` instead of none.
    pub(crate) seccomp_default: bool,
    /// What pods have when the machine shuts down; empty when they are not ended with it.
    pub(crate) shutdown_grace_periods: GracePeriods,
    /// Where images come from, and which of them go.
    pub(crate) images: ImagesConfig,
}

/// What flags say; each overrides the file.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
#[command(next_help_heading = "Node options")]
pub(crate) struct Overrides {
    /// Configuration file [default: /etc/coracle/config.yaml, if it is there]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Persistent state: images, writable layers, volumes [default: /var/lib/coracle]
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) root_dir: Option<PathBuf>,
    /// Volatile state and the agent's socket; clients find the agent here [default: /run/coracle]
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) run_dir: Option<PathBuf>,
    /// Container logs [default: /var/log/pods]
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) log_dir: Option<PathBuf>,
    /// Pod manifests that the agent runs [default: /etc/coracle/manifests]
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) manifest_dir: Option<PathBuf>,
    /// URL from which the agent gets further pod manifests
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) manifest_url: Option<String>,
    /// HTTP headers for --manifest-url, as 'a:hello,b:again'; can be repeated. Other users see command lines: what
    /// is secret belongs in the configuration file
    #[arg(long, global = true, value_name = "NAME:VALUE")]
    pub(crate) manifest_url_header: Vec<String>,
    /// How often --manifest-url is asked for changes [default: 20s]
    #[arg(long, global = true, value_name = "DURATION")]
    pub(crate) http_check_frequency: Option<String>,
    /// Cgroup under which the pods' cgroups are made [default: /]
    #[arg(long, global = true, value_name = "PATH")]
    pub(crate) cgroup_parent: Option<PathBuf>,
    /// The node's name [default: the host name]
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) node_name: Option<String>,
    /// The node's IP address, or one of each family with a comma between; '::' alone for the one of IPv6 first
    /// [default: those it reaches others from]
    #[arg(long, global = true, value_name = "IP")]
    pub(crate) node_ip: Option<String>,
    /// Addresses of pods where no CNI network is configured, or of each family with a comma between
    /// [default: 10.83.0.0/16,fd83:c07a:c1e0::/64]
    #[arg(long, global = true, value_name = "CIDR")]
    pub(crate) pod_cidr: Option<String>,
    /// CNI network configurations, of which the first by name counts [default: /etc/cni/net.d]
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) cni_conf_dir: Option<PathBuf>,
    /// Programs of CNI plugins that are not built in; can be repeated [default: /opt/cni/bin and /usr/lib/cni]
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) cni_bin_dir: Vec<PathBuf>,
    /// Configuration of credential provider plugins for registries, or a directory of such files
    #[arg(long, global = true, value_name = "PATH")]
    pub(crate) image_credential_provider_config: Option<PathBuf>,
    /// Programs of credential provider plugins
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) image_credential_provider_bin_dir: Option<PathBuf>,
}

/// The file, as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct File {
    root_dir: Option<PathBuf>,
    run_dir: Option<PathBuf>,
    pod_logs_dir: Option<PathBuf>,
    static_pod_path: Option<PathBuf>,
    #[serde(rename = "staticPodURL")]
    static_pod_url: Option<String>,
    #[serde(rename = "staticPodURLHeader")]
    static_pod_url_header: Option<BTreeMap<String, Vec<String>>>,
    http_check_frequency: Option<String>,
    cgroup_root: Option<PathBuf>,
    cgroup_driver: Option<String>,
    pods_on_stop: Option<String>,
    node_name: Option<String>,
    pod_pids_limit: Option<i64>,
    container_log_max_size: Option<String>,
    container_log_max_files: Option<i64>,
    #[serde(rename = "clusterDNS")]
    cluster_dns: Vec<String>,
    cluster_domain: Option<String>,
    resolv_conf: Option<PathBuf>,
    #[serde(rename = "nodeIP")]
    node_ip: Option<String>,
    #[serde(rename = "podCIDR")]
    pod_cidr: Option<String>,
    cni_conf_dir: Option<PathBuf>,
    cni_bin_dirs: Option<Vec<PathBuf>>,
    cni_timeout: Option<String>,
    bridge_name: Option<String>,
    allowed_unsafe_sysctls: Vec<String>,
    seccomp_profile_root: Option<PathBuf>,
    seccomp_default: Option<bool>,
    shutdown_grace_period: Option<String>,
    shutdown_grace_period_critical_pods: Option<String>,
    shutdown_grace_period_by_pod_priority: Option<Vec<shutdown::Period>>,
    registry_config_dirs: Option<Vec<PathBuf>>,
    image_credential_provider_config: Option<PathBuf>,
    image_credential_provider_bin_dir: Option<PathBuf>,
    image_archive_dir: Option<PathBuf>,
    serialize_image_pulls: Option<bool>,
    max_parallel_image_pulls: Option<i64>,
    #[serde(rename = "registryPullQPS")]
    registry_pull_qps: Option<i64>,
    registry_burst: Option<i64>,
    image_pull_credentials_verification_policy: Option<String>,
    preloaded_images_verification_allowlist: Option<Vec<String>>,
    #[serde(rename = "imageMinimumGCAge")]
    image_minimum_gc_age: Option<String>,
    #[serde(rename = "imageMaximumGCAge")]
    image_maximum_gc_age: Option<String>,
    #[serde(rename = "imageGCHighThresholdPercent")]
    image_gc_high_threshold_percent: Option<i64>,
    #[serde(rename = "imageGCLowThresholdPercent")]
    image_gc_low_threshold_percent: Option<i64>,
}

/// Why there is no usable configuration.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    #[error("cannot read the configuration file {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{}{position}: {message}", path.display())]
    Syntax { path: PathBuf, position: String, message: String },
    #[error("{origin}: Invalid value: {value:?}: {message}")]
    Value { origin: String, value: String, message: String },
    #[error("{origin}: Unsupported value: {value:?}: supported values: {supported}")]
    Unsupported { origin: String, value: String, supported: String },
    #[error("{0}: {1}")]
    Header(String, coracle_fetch::Error),
    #[error("the host name {0:?} cannot be a node's name ({1}); set --node-name or nodeName")]
    HostName(String, coracle_model::InvalidName),
}

// === impl Config ===

impl Config {
    /// The configuration that `overrides` and the file they name (or the default one) make.
    pub(crate) fn load(overrides: &Overrides) -> Result<Self, ConfigError> {
        let (path, required) = match &overrides.config {
            Some(path) => (path.as_path(), true),
            None => (Path::new(DEFAULT_CONFIG_FILE), false),
        };
        let file = match fs::read_to_string(path) {
            Ok(text) => parse(path, &text)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound && !required => File::default(),
            Err(source) => return Err(ConfigError::Read { path: path.to_owned(), source }),
        };
        Self::combine(path, file, overrides)
    }

    /// The agent's socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.run_dir.join("coracle.sock")
    }

    /// The image store.
    pub(crate) fn images_dir(&self) -> PathBuf {
        self.root_dir.join("images")
    }

    fn combine(path: &Path, mut file: File, flags: &Overrides) -> Result<Self, ConfigError> {
        let origin = |field: &str| format!("{}: {field}", path.display());
        let directory = |flag: &Option<PathBuf>, name: &str, value: Option<PathBuf>, field: &str, default| {
            directory(flag, name, value, origin(field), default)
        };
        let network = NetworkConfig::combine(flags, &mut file, origin)?;
        let root_dir = directory(
            &flags.root_dir,
            "--root-dir",
            file.root_dir.take(),
            "rootDir",
            "/var/lib/coracle".into(),
        )?;
        let seccomp_profile_root = directory(
            &None,
            "",
            file.seccomp_profile_root.take(),
            "seccompProfileRoot",
            root_dir.join("seccomp"),
        )?;
        let images = ImagesConfig::combine(flags, &mut file, root_dir.join("archives"), origin)?;
        Ok(Self {
            images,
            run_dir: directory(&flags.run_dir, "--run-dir", file.run_dir, "runDir", "/run/coracle".into())?,
            log_dir: directory(
                &flags.log_dir,
                "--log-dir",
                file.pod_logs_dir,
                "podLogsDir",
                "/var/log/pods".into(),
            )?,
            manifest_dir: directory(
                &flags.manifest_dir,
                "--manifest-dir",
                file.static_pod_path,
                "staticPodPath",
                "/etc/coracle/manifests".into(),
            )?,
            manifest_url: ManifestUrl::combine(
                flags,
                file.static_pod_url,
                file.static_pod_url_header,
                file.http_check_frequency,
                origin,
            )?,
            cgroup_parent: match (&flags.cgroup_parent, file.cgroup_root) {
                (Some(path), _) => cgroup(path, "--cgroup-parent".to_owned())?,
                (None, Some(path)) => cgroup(&path, origin("cgroupRoot"))?,
                (None, None) => PathBuf::from("/"),
            },
            cgroup_driver: words::read(file.cgroup_driver.as_deref(), || origin("cgroupDriver"))?,
            pods_on_stop: words::read(file.pods_on_stop.as_deref(), || origin("podsOnStop"))?,
            node_name: match (&flags.node_name, file.node_name) {
                (Some(name), _) => node_name(name, "--node-name".to_owned())?,
                (None, Some(name)) => node_name(&name, origin("nodeName"))?,
                (None, None) => host_name()?,
            },
            pod_pids_limit: match file.pod_pids_limit {
                None | Some(-1) => None,
                Some(limit) => match u64::try_from(limit) {
                    Ok(limit) if limit > 0 => Some(limit),
                    _ => {
                        return Err(value(
                            origin("podPidsLimit"),
                            limit,
                            "must be positive, or -1 for no limit",
                        ));
                    }
                },
            },
            container_log_max_size: match &file.container_log_max_size {
                None => 10 << 20,
                Some(text) => match text.parse::<Quantity>() {
                    Ok(size) if !size.is_zero() => size.units(),
                    Ok(_) => {
                        return Err(value(origin("containerLogMaxSize"), text, "must be greater than 0"));
                    }
                    Err(error) => return Err(value(origin("containerLogMaxSize"), text, &error.to_string())),
                },
            },
            container_log_max_files: match file.container_log_max_files {
                None => 5,
                Some(count) => match u32::try_from(count) {
                    Ok(count) if count >= 2 => count,
                    _ => return Err(value(origin("containerLogMaxFiles"), count, "must be greater than 1")),
                },
            },
            cluster_dns: addresses(&file.cluster_dns, &origin("clusterDNS"))?,
            cluster_domain: match file.cluster_domain {
                None => String::new(),
                Some(domain) if domain.is_empty() => domain,
                Some(domain) => match coracle_model::validate_subdomain(&domain) {
                    Ok(()) => domain,
                    Err(error) => return Err(value(origin("clusterDomain"), domain, &error.to_string())),
                },
            },
            resolv_conf: match file.resolv_conf {
                None => None,
                Some(path) => Some(directory(&None, "", Some(path), "resolvConf", PathBuf::new())?),
            },
            network,
            sysctls: SysctlPolicy::new(&file.allowed_unsafe_sysctls)
                .map_err(|(pattern, problem)| value(origin("allowedUnsafeSysctls"), pattern, problem))?,
            seccomp_default: file.seccomp_default.unwrap_or(true),
            shutdown_grace_periods: shutdown::periods(
                file.shutdown_grace_period.as_deref(),
                file.shutdown_grace_period_critical_pods.as_deref(),
                &file.shutdown_grace_period_by_pod_priority.unwrap_or_default(),
                origin,
            )?,
            seccomp_profile_root,
            root_dir,
        })
    }
}

fn parse(path: &Path, text: &str) -> Result<File, ConfigError> {
    // An empty file, or one of comments alone, is YAML's null: nothing is set.
    if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
        return Ok(File::default());
    }
    serde_saphyr::from_str(text).map_err(|error| {
        let position =
            error.location().map_or_else(String::new, |at| format!(":{}:{}", at.line(), at.column()));
        let message = error.without_snippet().to_string();
        // The position stands in front already.
        let message = message.split(" at line ").next().unwrap_or(&message).to_owned();
        ConfigError::Syntax { path: path.to_owned(), position, message }
    })
}

/// A flag is relative to where the command is run; a path in the file has no such place.
fn directory(
    flag: &Option<PathBuf>,
    name: &str,
    file: Option<PathBuf>,
    origin: String,
    default: PathBuf,
) -> Result<PathBuf, ConfigError> {
    match (flag, file) {
        (Some(path), _) => std::path::absolute(path)
            .map_err(|error| value(name.to_owned(), path.display(), &error.to_string())),
        (None, Some(path)) if path.is_absolute() => Ok(path),
        (None, Some(path)) => Err(value(origin, path.display(), "must be an absolute path")),
        (None, None) => Ok(default),
    }
}

fn addresses(texts: &[String], origin: &str) -> Result<Vec<IpAddr>, ConfigError> {
    let parse = |text: &String| {
        let address = text.parse();
        address.map_err(|_| value(origin.to_owned(), text, "must be IP addresses, such as 10.96.0.10"))
    };
    texts.iter().map(parse).collect()
}

fn cgroup(path: &Path, origin: String) -> Result<PathBuf, ConfigError> {
    let plain = path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    if path.is_absolute() && plain {
        Ok(path.components().collect())
    } else {
        Err(value(origin, path.display(), "must be an absolute path in the cgroup hierarchy, without '..'"))
    }
}

fn node_name(name: &str, origin: String) -> Result<Name, ConfigError> {
    Name::subdomain(name).map_err(|error| value(origin, name, &error.to_string()))
}

fn host_name() -> Result<Name, ConfigError> {
    let uname = rustix::system::uname();
    let name = uname.nodename().to_string_lossy().trim().to_lowercase();
    Name::subdomain(name.as_str()).map_err(|error| ConfigError::HostName(name, error))
}

fn value(origin: String, value: impl ToString, message: &str) -> ConfigError {
    ConfigError::Value { origin, value: value.to_string(), message: message.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn load(text: &str, flags: &Overrides) -> Result<Config, String> {
        let path = Path::new("/etc/c.yaml");
        parse(path, text)
            .and_then(|file| Config::combine(path, file, flags))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn defaults_are_those_of_the_documentation() {
        for text in ["", "# nothing\n\n", "{}"] {
            let config = load(text, &Overrides::default()).unwrap();
            assert_eq!(config.root_dir, Path::new("/var/lib/coracle"));
            assert_eq!(config.socket(), Path::new("/run/coracle/coracle.sock"));
            assert_eq!(config.log_dir, Path::new("/var/log/pods"));
            assert_eq!(config.manifest_dir, Path::new("/etc/coracle/manifests"));
            assert_eq!(config.manifest_url, None);
            assert_eq!(config.cgroup_parent, Path::new("/"));
            assert_eq!(config.cgroup_driver, CgroupDriver::Cgroupfs);
            assert_eq!(config.pods_on_stop, PodsOnStop::Leave);
            assert_eq!(config.pod_pids_limit, None);
            assert_eq!((config.container_log_max_size, config.container_log_max_files), (10 << 20, 5));
            assert_eq!(config.seccomp_profile_root, Path::new("/var/lib/coracle/seccomp"));
            assert!(config.seccomp_default);
            assert_eq!(
                (config.cluster_dns, config.cluster_domain.as_str(), config.resolv_conf),
                (vec![], "", None)
            );
            assert!(config.shutdown_grace_periods.is_empty());
        }
    }

    #[test]
    fn the_file_overrides_defaults_and_flags_override_the_file() {
        let text = "rootDir: /a\nstaticPodPath: /m\npodLogsDir: /l\ncgroupRoot: /x/\nnodeName: one\n\
                    podPidsLimit: 100\ncontainerLogMaxSize: 1Mi\ncontainerLogMaxFiles: 2\nseccompDefault: false\n\
                    clusterDNS: [10.96.0.10, fd00::a]\nclusterDomain: cluster.local\nresolvConf: /r\n\
                    cgroupDriver: systemd\npodsOnStop: end\n";
        let config = load(text, &Overrides::default()).unwrap();
        assert_eq!(config.root_dir, Path::new("/a"));
        assert_eq!(config.manifest_dir, Path::new("/m"));
        assert_eq!(config.log_dir, Path::new("/l"));
        assert_eq!(config.cgroup_parent, Path::new("/x"));
        assert_eq!(config.cgroup_driver, CgroupDriver::Systemd);
        assert_eq!(config.pods_on_stop, PodsOnStop::End);
        assert_eq!(config.node_name, *"one");
        assert_eq!(config.pod_pids_limit, Some(100));
        assert_eq!((config.container_log_max_size, config.container_log_max_files), (1 << 20, 2));
        assert_eq!(config.seccomp_profile_root, Path::new("/a/seccomp"));
        assert!(!config.seccomp_default);
        let servers: [IpAddr; 2] = ["10.96.0.10".parse().unwrap(), "fd00::a".parse().unwrap()];
        assert_eq!(config.cluster_dns, servers);
        assert_eq!(config.cluster_domain, "cluster.local");
        assert_eq!(config.resolv_conf.as_deref(), Some(Path::new("/r")));

        let flags = Overrides {
            root_dir: Some("/b".into()),
            node_name: Some("two".into()),
            cgroup_parent: Some("/y".into()),
            ..Overrides::default()
        };
        let config = load(text, &flags).unwrap();
        assert_eq!(config.root_dir, Path::new("/b"));
        assert_eq!(config.node_name, *"two");
        assert_eq!(config.cgroup_parent, Path::new("/y"));
        assert_eq!(config.manifest_dir, Path::new("/m"));
    }

    #[test]
    fn errors_say_where_and_what() {
        let cases = [
            ("rootDir: /a\nrotDir: /b\n", "/etc/c.yaml:2:1: unknown field `rotDir`"),
            ("rootDir: [\n", "/etc/c.yaml:"),
            ("rootDir: a\n", "/etc/c.yaml: rootDir: Invalid value: \"a\": must be an absolute path"),
            ("cgroupRoot: /a/../b\n", "/etc/c.yaml: cgroupRoot: Invalid value"),
            (
                "cgroupDriver: none\n",
                "/etc/c.yaml: cgroupDriver: Unsupported value: \"none\": supported values: \"cgroupfs\", \"systemd\"",
            ),
            (
                "podsOnStop: kill\n",
                "podsOnStop: Unsupported value: \"kill\": supported values: \"leave\", \"end\"",
            ),
            ("podPidsLimit: 0\n", "/etc/c.yaml: podPidsLimit: Invalid value: \"0\": must be positive"),
            (
                "containerLogMaxFiles: 1\n",
                "containerLogMaxFiles: Invalid value: \"1\": must be greater than 1",
            ),
            (
                "containerLogMaxSize: lots\n",
                "containerLogMaxSize: Invalid value: \"lots\": quantities must match",
            ),
            (
                "shutdownGracePeriod: 10s\nshutdownGracePeriodByPodPriority: [{priority: 1}]\n",
                "/etc/c.yaml: shutdownGracePeriod: Invalid value: \"10s\": may not be specified together",
            ),
            ("shutdownGracePeriodByPodPriority: [{prio: 1}]\n", "/etc/c.yaml:1:37: unknown field `prio`"),
            ("nodeName: A_b\n", "nodeName: Invalid value: \"A_b\": a lowercase RFC 1123 subdomain"),
            ("clusterDNS: [dns]\n", "/etc/c.yaml: clusterDNS: Invalid value: \"dns\": must be IP addresses"),
            (
                "clusterDomain: .local\n",
                "clusterDomain: Invalid value: \".local\": a lowercase RFC 1123 subdomain",
            ),
            (
                "allowedUnsafeSysctls: [net.*, vm.*]\n",
                "/etc/c.yaml: allowedUnsafeSysctls: Invalid value: \"vm.*\": is not known to be namespaced",
            ),
            ("resolvConf: r\n", "resolvConf: Invalid value: \"r\": must be an absolute path"),
            ("seccompDefault: maybe\n", "/etc/c.yaml:1:"),
            ("rootDir: /a\nrootDir: /b\n", "/etc/c.yaml:2:1: duplicate"),
        ];
        for (text, expected) in cases {
            let error = load(text, &Overrides::default()).unwrap_err();
            assert!(error.contains(expected), "{text:?} gave {error:?}, not {expected:?}");
        }
    }

    #[test]
    fn a_named_file_must_be_there() {
        let flags = Overrides { config: Some("/nonexistent/c.yaml".into()), ..Overrides::default() };
        let error = Config::load(&flags).unwrap_err().to_string();
        assert!(error.starts_with("cannot read the configuration file /nonexistent/c.yaml: "), "{error}");
    }
}
