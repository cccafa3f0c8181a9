//! The client: a connection that is made when it is needed and made anew when it broke, and calls that come to an
//! end.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout_at};
use zbus::fdo::DBusProxy;
use zbus::proxy::CacheProperties;
use zbus::zvariant::OwnedObjectPath;
use zbus::{Connection, MatchRule, MessageStream, message};

use crate::bus::{self, answer};
use crate::error::{Action, Error, Task};
use crate::manager::ManagerProxy;
use crate::name::UnitName;
use crate::property::{Property, Said};
use crate::unit::{Active, JobProxy, JobType, UnitProxy, UnitState};

/// systemd's name on the bus.
pub(crate) const NAME: &str = "org.freedesktop.systemd1";

/// How long to wait until a connection that broke at once is made again.
pub(crate) const AGAIN: Duration = Duration::from_millis(50);

/// The bus, or systemd's library, says this when it is not, or no longer, there: as it is while it executes itself anew.
const AWAY: [&str; 5] = [
    "org.freedesktop.DBus.Error.NoReply",
    "org.freedesktop.DBus.Error.NameHasNoOwner",
    "org.freedesktop.DBus.Error.ServiceUnknown",
    "org.freedesktop.DBus.Error.Disconnected",
    "org.freedesktop.DBus.Error.Spawn.ChildExited",
];

/// systemd, PID 1 of this host, by the system's bus.
///
/// Cheap to clone, and nothing happens before the first call. Each call has 25 seconds for all it does; within them a
/// connection that breaks is made anew, and a systemd that executes itself anew, or reads all its units again, is waited
/// for. A systemd that hangs holds up who waits for it and nobody else.
#[derive(Clone, Debug)]
pub struct Systemd {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// Of the bus, where it is not the system's.
    address: Option<String>,
    limit: Duration,
    connection: tokio::sync::Mutex<Option<Arc<Connected>>>,
}

/// A connection to the bus.
#[derive(Debug)]
pub(crate) struct Connected {
    pub(crate) connection: Connection,
    pub(crate) manager: ManagerProxy<'static>,
    /// Changes when systemd leaves the bus or comes to it; its sender goes when the connection does.
    pub(crate) owners: watch::Receiver<bool>,
    /// Properties this systemd does not know.
    unknown: Mutex<Vec<String>>,
    following: AbortHandle,
}

/// What became of a call that did not succeed.
enum Failed {
    /// systemd is not on the bus: it may come back.
    Away,
    /// The connection broke: there may be another.
    Lost,
    /// That is that.
    For(Error),
}

// === impl Systemd ===

impl Default for Systemd {
    fn default() -> Self {
        Self::new()
    }
}

impl Systemd {
    /// systemd on the system's bus, wherever that is (`DBUS_SYSTEM_BUS_ADDRESS`).
    pub fn new() -> Self {
        Self::at(None, bus::LIMIT)
    }

    /// systemd on the bus at that address, with another limit for each call.
    pub fn on(address: &str, limit: Duration) -> Self {
        Self::at(Some(address.to_owned()), limit)
    }

    fn at(address: Option<String>, limit: Duration) -> Self {
        Self { inner: Arc::new(Inner { address, limit, connection: tokio::sync::Mutex::default() }) }
    }

    /// systemd's version, such as `257.9-1`.
    ///
    /// # Errors
    /// When nobody answers as systemd.
    pub async fn version(&self) -> Result<String, Error> {
        let task = Task { action: Action::Ask, unit: "PID 1" };
        self.call(task, |bus| async move { bus.manager.version().await }).await
    }

    /// Makes a unit that is in no file, and returns once it is started. Its files are gone when it is.
    ///
    /// # Errors
    /// When it is there ([`Error::is_unit_exists`]), cannot be started, or takes too long. After an answer that was
    /// lost on its way it may be there, too.
    pub async fn start_transient(&self, unit: &UnitName, properties: &[Property]) -> Result<(), Error> {
        let task = Task::new(Action::Start, unit);
        self.job(task, |bus| async move {
            loop {
                let said = bus.known(properties);
                match bus.manager.start_transient_unit(unit.as_str(), "fail", &said, &[]).await {
                    Err(error) if bus.learns(properties, &error) => {}
                    answer => return answer,
                }
            }
        })
        .await
    }

