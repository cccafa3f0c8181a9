//! The configuration: defaults, overridden by the file, overridden by flags; validated once, as a whole.
//!
//! Fields are named as in the kubelet's `KubeletConfiguration` where they mean the same, and every other field of that
//! is known by name. An unknown field is refused: a misspelt limit that is silently not applied is worse than a node
//! that says no.
//!
//! ```text
//! file -> decode (tables of fields) -> file (types) -> combine (flags, defaults, checks) -> Config
//! ```

mod decode;
mod devices;
mod file;
mod flags;
mod images;
mod kubelet;
mod load;
mod manifest_url;
mod network;
mod problems;
mod settings;
mod shutdown;
pub(crate) mod table;
#[cfg(test)]
mod tests;
mod words;
pub(crate) mod written;

use std::net::IpAddr;
use std::path::{Component, Path, PathBuf};

use coracle_model::{Name, Quantity};
use coracle_network::SysctlPolicy;
use coracle_shutdown::GracePeriods;

pub(crate) use devices::DevicesConfig;
pub(crate) use flags::Overrides;
pub(crate) use images::{CollectionConfig, ImagesConfig};
pub(crate) use load::{ConfigError, DEFAULT_CONFIG_FILE, Loaded, socket};
pub(crate) use manifest_url::ManifestUrl;
pub(crate) use network::NetworkConfig;
pub(crate) use settings::{Changes, Origin, Settings, changes};
pub(crate) use words::{CgroupDriver, PodsOnStop};

use file::File;
use problems::{Giver, Problems};

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
    /// Where devices come from, and how they are given.
    pub(crate) devices: DevicesConfig,
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
    /// All of it, as a file would say it.
    pub(crate) settings: Settings,
}

// === impl Config ===

impl Config {
    /// The configuration that `overrides` and the file they name (or the default one) make.
    pub(crate) fn load(overrides: &Overrides) -> Result<Self, ConfigError> {
        Ok(Loaded::load(overrides)?.config)
    }

