//! The default profile.

use coracle_seccomp::{Architecture, CapSet, compile, default_profile};
use syscalls::{aarch64, x86, x86_64};

use super::machine::{Call, run};

const ALLOW: u32 = 0x7fff_0000;
const EPERM: u32 = 0x0005_0001;
const ENOSYS: u32 = 0x0005_0026;
const X86_64: u32 = 0xc000_003e;
const X86: u32 = 0x4000_0003;
const AARCH64: u32 = 0xc000_00b7;

fn ask(capabilities: &[&str], number: i32, arguments: [u64; 2]) -> u32 {
    let profile = default_profile(Architecture::X86_64, &capabilities.iter().collect()).unwrap();
    let program = compile(&profile, Architecture::X86_64).unwrap();
    let arguments = [arguments[0], arguments[1], 0, 0, 0, 0];
    run(program.instructions(), Call { number: number as u32, architecture: X86_64, arguments }).0
}

#[test]
fn what_needs_no_privilege_is_allowed_and_the_rest_refused() {
    use x86_64::Sysno as S;
    for call in [S::read, S::execve, S::futex, S::ptrace, S::openat2, S::statmount, S::getxattrat] {
        assert_eq!(ask(&[], call.id(), [0, 0]), ALLOW, "{call}");
    }
    for call in [
        S::mount,
        S::unshare,
        S::setns,
        S::bpf,
        S::reboot,
        S::keyctl,
        S::add_key,
        S::kexec_load,
        S::io_uring_setup,
        S::userfaultfd,
        S::pivot_root,
        S::open_by_handle_at,
        S::swapon,
        S::init_module,
        S::perf_event_open,
        S::mbind,
        S::syslog,
        S::settimeofday,
        S::chroot,
    ] {
        assert_eq!(ask(&[], call.id(), [0, 0]), EPERM, "{call}");
    }
    assert_eq!(ask(&[], 5000, [0, 0]), EPERM, "a call of the future");
    assert_eq!(ask(&[], 0x4000_0000, [0, 0]), ENOSYS, "read of x32");
    assert_eq!(ask(&["SYS_ADMIN"], 0x4000_0000 + 520, [0, 0]), ENOSYS);
}

#[test]
fn capabilities_add_what_they_need() {
    use x86_64::Sysno as S;
    for (capability, call) in [
        ("SYS_ADMIN", S::mount),
        ("SYS_ADMIN", S::clone3),
        ("SYS_ADMIN", S::unshare),
        ("BPF", S::bpf),
        ("PERFMON", S::perf_event_open),
        ("SYSLOG", S::syslog),
        ("SYS_BOOT", S::reboot),
        ("SYS_CHROOT", S::chroot),
        ("SYS_MODULE", S::finit_module),
        ("SYS_NICE", S::mbind),
        ("SYS_PACCT", S::acct),
        ("SYS_PTRACE", S::kcmp),
        ("SYS_RAWIO", S::iopl),
        ("SYS_TIME", S::settimeofday),
        ("SYS_TTY_CONFIG", S::vhangup),
        ("DAC_READ_SEARCH", S::open_by_handle_at),
    ] {
        assert_ne!(ask(&[], call.id(), [0, 0]), ALLOW, "{call} without {capability}");
        assert_eq!(ask(&[capability], call.id(), [0, 0]), ALLOW, "{call} with {capability}");
        assert_eq!(ask(&[&format!("CAP_{capability}")], call.id(), [0, 0]), ALLOW);
    }
}

