//! What the node's pods may use together.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use super::support::{Subtree, hosts};

#[test]
fn limits_above_the_pods_bound_the_nodes_capacity() {
    for host in hosts() {
        let subtree = Subtree::new(&host);
        let whole = subtree.kubepods.capacity().unwrap();
        assert!(whole.cpu >= 1 && whole.memory > 64 << 20, "{whole:?}");
        let mut limited = false;
        for dir in subtree.dirs() {
            let write = |name: &str, value: &str| {
                let path = dir.join(name);
                let there = path.exists();
                if there {
                    std::fs::write(path, value).unwrap();
                }
                there
            };
            limited |= write("memory.max", "67108864") | write("memory.limit_in_bytes", "67108864");
            write("cpu.max", "20000 100000");
            write("cpu.cfs_quota_us", "20000");
        }
        assert!(limited);
        let left = subtree.kubepods.capacity().unwrap();
        assert_eq!((left.cpu, left.memory), (200.min(whole.cpu), 64 << 20));
    }
}

#[test]
fn the_agents_own_affinity_does_not_bound_the_nodes_capacity() {
    for host in hosts() {
        let subtree = Subtree::new(&host);
        let whole = subtree.kubepods.capacity().unwrap();
        let confined = std::thread::scope(|scope| {
            // The affinity is a thread's.
            let confined = scope.spawn(|| {
                let all = sched_getaffinity(None).unwrap();
                let first = (0..CpuSet::MAX_CPU).find(|cpu| all.is_set(*cpu)).unwrap();
                let mut one = CpuSet::new();
                one.set(first);
                sched_setaffinity(None, &one).unwrap();
                subtree.kubepods.capacity().unwrap()
            });
            confined.join().unwrap()
        });
        assert_eq!(confined, whole);
    }
}
