//! Hooks (OCI runtime specification, POSIX-platform hooks): programs executed at points of a container's life.
//!
//! Those in the container's namespaces are init's to execute, those on the host the agent's; both do it by this.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use coracle_program::{Answer, Program, ProgramError, excerpt};
use serde::{Deserialize, Serialize};

/// How long a hook may take that says no timeout. The specification would wait for ever.
pub const LIMIT: Duration = Duration::from_secs(60);

/// The most a hook may say on standard output, in bytes.
const MOST_OUTPUT: usize = 1 << 20;

/// A program to execute.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Hook {
    /// Absolute.
    pub path: PathBuf,
    /// With the program's own name first; empty: the path alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// `NAME=value`: all that it gets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// In seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<u64>,
}

/// The hooks of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Hooks {
    /// Deprecated: at the point of `createRuntime`, before those.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub prestart: Vec<Hook>,
    /// On the host, when the container's namespaces and mounts are made.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub create_runtime: Vec<Hook>,
    /// In the container's namespaces, before its root is entered: the program is the host's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub create_container: Vec<Hook>,
    /// In the container, as its user, before its program.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub start_container: Vec<Hook>,
    /// On the host, when the program was executed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub poststart: Vec<Hook>,
    /// On the host, when nothing of the container runs any more.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub poststop: Vec<Hook>,
}

/// What a hook gets on standard input (OCI runtime specification, state).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct State {
    /// Of the specification.
    pub oci_version: String,
    /// The container's.
    pub id: String,
    /// How far it is.
    pub status: Status,
    /// Its first process, as whoever executes the hook knows it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Where `config.json` is. `root.path` in it is where the root file system is mounted before it is entered.
    pub bundle: PathBuf,
    /// The container's.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// How far a container is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Status {
    /// Its environment is made.
    Creating,
    /// It waits for its start.
    Created,
    /// Its program was executed.
    Running,
    /// It has ended.
    Stopped,
}

/// A hook that failed.
#[derive(Debug, thiserror::Error)]
#[error("{point} hook {}: {why}", path.display())]
pub struct HookError {
    /// At which point, in OCI's word.
    pub point: &'static str,
    /// Its program.
    pub path: PathBuf,
    /// What happened, and what it said.
    pub why: String,
}

/// Executes hooks one after another, to the first that fails. What they say beside, of which nothing depends, is `said`.
///
/// # Errors
/// [`HookError`] when one cannot be executed, takes too long, or ends with anything but 0.
pub fn run_all(
    point: &'static str,
    hooks: &[Hook],
    state: &State,
    mut said: impl FnMut(String),
) -> Result<(), HookError> {
    hooks
        .iter()
        .try_for_each(|hook| hook.run(point, state).map(|words| words.into_iter().for_each(&mut said)))
}

/// How long hooks may take in all.
pub fn limit_of(hooks: &[Hook]) -> Duration {
    hooks.iter().map(Hook::limit).sum()
}

// === impl Hook ===

impl Hook {
    /// How long it may take.
    pub fn limit(&self) -> Duration {
        self.timeout.map_or(LIMIT, Duration::from_secs)
    }

    /// Executes it. At its deadline it is killed, with what it has started. Answers, for people, what it has said on standard
    /// error all the same.
    ///
    /// # Errors
    /// As [`run_all`].
    pub fn run(&self, point: &'static str, state: &State) -> Result<Option<String>, HookError> {
        let failed = |why: String| HookError { point, path: self.path.clone(), why };
        let stdin = serde_json::to_vec(state).map_err(|error| failed(error.to_string()))?;
        let arguments: Vec<OsString> = self.args.iter().skip(1).map(OsString::from).collect();
        let variables: Vec<(&OsStr, &OsStr)> = self
            .env
            .iter()
            .filter_map(|variable| variable.split_once('='))
            .map(|(name, value)| (OsStr::new(name), OsStr::new(value)))
            .collect();
        let program = Program {
            path: &self.path,
            name: self.args.first().map(OsStr::new),
            arguments: &arguments,
            inherits: false,
            without: &[],
            variables: &variables,
            stdin_name: "coracle-hook",
            stdin: &stdin,
            most_stdout: MOST_OUTPUT,
            deadline: Instant::now().checked_add(self.limit()),
        };
        match program.execute() {
            Ok(Answer { status, stderr, .. }) if status.success() => {
                let said = Some(excerpt(&stderr)).filter(|said| !said.is_empty());
                Ok(said.map(|said| format!("{point} hook {}: {said}", self.path.display())))
            }
            Ok(Answer { status, stdout, stderr }) => {
                Err(failed(said(&format!("ended with {status}"), &stdout, &stderr)))
            }
            Err(error) => Err(failed(unanswered(&error))),
        }
    }
}

