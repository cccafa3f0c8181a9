//! The store against the real kernel: needs root, for owners, devices, `trusted.*` attributes and
//! overlayfs. Everything happens in temporary directories and detached mounts.

mod layers;
mod rootfs;
mod support;
