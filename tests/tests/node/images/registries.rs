//! Registries as people have them: private ones, mirrors, none at all.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use coracle_tests::docker_registry::{Access, DockerRegistry, PASSWORD, USER};
use coracle_tests::images;
use coracle_tests::machine::Machine;
use coracle_tests::manifests::{idle, pod, with};
use coracle_tests::needs_root;
use coracle_tests::node::{Node, container_status};
use coracle_tests::registry::Authority;
use serde_json::{Value, json};

use super::pulling::of;
use super::{REGISTRY, busybox, content, serve, wait_event, waiting};

/// A registry at [`REGISTRY`], known by a private authority's certificate, and the directory in which skopeo finds that one.
fn private(machine: &Machine, access: Access<'_>) -> (DockerRegistry, PathBuf) {
    let authority = Authority::new();
    let certificate = authority.certificate(&["127.0.0.1"]);
    let directory = machine.path("ca");
    fs::create_dir(&directory).unwrap();
    authority.write(&directory.join("ca.crt"));
    let program = machine.command("docker-registry");
    (DockerRegistry::start_by(program, REGISTRY, Some((&authority, &certificate)), access), directory)
}

/// hosts.toml of that registry.
fn believed(directory: &Path) -> String {
    format!("[host.\"https://{REGISTRY}\"]\nca = \"{}\"\n", directory.join("ca.crt").display())
}

/// Copies an image with skopeo, on the machine.
#[track_caller]
fn copy(machine: &Machine, arguments: &[&str]) {
    let mut command = machine.command("skopeo");
    let output = command.arg("copy").args(arguments).output().expect("skopeo is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn archive(image: &str) -> String {
    format!("oci-archive:{}", images::layout(image).display())
}

/// Says in containerd's way how a host is asked.
fn hosts_toml(machine: &Machine, host: &str, text: &str) {
    let directory = machine.path("certs.d").join(host);
    fs::create_dir_all(&directory).unwrap();
    fs::write(directory.join("hosts.toml"), text).unwrap();
}

fn configuration(machine: &Machine) -> String {
    format!("registryConfigDirs: [{}]\n", machine.path("certs.d").display())
}

fn docker_config(password: &str) -> String {
    let auth = json!({"username": USER, "password": password});
    json!({"auths": {REGISTRY: auth}}).to_string()
}

fn with_secret(pod: Value, secret: &str) -> Value {
    with(pod, "spec.imagePullSecrets", json!([{"name": secret}]))
}

#[test]
fn a_private_registry_is_for_those_who_show_its_credentials() {
    needs_root!();
    let machine = Machine::new();
    let (registry, ca) = private(&machine, Access::Basic);
    let image = format!("{REGISTRY}/team/app:1");
    copy(
        &machine,
        &[
            "--dest-creds",
            &format!("{USER}:{PASSWORD}"),
            "--dest-cert-dir",
            ca.to_str().unwrap(),
            &archive("busybox"),
            &format!("docker://{image}"),
        ],
    );
    let configuration = configuration(&machine);
    let node = Node::start_on(machine, &configuration, Vec::new());

    node.run(&of("untrusting", &image, "IfNotPresent"));
    let seen = node.wait_pod("untrusting", "to fail", |pod| waiting(pod).0 == "ErrImagePull");
    let (_, message) = waiting(&seen);
    assert!(message.contains("name its root as `ca` in the hosts.toml"), "{message}");
    node.remove("untrusting");
    node.wait_gone("untrusting");

    hosts_toml(node.machine(), REGISTRY, &believed(&ca));
    node.run(&of("nobody", &image, "IfNotPresent"));
    let seen = node.wait_pod("nobody", "to be refused", |pod| waiting(pod).0 == "ErrImagePull");
    let (_, message) = waiting(&seen);
    assert!(message.contains(REGISTRY) && message.contains("unauthorized (401"), "{message}");

    let secret = |name: &str, password: &str| {
        json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name},
            "type": "kubernetes.io/dockerconfigjson",
            "stringData": {".dockerconfigjson": docker_config(password)},
        })
    };
    node.write_manifest("right.yaml", &secret("right", PASSWORD));
    node.run(&with_secret(of("somebody", &image, "IfNotPresent"), "right"));
    let seen = node.wait_running("somebody");
    let shown = container_status(&seen, "c")["imageID"].as_str().unwrap();
    assert!(shown.starts_with(&format!("{REGISTRY}/team/app@sha256:")), "{shown}");

    // It is there now, and yet for nobody who cannot show as much.
    node.run(&of("next", &image, "IfNotPresent"));
    node.wait_pod("next", "to be refused", |pod| waiting(pod).0 == "ErrImagePull");
    node.run(&of("never", &image, "Never"));
    let seen = node.wait_pod("never", "to be refused", |pod| waiting(pod).0 == "ErrImageNeverPull");
    assert!(waiting(&seen).1.contains("does not have the proper auth"), "{:?}", waiting(&seen));
    node.run(&with_secret(of("same", &image, "Never"), "right"));
    node.wait_running("same");
    node.run(&with_secret(of("late", &image, "IfNotPresent"), "later"));
    wait_event(
        &node,
        "pod/late",
        "FailedToRetrieveImagePullSecret",
        "Unable to retrieve some image pull secrets (later)",
    );
    node.write_manifest("later.yaml", &secret("later", PASSWORD));
    node.wait_running("late");

    // What the node itself has is for all of its pods.
    fs::write(node.path("root/config.json"), docker_config(PASSWORD)).unwrap();
    node.run(&of("nodes", &image, "IfNotPresent"));
    node.wait_running("nodes");
    let log = node.agent_log();
    assert!(!log.contains(PASSWORD), "{log}");
    drop(registry);
    node.finish();
}

