//! The system's bus.

use std::time::Duration;

use zbus::connection::Builder;
use zbus::{Connection, DBusError};

/// What calls may take. The bus answers at once for whom it does not know.
pub(crate) const LIMIT: Duration = Duration::from_secs(25);

/// What the bus, or systemd when it is to start somebody for it, says where there is none.
const ABSENT: [&str; 5] = [
    "org.freedesktop.DBus.Error.ServiceUnknown",
    "org.freedesktop.DBus.Error.NameHasNoOwner",
    "org.freedesktop.DBus.Error.Spawn.ServiceNotFound",
    "org.freedesktop.systemd1.NoSuchUnit",
    "org.freedesktop.systemd1.UnitMasked",
];

/// A connection to the system's bus, wherever it is (`DBUS_SYSTEM_BUS_ADDRESS`). Calls over it end after 25 seconds.
///
/// # Errors
/// When there is no bus, or it does not answer.
pub async fn connect() -> zbus::Result<Connection> {
    connect_to(None, LIMIT).await
}

/// As [`connect`], to a bus at another address, with another limit for its calls.
pub(crate) async fn connect_to(address: Option<&str>, limit: Duration) -> zbus::Result<Connection> {
    let builder = match address {
        Some(address) => Builder::address(address)?,
        None => Builder::system()?,
    };
    match tokio::time::timeout(limit, builder.method_timeout(limit).build()).await {
        Ok(connected) => connected,
        Err(_) => Err(zbus::Error::InputOutput(
            std::io::Error::new(std::io::ErrorKind::TimedOut, "the bus does not answer").into(),
        )),
    }
}

/// Whether nobody has the name on the bus, and nobody can be started for it.
pub fn is_absent(error: &zbus::Error) -> bool {
    answer(error).is_some_and(|answer| ABSENT.contains(&answer.name.as_str()))
}

/// An error that somebody on the bus, or the bus, answered with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) name: String,
    pub(crate) message: String,
}

/// The answer that an error is, if it is one.
pub(crate) fn answer(error: &zbus::Error) -> Option<Answer> {
    match error {
        zbus::Error::MethodError(name, message, _) => {
            Some(Answer { name: name.to_string(), message: message.clone().unwrap_or_default() })
        }
        zbus::Error::FDO(error) => match &**error {
            zbus::fdo::Error::ZBus(error) => answer(error),
            error => {
                let message = error.description().unwrap_or_default().to_owned();
                Some(Answer { name: error.name().to_string(), message })
            }
        },
        _ => None,
    }
}
