//! Our own plugins under the driver: no program is executed.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

use coracle_model::Protocol;
use coracle_network::{Attach, Network, PortMapping};
use serde_json::{Value, json};

use super::harness::{Node, Sandbox, eventually, in_own_network};

/// The directory of the node, in the process that is killed.
const DIRECTORY: &str = "CORACLE_TEST_KILLED_IN";
/// Its sandboxes: the pids that hold their namespaces.
const SANDBOXES: &str = "CORACLE_TEST_SANDBOXES";
/// How often the driver is killed.
const KILLS: &str = "CORACLE_KILLS";

/// A network of our plugins with addresses of these ranges.
fn list(node: &Node, ranges: &[&str]) -> Value {
    let ranges: Vec<Value> = ranges.iter().map(|range| json!([{"subnet": range}])).collect();
    let routes = json!([{"dst": "0.0.0.0/0"}]);
    let ipam =
        json!({"type": "host-local", "dataDir": node.path("addresses"), "ranges": ranges, "routes": routes});
    let bridge =
        json!({"type": "bridge", "bridge": "ours0", "isGateway": true, "ipMasq": true, "ipam": ipam});
    let portmap = json!({"type": "portmap", "capabilities": {"portMappings": true}});
    json!({"cniVersion": "1.1.0", "name": "ours", "plugins": [bridge, portmap]})
}

fn mapping(host_port: u16) -> Vec<PortMapping> {
    vec![PortMapping { host_port, container_port: 80, protocol: Protocol::Tcp, host_ip: None }]
}

/// The addresses that are given.
fn given(node: &Node) -> usize {
    let Ok(files) = fs::read_dir(node.path("addresses/ours")) else { return 0 };
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.parse::<IpAddr>().is_ok()).count()
}

