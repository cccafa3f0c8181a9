//! Why a profile cannot be used.

/// A profile cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The text is not a profile.
    #[error("seccomp profile: {0}")]
    Json(#[from] serde_json::Error),
    /// The text is too long to be a profile.
    #[error("seccomp profile: it is {size} bytes long; at most {limit} are read")]
    TooLarge {
        /// Its size in bytes.
        size: usize,
        /// The most that is read.
        limit: usize,
    },
    /// Two fields that exclude each other are set.
    #[error("seccomp profile: {first} and {second} cannot both be set{}", place(.entry))]
    Both {
        /// One.
        first: &'static str,
        /// The other.
        second: &'static str,
        /// The entry of `syscalls`, if it is in one.
        entry: Option<usize>,
    },
    /// An entry names no system call.
    #[error("seccomp profile: syscalls[{0}] names no system call")]
    NoNames(usize),
    /// `minKernel` is not a version.
    #[error("seccomp profile: {0:?} is not a kernel version, such as \"4.8\"")]
    KernelVersion(String),
    /// Something that needs a process which answers for the kernel.
    #[error(
        "seccomp profile: {0} is not supported: no agent answers notifications on this node; use SCMP_ACT_ERRNO or SCMP_ACT_TRAP"
    )]
    Notify(String),
    /// An argument that no system call has.
    #[error("seccomp profile: argument {index} of {name}: system calls have arguments 0 to 5")]
    ArgumentIndex {
        /// The system call.
        name: String,
        /// The index.
        index: usize,
    },
    /// An error number the kernel would cut.
    #[error("seccomp profile: errnoRet {0} is larger than 4095, the largest error number")]
    Errno(u32),
    /// The kernel takes no longer program.
    #[error("seccomp profile: it compiles to {0} instructions, the kernel takes at most 4096")]
    TooLong(usize),
    /// OCI's own types refused a value.
    #[error("seccomp profile: {0}")]
    Oci(#[from] oci_spec::OciSpecError),
    /// No table of system calls.
    #[error("seccomp is not supported on {0}")]
    Unsupported(&'static str),
}

fn place(entry: &Option<usize>) -> String {
    entry.map_or_else(String::new, |index| format!(" in syscalls[{index}]"))
}
