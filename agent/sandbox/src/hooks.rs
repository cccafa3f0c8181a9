//! Hooks of containers: those on the host are executed here, those in a container by its init.
//!
//! Before the first hook of a container is executed, what is to be executed later stands in [`FILE`] in its directory. So
//! whatever becomes of the agent and of the container, those of `poststart` are executed once it runs, and those of
//! `poststop` once nothing of it does: the file goes when they were. A hook is executed again where the agent was killed
//! between its end and that.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use coracle_init::hook::{Hook, HookError, Hooks, State, Status, limit_of, run_all};
use coracle_linux::remove_if_there;
use coracle_model::{ContainerId, EditHook, HookPoint, Name};
use oci_spec::runtime::Spec;
use serde::{Deserialize, Serialize};

use crate::error::{Error, file};
use crate::host;
use crate::record;

/// The name of what is to be executed in a container's directory, which is the bundle that hooks get.
const FILE: &str = "hooks.json";
/// The name of the specification in it.
const CONFIG: &str = "config.json";
/// Where the root file system is mounted, in init's mount namespace, before it is entered.
const ROOTFS: &str = "rootfs";

/// What is to be executed yet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Pending {
    pub(crate) state: State,
    /// The container's name, for people.
    #[serde(default)]
    name: String,
    /// How long the container's own hooks may take before its program is executed.
    start_limit: Duration,
    poststart: Vec<Hook>,
    poststop: Vec<Hook>,
}

/// Hooks as OCI sorts them.
pub(crate) fn sort(edits: &[EditHook]) -> Hooks {
    let mut hooks = Hooks::default();
    for edit in edits {
        let of_point = match edit.point {
            HookPoint::CreateRuntime => &mut hooks.create_runtime,
            HookPoint::CreateContainer => &mut hooks.create_container,
            HookPoint::StartContainer => &mut hooks.start_container,
            HookPoint::Poststart => &mut hooks.poststart,
            HookPoint::Poststop => &mut hooks.poststop,
        };
        of_point.push(Hook {
            path: PathBuf::from(&edit.path),
            args: edit.args.clone(),
            env: edit.env.clone(),
            // OCI counts whole seconds.
            timeout: edit.timeout.map(|timeout| timeout.as_secs() + u64::from(timeout.subsec_nanos() > 0)),
        });
    }
    hooks
}

/// Makes the bundle, and puts on record what is to be executed later. Nothing was executed yet. Blocks.
///
/// Environment and arguments are left out of the specification: they may hold values of Secrets (`$(NAME)` in arguments),
/// and the bundle may lie on a disk.
pub(crate) fn begin(
    bundle: &Path,
    id: ContainerId,
    name: &Name,
    spec: &Spec,
    hooks: &Hooks,
) -> Result<State, Error> {
    let bundle = std::path::absolute(bundle).map_err(file("find", bundle))?;
    let state = State {
        oci_version: spec.version().clone(),
        id: id.to_string(),
        status: Status::Creating,
        pid: None,
        bundle: bundle.clone(),
        annotations: spec.annotations().clone().unwrap_or_default().into_iter().collect(),
    };
    let pending = Pending {
        state: state.clone(),
        name: name.to_string(),
        start_limit: limit_of(&hooks.start_container),
        poststart: hooks.poststart.clone(),
        poststop: hooks.poststop.clone(),
    };
    record::write(&bundle.join(FILE), &pending)?;
    host::private_dir(&bundle.join(ROOTFS))?;
    let mut spec = spec.clone();
    let process = spec.process().clone().map(|mut process| {
        process.set_env(Some(Vec::new())).set_args(Some(Vec::new()));
        process
    });
    spec.set_process(process);
    let config = bundle.join(CONFIG);
    let bytes = serde_json::to_vec(&spec).map_err(|error| file("write", &config)(error.into()))?;
    let made = File::options().write(true).create(true).truncate(true).mode(0o600).open(&config);
    made.and_then(|mut out| out.write_all(&bytes)).map_err(file("write", &config))?;
    Ok(state)
}

/// Executes the hooks of the runtime, of the container `name`, whose init has that pid. Blocks.
pub(crate) fn of_runtime(hooks: &Hooks, state: &State, name: &Name) -> Result<(), Error> {
    let said = |words: String| tell(name.as_str(), &state.id, &words);
    run_all("prestart", &hooks.prestart, state, said)?;
    Ok(run_all("createRuntime", &hooks.create_runtime, state, said)?)
}

/// Tells what a hook has said that succeeded. Nothing depends on it.
pub(crate) fn tell(name: &str, id: &str, said: &str) {
    tracing::info!(container = name, id, "{said}");
}

/// Notes the process that is the container's first.
pub(crate) fn note_pid(bundle: &Path, pid: u32) -> Result<(), Error> {
    let Some(mut pending) = read(bundle)? else { return Ok(()) };
    pending.state.pid = Some(pid);
    record::write(&bundle.join(FILE), &pending)
}

/// How long the container's own hooks may take.
pub(crate) fn start_limit(bundle: &Path) -> Duration {
    read(bundle).ok().flatten().map_or(Duration::ZERO, |pending| pending.start_limit)
}

/// Executes what is to be executed once the container runs, unless it was. As OCI has it, one that fails is told and
/// changes nothing. Blocks.
pub(crate) fn poststart(bundle: &Path) -> Result<(), Error> {
    let Some(mut pending) = read(bundle)?.filter(|pending| !pending.poststart.is_empty()) else {
        return Ok(());
    };
    let state = State { status: Status::Running, ..pending.state.clone() };
    each("poststart", &pending.poststart, &state, &pending.name);
    pending.poststart.clear();
    record::write(&bundle.join(FILE), &pending)
}

/// Executes what is to be executed once nothing of the container runs any more, unless it was. Blocks.
pub(crate) fn poststop(bundle: &Path) -> Result<(), Error> {
    let Some(pending) = read(bundle)? else { return Ok(()) };
    let state = State { status: Status::Stopped, pid: None, ..pending.state };
    each("poststop", &pending.poststop, &state, &pending.name);
    let path = bundle.join(FILE);
    remove_if_there(&path).map(drop).map_err(file("remove", path))
}

/// All of them, whatever becomes of one.
fn each(point: &'static str, hooks: &[Hook], state: &State, name: &str) {
    for hook in hooks {
        match hook.run(point, state) {
            Ok(said) => said.iter().for_each(|said| tell(name, &state.id, said)),
            Err(error) => {
                tracing::warn!(container = name, id = state.id, %error, "a hook has failed; the container's life goes on");
            }
        }
    }
}

fn read(bundle: &Path) -> Result<Option<Pending>, Error> {
    record::read(&bundle.join(FILE))
}

impl From<HookError> for Error {
    fn from(error: HookError) -> Self {
        Self::Hook(error.to_string())
    }
}
