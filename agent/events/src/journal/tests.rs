use std::io::Seek;

use coracle_model::{Event, EventType, ObjectReference};
use jiff::Timestamp;
use proptest::prelude::*;

use super::*;

fn event(number: u64, message: &str) -> Kept {
    let at = Timestamp::from_millisecond(1_700_000_000_000 + i64::try_from(number).unwrap()).unwrap();
    let event = Event {
        name: format!("web.{number:x}"),
        involved_object: ObjectReference {
            kind: "Pod".to_owned(),
            namespace: (!number.is_multiple_of(3)).then(|| "default".to_owned()),
            name: "web".to_owned(),
            uid: "1".to_owned(),
            field_path: number.is_multiple_of(2).then(|| "spec.containers{web}".to_owned()),
        },
        kind: EventType::Warning,
        reason: "Failed".to_owned(),
        message: message.to_owned(),
        component: "coracle".to_owned(),
        count: 1,
        first_timestamp: at,
        last_timestamp: at,
        version: number,
    };
    Kept { event, combined: number.is_multiple_of(5) }
}

fn lines(events: &[Kept]) -> Vec<u8> {
    let mut bytes = Vec::new();
    events.iter().for_each(|event| push_line(&mut bytes, event));
    bytes
}

fn opened(directory: &Path) -> (Journal, Vec<Kept>) {
    let (journal, kept) = Journal::open(directory);
    (journal, kept.unwrap())
}

fn never() -> Vec<Kept> {
    panic!("nothing is to be written anew")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn of_any_prefix_every_whole_line_is_read_and_what_follows_is_kept(
        messages in prop::collection::vec(".{0,40}", 1..12),
        place in any::<prop::sample::Index>(),
    ) {
        let events: Vec<Kept> = messages.iter().zip(0..).map(|(message, number)| event(number, message)).collect();
        let whole = lines(&events);
        let prefix = &whole[..place.index(whole.len() + 1)];
        let complete = prefix.iter().filter(|byte| **byte == b'\n').count();

        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join(FILE), prefix).unwrap();
        let (mut journal, kept) = opened(directory.path());
        prop_assert_eq!(&kept, &events[..complete]);
        // What is written after a cut line does not become part of it.
        let mut all = kept;
        all.push(event(100, "after"));
        journal.write(&all[complete..], || all.clone()).unwrap();
        prop_assert_eq!(opened(directory.path()).1, all);
    }

    #[test]
    fn a_damaged_line_takes_no_other_with_it(
        number in 0..8usize,
        place in any::<prop::sample::Index>(),
        bytes in prop::collection::vec(any::<u8>(), 1..20),
    ) {
        let events: Vec<Kept> = (0..8).map(|number| event(number, "one")).collect();
        let before = lines(&events[..number]);
        let mut line = lines(&events[number..=number]);
        line.pop();
        let at = place.index(line.len());
        line.splice(at..(at + bytes.len()).min(line.len()), bytes);
        let after = lines(&events[number + 1..]);
        let held = Held::parse(&[before, line, vec![b'\n'], after].concat());
        let others = |kept: &&Kept| kept.event.version != number as u64;
        let read: Vec<&Kept> = held.events.iter().filter(others).filter(|kept| events.contains(kept)).collect();
        prop_assert_eq!(read.len(), 7);
    }
}

#[test]
fn it_is_made_with_its_directory_and_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("new/events");
    let (mut journal, kept) = opened(&directory);
    assert_eq!(kept, []);
    assert!(!directory.exists(), "nothing is made before there is something to keep");
    journal.write(&[event(1, "one")], || vec![event(1, "one")]).unwrap();
    journal.write(&[event(2, "two")], never).unwrap();
    journal.sync().unwrap();
    assert_eq!(opened(&directory).1, [event(1, "one"), event(2, "two")]);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&directory), mode(&directory.join(FILE))), (0o700, 0o600));
    assert_eq!(fs::read_dir(&directory).unwrap().count(), 1);
}

#[test]
fn the_file_does_not_grow_without_end() {
    let directory = tempfile::tempdir().unwrap();
    let (mut journal, _) = opened(directory.path());
    for number in 0..5 * MAX_LINES as u64 {
        let one = [event(number, "one")];
        journal.write(&one, || one.to_vec()).unwrap();
        assert!(journal.lines <= MAX_LINES);
    }
    let text = fs::read_to_string(directory.path().join(FILE)).unwrap();
    assert_eq!(text.lines().count(), journal.lines);
    let (journal, _) = opened(directory.path());
    assert_eq!(journal.lines, text.lines().count(), "also what another agent wrote counts");
}

#[test]
fn after_a_failure_all_is_written_anew() {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("events");
    // A file where the directory belongs: nothing can be written beneath it.
    fs::write(&directory, "").unwrap();
    let (mut journal, kept) = Journal::open(&directory);
    assert!(kept.unwrap_err().to_string().starts_with("cannot read "));
    let (one, two) = (event(1, "one"), event(2, "two"));
    let error = journal.write(std::slice::from_ref(&one), || vec![one.clone()]).unwrap_err().to_string();
    assert!(error.starts_with("cannot write ") && error.contains("events.jsonl"), "{error}");
    journal.sync().expect("nothing is there to be flushed");
    fs::remove_file(&directory).unwrap();
    journal.write(std::slice::from_ref(&two), || vec![one.clone(), two.clone()]).unwrap();
    assert_eq!(opened(&directory).1, [one.clone(), two.clone()]);

    // A file that takes nothing any more: a line may have been written in part.
    let full = File::options().append(true).open("/dev/full").unwrap();
    let good = journal.file.replace(full).unwrap();
    let three = event(3, "three");
    let error = journal.write(std::slice::from_ref(&three), never).unwrap_err().to_string();
    assert!(error.starts_with("cannot append to ") && error.contains("No space left"), "{error}");
    drop(good);
    let mut torn = File::options().write(true).open(directory.join(FILE)).unwrap();
    torn.seek(io::SeekFrom::End(0)).unwrap();
    torn.write_all(b"{\"name\": \"we").unwrap();
    let all = vec![one, two, three.clone()];
    journal.write(&[three], || all.clone()).unwrap();
    assert_eq!(opened(&directory).1, all);
}

#[test]
fn what_a_killed_agent_left_beside_it_is_no_obstacle() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join(".events.jsonl.new"), "{\"half").unwrap();
    let (mut journal, kept) = opened(directory.path());
    assert_eq!(kept, []);
    journal.write(&[event(1, "one")], || vec![event(1, "one")]).unwrap();
    assert_eq!(opened(directory.path()).1, [event(1, "one")]);
    assert!(!directory.path().join(".events.jsonl.new").exists());
}
