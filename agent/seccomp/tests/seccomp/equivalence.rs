//! Compiled programs decide as the profile reads.

use coracle_seccomp::{Architecture, compile};
use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompArgBuilder, LinuxSeccompOperator,
    LinuxSyscall,
};
use proptest::prelude::*;
use proptest::sample::select;
use syscalls::{x86, x86_64};

use super::machine::{Call, run};

const X86_64: u32 = 0xc000_003e;
const X86: u32 = 0x4000_0003;

/// The profile's answer, read from its first entry to its last.
fn expected(profile: &LinuxSeccomp, call: Call) -> u32 {
    let names_x86 = profile.architectures().as_ref().is_some_and(|all| all.contains(&Arch::ScmpArchX86));
    let name = match call.architecture {
        X86_64 if call.number >= 0x4000_0000 => return 0x0005_0026,
        X86_64 => x86_64::Sysno::new(call.number as usize).map(|call| call.name()),
        X86 if names_x86 => x86::Sysno::new(call.number as usize).map(|call| call.name()),
        _ => return 0x8000_0000,
    };
    for entry in profile.syscalls().iter().flatten() {
        if entry.names().iter().any(|listed| Some(listed.as_str()) == name) && matches(entry, call) {
            return answer(entry.action(), entry.errno_ret());
        }
    }
    answer(profile.default_action(), profile.default_errno_ret())
}

fn matches(entry: &LinuxSyscall, call: Call) -> bool {
    let conditions = entry.args().as_deref().unwrap_or_default();
    let holds = |condition: &LinuxSeccompArg| {
        let (argument, value) = (call.arguments[condition.index()], condition.value());
        match condition.op() {
            LinuxSeccompOperator::ScmpCmpEq => argument == value,
            LinuxSeccompOperator::ScmpCmpNe => argument != value,
            LinuxSeccompOperator::ScmpCmpLt => argument < value,
            LinuxSeccompOperator::ScmpCmpLe => argument <= value,
            LinuxSeccompOperator::ScmpCmpGt => argument > value,
            LinuxSeccompOperator::ScmpCmpGe => argument >= value,
            LinuxSeccompOperator::ScmpCmpMaskedEq => argument & value == condition.value_two().unwrap_or(0),
        }
    };
    let mut indices: Vec<usize> = conditions.iter().map(|condition| condition.index()).collect();
    indices.sort_unstable();
    indices.dedup();
    if indices.len() < conditions.len() {
        return conditions.iter().any(holds);
    }
    conditions.iter().all(holds)
}

fn answer(action: LinuxSeccompAction, errno: Option<u32>) -> u32 {
    action.as_u32(errno)
}

/// Numbers that are close to each other and to the edges of halves.
fn value() -> impl Strategy<Value = u64> {
    prop_oneof![
        0..4_u64,
        select(vec![
            u64::from(u32::MAX) - 1,
            u64::from(u32::MAX),
            1 << 32,
            (1 << 32) + 1,
            u64::MAX - 1,
            u64::MAX,
            0x7e02_0000,
        ]),
        any::<u64>(),
    ]
}

fn condition() -> impl Strategy<Value = LinuxSeccompArg> {
    let operators = vec![
        LinuxSeccompOperator::ScmpCmpEq,
        LinuxSeccompOperator::ScmpCmpNe,
        LinuxSeccompOperator::ScmpCmpLt,
        LinuxSeccompOperator::ScmpCmpLe,
        LinuxSeccompOperator::ScmpCmpGt,
        LinuxSeccompOperator::ScmpCmpGe,
        LinuxSeccompOperator::ScmpCmpMaskedEq,
    ];
    (0..6_usize, value(), proptest::option::of(value()), select(operators)).prop_map(
        |(index, value, value_two, op)| {
            let condition = LinuxSeccompArgBuilder::default().index(index).value(value).op(op);
            match value_two {
                Some(second) => condition.value_two(second),
                None => condition,
            }
            .build()
            .unwrap()
        },
    )
}

fn action() -> impl Strategy<Value = (LinuxSeccompAction, Option<u32>)> {
    let actions = vec![
        LinuxSeccompAction::ScmpActAllow,
        LinuxSeccompAction::ScmpActErrno,
        LinuxSeccompAction::ScmpActKill,
        LinuxSeccompAction::ScmpActKillProcess,
        LinuxSeccompAction::ScmpActKillThread,
        LinuxSeccompAction::ScmpActLog,
        LinuxSeccompAction::ScmpActTrace,
        LinuxSeccompAction::ScmpActTrap,
    ];
    (select(actions), proptest::option::of(0..4096_u32))
}

