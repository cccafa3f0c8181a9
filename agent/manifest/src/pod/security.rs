//! Security contexts of the pod and its containers.

use coracle_document::{Faults, Path};
use std::collections::BTreeMap;
use std::path::PathBuf;

use coracle_model::{
    Capabilities, ContainerSecurity, FsGroupChangePolicy, PodSecurity, ProcMount, SeccompProfile,
    SupplementalGroupsPolicy,
};
use k8s_openapi::api::core::v1;

use super::{check_nul, filled, word};
use crate::syntax;

const NO_SELINUX: &str = "SELinux labels";
const NO_WINDOWS: &str = "not supported: this is a Linux node";

/// The kernel's capabilities (linux/capability.h), without `CAP_`.
const CAPABILITIES: [&str; 41] = [
    "AUDIT_CONTROL",
    "AUDIT_READ",
    "AUDIT_WRITE",
    "BLOCK_SUSPEND",
    "BPF",
    "CHECKPOINT_RESTORE",
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "IPC_LOCK",
    "IPC_OWNER",
    "KILL",
    "LEASE",
    "LINUX_IMMUTABLE",
    "MAC_ADMIN",
    "MAC_OVERRIDE",
    "MKNOD",
    "NET_ADMIN",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_RAW",
    "PERFMON",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYSLOG",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_CHROOT",
    "SYS_MODULE",
    "SYS_NICE",
    "SYS_PACCT",
    "SYS_PTRACE",
    "SYS_RAWIO",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "WAKE_ALARM",
];

pub(super) fn pod(context: &v1::PodSecurityContext, path: &Path<'_>, faults: &mut Faults) -> PodSecurity {
    let v1::PodSecurityContext {
        app_armor_profile,
        fs_group,
        fs_group_change_policy,
        run_as_group,
        run_as_non_root,
        run_as_user,
        se_linux_change_policy,
        se_linux_options,
        seccomp_profile,
        supplemental_groups,
        supplemental_groups_policy,
        sysctls,
        windows_options,
    } = context;

    check_app_armor(app_armor_profile.as_ref(), path, faults);
    check_se_linux(se_linux_options.as_ref(), path, faults);
    check_windows(windows_options.as_ref(), path, faults);
    // Only says how seLinuxOptions are applied, and those are not here.
    optional_word(
        se_linux_change_policy.as_deref(),
        &[("MountOption", ()), ("Recursive", ())],
        &path.child("seLinuxChangePolicy"),
        faults,
    );
    let fs_group_change_policy = optional_word(
        fs_group_change_policy.as_deref(),
        &[("Always", FsGroupChangePolicy::Always), ("OnRootMismatch", FsGroupChangePolicy::OnRootMismatch)],
        &path.child("fsGroupChangePolicy"),
        faults,
    );
    let supplemental_groups_policy = optional_word(
        supplemental_groups_policy.as_deref(),
        &[("Merge", SupplementalGroupsPolicy::Merge), ("Strict", SupplementalGroupsPolicy::Strict)],
        &path.child("supplementalGroupsPolicy"),
        faults,
    );

    let groups_path = path.child("supplementalGroups");
    let groups = supplemental_groups.as_deref().unwrap_or_default().iter().enumerate();
    PodSecurity {
        run_as_user: id(*run_as_user, &path.child("runAsUser"), faults),
        run_as_group: id(*run_as_group, &path.child("runAsGroup"), faults),
        run_as_non_root: *run_as_non_root,
        supplemental_groups: groups
            .filter_map(|(index, group)| id(Some(*group), &groups_path.index(index), faults))
            .collect(),
        supplemental_groups_policy,
        fs_group: id(*fs_group, &path.child("fsGroup"), faults),
        fs_group_change_policy,
        seccomp: seccomp(seccomp_profile.as_ref(), path, faults),
        sysctls: sysctls_of(sysctls.as_deref().unwrap_or_default(), &path.child("sysctls"), faults),
    }
}

