//! What a pod is called, and how it resolves names: host name, /etc/hosts and /etc/resolv.conf.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use coracle_tests::images::unpack;
use coracle_tests::manifests::{idle, pod, shell, with, with_host_path};
use coracle_tests::needs_root;
use coracle_tests::node::Node;
use coracle_tests::processes::kill;
use coracle_tests::wait::{SOON, wait_until};
use serde_json::{Value, json};

const HOST: &str = "# the host's\nsearch lan\nnameserver 10.0.0.1\noptions edns0\n";

/// A node in a cluster, whose host resolves names by [`HOST`]; the directory must outlive it.
fn node() -> (Node, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let resolv_conf = directory.path().join("resolv.conf");
    fs::write(&resolv_conf, HOST).unwrap();
    let configuration = format!(
        "resolvConf: {}\nclusterDNS: [10.96.0.10]\nclusterDomain: cluster.local\n",
        resolv_conf.display()
    );
    (Node::start_with(&configuration), directory)
}

fn read(node: &Node, pod: &str, container: &str, path: &str) -> String {
    node.coracle_ok(&["exec", pod, "-c", container, "--", "cat", path])
}

fn run(node: &Node, pod: &str, container: &str, script: &str) -> i32 {
    node.coracle(&["exec", pod, "-c", container, "--", "sh", "-c", script]).code
}

fn two(name: &str) -> Value {
    pod(name, vec![idle("a"), idle("b")])
}

#[test]
fn a_pod_resolves_names_by_its_cluster_its_host_and_its_own_settings() {
    needs_root!();
    let (node, _directory) = node();
    let own =
        with(two("own"), "spec.hostAliases", json!([{"ip": "10.9.8.7", "hostnames": ["db.example", "db"]}]));
    let own = with(
        own,
        "spec.dnsConfig",
        json!({"searches": ["more"], "options": [{"name": "ndots", "value": "2"}]}),
    );
    node.run(&own);
    node.run(&with(two("default"), "spec.dnsPolicy", json!("Default")));
    let none = with(two("none"), "spec.dnsPolicy", json!("None"));
    node.run(&with(none, "spec.dnsConfig", json!({"nameservers": ["fd00::53"]})));

    let expect = [
        (
            "own",
            "search default.svc.cluster.local svc.cluster.local cluster.local lan more\nnameserver 10.96.0.10\noptions ndots:2\n",
        ),
        ("default", "search lan\nnameserver 10.0.0.1\noptions edns0\n"),
        ("none", "nameserver fd00::53\n"),
    ];
    for (name, resolv_conf) in expect {
        node.wait_running(name);
        for container in ["a", "b"] {
            assert_eq!(read(&node, name, container, "/etc/resolv.conf"), resolv_conf);
            assert_eq!(read(&node, name, container, "/etc/hostname"), format!("{name}\n"));
        }
    }
    let hosts = read(&node, "own", "a", "/etc/hosts");
    assert!(
        hosts.starts_with("# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost"),
        "{hosts}"
    );
    let pod = node.pod("own").unwrap();
    let lines = pod["status"]["podIPs"].as_array().unwrap().iter();
    let lines: String = lines.map(|ip| format!("{}\town\n", ip["ip"].as_str().unwrap())).collect();
    let own = format!("\n{lines}\n# Entries added by HostAliases.\n10.9.8.7\tdb.example\tdb\n");
    assert!(!lines.is_empty() && hosts.ends_with(&own), "{hosts}");
    // By the C library, which reads it.
    assert_eq!(run(&node, "own", "a", "ping -c 1 -w 5 own >/dev/null"), 0, "it knows its own name");

    // The containers of a pod share it, and those of no other pod.
    assert_eq!(run(&node, "own", "a", "echo 10.1.1.1 added >> /etc/hosts"), 0);
    assert!(read(&node, "own", "b", "/etc/hosts").ends_with("10.1.1.1 added\n"));
    assert!(!read(&node, "default", "a", "/etc/hosts").contains("added"));
    node.finish();
}

