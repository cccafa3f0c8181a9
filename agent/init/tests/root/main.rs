//! Init against the real kernel, as root. Everything happens in namespaces and directories of its own.

mod create;
mod exec;
mod failures;
mod harness;
mod hostile;
mod seccomp;
mod shared_pid;