fn sysctls_of(list: &[v1::Sysctl], path: &Path<'_>, faults: &mut Faults) -> BTreeMap<String, String> {
    let mut sysctls = BTreeMap::new();
    for (index, v1::Sysctl { name, value }) in list.iter().enumerate() {
        let at = path.index(index);
        let name_path = at.child("name");
        if name.is_empty() {
            faults.required(&name_path, "");
        } else if let Err(detail) = syntax::sysctl_name(name) {
            faults.invalid(&name_path, name, detail);
        } else if sysctls.insert(with_dots(name), value.clone()).is_some() {
            faults.duplicate(&name_path, name);
        }
        // The kernel would read another setting behind it, or nothing.
        if value.contains(|char: char| char.is_control() && char != '\t') || !value.is_ascii() {
            faults.invalid(&at.child("value"), value, "must be printable ASCII");
        }
    }
    sysctls
}

/// A name as `sysctl(8)` has it: where its parts are parted by slashes, dots are part of them.
fn with_dots(name: &str) -> String {
    let slashes = name.find(['.', '/']).is_some_and(|at| name.as_bytes()[at] == b'/');
    let swap = |char| match char {
        '/' => '.',
        '.' => '/',
        other => other,
    };
    if slashes { name.chars().map(swap).collect() } else { name.to_owned() }
}

/// A field's word, or its default where it has none; also where it has a wrong one, which is reported.
fn optional_word<T: Copy + Default>(
    value: Option<&str>,
    words: &[(&str, T)],
    path: &Path<'_>,
    faults: &mut Faults,
) -> T {
    value.and_then(|value| word(value, words, path, faults)).unwrap_or_default()
}

pub(super) fn container(
    context: &v1::SecurityContext,
    path: &Path<'_>,
    faults: &mut Faults,
) -> ContainerSecurity {
    let v1::SecurityContext {
        allow_privilege_escalation,
        app_armor_profile,
        capabilities,
        privileged,
        proc_mount,
        read_only_root_filesystem,
        run_as_group,
        run_as_non_root,
        run_as_user,
        se_linux_options,
        seccomp_profile,
        windows_options,
    } = context;

    check_app_armor(app_armor_profile.as_ref(), path, faults);
    check_se_linux(se_linux_options.as_ref(), path, faults);
    check_windows(windows_options.as_ref(), path, faults);

    let privileged = privileged.unwrap_or(false);
    if *allow_privilege_escalation == Some(false) {
        if privileged {
            faults.push(
                path,
                "Invalid value: cannot set `allowPrivilegeEscalation` to false and `privileged` to true",
            );
        }
        let added = capabilities.as_ref().and_then(|capabilities| capabilities.add.as_deref());
        if added.unwrap_or_default().iter().any(|name| name == "CAP_SYS_ADMIN") {
            faults.push(
                path,
                "Invalid value: cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN",
            );
        }
    }
    let proc_path = path.child("procMount");
    match proc_mount.as_deref() {
        None | Some("" | "Default") => {}
        Some(value @ "Unmasked") => {
            faults.invalid(&proc_path, value, "`hostUsers` must be false to use `Unmasked`");
        }
        Some(other) => faults.unsupported_value(&proc_path, other, &["Default", "Unmasked"]),
    }

    ContainerSecurity {
        run_as_user: id(*run_as_user, &path.child("runAsUser"), faults),
        run_as_group: id(*run_as_group, &path.child("runAsGroup"), faults),
        run_as_non_root: *run_as_non_root,
        privileged,
        capabilities: capabilities
            .as_ref()
            .map(|capabilities| capability_changes(capabilities, &path.child("capabilities"), faults))
            .unwrap_or_default(),
        read_only_root_filesystem: read_only_root_filesystem.unwrap_or(false),
        allow_privilege_escalation: *allow_privilege_escalation,
        seccomp: seccomp(seccomp_profile.as_ref(), path, faults),
        proc_mount: ProcMount::Default,
    }
}

/// A user or group id, in the range Kubernetes allows.
fn id(value: Option<i64>, path: &Path<'_>, faults: &mut Faults) -> Option<u32> {
    let value = value?;
    match u32::try_from(value) {
        Ok(id) if id <= i32::MAX.unsigned_abs() => Some(id),
        _ => {
            faults.invalid_plain(path, value, "must be between 0 and 2147483647, inclusive");
            None
        }
    }
}

