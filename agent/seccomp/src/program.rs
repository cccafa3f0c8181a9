//! A compiled filter.

/// One instruction of classic BPF, `struct sock_filter`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Instruction {
    /// The operation.
    pub code: u16,
    /// How far to jump if a comparison holds.
    pub jump_true: u8,
    /// How far to jump if it does not.
    pub jump_false: u8,
    /// The operand.
    pub operand: u32,
}

/// A compiled filter, as `seccomp(2)` takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    instructions: Vec<Instruction>,
    bytes: Vec<u8>,
    flags: u32,
    unknown: Vec<String>,
}

impl Program {
    pub(crate) fn new(instructions: Vec<Instruction>, flags: u32, unknown: Vec<String>) -> Self {
        let bytes = instructions.iter().flat_map(|instruction| instruction.to_bytes()).collect();
        Self { instructions, bytes, flags, unknown }
    }

    /// The instructions.
    pub fn instructions(&self) -> &[Instruction] {
        &self.instructions
    }

    /// The instructions as an array of `struct sock_filter` in the host's byte order.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// `SECCOMP_FILTER_FLAG_*`.
    pub fn flags(&self) -> u32 {
        self.flags
    }

    /// Names in the profile that no architecture knows: a misspelling, or a call newer than this program.
    pub fn unknown(&self) -> &[String] {
        &self.unknown
    }
}

impl Instruction {
    fn to_bytes(self) -> [u8; 8] {
        let [c0, c1] = self.code.to_ne_bytes();
        let [k0, k1, k2, k3] = self.operand.to_ne_bytes();
        [c0, c1, self.jump_true, self.jump_false, k0, k1, k2, k3]
    }
}
