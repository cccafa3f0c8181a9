//! Cgroups on the real kernel. Needs root; runs on whatever mode the host has, and on a hybrid host
//! also as if it had cgroup v1 only. Everything lies below a parent of its own and is removed.

#[cfg(test)]
mod root {
    mod capacity;
    mod classes;
    mod cost;
    mod exec;
    mod kill;
    mod lifecycle;
    mod limits;
    mod support;
    mod systemd;
}