fn capability_changes(changes: &v1::Capabilities, path: &Path<'_>, faults: &mut Faults) -> Capabilities {
    let v1::Capabilities { add, drop } = changes;
    let mut names = |list: &Option<Vec<String>>, field| {
        let list_path = path.child(field);
        let mut names = Vec::new();
        for (index, written) in list.as_deref().unwrap_or_default().iter().enumerate() {
            let upper = written.to_ascii_uppercase();
            let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
            if name == "ALL" || CAPABILITIES.contains(&name) {
                names.push(name.to_owned());
            } else {
                faults.invalid(&list_path.index(index), written, "not a capability of Linux");
            }
        }
        names
    };
    Capabilities { add: names(add, "add"), drop: names(drop, "drop") }
}

fn seccomp(
    profile: Option<&v1::SeccompProfile>,
    context: &Path<'_>,
    faults: &mut Faults,
) -> Option<SeccompProfile> {
    let v1::SeccompProfile { localhost_profile, type_ } = profile?;
    let path = context.child("seccompProfile");
    let file_path = path.child("localhostProfile");
    if type_ != "Localhost"
        && let Some(file) = localhost_profile
    {
        faults.invalid(&file_path, file, "can only be set when seccomp type is Localhost");
    }
    match type_.as_str() {
        "RuntimeDefault" => Some(SeccompProfile::RuntimeDefault),
        "Unconfined" => Some(SeccompProfile::Unconfined),
        "Localhost" => match localhost_profile.as_deref() {
            None | Some("") => {
                faults.required(&file_path, "must be set when seccomp type is Localhost");
                None
            }
            Some(file) => {
                check_nul(file, &file_path, faults);
                match syntax::descending_path(file) {
                    Ok(()) => Some(SeccompProfile::Localhost(PathBuf::from(file))),
                    Err(detail) => {
                        faults.invalid(&file_path, file, detail);
                        None
                    }
                }
            }
        },
        "" => {
            faults.required(&path.child("type"), "type is required when seccompProfile is set");
            None
        }
        other => {
            faults.unsupported_value(
                &path.child("type"),
                other,
                &["Localhost", "RuntimeDefault", "Unconfined"],
            );
            None
        }
    }
}

/// `Unconfined` is what this node does; a profile that is asked for and not applied would be a lie.
fn check_app_armor(profile: Option<&v1::AppArmorProfile>, context: &Path<'_>, faults: &mut Faults) {
    let Some(v1::AppArmorProfile { localhost_profile, type_ }) = profile else { return };
    let path = context.child("appArmorProfile");
    match type_.as_str() {
        "Unconfined" if localhost_profile.is_none() => {}
        "Unconfined" => {
            let detail = "can only be set when AppArmor type is Localhost";
            faults.invalid(
                &path.child("localhostProfile"),
                localhost_profile.as_deref().unwrap_or_default(),
                detail,
            );
        }
        "RuntimeDefault" | "Localhost" => {
            faults.not_yet(&path, "AppArmor profiles; leave the field out, or set type to Unconfined");
        }
        "" => faults.required(&path.child("type"), "type is required when appArmorProfile is set"),
        other => faults.unsupported_value(
            &path.child("type"),
            other,
            &["Localhost", "RuntimeDefault", "Unconfined"],
        ),
    }
}

fn check_se_linux(options: Option<&v1::SELinuxOptions>, context: &Path<'_>, faults: &mut Faults) {
    let Some(v1::SELinuxOptions { level, role, type_, user }) = options else { return };
    let any = [level, role, type_, user].into_iter().any(|part| filled(part.as_ref()));
    faults.not_yet_if(any, &context.child("seLinuxOptions"), NO_SELINUX);
}

fn check_windows(
    options: Option<&v1::WindowsSecurityContextOptions>,
    context: &Path<'_>,
    faults: &mut Faults,
) {
    if options.is_some() {
        faults.push(&context.child("windowsOptions"), NO_WINDOWS);
    }
}
