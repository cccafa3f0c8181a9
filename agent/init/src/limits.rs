//! Resource limits.

use oci_spec::runtime::{PosixRlimit, PosixRlimitType};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::failure::{Context, Result, Step};

pub(crate) fn parse(limit: &PosixRlimit) -> (Resource, Rlimit) {
    let value = |number: u64| (number != u64::MAX).then_some(number);
    (resource(limit.typ()), Rlimit { current: value(limit.soft()), maximum: value(limit.hard()) })
}

/// Sets the limits. One this host does not let us raise (CAP_SYS_RESOURCE) is set as high as may be, and
/// said.
pub(crate) fn apply(limits: &[(Resource, Rlimit)]) -> Result<Vec<String>> {
    let mut warnings = Vec::new();
    for (resource, wanted) in limits {
        let what = format!("setting {resource:?}");
        match setrlimit(*resource, *wanted) {
            Err(Errno::PERM) => {
                let ceiling = getrlimit(*resource).maximum;
                let granted = Rlimit {
                    current: lower(wanted.current, ceiling),
                    maximum: lower(wanted.maximum, ceiling),
                };
                setrlimit(*resource, granted).at(Step::ResourceLimit, &what)?;
                warnings.push(format!(
                    "resource limit {resource:?}: this host grants {}, not {}",
                    show(granted.maximum),
                    show(wanted.maximum)
                ));
            }
            result => result.at(Step::ResourceLimit, &what)?,
        }
    }
    Ok(warnings)
}

/// The lower of two limits, of which `None` is none.
fn lower(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

fn show(limit: Option<u64>) -> String {
    limit.map_or_else(|| "unlimited".to_owned(), |limit| limit.to_string())
}

fn resource(kind: PosixRlimitType) -> Resource {
    match kind {
        PosixRlimitType::RlimitCpu => Resource::Cpu,
        PosixRlimitType::RlimitFsize => Resource::Fsize,
        PosixRlimitType::RlimitData => Resource::Data,
        PosixRlimitType::RlimitStack => Resource::Stack,
        PosixRlimitType::RlimitCore => Resource::Core,
        PosixRlimitType::RlimitRss => Resource::Rss,
        PosixRlimitType::RlimitNproc => Resource::Nproc,
        PosixRlimitType::RlimitNofile => Resource::Nofile,
        PosixRlimitType::RlimitMemlock => Resource::Memlock,
        PosixRlimitType::RlimitAs => Resource::As,
        PosixRlimitType::RlimitLocks => Resource::Locks,
        PosixRlimitType::RlimitSigpending => Resource::Sigpending,
        PosixRlimitType::RlimitMsgqueue => Resource::Msgqueue,
        PosixRlimitType::RlimitNice => Resource::Nice,
        PosixRlimitType::RlimitRtprio => Resource::Rtprio,
        PosixRlimitType::RlimitRttime => Resource::Rttime,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lower_limit_wins_and_none_is_the_highest() {
        assert_eq!(lower(Some(1), Some(2)), Some(1));
        assert_eq!(lower(None, Some(2)), Some(2));
        assert_eq!(lower(Some(1), None), Some(1));
        assert_eq!(lower(None, None), None);
    }
}
