//! An agent that the kernel kills at a certain system call: a process of its own, which runs this test program
//! once more and asks for a seccomp filter.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use coracle_linux::{SeccompInstruction, install_seccomp_filter};
use coracle_model::ContainerId;
use rustix::process::{Resource, Rlimit, Signal, getpid, kill_process, setrlimit};
use serde::{Deserialize, Serialize};

use super::place::Place;

/// Where the agent is killed on its way from nothing to a program that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Cut {
    /// About to ask pause to spawn init.
    Spawn,
    /// Init is there, and about to be told what to become.
    Setup,
    /// Init prepares the container, or has; its report was not read.
    Created,
    /// pause holds the control socket; there is no record.
    Record,
    /// The record is there, and the link to the log not.
    Link,
    /// The container is created.
    Start,
    /// About to put the order to start on record.
    Order,
    /// The order is on record, and Start not sent.
    SendStart,
    /// Start is sent, and what follows from it not seen.
    Executed,
    /// The start is complete.
    Done,
}

pub(crate) const CUTS: [Cut; 10] = [
    Cut::Spawn,
    Cut::Setup,
    Cut::Created,
    Cut::Record,
    Cut::Link,
    Cut::Start,
    Cut::Order,
    Cut::SendStart,
    Cut::Executed,
    Cut::Done,
];

/// The variable that tells the process what it is.
const ORDERS: &str = "CORACLE_TEST_AGENT";
const ENTRY: &str = "takeover::killed::the_agent_that_is_killed";

#[derive(Serialize, Deserialize)]
struct Orders {
    place: Place,
    cut: Cut,
    id: ContainerId,
}

/// Runs an agent until it is killed there; the container it was about to create or start.
pub(crate) fn run_agent_until(place: &Place, cut: Cut) -> ContainerId {
    let orders = Orders { place: place.clone(), cut, id: ContainerId::random() };
    let mut agent = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", ENTRY, "--ignored", "--nocapture"])
        .env(ORDERS, serde_json::to_string(&orders).unwrap())
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let status = agent.wait().unwrap();
    let by_itself = matches!(cut, Cut::Start | Cut::Done);
    let expected = if by_itself { Signal::KILL } else { Signal::SYS };
    assert_eq!(status.signal(), Some(expected.as_raw()), "{cut:?}: {status}");
    orders.id
}

#[test]
#[ignore = "the agent of the other tests, not a test"]
fn the_agent_that_is_killed() {
    let Ok(orders) = std::env::var(ORDERS) else { return };
    let Orders { place, cut, id } = serde_json::from_str(&orders).unwrap();
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let pod = place.pod();
        let agent = place.agent().await.runtime;
        agent.ensure_sandbox(&pod).await.unwrap();
        if cut == Cut::Spawn {
            die_at(SENDMSG, None);
        }
        let pause = only_packet_socket();
        match cut {
            Cut::Setup => die_at(SENDMSG, Some(pause)),
            Cut::Created => die_at(RECVMSG, Some(pause)),
            Cut::Record => die_at(RENAME, None),
            Cut::Link => die_at(SYMLINK, None),
            _ => {}
        }
        agent.create_container(place.request_for(id)).await.unwrap();
        match cut {
            Cut::Start => kill_process(getpid(), Signal::KILL).unwrap(),
            Cut::Order => die_at(RENAME, None),
            Cut::SendStart => die_at(SENDMSG, None),
            Cut::Executed => die_at(RECVMSG, Some(pause)),
            _ => {}
        }
        let started = agent.start_container(&pod.uid, id).await;
        assert!(cut == Cut::Done, "not killed: {cut:?}, {started:?}");
        kill_process(getpid(), Signal::KILL).unwrap();
    });
}

const SENDMSG: &[i64] = &[libc::SYS_sendmsg];
const RECVMSG: &[i64] = &[libc::SYS_recvmsg];
const RENAME: &[i64] = &[
    #[cfg(target_arch = "x86_64")]
    libc::SYS_rename,
    libc::SYS_renameat,
    libc::SYS_renameat2,
];

const SYMLINK: &[i64] = &[
    #[cfg(target_arch = "x86_64")]
    libc::SYS_symlink,
    libc::SYS_symlinkat,
];

/// Has the kernel kill this process at the next of these calls, unless its first argument is `spared`.
fn die_at(calls: &[i64], spared: Option<u32>) {
    const LOAD_WORD: u16 = 0x20;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    /// Of `struct seccomp_data`.
    const NUMBER: u32 = 0;
    const FIRST_ARGUMENT: u32 = if cfg!(target_endian = "little") { 16 } else { 20 };
    let instruction =
        |code, jump_true, jump_false, operand| SeccompInstruction { code, jump_true, jump_false, operand };
    let mut program = vec![instruction(LOAD_WORD, 0, 0, NUMBER)];
    for (number, left) in calls.iter().zip((0..calls.len()).rev()) {
        // Over the other comparisons and what is done when none holds.
        let to_match = u8::try_from(left + 1).unwrap();
        program.push(instruction(JUMP_IF_EQUAL, to_match, 0, u32::try_from(*number).unwrap()));
    }
    program.push(instruction(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW));
    program.push(instruction(LOAD_WORD, 0, 0, FIRST_ARGUMENT));
    program.push(instruction(JUMP_IF_EQUAL, 0, 1, spared.unwrap_or(u32::MAX)));
    program.push(instruction(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW));
    program.push(instruction(RETURN, 0, 0, libc::SECCOMP_RET_KILL_PROCESS));
    let all_threads = u32::try_from(libc::SECCOMP_FILTER_FLAG_TSYNC).unwrap();
    install_seccomp_filter(&program, all_threads).unwrap();
}

/// The number of this process's one SOCK_SEQPACKET socket: its connection to pause.
fn only_packet_socket() -> u32 {
    // proc(5): Num RefCount Protocol Flags Type St Inode Path.
    let table = fs::read_to_string("/proc/net/unix").unwrap();
    let packet = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let inodes: BTreeSet<String> = packet
        .filter(|fields| fields.get(4) == Some(&"0005"))
        .map(|fields| format!("socket:[{}]", fields[6]))
        .collect();
    let open = fs::read_dir("/proc/self/fd").unwrap().map(Result::unwrap);
    let mut found = open.filter(|entry| {
        fs::read_link(entry.path()).is_ok_and(|target| inodes.contains(target.to_str().unwrap()))
    });
    let number = found.next().expect("the connection to pause").file_name();
    assert!(found.next().is_none(), "it is the only one");
    number.to_str().unwrap().parse().unwrap()
}
