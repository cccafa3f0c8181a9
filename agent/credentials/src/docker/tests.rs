//! Docker configurations, as bytes and as files.

use std::fs;

use coracle_model::ImageName;
use coracle_registry::{Credential, Secret};
use tempfile::TempDir;

use super::{DockerConfig, DockerConfigFiles, Format};
use crate::{CredentialError, Keyring, Lookup, PullSecrets, Source};

fn parse(text: &str) -> Result<DockerConfig, CredentialError> {
    DockerConfig::parse("/x/config.json", Format::ConfigJson, text.as_bytes())
}

fn found(config: &DockerConfig, image: &str) -> Vec<Credential> {
    config.credentials(&image.parse().unwrap()).cloned().collect()
}

fn basic(username: &str, password: &str) -> Credential {
    Credential::Basic { username: username.to_owned(), password: Secret::new(password) }
}

async fn lookup(keyring: &Keyring) -> Lookup {
    let name: ImageName = "reg.example/x".parse().unwrap();
    keyring.lookup(&name, &PullSecrets::default()).await
}

#[test]
fn every_kind_of_entry() {
    let config = parse(
        r#"{
            "HttpHeaders": {"User-Agent": "x"},
            "auths": {
                "a.io": {"auth": "dXNlcjpwYXNzOndvcmQ="},
                "a.io/team": {"auth": "dXNlcjpwYXNzOndvcmQ", "username": "other", "email": "e"},
                "b.io": {"username": "user", "password": "pass"},
                "c.io": {"auth": "MDAwOg==", "identitytoken": "refresh"},
                "d.io": {"registrytoken": "bearer"},
                "e.io": {},
                "f.io": {"username": "<token>", "password": "refresh"},
                "g.io": {"auth": "dXNlcjpwYXNzAAA="},
                "https://index.docker.io/v1/": {"auth": "bWU6aHVi"}
            },
            "credHelpers": {"https://H.io": "ecr-login", "i.io:5000": ""},
            "credsStore": "secretservice"
        }"#,
    )
    .unwrap();
    assert_eq!(found(&config, "a.io/x"), [basic("user", "pass:word")]);
    assert_eq!(found(&config, "a.io/team/x"), [basic("user", "pass:word"), basic("user", "pass:word")]);
    assert_eq!(found(&config, "b.io/x"), [basic("user", "pass")]);
    assert_eq!(found(&config, "c.io/x"), [Credential::Identity(Secret::new("refresh"))]);
    assert_eq!(found(&config, "d.io/x"), [Credential::Bearer(Secret::new("bearer"))]);
    assert_eq!(found(&config, "e.io/x"), []);
    assert_eq!(found(&config, "f.io/x"), [Credential::Identity(Secret::new("refresh"))]);
    assert_eq!(found(&config, "g.io/x"), [basic("user", "pass")]);
    assert_eq!(found(&config, "nginx"), [basic("me", "hub")]);
    assert_eq!(config.helper("h.io"), Some("ecr-login"));
    assert_eq!(config.helper("i.io:5000"), Some("secretservice"));

    let legacy = br#"{"a.io": {"auth": "dTpw", "email": "x"}, "auths": {"auth": "dTpx"}}"#;
    let legacy = DockerConfig::parse("x", Format::Dockercfg, legacy).unwrap();
    assert_eq!(found(&legacy, "a.io/x"), [basic("u", "p")]);
}

