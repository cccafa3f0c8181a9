//! How the C library looks names up.

/// Has a static program look hosts up in `/etc/hosts` and by DNS, and users and groups in their files, whatever
/// `/etc/nsswitch.conf` says. For anything else the C library would load modules, and with them the host's C library into a
/// program that has one of its own, which goes well only if both are of the same build. Does nothing in a program that is
/// not static.
///
/// systemd-resolved, whose module is what most hosts have beside these two, is asked by DNS then.
pub fn look_names_up_without_modules() {
    #[cfg(all(target_env = "gnu", target_feature = "crt-static"))]
    for (database, services) in [(c"hosts", c"files dns"), (c"passwd", c"files"), (c"group", c"files")] {
        // SAFETY: both are strings that end; the C library copies what it keeps of them.
        unsafe { __nss_configure_lookup(database.as_ptr(), services.as_ptr()) };
    }
}

#[cfg(all(target_env = "gnu", target_feature = "crt-static"))]
unsafe extern "C" {
    /// Of glibc (nss.h). Fails on names and lines it does not understand, and for want of memory.
    fn __nss_configure_lookup(database: *const libc::c_char, services: *const libc::c_char) -> libc::c_int;
}
