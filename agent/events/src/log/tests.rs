use std::fs;
use std::time::Duration;

use coracle_model::{EventType, ObjectReference};
use tokio::time::{Instant, timeout};

use super::*;

fn told(message: &str) -> Occurrence {
    Occurrence {
        object: ObjectReference {
            kind: "Node".to_owned(),
            namespace: None,
            name: "node".to_owned(),
            uid: "node".to_owned(),
            field_path: None,
        },
        kind: EventType::Normal,
        reason: "Starting".to_owned(),
        message: message.to_owned(),
        component: "coracle".to_owned(),
    }
}

fn messages(log: &EventLog) -> Vec<String> {
    log.events().into_iter().map(|event| format!("{} x{}", event.message, event.count)).collect()
}

/// What the journal says, read as the next agent would.
fn on_disk(directory: &Path) -> Vec<String> {
    let (_, kept) = Journal::open(directory);
    let events = Correlator::restore(kept.unwrap_or_default(), Timestamp::now());
    events.events(Timestamp::now()).map(|event| format!("{} x{}", event.message, event.count)).collect()
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn events_are_there_at_once_and_soon_on_disk() {
    let directory = tempfile::tempdir().unwrap();
    let log = EventLog::open(directory.path());
    let mut changes = log.changes();
    log.record(told("one"));
    log.record(told("one"));
    assert_eq!(messages(&log), ["one x2"]);
    assert!(changes.has_changed().unwrap());
    changes.mark_unchanged();
    // Nobody closes the log: the agent was killed.
    until("the events to be on disk", || on_disk(directory.path()) == ["one x2"]).await;
    log.record(told("late"));
    until("one more to be on disk", || on_disk(directory.path()).len() == 2).await;
    let text = fs::read_to_string(directory.path().join("events.jsonl")).unwrap();
    assert_eq!(text.lines().count(), 2, "nothing is written twice: {text}");

    let next = EventLog::open(directory.path());
    assert_eq!(messages(&next), ["one x2", "late x1"]);
    next.record(told("one"));
    next.record(told("two"));
    next.close().await;
    assert_eq!(
        on_disk(directory.path()),
        ["late x1", "one x3", "two x1"],
        "what was told last is not lost by an ending"
    );
}

#[tokio::test]
async fn a_disk_that_fails_costs_nothing_else_and_is_caught_up_with() {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("events");
    fs::write(&directory, "not a directory").unwrap();
    let log = EventLog::open(&directory);
    log.record(told("one"));
    assert_eq!(messages(&log), ["one x1"]);
    // It is tried, and fails, for every one of these.
    for number in 0..3 {
        log.record(told(&number.to_string()));
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    fs::remove_file(&directory).unwrap();
    log.record(told("two"));
    until("the events to be on disk", || on_disk(&directory).len() == 5).await;
    assert_eq!(on_disk(&directory), messages(&log));
    fs::remove_dir_all(&directory).unwrap();
    fs::write(&directory, "again").unwrap();
    timeout(Duration::from_secs(30), log.close()).await.expect("closing waits for no disk that fails");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_done_while_nothing_happens() {
    let directory = tempfile::tempdir().unwrap();
    let log = EventLog::open(directory.path());
    log.record(told("one"));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(on_disk(directory.path()), ["one x1"]);
    let before = tokio::runtime::Handle::current().metrics().num_alive_tasks();
    fs::remove_dir_all(directory.path()).unwrap();
    tokio::time::sleep(Duration::from_secs(100_000)).await;
    assert!(!directory.path().exists());
    assert_eq!(tokio::runtime::Handle::current().metrics().num_alive_tasks(), before);
}

#[tokio::test]
async fn what_is_kept_in_memory_alone_closes_at_once() {
    let log = EventLog::in_memory();
    log.record(told("one"));
    log.close().await;
    assert_eq!(messages(&log), ["one x1"]);
}
