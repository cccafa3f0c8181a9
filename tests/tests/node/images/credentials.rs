//! Registries that want to know who asks, and which pods may use what they gave.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use coracle_tests::manifests::{idle, pod, with};
use coracle_tests::needs_root;
use coracle_tests::node::Node;
use coracle_tests::registry::{Content, Registry, Reply};
use coracle_tests::wait::{SOON, wait_until};
use serde_json::{Value, json};

use super::{REGISTRY, blobs, busybox, content, serve, wait_event, waiting};

const PASSWORD: &str = "hunter2";
/// `base64(puller:hunter2)`, as HTTP's basic scheme has it.
const BASIC: &str = "Basic cHVsbGVyOmh1bnRlcjI=";

/// A registry for those who know the password.
fn guarded(node: &Node, content: Content) -> Registry {
    serve(node, move |request| match request.header("authorization") {
        Some(BASIC) => content.answer(request),
        _ => Reply::error("401 Unauthorized", "UNAUTHORIZED", "authentication required")
            .with("WWW-Authenticate", "Basic realm=\"registry\""),
    })
}

fn config(password: &str) -> String {
    json!({"auths": {REGISTRY: {"username": "puller", "password": password}}}).to_string()
}

/// Puts up a pull secret.
fn secret(node: &Node, name: &str, password: &str) {
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name},
        "type": "kubernetes.io/dockerconfigjson", "stringData": {".dockerconfigjson": config(password)},
    });
    node.write_manifest(&format!("secret-{name}.json"), &secret);
}

/// A pod of the registry's image that shows these Secrets.
fn of(name: &str, policy: &str, secrets: &[&str]) -> Value {
    let container = with(idle("c"), "image", json!(format!("{REGISTRY}/team/app:1")));
    let secrets: Vec<_> = secrets.iter().map(|name| json!({"name": name})).collect();
    let pod = pod(name, vec![with(container, "imagePullPolicy", json!(policy))]);
    with(pod, "spec.imagePullSecrets", json!(secrets))
}

#[track_caller]
fn assert_refused(node: &Node, name: &str) {
    let seen = node.wait_pod(name, "to be refused", |pod| waiting(pod).0 == "ErrImagePull");
    let (_, message) = waiting(&seen);
    assert!(message.contains(REGISTRY) && message.contains("401"), "{message}");
}

/// Waits until the node goes by fields that have changed.
fn wait_reloaded(node: &Node, fields: &str) {
    let beginning = format!("The configuration was read again, and counts from now on: {fields}");
    wait_event(node, "node/node", "ConfigurationReloaded", &beginning);
}

fn assert_no_secret_shown(node: &Node) {
    let events = node.coracle_ok(&["get", "events", "--output", "json"]);
    let pods = node.coracle_ok(&["get", "pods", "--output", "json"]);
    for text in [node.agent_log(), events, pods] {
        assert!(!text.contains(PASSWORD) && !text.contains("cHVsbGVyOmh1bnRlcjI"), "{text}");
    }
}

#[test]
fn an_image_pulled_with_a_secret_is_given_to_those_who_show_it() {
    needs_root!();
    let mut node = Node::start();
    let registry = guarded(&node, content(&busybox("one")));
    secret(&node, "wrong", "guessed");
    secret(&node, "right", PASSWORD);
    secret(&node, "same", PASSWORD);

    node.run(&of("first", "IfNotPresent", &["wrong", "right"]));
    node.wait_running("first");
    assert_eq!(blobs(&registry), 3);
    let asked = registry.asked().len();
    node.run(&of("again", "IfNotPresent", &["right"]));
    node.wait_running("again");
    node.run(&of("other", "IfNotPresent", &["same"]));
    node.wait_running("other");
    assert_eq!(registry.asked().len(), asked, "the registry was not asked again");

    node.run(&of("without", "IfNotPresent", &[]));
    assert_refused(&node, "without");
    node.run(&of("guessing", "IfNotPresent", &["wrong"]));
    assert_refused(&node, "guessing");
    node.run(&of("never", "Never", &[]));
    let never = node.wait_pod("never", "to be refused", |pod| waiting(pod).0 == "ErrImageNeverPull");
    assert!(waiting(&never).1.contains("does not have the proper auth"), "{never}");

    // The next agent knows as much.
    node.kill_agent();
    node.start_agent();
    node.run(&of("later", "IfNotPresent", &[]));
    assert_refused(&node, "later");
    let asked = registry.asked().len();
    node.run(&of("shown", "IfNotPresent", &["right"]));
    node.wait_running("shown");
    // Others are refused meanwhile, again and again; but nothing was asked for with the password.
    let after: Vec<_> = registry.asked().into_iter().skip(asked).collect();
    assert!(after.iter().all(|request| request.header("authorization") != Some(BASIC)), "{after:?}");
    assert_no_secret_shown(&node);
    node.finish();
}