#[test]
fn arguments_that_matter_are_looked_at() {
    use x86_64::Sysno as S;
    const NEWUSER: u64 = 0x1000_0000;
    assert_eq!(ask(&[], S::clone.id(), [0x11, 0]), ALLOW, "fork");
    assert_eq!(ask(&[], S::clone.id(), [0x11 | NEWUSER, 0]), EPERM);
    assert_eq!(ask(&[], S::clone.id(), [0x11 | 0x0200_0000, 0]), EPERM, "a cgroup namespace");
    assert_eq!(ask(&["SYS_ADMIN"], S::clone.id(), [0x11 | NEWUSER, 0]), ALLOW);
    assert_eq!(ask(&[], S::clone3.id(), [0, 0]), ENOSYS);
    for (family, answer) in
        [(1, ALLOW), (2, ALLOW), (37, ALLOW), (38, EPERM), (39, ALLOW), (40, EPERM), (41, ALLOW)]
    {
        assert_eq!(ask(&[], S::socket.id(), [family, 1]), answer, "address family {family}");
    }
    for (personality, answer) in [
        (0, ALLOW),
        (8, ALLOW),
        (0x20000, ALLOW),
        (0x20008, ALLOW),
        (0xffff_ffff, ALLOW),
        (0x0004_0000, EPERM),
    ] {
        assert_eq!(ask(&[], S::personality.id(), [personality, 0]), answer, "personality {personality:#x}");
    }
}

#[test]
fn other_architectures_have_their_own_numbers() {
    let profile = default_profile(Architecture::X86_64, &CapSet::default()).unwrap();
    let program = compile(&profile, Architecture::X86_64).unwrap();
    let ask = |architecture, number: i32| {
        run(program.instructions(), Call { number: number as u32, architecture, arguments: [0; 6] }).0
    };
    assert_eq!(ask(X86, x86::Sysno::waitpid.id()), ALLOW);
    assert_eq!(ask(X86, x86::Sysno::mount.id()), EPERM);
    assert_eq!(ask(AARCH64, aarch64::Sysno::read.id()), 0x8000_0000, "not of this node");

    let profile = default_profile(Architecture::Aarch64, &CapSet::default()).unwrap();
    let program = compile(&profile, Architecture::Aarch64).unwrap();
    let ask = |architecture, number: i32| {
        run(program.instructions(), Call { number: number as u32, architecture, arguments: [0; 6] }).0
    };
    assert_eq!(ask(AARCH64, aarch64::Sysno::fstatat.id()), ALLOW);
    assert_eq!(ask(AARCH64, aarch64::Sysno::mount.id()), EPERM);
    assert_eq!(ask(0x4000_0028, 0xf0005), ALLOW, "set_tls of 32-bit ARM");
}

#[test]
fn the_way_to_an_answer_is_logarithmic() {
    for capabilities in [CapSet::default(), CapSet::from_iter(["SYS_ADMIN", "BPF", "SYS_PTRACE"])] {
        let profile = default_profile(Architecture::X86_64, &capabilities).unwrap();
        let program = compile(&profile, Architecture::X86_64).unwrap();
        let steps = |number: u32, argument| {
            let call = Call { number, architecture: X86_64, arguments: [argument; 6] };
            run(program.instructions(), call).1
        };
        let with_rules: Vec<u32> = [x86_64::Sysno::socket, x86_64::Sysno::personality, x86_64::Sysno::clone]
            .map(|c| c as u32)
            .into();
        let plain: Vec<usize> =
            (0..480).filter(|n| !with_rules.contains(n)).map(|number| steps(number, 0)).collect();
        let worst = *plain.iter().max().unwrap();
        let arguments =
            with_rules.iter().flat_map(|n| [0, 5, 39, 40, u64::MAX].map(|a| steps(*n, a))).max().unwrap();
        let mean = plain.iter().sum::<usize>() as f64 / plain.len() as f64;
        eprintln!(
            "{} instructions; executed: {mean:.1} on average, {worst} at most, {arguments} with arguments to look at",
            program.instructions().len()
        );
        // Two loads, the architecture, an answer, and one comparison per doubling of some 120 intervals.
        assert!(worst <= 4 + 8, "{worst}");
        // Five personalities are four instructions each.
        assert!(arguments <= 4 + 8 + 20, "{arguments}");
    }
}