#[test]
fn what_is_wrong_is_told_without_a_value() {
    for (text, problem) in [
        ("", "it is not JSON from line 1, column 0 on"),
        (r#"{"auths": {"a.io": {"auth": "hunter2"#, "it is not JSON from line 1, column 36 on"),
        (r#"["hunter2"]"#, "it is not a JSON object"),
        (r#"{"auths": "hunter2"}"#, "auths is not a JSON object"),
        (r#"{"auths": {"a.io": "hunter2"}}"#, r#"auths["a.io"] is not a JSON object"#),
        (r#"{"auths": {"a.io": {"auth": ["hunter2"]}}}"#, r#"auths["a.io"].auth is not a string"#),
        (r#"{"auths": {"a.io": {"auth": "hunter2!"}}}"#, r#"auths["a.io"].auth is not base64"#),
        (
            r#"{"auths": {"a.io": {"auth": "aHVudGVyMg=="}}}"#,
            r#"auths["a.io"].auth is not base64 of username:password"#,
        ),
        (r#"{"auths": {"a.io": {"auth": "/zo="}}}"#, r#"auths["a.io"].auth is not base64 of a text"#),
        (r#"{"auths": {"https://": {"auth": "dTpw"}}}"#, r#"auths["https://"]: there is no host in it"#),
        (r#"{"credsStore": "../../bin/sh"}"#, "credsStore is not the name of a credential helper"),
        (r#"{"credHelpers": {"a.io": 7}}"#, r#"credHelpers["a.io"] is not a string"#),
    ] {
        let error = parse(text).unwrap_err().to_string();
        assert_eq!(error, format!("the docker configuration of /x/config.json: {problem}"));
        assert!(!error.contains("hunter2"), "{error}");
    }
    let debug = format!("{:?}", parse(r#"{"auths": {"a.io": {"username": "u", "password": "hunter2"}}}"#));
    assert!(!debug.contains("hunter2"), "{debug}");
}

#[tokio::test]
async fn the_first_file_that_can_be_used_counts_and_changes_are_seen() {
    let directory = TempDir::new().unwrap();
    let path = |name: &str| directory.path().join(name);
    let places = ["none", "broken", "first", "second"].map(|name| (path(name), Format::ConfigJson));
    let keyring = Keyring::new(vec![DockerConfigFiles::new(places.to_vec(), true)]);
    let write = |name: &str, password: &str| {
        let text =
            format!(r#"{{"auths": {{"reg.example": {{"username": "u", "password": "{password}"}}}}}}"#);
        fs::write(path(name), text).unwrap();
    };
    fs::write(path("broken"), "{").unwrap();
    write("first", "one");
    write("second", "two");

    let lookup_ = lookup(&keyring).await;
    let sources: Vec<_> = lookup_.found.iter().map(|found| found.source.clone()).collect();
    assert_eq!(sources, [Source::File(path("first")), Source::Nobody]);
    assert_eq!(lookup_.found[0].credential, basic("u", "one"));
    let problems: Vec<_> = lookup_.problems.iter().map(ToString::to_string).collect();
    assert_eq!(problems.len(), 1);
    assert!(problems[0].contains("/broken: it is not JSON from line 1, column 1 on"), "{problems:?}");

    write("first", "other");
    assert_eq!(lookup(&keyring).await.found[0].credential, basic("u", "other"));
    fs::remove_file(path("first")).unwrap();
    assert_eq!(lookup(&keyring).await.found[0].credential, basic("u", "two"));
    fs::remove_file(path("second")).unwrap();
    assert_eq!(lookup(&keyring).await.found[0].credential, Credential::Anonymous);
}

#[tokio::test]
async fn all_files_of_a_user_count() {
    let directory = TempDir::new().unwrap();
    let place = |name: &str, password: &str| {
        let path = directory.path().join(name);
        let text =
            format!(r#"{{"auths": {{"reg.example": {{"username": "u", "password": "{password}"}}}}}}"#);
        fs::write(&path, text).unwrap();
        (path, Format::ConfigJson)
    };
    let places = vec![place("a", "one"), place("b", "two"), place("c", "one")];
    let keyring = Keyring::new(vec![DockerConfigFiles::new(places, false)]);
    let credentials = lookup(&keyring).await.found.into_iter().map(|found| found.credential);
    let credentials: Vec<_> = credentials.collect();
    assert_eq!(credentials, [basic("u", "one"), basic("u", "two"), Credential::Anonymous]);
}
