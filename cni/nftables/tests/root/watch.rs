//! What others do to the table is told, and nothing else.

use coracle_nftables::{Change, Nftables, Protocol, Watch};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::elements::port;
use crate::harness::{in_own_network, run};
use crate::owner;

/// What is told. All of it is there already: the kernel tells before it answers whoever has changed something.
fn told(watch: &mut Watch) -> Vec<Change> {
    watch.changes().unwrap()
}

fn is_quiet(watch: &Watch) -> bool {
    poll(&mut [PollFd::new(watch, PollFlags::IN)], Some(&Timespec::default())).unwrap() == 0
}

#[test]
fn a_flush_by_somebody_else_is_told_and_what_is_our_own_is_not() {
    in_own_network(|| {
        let mut watch = Watch::open().unwrap();
        let mut table = Nftables::open().unwrap();
        let entries = [port(None, 8080, Protocol::Tcp, "10.1.0.5", 80)];
        table.add(&owner("a"), &entries).unwrap();
        assert_eq!(told(&mut watch), [], "it was made");
        let moved = [port(None, 8080, Protocol::Tcp, "10.1.0.6", 80)];
        table.add(&owner("a"), &moved).unwrap();
        table.remove(&owner("a"), &moved).unwrap();
        table.add(&owner("a"), &entries).unwrap();
        assert_eq!(told(&mut watch), [], "a pod went and came");
        run("nft", &["add", "table", "inet", "other"]);
        run("nft", &["add", "chain", "inet", "other", "coracle"]);
        run("nft", &["delete", "table", "inet", "other"]);
        run("nft", &["add", "table", "ip", "coracle"]);
        run("nft", &["delete", "table", "ip", "coracle"]);
        assert!(!is_quiet(&watch), "others' changes wake whoever waits");
        assert_eq!(told(&mut watch), [], "others' tables");
        assert!(is_quiet(&watch));

        let harm: &[&[&str]] = &[
            &["flush", "ruleset"],
            &["delete", "table", "inet", "coracle"],
            &["flush", "chain", "inet", "coracle", "ports"],
            &["insert", "rule", "inet", "coracle", "ports", "accept"],
        ];
        for arguments in harm {
            run("nft", arguments);
            assert_eq!(told(&mut watch), [Change::Table], "{arguments:?}");
            table.ensure().unwrap();
            table.add(&owner("a"), &entries).unwrap();
            table.check(&owner("a"), &entries).unwrap();
            assert_eq!(told(&mut watch), [], "the repair after {arguments:?}");
        }
    });
}

#[test]
fn a_table_that_came_back_without_its_elements_is_told() {
    in_own_network(|| {
        let mut watch = Watch::open().unwrap();
        let mut table = Nftables::open().unwrap();
        table.ensure().unwrap();
        assert_eq!(told(&mut watch), []);
        run("nft", &["flush", "ruleset"]);
        // Another process adds a pod before anybody has asked what happened.
        table.ensure().unwrap();
        assert_eq!(told(&mut watch), [Change::Table]);
    });
}

#[test]
fn elements_that_somebody_deletes_are_told_by_their_owners() {
    in_own_network(|| {
        let mut watch = Watch::open().unwrap();
        let mut table = Nftables::open().unwrap();
        for (id, number) in [("a", 8080), ("b", 8081), ("c", 8082)] {
            table.add(&owner(id), &[port(None, number, Protocol::Tcp, "10.1.0.5", 80)]).unwrap();
        }
        assert_eq!(told(&mut watch), []);
        run("nft", &["delete", "element", "inet", "coracle", "ports4", "{ tcp . 8081 }"]);
        assert_eq!(told(&mut watch), [Change::Elements([owner("b")].into())]);
        run("nft", &["flush", "map", "inet", "coracle", "ports4"]);
        assert_eq!(told(&mut watch), [Change::Elements([owner("a"), owner("c")].into())]);
    });
}

/// The kernel wakes whoever listens before it answers whoever has done something.
#[test]
fn what_other_threads_of_the_process_do_is_not_told() {
    in_own_network(|| {
        let mut watch = Watch::open().unwrap();
        let entries = [port(None, 8080, Protocol::Tcp, "10.1.0.5", 80)];
        std::thread::scope(|scope| {
            let work = scope.spawn(|| {
                let mut table = Nftables::open().unwrap();
                for _ in 0..200 {
                    table.add(&owner("a"), &entries).unwrap();
                    table.remove(&owner("a"), &entries).unwrap();
                }
            });
            while !work.is_finished() {
                poll(
                    &mut [PollFd::new(&watch, PollFlags::IN)],
                    Some(&Timespec { tv_sec: 0, tv_nsec: 10_000_000 }),
                )
                .unwrap();
                assert_eq!(told(&mut watch), []);
            }
        });
    });
}
