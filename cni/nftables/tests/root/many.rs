//! Many pods, and many at the same time.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use coracle_nftables::{Entry, Nftables, Part, Protocol};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::elements::port;
use crate::harness::{in_own_network, run};
use crate::owner;

/// What a pod with a port has.
fn pod(number: u16) -> Vec<Entry> {
    let [high, low] = number.to_be_bytes();
    let address = format!("10.1.{high}.{low}");
    vec![
        Entry::Masquerade(format!("{address}/16").parse().unwrap()),
        port(None, 10_000 + number, Protocol::Tcp, &address, 80),
        Entry::Hairpin {
            pod: format!("{address}/16").parse().unwrap(),
            protocol: Protocol::Tcp,
            host_port: 10_000 + number,
        },
    ]
}

#[test]
fn a_hundred_threads_add_at_once_to_a_table_that_is_not_there() {
    in_own_network(|| {
        thread::scope(|scope| {
            for number in 1..=100 {
                scope.spawn(move || {
                    let mut table = Nftables::open().unwrap();
                    table.add(&owner(&format!("pod{number}")), &pod(number)).unwrap();
                });
            }
        });
        let mut table = Nftables::open().unwrap();
        assert!(table.is_whole().unwrap(), "the table was made once");
        for number in 1..=100 {
            table.check(&owner(&format!("pod{number}")), &pod(number)).unwrap();
        }
        thread::scope(|scope| {
            for number in 1..=100 {
                scope.spawn(move || {
                    let mut table = Nftables::open().unwrap();
                    table.remove(&owner(&format!("pod{number}")), &pod(number)).unwrap();
                });
            }
        });
        assert!(table.owners(Part::Masquerade).unwrap().is_empty());
        assert!(table.owners(Part::Ports).unwrap().is_empty());
    });
}

#[test]
fn others_that_change_the_rule_set_meanwhile_are_no_hindrance() {
    in_own_network(|| {
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..100 {
                    run("nft", &["add", "table", "ip", "other"]);
                    run("nft", &["delete", "table", "ip", "other"]);
                }
                done.store(true, Ordering::Relaxed);
            });
            let mut table = Nftables::open().unwrap();
            table.add(&owner("pod1"), &pod(1)).unwrap();
            while !done.load(Ordering::Relaxed) {
                table.add(&owner("pod2"), &pod(2)).unwrap();
                table.check(&owner("pod2"), &pod(2)).unwrap();
                table.remove(&owner("pod2"), &pod(2)).unwrap();
                assert_eq!(table.owners(Part::Ports).unwrap(), [owner("pod1")].into());
            }
        });
    });
}

/// The median of the time that a pod takes to come and go.
fn update(table: &mut Nftables) -> Duration {
    let mut times: Vec<Duration> = (0..50)
        .map(|_| {
            let begin = Instant::now();
            table.add(&owner("one more"), &pod(20_000)).unwrap();
            table.remove(&owner("one more"), &pod(20_000)).unwrap();
            begin.elapsed()
        })
        .collect();
    times.sort();
    times[times.len() / 2]
}

#[test]
fn a_change_is_as_quick_beside_a_thousand_pods_as_beside_one() {
    in_own_network(|| {
        let mut table = Nftables::open().unwrap();
        let mut times = Vec::new();
        let mut there = 0;
        for pods in [1, 10, 100, 1000] {
            for number in there + 1..=pods {
                table.add(&owner(&format!("pod{number}")), &pod(number)).unwrap();
            }
            there = pods;
            times.push(update(&mut table));
            println!("beside {pods} pods: {:?} to add and remove one", times[times.len() - 1]);
        }
        // What grows with the pods there are would take a thousand times as long.
        assert!(times[3] < times[0] * 20, "{times:?}");
    });
}

#[derive(Clone, Debug)]
enum Act {
    Add(u16),
    Remove(u16),
    RemoveAll(u16),
    Collect(Vec<u16>),
    Flush,
}

fn act() -> impl Strategy<Value = Act> {
    let pod = 1..12_u16;
    prop_oneof![
        6 => pod.clone().prop_map(Act::Add),
        3 => pod.clone().prop_map(Act::Remove),
        2 => pod.clone().prop_map(Act::RemoveAll),
        1 => proptest::collection::vec(pod, 0..12).prop_map(Act::Collect),
        1 => Just(Act::Flush),
    ]
}

#[test]
fn whatever_comes_and_goes_exactly_what_is_left_is_there() {
    in_own_network(|| {
        let acts = proptest::collection::vec(act(), 1..40);
        let mut runner =
            TestRunner::new(Config { cases: 48, failure_persistence: None, ..Config::default() });
        let ran = runner.run(&acts, |acts| {
            let mut table = Nftables::open().unwrap();
            // That of the case before.
            table.ensure().unwrap();
            run("nft", &["delete", "table", "inet", "coracle"]);
            let mut model: BTreeMap<u16, Vec<Entry>> = BTreeMap::new();
            let name = |number: u16| format!("pod{number}");
            for act in acts {
                match act {
                    Act::Add(number) => {
                        table.add(&owner(&name(number)), &pod(number)).unwrap();
                        model.insert(number, pod(number));
                    }
                    Act::Remove(number) => {
                        table.remove(&owner(&name(number)), &pod(number)).unwrap();
                        model.remove(&number);
                    }
                    Act::RemoveAll(number) => {
                        table.remove_all(&owner(&name(number)), Part::Masquerade).unwrap();
                        table.remove_all(&owner(&name(number)), Part::Ports).unwrap();
                        model.remove(&number);
                    }
                    Act::Collect(stay) => {
                        let valid: Vec<_> =
                            stay.iter().map(|number| (name(*number), "eth0".to_owned())).collect();
                        for part in [Part::Masquerade, Part::Ports] {
                            table.gc("pods", &valid, part).unwrap();
                        }
                        model.retain(|number, _| stay.contains(number));
                    }
                    Act::Flush => {
                        run("nft", &["flush", "ruleset"]);
                        model.clear();
                    }
                }
                let expected = model.keys().map(|number| owner(&name(*number))).collect();
                prop_assert_eq!(&table.owners(Part::Masquerade).unwrap(), &expected);
                prop_assert_eq!(&table.owners(Part::Ports).unwrap(), &expected);
                for (number, entries) in &model {
                    table.check(&owner(&name(*number)), entries).unwrap();
                }
            }
            Ok(())
        });
        ran.unwrap();
    });
}
