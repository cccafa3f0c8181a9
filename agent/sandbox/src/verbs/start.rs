//! Executing a created container's program, once, wherever the agent is killed.
//!
//! pause holds the agent's end of the control socket from before there is a record of the container, so init waits
//! for Start without an agent too. The order to start is on record (`started_at`) before Start is sent. So the next
//! agent finds
//!
//! - no record: the container was never ordered to start, and is removed;
//! - a record without the order: the container is what it was, created, if init waits (and if not, it is removed);
//! - the order, and an init that has not closed its end: Start was or was not sent, and is sent (again);
//! - the order, and a closed end: the program was executed, or init has left behind why it could not be.
//!
//! A container is removed only while no order is on record, so no program runs twice for one order; and an order
//! on record is carried out, so none is reported as ended that was never begun.

use std::sync::Arc;
use std::time::Duration;

use coracle_model::{ContainerId, PodUid};
use jiff::Timestamp;

use super::exit::note_exit;
use crate::blocking::blocking;
use crate::control::{Control, Progress};
use crate::error::Error;
use crate::hooks;
use crate::pod::{ContainerState, PodState};
use crate::record::{self, ExitRecord};
use crate::runtime::{Inner, Runtime};

/// The exit code shown for a program that could not be executed, as containerd shows it.
const START_ERROR: i32 = 128;

impl Runtime {
    /// Executes the program of a created container.
    ///
    /// # Errors
    /// When the program cannot be executed; the container is then observed as ended with `StartError`. When the
    /// order cannot be put on record; it is still created then.
    pub async fn start_container(&self, uid: &PodUid, id: ContainerId) -> Result<(), Error> {
        let state = self.inner.pod(uid).ok_or_else(|| Error::NoSandbox(uid.clone()))?;
        let _verb = state.verbs.read().await;
        let container = state.container(id).ok_or(Error::NoContainer(id))?;
        if state.data().unanswered {
            return Err(Error::Unanswered(uid.clone()));
        }
        let started = {
            let mut control = container.control.lock().await;
            let ordered = {
                let data = container.data();
                if data.record.exit.is_some() {
                    return Err(Error::NotCreated(id));
                }
                data.record.started_at
            };
            if control.is_none() {
                return if ordered.is_some() { Ok(()) } else { Err(Error::NotCreated(id)) };
            }
            if let Err(error) = order(&container) {
                container.data().record.started_at = ordered;
                return Err(error);
            }
            execute(&container, &mut control, ordered.is_some()).await
        };
        self.inner.conclude(&state, &container, started).await
    }
}

/// How far the init of a container is that is taken over; `None` when it cannot be understood.
pub(super) fn progress(id: ContainerId, control: &Control) -> Option<Progress> {
    let known = control.progress();
    known
        .inspect_err(|error| tracing::error!(container = %id, %error, "cannot understand container-init"))
        .ok()
}

/// Completes what an agent before this one has ordered, for a container that is taken over and whose init is
/// that far.
pub(super) fn complete(
    inner: &Arc<Inner>,
    state: &Arc<PodState>,
    container: &Arc<ContainerState>,
    progress: Progress,
) {
    match progress {
        Progress::Waiting => {}
        Progress::Executed => {
            let container = Arc::clone(container);
            tokio::spawn(async move { poststart(&container).await });
            return;
        }
        Progress::Failed(failure) => return never_started(container, &Error::Init(failure)),
    }
    // It is not executed earlier than now. Where that cannot be written, the order of old stands.
    if let Err(error) = order(container) {
        tracing::warn!(container = %container.id, %error, "the time of a container's start is not on record");
    }
    let (inner, state, container) = (Arc::clone(inner), Arc::clone(state), Arc::clone(container));
    // The program may lie on a slow disk: nobody waits for it.
    tokio::spawn(async move {
        let started = execute(&container, &mut *container.control.lock().await, true).await;
        if let Err(error) = inner.conclude(&state, &container, started).await {
            tracing::error!(container = %container.id, %error, "a container that was taken over cannot be started");
        }
    });
}

/// For a container that ended: notes that its program was not executed, if init has said so and nobody has read
/// it. Waits for whoever is about to read it.
pub(super) async fn look_back(container: &ContainerState) {
    let control = container.control.lock().await.take();
    let ordered = container.data().record.started_at.is_some();
    if let (Some(control), true) = (control, ordered)
        && let Ok(Progress::Failed(failure)) = control.progress()
    {
        never_started(container, &Error::Init(failure));
    }
}

/// Puts the order to start on record.
fn order(container: &ContainerState) -> Result<(), Error> {
    let record = {
        let mut data = container.data();
        data.record.started_at = Some(Timestamp::now());
        data.record.clone()
    };
    record::write(&container.record_path(), &record)
}

/// Tells init to execute the program, `again` if it may have been told, and waits until it did.
async fn execute(
    container: &ContainerState,
    waiting: &mut Option<Control>,
    again: bool,
) -> Result<(), Error> {
    let Some(control) = waiting.as_ref() else { return Ok(()) };
    let hooks = hooks::start_limit(&container.dir);
    let started = if again { control.start_again(hooks).await } else { control.start(hooks).await };
    for said in control.said() {
        hooks::tell(&container.data().record.name, &container.id.to_string(), &said);
    }
    if let Err(error) = &started {
        never_started(container, error);
    }
    *waiting = None;
    started
}

impl Inner {
    /// Sees to it that what could not be executed ends.
    async fn conclude(
        self: &Arc<Self>,
        state: &Arc<PodState>,
        container: &Arc<ContainerState>,
        started: Result<(), Error>,
    ) -> Result<(), Error> {
        // Init ends by itself after it has reported; one that hangs is killed.
        if started.is_err()
            && tokio::time::timeout(Duration::from_secs(5), container.wait_ended()).await.is_err()
        {
            self.kill(state, container).await?;
        }
        if started.is_ok() {
            poststart(container).await;
        }
        started
    }
}

/// Executes the hooks that are to be executed once a container runs. What becomes of them changes nothing of it.
async fn poststart(container: &Arc<ContainerState>) {
    let dir = container.dir.clone();
    if let Err(error) = blocking(move || hooks::poststart(&dir)).await {
        tracing::warn!(container = %container.id, %error, "hooks of a container that runs may be executed again");
    }
}

/// Notes that the program was not executed, before how init ended is noted.
fn never_started(container: &ContainerState, error: &Error) {
    let exit = ExitRecord {
        exit_code: START_ERROR,
        signal: None,
        reason: "StartError".to_owned(),
        message: Some(error.to_string()),
        finished_at: Timestamp::now(),
    };
    {
        let mut data = container.data();
        if data.record.exit.is_none() {
            data.record.started_at = None;
        }
    }
    note_exit(container, exit);
}
