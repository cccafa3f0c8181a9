//! Children: born, ended, remembered.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};

use coracle_model::ContainerId;
use coracle_sandbox::pause::{Event, Exit, ExitStatus, PauseError, Spawn, Step};
use rustix::io::Errno;
use rustix::process::{Signal, pidfd_send_signal};

use super::harness::{Agent, Pod, Wishes, borrowed, file_of, until};

/// Ends with this code when its control socket closes.
const WAIT_THEN_7: &str = "read x <&3; exit 7";

fn refused<T>(result: Result<T, PauseError>) -> (Step, Errno) {
    match result {
        Err(PauseError::Refused { step, errno, .. }) => (step, errno),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("not refused"),
    }
}

#[tokio::test]
async fn exit_codes_and_signals_are_told_and_written_down() {
    let pod = Pod::plain().await;
    let mut agent = pod.connect().await;
    let before = jiff::Timestamp::now();

    let coded = ContainerId::random();
    let shell = agent.shell(Some(coded), WAIT_THEN_7).await;
    let pid = shell.pid();
    drop(shell);
    let exited = agent.exited().await;
    assert_eq!((exited.container, exited.pid, exited.reaper), (Some(coded), pid, false));
    assert_eq!(exited.exit.status, ExitStatus::Code(7));
    assert_eq!(exited.exit.failed, None);
    assert!(before <= exited.exit.time && exited.exit.time <= jiff::Timestamp::now());

    let killed = ContainerId::random();
    let shell = agent.shell(Some(killed), WAIT_THEN_7).await;
    pidfd_send_signal(&shell.spawned.pidfd, Signal::KILL).unwrap();
    assert_eq!(agent.exited().await.exit.status, ExitStatus::Signal(9));

    let ledger = pod.ledger();
    assert_eq!(ledger.unreadable, 0);
    assert_eq!(ledger.exits.iter().map(|exit| exit.container).collect::<Vec<_>>(), [coded, killed]);
    assert_eq!((ledger.exits[0].pid, ledger.exits[0].exit), (pid, exited.exit));
    assert!(pod.children().is_empty(), "a zombie is left");
}

#[tokio::test]
async fn a_helper_is_told_but_not_written_down() {
    let pod = Pod::plain().await;
    let mut agent = pod.connect().await;
    let shell = agent.shell(None, "exit 3").await;
    let exited = agent.exited().await;
    assert_eq!((exited.container, exited.pid), (None, shell.pid()));
    assert_eq!(exited.exit.status, ExitStatus::Code(3));
    assert_eq!(agent.client.list().await.unwrap(), []);
    assert_eq!(pod.ledger().exits, []);
}

#[tokio::test]
async fn a_child_has_its_descriptors_and_nothing_else() {
    let pod = Pod::plain().await;
    let agent = pod.connect().await;
    // What is held for one must not be open in another, nor the sockets of pause.
    let (held, _writer) = std::io::pipe().unwrap();
    let held = File::from(OwnedFd::from(held));
    let id = ContainerId::random();
    let wishes = Wishes { held: &[held.as_fd()], ..Wishes::default() };
    let first = agent.shell_with(Some(id), "read x <&3", wishes).await;
    let script = "ls /proc/$$/fd; grep -E 'Sig(Blk|Ign)' /proc/self/status; \
                  tr '\\0' ' ' < /proc/$$/cmdline; ulimit -n";
    let text = agent.shell(None, script).await.read();
    // 10 is where the shell itself keeps what it saves of them while it reads its script.
    let numbers: Vec<_> = text.split_whitespace().take_while(|word| word.parse::<u32>().is_ok()).collect();
    assert!(numbers == ["0", "1", "2", "3"] || numbers == ["0", "1", "10", "2", "3"], "{text}");
    assert!(text.contains("SigBlk:\t0000000000000000"), "{text}");
    assert!(text.contains("SigIgn:\t0000000000000000"), "{text}");
    assert!(text.contains("coracle-init "), "{text}");
    let soft = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap();
    assert!(text.ends_with(&format!("{soft}\n")), "the limit on descriptors changed: {text}");
    drop(first);
}

