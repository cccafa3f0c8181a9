//! logind on the bus: `org.freedesktop.login1(5)`, as far as it is used here.

use std::time::Duration;

use zbus::Connection;
use zbus::proxy::CacheProperties;
use zbus::zvariant::OwnedFd;

/// What calls may take. The bus answers at once for whom it does not know.
const LIMIT: Duration = Duration::from_secs(25);

#[zbus::proxy(
    interface = "org.freedesktop.login1.Manager",
    default_service = "org.freedesktop.login1",
    default_path = "/org/freedesktop/login1",
    gen_blocking = false
)]
pub(crate) trait Manager {
    /// Takes an inhibitor lock, which is held for as long as the descriptor is open.
    fn inhibit(&self, what: &str, who: &str, why: &str, mode: &str) -> zbus::Result<OwnedFd>;

    /// The machine is about to shut down; `false`: it is not, after all.
    #[zbus(signal)]
    fn prepare_for_shutdown(&self, start: bool) -> zbus::Result<()>;

    /// Whether the one was the last signal.
    #[zbus(property(emits_changed_signal = "false"))]
    fn preparing_for_shutdown(&self) -> zbus::Result<bool>;

    /// For how long locks delay a shutdown at most, in microseconds.
    #[zbus(property(emits_changed_signal = "false"), name = "InhibitDelayMaxUSec")]
    fn inhibit_delay_max(&self) -> zbus::Result<u64>;
}

/// The part of systemd's own interface that has logind read its configuration again.
#[zbus::proxy(
    interface = "org.freedesktop.systemd1.Manager",
    default_service = "org.freedesktop.systemd1",
    default_path = "/org/freedesktop/systemd1",
    gen_blocking = false
)]
pub(crate) trait Systemd {
    fn kill_unit(&self, unit: &str, who: &str, signal: i32) -> zbus::Result<()>;
}

/// What the bus, or systemd when it is to start logind for it, says where there is none.
const ABSENT: [&str; 5] = [
    "org.freedesktop.DBus.Error.ServiceUnknown",
    "org.freedesktop.DBus.Error.NameHasNoOwner",
    "org.freedesktop.DBus.Error.Spawn.ServiceNotFound",
    "org.freedesktop.systemd1.NoSuchUnit",
    "org.freedesktop.systemd1.UnitMasked",
];

/// A connection to the system's bus, wherever it is (`DBUS_SYSTEM_BUS_ADDRESS`).
pub(crate) async fn connect() -> zbus::Result<Connection> {
    let connecting = zbus::connection::Builder::system()?.method_timeout(LIMIT).build();
    match tokio::time::timeout(LIMIT, connecting).await {
        Ok(connected) => connected,
        Err(_) => Err(zbus::Error::InputOutput(
            std::io::Error::new(std::io::ErrorKind::TimedOut, "the bus does not answer").into(),
        )),
    }
}

/// logind, as it is at any time: nothing it says is remembered.
pub(crate) async fn manager(connection: &Connection) -> zbus::Result<ManagerProxy<'static>> {
    ManagerProxy::builder(connection).cache_properties(CacheProperties::No).build().await
}

/// Whether nobody has the name on the bus, and nobody can be started for it.
pub(crate) fn is_absent(error: &zbus::Error) -> bool {
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
