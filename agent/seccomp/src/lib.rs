//! OCI seccomp profiles compiled to BPF with logarithmic lookup.