    /// Starts a unit, and returns once it is.
    ///
    /// # Errors
    /// When there is no such unit, it cannot be started, or takes too long.
    pub async fn start(&self, unit: &UnitName) -> Result<(), Error> {
        let task = Task::new(Action::Start, unit);
        self.job(task, |bus| async move { bus.manager.start_unit(unit.as_str(), "replace").await }).await
    }

    /// Stops a unit, and returns once it is. One that is not there is stopped.
    ///
    /// # Errors
    /// When it cannot be stopped or takes too long.
    pub async fn stop(&self, unit: &UnitName) -> Result<(), Error> {
        let task = Task::new(Action::Stop, unit);
        let stopped =
            self.job(task, |bus| async move { bus.manager.stop_unit(unit.as_str(), "replace").await }).await;
        no_such_is_fine(stopped)
    }

    /// Changes properties of a unit until it is gone, or the machine is booted again.
    ///
    /// # Errors
    /// When there is no such unit, or systemd refuses.
    pub async fn set_properties(&self, unit: &UnitName, properties: &[Property]) -> Result<(), Error> {
        self.call(Task::new(Action::SetProperties, unit), |bus| async move {
            loop {
                let said = bus.known(properties);
                match bus.manager.set_unit_properties(unit.as_str(), true, &said).await {
                    Err(error) if bus.learns(properties, &error) => {}
                    answer => return answer,
                }
            }
        })
        .await
    }

    /// Has systemd forget that a unit failed. One that is not there has not.
    ///
    /// # Errors
    /// When systemd refuses.
    pub async fn reset_failed(&self, unit: &UnitName) -> Result<(), Error> {
        let task = Task::new(Action::ResetFailed, unit);
        no_such_is_fine(
            self.call(task, |bus| async move { bus.manager.reset_failed_unit(unit.as_str()).await }).await,
        )
    }

