//! The machine that the other tests rely on.

use coracle_tests::machine::Machine;
use coracle_tests::needs_root;
use coracle_tests::processes::{descendants, is_alive, namespace};
use coracle_tests::wait::{SOON, wait_for, wait_until};

#[test]
fn a_machine_is_its_own_and_ends_with_the_test() {
    needs_root!();
    let machine = Machine::new();
    let own = std::process::id().cast_signed();
    for kind in ["net", "mnt", "pid", "ipc", "uts"] {
        assert_ne!(namespace(machine.init(), kind), namespace(own, kind), "{kind}");
    }
    let mut entry = machine.command("sleep").arg("1000").spawn().unwrap();
    let parent = entry.id().cast_signed();
    let sleeper = wait_for("the sleeper", SOON, || descendants(parent).into_iter().next());
    // An orphan becomes init's, and is reaped when it ends.
    let orphan = machine.command("sh").args(["-c", "sleep 1001 >/dev/null 2>&1 & echo $!"]).output().unwrap();
    assert!(orphan.status.success());
    wait_until("the orphan to be seen", SOON, || machine.processes().len() >= 2);
    let orphan = machine.processes().into_iter().find(|pid| *pid != sleeper).unwrap();
    coracle_tests::processes::kill(orphan);
    wait_until("the orphan to be reaped", SOON, || !machine.processes().contains(&orphan));
    let directory = machine.path("");
    drop(machine);
    let _ = entry.wait();
    assert!(!is_alive(sleeper));
    assert!(!directory.exists());
}
