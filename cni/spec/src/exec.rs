//! The exec protocol of the specification's section 2, from the caller's side.

use std::ffi::{OsStr, OsString};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use coracle_program::{Answer, Program, ProgramError, excerpt};
use serde_json::{Value, json};

use crate::environment::{VARIABLES, join_path, variables};
use crate::names::check_kind;
use crate::{Call, CniError, GcCall, StatusCall, code};

/// The longest answer that is read, in bytes. Results are some kilobytes.
const MOST_STDOUT: usize = 4 << 20;

/// How the name of a program's standard input begins; the container id follows.
pub(crate) const STDIN: &str = "cni-stdin:";

/// Executes the program of this type for ADD, DEL or CHECK.
pub(crate) fn execute_call(kind: &str, command: &'static str, call: &Call) -> Result<Vec<u8>, CniError> {
    execute(&Execution {
        kind,
        command,
        path: &call.path,
        variables: variables(call),
        stdin: call.config.to_json(),
        deadline: call.deadline,
    })
}

/// Executes the program of this type for GC.
pub(crate) fn execute_gc(kind: &str, call: &GcCall) -> Result<Vec<u8>, CniError> {
    let valid: Value =
        call.valid.iter().map(|(id, ifname)| json!({"containerID": id, "ifname": ifname})).collect();
    let mut stdin = call.config.to_json();
    if let Value::Object(fields) = &mut stdin {
        // The second name is that of the first text of 1.1.0; libcni says both.
        fields.insert("cni.dev/attachments".to_owned(), valid.clone());
        fields.insert("cni.dev/valid-attachments".to_owned(), valid);
    }
    let (path, deadline) = (&call.path, call.deadline);
    execute(&Execution { kind, command: "GC", path, variables: Vec::new(), stdin, deadline })
}

/// Executes the program of this type for STATUS.
pub(crate) fn execute_status(kind: &str, call: &StatusCall) -> Result<Vec<u8>, CniError> {
    let (path, stdin, deadline) = (&call.path, call.config.to_json(), call.deadline);
    execute(&Execution { kind, command: "STATUS", path, variables: Vec::new(), stdin, deadline })
}

/// What is executed.
struct Execution<'a> {
    kind: &'a str,
    command: &'static str,
    path: &'a [PathBuf],
    variables: Vec<(&'static str, OsString)>,
    stdin: Value,
    deadline: Option<Instant>,
}

/// Executes it and returns standard output, if it succeeds.
fn execute(execution: &Execution<'_>) -> Result<Vec<u8>, CniError> {
    let Execution { kind, command, .. } = *execution;
    let path = find(kind, execution.path)?;
    let started = Instant::now();
    let cni_path = join_path(execution.path)?;
    let mut variables: Vec<(&OsStr, &OsStr)> =
        vec![("CNI_COMMAND".as_ref(), command.as_ref()), ("CNI_PATH".as_ref(), &cni_path)];
    variables.extend(execution.variables.iter().map(|(name, value)| (name.as_ref(), value.as_ref())));
    let id = execution.variables.iter().find(|(name, _)| *name == "CNI_CONTAINERID");
    let id = id.map(|(_, id)| id.to_string_lossy()).unwrap_or_default();
    let stdin = execution.stdin.to_string();
    let program = Program {
        name: None,
        inherits: true,
        path: &path,
        arguments: &[],
        without: &VARIABLES,
        variables: &variables,
        // It says whose the program is.
        stdin_name: &format!("{STDIN}{id}"),
        stdin: stdin.as_bytes(),
        most_stdout: MOST_STDOUT,
        deadline: execution.deadline,
    };
    let executed = program.execute();
    tracing::debug!(
        plugin = kind,
        command,
        program = %path.display(),
        status = ?executed.as_ref().map(|answer| answer.status).ok(),
        took = ?started.elapsed(),
        stderr = %String::from_utf8_lossy(match &executed {
            Ok(answer) => &answer.stderr,
            Err(error) => error.stderr(),
        }),
        "executed a plugin"
    );
    match executed {
        Ok(answer) if answer.status.success() => Ok(answer.stdout),
        Ok(answer) => Err(failure(execution, &path, &answer)),
        Err(error) => Err(given_up(execution, &path, &error)),
    }
}

/// The program of this type: the first that can be executed.
pub(crate) fn find(kind: &str, path: &[PathBuf]) -> Result<PathBuf, CniError> {
    check_kind(kind)?;
    coracle_program::find(kind, path).ok_or_else(|| {
        let directories: Vec<_> = path.iter().map(|directory| directory.display().to_string()).collect();
        let searched =
            if directories.is_empty() { "no directory".to_owned() } else { directories.join(", ") };
        let msg = format!(
            "plugin {kind}: there is no such program (searched: {searched}). Install the plugin there"
        );
        CniError::new(code::PLUGIN_FAILED, msg)
    })
}

/// Why there is no answer.
fn given_up(execution: &Execution<'_>, program: &Path, error: &ProgramError) -> CniError {
    let Execution { kind, command, .. } = execution;
    CniError {
        code: code::PLUGIN_FAILED,
        msg: format!("plugin {kind}: {command}: {} {error}", program.display()),
        details: excerpt(error.stderr()),
    }
}

/// What a program that failed has said of it: the specification's section 5, "Error", or else whatever there is.
fn failure(execution: &Execution<'_>, program: &Path, answer: &Answer) -> CniError {
    let Execution { kind, command, .. } = execution;
    if let Some(error) = error_of(&answer.stdout) {
        return error;
    }
    let how = match (answer.status.code(), answer.status.signal()) {
        (Some(code), _) => format!("ended with exit code {code}"),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => answer.status.to_string(),
    };
    let details = [&answer.stderr, &answer.stdout].into_iter().map(|bytes| excerpt(bytes));
    CniError {
        code: code::PLUGIN_FAILED,
        msg: format!(
            "plugin {kind}: {command}: {} {how}, and no error in the form of CNI",
            program.display()
        ),
        details: details.into_iter().find(|text| !text.is_empty()).unwrap_or_default(),
    }
}

/// The error a plugin has printed. A program in Go leaves out what is empty or zero.
fn error_of(stdout: &[u8]) -> Option<CniError> {
    let json: Value = serde_json::from_slice(stdout).ok()?;
    let text = |name| json.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let code = json.get("code").and_then(Value::as_u64).and_then(|code| u32::try_from(code).ok());
    let (msg, details) = (text("msg"), text("details"));
    if msg.is_empty() && details.is_empty() {
        return None;
    }
    Some(CniError { code: code.unwrap_or_default(), msg, details })
}