    /// How a unit is; `None` when systemd knows none of that name.
    ///
    /// # Errors
    /// When nobody answers as systemd.
    pub async fn state(&self, unit: &UnitName) -> Result<Option<UnitState>, Error> {
        let state = self
            .call(Task::new(Action::Ask, unit), |bus| async move { bus.state(unit.as_str()).await })
            .await;
        match state {
            Ok(state) => Ok(Some(state)),
            Err(error) if error.is_no_such_unit() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The unit this process belongs to; `None` where it belongs to none.
    ///
    /// # Errors
    /// When nobody answers as systemd, or with what names no unit.
    pub async fn own_unit(&self) -> Result<Option<UnitName>, Error> {
        let task = Task { action: Action::Ask, unit: "this process's unit" };
        let id = self
            .call(task, |bus| async move {
                let path = bus.manager.get_unit_by_pid(0).await?;
                bus.unit(path).await?.id().await
            })
            .await;
        match id {
            Ok(id) => Ok(id.parse().ok()),
            Err(error) if error.is_no_such_unit() => Ok(None),
            Err(Error::Refused { name, .. }) if name == "org.freedesktop.systemd1.NoUnitForPID" => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Calls until there is an answer.
    pub(crate) async fn call<T, F>(
        &self,
        task: Task<'_>,
        call: impl Fn(Arc<Connected>) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = zbus::Result<T>>,
    {
        let deadline = self.deadline();
        loop {
            let bus = self.connected(task, deadline).await?;
            match timeout_at(deadline, call(Arc::clone(&bus))).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) => self.failed(task, &bus, error, deadline).await?,
                Err(_) => return Err(self.timed_out(task)),
            }
        }
    }

    pub(crate) fn deadline(&self) -> Instant {
        Instant::now() + self.inner.limit
    }

    pub(crate) fn timed_out(&self, task: Task<'_>) -> Error {
        task.timed_out(self.inner.limit)
    }

    /// Waits until it is worth to try again, if it ever is.
    pub(crate) async fn failed(
        &self,
        task: Task<'_>,
        bus: &Arc<Connected>,
        error: zbus::Error,
        deadline: Instant,
    ) -> Result<(), Error> {
        match self.judge(task, bus, error) {
            Failed::For(error) => return Err(error),
            Failed::Lost => {
                self.forget(bus).await;
                sleep(AGAIN).await;
            }
            Failed::Away => {
                bus.wait_for_systemd(task, deadline).await.map_err(|timed_out| match timed_out {
                    None => self.timed_out(task),
                    Some(error) => error,
                })?
            }
        }
        if Instant::now() < deadline { Ok(()) } else { Err(self.timed_out(task)) }
    }

    fn judge(&self, task: Task<'_>, bus: &Connected, error: zbus::Error) -> Failed {
        match (answer(&error), &error) {
            (Some(answer), _) if AWAY.contains(&answer.name.as_str()) => Failed::Away,
            (Some(answer), _) => Failed::For(Error::Refused {
                action: task.action,
                unit: task.unit.to_owned(),
                name: answer.name,
                message: answer.message,
            }),
            (None, zbus::Error::InputOutput(cause)) if cause.kind() == io::ErrorKind::TimedOut => {
                Failed::For(self.timed_out(task))
            }
            (None, zbus::Error::InputOutput(_)) => Failed::Lost,
            (None, _) if bus.connection.is_closed() => Failed::Lost,
            (None, _) => Failed::For(task.exchange(error)),
        }
    }

    /// The connection there is, or a new one.
    pub(crate) async fn connected(&self, task: Task<'_>, deadline: Instant) -> Result<Arc<Connected>, Error> {
        let connecting = async {
            let mut connection = self.inner.connection.lock().await;
            match &*connection {
                Some(connected) if !connected.connection.is_closed() => Ok(Arc::clone(connected)),
                _ => {
                    let address = self.inner.address.as_deref();
                    let connected = Arc::new(Connected::new(address, self.inner.limit).await?);
                    *connection = Some(Arc::clone(&connected));
                    Ok(connected)
                }
            }
        };
        match timeout_at(deadline, connecting).await {
            Ok(connected) => connected.map_err(|error| task.no_bus(error)),
            Err(_) => Err(self.timed_out(task)),
        }
    }

    /// Has the next call connect anew.
    async fn forget(&self, bus: &Arc<Connected>) {
        let mut connection = self.inner.connection.lock().await;
        if connection.as_ref().is_some_and(|current| Arc::ptr_eq(current, bus)) {
            *connection = None;
        }
    }
}

/// Nothing has to be done to a unit that is not there.
fn no_such_is_fine(result: Result<(), Error>) -> Result<(), Error> {
    match result {
        Err(error) if error.is_no_such_unit() => Ok(()),
        result => result,
    }
}

// === impl Connected ===

impl Connected {
    async fn new(address: Option<&str>, limit: Duration) -> zbus::Result<Self> {
        let connection = bus::connect_to(address, limit).await?;
        let manager =
            ManagerProxy::builder(&connection).cache_properties(CacheProperties::No).build().await?;
        let rule = MatchRule::builder()
            .msg_type(message::Type::Signal)
            .sender("org.freedesktop.DBus")?
            .interface("org.freedesktop.DBus")?
            .member("NameOwnerChanged")?
            .arg(0, NAME)?
            .build();
        let mut changes = MessageStream::for_match_rule(rule, &connection, None).await?;
        let (sender, owners) = watch::channel(false);
        let following = tokio::spawn(async move {
            while let Some(Ok(change)) = changes.next().await {
                let there =
                    change.body().deserialize::<(&str, &str, &str)>().is_ok_and(|it| !it.2.is_empty());
                sender.send_replace(there);
            }
        })
        .abort_handle();
        let bus = Self { connection, manager, owners, unknown: Mutex::default(), following };
        // Not all signals come without. systemd keeps it across re-executions; where it is away now, nothing is missed
        // but what only is quicker by it.
        if let Err(error) = bus.manager.subscribe().await
            && bus.connection.is_closed()
        {
            return Err(error);
        }
        Ok(bus)
    }

    /// Waits until somebody on the bus is systemd. `None` stands for too long a wait.
    async fn wait_for_systemd(&self, task: Task<'_>, deadline: Instant) -> Result<(), Option<Error>> {
        let mut owners = self.owners.clone();
        owners.mark_unchanged();
        let there = async {
            let dbus = DBusProxy::new(&self.connection).await?;
            dbus.name_has_owner(NAME.try_into()?).await.map_err(zbus::Error::from)
        };
        match timeout_at(deadline, there).await {
            Err(_) => return Err(None),
            // The connection broke, which the next call finds out.
            Ok(Err(_)) => return Ok(()),
            Ok(Ok(true)) => {
                // It may still be gone when it is asked again.
                sleep(AGAIN).await;
                return Ok(());
            }
            Ok(Ok(false)) => {}
        }
        loop {
            match timeout_at(deadline, owners.changed()).await {
                Err(_) => {
                    return Err(Some(Error::Absent {
                        action: task.action,
                        unit: task.unit.to_owned(),
                        message: format!("{NAME} has no owner"),
                    }));
                }
                Ok(Err(_)) => return Ok(()),
                Ok(Ok(())) if *owners.borrow_and_update() => return Ok(()),
                Ok(Ok(())) => {}
            }
        }
    }

    /// The properties, as far as this systemd knows them.
    fn known<'a>(&self, properties: &'a [Property]) -> Said<'a> {
        let unknown = self.unknown.lock().unwrap_or_else(PoisonError::into_inner);
        properties.iter().filter_map(|property| property.say(&unknown)).collect()
    }

    /// Whether the error is about a property that can be left out, or said otherwise, and was not yet.
    fn learns(&self, properties: &[Property], error: &zbus::Error) -> bool {
        let Some(answer) = answer(error) else { return false };
        if answer.name != "org.freedesktop.DBus.Error.PropertyReadOnly" {
            return false;
        }
        let mut unknown = self.unknown.lock().unwrap_or_else(PoisonError::into_inner);
        // "Cannot set property OOMPolicy, or unknown property."
        let said = |name: &str| {
            answer.message.split(|it: char| !it.is_ascii_alphanumeric()).any(|word| word == name)
        };
        let mut names = properties.iter().filter_map(Property::dispensable);
        match names.find(|name| said(name) && !unknown.iter().any(|known| known == name)) {
            Some(name) => {
                unknown.push(name.to_owned());
                true
            }
            None => false,
        }
    }

    pub(crate) async fn state(&self, unit: &str) -> zbus::Result<UnitState> {
        let path = self.manager.get_unit(unit).await?;
        let unit = self.unit(path).await?;
        let active = Active::from(unit.active_state().await?);
        let (number, path) = unit.job().await?;
        let job = match number {
            0 => None,
            _ => self.job_type(path).await?,
        };
        Ok(UnitState { active, job })
    }

    /// `None` where it is done meanwhile.
    async fn job_type(&self, path: OwnedObjectPath) -> zbus::Result<Option<JobType>> {
        let job = JobProxy::builder(&self.connection).path(path)?.cache_properties(CacheProperties::No);
        match job.build().await?.job_type().await {
            Ok(text) => Ok(Some(text.into())),
            Err(error) => match answer(&error) {
                Some(answer) if answer.name == "org.freedesktop.DBus.Error.UnknownObject" => Ok(None),
                _ => Err(error),
            },
        }
    }

    async fn unit(&self, path: OwnedObjectPath) -> zbus::Result<UnitProxy<'static>> {
        UnitProxy::builder(&self.connection).path(path)?.cache_properties(CacheProperties::No).build().await
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.following.abort();
    }
}
