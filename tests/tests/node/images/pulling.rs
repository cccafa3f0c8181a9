//! Pulls for pods: what they bring, and what is said of them.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use coracle_tests::manifests::{idle, pod, with};
use coracle_tests::needs_root;
use coracle_tests::node::{Node, container_status};
use coracle_tests::processes;
use coracle_tests::registry::{Content, Registry};
use coracle_tests::wait::{SOON, holds_for, wait_until};
use serde_json::{Value, json};

use super::{REGISTRY, blobs, busybox, content, events, serve, wait_event, waiting};

/// A pod of one container of this image.
pub(super) fn of(name: &str, image: &str, policy: &str) -> Value {
    let container = with(idle("c"), "image", json!(image));
    pod(name, vec![with(container, "imagePullPolicy", json!(policy))])
}

fn app() -> String {
    format!("{REGISTRY}/team/app:1")
}

#[test]
fn an_image_is_pulled_once_and_shown_by_its_digest() {
    needs_root!();
    let node = Node::start();
    let image = busybox("one");
    let content = content(&image);
    let registry = serve(&node, move |request| content.answer(request));

    node.run(&of("web", &app(), "IfNotPresent"));
    let seen = node.wait_running("web");
    let status = container_status(&seen, "c");
    let digest = coracle_tests::registry::Descriptor::of("", image.manifest.to_string().as_bytes()).digest;
    assert_eq!(status["imageID"], format!("{REGISTRY}/team/app@{digest}"));
    assert_eq!(status["image"], app());
    assert_eq!(blobs(&registry), 3, "a configuration and two layers");
    wait_event(&node, "pod/web", "Pulling", &format!("Pulling image \"{}\"", app()));
    let pulled =
        wait_event(&node, "pod/web", "Pulled", &format!("Successfully pulled image \"{}\" in ", app()));
    assert!(pulled.contains(" including waiting). Image size: "), "{pulled}");

    node.run(&of("again", &app(), "IfNotPresent"));
    node.wait_running("again");
    let present = format!("Container image \"{}\" already present on machine", app());
    wait_event(&node, "pod/again", "Pulled", &present);
    assert_eq!(blobs(&registry), 3);
    drop(registry);
    node.run(&of("offline", &app(), "Never"));
    node.wait_running("offline");
    node.finish();
}

#[test]
fn a_damaged_image_comes_again() {
    needs_root!();
    let mut node = Node::start();
    let content = content(&busybox("one"));
    let _registry = serve(&node, move |request| content.answer(request));
    node.run(&of("first", &app(), "IfNotPresent"));
    let first = node.wait_running("first");
    node.remove("first");
    node.wait_gone("first");
    // As a power cut may leave it: of the image that was pulled, which is the last that came.
    let newest = |path: &PathBuf| path.metadata().unwrap().modified().unwrap();
    let records = fs::read_dir(node.path("root/images/images")).unwrap();
    let record = records.map(|entry| entry.unwrap().path()).max_by_key(newest).unwrap();
    fs::write(&record, "").unwrap();
    node.stop_agent();
    node.start_agent();
    node.run(&of("again", &app(), "IfNotPresent"));
    let again = node.wait_running("again");
    assert_eq!(container_status(&again, "c")["imageID"], container_status(&first, "c")["imageID"]);
    assert_eq!(node.coracle(&["image", "verify"]).code, 0);
    node.finish();
}

#[test]
fn always_means_that_the_registry_is_asked_and_a_moved_tag_followed() {
    needs_root!();
    let node = Node::start();
    let served = Arc::new(Mutex::new(content(&busybox("one"))));
    let answered = Arc::clone(&served);
    let registry = serve(&node, move |request| answered.lock().unwrap().answer(request));
    node.run(&of("first", &app(), "Always"));
    let first = node.wait_running("first");
    assert_eq!(blobs(&registry), 3);
    node.run(&of("same", &app(), "Always"));
    let same = node.wait_running("same");
    let id = |pod: &Value| container_status(pod, "c")["imageID"].as_str().unwrap().to_owned();
    assert_eq!((id(&same), blobs(&registry)), (id(&first), 3), "one request is all that costs");
    wait_event(&node, "pod/same", "Pulled", "Successfully pulled image ");

    *served.lock().unwrap() = content(&busybox("two"));
    node.run(&of("moved", &app(), "Always"));
    let moved = node.wait_running("moved");
    assert_ne!(id(&moved), id(&first));
    // The layer both have did not come again.
    assert_eq!(blobs(&registry), 5);
    let old = id(&first);
    node.run(&of("pinned", &old, "IfNotPresent"));
    assert_eq!(id(&node.wait_running("pinned")), old);
    assert_eq!(blobs(&registry), 5);
    node.run(&of("lost", "127.0.0.1:5001/team/app:1", "Always"));
    let lost = node.wait_pod("lost", "to be told so", |pod| waiting(pod).0 == "RegistryUnavailable");
    let (_, message) = waiting(&lost);
    let beginning = "image pull failed for 127.0.0.1:5001/team/app:1 because the registry is unavailable: ";
    assert!(message.starts_with(beginning) && message.contains("Connection refused"), "{message}");
    node.finish();
}

