//! Variables and files that are made of configuration, as they reach the model.

use coracle_model::{
    ConfigKind, DownwardFile, DownwardValue, EnvFrom, EnvValue, FileKeySelector, KeySelector, KeyToPath,
    Name, PodField, ProjectedVolume, Projection, Quantity, ResourceField, VolumeSource,
};

use super::one;

const POD: &str = include_str!("good/configured.yaml");

fn name(text: &str) -> Name {
    Name::subdomain(text).unwrap()
}

#[test]
fn variables() {
    let pod = one(POD);
    let main = pod.container("main").unwrap();
    assert_eq!(
        main.env_from,
        [
            EnvFrom {
                prefix: String::new(),
                kind: ConfigKind::ConfigMap,
                name: name("settings"),
                optional: false
            },
            EnvFrom {
                prefix: "DB-".to_owned(),
                kind: ConfigKind::Secret,
                name: name("login"),
                optional: true
            },
        ]
    );
    let resource = |container: Option<&str>, limit, resource: &str, divisor| {
        let container = container.map(name);
        EnvValue::Resource(ResourceField { container, limit, resource: resource.to_owned(), divisor })
    };
    let key =
        |object: &str, key: &str, optional| KeySelector { name: name(object), key: key.to_owned(), optional };
    let file = FileKeySelector {
        volume: name("scratch"),
        path: "env/token".to_owned(),
        key: "TOKEN".to_owned(),
        optional: true,
    };
    let expected = [
        ("PLAIN", EnvValue::Literal("$(NAME) $$(NAME)".to_owned())),
        ("EMPTY", EnvValue::Literal(String::new())),
        ("relaxed name: 1.x", EnvValue::Literal("a".to_owned())),
        ("NAME", EnvValue::Field(PodField::Name)),
        ("NAMESPACE", EnvValue::Field(PodField::Namespace)),
        ("UID", EnvValue::Field(PodField::Uid)),
        ("LABEL", EnvValue::Field(PodField::Label("app.kubernetes.io/name".to_owned()))),
        ("ANNOTATION", EnvValue::Field(PodField::Annotation("Example.com/Note".to_owned()))),
        ("NODE", EnvValue::Field(PodField::NodeName)),
        ("HOST", EnvValue::Field(PodField::NodeName)),
        ("ACCOUNT", EnvValue::Field(PodField::ServiceAccountName)),
        ("HOST_IP", EnvValue::Field(PodField::HostIp)),
        ("HOST_IPS", EnvValue::Field(PodField::HostIps)),
        ("POD_IP", EnvValue::Field(PodField::PodIp)),
        ("POD_IPS", EnvValue::Field(PodField::PodIps)),
        ("CPU", resource(None, true, "cpu", Quantity::from_milli(1))),
        ("MEMORY", resource(Some("setup"), false, "memory", Quantity::from_units(1))),
        ("HUGE", resource(None, true, "hugepages-2Mi", Quantity::from_units(1 << 20))),
        ("COLOR", EnvValue::ConfigMapKey(key("settings", "color", false))),
        ("PASSWORD", EnvValue::SecretKey(key("login", "password", true))),
        ("TOKEN", EnvValue::FileKey(file)),
    ];
    for (variable, (name, value)) in main.env.iter().zip(&expected) {
        assert_eq!((variable.name.as_str(), &variable.value), (*name, value));
    }
    assert_eq!(main.env.len(), expected.len());
}

#[test]
fn volumes() {
    let pod = one(POD);
    let volume = |name: &str| {
        let volume = pod.spec.volumes.iter().find(|volume| volume.name == name).unwrap();
        match &volume.source {
            VolumeSource::Projected(volume) => volume.clone(),
            other => panic!("{other:?}"),
        }
    };
    let item = |key: &str, path: &str, mode| KeyToPath { key: key.to_owned(), path: path.to_owned(), mode };
    let file = |path: &str, value: DownwardValue, mode| DownwardFile { path: path.to_owned(), value, mode };
    let object = |kind, object: &str, items: &[KeyToPath], optional| Projection::Object {
        kind,
        name: name(object),
        items: items.to_vec(),
        optional,
    };
    let field = DownwardValue::Field;

    assert_eq!(
        volume("settings"),
        ProjectedVolume {
            default_mode: 0o644,
            sources: vec![object(ConfigKind::ConfigMap, "settings", &[], false)]
        }
    );
    let items = [item("password", "db/password", Some(0o440)), item("username", "db/username", None)];
    assert_eq!(
        volume("login"),
        ProjectedVolume {
            default_mode: 0o400,
            sources: vec![object(ConfigKind::Secret, "login", &items, true)]
        }
    );
    let cpu = ResourceField {
        container: Some(name("main")),
        limit: true,
        resource: "cpu".to_owned(),
        divisor: Quantity::from_units(1),
    };
    assert_eq!(
        volume("pod"),
        ProjectedVolume {
            default_mode: 0o400,
            sources: vec![Projection::Downward(vec![
                file("labels", field(PodField::Labels), None),
                file("annotations", field(PodField::Annotations), None),
                file("name", field(PodField::Name), Some(0o777)),
                file("app", field(PodField::Label("app".to_owned())), None),
                file("cpu", DownwardValue::Resource(cpu), None),
            ])]
        }
    );
    assert_eq!(
        volume("all"),
        ProjectedVolume {
            default_mode: 0o644,
            sources: vec![
                object(ConfigKind::ConfigMap, "settings", &[item("color", "color", None)], false),
                object(ConfigKind::Secret, "login", &[], true),
                Projection::Downward(vec![file("uid", field(PodField::Uid), None)]),
            ]
        }
    );
}

#[test]
fn the_defaults_of_volumes_and_selectors_are_the_api_servers() {
    let pod = one(POD);
    let object: serde_json::Value = serde_json::from_str(&pod.object).unwrap();
    assert_eq!(object["spec"]["volumes"][1]["configMap"]["defaultMode"], 420);
    assert_eq!(object["spec"]["volumes"][4]["projected"]["defaultMode"], 420);
    let variable = &object["spec"]["containers"][0]["env"][3];
    assert_eq!(variable["valueFrom"]["fieldRef"]["apiVersion"], "v1");
}