fn unanswered(error: &ProgramError) -> String {
    said(&error.to_string(), &[], error.stderr())
}

/// What went wrong, and what the program said about it.
fn said(what: &str, stdout: &[u8], stderr: &[u8]) -> String {
    let said = if stderr.iter().all(u8::is_ascii_whitespace) { stdout } else { stderr };
    match excerpt(said).as_str() {
        "" => what.to_owned(),
        said => format!("{what}: {said}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> State {
        State {
            oci_version: "1.2.0".to_owned(),
            id: "c1".to_owned(),
            status: Status::Creating,
            pid: Some(7),
            bundle: "/run/bundle".into(),
            annotations: [("a".to_owned(), "b".to_owned())].into(),
        }
    }

    fn shell(script: &str) -> Hook {
        Hook {
            path: "/bin/sh".into(),
            args: ["hook", "-c", script].map(str::to_owned).into(),
            env: vec!["ONLY=this".to_owned()],
            timeout: None,
        }
    }

    #[test]
    fn the_state_is_on_standard_input_and_the_environment_is_the_hooks_alone() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().display();
        let script = format!("/bin/cat >{out}/state; /usr/bin/env >{out}/env; echo $0 >{out}/name");
        shell(&script).run("createRuntime", &state()).unwrap();
        let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
        assert_eq!(serde_json::from_str::<State>(&read("state")).unwrap(), state());
        assert!(read("state").contains(r#""status":"creating","pid":7"#), "{}", read("state"));
        assert_eq!(read("name"), "hook\n");
        let names: Vec<_> =
            read("env").lines().filter_map(|line| Some(line.split_once('=')?.0.to_owned())).collect();
        // The shell has its own two.
        assert!(
            names.iter().all(|name| ["ONLY", "PWD", "_", "SHLVL", "OLDPWD"].contains(&name.as_str())),
            "{names:?}"
        );
    }

    #[test]
    fn what_a_hook_says_that_succeeds_is_not_lost() {
        let hooks =
            [shell("echo no cache for this >&2"), shell("echo aloud"), shell("echo gone >&2; exit 1")];
        let mut said = Vec::new();
        run_all("createContainer", &hooks, &state(), |words| said.push(words)).unwrap_err();
        assert_eq!(said, ["createContainer hook /bin/sh: no cache for this"]);
    }

    #[test]
    fn what_a_hook_says_is_in_the_error() {
        let error =
            shell("echo no such device >&2; exit 3").run("poststop", &state()).unwrap_err().to_string();
        assert_eq!(error, "poststop hook /bin/sh: ended with exit status: 3: no such device");
        let error = shell("echo aloud; exit 1").run("poststop", &state()).unwrap_err().to_string();
        assert!(error.ends_with(": aloud"), "{error}");
        let missing = Hook { path: "/no/such/hook".into(), ..shell("") };
        assert!(missing.run("prestart", &state()).unwrap_err().to_string().contains("cannot be executed"));
    }

    #[test]
    fn one_that_takes_too_long_ends_with_what_it_has_started() {
        let dir = tempfile::tempdir().unwrap();
        let pid = dir.path().join("pid");
        let script = format!("sleep 1000 & echo $! >{}; wait", pid.display());
        let slow = Hook { timeout: Some(1), ..shell(&script) };
        let error = slow.run("createRuntime", &state()).unwrap_err().to_string();
        assert!(error.contains("has not answered after"), "{error}");
        let pid: i32 = std::fs::read_to_string(&pid).unwrap().trim().parse().unwrap();
        let gone = || {
            std::fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| {
                stat.rsplit(')').next().unwrap_or_default().trim_start().starts_with('Z')
            })
        };
        let deadline = Instant::now() + Duration::from_secs(30);
        while !gone() {
            assert!(Instant::now() < deadline, "what the hook has started outlives it");
            std::thread::yield_now();
        }
    }

    #[test]
    fn limits_add_up() {
        let hooks = [shell(""), Hook { timeout: Some(5), ..shell("") }];
        assert_eq!(limit_of(&hooks), LIMIT + Duration::from_secs(5));
    }
}
