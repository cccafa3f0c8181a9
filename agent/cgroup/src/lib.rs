//! Pod and container cgroups on cgroup v2 and v1.
