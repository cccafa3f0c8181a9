//! Chains of others that drop what is forwarded.

use coracle_nftables::Nftables;

use crate::harness::{in_own_network, run};

#[test]
fn a_policy_of_drop_is_told_until_a_rule_names_the_interface() {
    in_own_network(|| {
        let mut table = Nftables::open().unwrap();
        table.ensure().unwrap();
        assert!(table.forward_drops("cni0").unwrap().is_empty());
        run("iptables", &["-P", "FORWARD", "DROP"]);
        run("nft", &["add", "table", "inet", "wall"]);
        run(
            "nft",
            &["add", "chain", "inet", "wall", "fw", "{ type filter hook forward priority 0; policy drop; }"],
        );
        run(
            "nft",
            &["add", "chain", "inet", "wall", "in", "{ type filter hook input priority 0; policy drop; }"],
        );
        let mut drops = table.forward_drops("cni0").unwrap();
        drops.sort();
        assert_eq!(drops, ["chain FORWARD of table ip filter", "chain fw of table inet wall"]);
        run("iptables", &["-A", "FORWARD", "-i", "cni00", "-j", "ACCEPT"]);
        assert_eq!(table.forward_drops("cni0").unwrap().len(), 2, "another interface");
        run("iptables", &["-A", "FORWARD", "-i", "cni0", "-j", "ACCEPT"]);
        run("nft", &["add", "rule", "inet", "wall", "fw", "oifname", "cni0", "accept"]);
        assert!(table.forward_drops("cni0").unwrap().is_empty());
    });
}
