//! The file, as it is written.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;

use super::shutdown::Period;

/// The fields of the file that the node acts on. What is not set is not there.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct File {
    pub(super) root_dir: Option<PathBuf>,
    pub(super) run_dir: Option<PathBuf>,
    pub(super) pod_logs_dir: Option<PathBuf>,
    pub(super) static_pod_path: Option<PathBuf>,
    #[serde(rename = "staticPodURL")]
    pub(super) static_pod_url: Option<String>,
    #[serde(rename = "staticPodURLHeader")]
    pub(super) static_pod_url_header: Option<BTreeMap<String, Vec<String>>>,
    pub(super) http_check_frequency: Option<String>,
    pub(super) node_name: Option<String>,
    #[serde(rename = "nodeIP")]
    pub(super) node_ip: Option<String>,
    pub(super) cgroup_root: Option<PathBuf>,
    pub(super) cgroup_driver: Option<String>,
    pub(super) pods_on_stop: Option<String>,
    pub(super) pod_pids_limit: Option<i64>,
    pub(super) container_log_max_size: Option<String>,
    pub(super) container_log_max_files: Option<i64>,
    #[serde(rename = "clusterDNS")]
    pub(super) cluster_dns: Option<Vec<String>>,
    pub(super) cluster_domain: Option<String>,
    pub(super) resolv_conf: Option<PathBuf>,
    #[serde(rename = "podCIDR")]
    pub(super) pod_cidr: Option<String>,
    pub(super) cni_conf_dir: Option<PathBuf>,
    pub(super) cni_bin_dirs: Option<Vec<PathBuf>>,
    pub(super) cni_timeout: Option<String>,
    pub(super) bridge_name: Option<String>,
    pub(super) device_plugin_dir: Option<PathBuf>,
    pub(super) device_plugin_config: Option<PathBuf>,
    pub(super) cdi_spec_dirs: Option<Vec<PathBuf>>,
    pub(super) topology_manager_policy: Option<String>,
    pub(super) topology_manager_scope: Option<String>,
    pub(super) allowed_unsafe_sysctls: Option<Vec<String>>,
    pub(super) seccomp_profile_root: Option<PathBuf>,
    pub(super) seccomp_default: Option<bool>,
    pub(super) shutdown_grace_period: Option<String>,
    pub(super) shutdown_grace_period_critical_pods: Option<String>,
    pub(super) shutdown_grace_period_by_pod_priority: Option<Vec<Period>>,
    pub(super) registry_config_dirs: Option<Vec<PathBuf>>,
    pub(super) image_credential_provider_config: Option<PathBuf>,
    pub(super) image_credential_provider_bin_dir: Option<PathBuf>,
    pub(super) image_archive_dir: Option<PathBuf>,
    pub(super) serialize_image_pulls: Option<bool>,
    pub(super) max_parallel_image_pulls: Option<i64>,
    #[serde(rename = "registryPullQPS")]
    pub(super) registry_pull_qps: Option<i64>,
    pub(super) registry_burst: Option<i64>,
    pub(super) image_pull_credentials_verification_policy: Option<String>,
    pub(super) preloaded_images_verification_allowlist: Option<Vec<String>>,
    #[serde(rename = "imageMinimumGCAge")]
    pub(super) image_minimum_gc_age: Option<String>,
    #[serde(rename = "imageMaximumGCAge")]
    pub(super) image_maximum_gc_age: Option<String>,
    #[serde(rename = "imageGCHighThresholdPercent")]
    pub(super) image_gc_high_threshold_percent: Option<i64>,
    #[serde(rename = "imageGCLowThresholdPercent")]
    pub(super) image_gc_low_threshold_percent: Option<i64>,
}
