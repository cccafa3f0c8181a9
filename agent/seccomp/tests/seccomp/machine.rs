//! The kernel's BPF machine, as far as seccomp programs use it.

use coracle_seccomp::Instruction;

/// `struct seccomp_data`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call {
    pub(crate) number: u32,
    pub(crate) architecture: u32,
    pub(crate) arguments: [u64; 6],
}

/// The program's answer, and how many instructions it took.
pub(crate) fn run(program: &[Instruction], call: Call) -> (u32, usize) {
    let load = |offset: u32| match offset {
        0 => call.number,
        4 => call.architecture,
        16..64 if offset.is_multiple_of(4) => {
            let argument = call.arguments[(offset as usize - 16) / 8];
            if offset.is_multiple_of(8) { argument as u32 } else { (argument >> 32) as u32 }
        }
        _ => panic!("load from {offset}"),
    };
    let (mut accumulator, mut at, mut steps) = (0_u32, 0_usize, 0);
    loop {
        let instruction = program[at];
        let operand = instruction.operand;
        let branch = |taken| usize::from(if taken { instruction.jump_true } else { instruction.jump_false });
        at += 1;
        steps += 1;
        match instruction.code {
            0x20 => accumulator = load(operand),
            0x54 => accumulator &= operand,
            0x05 => at += operand as usize,
            0x15 => at += branch(accumulator == operand),
            0x25 => at += branch(accumulator > operand),
            0x35 => at += branch(accumulator >= operand),
            0x06 => return (operand, steps),
            other => panic!("instruction {other:#x}"),
        }
    }
}
