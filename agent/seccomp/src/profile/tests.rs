use super::*;

const HOST: Host = Host { architecture: Architecture::X86_64, kernel: KernelVersion(6, 1) };

fn names(text: &str, capabilities: &[&str]) -> Vec<String> {
    let profile = Profile::parse(text.as_bytes()).unwrap();
    let resolved = profile.resolve(&HOST, &capabilities.iter().collect()).unwrap();
    resolved.syscalls().iter().flatten().flat_map(|entry| entry.names().clone()).collect()
}

fn error(text: &str) -> String {
    let failed = Profile::parse(text.as_bytes())
        .and_then(|profile| profile.resolve(&HOST, &CapSet::default()))
        .and_then(|resolved| crate::compile(&resolved, HOST.architecture));
    failed.expect_err(text).to_string()
}

#[test]
fn the_oci_form() {
    let text = r#"{
        "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38,
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_S390X"],
        "flags": ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"],
        "syscalls": [
            {"names": ["read", "write"], "action": "SCMP_ACT_ALLOW"},
            {"names": ["kill"], "action": "SCMP_ACT_ERRNO", "errnoRet": 3,
             "args": [{"index": 1, "value": 9, "op": "SCMP_CMP_EQ"}]}
        ]}"#;
    assert_eq!(names(text, &[]), ["read", "write", "kill"]);
    let resolved = Profile::parse(text.as_bytes()).unwrap().resolve(&HOST, &CapSet::default()).unwrap();
    // The same text is what OCI's own type reads.
    let mut expected: LinuxSeccomp = serde_json::from_str(text).unwrap();
    let mut entries = expected.syscalls().clone().unwrap();
    entries[0].set_args(Some(vec![]));
    expected.set_syscalls(Some(entries));
    assert_eq!(resolved, expected);
    assert_eq!(crate::compile(&resolved, HOST.architecture).unwrap().flags(), 6);
}

#[test]
fn dockers_form() {
    let text = r#"{
        "defaultAction": "SCMP_ACT_ERRNO",
        "archMap": [
            {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"]},
            {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"]}
        ],
        "syscalls": [
            {"name": "read", "action": "SCMP_ACT_ALLOW", "args": null, "comment": "", "includes": {}, "excludes": {}},
            {"names": ["ptrace"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8"}},
            {"names": ["future"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "7.0"}},
            {"names": ["arch_prctl"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["amd64", "x32"]}},
            {"names": ["set_tls"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["arm", "arm64"]}},
            {"names": ["mount"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
            {"names": ["clone"], "action": "SCMP_ACT_ALLOW",
             "args": [{"index": 0, "value": 2114060288, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}],
             "excludes": {"caps": ["CAP_SYS_ADMIN"], "arches": ["s390", "s390x"]}}
        ]}"#;
    assert_eq!(names(text, &[]), ["read", "ptrace", "arch_prctl", "clone"]);
    assert_eq!(names(text, &["CAP_SYS_ADMIN"]), ["read", "ptrace", "arch_prctl", "mount"]);
    let resolved = Profile::parse(text.as_bytes()).unwrap().resolve(&HOST, &CapSet::default()).unwrap();
    assert_eq!(
        resolved.architectures().as_ref().unwrap(),
        &[Arch::ScmpArchX86_64, Arch::ScmpArchX86, Arch::ScmpArchX32]
    );
}

#[test]
fn what_cannot_be_used_is_refused_by_name() {
    for (text, message) in [
        ("", "EOF"),
        ("{}", "missing field `defaultAction`"),
        (r#"{"defaultAction":"SCMP_ACT_ALLOW","sycalls":[]}"#, "unknown field `sycalls`"),
        (r#"{"defaultAction":"ALLOW"}"#, "unknown variant `ALLOW`"),
        (r#"{"defaultAction":"SCMP_ACT_NOTIFY"}"#, "SCMP_ACT_NOTIFY (defaultAction) is not supported"),
        (
            r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mount"],"action":"SCMP_ACT_NOTIFY"}]}"#,
            "SCMP_ACT_NOTIFY (mount) is not supported",
        ),
        (r#"{"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"/run/x"}"#, "listenerPath is not supported"),
        (
            r#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86"],"archMap":[{"architecture":"SCMP_ARCH_X86_64"}]}"#,
            "architectures and archMap cannot both be set",
        ),
        (
            r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"name":"a","names":["b"],"action":"SCMP_ACT_ALLOW"}]}"#,
            "name and names cannot both be set in syscalls[0]",
        ),
        (
            r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"action":"SCMP_ACT_ALLOW"}]}"#,
            "syscalls[0] names no",
        ),
        (r#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":4096}"#, "errnoRet 4096 is larger"),
        (
            r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_ERRNO","args":[{"index":6,"value":0,"op":"SCMP_CMP_EQ"}]}]}"#,
            "argument 6 of read",
        ),
        (
            r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_ERRNO","includes":{"minKernel":"new"}}]}"#,
            "\"new\" is not a kernel version",
        ),
    ] {
        let error = error(text);
        assert!(error.contains(message), "{error:?} does not say {message:?}");
    }
    assert!(matches!(Profile::parse(&vec![b' '; MAX_SIZE + 1]), Err(Error::TooLarge { .. })));
}

#[test]
fn kernel_versions() {
    assert_eq!(KernelVersion::parse("6.1.0-13-amd64").unwrap(), KernelVersion(6, 1));
    assert_eq!(KernelVersion::parse("4.8").unwrap(), KernelVersion(4, 8));
    assert_eq!(KernelVersion::parse("6.18-rc1").unwrap(), KernelVersion(6, 18));
    for text in ["", "6", "a.b", ".1", "6.", "99999999999.1"] {
        assert!(KernelVersion::parse(text).is_err(), "{text:?}");
    }
    assert!(KernelVersion(4, 20) < KernelVersion(5, 1));
}
