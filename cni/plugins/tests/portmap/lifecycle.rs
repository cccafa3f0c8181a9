//! What becomes of mappings: taken back, checked, collected, repaired.

use std::fs;
use std::net::UdpSocket;

use coracle_cni::{GcCall, Plugin, StatusCall, code};
use coracle_cni_plugins::Portmap;
use coracle_nftables::{Change, Nftables, Watch};
use rustix::event::{PollFd, PollFlags, poll};
use serde_json::{Map, json};

use crate::harness::{in_own_network, run};
use crate::traffic::{Kind, Server};
use crate::world::{HOST4, Pod, World, mapping};

fn table() -> String {
    run("nft list table inet coracle")
}

fn all() -> serde_json::Value {
    json!([mapping(8080, "tcp", ""), mapping(8080, "udp", HOST4), mapping(8081, "sctp", "::")])
}

#[test]
fn what_was_mapped_is_taken_back_with_and_without_what_it_was_called_with() {
    in_own_network(|| {
        let world = World::new();
        let (pod, other) = (world.pod(5), world.pod(6));
        other.map(&json!([mapping(9000, "tcp", "")]));
        let before = table();
        let whole = pod.call(json!({"masqAll": true}), &all());
        let mut without_result = whole.clone();
        without_result.config.prev_result = None;
        without_result.config.runtime_config = Map::new();
        for del in [&whole, &without_result] {
            let result = Portmap.add(&whole).unwrap();
            assert_eq!(Some(&result), whole.config.prev_result.as_ref(), "the result is passed on");
            Portmap.check(&whole).unwrap();
            Portmap.add(&whole).unwrap();
            assert_ne!(table(), before);
            Portmap.del(del).unwrap();
            Portmap.del(del).unwrap();
            assert_eq!(table(), before);
        }
        // The pod, its interfaces and routes are gone.
        Portmap.add(&whole).unwrap();
        run("ip address flush dev cni0");
        drop(pod);
        Portmap.del(&whole).unwrap();
        assert_eq!(table(), before);
    });
}

#[test]
fn nothing_asked_for_is_nothing_done() {
    in_own_network(|| {
        let world = World::new();
        let pod = world.pod(5);
        let call = pod.call(json!({}), &json!([]));
        assert_eq!(Portmap.add(&call).unwrap(), call.config.prev_result.clone().unwrap());
        Portmap.check(&call).unwrap();
        Portmap.del(&call).unwrap();
        assert_eq!(run("nft list ruleset"), "");
    });
}

#[test]
fn a_port_that_another_container_has_is_refused_by_its_name() {
    in_own_network(|| {
        let world = World::new();
        let (pod, other) = (world.pod(5), world.pod(6));
        pod.map(&json!([mapping(8080, "tcp", "")]));
        let error = Portmap.add(&other.call(json!({}), &json!([mapping(8080, "tcp", "")]))).unwrap_err();
        assert_eq!(error.code, code::TRY_AGAIN);
        let holder = "host port 8080/TCP is taken by container pod5 (network pods, interface eth0)";
        assert!(error.msg.contains(holder), "{error}");
    });
}

#[test]
fn check_tells_what_is_not_as_it_was_left() {
    in_own_network(|| {
        let world = World::new();
        let pod = world.pod(5);
        let call = pod.call(json!({}), &json!([mapping(8080, "tcp", "")]));
        let lacks = |what: &str| {
            let error = Portmap.check(&call).unwrap_err();
            assert_eq!(error.code, code::CHECK_FAILED, "{error}");
            assert!(error.msg.contains(what), "{error}");
        };
        lacks("table inet coracle is not there");
        Portmap.add(&call).unwrap();
        Portmap.check(&call).unwrap();
        run("nft delete element inet coracle ports4 { tcp . 8080 }");
        lacks("host port 8080/TCP");
        Portmap.repair(&call).unwrap();
        fs::write("/proc/sys/net/ipv4/conf/cni0/route_localnet", "0").unwrap();
        lacks("route_localnet");
        Portmap.repair(&call).unwrap();
        run("nft flush chain inet coracle ports");
        lacks("was changed");
        Portmap.repair(&call).unwrap();
        Portmap.check(&call).unwrap();
    });
}

#[test]
fn mappings_of_containers_that_are_gone_are_collected() {
    in_own_network(|| {
        let world = World::new();
        let pods: Vec<Pod> = [5, 6].map(|number| world.pod(number)).into();
        pods[0].map(&json!([mapping(8080, "tcp", "")]));
        let valid = table();
        pods[1].map(&json!([mapping(8081, "tcp", "")]));
        let call = pods[0].call(json!({}), &json!([]));
        let gc = |valid: &[&str]| GcCall {
            valid: valid.iter().map(|id| ((*id).to_owned(), "eth0".to_owned())).collect(),
            path: Vec::new(),
            config: call.config.clone(),
            deadline: None,
        };
        Portmap.gc(&gc(&["pod5", "pod6"])).unwrap();
        assert_ne!(table(), valid);
        Portmap.gc(&gc(&["pod5"])).unwrap();
        assert_eq!(table(), valid);
        let status = StatusCall { path: Vec::new(), config: call.config.clone(), deadline: None };
        Portmap.status(&status).unwrap();
    });
}

#[test]
fn a_client_of_udp_follows_the_port_from_pod_to_pod() {
    in_own_network(|| {
        let world = World::new();
        let (pod, next) = (world.pod(5), world.pod(6));
        let mappings = json!([mapping(5353, "udp", "")]);
        let server = Server::new(Some(&pod.namespace), Kind::Udp, "0.0.0.0:80");
        let other = Server::new(Some(&next.namespace), Kind::Udp, "0.0.0.0:80");
        let client = world.outside.inside(|| UdpSocket::bind("0.0.0.0:0")).unwrap();
        client.connect("192.0.2.1:5353").unwrap();
        // It is there before the pod: nobody hears it, and the kernel remembers the flow, as it does wherever NAT is.
        Nftables::open().unwrap().ensure().unwrap();
        let _ = client.send(b"early");
        pod.map(&mappings);
        // What was refused is told with the next call.
        let _ = client.take_error();
        server.hear(&client).unwrap();
        Portmap.del(&pod.call(json!({}), &mappings)).unwrap();
        assert!(server.hear(&client).is_err(), "it is mapped no more");
        let _ = client.take_error();
        next.map(&mappings);
        other.hear(&client).unwrap();
        assert!(server.hear(&client).is_err(), "the pod before hears nothing");
    });
}

#[test]
fn what_somebody_flushes_is_noticed_and_repaired() {
    in_own_network(|| {
        let world = World::new();
        let pod = world.pod(5);
        let call = pod.call(json!({}), &json!([mapping(8080, "tcp", "")]));
        Portmap.add(&call).unwrap();
        let server = Server::new(Some(&pod.namespace), Kind::Tcp, "0.0.0.0:80");
        let mut watch = Watch::open().unwrap();
        server.reach(Some(&world.outside), "192.0.2.1:8080").unwrap();
        run("nft flush ruleset");
        assert!(server.reach(Some(&world.outside), "192.0.2.1:8080").is_err());
        poll(&mut [PollFd::new(&watch, PollFlags::IN)], None).unwrap();
        assert_eq!(watch.changes().unwrap(), [Change::Table]);
        Portmap.repair(&call).unwrap();
        server.reach(Some(&world.outside), "192.0.2.1:8080").unwrap();
        Portmap.check(&call).unwrap();
        assert_eq!(watch.changes().unwrap(), [], "the repair is no change by somebody else");
    });
}
