use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + second).unwrap()
}

/// An event of a pod's container; `about` is `pod/container reason`.
fn told(about: &str, message: &str) -> Occurrence {
    let (pod, rest) = about.split_once('/').unwrap();
    let (container, reason) = rest.split_once(' ').unwrap();
    Occurrence {
        object: ObjectReference {
            kind: "Pod".to_owned(),
            namespace: Some("default".to_owned()),
            name: pod.to_owned(),
            uid: format!("uid of {pod}"),
            field_path: Some(format!("spec.containers{{{container}}}")),
        },
        kind: EventType::Normal,
        reason: reason.to_owned(),
        message: message.to_owned(),
        component: "coracle".to_owned(),
    }
}

/// `message xcount first..last` of what is shown.
fn shown(events: &Correlator, now: Timestamp) -> Vec<String> {
    let second = |time: Timestamp| time.as_second() - 1_000_000;
    let line = |event: &Arc<Event>| {
        let (first, last) = (second(event.first_timestamp), second(event.last_timestamp));
        format!("{} x{} {first}..{last}", event.message, event.count)
    };
    events.events(now).map(line).collect()
}

#[test]
fn what_is_told_again_is_counted() {
    for (what, all, expected) in [
        (
            "the same",
            vec![(0, "a/c Started", "one"), (5, "a/c Started", "one"), (9, "a/c Started", "one")],
            vec!["one x3 0..9"],
        ),
        (
            "another message, then the first: what happened last stands at the end",
            vec![(0, "a/c Started", "one"), (1, "a/c Started", "two"), (2, "a/c Started", "one")],
            vec!["two x1 1..1", "one x2 0..2"],
        ),
        (
            "another container",
            vec![(0, "a/c Started", "one"), (1, "a/d Started", "one")],
            vec!["one x1 0..0", "one x1 1..1"],
        ),
        (
            "another pod",
            vec![(0, "a/c Started", "one"), (1, "b/c Started", "one")],
            vec!["one x1 0..0", "one x1 1..1"],
        ),
        (
            "another reason",
            vec![(0, "a/c Started", "one"), (1, "a/c Killing", "one")],
            vec!["one x1 0..0", "one x1 1..1"],
        ),
        (
            "an hour and a bit later it is another event",
            vec![(0, "a/c Started", "one"), (3601, "a/c Started", "one")],
            vec!["one x1 3601..3601"],
        ),
        (
            "an hour later it is the same",
            vec![(0, "a/c Started", "one"), (3600, "a/c Started", "one")],
            vec!["one x2 0..3600"],
        ),
    ] {
        let mut events = Correlator::default();
        let mut now = at(0);
        for (second, about, message) in all {
            now = at(second);
            events.tell(told(about, message), now).expect(what);
        }
        assert_eq!(shown(&events, now), expected, "{what}");
    }
}

#[test]
fn an_event_keeps_its_name_and_gets_a_greater_version() {
    let mut events = Correlator::default();
    let first = events.tell(told("a/c Started", "one"), at(0)).unwrap();
    let other = events.tell(told("a/d Started", "one"), at(0)).unwrap();
    let again = events.tell(told("a/c Started", "one"), at(1)).unwrap();
    assert_eq!(first.name, format!("a.{:x}", at(0).as_nanosecond()));
    assert_eq!(again.name, first.name);
    assert_ne!(other.name, first.name, "also within one nanosecond");
    assert!(first.version < other.version && other.version < again.version);
}

#[test]
fn from_the_tenth_message_in_ten_minutes_on_they_are_combined() {
    let mut events = Correlator::default();
    for number in 0..14 {
        events.tell(told("a/c Failed", &format!("number {number}")), at(number)).unwrap();
    }
    // Of another container: similar all the same. Of another reason: not.
    events.tell(told("a/d Failed", "number 14"), at(14)).unwrap();
    events.tell(told("a/c Other", "number 15"), at(15)).unwrap();
    let mut expected: Vec<_> =
        (0..9).map(|number| format!("number {number} x1 {number}..{number}")).collect();
    expected.push("(combined from similar events): number 14 x6 9..14".to_owned());
    expected.push("number 15 x1 15..15".to_owned());
    assert_eq!(shown(&events, at(15)), expected);

    events.tell(told("a/c Failed", "number 3"), at(16)).unwrap();
    assert_eq!(shown(&events, at(16)).last().unwrap(), "number 3 x2 3..16", "one that is known is counted");
    events.tell(told("a/c Failed", "number 17"), at(16 + 600)).unwrap();
    assert!(shown(&events, at(616)).last().unwrap().starts_with("(combined"), "ten minutes are not over");
    events.tell(told("a/c Failed", "number 18"), at(616 + 601)).unwrap();
    assert_eq!(shown(&events, at(1217)).last().unwrap(), "number 18 x1 1217..1217", "it begins anew");
}

