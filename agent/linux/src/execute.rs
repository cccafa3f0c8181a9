//! `execve(2)`.

use std::convert::Infallible;
use std::ffi::{CStr, CString};

use rustix::io::Errno;

/// Replaces the program of this process. Returns only when that failed.
pub fn execve(program: &CStr, arguments: &[CString], environment: &[CString]) -> Result<Infallible, Errno> {
    let arguments = pointers(arguments);
    let environment = pointers(environment);
    // SAFETY: both lists end with a null pointer, and the strings in them outlive the call.
    let result = unsafe {
        libc::syscall(libc::SYS_execve, program.as_ptr(), arguments.as_ptr(), environment.as_ptr())
    };
    Err(crate::errno::check(result).err().unwrap_or(Errno::INVAL))
}

fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings.iter().map(|string| string.as_ptr()).chain([std::ptr::null()]).collect()
}