/// What our table has of containers.
fn elements() -> String {
    let output = Command::new("nft").args(["list", "table", "inet", "coracle"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().filter(|line| line.contains("comment \"ours/")).collect()
}

fn reached_at_port(first: &Sandbox, second: &Sandbox, ip: IpAddr) {
    let served = first.serve(ip, 80);
    assert_eq!(second.ask("10.78.0.1:8080".parse().unwrap()), first.pod.key.name.to_string());
    served.join().unwrap();
}

#[test]
fn without_a_configuration_the_default_network_gives_both_families_and_all_capabilities() {
    in_own_network(|| {
        let node = Node::new();
        let network = node.network();
        network.status().unwrap();
        let (mut first, second) = (Sandbox::new("a"), Sandbox::new("b"));
        first.pod.annotations.insert("kubernetes.io/ingress-bandwidth".to_owned(), "100M".to_owned());
        let mut attach = first.attach();
        attach.port_mappings = mapping(8080);
        attach.mac = Some("02:11:22:33:44:55".to_owned());
        let attached = network.add(&attach).unwrap();
        let expected: [IpAddr; 2] = ["10.83.0.2".parse().unwrap(), "fd83::2".parse().unwrap()];
        assert_eq!((attached.network.as_str(), attached.ips.as_slice()), ("coracle", &expected[..]));
        second.add(&network).unwrap();
        let gateways: [IpAddr; 2] = ["10.83.0.1".parse().unwrap(), "fd83::1".parse().unwrap()];
        for (ip, gateway) in attached.ips.iter().zip(gateways) {
            for to in [SocketAddr::new(*ip, 80), SocketAddr::new(gateway, 8080)] {
                let served = first.serve(*ip, 80);
                assert_eq!(second.ask(to), "pod-a", "{to}");
                served.join().unwrap();
            }
        }
        let eth0 = first.netlink().links().unwrap().into_iter().find(|link| link.name == "eth0").unwrap();
        assert_eq!(eth0.mac.unwrap().to_string(), "02:11:22:33:44:55");
        let routes = first.netlink().routes().unwrap();
        assert_eq!(routes.iter().filter(|route| route.is_default()).count(), 2);
        network.check(first.uid(), 0).unwrap();
        network.check(second.uid(), 0).unwrap();
        network.del(first.uid(), None, false).unwrap();
        network.gc(&BTreeSet::new()).unwrap();
        node.wait_for_links(&["coracle0"]);
        let left = fs::read_dir(node.path("addresses/coracle")).unwrap();
        let names = left.map(|file| file.unwrap().file_name().into_string().unwrap());
        assert_eq!(names.filter(|name| name.parse::<IpAddr>().is_ok()).count(), 0);
    });
}

#[test]
fn what_somebody_has_flushed_is_made_again() {
    in_own_network(|| {
        let node = Node::new();
        node.configure(&list(&node, &["10.78.0.0/24"]));
        let network = node.network();
        let (first, second) = (Sandbox::new("a"), Sandbox::new("b"));
        let mut attach = first.attach();
        attach.port_mappings = mapping(8080);
        let attached = network.add(&attach).unwrap();
        second.add(&network).unwrap();
        reached_at_port(&first, &second, attached.ips[0]);
        assert!(Command::new("nft").args(["flush", "ruleset"]).status().unwrap().success());
        assert_eq!(elements(), "");
        network.check(first.uid(), 0).unwrap_err();
        network.repair_all().unwrap();
        network.check(first.uid(), 0).unwrap();
        reached_at_port(&first, &second, attached.ips[0]);
        network.del(first.uid(), None, false).unwrap();
        network.del(second.uid(), None, false).unwrap();
        assert_eq!(elements(), "");
    });
}

#[test]
fn a_plugin_that_hangs_keeps_no_other_pod_from_being_repaired() {
    in_own_network(|| {
        let node = Node::new();
        let mut list = list(&node, &["10.78.0.0/24"]);
        list["plugins"].as_array_mut().unwrap().push(json!({"type": "hangs"}));
        node.configure(&list);
        // It hands on what it is told, and its DEL waits for somebody to let it go.
        let (reached, go) = (node.path("reached"), node.path("go"));
        let script = format!(
            "#!/bin/sh\nif [ $CNI_COMMAND = DEL ]; then touch {reached}; until [ -e {go} ]; do sleep 0.05; done; fi\n\
             [ $CNI_COMMAND != ADD ] || python3 -c 'import json, sys; print(json.dumps(json.load(sys.stdin)[\"prevResult\"]))'\n",
            reached = reached.display(),
            go = go.display(),
        );
        node.install("hangs", &script);
        let network = node.network();
        // The one that hangs comes first in every order there is.
        let (held, other, client) = (Sandbox::new("a"), Sandbox::new("b"), Sandbox::new("c"));
        held.add(&network).unwrap();
        client.add(&network).unwrap();
        let mut attach = other.attach();
        attach.port_mappings = mapping(8080);
        let attached = network.add(&attach).unwrap();
        thread::scope(|scope| {
            let deleted = scope.spawn(|| network.del(held.uid(), None, false));
            eventually("DEL hangs", || reached.exists());
            assert!(Command::new("nft").args(["flush", "ruleset"]).status().unwrap().success());
            let repaired = scope.spawn(|| network.repair_all());
            // The last of it: its address is masqueraded before its port leads to it.
            eventually("the other pod is repaired", || {
                elements().contains("tcp . 8080 comment \"ours/b-0/eth0\"")
            });
            assert!(!deleted.is_finished());
            reached_at_port(&other, &client, attached.ips[0]);
            fs::write(&go, "").unwrap();
            deleted.join().unwrap().unwrap();
            repaired.join().unwrap().unwrap();
        });
        network.gc(&BTreeSet::new()).unwrap();
        assert_eq!((given(&node), elements()), (0, String::new()));
    });
}

#[test]
fn our_bridge_in_the_process_delegates_to_a_program() {
    in_own_network(|| {
        let node = Node::new();
        let mut list = list(&node, &["10.78.0.0/24"]);
        list["cniVersion"] = json!("1.0.0");
        list["plugins"][0]["ipam"]["type"] = json!("debian-host-local");
        node.configure(&list);
        let network = node.network();
        let (first, second) = (Sandbox::new("a"), Sandbox::new("b"));
        let ip = first.add(&network).unwrap().ips[0];
        second.add(&network).unwrap();
        let served = first.serve(ip, 80);
        assert_eq!(second.ask(SocketAddr::new(ip, 80)), "pod-a");
        served.join().unwrap();
        network.check(first.uid(), 0).unwrap();
        assert_eq!(given(&node), 2);
        network.gc(&BTreeSet::new()).unwrap();
        assert_eq!(given(&node), 0);
        node.wait_for_links(&["ours0"]);
    });
}

#[test]
fn the_deadline_counts_for_what_our_bridge_delegates_to() {
    in_own_network(|| {
        let mut node = Node::new();
        node.deadline = Duration::from_secs(1);
        let mut list = list(&node, &["10.78.0.0/24"]);
        list["plugins"][0]["ipam"]["type"] = json!("hangs");
        node.configure(&list);
        node.install("hangs", "#!/bin/sh\n[ $CNI_COMMAND != ADD ] || sleep 600\n");
        let error = Sandbox::new("a").add(&node.network()).unwrap_err().to_string();
        assert!(error.contains("plugin bridge of network ours failed (ADD)"), "{error}");
        assert!(error.contains("plugin hangs: ADD") && error.contains("has not answered after"), "{error}");
        assert_eq!(fs::read_dir(node.path("state")).unwrap().count(), 0);
        node.wait_for_links(&["ours0"]);
    });
}

#[test]
fn an_attachment_by_ours_is_read_back_whole() {
    in_own_network(|| {
        let node = Node::new();
        node.configure(&list(&node, &["10.78.0.0/24", "fd78::/64"]));
        let sandbox = Sandbox::new("a");
        let attached = sandbox.add(&node.network()).unwrap();
        fs::write(node.path("state/a-0.json"), "").unwrap();
        let network = node.network();
        assert_eq!(network.adopt(&sandbox.attach()).unwrap(), Some(attached));
        network.check(sandbox.uid(), 0).unwrap();
        network.gc(&BTreeSet::from([(sandbox.uid().clone(), 0)])).unwrap();
        network.check(sandbox.uid(), 0).unwrap();
        network.del(sandbox.uid(), None, false).unwrap();
        assert_eq!(given(&node), 0);
        node.wait_for_links(&["ours0"]);
    });
}

#[test]
fn sandboxes_attached_side_by_side_have_addresses_of_their_own_until_there_is_none() {
    in_own_network(|| {
        let node = Node::new();
        // 10.78.0.0/27 has 32 addresses, of which network, gateway and broadcast are not given.
        node.configure(&list(&node, &["10.78.0.0/27"]));
        let network = node.network();
        let sandboxes: Vec<_> = (0..40).map(|n| Sandbox::new(&format!("p{n}"))).collect();
        let outcomes: Vec<_> = thread::scope(|scope| {
            let added: Vec<_> =
                sandboxes.iter().map(|sandbox| scope.spawn(|| sandbox.add(&network))).collect();
            added.into_iter().map(|added| added.join().unwrap()).collect()
        });
        let ips: BTreeSet<IpAddr> =
            outcomes.iter().flatten().flat_map(|attached| attached.ips.clone()).collect();
        assert_eq!((ips.len(), outcomes.iter().flatten().count()), (29, 29));
        let failed = outcomes.iter().find_map(|outcome| outcome.as_ref().err()).unwrap().to_string();
        assert!(failed.contains("plugin bridge of network ours failed (ADD)"), "{failed}");
        assert!(failed.contains("10.78.0.0/27") && failed.contains("(code 102)"), "{failed}");
        // What failed has left nothing, and one that goes makes room.
        assert_eq!(fs::read_dir(node.path("state")).unwrap().count(), 29);
        let went = outcomes.iter().position(Result::is_ok).unwrap();
        network.del(sandboxes[went].uid(), None, false).unwrap();
        let waiting = outcomes.iter().position(Result::is_err).unwrap();
        sandboxes[waiting].add(&network).unwrap();
        network.gc(&BTreeSet::new()).unwrap();
        assert_eq!(given(&node), 0);
        node.wait_for_links(&["ours0"]);
    });
}

/// What the process does that is killed: it attaches sandboxes and takes that back, side by side, for ever.
#[test]
fn agent() {
    let Some(directory) = env::var_os(DIRECTORY) else { return };
    let node = Node::at(PathBuf::from(directory));
    let network = node.network();
    fs::write(node.path("working"), "").unwrap();
    let pids = env::var(SANDBOXES).unwrap();
    thread::scope(|scope| {
        for (index, pid) in pids.split(',').enumerate() {
            let network = &network;
            scope.spawn(move || come_and_go(network, index, pid));
        }
    });
}

fn come_and_go(network: &Network, index: usize, holder: &str) {
    let (pod, netns) = (Sandbox::pod(&format!("p{index}")), PathBuf::from(format!("/proc/{holder}/ns/net")));
    for attempt in 0.. {
        let mut attach = Attach::of_pod(&pod, attempt, &netns).unwrap();
        attach.port_mappings = mapping(8000 + u16::try_from(index).unwrap());
        // An earlier attempt that an agent was killed in holds the interface: it is taken back first.
        network.del(&pod.uid, None, false).unwrap();
        network.add(&attach).unwrap();
    }
}

fn start(node: &Node, sandboxes: &[Sandbox]) -> Child {
    let pids: Vec<String> = sandboxes.iter().map(|sandbox| sandbox.holder().to_string()).collect();
    let mut command = Command::new(env::current_exe().unwrap());
    command
        .args(["--exact", "ours::agent", "--nocapture"])
        .env(DIRECTORY, node.path(""))
        .env(SANDBOXES, pids.join(","));
    command.spawn().unwrap()
}

#[test]
fn killed_at_any_moment_nothing_is_left_and_nothing_is_in_the_way() {
    in_own_network(|| {
        let node = Node::new();
        node.configure(&list(&node, &["10.78.0.0/24", "fd78::/64"]));
        let sandboxes: Vec<_> = (0..5).map(|n| Sandbox::new(&format!("p{n}"))).collect();
        // How long an attachment takes here: some are to be killed at its beginning, and some after several.
        let network = node.network();
        let begun = Instant::now();
        sandboxes[0].add(&network).unwrap();
        let took = begun.elapsed();
        network.gc(&BTreeSet::new()).unwrap();
        drop(network);
        let kills: u32 = env::var(KILLS).ok().and_then(|kills| kills.parse().ok()).unwrap_or(20);
        for kill in 0..kills {
            let mut agent = start(&node, &sandboxes);
            // Until it is at work, and then a little longer each time.
            while !node.path("working").exists() {
                assert_eq!(agent.try_wait().unwrap(), None, "the agent ended by itself");
                thread::sleep(Duration::from_micros(200));
            }
            fs::remove_file(node.path("working")).unwrap();
            thread::sleep(took * 10 * kill / kills);
            assert_eq!(agent.try_wait().unwrap(), None, "the agent ended by itself");
            agent.kill().unwrap();
            agent.wait().unwrap();
        }
        let network = node.network();
        network.gc(&BTreeSet::new()).unwrap();
        assert_eq!((given(&node), elements()), (0, String::new()));
        assert_eq!(fs::read_dir(node.path("state")).unwrap().count(), 0);
        node.wait_for_links(&["ours0"]);
        for sandbox in &sandboxes {
            assert!(sandbox.netlink().links().unwrap().iter().all(|link| link.name == "lo"));
        }
        // And all of it can be done again.
        for sandbox in &sandboxes {
            let attached = sandbox.add(&network).unwrap();
            assert_eq!(attached.ips.len(), 2);
        }
        let (first, second) = (&sandboxes[0], &sandboxes[1]);
        let ip = network.attached(first.uid(), 0).unwrap().ips[0];
        let served = first.serve(ip, 80);
        assert_eq!(second.ask(SocketAddr::new(ip, 80)), "pod-p0");
        served.join().unwrap();
        network.gc(&BTreeSet::new()).unwrap();
    });
}
