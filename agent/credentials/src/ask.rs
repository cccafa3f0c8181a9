//! Programs that hand out credentials.

use std::env;
use std::ffi::{OsStr, OsString};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use coracle_program::{Answer, Program};

/// How long one has to answer; the kubelet's time for a credential provider.
const PATIENCE: Duration = Duration::from_secs(60);
/// The longest answer that is read, in bytes.
const MOST_STDOUT: usize = 1 << 20;

/// Executes one and hands its answer back. What it says may be a secret: neither here nor in a message any of it is shown.
pub(crate) fn ask(
    path: &Path,
    arguments: &[OsString],
    variables: &[(&OsStr, &OsStr)],
    question: &str,
) -> Result<Answer, String> {
    let home = home();
    // First, so that others replace it.
    let mut all: Vec<(&OsStr, &OsStr)> = vec![("HOME".as_ref(), home.as_os_str())];
    all.extend(variables);
    let program = Program {
        name: None,
        inherits: true,
        path,
        arguments,
        without: &[],
        variables: &all,
        stdin_name: "coracle-credentials",
        stdin: question.as_bytes(),
        most_stdout: MOST_STDOUT,
        deadline: Some(Instant::now() + PATIENCE),
    };
    program.execute().map_err(|error| error.to_string())
}

/// How a program ended that gave no answer.
pub(crate) fn failed(answer: &Answer) -> String {
    let how = match (answer.status.code(), answer.status.signal()) {
        (Some(code), _) => format!("ended with exit code {code}"),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => answer.status.to_string(),
    };
    format!("{how}; what it says may be a secret and is not shown, so run it by hand to see why")
}

/// `HOME`; systemd sets none for a service, whose home is root's.
pub(crate) fn home() -> PathBuf {
    env::var_os("HOME").filter(|path| !path.is_empty()).map_or_else(|| PathBuf::from("/root"), PathBuf::from)
}
