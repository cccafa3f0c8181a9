//! A device policy as a program of type `BPF_PROG_TYPE_CGROUP_DEVICE`.
//!
//! The kernel runs it with `struct bpf_cgroup_dev_ctx` for every open and mknod of a device node in the
//! cgroup; a result of 1 allows. The numbers are those of `include/uapi/linux/bpf.h`.

use coracle_linux::bpf::Insn;

use super::{Access, DeviceKind, DevicePolicy, DeviceRule};

/// The programs' name, by which they are known again when a policy is replaced.
pub(crate) const NAME: &str = "coracle_device";

const BPF_DEVCG_ACC_MKNOD: i32 = 1;
const BPF_DEVCG_ACC_READ: i32 = 2;
const BPF_DEVCG_ACC_WRITE: i32 = 4;
const BPF_DEVCG_DEV_BLOCK: i32 = 1;
const BPF_DEVCG_DEV_CHAR: i32 = 2;

/// BPF_LDX | BPF_W | BPF_MEM
const LOAD_U32: u8 = 0x61;
/// BPF_ALU | BPF_MOV | BPF_X
const MOV32_REGISTER: u8 = 0xbc;
/// BPF_ALU | BPF_RSH | BPF_K
const SHIFT_RIGHT32: u8 = 0x74;
/// BPF_ALU | BPF_AND | BPF_K
const AND32: u8 = 0x54;
/// BPF_JMP32 | BPF_JNE | BPF_K
const JUMP32_NOT_EQUAL: u8 = 0x56;
/// BPF_JMP32 | BPF_JNE | BPF_X
const JUMP32_NOT_EQUAL_REGISTER: u8 = 0x5e;
/// BPF_ALU64 | BPF_MOV | BPF_K
const MOV64: u8 = 0xb7;
/// BPF_JMP | BPF_EXIT
const EXIT: u8 = 0x95;

// Registers. The context comes in R1, the result goes out in R0.
const RESULT: u8 = 0;
const CONTEXT: u8 = 1;
const SCRATCH: u8 = 1;
const KIND: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

/// The program of a policy.
pub(crate) fn assemble(policy: &DevicePolicy) -> Vec<Insn> {
    let rules = match policy {
        DevicePolicy::All => return vec![Insn::new(MOV64, RESULT, 0, 0, 1), Insn::new(EXIT, 0, 0, 0, 0)],
        DevicePolicy::Only(rules) => rules,
    };
    let mut program = vec![
        // access_type holds the access in its upper half, the kind in its lower.
        Insn::new(LOAD_U32, KIND, CONTEXT, 0, 0),
        Insn::new(LOAD_U32, MAJOR, CONTEXT, 4, 0),
        Insn::new(LOAD_U32, MINOR, CONTEXT, 8, 0),
        Insn::new(MOV32_REGISTER, ACCESS, KIND, 0, 0),
        Insn::new(SHIFT_RIGHT32, ACCESS, 0, 0, 16),
        Insn::new(AND32, KIND, 0, 0, 0xffff),
    ];
    for rule in rules {
        allow(&mut program, rule);
    }
    program.extend([Insn::new(MOV64, RESULT, 0, 0, 0), Insn::new(EXIT, 0, 0, 0, 0)]);
    program
}

/// Appends: return 1 if the rule allows all that is asked, else go on behind.
fn allow(program: &mut Vec<Insn>, rule: &DeviceRule) {
    /// A check before its distance to the rule's end is known.
    enum Check {
        Plain(Insn),
        Jump(u8, u8, u8, i32),
    }
    let kind = match rule.kind {
        DeviceKind::Char => BPF_DEVCG_DEV_CHAR,
        DeviceKind::Block => BPF_DEVCG_DEV_BLOCK,
    };
    let mut checks = vec![Check::Jump(JUMP32_NOT_EQUAL, KIND, 0, kind)];
    if rule.access != Access::ALL {
        checks.push(Check::Plain(Insn::new(MOV32_REGISTER, SCRATCH, ACCESS, 0, 0)));
        checks.push(Check::Plain(Insn::new(AND32, SCRATCH, 0, 0, access_bits(rule.access))));
        checks.push(Check::Jump(JUMP32_NOT_EQUAL_REGISTER, SCRATCH, ACCESS, 0));
    }
    for (register, number) in [(MAJOR, rule.major), (MINOR, rule.minor)] {
        if let Some(number) = number {
            checks.push(Check::Jump(JUMP32_NOT_EQUAL, register, 0, number.cast_signed()));
        }
    }
    // Behind the checks come two instructions that allow; at most eight are jumped over in all.
    let length = checks.len() as i16 + 2;
    for (index, check) in (0_i16..).zip(checks) {
        program.push(match check {
            Check::Plain(insn) => insn,
            Check::Jump(code, left, right, value) => Insn::new(code, left, right, length - index - 1, value),
        });
    }
    program.extend([Insn::new(MOV64, RESULT, 0, 0, 1), Insn::new(EXIT, 0, 0, 0, 0)]);
}

fn access_bits(access: Access) -> i32 {
    let bit = |set, bit| if set { bit } else { 0 };
    bit(access.read, BPF_DEVCG_ACC_READ)
        | bit(access.write, BPF_DEVCG_ACC_WRITE)
        | bit(access.mknod, BPF_DEVCG_ACC_MKNOD)
}