    /// The agent's socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.run_dir.join("coracle.sock")
    }

    /// The image store.
    pub(crate) fn images_dir(&self) -> PathBuf {
        self.root_dir.join("images")
    }

    /// This, with all of `new` that can change while pods run.
    pub(crate) fn with_live_of(&self, new: &Self) -> Self {
        Self {
            manifest_url: new.manifest_url.clone(),
            pods_on_stop: new.pods_on_stop,
            pod_pids_limit: new.pod_pids_limit,
            container_log_max_size: new.container_log_max_size,
            container_log_max_files: new.container_log_max_files,
            cluster_dns: new.cluster_dns.clone(),
            cluster_domain: new.cluster_domain.clone(),
            resolv_conf: new.resolv_conf.clone(),
            sysctls: new.sysctls.clone(),
            seccomp_default: new.seccomp_default,
            shutdown_grace_periods: new.shutdown_grace_periods.clone(),
            images: ImagesConfig { archive_dir: self.images.archive_dir.clone(), ..new.images.clone() },
            settings: self.settings.with_live_of(&new.settings),
            ..self.clone()
        }
    }

    /// Flags over the file over defaults. Where something is wrong, what is made is not to be used.
    fn combine(
        mut file: File,
        flags: &Overrides,
        settings: Settings,
        problems: &mut Problems,
    ) -> Option<Self> {
        let network = NetworkConfig::combine(flags, &mut file, problems);
        let devices = DevicesConfig::combine(flags, &mut file, problems);
        let root_dir =
            directory(flag(&flags.root_dir, "--root-dir"), file.root_dir.take(), "rootDir", problems)
                .unwrap_or_else(|| "/var/lib/coracle".into());
        let images = ImagesConfig::combine(flags, &mut file, root_dir.join("archives"), problems);
        let node_name = match (&flags.node_name, file.node_name.take()) {
            (Some(name), _) => node_name(name, &Giver::Flag("--node-name"), problems),
            (None, Some(name)) => node_name(&name, &Giver::field("nodeName"), problems),
            (None, None) => host_name(problems),
        };
        let mut of = |flag, field, name, default: &str| {
            directory(flag, field, name, problems).unwrap_or_else(|| default.into())
        };
        Some(Self {
            run_dir: of(flag(&flags.run_dir, "--run-dir"), file.run_dir, "runDir", "/run/coracle"),
            log_dir: of(flag(&flags.log_dir, "--log-dir"), file.pod_logs_dir, "podLogsDir", "/var/log/pods"),
            manifest_dir: of(
                flag(&flags.manifest_dir, "--manifest-dir"),
                file.static_pod_path,
                "staticPodPath",
                "/etc/coracle/manifests",
            ),
            seccomp_profile_root: directory(None, file.seccomp_profile_root, "seccompProfileRoot", problems)
                .unwrap_or_else(|| root_dir.join("seccomp")),
            resolv_conf: directory(None, file.resolv_conf, "resolvConf", problems),
            manifest_url: ManifestUrl::combine(
                flags,
                file.static_pod_url,
                file.static_pod_url_header,
                file.http_check_frequency,
                problems,
            ),
            cgroup_parent: match (&flags.cgroup_parent, file.cgroup_root) {
                (Some(path), _) => cgroup(path, &Giver::Flag("--cgroup-parent"), problems),
                (None, Some(path)) => cgroup(&path, &Giver::field("cgroupRoot"), problems),
                (None, None) => PathBuf::from("/"),
            },
            cgroup_driver: words::read(file.cgroup_driver.as_deref(), "cgroupDriver", problems),
            pods_on_stop: words::read(file.pods_on_stop.as_deref(), "podsOnStop", problems),
            pod_pids_limit: pids_limit(file.pod_pids_limit, problems),
            container_log_max_size: log_size(file.container_log_max_size.as_deref(), problems),
            container_log_max_files: log_files(file.container_log_max_files, problems),
            cluster_dns: addresses(file.cluster_dns.unwrap_or_default(), "clusterDNS", problems),
            cluster_domain: domain(file.cluster_domain.unwrap_or_default(), problems),
            sysctls: sysctls(&file.allowed_unsafe_sysctls.unwrap_or_default(), problems),
            seccomp_default: file.seccomp_default.unwrap_or(true),
            shutdown_grace_periods: shutdown::periods(
                file.shutdown_grace_period.as_deref(),
                file.shutdown_grace_period_critical_pods.as_deref(),
                &file.shutdown_grace_period_by_pod_priority.unwrap_or_default(),
                problems,
            ),
            network,
            devices,
            images,
            root_dir,
            settings,
            // Last, so that what is wrong elsewhere is found too.
            node_name: node_name?,
        })
    }
}

fn flag<'a>(path: &'a Option<PathBuf>, name: &'static str) -> Option<(&'a Path, &'static str)> {
    path.as_deref().map(|path| (path, name))
}

