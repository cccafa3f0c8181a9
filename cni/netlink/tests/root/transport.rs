//! Batches, dumps and subscriptions.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;
use std::time::Duration;

use coracle_netlink::{Batch, Error, Notice, Protocol, Socket, Subscription};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use coracle_tests::namespaces::{Namespace, in_own_network};

/// `RTNLGRP_IPV4_IFADDR`.
const IPV4_ADDRESSES: u32 = 5;
const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const LOOPBACK: u32 = 1;

fn address(last: u8, prefix: u8) -> RouteNetlinkMessage {
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.index = LOOPBACK;
    message.header.prefix_len = prefix;
    message.attributes.push(AddressAttribute::Local(IpAddr::V4(Ipv4Addr::new(10, 9, 8, last))));
    RouteNetlinkMessage::NewAddress(message)
}

fn up() -> RouteNetlinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = LOOPBACK;
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    RouteNetlinkMessage::SetLink(message)
}

fn by_name(name: &str) -> RouteNetlinkMessage {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.to_owned()));
    RouteNetlinkMessage::GetLink(message)
}

fn all_addresses() -> RouteNetlinkMessage {
    RouteNetlinkMessage::GetAddress(AddressMessage::default())
}

#[test]
fn a_batch_goes_on_after_what_is_refused_and_tells_what_and_why() {
    in_own_network(|| {
        let mut socket = Socket::open(Protocol::Route).unwrap();
        let mut batch = Batch::new();
        batch.push("bring lo up", 0, &up());
        batch.push("add 10.9.8.1", NLM_F_CREATE | NLM_F_EXCL, &address(1, 24));
        let twice = batch.push("add 10.9.8.1 again", NLM_F_CREATE | NLM_F_EXCL, &address(1, 24));
        let get = batch.push("get lo", 0, &by_name("lo"));
        let wrong = batch.push("add 10.9.8.2/77", NLM_F_CREATE | NLM_F_EXCL, &address(2, 77));
        let last = batch.push_unacknowledged("add 10.9.8.3/99", NLM_F_CREATE, &address(3, 99));
        batch.push("add 10.9.8.4", NLM_F_CREATE | NLM_F_EXCL, &address(4, 24));
        let outcome = socket.attempt(batch).unwrap();

        let failed: Vec<_> = outcome.failures.iter().map(|failure| (failure.index, failure.errno)).collect();
        assert_eq!(failed, [(twice, Errno::EXIST), (wrong, Errno::INVAL), (last, Errno::INVAL)]);
        assert_eq!(
            outcome.failures[1].to_string(),
            "add 10.9.8.2/77: ipv4: Invalid prefix length (Invalid argument (os error 22))"
        );
        let messages: Vec<_> = outcome.messages.iter().map(|found| (found.index, found.kind)).collect();
        assert_eq!(messages, [(get, RTM_NEWLINK)]);

        let tolerant = outcome.tolerate(twice, Errno::EXIST).tolerate(wrong, Errno::EXIST);
        let Err(Error::Refused(failures)) = tolerant.into_result() else { panic!("refused") };
        assert_eq!((failures.first.index, failures.others.len()), (wrong, 1));

        let addresses = socket.dump("list addresses", &all_addresses()).unwrap();
        // Those of lo itself (127.0.0.1 and ::1) and the two that could be added.
        assert_eq!(addresses.iter().filter(|found| found.kind == RTM_NEWADDR).count(), 4);
    });
}

#[test]
fn what_is_refused_as_a_dump_says_so() {
    in_own_network(|| {
        let mut socket = Socket::open(Protocol::Route).unwrap();
        let mut message = AddressMessage::default();
        message.header.index = 4711;
        let listed = socket.dump("list addresses of 4711", &RouteNetlinkMessage::GetAddress(message));
        assert_eq!(listed.unwrap_err().errno(), Some(Errno::NODEV));
        // The socket is as good as before.
        assert!(socket.dump("list addresses", &all_addresses()).unwrap().is_empty());
    });
}

#[test]
fn a_batch_may_be_larger_than_any_default() {
    in_own_network(|| {
        let mut socket = Socket::open(Protocol::Route).unwrap();
        let mut batch = Batch::new();
        for _ in 0..12_000 {
            batch.push("get lo", 0, &by_name("lo"));
        }
        assert_eq!(socket.execute(batch).unwrap().len(), 12_000);
    });
}

#[test]
fn another_namespace_is_spoken_with_as_the_own_one() {
    in_own_network(|| {
        let namespace = Namespace::new();
        let mut there = Socket::open_in(Protocol::Route, namespace.as_fd()).unwrap();
        let mut batch = Batch::new();
        batch.push("bring lo up", 0, &up());
        there.execute(batch).unwrap();
        assert_eq!(there.dump("list addresses", &all_addresses()).unwrap().len(), 2);
        let mut here = Socket::open(Protocol::Route).unwrap();
        assert_eq!(here.dump("list addresses", &all_addresses()).unwrap().len(), 0);
    });
}

fn wait_for(subscription: &Subscription) {
    let mut sockets = [PollFd::new(subscription, PollFlags::IN)];
    let deadline = Timespec::try_from(Duration::from_secs(10)).unwrap();
    assert_eq!(poll(&mut sockets, Some(&deadline)), Ok(1), "nothing was told");
}

#[test]
fn a_subscription_tells_what_changes_and_that_something_was_missed() {
    in_own_network(|| {
        let mut socket = Socket::open(Protocol::Route).unwrap();
        let mut told = Subscription::open(Protocol::Route, None, &[IPV4_ADDRESSES]).unwrap();
        assert_eq!(told.take().unwrap(), None);
        let mut batch = Batch::new();
        batch.push("bring lo up", 0, &up());
        batch.push("add 10.9.8.1", NLM_F_CREATE, &address(1, 24));
        socket.execute(batch).unwrap();
        wait_for(&told);
        let mut kinds = Vec::new();
        while let Some(notices) = told.take().unwrap() {
            for notice in notices {
                let Notice::Message { kind, .. } = notice else { panic!("{notice:?}") };
                kinds.push(kind);
            }
        }
        assert_eq!(kinds, [RTM_NEWADDR, RTM_NEWADDR], "127.0.0.1 and 10.9.8.1");

        rustix::net::sockopt::set_socket_recv_buffer_size(&told, 1).unwrap();
        let mut batch = Batch::new();
        for last in 2..200 {
            batch.push("add", NLM_F_CREATE, &address(last, 24));
        }
        socket.execute(batch).unwrap();
        wait_for(&told);
        let mut missed = 0;
        while let Some(notices) = told.take().unwrap() {
            missed += notices.iter().filter(|notice| **notice == Notice::Missed).count();
        }
        assert!(missed > 0);
    });
}
