//! systemd itself.

use zbus::zvariant::{OwnedObjectPath, Value};

/// systemd as the manager of units: org.freedesktop.systemd1(5), "The Manager Object".
#[zbus::proxy(
    interface = "org.freedesktop.systemd1.Manager",
    default_service = "org.freedesktop.systemd1",
    default_path = "/org/freedesktop/systemd1",
    gen_blocking = false
)]
pub trait Manager {
    /// Sends a signal to processes of a unit: `who` is `main`, `control` or `all`.
    ///
    /// # Errors
    /// When there is no such unit, or the bus or systemd refuses.
    fn kill_unit(&self, unit: &str, who: &str, signal: i32) -> zbus::Result<()>;

    /// Asks for signals.
    ///
    /// # Errors
    /// When the bus or systemd refuses; of those below as well.
    #[zbus(no_autostart)]
    fn subscribe(&self) -> zbus::Result<()>;

    /// Makes a unit that is in no file, and queues a job that starts it.
    ///
    /// # Errors
    /// When there is such a unit.
    #[zbus(no_autostart)]
    fn start_transient_unit(
        &self,
        name: &str,
        mode: &str,
        properties: &[(&str, Value<'_>)],
        auxiliary: &[(&str, Vec<(&str, Value<'_>)>)],
    ) -> zbus::Result<OwnedObjectPath>;

    /// Queues a job that starts a unit.
    ///
    /// # Errors
    /// When it cannot be loaded.
    #[zbus(no_autostart)]
    fn start_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;

    /// Queues a job that stops a unit.
    ///
    /// # Errors
    /// When there is no such unit.
    #[zbus(no_autostart)]
    fn stop_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;

    /// Forgets that a unit failed.
    ///
    /// # Errors
    /// When there is no such unit.
    #[zbus(no_autostart)]
    fn reset_failed_unit(&self, name: &str) -> zbus::Result<()>;

    /// Changes properties of a unit, until the machine is booted again if `runtime`.
    ///
    /// # Errors
    /// When there is no such unit or property.
    #[zbus(no_autostart)]
    fn set_unit_properties(
        &self,
        name: &str,
        runtime: bool,
        properties: &[(&str, Value<'_>)],
    ) -> zbus::Result<()>;

    /// The object of a unit that is loaded.
    ///
    /// # Errors
    /// When there is no such unit.
    #[zbus(no_autostart)]
    fn get_unit(&self, name: &str) -> zbus::Result<OwnedObjectPath>;

    /// The object of the unit a process belongs to, 0 for the caller.
    ///
    /// # Errors
    /// When it belongs to none.
    #[zbus(no_autostart, name = "GetUnitByPID")]
    fn get_unit_by_pid(&self, pid: u32) -> zbus::Result<OwnedObjectPath>;

    /// systemd's version, such as `257.9-1`.
    #[zbus(property(emits_changed_signal = "const"))]
    fn version(&self) -> zbus::Result<String>;
}