/// A flag is relative to where the command is run; a path in the file has no such place.
fn directory(
    flag: Option<(&Path, &'static str)>,
    file: Option<PathBuf>,
    field: &str,
    problems: &mut Problems,
) -> Option<PathBuf> {
    match (flag, file) {
        (Some((path, name)), _) => match std::path::absolute(path) {
            Ok(path) => Some(path),
            Err(error) => {
                problems.invalid(&Giver::Flag(name), &path.to_string_lossy(), error);
                None
            }
        },
        (None, Some(path)) => absolute(path, &Giver::field(field), problems),
        (None, None) => None,
    }
}

fn absolute(path: PathBuf, giver: &Giver, problems: &mut Problems) -> Option<PathBuf> {
    if path.is_absolute() {
        return Some(path);
    }
    problems.invalid(giver, &path.to_string_lossy(), "must be an absolute path");
    None
}

/// The paths of a list.
fn directories(paths: Vec<PathBuf>, field: &str, problems: &mut Problems) -> Vec<PathBuf> {
    let list = Giver::field(field);
    let each = paths.into_iter().enumerate();
    each.filter_map(|(index, path)| absolute(path, &list.item(index), problems)).collect()
}

fn addresses(texts: Vec<String>, field: &str, problems: &mut Problems) -> Vec<IpAddr> {
    let list = Giver::field(field);
    let mut parse = |(index, text): (usize, String)| {
        let address = text.parse();
        if address.is_err() {
            problems.invalid(&list.item(index), &text, "must be an IP address, such as 10.96.0.10");
        }
        address.ok()
    };
    texts.into_iter().enumerate().filter_map(&mut parse).collect()
}

fn pids_limit(limit: Option<i64>, problems: &mut Problems) -> Option<u64> {
    let limit = limit.filter(|limit| *limit != -1)?;
    let valid = u64::try_from(limit).ok().filter(|limit| *limit > 0);
    if valid.is_none() {
        problems.invalid_number(&Giver::field("podPidsLimit"), limit, "must be positive, or -1 for no limit");
    }
    valid
}

fn log_size(text: Option<&str>, problems: &mut Problems) -> u64 {
    const DEFAULT: u64 = 10 << 20;
    let giver = Giver::field("containerLogMaxSize");
    match text.map(|text| (text, text.parse::<Quantity>())) {
        None => DEFAULT,
        Some((_, Ok(size))) if !size.is_zero() => size.units(),
        Some((text, Ok(_))) => {
            problems.invalid(&giver, text, "must be greater than 0");
            DEFAULT
        }
        Some((text, Err(error))) => {
            problems.invalid(&giver, text, error);
            DEFAULT
        }
    }
}

fn log_files(count: Option<i64>, problems: &mut Problems) -> u32 {
    const DEFAULT: u32 = 5;
    let Some(count) = count else { return DEFAULT };
    u32::try_from(count).ok().filter(|count| *count >= 2).unwrap_or_else(|| {
        problems.invalid_number(&Giver::field("containerLogMaxFiles"), count, "must be greater than 1");
        DEFAULT
    })
}

fn domain(domain: String, problems: &mut Problems) -> String {
    if let (false, Err(error)) = (domain.is_empty(), coracle_model::validate_subdomain(&domain)) {
        problems.invalid(&Giver::field("clusterDomain"), &domain, error);
    }
    domain
}

fn sysctls(patterns: &[String], problems: &mut Problems) -> SysctlPolicy {
    let list = Giver::field("allowedUnsafeSysctls");
    for (index, pattern) in patterns.iter().enumerate() {
        if let Err((pattern, problem)) = SysctlPolicy::new(std::slice::from_ref(pattern)) {
            problems.invalid(&list.item(index), &pattern, problem);
        }
    }
    SysctlPolicy::new(patterns).unwrap_or_default()
}

fn cgroup(path: &Path, giver: &Giver, problems: &mut Problems) -> PathBuf {
    let plain = path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    if !path.is_absolute() || !plain {
        let message = "must be an absolute path in the cgroup hierarchy, without '..'";
        problems.invalid(giver, &path.to_string_lossy(), message);
    }
    path.components().collect()
}

fn node_name(name: &str, giver: &Giver, problems: &mut Problems) -> Option<Name> {
    Name::subdomain(name).map_err(|error| problems.invalid(giver, name, error)).ok()
}

fn host_name(problems: &mut Problems) -> Option<Name> {
    let name = own_name();
    let wrong = |error| {
        format!("the host name {name:?} cannot be a node's name ({error}); set --node-name or nodeName")
    };
    Name::subdomain(name.as_str()).map_err(|error| problems.others.push(wrong(error))).ok()
}

/// The host's name, as the node has it.
fn own_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().trim().to_lowercase()
}
