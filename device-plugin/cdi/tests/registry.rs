//! Names in directories: which file has a device, what it brings, and what is seen of changes.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::path::{Path, PathBuf};

use coracle_cdi::{
    CdiError, Device, DeviceNode, Edits, Hook, IntelRdt, QualifiedName, Registry, Spec, parse, remove, write,
};
use coracle_model::HookPoint;

struct Directories {
    root: tempfile::TempDir,
}

impl Directories {
    fn new() -> Self {
        Self { root: tempfile::tempdir().unwrap() }
    }

    fn etc(&self) -> PathBuf {
        self.root.path().join("etc")
    }

    fn run(&self) -> PathBuf {
        self.root.path().join("run")
    }

    fn registry(&self) -> Registry {
        Registry::new([self.etc(), self.run()])
    }
}

fn variable(text: &str) -> Edits {
    Edits { env: vec![text.to_owned()], ..Edits::default() }
}

fn spec(kind: &str, devices: &[(&str, Edits)]) -> Spec {
    let device = |(name, edits): &(&str, Edits)| Device {
        name: (*name).to_owned(),
        container_edits: edits.clone(),
        ..Device::default()
    };
    Spec { kind: kind.to_owned(), devices: devices.iter().map(device).collect(), ..Spec::default() }
}

fn names(texts: &[&str]) -> Vec<QualifiedName> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn env(registry: &Registry, texts: &[&str]) -> Result<Vec<String>, CdiError> {
    let edits = registry.resolve(&names(texts))?;
    Ok(edits.env.iter().map(|(name, value)| format!("{name}={value}")).collect())
}

fn put(directory: &Path, name: &str, spec: Spec) -> PathBuf {
    write(directory, name, spec).unwrap()
}

#[test]
fn edits_of_a_specification_come_once_before_those_of_its_devices() {
    let dirs = Directories::new();
    let mut gpu = spec("v.com/gpu", &[("0", variable("A=0")), ("1", variable("A=1"))]);
    gpu.container_edits = variable("COMMON=gpu");
    put(&dirs.etc(), "gpu", gpu);
    let mut nic = spec("v.com/nic", &[("x", variable("B=x"))]);
    nic.container_edits = variable("COMMON=nic");
    put(&dirs.run(), "nic", nic);
    let found = env(&dirs.registry(), &["v.com/gpu=1", "v.com/nic=x", "v.com/gpu=0", "v.com/gpu=1"]).unwrap();
    assert_eq!(found, ["COMMON=gpu", "A=1", "COMMON=nic", "B=x", "A=0"]);
    assert_eq!(env(&dirs.registry(), &[]).unwrap(), Vec::<String>::new());
}

#[test]
fn a_later_directory_goes_before_an_earlier_and_two_files_of_one_have_no_order() {
    let dirs = Directories::new();
    let registry = dirs.registry();
    put(&dirs.etc(), "a", spec("v.com/gpu", &[("0", variable("FROM=etc"))]));
    assert_eq!(env(&registry, &["v.com/gpu=0"]).unwrap(), ["FROM=etc"]);
    put(&dirs.etc(), "b", spec("v.com/gpu", &[("0", variable("FROM=b")), ("1", variable("ONLY=b"))]));
    let error = env(&registry, &["v.com/gpu=0"]).unwrap_err();
    assert!(matches!(&error, CdiError::Ambiguous { files, .. } if files.len() == 2), "{error}");
    assert_eq!(
        env(&registry, &["v.com/gpu=1"]).unwrap(),
        ["ONLY=b"],
        "another device of theirs is nobody else's"
    );
    put(&dirs.run(), "c", spec("v.com/gpu", &[("0", variable("FROM=run"))]));
    assert_eq!(env(&registry, &["v.com/gpu=0"]).unwrap(), ["FROM=run"]);
}

#[test]
fn what_changes_is_seen_by_the_next_look_up() {
    let dirs = Directories::new();
    let registry = dirs.registry();
    let unknown =
        |registry: &Registry| matches!(env(registry, &["v.com/gpu=0"]), Err(CdiError::Unknown { .. }));
    assert!(unknown(&registry), "directories need not exist");
    for value in ["A=1", "A=2", "A=3"] {
        put(&dirs.run(), "gpu", spec("v.com/gpu", &[("0", variable(value))]));
        assert_eq!(env(&registry, &["v.com/gpu=0"]).unwrap(), [value]);
    }
    remove(&dirs.run(), "gpu").unwrap();
    remove(&dirs.run(), "gpu").unwrap();
    assert!(unknown(&registry));
}

#[test]
fn a_broken_file_harms_no_other_and_is_named_where_a_device_is_missing() {
    let dirs = Directories::new();
    put(&dirs.etc(), "good", spec("v.com/gpu", &[("0", variable("A=0"))]));
    fs::write(dirs.etc().join("bad.yaml"), "cdiVersion: 0.5.0\nkind: nothing\n").unwrap();
    fs::write(dirs.etc().join("ignored.yml"), "{").unwrap();
    fs::create_dir(dirs.etc().join("directory.json")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        dirs.etc().join("pipe.json"),
        rustix::fs::FileType::Fifo,
        0o600.into(),
        0,
    )
    .unwrap();
    let registry = dirs.registry();
    assert_eq!(env(&registry, &["v.com/gpu=0"]).unwrap(), ["A=0"]);
    let error = env(&registry, &["v.com/gpu=7"]).unwrap_err().to_string();
    for part in ["v.com/gpu=7", "bad.yaml:2:7: kind", "pipe.json", dirs.run().to_str().unwrap()] {
        assert!(error.contains(part), "{part}: {error}");
    }
    assert_eq!(registry.faults().len(), 3, "{:#?}", registry.faults());
    assert_eq!(registry.devices(), ["v.com/gpu=0".to_owned()].into());
}

