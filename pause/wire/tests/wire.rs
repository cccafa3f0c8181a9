//! Round trips, and decoding of bytes that are nothing.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test that cannot go on fails")]

use coracle_pause_wire::{
    CAPACITY, Code, ENTRY_SIZE, Entry, Exit, Hello, LEDGER_RECORD_SIZE, LedgerRecord, MAX_MESSAGE, Message,
    PageWriter, Request, Spawn, StartupStatus, Step, spawn,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

fn request() -> impl Strategy<Value = Request> {
    prop_oneof![
        any::<(u16, u16)>().prop_map(|(lowest, highest)| Request::Hello { lowest, highest }),
        (0..=spawn::ALL, any::<[u8; 32]>()).prop_map(|(flags, id)| Request::Spawn(Spawn { flags, id })),
        any::<(u32, [u8; 32])>().prop_map(|(pid, id)| Request::Register { pid, id }),
        any::<[u8; 32]>().prop_map(|id| Request::Hold { id }),
        any::<u16>().prop_map(|start| Request::List { start }),
        any::<[u8; 32]>().prop_map(|id| Request::Take { id }),
        any::<[u8; 32]>().prop_map(|id| Request::Release { id }),
        Just(Request::Shutdown),
        Just(Request::SharedPid),
        any::<([u8; 32], u16)>().prop_map(|(id, position)| Request::Unhold { id, position }),
    ]
}

fn failed() -> impl Strategy<Value = Option<(Step, u16)>> {
    option::of((1..=u16::MAX, any::<u16>()).prop_map(|(step, errno)| (Step::from_wire(step), errno)))
}

fn exit() -> impl Strategy<Value = Exit> {
    let code = prop_oneof![Just(Code::Exited), Just(Code::Killed), Just(Code::Dumped)];
    (code, any::<i32>(), any::<u64>(), failed()).prop_map(|(code, status, time_ns, failed)| Exit {
        code,
        status,
        time_ns,
        failed,
    })
}

fn entry() -> impl Strategy<Value = Entry> {
    (any::<([u8; 32], u32, u8, bool, bool)>(), option::of(exit())).prop_map(
        |((id, pid, held, unrecorded, reaper), exit)| Entry { id, pid, held, unrecorded, reaper, exit },
    )
}

fn message() -> impl Strategy<Value = Message<'static>> {
    prop_oneof![
        any::<(u16, u16, u32, u32, i32)>().prop_map(
            |(version, capacity, pid, flags, oom_score_adj_errno)| {
                Message::Hello(Hello { version, capacity, pid, flags, oom_score_adj_errno })
            }
        ),
        any::<u32>().prop_map(|pid| Message::Child { pid }),
        any::<(bool, u8)>().prop_map(|(alive, held)| Message::Taken { alive, held }),
        Just(Message::SharedPid),
        Just(Message::Done),
        any::<(u16, i32)>().prop_map(|(step, errno)| Message::Error { step: Step::from_wire(step), errno }),
        entry().prop_map(Message::Exited),
    ]
}

