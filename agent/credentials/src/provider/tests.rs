//! Providers, as programs.

use std::fs;
use std::thread;

use coracle_registry::{Credential, Secret};
use tempfile::TempDir;

use super::*;
use crate::tests::program;

/// A directory of programs, beside a configuration.
struct Place {
    directory: TempDir,
}

const HEAD: &str = "apiVersion: kubelet.config.k8s.io/v1\nkind: CredentialProviderConfig\n";

/// A provider that counts how often it was asked, and answers with what is in its environment.
const COUNTING: &str = r#"
read -r request
echo "$request" >> "$0.asked"
echo "$ANSWER"
"#;

// === impl Place ===

impl Place {
    fn new(scripts: &[(&str, &str)]) -> Self {
        let directory = TempDir::new().unwrap();
        for (name, script) in scripts {
            program(directory.path(), name, script);
        }
        Self { directory }
    }

    fn load(&self, text: &str) -> Result<CredentialProviders, String> {
        let path = self.directory.path().join("config.yaml");
        fs::write(&path, text).unwrap();
        CredentialProviders::load(&path, self.directory.path()).map_err(|error| {
            let text = error.to_string();
            let prefix = format!("the configuration of credential providers {}: ", path.display());
            text.strip_prefix(&prefix).map(str::to_owned).unwrap_or(text)
        })
    }

    /// One provider that answers with this.
    fn answering(&self, answer: &str) -> CredentialProviders {
        let text = format!(
            "{HEAD}providers:\n- name: p\n  apiVersion: credentialprovider.kubelet.k8s.io/v1\n  matchImages: ['*.example', \
             'docker.io/me']\n  defaultCacheDuration: 1h\n  args: [--one]\n  env:\n  - name: ANSWER\n    value: '{answer}'\n"
        );
        self.load(&text).unwrap()
    }

    fn asked(&self) -> Vec<String> {
        let asked = fs::read_to_string(self.directory.path().join("p.asked")).unwrap_or_default();
        asked.lines().map(str::to_owned).collect()
    }
}

fn response(fields: &str) -> String {
    format!(
        r#"{{"kind":"CredentialProviderResponse","apiVersion":"credentialprovider.kubelet.k8s.io/v1",{fields}}}"#
    )
}

fn of(providers: &CredentialProviders, image: &str) -> Result<Vec<String>, String> {
    let mut problems = Vec::new();
    let found = providers.credentials(&image.parse().unwrap(), &mut problems);
    match problems.pop() {
        Some(problem) => Err(problem.to_string()),
        None => Ok(found
            .into_iter()
            .map(|found| {
                assert_eq!(found.source, Source::Provider("p".to_owned()));
                match found.credential {
                    Credential::Basic { username, password } => format!("{username}:{}", password.expose()),
                    other => format!("{other:?}"),
                }
            })
            .collect()),
    }
}

