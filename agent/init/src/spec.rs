//! The OCI runtime specification, as far as init acts on it.
//!
//! The agent writes the specification with `oci-spec`'s types; these read the same JSON. That crate covers
//! four more platforms and checks by regular expressions, which would make up most of this program. Fields
//! that are known and not acted on are kept, to be refused by name; fields nobody knows are an error.

use std::collections::BTreeMap;
use std::path::PathBuf;

use coracle_init::hook::Hooks;
use serde::Deserialize;
use serde::de::IgnoredAny;

/// Present, whatever it holds. `null` is absent.
pub(crate) type Present = Option<IgnoredAny>;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Spec {
    #[serde(rename = "ociVersion")]
    _version: Present,
    #[serde(rename = "annotations")]
    _annotations: Present,
    pub(crate) process: Option<Process>,
    pub(crate) root: Option<Root>,
    #[serde(default)]
    pub(crate) mounts: Vec<Mount>,
    pub(crate) hostname: Option<String>,
    pub(crate) linux: Option<Linux>,
    pub(crate) domainname: Present,
    #[serde(default)]
    pub(crate) hooks: Option<Hooks>,
    pub(crate) solaris: Present,
    pub(crate) windows: Present,
    pub(crate) vm: Present,
    pub(crate) zos: Present,
    pub(crate) uid_mappings: Present,
    pub(crate) gid_mappings: Present,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Process {
    #[serde(default)]
    pub(crate) terminal: bool,
    pub(crate) console_size: Option<ConsoleSize>,
    pub(crate) user: User,
    #[serde(default)]
    pub(crate) args: Vec<String>,
    #[serde(default)]
    pub(crate) env: Vec<String>,
    pub(crate) cwd: PathBuf,
    pub(crate) capabilities: Option<Capabilities>,
    #[serde(default)]
    pub(crate) rlimits: Vec<Rlimit>,
    #[serde(default)]
    pub(crate) no_new_privileges: bool,
    pub(crate) apparmor_profile: Option<String>,
    pub(crate) selinux_label: Option<String>,
    pub(crate) oom_score_adj: Option<i32>,
    pub(crate) command_line: Present,
    pub(crate) io_priority: Present,
    pub(crate) scheduler: Present,
    #[serde(rename = "execCPUAffinity")]
    pub(crate) exec_cpu_affinity: Present,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ConsoleSize {
    pub(crate) height: u64,
    pub(crate) width: u64,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct User {
    #[serde(default)]
    pub(crate) uid: u32,
    #[serde(default)]
    pub(crate) gid: u32,
    pub(crate) umask: Option<u32>,
    #[serde(default)]
    pub(crate) additional_gids: Vec<u32>,
    pub(crate) username: Present,
}

/// Sets of names, such as `CAP_CHOWN`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Capabilities {
    pub(crate) bounding: Vec<String>,
    pub(crate) effective: Vec<String>,
    pub(crate) permitted: Vec<String>,
    pub(crate) ambient: Vec<String>,
    #[serde(rename = "inheritable")]
    _inheritable: Present,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rlimit {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) hard: u64,
    pub(crate) soft: u64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Root {
    pub(crate) path: PathBuf,
    #[serde(default)]
    pub(crate) readonly: bool,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Mount {
    pub(crate) destination: PathBuf,
    #[serde(rename = "type", default)]
    pub(crate) kind: String,
    pub(crate) source: Option<PathBuf>,
    #[serde(default)]
    pub(crate) options: Vec<String>,
    pub(crate) uid_mappings: Present,
    pub(crate) gid_mappings: Present,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Linux {
    // Others act on these: see CreateConfig.
    #[serde(rename = "namespaces")]
    _namespaces: Present,
    #[serde(rename = "resources")]
    _resources: Present,
    #[serde(rename = "cgroupsPath")]
    _cgroups_path: Present,
    #[serde(default)]
    pub(crate) devices: Vec<Device>,
    #[serde(default)]
    pub(crate) sysctl: BTreeMap<String, String>,
    pub(crate) rootfs_propagation: Option<String>,
    #[serde(default)]
    pub(crate) masked_paths: Vec<PathBuf>,
    #[serde(default)]
    pub(crate) readonly_paths: Vec<PathBuf>,
    pub(crate) seccomp: Option<Seccomp>,
    pub(crate) mount_label: Option<String>,
    #[serde(default)]
    pub(crate) uid_mappings: Vec<IgnoredAny>,
    #[serde(default)]
    pub(crate) gid_mappings: Vec<IgnoredAny>,
    pub(crate) intel_rdt: Present,
    pub(crate) memory_policy: Present,
    pub(crate) personality: Present,
    pub(crate) time_offsets: Present,
    #[serde(default)]
    pub(crate) net_devices: BTreeMap<String, NetDevice>,
}

/// Its name in the container's network namespace; the host's, if it says none.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NetDevice {
    pub(crate) name: Option<String>,
}

/// Only whether it asks for more than the compiled program does.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Seccomp {
    pub(crate) listener_path: Present,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Device {
    pub(crate) path: PathBuf,
    #[serde(rename = "type")]
    pub(crate) kind: String,
    #[serde(default)]
    pub(crate) major: i64,
    #[serde(default)]
    pub(crate) minor: i64,
    pub(crate) file_mode: Option<u32>,
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_agent_writes_is_read() {
        let written = serde_json::to_string(&oci_spec::runtime::Spec::default()).unwrap();
        let read: Spec = serde_json::from_str(&written).unwrap();
        let process = read.process.unwrap();
        assert_eq!(process.args, ["sh"]);
        assert!(process.no_new_privileges);
        assert_eq!(process.rlimits[0].kind, "RLIMIT_NOFILE");
        assert_eq!(process.capabilities.unwrap().bounding.len(), 3);
        assert_eq!(read.mounts[0].kind, "proc");
        assert!(!read.linux.unwrap().masked_paths.is_empty());
    }

    #[test]
    fn a_field_nobody_knows_is_an_error() {
        let error = serde_json::from_str::<Spec>(r#"{"ociVersion":"1.2.0","surprise":1}"#).unwrap_err();
        assert!(error.to_string().contains("surprise"), "{error}");
    }
}
