//! What is written is read again, whatever it is; and no bytes are too much.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test that cannot go on fails")]

use coracle_cdi::{
    Device, DeviceNode, Edits, Hook, Mount, NetDevice, QualifiedName, Registry, Spec, Version,
    needed_version, parse, write,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

fn path() -> impl Strategy<Value = String> {
    "(/[a-z0-9]{1,6}){1,3}"
}

fn env() -> impl Strategy<Value = Vec<String>> {
    vec("[A-Z]{1,4}=[ -~]{0,8}", 0..3)
}

fn node() -> impl Strategy<Value = DeviceNode> {
    let numbers = (prop_oneof!["", "b", "c", "u", "p"], 0..300_i64, 0..300_i64);
    let access = (option::of(0..0o1000_u32), "r?w?m?", option::of(0..9_u32), option::of(0..9_u32));
    (path(), prop_oneof![Just(String::new()), path()], numbers, access).prop_map(
        |(path, host_path, (kind, major, minor), (file_mode, permissions, uid, gid))| DeviceNode {
            path,
            host_path,
            kind,
            major,
            minor,
            file_mode,
            permissions,
            uid,
            gid,
        },
    )
}

fn edits() -> impl Strategy<Value = Edits> {
    let mount = (path(), path(), vec("[a-z]{1,6}", 0..3), "(tmpfs)?").prop_map(
        |(host_path, container_path, options, kind)| Mount { host_path, container_path, options, kind },
    );
    let name = prop_oneof![
        "prestart",
        "createRuntime",
        "createContainer",
        "startContainer",
        "poststart",
        "poststop"
    ];
    let hook = (name, path(), vec("[ -~]{0,8}", 0..3), env(), option::of(1..100_i64))
        .prop_map(|(hook_name, path, args, env, timeout)| Hook { hook_name, path, args, env, timeout });
    (env(), vec(node(), 0..3), vec(mount, 0..2), vec(hook, 0..2), vec(0..100_u32, 0..3), any::<bool>())
        .prop_map(|(env, device_nodes, mounts, hooks, additional_gids, net)| {
            let one = NetDevice { host_interface_name: "eth1".to_owned(), name: "net1".to_owned() };
            let net_devices = if net { vec![one] } else { Vec::new() };
            Edits { env, device_nodes, mounts, hooks, additional_gids, net_devices, intel_rdt: None }
        })
}

fn specs() -> impl Strategy<Value = Spec> {
    let names = proptest::collection::btree_set("[a-z0-9]([a-z0-9:._-]{0,6}[a-z0-9])?", 1..4);
    let kind = "[a-z]{1,5}\\.com/[a-z]{1,4}(\\.[a-z]{1,3})?";
    let annotations = proptest::collection::btree_map("[a-z]{1,5}", "[ -~]{0,9}", 0..3);
    (kind, names, vec(edits(), 4), edits(), annotations).prop_map(
        |(kind, names, all, common, annotations)| {
            let devices = names.into_iter().zip(all).map(|(name, mut container_edits)| {
                // A device that brings nothing is none.
                container_edits.env.push("DEVICE=1".to_owned());
                Device { name, container_edits, ..Device::default() }
            });
            Spec { kind, annotations, devices: devices.collect(), container_edits: common, ..Spec::default() }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_is_read_again_and_resolved(spec in specs()) {
        let dir = tempfile::tempdir().unwrap();
        let path = write(dir.path(), "vendor", spec.clone()).unwrap();
        let read = parse(&std::fs::read(path).unwrap(), "vendor").unwrap();
        let version = needed_version(&spec);
        prop_assert_eq!(read.cdi_version.as_str(), version.as_str());
        prop_assert_eq!(&Spec { cdi_version: String::new(), ..read.clone() }, &spec);
        // One version less is not enough, where there is one.
        let names: Vec<_> = Version::names().collect();
        let place = names.iter().position(|name| *name == version.as_str()).unwrap();
        if let Some(lower) = place.checked_sub(1) {
            let lower = Spec { cdi_version: names[lower].to_owned(), ..read };
            prop_assert!(parse(&serde_json::to_vec(&lower).unwrap(), "vendor").is_err());
        }
        let registry = Registry::new([dir.path()]);
        let all: Vec<QualifiedName> =
            spec.devices.iter().map(|device| format!("{}={}", spec.kind, device.name).parse().unwrap()).collect();
        let resolved = registry.resolve(&all).unwrap();
        let nodes = spec.devices.iter().map(|device| device.container_edits.device_nodes.len()).sum::<usize>();
        prop_assert_eq!(resolved.device_nodes.len(), nodes + spec.container_edits.device_nodes.len());
        prop_assert_eq!(registry.devices().len(), spec.devices.len());
    }

    #[test]
    fn no_bytes_are_too_much(bytes in vec(any::<u8>(), 0..512)) {
        let _ = parse(&bytes, "bytes");
    }

    #[test]
    fn a_name_is_what_it_is_shown_as(text in "[a-zA-Z0-9_./=:-]{0,24}") {
        if let Ok(name) = text.parse::<QualifiedName>() {
            prop_assert_eq!(name.to_string(), text);
        }
    }
}