#[cfg(test)]
mod tests {
    use super::*;

    const READ: i32 = BPF_DEVCG_ACC_READ;
    const WRITE: i32 = BPF_DEVCG_ACC_WRITE;
    const MKNOD: i32 = BPF_DEVCG_ACC_MKNOD;

    /// Runs the instructions the assembler uses.
    fn run(program: &[Insn], kind: i32, access: i32, major: u32, minor: u32) -> bool {
        let context = [(access << 16 | kind).cast_unsigned(), major, minor];
        let mut registers = [0_u64; 6];
        let mut at = 0;
        loop {
            let insn = program[at];
            let (to, from) = (usize::from(insn.destination()), usize::from(insn.source()));
            let low = |register: u64| register as u32;
            let value = insn.immediate().cast_unsigned();
            at += 1;
            match insn.code() {
                LOAD_U32 => registers[to] = u64::from(context[insn.offset() as usize / 4]),
                MOV32_REGISTER => registers[to] = u64::from(low(registers[from])),
                SHIFT_RIGHT32 => registers[to] = u64::from(low(registers[to]) >> value),
                AND32 => registers[to] = u64::from(low(registers[to]) & value),
                JUMP32_NOT_EQUAL if low(registers[to]) != value => at += insn.offset() as usize,
                JUMP32_NOT_EQUAL_REGISTER if low(registers[to]) != low(registers[from]) => {
                    at += insn.offset() as usize;
                }
                JUMP32_NOT_EQUAL | JUMP32_NOT_EQUAL_REGISTER => {}
                MOV64 => registers[to] = u64::from(value),
                EXIT => return registers[0] == 1,
                other => panic!("unknown instruction {other:#x}"),
            }
        }
    }

    /// The meaning of a policy.
    fn allowed(policy: &DevicePolicy, kind: i32, access: i32, major: u32, minor: u32) -> bool {
        match policy {
            DevicePolicy::All => true,
            DevicePolicy::Only(rules) => rules.iter().any(|rule| {
                (rule.kind == DeviceKind::Char) == (kind == BPF_DEVCG_DEV_CHAR)
                    && access & !access_bits(rule.access) == 0
                    && rule.major.is_none_or(|wanted| wanted == major)
                    && rule.minor.is_none_or(|wanted| wanted == minor)
            }),
        }
    }

    #[test]
    fn the_program_decides_as_the_rules_say() {
        let kvm = DeviceRule {
            kind: DeviceKind::Char,
            major: Some(10),
            minor: Some(232),
            access: Access { read: true, write: true, mknod: false },
        };
        let disk = DeviceRule { kind: DeviceKind::Block, major: Some(8), minor: None, access: Access::READ };
        let huge = DeviceRule { kind: DeviceKind::Char, major: Some(u32::MAX), minor: Some(u32::MAX), ..kvm };
        let policies = [
            DevicePolicy::All,
            DevicePolicy::Only(vec![]),
            DevicePolicy::default(),
            DevicePolicy::default_with([kvm, disk, huge]),
        ];
        let numbers = [0, 1, 2, 3, 5, 8, 9, 10, 136, 232, u32::MAX];
        let mut decisions = [0, 0];
        for policy in &policies {
            let program = assemble(policy);
            for kind in [BPF_DEVCG_DEV_BLOCK, BPF_DEVCG_DEV_CHAR] {
                for access in 0..8 {
                    for major in numbers {
                        for minor in numbers {
                            let expected = allowed(policy, kind, access, major, minor);
                            let got = run(&program, kind, access, major, minor);
                            assert_eq!(got, expected, "{policy:?} {kind} {access} {major}:{minor}");
                            decisions[usize::from(expected)] += 1;
                        }
                    }
                }
            }
        }
        assert!(decisions[0] > 1000 && decisions[1] > 1000, "both answers must be tried: {decisions:?}");
    }

    #[test]
    fn the_default_opens_null_and_no_disk() {
        let program = assemble(&DevicePolicy::default());
        assert!(run(&program, BPF_DEVCG_DEV_CHAR, READ | WRITE, 1, 3));
        assert!(run(&program, BPF_DEVCG_DEV_CHAR, READ | WRITE, 136, 7));
        assert!(run(&program, BPF_DEVCG_DEV_BLOCK, MKNOD, 8, 0));
        assert!(!run(&program, BPF_DEVCG_DEV_BLOCK, READ, 8, 0));
        assert!(!run(&program, BPF_DEVCG_DEV_BLOCK, READ | MKNOD, 8, 0));
        assert!(!run(&program, BPF_DEVCG_DEV_CHAR, READ, 1, 1), "/dev/mem");
        assert!(!run(&program, BPF_DEVCG_DEV_CHAR, READ, 10, 229), "/dev/fuse");
    }

    #[test]
    fn rules_read_as_cgroup_v1_has_them() {
        let DevicePolicy::Only(rules) = DevicePolicy::default() else { panic!("the default has rules") };
        assert_eq!(rules[0].to_string(), "c 1:3 rwm");
        assert_eq!(rules[8].to_string(), "c 136:* rwm");
        assert_eq!(rules[10].to_string(), "b *:* m");
    }
}
