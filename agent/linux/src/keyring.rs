//! `keyctl(2)`: keys that the kernel keeps for processes.

use rustix::io::Errno;

/// Gives this thread a new session keyring, empty and without a name of its own. What it clones and executes from
/// now on has it as well. Needs no privilege.
///
/// # Errors
/// `ENOSYS` where the kernel has no keyrings, `EPERM` where a seccomp filter forbids the call, `EDQUOT` where the
/// user has as many keys as they may.
pub fn join_new_session_keyring() -> Result<(), Errno> {
    let none = std::ptr::null::<libc::c_char>();
    // SAFETY: without a name the kernel reads no memory of this process.
    let result = unsafe { libc::syscall(libc::SYS_keyctl, libc::KEYCTL_JOIN_SESSION_KEYRING, none) };
    crate::errno::check(result).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYCTL_GET_KEYRING_ID: libc::c_int = 0;
    const KEY_SPEC_SESSION_KEYRING: libc::c_int = -3;

    fn session() -> Result<libc::c_long, Errno> {
        let (command, which) = (KEYCTL_GET_KEYRING_ID, KEY_SPEC_SESSION_KEYRING);
        // SAFETY: neither argument is an address.
        crate::errno::check(unsafe { libc::syscall(libc::SYS_keyctl, command, which, 1) })
    }

    #[test]
    fn a_session_keyring_is_a_new_one_each_time() {
        // A thread of its own: no other test's is exchanged.
        let joined = std::thread::spawn(|| -> Result<_, Errno> {
            join_new_session_keyring()?;
            let first = session()?;
            join_new_session_keyring()?;
            Ok((first, session()?))
        });
        match joined.join().unwrap() {
            Ok((first, second)) => assert_ne!(first, second),
            // Where the tests run there are none.
            Err(errno) => assert!(matches!(errno, Errno::NOSYS | Errno::PERM), "{errno}"),
        }
    }
}
