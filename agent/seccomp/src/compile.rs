//! From rules to instructions.
//!
//! A program looks at the architecture, then finds the call number by binary search among intervals of
//! numbers that have the same rules, then tries those rules. Each part is a piece of code that makes no
//! jump out of itself, so pieces are put together by concatenation, and where a piece is longer than
//! the 255 instructions a conditional jump can reach over, an unconditional one is put before it.
//!
//! For calls whose answer does not depend on arguments the kernel (since 5.11) runs the program once,
//! when it is installed, and keeps "always allowed" in a bitmap; it can do so only for loads of the
//! number and the architecture, comparisons with constants, and jumps, which is what is used here.

use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompFilterFlag};

use crate::Error;
use crate::architecture::{Abi, Architecture, X32_BIT};
use crate::program::{Instruction, Program};
use crate::rules::{Comparison, Condition, Rule, Rules};

/// BPF_MAXINSNS.
const MAX_INSTRUCTIONS: usize = 4096;

/// BPF_LD | BPF_W | BPF_ABS
const LOAD: u16 = 0x20;
/// BPF_ALU | BPF_AND | BPF_K
const AND: u16 = 0x54;
/// BPF_JMP | BPF_JA
const JUMP: u16 = 0x05;
/// BPF_JMP | BPF_JEQ | BPF_K
const JUMP_EQUAL: u16 = 0x15;
/// BPF_JMP | BPF_JGT | BPF_K
const JUMP_GREATER: u16 = 0x25;
/// BPF_JMP | BPF_JGE | BPF_K
const JUMP_GREATER_OR_EQUAL: u16 = 0x35;
/// BPF_RET | BPF_K
const RETURN: u16 = 0x06;

// Offsets into struct seccomp_data. The architectures supported are little-endian.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;

const RET_KILL_PROCESS: u32 = 0x8000_0000;
/// SECCOMP_RET_ERRNO | ENOSYS
const RET_ENOSYS: u32 = 0x0005_0026;

const FLAG_TSYNC: u32 = 1;
const FLAG_LOG: u32 = 2;
const FLAG_SPEC_ALLOW: u32 = 4;

/// Compiles OCI's `linux.seccomp` for a node.
///
/// # Errors
/// When it asks for notifications, holds a value out of range, or compiles to more than the kernel takes.
pub fn compile(profile: &LinuxSeccomp, architecture: Architecture) -> Result<Program, Error> {
    let rules = Rules::new(profile)?;
    let mut code = vec![load(ARCHITECTURE)];
    for abi in architecture.abis(profile.architectures().as_deref().unwrap_or_default()) {
        let mut section = vec![load(NUMBER)];
        section.extend(search(&intervals(&rules, abi), rules.default));
        code.push(jump(JUMP_EQUAL, abi.audit(), 1, 0));
        code.push(jump_over(&section));
        code.extend(section);
    }
    code.push(ret(RET_KILL_PROCESS));
    if code.len() > MAX_INSTRUCTIONS {
        return Err(Error::TooLong(code.len()));
    }
    Ok(Program::new(code, flags(profile), rules.unknown()))
}

/// The first number of an interval, and the rules of all numbers in it.
type Interval = (u32, Vec<Rule>);

/// The numbers from 0 up, divided where the rules change.
fn intervals(rules: &Rules<'_>, abi: Abi) -> Vec<Interval> {
    let mut intervals: Vec<Interval> = vec![(0, Vec::new())];
    let mut begin = |first: u32, rules: Vec<Rule>| match intervals.last_mut() {
        Some((_, same)) if *same == rules => {}
        Some((start, replaced)) if *start == first => *replaced = rules,
        _ => intervals.push((first, rules)),
    };
    for (number, call) in rules.by_number(abi) {
        // What comes to the same as no rule at all.
        let call = if call.iter().all(|rule| rule.action == rules.default) { Vec::new() } else { call };
        begin(number, call);
        begin(number.saturating_add(1), Vec::new());
    }
    if abi == Abi::X86_64 {
        begin(X32_BIT, vec![Rule { conditions: Vec::new(), action: RET_ENOSYS }]);
    }
    merge(intervals)
}

/// Joins neighbours with the same rules.
fn merge(intervals: Vec<Interval>) -> Vec<Interval> {
    let mut merged: Vec<Interval> = Vec::with_capacity(intervals.len());
    for interval in intervals {
        if merged.last().is_none_or(|(_, rules)| *rules != interval.1) {
            merged.push(interval);
        }
    }
    merged
}

/// Finds the interval of the number in the accumulator.
fn search(intervals: &[Interval], default: u32) -> Vec<Instruction> {
    if let [(_, rules)] = intervals {
        return decide(rules, default);
    }
    let (low, high) = intervals.split_at(intervals.len() / 2);
    let Some((first, _)) = high.first() else { return vec![ret(default)] };
    let (below, above) = (search(low, default), search(high, default));
    let mut code = match u8::try_from(below.len()) {
        Ok(length) => vec![jump(JUMP_GREATER_OR_EQUAL, *first, length, 0)],
        Err(_) => vec![jump(JUMP_GREATER_OR_EQUAL, *first, 0, 1), jump_over(&below)],
    };
    code.extend(below);
    code.extend(above);
    code
}

