//! Pods' networks: the default one, others by CNI, ports of the host, and what becomes of them.

mod churn;
mod firewalls;
mod host;
pub(crate) mod plugins;
mod ports;
mod restart;
mod run;

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::thread;

use coracle_tests::machine::Machine;
use coracle_tests::manifests::{idle, pod, with};
use coracle_tests::needs_root;
use coracle_tests::network::{connect_from, listen_in, udp_in};
use coracle_tests::node::Node;
use coracle_tests::processes::Pid;
use coracle_tests::wait::{SOON, wait_for, wait_until};
use serde_json::{Value, json};

/// The addresses of two machines on one network.
const FIRST: [&str; 2] = ["198.51.100.1", "fd00:1::1"];
const SECOND: [&str; 2] = ["198.51.100.2", "fd00:1::2"];

/// Has `ip` do something in the network of a process.
#[track_caller]
fn ip(pid: Pid, arguments: &str) {
    let mut command = Command::new("nsenter");
    command.args(["--target", &pid.to_string(), "--net", "ip"]).args(arguments.split(' '));
    let output = command.output().expect("iproute2 is installed");
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Puts two machines on a network of their own, by an interface `wan` each.
fn join(first: &Machine, second: &Machine) {
    ip(first.init(), &format!("link add wan type veth peer name wan netns {}", second.init()));
    for (machine, addresses) in [(first, FIRST), (second, SECOND)] {
        ip(machine.init(), &format!("address add {}/24 dev wan", addresses[0]));
        ip(machine.init(), &format!("address add {}/64 dev wan nodad", addresses[1]));
        ip(machine.init(), "link set wan up");
    }
}

/// The addresses of a pod, as its status tells them.
fn addresses(pod: &Value) -> Vec<IpAddr> {
    let all = pod["status"]["podIPs"].as_array().expect("the pod has addresses").iter();
    let all: Vec<IpAddr> = all.map(|ip| ip["ip"].as_str().unwrap().parse().unwrap()).collect();
    assert_eq!(pod["status"]["podIP"], all[0].to_string());
    all
}

fn parse(address: &str) -> IpAddr {
    address.parse().unwrap()
}

/// Answers on each connection, until it ends, with what comes.
fn echo(listener: TcpListener) {
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            thread::spawn(move || std::io::copy(&mut stream.try_clone().unwrap(), &mut stream));
        }
    });
}

/// Answers every datagram with what is in it.
fn echo_datagrams(socket: UdpSocket) {
    thread::spawn(move || {
        let mut buffer = [0; 64];
        loop {
            if let Ok((length, from)) = socket.recv_from(&mut buffer) {
                let _ = socket.send_to(&buffer[..length], from);
            }
        }
    });
}

/// Whether a connection carries bytes both ways.
#[track_caller]
fn speak(stream: &mut TcpStream) {
    stream.write_all(b"there").unwrap();
    let mut answer = [0; 5];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"there");
}

/// From a process's network to a server that echoes, by TCP.
#[track_caller]
fn tcp(from: Pid, to: SocketAddr) {
    let connected = connect_from(from, to);
    speak(&mut connected.unwrap_or_else(|error| panic!("from {from} to {to}: {error}")));
}

/// As [`tcp`], by UDP.
#[track_caller]
fn udp(from: Pid, to: SocketAddr) {
    let any: IpAddr = if to.is_ipv4() { parse("0.0.0.0") } else { parse("::") };
    let socket = udp_in(from, SocketAddr::new(any, 0)).unwrap();
    socket.connect(to).unwrap();
    wait_until(format!("an answer from {to} by UDP"), SOON, || {
        let mut answer = [0; 8];
        // Nobody may listen yet.
        socket.send(b"there").is_ok() && matches!(socket.recv(&mut answer), Ok(5))
    });
}

/// From a process's network by ICMP.
#[track_caller]
fn ping(from: Pid, to: IpAddr) {
    let family = if to.is_ipv4() { "-4" } else { "-6" };
    let mut command = Command::new("nsenter");
    command.args(["--target", &from.to_string(), "--net", "busybox", "ping", family, "-c", "1", "-w", "10"]);
    let output = command.arg(to.to_string()).output().expect("busybox is installed");
    assert!(output.status.success(), "ping {to}: {}", String::from_utf8_lossy(&output.stdout));
}

/// Everything that may go between the network of one process and an address of another's.
#[track_caller]
fn reaches(from: Pid, to: Pid, address: IpAddr) {
    let listener = listen_in(to, SocketAddr::new(address, 0)).unwrap();
    let there = listener.local_addr().unwrap();
    echo(listener);
    tcp(from, there);
    let socket = udp_in(to, SocketAddr::new(address, 0)).unwrap();
    let there = socket.local_addr().unwrap();
    echo_datagrams(socket);
    udp(from, there);
    ping(from, address);
}

