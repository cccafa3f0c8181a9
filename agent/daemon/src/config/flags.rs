//! What flags say of the configuration.

use std::path::PathBuf;

use serde_json::{Map, Value, json};

use super::manifest_url;

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
    /// Sockets of device plugins, and the one they register at; beside it are plugins_registry and pod-resources
    /// [default: /var/lib/kubelet/device-plugins]
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) device_plugin_dir: Option<PathBuf>,
    /// Configuration of credential provider plugins for registries, or a directory of such files
    #[arg(long, global = true, value_name = "PATH")]
    pub(crate) image_credential_provider_config: Option<PathBuf>,
    /// Programs of credential provider plugins
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) image_credential_provider_bin_dir: Option<PathBuf>,
}

// === impl Overrides ===

impl Overrides {
    /// What is given, as (field, flag, value in the file's terms). What is wrong with it is said elsewhere.
    pub(super) fn settings(&self) -> Vec<(&'static str, &'static str, Value)> {
        let path = |path: &PathBuf| json!(std::path::absolute(path).unwrap_or_else(|_| path.clone()));
        let paths = [
            ("rootDir", "--root-dir", &self.root_dir),
            ("runDir", "--run-dir", &self.run_dir),
            ("podLogsDir", "--log-dir", &self.log_dir),
            ("staticPodPath", "--manifest-dir", &self.manifest_dir),
            ("cniConfDir", "--cni-conf-dir", &self.cni_conf_dir),
            ("devicePluginDir", "--device-plugin-dir", &self.device_plugin_dir),
            (
                "imageCredentialProviderConfig",
                "--image-credential-provider-config",
                &self.image_credential_provider_config,
            ),
            (
                "imageCredentialProviderBinDir",
                "--image-credential-provider-bin-dir",
                &self.image_credential_provider_bin_dir,
            ),
        ];
        let texts = [
            ("staticPodURL", "--manifest-url", &self.manifest_url),
            ("httpCheckFrequency", "--http-check-frequency", &self.http_check_frequency),
            ("nodeName", "--node-name", &self.node_name),
            ("nodeIP", "--node-ip", &self.node_ip),
            ("podCIDR", "--pod-cidr", &self.pod_cidr),
        ];
        let paths = paths.into_iter().filter_map(|(field, flag, it)| Some((field, flag, path(it.as_ref()?))));
        let texts =
            texts.into_iter().filter_map(|(field, flag, it)| Some((field, flag, json!(it.as_ref()?))));
        let mut given: Vec<_> = paths.chain(texts).filter(|(.., value)| value != "").collect();
        // Relative to the root of the hierarchy, not to where the command is run.
        given.extend(self.cgroup_parent.as_ref().map(|it| ("cgroupRoot", "--cgroup-parent", json!(it))));
        if !self.cni_bin_dir.is_empty() {
            given.push(("cniBinDirs", "--cni-bin-dir", self.cni_bin_dir.iter().map(path).collect()));
        }
        let headers = manifest_url::split(&self.manifest_url_header).unwrap_or_default();
        if !headers.is_empty() {
            let mut by_name = Map::new();
            for (name, text) in headers {
                let values = by_name.entry(name).or_insert_with(|| json!([]));
                values.as_array_mut().into_iter().for_each(|values| values.push(json!(text)));
            }
            given.push(("staticPodURLHeader", "--manifest-url-header", Value::Object(by_name)));
        }
        given
    }
}
