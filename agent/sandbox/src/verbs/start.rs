//! Executing a created container's program.

use std::time::Duration;

use coracle_model::{ContainerId, PodUid};
use jiff::Timestamp;

use super::exit::note_exit;
use crate::error::Error;
use crate::pod::ContainerState;
use crate::record::{self, ExitRecord};
use crate::runtime::Runtime;

/// The exit code shown for a program that could not be executed, as containerd shows it.
const START_ERROR: i32 = 128;

impl Runtime {
    /// Executes the program of a created container.
    ///
    /// # Errors
    /// When the program cannot be executed; the container is then observed as ended with `StartError`.
    pub async fn start_container(&self, uid: &PodUid, id: ContainerId) -> Result<(), Error> {
        let state = self.inner.pod(uid).ok_or_else(|| Error::NoSandbox(uid.clone()))?;
        let _verb = state.verbs.read().await;
        let container = state.container(id).ok_or(Error::NoContainer(id))?;
        let (control, record) = {
            let mut data = container.data();
            if data.record.exit.is_some() {
                return Err(Error::NotCreated(id));
            }
            let Some(control) = data.control.take() else {
                return if data.record.started_at.is_some() { Ok(()) } else { Err(Error::NotCreated(id)) };
            };
            // Written before it happens: whoever finds the record without it knows that init was never
            // told to start and ends by itself.
            data.record.started_at = Some(Timestamp::now());
            (control, data.record.clone())
        };
        record::write(&container.record_path(), &record)?;
        match control.start().await {
            Ok(()) => Ok(()),
            Err(error) => {
                never_started(&container, &error);
                // Init ends by itself after it has reported; one that hangs is killed.
                if tokio::time::timeout(Duration::from_secs(5), container.wait_ended()).await.is_err() {
                    super::stop::kill(&container).await?;
                }
                Err(error)
            }
        }
    }
}

/// Notes that the program was not executed, before pause reports the end of init.
fn never_started(container: &ContainerState, error: &Error) {
    container.data().record.started_at = None;
    let exit = ExitRecord {
        exit_code: START_ERROR,
        signal: None,
        reason: "StartError".to_owned(),
        message: Some(error.to_string()),
        finished_at: Timestamp::now(),
    };
    note_exit(container, exit);
}
