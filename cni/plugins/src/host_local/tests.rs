//! The plugin as it is called, over a directory of the test's own.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::IpAddr;
use std::time::SystemTime;

use coracle_cni::{
    AddResult, Call, CniError, GcCall, IpConfig, Plugin, PluginConfig, StatusCall, Version, code,
};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::HostLocal;
use super::store::COOLING_OFF;

/// A network with a directory of its own.
struct Network {
    directory: tempfile::TempDir,
    ipam: Value,
    runtime: Value,
}

impl Network {
    fn new(ranges: &Value) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let ipam = json!({"type": "host-local", "dataDir": directory.path(), "ranges": ranges});
        Self { directory, ipam, runtime: json!({}) }
    }

    /// 10.1.2.2 to 10.1.2.6.
    fn small() -> Self {
        Self::new(&json!([[{"subnet": "10.1.2.0/29"}]]))
    }

    fn object(value: &Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    fn config(&self) -> PluginConfig {
        PluginConfig {
            cni_version: Version::V1_1_0,
            name: "net".into(),
            kind: "bridge".into(),
            prev_result: None,
            runtime_config: Self::object(&self.runtime),
            fields: Self::object(&json!({"name": "net", "type": "bridge", "ipam": self.ipam})),
        }
    }

    fn call(&self, container_id: &str) -> Call {
        Call {
            container_id: container_id.into(),
            netns: None,
            ifname: "eth0".into(),
            args: Vec::new(),
            path: Vec::new(),
            config: self.config(),
            namespace_ends: false,
            deadline: None,
        }
    }

    fn add(&self, container_id: &str) -> Result<Vec<IpAddr>, CniError> {
        let result = HostLocal.add(&self.call(container_id))?;
        Ok(result.ips.iter().map(|ip| ip.address.addr()).collect())
    }

    fn one(&self, container_id: &str) -> String {
        let given = self.add(container_id).unwrap();
        assert_eq!(given.len(), 1);
        given[0].to_string()
    }

    fn del(&self, container_id: &str) {
        HostLocal.del(&self.call(container_id)).unwrap();
    }

    fn gc(&self, valid: &[&str]) {
        let valid = valid.iter().map(|id| ((*id).to_owned(), "eth0".to_owned())).collect();
        HostLocal.gc(&GcCall { valid, path: Vec::new(), config: self.config(), deadline: None }).unwrap();
    }

    fn status(&self) -> StatusCall {
        StatusCall { path: Vec::new(), config: self.config(), deadline: None }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join("net").join(name)
    }

    /// Who has which address, by the files of the reference plugin's layout.
    fn given(&self) -> BTreeMap<String, String> {
        let entries = fs::read_dir(self.path("")).unwrap().map(|entry| entry.unwrap().path());
        let named = entries.filter_map(|path| {
            let address: IpAddr = path.file_name()?.to_str()?.parse().ok()?;
            Some((address.to_string(), fs::read_to_string(path).unwrap()))
        });
        named.collect()
    }

    /// As if that long had passed since addresses were given back.
    fn cool_off(&self) {
        for entry in fs::read_dir(self.path(".released")).unwrap() {
            let file = fs::File::options().write(true).open(entry.unwrap().path()).unwrap();
            file.set_modified(SystemTime::now() - COOLING_OFF).unwrap();
        }
    }
}

#[test]
fn files_are_those_of_the_reference_plugin() {
    let network = Network::new(&json!([[{"subnet": "10.1.2.0/29"}], [{"subnet": "fd00::/64"}]]));
    let given = network.add("c1").unwrap();
    assert_eq!(given, ["10.1.2.2".parse::<IpAddr>().unwrap(), "fd00::2".parse().unwrap()]);
    let content = "c1\r\neth0".to_owned();
    let expected = [("10.1.2.2".to_owned(), content.clone()), ("fd00::2".to_owned(), content)];
    assert_eq!(network.given(), expected.into());
    assert_eq!(fs::read_to_string(network.path("last_reserved_ip.0")).unwrap(), "10.1.2.2");
    assert_eq!(fs::read_to_string(network.path("last_reserved_ip.1")).unwrap(), "fd00::2");
    network.del("c1");
    assert!(network.given().is_empty());
    assert_eq!(fs::read_dir(network.path(".owners")).unwrap().count(), 0);
}

