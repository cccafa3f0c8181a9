//! Seccomp: the filter holds for the program, and does not stop init from getting there.

use std::os::fd::OwnedFd;

use rustix::fs::MemfdFlags;
use serde_json::json;

use crate::harness::{Container, Image, Recipe, spec};

const ALLOW: u32 = 0x7fff_0000;
const EPERM: u32 = 0x0005_0001;

/// A program that answers the named system calls in one way and all others in another.
fn filter(named: &[i64], answer: u32, otherwise: u32) -> OwnedFd {
    // BPF_LD|BPF_W|BPF_ABS of the number; BPF_JMP|BPF_JEQ|BPF_K to the next-but-one; BPF_RET|BPF_K.
    let mut program = vec![(0x20, 0, 0, 0)];
    for call in named {
        program.extend([(0x15_u16, 0_u8, 1_u8, u32::try_from(*call).unwrap()), (0x06, 0, 0, answer)]);
    }
    program.push((0x06, 0, 0, otherwise));
    let mut bytes = Vec::new();
    for (code, jump_true, jump_false, operand) in program {
        bytes.extend(u16::to_ne_bytes(code));
        bytes.extend([jump_true, jump_false]);
        bytes.extend(u32::to_ne_bytes(operand));
    }
    let file = rustix::fs::memfd_create("filter", MemfdFlags::CLOEXEC).unwrap();
    assert_eq!(rustix::io::write(&file, &bytes).unwrap(), bytes.len());
    file
}

fn no_mkdir() -> OwnedFd {
    #[cfg(target_arch = "x86_64")]
    let calls = [libc::SYS_mkdir, libc::SYS_mkdirat];
    #[cfg(not(target_arch = "x86_64"))]
    let calls = [libc::SYS_mkdirat];
    filter(&calls, EPERM, ALLOW)
}

const SCRIPT: &str = "grep -E '^(NoNewPrivs|Seccomp):' /proc/self/status; mkdir /x 2>&1";

#[test]
fn a_filter_holds_with_no_new_privs() {
    let image = Image::new();
    let mut recipe = Recipe::new(&image, SCRIPT);
    recipe.seccomp = Some(no_mkdir());
    let expected =
        "NoNewPrivs:\t1\nSeccomp:\t2\nmkdir: can't create directory '/x': Operation not permitted\n";
    assert_eq!(recipe.run().unwrap(), expected);
}

#[test]
fn a_filter_holds_without_no_new_privs_for_root_and_others() {
    let image = Image::new();
    for uid in [0, 1000] {
        let mut recipe = Recipe::new(&image, SCRIPT);
        recipe.seccomp = Some(no_mkdir());
        recipe.spec["process"]["noNewPrivileges"] = json!(false);
        recipe.spec["process"]["user"]["uid"] = json!(uid);
        let expected =
            "NoNewPrivs:\t0\nSeccomp:\t2\nmkdir: can't create directory '/x': Operation not permitted\n";
        assert_eq!(recipe.run().unwrap(), expected, "{uid}");
    }
}

#[test]
fn with_no_new_privs_a_filter_that_forbids_all_but_execve_does_not_stop_init() {
    let image = Image::new();
    let mut recipe = Recipe::new(&image, "");
    // The program itself then gets nowhere: it ends by a signal or by an error of its own.
    recipe.seccomp = Some(filter(&[libc::SYS_execve], ALLOW, EPERM));
    let mut container = recipe.create().unwrap();
    container.start().unwrap();
    assert_ne!(container.finish().1, Some(0));
}

#[test]
fn without_no_new_privs_init_needs_few_calls_after_the_filter() {
    let image = Image::new();
    let mut recipe = Recipe::new(&image, "");
    recipe.spec["process"]["noNewPrivileges"] = json!(false);
    let needed = [
        libc::SYS_prctl,
        libc::SYS_capset,
        libc::SYS_sendmsg,
        libc::SYS_recvmsg,
        libc::SYS_execve,
        libc::SYS_mmap,
        libc::SYS_munmap,
        libc::SYS_brk,
    ];
    recipe.seccomp = Some(filter(&needed, ALLOW, EPERM));
    let mut container = recipe.create().unwrap();
    container.start().unwrap();
    container.finish();
}

#[test]
fn an_added_process_is_filtered_with_and_without_no_new_privs() {
    let image = Image::new();
    let mut first = Recipe::new(&image, "exec sleep 1000").create().unwrap();
    first.start().unwrap();
    for no_new_privileges in [true, false] {
        let mut process = spec(SCRIPT)["process"].clone();
        process["noNewPrivileges"] = json!(no_new_privileges);
        process["user"]["uid"] = json!(1000);
        let mut added = Container::join(&first.pidfd(), process, Some(no_mkdir())).unwrap();
        added.start().unwrap();
        let expected = format!(
            "NoNewPrivs:\t{}\nSeccomp:\t2\nmkdir: can't create directory '/x': Operation not permitted\n",
            u8::from(no_new_privileges)
        );
        assert_eq!(added.finish().0, expected);
    }
    rustix::process::kill_process(first.pid(), rustix::process::Signal::KILL).unwrap();
    first.finish();
}

#[test]
fn what_is_no_program_is_refused() {
    let image = Image::new();
    for bytes in [&b""[..], b"1234567", &[0; 8 * 4097]] {
        let file = rustix::fs::memfd_create("filter", MemfdFlags::CLOEXEC).unwrap();
        rustix::io::write(&file, bytes).unwrap();
        let mut recipe = Recipe::new(&image, "");
        recipe.seccomp = Some(file);
        assert_eq!(recipe.run().unwrap_err().step, "seccomp");
    }
    // The right size, but the kernel's checker knows no such instruction.
    let file = rustix::fs::memfd_create("filter", MemfdFlags::CLOEXEC).unwrap();
    rustix::io::write(&file, &[0xff; 16]).unwrap();
    let mut recipe = Recipe::new(&image, "");
    recipe.seccomp = Some(file);
    let failure = recipe.create().unwrap().start().unwrap_err();
    assert_eq!((failure.step.as_str(), failure.errno), ("seccomp", Some(22)));
}
