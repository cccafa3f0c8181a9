//! The few `bpf(2)` commands a device filter on cgroup v2 needs.
//!
//! The kernel has no file for device rules on cgroup v2: a program of type
//! `BPF_PROG_TYPE_CGROUP_DEVICE` attached to the cgroup decides every open and mknod.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_ATTACH: libc::c_int = 8;
const BPF_PROG_GET_FD_BY_ID: libc::c_int = 13;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const BPF_PROG_QUERY: libc::c_int = 16;

const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
const BPF_F_ALLOW_MULTI: u32 = 1 << 1;
const BPF_F_REPLACE: u32 = 1 << 2;

/// The kernel's own limit on programs attached to one cgroup and hook.
const MAX_PROGRAMS: usize = 64;
const NAME_LENGTH: usize = 16;
/// The first attempt to explain a rejected program; longer logs are cut.
const LOG_SIZE: u32 = 64 * 1024;

/// One eBPF instruction, `struct bpf_insn`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Insn {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

/// The verifier or the kernel refused a program.
#[derive(Debug, thiserror::Error)]
#[error("{source}{}{log}", if .log.is_empty() { "" } else { ": " })]
pub struct LoadError {
    /// Why.
    pub source: io::Error,
    /// What the verifier said, empty when it was not reached.
    pub log: String,
}

#[repr(C)]
struct Load {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; NAME_LENGTH],
    prog_ifindex: u32,
    expected_attach_type: u32,
}

#[repr(C)]
struct Attach {
    target_fd: RawFd,
    attach_bpf_fd: RawFd,
    attach_type: u32,
    attach_flags: u32,
    replace_bpf_fd: RawFd,
}

#[repr(C)]
struct Query {
    target_fd: RawFd,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_cnt: u32,
    padding: u32,
}

#[repr(C)]
struct GetFd {
    prog_id: u32,
    next_id: u32,
    open_flags: u32,
}

#[repr(C)]
struct GetInfo {
    bpf_fd: RawFd,
    info_len: u32,
    info: u64,
}

/// The head of `struct bpf_prog_info`, up to the name.
#[repr(C)]
struct ProgramInfo {
    prog_type: u32,
    id: u32,
    tag: [u8; 8],
    jited_prog_len: u32,
    xlated_prog_len: u32,
    jited_prog_insns: u64,
    xlated_prog_insns: u64,
    load_time: u64,
    created_by_uid: u32,
    nr_map_ids: u32,
    map_ids: u64,
    name: [u8; NAME_LENGTH],
}

// === impl Insn ===

impl Insn {
    /// An instruction from its fields; registers are 0 to 10.
    pub const fn new(code: u8, destination: u8, source: u8, offset: i16, immediate: i32) -> Self {
        Self { code, registers: destination | source << 4, offset, immediate }
    }

    /// The operation.
    pub const fn code(self) -> u8 {
        self.code
    }

    /// The destination register.
    pub const fn destination(self) -> u8 {
        self.registers & 0xf
    }

    /// The source register.
    pub const fn source(self) -> u8 {
        self.registers >> 4
    }

    /// The jump or memory offset.
    pub const fn offset(self) -> i16 {
        self.offset
    }

    /// The constant.
    pub const fn immediate(self) -> i32 {
        self.immediate
    }
}

/// Loads a device filter. `name` is cut to 15 bytes; the kernel takes letters, digits, `_` and `.`.
///
/// # Errors
/// What `bpf(2)` gives, with the verifier's log: `EPERM` without CAP_BPF and CAP_NET_ADMIN or
/// CAP_SYS_ADMIN, `EINVAL` on a kernel without CONFIG_CGROUP_BPF.
pub fn load_device_filter(program: &[Insn], name: &str) -> Result<OwnedFd, LoadError> {
    // The verifier's log costs time and is only of interest when the program is refused.
    let source = match load(program, name, &mut []) {
        Ok(fd) => return Ok(fd),
        Err(source) => source,
    };
    let mut buffer = vec![0; LOG_SIZE as usize];
    match load(program, name, &mut buffer) {
        Ok(fd) => Ok(fd),
        Err(_) => {
            let end = buffer.iter().position(|byte| *byte == 0).unwrap_or(buffer.len());
            Err(LoadError { source, log: String::from_utf8_lossy(&buffer[..end]).trim().to_owned() })
        }
    }
}

