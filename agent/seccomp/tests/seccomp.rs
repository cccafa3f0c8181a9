//! What compiled programs decide: against a plain reading of the profile, and on the real kernel.

#[cfg(test)]
mod seccomp {
    mod default;
    mod equivalence;
    mod kernel;
    mod machine;
}
