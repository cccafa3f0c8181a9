//! Lists of devices, also against what prost makes of them.

use coracle_device_api::deviceplugin as api;
use proptest::prelude::*;
use prost::Message;

use super::*;

fn device(id: &str, health: &str) -> api::Device {
    api::Device { id: id.to_owned(), health: health.to_owned(), topology: None }
}

fn list(devices: Vec<api::Device>) -> Vec<u8> {
    api::ListAndWatchResponse { devices }.encode_to_vec()
}

#[test]
fn what_a_plugin_names_is_checked() {
    let topology = api::TopologyInfo { nodes: vec![api::NumaNode { id: 1 }, api::NumaNode { id: -1 }] };
    let named = vec![
        api::Device { topology: Some(topology), ..device("a", "Healthy") },
        device("b", "Unhealthy"),
        device("c", "healthy"),
        device("d", "Healthy"),
        device("d", "Unhealthy"),
        device("", "Healthy"),
        device("a\nb", "Healthy"),
        device(&"x".repeat(254), "Healthy"),
    ];
    let (devices, problem) = read(&list(named)).unwrap();
    let healthy: Vec<_> = devices.iter().map(|(id, device)| (id.as_str(), device.healthy)).collect();
    assert_eq!(healthy, [("a", true), ("b", false), ("c", false), ("d", false)]);
    assert_eq!(devices["a"].numa, [1].into_iter().collect());
    assert!(problem.is_some());
    assert_eq!(amount(&devices), Amount { capacity: 4, allocatable: 1 });
    let most: Vec<_> = (0..MOST_DEVICES).map(|id| device(&id.to_string(), "Healthy")).collect();
    assert_eq!(read(&list(most)).unwrap().0.len(), MOST_DEVICES);
    assert!(read(&list(vec![device("a", "Healthy"); MOST_DEVICES + 1])).is_err());
}

#[test]
fn what_is_no_list_is_refused() {
    for bytes in [b"\x0a".as_slice(), b"\x08\x01", b"\x0a\x02\x08\x01", b"\x0a\x03\x0a\x01\xff", b"\xff"] {
        assert!(read(bytes).is_err(), "{bytes:?}");
    }
    assert_eq!(
        read(b"\x10\x01").unwrap(),
        (Devices::new(), None),
        "fields of a later version are passed over"
    );
}

/// The same by what prost decodes.
fn by_prost(bytes: &[u8]) -> Result<Devices, prost::DecodeError> {
    let mut devices = Devices::new();
    for device in api::ListAndWatchResponse::decode(bytes)?.devices {
        if device.id.is_empty() || device.id.len() > LONGEST_ID || device.id.chars().any(char::is_control) {
            continue;
        }
        let healthy = device.health == HEALTHY;
        let nodes = device.topology.unwrap_or_default().nodes;
        let new = Device { healthy, numa: nodes.iter().map(|node| node.id).collect() };
        devices.entry(device.id).and_modify(|old| old.healthy &= healthy).or_insert(new);
    }
    Ok(devices)
}

fn devices() -> impl Strategy<Value = Vec<api::Device>> {
    let id = prop_oneof![Just(String::new()), Just("a".to_owned()), "[a-c\\n\u{e9}]{1,2}"];
    let health = prop_oneof![Just("Healthy".to_owned()), Just("Unhealthy".to_owned()), "[ -~]{0,3}"];
    let nodes = prop::option::of(prop::collection::vec(-1..70_i64, 0..3));
    let device = (id, health, nodes).prop_map(|(id, health, nodes)| {
        let topology = |nodes: Vec<i64>| api::TopologyInfo {
            nodes: nodes.into_iter().map(|id| api::NumaNode { id }).collect(),
        };
        api::Device { id, health, topology: nodes.map(topology) }
    });
    prop::collection::vec(device, 0..6)
}

proptest! {
    /// Lists, and lists that some octets of were replaced.
    #[test]
    fn lists_are_read_as_prost_reads_them(
        devices in devices(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    ) {
        let mut bytes = list(devices);
        for (at, octet) in changes {
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = octet;
            }
        }
        match (read(&bytes), by_prost(&bytes)) {
            (Ok((read, _)), Ok(expected)) => prop_assert_eq!(read, expected),
            (Err(_), Err(_)) => {}
            // Groups are not in use any more, and passed over by prost.
            (Err(problem), Ok(_)) => prop_assert!(problem.contains("wire type"), "{}", problem),
            (Ok(_), Err(problem)) => prop_assert!(false, "{}", problem),
        }
    }
}
