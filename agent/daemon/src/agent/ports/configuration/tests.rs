//! Variables and files, from values.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use coracle_controller::Configs;
use coracle_image::EnvEntry;
use coracle_model::{
    ConfigKey, ConfigKind, ConfigObject, Container, DownwardFile, DownwardValue, EnvFrom, EnvValue, EnvVar,
    FileKeySelector, KeySelector, KeyToPath, Name, Pod, PodField, PodKey, PodSpec, ProjectedVolume,
    Projection, Quantity, ResourceField,
};

use super::{Sources, payload, resolve};
use crate::agent::facts::{Allocatable, Lazy, NodeNow};

fn known<T: 'static>(value: T) -> Lazy<T> {
    Lazy::new(Box::new(|| value))
}

fn name(text: &str) -> Name {
    Name::label(text).unwrap()
}

fn object(kind: ConfigKind, called: &str, data: &[(&str, &[u8])], binary: &[(&str, &[u8])]) -> ConfigObject {
    let values = |all: &[(&str, &[u8])]| {
        all.iter().map(|(key, value)| ((*key).to_owned(), Arc::from(*value))).collect::<BTreeMap<_, _>>()
    };
    ConfigObject {
        key: ConfigKey { kind, namespace: name("shop"), name: name(called) },
        data: values(data),
        binary_data: values(binary),
        secret_type: String::new(),
        immutable: false,
    }
}

struct Test {
    pod: Pod,
    configs: Configs,
    node: NodeNow,
    addresses: Vec<IpAddr>,
    files: BTreeMap<String, Vec<u8>>,
}

impl Test {
    fn new() -> Self {
        let objects = [
            object(
                ConfigKind::ConfigMap,
                "settings",
                &[("color", b"blue"), ("app.conf", b"$(color)")],
                &[("logo", &[0xff, 0])],
            ),
            object(
                ConfigKind::Secret,
                "login",
                &[("password", b"hunter2"), ("nul", b"a\0b"), ("bin", &[0xff])],
                &[],
            ),
            object(ConfigKind::Secret, "fine", &[("user", b"admin"), ("color", b"red")], &[]),
        ];
        let mut pod = Pod {
            uid: "u1".parse().unwrap(),
            key: PodKey { namespace: name("shop"), name: name("web") },
            labels: [("app".to_owned(), "a \"b\"".to_owned()), ("tier".to_owned(), "x".to_owned())].into(),
            annotations: [("note".to_owned(), "two\nlines".to_owned())].into(),
            spec: PodSpec::new(vec![Container::new(name("main"), "x"), Container::new(name("side"), "x")]),
            object: String::new(),
        };
        pod.spec.service_account = "builder".to_owned();
        pod.spec.containers[1].resources.limits.memory = Some("64Mi".parse().unwrap());
        pod.spec.containers[1].resources.requests.cpu = Some("250m".parse().unwrap());
        Self {
            pod,
            configs: Configs {
                objects: objects.into_iter().map(|object| (object.key.clone(), Arc::new(object))).collect(),
                complete: true,
            },
            node: NodeNow {
                name: "node-1".to_owned(),
                addresses: [[192, 168, 0, 7].into(), [0xfd00, 0, 0, 0, 0, 0, 0, 7].into()].into(),
                allocatable: known(Ok(Allocatable {
                    cpu: 3500,
                    memory: 8 << 30,
                    ephemeral_storage: 99 << 30,
                })),
            },
            addresses: Vec::new(),
            files: BTreeMap::new(),
        }
    }

    fn sources(&self) -> Sources<'_> {
        let Self { pod, configs, node, addresses, .. } = self;
        Sources { pod, configs, node, addresses }
    }

    fn resolve(&self, from: Vec<EnvFrom>, env: Vec<(&str, EnvValue)>) -> Result<Vec<EnvEntry>, String> {
        let mut container = self.pod.spec.containers[0].clone();
        container.env_from = from;
        container.env =
            env.into_iter().map(|(name, value)| EnvVar { name: name.to_owned(), value }).collect();
        let read = |selector: &FileKeySelector| match selector.path.as_str() {
            "broken" => Err("cannot read it".to_owned()),
            path => Ok(self.files.get(path).cloned()),
        };
        resolve(&container, self.sources(), &read).map_err(|failure| {
            assert_eq!(failure.reason, "CreateContainerConfigError");
            failure.message
        })
    }

    /// The value of one variable.
    fn value(&self, value: EnvValue) -> Result<Option<String>, String> {
        let entries = self.resolve(Vec::new(), vec![("V", value)])?;
        Ok(entries.into_iter().next().map(|entry| entry.value))
    }

    fn payload(&self, sources: Vec<Projection>) -> Result<Vec<(String, String, u32)>, String> {
        let payload = payload(&ProjectedVolume { default_mode: 0o640, sources }, self.sources())?;
        let file = |(path, file): (&str, &coracle_volume::PayloadFile)| {
            (path.to_owned(), String::from_utf8_lossy(&file.content).into_owned(), file.mode)
        };
        Ok(payload.files().map(file).collect())
    }
}