#[test]
fn a_mirror_serves_names_of_docker_hub() {
    needs_root!();
    let machine = Machine::new();
    let registry =
        DockerRegistry::start_by(machine.command("docker-registry"), REGISTRY, None, Access::Anybody);
    for (image, name) in [("nginx", "library/nginx:latest"), ("busybox", "library/debian:latest")] {
        let to = format!("docker://{REGISTRY}/{name}");
        copy(&machine, &["--dest-tls-verify=false", &archive(image), &to]);
    }
    let mirror = format!(
        "server = \"https://registry-1.docker.io\"\n\
         [host.\"http://127.0.0.1:5001\"]\ncapabilities = [\"pull\", \"resolve\"]\n\
         [host.\"http://{REGISTRY}\"]\ncapabilities = [\"pull\", \"resolve\"]\n"
    );
    hosts_toml(&machine, "docker.io", &mirror);
    let configuration = configuration(&machine);
    let node = Node::start_on(machine, &configuration, Vec::new());
    let nginx = json!({"name": "nginx", "image": "nginx"});
    let debian = with(idle("debian"), "image", json!("debian"));
    node.run(&pod("web", vec![nginx, debian]));
    let seen = node.wait_running("web");
    for (container, image) in
        [("nginx", "docker.io/library/nginx@sha256:"), ("debian", "docker.io/library/debian@sha256:")]
    {
        let shown = container_status(&seen, container)["imageID"].as_str().unwrap();
        assert!(shown.starts_with(image), "{shown}");
    }
    // Nobody has what no mirror has, and all that were asked are named.
    node.run(&of("lost", "lost", "IfNotPresent"));
    let seen = node.wait_pod("lost", "to fail", |pod| !waiting(pod).1.is_empty());
    let (_, message) = waiting(&seen);
    for host in ["127.0.0.1:5001: ", "127.0.0.1:5000: ", "registry-1.docker.io: "] {
        assert!(message.contains(host), "{host} in {message}");
    }
    drop(registry);
    node.finish();
}

#[test]
fn a_node_without_root_certificates_believes_whom_it_is_told_to() {
    needs_root!();
    let machine = Machine::new();
    let (registry, ca) = private(&machine, Access::Anybody);
    let image = format!("{REGISTRY}/team/app:1");
    let to = format!("docker://{image}");
    copy(&machine, &["--dest-cert-dir", ca.to_str().unwrap(), &archive("busybox"), &to]);
    let roots = machine.path("roots.pem");
    fs::write(&roots, "").unwrap();
    let empty = machine.path("roots");
    fs::create_dir(&empty).unwrap();
    let environment = [("SSL_CERT_FILE", roots), ("SSL_CERT_DIR", empty)];
    let environment = environment.map(|(name, path)| (name.to_owned(), path.display().to_string())).to_vec();
    let configuration = configuration(&machine);
    let node = Node::start_on(machine, &configuration, environment);
    node.run(&of("early", &image, "IfNotPresent"));
    let seen = node.wait_pod("early", "to fail", |pod| waiting(pod).0 == "ErrImagePull");
    let (_, message) = waiting(&seen);
    for part in ["no root certificates are found", "name its root as `ca` in the hosts.toml"] {
        assert!(message.contains(part), "{message}");
    }
    hosts_toml(node.machine(), REGISTRY, &believed(&ca));
    node.run(&of("late", &image, "IfNotPresent"));
    node.wait_running("late");
    drop(registry);
    node.finish();
}