#[test]
fn an_image_that_is_not_there_is_said_and_waited_for() {
    needs_root!();
    let node = Node::start();
    let served = Arc::new(Mutex::new(Content::default()));
    let answered = Arc::clone(&served);
    let _registry = serve(&node, move |request| answered.lock().unwrap().answer(request));
    node.run(&of("web", &app(), "IfNotPresent"));
    let seen = node.wait_pod("web", "to fail", |pod| waiting(pod).0 == "ErrImagePull");
    let (_, message) = waiting(&seen);
    assert!(message.contains(REGISTRY) && message.contains("404"), "{message}");
    let seen = node.wait_pod("web", "to back off", |pod| waiting(pod).0 == "ImagePullBackOff");
    let (_, said) = waiting(&seen);
    assert_eq!(said, format!("Back-off pulling image \"{}\": ErrImagePull: {message}", app()));
    wait_event(&node, "pod/web", "Failed", &format!("Failed to pull image \"{}\": {message}", app()));
    wait_event(&node, "pod/web", "Failed", "Error: ErrImagePull");
    wait_event(&node, "pod/web", "BackOff", &format!("Back-off pulling image \"{}\"", app()));
    wait_event(&node, "pod/web", "Failed", "Error: ImagePullBackOff");
    *served.lock().unwrap() = content(&busybox("one"));
    node.wait_running("web");
    node.finish();
}

#[test]
fn an_image_that_is_imported_is_noticed_by_whoever_waits_for_it() {
    needs_root!();
    let node = Node::start();
    let name = "localhost/later:1";
    node.run(&of("never", name, "Never"));
    node.run(&of("pulls", name, "IfNotPresent"));
    node.wait_pod("never", "to say so", |pod| waiting(pod).0 == "ErrImageNeverPull");
    node.wait_pod("pulls", "to back off", |pod| waiting(pod).0 == "ImagePullBackOff");
    // After the third attempt the next is further away than a test waits for anything.
    let attempts =
        |pod: &str| node.agent_log().matches(&format!("a step of the pod failed pod=default/{pod} ")).count();
    for count in [2, 3] {
        wait_until("the next attempt", SOON * 2, || {
            ["never", "pulls"].iter().all(|pod| attempts(pod) >= count)
        });
    }
    node.import("busybox", name);
    node.wait_running("never");
    node.wait_running("pulls");
    node.finish();
}

#[test]
fn what_is_no_name_is_refused() {
    needs_root!();
    let node = Node::start();
    node.run(&of("bad", "Nginx", "IfNotPresent"));
    let seen = node.wait_pod("bad", "to be refused", |pod| waiting(pod).0 == "InvalidImageName");
    let (_, message) = waiting(&seen);
    assert!(message.contains("repository name must be lowercase"), "{message}");
    wait_event(&node, "pod/bad", "InspectFailed", "Failed to apply default image tag \"Nginx\": ");
    wait_event(&node, "pod/bad", "Failed", "Error: InvalidImageName");
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(
        waiting(&node.pod("bad").unwrap()).0,
        "InvalidImageName",
        "nothing is pulled, so nothing backs off"
    );
    node.finish();
}