fn from(kind: ConfigKind, called: &str, prefix: &str, optional: bool) -> EnvFrom {
    EnvFrom { prefix: prefix.to_owned(), kind, name: name(called), optional }
}

fn key(called: &str, key: &str, optional: bool) -> KeySelector {
    KeySelector { name: name(called), key: key.to_owned(), optional }
}

fn resource(container: Option<&str>, limit: bool, resource: &str, divisor: &str) -> EnvValue {
    EnvValue::Resource(ResourceField {
        container: container.map(name),
        limit,
        resource: resource.to_owned(),
        divisor: divisor.parse().unwrap(),
    })
}

fn file(path: &str, key: &str, optional: bool) -> EnvValue {
    EnvValue::FileKey(FileKeySelector {
        volume: name("scratch"),
        path: path.to_owned(),
        key: key.to_owned(),
        optional,
    })
}

fn all_of(kind: ConfigKind, called: &str, items: &[(&str, &str, Option<u32>)], optional: bool) -> Projection {
    let items = items
        .iter()
        .map(|(key, path, mode)| KeyToPath { key: (*key).to_owned(), path: (*path).to_owned(), mode: *mode })
        .collect();
    Projection::Object { kind, name: name(called), items, optional }
}

#[test]
fn later_sources_count_and_only_literals_are_expanded() {
    let test = Test::new();
    let entries = test
        .resolve(
            vec![
                from(ConfigKind::ConfigMap, "settings", "CFG.", false),
                from(ConfigKind::Secret, "fine", "", false),
                from(ConfigKind::ConfigMap, "nothing", "", true),
            ],
            vec![
                ("LITERAL", EnvValue::Literal("$(color)".to_owned())),
                ("EMPTY", EnvValue::Literal(String::new())),
                ("color", EnvValue::ConfigMapKey(key("settings", "app.conf", false))),
                ("NAME", EnvValue::Field(PodField::Name)),
            ],
        )
        .unwrap();
    let seen: Vec<_> =
        entries.iter().map(|entry| (entry.name.as_str(), entry.value.as_str(), entry.expand)).collect();
    assert_eq!(
        seen,
        [
            ("CFG.app.conf", "$(color)", false),
            ("CFG.color", "blue", false),
            ("color", "red", false),
            ("user", "admin", false),
            ("LITERAL", "$(color)", true),
            ("EMPTY", "", true),
            ("color", "$(color)", false),
            ("NAME", "web", false),
        ],
        "binaryData gives no variables"
    );
}

#[test]
fn what_is_missing_in_the_kubelets_words() {
    let test = Test::new();
    let (map, secret) = (ConfigKind::ConfigMap, ConfigKind::Secret);
    for (value, message) in [
        (EnvValue::ConfigMapKey(key("nothing", "a", false)), "configmap \"nothing\" not found"),
        (EnvValue::SecretKey(key("settings", "a", false)), "secret \"settings\" not found"),
        (
            EnvValue::ConfigMapKey(key("settings", "a", false)),
            "couldn't find key a in ConfigMap shop/settings",
        ),
        (
            EnvValue::ConfigMapKey(key("settings", "logo", false)),
            "couldn't find key logo in ConfigMap shop/settings",
        ),
        (EnvValue::SecretKey(key("login", "a", false)), "couldn't find key a in Secret shop/login"),
        (
            EnvValue::SecretKey(key("login", "nul", true)),
            "key nul in Secret shop/login cannot be a variable: its value holds a NUL byte",
        ),
        (
            EnvValue::SecretKey(key("login", "bin", true)),
            "key bin in Secret shop/login cannot be a variable: its value is not UTF-8 text",
        ),
    ] {
        assert_eq!(test.value(value).unwrap_err(), message);
    }
    for (kind, called, message) in [
        (map, "nothing", "configmap \"nothing\" not found"),
        (secret, "nothing", "secret \"nothing\" not found"),
        (secret, "login", "key bin in Secret shop/login cannot be a variable: its value is not UTF-8 text"),
    ] {
        assert_eq!(test.resolve(vec![from(kind, called, "", false)], Vec::new()).unwrap_err(), message);
    }
    for optional in [
        EnvValue::ConfigMapKey(key("nothing", "a", true)),
        EnvValue::ConfigMapKey(key("settings", "a", true)),
        EnvValue::SecretKey(key("nothing", "a", true)),
        EnvValue::SecretKey(key("login", "a", true)),
        file("nothing", "A", true),
    ] {
        assert_eq!(test.value(optional), Ok(None));
    }
}

