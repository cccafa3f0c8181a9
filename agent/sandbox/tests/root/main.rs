//! The runtime against the real kernel, as root. Everything happens in directories, namespaces and cgroups
//! of the test's own.

mod pause;
