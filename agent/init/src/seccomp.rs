//! Reading a compiled seccomp program.

use coracle_init::protocol::Seccomp;
use coracle_linux::SeccompInstruction;
use rustix::fs::fstat;

use crate::descriptors::Descriptors;
use crate::failure::{Context, Result, Step};
use crate::process::Filter;

/// The size of `struct sock_filter`.
const INSTRUCTION: usize = 8;

/// The longest program the kernel takes: `BPF_MAXINSNS`.
const MAX_INSTRUCTIONS: usize = 4096;

pub(crate) fn read(seccomp: Option<Seccomp>, descriptors: &mut Descriptors) -> Result<Option<Filter>> {
    let Some(seccomp) = seccomp else { return Ok(None) };
    let file = descriptors.take(seccomp.program)?;
    let size = fstat(&file).at(Step::Seccomp, "looking at the program")?.st_size;
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    if size == 0 || !size.is_multiple_of(INSTRUCTION) || size > MAX_INSTRUCTIONS * INSTRUCTION {
        return Err(Step::Seccomp.refuse(None, format_args!("a program of {size} bytes is none")));
    }
    let mut bytes = vec![0; size];
    let read = rustix::io::pread(&file, &mut bytes, 0).at(Step::Seccomp, "reading the program")?;
    if read != size {
        return Err(Step::Seccomp.refuse(None, "the program is cut short"));
    }
    Ok(Some(Filter { program: parse(&bytes), flags: seccomp.flags }))
}

fn parse(bytes: &[u8]) -> Vec<SeccompInstruction> {
    let (instructions, _) = bytes.as_chunks::<INSTRUCTION>();
    instructions
        .iter()
        .map(|&[c0, c1, jump_true, jump_false, k0, k1, k2, k3]| SeccompInstruction {
            code: u16::from_ne_bytes([c0, c1]),
            jump_true,
            jump_false,
            operand: u32::from_ne_bytes([k0, k1, k2, k3]),
        })
        .collect()
}
