//! Calls that queue a job, and waiting until that is done: org.freedesktop.systemd1(5), `JobRemoved`.
//!
//! ```text
//! listen for the unit's jobs ──> call ──> JobRemoved of that job
//!                                 │        │ systemd executed itself anew, or the connection broke:
//!                                 │        └─> listen ──> ask how the unit is ──> as wanted, or has no job: done
//!                                 └─ no answer: the same call again
//! ```

use std::sync::Arc;

use futures_util::StreamExt;
use tokio::time::{Instant, sleep_until, timeout_at};
use zbus::zvariant::{ObjectPath, OwnedObjectPath};
use zbus::{MatchRule, Message, MessageStream, message};

use crate::client::{AGAIN, Connected, NAME, Systemd};
use crate::error::{Action, Error, Task};
use crate::unit::Active;

/// `JobRemoved`, as far as it matters.
struct Removed {
    job: OwnedObjectPath,
    result: String,
}

impl Systemd {
    /// Queues a job by a call, and waits until it is done.
    pub(crate) async fn job<F>(&self, task: Task<'_>, call: impl Fn(Arc<Connected>) -> F) -> Result<(), Error>
    where
        F: Future<Output = zbus::Result<OwnedObjectPath>>,
    {
        let deadline = self.deadline();
        loop {
            let bus = self.connected(task, deadline).await?;
            let mut owners = bus.owners.clone();
            owners.mark_unchanged();
            // Before the call: a job may be done before the answer is read.
            let queued = async {
                let removed = bus.removed(task.unit).await?;
                Ok::<_, zbus::Error>((removed, call(Arc::clone(&bus)).await?))
            };
            let (mut removed, job) = match timeout_at(deadline, queued).await {
                Ok(Ok(queued)) => queued,
                Ok(Err(error)) => {
                    self.failed(task, &bus, error, deadline).await?;
                    continue;
                }
                Err(_) => return Err(self.timed_out(task)),
            };
            loop {
                tokio::select! {
                    biased;
                    said = removed.next() => match said.and_then(Result::ok).map(|said| parse(&said)) {
                        Some(Some(said)) if said.job == job => return ended(task, &said.result),
                        // Another job of the unit.
                        Some(_) => {}
                        None => return self.settled(task, deadline).await,
                    },
                    // What was said while systemd or the connection was away is lost.
                    _ = owners.changed() => return self.settled(task, deadline).await,
                    () = sleep_until(deadline) => return Err(self.timed_out(task)),
                }
            }
        }
    }

    /// Waits until the unit has no job any more, and tells by its state how that ended.
    async fn settled(&self, task: Task<'_>, deadline: Instant) -> Result<(), Error> {
        loop {
            let bus = self.connected(task, deadline).await?;
            let mut owners = bus.owners.clone();
            owners.mark_unchanged();
            let asked = async {
                let removed = bus.removed(task.unit).await?;
                Ok::<_, zbus::Error>((removed, bus.state(task.unit).await?))
            };
            let (mut removed, state) = match timeout_at(deadline, asked).await {
                Ok(Ok(asked)) => asked,
                Ok(Err(error)) => match self.failed(task, &bus, error, deadline).await {
                    Err(error) if error.is_no_such_unit() && task.action == Action::Stop => return Ok(()),
                    Err(error) if error.is_no_such_unit() => return Err(task.job("inactive")),
                    Err(error) => return Err(error),
                    Ok(()) => continue,
                },
                Err(_) => return Err(self.timed_out(task)),
            };
            if state.job.is_none() {
                match (state.active, task.action) {
                    (Active::Inactive | Active::Failed, Action::Stop) | (Active::Active, Action::Start) => {
                        return Ok(());
                    }
                    (Active::Active, _) => return Err(task.job("active")),
                    (Active::Inactive, _) => return Err(task.job("inactive")),
                    (Active::Failed, _) => return Err(task.job("failed")),
                    // Without a job: it comes to an end by itself.
                    (Active::Other(_), _) => {}
                }
            }
            tokio::select! {
                _ = removed.next() => {}
                _ = owners.changed() => {}
                // What becomes of a unit without a job is not told by the end of one.
                () = tokio::time::sleep(AGAIN) => {}
            }
            if Instant::now() >= deadline {
                return Err(self.timed_out(task));
            }
        }
    }
}

// === impl Connected ===

impl Connected {
    /// The ends of jobs of one unit.
    async fn removed(&self, unit: &str) -> zbus::Result<MessageStream> {
        let rule = MatchRule::builder()
            .msg_type(message::Type::Signal)
            .sender(NAME)?
            .path("/org/freedesktop/systemd1")?
            .interface("org.freedesktop.systemd1.Manager")?
            .member("JobRemoved")?
            .arg(2, unit)?
            .build();
        MessageStream::for_match_rule(rule, &self.connection, None).await
    }
}

fn parse(message: &Message) -> Option<Removed> {
    let body = message.body();
    let (_, job, _, result) = body.deserialize::<(u32, ObjectPath<'_>, &str, &str)>().ok()?;
    Some(Removed { job: job.into(), result: result.to_owned() })
}

fn ended(task: Task<'_>, result: &str) -> Result<(), Error> {
    match result {
        "done" => Ok(()),
        result => Err(task.job(result)),
    }
}