#[test]
fn the_result_has_gateways_routes_and_dns() {
    let mut network = Network::new(&json!([[{"subnet": "10.1.2.0/24", "gateway": "10.1.2.254"}]]));
    let resolv_conf = network.directory.path().join("resolv.conf");
    fs::write(&resolv_conf, "nameserver 10.0.0.1\n").unwrap();
    network.ipam["resolvConf"] = json!(resolv_conf);
    network.ipam["routes"] =
        json!([{"dst": "0.0.0.0/0"}, {"dst": "192.0.2.0/24", "gw": "10.1.2.9", "mtu": 1400}]);
    let result = HostLocal.add(&network.call("c1")).unwrap();
    let expected = json!({
        "ips": [{"address": "10.1.2.1/24", "gateway": "10.1.2.254"}],
        "routes": [{"dst": "0.0.0.0/0"}, {"dst": "192.0.2.0/24", "gw": "10.1.2.9", "mtu": 1400}],
        "dns": {"nameservers": ["10.0.0.1"]},
    });
    assert_eq!(serde_json::to_value(result).unwrap(), expected);
}

#[test]
fn an_add_that_is_called_again_gives_the_same() {
    let network = Network::small();
    let first = network.one("c1");
    network.one("c2");
    assert_eq!(network.one("c1"), first);
    assert_eq!(network.given().len(), 2);
}

#[test]
fn a_new_owner_costs_no_look_into_everybody_elses_files() {
    let network = Network::small();
    let first = network.one("c1");
    network.one("c2");
    // What cannot be read shows who tries to.
    fs::remove_file(network.path(&first)).unwrap();
    fs::create_dir(network.path(&first)).unwrap();
    network.one("c3");
    assert_eq!(fs::read_dir(network.path(".owners")).unwrap().count(), 3);
}

#[test]
fn what_was_given_back_is_given_again_as_late_as_possible() {
    let network = Network::small();
    assert_eq!(network.one("a"), "10.1.2.2");
    network.del("a");
    assert_eq!(network.one("b"), "10.1.2.3");
    network.del("b");
    let others: Vec<String> = ["c", "d", "e"].map(|id| network.one(id)).into();
    assert_eq!(others, ["10.1.2.4", "10.1.2.5", "10.1.2.6"]);
    network.del("e");
    // Whoever was asked last comes last, and of those that were given back in this minute the one that cools longest.
    assert_eq!(network.one("f"), "10.1.2.2");
    assert_eq!(network.one("g"), "10.1.2.3");
    assert_eq!(network.one("h"), "10.1.2.6");

    network.del("c");
    network.del("g");
    network.cool_off();
    network.del("f");
    // After .6 comes .2, which has not cooled off; .3 has.
    assert_eq!(network.one("i"), "10.1.2.3");
}

#[test]
fn exhaustion_is_said_and_recovers() {
    let network = Network::small();
    for id in ["a", "b", "c", "d", "e"] {
        network.one(id);
    }
    let error = network.add("f").unwrap_err();
    assert_eq!(error.code, code::NO_ADDRESSES);
    assert_eq!(
        error.msg,
        "network net: host-local: all 5 addresses of 10.1.2.1-10.1.2.6 of 10.1.2.0/29 are in use; remove a container \
         of this network, or configure a larger range"
    );
    let status = HostLocal.status(&network.status()).unwrap_err();
    assert_eq!(status.code, code::NOT_AVAILABLE);
    network.del("c");
    assert!(HostLocal.status(&network.status()).is_ok());
    assert_eq!(network.one("f"), "10.1.2.4");
    assert!(HostLocal.status(&network.status()).is_err());
}

#[test]
fn an_address_can_be_asked_for() {
    let mut network = Network::new(&json!([[{"subnet": "10.1.2.0/24"}], [{"subnet": "fd00::/64"}]]));
    let asked = |network: &Network, id: &str, ip: &str| {
        let mut call = network.call(id);
        call.args = vec![("IP".into(), ip.into())];
        HostLocal.add(&call).map(|result| result.ips[0].address.to_string())
    };
    assert_eq!(asked(&network, "a", "10.1.2.77").unwrap(), "10.1.2.77/24");
    assert_eq!(asked(&network, "a", "10.1.2.77").unwrap(), "10.1.2.77/24");
    let taken = asked(&network, "b", "10.1.2.77").unwrap_err();
    assert!(taken.msg.contains("address 10.1.2.77 is in use by container a"), "{taken}");
    for not in ["10.1.2.1", "10.1.3.4", "10.1.2.0"] {
        let error = asked(&network, "b", not).unwrap_err();
        assert!(error.msg.contains("asked for, is not one of the"), "{error}");
    }
    network.runtime = json!({"ips": ["fd00::99", "10.1.2.78/24"]});
    let both = network.add("c").unwrap();
    assert_eq!(both, ["10.1.2.78".parse::<IpAddr>().unwrap(), "fd00::99".parse().unwrap()]);
    network.runtime = json!({"ips": ["nonsense"]});
    assert!(network.add("d").unwrap_err().msg.contains("\"nonsense\", asked for, is no address"));
    // A refusal reserves nothing.
    assert_eq!(network.given().len(), 4);
}

