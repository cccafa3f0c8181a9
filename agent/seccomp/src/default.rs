//! The profile of containers that name none: equal in effect to containerd's.
//!
//! Everything is refused with EPERM but what is listed. The lists follow containerd's
//! `contrib/seccomp/seccomp_default.go` (2.x, with AF_ALG closed since CVE-2026-31431) and hold what a
//! program without privileges needs; io_uring is left out for its record of escapes. Calls of several
//! architectures stand side by side: each takes those it has. The kernels that can run this node are
//! newer than any that call for a difference.

use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompArgBuilder, LinuxSeccompOperator,
    LinuxSyscall,
};

use crate::{Architecture, CapSet, Error};

/// What every container may call.
const ALWAYS: &str = "
    accept accept4 access adjtimex alarm bind brk cachestat capget capset chdir chmod chown chown32
    clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64
    clock_nanosleep clock_nanosleep_time64 close close_range connect copy_file_range creat dup dup2 dup3
    epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait
    epoll_wait_old eventfd eventfd2 execve execveat exit exit_group faccessat faccessat2 fadvise64
    fadvise64_64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat
    fcntl fcntl64 fdatasync fgetxattr flistxattr flock fork fremovexattr fsetxattr fstat fstat64
    fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 futex futex_requeue futex_time64 futex_wait
    futex_waitv futex_wake futimesat get_robust_list get_thread_area getcpu getcwd getdents getdents64
    getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getitimer getpeername
    getpgid getpgrp getpid getppid getpriority getrandom getresgid getresgid32 getresuid getresuid32
    getrlimit getrusage getsid getsockname getsockopt gettid gettimeofday getuid getuid32 getxattr
    getxattrat inotify_add_watch inotify_init inotify_init1 inotify_rm_watch io_cancel io_destroy
    io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit ioctl ioprio_get ioprio_set ipc
    kill landlock_add_rule landlock_create_ruleset landlock_restrict_self lchown lchown32 lgetxattr
    link linkat listen listmount listxattr listxattrat llistxattr _llseek lremovexattr lseek lsetxattr
    lsm_get_self_attr lsm_list_modules lsm_set_self_attr lstat lstat64 madvise map_shadow_stack
    membarrier memfd_create memfd_secret mincore mkdir mkdirat mknod mknodat mlock mlock2 mlockall mmap
    mmap2 mprotect mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend
    mq_timedsend_time64 mq_unlink mremap mseal msgctl msgget msgrcv msgsnd msync munlock munlockall
    munmap name_to_handle_at nanosleep newfstatat _newselect open openat openat2 pause pidfd_open
    pidfd_send_signal pipe pipe2 pkey_alloc pkey_free pkey_mprotect poll ppoll ppoll_time64 prctl
    pread64 preadv preadv2 prlimit64 process_mrelease process_vm_readv process_vm_writev pselect6
    pselect6_time64 ptrace pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv recv
    recvfrom recvmmsg recvmmsg_time64 recvmsg remap_file_pages removexattr removexattrat rename
    renameat renameat2 restart_syscall rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask
    rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo
    sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr sched_getparam
    sched_getscheduler sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity
    sched_setattr sched_setparam sched_setscheduler sched_yield seccomp select semctl semget semop
    semtimedop semtimedop_time64 send sendfile sendfile64 sendmmsg sendmsg sendto set_robust_list
    set_thread_area set_tid_address setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups
    setgroups32 setitimer setpgid setpriority setregid setregid32 setresgid setresgid32 setresuid
    setresuid32 setreuid setreuid32 setrlimit setsid setsockopt setuid setuid32 setxattr setxattrat
    shmat shmctl shmdt shmget shutdown sigaltstack signalfd signalfd4 sigprocmask sigreturn socketcall
    socketpair splice stat stat64 statfs statfs64 statmount statx symlink symlinkat sync
    sync_file_range syncfs sysinfo tee tgkill time timer_create timer_delete timer_getoverrun
    timer_gettime timer_gettime64 timer_settime timer_settime64 timerfd_create timerfd_gettime
    timerfd_gettime64 timerfd_settime timerfd_settime64 times tkill truncate truncate64 ugetrlimit umask
    uname unlink unlinkat uretprobe utime utimensat utimensat_time64 utimes vfork vmsplice wait4 waitid
    waitpid write writev";

/// What x86 has of its own.
const X86: &str = "arch_prctl modify_ldt";

/// What ARM has of its own.
const ARM: &str = "arm_fadvise64_64 arm_sync_file_range sync_file_range2 breakpoint cacheflush set_tls";

