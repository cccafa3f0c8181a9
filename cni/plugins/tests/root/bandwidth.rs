//! bandwidth.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use coracle_cni::{AddResult, code};
use coracle_cni_plugins::PLUGINS;
use serde_json::{Value, json};

use crate::harness::{Node, Place, Pod, add, gc, on_a_node};

fn network(node: &Node) -> Value {
    node.config("bridge", &["10.85.1.0/24"], json!({"bridge": "br", "isGateway": true}))
}

fn limits(of_config: Value) -> Value {
    let mut config = json!({"cniVersion": "1.1.0", "name": "net", "type": "bandwidth"});
    config.as_object_mut().unwrap().extend(of_config.as_object().unwrap().clone());
    config
}

/// How long it takes to send so many bytes by TCP, to the last of them.
fn transfer(from: &Place, to: &Place, at: &AddResult, bytes: usize) -> Duration {
    let listener = to.listen(SocketAddr::new(at.ips[0].address.addr(), 0));
    let mut near = from.connect(listener.local_addr().unwrap());
    let (mut far, _) = listener.accept().unwrap();
    let begin = Instant::now();
    thread::scope(|scope| {
        scope.spawn(move || near.write_all(&vec![1; bytes]).unwrap());
        let received = far.read_to_end(&mut Vec::new()).unwrap();
        assert_eq!(received, bytes);
    });
    begin.elapsed()
}

#[test]
fn what_a_pod_sends_and_receives_is_limited() {
    on_a_node(|node| {
        let (pod, peer) = (Pod::new("one"), Pod::new("peer"));
        let result = pod.add(&network(node)).unwrap();
        let of_peer = peer.add(&network(node)).unwrap();
        // 4 and 2 MB a second.
        let config = limits(json!({
            "ingressRate": 32_000_000, "ingressBurst": 800_000, "egressRate": 16_000_000, "egressBurst": 800_000,
        }));
        let limited = add(&pod.call_after(&config, &result)).unwrap();
        pod.check(&config, &limited).unwrap();
        // Three MB are three quarters of a second, or one and a half, less the first 100 kB. How much longer it takes
        // is the machine's affair.
        let bytes = 3_000_000;
        let received = transfer(&peer.place, &pod.place, &result, bytes);
        let sent = transfer(&pod.place, &peer.place, &of_peer, bytes);
        assert!(received > Duration::from_millis(650), "{received:?}");
        assert!(sent > Duration::from_millis(1300), "{sent:?}");
        assert!(
            received < Duration::from_secs(10) && sent < Duration::from_secs(15),
            "{received:?}, {sent:?}"
        );

        PLUGINS.del("bandwidth", &pod.call(&config)).unwrap();
        assert!(!node.place.run("ip -o link").contains("ifb"));
        // Nobody else is limited.
        let others = transfer(&peer.place, &node.place, &gateway(&result), bytes);
        assert!(others < received, "{others:?}");
    });
}

/// As if it were a pod's.
fn gateway(result: &AddResult) -> AddResult {
    let mut of_gateway = result.clone();
    of_gateway.ips[0].address = of_gateway.ips[0].gateway.unwrap().into();
    of_gateway
}

#[test]
fn the_result_has_the_block_and_del_and_gc_remove_it() {
    on_a_node(|node| {
        let pods = [Pod::new("one"), Pod::new("two")];
        let config = limits(json!({}));
        let results = pods.each_ref().map(|pod| {
            let result = pod.add(&network(node)).unwrap();
            let mut call = pod.call_after(&config, &result);
            let limits = json!({"egressRate": 8000, "egressBurst": 80000});
            call.config.runtime_config.insert("bandwidth".to_owned(), limits);
            let limited = add(&call).unwrap();
            assert_eq!(limited.interfaces[..3], result.interfaces);
            let block = &limited.interfaces[3];
            assert!(block.name.starts_with("ifb") && block.sandbox.is_empty(), "{block:?}");
            let shown = node.place.run(&format!("ip -o link show {}", block.name));
            assert!(
                shown.contains(&format!("coracle:net/{}/eth0", pod.id)) && shown.contains(&block.mac),
                "{shown}"
            );
            // Again, as after a crash.
            assert_eq!(add(&call).unwrap(), limited);
            call.config.prev_result = Some(limited.clone());
            PLUGINS.check("bandwidth", &call).unwrap();
            node.place.run(&format!("tc qdisc del dev {} root", block.name));
            let error = PLUGINS.check("bandwidth", &call).unwrap_err();
            assert!(error.msg.contains("has no limit instead of 1000 bytes a second"), "{error}");
            node.place.run(&format!("tc qdisc del dev {} ingress", result.interfaces[1].name));
            let error = PLUGINS.check("bandwidth", &call).unwrap_err();
            assert_eq!(error.code, code::CHECK_FAILED);
            assert!(error.msg.contains("is not redirected to ifb"), "{error}");
            limited
        });
        gc(&config, &[("two", "eth0")]).unwrap();
        let there = node.place.run("ip -o link");
        assert!(
            !there.contains(&results[0].interfaces[3].name) && there.contains(&results[1].interfaces[3].name)
        );
        for _ in 0..2 {
            let mut call = pods[1].call(&config);
            call.netns = None;
            PLUGINS.del("bandwidth", &call).unwrap();
        }
        assert!(!node.place.run("ip -o link").contains("ifb"));
    });
}

#[test]
fn without_limits_the_result_stays_as_it_is() {
    on_a_node(|node| {
        let pod = Pod::new("one");
        let result = pod.add(&network(node)).unwrap();
        let config = limits(json!({}));
        assert_eq!(add(&pod.call_after(&config, &result)).unwrap(), result);
        pod.check(&config, &result).unwrap();
        pod.del(&config).unwrap();
        assert!(pod.add(&config).unwrap_err().msg.contains("prevResult is missing"));
        let limited = limits(json!({"ingressRate": 8000, "ingressBurst": 80000}));
        let other = AddResult { interfaces: result.interfaces[..1].to_vec(), ..result };
        let error = add(&pod.call_after(&limited, &other)).unwrap_err();
        assert!(
            error.msg.contains("none of the host's interfaces in prevResult is the other end of eth0"),
            "{error}"
        );
    });
}