fn load(program: &[Insn], name: &str, log: &mut [u8]) -> io::Result<OwnedFd> {
    const LICENSE: &CStr = c"Apache-2.0";
    let mut attr = Load {
        prog_type: BPF_PROG_TYPE_CGROUP_DEVICE,
        insn_cnt: u32::try_from(program.len()).map_err(|_| io::Error::from_raw_os_error(libc::E2BIG))?,
        insns: program.as_ptr().addr() as u64,
        license: LICENSE.as_ptr().addr() as u64,
        log_level: u32::from(!log.is_empty()),
        log_size: u32::try_from(log.len()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?,
        log_buf: if log.is_empty() { 0 } else { log.as_mut_ptr().addr() as u64 },
        kern_version: 0,
        prog_flags: 0,
        prog_name: [0; NAME_LENGTH],
        prog_ifindex: 0,
        expected_attach_type: BPF_CGROUP_DEVICE,
    };
    for (to, from) in attr.prog_name.iter_mut().take(NAME_LENGTH - 1).zip(name.bytes()) {
        *to = from;
    }
    // SAFETY: the attribute is the layout BPF_PROG_LOAD reads; its pointers are to `program`, a static
    // string and `log`, each alive for the call and of the length given beside it.
    let fd = unsafe { bpf(BPF_PROG_LOAD, &mut attr)? };
    // SAFETY: BPF_PROG_LOAD returns a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Attaches a device filter to a cgroup v2 directory, beside those others attached, or in the place of
/// `replace`. Every attached program must allow an access, those of the parents too.
///
/// # Errors
/// `EPERM` when a parent's program was attached so that children may not have their own; `ENOENT` when
/// `replace` is not attached.
pub fn attach_device_filter(
    cgroup: BorrowedFd<'_>,
    program: BorrowedFd<'_>,
    replace: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let mut attr = Attach {
        target_fd: cgroup.as_raw_fd(),
        attach_bpf_fd: program.as_raw_fd(),
        attach_type: BPF_CGROUP_DEVICE,
        attach_flags: BPF_F_ALLOW_MULTI | if replace.is_some() { BPF_F_REPLACE } else { 0 },
        replace_bpf_fd: replace.map_or(0, |fd| fd.as_raw_fd()),
    };
    // SAFETY: the attribute is the layout BPF_PROG_ATTACH reads and holds no pointer.
    unsafe { bpf(BPF_PROG_ATTACH, &mut attr)? };
    Ok(())
}

/// The identifiers of the device filters attached to this cgroup itself.
///
/// # Errors
/// What `bpf(2)` gives.
pub fn attached_device_filters(cgroup: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    let mut ids = vec![0_u32; MAX_PROGRAMS];
    let mut attr = Query {
        target_fd: cgroup.as_raw_fd(),
        attach_type: BPF_CGROUP_DEVICE,
        query_flags: 0,
        attach_flags: 0,
        prog_ids: ids.as_mut_ptr().addr() as u64,
        prog_cnt: MAX_PROGRAMS as u32,
        padding: 0,
    };
    // SAFETY: the attribute is the layout BPF_PROG_QUERY reads and writes; `ids` is alive for the call
    // and has room for the `prog_cnt` identifiers the kernel may write.
    unsafe { bpf(BPF_PROG_QUERY, &mut attr)? };
    ids.truncate(attr.prog_cnt as usize);
    Ok(ids)
}

/// A descriptor of a loaded program.
///
/// # Errors
/// `ENOENT` when it is gone.
pub fn program_by_id(id: u32) -> io::Result<OwnedFd> {
    let mut attr = GetFd { prog_id: id, next_id: 0, open_flags: 0 };
    // SAFETY: the attribute is the layout BPF_PROG_GET_FD_BY_ID reads and holds no pointer.
    let fd = unsafe { bpf(BPF_PROG_GET_FD_BY_ID, &mut attr)? };
    // SAFETY: the command returns a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The name a program was loaded under.
///
/// # Errors
/// What `bpf(2)` gives.
pub fn program_name(program: BorrowedFd<'_>) -> io::Result<String> {
    let mut info = ProgramInfo {
        prog_type: 0,
        id: 0,
        tag: [0; 8],
        jited_prog_len: 0,
        xlated_prog_len: 0,
        jited_prog_insns: 0,
        xlated_prog_insns: 0,
        load_time: 0,
        created_by_uid: 0,
        nr_map_ids: 0,
        map_ids: 0,
        name: [0; NAME_LENGTH],
    };
    let mut attr = GetInfo {
        bpf_fd: program.as_raw_fd(),
        info_len: size_of::<ProgramInfo>() as u32,
        info: (&raw mut info).addr() as u64,
    };
    // SAFETY: the attribute is the layout BPF_OBJ_GET_INFO_BY_FD reads; `info` is alive for the call and
    // `info_len` bytes long; all lengths inside are zero, so the kernel follows no pointer of it.
    unsafe { bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attr)? };
    let end = info.name.iter().position(|byte| *byte == 0).unwrap_or(NAME_LENGTH);
    Ok(String::from_utf8_lossy(&info.name[..end]).into_owned())
}

/// `bpf(2)`.
///
/// # Safety
/// `attr` must be the layout `command` reads, and every pointer in it valid for what the command does.
unsafe fn bpf<T>(command: libc::c_int, attr: &mut T) -> io::Result<RawFd> {
    // SAFETY: the caller vouches for `attr`; its size is given, and the kernel reads and writes no more.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<T>()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    RawFd::try_from(result).map_err(|_| io::Error::from_raw_os_error(libc::EOVERFLOW))
}
