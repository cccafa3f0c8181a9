//! The VM itself: that a test in it means something.

use std::time::Duration;

use coracle_tests::vm::Vm;

#[test]
#[ignore = "needs a VM: make test-vm"]
fn what_runs_in_it_comes_back() {
    let mut vm = Vm::restore();
    let ended = vm.run("echo out; echo error >&2; head -c 3 /dev/zero; exit 7");
    assert_eq!((ended.code, ended.output.as_slice()), (7, b"out\nerror\n\0\0\0".as_slice()));
    let ended = vm.run_for(Duration::from_secs(1), "echo before; sleep infinity");
    assert_eq!((ended.code, ended.output.as_slice()), (124, b"before\n".as_slice()));
    let bytes: Vec<u8> = (0..300_000u32).flat_map(u32::to_le_bytes).collect();
    vm.put("/srv/a file", &bytes);
    assert!(vm.get("/srv/a file") == bytes, "a file comes back as it was");
    assert_eq!(vm.ok("stat -f -c %T /sys/fs/cgroup; ps -o comm= 1"), "cgroup2fs\nsystemd");
    assert!(vm.journal().contains("Do what the driver of the VM asks for"));
}