#[test]
fn ranges_can_come_with_the_call() {
    let mut network = Network::small();
    network.runtime = json!({"ipRanges": [[{"subnet": "10.9.0.0/24"}]]});
    let given = network.add("a").unwrap();
    assert_eq!(given, ["10.9.0.2".parse::<IpAddr>().unwrap(), "10.1.2.2".parse().unwrap()]);
    network.runtime = json!({"ipRanges": [[{"subnet": "10.1.0.0/16"}]]});
    assert!(network.add("b").unwrap_err().msg.contains("of different sets overlap"));
}

#[test]
fn check_finds_what_is_missing() {
    let network = Network::small();
    let check = |address: &str| {
        let mut call = network.call("a");
        let ip = IpConfig { interface: None, address: address.parse().unwrap(), gateway: None };
        call.config.prev_result = Some(AddResult { ips: vec![ip], ..AddResult::default() });
        HostLocal.check(&call)
    };
    assert!(check("10.1.2.2/29").unwrap_err().msg.contains("container a has no address"));
    network.one("a");
    check("10.1.2.2/29").unwrap();
    // Another plugin's.
    check("192.0.2.1/24").unwrap();
    assert!(
        check("10.1.2.3/29").unwrap_err().msg.contains("address 10.1.2.3 is not reserved for container a")
    );
}

#[test]
fn what_vanished_containers_have_left_is_collected() {
    let network = Network::small();
    for id in ["a", "b", "c"] {
        network.one(id);
    }
    // Torn by a power failure: of nobody, and of one that is there.
    fs::write(network.path("10.1.2.5"), "").unwrap();
    fs::write(network.path("10.1.2.3"), "").unwrap();
    network.gc(&["b"]);
    assert_eq!(network.given(), [("10.1.2.3".to_owned(), String::new())].into());
    // It has kept its address, and gets it again.
    assert_eq!(network.one("b"), "10.1.2.3");
    assert_eq!(network.given()["10.1.2.3"], "b\r\neth0");
    network.gc(&[]);
    assert!(network.given().is_empty());
}

#[test]
fn what_the_reference_plugin_has_given_is_found_and_given_back() {
    let network = Network::small();
    network.one("x");
    fs::write(network.path("10.1.2.3"), "old\r\neth0").unwrap();
    // Its first versions named no interface.
    fs::write(network.path("10.1.2.4"), "older").unwrap();
    assert_eq!(network.one("old"), "10.1.2.3");
    network.del("old");
    network.del("older");
    assert_eq!(network.given().into_keys().collect::<Vec<_>>(), ["10.1.2.2"]);
    // Their turn is over.
    assert_eq!(network.one("y"), "10.1.2.5");
}

/// Every state that a process killed in the middle of an ADD can leave.
#[test]
fn an_add_that_was_killed_leaves_nothing_in_the_way() {
    let half_done: [fn(&Network); 3] = [
        |network| fs::write(network.path(".owners/a:eth0"), "10.1.2.3\n").unwrap(),
        |network| {
            fs::write(network.path(".owners/a:eth0"), "10.1.2.3\n").unwrap();
            fs::write(network.path("10.1.2.3"), "").unwrap();
        },
        |network| fs::write(network.path(".owners/a:eth0"), "").unwrap(),
    ];
    for (at, leave) in half_done.into_iter().enumerate() {
        for again in [false, true] {
            let network = Network::small();
            network.one("first");
            leave(&network);
            if again {
                network.one("a");
                assert_eq!(network.given().len(), 2, "state {at}");
            }
            network.del("a");
            assert_eq!(network.given().len(), 1, "state {at}, {again}");
            assert_eq!(fs::read_dir(network.path(".owners")).unwrap().count(), 1, "state {at}, {again}");
        }
    }
    // Named, killed, and meanwhile another's.
    let network = Network::small();
    network.one("first");
    fs::write(network.path(".owners/a:eth0"), "10.1.2.3\n").unwrap();
    assert_eq!(network.one("b"), "10.1.2.3");
    assert_eq!(network.one("a"), "10.1.2.4");
    network.del("a");
    assert_eq!(network.given().len(), 2);
}

