//! Any bytes as a seccomp profile: an error or a program that the kernel's checks would let pass.

#![no_main]

use coracle_seccomp::{Architecture, CapSet, Host, Instruction, KernelVersion, Profile, compile};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| {
    let Ok(profile) = Profile::parse(text) else { return };
    for architecture in [Architecture::X86_64, Architecture::Aarch64] {
        let host = Host { architecture, kernel: KernelVersion(6, 12) };
        for capabilities in [CapSet::default(), CapSet::from_iter(["SYS_ADMIN"])] {
            let Ok(resolved) = profile.resolve(&host, &capabilities) else { continue };
            let Ok(program) = compile(&resolved, architecture) else { continue };
            check(program.instructions());
            assert_eq!(program.bytes().len(), 8 * program.instructions().len());
        }
    }
});

/// `bpf_check_classic` of the kernel: jumps stay inside, and the last instruction returns.
fn check(program: &[Instruction]) {
    assert!(program.len() <= 4096);
    assert_eq!(program.last().expect("a program is never empty").code, 0x06);
    for (at, instruction) in program.iter().enumerate() {
        let reach = match instruction.code {
            0x05 => instruction.operand as usize,
            0x15 | 0x25 | 0x35 => usize::from(instruction.jump_true.max(instruction.jump_false)),
            _ => continue,
        };
        assert!(at + 1 + reach < program.len(), "instruction {at} jumps out");
    }
}
