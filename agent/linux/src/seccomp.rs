//! `seccomp(2)` with a filter that is already compiled.

use rustix::io::Errno;

/// One instruction of classic BPF: `struct sock_filter`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct SeccompInstruction {
    /// The operation.
    pub code: u16,
    /// How far to jump if a comparison holds.
    pub jump_true: u8,
    /// How far to jump if it does not.
    pub jump_false: u8,
    /// The operand.
    pub operand: u32,
}

/// Filters the system calls this thread and its children make from now on. Needs no_new_privs or
/// CAP_SYS_ADMIN. `flags` are `SECCOMP_FILTER_FLAG_*`.
pub fn install_seccomp_filter(program: &[SeccompInstruction], flags: u32) -> Result<(), Errno> {
    // The kernel takes at most BPF_MAXINSNS, 4096.
    let length = u16::try_from(program.len()).map_err(|_| Errno::INVAL)?;
    let filter = libc::sock_fprog {
        len: length,
        // The kernel only reads it; the type has no const.
        filter: program.as_ptr().cast_mut().cast(),
    };
    // SAFETY: SeccompInstruction has the layout of sock_filter, and program outlives the call.
    let result =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const filter) };
    crate::errno::check(result).map(drop)
}
