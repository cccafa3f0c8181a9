//! What hostile input costs, and that it never panics.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::process::Command;

use coracle_manifest::{MAX_BYTES, ManifestError, decode, decode_file};
use proptest::prelude::*;
use serde_json::{Value, json};

const TWO: &str = include_str!("good/two-containers.yaml");
/// Pods that use every field between them.
const STABLE: [&str; 3] = [TWO, include_str!("good/lifecycle.yaml"), include_str!("good/configured.yaml")];

#[test]
fn a_file_cut_at_any_byte_is_refused_or_another_manifest() {
    let exported = include_str!("good/exported.yaml");
    let json = decode("test.json", TWO.as_bytes()).unwrap().pods.remove(0).object;
    for text in [TWO, exported, &json] {
        for end in 0..text.len() {
            if let Err(error) = decode("test.yaml", &text.as_bytes()[..end]) {
                assert!(!error.diagnostics().is_empty());
            }
        }
    }
    for end in 1..json.len() {
        assert!(decode("test.json", &json.as_bytes()[..end]).is_err(), "cut at {end}");
    }
}

#[test]
fn a_huge_file_is_refused_without_being_read() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("huge.yaml");
    // Sparse: reading its first megabyte would be quick, reading all of it would show.
    File::create(&path).unwrap().set_len(100 << 20).unwrap();
    let error = decode_file(&path).unwrap_err();
    assert!(matches!(error, ManifestError::TooLarge { limit: MAX_BYTES, .. }), "{error}");
    assert!(error.to_string().contains("huge.yaml: the file is larger than 4194304 bytes"), "{error}");
}

#[test]
fn only_regular_files_are_read() {
    let directory = tempfile::tempdir().unwrap();
    let inside = |name: &str| directory.path().join(name);
    std::fs::write(inside("pod.yaml"), TWO).unwrap();
    std::os::unix::fs::symlink("pod.yaml", inside("link.yaml")).unwrap();
    assert_eq!(decode_file(&inside("link.yaml")).unwrap().pods.len(), 1, "a link is followed");
    assert!(Command::new("mkfifo").arg(inside("pipe.yaml")).status().unwrap().success());
    for path in [inside("pipe.yaml"), directory.path().to_owned(), "/dev/zero".into()] {
        let error = decode_file(&path).unwrap_err();
        assert!(matches!(error, ManifestError::NotRegular { .. }), "{error}");
    }
    std::os::unix::fs::symlink("loop.yaml", inside("loop.yaml")).unwrap();
    let strange = directory.path().join(OsStr::from_bytes(b"\xff.yaml"));
    for path in [inside("loop.yaml"), inside("missing.yaml"), strange] {
        assert!(matches!(decode_file(&path).unwrap_err(), ManifestError::Read { .. }));
    }
}

