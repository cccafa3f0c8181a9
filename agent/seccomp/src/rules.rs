//! A profile's entries as rules by call number.

use std::collections::{BTreeMap, BTreeSet};

use oci_spec::runtime::{
    LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompOperator, LinuxSyscall,
};

use crate::Error;
use crate::architecture::{Abi, is_known};

/// The errno of actions that give none: EPERM.
const EPERM: u32 = 1;
/// MAX_ERRNO, to which the kernel cuts.
const MAX_ERRNO: u32 = 4095;

/// A comparison of an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Condition {
    /// 0 to 5.
    pub(crate) argument: u32,
    pub(crate) comparison: Comparison,
}

/// How an argument, an unsigned number of 64 bits, is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Comparison {
    Equal(u64),
    NotEqual(u64),
    Less(u64),
    LessOrEqual(u64),
    Greater(u64),
    GreaterOrEqual(u64),
    /// The bits of `mask` are those of `value`.
    Masked {
        mask: u64,
        value: u64,
    },
}

/// Conditions that must all hold, and what is done then.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Rule {
    /// None: always.
    pub(crate) conditions: Vec<Condition>,
    /// `SECCOMP_RET_*`.
    pub(crate) action: u32,
}

/// What a profile says, before call numbers: by entry, its names and the rules of each.
pub(crate) struct Rules<'a> {
    /// `SECCOMP_RET_*` of a call that no rule decides.
    pub(crate) default: u32,
    entries: Vec<(&'a [String], Vec<Rule>)>,
}

// === impl Rules ===

impl<'a> Rules<'a> {
    pub(crate) fn new(profile: &'a LinuxSeccomp) -> Result<Self, Error> {
        if profile.listener_path().is_some() {
            return Err(Error::Notify("listenerPath".into()));
        }
        let default_errno = profile.default_errno_ret();
        let default = action(profile.default_action(), default_errno, "defaultAction")?;
        let mut entries = Vec::new();
        for (index, entry) in profile.syscalls().iter().flatten().enumerate() {
            if entry.names().is_empty() {
                return Err(Error::NoNames(index));
            }
            entries.push((entry.names().as_slice(), rules(entry)?));
        }
        Ok(Self { default, entries })
    }

    /// The rules of each call number of a calling convention, in the profile's order, up to the first
    /// that always matches.
    pub(crate) fn by_number(&self, abi: Abi) -> BTreeMap<u32, Vec<Rule>> {
        let mut calls: BTreeMap<u32, Vec<Rule>> = BTreeMap::new();
        for (names, rules) in &self.entries {
            for number in names.iter().filter_map(|name| abi.number(name)) {
                let call = calls.entry(number).or_default();
                let decided = call.last().is_some_and(|rule| rule.conditions.is_empty());
                if !decided {
                    call.extend(rules.iter().cloned());
                }
            }
        }
        calls
    }

    /// Names that no architecture has.
    pub(crate) fn unknown(&self) -> Vec<String> {
        let names = self.entries.iter().flat_map(|(names, _)| names.iter());
        names.filter(|name| !is_known(name)).collect::<BTreeSet<_>>().into_iter().cloned().collect()
    }
}

fn rules(entry: &LinuxSyscall) -> Result<Vec<Rule>, Error> {
    let name = entry.names().first().map_or("", String::as_str);
    let action = action(entry.action(), entry.errno_ret(), name)?;
    let arguments = entry.args().as_deref().unwrap_or_default();
    let conditions =
        arguments.iter().map(|argument| condition(argument, name)).collect::<Result<Vec<_>, _>>()?;
    let distinct: BTreeSet<u32> = conditions.iter().map(|condition| condition.argument).collect();
    if distinct.len() < conditions.len() {
        return Ok(conditions.into_iter().map(|c| Rule { conditions: vec![c], action }).collect());
    }
    Ok(vec![Rule { conditions, action }])
}

fn condition(argument: &LinuxSeccompArg, name: &str) -> Result<Condition, Error> {
    let index = argument.index();
    let value = argument.value();
    if index > 5 {
        return Err(Error::ArgumentIndex { name: name.to_owned(), index });
    }
    let comparison = match argument.op() {
        LinuxSeccompOperator::ScmpCmpEq => Comparison::Equal(value),
        LinuxSeccompOperator::ScmpCmpNe => Comparison::NotEqual(value),
        LinuxSeccompOperator::ScmpCmpLt => Comparison::Less(value),
        LinuxSeccompOperator::ScmpCmpLe => Comparison::LessOrEqual(value),
        LinuxSeccompOperator::ScmpCmpGt => Comparison::Greater(value),
        LinuxSeccompOperator::ScmpCmpGe => Comparison::GreaterOrEqual(value),
        // OCI's own types leave `valueTwo` out where it is 0.
        LinuxSeccompOperator::ScmpCmpMaskedEq => {
            Comparison::Masked { mask: value, value: argument.value_two().unwrap_or(0) }
        }
    };
    Ok(Condition { argument: index as u32, comparison })
}

/// `SECCOMP_RET_*` of an action.
fn action(action: LinuxSeccompAction, errno: Option<u32>, what: &str) -> Result<u32, Error> {
    let data = errno.unwrap_or(EPERM);
    Ok(match action {
        LinuxSeccompAction::ScmpActNotify => {
            return Err(Error::Notify(format!("SCMP_ACT_NOTIFY ({what})")));
        }
        LinuxSeccompAction::ScmpActErrno | LinuxSeccompAction::ScmpActTrace if data > MAX_ERRNO => {
            return Err(Error::Errno(data));
        }
        LinuxSeccompAction::ScmpActErrno => 0x0005_0000 | data,
        LinuxSeccompAction::ScmpActTrace => 0x7ff0_0000 | data,
        LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => 0x0000_0000,
        LinuxSeccompAction::ScmpActKillProcess => 0x8000_0000,
        LinuxSeccompAction::ScmpActTrap => 0x0003_0000,
        LinuxSeccompAction::ScmpActLog => 0x7ffc_0000,
        LinuxSeccompAction::ScmpActAllow => 0x7fff_0000,
    })
}