#[test]
fn one_pull_serves_all_pods_that_want_the_image() {
    needs_root!();
    const PODS: usize = 50;
    let node = Node::start();
    let content = content(&busybox("one"));
    let gate = Arc::new(Mutex::new(()));
    let (closed, passing) = (gate.lock().unwrap(), Arc::clone(&gate));
    let registry = serve(&node, move |request| {
        if request.is_blob() {
            drop(passing.lock().unwrap());
        }
        content.answer(request)
    });
    for number in 0..PODS {
        node.run(&of(&format!("p{number}"), &app(), "Always"));
    }
    let pulling = || {
        let all = (0..PODS).map(|number| events(&node, &format!("pod/p{number}")));
        all.filter(|events| events.iter().any(|(reason, _)| reason == "Pulling")).count()
    };
    wait_until("all pods to want it", SOON, || pulling() == PODS);
    wait_until("the configuration to be asked for", SOON, || blobs(&registry) > 0);
    assert_eq!(blobs(&registry), 1, "it is asked for once, and awaited");
    drop(closed);
    for number in 0..PODS {
        node.wait_running(&format!("p{number}"));
    }
    assert_eq!(blobs(&registry), 3);
    // Whoever says that it pulls and does so a moment too late asks whether the image is still the same.
    let asked = registry.lines().iter().filter(|line| line.starts_with("HEAD")).count();
    assert!(asked < PODS / 10, "{asked} of {PODS}");
    node.finish();
}

#[test]
fn a_pod_that_waits_for_a_pull_can_go_at_once() {
    needs_root!();
    let mut node = Node::start();
    let content = content(&busybox("one"));
    let stalls = Arc::new(Mutex::new(true));
    let stalling = Arc::clone(&stalls);
    let registry = serve(&node, move |request| {
        let reply = content.answer(request);
        match request.is_blob() && *stalling.lock().unwrap() {
            true => reply.sent(|bytes| coracle_tests::registry::Body::Stalled(bytes, 10)),
            false => reply,
        }
    });
    node.run(&of("web", &app(), "IfNotPresent"));
    wait_until("a blob to be asked for", SOON, || blobs(&registry) > 0);
    node.remove("web");
    node.wait_gone("web");

    let before = blobs(&registry);
    node.run(&of("web", &app(), "IfNotPresent"));
    wait_until("a blob to be asked for again", SOON, || blobs(&registry) > before);
    node.stop_agent();
    *stalls.lock().unwrap() = false;
    node.start_agent();
    node.wait_running("web");
    node.finish();
}

/// A registry of `slow/app:1` and `fast/app:1`; the layers of the first, and its configuration if that is `held` as well,
/// come once the gate is open.
fn of_two_speeds(node: &Node, gate: &Arc<Mutex<()>>, held: bool) -> Registry {
    let mut content = Content::default();
    let mut configs = Vec::new();
    for repository in ["slow/app", "fast/app"] {
        let image = busybox(repository);
        let descriptor = content.image(&image);
        content.tag(repository, "1", &descriptor);
        configs.push(coracle_tests::registry::Descriptor::of("", &image.config).digest);
    }
    let (config, passing) = (configs.remove(0), Arc::clone(gate));
    serve(node, move |request| {
        let path = request.path();
        if request.is_blob() && path.contains("/slow/") && (held || !path.ends_with(&config)) {
            drop(passing.lock().unwrap());
        }
        content.answer(request)
    })
}

/// Has the node, which pulls one at a time, begin with the slow image, as far as the gate lets it, and wait with the fast one.
fn one_behind_the_other(node: &Node, gate: &Arc<Mutex<()>>) -> Registry {
    let registry = of_two_speeds(node, gate, false);
    node.run(&of("slow", &format!("{REGISTRY}/slow/app:1"), "IfNotPresent"));
    wait_until("the slow pull to be at its layers", SOON, || blobs(&registry) > 1);
    let image = format!("{REGISTRY}/fast/app:1");
    node.run(&of("fast", &image, "IfNotPresent"));
    wait_event(node, "pod/fast", "Pulling", &format!("Image \"{image}\" waits for its turn to be pulled"));
    registry
}

#[test]
fn a_pull_that_hangs_delays_no_other() {
    needs_root!();
    let node = Node::start();
    let gate = Arc::new(Mutex::new(()));
    let closed = gate.lock().unwrap();
    let registry = of_two_speeds(&node, &gate, true);
    node.run(&of("slow", &format!("{REGISTRY}/slow/app:1"), "IfNotPresent"));
    wait_until("the slow pull to begin", SOON, || blobs(&registry) > 0);
    node.run(&of("fast", &format!("{REGISTRY}/fast/app:1"), "IfNotPresent"));
    node.wait_running("fast");
    drop(closed);
    node.wait_running("slow");
    node.finish();
}

