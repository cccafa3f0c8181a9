//! Results in each version.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use coracle_cni::{AddResult, Dns, Interface, IpConfig, Route, Version, code};
use ipnet::IpNet;
use proptest::option;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::text::faults;

fn an_ip() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<u32>().prop_map(|bits| IpAddr::V4(Ipv4Addr::from_bits(bits))),
        any::<u128>().prop_map(|bits| IpAddr::V6(Ipv6Addr::from_bits(bits))),
    ]
}

fn a_net() -> impl Strategy<Value = IpNet> {
    (an_ip(), 0..=128_u8).prop_map(|(ip, length)| {
        let longest = if ip.is_ipv4() { 32 } else { 128 };
        IpNet::new(ip, length.min(longest)).unwrap()
    })
}

fn an_interface() -> impl Strategy<Value = Interface> {
    let mac = option::of(any::<[u8; 6]>())
        .prop_map(|mac| mac.map(|mac| mac.map(|byte| format!("{byte:02x}")).join(":")).unwrap_or_default());
    let path = "(/[a-z0-9]{1,8}){0,3}";
    ("[a-z][a-z0-9.]{0,14}", mac, option::of(any::<u32>()), path, path, "[0-9a-f:.]{0,12}").prop_map(
        |(name, mac, mtu, sandbox, socket_path, pci_id)| Interface {
            name,
            mac,
            mtu,
            sandbox,
            socket_path,
            pci_id,
        },
    )
}

fn a_route() -> impl Strategy<Value = Route> {
    let number = || option::of(any::<u32>());
    (a_net(), option::of(an_ip()), number(), number(), number(), number(), option::of(any::<u8>())).prop_map(
        |(dst, gw, mtu, advmss, priority, table, scope)| Route {
            dst,
            gw,
            mtu,
            advmss,
            priority,
            table,
            scope,
        },
    )
}

fn a_result() -> impl Strategy<Value = AddResult> {
    let words = || proptest::collection::vec("[a-z0-9.:]{1,12}", 0..3);
    let ips = proptest::collection::vec(
        (option::of(any::<prop::sample::Index>()), a_net(), option::of(an_ip())),
        0..4,
    );
    let interfaces = proptest::collection::vec(an_interface(), 0..4);
    let routes = proptest::collection::vec(a_route(), 0..4);
    (interfaces, ips, routes, words(), "[a-z.]{0,12}", words(), words()).prop_map(
        |(interfaces, ips, routes, nameservers, domain, search, options)| {
            let of = |index: Option<prop::sample::Index>| match interfaces.len() {
                0 => None,
                count => index.map(|index| index.index(count)),
            };
            let ips = ips
                .into_iter()
                .map(|(index, address, gateway)| IpConfig { interface: of(index), address, gateway })
                .collect();
            AddResult { interfaces, ips, routes, dns: Dns { nameservers, domain, search, options } }
        },
    )
}

/// What a version before the newest has no place for is lost.
fn without_newest(mut result: AddResult) -> AddResult {
    for interface in &mut result.interfaces {
        *interface =
            Interface { mtu: None, socket_path: String::new(), pci_id: String::new(), ..interface.clone() };
    }
    for route in &mut result.routes {
        *route = Route { mtu: None, advmss: None, priority: None, table: None, scope: None, ..route.clone() };
    }
    result
}

proptest! {
    #[test]
    fn every_result_is_of_its_version_and_is_read_as_it_was(result in a_result()) {
        for version in Version::ALL {
            let json = result.to_json(version);
            prop_assert_eq!(faults(&json, version.as_str()), Vec::<String>::new(), "{}", json);
            let expected = match version {
                Version::V1_1_0 => result.clone(),
                _ => without_newest(result.clone()),
            };
            // The version that was asked for does not matter: the result says its own.
            for asked in Version::ALL {
                prop_assert_eq!(&AddResult::from_json(&json, asked).unwrap(), &expected);
            }
        }
    }

    #[test]
    fn nothing_that_is_read_panics(text in ".{0,200}") {
        if let Ok(json) = serde_json::from_str::<Value>(&text) {
            let _ = AddResult::from_json(&json, Version::NEWEST);
        }
    }
}

#[test]
fn the_check_of_the_tests_sees_what_does_not_belong() {
    for (version, result) in [
        ("1.0.0", json!({"cniVersion": "0.4.0"})),
        ("1.0.0", json!({"cniVersion": "1.0.0", "ips": [{"version": "4", "address": "10.0.0.1/8"}]})),
        ("0.4.0", json!({"cniVersion": "0.4.0", "ips": [{"address": "10.0.0.1/8"}]})),
        ("0.4.0", json!({"cniVersion": "0.4.0", "ips": [{"version": "6", "address": "10.0.0.1/8"}]})),
        ("1.0.0", json!({"cniVersion": "1.0.0", "interfaces": [{"name": "a", "mtu": 1}]})),
        ("1.0.0", json!({"cniVersion": "1.0.0", "routes": [{"dst": "::/0", "table": 1}]})),
        ("1.1.0", json!({"cniVersion": "1.1.0", "ips": [{"address": "10.0.0.1"}]})),
        ("1.1.0", json!({"cniVersion": "1.1.0", "ips": [{"address": "10.0.0.1/8", "interface": 0}]})),
        ("1.1.0", json!({"cniVersion": "1.1.0", "ip4": {}})),
    ] {
        assert_ne!(faults(&result, version), Vec::<String>::new(), "{version} {result}");
    }
}

#[test]
fn what_programs_in_go_leave_empty_is_nothing() {
    let json = json!({
        "cniVersion": "0.4.0",
        "interfaces": [{"name": "cni0", "mac": "", "sandbox": null}],
        "ips": [{"version": "4", "interface": null, "address": "10.1.0.5/16", "gateway": ""}],
        "routes": null,
        "dns": {},
        "unheardOf": 1,
    });
    let expected = AddResult {
        interfaces: vec![Interface { name: "cni0".to_owned(), ..Interface::default() }],
        ips: vec![IpConfig { interface: None, address: "10.1.0.5/16".parse().unwrap(), gateway: None }],
        ..AddResult::default()
    };
    assert_eq!(AddResult::from_json(&json, Version::NEWEST).unwrap(), expected);
    // Without a version it is in the one that was asked for.
    for version in [json!(null), json!("")] {
        let json = json!({"cniVersion": version, "ips": []});
        assert_eq!(AddResult::from_json(&json, Version::V0_4_0).unwrap(), AddResult::default());
    }
}

#[test]
fn what_is_wrong_with_a_result_is_named() {
    for (json, expected, named) in [
        (json!([]), code::DECODING, "not a JSON object"),
        (json!({"cniVersion": 1}), code::DECODING, "cniVersion"),
        (json!({"cniVersion": "0.2.0", "ip4": {}}), code::INCOMPATIBLE_VERSION, "0.2.0"),
        (json!({"ips": [{"address": "10.1.0.5"}]}), code::DECODING, "10.1.0.5"),
        (json!({"ips": [{}]}), code::DECODING, "address"),
        (json!({"ips": [{"address": "10.1.0.5/8", "interface": -1}]}), code::DECODING, "-1"),
        (json!({"routes": [{"dst": "everywhere"}]}), code::DECODING, "everywhere"),
    ] {
        let error = AddResult::from_json(&json, Version::V1_0_0).unwrap_err();
        assert_eq!(error.code, expected, "{json}");
        assert!(error.to_string().contains(named), "{json}: {error}");
    }
}
