//! Traffic control.

use std::os::fd::AsFd;
use std::process::Command;

use coracle_netlink::{Batch, LinkId, Peer, Protocol, Socket, TokenBucket, TokenBucketSeen, Veth};

use coracle_tests::namespaces::{Namespace, in_own_network};

fn tc(arguments: &str) -> String {
    let output = Command::new("tc").args(arguments.split(' ')).output().unwrap();
    assert!(output.status.success(), "tc {arguments}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn what_a_link_sends_and_receives_gets_a_rate() {
    in_own_network(|| {
        let pod = Namespace::new();
        let mut here = Socket::open(Protocol::Route).unwrap();
        let mut batch = Batch::new();
        let peer = Peer { name: "eth0", namespace: pod.as_fd(), mac: None };
        batch.create_veth(&Veth { name: "veth1", controller: None, mtu: None, peer });
        batch.create_ifb("ifb1", 1500);
        here.execute(batch).unwrap();
        let [veth, ifb] = ["veth1", "ifb1"].map(|name| here.link(LinkId::Name(name)).unwrap().unwrap());
        assert_eq!(ifb.kind, "ifb");
        assert_eq!(here.rate_limit(veth.index).unwrap(), None);

        let slow = TokenBucket { rate: 125_000, burst: 20_000, limit: 30_000 };
        let fast = TokenBucket { rate: 6_000_000_000, burst: 2_000_000_000, limit: 3_000_000_000 };
        let mut batch = Batch::new();
        batch.limit_rate(veth.index, &slow);
        batch.add_ingress(veth.index);
        batch.redirect_ingress(veth.index, ifb.index);
        batch.limit_rate(ifb.index, &fast);
        here.execute(batch).unwrap();

        let seen = |bucket: TokenBucket| Some(TokenBucketSeen { rate: bucket.rate, limit: bucket.limit });
        assert_eq!(here.rate_limit(veth.index).unwrap(), seen(slow));
        assert_eq!(here.rate_limit(ifb.index).unwrap(), seen(fast));
        let shown = tc("qdisc show dev veth1");
        assert!(
            shown.contains("tbf 1: root") && shown.contains("rate 1Mbit") && shown.contains("ingress ffff:"),
            "{shown}"
        );
        assert!(shown.contains("burst 20000b"), "{shown}");
        let shown = tc("filter show dev veth1 ingress");
        assert!(shown.contains("Egress Redirect to device ifb1"), "{shown}");
        assert_eq!(here.ingress_redirect(veth.index).unwrap(), Some(ifb.index));
        assert_eq!(here.ingress_redirect(ifb.index).unwrap(), None);
        // Again, with another rate.
        let mut batch = Batch::new();
        batch.redirect_ingress(veth.index, ifb.index);
        batch.limit_rate(veth.index, &fast);
        here.execute(batch).unwrap();
        assert_eq!(here.rate_limit(veth.index).unwrap(), seen(fast));
        assert_eq!(tc("filter show dev veth1 ingress").matches("Egress Redirect").count(), 1);
    });
}
