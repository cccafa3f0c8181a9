//! A table that is not what it has to be.

use coracle_nftables::{Nftables, Protocol};

use crate::elements::port;
use crate::harness::{in_own_network, listed, run};
use crate::owner;

#[test]
fn a_table_that_was_tampered_with_is_made_again_with_its_elements() {
    in_own_network(|| {
        let mut table = Nftables::open().unwrap();
        assert!(!table.is_whole().unwrap());
        assert!(table.ensure().unwrap());
        assert!(!table.ensure().unwrap(), "it is there");
        let entries = [port(None, 8080, Protocol::Tcp, "10.1.0.5", 80)];
        table.add(&owner("a"), &entries).unwrap();
        let good = listed();
        let tampering: &[&[&str]] = &[
            &["flush", "table", "inet", "coracle"],
            &["flush", "chain", "inet", "coracle", "ports"],
            &["add", "rule", "inet", "coracle", "prerouting", "counter", "accept"],
            &["insert", "rule", "inet", "coracle", "postrouting", "accept"],
            &["add", "chain", "inet", "coracle", "guard", "{ policy drop; }"],
            &["add", "table", "inet", "coracle", "{ flags dormant; }"],
            &["add", "chain", "inet", "coracle", "more"],
        ];
        for arguments in tampering {
            run("nft", arguments);
            assert!(!table.is_whole().unwrap(), "{arguments:?}");
            assert!(table.ensure().unwrap(), "{arguments:?}");
            assert_eq!(listed(), good, "{arguments:?}");
        }
    });
}

#[test]
fn adding_makes_a_table_whole_that_lacks_a_set() {
    in_own_network(|| {
        run("nft", &["add", "table", "inet", "coracle"]);
        let mut table = Nftables::open().unwrap();
        let entries = [port(None, 8080, Protocol::Tcp, "10.1.0.5", 80)];
        table.add(&owner("a"), &entries).unwrap();
        assert!(table.is_whole().unwrap());
        table.check(&owner("a"), &entries).unwrap();
    });
}

#[test]
fn the_table_goes_when_nobody_has_anything_in_it() {
    in_own_network(|| {
        let mut table = Nftables::open().unwrap();
        assert!(table.remove_table().unwrap().is_empty(), "there is none");
        let entries = [port(None, 8080, Protocol::Tcp, "10.1.0.5", 80)];
        table.add(&owner("a"), &entries).unwrap();
        assert_eq!(table.remove_table().unwrap(), [owner("a")].into());
        table.check(&owner("a"), &entries).unwrap();
        table.remove(&owner("a"), &entries).unwrap();
        assert!(table.remove_table().unwrap().is_empty());
        assert_eq!(run("nft", &["list", "tables"]), "");
    });
}
