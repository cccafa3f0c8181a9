//! Programs in force. A filter holds for the thread that installs it, so each test has one of its own
//! that ends with it. Needs root or no_new_privs, which is set.

use coracle_linux::bpf::{Insn, load_device_filter};
use coracle_linux::{SeccompInstruction, install_seccomp_filter, unshare_mount_namespace};
use coracle_seccomp::{Cache, CapSet, Host, Program};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketType, socket};
use rustix::thread::set_no_new_privs;

/// What a closure returns under a filter.
fn under<T: Send>(program: &Program, call: impl FnOnce() -> T + Send) -> T {
    let instructions: Vec<SeccompInstruction> = program
        .bytes()
        .chunks_exact(8)
        .map(|b| SeccompInstruction {
            code: u16::from_ne_bytes([b[0], b[1]]),
            jump_true: b[2],
            jump_false: b[3],
            operand: u32::from_ne_bytes([b[4], b[5], b[6], b[7]]),
        })
        .collect();
    std::thread::scope(|scope| {
        let filtered = scope.spawn(|| {
            set_no_new_privs(true).unwrap();
            install_seccomp_filter(&instructions, program.flags()).unwrap();
            call()
        });
        filtered.join().unwrap()
    })
}

fn default_for(capabilities: &[&str]) -> std::sync::Arc<Program> {
    Cache::new(Host::detect().unwrap()).default_profile(&capabilities.iter().collect()).unwrap()
}

#[test]
fn the_default_profile_keeps_namespaces_closed() {
    assert_eq!(under(&default_for(&[]), unshare_mount_namespace), Err(Errno::PERM));
    assert_eq!(
        under(&default_for(&["SYS_ADMIN"]), unshare_mount_namespace),
        Ok(()),
        "the filter was the reason"
    );
}

#[test]
fn the_default_profile_keeps_bpf_closed() {
    let load = || load_device_filter(&[Insn::new(0xb7, 0, 0, 0, 1), Insn::new(0x95, 0, 0, 0, 0)], "test");
    let refused = under(&default_for(&[]), || load().map(drop).map_err(|error| error.source.raw_os_error()));
    assert_eq!(refused, Err(Some(libc::EPERM)));
    assert!(under(&default_for(&["BPF"]), || load().is_ok()), "the filter was the reason");
}

#[test]
fn the_default_profile_lets_programs_work() {
    under(&default_for(&[]), || {
        assert!(std::process::Command::new("/bin/true").status().unwrap().success());
        // clone3 answers ENOSYS, so libc takes clone.
        assert_eq!(std::thread::spawn(|| 7).join().unwrap(), 7);
        assert!(std::fs::read_to_string("/proc/self/status").unwrap().contains("Seccomp:"));
        socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
        for family in [AddressFamily::VSOCK, AddressFamily::from_raw(38)] {
            assert_eq!(socket(family, SocketType::STREAM, None).unwrap_err(), Errno::PERM);
        }
    });
}

#[test]
fn a_profile_from_a_file_holds_for_children_too() {
    let text = br#"{
        "defaultAction": "SCMP_ACT_ALLOW",
        "flags": ["SECCOMP_FILTER_FLAG_LOG"],
        "syscalls": [{"names": ["uname"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}]
    }"#;
    let program = Cache::new(Host::detect().unwrap()).profile(text, &CapSet::default()).unwrap();
    let output = under(&program, || std::process::Command::new("uname").env("LC_ALL", "C").output().unwrap());
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("not implemented"), "{output:?}");
}

#[test]
fn the_kernel_takes_the_longest_programs_we_make() {
    // Argument rules for many calls: sections longer than a conditional jump can reach over.
    let entry = |(errno, name): (usize, &str)| {
        format!(
            r#"{{"names":["{name}"],"action":"SCMP_ACT_ERRNO","errnoRet":{errno},"args":[{{"index":5,"value":{},"op":"SCMP_CMP_EQ"}},{{"index":4,"value":3,"op":"SCMP_CMP_EQ"}}]}}"#,
            u64::MAX - 12345
        )
    };
    let names: Vec<String> =
        syscalls::Sysno::iter().take(300).map(|call| call.name()).enumerate().map(entry).collect();
    let text = format!(r#"{{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{}]}}"#, names.join(","));
    let program = Cache::new(Host::detect().unwrap()).profile(text.as_bytes(), &CapSet::default()).unwrap();
    assert!(program.instructions().len() > 3000, "{}", program.instructions().len());
    under(&program, || assert!(std::process::Command::new("/bin/true").status().unwrap().success()));
}