/// Few names, so that entries share them; now and then a great many, so that jumps get long.
fn entry() -> impl Strategy<Value = LinuxSyscall> {
    let near = ["read", "write", "open", "close", "stat", "clone", "socket", "waitpid", "nonsense"];
    let all: Vec<String> = x86_64::Sysno::iter().map(|call| call.name().to_owned()).collect();
    let near: Vec<String> = near.iter().map(|name| (*name).to_owned()).collect();
    let names = prop_oneof![
        4 => proptest::collection::vec(select(near), 1..4),
        1 => proptest::sample::subsequence(all, 1..300),
    ];
    (names, action(), proptest::collection::vec(condition(), 0..7)).prop_map(
        |(names, (action, errno), conditions)| {
            let mut entry = LinuxSyscall::default();
            entry.set_names(names).set_action(action).set_errno_ret(errno).set_args(Some(conditions));
            entry
        },
    )
}

fn profile() -> impl Strategy<Value = LinuxSeccomp> {
    (action(), any::<bool>(), proptest::collection::vec(entry(), 0..8)).prop_map(
        |((action, errno), x86, entries)| {
            let mut profile = LinuxSeccomp::default();
            profile
                .set_default_action(action)
                .set_default_errno_ret(errno)
                .set_architectures(x86.then(|| vec![Arch::ScmpArchX86, Arch::ScmpArchX32, Arch::ScmpArchArm]))
                .set_syscalls(Some(entries));
            profile
        },
    )
}

fn call() -> impl Strategy<Value = Call> {
    let number = prop_oneof![
        6 => 0..480_u32,
        1 => select(vec![0x4000_0000 - 1, 0x4000_0000, 0x4000_0001, u32::MAX]),
        1 => any::<u32>(),
    ];
    let architecture = prop_oneof![6 => Just(X86_64), 2 => Just(X86), 1 => any::<u32>()];
    (number, architecture, [value(), value(), value(), value(), value(), value()])
        .prop_map(|(number, architecture, arguments)| Call { number, architecture, arguments })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_program_decides_as_its_profile_reads(
        profile in profile(),
        calls in proptest::collection::vec(call(), 64),
    ) {
        let program = match compile(&profile, Architecture::X86_64) {
            Ok(program) => program,
            // Seven conditions on each of 300 calls, twice over, is more than the kernel takes.
            Err(coracle_seccomp::Error::TooLong(length)) => {
                prop_assert!(length > 4096);
                return Ok(());
            }
            Err(error) => return Err(TestCaseError::fail(error.to_string())),
        };
        // The values of the conditions themselves, where off-by-ones live.
        let edges: Vec<(usize, u64)> = profile.syscalls().iter().flatten()
            .flat_map(|entry| entry.args().iter().flatten())
            .flat_map(|c| {
                // For a mask, arguments that have the bits asked for, in either half or both.
                let second = c.value_two().unwrap_or(0);
                [c.value(), c.value().wrapping_add(1), c.value().wrapping_sub(1), second, second & c.value()]
                    .map(|value| (c.index(), value))
            })
            .collect();
        for (at, mut call) in calls.into_iter().enumerate() {
            if let Some((index, value)) = edges.get(at % (edges.len() + 1)) {
                call.arguments[*index] = *value;
            }
            let (got, _) = run(program.instructions(), call);
            prop_assert_eq!(got, expected(&profile, call), "{:?}", call);
        }
    }
}

#[test]
fn each_half_of_a_mask_counts() {
    const HIGH: u64 = 1 << 32;
    for mask in [0, 1, HIGH, HIGH | 1] {
        for value in [0, 1, HIGH, HIGH | 1] {
            let condition = LinuxSeccompArgBuilder::default()
                .index(2_usize)
                .value(mask)
                .value_two(value)
                .op(LinuxSeccompOperator::ScmpCmpMaskedEq)
                .build()
                .unwrap();
            let mut entry = LinuxSyscall::default();
            entry.set_names(vec!["read".into()]).set_args(Some(vec![condition]));
            let mut profile = LinuxSeccomp::default();
            profile.set_default_action(LinuxSeccompAction::ScmpActErrno).set_syscalls(Some(vec![entry]));
            let program = compile(&profile, Architecture::X86_64).unwrap();
            for argument in [0, 1, HIGH, HIGH | 1, u64::MAX] {
                let call = Call { number: 0, architecture: X86_64, arguments: [0, 0, argument, 0, 0, 0] };
                let (got, _) = run(program.instructions(), call);
                assert_eq!(got, expected(&profile, call), "{argument:#x} & {mask:#x} == {value:#x}");
            }
        }
    }
}