#[test]
fn a_provider_is_asked_for_its_images_alone() {
    let place = Place::new(&[("p", COUNTING)]);
    let auth = r#""auth":{"a.example":{"username":"u","password":"wide"},"a.example/team":{"username":"u","password":"long"},"b.example":{"username":"u","password":"other"}}"#;
    let providers = place.answering(&response(&format!(r#""cacheKeyType":"Image",{auth}"#)));
    assert_eq!(of(&providers, "quay.io/x"), Ok(vec![]));
    assert_eq!(of(&providers, "you/x"), Ok(vec![]));
    assert!(place.asked().is_empty());
    assert_eq!(of(&providers, "a.example/team/x:1"), Ok(vec!["u:long".to_owned(), "u:wide".to_owned()]));
    assert_eq!(
        place.asked(),
        [
            r#"{"apiVersion":"credentialprovider.kubelet.k8s.io/v1","image":"a.example/team/x","kind":"CredentialProviderRequest"}"#
        ]
    );
    assert_eq!(of(&providers, "me/x").map(|found| found.len()), Ok(0));
    assert!(place.asked()[1].contains(r#""image":"docker.io/me/x""#));
}

#[test]
fn answers_are_good_for_what_they_say() {
    for (key, duration, expected) in [
        ("Image", "", 3),
        ("Registry", "", 2),
        ("Global", "", 1),
        ("Global", r#","cacheDuration":"10m""#, 1),
        ("Global", r#","cacheDuration":"0s""#, 6),
        ("Global", r#","cacheDuration":"-1s""#, 6),
        ("Image", r#","cacheDuration":null"#, 3),
        ("Global", r#","cacheDuration":"1ns""#, 6),
    ] {
        let place = Place::new(&[("p", COUNTING)]);
        let providers = place.answering(&response(&format!(r#""cacheKeyType":"{key}"{duration}"#)));
        for image in
            ["a.example/x:1", "a.example/x:2", "a.example/y", "a.example/y", "b.example/x", "b.example/x"]
        {
            of(&providers, image).unwrap();
        }
        assert_eq!(place.asked().len(), expected, "{key} {duration}");
    }
}

#[test]
fn of_several_who_want_one_image_one_asks() {
    let place = Place::new(&[("p", COUNTING)]);
    let providers = place.answering(&response(r#""cacheKeyType":"Image""#));
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| of(&providers, "a.example/x").unwrap());
        }
    });
    assert_eq!(place.asked().len(), 1);
}

#[test]
fn what_is_no_answer_is_told_and_not_shown() {
    let place = Place::new(&[("p", COUNTING)]);
    let good = |fields: &str| response(&format!(r#""cacheKeyType":"Image",{fields}"#));
    for (answer, problem) in [
        ("hunter2".to_owned(), "its answer is not JSON from line 1, column 1 on"),
        (
            "[\"hunter2\"]".to_owned(),
            "it is no CredentialProviderResponse of credentialprovider.kubelet.k8s.io/v1",
        ),
        (
            response(r#""cacheKeyType":"Image""#).replace("io/v1", "io/v1beta1"),
            "it is no CredentialProviderResponse of credentialprovider.kubelet.k8s.io/v1",
        ),
        (response(r#""cacheKeyType":"hunter2""#), "cacheKeyType is not Image, Registry or Global"),
        (good(r#""cacheDuration":"hunter2""#), "cacheDuration is no duration such as 10m"),
        (good(r#""auth":["hunter2"]"#), "auth is not a JSON object"),
        (
            good(r#""auth":{"a.example":{"username":"u","password":["hunter2"]}}"#),
            "password of an entry of auth is not a string",
        ),
        (good(r#""auth":{"":{"username":"u","password":"hunter2"}}"#), "an entry of auth names no registry"),
    ] {
        let error = of(&place.answering(&answer), "a.example/x").unwrap_err();
        assert!(error.starts_with("the credential provider p, asked for a.example/x: "), "{error}");
        assert!(error.contains(problem) && !error.contains("hunter2"), "{error}");
    }
    let failing = Place::new(&[("p", "echo hunter2; echo hunter2 >&2; exit 3")]);
    let error = of(&failing.answering(""), "a.example/x").unwrap_err();
    assert!(error.contains("ended with exit code 3") && !error.contains("hunter2"), "{error}");
    // The next time it is asked again.
    assert!(of(&failing.answering(""), "a.example/x").is_err());
}

#[test]
fn configurations_that_are_refused() {
    let place = Place::new(&[("p", "")]);
    let provider = |fields: &str| format!("{HEAD}providers:\n- {{{fields}}}\n");
    const VERSION: &str = "apiVersion: credentialprovider.kubelet.k8s.io/v1";
    let all = format!("name: p, {VERSION}, matchImages: [a.example], defaultCacheDuration: 1h");
    place.load(&provider(&all)).unwrap();
    for (text, problem) in [
        ("{hunter2".to_owned(), "it is not YAML"),
        ("kind: Pod\n".to_owned(), "kind: Invalid value: \"Pod\": must be CredentialProviderConfig"),
        (
            "kind: CredentialProviderConfig\napiVersion: v1\n".to_owned(),
            "apiVersion: Unsupported value: \"v1\"",
        ),
        (HEAD.to_owned(), "providers: Required value"),
        (format!("{HEAD}extra: 1\nproviders: []\n"), "extra: unknown field"),
        (provider(&all.replace("name: p", "name: ../p")), "providers[0].name: Invalid value: \"../p\""),
        (provider(&all.replace("name: p", "name: q")), "providers[0].name: there is no program \"q\" in /"),
        (provider(&all.replace("io/v1", "io/v9")), "providers[0].apiVersion: Unsupported value"),
        (provider(&all.replace("[a.example]", "[]")), "providers[0].matchImages: Required value"),
        (
            provider(&all.replace("[a.example]", "['/x']")),
            "providers[0].matchImages[0]: must be a registry's host",
        ),
        (provider(&all.replace("1h", "-1h")), "providers[0].defaultCacheDuration: Invalid value: \"-1h\""),
        (
            provider(&all.replace(", defaultCacheDuration: 1h", "")),
            "providers[0].defaultCacheDuration: Required value",
        ),
        (
            provider(&format!("{all}, env: [{{name: A, value: [hunter2]}}]")),
            "providers[0].env[0].value is not a string",
        ),
        (provider(&format!("{all}, args: [[hunter2]]")), "providers[0].args[0] is not a string"),
        (provider(&format!("{all}, matchImage: [a]")), "providers[0].matchImage: unknown field"),
        (
            provider(&format!("{all}, tokenAttributes: {{serviceAccountTokenAudience: a}}")),
            "providers[0].tokenAttributes: not supported: no API server is joined",
        ),
        (format!("{HEAD}providers:\n- {{{all}}}\n- {{{all}}}\n"), "the provider \"p\" is configured twice"),
    ] {
        let error = place.load(&text).unwrap_err();
        assert!(error.contains(problem) && !error.contains("hunter2"), "{text}\n{error}");
    }
}

#[test]
fn a_directory_of_configurations_is_one() {
    let place = Place::new(&[("p", ""), ("q", "")]);
    let directory = TempDir::new().unwrap();
    let load = || CredentialProviders::load(directory.path(), place.directory.path());
    assert!(load().unwrap_err().to_string().contains("no .json, .yaml or .yml file is in it"));
    let write = |file: &str, name: &str| {
        let text = format!(
            "{HEAD}providers:\n- {{name: {name}, apiVersion: credentialprovider.kubelet.k8s.io/v1, matchImages: [a.example], \
             defaultCacheDuration: 0}}\n"
        );
        fs::write(directory.path().join(file), text.replace(": 0}", ": '0'}")).unwrap();
    };
    write("b.yaml", "p");
    write("a.yml", "q");
    write("c.txt", "none");
    let names: Vec<_> = load().unwrap().0.iter().map(|provider| provider.config.name.clone()).collect();
    assert_eq!(names, ["q", "p"]);
    write("d.json", "p");
    assert!(load().unwrap_err().to_string().contains("configured twice"));
    assert!(matches!(
        CredentialProviders::load(Path::new("/none"), place.directory.path()),
        Err(CredentialError::Read { .. })
    ));
}

#[test]
fn a_token_is_one_by_its_user() {
    let place = Place::new(&[("p", COUNTING)]);
    let auth = r#""cacheKeyType":"Image","auth":{"a.example":{"username":"<token>","password":"refresh"}}"#;
    let providers = place.answering(&response(auth));
    let found = providers.credentials(&"a.example/x".parse().unwrap(), &mut Vec::new());
    assert_eq!(found[0].credential, Credential::Identity(Secret::new("refresh")));
}