#[test]
fn nothing_is_missing_before_all_manifests_were_read() {
    let mut test = Test::new();
    test.configs.complete = false;
    let unread = "not found, and the manifests of the node's URL have not been read yet";
    for optional in [false, true] {
        let value = EnvValue::ConfigMapKey(key("nothing", "k", optional));
        let all = from(ConfigKind::Secret, "nothing", "", optional);
        let files = all_of(ConfigKind::Secret, "nothing", &[], optional);
        assert_eq!(test.value(value).unwrap_err(), format!("configmap \"nothing\" {unread}"));
        let secret = format!("secret \"nothing\" {unread}");
        assert_eq!(test.resolve(vec![all], Vec::new()).unwrap_err(), secret);
        assert_eq!(test.payload(vec![files]).unwrap_err(), secret);
    }
    let there = EnvValue::ConfigMapKey(key("settings", "color", false));
    assert_eq!(test.value(there), Ok(Some("blue".to_owned())));
    assert_eq!(
        test.value(EnvValue::ConfigMapKey(key("settings", "none", true))),
        Ok(None),
        "of what was read"
    );
}

#[test]
fn fields_and_resources() {
    let mut test = Test::new();
    let value = |value| test.value(value).unwrap().unwrap();
    for (field, expected) in [
        (PodField::Namespace, "shop"),
        (PodField::Uid, "u1"),
        (PodField::Label("app".to_owned()), "a \"b\""),
        (PodField::Label("none".to_owned()), ""),
        (PodField::Annotation("note".to_owned()), "two\nlines"),
        (PodField::NodeName, "node-1"),
        (PodField::ServiceAccountName, "builder"),
        (PodField::HostIp, "192.168.0.7"),
        (PodField::HostIps, "192.168.0.7,fd00::7"),
    ] {
        assert_eq!(value(EnvValue::Field(field)), expected);
    }
    for (field, expected) in [
        (resource(Some("side"), true, "memory", "1Mi"), 64),
        (resource(Some("side"), false, "cpu", "1m"), 250),
        (resource(Some("side"), false, "memory", "1"), 0),
        (resource(None, false, "ephemeral-storage", "1"), 0),
        (resource(None, true, "memory", "1"), 8_u64 << 30),
        (resource(None, true, "cpu", "1m"), 3500),
        (resource(None, true, "cpu", "1"), 4),
        (resource(None, true, "ephemeral-storage", "1"), 99 << 30),
        (resource(None, true, "hugepages-2Mi", "1"), 0),
    ] {
        assert_eq!(value(field.clone()), expected.to_string(), "{field:?}");
    }
    let missing = test.value(resource(Some("gone"), true, "cpu", "1")).unwrap_err();
    assert_eq!(missing, "container gone not found");
    let own = test.value(EnvValue::Field(PodField::PodIp)).unwrap_err();
    assert!(own.contains("no IP address"), "{own}");
    test.addresses = vec![[10, 83, 0, 2].into(), [0xfd83, 0, 0, 0, 0, 0, 0, 2].into()];
    assert_eq!(test.value(EnvValue::Field(PodField::PodIp)).unwrap().unwrap(), "10.83.0.2");
    assert_eq!(test.value(EnvValue::Field(PodField::PodIps)).unwrap().unwrap(), "10.83.0.2,fd83::2");
    test.pod.spec.host.network = true;
    assert_eq!(test.value(EnvValue::Field(PodField::PodIp)).unwrap().unwrap(), "192.168.0.7");
    assert_eq!(test.value(EnvValue::Field(PodField::PodIps)).unwrap().unwrap(), "192.168.0.7,fd00::7");
    test.node.addresses = Arc::default();
    let unknown = test.value(EnvValue::Field(PodField::HostIp)).unwrap_err();
    assert!(unknown.starts_with("host IP unknown"), "{unknown}");
}