#[test]
fn pods_reach_each_other_the_node_and_a_second_node() {
    needs_root!();
    let first = Node::start();
    let second = Node::start_with("podCIDR: 10.84.9.0/24,fd84:9::/64\n");
    join(first.machine(), second.machine());
    for (node, gateways, ranges) in [
        (&first, SECOND, ["10.84.9.0/24", "fd84:9::/64"]),
        (&second, FIRST, ["10.83.0.0/16", "fd83:c07a:c1e0::/64"]),
    ] {
        for (gateway, range) in gateways.into_iter().zip(ranges) {
            ip(node.machine().init(), &format!("route add {range} via {gateway}"));
        }
    }
    first.run(&pod("a", vec![idle("c")]));
    first.run(&pod("b", vec![idle("c")]));
    second.run(&pod("far", vec![idle("c")]));
    let (a, b) = (first.wait_running("a"), first.wait_running("b"));
    let far = second.wait_running("far");
    let pid = |node: &Node, pod: &Value| node.container_pid(pod, "c");
    let (in_a, in_b, in_far) = (pid(&first, &a), pid(&first, &b), pid(&second, &far));
    let (host, other) = (first.machine().init(), second.machine().init());

    for (own, theirs, range) in [(0, FIRST[0], "10.83."), (1, FIRST[1], "fd83:c07a:c1e0:")] {
        let (of_a, of_b, of_far) = (addresses(&a)[own], addresses(&b)[own], addresses(&far)[own]);
        assert!(of_a.to_string().starts_with(range) && of_a != of_b, "{of_a} {of_b}");
        reaches(in_a, in_b, of_b);
        reaches(in_b, in_a, of_a);
        reaches(in_a, in_a, of_a);
        reaches(in_a, host, parse(theirs));
        reaches(host, in_a, of_a);
        reaches(other, in_a, of_a);
        reaches(in_a, in_far, of_far);
        reaches(in_far, in_a, of_a);
    }
    // What every container of the pod is told of itself.
    let shown = first.coracle_ok(&["get", "pods", "a", "-o", "wide"]);
    assert!(shown.contains(&addresses(&a)[0].to_string()), "{shown}");
    let described = first.coracle_ok(&["describe", "pod", "a"]);
    for address in addresses(&a) {
        assert!(described.contains(&format!("  IP:             {address}\n")), "{described}");
    }
    first.finish();
    second.finish();
}

#[test]
fn a_pod_that_has_ended_is_shown_with_its_addresses_and_has_them_no_more() {
    needs_root!();
    let node = Node::start();
    let short = with(
        pod("short", vec![coracle_tests::manifests::shell("c", "sleep 1")]),
        "spec.restartPolicy",
        json!("Never"),
    );
    node.run(&short);
    let running = node.wait_running("short");
    let had = addresses(&running);
    let ended = node.wait_phase("short", "Succeeded");
    assert_eq!(addresses(&ended), had);
    let given = node.path("run/cni/networks/coracle").join(had[0].to_string());
    wait_until("the address to be given back", SOON, || !given.exists());
    let ready = |pod: &Value| {
        let all = pod["status"]["conditions"].as_array().unwrap().clone();
        all.into_iter().find(|one| one["type"] == "PodReadyToStartContainers").unwrap()["status"].clone()
    };
    assert_eq!((ready(&running), ready(&ended)), (json!("True"), json!("False")));
    node.finish();
}

#[test]
fn every_address_is_one_pods_and_when_all_are_given_the_next_pod_waits() {
    needs_root!();
    // Room for the bridge and one pod.
    let node = Node::start_with("podCIDR: 10.83.7.0/30\n");
    node.run(&pod("first", vec![idle("c")]));
    let first = node.wait_running("first");
    assert_eq!(addresses(&first), [parse("10.83.7.2")]);
    node.run(&pod("second", vec![idle("c")]));
    let events = || node.coracle_ok(&["get", "events", "--for", "pod/second"]);
    let told =
        wait_for("the event", SOON, || Some(events()).filter(|it| it.contains("FailedCreatePodSandBox")));
    assert!(told.contains("10.83.7.0/30"), "{told}");
    assert_eq!(node.pod("second").unwrap()["status"]["phase"], "Pending");
    node.remove("first");
    assert_eq!(addresses(&node.wait_running("second")), [parse("10.83.7.2")]);
    node.finish();
}
