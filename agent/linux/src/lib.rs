//! Safe wrappers over system calls no crate offers.