#[test]
fn a_file_that_a_container_wrote() {
    let mut test = Test::new();
    test.files.insert("env".to_owned(), b"A='1'\nB=''\n".to_vec());
    test.files.insert("bad".to_owned(), b"A=1\n".to_vec());
    test.files.insert("bin".to_owned(), vec![0xff]);
    assert_eq!(test.value(file("env", "A", false)).unwrap().as_deref(), Some("1"));
    assert_eq!(test.value(file("env", "B", false)).unwrap().as_deref(), Some(""));
    assert_eq!(test.value(file("env", "C", true)), Ok(None));
    for (path, key, message) in [
        ("env", "C", "environment variable key \"C\" not found in file \"env\" of volume"),
        ("none", "A", "couldn't parse env file: there is no file \"none\" in volume"),
        ("bad", "A", "at line 1: value must be enclosed in single quotes"),
        ("bin", "A", "not UTF-8"),
        ("broken", "A", "cannot read it"),
    ] {
        let error = test.value(file(path, key, false)).unwrap_err();
        assert!(error.contains(message), "{error}");
    }
}

#[test]
fn files_of_every_source() {
    let test = Test::new();
    let (map, secret) = (ConfigKind::ConfigMap, ConfigKind::Secret);
    let downward = |path: &str, value, mode| DownwardFile { path: path.to_owned(), value, mode };
    let cpu = ResourceField {
        container: Some(name("side")),
        limit: false,
        resource: "cpu".to_owned(),
        divisor: Quantity::from_milli(1),
    };
    let files = test
        .payload(vec![
            all_of(map, "settings", &[], false),
            all_of(
                secret,
                "fine",
                &[("user", "db/user", Some(0o400)), ("color", "color", None), ("none", "x", None)],
                true,
            ),
            all_of(secret, "nothing", &[], true),
            Projection::Downward(vec![
                downward("labels", DownwardValue::Field(PodField::Labels), None),
                downward("notes", DownwardValue::Field(PodField::Annotations), None),
                downward("cpu", DownwardValue::Resource(cpu), Some(0o600)),
            ]),
        ])
        .unwrap();
    let file = |path: &str, content: &str, mode| (path.to_owned(), content.to_owned(), mode);
    assert_eq!(
        files,
        [
            file("app.conf", "$(color)", 0o640),
            file("color", "red", 0o640),
            file("cpu", "250", 0o600),
            file("db/user", "admin", 0o400),
            file("labels", "app=\"a \\\"b\\\"\"\ntier=\"x\"", 0o640),
            file("logo", "\u{fffd}\0", 0o640),
            file("notes", "note=\"two\\nlines\"", 0o640),
        ]
    );
}

#[test]
fn everything_that_is_wrong_with_a_volume_is_told() {
    let test = Test::new();
    let (map, secret) = (ConfigKind::ConfigMap, ConfigKind::Secret);
    for (sources, message) in [
        (vec![all_of(map, "nothing", &[], false)], "configmap \"nothing\" not found"),
        (vec![all_of(secret, "nothing", &[], false)], "secret \"nothing\" not found"),
        (
            vec![all_of(map, "settings", &[("a", "a", None)], false)],
            "configmap references non-existent config key: a",
        ),
        (vec![all_of(secret, "login", &[("a", "a", None)], false)], "references non-existent secret key: a"),
        (
            vec![all_of(map, "nothing", &[], false), all_of(secret, "login", &[("a", "a", None)], false)],
            "[configmap \"nothing\" not found, references non-existent secret key: a]",
        ),
    ] {
        assert_eq!(test.payload(sources).unwrap_err(), message);
    }
    let clash = [("color", "color/deep", None)];
    let error = test
        .payload(vec![all_of(map, "settings", &[], false), all_of(map, "settings", &clash, false)])
        .unwrap_err();
    assert!(error.contains("color/deep") && error.contains("directory"), "{error}");
}