#[test]
fn what_a_container_wrote_into_hosts_goes_with_the_sandbox_and_not_before() {
    needs_root!();
    let (mut node, _directory) = node();
    node.run(&pod("kept", vec![idle("a")]));
    let before = node.wait_running("kept");
    assert_eq!(run(&node, "kept", "a", "echo 10.1.1.1 added >> /etc/hosts"), 0);
    node.kill_agent();
    kill(node.container_pid(&before, "a"));
    node.start_agent();
    let restarts = |pod: &Value| pod["status"]["containerStatuses"][0]["restartCount"].as_u64().unwrap();
    let started = |pod: &Value, count| {
        restarts(pod) == count && pod["status"]["containerStatuses"][0]["state"]["running"].is_object()
    };
    let again = node.wait_pod("kept", "to run again", |pod| started(pod, 1));
    assert!(read(&node, "kept", "a", "/etc/hosts").ends_with("10.1.1.1 added\n"));

    kill(node.pause_pid(&again));
    node.wait_pod("kept", "to run in a new sandbox", |pod| started(pod, 2));
    assert!(!read(&node, "kept", "a", "/etc/hosts").contains("added"));
    node.finish();
}

#[test]
fn files_of_names_are_as_writable_as_those_of_other_runtimes() {
    needs_root!();
    let (node, _directory) = node();
    fs::write(node.path("mine"), "10.2.2.2 mine\n").unwrap();
    let read_only = with(idle("read-only"), "securityContext", json!({"readOnlyRootFilesystem": true}));
    let one = with_host_path(pod("one", vec![idle("a")]), "mine", &node.path("mine"), "/etc/hosts");
    let mut one = with(one, "spec.volumes.0.hostPath.type", json!("File"));
    one["spec"]["containers"].as_array_mut().unwrap().push(read_only);
    node.run(&one);
    node.wait_running("one");
    assert_eq!(
        read(&node, "one", "a", "/etc/hosts"),
        "10.2.2.2 mine\n",
        "a container's own mount comes first"
    );
    assert_eq!(read(&node, "one", "a", "/etc/hostname"), "one\n");
    assert_eq!(run(&node, "one", "a", "echo x > /etc/resolv.conf"), 0);
    assert_eq!(run(&node, "one", "read-only", "echo 10.3.3.3 y >> /etc/hosts"), 0);
    assert_ne!(run(&node, "one", "read-only", "echo x > /etc/resolv.conf"), 0);
    assert_ne!(run(&node, "one", "read-only", "echo x > /etc/hostname"), 0);
    assert_eq!(fs::read_to_string(node.path("mine")).unwrap(), "10.2.2.2 mine\n");
    node.finish();
}

