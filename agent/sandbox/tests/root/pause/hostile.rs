//! Messages and peers pause must not be harmed by.

use std::fs::{File, Permissions};
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use coracle_model::ContainerId;
use coracle_pause_wire::{MAX_MESSAGE, Message, NO_ID, Request, Spawn, Step, spawn};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType, connect, recv, sendmsg, socket_with,
};

use super::harness::{Pod, until};

/// A peer that says what it likes.
struct Peer(OwnedFd);

// === impl Peer ===

impl Peer {
    fn connect(directory: &Path) -> Self {
        let socket =
            socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        connect(&socket, &SocketAddrUnix::new(directory.join("pause.sock")).unwrap()).unwrap();
        let limit = Some(super::harness::DEADLINE);
        rustix::net::sockopt::set_socket_timeout(&socket, rustix::net::sockopt::Timeout::Recv, limit)
            .unwrap();
        Self(socket)
    }

    fn send(&self, bytes: &[u8], descriptors: &[BorrowedFd<'_>], flags: SendFlags) -> Result<usize, Errno> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() {
            assert!(control.push(SendAncillaryMessage::ScmRights(descriptors)));
        }
        sendmsg(&self.0, &[IoSlice::new(bytes)], &mut control, flags | SendFlags::NOSIGNAL)
    }