#[test]
fn too_much_of_one_object_is_dropped_and_counted_once_it_is_shown_again() {
    let mut events = Correlator::default();
    for number in 0..30 {
        let change = events.tell(told("a/c BackOff", "again"), at(number));
        assert_eq!(change.is_some(), number < 25, "{number}");
    }
    // Something else of the same pod is dropped as well, something of another pod is not.
    assert_eq!(events.tell(told("a/c Killing", "new"), at(30)), None);
    assert!(events.tell(told("b/c Killing", "new"), at(30)).is_some());
    assert_eq!(shown(&events, at(30)), ["again x25 0..24", "new x1 30..30"]);
    events.tell(told("a/c BackOff", "again"), at(330)).expect("one in five minutes");
    assert_eq!(shown(&events, at(330)).last().unwrap(), "again x31 0..330");
    events.tell(told("a/c Killing", "new"), at(630)).expect("one more");
    assert_eq!(shown(&events, at(630)).last().unwrap(), "new x2 30..630", "with those nobody saw");
}

#[test]
fn an_event_is_gone_an_hour_after_it_happened_last() {
    let mut events = Correlator::default();
    events.tell(told("a/c Started", "one"), at(0)).unwrap();
    events.tell(told("a/c Started", "two"), at(10)).unwrap();
    assert_eq!(shown(&events, at(3600)).len(), 2);
    assert_eq!(shown(&events, at(3601)), ["two x1 10..10"]);
    assert_eq!(shown(&events, at(3611)), Vec::<String>::new());
    events.tell(told("b/c Started", "three"), at(4000)).unwrap();
    assert_eq!(events.entries.len(), 1, "what is over takes no room once more happens");
}

#[test]
fn there_are_at_most_so_many_and_what_happened_longest_ago_goes() {
    let mut events = Correlator::default();
    for number in 0..MAX_EVENTS + 10 {
        events.tell(told(&format!("p{number}/c Started"), "one"), at(0)).unwrap();
        events.tell(told("kept/c Started", "one"), at(0));
    }
    assert_eq!(events.entries.len(), MAX_EVENTS);
    let names: Vec<_> = events.events(at(0)).map(|event| event.involved_object.name.as_str()).collect();
    assert!(names.contains(&"kept") && names.contains(&"p1009") && !names.contains(&"p0"));
}

#[test]
fn a_long_message_is_cut_between_characters() {
    for (message, length) in [
        ("x".repeat(MAX_MESSAGE), MAX_MESSAGE),
        ("x".repeat(MAX_MESSAGE + 1), MAX_MESSAGE),
        ("x".repeat(10 << 20), MAX_MESSAGE),
        // Four bytes each: the cut falls between two of them.
        ("\u{1f600}".repeat(300), 1020 + 3),
    ] {
        let event = Correlator::default().tell(told("a/c Failed", &message), at(0)).unwrap();
        assert_eq!(event.message.len(), length);
        assert_eq!(event.message.ends_with("..."), message.len() > MAX_MESSAGE);
    }
    let mut events = Correlator::default();
    let all = (0..10).filter_map(|number| {
        events.tell(told("a/c Failed", &format!("{number}{}", "x".repeat(MAX_MESSAGE))), at(0))
    });
    let last = all.last().unwrap();
    assert!(last.message.starts_with(COMBINED) && last.message.len() == MAX_MESSAGE, "{}", last.message);
}

#[test]
fn what_was_kept_goes_on_as_before() {
    let mut before = Correlator::default();
    let mut journal = Vec::new();
    for number in 0..12 {
        before.tell(told("a/c Failed", &format!("number {number}")), at(number)).unwrap();
        journal.extend(before.kept(before.version() - 1, at(number)));
    }
    let seen = shown(&before, at(12));
    before.tell(told("b/c Started", "old"), at(-3000)).unwrap();
    journal.extend(before.kept(before.version() - 1, at(-3000)));
    let mut after = Correlator::restore(journal, at(700));
    assert_eq!(shown(&after, at(12)), seen, "without what is over");
    assert_eq!(after.version(), before.version(), "versions go on");

    let known = after.tell(told("a/c Failed", "number 3"), at(100)).unwrap();
    assert_eq!(known.count, 2, "what was told before is counted");
    let combined = after.tell(told("a/c Failed", "number 12"), at(101)).unwrap();
    assert_eq!(
        (combined.count, combined.message.starts_with(COMBINED)),
        (4, true),
        "what was combined still is"
    );
    assert!(known.version > before.version() && combined.version > known.version);
}

#[test]
fn no_more_is_restored_than_there_may_be() {
    let mut one = Correlator::default();
    let mut kept = Vec::new();
    for number in 0..MAX_EVENTS + 5 {
        one.tell(told(&format!("p{number}/c Started"), "one"), at(0)).unwrap();
        kept.extend(one.kept(one.version() - 1, at(0)));
    }
    let restored = Correlator::restore(kept, at(0));
    assert_eq!(restored.entries.len(), MAX_EVENTS);
    assert_eq!(restored.entries[0].event.involved_object.name, "p5", "what happened longest ago goes");
}

#[test]
fn what_a_wrong_clock_dated_far_ahead_does_not_stay() {
    let mut events = Correlator::default();
    events.tell(told("a/c Started", "ahead"), at(1_000_000)).unwrap();
    events.tell(told("a/c Started", "now"), at(0)).unwrap();
    assert_eq!(shown(&events, at(0)), ["now x1 0..0"]);
}
