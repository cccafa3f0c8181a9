//! The system's bus.

use std::time::Duration;

use zbus::Connection;

/// What calls may take. The bus answers at once for whom it does not know.
const LIMIT: Duration = Duration::from_secs(25);

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
    let connecting = zbus::connection::Builder::system()?.method_timeout(LIMIT).build();
    match tokio::time::timeout(LIMIT, connecting).await {
        Ok(connected) => connected,
        Err(_) => Err(zbus::Error::InputOutput(
            std::io::Error::new(std::io::ErrorKind::TimedOut, "the bus does not answer").into(),
        )),
    }
}

/// Whether nobody has the name on the bus, and nobody can be started for it.
pub fn is_absent(error: &zbus::Error) -> bool {
    match error {
        zbus::Error::MethodError(name, ..) => ABSENT.contains(&name.as_str()),
        zbus::Error::FDO(error) => match &**error {
            zbus::fdo::Error::ServiceUnknown(_)
            | zbus::fdo::Error::NameHasNoOwner(_)
            | zbus::fdo::Error::SpawnServiceNotFound(_) => true,
            zbus::fdo::Error::ZBus(error) => is_absent(error),
            _ => false,
        },
        _ => false,
    }
}