type Input = (&'static str, fn() -> Vec<u8>);

const SIZE: usize = MAX_BYTES as usize;

fn fill(unit: &str) -> Vec<u8> {
    unit.repeat(SIZE / unit.len()).into_bytes()
}

fn after(head: &str, unit: &str) -> Vec<u8> {
    let mut bytes = head.as_bytes().to_vec();
    bytes.extend(fill(unit));
    bytes.truncate(SIZE);
    bytes
}

fn numbered(head: &str, line: fn(usize) -> String) -> Vec<u8> {
    let mut text = head.to_owned();
    for number in 0.. {
        let line = line(number);
        if text.len() + line.len() > SIZE {
            break;
        }
        text.push_str(&line);
    }
    text.into_bytes()
}

/// Inputs of the largest size allowed, each made to cost as much as it can.
const HOSTILE: &[Input] = &[
    ("opening brackets", || fill("[")),
    ("opening braces", || fill("{")),
    ("json brackets", || after("{\"a\":", "[")),
    ("empty lists", || after("[", "[],")),
    ("numbers in json", || after("{\"a\":[", "1,")),
    ("texts in json", || after("{\"a\":[", "\"\\n\",")),
    ("dashes", || fill("- ")),
    ("dash lines", || fill("-\n")),
    ("question marks", || fill("? ")),
    ("anchors", || after("[", "&a a,")),
    ("aliases", || after("[&a [a,a,a,a,a,a,a,a],", "*a,")),
    ("nested anchors", || fill("&a [")),
    ("tags", || after("[", "!a!b c,")),
    ("one text", || fill("x")),
    ("one quoted text", || after("\"", "x")),
    ("one literal", || after("a: |\n", "  x\n")),
    ("escapes", || after("\"", "\\n")),
    ("comments", || fill("#\n")),
    ("empty documents", || fill("---\n")),
    ("documents", || fill("---\na\n")),
    ("directives", || fill("%a\n")),
    ("spaces", || fill(" ")),
    ("newlines", || fill("\n")),
    ("keys in json", || numbered("{", |number| format!("\"k{number}\":{number},"))),
    ("keys", || numbered("", |number| format!("k{number}: {number}\n"))),
    ("one key", || fill("a: 1\n")),
    ("invalid bytes", || vec![0xff; SIZE]),
    ("containers", || after("apiVersion: v1\nkind: Pod\nspec: {containers: [", "{},")),
    ("unknown fields", || {
        numbered("apiVersion: v1\nkind: Pod\nspec:\n", |number| format!("  f{number}: {:60}\n", 1))
    }),
    ("wrong types", || {
        numbered("apiVersion: v1\nkind: Pod\nspec:\n  containers:\n  - args:\n", |number| {
            format!("    -                     {number}\n")
        })
    }),
    ("config keys", || {
        numbered("apiVersion: v1\nkind: Secret\nmetadata: {name: a}\ndata:\n", |number| {
            format!("  k{number}: eA==\n")
        })
    }),
    ("wrong config values", || {
        numbered("apiVersion: v1\nkind: Secret\nmetadata: {name: a}\ndata:\n", |number| {
            format!("  /{number}: {:20}\n", 1)
        })
    }),
    ("one config value", || {
        after("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\nbinaryData: {a: \"", "eHh4")
    }),
    ("pods", || {
        numbered("", |number| {
            format!(
                "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: p{number}}}\nspec: {{containers: [{{name: a, image: b}}]}}\n"
            )
        })
    }),
];

/// Runs in a process of its own, so that its peak is not another test's.
#[test]
#[ignore = "run by the_memory_a_manifest_costs_is_bounded"]
fn hostile_inputs_in_a_child() {
    for (name, input) in HOSTILE {
        let bytes = input();
        assert!(bytes.len() <= SIZE, "{name} would be refused for its size");
        let started = std::time::Instant::now();
        let result = decode("hostile.yaml", &bytes);
        let elapsed = started.elapsed();
        let faults = result.as_ref().err().map_or(0, |error| error.diagnostics().len());
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let peak = status.lines().find(|line| line.starts_with("VmHWM")).unwrap().to_owned();
        let decoded = result.map_or(0, |decoded| decoded.pods.len());
        println!("{name}: {elapsed:?}, {decoded} pods, {faults} faults, {peak}");
        assert!(faults <= 100, "{name}");
    }
}

#[test]
fn the_memory_a_manifest_costs_is_bounded() {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--nocapture", "bounds::hostile_inputs_in_a_child"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    let peaks = text.lines().filter_map(|line| line.split("VmHWM:").nth(1));
    let peak = peaks.filter_map(|peak| peak.trim().trim_end_matches(" kB").parse::<u64>().ok()).max();
    let peak = peak.expect("the child reports its peak");
    assert!(peak < 128 * 1024, "{peak} kB\n{text}");
}

fn any_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (0i64..100_000).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
        "[a-z/.-]{0,12}".prop_map(Value::from),
        Just(json!([])),
        Just(json!({})),
        Just(json!([null])),
        Just(json!([{}, 1, "a"])),
        Just(json!({"a": {"b": []}, "name": "x"})),
    ]
}

/// Every place of a value, as a JSON pointer.
fn pointers(value: &Value, at: &str, out: &mut Vec<String>) {
    out.push(at.to_owned());
    match value {
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(index, item)| pointers(item, &format!("{at}/{index}"), out));
        }
        Value::Object(fields) => fields.iter().for_each(|(key, field)| {
            pointers(field, &format!("{at}/{}", key.replace('~', "~0").replace('/', "~1")), out);
        }),
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    /// A valid pod with a few values replaced is refused with a place, or accepted and then stable.
    #[test]
    fn a_changed_pod_is_refused_or_stable(
        text in prop::sample::select(&STABLE[..]),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any_value()), 1..4)
    ) {
        let object = decode("test.yaml", text.as_bytes()).unwrap().pods.remove(0).object;
        let mut value: Value = serde_json::from_str(&object).unwrap();
        for (index, replacement) in changes {
            let mut places = Vec::new();
            pointers(&value, "", &mut places);
            *value.pointer_mut(index.get::<String>(&places)).unwrap() = replacement;
        }
        match decode("test.json", value.to_string().as_bytes()) {
            Err(error) => {
                prop_assert!(!error.diagnostics().is_empty());
                prop_assert!(error.diagnostics().iter().all(|diagnostic| diagnostic.line >= 1));
            }
            Ok(decoded) => {
                for first in decoded.pods {
                    let again = decode("test.json", first.object.as_bytes()).unwrap().pods.remove(0);
                    prop_assert_eq!(&again.spec, &first.spec);
                    prop_assert_eq!(&again.uid, &first.uid);
                    prop_assert_eq!(&again.labels, &first.labels);
                }
            }
        }
    }

    #[test]
    fn bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode("test.yaml", &bytes);
    }

    #[test]
    fn yaml_like_text_never_panics(text in r#"([a-z]{1,3}|[-:?,\[\]{}&*!|>'"%@`#~<=\\ \n\t]|: |- |\n  |<<: |\*a|&a ){0,60}"#) {
        let _ = decode("test.yaml", text.as_bytes());
        let _ = decode("test.yaml", format!("{{{text}").as_bytes());
    }
}
