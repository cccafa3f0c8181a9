//! The environment of this process.

use std::fs;
use std::io;

/// Removes variables from this process's environment, so that nothing it starts inherits them.
///
/// # Errors
/// Where the process has more than one thread, or it cannot be told: another could read the environment meanwhile.
pub fn forget_variables(names: &[&str]) -> io::Result<()> {
    let threads = fs::read_dir("/proc/self/task")?.count();
    if threads != 1 {
        return Err(io::Error::other(format!("the process has {threads} threads")));
    }
    for name in names {
        // SAFETY: this is the only thread, so nobody reads the environment meanwhile.
        unsafe { std::env::remove_var(name) };
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_threads_keeps_its_environment() {
        // Tests run on threads of their own.
        let error = forget_variables(&["PATH"]).unwrap_err();
        assert!(error.to_string().contains("threads"), "{error}");
        assert!(std::env::var_os("PATH").is_some());
    }
}
