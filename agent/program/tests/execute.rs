//! Programs that answer, and programs that do not.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use coracle_program::{Answer, Program, ProgramError, find};
use tempfile::TempDir;

/// Far longer than anything takes that is not to be waited for.
const LONG: Duration = Duration::from_secs(60);

fn run(script: &str, patience: Duration) -> Result<Answer, ProgramError> {
    let arguments = ["-c", script, "x", "first"].map(OsString::from);
    let program = Program {
        name: None,
        inherits: true,
        path: Path::new("/bin/sh"),
        arguments: &arguments,
        without: &["HOME"],
        variables: &[("OWN".as_ref(), "own".as_ref())],
        stdin_name: "question",
        stdin: b"what?",
        most_stdout: 1000,
        deadline: Some(Instant::now() + patience),
    };
    program.execute()
}

#[test]
fn a_program_is_asked_and_answers() {
    let script =
        r#"read -r asked; echo "$asked $1 $OWN ${HOME:-none} ${PATH:+path}"; echo beside >&2; exit 3"#;
    let answer = run(script, LONG).unwrap();
    assert_eq!(answer.status.code(), Some(3));
    assert_eq!(String::from_utf8_lossy(&answer.stdout), "what? first own none path\n");
    assert_eq!(answer.stderr, b"beside\n");
}

#[test]
fn one_that_takes_too_long_ends_with_what_it_has_started() {
    let directory = TempDir::new().unwrap();
    let pid = directory.path().join("pid");
    let script = format!("echo why >&2; sleep 1000 & echo $! > {}; wait", pid.display());
    let error = run(&script, Duration::from_millis(500)).err().unwrap();
    assert!(matches!(&error, ProgramError::TookTooLong { stderr, .. } if stderr == b"why\n"), "{error:?}");
    let child = fs::read_to_string(pid).unwrap();
    let gone = || {
        // Whoever adopts it may not have reaped it yet.
        let stat = fs::read_to_string(format!("/proc/{}/stat", child.trim()));
        stat.map_or(true, |stat| stat.contains(") Z "))
    };
    let deadline = Instant::now() + LONG;
    while !gone() {
        assert!(Instant::now() < deadline, "what it has started runs on");
        std::thread::yield_now();
    }
}

#[test]
fn an_answer_without_end_is_not_read_to_the_end() {
    let error = run("yes", LONG).err().unwrap();
    assert!(matches!(error, ProgramError::SaysTooMuch { most: 1000, .. }), "{error:?}");
    let said = run("yes | head -c 1000000 >&2", LONG).unwrap();
    assert!(said.stderr.len() <= 16 << 10 && said.status.success());
}

#[test]
fn what_it_leaves_running_is_not_waited_for() {
    let answer = run("sleep 3 & echo answer", LONG).unwrap();
    assert_eq!(answer.stdout, b"answer\n");
}

#[test]
fn a_program_is_found_by_its_name_alone() {
    let directory = TempDir::new().unwrap();
    let place = |name: &str, mode: u32| {
        let path = directory.path().join(name);
        fs::write(&path, "").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    };
    let (there, _) = (place("there", 0o755), place("data", 0o644));
    let directories = [PathBuf::from("/none"), directory.path().to_owned()];
    assert_eq!(find("there", &directories), Some(there));
    for name in ["data", "none", "", ".", "..", "../bin/sh", "/bin/sh"] {
        assert_eq!(find(name, &directories), None, "{name:?}");
    }
}