#[test]
fn the_next_attempt_goes_by_the_registries_that_are_configured_then() {
    needs_root!();
    let machine = Machine::new();
    let none = format!("registryConfigDirs: [{}]\n", machine.path("none").display());
    let node = Node::start_on(machine, &none, Vec::new());
    let content = content(&busybox("one"));
    let registry = serve(&node, move |request| content.answer(request));
    let toml = format!("[host.\"http://{REGISTRY}\"]\ncapabilities = [\"pull\", \"resolve\"]\n");
    hosts_toml(node.machine(), "registry.example", &toml);
    node.run(&of("web", "registry.example/team/app:1", "IfNotPresent"));
    node.wait_pod("web", "to back off", |pod| waiting(pod).0 == "ImagePullBackOff");
    assert_eq!(registry.lines(), [""; 0], "nobody has said that it has images of others");
    node.reload_agent(&configuration(node.machine()));
    let seen = node.wait_running("web");
    let shown = container_status(&seen, "c")["imageID"].as_str().unwrap();
    assert!(shown.starts_with("registry.example/team/app@sha256:"), "{shown}");
    drop(registry);
    node.finish();
}

#[test]
fn archives_bring_images_to_a_node_without_registries() {
    needs_root!();
    let machine = Machine::new();
    let archives = machine.path("root/archives");
    fs::create_dir_all(&archives).unwrap();
    let file = archives.join("app.tar");
    let to = format!("docker-archive:{}:registry.example/team/app:1", file.display());
    copy(&machine, &[&archive("busybox"), &to]);
    fs::write(archives.join("broken.tar"), "this is no archive").unwrap();
    let mut node = Node::start_on(machine, "", Vec::new());
    let name = "registry.example/team/app:1";
    node.run(&of("web", name, "IfNotPresent"));
    let seen = node.wait_running("web");
    assert!(container_status(&seen, "c")["imageID"].as_str().unwrap().contains("sha256:"));
    let said = wait_event(&node, "node/node", "FailedImageImport", "Failed to import images from ");
    assert!(said.contains("broken.tar"), "{said}");
    node.remove("web");
    node.wait_gone("web");

    let prune = || node.coracle_ok(&["image", "prune", "--all", "--force"]);
    let said = prune();
    assert!(said.starts_with("0B freed\nkept ") && said.contains(name), "{said}");
    assert!(said.contains("archives/app.tar, until the agent starts without it"), "{said}");
    let pinned = |node: &Node| {
        let text = node.coracle_ok(&["image", "inspect", name]);
        let images: Value = serde_json::from_str(&text).unwrap();
        images[0]["Metadata"]["Pinned"].as_array().unwrap().len()
    };
    assert_eq!(pinned(&node), 1, "it is pinned, so it is still here");
    node.stop_agent();
    node.start_agent();
    assert_eq!(pinned(&node), 1);
    let imports = node.agent_log().matches("imported an image").count();
    assert_eq!(imports, 1, "what has not changed is not read again");

    node.stop_agent();
    fs::remove_file(&file).unwrap();
    node.start_agent();
    coracle_tests::wait::wait_until("the pin to go", coracle_tests::wait::SOON, || pinned(&node) == 0);
    node.coracle_ok(&["image", "prune", "--all", "--force"]);
    assert_ne!(node.coracle(&["image", "inspect", name]).code, 0);
    node.import("busybox", images::BUSYBOX);
    node.finish();
}