#[test]
fn every_edit_becomes_the_containers() {
    let dirs = Directories::new();
    let text = r#"{"cdiVersion": "1.1.0", "kind": "v.com/all", "devices": [{"name": "x", "containerEdits": {
        "env": ["A=b=c"],
        "deviceNodes": [{"path": "/dev/a"}, {"path": "/dev/b", "hostPath": "/dev/c", "type": "b", "major": 8, "minor": 1,
                         "permissions": "r", "fileMode": 384, "uid": 1, "gid": 2}],
        "mounts": [{"hostPath": "/h", "containerPath": "/c", "options": ["ro"]}],
        "hooks": [{"hookName": "prestart", "path": "/p"}, {"hookName": "poststop", "path": "/q", "timeout": 3}],
        "additionalGids": [0, 5, 5],
        "netDevices": [{"hostInterfaceName": "eth1", "name": "net1"}]}}]}"#;
    fs::create_dir_all(dirs.etc()).unwrap();
    fs::write(dirs.etc().join("all.json"), text).unwrap();
    let edits = dirs.registry().resolve(&names(&["v.com/all=x"])).unwrap();
    assert_eq!(edits.env, [("A".to_owned(), "b=c".to_owned())]);
    let [first, second] = edits.device_nodes.as_slice() else { panic!("{edits:?}") };
    assert_eq!(
        (first.host_path.as_str(), first.permissions.as_str(), first.file_mode),
        ("/dev/a", "rwm", Some(0o666))
    );
    assert!(first.kind.is_none());
    assert_eq!(
        (second.host_path.as_str(), second.permissions.as_str(), second.file_mode),
        ("/dev/c", "r", Some(0o600))
    );
    let kind = second.kind.unwrap();
    assert_eq!((kind.letter, kind.numbers), ('b', Some((8, 1))));
    assert_eq!((second.uid, second.gid), (Some(1), Some(2)));
    assert_eq!(edits.mounts[0].options, ["ro"]);
    assert_eq!(
        edits.hooks.iter().map(|hook| hook.point).collect::<Vec<_>>(),
        [HookPoint::CreateRuntime, HookPoint::Poststop]
    );
    assert_eq!(edits.hooks[1].timeout, Some(std::time::Duration::from_secs(3)));
    assert_eq!(edits.additional_gids, [5]);
    assert_eq!(
        (edits.net_devices[0].host_name.as_str(), edits.net_devices[0].name.as_str()),
        ("eth1", "net1")
    );
}

#[test]
fn a_class_of_cache_is_refused_and_the_other_devices_are_not() {
    let dirs = Directories::new();
    let rdt = Edits {
        intel_rdt: Some(IntelRdt { clos_id: "x".to_owned(), ..IntelRdt::default() }),
        ..variable("A=1")
    };
    put(&dirs.etc(), "gpu", spec("v.com/gpu", &[("0", variable("A=0")), ("1", rdt)]));
    let registry = dirs.registry();
    assert_eq!(env(&registry, &["v.com/gpu=0"]).unwrap(), ["A=0"]);
    let error = env(&registry, &["v.com/gpu=1"]).unwrap_err().to_string();
    assert!(
        error.contains("intelRdt") && error.contains("v.com/gpu=1") && error.contains("gpu.json"),
        "{error}"
    );
}

#[test]
fn what_is_written_has_the_lowest_version_and_nobody_reads_half_of_it() {
    let dirs = Directories::new();
    let plain = put(&dirs.run(), "plain", spec("v.com/a", &[("x", variable("A=0"))]));
    assert!(fs::read_to_string(&plain).unwrap().contains(r#""cdiVersion": "0.3.0""#));
    let node = Edits {
        device_nodes: vec![DeviceNode {
            path: "/dev/a".to_owned(),
            host_path: "/dev/b".to_owned(),
            ..DeviceNode::default()
        }],
        ..Edits::default()
    };
    let with_host = put(&dirs.run(), "host", spec("v.com/b", &[("x", node)]));
    let bytes = fs::read(&with_host).unwrap();
    assert_eq!(parse(&bytes, "x").unwrap().cdi_version, "0.5.0");
    let before = fs::metadata(&with_host).unwrap().modified().unwrap();
    put(&dirs.run(), "host", parse(&bytes, "x").unwrap());
    assert_eq!(
        fs::metadata(&with_host).unwrap().modified().unwrap(),
        before,
        "the same is not written again"
    );
    assert_eq!(fs::read_dir(dirs.run()).unwrap().count(), 2, "no temporary file is left");

    let bad =
        Edits { hooks: vec![Hook { hook_name: "never".to_owned(), ..Hook::default() }], ..Edits::default() };
    assert!(matches!(write(&dirs.run(), "bad", spec("v.com/c", &[("x", bad)])), Err(CdiError::Invalid(_))));
    for name in ["", ".hidden", "../out", "a/b"] {
        assert!(write(&dirs.run(), name, spec("v.com/c", &[("x", variable("A=0"))])).is_err(), "{name}");
    }
    assert_eq!(fs::read_dir(dirs.run()).unwrap().count(), 2);
}
