//! Init against the real kernel, as root. Everything happens in namespaces and directories of its own.

mod create;
mod failures;
mod harness;
