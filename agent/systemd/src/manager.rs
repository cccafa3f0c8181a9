//! systemd itself.

/// systemd as the manager of units.
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
}