#[test]
fn pulls_that_are_serialized_wait_for_each_other_and_say_so() {
    needs_root!();
    let node = Node::start_with("serializeImagePulls: true\n");
    let gate = Arc::new(Mutex::new(()));
    let closed = gate.lock().unwrap();
    let registry = one_behind_the_other(&node, &gate);
    assert!(!registry.lines().iter().any(|line| line.contains("/fast/")), "{:?}", registry.lines());
    // A pod that waits for its turn can go, and one that pulls makes room for the next.
    node.remove("slow");
    node.wait_gone("slow");
    node.wait_running("fast");
    drop(closed);
    node.finish();
}

#[test]
fn how_many_are_pulled_at_once_follows_the_configuration() {
    needs_root!();
    let node = Node::start_with("serializeImagePulls: true\n");
    let gate = Arc::new(Mutex::new(()));
    let closed = gate.lock().unwrap();
    let registry = one_behind_the_other(&node, &gate);

    // What says nothing new of pulls lets none begin that would not have.
    node.reload_agent("serializeImagePulls: true\npodPidsLimit: 99\n");
    let reloaded = |fields: &str| {
        let message = format!("The configuration was read again, and counts from now on: {fields}");
        wait_event(&node, "node/node", "ConfigurationReloaded", &message);
    };
    reloaded("podPidsLimit");
    let begun = || registry.lines().iter().any(|line| line.contains("/fast/"));
    holds_for("the second pull waits", Duration::from_millis(300), || !begun());

    // And who waits has its turn as soon as there may be more, while the first still pulls.
    node.reload_agent("maxParallelImagePulls: 2\npodPidsLimit: 99\n");
    reloaded("serializeImagePulls, maxParallelImagePulls");
    wait_until("the second pull to begin", SOON, begun);
    drop(closed);
    node.wait_running("slow");
    node.wait_running("fast");
    node.finish();
}

#[test]
fn a_run_pulls_what_it_needs() {
    needs_root!();
    let node = Node::start();
    let content = content(&busybox("read from the image"));
    let _registry = serve(&node, move |request| content.answer(request));
    let container = with(with(idle("c"), "image", json!(app())), "command", json!(["cat", "/mark"]));
    let once = with(pod("once", vec![container]), "spec.restartPolicy", json!("Never"));
    let file = node.path("once.json");
    fs::write(&file, once.to_string()).unwrap();
    let printed = node.coracle_ok(&["run", "-f", file.to_str().unwrap()]);
    assert!(printed.contains("read from the image"), "{printed}");
    node.finish();
}

#[test]
fn a_pull_by_hand_that_is_interrupted_goes_on_where_it_was() {
    needs_root!();
    let node = Node::start();
    let image = busybox("one");
    let last = coracle_tests::registry::Descriptor::of("", &image.layers[1]).digest;
    let content = content(&image);
    let stalls = Arc::new(Mutex::new(true));
    let stalling = Arc::clone(&stalls);
    let registry = serve(&node, move |request| {
        let reply = content.answer(request);
        match request.path().ends_with(&last) && *stalling.lock().unwrap() {
            true => reply.sent(|bytes| coracle_tests::registry::Body::Stalled(bytes, 10)),
            false => reply,
        }
    });
    let mut command = node.command(&["image", "pull", &app()]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut told = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    // The first layer is here, and the second will not come.
    told.find(|line| line.ends_with(": complete")).expect("the first layer comes");
    wait_until("the second layer to be asked for", SOON, || blobs(&registry) == 3);
    let all = processes::descendants(child.id().cast_signed());
    let pull = all.into_iter().find(|pid| processes::command_line(*pid).contains(" image pull ")).unwrap();
    processes::signal(pull, rustix::process::Signal::INT);
    let rest: Vec<_> = told.collect();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{rest:?}");
    assert!(rest.last().is_some_and(|line| line.starts_with("interrupted; ")), "{rest:?}");
    assert!(!node.coracle_ok(&["image", "ls", "--output", "name"]).contains(&app()));

    *stalls.lock().unwrap() = false;
    let pulled = node.coracle_ok(&["image", "pull", &app()]);
    assert!(pulled.starts_with(&format!("pulled {} (", app())), "{pulled}");
    assert_eq!(blobs(&registry), 5, "the configuration and the layer that was missing");
    node.finish();
}