#[test]
fn a_pull_secret_that_is_not_there_is_told_and_one_that_comes_is_used() {
    needs_root!();
    let node = Node::start();
    let _registry = guarded(&node, content(&busybox("one")));
    node.run(&of("web", "IfNotPresent", &["absent", "broken", "missing"]));
    let broken = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "broken"},
        "type": "kubernetes.io/dockerconfigjson",
        "stringData": {".dockerconfigjson": "{\"auths\": {\"reg.example\": \"hunter2\"}}"},
    });
    node.write_manifest("secret-broken.json", &broken);
    let beginning = "Unable to retrieve some image pull secrets (absent, missing); attempting to pull the image may not \
                     succeed.";
    wait_event(&node, "pod/web", "FailedToRetrieveImagePullSecret", beginning);
    let broken = "the docker configuration of Secret default/broken under .dockerconfigjson: auths[\"reg.example\"] is \
                  not a JSON object";
    node.wait_pod("web", "to be told what is wrong", |pod| waiting(pod).1.contains(broken));
    secret(&node, "absent", PASSWORD);
    node.wait_running("web");
    assert_no_secret_shown(&node);
    node.finish();
}

#[test]
fn what_the_node_may_pull_every_pod_may_use() {
    needs_root!();
    let node = Node::start();
    let registry = guarded(&node, content(&busybox("one")));
    node.run(&of("web", "IfNotPresent", &[]));
    assert_refused(&node, "web");
    // Read when it is needed, so also what has come meanwhile.
    fs::write(node.path("root/config.json"), config(PASSWORD)).unwrap();
    node.wait_running("web");
    fs::remove_file(node.path("root/config.json")).unwrap();
    let asked = registry.asked().len();
    node.run(&of("other", "IfNotPresent", &[]));
    node.wait_running("other");
    assert_eq!(registry.asked().len(), asked);
    node.run(&of("always", "Always", &[]));
    assert_refused(&node, "always");
    assert_no_secret_shown(&node);
    node.finish();
}

/// A credential provider that knows the password, for the registries of this pattern. It notes what it is asked for in `asked`.
fn put_up_provider(place: &Path, matches: &str) {
    let answer = json!({
        "kind": "CredentialProviderResponse", "apiVersion": "credentialprovider.kubelet.k8s.io/v1",
        "cacheKeyType": "Registry", "cacheDuration": "1h",
        "auth": {REGISTRY: {"username": "puller", "password": PASSWORD}},
    });
    fs::write(place.join("answer"), answer.to_string()).unwrap();
    let script = "#!/bin/sh\ncat >> \"$PLACE/asked\"; echo >> \"$PLACE/asked\"; cat \"$PLACE/answer\"\n";
    fs::write(place.join("provider"), script).unwrap();
    fs::set_permissions(place.join("provider"), fs::Permissions::from_mode(0o755)).unwrap();
    let providers = format!(
        "apiVersion: kubelet.config.k8s.io/v1\nkind: CredentialProviderConfig\nproviders:\n- name: provider\n  \
         apiVersion: credentialprovider.kubelet.k8s.io/v1\n  matchImages: ['{matches}']\n  \
         defaultCacheDuration: 1m\n  env: [{{name: PLACE, value: {}}}]\n",
        place.display()
    );
    fs::write(place.join("providers.yaml"), providers).unwrap();
}

/// What has a node ask that provider.
fn provider_configuration(place: &Path) -> String {
    let place = place.display();
    format!("imageCredentialProviderConfig: {place}/providers.yaml\nimageCredentialProviderBinDir: {place}\n")
}