#[test]
fn many_at_once_get_different_addresses() {
    let network = Network::new(&json!([[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00::/64"}]]));
    let ids: Vec<String> = (0..100).map(|n| format!("c{n}")).collect();
    let mut all = BTreeSet::new();
    let added = std::thread::scope(|scope| {
        let calls: Vec<_> = ids.iter().map(|id| scope.spawn(|| network.add(id).unwrap())).collect();
        calls.into_iter().map(|call| call.join().unwrap()).collect::<Vec<_>>()
    });
    for address in added.into_iter().flatten() {
        assert!(all.insert(address), "{address} was given twice");
    }
    assert_eq!(all.len(), 200);
}

#[test]
fn marks_of_what_has_cooled_off_do_not_pile_up() {
    let network = Network::new(&json!([[{"subnet": "fd00::/64"}]]));
    for n in 0..50 {
        network.one(&format!("c{n}"));
        network.del(&format!("c{n}"));
    }
    let marks = || fs::read_dir(network.path(".released")).unwrap().count();
    assert_eq!(marks(), 50);
    network.cool_off();
    let cleared = fs::File::options().write(true).open(network.path(".cleared")).unwrap();
    cleared.set_modified(SystemTime::now() - COOLING_OFF).unwrap();
    network.del("nobody");
    assert_eq!(marks(), 0);
}

#[test]
fn del_needs_no_valid_ranges_and_no_directory() {
    let mut network = Network::small();
    network.del("a");
    assert!(!network.path("").exists());
    network.one("a");
    network.ipam["ranges"] = json!([]);
    network.del("a");
    assert!(network.given().is_empty());
}

#[test]
fn a_configuration_that_is_wrong_is_refused() {
    let cases = [
        (json!([]), "no ranges are given: set ipam.ranges"),
        (json!([[]]), "a set of ranges is empty"),
        (
            json!([[{"subnet": "10.1.2.3/24"}]]),
            "subnet 10.1.2.3/24 has host bits set: did you mean 10.1.2.0/24?",
        ),
        (json!([[{"subnet": "ten"}]]), "the configuration is wrong"),
    ];
    for (ranges, expected) in cases {
        let error = Network::new(&ranges).add("a").unwrap_err();
        assert_eq!(error.code, code::INVALID_CONFIG);
        assert!(error.msg.contains(expected), "{ranges} gave {error}, not {expected:?}");
    }
    let mut call = Network::small().call("a");
    for name in ["", "..", "a/b"] {
        call.config.name = name.into();
        assert!(HostLocal.add(&call).unwrap_err().msg.contains("cannot be a directory's"), "{name:?}");
    }
    let mut network = Network::small();
    network.ipam =
        json!({"type": "host-local", "subnet": "10.7.0.0/24", "dataDir": network.directory.path()});
    assert_eq!(network.one("single"), "10.7.0.2");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever is added, taken back and collected: nobody has another's address, and what is left is what is held.
    #[test]
    fn nothing_is_given_twice_or_lost(steps in proptest::collection::vec((0_u8..3, 0_u8..8), 1..60)) {
        let network = Network::small();
        let mut held: BTreeMap<String, String> = BTreeMap::new();
        for (what, who) in steps {
            let id = format!("c{who}");
            match what {
                0 => match network.add(&id) {
                    Ok(given) => {
                        let address = given[0].to_string();
                        if let Some(before) = held.insert(id.clone(), address.clone()) {
                            prop_assert_eq!(&before, &address);
                        }
                        let others = held.iter().filter(|(other, has)| **other != id && **has == address);
                        prop_assert_eq!(others.count(), 0);
                    }
                    Err(error) => {
                        prop_assert_eq!(error.code, code::NO_ADDRESSES);
                        prop_assert_eq!(held.len(), 5);
                    }
                },
                1 => {
                    network.del(&id);
                    held.remove(&id);
                }
                _ => {
                    held.remove(&id);
                    let valid: Vec<&str> = held.keys().map(String::as_str).collect();
                    network.gc(&valid);
                }
            }
            let given = if network.path("").exists() { network.given() } else { BTreeMap::new() };
            let expected: BTreeMap<_, _> =
                held.iter().map(|(id, address)| (address.clone(), format!("{id}\r\neth0"))).collect();
            prop_assert_eq!(given, expected);
        }
    }
}
