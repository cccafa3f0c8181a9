//! The coracle daemon and its command line.

fn main() {}