/// What a user does by hand: the same images, by the command line alone, also without an agent.
#[test]
fn images_are_pulled_told_of_and_exported_by_hand() {
    needs_root!();
    let machine = Machine::new();
    let registry =
        DockerRegistry::start_by(machine.command("docker-registry"), REGISTRY, None, Access::Basic);
    let name = format!("{REGISTRY}/team/app:1");
    let credentials = format!("{USER}:{PASSWORD}");
    let to = format!("docker://{name}");
    copy(&machine, &["--dest-tls-verify=false", "--dest-creds", &credentials, &archive("nginx"), &to]);
    let mut node = Node::start_on(machine, "", Vec::new());
    node.stop_agent();

    let refused = node.coracle(&["image", "pull", &name]);
    assert_eq!(refused.code, 1);
    assert!(refused.stderr.contains("unauthorized (401"), "{}", refused.stderr);
    let mut command = node.command(&["image", "pull", "--username", USER, "--password-stdin", &name]);
    let pulled = with_input(&mut command, PASSWORD);
    assert_eq!(pulled.code, 0, "{}", pulled.stderr);
    assert!(pulled.stdout.starts_with(&format!("pulled {name} (")), "{}", pulled.stdout);
    assert!(pulled.stderr.contains(": complete"), "{}", pulled.stderr);
    fs::write(node.path("auth.json"), docker_config(PASSWORD)).unwrap();
    let authfile = node.path("auth.json").display().to_string();
    let again = node.coracle_ok(&["image", "pull", "--authfile", &authfile, &name]);
    assert!(again.starts_with(&format!("{name} is up to date (")), "{again}");

    node.coracle_ok(&["image", "tag", &name, "localhost/mine:2"]);
    let file = node.path("image.tar").display().to_string();
    node.coracle_ok(&["image", "export", "localhost/mine:2", &file]);
    let inspected = node.coracle_ok(&["image", "inspect", &name]);
    let inspected: Value = serde_json::from_str(&inspected).unwrap();
    let id = inspected[0]["Id"].as_str().unwrap().to_owned();
    copy(
        node.machine(),
        &[&format!("oci-archive:{file}"), &format!("oci:{}:mine", node.path("layout").display())],
    );
    let config = Command::new("skopeo")
        .args(["inspect", "--raw", &format!("oci:{}:mine", node.path("layout").display())])
        .output()
        .unwrap();
    let manifest: Value = serde_json::from_slice(&config.stdout).unwrap();
    assert_eq!(manifest["config"]["digest"], id, "skopeo reads the same image");
    let df = node.coracle_ok(&["image", "df"]);
    assert!(df.contains("on their way:       0B") && df.contains("layers of none:     0B"), "{df}");
    assert_eq!(node.coracle_ok(&["image", "verify"]), "all images are whole\n");
    let layers = fs::read_dir(node.path("root/images/layers")).unwrap();
    for layer in layers {
        fs::remove_file(layer.unwrap().path().join("split")).unwrap();
    }
    let damaged = node.coracle(&["image", "verify"]);
    assert_eq!(damaged.code, 1, "{}", damaged.stdout);
    assert!(damaged.stdout.contains("kept no description of its archive"), "{}", damaged.stdout);
    assert_eq!(node.coracle_ok(&["image", "verify", "--quick"]), "all images are whole\n");
    node.coracle_ok(&["image", "rm", &name]);
    let deleted = node.coracle_ok(&["image", "rm", "localhost/mine:2"]);
    let short = &id["sha256:".len()..][..12];
    assert!(deleted.starts_with(&format!("deleted {short} localhost/mine:2 (")), "{deleted}");

    let digest = inspected[0]["Digest"].as_str().unwrap();
    let by_digest = format!("{REGISTRY}/team/app@{digest}");
    node.coracle_ok(&["image", "pull", "--authfile", &authfile, &by_digest]);
    assert!(node.coracle_ok(&["image", "ls"]).contains(&format!("{REGISTRY}/team/app:<none>")));
    assert!(node.coracle_ok(&["image", "ls", "-o", "name"]).lines().any(|line| line == by_digest));
    node.coracle_ok(&["image", "rm", &by_digest]);
    let imported = with_input(&mut node.command(&["image", "import", "-"]), fs::read(&file).unwrap());
    assert_eq!(imported.code, 0, "{}", imported.stderr);
    let junk = with_input(&mut node.command(&["image", "import", "-"]), "no archive");
    assert!(junk.stderr.starts_with("error: standard input: "), "{}", junk.stderr);
    let inspected = node.coracle_ok(&["image", "inspect", "localhost/mine:2"]);
    assert!(inspected.contains(&id));
    node.start_agent();
    drop(registry);
    node.finish();
}

fn with_input(command: &mut Command, input: impl AsRef<[u8]>) -> coracle_tests::node::Answer {
    use std::io::Write;
    use std::process::Stdio;
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_ref()).unwrap();
    child.wait_with_output().unwrap().into()
}