#[tokio::test]
async fn a_child_has_the_namespaces_it_asked_for() {
    let pod = Pod::plain().await;
    let agent = pod.connect().await;
    let script = "echo $$; readlink /proc/thread-self/ns/mnt; read x <&3";
    let wishes = Wishes { namespaces: true, ..Wishes::default() };
    let mut shell = agent.shell_with(None, script, wishes).await;
    assert_eq!(shell.line(), "1");
    let namespace = |pid, name| std::fs::read_link(super::harness::proc(pid).join("ns").join(name)).unwrap();
    for (name, own) in [("pid", true), ("mnt", true), ("net", false), ("cgroup", false)] {
        let differs = namespace(shell.spawned.pid, name) != namespace(pod.pause.pid, name);
        assert_eq!(differs, own, "{name}");
    }
}

#[tokio::test]
async fn a_program_that_cannot_be_executed_is_told() {
    let pod = Pod::plain().await;
    let mut agent = pod.connect().await;
    let id = ContainerId::random();
    let text = file_of(b"no program");
    agent.shell_with(Some(id), "", Wishes { program: Some(text.as_fd()), ..Wishes::default() }).await;
    let failed = Some((Step::ChildExec, Errno::NOEXEC));
    assert_eq!(agent.exited().await.exit.failed, failed);
    assert_eq!(pod.ledger().exits[0].exit.failed, failed);
    // The place is taken again by one that can.
    agent.client.release(id).await.unwrap();
    agent.shell(Some(id), "exit 0").await;
    assert_eq!(agent.exited().await.exit.failed, None);
}

#[tokio::test]
async fn exits_while_no_agent_runs_are_all_found() {
    let pod = Pod::plain().await;
    let agent = pod.connect().await;
    let ids: Vec<_> = (0..20).map(|_| ContainerId::random()).collect();
    let mut shells = Vec::new();
    for id in &ids {
        shells.push(agent.shell(Some(*id), WAIT_THEN_7).await);
    }
    let survivor = shells.pop().unwrap();
    let pids: Vec<_> = shells.iter().map(super::harness::Shell::pid).collect();
    drop(agent);
    drop(shells);
    until("all but one have ended", || pod.children() == [survivor.pid()]).await;

    let ledger = pod.ledger();
    let mut written: Vec<_> = ledger.exits.iter().map(|exit| exit.pid).collect();
    written.sort_unstable();
    let mut expected = pids.clone();
    expected.sort_unstable();
    assert_eq!(written, expected);
    assert!(ledger.exits.iter().all(|exit| exit.exit.status == ExitStatus::Code(7)));

    let agent = pod.connect().await;
    let listed = agent.client.list().await.unwrap();
    assert_eq!(listed.iter().map(|listed| listed.container).collect::<Vec<_>>(), ids);
    for listed in &listed {
        let written = ledger.exits.iter().find(|exit| exit.container == listed.container);
        assert_eq!(listed.exit, written.map(|written| written.exit));
        assert!(!listed.unrecorded);
    }
    assert_eq!(refused(agent.client.release(ids[19]).await), (Step::Alive, Errno::BUSY));
    for id in &ids[..19] {
        agent.client.release(*id).await.unwrap();
    }
    assert_eq!(agent.client.list().await.unwrap().len(), 1);
    assert_eq!(refused(agent.client.release(ids[0]).await), (Step::Container, Errno::NOENT));
}

#[tokio::test]
async fn what_is_held_outlives_the_agent() {
    let pod = Pod::plain().await;
    let agent = pod.connect().await;
    let (reader, writer) = std::io::pipe().unwrap();
    let reader = File::from(OwnedFd::from(reader));
    let writer = File::from(OwnedFd::from(writer));
    let id = ContainerId::random();
    // SIGPIPE would end the shell with 141.
    let script = "echo first; read x <&3; echo second; exit 5";
    let held = [reader.as_fd()];
    let wishes = Wishes { stdout: Some(writer.as_fd()), held: &held, ..Wishes::default() };
    let shell = agent.shell_with(Some(id), script, wishes).await;
    let marker = file_of(b"marker");
    agent.client.hold(id, &borrowed(&[&marker])).await.unwrap();
    drop((agent, reader, writer, marker, shell));

    until("the shell has ended", || pod.children().is_empty()).await;
    let agent = pod.connect().await;
    let listed = agent.client.list().await.unwrap();
    assert_eq!(listed[0].exit.unwrap().status, ExitStatus::Code(5));
    assert_eq!(listed[0].held, 2);
    let taken = agent.client.take(id).await.unwrap();
    assert!(taken.pidfd.is_none());
    let mut files = taken.held.into_iter().map(File::from);
    let mut text = String::new();
    // Two lines and no end of file to wait for a writer: it is gone.
    files.next().unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "first\nsecond\n");
    let mut marker = String::new();
    let mut file = files.next().unwrap();
    std::io::Seek::rewind(&mut file).unwrap();
    file.read_to_string(&mut marker).unwrap();
    assert_eq!(marker, "marker");
}