    /// Sends and expects an error; its step, errno and sequence.
    fn refused(&self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> (Step, i32, u32) {
        self.send(bytes, descriptors, SendFlags::empty()).unwrap();
        let mut buffer = [0; MAX_MESSAGE];
        // Descriptors that come with an answer nobody expects are dropped by the kernel.
        let mut control = rustix::net::RecvAncillaryBuffer::default();
        let length = rustix::net::recvmsg(
            &self.0,
            &mut [IoSliceMut::new(&mut buffer)],
            &mut control,
            RecvFlags::empty(),
        )
        .unwrap()
        .bytes;
        match Message::decode(&buffer[..length]) {
            Some((sequence, Message::Error { step, errno })) => (step, errno, sequence),
            other => panic!("{other:?} to {bytes:?}"),
        }
    }

    /// Whether pause closed the connection.
    fn is_closed(&self) -> bool {
        matches!(recv(&self.0, &mut [0; 64][..], RecvFlags::empty()), Ok((0, _)) | Err(Errno::CONNRESET))
    }
}

fn encoded(request: &Request) -> Vec<u8> {
    let mut buffer = [0; MAX_MESSAGE];
    let length = request.encode(5, &mut buffer).unwrap();
    buffer[..length].to_vec()
}

#[tokio::test]
async fn malformed_messages_are_answered_and_harm_nothing() {
    let pod = Pod::plain().await;
    let agent = pod.connect().await;
    let id = ContainerId::random();
    let shell = agent.shell(Some(id), "read x <&3; exit 6").await;
    drop(agent);
    let peer = Peer::connect(pod.directory.path());
    peer.refused(&encoded(&Request::Hold { id: NO_ID }), &[]);
    let before = pod.descriptors();

    let null = File::open("/dev/null").unwrap();
    let null = null.as_fd();
    let spawn = |flags| encoded(&Request::Spawn(Spawn { flags, id: [9; 32] }));
    let hold = encoded(&Request::Hold { id: *id.as_bytes() });
    const EINVAL: i32 = 22;
    const EMSGSIZE: i32 = 90;
    /// What it is, its bytes, how many descriptors, and the answer.
    type Case = (&'static str, Vec<u8>, usize, (Step, i32, u32));
    let cases: &[Case] = &[
        ("one byte", vec![1], 0, (Step::Malformed, 74, 0)),
        ("a header cut off", vec![1, 0, 0, 0, 5, 0, 0], 0, (Step::Malformed, 74, 0)),
        ("no body", spawn(0)[..8].to_vec(), 0, (Step::Malformed, 74, 5)),
        ("a body cut off", spawn(0)[..43].to_vec(), 5, (Step::Malformed, 74, 5)),
        ("an unknown kind", [&[0x77, 0x77, 0, 0, 5, 0, 0, 0][..], &[0; 40]].concat(), 3, (Step::Kind, 38, 5)),
        ("unknown flags", spawn(1 << 31), 5, (Step::Flags, EINVAL, 5)),
        ("no descriptors", spawn(0), 0, (Step::PassedDescriptors, EINVAL, 5)),
        ("too few", spawn(0), 4, (Step::PassedDescriptors, EINVAL, 5)),
        ("no cgroup", spawn(spawn::INTO_CGROUP), 5, (Step::PassedDescriptors, EINVAL, 5)),
        ("no directory as cgroup", spawn(spawn::INTO_CGROUP), 6, (Step::Clone, 9, 5)),
        ("too many", spawn(0), 23, (Step::PassedDescriptors, EMSGSIZE, 5)),
        ("far too many", spawn(0), 253, (Step::PassedDescriptors, EMSGSIZE, 5)),
        (
            "descriptors to list",
            encoded(&Request::List { start: 0 }),
            1,
            (Step::PassedDescriptors, EINVAL, 5),
        ),
        ("none to hold", hold.clone(), 0, (Step::PassedDescriptors, EINVAL, 5)),
        ("too many to hold", hold, 17, (Step::PassedDescriptors, EINVAL, 5)),
        ("no such container", encoded(&Request::Take { id: [8; 32] }), 0, (Step::Container, 2, 5)),
        ("zeros as container", encoded(&Request::Release { id: NO_ID }), 0, (Step::Container, 2, 5)),
        ("no shared namespace", encoded(&Request::SharedPid), 0, (Step::ReaperAbsent, 2, 5)),
        ("a later version", encoded(&Request::Hello { lowest: 2, highest: 9 }), 0, (Step::Version, 93, 5)),
        (
            "too long",
            [spawn(0), vec![0; 2 * MAX_MESSAGE]].concat(),
            5,
            (Step::PassedDescriptors, EMSGSIZE, 5),
        ),
    ];
    for (what, bytes, count, expected) in cases {
        assert_eq!(peer.refused(bytes, &vec![null; *count]), *expected, "{what}");
    }
    // They are closed once the answer is sent.
    until("all descriptors are closed", || pod.descriptors() == before).await;
    assert_eq!(pod.children(), [shell.pid()], "the container was harmed");
}

#[tokio::test]
async fn bytes_after_the_known_fields_are_ignored() {
    let pod = Pod::plain().await;
    let peer = Peer::connect(pod.directory.path());
    let longer = [encoded(&Request::Hello { lowest: 1, highest: 9 }), vec![0xff; 100]].concat();
    peer.send(&longer, &[], SendFlags::empty()).unwrap();
    let mut buffer = [0; MAX_MESSAGE];
    let (length, _) = recv(&peer.0, &mut buffer[..], RecvFlags::empty()).unwrap();
    let Some((5, Message::Hello(hello))) = Message::decode(&buffer[..length]) else { panic!() };
    assert_eq!(hello.version, 1);
}

#[tokio::test]
async fn random_messages_never_kill_pause() {
    let pod = Pod::plain().await;
    let null = File::open("/dev/null").unwrap();
    let before = pod.descriptors();
    // xorshift: the same every time.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut peer = Peer::connect(pod.directory.path());
    for _ in 0..20_000 {
        let length = random() as usize % 80 + 1;
        let mut bytes: Vec<u8> = (0..length).map(|_| random() as u8).collect();
        // Mostly a kind that exists; never one that ends pause, as it may.
        if let (Some(kind), true) = (bytes.get_mut(..2), random() % 8 != 0) {
            kind.copy_from_slice(&[[1, 2, 3, 4, 5, 6, 7, 9][random() as usize % 8], 0]);
        }
        if bytes.starts_with(&[8, 0]) {
            continue;
        }
        let spawns = bytes.first() == Some(&2);
        if let (Some(flags), true) = (bytes.get_mut(8..12), spawns) {
            flags.copy_from_slice(&(random() as u32 & spawn::ALL).to_le_bytes());
        }
        let descriptors = vec![null.as_fd(); random() as usize % 9];
        match peer.send(&bytes, &descriptors, SendFlags::DONTWAIT) {
            Ok(_) => {}
            // The answers were not read: pause hung up.
            Err(_) => peer = Peer::connect(pod.directory.path()),
        }
        if random() % 4 == 0 {
            while recv(&peer.0, &mut [0; MAX_MESSAGE][..], RecvFlags::DONTWAIT).is_ok_and(|(n, _)| n > 0) {}
        }
    }
    drop(peer);
    let agent = pod.connect().await;
    until("no child is left", || pod.children().is_empty()).await;
    for listed in agent.client.list().await.unwrap() {
        agent.client.release(listed.container).await.unwrap();
    }
    drop(agent);
    until("all descriptors are closed", || pod.descriptors() == before).await;
}

#[tokio::test]
async fn a_peer_that_does_not_read_is_disconnected() {
    let pod = Pod::plain().await;
    let peer = Peer::connect(pod.directory.path());
    let list = encoded(&Request::List { start: 0 });
    let closed = (0..1_000_000).any(|_| match peer.send(&list, &[], SendFlags::DONTWAIT) {
        Ok(_) => false,
        Err(Errno::AGAIN) => {
            std::thread::yield_now();
            false
        }
        Err(_) => true,
    });
    assert!(closed, "pause waits for its peer");
    pod.connect().await.client.list().await.unwrap();
}

#[tokio::test]
async fn an_empty_message_ends_the_connection_only() {
    let pod = Pod::plain().await;
    let before = pod.descriptors();
    let peer = Peer::connect(pod.directory.path());
    let null = File::open("/dev/null").unwrap();
    peer.send(&[], &[null.as_fd()], SendFlags::empty()).unwrap();
    assert!(peer.is_closed());
    until("its descriptor is closed", || pod.descriptors() == before).await;
    pod.connect().await;
}

#[tokio::test]
async fn another_user_is_refused_and_disturbs_nobody() {
    let pod = Pod::plain().await;
    let agent = pod.connect().await;
    // As open as it could be made by mistake.
    std::fs::set_permissions(pod.directory.path(), Permissions::from_mode(0o755)).unwrap();
    std::fs::set_permissions(pod.directory.path().join("pause.sock"), Permissions::from_mode(0o777)).unwrap();
    let path = pod.directory.path().to_owned();
    let closed = std::thread::spawn(move || {
        // This thread's only; the others stay root.
        let nobody = rustix::process::Uid::from_raw(65534);
        rustix::thread::set_thread_res_uid(nobody, nobody, nobody).unwrap();
        let peer = Peer::connect(&path);
        let _ = peer.send(&encoded(&Request::Shutdown), &[], SendFlags::empty());
        peer.is_closed()
    });
    assert!(closed.join().unwrap(), "another user was heard");
    assert_eq!(agent.client.list().await, Ok(vec![]), "another user disconnected the agent");
    assert!(pod.alive());
}