#[test]
fn a_credential_provider_is_asked_for_its_registry() {
    needs_root!();
    let programs = tempfile::tempdir().unwrap();
    put_up_provider(programs.path(), "127.0.0.*:5000");
    let node = Node::start_with(&provider_configuration(programs.path()));
    let _registry = guarded(&node, content(&busybox("one")));
    node.run(&of("web", "IfNotPresent", &[]));
    node.wait_running("web");
    node.run(&of("always", "Always", &[]));
    node.wait_running("always");
    let asked = fs::read_to_string(programs.path().join("asked")).unwrap();
    let image = format!("\"image\":\"{REGISTRY}/team/app\"");
    assert!(asked.lines().count() == 1 && asked.contains(&image), "{asked}");
    node.run(&of("other", "IfNotPresent", &[]));
    node.wait_running("other");
    assert_no_secret_shown(&node);
    node.finish();
}

#[test]
fn the_providers_that_are_asked_are_those_that_are_configured_then() {
    needs_root!();
    let programs = tempfile::tempdir().unwrap();
    let node = Node::start();
    let _registry = guarded(&node, content(&busybox("one")));
    node.run(&of("nobody", "Always", &[]));
    assert_refused(&node, "nobody");

    put_up_provider(programs.path(), "127.0.0.*:5000");
    let configuration = provider_configuration(programs.path());
    node.reload_agent(&configuration);
    wait_reloaded(&node, "imageCredentialProviderConfig, imageCredentialProviderBinDir");
    node.run(&of("asked", "Always", &[]));
    node.wait_running("asked");

    // The same file, and what it says now; what the provider has answered is not used any more.
    put_up_provider(programs.path(), "registry.example");
    node.reload_agent(&format!("{configuration}podPidsLimit: 77\n"));
    wait_reloaded(&node, "podPidsLimit");
    node.run(&of("unmatched", "Always", &[]));
    assert_refused(&node, "unmatched");
    assert_no_secret_shown(&node);
    node.finish();
}

#[test]
fn who_has_to_show_credentials_follows_the_configuration() {
    needs_root!();
    let node = Node::start();
    let _registry = guarded(&node, content(&busybox("one")));
    secret(&node, "right", PASSWORD);
    node.run(&of("pulls", "IfNotPresent", &["right"]));
    node.wait_running("pulls");
    node.run(&of("default", "IfNotPresent", &[]));
    assert_refused(&node, "default");

    let allowlist = |image: &str| {
        format!(
            "imagePullCredentialsVerificationPolicy: NeverVerifyAllowlistedImages\n\
             preloadedImagesVerificationAllowlist: [{image}]\n"
        )
    };
    let (policy, list) = ("imagePullCredentialsVerificationPolicy", "preloadedImagesVerificationAllowlist");
    let given = |name: &str, configuration: &str, changed: &str| {
        node.reload_agent(configuration);
        wait_reloaded(&node, changed);
        node.run(&of(name, "IfNotPresent", &[]));
    };
    given("unverified", &format!("{policy}: NeverVerify\n"), policy);
    node.wait_running("unverified");
    given("unlisted", &allowlist("127.0.0.1:5000/team/other"), &format!("{policy}, {list}"));
    assert_refused(&node, "unlisted");
    given("listed", &allowlist(&format!("{REGISTRY}/team/app")), list);
    node.wait_running("listed");
    node.finish();
}

#[test]
fn records_of_images_go_with_them() {
    needs_root!();
    let mut node = Node::start();
    let _registry = guarded(&node, content(&busybox("one")));
    secret(&node, "right", PASSWORD);
    node.run(&of("web", "IfNotPresent", &["right"]));
    node.wait_running("web");
    let records = node.path("root/image_manager");
    let files = |of: &str| fs::read_dir(records.join(of)).unwrap().count();
    wait_until("the pull's record to go", SOON, || files("pulling") == 0);
    assert_eq!(files("pulled"), 1);
    for entry in fs::read_dir(records.join("pulled")).unwrap() {
        let text = fs::read_to_string(entry.unwrap().path()).unwrap();
        assert!(text.contains("\"name\":\"right\"") && !text.contains(PASSWORD), "{text}");
    }
    node.remove("web");
    node.wait_gone("web");
    node.coracle_ok(&["image", "rm", &format!("{REGISTRY}/team/app:1")]);
    node.stop_agent();
    node.start_agent();
    assert_eq!(files("pulled"), 0);
    node.finish();
}