#[tokio::test]
async fn what_is_held_can_be_closed_alone() {
    let pod = Pod::plain().await;
    let agent = pod.connect().await;
    let (mut reader, writer) = std::io::pipe().unwrap();
    let (first, last) = (file_of(b"first"), file_of(b"last"));
    let held = [first.as_fd(), writer.as_fd(), last.as_fd()];
    let id = ContainerId::random();
    let _shell = agent.shell_with(Some(id), WAIT_THEN_7, Wishes { held: &held, ..Wishes::default() }).await;
    drop(writer);
    agent.client.unhold(id, 1).await.unwrap();
    assert_eq!(reader.read(&mut [0]).unwrap(), 0, "the last writing end is closed");
    let taken = agent.client.take(id).await.unwrap();
    let texts = taken.held.into_iter().map(|held| {
        let (mut file, mut text) = (File::from(held), String::new());
        std::io::Seek::rewind(&mut file).unwrap();
        file.read_to_string(&mut text).unwrap();
        text
    });
    assert_eq!(texts.collect::<Vec<_>>(), ["first", "last"]);
    assert_eq!(refused(agent.client.unhold(id, 2).await), (Step::Held, Errno::INVAL));
    agent.client.unhold(id, 1).await.unwrap();
    agent.client.unhold(id, 0).await.unwrap();
    assert_eq!(agent.client.list().await.unwrap()[0].held, 0);
    let stranger = ContainerId::random();
    assert_eq!(refused(agent.client.unhold(stranger, 0).await), (Step::Container, Errno::NOENT));
}

#[tokio::test]
async fn a_living_container_is_taken_with_its_pidfd() {
    let pod = Pod::plain().await;
    let mut agent = pod.connect().await;
    let id = ContainerId::random();
    let _shell = agent.shell(Some(id), WAIT_THEN_7).await;
    let taken = agent.client.take(id).await.unwrap();
    pidfd_send_signal(taken.pidfd.unwrap(), Signal::TERM).unwrap();
    assert_eq!(agent.exited().await.exit.status, ExitStatus::Signal(15));
}

#[tokio::test]
async fn an_adopted_child_can_become_a_container() {
    let pod = Pod::plain().await;
    let mut agent = pod.connect().await;
    // The shell's child is orphaned and so becomes pause's, as one born by CLONE_PARENT is.
    let mut shell = agent.shell(None, "(read x <&3; exit 9) & echo $!").await;
    let pid: u32 = shell.line().parse().unwrap();
    assert_eq!(agent.exited().await.pid, shell.pid());
    let id = ContainerId::random();
    let (held, _writer) = std::io::pipe().unwrap();
    let held = File::from(OwnedFd::from(held));
    agent.client.register(id, pid, &borrowed(&[&held])).await.unwrap();
    assert_eq!(
        refused(agent.client.register(ContainerId::random(), pid, &[]).await),
        (Step::Child, Errno::BUSY)
    );
    assert_eq!(refused(agent.client.register(id, pid, &[]).await), (Step::Id, Errno::EXIST));
    assert_eq!(agent.client.list().await.unwrap()[0].held, 1);
    drop(shell);
    let exited = agent.exited().await;
    assert_eq!((exited.container, exited.exit.status), (Some(id), ExitStatus::Code(9)));
    assert_eq!(pod.ledger().exits[0].container, id);
}

#[tokio::test]
async fn only_children_can_be_registered() {
    let pod = Pod::plain().await;
    let agent = pod.connect().await;
    for pid in [1, std::process::id(), 0, u32::MAX] {
        let (step, _) = refused(agent.client.register(ContainerId::random(), pid, &[]).await);
        assert_eq!(step, Step::Child, "{pid}");
    }
    let id = ContainerId::random();
    let _shell = agent.shell(Some(id), WAIT_THEN_7).await;
    let (program, null) = (File::open("/bin/true").unwrap(), File::open("/dev/null").unwrap());
    let again = agent.client.spawn(&spawn_of(Some(id), &program, &null)).await;
    assert_eq!(refused(again), (Step::Id, Errno::EXIST));
}