/// Tries rules in order.
fn decide(rules: &[Rule], default: u32) -> Vec<Instruction> {
    let mut code = Vec::new();
    for rule in rules {
        code.extend(attempt(rule));
        if rule.conditions.is_empty() {
            return code;
        }
    }
    code.push(ret(default));
    code
}

/// Returns the rule's action if its conditions hold, else goes on behind.
fn attempt(rule: &Rule) -> Vec<Instruction> {
    // From the end, so that the way to it is known: at most six conditions of six instructions.
    let mut code = vec![ret(rule.action)];
    for condition in rule.conditions.iter().rev() {
        let mut checked = check(condition, code.len() as u8);
        checked.append(&mut code);
        code = checked;
    }
    code
}

/// Goes on behind if the condition holds, else over the `rest` instructions that follow.
fn check(condition: &Condition, rest: u8) -> Vec<Instruction> {
    let offset = ARGUMENTS + condition.argument * 8;
    let (low, high) = (load(offset), load(offset + 4));
    let halves = |value: u64| (value as u32, (value >> 32) as u32);
    // In each list the last instruction jumps over `rest`, the ones before it over what is between too.
    match condition.comparison {
        Comparison::Equal(value) => {
            let (l, h) = halves(value);
            vec![high, jump(JUMP_EQUAL, h, 0, rest + 2), low, jump(JUMP_EQUAL, l, 0, rest)]
        }
        Comparison::NotEqual(value) => {
            let (l, h) = halves(value);
            vec![high, jump(JUMP_EQUAL, h, 0, 2), low, jump(JUMP_EQUAL, l, rest, 0)]
        }
        Comparison::Greater(value) => ordered(value, low, high, JUMP_GREATER, rest),
        Comparison::GreaterOrEqual(value) => ordered(value, low, high, JUMP_GREATER_OR_EQUAL, rest),
        Comparison::Less(value) => not_ordered(value, low, high, JUMP_GREATER_OR_EQUAL, rest),
        Comparison::LessOrEqual(value) => not_ordered(value, low, high, JUMP_GREATER, rest),
        Comparison::Masked { mask, value } => {
            let ((ml, mh), (l, h)) = (halves(mask), halves(value));
            let and = |mask| Instruction { code: AND, jump_true: 0, jump_false: 0, operand: mask };
            let mut code = Vec::with_capacity(6);
            // Flags are 32 bits mostly: nothing is asked of the upper half.
            if (mh, h) != (0, 0) {
                code.extend([high, and(mh), jump(JUMP_EQUAL, h, 0, rest + 3)]);
            }
            code.extend([low, and(ml), jump(JUMP_EQUAL, l, 0, rest)]);
            code
        }
    }
}

/// `argument > value`, or `>=`: the upper half is greater, or equal and the lower one is as `compare` says.
fn ordered(value: u64, low: Instruction, high: Instruction, compare: u16, rest: u8) -> Vec<Instruction> {
    let (l, h) = (value as u32, (value >> 32) as u32);
    vec![high, jump(JUMP_GREATER, h, 3, 0), jump(JUMP_EQUAL, h, 0, rest + 2), low, jump(compare, l, 0, rest)]
}

/// The opposite of [`ordered`].
fn not_ordered(value: u64, low: Instruction, high: Instruction, compare: u16, rest: u8) -> Vec<Instruction> {
    let (l, h) = (value as u32, (value >> 32) as u32);
    vec![high, jump(JUMP_GREATER, h, rest + 3, 0), jump(JUMP_EQUAL, h, 0, 2), low, jump(compare, l, rest, 0)]
}

fn load(offset: u32) -> Instruction {
    Instruction { code: LOAD, jump_true: 0, jump_false: 0, operand: offset }
}

fn jump(code: u16, operand: u32, jump_true: u8, jump_false: u8) -> Instruction {
    Instruction { code, jump_true, jump_false, operand }
}

fn jump_over(code: &[Instruction]) -> Instruction {
    // A piece longer than an u32 would not fit into memory.
    Instruction { code: JUMP, jump_true: 0, jump_false: 0, operand: code.len() as u32 }
}

fn ret(action: u32) -> Instruction {
    Instruction { code: RETURN, jump_true: 0, jump_false: 0, operand: action }
}

fn flags(profile: &LinuxSeccomp) -> u32 {
    match profile.flags() {
        // As runc: a filter is no reason to slow a program down by turning off speculative stores.
        None => FLAG_SPEC_ALLOW,
        Some(flags) => flags.iter().fold(0, |all, flag| {
            all | match flag {
                LinuxSeccompFilterFlag::SeccompFilterFlagLog => FLAG_LOG,
                LinuxSeccompFilterFlag::SeccompFilterFlagTsync => FLAG_TSYNC,
                LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => FLAG_SPEC_ALLOW,
                // Of meaning only where notifications are, and an error to the kernel elsewhere.
                LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv => 0,
            }
        }),
    }
}