proptest! {
    #[test]
    fn requests_round_trip(request in request(), sequence: u32, more in vec(any::<u8>(), 0..9)) {
        let mut buffer = [0; MAX_MESSAGE];
        let length = request.encode(sequence, &mut buffer).unwrap();
        let extended = [&buffer[..length], &more].concat();
        prop_assert_eq!(Request::decode(&extended), (sequence, Ok(request)), "bytes after are ignored");
        prop_assert!(Request::decode(&buffer[..length - 1]).1.is_err(), "a byte is missing");
        prop_assert_eq!(request.encode(sequence, &mut buffer[..length - 1]), None, "a byte does not fit");
    }

    #[test]
    fn messages_round_trip(message in message(), sequence: u32) {
        let mut buffer = [0; MAX_MESSAGE];
        let length = message.encode(sequence, &mut buffer).unwrap();
        prop_assert_eq!(Message::decode(&buffer[..length]), Some((sequence, message)));
        prop_assert_eq!(Message::decode(&buffer[..length - 1]), None, "a byte is missing");
    }

    #[test]
    fn pages_round_trip(entries in vec(entry(), 0..100), sequence: u32, next: u16) {
        let mut buffer = [0; MAX_MESSAGE];
        let mut page = PageWriter::new(&mut buffer, sequence);
        let fit = entries.iter().take_while(|entry| page.push(entry)).count();
        prop_assert_eq!(fit, entries.len().min((MAX_MESSAGE - 12) / ENTRY_SIZE));
        let length = page.finish(next).unwrap();
        let Some((s, Message::Page { next: n, entries: read })) = Message::decode(&buffer[..length]) else {
            return Err(TestCaseError::fail("no page"));
        };
        prop_assert_eq!((s, n, read.len()), (sequence, next, fit));
        let read: Vec<_> = read.iter().collect::<Option<_>>().unwrap();
        prop_assert_eq!(&read, &entries[..fit]);
    }

    #[test]
    fn any_bytes_decode_to_something(bytes in vec(any::<u8>(), 0..300)) {
        let _ = Request::decode(&bytes);
        let _ = StartupStatus::decode(&bytes);
        if let Some((_, Message::Page { entries, .. })) = Message::decode(&bytes) {
            prop_assert_eq!(entries.iter().count(), entries.len());
        }
    }

    #[test]
    fn what_is_decoded_encodes_to_the_same(kind in 0_u16..10, mut bytes in vec(any::<u8>(), 8..80)) {
        bytes[..4].copy_from_slice(&[kind.to_le_bytes(), [0; 2]].concat());
        if let (sequence, Ok(request)) = Request::decode(&bytes) {
            let mut buffer = [0; MAX_MESSAGE];
            let length = request.encode(sequence, &mut buffer).unwrap();
            prop_assert_eq!(&buffer[..length], &bytes[..length]);
        }
    }

    #[test]
    fn ledger_records_round_trip(id: [u8; 32], pid: u32, exit in exit()) {
        let record = LedgerRecord { id, pid, exit };
        prop_assert_eq!(LedgerRecord::decode(&record.encode()), Some(record));
    }

    #[test]
    fn a_changed_ledger_record_is_recognised(
        id: [u8; 32],
        exit in exit(),
        at in 0..LEDGER_RECORD_SIZE,
        change in 1..=u8::MAX,
    ) {
        let mut bytes = LedgerRecord { id, pid: 1, exit }.encode();
        bytes[at] ^= change;
        prop_assert_eq!(LedgerRecord::decode(&bytes), None);
    }

    #[test]
    fn startup_statuses_round_trip(version: u16, failed in failed(), oom_score_adj_errno: i32, pid: u32) {
        let failed = failed.map(|(step, errno)| (step, i32::from(errno)));
        let status = StartupStatus { version, failed, oom_score_adj_errno, pid };
        prop_assert_eq!(StartupStatus::decode(&status.encode()), Some(status));
    }

    #[test]
    fn steps_round_trip(number: u16) {
        prop_assert_eq!(Step::from_wire(number).to_wire(), number);
    }
}

/// What pauses that run speak: a change here is a new version.
#[test]
fn version_1_is_frozen() {
    let mut buffer = [0; MAX_MESSAGE];
    let spawn = Request::Spawn(Spawn { flags: spawn::NEWPID | spawn::INTO_CGROUP, id: [0xab; 32] });
    let length = spawn.encode(0x0102_0304, &mut buffer).unwrap();
    let header = [2, 0, 0, 0, 4, 3, 2, 1];
    assert_eq!(buffer[..length], [&header[..], &[9, 0, 0, 0], &[0xab; 32]].concat());

    let exit = Exit { code: Code::Killed, status: 9, time_ns: 0x1122, failed: Some((Step::ChildExec, 8)) };
    let entry = Entry { id: [1; 32], pid: 7, held: 3, unrecorded: true, reaper: false, exit: Some(exit) };
    let length = Message::Exited(entry).encode(0, &mut buffer).unwrap();
    let body = [
        &[1; 32][..],
        &[7, 0, 0, 0, 0b11, 3, 2, 0, 9, 0, 0, 0],
        &[0x22, 0x11, 0, 0, 0, 0, 0, 0, 62, 0, 8, 0, 0, 0, 0, 0],
    ];
    assert_eq!(buffer[..length], [&[0, 1, 0, 0, 0, 0, 0, 0][..], &body.concat()].concat());
    assert!(usize::from(u16::MAX) > CAPACITY, "positions of a list are u16");
}
