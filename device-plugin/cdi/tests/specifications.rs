//! What is a specification, what is none, and where the fault is.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test that cannot go on fails")]

use coracle_cdi::{CdiError, parse};

const VENDOR: &str = r#"
cdiVersion: "0.7.0"
kind: vendor.com/gpu
annotations:
  vendor.com/driver: "1.2"
devices:
- name: "0"
  containerEdits:
    deviceNodes:
    - path: /dev/gpu0
      hostPath: /dev/vendor/gpu0
      type: c
      major: 195
      minor: 0
      fileMode: 0660
      permissions: rw
      uid: 0
      gid: 44
    env: ["GPU=0"]
- name: all
  containerEdits:
    additionalGids: [44]
containerEdits:
  mounts:
  - hostPath: /usr/lib/libgpu.so.1
    containerPath: /usr/lib/libgpu.so.1
    options: [ro, nosuid, nodev, rbind, rprivate]
  hooks:
  - hookName: createContainer
    path: /usr/bin/vendor-hook
    args: [vendor-hook, update-ldcache, --folder, /usr/lib]
    env: ["DEBUG=false"]
    timeout: 10
"#;

fn faults(text: &str) -> Vec<String> {
    match parse(text.as_bytes(), "v.yaml") {
        Ok(spec) => panic!("is valid: {spec:?}"),
        Err(CdiError::Invalid(faults)) => faults.iter().map(ToString::to_string).collect(),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_vendors_specification_is_read() {
    let spec = parse(VENDOR.as_bytes(), "v.yaml").unwrap();
    assert_eq!((spec.devices.len(), spec.devices[0].name.as_str()), (2, "0"));
    let node = &spec.devices[0].container_edits.device_nodes[0];
    assert_eq!((node.major, node.file_mode, node.gid), (195, Some(0o660), Some(44)));
    assert_eq!(spec.container_edits.hooks[0].timeout, Some(10));
    let json = serde_json::to_vec(&spec).unwrap();
    assert_eq!(parse(&json, "v.json").unwrap(), spec, "JSON says the same");
}

#[test]
fn a_fault_has_line_column_and_field() {
    for (from, to, fault) in [
        (
            "kind: vendor.com/gpu",
            "kind: gpu",
            "v.yaml:3:7: kind: Invalid value: \"gpu\": must be vendor/class",
        ),
        (
            "\"0.7.0\"",
            "\"0.6.0\"",
            "v.yaml:2:13: cdiVersion: Invalid value: \"0.6.0\": must be at least 0.7.0",
        ),
        ("\"0.7.0\"", "\"7\"", "v.yaml:2:13: cdiVersion: Unsupported value: \"7\""),
        ("name: all", "name: \"0\"", "devices[1].name: Duplicate value"),
        ("name: all", "name: -all", "devices[1].name: Invalid value: \"-all\""),
        ("additionalGids: [44]", "{}", "devices[1].containerEdits: Required value"),
        (
            "path: /dev/gpu0",
            "path: dev/gpu0",
            "v.yaml:10:13: devices[0].containerEdits.deviceNodes[0].path: Invalid value",
        ),
        ("type: c", "type: x", "devices[0].containerEdits.deviceNodes[0].type: Unsupported value: \"x\""),
        (
            "permissions: rw",
            "permissions: rx",
            "devices[0].containerEdits.deviceNodes[0].permissions: Invalid value",
        ),
        ("minor: 0", "minor: -1", "devices[0].containerEdits.deviceNodes[0].minor: Invalid value: -1"),
        (
            "[\"GPU=0\"]",
            "[GPU]",
            "devices[0].containerEdits.env[0]: Invalid value: \"GPU\": must be NAME=value",
        ),
        (
            "hookName: createContainer",
            "hookName: before",
            "containerEdits.hooks[0].hookName: Unsupported value",
        ),
        ("path: /usr/bin/vendor-hook", "path: vendor-hook", "containerEdits.hooks[0].path: Invalid value"),
        ("timeout: 10", "timeout: 0", "containerEdits.hooks[0].timeout: Invalid value: 0"),
        ("vendor.com/driver", "vendor.com/", "annotations[vendor.com/]: Invalid value"),
        ("hostPath: /usr", "hostpath: /usr", "hostpath"),
        ("major: 195", "major: many", "devices[0].containerEdits.deviceNodes[0].major"),
    ] {
        let text = VENDOR.replacen(from, to, 1);
        assert_ne!(text, VENDOR, "{from}");
        let found = faults(&text);
        assert!(found.iter().any(|one| one.contains(fault)), "{from} -> {to}: {fault}\nfound {found:#?}");
    }
}

#[test]
fn what_is_no_document_is_refused() {
    for text in ["", "{", "[]", "null", "a: b\n---\nc: d\n", "cdiVersion: 0.5.0", "\u{0}"] {
        assert!(!faults(text).is_empty(), "{text:?}");
    }
    let large = format!("{VENDOR}#{}", "x".repeat(5 << 20));
    assert!(faults(&large)[0].contains("larger than"), "{:?}", faults(&large));
}

#[test]
fn interfaces_are_named_as_linux_names_them_and_once() {
    let with = |devices: &str| {
        format!(
            "cdiVersion: 1.1.0\nkind: v.com/nic\ndevices:\n- name: a\n  containerEdits:\n    netDevices: {devices}\n"
        )
    };
    parse(with("[{hostInterfaceName: eth5, name: net1}]").as_bytes(), "v").unwrap();
    for (devices, fault) in [
        ("[{hostInterfaceName: eth5}]", "netDevices[0].name: Required"),
        ("[{hostInterfaceName: a/b, name: net1}]", "netDevices[0].hostInterfaceName: Invalid"),
        ("[{hostInterfaceName: eth5, name: abcdefghijklmnop}]", "netDevices[0].name: Invalid"),
        (
            "[{hostInterfaceName: a, name: x}, {hostInterfaceName: b, name: x}]",
            "netDevices[1].name: Duplicate",
        ),
    ] {
        let found = faults(&with(devices));
        assert!(found.iter().any(|one| one.contains(fault)), "{devices}: {found:?}");
    }
}