#[test]
fn an_image_may_have_links_in_their_place_or_no_etc_at_all() {
    needs_root!();
    let (node, _directory) = node();
    let outside = node.path("outside");
    fs::write(&outside, "secret").unwrap();
    type Change<'a> = &'a dyn Fn(&Path);
    let changes: [(&str, Change<'_>); 3] = [
        ("stub", &|root| {
            let _ = fs::remove_file(root.join("etc/resolv.conf"));
            fs::create_dir_all(root.join("etc")).unwrap();
            symlink("../run/systemd/resolve/stub-resolv.conf", root.join("etc/resolv.conf")).unwrap();
        }),
        ("bare", &|root| fs::remove_dir_all(root.join("etc")).unwrap_or_default()),
        ("hostile", &|root| {
            fs::create_dir_all(root.join("etc")).unwrap();
            let _ = fs::remove_file(root.join("etc/hosts"));
            symlink(&outside, root.join("etc/hosts")).unwrap();
        }),
    ];
    for (name, change) in changes {
        let root = node.path(name);
        unpack("busybox", &root);
        change(&root);
        let image = format!("localhost/{name}:1");
        node.coracle_ok(&["image", "import", root.to_str().unwrap(), "--name", &image]);
        node.run(&pod(name, vec![with(idle("a"), "image", json!(image))]));
        node.wait_running(name);
        assert!(read(&node, name, "a", "/etc/resolv.conf").contains("nameserver 10.96.0.10\n"), "{name}");
        assert!(read(&node, name, "a", "/etc/hosts").contains("localhost"), "{name}");
    }
    assert_eq!(fs::read_to_string(&outside).unwrap(), "secret");
    node.finish();
}

#[test]
fn a_pod_of_the_hosts_network_is_called_as_the_host() {
    needs_root!();
    let (node, _directory) = node();
    let host = with(
        pod("host", vec![shell("a", "echo $HOSTNAME; exec sleep 1000")]),
        "spec.hostNetwork",
        json!(true),
    );
    node.run(&with(host, "spec.hostAliases", json!([{"ip": "10.9.8.7", "hostnames": ["db"]}])));
    node.wait_running("host");
    // What the machine under test is called.
    let name = "node\n";
    assert_eq!(read(&node, "host", "a", "/etc/hostname"), name);
    node.wait_log("host", "a", name);
    assert_eq!(
        read(&node, "host", "a", "/etc/resolv.conf"),
        "search lan\nnameserver 10.0.0.1\noptions edns0\n"
    );
    let hosts = fs::read_to_string("/etc/hosts").unwrap();
    let end = if hosts.ends_with('\n') { "" } else { "\n" };
    let expected = format!(
        "# Kubernetes-managed hosts file (host network).\n{hosts}{end}\n# Entries added by HostAliases.\n10.9.8.7\tdb\n"
    );
    assert_eq!(read(&node, "host", "a", "/etc/hosts"), expected);
    node.finish();
}

#[test]
fn a_pod_may_be_called_by_its_full_name_or_another() {
    needs_root!();
    let (node, _directory) = node();
    let say = || pod("say", vec![shell("a", "uname -n; hostname; echo $HOSTNAME; exec sleep 1000")]);
    let fqdn = with(with(say(), "metadata.name", json!("web")), "spec.subdomain", json!("db"));
    node.run(&with(fqdn.clone(), "spec.setHostnameAsFQDN", json!(true)));
    let full = "web.db.default.svc.cluster.local";
    node.wait_log("web", "a", &format!("{full}\n{full}\n{full}\n"));
    assert!(read(&node, "web", "a", "/etc/hosts").contains(&format!("\t{full}\tweb\n")));
    assert_eq!(read(&node, "web", "a", "/etc/hostname"), format!("{full}\n"));

    node.run(&with(fqdn, "metadata.name", json!("short")));
    node.wait_log("short", "a", "short\nshort\nshort\n");
    assert!(
        read(&node, "short", "a", "/etc/hosts").contains("\tshort.db.default.svc.cluster.local\tshort\n")
    );

    let other = with(say(), "metadata.name", json!("other"));
    node.run(&with(other, "spec.hostnameOverride", json!("its.own.name")));
    node.wait_log("other", "a", "its.own.name\nits.own.name\nits.own.name\n");

    let long = with(say(), "metadata.name", json!("a-pod-whose-name-is-really-rather-long"));
    let long = with(with(long, "spec.subdomain", json!("db")), "spec.setHostnameAsFQDN", json!(true));
    node.run(&long);
    let events = || node.coracle_ok(&["get", "events"]);
    wait_until("the event", SOON, || events().contains("FailedCreatePodSandBox"));
    let told = events();
    assert!(
        told.contains("a-pod-whose-name-is-really-rather-long.db.default.svc.cluster.local is too long (64"),
        "{told}"
    );
    assert_eq!(
        node.wait_phase("a-pod-whose-name-is-really-rather-long", "Pending")["status"]["phase"],
        "Pending"
    );
    node.finish();
}
