use coracle_cni::{CniError, PluginConfig, code};
use coracle_nftables::Entry;
use serde_json::{Value, json};

use super::*;

fn config(fields: Value, mappings: Value) -> PluginConfig {
    let mut all = json!({
        "cniVersion": "1.1.0", "name": "pods", "type": "portmap",
        "prevResult": {
            "cniVersion": "1.1.0",
            "interfaces": [{"name": "cni0"}, {"name": "eth0", "sandbox": "/proc/1/ns/net"}],
            "ips": [
                {"address": "10.0.0.1/8", "interface": 0},
                {"address": "127.0.0.1/8", "interface": 1},
                {"address": "127.0.0.2/8", "interface": 1},
                {"address": "::1/128", "interface": 1},
            ],
        },
        "runtimeConfig": {"portMappings": mappings},
    });
    all.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    PluginConfig::from_json(all).unwrap()
}

fn refused(fields: Value, mappings: Value) -> CniError {
    let config = config(fields, mappings);
    plan(&config, prev_result(&config).unwrap()).map(|_| ()).unwrap_err()
}

/// Without clients to masquerade no route has to be asked for.
fn entries(mappings: Value) -> Vec<String> {
    let config = config(json!({"snat": false}), mappings);
    let plan = plan(&config, prev_result(&config).unwrap()).unwrap();
    let entries = plan.map(|plan| plan.entries).unwrap_or_default();
    let text = |entry: &Entry| match entry {
        Entry::Port(map) => format!("{map} to {}", std::net::SocketAddr::new(map.pod, map.pod_port)),
        other => other.to_string(),
    };
    entries.iter().map(text).collect()
}

#[test]
fn a_mapping_is_for_the_first_address_of_each_family_it_may_be_for() {
    let mapping =
        |host: &str| json!([{"hostPort": 8080, "containerPort": 80, "protocol": "tcp", "hostIP": host}]);
    let v4 = "8080/TCP to 127.0.0.1:80";
    let v6 = "8080/TCP to [::1]:80";
    assert_eq!(entries(mapping("")), [v4, v6]);
    assert_eq!(entries(mapping("0.0.0.0")), [v4]);
    assert_eq!(entries(mapping("::")), [v6]);
    assert_eq!(entries(mapping("192.0.2.1")), ["192.0.2.1:8080/TCP to 127.0.0.1:80"]);
    assert_eq!(entries(mapping("2001:db8::1")), ["[2001:db8::1]:8080/TCP to [::1]:80"]);
}

#[test]
fn protocols_are_those_that_have_ports() {
    let mapping =
        |protocol: Value| json!([{"hostPort": 1, "containerPort": 2, "protocol": protocol, "hostIP": "::"}]);
    assert_eq!(entries(mapping(json!("UDP"))), ["1/UDP to [::1]:2"]);
    assert_eq!(entries(mapping(json!("sctp"))), ["1/SCTP to [::1]:2"]);
    assert_eq!(entries(mapping(json!(""))), ["1/TCP to [::1]:2"]);
    assert_eq!(entries(json!([])), [] as [&str; 0]);
    let error = refused(json!({}), mapping(json!("icmp")));
    assert_eq!(
        error.msg,
        r#"network pods: portmap: portMappings[0].protocol: "icmp" is none of tcp, udp, sctp"#
    );
}

#[test]
fn mappings_that_cannot_be_are_refused_by_their_fields() {
    let one = |host_port: i64, port: i64, host: &str| json!([{"hostPort": host_port, "containerPort": port, "protocol": "tcp", "hostIP": host}]);
    for (mappings, what) in [
        (one(0, 80, ""), "portMappings[0].hostPort: 0 is no port: it must be between 1 and 65535"),
        (
            one(80, 65_536, ""),
            "portMappings[0].containerPort: 65536 is no port: it must be between 1 and 65535",
        ),
        (one(80, 80, "host"), r#"portMappings[0].hostIP: "host" is no address"#),
        (
            one(80, 80, "::1"),
            "portMappings[0].hostIP: ::1 cannot be led elsewhere: IPv6 has no route_localnet. Use 127.0.0.1",
        ),
        (
            json!([{"hostPort": 80, "containerPort": 1}, {"hostPort": 80, "containerPort": 2, "hostIP": "0.0.0.0"}]),
            "portMappings[1]: host port 0.0.0.0:80/TCP leads elsewhere by portMappings[0] already",
        ),
    ] {
        let error = refused(json!({}), mappings);
        assert_eq!((error.code, error.msg), (code::INVALID_CONFIG, format!("network pods: portmap: {what}")));
    }
}

#[test]
fn a_family_that_the_container_has_not_is_no_silent_success() {
    let mut config =
        config(json!({"snat": false}), json!([{"hostPort": 80, "containerPort": 80, "hostIP": "192.0.2.1"}]));
    config.prev_result.as_mut().unwrap().ips.retain(|ip| ip.address.addr().is_ipv6());
    let error = plan(&config, prev_result(&config).unwrap()).map(|_| ()).unwrap_err();
    assert_eq!(
        error.msg,
        "network pods: portmap: portMappings[0]: host port 192.0.2.1:80/TCP: the container has no address of its family"
    );
    config.prev_result = None;
    assert_eq!(prev_result(&config).unwrap_err().code, code::INVALID_CONFIG);
}

#[test]
fn what_rules_of_ones_own_would_need_is_refused_and_what_is_harmless_is_not() {
    let mappings = json!([{"hostPort": 80, "containerPort": 80, "hostIP": "::"}]);
    for (field, value) in [
        ("backend", json!("iptables")),
        ("externalSetMarkChain", json!("KUBE-MARK-MASQ")),
        ("conditionsV4", json!(["-d", "192.0.2.1"])),
        ("conditionsV6", json!(["ip6", "daddr", "2001:db8::1"])),
    ] {
        let error = refused(json!({ field: value }), mappings.clone());
        assert_eq!(error.code, code::UNSUPPORTED_FIELD);
        assert!(
            error.msg.starts_with(&format!("network pods: portmap: {field} is not supported")),
            "{error}"
        );
    }
    let harmless = json!({"snat": false, "backend": "nftables", "markMasqBit": 13, "conditionsV4": []});
    let config = config(harmless, mappings.clone());
    assert!(plan(&config, prev_result(&config).unwrap()).unwrap().is_some());
    assert_eq!(refused(json!({"markMasqBit": 32}), mappings).code, code::INVALID_CONFIG);
}
