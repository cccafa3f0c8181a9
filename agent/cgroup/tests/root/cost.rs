//! What a container's cgroup costs, for `cargo test -- --ignored --nocapture cost`.

use std::time::{Duration, Instant};

use coracle_cgroup::{DevicePolicy, Limits};

use super::support::{Subtree, container, hosts};

const ROUNDS: usize = 100;
/// Attaches close together share one RCU grace period; this lets it pass.
const QUIET: Duration = Duration::from_millis(50);

#[test]
#[ignore = "a measurement, not a test"]
fn cost_of_a_container() {
    for host in hosts() {
        let subtree = Subtree::new(&host);
        let pod = subtree.pod(&Limits { pids: Some(1000), ..Limits::default() });
        let limits = Limits { cpu_shares: Some(100), memory: Some(64 << 20), ..Limits::default() };
        let mut times: [Vec<Duration>; 6] = Default::default();
        for _ in 0..ROUNDS {
            let started = Instant::now();
            let cgroup = container(&pod, &limits, &DevicePolicy::default());
            times[0].push(started.elapsed());

            // What a process does by itself: a fork of a shell that writes 0 to each.
            let procs = cgroup.attachment().unwrap().procs;
            let mut child = std::process::Command::new("/bin/sleep").arg("1000").spawn().unwrap();
            let pid = child.id().to_string();
            std::thread::sleep(QUIET);
            let started = Instant::now();
            for fd in &procs {
                rustix::io::write(fd, pid.as_bytes()).unwrap();
            }
            times[1].push(started.elapsed());
            child.kill().unwrap();
            child.wait().unwrap();

            // The same with the grace period taken beforehand.
            let warmed = container(&pod, &limits, &DevicePolicy::default());
            let procs = warmed.attachment().unwrap().procs;
            let mut child = std::process::Command::new("/bin/sleep").arg("1000").spawn().unwrap();
            let pid = child.id().to_string();
            std::thread::sleep(QUIET);
            let started = Instant::now();
            host.warm_attach().unwrap();
            times[4].push(started.elapsed());
            let started = Instant::now();
            for fd in &procs {
                rustix::io::write(fd, pid.as_bytes()).unwrap();
            }
            times[5].push(started.elapsed());
            child.kill().unwrap();
            child.wait().unwrap();
            warmed.remove().unwrap();

            let started = Instant::now();
            cgroup.remove().unwrap();
            times[2].push(started.elapsed());

            // The naive way: into a group of every v1 hierarchy.
            let dirs: Vec<_> = subtree.dirs().into_iter().map(|dir| dir.join("naive")).collect();
            let all: Vec<_> = every_hierarchy(&dirs);
            let mut child = std::process::Command::new("/bin/sleep").arg("1000").spawn().unwrap();
            let pid = child.id().to_string();
            std::thread::sleep(QUIET);
            let started = Instant::now();
            for dir in &all {
                std::fs::write(dir.join("cgroup.procs"), &pid).unwrap();
            }
            times[3].push(started.elapsed());
            child.kill().unwrap();
            child.wait().unwrap();
            for dir in &all {
                let _ = std::fs::remove_dir(dir);
                // Fails where the subtree has its own directories.
                let _ = std::fs::remove_dir(dir.parent().unwrap());
            }
        }
        for (name, times) in
            ["ensure", "attach", "remove", "attach to every hierarchy", "warm_attach", "attach after it"]
                .iter()
                .zip(&mut times)
        {
            times.sort();
            eprintln!(
                "{:?} {name}: p50 {:?} p90 {:?} min {:?} max {:?}",
                host.mode(),
                times[ROUNDS / 2],
                times[ROUNDS * 9 / 10],
                times[0],
                times[ROUNDS - 1]
            );
        }
    }
}

/// A new group in each v1 hierarchy of the host.
fn every_hierarchy(used: &[std::path::PathBuf]) -> Vec<std::path::PathBuf> {
    let name = used[0].strip_prefix("/").unwrap().components().rev().nth(1).unwrap().as_os_str().to_owned();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    mounts
        .lines()
        .filter(|line| line.contains(" - cgroup ") && !line.contains("cpuset"))
        .map(|line| std::path::Path::new(line.split(' ').nth(4).unwrap()).join(&name).join("naive"))
        .filter(|dir| std::fs::create_dir_all(dir).is_ok())
        .collect()
}