#[tokio::test]
async fn a_full_table_is_an_error_and_its_list_is_whole() {
    let pod = Pod::plain().await;
    let mut agent = pod.connect().await;
    let (program, null) = (File::open("/bin/cat").unwrap(), File::open("/dev/null").unwrap());
    let (input, writer) = std::io::pipe().unwrap();
    let input = File::from(OwnedFd::from(input));
    let ids: Vec<_> = (0..256).map(|_| ContainerId::random()).collect();
    for id in &ids {
        let mut child = spawn_of(Some(*id), &program, &null);
        child.stdio[0] = input.as_fd();
        agent.client.spawn(&child).await.unwrap();
    }
    let more = agent.client.spawn(&spawn_of(None, &program, &null)).await;
    assert_eq!(refused(more), (Step::Capacity, Errno::NOSPC));
    let listed = agent.client.list().await.unwrap();
    assert_eq!(listed.iter().map(|listed| listed.container).collect::<Vec<_>>(), ids);
    drop((writer, input));
    for _ in &ids {
        agent.exited().await;
    }
    assert_eq!(pod.ledger().exits.len(), 256);
    agent.client.release(ids[100]).await.unwrap();
    agent.client.spawn(&spawn_of(None, &program, &null)).await.unwrap();
}

#[tokio::test]
async fn a_thousand_children_leave_nothing() {
    let pod = Pod::plain().await;
    let mut agent = pod.connect().await;
    let before = pod.descriptors();
    let (program, null) = (File::open("/bin/true").unwrap(), File::open("/dev/null").unwrap());
    for n in 0..1000 {
        let id = (n % 4 == 0).then(ContainerId::random);
        agent.client.spawn(&spawn_of(id, &program, &null)).await.unwrap();
        assert_eq!(agent.exited().await.container, id);
        if let Some(id) = id {
            agent.client.release(id).await.unwrap();
        }
    }
    assert_eq!(pod.descriptors(), before);
    assert!(pod.children().is_empty());
    assert_eq!(pod.ledger().exits.len(), 250);
}

#[tokio::test]
async fn an_exit_the_ledger_has_no_room_for_is_still_listed() {
    let directory = tempfile::tempdir().unwrap();
    let full = rustix::fs::makedev(1, 7);
    let kind = rustix::fs::FileType::CharacterDevice;
    let path = directory.path().join("exits");
    rustix::fs::mknodat(rustix::fs::CWD, &path, kind, rustix::fs::Mode::RWXU, full).unwrap();
    let pod = Pod::within(directory, |_| {}).await.unwrap();
    let mut agent = pod.connect().await;
    agent.shell(Some(ContainerId::random()), "exit 4").await;
    assert_eq!(agent.exited().await.exit.status, ExitStatus::Code(4));
    let listed = agent.client.list().await.unwrap();
    assert!(listed[0].unrecorded);
    assert_eq!(listed[0].exit.map(|exit: Exit| exit.status), Some(ExitStatus::Code(4)));
}

#[tokio::test]
async fn many_callers_use_one_connection() {
    let pod = Pod::plain().await;
    let Agent { client, mut events } = pod.connect().await;
    let client = std::sync::Arc::new(client);
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let client = std::sync::Arc::clone(&client);
        tasks.spawn(async move {
            let (program, null) = (File::open("/bin/true").unwrap(), File::open("/dev/null").unwrap());
            let spawned = client.spawn(&spawn_of(None, &program, &null)).await.unwrap();
            spawned.pid.as_raw_nonzero().get() as u32
        });
    }
    let mut spawned = tasks.join_all().await;
    let mut ended = Vec::new();
    while ended.len() < 50 {
        match events.recv().await.unwrap() {
            Event::Exited(exited) => ended.push(exited.pid),
            other => panic!("{other:?}"),
        }
    }
    spawned.sort_unstable();
    ended.sort_unstable();
    assert_eq!(spawned, ended);
}

#[tokio::test]
async fn a_control_socket_reaches_the_child() {
    let pod = Pod::plain().await;
    let agent = pod.connect().await;
    let mut shell = agent.shell(None, "read x <&3; echo got $x").await;
    shell.control.write_all(b"this\n").unwrap();
    assert_eq!(shell.read(), "got this\n");
}

pub(super) fn spawn_of<'a>(container: Option<ContainerId>, program: &'a File, null: &'a File) -> Spawn<'a> {
    Spawn {
        container,
        new_pid: false,
        new_mount: false,
        program: program.as_fd(),
        stdio: [null.as_fd(); 3],
        control: null.as_fd(),
        cgroup: None,
        held: &[],
    }
}
