//! ConfigMaps and Secrets that are accepted.

use coracle_manifest::decode;
use coracle_model::{ConfigKind, ConfigObject};

fn objects(text: &str) -> Vec<ConfigObject> {
    match decode("test.yaml", text.as_bytes()) {
        Ok(decoded) => decoded.configs,
        Err(error) => panic!("{error}"),
    }
}

fn value<'a>(object: &'a ConfigObject, key: &str) -> &'a [u8] {
    &object.data[key]
}

#[test]
fn the_data_of_every_object_reaches_the_model() {
    let objects = objects(include_str!("good/configuration.yaml"));
    let keys: Vec<_> = objects.iter().map(|object| object.key.to_string()).collect();
    assert_eq!(
        keys,
        ["ConfigMap shop/settings", "Secret shop/login", "Secret shop/web", "ConfigMap default/empty"]
    );
    let [settings, login, web, empty] = &objects[..] else { panic!("{objects:?}") };

    assert_eq!(settings.key.kind, ConfigKind::ConfigMap);
    assert!(settings.immutable);
    assert_eq!(value(settings, "color"), b"blue");
    assert_eq!(value(settings, "shop.properties"), b"a = 1\nb = 2\n");
    assert_eq!(*settings.binary_data["logo"], [0xff, 0x00, 0x01]);
    assert_eq!(value(settings, "null"), b"");

    assert_eq!(login.key.kind, ConfigKind::Secret);
    assert!(!login.immutable);
    assert_eq!(value(login, "username"), b"admin");
    assert_eq!(value(login, "password"), b"from stringData", "it overwrites data");
    assert_eq!(value(login, "broken"), b"lines of base64", "as Go reads it");
    assert_eq!(value(login, "lax"), b"x", "bits in excess of a byte do not matter");
    assert_eq!(value(login, "null"), b"");

    assert_eq!(web.data.keys().collect::<Vec<_>>(), ["tls.crt", "tls.key"]);
    assert_eq!(empty.data.len(), 0);
}

#[test]
fn secrets_whose_type_asks_for_keys_and_that_have_them_are_accepted() {
    for (kind, data) in [
        ("Opaque", ""),
        ("example.com/mine", ""),
        ("kubernetes.io/tls", "tls.crt: '', tls.key: ''"),
        ("kubernetes.io/basic-auth", "username: ''"),
        ("kubernetes.io/basic-auth", "password: x"),
        ("kubernetes.io/ssh-auth", "ssh-privatekey: x"),
        ("kubernetes.io/dockercfg", ".dockercfg: '{}'"),
        ("kubernetes.io/dockercfg", ".dockercfg: 'null'"),
        ("kubernetes.io/dockerconfigjson", ".dockerconfigjson: '{\"auths\": {\"a\": [1]}}'"),
        ("bootstrap.kubernetes.io/token", ""),
    ] {
        let text = format!(
            "apiVersion: v1\nkind: Secret\nmetadata: {{name: a}}\ntype: {kind}\nstringData: {{{data}}}\n"
        );
        assert_eq!(objects(&text).len(), 1);
    }
    let token = "apiVersion: v1\nkind: Secret\ntype: kubernetes.io/service-account-token\nmetadata: {name: a, annotations: {kubernetes.io/service-account.name: default}}\n";
    assert_eq!(objects(token).len(), 1);
}

#[test]
fn the_values_of_one_object_have_a_mebibyte_together() {
    for (kind, field, more, path) in
        [("ConfigMap", "data", "binaryData", ""), ("Secret", "stringData", "data", "data: ")]
    {
        let text = |bytes| {
            let value = "x".repeat(bytes);
            format!(
                "apiVersion: v1\nkind: {kind}\nmetadata: {{name: a}}\n{field}: {{a: {value}}}\n{more}: {{b: eHg=}}\n"
            )
        };
        let most = 1024 * 1024 - 2;
        assert_eq!(objects(&text(most))[0].data["a"].len(), most);
        let error = decode("test.yaml", text(most + 1).as_bytes()).unwrap_err().to_string();
        assert!(error.ends_with(&format!(": {path}Too long: may not be more than 1048576 bytes")), "{error}");
    }
}

#[test]
fn debug_shows_no_value() {
    let shown = format!("{:?}", objects(include_str!("good/configuration.yaml")));
    assert!(!shown.contains("stringData") && !shown.contains("blue"), "{shown}");
}