/// What a capability that is in the bounding set adds.
const BY_CAPABILITY: &[(&str, &str)] = &[
    ("BPF", "bpf"),
    ("DAC_READ_SEARCH", "open_by_handle_at"),
    ("PERFMON", "perf_event_open"),
    (
        "SYS_ADMIN",
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie mount mount_setattr
         move_mount open_tree perf_event_open quotactl quotactl_fd setdomainname sethostname setns syslog
         umount umount2 unshare",
    ),
    ("SYSLOG", "syslog"),
    ("SYS_BOOT", "reboot"),
    ("SYS_CHROOT", "chroot"),
    ("SYS_MODULE", "delete_module init_module finit_module"),
    ("SYS_NICE", "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
    ("SYS_PACCT", "acct"),
    ("SYS_PTRACE", "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev ptrace"),
    ("SYS_RAWIO", "iopl ioperm"),
    ("SYS_TIME", "settimeofday stime clock_settime clock_settime64"),
    ("SYS_TTY_CONFIG", "vhangup"),
];

/// Personalities that change nothing of the kernel's protections: Linux, Linux with 16-bit user
/// identifiers (UNAME26 and both), and the question for the current one.
const PERSONALITIES: [u64; 5] = [0x0, 0x0008, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID and NEWNET.
const NAMESPACES: u64 =
    0x0002_0000 | 0x0200_0000 | 0x0400_0000 | 0x0800_0000 | 0x1000_0000 | 0x2000_0000 | 0x4000_0000;

/// The kernel's crypto API, a recurrent way to escalate privileges.
const AF_ALG: u64 = 38;
/// Sockets between virtual machines and their host, which no network policy sees.
const AF_VSOCK: u64 = 40;

const ENOSYS: u32 = 38;

/// The default profile for a container with this bounding set.
///
/// # Errors
/// None that a capability set could cause.
pub fn default_profile(architecture: Architecture, capabilities: &CapSet) -> Result<LinuxSeccomp, Error> {
    use LinuxSeccompOperator::{ScmpCmpEq, ScmpCmpGt, ScmpCmpLt, ScmpCmpMaskedEq};
    let (own, architectures) = match architecture {
        Architecture::X86_64 => (X86, vec![Arch::ScmpArchX86_64, Arch::ScmpArchX86, Arch::ScmpArchX32]),
        Architecture::Aarch64 => (ARM, vec![Arch::ScmpArchAarch64, Arch::ScmpArchArm]),
    };
    let mut rules = vec![
        allow(ALWAYS, None),
        allow(own, None),
        allow("socket", Some(condition(ScmpCmpLt, AF_ALG)?)),
        allow("socket", Some(condition(ScmpCmpEq, 39)?)),
        allow("socket", Some(condition(ScmpCmpGt, AF_VSOCK)?)),
    ];
    for personality in PERSONALITIES {
        rules.push(allow("personality", Some(condition(ScmpCmpEq, personality)?)));
    }
    for (capability, calls) in BY_CAPABILITY {
        if capabilities.contains(capability) {
            rules.push(allow(calls, None));
        }
    }
    if !capabilities.contains("SYS_ADMIN") {
        rules.push(allow("clone", Some(condition(ScmpCmpMaskedEq, NAMESPACES)?)));
        // clone3's flags lie in memory, where a filter cannot look. ENOSYS makes libc fall back on clone.
        let mut clone3 = allow("clone3", None);
        clone3.set_action(LinuxSeccompAction::ScmpActErrno).set_errno_ret(Some(ENOSYS));
        rules.push(clone3);
    }
    let mut profile = LinuxSeccomp::default();
    profile
        .set_default_action(LinuxSeccompAction::ScmpActErrno)
        .set_architectures(Some(architectures))
        .set_syscalls(Some(rules));
    Ok(profile)
}

fn allow(names: &str, condition: Option<LinuxSeccompArg>) -> LinuxSyscall {
    let mut rule = LinuxSyscall::default();
    rule.set_names(names.split_whitespace().map(str::to_owned).collect())
        .set_action(LinuxSeccompAction::ScmpActAllow)
        .set_args(condition.map(|condition| vec![condition]));
    rule
}

fn condition(op: LinuxSeccompOperator, value: u64) -> Result<LinuxSeccompArg, Error> {
    // Of the operators used here only SCMP_CMP_MASKED_EQ has a second value, and it is 0, as left out.
    Ok(LinuxSeccompArgBuilder::default().index(0_usize).value(value).op(op).build()?)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::compile;

    #[test]
    fn every_name_is_a_system_call_of_some_architecture_and_stands_once() {
        let all: CapSet = BY_CAPABILITY.iter().map(|(name, _)| *name).collect();
        for architecture in [Architecture::X86_64, Architecture::Aarch64] {
            let program = compile(&default_profile(architecture, &all).unwrap(), architecture).unwrap();
            assert_eq!(program.unknown(), [] as [&str; 0]);
        }
        let names: Vec<&str> = ALWAYS.split_whitespace().collect();
        let distinct: BTreeSet<&str> = names.iter().copied().collect();
        assert_eq!(names.len(), distinct.len());
        assert!(!names.iter().any(|name| name.starts_with("io_uring")));
    }
}
